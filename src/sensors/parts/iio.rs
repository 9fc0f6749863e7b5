//! Industrial I/O: one channel of a sensor that has a driver in the kernel (BME280, ADXL345, ADS1115, DHT22, and many).
//!
//! The kernel shows a channel as `in_<channel>_input`, already scaled, or as `in_<channel>_raw` with `_scale` and perhaps
//! `_offset`, and then the value is `(raw + offset) * scale` (kernel Documentation/ABI/testing/sysfs-bus-iio). Units are the
//! kernel's, some of them thousandths; readings leave here in the units people write.
//!
//! Must not: keep the folder's number between readings: it changes when drivers are loaded in another order.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::kernel::{IioPlace, KernelError, find_device, names_in, number_in};
use crate::sensors::{About, Chip, Hardware, Part, Physical, Quantity, Scene, Trouble};

/// Reads one channel of a sensor that the kernel drives (Industrial I/O): BME280, ADXL345, DHT22, ADS1115 and many more.
///
/// The payload is a number: degrees Celsius, percent relative humidity, hectopascal, metres per second squared, volts.
/// The kernel finds the sensor by an overlay in the Pi's `config.txt`, such as `dtoverlay=i2c-sensor,bme280`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Iio {
    /// The channel, as in the names of the device's files: `temp`, `humidityrelative`, `pressure`, `accel_x`, `voltage0`.
    pub channel: String,
}

/// What a channel measures.
struct Kind {
    /// The channel's type, in the kernel's word.
    name: &'static str,
    /// The unit of our readings.
    unit: &'static str,
    /// Our unit over the kernel's.
    factor: f64,
}

const fn kind(name: &'static str, unit: &'static str, factor: f64) -> Kind {
    Kind { name, unit, factor }
}

/// The kernel's units are those in Documentation/ABI/testing/sysfs-bus-iio, under `in_<name>_raw`.
const KINDS: [Kind; 13] = [
    kind("accel", "m/s^2", 1.0),
    kind("angl", "rad", 1.0),
    kind("anglvel", "rad/s", 1.0),
    kind("current", "A", 1e-3),
    kind("distance", "m", 1.0),
    kind("humidityrelative", "%", 1e-3),
    kind("illuminance", "lx", 1.0),
    kind("magn", "G", 1.0),
    kind("power", "W", 1e-3),
    kind("pressure", "hPa", 10.0),
    kind("resistance", "Ohm", 1.0),
    kind("temp", "degC", 1e-3),
    kind("voltage", "V", 1e-3),
];

impl Kind {
    /// What the channel measures: the letters it begins with. `voltage0-voltage1` is a voltage.
    fn of(channel: &str) -> Option<&'static Kind> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if !channel.chars().all(allowed) {
            return None;
        }
        let end = channel
            .find(|c: char| !c.is_ascii_lowercase())
            .unwrap_or(channel.len());
        KINDS.iter().find(|kind| kind.name == &channel[..end])
    }
}

