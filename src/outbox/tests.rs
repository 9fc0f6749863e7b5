//! The outbox as its users see it, on a real disk. The parts have tests of their own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::message::Timestamp;

/// So long that a commit happens only when the outbox is closed.
const NEVER: Duration = Duration::from_secs(3600);
/// How long the outbox waits before it looks for room again.
const RETRY: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_millis(20);

fn settings(dir: &TempDir, commit: Duration) -> Settings {
    Settings {
        commit,
        ..Settings::new(dir.path().join("outbox"))
    }
}

fn open(settings: &Settings) -> (Outbox, Opening) {
    Outbox::open(settings.clone(), Clock::start()).expect("the outbox opens")
}

/// Where a record with this id is found.
fn key(id: RecordId) -> Key {
    let lane = Lane::default();
    Key { lane, id }
}

fn draft(number: u64, payload_bytes: usize) -> Draft {
    let mut payload = number.to_string();
    while payload.len() < payload_bytes {
        payload.push_str("0123456789");
    }
    Draft::new(
        "sites/hall/temperature".to_owned(),
        Bytes::from(payload),
        Timestamp::from_millis(number as i64),
    )
}

fn append(outbox: &Outbox, numbers: std::ops::Range<u64>, payload_bytes: usize) {
    outbox.append(numbers.map(|number| draft(number, payload_bytes)));
}

/// Waits for a condition, and fails if it takes a minute.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn until_stored(outbox: &Outbox, stored: u64) {
    until("records to be stored", || outbox.ledger().stored == stored);
}

/// All there is, in batches, waiting for what has to be read.
fn drain(outbox: &Outbox, expected: u64, limit: usize) -> Vec<RecordId> {
    let mut ids = Vec::new();
    until("all records to be shown", || {
        let batch = outbox.peek(Lane::default(), ids.last().copied(), limit);
        assert!(batch.len() <= limit);
        ids.extend(batch.iter().map(|record| record.id));
        ids.len() as u64 >= expected
    });
    assert!(ids.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert_eq!(ids.len() as u64, expected);
    ids
}

fn generations(settings: &Settings) -> Vec<PathBuf> {
    let entries = fs::read_dir(&settings.path).expect("it is there");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.to_string_lossy().contains("/gen-"))
        .collect();
    found.sort();
    found
}

#[track_caller]
fn check_balance(outbox: &Outbox) {
    let ledger = outbox.ledger();
    assert!(ledger.balances(), "{ledger:?}");
}

/// Changes one byte in the middle of what was written.
fn change_byte(path: &Path, find: &[u8]) {
    let mut bytes = fs::read(path).expect("readable");
    let found: Vec<usize> = (0..bytes.len() - find.len())
        .filter(|at| bytes[*at..].starts_with(find))
        .collect();
    bytes[found[found.len() / 2]] ^= 0x20;
    fs::write(path, bytes).expect("writable");
}

#[test]
fn what_is_not_acknowledged_is_there_after_a_restart_in_order() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, opening) = open(&settings);
    assert_eq!((opening.epoch, opening.stored), (1, 0));
    append(&outbox, 0..300, 100);
    let ids = drain(&outbox, 300, 64);
    for id in ids.iter().filter(|id| id.seq % 3 != 0) {
        outbox.acknowledge(key(*id));
    }
    let left = outbox.close();
    assert_eq!(
        (left.accepted, left.acknowledged, left.stored),
        (300, 200, 100)
    );

    let (outbox, opening) = open(&settings);
    assert_eq!(
        (opening.epoch, opening.stored, opening.missing),
        (2, 100, 0)
    );
    append(&outbox, 0..5, 100);
    let ids = drain(&outbox, 105, 7);
    let expected = (1..=100).map(|n| RecordId {
        epoch: 1,
        seq: n * 3,
    });
    let expected = expected.chain((1..=5).map(|seq| RecordId { epoch: 2, seq }));
    assert_eq!(ids, expected.collect::<Vec<_>>());
    let record = &outbox.peek(Lane::default(), None, 1)[0];
    assert_eq!(record.draft, draft(2, 100), "as it was written");
    check_balance(&outbox);
}

