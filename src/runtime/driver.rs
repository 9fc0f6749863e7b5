//! Connects engines to the world: two engine threads, a thread per sensor bus, the board, the outbox.
//!
//! ```text
//! edges, readings --inbox--> control thread: engine of the flows that drive a pin; owns the board
//!                 --inbox--> data thread:    engine of all other flows
//! data, control --read queue--> sensor thread per bus
//! data, control --append--> outbox
//! ```
//! Queues, their limits, and what happens when they are full:
//!
//! * *inbox*, one per engine, [`INBOX`] events: an edge is dropped and counted, a sensor thread waits;
//! * *read queue*, one per bus, [`READ_QUEUE`] requests: the reading fails, which is counted and said;
//! * *drafts*, one per engine, [`DRAFTS`]: fills only while the outbox cannot be opened; then the oldest are dropped and
//!   counted.
//!
//! Must not: block an engine thread on disk, network or console.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::board::{Board, Edge, Level, Pin};
use crate::flow::Graph;
use crate::message::Value;
use crate::nodes::Use;
use crate::outbox::{Draft, Envelope, Outbox, Record, RecordId};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::log::FlowLog;
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::sensors::Sensor;
use crate::uplink::wire::Packet;

/// Events that wait for one engine.
const INBOX: usize = 8_192;
/// Readings that wait for one bus.
const READ_QUEUE: usize = 1_024;
/// What is kept for an outbox that is not there yet.
const DRAFTS: usize = 10_000;
/// Wake-ups and events that are handled before edges get their turn again.
const SLICE: usize = 64;
/// An engine thread shows a sign of life at least this often, and the board is looked at again.
const BEAT: Duration = Duration::from_secs(1);

/// What flows reach of the world.
pub struct World {
    pub device: String,
    pub clock: Clock,
    pub board: Box<dyn Board>,
    pub outbox: LateOutbox,
}

/// The outbox, which may not be there yet: flows run without it.
#[derive(Clone, Default)]
pub struct LateOutbox(Arc<OnceLock<Outbox>>);

impl LateOutbox {
    pub fn get(&self) -> Option<&Outbox> {
        self.0.get()
    }

    /// Gives it to the flows. A second one is not taken.
    pub fn set(&self, outbox: Outbox) {
        if self.0.set(outbox).is_err() {
            tracing::error!("an outbox was opened twice; the second one is not used");
        }
    }
}

/// Running flows. Dropping it does not stop them; [`Driver::stop`] does.
pub struct Driver {
    control: EngineThread,
    data: EngineThread,
    sensors: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
}

/// A thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread `{name}`; is the limit of threads or memory reached?")]
pub struct ThreadError {
    name: String,
    source: std::io::Error,
}

enum Mail {
    Event(Event),
    Stop,
}

struct EngineThread {
    inbox: SyncSender<Mail>,
    beats: Arc<AtomicU64>,
    thread: JoinHandle<()>,
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
        let (control_flows, data_flows): (Vec<_>, Vec<_>) =
            flows.into_iter().partition(|flow| flow.is_control());
        let (control_inbox, control_mail) = sync_channel(INBOX);
        let (data_inbox, data_mail) = sync_channel(INBOX);

        let mut buses = Buses::default();
        for (flows, inbox) in [(&control_flows, &control_inbox), (&data_flows, &data_inbox)] {
            for (index, flow) in flows.iter().enumerate() {
                let index = u32::try_from(index).expect("fewer than 2^32 flows fit into memory");
                connect(
                    index,
                    flow,
                    board.as_mut(),
                    inbox,
                    &counters,
                    &clock,
                    &mut buses,
                );
            }
        }
        let mut sensors = Vec::new();
        let mut reads = HashMap::new();
        for (bus, attached) in buses.0 {
            let (queue, requests) = sync_channel(READ_QUEUE);
            for sensor in &attached {
                reads.insert((sensor.is_control, sensor.address), queue.clone());
            }
            let clock = clock.clone();
            sensors.push(spawn(&format!("sensors {bus}"), move || {
                read_sensors(attached, &requests, &clock)
            })?);
        }

