//! `integrate`: adds a rate up over time, such as power to energy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::series::{
    COMPUTED_BYTES, ClockSetting, finite_or_fail, is_ahead, later_or_fail, present_or_fail,
};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Adds a rate up over event time, per topic, and sends the total with each reading: W to kWh, litres per minute to litres.
///
/// Between two readings the rate is taken to change evenly (the trapezoidal rule), or to stay what it was (`hold`). The
/// first reading of a topic sends 0. A reading that is not later than the one before it fails.
///
/// A reading that comes later than `max_gap` after the one before it fails too, so that the gap is counted and seen; what
/// was in the gap is not added, and the total goes on from that reading. So it is when the clock was set ahead between two
/// readings, as some time after a Pi has started: the time between them is not known then.
///
/// Totals are kept over a restart. The time from the last reading that is remembered to the first one after it is a gap like any
/// other; if the clock is behind that reading, as on a Pi whose clock is not set yet, it is left out. At most 10,000 topics are
/// remembered; messages of further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Integrate {
    /// The time in the readings' unit: `"1h"` makes Wh of W, `"1m"` litres of litres per minute, `"1s"` metres of m/s.
    per: Span,
    /// What the total is multiplied by: 0.001 makes kWh of Wh. Default: 1.
    #[serde(default = "one")]
    factor: f64,
    /// How the rate is between two readings: `trapezoid` or `hold`. Default: `trapezoid`.
    #[serde(default)]
    method: Method,
    /// The longest time between two readings that is added. Default: any.
    max_gap: Option<Span>,
    /// A node among `from` whose messages set all totals to 0, unless they are `false` or 0: a button, or an `inject` at
    /// midnight. Then 0 is sent on each topic. Default: none.
    reset: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    #[default]
    Trapezoid,
    Hold,
}

fn one() -> f64 {
    1.0
}

impl Definition for Integrate {
    const NAME: &'static str = "integrate";
    const EXAMPLE: &'static str = r#"
[nodes.clamp]                 # a current clamp's amplifier: 1 V for 1000 W
type = "iio"
device = "ads1015"            # so the kernel calls an ADS1115
channel = "voltage0"

[nodes.watts]
type = "range"
from = "clamp"
in = [0, 3]
out = [0, 3000]

[nodes.energy]                # kWh
type = "integrate"
from = "watts"
per = "1h"
factor = 0.001
max_gap = "1m"

[nodes.show]
type = "debug"
from = "energy"
"#;

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let reset = self.reset.iter();
        reset.map(|node| ("reset", node.clone())).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.per.0.is_zero() {
            problems.push(Problem::new("per", "must be longer than 0s"));
        }
        if !self.factor.is_finite() || self.factor == 0.0 {
            problems.push(Problem::new(
                "factor",
                "must be a finite number other than 0",
            ));
        }
        if self.max_gap.is_some_and(|gap| gap.0.is_zero()) {
            problems.push(Problem::new("max_gap", "must be longer than 0s"));
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Integrals {
            per_s: self.per.0.as_secs_f64(),
            factor: self.factor,
            method: self.method,
            max_gap: self.max_gap.map_or(Duration::MAX, |gap| gap.0),
            reset: self.reset.as_deref().map(|node| site.input(node)),
            totals: Keyed::default(),
        }))
    }
}

struct Integrals {
    per_s: f64,
    factor: f64,
    method: Method,
    max_gap: Duration,
    reset: Option<NodeId>,
    totals: Keyed<Total>,
}

#[derive(Default, Serialize, Deserialize)]
struct Total {
    total: f64,
    last: Option<Reading>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Reading {
    time: Timestamp,
    rate: f64,
    clock: ClockSetting,
}

impl Node for Integrals {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.totals))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.totals = state.read()?;
        for (_, total) in self.totals.iter_mut() {
            total.last.take_if(|last| is_ahead(last.time, pause, cx));
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if self.reset == Some(message.source) {
            if message.payload.as_level() != Some(false) {
                self.reset(message, cx);
            }
            return;
        }
        if present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(rate) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Some(state) = self.totals.get_or_fail(&message.topic, cx, Total::default) else {
            return;
        };
        let reading = Reading {
            time: message.time,
            rate,
            clock: ClockSetting::of(cx),
        };
        if let Some(before) = state.last {
            let Some(span) = later_or_fail(message.time, before.time, cx) else {
                return;
            };
            if reading.clock.kept_or_fail(before.clock, span, cx).is_none() {
                state.last = Some(reading);
                return;
            }
            if span > self.max_gap {
                state.last = Some(reading);
                let (gap, longest) = (Span(span), Span(self.max_gap));
                return cx.fail(format!(
                    "there was no reading for {gap}, which is more than `max_gap` ({longest}): the gap is not in the total"
                ));
            }
            let mean = match self.method {
                Method::Trapezoid => before.rate.midpoint(rate),
                Method::Hold => before.rate,
            };
            let total = state.total + mean * (span.as_secs_f64() / self.per_s) * self.factor;
            let Some(total) = finite_or_fail(total, cx) else {
                return;
            };
            state.total = total;
        }
        state.last = Some(reading);
        message.payload = Value::Number(state.total);
        cx.pass(0);
    }
}

