//! Times of day and days, as in cron's tables: "at 6:00 from Monday to Friday, in Berlin".
//!
//! What the fields mean, and what happens when clocks are changed, is as in Vixie cron (crontab(5), cron(8)). Time zones come
//! from the database in the binary: nothing is read from the machine, so a flow means the same wherever it is checked or run.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

use crate::flow::diagnostic::nearest;
use crate::message::{Timestamp, Value};

/// A line of a cron table without its command: five fields, or six with seconds before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    seconds: Field,
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The values of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    /// One bit for each value.
    values: u64,
    /// Whether it begins with `*`.
    is_star: bool,
}

/// What may stand in a field.
struct Kind {
    name: &'static str,
    range: RangeInclusive<u8>,
    /// Names for values, from the first value of the range on.
    names: &'static [&'static str],
}

const SECONDS: Kind = Kind::new("second", 0..=59, &[]);
const MINUTES: Kind = Kind::new("minute", 0..=59, &[]);
const HOURS: Kind = Kind::new("hour", 0..=23, &[]);
const DAYS: Kind = Kind::new("day of the month", 1..=31, &[]);
const MONTHS: Kind = Kind::new(
    "month",
    1..=12,
    &[
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ],
);
/// Sunday is 0 and 7.
const WEEKDAYS: Kind = Kind::new(
    "day of the week",
    0..=7,
    &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
);

/// The same weekday comes round on 29 February at least once in this many years, also across a year like 2100.
const MOST_YEARS: i16 = 40;

const A_SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Schedule {
    pub(super) fn parse(text: &str) -> Result<Schedule, String> {
        let mut fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() == 5 {
            fields.insert(0, "0");
        }
        let [second, minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "`{text}` has {} fields; a schedule has five, such as \"0 6 * * MON-FRI\": minute, hour, day of the month, \
                 month, day of the week; or six, with the second before them",
                fields.len()
            ));
        };
        let mut weekdays = WEEKDAYS.parse(weekday)?;
        weekdays.values |= weekdays.values >> 7 & 1;
        Ok(Schedule {
            seconds: SECONDS.parse(second)?,
            minutes: MINUTES.parse(minute)?,
            hours: HOURS.parse(hour)?,
            days: DAYS.parse(day)?,
            months: MONTHS.parse(month)?,
            weekdays,
        })
    }

    /// The first time later than `after`; nothing if there is none, or none that a [`Timestamp`] can tell.
    ///
    /// When clocks go forward, a fixed time that is left out comes at once, and when they go back, one that comes twice counts
    /// the first time only. A schedule with `*` in the fields of the hour or smaller ones follows the clock: what is left out
    /// does not come, what comes twice counts twice.
    pub(super) fn next_after(&self, after: Timestamp, zone: &Zone) -> Option<Timestamp> {
        // The last full second up to then, for a schedule knows no fractions.
        let second = after.as_nanos().div_euclid(1_000_000_000);
        let after = jiff::Timestamp::from_second(second).ok()?;
        let follows_clock = self.seconds.is_star || self.minutes.is_star || self.hours.is_star;
        let next = if follows_clock {
            self.next_by_clock(after, &zone.0)
        } else {
            self.next_fixed(after, &zone.0)
        };
        let nanos = i64::try_from(next?.as_nanosecond()).ok()?;
        Some(Timestamp::from_nanos(nanos))
    }

    fn next_by_clock(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let mut from = after.checked_add(A_SECOND).ok()?;
        loop {
            let offset = zone.to_offset(from);
            let local = self.next_local(offset.to_datetime(from))?;
            let next = offset.to_timestamp(local).ok()?;
            // Clocks run evenly up to the next change; what comes later has another offset.
            match zone.following(from).next() {
                Some(change) if change.timestamp() <= next => from = change.timestamp(),
                _ => return Some(next),
            }
        }
    }

    fn next_fixed(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let mut local = zone.to_datetime(after);
        loop {
            local = self.next_local(local.checked_add(A_SECOND).ok()?)?;
            let next = match zone.to_ambiguous_timestamp(local).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok()?,
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok()?,
                AmbiguousOffset::Gap { after, .. } => {
                    // What the new offset makes of a time that is left out lies before the change.
                    let before_change = after.to_timestamp(local).ok()?;
                    zone.following(before_change).next()?.timestamp()
                }
            };
            // While an hour comes the second time, what it repeats has passed.
            if next > after {
                return Some(next);
            }
        }
    }

    /// The first local time from `from` on, which has no fraction of a second.
    fn next_local(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut earliest = from.time();
        while date.year() - from.year() <= MOST_YEARS {
            if !self.months.contains(date.month()) {
                date = date.last_of_month();
            } else if self.is_day(date)
                && let Some(time) = self.next_time(earliest)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    /// If one of the two fields of days begins with `*`, a day must be in both, else in one of them.
    fn is_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let (in_month, in_week) = (
            self.days.contains(date.day()),
            self.weekdays.contains(weekday),
        );
        if self.days.is_star || self.weekdays.is_star {
            in_month && in_week
        } else {
            in_month || in_week
        }
    }

    fn next_time(&self, from: Time) -> Option<Time> {
        for hour in self.hours.from(from.hour()) {
            let is_later = hour > from.hour();
            let first_minute = if is_later { 0 } else { from.minute() };
            for minute in self.minutes.from(first_minute) {
                let is_later = is_later || minute > from.minute();
                let first_second = if is_later { 0 } else { from.second() };
                if let Some(second) = self.seconds.from(first_second).next() {
                    return Time::new(hour, minute, second, 0).ok();
                }
            }
        }
        None
    }
}

