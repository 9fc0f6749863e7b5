//! Connects engines to the world: two engine threads, a thread per sensor bus, the board, the outbox.
//!
//! ```text
//! edges ----edge queue----> control thread: engine of the flows that drive a pin; owns the board
//! readings -reading queue-> data thread:    engine of all other flows
//! control, data --link queue--> control, data
//! control, data --tap queue per watcher--> who watches a node
//! control, data --read queue--> sensor thread per bus
//! control, data --append--> outbox
//! ```
//! Queues, their limits, and what happens when they are full:
//!
//! * *edge queue*, one per engine, [`EDGES`]: the edge is dropped and counted, and the engine is told the level that holds as
//!   soon as there is room;
//! * *reading queue*, one per engine, [`READINGS`]: the sensor thread waits;
//! * *link queue*, one per engine, 8,192: the message is dropped and counted, and the `link out` fails;
//! * *tap queue*, one per watcher, 1,024 messages: the message is dropped for this watcher, who is told how many were;
//! * *tap requests*, one queue per engine, 16: the watcher is turned away, in words;
//! * *read queue*, one per bus, 1,024 requests: the reading fails, which is counted and said;
//! * *drafts*, one per engine, 10,000: fills only while the outbox is not open; then the oldest are dropped and counted.
//!
//! Must not: block an engine thread on disk, network or console.

mod host;
mod inputs;
mod sensors;
pub mod taps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

use self::host::{Host, Inbox};
use self::inputs::ArmedInput;
use self::sensors::{Attached, Buses, SensorThreads};
use self::taps::{Tappable, Taps, Watcher, Watchers};
use crate::board::Board;
use crate::flow::Graph;
use crate::nodes::Use;
use crate::outbox::{Draft, Outbox};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::engine::Event;
use crate::runtime::links::LinkQueue;
use crate::runtime::log::FlowLog;
use crate::runtime::node::Address;

/// Edges that wait for one engine.
const EDGES: usize = 8_192;
/// Readings that wait for one engine.
const READINGS: usize = 1_024;

/// What flows reach of the world.
pub struct World {
    pub device: String,
    pub clock: Clock,
    pub board: Box<dyn Board>,
    pub outbox: LateOutbox,
}

/// The outbox, which may not be open yet: flows run without it.
#[derive(Clone, Default)]
pub struct LateOutbox(Arc<OnceLock<(Outbox, u64)>>);

impl LateOutbox {
    pub fn get(&self) -> Option<&Outbox> {
        self.0.get().map(|(outbox, _)| outbox)
    }

    /// The epoch of this start; 0 while the outbox is not open.
    pub fn epoch(&self) -> u64 {
        self.0.get().map_or(0, |(_, epoch)| *epoch)
    }

    /// Gives it to the flows. A second one is not taken.
    pub fn set(&self, outbox: Outbox) {
        let epoch = outbox.epoch();
        if self.0.set((outbox, epoch)).is_err() {
            tracing::error!("an outbox was opened twice; the second one is not used");
        }
    }
}

/// Running flows. They stop when this is dropped; [`Driver::stop`] also waits for it.
pub struct Driver {
    control: EngineThread,
    data: EngineThread,
    sensors: SensorThreads,
    counters: Arc<Counters>,
    taps: Taps,
}

/// How flows ended.
#[derive(Debug, Default)]
pub struct Stopped {
    /// Whether the board has taken the safe level of every output.
    pub outputs_are_safe: bool,
    /// What was to be delivered while the outbox was not open.
    pub drafts: Vec<Draft>,
}

/// A thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread `{name}`; is the limit of threads or memory reached?")]
pub struct ThreadError {
    name: String,
    source: std::io::Error,
}

struct EngineThread {
    /// The thread stops when this is dropped.
    stop: Sender<Infallible>,
    beats: Arc<AtomicU64>,
    thread: JoinHandle<Stopped>,
}

