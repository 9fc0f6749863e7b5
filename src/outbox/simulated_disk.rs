//! A disk with a cache, a power plug and faults, in memory: what the storage thread writes on in the simulation.
//!
//! It holds bytes as the encoders made them. Terms: a *batch* is what one commit writes, all of it in one place; it is *synced*,
//! only in the *cache*, or *unsure*, after a sync that failed; a *point* is a moment in the midst of a write at which a crash may
//! come.
//!
//! Must not: know what a record is for, or read a clock.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::beside::Beside;
use super::book::{Commit, DeadLetter, Place};
use super::files::Marker;
use super::group::{decode_records, decode_snapshot, encode_records, encode_snapshot, size_of};
use super::record::{Record, RecordId};
use super::store::{Found, FoundGroup, READ_TRIES, Store, StoreError, Written};
use crate::simulation::Random;

/// What a commit takes on the disk, by itself and for each byte in it: as measured, see decision 0002.
const BYTES_PER_COMMIT: u64 = 9_000;
const BYTES_PER_TWO_BYTES: u64 = 11;
/// The file that is given up when the disk is full.
const RESERVE: u64 = 64 * 1024;
const EIO: i32 = 5;

/// How the device stops without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process ends; what it wrote is in the page cache.
    Kill,
    /// What was not synced is lost, in part.
    PowerCut,
}

/// What unwinds the storage thread's step when the device stops in the midst of it.
pub(crate) struct Stopped;

/// Which faults the disk has now.
#[derive(Debug, Default)]
pub(crate) struct DiskFaults {
    /// It has no room but what is freed.
    pub(crate) is_full: bool,
    /// Writes give EIO.
    pub(crate) write_fails: bool,
    /// Syncs fail, after the data was written to the cache.
    pub(crate) sync_fails: bool,
    /// How long a sync takes.
    pub(crate) sync_takes: Duration,
    /// Reads of the oldest generation give EIO, as many times.
    pub(crate) failing_reads: u32,
    /// The device stops at the n-th point from now.
    pub(crate) stops_in: Option<(u32, Crash)>,
}

/// What became of what, for the oracle and the history.
#[derive(Debug)]
pub(crate) enum DiskWitness {
    /// The storage thread was told that these are durable, and with them all that was settled when there were so
    /// many acknowledgements.
    Durable {
        ids: Vec<RecordId>,
        acknowledged: usize,
        /// How many records had no room until then.
        overflow: u64,
    },
    /// For the history.
    Did(String),
    /// A fault has had an effect.
    Hit(&'static str),
    /// What was durable may be lost from now on.
    Damage(Harm),
}

/// What damage has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// Records, which the books know to be missing.
    Records,
    /// Books, so that what they count is as old as the ones that are left.
    Books,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Synced,
    Cached,
    Unsure,
}

#[derive(Clone, Debug)]
struct Batch {
    groups: Vec<(RecordId, Vec<u8>)>,
    snapshot: Option<Vec<u8>>,
    bytes: u64,
    state: State,
}

#[derive(Clone, Debug, Default)]
struct Generation {
    batches: Vec<Batch>,
}

impl Generation {
    fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bytes).sum()
    }
}

/// A small file: what is on the disk, and what a reader sees.
#[derive(Clone, Debug, Default)]
struct Small {
    durable: Option<Vec<u8>>,
    cached: Option<Vec<u8>>,
}

pub(crate) struct Disk {
    pub(crate) faults: DiskFaults,
    random: Random,
    generation_size: u64,
    generations: BTreeMap<u32, Generation>,
    /// The one that commits go to.
    writer: Option<u32>,
    last: u32,
    /// Removed, but the directory was not synced since.
    removed: BTreeMap<u32, Generation>,
    epoch: Small,
    marker: Small,
    flips_epoch: bool,
    dead_letters: usize,
    has_reserve: bool,
    /// How many acknowledgements the outbox was given.
    pub(crate) acknowledged: usize,
    pub(crate) witness: Vec<DiskWitness>,
}

impl Disk {
    pub(crate) fn new(mut random: Random, generation_size: u64) -> Disk {
        Disk {
            flips_epoch: random.one_in(2),
            faults: DiskFaults::default(),
            random,
            generation_size,
            generations: BTreeMap::new(),
            writer: None,
            last: 0,
            removed: BTreeMap::new(),
            epoch: Small::default(),
            marker: Small::default(),
            dead_letters: 0,
            has_reserve: false,
            acknowledged: 0,
            witness: Vec::new(),
        }
    }

