//! The keys of a window node, within a bound, and which of them has a window to close next.
//!
//! Terms: a key's *place* stays the same as long as the key is known; its *rank* says how many keys came before it. A key is
//! *busy* while it has an open window or a message that waits; when it is not, its place may go to a new key.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::message::{Text, Timestamp};

/// Keys, each with what is kept for it. What follows from the slots is not written.
#[derive(Serialize, Deserialize)]
pub(super) struct Keys<T> {
    #[serde(skip)]
    most: usize,
    #[serde(skip)]
    places: HashMap<Text, usize>,
    slots: Vec<Slot<T>>,
    /// The rank of the next new key.
    next_rank: u64,
    /// The places of keys that are not busy, with a number that is greater the later they became so.
    #[serde(skip)]
    idle: BTreeSet<(u64, usize)>,
    next_idle: u64,
    /// When keys have something due: by time, then rank. At most one entry for each key.
    #[serde(skip)]
    due: BTreeSet<(Timestamp, u64, usize)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Slot<T> {
    /// None for the one key of a node that tells none apart.
    pub(super) name: Option<Text>,
    pub(super) kept: T,
    /// Messages that wait.
    pub(super) waiting: usize,
    rank: u64,
    idle: Option<u64>,
    due: Option<Timestamp>,
}

impl<T> Keys<T> {
    /// After these have been read: makes what is not written.
    pub(super) fn complete(&mut self, most: usize) {
        self.most = most;
        for (place, slot) in self.slots.iter().enumerate() {
            let name = slot.name.clone();
            self.places.extend(name.map(|name| (name, place)));
            self.idle.extend(slot.idle.map(|idle| (idle, place)));
            self.due.extend(slot.due.map(|due| (due, slot.rank, place)));
        }
    }

    pub(super) fn slots(&self) -> &[Slot<T>] {
        &self.slots
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Slot<T>] {
        &mut self.slots
    }
}

impl<T: Default> Keys<T> {
    /// At most so many keys, none yet.
    pub(super) fn new(most: usize) -> Keys<T> {
        Keys {
            most,
            places: HashMap::new(),
            slots: Vec::new(),
            next_rank: 0,
            idle: BTreeSet::new(),
            next_idle: 0,
            due: BTreeSet::new(),
        }
    }

    /// One key for everything; its place is 0.
    pub(super) fn one() -> Keys<T> {
        let mut keys = Keys::new(1);
        let slot = keys.new_slot(None);
        keys.slots.push(slot);
        keys
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// A place for a new key. If it was another key's, what was kept for that one comes along. None if all are busy.
    pub(super) fn add(&mut self, name: Text) -> Option<(usize, Option<T>)> {
        let mut slot = self.new_slot(Some(name.clone()));
        if self.slots.len() < self.most {
            self.slots.push(slot);
            self.places.insert(name, self.slots.len() - 1);
            return Some((self.slots.len() - 1, None));
        }
        let (_, place) = self.idle.pop_first()?;
        std::mem::swap(&mut self.slots[place], &mut slot);
        if let Some(due) = slot.due {
            self.due.remove(&(due, slot.rank, place));
        }
        if let Some(name) = slot.name {
            self.places.remove(&name);
        }
        self.places.insert(name, place);
        Some((place, Some(slot.kept)))
    }

    fn new_slot(&mut self, name: Option<Text>) -> Slot<T> {
        self.next_rank = self.next_rank.saturating_add(1);
        Slot {
            name,
            kept: T::default(),
            waiting: 0,
            rank: self.next_rank,
            idle: None,
            due: None,
        }
    }

    pub(super) fn slot(&self, place: usize) -> &Slot<T> {
        &self.slots[place]
    }

    #[inline]
    pub(super) fn slot_mut(&mut self, place: usize) -> &mut Slot<T> {
        &mut self.slots[place]
    }

    /// After a change of a key: whether it has an open window, and when it will have something due. The place may be
    /// called up earlier than that, if it was due earlier before.
    pub(super) fn settle(&mut self, place: usize, is_open: bool, due: Option<Timestamp>) {
        let slot = &mut self.slots[place];
        match (is_open || slot.waiting > 0, slot.idle) {
            (true, Some(idle)) => {
                self.idle.remove(&(idle, place));
                slot.idle = None;
            }
            (false, None) => {
                self.idle.insert((self.next_idle, place));
                slot.idle = Some(self.next_idle);
                self.next_idle = self.next_idle.saturating_add(1);
            }
            _ => {}
        }
        if let Some(due) = due.filter(|due| slot.due.is_none_or(|known| *due < known)) {
            if let Some(known) = slot.due.replace(due) {
                self.due.remove(&(known, slot.rank, place));
            }
            self.due.insert((due, slot.rank, place));
        }
    }

    /// The earliest time at which a key may have something due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, ..)| *due)
    }

    /// Takes the key off that is due next.
    pub(super) fn take_due(&mut self) -> Option<usize> {
        let (_, _, place) = self.due.pop_first()?;
        self.slots[place].due = None;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64) -> Option<Timestamp> {
        Some(Timestamp::from_nanos(nanos))
    }

    fn add(keys: &mut Keys<u8>, name: &str) -> Option<usize> {
        let place = keys.add(name.into())?.0;
        keys.settle(place, true, None);
        Some(place)
    }

    #[test]
    fn the_longest_idle_key_gives_up_its_place_and_busy_ones_do_not() {
        let mut keys = Keys::new(2);
        let (a, b) = (add(&mut keys, "a").unwrap(), add(&mut keys, "b").unwrap());
        assert_eq!(add(&mut keys, "c"), None, "both are busy");
        keys.settle(b, false, None);
        keys.settle(a, false, None);
        keys.slot_mut(b).kept = 7;
        assert_eq!(keys.add("c".into()), Some((b, Some(7))));
        assert_eq!((keys.find("b"), keys.find("c")), (None, Some(b)));
        keys.settle(b, true, None);
        keys.slot_mut(a).waiting = 1;
        keys.settle(a, false, None);
        assert_eq!(add(&mut keys, "d"), None, "a message waits for `a`");
    }

    #[test]
    fn keys_are_due_by_time_and_then_as_they_came() {
        let mut keys = Keys::new(4);
        for name in ["a", "b", "c"] {
            add(&mut keys, name);
        }
        keys.settle(2, true, at(5));
        keys.settle(0, true, at(9));
        keys.settle(1, true, at(5));
        keys.settle(0, true, at(4));
        keys.settle(0, true, at(8));
        assert_eq!(keys.next_due(), at(4), "an earlier call stays");
        let due: Vec<usize> = std::iter::from_fn(|| keys.take_due()).collect();
        assert_eq!(due, [0, 1, 2]);
    }

    #[test]
    fn what_was_due_goes_with_its_key() {
        let mut keys = Keys::new(1);
        let place = add(&mut keys, "a").unwrap();
        keys.settle(place, false, at(5));
        add(&mut keys, "b");
        assert_eq!(keys.next_due(), None);
    }
}
