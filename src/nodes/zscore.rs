//! `zscore`: readings that lie far from the others.

use std::collections::VecDeque;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Tells readings that lie far from those before them, in standard deviations: spikes. Per topic.
///
/// The score of a reading is its distance from the mean of the last `count` readings before it, divided by their sample
/// standard deviation (n-1). A reading goes out of `outlier` if its score is greater than `threshold` in either direction, else
/// out of `ok`; the payload stays, and `headers.score`, `headers.mean` and `headers.stddev` tell why. The score is `null` if
/// the others are all the same and this one is not. The first `least` readings go out of `ok` without these headers.
///
/// An outlier does not count for what comes after it, unless `learn` says so. But `count` outliers in a row are a new level:
/// the node then begins anew with the last of them. A payload that is no number, or is beyond 1e150 in either direction, fails.
/// Memory for each topic: 8 bytes for each of `count`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Zscore {
    /// How many readings before this one count, from 2 to 1,000. Default: 60.
    #[serde(default = "sixty")]
    count: usize,
    /// From how many standard deviations on a reading is an outlier; greater than 0. Default: 3.
    #[serde(default = "three")]
    threshold: f64,
    /// How many readings there must be before one is judged, from 2 to `count`. Default: 10, or `count` if that is less.
    least: Option<usize>,
    /// What the standard deviation is taken for at least, in the unit of the readings, such as the sensor's resolution: after
    /// readings that are all the same, any other one is an outlier without it. Default: 0.
    #[serde(default)]
    least_stddev: f64,
    /// Whether outliers count for what comes after them. Default: `false`.
    #[serde(default)]
    learn: bool,
}

fn sixty() -> usize {
    60
}

pub(super) fn three() -> f64 {
    3.0
}

/// The problem with a threshold in standard deviations, if there is one.
pub(super) fn problem_with_threshold(threshold: f64) -> Option<Problem> {
    let is_right = threshold.is_finite() && threshold > 0.0;
    (!is_right).then(|| Problem::new("threshold", "must be a finite number greater than 0"))
}

impl Zscore {
    fn least(&self) -> usize {
        self.least.unwrap_or(self.count.min(10))
    }
}

const OK: usize = 0;
const OUTLIER: usize = 1;

impl Definition for Zscore {
    const NAME: &'static str = "zscore";
    const PORTS: &'static [&'static str] = &["ok", "outlier"];
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"

[nodes.plausible]
type = "zscore"
from = "humidity"
count = 120
threshold = 4
least_stddev = 0.1

[nodes.show]
type = "debug"
from = "plausible"

[nodes.spikes]
type = "uplink"
from = "plausible.outlier"
topic = "sites/{device}/hall/humidity/spikes"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(problem_with_threshold(self.threshold));
        if !(2..=1000).contains(&self.count) {
            let message = format!("must be from 2 to 1000, not {}", self.count);
            problems.push(Problem::new("count", message));
        } else if !(2..=self.count).contains(&self.least()) {
            let message = format!("must be from 2 to `count` ({})", self.count);
            problems.push(Problem::new("least", message));
        }
        if !(0.0..=LARGEST).contains(&self.least_stddev) {
            problems.push(Problem::new(
                "least_stddev",
                "must be a finite number, not negative",
            ));
        }
        problems
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Judge {
            count: self.count,
            least: self.least(),
            threshold: self.threshold,
            least_stddev: self.least_stddev,
            learn: self.learn,
            topics: Keyed::default(),
        }))
    }
}

/// No measurement is larger, and the sum of a thousand squares of such numbers is finite.
const LARGEST: f64 = 1e150;

/// The payload as a number whose square is one as well, or a failure.
pub(super) fn reading_or_fail(message: &Message, cx: &mut Context<'_>) -> Option<f64> {
    let number = cx.number_or_fail(&message.payload)?;
    if number.abs() > LARGEST {
        cx.fail(format!(
            "{number} is beyond 1e150, which is too large to compute with"
        ));
        return None;
    }
    Some(number)
}

/// How far a number lies from what is normal.
pub(super) struct Verdict {
    /// In standard deviations; infinite if there is no deviation and yet a distance.
    pub(super) score: f64,
    pub(super) mean: f64,
    pub(super) stddev: f64,
}

impl Verdict {
    pub(super) fn new(number: f64, mean: f64, stddev: f64) -> Verdict {
        let distance = number - mean;
        let score = if distance == 0.0 {
            0.0
        } else {
            distance / stddev
        };
        Verdict {
            score,
            mean,
            stddev,
        }
    }

