//! A simulated board under real time: a thread waits for each edge and hands it over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{NAME, Outputs, Parts, Simulated};
use crate::board::{Board, BoardError, Drive, EdgeSink, Level, Pin, Pull};
use crate::runtime::clock::Clock;
use crate::sensors::{Sensor, SensorSpec};

/// A simulated board that runs by the clock. Its thread ends when it is dropped.
pub struct RealTime {
    clock: Clock,
    shared: Arc<Shared>,
    outputs: Outputs,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Woken when an input was armed or the thread is to stop.
    changed: Condvar,
}

struct State {
    parts: Parts,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RealTime {
    pub fn start(board: Simulated, clock: &Clock) -> Result<RealTime, BoardError> {
        const THREAD: &str = "simulated-edges";
        let outputs = board.outputs();
        board.parts.begin(clock.now());
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                parts: board.parts,
                stop: false,
            }),
            changed: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn({
                let (shared, clock) = (shared.clone(), clock.clone());
                move || hand_over_edges(&shared, &clock)
            })
            .map_err(|source| BoardError::Thread {
                name: THREAD,
                source,
            })?;
        Ok(RealTime {
            clock: clock.clone(),
            shared,
            outputs,
            thread: Some(thread),
        })
    }

    /// What the outputs are driven with, to look at while the board is elsewhere.
    pub fn outputs(&self) -> Outputs {
        self.outputs.clone()
    }
}

impl Board for RealTime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        let now = self.clock.now();
        self.shared.lock().parts.drive(pin, drive, now);
        Ok(())
    }

    fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        let level = {
            let mut state = self.shared.lock();
            let now = self.clock.now();
            state.parts.arm(pin, pull, edges, now)
        };
        self.shared.changed.notify_one();
        Ok(level)
    }

    fn close_input(&mut self, pin: Pin) {
        self.shared.lock().parts.armed.remove(&pin);
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        self.shared.lock().parts.sensor(spec)
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has already said so, and there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

fn hand_over_edges(shared: &Shared, clock: &Clock) {
    let mut state = shared.lock();
    while !state.stop {
        let now = clock.now();
        let due = state.parts.due(now);
        if !due.is_empty() {
            // Sinks are strangers: they are called without the lock.
            drop(state);
            for (edges, edge) in due {
                edges(edge);
            }
            state = shared.lock();
            continue;
        }
        state = match state.parts.next_edge() {
            Some(next) => {
                let span = next.saturating_sub(now.mono);
                shared
                    .changed
                    .wait_timeout(state, span)
                    .map(|(state, _)| state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner().0)
            }
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}
