//! Random readings through the node, against results computed from lists of readings, without any art.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{Timestamp, Value};
use crate::nodes::testing::Run;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as i64
    }

    fn number(&mut self, style: i64) -> f64 {
        let fraction = self.below(1 << 40) as f64 / (1_u64 << 40) as f64 - 0.5;
        match style {
            0 => self.below(7) as f64 - 3.0,
            1 => 20.0 + fraction,
            2 => 21.5,
            // Huge and tiny ones by turns.
            _ => fraction * 10_f64.powi(self.below(5) as i32 * 40 - 80),
        }
    }
}

#[derive(Clone, Copy)]
struct Reading {
    /// Milliseconds.
    time: i64,
    key: usize,
    value: f64,
}

/// A window with what it has, by definition.
struct Expected {
    /// The order of results: by end, then those that time ends, then keys or messages as they came.
    order: (i64, bool, usize),
    start: i64,
    key: usize,
    readings: Vec<Reading>,
    /// The value from before the window.
    held: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Aligned {
        size: i64,
        hop: i64,
    },
    Sliding {
        size: i64,
    },
    Session {
        gap: i64,
        longest: i64,
    },
    Count {
        count: usize,
    },
    /// Of the value's sign.
    State {
        longest: i64,
    },
}

impl Kind {
    fn options(self) -> String {
        match self {
            Kind::Aligned { size, hop } if size == hop => format!("size = '{size}ms'"),
            Kind::Aligned { size, hop } => {
                format!("kind = 'hopping'\nsize = '{size}ms'\nhop = '{hop}ms'")
            }
            Kind::Sliding { size } => format!("kind = 'sliding'\nsize = '{size}ms'"),
            Kind::Session { gap, longest } => {
                format!("kind = 'session'\ngap = '{gap}ms'\nlongest = '{longest}ms'")
            }
            Kind::Count { count } => format!("kind = 'count'\ncount = {count}"),
            Kind::State { longest } => {
                format!("kind = 'state'\nstate = 'payload < 0'\nlongest = '{longest}ms'")
            }
        }
    }

    /// The windows of one key's readings, which come in the order of time with their places among all.
    fn windows(self, readings: &[(usize, Reading)], rank: usize) -> Vec<Expected> {
        let key = readings[0].1.key;
        let all = || readings.iter().map(|(_, reading)| *reading);
        let before = |start: i64| all().take_while(|r| r.time < start).last().map(|r| r.value);
        let expected = |order, start, readings, held| Expected {
            order,
            start,
            key,
            readings,
            held,
        };
        match self {
            Kind::Aligned { size, hop } => {
                let mut windows = BTreeMap::<i64, Vec<Reading>>::new();
                for reading in all() {
                    let mut start = reading.time.div_euclid(hop) * hop;
                    while start + size > reading.time {
                        windows.entry(start).or_default().push(reading);
                        start -= hop;
                    }
                }
                let windows = windows.into_iter();
                let windows = windows.map(|(start, readings)| {
                    expected((start + size, false, rank), start, readings, before(start))
                });
                windows.collect()
            }
            Kind::Sliding { size } => {
                let windows = readings.iter().enumerate().map(|(place, (came, last))| {
                    let start = last.time - size;
                    let taken = all().take(place + 1);
                    let window = taken.filter(|reading| reading.time > start).collect();
                    expected((last.time, true, *came), start, window, before(start + 1))
                });
                windows.collect()
            }
            _ => {
                let mut windows = Vec::new();
                let mut open: Vec<Reading> = Vec::new();
                let end = |open: &[Reading]| match self {
                    Kind::Session { gap, longest } => {
                        (open[open.len() - 1].time + gap).min(open[0].time + longest)
                    }
                    Kind::State { longest } => open[0].time + longest,
                    _ => i64::MAX,
                };
                let mut close = |order, open: &mut Vec<Reading>| {
                    let start = open[0].time;
                    windows.push(expected(order, start, std::mem::take(open), None));
                };
                for (came, reading) in readings {
                    if !open.is_empty() && end(&open) <= reading.time {
                        close((end(&open), false, rank), &mut open);
                    }
                    let changes = |open: &[Reading]| (open[0].value < 0.0) != (reading.value < 0.0);
                    if matches!(self, Kind::State { .. }) && !open.is_empty() && changes(&open) {
                        close((reading.time, true, *came), &mut open);
                    }
                    open.push(*reading);
                    if matches!(self, Kind::Count { count } if open.len() == count) {
                        close((reading.time, true, *came), &mut open);
                    }
                }
                if !open.is_empty() && end(&open) < i64::MAX {
                    close((end(&open), false, rank), &mut open);
                }
                windows
            }
        }
    }
}

