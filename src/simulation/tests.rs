//! The seeds that are run, and that a seed is one history.

use std::collections::BTreeMap;
use std::ops::Range;

use super::life::{Outcome, live};
use super::plan::Plan;
use super::shrink::report;

/// What `cargo test` runs.
const SEEDS: Range<u64> = 0..2_500;

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

fn run(seeds: impl IntoIterator<Item = u64>) -> Summary {
    let mut summary = Summary::default();
    let mut failures = Vec::new();
    for seed in seeds {
        let outcome = live(&Plan::of(seed), false);
        if let Some(verdict) = &outcome.verdict {
            println!("seed {seed} fails: {verdict}");
            failures.push(seed);
            if failures.len() >= MOST_FAILURES {
                break;
            }
        }
        summary.add(&outcome);
    }
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
    let seeds = wanted().unwrap_or(SEEDS);
    if seeds.clone().count() == 1 {
        let outcome = live(&Plan::of(seeds.start), true);
        for line in &outcome.lines {
            println!("{line}");
        }
    }
    let started = std::time::Instant::now();
    let summary = run(seeds.clone());
    summary.print();
    println!("in {:.1?}", started.elapsed());
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
