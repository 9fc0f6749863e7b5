//! Times as rows write them: RFC 3339, Unix seconds, or local time in a zone that was named.
//!
//! Nearly all times of a file are on the day of the one before, and written in the same way; so these are read at once, and the
//! rest by the library.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::message::{TimeError, Timestamp};

const SECOND: i64 = 1_000_000_000;

/// Reads the times of one file.
pub(super) struct Times {
    zone: Option<TimeZone>,
    /// The last date that was read, and its beginning in UTC.
    date: [u8; 10],
    midnight: i64,
    /// The last time that was read.
    last: Timestamp,
    /// The first one that had no offset, if there was none before it that was read.
    without_offset: Option<String>,
}

/// A text is no time that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TimeProblem {
    #[error("no time")]
    Missing,
    #[error(
        "`{0}` is no time; it would be RFC 3339, such as 2026-01-31T08:00:00Z, or Unix seconds"
    )]
    NoTime(String),
    #[error("`{0}` says no offset from UTC; say with --time-zone what such times are in")]
    NoOffset(String),
    #[error("`{0}` does not exist there: the clocks were put forward over it")]
    LeftOut(String),
    #[error(
        "`{0}` lies outside of the years from 1678 to 2261; numbers are seconds, not milliseconds"
    )]
    OutOfRange(String),
}

impl TimeProblem {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            TimeProblem::Missing => "without a time",
            TimeProblem::NoTime(_) => "with a time that is none",
            TimeProblem::NoOffset(_) => "with a time without an offset",
            TimeProblem::LeftOut(_) => "with a local time that does not exist",
            TimeProblem::OutOfRange(_) => "with a time out of range",
        }
    }
}

impl Times {
    pub(super) fn new(zone: Option<TimeZone>) -> Times {
        Times {
            zone,
            date: [0; 10],
            midnight: 0,
            last: Timestamp::from_nanos(i64::MIN),
            without_offset: None,
        }
    }

    /// The time without an offset that was read last, if it could not be used.
    pub(super) fn without_offset(&mut self) -> Option<String> {
        self.without_offset.take()
    }

