//! The bookkeeping of the outbox: which records there are, where they are, and what became of them.
//!
//! It is pure: no thread, no disk, no clock; the time is passed in. What has to be written is handed out as a [`Commit`],
//! and the caller says afterwards whether it is durable.
//!
//! Terms: a *group* is what the store reads and writes at once; *loaded* is a group whose records are also in memory;
//! *wanted* is the group that a reader of a lane waits for. The records of a group are of one lane.
//!
//! Invariant: in a lane every stored id is smaller than every pending one, because commits take the oldest first.

mod lane;
pub(super) mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::emptied::Emptied;
use super::group::{GROUP_BYTES, Settlement, Snapshot, size_of};
use super::ledger::{Ledger, Reason};
use super::record::{Draft, Key, Lane, Record, RecordId};
use super::restamp::Restamps;
use super::store::FoundGroup;
use crate::message::Timestamp;
use crate::runtime::clock::Now;
use lane::{Group, Loaded, Pending, Queue};
pub(super) use lane::{bytes_of, expires_at};
use room::Moved;

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
    /// What is there stays. Sources that can wait do so before it is full; what comes from others waits in memory, and is dropped when
    /// that is full, too.
    Block,
    /// Old numbers and results of windows are merged to coarser ones; what cannot be merged goes as with `drop-oldest`.
    Thin,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) commit: Duration,
    /// What one commit takes at most, unless a single record is larger.
    pub(super) commit_bytes: usize,
    pub(super) max_pending: usize,
    pub(super) when_full: WhenFull,
}

/// Where a group lies: its generation, its lane and its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) lane: Lane,
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
    /// If the groups are not new: from where they are carried over.
    pub(super) moved: Option<Moved>,
    dirty_since: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Book {
    limits: Limits,
    epoch: u64,
    last_seq: u64,
    /// In the order of [`Lane::ALL`].
    lanes: [Queue; Lane::ALL.len()],
    pending_bytes: usize,
    /// Groups whose records are in memory, in the order in which they came there.
    loaded: BTreeMap<u64, (Lane, RecordId)>,
    loaded_bytes: usize,
    loads: u64,
    /// Since when the disk shows records as stored that are settled.
    dirty_since: Option<Duration>,
    dead_letters: VecDeque<DeadLetter>,
    /// When to write them: later, if that failed.
    dead_letters_due: Duration,
    emptied: Emptied,
    restamps: Restamps,
    ledger: Ledger,
}

impl Book {
    /// The books of a store whose last snapshot was this. Its groups follow with [`Book::found`].
    pub(super) fn open(limits: Limits, epoch: u64, snapshot: Snapshot) -> Book {
        Book {
            limits,
            epoch,
            last_seq: 0,
            lanes: snapshot.settled.0.map(Queue::new),
            pending_bytes: 0,
            loaded: BTreeMap::new(),
            loaded_bytes: 0,
            loads: 0,
            dirty_since: None,
            dead_letters: VecDeque::new(),
            dead_letters_due: Duration::ZERO,
            emptied: snapshot.emptied,
            restamps: snapshot.restamps,
            ledger: Ledger {
                epoch,
                pending: 0,
                ..snapshot.ledger
            },
        }
    }

    /// Takes in a group that was found on disk. Returns how many of its records are live; none if it was carried over to a newer
    /// generation. Of a record found twice, the one taken in first counts: so newer generations come first.
    pub(super) fn found(&mut self, found: &FoundGroup) -> Option<u64> {
        let place = found.place;
        let last = found.runs.last().map(|(_, last)| *last)?;
        let end = RecordId {
            seq: last,
            ..place.first
        };
        let queue = &mut self.lanes[place.lane.index()];
        if queue.overlaps(place.first, end) || self.emptied.contains(place) {
            return None;
        }
        let live = found
            .runs
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .filter(|seq| {
                !queue.settled.contains(RecordId {
                    seq: *seq,
                    ..place.first
                })
            })
            .count() as u64;
        let group = Group {
            generation: place.generation,
            last,
            live,
            bytes: found.bytes,
            loaded: None,
            expires_at: found.expires_at,
            is_shown: false,
            is_busy: false,
            is_tried: false,
        };
        self.insert_group(place, group);
        Some(live)
    }

