//! `ewma`: readings judged by an exponentially weighted moving average.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::zscore::{Verdict, problem_with_threshold, reading_or_fail, three};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Judges readings by their exponentially weighted moving average: a control chart. Per topic.
///
/// A reading goes out of `ok` or `outlier`; the payload stays, and `headers.score`, `headers.mean` and `headers.stddev` tell why.
/// What is judged depends on whether it is known what the readings should be:
///
/// - Without `target`, each reading is judged by its distance from the mean of those before it, in their standard deviations:
///   sudden changes stand out, slow ones become normal. With every reading, outliers too, mean and variance become
///   `mean += factor * distance` and `variance = (1 - factor) * (variance + factor * distance^2)` (T. Finch, Incremental
///   calculation of weighted mean and variance, 2009). The first `least` readings go out of `ok` unjudged. The score is
///   `null` if the readings before were all the same and this one is not.
/// - With `target` and `stddev`, the mean itself is judged, which begins at the target and includes the reading: a shift that
///   lasts stands out, however small, a single spike hardly. The limits are
///   `target ± threshold * stddev * sqrt(factor / (2 - factor))` (S. W. Roberts, Control Chart Tests Based on Geometric Moving
///   Averages, 1959; NIST/SEMATECH e-Handbook of Statistical Methods, 6.3.2.4). `headers.mean` is the mean that was judged,
///   `headers.stddev` its standard deviation, with the root in it.
///
/// A payload that is no number, or is beyond 1e150 in either direction, fails. What was learnt is kept over a restart. Memory for each topic: some
/// 30 bytes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Ewma {
    /// The weight of the newest reading, from 0.0001 to less than 1; the readings of about the last 2 / `factor` matter. Default:
    /// 0.2.
    #[serde(default = "a_fifth")]
    factor: f64,
    /// From how many standard deviations on a reading is an outlier; greater than 0. Default: 3.
    #[serde(default = "three")]
    threshold: f64,
    /// How many readings there must be before one is judged, from 2; not with `target`. Default: 2 / `factor`, rounded up.
    least: Option<u64>,
    /// What the readings should be on average. Default: what they were.
    target: Option<f64>,
    /// The standard deviation of single readings when all is well, greater than 0; together with `target`.
    stddev: Option<f64>,
}

fn a_fifth() -> f64 {
    0.2
}

impl Definition for Ewma {
    const NAME: &'static str = "ewma";
    const PORTS: &'static [&'static str] = &["ok", "outlier"];
    const EXAMPLE: &'static str = r#"
[nodes.pressure]
type = "iio"
device = "bme280"
channel = "pressure"

[nodes.steady]
type = "ewma"
from = "pressure"
factor = 0.1
threshold = 4

[nodes.show]
type = "debug"
from = "steady"

[nodes.jumps]
type = "uplink"
from = "steady.outlier"
topic = "sites/{device}/hall/pressure/jumps"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(problem_with_threshold(self.threshold));
        if !(0.0001..1.0).contains(&self.factor) {
            problems.push(Problem::new(
                "factor",
                "must be at least 0.0001 and less than 1",
            ));
        }
        if self.least.is_some_and(|least| least < 2) {
            problems.push(Problem::new("least", "must be at least 2"));
        }
        if self.target.is_some_and(|target| !is_usual(target)) {
            problems.push(Problem::new("target", "must be a finite number"));
        }
        match (self.target, self.stddev) {
            (Some(_), None) => problems.push(Problem::new(
                "stddev",
                "is missing: beside `target` it says how far readings scatter when all is well",
            )),
            (None, Some(_)) => problems.push(Problem::new(
                "target",
                "is missing: beside `stddev` it says what the readings should be",
            )),
            (_, Some(stddev)) if !is_usual(stddev) || stddev <= 0.0 => problems.push(Problem::new(
                "stddev",
                "must be a finite number greater than 0",
            )),
            _ => {}
        }
        if self.target.is_some() && self.least.is_some() {
            problems.push(Problem::new(
                "least",
                "with `target` every reading is judged: leave it out",
            ));
        }
        problems
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let (factor, threshold) = (self.factor, self.threshold);
        Ok(match (self.target, self.stddev) {
            (Some(target), Some(stddev)) => Box::new(FixedTarget {
                factor,
                threshold,
                target,
                // The standard deviation of the mean, once many readings are in it.
                stddev: stddev * (factor / (2.0 - factor)).sqrt(),
                means: Keyed::default(),
            }),
            _ => Box::new(MovingTarget {
                factor,
                threshold,
                least: self.least.unwrap_or((2.0 / factor).ceil() as u64),
                topics: Keyed::default(),
            }),
        })
    }
}

/// Whether a number can be squared; see [`reading_or_fail`].
fn is_usual(number: f64) -> bool {
    number.abs() <= 1e150
}

const OK: usize = 0;

struct MovingTarget {
    factor: f64,
    threshold: f64,
    least: u64,
    topics: Keyed<Moments>,
}

