//! What is allowed in a flow, but hardly meant: said of a graph that is valid.

use crate::flow::diagnostic::Report;
use crate::flow::estimate;
use crate::flow::graph::Graph;

/// More messages, or bytes, in a second than the uplink of a plant can be trusted to carry for long.
const MOST_PUBLISHED: f64 = 1_000.0;
const MOST_BYTES: f64 = 1_000_000.0;

pub(super) fn advise(graph: &Graph, report: &mut Report) {
    rates(graph, report);
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

/// Functions in a flow that drives a pin: they may take a tenth of a second each, and the pin waits.
fn scripts_beside_control(graph: &Graph, report: &mut Report) {
    if !graph.is_control() {
        return;
    }
    for node in graph.nodes() {
        if node.node_type.name == "function" {
            let message = format!(
                "node `{}` runs JavaScript in a flow that drives a pin, which waits for it",
                node.name
            );
            let help = "move it to a flow of its own, joined by `link out` and `link in`, or use native nodes";
            report.warning(node.span.clone(), message, Some(help.into()));
        }
    }
}
