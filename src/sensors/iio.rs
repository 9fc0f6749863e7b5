//! Industrial I/O: one channel of a sensor that has a driver in the kernel (BME280, ADXL345, ADS1115, DHT22, and many).
//!
//! The kernel shows a channel as `in_<channel>_input`, already scaled, or as `in_<channel>_raw` with `_scale` and perhaps
//! `_offset`, and then the value is `(raw + offset) * scale` (kernel Documentation/ABI/testing/sysfs-bus-iio). Units are the
//! kernel's, some of them thousandths; readings leave here in the units people write.
//!
//! Must not: keep the folder's number between readings: it changes when drivers are loaded in another order.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Sensor, SensorError, names_in, read_text};
use crate::message::Value;
use crate::runtime::clock::Now;

/// What a channel measures.
pub(super) struct Quantity {
    /// The channel's type, in the kernel's word.
    pub(super) name: &'static str,
    /// The unit of our readings.
    pub(super) unit: &'static str,
    /// Our unit over the kernel's.
    factor: f64,
}

const fn quantity(name: &'static str, unit: &'static str, factor: f64) -> Quantity {
    Quantity { name, unit, factor }
}

/// The kernel's units are those in Documentation/ABI/testing/sysfs-bus-iio, under `in_<name>_raw`.
const QUANTITIES: [Quantity; 13] = [
    quantity("accel", "m/s^2", 1.0),
    quantity("angl", "rad", 1.0),
    quantity("anglvel", "rad/s", 1.0),
    quantity("current", "A", 1e-3),
    quantity("distance", "m", 1.0),
    quantity("humidityrelative", "%", 1e-3),
    quantity("illuminance", "lx", 1.0),
    quantity("magn", "G", 1.0),
    quantity("power", "W", 1e-3),
    quantity("pressure", "hPa", 10.0),
    quantity("resistance", "Ohm", 1.0),
    quantity("temp", "degC", 1e-3),
    quantity("voltage", "V", 1e-3),
];

impl Quantity {
    /// What the channel measures: the letters it begins with. `voltage0-voltage1` is a voltage.
    pub(super) fn of(channel: &str) -> Result<&'static Quantity, SensorError> {
        let unknown = || SensorError::UnknownChannel {
            channel: channel.to_owned(),
            known: QUANTITIES.map(|quantity| quantity.name).join(", "),
        };
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !channel.chars().all(allowed) {
            return Err(unknown());
        }
        let end = channel
            .find(|c: char| !c.is_ascii_lowercase())
            .unwrap_or(channel.len());
        QUANTITIES
            .iter()
            .find(|quantity| quantity.name == &channel[..end])
            .ok_or_else(unknown)
    }
}

pub(super) struct Channel {
    devices: PathBuf,
    device: String,
    channel: String,
    quantity: &'static Quantity,
}

impl Channel {
    pub(super) fn new(root: &Path, device: &str, channel: &str) -> Result<Channel, SensorError> {
        Ok(Channel {
            devices: root.join("bus/iio/devices"),
            device: device.to_owned(),
            channel: channel.to_owned(),
            quantity: Quantity::of(channel)?,
        })
    }

    /// The device's folder, found by its name.
    fn folder(&self) -> Result<PathBuf, SensorError> {
        if !self.devices.exists() {
            return Err(SensorError::NoIio {
                path: self.devices.clone(),
            });
        }
        let mut folders = Vec::new();
        let mut present = Vec::new();
        for folder in names_in(&self.devices) {
            if !folder.starts_with("iio:device") {
                continue;
            }
            let says = |file: &str| {
                fs::read_to_string(self.devices.join(&folder).join(file))
                    .map(|text| text.trim_end().to_owned())
                    .ok()
            };
            let (name, label) = (says("name"), says("label"));
            let known_as = [Some(&folder), name.as_ref(), label.as_ref()];
            if known_as.contains(&Some(&self.device)) {
                folders.push(folder);
            } else {
                present.push(name.unwrap_or(folder));
            }
        }
        match folders.as_slice() {
            [folder] => Ok(self.devices.join(folder)),
            [] => Err(SensorError::NoIioDevice {
                device: self.device.clone(),
                path: self.devices.clone(),
                present,
            }),
            _ => Err(SensorError::SameName {
                device: self.device.clone(),
                path: self.devices.clone(),
                folders,
            }),
        }
    }

    /// The first of the channel's own file and the ones it may share with others of its type, if there is any: the
    /// scale of `accel_x` may be in `in_accel_scale`, that of `voltage0-voltage1` in `in_voltage-voltage_scale`.
    fn shared(&self, folder: &Path, ending: &str) -> Result<Option<f64>, SensorError> {
        let without_digits: String = self
            .channel
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        for name in [self.channel.as_str(), &without_digits, self.quantity.name] {
            let path = folder.join(format!("in_{name}_{ending}"));
            if path.exists() {
                return number(&path).map(Some);
            }
        }
        Ok(None)
    }

    /// The reading in the kernel's unit.
    fn kernel_value(&self, folder: &Path) -> Result<f64, SensorError> {
        let input = folder.join(format!("in_{}_input", self.channel));
        if input.exists() {
            return number(&input);
        }
        let raw = folder.join(format!("in_{}_raw", self.channel));
        if raw.exists() {
            // No file means: nothing to add, nothing to multiply by.
            let offset = self.shared(folder, "offset")?.unwrap_or(0.0);
            let scale = self.shared(folder, "scale")?.unwrap_or(1.0);
            return Ok((number(&raw)? + offset) * scale);
        }
        Err(SensorError::NoChannel {
            channel: self.channel.clone(),
            path: folder.to_owned(),
            present: channels(folder),
        })
    }
}

