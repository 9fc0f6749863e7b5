//! What flows remember, at rest: taken from running nodes, kept over a restart or handed to the next graph.
//!
//! Terms: the *state* of a node is what it needs to go on as if it had not stopped; a *checkpoint* is the states of all nodes of
//! a flow at one moment; the *print* of a node stands for its type and options, and a state is for nodes of the same print.
//!
//! A state is MessagePack with the names of its fields, so that one that does not fit is an error and never something else.
//! Monotonic times are written as they are: a clock that goes on from a checkpoint goes on in monotonic time too
//! ([`Clock`](crate::runtime::Clock)). A [`NodeId`] is written as the node's name, since places change with the file.
//!
//! Must not: do I/O.

use std::cell::RefCell;
use std::time::Duration;

use indexmap::IndexMap;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::{NodeId, Text, Timestamp};
use crate::runtime::clock::Now;

/// What one node remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(Vec<u8>);

/// A state is not what the node keeps: it is damaged, or from a version that kept something else.
#[derive(Debug, thiserror::Error)]
#[error("what it remembered cannot be read")]
pub struct StateError(#[source] rmp_serde::decode::Error);

impl StateError {
    /// A state that can be read, and yet does not fit the node.
    pub fn unfit(what: &str) -> StateError {
        StateError(rmp_serde::decode::Error::custom(what))
    }
}

impl State {
    /// What a node remembers, whatever type it keeps that in.
    pub fn of(remembered: &impl Serialize) -> State {
        State(
            rmp_serde::to_vec_named(remembered)
                .expect("nodes remember only what always has a form"),
        )
    }

    /// The same without the names of fields, for what is kept many times over: one that does not fit may go unnoticed, so the type says
    /// what it is, for example by a number that is raised when it changes.
    pub fn unnamed(remembered: &impl Serialize) -> State {
        State(rmp_serde::to_vec(remembered).expect("nodes remember only what always has a form"))
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> State {
        State(bytes)
    }

    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StateError> {
        rmp_serde::from_slice(&self.0).map_err(StateError)
    }
}

/// As bytes, not as a list of numbers.
impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = State;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<State, E> {
                Ok(State(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Why a node goes on from a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Its flow got another graph, at once: nothing was missed, pins are as they were.
    Reload,
    /// The process, or the flow, stopped and started again: time has passed, outputs are at their safe levels, and messages
    /// may have been missed or handled after the state was taken.
    Restart,
}

/// What a flow remembered at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The flow's name.
    pub flow: String,
    /// When it was taken, monotonic.
    pub mono: Duration,
    /// When it was taken, live time.
    pub wall: Timestamp,
    /// By the node's name.
    pub(super) nodes: IndexMap<Text, Remembered>,
}

impl Checkpoint {
    /// The time at which it was taken.
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall: self.wall,
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self, node: &str) -> Option<&State> {
        self.nodes.get(node)?.state.as_ref()
    }

    /// Whether it has the same states as another, whenever they were taken.
    pub fn remembers_the_same(&self, other: &Checkpoint) -> bool {
        self.nodes == other.nodes
    }

    /// Whether there is nothing in it to go on from.
    pub fn is_empty(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.all(|node| node.state.is_none() && !node.is_failing)
    }

    /// As bytes for a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a checkpoint always has a form")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, StateError> {
        rmp_serde::from_slice(bytes).map_err(StateError)
    }
}

/// One node of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// [`GraphNode::print`](crate::flow::GraphNode::print).
    pub(super) print: u32,
    /// Stands for what it reads: nodes and ports, by name.
    pub(super) wires: u32,
    pub(super) state: Option<State>,
    /// The wake-up that it had asked for, monotonic.
    pub(super) wake: Option<Duration>,
    /// Whether those that watch it were told that it is failing.
    pub(super) is_failing: bool,
}

/// For `serde(with)`: a value that is there or not, and may be null itself. A plain option of null would come back as none.
pub mod maybe {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::message::Value;

    pub fn serialize<S: Serializer>(value: &Option<Value>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| [value]).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
        let value = Option::<[Value; 1]>::deserialize(from)?;
        Ok(value.map(|[value]| value))
    }
}

thread_local! {
    /// The nodes of the flow whose states are written or read at the moment.
    static NAMES: RefCell<Vec<Text>> = const { RefCell::new(Vec::new()) };
}

/// Writes or reads states of a flow: within `part`, its nodes go by these names.
pub(super) fn with_names<T>(names: Vec<Text>, part: impl FnOnce() -> T) -> T {
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            NAMES.take();
        }
    }
    NAMES.replace(names);
    let _forget = Forget;
    part()
}

/// The node's name, within [`with_names`]; of [`NodeId::GONE`] no name.
impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NAMES.with_borrow(|names| match names.get(usize::from(self.0)) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_str(""),
        })
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        let name = String::deserialize(deserializer)?;
        let place = NAMES.with_borrow(|names| names.iter().position(|known| **known == *name));
        let place = place.and_then(|place| u16::try_from(place).ok());
        Ok(place.map_or(NodeId::GONE, NodeId))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Value};

    fn names(names: &[&str]) -> Vec<Text> {
        names.iter().map(|name| Text::from(*name)).collect()
    }

    #[test]
    fn messages_survive_to_the_last_bit_and_their_sources_go_by_name() {
        let message = Message {
            topic: "a/b".into(),
            payload: Value::object([
                ("n", Value::from(f64::NAN)),
                ("x", Value::from(0.1)),
                ("i", Value::from(f64::NEG_INFINITY)),
                ("m", Value::from(-0.0)),
                ("z", Value::Null),
            ]),
            time: Timestamp::from_nanos(-1_234_567_890_123_456_789),
            source: NodeId(1),
            headers: Some(Default::default()),
        };
        let state = with_names(names(&["one", "two"]), || State::of(&message));
        let read = |names| with_names(names, || state.read::<Message>());
        let found = read(names(&["new", "two", "one"])).expect("both are there");
        // NaN is not equal to itself.
        assert_eq!(format!("{found:?}"), format!("{message:?}"));
        let found = read(names(&["two"])).expect("it is there");
        assert_eq!(found.source, NodeId(0));
        let found = read(names(&["one"])).expect("the message is still of use");
        assert_eq!(found.source, NodeId::GONE);
        let again = with_names(names(&["one"]), || State::of(&found).read::<Message>());
        assert_eq!(again.expect("it can be kept again").source, NodeId::GONE);
    }

    #[test]
    fn a_state_of_another_shape_is_an_error() {
        #[derive(Serialize, Deserialize)]
        struct Before {
            total: f64,
        }
        #[derive(Debug, Deserialize)]
        struct After {
            #[expect(dead_code, reason = "only whether it can be read counts")]
            sum: f64,
        }
        let state = State::of(&Before { total: 1.0 });
        assert!(state.read::<After>().is_err());
        assert_eq!(state.read::<Before>().expect("the same").total, 1.0);
    }

    #[test]
    fn a_checkpoint_survives_as_bytes_and_garbage_does_not() {
        let remembered = Remembered {
            print: 7,
            wires: 8,
            state: Some(State::of(&[1, 2, 300])),
            wake: Some(Duration::from_millis(1_500)),
            is_failing: true,
        };
        let checkpoint = Checkpoint {
            flow: "a".into(),
            mono: Duration::from_nanos(1),
            wall: Timestamp::from_nanos(-5),
            nodes: [("n".into(), remembered)].into(),
        };
        let bytes = checkpoint.to_bytes();
        assert_eq!(
            Checkpoint::from_bytes(&bytes).expect("as written"),
            checkpoint
        );
        for cut in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
