//! The directory in which copies of generations are opened.
//!
//! Must not: write anywhere else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::files;
use super::super::generations::{Generations, generation_dir};
use super::super::group::Snapshot;
use super::super::record::{Record, RecordId};
use super::super::store::{Found, FoundGroup, Store, StoreError, is_disk_full, words};
use super::{CareError, unreadable};
use crate::outbox::OpenError;

const NAME: &str = "scratch";
/// Nothing in the scratch directory is to be pruned or begun anew for its size.
const NO_LIMIT: u64 = u64::MAX / 4;
/// Small against what a copy needs, large against what it says.
const BLOCK: usize = 64 * 1024;
/// What a bad medium is read in, where a whole block cannot be had.
const SECTOR: usize = 512;

/// How the names of the files begin in which sled 0.34 keeps a summary of its file, and settings that are its defaults. It does
/// without either.
const BESIDE: [&str; 2] = ["snap.", "conf"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Kept,
    LeftOut,
}

#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
}

/// A generation of which a copy was opened, as a start of Tidegate would have opened it.
pub(super) struct Opened {
    store: Option<Generations>,
    root: PathBuf,
    pub(super) found: Found,
    /// What is wrong with it, in words. Without any it is sound.
    pub(super) problems: Vec<String>,
}

impl Scratch {
    pub(super) fn new(root: &Path, elsewhere: Option<&Path>) -> Scratch {
        let dir = match elsewhere {
            None => root.join(NAME),
            Some(place) => place.join(format!("tidegate-{NAME}-{}", std::process::id())),
        };
        Scratch { dir }
    }

