//! Runs flows on a simulated board without waiting: the time of each event is the time it is due.
//!
//! The same flows on the same board with the same seed do the same, to the last bit; an hour takes milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::board::{Board, BoardError, Drive, Edge, Level, Pin, Simulated};
use crate::flow::Graph;
use crate::message::{Message, Timestamp};
use crate::nodes::Use;
use crate::outbox::Draft;
use crate::runtime::clock::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::sensors::Sensor;

/// What flows did, each with the time at which they did it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// What went to the outbox.
    pub drafts: Vec<(Timestamp, Draft)>,
    /// What `debug` nodes showed, with their labels.
    pub shown: Vec<(Timestamp, String, Message)>,
    /// What outputs were driven with.
    pub outputs: Vec<(Timestamp, Pin, Drive)>,
    /// What nodes could not handle, as `flow/node: reason`.
    pub failures: Vec<(Timestamp, String)>,
    /// Panics that stopped a flow.
    pub panics: Vec<(Timestamp, String)>,
}

/// Flows under virtual time.
pub struct VirtualRun {
    engine: Engine,
    board: Simulated,
    sensors: HashMap<Address, Box<dyn Sensor>>,
    /// The level of each input and the time of its edge.
    levels: HashMap<Address, (Timestamp, Level)>,
    edges: Arc<Mutex<Vec<(Address, Edge)>>>,
    now: Now,
    trace: Trace,
}

impl VirtualRun {
    /// Starts flows at `start` on a simulated board.
    pub fn start(
        device: &str,
        flows: Vec<Arc<Graph>>,
        mut board: Simulated,
        start: Timestamp,
    ) -> Result<VirtualRun, BoardError> {
        let now = Now {
            mono: Duration::ZERO,
            wall: start,
        };
        board.advance(now);
        let edges = Arc::<Mutex<Vec<(Address, Edge)>>>::default();
        let mut sensors = HashMap::new();
        let mut levels = HashMap::new();
        for (index, flow) in flows.iter().enumerate() {
            let index = u32::try_from(index).expect("fewer than 2^32 flows fit into memory");
            for (node, needed) in flow.uses() {
                let address = Address { flow: index, node };
                match needed {
                    Use::Output { .. } => {}
                    Use::Input { pin, pull } => {
                        let edges = edges.clone();
                        let sink = move |edge| {
                            edges
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push((address, edge))
                        };
                        let level = board.input(*pin, *pull, Arc::new(sink))?;
                        levels.insert(address, (start, level));
                    }
                    Use::Sensor(spec) => {
                        sensors.insert(address, board.sensor(spec)?);
                    }
                }
            }
        }
        let engine = Engine::new(device);
        let mut run = VirtualRun {
            engine,
            board,
            sensors,
            levels,
            edges,
            now,
            trace: Trace::default(),
        };
        let mut effects = Effects::new();
        for flow in flows {
            run.engine.add(flow, now, &mut effects);
            run.perform(&mut effects);
        }
        Ok(run)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.mono + span;
        let mut effects = Effects::new();
        loop {
            let next = [self.engine.next_wake(), self.board.next_edge()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.later(next.saturating_sub(self.now.mono));
            self.board.advance(self.now);
            let edges =
                std::mem::take(&mut *self.edges.lock().unwrap_or_else(PoisonError::into_inner));
            for (to, edge) in edges {
                self.levels.insert(to, (edge.time, edge.level));
                let input = Input::Edge {
                    time: edge.time,
                    level: edge.level,
                };
                self.engine
                    .handle(self.now, Event::Input { to, input }, &mut effects);
                self.perform(&mut effects);
            }
            self.engine.wake(self.now, usize::MAX, &mut effects);
            self.perform(&mut effects);
        }
        self.now = self.now.later(end.saturating_sub(self.now.mono));
        self.board.advance(self.now);
    }

    /// What has happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Stops the flows, which puts their outputs to their safe level, and gives what has happened.
    pub fn stop(mut self) -> Trace {
        let mut effects = Effects::new();
        self.engine.stop(&mut effects);
        self.perform(&mut effects);
        self.trace
    }

    fn perform(&mut self, effects: &mut Effects) {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            let time = self.now.wall;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Output { pin, drive } => {
                        self.board
                            .output(pin, drive)
                            .expect("a simulated output takes everything");
                        self.trace.outputs.push((time, pin, drive));
                    }
                    Effect::ReadSensor { from } => {
                        let sensor = self
                            .sensors
                            .get_mut(&from)
                            .expect("every sensor was opened at the start");
                        let value = sensor.read(self.now).map_err(|error| error.to_string());
                        answers.push(Event::Input {
                            to: from,
                            input: Input::Reading { time, value },
                        });
                    }
                    Effect::ReadLevel { from } => {
                        let (time, level) = self.levels[&from];
                        answers.push(Event::Input {
                            to: from,
                            input: Input::Edge { time, level },
                        });
                    }
                    Effect::Uplink { draft } => self.trace.drafts.push((time, draft)),
                    Effect::Debug { label, message, .. } => {
                        self.trace.shown.push((time, label.to_string(), message))
                    }
                    Effect::Failed { from, reason } => {
                        let place = self.place(from);
                        self.trace
                            .failures
                            .push((time, format!("{place}: {reason}")));
                    }
                    Effect::FlowStopped { panic, .. } => self.trace.panics.push((time, panic)),
                    Effect::FlowRestarted { .. } | Effect::Tapped { .. } => {}
                }
            }
            for answer in answers {
                self.engine.handle(self.now, answer, effects);
            }
        }
    }

    fn place(&self, address: Address) -> String {
        let flow = self
            .engine
            .graphs()
            .nth(address.flow as usize)
            .expect("an address names a flow of this engine");
        format!("{}/{}", flow.name(), flow.node_name(address.node))
    }
}
