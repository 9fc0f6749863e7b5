//! `delta`: by how much a reading changed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::series::{COMPUTED_BYTES, finite_or_fail};
use super::{BuildError, Definition, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends the difference between a number and the one before it on its topic, in the order in which they come.
///
/// The first number of a topic sends nothing; the last one is kept over a restart. For the change per time, and for totals that begin at 0 again, there is
/// `rate`. At most 10,000 topics are remembered; messages of further topics fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Delta {}

impl Definition for Delta {
    const NAME: &'static str = "delta";
    const EXAMPLE: &'static str = r#"
[nodes.barometer]
type = "iio"
device = "bme280"
channel = "pressure"
every = "10m"

[nodes.tendency]              # hPa in ten minutes
type = "delta"
from = "barometer"

[nodes.show]
type = "debug"
from = "tendency"
"#;

    fn load(&self, input: Load) -> Load {
        input.sized(COMPUTED_BYTES)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Differences {
            last: Keyed::default(),
        }))
    }
}

struct Differences {
    /// The last number of each topic.
    last: Keyed<Option<f64>>,
}

impl Node for Differences {
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
        let Some(last) = self.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        if let Some(before) = *last {
            let Some(change) = finite_or_fail(number - before, cx) else {
                return;
            };
            message.payload = Value::Number(change);
            cx.pass(0);
        }
        *last = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, run_node, run_node_json};

    #[test]
    fn it_sends_the_difference_from_the_second_number_on() {
        let check = |payloads: &str, expected: &[&str]| {
            assert_eq!(run_node_json("type = 'delta'", payloads), expected);
        };
        check("[]", &[]);
        check("[7]", &[]);
        check("[7, 7, 9.5, 4]", &["0", "2.5", "-5.5"]);
        check(
            r#"[7, "8", null, 9]"#,
            &[
                "failed: needs a finite number, but the payload is text: \"8\"",
                "failed: needs a finite number, but the payload is null: null",
                "2",
            ],
        );
    }

    #[test]
    fn a_difference_too_large_fails_and_is_forgotten() {
        let sent = run_node(
            "type = 'delta'",
            [-1e308, f64::NAN, 1e308, 0.0].map(Into::into),
        );
        assert_eq!(
            sent,
            [
                "failed: needs a finite number, but the payload is a number: NaN",
                "failed: the result is not a finite number: inf",
                "1e+308",
            ]
        );
    }

    #[test]
    fn topics_are_apart() {
        let mut run = Run::new("type = 'delta'");
        for (topic, number) in [("a", 1.0), ("b", 10.0), ("a", 2.0), ("b", 30.0)] {
            run.deliver_on(topic, Timestamp::default(), number.into());
        }
        assert_eq!(run.sent, ["1", "20"]);
        assert_eq!(&*run.messages[1].topic, "b");
    }
}
