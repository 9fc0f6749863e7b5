//! Flows that change while they run: they get another graph, come, and go, between two events.
//!
//! Terms: a node's *namesake* is the one of the same name in the graph that took its flow's place; its *heir* is a namesake that
//! takes what was for it.
//!
//! A flow that gets another graph gets another place, and what still comes for its old nodes is handed to those of the same name, if
//! they take the same: an edge of another pin, or a reading of another sensor, would be taken for one of theirs. A flow
//! that goes to the other engine leaves word where it is. What is swapped in is built before, so that nothing has changed when it
//! cannot be.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, Entry, Flow, safe};
use crate::board::{Level, Pin};
use crate::flow::{Graph, GraphNode};
use crate::message::NodeId;
use crate::nodes::{Link, Use};
use crate::runtime::clock::Now;
use crate::runtime::node::{Address, Effect, Effects};
use crate::runtime::state::{Checkpoint, Pause};

/// How long what comes for a graph that was replaced is handed to the one in its place. Later comes only what hung in hardware.
const LATE: Duration = Duration::from_secs(60);

/// What took the place of a flow that is gone.
pub(super) struct Successor {
    is_elsewhere: bool,
    /// Its place, in the other engine if it is elsewhere.
    flow: u32,
    /// Each node's heir in it.
    nodes: Vec<Option<NodeId>>,
    /// Each node's namesake in it; none if it is elsewhere.
    namesakes: Vec<Option<NodeId>>,
    since: Duration,
}

/// Where a node is now that flows have got other graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    Here(Address),
    /// In the other engine.
    Elsewhere(Address),
    Gone,
}

/// One flow's part in a change of flows.
#[derive(Debug, Default)]
pub struct Swap {
    /// The place of the flow that leaves.
    pub old: Option<u32>,
    /// What was [prepared](Engine::prepare), in the place of the old one if there is one.
    pub new: Option<u32>,
    /// What a new one remembers that comes from the other engine.
    pub brings: Kept,
    /// Where an old one goes on in the other engine, with its nodes' heirs there.
    pub goes_to: Option<(u32, Vec<Option<NodeId>>)>,
}

/// What a flow takes with it.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// None if it has nothing to go on from. With [`Pause::Restart`] it is not what the nodes remembered last.
    pub state: Option<(Arc<Checkpoint>, Pause)>,
}

impl Kept {
    /// Whether it is what the nodes remembered when it was taken.
    fn is_fresh(&self) -> bool {
        matches!(self.state, Some((_, Pause::Reload)))
    }
}

/// What came of a change of flows.
#[derive(Debug, Default)]
pub struct Swapped {
    /// What each flow that left remembered, in the order of the swaps.
    pub kept: Vec<Kept>,
    /// Pins that no flow here drives any more, with their safe levels; they are as they were.
    pub left: Vec<(Pin, Level)>,
}

impl Engine {
    /// Puts another graph in the place of a flow; gives the new flow's place. Nodes that are as they were go on; what still comes
    /// for the old ones is handed to them. Outputs stay as they are, but for those that no graph drives any more, which
    /// go safe. If the graph cannot be built, the old one stays.
    pub fn replace(
        &mut self,
        old: u32,
        graph: Arc<Graph>,
        now: Now,
        effects: &mut Effects,
    ) -> Result<u32, String> {
        let new = self.prepare(graph, now)?;
        let swap = Swap {
            old: Some(old),
            new: Some(new),
            ..Swap::default()
        };
        let swapped = self.swap(vec![swap], now, effects);
        effects.extend(safe(swapped.left));
        Ok(new)
    }

    /// Stops a flow for good; its outputs go safe. What it remembered last is given back.
    pub fn remove(
        &mut self,
        index: u32,
        now: Now,
        effects: &mut Effects,
    ) -> Option<Arc<Checkpoint>> {
        let swap = Swap {
            old: Some(index),
            ..Swap::default()
        };
        let swapped = self.swap(vec![swap], now, effects);
        effects.extend(safe(swapped.left));
        let kept = swapped.kept.into_iter().next()?;
        kept.state.map(|(checkpoint, _)| checkpoint)
    }

