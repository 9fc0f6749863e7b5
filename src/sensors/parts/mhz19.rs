//! Winsen MH-Z19B and MH-Z19C: carbon dioxide by infrared light.
//!
//! Commands and answers have nine bytes (MH-Z19B user's manual, version 1.0, "Commands"): the start 0xff, the sensor's number or the
//! command, up to five bytes of data, and a check sum.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::serial::{SerialLink, SerialMode, SerialPlace, SerialTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an MH-Z19B or MH-Z19C: carbon dioxide in ppm.
///
/// In its first minutes it does not measure yet, and shows 400, 410 or 500 ppm.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Mhz19 {
    /// Whether it may take the least of each 24 hours for 400 ppm. Right for rooms that are aired every day; `false` for
    /// greenhouses, stables and cellars. Default: as the sensor is set, which is on when it is new.
    self_calibration: Option<bool>,
}

const MODE: SerialMode = SerialMode::plain(9_600);

/// The commands used here.
mod command {
    pub(super) const READ: u8 = 0x86;
    pub(super) const SELF_CALIBRATION: u8 = 0x79;
}

/// What follows `SELF_CALIBRATION`.
const ON: u8 = 0xa0;
const OFF: u8 = 0x00;

const START: u8 = 0xff;
const SENSOR: u8 = 0x01;

/// Nine bytes at 9600 baud take 10 ms; the rest is for the part to think, of which the manual says nothing.
const PATIENCE: Duration = Duration::from_millis(500);

impl Part for Mhz19 {
    type Place = SerialPlace;
    const NAME: &'static str = "mhz19";
    const ABOUT: About = About {
        title: "Winsen MH-Z19B and MH-Z19C",
        quantities: &[Quantity::new("co2", "ppm", (0.0, 10_000.0), 0)],
        addresses: &[],
        wiring: &[
            ("Vin", "5 V, pin 2: with 3.3 V it measures nonsense"),
            ("GND", "ground, pin 6"),
            (
                "Tx",
                "GPIO15 (receives), pin 10; its level is 3.3 V, which a Pi bears",
            ),
            ("Rx", "GPIO14 (transmits), pin 8"),
            (
                "PWM, HD, AOT, SR",
                "nothing; HD to ground sets its zero anew",
            ),
        ],
        setup: "`enable_uart=1` in /boot/firmware/config.txt, and no console on the port (`sudo raspi-config`, Interface, Serial Port).",
        notes: "Accurate to 50 ppm and 5 % of the reading, up to 2000 or 5000 ppm as it was bought. It warms up for 1 min (MH-Z19C) or 3 min \
                (MH-Z19B) after power comes, and shows 400, 410 or 500 ppm meanwhile, with nothing in its answer that says so: leave these \
                minutes out (`where`, `timeout`), or power it all the time. With self calibration it believes that the air of each day is \
                once as fresh as outside; where that is not so its readings sink day by day.",
        data_sheet: "MH-Z19B user's manual, version 1.0",
        takes_ms: 500,
    };
    const EXAMPLE: &'static str = r#"
[nodes.air]
type = "mhz19"
port = "serial0"
every = "10s"

[nodes.fan]
type = "hysteresis"
from = "air"
above = 1000
below = 800

[nodes.show]
type = "debug"
from = "fan"
"#;

