//! ST VL53L0X: distance by the time of flight of light.
//!
//! Its registers have no public description. The start, some hundred writes with calibration on the chip, is that of the crate `vl53l0x`,
//! which follows ST's own software; it also starts a measurement and waits for it. The result is read here, because the crate looks at
//! the distance only and not at whether there is one.
//!
//! Sources: VL53L0X data sheet DS11555, section 3.2 (reference registers) and 5 (performance); ST's software STSW-IMG005,
//! `VL53L0X_GetRangingMeasurementData` (the result from register 0x14 on) and `VL53L0X_get_pal_range_status` (what its codes mean).

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use vl53l0x::{Error, VL53L0x};

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, RegisterTwin, Registers};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads a VL53L0X: the distance to what is in front of it, in metres.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Vl53l0x {}

/// Section 5: about 1.2 m in the usual mode, to a white target indoors up to 2 m.
const DISTANCE: Quantity = Quantity::new("distance", "m", (0.0, 2.0), 3);

mod register {
    pub(super) const START: u8 = 0x00;
    pub(super) const INTERRUPT_CLEAR: u8 = 0x0b;
    pub(super) const INTERRUPT_STATUS: u8 = 0x13;
    /// Twelve bytes: the status first, the distance in mm last.
    pub(super) const RESULT: u8 = 0x14;
    pub(super) const RESULT_END: u8 = 0x1f;
    /// Selects another page of registers unless it is 0.
    pub(super) const PAGE: u8 = 0xff;
    /// Reads 0 until the memory of the factory can be read, on another page.
    pub(super) const MEMORY_READY: u8 = 0x83;
    pub(super) const ID: u8 = 0xc0;
}

/// Section 3.2, table of reference registers: 0xc0.
const ID: u8 = 0xee;
/// The code of a measurement that is good, in bits 3 to 6 of the status.
const GOOD: u8 = 11;
/// In place of a distance where nothing is in range, in mm.
const NOTHING: std::ops::RangeInclusive<u16> = 8_190..=8_191;

