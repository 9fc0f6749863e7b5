//! Nova Fitness SDS011: particles by scattered laser light.
//!
//! Its frames are those of "Laser Dust Sensor Control Protocol V1.3" (Nova Fitness, 2015): a command has 19 bytes, an answer 10;
//! both begin with 0xaa and end with a check sum and 0xab.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::serial::{SerialLink, SerialMode, SerialPlace, SerialTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an SDS011: particles of up to 2.5 um and of up to 10 um, in micrograms per cubic metre.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Sds011 {
    /// `query`: it is asked. `active`: it is only listened to, as when its Rx is not wired; then it must be as it was when new,
    /// which is sending once a second. Default: `query`.
    #[serde(default)]
    mode: Mode,
    /// Whether fan and laser stop between readings; each reading then takes 35 s, of which 30 s are for the air to come through.
    /// Its laser lasts about 8000 hours. Default: `false`.
    #[serde(default)]
    rests: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Query,
    Active,
}

const SERIAL: SerialMode = SerialMode::plain(9_600);
/// It sends each second, half a second late at most (data sheet V1.3, "serial report communication cycle": 1 + 0.5 s).
const PATIENCE: Duration = Duration::from_secs(2);
/// Its own working period takes this long to measure (protocol, section 5: "work 30 seconds").
const SETTLES_IN: Duration = Duration::from_secs(30);

const HEAD: u8 = 0xaa;
const TAIL: u8 = 0xab;
/// The second byte: a command to it, its measurement, its answer to other commands.
const COMMAND: u8 = 0xb4;
const MEASURED: u8 = 0xc0;
const ANSWER: u8 = 0xc5;

/// What is commanded, the first byte of data (protocol, section 3).
mod command {
    pub(super) const REPORT_MODE: u8 = 2;
    pub(super) const QUERY: u8 = 4;
    pub(super) const SLEEP_OR_WORK: u8 = 6;
    pub(super) const WORKING_PERIOD: u8 = 8;
}

/// The second byte of data: whether it is asked for its setting or given one.
const ASK: u8 = 0;
const SET: u8 = 1;

/// Settings, the third byte of data.
const ON_QUERY: u8 = 1;
const SLEEP: u8 = 0;
const WORK: u8 = 1;
const CONTINUOUS: u8 = 0;

impl Part for Sds011 {
    type Place = SerialPlace;
    const NAME: &'static str = "sds011";
    const ABOUT: About = About {
        title: "Nova Fitness SDS011",
        quantities: &[
            Quantity::new("pm2_5", "ug/m3", (0.0, 999.9), 1),
            Quantity::new("pm10", "ug/m3", (0.0, 1_999.9), 1),
        ],
        addresses: &[],
        wiring: &[
            ("5V", "5 V, pin 2"),
            ("GND", "ground, pin 6"),
            (
                "TXD",
                "GPIO15 (receives), pin 10; its level is 3.3 V, which a Pi bears",
            ),
            (
                "RXD",
                "GPIO14 (transmits), pin 8; may stay open with `mode = \"active\"`",
            ),
            ("1um, 25um, NC", "nothing"),
        ],
        setup: "`enable_uart=1` in /boot/firmware/config.txt, and no console on the port (`sudo raspi-config`, Interface, Serial Port). The USB \
                adapter that it is sold with needs nothing: `port = \"ttyUSB0\"`.",
        notes: "Accurate to 15 % and 10 ug/m3. It takes fog for dust: above 70 % of relative humidity its readings are too high. In a continuous \
                run its laser lasts about a year; `rests = true` and a reading each few minutes make that many.",
        data_sheet: "SDS011 specification V1.3; Laser Dust Sensor Control Protocol V1.3, 2015-07-20",
        takes_ms: 2_000,
    };
    const EXAMPLE: &'static str = r#"
[nodes.dust]
type = "sds011"
port = "ttyUSB0"
rests = true
every = "5m"

[nodes.show]
type = "debug"
from = "dust"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        if self.rests && self.mode == Mode::Active {
            let message = "it can only be put to rest with `mode = \"query\"`".to_owned();
            return vec![("rests", message)];
        }
        Vec::new()
    }

    fn takes_ms(&self) -> u64 {
        if self.rests {
            35_000
        } else {
            Self::ABOUT.takes_ms
        }
    }

    fn open(&self, mut link: SerialLink) -> Result<Box<dyn Chip>, Trouble> {
        link.set(SERIAL)?;
        let mut dust = Dust {
            link,
            mode: self.mode,
            rests: self.rests,
        };
        if self.mode == Mode::Query {
            dust.set_up()?;
        }
        Ok(Box::new(dust))
    }

    fn twin(&self, scene: Scene) -> Box<dyn SerialTwin> {
        Box::new(Twin {
            scene,
            mode: self.mode,
            is_working: true,
            answer: Vec::new(),
        })
    }
}

