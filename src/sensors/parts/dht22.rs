//! Aosong DHT22 and DHT11: temperature and humidity over one wire of their own, read by the kernel.
//!
//! The pulses are 26 to 70 us wide, which only the kernel can time: its driver `dht11` (drivers/iio/humidity/dht11.c) does, for both parts. It
//! asks the sensor when its last answer is older than two seconds, so that the two files show one measurement. An interrupt that came late makes
//! it fail with EIO, a missing answer with ETIMEDOUT.
//!
//! Must not: ask again within two seconds; the sensor does not answer, or worse.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::kernel::{DhtPlace, KernelError, find_device, number};
use crate::sensors::{About, Chip, Hardware, Part, Physical, Quantity, Scene, Trouble};

/// Reads a DHT22 (AM2302) or DHT11: temperature in degrees Celsius, relative humidity in percent.
///
/// The kernel reads it, by `dtoverlay=dht11,gpiopin=4` in the Pi's `config.txt`. It often fails, so that a reading is tried three times, two
/// seconds apart.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Dht22 {}

/// How often one reading is tried. With the second that the kernel waits for an answer each time, three end within the ten that a flow waits.
const TRIES: u32 = 3;
/// DHT22 data sheet, 7.3 "sensing period": 2 s.
const APART: Duration = Duration::from_secs(2);

impl Part for Dht22 {
    type Place = DhtPlace;
    const NAME: &'static str = "dht22";
    const ABOUT: About = About {
        title: "Aosong DHT22 (AM2302), DHT11",
        quantities: &[
            Quantity::new("temperature", "degC", (-40.0, 80.0), 1),
            Quantity::new("humidity", "%", (0.0, 100.0), 1),
        ],
        addresses: &[],
        wiring: &[
            (
                "1, VDD",
                "3.3 V, pin 1; not 5 V: the data line would carry them",
            ),
            (
                "2, DATA",
                "GPIO4, pin 7, with 4.7 to 10 kOhm to 3.3 V, which boards have on them",
            ),
            ("3", "nothing"),
            ("4, GND", "ground, pin 6"),
        ],
        setup: "`dtoverlay=dht11,gpiopin=4` in /boot/firmware/config.txt (for a DHT22 too), and a restart. `cat /sys/bus/iio/devices/*/name` then \
                shows `dht11@4`; the number is the pin in hexadecimal digits.",
        notes: "DHT22: accurate to 0.5 degC and 2 %; DHT11: whole degrees from 0 to 50 degC, to 2 degC and 5 %. Readings fail now and then \
                on a busy Pi. For something that matters take a part on I2C, such as a BME280.",
        data_sheet: "Aosong DHT22 (AM2302) data sheet; kernel drivers/iio/humidity/dht11.c",
        takes_ms: 2_000,
    };
    const EXAMPLE: &'static str = r#"
[nodes.cellar]
type = "dht22"
every = "10s"

[nodes.show]
type = "debug"
from = "cellar"
"#;

