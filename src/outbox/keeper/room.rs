//! Makes room in a full outbox, a commit at a time: what has expired goes, what is mostly settled is carried over, and then the
//! policy has its turn. Decision 0018.
//!
//! A batch that is being carried over is written again until that goes well, and before anything else is: what a failed commit has
//! left on disk all the same then says nothing that is not so.

use std::sync::Arc;
use std::time::Duration;

use super::{
    GROWTH, GROWTH_PER_COMMIT, Keeper, Now, Place, Reason, Store, StoreError, WhenFull, words,
};
use crate::outbox::book::bytes_of;
use crate::outbox::book::room::{Row, Victim};
use crate::outbox::group::GROUP_BYTES;
use crate::outbox::record::Record;
use crate::outbox::thin::thin;

/// A row, and its records as they were read.
type ReadRow = (Row, Vec<Arc<Record>>);

/// A generation that is being emptied.
#[derive(Debug)]
pub(super) struct Emptying {
    generation: u32,
    thins: bool,
    /// What is to be written next, as it was read.
    batch: Vec<ReadRow>,
    /// What the outbox may take on disk at most once that is done, for it to have been worth it; none if it has to be done anyway. When
    /// records are merged that is what it took before: files grow in steps, so that what is gained may show only later.
    worth_it_up_to: Option<u64>,
    /// How many records were merged into others.
    absorbed: u64,
}

/// What merging comes to.
#[derive(Default)]
struct Merging {
    absorbed: u64,
    bytes_before: usize,
    bytes_after: usize,
}

impl Merging {
    fn merge(&mut self, records: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
        let before = records.len();
        self.bytes_before += bytes_of(&records);
        let merged = thin(records);
        self.bytes_after += bytes_of(&merged);
        self.absorbed += (before - merged.len()) as u64;
        merged
    }

    /// Few records say nothing, where as many as this could be read at once: they are carried over to where others may be beside them.
    fn is_worth_it(&self, at_once: usize) -> bool {
        self.bytes_before * FEW < at_once
            || self.bytes_after * 100 <= self.bytes_before * WORTH_MERGING
    }
}

/// How many groups are carried over at once, if the commits of this outbox are smaller: a commit has a price of its own.
const GROUPS_AT_ONCE: usize = 8;
/// How much more is read to be merged: of many topics there are else few records each, and less than half is left of what is merged.
const MERGED_FROM: usize = 4;
/// So many times less than what could be read at once is few.
const FEW: usize = 4;
/// That price, about, in bytes on disk.
const COMMIT_BYTES: u64 = 16 * 1024;

/// How long nothing is carried over after it gained next to nothing.
const FUTILE_FOR: Duration = Duration::from_secs(600);

/// Merging a batch is worth it if this much less is left, in hundredths.
const WORTH_MERGING: usize = 60;

impl<S: Store> Keeper<S> {
    /// Does one commit's work towards room for more. `None` if nothing can go; else whether it went well.
    pub(super) fn make_room(&mut self, now: Now) -> Option<bool> {
        let writer = self.store.writer();
        if let Some(emptying) = self.emptying.take() {
            return Some(self.go_on(emptying, now));
        }
        let generations = self.store.generations();
        let done_with = self.shared.with(|book| book.settled_among(generations));
        if let Some(done_with) = done_with.into_iter().find(|it| Some(*it) != writer) {
            // Before anything more is dropped, what was dropped has to free its room. That a disk fails is no reason to drop more.
            if !self.write_books(now) {
                return Some(false);
            }
            if !self.store.generations().contains(&done_with) {
                return Some(true);
            }
        }
        let expired = self.shared.with(|book| book.drop_expired_groups(now));
        if expired > 0 {
            tracing::info!("outbox: full; dropped {expired} records that had expired");
            return Some(self.write_books(now));
        }
        let is_futile = now.mono < self.futile_until;
        if let Some(generation) = self.mostly_settled(writer).filter(|_| !is_futile) {
            return Some(self.empty_if_worth_it(generation, false, now));
        }
        match self.when_full {
            WhenFull::DropNewest | WhenFull::Block => None,
            WhenFull::DropOldest => self.drop_least(writer, now),
            WhenFull::Thin => {
                let next = self.shared.with(|book| book.to_thin(writer));
                let next = next.filter(|_| !is_futile);
                match next {
                    Some(generation) => Some(self.empty_if_worth_it(generation, true, now)),
                    None => self.drop_least(writer, now),
                }
            }
        }
    }

