//! A [`Store`] made of *generations*: small sled stores, of which the newest is written to. See decision 0002.
//!
//! This is the only file that names sled. What it must make up for: `flush` does not fsync, damage can panic, a full disk
//! leaves an error that stays, and the lock of a closed store is released a little late.
//!
//! Must not: know what is pending, settled or dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::book::{Commit, Place};
use super::files;
use super::group::{
    DecodeError, Snapshot, decode_records, decode_snapshot, encode_records, encode_snapshot,
};
use super::read_only;
use super::record::{Record, RecordId};
use super::store::{Found, FoundGroup, READ_TRIES, Store, StoreError, Written, words};

/// Sorts after every group.
const SNAPSHOT_KEY: [u8; 16] = [0xff; 16];
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// The name that sled 0.34 gives the file it writes to, and the directory for what is too large for it.
const SLED_FILE: &str = "db";
const SLED_BLOBS: &str = "blobs";
/// In what it grows its file: `segment_size` of its `Config`, by default.
const SLED_SEGMENT: u64 = 512 * 1024;
/// sled lets go of its lock only when its last background job ends.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Between tries to open what a bad medium does not give.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// A sled store that may be dropped anywhere: sled syncs its file when it closes, and panics if that fails.
struct Db(Option<sled::Db>);

impl Deref for Db {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0
            .as_ref()
            .expect("it is taken only when it is dropped")
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let db = self.0.take();
        let close = || {
            drop(db);
            #[cfg(test)]
            injected_panic();
        };
        if catch_unwind(AssertUnwindSafe(close)).is_err() {
            tracing::warn!("outbox: sled panicked when it closed a store");
        }
    }
}

/// One sled store.
struct Generation {
    number: u32,
    dir: PathBuf,
    db: Db,
    file: File,
    blobs: BTreeSet<std::ffi::OsString>,
    /// Where it lies, if it is only a copy; it goes after sled has closed it.
    copy: Option<TempDir>,
}

impl Generation {
    /// Opens what was written before. What the medium does not give after some tries is damaged.
    fn open_existing(dir: &Path, number: u32) -> Result<Generation, StoreError> {
        let mut tries = 1;
        loop {
            match Generation::open_to_read(dir.to_owned(), number) {
                Err(error) if error.is_bad_medium() && tries < READ_TRIES => {
                    tries += 1;
                    std::thread::sleep(READ_PAUSE);
                }
                Err(error) if error.is_bad_medium() => {
                    return Err(StoreError::Damaged {
                        path: dir.to_owned(),
                        detail: words(&error),
                    });
                }
                other => return other,
            }
        }
    }