struct Dust {
    link: SerialLink,
    mode: Mode,
    rests: bool,
}

impl Dust {
    /// It keeps these settings without supply, in a memory that wears out: so they are written only where they are others.
    fn set_up(&mut self) -> Result<(), Trouble> {
        // While it sleeps it says nothing of the other settings; awake, it takes this as well.
        self.command(command::SLEEP_OR_WORK, SET, WORK)?;
        for (setting, wanted) in [
            (command::REPORT_MODE, ON_QUERY),
            (command::WORKING_PERIOD, CONTINUOUS),
        ] {
            if self.command(setting, ASK, 0)? != wanted {
                self.command(setting, SET, wanted)?;
            }
        }
        Ok(())
    }

    /// The setting that it answers with.
    fn command(&mut self, command: u8, whether: u8, setting: u8) -> Result<u8, Trouble> {
        self.link.forget()?;
        self.link.send(&request(command, whether, setting))?;
        let answer = self.link.frame(&[HEAD, ANSWER, command], PATIENCE)?;
        let [_, _, setting, ..] = data(&answer)?;
        Ok(setting)
    }

    fn query(&mut self) -> Result<Vec<f64>, Trouble> {
        self.link.forget()?;
        if self.mode == Mode::Query {
            self.link.send(&request(command::QUERY, 0, 0))?;
        }
        let frame = self.link.frame(&[HEAD, MEASURED], PATIENCE)?;
        let [fine_low, fine_high, coarse_low, coarse_high, ..] = data(&frame)?;
        let tenths = |low, high| f64::from(u16::from_le_bytes([low, high])) / 10.0;
        Ok(vec![
            tenths(fine_low, fine_high),
            tenths(coarse_low, coarse_high),
        ])
    }
}

impl Chip for Dust {
    fn measure(&mut self) -> Result<Vec<f64>, Trouble> {
        if !self.rests {
            return self.query();
        }
        self.command(command::SLEEP_OR_WORK, SET, WORK)?;
        self.link.wait(SETTLES_IN);
        let outcome = self.query();
        self.command(command::SLEEP_OR_WORK, SET, SLEEP)?;
        outcome
    }
}

/// To whatever device id: ff ff.
fn request(command: u8, whether: u8, setting: u8) -> [u8; 19] {
    let mut frame = [0; 19];
    frame[..5].copy_from_slice(&[HEAD, COMMAND, command, whether, setting]);
    frame[15..17].fill(0xff);
    frame[17] = sum(&frame[2..17]);
    frame[18] = TAIL;
    frame
}

/// The six bytes between the start and the check sum.
fn data(frame: &[u8; 10]) -> Result<[u8; 6], Trouble> {
    let [_, _, data @ .., check, tail] = *frame;
    if check != sum(&data) || tail != TAIL {
        return Err(Trouble::Checksum);
    }
    Ok(data)
}

