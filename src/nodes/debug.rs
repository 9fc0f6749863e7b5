//! `debug`: shows messages.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings};
use crate::message::{Message, Text};
use crate::runtime::node::{Context, Node};

/// Shows each message to the user: in the log of `tidegate run`, on the terminal of `tidegate demo`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Debug {
    /// What to call it in the output. Default: the node's name.
    label: Option<String>,
}

impl Definition for Debug {
    const NAME: &'static str = "debug";
    const PORTS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = r#"
[nodes.tick]
type = "inject"
every = "1s"
payload = "still here"

[nodes.show]
type = "debug"
from = "tick"
"#;

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Shower {
            label: self.label.as_deref().unwrap_or(&site.node).into(),
        }))
    }
}

struct Shower {
    label: Text,
}

impl Node for Shower {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        cx.debug(self.label.clone(), message.clone());
    }
}