    fn open(dir: PathBuf, number: u32) -> Result<Generation, StoreError> {
        #[cfg(test)]
        injected_fault(&dir)?;
        let file_path = dir.join(SLED_FILE);
        // sled writes a summary of its file when it opens it. That must not outlive what it sums up.
        if let Ok(file) = File::open(&file_path) {
            file.sync_all().map_err(io_error("sync", &file_path))?;
        }
        let config = sled::Config::new()
            .path(&dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match guarded(&dir, "open", || config.open()) {
                Err(StoreError::Io { source, .. })
                    if tries < LOCK_TRIES && source.to_string().contains("acquire lock") =>
                {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                other => break Db(Some(other?)),
            }
        };
        let file = File::open(&file_path).map_err(io_error("open", &file_path))?;
        let mut generation = Generation {
            number,
            dir,
            db,
            file,
            blobs: BTreeSet::new(),
            copy: None,
        };
        generation.sync()?;
        files::sync_dir(&generation.dir).map_err(io_error("sync", &generation.dir))?;
        Ok(generation)
    }

    /// Opens what is only to be read, also where nothing can be written.
    fn open_to_read(dir: PathBuf, number: u32) -> Result<Generation, StoreError> {
        match Generation::open(dir.clone(), number) {
            Err(error) if read_only::may_be_readable(&error) => {
                Generation::open_copy(dir, number, error)
            }
            other => other,
        }
    }

    /// Opens a copy of what lies in `dir`, without what sled keeps beside its data; or gives back the error if that cannot be done.
    fn open_copy(dir: PathBuf, number: u32, error: StoreError) -> Result<Generation, StoreError> {
        let copied = read_only::copy(&dir, &[SLED_FILE, SLED_BLOBS])
            .map_err(|error| error.to_string())
            .and_then(|copy| {
                let generation = Generation::open(copy.path().to_owned(), number);
                let generation = generation.map_err(|error| words(&error))?;
                Ok((copy, generation))
            });
        match copied {
            Ok((copy, generation)) => Ok(Generation {
                dir,
                copy: Some(copy),
                ..generation
            }),
            Err(detail) => {
                tracing::warn!(
                    "outbox: no copy of {} can be read either: {detail}",
                    dir.display()
                );
                Err(error)
            }
        }
    }

    /// Makes what was written durable.
    fn sync(&mut self) -> Result<(), StoreError> {
        let Generation {
            dir,
            db,
            file,
            blobs,
            ..
        } = self;
        guarded(dir, "write to", || db.flush())?;
        let blob_dir = dir.join(SLED_BLOBS);
        let mut sync_blobs = || -> io::Result<()> {
            let names: BTreeSet<_> = fs::read_dir(&blob_dir)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()?;
            for name in names.difference(blobs) {
                match File::open(blob_dir.join(name)).and_then(|blob| blob.sync_all()) {
                    // sled removes what it no longer needs in the background.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
            if *blobs != names {
                files::sync_dir(&blob_dir)?;
            }
            *blobs = names;
            Ok(())
        };
        sync_blobs().map_err(io_error("sync", &blob_dir))?;
        // Not only the data: the file's length changes, too.
        file.sync_data().map_err(io_error("sync", dir))
    }

    fn size(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// What it takes on disk once it has been opened again: sled then fills up the last segment of its file. Else a start would make an
    /// outbox full that was not.
    fn size_when_opened(&self) -> u64 {
        self.size().next_multiple_of(SLED_SEGMENT)
    }

    /// Reads whatever can be read, from both ends if something in the middle cannot.
    fn entries(&self) -> (BTreeMap<Vec<u8>, Vec<u8>>, Option<String>) {
        let mut entries = BTreeMap::new();
        let mut read = |from_end: bool| -> Option<String> {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut iter = self.db.iter();
                while let Some(entry) = if from_end {
                    iter.next_back()
                } else {
                    iter.next()
                } {
                    match entry {
                        Ok((key, value)) => entries.insert(key.to_vec(), value.to_vec()),
                        Err(error) => return Some(error.to_string()),
                    };
                }
                None
            }));
            result.unwrap_or_else(|_| Some("sled panicked".to_owned()))
        };
        let problem = read(false);
        if problem.is_some() {
            read(true);
        }
        (entries, problem)
    }
}

/// A store made of generations. Commits go to the newest; older ones are opened only to be read.
pub(super) struct Generations {
    root: PathBuf,
    /// A new generation is begun past this many bytes.
    size_max: u64,
    writer: Option<Generation>,
    reader: Option<Generation>,
    sizes: BTreeMap<u32, u64>,
    next: u32,
}

impl Generations {
    /// Opens a store and checks all that is in it. Damage is moved to `damaged/`; only what cannot be read or written
    /// for now is an error.
    pub(super) fn open(root: &Path, size_max: u64) -> Result<(Generations, Found), StoreError> {
        let mut store = Generations {
            root: root.to_owned(),
            size_max,
            writer: None,
            reader: None,
            sizes: BTreeMap::new(),
            next: 1,
        };
        let damaged_dir = root.join(files::DAMAGED);
        let set_aside = if damaged_dir.is_dir() {
            list(&damaged_dir)?
        } else {
            Vec::new()
        };
        let numbers = list(root)?;
        store.next = numbers.iter().chain(&set_aside).max().map_or(1, |n| n + 1);
        let mut found = Found::default();
        for (position, number) in numbers.iter().rev().enumerate() {
            store.take_in(*number, position == 0, &mut found)?;
        }
        Ok((store, found))
    }

    /// The newest snapshot, and nothing else. After a rescue that is not the one of the newest generation.
    pub(super) fn snapshot(root: &Path) -> Result<Option<Snapshot>, StoreError> {
        let mut found = Found::default();
        for number in list(root)? {
            let dir = dir_of(root, number);
            let generation = match Generation::open_existing(&dir, number) {
                Ok(generation) => generation,
                Err(error) if error.is_damage() => continue,
                Err(error) => return Err(error),
            };
            let value = guarded(&dir, "read", || generation.db.get(SNAPSHOT_KEY));
            if let Ok(Some(value)) = value {
                match decode_snapshot(&value) {
                    Ok(snapshot) => found.newer_snapshot(snapshot),
                    Err(error) => refuse_newer(&dir, &error)?,
                }
            }
        }
        Ok(found.snapshot)
    }

