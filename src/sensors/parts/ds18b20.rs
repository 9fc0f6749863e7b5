//! DS18B20: temperature over the kernel's 1-wire files.
//!
//! Opening and reading `w1_slave` makes the kernel convert and read once; it answers with two lines (kernel
//! Documentation/w1/slaves/w1_therm.rst):
//! ```text
//! 50 05 4b 46 7f ff 0c 10 1c : crc=1c YES
//! 50 05 4b 46 7f ff 0c 10 1c t=85000
//! ```
//! The nine bytes are the sensor's scratchpad with its check sum, `t` is in thousandths of a degC. When the sum is wrong,
//! the second line shows what an *earlier* reading left: the first line decides.
//!
//! Must not: write to the sensor; its EEPROM wears out.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::kernel::{KernelError, OneWire, names_in, read_text};
use crate::sensors::{About, Chip, Hardware, Part, Physical, Quantity, Scene, Trouble};

/// Reads a DS18B20 temperature sensor on the kernel's 1-wire bus. The payload is a number in degrees Celsius.
///
/// The bus needs `dtoverlay=w1-gpio` in the Pi's `config.txt`. A reading takes the sensor up to 750 ms.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Ds18b20 {
    /// The sensor's 1-wire id, as in `/sys/bus/w1/devices`: `28-` and twelve hexadecimal digits.
    pub device: String,
}

/// DS18B20 data sheet, "Memory": the reserved byte 6 of the scratchpad is 0Ch at power-on. Where it still is 0Ch with
/// 85.00 degC there was no conversion (w1_therm.rst, `features`, where that check is optional); not every clone follows.
const RESERVED_AT_POWER_ON: u8 = 0x0c;

/// DS18B20 data sheet, "Operation - Measuring Temperature": the power-on reset value of the temperature is +85 degC.
const POWER_ON_MILLI_DEGC: i64 = 85_000;

