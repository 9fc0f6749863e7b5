//! `slew`: readings that changed faster than can be.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::series::{forget_ahead, give_reason, later_or_fail, present_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::options::Span;
use crate::message::{Message, Timestamp};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Parts readings that changed faster than a rate-of-change limit, out of port `fast`, from the others, out of `ok`; per
/// topic and in event time.
///
/// A reading is compared with the last one that was `ok`. So a single outlier is `fast` and the reading after it is not; and
/// after a step that is real, readings are `ok` again once so much time has passed that the limit allows for the step. The
/// first reading of a topic is `ok`, and so is one that changed exactly as fast as allowed.
///
/// Out of `fast`, `headers.reason` says why: `limit` (`"slew"`), `value` (the change per `per`) and `bound` (`most`). A
/// reading that is not later than the last `ok` one fails. At most 10,000 topics are remembered; messages of further topics
/// fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Slew {
    /// The largest change, up or down, in the time `per`; above 0.
    most: f64,
    /// The time in which `most` is allowed. Default: `1s`.
    #[serde(default = "one_second")]
    per: Span,
}

fn one_second() -> Span {
    Span(Duration::from_secs(1))
}

impl Definition for Slew {
    const NAME: &'static str = "slew";
    const PORTS: &'static [&'static str] = &["ok", "fast"];
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.steady]                # air in a cold store does not warm by more than 6 degrees a minute
type = "slew"
from = "probe"
most = 6
per = "1m"

[nodes.show]
type = "debug"
from = "steady"

[nodes.doubt]
type = "debug"
from = "steady.fast"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        matches!(option, "limit" | "max" | "rate" | "max_rate")
            .then_some("the largest change is called `most`, the time for it `per`")
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.most.is_finite() || self.most <= 0.0 {
            problems.push(Problem::new("most", "must be a finite number above 0"));
        }
        if self.per.0.is_zero() {
            problems.push(Problem::new("per", "must be longer than 0s"));
        }
        problems
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(RateLimit {
            most: self.most,
            per_s: self.per.0.as_secs_f64(),
            last: Keyed::default(),
        }))
    }
}

const OK: usize = 0;
const FAST: usize = 1;

struct RateLimit {
    most: f64,
    per_s: f64,
    /// The last reading of each topic that was not too fast, and its time.
    last: Keyed<Option<(Timestamp, f64)>>,
}

