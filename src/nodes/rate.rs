//! `rate`: change per time, of readings, rising totals and pulses.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::series::{
    COMPUTED_BYTES, ClockSetting, finite_or_fail, forget_ahead, later_or_fail, level_or_fail,
    present_or_fail,
};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends how fast a number changes, or how fast pulses come, per topic and in event time: the kW of an energy meter, the
/// litres per minute of a water meter, the degrees per minute of a cold store.
///
/// Of a `reading` it is the difference to the one before, divided by the time between them; the first one sends nothing. The
/// total of a meter is such a reading: `resets` or `wraps_at` say what it means when it falls.
///
/// Of `pulses`, each message `true` or 1 is one (those of `false` and 0, the other edge, send nothing; anything else
/// fails), and the rate is that of one pulse in the time since the one before. The first pulse sends nothing. Without a
/// pulse for `zero_after`, 0 is sent once, and the next pulse is a first one again.
///
/// A reading or pulse that is not later than the one before it fails, and so does the first one after the clock was set ahead,
/// as some time after a Pi has started; the next one has a rate again. After a restart, the first rate of pulses may be too low: how many
/// came meanwhile is not known. At most 10,000 topics are remembered; messages of
/// further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Rate {
    /// What the messages are: `reading` or `pulses`. Default: `reading`.
    #[serde(default)]
    of: Of,
    /// The time of the rate: `"1m"` for litres per minute. Default: `1s`.
    #[serde(default = "one_second")]
    per: Span,
    /// Whether the readings are a total that only rises, and has begun at 0 again when it falls. A negative one fails.
    /// Default: `false`: a number that falls has a negative rate.
    #[serde(default)]
    resets: bool,
    /// The number of readings of a total that rises and goes on at 0 behind the last of them: 65536 for a meter of 16 bits,
    /// 100000 for a display of five digits. One that is negative or not below it fails.
    wraps_at: Option<f64>,
    /// How many pulses make one unit: 450 for a YF-S201 flow sensor and litres, often 1000 for an S0 output and kWh.
    /// Default: 1.
    pulses_per_unit: Option<f64>,
    /// After what time without a pulse the rate is 0; slower pulses have no rate. Default: `1m`.
    zero_after: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Of {
    #[default]
    Reading,
    Pulses,
}

fn one_second() -> Span {
    Span(Duration::from_secs(1))
}

const DEFAULT_ZERO_AFTER: Duration = Duration::from_secs(60);

impl Definition for Rate {
    const NAME: &'static str = "rate";
    const EXAMPLE: &'static str = r#"
[nodes.meter]                 # in the place of a `gpio in` at the S0 output of an energy meter
type = "inject"
every = "3s"
payload = 1

[nodes.power]                 # 1000 pulses for a kWh: kWh per hour, which is kW
type = "rate"
from = "meter"
of = "pulses"
pulses_per_unit = 1000
per = "1h"

[nodes.show]
type = "debug"
from = "power"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |at: &str, message: &str| problems.push(Problem::new(at, message));
        if self.per.0.is_zero() {
            wrong("per", "must be longer than 0s");
        }
        let shortest = Duration::from_millis(1);
        if self.zero_after.is_some_and(|span| span.0 < shortest) {
            wrong("zero_after", "must be at least 1ms");
        }
        for (option, number) in [
            ("wraps_at", self.wraps_at),
            ("pulses_per_unit", self.pulses_per_unit),
        ] {
            if number.is_some_and(|number| !number.is_finite() || number <= 0.0) {
                wrong(option, "must be a finite number above 0");
            }
        }
        if self.resets && self.wraps_at.is_some() {
            wrong("wraps_at", "cannot be given beside `resets`");
        }
        let of_readings = [
            ("resets", self.resets),
            ("wraps_at", self.wraps_at.is_some()),
        ];
        let of_pulses = [
            ("pulses_per_unit", self.pulses_per_unit.is_some()),
            ("zero_after", self.zero_after.is_some()),
        ];
        let (others, message) = match self.of {
            Of::Reading => (of_pulses, "needs `of = \"pulses\"`"),
            Of::Pulses => (of_readings, "has no meaning for pulses"),
        };
        for (option, _) in others.into_iter().filter(|(_, is_given)| *is_given) {
            wrong(option, message);
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let per_s = self.per.0.as_secs_f64();
        let fall = match self.wraps_at {
            Some(at) => Fall::WrapsAt(at),
            None if self.resets => Fall::Resets,
            None => Fall::IsNegative,
        };
        Ok(match self.of {
            Of::Reading => Box::new(Readings {
                per_s,
                fall,
                last: Keyed::default(),
            }),
            Of::Pulses => Box::new(Pulses {
                pulse: per_s / self.pulses_per_unit.unwrap_or(1.0),
                zero_after: self.zero_after.map_or(DEFAULT_ZERO_AFTER, |span| span.0),
                last: Keyed::default(),
                is_waiting: false,
            }),
        })
    }
}

