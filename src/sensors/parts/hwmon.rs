//! Hardware monitoring: one channel of a chip that has a driver in the kernel's hwmon subsystem (LM75, INA219, SHT3x, a fan).
//!
//! The kernel shows a channel as `<channel>_input`, power as `_input` or `_average`, in fixed units, and as `<channel>_fault` whether its
//! probe is broken (kernel Documentation/hwmon/sysfs-interface.rst).
//!
//! Must not: keep the folder's number between readings: it changes when drivers are loaded in another order.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::kernel::{HwmonPlace, KernelError, find_device, names_in, number_in};
use crate::sensors::{About, Chip, Hardware, Part, Physical, Quantity, Scene, Trouble};

/// Reads one channel of a chip that the kernel monitors (hwmon): LM75, INA219, SHT3x, a fan, the supply, and many more.
///
/// The payload is a number: degrees Celsius, volts, amperes, watts, joules, percent relative humidity, turns a minute.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Hwmon {
    /// The channel, as in the names of the chip's files: `temp1`, `in0`, `curr1`, `power1`, `energy1`, `humidity1`, `fan1`.
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
    /// The endings of the file that has the reading, the first that is there counts.
    endings: &'static [&'static str],
}

const fn kind(name: &'static str, unit: &'static str, factor: f64) -> Kind {
    Kind {
        name,
        unit,
        factor,
        endings: &["input"],
    }
}

/// The kernel's units: thousandths of a degC, mV, mA, uW, uJ, thousandths of a percent, turns a minute.
const KINDS: [Kind; 7] = [
    kind("temp", "degC", 1e-3),
    kind("in", "V", 1e-3),
    kind("curr", "A", 1e-3),
    Kind {
        endings: &["input", "average"],
        ..kind("power", "W", 1e-6)
    },
    kind("energy", "J", 1e-6),
    kind("humidity", "%", 1e-3),
    kind("fan", "rpm", 1.0),
];

impl Kind {
    /// The type that the channel begins with; a number follows, and nothing else.
    fn of(channel: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| {
            let number = channel.strip_prefix(kind.name).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())
        })
    }
}

impl Part for Hwmon {
    type Place = HwmonPlace;
    const NAME: &'static str = "hwmon";
    const ABOUT: About = About {
        title: "Whatever the kernel monitors",
        quantities: &[Quantity::new("value", "", (f64::MIN, f64::MAX), 6)],
        addresses: &[],
        wiring: &[],
        setup: "An overlay in /boot/firmware/config.txt, such as `dtoverlay=i2c-sensor,lm75`, `dtoverlay=i2c-sensor,sht3x` or \
                `dtoverlay=i2c-fan,emc2301`, and a restart. `grep . /sys/class/hwmon/*/name` then shows the chip.",
        notes: "One channel for each node. The kernel's units become those that people write: degC, V, A, W, J, %, rpm. A channel whose \
                `_fault` file says 1 is an error.",
        data_sheet: "kernel Documentation/hwmon/sysfs-interface.rst",
        takes_ms: 10,
    };
    const EXAMPLE: &'static str = r#"
[nodes.cabinet]
type = "hwmon"
device = "lm75"
channel = "temp1"
every = "10s"

[nodes.show]
type = "debug"
from = "cabinet"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let channel = &self.channel;
        if Kind::of(channel).is_some() {
            return Vec::new();
        }
        let known = KINDS.map(|kind| kind.name).join(", ");
        let message = format!("`{channel}` is not a channel: that is one of {known}, and a number");
        vec![("channel", message)]
    }

    fn quantities(&self) -> Vec<Quantity> {
        let unit = Kind::of(&self.channel).map_or("", |kind| kind.unit);
        vec![Quantity::new("value", unit, (f64::MIN, f64::MAX), 6)]
    }

    fn open(&self, (hardware, device): (Hardware, String)) -> Result<Box<dyn Chip>, Trouble> {
        let kind = Kind::of(&self.channel).expect("`problems` has found none");
        let channel = Channel {
            chips: hardware.sys.join("class/hwmon"),
            device,
            channel: self.channel.clone(),
            kind,
        };
        Ok(Box::new(move || Ok(vec![channel.value()?])))
    }

    fn twin(&self, scene: Scene) -> Box<dyn Chip> {
        let kind = Kind::of(&self.channel).map_or("", |kind| kind.name);
        Box::new(move || {
            // In the steps of the kernel's units.
            let milli = |physical| (scene.value(physical) * 1e3).round() / 1e3;
            Ok(vec![match kind {
                "temp" => milli(Physical::Temperature),
                "in" => milli(Physical::Voltage),
                "curr" => milli(Physical::Current),
                "power" => milli(Physical::Voltage) * milli(Physical::Current),
                // As at a steady 5 W.
                "energy" => 5.0 * scene.value(Physical::Uptime),
                "humidity" => milli(Physical::Humidity),
                _ => (30.0 * scene.value(Physical::Share)).round(),
            }])
        })
    }
}

struct Channel {
    chips: PathBuf,
    device: String,
    channel: String,
    kind: &'static Kind,
}

