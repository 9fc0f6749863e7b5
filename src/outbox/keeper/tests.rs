//! The storage thread's work against a store in memory that fails when it is told to.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::message::Timestamp;
use crate::outbox::book::Limits;
use crate::outbox::flash;
use crate::outbox::group::Snapshot;
use crate::outbox::record::{Draft, Key, Record, RecordId};
use crate::outbox::store::FoundGroup;

const LANE: Lane = Lane::ALL[3];

fn key(id: RecordId) -> Key {
    Key { lane: LANE, id }
}

/// A store in memory that fails when it is told to.
#[derive(Default)]
struct Fake {
    fault: Option<io::ErrorKind>,
    bad_medium: bool,
    panics: bool,
    set_aside: Vec<u32>,
    root: PathBuf,
    disk_bytes: u64,
    removed: Vec<u32>,
    commits: usize,
    records: Vec<Arc<Record>>,
}

impl Fake {
    /// A disk with room for nothing more than the reserve.
    fn has_room_without_reserve(&self) -> bool {
        !self.root.as_os_str().is_empty() && !self.root.join("reserve").exists()
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.fault {
            None => Ok(()),
            Some(io::ErrorKind::StorageFull) if self.has_room_without_reserve() => Ok(()),
            Some(kind) => Err(StoreError::Io {
                doing: "write to",
                path: PathBuf::from("gen-1"),
                source: kind.into(),
            }),
        }
    }
}

impl Store for Fake {
    fn commit(&mut self, commit: &Commit) -> Result<Written, StoreError> {
        self.check()?;
        assert!(!self.panics, "as sled may");
        self.commits += 1;
        self.records.extend(commit.groups.iter().flatten().cloned());
        Ok(Written {
            generation: 1,
            bytes: 1,
            is_first: false,
        })
    }

    fn read(&mut self, place: Place) -> Result<Vec<Arc<Record>>, StoreError> {
        self.check()?;
        if self.bad_medium {
            return Err(StoreError::Io {
                doing: "read",
                path: PathBuf::from("gen-1"),
                source: io::Error::from_raw_os_error(5),
            });
        }
        let records = self.records.iter();
        Ok(records.filter(|r| r.id >= place.first).cloned().collect())
    }

    fn quarantine(&mut self, _: Place) {}

    fn set_aside(&mut self, generation: u32) {
        self.set_aside.push(generation);
    }

    fn generations(&self) -> Vec<u32> {
        (1..=3).filter(|n| !self.removed.contains(n)).collect()
    }

    fn remove(&mut self, generation: u32) {
        self.removed.push(generation);
        self.disk_bytes = 0;
    }

    fn generation_size(&self) -> u64 {
        0
    }

    fn bytes_of(&self, _: u32) -> u64 {
        0
    }

    fn writer(&self) -> Option<u32> {
        None
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }
}

fn keeper(root: &Path) -> Keeper<Fake> {
    keeper_with(root, WhenFull::DropOldest)
}

fn keeper_with(root: &Path, when_full: WhenFull) -> Keeper<Fake> {
    let limits = Limits {
        commit: Duration::from_secs(1),
        commit_bytes: 64 * 1024,
        max_pending: 10_000,
        when_full,
    };
    let book = Book::open(limits, 1, Snapshot::default());
    let shared = Arc::new(Shared::new(book, Pressure::default()));
    Keeper::new(
        shared,
        Fake::default(),
        Some(Box::new(root.to_owned())),
        1 << 30,
        when_full,
        true,
    )
}

fn append(keeper: &Keeper<Fake>, count: usize, now: Now) {
    for _ in 0..count {
        let payload = Bytes::from_static(b"1");
        let draft = Draft::new("t".to_owned(), payload, Timestamp::default());
        keeper.shared.update(|book| book.append(draft, now.mono));
    }
}

fn at(millis: u64) -> Now {
    Now::default().later(Duration::from_millis(millis))
}

#[test]
fn it_sleeps_until_something_is_due_and_writes_once() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    assert_eq!(keeper.step(at(0)), None);
    append(&keeper, 3, at(100));
    assert_eq!(keeper.step(at(100)), Some(at(850).mono));
    assert_eq!(keeper.step(at(849)), Some(at(850).mono));
    assert_eq!(keeper.store.commits, 0, "just before");
    assert_eq!(keeper.step(at(850)), None);
    assert_eq!(
        (keeper.store.commits, keeper.store.records.len()),
        (1, 3),
        "just after"
    );
}

#[test]
fn pressure_is_high_while_more_than_half_of_the_memory_is_in_use() {
    let dir = TempDir::new().expect("a directory");
    for (when_full, is_pressed) in [(WhenFull::Block, true), (WhenFull::DropNewest, false)] {
        let mut keeper = keeper_with(dir.path(), when_full);
        let pressure = keeper.shared.pressure.clone();
        keeper.store.fault = Some(io::ErrorKind::ReadOnlyFilesystem);
        // A record takes 162 bytes of the 10,000.
        append(&keeper, 30, at(0));
        assert!(!pressure.is_high());
        append(&keeper, 1, at(0));
        keeper.step(at(2_000));
        assert_eq!(pressure.is_high(), is_pressed);
        keeper.store.fault = None;
        keeper.step(at(4_000));
        assert!(!pressure.is_high());
    }
}

