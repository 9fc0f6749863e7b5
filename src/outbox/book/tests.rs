//! The books against cases, and against random walks with a disk in memory.

use bytes::Bytes;

use super::room::Victim;
use super::*;
use crate::outbox::record::{Merged, Priority};

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    commit: SECOND,
    commit_bytes: 8 * 1024,
    max_pending: 20 * 1024,
    when_full: WhenFull::DropOldest,
};

fn draft(bytes: usize) -> Draft {
    Draft::new(
        "t".to_owned(),
        Bytes::from(vec![b'1'; bytes]),
        Timestamp::default(),
    )
}

fn id(seq: u64) -> RecordId {
    RecordId { epoch: 1, seq }
}

const LANE: Lane = Lane::ALL[3];

fn key(seq: u64) -> Key {
    Key {
        lane: LANE,
        id: id(seq),
    }
}

fn book(limits: Limits) -> Book {
    Book::open(limits, 1, Snapshot::default())
}

/// A group that was found, with these seqs of epoch 1.
fn found(generation: u32, first: u64, last: u64) -> FoundGroup {
    FoundGroup {
        place: Place {
            generation,
            lane: LANE,
            first: id(first),
        },
        runs: vec![(first, last)],
        bytes: 0,
        expires_at: None,
    }
}

fn seqs(records: &[Arc<Record>]) -> Vec<u64> {
    records.iter().map(|record| record.id.seq).collect()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_commit_is_due_before_the_oldest_record_is_an_interval_old() {
    let mut book = book(LIMITS);
    assert_eq!(book.due(), None);
    book.append(draft(10), ms(5_000));
    book.append(draft(10), ms(5_500));
    assert_eq!(book.due(), Some(ms(5_750)));
    book.acknowledge(key(1), ms(5_600));
    assert_eq!(book.due(), Some(ms(6_250)), "the younger one decides now");
    book.acknowledge(key(2), ms(5_600));
    assert_eq!(book.due(), None, "nothing is left to write");
}

#[test]
fn a_commit_is_due_at_once_when_half_the_memory_is_used() {
    let mut book = book(LIMITS);
    for _ in 0..3 {
        book.append(draft(4_000), ms(5_000));
    }
    assert_eq!(book.due(), Some(Duration::ZERO));
}

#[test]
fn full_memory_drops_by_policy() {
    let check = |when_full, kept: &[u64]| {
        let mut book = book(Limits {
            when_full,
            ..LIMITS
        });
        for _ in 0..6 {
            book.append(draft(5_000), ms(0));
        }
        book.append(draft(30_000), ms(0));
        let ledger = book.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(ledger.dropped_overflow_memory, 7 - kept.len() as u64);
        assert_eq!(ledger.accepted, ledger.dropped);
        assert_eq!(seqs(&book.peek(LANE, None, 10, Now::default())), kept);
    };
    // The last one is larger than all of the memory: it goes, whatever the policy, and takes no other with it.
    check(WhenFull::DropOldest, &[4, 5, 6]);
    check(WhenFull::DropNewest, &[1, 2, 3]);
}

#[test]
fn what_is_acknowledged_while_it_is_written_is_settled_on_disk_later() {
    let mut book = book(LIMITS);
    book.append(draft(10), ms(0));
    book.append(draft(10), ms(0));
    let commit = book.begin(vec![]);
    book.acknowledge(key(1), ms(10));
    assert_eq!(
        (
            commit.snapshot.ledger.accepted,
            commit.snapshot.ledger.stored
        ),
        (2, 2)
    );
    assert!(commit.snapshot.ledger.balances());
    book.committed(commit, 1, 0, ms(20));
    let ledger = book.ledger();
    assert_eq!(
        (ledger.acknowledged, ledger.stored, ledger.pending),
        (1, 1, 0)
    );
    assert_eq!(
        book.due(),
        Some(ms(1_020)),
        "the disk still shows it as stored"
    );
    let commit = book.begin(vec![1]);
    assert!(commit.settled.is_empty() && commit.groups.is_empty());
    assert!(commit.snapshot.settled.contains(key(1)));
}

#[test]
fn a_generation_may_go_only_when_the_commit_says_it_is_settled() {
    let mut book = book(LIMITS);
    book.append(draft(10), ms(0));
    let commit = book.begin(vec![]);
    book.committed(commit, 1, 0, ms(0));
    let commit = book.begin(vec![1]);
    book.acknowledge(key(1), ms(0));
    assert!(
        commit.settled.is_empty(),
        "it was not settled when the commit began"
    );
    book.committed(commit, 2, 0, ms(0));
    assert_eq!(book.begin(vec![1, 2]).settled, [1, 2]);
}

#[test]
fn a_group_given_up_does_not_come_back_after_a_restart() {
    let mut book = book(LIMITS);
    for _ in 0..4 {
        book.append(draft(4_000), ms(0));
        let commit = book.begin(vec![]);
        book.committed(commit, 1, 0, ms(0));
    }
    assert_eq!(
        book.drop_group(
            Place {
                generation: 1,
                lane: LANE,
                first: id(3)
            },
            ms(0)
        ),
        1
    );
    let ledger = book.ledger();
    assert!(ledger.balances() && ledger.dropped_damaged == 1);
    assert_eq!(seqs(&book.peek(LANE, None, 10, Now::default())), [1, 2, 4]);
    let settled = book.begin(vec![]).snapshot.settled;
    assert!(settled.contains(key(3)) && !settled.contains(key(4)));
}

#[test]
fn what_a_failed_commit_may_have_left_on_disk_is_settled_there() {
    let mut book = book(LIMITS);
    book.append(draft(10), ms(0));
    let commit = book.begin(vec![]);
    book.failed(commit, ms(10));
    book.acknowledge(key(1), ms(20));
    assert!(book.is_dirty(), "a clean stop has to say it");
    assert!(book.begin(vec![]).snapshot.settled.contains(key(1)));
}

#[test]
fn acknowledging_what_is_not_there_does_nothing() {
    let mut book = book(LIMITS);
    book.append(draft(10), ms(0));
    for other in [
        id(0),
        id(2),
        RecordId { epoch: 0, seq: 1 },
        RecordId { epoch: 9, seq: 1 },
    ] {
        book.acknowledge(
            Key {
                lane: LANE,
                id: other,
            },
            ms(0),
        );
    }
    book.acknowledge(key(1), ms(0));
    book.acknowledge(key(1), ms(0));
    let ledger = book.ledger();
    assert_eq!(
        (ledger.accepted, ledger.acknowledged, ledger.pending),
        (1, 1, 0)
    );
}

#[test]
fn a_record_found_in_two_generations_counts_once() {
    let mut book = book(LIMITS);
    assert_eq!(book.found(&found(2, 3, 9)), Some(7));
    assert_eq!(book.found(&found(1, 1, 2)), Some(2));
    assert_eq!(book.found(&found(1, 3, 5)), None);
    assert_eq!(book.found(&found(1, 6, 9)), None);
    book.reconcile(0, ms(0));
    assert_eq!(book.ledger().stored, 9);
}

/// A pseudo-random sequence from a seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// A disk in memory: what it holds is what a reopened book gets. By generation: its last snapshot and its groups.
#[derive(Default)]
struct Disk(BTreeMap<u32, (Snapshot, Groups)>);

type Groups = BTreeMap<RecordId, Vec<Arc<Record>>>;

impl Disk {
    fn write(&mut self, commit: &Commit, generation: u32) {
        let (snapshot, groups) = self.0.entry(generation).or_default();
        *snapshot = commit.snapshot.clone();
        for records in &commit.groups {
            groups.insert(records[0].id, records.clone());
        }
    }

    fn read(&self, place: Place) -> Vec<Arc<Record>> {
        self.0[&place.generation].1[&place.first].clone()
    }

    fn open(&self, limits: Limits, epoch: u64, now: Duration) -> Book {
        let newest_first = || self.0.iter().rev();
        let mut last = Snapshot::default();
        for (_, (snapshot, _)) in newest_first() {
            if snapshot.ledger.commits > last.ledger.commits {
                last = snapshot.clone();
            }
        }
        let accepted = last.ledger.accepted;
        let mut book = Book::open(limits, epoch, last);
        for (generation, (_, groups)) in newest_first() {
            for (first, records) in groups {
                let found = FoundGroup::new(*generation, records).expect("it is not empty");
                assert_eq!(found.place.first, *first);
                book.found(&found);
            }
        }
        assert_eq!(book.reconcile(0, now), 0, "nothing is missing");
        assert_eq!(
            book.ledger().accepted,
            accepted,
            "and nothing was there twice"
        );
        book
    }
}

/// Whatever happens in whatever order, the ledger adds up, nothing is shown that is settled, and all that is live
/// is shown, in order.
#[test]
fn a_random_walk_keeps_every_record_accounted_for() {
    for seed in 1..=60 {
        println!("seed {seed}");
        walk(seed);
    }
}

fn walk(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let when_full = [WhenFull::DropOldest, WhenFull::DropNewest][random.below(2) as usize];
    let limits = Limits {
        when_full,
        ..LIMITS
    };
    let (mut now, mut epoch, mut generation) = (ms(0), 1, 1);
    let mut disk = Disk::default();
    let mut book = book(limits);
    let mut commit: Option<Commit> = None;
    let (mut gone, mut has_failed) = (BTreeSet::new(), false);
    for _ in 0..600 {
        now += ms(random.below(300));
        match random.below(12) {
            0..=3 => {
                for _ in 0..random.below(12) {
                    let lane = Lane::ALL[random.below(6) as usize];
                    let draft = Draft {
                        priority: lane.priority,
                        live_first: lane.live_first,
                        ..draft(random.below(900) as usize)
                    };
                    book.append(draft, now);
                }
            }
            4..=6 => {
                let seen = book.peek(
                    Lane::ALL[random.below(6) as usize],
                    None,
                    40,
                    Now::default(),
                );
                for record in &seen {
                    assert!(!gone.contains(&record.id), "{:?} came back", record.id);
                    if random.below(3) > 0 {
                        book.acknowledge(record.key(), now);
                        gone.insert(record.id);
                    }
                }
                if let Some(record) = seen.last() {
                    book.dead_letter(record.key(), "test", now, Timestamp::default());
                    gone.insert(record.id);
                }
            }
            7 | 8 if commit.is_none() => commit = Some(book.begin((1..=generation).collect())),
            7..=9 => {
                if let Some(commit) = commit.take() {
                    match random.below(6) {
                        0 => book.failed(commit, now),
                        // It failed, but it is on disk all the same.
                        1 => {
                            disk.write(&commit, generation);
                            generation += 1;
                            book.failed(commit, now);
                            // What follows a failure is tried again before anything is refused.
                            has_failed = true;
                        }
                        2 if !has_failed => book.refuse(commit),
                        _ => {
                            generation += u32::from(random.below(3) == 0);
                            disk.write(&commit, generation);
                            disk.0
                                .retain(|of, _| !commit.settled.contains(of) || *of == generation);
                            book.committed(commit, generation, 1, now);
                            has_failed = false;
                        }
                    }
                }
            }
            10 if random.below(4) == 0 => {
                let oldest = book.groups().map(|(place, _)| place.generation).min();
                book.drop_generation(oldest.unwrap_or(1), Reason::OverflowDisk, now);
            }
            // A crash: back to what the disk holds. What it forgot may be sent again.
            11 if random.below(4) == 0 => {
                epoch += 1;
                commit = None;
                gone.clear();
                book = disk.open(limits, epoch, now);
            }
            _ => {}
        }
        check_book(&mut book, &disk, seed);
    }
}

fn check_book(book: &mut Book, disk: &Disk, seed: u64) {
    let ledger = book.ledger();
    assert!(ledger.balances(), "seed {seed}: {ledger:?}");
    assert_eq!(
        ledger.pending,
        book.pending_in_order().count() as u64,
        "seed {seed}"
    );
    assert!(book.pending_bytes <= book.limits.max_pending, "seed {seed}");
    assert!(book.loaded_bytes <= READ_AHEAD_BYTES, "seed {seed}");
    let mut all = 0;
    for lane in Lane::ALL {
        let mut seen = Vec::new();
        loop {
            let batch = book.peek(lane, seen.last().copied(), 17, Now::default());
            assert!(batch.iter().all(|record| record.draft.lane() == lane));
            seen.extend(batch.iter().map(|record| record.id));
            if let Some(place) = book.wanted() {
                book.load(place, disk.read(place));
            } else if batch.is_empty() {
                break;
            }
        }
        assert!(
            seen.is_sorted_by(|a, b| a < b),
            "seed {seed}: in order, none twice"
        );
        all += seen.len() as u64;
    }
    assert_eq!(all, ledger.stored + ledger.pending, "seed {seed}: all live");
}

#[test]
fn what_is_least_goes_first_when_memory_is_full() {
    let of = |priority| Draft {
        priority,
        ..draft(5_000)
    };
    let left = |book: &Book| -> Vec<u64> {
        book.pending_in_order()
            .map(|record| record.id.seq)
            .collect()
    };
    let mut book = book(LIMITS);
    for priority in [Priority::High, Priority::Low, Priority::Normal] {
        book.append(of(priority), ms(0));
    }
    book.append(of(Priority::Normal), ms(0));
    assert_eq!(left(&book), [1, 3, 4], "the low one");
    book.append(of(Priority::High), ms(0));
    assert_eq!(left(&book), [1, 4, 5], "the older of the normal ones");
    book.append(of(Priority::Low), ms(0));
    assert_eq!(
        left(&book),
        [1, 4, 5],
        "itself, as what is there is worth more"
    );
    assert!(book.ledger().balances());
}

#[test]
fn what_follows_a_failed_commit_counts_as_newer() {
    // The commit may have reached the disk before it failed. Two snapshots of one age could not be told apart.
    let mut book = book(LIMITS);
    book.append(draft(10), ms(0));
    let commit = book.begin(vec![]);
    let tried = commit.snapshot.ledger.commits;
    book.failed(commit, ms(5));
    book.acknowledge(key(1), ms(10));
    assert!(book.begin_without_records(vec![]).snapshot.ledger.commits > tried);
}

#[test]
fn what_has_expired_is_dropped_when_it_is_about_to_be_sent() {
    let check = |clock_ms: i64, expected: &[u64]| {
        let mut book = book(LIMITS);
        for (time_ms, expires) in [(0, Some(ms(500))), (0, None), (100, Some(ms(500)))] {
            let draft = Draft {
                expires,
                time: Timestamp::from_millis(time_ms),
                ..draft(10)
            };
            book.append(draft, ms(0));
        }
        let now = Now {
            mono: ms(600),
            wall: Timestamp::from_millis(clock_ms),
        };
        assert_eq!(
            seqs(&book.peek(LANE, None, 10, now)),
            expected,
            "{clock_ms}"
        );
        let ledger = book.ledger();
        assert_eq!(ledger.dropped_expired, 3 - expected.len() as u64);
        assert!(ledger.balances(), "{ledger:?}");
    };
    check(499, &[1, 2, 3]);
    check(500, &[2, 3]);
    check(600, &[2]);
    // A clock that is behind the record is not believed.
    check(-1_000_000, &[1, 2, 3]);
}

/// A device without a battery for its clock starts an hour behind, and is set then.
#[test]
fn what_was_stamped_before_the_clock_was_set_gets_its_time_and_does_not_expire_for_that() {
    let mut book = book(LIMITS);
    let minute = Duration::from_secs(60);
    let draft = || Draft {
        expires: Some(10 * minute),
        ..draft(10)
    };
    let set_after = Now::default().later(minute);
    book.append(draft(), ms(0));
    book.restamp(60 * minute, set_after.mono);
    book.append(
        Draft {
            time: set_after.wall.saturating_add(60 * minute),
            ..draft()
        },
        set_after.mono,
    );
    let hour_later = |span: Duration| Now {
        mono: span,
        wall: Timestamp::default().saturating_add(60 * minute + span),
    };
    let times = |book: &mut Book, now| {
        let records = book.peek(LANE, None, 10, now);
        let minutes = records
            .iter()
            .map(|it| it.draft.time.as_nanos() / 60_000_000_000);
        minutes.collect::<Vec<i64>>()
    };
    assert_eq!(times(&mut book, hour_later(2 * minute)), [60, 61]);
    assert_eq!(times(&mut book, hour_later(2 * minute)), [60, 61], "once");
    let commit = book.begin(vec![]);
    let (snapshot, records) = (commit.snapshot.clone(), commit.groups[0].clone());
    book.committed(commit, 1, 0, ms(0));
    assert_eq!(book.drop_expired_groups(hour_later(10 * minute)), 0);

    // After a restart, too.
    let mut book = Book::open(LIMITS, 2, snapshot);
    let group = FoundGroup::new(1, &records).expect("there are some");
    book.found(&group);
    book.reconcile(0, ms(0));
    book.load(group.place, records);
    assert_eq!(times(&mut book, hour_later(10 * minute - ms(1))), [60, 61]);
    assert_eq!(times(&mut book, hour_later(10 * minute)), [61]);
    assert_eq!(book.ledger().dropped_expired, 1);
}

#[test]
fn what_follows_a_row_of_expired_records_is_shown_at_once() {
    let mut book = book(LIMITS);
    for expires in [Some(ms(1)), Some(ms(1)), Some(ms(1)), None] {
        let draft = Draft {
            expires,
            ..draft(10)
        };
        book.append(draft, ms(0));
    }
    let now = Now {
        mono: ms(9),
        wall: Timestamp::from_millis(9),
    };
    assert_eq!(seqs(&book.peek(LANE, None, 2, now)), [4]);
}

/// Merged records with these seqs, each of which stands for the last 15 of its topic, of which there are as many: so what one group
/// stands for overlaps with what others hold.
fn merged(seqs: std::ops::RangeInclusive<u64>) -> Vec<Arc<Record>> {
    let record = |seq| {
        let mut record = Record::new(id(seq), draft(10));
        record.merged = Some(Merged {
            from: id(seq - 100),
            count: 16,
        });
        Arc::new(record)
    };
    seqs.map(record).collect()
}

#[test]
fn what_was_carried_over_in_part_is_there_once_after_a_restart() {
    let mut book = book(LIMITS);
    let original = [found(1, 201, 210), found(1, 211, 220), found(1, 221, 230)];
    for group in &original {
        book.found(group);
    }
    book.reconcile(0, ms(0));
    let mut last = None;
    for (generation, group, seqs) in [(2, &original[0], 201..=210), (3, &original[1], 211..=220)] {
        let commit = book.begin_moving(
            vec![group.place],
            vec![merged(seqs)],
            Some(0),
            vec![1, 2, 3],
        );
        last = Some(commit.snapshot.clone());
        book.committed(commit, generation, 0, ms(0));
    }
    let later = book.begin(vec![1, 2, 3]).snapshot;
    for snapshot in [last.expect("the last commit"), later] {
        let mut book = Book::open(LIMITS, 2, snapshot);
        let live = [
            book.found(&found(3, 211, 220)),
            book.found(&found(2, 201, 210)),
            book.found(&original[2]),
            book.found(&original[1]),
            book.found(&original[0]),
        ];
        assert_eq!(live, [Some(10), Some(10), Some(10), None, None]);
        assert_eq!(book.reconcile(0, ms(0)), 0);
    }
}

#[test]
fn what_was_merged_into_others_stays_done_with_once_those_are_delivered() {
    let mut book = book(LIMITS);
    let original = [found(1, 1, 16), found(1, 17, 32)];
    for group in &original {
        book.found(group);
    }
    book.reconcile(0, ms(0));
    let to_sixteen = merged(116..=116).into_iter().map(|record| {
        let mut record = Record::clone(&record);
        record.id = id(16);
        Arc::new(record)
    });
    let rows = vec![to_sixteen.collect()];
    let commit = book.begin_moving(vec![original[0].place], rows, Some(15), vec![1]);
    book.committed(commit, 2, 0, ms(0));
    book.acknowledge(key(16), ms(0));
    // The second generation goes, and the first is still being emptied.
    let snapshot = book.begin(vec![1, 3]).snapshot;
    let mut book = Book::open(LIMITS, 2, snapshot);
    assert_eq!(book.found(&original[1]), Some(16));
    assert_eq!(book.found(&original[0]), None);
}

/// Where lanes take turns, what is settled in one of them is still said briefly.
#[test]
fn what_is_settled_in_turns_with_other_lanes_is_one_range() {
    let mut book = book(LIMITS);
    let other = |number: u64| {
        let priority = Priority::High;
        let is_other = !number.is_multiple_of(3);
        Draft {
            priority: if is_other {
                priority
            } else {
                draft(10).priority
            },
            ..draft(10)
        }
    };
    book.found(&found(1, 1, 5));
    book.reconcile(0, ms(0));
    book.last_seq = 100;
    for number in 0..30 {
        book.append(other(number), ms(0));
    }
    let mine = || (101..=130).filter(|seq: &u64| (seq - 101).is_multiple_of(3));
    let check = |book: &Book, ranges: usize, what: &str| {
        let settled = &book.lanes[LANE.index()].settled;
        assert_eq!(settled.ranges(), ranges, "{what}: {settled:?}");
        let settled = |seq| book.lanes[LANE.index()].settled.contains(id(seq));
        assert!((1..=5).all(|seq| !settled(seq)), "{what}");
    };
    for seq in mine().take(4) {
        book.acknowledge(key(seq), ms(0));
    }
    check(&book, 1, "in order");
    book.acknowledge(key(119), ms(0));
    check(&book, 2, "beyond one that is pending");
    assert!(!book.lanes[LANE.index()].settled.contains(id(113)));
    let commit = book.begin(vec![1]);
    book.committed(commit, 2, 0, ms(0));
    book.acknowledge(key(122), ms(0));
    check(&book, 3, "of a group that has live ones");
    for seq in mine() {
        book.acknowledge(key(seq), ms(0));
    }
    check(&book, 1, "all of the group");
}

/// Three generations of a full outbox: alarms and readings in the oldest, readings in the second, low ones in the third.
fn three_generations() -> Book {
    let mut book = book(LIMITS);
    for (generation, seq, priority) in [
        (3, 5, Priority::Low),
        (2, 3, Priority::Normal),
        (1, 1, Priority::High),
        (1, 2, Priority::Normal),
    ] {
        let mut group = found(generation, seq, seq);
        group.place.lane.priority = priority;
        book.found(&group);
    }
    book.reconcile(0, ms(0));
    book
}

#[test]
fn of_a_full_outbox_the_oldest_of_the_lowest_priority_goes_first() {
    let mut book = three_generations();
    let check = |book: &Book, writer, generation, priority, has_rest| {
        let expected = Victim {
            generation,
            priority,
            has_rest,
        };
        assert_eq!(book.victim(writer), Some(expected));
    };
    check(&book, Some(4), 3, Priority::Low, false);
    check(&book, Some(3), 1, Priority::Normal, true);
    book.drop_generation(3, Reason::OverflowDisk, ms(0));
    let victim = book.victim(None).expect("there is one");
    assert_eq!((victim.generation, victim.has_rest), (1, true));
    assert_eq!(book.drop_priority(victim, ms(0)), 1);
    check(&book, None, 2, Priority::Normal, false);
    book.drop_generation(2, Reason::OverflowDisk, ms(0));
    check(&book, None, 1, Priority::High, false);
    assert_eq!(book.victim(Some(1)), None);
    let ledger = book.ledger();
    assert_eq!((ledger.stored, ledger.dropped_overflow_disk), (1, 3));
}

#[test]
fn what_is_too_little_to_free_room_by_itself_goes_with_the_next_priority() {
    let check = |low: u64, normal: u64, high: u64, priority, has_rest| {
        let mut book = book(LIMITS);
        let numbers = [
            (Priority::Low, low),
            (Priority::Normal, normal),
            (Priority::High, high),
        ];
        let mut seq = 0;
        for (priority, number) in numbers {
            for _ in 0..number {
                seq += 1;
                let mut group = found(1, seq, seq);
                group.place.lane.priority = priority;
                book.found(&group);
            }
        }
        book.reconcile(0, ms(0));
        let victim = book.victim(None).expect("there is one");
        assert_eq!((victim.priority, victim.has_rest), (priority, has_rest));
        let goes = numbers.iter().filter(|(it, _)| *it <= priority);
        let goes: u64 = goes.map(|(_, number)| number).sum();
        assert_eq!(book.drop_priority(victim, ms(0)), goes);
    };
    check(1, 3, 4, Priority::Low, true);
    check(1, 3, 5, Priority::Normal, true);
    check(1, 0, 7, Priority::Low, true);
    check(1, 0, 8, Priority::High, false);
    check(0, 1, 0, Priority::Normal, false);
}

#[test]
fn a_group_goes_once_all_of_it_has_expired() {
    let check = |clock_ms: i64, dropped: u64| {
        let mut book = book(LIMITS);
        for (seq, expires_ms) in [(1, Some(500)), (2, Some(501)), (3, None)] {
            let expires_at = expires_ms.map(Timestamp::from_millis);
            book.found(&FoundGroup {
                expires_at,
                ..found(1, seq, seq)
            });
        }
        book.reconcile(0, ms(0));
        let now = Now {
            mono: ms(0),
            wall: Timestamp::from_millis(clock_ms),
        };
        assert_eq!(book.drop_expired_groups(now), dropped, "{clock_ms}");
        assert_eq!(book.ledger().dropped_expired, dropped);
    };
    check(499, 0);
    check(500, 1);
    check(501, 2);
    check(i64::MAX / 1_000_000, 2);
}