    /// An empty directory; what another run left is removed.
    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&self.dir)
    }

    /// Opens a copy of the generation in `source`. Of what the medium does not give, zeros take the place.
    ///
    /// If it is damaged, or seems empty, it is also tried without what sled keeps beside its data: where that is what is damaged,
    /// sled makes it anew.
    pub(super) fn open(&self, source: &Path, number: u32) -> Result<Opened, CareError> {
        let opened = self.open_copy(source, number, Beside::Kept)?;
        if opened.problems.is_empty() && !opened.found.groups.is_empty() {
            return Ok(opened);
        }
        let as_it_is = opened.found;
        // It is closed before its directory is cleared.
        drop(opened.store);
        let mut opened = self.open_copy(source, number, Beside::LeftOut)?;
        if has_more(&opened.found, &as_it_is) {
            opened.problems.insert(
                0,
                "what sled keeps beside its data is damaged: without that more can be read"
                    .to_owned(),
            );
            return Ok(opened);
        }
        drop(opened);
        self.open_copy(source, number, Beside::Kept)
    }

    fn open_copy(&self, source: &Path, number: u32, beside: Beside) -> Result<Opened, CareError> {
        let bytes = 2 * size_of(source) + 1024 * 1024;
        self.clear()
            .map_err(|error| self.failed("make", &self.dir, bytes, error))?;
        let copy = generation_dir(&self.dir, number);
        let unread = self.copy(source, &copy, bytes, beside)?;
        let opened = Generations::open(&self.dir, NO_LIMIT);
        let mut problems = Vec::new();
        if unread > 0 {
            problems.push(format!("{unread} bytes cannot be read from the disk"));
        }
        let (store, found) = match opened {
            Ok((store, found)) => (Some(store), found),
            Err(StoreError::Newer { version, .. }) => {
                let path = source.to_owned();
                return Err(OpenError::Newer { path, version }.into());
            }
            Err(StoreError::Io { source, .. }) if is_disk_full(&source) => {
                return Err(self.failed("write to", &self.dir, bytes, source));
            }
            // The copy is on a disk that works, so this is how the damage shows.
            Err(error) => {
                problems.push(format!("it cannot be opened ({})", cause(&error)));
                let damaged = 1;
                (
                    None,
                    Found {
                        damaged,
                        ..Found::default()
                    },
                )
            }
        };
        problems.extend(set_aside(&self.dir.join(files::DAMAGED), &found));
        Ok(Opened {
            store,
            root: self.dir.clone(),
            found,
            problems,
        })
    }

    /// A generation that holds nothing but this snapshot, as a directory to be moved to its place.
    pub(super) fn snapshot_only(&self, snapshot: &Snapshot) -> Result<PathBuf, CareError> {
        const BYTES: u64 = 2 * 1024 * 1024;
        self.clear()
            .map_err(|error| self.failed("make", &self.dir, BYTES, error))?;
        let written = Generations::open(&self.dir, NO_LIMIT)
            .and_then(|(mut store, _)| store.write_snapshot(snapshot));
        let number = written.map_err(|error| {
            let error = io::Error::other(words(&error));
            self.failed("write to", &self.dir, BYTES, error)
        })?;
        Ok(generation_dir(&self.dir, number))
    }

    /// Copies files and directories; other things are none of sled's. Returns how many bytes could not be read.
    fn copy(&self, from: &Path, to: &Path, bytes: u64, beside: Beside) -> Result<u64, CareError> {
        let kind = fs::metadata(from).map_err(|error| unreadable(from, error))?;
        if kind.is_dir() {
            fs::create_dir(to).map_err(|error| self.failed("make", to, bytes, error))?;
            let mut unread = 0;
            for entry in fs::read_dir(from).map_err(|error| unreadable(from, error))? {
                let name = entry.map_err(|error| unreadable(from, error))?.file_name();
                let text = name.to_string_lossy();
                let is_beside = BESIDE.iter().any(|start| text.starts_with(start));
                if beside == Beside::Kept || !is_beside {
                    unread += self.copy(&from.join(&name), &to.join(&name), bytes, beside)?;
                }
            }
            Ok(unread)
        } else if kind.is_file() {
            let mut source = File::open(from).map_err(|error| unreadable(from, error))?;
            let mut copy =
                File::create(to).map_err(|error| self.failed("make", to, bytes, error))?;
            copy_file(&mut source, &mut copy, kind.len())
                .map_err(|error| self.failed("write to", to, bytes, error))
        } else {
            Ok(0)
        }
    }

    fn failed(&self, doing: &'static str, path: &Path, bytes: u64, source: io::Error) -> CareError {
        let path = path.to_owned();
        CareError::NoScratch {
            doing,
            path,
            scratch: self.dir.clone(),
            bytes,
            source,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind, the next run removes.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Opened {
    pub(super) fn read(&mut self, group: &FoundGroup) -> Option<Vec<Arc<Record>>> {
        self.store.as_mut()?.read(group.place).ok()
    }

    /// Closes it and makes it durable. The directory that holds all that was sound in it; `None` if nothing was.
    pub(super) fn close(mut self) -> io::Result<Option<PathBuf>> {
        let Some(store) = self.store.take() else {
            return Ok(None);
        };
        let newest = store.generations().pop();
        drop(store);
        if self.found.groups.is_empty() && self.found.snapshot.is_none() {
            return Ok(None);
        }
        let dir = newest.map(|number| generation_dir(&self.root, number));
        if let Some(dir) = &dir {
            sync_all(dir)?;
        }
        Ok(dir)
    }
}

/// Whether something is found in the one that is not in the other, and nothing is missing from it.
fn has_more(one: &Found, other: &Found) -> bool {
    let firsts = |found: &Found| -> BTreeSet<RecordId> {
        let groups = found.groups.iter();
        groups.map(|group| group.place.first).collect()
    };
    let commits = |found: &Found| found.snapshot.as_ref().map(|books| books.ledger.commits);
    let (one_has, other_has) = (firsts(one), firsts(other));
    one_has.is_superset(&other_has)
        && commits(one) >= commits(other)
        && (one_has.len() > other_has.len() || commits(one) > commits(other))
}

/// Copies a file of this length, with zeros for what cannot be read; returns how many they are.
fn copy_file(source: &mut File, copy: &mut File, length: u64) -> io::Result<u64> {
    let (mut at, mut unread) = (0, 0);
    let mut block = vec![0; BLOCK];
    while at < length {
        let wanted = usize::try_from(length - at).map_or(BLOCK, |left| left.min(BLOCK));
        match source.read_at(&mut block[..wanted], at) {
            // It became shorter meanwhile.
            Ok(0) => break,
            Ok(read) => {
                copy.write_all(&block[..read])?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let lost = wanted.min(SECTOR);
                let mut sector = vec![0; lost];
                if source.read_exact_at(&mut sector, at).is_err() {
                    sector.fill(0);
                    unread += lost as u64;
                }
                copy.write_all(&sector)?;
                at += lost as u64;
            }
        }
    }
    Ok(unread)
}

/// What opening the copy set aside, in words.
fn set_aside(damaged: &Path, found: &Found) -> Vec<String> {
    let names: Vec<String> = fs::read_dir(damaged)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let groups = names.iter().filter(|name| name.starts_with("group-"));
    let (snapshots, groups): (Vec<_>, Vec<_>) =
        groups.partition(|name| name.ends_with(&"ff".repeat(16)));
    let mut problems = Vec::new();
    if names.iter().any(|name| name.starts_with("gen-")) {
        problems.push(if found.groups.is_empty() {
            "nothing in it can be read".to_owned()
        } else {
            "part of it cannot be read".to_owned()
        });
    }
    if !groups.is_empty() {
        let number = groups.len();
        let noun = if number == 1 { "group" } else { "groups" };
        problems.push(format!("{number} damaged {noun}"));
    }
    if !snapshots.is_empty() {
        problems.push("its snapshot of the books is damaged".to_owned());
    }
    if problems.is_empty() && found.damaged > 0 {
        problems.push(format!("{} damaged parts", found.damaged));
    }
    problems
}

fn cause(error: &StoreError) -> String {
    match error {
        StoreError::Io { source, .. } => source.to_string(),
        StoreError::Damaged { detail, .. } => detail.clone(),
        other => words(other),
    }
}

/// The bytes of the files below a directory, or of a file.
pub(super) fn size_of(path: &Path) -> u64 {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| size_of(&entry.path())).sum(),
        Err(_) => fs::metadata(path).map_or(0, |data| data.len()),
    }
}

fn sync_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_all(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// All of a small file, if it is one and can be read.
pub(super) fn read_small(path: &Path) -> Option<Vec<u8>> {
    const MOST: u64 = 1024 * 1024;
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    let read = File::open(path).ok()?.take(MOST).read_to_end(&mut bytes);
    read.ok().map(|_| bytes)
}
