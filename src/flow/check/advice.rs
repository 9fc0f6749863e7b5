//! What is allowed in a flow, but hardly meant: said of a graph that is valid.

use std::collections::HashMap;

use crate::board::Pin;
use crate::flow::diagnostic::Report;
use crate::flow::estimate;
use crate::flow::graph::{Graph, GraphNode};
use crate::nodes::Use;
use crate::outbox::Lane;
use crate::sensors::Pins;

/// More messages, or bytes, in a second than the uplink of a plant can be trusted to carry for long.
const MOST_PUBLISHED: f64 = 1_000.0;
const MOST_BYTES: f64 = 1_000_000.0;

pub(super) fn advise(graph: &Graph, report: &mut Report) {
    rates(graph, report);
    lanes(graph, report);
    pins_of_buses(graph, report);
    scripts_beside_control(graph, report);
}

/// A rate that no link could carry.
fn rates(graph: &Graph, report: &mut Report) {
    for (node, load) in graph.nodes().iter().zip(estimate::loads(graph)) {
        let bytes = load.per_second * load.bytes;
        if node.spec.publishes().is_none()
            || !load.per_second.is_finite()
            || (load.per_second <= MOST_PUBLISHED && bytes <= MOST_BYTES)
        {
            continue;
        }
        let message = format!(
            "node `{}` is given up to {:.0} messages, {:.0} bytes, a second: more than a link carries for long",
            node.name, load.per_second, bytes
        );
        let help = "put a `window`, a `filter` or a `throttle` before it, so that the outbox does not fill";
        report.warning(node.span.clone(), message, Some(help.into()));
    }
}

/// Two lanes under one topic: between them there is no order.
fn lanes(graph: &Graph, report: &mut Report) {
    let mut seen: HashMap<String, (&GraphNode, Lane)> = HashMap::new();
    for node in graph.nodes() {
        let Some(publishes) = node.spec.publishes() else {
            continue;
        };
        let topic = publishes
            .topic
            .resolve("{device}", graph.name(), &node.name)
            .fill("{topic}");
        let (first, lane) = *seen.entry(topic).or_insert((node, publishes.lane));
        if lane != publishes.lane {
            let message = format!(
                "nodes `{}` and `{}` publish to one topic with another `priority` or `live_first`: there is no order between them",
                first.name, node.name
            );
            let help = "give them the same, or topics of their own";
            report.warning(node.span.clone(), message, Some(help.into()));
        }
    }
}

/// Pins that a bus has which this flow's sensors are read over, or may be.
fn pins_of_buses(graph: &Graph, report: &mut Report) {
    for (node, needed) in graph.uses() {
        let pins = needed.pins().into_iter();
        for problem in pins.filter_map(|(_, pin)| bus_problem(pin, graph)) {
            let node = &graph.nodes()[usize::from(node.0)];
            let message = format!("node `{}` uses {problem}", node.name);
            let help =
                "use another pin; the bus would move the level, and the pin would disturb the bus";
            report.warning(node.span.clone(), message, Some(help.into()));
        }
    }
}

/// What is wrong with using a pin beside the sensors of a flow.
pub(in crate::flow) fn bus_problem(pin: Pin, sensors: &Graph) -> Option<String> {
    let bus = pin.bus()?;
    let sensors = || {
        let uses = sensors.uses();
        uses.filter_map(|(node, needed)| match needed {
            Use::Sensor(spec) => Some((sensors.node_name(node), spec)),
            _ => None,
        })
    };
    let reader = match pin.number() {
        // Read at every boot, whatever the flows do.
        0 | 1 => return Some(format!("{pin}, which is a pin of {bus}")),
        number => sensors().find_map(|(name, spec)| match spec.pins() {
            Pins::Taken(pins) if pins.contains(&number) => Some((name, "is read over it")),
            Pins::MayBe(pins) if pins.contains(&number) => Some((name, "may be read over it")),
            _ => None,
        }),
    };
    let (reader, how) = reader?;
    Some(format!(
        "{pin}, which is a pin of the bus {bus}: `{reader}` {how}"
    ))
}

/// Functions in a flow that drives a pin: they may take a tenth of a second each, and the pin waits.
fn scripts_beside_control(graph: &Graph, report: &mut Report) {
    if !graph.is_control() {
        return;
    }
    for node in graph.nodes() {
        if node.node_type.name == "function" {
            let message = format!(
                "node `{}` runs a JavaScript function, which may take long, in a flow that drives a pin, which waits for it",
                node.name
            );
            let help = "move it to a flow of its own, joined by `link out` and `link in`, or use native nodes";
            report.warning(node.span.clone(), message, Some(help.into()));
        }
    }
}
