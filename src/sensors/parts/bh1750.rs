//! ROHM BH1750FVI: light.
//!
//! Commands, times and the formula are those of the BH1750FVI data sheet, revision D, 2011.11: "Instruction Set Architecture" (page 5),
//! "Adjust measurement result for influence of optical window" (pages 11 and 12) for the measurement time, "Electrical characteristics" (page
//! 2) for how long it takes. It has no id, no check sum and no ready flag: that it answers has to do.
//!
//! It measures when it is asked. Where that is too bright for its 16 bits it measures once more with the shortest time, which
//! more than doubles what it can take, up to about full sun.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads a BH1750: light in lux.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Bh1750 {
    /// How fine: `high` to 1 lx in 0.2 s, `high2` to 0.5 lx in 0.2 s, `low` to 4 lx in 30 ms. Default: `high`.
    #[serde(default)]
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    High,
    High2,
    Low,
}

impl Mode {
    /// The command that measures once.
    fn command(self) -> u8 {
        match self {
            Mode::High => 0x20,
            Mode::High2 => 0x21,
            Mode::Low => 0x23,
        }
    }

    /// How long that takes at most with the usual time.
    fn takes_ms(self) -> u64 {
        match self {
            Mode::High | Mode::High2 => 180,
            Mode::Low => 24,
        }
    }

    /// Page 7 for the usual time; the longer, the more it counts.
    fn counts_per_lx(self, time: u8) -> f64 {
        let finer = match self {
            Mode::High | Mode::Low => 1.0,
            Mode::High2 => 2.0,
        };
        1.2 * finer * f64::from(time) / f64::from(USUAL_TIME)
    }
}

const POWER_ON: u8 = 0x01;
/// The three high bits and the five low bits of the measurement time come after these.
const TIME_HIGH: u8 = 0b0100_0000;
const TIME_LOW: u8 = 0b0110_0000;
/// The measurement time, a number without unit.
const USUAL_TIME: u8 = 69;
const SHORTEST_TIME: u8 = 31;
/// As bright as it can tell, or brighter.
const FULL: u16 = u16::MAX;

/// At most 65535 / 1.2 * 69 / 31.
const fn light(decimals: u8) -> Quantity {
    Quantity::new("light", "lx", (0.0, 121_557.0), decimals)
}

