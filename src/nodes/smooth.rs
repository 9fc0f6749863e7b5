//! `smooth`: an exponential moving average.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::series::{COMPUTED_BYTES, finite_or_fail, forget_ahead, later_or_fail, present_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Smooths numbers with an exponential moving average, per topic: each result is the one before plus a share of what the
/// number differs from it.
///
/// The share is `factor`; or, for readings at uneven times, `1 - exp(-dt / time)` with the event time `dt` since the reading
/// before: a low-pass filter of first order whose input holds each reading back to the one before it (Eckner, "Algorithms
/// for Unevenly Spaced Time Series", the EMA with next-point interpolation). With `time`, a reading that is not later than
/// the one before it fails. The first number of a topic is sent as it is. At most 10,000 topics are remembered; messages of
/// further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Smooth {
    /// The share of each new number, above 0 and up to 1; 1 does not smooth. Either this or `time`.
    factor: Option<f64>,
    /// The time constant: how long the result takes to follow a step by 63 %. Either this or `factor`.
    time: Option<Span>,
}

impl Definition for Smooth {
    const NAME: &'static str = "smooth";
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"

[nodes.calm]
type = "smooth"
from = "humidity"
time = "30s"

[nodes.show]
type = "debug"
from = "calm"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        match option {
            "alpha" | "weight" => Some("it is called `factor`"),
            "tau" | "time_constant" => Some("it is called `time`"),
            _ => None,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let problem = match (self.factor, self.time) {
            (None, None) => Problem::new("factor", "is missing; give it, or `time` in its place"),
            (Some(_), Some(_)) => Problem::new("time", "cannot be given beside `factor`"),
            (Some(factor), None) if !(factor > 0.0 && factor <= 1.0) => {
                Problem::new("factor", "must be above 0 and at most 1")
            }
            (None, Some(Span(Duration::ZERO))) => Problem::new("time", "must be longer than 0s"),
            _ => return Vec::new(),
        };
        vec![problem]
    }

    fn warnings(&self) -> Vec<Problem> {
        let is_idle = self.factor == Some(1.0);
        is_idle
            .then(|| Problem::new("factor", "with 1 nothing is smoothed"))
            .into_iter()
            .collect()
    }

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let share = match self.time {
            Some(time) => Share::Time(time.0.as_secs_f64()),
            None => Share::Factor(self.factor.unwrap_or(1.0)),
        };
        Ok(Box::new(Average {
            share,
            last: Keyed::default(),
        }))
    }
}

/// How much a new number counts.
#[derive(Clone, Copy)]
enum Share {
    Factor(f64),
    /// The time constant in seconds.
    Time(f64),
}

struct Average {
    share: Share,
    /// The last result of each topic, and the time of the reading.
    last: Keyed<Option<(Timestamp, f64)>>,
}

impl Node for Average {
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
        if matches!(self.share, Share::Time(_)) {
            forget_ahead(&mut self.last, |(time, _)| *time, pause, cx);
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        if matches!(self.share, Share::Time(_)) && present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(last) = self.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        let result = match *last {
            None => Some(number),
            Some((before, average)) => self
                .share
                .between(before, message.time, cx)
                .and_then(|share| finite_or_fail(average + share * (number - average), cx)),
        };
        let Some(result) = result else { return };
        *last = Some((message.time, result));
        message.payload = Value::Number(result);
        cx.pass(0);
    }
}

