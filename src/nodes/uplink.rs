//! `uplink`: to the cloud, through the outbox.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Publishes, Surroundings};
use crate::flow::template::{ResolvedTopic, TopicTemplate};
use crate::message::Message;
use crate::outbox::{Draft, Envelope, Priority};
use crate::runtime::node::{Context, Node};

/// Delivers each message to the cloud broker, through the outbox, at least once: what is there is kept until the broker
/// has acknowledged it, across outages, restarts and power cuts.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Uplink {
    /// The topic to publish to; `{device}`, `{flow}`, `{node}` and `{topic}` (the message's own) are filled in.
    topic: TopicTemplate,
    /// Whether the broker keeps the last message of the topic for later subscribers. Default: `false`.
    #[serde(default)]
    retain: bool,
    /// `json` sends `{"device","epoch","seq","time","payload"}`, so that the receiver can tell duplicates; `none` sends
    /// the payload alone. Default: `json`.
    #[serde(default)]
    envelope: Envelope,
    /// What goes first, and stays longest when memory is full: `low`, `normal` or `high`. Nodes with one topic should
    /// have one priority, as there is no order between two. Default: `normal`.
    #[serde(default)]
    priority: Priority,
}

impl Definition for Uplink {
    const NAME: &'static str = "uplink";
    const PORTS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.minute]
type = "window"
from = "probe"
size = "1m"

[nodes.report]
type = "uplink"
from = "minute"
topic = "sites/{device}/cold-store/temperature"
"#;

    fn publishes(&self) -> Option<Publishes<'_>> {
        Some(Publishes {
            topic: &self.topic,
            envelope: self.envelope,
            retain: self.retain,
        })
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let topic = self.topic.resolve(&site.device, &site.flow, &site.node);
        Ok(Box::new(Reporter {
            topic,
            retain: self.retain,
            envelope: self.envelope,
            priority: self.priority,
        }))
    }
}

struct Reporter {
    topic: ResolvedTopic,
    retain: bool,
    envelope: Envelope,
    priority: Priority,
}

impl Node for Reporter {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let topic = self.topic.fill(&message.topic);
        let payload = Bytes::from(message.payload.to_json());
        cx.uplink(Draft {
            retain: self.retain,
            envelope: self.envelope,
            priority: self.priority,
            ..Draft::new(topic, payload, message.time)
        });
    }
}
