//! AVIA HX711: a load cell's bridge, amplified and converted to 24 bits.
//!
//! Two lines: DOUT is low when a conversion is ready; each pulse of PD_SCK then shifts out one bit, the highest first, and one to three
//! pulses more say what the next conversion is of (data sheet, "Serial interface"). PD_SCK high for longer than 60 us switches the chip off
//! (data sheet, "Reset and power-down"): Linux may take the processor away in the middle of a pulse, so that each is timed, and what was read
//! while one was too long is thrown away.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::board::{Level, Pin};
use crate::sensors::pins::{LineTwin, Lines, PinsPlace};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an HX711, the amplifier of a load cell: a weight, or whatever a bridge of strain gauges measures.
///
/// The weight is `(raw - zero) / scale`. To calibrate, leave both out and read the raw numbers: `zero` is the one without a load, `scale` what a
/// known load adds, divided by the load.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Hx711 {
    /// 128 or 64 for the terminals A, 32 for the terminals B. Default: 128.
    #[serde(default = "usual_gain")]
    pub gain: u8,
    /// The raw number without a load. Default: 0.
    #[serde(default)]
    pub zero: i32,
    /// Raw numbers for each unit; below 0 if the cell is wired the other way round. Default: 1.
    #[serde(default = "one")]
    pub scale: f64,
    /// The unit of what comes out: `kg`, `g`, `t`, `lb`, `N` or `kN`. Default: none, for raw numbers.
    pub unit: Option<WeightUnit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
pub enum WeightUnit {
    #[serde(rename = "kg")]
    Kilogram,
    #[serde(rename = "g")]
    Gram,
    #[serde(rename = "t")]
    Tonne,
    #[serde(rename = "lb")]
    Pound,
    #[serde(rename = "N")]
    Newton,
    #[serde(rename = "kN")]
    Kilonewton,
}

/// Where an HX711 is connected.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Hx711Pins {
    /// The BCM number of the pin that DOUT (DT) is on.
    pub data: Pin,
    /// The BCM number of the pin that PD_SCK (SCK) is on.
    pub clock: Pin,
}

fn usual_gain() -> u8 {
    128
}

fn one() -> f64 {
    1.0
}

impl WeightUnit {
    fn name(self) -> &'static str {
        self.name_and_kg().0
    }

    /// What it is called, and how many of it the weight of a kilogram is.
    fn name_and_kg(self) -> (&'static str, f64) {
        const STANDARD_GRAVITY: f64 = 9.806_65;
        match self {
            WeightUnit::Kilogram => ("kg", 1.0),
            WeightUnit::Gram => ("g", 1e3),
            WeightUnit::Tonne => ("t", 1e-3),
            WeightUnit::Pound => ("lb", 1.0 / 0.453_592_37),
            WeightUnit::Newton => ("N", STANDARD_GRAVITY),
            WeightUnit::Kilonewton => ("kN", STANDARD_GRAVITY / 1e3),
        }
    }
}

/// What 24 bits hold, which the chip also says where its input is beyond (data sheet, "Output data rate and format").
const LEAST: i32 = -0x80_0000;
const MOST: i32 = 0x7f_ffff;
const BITS: u32 = 24;
/// Data sheet, "Reset and power-down".
const LONGEST_PULSE: Duration = Duration::from_micros(60);
/// At 80 conversions a second, the most it does, the next one comes after 12.5 ms.
const LONGEST_READ: Duration = Duration::from_millis(10);
/// Data sheet, "Key electrical characteristics": until its output has settled after a reset or another gain, at 10 a second.
const SETTLES_IN: Duration = Duration::from_millis(400);
/// A conversion takes 100 ms; its clock is its own.
const READY_WITHIN: Duration = Duration::from_millis(500);
const LOOKS_EVERY: Duration = Duration::from_millis(2);
/// How often a reading is begun that the processor was taken away from. With their settling they end within the ten seconds that a flow waits.
const TRIES: u32 = 5;

impl PinsPlace for Hx711Pins {
    const EDGES: bool = false;

    fn output(&self) -> (&'static str, Pin) {
        ("clock", self.clock)
    }

    fn input(&self) -> (&'static str, Pin) {
        ("data", self.data)
    }
}

