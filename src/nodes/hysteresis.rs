//! `hysteresis`: on above one limit, off below another.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Is on once the payload rises above one limit, and off once it falls below another: a thermostat.
///
/// Sends its state, `true` or `false`, with each reading, so that what reads it can tell "unchanged" from "no more
/// readings"; a `filter` behind it leaves the changes. Nothing is sent until one limit has been passed.
/// The state is kept over a restart, and sent with the first reading.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Hysteresis {
    /// `true` once the payload is greater than this.
    above: f64,
    /// `false` once the payload is less than this; not greater than `above`.
    below: f64,
}

impl Definition for Hysteresis {
    const NAME: &'static str = "hysteresis";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.thermostat]
type = "hysteresis"
from = "probe"
above = 5.0
below = 3.0

[nodes.show]
type = "debug"
from = "thermostat"
"#;

    fn problems(&self) -> Vec<Problem> {
        for (option, limit) in [("above", self.above), ("below", self.below)] {
            if !limit.is_finite() {
                return vec![Problem::new(option, "the limits must be finite numbers")];
            }
        }
        if self.below > self.above {
            return vec![Problem::new(
                "below",
                format!("must not be greater than `above` ({})", self.above),
            )];
        }
        Vec::new()
    }

    fn load(&self, input: Load) -> Load {
        input.sized(5.0)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Switch {
            above: self.above,
            below: self.below,
            is_on: None,
        }))
    }
}

struct Switch {
    above: f64,
    below: f64,
    is_on: Option<bool>,
}

impl Node for Switch {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.is_on))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.is_on = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        if number > self.above {
            self.is_on = Some(true);
        } else if number < self.below {
            self.is_on = Some(false);
        }
        if let Some(is_on) = self.is_on {
            message.payload = Value::Bool(is_on);
            cx.pass(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, node_mistakes, run_node, run_node_json};

    #[test]
    fn it_switches_at_the_limits_and_not_between() {
        let check = |payloads: &[f64], expected: &[&str]| {
            let sent = run_node(
                "type = 'hysteresis'\nabove = 5\nbelow = 3",
                payloads.iter().map(|p| (*p).into()),
            );
            assert_eq!(sent, expected, "{payloads:?}");
        };
        check(&[4.0, 5.0, 3.0], &[]);
        check(&[5.1, 4.0, 3.0], &["true", "true", "true"]);
        check(
            &[2.9, 4.0, 5.0, 5.5, 3.0, 2.0],
            &["false", "false", "false", "true", "true", "false"],
        );
        check(
            &[f64::NAN, f64::INFINITY, 6.0],
            &[
                "failed: needs a finite number, but the payload is a number: NaN",
                "failed: needs a finite number, but the payload is a number: inf",
                "true",
            ],
        );
    }

    #[test]
    fn what_is_no_number_fails_and_leaves_the_state() {
        assert_eq!(
            run_node_json(
                "type = 'hysteresis'\nabove = 5\nbelow = 5",
                r#"[6, "1", null, 5, 4]"#
            ),
            [
                "true",
                "failed: needs a finite number, but the payload is text: \"1\"",
                "failed: needs a finite number, but the payload is null: null",
                "true",
                "false",
            ]
        );
    }

    #[test]
    fn the_limits_fit_each_other() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'hysteresis'\n{options}"));
            assert_eq!(found, [expected], "{options}");
        };
        check(
            "above = inf\nbelow = 1",
            "`above`: the limits must be finite numbers",
        );
        check(
            "above = 1\nbelow = nan",
            "`below`: the limits must be finite numbers",
        );
        check(
            "above = 1\nbelow = 1.1",
            "`below`: must not be greater than `above` (1)",
        );
    }

    #[test]
    fn between_the_limits_it_is_what_it_was_before_a_restart() {
        let mut run = Run::new("type = 'hysteresis'\nabove = 5\nbelow = 3");
        run.deliver(Timestamp::default(), 6.0.into());
        run.restart(Duration::from_secs(1));
        assert_eq!(run.sent, ["true"], "without a reading nothing is sent");
        run.deliver(Timestamp::default(), 4.0.into());
        assert_eq!(run.sent, ["true", "true"]);
    }
}
