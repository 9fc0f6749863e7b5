//! The seeds that are run, and that a seed is one history.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::life::{Outcome, live};
use super::plan::Plan;
use super::shrink::report;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..2_000;

/// How often a long run says that it is still there.
const PROGRESS_EVERY: u64 = 10_000;

/// What every long run has to have seen.
const KINDS_OF_HITS: [&str; 27] = [
    "removed generation back",
    "unsynced write lost",
    "torn write",
    "flipped byte",
    "write error",
    "disk full",
    "stop in the midst of a write",
    "slow sync",
    "read error",
    "failed sync",
    "outbox does not open",
    "no answer to a connect",
    "refused",
    "sent into a half-open connection",
    "connection dropped",
    "PUBACK for a connection that is gone",
    "slow broker",
    "late packet of an old connection",
    "broker dies before it acknowledges",
    "broker does not acknowledge",
    "PUBACK out of order",
    "PUBACK repeated",
    "PUBACK with a wrong id",
    "clock forward",
    "clock back",
    "dead letter",
    "dropped: disk",
];

#[derive(Default)]
struct Summary {
    seeds: u64,
    records: usize,
    deliveries: usize,
    duplicates: usize,
    lost_with_crashes: usize,
    hits: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.records += outcome.records;
        self.deliveries += outcome.deliveries;
        self.duplicates += outcome.duplicates;
        self.lost_with_crashes += outcome.lost_with_crashes;
        for (what, count) in &outcome.hits {
            *self.hits.entry(what).or_default() += count;
        }
    }

    fn print(&self) {
        println!(
            "{} seeds: {} records, {} deliveries, {} of them duplicates; {} lost with crashes before they were accepted",
            self.seeds, self.records, self.deliveries, self.duplicates, self.lost_with_crashes
        );
        for (what, count) in &self.hits {
            println!("{count:>12}  {what}");
        }
    }
}

/// Of more failures than these the rest is not looked for.
const MOST_FAILURES: usize = 20;

/// Runs seeds, on so many threads: each has lives of its own, which know nothing of it.
fn run(seeds: Range<u64>, threads: usize) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let shared = Mutex::new((Summary::default(), BTreeSet::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = live(&Plan::of(seed), false);
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let (summary, failures) = &mut *shared;
            summary.add(&outcome);
            if summary.seeds.is_multiple_of(PROGRESS_EVERY) {
                eprintln!("{} seeds of {}", summary.seeds, seeds.end - seeds.start);
            }
            if let Some(verdict) = &outcome.verdict {
                println!("seed {seed} fails: {verdict}");
                failures.insert(seed);
                if failures.len() >= MOST_FAILURES {
                    next.store(seeds.end, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let (summary, failures) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = failures.first() {
        panic!("\n{}", report(&Plan::of(*first)));
    }
    summary
}

/// A number, or a range of them, as `SEED=7` and `SEEDS=0..100` give them.
fn wanted() -> Option<Range<u64>> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("SEED") {
        let seed = number(&seed);
        return Some(seed..seed + 1);
    }
    let seeds = std::env::var("SEEDS").ok()?;
    let (from, to) = seeds.split_once("..").expect("SEEDS=FROM..TO");
    Some(number(from)..number(to))
}

#[test]
fn nothing_is_lost_whatever_happens() {
    let wanted = wanted();
    let seeds = wanted.clone().unwrap_or(SEEDS);
    if seeds.end - seeds.start == 1 {
        for line in live(&Plan::of(seeds.start), true).lines {
            println!("{line}");
        }
    }
    // Other tests want the other cores.
    let threads = match wanted {
        Some(_) => std::thread::available_parallelism().map_or(1, usize::from),
        None => 1,
    };
    let started = Instant::now();
    let summary = run(seeds, threads);
    summary.print();
    let took = started.elapsed().as_secs_f64();
    println!(
        "in {took:.1} s: {:.0} lives a second",
        summary.seeds as f64 / took
    );
    if summary.seeds >= SEEDS.end {
        for kind in KINDS_OF_HITS {
            let count = summary.hits.get(kind).copied().unwrap_or(0);
            assert!(count > 0, "too peaceful: {kind} has not happened");
        }
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let hash = || live(&Plan::of(seed), false).hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
