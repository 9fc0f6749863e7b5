//! An engine thread: turns what comes in into events, and effects into deeds.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};

use super::changes::Request;
use super::inputs::ArmedInput;
use super::sensors::Readers;
use super::states::StateQueue;
use super::taps::{Watcher, Watchers};
use super::wiring::Side;
use super::{LateOutbox, Stopped, chain};
use crate::board::{Board, Drive, Level, Pin};
use crate::flow::Graph;
use crate::outbox::{Draft, RecordId};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::engine::{Engine, Event, Whereabouts};
use crate::runtime::links::{self, LinkQueue, Linked};
use crate::runtime::log::FlowLog;
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::runtime::state::Checkpoint;
use crate::uplink::wire;

/// Edges, readings, messages from links and wake-ups that are handled before edges get their turn again.
const SLICE: usize = 64;
/// An engine thread shows a sign of life at least this often; the board is looked at again, failed outputs are tried again.
const BEAT: Duration = Duration::from_secs(1);
/// How long a stop handles what came before it: outputs wait for control.
const DRAIN_CONTROL: Duration = Duration::from_millis(100);
const DRAIN_DATA: Duration = Duration::from_secs(2);
/// Turns of a stop at most, where links lead in a circle.
const DRAIN_TURNS: usize = 256;
/// What is kept for an outbox that is not there yet.
const DRAFTS: usize = 10_000;
/// An engine thread that fails again within this time may fail because of what its flows remember.
const FAILS_AGAIN: Duration = Duration::from_secs(60);

/// An engine thread's own: everything that effects reach.
pub(super) struct Host {
    pub(super) side: Side,
    /// By their places in the engine.
    pub(super) flows: BTreeMap<u32, Arc<Graph>>,
    /// What flows remembered last, by their places: they go on from it if this thread has to start them again.
    pub(super) kept: BTreeMap<u32, Arc<Checkpoint>>,
    /// How many places of the engine are taken, or were.
    pub(super) places: u32,
    pub(super) rounds: Rounds,
    pub(super) device: String,
    pub(super) clock: Clock,
    pub(super) outbox: LateOutbox,
    pub(super) counters: Arc<Counters>,
    pub(super) log: FlowLog,
    /// Only the control thread has it.
    pub(super) board: Option<Box<dyn Board>>,
    pub(super) inputs: Vec<ArmedInput>,
    pub(super) readers: Readers,
    pub(super) inbox: Inbox,
    /// Messages from links that were taken out of the queue, and come before those in it.
    pub(super) backlog: VecDeque<Event>,
    /// The ways into both engines.
    pub(super) ways: [Ways; 2],
    /// The ways to the `link in` nodes of all engines.
    pub(super) links: [LinkQueue; 2],
    pub(super) watchers: Watchers,
    /// Empty between events; it keeps its memory.
    pub(super) effects: Effects,
    /// What goes to the outbox at the end of a turn.
    pub(super) drafts: VecDeque<Draft>,
    /// What outputs are to be driven with and the board has not taken.
    pub(super) unmet: BTreeMap<Pin, Drive>,
    pub(super) beats: Arc<AtomicU64>,
    /// What the engine had missed at the last beat.
    pub(super) missed: u64,
}

/// What comes to an engine thread.
pub(super) struct Inbox {
    pub(super) edges: Receiver<Event>,
    pub(super) readings: Receiver<Event>,
    pub(super) linked: Receiver<Linked>,
    /// Those who want to watch a node.
    pub(super) watchers: Receiver<Watcher>,
    /// Changes of flows.
    pub(super) requests: Receiver<Request>,
    /// Ends when the thread is to stop.
    pub(super) stop: Receiver<std::convert::Infallible>,
}

/// The ways into an engine.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) edges: Sender<Event>,
    pub(super) readings: Sender<Event>,
}

/// When the flows are asked what they remember: one in a turn, all of them at each interval.
pub(super) struct Rounds {
    every: Duration,
    /// Who writes it; else it is for a flow that panics only.
    queue: Option<StateQueue>,
    next: Duration,
    /// Flows whose turn is still to come, by their places.
    left: Vec<u32>,
}

impl Rounds {
    pub(super) fn new(every: Duration, queue: Option<StateQueue>, clock: &Clock) -> Rounds {
        Rounds {
            every,
            queue,
            next: clock.now().mono.saturating_add(every),
            left: Vec::new(),
        }
    }

    fn put(&self, checkpoint: Arc<Checkpoint>) {
        if let Some(queue) = &self.queue {
            queue.put(checkpoint);
        }
    }
}

