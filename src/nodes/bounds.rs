//! How large a payload may become that a node makes out of others. Without a bound, a flow whose messages go round (through
//! a `delay`) could let one grow until the memory is used up, or nest so deep that dropping it overflows the stack.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::message::Value;

/// Items or rows into which one message may be taken apart, and messages that are put together into one.
pub(super) const MOST_PARTS: usize = 10_000;
/// Values in one payload, with all that lie in its lists and objects.
pub(super) const MOST_VALUES: usize = 100_000;
/// How deep lists and objects may lie in each other.
const DEEPEST: usize = 128;
/// Bytes of a text that a node reads or writes.
pub(super) const LONGEST_TEXT: usize = 1024 * 1024;
/// Bytes of all text in one payload, with the names of fields.
const MOST_BYTES: usize = 4 * LONGEST_TEXT;

/// Says what is too much about a payload that was put together.
pub(super) fn check_size(value: &Value) -> Result<(), String> {
    Size::of(value).map(|_| ())
}

/// How large a payload is, or several together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Size {
    values: usize,
    bytes: usize,
}

impl Size {
    /// The size of one payload, unless that alone is too much.
    pub(super) fn of(value: &Value) -> Result<Size, String> {
        let mut size = Size::default();
        size.add(value, 0)?;
        Ok(size)
    }

    /// Both together, unless that is too much.
    pub(super) fn plus(self, other: Size) -> Result<Size, String> {
        let sum = Size {
            values: self.values.saturating_add(other.values),
            bytes: self.bytes.saturating_add(other.bytes),
        };
        sum.check().map(|()| sum)
    }

    /// What is left without a part of it.
    pub(super) fn minus(self, part: Size) -> Size {
        Size {
            values: self.values.saturating_sub(part.values),
            bytes: self.bytes.saturating_sub(part.bytes),
        }
    }

    fn add(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        self.values += 1;
        match value {
            Value::Text(text) => self.bytes += text.len(),
            Value::Object(fields) => {
                self.bytes += fields.keys().map(|name| name.len()).sum::<usize>();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) => {}
        }
        self.check()?;
        if depth > DEEPEST {
            return Err(format!("a payload is nested more than {DEEPEST} deep"));
        }
        let mut add = |inner: &Value| self.add(inner, depth + 1);
        match value {
            Value::List(items) => items.iter().try_for_each(&mut add),
            Value::Object(fields) => fields.values().try_for_each(&mut add),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.values > MOST_VALUES {
            return Err(format!(
                "more than {MOST_VALUES} values would come together"
            ));
        }
        if self.bytes > MOST_BYTES {
            let most = MOST_BYTES / LONGEST_TEXT;
            return Err(format!("more than {most} MiB of text would come together"));
        }
        Ok(())
    }
}

/// Refuses a text that is longer than [`LONGEST_TEXT`].
pub(super) fn check_text(bytes: usize) -> Result<(), String> {
    if bytes > LONGEST_TEXT {
        return Err("the text would be longer than 1 MiB".into());
    }
    Ok(())
}

/// The value as JSON, unless that is longer than [`LONGEST_TEXT`]. The work is bounded too.
pub(super) fn to_json(value: &Value) -> Result<String, String> {
    let mut json = Bounded(Vec::new());
    if serde_json::to_writer(&mut json, value).is_err() {
        return Err("the text would be longer than 1 MiB".into());
    }
    Ok(String::from_utf8(json.0).expect("JSON is written as UTF-8"))
}

/// Values as one text: text as it is, everything else as JSON.
pub(super) fn join<'a>(
    pieces: impl Iterator<Item = &'a Value>,
    between: &str,
) -> Result<Value, String> {
    let mut text = String::new();
    for (place, piece) in pieces.enumerate() {
        if place > 0 {
            text.push_str(between);
        }
        match piece {
            Value::Text(piece) => text.push_str(piece),
            other => text.push_str(&to_json(other)?),
        }
        check_text(text.len())?;
    }
    Ok(Value::Text(text.into()))
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST_TEXT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether all numbers in a value are finite.
pub(super) fn is_finite(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_finite(),
        Value::List(items) => items.iter().all(is_finite),
        Value::Object(fields) => fields.values().all(is_finite),
        Value::Null | Value::Bool(_) | Value::Text(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: Vec<Value>) -> Value {
        Value::List(items.into())
    }

    #[test]
    fn what_is_too_large_is_said() {
        let check = |value: &Value, expected: Result<(), &str>| {
            assert_eq!(check_size(value), expected.map_err(str::to_owned));
        };
        let nested = |depth| (0..depth).fold(Value::Null, |inner, _| list(vec![inner]));
        check(&nested(DEEPEST), Ok(()));
        check(
            &nested(DEEPEST + 1),
            Err("a payload is nested more than 128 deep"),
        );
        check(&list(vec![Value::Null; MOST_VALUES - 1]), Ok(()));
        check(
            &list(vec![Value::Null; MOST_VALUES]),
            Err("more than 100000 values would come together"),
        );
        let text = Value::from("x".repeat(LONGEST_TEXT).as_str());
        check(&list(vec![text.clone(); 4]), Ok(()));
        check(
            &list(vec![text; 5]),
            Err("more than 4 MiB of text would come together"),
        );
    }

    #[test]
    fn sizes_add_up() {
        let half =
            Size::of(&list(vec![Value::Null; MOST_VALUES / 2 - 1])).expect("it is not large");
        let whole = half.plus(half).expect("just inside");
        let one = Size::of(&Value::Null).expect("it is small");
        assert!(whole.plus(one).is_err());
        assert!(whole.minus(one).plus(one).is_ok());
    }

    /// Each list holds the next one twice: small in memory, but 2^100 values to one who walks it.
    #[test]
    fn what_is_shared_many_times_does_not_take_for_ever() {
        let shared = (0..100).fold(Value::Null, |inner, _| list(vec![inner.clone(), inner]));
        assert!(check_size(&shared).is_err());
        assert!(to_json(&shared).is_err());
    }

    #[test]
    fn json_is_bounded_to_the_byte() {
        let quoted = |bytes: usize| Value::from("x".repeat(bytes - 2).as_str());
        assert_eq!(
            to_json(&quoted(LONGEST_TEXT)).map(|json| json.len()),
            Ok(LONGEST_TEXT)
        );
        assert!(to_json(&quoted(LONGEST_TEXT + 1)).is_err());
    }
}
