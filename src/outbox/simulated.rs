//! The outbox of the simulation: the real books and the real work of the storage thread on a [`SharedDisk`], without the
//! thread.
//!
//! Must not: do what the real one does with other lines than those that it has.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::book::{Limits, WhenFull};
use super::keeper::{Keeper, Shared};
use super::ledger::Ledger;
use super::opening::open_books;
use super::record::{Draft, Key, Lane, Record, RecordId};
use super::simulated_disk::{SharedDisk, Stopped};
use super::{OpenError, Opening, Pressure};
use crate::runtime::clock::Now;
use crate::uplink::Backlog;

/// What records that were read ahead may take.
pub(crate) const LOADED_MAX: usize = super::book::measured::LOADED_MAX;

/// How large it may become; smaller than real ones, so that a short life meets the limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) commit: Duration,
    pub(crate) commit_bytes: usize,
    pub(crate) max_pending: usize,
    pub(crate) max_size: u64,
    pub(crate) when_full: WhenFull,
}

/// What the uplink did to records, for the oracle.
#[derive(Clone, Debug)]
pub(crate) enum Settlement {
    Acknowledged(RecordId),
    DeadLettered(RecordId, String),
}

/// A handle; clones share the outbox.
#[derive(Clone)]
pub(crate) struct SimulatedOutbox {
    shared: Arc<Shared>,
    disk: SharedDisk,
    state: Arc<Mutex<HandleState>>,
}

#[derive(Default)]
struct HandleState {
    now: Now,
    settlements: Vec<Settlement>,
}

/// What the storage thread would do, when it is told to.
pub(crate) struct StorageWork {
    shared: Arc<Shared>,
    keeper: Keeper<SharedDisk>,
    due: Option<Duration>,
}

impl SimulatedOutbox {
    /// Opens what is on the disk, as [`Claim::open`](super::Claim::open) does. None if the device stops in the midst of it.
    pub(crate) fn open(
        sizes: &Sizes,
        disk: &SharedDisk,
        now: Now,
    ) -> Option<Result<(SimulatedOutbox, StorageWork, Opening), OpenError>> {
        until_stopped(|| {
            let has_reserve = super::beside::Beside::make_reserve(disk).is_ok();
            let (store, found) = disk.open();
            let disk_bytes = store.lock().bytes();
            let limits = Limits {
                commit: sizes.commit,
                commit_bytes: sizes.commit_bytes,
                max_pending: sizes.max_pending,
                when_full: sizes.when_full,
            };
            let (book, opening) = open_books(limits, found.0, disk_bytes, disk, now.mono)?;
            let shared = Arc::new(Shared::new(book, Pressure::default()));
            let keeper = Keeper::new(
                shared.clone(),
                store,
                Some(Box::new(disk.clone())),
                sizes.max_size,
                sizes.when_full,
                has_reserve,
            );
            let work = StorageWork {
                shared: shared.clone(),
                keeper,
                due: Some(now.mono),
            };
            let outbox = SimulatedOutbox {
                shared,
                disk: disk.clone(),
                state: Arc::default(),
            };
            Ok((outbox, work, opening))
        })
    }

    fn state<T>(&self, look: impl FnOnce(&mut HandleState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_now(&self, now: Now) {
        self.state(|state| state.now = now);
    }

    /// As [`Outbox::append`](super::Outbox::append); gives the record its name.
    pub(crate) fn append(&self, draft: Draft) -> RecordId {
        let now = self.state(|state| state.now.mono);
        let id = self.shared.update(|book| {
            book.append(draft, now);
            book.last()
        });
        self.shared.changed.notify_one();
        id
    }

    pub(crate) fn take_settlements(&self) -> Vec<Settlement> {
        self.state(|state| std::mem::take(&mut state.settlements))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.shared.with(|book| book.ledger())
    }

    /// Bytes of pending records and of those read ahead, and the number of dead letters that wait.
    pub(crate) fn memory(&self) -> (usize, usize, usize) {
        let memory = self.shared.with(|book| book.memory());
        (
            memory.pending_bytes,
            memory.loaded_bytes,
            memory.dead_letters,
        )
    }
}

impl Backlog for SimulatedOutbox {
    fn peek(&self, lane: Lane, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        let now = self.state(|state| state.now);
        self.shared
            .update(|book| book.peek(lane, after, limit, now))
    }

    fn last(&self) -> RecordId {
        self.shared.with(|book| book.last())
    }

    fn acknowledge(&self, key: Key) {
        self.disk.lock().acknowledged += 1;
        let now = self.state(|state| {
            state.settlements.push(Settlement::Acknowledged(key.id));
            state.now
        });
        self.shared.update(|book| book.acknowledge(key, now.mono));
    }

    fn dead_letter(&self, key: Key, reason: &str) {
        let now = self.state(|state| {
            let letter = Settlement::DeadLettered(key.id, reason.to_owned());
            state.settlements.push(letter);
            state.now
        });
        self.shared
            .update(|book| book.dead_letter(key, reason, now.mono, now.wall));
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl StorageWork {
    /// Whether it has something to do now: it was woken, or it is time.
    pub(crate) fn is_due(&mut self, now: Duration) -> bool {
        if self.shared.take_poke() {
            self.due = Some(now);
        }
        self.due.is_some_and(|due| due <= now)
    }

    /// When it wants to be called next.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// One step. False if the device has stopped in the midst of it.
    pub(crate) fn step(&mut self, now: Now) -> bool {
        match until_stopped(|| self.keeper.step(now)) {
            Some(due) => {
                self.due = due;
                true
            }
            None => false,
        }
    }

    /// Writes what is left, for a stop that was asked for. False as in [`StorageWork::step`].
    pub(crate) fn finish(&mut self, now: Now) -> bool {
        until_stopped(|| self.keeper.finish(now)).is_some()
    }
}

/// None if the device stops in the midst of it.
fn until_stopped<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(why) if why.is::<Stopped>() => None,
        Err(panic) => resume_unwind(panic),
    }
}