impl Part for Bh1750 {
    type Place = I2cPlace;
    const NAME: &'static str = "bh1750";
    const ABOUT: About = About {
        title: "ROHM BH1750FVI",
        quantities: &[light(0)],
        addresses: &[0x23, 0x5c],
        wiring: &[
            ("VCC", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
            ("ADDR or ADD", "open or ground for 0x23, 3.3 V for 0x5c"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "Accurate to 20 %; two of them may differ by that. It sees what falls on it from the front, about as the eye does. Above 54612 lx (`high2`: 27306 \
                lx) it measures a second time, with less light; above 121556 lx the reading is an error, not a number. It cannot tell \
                whether it is the part that it should be: something else at its address reads as light.",
        data_sheet: "ROHM BH1750FVI, revision D, 2011.11",
        takes_ms: 270,
    };
    const EXAMPLE: &'static str = r#"
[nodes.window]
type = "bh1750"
every = "5s"

[nodes.dusk]
type = "hysteresis"
from = "window"
above = 60
below = 30

[nodes.show]
type = "debug"
from = "dusk"
"#;

    fn quantities(&self) -> Vec<Quantity> {
        vec![match self.mode {
            Mode::High | Mode::Low => light(0),
            Mode::High2 => light(1),
        }]
    }

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        let mode = self.mode;
        link.send(&[POWER_ON])?;
        Ok(Box::new(move || measure(&mut link, mode)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Box::new(Twin {
            scene,
            time: USUAL_TIME,
            counts: 0,
        })
    }
}

fn measure(link: &mut I2cLink, mode: Mode) -> Result<Vec<f64>, Trouble> {
    for (mode, time) in [(mode, USUAL_TIME), (Mode::High, SHORTEST_TIME)] {
        let counts = once(link, mode, time)?;
        if counts != FULL {
            return Ok(vec![f64::from(counts) / mode.counts_per_lx(time)]);
        }
    }
    Err(Trouble::Saturated(
        "it is brighter than the 121556 lx that it can measure: keep the sun off it, or put something in front that dims".to_owned(),
    ))
}

fn once(link: &mut I2cLink, mode: Mode, time: u8) -> Result<u16, Trouble> {
    // It sleeps after each measurement, and forgets the time with its supply.
    link.send(&[POWER_ON])?;
    link.send(&[TIME_HIGH | time >> 5])?;
    link.send(&[TIME_LOW | time & 0b1_1111])?;
    link.send(&[mode.command()])?;
    let (time, usual) = (u64::from(time), u64::from(USUAL_TIME));
    link.wait_ms((mode.takes_ms() * time).div_ceil(usual));
    link.receive().map(u16::from_be_bytes)
}

struct Twin {
    scene: Scene,
    time: u8,
    counts: u16,
}

impl I2cTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        let &[command] = bytes else {
            return;
        };
        let modes = [Mode::High, Mode::High2, Mode::Low];
        if let Some(mode) = modes.into_iter().find(|it| it.command() == command) {
            let lx = self.scene.value(Physical::Light);
            // The cast keeps within the ends, as the chip does.
            self.counts = (lx * mode.counts_per_lx(self.time)).round() as u16;
        } else if command & 0b1111_1000 == TIME_HIGH {
            self.time = self.time & 0b1_1111 | command << 5;
        } else if command & 0b1110_0000 == TIME_LOW {
            self.time = self.time & 0b1110_0000 | command & 0b1_1111;
        }
    }

    fn read(&mut self, into: &mut [u8]) {
        for (byte, value) in into.iter_mut().zip(self.counts.to_be_bytes()) {
            *byte = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::i2c::script::{Step, link};

    /// What is written for one measurement with the usual time: 69 is 0b010_00101.
    fn usual(command: &'static [u8], answer: &'static [u8]) -> [Step; 5] {
        [
            Step::Takes(&[0x01]),
            Step::Takes(&[0b0100_0010]),
            Step::Takes(&[0b0110_0101]),
            Step::Takes(command),
            Step::Gives(answer),
        ]
    }

    /// The same with the shortest: 31 is 0b000_11111.
    fn shortest(answer: &'static [u8]) -> [Step; 5] {
        [
            Step::Takes(&[0x01]),
            Step::Takes(&[0b0100_0000]),
            Step::Takes(&[0b0111_1111]),
            Step::Takes(&[0x20]),
            Step::Gives(answer),
        ]
    }

    fn read(mode: Mode, measurements: &[[Step; 5]]) -> Result<f64, Trouble> {
        let mut steps = vec![Step::Takes(&[0x01])];
        steps.extend(measurements.iter().flatten().cloned());
        let values = Bh1750 { mode }.open(link(&steps))?.measure()?;
        Ok(values[0])
    }

    /// The data sheet's examples on page 7: 0x8390 is 28067 lx, 0x0110 in the finer mode with half of it, 113 lx by hand.
    #[test]
    fn bytes_become_lux() {
        let check = |mode, command, answer, expected: f64| {
            let lx = read(mode, &[usual(command, answer)]).unwrap();
            assert!((lx - expected).abs() < 0.5, "{lx}, not {expected}");
        };
        check(Mode::High, &[0x20], &[0x83, 0x90], 28_067.0);
        check(Mode::Low, &[0x23], &[0x83, 0x90], 28_067.0);
        check(Mode::High, &[0x20], &[0x01, 0x10], 226.7);
        check(Mode::High2, &[0x21], &[0x01, 0x10], 113.3);
        check(Mode::High, &[0x20], &[0x00, 0x00], 0.0);
        check(Mode::High, &[0x20], &[0xff, 0xfe], 54_611.7);
    }

    #[test]
    fn what_is_too_bright_is_measured_with_less_light_and_else_is_no_number() {
        let bright = usual(&[0x20], &[0xff, 0xff]);
        let lx = read(Mode::High, &[bright.clone(), shortest(&[0xff, 0xfe])]).unwrap();
        assert!((lx - 121_554.8).abs() < 0.5, "{lx}");
        let outcome = read(Mode::High, &[bright, shortest(&[0xff, 0xff])]);
        assert!(matches!(outcome, Err(Trouble::Saturated(_))), "{outcome:?}");
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin() {
        let check = |mode, lx: f64, near: f64| {
            let part = Bh1750 { mode };
            let scene = Scene::still(&[(Physical::Light, lx)]);
            let mut chip = part.open(I2cLink::to(0x23, part.twin(scene))).unwrap();
            // Twice: the second is not changed by what the first set.
            for _ in 0..2 {
                let value = chip.measure().unwrap()[0];
                assert!((value - lx).abs() < near, "{mode:?}: {value}, not {lx}");
            }
        };
        check(Mode::High, 300.0, 0.5);
        check(Mode::High2, 300.0, 0.25);
        check(Mode::Low, 0.0, 0.5);
        check(Mode::High2, 30_000.0, 1.0);
        check(Mode::High, 100_000.0, 1.0);
    }
}
