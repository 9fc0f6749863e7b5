//! One flow of an engine: its nodes, and how a message runs through them to completion.
//!
//! Terms: a *slot* is a node with what the engine keeps for it: its wires, its wake-up, who watches it.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::swap::unsure_outputs;
use super::{FlowCounters, panic_text};
use crate::flow::Graph;
use crate::message::{Message, NodeId, Value};
use crate::nodes::BuildError;
use crate::runtime::clock::Now;
use crate::runtime::driver::chain;
use crate::runtime::node::{Address, Context, Effect, Effects, Node, queue_for};
use crate::runtime::state::{Checkpoint, Pause, Remembered, StateError, with_names};
use crate::runtime::watchers::{Place, Watchers, watchers};

/// Messages that may be on their way in one flow at once. Only what multiplies messages by the thousand comes there.
const MOST_QUEUED: usize = 200_000;

/// By how much a checkpoint may be later than the time at which a flow goes on from it: one engine takes it, and the other one may have
/// looked at the clock before.
const APART: Duration = Duration::from_secs(60);

pub(super) struct Flow {
    pub(super) graph: Arc<Graph>,
    /// Empty while the flow is stopped.
    pub(super) slots: Vec<Slot>,
    /// The last checkpoint, to go on from after a panic.
    pub(super) checkpoint: Option<Arc<Checkpoint>>,
    pub(super) queue: VecDeque<(NodeId, Message)>,
    pub(super) counters: FlowCounters,
    /// Nodes that asked for a wake-up which is not in the engine's heap yet.
    pub(super) asked: Vec<NodeId>,
    /// Nodes that someone outside watches.
    pub(super) taps: Vec<NodeId>,
    /// The node being called, to name it after a panic.
    pub(super) current: NodeId,
    pub(super) started: Duration,
    pub(super) back_off: Duration,
    /// The panic after which the flow is to be started again, and the node that had it.
    pub(super) panicked: Option<(Option<NodeId>, String)>,
}

pub(super) struct Slot {
    pub(super) node: Box<dyn Node>,
    pub(super) outputs: Box<[Box<[NodeId]>]>,
    /// Nodes that hear of what this one cannot handle, and of its state.
    pub(super) watchers: Watchers,
    /// Whether someone outside wants to see what it sends.
    pub(super) is_tapped: bool,
    /// When the node wants to be woken.
    pub(super) wake: Option<Duration>,
    /// The earliest entry for it in the engine's heap; later ones are ignored when they come up.
    pub(super) queued: Option<Duration>,
}

impl Flow {
    /// Takes over nodes that were built.
    pub(super) fn take(&mut self, slots: Vec<Slot>) {
        self.slots = slots;
        for node in &self.taps {
            self.slots[usize::from(node.0)].is_tapped = true;
        }
    }