impl Field {
    fn contains(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.values >> value & 1 == 1)
    }

    /// Its values that are not less than this one.
    fn from(self, first: i8) -> impl Iterator<Item = i8> {
        (first..=59).filter(move |value| self.contains(*value))
    }
}

impl Kind {
    const fn new(
        name: &'static str,
        range: RangeInclusive<u8>,
        names: &'static [&'static str],
    ) -> Kind {
        Kind { name, range, names }
    }

    fn parse(&self, text: &str) -> Result<Field, String> {
        let mut values = 0;
        for part in text.split(',') {
            values |= self.part(part)?;
        }
        Ok(Field {
            values,
            is_star: text.starts_with('*'),
        })
    }

    /// `*`, a value or a range, the first and the last perhaps with a step.
    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (*self.range.start(), *self.range.end()),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None if step.is_some() => {
                return Err(format!(
                    "`{part}`: a step needs `*` or a range before it, such as `{range}-{}/{}`",
                    self.range.end(),
                    step.unwrap_or_default()
                ));
            }
            None => (self.value(range)?, self.value(range)?),
        };
        // A week may end on Sunday, which is 0 by name.
        let is_to_sunday = *self.range.end() == 7 && last == 0 && first > 0;
        let last = if is_to_sunday { 7 } else { last };
        if first > last {
            return Err(format!(
                "`{part}` goes backwards; write `{first}-{},{}-{last}`",
                self.range.end(),
                self.range.start()
            ));
        }
        let step = match step.map(str::parse) {
            None => 1,
            Some(Ok(step)) if self.range.contains(&step) && step > 0 => step,
            Some(_) => {
                return Err(format!(
                    "`{part}`: a step of the {} is a whole number from 1 to {}",
                    self.name,
                    self.range.end()
                ));
            }
        };
        let values = (first..=last).step_by(usize::from(step));
        Ok(values.fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let named = self
            .names
            .iter()
            .position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named.and_then(|place| u8::try_from(place).ok()) {
            return Ok(self.range.start() + place);
        }
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_digits);
        number
            .filter(|number| self.range.contains(number))
            .ok_or_else(|| {
                let names = match (self.names.first(), self.names.last()) {
                    (Some(first), Some(last)) => format!(", or {first} to {last}"),
                    _ => String::new(),
                };
                format!(
                    "`{text}` is no {}; it goes from {} to {}{names}",
                    self.name,
                    self.range.start(),
                    self.range.end()
                )
            })
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Schedule, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => Schedule::parse(&text).map_err(D::Error::custom),
            other => Err(D::Error::custom(format!(
                "`{other}` is no schedule; one is text, such as \"0 6 * * MON-FRI\""
            ))),
        }
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> Cow<'static, str> {
        "Schedule".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A time zone by its name in the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    pub(super) const UTC: Zone = Zone(TimeZone::UTC);

    pub(crate) fn parse(name: &str) -> Result<Zone, String> {
        let database = TimeZoneDatabase::bundled();
        database.get(name).map(Zone).map_err(|_| {
            let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
            let is_city = |full: &&String| full.rsplit('/').next() == Some(name);
            let near = names.iter().find(is_city).map(String::as_str);
            let hint = near
                .or_else(|| nearest(name, names.iter().map(String::as_str)))
                .map(|near| format!("did you mean `{near}`?"))
                .unwrap_or_else(|| "one looks like \"Europe/Berlin\"".into());
            format!("there is no time zone `{name}`; {hint}")
        })
    }
}

