//! Pins and levels: values without behaviour.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// A digital level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    Low,
    High,
}

impl Level {
    pub fn is_high(self) -> bool {
        self == Level::High
    }
}

impl From<bool> for Level {
    fn from(high: bool) -> Level {
        if high { Level::High } else { Level::Low }
    }
}

impl From<Level> for bool {
    fn from(level: Level) -> bool {
        level.is_high()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_high() { "high" } else { "low" })
    }
}

/// What an output is driven with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// One level, steadily.
    Level(Level),
    /// High for a part of each period.
    Pulses(Pulses),
}

/// Pulses of one width in each period. They are never so narrow or so wide that the level would not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulses {
    period: Duration,
    width: Duration,
}

impl Drive {
    /// High for this share of each period. 0 and less (or NaN) is low, 1 and more is high.
    pub fn with_duty(period: Duration, duty: f64) -> Drive {
        let duty = if duty.is_nan() { 0.0 } else { duty };
        let width = period.mul_f64(duty.clamp(0.0, 1.0));
        if width.is_zero() {
            Drive::Level(Level::Low)
        } else if width >= period {
            Drive::Level(Level::High)
        } else {
            Drive::Pulses(Pulses { period, width })
        }
    }

    /// The share of time that it is high, 0 to 1.
    pub fn duty(self) -> f64 {
        match self {
            Drive::Level(Level::Low) => 0.0,
            Drive::Level(Level::High) => 1.0,
            Drive::Pulses(pulses) => pulses.width.as_secs_f64() / pulses.period.as_secs_f64(),
        }
    }

    /// The level, if it is steady.
    pub fn level(self) -> Option<Level> {
        match self {
            Drive::Level(level) => Some(level),
            Drive::Pulses(_) => None,
        }
    }
}

impl From<Level> for Drive {
    fn from(level: Level) -> Drive {
        Drive::Level(level)
    }
}

/// `high`, `low`, or `25% of 10ms`.
impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drive::Level(level) => level.fmt(f),
            Drive::Pulses(pulses) => {
                // To a hundredth of a percent, without zeros at the end.
                let percent = (self.duty() * 1e4).round() / 100.0;
                write!(f, "{percent}% of {:?}", pulses.period)
            }
        }
    }
}

impl Pulses {
    pub fn period(self) -> Duration {
        self.period
    }

    /// How long each pulse is high; more than nothing, less than the period.
    pub fn width(self) -> Duration {
        self.width
    }
}

/// The resistor inside the Pi that holds an input when nothing drives it; about 50 kOhm (BCM2835 ARM Peripherals, 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    #[default]
    None,
    Up,
    Down,
}

/// One of the 28 pins on the Pi's header, by its BCM number: 17 is what pin-outs call GPIO17. On another board, the line of this number on
/// the chip that the settings choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(u8);

impl Pin {
    /// The highest number on the header.
    pub const MAX: u8 = 27;

    pub fn new(number: u8) -> Result<Pin, BadPin> {
        if number > Pin::MAX {
            return Err(BadPin(number.to_string()));
        }
        Ok(Pin(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// The bus that has this pin once it is switched on, on its usual pins; the pin is free as long as it is not.
    ///
    /// The pins of the primary buses: Raspberry Pi documentation, "GPIO and the 40-pin header" (SPI0, I2C, serial, EEPROM).
    /// GPIO4 for one-wire: the default of `gpiopin` in `w1-gpio`, /boot/firmware/overlays/README.
    pub fn bus(self) -> Option<&'static str> {
        match self.0 {
            0 | 1 => Some("I2C 0, which reads the EEPROM of a HAT at boot"),
            2 | 3 => Some("I2C 1"),
            4 => Some("one-wire"),
            7..=11 => Some("SPI 0"),
            14 | 15 => Some("the serial port"),
            _ => None,
        }
    }
}

/// What was given as a pin is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pin: pins are numbered 0 to 27 as in GPIO17 (BCM), not by their place on the header"
)]
pub struct BadPin(String);

impl TryFrom<i64> for Pin {
    type Error = BadPin;

    fn try_from(number: i64) -> Result<Pin, BadPin> {
        u8::try_from(number)
            .map_err(|_| BadPin(number.to_string()))
            .and_then(Pin::new)
    }
}

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Pin, BadPin> {
        let bad = |_| BadPin(text.to_owned());
        text.parse::<u8>().map_err(bad).and_then(Pin::new)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPIO{}", self.0)
    }
}

/// A number, or the same number as text where it is a key of a table.
impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pin, D::Error> {
        struct AnyPin;
        impl Visitor<'_> for AnyPin {
            type Value = Pin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the BCM number of a pin, 0 to 27")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Pin, E> {
                Pin::try_from(number).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Pin, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Pin, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(AnyPin)
    }
}

impl schemars::JsonSchema for Pin {
    fn schema_name() -> Cow<'static, str> {
        "Pin".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The BCM number of a pin on the header: 17 is GPIO17",
            "type": "integer",
            "minimum": 0,
            "maximum": Pin::MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_the_header_s_28_and_nothing_else() {
        for good in ["0", "17", "27"] {
            assert_eq!(good.parse::<Pin>().unwrap().number().to_string(), good);
        }
        for bad in ["28", "-1", "GPIO17", "", "300"] {
            let error = bad.parse::<Pin>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{bad}` is not a pin")),
                "{error}"
            );
        }
        assert_eq!(Pin::try_from(4), Pin::new(4));
        assert!(Pin::try_from(-1).is_err() && Pin::try_from(260).is_err());
    }

    #[test]
    fn buses_have_their_usual_pins() {
        let of = |bus: &str| -> Vec<u8> {
            let pins = (0..=Pin::MAX).filter_map(|number| Pin::new(number).ok());
            let pins = pins.filter(|pin| pin.bus().is_some_and(|name| name.starts_with(bus)));
            pins.map(Pin::number).collect()
        };
        assert_eq!(of("I2C 0"), [0, 1]);
        assert_eq!(of("I2C 1"), [2, 3]);
        assert_eq!(of("one-wire"), [4]);
        assert_eq!(of("SPI 0"), [7, 8, 9, 10, 11]);
        assert_eq!(of("the serial port"), [14, 15]);
        assert_eq!(of("").len(), 12, "the other sixteen are free");
    }

    #[test]
    fn a_duty_makes_pulses_only_where_the_level_changes() {
        let check = |duty: f64, expected: &str| {
            let drive = Drive::with_duty(Duration::from_millis(10), duty);
            assert_eq!(drive.to_string(), expected, "{duty}");
        };
        check(0.25, "25% of 10ms");
        check(1.0 / 3.0, "33.33% of 10ms");
        check(1e-6, "0% of 10ms");
        for low in [0.0, -0.0, -1.0, 1e-9, f64::NAN, f64::NEG_INFINITY] {
            check(low, "low");
        }
        for high in [1.0, 1.5, 1.0 - 1e-9, f64::INFINITY] {
            check(high, "high");
        }
        assert_eq!(Drive::with_duty(Duration::MAX, 0.5).duty(), 0.5);
        let shortest = Drive::with_duty(Duration::ZERO, 0.5);
        assert_eq!(shortest, Drive::Level(Level::Low));
    }

    #[test]
    fn levels_and_booleans_are_the_same_thing() {
        for high in [true, false] {
            assert_eq!(bool::from(Level::from(high)), high);
        }
        assert_eq!(Level::High.to_string(), "high");
    }
}
