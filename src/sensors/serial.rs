//! Parts at a serial port.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;
use serialport::{Parity, StopBits};

use super::part::{About, Chip, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::trouble::Trouble;

/// At a serial port.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct SerialPlace {
    /// The port: `serial0` for /dev/serial0, on pins 8 (transmits) and 10 (receives) of the header; `ttyUSB0` for an adapter, or a
    /// name under /dev that stays the same, as `serial/by-id/...`. Default: `serial0`.
    #[serde(default = "usual_port")]
    port: String,
}

fn usual_port() -> String {
    "serial0".to_owned()
}

/// How a part wants to be talked to; 8 data bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SerialMode {
    pub baud: u32,
    pub parity: Parity,
    pub stop_bits: StopBits,
}

impl SerialMode {
    /// Without parity, one stop bit: as most parts want it.
    pub const fn plain(baud: u32) -> SerialMode {
        SerialMode {
            baud,
            parity: Parity::None,
            stop_bits: StopBits::One,
        }
    }
}

/// The way to one part.
pub struct SerialLink {
    port: Box<dyn SerialPort>,
    is_simulated: bool,
}

trait SerialPort: Send {
    fn set(&mut self, mode: SerialMode) -> Result<(), Trouble>;
    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble>;
    /// Some of what has come or comes by the deadline; nothing then.
    fn read(&mut self, into: &mut [u8], deadline: Instant) -> Result<usize, Trouble>;
    /// Forgets what has come.
    fn forget(&mut self) -> Result<(), Trouble>;
}

/// A simulated part: takes bytes, and has bytes to give.
pub trait SerialTwin: Send {
    fn write(&mut self, bytes: &[u8]);
    /// Fills some of it; 0 where the part would be silent from now on.
    fn read(&mut self, into: &mut [u8]) -> usize;
}

impl Place for SerialPlace {
    type Link = SerialLink;
    type Twin = Box<dyn SerialTwin>;
    const BY: &'static str = "serial port";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        let name = self.port.strip_prefix("/dev/").unwrap_or(&self.port);
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
            let message = format!("`{}` is not a name under /dev, as `serial0`", self.port);
            return vec![("port", message)];
        }
        Vec::new()
    }

    fn bus(&self) -> String {
        format!("serial-{}", self.name())
    }

    fn describe(&self, _: &About) -> String {
        format!("/dev/{}", self.name())
    }

    fn pins(&self) -> Pins {
        match self.name() {
            "serial0" | "ttyAMA0" | "ttyS0" => Pins::Taken(&[14, 15]),
            _ => Pins::None,
        }
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<SerialLink, Trouble> {
        let path = hardware.dev.join(self.name());
        SerialLink::at(path)
    }

    fn simulate<P: Part<Place = SerialPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        part.open(SerialLink::to(part.twin(scene)))
    }
}

impl SerialPlace {
    fn name(&self) -> &str {
        self.port.strip_prefix("/dev/").unwrap_or(&self.port)
    }
}

impl SerialLink {
    /// To what is at a port of this computer.
    pub(super) fn at(path: PathBuf) -> Result<SerialLink, Trouble> {
        Ok(SerialLink {
            port: Box::new(Device::open(path)?),
            is_simulated: false,
        })
    }

    /// To a simulated part.
    pub(super) fn to(twin: Box<dyn SerialTwin>) -> SerialLink {
        SerialLink {
            port: Box::new(Simulated(twin)),
            is_simulated: true,
        }
    }

    /// Waits as a part needs it; not at all for a simulated one.
    pub fn wait(&self, span: Duration) {
        if !self.is_simulated {
            thread::sleep(span);
        }
    }

    pub fn set(&mut self, mode: SerialMode) -> Result<(), Trouble> {
        self.port.set(mode)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.port.write(bytes)
    }

    /// Forgets what has come and was not read.
    pub fn forget(&mut self) -> Result<(), Trouble> {
        self.port.forget()
    }

    /// Exactly so many bytes.
    pub fn receive<const N: usize>(&mut self, within: Duration) -> Result<[u8; N], Trouble> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, within)?;
        Ok(bytes)
    }

    /// Fills a buffer.
    pub fn fill(&mut self, into: &mut [u8], within: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + within;
        let mut filled = 0;
        while filled < into.len() {
            match self.port.read(&mut into[filled..], deadline)? {
                0 => return Err(Trouble::TimedOut { after: within }),
                more => filled += more,
            }
        }
        Ok(())
    }

    /// The next bytes that begin with `start`, of this length: skips what comes before, as at the first reading.
    pub fn frame<const N: usize>(
        &mut self,
        start: &[u8],
        within: Duration,
    ) -> Result<[u8; N], Trouble> {
        const MOST_SKIPPED: usize = 4_096;
        let deadline = Instant::now() + within;
        let mut frame = [0; N];
        let mut filled = 0;
        for _ in 0..MOST_SKIPPED {
            while filled < N {
                match self.port.read(&mut frame[filled..], deadline)? {
                    0 => return Err(Trouble::TimedOut { after: within }),
                    more => filled += more,
                }
            }
            if frame.starts_with(start) {
                return Ok(frame);
            }
            frame.copy_within(1.., 0);
            filled -= 1;
        }
        Err(Trouble::NotReady(
            "what comes is not what this part sends: is it another one, or another speed?"
                .to_owned(),
        ))
    }

    /// A line without its end, of at most `most` bytes.
    pub fn line(&mut self, most: usize, within: Duration) -> Result<Vec<u8>, Trouble> {
        let deadline = Instant::now() + within;
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if self.port.read(&mut byte, deadline)? == 0 {
                return Err(Trouble::TimedOut { after: within });
            }
            match byte[0] {
                b'\n' => return Ok(line),
                b'\r' => {}
                // Noise before the first line, at another speed perhaps: it is forgotten, not kept.
                _ if line.len() == most => line.clear(),
                byte => line.push(byte),
            }
        }
    }
}

