//! The engine: `(now, event) -> effects`, without I/O, clock, lock, channel or task.
//!
//! A message runs to completion: everything that follows from an event has happened when [`Engine::handle`] returns. One
//! queue serves all nodes and keeps its memory, so the steady state allocates nothing for numbers.
//!
//! Terms: a *wake-up* is a time at which a node asked to be called; an *event* is what wakes the engine from outside.
//!
//! A panic in a node stops its flow only: outputs go to their safe level, the flow is built anew after a back-off, and goes on
//! from its last checkpoint, unless it has panicked again.
//!
//! A flow's *place* is its number in the engine, and no other flow ever has it: see `engine/swap.rs`, where flows change.

mod flow;
mod swap;
#[cfg(test)]
mod swap_test;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use self::flow::{Flow, Slot, build};
use self::swap::Successor;
pub(super) use self::swap::heirs;
pub use self::swap::{Kept, Swap, Swapped, Whereabouts};
use crate::board::{Level, Pin};
use crate::flow::Graph;
use crate::message::{Message, NodeId};
use crate::runtime::clock::Now;
use crate::runtime::driver::chain;
use crate::runtime::node::{Address, Effect, Effects, Input};
use crate::runtime::state::{Checkpoint, Pause, with_names};

/// How long a flow waits after its first panic before it starts again; doubled for each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// What wakes the engine from outside; time passing is [`Engine::wake`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The board has something for a source node.
    Input { to: Address, input: Input },
    /// Messages for a node's input, in order.
    Messages { to: Address, messages: Vec<Message> },
}

impl Event {
    /// Whom it is for.
    pub(super) fn to(&self) -> Address {
        match self {
            Event::Input { to, .. } | Event::Messages { to, .. } => *to,
        }
    }

    /// The same for another node.
    pub(super) fn redirected(mut self, there: Address) -> Event {
        match &mut self {
            Event::Input { to, .. } => *to = there,
            Event::Messages { to, messages } => {
                *to = there;
                // What comes through a link has the `link in` itself as its source.
                for message in messages {
                    message.source = there.node;
                }
            }
        }
        self
    }
}

/// What a flow has done since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Deliveries of a message to a node.
    pub deliveries: u64,
    /// Messages and readings that a node could not handle.
    pub failures: u64,
    /// Panics that stopped the flow.
    pub panics: u64,
    /// Events that came while the flow was stopped, and messages that were queued in it when it stopped.
    pub missed: u64,
}

/// Runs any number of flows on one thread.
pub struct Engine {
    device: Arc<str>,
    flows: Vec<Entry>,
    /// What flows had missed that are gone, and what came for them since.
    missed_by_gone: u64,
    wakes: BinaryHeap<Reverse<(Duration, Wake)>>,
    /// Nodes that someone outside watches, of the flow that is added next.
    taps_of_next: Vec<NodeId>,
}

/// What is at a flow's place. Places are not used again, so that what comes late never reaches a stranger; so this is small.
enum Entry {
    Here(Box<Flow>),
    /// Built, to be swapped in.
    Prepared(Box<Flow>),
    Gone(Option<Box<Successor>>),
}

/// Whom a wake-up is for. The order only breaks ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Node { flow: u32, node: NodeId },
    Restart { flow: u32 },
}

impl Wake {
    fn flow(self) -> u32 {
        match self {
            Wake::Node { flow, .. } | Wake::Restart { flow } => flow,
        }
    }
}

impl Engine {
    /// An engine without flows, on the device of that name.
    pub fn new(device: &str) -> Engine {
        Engine {
            device: device.into(),
            flows: Vec::new(),
            missed_by_gone: 0,
            wakes: BinaryHeap::new(),
            taps_of_next: Vec::new(),
        }
    }

    /// Leaves places empty, so that the next flow has this one, unless it is taken.
    pub(super) fn skip_to(&mut self, place: u32) {
        while self.flows.len() < place as usize {
            self.flows.push(Entry::Gone(None));
        }
    }