impl Host {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> Stopped {
        let mut failed_at: Option<Duration> = None;
        // Panics in nodes are the engine's business. This is for all the rest: outputs must go safe whatever happens.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            self.counters.panics.add(1);
            let reason = crate::runtime::engine::panic_text(panic.as_ref());
            tracing::error!(
                "an engine thread failed ({reason}); its outputs go safe, all its flows start again in {BEAT:?}"
            );
            self.drive_all_safe();
            let now = self.clock.now().mono;
            if failed_at.is_some_and(|at| now.saturating_sub(at) < FAILS_AGAIN) {
                self.kept.clear();
            }
            failed_at = Some(now);
            if self.inbox.stop.recv_timeout(BEAT) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        // A second time for those that the board did not take.
        self.retry_unmet();
        self.hand_over_drafts();
        let left = (self.inbox.linked.len() + self.backlog.len()) as u64;
        self.counters.links_dropped.add(left);
        Stopped {
            outputs_are_safe: self.unmet.is_empty(),
            drafts: self.drafts.into(),
        }
    }

    fn serve(&mut self) {
        let mut engine = Engine::new(&self.device);
        self.missed = 0;
        self.start_flows(&mut engine);
        let mut effects = Effects::new();
        let mut turn = Vec::with_capacity(2 * SLICE);
        let mut next_beat = self.clock.now().mono + BEAT;
        loop {
            self.hand_over_drafts();
            let Some(request) = self.wait(&mut engine, &mut turn) else {
                break;
            };
            self.beats.fetch_add(1, Ordering::Relaxed);
            for event in turn.drain(..) {
                self.handle(event, &mut engine);
            }
            if let Some(request) = request {
                self.serve_request(request, &mut engine);
            }
            engine.wake(self.clock.now(), SLICE, &mut effects);
            self.perform(&mut engine, &mut effects);
            self.checkpoint_one(&mut engine);
            if self.clock.now().mono >= next_beat {
                next_beat = self.clock.now().mono + BEAT;
                self.beat(&mut engine);
            }
        }
        self.drain(&mut engine);
        // Outputs first: to say what is remembered takes its time.
        engine.make_safe(&mut effects);
        self.perform(&mut engine, &mut effects);
        for place in self.flows.keys() {
            if let Some(checkpoint) = engine.checkpoint(*place, self.clock.now()) {
                self.rounds.put(checkpoint);
            }
        }
    }

    /// Handles what has come before the stop, and what follows from it: brokers may have been told that it was taken. Not for long: outputs go
    /// safe after it.
    fn drain(&mut self, engine: &mut Engine) {
        let limit = match self.side {
            Side::Control => DRAIN_CONTROL,
            Side::Data => DRAIN_DATA,
        };
        let until = self.clock.now().mono.saturating_add(limit);
        let mut readings = self.inbox.readings.len();
        for _ in 0..DRAIN_TURNS {
            let slice = readings.min(SLICE);
            readings -= slice;
            let turn: Vec<Event> = self.inbox.readings.try_iter().take(slice).collect();
            let linked = self.inbox.linked.try_iter().take(SLICE);
            self.backlog.extend(linked.map(Event::from));
            if turn.is_empty() && self.backlog.is_empty() {
                return;
            }
            for event in turn {
                self.handle(event, engine);
            }
            self.settle_backlog(engine);
            self.hand_over_drafts();
            if self.clock.now().mono >= until {
                return;
            }
        }
    }

    /// Starts all flows at their places: those that remember something go on from it.
    fn start_flows(&mut self, engine: &mut Engine) {
        let mut effects = Effects::new();
        for (place, graph) in self.flows.clone() {
            engine.skip_to(place);
            let now = self.clock.now();
            let flow = match self.kept.get(&place) {
                Some(kept) => engine.add_restored(graph, kept.clone(), now, &mut effects),
                None => engine.add(graph, now, &mut effects),
            };
            self.watchers.tap_flow(flow, engine);
            self.perform(engine, &mut effects);
        }
        // What still comes for flows that were there must not reach others.
        engine.skip_to(self.places);
    }

    /// Handles one event and all that follows.
    pub(super) fn handle(&mut self, event: Event, engine: &mut Engine) {
        match engine.locate(event.to()) {
            Whereabouts::Here(to) => self.count_reading(to, &event),
            Whereabouts::Elsewhere(there) => return self.hand_on(event.redirected(there)),
            // The engine counts it.
            Whereabouts::Gone => {}
        }
        let mut effects = std::mem::take(&mut self.effects);
        engine.handle(self.clock.now(), event, &mut effects);
        self.perform(engine, &mut effects);
        self.effects = effects;
    }

