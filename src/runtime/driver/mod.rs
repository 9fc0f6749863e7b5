//! Connects engines to the world: two engine threads, a thread per sensor bus, the board, the outbox.
//!
//! ```text
//! edges ----edge queue----> control thread: engine of the flows that drive a pin; owns the board
//! readings -reading queue-> data thread:    engine of all other flows
//! messages of brokers -reading queue-> control, data
//! control, data --link queue--> control, data
//! control, data --tap queue per watcher--> who watches a node
//! control, data --read queue--> sensor thread per bus
//! control, data --append--> outbox
//! control, data --state queue--> who writes what flows remember
//! who changes flows --change queue--> control, data
//! ```
//! Queues, their limits, and what happens when they are full:
//!
//! * *edge queue*, one per engine, [`EDGES`]: the edge is dropped and counted, and the engine is told the level that holds as
//!   soon as there is room;
//! * *reading queue*, one per engine, [`READINGS`]: the sensor thread waits, and so does the thread of a broker;
//! * *link queue*, one per engine, 8,192: the message is dropped and counted, and the `link out` fails;
//! * *tap queue*, one per watcher, 1,024 messages: the message is dropped for this watcher, who is told how many were;
//! * *tap requests*, one queue per engine, 16: the watcher is turned away, in words;
//! * *change queue*, one per engine, 3: one change is made at a time, and has so many steps;
//! * *state queue*, a place for each flow: a newer checkpoint takes the place of an older one;
//! * *read queue*, one per bus, 1,024 requests: the reading fails, which is counted and said;
//! * *drafts*, one per engine, 10,000: fills only while the outbox is not open; then the oldest are dropped and counted.
//!
//! Must not: block an engine thread on disk, network or console.

#[cfg(test)]
mod change_test;
mod changes;
mod flows;
mod host;
mod inputs;
mod sensors;
pub mod states;
pub mod subscribing;
pub mod taps;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use self::flows::Layout;
pub use self::flows::{ChangeError, Flows, NewFlow, Prints};
use self::host::{Host, Inbox, Rounds, Ways};
use self::sensors::{Readers, SensorThreads};
use self::states::StateQueue;
use self::subscribing::{Gate, Subscriptions};
use self::taps::{Tappable, Taps, Watchers};
use self::wiring::{Placed, Side, wanted_inputs, wanted_sensors};
use crate::board::Board;
use crate::flow::Graph;
use crate::outbox::{Draft, Outbox};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::links::{self, LinkQueue};
use crate::runtime::log::FlowLog;
use crate::runtime::realtime::Realtime;
use crate::runtime::state::Checkpoint;

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
    pub states: States,
    pub subscriptions: Box<dyn Subscriptions>,
    /// What the control thread gets.
    pub realtime: Realtime,
}

/// What flows remember, from before the start and at intervals.
pub struct States {
    /// What flows go on from, by their names.
    pub remembered: HashMap<String, Arc<Checkpoint>>,
    /// How often they are asked what they remember.
    pub every: Duration,
    /// Where it goes, if it is kept.
    pub queue: Option<StateQueue>,
}

