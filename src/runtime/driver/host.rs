//! An engine thread: turns what comes in into events, and effects into deeds.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, never, select};

use super::inputs::ArmedInput;
use super::sensors::Readers;
use super::taps::{Watcher, Watchers};
use super::{LateOutbox, Stopped, chain};
use crate::board::{Board, Drive, Pin};
use crate::flow::Graph;
use crate::outbox::{Draft, RecordId};
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::links::{self, LinkQueue, Linked};
use crate::runtime::log::FlowLog;
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::uplink::wire;

/// Edges, readings, messages from links and wake-ups that are handled before edges get their turn again.
const SLICE: usize = 64;
/// An engine thread shows a sign of life at least this often; the board is looked at again, failed outputs are tried again.
const BEAT: Duration = Duration::from_secs(1);
/// What is kept for an outbox that is not there yet.
const DRAFTS: usize = 10_000;

/// An engine thread's own: everything that effects reach.
pub(super) struct Host {
    pub(super) flows: Vec<Arc<Graph>>,
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
    /// The ways to the `link in` nodes of all engines.
    pub(super) links: [LinkQueue; 2],
    pub(super) watchers: Watchers,
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
    /// Ends when the thread is to stop.
    pub(super) stop: Receiver<std::convert::Infallible>,
}

impl Host {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> Stopped {
        // Panics in nodes are the engine's business. This is for all the rest: outputs must go safe whatever happens.
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            self.counters.panics.add(1);
            let reason = crate::runtime::engine::panic_text(panic.as_ref());
            tracing::error!(
                "an engine thread failed ({reason}); its outputs go safe, all its flows start again in {BEAT:?}"
            );
            self.drive_all_safe();
            if self.inbox.stop.recv_timeout(BEAT) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        // A second time for those that the board did not take.
        self.retry_unmet();
        self.hand_over_drafts();
        let left = self.inbox.linked.len() as u64;
        self.counters.links_dropped.add(left);
        Stopped {
            outputs_are_safe: self.unmet.is_empty(),
            drafts: self.drafts.into(),
        }
    }

    fn serve(&mut self) {
        let mut engine = Engine::new(&self.device);
        self.missed = 0;
        let mut effects = Effects::new();
        for flow in self.flows.clone() {
            let flow = engine.add(flow, self.clock.now(), &mut effects);
            self.watchers.tap_flow(flow, &mut engine);
            self.perform(&mut engine, &mut effects);
        }
        let mut turn = Vec::with_capacity(2 * SLICE);
        let mut next_beat = BEAT;
        loop {
            self.hand_over_drafts();
            let goes_on = self.wait(&mut engine, &mut turn);
            if !goes_on {
                break;
            }
            self.beats.fetch_add(1, Ordering::Relaxed);
            for event in turn.drain(..) {
                self.count_reading(&event);
                engine.handle(self.clock.now(), event, &mut effects);
                self.perform(&mut engine, &mut effects);
            }
            engine.wake(self.clock.now(), SLICE, &mut effects);
            self.perform(&mut engine, &mut effects);
            if self.clock.now().mono >= next_beat {
                next_beat = self.clock.now().mono + BEAT;
                self.beat(&mut engine);
            }
        }
        engine.stop(&mut effects);
        self.perform(&mut engine, &mut effects);
    }

    /// Waits until something comes or the next wake-up is due, and takes a slice of it, edges first. Says whether to go on.
    fn wait(&mut self, engine: &mut Engine, turn: &mut Vec<Event>) -> bool {
        let Inbox {
            edges,
            readings,
            linked,
            watchers,
            stop,
        } = &self.inbox;
        let until_wake = engine
            .next_wake()
            .map_or(BEAT, |mono| mono.saturating_sub(self.clock.now().mono))
            .min(BEAT);
        // A sender that is gone (no inputs, no sensors) would make its side ready for ever.
        let (no_edges, no_readings) = (never(), never());
        let edges = if self.inputs.is_empty() {
            &no_edges
        } else {
            edges
        };
        let readings = if self.readers.is_empty() {
            &no_readings
        } else {
            readings
        };
        let mut first_reading = None;
        let mut first_linked = None;
        select! {
            recv(stop) -> _ => return false,
            recv(edges) -> edge => turn.extend(edge),
            recv(readings) -> reading => first_reading = reading.ok(),
            recv(linked) -> message => first_linked = message.ok(),
            recv(watchers) -> watcher => {
                if let Ok(watcher) = watcher {
                    self.watchers.add(watcher, engine);
                }
            }
            default(until_wake) => {}
        }
        turn.extend(edges.try_iter().take(SLICE));
        turn.extend(self.inputs.iter().filter_map(ArmedInput::level_if_missed));
        turn.extend(first_reading);
        turn.extend(readings.try_iter().take(SLICE));
        turn.extend(first_linked.map(Event::from));
        turn.extend(linked.try_iter().take(SLICE).map(Event::from));
        true
    }

    fn beat(&mut self, engine: &mut Engine) {
        let missed = engine.missed();
        self.counters.missed.add(missed - self.missed);
        self.missed = missed;
        self.watchers.forget_gone(engine);
        self.retry_unmet();
        if let Some(Err(error)) = self.board.as_mut().map(|board| board.recheck()) {
            self.log.board_error(self.clock.now(), None, &chain(&error));
        }
    }

    fn perform(&mut self, engine: &mut Engine, effects: &mut Effects) {
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
                self.count_reading(&answer);
                engine.handle(self.clock.now(), answer, effects);
            }
            for answer in taken_again {
                engine.handle(self.clock.now(), answer, effects);
            }
        }
    }

    fn level_of(&self, from: Address) -> Event {
        match self.inputs.iter().find(|input| input.address == from) {
            Some(input) => Event::Input {
                to: from,
                input: input.level(),
            },
            None => self.failed(
                from,
                "the pin could not be armed at the start; the log says why",
            ),
        }
    }

    fn failed(&self, to: Address, problem: &str) -> Event {
        let input = Input::Reading {
            time: self.clock.now().wall,
            value: Err(problem.to_owned()),
        };
        Event::Input { to, input }
    }

    fn drive(&mut self, pin: Pin, drive: Drive) {
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
        for flow in self.flows.clone() {
            for (pin, safe) in flow.outputs() {
                let safe = safe.into();
                if catch_unwind(AssertUnwindSafe(|| self.drive(pin, safe))).is_err() {
                    self.unmet.insert(pin, safe);
                }
            }
        }
    }

    /// Counts a reading, and what it would have taken on the wire by itself.
    fn count_reading(&self, event: &Event) {
        let Event::Input { to, input } = event else {
            return;
        };
        let (payload_len, time) = match input {
            Input::Reading {
                value: Ok(value),
                time,
            } => (value.to_json().len(), *time),
            Input::Reading { value: Err(_), .. } => return,
            // 0 or 1
            Input::Edge { time, .. } => (1, *time),
        };
        self.counters.readings.add(1);
        let id = RecordId {
            epoch: self.outbox.epoch(),
            seq: self.counters.readings.get(),
        };
        let payload_len = wire::json_envelope_len(&self.device, id, time) + payload_len;
        self.counters
            .raw_bytes
            .add(wire::publish_size(self.log.place_len(*to), payload_len) as u64);
    }

    fn hand_over_drafts(&mut self) {
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
