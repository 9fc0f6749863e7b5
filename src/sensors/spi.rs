//! Parts on SPI, through the kernel's /dev/spidevB.C.

use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::part::{About, Chip, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::trouble::Trouble;

/// On SPI.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct SpiPlace {
    /// The bus: 0 for /dev/spidev0.0, on pins 19 (MOSI), 21 (MISO) and 23 (clock) of the header. Default: 0.
    #[serde(default)]
    bus: u8,
    /// The chip select: 0 for CE0, pin 24 of the header, 1 for CE1, pin 26. Default: 0.
    #[serde(default)]
    select: u8,
}

/// How a part wants to be talked to.
#[derive(Clone, Copy, Debug)]
pub struct SpiMode {
    /// 0 to 3.
    pub mode: u8,
    pub hz: u32,
}

/// The way to one part.
pub struct SpiLink(Box<dyn SpiPort>);

trait SpiPort: Send {
    fn set(&mut self, mode: SpiMode) -> Result<(), Trouble>;
    fn transfer(&mut self, out: &[u8], into: &mut [u8]) -> Result<(), Trouble>;
}

/// A simulated chip: answers a transfer, a byte for each.
pub trait SpiTwin: Send {
    fn transfer(&mut self, out: &[u8], into: &mut [u8]);
}

impl Place for SpiPlace {
    type Link = SpiLink;
    type Twin = Box<dyn SpiTwin>;
    const BY: &'static str = "SPI";

    fn bus(&self) -> String {
        format!("spi-{}", self.bus)
    }

    fn describe(&self, _: &About) -> String {
        format!("SPI {}, chip select {}", self.bus, self.select)
    }

    fn pins(&self) -> Pins {
        match (self.bus, self.select) {
            (0, 0) => Pins::Taken(&[8, 9, 10, 11]),
            (0, _) => Pins::Taken(&[7, 9, 10, 11]),
            (1, _) => Pins::Taken(&[19, 20, 21]),
            _ => Pins::None,
        }
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<SpiLink, Trouble> {
        let path = hardware
            .dev
            .join(format!("spidev{}.{}", self.bus, self.select));
        Device::open(&path, self.bus).map(|device| SpiLink(Box::new(device)))
    }

    fn simulate<P: Part<Place = SpiPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        part.open(SpiLink::to(part.twin(scene)))
    }
}

impl SpiLink {
    /// To a simulated chip.
    pub(super) fn to(twin: Box<dyn SpiTwin>) -> SpiLink {
        SpiLink(Box::new(Simulated(twin)))
    }

    pub fn set(&mut self, mode: SpiMode) -> Result<(), Trouble> {
        self.0.set(mode)
    }

    /// Sends bytes, and gives those that came meanwhile.
    pub fn transfer<const N: usize>(&mut self, out: [u8; N]) -> Result<[u8; N], Trouble> {
        let mut into = [0; N];
        self.0.transfer(&out, &mut into)?;
        Ok(into)
    }
}

struct Device {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    inner: spidev::Spidev,
}

#[cfg(target_os = "linux")]
impl Device {
    fn open(path: &Path, bus: u8) -> Result<Device, Trouble> {
        let inner = spidev::Spidev::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::NoBus {
                path: path.to_owned(),
                remedy: switch_on(bus),
            },
            io::ErrorKind::PermissionDenied => Trouble::Permission {
                path: path.to_owned(),
                group: "spi",
            },
            _ => Trouble::Io {
                path: path.to_owned(),
                source: error,
            },
        })?;
        Ok(Device {
            path: path.to_owned(),
            inner,
        })
    }

    fn failed(&self, source: io::Error) -> Trouble {
        Trouble::Io {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(target_os = "linux")]
impl SpiPort for Device {
    fn set(&mut self, mode: SpiMode) -> Result<(), Trouble> {
        use spidev::{SpiModeFlags, SpidevOptions};
        let flags = match mode.mode {
            0 => SpiModeFlags::SPI_MODE_0,
            1 => SpiModeFlags::SPI_MODE_1,
            2 => SpiModeFlags::SPI_MODE_2,
            _ => SpiModeFlags::SPI_MODE_3,
        };
        let options = SpidevOptions::new()
            .bits_per_word(8)
            .max_speed_hz(mode.hz)
            .mode(flags)
            .build();
        self.inner
            .configure(&options)
            .map_err(|error| self.failed(error))
    }

    fn transfer(&mut self, out: &[u8], into: &mut [u8]) -> Result<(), Trouble> {
        let mut transfer = spidev::SpidevTransfer::read_write(out, into);
        self.inner
            .transfer(&mut transfer)
            .map_err(|error| self.failed(error))
    }
}

#[cfg(not(target_os = "linux"))]
impl Device {
    fn open(path: &Path, _: u8) -> Result<Device, Trouble> {
        Err(Trouble::NoBus {
            path: path.to_owned(),
            remedy: "SPI needs Linux".to_owned(),
        })
    }
}

#[cfg(not(target_os = "linux"))]
impl SpiPort for Device {
    fn set(&mut self, _: SpiMode) -> Result<(), Trouble> {
        Ok(())
    }
    fn transfer(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), Trouble> {
        Err(Trouble::NoAnswer)
    }
}

fn switch_on(bus: u8) -> String {
    let line = match bus {
        0 => "dtparam=spi=on".to_owned(),
        _ => format!("dtoverlay=spi{bus}-1cs"),
    };
    format!(
        "add `{line}` to /boot/firmware/config.txt (`sudo raspi-config` does it for bus 0), and restart"
    )
}

struct Simulated(Box<dyn SpiTwin>);

impl SpiPort for Simulated {
    fn set(&mut self, _: SpiMode) -> Result<(), Trouble> {
        Ok(())
    }
    fn transfer(&mut self, out: &[u8], into: &mut [u8]) -> Result<(), Trouble> {
        self.0.transfer(out, into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_is_not_there_names_the_line_that_is_missing() {
        let check = |bus: u8, expected: &str| {
            let error = Device::open(Path::new("/dev/none"), bus).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(0, "add `dtparam=spi=on`");
        check(1, "add `dtoverlay=spi1-1cs`");
    }
}
