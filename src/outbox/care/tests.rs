//! Every kind of damage that sled stores were seen with, and what verify and repair make of it.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::message::Timestamp;
use crate::outbox::{Draft, Key, Lane, Ledger, Outbox, RecordId, Settings};
use crate::runtime::clock::Clock;

/// So long that a commit happens only when the outbox is closed.
const NEVER: Duration = Duration::from_secs(3600);

fn go_on(_: Step) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// An outbox on disk, at rest.
struct Plant {
    dir: TempDir,
}

type Records = BTreeMap<RecordId, Bytes>;

impl Plant {
    /// With these many records, stored in two starts, of which every third is acknowledged; and what is to be delivered.
    fn with(records: u64, payload_bytes: usize) -> (Plant, Records) {
        let plant = Plant {
            dir: TempDir::new().expect("a directory"),
        };
        for half in 0..2 {
            let outbox = plant.open();
            let drafts = (0..records / 2).map(|number| draft(half * 1_000 + number, payload_bytes));
            outbox.append(drafts);
            outbox.close();
        }
        let outbox = plant.open();
        let mut records = take_all(&outbox);
        records.retain(|id, _| {
            let stays = id.seq % 3 != 0;
            if !stays {
                outbox.acknowledge(key(*id));
            }
            stays
        });
        outbox.close();
        (plant, records)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("outbox")
    }

    fn settings(&self) -> Settings {
        Settings {
            commit: NEVER,
            max_size: 8 * 1024 * 1024,
            ..Settings::new(self.root())
        }
    }

    fn open(&self) -> Outbox {
        let opened = Outbox::open(self.settings(), Clock::start());
        opened.expect("the outbox opens").0
    }

    fn copy(&self) -> Plant {
        let dir = TempDir::new().expect("a directory");
        copy_all(self.dir.path(), dir.path());
        Plant { dir }
    }

    fn verify(&self) -> Verdict {
        let care = Care::to_read(&self.root(), None).expect("it is free");
        care.verify(&mut go_on).expect("it can be read")
    }

    fn repair(&self) -> Repaired {
        let care = Care::to_write(&self.root()).expect("it is free");
        care.repair(false, &mut go_on).expect("it can be repaired")
    }

    fn export(&self, all: bool) -> Vec<serde_json::Value> {
        let care = Care::to_read(&self.root(), None).expect("it is free");
        let mut out = Vec::new();
        let exported = care.export("press-7", all, &mut out, &mut go_on);
        let records = exported.expect("it can be read").records;
        let lines = String::from_utf8(out).expect("text");
        let lines = lines.lines().map(serde_json::from_str);
        let lines: Vec<_> = lines.collect::<Result<_, _>>().expect("JSON");
        assert_eq!(lines.len() as u64, records);
        lines
    }

    /// What is delivered when it is opened, and the ledger after that.
    fn delivered(&self) -> (Records, Ledger) {
        let outbox = self.open();
        let records = take_all(&outbox);
        (records, outbox.close())
    }

    fn generations(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root()).expect("it is there").flatten();
        let paths = entries.map(|entry| entry.path());
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.to_string_lossy().contains("/gen-"))
            .collect();
        paths.sort();
        paths
    }

    /// Every file below the outbox and beside it, with its bytes.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.dir.path().to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    fs::read_dir(&path)
                        .expect("listed")
                        .flatten()
                        .map(|e| e.path()),
                );
            } else {
                files.insert(path.clone(), fs::read(&path).expect("readable"));
            }
        }
        files
    }
}

fn draft(number: u64, payload_bytes: usize) -> Draft {
    let topic = if number.is_multiple_of(2) {
        "a/even"
    } else {
        "a/odd"
    };
    let payload = format!("\"{number}{}\"", "x".repeat(payload_bytes));
    let time = Timestamp::from_millis(number as i64 * 1_000);
    Draft::new(topic.to_owned(), Bytes::from(payload), time)
}

fn key(id: RecordId) -> Key {
    let lane = Lane::default();
    Key { lane, id }
}