        let start = |name: &str, flows: Vec<Arc<Graph>>, board, inbox, mail, is_control| {
            let beats = Arc::new(AtomicU64::new(0));
            let reads = reads
                .iter()
                .filter(|((control, _), _)| *control == is_control)
                .map(|((_, address), queue)| (*address, SyncSender::clone(queue)))
                .collect();
            let host = Host {
                log: FlowLog::new(&flows),
                device: device.clone(),
                clock: clock.clone(),
                outbox: outbox.clone(),
                counters: counters.clone(),
                board,
                reads,
                drafts: VecDeque::new(),
            };
            let thread = spawn(name, {
                let beats = beats.clone();
                move || host.run(flows, &mail, &beats)
            })?;
            Ok::<_, ThreadError>(EngineThread {
                inbox,
                beats,
                thread,
            })
        };
        let control = start(
            "control",
            control_flows,
            Some(board),
            control_inbox,
            control_mail,
            true,
        )?;
        let data = start("data", data_flows, None, data_inbox, data_mail, false)?;
        drop(reads);
        Ok(Driver {
            control,
            data,
            sensors,
            counters,
        })
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Counts up while an engine thread is alive and not stuck: control, data.
    pub fn beats(&self) -> [Arc<AtomicU64>; 2] {
        [self.control.beats.clone(), self.data.beats.clone()]
    }