    /// Sends the message that was judged out of `ok` or `outlier`, with the reason in its headers; says whether it is an outlier.
    pub(super) fn send(&self, threshold: f64, message: &mut Message, cx: &mut Context<'_>) -> bool {
        let headers = Arc::make_mut(message.headers.get_or_insert_default());
        for (name, number) in [
            ("score", self.score),
            ("mean", self.mean),
            ("stddev", self.stddev),
        ] {
            let value = if number.is_finite() {
                Value::Number(number)
            } else {
                Value::Null
            };
            headers.insert(name.into(), value);
        }
        let is_outlier = self.score.abs() > threshold;
        cx.pass(if is_outlier { OUTLIER } else { OK });
        is_outlier
    }
}

struct Judge {
    count: usize,
    least: usize,
    threshold: f64,
    least_stddev: f64,
    learn: bool,
    topics: Keyed<Series>,
}

#[derive(Default, Serialize, Deserialize)]
struct Series {
    /// The last readings that count.
    last: VecDeque<f64>,
    /// How many outliers there were since the last reading that was none.
    outliers: usize,
}

impl Series {
    /// The mean and the standard deviation. They are computed anew for each reading, so that rounding errors do not pile up,
    /// and relative to one of the readings, so that small changes of large numbers are not lost.
    fn moments(&self) -> (f64, f64) {
        let count = self.last.len() as f64;
        let origin = self.last.front().copied().unwrap_or_default();
        let above_origin = self.last.iter().map(|number| number - origin);
        let mean = above_origin.clone().sum::<f64>() / count;
        let squares: f64 = above_origin.map(|number| (number - mean).powi(2)).sum();
        (origin + mean, (squares / (count - 1.0)).sqrt())
    }
}

