//! Parts on an I2C bus, through the kernel's /dev/i2c-N.

mod recovery;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use schemars::JsonSchema;
use serde::Deserialize;

use super::part::{About, Chip, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::trouble::Trouble;

pub use recovery::{Recovery, Wires};

/// On I2C.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct I2cPlace {
    /// The bus: 1 for /dev/i2c-1, on pins 3 (SDA) and 5 (SCL) of the header. Default: 1.
    #[serde(default = "usual_bus")]
    bus: u8,
    /// The 7-bit address, such as `0x76`; `i2cdetect -y 1` of i2c-tools shows which answer. Default: the part's usual one.
    address: Option<u8>,
}

fn usual_bus() -> u8 {
    1
}

/// The way to one part on a bus. Clones are the same one.
#[derive(Clone)]
pub struct I2cLink {
    address: u8,
    port: Arc<Mutex<dyn I2cPort>>,
    is_simulated: bool,
}

/// Waits as a chip needs it; not at all for a simulated one.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    is_simulated: bool,
}

/// One end of the bus: takes a transaction to one address.
trait I2cPort: Send {
    fn transact(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Trouble>;
}

/// A simulated chip, at the level of its bytes.
pub trait I2cTwin: Send {
    /// What is written in one go.
    fn write(&mut self, bytes: &[u8]);
    /// Fills what is read in one go.
    fn read(&mut self, into: &mut [u8]);
}

/// A simulated chip of 8-bit registers: the first byte written is the register, which counts up with each byte.
pub trait RegisterTwin: Send {
    fn get(&mut self, register: u8) -> u8;
    fn set(&mut self, register: u8, value: u8);
}

/// A simulated chip of 16-bit registers, high byte first: the first byte written is the register.
pub trait WordTwin: Send {
    fn get(&mut self, register: u8) -> u16;
    fn set(&mut self, register: u8, value: u16);
}

impl Place for I2cPlace {
    type Link = I2cLink;
    type Twin = Box<dyn I2cTwin>;
    const BY: &'static str = "I2C";

    fn problems(&self, about: &About) -> Vec<(&'static str, String)> {
        let Some(address) = self.address else {
            return Vec::new();
        };
        if about.addresses.contains(&address) {
            return Vec::new();
        }
        let known: Vec<String> = about
            .addresses
            .iter()
            .map(|it| format!("{it:#04x}"))
            .collect();
        let message = format!(
            "{address:#04x} is not an address of this part; it has {}",
            known.join(", ")
        );
        vec![("address", message)]
    }

    fn bus(&self) -> String {
        format!("i2c-{}", self.bus)
    }

    fn describe(&self, about: &About) -> String {
        format!("I2C {} at {:#04x}", self.bus, self.address(about))
    }

    fn pins(&self) -> Pins {
        match self.bus {
            0 => Pins::Taken(&[0, 1]),
            1 => Pins::Taken(&[2, 3]),
            // Which ones is decided by its overlay.
            _ => Pins::None,
        }
    }

    fn link(&self, about: &About, hardware: &Hardware) -> Result<I2cLink, Trouble> {
        let path = hardware.dev.join(format!("i2c-{}", self.bus));
        let address = self.address(about);
        let port = Device::open(&path, self.bus, address, hardware)?;
        Ok(I2cLink {
            address,
            port: Arc::new(Mutex::new(port)),
            is_simulated: false,
        })
    }

    fn simulate<P: Part<Place = I2cPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        part.open(I2cLink::to(self.address(&P::ABOUT), part.twin(scene)))
    }
}

impl I2cPlace {
    fn address(&self, about: &About) -> u8 {
        let usual = about.addresses.first();
        self.address
            .or(usual.copied())
            .expect("a part on I2C has an address")
    }
}

impl I2cLink {
    /// To a simulated chip.
    pub(super) fn to(address: u8, twin: Box<dyn I2cTwin>) -> I2cLink {
        I2cLink {
            address,
            port: Arc::new(Mutex::new(Simulated(twin))),
            is_simulated: true,
        }
    }

    pub fn address(&self) -> u8 {
        self.address
    }

    pub fn delay(&self) -> Delay {
        Delay {
            is_simulated: self.is_simulated,
        }
    }