    /// What all generations take, those that nobody can remove yet included.
    pub(crate) fn bytes(&self) -> u64 {
        self.generations.values().map(Generation::bytes).sum()
    }

    fn did(&mut self, what: String) {
        self.witness.push(DiskWitness::Did(what));
    }

    fn hit(&mut self, what: &'static str) {
        self.witness.push(DiskWitness::Hit(what));
    }

    /// The process is gone. The cache stays, but what is in it after a failed sync may have been dropped.
    pub(crate) fn killed(&mut self) {
        self.faults.stops_in = None;
        self.writer = None;
        for generation in self.generations.values_mut() {
            let random = &mut self.random;
            generation.batches.retain_mut(|batch| {
                let stays = batch.state != State::Unsure || random.one_in(2);
                batch.state = State::Synced;
                stays
            });
        }
        for small in [&mut self.epoch, &mut self.marker] {
            small.durable.clone_from(&small.cached);
        }
    }

    /// The power is gone, and with it some of what was not synced, from the end.
    pub(crate) fn power_cut(&mut self) {
        self.faults.stops_in = None;
        self.writer = None;
        for (number, generation) in std::mem::take(&mut self.removed) {
            if self.random.one_in(2) {
                self.did(format!(
                    "generation {number}, which was removed, is back after the power cut"
                ));
                self.hit("removed generation back");
                self.generations.insert(number, generation);
            }
        }
        let mut generations = std::mem::take(&mut self.generations);
        for (number, generation) in &mut generations {
            self.lose_unsynced(*number, generation);
        }
        self.generations = generations;
        for small in [&mut self.epoch, &mut self.marker] {
            if small.durable != small.cached && self.random.one_in(2) {
                small.cached.clone_from(&small.durable);
            }
            small.durable.clone_from(&small.cached);
        }
    }

    fn lose_unsynced(&mut self, number: u32, generation: &mut Generation) {
        let mut kept = Vec::new();
        let mut all = std::mem::take(&mut generation.batches).into_iter();
        for mut batch in all.by_ref() {
            if batch.state != State::Synced && !self.random.one_in(3) {
                self.hit("unsynced write lost");
                self.did(format!(
                    "the power cut takes an unsynced batch of generation {number}"
                ));
                if self.random.one_in(3) {
                    self.tear(&mut batch);
                    kept.push(batch);
                }
                break;
            }
            batch.state = State::Synced;
            kept.push(batch);
        }
        // A log ends at its first hole, whatever was synced behind it.
        if all.next().is_some() {
            self.did(format!(
                "what was behind it in generation {number} is lost with it"
            ));
        }
        generation.batches = kept;
    }

    /// Of a batch some groups are there, the last one with zeros at its end.
    fn tear(&mut self, batch: &mut Batch) {
        self.hit("torn write");
        batch.snapshot = None;
        batch.state = State::Synced;
        if batch.groups.is_empty() {
            return;
        }
        batch
            .groups
            .truncate(1 + self.random.below(batch.groups.len()));
        if let Some((_, value)) = batch.groups.last_mut() {
            let from = self.random.below(value.len());
            value[from..].fill(0);
        }
    }

    /// Flips a bit of something that is durable.
    pub(crate) fn flip(&mut self) {
        let generations: Vec<u32> = self.generations.keys().copied().collect();
        if generations.is_empty() || self.random.one_in(6) {
            // They back each other up, so it is always the same one of a device.
            let is_epoch = self.flips_epoch;
            let small = if is_epoch {
                &mut self.epoch
            } else {
                &mut self.marker
            };
            let Some(bytes) = small.durable.as_mut().filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
            small.cached.clone_from(&small.durable);
            self.witness.push(DiskWitness::Damage(Harm::Books));
            self.hit("flipped byte");
            let what = if is_epoch { "epoch" } else { "marker" };
            return self.did(format!("a bit of the {what} flips"));
        }
        let number = self.random.pick(&generations);
        let random = &mut self.random;
        let generation = self.generations.get_mut(&number);
        let batches = generation.map(|generation| &mut generation.batches);
        let Some(batch) = batches
            .filter(|batches| !batches.is_empty())
            .and_then(|batches| {
                let at = random.below(batches.len());
                batches.get_mut(at)
            })
        else {
            return;
        };
        let groups = batch.groups.len();
        let values = batch.groups.iter_mut().map(|(_, value)| value);
        let mut values: Vec<&mut Vec<u8>> = values.chain(&mut batch.snapshot).collect();
        let at = self.random.below(values.len().max(1));
        let Some(value) = values.get_mut(at) else {
            return;
        };
        let is_group = at < groups;
        let byte = self.random.below(value.len());
        value[byte] ^= 1 << self.random.below(8);
        let harm = if is_group { Harm::Records } else { Harm::Books };
        self.witness.push(DiskWitness::Damage(harm));
        self.hit("flipped byte");
        self.did(format!(
            "a bit of a batch in generation {number} flips, in value {at}, byte {byte}"
        ));
    }

