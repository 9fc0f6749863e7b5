//! A board whose edges the benchmark makes, and which notes when an output changes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate::board::{
    Board, BoardError, Drive, Edge, EdgeSink, Level, Missing, Pin, Pull, Sensor,
};
use tidegate::runtime::clock::Clock;
use tidegate::sensors::SensorSpec;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    edges: Option<EdgeSink>,
    changes: Vec<Instant>,
}

/// One input and one output.
pub(super) struct Pins {
    watched: Pin,
    shared: Shared,
}

/// Makes the edges.
pub(super) struct Stopwatch {
    clock: Clock,
    shared: Shared,
}

impl Pins {
    pub(super) fn new(watched: Pin, clock: &Clock) -> (Pins, Stopwatch) {
        let shared = Shared::default();
        let stopwatch = Stopwatch {
            clock: clock.clone(),
            shared: shared.clone(),
        };
        (Pins { watched, shared }, stopwatch)
    }
}

impl Board for Pins {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn output(&mut self, pin: Pin, _: Drive) -> Result<(), BoardError> {
        let now = Instant::now();
        if pin == self.watched {
            self.shared
                .0
                .lock()
                .expect("nobody panics")
                .changes
                .push(now);
        }
        Ok(())
    }

    fn input(&mut self, _: Pin, _: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        self.shared.0.lock().expect("nobody panics").edges = Some(edges);
        Ok(Level::Low)
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        Missing::new("none".into()).sensor(spec)
    }
}

impl Stopwatch {
    /// Edges 0.5 to 3.5 ms apart, whether the output keeps up or not; how long it took for each.
    pub(super) fn measure(&self, pin: u8, length: Duration) -> Vec<Duration> {
        let pin = Pin::new(pin).expect("it is a pin");
        let sink = {
            let mut state = self.shared.0.lock().expect("nobody panics");
            state.changes.clear();
            state.edges.clone().expect("a flow has armed it")
        };
        let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut made = Vec::new();
        let end = Instant::now() + length;
        let mut due = Instant::now();
        while due < end {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let level = Level::from(made.len() % 2 == 0);
            let time = self.clock.now().wall;
            made.push(Instant::now());
            sink(Edge { pin, level, time });
            // Knuth's multiplier for 64 bits.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            due += Duration::from_micros(500 + (random >> 33) % 3_000);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let changes = loop {
            let changes = self.shared.0.lock().expect("nobody panics").changes.clone();
            if changes.len() >= made.len() || Instant::now() > deadline {
                break changes;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(changes.len(), made.len(), "each edge has its output");
        let pairs = made.iter().zip(&changes);
        pairs.map(|(made, changed)| *changed - *made).collect()
    }
}
