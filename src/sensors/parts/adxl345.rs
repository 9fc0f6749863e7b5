//! Analog Devices ADXL345: acceleration along three axes, on I2C.
//!
//! Registers are those of the data sheet, revision E ("Register map" and "Register definitions"; table 1 for the scale, table 7 for the
//! rates).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, RegisterTwin, Registers};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an ADXL345: the acceleration along its axes in m/s2, with gravity in it.
///
/// It measures all the time, up to 16 times the standard gravity; a reading is its newest measurement.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Adxl345 {
    /// Measurements per second: 25, 50, 100, 200, 400 or 800. What is faster than half of it is not seen. Default: 100.
    #[serde(default = "usual_rate")]
    rate: u16,
}

fn usual_rate() -> u16 {
    100
}

/// CGPM 1901.
const STANDARD_GRAVITY: f64 = 9.806_65;
/// Counts for it at full resolution (table 1: 256 per g at every range).
const COUNTS: f64 = 256.0;
/// 13 bits.
const LEAST: i16 = -4_096;
const MOST: i16 = 4_095;
const END: f64 = 16.0 * STANDARD_GRAVITY;

const fn axis(name: &'static str) -> Quantity {
    Quantity::new(name, "m/s2", (-END, END), 2)
}

impl Part for Adxl345 {
    type Place = I2cPlace;
    const NAME: &'static str = "adxl345";
    const ABOUT: About = About {
        title: "Analog Devices ADXL345",
        quantities: &[
            axis("acceleration_x"),
            axis("acceleration_y"),
            axis("acceleration_z"),
        ],
        addresses: &[0x53, 0x1d],
        wiring: &[
            ("VCC or VS", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            ("CS", "3.3 V, which selects I2C"),
            ("SDO", "ground for 0x53, 3.3 V for 0x1d"),
            ("INT1, INT2", "not needed"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt. For more than 200 measurements a second also \
                `dtparam=i2c_arm_baudrate=400000`.",
        notes: "Resolves 0.04 m/s2. At rest an axis may be off by 0.4 m/s2, the vertical one by 0.8 m/s2: use `calibrate`. Fix it where \
                it cannot vibrate on its own: on short wires, to what is measured.",
        data_sheet: "Analog Devices ADXL345, revision E",
        takes_ms: 1,
    };
    const EXAMPLE: &'static str = r#"
[nodes.pump]
type = "adxl345"
rate = 400
every = "5ms"
quantity = "acceleration_z"

[nodes.show]
type = "debug"
from = "pump"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        if rate_code(self.rate).is_some() {
            return Vec::new();
        }
        let known: Vec<String> = RATES.iter().map(u16::to_string).collect();
        let message = format!(
            "{} is not a rate of it; it has {}",
            self.rate,
            known.join(", ")
        );
        vec![("rate", message)]
    }

    fn open(&self, link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let meter = Accelerometer::open(link, self.rate)?;
        Ok(Box::new(meter))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Registers::boxed(Twin {
            scene,
            settings: [0; 6],
        })
    }
}

mod register {
    pub(super) const DEVID: u8 = 0x00;
    pub(super) const BW_RATE: u8 = 0x2c;
    pub(super) const POWER_CTL: u8 = 0x2d;
    pub(super) const INT_SOURCE: u8 = 0x30;
    pub(super) const DATA_FORMAT: u8 = 0x31;
    pub(super) const DATA: u8 = 0x32;
}

const ID: u8 = 0xe5;
/// `POWER_CTL`: measures.
const MEASURE: u8 = 0b0000_1000;
/// `DATA_FORMAT`: full resolution, 16 g.
const FULL_16_G: u8 = 0b0000_1011;
/// `INT_SOURCE`: there is a measurement that was not read.
const DATA_READY: u8 = 0b1000_0000;
/// `BW_RATE` of the first is 8, and one more for each that follows (table 7).
const RATES: [u16; 6] = [25, 50, 100, 200, 400, 800];

fn rate_code(rate: u16) -> Option<u8> {
    let place = RATES.iter().position(|it| *it == rate)?;
    Some(place as u8 + 8)
}

struct Accelerometer {
    link: I2cLink,
    rate: u8,
    /// How long until there is a new measurement.
    period_ms: u64,
}

impl Accelerometer {
    fn open(mut link: I2cLink, rate: u16) -> Result<Accelerometer, Trouble> {
        let id = link.register(register::DEVID)?;
        if id != ID {
            return Err(Trouble::WrongPart {
                says: format!("its id is {id:#04x}"),
                expected: format!("{ID:#04x} of an ADXL345"),
                remedy: "is something else at this address?".to_owned(),
            });
        }
        let code = rate_code(rate).expect("the options were checked");
        link.send(&[register::DATA_FORMAT, FULL_16_G])?;
        link.send(&[register::BW_RATE, code])?;
        link.send(&[register::POWER_CTL, MEASURE])?;
        let period_ms = 1_000_u64.div_ceil(rate.into());
        // "Power sequencing": a period and 1.1 ms; the first after that is good.
        link.wait_ms(2 * period_ms + 2);
        Ok(Accelerometer {
            link,
            rate: code,
            period_ms,
        })
    }
}

impl Chip for Accelerometer {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        // Two periods, and what its clock may be slow.
        const TRIES: u32 = 5;
        for _ in 0..TRIES {
            // Settings and data in one go, so that they belong together.
            let bytes: [u8; 12] = self.link.ask(&[register::BW_RATE])?;
            let [rate, power, _, _, source, format, data @ ..] = bytes;
            if (rate, power, format) != (self.rate, MEASURE, FULL_16_G) {
                return Err(Trouble::NotReady(
                    "its settings are gone: it lost power, or another program uses it".to_owned(),
                ));
            }
            if source & DATA_READY != 0 {
                return decode(&data);
            }
            self.link.wait_ms(self.period_ms.div_ceil(2));
        }
        Err(Trouble::NotReady("it does not measure".to_owned()))
    }
}

/// Low byte first, from the x axis on.
fn decode(data: &[u8; 6]) -> Result<Vec<f64>, Trouble> {
    let [x0, x1, y0, y1, z0, z1] = *data;
    let axes = [[x0, x1], [y0, y1], [z0, z1]].map(i16::from_le_bytes);
    if axes.iter().any(|it| *it <= LEAST || *it >= MOST) {
        return Err(Trouble::Saturated(
            "the acceleration is 16 g or more, which is all that it can tell: damp it, or fix it elsewhere".to_owned(),
        ));
    }
    let accelerations = axes.map(|it| f64::from(it) / COUNTS * STANDARD_GRAVITY);
    Ok(accelerations.to_vec())
}

/// The simulated chip: always has a new measurement while it is told to measure.
struct Twin {
    scene: Scene,
    /// From `BW_RATE` on.
    settings: [u8; 6],
}

impl Twin {
    fn counts(&self, axis: u8) -> i16 {
        let g = self.scene.value(Physical::Acceleration(axis)) / STANDARD_GRAVITY;
        let counts = (g * COUNTS).round();
        counts.clamp(LEAST.into(), MOST.into()) as i16
    }

