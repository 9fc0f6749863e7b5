//! `counter`: counts messages, edges or what they carry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::series::{finite_or_fail, level_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::script::{Compiled, Expression};
use crate::message::{Message, NodeId, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Counts messages, per topic, and sends the total with each one that counts; the others end here.
///
/// With `edge`, what counts is that a level changes: the payload, which must be `true`, `false`, 1 or 0, or what `when` says
/// of it. The first level of a topic is no change. So a `gpio in` in front of it counts pieces with `edge = "rising"`, and
/// `when = "payload > 5"` with `edge = "rising"` counts how often a reading has gone above 5.
///
/// Totals are kept over a restart, and so are levels: one that has changed while the device was off counts as one change. At most
/// 10,000 topics are remembered; messages of further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Counter {
    /// A condition in JavaScript; it sees what the condition of `where` sees. Default: every message counts.
    when: Option<Expression>,
    /// Count changes of a level: `rising` (from false to true), `falling` or `both`. Default: messages are counted.
    edge: Option<Edge>,
    /// What a message adds: `one`, or `payload`, which must be a number then. Default: `one`.
    #[serde(default)]
    add: Add,
    /// By what the count is divided: 450 makes litres of the pulses of a YF-S201 flow sensor. Default: 1.
    #[serde(default = "one")]
    pulses_per_unit: f64,
    /// A node among `from` whose messages set all totals to 0, unless they are `false` or 0: a button, or an `inject` at
    /// midnight. Then 0 is sent on each topic. Default: none.
    reset: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Edge {
    Rising,
    Falling,
    Both,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Add {
    #[default]
    One,
    Payload,
}

fn one() -> f64 {
    1.0
}

impl Definition for Counter {
    const NAME: &'static str = "counter";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.too_warm]              # how often the store has become too warm
type = "counter"
from = "probe"
when = "payload > 5"
edge = "rising"

[nodes.show]
type = "debug"
from = "too_warm"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        matches!(option, "step" | "increment")
            .then_some("`pulses_per_unit` divides the count, `add = \"payload\"` adds numbers up")
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let reset = self.reset.iter();
        reset.map(|node| ("reset", node.clone())).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.pulses_per_unit.is_finite() || self.pulses_per_unit <= 0.0 {
            problems.push(Problem::new(
                "pulses_per_unit",
                "must be a finite number above 0",
            ));
        }
        if self.edge.is_some() && self.when.is_none() && self.add == Add::Payload {
            problems.push(Problem::new(
                "add",
                "with `edge` the payload is a level, not a number to add; give `when`, or leave one of them away",
            ));
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        input.sized(Load::NUMBER_BYTES)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Totals {
            when: self
                .when
                .as_ref()
                .map(|when| site.compile(when))
                .transpose()?,
            edge: self.edge,
            add: self.add,
            pulses_per_unit: self.pulses_per_unit,
            reset: self.reset.as_deref().map(|node| site.input(node)),
            counts: Keyed::default(),
        }))
    }
}

struct Totals {
    when: Option<Compiled>,
    edge: Option<Edge>,
    add: Add,
    pulses_per_unit: f64,
    reset: Option<NodeId>,
    counts: Keyed<Count>,
}

#[derive(Default, Serialize, Deserialize)]
struct Count {
    total: f64,
    /// The last level of the topic, where edges are counted.
    level: Option<bool>,
}

impl Node for Totals {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.counts))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.counts = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if self.reset == Some(message.source) {
            if message.payload.as_level() != Some(false) {
                self.reset(message, cx);
            }
            return;
        }
        let condition = match self.when.as_ref().map(|when| when.is_true(message)) {
            None => None,
            Some(Ok(is_met)) => Some(is_met),
            Some(Err(error)) => return cx.fail(error.to_string()),
        };
        let level = match (self.edge, condition) {
            (None, condition) => Some(condition.unwrap_or(true)),
            (Some(_), Some(is_met)) => Some(is_met),
            (Some(_), None) => level_or_fail(&message.payload, cx),
        };
        let Some(level) = level else { return };
        let Some(count) = self.counts.get_or_fail(&message.topic, cx, Count::default) else {
            return;
        };
        let counts = match self.edge {
            None => level,
            Some(edge) => edge.is_between(count.level, level),
        };
        if counts {
            let amount = match self.add {
                Add::One => Some(1.0),
                Add::Payload => cx.number_or_fail(&message.payload),
            };
            let Some(amount) = amount else { return };
            let Some(result) = finite_or_fail((count.total + amount) / self.pulses_per_unit, cx)
            else {
                return;
            };
            count.total += amount;
            message.payload = Value::Number(result);
            cx.pass(0);
        }
        count.level = Some(level);
    }
}

impl Totals {
    fn reset(&mut self, message: &Message, cx: &mut Context<'_>) {
        for (topic, count) in self.counts.iter_mut() {
            count.total = 0.0;
            cx.originate(topic.clone(), Value::Number(0.0), message.time);
        }
    }
}

impl Edge {
    fn is_between(self, before: Option<bool>, after: bool) -> bool {
        let is_change = before == Some(!after);
        is_change
            && match self {
                Edge::Rising => after,
                Edge::Falling => !after,
                Edge::Both => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_mistakes, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'counter'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options} {payloads}");
    }