    /// A generation of which so little is left that carrying it over takes less than half of the room that it takes.
    fn mostly_settled(&self, writer: Option<u32>) -> Option<u32> {
        let (generation, bytes) = self.shared.with(|book| book.emptiest(writer))?;
        let commits = 1 + (bytes / self.bytes_at_once()) as u64;
        let cost = commits * COMMIT_BYTES + bytes as u64 * GROWTH;
        (self.store.bytes_of(generation) > 2 * cost).then_some(generation)
    }

    /// How much is carried over by one commit.
    fn bytes_at_once(&self) -> usize {
        // As large as a generation, it would outgrow what is kept free for it.
        let at_most = usize::try_from(self.store.generation_size() / GROWTH).unwrap_or(usize::MAX);
        let at_once = at_most.min(GROUPS_AT_ONCE * GROUP_BYTES);
        self.batch_bytes.max(at_once)
    }

    /// What carrying over takes for a while: what is live in a generation is there twice until all of it is elsewhere.
    pub(super) fn headroom(&self) -> u64 {
        let size = self.store.generation_size();
        let may_carry = self.when_full == WhenFull::Thin
            || self.shared.with(|book| book.has_several_priorities());
        GROWTH_PER_COMMIT + if may_carry { size } else { size / 4 }
    }

    /// Whether a generation is being emptied: nothing else is written meanwhile.
    pub(super) fn is_emptying(&self) -> bool {
        self.emptying.is_some()
    }

    fn drop_least(&mut self, writer: Option<u32>, now: Now) -> Option<bool> {
        let victim = self.shared.with(|book| book.victim(writer));
        let Some(victim) = victim else {
            // There is nothing live but where the next commit goes. One that could not be removed may still be there.
            let generations = self.store.generations();
            let oldest = generations.into_iter().find(|it| Some(*it) != writer)?;
            return Some(self.drop_generation(oldest, now));
        };
        let Victim {
            generation,
            has_rest,
            ..
        } = victim;
        if !has_rest {
            return Some(self.drop_generation(generation, now));
        }
        let dropped = self
            .shared
            .with(|book| book.drop_priority(victim, now.mono));
        tracing::warn!(
            "outbox: full; dropped the {dropped} records of the lowest priority in its oldest part (max_size, when_full)"
        );
        let emptying = Emptying {
            generation,
            thins: false,
            batch: Vec::new(),
            worth_it_up_to: None,
            absorbed: 0,
        };
        Some(self.go_on(emptying, now))
    }

    /// Gives up a generation. That is synced before its files go, so that the ledger tells why they went.
    fn drop_generation(&mut self, generation: u32, now: Now) -> bool {
        let dropped = self
            .shared
            .with(|book| book.drop_generation(generation, Reason::OverflowDisk, now.mono));
        if dropped > 0 {
            tracing::warn!(
                "outbox: full; dropped the oldest {dropped} records (max_size, when_full)"
            );
        }
        self.let_go(generation, now)
    }

    fn empty_if_worth_it(&mut self, generation: u32, thins: bool, now: Now) -> bool {
        // What is merged becomes less each time; what is only moved does not.
        let gain = match thins {
            true => 0,
            false => self.store.bytes_of(generation) / 4,
        };
        let emptying = Emptying {
            generation,
            thins,
            batch: Vec::new(),
            worth_it_up_to: Some(self.store.disk_bytes().saturating_sub(gain)),
            absorbed: 0,
        };
        self.go_on(emptying, now)
    }