    pub fn wait_ms(&self, ms: u64) {
        self.delay().wait(Duration::from_millis(ms));
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.transact(&mut [Operation::Write(bytes)])
    }

    pub fn receive<const N: usize>(&mut self) -> Result<[u8; N], Trouble> {
        let mut bytes = [0; N];
        self.transact(&mut [Operation::Read(&mut bytes)])?;
        Ok(bytes)
    }

    /// Writes, and reads after a repeated start.
    pub fn ask<const N: usize>(&mut self, bytes: &[u8]) -> Result<[u8; N], Trouble> {
        let mut answer = [0; N];
        self.transact(&mut [Operation::Write(bytes), Operation::Read(&mut answer)])?;
        Ok(answer)
    }

    pub fn register(&mut self, register: u8) -> Result<u8, Trouble> {
        self.ask::<1>(&[register]).map(|[value]| value)
    }

    /// A 16-bit register, high byte first.
    pub fn word(&mut self, register: u8) -> Result<u16, Trouble> {
        self.ask(&[register]).map(u16::from_be_bytes)
    }

    pub fn set_word(&mut self, register: u8, value: u16) -> Result<(), Trouble> {
        let [high, low] = value.to_be_bytes();
        self.send(&[register, high, low])
    }

    fn transact(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Trouble> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.transact(operations)
    }
}

/// For driver crates. They see one part only, whatever address they say.
impl I2c for I2cLink {
    fn transaction(&mut self, _: u8, operations: &mut [Operation<'_>]) -> Result<(), Trouble> {
        self.transact(operations)
    }
}

impl ErrorType for I2cLink {
    type Error = Trouble;
}

impl embedded_hal::i2c::Error for Trouble {
    fn kind(&self) -> ErrorKind {
        match self {
            Trouble::NoAnswer => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown),
            _ => ErrorKind::Other,
        }
    }
}

impl Delay {
    pub fn wait(self, span: Duration) {
        if !self.is_simulated {
            thread::sleep(span);
        }
    }
}

impl DelayNs for Delay {
    fn delay_ns(&mut self, ns: u32) {
        self.wait(Duration::from_nanos(ns.into()));
    }
}

/// The kernel's character device, with one part's address.
struct Device {
    path: PathBuf,
    bus: u8,
    wires: fn(u8) -> Option<Box<dyn Wires>>,
    #[cfg(target_os = "linux")]
    inner: i2cdev::linux::LinuxI2CDevice,
}

#[cfg(target_os = "linux")]
impl Device {
    /// To set the address fails if a driver of the kernel has it.
    fn open(path: &Path, bus: u8, address: u8, hardware: &Hardware) -> Result<Device, Trouble> {
        use i2cdev::linux::LinuxI2CDevice;
        let inner = LinuxI2CDevice::new(path, address.into()).map_err(|error| {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::ResourceBusy => Trouble::Claimed {
                    driver: driver_of(hardware, bus, address),
                },
                io::ErrorKind::NotFound => Trouble::NoBus {
                    path: path.to_owned(),
                    remedy: switch_on(bus),
                },
                io::ErrorKind::PermissionDenied => Trouble::Permission {
                    path: path.to_owned(),
                    group: "i2c",
                },
                _ => Trouble::Io {
                    path: path.to_owned(),
                    source: error,
                },
            }
        })?;
        Ok(Device {
            path: path.to_owned(),
            bus,
            wires: hardware.wires,
            inner,
        })
    }
}

impl Device {
    /// After a time-out: frees the bus if a chip holds it, so that the next reading finds it free.
    fn free(&self) -> Option<Recovery> {
        let mut wires = (self.wires)(self.bus)?;
        let recovery = recovery::recover(wires.as_mut());
        match recovery {
            Recovery::Freed { clocks } => tracing::warn!(
                "I2C {}: a chip held the data line; it let go after {clocks} clocks",
                self.bus
            ),
            Recovery::Stuck | Recovery::ClockStuck => tracing::warn!(
                "I2C {}: a line is held low and cannot be freed: look for a short circuit, or switch the sensors' supply off and on",
                self.bus
            ),
            Recovery::NotStuck => {}
        }
        Some(recovery)
    }
}