    fn take_in(
        &mut self,
        number: u32,
        is_newest: bool,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let dir = dir_of(&self.root, number);
        let mut damage = None;
        let generation = match Generation::open_existing(&dir, number) {
            Ok(generation) => generation,
            Err(error) if error.is_damage() => {
                damage = Some(words(&error));
                // Often only what sled keeps beside its data is damaged, which it does without.
                match Generation::open_copy(dir.clone(), number, error) {
                    Ok(copy) => copy,
                    Err(error) => {
                        tracing::error!(
                            "outbox: {} cannot be opened and is moved to {}: {}",
                            dir.display(),
                            files::DAMAGED,
                            words(&error)
                        );
                        self.take_out(number)?;
                        found.damaged += 1;
                        return Ok(());
                    }
                }
            }
            Err(error) => return Err(error),
        };
        let is_copy = generation.copy.is_some();
        self.sizes.insert(number, generation.size_when_opened());
        let (entries, problem) = generation.entries();
        let problem = damage.or(problem);
        let mut intact = Vec::new();
        let mut bad = Vec::new();
        for (key, value) in entries {
            if key == SNAPSHOT_KEY {
                match decode_snapshot(&value) {
                    Ok(snapshot) => found.newer_snapshot(snapshot),
                    Err(error) => {
                        refuse_newer(&dir, &error)?;
                        bad.push((key, value));
                    }
                }
                continue;
            }
            let records = id_of(&key).map(|first| (first, decode_records(first.epoch, &value)));
            match records {
                Some((first, Ok(records)))
                    if records.first().is_some_and(|record| record.id == first) =>
                {
                    let found = FoundGroup::new(number, &records);
                    intact.extend(found.map(|found| (found, value)));
                }
                Some((_, Err(error))) => {
                    refuse_newer(&dir, &error)?;
                    bad.push((key, value));
                }
                _ => bad.push((key, value)),
            }
        }
        for (key, value) in &bad {
            found.damaged += 1;
            tracing::error!(
                "outbox: a group in {} is damaged; a copy is kept in {}",
                dir.display(),
                files::DAMAGED
            );
            self.keep_copy(number, key, value);
            // What stays behind would be found, and counted, again.
            match guarded(&dir, "remove from", || generation.db.remove(key)) {
                Err(error) if !error.is_disk_full() => {
                    tracing::warn!("outbox: {}", words(&error));
                }
                result => drop(result?),
            }
        }
        let Some(problem) = problem else {
            found
                .groups
                .extend(intact.into_iter().map(|(group, _)| group));
            if is_newest && !is_copy {
                self.writer = Some(generation);
            }
            return Ok(());
        };
        found.damaged += 1;
        tracing::error!(
            "outbox: part of {} cannot be read ({problem}); what can be is copied, and it is moved to {}",
            dir.display(),
            files::DAMAGED
        );
        drop(generation);
        self.rescue(number, intact, found)
    }

    /// Copies what could be read of a damaged generation to a new one. Without room for that, it stays where it is.
    fn rescue(
        &mut self,
        number: u32,
        mut intact: Vec<(FoundGroup, Vec<u8>)>,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        if let Some(snapshot) = &found.snapshot {
            // What was carried over is said by the number of the generation, which changes.
            intact.retain(|(group, _)| !snapshot.emptied.contains(group.place));
        }
        let copied = self.begin_generation().and_then(|mut copy| {
            let mut batch = sled::Batch::default();
            for (group, value) in &intact {
                batch.insert(&key_of(group.place.first), value.as_slice());
            }
            if let Some(snapshot) = &found.snapshot {
                batch.insert(&SNAPSHOT_KEY, encode_snapshot(snapshot));
            }
            guarded(&copy.dir, "write to", || copy.db.apply_batch(batch))?;
            copy.sync()?;
            self.sizes.insert(copy.number, copy.size_when_opened());
            Ok(copy.number)
        });
        let generation = match copied {
            Ok(copy) => {
                self.take_out(number)?;
                copy
            }
            Err(error) => {
                tracing::warn!("outbox: the copy failed: {}", words(&error));
                number
            }
        };
        found
            .groups
            .extend(intact.into_iter().map(|(mut group, _)| {
                group.place.generation = generation;
                group
            }));
        Ok(())
    }

