//! `link in`: messages from other flows.

use schemars::JsonSchema;
use serde::Deserialize;

use super::catch::PassOn;
use super::link_out::LinkName;
use super::{BuildError, Definition, Link, Surroundings};
use crate::flow::estimate::Load;
use crate::runtime::node::Node;

/// Sends on what the `link out` nodes of the same link send, in whatever flow they are.
///
/// Topic, payload, time and headers are as they were; the source is this node. Messages of one `link out` come in their order,
/// those of several as they arrive.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct LinkIn {
    /// The link's name: lower-case letters, digits, `_` and `-`.
    link: LinkName,
}

impl Definition for LinkIn {
    const NAME: &'static str = "link in";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.alarms]
type = "link in"
link = "alarms"

[nodes.report]
type = "uplink"
from = "alarms"
topic = "sites/{device}/alarms"

# Most often in flows of their own:
[nodes.door]
type = "gpio in"
pin = 22

[nodes.door-alarm]
type = "link out"
from = "door"
link = "alarms"
"#;

    fn load(&self, _: Load) -> Load {
        Load::UNKNOWN
    }

    fn link(&self) -> Option<Link> {
        Some(Link::In(self.link.0.clone()))
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(PassOn))
    }
}