impl Part for Hx711 {
    type Place = Hx711Pins;
    const NAME: &'static str = "hx711";
    const ABOUT: About = About {
        title: "AVIA HX711 load cell amplifier",
        quantities: &[Quantity::new("weight", "", (LEAST as f64, MOST as f64), 0)],
        addresses: &[],
        wiring: &[
            (
                "VCC, VDD",
                "3.3 V, pin 1: with 5 V its DT gives 5 V, which destroys a pin of the Pi",
            ),
            ("GND", "ground, pin 6"),
            ("DT, DOUT", "the pin `data`, such as GPIO5, pin 29"),
            ("SCK, PD_SCK", "the pin `clock`, such as GPIO6, pin 31"),
            ("E+, E-", "the cell's supply, often red and black"),
            ("A+, A-", "the cell's signal, often green and white"),
            (
                "RATE",
                "ground for 10 conversions a second, 3.3 V for 80, which are noisier",
            ),
        ],
        setup: "None: the kernel's /dev/gpiochip0 and the group `gpio`.",
        notes: "It drifts for some minutes after power-on, and with temperature; put a `median` behind it. A Pi that is very busy makes a clock \
                pulse too long, which resets the chip: the reading is then taken again, half a second to a second later.",
        data_sheet: "AVIA Semiconductor HX711 data sheet, version 2.0",
        takes_ms: 110,
    };
    const EXAMPLE: &'static str = r#"
[nodes.silo]
type = "hx711"
data = 5
clock = 6
gain = 128
zero = 84210
scale = 21450
unit = "kg"
every = "1s"

[nodes.show]
type = "debug"
from = "silo"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if pulses(self.gain).is_none() {
            let message = format!("{} is not one of 128, 64 and 32", self.gain);
            problems.push(("gain", message));
        }
        if !(LEAST..=MOST).contains(&self.zero) {
            let message = format!("{} is beyond its 24 bits, {LEAST} to {MOST}", self.zero);
            problems.push(("zero", message));
        }
        if !self.scale.is_normal() {
            let message = format!("nothing can be divided by {}", self.scale);
            problems.push(("scale", message));
        }
        problems
    }

    fn quantities(&self) -> Vec<Quantity> {
        let (one, other) = (self.value(LEAST), self.value(MOST));
        // One step of the chip is the last digit.
        let decimals = self.scale.abs().log10().ceil().clamp(0.0, 9.0);
        let unit = self.unit.map_or("", WeightUnit::name);
        vec![Quantity::new(
            "weight",
            unit,
            (one.min(other), one.max(other)),
            decimals as u8,
        )]
    }

    fn open(&self, lines: Box<dyn Lines>) -> Result<Box<dyn Chip>, Trouble> {
        let mut amplifier = Amplifier {
            lines,
            pulses: pulses(self.gain).expect("`problems` has found none"),
            has_settled: false,
        };
        let part = self.clone();
        Ok(Box::new(move || {
            let raw = amplifier.read()?;
            if raw == LEAST || raw == MOST {
                return Err(Trouble::NotReady(format!(
                    "its input is beyond what it can take (it says {raw}): overload, or a wire of the cell is loose"
                )));
            }
            Ok(vec![part.value(raw)])
        }))
    }

    fn twin(&self, scene: Scene) -> Box<dyn LineTwin> {
        Box::new(Twin {
            part: self.clone(),
            scene,
            gain: 128,
            high_since: None,
            ready_at: Duration::ZERO,
            pulses: 0,
            shown: 0,
        })
    }
}

impl Hx711 {
    fn value(&self, raw: i32) -> f64 {
        (f64::from(raw) - f64::from(self.zero)) / self.scale
    }
}

/// The pulses of a reading after which the next conversion has this gain (data sheet, table 3).
fn pulses(gain: u8) -> Option<u32> {
    match gain {
        128 => Some(25),
        32 => Some(26),
        64 => Some(27),
        _ => None,
    }
}

struct Amplifier {
    lines: Box<dyn Lines>,
    pulses: u32,
    /// Whether it is on, with our gain, and what it says can be trusted.
    has_settled: bool,
}

impl Amplifier {
    /// The next conversion that was clocked out as it should.
    fn read(&mut self) -> Result<i32, Trouble> {
        for _ in 0..TRIES {
            if !self.has_settled {
                self.has_settled = self.restart()?;
            }
            if self.has_settled {
                // Until it is known to have gone well.
                self.has_settled = false;
                if let Some(raw) = self.clock_out()? {
                    self.has_settled = true;
                    return Ok(raw);
                }
            }
        }
        Err(Trouble::NotReady(format!(
            "{TRIES} readings were broken off, as this computer was too busy to give a pulse of less than {LONGEST_PULSE:?}: what loads it?"
        )))
    }

    /// Switches it off and on, which gives it a gain of 128, and sets ours. Says whether that went well.
    fn restart(&mut self) -> Result<bool, Trouble> {
        self.lines.drive(Level::High)?;
        self.lines.wait(2 * LONGEST_PULSE);
        self.lines.drive(Level::Low)?;
        self.lines.wait(SETTLES_IN);
        if Some(self.pulses) == pulses(128) {
            return Ok(true);
        }
        let went_well = self.clock_out()?.is_some();
        self.lines.wait(SETTLES_IN);
        Ok(went_well)
    }