    fn open(&self, (hardware, device): (Hardware, String)) -> Result<Box<dyn Chip>, Trouble> {
        let mut dht = Dht {
            read: |path: &Path| fs::read_to_string(path),
            wait: thread::sleep,
        };
        Ok(Box::new(move || Ok(dht.measure(&hardware.sys, &device)?)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn Chip> {
        Box::new(move || {
            let tenths = |physical| (scene.value(physical) * 10.0).round() / 10.0;
            Ok(vec![
                tenths(Physical::Temperature),
                tenths(Physical::Humidity),
            ])
        })
    }
}

/// How its files are read, and waited for.
struct Dht<R, W> {
    read: R,
    wait: W,
}

impl<R: FnMut(&Path) -> io::Result<String>, W: FnMut(Duration)> Dht<R, W> {
    /// degC and %.
    fn measure(&mut self, sys: &Path, device: &str) -> Result<Vec<f64>, KernelError> {
        let devices = sys.join("bus/iio/devices");
        if !devices.exists() {
            return Err(KernelError::NotHere {
                what: "sensor has a driver in the kernel",
                path: devices,
                remedy: "add `dtoverlay=dht11,gpiopin=4`, with the pin of its DATA, to /boot/firmware/config.txt and restart",
            });
        }
        let folder = find_device(&devices, "iio:device", device)?;
        // The humidity is then of the same measurement, as the kernel keeps that for two seconds.
        let degc = self.thousandths(&folder.join("in_temp_input"))?;
        let path = folder.join("in_humidityrelative_input");
        let percent = self.thousandths(&path)?;
        // Zeros have a check sum of zero: a line that something else pulls down.
        if (degc, percent) == (0.0, 0.0) {
            return Err(KernelError::Zeros { path });
        }
        Ok(vec![degc, percent])
    }

    fn thousandths(&mut self, path: &Path) -> Result<f64, KernelError> {
        let mut tries = 1;
        loop {
            match (self.read)(path) {
                Ok(text) => return Ok(number(&text, path)? / 1000.0),
                Err(error) if may_pass(&error) && tries < TRIES => {
                    (self.wait)(APART);
                    tries += 1;
                }
                Err(source) => {
                    return Err(KernelError::Tried {
                        path: path.to_owned(),
                        tries,
                        remedy: "look at supply, cable and the resistor from DATA to 3.3 V; an overloaded Pi reads it badly too",
                        source,
                    });
                }
            }
        }
    }
}

fn may_pass(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const ETIMEDOUT: i32 = 110;
    matches!(error.raw_os_error(), Some(EIO | ETIMEDOUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::kernel::sysfs;
    use std::cell::RefCell;

    const FILES: &[(&str, &str)] = &[
        ("bus/iio/devices/iio:device0/name", "bme280\n"),
        ("bus/iio/devices/iio:device1/name", "dht11@4\n"),
        ("bus/iio/devices/iio:device1/in_temp_input", "-10100\n"),
        (
            "bus/iio/devices/iio:device1/in_humidityrelative_input",
            "65200\n",
        ),
    ];

    /// A reading of which the first tries fail with these codes; also the pauses that were made.
    fn measure(files: &[(&str, &str)], codes: &[i32]) -> (Result<Vec<f64>, String>, Vec<Duration>) {
        let sys = sysfs(files);
        let (mut codes, pauses) = (codes.iter(), RefCell::new(Vec::new()));
        let mut dht = Dht {
            read: |path: &Path| match codes.next() {
                Some(&code) => Err(io::Error::from_raw_os_error(code)),
                None => fs::read_to_string(path),
            },
            wait: |span| pauses.borrow_mut().push(span),
        };
        let measured = dht.measure(sys.path(), "dht11");
        let measured = measured.map_err(|error| crate::sensors::chain(&error));
        (measured, pauses.into_inner())
    }

    #[test]
    fn both_files_of_the_device_are_read_whatever_its_address() {
        assert_eq!(measure(FILES, &[]), (Ok(vec![-10.1, 65.2]), vec![]));
    }

    #[test]
    fn a_reading_that_failed_is_tried_again_as_often_as_the_sensor_lets() {
        let check = |codes: &[i32], pauses: usize, expected: Result<(), &str>| {
            let (measured, made) = measure(FILES, codes);
            assert_eq!(made, vec![Duration::from_secs(2); pauses], "{codes:?}");
            match (measured, expected) {
                (Ok(measured), Ok(())) => assert_eq!(measured, [-10.1, 65.2]),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (measured, _) => panic!("{codes:?}: {measured:?}"),
            }
        };
        check(&[5], 1, Ok(()));
        check(&[110, 5], 2, Ok(()));
        check(&[5, 110, 5], 2, Err("tried 3 times"));
        // No permission will not pass.
        check(&[13], 0, Err("tried 1 times"));
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_told() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let error = measure(files, &[]).0.unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "dtoverlay=dht11,gpiopin=4");
        check(&FILES[..1], "there are the devices bme280");
        let two = [
            ("bus/iio/devices/iio:device0/name", "dht11@4"),
            ("bus/iio/devices/iio:device1/name", "dht11@11"),
        ];
        check(&two, "the whole name if it has an `@`");
        let zeros = [
            ("bus/iio/devices/iio:device1/name", "dht11"),
            ("bus/iio/devices/iio:device1/in_temp_input", "0\n"),
            (
                "bus/iio/devices/iio:device1/in_humidityrelative_input",
                "0\n",
            ),
        ];
        check(&zeros, "nothing but zeros");
    }

    #[test]
    fn a_simulated_one_has_its_steps() {
        let scene = Scene::still(&[(Physical::Temperature, 4.26), (Physical::Humidity, 71.04)]);
        assert_eq!(Dht22 {}.twin(scene).measure().unwrap(), [4.3, 71.0]);
    }
}
