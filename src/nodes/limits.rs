//! `limits`: numbers out of bounds, with the reason.

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::series::give_reason;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Parts numbers that are out of bounds, out of port `out`, from the others, out of `ok`: plausibility limits, or alarms.
///
/// A number is out above `high` or below `low`; exactly there it is not. `high_high` and `low_low` lie further out, and are
/// the reason where they are passed too. Out of `out` the payload stays, and `headers.reason` says why: `limit` (the name of
/// the option), `value` (the number) and `bound` (the limit).
///
/// With `deadband`, a topic that is out beyond a limit stays so until its number is back by that much. At most 10,000 topics
/// are remembered; messages of further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Limits {
    /// Out above this. Default: none. At least one of the four limits is needed.
    high: Option<f64>,
    /// Out below this, which is less than `high`. Default: none.
    low: Option<f64>,
    /// A limit further out than `high`. Default: none.
    high_high: Option<f64>,
    /// A limit further out than `low`. Default: none.
    low_low: Option<f64>,
    /// How far inside of a limit that it has passed a number must be again to count as back. Default: 0.
    #[serde(default)]
    deadband: f64,
}

impl Limits {
    /// The four limits with their names, from the lowest to the highest.
    fn rising(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("low_low", self.low_low),
            ("low", self.low),
            ("high", self.high),
            ("high_high", self.high_high),
        ]
    }
}

impl Definition for Limits {
    const NAME: &'static str = "limits";
    const PORTS: &'static [&'static str] = &["ok", "out"];
    const EXAMPLE: &'static str = r#"
[nodes.humidity]
type = "iio"
device = "bme280"
channel = "humidityrelative"

[nodes.climate]               # of a cheese cellar, in percent
type = "limits"
from = "humidity"
low = 66
high = 74
deadband = 1

[nodes.show]
type = "debug"
from = "climate"

[nodes.alarm]
type = "debug"
from = "climate.out"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        match option {
            "min" | "minimum" | "below" => Some("it is called `low`"),
            "max" | "maximum" | "above" => Some("it is called `high`"),
            "hysteresis" => Some("it is called `deadband`"),
            _ => None,
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let given: Vec<(&str, f64)> = self
            .rising()
            .into_iter()
            .filter_map(|(name, limit)| Some((name, limit?)))
            .collect();
        if given.is_empty() {
            let message = "is missing; give it, or `low`, `high_high` or `low_low`";
            return vec![Problem::new("high", message)];
        }
        let not_finite = given.iter().find(|(_, limit)| !limit.is_finite());
        if let Some((name, _)) = not_finite {
            return vec![Problem::new(*name, "must be a finite number")];
        }
        let mut problems = Vec::new();
        for pair in given.windows(2) {
            let [(lower, low), (higher, high)] = pair else {
                continue;
            };
            if low >= high {
                let message = format!("must be greater than `{lower}` ({low})");
                problems.push(Problem::new(*higher, message));
            }
        }
        let floor = self.low.or(self.low_low);
        let ceiling = self.high.or(self.high_high);
        if !self.deadband.is_finite() || self.deadband < 0.0 {
            problems.push(Problem::new(
                "deadband",
                "must be a finite number, not negative",
            ));
        } else if let (Some(floor), Some(ceiling)) = (floor, ceiling)
            && problems.is_empty()
            && self.deadband >= ceiling - floor
        {
            problems.push(Problem::new(
                "deadband",
                format!("must be less than what lies between {floor} and {ceiling}"),
            ));
        }
        problems
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let [low_low, low, high, high_high] = self.rising();
        // The worst first: what is beyond `high_high` is beyond `high` too.
        let limits = |side, given: [(&'static str, Option<f64>); 2]| {
            given.into_iter().filter_map(move |(name, bound)| {
                Some(Limit {
                    name,
                    bound: bound?,
                    side,
                })
            })
        };
        Ok(Box::new(Bounds {
            limits: limits(Side::Above, [high_high, high])
                .chain(limits(Side::Below, [low_low, low]))
                .collect(),
            deadband: self.deadband,
            out: Keyed::default(),
        }))
    }
}

const OK: usize = 0;
const OUT: usize = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

struct Limit {
    name: &'static str,
    bound: f64,
    /// Where a number is out.
    side: Side,
}

struct Bounds {
    /// Those of one side together, the outermost first.
    limits: Box<[Limit]>,
    deadband: f64,
    /// The limit, by its place, that the last number of each topic was beyond.
    out: Keyed<Option<usize>>,
}

impl Node for Bounds {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.out))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.out = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Some(out) = self.out.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        let before = *out;
        *out = (0..self.limits.len()).find(|place| {
            let limit = &self.limits[*place];
            let was_beyond = before
                .is_some_and(|before| before <= *place && self.limits[before].side == limit.side);
            limit.is_beyond(number, if was_beyond { self.deadband } else { 0.0 })
        });
        match *out {
            None => cx.pass(OK),
            Some(place) => {
                let limit = &self.limits[place];
                give_reason(message, limit.name, number, limit.bound);
                cx.pass(OUT);
            }
        }
    }
}