#[test]
fn a_crash_after_a_commit_loses_nothing_accepted() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, SOON);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..1000, 50);
    until_stored(&outbox, 1000);
    for id in drain(&outbox, 1000, 100).iter().take(10) {
        outbox.acknowledge(key(*id));
    }
    drop(outbox);

    let (outbox, opening) = open(&settings);
    // Acknowledgements since the last commit may be forgotten: those records are sent twice.
    assert!((990..=1000).contains(&opening.stored), "{opening:?}");
    assert_eq!(opening.missing, 0);
    drain(&outbox, opening.stored, 100);
    check_balance(&outbox);
}

#[test]
fn what_is_acknowledged_before_the_commit_is_never_written() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..100, 50);
    for id in drain(&outbox, 100, 10) {
        outbox.acknowledge(key(id));
    }
    let ledger = outbox.close();
    assert_eq!((ledger.acknowledged, ledger.stored), (100, 0));
    assert_eq!((ledger.bytes_written, ledger.commits), (0, 0));
    assert_eq!(generations(&settings).len(), 0);
    assert_eq!(
        inspect(&settings.path).expect("free"),
        ledger,
        "totals are kept all the same"
    );
}

#[test]
fn with_a_group_partly_acknowledged_only_the_rest_is_sent_again() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, SOON);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..20, 50);
    until_stored(&outbox, 20);
    for seq in [1, 2, 5, 6, 7, 20] {
        outbox.acknowledge(key(RecordId { epoch: 1, seq }));
    }
    // Acknowledgements of stored records are synced by themselves, without further records.
    let commits = outbox.ledger().commits;
    until("the acknowledgements to be synced", || {
        outbox.ledger().commits > commits
    });
    drop(outbox);
    let (outbox, _) = open(&settings);
    let seqs: Vec<u64> = drain(&outbox, 14, 100).iter().map(|id| id.seq).collect();
    assert_eq!(seqs, [3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
}

#[test]
fn an_epoch_is_never_used_again() {
    let dir = TempDir::new().expect("a directory");
    let mut settings = settings(&dir, NEVER);
    let root = settings.path.clone();
    let beside = files::epoch_path(&root);
    settings.path.push("");
    let check = |what: &str, expected: u64, damage: &dyn Fn()| {
        damage();
        let (outbox, opening) = open(&settings);
        assert_eq!(
            (opening.epoch, outbox.epoch()),
            (expected, expected),
            "{what}"
        );
        append(&outbox, 0..1, 10);
        outbox.close();
    };
    check("first start", 1, &|| {});
    check("second start", 2, &|| {});
    check("outbox deleted", 3, &|| {
        fs::remove_dir_all(&root).expect("removable")
    });
    check("the file beside it deleted", 4, &|| {
        fs::remove_file(&beside).expect("removable")
    });
    check("the file beside it garbage", 5, &|| {
        fs::write(&beside, b"\xff??").expect("writable")
    });
    check("files that cannot be read", 6, &|| {
        for path in [beside.clone(), root.join("marker.json")] {
            fs::remove_file(&path).expect("removable");
            // Reading it fails with EIO: nothing is mapped at its start.
            std::os::unix::fs::symlink("/proc/self/mem", path).expect("writable");
        }
    });
    check("directories instead", 7, &|| {
        for path in [beside.clone(), root.join("marker.json")] {
            fs::remove_file(&path).expect("removable");
            fs::create_dir(path).expect("writable");
        }
    });
    check(
        "the file beside it says that there were more than can be",
        8,
        &|| {
            fs::write(&beside, u64::MAX.to_string()).expect("writable");
        },
    );
    check("only the records left", 9, &|| {
        fs::remove_file(&beside).expect("removable");
        fs::write(root.join("marker.json"), b"{").expect("writable");
    });
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_it() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    let second = Outbox::open(settings.clone(), Clock::start());
    let Err(OpenError::InUse { path, pid }) = second.map(|_| ()) else {
        panic!("refused as in use");
    };
    assert_eq!(
        (path, pid),
        (settings.path.clone(), Some(std::process::id()))
    );
    assert!(matches!(
        inspect(&settings.path),
        Err(OpenError::InUse { .. })
    ));
    outbox.close();
    assert_eq!(inspect(&settings.path).expect("free now").stored, 0);
}

#[test]
fn an_inspection_makes_nothing_and_does_not_keep_a_start_out() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    for path in [dir.path(), &settings.path] {
        assert!(matches!(inspect(path), Err(OpenError::NotThere { .. })));
    }
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);

    open(&settings).0.close();
    let Ok(inspecting) = files::lock(&settings.path, false) else {
        panic!("it is free");
    };
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(inspecting);
    });
    open(&settings).0.close();
    release.join().expect("it only sleeps");
}

