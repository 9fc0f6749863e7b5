//! The words of the outbox: what a flow wants sent ([`Draft`]), a message at rest ([`Record`]), its name ([`RecordId`]) and
//! the queue it waits in ([`Lane`]).
//!
//! Must not: know sled, MQTT or flows.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::Timestamp;

/// How a record's payload is dressed on the wire.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// `{"device","epoch","seq","time","payload"}`: the receiver can tell duplicates.
    #[default]
    Json,
    /// The payload alone: duplicates cannot be told.
    None,
}

/// Which records go first when not all can go at once, and which stay when not all can stay.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// A queue of the outbox. Records of one lane are delivered in the order of their ids; between lanes there is no order.
/// Decision 0018 has the reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    pub priority: Priority,
    /// What is new goes before what waited while the link was down.
    pub live_first: bool,
}

impl Lane {
    /// All there are, in the order in which they are served.
    pub const ALL: [Lane; 6] = [
        Lane::new(Priority::High, true),
        Lane::new(Priority::High, false),
        Lane::new(Priority::Normal, true),
        Lane::new(Priority::Normal, false),
        Lane::new(Priority::Low, true),
        Lane::new(Priority::Low, false),
    ];

    /// Its place in [`Lane::ALL`].
    pub(super) const fn index(self) -> usize {
        let priority = match self.priority {
            Priority::High => 0,
            Priority::Normal => 2,
            Priority::Low => 4,
        };
        priority + !self.live_first as usize
    }

    const fn new(priority: Priority, live_first: bool) -> Lane {
        Lane {
            priority,
            live_first,
        }
    }
}

/// What an `uplink` node asks to be delivered. It becomes a [`Record`] when the outbox numbers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub topic: String,
    /// The payload as JSON text, without the envelope.
    pub payload: Bytes,
    pub time: Timestamp,
    pub retain: bool,
    pub envelope: Envelope,
    pub priority: Priority,
    pub live_first: bool,
    /// How long after `time` it is worth delivering; for ever without it.
    pub expires: Option<Duration>,
    /// Where it goes instead of `topic` when it is replayed.
    pub replay_topic: Option<String>,
}

impl Draft {
    /// A draft with the defaults of an `uplink` node.
    pub fn new(topic: String, payload: Bytes, time: Timestamp) -> Draft {
        Draft {
            topic,
            payload,
            time,
            retain: false,
            envelope: Envelope::default(),
            priority: Priority::default(),
            live_first: false,
            expires: None,
            replay_topic: None,
        }
    }

    /// From when on it is not worth delivering.
    pub fn expires_at(&self) -> Option<Timestamp> {
        Some(self.time.saturating_add(self.expires?))
    }

    /// The queue it waits in.
    pub fn lane(&self) -> Lane {
        Lane::new(self.priority, self.live_first)
    }
}

/// The name of a record on this device, for ever: no two share it, whatever crashes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RecordId {
    /// Counts the starts of this device.
    pub epoch: u64,
    /// Counts the records of one start, from 1.
    pub seq: u64,
}

/// Where a record is found: its lane and its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub lane: Lane,
    pub id: RecordId,
}

/// What a record stands for that was made from several when the outbox was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The first of them. The last one gave the record its own id.
    pub from: RecordId,
    /// How many they were.
    pub count: u64,
}

/// A message at rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: RecordId,
    pub draft: Draft,
    /// None for a record as a flow made it.
    pub merged: Option<Merged>,
}

impl Record {
    /// A record as a flow made it.
    pub fn new(id: RecordId, draft: Draft) -> Record {
        Record {
            id,
            draft,
            merged: None,
        }
    }

    pub fn key(&self) -> Key {
        Key {
            lane: self.draft.lane(),
            id: self.id,
        }
    }
}