/// What it means when a reading falls.
#[derive(Clone, Copy)]
enum Fall {
    IsNegative,
    Resets,
    WrapsAt(f64),
}

impl Fall {
    /// What is wrong with a reading, if it cannot be one of such a total.
    fn objection(self, number: f64) -> Option<String> {
        match self {
            Fall::Resets if number < 0.0 => Some(format!("a total is not negative: {number}")),
            Fall::WrapsAt(at) if !(0.0..at).contains(&number) => Some(format!(
                "a total that wraps at {at} is from 0 to below it, not {number}"
            )),
            _ => None,
        }
    }

    fn change(self, before: f64, number: f64) -> f64 {
        match self {
            Fall::Resets if number < before => number,
            Fall::WrapsAt(at) if number < before => number + (at - before),
            _ => number - before,
        }
    }
}

struct Readings {
    per_s: f64,
    fall: Fall,
    /// The last reading of each topic.
    last: Keyed<Option<Reading>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Reading {
    time: Timestamp,
    number: f64,
    clock: ClockSetting,
}

impl Node for Readings {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.last))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.last = state.read()?;
        forget_ahead(&mut self.last, |reading| reading.time, pause, cx);
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        if let Some(objection) = self.fall.objection(number) {
            return cx.fail(objection);
        }
        let Some(last) = self.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        let reading = Reading {
            time: message.time,
            number,
            clock: ClockSetting::of(cx),
        };
        if let Some(before) = *last {
            let Some(span) = later_or_fail(message.time, before.time, cx) else {
                return;
            };
            if reading.clock.kept_or_fail(before.clock, span, cx).is_none() {
                *last = Some(reading);
                return;
            }
            let rate = self.fall.change(before.number, number) / span.as_secs_f64() * self.per_s;
            let Some(rate) = finite_or_fail(rate, cx) else {
                return;
            };
            message.payload = Value::Number(rate);
            cx.pass(0);
        }
        *last = Some(reading);
    }
}