#[test]
fn of_two_that_close_at_once_neither_returns_before_all_is_written() {
    let dir = TempDir::new().expect("a directory");
    let (outbox, _) = open(&settings(&dir, NEVER));
    append(&outbox, 0..5000, 200);
    let other = outbox.clone();
    let closing = std::thread::spawn(move || other.close());
    let left = outbox.close();
    let others = closing.join().expect("it closes");
    for ledger in [left, others] {
        assert_eq!((ledger.pending, ledger.stored), (0, 5000));
    }
}

#[test]
fn generations_come_and_go() {
    let dir = TempDir::new().expect("a directory");
    let settings = Settings {
        max_size: 64 * 1024 * 1024,
        ..settings(&dir, SOON)
    };
    let small = Settings {
        max_size: MIN_SIZE,
        ..settings.clone()
    };
    // Written with small generations, within the larger bound.
    let (outbox, _) = open(&small);
    append(&outbox, 0..1500, 1000);
    until_stored(&outbox, 1500);
    let made = generations(&settings).len();
    assert!(made > 2, "{made} generations");
    let disk_bytes = outbox.ledger().disk_bytes;
    assert!(disk_bytes <= MIN_SIZE, "{disk_bytes}");
    for id in drain(&outbox, 1500, 100) {
        outbox.acknowledge(key(id));
    }
    until("old generations to go", || {
        generations(&settings).len() == 1
    });
    until("the ledger to say so", || {
        outbox.ledger().disk_bytes < disk_bytes
    });
    check_balance(&outbox);
    outbox.close();
    let (_, opening) = open(&settings);
    assert_eq!((opening.stored, opening.missing), (0, 0));
}

#[test]
fn a_full_outbox_drops_by_its_policy_and_counts() {
    let check =
        |when_full, expect_first: &dyn Fn(u64) -> bool, expect_last: &dyn Fn(u64) -> bool| {
            let dir = TempDir::new().expect("a directory");
            let settings = Settings {
                max_size: MIN_SIZE,
                when_full,
                ..settings(&dir, Duration::ZERO)
            };
            let (outbox, _) = open(&settings);
            for part in 0..40 {
                append(&outbox, part * 100..part * 100 + 100, 1000);
                until("all to be accepted", || outbox.ledger().pending == 0);
                let ledger = outbox.ledger();
                assert!(ledger.balances(), "{ledger:?}");
                assert!(ledger.disk_bytes <= MIN_SIZE, "{ledger:?}");
            }
            let ledger = outbox.ledger();
            assert!(
                ledger.dropped_overflow_disk > 0 && ledger.stored > 0,
                "{ledger:?}"
            );
            let ids = drain(&outbox, ledger.stored, 500);
            assert!(
                expect_first(ids[0].seq) && expect_last(ids[ids.len() - 1].seq),
                "{ledger:?}"
            );
            let closed = outbox.close();
            let (_, opening) = open(&settings);
            assert_eq!((opening.stored, opening.missing), (closed.stored, 0));
        };
    check(WhenFull::DropOldest, &|first| first > 1, &|last| {
        last == 4000
    });
    check(WhenFull::DropNewest, &|first| first == 1, &|last| {
        last < 4000
    });
}

