//! InvenSense MPU-6050: acceleration and rotation.
//!
//! Registers, bits and formulas are those of its register map, RM-MPU-6000A-00, revision 4.2, by the numbers that registers have there;
//! times are from the product specification, PS-MPU-6000A-00, revision 3.4, section 6.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin, RegisterTwin, Registers};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an MPU-6050: acceleration in m/s2 and rotation in deg/s along and about three axes, temperature of the chip in degrees
/// Celsius.
///
/// At rest it shows gravity: 9.81 m/s2 along the axis that points up.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Mpu6050 {
    /// The acceleration that it measures at most, in units of gravity: 2, 4, 8 or 16. The less, the finer. Default: 2.
    #[serde(default = "usual_g")]
    max_g: u16,
    /// The rotation that it measures at most, in degrees in a second: 250, 500, 1000 or 2000. Default: 250.
    #[serde(default = "usual_deg_s")]
    max_deg_s: u16,
}

/// By the number that the chip has for each (registers 28 and 27).
const MAX_G: [u16; 4] = [2, 4, 8, 16];
const MAX_DEG_S: [u16; 4] = [250, 500, 1_000, 2_000];

fn usual_g() -> u16 {
    MAX_G[0]
}

fn usual_deg_s() -> u16 {
    MAX_DEG_S[0]
}

mod register {
    pub(super) const CONFIG: u8 = 26;
    pub(super) const GYRO_CONFIG: u8 = 27;
    pub(super) const ACCEL_CONFIG: u8 = 28;
    pub(super) const INT_ENABLE: u8 = 56;
    pub(super) const INT_STATUS: u8 = 58;
    /// Three accelerations, the temperature, three rotations: 16 bits each, high byte first.
    pub(super) const DATA: u8 = 59;
    pub(super) const DATA_END: u8 = 72;
    pub(super) const PWR_MGMT_1: u8 = 107;
    pub(super) const WHO_AM_I: u8 = 117;
}

/// What register 117 says, at both addresses.
const ID: u8 = 0x68;
/// Register 107: resets, and then runs by the clock of a gyroscope, as is recommended there; `SLEEP` is bit 6.
const RESET: u8 = 0x80;
const RUN: u8 = 0x01;
const SLEEP: u8 = 0x40;
/// Register 26: lets through up to 184 Hz, and measures 1000 times in a second.
const FILTER: u8 = 1;
/// Registers 56 and 58: a measurement is ready.
const READY: u8 = 1;

/// Register 107 does not say how long a reset takes; section 6.3 of the specification has 100 ms for the start of registers.
const RESETS_MS: u64 = 100;
/// Section 6.1: the gyroscopes start in 30 ms, typically.
const STARTS_MS: u64 = 60;

const STANDARD_GRAVITY: f64 = 9.806_65;
/// Registers 59 to 64: a full scale is 2^15.
const FULL: f64 = 32_768.0;

const TEMPERATURE: Quantity = Quantity::new("temperature", "degC", (-40.0, 85.0), 1);
const ACCELERATIONS: [&str; 3] = ["acceleration_x", "acceleration_y", "acceleration_z"];
const ROTATIONS: [&str; 3] = ["rotation_x", "rotation_y", "rotation_z"];

const fn acceleration(axis: usize, max_g: u16) -> Quantity {
    let end = STANDARD_GRAVITY * max_g as f64;
    Quantity::new(ACCELERATIONS[axis], "m/s2", (-end, end), 3)
}

const fn rotation(axis: usize, max_deg_s: u16) -> Quantity {
    let end = max_deg_s as f64;
    Quantity::new(ROTATIONS[axis], "deg/s", (-end, end), 2)
}

const fn quantities(max_g: u16, max_deg_s: u16) -> [Quantity; 7] {
    [
        acceleration(0, max_g),
        acceleration(1, max_g),
        acceleration(2, max_g),
        rotation(0, max_deg_s),
        rotation(1, max_deg_s),
        rotation(2, max_deg_s),
        TEMPERATURE,
    ]
}