    fn begin_generation(&mut self) -> Result<Generation, StoreError> {
        let number = self.next;
        self.next += 1;
        let dir = dir_of(&self.root, number);
        let made = fs::create_dir(&dir)
            .map_err(io_error("make", &dir))
            .and_then(|()| Generation::open(dir.clone(), number))
            .and_then(|generation| {
                files::sync_dir(&self.root).map_err(io_error("sync", &self.root))?;
                Ok(generation)
            });
        if made.is_err() {
            // Nothing was ever committed to it.
            let _ = fs::remove_dir_all(&dir);
        }
        made
    }

    /// Moves a generation aside. If that cannot be done it is left where it is, out of use: no reason to stay shut.
    fn take_out(&mut self, number: u32) -> Result<(), StoreError> {
        match self.move_aside(number) {
            Err(error) if !error.is_disk_full() => {
                tracing::warn!("outbox: {}", words(&error));
                Ok(())
            }
            result => result,
        }
    }

    fn move_aside(&mut self, number: u32) -> Result<(), StoreError> {
        let damaged = self.root.join(files::DAMAGED);
        let from = dir_of(&self.root, number);
        self.sizes.remove(&number);
        fs::create_dir_all(&damaged)
            .and_then(|()| fs::rename(&from, dir_of(&damaged, number)))
            .and_then(|()| files::sync_dir(&damaged))
            .and_then(|()| files::sync_dir(&self.root))
            .map_err(io_error("move aside", &from))?;
        files::prune_damaged(&damaged, self.size_max * 2);
        Ok(())
    }

    fn keep_copy(&self, number: u32, key: &[u8], value: &[u8]) {
        let damaged = self.root.join(files::DAMAGED);
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = damaged.join(format!("group-{number:08x}-{key}"));
        let kept = fs::create_dir_all(&damaged).and_then(|()| fs::write(&path, value));
        if let Err(error) = kept {
            tracing::warn!("outbox: cannot write {}: {error}", path.display());
        }
        files::prune_damaged(&damaged, self.size_max * 2);
    }

    fn generation(&mut self, number: u32) -> Result<&Generation, StoreError> {
        if !self.sizes.contains_key(&number) {
            // sled would make it anew.
            return Err(StoreError::Damaged {
                path: dir_of(&self.root, number),
                detail: "it is no longer there".to_owned(),
            });
        }
        if let Some(writer) = &self.writer
            && writer.number == number
        {
            return Ok(self.writer.as_ref().expect("it was just looked at"));
        }
        if self
            .reader
            .as_ref()
            .is_none_or(|reader| reader.number != number)
        {
            self.reader = None;
            self.reader = Some(Generation::open_to_read(
                dir_of(&self.root, number),
                number,
            )?);
        }
        Ok(self.reader.as_ref().expect("it was just opened"))
    }

    fn try_commit(&mut self, writer: &mut Generation, commit: &Commit) -> Result<u64, StoreError> {
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        let mut insert = |key: [u8; 16], value: Vec<u8>| {
            bytes += (key.len() + value.len()) as u64;
            batch.insert(&key, value);
        };
        for records in &commit.groups {
            if let Some(first) = records.first() {
                insert(key_of(first.id), encode_records(records));
            }
        }
        insert(SNAPSHOT_KEY, encode_snapshot(&commit.snapshot));
        guarded(&writer.dir, "write to", || writer.db.apply_batch(batch))?;
        writer.sync()?;
        self.sizes.insert(writer.number, writer.size_when_opened());
        Ok(bytes)
    }
}

impl Store for Generations {
    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError> {
        let current = self
            .writer
            .take()
            .filter(|writer| writer.size() < self.size_max);
        let is_first = current.is_none();
        let mut writer = match current {
            Some(writer) => writer,
            None => self.begin_generation()?,
        };
        match self.try_commit(&mut writer, commit) {
            Ok(bytes) => {
                let generation = writer.number;
                self.writer = Some(writer);
                Ok(Written {
                    generation,
                    bytes,
                    is_first,
                })
            }
            Err(error) => {
                let dir = writer.dir.clone();
                drop(writer);
                if is_first {
                    let _ = fs::remove_dir_all(&dir);
                }
                Err(error)
            }
        }
    }

    fn generation_size(&self) -> u64 {
        self.size_max
    }

    fn bytes_of(&self, generation: u32) -> u64 {
        self.sizes.get(&generation).copied().unwrap_or(0)
    }

