//! Which flow runs where, and what it is to be connected to.

use crate::board::{Board, Pin, Pull};
use crate::flow::Graph;
use crate::nodes::Use;
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::driver::chain;
use crate::runtime::driver::inputs::ArmedInput;
use crate::runtime::driver::subscribing::Route;
use crate::runtime::engine::Event;
use crate::runtime::node::Address;
use crate::runtime::pulses::Counting;
use crate::sensors::SensorSpec;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// One of the two engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Control,
    Data,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Control, Side::Data];

    /// Where a flow belongs.
    pub(super) fn of(graph: &Graph) -> Side {
        if graph.is_control() {
            Side::Control
        } else {
            Side::Data
        }
    }

    /// What messages to the user call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Side::Control => "control engine",
            Side::Data => "data engine",
        }
    }

    pub(super) fn other(self) -> Side {
        match self {
            Side::Control => Side::Data,
            Side::Data => Side::Control,
        }
    }

    /// Its place in pairs.
    pub(super) fn index(self) -> usize {
        match self {
            Side::Control => 0,
            Side::Data => 1,
        }
    }
}

/// A flow and where it runs.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) side: Side,
    pub(super) place: u32,
    pub(super) graph: Arc<Graph>,
}

/// What a node wants of the board: an input.
pub(super) struct WantedInput {
    pub(super) side: Side,
    pub(super) node: Address,
    pub(super) pin: Pin,
    pub(super) pull: Pull,
    /// What counts, of an input whose pulses are counted.
    counting: Option<Counting>,
    /// The flow and the node, in words.
    name: String,
}

/// The same: a sensor.
pub(super) struct WantedSensor {
    pub(super) side: Side,
    pub(super) node: Address,
    pub(super) spec: SensorSpec,
    /// The flow and the node, in words.
    pub(super) name: String,
}

/// The inputs that flows want.
pub(super) fn wanted_inputs(flows: &[Placed]) -> Vec<WantedInput> {
    let uses = flows.iter().flat_map(uses);
    let inputs = uses.filter_map(|(flow, node, needed)| {
        let (pin, pull, counting) = match needed {
            Use::Input { pin, pull } => (*pin, *pull, None),
            Use::Pulses {
                pin,
                pull,
                counting,
            } => (*pin, *pull, Some(*counting)),
            _ => return None,
        };
        Some(WantedInput {
            side: flow.side,
            node,
            pin,
            pull,
            counting,
            name: words(flow, node),
        })
    });
    inputs.collect()
}

/// The sensors that flows want.
pub(super) fn wanted_sensors(flows: &[Placed]) -> Vec<WantedSensor> {
    let uses = flows.iter().flat_map(uses);
    let sensors = uses.filter_map(|(flow, node, needed)| match needed {
        Use::Sensor(spec) => Some(WantedSensor {
            side: flow.side,
            node,
            spec: spec.clone(),
            name: words(flow, node),
        }),
        _ => None,
    });
    sensors.collect()
}

/// What flows want of brokers, and the ways in.
pub(super) fn routes(flows: &[Placed], ways: &[Sender<Event>; 2]) -> Vec<Route> {
    let uses = flows.iter().flat_map(uses);
    let routes = uses.filter_map(|(flow, node, needed)| match needed {
        Use::Subscription(subscription) => Some(Route {
            subscription: subscription.clone(),
            node: words(flow, node),
            to: node,
            readings: ways[flow.side.index()].clone(),
        }),
        _ => None,
    });
    routes.collect()
}

fn uses(flow: &Placed) -> impl Iterator<Item = (&Placed, Address, &Use)> {
    let place = flow.place;
    let uses = flow.graph.uses();
    uses.map(move |(node, needed)| (flow, Address { flow: place, node }, needed))
}

fn words(flow: &Placed, node: Address) -> String {
    let node = flow.graph.node_name(node.node);
    format!("flow `{}`, node `{node}`", flow.graph.name())
}

/// Arms the inputs that are wanted. What is armed as it is wanted stays so, and its edges go where they are wanted; what nobody wants is
/// closed. What cannot be had is logged; its node fails when it asks.
pub(super) fn arm(
    board: &mut dyn Board,
    armed: Vec<ArmedInput>,
    wanted: &[WantedInput],
    edges: &[Sender<Event>; 2],
    counters: &Arc<Counters>,
    clock: &Clock,
) -> Vec<(Side, ArmedInput)> {
    for input in &armed {
        if !wanted.iter().any(|wanted| wanted.pin == input.pin) {
            board.close_input(input.pin);
        }
    }
    let mut found = Vec::new();
    for WantedInput {
        side,
        node,
        pin,
        pull,
        counting,
        name,
    } in wanted
    {
        let edges = &edges[side.index()];
        if let Some(input) = armed.iter().find(|input| input.is(*pin, *pull, *counting)) {
            input.lead_to(*node, edges);
            found.push((*side, input.clone()));
            continue;
        }
        let (edges, counters) = (edges.clone(), counters.clone());
        let wanted = (*pin, *pull, *counting);
        match ArmedInput::arm(board, wanted, *node, edges, counters, clock) {
            Ok(input) => found.push((*side, input)),
            Err(error) => tracing::error!("{name}: {}", chain(&error)),
        }
    }
    found
}
