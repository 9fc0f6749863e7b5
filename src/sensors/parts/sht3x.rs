//! Sensirion SHT30, SHT31 and SHT35.
//!
//! Commands, bits and formulas are those of the SHT3x-DIS data sheet, version 5: section 4.3 for measuring once, 4.8 to 4.11 for break,
//! reset and status, 4.13 for the formulas. It has no register that says what it is; its status has bits that must be as a reset leaves
//! them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sensirion::{Answer, FULL, command, degc, raw_of_degc, words};
use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an SHT30, SHT31 or SHT35: temperature in degrees Celsius, relative humidity in percent.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Sht3x {}

/// Tables 1 and 2.
const TEMPERATURE: Quantity = Quantity::new("temperature", "degC", (-40.0, 125.0), 2);
const HUMIDITY: Quantity = Quantity::new("humidity", "%", (0.0, 100.0), 2);

/// Table 9: once, with the least noise, without holding the clock.
const MEASURE: u16 = 0x2400;
/// Section 4.8: ends measuring by itself, which another program may have begun.
const BREAK: u16 = 0x3093;
/// Section 4.9.
const RESET: u16 = 0x30a2;
/// Table 17.
const STATUS: u16 = 0xf32d;
/// Table 18, by bit: a reset sets "reset detected" (4) and clears "heater" (13).
const RESET_SEEN: u16 = 1 << 4;
const HEATER: u16 = 1 << 13;

/// Table 4: 15.5 ms at most at the lowest supply; 1.5 ms after a reset; section 4.8: 1 ms after a break.
const MEASURES_MS: u64 = 16;
const RESETS_MS: u64 = 2;

impl Part for Sht3x {
    type Place = I2cPlace;
    const NAME: &'static str = "sht3x";
    const ABOUT: About = About {
        title: "Sensirion SHT30, SHT31, SHT35",
        quantities: &[TEMPERATURE, HUMIDITY],
        addresses: &[0x44, 0x45],
        wiring: &[
            ("VDD or VIN", "3.3 V, pin 1"),
            ("GND or VSS", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            (
                "ADDR or AD",
                "ground for 0x44, 3.3 V for 0x45; not open on a bare chip",
            ),
            ("nRESET", "open"),
            ("ALERT", "open"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "Typically accurate to 0.2 degC and 2 % (SHT30, SHT31) or 0.1 degC and 1.5 % (SHT35). Runs from 5 V too, but then its lines must not be \
                pulled up to that: pins of a Pi bear 3.3 V. The SHT4x is another part with the same addresses.",
        data_sheet: "Sensirion SHT3x-DIS, version 5, May 2018",
        takes_ms: MEASURES_MS,
    };
    const EXAMPLE: &'static str = r#"
[nodes.cellar]
type = "sht3x"
address = 0x45
quantity = "humidity"
every = "1m"

[nodes.show]
type = "debug"
from = "cellar"
"#;

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        command(&mut link, BREAK)?;
        link.wait_ms(RESETS_MS);
        command(&mut link, RESET)?;
        link.wait_ms(RESETS_MS);
        let [status] = words(&link.ask::<3>(&STATUS.to_be_bytes())?)?;
        if status & RESET_SEEN == 0 || status & HEATER != 0 {
            return Err(Trouble::WrongPart {
                says: format!("its status after a reset is {status:#06x}"),
                expected: "an SHT3x".to_owned(),
                remedy: "is something else at this address?".to_owned(),
            });
        }
        Ok(Box::new(move || measure(&mut link)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        let answer = Answer::default();
        Box::new(Twin { scene, answer })
    }
}

fn measure(link: &mut I2cLink) -> Result<Vec<f64>, Trouble> {
    command(link, MEASURE)?;
    link.wait_ms(MEASURES_MS);
    let [temperature, humidity] = words(&link.receive::<6>()?)?;
    Ok(vec![degc(temperature), 100.0 * f64::from(humidity) / FULL])
}

struct Twin {
    scene: Scene,
    answer: Answer,
}

impl I2cTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        let word = <[u8; 2]>::try_from(bytes).map(u16::from_be_bytes);
        match word {
            Ok(MEASURE) => {
                let temperature = self.scene.value(Physical::Temperature);
                let humidity = self.scene.value(Physical::Humidity) / 100.0 * FULL;
                let words = [raw_of_degc(temperature), humidity.round() as u16];
                self.answer.set(&words);
            }
            // As table 18 has it after a reset.
            Ok(STATUS) => self.answer.set(&[0x8010]),
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

    fn opened(status: &'static [u8], then: &[Step]) -> Result<Box<dyn Chip>, Trouble> {
        let mut steps = vec![
            Step::Takes(&[0x30, 0x93]),
            Step::Takes(&[0x30, 0xa2]),
            Step::Takes(&[0xf3, 0x2d]),
            Step::Gives(status),
        ];
        steps.extend_from_slice(then);
        Sht3x {}.open(link(&steps))
    }

    fn read(answer: &'static [u8]) -> Result<Vec<f64>, Trouble> {
        let steps = [Step::Takes(&[0x24, 0x00]), Step::Gives(answer)];
        opened(&[0x80, 0x10, 0xe1], &steps)?.measure()
    }

    /// The data sheet has no worked example; by hand from its formulas: 2/5 of 65535 is 25 degC and 40 %, 1/5 is -10 degC and 20 %.
    #[test]
    fn bytes_become_a_reading() {
        let check = |answer, expected: [f64; 2]| {
            let values = read(answer).unwrap();
            for (value, expected) in values.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-9, "{values:?}");
            }
        };
        check(&[0x66, 0x66, 0x93, 0x66, 0x66, 0x93], [25.0, 40.0]);
        check(&[0x33, 0x33, 0x88, 0x33, 0x33, 0x88], [-10.0, 20.0]);
        check(&[0x33, 0x33, 0x88, 0x00, 0x00, 0x81], [-10.0, 0.0]);
    }

    #[test]
    fn a_wrong_check_sum_is_no_reading() {
        let wrong = read(&[0x66, 0x67, 0x93, 0x66, 0x66, 0x93]);
        assert!(matches!(wrong, Err(Trouble::Checksum)), "{wrong:?}");
    }

    #[test]
    fn another_part_at_the_address_is_refused() {
        let refused = opened(&[0x00, 0x00, 0x81], &[]).err().unwrap();
        assert!(refused.to_string().contains("0x0000"), "{refused}");
        let silent = opened(&[0xff; 3], &[]).err().unwrap();
        assert!(matches!(silent, Trouble::Checksum), "{silent:?}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        for (degc, share) in [(21.5, 44.0), (-38.25, 0.0), (124.0, 100.0)] {
            let scene = Scene::still(&[(Physical::Temperature, degc), (Physical::Humidity, share)]);
            let part = Sht3x {};
            let mut chip = part.open(I2cLink::to(0x44, part.twin(scene))).unwrap();
            let values = chip.measure().unwrap();
            assert!((values[0] - degc).abs() < 0.005, "{values:?}");
            assert!((values[1] - share).abs() < 0.005, "{values:?}");
        }
    }
}