    fn writer(&self) -> Option<u32> {
        let writer = self.writer.as_ref();
        let writer = writer.filter(|writer| writer.size() < self.size_max)?;
        Some(writer.number)
    }

    fn read(&mut self, place: Place) -> Result<Vec<Arc<Record>>, StoreError> {
        let generation = self.generation(place.generation)?;
        let path = generation.dir.clone();
        let value = guarded(&path, "read", || generation.db.get(key_of(place.first)))?;
        let value = value.ok_or_else(|| StoreError::Damaged {
            path: path.clone(),
            detail: "a group that was there is gone".to_owned(),
        })?;
        decode_records(place.first.epoch, &value).map_err(|source| StoreError::Group {
            path,
            first: place.first,
            source,
        })
    }

    fn quarantine(&mut self, place: Place) {
        let key = key_of(place.first);
        let value = self
            .generation(place.generation)
            .and_then(|generation| guarded(&generation.dir, "read", || generation.db.get(key)));
        if let Ok(Some(value)) = value {
            self.keep_copy(place.generation, &key, &value);
        }
    }

    fn set_aside(&mut self, generation: u32) {
        for place in [&mut self.reader, &mut self.writer] {
            drop(place.take_if(|open| open.number == generation));
        }
        if let Err(error) = self.move_aside(generation) {
            tracing::warn!("outbox: {}", words(&error));
        }
    }

    fn generations(&self) -> Vec<u32> {
        self.sizes.keys().copied().collect()
    }

    fn remove(&mut self, generation: u32) {
        drop(self.reader.take_if(|reader| reader.number == generation));
        let dir = dir_of(&self.root, generation);
        match fs::remove_dir_all(&dir) {
            Ok(()) => {
                self.sizes.remove(&generation);
                // Else a power cut may bring it back. That is harmless as long as there is a snapshot which knows what is settled; if
                // that is damaged, what was given up would come late.
                if let Err(error) = files::sync_dir(&self.root) {
                    tracing::warn!("outbox: cannot sync {}: {error}", self.root.display());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.sizes.remove(&generation);
            }
            Err(error) => tracing::warn!("outbox: cannot remove {}: {error}", dir.display()),
        }
    }

    fn disk_bytes(&self) -> u64 {
        self.sizes.values().sum()
    }
}

/// Calls sled and turns its errors and panics into ours.
fn guarded<T>(
    path: &Path,
    doing: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T, StoreError> {
    let damaged = |detail: String| StoreError::Damaged {
        path: path.to_owned(),
        detail,
    };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        // A file is shorter than it should be, or not what it should be. Trying again would not help.
        Ok(Err(sled::Error::Io(source)))
            if matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
            ) =>
        {
            Err(damaged(source.to_string()))
        }
        Ok(Err(sled::Error::Io(source))) => Err(StoreError::Io {
            doing,
            path: path.to_owned(),
            source,
        }),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("sled panicked".to_owned())),
    }
}

/// What a newer Tidegate wrote is left where it is, and the outbox shut: this one would drop it as damaged.
fn refuse_newer(dir: &Path, error: &DecodeError) -> Result<(), StoreError> {
    match error {
        DecodeError::Version(version) => Err(StoreError::Newer {
            path: dir.to_owned(),
            version: *version,
        }),
        _ => Ok(()),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        doing,
        path,
        source,
    }
}

fn key_of(id: RecordId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&id.epoch.to_be_bytes());
    key[8..].copy_from_slice(&id.seq.to_be_bytes());
    key
}

fn id_of(key: &[u8]) -> Option<RecordId> {
    let (epoch, seq) = key.split_first_chunk::<8>()?;
    Some(RecordId {
        epoch: u64::from_be_bytes(*epoch),
        seq: u64::from_be_bytes(seq.try_into().ok()?),
    })
}

fn dir_of(root: &Path, number: u32) -> PathBuf {
    root.join(format!("gen-{number:08x}"))
}