#[test]
fn a_failing_disk_keeps_records_in_bounded_memory_and_work_resumes_by_itself() {
    for fault in [
        io::ErrorKind::StorageFull,
        io::ErrorKind::ReadOnlyFilesystem,
    ] {
        let dir = TempDir::new().expect("a directory");
        files::make_reserve(dir.path()).expect("there is room");
        let mut keeper = keeper(dir.path());
        keeper.store.fault = Some(fault);
        append(&keeper, 10, at(0));
        let mut now = at(750);
        let mut waits = Vec::new();
        while now.mono < Duration::from_secs(300) {
            let next = keeper.step(now).expect("it tries again");
            waits.push((next - now.mono).as_secs());
            now = now.later(next - now.mono);
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60], "ever less often");
        let full = fault == io::ErrorKind::StorageFull;
        assert_eq!(
            dir.path().join("reserve").exists(),
            !full,
            "given up when it helps"
        );
        append(&keeper, 100, now);
        let ledger = keeper.shared.with(|book| book.ledger());
        assert!(ledger.balances() && ledger.stored == 0, "{ledger:?}");
        assert!(
            ledger.dropped_overflow_memory > 0 && ledger.pending > 0,
            "{ledger:?}"
        );

        keeper.store.fault = None;
        assert_eq!(keeper.step(now), None);
        let after = keeper.shared.with(|book| book.ledger());
        assert_eq!((after.pending, after.stored), (0, ledger.pending));
        assert!(
            dir.path().join("reserve").exists(),
            "there is a reserve again"
        );
    }
}

#[test]
fn a_panic_is_tried_again_later_and_loses_nothing() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    append(&keeper, 1, at(0));
    keeper.step(at(750));
    let stored = RecordId { epoch: 1, seq: 1 };
    keeper
        .shared
        .with(|book| book.acknowledge(key(stored), at(800).mono));
    append(&keeper, 3, at(800));
    keeper.store.panics = true;
    assert_eq!(keeper.guarded_step(at(2_000)), Some(at(3_000).mono));
    assert_eq!(keeper.guarded_step(at(3_000)), Some(at(5_000).mono));
    keeper.store.panics = false;
    assert!(keeper.shared.with(|book| book.is_dirty()));
    assert_eq!(keeper.guarded_step(at(5_000)), None);
    let ledger = keeper.shared.with(|book| book.ledger());
    assert_eq!((ledger.stored, ledger.pending), (3, 0));
}

#[test]
fn under_load_a_step_commits_once_so_that_readers_and_a_stop_get_their_turn() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = reopened(dir.path());
    keeper.shared.with(|book| book.wanted());
    append(&keeper, 50, at(900));
    let before = keeper.store.commits;
    for step in 1..=3 {
        let next = keeper.step(at(900));
        assert_eq!(keeper.store.commits - before, step);
        assert!(next.is_some_and(|next| next <= at(900).mono), "at once");
    }
    assert!(
        keeper
            .shared
            .with(|book| book.peek(LANE, None, 10, Now::default()))
            .is_empty()
    );
    keeper.step(at(900));
    assert_eq!(
        keeper
            .shared
            .with(|book| book.peek(LANE, None, 3, Now::default()))
            .len(),
        3
    );
}

#[test]
fn dead_letters_are_written_at_close_and_again_if_that_failed() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    let path = dir.path().join("dead-letters.jsonl");
    std::fs::create_dir(&path).expect("writable");
    append(&keeper, 2, at(0));
    let give_up = |keeper: &Keeper<Fake>, seq| {
        let id = RecordId { epoch: 1, seq };
        keeper
            .shared
            .update(|book| book.dead_letter(key(id), "no", Duration::ZERO, Timestamp::default()));
    };
    give_up(&keeper, 1);
    let retry_at = keeper.step(at(0)).expect("the other record is pending");
    assert!(retry_at > at(0).mono, "not again at once");
    std::fs::remove_dir(&path).expect("removable");
    keeper.step(at(60_000));
    // Nothing else is left to be written by then.
    append(&keeper, 1, at(60_500));
    give_up(&keeper, 3);
    keeper.finish(at(61_000));
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_commit_that_says_a_record_is_given_up_comes_after_its_letter() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    append(&keeper, 2, at(0));
    // As if it came between the two halves of a step.
    keeper.shared.with(|book| {
        let id = RecordId { epoch: 1, seq: 1 };
        book.dead_letter(key(id), "no", Duration::ZERO, Timestamp::default());
    });
    assert!(keeper.commit(at(750)));
    assert!(dir.path().join("dead-letters.jsonl").exists());
}