fn take_all(outbox: &Outbox) -> Records {
    let mut records = Records::new();
    let wanted = outbox.ledger().waiting();
    let start = std::time::Instant::now();
    while (records.len() as u64) < wanted {
        assert!(
            start.elapsed().as_secs() < 60,
            "{} of {wanted}",
            records.len()
        );
        let last = records.last_key_value().map(|(id, _)| *id);
        for record in outbox.peek(Lane::default(), last, 1_000) {
            records.insert(record.id, record.draft.payload.clone());
        }
        std::thread::yield_now();
    }
    records
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_all(&from, &to);
        } else {
            fs::copy(from, to).expect("copied");
        }
    }
}

/// Verify must say what is wrong, repair must save what a start would, and a second repair finds nothing to do.
fn check_damage(name: &str, plant: &Plant, expected: &Records) {
    let verdict = plant.verify();
    let (by_start, ledger) = plant.copy().delivered();
    assert!(ledger.balances(), "{name}: {ledger:?}");
    let is_all_there = expected
        .iter()
        .all(|(id, payload)| by_start.get(id) == Some(payload));
    assert!(
        is_all_there || !verdict.is_sound,
        "{name}: verify says good, and {} of {} are there",
        by_start.len(),
        expected.len()
    );
    let found = plant.repair();
    assert_eq!(found.is_changed, !verdict.is_sound, "{name}: {verdict:?}");
    let again = plant.verify();
    assert!(again.is_sound, "{name}: after repair {:?}", again.problems);
    assert!(!plant.repair().is_changed, "{name}: twice");
    let exported = plant.export(false).len();
    let (repaired, ledger) = plant.delivered();
    assert!(ledger.balances(), "{name}: {ledger:?}");
    assert_eq!(exported, repaired.len(), "{name}: exported");
    // What was delivered, and only a start would not know, need not come again.
    for (id, payload) in by_start.iter().filter(|(id, _)| expected.contains_key(id)) {
        assert_eq!(
            repaired.get(id),
            Some(payload),
            "{name}: {id:?} is lost by repair"
        );
    }
    for (id, payload) in &repaired {
        let expected = expected.get(id);
        assert!(
            expected.is_none_or(|expected| expected == payload),
            "{name}: {id:?} changed"
        );
    }
    let lost = expected
        .keys()
        .filter(|id| !repaired.contains_key(id))
        .count() as u64;
    let extra = repaired
        .keys()
        .filter(|id| !expected.contains_key(id))
        .count() as u64;
    assert!(
        ledger.dropped_damaged + extra >= lost,
        "{name}: {lost} lost, {extra} again, counted {}",
        ledger.dropped_damaged
    );
    println!(
        "{name}: {} of {} by a start, {} repaired, {:?}",
        by_start.len(),
        expected.len(),
        repaired.len(),
        verdict.problems
    );
}

#[test]
fn each_kind_of_damage_is_found_and_repaired() {
    let (plant, records) = Plant::with(3_000, 400);
    let generations = plant.generations().len();
    assert!(generations > 2, "{generations} generations");
    let verdict = plant.verify();
    assert!(verdict.is_sound, "{:?}", verdict.problems);
    assert_eq!(verdict.waiting, records.len() as u64);
    let change = |name: &str, change: &dyn Fn(&Path)| {
        for at in [0, generations - 1] {
            let plant = plant.copy();
            change(&plant.generations()[at]);
            check_damage(&format!("{name} in generation {at}"), &plant, &records);
        }
    };
    change("nothing", &|_| {});
    change("a flipped byte", &|dir| {
        let mut bytes = fs::read(dir.join("db")).expect("readable");
        let at = bytes.len() / 3;
        bytes[at] ^= 0x20;
        fs::write(dir.join("db"), bytes).expect("writable");
    });
    change("half a file", &|dir| {
        let bytes = fs::read(dir.join("db")).expect("readable");
        fs::write(dir.join("db"), &bytes[..bytes.len() / 2]).expect("writable");
    });
    change("an empty directory", &|dir| {
        fs::remove_dir_all(dir).expect("removed");
        fs::create_dir(dir).expect("made");
    });
    change("no generation", &|dir| {
        fs::remove_dir_all(dir).expect("removed")
    });
    change("no db", &|dir| {
        fs::remove_file(dir.join("db")).expect("removed")
    });
    change("no conf", &|dir| {
        fs::remove_file(dir.join("conf")).expect("removed")
    });
    change("an empty conf", &|dir| {
        fs::write(dir.join("conf"), "").expect("writable")
    });
    change("garbage", &|dir| {
        let length = fs::metadata(dir.join("db")).expect("there").len();
        let garbage: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
        fs::write(dir.join("db"), garbage).expect("writable");
    });
    change("a file in its place", &|dir| {
        fs::remove_dir_all(dir).expect("removed");
        fs::write(dir, "?").expect("written");
    });
    change("damaged summaries", &|dir| {
        for entry in fs::read_dir(dir).expect("listed").flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::write(entry.path(), "summary").expect("written");
            }
        }
    });
}