struct Device {
    path: PathBuf,
    inner: Box<dyn serialport::SerialPort>,
}

impl Device {
    fn open(path: PathBuf) -> Result<Device, Trouble> {
        const USUAL_BAUD: u32 = 9_600;
        let inner = serialport::new(path.to_string_lossy(), USUAL_BAUD).open();
        match inner {
            Ok(inner) => Ok(Device { path, inner }),
            Err(error) => Err(opening(path, error.into())),
        }
    }

    fn failed(&self, source: io::Error) -> Trouble {
        Trouble::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn opening(path: PathBuf, error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::NotFound => Trouble::NoBus {
            path,
            remedy: "for the pins of a Pi add `enable_uart=1` to /boot/firmware/config.txt and restart; for an adapter look at \
                     `dmesg` when you plug it in"
                .to_owned(),
        },
        io::ErrorKind::PermissionDenied => Trouble::Permission {
            path,
            group: "dialout",
        },
        io::ErrorKind::ResourceBusy => Trouble::NotReady(
            "another program has the port: a console, perhaps; switch that off with `sudo raspi-config`, Interface, Serial Port"
                .to_owned(),
        ),
        _ => Trouble::Io {
            path,
            source: error,
        },
    }
}

impl SerialPort for Device {
    fn set(&mut self, mode: SerialMode) -> Result<(), Trouble> {
        let inner = &mut self.inner;
        let set = inner
            .set_baud_rate(mode.baud)
            .and_then(|()| inner.set_parity(mode.parity))
            .and_then(|()| inner.set_stop_bits(mode.stop_bits));
        set.map_err(|error| self.failed(error.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        io::Write::write_all(&mut self.inner, bytes).map_err(|error| self.failed(error))
    }

    fn read(&mut self, into: &mut [u8], deadline: Instant) -> Result<usize, Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        let set = self.inner.set_timeout(left);
        set.map_err(|error| self.failed(error.into()))?;
        match io::Read::read(&mut self.inner, into) {
            Ok(read) => Ok(read),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(0),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn forget(&mut self) -> Result<(), Trouble> {
        let cleared = self.inner.clear(serialport::ClearBuffer::Input);
        cleared.map_err(|error| self.failed(error.into()))
    }
}

struct Simulated(Box<dyn SerialTwin>);

impl SerialPort for Simulated {
    fn set(&mut self, _: SerialMode) -> Result<(), Trouble> {
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.0.write(bytes);
        Ok(())
    }
    fn read(&mut self, into: &mut [u8], _: Instant) -> Result<usize, Trouble> {
        Ok(self.0.read(into))
    }
    fn forget(&mut self) -> Result<(), Trouble> {
        Ok(())
    }
}

/// A part that sends bytes, some at a time, whatever it is told.
#[cfg(test)]
pub(super) fn sending(bytes: &'static [u8]) -> SerialLink {
    struct Sending(&'static [u8]);
    impl SerialTwin for Sending {
        fn write(&mut self, _: &[u8]) {}
        fn read(&mut self, into: &mut [u8]) -> usize {
            let length = into.len().min(self.0.len()).min(3);
            let (now, later) = self.0.split_at(length);
            into[..length].copy_from_slice(now);
            self.0 = later;
            length
        }
    }
    SerialLink::to(Box::new(Sending(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn a_frame_is_found_behind_the_rest_of_another() {
        let mut link = sending(b"34\xaaxyz\xaa\xc0123456");
        assert_eq!(
            &link.frame::<6>(b"\xaa\xc0", SOON).unwrap(),
            b"\xaa\xc01234"
        );
        assert!(matches!(
            link.frame::<6>(b"\xaa\xc0", SOON),
            Err(Trouble::TimedOut { .. })
        ));
    }

    #[test]
    fn lines_end_with_either_and_noise_does_not_pile_up() {
        let mut link = sending(b"0123456789abc\r\nnext\nrest");
        assert_eq!(link.line(8, SOON).unwrap(), b"9abc");
        assert_eq!(link.line(8, SOON).unwrap(), b"next");
        assert!(link.line(8, SOON).is_err());
    }

    #[test]
    fn a_port_that_cannot_be_used_says_why() {
        let check = |kind: io::ErrorKind, expected: &str| {
            let said = opening("/dev/serial0".into(), kind.into()).to_string();
            assert!(said.contains(expected), "{said}");
        };
        check(io::ErrorKind::NotFound, "enable_uart=1");
        check(io::ErrorKind::PermissionDenied, "group `dialout`");
        check(io::ErrorKind::ResourceBusy, "console");
    }
}
