//! The storage thread: writes what is due, reads what is wanted, removes what is settled, and copes with a disk that
//! fails. It is the only part of the outbox that waits for the disk, and it never does so while it holds the books.
//!
//! [`Keeper::step`] does what is due at a time that is passed in; the thread only calls it again and again.
//!
//! Terms: *trouble* is the state after a failed commit, until one succeeds. Records stay pending meanwhile, within the
//! memory they may use.

mod room;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::beside::Beside;
use super::book::{Book, Commit, DeadLetter, Place, WhenFull};
use super::files::{self, Marker};
use super::flash::Flash;
use super::group::size_of;
use super::ledger::{Ledger, Reason};
use super::pressure::Pressure;
use super::record::{Lane, RecordId};
use super::store::{self, READ_TRIES, Store, StoreError, Written, words};
use crate::runtime::clock::{Clock, Now};
use room::Emptying;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The marker costs a few blocks of flash, so it is not written with every commit.
const MARKER_EVERY: Duration = Duration::from_secs(300);
/// How many groups are read before commits have their turn.
const READS_AT_ONCE: usize = 64;
/// sled's file grows by up to this much for a byte handed to it, plus a fixed part per commit.
const GROWTH: u64 = 6;
const GROWTH_PER_COMMIT: u64 = 64 * 1024;

/// What the handles and the storage thread share.
pub(super) struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// One permit for one reader: there may be more to peek at.
    pub(super) changed: Notify,
    pressure: Pressure,
}

struct State {
    book: Book,
    /// There may be something to do earlier than the thread thought when it went to sleep.
    is_poked: bool,
    /// From so many pending bytes on sources that can wait should: there is room on disk for no more.
    pressed_from: usize,
    stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Write everything first.
    Close,
    /// Write nothing more.
    Abandon,
}

impl Shared {
    pub(super) fn new(book: Book, pressure: Pressure) -> Shared {
        Shared {
            state: Mutex::new(State {
                book,
                is_poked: false,
                pressed_from: usize::MAX,
                stop: None,
            }),
            work: Condvar::new(),
            changed: Notify::new(),
            pressure,
        }
    }

    /// Every change of the books is complete when it returns, so a panic elsewhere leaves them usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at or changes the books, without waking anyone.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.state().book)
    }

    /// Changes the books, and wakes the storage thread if that gives it something to do earlier than before.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut state = self.state();
        let before = state.book.due();
        let result = change(&mut state.book);
        let due = state.book.due();
        let is_earlier = due.is_some() && before.is_none_or(|before| due < Some(before));
        if (is_earlier || state.book.is_wanted()) && !state.is_poked {
            state.is_poked = true;
            self.work.notify_one();
        }
        self.press(&state);
        result
    }

    fn press_from(&self, pending_bytes: usize) {
        let mut state = self.state();
        state.pressed_from = pending_bytes;
        self.press(&state);
    }

    /// It falls a good deal lower than it rises: each time sources leave their brokers, and come back.
    fn press(&self, state: &State) {
        let pending = state.book.pending_bytes();
        let is_high = if self.pressure.is_high() {
            state.pressed_from == 0 || pending > state.pressed_from / 2
        } else {
            pending >= state.pressed_from
        };
        self.pressure.set(is_high);
    }

    /// Whether the storage thread has been woken since this was last asked: for who calls [`Keeper::step`] without a thread.
    #[cfg(test)]
    pub(super) fn take_poke(&self) -> bool {
        std::mem::take(&mut self.state().is_poked)
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.state().stop.get_or_insert(stop);
        self.work.notify_one();
    }
}

/// The storage thread's work.
pub(super) struct Keeper<S> {
    shared: Arc<Shared>,
    store: S,
    /// The files beside the store; none under virtual time, which has no files.
    beside: Option<Box<dyn Beside>>,
    max_size: u64,
    when_full: WhenFull,
    trouble: Option<Trouble>,
    /// After a panic, nothing is done until then.
    rests_until: Duration,
    /// Until then there is no room, and what is new waits in memory.
    full_until: Duration,
    unread: Option<Unread>,
    /// What is read next, where there was too much to read at once.
    read_next: Option<Place>,
    /// What one commit may write, in bytes of records.
    batch_bytes: usize,
    emptying: Option<Emptying>,
    /// Until then nothing is carried over.
    futile_until: Duration,
    flash: Flash,
    merged: Said,
    undeliverable: Said,
    marker_at: Option<Duration>,
    /// When to make the reserve again, if there is none.
    reserve_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Duration,
    pause: Duration,
    retry_at: Duration,
    is_disk_full: bool,
}