impl Sensor for Channel {
    fn read(&mut self, _now: Now) -> Result<Value, SensorError> {
        let folder = self.folder()?;
        let value = self.kernel_value(&folder)? * self.quantity.factor;
        // The kernel writes at most nine decimals; the product's rounding error shall not look like more.
        Ok(Value::Number((value * 1e9).round() / 1e9))
    }
}

fn number(path: &Path) -> Result<f64, SensorError> {
    let text = read_text(path)?;
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(SensorError::Malformed {
            path: path.to_owned(),
            text,
            expected: "a number",
        }),
    }
}

fn channels(folder: &Path) -> Vec<String> {
    let mut channels: Vec<String> = names_in(folder)
        .iter()
        .filter_map(|file| {
            let channel = file.strip_prefix("in_")?;
            channel
                .strip_suffix("_input")
                .or_else(|| channel.strip_suffix("_raw"))
        })
        .map(str::to_owned)
        .collect();
    channels.dedup();
    channels
}

#[cfg(test)]
mod tests {
    use super::super::sysfs;
    use super::*;

    /// A Pi with a BME280, an ADXL345, an ADS1115 and a chip with an offset, as their drivers show them.
    const PI: &[(&str, &str)] = &[
        ("bus/iio/devices/iio:device0/name", "bme280\n"),
        ("bus/iio/devices/iio:device0/in_temp_input", "21530\n"),
        (
            "bus/iio/devices/iio:device0/in_humidityrelative_input",
            "45123.046875000\n",
        ),
        (
            "bus/iio/devices/iio:device0/in_pressure_input",
            "101.325000000\n",
        ),
        ("bus/iio/devices/iio:device1/name", "adxl345\n"),
        ("bus/iio/devices/iio:device1/in_accel_x_raw", "-12\n"),
        ("bus/iio/devices/iio:device1/in_accel_z_raw", "256\n"),
        ("bus/iio/devices/iio:device1/in_accel_scale", "0.038300\n"),
        ("bus/iio/devices/iio:device2/name", "ads1015\n"),
        ("bus/iio/devices/iio:device2/label", "tank\n"),
        ("bus/iio/devices/iio:device2/in_voltage0_raw", "13200\n"),
        (
            "bus/iio/devices/iio:device2/in_voltage0_scale",
            "0.125000000\n",
        ),
        (
            "bus/iio/devices/iio:device2/in_voltage0-voltage1_raw",
            "-80\n",
        ),
        (
            "bus/iio/devices/iio:device2/in_voltage-voltage_scale",
            "0.062500000\n",
        ),
        ("bus/iio/devices/iio:device3/name", "xadc\n"),
        ("bus/iio/devices/iio:device3/in_temp0_raw", "2573\n"),
        ("bus/iio/devices/iio:device3/in_temp0_offset", "-2219\n"),
        (
            "bus/iio/devices/iio:device3/in_temp0_scale",
            "123.040771484\n",
        ),
        ("bus/iio/devices/trigger0/name", "bme280\n"),
    ];

    fn read(files: &[(&str, &str)], device: &str, channel: &str) -> Result<Value, SensorError> {
        let root = sysfs(files);
        Channel::new(root.path(), device, channel)?.read(Now::default())
    }

    #[test]
    fn readings_are_scaled_to_the_units_people_write() {
        let check = |device: &str, channel: &str, expected: f64| {
            assert_eq!(
                read(PI, device, channel).unwrap(),
                Value::Number(expected),
                "{device} {channel}"
            )
        };
        check("bme280", "temp", 21.53);
        check("bme280", "humidityrelative", 45.123046875);
        check("bme280", "pressure", 1013.25);
        check("adxl345", "accel_x", -0.4596);
        check("adxl345", "accel_z", 9.8048);
        check("ads1015", "voltage0", 1.65);
        check("ads1015", "voltage0-voltage1", -0.005);
        check("xadc", "temp0", 43.556433105);
        check("tank", "voltage0", 1.65);
        check("iio:device2", "voltage0", 1.65);
    }

    #[test]
    fn errors_say_what_is_there() {
        let check = |files: &[(&str, &str)], device: &str, channel: &str, expected: &str| {
            let error = read(files, device, channel).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "bme280", "temp", "dtoverlay=i2c-sensor");
        check(
            PI,
            "bme680",
            "temp",
            "there are the devices bme280, adxl345, ads1015, xadc",
        );
        check(
            PI,
            "bme280",
            "temp_ambient",
            "there are the channels humidityrelative, pressure, temp",
        );
        check(PI, "bme280", "colour", "is not a channel we know");
        check(
            &[
                ("bus/iio/devices/iio:device0/name", "dht11\n"),
                ("bus/iio/devices/iio:device1/name", "dht11\n"),
            ],
            "dht11",
            "temp",
            "more than one device",
        );
        check(
            &[
                ("bus/iio/devices/iio:device0/name", "dht11\n"),
                ("bus/iio/devices/iio:device0/in_temp_input", "\n"),
            ],
            "dht11",
            "temp",
            "is not a number",
        );
    }
}
