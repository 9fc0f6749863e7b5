//! `status`: how other nodes are doing.

use schemars::JsonSchema;
use serde::Deserialize;

use super::catch::PassOn;
use super::{BuildError, Definition, Surroundings, Watch, Watched};
use crate::flow::estimate::Load;
use crate::runtime::node::Node;

/// Sends a message when another node of the flow begins to fail, and when it works again.
///
/// The payload is an object: `node` (its name), `state` (`"failing"` or `"ok"`) and `reason` (of the first failure; `null` with
/// `"ok"`). A node works again when it has handled a message, or a reading, without a failure. After a panic the whole
/// flow starts again, and `state` is `"restarted"` with the panic's text as the reason. States of nodes behind a `status`
/// do not come to it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Status {
    /// The nodes whose states come. Default: all of the flow.
    nodes: Option<Vec<String>>,
}

impl Definition for Status {
    const NAME: &'static str = "status";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.minute]
type = "window"
from = "probe"
size = "1m"

[nodes.show]
type = "debug"
from = "minute"

[nodes.health]
type = "status"
nodes = ["probe"]

[nodes.report]
type = "uplink"
from = "health"
topic = "sites/{device}/health"
"#;

    fn watches(&self) -> Option<Watch> {
        Some(Watch {
            what: Watched::States,
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

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::Run;

    #[test]
    fn a_change_of_state_is_told_once() {
        let mut run = Run::flow(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'range'\nfrom = 'source'\nin = [0, 1]\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'\n\
             [nodes.health]\ntype = 'status'\n[nodes.told]\ntype = 'debug'\nfrom = 'health'",
        );
        for payload in [
            1.0.into(),
            Value::from("x"),
            Value::Null,
            0.5.into(),
            0.0.into(),
        ] {
            run.deliver(Timestamp::default(), payload);
        }
        assert_eq!(
            run.sent,
            [
                "1",
                "failed: needs a finite number, but the payload is text: \"x\"",
                r#"told: {"node":"tested","state":"failing","reason":"needs a finite number, but the payload is text: \"x\""}"#,
                "failed: needs a finite number, but the payload is null: null",
                "0.5",
                r#"told: {"node":"tested","state":"ok","reason":null}"#,
                "0",
            ]
        );
        assert_eq!(&*run.messages[1].topic, "test/tested");
    }
}
