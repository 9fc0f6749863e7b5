//! What the storage thread needs of a disk: the trait [`Store`], and what can go wrong with one.
//!
//! Must not: know what is pending, settled or dropped, or how a disk keeps things.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::book::{Commit, Place, bytes_of, expires_at};
use super::group::{DecodeError, Snapshot};
use super::record::{Record, RecordId};
use crate::message::Timestamp;

/// What Linux answers when a medium cannot be read, and when a file system finds its own blocks damaged (errno(3)).
const EIO: i32 = 5;
const EBADMSG: i32 = 74;
const EUCLEAN: i32 = 117;

/// How often a read is tried when the medium fails, before what it should have read counts as lost.
pub(super) const READ_TRIES: u32 = 3;

/// What the storage thread needs of a disk.
pub(super) trait Store: Send {
    /// Writes a commit; it is durable when this returns. After an error nothing is known about it, and the next commit
    /// goes elsewhere.
    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError>;
    /// Reads one group.
    fn read(&mut self, place: Place) -> Result<Vec<Arc<Record>>, StoreError>;
    /// Keeps a copy of a damaged group for whoever looks into it.
    fn quarantine(&mut self, place: Place);
    /// Takes a generation that cannot be read out of use, and keeps it for whoever looks into it.
    fn set_aside(&mut self, generation: u32);
    /// The generations there are, oldest first.
    fn generations(&self) -> Vec<u32>;
    /// Gives up a generation for good. Failure costs space only, so it is logged, and tried again later.
    fn remove(&mut self, generation: u32);
    fn disk_bytes(&self) -> u64;
    /// What this generation takes on disk.
    fn bytes_of(&self, generation: u32) -> u64;
    /// When a generation is large enough, in bytes.
    fn generation_size(&self) -> u64;
    /// The generation that the next commit goes to, if it is there already.
    fn writer(&self) -> Option<u32>;
}

/// Where a commit went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) generation: u32,
    /// Bytes handed to the store.
    pub(super) bytes: u64,
    /// Whether the generation was made for this commit.
    pub(super) is_first: bool,
}

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{} was written by a newer Tidegate", path.display())]
    Newer { path: PathBuf, version: u8 },
    #[error("the records from {}/{} in {} cannot be used", first.epoch, first.seq, path.display())]
    Group {
        path: PathBuf,
        first: RecordId,
        source: DecodeError,
    },
}

pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl StoreError {
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if is_disk_full(source))
    }

    /// Whether the medium or its file system failed: what was written may be lost, but a second try may still reach it.
    pub(super) fn is_bad_medium(&self) -> bool {
        matches!(self, StoreError::Io { source, .. }
            if matches!(source.raw_os_error(), Some(EIO | EBADMSG | EUCLEAN)))
    }

    /// Whether what was written is lost, rather than out of reach for now.
    pub(super) fn is_damage(&self) -> bool {
        !matches!(self, StoreError::Io { .. } | StoreError::Newer { .. })
    }
}

/// One group that was found when the store was opened.
#[derive(Clone, Debug)]
pub(super) struct FoundGroup {
    pub(super) place: Place,
    /// The seqs in it, as ranges.
    pub(super) runs: Vec<(u64, u64)>,
    /// What its records take.
    pub(super) bytes: usize,
    /// When the last of its records expires; none if one never does.
    pub(super) expires_at: Option<Timestamp>,
}

impl FoundGroup {
    /// None for a group without a record.
    pub(super) fn new(generation: u32, records: &[Arc<Record>]) -> Option<FoundGroup> {
        let first = records.first()?;
        Some(FoundGroup {
            place: Place {
                generation,
                lane: first.draft.lane(),
                first: first.id,
            },
            runs: runs(records),
            bytes: bytes_of(records),
            expires_at: expires_at(records),
        })
    }
}

fn runs(records: &[Arc<Record>]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for record in records {
        let seq = record.id.seq;
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => runs.push((seq, seq)),
        }
    }
    runs
}

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) snapshot: Option<Snapshot>,
    /// Of the newest generation first.
    pub(super) groups: Vec<FoundGroup>,
    /// Groups and generations set aside because they are damaged.
    pub(super) damaged: u64,
}

impl Found {
    pub(super) fn newer_snapshot(&mut self, snapshot: Snapshot) {
        let best = self.snapshot.as_ref().map(|best| best.ledger.commits);
        if best < Some(snapshot.ledger.commits) {
            self.snapshot = Some(snapshot);
        }
    }
}

/// The error and what it comes from, in one line.
pub(super) fn words(error: &StoreError) -> String {
    match error {
        StoreError::Io { source, .. } => format!("{error}: {source}"),
        StoreError::Damaged { detail, .. } => format!("{error}: {detail}"),
        StoreError::Newer { version, .. } => format!("{error}: it has version {version}"),
        StoreError::Group { source, .. } => format!("{error}: the group {source}"),
    }
}