/// Nothing from before, and nothing kept over a restart: after a panic a flow goes on from at most five minutes before.
impl Default for States {
    fn default() -> States {
        States {
            remembered: HashMap::new(),
            every: Duration::from_secs(5 * 60),
            queue: None,
        }
    }
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
    flows: Flows,
    gate: Gate,
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
            states,
            mut subscriptions,
            realtime,
        } = world;
        let counters = Arc::new(Counters::default());
        let flows = placed(flows);
        let [control, data] = Side::BOTH.map(|side| Queues::of(side, &flows));
        let ways = [control.ways.clone(), data.ways.clone()];
        let links = [control.links.clone(), data.links.clone()];

        board.set_realtime(realtime);
        let edges = [&ways[0], &ways[1]].map(|ways| ways.edges.clone());
        let wanted = wanted_inputs(&flows);
        let inputs = wiring::arm(
            board.as_mut(),
            Vec::new(),
            &wanted,
            &edges,
            &counters,
            &clock,
        );
        let mut threads = SensorThreads::new(&clock);
        let wanted = wanted_sensors(&flows);
        let opened = wanted.iter().map(|wanted| board.sensor(&wanted.spec));
        let opened = opened.collect();
        let sensors = flows::attach(&mut threads, &[], wanted, opened)?;

        let taps = Taps::new([&control, &data].map(|queues| {
            let flows = on_side(&flows, queues.side).map(|flow| (flow.place, flow.graph.clone()));
            Tappable::new(flows.collect(), queues.tap_requests.clone())
        }));
        let engines = [&control, &data].map(|queues| queues.requests.clone());
        let start = |name, board, queues: Queues| {
            let side = queues.side;
            let own: BTreeMap<u32, Arc<Graph>> = on_side(&flows, side)
                .map(|flow| (flow.place, flow.graph.clone()))
                .collect();
            let kept = own.iter().filter_map(|(place, graph)| {
                let kept = states.remembered.get(&**graph.name())?;
                Some((*place, kept.clone()))
            });
            let mut readers = Readers::new(queues.ways.readings.clone());
            let own_sensors = sensors.iter().filter(|(of, ..)| *of == side);
            readers.set(
                own_sensors
                    .map(|(_, node, it)| (*node, it.clone()))
                    .collect(),
            );
            let own_inputs = inputs.iter().filter(|(of, _)| *of == side);
            let beats = Arc::new(AtomicU64::new(0));
            let host = Host {
                side,
                log: FlowLog::new(&own),
                kept: kept.collect(),
                places: 0,
                rounds: Rounds::new(states.every, states.queue.clone(), &clock),
                flows: own,
                device: device.clone(),
                clock: clock.clone(),
                outbox: outbox.clone(),
                counters: counters.clone(),
                board,
                inputs: own_inputs.map(|(_, input)| input.clone()).collect(),
                readers,
                inbox: queues.inbox,
                backlog: VecDeque::new(),
                ways: ways.clone(),
                links: links.clone(),
                watchers: Watchers::default(),
                effects: Vec::new(),
                drafts: VecDeque::new(),
                unmet: BTreeMap::new(),
                beats: beats.clone(),
                missed: 0,
            };
            let thread = spawn(name, move || {
                if side == Side::Control
                    && let Err(error) = realtime.raise_this_thread()
                {
                    tracing::warn!("{error}");
                }
                host.run()
            })?;
            Ok::<_, ThreadError>(EngineThread {
                stop: queues.stop,
                beats,
                thread,
            })
        };
        let control = start("control", Some(board), control)?;
        let data = start("data", None, data)?;
        let readings = ways.map(|ways| ways.readings);
        let gate = subscriptions.gate();
        subscriptions.set(wiring::routes(&flows, &readings));
        let layout = Layout {
            subscriptions,
            readings,
            inputs: inputs.into_iter().map(|(_, input)| input).collect(),
            sensors: sensors.into_iter().map(|(_, _, sensor)| sensor).collect(),
            threads,
            engines,
            taps: taps.clone(),
            prints: tokio::sync::watch::Sender::new(flows::prints(&flows)),
            flows,
        };
        Ok(Driver {
            control,
            data,
            flows: Flows::new(layout),
            gate,
            counters,
            taps,
        })
    }

    /// How to watch what nodes send.
    pub fn taps(&self) -> &Taps {
        &self.taps
    }

    /// How to change the flows.
    pub fn flows(&self) -> &Flows {
        &self.flows
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
            flows,
            gate,
            ..
        } = self;
        // The engines handle what has passed; no more is taken from a broker that could keep it.
        gate.close();
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
        flows.stop();
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

/// Gives flows their first places: in each engine from 0 on.
fn placed(flows: Vec<Arc<Graph>>) -> Vec<Placed> {
    let mut next = [0; 2];
    let placed = flows.into_iter().map(|graph| {
        let side = Side::of(&graph);
        let place = next[side.index()];
        next[side.index()] += 1;
        Placed { side, place, graph }
    });
    placed.collect()
}

fn on_side(flows: &[Placed], side: Side) -> impl Iterator<Item = &Placed> {
    flows.iter().filter(move |flow| flow.side == side)
}

/// Both ends of the queues of one engine.
struct Queues {
    side: Side,
    inbox: Inbox,
    ways: Ways,
    links: LinkQueue,
    tap_requests: Sender<taps::Watcher>,
    requests: Sender<changes::Request>,
    stop: Sender<Infallible>,
}

impl Queues {
    fn of(side: Side, flows: &[Placed]) -> Queues {
        let (edges, edge_queue) = bounded(EDGES);
        let (readings, reading_queue) = bounded(READINGS);
        let own = on_side(flows, side).map(|flow| (flow.place, &*flow.graph));
        let (links, linked) = LinkQueue::with_ends(side.name(), Arc::new(links::ends(own)));
        let (tap_requests, watchers) = bounded(taps::MOST_TAPS);
        // Who makes a change bounds it. A bounded channel would keep what is in it when its engine ends, and that is waited for.
        let (requests, changes) = unbounded();
        let (stop, stopped): (_, Receiver<Infallible>) = bounded(0);
        Queues {
            side,
            inbox: Inbox {
                edges: edge_queue,
                readings: reading_queue,
                linked,
                watchers,
                requests: changes,
                stop: stopped,
            },
            ways: Ways { edges, readings },
            links,
            tap_requests,
            requests,
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