    /// How many places are taken, or were.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.flows.len()).expect("fewer than 2^32 flows fit into memory")
    }

    /// Builds a flow and starts it; gives its place in the engine, which is the number of flows added before. One that
    /// cannot be built, for lack of memory, is stopped as after a panic, and tried again.
    pub fn add(&mut self, graph: Arc<Graph>, now: Now, effects: &mut Effects) -> u32 {
        let index = self.push(graph, now);
        self.build_and_start(index, now, effects);
        index
    }

    /// The same for a flow that ran before: its nodes go on from what they remembered.
    pub fn add_restored(
        &mut self,
        graph: Arc<Graph>,
        checkpoint: Arc<Checkpoint>,
        now: Now,
        effects: &mut Effects,
    ) -> u32 {
        let index = self.push(graph, now);
        self.here(index).checkpoint = Some(checkpoint);
        self.build_and_start(index, now, effects);
        index
    }

    /// What the nodes of a flow remember; of one that is stopped, what they remembered last. None if there is nothing.
    pub fn checkpoint(&mut self, index: u32, now: Now) -> Option<Arc<Checkpoint>> {
        let (checkpoint, _) = self.keep(index, now).state?;
        Some(checkpoint)
    }

    /// The same, with what it means for who goes on from it.
    pub fn keep(&mut self, index: u32, now: Now) -> Kept {
        let Entry::Here(flow) = &mut self.flows[index as usize] else {
            return Kept::default();
        };
        let mut pause = Pause::Restart;
        if !flow.slots.is_empty() {
            match catch_unwind(AssertUnwindSafe(|| flow.save(now))) {
                Ok(checkpoint) => {
                    flow.checkpoint = Some(Arc::new(checkpoint));
                    pause = Pause::Reload;
                }
                Err(panic) => tracing::error!(
                    "flow `{}`: a node panicked when it was to say what it remembers: {}; the last checkpoint stays",
                    flow.graph.name(),
                    panic_text(panic.as_ref())
                ),
            }
        }
        Kept {
            state: flow.checkpoint.clone().map(|it| (it, pause)),
        }
    }

    fn push(&mut self, graph: Arc<Graph>, now: Now) -> u32 {
        let index = self.places();
        self.flows.push(Entry::Here(Box::new(Flow {
            graph,
            slots: Vec::new(),
            checkpoint: None,
            queue: VecDeque::new(),
            counters: FlowCounters::default(),
            asked: Vec::new(),
            taps: std::mem::take(&mut self.taps_of_next),
            current: NodeId(0),
            started: now.mono,
            back_off: FIRST_BACK_OFF,
            panicked: None,
        })));
        index
    }

    fn there(&self, index: u32) -> Option<&Flow> {
        match self.flows.get(index as usize) {
            Some(Entry::Here(flow)) => Some(flow),
            _ => None,
        }
    }

    fn there_mut(&mut self, index: u32) -> Option<&mut Flow> {
        match self.flows.get_mut(index as usize) {
            Some(Entry::Here(flow)) => Some(flow),
            _ => None,
        }
    }

    fn here(&mut self, index: u32) -> &mut Flow {
        self.there_mut(index)
            .expect("only flows that are there are called")
    }

    /// Whether a flow is there and not stopped.
    fn runs(&self, index: u32) -> bool {
        self.there(index).is_some_and(|flow| !flow.slots.is_empty())
    }

    /// Handles one event to completion.
    pub fn handle(&mut self, now: Now, event: Event, effects: &mut Effects) {
        let Some(to) = self.follow(event.to()) else {
            self.missed_by_gone += 1;
            return;
        };
        let flow = self.here(to.flow);
        if flow.slots.is_empty() {
            flow.counters.missed += 1;
            return;
        }
        self.run(to.flow, now, effects, |flow, effects| match event {
            Event::Input { input, .. } => {
                let before = effects.len();
                flow.call(to, now, effects, |node, cx| node.input(input, cx));
                flow.tell_watchers(to, None, before, true, now, effects);
                flow.drain(to.flow, now, effects);
            }
            Event::Messages { messages, .. } => {
                for message in messages {
                    flow.deliver(to.flow, to.node, message, now, effects);
                    flow.drain(to.flow, now, effects);
                }
            }
        });
    }

    /// When the next wake-up is due, in monotonic time.
    pub fn next_wake(&self) -> Option<Duration> {
        self.wakes.peek().map(|Reverse((mono, _))| *mono)
    }

    /// Runs wake-ups that are due, at most `limit` of them, so that a thousand windows closing together do not keep an
    /// edge waiting. What is left over is due at once: see [`Engine::next_wake`]. Gives how many there were.
    pub fn wake(&mut self, now: Now, limit: usize, effects: &mut Effects) -> usize {
        for done in 0..limit {
            match self.wakes.peek() {
                Some(Reverse((mono, _))) if *mono <= now.mono => {}
                _ => return done,
            }
            let Some(Reverse((mono, wake))) = self.wakes.pop() else {
                return done;
            };
            match wake {
                Wake::Node { flow, node } => self.wake_node(flow, node, mono, now, effects),
                Wake::Restart { flow } => self.restart(flow, now, effects),
            }
        }
        limit
    }

    /// Puts every output that any flow drives to its safe level and forgets the flows.
    pub fn stop(&mut self, effects: &mut Effects) {
        self.make_safe(effects);
        self.flows.clear();
        self.wakes.clear();
    }

    /// Puts every output that any flow drives to its safe level, for the stop: the flows do not know.
    pub(super) fn make_safe(&self, effects: &mut Effects) {
        effects.extend(self.graphs().flat_map(|(_, graph)| safe_outputs(graph)));
    }

    /// The graph of a flow that is there.
    pub fn graph(&self, flow: u32) -> &Arc<Graph> {
        let flow = self.there(flow);
        &flow.expect("only flows that are there are asked for").graph
    }

    /// The flows that are there, with their places.
    pub fn graphs(&self) -> impl Iterator<Item = (u32, &Arc<Graph>)> {
        let places = (0..).zip(&self.flows);
        places.filter_map(|(index, place)| match place {
            Entry::Here(flow) => Some((index, &flow.graph)),
            _ => None,
        })
    }

    /// Events and messages that were not handled because their flow had stopped, or its node was gone, in all flows.
    pub fn missed(&self) -> u64 {
        let here = self.flows.iter().map(|place| match place {
            Entry::Here(flow) => flow.counters.missed,
            _ => 0,
        });
        self.missed_by_gone + here.sum::<u64>()
    }

    pub fn counters(&self, flow: u32) -> FlowCounters {
        self.there(flow)
            .map(|flow| flow.counters)
            .unwrap_or_default()
    }

    /// Whether a node that is watched is told to be failing.
    pub(super) fn is_failing(&self, node: Address) -> bool {
        let flow = self.there(node.flow);
        let slot = flow.and_then(|flow| flow.slots.get(usize::from(node.node.0)));
        slot.is_some_and(|slot| slot.watchers.is_failing())
    }

    /// Shows what a node sends from now on, as [`Effect::Tapped`], or no longer. The flow may be the one that is added next: then what
    /// it sends at its start is shown too.
    pub fn tap(&mut self, node: Address, is_on: bool) {
        if node.flow == self.places() {
            self.taps_of_next.retain(|tapped| *tapped != node.node);
            self.taps_of_next.extend(is_on.then_some(node.node));
            return;
        }
        let Some(flow) = self.there_mut(node.flow) else {
            return;
        };
        flow.taps.retain(|tapped| *tapped != node.node);
        if is_on {
            flow.taps.push(node.node);
        }
        // While the flow is stopped there is no slot; it is tapped when the flow is built again.
        if let Some(slot) = flow.slots.get_mut(usize::from(node.node.0)) {
            slot.is_tapped = is_on;
        }
    }

    /// Takes back the wake-up that a node has asked for: it rests until a message comes to it.
    pub fn rest(&mut self, node: Address) {
        let slots = self.there_mut(node.flow).map(|flow| &mut flow.slots);
        if let Some(slot) = slots.and_then(|slots| slots.get_mut(usize::from(node.node.0))) {
            slot.wake = None;
        }
    }

    fn wake_node(
        &mut self,
        index: u32,
        node: NodeId,
        mono: Duration,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(Entry::Here(flow)) = self.flows.get_mut(index as usize) else {
            return;
        };
        let Some(slot) = flow.slots.get_mut(usize::from(node.0)) else {
            return;
        };
        if slot.queued != Some(mono) {
            return;
        }
        slot.queued = None;
        match slot.wake {
            Some(wanted) if wanted <= now.mono => {
                slot.wake = None;
                self.run(index, now, effects, |flow, effects| {
                    let here = Address { flow: index, node };
                    let before = effects.len();
                    flow.call(here, now, effects, |node, cx| node.wake(cx));
                    flow.tell_watchers(here, None, before, false, now, effects);
                    flow.drain(index, now, effects);
                });
            }
            Some(wanted) => queue_wake(&mut self.wakes, index, node, slot, wanted),
            None => {}
        }
    }

    /// Starts the nodes of a flow; those that a checkpoint fits go on from it.
    fn start(
        &mut self,
        index: u32,
        from: Option<(Arc<Checkpoint>, Pause)>,
        now: Now,
        effects: &mut Effects,
    ) {
        let is_restored = from.is_some();
        self.run(index, now, effects, |flow, effects| {
            let names = flow.graph.nodes().iter();
            let names = names.filter(|_| is_restored).map(|node| node.name.clone());
            with_names(names.collect(), || {
                flow.start_nodes(index, from, now, effects)
            });
            flow.tell_of_restart(index, now);
            flow.drain(index, now, effects);
        });
    }

    fn restart(&mut self, index: u32, now: Now, effects: &mut Effects) {
        let is_stopped = self.there(index).is_some_and(|flow| flow.slots.is_empty());
        if !is_stopped {
            return;
        }
        self.build_and_start(index, now, effects);
        if self.runs(index) {
            effects.push(Effect::FlowRestarted { flow: index });
        }
    }

    fn build_and_start(&mut self, index: u32, now: Now, effects: &mut Effects) {
        let flow = self.here(index);
        flow.started = now.mono;
        let graph = flow.graph.clone();
        match self.build(&graph) {
            Ok(slots) => {
                let flow = self.here(index);
                flow.take(slots);
                let from = flow.checkpoint.clone().map(|it| (it, Pause::Restart));
                self.start(index, from, now, effects);
            }
            Err(problem) => self.stopped(index, now, None, problem, effects),
        }
    }

    fn build(&self, graph: &Graph) -> Result<Vec<Slot>, String> {
        match catch_unwind(AssertUnwindSafe(|| build(graph, &self.device))) {
            Ok(Ok(slots)) => Ok(slots),
            Ok(Err(error)) => Err(chain(&error)),
            Err(panic) => Err(panic_text(panic.as_ref())),
        }
    }

    /// Runs part of a flow, contains a panic in it, and takes over the wake-ups that its nodes asked for.
    fn run(
        &mut self,
        index: u32,
        now: Now,
        effects: &mut Effects,
        part: impl FnOnce(&mut Flow, &mut Effects),
    ) {
        let Some(Entry::Here(flow)) = self.flows.get_mut(index as usize) else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| part(flow, effects)));
        if let Err(panic) = outcome {
            let node = flow.current;
            self.stopped(index, now, Some(node), panic_text(panic.as_ref()), effects);
            return;
        }
        let Flow { slots, asked, .. } = &mut **flow;
        for node in asked.drain(..) {
            let slot = &mut slots[usize::from(node.0)];
            if let Some(wanted) = slot.unqueued_wake() {
                queue_wake(&mut self.wakes, index, node, slot, wanted);
            }
        }
    }

    fn stopped(
        &mut self,
        index: u32,
        now: Now,
        node: Option<NodeId>,
        panic: String,
        effects: &mut Effects,
    ) {
        let flow = self.here(index);
        if now.mono.saturating_sub(flow.started) > LONGEST_BACK_OFF {
            flow.back_off = FIRST_BACK_OFF;
        }
        let again_in = flow.back_off;
        if again_in > FIRST_BACK_OFF {
            // What it remembers may be why it panics.
            flow.checkpoint = None;
        }
        flow.back_off = (flow.back_off * 2).min(LONGEST_BACK_OFF);
        flow.counters.panics += 1;
        flow.drop_nodes();
        flow.panicked = Some((node, panic.clone()));
        effects.extend(safe_outputs(&flow.graph));
        effects.push(Effect::FlowStopped {
            flow: index,
            node,
            panic,
            again_in,
        });
        self.wakes.push(Reverse((
            now.mono + again_in,
            Wake::Restart { flow: index },
        )));
    }
}

fn queue_wake(
    wakes: &mut BinaryHeap<Reverse<(Duration, Wake)>>,
    flow: u32,
    node: NodeId,
    slot: &mut Slot,
    wanted: Duration,
) {
    slot.queued = Some(wanted);
    wakes.push(Reverse((wanted, Wake::Node { flow, node })));
}

/// What puts a flow's outputs to their safe level.
fn safe_outputs(graph: &Graph) -> impl Iterator<Item = Effect> {
    safe(graph.outputs().collect())
}

fn safe(outputs: Vec<(Pin, Level)>) -> impl Iterator<Item = Effect> {
    outputs.into_iter().map(|(pin, safe)| Effect::Output {
        pin,
        drive: safe.into(),
    })
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
