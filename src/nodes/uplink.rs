//! `uplink`: to the cloud, through the outbox.

use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Publishes, Surroundings};
use crate::flow::options::Span;
use crate::flow::template::{ResolvedTopic, TopicTemplate};
use crate::message::Message;
use crate::outbox::{Draft, Envelope, Lane, Priority};
use crate::runtime::node::{Context, Node};

const EXPIRES_MIN: Duration = Duration::from_secs(1);
const EXPIRES_MAX: Duration = Duration::from_secs(3_650 * 86_400);

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
    /// Whether what is new goes before what waited while the link was down, which then comes with `"replayed": true` in its
    /// envelope. Default: `false`, all in the order of time. With `retain` it needs a `replay_topic`.
    #[serde(default)]
    live_first: bool,
    /// Where what waited goes instead of `topic`; with `live_first` only.
    replay_topic: Option<TopicTemplate>,
    /// How long after its time a message is worth delivering; what is older is dropped, and counted. From 1 s to 3,650 d. Default:
    /// for ever.
    expires: Option<Span>,
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

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.replay_topic.is_some() && !self.live_first {
            problems.push(Problem::new(
                "replay_topic",
                "is for what is replayed, and without live_first = true nothing is; add that, or leave it out",
            ));
        }
        if self.live_first && self.replay_topic.is_none() && self.envelope == Envelope::None {
            problems.push(Problem::new(
                "live_first",
                "needs a mark for what is replayed: without an envelope give a replay_topic",
            ));
        }
        if self.live_first && self.retain && self.replay_topic.is_none() {
            problems.push(Problem::new(
                "retain",
                "would leave at the broker what was replayed last, though newer values came before: give a replay_topic, or leave live_first out",
            ));
        }
        if let Some(expires) = self.expires
            && !(EXPIRES_MIN..=EXPIRES_MAX).contains(&expires.0)
        {
            problems.push(Problem::new("expires", "must be from 1s to 3650d"));
        }
        problems
    }

    fn publishes(&self) -> Option<Publishes<'_>> {
        Some(Publishes {
            topic: &self.topic,
            envelope: self.envelope,
            retain: self.retain,
            lane: Lane {
                priority: self.priority,
                live_first: self.live_first,
            },
        })
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let resolve = |topic: &TopicTemplate| topic.resolve(&site.device, &site.flow, &site.node);
        Ok(Box::new(Reporter {
            topic: resolve(&self.topic),
            replay_topic: self.replay_topic.as_ref().map(resolve),
            retain: self.retain,
            envelope: self.envelope,
            priority: self.priority,
            live_first: self.live_first,
            expires: self.expires.map(|it| it.0),
        }))
    }
}

struct Reporter {
    topic: ResolvedTopic,
    retain: bool,
    envelope: Envelope,
    priority: Priority,
    live_first: bool,
    replay_topic: Option<ResolvedTopic>,
    expires: Option<Duration>,
}

impl Node for Reporter {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let topic = self.topic.fill(&message.topic);
        let replay_topic = self.replay_topic.as_ref();
        let payload = Bytes::from(message.payload.to_json());
        cx.uplink(Draft {
            retain: self.retain,
            envelope: self.envelope,
            priority: self.priority,
            live_first: self.live_first,
            expires: self.expires,
            replay_topic: replay_topic.map(|it| it.fill(&message.topic)),
            ..Draft::new(topic, payload, message.time)
        });
    }
}