impl Node for RateLimit {
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
        forget_ahead(&mut self.last, |(time, _)| *time, pause, cx);
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Some(last) = self.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        if let Some((time, before)) = *last {
            let Some(span) = later_or_fail(message.time, time, cx) else {
                return;
            };
            let times_per = span.as_secs_f64() / self.per_s;
            let change = number - before;
            if change.abs() > self.most * times_per {
                // Two readings at the ends of the range may differ by more than a double holds.
                let rate = (change / times_per).clamp(f64::MIN, f64::MAX);
                give_reason(message, "slew", rate, self.most);
                return cx.pass(FAST);
            }
        }
        *last = Some((message.time, number));
        cx.pass(OK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{Run, node_mistakes};

    /// Numbers at milliseconds.
    fn run(options: &str, readings: &[(i64, f64)]) -> Run {
        let mut run = Run::with_ports(&["ok", "fast"], &format!("type = 'slew'\n{options}"));
        for (ms, number) in readings {
            run.go_on_until(Timestamp::from_millis(*ms));
            run.deliver(Timestamp::from_millis(*ms), (*number).into());
        }
        run
    }

    fn check(options: &str, readings: &[(i64, f64)], expected: &[&str]) {
        let sent = run(options, readings).sent;
        assert_eq!(sent, expected, "{options} {readings:?}");
    }

    #[test]
    fn the_limit_is_passed_not_reached() {
        check("most = 2", &[], &[]);
        check("most = 2", &[(0, 99.0)], &["ok: 99"]);
        check("most = 2", &[(0, 1.0), (1000, 3.0)], &["ok: 1", "ok: 3"]);
        check(
            "most = 2",
            &[(0, 1.0), (1000, 3.01)],
            &["ok: 1", "fast: 3.01"],
        );
        check("most = 2", &[(0, 1.0), (999, 3.0)], &["ok: 1", "fast: 3"]);
        check(
            "most = 2",
            &[(0, 1.0), (1000, -1.01)],
            &["ok: 1", "fast: -1.01"],
        );
        let minute = "most = 60\nper = '1m'";
        check(minute, &[(0, 0.0), (1000, 1.0)], &["ok: 0", "ok: 1"]);
        check(minute, &[(0, 0.0), (1000, 1.1)], &["ok: 0", "fast: 1.1"]);
    }

    #[test]
    fn an_outlier_is_fast_alone_and_a_step_until_it_is_allowed() {
        check(
            "most = 1",
            &[(0, 5.0), (1000, 50.0), (2000, 5.0)],
            &["ok: 5", "fast: 50", "ok: 5"],
        );
        check(
            "most = 1",
            &[(0, 5.0), (1000, 8.0), (2000, 8.0), (3000, 8.0), (4000, 8.0)],
            &["ok: 5", "fast: 8", "fast: 8", "ok: 8", "ok: 8"],
        );
    }

    #[test]
    fn the_reason_is_in_the_headers() {
        let run = run("most = 60\nper = '1m'", &[(0, 5.0), (500, 4.0)]);
        assert_eq!(run.messages[0].headers, None);
        let headers = run.messages[1].headers.as_ref().expect("a reason");
        assert_eq!(
            headers["reason"].to_json(),
            r#"{"limit":"slew","value":-120,"bound":60}"#
        );
    }

    #[test]
    fn what_cannot_be_compared_fails() {
        check(
            "most = 1",
            &[
                (1000, 5.0),
                (1000, 5.0),
                (500, 5.0),
                (2000, f64::NAN),
                (2000, 5.5),
            ],
            &[
                "ok: 5",
                "failed: the reading of 1970-01-01T00:00:01.000Z is not later than the one before it, of 1970-01-01T00:00:01.000Z",
                "failed: the reading of 1970-01-01T00:00:00.500Z is not later than the one before it, of 1970-01-01T00:00:01.000Z",
                "failed: needs a finite number, but the payload is a number: NaN",
                "ok: 5.5",
            ],
        );
    }

    #[test]
    fn the_largest_numbers_have_a_finite_rate() {
        let mut run = Run::with_ports(&["ok", "fast"], "type = 'slew'\nmost = 1e300");
        for (nanos, number) in [(0, -1.5e308), (1, 1.5e308), (i64::MAX, 1e308)] {
            run.go_on_until(Timestamp::from_nanos(nanos));
            run.deliver(Timestamp::from_nanos(nanos), number.into());
        }
        assert_eq!(run.sent, ["ok: -1.5e+308", "fast: 1.5e+308", "ok: 1e+308"]);
        let headers = run.messages[1].headers.as_ref().expect("a reason");
        assert_eq!(
            headers["reason"].get("value").and_then(|it| it.as_number()),
            Some(f64::MAX)
        );
    }

    #[test]
    fn topics_are_apart() {
        let mut run = Run::with_ports(&["ok", "fast"], "type = 'slew'\nmost = 1");
        for (topic, ms, number) in [("a", 0, 1.0), ("b", 1, 100.0), ("a", 1000, 2.0)] {
            run.go_on_until(Timestamp::from_millis(ms));
            run.deliver_on(topic, Timestamp::from_millis(ms), number.into());
        }
        assert_eq!(run.sent, ["ok: 1", "ok: 100", "ok: 2"]);
    }

    #[test]
    fn options_have_limits() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'slew'\n{options}"));
            assert_eq!(found, [expected], "{options}");
        };
        for most in ["0", "-1", "inf", "nan"] {
            check(
                &format!("most = {most}"),
                "`most`: must be a finite number above 0",
            );
        }
        check("most = 1\nper = '0s'", "`per`: must be longer than 0s");
    }
}
