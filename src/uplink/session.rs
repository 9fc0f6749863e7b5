//! The uplink session: which record may be handed over next, and which one a PUBACK has acknowledged.
//!
//! A pure state machine: no socket, no clock, no future. It decides guarantee 6 (nothing is deleted without its own
//! PUBACK) and guarantee 7 (duplicates only after a reconnect, at most a window of them; order kept).
//!
//! Terms: a record is *handed over* when the MQTT client has taken it; it is *paired* when the client has told the
//! packet id it was sent under; the *window* is the greatest number of records handed over and not acknowledged; the
//! *cursor* is the last record passed, handed over or not.

use std::collections::{HashMap, VecDeque};

use crate::outbox::RecordId;

/// The state of one session. It outlives connections: each of them starts it afresh.
#[derive(Debug)]
pub(super) struct Session {
    window: usize,
    connected: bool,
    cursor: Option<RecordId>,
    /// Handed over, not yet paired; in the order of the hand-over.
    unpaired: VecDeque<Handed>,
    /// Paired, not yet acknowledged: packet id -> record.
    in_flight: HashMap<u16, RecordId>,
    /// The last record that was ever sent; what is sent again is not later than this.
    sent_up_to: Option<RecordId>,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    id: RecordId,
    bytes: usize,
}

/// A record that has just been paired: what to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The size of its PUBLISH packet.
    pub(super) bytes: usize,
    /// It had been sent before, on an earlier connection.
    pub(super) again: bool,
}

/// The client's packet ids do not fit what was handed over: nothing it says can be trusted until the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet id {0} was sent without a record, or while it was still in flight")]
pub(super) struct Mispaired(pub(super) u16);

impl Session {
    /// A session, not connected, that has at most `window` records handed over and unacknowledged.
    pub(super) fn new(window: u16) -> Session {
        let window = usize::from(window);
        Session {
            window,
            connected: false,
            cursor: None,
            unpaired: VecDeque::with_capacity(window),
            in_flight: HashMap::with_capacity(window),
            sent_up_to: None,
        }
    }

    /// A connection stands: hand-over may begin.
    pub(super) fn connected(&mut self) {
        self.connected = true;
    }

    /// The connection is gone, and with it every packet id. The next one starts with the oldest record that the backlog
    /// still has: that is the oldest unacknowledged one, for acknowledged ones are gone.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.cursor = None;
        self.unpaired.clear();
        self.in_flight.clear();
    }

    /// How many records may be handed over now.
    pub(super) fn room(&self) -> usize {
        if self.connected {
            self.window.saturating_sub(self.outstanding())
        } else {
            0
        }
    }

    /// How many records are handed over and unacknowledged.
    pub(super) fn outstanding(&self) -> usize {
        self.unpaired.len() + self.in_flight.len()
    }

    /// The oldest record that is handed over and unacknowledged.
    pub(super) fn oldest(&self) -> Option<RecordId> {
        let unpaired = self.unpaired.front().map(|handed| handed.id);
        self.in_flight.values().copied().chain(unpaired).min()
    }

    /// The record after which the next ones are wanted.
    pub(super) fn cursor(&self) -> Option<RecordId> {
        self.cursor
    }

    /// The client has taken a record, whose packet has this size.
    pub(super) fn hand_over(&mut self, id: RecordId, bytes: usize) {
        debug_assert!(self.room() > 0, "the window is full");
        self.unpaired.push_back(Handed { id, bytes });
        self.pass_over(id);
    }

    /// A record was looked at and is not sent, as it never can be.
    pub(super) fn pass_over(&mut self, id: RecordId) {
        debug_assert!(self.cursor < Some(id), "records come in order");
        self.cursor = Some(id);
    }

    /// The client has sent the next record under this packet id.
    pub(super) fn published(&mut self, packet_id: u16) -> Result<Sent, Mispaired> {
        if self.in_flight.contains_key(&packet_id) {
            return Err(Mispaired(packet_id));
        }
        let Handed { id, bytes } = self.unpaired.pop_front().ok_or(Mispaired(packet_id))?;
        self.in_flight.insert(packet_id, id);
        let again = self.sent_up_to >= Some(id);
        self.sent_up_to = self.sent_up_to.max(Some(id));
        Ok(Sent { bytes, again })
    }

    /// The broker has sent a PUBACK. The record it acknowledges, or none: then it is to be counted as unexpected.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Option<RecordId> {
        self.in_flight.remove(&packet_id)
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
