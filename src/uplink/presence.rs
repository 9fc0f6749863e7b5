//! Who is there: a retained message that says whether a device is online, with which program and which flows.
//!
//! It goes through the same session as records do, in the same order: *online* is the first that a connection sends, and *offline* the
//! last before a stop, after all that was on its way. When the connection ends without a word, the broker says *offline* in the
//! device's stead: it was given that as the last will, when the connection was made.
//!
//! Must not: go through the outbox; what was true an hour ago is not worth keeping.

use serde_json::json;
use tokio::sync::watch;

use super::wire::{Packet, publish_size};
use crate::message::Timestamp;
use crate::runtime::driver::Prints;

/// What is said, and where.
#[derive(Clone, Debug)]
pub struct Presence {
    pub topic: String,
    /// The flows that run.
    pub flows: watch::Receiver<Prints>,
}

/// Why a device is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Stopped,
    Lost,
}

impl Presence {
    /// For a connection that has just been made, and when the flows have changed.
    pub(super) fn online(&mut self, device: &str, now: Timestamp) -> Packet {
        let flows = self.flows.borrow_and_update().clone();
        self.packet(&json!({
            "device": device,
            "status": "online",
            "time": now.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "flows": flows,
        }))
    }

    /// Before a stop.
    pub(super) fn offline(&self, device: &str, now: Timestamp) -> Packet {
        self.packet(&gone(device, Reason::Stopped, Some(now)))
    }

    /// What the broker is to say when the connection ends without a word.
    pub(super) fn last_will(&self, device: &str) -> Packet {
        self.packet(&gone(device, Reason::Lost, None))
    }

    fn packet(&self, payload: &serde_json::Value) -> Packet {
        let payload = payload.to_string().into_bytes();
        Packet {
            size: publish_size(self.topic.len(), payload.len()),
            topic: self.topic.clone(),
            payload,
            retain: true,
        }
    }
}

/// The last will has no time: it is written before.
fn gone(device: &str, reason: Reason, time: Option<Timestamp>) -> serde_json::Value {
    let reason = match reason {
        Reason::Stopped => "stopped",
        Reason::Lost => "lost",
    };
    let mut payload = json!({ "device": device, "status": "offline", "reason": reason });
    if let Some(time) = time {
        payload["time"] = json!(time.to_string());
    }
    payload
}