#[test]
fn a_damaged_group_is_set_aside_and_the_rest_delivered() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, SOON);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..400, 200);
    until_stored(&outbox, 400);
    outbox.close();
    generations::damage_group(&generations(&settings)[0], RecordId { epoch: 1, seq: 1 });

    let (outbox, opening) = open(&settings);
    assert_eq!(opening.damaged, 1);
    assert!(opening.missing > 0 && opening.missing < 100, "{opening:?}");
    let ledger = outbox.ledger();
    assert_eq!(
        (ledger.accepted, ledger.dropped_damaged),
        (400, opening.missing)
    );
    let ids = drain(&outbox, 400 - opening.missing, 100);
    assert_eq!(ids[0].seq, opening.missing + 1);
    check_balance(&outbox);
    outbox.close();
    let (_, again) = open(&settings);
    assert_eq!((again.damaged, again.missing), (0, 0), "counted once");
    assert_eq!(
        fs::read_dir(settings.path.join("damaged"))
            .expect("kept")
            .count(),
        1
    );
}

#[test]
fn what_a_newer_version_wrote_is_left_alone_and_said() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..3, 200);
    outbox.close();
    let generation = generations(&settings)[0].clone();
    let first = RecordId { epoch: 1, seq: 1 };
    generations::change_group(&generation, first, group::make_newer);
    for _ in 0..2 {
        let result = Outbox::open(settings.clone(), Clock::start());
        let Err(error @ OpenError::Newer { version: 3, .. }) = result.map(|_| ()) else {
            panic!("refused as newer");
        };
        assert!(error.to_string().contains("a newer Tidegate"), "{error}");
    }
    assert!(generation.exists() && !settings.path.join("damaged").exists());
}

#[test]
fn damage_that_sled_notices_is_set_aside_and_the_start_goes_on() {
    let dir = TempDir::new().expect("a directory");
    let check = |name: &str, missing_max: u64, damage: &dyn Fn(&Path)| {
        let settings = Settings {
            path: dir.path().join(name),
            max_size: MIN_SIZE,
            ..settings(&dir, SOON)
        };
        let (outbox, _) = open(&settings);
        append(&outbox, 0..1000, 1000);
        until_stored(&outbox, 1000);
        outbox.close();
        let damaged = generations(&settings);
        assert!(damaged.len() >= 2, "{name}");
        damage(&damaged[0]);

        let (outbox, opening) = open(&settings);
        assert!(
            opening.missing > 0 && opening.stored > 0,
            "{name}: {opening:?}"
        );
        assert!(opening.missing <= missing_max, "{name}: {opening:?}");
        assert_eq!(opening.stored + opening.missing, 1000, "{name}");
        assert_eq!(outbox.ledger().dropped_damaged, opening.missing, "{name}");
        drain(&outbox, opening.stored, 100);
        append(&outbox, 0..10, 1000);
        until_stored(&outbox, opening.stored + 10);
        check_balance(&outbox);
        outbox.close();
        let (_, again) = open(&settings);
        assert_eq!(
            (again.damaged, again.missing),
            (0, 0),
            "{name}: counted once"
        );
        assert_eq!(again.stored, opening.stored + 10, "{name}");
    };
    check("missing", 999, &|generation| {
        fs::remove_dir_all(generation).expect("removable")
    });
    check("emptied", 999, &|generation| {
        fs::remove_dir_all(generation).expect("removable");
        fs::create_dir(generation).expect("writable");
    });
    check("garbage", 999, &|generation| {
        fs::write(generation.join("db"), vec![0xee; 70_000]).expect("writable");
    });
    check("truncated", 999, &|generation| {
        let file = fs::File::options().write(true).open(generation.join("db"));
        let file = file.expect("writable");
        let length = file.metadata().expect("it has a length").len();
        file.set_len(length / 2).expect("it can be cut");
    });
    // sled ends its log at the damage, without an error: only the ledger knows that something is missing.
    check("flipped", 500, &|generation| {
        change_byte(&generation.join("db"), b"0123456789012345678901234567")
    });
    check("a file instead", 999, &|generation| {
        fs::remove_dir_all(generation).expect("removable");
        fs::write(generation, b"what?").expect("writable");
    });
}

