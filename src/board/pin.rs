//! Pins and levels: values without behaviour.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A digital level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The resistor inside the Pi that holds an input when nothing drives it; about 50 kOhm (BCM2835 ARM Peripherals, 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    #[default]
    None,
    Up,
    Down,
}

/// One of the 28 pins on the Pi's header, by its BCM number: 17 is what pin-outs call GPIO17.
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
    fn levels_and_booleans_are_the_same_thing() {
        for high in [true, false] {
            assert_eq!(bool::from(Level::from(high)), high);
        }
        assert_eq!(Level::High.to_string(), "high");
    }
}
