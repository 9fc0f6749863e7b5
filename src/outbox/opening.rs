//! From what was found on a disk to books that agree with it, under an epoch that was never used.
//!
//! Must not: know what kind of disk it is, or start anything.

use std::path::Path;
use std::time::Duration;

use super::beside::Beside;
use super::book::{Book, Limits};
use super::files::{self, Marker};
use super::group::Snapshot;
use super::ledger::Ledger;
use super::store::Found;
use super::{OpenError, Opening};

/// No device starts so often: a larger epoch is damage, and counting on from it would come to an end.
pub(super) const EPOCH_MAX: u64 = 1 << 48;

/// The books of a store, with the epoch raised; that is synced when this returns.
pub(super) fn open_books(
    limits: Limits,
    found: Found,
    disk_bytes: u64,
    beside: &dyn Beside,
    now: Duration,
) -> Result<(Book, Opening), OpenError> {
    let marker = beside.read_marker();
    let epoch = next_epoch(&found, &marker, beside.read_epoch());
    let mut book = Book::open(limits, epoch, latest(found.snapshot, &marker));
    for group in &found.groups {
        book.found(group);
    }
    let missing = book.reconcile(found.damaged, now);
    book.set_disk_bytes(disk_bytes);
    let stored = book.ledger().stored;
    let opening = Opening {
        epoch,
        stored,
        damaged: found.damaged,
        missing,
        is_unexpectedly_empty: stored == 0 && missing > 0 && found.damaged == 0,
    };

    let root: &Path = beside.place();
    beside
        .write_epoch(epoch)
        .map_err(OpenError::io("write", &files::epoch_path(root)))?;
    let marker = Marker {
        epoch,
        last: book.last(),
        ledger: book.ledger(),
    };
    beside
        .write_marker(&marker)
        .map_err(OpenError::io("write the marker in", root))?;
    Ok((book, opening))
}

/// One more than the largest that is known from anywhere.
fn next_epoch(found: &Found, marker: &Option<Marker>, kept: u64) -> u64 {
    let in_store = found.groups.iter().map(|group| group.place.first.epoch);
    let in_marker = marker
        .iter()
        .map(|marker| marker.epoch.max(marker.ledger.epoch));
    let in_snapshot = found.snapshot.iter().map(|snapshot| snapshot.ledger.epoch);
    let known = in_store.chain([kept]).chain(in_marker).chain(in_snapshot);
    1 + known.filter(|epoch| *epoch < EPOCH_MAX).max().unwrap_or(0)
}

/// The snapshot, with the marker's ledger if that is newer: because the outbox was closed after the last commit, or
/// because the generation with the last commit is gone.
pub(super) fn latest(snapshot: Option<Snapshot>, marker: &Option<Marker>) -> Snapshot {
    let mut latest = snapshot.unwrap_or_default();
    let age = |ledger: &Ledger| (ledger.commits, ledger.accepted);
    if let Some(marker) = marker
        && age(&marker.ledger) > age(&latest.ledger)
    {
        latest.ledger = marker.ledger;
    }
    latest
}
