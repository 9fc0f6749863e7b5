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

/// With a driver in the kernel's hardware monitoring subsystem (hwmon).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct HwmonPlace {
    /// The chip's name, as in `/sys/class/hwmon/hwmon0/name`, such as `lm75`; or the folder's, such as `hwmon0`.
    pub(super) device: String,
}

/// On one pin, with the kernel's driver `dht11`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct DhtPlace {
    /// The device's name, as in `/sys/bus/iio/devices/iio:device0/name`: with more than one such sensor, the name with the address,
    /// such as `dht11@11`, which is the pin in hexadecimal digits. Default: `dht11`.
    #[serde(default = "usual_dht")]
    pub(super) device: String,
}

fn usual_dht() -> String {
    "dht11".to_owned()
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
        problems_of_name(&self.device)
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

impl Place for HwmonPlace {
    /// The kernel's files and the chip's name.
    type Link = (Hardware, String);
    type Twin = Box<dyn Chip>;
    const BY: &'static str = "the kernel";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        problems_of_name(&self.device)
    }

    fn bus(&self) -> String {
        format!("hwmon:{}", self.device)
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

    fn simulate<P: Part<Place = HwmonPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        Ok(part.twin(scene))
    }
}

impl Place for DhtPlace {
    /// The kernel's files and the device's name.
    type Link = (Hardware, String);
    type Twin = Box<dyn Chip>;
    const BY: &'static str = "the kernel";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        problems_of_name(&self.device)
    }

    fn bus(&self) -> String {
        format!("iio:{}", self.device)
    }

    fn describe(&self, _: &About) -> String {
        format!("the kernel's driver of `{}`", self.device)
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<Self::Link, Trouble> {
        Ok((hardware.clone(), self.device.clone()))
    }

    fn simulate<P: Part<Place = DhtPlace>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        Ok(part.twin(scene))
    }
}

fn problems_of_name(device: &str) -> Vec<(&'static str, String)> {
    if device.is_empty() || device.contains(['/', '\0']) {
        let message = format!("`{device}` cannot be the name of a device");
        return vec![("device", message)];
    }
    Vec::new()
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
    #[error("no {what}: {} does not exist; {remedy}", path.display())]
    NotHere {
        what: &'static str,
        path: PathBuf,
        remedy: &'static str,
    },
    #[error(
        "no device under {} has the name or label `{device}`; {}", path.display(), there_are("devices", present)
    )]
    NoDevice {
        device: String,
        path: PathBuf,
        present: Vec<String>,
    },
    #[error(
        "more than one device under {} is called `{device}`: {}; give the folder's name instead, or the whole name if it has an `@`", path.display(), folders.join(", ")
    )]
    SameName {
        device: String,
        path: PathBuf,
        folders: Vec<String>,
    },
    #[error(
        "{} has no {}; {}", path.display(), tried.join(" and no "), there_are("channels", present)
    )]
    NoChannel {
        /// The files that would have been read.
        tried: Vec<String>,
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
    #[error("{} cannot be read, though tried {tries} times: {remedy}", path.display())]
    Tried {
        path: PathBuf,
        tries: u32,
        remedy: &'static str,
        source: io::Error,
    },
    #[error("{} is 1: the chip says that its probe is broken or not connected", path.display())]
    Fault { path: PathBuf },
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

/// The number that a file of the kernel says.
pub(super) fn number_in(path: &Path) -> Result<f64, KernelError> {
    number(&read_text(path)?, path)
}

/// What a file of the kernel says, as a number.
pub(super) fn number(text: &str, path: &Path) -> Result<f64, KernelError> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(KernelError::Malformed {
            path: path.to_owned(),
            text: text.to_owned(),
            expected: "a number",
        }),
    }
}

/// The folder of the device that has this name, label or folder, among the folders that begin with `prefix`. A device that the device tree
/// describes may have its address in its name, as `dht11@4`; it is found without it too.
pub(super) fn find_device(
    devices: &Path,
    prefix: &str,
    device: &str,
) -> Result<PathBuf, KernelError> {
    let mut folders = Vec::new();
    let mut present = Vec::new();
    for folder in names_in(devices) {
        if !folder.starts_with(prefix) {
            continue;
        }
        let says = |file: &str| {
            fs::read_to_string(devices.join(&folder).join(file))
                .map(|text| text.trim_end().to_owned())
                .ok()
        };
        let (name, label) = (says("name"), says("label"));
        let bare = name.as_deref().and_then(|name| name.split_once('@'));
        let known_as = [
            Some(folder.as_str()),
            name.as_deref(),
            label.as_deref(),
            bare.map(|(bare, _)| bare),
        ];
        if known_as.contains(&Some(device)) {
            folders.push(folder);
        } else {
            present.push(name.unwrap_or(folder));
        }
    }
    match folders.as_slice() {
        [folder] => Ok(devices.join(folder)),
        [] => Err(KernelError::NoDevice {
            device: device.to_owned(),
            path: devices.to_owned(),
            present,
        }),
        _ => Err(KernelError::SameName {
            device: device.to_owned(),
            path: devices.to_owned(),
            folders,
        }),
    }
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
