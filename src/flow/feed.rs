//! Graphs whose sources are fed from outside: recorded data or a test in the place of sensors.
//!
//! A *fed* source does nothing by itself and needs nothing of the board. A message that is delivered to it goes out of its first
//! port, with the source's own topic if it has none; a reading that failed fails it.

use std::collections::HashSet;
use std::sync::Arc;

use super::graph::Graph;
use crate::message::{Message, NodeId, Text};
use crate::nodes::{BuildError, Spec, Surroundings};
use crate::runtime::node::{Context, Input, Node};

impl Graph {
    /// The same graph with some of its sources fed from outside.
    pub fn fed(&self, sources: &HashSet<NodeId>) -> Graph {
        let mut nodes = self.nodes.clone();
        for source in sources {
            let node = &mut nodes[usize::from(source.0)];
            debug_assert!(!node.node_type.has_input, "only sources are fed");
            node.spec = Arc::new(Fed {
                ports: node.ports.clone(),
            });
            node.uses.clear();
        }
        Graph {
            name: self.name.clone(),
            description: self.description.clone(),
            nodes,
            vars: self.vars.clone(),
            print: self.print,
        }
    }
}

#[derive(Debug)]
struct Fed {
    ports: Vec<String>,
}

impl Spec for Fed {
    fn ports(&self) -> Vec<String> {
        self.ports.clone()
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Feed {
            topic: site.own_topic(),
        }))
    }
}

struct Feed {
    topic: Text,
}

impl Node for Feed {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if message.topic.is_empty() {
            message.topic = self.topic.clone();
        }
        cx.pass(0);
    }

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        if let Input::Reading { value, time } = input {
            match value {
                Ok(value) => cx.originate(self.topic.clone(), value, time),
                Err(reason) => cx.fail(reason),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::graph;
    use crate::runtime::{Address, Effect, Engine, Event, Now};

    #[test]
    fn a_fed_source_sends_what_it_is_fed_and_nothing_by_itself() {
        let flow = graph(
            "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'",
        );
        let fed = flow.fed(&[NodeId(0)].into());
        assert_eq!(fed.uses().count(), 0);
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(Arc::new(fed), Now::default(), &mut effects);
        assert_eq!((engine.next_wake(), effects.len()), (None, 0));
        let to = Address {
            flow: 0,
            node: NodeId(0),
        };
        let message = |topic: &str| Message {
            topic: topic.into(),
            payload: 1.0.into(),
            time: Timestamp::from_millis(5),
            source: NodeId(1),
            headers: None,
        };
        let messages = vec![message("own"), message("")];
        engine.handle(
            Now::default(),
            Event::Messages { to, messages },
            &mut effects,
        );
        let failed = Input::Reading {
            time: Timestamp::default(),
            value: Err("broken".into()),
        };
        let event = Event::Input { to, input: failed };
        engine.handle(Now::default(), event, &mut effects);
        let found = effects.iter().map(|effect| match effect {
            Effect::Debug { message, .. } => {
                assert_eq!(
                    (message.source, &message.payload),
                    (NodeId(0), &Value::from(1.0))
                );
                assert_eq!(message.time, Timestamp::from_millis(5));
                message.topic.to_string()
            }
            Effect::Failed { reason, .. } => reason.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), ["own", "test/tick", "broken"]);
    }
}