impl Driver {
    /// Starts all flows. A flow whose pins or sensors are not to be had runs all the same; what it lacks fails, in words.
    pub fn start(flows: Vec<Arc<Graph>>, world: World) -> Result<Driver, ThreadError> {
        let World {
            device,
            clock,
            mut board,
            outbox,
        } = world;
        let counters = Arc::new(Counters::default());
        let (control, data): (Vec<_>, Vec<_>) =
            flows.into_iter().partition(|flow| flow.is_control());
        let mut connections = Connections {
            clock: &clock,
            counters: &counters,
            buses: Buses::default(),
        };
        let to_control = connections.connect(&control, board.as_mut(), sensors::Engine::Control);
        let to_data = connections.connect(&data, board.as_mut(), sensors::Engine::Data);
        let (sensors, control_readers, data_readers) = connections.buses.start(&clock)?;
        let links = [to_control.links.clone(), to_data.links.clone()];
        let taps = Taps::new([(&control, &to_control), (&data, &to_data)].map(
            |(flows, connected)| Tappable {
                flows: flows.clone(),
                requests: connected.watchers.clone(),
            },
        ));

        let start = |name, flows: Vec<Arc<Graph>>, board, readers, connected| {
            let beats = Arc::new(AtomicU64::new(0));
            let Connected {
                inputs,
                inbox,
                stop,
                ..
            } = connected;
            let host = Host {
                log: FlowLog::new(&flows),
                flows,
                device: device.clone(),
                clock: clock.clone(),
                outbox: outbox.clone(),
                counters: counters.clone(),
                board,
                inputs,
                readers,
                inbox,
                links: links.clone(),
                watchers: Watchers::default(),
                drafts: VecDeque::new(),
                unmet: BTreeMap::new(),
                beats: beats.clone(),
                missed: 0,
            };
            let thread = spawn(name, move || host.run())?;
            Ok::<_, ThreadError>(EngineThread {
                stop,
                beats,
                thread,
            })
        };
        let control = start("control", control, Some(board), control_readers, to_control)?;
        let data = start("data", data, None, data_readers, to_data)?;
        Ok(Driver {
            control,
            data,
            sensors,
            counters,
            taps,
        })
    }

    /// How to watch what nodes send.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Counts up while an engine thread is alive and not stuck: control, data.
    pub fn beats(&self) -> [Arc<AtomicU64>; 2] {
        [self.control.beats.clone(), self.data.beats.clone()]
    }

    /// Stops all flows and waits for it, control first; what flows wanted to deliver is in the outbox, if that is open.
    pub fn stop(self) -> Stopped {
        let Driver {
            control,
            data,
            sensors,
            ..
        } = self;
        let mut stopped = Stopped {
            outputs_are_safe: true,
            drafts: Vec::new(),
        };
        for EngineThread { stop, thread, .. } in [control, data] {
            drop(stop);
            let one = thread.join().unwrap_or_default();
            stopped.outputs_are_safe &= one.outputs_are_safe;
            stopped.drafts.extend(one.drafts);
        }
        sensors.stop();
        stopped
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ThreadError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| ThreadError {
            name: name.to_owned(),
            source,
        })
}

/// An engine's ends of its connections, and what others need to reach it.
struct Connected {
    inputs: Vec<ArmedInput>,
    inbox: Inbox,
    links: LinkQueue,
    watchers: Sender<Watcher>,
    stop: Sender<Infallible>,
}

/// Arms inputs and opens sensors. What cannot be had is logged, once; the node that wanted it fails whenever it asks.
struct Connections<'a> {
    clock: &'a Clock,
    counters: &'a Arc<Counters>,
    buses: Buses,
}

impl Connections<'_> {
    fn connect(
        &mut self,
        flows: &[Arc<Graph>],
        board: &mut dyn Board,
        engine: sensors::Engine,
    ) -> Connected {
        let (edges, edge_queue) = bounded(EDGES);
        let (readings, reading_queue) = bounded(READINGS);
        let (links, linked) = LinkQueue::new(engine.name(), flows);
        let (watchers, tap_requests) = bounded(taps::MOST_TAPS);
        let (stop, stopped) = bounded(0);
        let mut inputs = Vec::new();
        for (index, flow) in flows.iter().enumerate() {
            let index = u32::try_from(index).expect("fewer than 2^32 flows fit into memory");
            for (node, needed) in flow.uses() {
                let address = Address { flow: index, node };
                let problem = match needed {
                    Use::Output { .. } => continue,
                    Use::Input { pin, pull } => {
                        let (edges, counters) = (edges.clone(), self.counters.clone());
                        ArmedInput::arm(board, *pin, *pull, address, edges, counters, self.clock)
                            .map(|input| inputs.push(input))
                    }
                    Use::Sensor(spec) => board.sensor(spec).map(|sensor| {
                        let attached = Attached {
                            address,
                            sensor,
                            readings: Sender::<Event>::clone(&readings),
                        };
                        self.buses.attach(spec.bus(), engine, attached);
                    }),
                };
                if let Err(error) = problem {
                    let (flow, node) = (flow.name(), flow.node_name(node));
                    tracing::error!("flow `{flow}`, node `{node}`: {}", chain(&error));
                }
            }
        }
        Connected {
            inputs,
            inbox: Inbox {
                edges: edge_queue,
                readings: reading_queue,
                linked,
                watchers: tap_requests,
                stop: stopped,
            },
            links,
            watchers,
            stop,
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