    /// Ends the opening: the ledger is made to agree with what was found. Returns how many records are missing.
    pub(super) fn reconcile(&mut self, damaged: u64, now: Duration) -> u64 {
        let found = self.groups().map(|(_, group)| group.live).sum();
        let before = self.ledger;
        self.ledger.damaged += damaged;
        let missing = self.ledger.reconcile(found);
        if self.ledger != before {
            self.dirty_since = Some(now);
        }
        for lane in Lane::ALL {
            self.raise_cursor(lane);
        }
        missing
    }

    pub(super) fn append(&mut self, draft: Draft, now: Duration) {
        self.last_seq += 1;
        let size = size_of(&draft);
        let record = Arc::new(Record::new(self.last(), draft));
        let key = record.key();
        self.pending_bytes += size;
        self.ledger.pending += 1;
        let pending = Pending { record, since: now };
        let queue = &mut self.lanes[key.lane.index()];
        queue.pending.insert(key.id.seq, pending);
        // What is larger than all of the memory goes by itself: nothing else would make room for it.
        let makes_room = matches!(self.limits.when_full, WhenFull::DropOldest | WhenFull::Thin)
            && size <= self.limits.max_pending;
        while self.pending_bytes > self.limits.max_pending {
            let least = if makes_room {
                self.least_pending()
            } else {
                None
            };
            self.drop_pending(least.unwrap_or(key), Reason::OverflowMemory);
        }
    }

    /// What goes first when memory is short: of the lowest priority that is there, the oldest.
    fn least_pending(&self) -> Option<Key> {
        let oldest = self.lanes.iter().filter_map(|queue| {
            let (_, pending) = queue.pending.first_key_value()?;
            Some(pending.record.key())
        });
        oldest.min_by_key(|key| (key.lane.priority, key.id))
    }

    /// The live records of a lane after `after`, oldest first, as far as they are in memory. If it ends at a group that is
    /// not, that group becomes wanted. What has expired is dropped here, when it is about to be sent.
    pub(super) fn peek(
        &mut self,
        lane: Lane,
        after: Option<RecordId>,
        limit: usize,
        now: Now,
    ) -> Vec<Arc<Record>> {
        // With no interval nothing is shown that is not durable.
        let shows_pending = !self.limits.commit.is_zero();
        loop {
            let queue = &mut self.lanes[lane.index()];
            let mut records = queue.peek(after, limit, self.epoch, shows_pending);
            for record in &mut records {
                self.restamps.put_right(record);
            }
            let is_expired = |record: &mut Arc<Record>| {
                let at = record.draft.expires_at();
                at.is_some_and(|at| at <= now.wall)
            };
            let expired: Vec<Arc<Record>> = records.extract_if(.., is_expired).collect();
            for record in &expired {
                if self.settle(record.key(), now.mono) {
                    self.ledger.drop_accepted(1, Reason::Expired);
                }
            }
            if !records.is_empty() || expired.is_empty() {
                return records;
            }
        }
    }

    /// What was numbered so far in this start was stamped so much too early.
    pub(super) fn restamp(&mut self, ahead: Duration, now: Duration) {
        self.restamps.add(self.last(), ahead);
        self.mark_dirty(now);
    }

    /// When the last of a group expires.
    fn group_expires_at(&self, place: Place, group: &Group) -> Option<Timestamp> {
        let ahead = self.restamps.ahead(place.first);
        Some(group.expires_at?.saturating_add(ahead))
    }

    pub(super) fn acknowledge(&mut self, key: Key, now: Duration) {
        if self.settle(key, now) {
            self.ledger.acknowledged += 1;
        }
    }