impl Integrals {
    fn reset(&mut self, message: &Message, cx: &mut Context<'_>) {
        for (topic, state) in self.totals.iter_mut() {
            state.total = 0.0;
            cx.originate(topic.clone(), Value::Number(0.0), message.time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{Run, node_mistakes};
    use crate::runtime::Now;

    /// Numbers at seconds.
    fn check(options: &str, readings: &[(i64, f64)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'integrate'\n{options}"));
        for (second, number) in readings {
            run.go_on_until(Timestamp::from_millis(second * 1000));
            run.deliver(Timestamp::from_millis(second * 1000), (*number).into());
        }
        assert_eq!(run.sent, expected, "{options} {readings:?}");
    }

    #[test]
    fn a_rate_is_added_up() {
        check("per = '1s'", &[], &[]);
        check("per = '1s'", &[(5, 7.0)], &["0"]);
        let readings = [(0, 2.0), (1, 4.0), (3, 4.0), (4, -2.0)];
        check("per = '1s'", &readings, &["0", "3", "11", "12"]);
        check(
            "per = '1s'\nmethod = 'hold'",
            &readings,
            &["0", "2", "10", "14"],
        );
    }

    #[test]
    fn units_of_time_and_a_factor_make_kwh_of_w() {
        let hour = [(0, 2000.0), (1800, 2000.0), (3600, 2000.0)];
        check("per = '1h'\nfactor = 0.001", &hour, &["0", "1", "2"]);
        check("per = '1m'", &[(0, 30.0), (30, 30.0)], &["0", "15"]);
    }

    #[test]
    fn a_gap_fails_and_is_left_out() {
        check(
            "per = '1s'\nmax_gap = '10s'",
            &[(0, 1.0), (10, 1.0), (21, 1.0), (22, 1.0)],
            &[
                "0",
                "10",
                "failed: there was no reading for 11s, which is more than `max_gap` (10s): the gap is not in the total",
                "11",
            ],
        );
    }

    /// Readings at seconds of monotonic time, before each of which the clock is set ahead by so many seconds.
    fn check_clock(readings: &[(u64, u64)], expected: &[&str]) {
        let mut run = Run::new("type = 'integrate'\nper = '1s'");
        for (second, step) in readings {
            let until = Duration::from_secs(*second).saturating_sub(run.now.mono);
            run.go_on_until(run.now.wall.saturating_add(until));
            let step = Duration::from_secs(*step);
            run.now.wall = run.now.wall.saturating_add(step);
            run.deliver(run.now.wall, 2.0.into());
        }
        assert_eq!(run.sent, expected, "{readings:?}");
    }

    #[test]
    fn hours_by_which_the_clock_was_set_are_not_added() {
        const EIGHT_HOURS: u64 = 8 * 3600;
        check_clock(
            &[(0, 0), (1, 0), (2, EIGHT_HOURS), (3, 0)],
            &[
                "0",
                "2",
                "failed: the clock was set ahead by 8h since the last reading: how much later this one is, is not known",
                "4",
            ],
        );
        // A tenth of the span is too much, less is not worth losing the span for.
        check_clock(
            &[(0, 0), (9, 1), (10, 0)],
            &[
                "0",
                "failed: the clock was set ahead by 1s since the last reading: how much later this one is, is not known",
                "2",
            ],
        );
        check_clock(&[(0, 0), (10, 1), (11, 0)], &["0", "22", "24"]);
    }

    /// Those of a device with a clock of its own.
    #[test]
    fn readings_that_another_clock_stamped_are_added_when_ours_is_set() {
        let mut run = Run::new("type = 'integrate'\nper = '1s'");
        run.go_on_until(Timestamp::from_millis(10_000));
        run.deliver(Timestamp::from_millis(8_000), 2.0.into());
        run.now.wall = Timestamp::from_millis(5_000_000);
        run.deliver(Timestamp::from_millis(9_000), 2.0.into());
        assert_eq!(run.sent, ["0", "2"]);
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        check(
            "per = '1s'",
            &[(5, 1.0), (5, 9.0), (4, 9.0), (6, f64::NAN), (7, 1.0)],
            &[
                "0",
                "failed: the reading of 1970-01-01T00:00:05.000Z is not later than the one before it, of 1970-01-01T00:00:05.000Z",
                "failed: the reading of 1970-01-01T00:00:04.000Z is not later than the one before it, of 1970-01-01T00:00:05.000Z",
                "failed: needs a finite number, but the payload is a number: NaN",
                "2",
            ],
        );
        check(
            "per = '1s'",
            &[(0, 1e308), (2, 1.5e308), (3, -1e308)],
            &["0", "failed: the result is not a finite number: inf", "0"],
        );
        let mut run = Run::new("type = 'integrate'\nper = '1s'");
        for nanos in [i64::MIN, i64::MAX] {
            run.go_on_until(Timestamp::from_nanos(nanos));
            run.deliver(Timestamp::from_nanos(nanos), 1.0.into());
        }
        assert_eq!(run.sent, ["0", "9223372036.854776"]);
    }

    #[test]
    fn topics_are_apart_and_reset_together() {
        let mut run = Run::with_sources(
            &["source", "midnight"],
            "type = 'integrate'\nper = '1s'\nreset = 'midnight'",
        );
        let second = |second: i64| Timestamp::from_millis(1000 * second);
        for (topic, at, rate) in [("a", 0, 1.0), ("b", 0, 10.0), ("a", 5, 1.0), ("b", 6, 10.0)] {
            run.go_on_until(second(at));
            run.deliver_on(topic, second(at), rate.into());
        }
        run.go_on_until(second(7));
        run.deliver_message("midnight", "m", second(7), false.into());
        assert_eq!(run.sent, ["0", "0", "5", "60"]);
        run.go_on_until(second(7));
        run.deliver_message("midnight", "m", second(7), Value::from("now"));
        // What is between the last reading and the reset belongs to what comes after it.
        run.go_on_until(second(8));
        run.deliver_on("b", second(8), 10.0.into());
        assert_eq!(run.sent[4..], ["0", "0", "20"]);
        assert_eq!(run.messages[5].time, second(7));
        assert_eq!(&*run.messages[5].topic, "b");
    }

    #[test]
    fn options_have_limits() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'integrate'\n{options}"));
            assert_eq!(found, [expected], "{options}");
        };
        check("per = '0s'", "`per`: must be longer than 0s");
        for factor in ["0", "inf", "nan"] {
            check(
                &format!("per = '1s'\nfactor = {factor}"),
                "`factor`: must be a finite number other than 0",
            );
        }
        check(
            "per = '1s'\nmax_gap = '0s'",
            "`max_gap`: must be longer than 0s",
        );
        check(
            "per = '1s'\nreset = 'x'",
            "`reset`: this node does not read from `x` (add it to `from`, or name one that is there)",
        );
    }

    /// What comes after readings of 1 at 0 and 10 s, a restart at which the clock says `start`, and two more readings a second apart.
    fn check_restart(options: &str, start: i64, expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'integrate'\nper = '1s'\n{options}"));
        let at = |second: i64| Timestamp::from_millis(second * 1000);
        for second in [0, 10] {
            run.go_on_until(at(second));
            run.deliver(at(second), 1.0.into());
        }
        let off = at(start).saturating_since(run.now.wall);
        run.restart_at(Now {
            mono: run.now.mono + off,
            wall: at(start),
        });
        for second in [start, start + 1] {
            run.go_on_until(at(second));
            run.deliver(at(second), 1.0.into());
        }
        assert_eq!(run.sent[2..], *expected, "{options} {start}");
    }

    #[test]
    fn the_total_goes_on_over_a_restart_and_so_does_the_gap() {
        check_restart("", 100, &["100", "101"]);
        let gap = "failed: there was no reading for 1m 30s, which is more than `max_gap` (1m): the gap is not in the total";
        check_restart("max_gap = '1m'", 100, &[gap, "11"]);
    }

    #[test]
    fn a_clock_that_is_behind_after_a_restart_spoils_no_readings() {
        check_restart("", 3, &["10", "11"]);
    }
}
