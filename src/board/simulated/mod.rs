//! Simulated hardware: inputs with signals, a cold store that answers to its cooling, and a few more quantities.
//!
//! Everything is a function of the seed, the outputs and the time that is passed in: the same of these gives the same
//! edges and readings. Nothing here sleeps. Under virtual time [`Simulated::advance`] moves it on; [`RealTime`] does so from a
//! thread.
//!
//! Must not: read a clock (but for `RealTime`); tell anyone that it is real.

mod quantities;
mod realtime;
mod signal;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use self::quantities::{ColdStore, SimulatedWorld};
use self::signal::Timeline;
use super::{Board, BoardError, Drive, Edge, EdgeSink, Level, Pin, Pull};
use crate::message::Timestamp;
use crate::runtime::clock::Now;
use crate::sensors::{Sensor, SensorSpec};

pub use realtime::RealTime;
pub use signal::Signal;

/// What the simulated board simulates.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simulation {
    /// Where noise and jitter start from: the same seed gives the same values at the same times.
    pub seed: u64,
    /// What drives each input, by pin. An input without a signal shows what its pull makes of it, low without one.
    pub inputs: BTreeMap<Pin, Signal>,
    /// The output that cools the cold store while it is high, or with its duty. Without one the store only warms up.
    pub cooling_pin: Option<Pin>,
}

/// A simulated board under virtual time.
pub struct Simulated {
    now: Now,
    parts: Parts,
}

/// What a simulated board drives its outputs with. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Arc<Mutex<BTreeMap<Pin, Drive>>>);

/// All of it but the time, which each call passes.
struct Parts {
    seed: u64,
    signals: BTreeMap<Pin, Signal>,
    armed: BTreeMap<Pin, Armed>,
    outputs: Outputs,
    cooling_pin: Option<Pin>,
    store: SharedStore,
}

struct Armed {
    timeline: Timeline,
    edges: EdgeSink,
}

/// The cold store, which the sensors in it and the cooling output share. Held for a few multiplications only.
#[derive(Clone)]
struct SharedStore(Arc<Mutex<ColdStore>>);

impl SharedStore {
    fn lock(&self) -> MutexGuard<'_, ColdStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulated {
    pub fn new(simulation: &Simulation) -> Result<Simulated, BoardError> {
        for (&pin, signal) in &simulation.inputs {
            signal
                .check()
                .map_err(|reason| BoardError::Signal { pin, reason })?;
        }
        Ok(Simulated {
            now: Now::default(),
            parts: Parts {
                seed: simulation.seed,
                signals: simulation.inputs.clone(),
                armed: BTreeMap::new(),
                outputs: Outputs::default(),
                cooling_pin: simulation.cooling_pin,
                store: SharedStore(Arc::new(Mutex::new(ColdStore::default()))),
            },
        })
    }

    /// What the outputs are driven with, to look at while the board is elsewhere.
    pub fn outputs(&self) -> Outputs {
        self.parts.outputs.clone()
    }

    /// When the next edge of an armed input is due, as monotonic time.
    pub fn next_edge(&self) -> Option<Duration> {
        self.parts.next_edge()
    }

    /// Gives an input a level, from now on, in the place of what drives it. If the other one was there and the input is armed, that is an
    /// edge, which is handed over.
    pub fn set_input(&mut self, pin: Pin, level: Level) {
        let time = self.now.wall;
        if let Some(edges) = self.parts.set_input(pin, level, self.now.mono) {
            edges(Edge { pin, level, time });
        }
    }

    /// Moves on to `now` and hands over the edges that were due until then, each with its own time, in order of time.
    pub fn advance(&mut self, now: Now) {
        self.now = now;
        loop {
            let due = self.parts.due(now);
            if due.is_empty() {
                break;
            }
            for (edges, edge) in due {
                edges(edge);
            }
        }
    }
}

/// Its times are those of the last [`Simulated::advance`].
impl Board for Simulated {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        self.parts.drive(pin, drive, self.now);
        Ok(())
    }

    fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        Ok(self.parts.arm(pin, pull, edges, self.now))
    }

    fn close_input(&mut self, pin: Pin) {
        self.parts.armed.remove(&pin);
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        self.parts.sensor(spec)
    }
}

const NAME: &str = "simulated";

impl Parts {
    /// The cold store begins now.
    fn begin(&self, now: Now) {
        self.store.lock().begin(now.mono);
    }

    fn drive(&self, pin: Pin, drive: Drive, now: Now) {
        if self.cooling_pin == Some(pin) {
            self.store.lock().set_cooling(drive.duty(), now.mono);
        }
        self.outputs.lock().insert(pin, drive);
    }

    fn arm(&mut self, pin: Pin, pull: Pull, edges: EdgeSink, now: Now) -> Level {
        let unconnected = Signal::Level {
            high: pull == Pull::Up,
        };
        let signal = self.signals.get(&pin).copied().unwrap_or(unconnected);
        let timeline = Timeline::from(signal, self.seed, pin, now.mono);
        let level = timeline.level();
        self.armed.insert(pin, Armed { timeline, edges });
        level
    }

    /// Who gets the edge, if there is one.
    fn set_input(&mut self, pin: Pin, level: Level, mono: Duration) -> Option<EdgeSink> {
        let signal = Signal::Level {
            high: level.is_high(),
        };
        self.signals.insert(pin, signal);
        let armed = self.armed.get_mut(&pin)?;
        let before = armed.timeline.level();
        armed.timeline = Timeline::from(signal, self.seed, pin, mono);
        (before != level).then(|| armed.edges.clone())
    }

    fn sensor(&self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        let world = SimulatedWorld::new(self.seed, self.store.clone());
        Ok(spec.simulate(Arc::new(world)))
    }

    fn next_edge(&self) -> Option<Duration> {
        let next = self
            .armed
            .values()
            .filter_map(|input| input.timeline.next());
        next.min()
    }

    /// The first edges up to `now` in order of time, and who gets them; empty once there are no more.
    fn due(&mut self, now: Now) -> Vec<(EdgeSink, Edge)> {
        let mut due = Vec::new();
        while due.len() < MOST_AT_ONCE {
            let armed = self.armed.iter_mut();
            let next =
                armed.min_by_key(|(_, input)| input.timeline.next().unwrap_or(Duration::MAX));
            let Some((&pin, input)) = next else { break };
            let Some((mono, level)) = input.timeline.pop_until(now.mono) else {
                break;
            };
            let time = wall_at(mono, now);
            due.push((input.edges.clone(), Edge { pin, level, time }));
        }
        due
    }
}

/// After a long step of time, edges are handed over in slices of this many, so that memory stays bounded.
const MOST_AT_ONCE: usize = 1024;

/// Live time at a monotonic time that is not after `now`.
fn wall_at(mono: Duration, now: Now) -> Timestamp {
    let ago = i64::try_from(now.mono.saturating_sub(mono).as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(now.wall.as_nanos().saturating_sub(ago))
}

impl Outputs {
    /// The level that is driven; nothing if the pin is no output or has pulses.
    pub fn level(&self, pin: Pin) -> Option<Level> {
        self.lock().get(&pin).and_then(|drive| drive.level())
    }

    /// Every output and what it is driven with.
    pub fn drives(&self) -> BTreeMap<Pin, Drive> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pin, Drive>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