    /// Stops all flows and waits for it: outputs go to their safe level, control first; what flows wanted to deliver is in
    /// the outbox.
    pub fn stop(self) {
        let Driver {
            control,
            data,
            sensors,
            ..
        } = self;
        for EngineThread { inbox, thread, .. } in [control, data] {
            // If the thread is gone already, the join tells.
            let _ = inbox.send(Mail::Stop);
            drop(inbox);
            if thread.join().is_err() {
                tracing::error!(
                    "an engine thread ended in a panic; its outputs may not be at their safe levels"
                );
            }
        }
        for thread in sensors {
            if thread.join().is_err() {
                tracing::error!("a sensor thread ended in a panic");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ThreadError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| ThreadError {
            name: name.to_owned(),
            source,
        })
}

/// The sensors of each bus.
#[derive(Default)]
struct Buses(BTreeMap<String, Vec<Attached>>);

/// A sensor and who reads it.
struct Attached {
    address: Address,
    is_control: bool,
    sensor: Box<dyn Sensor>,
    inbox: SyncSender<Mail>,
}

/// Arms the inputs and opens the sensors of a flow. What cannot be had is logged, once; a node without its sensor fails at
/// each reading.
fn connect(
    index: u32,
    flow: &Arc<Graph>,
    board: &mut dyn Board,
    inbox: &SyncSender<Mail>,
    counters: &Arc<Counters>,
    clock: &Clock,
    buses: &mut Buses,
) {
    for (node, needed) in flow.uses() {
        let address = Address { flow: index, node };
        let place = || format!("flow `{}`, node `{}`", flow.name(), flow.node_name(node));
        match needed {
            Use::Output { .. } => {}
            Use::Input { pin, pull } => {
                let sink = edge_sink(address, inbox.clone(), counters.clone());
                match board.input(*pin, *pull, sink) {
                    Ok(level) => {
                        let input = Input::Edge {
                            time: clock.now().wall,
                            level,
                        };
                        // The inbox is empty: nothing runs yet.
                        let _ = inbox.try_send(Mail::Event(Event::Input { to: address, input }));
                    }
                    Err(error) => tracing::error!("{}: {}", place(), chain(&error)),
                }
            }
            Use::Sensor(spec) => match board.sensor(spec) {
                Ok(sensor) => {
                    let attached = Attached {
                        address,
                        is_control: flow.is_control(),
                        sensor,
                        inbox: inbox.clone(),
                    };
                    buses.0.entry(spec.bus()).or_default().push(attached);
                }
                Err(error) => tracing::error!("{}: {}", place(), chain(&error)),
            },
        }
    }
}

/// Takes edges from the board's thread: it never waits.
fn edge_sink(
    to: Address,
    inbox: SyncSender<Mail>,
    counters: Arc<Counters>,
) -> crate::board::EdgeSink {
    Arc::new(move |edge: Edge| {
        let input = Input::Edge {
            time: edge.time,
            level: edge.level,
        };
        if let Err(TrySendError::Full(_)) = inbox.try_send(Mail::Event(Event::Input { to, input }))
        {
            counters.edges_dropped.add(1);
        }
    })
}

/// The life of a sensor thread: it ends when no engine can ask any more.
fn read_sensors(mut attached: Vec<Attached>, requests: &Receiver<Address>, clock: &Clock) {
    while let Ok(address) = requests.recv() {
        // An address belongs to one flow of one engine; control and data may both have it on this bus.
        for sensor in attached
            .iter_mut()
            .filter(|sensor| sensor.address == address)
        {
            let reading = catch_unwind(AssertUnwindSafe(|| sensor.sensor.read(clock.now())));
            let value = match reading {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err("the sensor's driver panicked; please report this".to_owned()),
            };
            let input = Input::Reading {
                time: clock.now().wall,
                value,
            };
            // Without its engine nobody wants the reading.
            let _ = sensor
                .inbox
                .send(Mail::Event(Event::Input { to: address, input }));
        }
    }
}

/// An engine thread's own: everything that effects reach.
struct Host {
    device: String,
    clock: Clock,
    outbox: LateOutbox,
    counters: Arc<Counters>,
    log: FlowLog,
    /// Only the control thread has it.
    board: Option<Box<dyn Board>>,
    reads: HashMap<Address, SyncSender<Address>>,
    /// What goes to the outbox at the end of a turn.
    drafts: VecDeque<Draft>,
}

impl Host {
    fn run(mut self, flows: Vec<Arc<Graph>>, mail: &Receiver<Mail>, beats: &AtomicU64) {
        let mut engine = Engine::new(&self.device);
        let mut effects = Effects::new();
        for flow in flows {
            engine.add(flow, self.clock.now(), &mut effects);
            self.perform(&mut engine, &mut effects);
        }
        let mut turn = Vec::with_capacity(SLICE);
        let mut next_recheck = BEAT;
        loop {
            beats.fetch_add(1, Ordering::Relaxed);
            self.hand_over_drafts();
            let stop = self.wait(&engine, mail, &mut turn);
            // Edges first: a button must not wait for a heap of readings.
            turn.sort_by_key(|event| {
                !matches!(
                    event,
                    Event::Input {
                        input: Input::Edge { .. },
                        ..
                    }
                )
            });
            for event in turn.drain(..) {
                self.count_reading(&event);
                engine.handle(self.clock.now(), event, &mut effects);
                self.perform(&mut engine, &mut effects);
            }
            engine.wake(self.clock.now(), SLICE, &mut effects);
            self.perform(&mut engine, &mut effects);
            if stop {
                break;
            }
            if self.clock.now().mono >= next_recheck {
                next_recheck = self.clock.now().mono + BEAT;
                if let Some(Err(error)) = self.board.as_mut().map(|board| board.recheck()) {
                    self.log.board_error(self.clock.now(), &chain(&error));
                }
            }
        }
        engine.stop(&mut effects);
        self.perform(&mut engine, &mut effects);
        self.hand_over_drafts();
        self.counters
            .dropped_before_outbox
            .add(self.drafts.len() as u64);
    }

    /// Waits for mail until the next wake-up, and takes at most [`SLICE`] events. Says whether to stop.
    fn wait(&self, engine: &Engine, mail: &Receiver<Mail>, turn: &mut Vec<Event>) -> bool {
        let until_wake = engine
            .next_wake()
            .map_or(BEAT, |mono| mono.saturating_sub(self.clock.now().mono));
        match mail.recv_timeout(until_wake.min(BEAT)) {
            Ok(Mail::Event(event)) => turn.push(event),
            Ok(Mail::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        while turn.len() < SLICE {
            match mail.try_recv() {
                Ok(Mail::Event(event)) => turn.push(event),
                Ok(Mail::Stop) => return true,
                Err(_) => break,
            }
        }
        false
    }

    fn perform(&mut self, engine: &mut Engine, effects: &mut Effects) {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            for effect in effects.drain(..) {
                match effect {
                    Effect::Output { pin, level } => self.drive(pin, level),
                    Effect::Read { from } => answers.extend(self.request_reading(from)),
                    Effect::Uplink { draft } => self.drafts.push_back(draft),
                    Effect::Debug { label, message, .. } => self.log.debug(&label, &message),
                    Effect::Failed { from, reason } => {
                        self.counters.failures.add(1);
                        self.log.failed(self.clock.now(), from, &reason);
                    }
                    Effect::FlowStopped {
                        flow,
                        node,
                        panic,
                        again_in,
                    } => {
                        self.counters.panics.add(1);
                        self.log.stopped(flow, node, &panic, again_in);
                    }
                    Effect::FlowRestarted { flow } => self.log.restarted(flow),
                }
            }
            for answer in answers {
                engine.handle(self.clock.now(), answer, effects);
            }
        }
    }

    fn drive(&mut self, pin: Pin, level: Level) {
        let Some(board) = &mut self.board else { return };
        match board.output(pin, level) {
            Ok(()) => tracing::debug!(%pin, %level, "output"),
            Err(error) => {
                self.counters.output_errors.add(1);
                self.log.board_error(self.clock.now(), &chain(&error));
            }
        }
    }

    /// Hands a request to the sensor's thread; if that cannot take it, the answer says so.
    fn request_reading(&self, from: Address) -> Option<Event> {
        let problem = match self.reads.get(&from).map(|queue| queue.try_send(from)) {
            Some(Ok(())) => return None,
            Some(Err(TrySendError::Full(_))) => {
                "its bus is so far behind that the reading was left out"
            }
            Some(Err(TrySendError::Disconnected(_))) => "the thread that reads its bus has ended",
            None => "the sensor could not be opened at the start; the log says why",
        };
        let input = Input::Reading {
            time: self.clock.now().wall,
            value: Err(problem.to_owned()),
        };
        Some(Event::Input { to: from, input })
    }

    /// Counts a reading, and what it would have taken on the wire by itself.
    fn count_reading(&self, event: &Event) {
        let Event::Input { to, input } = event else {
            return;
        };
        let (payload, time) = match input {
            Input::Reading {
                value: Ok(value),
                time,
            } => (value.to_json(), *time),
            Input::Reading { value: Err(_), .. } => return,
            Input::Edge { level, time } => (
                Value::Number(f64::from(u8::from(level.is_high()))).to_json(),
                *time,
            ),
        };
        self.counters.readings.add(1);
        let id = RecordId {
            epoch: self.outbox.get().map_or(0, Outbox::epoch),
            seq: self.counters.readings.get(),
        };
        let topic = self.log.place(*to);
        let draft = Draft {
            topic,
            payload: payload.into(),
            time,
            retain: false,
            envelope: Envelope::Json,
        };
        if let Ok(packet) = Packet::new(&Record { id, draft }, &self.device, usize::MAX) {
            self.counters.raw_bytes.add(packet.size as u64);
        }
    }

    fn hand_over_drafts(&mut self) {
        if self.drafts.is_empty() {
            return;
        }
        if let Some(outbox) = self.outbox.get() {
            outbox.append(self.drafts.drain(..));
        } else if let Some(excess) = self.drafts.len().checked_sub(DRAFTS + 1) {
            self.drafts.drain(..=excess);
            self.counters.dropped_before_outbox.add(excess as u64 + 1);
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