    /// Stops: drops the nodes and what was on its way. A node's own clean-up may panic.
    pub(super) fn drop_nodes(&mut self) {
        self.counters.missed += self.queue.len() as u64;
        self.queue.clear();
        self.asked.clear();
        let slots = std::mem::take(&mut self.slots);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(slots))) {
            tracing::error!(
                "flow `{}`: a node panicked when it was dropped: {}",
                self.graph.name(),
                panic_text(panic.as_ref())
            );
        }
    }

    pub(super) fn save(&self, now: Now) -> Checkpoint {
        let nodes = self.graph.nodes();
        let wires = self.graph.wires();
        let nodes_and_slots = nodes.iter().zip(&self.slots).zip(wires);
        let names = nodes.iter().map(|node| node.name.clone()).collect();
        let remembered = with_names(names, || {
            let remembered = nodes_and_slots.map(|((node, slot), wires)| {
                let state = slot.node.save();
                let remembered = Remembered {
                    print: node.print,
                    wires,
                    // Without a state it starts anew, and asks anew: a tick would make each checkpoint another one.
                    wake: slot.wake.filter(|_| state.is_some()),
                    state,
                    is_failing: slot.watchers.is_failing(),
                };
                (node.name.clone(), remembered)
            });
            remembered.collect()
        });
        Checkpoint {
            flow: self.graph.name().to_string(),
            mono: now.mono,
            wall: now.wall,
            nodes: remembered,
        }
    }

    pub(super) fn start_nodes(
        &mut self,
        index: u32,
        from: Option<(Arc<Checkpoint>, Pause)>,
        now: Now,
        effects: &mut Effects,
    ) {
        let unsure = match &from {
            Some((checkpoint, Pause::Reload)) => unsure_outputs(&self.graph, checkpoint),
            _ => HashSet::new(),
        };
        for node in 0..self.slots.len() {
            let node =
                NodeId(u16::try_from(node).expect("the checker limits a flow to 65,535 nodes"));
            let here = Address { flow: index, node };
            let before = effects.len();
            let resumed = match &from {
                Some((checkpoint, pause)) if !unsure.contains(&node) => {
                    self.resume(here, checkpoint, *pause, now, effects)
                }
                _ => Ok(false),
            };
            if let Err(error) = &resumed {
                let reason = chain(error);
                effects.push(Effect::Forgot { from: here, reason });
            }
            if !matches!(resumed, Ok(true)) {
                self.call(here, now, effects, |node, cx| node.start(cx));
            }
            self.tell_watchers(here, None, before, false, now, effects);
        }
    }

    /// Lets a node go on from a checkpoint, within [`with_names`]. Says whether it did; what stands there may be for another node.
    fn resume(
        &mut self,
        here: Address,
        checkpoint: &Checkpoint,
        pause: Pause,
        now: Now,
        effects: &mut Effects,
    ) -> Result<bool, StateError> {
        let place = usize::from(here.node.0);
        let node = &self.graph.nodes()[place];
        let Some(remembered) = checkpoint.nodes.get(&node.name) else {
            return Ok(false);
        };
        if remembered.print != node.print {
            return Ok(false);
        }
        let slot = &mut self.slots[place];
        slot.watchers.was_failing(remembered.is_failing);
        let Some(state) = &remembered.state else {
            return Ok(false);
        };
        if checkpoint.mono > now.mono.saturating_add(APART) {
            // Its deadlines would be in a future of days: a sensor that is not read, an output that must not change.
            return Err(StateError::unfit("it is from a time that has not come"));
        }
        slot.wake = remembered.wake;
        let mut resumed = Ok(());
        self.call(here, now, effects, |node, cx| {
            resumed = node.resume(state, pause, cx);
            if resumed.is_err() {
                cx.cancel_wake();
            }
        });
        resumed.map(|()| true)
    }

    /// Calls one node. Returns the port out of which it passed on the message it was called with.
    #[inline]
    pub(super) fn call(
        &mut self,
        to: Address,
        now: Now,
        effects: &mut Effects,
        call: impl FnOnce(&mut dyn Node, &mut Context<'_>),
    ) -> Option<usize> {
        let Flow {
            slots,
            queue,
            counters,
            asked,
            current,
            ..
        } = self;
        let slot = &mut slots[usize::from(to.node.0)];
        *current = to.node;
        let mut cx = Context {
            now,
            here: to,
            outputs: &slot.outputs,
            queue,
            effects,
            wake: &mut slot.wake,
            failures: &mut counters.failures,
            is_tapped: slot.is_tapped,
            passed: None,
        };
        call(slot.node.as_mut(), &mut cx);
        let passed = cx.passed;
        if slot.unqueued_wake().is_some() {
            asked.push(to.node);
        }
        passed
    }

    /// Delivers a message to a node, and on to the next ones as long as each has one reader; there the message stays where
    /// it is in memory. The rest is queued.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        flow: u32,
        first: NodeId,
        mut message: Message,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut node = first;
        loop {
            self.counters.deliveries += 1;
            let here = Address { flow, node };
            let original = self.slots[usize::from(node.0)]
                .watchers
                .are_there()
                .then(|| (message.clone(), effects.len()));
            let passed = self.call(here, now, effects, |node, cx| {
                node.message(&mut message, cx)
            });
            if let Some((original, before)) = original {
                self.tell_watchers(here, Some(original), before, true, now, effects);
            }
            let Some(port) = passed else { return };
            message.source = node;
            let slot = &self.slots[usize::from(node.0)];
            if slot.is_tapped {
                effects.push(Effect::Tapped {
                    from: here,
                    port,
                    message: message.clone(),
                });
            }
            match &*slot.outputs[port] {
                [reader] if self.queue.is_empty() => node = *reader,
                readers => return queue_for(readers, message, &mut self.queue),
            }
        }
    }

    /// Delivers what is queued until nothing is left. What one event sets off is bounded: see [`MOST_QUEUED`].
    pub(super) fn drain(&mut self, flow: u32, now: Now, effects: &mut Effects) {
        while let Some((node, message)) = self.queue.pop_front() {
            self.deliver(flow, node, message, now, effects);
            let excess = self.queue.len().saturating_sub(MOST_QUEUED);
            if excess > 0 {
                self.queue.truncate(MOST_QUEUED);
                self.counters.failures += excess as u64;
                effects.push(Effect::Failed {
                    from: Address { flow, node },
                    reason: format!(
                        "more than {MOST_QUEUED} messages were on their way at once; {excess} of them were dropped"
                    ),
                });
            }
        }
    }

    /// After a call of a node: what it could not handle goes to those that watch it, and so does a change of its state.
    /// `before` is how many effects there were before the call; `is_proof` whether a call without a failure shows that the
    /// node works.
    pub(super) fn tell_watchers(
        &mut self,
        from: Address,
        original: Option<Message>,
        before: usize,
        is_proof: bool,
        now: Now,
        effects: &Effects,
    ) {
        let slot = &mut self.slots[usize::from(from.node.0)];
        if slot.watchers.are_there() {
            let place = Place::of(&self.graph, from, now);
            let effects = &effects[before..];
            slot.watchers
                .tell(&place, original, effects, is_proof, &mut self.queue);
        }
    }

    /// After a start that followed a panic: those that watch the node which panicked hear of it.
    pub(super) fn tell_of_restart(&mut self, flow: u32, now: Now) {
        let Some((Some(node), panic)) = self.panicked.take() else {
            return;
        };
        let from = Address { flow, node };
        let watchers = &self.slots[usize::from(node.0)].watchers;
        let reason = Value::from(&*panic);
        watchers.tell_state(
            &Place::of(&self.graph, from, now),
            "restarted",
            reason,
            &mut self.queue,
        );
    }
}

impl Slot {
    /// The wake-up that the node wants and that is earlier than what the engine's heap has for it.
    #[inline]
    pub(super) fn unqueued_wake(&self) -> Option<Duration> {
        self.wake
            .filter(|wanted| self.queued.is_none_or(|queued| *wanted < queued))
    }
}

pub(super) fn build(graph: &Graph, device: &Arc<str>) -> Result<Vec<Slot>, BuildError> {
    let mut site = crate::nodes::Surroundings::new(device.clone(), graph);
    graph
        .nodes()
        .iter()
        .zip(watchers(graph))
        .map(|(node, watchers)| {
            site.enter(node);
            Ok(Slot {
                watchers,
                is_tapped: false,
                node: node.spec.build(&site)?,
                outputs: node
                    .readers
                    .iter()
                    .map(|readers| readers.clone().into_boxed_slice())
                    .collect(),
                wake: None,
                queued: None,
            })
        })
        .collect()
}