#[test]
fn pressure_rises_before_anything_is_dropped_and_falls_once_there_is_room() {
    let dir = TempDir::new().expect("a directory");
    let settings = Settings {
        max_size: MIN_SIZE,
        when_full: WhenFull::Block,
        ..settings(&dir, SOON)
    };
    let pressure = Pressure::until_open();
    assert!(pressure.is_high());
    let claim = Claim::take(settings.clone()).expect("it is free");
    let (outbox, _) = claim
        .open(Clock::start(), pressure.clone())
        .expect("the outbox opens");
    until("the pressure to fall, as it is open", || {
        !pressure.is_high()
    });
    let mut appended = 0;
    let mut append_and_store = |number: u64| {
        append(&outbox, appended..appended + number, 1000);
        appended += number;
        until("nothing to be pending", || outbox.ledger().pending == 0);
        appended
    };
    let mut accepted = 0;
    until("the pressure to rise", || {
        accepted = append_and_store(100);
        pressure.is_high()
    });
    assert!(outbox.ledger().disk_bytes > MIN_SIZE / 2, "not at once");
    // What is on its way still finds room: two generations of it, as sled stores them.
    accepted = append_and_store(2 * settings.generation_size() / 6 / 1000);
    assert_eq!(outbox.ledger().dropped, 0, "{:?}", outbox.ledger());
    // More than there is room for waits in memory, and the newest goes.
    append(&outbox, accepted..accepted + 20_000, 1000);
    until("nothing more to fit", || {
        let before = outbox.ledger().stored;
        std::thread::sleep(2 * RETRY);
        outbox.ledger().stored == before
    });
    let ledger = outbox.ledger();
    assert!(ledger.dropped_overflow_memory > 0 && ledger.pending > 1_000);
    assert_eq!(ledger.dropped, ledger.dropped_overflow_memory, "{ledger:?}");
    assert!(ledger.disk_bytes <= MIN_SIZE && pressure.is_high());
    let kept = ledger.stored + ledger.pending;
    let ids = drain(&outbox, kept, 100);
    assert!(
        ids.iter().map(|id| id.seq).eq(1..=kept),
        "what was there stays"
    );
    for id in ids {
        outbox.acknowledge(key(id));
    }
    until("the pressure to fall", || !pressure.is_high());
}

/// sled fills up the last segment of a file that it opens.
#[test]
fn a_restart_does_not_make_an_outbox_full_that_was_not() {
    let dir = TempDir::new().expect("a directory");
    let settings = Settings {
        max_size: MIN_SIZE,
        ..settings(&dir, SOON)
    };
    let (outbox, _) = open(&settings);
    let mut number = 0;
    let mut fill = |outbox: &Outbox| {
        append(outbox, number..number + 100, 500);
        number += 100;
        until("nothing to be pending", || outbox.ledger().pending == 0);
    };
    // Until just before something is dropped.
    while outbox.ledger().disk_bytes < MIN_SIZE - settings.generation_size() {
        fill(&outbox);
    }
    assert_eq!(outbox.ledger().dropped, 0);
    for _ in 0..2 {
        outbox.clone().close();
    }
    drop(outbox);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..1, 500);
    until("nothing to be pending", || outbox.ledger().pending == 0);
    let ledger = outbox.ledger();
    assert_eq!(ledger.dropped, 0, "{ledger:?}");
    assert!(ledger.disk_bytes <= MIN_SIZE, "{ledger:?}");
}

