//! `catch`: messages that other nodes could not handle.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings, Watch, Watched};
use crate::flow::estimate::Load;
use crate::message::Message;
use crate::runtime::node::{Context, Node};

/// Sends on what other nodes of the flow could not handle: the message as it came to them, with the reason.
///
/// The reason is in the headers, as JavaScript sees them: `headers.error.message`, `headers.error.node` and
/// `headers.error.type` (the node's type). What failed without a message, such as a sensor that could not be read, comes with
/// the payload `null`. Failures of nodes behind a `catch` do not come to it again. They are counted all the same.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Catch {
    /// The nodes whose failures come. Default: all of the flow.
    nodes: Option<Vec<String>>,
}

impl Definition for Catch {
    const NAME: &'static str = "catch";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.tick]
type = "inject"
every = "10s"
payload = "twelve"

[nodes.scaled]
type = "range"
from = "tick"
in = [0, 20]

[nodes.show]
type = "debug"
from = "scaled"

[nodes.refused]
type = "catch"
nodes = ["scaled"]

[nodes.complain]
type = "debug"
from = "refused"
"#;

    fn watches(&self) -> Option<Watch> {
        Some(Watch {
            what: Watched::Failures,
            nodes: self.nodes.clone(),
        })
    }

    fn load(&self, _: Load) -> Load {
        Load::UNKNOWN
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(PassOn))
    }
}

/// What the engine delivers goes on as it is.
pub(super) struct PassOn;

impl Node for PassOn {
    fn message(&mut self, _: &mut Message, cx: &mut Context<'_>) {
        cx.pass(0);
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::Run;

    /// A node that fails for text, caught by `catch` nodes.
    fn run(catches: &str) -> Run {
        Run::flow(&format!(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'range'\nfrom = 'source'\nin = [0, 1]\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'\n{catches}"
        ))
    }

    const FAILED: &str = "failed: needs a finite number, but the payload is text: \"x\"";

    #[test]
    fn the_message_comes_as_it_was_with_the_reason() {
        let mut run =
            run("[nodes.all]\ntype = 'catch'\n[nodes.caught]\ntype = 'debug'\nfrom = 'all'");
        run.deliver(Timestamp::from_millis(7), Value::from("x"));
        assert_eq!(run.sent, [FAILED, "caught: \"x\""]);
        let message = &run.messages[0];
        assert_eq!(&*message.topic, "t");
        assert_eq!(message.time, Timestamp::from_millis(7));
        let headers = message.headers.as_ref().expect("the reason");
        assert_eq!(
            headers["error"].to_json(),
            r#"{"message":"needs a finite number, but the payload is text: \"x\"","node":"tested","type":"range"}"#
        );
    }

    #[test]
    fn only_named_nodes_are_caught() {
        let other = "[nodes.c]\ntype = 'catch'\nnodes = ['source']\n[nodes.caught]\ntype = 'debug'\nfrom = 'c'";
        let mut run = run(other);
        run.deliver(Timestamp::default(), Value::from("x"));
        assert_eq!(run.sent, [FAILED]);
    }

    #[test]
    fn a_node_that_is_named_twice_is_caught_once() {
        let twice = "[nodes.c]\ntype = 'catch'\nnodes = ['tested', 'tested']\n\
                     [nodes.caught]\ntype = 'debug'\nfrom = 'c'";
        let mut run = run(twice);
        run.deliver(Timestamp::default(), Value::from("x"));
        assert_eq!(run.sent, [FAILED, "caught: \"x\""]);
    }

    #[test]
    fn two_of_them_do_not_complain_to_each_other_for_ever() {
        let mut run = run(
            "[nodes.a]\ntype = 'catch'\n[nodes.behind-a]\ntype = 'range'\nfrom = 'a'\nin = [0, 1]\n\
             [nodes.b]\ntype = 'catch'\n[nodes.behind-b]\ntype = 'range'\nfrom = 'b'\nin = [0, 1]\n\
             [nodes.caught]\ntype = 'debug'\nfrom = ['behind-a', 'behind-b']",
        );
        run.deliver(Timestamp::default(), Value::from("x"));
        assert_eq!(run.sent, [FAILED; 4]);
    }

    #[test]
    fn what_fails_behind_a_catch_does_not_come_round_again() {
        let mut run = run(
            "[nodes.all]\ntype = 'catch'\n[nodes.again]\ntype = 'range'\nfrom = 'all'\nin = [0, 1]\n\
             [nodes.caught]\ntype = 'debug'\nfrom = 'again'",
        );
        run.deliver(Timestamp::default(), Value::from("x"));
        assert_eq!(run.sent, [FAILED, FAILED]);
    }
}