    fn is_measuring(&self) -> bool {
        self.settings[usize::from(register::POWER_CTL - register::BW_RATE)] & MEASURE != 0
    }
}

impl RegisterTwin for Twin {
    fn get(&mut self, register: u8) -> u8 {
        match register {
            register::DEVID => ID,
            register::INT_SOURCE if self.is_measuring() => DATA_READY,
            register::INT_SOURCE => 0,
            register::BW_RATE..=register::DATA_FORMAT => {
                self.settings[usize::from(register - register::BW_RATE)]
            }
            register::DATA..=0x37 => {
                let at = register - register::DATA;
                self.counts(at / 2).to_le_bytes()[usize::from(at % 2)]
            }
            _ => 0,
        }
    }

    fn set(&mut self, register: u8, value: u8) {
        if (register::BW_RATE..=register::DATA_FORMAT).contains(&register) {
            self.settings[usize::from(register - register::BW_RATE)] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    fn said(outcome: Result<Vec<f64>, Trouble>) -> String {
        match outcome {
            Ok(values) => {
                let each: Vec<String> = values.iter().map(|it| format!("{it:.3}")).collect();
                each.join(" ")
            }
            Err(trouble) => trouble.to_string(),
        }
    }

    /// By hand: 256 counts are 9.80665 m/s2.
    #[test]
    fn counts_become_accelerations_within_the_scale() {
        let check = |data: [u8; 6], expected: &str| {
            let said = said(decode(&data));
            assert!(said.contains(expected), "{data:02x?}: {said}");
        };
        check([0, 0, 0, 0, 0, 1], "0.000 0.000 9.807");
        check([0, 0xff, 1, 0, 0xff, 0xff], "-9.807 0.038 -0.038");
        check([0xfe, 0x0f, 0x01, 0xf0, 0, 0], "156.830 -156.868 0.000");
        check([0xff, 0x0f, 0, 0, 0, 0], "16 g or more");
        check([0, 0, 0x00, 0xf0, 0, 0], "16 g or more");
        check([0, 0, 0, 0, 0x00, 0x80], "16 g or more");
    }

    const OPEN: [Step; 5] = [
        Step::Takes(&[0x00]),
        Step::Gives(&[0xe5]),
        Step::Takes(&[0x31, 0x0b]),
        Step::Takes(&[0x2c, 0x0a]),
        Step::Takes(&[0x2d, 0x08]),
    ];

    #[test]
    fn it_waits_for_a_measurement_and_looks_at_the_settings() {
        let check = |answers: &[&'static [u8]], expected: &str| {
            let each = answers.iter();
            let asked = each.flat_map(|it| [Step::Takes(&[0x2c]), Step::Gives(it)]);
            let steps: Vec<Step> = OPEN.iter().cloned().chain(asked).collect();
            let chip = Adxl345 { rate: 100 }.open(link(&steps));
            let said = said(chip.unwrap().measure());
            assert!(said.contains(expected), "{said}");
        };
        let good: &[u8] = &[0x0a, 8, 0, 0, 0x80, 0x0b, 0, 1, 0, 0, 0, 0];
        let not_yet: &[u8] = &[0x0a, 8, 0, 0, 0x02, 0x0b, 9, 9, 9, 9, 9, 9];
        // As after power-up.
        let reset: &[u8] = &[0x0a, 0, 0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0];
        check(&[good], "9.807 0.000 0.000");
        check(&[not_yet, not_yet, good], "9.807 0.000 0.000");
        check(&[reset], "its settings are gone");
        check(&[not_yet; 5], "it does not measure");
    }

    #[test]
    fn another_id_is_another_part() {
        let steps = [Step::Takes(&[0]), Step::Gives(&[0x68])];
        let trouble = Adxl345 { rate: 100 }.open(link(&steps)).err().unwrap();
        assert!(
            trouble.to_string().contains("its id is 0x68, but 0xe5"),
            "{trouble}"
        );
    }

    #[test]
    fn only_rates_of_the_table_can_be_had() {
        assert_eq!(rate_code(25), Some(0x08));
        assert_eq!(rate_code(100), Some(0x0a));
        assert_eq!(rate_code(800), Some(0x0d));
        let problems = Adxl345 { rate: 101 }.problems();
        assert!(problems[0].1.contains("it has 25, 50, 100"), "{problems:?}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let scene = Scene::still(&[
            (Physical::Acceleration(0), 0.5),
            (Physical::Acceleration(1), -3.2),
            (Physical::Acceleration(2), 9.806_65),
        ]);
        let part = Adxl345 { rate: 400 };
        let link = I2cLink::to(0x53, part.twin(scene));
        let read = part.open(link).unwrap().measure().unwrap();
        for (value, expected) in read.iter().zip([0.5, -3.2, 9.806_65]) {
            assert!((value - expected).abs() < 0.02, "{read:?}");
        }
    }
}
