//! Links: messages on their way from `link out` to `link in` nodes, within an engine and from one to the other.
//!
//! They go through the *link queue* of the engine that has the `link in`, also when it has the `link out` as well: so a loop
//! of links comes to rest between messages. The queue takes [`LINKED`] messages; one that finds it full is dropped and
//! counted, and its `link out` fails.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::flow::Graph;
use crate::message::{Message, Text, Timestamp, Value};
use crate::nodes::Link;
use crate::runtime::engine::Event;
use crate::runtime::node::{Address, Input};

/// Messages that wait in one link queue.
const LINKED: usize = 8_192;

/// A message in a link queue, and the `link in` that it is for.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) to: Address,
    pub(super) message: Message,
}

/// The `link in` nodes of each link that one engine has.
pub(super) type Ends = HashMap<Text, Vec<Address>>;

impl From<Linked> for Event {
    fn from(linked: Linked) -> Event {
        Event::Messages {
            to: linked.to,
            messages: vec![linked.message],
        }
    }
}

/// The way into the link queue of one engine.
#[derive(Clone)]
pub(super) struct LinkQueue {
    /// What messages to the user call the engine.
    engine: &'static str,
    ends: Arc<Ends>,
    queue: Sender<Linked>,
}

/// A link queue did not take a message, or not for every `link in`.
#[derive(Debug, thiserror::Error)]
#[error("the link queue of the {engine} is {state}")]
pub(super) struct LinkError {
    engine: &'static str,
    state: &'static str,
    /// How many `link in` nodes did not get it.
    pub(super) dropped: u64,
}

impl LinkQueue {
    /// The link queue of an engine that has these flows.
    pub(super) fn new(engine: &'static str, flows: &[Arc<Graph>]) -> (LinkQueue, Receiver<Linked>) {
        let flows = flows.iter().map(Arc::as_ref);
        LinkQueue::with_ends(engine, Arc::new(ends((0..).zip(flows))))
    }

    pub(super) fn with_ends(
        engine: &'static str,
        ends: Arc<Ends>,
    ) -> (LinkQueue, Receiver<Linked>) {
        let (queue, receiver) = bounded(LINKED);
        let queue = LinkQueue {
            engine,
            ends,
            queue,
        };
        (queue, receiver)
    }

    /// From now on the engine has these.
    pub(super) fn lead_to(&mut self, ends: Arc<Ends>) {
        self.ends = ends;
    }

    /// Hands on what came to the wrong engine. Says whether there was room.
    pub(super) fn hand_on(&self, to: Address, message: Message) -> bool {
        self.queue.try_send(Linked { to, message }).is_ok()
    }

    /// Sends a copy to each `link in` of the link that the engine has.
    pub(super) fn send(&self, link: &str, message: &Message) -> Result<(), LinkError> {
        let mut dropped = 0;
        let mut state = "";
        for to in self.ends.get(link).into_iter().flatten() {
            let mut message = message.clone();
            // The old one is a node of another flow.
            message.source = to.node;
            match self.queue.try_send(Linked { to: *to, message }) {
                Ok(()) => continue,
                Err(TrySendError::Full(_)) => state = "full",
                Err(TrySendError::Disconnected(_)) => state = "closed, because it stops",
            }
            dropped += 1;
        }
        if dropped == 0 {
            return Ok(());
        }
        Err(LinkError {
            engine: self.engine,
            state,
            dropped,
        })
    }
}

/// The `link in` nodes of an engine's flows, by their places.
pub(super) fn ends<'a>(flows: impl IntoIterator<Item = (u32, &'a Graph)>) -> Ends {
    let mut ends = Ends::new();
    for (flow, graph) in flows {
        for (node, link) in graph.links() {
            if let Link::In(name) = link {
                ends.entry(name).or_default().push(Address { flow, node });
            }
        }
    }
    ends
}

/// What a `link out` that was failing hears when its link takes a message again.
pub(super) fn taken(link_out: Address, time: Timestamp) -> Event {
    let input = Input::Reading {
        time,
        value: Ok(Value::Null),
    };
    Event::Input {
        to: link_out,
        input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::NodeId;
    use crate::nodes::testing::graph;

    fn message(number: f64) -> Message {
        Message {
            topic: "t".into(),
            payload: Value::Number(number),
            time: Timestamp::from_millis(7),
            source: NodeId(5),
            headers: Some(Arc::default()),
        }
    }

    /// Two flows: the first reads `x` twice, the second `x` and `y`.
    fn queue() -> (LinkQueue, Receiver<Linked>) {
        let flow = |first, second| {
            graph(&format!(
                "[nodes.show]\ntype = 'debug'\nfrom = ['a', 'b']\n\
                 [nodes.a]\ntype = 'link in'\nlink = '{first}'\n[nodes.b]\ntype = 'link in'\nlink = '{second}'"
            ))
        };
        LinkQueue::new("test engine", &[flow("x", "x"), flow("x", "y")])
    }

    #[test]
    fn each_end_gets_a_copy_of_its_own() {
        let (links, queue) = queue();
        let check = |link: &str, expected: &[(u32, u16)]| {
            links.send(link, &message(1.0)).unwrap();
            let got = queue.try_iter().map(|Linked { to, message }| {
                assert_eq!(message.source, to.node);
                let source = NodeId(5);
                assert_eq!(Message { source, ..message }, self::message(1.0));
                (to.flow, to.node.0)
            });
            assert_eq!(got.collect::<Vec<_>>(), expected, "{link}");
        };
        check("x", &[(0, 1), (0, 2), (1, 1)]);
        check("y", &[(1, 2)]);
        check("z", &[]);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said() {
        let (links, queue) = queue();
        for _ in 0..LINKED - 1 {
            links.send("y", &message(0.0)).unwrap();
        }
        let error = links.send("x", &message(1.0)).unwrap_err();
        assert_eq!(error.dropped, 2, "there was room for one of three");
        assert_eq!(
            error.to_string(),
            "the link queue of the test engine is full"
        );
        assert_eq!(queue.len(), LINKED);
        drop(queue);
        let error = links.send("y", &message(1.0)).unwrap_err();
        assert!(error.to_string().ends_with("is closed, because it stops"));
    }
}