impl Node for Judge {
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
        let Some(series) = self.topics.get_or_fail(&message.topic, cx, Series::default) else {
            return;
        };
        if series.last.len() < self.least {
            series.last.push_back(number);
            return cx.pass(OK);
        }
        let (mean, stddev) = series.moments();
        let verdict = Verdict::new(number, mean, stddev.max(self.least_stddev));
        let is_outlier = verdict.send(self.threshold, message, cx);
        if is_outlier && !self.learn {
            series.outliers = series.outliers.saturating_add(1);
            if series.outliers < self.count {
                return;
            }
            series.last.clear();
        }
        series.outliers = 0;
        while series.last.len() >= self.count {
            series.last.pop_front();
        }
        series.last.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems};

    fn run(options: &str, readings: &[f64]) -> Run {
        let mut run = Run::with_ports(&["ok", "outlier"], &format!("type = 'zscore'\n{options}"));
        for reading in readings {
            run.deliver(Timestamp::default(), (*reading).into());
        }
        run
    }

    /// What becomes of readings after 1, 2, 3, whose mean is 2 and whose standard deviation is 1.
    fn check(options: &str, readings: &[f64], expected: &[&str]) {
        let options = format!("least = 3\n{options}");
        let readings = [&[1.0, 2.0, 3.0], readings].concat();
        assert_eq!(
            run(&options, &readings).sent[3..],
            *expected,
            "{readings:?}"
        );
    }

    #[test]
    fn what_is_beyond_the_threshold_is_an_outlier() {
        check("", &[5.0], &["ok: 5"]);
        check("", &[5.001], &["outlier: 5.001"]);
        check("", &[-1.0], &["ok: -1"]);
        check("", &[-1.001], &["outlier: -1.001"]);
        check("threshold = 0.5", &[2.6], &["outlier: 2.6"]);
    }

    #[test]
    fn headers_tell_why() {
        let header = |run: &Run, place: usize| {
            let headers = run.messages[place].headers.clone();
            headers.map(|headers| Value::Object(headers).to_json())
        };
        let judged = run("least = 3", &[1.0, 2.0, 3.0, 8.0, 0.0]);
        assert_eq!(header(&judged, 2), None);
        assert_eq!(
            header(&judged, 3).as_deref(),
            Some(r#"{"score":6,"mean":2,"stddev":1}"#)
        );
        assert_eq!(
            header(&judged, 4).as_deref(),
            Some(r#"{"score":-2,"mean":2,"stddev":1}"#)
        );
        let constant = run("least = 2", &[7.0, 7.0, 7.0, 8.0]);
        assert_eq!(
            header(&constant, 2).as_deref(),
            Some(r#"{"score":0,"mean":7,"stddev":0}"#)
        );
        assert_eq!(
            header(&constant, 3).as_deref(),
            Some(r#"{"score":null,"mean":7,"stddev":0}"#)
        );
    }

    #[test]
    fn the_first_readings_are_not_judged() {
        let sent = run("", &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1e9, 5e9]).sent;
        assert_eq!(sent[9..], ["ok: 1000000000", "outlier: 5000000000"]);
        let sent = run("count = 2", &[0.0, 1.0, 9.0]).sent;
        assert_eq!(sent, ["ok: 0", "ok: 1", "outlier: 9"]);
    }

    #[test]
    fn a_least_deviation_forgives_one_step_of_the_sensor() {
        let check = |options: &str, expected: &str| {
            let sent = run(options, &[7.0, 7.0, 7.1]).sent;
            assert_eq!(sent[2], expected, "{options}");
        };
        check("least = 2", "outlier: 7.1");
        check("least = 2\nleast_stddev = 0.1", "ok: 7.1");
    }

    #[test]
    fn outliers_do_not_count_unless_they_are_to_be_learnt() {
        check("", &[100.0, 100.0], &["outlier: 100", "outlier: 100"]);
        check(
            "learn = true",
            &[100.0, 100.0],
            &["outlier: 100", "ok: 100"],
        );
    }

    #[test]
    fn so_many_outliers_in_a_row_are_a_new_level() {
        check(
            "count = 3",
            &[
                100.0, 100.0, 2.0, 100.0, 100.0, 100.0, 101.0, 99.0, 102.0, 2.0,
            ],
            &[
                "outlier: 100",
                "outlier: 100",
                "ok: 2",
                "outlier: 100",
                "outlier: 100",
                "outlier: 100",
                "ok: 101",
                "ok: 99",
                "ok: 102",
                "outlier: 2",
            ],
        );
    }

    #[test]
    fn only_the_last_readings_count() {
        let sent = run("count = 2\nthreshold = 1", &[1000.0, 0.0, 1.0, 9.0]).sent;
        assert_eq!(sent[3], "outlier: 9", "1000 is forgotten");
    }

    /// A plain sum of such numbers, or of their squares, would lose the noise.
    #[test]
    fn small_noise_on_large_numbers_is_seen() {
        const STEP: f64 = 1.0 / 64.0;
        let noise = |place: usize| 1e12 + [0.0, STEP, -STEP][place % 3];
        let series = Series {
            last: (0..999).map(noise).collect(),
            outliers: 0,
        };
        let (mean, stddev) = series.moments();
        let expected = STEP * (2.0 / 3.0 * 999.0 / 998.0_f64).sqrt();
        assert_eq!(mean, 1e12);
        assert!((stddev - expected).abs() < 1e-12, "{stddev}");

        let mut readings: Vec<f64> = (0..30).map(noise).collect();
        readings.extend([1e12 + 2.0 * STEP, 1e12 + 3.0 * STEP]);
        let ports: Vec<String> = run("", &readings).sent[30..]
            .iter()
            .map(|sent| sent.split(':').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(ports, ["ok", "outlier"]);
    }

    #[test]
    fn huge_readings_neither_overflow_nor_change_anything() {
        check(
            "",
            &[f64::NAN, 1e308, -1e151, 2.0],
            &[
                "failed: needs a finite number, but the payload is a number: NaN",
                &format!(
                    "failed: {} is beyond 1e150, which is too large to compute with",
                    1e308
                ),
                &format!(
                    "failed: {} is beyond 1e150, which is too large to compute with",
                    -1e151
                ),
                "ok: 2",
            ],
        );
        let swings: Vec<f64> = [1e150, -1e150].repeat(600);
        let run = run("count = 1000", &swings);
        assert!(run.sent.iter().all(|sent| sent.starts_with("ok")));
        let headers = run.messages[1199].headers.as_ref().expect("it was judged");
        assert!(headers.values().all(|value| *value != Value::Null));
    }

    #[test]
    fn topics_are_judged_one_by_one() {
        let mut run = Run::with_ports(&["ok", "outlier"], "type = 'zscore'\nleast = 2");
        for (topic, reading) in [
            ("a", 1.0),
            ("b", 100.0),
            ("a", 2.0),
            ("b", 101.0),
            ("a", 90.0),
        ] {
            run.deliver_on(topic, Timestamp::default(), reading.into());
        }
        assert_eq!(run.sent[4], "outlier: 90");
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'zscore'\n{options}"), expected)
        };
        check("count = 1", &["`count`: must be from 2 to 1000, not 1"]);
        check(
            "count = 1001",
            &["`count`: must be from 2 to 1000, not 1001"],
        );
        check("least = 1", &["`least`: must be from 2 to `count` (60)"]);
        check("least = 61", &["`least`: must be from 2 to `count` (60)"]);
        for threshold in ["0", "-3", "nan", "inf"] {
            check(
                &format!("threshold = {threshold}"),
                &["`threshold`: must be a finite number greater than 0"],
            );
        }
        for least in ["-0.1", "nan", "inf"] {
            check(
                &format!("least_stddev = {least}"),
                &["`least_stddev`: must be a finite number, not negative"],
            );
        }
        check("count = 1000\nleast = 1000", &[]);
    }
}
