//! How an engine thread changes its flows.
//!
//! A change has two steps, so that it is made whole or not at all:
//!
//! 1. *Prepare*: both engines build the new graphs. Control goes on then. Data stands still, so that nothing of it is on its way
//!    while control changes: data may wait for control, and control never waits for data.
//! 2. *Change*: control swaps its flows between two events, and takes what is in data's queues for flows that come over. Then
//!    data does the same, gets what is left in its queues, and goes on.
//!
//! `flows.rs` sees to the order.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::host::Host;
use super::inputs::ArmedInput;
use super::sensors::Attached;
use super::wiring::{self, Side, WantedInput};
use crate::board::{BoardError, Pin};
use crate::flow::Graph;
use crate::message::NodeId;
use crate::runtime::engine::{Engine, Event, Kept, Swap, Whereabouts};
use crate::runtime::links::{Ends, Linked};
use crate::runtime::node::{Address, Effects};
use crate::sensors::{Sensor, SensorSpec};

/// What an engine thread is asked for.
pub(super) enum Request {
    Prepare(Prepare),
    Change(Box<Change>),
    /// Forget what was prepared.
    GiveUp(Vec<u32>),
}

/// Build graphs, to be swapped in.
pub(super) struct Prepare {
    pub(super) graphs: Vec<Arc<Graph>>,
    /// Sensors to open, by the one that has the board.
    pub(super) sensors: Vec<SensorSpec>,
    /// Flows that will go to the other engine.
    pub(super) leaving: Vec<u32>,
    pub(super) reply: Sender<Result<Prepared, NotBuilt>>,
    /// With it the engine stands still until the change comes, or is given up.
    pub(super) change: Option<Receiver<Change>>,
}

#[derive(Default)]
pub(super) struct Prepared {
    /// Where the graphs will run, in their order.
    pub(super) places: Vec<u32>,
    pub(super) sensors: Vec<Result<Box<dyn Sensor>, BoardError>>,
    pub(super) leaving: Vec<Leaving>,
    /// If flows leave: the edge queue and the link queue, out of which the other engine takes what is for them.
    pub(super) queues: Option<(Receiver<Event>, Receiver<Linked>)>,
}

/// A flow that will go to the other engine.
pub(super) struct Leaving {
    pub(super) kept: Kept,
    /// The places that lead to it, with where their nodes are in it.
    pub(super) leading_here: Vec<(u32, Vec<Option<NodeId>>)>,
}

/// A graph could not be built, for lack of memory.
#[derive(Debug)]
pub(super) struct NotBuilt {
    pub(super) flow: String,
    pub(super) problem: String,
}

/// Swap flows.
pub(super) struct Change {
    pub(super) swaps: Vec<Swap>,
    /// All flows of this engine after it.
    pub(super) flows: BTreeMap<u32, Arc<Graph>>,
    pub(super) sensors: HashMap<Address, Attached>,
    pub(super) inputs: Inputs,
    /// The `link in` nodes of both engines after it.
    pub(super) ends: [Arc<Ends>; 2],
    /// What comes before anything else: what is for flows that come over, and what was taken out of this engine's queues.
    pub(super) first: Vec<Event>,
    /// What the other engine has for flows that come over from it.
    pub(super) takes: Option<Takes>,
    pub(super) reply: Sender<Changed>,
}

pub(super) enum Inputs {
    /// For the one that has the board: what is armed, and what is wanted by all flows of both engines.
    Arm {
        armed: Vec<ArmedInput>,
        wanted: Vec<WantedInput>,
    },
    Armed(Vec<ArmedInput>),
}

impl Inputs {
    /// The pins that are to be inputs, for the one that has the board.
    fn wanted(&self) -> Vec<Pin> {
        match self {
            Inputs::Arm { wanted, .. } => wanted.iter().map(|input| input.pin).collect(),
            Inputs::Armed(_) => Vec::new(),
        }
    }
}

/// The queues of an engine that stands still, and where flows go that leave it: by their places there.
pub(super) struct Takes {
    pub(super) edges: Receiver<Event>,
    pub(super) linked: Receiver<Linked>,
    pub(super) moved: HashMap<u32, (u32, Vec<Option<NodeId>>)>,
}