    fn open(&self, mut link: SerialLink) -> Result<Box<dyn Chip>, Trouble> {
        link.set(MODE)?;
        if let Some(is_on) = self.self_calibration {
            let choice = if is_on { ON } else { OFF };
            // It has no answer; what some send all the same is forgotten before the next question.
            link.send(&request(command::SELF_CALIBRATION, choice))?;
            link.wait(PATIENCE);
        }
        Ok(Box::new(Open { link }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn SerialTwin> {
        Box::new(Twin {
            scene,
            answer: Vec::new(),
        })
    }
}

struct Open {
    link: SerialLink,
}

impl Chip for Open {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        self.link.forget()?;
        self.link.send(&request(command::READ, 0))?;
        let answer = self.link.frame(&[START, command::READ], PATIENCE)?;
        Ok(vec![ppm(&answer)?])
    }
}

fn request(command: u8, choice: u8) -> [u8; 9] {
    sealed([START, SENSOR, command, choice, 0, 0, 0, 0])
}

/// The concentration in an answer: bytes 2 and 3, high byte first.
fn ppm(answer: &[u8; 9]) -> Result<f64, Trouble> {
    let [start, code, high, low, b4, b5, b6, b7, _] = *answer;
    if *answer != sealed([start, code, high, low, b4, b5, b6, b7]) {
        return Err(Trouble::Checksum);
    }
    Ok(f64::from(u16::from_be_bytes([high, low])))
}

/// With the check sum, "NOT (byte 1 + ... + byte 7) + 1": all but the start add up to zero.
fn sealed(bytes: [u8; 8]) -> [u8; 9] {
    let [start, b1, b2, b3, b4, b5, b6, b7] = bytes;
    let sum = bytes[1..]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [start, b1, b2, b3, b4, b5, b6, b7, sum.wrapping_neg()]
}

struct Twin {
    scene: Scene,
    answer: Vec<u8>,
}

impl SerialTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        if bytes != request(command::READ, 0) {
            return;
        }
        let ppm = self.scene.value(Physical::Co2).round().clamp(0.0, 5_000.0) as u16;
        let [high, low] = ppm.to_be_bytes();
        self.answer = sealed([START, command::READ, high, low, 0, 0, 0, 0]).into();
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let length = into.len().min(self.answer.len());
        for (byte, sent) in into.iter_mut().zip(self.answer.drain(..length)) {
            *byte = sent;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::serial::sending;

    const PLAIN: Mhz19 = Mhz19 {
        self_calibration: None,
    };

    /// The manual's examples of commands: reading, self calibration on and off.
    #[test]
    fn commands_are_those_of_the_manual() {
        let check = |command, choice, expected: &[u8]| {
            assert_eq!(request(command, choice), expected);
        };
        check(command::READ, 0, b"\xff\x01\x86\0\0\0\0\0\x79");
        check(
            command::SELF_CALIBRATION,
            ON,
            b"\xff\x01\x79\xa0\0\0\0\0\xe6",
        );
        check(
            command::SELF_CALIBRATION,
            OFF,
            b"\xff\x01\x79\0\0\0\0\0\x86",
        );
    }

    #[test]
    fn an_answer_is_decoded() {
        let check = |sent: &'static [u8], expected: Result<f64, &str>| {
            let outcome = PLAIN.open(sending(sent)).unwrap().measure();
            match (outcome, expected) {
                (Ok(values), Ok(expected)) => assert_eq!(values, [expected]),
                (Err(trouble), Err(expected)) => {
                    assert!(trouble.to_string().contains(expected), "{trouble}");
                }
                (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
            }
        };
        // The manual's example.
        check(b"\xff\x86\x02\x20\0\0\0\0\x58", Ok(544.0));
        // The same after the rest of another answer.
        check(b"\0\0\x58\xff\x86\x02\x20\0\0\0\0\x58", Ok(544.0));
        check(b"\xff\x86\x02\x21\0\0\0\0\x58", Err("check sum"));
        check(b"\xff\x86\x02\x20", Err("no answer within"));
        check(b"", Err("no answer within"));
    }

    #[test]
    fn self_calibration_is_set_only_where_the_flow_says_so() {
        use std::sync::{Arc, Mutex};
        struct Written(Arc<Mutex<Vec<Vec<u8>>>>);
        impl SerialTwin for Written {
            fn write(&mut self, bytes: &[u8]) {
                self.0.lock().unwrap().push(bytes.to_vec());
            }
            fn read(&mut self, _: &mut [u8]) -> usize {
                0
            }
        }
        let check = |self_calibration, expected: &[[u8; 9]]| {
            let written = Arc::<Mutex<Vec<Vec<u8>>>>::default();
            let link = SerialLink::to(Box::new(Written(written.clone())));
            Mhz19 { self_calibration }.open(link).unwrap();
            assert_eq!(*written.lock().unwrap(), expected);
        };
        check(None, &[]);
        check(Some(true), &[request(command::SELF_CALIBRATION, ON)]);
        check(Some(false), &[request(command::SELF_CALIBRATION, OFF)]);
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let scene = Scene::still(&[(Physical::Co2, 912.4)]);
        let mut chip = PLAIN.open(SerialLink::to(PLAIN.twin(scene))).unwrap();
        assert_eq!(chip.measure().unwrap(), [912.0]);
        assert_eq!(chip.measure().unwrap(), [912.0]);
    }
}
