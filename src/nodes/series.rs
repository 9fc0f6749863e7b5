//! What nodes share that compute over the readings of a topic.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use crate::flow::options::Span;
use crate::message::{Message, Timestamp, Value};
use crate::runtime::node::{Context, excerpt};
use crate::runtime::state::Pause;

/// The typical size of a computed number as JSON, in bytes: it has all the digits that a double has.
pub(super) const COMPUTED_BYTES: f64 = 18.0;

/// A result that can be sent on; one that is too large for a double, or none at all, fails.
#[inline]
pub(super) fn finite_or_fail(result: f64, cx: &mut Context<'_>) -> Option<f64> {
    if result.is_finite() {
        return Some(result);
    }
    cx.fail(format!("the result is not a finite number: {result}"));
    None
}

/// How much later a reading is than the one before it; one that is not later fails.
#[inline]
pub(super) fn later_or_fail(
    time: Timestamp,
    before: Timestamp,
    cx: &mut Context<'_>,
) -> Option<Duration> {
    if time > before {
        return Some(time.saturating_since(before));
    }
    cx.fail(format!(
        "the reading of {time} is not later than the one before it, of {before}"
    ));
    None
}

/// How far ahead of now a reading's time may be. One that is further ahead comes from a clock that is wrong; kept as the last
/// reading, it would make all that follow fail for not being later.
pub(super) const FUTURE: Duration = Duration::from_secs(60);

/// A time that is not ahead of now, or a failure.
#[inline]
pub(super) fn present_or_fail(time: Timestamp, cx: &mut Context<'_>) -> Option<()> {
    let now = cx.now().wall;
    if time.saturating_since(now) <= FUTURE {
        return Some(());
    }
    cx.fail(format!(
        "the message's time, {time}, is in the future: it is {now} now"
    ));
    None
}

/// Whether a remembered reading lies ahead of the clock because of a restart: a Pi begins with an old time. It is forgotten, or
/// all that follow would fail, for not being later, until the clock is set; it may never be.
pub(super) fn is_ahead(time: Timestamp, pause: Pause, cx: &Context<'_>) -> bool {
    pause == Pause::Restart && time > cx.now().wall
}

/// Forgets the last readings that [lie ahead](is_ahead).
pub(super) fn forget_ahead<T>(
    last: &mut Keyed<Option<T>>,
    time_of: impl Fn(&T) -> Timestamp,
    pause: Pause,
    cx: &Context<'_>,
) {
    for (_, last) in last.iter_mut() {
        last.take_if(|last| is_ahead(time_of(last), pause, cx));
    }
}

/// Where live time stands against monotonic time. It changes only when the clock is set: a Pi starts with an old time, and is
/// set right, often by hours, while sensors are being read already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClockSetting {
    /// Live time minus monotonic time, in nanoseconds.
    offset: i128,
}

impl ClockSetting {
    pub(super) fn of(cx: &Context<'_>) -> ClockSetting {
        let now = cx.now();
        // Neither can be so large that this overflows.
        let mono = i128::try_from(now.mono.as_nanos()).unwrap_or(i128::MAX / 2);
        ClockSetting {
            offset: i128::from(now.wall.as_nanos()) - mono,
        }
    }

    /// By how much the clock was set ahead since `before`, if that is what makes the span between two readings long: a tenth of
    /// it, or more. A span shorter than the step does not have the step in it: its readings were stamped by another clock.
    pub(super) fn step_within(self, before: ClockSetting, span: Duration) -> Option<Duration> {
        let step = u64::try_from(self.offset - before.offset).ok()?;
        let step = Duration::from_nanos(step);
        (!step.is_zero() && step <= span && step >= span / 10).then_some(step)
    }

    /// Refuses a span between two readings that the clock was set within: how much time passed is not known.
    pub(super) fn kept_or_fail(
        self,
        before: ClockSetting,
        span: Duration,
        cx: &mut Context<'_>,
    ) -> Option<()> {
        let Some(step) = self.step_within(before, span) else {
            return Some(());
        };
        let step = Span(step);
        cx.fail(format!(
            "the clock was set ahead by {step} since the last reading: how much later this one is, is not known"
        ));
        None
    }
}

/// The payload as a level, or a failure.
#[inline]
pub(super) fn level_or_fail(payload: &Value, cx: &mut Context<'_>) -> Option<bool> {
    let level = payload.as_level();
    if level.is_none() {
        cx.fail(format!(
            "needs true, false, 1 or 0, but the payload is {}",
            excerpt(payload)
        ));
    }
    level
}

/// Notes in the headers why a number is out of bounds: `headers.reason` has the limit's name, the value compared, and the
/// bound that it went past.
pub(super) fn give_reason(message: &mut Message, limit: &str, value: f64, bound: f64) {
    let reason = Value::object([
        ("limit", Value::from(limit)),
        ("value", Value::Number(value)),
        ("bound", Value::Number(bound)),
    ]);
    let headers = message.headers.get_or_insert_default();
    Arc::make_mut(headers).insert("reason".into(), reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::Run;

    #[test]
    fn a_reading_from_the_future_does_not_spoil_those_that_follow() {
        let nodes = [
            "type = 'rate'\nper = '1s'",
            "type = 'integrate'\nper = '1h'",
            "type = 'lag'\nby = '1s'",
            "type = 'slew'\nmost = 1",
            "type = 'smooth'\ntime = '1s'",
            "type = 'pid'\nsetpoint = 4\nkp = 0.1\nki = 0.01",
        ];
        for options in nodes {
            let mut run = Run::new(options);
            let mut failures = Vec::new();
            for ms in [1_000, 2_000, 62_001, 3_000, 4_000] {
                if ms < 60_000 {
                    run.go_on_until(Timestamp::from_millis(ms));
                }
                run.deliver(Timestamp::from_millis(ms), 1.0.into());
                let failed = run
                    .sent
                    .drain(..)
                    .any(|sent| sent.contains("in the future"));
                failures.push(failed);
            }
            assert_eq!(failures, [false, false, true, false, false], "{options}");
        }
    }

    /// A Pi may start with an older time than it stopped with.
    #[test]
    fn a_reading_that_is_ahead_of_the_clock_after_a_restart_does_not_spoil_those_that_follow() {
        let nodes = [
            "type = 'rate'\nper = '1s'",
            "type = 'slew'\nmost = 1",
            "type = 'smooth'\ntime = '1s'",
            "type = 'pid'\nsetpoint = 4\nkp = 0.1\nki = 0.01",
        ];
        for options in nodes {
            let mut run = Run::new(options);
            run.deliver(Timestamp::from_millis(50_000), 1.0.into());
            run.restart(Duration::ZERO);
            for ms in [1_000, 2_000] {
                run.go_on_until(Timestamp::from_millis(ms));
                run.deliver(run.now.wall, 1.0.into());
            }
            let failed = run.sent.iter().any(|sent| sent.contains("failed"));
            assert!(!failed && !run.sent.is_empty(), "{options}: {:?}", run.sent);
        }
    }
}
