//! Sensirion SHT40, SHT41 and SHT45.
//!
//! Commands, times and formulas are those of the SHT4x data sheet, version 6: section 4.5 for the commands, 4.6 for the formulas,
//! 3 for the times. It has no register that says what it is; that it answers with a serial number under good check sums has to do.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sensirion::{Answer, FULL, degc, raw_of_degc, words};
use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an SHT40, SHT41 or SHT45: temperature in degrees Celsius, relative humidity in percent.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Sht4x {}

/// Sections 2.2 and 2.1.
const TEMPERATURE: Quantity = Quantity::new("temperature", "degC", (-40.0, 125.0), 2);
const HUMIDITY: Quantity = Quantity::new("humidity", "%", (0.0, 100.0), 2);

/// Section 4.5.
mod command {
    /// Both, with the least noise.
    pub(super) const MEASURE: u8 = 0xfd;
    pub(super) const SERIAL: u8 = 0x89;
    pub(super) const RESET: u8 = 0x94;
}

/// Section 3, timings: 8.3 ms at most, and 1 ms after a reset.
const MEASURES_MS: u64 = 9;
const RESETS_MS: u64 = 2;

impl Part for Sht4x {
    type Place = I2cPlace;
    const NAME: &'static str = "sht4x";
    const ABOUT: About = About {
        title: "Sensirion SHT40, SHT41, SHT45",
        quantities: &[TEMPERATURE, HUMIDITY],
        addresses: &[0x44, 0x45, 0x46],
        wiring: &[
            ("VDD or VIN", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "Typically accurate to 0.2 degC and 1.8 % (SHT40, SHT41) or 0.1 degC and 1 % (SHT45). The address is in the order \
                number: SHT4x-A is 0x44, -B 0x45, -C 0x46; it cannot be changed. The bare chip takes 3.6 V at most. The SHT3x is another \
                part with the same addresses. Above 100 %, which water on the sensor gives, the reading is 100.",
        data_sheet: "Sensirion SHT4x, version 6, February 2023",
        takes_ms: MEASURES_MS,
    };
    const EXAMPLE: &'static str = r#"
[nodes.air]
type = "sht4x"
every = "10s"

[nodes.show]
type = "debug"
from = "air"
"#;

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        link.send(&[command::RESET])?;
        link.wait_ms(RESETS_MS);
        link.send(&[command::SERIAL])?;
        link.wait_ms(RESETS_MS);
        words::<2>(&link.receive::<6>()?)?;
        Ok(Box::new(move || measure(&mut link)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        let answer = Answer::default();
        Box::new(Twin { scene, answer })
    }
}

fn measure(link: &mut I2cLink) -> Result<Vec<f64>, Trouble> {
    link.send(&[command::MEASURE])?;
    link.wait_ms(MEASURES_MS);
    let [temperature, humidity] = words(&link.receive::<6>()?)?;
    Ok(vec![degc(temperature), share(humidity)])
}

/// Section 4.6: just beyond 0 and 100 % is what the part's accuracy allows, and is to be cut. Not so the ends of the scale, -6 and 119 %,
/// where nothing was measured.
fn share(raw: u16) -> f64 {
    let share = 125.0 * f64::from(raw) / FULL - 6.0;
    match raw {
        u16::MIN | u16::MAX => share,
        _ => share.clamp(0.0, 100.0),
    }
}

struct Twin {
    scene: Scene,
    answer: Answer,
}

impl I2cTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        match bytes {
            [command::MEASURE] => {
                let temperature = self.scene.value(Physical::Temperature);
                let humidity = (self.scene.value(Physical::Humidity) + 6.0) / 125.0 * FULL;
                let words = [raw_of_degc(temperature), humidity.round() as u16];
                self.answer.set(&words);
            }
            [command::SERIAL] => self.answer.set(&[0x0f5c, 0x21a7]),
            _ => self.answer = Answer::default(),
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        self.answer.take(into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    fn read(answer: &'static [u8]) -> Result<Vec<f64>, Trouble> {
        let steps = [
            Step::Takes(&[0x94]),
            Step::Takes(&[0x89]),
            Step::Gives(&[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92]),
            Step::Takes(&[0xfd]),
            Step::Gives(answer),
        ];
        Sht4x {}.open(link(&steps))?.measure()
    }

    /// The data sheet has no worked example; by hand from its formulas: 2/5 of 65535 is 25 degC and 44 %, 1/5 is -10 degC and 19 %.
    #[test]
    fn bytes_become_a_reading() {
        let check = |answer, expected: [f64; 2]| {
            let values = read(answer).unwrap();
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-9, "{values:?}");
            }
        };
        check(&[0x66, 0x66, 0x93, 0x66, 0x66, 0x93], [25.0, 44.0]);
        check(&[0x33, 0x33, 0x88, 0x33, 0x33, 0x88], [-10.0, 19.0]);
    }

    #[test]
    fn humidity_is_cut_but_not_where_nothing_was_measured() {
        let check = |raw: u16, expected: f64| {
            assert!(
                (share(raw) - expected).abs() < 0.01,
                "{raw}: {}",
                share(raw)
            );
        };
        check(0, -6.0);
        check(1, 0.0);
        check(3_146, 0.0);
        check(3_200, 0.103);
        check(55_573, 99.998);
        check(55_600, 100.0);
        check(65_534, 100.0);
        check(65_535, 119.0);
    }

    #[test]
    fn a_wrong_check_sum_is_no_reading() {
        let wrong = read(&[0x66, 0x66, 0x93, 0x66, 0x66, 0x94]);
        assert!(matches!(wrong, Err(Trouble::Checksum)), "{wrong:?}");
    }

    #[test]
    fn another_part_at_the_address_is_refused() {
        let steps = [
            Step::Takes(&[0x94]),
            Step::Takes(&[0x89]),
            Step::Gives(&[0xff; 6]),
        ];
        let refused = Sht4x {}.open(link(&steps)).err().unwrap();
        assert!(matches!(refused, Trouble::Checksum), "{refused:?}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        for (degc, share) in [(21.5, 44.0), (-38.25, 0.0), (124.0, 100.0)] {
            let scene = Scene::still(&[(Physical::Temperature, degc), (Physical::Humidity, share)]);
            let part = Sht4x {};
            let mut chip = part.open(I2cLink::to(0x44, part.twin(scene))).unwrap();
            let values = chip.measure().unwrap();
            assert!((values[0] - degc).abs() < 0.005, "{values:?}");
            assert!((values[1] - share).abs() < 0.005, "{values:?}");
        }
    }
}