impl Part for Vl53l0x {
    type Place = I2cPlace;
    const NAME: &'static str = "vl53l0x";
    const ABOUT: About = About {
        title: "ST VL53L0X",
        quantities: &[DISTANCE],
        addresses: &[0x29],
        wiring: &[
            ("VIN or VDD", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            (
                "XSHUT",
                "open on a board that pulls it up; low switches it off",
            ),
            ("GPIO1", "open"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "From about 3 cm to 1.2 m, to a white wall indoors up to 2 m; accurate to a few percent, worse in sunlight and on dark or shiny \
                things. It sees all within a cone of 25 degrees. With nothing in range the reading is an error, not a number. Peel the film off a new one. \
                The bare chip takes 2.8 V; boards have a regulator. It forgets a changed address with its supply, so one is all \
                that a bus can have. The VL53L1X is another part.",
        data_sheet: "ST DS11555 (DocID029104), revision 2; registers as in ST's software STSW-IMG005",
        takes_ms: 50,
    };
    const EXAMPLE: &'static str = r#"
[nodes.level]
type = "vl53l0x"
every = "1s"

[nodes.steady]
type = "median"
from = "level"
count = 5

[nodes.show]
type = "debug"
from = "steady"
"#;

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        // To the same chip: the crate keeps its own to itself.
        let mut chip = VL53L0x::new(link.clone()).map_err(trouble)?;
        Ok(Box::new(move || {
            chip.read_range_single_millimeters_blocking()
                .map_err(trouble)?;
            distance(&link.ask(&[register::RESULT])?).map(|m| vec![m])
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Registers::boxed(Twin {
            scene,
            registers: [0; 256],
        })
    }
}

fn trouble(error: Error<Trouble>) -> Trouble {
    match error {
        Error::BusError(trouble) => trouble,
        Error::InvalidDevice(id) => Trouble::WrongPart {
            says: format!("its id is {id:#04x}"),
            expected: format!("{ID:#04x} of a VL53L0X"),
            remedy: "is something else at this address, such as a VL53L1X or a TSL2591?".to_owned(),
        },
        // The crate asks so often, each of which takes as long as three bytes on the bus.
        Error::Timeout => Trouble::TimedOut {
            after: Duration::from_secs(3),
        },
        Error::InvalidAddress(address) => {
            Trouble::NotReady(format!("it cannot have the address {address:#04x}"))
        }
    }
}

/// The distance in metres, if there is one.
fn distance(result: &[u8; 12]) -> Result<f64, Trouble> {
    let mm = u16::from_be_bytes([result[10], result[11]]);
    let code = result[0] >> 3 & 0b1111;
    let nothing = "nothing is in range: it sees to 1.2 m, less far in sunlight or on what is dark";
    match code {
        GOOD if !NOTHING.contains(&mm) => Ok(f64::from(mm) / 1_000.0),
        // Too little light comes back, or it comes from beyond the range.
        GOOD | 4 | 6 | 9 => Err(Trouble::Saturated(nothing.to_owned())),
        1..=3 => Err(Trouble::NotReady(
            "its laser does not work: is its supply strong enough?".to_owned(),
        )),
        8 | 10 => Err(Trouble::Saturated(
            "something is too close: is the film peeled off, and nothing on its window?".to_owned(),
        )),
        _ => Err(Trouble::NotReady(format!(
            "it measured nothing (code {code})"
        ))),
    }
}

/// A simulated chip: it takes all of the start, keeps what is written to its first page, and measures when it is told to.
struct Twin {
    scene: Scene,
    registers: [u8; 256],
}

impl Twin {
    fn page(&self) -> u8 {
        self.registers[usize::from(register::PAGE)]
    }

    fn measure(&mut self) {
        let mm = (self.scene.value(Physical::Distance) * 1_000.0).round();
        let (code, mm) = if mm > 2_000.0 {
            (4, 8_190)
        } else {
            (GOOD, mm as u16)
        };
        let [high, low] = mm.to_be_bytes();
        let at = |register: u8| usize::from(register);
        self.registers[at(register::RESULT)] = code << 3 | 1;
        self.registers[at(register::RESULT_END) - 1] = high;
        self.registers[at(register::RESULT_END)] = low;
        self.registers[at(register::INTERRUPT_STATUS)] = 4;
    }
}

impl RegisterTwin for Twin {
    fn get(&mut self, register: u8) -> u8 {
        match register {
            register::ID => ID,
            register::MEMORY_READY if self.page() != 0 => 1,
            // Set by a start, which is over when it is looked at.
            register::START => 0,
            _ => self.registers[usize::from(register)],
        }
    }

    fn set(&mut self, register: u8, value: u8) {
        match register {
            register::PAGE => {}
            _ if self.page() != 0 => return,
            register::START if value & 1 != 0 => return self.measure(),
            register::INTERRUPT_CLEAR => {
                return self.registers[usize::from(register::INTERRUPT_STATUS)] = 0;
            }
            _ => {}
        }
        self.registers[usize::from(register)] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    /// ST gives no worked example; by hand from the layout of the result: the code in bits 3 to 6, the distance last.
    #[test]
    fn only_a_good_measurement_is_a_distance() {
        let check = |status: u8, mm: u16, expected: Result<f64, &str>| {
            let mut result = [0; 12];
            result[0] = status;
            result[10..].copy_from_slice(&mm.to_be_bytes());
            match (distance(&result), expected) {
                (Ok(m), Ok(expected)) => assert_eq!(m, expected),
                (Err(trouble), Err(words)) => {
                    assert!(trouble.to_string().contains(words), "{trouble}");
                }
                (outcome, _) => panic!("{status:#04x} {mm}: {outcome:?}"),
            }
        };
        check(0x59, 345, Ok(0.345));
        check(0x58, 0, Ok(0.0));
        check(0x59, 8_189, Ok(8.189));
        check(0x59, 8_190, Err("nothing is in range"));
        check(0x59, 8_191, Err("nothing is in range"));
        check(0x21, 345, Err("nothing is in range"));
        check(0x31, 345, Err("nothing is in range"));
        check(0x49, 345, Err("nothing is in range"));
        check(0x09, 345, Err("laser"));
        check(0x41, 345, Err("too close"));
        check(0x00, 345, Err("code 0"));
    }

    #[test]
    fn another_part_at_the_address_is_refused() {
        let steps = [Step::Takes(&[0xc0]), Step::Gives(&[0x50])];
        let refused = Vl53l0x {}.open(link(&steps)).err().unwrap();
        assert!(refused.to_string().contains("0x50"), "{refused}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let check = |metres: f64, expected: Option<f64>| {
            let scene = Scene::still(&[(Physical::Distance, metres)]);
            let part = Vl53l0x {};
            let mut chip = part.open(I2cLink::to(0x29, part.twin(scene))).unwrap();
            for _ in 0..2 {
                match (chip.measure(), expected) {
                    (Ok(values), Some(expected)) => assert_eq!(values, [expected]),
                    (Err(Trouble::Saturated(_)), None) => {}
                    (outcome, _) => panic!("{metres} m: {outcome:?}"),
                }
            }
        };
        check(0.345, Some(0.345));
        check(2.0, Some(2.0));
        check(2.1, None);
    }
}
