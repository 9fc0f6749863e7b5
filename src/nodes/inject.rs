//! `inject`: sends a message at a steady pace.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::sampler::next_tick;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Node};

/// Sends a message every so often, the first one after that time.
///
/// Ticks do not drift. Ticks that were missed, because the machine slept, are not made up for.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Inject {
    /// How often, from `1ms`.
    every: Span,
    /// What to send. Default: the time, in milliseconds since 1970, as Node-RED does.
    payload: Option<Value>,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

impl Definition for Inject {
    const NAME: &'static str = "inject";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.tick]
type = "inject"
every = "10s"
payload = { state = "alive" }

[nodes.show]
type = "debug"
from = "tick"
"#;

    fn problems(&self) -> Vec<Problem> {
        if self.every.0 < Duration::from_millis(1) {
            return vec![Problem::new("every", "must be at least 1ms")];
        }
        Vec::new()
    }

    fn load(&self, _: Load) -> Load {
        let payload = self.payload.as_ref();
        let bytes = payload.map_or(13.0, |payload| payload.to_json().len() as f64);
        Load::every(self.every.0, bytes)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Ticker {
            every: self.every.0,
            next: Duration::ZERO,
            payload: self.payload.clone(),
            topic: self
                .topic
                .as_deref()
                .map_or_else(|| site.own_topic(), Into::into),
        }))
    }
}

struct Ticker {
    every: Duration,
    next: Duration,
    payload: Option<Value>,
    topic: Text,
}

impl Node for Ticker {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.next = cx.now().mono + self.every;
        cx.wake_at(self.next);
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        let payload = self
            .payload
            .clone()
            .unwrap_or_else(|| Value::Number(now.wall.as_millis_f64().floor()));
        cx.originate(self.topic.clone(), payload, now.wall);
        self.next = next_tick(self.next, self.every, now.mono);
        cx.wake_at(self.next);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::graph;
    use crate::runtime::{Effect, Engine, Now};

    #[test]
    fn it_ticks_from_the_first_interval_on_and_does_not_catch_up() {
        let flow = "[nodes.tick]\ntype = 'inject'\nevery = '10s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'";
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(graph(flow), Now::default(), &mut effects);
        // Late by a second, then asleep for a minute, then on time.
        for second in [9, 10, 21, 30, 95, 104, 105] {
            engine.wake(
                Now::default().later(Duration::from_secs(second)),
                100,
                &mut effects,
            );
        }
        let times: Vec<Timestamp> = effects
            .iter()
            .map(|effect| match effect {
                Effect::Debug { message, .. } => message.time,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            times,
            [10, 21, 30, 95, 105].map(|second| Timestamp::from_millis(second * 1000))
        );
    }
}