#[derive(Default)]
pub(super) struct Changed {
    /// What flows that left remembered, in the order of the swaps.
    pub(super) kept: Vec<Kept>,
    /// All inputs, if they were to be armed.
    pub(super) inputs: Vec<(Side, ArmedInput)>,
    /// What the other engine is to handle first.
    pub(super) for_other: Vec<Event>,
}

impl Host {
    pub(super) fn serve_request(&mut self, request: Request, engine: &mut Engine) {
        match request {
            Request::Prepare(prepare) => self.prepare(prepare, engine),
            Request::Change(change) => self.change(*change, engine),
            Request::GiveUp(places) => {
                for place in places {
                    engine.give_up(place);
                }
            }
        }
    }

    fn prepare(&mut self, prepare: Prepare, engine: &mut Engine) {
        let Prepare {
            graphs,
            sensors,
            leaving,
            reply,
            change,
        } = prepare;
        let mut prepared = Prepared::default();
        for graph in graphs {
            let flow = graph.name().to_string();
            match engine.prepare(graph, self.clock.now()) {
                Ok(place) => prepared.places.push(place),
                Err(problem) => {
                    self.serve_request(Request::GiveUp(prepared.places), engine);
                    // Who asked may have gone.
                    let _ = reply.send(Err(NotBuilt { flow, problem }));
                    return;
                }
            }
        }
        if let Some(board) = &mut self.board {
            prepared.sensors = sensors.iter().map(|spec| board.sensor(spec)).collect();
        }
        let places = prepared.places.clone();
        self.places = engine.places();
        if !leaving.is_empty() {
            self.settle_backlog(engine);
            prepared.queues = Some((self.inbox.edges.clone(), self.inbox.linked.clone()));
        }
        prepared.leaving = leaving
            .into_iter()
            .map(|flow| Leaving {
                leading_here: engine.leading_to(flow),
                kept: engine.keep(flow, self.clock.now()),
            })
            .collect();
        // Before what the other engine delivers for flows that go there.
        self.hand_over_drafts();
        let is_heard = reply.send(Ok(prepared)).is_ok();
        let Some(change) = change else {
            if !is_heard {
                self.serve_request(Request::GiveUp(places), engine);
            }
            return;
        };
        match change.recv() {
            Ok(change) => self.change(change, engine),
            Err(_) => self.serve_request(Request::GiveUp(places), engine),
        }
    }

    /// Who asked gets an answer even after a panic: what is to run from now on is noted first, and is what starts again.
    fn change(&mut self, mut change: Change, engine: &mut Engine) {
        let before = std::mem::replace(&mut self.flows, std::mem::take(&mut change.flows));
        self.log.set_flows(&self.flows);
        self.readers.set(std::mem::take(&mut change.sensors));
        for (link, ends) in self.links.iter_mut().zip(change.ends.clone()) {
            link.lead_to(ends);
        }
        let reply = change.reply.clone();
        let wanted = change.inputs.wanted();
        let mut changed = Changed::default();
        let swapped = catch_unwind(AssertUnwindSafe(|| self.swap(change, engine, &mut changed)));
        if swapped.is_err() {
            // Who starts again sees to the outputs that it has, and to no others.
            let outputs = before.values().flat_map(|flow| flow.outputs());
            self.drive_safe(outputs.filter(|(pin, _)| !wanted.contains(pin)));
        }
        self.hand_over_drafts();
        let _ = reply.send(changed);
        if let Err(panic) = swapped {
            resume_unwind(panic);
        }
    }