impl Part for Ds18b20 {
    type Place = OneWire;
    const NAME: &'static str = "ds18b20";
    const ABOUT: About = About {
        title: "Maxim / Analog Devices DS18B20",
        // Data sheet, "Absolute Maximum Ratings" and "DC Electrical Characteristics".
        quantities: &[Quantity::new("temperature", "degC", (-55.0, 125.0), 4)],
        addresses: &[],
        wiring: &[
            ("VDD (red)", "3.3 V, pin 1"),
            ("GND (black)", "ground, pin 6"),
            ("DQ (yellow)", "GPIO4, pin 7, with 4.7 kOhm to 3.3 V"),
        ],
        setup: "`dtoverlay=w1-gpio` in /boot/firmware/config.txt, and a restart.",
        notes: "Accurate to 0.5 degC from -10 to 85 degC. A reading holds the bus for up to 750 ms, so that ten sensors are not read \
                more often than every 8 s. 85 degC exactly is what it shows after a loss of power; that is told apart where the \
                sensor lets it be. Cables of more than some 10 m want a lower resistor, and a shield.",
        data_sheet: "DS18B20 data sheet, 19-7487 Rev 6",
        takes_ms: 750,
    };
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"
every = "1s"

[nodes.show]
type = "debug"
from = "probe"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let id = &self.device;
        if is_id(id) {
            return Vec::new();
        }
        let message = format!(
            "`{id}` is not the id of a DS18B20: that is `28-` and twelve hexadecimal digits, as `ls /sys/bus/w1/devices` shows"
        );
        vec![("device", message)]
    }

    fn open(&self, hardware: Hardware) -> Result<Box<dyn Chip>, Trouble> {
        let id = self.device.clone();
        Ok(Box::new(move || {
            let degc = read(&hardware.sys.join("bus/w1/devices"), &id)?;
            Ok(vec![degc])
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn Chip> {
        Box::new(move || {
            // At 12 bits it has steps of 1/16 degC.
            let degc = (scene.value(Physical::Temperature) * 16.0).round() / 16.0;
            Ok(vec![degc])
        })
    }
}

fn read(devices: &Path, id: &str) -> Result<f64, KernelError> {
    let folder = devices.join(id);
    if !folder.exists() {
        return Err(missing(devices, id));
    }
    let path = folder.join("w1_slave");
    parse(&read_text(&path)?, &path)
}

fn missing(devices: &Path, id: &str) -> KernelError {
    if !devices.exists() {
        return KernelError::NoW1Bus {
            path: devices.to_owned(),
        };
    }
    let mut present = names_in(devices);
    present.retain(|name| is_id(name));
    KernelError::NoW1Device {
        id: id.to_owned(),
        path: devices.join(id),
        present,
    }
}

/// A family code of 28h and a 48-bit serial number, as the kernel names the folder.
fn is_id(id: &str) -> bool {
    let serial = id.strip_prefix("28-").map(str::as_bytes);
    serial.is_some_and(|it| it.len() == 12 && it.iter().all(u8::is_ascii_hexdigit))
}

/// What `w1_slave` says, in degC.
fn parse(text: &str, path: &Path) -> Result<f64, KernelError> {
    let path_buf = || path.to_owned();
    let malformed = || KernelError::Malformed {
        path: path.to_owned(),
        text: text.to_owned(),
        expected: "two lines that end in YES or NO and in t=, as the kernel's w1_therm writes them",
    };
    let (verdict, reading) = text.trim_end().split_once('\n').ok_or_else(malformed)?;

    if verdict.ends_with(" NO") {
        return Err(KernelError::Crc { path: path_buf() });
    }
    if !verdict.ends_with(" YES") {
        return Err(malformed());
    }
    let (bytes, temperature) = reading.split_once("t=").ok_or_else(malformed)?;
    let scratchpad: Vec<u8> = bytes
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .map_err(|_| malformed())?;
    let milli_degc: i64 = temperature.trim().parse().map_err(|_| malformed())?;
    let Ok(scratchpad) = <[u8; 9]>::try_from(scratchpad) else {
        return Err(malformed());
    };

    // The check sum of zeros is zero, so a shorted data line passes as a perfect reading of 0 degC.
    if scratchpad == [0; 9] {
        return Err(KernelError::Zeros { path: path_buf() });
    }
    if milli_degc == POWER_ON_MILLI_DEGC && scratchpad[6] == RESERVED_AT_POWER_ON {
        return Err(KernelError::PowerOn { path: path_buf() });
    }
    Ok(milli_degc as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::kernel::sysfs;

    const ID: &str = "28-0316a2795aff";

    fn read(w1_slave: &str) -> Result<f64, KernelError> {
        let root = sysfs(&[("bus/w1/devices/28-0316a2795aff/w1_slave", w1_slave)]);
        super::read(&root.path().join("bus/w1/devices"), ID)
    }

    #[test]
    fn readings_are_in_degrees() {
        let check = |w1_slave: &str, expected: f64| assert_eq!(read(w1_slave).unwrap(), expected);
        check(
            "57 01 4b 46 7f ff 09 10 9f : crc=9f YES\n57 01 4b 46 7f ff 09 10 9f t=21437\n",
            21.437,
        );
        check(
            "5e ff 4b 46 7f ff 02 10 b8 : crc=b8 YES\n5e ff 4b 46 7f ff 02 10 b8 t=-10125\n",
            -10.125,
        );
        // 85 degC that was measured: byte 6 has changed.
        check(
            "50 05 4b 46 7f ff 10 10 c1 : crc=c1 YES\n50 05 4b 46 7f ff 10 10 c1 t=85000\n",
            85.0,
        );
    }

    #[test]
    fn what_cannot_be_true_is_an_error() {
        let check = |w1_slave: &str, expected: &str| {
            let error = read(w1_slave).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("w1_slave"), "names the file: {error}");
        };
        // The kernel keeps the bytes of the last good reading in the second line.
        check(
            "ff ff ff ff ff ff ff ff ff : crc=c9 NO\n57 01 4b 46 7f ff 09 10 9f t=21437\n",
            "the check sum is wrong",
        );
        check(
            "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000\n",
            "power-on",
        );
        check(
            "00 00 00 00 00 00 00 00 00 : crc=00 YES\n00 00 00 00 00 00 00 00 00 t=0\n",
            "nothing but zeros",
        );
        check("", "is not two lines");
        check("garbage\nt=1", "is not two lines");
        check("57 : crc=9f YES\n57 t=21437\n", "is not two lines");
    }

    #[test]
    fn a_missing_bus_names_the_overlay_and_a_missing_sensor_what_is_there() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let root = sysfs(files);
            let devices = root.path().join("bus/w1/devices");
            let error = super::read(&devices, ID).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "add `dtoverlay=w1-gpio`");
        check(
            &[("bus/w1/devices/w1_bus_master1/w1_master_slave_count", "0\n")],
            "there are no sensors",
        );
        check(
            &[
                ("bus/w1/devices/28-00000a1b2c3d/w1_slave", ""),
                ("bus/w1/devices/28-00000a1b2c3e/w1_slave", ""),
                ("bus/w1/devices/w1_bus_master1/w1_master_slave_count", "2\n"),
            ],
            "there are the sensors 28-00000a1b2c3d, 28-00000a1b2c3e",
        );
    }

    #[test]
    fn ids_are_checked() {
        for id in ["28-0316a2795aff", "28-3C01D607F7AB"] {
            assert!(is_id(id), "{id}");
        }
        for id in [
            "",
            "28-",
            "10-0316a2795aff",
            "28-0316a2795af",
            "28-0316a2795afg",
        ] {
            assert!(!is_id(id), "{id}");
        }
    }
}