impl Channel {
    fn value(&self) -> Result<f64, KernelError> {
        if !self.chips.exists() {
            return Err(KernelError::NotHere {
                what: "chip has a driver of hwmon in the kernel",
                path: self.chips.clone(),
                remedy: "load its overlay in /boot/firmware/config.txt (for many `dtoverlay=i2c-sensor,NAME`) and restart",
            });
        }
        let folder = find_device(&self.chips, "hwmon", &self.device)?;
        let fault = folder.join(format!("{}_fault", self.channel));
        if fault.exists() && number_in(&fault)? != 0.0 {
            return Err(KernelError::Fault { path: fault });
        }
        let endings = self.kind.endings.iter();
        let files = endings.map(|ending| format!("{}_{ending}", self.channel));
        let files: Vec<String> = files.collect();
        match files.iter().find(|file| folder.join(file).exists()) {
            Some(file) => Ok(number_in(&folder.join(file))? * self.kind.factor),
            None => Err(KernelError::NoChannel {
                tried: files,
                present: channels(&folder),
                path: folder,
            }),
        }
    }
}

fn channels(folder: &Path) -> Vec<String> {
    let files = names_in(folder);
    let mut channels: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let (channel, ending) = file.split_once('_')?;
            let kind = Kind::of(channel)?;
            kind.endings.contains(&ending).then(|| channel.to_owned())
        })
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

    /// An LM75, an INA219, an SHT3x and a fan, as their drivers show them.
    const PI: &[(&str, &str)] = &[
        ("class/hwmon/hwmon0/name", "lm75\n"),
        ("class/hwmon/hwmon0/temp1_input", "-10125\n"),
        ("class/hwmon/hwmon1/name", "ina219\n"),
        ("class/hwmon/hwmon1/in1_input", "12020\n"),
        ("class/hwmon/hwmon1/curr1_input", "-153\n"),
        ("class/hwmon/hwmon1/power1_input", "1840000\n"),
        ("class/hwmon/hwmon2/name", "sht3x\n"),
        ("class/hwmon/hwmon2/humidity1_input", "45120\n"),
        ("class/hwmon/hwmon2/temp1_fault", "1\n"),
        ("class/hwmon/hwmon2/temp1_input", "20000\n"),
        ("class/hwmon/hwmon3/name", "pwmfan\n"),
        ("class/hwmon/hwmon3/fan1_fault", "0\n"),
        ("class/hwmon/hwmon3/fan1_input", "2850\n"),
        ("class/hwmon/hwmon3/power1_average", "250000\n"),
        ("class/hwmon/hwmon3/energy1_input", "7500000\n"),
        ("class/hwmon/hwmon4/name", "lm75\n"),
        ("class/hwmon/hwmon4/temp1_input", "broken\n"),
    ];

    fn read(files: &[(&str, &str)], device: &str, channel: &str) -> Result<Value, String> {
        let sys = sysfs(files);
        let hardware = Hardware {
            sys: sys.path().into(),
            ..Hardware::real()
        };
        let part = Hwmon {
            channel: channel.to_owned(),
        };
        let place = HwmonPlace {
            device: device.to_owned(),
        };
        let mut sensor = SensorSpec::new(part, place).open(&hardware);
        sensor.read(Now::default()).map_err(|error| chain(&error))
    }

    #[test]
    fn readings_are_in_the_units_people_write() {
        let check = |device: &str, channel: &str, expected: f64| {
            let read = read(PI, device, channel);
            assert_eq!(read, Ok(Value::Number(expected)), "{device} {channel}");
        };
        check("hwmon0", "temp1", -10.125);
        check("ina219", "in1", 12.02);
        check("ina219", "curr1", -0.153);
        check("ina219", "power1", 1.84);
        check("sht3x", "humidity1", 45.12);
        check("pwmfan", "fan1", 2850.0);
        check("pwmfan", "power1", 0.25);
        check("pwmfan", "energy1", 7.5);
    }

    #[test]
    fn errors_say_what_is_there() {
        let check = |files: &[(&str, &str)], device: &str, channel: &str, expected: &str| {
            let error = read(files, device, channel).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "lm75", "temp1", "dtoverlay=i2c-sensor");
        check(PI, "lm75", "temp1", "hwmon0, hwmon4; give the folder's");
        check(PI, "tmp102", "temp1", "there are the devices lm75, ina219");
        check(
            PI,
            "ina219",
            "temp1",
            "no temp1_input; there are the channels curr1, in1, power1",
        );
        check(
            PI,
            "ina219",
            "power2",
            "no power2_input and no power2_average",
        );
        check(PI, "sht3x", "temp1", "probe is broken");
        check(PI, "hwmon4", "temp1", "is not a number");
    }

    #[test]
    fn channels_are_checked() {
        let check = |channel: &str, expected: Option<&str>| {
            let found = Kind::of(channel).map(|kind| kind.unit);
            assert_eq!(found, expected, "{channel}");
        };
        check("temp12", Some("degC"));
        check("in0", Some("V"));
        check("fan1", Some("rpm"));
        for wrong in [
            "",
            "temp",
            "temp1_input",
            "intrusion0",
            "../temp1",
            "humidity",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_simulated_chip_shows_what_is_around_it() {
        let scene = Scene::still(&[
            (Physical::Temperature, -4.25),
            (Physical::Voltage, 12.0),
            (Physical::Current, 0.5),
        ]);
        let check = |channel: &str, expected: f64| {
            let channel = channel.to_owned();
            let mut twin = Hwmon { channel }.twin(scene.clone());
            assert_eq!(twin.measure().unwrap(), [expected]);
        };
        check("temp1", -4.25);
        check("power1", 6.0);
    }
}