/// The numbers of the generations in a directory, in order.
fn list(root: &Path) -> Result<Vec<u32>, StoreError> {
    let read = || -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("gen-"));
            numbers.extend(number.and_then(|hex| u32::from_str_radix(hex, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    };
    read().map_err(io_error("list", root))
}

// For `care`, which opens copies of generations.

impl Generations {
    /// Writes a snapshot without records to a new generation, and makes it durable. Returns its number.
    pub(super) fn write_snapshot(&mut self, snapshot: &Snapshot) -> Result<u32, StoreError> {
        let mut generation = self.begin_generation()?;
        let value = encode_snapshot(snapshot);
        guarded(&generation.dir, "write to", || {
            generation.db.insert(SNAPSHOT_KEY, value)
        })?;
        generation.sync()?;
        self.sizes
            .insert(generation.number, generation.size_when_opened());
        Ok(generation.number)
    }
}

pub(super) fn generation_dir(root: &Path, number: u32) -> PathBuf {
    dir_of(root, number)
}

pub(super) fn generation_numbers(root: &Path) -> Result<Vec<u32>, StoreError> {
    list(root)
}

/// The records of a group that was copied aside under this name, if they are intact after all.
pub(super) fn copied_group(name: &str, value: &[u8]) -> Option<Vec<Arc<Record>>> {
    let (_, hex) = name.strip_prefix("group-")?.split_once('-')?;
    let bytes = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let key: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(bytes)
        .collect::<Option<_>>()?;
    decode_records(id_of(&key)?.epoch, value).ok()
}

/// What tests leave in a generation to have it fail as bad media do: an errno.
#[cfg(test)]
pub(super) const INJECTED: &str = "injected-errno";

#[cfg(test)]
fn injected_fault(dir: &Path) -> Result<(), StoreError> {
    match fs::read_to_string(dir.join(INJECTED)) {
        Ok(errno) => Err(io_error("open", dir)(io::Error::from_raw_os_error(
            errno.parse().expect("a number"),
        ))),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
thread_local! {
    static PANICS_AT_CLOSE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
fn injected_panic() {
    assert!(!PANICS_AT_CLOSE.get(), "as sled does on a bad disk");
}

/// Changes one byte of a group so that sled does not notice.
#[cfg(test)]
pub(super) fn damage_group(dir: &Path, first: RecordId) {
    change_group(dir, first, |value| value[value.len() / 2] ^= 1);
}

#[cfg(test)]
pub(super) fn change_group(dir: &Path, first: RecordId, change: impl FnOnce(&mut [u8])) {
    let mut generation = Generation::open(dir.to_owned(), 0).expect("it opens");
    let mut value = generation
        .db
        .get(key_of(first))
        .expect("readable")
        .expect("there")
        .to_vec();
    change(&mut value);
    generation
        .db
        .insert(key_of(first), value)
        .expect("writable");
    generation.sync().expect("writable");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::ledger::Ledger;

    #[test]
    fn the_newest_snapshot_is_found_wherever_it_lies() {
        let root = tempfile::TempDir::new().expect("a directory");
        let (mut store, _) = Generations::open(root.path(), 1 << 20).expect("it opens");
        for commits in [5, 9, 7] {
            let mut generation = store.begin_generation().expect("there is room");
            let ledger = Ledger {
                commits,
                ..Ledger::default()
            };
            let snapshot = Snapshot {
                ledger,
                ..Snapshot::default()
            };
            generation
                .db
                .insert(SNAPSHOT_KEY, encode_snapshot(&snapshot))
                .expect("writable");
            generation.sync().expect("writable");
        }
        let snapshot = Generations::snapshot(root.path()).expect("readable");
        assert_eq!(snapshot.expect("there are three").ledger.commits, 9);
    }

    #[test]
    fn reading_from_a_generation_that_was_removed_does_not_make_it_anew() {
        let root = tempfile::TempDir::new().expect("a directory");
        let (mut store, _) = Generations::open(root.path(), 1 << 20).expect("it opens");
        let number = store.begin_generation().expect("there is room").number;
        store.sizes.insert(number, 0);
        store.remove(number);
        let place = Place {
            lane: crate::outbox::Lane::default(),
            generation: number,
            first: RecordId::default(),
        };
        assert!(store.read(place).is_err_and(|error| error.is_damage()));
        assert!(!dir_of(root.path(), number).exists());
    }

    #[test]
    fn a_panic_when_sled_closes_a_store_stays_there() {
        let root = tempfile::TempDir::new().expect("a directory");
        let (mut store, _) = Generations::open(root.path(), 1 << 20).expect("it opens");
        PANICS_AT_CLOSE.set(true);
        for _ in 0..2 {
            let generation = store.begin_generation().expect("there is room");
            store.sizes.insert(generation.number, 0);
            drop(generation);
        }
        for number in [1, 2, 1] {
            store.generation(number).expect("it opens");
        }
        PANICS_AT_CLOSE.set(false);
    }
}