/// A start cannot use a store with damage in the files that sled keeps beside its own; repair can.
#[test]
fn damage_beside_the_data_costs_no_record() {
    let (plant, records) = Plant::with(200, 100);
    let check = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let plant = plant.copy();
        for generation in plant.generations() {
            for entry in fs::read_dir(generation).expect("listed").flatten() {
                if entry.file_name().to_string_lossy().starts_with(name) {
                    let mut bytes = fs::read(entry.path()).expect("readable");
                    change(&mut bytes);
                    fs::write(entry.path(), bytes).expect("written");
                }
            }
        }
        assert!(!plant.verify().is_sound, "{name}");
        plant.repair();
        assert_eq!(plant.delivered().0, records, "{name}");
    };
    check("snap.", &|bytes| bytes.fill(b'?'));
    check("conf", &|bytes| bytes[25] ^= 1);
}

/// `TIDEGATE_SWEEP` is how many bytes are flipped; without it so few that it takes seconds.
#[test]
fn whatever_byte_is_flipped_verify_notices_what_is_lost() {
    let (plant, records) = Plant::with(300, 60);
    let tries =
        std::env::var("TIDEGATE_SWEEP").map_or(24, |tries| tries.parse().expect("a number"));
    for at in 0..tries {
        let plant = plant.copy();
        let generations = plant.generations();
        let files: Vec<PathBuf> = generations
            .iter()
            .flat_map(|dir| fs::read_dir(dir).expect("listed").flatten())
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        let file = &files[at % files.len()];
        let mut bytes = fs::read(file).expect("readable");
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        // Spread over the file by the golden ratio.
        let place = ((at as f64 * 0.618_033_988_75).fract() * used as f64) as usize;
        let Some(byte) = bytes.get_mut(place) else {
            continue;
        };
        *byte ^= 1 << (at % 8);
        fs::write(file, bytes).expect("writable");
        check_damage(
            &format!("byte {place} of {}", file.display()),
            &plant,
            &records,
        );
    }
}

/// `BYTES` is every how many-th byte is flipped.
#[test]
#[ignore = "takes long: scripts/prove.sh bytes 1 runs it"]
fn every_byte_of_a_small_store_flipped_once() {
    let step: usize = std::env::var("BYTES").map_or(97, |step| step.parse().expect("a number"));
    let (plant, records) = Plant::with(6, 12);
    let root = plant.dir.path().to_owned();
    // sled fills its segments up with one and the same byte: of such rows the ends, and some of the rest.
    const ROW: usize = 64;
    const OF_ROWS: usize = 512;
    let mut places: Vec<(PathBuf, usize)> = Vec::new();
    for (path, bytes) in plant.bytes() {
        let path = path.strip_prefix(&root).expect("it is in there").to_owned();
        let mut start = 0;
        for row in bytes.chunk_by(|a, b| a == b) {
            let is_inside =
                |at: usize| row.len() > ROW && at >= ROW / 2 && at + ROW / 2 < row.len();
            let wanted = (0..row.len()).filter(|at| !is_inside(*at) || at % OF_ROWS == 0);
            places.extend(wanted.map(|at| (path.clone(), start + at)));
            start += row.len();
        }
    }
    let total = places.len();
    let places: Vec<_> = places.into_iter().step_by(step).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let notices = std::sync::atomic::AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some((path, at)) =
                    places.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let plant = plant.copy();
                    let file = plant.dir.path().join(path);
                    let mut bytes = fs::read(&file).expect("readable");
                    bytes[*at] ^= 1 << (at % 8);
                    fs::write(&file, bytes).expect("writable");
                    if !plant.verify().is_sound {
                        notices.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    check_damage(
                        &format!("byte {at} of {}", path.display()),
                        &plant,
                        &records,
                    );
                }
            });
        }
    });
    println!(
        "PROVED: {} of {total} bytes of a store of {} records (but for rows of padding) flipped, one bit at a time: {} were noticed by `verify`, the others changed \
         nothing; each time the outbox opened, what could be read was delivered unchanged, and the ledger added up",
        places.len(),
        records.len(),
        notices.into_inner()
    );
}

