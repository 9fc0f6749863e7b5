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

use std::path::{Path, PathBuf};

use super::{Sensor, SensorError, names_in, read_text};
use crate::message::Value;
use crate::runtime::clock::Now;

/// DS18B20 data sheet, "Absolute Maximum Ratings" and "DC Electrical Characteristics": -55 degC to +125 degC.
const RANGE_DEGC: std::ops::RangeInclusive<f64> = -55.0..=125.0;

/// DS18B20 data sheet, "Memory": the reserved byte 6 of the scratchpad is 0Ch at power-on. Where it still is 0Ch with
/// 85.00 degC there was no conversion (w1_therm.rst, `features`, where that check is optional); not every clone follows.
const RESERVED_AT_POWER_ON: u8 = 0x0c;

/// DS18B20 data sheet, "Operation - Measuring Temperature": the power-on reset value of the temperature is +85 degC.
const POWER_ON_MILLI_DEGC: i64 = 85_000;

pub(super) struct Ds18b20 {
    devices: PathBuf,
    id: String,
}

impl Ds18b20 {
    pub(super) fn new(root: &Path, id: &str) -> Result<Ds18b20, SensorError> {
        check_id(id)?;
        Ok(Ds18b20 {
            devices: root.join("bus/w1/devices"),
            id: id.to_owned(),
        })
    }

    fn missing(&self) -> SensorError {
        if !self.devices.exists() {
            return SensorError::NoW1Bus {
                path: self.devices.clone(),
            };
        }
        let mut present = names_in(&self.devices);
        present.retain(|name| check_id(name).is_ok());
        SensorError::NoW1Device {
            id: self.id.clone(),
            path: self.devices.join(&self.id),
            present,
        }
    }
}

impl Sensor for Ds18b20 {
    fn read(&mut self, _now: Now) -> Result<Value, SensorError> {
        let folder = self.devices.join(&self.id);
        if !folder.exists() {
            return Err(self.missing());
        }
        let path = folder.join("w1_slave");
        let text = read_text(&path)?;
        parse(&text, &path).map(Value::Number)
    }
}

/// A family code of 28h and a 48-bit serial number, as the kernel names the folder.
pub(super) fn check_id(id: &str) -> Result<(), SensorError> {
    match id.strip_prefix("28-") {
        Some(serial) if serial.len() == 12 && serial.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(())
        }
        _ => Err(SensorError::BadId { id: id.to_owned() }),
    }
}

/// What `w1_slave` says, in degC.
fn parse(text: &str, path: &Path) -> Result<f64, SensorError> {
    let path_buf = || path.to_owned();
    let malformed = || SensorError::Malformed {
        path: path.to_owned(),
        text: text.to_owned(),
        expected: "two lines that end in YES or NO and in t=, as the kernel's w1_therm writes them",
    };
    let (verdict, reading) = text.trim_end().split_once('\n').ok_or_else(malformed)?;

    if verdict.ends_with(" NO") {
        return Err(SensorError::Crc { path: path_buf() });
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
        return Err(SensorError::Zeros { path: path_buf() });
    }
    if milli_degc == POWER_ON_MILLI_DEGC && scratchpad[6] == RESERVED_AT_POWER_ON {
        return Err(SensorError::PowerOn { path: path_buf() });
    }
    let degc = milli_degc as f64 / 1000.0;
    if !RANGE_DEGC.contains(&degc) {
        return Err(SensorError::OutOfRange {
            path: path_buf(),
            value: degc,
            unit: "degC",
            range: "-55 to 125 degC",
        });
    }
    Ok(degc)
}

#[cfg(test)]
mod tests {
    use super::super::sysfs;
    use super::*;

    const ID: &str = "28-0316a2795aff";

    fn read(w1_slave: &str) -> Result<Value, SensorError> {
        let root = sysfs(&[("bus/w1/devices/28-0316a2795aff/w1_slave", w1_slave)]);
        Ds18b20::new(root.path(), ID).unwrap().read(Now::default())
    }

    #[test]
    fn readings_are_in_degrees() {
        let check = |w1_slave: &str, expected: f64| {
            assert_eq!(read(w1_slave).unwrap(), Value::Number(expected))
        };
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
        check(
            "ff 07 4b 46 7f ff 0c 10 2e : crc=2e YES\nff 07 4b 46 7f ff 0c 10 2e t=127937\n",
            "127.937 degC is outside",
        );
        check("", "is not two lines");
        check("garbage\nt=1", "is not two lines");
        check("57 : crc=9f YES\n57 t=21437\n", "is not two lines");
    }

    #[test]
    fn a_missing_bus_names_the_overlay_and_a_missing_sensor_what_is_there() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let root = sysfs(files);
            let error = Ds18b20::new(root.path(), ID)
                .unwrap()
                .read(Now::default())
                .unwrap_err()
                .to_string();
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
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in [
            "",
            "28-",
            "10-0316a2795aff",
            "28-0316a2795af",
            "28-0316a2795afg",
        ] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
