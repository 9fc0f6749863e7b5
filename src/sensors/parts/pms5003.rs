//! Plantower PMS5003 and PMS7003: particles by scattered laser light.
//!
//! It sends by itself, 32 bytes at a time ("2016 product data manual of Plantower", PMS5003, V2.3, appendix I): 42 4d, the length, 13
//! words and a check sum, each high byte first.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::serial::{SerialLink, SerialMode, SerialPlace, SerialTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads a PMS5003 or PMS7003: particles of up to 1, 2.5 and 10 um, in micrograms per cubic metre of the air as it is.
///
/// It is listened to only. Of the two values that it sends for each size this takes the "atmospheric" one, not the one
/// for factories ("CF = 1").
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Pms5003 {}

const SERIAL: SerialMode = SerialMode::plain(9_600);
/// In steady air it sends each 2.3 s (manual, "stable mode"); one more tenth for the frame, and some more.
const PATIENCE: Duration = Duration::from_secs(3);

const START: [u8; 2] = [0x42, 0x4d];
/// 13 words and the check sum.
const LENGTH: u16 = 2 * 13 + 2;
/// The first of the "atmospheric" values: data 4 to 6, after the start, the length and data 1 to 3.
const ATMOSPHERIC: usize = 10;

impl Part for Pms5003 {
    type Place = SerialPlace;
    const NAME: &'static str = "pms5003";
    const ABOUT: About = About {
        title: "Plantower PMS5003 and PMS7003",
        // "Maximum range": 1000 ug/m3 and more; what comes is a word.
        quantities: &[
            Quantity::new("pm1", "ug/m3", (0.0, 5_000.0), 0),
            Quantity::new("pm2_5", "ug/m3", (0.0, 5_000.0), 0),
            Quantity::new("pm10", "ug/m3", (0.0, 5_000.0), 0),
        ],
        addresses: &[],
        wiring: &[
            ("VCC", "5 V, pin 2, for its fan"),
            ("GND", "ground, pin 6"),
            (
                "TXD",
                "GPIO15 (receives), pin 10; its level is 3.3 V, which a Pi bears",
            ),
            ("RXD", "nothing, or GPIO14, pin 8"),
            ("SET, RESET", "nothing: they are pulled up inside"),
        ],
        setup: "`enable_uart=1` in /boot/firmware/config.txt, and no console on the port (`sudo raspi-config`, Interface, Serial Port).",
        notes: "Accurate to 10 ug/m3 up to 100 ug/m3, and 10 % above (PM2.5; for PM10 it is a guess from smaller ones). Good from 30 s after its \
                fan has started. Its case is connected to ground. SET to ground stops fan and laser.",
        data_sheet: "Plantower PMS5003 series data manual, 2016, V2.3",
        takes_ms: 3_000,
    };
    const EXAMPLE: &'static str = r#"
[nodes.dust]
type = "pms5003"
quantity = "pm2_5"
every = "10s"

[nodes.steady]
type = "window"
from = "dust"
size = "1m"
compute = ["mean", "max"]

[nodes.show]
type = "debug"
from = "steady"
"#;

    fn open(&self, mut link: SerialLink) -> Result<Box<dyn Chip>, Trouble> {
        link.set(SERIAL)?;
        Ok(Box::new(move || {
            // What has come since the last reading is older than what comes now.
            link.forget()?;
            decode(&link.frame(&START, PATIENCE)?)
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn SerialTwin> {
        Box::new(Twin {
            scene,
            rest: Vec::new(),
        })
    }
}

fn decode(frame: &[u8; 32]) -> Result<Vec<f64>, Trouble> {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if word(2) != LENGTH || word(30) != sum(&frame[..30]) {
        return Err(Trouble::Checksum);
    }
    Ok((0..3)
        .map(|i| f64::from(word(ATMOSPHERIC + 2 * i)))
        .collect())
}

/// "Start character 1 + start character 2 + ... + data 13".
fn sum(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |sum: u16, byte| sum.wrapping_add(u16::from(*byte)))
}

struct Twin {
    scene: Scene,
    rest: Vec<u8>,
}

impl Twin {
    fn frame(&self) -> Vec<u8> {
        let fine = self.scene.value(Physical::Particles);
        let words = |share: f64| (fine * share).round() as u16;
        let (pm1, pm2_5, pm10) = (words(0.6), words(1.0), words(1.2));
        // Up to about 30 ug/m3 both scales are the same.
        let data = [pm1, pm2_5, pm10, pm1, pm2_5, pm10, 0, 0, 0, 0, 0, 0, 0];
        let mut frame = START.to_vec();
        frame.extend(LENGTH.to_be_bytes());
        frame.extend(data.into_iter().flat_map(u16::to_be_bytes));
        frame.extend(sum(&frame).to_be_bytes());
        frame
    }
}

impl SerialTwin for Twin {
    fn write(&mut self, _: &[u8]) {}

    fn read(&mut self, into: &mut [u8]) -> usize {
        if self.rest.is_empty() {
            self.rest = self.frame();
        }
        let length = into.len().min(self.rest.len());
        for (byte, sent) in into.iter_mut().zip(self.rest.drain(..length)) {
            *byte = sent;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::serial::sending;

    /// Put together by hand from the manual's table, which has no example: CF = 1 values 40, 61, 66, atmospheric ones 30, 42, 55, six
    /// counts, version 0x97.
    const FRAME: &[u8] = b"\x42\x4d\0\x1c\0\x28\0\x3d\0\x42\0\x1e\0\x2a\0\x37\x15\x18\x05\xdc\0\xfa\0\x1e\0\x06\0\x02\x97\0\x04\x96";

    #[test]
    fn the_atmospheric_values_of_a_frame_are_taken() {
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: Result<[f64; 3], &str>| {
            let mut sent = FRAME.to_vec();
            change(&mut sent);
            let mut chip = Pms5003 {}.open(sending(sent.leak())).unwrap();
            match (chip.measure(), expected) {
                (Ok(values), Ok(expected)) => assert_eq!(values, expected),
                (Err(trouble), Err(expected)) => {
                    assert!(trouble.to_string().contains(expected), "{trouble}");
                }
                (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
            }
        };
        check(&|_| {}, Ok([30.0, 42.0, 55.0]));
        check(
            &|sent| drop(sent.splice(0..0, *b"\x97\0\x42\x03")),
            Ok([30.0, 42.0, 55.0]),
        );
        check(&|sent| sent[13] ^= 1, Err("check sum"));
        check(&|sent| sent[31] ^= 1, Err("check sum"));
        check(&|sent| sent.truncate(31), Err("no answer within 3s"));
        check(&Vec::clear, Err("no answer within 3s"));
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let scene = Scene::still(&[(Physical::Particles, 20.0)]);
        let link = SerialLink::to(Pms5003 {}.twin(scene));
        let mut chip = Pms5003 {}.open(link).unwrap();
        assert_eq!(chip.measure().unwrap(), [12.0, 20.0, 24.0]);
        assert_eq!(chip.measure().unwrap(), [12.0, 20.0, 24.0]);
    }
}