#[test]
fn verify_and_export_change_nothing() {
    let (plant, records) = Plant::with(100, 50);
    let newest = plant.generations().pop().expect("there is one");
    fs::write(newest.join("db"), "garbage").expect("written");
    let before = plant.bytes();
    assert!(!plant.verify().is_sound);
    plant.export(true);
    let care = Care::to_write(&plant.root()).expect("it is free");
    care.repair(true, &mut go_on).expect("it can be read");
    drop(care);
    let mut after = plant.bytes();
    let lock = plant.root().join("lock");
    // Who last had the right to write stands there.
    after.insert(lock.clone(), before[&lock].clone());
    assert!(before == after, "{} records", records.len());
}

#[test]
fn what_a_stop_leaves_is_removed_and_a_stop_leaves_nothing() {
    let (plant, _) = Plant::with(100, 50);
    let scratch = plant.root().join("scratch");
    fs::create_dir(&scratch).expect("made");
    fs::write(scratch.join("left"), "by a kill").expect("written");
    assert!(plant.verify().is_sound);
    assert!(!scratch.exists());
    let care = Care::to_read(&plant.root(), None).expect("it is free");
    let mut steps = 0;
    let stopped = care.export("press-7", true, &mut Vec::new(), &mut |_| {
        steps += 1;
        if steps > 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped, Err(CareError::Interrupted)));
    drop(care);
    assert!(!scratch.exists());
}

#[test]
fn an_outbox_in_use_and_one_that_is_not_there_are_left_alone() {
    let (plant, _) = Plant::with(10, 10);
    let outbox = plant.open();
    let by = format!("process {} (", std::process::id());
    for care in [
        Care::to_read(&plant.root(), None),
        Care::to_write(&plant.root()),
    ] {
        let error = care.expect_err("it is in use").to_string();
        assert!(error.contains(&by), "{error}");
    }
    outbox.close();
    let nowhere = plant.dir.path().join("nowhere");
    fs::create_dir(&nowhere).expect("made");
    for path in [&nowhere, &nowhere.join("else")] {
        for care in [Care::to_read(path, None), Care::to_write(path)] {
            assert!(matches!(care, Err(CareError::NotThere { .. })));
        }
    }
    assert_eq!(
        fs::read_dir(nowhere).expect("listed").count(),
        0,
        "nothing is made"
    );
}

#[test]
fn the_files_beside_the_store_are_made_anew_and_never_say_less() {
    let (plant, records) = Plant::with(100, 10);
    let epoch = plant.verify().epoch;
    let (marker, beside) = (
        plant.root().join("marker.json"),
        files::epoch_path(&plant.root()),
    );
    let check = |what: &str, change: &dyn Fn()| {
        change();
        let verdict = plant.verify();
        assert!(!verdict.is_sound, "{what}");
        assert_eq!(plant.repair().lost, 0, "{what}");
        let verdict = plant.verify();
        assert!(verdict.is_sound, "{what}: {:?}", verdict.problems);
        assert_eq!(verdict.epoch, epoch, "{what}");
        assert_eq!(files::read_epoch(&plant.root()), epoch, "{what}");
    };
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    check("no marker", &|| remove(&marker));
    check("no epoch", &|| remove(&beside));
    check("neither", &|| {
        remove(&marker);
        remove(&beside);
    });
    check("a damaged marker", &|| {
        fs::write(&marker, "{").expect("written")
    });
    check("a lower epoch", &|| {
        fs::write(&beside, "1").expect("written")
    });
    check("an epoch that never was", &|| {
        fs::write(&beside, u64::MAX.to_string()).expect("written")
    });
    assert_eq!(plant.delivered().0, records);
}

