//! Messages through five native nodes, beside a hand-written loop that does the same work on the same data.
//!
//! `cargo bench --bench engine` prints, for each of several rounds taken in turn, messages per second of both, their ratio,
//! and the allocations per message of the engine; then the medians. The work: scale, drop what is out of range, scale,
//! pass what changed by more than a dead band, aggregate into windows of event time. Both sides must come to the same
//! windows, or the benchmark ends with an error.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate::flow::{Report, Variables, check};
use tidegate::message::{Message, NodeId, Text, Timestamp, Value};
use tidegate::runtime::{Address, Effect, Engine, Event, Now};

const MESSAGES: usize = 1_000_000;
const BATCH: usize = 1_000;
const ROUNDS: usize = 7;
/// Time between two messages: 1,000 of them to a window.
const STEP: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(1);

const FLOW: &str = r#"
[nodes.source]
type = "inject"
every = "10000d"
[nodes.scale]
type = "range"
from = "source"
in = [0, 1]
out = [0, 100]
[nodes.plausible]
type = "range"
from = "scale"
in = [-40, 125]
outside = "drop"
[nodes.offset]
type = "range"
from = "plausible"
in = [0, 100]
out = [2, 102]
[nodes.changed]
type = "filter"
from = "offset"
deadband = 0.01
[nodes.second]
type = "window"
from = "changed"
size = "1s"
lateness = "0s"
[nodes.sink]
type = "debug"
from = "second"
"#;

/// Counts what the process allocates, to show that the steady state does not.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: it hands every call on to the system's allocator and adds only a count.
#[expect(
    unsafe_code,
    reason = "an allocator can only be written with unsafe code"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let input = messages();
    let mut ratios = Vec::new();
    let mut rates = (Vec::new(), Vec::new());
    println!("{MESSAGES} messages a round through scale, drop, scale, dead band, window");
    for round in 1..=ROUNDS {
        let ours = engine(&input);
        let theirs = by_hand(&input);
        assert!(
            is_same(&ours.windows, &theirs.windows),
            "both sides must do the same work"
        );
        let allocations = ours.allocations as f64 / MESSAGES as f64;
        assert!(
            allocations < 0.01,
            "the steady state must not allocate: {allocations} a message"
        );
        let ratio = ours.time.as_secs_f64() / theirs.time.as_secs_f64();
        println!(
            "round {round}: engine {:.2} M/s, loop {:.2} M/s, engine takes {ratio:.2} x the loop's time; \
             allocations per message: engine {:.4}, loop {:.4} ({} windows)",
            ours.rate() / 1e6,
            theirs.rate() / 1e6,
            allocations,
            theirs.allocations as f64 / MESSAGES as f64,
            ours.windows.len(),
        );
        ratios.push(ratio);
        rates.0.push(ours.rate() / 1e6);
        rates.1.push(theirs.rate() / 1e6);
    }
    println!(
        "median: engine {:.2} M/s, loop {:.2} M/s, ratio {:.2}",
        median(rates.0),
        median(rates.1),
        median(ratios)
    );
}

struct Outcome {
    time: Duration,
    allocations: u64,
    /// Count, mean, min, max of each window.
    windows: Vec<[f64; 4]>,
}

impl Outcome {
    fn rate(&self) -> f64 {
        MESSAGES as f64 / self.time.as_secs_f64()
    }
}

/// A slow wave with a fast one on it; about 2 % lies out of range.
fn messages() -> Vec<Message> {
    let topic: Text = "plant/s1/temperature".into();
    (0..MESSAGES)
        .map(|place| {
            let x = place as f64;
            let number = if place % 50 == 0 {
                2.0
            } else {
                0.2 + 0.1 * (x / 5_000.0).sin() + 0.01 * (x * 0.7).sin()
            };
            let time = Timestamp::default().saturating_add(STEP * place as u32);
            Message {
                topic: topic.clone(),
                payload: Value::Number(number),
                time,
                source: NodeId(0),
                headers: None,
            }
        })
        .collect()
}