    /// The time that a text is.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8]) -> Result<Timestamp, TimeProblem> {
        let time = match self.read_usual(text) {
            Some(nanos) => Timestamp::from_nanos(nanos),
            None => self.read_any(text)?,
        };
        self.last = time;
        Ok(time)
    }

    /// Unix seconds as JSON has them. Its shortest digits are what was written.
    pub(super) fn read_number(&mut self, seconds: f64) -> Result<Timestamp, TimeProblem> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let text = seconds.to_string();
        let time = if seconds.fract() == 0.0 && seconds.abs() < EXACT {
            (seconds as i64).checked_mul(SECOND)
        } else {
            unix_seconds(text.as_bytes())
        };
        let time = Timestamp::from_nanos(time.ok_or(TimeProblem::OutOfRange(text))?);
        self.last = time;
        Ok(time)
    }

    /// `2026-01-31T08:00:00.25Z` or with another offset, on the day of the last time.
    #[inline]
    fn read_usual(&self, text: &[u8]) -> Option<i64> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        if *date != self.date {
            return None;
        }
        let [
            b'T' | b't' | b' ',
            h1,
            h2,
            b':',
            m1,
            m2,
            b':',
            s1,
            s2,
            rest @ ..,
        ] = rest
        else {
            return None;
        };
        let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (nanos, rest) = match rest {
            [b'.', fraction @ ..] => fraction_of_second(fraction)?,
            rest => (0, rest),
        };
        let offset = match rest {
            b"Z" | b"z" => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = hours * 3600 + minutes * 60;
                if *sign == b'+' { offset } else { -offset }
            }
            _ => return None,
        };
        let seconds = hour * 3600 + minute * 60 + second - offset;
        self.midnight.checked_add(seconds * SECOND + nanos)
    }

    #[cold]
    fn read_any(&mut self, text: &[u8]) -> Result<Timestamp, TimeProblem> {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(TimeProblem::NoTime(shortened(
                &text.escape_ascii().to_string(),
            )));
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(TimeProblem::Missing);
        }
        if is_number(text) {
            return match unix_seconds(text.as_bytes()) {
                Some(nanos) => Ok(Timestamp::from_nanos(nanos)),
                None => match text.parse::<f64>() {
                    Ok(_) => Err(TimeProblem::OutOfRange(shortened(text))),
                    Err(_) => Err(TimeProblem::NoTime(shortened(text))),
                },
            };
        }
        match text.parse::<Timestamp>() {
            Ok(time) => {
                self.remember_date(text);
                Ok(time)
            }
            Err(TimeError::OutOfRange) => Err(TimeProblem::OutOfRange(shortened(text))),
            Err(TimeError::Format(_)) => self.read_local(text),
        }
    }

    /// A time without an offset. One that came twice, when the clocks were put back, is the first that is not before the time read
    /// last.
    fn read_local(&mut self, text: &str) -> Result<Timestamp, TimeProblem> {
        let Ok(local) = text.parse::<DateTime>() else {
            return Err(TimeProblem::NoTime(shortened(text)));
        };
        let Some(zone) = &self.zone else {
            self.without_offset = Some(text.to_owned());
            return Err(TimeProblem::NoOffset(shortened(text)));
        };
        let at = |offset: jiff::tz::Offset| {
            let time = offset.to_timestamp(local).ok();
            let nanos = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
            nanos.map(Timestamp::from_nanos)
        };
        let time = match zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            AmbiguousOffset::Gap { .. } => return Err(TimeProblem::LeftOut(shortened(text))),
            AmbiguousOffset::Fold { before, after } => at(before)
                .filter(|time| *time >= self.last)
                .or_else(|| at(after)),
        };
        time.ok_or_else(|| TimeProblem::OutOfRange(shortened(text)))
    }

    fn remember_date(&mut self, text: &str) {
        let date = text.as_bytes().first_chunk::<10>();
        let midnight = date.and_then(|_| {
            let midnight = format!("{}T00:00:00Z", text.get(..10)?);
            midnight.parse::<Timestamp>().ok()
        });
        if let (Some(date), Some(midnight)) = (date, midnight) {
            self.date = *date;
            self.midnight = midnight.as_nanos();
        }
    }
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    let is_number = tens.is_ascii_digit() && ones.is_ascii_digit();
    is_number.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Nanoseconds, and what stands behind the digits; up to nine of these.
fn fraction_of_second(text: &[u8]) -> Option<(i64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let number = text[..digits].iter();
    let number = number.fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let missing = 9 - u32::try_from(digits).ok()?;
    Some((number * 10_i64.pow(missing), &text[digits..]))
}

/// Whether a text can only be meant as a number.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let mut bytes = digits.bytes();
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && bytes.all(|byte| byte.is_ascii_digit() || b".eE+".contains(&byte))
}

/// Nanoseconds since 1970 of seconds with a fraction, to the last digit; what is smaller than a nanosecond is cut off.
fn unix_seconds(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut nanos = 0_i64;
    let mut fraction = None;
    let mut is_number = false;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                is_number = true;
                if fraction.is_none_or(|digits| digits < 9) {
                    nanos = nanos.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
                    fraction = fraction.map(|digits| digits + 1);
                }
            }
            b'.' if fraction.is_none() => fraction = Some(0),
            // With an exponent: as precise as that can be.
            b'e' | b'E' => {
                let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
                let nanos = (seconds * 1e9).round();
                return (nanos.abs() < i64::MAX as f64).then_some(nanos as i64);
            }
            _ => return None,
        }
    }
    let nanos = nanos.checked_mul(10_i64.pow(9 - fraction.unwrap_or(0)))?;
    is_number.then_some(if is_negative { -nanos } else { nanos })
}

/// The beginning of a text from a file, fit for a message.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let clean = |text: &str| text.replace(char::is_control, "?");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", clean(&text[..end])),
        None => clean(text),
    }
}