impl Share {
    fn between(self, before: Timestamp, time: Timestamp, cx: &mut Context<'_>) -> Option<f64> {
        match self {
            Share::Factor(factor) => Some(factor),
            Share::Time(constant_s) => {
                let span_s = later_or_fail(time, before, cx)?.as_secs_f64();
                // Exact also where the time constant is so long that exp is nearly 1.
                Some(-(-span_s / constant_s).exp_m1())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{Run, node_mistakes, run_node, run_node_json};

    #[test]
    fn a_factor_takes_a_share_of_each_number() {
        let check = |factor: f64, payloads: &str, expected: &[&str]| {
            let node = format!("type = 'smooth'\nfactor = {factor}");
            assert_eq!(run_node_json(&node, payloads), expected, "{factor}");
        };
        check(0.5, "[]", &[]);
        check(0.5, "[8, 0, 0, 8]", &["8", "4", "2", "5"]);
        check(0.25, "[8, 0, 0]", &["8", "6", "4.5"]);
        check(1.0, "[8, 1, -3]", &["8", "1", "-3"]);
        check(
            0.5,
            "[8, true, 4]",
            &[
                "8",
                "failed: needs a finite number, but the payload is a boolean: true",
                "6",
            ],
        );
    }

    #[test]
    fn a_result_too_large_fails_and_changes_nothing() {
        let sent = run_node(
            "type = 'smooth'\nfactor = 0.5",
            [-1.5e308, 1.5e308, f64::INFINITY, -1.5e308].map(Into::into),
        );
        assert_eq!(
            sent,
            [
                "-1.5e+308",
                "failed: the result is not a finite number: inf",
                "failed: needs a finite number, but the payload is a number: inf",
                "-1.5e+308",
            ]
        );
    }

    /// Readings at milliseconds; results to six digits.
    fn check_time(time: &str, readings: &[(i64, f64)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'smooth'\ntime = '{time}'"));
        for (ms, number) in readings {
            run.go_on_until(Timestamp::from_millis(*ms));
            run.deliver(Timestamp::from_millis(*ms), (*number).into());
        }
        let rounded: Vec<String> = run
            .sent
            .iter()
            .map(|text| match text.parse::<f64>() {
                Ok(number) => format!("{number:.6}"),
                Err(_) => text.clone(),
            })
            .collect();
        assert_eq!(rounded, expected, "{time}");
    }

    #[test]
    fn a_time_constant_counts_the_time_and_not_the_readings() {
        // After one time constant, e^-1 of the step is left; however many readings there were.
        check_time("10s", &[(0, 1.0), (10_000, 0.0)], &["1.000000", "0.367879"]);
        check_time(
            "10s",
            &[(0, 1.0), (1_000, 0.0), (10_000, 0.0)],
            &["1.000000", "0.904837", "0.367879"],
        );
        check_time("1ms", &[(0, 1.0), (60_000, 5.0)], &["1.000000", "5.000000"]);
        check_time(
            "10000d",
            &[(0, 1.0), (1, 2.0), (86_400_000, 2.0)],
            &["1.000000", "1.000000", "1.000100"],
        );
    }

    #[test]
    fn time_that_does_not_go_on_fails() {
        check_time(
            "10s",
            &[(5_000, 1.0), (5_000, 3.0), (4_000, 3.0), (15_000, 0.0)],
            &[
                "1.000000",
                "failed: the reading of 1970-01-01T00:00:05.000Z is not later than the one before it, of 1970-01-01T00:00:05.000Z",
                "failed: the reading of 1970-01-01T00:00:04.000Z is not later than the one before it, of 1970-01-01T00:00:05.000Z",
                "0.367879",
            ],
        );
        let mut run = Run::new("type = 'smooth'\ntime = '1s'");
        for nanos in [i64::MIN, i64::MAX] {
            run.go_on_until(Timestamp::from_nanos(nanos));
            run.deliver(Timestamp::from_nanos(nanos), 2.0.into());
        }
        assert_eq!(run.sent, ["2", "2"]);
    }

    #[test]
    fn topics_are_apart() {
        let mut run = Run::new("type = 'smooth'\nfactor = 0.5");
        for (topic, number) in [("a", 0.0), ("b", 100.0), ("a", 2.0), ("b", 50.0)] {
            run.go_on_until(Timestamp::default());
            run.deliver_on(topic, Timestamp::default(), number.into());
        }
        assert_eq!(run.sent, ["0", "100", "1", "75"]);
    }

    #[test]
    fn it_needs_one_way_to_smooth() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'smooth'\n{options}"));
            assert_eq!(found, [expected], "{options}");
        };
        check("", "`factor`: is missing; give it, or `time` in its place");
        check(
            "factor = 0.5\ntime = '1s'",
            "`time`: cannot be given beside `factor`",
        );
        for factor in ["0", "-0.1", "1.01", "nan", "inf"] {
            check(
                &format!("factor = {factor}"),
                "`factor`: must be above 0 and at most 1",
            );
        }
        check("time = '0s'", "`time`: must be longer than 0s");
        check("factor = 1", "`factor`: with 1 nothing is smoothed");
    }
}
