//! The uplink session: which record may be handed over next, and which one a PUBACK has acknowledged.
//!
//! A pure state machine: no socket, no clock, no future. It decides guarantee 6 (nothing is deleted without its own
//! PUBACK) and guarantee 7 (duplicates only after a reconnect, at most a window of them; order kept).
//!
//! Terms: a record is *handed over* when the MQTT client has taken it; it is *paired* when the client has told the
//! packet id it was sent under; the *window* is the greatest number of records handed over and not acknowledged; the
//! *cursor* is the last record passed, handed over or not; a *part* is what has a cursor: a lane, or of a `live_first` lane
//! what is live (later than the *boundary*, the last id when the connection came up) or what is replayed (not later).

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::outbox::{Key, Lane, Priority, RecordId};

/// What has a cursor of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) lane: Lane,
    pub(super) replayed: bool,
}

impl Part {
    /// All there are, in the order of service: docs/decisions/0018-lanes.md.
    pub(super) const ALL: [Part; 9] = [
        Part::new(Priority::High, true, false),
        Part::new(Priority::High, false, false),
        Part::new(Priority::High, true, true),
        Part::new(Priority::Normal, true, false),
        Part::new(Priority::Normal, false, false),
        Part::new(Priority::Normal, true, true),
        Part::new(Priority::Low, true, false),
        Part::new(Priority::Low, false, false),
        Part::new(Priority::Low, true, true),
    ];

    const fn new(priority: Priority, live_first: bool, replayed: bool) -> Part {
        let lane = Lane {
            priority,
            live_first,
        };
        Part { lane, replayed }
    }

    /// Its place in the order of service.
    fn index(self) -> usize {
        let found = Part::ALL.iter().position(|part| *part == self);
        found.expect("a part is one of all parts")
    }
}

/// The state of one session. It outlives connections: each of them starts it afresh.
#[derive(Debug)]
pub(super) struct Session {
    window: usize,
    connected: bool,
    boundary: RecordId,
    cursors: [Option<RecordId>; Part::ALL.len()],
    /// How many have been handed over, on all connections.
    handed: u64,
    /// Handed over, not yet paired; in the order of the hand-over.
    unpaired: VecDeque<Handed>,
    /// Paired, not yet acknowledged, by packet id.
    in_flight: HashMap<u16, Handed>,
    /// Sent, on whatever connection, and not acknowledged. For the count of what is sent again only, so at most four windows.
    sent: BTreeSet<RecordId>,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    /// How many were handed over before it.
    number: u64,
    /// None for what the uplink says of itself.
    key: Option<Key>,
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

/// What a PUBACK acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    Record(Key),
    /// What the uplink said of itself.
    Announcement,
    /// It is to be counted as unexpected.
    Nothing,
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
            boundary: RecordId::default(),
            handed: 0,
            cursors: Default::default(),
            unpaired: VecDeque::with_capacity(window),
            in_flight: HashMap::with_capacity(window),
            sent: BTreeSet::new(),
        }
    }

    /// A connection stands: hand-over may begin. `last` is the id that was given last: what comes later is live.
    pub(super) fn connected(&mut self, last: RecordId) {
        self.connected = true;
        self.boundary = last;
        self.cursors =
            Part::ALL.map(|part| (part.lane.live_first && !part.replayed).then_some(last));
    }

    /// The connection is gone, and with it every packet id. The next one starts with the oldest record that the backlog
    /// still has: that is the oldest unacknowledged one, for acknowledged ones are gone.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.cursors = Default::default();
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

    /// What has been unacknowledged for the longest time: the number of its hand-over, which no other one has.
    pub(super) fn oldest(&self) -> Option<u64> {
        let handed = self.in_flight.values().chain(self.unpaired.front());
        handed.map(|handed| handed.number).min()
    }

    /// The record after which the next ones of a part are wanted.
    pub(super) fn cursor(&self, part: Part) -> Option<RecordId> {
        self.cursors[part.index()]
    }

    /// Whether a record of the part's lane belongs to the part.
    pub(super) fn takes(&self, part: Part, id: RecordId) -> bool {
        !part.lane.live_first || part.replayed == self.is_from_before(id)
    }

    /// Whether a record waited when the connection came up.
    pub(super) fn is_from_before(&self, id: RecordId) -> bool {
        id <= self.boundary
    }

    /// The client has taken a record, whose packet has this size.
    pub(super) fn hand_over(&mut self, part: Part, id: RecordId, bytes: usize) {
        debug_assert!(self.room() > 0, "the window is full");
        let key = Key {
            lane: part.lane,
            id,
        };
        let key = Some(key);
        self.push(key, bytes);
        self.pass_over(part, id);
    }

    /// The client has taken a packet of this size that is no record.
    pub(super) fn announce(&mut self, bytes: usize) {
        debug_assert!(self.room() > 0, "the window is full");
        self.push(None, bytes);
    }

    fn push(&mut self, key: Option<Key>, bytes: usize) {
        let number = self.handed;
        self.handed += 1;
        self.unpaired.push_back(Handed { number, key, bytes });
    }

    /// A record was looked at and is not sent, as it never can be.
    pub(super) fn pass_over(&mut self, part: Part, id: RecordId) {
        debug_assert!(self.takes(part, id), "a part ends at the boundary");
        let cursor = &mut self.cursors[part.index()];
        debug_assert!(*cursor < Some(id), "records come in order");
        *cursor = Some(id);
    }

    /// The client has sent the next record under this packet id.
    pub(super) fn published(&mut self, packet_id: u16) -> Result<Sent, Mispaired> {
        if self.in_flight.contains_key(&packet_id) {
            return Err(Mispaired(packet_id));
        }
        let handed = self.unpaired.pop_front().ok_or(Mispaired(packet_id))?;
        self.in_flight.insert(packet_id, handed);
        let Handed { key, bytes, .. } = handed;
        let again = key.is_some_and(|key| !self.sent.insert(key.id));
        if self.sent.len() > 4 * self.window {
            self.sent.pop_first();
        }
        Ok(Sent { bytes, again })
    }

    /// The broker has sent a PUBACK.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Acknowledged {
        let handed = self.in_flight.remove(&packet_id);
        match handed.map(|handed| handed.key) {
            Some(Some(key)) => {
                self.sent.remove(&key.id);
                Acknowledged::Record(key)
            }
            Some(None) => Acknowledged::Announcement,
            None => Acknowledged::Nothing,
        }
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