impl Part for Iio {
    type Place = IioPlace;
    const NAME: &'static str = "iio";
    const ABOUT: About = About {
        title: "Whatever has a driver in the kernel",
        quantities: &[Quantity::new("value", "", (f64::MIN, f64::MAX), 9)],
        addresses: &[],
        wiring: &[],
        setup: "An overlay in /boot/firmware/config.txt, such as `dtoverlay=i2c-sensor,bme280`, `dtoverlay=dht11,gpiopin=4` (a DHT22 \
                too), `dtoverlay=ads1115` or `dtoverlay=mcp3008`, and a restart. `ls /sys/bus/iio/devices` then shows the device.",
        notes: "One channel for each node. The kernel's units become those that people write: degC, %, hPa, V, A, m/s^2.",
        data_sheet: "kernel Documentation/ABI/testing/sysfs-bus-iio",
        takes_ms: 1,
    };
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"
every = "2s"

[nodes.show]
type = "debug"
from = "humidity"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let channel = &self.channel;
        if Kind::of(channel).is_some() {
            return Vec::new();
        }
        let known = KINDS.map(|kind| kind.name).join(", ");
        let message =
            format!("`{channel}` is not a channel we know the unit of; known are {known}");
        vec![("channel", message)]
    }

    fn quantities(&self) -> Vec<Quantity> {
        let unit = Kind::of(&self.channel).map_or("", |kind| kind.unit);
        // The kernel writes at most nine decimals; the product's rounding error shall not look like more.
        vec![Quantity::new("value", unit, (f64::MIN, f64::MAX), 9)]
    }

    fn open(&self, (hardware, device): (Hardware, String)) -> Result<Box<dyn Chip>, Trouble> {
        let kind = Kind::of(&self.channel).expect("`problems` has found none");
        let channel = Channel {
            devices: hardware.sys.join("bus/iio/devices"),
            device,
            channel: self.channel.clone(),
            kind,
        };
        Ok(Box::new(move || Ok(vec![channel.value()?])))
    }

    fn twin(&self, scene: Scene) -> Box<dyn Chip> {
        let kind = Kind::of(&self.channel).map_or("", |kind| kind.name);
        let channel = self.channel.clone();
        Box::new(move || {
            let axis = match channel.as_bytes() {
                [.., b'_', b'y'] => 1,
                [.., b'_', b'z'] => 2,
                _ => 0,
            };
            let (physical, step) = match kind {
                "temp" => (Physical::Temperature, 0.01),
                "humidityrelative" => (Physical::Humidity, 0.01),
                "pressure" => (Physical::Pressure, 0.01),
                "voltage" => (Physical::Voltage, 0.001),
                "current" => (Physical::Current, 0.001),
                // The ADXL345 in full resolution: 3.9 mg a step (data sheet, table 1).
                "accel" => (Physical::Acceleration(axis), 0.0383),
                "anglvel" => (Physical::Rotation(axis), 0.001),
                "illuminance" => (Physical::Light, 1.0),
                "distance" => (Physical::Distance, 0.001),
                other => {
                    return Err(Trouble::NotReady(format!(
                        "the simulated board has no `{other}`"
                    )));
                }
            };
            Ok(vec![(scene.value(physical) / step).round() * step])
        })
    }
}

struct Channel {
    devices: PathBuf,
    device: String,
    channel: String,
    kind: &'static Kind,
}

impl Channel {
    /// The device's folder, found by its name.
    fn folder(&self) -> Result<PathBuf, KernelError> {
        if !self.devices.exists() {
            return Err(KernelError::NoIio {
                path: self.devices.clone(),
            });
        }
        find_device(&self.devices, "iio:device", &self.device)
    }

    /// The first of the channel's own file and the ones it may share with others of its type, if there is any: the
    /// scale of `accel_x` may be in `in_accel_scale`, that of `voltage0-voltage1` in `in_voltage-voltage_scale`.
    fn shared(&self, folder: &Path, ending: &str) -> Result<Option<f64>, KernelError> {
        let without_digits: String = self
            .channel
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        for name in [self.channel.as_str(), &without_digits, self.kind.name] {
            let path = folder.join(format!("in_{name}_{ending}"));
            if path.exists() {
                return number_in(&path).map(Some);
            }
        }
        Ok(None)
    }

    /// The reading in the kernel's unit.
    fn kernel_value(&self, folder: &Path) -> Result<f64, KernelError> {
        let input = folder.join(format!("in_{}_input", self.channel));
        if input.exists() {
            return number_in(&input);
        }
        let raw = folder.join(format!("in_{}_raw", self.channel));
        if raw.exists() {
            // No file means: nothing to add, nothing to multiply by.
            let offset = self.shared(folder, "offset")?.unwrap_or(0.0);
            let scale = self.shared(folder, "scale")?.unwrap_or(1.0);
            return Ok((number_in(&raw)? + offset) * scale);
        }
        Err(KernelError::NoChannel {
            tried: ["input", "raw"]
                .map(|ending| format!("in_{}_{ending}", self.channel))
                .to_vec(),
            path: folder.to_owned(),
            present: channels(folder),
        })
    }
}

impl Channel {
    fn value(&self) -> Result<f64, KernelError> {
        let folder = self.folder()?;
        Ok(self.kernel_value(&folder)? * self.kind.factor)
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
    use super::*;
    use crate::message::Value;
    use crate::runtime::clock::Now;
    use crate::sensors::kernel::sysfs;
    use crate::sensors::{SensorSpec, chain};

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

    fn read(files: &[(&str, &str)], device: &str, channel: &str) -> Result<Value, String> {
        let sys = sysfs(files);
        let hardware = Hardware {
            sys: sys.path().into(),
            ..Hardware::real()
        };
        let part = Iio {
            channel: channel.to_owned(),
        };
        let place = IioPlace {
            device: device.to_owned(),
        };
        let mut sensor = SensorSpec::new(part, place).open(&hardware);
        sensor.read(Now::default()).map_err(|error| chain(&error))
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
            let error = read(files, device, channel).unwrap_err();
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
