//! One lane of the books: what is pending, what lies on disk in groups, and what is settled.
//!
//! Must not: know the other lanes, the ledger, or how much memory there is.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::message::Timestamp;
use crate::outbox::group::size_of;
use crate::outbox::record::{Record, RecordId};
use crate::outbox::settled::Settled;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) record: Arc<Record>,
    pub(super) since: Duration,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) generation: u32,
    /// The seq of its last record. Not every seq before it need be in the group.
    pub(super) last: u64,
    /// How many of its records are not settled. A group without any is forgotten.
    pub(super) live: u64,
    /// What all of its records take, settled ones included.
    pub(super) bytes: usize,
    pub(super) loaded: Option<Loaded>,
    /// When the last of its records expires; none if one never does.
    pub(super) expires_at: Option<Timestamp>,
    /// A reader has seen records of it, which may be on their way.
    pub(super) is_shown: bool,
    /// It is being merged: no reader sees it.
    pub(super) is_busy: bool,
    /// Next to nothing of it can be merged.
    pub(super) is_tried: bool,
}

impl Group {
    pub(super) fn new(
        generation: u32,
        records: &[Arc<Record>],
        live: u64,
        is_shown: bool,
    ) -> Group {
        Group {
            generation,
            last: records.last().map_or(0, |record| record.id.seq),
            live,
            bytes: bytes_of(records),
            loaded: None,
            expires_at: expires_at(records),
            is_shown,
            is_busy: false,
            is_tried: false,
        }
    }
}

/// What records take in a group, about.
pub(in crate::outbox) fn bytes_of(records: &[Arc<Record>]) -> usize {
    records.iter().map(|record| size_of(&record.draft)).sum()
}

/// When the last of these expires; none if one never does.
pub(in crate::outbox) fn expires_at(records: &[Arc<Record>]) -> Option<Timestamp> {
    let times = records.iter().map(|record| record.draft.expires_at());
    times.reduce(|a, b| Some(a?.max(b?))).flatten()
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) bytes: usize,
    /// Which of all that came into memory it was.
    pub(super) turn: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// By seq; all of this epoch.
    pub(super) pending: BTreeMap<u64, Pending>,
    /// By first id; they do not overlap.
    pub(super) groups: BTreeMap<RecordId, Group>,
    pub(super) wanted: Option<RecordId>,
    pub(super) settled: Settled,
    /// The last pending record that a reader has seen.
    pub(super) shown: RecordId,
}

impl Queue {
    pub(super) fn new(settled: Settled) -> Queue {
        Queue {
            pending: BTreeMap::new(),
            groups: BTreeMap::new(),
            wanted: None,
            settled,
            shown: RecordId::default(),
        }
    }

    /// The live records after `after`, oldest first, as far as they are in memory. If it ends at a group that is not,
    /// that group becomes wanted. What is pending is of `epoch`, and shown only if that is wished.
    pub(super) fn peek(
        &mut self,
        after: Option<RecordId>,
        limit: usize,
        epoch: u64,
        shows_pending: bool,
    ) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        let from = match after.map(|after| (after, self.group_around(after))) {
            None => Bound::Unbounded,
            Some((after, Some((first, group)))) if after.seq < group.last => Bound::Included(first),
            Some((after, _)) => Bound::Excluded(after),
        };
        for (first, group) in self.groups.range_mut((from, Bound::Unbounded)) {
            if group.is_busy {
                return records;
            }
            let Some(loaded) = &group.loaded else {
                self.wanted = Some(*first);
                return records;
            };
            if records.len() >= limit {
                return records;
            }
            let start = loaded
                .records
                .partition_point(|record| Some(record.id) <= after);
            let live = loaded.records[start..]
                .iter()
                .filter(|record| !self.settled.contains(record.id));
            let before = records.len();
            records.extend(live.take(limit - before).cloned());
            group.is_shown |= records.len() > before;
        }
        if shows_pending {
            let from = match after {
                Some(after) if after.epoch >= epoch => Bound::Excluded(after.seq),
                _ => Bound::Unbounded,
            };
            let pending = self.pending.range((from, Bound::Unbounded));
            let room = limit.saturating_sub(records.len());
            let shown = pending.take(room);
            let before = records.len();
            records.extend(shown.map(|(_, pending)| pending.record.clone()));
            if let Some(last) = records[before..].last() {
                self.shown = self.shown.max(last.id);
            }
        }
        records
    }

    /// The ids from `first` to the seq `last` of the same epoch are done with; and so are those of other lanes between them and what
    /// was settled before them: else each record would be a range of its own where lanes take turns.
    pub(super) fn settle(&mut self, first: RecordId, last: u64) {
        let from = self.settled.end_before(first).filter(|from| {
            let between = (Bound::Included(*from), Bound::Excluded(first));
            let is_stored =
                self.group_around(*from).is_some() || self.groups.range(between).next().is_some();
            let pending = (Bound::Included(from.seq), Bound::Excluded(first.seq));
            let mut pending = self.pending.range(pending);
            let is_pending = pending.any(|(_, it)| it.record.id.epoch == first.epoch);
            !is_stored && !is_pending
        });
        self.settled.insert_range(from.unwrap_or(first), last);
    }

    pub(super) fn overlaps(&self, first: RecordId, end: RecordId) -> bool {
        let before = self.groups.range(..=end).next_back();
        before.is_some_and(|(other, group)| other.epoch == end.epoch && group.last >= first.seq)
    }

    pub(super) fn group_around(&self, id: RecordId) -> Option<(RecordId, &Group)> {
        let (first, group) = self.groups.range(..=id).next_back()?;
        (first.epoch == id.epoch && id.seq <= group.last).then_some((*first, group))
    }

    pub(super) fn group_around_mut(&mut self, id: RecordId) -> Option<(RecordId, &mut Group)> {
        let (first, group) = self.groups.range_mut(..=id).next_back()?;
        (first.epoch == id.epoch && id.seq <= group.last).then_some((*first, group))
    }

    /// The first record that may be live.
    pub(super) fn first(&self) -> Option<RecordId> {
        let stored = self.groups.first_key_value().map(|(first, _)| *first);
        let pending = self.pending.first_key_value();
        stored.or(pending.map(|(_, pending)| pending.record.id))
    }

    /// Everything before the first live record is settled; a group's first id stands for its first live record. `next`
    /// is the id that will be given next.
    pub(super) fn raise_cursor(&mut self, next: RecordId) {
        self.settled.raise(self.first().unwrap_or(next));
    }
}