const ANY_ORDER: &[&str] = &[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "range",
    "first",
    "last",
    "stddev",
    "variance",
    "slope",
    "p10",
    "median",
    "p99.9",
    "distinct",
    "histogram(-1, 0, 20)",
];
const IN_ORDER: &[&str] = &[
    "time_weighted_mean",
    "duration_above(0)",
    "duration_below(20)",
    "slope",
    "count",
];

impl Expected {
    /// The statistic, and how far off it may be.
    fn statistic(&self, name: &str) -> (Value, f64) {
        let values: Vec<f64> = self.readings.iter().map(|reading| reading.value).collect();
        let count = values.len() as f64;
        let largest = values
            .iter()
            .chain(&self.held)
            .fold(0.0, |max: f64, v| max.max(v.abs()));
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let sum = |terms: &mut dyn Iterator<Item = f64>| {
            let mut terms: Vec<f64> = terms.collect();
            terms.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
            terms.iter().sum::<f64>()
        };
        let mean = sum(&mut values.iter().copied()) / count;
        let squares = sum(&mut values.iter().map(|value| (value - mean).powi(2)));
        let rank = |percent: f64| sorted[((count - 1.0) * percent / 100.0) as usize].into();
        let close = largest * 1e-12;
        match name {
            "count" => (count.into(), 0.0),
            "sum" => ((mean * count).into(), close * count),
            "mean" => (mean.into(), close),
            "min" => (sorted[0].into(), 0.0),
            "max" => (sorted[sorted.len() - 1].into(), 0.0),
            "range" => ((sorted[sorted.len() - 1] - sorted[0]).into(), 0.0),
            "first" => (values[0].into(), 0.0),
            "last" => (values[values.len() - 1].into(), 0.0),
            "stddev" | "variance" if values.len() < 2 => (Value::Null, 0.0),
            "variance" => ((squares / (count - 1.0)).into(), close * largest),
            // Of equal readings, what is left of rounding is the root of very little.
            "stddev" => ((squares / (count - 1.0)).sqrt().into(), largest * 1e-6),
            "slope" => self.slope(mean, largest),
            "p10" => (rank(10.0), 0.0),
            "median" => (rank(50.0), 0.0),
            "p99.9" => (rank(99.9), 0.0),
            "distinct" => {
                sorted.dedup();
                ((sorted.len() as f64).into(), 0.0)
            }
            "histogram(-1, 0, 20)" => {
                let edges = [f64::NEG_INFINITY, -1.0, 0.0, 20.0, f64::INFINITY];
                let counts = edges.windows(2).map(|edges| {
                    let between = values.iter().filter(|v| edges[0] <= **v && **v < edges[1]);
                    Value::Number(between.count() as f64)
                });
                (Value::List(counts.collect::<Vec<_>>().into()), 0.0)
            }
            "time_weighted_mean" => self.time_weighted(|value| value, close, true),
            "duration_above(0)" => self.time_weighted(|v| f64::from(v > 0.0), 1e-9, false),
            "duration_below(20)" => self.time_weighted(|v| f64::from(v < 20.0), 1e-9, false),
            other => panic!("{other}"),
        }
    }

    fn slope(&self, mean: f64, largest: f64) -> (Value, f64) {
        let origin = self.readings[0].time;
        let count = self.readings.len() as f64;
        let seconds = |reading: &Reading| (reading.time - origin) as f64 / 1000.0;
        let mean_time = self.readings.iter().map(seconds).sum::<f64>() / count;
        let parts = self.readings.iter().map(|reading| {
            let apart = seconds(reading) - mean_time;
            (apart * apart, apart * (reading.value - mean))
        });
        let (squares, products) =
            parts.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let is_one_time = self.readings.iter().all(|reading| reading.time == origin);
        if is_one_time {
            return (Value::Null, 0.0);
        }
        let bound = largest * 1e-9 * count / squares.sqrt();
        ((products / squares).into(), bound)
    }

    fn time_weighted(&self, of: fn(f64) -> f64, close: f64, is_mean: bool) -> (Value, f64) {
        let end = self.order.0;
        let held = self.held.map(|held| (self.start, held));
        let steps = self
            .readings
            .iter()
            .map(|reading| (reading.time, reading.value));
        let steps: Vec<(i64, f64)> = held.into_iter().chain(steps).collect();
        let ends = steps.iter().skip(1).map(|(time, _)| *time).chain([end]);
        let (mut total, mut seconds) = (0.0, 0.0);
        for ((time, value), end) in steps.iter().zip(ends) {
            let span = (end - time) as f64 / 1000.0;
            total += of(*value) * span;
            seconds += span;
        }
        let result = match is_mean {
            true if seconds == 0.0 => steps[steps.len() - 1].1,
            true => total / seconds,
            false => total,
        };
        (result.into(), close * 10.0)
    }
}

