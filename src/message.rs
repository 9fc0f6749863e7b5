//! What travels along a wire: a [`Message`] with a [`Value`], a topic and a [`Timestamp`].
//!
//! Everything here is cheap to clone: text and containers are shared and copied on write, numbers are inline. A message
//! that has one reader is moved, never cloned, and moving one touches no reference count.
//!
//! Must not: know flows, nodes, files or clocks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Shared text; a clone costs one reference count.
pub type Text = Arc<str>;

/// An object's fields, in the order in which they were written.
pub type Object = IndexMap<Text, Value>;

/// A payload. Numbers are 64-bit floats, as in JavaScript and Node-RED.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    Text(Text),
    List(Arc<Vec<Value>>),
    Object(Arc<Object>),
}

impl Value {
    /// The number, if it is one. Booleans and numeric text are not numbers here.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// What a digital output makes of it: `true`/`false`, 1 and 0; anything else is no level.
    pub fn as_level(&self) -> Option<bool> {
        match self {
            Value::Bool(level) => Some(*level),
            Value::Number(number) if *number == 1.0 => Some(true),
            Value::Number(number) if *number == 0.0 => Some(false),
            _ => None,
        }
    }

    /// The field of an object, if this is one and has it.
    pub fn get(&self, field: &str) -> Option<&Value> {
        match self {
            Value::Object(object) => object.get(field),
            _ => None,
        }
    }

    /// What kind of value this is, as messages to the user name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// The value as JSON text. NaN and infinities have no JSON form and become `null`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("a value has only text keys, so it always has a JSON form")
    }

    /// An object made of the given fields.
    pub fn object<K: Into<Text>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Object(Arc::new(
            fields
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        ))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(level: bool) -> Value {
        Value::Bool(level)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// Whole numbers up to 2^53 are written without a fraction, as JavaScript writes them. In formats that are not for people -0
/// keeps its sign.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(level) => serializer.serialize_bool(*level),
            Value::Number(number)
                if number.fract() == 0.0
                    && number.abs() <= EXACT
                    && (number.is_sign_positive()
                        || *number != 0.0
                        || serializer.is_human_readable()) =>
            {
                serializer.serialize_i64(*number as i64)
            }
            Value::Number(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(list) => list.serialize(serializer),
            Value::Object(object) => serializer.collect_map(object.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, level: bool) -> Result<Value, E> {
                Ok(Value::Bool(level))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number as f64))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(Arc::new(list)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut object = Object::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    // How the TOML reader hands over a date.
                    if name == "$__toml_private_datetime" {
                        return Ok(value);
                    }
                    object.insert(name.into(), value);
                }
                Ok(Value::Object(Arc::new(object)))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

impl schemars::JsonSchema for Value {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Value".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        true.into()
    }
}

/// A point in time: nanoseconds since the Unix epoch, UTC; from 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, with fractions, as JavaScript's `Date.now()` counts them.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// The later point in time, held at the end of the range.
    pub fn saturating_add(self, span: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub fn saturating_since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The latest multiple of `span` since the Unix epoch that is not later than this. `span` must not be zero.
    pub fn floor(self, span: Duration) -> Timestamp {
        let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(self.0.rem_euclid(span)))
    }
}

/// RFC 3339 in UTC with milliseconds, or with as many digits as the time has.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = if self.0 % 1_000_000 == 0 {
            Some(3)
        } else {
            None
        };
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.0))
            .expect("every i64 lies in jiff's range");
        match precision {
            Some(digits) => write!(f, "{time:.digits$}"),
            None => write!(f, "{time}"),
        }
    }
}

/// As text, or in formats that are not for people as nanoseconds.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Timestamp);
        }
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// RFC 3339 with any offset.
impl std::str::FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Timestamp, TimeError> {
        let time: jiff::Timestamp = text.parse()?;
        match i64::try_from(time.as_nanosecond()) {
            Ok(nanos) => Ok(Timestamp(nanos)),
            Err(_) => Err(TimeError::OutOfRange),
        }
    }
}

/// A text is no time.
#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    #[error("is no time in RFC 3339, such as `2026-01-31T08:00:00Z`")]
    Format(#[from] jiff::Error),
    #[error("lies outside of the years from 1678 to 2261")]
    OutOfRange,
}

/// Which node sent a message: its place in its flow's file. Names are looked up in the flow, not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// A message on a wire.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    pub topic: Text,
    pub payload: Value,
    /// When what the payload says was so (event time).
    pub time: Timestamp,
    /// The node that sent it.
    pub source: NodeId,
    /// Further named values; absent in most messages.
    pub headers: Option<Arc<Object>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        let check =
            |number: f64, expected: &str| assert_eq!(Value::Number(number).to_json(), expected);
        check(60.0, "60");
        check(-3.0, "-3");
        check(0.1, "0.1");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(1e300, "1e+300");
        check(f64::NAN, "null");
        check(f64::INFINITY, "null");
    }

    #[test]
    fn values_survive_json() {
        let text = r#"{"b":[1,2.5,null,true],"a":{"deep":"ü"}}"#;
        let value: Value = serde_json::from_str(text).expect("valid JSON");
        assert_eq!(value.to_json(), text, "the order of fields is kept");
    }

    #[test]
    fn timestamps_are_printed_in_utc() {
        let check = |nanos: i64, expected: &str| {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), expected)
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_500_000_000, "1970-01-01T00:00:01.500Z");
        check(1_500_001_000, "1970-01-01T00:00:01.500001Z");
        check(i64::MIN, "1677-09-21T00:12:43.145224192Z");
    }

    #[test]
    fn timestamps_are_read_with_any_offset() {
        let check = |text: &str, expected: Option<i64>| {
            let read = text.parse::<Timestamp>().ok().map(Timestamp::as_nanos);
            assert_eq!(read, expected, "{text}");
        };
        check("1970-01-01T00:00:01.5Z", Some(1_500_000_000));
        check("1970-01-01T02:00:01.5+02:00", Some(1_500_000_000));
        check("1677-09-21T00:12:43.145224192Z", Some(i64::MIN));
        check("1600-01-01T00:00:00Z", None);
        check("1970-01-01T00:00:01", None);
        check("now", None);
    }

    #[test]
    fn floor_aligns_to_the_epoch_also_before_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            Timestamp::from_millis(61_000).floor(minute),
            Timestamp::from_millis(60_000)
        );
        assert_eq!(
            Timestamp::from_millis(60_000).floor(minute),
            Timestamp::from_millis(60_000)
        );
        assert_eq!(
            Timestamp::from_millis(-1).floor(minute),
            Timestamp::from_millis(-60_000)
        );
    }

    #[test]
    fn a_message_stays_small_enough_to_move_quickly() {
        assert!(
            std::mem::size_of::<Message>() <= 64,
            "{}",
            std::mem::size_of::<Message>()
        );
    }
}
