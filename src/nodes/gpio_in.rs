//! `gpio in`: the level of a pin.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Surroundings, Use};
use crate::board::{Level, Pin, Pull};
use crate::flow::estimate::Load;
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Input, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends the level of a pin, 0 or 1: once at the start and at each edge. After a reload of the flow, only if it is another one than was
/// sent last.
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
        Ok(Box::new(Contact { topic, last: None }))
    }
}

struct Contact {
    topic: Text,
    /// What was sent last.
    last: Option<(Timestamp, Level)>,
}

impl Contact {
    fn is_known(&self, time: Timestamp, level: Level) -> bool {
        self.last.is_some_and(|(last_time, last_level)| {
            // The level at the start may be that of an edge which comes by itself too.
            last_level == level && last_time == time
        })
    }
}

impl Node for Contact {
    fn start(&mut self, cx: &mut Context<'_>) {
        cx.read_level();
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.last))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        if pause == Pause::Reload {
            self.last = state.read()?;
        }
        // After a reload the pin is armed as it was, and edges that wait come by themselves: the level would be one of theirs.
        if self.last.is_none() {
            self.start(cx);
        }
        Ok(())
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        match input {
            Input::Edge { time, level } if self.is_known(time, level) => {}
            Input::Edge { time, level } => {
                self.last = Some((time, level));
                let level = if level == Level::High { 1.0 } else { 0.0 };
                cx.originate(self.topic.clone(), Value::Number(level), time);
            }
            Input::Reading {
                value: Err(reason), ..
            } => cx.fail(reason),
            Input::Reading { value: Ok(_), .. } | Input::Pulses { .. } | Input::Message { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::graph;
    use crate::runtime::Now;
    use crate::runtime::engine::{Engine, Event};
    use crate::runtime::node::{Address, Effect};

    #[test]
    fn levels_are_sent_and_one_that_is_told_twice_once() {
        let flow =
            "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'";
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(graph(flow), Now::default(), &mut effects);
        let from = Address {
            flow: 0,
            node: crate::message::NodeId(0),
        };
        assert_eq!(
            effects,
            [Effect::ReadLevel { from }],
            "asked for at the start"
        );
        effects.clear();
        let edges = [
            (1, Level::High),
            (1, Level::High),
            (2, Level::High),
            (2, Level::Low),
            (3, Level::High),
        ];
        for (second, level) in edges {
            let time = Timestamp::from_millis(second * 1000);
            let input = Input::Edge { time, level };
            let event = Event::Input { to: from, input };
            engine.handle(Now::default(), event, &mut effects);
        }
        let input = Input::Reading {
            time: Timestamp::default(),
            value: Err("the pin is gone".into()),
        };
        engine.handle(
            Now::default(),
            Event::Input { to: from, input },
            &mut effects,
        );
        let sent: Vec<String> = effects
            .iter()
            .map(|effect| match effect {
                Effect::Debug { message, .. } => message.payload.to_json(),
                Effect::Failed { reason, .. } => format!("failed: {reason}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sent, ["1", "1", "0", "1", "failed: the pin is gone"]);
    }

    /// What is told after a pause, for levels that come then.
    fn after(pause: Pause, levels: &[(i64, Level)]) -> Vec<String> {
        let flow = graph(
            "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'",
        );
        let from = |flow| Address {
            flow,
            node: crate::message::NodeId(0),
        };
        let edge = |flow, second: i64, level| {
            let time = Timestamp::from_millis(second * 1000);
            let input = Input::Edge { time, level };
            let to = from(flow);
            Event::Input { to, input }
        };
        let now = Now::default();
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(flow.clone(), now, &mut effects);
        engine.handle(now, edge(0, 1, Level::High), &mut effects);
        effects.clear();
        let place = match pause {
            Pause::Reload => engine.replace(0, flow, now, &mut effects),
            Pause::Restart => {
                let checkpoint = engine.checkpoint(0, now).expect("it runs");
                Ok(engine.add_restored(flow, checkpoint, now, &mut effects))
            }
        };
        let place = place.expect("it can be built");
        let asks = (pause == Pause::Restart).then(|| Effect::ReadLevel { from: from(place) });
        assert_eq!(effects, Vec::from_iter(asks), "{pause:?}");
        effects.clear();
        for (second, level) in levels {
            engine.handle(now, edge(place, *second, *level), &mut effects);
        }
        let told = effects.iter().map(|effect| match effect {
            Effect::Debug { message, .. } => message.payload.to_json(),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    /// Edges that are still in the queue when the flow is swapped are pulses that are counted.
    #[test]
    fn edges_that_wait_at_a_reload_come_once_and_in_their_order() {
        let flow = graph(
            "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = 'door'",
        );
        let at = |flow| Address {
            flow,
            node: crate::message::NodeId(0),
        };
        let edge = |to, second: i64, level| Event::Input {
            to,
            input: Input::Edge {
                time: Timestamp::from_millis(second * 1000),
                level,
            },
        };
        let now = Now::default();
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(flow.clone(), now, &mut effects);
        engine.handle(now, edge(at(0), 1, Level::Low), &mut effects);
        effects.clear();
        let place = engine.replace(0, flow, now, &mut effects).expect("built");
        // As the driver does it: what is asked for is answered at once, by the level that holds.
        let asks = effects.contains(&Effect::ReadLevel { from: at(place) });
        effects.clear();
        if asks {
            engine.handle(now, edge(at(place), 4, Level::High), &mut effects);
        }
        for (second, level) in [(2, Level::High), (3, Level::Low), (4, Level::High)] {
            engine.handle(now, edge(at(0), second, level), &mut effects);
        }
        let seconds = effects.iter().map(|effect| match effect {
            Effect::Debug { message, .. } => message.time.as_nanos() / 1_000_000_000,
            other => panic!("{other:?}"),
        });
        assert_eq!(seconds.collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn after_a_restart_the_level_is_told_and_after_a_reload_only_edges_are() {
        use Level::{High, Low};
        assert_eq!(after(Pause::Reload, &[(1, High)]), [""; 0]);
        assert_eq!(after(Pause::Reload, &[(2, High), (3, Low)]), ["1", "0"]);
        assert_eq!(after(Pause::Reload, &[(2, Low), (3, Low)]), ["0", "0"]);
        assert_eq!(after(Pause::Restart, &[(1, High)]), ["1"]);
        assert_eq!(after(Pause::Restart, &[(2, Low)]), ["0"]);
    }
}
