//! The outbox under virtual time: the real books and the real storage thread's work, on a disk in memory.
//!
//! Nothing runs by itself: whoever has it says what time it is, and acknowledges records. What was committed outlives a power
//! cut; what was pending does not.
//!
//! Must not: touch a file, read a clock, or start a thread.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::book::{Book, Commit, Place};
use super::flash::Flash;
use super::group::{Snapshot, size_of};
use super::keeper::{Keeper, Shared};
use super::ledger::Ledger;
use super::record::{Draft, Key, Lane, Record, RecordId};
use super::store::{FoundGroup, Store, StoreError, Written};
use super::{MIN_SIZE, Pressure, Settings};
use crate::runtime::clock::Now;

/// What a commit takes on the disk, by itself and for each byte in it: as measured, see decision 0002.
const BYTES_PER_COMMIT: u64 = 9_000;
const BYTES_PER_BYTE: f64 = 5.5;

/// How a disk takes what is written to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// It takes everything.
    #[default]
    Ok,
    /// It has no room for anything more.
    Full,
    /// It refuses to be written to, as one that has been remounted read-only.
    Failing,
}

/// An outbox whose disk is in memory.
pub struct VirtualOutbox {
    settings: Settings,
    disk: Arc<Mutex<Disk>>,
    shared: Arc<Shared>,
    keeper: Keeper<SharedDisk>,
    /// When the storage thread wants to be called next.
    due: Option<Duration>,
}

impl VirtualOutbox {
    /// A new one.
    pub fn new(settings: Settings) -> VirtualOutbox {
        let disk = Arc::new(Mutex::new(Disk {
            generation_size: settings.generation_size(),
            ..Disk::default()
        }));
        VirtualOutbox::open(settings, disk, Now::default())
    }

    /// Opens what is on a disk, as [`Claim::open`](super::Claim::open) does.
    fn open(settings: Settings, disk: Arc<Mutex<Disk>>, now: Now) -> VirtualOutbox {
        let book = lock(&disk).open_book(&settings, now.mono);
        let shared = Arc::new(Shared::new(book, Pressure::default()));
        let mut keeper = Keeper::new(
            shared.clone(),
            SharedDisk(disk.clone()),
            None,
            settings.max_size.max(MIN_SIZE),
            settings.when_full,
            true,
        );
        keeper.set_flash(Flash::estimated(settings.flash_budget));
        VirtualOutbox {
            settings,
            disk,
            shared,
            keeper,
            due: None,
        }
    }

    /// Takes a record in. [`VirtualOutbox::work`] has to follow.
    pub fn append(&mut self, draft: Draft, now: Now) -> RecordId {
        self.shared.with(|book| {
            book.append(draft, now.mono);
            book.last()
        })
    }

    /// Records that may be sent, lane by lane, in each the oldest first, with what must be read of the disk for that. Those that
    /// come back have to be acknowledged before it is called again.
    pub fn peek(&mut self, limit: usize, now: Now) -> Vec<Arc<Record>> {
        loop {
            let records = self.peek_in_memory(limit, now);
            let is_wanted = self.shared.with(|book| book.is_wanted());
            if !records.is_empty() || !is_wanted {
                return records;
            }
            self.due = self.keeper.step(now);
            // What could not be read is tried again later.
            if self.peek_in_memory(1, now).is_empty() {
                return Vec::new();
            }
        }
    }

    /// Lane by lane, as they are served; a lane of which something has to be read holds up those behind it.
    fn peek_in_memory(&self, limit: usize, now: Now) -> Vec<Arc<Record>> {
        self.shared.with(|book| {
            let mut records = Vec::new();
            for lane in Lane::ALL {
                let room = limit - records.len();
                records.extend(book.peek(lane, None, room, now));
                if records.len() >= limit || book.is_wanted_in(lane) {
                    break;
                }
            }
            records
        })
    }

    /// The record has been delivered.
    pub fn acknowledge(&mut self, key: Key, now: Now) {
        self.shared.with(|book| book.acknowledge(key, now.mono));
    }

    /// Does what the storage thread has to do now.
    pub fn work(&mut self, now: Now) {
        loop {
            let before = self.ledger();
            self.due = self.keeper.step(now);
            // As long as it gets on with it: a step commits once.
            if self.due.is_none_or(|due| due > now.mono) || self.ledger() == before {
                return;
            }
        }
    }

    /// When [`VirtualOutbox::work`] has something to do, if nothing happens before.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// From now on the disk is like that.
    pub fn set_disk(&mut self, state: DiskState) {
        lock(&self.disk).state = state;
    }