fn check(kind: Kind, compute: &[&str], seed: u64) {
    let mut random = Random(seed);
    let (has_keys, style) = (seed.is_multiple_of(2), random.below(4));
    let lateness = [0, 50, 700][random.below(3) as usize];
    let names: Vec<String> = compute.iter().map(|name| format!("'{name}'")).collect();
    let mut run = Run::new(&format!(
        "type = 'window'\n{}\ncompute = [{}]\nlateness = '{lateness}ms'\n{}",
        kind.options(),
        names.join(", "),
        if has_keys { "by = 'topic'" } else { "" },
    ));
    // Around 1970, so that times before it are among them.
    run.now.wall = Timestamp::from_millis(-20_000);
    let mut readings = Vec::new();
    let mut now = -20_000;
    let steps = random.below(600);
    let restart = random.below(600);
    for step in 0..steps {
        now += match random.below(20) {
            0 => random.below(9_000),
            1..10 => random.below(100),
            _ => 0,
        };
        let reading = Reading {
            time: now - random.below(lateness + 1),
            key: if has_keys {
                random.below(5) as usize
            } else {
                0
            },
            value: random.number(style),
        };
        run.go_on_until(Timestamp::from_millis(now));
        if step == restart {
            run.restart(Duration::ZERO);
        }
        run.deliver_on(
            &format!("k{}", reading.key),
            Timestamp::from_millis(reading.time),
            reading.value.into(),
        );
        readings.push(reading);
    }
    run.go_on_until(Timestamp::from_millis(now + 1_000_000));

    let mut by_key: Vec<Vec<(usize, Reading)>> = Vec::new();
    let mut in_order: Vec<Reading> = readings.clone();
    in_order.sort_by_key(|reading| reading.time);
    for first in &readings {
        if by_key.iter().all(|key| key[0].1.key != first.key) {
            let of_key = in_order.iter().copied().enumerate();
            by_key.push(
                of_key
                    .filter(|(_, reading)| reading.key == first.key)
                    .collect(),
            );
        }
    }
    let windows = by_key.iter().enumerate();
    let windows = windows.flat_map(|(rank, readings)| kind.windows(readings, rank));
    let mut windows: Vec<Expected> = windows.collect();
    windows.sort_by_key(|window| window.order);

    let what = format!("{kind:?}, seed {seed}, lateness {lateness}");
    let failures = run.sent.len() - run.messages.len();
    assert_eq!(failures, 0, "{what}: {:?}", run.sent);
    assert_eq!(run.messages.len(), windows.len(), "{what}");
    for (place, (sent, expected)) in run.messages.iter().zip(&windows).enumerate() {
        let what = format!("{what}, result {place}: {}", sent.payload);
        let time = |ms| Value::from(&*Timestamp::from_millis(ms).to_string());
        assert_eq!(
            sent.time,
            Timestamp::from_millis(expected.order.0),
            "{what}"
        );
        assert_eq!(
            sent.payload.get("end"),
            Some(&time(expected.order.0)),
            "{what}"
        );
        assert_eq!(
            sent.payload.get("start"),
            Some(&time(expected.start)),
            "{what}"
        );
        assert_eq!(*sent.topic, format!("k{}", expected.key), "{what}");
        let key = has_keys.then(|| Value::from(&*format!("k{}", expected.key)));
        assert_eq!(sent.payload.get("key"), key.as_ref(), "{what}");
        for name in compute {
            let (wanted, bound) = expected.statistic(name);
            let found = sent.payload.get(name).expect("it was asked for");
            let is_right = match (found, &wanted) {
                (Value::Number(found), Value::Number(wanted)) => (found - wanted).abs() <= bound,
                _ => *found == wanted,
            };
            assert!(is_right, "{what}: {name} is {found}, not {wanted}");
        }
    }
}

#[test]
fn random_readings_have_the_results_of_the_definition() {
    let kinds = [
        Kind::Aligned {
            size: 1000,
            hop: 1000,
        },
        Kind::Aligned {
            size: 1000,
            hop: 250,
        },
        Kind::Aligned {
            size: 700,
            hop: 300,
        },
        Kind::Aligned { size: 1, hop: 1 },
        Kind::Sliding { size: 1000 },
        Kind::Sliding { size: 20_000 },
        // More than two blocks of readings between two cuts.
        Kind::Sliding { size: 60_000 },
        Kind::Session {
            gap: 150,
            longest: 1_000,
        },
        Kind::Session {
            gap: 60,
            longest: 60,
        },
        Kind::Count { count: 1 },
        Kind::Count { count: 7 },
        Kind::State { longest: 500 },
        Kind::State { longest: 100_000 },
    ];
    for kind in kinds {
        // Each of a hundred reloads makes a sandbox for the script of `state`, which takes its time.
        let seeds = match kind {
            Kind::State { .. } => 2,
            _ => 4,
        };
        for seed in 0..seeds {
            check(kind, ANY_ORDER, seed);
            check(kind, IN_ORDER, seed + 100);
        }
    }
}
