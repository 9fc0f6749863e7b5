//! The bookkeeping of the outbox: which records there are, where they are, and what became of them.
//!
//! It is pure: no thread, no disk, no clock; the time is passed in. What has to be written is handed out as a [`Commit`],
//! and the caller says afterwards whether it is durable.
//!
//! Terms: a *group* is what the store reads and writes at once; *loaded* is a group whose records are also in memory;
//! *wanted* is the group that a reader waits for.
//!
//! Invariant: every stored id is smaller than every pending one, because commits take the oldest first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::group::{GROUP_BYTES, Snapshot, size_of};
use super::ledger::{Ledger, Reason};
use super::record::{Draft, Record, RecordId};
use super::settled::Settled;
use crate::message::Timestamp;

/// Memory for records that are read from disk before they are asked for. In tests there is less of it, so that the short lives
/// of the simulation meet its limit.
pub(super) const READ_AHEAD_BYTES: usize = if cfg!(test) {
    32 * 1024
} else {
    4 * 1024 * 1024
};
/// How long at most an acknowledged record waits until that is on disk, if the commit interval is shorter.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Dead letters that wait for their file. Beyond it only their number is kept.
const MAX_DEAD_LETTERS: usize = 256;

/// What to do with records when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Old records make room for new ones.
    #[default]
    DropOldest,
    /// What is there stays; new records are dropped.
    DropNewest,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) commit: Duration,
    /// What one commit takes at most, unless a single record is larger.
    pub(super) commit_bytes: usize,
    pub(super) max_pending: usize,
    pub(super) when_full: WhenFull,
}

/// Where a group lies: its generation and its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) first: RecordId,
}

/// A record that was given up. Its contents are read from `place` if they are no longer in memory.
#[derive(Clone, Debug)]
pub(super) struct DeadLetter {
    pub(super) id: RecordId,
    pub(super) reason: String,
    pub(super) time: Timestamp,
    pub(super) record: Option<Arc<Record>>,
    pub(super) place: Option<Place>,
}

/// What one commit makes durable, all of it or nothing.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) groups: Vec<Vec<Arc<Record>>>,
    /// The books as they are once the groups are durable.
    pub(super) snapshot: Snapshot,
    /// Generations that may go once this is durable.
    pub(super) settled: Vec<u32>,
    dirty_since: Option<Duration>,
}

#[derive(Debug)]
struct Pending {
    record: Arc<Record>,
    since: Duration,
}

#[derive(Debug)]
struct Group {
    generation: u32,
    /// The seq of its last record. Not every seq before it need be in the group.
    last: u64,
    /// How many of its records are not settled. A group without any is forgotten.
    live: u64,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    records: Vec<Arc<Record>>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Book {
    limits: Limits,
    epoch: u64,
    last_seq: u64,
    /// By seq; all of this epoch.
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    /// By first id; they do not overlap.
    groups: BTreeMap<RecordId, Group>,
    loaded: BTreeSet<RecordId>,
    loaded_bytes: usize,
    wanted: Option<RecordId>,
    settled: Settled,
    /// Since when the disk shows records as stored that are settled.
    dirty_since: Option<Duration>,
    dead_letters: VecDeque<DeadLetter>,
    /// When to write them: later, if that failed.
    dead_letters_due: Duration,
    ledger: Ledger,
}

impl Book {
    /// The books of a store whose last snapshot was this. Its groups follow with [`Book::found`].
    pub(super) fn open(limits: Limits, epoch: u64, snapshot: Snapshot) -> Book {
        Book {
            limits,
            epoch,
            last_seq: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            groups: BTreeMap::new(),
            loaded: BTreeSet::new(),
            loaded_bytes: 0,
            wanted: None,
            settled: snapshot.settled,
            dirty_since: None,
            dead_letters: VecDeque::new(),
            dead_letters_due: Duration::ZERO,
            ledger: Ledger {
                epoch,
                pending: 0,
                ..snapshot.ledger
            },
        }
    }