impl From<Zone> for TimeZone {
    fn from(zone: Zone) -> TimeZone {
        zone.0
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Zone, D::Error> {
        let name = String::deserialize(deserializer)?;
        Zone::parse(&name).map_err(D::Error::custom)
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().expect("RFC 3339");
        Timestamp::from_nanos(time.as_nanosecond().try_into().expect("up to 2262"))
    }

    /// The first times after `after`, in local time with the offset.
    fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let zone = Zone::parse(zone).expect("a zone");
        let next = |time: &Timestamp| schedule.next_after(*time, &zone);
        let found: Vec<String> = std::iter::successors(next(&timestamp(after)), next)
            .take(expected.len())
            .map(|time| {
                let time =
                    jiff::Timestamp::from_nanosecond(time.as_nanos().into()).expect("in range");
                let offset = zone.0.to_offset(time);
                time.display_with_offset(offset).to_string()
            })
            .collect();
        assert_eq!(found, expected, "{schedule:?}");
    }

    fn check_utc(schedule: &str, after: &str, expected: &[&str]) {
        let expected: Vec<String> = expected
            .iter()
            .map(|time| format!("{time}+00:00"))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(schedule, "UTC", after, &expected);
    }

    #[test]
    fn fields_choose_times() {
        let friday = "2026-11-20T05:59:59.5Z";
        check_utc(
            "0 6 * * 1-5",
            friday,
            &["2026-11-20T06:00:00", "2026-11-23T06:00:00"],
        );
        check_utc(
            "0 6 * * MON-fri",
            "2026-11-20T06:00:00Z",
            &["2026-11-23T06:00:00"],
        );
        check_utc(
            "*/20 22,23 * * *",
            friday,
            &[
                "2026-11-20T22:00:00",
                "2026-11-20T22:20:00",
                "2026-11-20T22:40:00",
                "2026-11-20T23:00:00",
            ],
        );
        check_utc(
            "10-30/15 6 1 jan,JUL *",
            friday,
            &[
                "2027-01-01T06:10:00",
                "2027-01-01T06:25:00",
                "2027-07-01T06:10:00",
            ],
        );
        check_utc(
            "*/25 59 * * * *",
            friday,
            &[
                "2026-11-20T06:59:00",
                "2026-11-20T06:59:25",
                "2026-11-20T06:59:50",
                "2026-11-20T07:59:00",
            ],
        );
        check_utc(
            "* * * * * *",
            friday,
            &["2026-11-20T06:00:00", "2026-11-20T06:00:01"],
        );
        check_utc(
            "0 0 31 * *",
            friday,
            &[
                "2026-12-31T00:00:00",
                "2027-01-31T00:00:00",
                "2027-03-31T00:00:00",
            ],
        );
        check_utc("0 0 * * SUN", friday, &["2026-11-22T00:00:00"]);
        check_utc("0 0 * * 7", friday, &["2026-11-22T00:00:00"]);
        check_utc(
            "0 0 * * FRI-SUN",
            friday,
            &[
                "2026-11-21T00:00:00",
                "2026-11-22T00:00:00",
                "2026-11-27T00:00:00",
            ],
        );
    }

    /// As in crontab(5): two restricted fields are alternatives, unless one begins with `*`.
    #[test]
    fn days_of_month_and_week_are_alternatives() {
        let from = "2026-11-20T00:00:00Z";
        check_utc(
            "0 0 1 * MON",
            from,
            &[
                "2026-11-23T00:00:00",
                "2026-11-30T00:00:00",
                "2026-12-01T00:00:00",
            ],
        );
        check_utc("0 0 */30 * MON", from, &["2027-02-01T00:00:00"]);
    }

    #[test]
    fn leap_days_come_even_if_rarely_and_impossible_ones_never() {
        check_utc(
            "0 0 29 2 *",
            "2096-03-01T00:00:00Z",
            &["2104-02-29T00:00:00"],
        );
        let never = |text: &str| {
            let schedule = Schedule::parse(text).expect("a schedule");
            schedule.next_after(Timestamp::default(), &Zone::UTC)
        };
        assert_eq!(never("0 0 30 2 *"), None);
        assert_eq!(never("0 0 31 4,6,9,11 *"), None);
        assert_eq!(
            Schedule::parse("* * * * *")
                .expect("a schedule")
                .next_after(Timestamp::from_nanos(i64::MAX), &Zone::UTC),
            None
        );
        check_utc(
            "0 0 1 1 *",
            "1677-09-22T00:00:00Z",
            &["1678-01-01T00:00:00"],
        );
    }