    /// Builds a flow that is to be swapped in, or [given up](Engine::give_up); gives its place.
    pub fn prepare(&mut self, graph: Arc<Graph>, now: Now) -> Result<u32, String> {
        let slots = self.build(&graph)?;
        let index = self.push(graph, now);
        let entry = &mut self.flows[index as usize];
        if let Entry::Here(mut flow) = std::mem::replace(entry, Entry::Gone(None)) {
            flow.slots = slots;
            *entry = Entry::Prepared(flow);
        }
        Ok(index)
    }

    /// Forgets a flow that was prepared.
    pub fn give_up(&mut self, index: u32) {
        if let Entry::Prepared(mut flow) =
            std::mem::replace(&mut self.flows[index as usize], Entry::Gone(None))
        {
            flow.drop_nodes();
        }
    }

    /// Changes flows, all of them between two events. Old ones leave, new ones start from what the old ones remembered. A pin that one
    /// flow leaves to another is not touched in between; those that none has any more are told.
    pub fn swap(&mut self, swaps: Vec<Swap>, now: Now, effects: &mut Effects) -> Swapped {
        self.forget_successors(now);
        let mut swapped = Swapped::default();
        let mut left = Vec::new();
        for swap in &swaps {
            let kept = swap.old.map(|old| self.keep(old, now)).unwrap_or_default();
            swapped.kept.push(kept);
        }
        let mut unsure = Vec::new();
        let mut starts = Vec::new();
        for (swap, kept) in swaps.into_iter().zip(&swapped.kept) {
            let old = swap
                .old
                .and_then(|old| self.take_out(old, swap.new, swap.goes_to, now));
            if let Some(old) = &old {
                left.extend(old.graph.outputs());
                if !kept.is_fresh() {
                    unsure.extend(old.graph.outputs());
                }
            }
            if let Some(new) = swap.new {
                let from = if old.is_some() { kept } else { &swap.brings };
                self.bring_in(new, old);
                starts.push((new, from.state.clone()));
            }
        }
        let driven: HashSet<Pin> = self
            .graphs()
            .flat_map(|(_, graph)| graph.outputs().map(|(pin, _)| pin))
            .collect();
        left.retain(|(pin, _)| !driven.contains(pin));
        swapped.left = left;
        // Nodes that go on from an older state do not know what their outputs are.
        unsure.retain(|(pin, _)| driven.contains(pin));
        effects.extend(safe(unsure));
        for (new, from) in starts {
            self.start_swapped(new, from, now, effects);
        }
        swapped
    }

    /// Takes a flow out, and leaves word of what takes its place.
    fn take_out(
        &mut self,
        old: u32,
        new: Option<u32>,
        goes_to: Option<(u32, Vec<Option<NodeId>>)>,
        now: Now,
    ) -> Option<Flow> {
        let entry = std::mem::replace(&mut self.flows[old as usize], Entry::Gone(None));
        let Entry::Here(mut flow) = entry else {
            self.flows[old as usize] = entry;
            return None;
        };
        let here = new.map(|new| {
            let (nodes, namesakes) = match &self.flows[new as usize] {
                Entry::Here(there) | Entry::Prepared(there) => (
                    heirs(&flow.graph, &there.graph),
                    namesakes(&flow.graph, &there.graph),
                ),
                Entry::Gone(_) => Default::default(),
            };
            Successor {
                is_elsewhere: false,
                flow: new,
                nodes,
                namesakes,
                since: now.mono,
            }
        });
        let there = goes_to.map(|(flow, nodes)| Successor {
            is_elsewhere: true,
            flow,
            nodes,
            namesakes: Vec::new(),
            since: now.mono,
        });
        let successor = here.or(there);
        self.flows[old as usize] = Entry::Gone(successor.map(Box::new));
        // Wake-ups of an hour ahead would pile up.
        self.wakes.retain(|Reverse((_, wake))| wake.flow() != old);
        flow.drop_nodes();
        if new.is_none() {
            self.missed_by_gone += flow.counters.missed;
        }
        Some(*flow)
    }