fn sum(data: &[u8]) -> u8 {
    data.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

struct Twin {
    scene: Scene,
    mode: Mode,
    is_working: bool,
    answer: Vec<u8>,
}

impl Twin {
    fn say(&mut self, code: u8, [a, b, c, d]: [u8; 4]) {
        const ID: [u8; 2] = [0xa1, 0x60];
        let data = [a, b, c, d, ID[0], ID[1]];
        self.answer.extend([HEAD, code]);
        self.answer.extend(data);
        self.answer.extend([sum(&data), TAIL]);
    }

    fn say_measured(&mut self) {
        let fine = self.scene.value(Physical::Particles);
        let tenths = |value: f64| ((value * 10.0).round() as u16).to_le_bytes();
        // In the air of a town there is about twice as much of up to 10 um.
        let ([a, b], [c, d]) = (tenths(fine), tenths(fine * 2.0));
        self.say(MEASURED, [a, b, c, d]);
    }
}

impl SerialTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        let [HEAD, COMMAND, command, whether, setting, ..] = *bytes else {
            return;
        };
        match (command, whether) {
            (command::QUERY, _) if self.is_working => self.say_measured(),
            (command::SLEEP_OR_WORK, SET) => {
                self.is_working = setting == WORK;
                self.say(ANSWER, [command, whether, setting, 0]);
            }
            (command::REPORT_MODE, ASK) => self.say(ANSWER, [command, ASK, ON_QUERY, 0]),
            (command::WORKING_PERIOD, ASK) => self.say(ANSWER, [command, ASK, CONTINUOUS, 0]),
            _ => {}
        }
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        if self.mode == Mode::Active && self.answer.is_empty() {
            self.say_measured();
        }
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

    fn part(mode: Mode, rests: bool) -> Sds011 {
        Sds011 { mode, rests }
    }

    /// The protocol's examples: a query (section 2), and going to sleep (section 4), both to all devices.
    #[test]
    fn commands_are_those_of_the_protocol() {
        let check = |command, whether, setting, expected: &[u8]| {
            assert_eq!(request(command, whether, setting), expected);
        };
        check(
            command::QUERY,
            0,
            0,
            b"\xaa\xb4\x04\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\x02\xab",
        );
        check(
            command::SLEEP_OR_WORK,
            SET,
            SLEEP,
            b"\xaa\xb4\x06\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\x05\xab",
        );
    }

    #[test]
    fn what_it_sends_is_decoded() {
        let check = |sent: &'static [u8], expected: Result<[f64; 2], &str>| {
            let mut chip = part(Mode::Active, false).open(sending(sent)).unwrap();
            match (chip.measure(), expected) {
                (Ok(values), Ok(expected)) => assert_eq!(values, expected),
                (Err(trouble), Err(expected)) => {
                    assert!(trouble.to_string().contains(expected), "{trouble}");
                }
                (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
            }
        };
        // The protocol's example of an answer to a query: 123.6 and 261.8.
        check(
            b"\xaa\xc0\xd4\x04\x3a\x0a\xa1\x60\x1d\xab",
            Ok([123.6, 261.8]),
        );
        // Behind the second half of another frame.
        check(
            b"\xa1\x60\x1d\xab\xaa\xc0\xd4\x04\x3a\x0a\xa1\x60\x1d\xab",
            Ok([123.6, 261.8]),
        );
        let wrong_sum = b"\xaa\xc0\xd4\x04\x3a\x0a\xa1\x60\x1e\xab";
        check(wrong_sum, Err("check sum"));
        let wrong_tail = b"\xaa\xc0\xd4\x04\x3a\x0a\xa1\x60\x1d\xaa";
        check(wrong_tail, Err("check sum"));
        check(b"\xaa\xc0\xd4\x04", Err("no answer within 2s"));
    }

    #[test]
    fn a_part_that_does_not_answer_is_not_opened() {
        let outcome = part(Mode::Query, false).open(sending(b""));
        assert!(matches!(outcome.err(), Some(Trouble::TimedOut { .. })));
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin_in_each_mode() {
        let check = |part: Sds011| {
            let scene = Scene::still(&[(Physical::Particles, 12.34)]);
            let mut chip = part.open(SerialLink::to(part.twin(scene))).unwrap();
            for _ in 0..2 {
                assert_eq!(chip.measure().unwrap(), [12.3, 24.7], "{part:?}");
            }
        };
        check(part(Mode::Query, false));
        check(part(Mode::Active, false));
        // The twin measures nothing while it sleeps.
        check(part(Mode::Query, true));
    }

    #[test]
    fn only_what_is_asked_can_rest() {
        assert!(part(Mode::Query, true).problems().is_empty());
        let problems = part(Mode::Active, true).problems();
        assert_eq!(problems[0].0, "rests");
    }
}