    pub fn ledger(&self) -> Ledger {
        self.shared.with(|book| book.ledger())
    }

    /// The power goes and comes back: what was not committed is lost.
    pub fn cut(&mut self, now: Now) {
        *self = VirtualOutbox::open(self.settings.clone(), self.disk.clone(), now);
    }

    /// It is closed, and opened again.
    pub fn restart(&mut self, now: Now) {
        self.keeper.finish(now);
        self.cut(now);
    }
}

/// What is durable.
#[derive(Debug, Default)]
struct Disk {
    state: DiskState,
    /// A new generation is begun past this many bytes.
    generation_size: u64,
    /// By number. The newest one is written to.
    generations: BTreeMap<u32, Generation>,
    /// The newest one there ever was.
    last: u32,
    /// That of the last commit.
    snapshot: Snapshot,
    /// The number of starts, which the file beside the directory knows.
    epoch: u64,
}

#[derive(Debug, Default)]
struct Generation {
    groups: BTreeMap<RecordId, Vec<Arc<Record>>>,
    bytes: u64,
}

impl Disk {
    /// The books, with all that is found.
    fn open_book(&mut self, settings: &Settings, now: Duration) -> Book {
        self.epoch += 1;
        let mut book = Book::open(settings.limits(), self.epoch, self.snapshot.clone());
        for (number, generation) in self.generations.iter().rev() {
            for records in generation.groups.values() {
                if let Some(found) = FoundGroup::new(*number, records) {
                    book.found(&found);
                }
            }
        }
        book.reconcile(0, now);
        book.set_disk_bytes(self.bytes());
        book
    }

    fn bytes(&self) -> u64 {
        let generations = self.generations.values();
        generations.map(|generation| generation.bytes).sum()
    }

    fn check(&self) -> Result<(), StoreError> {
        let kind = match self.state {
            DiskState::Ok => return Ok(()),
            DiskState::Full => io::ErrorKind::StorageFull,
            DiskState::Failing => io::ErrorKind::ReadOnlyFilesystem,
        };
        Err(StoreError::Io {
            doing: "write to",
            path: PathBuf::from("the disk of the test"),
            source: kind.into(),
        })
    }

    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError> {
        self.check()?;
        let newest = self.generations.last_key_value();
        let open = newest.filter(|(_, generation)| generation.bytes < self.generation_size);
        let is_first = open.is_none();
        let number = open.map_or(self.last + 1, |(number, _)| *number);
        self.last = number;
        let records = commit.groups.iter().flatten();
        let payload: usize = records.map(|record| size_of(&record.draft)).sum();
        let bytes = BYTES_PER_COMMIT + (payload as f64 * BYTES_PER_BYTE) as u64;
        let generation = self.generations.entry(number).or_default();
        generation.bytes += bytes;
        for group in &commit.groups {
            if let Some(first) = group.first() {
                generation.groups.insert(first.id, group.clone());
            }
        }
        self.snapshot = commit.snapshot.clone();
        Ok(Written {
            generation: number,
            bytes,
            is_first,
        })
    }
}

/// The disk as the storage thread has it.
struct SharedDisk(Arc<Mutex<Disk>>);

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for SharedDisk {
    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError> {
        lock(&self.0).commit(commit)
    }

    fn read(&mut self, place: Place) -> Result<Vec<Arc<Record>>, StoreError> {
        let disk = lock(&self.0);
        let generation = disk.generations.get(&place.generation);
        let group = generation.and_then(|generation| generation.groups.get(&place.first));
        Ok(group.cloned().unwrap_or_default())
    }

    /// Nothing here is ever damaged.
    fn quarantine(&mut self, _: Place) {}

    fn set_aside(&mut self, generation: u32) {
        self.remove(generation);
    }

    fn generations(&self) -> Vec<u32> {
        lock(&self.0).generations.keys().copied().collect()
    }

    fn remove(&mut self, generation: u32) {
        lock(&self.0).generations.remove(&generation);
    }

    fn disk_bytes(&self) -> u64 {
        lock(&self.0).bytes()
    }

    fn generation_size(&self) -> u64 {
        lock(&self.0).generation_size
    }

    fn bytes_of(&self, generation: u32) -> u64 {
        let disk = lock(&self.0);
        disk.generations.get(&generation).map_or(0, |it| it.bytes)
    }

    fn writer(&self) -> Option<u32> {
        let disk = lock(&self.0);
        let (number, newest) = disk.generations.last_key_value()?;
        (newest.bytes < disk.generation_size).then_some(*number)
    }
}