    /// Carries the next batch over.
    fn go_on(&mut self, mut emptying: Emptying, now: Now) -> bool {
        let generation = emptying.generation;
        if emptying.batch.is_empty() {
            let thins = emptying.thins;
            let bytes_max = self.bytes_at_once() * if thins { MERGED_FROM } else { 1 };
            let batch = self
                .shared
                .with(|book| book.next_batch(generation, bytes_max, thins));
            if batch.is_empty() {
                // The last commit has taken the generation away, or could not.
                return self.let_go(generation, now);
            }
            match self.read_batch(batch, now) {
                Ok(batch) => emptying.batch = batch,
                Err((place, error)) => {
                    // It is read again as what a reader wants is; what cannot be read is given up there in the end.
                    self.read_later(place, &error, None, now);
                    self.pause(now);
                    return false;
                }
            }
        }
        let mut merged = Merging::default();
        let mut rows = Vec::new();
        for (row, read) in &emptying.batch {
            let live = self.shared.with(|book| book.live_of(row.lane(), read));
            rows.push(if row.may_thin {
                merged.merge(live)
            } else {
                live
            });
        }
        let at_once = self.bytes_at_once() * MERGED_FROM;
        if emptying.thins && !merged.is_worth_it(at_once) {
            // What was merged of it is elsewhere by now. The policy looks again.
            self.shared.with(|book| book.mark_tried(generation));
            self.release(&emptying.batch);
            if emptying.absorbed > 0 {
                self.note_gain(&emptying, now);
            }
            return true;
        }
        let places = emptying.batch.iter().flat_map(|(row, _)| &row.places);
        let places = places.copied().collect();
        let generations = self.store.generations();
        let absorbed = emptying.thins.then_some(merged.absorbed);
        let commit = self
            .shared
            .with(|book| book.begin_moving(places, rows, absorbed, generations));
        let is_written = self.write(commit, now);
        if !is_written && self.is_full_beyond_help() {
            self.release(&emptying.batch);
            return match self.when_full {
                WhenFull::DropNewest | WhenFull::Block => false,
                // Room is not to be had otherwise.
                WhenFull::DropOldest | WhenFull::Thin => self.drop_generation(generation, now),
            };
        }
        if is_written {
            emptying.batch.clear();
            emptying.absorbed += merged.absorbed;
            self.merged.count(merged.absorbed, now.mono, |absorbed| {
                tracing::info!("outbox: full; merged {absorbed} records into others (when_full)");
            });
        }
        let is_left = self.store.generations().contains(&generation);
        if is_left || !is_written {
            self.emptying = Some(emptying);
        } else {
            self.note_gain(&emptying, now);
        }
        is_written
    }

    /// Records may be so small, or so large, or so unlike, that carrying them over costs as much as it frees.
    fn note_gain(&mut self, emptying: &Emptying, now: Now) {
        let disk_bytes = self.store.disk_bytes();
        let is_nothing_merged = emptying.thins && emptying.absorbed == 0;
        if is_nothing_merged || emptying.worth_it_up_to.is_some_and(|it| disk_bytes > it) {
            self.futile_until = now.mono + FUTILE_FOR;
        }
    }

    /// What is read again by readers, as it is not carried over after all.
    fn release(&self, batch: &[ReadRow]) {
        self.shared.with(|book| {
            for (row, _) in batch {
                book.release(row);
            }
        });
        self.shared.changed.notify_one();
    }

    /// Nothing of it is live any more: it goes with the next commit. Whether it is gone.
    fn let_go(&mut self, generation: u32, now: Now) -> bool {
        let is_there = |store: &S| store.generations().contains(&generation);
        if is_there(&self.store) && !self.write_books(now) {
            return false;
        }
        let is_gone = !is_there(&self.store);
        if !is_gone {
            // Its files cannot be removed. Dropping more would not help.
            self.pause(now);
        }
        is_gone
    }

    fn read_batch(
        &mut self,
        rows: Vec<Row>,
        now: Now,
    ) -> Result<Vec<ReadRow>, (Place, StoreError)> {
        let mut batch: Vec<ReadRow> = rows.into_iter().map(|row| (row, Vec::new())).collect();
        for at in 0..batch.len() {
            for place in batch[at].0.places.clone() {
                let mut read = self.store.read(place);
                if let Err(error) = &read
                    && error.is_disk_full()
                    && self.release_reserve(now)
                {
                    read = self.store.read(place);
                }
                match read {
                    Ok(group) => batch[at].1.extend(group),
                    Err(error) if error.is_damage() => self.give_up_damaged(place, &error, now),
                    Err(error) => {
                        self.release(&batch);
                        return Err((place, error));
                    }
                }
            }
        }
        Ok(batch)
    }

    fn give_up_damaged(&mut self, place: Place, error: &StoreError, now: Now) {
        let lost = self.give_up(place, now);
        tracing::error!("outbox: {}; {lost} records are lost", words(error));
    }
}