    /// Reads a conversion and chooses what the next is of; none if that took too long somewhere.
    fn clock_out(&mut self) -> Result<Option<i32>, Trouble> {
        self.wait_until_ready()?;
        let began = self.lines.now();
        let mut bits = 0_u32;
        for pulse in 0..self.pulses {
            let rises = self.lines.now();
            self.lines.drive(Level::High)?;
            self.lines.drive(Level::Low)?;
            if self.lines.now() - rises > LONGEST_PULSE {
                return Ok(None);
            }
            // The bit came with the rise and stays until the next.
            if pulse < BITS {
                bits = bits << 1 | u32::from(self.lines.level()?.is_high());
            }
        }
        let after = self.lines.level()?;
        if self.lines.now() - began > LONGEST_READ {
            return Ok(None);
        }
        // Data sheet, "Serial interface": the 25th pulse pulls DOUT up.
        if after == Level::Low {
            return Err(Trouble::NotReady(
                "DT stays low: look at its wire, at the supply, and whether DT and SCK are swapped"
                    .to_owned(),
            ));
        }
        Ok(Some(signed(bits)))
    }

    fn wait_until_ready(&mut self) -> Result<(), Trouble> {
        let began = self.lines.now();
        while self.lines.level()?.is_high() {
            if self.lines.now() - began > READY_WITHIN {
                return Err(Trouble::TimedOut {
                    after: READY_WITHIN,
                });
            }
            self.lines.wait(LOOKS_EVERY);
        }
        Ok(())
    }
}

/// 24 bits in two's complement.
fn signed(bits: u32) -> i32 {
    let unused = u32::BITS - BITS;
    (bits << unused).cast_signed() >> unused
}

struct Twin {
    part: Hx711,
    scene: Scene,
    /// Of the conversion that is under way or ready.
    gain: u8,
    high_since: Option<Duration>,
    ready_at: Duration,
    /// Pulses of the reading that is under way.
    pulses: u32,
    /// The bits that are shifted out.
    shown: u32,
}

impl Twin {
    const CONVERTS_IN: Duration = Duration::from_millis(100);

    /// The next conversion is ready, after a whole reading.
    fn go_on(&mut self, at: Duration) {
        if self.pulses > BITS && at >= self.ready_at {
            self.gain = match self.pulses {
                26 => 32,
                27 => 64,
                _ => 128,
            };
            self.pulses = 0;
        }
    }

    fn convert(&self) -> u32 {
        let kg = self.scene.value(Physical::Weight);
        let weight = kg * self.part.unit.map_or(1.0, |unit| unit.name_and_kg().1);
        let raw = f64::from(self.part.zero) + weight * self.part.scale;
        let raw = raw * f64::from(self.gain) / f64::from(self.part.gain);
        let raw = raw.round().clamp(f64::from(LEAST), f64::from(MOST)) as i32;
        raw.cast_unsigned() & 0xff_ffff
    }
}

impl LineTwin for Twin {
    fn driven(&mut self, level: Level, at: Duration) {
        if level.is_high() {
            self.go_on(at);
            if self.pulses == 0 {
                self.shown = self.convert();
            }
            self.pulses += 1;
            if self.pulses == BITS + 1 {
                self.ready_at = at + Twin::CONVERTS_IN;
            }
            self.high_since = Some(at);
        } else if let Some(since) = self.high_since.take()
            && at - since > LONGEST_PULSE
        {
            self.gain = 128;
            self.pulses = 0;
            self.ready_at = at + SETTLES_IN;
        }
    }

