//! `range`: maps one range of numbers to another.

use schemars::JsonSchema;
use serde::Deserialize;

use super::series::finite_or_fail;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};

/// Maps a number from one range to another, linearly: 4-20 mA to 0-100 %.
///
/// A payload that is no finite number fails, and so does a result that is too large for one.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Range {
    /// The range of the payload, such as `[4, 20]`.
    r#in: Ends,
    /// The range to map it to, such as `[0, 100]`. Default: the same as `in`.
    out: Option<Ends>,
    /// What to do with a number outside `in`: `scale` it all the same, `clamp` it to the nearest end, `wrap` it round, or
    /// `drop` the message. Default: `scale`.
    #[serde(default)]
    outside: Outside,
}

/// The two ends of a range.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<f64>")]
pub(super) struct Ends(pub(super) f64, pub(super) f64);

impl TryFrom<Vec<f64>> for Ends {
    type Error = &'static str;

    fn try_from(ends: Vec<f64>) -> Result<Ends, &'static str> {
        match ends[..] {
            [from, to] if from.is_finite() && to.is_finite() => Ok(Ends(from, to)),
            [_, _] => Err("the ends of a range must be finite numbers"),
            _ => Err("a range has two ends, like [4, 20]"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outside {
    #[default]
    Scale,
    Clamp,
    Wrap,
    Drop,
}

impl Definition for Range {
    const NAME: &'static str = "range";
    const EXAMPLE: &'static str = r#"
[nodes.level]
type = "iio"
device = "ads1015"            # so the kernel calls an ADS1115
channel = "voltage0"

[nodes.percent]
type = "range"
from = "level"
in = [0.4, 2.0]       # 4-20 mA over 100 ohms
out = [0, 100]
outside = "clamp"

[nodes.show]
type = "debug"
from = "percent"
"#;

    fn problems(&self) -> Vec<Problem> {
        if self.r#in.0 == self.r#in.1 {
            return vec![Problem::new("in", "the two ends must differ")];
        }
        Vec::new()
    }

    fn load(&self, input: Load) -> Load {
        input.sized(Load::NUMBER_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let Ends(from, to) = self.r#in;
        let Ends(out_from, out_to) = self.out.unwrap_or(self.r#in);
        Ok(Box::new(Map {
            low: from.min(to),
            high: from.max(to),
            from,
            to,
            out_from,
            out_to,
            outside: self.outside,
        }))
    }
}

struct Map {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    out_from: f64,
    out_to: f64,
    outside: Outside,
}

impl Node for Map {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let number = match self.outside {
            Outside::Scale => number,
            Outside::Clamp => number.clamp(self.low, self.high),
            Outside::Wrap => self.wrapped(number),
            Outside::Drop if number < self.low || number > self.high => return,
            Outside::Drop => number,
        };
        let share = (number - self.from) / (self.to - self.from);
        let mapped = self.out_from + share * (self.out_to - self.out_from);
        let Some(mapped) = finite_or_fail(mapped, cx) else {
            return;
        };
        message.payload = Value::Number(mapped);
        cx.pass(0);
    }
}

impl Map {
    /// The number moved by whole lengths of the range: from its low end on, and below its high one.
    fn wrapped(&self, number: f64) -> f64 {
        let above_low = (number - self.low).rem_euclid(self.high - self.low);
        let wrapped = self.low + above_low;
        // What lies below by less than a double can tell is rounded up to the high end.
        if wrapped < self.high {
            wrapped
        } else {
            self.low
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Value;
    use crate::nodes::testing::{node_mistakes, run_node, run_node_json};

    #[test]
    fn it_maps_inside_and_as_told_outside() {
        let check = |outside: &str, payloads: &[f64], expected: &[&str]| {
            let node =
                format!("type = 'range'\nin = [4, 20]\nout = [0, 100]\noutside = '{outside}'");
            assert_eq!(
                run_node(&node, payloads.iter().map(|p| (*p).into())),
                expected,
                "{outside}"
            );
        };
        check(
            "scale",
            &[4.0, 12.0, 20.0, 36.0],
            &["0", "50", "100", "200"],
        );
        check("clamp", &[3.0, 4.0, 20.0, 21.0], &["0", "0", "100", "100"]);
        check("wrap", &[4.0, 20.0, 28.0, -4.0], &["0", "0", "50", "50"]);
        check("drop", &[3.9, 4.0, 20.0, 20.1], &["0", "100"]);
    }

    #[test]
    fn a_falling_range_is_a_range() {
        let node = "type = 'range'\nin = [20, 4]\nout = [0, 100]\noutside = 'clamp'";
        assert_eq!(
            run_node(node, [20.0.into(), 4.0.into(), 0.0.into()]),
            ["0", "100", "100"]
        );
    }

    #[test]
    fn what_wraps_stays_below_the_high_end() {
        let sent = run_node(
            "type = 'range'\nin = [0, 360]\noutside = 'wrap'",
            [360.0, -90.0, 725.0, -1e-20].map(Value::Number),
        );
        assert_eq!(sent, ["0", "270", "5", "0"]);
    }

    #[test]
    fn what_is_no_number_fails_and_so_does_a_result_that_is_none() {
        let node = "type = 'range'\nin = [0, 1]\nout = [-1e308, 1e308]\noutside = 'scale'";
        assert_eq!(run_node_json(node, "[]"), [""; 0]);
        assert_eq!(
            run_node_json(node, r#"["0.5", null]"#),
            [
                "failed: needs a finite number, but the payload is text: \"0.5\"",
                "failed: needs a finite number, but the payload is null: null",
            ]
        );
        assert_eq!(
            run_node(node, [f64::NAN, f64::INFINITY, 0.5].map(Value::Number)),
            [
                "failed: needs a finite number, but the payload is a number: NaN",
                "failed: needs a finite number, but the payload is a number: inf",
                "failed: the result is not a finite number: inf",
            ]
        );
        assert_eq!(
            run_node(
                "type = 'range'\nin = [0, 0.1]\nout = [0, 1]",
                [1e308.into()]
            ),
            ["failed: the result is not a finite number: inf"]
        );
        assert_eq!(
            run_node("type = 'range'\nin = [-1e308, 1e308]", [1.0.into()]),
            ["failed: the result is not a finite number: NaN"]
        );
    }

    #[test]
    fn the_ends_must_make_a_range() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'range'\n{options}"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        };
        check("in = [4, 4]", "`in`: the two ends must differ");
        check("in = [4]", "a range has two ends, like [4, 20]");
        check(
            "in = [4, nan]",
            "the ends of a range must be finite numbers",
        );
        check("in = [0, 1]\nout = [0, inf]", "must be finite numbers");
    }
}
