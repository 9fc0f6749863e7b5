//! `gpio in`: the level of a pin.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings, Use};
use crate::board::{Level, Pin, Pull};
use crate::flow::estimate::Load;
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Input, Node};

/// Sends the level of a pin, 0 or 1: once at the start and at each edge.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct GpioIn {
    /// The pin's BCM (GPIO) number, 0 to 27; not its place on the header.
    pin: Pin,
    /// The Pi's own resistor on the pin: `none`, `up` or `down`. Default: `none`.
    #[serde(default)]
    pull: Pull,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

impl Definition for GpioIn {
    const NAME: &'static str = "gpio in";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.door]
type = "gpio in"
pin = 22
pull = "up"

[nodes.show]
type = "debug"
from = "door"
"#;

    fn uses(&self) -> Vec<Use> {
        vec![Use::Input {
            pin: self.pin,
            pull: self.pull,
        }]
    }

    fn load(&self, _: Load) -> Load {
        Load::UNKNOWN.sized(1.0)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let topic = self
            .topic
            .as_deref()
            .map_or_else(|| site.own_topic(), Into::into);
        Ok(Box::new(Contact { topic }))
    }
}

struct Contact {
    topic: Text,
}

impl Node for Contact {
    fn start(&mut self, cx: &mut Context<'_>) {
        cx.read_level();
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        match input {
            Input::Edge { time, level } => {
                let level = if level == Level::High { 1.0 } else { 0.0 };
                cx.originate(self.topic.clone(), Value::Number(level), time);
            }
            Input::Reading {
                value: Err(reason), ..
            } => cx.fail(reason),
            Input::Reading { value: Ok(_), .. } => {}
        }
    }
}
