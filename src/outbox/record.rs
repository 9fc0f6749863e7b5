//! The words of the outbox: what a flow wants sent ([`Draft`]), a message at rest ([`Record`]) and its name
//! ([`RecordId`]).
//!
//! Must not: know sled, MQTT or flows.

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

/// What an `uplink` node asks to be delivered. It becomes a [`Record`] when the outbox numbers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub topic: String,
    /// The payload as JSON text, without the envelope.
    pub payload: Bytes,
    pub time: Timestamp,
    pub retain: bool,
    pub envelope: Envelope,
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

/// A message at rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: RecordId,
    pub draft: Draft,
}