    /// Takes in a group that was found on disk, given as ranges of seqs. Returns how many of its records are live. Of a
    /// record found twice, the one taken in first counts: so newer generations come first.
    pub(super) fn found(&mut self, place: Place, runs: &[(u64, u64)]) -> u64 {
        let Some(last) = runs.last().map(|(_, last)| *last) else {
            return 0;
        };
        let end = RecordId {
            seq: last,
            ..place.first
        };
        let overlaps = self
            .groups
            .range(..=end)
            .next_back()
            .is_some_and(|(first, group)| {
                first.epoch == end.epoch && group.last >= place.first.seq
            });
        if overlaps {
            return 0;
        }
        let live = runs
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .filter(|seq| {
                !self.settled.contains(RecordId {
                    seq: *seq,
                    ..place.first
                })
            })
            .count() as u64;
        self.insert_group(place, last, live);
        live
    }

    /// Ends the opening: the ledger is made to agree with what was found. Returns how many records are missing.
    pub(super) fn reconcile(&mut self, damaged: u64, now: Duration) -> u64 {
        let found = self.groups.values().map(|group| group.live).sum();
        let before = self.ledger;
        self.ledger.damaged += damaged;
        let missing = self.ledger.reconcile(found);
        if self.ledger != before {
            self.dirty_since = Some(now);
        }
        self.raise_cursor();
        missing
    }

    pub(super) fn append(&mut self, draft: Draft, now: Duration) {
        self.last_seq += 1;
        let size = size_of(&draft);
        let record = Arc::new(Record::new(self.last(), draft));
        // What is larger than all of the memory goes by itself: nothing else would make room for it.
        if self.limits.when_full == WhenFull::DropOldest && size <= self.limits.max_pending {
            while self.pending_bytes + size > self.limits.max_pending
                && let Some(oldest) = self.pending.first_key_value().map(|(seq, _)| *seq)
            {
                self.drop_pending(oldest, Reason::OverflowMemory);
            }
        }
        let seq = self.last_seq;
        self.pending_bytes += size;
        self.ledger.pending += 1;
        self.pending.insert(seq, Pending { record, since: now });
        if self.pending_bytes > self.limits.max_pending {
            self.drop_pending(seq, Reason::OverflowMemory);
        }
    }

    /// The live records after `after`, oldest first, as far as they are in memory. If it ends at a group that is not,
    /// that group becomes wanted.
    pub(super) fn peek(&mut self, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        let from = match after.map(|after| (after, self.group_around(after))) {
            None => Bound::Unbounded,
            Some((after, Some((first, group)))) if after.seq < group.last => Bound::Included(first),
            Some((after, _)) => Bound::Excluded(after),
        };
        for (first, group) in self.groups.range((from, Bound::Unbounded)) {
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
            records.extend(live.take(limit - records.len()).cloned());
        }
        // With no interval nothing is shown that is not durable.
        if !self.limits.commit.is_zero() {
            let from = match after {
                Some(after) if after.epoch >= self.epoch => Bound::Excluded(after.seq),
                _ => Bound::Unbounded,
            };
            let pending = self.pending.range((from, Bound::Unbounded));
            let room = limit.saturating_sub(records.len());
            records.extend(
                pending
                    .take(room)
                    .map(|(_, pending)| pending.record.clone()),
            );
        }
        records
    }

    pub(super) fn acknowledge(&mut self, id: RecordId, now: Duration) {
        if self.settle(id, now) {
            self.ledger.acknowledged += 1;
        }
    }

    pub(super) fn dead_letter(
        &mut self,
        id: RecordId,
        reason: &str,
        now: Duration,
        time: Timestamp,
    ) {
        let pending = (id.epoch == self.epoch)
            .then(|| self.pending.get(&id.seq))
            .flatten();
        let mut place = None;
        let record = match (pending, self.group_around(id)) {
            (Some(pending), _) => Some(pending.record.clone()),
            (None, Some((first, group))) => {
                place = Some(Place {
                    generation: group.generation,
                    first,
                });
                let loaded = group.loaded.iter().flat_map(|loaded| &loaded.records);
                loaded.into_iter().find(|record| record.id == id).cloned()
            }
            (None, None) => None,
        };
        if self.settle(id, now) {
            self.ledger.dead_lettered += 1;
            if self.dead_letters.len() < MAX_DEAD_LETTERS {
                self.dead_letters.push_back(DeadLetter {
                    id,
                    reason: reason.to_owned(),
                    time,
                    record,
                    place,
                });
            }
        }
    }