    fn level(&mut self, at: Duration) -> Level {
        self.go_on(at);
        match self.pulses {
            0 => Level::from(at < self.ready_at),
            shown @ 1..=BITS => Level::from(self.shown >> (BITS - shown) & 1 == 1),
            _ => Level::High,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::pins::Simulated;

    /// Lines of which some pulses take as long as is said: the number of the pulse since the start, and how long.
    struct Hurried {
        inner: Simulated,
        pulses: u32,
        long: fn(u32) -> Duration,
    }

    impl Lines for Hurried {
        fn drive(&mut self, level: Level) -> Result<(), Trouble> {
            if !level.is_high() {
                self.inner.wait((self.long)(self.pulses));
                self.pulses += 1;
            }
            self.inner.drive(level)
        }
        fn level(&mut self) -> Result<Level, Trouble> {
            self.inner.level()
        }
        fn edge(
            &mut self,
            within: Duration,
        ) -> Result<Option<crate::sensors::pins::LineEdge>, Trouble> {
            self.inner.edge(within)
        }
        fn now(&self) -> Duration {
            self.inner.now()
        }
        fn wait(&mut self, span: Duration) {
            self.inner.wait(span);
        }
    }

    fn part(gain: u8) -> Hx711 {
        Hx711 {
            gain,
            zero: 84_210,
            scale: 21_450.0,
            unit: Some(WeightUnit::Kilogram),
        }
    }

    fn chip(part: &Hx711, kg: f64, long: fn(u32) -> Duration) -> Box<dyn Chip> {
        let scene = Scene::still(&[(Physical::Weight, kg)]);
        let lines = Hurried {
            inner: Simulated::new(part.twin(scene)),
            pulses: 0,
            long,
        };
        part.open(Box::new(lines)).unwrap()
    }

    fn measure(part: &Hx711, kg: f64, long: fn(u32) -> Duration) -> Result<f64, String> {
        let measured = chip(part, kg, long).measure();
        measured
            .map(|values| values[0])
            .map_err(|trouble| trouble.to_string())
    }

    fn at_once(_: u32) -> Duration {
        Duration::ZERO
    }

    /// Data sheet, "Output data rate and format": from 800000h to 7FFFFFh.
    #[test]
    fn bits_are_a_number_in_twos_complement() {
        let check = |bits: u32, expected: i32| assert_eq!(signed(bits), expected, "{bits:#x}");
        check(0, 0);
        check(1, 1);
        check(0x7f_ffff, 8_388_607);
        check(0x80_0000, -8_388_608);
        check(0xff_ffff, -1);
    }

    #[test]
    fn a_reading_is_what_is_around_the_twin_at_each_gain() {
        for gain in [128, 64, 32] {
            let check = |kg: f64| {
                let mut chip = chip(&part(gain), kg, at_once);
                for _ in 0..3 {
                    let found = chip.measure().unwrap()[0];
                    assert!((found - kg).abs() < 5e-5, "{gain}: {found} for {kg}");
                }
            };
            check(42.0);
            check(0.0);
            check(-3.5);
        }
    }

    #[test]
    fn a_pulse_that_was_too_long_gives_no_reading_and_another_is_taken() {
        const JUST_TOO_LONG: Duration = Duration::from_micros(61);
        // The first pulse is that of the restart. The tenth is one of the reading, which is begun anew.
        let once = |pulse| {
            if pulse == 10 {
                JUST_TOO_LONG
            } else {
                Duration::ZERO
            }
        };
        for gain in [128, 64, 32] {
            let found = measure(&part(gain), 42.0, once).unwrap();
            assert!((found - 42.0).abs() < 5e-5, "{gain}: {found}");
        }
        // Just short enough.
        let short = |_| Duration::from_micros(50);
        assert!(measure(&part(64), 42.0, short).is_ok());
        // Always: an end comes.
        let error = measure(&part(128), 42.0, |_| JUST_TOO_LONG).unwrap_err();
        assert!(error.contains("5 readings were broken off"), "{error}");
    }

    #[test]
    fn what_is_no_weight_is_an_error() {
        let check = |kg: f64, expected: &str| {
            let error = measure(&part(128), kg, at_once).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(400.0, "it says 8388607): overload");
        check(-400.0, "it says -8388608): overload");

        struct Still(Level);
        impl LineTwin for Still {
            fn driven(&mut self, _: Level, _: Duration) {}
            fn level(&mut self, _: Duration) -> Level {
                self.0
            }
        }
        let check = |level: Level, expected: &str| {
            let lines = Simulated::new(Box::new(Still(level)));
            let mut chip = part(128).open(Box::new(lines)).unwrap();
            let error = chip.measure().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Level::High, "no answer within 500ms");
        check(Level::Low, "DT stays low");
    }

    #[test]
    fn options_decide_unit_range_and_decimals() {
        let quantity = part(128).quantities().remove(0);
        assert_eq!((&*quantity.unit, quantity.decimals), ("kg", 5));
        let turned = Hx711 {
            scale: -2.0,
            zero: 0,
            unit: None,
            gain: 128,
        };
        let quantity = turned.quantities().remove(0);
        assert_eq!(quantity.range, (-4_194_303.5, 4_194_304.0));
        assert_eq!((&*quantity.unit, quantity.decimals), ("", 1));

        let wrong = Hx711 {
            gain: 100,
            zero: 1 << 23,
            scale: 0.0,
            unit: None,
        };
        let found: Vec<_> = wrong.problems().into_iter().map(|(at, _)| at).collect();
        assert_eq!(found, ["gain", "zero", "scale"]);
        assert!(part(32).problems().is_empty());
    }
}
