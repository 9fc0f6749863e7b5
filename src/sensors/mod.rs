//! Sensors that the kernel reads for us, behind one trait.
//!
//! A [`SensorSpec`] names a sensor as flows write it; [`open`] makes the [`Sensor`] that reads it from the kernel's files. A
//! sensor need not be there when it is opened: every reading looks for it again.
//!
//! Must not: know boards, flows or clocks; cache a reading; hand out a number that cannot be true.
//!
//! Terms: a *bus* is what sensors have to share, one after the other: reading a DS18B20 holds the 1-wire bus for up to
//! 750 ms, so sensors on one bus belong on one thread, which no flow waits for.

mod ds18b20;
mod iio;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::message::Value;
use crate::runtime::clock::Now;

/// Where the kernel shows its devices.
pub const SYSFS: &str = "/sys";

/// One measured quantity.
pub trait Sensor: Send {
    /// Takes a reading. Blocks for as long as the hardware takes.
    fn read(&mut self, now: Now) -> Result<Value, SensorError>;
}

/// Which sensor, as flows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorSpec {
    /// A DS18B20 on the kernel's 1-wire bus.
    W1 {
        /// The id the kernel gives it, `28-` and twelve hexadecimal digits.
        device: String,
    },
    /// One channel of a device with a driver in the kernel's Industrial I/O subsystem.
    Iio {
        /// What its `name` or `label` file says, as `bme280`; or its folder, as `iio:device0`.
        device: String,
        /// The channel without `in_` and `_raw` or `_input`: `temp`, `humidityrelative`, `accel_x`, `voltage0`.
        channel: String,
    },
}

impl SensorSpec {
    /// The bus that reads one sensor after the other.
    pub fn bus(&self) -> String {
        match self {
            SensorSpec::W1 { .. } => "w1".to_owned(),
            SensorSpec::Iio { device, .. } => format!("iio:{device}"),
        }
    }

    /// The unit of its readings.
    pub fn unit(&self) -> Result<&'static str, SensorError> {
        match self {
            SensorSpec::W1 { device } => ds18b20::check_id(device).map(|()| "degC"),
            SensorSpec::Iio { channel, .. } => {
                iio::Quantity::of(channel).map(|quantity| quantity.unit)
            }
        }
    }

    /// Whether the words could name a sensor at all, whatever is plugged in.
    pub fn check(&self) -> Result<(), SensorError> {
        self.unit().map(drop)
    }
}

/// Opens a sensor over the kernel's files under `root`, which is [`SYSFS`] but in tests.
pub fn open(spec: &SensorSpec, root: &Path) -> Result<Box<dyn Sensor>, SensorError> {
    Ok(match spec {
        SensorSpec::W1 { device } => Box::new(ds18b20::Ds18b20::new(root, device)?),
        SensorSpec::Iio { device, channel } => Box::new(iio::Channel::new(root, device, channel)?),
    })
}

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    #[error(
        "`{id}` is not the id of a DS18B20: that is `28-` and twelve hexadecimal digits, as `ls /sys/bus/w1/devices` shows"
    )]
    BadId { id: String },
    #[error("`{channel}` is not a channel we know the unit of; known are {known}")]
    UnknownChannel { channel: String, known: String },
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
    #[error("{}: {value} {unit} is outside what the sensor can measure, {range}", path.display())]
    OutOfRange {
        path: PathBuf,
        value: f64,
        unit: &'static str,
        range: &'static str,
    },
    #[error("the simulated board has no `{quantity}`; it has {known}")]
    NotSimulated {
        quantity: String,
        known: &'static str,
    },
}

fn there_are(what: &str, present: &[String]) -> String {
    if present.is_empty() {
        format!("there are no {what}: look at the wiring and at `dmesg`")
    } else {
        format!("there are the {what} {}", present.join(", "))
    }
}

fn read_text(path: &Path) -> Result<String, SensorError> {
    fs::read_to_string(path).map_err(|source| SensorError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The names in a folder, sorted; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Fake hardware: a folder that looks like the kernel's /sys.
#[cfg(test)]
fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iio(device: &str, channel: &str) -> SensorSpec {
        SensorSpec::Iio {
            device: device.to_owned(),
            channel: channel.to_owned(),
        }
    }

    #[test]
    fn all_w1_sensors_share_a_bus_and_every_iio_device_has_its_own() {
        let w1 = SensorSpec::W1 {
            device: "28-0316a2795aff".to_owned(),
        };
        assert_eq!(w1.bus(), "w1");
        assert_eq!(iio("bme280", "temp").bus(), "iio:bme280");
        assert_eq!(iio("bme280", "temp").bus(), iio("bme280", "pressure").bus());
    }

    #[test]
    fn words_that_cannot_name_a_sensor_are_refused_without_hardware() {
        let check = |spec: SensorSpec, expected: &str| {
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            SensorSpec::W1 {
                device: "../../etc/passwd".to_owned(),
            },
            "is not the id of a DS18B20",
        );
        check(iio("bme280", "tmep"), "known are accel, ");
        check(iio("bme280", "temp/../../secret"), "is not a channel");
        assert_eq!(iio("adxl345", "accel_x").unit().unwrap(), "m/s^2");
    }

    #[test]
    fn sensors_are_opened_by_what_they_are_and_need_not_be_there() {
        let root = sysfs(&[]);
        let mut missing = open(&iio("bme280", "temp"), root.path()).unwrap();
        assert!(missing.read(Now::default()).is_err());

        let folder = root.path().join("bus/iio/devices/iio:device0");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), "bme280\n").unwrap();
        fs::write(folder.join("in_temp_input"), "21500\n").unwrap();
        assert_eq!(missing.read(Now::default()).unwrap(), Value::Number(21.5));
    }
}