    pub(super) fn dead_letter(&mut self, key: Key, reason: &str, now: Duration, time: Timestamp) {
        let Key { lane, id } = key;
        let queue = &self.lanes[lane.index()];
        let pending = (id.epoch == self.epoch)
            .then(|| queue.pending.get(&id.seq))
            .flatten();
        let mut place = None;
        let record = match (pending, queue.group_around(id)) {
            (Some(pending), _) => Some(pending.record.clone()),
            (None, Some((first, group))) => {
                place = Some(Place {
                    generation: group.generation,
                    lane,
                    first,
                });
                let loaded = group.loaded.iter().flat_map(|loaded| &loaded.records);
                loaded.into_iter().find(|record| record.id == id).cloned()
            }
            (None, None) => None,
        };
        if self.settle(key, now) {
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

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    pub(super) fn max_pending(&self) -> usize {
        self.limits.max_pending
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
        let oldest = self.oldest_pending().map(|pending| {
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
        let mut lanes = [const { Vec::<Vec<Arc<Record>>>::new() }; Lane::ALL.len()];
        let mut in_group = [usize::MAX; Lane::ALL.len()];
        let (mut total, mut records) = (0, 0);
        for record in self.pending_in_order() {
            let size = size_of(&record.draft);
            if total > 0 && total + size > self.limits.commit_bytes {
                break;
            }
            let lane = record.draft.lane().index();
            if in_group[lane].saturating_add(size) > GROUP_BYTES {
                lanes[lane].push(Vec::new());
                in_group[lane] = 0;
            }
            if let Some(group) = lanes[lane].last_mut() {
                group.push(record.clone());
            }
            in_group[lane] += size;
            (total, records) = (total + size, records + 1);
        }
        let mut commit = self.begin_without_records(generations);
        commit.snapshot.ledger.accepted += records;
        commit.snapshot.ledger.stored += records;
        commit.groups = lanes.into_iter().flatten().collect();
        commit
    }

    /// Writes the books alone: for when there is no room for records.
    pub(super) fn begin_without_records(&mut self, generations: Vec<u32>) -> Commit {
        if !generations.is_empty() {
            self.emptied.keep_only(&generations);
        }
        if !self.restamps.is_empty() {
            let waiting = self.lanes.iter().filter_map(Queue::first);
            let first = waiting.min().unwrap_or(self.last());
            self.restamps.keep_from(first);
        }
        Commit {
            groups: Vec::new(),
            settled: self.settled_among(generations),
            moved: None,
            snapshot: Snapshot {
                ledger: Ledger {
                    pending: 0,
                    commits: self.ledger.commits + 1,
                    ..self.ledger
                },
                settled: Settlement(self.lanes.each_ref().map(|queue| queue.settled.clone())),
                emptied: self.emptied.clone(),
                restamps: self.restamps.clone(),
            },
            dirty_since: self.dirty_since.take(),
        }
    }

    /// The commit is durable, in this generation, and took this many bytes.
    pub(super) fn committed(&mut self, commit: Commit, generation: u32, bytes: u64, now: Duration) {
        self.ledger.commits = commit.snapshot.ledger.commits;
        self.ledger.bytes_written += bytes;
        if let Some(moved) = commit.moved {
            return self.moved(moved, commit.groups, generation, now);
        }
        for records in commit.groups {
            let Some(first) = records.first() else {
                continue;
            };
            let place = Place {
                generation,
                lane: first.draft.lane(),
                first: first.id,
            };
            let mut live = 0;
            for record in &records {
                self.ledger.payload_bytes += record.draft.payload.len() as u64;
                if self.remove_pending(record.key()) {
                    self.ledger.stored += 1;
                    live += 1;
                } else {
                    // It was settled while it was being written: the disk does not know that yet.
                    self.dirty_since.get_or_insert(now);
                }
            }
            let group = Group::new(generation, &records, live, false);
            self.insert_group(place, group);
            let bytes = bytes_of(&records);
            if self.loaded_bytes + bytes <= READ_AHEAD_BYTES {
                self.load(place, records);
            }
            self.raise_cursor(place.lane);
        }
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
            self.drop_pending(record.key(), Reason::OverflowDisk);
        }
        self.put_off(commit);
    }

    /// Gives up what is live in a generation.
    pub(super) fn drop_generation(
        &mut self,
        generation: u32,
        reason: Reason,
        now: Duration,
    ) -> u64 {
        let groups = self.groups();
        let groups: Vec<Place> = groups
            .map(|(place, _)| place)
            .filter(|place| place.generation == generation)
            .collect();
        if reason == Reason::Damaged {
            self.ledger.damaged += 1;
            self.dirty_since.get_or_insert(now);
        }
        groups
            .into_iter()
            .map(|place| self.drop_live(place, reason, now))
            .sum()
    }

    /// Gives up what is live in a damaged group.
    pub(super) fn drop_group(&mut self, place: Place, now: Duration) -> u64 {
        let is_there = self.lanes[place.lane.index()]
            .groups
            .contains_key(&place.first);
        self.ledger.damaged += u64::from(is_there);
        self.drop_live(place, Reason::Damaged, now)
    }

    fn drop_live(&mut self, place: Place, reason: Reason, now: Duration) -> u64 {
        let queue = &mut self.lanes[place.lane.index()];
        let Some(group) = queue.groups.get(&place.first) else {
            return 0;
        };
        let (live, last) = (group.live, group.last);
        queue.settled.insert_range(place.first, last);
        self.ledger.stored -= live;
        self.ledger.drop_accepted(live, reason);
        self.dirty_since.get_or_insert(now);
        self.forget_group(place.lane, place.first);
        self.raise_cursor(place.lane);
        live
    }

    /// Those of these generations that hold nothing live.
    pub(super) fn settled_among(&self, generations: Vec<u32>) -> Vec<u32> {
        let mut settled = BTreeSet::from_iter(generations);
        for (_, group) in self.groups() {
            settled.remove(&group.generation);
        }
        settled.into_iter().collect()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.lanes.iter().any(|queue| queue.wanted.is_some())
    }

    /// Whether a reader of this lane waits for a group.
    pub(super) fn is_wanted_in(&self, lane: Lane) -> bool {
        self.lanes[lane.index()].wanted.is_some()
    }

    /// The group that a reader waits for, if it is still there and not in memory; of several the one that is served first.
    pub(super) fn wanted(&mut self) -> Option<Place> {
        Lane::ALL.into_iter().find_map(|lane| {
            let first = self.lanes[lane.index()].wanted.take()?;
            self.unloaded(lane, first)
        })
    }

    /// Where the group lies, if it is still there and not in memory.
    pub(super) fn unloaded(&self, lane: Lane, first: RecordId) -> Option<Place> {
        let group = self.lanes[lane.index()].groups.get(&first)?;
        group.loaded.is_none().then_some(Place {
            generation: group.generation,
            lane,
            first,
        })
    }

    /// A group that follows this one in its lane, is not in memory, and would fit into it without driving out others.
    pub(super) fn worth_reading_after(&self, place: Place) -> Option<Place> {
        if self.loaded_bytes > READ_AHEAD_BYTES / 2 {
            return None;
        }
        let after = (Bound::Excluded(place.first), Bound::Unbounded);
        let (first, group) = self.lanes[place.lane.index()]
            .groups
            .range(after)
            .find(|(_, group)| group.loaded.is_none())?;
        Some(Place {
            generation: group.generation,
            lane: place.lane,
            first: *first,
        })
    }

    /// Keeps the records of a group in memory. What came there first goes when memory is short: a reader goes forwards, and of
    /// several none drives out what another has just got.
    pub(super) fn load(&mut self, place: Place, records: Vec<Arc<Record>>) {
        let Place { lane, first, .. } = place;
        let Some(group) = self.lanes[lane.index()].groups.get_mut(&first) else {
            return;
        };
        let bytes = bytes_of(&records);
        self.loads += 1;
        let turn = self.loads;
        let loaded = Loaded {
            records,
            bytes,
            turn,
        };
        if let Some(before) = group.loaded.replace(loaded) {
            self.loaded_bytes -= before.bytes;
            self.loaded.remove(&before.turn);
        }
        self.loaded_bytes += bytes;
        self.loaded.insert(turn, (lane, first));
        while self.loaded_bytes > READ_AHEAD_BYTES
            && let Some((other, (lane, first))) = self.loaded.first_key_value()
            && *other < turn
        {
            self.unload(*lane, *first);
        }
    }

    /// What one commit takes at most.
    pub(super) fn commit_bytes(&self) -> usize {
        self.limits.commit_bytes
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// So many bytes have reached the card; a day comes to so many.
    pub(super) fn count_flash(&mut self, bytes: u64, per_day: u64) {
        self.ledger.flash_bytes += bytes;
        self.ledger.flash_bytes_per_day = per_day;
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
        self.oldest_pending().is_some()
    }

    /// Marks a record as done with, if it is there and was not. The caller says in the ledger how it left.
    fn settle(&mut self, key: Key, now: Duration) -> bool {
        let Key { lane, id } = key;
        if self.lanes[lane.index()].settled.contains(id) {
            return false;
        }
        let mut settled = (id, id.seq);
        if !self.remove_pending(key) {
            let Some((first, group)) = self.lanes[lane.index()].group_around_mut(id) else {
                return false;
            };
            group.live -= 1;
            if group.live == 0 {
                settled = (first, group.last);
                self.forget_group(lane, first);
            }
            self.ledger.stored -= 1;
            self.dirty_since.get_or_insert(now);
        }
        let (first, last) = settled;
        self.lanes[lane.index()].settle(first, last);
        self.raise_cursor(lane);
        true
    }

    /// Takes a record from pending to accepted.
    fn remove_pending(&mut self, Key { lane, id }: Key) -> bool {
        let pending = (id.epoch == self.epoch)
            .then(|| self.lanes[lane.index()].pending.remove(&id.seq))
            .flatten();
        let Some(pending) = pending else {
            return false;
        };
        self.pending_bytes -= size_of(&pending.record.draft);
        self.ledger.pending -= 1;
        self.ledger.accepted += 1;
        true
    }

    fn drop_pending(&mut self, key: Key, reason: Reason) {
        if self.remove_pending(key) {
            self.ledger.drop_accepted(1, reason);
            self.lanes[key.lane.index()].settle(key.id, key.id.seq);
            self.raise_cursor(key.lane);
        }
    }

    /// The oldest pending record of all lanes.
    fn oldest_pending(&self) -> Option<&Pending> {
        let oldest = self.lanes.iter().filter_map(|queue| {
            let (_, pending) = queue.pending.first_key_value()?;
            Some(pending)
        });
        oldest.min_by_key(|pending| pending.record.id)
    }

    /// What is pending, in the order of the ids, whatever the lane.
    fn pending_in_order(&self) -> impl Iterator<Item = &Arc<Record>> {
        let mut lanes = self.lanes.each_ref().map(|queue| {
            let records = queue.pending.values().map(|pending| &pending.record);
            records.peekable()
        });
        std::iter::from_fn(move || {
            let heads = lanes.iter_mut().filter_map(|lane| {
                let id = lane.peek()?.id;
                Some((id, lane))
            });
            let (_, lane) = heads.min_by_key(|(id, _)| *id)?;
            lane.next()
        })
    }

    /// All groups, and where they lie.
    fn groups(&self) -> impl Iterator<Item = (Place, &Group)> {
        Lane::ALL.into_iter().flat_map(|lane| {
            let groups = self.lanes[lane.index()].groups.iter();
            groups.map(move |(first, group)| {
                let place = Place {
                    generation: group.generation,
                    lane,
                    first: *first,
                };
                (place, group)
            })
        })
    }

    fn insert_group(&mut self, place: Place, mut group: Group) {
        let queue = &mut self.lanes[place.lane.index()];
        group.is_shown |= place.first <= queue.shown;
        if group.live > 0 {
            queue.groups.insert(place.first, group);
        }
    }

    fn forget_group(&mut self, lane: Lane, first: RecordId) {
        self.unload(lane, first);
        self.lanes[lane.index()].groups.remove(&first);
    }

    fn unload(&mut self, lane: Lane, first: RecordId) {
        if let Some(group) = self.lanes[lane.index()].groups.get_mut(&first)
            && let Some(loaded) = group.loaded.take()
        {
            self.loaded.remove(&loaded.turn);
            self.loaded_bytes -= loaded.bytes;
        }
    }

    fn raise_cursor(&mut self, lane: Lane) {
        let next = RecordId {
            epoch: self.epoch,
            seq: self.last_seq + 1,
        };
        self.lanes[lane.index()].raise_cursor(next);
    }
}

#[cfg(test)]
pub(super) mod measured;
#[cfg(test)]
mod tests;