#[derive(Default, Serialize, Deserialize)]
struct Moments {
    count: u64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn add(&mut self, number: f64, factor: f64) {
        if self.count == 0 {
            self.mean = number;
        }
        self.count = self.count.saturating_add(1);
        let distance = number - self.mean;
        self.mean += factor * distance;
        self.variance = (1.0 - factor) * (self.variance + factor * distance * distance);
    }
}

impl Node for MovingTarget {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.topics))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.topics = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = reading_or_fail(message, cx) else {
            return;
        };
        let Some(moments) = self
            .topics
            .get_or_fail(&message.topic, cx, Moments::default)
        else {
            return;
        };
        if moments.count < self.least {
            cx.pass(OK);
        } else {
            let verdict = Verdict::new(number, moments.mean, moments.variance.sqrt());
            verdict.send(self.threshold, message, cx);
        }
        moments.add(number, self.factor);
    }
}

struct FixedTarget {
    factor: f64,
    threshold: f64,
    target: f64,
    /// Of the mean, not of single readings.
    stddev: f64,
    means: Keyed<f64>,
}

impl Node for FixedTarget {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.means))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.means = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = reading_or_fail(message, cx) else {
            return;
        };
        let target = self.target;
        let Some(mean) = self.means.get_or_fail(&message.topic, cx, || target) else {
            return;
        };
        *mean += self.factor * (number - *mean);
        let verdict = Verdict {
            mean: *mean,
            ..Verdict::new(*mean, target, self.stddev)
        };
        verdict.send(self.threshold, message, cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, check_problems};

    fn run(options: &str, readings: &[f64]) -> Run {
        let mut run = Run::with_ports(&["ok", "outlier"], &format!("type = 'ewma'\n{options}"));
        for reading in readings {
            run.deliver(Timestamp::default(), (*reading).into());
        }
        run
    }

    fn headers(run: &Run, place: usize) -> Option<String> {
        let headers = run.messages[place].headers.clone();
        headers.map(|headers| Value::Object(headers).to_json())
    }

    /// Finch's recurrence must agree with the definitions: weights that fall by a constant factor into the past.
    #[test]
    fn mean_and_variance_are_those_of_the_weighted_readings() {
        let readings = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0];
        let factor = 0.3;
        let mut moments = Moments::default();
        for reading in readings {
            moments.add(reading, factor);
        }
        let weight = |age: i32| {
            let is_first = age == 6;
            let newest = if is_first { 1.0 } else { factor };
            newest * (1.0 - factor).powi(age)
        };
        let weighted: Vec<(f64, f64)> = (0..7).rev().map(weight).zip(readings).collect();
        let mean: f64 = weighted
            .iter()
            .map(|(weight, number)| weight * number)
            .sum();
        let variance: f64 = weighted
            .iter()
            .map(|(weight, number)| weight * (number - mean).powi(2))
            .sum();
        assert!((moments.mean - mean).abs() < 1e-12);
        assert!((moments.variance - variance).abs() < 1e-12);
    }

    #[test]
    fn without_a_target_a_jump_is_an_outlier_until_it_is_normal() {
        // Mean 0.5, variance 0.25 after the first two.
        let judged = run("factor = 0.5\nleast = 2", &[0.0, 1.0, 2.0, 2.001]);
        assert_eq!(judged.sent, ["ok: 0", "ok: 1", "ok: 2", "ok: 2.001"]);
        assert_eq!(headers(&judged, 1), None);
        assert_eq!(
            headers(&judged, 2).as_deref(),
            Some(r#"{"score":3,"mean":0.5,"stddev":0.5}"#)
        );
        let judged = run("factor = 0.5\nleast = 2", &[0.0, 1.0, 2.001, -1.2, 3.0]);
        assert_eq!(judged.sent[2..], ["outlier: 2.001", "ok: -1.2", "ok: 3"]);

        let mut steps = [1.0, 1.1].repeat(20);
        steps.extend([5.0; 12]);
        let sent = run("", &steps).sent;
        assert_eq!(sent[40], "outlier: 5");
        assert_eq!(sent[51], "ok: 5", "it became normal");
    }

    #[test]
    fn the_first_readings_are_not_judged() {
        let mut readings = vec![1.0; 9];
        readings.extend([50.0, 9_000.0]);
        let sent = run("", &readings).sent;
        assert_eq!(sent[9..], ["ok: 50", "outlier: 9000"]);
    }

    #[test]
    fn after_constant_readings_any_other_is_infinitely_far() {
        let judged = run("factor = 0.5\nleast = 2", &[7.0, 7.0, 7.0, 7.5]);
        assert_eq!(judged.sent[2..], ["ok: 7", "outlier: 7.5"]);
        assert_eq!(
            headers(&judged, 3).as_deref(),
            Some(r#"{"score":null,"mean":7,"stddev":0}"#)
        );
    }

    /// The worked example of the NIST/SEMATECH e-Handbook, 6.3.2.4: factor 0.3, target 50, standard deviation 2.0539.
    #[test]
    fn with_a_target_it_is_the_chart_of_the_handbook() {
        let readings = [
            52.0, 47.0, 53.0, 49.3, 50.1, 47.0, 51.0, 50.1, 51.2, 50.5, 49.6, 47.6, 49.9, 51.3,
            47.8, 51.2, 52.6, 52.4, 53.6, 52.1,
        ];
        let expected = [
            50.60, 49.52, 50.56, 50.18, 50.16, 49.21, 49.75, 49.85, 50.26, 50.33, 50.11, 49.36,
            49.52, 50.05, 49.38, 49.92, 50.73, 51.23, 51.94, 51.99,
        ];
        let judged = run("factor = 0.3\ntarget = 50\nstddev = 2.0539", &readings);
        assert!(judged.sent.iter().all(|sent| sent.starts_with("ok")));
        for (message, expected) in judged.messages.iter().zip(expected) {
            let headers = message.headers.as_ref().expect("it was judged");
            let mean = headers["mean"].as_number().expect("a number");
            assert!((mean - expected).abs() < 0.0051, "{mean}, not {expected}");
        }
        // The handbook's upper limit is 52.5884.
        let at_limit = |mean: f64| {
            let reading = 50.0 + (mean - 50.0) / 0.3;
            run("factor = 0.3\ntarget = 50\nstddev = 2.0539", &[reading]).sent[0]
                .split(':')
                .next()
                .map(str::to_owned)
        };
        assert_eq!(at_limit(52.588).as_deref(), Some("ok"));
        assert_eq!(at_limit(52.589).as_deref(), Some("outlier"));
        assert_eq!(at_limit(47.411).as_deref(), Some("outlier"));
    }

    #[test]
    fn a_small_shift_that_lasts_is_seen_and_one_spike_is_not() {
        let options = "factor = 0.1\ntarget = 20\nstddev = 1";
        let sent = run(options, &[26.0, 20.0, 20.0]).sent;
        assert_eq!(sent, ["ok: 26", "ok: 20", "ok: 20"]);
        let sent = run(options, &[21.0; 30]).sent;
        assert_eq!((&*sent[0], &*sent[29]), ("ok: 21", "outlier: 21"));
    }

    #[test]
    fn what_cannot_be_computed_with_fails_and_changes_nothing() {
        for options in ["factor = 0.5\nleast = 2", "target = 0\nstddev = 1"] {
            let good = run(options, &[0.0, 1.0, 1.0]);
            let mixed = run(options, &[0.0, 1.0, f64::NAN, f64::INFINITY, 1e151, 1.0]);
            let failed = mixed.sent.iter().filter(|sent| sent.starts_with("failed"));
            assert_eq!(failed.count(), 3);
            assert_eq!(headers(&mixed, 2), headers(&good, 2));
        }
        let swings = [1e150, -1e150].repeat(50);
        let judged = run("", &swings);
        assert!(!judged.messages[99].payload.to_json().is_empty());
        assert!(!headers(&judged, 99).expect("judged").contains("null"));
    }

    #[test]
    fn topics_are_judged_one_by_one() {
        for options in ["least = 2\nfactor = 0.5", "target = 20\nstddev = 10"] {
            let mut run = Run::with_ports(&["ok", "outlier"], &format!("type = 'ewma'\n{options}"));
            let readings = [
                ("a", 10.0),
                ("b", 30.0),
                ("a", 12.0),
                ("b", 32.0),
                ("b", 31.0),
            ];
            for (topic, reading) in readings {
                run.deliver_on(topic, Timestamp::default(), reading.into());
            }
            assert!(
                run.sent.iter().all(|sent| sent.starts_with("ok")),
                "{:?}",
                run.sent
            );
        }
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'ewma'\n{options}"), expected)
        };
        for factor in ["0", "1", "0.00009", "-1", "nan"] {
            check(
                &format!("factor = {factor}"),
                &["`factor`: must be at least 0.0001 and less than 1"],
            );
        }
        check(
            "threshold = 0",
            &["`threshold`: must be a finite number greater than 0"],
        );
        check("least = 1", &["`least`: must be at least 2"]);
        check("target = 1", &["`stddev`: is missing: beside `target`"]);
        check("stddev = 1", &["`target`: is missing: beside `stddev`"]);
        check("target = 1\nstddev = 'x'", &["`stddev`: string"]);
        check(
            "target = 1\nstddev = 0",
            &["`stddev`: must be a finite number greater than 0"],
        );
        check(
            "target = nan\nstddev = inf",
            &[
                "`target`: must be a finite number",
                "`stddev`: must be a finite number greater than 0",
            ],
        );
        check(
            "target = 1\nstddev = 1\nleast = 9",
            &["`least`: with `target` every reading is judged"],
        );
    }
}
