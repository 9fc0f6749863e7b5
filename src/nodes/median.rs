//! `median`: a moving median, which takes single outliers out.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends the median of the last numbers of a topic: a single outlier does not show, a step shows after half of them.
///
/// Of an even number of them it is the mean of the two in the middle. While a topic has had fewer than `count`, it is the
/// median of what is there, so that the first number is sent as it is; `full` waits instead. Memory: 8 bytes for each
/// number, `count` of them for each topic. At most 10,000 topics are remembered; messages of further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Median {
    /// How many numbers to take it of, from 2 to 1,000; an odd number is best. Default: 5.
    #[serde(default = "five")]
    count: usize,
    /// Whether to send nothing until a topic has had `count` numbers. Default: `false`.
    #[serde(default)]
    full: bool,
}

fn five() -> usize {
    5
}

impl Definition for Median {
    const NAME: &'static str = "median";
    const EXAMPLE: &'static str = r#"
[nodes.level]
type = "iio"
device = "ads1015"            # so the kernel calls an ADS1115
channel = "voltage0"

[nodes.steady]
type = "median"
from = "level"
count = 7

[nodes.show]
type = "debug"
from = "steady"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        matches!(option, "size" | "window" | "window_size").then_some("it is called `count`")
    }

    fn problems(&self) -> Vec<Problem> {
        if !(2..=1000).contains(&self.count) {
            return vec![Problem::new("count", "must be from 2 to 1000")];
        }
        Vec::new()
    }

    fn warnings(&self) -> Vec<Problem> {
        let lets_outliers_through = self.count == 2;
        lets_outliers_through
            .then(|| {
                Problem::new(
                    "count",
                    "of 2 numbers it is their mean; 3 take an outlier out",
                )
            })
            .into_iter()
            .collect()
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Medians {
            count: self.count,
            full: self.full,
            last: Keyed::default(),
            scratch: Vec::with_capacity(self.count),
        }))
    }
}

struct Medians {
    count: usize,
    full: bool,
    /// The last numbers of each topic, the oldest first.
    last: Keyed<VecDeque<f64>>,
    /// Where numbers are put in order; empty between messages.
    scratch: Vec<f64>,
}

impl Node for Medians {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.last))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.last = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Some(last) = self.last.get_or_fail(&message.topic, cx, VecDeque::new) else {
            return;
        };
        while last.len() >= self.count {
            last.pop_front();
        }
        last.push_back(number);
        if self.full && last.len() < self.count {
            return;
        }
        self.scratch.extend(last.iter());
        message.payload = Value::Number(median(&mut self.scratch));
        self.scratch.clear();
        cx.pass(0);
    }
}

/// The median of numbers, of which there is at least one; puts them into another order.
fn median(numbers: &mut [f64]) -> f64 {
    let middle = numbers.len() / 2;
    let is_even = numbers.len().is_multiple_of(2);
    let (below, &mut upper, _) = numbers.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if is_even => lower.midpoint(upper),
        _ => upper,
    }
}

#[cfg(test)]
mod tests {
    use super::median;
    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, node_mistakes, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'median'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options} {payloads}");
    }

    #[test]
    fn it_is_the_number_in_the_middle() {
        let check = |numbers: &[f64], expected: f64| {
            assert_eq!(median(&mut numbers.to_vec()), expected, "{numbers:?}");
        };
        check(&[3.0], 3.0);
        check(&[3.0, 1.0], 2.0);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5);
        check(&[5.0, 5.0, 5.0, 1.0], 5.0);
        check(&[1e308, 1.5e308], 1.25e308);
        check(&[-1e308, 1e308], 0.0);
    }

    #[test]
    fn an_outlier_does_not_show_and_old_numbers_are_forgotten() {
        check("count = 3", "[]", &[]);
        check(
            "count = 3",
            "[1, 1, 99, 2, 2, -99, 2]",
            &["1", "1", "1", "2", "2", "2", "2"],
        );
        // A step shows with the second reading after it.
        check("count = 3", "[1, 1, 1, 9, 9]", &["1", "1", "1", "1", "9"]);
        check("count = 4", "[1, 3, 8, 0, 0]", &["1", "2", "3", "2", "1.5"]);
        check(
            "",
            "[1, 2, 3, 4, 5, 6]",
            &["1", "1.5", "2", "2.5", "3", "4"],
        );
    }

    #[test]
    fn full_waits_for_all_of_them() {
        check("count = 3\nfull = true", "[1, 5]", &[]);
        check("count = 3\nfull = true", "[1, 5, 2, 7]", &["2", "5"]);
    }

    #[test]
    fn what_is_no_number_fails_and_is_not_counted() {
        let sent = run_node(
            "type = 'median'\ncount = 3\nfull = true",
            [1.0, f64::NAN, 2.0, f64::NEG_INFINITY, 3.0].map(Into::into),
        );
        assert_eq!(
            sent,
            [
                "failed: needs a finite number, but the payload is a number: NaN",
                "failed: needs a finite number, but the payload is a number: -inf",
                "2",
            ]
        );
    }

    #[test]
    fn topics_are_apart() {
        let mut run = Run::new("type = 'median'\ncount = 3");
        for (topic, number) in [("a", 1.0), ("b", 100.0), ("a", 3.0)] {
            run.deliver_on(topic, Timestamp::default(), number.into());
        }
        assert_eq!(run.sent, ["1", "100", "2"]);
    }

    #[test]
    fn the_count_has_limits() {
        let check = |count: &str, expected: &[&str]| {
            let found = node_mistakes(&format!("type = 'median'\ncount = {count}"));
            assert_eq!(found, expected, "{count}");
        };
        const WRONG: &str = "`count`: must be from 2 to 1000";
        check("0", &[WRONG]);
        check("1", &[WRONG]);
        check(
            "2",
            &["`count`: of 2 numbers it is their mean; 3 take an outlier out"],
        );
        check("1000", &[]);
        check("1001", &[WRONG]);
    }
}
