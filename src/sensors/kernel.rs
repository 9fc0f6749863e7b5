//! Parts that the kernel reads, and shows as files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::part::{About, Chip, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::trouble::Trouble;

/// On the 1-wire bus, which the kernel reads.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct OneWire {}

/// With a driver in the kernel's Industrial I/O subsystem.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct IioPlace {
    /// The device's name, as in `/sys/bus/iio/devices/iio:device0/name`, such as `bme280`. An ADS1115 is called `ads1015`, as its
    /// driver is.
    pub(super) device: String,
}

/// In the computer itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Inside {}

impl Place for OneWire {
    /// The kernel's files.
    type Link = Hardware;
    type Twin = Box<dyn Chip>;
    const BY: &'static str = "1-wire";

    fn bus(&self) -> String {
        "w1".to_owned()
    }

    fn describe(&self, _: &About) -> String {
        "1-wire".to_owned()
    }

    fn pins(&self) -> Pins {
        Pins::Taken(&[4])
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<Hardware, Trouble> {
        Ok(hardware.clone())
    }

    fn simulate<P: Part<Place = OneWire>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        Ok(part.twin(scene))
    }
}

impl Place for IioPlace {
    /// The kernel's files and the device's name.
    type Link = (Hardware, String);
    type Twin = Box<dyn Chip>;
    const BY: &'static str = "the kernel";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        if self.device.is_empty() || self.device.contains(['/', '\0']) {
            let message = format!("`{}` cannot be the name of a device", self.device);
            return vec![("device", message)];
        }
        Vec::new()
    }

    fn bus(&self) -> String {
        format!("iio:{}", self.device)
    }

    fn describe(&self, _: &About) -> String {
        format!("the kernel's driver of `{}`", self.device)
    }

    fn pins(&self) -> Pins {
        Pins::MayBe(&[2, 3, 7, 8, 9, 10, 11])
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<Self::Link, Trouble> {
        Ok((hardware.clone(), self.device.clone()))
    }

    fn simulate<P: Part<Place = IioPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        Ok(part.twin(scene))
    }
}

impl Place for Inside {
    /// The kernel's files.
    type Link = Hardware;
    type Twin = Box<dyn Chip>;
    const BY: &'static str = "nothing: it is inside";

    fn bus(&self) -> String {
        "inside".to_owned()
    }

    fn describe(&self, _: &About) -> String {
        "this computer".to_owned()
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<Hardware, Trouble> {
        Ok(hardware.clone())
    }

    fn simulate<P: Part<Place = Inside>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        Ok(part.twin(scene))
    }
}

/// Why the kernel's files give no reading.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "there is no 1-wire bus: {} does not exist; add `dtoverlay=w1-gpio` to /boot/firmware/config.txt and restart", path.display()
    )]
    NoW1Bus { path: PathBuf },
    #[error(
        "DS18B20 {id} is not on the 1-wire bus: {} does not exist; {}", path.display(), there_are("sensors", present)
    )]
    NoW1Device {
        id: String,
        path: PathBuf,
        present: Vec<String>,
    },
    #[error(
        "{} does not exist: no sensor has a driver in the kernel; load its overlay in /boot/firmware/config.txt \
         (for many I2C sensors `dtoverlay=i2c-sensor,NAME`) and restart", path.display()
    )]
    NoIio { path: PathBuf },
    #[error(
        "no device under {} has the name or label `{device}`; {}", path.display(), there_are("devices", present)
    )]
    NoIioDevice {
        device: String,
        path: PathBuf,
        present: Vec<String>,
    },
    #[error(
        "more than one device under {} is called `{device}`: {}; give the folder's name instead", path.display(), folders.join(", ")
    )]
    SameName {
        device: String,
        path: PathBuf,
        folders: Vec<String>,
    },
    #[error(
        "{} has neither in_{channel}_input nor in_{channel}_raw; {}", path.display(), there_are("channels", present)
    )]
    NoChannel {
        channel: String,
        path: PathBuf,
        present: Vec<String>,
    },
    #[error("cannot read {}: is the sensor still connected?", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} says {text:?}, which is not {expected}", path.display())]
    Malformed {
        path: PathBuf,
        text: String,
        expected: &'static str,
    },
    #[error(
        "{}: the check sum is wrong, so the bus lost bits; look at cable, pull-up (4.7 kOhm) and length", path.display()
    )]
    Crc { path: PathBuf },
    #[error(
        "{}: the sensor sent nothing but zeros; the data line is held low or the sensor is gone", path.display()
    )]
    Zeros { path: PathBuf },
    #[error(
        "{}: 85 degC is what the sensor holds at power-on; it lost power before it had measured, look at its supply", path.display()
    )]
    PowerOn { path: PathBuf },
}

fn there_are(what: &str, present: &[String]) -> String {
    if present.is_empty() {
        format!("there are no {what}: look at the wiring and at `dmesg`")
    } else {
        format!("there are the {what} {}", present.join(", "))
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(|source| KernelError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The names in a folder, sorted; none if it cannot be read.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Fake hardware: a folder that looks like the kernel's /sys.
#[cfg(test)]
pub(super) fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}