struct Pulses {
    /// The rate of one pulse in a second.
    pulse: f64,
    zero_after: Duration,
    /// The last pulse of each topic that is not silent.
    last: Keyed<Option<Pulse>>,
    /// Whether a wake-up has been asked for: whenever there is a pulse. It is for the pulse that is silent first; one that comes later has more time.
    is_waiting: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Pulse {
    time: Timestamp,
    /// The monotonic time at which the rate is 0 if no other pulse comes.
    zero_at: Duration,
    clock: ClockSetting,
}

impl Node for Pulses {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.last))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.last = state.read()?;
        forget_ahead(&mut self.last, |pulse| pulse.time, pause, cx);
        self.is_waiting = self.last.iter_mut().any(|(_, pulse)| pulse.is_some());
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if level_or_fail(&message.payload, cx) != Some(true) {
            return;
        }
        if present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(last) = self.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        let clock = ClockSetting::of(cx);
        if let Some(before) = *last {
            let Some(span) = later_or_fail(message.time, before.time, cx) else {
                return;
            };
            if clock.kept_or_fail(before.clock, span, cx).is_some() {
                let Some(rate) = finite_or_fail(self.pulse / span.as_secs_f64(), cx) else {
                    return;
                };
                message.payload = Value::Number(rate);
                cx.pass(0);
            }
        }
        let zero_at = cx.now().mono.saturating_add(self.zero_after);
        *last = Some(Pulse {
            time: message.time,
            zero_at,
            clock,
        });
        if !self.is_waiting {
            self.is_waiting = true;
            cx.wake_at(zero_at);
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let mut next: Option<Duration> = None;
        for (topic, last) in self.last.iter_mut() {
            let Some(pulse) = *last else { continue };
            if pulse.zero_at <= now {
                *last = None;
                let time = pulse.time.saturating_add(self.zero_after);
                cx.originate(topic.clone(), Value::Number(0.0), time);
            } else {
                next = Some(next.map_or(pulse.zero_at, |next| next.min(pulse.zero_at)));
            }
        }
        self.is_waiting = next.is_some();
        if let Some(next) = next {
            cx.wake_at(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{Run, node_mistakes};

    /// Numbers at milliseconds.
    fn check(options: &str, readings: &[(i64, f64)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'rate'\n{options}"));
        for (ms, number) in readings {
            run.go_on_until(Timestamp::from_millis(*ms));
            run.deliver(Timestamp::from_millis(*ms), (*number).into());
        }
        assert_eq!(run.sent, expected, "{options} {readings:?}");
    }

    #[test]
    fn of_readings_it_is_the_change_per_time() {
        check("", &[], &[]);
        check("", &[(0, 5.0)], &[]);
        check(
            "",
            &[(0, 5.0), (500, 6.0), (2500, 6.0), (3500, 4.0)],
            &["2", "0", "-2"],
        );
        check("per = '1m'", &[(0, 5.0), (500, 6.0)], &["120"]);
        check("per = '1h'", &[(0, 5.0), (1_800_000, 6.0)], &["2"]);
    }

    #[test]
    fn a_total_that_resets_has_begun_at_0() {
        let readings = [
            (0, 90.0),
            (1000, 98.0),
            (2000, 3.0),
            (3000, 3.0),
            (4000, 5.0),
        ];
        check("resets = true", &readings, &["8", "3", "0", "2"]);
        check(
            "resets = true",
            &[(0, 9.0), (1000, -0.5), (2000, 10.0)],
            &["failed: a total is not negative: -0.5", "0.5"],
        );
    }

    #[test]
    fn a_total_that_wraps_goes_on_at_0() {
        // From 65535 to 0 is one step.
        check(
            "wraps_at = 65536",
            &[(0, 65_530.0), (1000, 65_535.0), (2000, 0.0), (3000, 4.0)],
            &["5", "1", "4"],
        );
        check(
            "wraps_at = 100",
            &[(0, 99.0), (1000, 100.0), (2000, -1.0), (3000, 2.0)],
            &[
                "failed: a total that wraps at 100 is from 0 to below it, not 100",
                "failed: a total that wraps at 100 is from 0 to below it, not -1",
                "1",
            ],
        );
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        check(
            "",
            &[
                (1000, 1.0),
                (1000, 5.0),
                (500, 5.0),
                (1500, f64::NAN),
                (2000, 3.0),
            ],
            &[
                "failed: the reading of 1970-01-01T00:00:01.000Z is not later than the one before it, of 1970-01-01T00:00:01.000Z",
                "failed: the reading of 1970-01-01T00:00:00.500Z is not later than the one before it, of 1970-01-01T00:00:01.000Z",
                "failed: needs a finite number, but the payload is a number: NaN",
                "2",
            ],
        );
        check(
            "per = '1h'",
            &[(0, 0.0), (1, 1e305), (3_600_000, 7.0)],
            &["failed: the result is not a finite number: inf", "7"],
        );
        let mut run = Run::new("type = 'rate'");
        for (nanos, number) in [(i64::MIN, 0.0), (i64::MAX, 9_223_372_036.854_776)] {
            run.go_on_until(Timestamp::from_nanos(nanos));
            run.deliver(Timestamp::from_nanos(nanos), number.into());
        }
        assert_eq!(run.sent, ["1"]);
    }

    /// A Pi starts with an old time, and its clock is set while it counts.
    #[test]
    fn there_is_no_rate_over_a_change_of_the_clock() {
        for options in ["resets = true", "of = 'pulses'"] {
            let mut run = Run::new(&format!("type = 'rate'\n{options}"));
            for (second, step_hours) in [(1, 0), (2, 0), (3, 8), (4, 0)] {
                let until = Duration::from_secs(second).saturating_sub(run.now.mono);
                run.go_on_until(run.now.wall.saturating_add(until));
                let step = Duration::from_secs(3600 * step_hours);
                run.now.wall = run.now.wall.saturating_add(step);
                run.deliver(run.now.wall, 1.0.into());
            }
            let rate = if options == "resets = true" { "0" } else { "1" };
            assert_eq!(
                run.sent,
                [
                    rate,
                    "failed: the clock was set ahead by 8h since the last reading: how much later this one is, is not known",
                    rate,
                ]
            );
        }
    }

    #[test]
    fn topics_are_apart() {
        for options in ["", "of = 'pulses'"] {
            let mut run = Run::new(&format!("type = 'rate'\n{options}"));
            for (topic, ms) in [("a", 0), ("b", 1500), ("a", 2000), ("b", 1750)] {
                run.go_on_until(Timestamp::from_millis(ms));
                run.deliver_on(topic, Timestamp::from_millis(ms), 1.0.into());
            }
            let expected = if options.is_empty() {
                ["0", "0"]
            } else {
                ["0.5", "4"]
            };
            assert_eq!(run.sent, expected, "{options}");
        }
    }

    /// Payloads that come at milliseconds and are of that time; then an hour goes by.
    fn check_pulses(options: &str, pulses: &[(i64, Value)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'rate'\nof = 'pulses'\n{options}"));
        for (ms, payload) in pulses {
            run.go_on_until(Timestamp::from_millis(*ms));
            run.deliver(run.now.wall, payload.clone());
        }
        run.go_on_until(Timestamp::from_millis(3_600_000));
        assert_eq!(run.sent, expected, "{options} {pulses:?}");
    }

    #[test]
    fn of_pulses_it_is_one_in_the_time_since_the_one_before() {
        let one = |ms: i64| (ms, Value::Number(1.0));
        check_pulses("", &[], &[]);
        check_pulses("", &[one(0), one(500), one(4500)], &["2", "0.25", "0"]);
        // 7.5 Hz is 1 l/min: YF-S201, 450 pulses per litre.
        check_pulses(
            "pulses_per_unit = 450\nper = '1m'",
            &[one(0), one(400)],
            &["0.3333333333333333", "0"],
        );
        // A kilowatt is 1000 pulses in an hour: one in 3.6 s.
        check_pulses(
            "pulses_per_unit = 1000\nper = '1h'",
            &[one(0), one(3600)],
            &["1", "0"],
        );
    }

    #[test]
    fn levels_are_edges_of_pulses_and_nothing_else_is_one() {
        let pulses: Vec<(i64, Value)> = [
            (0, Value::Bool(false)),
            (100, Value::Bool(true)),
            (200, Value::Number(0.0)),
            (300, Value::Number(2.0)),
            (400, Value::Null),
            (600, Value::Number(1.0)),
            (700, Value::Number(0.0)),
        ]
        .into();
        check_pulses(
            "",
            &pulses,
            &[
                "failed: needs true, false, 1 or 0, but the payload is 2",
                "failed: needs true, false, 1 or 0, but the payload is null",
                "2",
                "0",
            ],
        );
    }

    #[test]
    fn silence_is_a_rate_of_0_once_and_then_a_new_start() {
        let one = |ms: i64| (ms, Value::Number(1.0));
        check_pulses(
            "zero_after = '2s'",
            &[one(0), one(1000), one(2999), one(5000), one(5500)],
            &["1", "0.5002501250625312", "0", "2", "0"],
        );
        check_pulses("zero_after = '2s'", &[one(0)], &["0"]);
    }

    #[test]
    fn silence_is_told_of_each_topic_at_its_own_time() {
        let mut run = Run::new("type = 'rate'\nof = 'pulses'\nzero_after = '2s'");
        for (topic, ms) in [("a", 0), ("b", 1000), ("a", 1500)] {
            run.go_on_until(Timestamp::from_millis(ms));
            run.deliver_on(topic, run.now.wall, 1.0.into());
        }
        run.go_on_until(Timestamp::from_millis(2999));
        assert_eq!(run.sent.len(), 1, "{:?}", run.sent);
        run.go_on_until(Timestamp::from_millis(60_000));
        let zeros: Vec<(&str, Timestamp)> = run.messages[1..]
            .iter()
            .map(|message| (&*message.topic, message.time))
            .collect();
        assert_eq!(
            zeros,
            [
                ("b", Timestamp::from_millis(3000)),
                ("a", Timestamp::from_millis(3500))
            ]
        );
    }

    #[test]
    fn a_pulse_that_is_not_later_fails() {
        let mut run = Run::new("type = 'rate'\nof = 'pulses'");
        for ms in [1000, 1000, 1500] {
            run.go_on_until(Timestamp::from_millis(ms));
            run.deliver(Timestamp::from_millis(ms), true.into());
        }
        assert_eq!(run.sent.len(), 2);
        assert!(
            run.sent[0].starts_with("failed: the reading of 1970-01-01T00:00:01.000Z is not later")
        );
        assert_eq!(run.sent[1], "2");
    }

    #[test]
    fn options_fit_each_other() {
        let check = |options: &str, expected: &[&str]| {
            let found = node_mistakes(&format!("type = 'rate'\n{options}"));
            assert_eq!(found, expected, "{options}");
        };
        check("per = '0s'", &["`per`: must be longer than 0s"]);
        check(
            "of = 'pulses'\nzero_after = '999us'",
            &["`zero_after`: must be at least 1ms"],
        );
        for number in ["0", "-1", "inf", "nan"] {
            check(
                &format!("wraps_at = {number}"),
                &["`wraps_at`: must be a finite number above 0"],
            );
            check(
                &format!("of = 'pulses'\npulses_per_unit = {number}"),
                &["`pulses_per_unit`: must be a finite number above 0"],
            );
        }
        check(
            "resets = true\nwraps_at = 100",
            &["`wraps_at`: cannot be given beside `resets`"],
        );
        check(
            "pulses_per_unit = 450\nzero_after = '1s'",
            &[
                "`pulses_per_unit`: needs `of = \"pulses\"`",
                "`zero_after`: needs `of = \"pulses\"`",
            ],
        );
        check(
            "of = 'pulses'\nresets = true",
            &["`resets`: has no meaning for pulses"],
        );
        check(
            "of = 'pulses'\nwraps_at = 9",
            &["`wraps_at`: has no meaning for pulses"],
        );
    }
}