    /// Puts a flow that was prepared in its place, after the one that was there.
    fn bring_in(&mut self, new: u32, old: Option<Flow>) {
        let entry = &mut self.flows[new as usize];
        let Entry::Prepared(mut flow) = std::mem::replace(entry, Entry::Gone(None)) else {
            return;
        };
        if let Some(old) = old {
            flow.take_over(old);
        }
        let slots = std::mem::take(&mut flow.slots);
        flow.take(slots);
        *entry = Entry::Here(flow);
    }

    fn start_swapped(
        &mut self,
        new: u32,
        from: Option<(Arc<Checkpoint>, Pause)>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some(flow) = self.there_mut(new) else {
            return;
        };
        let had_stopped = flow.panicked.is_some();
        flow.started = now.mono;
        flow.checkpoint = from.as_ref().map(|(checkpoint, _)| checkpoint.clone());
        self.start(new, from, now, effects);
        if had_stopped && self.runs(new) {
            effects.push(Effect::FlowRestarted { flow: new });
        }
    }

    /// Who takes what is for a node, now that flows have got other graphs; none if nobody in this engine does.
    pub fn follow(&self, to: Address) -> Option<Address> {
        match self.locate(to) {
            Whereabouts::Here(there) => Some(there),
            Whereabouts::Elsewhere(_) | Whereabouts::Gone => None,
        }
    }

    /// The node of the same name, now that flows have got other graphs, even if it takes something else.
    pub fn namesake(&self, mut of: Address) -> Option<Address> {
        loop {
            let successor = match self.flows.get(of.flow as usize)? {
                Entry::Here(_) => return Some(of),
                Entry::Gone(Some(successor)) => successor,
                _ => return None,
            };
            of = Address {
                flow: successor.flow,
                node: (*successor.namesakes.get(usize::from(of.node.0))?)?,
            };
        }
    }

    /// As [`Engine::follow`], also for what has gone to the other engine.
    pub fn locate(&self, mut to: Address) -> Whereabouts {
        loop {
            let successor = match self.flows.get(to.flow as usize) {
                Some(Entry::Here(_)) => return Whereabouts::Here(to),
                Some(Entry::Gone(Some(successor))) => successor,
                _ => return Whereabouts::Gone,
            };
            let node = successor.nodes.get(usize::from(to.node.0));
            let Some(node) = node.copied().flatten() else {
                return Whereabouts::Gone;
            };
            to = Address {
                flow: successor.flow,
                node,
            };
            if successor.is_elsewhere {
                return Whereabouts::Elsewhere(to);
            }
        }
    }

    /// All places that lead to a flow: its own, and those of graphs that it had before, each with where its nodes are now.
    pub(in crate::runtime) fn leading_to(&self, flow: u32) -> Vec<(u32, Vec<Option<NodeId>>)> {
        let nodes_of = |entry: &Entry| match entry {
            Entry::Here(flow) => flow.graph.nodes().len(),
            Entry::Gone(Some(successor)) => successor.nodes.len(),
            _ => 0,
        };
        let entries = (0..).zip(&self.flows).map(|(from, entry)| {
            let nodes = (0..nodes_of(entry)).map(|node| {
                let node = NodeId(u16::try_from(node).ok()?);
                let there = self.follow(Address { flow: from, node })?;
                (there.flow == flow).then_some(there.node)
            });
            (from, nodes.collect::<Vec<_>>())
        });
        entries
            .filter(|(_, nodes)| nodes.iter().any(Option::is_some))
            .collect()
    }