    /// Sends on what came for a flow that is in the other engine now.
    fn hand_on(&self, event: Event) {
        let (ways, links) = {
            let other = self.side.other().index();
            (&self.ways[other], &self.links[other])
        };
        match event {
            Event::Input {
                input: Input::Edge { .. },
                ..
            } => {
                if ways.edges.try_send(event).is_err() {
                    self.counters.edges_dropped.add(1);
                }
            }
            Event::Input { .. } => {
                if ways.readings.try_send(event).is_err() {
                    self.counters.missed.add(1);
                }
            }
            Event::Messages { to, messages } => {
                for message in messages {
                    if !links.hand_on(to, message) {
                        self.counters.links_dropped.add(1);
                    }
                }
            }
        }
    }

    /// Handles all that was taken out of the link queue.
    pub(super) fn settle_backlog(&mut self, engine: &mut Engine) {
        while let Some(event) = self.backlog.pop_front() {
            self.handle(event, engine);
        }
    }

    /// Asks one flow what it remembers, if it is time.
    fn checkpoint_one(&mut self, engine: &mut Engine) {
        let now = self.clock.now();
        if now.mono >= self.rounds.next {
            self.rounds.next = now.mono.saturating_add(self.rounds.every);
            self.rounds.left = self.flows.keys().copied().collect();
        }
        let Some(place) = self.rounds.left.pop() else {
            return;
        };
        if let Some(checkpoint) = engine.checkpoint(place, now) {
            self.kept.insert(place, checkpoint.clone());
            self.rounds.put(checkpoint);
        }
    }

    /// How long there may be nothing to do.
    fn patience(&self, engine: &Engine) -> Duration {
        if !self.backlog.is_empty() || !self.rounds.left.is_empty() {
            return Duration::ZERO;
        }
        let next = engine.next_wake().into_iter().chain([self.rounds.next]);
        let now = self.clock.now().mono;
        let waits = next.map(|mono| mono.saturating_sub(now));
        waits.fold(BEAT, Duration::min)
    }

    /// Waits until something comes or the next wake-up is due, and takes a slice of it, edges first, and a change of flows; none when
    /// it is to stop.
    fn wait(&mut self, engine: &mut Engine, turn: &mut Vec<Event>) -> Option<Option<Request>> {
        let patience = self.patience(engine);
        let Inbox {
            edges,
            readings,
            linked,
            watchers,
            requests,
            stop,
        } = &self.inbox;
        let mut first_reading = None;
        let mut first_linked = None;
        let mut request = None;
        select! {
            recv(stop) -> _ => return None,
            recv(edges) -> edge => turn.extend(edge),
            recv(readings) -> reading => first_reading = reading.ok(),
            recv(linked) -> message => first_linked = message.ok(),
            recv(requests) -> wanted => request = wanted.ok(),
            recv(watchers) -> watcher => {
                if let Ok(watcher) = watcher {
                    self.watchers.add(watcher, engine);
                }
            }
            default(patience) => {}
        }
        turn.extend(edges.try_iter().take(SLICE));
        let now = self.clock.now().wall;
        let missed = self.inputs.iter();
        turn.extend(missed.filter_map(|input| input.level_if_missed(now)));
        turn.extend(first_reading);
        turn.extend(readings.try_iter().take(SLICE));
        self.backlog.extend(first_linked.map(Event::from));
        let room = SLICE.saturating_sub(self.backlog.len());
        self.backlog
            .extend(linked.try_iter().take(room).map(Event::from));
        let slice = self.backlog.len().min(SLICE);
        turn.extend(self.backlog.drain(..slice));
        Some(request)
    }

    fn beat(&mut self, engine: &mut Engine) {
        let missed = engine.missed();
        self.counters.missed.add(missed - self.missed);
        self.missed = missed;
        self.watchers.forget_gone(engine);
        self.retry_unmet();
        let Some(board) = &mut self.board else { return };
        let rechecked = board.recheck();
        self.counters.edges_dropped.add(board.lost_edges());
        if let Err(error) = rechecked {
            self.log.board_error(self.clock.now(), None, &chain(&error));
        }
    }