#[test]
fn export_gives_each_record_once_and_in_order() {
    let (plant, records) = Plant::with(100, 10);
    let lines = plant.export(false);
    let id = |line: &serde_json::Value| RecordId {
        epoch: line["epoch"].as_u64().expect("a number"),
        seq: line["seq"].as_u64().expect("a number"),
    };
    let ids: Vec<RecordId> = lines.iter().map(id).collect();
    assert_eq!(ids, records.keys().copied().collect::<Vec<_>>());
    for (line, payload) in lines.iter().zip(records.values()) {
        assert_eq!(line["payload"].to_string().as_bytes(), payload);
    }
    let all = plant.export(true);
    assert_eq!(all.len(), 100);
    let waiting = all.iter().filter(|line| line["state"] == "waiting");
    assert_eq!(waiting.count(), records.len());
}

#[test]
fn what_is_dropped_by_hand_is_counted_and_the_rest_is_delivered() {
    let (plant, records) = Plant::with(200, 10);
    let care = Care::to_write(&plant.root()).expect("it is free");
    let selection = Selection {
        before: Some(Timestamp::from_millis(50_000)),
        topic: Some("+/odd".to_owned()),
    };
    let dry = care
        .drop_records(&selection, true, &mut go_on)
        .expect("it works");
    assert_eq!(plant_sum(&dry), records.len() as u64);
    let wet = care
        .drop_records(&selection, false, &mut go_on)
        .expect("it works");
    assert_eq!(wet, dry);
    let again = care
        .drop_records(&selection, false, &mut go_on)
        .expect("it works");
    assert_eq!((again.records, again.left), (0, dry.left));
    drop(care);
    let verdict = plant.verify();
    assert!(verdict.is_sound, "{:?}", verdict.problems);
    let (left, ledger) = plant.delivered();
    assert_eq!(left.len() as u64, dry.left);
    assert!(ledger.balances());
    assert_eq!(ledger.dropped_by_hand, dry.records);
    let is_meant = |payload: &Bytes| {
        let text = String::from_utf8_lossy(payload);
        let number: u64 = text.trim_matches(['"', 'x']).parse().expect("a number");
        number < 50 && number % 2 == 1
    };
    let kept: Records = records
        .into_iter()
        .filter(|(_, payload)| !is_meant(payload))
        .collect();
    assert_eq!(left, kept);
}

fn plant_sum(dropped: &Dropped) -> u64 {
    assert!(dropped.records > 0 && dropped.left > 0, "{dropped:?}");
    dropped.records + dropped.left
}

#[test]
fn what_was_set_aside_although_it_could_be_read_comes_back_once() {
    let (plant, records) = Plant::with(3_000, 400);
    let damaged = plant.root().join("damaged");
    fs::create_dir_all(&damaged).expect("made");
    let gone = plant.generations()[1].clone();
    let aside = damaged.join(gone.file_name().expect("a name"));
    // As a start does with what the medium does not give.
    fs::rename(&gone, &aside).expect("moved");
    let lost = plant.repair().lost;
    assert!(lost > 0);
    let recover = |dry_run| {
        let care = Care::to_write(&plant.root()).expect("it is free");
        care.recover(dry_run, &mut go_on).expect("it works")
    };
    assert_eq!(recover(true), lost);
    assert_eq!(recover(false), lost);
    assert_eq!(recover(false), 0, "once");
    let verdict = plant.verify();
    assert!(verdict.is_sound, "{:?}", verdict.problems);
    let (delivered, ledger) = plant.delivered();
    assert_eq!(delivered, records);
    assert!(
        ledger.balances() && ledger.dropped_damaged == 0,
        "{ledger:?}"
    );
}

#[test]
fn what_a_newer_tidegate_wrote_is_left_alone() {
    use crate::outbox::generations::change_group;
    use crate::outbox::group::make_newer;
    let (plant, records) = Plant::with(10, 10);
    let first = *records.keys().next().expect("there are some");
    change_group(
        &plant.generations()[0],
        RecordId { seq: 1, ..first },
        make_newer,
    );
    let care = Care::to_write(&plant.root()).expect("it is free");
    let error = care
        .repair(false, &mut go_on)
        .expect_err("it is newer")
        .to_string();
    assert!(
        error.contains("newer Tidegate") && error.contains("outbox/gen-"),
        "{error}"
    );
    let error = care.verify(&mut go_on).expect_err("it is newer");
    assert!(
        matches!(error, CareError::Outbox(OpenError::Newer { .. })),
        "{error}"
    );
}
