//! What lies on the wires: cycles, and ways that multiply.
//!
//! Wires are given as, per node and port, the nodes that read it.

use crate::flow::diagnostic::Report;
use crate::flow::file::WrittenNode;
use crate::message::NodeId;

/// Per node and port, the nodes that read it, in file order.
pub(crate) type Wires = Vec<Vec<Vec<NodeId>>>;

/// Ways on which one message may come to one node.
const MOST_WAYS: u64 = 1_000;

/// A message that could come back to where it was in the same moment would never stop. Says whether there is a cycle.
pub(super) fn has_cycle(wires: &Wires, nodes: &[WrittenNode<'_>], report: &mut Report) -> bool {
    let mut is_stuck = vec![true; wires.len()];
    for node in in_order(wires) {
        is_stuck[node] = false;
    }
    // What is left is on a cycle or behind one: walk back along inputs until a node comes up twice.
    let Some(start) = is_stuck.iter().position(|is_stuck| *is_stuck) else {
        return false;
    };
    let sender_of = |node: usize| {
        (0..wires.len()).find(|sender| {
            is_stuck[*sender] && targets(wires, *sender).any(|target| target == node)
        })
    };
    let mut path = vec![start];
    while let Some(sender) = sender_of(path[path.len() - 1]) {
        if let Some(first) = path.iter().position(|node| *node == sender) {
            path.drain(..first);
            path.push(sender);
            break;
        }
        path.push(sender);
    }
    path.reverse();
    let names = path
        .iter()
        .map(|node| nodes[*node].full_name())
        .collect::<Vec<_>>()
        .join(" -> ");
    let node = &nodes[path[0]];
    let span = node.from_span.clone().unwrap_or_else(|| node.name.span());
    let help = "a message would go round for ever; take one of these wires away, or put a `delay` among them";
    let message = format!("the wires make a cycle without a delay: {names}");
    report.error(span, message, Some(help.into()));
    true
}

/// Wires that part and meet again deliver a message once for each way; with many of them, more often than anyone wants.
pub(super) fn count_ways(wires: &Wires, nodes: &[WrittenNode<'_>], report: &mut Report) {
    let mut ways = vec![0_u64; wires.len()];
    for node in in_order(wires) {
        ways[node] = ways[node].max(1);
        for target in targets(wires, node) {
            ways[target] = ways[target].saturating_add(ways[node]);
        }
    }
    if let Some(node) = ways.iter().position(|ways| *ways > MOST_WAYS) {
        let node = &nodes[node];
        let span = node.from_span.clone().unwrap_or_else(|| node.name.span());
        let message = format!(
            "there are more than {MOST_WAYS} ways to node `{}`",
            node.full_name()
        );
        let help = "wires that part and meet again multiply messages; take some of them away";
        report.error(span, message, Some(help.into()));
    }
}

/// The nodes in an order in which each comes after all that it reads from; without those that are on a cycle or behind one.
pub(crate) fn in_order(wires: &Wires) -> Vec<usize> {
    let mut inputs = vec![0_usize; wires.len()];
    for node in 0..wires.len() {
        targets(wires, node).for_each(|target| inputs[target] += 1);
    }
    let mut order: Vec<usize> = (0..wires.len()).filter(|node| inputs[*node] == 0).collect();
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for target in targets(wires, node) {
            inputs[target] -= 1;
            if inputs[target] == 0 {
                order.push(target);
            }
        }
    }
    order
}

fn targets(wires: &Wires, node: usize) -> impl Iterator<Item = usize> {
    wires[node].iter().flatten().map(|id| usize::from(id.0))
}
