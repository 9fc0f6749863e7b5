//! Sensirion SCD40 and SCD41: carbon dioxide.
//!
//! Commands, times and formulas are those of the SCD4x data sheet, version 1.3: table 9 for the commands, section 3.5 for measuring, 3.6
//! for compensation, 3.7 for self-calibration, 3.8.2 for the ready flag.
//!
//! It measures by itself every 5 s once it is started. A reading waits for the next measurement, so none is given twice.
//! Settings are written at each start into its memory that forgets, never into the one that wears out.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sensirion::{Answer, FULL, command, degc, raw_of_degc, sealed, words};
use crate::sensors::i2c::{I2cLink, I2cPlace, I2cTwin};
use crate::sensors::{About, Chip, Part, Physical, Quantity, Scene, Trouble};

/// Reads an SCD40 or SCD41: carbon dioxide in ppm, temperature in degrees Celsius, relative humidity in percent.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Scd4x {
    /// Metres above the sea, 0 to 3000: thin air has less carbon dioxide in it. Default: 0.
    altitude: Option<u16>,
    /// The usual pressure of the air where it is, in hPa, 700 to 1200; in place of `altitude`.
    pressure: Option<u16>,
    /// Whether it takes the least that it sees in a week for fresh air (400 ppm). Switch it off where the air is never fresh, as
    /// in a greenhouse or where people are day and night. Default: true.
    #[serde(default = "yes")]
    self_calibration: bool,
}

fn yes() -> bool {
    true
}

/// Section 2.1: what it puts out at most; it is accurate between 400 and 2000 (SCD40) or 5000 ppm (SCD41).
const CO2: Quantity = Quantity::new("co2", "ppm", (1.0, 40_000.0), 0);
/// Sections 2.3 and 2.2.
const TEMPERATURE: Quantity = Quantity::new("temperature", "degC", (-10.0, 60.0), 2);
const HUMIDITY: Quantity = Quantity::new("humidity", "%", (0.0, 100.0), 2);

const ALTITUDES: std::ops::RangeInclusive<u16> = 0..=3_000;
/// Section 3.6.5.
const PRESSURES: std::ops::RangeInclusive<u16> = 700..=1_200;

/// Table 9.
const START: u16 = 0x21b1;
const STOP: u16 = 0x3f86;
const READ: u16 = 0xec05;
const IS_READY: u16 = 0xe4b8;
const SERIAL: u16 = 0x3682;
const REINIT: u16 = 0x3646;
const SET_ALTITUDE: u16 = 0x2427;
const SET_PRESSURE: u16 = 0xe000;
const SET_SELF_CALIBRATION: u16 = 0x2416;

/// Table 9; 20 ms for `REINIT` there, with some more.
const STOPS_MS: u64 = 500;
const REINITS_MS: u64 = 30;
const ANSWERS_MS: u64 = 1;
/// Section 3.8.2: nothing is ready while these bits are all 0.
const READY: u16 = 0x07ff;

/// A measurement is due every 5 s (section 3.5.1), by a clock of its own: with some more, nothing comes.
const PERIOD_MS: u64 = 5_000;
const LOOKS_EVERY_MS: u64 = 50;
const LOOKS: u64 = (PERIOD_MS + 1_000) / LOOKS_EVERY_MS;

impl Part for Scd4x {
    type Place = I2cPlace;
    const NAME: &'static str = "scd4x";
    const ABOUT: About = About {
        title: "Sensirion SCD40, SCD41",
        quantities: &[CO2, TEMPERATURE, HUMIDITY],
        addresses: &[0x62],
        wiring: &[
            (
                "VDD or VIN",
                "3.3 V, pin 1; it draws up to 205 mA for a moment",
            ),
            ("GND", "ground, pin 6"),
            ("SDA", "GPIO2, pin 3"),
            ("SCL", "GPIO3, pin 5"),
        ],
        setup: "`dtparam=i2c_arm=on` in /boot/firmware/config.txt.",
        notes: "Accurate to 50 ppm and 5 % of the reading (SCD40) or 40 ppm and 5 % (SCD41). The first reading comes 5 s after the start, and the \
                bus waits for it: slow parts are better on a bus of their own. Self-calibration needs air as fresh as outdoors once a \
                week. Its temperature is that of a part which warms itself; the chip takes 4 degC off. Keep it out of wind and \
                sun.",
        data_sheet: "Sensirion SCD4x, version 1.3, September 2022",
        takes_ms: PERIOD_MS,
    };
    const EXAMPLE: &'static str = r#"
[nodes.classroom]
type = "scd4x"
altitude = 520
every = "10s"

[nodes.show]
type = "debug"
from = "classroom"
"#;

    fn problems(&self) -> Vec<(&'static str, String)> {
        let outside = |option, value: Option<u16>, range: std::ops::RangeInclusive<u16>, unit| {
            let value = value.filter(|value| !range.contains(value))?;
            let (low, high) = (range.start(), range.end());
            Some((
                option,
                format!("{value} {unit} is not within {low} to {high}"),
            ))
        };
        let mut problems = Vec::new();
        problems.extend(outside("altitude", self.altitude, ALTITUDES, "m"));
        problems.extend(outside("pressure", self.pressure, PRESSURES, "hPa"));
        if self.altitude.is_some() && self.pressure.is_some() {
            let message = "it takes the place of `altitude`: give one of them".to_owned();
            problems.push(("pressure", message));
        }
        problems
    }