/// What happens often, and is said at once, and then once a minute at most, with its number.
#[derive(Debug, Default)]
struct Said {
    unsaid: u64,
    at: Option<Duration>,
}

impl Said {
    fn count(&mut self, number: u64, now: Duration, say: impl FnOnce(u64)) {
        const EVERY: Duration = Duration::from_secs(60);
        self.unsaid += number;
        if self.unsaid > 0 && self.at.is_none_or(|at| now >= at + EVERY) {
            self.at = Some(now);
            say(std::mem::take(&mut self.unsaid));
        }
    }
}

/// A group that could not be read.
#[derive(Clone, Copy, Debug)]
struct Unread {
    lane: Lane,
    first: RecordId,
    /// How often the medium has failed to give it.
    failures: u32,
    pause: Duration,
    retry_at: Duration,
}

impl<S: Store> Keeper<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: S,
        beside: Option<Box<dyn Beside>>,
        max_size: u64,
        when_full: WhenFull,
        has_reserve: bool,
    ) -> Keeper<S> {
        let batch_bytes = shared.with(|book| book.commit_bytes());
        let keeper = Keeper {
            shared,
            store,
            beside,
            max_size,
            when_full,
            trouble: None,
            rests_until: Duration::ZERO,
            full_until: Duration::ZERO,
            unread: None,
            read_next: None,
            batch_bytes,
            emptying: None,
            futile_until: Duration::ZERO,
            flash: Flash::estimated(None),
            merged: Said::default(),
            undeliverable: Said::default(),
            marker_at: None,
            reserve_at: (!has_reserve).then_some(Duration::ZERO),
        };
        keeper.press();
        keeper
    }

    /// How what is written is counted, and what it may be.
    pub(super) fn set_flash(&mut self, flash: Flash) {
        self.flash = flash;
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self, clock: &Clock) {
        loop {
            let next = self.guarded_step(clock.now());
            let shared = self.shared.clone();
            let mut state = shared.state();
            while state.stop.is_none() && !state.is_poked {
                let wait = next.map(|next| next.saturating_sub(clock.now().mono));
                if wait == Some(Duration::ZERO) {
                    break;
                }
                state = match wait {
                    None => shared
                        .work
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner),
                    Some(wait) => {
                        shared
                            .work
                            .wait_timeout(state, wait)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0
                    }
                };
            }
            state.is_poked = false;
            let stop = state.stop;
            drop(state);
            match stop {
                None => {}
                Some(Stop::Close) => return self.finish(clock.now()),
                Some(Stop::Abandon) => return,
            }
        }
    }

    /// A step that panics, as sled may, is a failure like others: it is tried again later.
    fn guarded_step(&mut self, now: Now) -> Option<Duration> {
        if now.mono < self.rests_until {
            return Some(self.rests_until);
        }
        match catch_unwind(AssertUnwindSafe(|| self.step(now))) {
            Ok(next) => next,
            Err(_) => {
                self.pause(now);
                self.rests_until =
                    now.mono + self.trouble.map_or(RETRY_MIN, |trouble| trouble.pause);
                tracing::error!(
                    "outbox: the storage thread panicked, which is a fault of Tidegate; trying again by itself"
                );
                // What a commit in progress was to say is said again.
                // What was being merged is to be shown again.
                self.shared.with(|book| {
                    book.release_all();
                    book.mark_dirty(now.mono);
                });
                // A reader whose group was being read asks for it again.
                self.shared.changed.notify_one();
                Some(self.rests_until)
            }
        }
    }

    /// Does what is due, and one commit at most, so that under load readers and a stop get their turn. Returns when there
    /// will be something to do again, if nothing happens before.
    pub(super) fn step(&mut self, now: Now) -> Option<Duration> {
        self.read_wanted(now);
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now.mono);
        self.write_due_dead_letters(now);
        let may_commit = self
            .trouble
            .is_none_or(|trouble| trouble.retry_at <= now.mono)
            && self.full_until <= now.mono;
        if may_commit && is_due(self.commit_due()) {
            self.commit(now);
        }
        self.press();
        let letters_at = self.shared.with(|book| book.dead_letters_due());
        let commit_at = self.commit_due().map(|due| {
            let retry_at = self.trouble.map_or(due, |trouble| trouble.retry_at);
            due.max(retry_at).max(self.full_until)
        });
        let read_at = match self.read_next {
            Some(_) => Some(now.mono),
            None => self.unread.map(|unread| unread.retry_at),
        };
        [commit_at, letters_at, read_at].into_iter().flatten().min()
    }

    /// When the next commit is due, and there is credit for it.
    fn commit_due(&self) -> Option<Duration> {
        let due = self.shared.with(|book| book.commit_due())?;
        Some(self.flash.allows_at(due))
    }

    /// Writes what is left, whether it is due or not.
    pub(super) fn finish(&mut self, now: Now) {
        self.write_dead_letters(now);
        // The first failure may have freed the reserve, and the next commit goes to another generation.
        let mut failures = 0;
        while self
            .shared
            .with(|book| book.has_pending() || book.is_dirty())
        {
            failures = if self.commit(now) { 0 } else { failures + 1 };
            if failures > 1 {
                match self.shared.with(|book| book.ledger().pending) {
                    0 => tracing::error!(
                        "outbox: what was acknowledged last could not be written; it will be sent again"
                    ),
                    lost => {
                        tracing::error!("outbox: {lost} records could not be written and are lost")
                    }
                }
                return;
            }
        }
        let ledger = self.shared.with(|book| book.ledger());
        self.write_marker(ledger, now);
    }

    /// Reads what readers want, and some more; not all of it at once, as what is to be written has its turn, too.
    fn read_wanted(&mut self, now: Now) {
        if self.unread.is_some_and(|unread| now.mono < unread.retry_at) {
            return;
        }
        let unread = self.unread.take();
        let last = self.read_next.take();
        let mut next = self.shared.with(|book| {
            // It may have been settled meanwhile, and its generation removed.
            // Before what other lanes want: how often it failed is remembered for one group only.
            let unread = unread.and_then(|unread| book.unloaded(unread.lane, unread.first));
            let last = last.and_then(|place| book.unloaded(place.lane, place.first));
            unread.or(last).or_else(|| book.wanted())
        });
        for _ in 0..READS_AT_ONCE {
            let Some(place) = next else {
                return;
            };
            next = match self.store.read(place) {
                Ok(records) => self.shared.with(|book| {
                    book.load(place, records);
                    let wanted = book.wanted();
                    wanted.or_else(|| book.worth_reading_after(place))
                }),
                Err(error) if error.is_damage() => {
                    let lost = self.give_up(place, now);
                    tracing::error!("outbox: {}; {lost} records are lost", words(&error));
                    None
                }
                // sled writes when it opens a generation.
                Err(error) if error.is_disk_full() && self.release_reserve(now) => Some(place),
                Err(error) => {
                    if self.read_later(place, &error, unread, now) {
                        return;
                    }
                    None
                }
            };
            self.shared.changed.notify_one();
        }
        self.read_next = next;
    }

    /// What could not be read is tried again, later each time; but what the medium does not give after some tries is given up, with all of
    /// its generation. Whether it is tried again.
    fn read_later(
        &mut self,
        place: Place,
        error: &StoreError,
        before: Option<Unread>,
        now: Now,
    ) -> bool {
        let before = before.filter(|before| before.first == place.first);
        let failures =
            before.map_or(0, |before| before.failures) + u32::from(error.is_bad_medium());
        if failures < READ_TRIES {
            tracing::warn!("outbox: {}; trying again", words(error));
            let pause = match before {
                // A medium is given up after some failures, and those come soon.
                Some(before) if failures == 0 => (before.pause * 2).min(RETRY_MAX),
                _ => RETRY_MIN,
            };
            self.unread = Some(Unread {
                lane: place.lane,
                first: place.first,
                failures,
                pause,
                retry_at: now.mono + pause,
            });
            return true;
        }
        let lost = self.give_up_generation(place.generation, now);
        tracing::error!(
            "outbox: {}, {failures} times; it is moved to {}, and {lost} records are lost",
            words(error),
            files::DAMAGED
        );
        false
    }

    fn give_up(&mut self, place: Place, now: Now) -> u64 {
        self.store.quarantine(place);
        self.shared.update(|book| book.drop_group(place, now.mono))
    }

    fn give_up_generation(&mut self, generation: u32, now: Now) -> u64 {
        self.store.set_aside(generation);
        self.shared
            .update(|book| book.drop_generation(generation, Reason::Damaged, now.mono))
    }

    /// Gives up the reserve; whether there was one, so that it is worth trying again.
    fn release_reserve(&mut self, now: Now) -> bool {
        let beside = self.beside.as_ref();
        let is_released = beside.is_some_and(|beside| beside.release_reserve());
        if is_released {
            self.reserve_at = Some(now.mono + RETRY_MAX);
        }
        is_released
    }

    /// Writes one commit. Returns whether it went well.
    fn commit(&mut self, now: Now) -> bool {
        if self.is_emptying()
            && let Some(is_well) = self.make_room(now)
        {
            return is_well;
        }
        let generations = self.store.generations();
        let commit = self.shared.with(|book| book.begin(generations));
        if commit.groups.is_empty() || self.has_room(&commit) {
            return self.write(commit, now);
        }
        self.shared.with(|book| book.put_off(commit));
        if let Some(is_well) = self.make_room(now) {
            return is_well;
        }
        let generations = self.store.generations();
        let commit = self.shared.with(|book| book.begin(generations));
        match self.when_full {
            WhenFull::Block => {
                // In memory they may wait for room; it is made by what the books say is delivered.
                self.shared.with(|book| book.put_off(commit));
                self.full_until = now.mono + RETRY_MIN;
                if self.shared.with(|book| book.is_dirty()) {
                    self.write_books(now);
                }
                false
            }
            WhenFull::DropNewest => {
                self.shared.with(|book| book.refuse(commit));
                true
            }
            // Nothing is there that could go.
            WhenFull::DropOldest | WhenFull::Thin => self.write(commit, now),
        }
    }

    fn has_room(&self, commit: &Commit) -> bool {
        let records = commit.groups.iter().flatten();
        let bytes: usize = records.map(|record| size_of(&record.draft)).sum();
        let growth = bytes as u64 * GROWTH + GROWTH_PER_COMMIT;
        // What cannot fit however much is dropped is let through: the bound is then exceeded by this commit.
        let needed = self.store.disk_bytes() + growth + self.headroom();
        self.store.generations().len() <= 1 || needed <= self.max_size
    }

    /// Has sources that can wait do so in time: what flows still have in hand then takes less than two generations, or is counted.
    fn press(&self) {
        if self.when_full != WhenFull::Block {
            return;
        }
        let kept_free = GROWTH_PER_COMMIT + self.headroom() + 2 * self.store.generation_size();
        // What is freed is not to be filled at once.
        let more = if self.shared.pressure.is_high() {
            2 * self.store.generation_size()
        } else {
            0
        };
        let taken = self.store.disk_bytes() + kept_free + more;
        let room = self.max_size.saturating_sub(taken) / GROWTH;
        // From half of the memory on commits are early, so that more than that means that the disk does not keep up.
        let memory = self.shared.with(|book| book.max_pending() / 2 + 1);
        self.shared
            .press_from(usize::try_from(room).map_or(memory, |room| room.min(memory)));
    }

    /// Whether the last commit failed for want of room on the disk itself.
    fn is_full_beyond_help(&self) -> bool {
        self.trouble.is_some_and(|trouble| trouble.is_disk_full)
    }

    fn write_books(&mut self, now: Now) -> bool {
        let generations = self.store.generations();
        let books = self
            .shared
            .with(|book| book.begin_without_records(generations));
        self.write(books, now)
    }

    fn write(&mut self, commit: Commit, now: Now) -> bool {
        let ledger = commit.snapshot.ledger;
        // What the commit says is given up has its letter by now.
        self.write_due_dead_letters(now);
        match self.store.commit(&commit) {
            Ok(written) => {
                let settled = commit.settled.clone();
                let flash_bytes = self.flash.wrote(written.bytes, now.mono);
                let per_day = self.flash.per_day(now.mono);
                self.shared.with(|book| {
                    book.count_flash(flash_bytes, per_day);
                    book.committed(commit, written.generation, written.bytes, now.mono);
                });
                for generation in settled {
                    if generation != written.generation {
                        self.store.remove(generation);
                    }
                }
                let disk_bytes = self.store.disk_bytes();
                self.shared.with(|book| book.set_disk_bytes(disk_bytes));
                self.shared.changed.notify_one();
                self.after_success(written, ledger, now);
                true
            }
            Err(error) => {
                self.shared.with(|book| book.failed(commit, now.mono));
                self.after_failure(&error, now);
                false
            }
        }
    }

    fn after_success(&mut self, written: Written, ledger: Ledger, now: Now) {
        if let Some(trouble) = self.trouble.take() {
            let seconds = now.mono.saturating_sub(trouble.since).as_secs();
            tracing::info!("outbox: writing to disk works again, after {seconds} s");
        }
        let is_marker_due = self
            .marker_at
            .is_none_or(|at| now.mono >= at + MARKER_EVERY);
        if written.is_first || is_marker_due {
            self.write_marker(ledger, now);
        }
        if let Some(beside) = &self.beside
            && self.reserve_at.is_some_and(|at| now.mono >= at)
        {
            let made = beside.make_reserve();
            self.reserve_at = made.is_err().then_some(now.mono + RETRY_MAX);
        }
    }

    fn after_failure(&mut self, error: &StoreError, now: Now) {
        if self.trouble.is_none() {
            let what_to_do = if error.is_disk_full() {
                "free some space on this disk"
            } else {
                "look at the disk and at the kernel's log"
            };
            tracing::error!(
                "outbox: {}; {what_to_do}. New records stay in memory, and a power cut would take them; trying again by \
                 itself",
                words(error)
            );
        }
        self.pause(now);
        if let Some(trouble) = &mut self.trouble {
            trouble.is_disk_full = error.is_disk_full();
        }
        if error.is_disk_full() && self.release_reserve(now) {
            // With the reserve there may be room to say what is settled, and so to free whole generations.
            let trouble = self.trouble;
            if self.shared.with(|book| book.is_dirty()) && !self.write_books(now) {
                // It was the same failure.
                self.trouble = trouble;
            }
        }
    }

    /// Puts off the next commit, longer each time.
    fn pause(&mut self, now: Now) {
        let (since, pause) = match self.trouble {
            None => (now.mono, RETRY_MIN),
            Some(trouble) => (trouble.since, (trouble.pause * 2).min(RETRY_MAX)),
        };
        self.trouble = Some(Trouble {
            since,
            pause,
            retry_at: now.mono + pause,
            is_disk_full: false,
        });
    }

    fn write_marker(&mut self, ledger: Ledger, now: Now) {
        let Some(beside) = &self.beside else {
            return;
        };
        self.marker_at = Some(now.mono);
        let last = self.shared.with(|book| book.last());
        let marker = Marker {
            epoch: last.epoch,
            last,
            ledger,
        };
        if let Err(error) = beside.write_marker(&marker) {
            tracing::warn!(
                "outbox: cannot write the marker in {}: {error}",
                beside.place().display()
            );
        }
    }

    fn write_due_dead_letters(&mut self, now: Now) {
        let due = self.shared.with(|book| book.dead_letters_due());
        if due.is_some_and(|due| due <= now.mono) {
            self.write_dead_letters(now);
        }
    }

    /// Before the commit that says they are settled: a crash in between repeats a line rather than losing one.
    fn write_dead_letters(&mut self, now: Now) {
        let mut letters = self.shared.with(Book::take_dead_letters);
        if self.beside.is_none() || letters.is_empty() {
            return;
        }
        if let Some(last) = letters.back() {
            let what = last
                .record
                .as_ref()
                .map_or("", |record| record.draft.topic.as_str());
            self.undeliverable
                .count(letters.len() as u64, now.mono, |number| {
                    tracing::warn!(
                        "outbox: {number} records can never be delivered, the last of them for `{what}`: {}; dead-letters.jsonl has them",
                        last.reason
                    );
                });
        }
        for letter in &mut letters {
            if letter.record.is_none()
                && let Some(place) = letter.place
                && let Ok(group) = self.store.read(place)
            {
                letter.record = group.into_iter().find(|record| record.id == letter.id);
            }
        }
        let mut result = self.append_dead_letters(&letters);
        if result.as_ref().is_err_and(store::is_disk_full) && self.release_reserve(now) {
            result = self.append_dead_letters(&letters);
        }
        if let Err(error) = result {
            tracing::warn!(
                "outbox: cannot write {} dead letters: {error}; trying again",
                letters.len()
            );
            self.shared
                .with(|book| book.put_back_dead_letters(letters, now.mono + RETRY_MAX));
        }
    }

    fn append_dead_letters(&self, letters: &VecDeque<DeadLetter>) -> io::Result<()> {
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        beside
            .write_dead_letters(&mut letters.iter())
            .map_err(|error| {
                let place = beside.place().display();
                io::Error::new(error.kind(), format!("in {place}: {error}"))
            })
    }
}

#[cfg(test)]
mod tests;