/// EIO is what a medium answers that still gives what it has, EROFS what its file system does then, ENOSPC one that is full.
#[test]
fn records_on_a_disk_that_takes_no_writes_are_delivered() {
    for (errno, is_at_start) in [
        ("5", false),
        ("30", false),
        ("28", false),
        ("5", true),
        ("28", true),
    ] {
        let dir = TempDir::new().expect("a directory");
        let settings = Settings {
            max_size: MIN_SIZE,
            ..settings(&dir, SOON)
        };
        let (outbox, _) = open(&settings);
        append(&outbox, 0..1000, 1000);
        until_stored(&outbox, 1000);
        outbox.close();
        let of_both = generations(&settings);
        assert!(of_both.len() >= 2, "one that is only read");
        let inject = || {
            for generation in &of_both {
                fs::write(generation.join(generations::INJECTED), errno).expect("writable");
            }
        };
        if is_at_start {
            inject();
        }
        let (outbox, opening) = open(&settings);
        assert_eq!((opening.stored, opening.damaged), (1000, 0), "{errno}");
        inject();
        drain(&outbox, 1000, 100);
        assert_eq!(outbox.ledger().dropped_damaged, 0);
    }
}

#[test]
fn damage_beside_the_data_costs_a_start_no_record() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..100, 200);
    outbox.close();
    open(&settings).0.close();
    let generation = generations(&settings)[0].clone();
    let files = fs::read_dir(&generation).expect("listed");
    let mut summaries = 0;
    for file in files.map(|file| file.expect("listed").path()) {
        if file.to_string_lossy().contains("/snap.") {
            fs::write(&file, vec![0xee; 100]).expect("writable");
            summaries += 1;
        }
    }
    assert!(summaries > 0);
    let (outbox, opening) = open(&settings);
    assert_eq!((opening.stored, opening.missing), (100, 0), "{opening:?}");
    assert!(!opening.is_unexpectedly_empty);
    drain(&outbox, 100, 100);
    outbox.close();
    let (_, again) = open(&settings);
    assert_eq!((again.stored, again.damaged), (100, 0), "{again:?}");
}

#[test]
fn what_lies_around_an_unreadable_part_is_copied() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    // So large that sled keeps them in files of their own.
    append(&outbox, 0..60, 60_000);
    outbox.close();
    // sled replays its log up to the last start; damage before that it meets when it reads.
    open(&settings).0.close();
    let damaged = generations(&settings)[0].clone();
    let blobs = fs::read_dir(damaged.join("blobs")).expect("there are some");
    let mut blobs: Vec<_> = blobs.map(|blob| blob.expect("listed").path()).collect();
    // Named by numbers: the order in which they were written.
    blobs.sort_by_key(|blob| (blob.as_os_str().len(), blob.clone()));
    // Some of them sled no longer needs; damage to those changes nothing.
    let middle = blobs.len() / 2;
    let mut damage = blobs[middle..].iter().map(|blob| {
        change_byte(blob, b"0123456789");
        open(&settings)
    });
    let (outbox, opening) = damage
        .find(|(_, opening)| opening.damaged > 0)
        .expect("one of them is needed");
    assert_eq!((opening.damaged, opening.stored + opening.missing), (1, 60));
    let ids = drain(&outbox, opening.stored, 100);
    // One leaf of sled is lost, wherever it lies, and a group is a record here.
    let lost: Vec<u64> = (1..=60)
        .filter(|seq| {
            !ids.contains(&RecordId {
                epoch: 1,
                seq: *seq,
            })
        })
        .collect();
    assert!(lost.len() <= 17, "{lost:?}");
    assert!(lost.is_sorted_by(|a, b| a + 1 == *b), "{lost:?}");
    assert!(!damaged.exists() && settings.path.join("damaged/gen-00000001").exists());
    check_balance(&outbox);
    outbox.close();
    let (_, again) = open(&settings);
    assert_eq!(
        (again.damaged, again.missing, again.stored),
        (0, 0, opening.stored)
    );
}

#[test]
fn an_outbox_that_lost_its_files_says_so() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, SOON);
    let (outbox, opening) = open(&settings);
    assert!(!opening.is_unexpectedly_empty);
    append(&outbox, 0..50, 100);
    until_stored(&outbox, 50);
    outbox.close();
    fs::remove_dir_all(&generations(&settings)[0]).expect("removable");
    let (outbox, opening) = open(&settings);
    assert!(
        opening.is_unexpectedly_empty && opening.missing == 50,
        "{opening:?}"
    );
    assert_eq!(outbox.ledger().dropped_damaged, 50);
    check_balance(&outbox);
}