    fn open(&self, mut link: I2cLink) -> Result<Box<dyn Chip>, Trouble> {
        // It may run from before, and answers to little else then.
        command(&mut link, STOP)?;
        link.wait_ms(STOPS_MS);
        command(&mut link, REINIT)?;
        link.wait_ms(REINITS_MS);
        ask::<3, 9>(&mut link, SERIAL)?;
        set(
            &mut link,
            SET_SELF_CALIBRATION,
            self.self_calibration.into(),
        )?;
        match self.pressure {
            Some(hpa) => set(&mut link, SET_PRESSURE, hpa)?,
            None => set(&mut link, SET_ALTITUDE, self.altitude.unwrap_or(0))?,
        }
        command(&mut link, START)?;
        Ok(Box::new(move || measure(&mut link)))
    }

    fn twin(&self, scene: Scene) -> Box<dyn I2cTwin> {
        Box::new(Twin {
            scene,
            answer: Answer::default(),
            state: State::Idle,
        })
    }
}

fn set(link: &mut I2cLink, command: u16, value: u16) -> Result<(), Trouble> {
    let [high, low] = command.to_be_bytes();
    let [value_high, value_low, crc] = sealed(value);
    link.send(&[high, low, value_high, value_low, crc])?;
    link.wait_ms(ANSWERS_MS);
    Ok(())
}

/// `N` is three bytes for each of `W` words.
fn ask<const W: usize, const N: usize>(
    link: &mut I2cLink,
    question: u16,
) -> Result<[u16; W], Trouble> {
    command(link, question)?;
    link.wait_ms(ANSWERS_MS);
    words(&link.receive::<N>()?)
}

fn measure(link: &mut I2cLink) -> Result<Vec<f64>, Trouble> {
    wait_until_ready(link)?;
    let [co2, temperature, humidity] = ask::<3, 9>(link, READ)?;
    if co2 == 0 {
        // Below any air there is; what it gives while it has none (section 3.10.2).
        return Err(Trouble::NotReady(
            "it has measured no carbon dioxide yet".to_owned(),
        ));
    }
    let humidity = 100.0 * f64::from(humidity) / FULL;
    Ok(vec![f64::from(co2), degc(temperature), humidity])
}

fn wait_until_ready(link: &mut I2cLink) -> Result<(), Trouble> {
    for _ in 0..LOOKS {
        let [status] = ask::<1, 3>(link, IS_READY)?;
        if status & READY != 0 {
            return Ok(());
        }
        link.wait_ms(LOOKS_EVERY_MS);
    }
    Err(Trouble::NotReady(
        "it has measured nothing for 6 s: is its supply strong enough for 205 mA?".to_owned(),
    ))
}

enum State {
    Idle,
    /// How often it is still asked in vain before the next measurement.
    Measures(u8),
}

/// A simulated chip: the next measurement is there when it is asked for the second time.
struct Twin {
    scene: Scene,
    answer: Answer,
    state: State,
}

impl Twin {
    fn is_ready(&mut self) -> bool {
        match &mut self.state {
            State::Idle => false,
            State::Measures(0) => true,
            State::Measures(left) => {
                *left -= 1;
                false
            }
        }
    }

    fn reading(&self) -> [u16; 3] {
        let humidity = self.scene.value(Physical::Humidity) / 100.0 * FULL;
        [
            self.scene.value(Physical::Co2).round() as u16,
            raw_of_degc(self.scene.value(Physical::Temperature)),
            humidity.round() as u16,
        ]
    }
}