    fn error(&self, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::Io {
            doing,
            path: PathBuf::from("the simulated disk"),
            source,
        }
    }

    /// Whether something new may be written.
    fn writable(&mut self) -> io::Result<()> {
        if self.faults.write_fails {
            self.hit("write error");
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if self.faults.is_full && self.has_reserve {
            self.hit("disk full");
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.faults.is_full && self.random.one_in(3) {
            // The reserve had some room in it, and that is used up, too.
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn snapshot_of(generation: &Generation) -> Option<&Vec<u8>> {
        let snapshots = generation.batches.iter().rev();
        snapshots.filter_map(|batch| batch.snapshot.as_ref()).next()
    }
}

/// What happens elsewhere while a sync takes its time; see [`while_the_world_goes_on`].
type Meanwhile = Rc<dyn Fn(Duration)>;

thread_local! {
    // A `Store` is `Send`, for its thread. The world of a simulation is not, and so it cannot be a field of one.
    static MEANWHILE: std::cell::RefCell<Option<Meanwhile>> = const { std::cell::RefCell::new(None) };
}

/// Runs `work`; whenever the disk takes time in it, `meanwhile` is called with how long.
pub(crate) fn while_the_world_goes_on<T>(meanwhile: Meanwhile, work: impl FnOnce() -> T) -> T {
    MEANWHILE.with(|it| *it.borrow_mut() = Some(meanwhile));
    let result = work();
    MEANWHILE.with(|it| *it.borrow_mut() = None);
    result
}

/// The disk as the storage thread has it.
#[derive(Clone)]
pub(crate) struct SharedDisk(pub(crate) Arc<Mutex<Disk>>);

impl SharedDisk {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Here the device may stop.
    fn point(&self) {
        let mut disk = self.lock();
        let Some((left, crash)) = &mut disk.faults.stops_in else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            let crash = *crash;
            disk.hit("stop in the midst of a write");
            disk.did(format!("{crash:?} in the midst of a write"));
            drop(disk);
            resume_unwind(Box::new(Stopped));
        }
    }

    /// Time passes.
    fn wait(&self, span: Duration) {
        if span > Duration::ZERO {
            let meanwhile = MEANWHILE.with(|it| it.borrow().clone());
            if let Some(meanwhile) = meanwhile {
                self.lock().hit("slow sync");
                meanwhile(span);
            }
        }
    }

    /// Finds all that is there, and checks it, as [`Generations::open`](super::generations::Generations::open) does.
    pub(crate) fn open(&self) -> (SharedDisk, FoundOnDisk) {
        let mut disk = self.lock();
        let mut found = Found::default();
        if disk.faults.failing_reads > 0
            && let Some(oldest) = disk.generations.keys().next().copied()
        {
            let left = disk.faults.failing_reads.saturating_sub(READ_TRIES);
            disk.hit("read error");
            if disk.faults.failing_reads >= READ_TRIES {
                disk.generations.remove(&oldest);
                found.damaged += 1;
                disk.witness.push(DiskWitness::Damage(Harm::Books));
                disk.did(format!("generation {oldest} cannot be read at the start"));
            }
            disk.faults.failing_reads = left;
        }
        let numbers: Vec<u32> = disk.generations.keys().rev().copied().collect();
        for number in numbers {
            disk.take_in(number, &mut found);
        }
        drop(disk);
        (self.clone(), FoundOnDisk(found))
    }
}

/// What [`SharedDisk::open`] has found.
pub(crate) struct FoundOnDisk(pub(super) Found);

impl Disk {
    fn take_in(&mut self, number: u32, found: &mut Found) {
        let Some(generation) = self.generations.get_mut(&number) else {
            return;
        };
        if let Some(value) = Disk::snapshot_of(generation) {
            match decode_snapshot(value) {
                Ok(snapshot) => found.newer_snapshot(snapshot),
                Err(_) => {
                    found.damaged += 1;
                    for batch in &mut generation.batches {
                        batch.snapshot = None;
                    }
                }
            }
        }
        let mut taken: BTreeMap<RecordId, FoundGroup> = BTreeMap::new();
        for batch in &mut generation.batches {
            batch.groups.retain(|(first, value)| {
                let intact = decode_records(first.epoch, value);
                let intact = intact
                    .ok()
                    .filter(|records| records.first().is_some_and(|record| record.id == *first));
                found.damaged += u64::from(intact.is_none());
                let group = intact.as_ref().and_then(|it| FoundGroup::new(number, it));
                taken.extend(group.map(|group| (*first, group)));
                intact.is_some()
            });
        }
        found.groups.extend(taken.into_values());
    }

    /// Where the next commit goes; and whether that is new.
    fn generation_for_writing(&mut self) -> (u32, bool) {
        let open = self.writer.filter(|number| {
            let generation = self.generations.get(number);
            generation.is_some_and(|generation| generation.bytes() < self.generation_size)
        });
        if let Some(number) = open {
            return (number, false);
        }
        let newest = self.generations.keys().chain(self.removed.keys()).max();
        let number = 1 + newest.copied().unwrap_or(0).max(self.last);
        self.last = number;
        // Its directory is synced, and with it what was removed from there.
        self.removed.clear();
        self.generations.insert(number, Generation::default());
        (number, true)
    }
}

impl Store for SharedDisk {
    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError> {
        let mut disk = self.lock();
        let acknowledged = disk.acknowledged;
        let writable = disk.writable();
        let (number, is_first) = match writable {
            Ok(()) => disk.generation_for_writing(),
            Err(error) => {
                disk.writer = None;
                disk.did(format!("a commit fails: {error}"));
                return Err(disk.error("write to", error));
            }
        };
        disk.writer = None;
        let groups = commit.groups.iter().filter(|records| !records.is_empty());
        let groups = groups.map(|records| (records[0].id, encode_records(records)));
        let records = commit.groups.iter().flatten();
        let payload: u64 = records.map(|record| size_of(&record.draft) as u64).sum();
        let bytes = BYTES_PER_COMMIT + payload * BYTES_PER_TWO_BYTES / 2;
        let batch = Batch {
            groups: groups.collect(),
            snapshot: Some(encode_snapshot(&commit.snapshot)),
            bytes,
            state: State::Cached,
        };
        let generation = disk.generations.entry(number).or_default();
        generation.batches.push(batch);
        let (takes, fails) = (disk.faults.sync_takes, disk.faults.sync_fails);
        drop(disk);
        self.point();
        self.wait(takes);
        let mut disk = self.lock();
        if fails {
            disk.hit("failed sync");
            disk.did(format!("a sync of generation {number} fails"));
            let batches = disk.generations.get_mut(&number);
            if let Some(batch) = batches.and_then(|generation| generation.batches.last_mut()) {
                batch.state = State::Unsure;
            }
            if is_first {
                disk.generations.remove(&number);
            }
            return Err(disk.error("sync", io::Error::from_raw_os_error(EIO)));
        }
        if let Some(generation) = disk.generations.get_mut(&number) {
            let cached = generation.batches.iter_mut();
            for batch in cached.filter(|batch| batch.state == State::Cached) {
                batch.state = State::Synced;
            }
        }
        drop(disk);
        self.point();
        let mut disk = self.lock();
        disk.writer = Some(number);
        let ids: Vec<RecordId> = commit.groups.iter().flatten().map(|it| it.id).collect();
        let (records, settled) = (ids.len(), commit.settled.len());
        disk.did(format!(
            "commit {} of {records} records to generation {number}; {settled} generations may go",
            commit.snapshot.ledger.commits
        ));
        let ledger = commit.snapshot.ledger;
        disk.witness.push(DiskWitness::Durable {
            ids,
            acknowledged,
            overflow: ledger.dropped_overflow_disk
                + ledger.dropped_overflow_memory
                + ledger.dropped_expired,
        });
        Ok(Written {
            generation: number,
            bytes,
            is_first,
        })
    }

    fn read(&mut self, place: Place) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut disk = self.lock();
        let oldest = disk.generations.keys().next() == Some(&place.generation);
        if oldest && disk.faults.failing_reads > 0 {
            disk.faults.failing_reads -= 1;
            disk.hit("read error");
            disk.did(format!("generation {} cannot be read", place.generation));
            return Err(disk.error("read", io::Error::from_raw_os_error(EIO)));
        }
        let path = PathBuf::from(format!("generation {}", place.generation));
        let batches = disk.generations.get(&place.generation);
        let batches = batches.into_iter().flat_map(|it| it.batches.iter().rev());
        let mut groups = batches.flat_map(|batch| &batch.groups);
        let value = groups.find(|(first, _)| *first == place.first);
        let Some((_, value)) = value else {
            let detail = "a group that was there is gone".to_owned();
            return Err(StoreError::Damaged { path, detail });
        };
        decode_records(place.first.epoch, value).map_err(|source| StoreError::Group {
            path,
            first: place.first,
            source,
        })
    }

    fn quarantine(&mut self, place: Place) {
        self.lock().did(format!(
            "a damaged group of generation {} is set aside",
            place.generation
        ));
    }

    fn set_aside(&mut self, generation: u32) {
        let mut disk = self.lock();
        disk.generations.remove(&generation);
        disk.witness.push(DiskWitness::Damage(Harm::Books));
        disk.did(format!("generation {generation} is set aside"));
    }

    fn generations(&self) -> Vec<u32> {
        self.lock().generations.keys().copied().collect()
    }

    fn remove(&mut self, generation: u32) {
        self.point();
        let mut disk = self.lock();
        if disk.faults.write_fails {
            return disk.did(format!("generation {generation} cannot be removed"));
        }
        if let Some(removed) = disk.generations.remove(&generation) {
            disk.did(format!("generation {generation} is removed"));
            disk.removed.insert(generation, removed);
        }
        drop(disk);
        // Its directory is synced at once, but a crash may come between.
        self.point();
        let mut disk = self.lock();
        if !disk.faults.sync_fails {
            disk.removed.clear();
        }
    }

    fn generation_size(&self) -> u64 {
        self.lock().generation_size
    }

    fn bytes_of(&self, generation: u32) -> u64 {
        let disk = self.lock();
        disk.generations
            .get(&generation)
            .map_or(0, Generation::bytes)
    }

    fn writer(&self) -> Option<u32> {
        let disk = self.lock();
        disk.writer.filter(|number| {
            let generation = disk.generations.get(number);
            generation.is_some_and(|generation| generation.bytes() < disk.generation_size)
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.lock().bytes()
    }
}

impl SharedDisk {
    /// Writes a new file, syncs it, and renames it over the old one.
    fn replace(
        &self,
        which: impl Fn(&mut Disk) -> &mut Small,
        contents: Vec<u8>,
    ) -> io::Result<()> {
        self.lock().writable()?;
        self.point();
        let mut disk = self.lock();
        let fails = disk.faults.sync_fails;
        if fails && disk.random.one_in(2) {
            disk.hit("failed sync");
            return Err(io::Error::from_raw_os_error(EIO));
        }
        which(&mut disk).cached = Some(contents.clone());
        drop(disk);
        self.point();
        let mut disk = self.lock();
        if fails {
            // The file was synced, but not its directory.
            disk.hit("failed sync");
            return Err(io::Error::from_raw_os_error(EIO));
        }
        which(&mut disk).durable = Some(contents);
        drop(disk);
        self.point();
        Ok(())
    }

    fn text(&self, which: impl Fn(&mut Disk) -> &mut Small) -> Option<String> {
        let mut disk = self.lock();
        String::from_utf8(which(&mut disk).cached.clone()?).ok()
    }
}

impl Beside for SharedDisk {
    fn place(&self) -> &Path {
        Path::new("the simulated disk")
    }

    fn read_epoch(&self) -> u64 {
        let text = self.text(|disk| &mut disk.epoch);
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn write_epoch(&self, epoch: u64) -> io::Result<()> {
        self.replace(|disk| &mut disk.epoch, format!("{epoch}\n").into_bytes())
    }

    fn read_marker(&self) -> Option<Marker> {
        Marker::from_text(&self.text(|disk| &mut disk.marker)?)
    }

    fn write_marker(&self, marker: &Marker) -> io::Result<()> {
        self.replace(|disk| &mut disk.marker, marker.to_text().into_bytes())
    }

    fn make_reserve(&self) -> io::Result<()> {
        let mut disk = self.lock();
        if !disk.has_reserve {
            disk.writable()?;
            if disk.faults.is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.has_reserve = true;
        }
        Ok(())
    }

    fn release_reserve(&self) -> bool {
        let mut disk = self.lock();
        if disk.has_reserve {
            disk.did(format!("the reserve of {RESERVE} bytes is given up"));
        }
        std::mem::take(&mut disk.has_reserve)
    }

    fn write_dead_letters(&self, letters: &mut dyn Iterator<Item = &DeadLetter>) -> io::Result<()> {
        self.lock().writable()?;
        self.point();
        let letters = letters.count();
        let mut disk = self.lock();
        disk.dead_letters += letters;
        disk.did(format!("{letters} dead letters are written"));
        drop(disk);
        self.point();
        Ok(())
    }
}