    pub(super) fn perform(&mut self, engine: &mut Engine, effects: &mut Effects) {
        while !effects.is_empty() {
            let mut answers = Vec::new();
            let mut taken_again = Vec::new();
            for effect in effects.drain(..) {
                match effect {
                    Effect::Output { pin, drive } => self.drive(pin, drive),
                    Effect::ReadSensor { from } => {
                        if let Err(problem) = self.readers.request(from) {
                            answers.push(self.failed(from, problem));
                        }
                    }
                    Effect::ReadLevel { from } => answers.push(self.level_of(from)),
                    Effect::Link {
                        from,
                        link,
                        message,
                    } => {
                        let mut is_taken = true;
                        for queue in &self.links {
                            if let Err(error) = queue.send(&link, &message) {
                                is_taken = false;
                                self.counters.links_dropped.add(error.dropped);
                                answers.push(self.failed(from, &error.to_string()));
                            }
                        }
                        if is_taken && engine.is_failing(from) {
                            taken_again.push(links::taken(from, self.clock.now().wall));
                        }
                    }
                    Effect::Uplink { draft, .. } => self.drafts.push_back(draft),
                    Effect::Debug {
                        from,
                        label,
                        message,
                    } => {
                        self.log.debug(self.clock.now(), from, &label, &message);
                    }
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
                    Effect::Forgot { from, reason } => self.log.forgot(from, &reason),
                    Effect::FlowRestarted { flow } => self.log.restarted(flow),
                    Effect::Tapped {
                        from,
                        port,
                        message,
                    } => self.watchers.show(from, port, &message),
                }
            }
            for answer in answers {
                self.count_reading(answer.to(), &answer);
                engine.handle(self.clock.now(), answer, effects);
            }
            for answer in taken_again {
                engine.handle(self.clock.now(), answer, effects);
            }
        }
    }

    fn level_of(&self, from: Address) -> Event {
        match self.inputs.iter().find(|input| input.address() == from) {
            Some(input) => Event::Input {
                to: from,
                input: input.level(self.clock.now().wall),
            },
            None => self.failed(from, "the pin could not be armed; the log says why"),
        }
    }

    fn failed(&self, to: Address, problem: &str) -> Event {
        let input = Input::Reading {
            time: self.clock.now().wall,
            value: Err(problem.to_owned()),
        };
        Event::Input { to, input }
    }

    pub(super) fn drive(&mut self, pin: Pin, drive: Drive) {
        let Some(board) = &mut self.board else { return };
        match board.output(pin, drive) {
            Ok(()) => {
                self.unmet.remove(&pin);
                tracing::debug!(%pin, %drive, "output");
            }
            Err(error) => {
                self.counters.output_errors.add(1);
                self.unmet.insert(pin, drive);
                let error = format!(
                    "{pin} is not {drive} as its flow wants it: {}; tried again every {BEAT:?}",
                    chain(&error)
                );
                self.log.board_error(self.clock.now(), Some(pin), &error);
            }
        }
    }

    fn retry_unmet(&mut self) {
        for (pin, drive) in self.unmet.clone() {
            self.drive(pin, drive);
        }
    }

    fn drive_all_safe(&mut self) {
        let flows = self.flows.clone();
        self.drive_safe(flows.values().flat_map(|flow| flow.outputs()));
    }

    /// Whatever the board does.
    pub(super) fn drive_safe(&mut self, outputs: impl Iterator<Item = (Pin, Level)>) {
        for (pin, safe) in outputs {
            let safe = safe.into();
            if catch_unwind(AssertUnwindSafe(|| self.drive(pin, safe))).is_err() {
                self.unmet.insert(pin, safe);
            }
        }
    }

    /// Counts a reading, and what it would have taken on the wire by itself.
    fn count_reading(&self, to: Address, event: &Event) {
        let Event::Input { input, .. } = event else {
            return;
        };
        let (payload_len, time) = match input {
            Input::Reading {
                value: Ok(value),
                time,
            } => (value.to_json().len(), *time),
            Input::Reading { value: Err(_), .. } => return,
            // A count.
            Input::Pulses { time, .. } => (8, *time),
            // 0 or 1
            Input::Edge { time, .. } => (1, *time),
            Input::Message { time, payload, .. } => (payload.len(), *time),
        };
        self.counters.readings.add(1);
        let id = RecordId {
            epoch: self.outbox.epoch(),
            seq: self.counters.readings.get(),
        };
        let payload_len = wire::json_envelope_len(&self.device, id, time) + payload_len;
        self.counters
            .raw_bytes
            .add(wire::publish_size(self.log.place_len(to), payload_len) as u64);
    }

    pub(super) fn hand_over_drafts(&mut self) {
        if self.drafts.is_empty() {
            return;
        }
        if let Some(outbox) = self.outbox.get() {
            outbox.append(self.drafts.drain(..));
        } else {
            let excess = self.drafts.len().saturating_sub(DRAFTS);
            self.drafts.drain(..excess);
            self.counters.dropped_before_outbox.add(excess as u64);
        }
    }
}