fn batches(input: &[Message]) -> Vec<Vec<Message>> {
    input.chunks(BATCH).map(<[Message]>::to_vec).collect()
}

fn engine(input: &[Message]) -> Outcome {
    let mut report = Report::new("bench.toml", FLOW);
    let graph = check("bench", &Variables::default(), &mut report).expect("the flow is valid");
    let mut now = Now::default();
    let mut effects = Vec::with_capacity(16);
    let mut engine = Engine::new("bench");
    engine.add(Arc::new(graph), now, &mut effects);
    let mut windows = Vec::with_capacity(MESSAGES / 1_000 + 1);
    let batches = batches(input);

    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let start = Instant::now();
    for messages in batches {
        let to = Address {
            flow: 0,
            node: NodeId(1),
        };
        engine.handle(now, Event::Messages { to, messages }, &mut effects);
        now = now.later(STEP * BATCH as u32);
        engine.wake(now, usize::MAX, &mut effects);
        take_windows(&mut effects, &mut windows);
    }
    let time = start.elapsed();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    Outcome {
        time,
        allocations,
        windows,
    }
}

fn take_windows(effects: &mut Vec<Effect>, windows: &mut Vec<[f64; 4]>) {
    for effect in effects.drain(..) {
        if let Effect::Debug { message, .. } = effect {
            let number = |name| {
                message
                    .payload
                    .get(name)
                    .and_then(Value::as_number)
                    .expect("a window computes it")
            };
            windows.push(["count", "mean", "min", "max"].map(number));
        }
    }
}

/// The same as a programmer would write it for this one case, on the same messages.
fn by_hand(input: &[Message]) -> Outcome {
    let mut windows = Vec::with_capacity(MESSAGES / 1_000 + 1);
    let batches = batches(input);
    let mut last: HashMap<Text, f64> = HashMap::new();
    let mut end = Timestamp::default().saturating_add(WINDOW);
    let (mut count, mut sum, mut min, mut max) = (0_u64, 0.0, f64::INFINITY, f64::NEG_INFINITY);

    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let start = Instant::now();
    for messages in batches {
        for message in messages {
            let Value::Number(number) = black_box(&message).payload else {
                continue;
            };
            let scaled = 0.0 + (number - 0.0) / (1.0 - 0.0) * 100.0;
            if !(-40.0..=125.0).contains(&scaled) {
                continue;
            }
            let plausible = -40.0 + (scaled + 40.0) / 165.0 * 165.0;
            let offset = 2.0 + plausible / 100.0 * 100.0;
            match last.get_mut(&message.topic) {
                Some(last) if (offset - *last).abs() > 0.01 => *last = offset,
                Some(_) => continue,
                None => {
                    last.insert(message.topic.clone(), offset);
                }
            }
            if message.time >= end {
                close(&mut windows, (count, sum, min, max));
                (count, sum, min, max) = (0, 0.0, f64::INFINITY, f64::NEG_INFINITY);
                end = message.time.floor(WINDOW).saturating_add(WINDOW);
            }
            count += 1;
            sum += offset;
            min = offset.min(min);
            max = offset.max(max);
        }
    }
    close(&mut windows, (count, sum, min, max));
    let time = start.elapsed();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    Outcome {
        time,
        allocations,
        windows,
    }
}

fn close(windows: &mut Vec<[f64; 4]>, (count, sum, min, max): (u64, f64, f64, f64)) {
    if count > 0 {
        windows.push([count as f64, sum / count as f64, min, max]);
    }
}

/// The engine's sums carry along what rounding cuts off, so that means differ in their last digits.
fn is_same(ours: &[[f64; 4]], theirs: &[[f64; 4]]) -> bool {
    let mut numbers = ours.as_flattened().iter().zip(theirs.as_flattened());
    ours.len() == theirs.len()
        && numbers.all(|(ours, theirs)| (ours - theirs).abs() <= 1e-12 * theirs.abs())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