impl Limit {
    /// Whether a number is out, or has not come back inside by `deadband`.
    fn is_beyond(&self, number: f64, deadband: f64) -> bool {
        match self.side {
            Side::Above => number > self.bound - deadband,
            Side::Below => number < self.bound + deadband,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, node_mistakes};

    /// What numbers come to: `ok`, or the limit and the bound.
    fn check(options: &str, numbers: &[f64], expected: &[&str]) {
        let mut run = Run::with_ports(&["ok", "out"], &format!("type = 'limits'\n{options}"));
        for number in numbers {
            run.deliver(Timestamp::default(), (*number).into());
        }
        let verdicts: Vec<String> = run
            .messages
            .iter()
            .zip(&run.sent)
            .map(|(message, sent)| match &message.headers {
                None => sent.split(':').next().unwrap().to_owned(),
                Some(headers) => {
                    let reason = &headers["reason"];
                    assert!(sent.starts_with("out: "), "{sent}");
                    assert_eq!(reason.get("value"), Some(&message.payload));
                    format!(
                        "{} {}",
                        reason.get("limit").unwrap(),
                        reason.get("bound").unwrap()
                    )
                }
            })
            .collect();
        assert_eq!(verdicts, expected, "{options} {numbers:?}");
    }

    const HIGH: &str = "\"high\" 10";
    const LOW: &str = "\"low\" 0";

    #[test]
    fn a_limit_is_passed_not_reached() {
        check("high = 10", &[], &[]);
        check("high = 10", &[-1e308, 10.0, 10.1], &["ok", "ok", HIGH]);
        check("low = 0", &[1e308, 0.0, -0.1], &["ok", "ok", LOW]);
        check(
            "low = 0\nhigh = 10",
            &[0.0, 10.0, 11.0, -1.0, 5.0],
            &["ok", "ok", HIGH, LOW, "ok"],
        );
    }

    #[test]
    fn the_outermost_limit_is_the_reason() {
        check(
            "low_low = -5\nlow = 0\nhigh = 10\nhigh_high = 15",
            &[15.1, 15.0, 10.0, 0.0, -5.0, -5.1],
            &["\"high_high\" 15", HIGH, "ok", "ok", LOW, "\"low_low\" -5"],
        );
        check("high_high = 15", &[15.0, 16.0], &["ok", "\"high_high\" 15"]);
    }

    #[test]
    fn the_payload_stays_and_the_reason_is_in_the_headers() {
        let mut run = Run::with_ports(&["out"], "type = 'limits'\nhigh = 5");
        run.deliver(Timestamp::from_millis(3), 7.25.into());
        assert_eq!(run.sent, ["out: 7.25"]);
        assert_eq!(run.messages[0].time, Timestamp::from_millis(3));
        let headers = run.messages[0].headers.as_ref().unwrap();
        assert_eq!(
            headers["reason"].to_json(),
            r#"{"limit":"high","value":7.25,"bound":5}"#
        );
    }

    #[test]
    fn with_a_dead_band_it_is_out_until_it_is_well_back() {
        let band = "low = 0\nhigh = 10\ndeadband = 2";
        check(
            band,
            &[9.0, 10.1, 9.9, 8.1, 8.0, 9.0],
            &["ok", HIGH, HIGH, HIGH, "ok", "ok"],
        );
        check(
            band,
            &[1.0, -0.1, 1.9, 2.0, 1.0],
            &["ok", LOW, LOW, "ok", "ok"],
        );
        check(band, &[11.0, 1.0, -1.0, 9.0], &[HIGH, "ok", LOW, "ok"]);
    }

    #[test]
    fn each_limit_has_its_own_dead_band() {
        const HIGH_HIGH: &str = "\"high_high\" 15";
        check(
            "high = 10\nhigh_high = 15\ndeadband = 2",
            &[11.0, 14.0, 16.0, 14.0, 13.0, 14.0, 9.0, 8.0],
            &[HIGH, HIGH, HIGH_HIGH, HIGH_HIGH, HIGH, HIGH, HIGH, "ok"],
        );
    }

    #[test]
    fn what_is_no_number_fails_and_topics_are_apart() {
        let mut run = Run::with_ports(&["ok", "out"], "type = 'limits'\nhigh = 10\ndeadband = 5");
        for (topic, number) in [("a", 11.0), ("b", 8.0), ("a", f64::NAN), ("a", 8.0)] {
            run.deliver_on(topic, Timestamp::default(), number.into());
        }
        assert_eq!(
            run.sent,
            [
                "out: 11",
                "ok: 8",
                "failed: needs a finite number, but the payload is a number: NaN",
                "out: 8",
            ]
        );
    }

    #[test]
    fn options_fit_each_other() {
        let check = |options: &str, expected: &[&str]| {
            let found = node_mistakes(&format!("type = 'limits'\n{options}"));
            assert_eq!(found, expected, "{options}");
        };
        check(
            "",
            &["`high`: is missing; give it, or `low`, `high_high` or `low_low`"],
        );
        check("low = nan", &["`low`: must be a finite number"]);
        check("high_high = inf", &["`high_high`: must be a finite number"]);
        check(
            "low = 5\nhigh = 5",
            &["`high`: must be greater than `low` (5)"],
        );
        check(
            "low_low = 3\nlow = 2\nhigh = 9\nhigh_high = 8",
            &[
                "`low`: must be greater than `low_low` (3)",
                "`high_high`: must be greater than `high` (9)",
            ],
        );
        for deadband in ["-1", "nan", "inf"] {
            check(
                &format!("low = 5\ndeadband = {deadband}"),
                &["`deadband`: must be a finite number, not negative"],
            );
        }
        check(
            "low = 5\nhigh_high = 7\ndeadband = 2",
            &["`deadband`: must be less than what lies between 5 and 7"],
        );
        check("low = 5\nhigh = 7\ndeadband = 1.9", &[]);
        check("low = 5\ndeadband = 200", &[]);
    }
}