    /// Forgets what took the place of flows that have been gone for long.
    fn forget_successors(&mut self, now: Now) {
        for entry in &mut self.flows {
            if let Entry::Gone(successor) = entry
                && successor
                    .as_ref()
                    .is_some_and(|it| now.mono.saturating_sub(it.since) > LATE)
            {
                *successor = None;
            }
        }
    }
}

impl Flow {
    /// What is kept of the flow in whose place this one is, beside what its nodes remember.
    fn take_over(&mut self, old: Flow) {
        let nodes = namesakes(&old.graph, &self.graph);
        let place = |node: NodeId| nodes.get(usize::from(node.0)).copied().flatten();
        let ports = |graph: &Graph, node: NodeId| graph.nodes()[usize::from(node.0)].ports.clone();
        let taps = old.taps.iter().filter_map(|tap| {
            let there = place(*tap)?;
            // Who watches was told its ports.
            (ports(&old.graph, *tap) == ports(&self.graph, there)).then_some(there)
        });
        self.taps = taps.collect();
        self.counters = old.counters;
        self.panicked = old
            .panicked
            .map(|(node, panic)| (node.and_then(place), panic));
    }
}

/// Outputs that may not go on as they were after a reload, because something before them begins anew or is wired differently:
/// an interlock that begins anew takes everything to be off, and a pin that stayed on behind it would prove it wrong. They begin
/// at their safe level.
pub(super) fn unsure_outputs(graph: &Graph, checkpoint: &Checkpoint) -> HashSet<NodeId> {
    let nodes = graph.nodes();
    let is_as_it_was = |(node, wires): (&GraphNode, u32)| {
        let remembered = checkpoint.nodes.get(&node.name);
        remembered.is_some_and(|it| it.print == node.print && it.wires == wires)
    };
    let mut is_unsure = vec![false; nodes.len()];
    let changed = nodes.iter().zip(graph.wires()).map(is_as_it_was);
    let changed = changed
        .enumerate()
        .filter(|(_, is_as_it_was)| !is_as_it_was);
    let mut open: Vec<usize> = changed.map(|(place, _)| place).collect();
    while let Some(place) = open.pop() {
        if !std::mem::replace(&mut is_unsure[place], true) {
            let readers = nodes[place].readers.iter().flatten();
            open.extend(readers.map(|reader| usize::from(reader.0)));
        }
    }
    let uses = graph
        .uses()
        .filter(|(_, needed)| matches!(needed, Use::Output { .. }));
    let outputs = uses.map(|(output, _)| output);
    outputs
        .filter(|output| is_unsure[usize::from(output.0)])
        .collect()
}

/// For each node of a graph, that of the same name in another one.
fn namesakes(from: &Graph, to: &Graph) -> Vec<Option<NodeId>> {
    let numbers = (0..=u16::MAX).map(NodeId);
    let places: HashMap<&str, NodeId> = to
        .nodes()
        .iter()
        .zip(numbers)
        .map(|(node, id)| (&*node.name, id))
        .collect();
    let nodes = from.nodes().iter();
    nodes.map(|node| places.get(&*node.name).copied()).collect()
}

/// For each node of a graph, that in another one which takes what is for it: one of the same name, with the same pin or sensor, and
/// a `link in` for a `link in`.
pub(in crate::runtime) fn heirs(from: &Graph, to: &Graph) -> Vec<Option<NodeId>> {
    let is_link_in = |node: &GraphNode| matches!(node.spec.link(), Some(Link::In(_)));
    let takes_the_same = |old: &GraphNode, new: &GraphNode| {
        old.uses == new.uses && is_link_in(old) == is_link_in(new)
    };
    let nodes = from.nodes().iter().zip(namesakes(from, to));
    nodes
        .map(|(node, namesake)| {
            namesake.filter(|there| takes_the_same(node, &to.nodes()[usize::from(there.0)]))
        })
        .collect()
}