#[cfg(target_os = "linux")]
impl I2cPort for Device {
    fn transact(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Trouble> {
        use i2cdev::core::{I2CMessage, I2CTransfer};
        use i2cdev::linux::LinuxI2CMessage;
        let mut messages: Vec<LinuxI2CMessage<'_>> = operations
            .iter_mut()
            .map(|operation| match operation {
                Operation::Read(into) => LinuxI2CMessage::read(into),
                Operation::Write(bytes) => LinuxI2CMessage::write(bytes),
            })
            .collect();
        match self.inner.transfer(&mut messages) {
            Ok(_) => Ok(()),
            Err(error) => {
                let trouble = failed(&self.path, error.into());
                if matches!(trouble, Trouble::TimedOut { .. }) {
                    self.free();
                }
                Err(trouble)
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Device {
    fn open(path: &Path, _: u8, _: u8, _: &Hardware) -> Result<Device, Trouble> {
        Err(Trouble::NoBus {
            path: path.to_owned(),
            remedy: "I2C needs Linux".to_owned(),
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl I2cPort for Device {
    fn transact(&mut self, _: &mut [Operation<'_>]) -> Result<(), Trouble> {
        Err(Trouble::NoAnswer)
    }
}

/// What the kernel's codes mean (Documentation/i2c/fault-codes.rst): ENXIO and EREMOTEIO for an address that nobody acknowledges,
/// ETIMEDOUT for a clock that is held low.
fn failed(path: &Path, error: io::Error) -> Trouble {
    const ENXIO: i32 = 6;
    const ETIMEDOUT: i32 = 110;
    const EREMOTEIO: i32 = 121;
    match error.raw_os_error() {
        Some(ENXIO | EREMOTEIO) => Trouble::NoAnswer,
        // The kernel's default for an adapter.
        Some(ETIMEDOUT) => Trouble::TimedOut {
            after: Duration::from_secs(1),
        },
        _ => Trouble::Io {
            path: path.to_owned(),
            source: error,
        },
    }
}

fn switch_on(bus: u8) -> String {
    let line = match bus {
        0 => "dtparam=i2c_vc=on".to_owned(),
        1 => "dtparam=i2c_arm=on".to_owned(),
        _ => format!("dtoverlay=i2c{bus}"),
    };
    format!(
        "add `{line}` to /boot/firmware/config.txt, see that `i2c-dev` is in /etc/modules (`sudo raspi-config` does both), and restart"
    )
}

/// The driver that has an address, as the kernel calls it.
fn driver_of(hardware: &Hardware, bus: u8, address: u8) -> String {
    let link = hardware
        .sys
        .join(format!("bus/i2c/devices/{bus}-{address:04x}/driver"));
    let target = std::fs::read_link(link).ok();
    let name = target.as_deref().and_then(Path::file_name);
    name.map_or("?".to_owned(), |name| name.to_string_lossy().into_owned())
}

struct Simulated(Box<dyn I2cTwin>);

impl I2cPort for Simulated {
    fn transact(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Trouble> {
        for operation in operations {
            match operation {
                Operation::Read(into) => self.0.read(into),
                Operation::Write(bytes) => self.0.write(bytes),
            }
        }
        Ok(())
    }
}

/// Makes a chip of 8-bit registers one that takes bytes.
pub struct Registers<T> {
    chip: T,
    register: u8,
}

impl<T: RegisterTwin + 'static> Registers<T> {
    pub fn boxed(chip: T) -> Box<dyn I2cTwin> {
        Box::new(Registers { chip, register: 0 })
    }
}

impl<T: RegisterTwin> I2cTwin for Registers<T> {
    fn write(&mut self, bytes: &[u8]) {
        let Some((&register, values)) = bytes.split_first() else {
            return;
        };
        self.register = register;
        for &value in values {
            self.chip.set(self.register, value);
            self.register = self.register.wrapping_add(1);
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        for byte in into {
            *byte = self.chip.get(self.register);
            self.register = self.register.wrapping_add(1);
        }
    }
}

/// Makes a chip of 16-bit registers one that takes bytes.
pub struct WordRegisters<T> {
    chip: T,
    register: u8,
}

impl<T: WordTwin + 'static> WordRegisters<T> {
    pub fn boxed(chip: T) -> Box<dyn I2cTwin> {
        Box::new(WordRegisters { chip, register: 0 })
    }
}

impl<T: WordTwin> I2cTwin for WordRegisters<T> {
    fn write(&mut self, bytes: &[u8]) {
        match *bytes {
            [register] => self.register = register,
            [register, high, low] => {
                self.register = register;
                self.chip.set(register, u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        let word = self.chip.get(self.register).to_be_bytes();
        for (byte, value) in into.iter_mut().zip(word) {
            *byte = value;
        }
    }
}

/// A chip that answers what it is told to, byte for byte, for tests with the bytes of data sheets.
#[cfg(test)]
pub(super) mod script {
    use super::*;

    /// What is expected to be written, or what is then read.
    #[derive(Clone, Debug)]
    pub(in crate::sensors) enum Step {
        Takes(&'static [u8]),
        Gives(&'static [u8]),
    }

    struct Script {
        steps: std::collections::VecDeque<Step>,
    }

    impl I2cTwin for Script {
        fn write(&mut self, bytes: &[u8]) {
            match self.steps.pop_front() {
                Some(Step::Takes(expected)) => assert_eq!(bytes, expected),
                other => panic!("{bytes:02x?} was written, but {other:02x?} is next"),
            }
        }
        fn read(&mut self, into: &mut [u8]) {
            match self.steps.pop_front() {
                Some(Step::Gives(bytes)) => into.copy_from_slice(bytes),
                other => panic!("a read, but {other:02x?} is next"),
            }
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                assert!(self.steps.is_empty(), "steps are left");
            }
        }
    }

    pub(in crate::sensors) fn link(steps: &[Step]) -> I2cLink {
        I2cLink::to(
            0x42,
            Box::new(Script {
                steps: steps.iter().cloned().collect(),
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_kernel_become_what_a_person_can_do() {
        let check = |code: i32, expected: &str| {
            let trouble = failed(Path::new("/dev/i2c-1"), io::Error::from_raw_os_error(code));
            assert!(trouble.to_string().contains(expected), "{code}: {trouble}");
        };
        check(121, "nothing answers there");
        check(6, "nothing answers there");
        check(110, "no answer within 1s");
        check(5, "/dev/i2c-1 cannot be used");
    }

    #[test]
    fn a_bus_that_is_not_there_names_the_line_that_is_missing() {
        let check = |bus: u8, expected: &str| {
            let dev = tempfile::tempdir().unwrap();
            let hardware = Hardware {
                dev: dev.path().into(),
                ..Hardware::real()
            };
            let path = hardware.dev.join(format!("i2c-{bus}"));
            let error = Device::open(&path, bus, 0x76, &hardware).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(1, "add `dtparam=i2c_arm=on` to /boot/firmware/config.txt");
        check(0, "dtparam=i2c_vc=on");
        check(4, "dtoverlay=i2c4");
    }

    #[test]
    fn the_driver_that_has_an_address_is_named() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/i2c/devices/1-0076");
        std::fs::create_dir_all(&device).unwrap();
        std::os::unix::fs::symlink("../../../../bus/i2c/drivers/bmp280", device.join("driver"))
            .unwrap();
        let hardware = Hardware {
            sys: sys.path().into(),
            ..Hardware::real()
        };
        assert_eq!(driver_of(&hardware, 1, 0x76), "bmp280");
        assert_eq!(driver_of(&hardware, 1, 0x77), "?");
    }

    #[test]
    fn simulated_registers_count_up() {
        struct Chip([u8; 4]);
        impl RegisterTwin for Chip {
            fn get(&mut self, register: u8) -> u8 {
                self.0[usize::from(register)]
            }
            fn set(&mut self, register: u8, value: u8) {
                self.0[usize::from(register)] = value;
            }
        }
        let mut link = I2cLink::to(0x10, Registers::boxed(Chip([1, 2, 3, 4])));
        link.send(&[1, 20, 30]).unwrap();
        assert_eq!(link.ask::<4>(&[0]).unwrap(), [1, 20, 30, 4]);
        assert_eq!(link.word(2).unwrap(), 30 * 256 + 4);
    }
}