#[test]
fn with_no_interval_only_what_is_durable_is_shown() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, Duration::ZERO);
    let (outbox, _) = open(&settings);
    for part in 0..20 {
        append(&outbox, part * 10..part * 10 + 10, 50);
        let seen = outbox.peek(Lane::default(), None, usize::MAX).len() as u64;
        let ledger = outbox.ledger();
        assert!(seen <= ledger.stored, "{seen} seen of {ledger:?}");
    }
    until_stored(&outbox, 200);
    drain(&outbox, 200, 64);
    drop(outbox);
    assert_eq!(open(&settings).1.stored, 200, "without a close");
}

#[test]
fn records_are_shown_without_gaps_from_disk_to_memory() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..12_000, 400);
    outbox.close();
    let (outbox, opening) = open(&settings);
    assert_eq!(opening.stored, 12_000);
    append(&outbox, 0..1000, 400);
    let ids = drain(&outbox, 13_000, 37);
    assert_eq!(
        ids[11_999],
        RecordId {
            epoch: 1,
            seq: 12_000
        }
    );
    assert_eq!(ids[12_000], RecordId { epoch: 2, seq: 1 });
    // A reader that lost its connection goes back to the start.
    assert_eq!(drain(&outbox, 13_000, 1000), ids);
}

#[test]
fn a_reader_is_woken_by_what_it_waits_for() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, NEVER);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..100, 100);
    outbox.close();
    let (outbox, _) = open(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let wait = |what| {
        let changed =
            async { tokio::time::timeout(Duration::from_secs(30), outbox.changed()).await };
        runtime
            .block_on(changed)
            .unwrap_or_else(|_| panic!("woken by {what}"));
    };
    while outbox.peek(Lane::default(), None, 100).len() < 100 {
        wait("reading");
    }
    let last = RecordId { epoch: 1, seq: 100 };
    assert!(outbox.peek(Lane::default(), Some(last), 1).is_empty());
    append(&outbox, 0..1, 10);
    wait("appending");
    assert_eq!(outbox.peek(Lane::default(), Some(last), 1).len(), 1);
}

#[test]
fn dead_letters_are_kept_with_their_reason() {
    let dir = TempDir::new().expect("a directory");
    let settings = settings(&dir, SOON);
    let (outbox, _) = open(&settings);
    append(&outbox, 0..3, 10);
    until_stored(&outbox, 3);
    drop(outbox);
    let (outbox, _) = open(&settings);
    // Its contents are not in memory yet.
    outbox.dead_letter(
        key(RecordId { epoch: 1, seq: 2 }),
        "larger than the broker takes",
    );
    outbox.dead_letter(key(RecordId { epoch: 1, seq: 2 }), "again");
    append(&outbox, 7..8, 10);
    outbox.dead_letter(key(RecordId { epoch: 2, seq: 1 }), "no");
    let ledger = outbox.close();
    assert_eq!(
        (ledger.dead_lettered, ledger.stored, ledger.accepted),
        (2, 2, 4)
    );
    let text = fs::read_to_string(settings.path.join("dead-letters.jsonl")).expect("written");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["seq"], 2);
    assert_eq!(lines[0]["reason"], "larger than the broker takes");
    assert!(
        lines[0]["payload"]
            .as_str()
            .is_some_and(|payload| payload.starts_with("1012"))
    );
    assert_eq!(lines[1]["epoch"], 2);
}

#[test]
fn the_ledger_is_one_flat_object_of_integers() {
    let dir = TempDir::new().expect("a directory");
    let (outbox, _) = open(&settings(&dir, NEVER));
    let json = serde_json::to_value(outbox.ledger()).expect("JSON");
    let object = json.as_object().expect("an object");
    assert!(object.values().all(serde_json::Value::is_u64));
    for key in [
        "pending",
        "accepted",
        "acknowledged",
        "stored",
        "dead_lettered",
        "dropped",
        "epoch",
    ] {
        assert!(object.contains_key(key), "{key}");
    }
}