    pub(super) fn take_dead_letters(&mut self) -> VecDeque<DeadLetter> {
        std::mem::take(&mut self.dead_letters)
    }

    /// These could not be written: they come first again, but not before this time.
    pub(super) fn put_back_dead_letters(
        &mut self,
        mut letters: VecDeque<DeadLetter>,
        due: Duration,
    ) {
        letters.append(&mut self.dead_letters);
        letters.truncate(MAX_DEAD_LETTERS);
        self.dead_letters = letters;
        self.dead_letters_due = due;
    }

    pub(super) fn dead_letters_due(&self) -> Option<Duration> {
        (!self.dead_letters.is_empty()).then_some(self.dead_letters_due)
    }

    /// When there is something to write, whatever it is.
    pub(super) fn due(&self) -> Option<Duration> {
        [self.commit_due(), self.dead_letters_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When the next commit should start; `None` if there is nothing to write.
    ///
    /// That is when the oldest pending record is three quarters of an interval old, so that it is durable before a whole
    /// interval has passed; earlier if pending records take half the memory they may.
    pub(super) fn commit_due(&self) -> Option<Duration> {
        let oldest = self.pending.first_key_value().map(|(_, pending)| {
            if self.pending_bytes >= self.limits.max_pending / 2 {
                Duration::ZERO
            } else {
                pending.since + self.limits.commit * 3 / 4
            }
        });
        let settled = self
            .dirty_since
            .map(|since| since + self.limits.commit.max(SETTLE_EVERY));
        [oldest, settled].into_iter().flatten().min()
    }

    /// The disk may not show what the books say.
    pub(super) fn mark_dirty(&mut self, now: Duration) {
        self.dirty_since.get_or_insert(now);
    }

    /// Whether the disk shows records as stored that are settled.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    /// What to write now: pending records, oldest first, and the books. Of the generations that there are, the commit names
    /// those that hold nothing but settled records.
    pub(super) fn begin(&mut self, generations: Vec<u32>) -> Commit {
        let mut groups: Vec<Vec<Arc<Record>>> = Vec::new();
        let (mut total, mut in_group, mut records) = (0, usize::MAX, 0);
        for pending in self.pending.values() {
            let size = size_of(&pending.record.draft);
            if total > 0 && total + size > self.limits.commit_bytes {
                break;
            }
            if in_group.saturating_add(size) > GROUP_BYTES {
                groups.push(Vec::new());
                in_group = 0;
            }
            if let Some(group) = groups.last_mut() {
                group.push(pending.record.clone());
            }
            (total, in_group, records) = (total + size, in_group + size, records + 1);
        }
        let mut commit = self.begin_without_records(generations);
        commit.snapshot.ledger.accepted += records;
        commit.snapshot.ledger.stored += records;
        commit.groups = groups;
        commit
    }

    /// Writes the books alone: for when there is no room for records.
    pub(super) fn begin_without_records(&mut self, generations: Vec<u32>) -> Commit {
        Commit {
            groups: Vec::new(),
            settled: self.settled_among(generations),
            snapshot: Snapshot {
                ledger: Ledger {
                    pending: 0,
                    commits: self.ledger.commits + 1,
                    ..self.ledger
                },
                settled: self.settled.clone(),
            },
            dirty_since: self.dirty_since.take(),
        }
    }

    /// The commit is durable, in this generation, and took this many bytes.
    pub(super) fn committed(&mut self, commit: Commit, generation: u32, bytes: u64, now: Duration) {
        self.ledger.commits = commit.snapshot.ledger.commits;
        self.ledger.bytes_written += bytes;
        for records in commit.groups {
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                continue;
            };
            let (place, last) = (
                Place {
                    generation,
                    first: first.id,
                },
                last.id.seq,
            );
            let mut live = 0;
            for record in &records {
                self.ledger.payload_bytes += record.draft.payload.len() as u64;
                if self.remove_pending(record.id.seq) {
                    self.ledger.stored += 1;
                    live += 1;
                } else {
                    // It was settled while it was being written: the disk does not know that yet.
                    self.dirty_since.get_or_insert(now);
                }
            }
            self.insert_group(place, last, live);
            let bytes = records
                .iter()
                .map(|record| size_of(&record.draft))
                .sum::<usize>();
            if self.loaded_bytes + bytes <= READ_AHEAD_BYTES {
                self.load(place.first, records);
            }
        }
        self.raise_cursor();
    }

    /// The commit failed: its records are still pending. It may be durable all the same, so what becomes of them has to be
    /// written even if they are all settled by then.
    pub(super) fn failed(&mut self, commit: Commit, now: Duration) {
        // The next one must count as newer than what may be on disk.
        self.ledger.commits = commit.snapshot.ledger.commits;
        self.put_off(commit);
        self.mark_dirty(now);
    }

    /// The commit was not tried.
    pub(super) fn put_off(&mut self, commit: Commit) {
        self.dirty_since = commit.dirty_since.or(self.dirty_since);
    }

    /// There is no room on disk for these records and the policy is to drop the newest.
    pub(super) fn refuse(&mut self, commit: Commit) {
        for record in commit.groups.iter().flatten() {
            self.drop_pending(record.id.seq, Reason::OverflowDisk);
        }
        self.put_off(commit);
    }

    /// The generation with the oldest live record. After a rescue that need not be the one with the lowest number.
    pub(super) fn oldest_generation(&self) -> Option<u32> {
        let (_, group) = self.groups.first_key_value()?;
        Some(group.generation)
    }

    /// Gives up what is live in a generation.
    pub(super) fn drop_generation(
        &mut self,
        generation: u32,
        reason: Reason,
        now: Duration,
    ) -> u64 {
        let of_generation = |(first, group): (&RecordId, &Group)| {
            (group.generation == generation).then_some(*first)
        };
        let groups: Vec<RecordId> = self.groups.iter().filter_map(of_generation).collect();
        if reason == Reason::Damaged {
            self.ledger.damaged += 1;
            self.dirty_since.get_or_insert(now);
        }
        groups
            .into_iter()
            .map(|first| self.drop_live(first, reason, now))
            .sum()
    }

    /// Gives up what is live in a damaged group.
    pub(super) fn drop_group(&mut self, first: RecordId, now: Duration) -> u64 {
        self.ledger.damaged += u64::from(self.groups.contains_key(&first));
        self.drop_live(first, Reason::Damaged, now)
    }

    fn drop_live(&mut self, first: RecordId, reason: Reason, now: Duration) -> u64 {
        let Some(group) = self.groups.get(&first) else {
            return 0;
        };
        let (live, last) = (group.live, group.last);
        self.settled.insert_range(first, last);
        self.ledger.stored -= live;
        self.ledger.drop_accepted(live, reason);
        self.dirty_since.get_or_insert(now);
        self.forget_group(first);
        self.raise_cursor();
        live
    }

    fn settled_among(&self, generations: Vec<u32>) -> Vec<u32> {
        let mut settled = BTreeSet::from_iter(generations);
        for group in self.groups.values() {
            settled.remove(&group.generation);
        }
        settled.into_iter().collect()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// The group that a reader waits for, if it is still there and not in memory.
    pub(super) fn wanted(&mut self) -> Option<Place> {
        let first = self.wanted.take()?;
        self.unloaded(first)
    }

    /// Where the group lies, if it is still there and not in memory.
    pub(super) fn unloaded(&self, first: RecordId) -> Option<Place> {
        let group = self.groups.get(&first)?;
        group.loaded.is_none().then_some(Place {
            generation: group.generation,
            first,
        })
    }

    /// A group that follows this one, is not in memory, and would fit into it without driving out others.
    pub(super) fn worth_reading_after(&self, first: RecordId) -> Option<Place> {
        if self.loaded_bytes > READ_AHEAD_BYTES / 2 {
            return None;
        }
        let after = (Bound::Excluded(first), Bound::Unbounded);
        let (first, group) = self
            .groups
            .range(after)
            .find(|(_, group)| group.loaded.is_none())?;
        Some(Place {
            generation: group.generation,
            first: *first,
        })
    }

    /// Keeps the records of a group in memory. What lies before it goes first when memory is short, then what lies
    /// farthest behind it: a reader goes forwards.
    pub(super) fn load(&mut self, first: RecordId, records: Vec<Arc<Record>>) {
        let Some(group) = self.groups.get_mut(&first) else {
            return;
        };
        let bytes = records.iter().map(|record| size_of(&record.draft)).sum();
        if let Some(before) = group.loaded.replace(Loaded { records, bytes }) {
            self.loaded_bytes -= before.bytes;
        }
        self.loaded_bytes += bytes;
        self.loaded.insert(first);
        while self.loaded_bytes > READ_AHEAD_BYTES {
            let earliest = self.loaded.first().copied().filter(|other| *other < first);
            let latest = self.loaded.last().copied().filter(|other| *other > first);
            let Some(other) = earliest.or(latest) else {
                break;
            };
            self.unload(other);
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.ledger
    }

    pub(super) fn set_disk_bytes(&mut self, bytes: u64) {
        self.ledger.disk_bytes = bytes;
    }

    /// The last record that was numbered; seq 0 if none was.
    pub(super) fn last(&self) -> RecordId {
        RecordId {
            epoch: self.epoch,
            seq: self.last_seq,
        }
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Marks a record as done with, if it is there and was not. The caller says in the ledger how it left.
    fn settle(&mut self, id: RecordId, now: Duration) -> bool {
        if self.settled.contains(id) {
            return false;
        }
        if id.epoch == self.epoch && self.remove_pending(id.seq) {
            self.settled.insert(id);
        } else {
            let Some((first, group)) = self.group_around_mut(id) else {
                return false;
            };
            group.live -= 1;
            let is_done = group.live == 0;
            if is_done {
                self.forget_group(first);
            }
            self.settled.insert(id);
            self.ledger.stored -= 1;
            self.dirty_since.get_or_insert(now);
        }
        self.raise_cursor();
        true
    }

    /// Takes a record from pending to accepted.
    fn remove_pending(&mut self, seq: u64) -> bool {
        let Some(pending) = self.pending.remove(&seq) else {
            return false;
        };
        self.pending_bytes -= size_of(&pending.record.draft);
        self.ledger.pending -= 1;
        self.ledger.accepted += 1;
        true
    }

    fn drop_pending(&mut self, seq: u64, reason: Reason) {
        if self.remove_pending(seq) {
            self.ledger.drop_accepted(1, reason);
            self.settled.insert(RecordId {
                epoch: self.epoch,
                seq,
            });
            self.raise_cursor();
        }
    }

    fn insert_group(&mut self, place: Place, last: u64, live: u64) {
        if live > 0 {
            let group = Group {
                generation: place.generation,
                last,
                live,
                loaded: None,
            };
            self.groups.insert(place.first, group);
        }
    }

    fn forget_group(&mut self, first: RecordId) {
        self.unload(first);
        self.groups.remove(&first);
    }

    fn unload(&mut self, first: RecordId) {
        if self.loaded.remove(&first)
            && let Some(loaded) = self
                .groups
                .get_mut(&first)
                .and_then(|group| group.loaded.take())
        {
            self.loaded_bytes -= loaded.bytes;
        }
    }

    fn group_around(&self, id: RecordId) -> Option<(RecordId, &Group)> {
        let (first, group) = self.groups.range(..=id).next_back()?;
        (first.epoch == id.epoch && id.seq <= group.last).then_some((*first, group))
    }

    fn group_around_mut(&mut self, id: RecordId) -> Option<(RecordId, &mut Group)> {
        let (first, group) = self.groups.range_mut(..=id).next_back()?;
        (first.epoch == id.epoch && id.seq <= group.last).then_some((*first, group))
    }

    /// Everything before the first live record is settled; a group's first id stands for its first live record.
    fn raise_cursor(&mut self) {
        let stored = self.groups.first_key_value().map(|(first, _)| *first);
        let pending = self
            .pending
            .first_key_value()
            .map(|(_, pending)| pending.record.id);
        let next = RecordId {
            epoch: self.epoch,
            seq: self.last_seq + 1,
        };
        self.settled.raise(stored.or(pending).unwrap_or(next));
    }
}

#[cfg(test)]
pub(super) mod measured;
#[cfg(test)]
mod tests;