    /// What is in `changed` holds even if the rest fails.
    fn swap(&mut self, change: Change, engine: &mut Engine, changed: &mut Changed) {
        let Change {
            swaps,
            inputs,
            first,
            takes,
            ..
        } = change;
        let wanted_pins = inputs.wanted();
        // Before the flows: those that start again after a failure have them too.
        match (inputs, &mut self.board) {
            (Inputs::Arm { armed, wanted }, Some(board)) => {
                let edges = [&self.ways[0].edges, &self.ways[1].edges].map(Sender::clone);
                let (board, counters) = (board.as_mut(), &self.counters);
                changed.inputs = wiring::arm(board, armed, &wanted, &edges, counters, &self.clock);
                let own = changed.inputs.iter().filter(|(side, _)| *side == self.side);
                self.inputs = own.map(|(_, input)| input.clone()).collect();
            }
            (Inputs::Armed(inputs), _) => self.inputs = inputs,
            (Inputs::Arm { .. }, None) => {}
        }
        // They are no outputs any more, and must not become some again.
        self.unmet.retain(|pin, _| !wanted_pins.contains(pin));

        let is_left = swaps.iter().any(|swap| swap.goes_to.is_some());
        let brought = swaps.iter().map(|swap| (swap.new, swap.brings.clone()));
        let brought: Vec<_> = brought.collect();
        let mut effects = Effects::new();
        let swapped = engine.swap(swaps, self.clock.now(), &mut effects);
        self.remember(&brought, &swapped.kept);
        changed.kept = swapped.kept;
        assert_eq!(
            engine.graphs().count(),
            self.flows.len(),
            "what was prepared is lost, because the engine thread had to start again meanwhile"
        );
        for (pin, safe) in swapped.left {
            if !wanted_pins.contains(&pin) {
                self.drive(pin, safe.into());
            }
        }
        self.perform(engine, &mut effects);
        self.watchers.follow(engine);
        self.take_first(first, engine);
        if let Some(takes) = takes {
            let rest = self.take_over(takes, engine);
            changed.for_other.extend(rest);
        }
        if is_left {
            changed.for_other.extend(self.set_apart(engine));
        }
    }

    /// What the flows start again from if this thread fails.
    fn remember(&mut self, brought: &[(Option<u32>, Kept)], kept: &[Kept]) {
        for ((new, brought), kept) in brought.iter().zip(kept) {
            let state = kept.state.as_ref().or(brought.state.as_ref());
            if let (Some(new), Some((checkpoint, _))) = (new, state) {
                self.kept.insert(*new, checkpoint.clone());
            }
        }
        self.kept.retain(|place, _| self.flows.contains_key(place));
    }

    /// Readings and edges are handled at once, for edges that come later must not come before them; messages in their turn.
    fn take_first(&mut self, first: Vec<Event>, engine: &mut Engine) {
        for event in first {
            match event {
                Event::Input { .. } => self.handle(event, engine),
                Event::Messages { .. } => self.backlog.push_back(event),
            }
        }
    }

    /// Takes what is for flows that come over out of the queues of the other engine; gives back the rest.
    fn take_over(&mut self, takes: Takes, engine: &mut Engine) -> Vec<Event> {
        let Takes {
            edges,
            linked,
            moved,
        } = takes;
        let linked = linked.try_iter().map(Event::from);
        let (mut ours, mut rest) = (Vec::new(), Vec::new());
        for event in edges.try_iter().chain(linked) {
            let to = event.to();
            let Some((flow, nodes)) = moved.get(&to.flow) else {
                rest.push(event);
                continue;
            };
            match nodes.get(usize::from(to.node.0)).copied().flatten() {
                Some(node) => ours.push(event.redirected(Address { flow: *flow, node })),
                None => self.counters.missed.add(1),
            }
        }
        self.take_first(ours, engine);
        rest
    }

    /// What has come here for flows that went to the other engine; the rest stays.
    fn set_apart(&mut self, engine: &mut Engine) -> Vec<Event> {
        let mut apart = Vec::new();
        let mut edges: Vec<Event> = self.inbox.edges.try_iter().collect();
        let mut messages = std::mem::take(&mut self.backlog);
        messages.extend(self.inbox.linked.try_iter().map(Event::from));
        let mut unless_theirs = |event: Event| match engine.locate(event.to()) {
            Whereabouts::Elsewhere(there) => {
                apart.push(event.redirected(there));
                None
            }
            _ => Some(event),
        };
        edges = edges.into_iter().filter_map(&mut unless_theirs).collect();
        self.backlog = messages.into_iter().filter_map(unless_theirs).collect();
        for edge in edges {
            self.handle(edge, engine);
        }
        apart
    }
}