    const BERLIN: &str = "Europe/Berlin";
    const BEFORE_SPRING: &str = "2026-03-28T12:00:00Z";
    const BEFORE_AUTUMN: &str = "2026-10-24T12:00:00Z";

    #[test]
    fn a_fixed_time_that_is_left_out_comes_at_the_change() {
        check(
            "30 2 * * *",
            BERLIN,
            BEFORE_SPRING,
            &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        );
        check(
            "0 1,2,3 * * *",
            BERLIN,
            "2026-03-29T00:00:00Z",
            &["2026-03-29T03:00:00+02:00", "2026-03-30T01:00:00+02:00"],
        );
        check(
            "10,30 2 * * *",
            BERLIN,
            "2026-03-29T00:59:59.9Z",
            &["2026-03-29T03:00:00+02:00", "2026-03-30T02:10:00+02:00"],
        );
    }

    #[test]
    fn a_fixed_time_that_comes_twice_counts_once() {
        check(
            "30 2,14 * * *",
            BERLIN,
            BEFORE_AUTUMN,
            &[
                "2026-10-24T14:30:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T14:30:00+01:00",
            ],
        );
        // It is 2:10 for the second time.
        check(
            "30 2 * * *",
            BERLIN,
            "2026-10-25T01:10:00Z",
            &["2026-10-26T02:30:00+01:00"],
        );
    }

    #[test]
    fn what_follows_the_clock_follows_it_through_changes() {
        check(
            "*/30 * * * *",
            BERLIN,
            "2026-03-29T00:15:00Z",
            &[
                "2026-03-29T01:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:30:00+02:00",
            ],
        );
        check(
            "*/30 2 * * *",
            BERLIN,
            BEFORE_SPRING,
            &["2026-03-30T02:00:00+02:00"],
        );
        check(
            "*/30 2 * * *",
            BERLIN,
            BEFORE_AUTUMN,
            &[
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-26T02:00:00+01:00",
            ],
        );
    }

    #[test]
    fn other_zones_and_half_hours_work_too() {
        check(
            "0 6 * * *",
            "Asia/Kolkata",
            BEFORE_SPRING,
            &["2026-03-29T06:00:00+05:30"],
        );
        // Clocks change by half an hour.
        check(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
        );
        // A whole day was left out when Samoa went to the other side of the date line.
        check(
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T12:00:00Z",
            &[
                "2011-12-29T12:00:00-10:00",
                "2011-12-31T00:00:00+14:00",
                "2011-12-31T12:00:00+14:00",
            ],
        );
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        let check = |text: &str, expected: &str| {
            let error = Schedule::parse(text).expect_err(text);
            assert!(error.contains(expected), "{error}");
        };
        check("", "has 0 fields; a schedule has five");
        check("0 6 * *", "has 4 fields");
        check("0 0 6 * * * *", "has 7 fields");
        check("60 * * * *", "`60` is no minute; it goes from 0 to 59");
        check("* 24 * * *", "`24` is no hour; it goes from 0 to 23");
        check("* * 0 * *", "`0` is no day of the month");
        check(
            "* * * 13 *",
            "`13` is no month; it goes from 1 to 12, or JAN to DEC",
        );
        check(
            "* * * * 8",
            "`8` is no day of the week; it goes from 0 to 7, or SUN to SAT",
        );
        check("* * * * MONDAY", "`MONDAY` is no day of the week");
        check("99999999999 * * * *", "is no minute");
        check("+5 * * * *", "`+5` is no minute");
        check("1,,2 * * * *", "`` is no minute");
        check(
            "5/10 * * * *",
            "a step needs `*` or a range before it, such as `5-59/10`",
        );
        check(
            "*/0 * * * *",
            "a step of the minute is a whole number from 1 to 59",
        );
        check("*/x * * * *", "a step of the minute");
        check("* 22-2 * * *", "`22-2` goes backwards; write `22-23,0-2`");
    }

    #[test]
    fn what_is_no_zone_is_said() {
        let check = |name: &str, expected: &str| {
            assert_eq!(Zone::parse(name).expect_err(name), expected);
        };
        check(
            "Europe/Berln",
            "there is no time zone `Europe/Berln`; did you mean `Europe/Berlin`?",
        );
        check(
            "Berlin",
            "there is no time zone `Berlin`; did you mean `Europe/Berlin`?",
        );
        check(
            "",
            "there is no time zone ``; one looks like \"Europe/Berlin\"",
        );
    }
}