impl I2cTwin for Twin {
    fn write(&mut self, bytes: &[u8]) {
        self.answer = Answer::default();
        let [high, low, ..] = *bytes else {
            return;
        };
        let is_idle = matches!(self.state, State::Idle);
        match u16::from_be_bytes([high, low]) {
            START if is_idle => self.state = State::Measures(1),
            STOP => self.state = State::Idle,
            SERIAL if is_idle => self.answer.set(&[0xf896, 0x9f07, 0x3bbe]),
            IS_READY => {
                let status = if self.is_ready() { 0x8006 } else { 0x8000 };
                self.answer.set(&[status]);
            }
            READ if matches!(self.state, State::Measures(0)) => {
                self.state = State::Measures(1);
                self.answer.set(&self.reading());
            }
            _ => {}
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

    const PLAIN: Scd4x = Scd4x {
        altitude: None,
        pressure: None,
        self_calibration: true,
    };

    fn opened(part: Scd4x, settings: [&'static [u8]; 2], then: &[Step]) -> Box<dyn Chip> {
        let mut steps = vec![
            Step::Takes(&[0x3f, 0x86]),
            Step::Takes(&[0x36, 0x46]),
            Step::Takes(&[0x36, 0x82]),
            Step::Gives(&[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92]),
            Step::Takes(settings[0]),
            Step::Takes(settings[1]),
            Step::Takes(&[0x21, 0xb1]),
        ];
        steps.extend_from_slice(then);
        part.open(link(&steps)).unwrap()
    }

    fn read(then: &[Step]) -> Result<Vec<f64>, Trouble> {
        let settings: [&[u8]; 2] = [
            &[0x24, 0x16, 0x00, 0x01, 0xb0],
            &[0x24, 0x27, 0x00, 0x00, 0x81],
        ];
        opened(PLAIN, settings, then).measure()
    }

    /// Section 3.5.2: 500 ppm, 25 degC, 37 %. It was not ready when it was first asked.
    #[test]
    fn the_example_of_the_data_sheet_comes_out() {
        let values = read(&[
            Step::Takes(&[0xe4, 0xb8]),
            Step::Gives(&[0x80, 0x00, 0xa2]),
            Step::Takes(&[0xe4, 0xb8]),
            Step::Gives(&[0x80, 0x06, 0x04]),
            Step::Takes(&[0xec, 0x05]),
            Step::Gives(&[0x01, 0xf4, 0x33, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3c]),
        ])
        .unwrap();
        for (value, expected) in values.iter().zip([500.0, 25.0, 37.0]) {
            assert!((value - expected).abs() < 0.005, "{values:?}");
        }
    }

    #[test]
    fn no_carbon_dioxide_and_wrong_check_sums_are_no_reading() {
        let check = |answer, expected: &str| {
            let outcome = read(&[
                Step::Takes(&[0xe4, 0xb8]),
                Step::Gives(&[0x80, 0x06, 0x04]),
                Step::Takes(&[0xec, 0x05]),
                Step::Gives(answer),
            ]);
            let said = outcome.unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        };
        check(
            &[0x00, 0x00, 0x81, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3c],
            "no carbon dioxide yet",
        );
        check(
            &[0x01, 0xf4, 0x33, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3d],
            "check sum",
        );
    }

    #[test]
    fn one_that_never_measures_is_told_and_does_not_hold_the_bus_for_ever() {
        let looks = usize::try_from(LOOKS).unwrap();
        let look = [Step::Takes(&[0xe4, 0xb8]), Step::Gives(&[0x80, 0x00, 0xa2])];
        let said = read(&vec![look; looks].concat()).unwrap_err().to_string();
        assert!(said.contains("measured nothing for 6 s"), "{said}");
    }

    #[test]
    fn settings_are_written_at_each_start() {
        // By hand: 520 m is 0x0208, 1013 hPa is 0x03f5; the check sums are those of `sealed`.
        let check = |part: Scd4x, command: u16, value: u16, is_calibrating: u16| {
            let mut expected = vec![0x24, 0x16];
            expected.extend(sealed(is_calibrating));
            let mut compensation = command.to_be_bytes().to_vec();
            compensation.extend(sealed(value));
            let settings: [&'static [u8]; 2] = [expected.leak(), compensation.leak()];
            opened(part, settings, &[]);
        };
        let altitude = Some(520);
        let pressure = Some(1_013);
        check(PLAIN, 0x2427, 0, 1);
        check(Scd4x { altitude, ..PLAIN }, 0x2427, 0x0208, 1);
        check(Scd4x { pressure, ..PLAIN }, 0xe000, 0x03f5, 1);
        let self_calibration = false;
        let steady = Scd4x {
            self_calibration,
            ..PLAIN
        };
        check(steady, 0x2427, 0, 0);
    }

    #[test]
    fn altitude_and_pressure_are_within_what_the_chip_takes_and_not_both() {
        let check = |altitude: Option<u16>, pressure: Option<u16>, expected: &[&str]| {
            let part = Scd4x {
                altitude,
                pressure,
                ..PLAIN
            };
            let problems = part.problems();
            let options: Vec<&str> = problems.iter().map(|(option, _)| *option).collect();
            assert_eq!(options, expected, "{problems:?}");
        };
        check(None, None, &[]);
        check(Some(3_000), None, &[]);
        check(Some(3_001), None, &["altitude"]);
        check(None, Some(700), &[]);
        check(None, Some(699), &["pressure"]);
        check(None, Some(1_200), &[]);
        check(None, Some(1_201), &["pressure"]);
        check(Some(0), Some(1_000), &["pressure"]);
    }

    #[test]
    fn readings_are_what_is_around_the_twin() {
        let scene = Scene::still(&[
            (Physical::Co2, 812.0),
            (Physical::Temperature, -3.5),
            (Physical::Humidity, 44.0),
        ]);
        let mut link = I2cLink::to(0x62, PLAIN.twin(scene));
        let mut chip = PLAIN.open(link.clone()).unwrap();
        for _ in 0..2 {
            let values = chip.measure().unwrap();
            for (value, expected) in values.iter().zip([812.0, -3.5, 44.0]) {
                assert!((value - expected).abs() < 0.005, "{values:?}");
            }
            // What was read is gone.
            assert!(ask::<3, 9>(&mut link, READ).is_err());
        }
        // It runs, and can be started anew all the same.
        PLAIN.open(link).unwrap().measure().unwrap();
    }
}