#[test]
fn commits_wait_for_the_budget_of_the_card_and_not_when_memory_is_short() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    // Enough for four commits, and for one in a quarter of an hour.
    keeper.set_flash(Flash::estimated(Some(864_000)));
    let mut now = 0;
    for commits in 1..=5 {
        append(&keeper, 1, at(now));
        keeper.step(at(now + 750));
        assert_eq!(keeper.store.commits, commits);
        now += 1_000;
    }
    append(&keeper, 1, at(now));
    let next = keeper.step(at(now + 750));
    assert_eq!(keeper.store.commits, 5);
    assert_eq!(next, Some(at(now + 750).mono + flash::LONGEST_WAIT));
    keeper.step(at(now + 60_749));
    assert_eq!(keeper.store.commits, 5);
    keeper.step(at(now + 60_750));
    assert_eq!(keeper.store.commits, 6, "no longer than that");
    now += 61_000;
    append(&keeper, 40, at(now));
    keeper.step(at(now));
    assert_eq!(keeper.store.commits, 7, "half the memory is in use");
}

#[test]
fn what_makes_room_is_the_generation_with_the_oldest_records_whatever_its_number() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    keeper.shared.with(|book| {
        for (generation, seq) in [(3, 1), (2, 2), (1, 3)] {
            let first = RecordId { epoch: 0, seq };
            book.found(&FoundGroup {
                place: Place {
                    generation,
                    lane: LANE,
                    first,
                },
                runs: vec![(seq, seq)],
                bytes: 0,
                expires_at: None,
            });
        }
        book.reconcile(0, Duration::ZERO);
    });
    keeper.store.disk_bytes = 1 << 40;
    append(&keeper, 1, at(0));
    keeper.step(at(750));
    assert_eq!(keeper.store.removed, [3]);
    let ledger = keeper.shared.with(|book| book.ledger());
    assert_eq!((ledger.stored, ledger.dropped_overflow_disk), (2, 1));
}

#[test]
fn a_close_on_a_full_disk_uses_the_reserve() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = keeper(dir.path());
    files::make_reserve(dir.path()).expect("there is room");
    keeper.store.root = dir.path().to_owned();
    keeper.store.fault = Some(io::ErrorKind::StorageFull);
    append(&keeper, 3, at(0));
    keeper.finish(at(100));
    assert_eq!(keeper.store.records.len(), 3);
}

/// A keeper just opened on three records, of which none is in memory and a reader waits for all.
fn reopened(root: &Path) -> Keeper<Fake> {
    let mut keeper = keeper(root);
    append(&keeper, 3, at(0));
    keeper.step(at(750));
    keeper.shared.with(|book| {
        let limits = Limits {
            commit: Duration::from_secs(1),
            commit_bytes: 0,
            max_pending: 10_000,
            when_full: WhenFull::DropOldest,
        };
        *book = Book::open(limits, 2, Snapshot::default());
        let first = RecordId { epoch: 1, seq: 1 };
        let generation = 1;
        book.found(&FoundGroup {
            place: Place {
                generation,
                lane: LANE,
                first,
            },
            runs: vec![(1, 3)],
            bytes: 0,
            expires_at: None,
        });
        book.reconcile(0, Duration::ZERO);
        assert!(book.peek(LANE, None, 10, Now::default()).is_empty());
    });
    keeper
}

#[test]
fn a_group_that_cannot_be_read_for_now_is_read_later() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = reopened(dir.path());
    keeper.store.fault = Some(io::ErrorKind::Other);
    let mut second = 1;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let next = keeper.step(at(second * 1_000));
        second += pause;
        assert_eq!(next, Some(Duration::from_secs(second)));
        assert!(keeper.store.set_aside.is_empty(), "the medium is well");
    }
    keeper.store.fault = None;
    keeper.step(at(second * 1_000));
    assert_eq!(
        keeper
            .shared
            .with(|book| book.peek(LANE, None, 10, Now::default()))
            .len(),
        3
    );
}

#[test]
fn what_a_bad_medium_does_not_give_after_some_tries_is_lost_and_what_follows_is_shown() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = reopened(dir.path());
    keeper.store.bad_medium = true;
    keeper.step(at(1_000));
    keeper.step(at(2_000));
    assert!(keeper.store.set_aside.is_empty(), "it may still work");
    append(&keeper, 2, at(2_900));
    keeper.step(at(3_000));
    assert_eq!(keeper.store.set_aside, [1]);
    let ledger = keeper.shared.with(|book| book.ledger());
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.dropped_damaged, ledger.damaged), (3, 1));
    let shown = keeper
        .shared
        .with(|book| book.peek(LANE, None, 10, Now::default()));
    assert_eq!(shown.len(), 2, "nothing blocks what follows");
}

#[test]
fn a_full_disk_does_not_block_reading_while_there_is_a_reserve() {
    let dir = TempDir::new().expect("a directory");
    let mut keeper = reopened(dir.path());
    files::make_reserve(dir.path()).expect("there is room");
    keeper.store.root = dir.path().to_owned();
    keeper.store.fault = Some(io::ErrorKind::StorageFull);
    keeper.step(at(1_000));
    assert_eq!(
        keeper
            .shared
            .with(|book| book.peek(LANE, None, 10, Now::default()))
            .len(),
        3
    );
    assert!(!dir.path().join("reserve").exists());
}
