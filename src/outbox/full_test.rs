//! A full outbox on a real disk: what is merged, carried over and dropped there, and what a restart finds of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::message::Timestamp;

const TOPICS: u64 = 100;

fn open(dir: &TempDir, when_full: WhenFull) -> Outbox {
    let settings = Settings {
        commit: Duration::from_millis(20),
        max_size: MIN_SIZE,
        when_full,
        ..Settings::new(dir.path().join("outbox"))
    };
    Outbox::open(settings, Clock::start())
        .expect("the outbox opens")
        .0
}

/// Appends a record on each topic in turn, every tenth of them an alarm if there are to be any, and waits until they are stored.
fn append(outbox: &Outbox, numbers: std::ops::Range<u64>, has_alarms: bool) {
    for first in numbers.clone().step_by(300) {
        let chunk = first..numbers.end.min(first + 300);
        outbox.append(chunk.map(|number| {
            let topic = format!("t/{}", number % TOPICS);
            let draft = Draft::new(
                topic,
                number.to_string().into(),
                Timestamp::from_millis(number as i64),
            );
            let is_alarm = has_alarms && number.is_multiple_of(10);
            Draft {
                priority: if is_alarm {
                    Priority::High
                } else {
                    draft.priority
                },
                ..draft
            }
        }));
        let mut waits = 0;
        while outbox.ledger().pending > 0 {
            waits += 1;
            assert!(waits < 30_000, "records stay pending");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// All there is of a lane.
fn all(outbox: &Outbox, lane: Lane, number: u64) -> Vec<Arc<Record>> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    let mut waits = 0;
    while (records.len() as u64) < number {
        let batch = outbox.peek(lane, records.last().map(|it| it.id), 1_000);
        if batch.is_empty() {
            waits += 1;
            assert!(waits < 30_000, "{} of {number} came", records.len());
            std::thread::sleep(Duration::from_millis(1));
        }
        records.extend(batch);
    }
    records
}

/// How many readings these stand for.
fn readings(records: &[Arc<Record>]) -> u64 {
    let counts = records.iter();
    counts
        .map(|record| record.merged.map_or(1, |merged| merged.count))
        .sum()
}

#[test]
fn what_is_merged_again_and_again_stands_for_every_reading_after_restarts_too() {
    let dir = TempDir::new().expect("a directory");
    let normal = Lane::default();
    let mut appended = 0;
    for _ in 0..3 {
        let outbox = open(&dir, WhenFull::Thin);
        append(&outbox, appended..appended + 40_000, false);
        appended += 40_000;
        let before = outbox.close();
        let outbox = open(&dir, WhenFull::Thin);
        let ledger = outbox.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(ledger.stored, before.stored, "a restart loses nothing");
        assert_eq!(ledger.dropped, ledger.dropped_thinned, "{ledger:?}");
        assert!(ledger.disk_bytes <= MIN_SIZE, "{ledger:?}");
        let records = all(&outbox, normal, ledger.stored);
        assert_eq!(readings(&records), appended, "each reading is in one");
        let mut last: BTreeMap<&str, RecordId> = BTreeMap::new();
        for record in &records {
            let before = last.insert(&record.draft.topic, record.id);
            assert!(before < Some(record.id), "in order");
        }
        outbox.close();
    }
    let outbox = open(&dir, WhenFull::Thin);
    assert!(outbox.ledger().dropped_thinned > 10_000, "it was merged");
}

#[test]
fn alarms_stay_while_there_are_readings_to_drop() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir, WhenFull::DropOldest);
    append(&outbox, 0..90_000, true);
    outbox.close();
    let outbox = open(&dir, WhenFull::DropOldest);
    let ledger = outbox.ledger();
    assert!(ledger.balances() && ledger.dropped_overflow_disk > 20_000);
    let high = Lane {
        priority: Priority::High,
        ..Lane::default()
    };
    let alarms = all(&outbox, high, 9_000);
    assert_eq!(alarms.len(), 9_000, "all of them");
    let normal = all(&outbox, Lane::default(), ledger.stored - 9_000);
    let newest = normal.last().map(|record| record.id.seq);
    assert_eq!(newest, Some(90_000), "and the newest readings");
}