impl Part for Mpu6050 {
    type Place = I2cPlace;
    const NAME: &'static str = "mpu6050";
    const ABOUT: About = About {
        title: "InvenSense (TDK) MPU-6050",
        quantities: &quantities(MAX_G[0], MAX_DEG_S[0]),
        addresses: &[0x68, 0x69],
        wiring: &[
            ("VCC or VDD", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            ("AD0", "open or ground for 0x68, 3.3 V for 0x69"),
            ("INT, XDA, XCL", "open"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt. A clock DS3231 has 0x68 too: then AD0 to 3.3 V and `address = 0x69`.",
        notes: "At rest it is off by up to 0.5 m/s2 (0.8 along z) and 20 deg/s, and each one differently: take that off with `calibrate`. The \
                temperature is that of the chip. It lets through up to 184 Hz. Boards that are sold as MPU-6050 may have \
                another chip (MPU-6500, MPU-9250), whose temperature follows another formula: then the error says which.",
        data_sheet: "RM-MPU-6000A-00, revision 4.2, 2013-08-19, and PS-MPU-6000A-00, revision 3.4, 2013-08-19",
        takes_ms: 5,
    };
    const EXAMPLE: &'static str = r#"
[nodes.pump]
type = "mpu6050"
max_g = 4
quantity = "acceleration_x"
every = "10ms"

[nodes.second]
type = "window"
from = "pump"
size = "1s"
compute = ["stddev", "max"]

[nodes.show]
type = "debug"
from = "second"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let unknown = |option, value: u16, known: [u16; 4]| {
            let [a, b, c, d] = known;
            let message = format!("{value} is not one of {a}, {b}, {c}, {d}");
            (!known.contains(&value)).then_some((option, message))
        };
        let of_g = unknown("max_g", self.max_g, MAX_G);
        let of_deg_s = unknown("max_deg_s", self.max_deg_s, MAX_DEG_S);
        of_g.into_iter().chain(of_deg_s).collect()
    }

    fn quantities(&self) -> Vec<Quantity> {
        quantities(self.max_g, self.max_deg_s).to_vec()
    }

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let id = link.register(register::WHO_AM_I)?;
        if id != ID {
            return Err(wrong(id));
        }
        link.send(&[register::PWR_MGMT_1, RESET])?;
        link.wait_ms(RESETS_MS);
        link.send(&[register::PWR_MGMT_1, RUN])?;
        link.send(&[register::CONFIG, FILTER])?;
        link.send(&[register::GYRO_CONFIG, scale(MAX_DEG_S, self.max_deg_s)])?;
        link.send(&[register::ACCEL_CONFIG, scale(MAX_G, self.max_g)])?;
        link.send(&[register::INT_ENABLE, READY])?;
        link.wait_ms(STARTS_MS);
        let (max_g, max_deg_s) = (self.max_g, self.max_deg_s);
        Ok(Box::new(move || {
            wait_until_ready(&mut link)?;
            reading(&link.ask(&[register::DATA])?, max_g, max_deg_s)
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        let registers = Twin::AFTER_RESET;
        Registers::boxed(Twin { scene, registers })
    }
}

/// Registers 27 and 28: the number of the full scale, from bit 3 on.
fn scale(known: [u16; 4], value: u16) -> u8 {
    let number = (0..).zip(known).find(|(_, it)| *it == value);
    let (number, _): (u8, u16) = number.expect("a full scale that was checked");
    number << 3
}

/// Ids that are known of chips on boards that look alike, from their register maps.
fn wrong(id: u8) -> Trouble {
    let known = match id {
        0x70 => Some("an MPU-6500"),
        0x71 => Some("an MPU-9250"),
        0x73 => Some("an MPU-9255"),
        _ => None,
    };
    Trouble::WrongPart {
        says: match known {
            Some(name) => format!("its id is {id:#04x}, it is {name}"),
            None => format!("its id is {id:#04x}"),
        },
        expected: format!("{ID:#04x} of an MPU-6050"),
        remedy: match known {
            Some(_) => "the kernel's driver inv_mpu6050 reads it: use `type = \"iio\"`".to_owned(),
            None => "is something else at this address, such as a clock DS3231?".to_owned(),
        },
    }
}

/// Ready at least once in a millisecond, and never in one that lost its settings.
fn wait_until_ready(link: &mut I2cLink) -> Result<(), Trouble> {
    const TRIES: u32 = 5;
    for _ in 0..TRIES {
        if link.register(register::INT_STATUS)? & READY != 0 {
            return Ok(());
        }
        link.wait_ms(1);
    }
    Err(Trouble::NotReady(
        "it does not measure: did it lose power?".to_owned(),
    ))
}

fn reading(data: &[u8; 14], max_g: u16, max_deg_s: u16) -> Result<Vec<f64>, Trouble> {
    let raw = |at: usize| i16::from_be_bytes([data[2 * at], data[2 * at + 1]]);
    let mut values = Vec::with_capacity(7);
    for (axis, name) in ACCELERATIONS.into_iter().enumerate() {
        let share = share(raw(axis), name, "max_g", max_g)?;
        values.push(share * STANDARD_GRAVITY);
    }
    for (axis, name) in ROTATIONS.into_iter().enumerate() {
        values.push(share(raw(4 + axis), name, "max_deg_s", max_deg_s)?);
    }
    // Registers 65 and 66.
    values.push(f64::from(raw(3)) / 340.0 + 36.53);
    Ok(values)
}

/// What a count is with this full scale; at the ends of the scale it is unknown how much more there is.
fn share(raw: i16, name: &str, option: &str, max: u16) -> Result<f64, Trouble> {
    if raw == i16::MIN || raw == i16::MAX {
        return Err(Trouble::Saturated(format!(
            "`{name}` is beyond what it measures: `{option}` is {max}; write a greater one, or look whether it is fixed well"
        )));
    }
    Ok(f64::from(raw) / FULL * f64::from(max))
}

struct Twin {
    scene: Scene,
    registers: [u8; 128],
}

impl Twin {
    const AFTER_RESET: [u8; 128] = {
        let mut registers = [0; 128];
        registers[register::PWR_MGMT_1 as usize] = SLEEP;
        registers[register::WHO_AM_I as usize] = ID;
        registers
    };

    fn at(&self, register: u8) -> u8 {
        self.registers
            .get(usize::from(register))
            .copied()
            .unwrap_or(0)
    }

    fn measure(&mut self) {
        let number = |register: u8| usize::from(self.at(register) >> 3 & 0b11);
        let max_g = f64::from(MAX_G[number(register::ACCEL_CONFIG)]);
        let max_deg_s = f64::from(MAX_DEG_S[number(register::GYRO_CONFIG)]);
        // Casts keep within the ends, as the chip does.
        let counts = |share: f64| (share * FULL).round() as i16;
        let acceleration = |axis| {
            let gravities = self.scene.value(Physical::Acceleration(axis)) / STANDARD_GRAVITY;
            counts(gravities / max_g)
        };
        let rotation = |axis| counts(self.scene.value(Physical::Rotation(axis)) / max_deg_s);
        let degc = self.scene.value(Physical::Temperature);
        let data = [
            acceleration(0),
            acceleration(1),
            acceleration(2),
            ((degc - 36.53) * 340.0).round() as i16,
            rotation(0),
            rotation(1),
            rotation(2),
        ];
        let bytes = data.into_iter().flat_map(i16::to_be_bytes);
        let from = usize::from(register::DATA);
        for (at, byte) in (from..).zip(bytes) {
            self.registers[at] = byte;
        }
    }
}

impl RegisterTwin for Twin {
    fn get(&mut self, register: u8) -> u8 {
        let is_awake = self.at(register::PWR_MGMT_1) & SLEEP == 0;
        match register {
            register::INT_STATUS if is_awake => self.at(register::INT_ENABLE) & READY,
            register::DATA if is_awake => {
                self.measure();
                self.at(register)
            }
            _ => self.at(register),
        }
    }

    fn set(&mut self, register: u8, value: u8) {
        match (register, value) {
            (register::PWR_MGMT_1, RESET) => self.registers = Self::AFTER_RESET,
            (register::DATA..=register::DATA_END | register::WHO_AM_I, _) => {}
            _ => {
                if let Some(place) = self.registers.get_mut(usize::from(register)) {
                    *place = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    const PLAIN: Mpu6050 = Mpu6050 {
        max_g: 2,
        max_deg_s: 250,
    };

    fn near(values: &[f64], expected: &[f64], by: f64) {
        assert_eq!(values.len(), expected.len());
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < by, "{values:?}");
        }
    }

    /// By hand from the tables of registers 59 and 67: 16384 counts for 1 g, 131 for 1 deg/s with the finest scales; 2048 and 16.4
    /// with the widest. Registers 65 and 66: 0 is 36.53 degC, 340 counts for 1 degC.
    #[test]
    fn bytes_become_a_reading() {
        let data = [
            0x40, 0x00, 0xc0, 0x00, 0x08, 0x00, 0xfe, 0xac, 0x00, 0x83, 0xff, 0x7d, 0x00, 0x00,
        ];
        let g = STANDARD_GRAVITY;
        let finest = reading(&data, 2, 250).unwrap();
        near(&finest, &[g, -g, g / 8.0, 1.0, -1.0, 0.0, 35.53], 0.001);
        let widest = reading(&data, 16, 2_000).unwrap();
        near(
            &widest,
            &[8.0 * g, -8.0 * g, g, 8.0, -8.0, 0.0, 35.53],
            0.01,
        );
    }

    #[test]
    fn what_is_beyond_full_scale_is_no_number() {
        let check = |at: usize, raw: i16, expected: Option<&str>| {
            let mut data = [0; 14];
            data[2 * at..2 * at + 2].copy_from_slice(&raw.to_be_bytes());
            let outcome = reading(&data, 2, 250).map_err(|trouble| trouble.to_string());
            match expected {
                None => assert!(outcome.is_ok(), "{outcome:?}"),
                Some(words) => assert!(outcome.unwrap_err().contains(words)),
            }
        };
        check(0, 32_766, None);
        check(
            0,
            32_767,
            Some("`acceleration_x` is beyond what it measures: `max_g` is 2"),
        );
        check(2, -32_767, None);
        check(2, -32_768, Some("acceleration_z"));
        check(
            5,
            32_767,
            Some("`rotation_y` is beyond what it measures: `max_deg_s` is 250"),
        );
    }

    #[test]
    fn look_alikes_are_refused_by_name() {
        let check = |id: &'static [u8], expected: &str| {
            let steps = [Step::Takes(&[0x75]), Step::Gives(id)];
            let refused = PLAIN.open(link(&steps)).err().unwrap().to_string();
            assert!(refused.contains(expected), "{refused}");
        };
        check(&[0x70], "it is an MPU-6500");
        check(&[0x71], "it is an MPU-9250");
        check(
            &[0x00],
            "its id is 0x00, but 0x68 of an MPU-6050 was expected",
        );
    }

    #[test]
    fn full_scales_are_those_that_it_has() {
        let check = |max_g, max_deg_s, expected: &[&str]| {
            let problems = Mpu6050 { max_g, max_deg_s }.problems();
            let options: Vec<&str> = problems.iter().map(|(option, _)| *option).collect();
            assert_eq!(options, expected, "{problems:?}");
        };
        check(16, 2_000, &[]);
        check(3, 2_000, &["max_g"]);
        check(0, 2_001, &["max_g", "max_deg_s"]);
    }

    fn scene() -> Scene {
        Scene::still(&[
            (Physical::Acceleration(0), -1.5),
            (Physical::Acceleration(1), 0.25),
            (Physical::Acceleration(2), 9.75),
            (Physical::Rotation(0), 100.0),
            (Physical::Rotation(1), -30.0),
            (Physical::Rotation(2), 0.0),
            (Physical::Temperature, -7.5),
        ])
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        for max_g in MAX_G {
            for max_deg_s in MAX_DEG_S {
                let part = Mpu6050 { max_g, max_deg_s };
                let mut chip = part.open(I2cLink::to(0x68, part.twin(scene()))).unwrap();
                let values = chip.measure().unwrap();
                near(&values, &[-1.5, 0.25, 9.75, 100.0, -30.0, 0.0, -7.5], 0.04);
            }
        }
    }

    #[test]
    fn one_that_lost_power_is_not_read_as_one_at_rest() {
        let mut link = I2cLink::to(0x68, PLAIN.twin(scene()));
        let mut chip = PLAIN.open(link.clone()).unwrap();
        chip.measure().unwrap();
        link.send(&[register::PWR_MGMT_1, RESET]).unwrap();
        let said = chip.measure().unwrap_err().to_string();
        assert!(said.contains("did it lose power"), "{said}");
    }
}