    #[test]
    fn messages_are_counted_whatever_they_carry() {
        check("", "[]", &[]);
        check(
            "",
            r#"[7, null, "x", {"y": 0}, false]"#,
            &["1", "2", "3", "4", "5"],
        );
        check("pulses_per_unit = 2", "[1, 1, 1]", &["0.5", "1", "1.5"]);
    }

    #[test]
    fn a_condition_chooses_and_what_throws_fails() {
        check("when = 'payload > 5'", "[5, 6, 1, 7]", &["1", "2"]);
        check(
            "when = 'payload.x.y'",
            r#"[{"x": {"y": 1}}, null, {"x": {"y": 2}}]"#,
            &[
                "1",
                "failed: JavaScript: cannot read property 'x' of null",
                "2",
            ],
        );
    }

    #[test]
    fn edges_are_changes_of_a_level() {
        const LEVELS: &str = "[1, 1, 0, 0, 1, true, false, 1]";
        check("edge = 'rising'", LEVELS, &["1", "2"]);
        check("edge = 'falling'", LEVELS, &["1", "2"]);
        check("edge = 'both'", LEVELS, &["1", "2", "3", "4"]);
        check("edge = 'rising'", "[1]", &[]);
        check(
            "edge = 'rising'",
            "[0, 2, 1]",
            &[
                "failed: needs true, false, 1 or 0, but the payload is 2",
                "1",
            ],
        );
        check(
            "edge = 'rising'\nwhen = 'payload > 5'",
            "[9, 5, 6, 7, 5, 8]",
            &["1", "2"],
        );
    }

    #[test]
    fn numbers_are_added_up() {
        check(
            "add = 'payload'",
            "[2, 0.5, -1, true, 3]",
            &[
                "2",
                "2.5",
                "1.5",
                "failed: needs a finite number, but the payload is a boolean: true",
                "4.5",
            ],
        );
        check(
            "add = 'payload'\nedge = 'falling'\nwhen = 'payload > 5'",
            "[9, 4, 3, 8, 1]",
            &["4", "5"],
        );
        let sent = run_node(
            "type = 'counter'\nadd = 'payload'",
            [1.5e308, 1.5e308, f64::NAN, -1e308].map(Value::Number),
        );
        assert_eq!(
            sent,
            [
                "1.5e+308",
                "failed: the result is not a finite number: inf",
                "failed: needs a finite number, but the payload is a number: NaN",
                "5e+307",
            ]
        );
        check(
            "pulses_per_unit = 1e-308\nadd = 'payload'",
            "[1, 100]",
            &["1e+308", "failed: the result is not a finite number: inf"],
        );
    }

    #[test]
    fn a_number_that_cannot_be_added_is_no_edge_either() {
        check(
            "add = 'payload'\nedge = 'rising'\nwhen = \"payload != 'low'\"",
            r#"["low", "high", 3, 4]"#,
            &[
                "failed: needs a finite number, but the payload is text: \"high\"",
                "3",
            ],
        );
    }

    #[test]
    fn topics_are_apart_and_reset_together() {
        let mut run =
            Run::with_sources(&["source", "button"], "type = 'counter'\nreset = 'button'");
        let time = Timestamp::from_millis(7);
        run.deliver_message("button", "button", time, true.into());
        for topic in ["a", "b", "a"] {
            run.deliver_on(topic, time, 0.0.into());
        }
        assert_eq!(run.sent, ["1", "1", "2"]);
        for released in [Value::from(false), Value::Number(0.0)] {
            run.deliver_message("button", "button", time, released);
        }
        assert_eq!(
            run.sent.len(),
            3,
            "a button that is released resets nothing"
        );
        run.deliver_message("button", "button", time, Value::Null);
        run.deliver_on("a", time, 0.0.into());
        assert_eq!(run.sent[3..], ["0", "0", "1"]);
        let topics: Vec<&str> = run.messages[3..].iter().map(|it| &*it.topic).collect();
        assert_eq!(topics, ["a", "b", "a"]);
    }

    #[test]
    fn options_fit_each_other() {
        let check = |options: &str, expected: &[&str]| {
            let found = node_mistakes(&format!("type = 'counter'\n{options}"));
            assert_eq!(found, expected, "{options}");
        };
        for number in ["0", "-450", "nan"] {
            check(
                &format!("pulses_per_unit = {number}"),
                &["`pulses_per_unit`: must be a finite number above 0"],
            );
        }
        check(
            "edge = 'both'\nadd = 'payload'",
            &[
                "`add`: with `edge` the payload is a level, not a number to add; give `when`, or leave one of them away",
            ],
        );
        check(
            "reset = 'sorce'",
            &["`reset`: this node does not read from `sorce` (did you mean `source`?)"],
        );
    }

    #[test]
    fn totals_outlast_a_restart_and_a_level_that_changed_meanwhile_counts_once() {
        let mut run = Run::new("type = 'counter'\nedge = 'rising'");
        for level in [0.0, 1.0, 0.0] {
            run.deliver(Timestamp::default(), level.into());
        }
        run.restart(Duration::from_secs(3600));
        for level in [1.0, 1.0, 0.0, 1.0] {
            run.deliver(run.now.wall, level.into());
        }
        assert_eq!(run.sent, ["1", "2", "3"]);
    }
}
