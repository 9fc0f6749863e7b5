//! What fields of CSV stand for: a number, `true`, `false`, or text.

use std::collections::HashSet;

use crate::message::{Text, Value};

/// Digits of a number that a 64-bit float holds exactly, whatever they are.
const EXACT_DIGITS: usize = 15;

/// Powers of ten that a 64-bit float holds exactly.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Rows that share a text; the next ones have it anew. The users of a text are counted, by the thread that reads and by the one
/// that runs the flow; where both do so at once, each waits for the other at every row. A few hundred rows on, they do not meet.
pub(super) const SHARED: usize = 512;

/// The value of a field; an empty one is null. None if it is not in UTF-8.
#[inline]
pub(super) fn value(field: &[u8]) -> Option<Value> {
    if let Some(number) = plain_number(field) {
        return Some(Value::Number(number));
    }
    Some(match field {
        b"" => Value::Null,
        b"true" => Value::Bool(true),
        b"false" => Value::Bool(false),
        field => {
            let text = std::str::from_utf8(field).ok()?;
            number(text).map_or_else(|| text.into(), Value::Number)
        }
    })
}

/// A number like `-12.25`, of so few digits that its whole digits and a power of ten are exact: then their quotient is the nearest
/// float, as the library would find it.
#[inline]
fn plain_number(field: &[u8]) -> Option<f64> {
    let (is_negative, digits) = match field {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > EXACT_DIGITS + 1 || matches!(digits, [b'0', b'0'..=b'9', ..]) {
        return None;
    }
    let mut whole = 0_u64;
    let mut point = None;
    for (place, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => whole = whole * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(place + 1),
            _ => return None,
        }
    }
    let count = digits.len() - usize::from(point.is_some());
    if count == 0 || count > EXACT_DIGITS {
        return None;
    }
    let fraction = point.map_or(0, |point| digits.len() - point);
    let number = whole as f64 / POWERS[fraction];
    Some(if is_negative { -number } else { number })
}

/// Any number that is finite. A text that begins with a zero, such as `007`, is a name.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_number = match digits {
        [b'0', next, ..] if next.is_ascii_digit() => false,
        [first, rest @ ..] => {
            let belongs = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
            (first.is_ascii_digit() || *first == b'.') && rest.iter().all(belongs)
        }
        [] => false,
    };
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.filter(|number: &f64| number.is_finite())
}

/// Topics that have come, so that rows share them.
#[derive(Default)]
pub(super) struct Topics {
    known: HashSet<Text>,
    /// Rows since it was emptied.
    rows: usize,
}

impl Topics {
    /// The topic; none if it is empty.
    pub(super) fn topic(&mut self, name: &str) -> Option<Text> {
        if name.is_empty() {
            return None;
        }
        if self.rows == SHARED {
            self.known.clear();
            self.rows = 0;
        }
        self.rows += 1;
        if let Some(topic) = self.known.get(name) {
            return Some(topic.clone());
        }
        let topic = Text::from(name);
        self.known.insert(topic.clone());
        Some(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbers_truths_or_text() {
        let check = |field: &str, expected: Value| {
            assert_eq!(value(field.as_bytes()), Some(expected), "{field}");
        };
        check("", Value::Null);
        check("true", true.into());
        check("false", false.into());
        check("True", "True".into());
        check("21.5", 21.5.into());
        check("-0.1", (-0.1).into());
        check(" 7 ", 7.0.into());
        check("0", 0.0.into());
        check(".5", 0.5.into());
        check("5.", 5.0.into());
        check("1e3", 1000.0.into());
        check("123456789012345678", 123_456_789_012_345_678.0.into());
        check("0.1234567890123456789", 0.123_456_789_012_345_68.into());
        for text in [
            "007",
            "-",
            ".",
            "-.",
            "1.2.3",
            "1,5",
            "+5",
            "NaN",
            "inf",
            "0x10",
            "1e999",
            "1 2",
            "2026-01-31",
            "a",
        ] {
            check(text, text.into());
        }
        assert_eq!(value(b"caf\xe9"), None);
    }

    #[test]
    fn plain_numbers_are_what_the_library_reads() {
        let mut state = 1_u64;
        for round in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let digits = (state >> 11) % 10_u64.pow(round % 15 + 1);
            let mut text = digits.to_string();
            let place = (state >> 7) as usize % (text.len() + 1);
            text.insert(place, '.');
            if state.is_multiple_of(2) {
                text.insert(0, '-');
            }
            if let Some(found) = plain_number(text.as_bytes()) {
                let expected: f64 = text.parse().unwrap();
                assert_eq!(found.to_bits(), expected.to_bits(), "{text}");
            }
        }
    }

    #[test]
    fn topics_are_shared_and_those_kept_are_bounded() {
        let mut topics = Topics::default();
        assert_eq!(topics.topic(""), None);
        let first = topics.topic("a").unwrap();
        topics.topic("b").unwrap();
        assert!(Text::ptr_eq(&first, &topics.topic("a").unwrap()));
        for place in 0..2 * SHARED {
            topics.topic(&place.to_string()).unwrap();
        }
        assert!(topics.known.len() <= SHARED);
        assert!(!Text::ptr_eq(&first, &topics.topic("a").unwrap()));
    }
}
