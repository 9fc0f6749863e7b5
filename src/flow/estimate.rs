//! What a flow will send and write, told from its text alone: upper bounds, before anything runs.
//!
//! Terms: a *load* is how often messages come and how large they are. Each node's definition says what it sends for what
//! comes in; here that is followed along the wires.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use super::check::wires::{Wires, in_order};
use super::graph::Graph;
use crate::message::Timestamp;
use crate::outbox::{Envelope, RecordId};
use crate::uplink::wire;

/// How many messages, and how large they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Messages in a second, at most; infinite if nothing bounds it, NaN never.
    pub per_second: f64,
    /// The size of one payload as JSON, in bytes: typical, not the largest.
    pub bytes: f64,
}

impl Load {
    /// No messages.
    pub const NONE: Load = Load {
        per_second: 0.0,
        bytes: 0.0,
    };
    /// Messages come, and nothing in the flow tells how many.
    pub const UNKNOWN: Load = Load {
        per_second: f64::INFINITY,
        bytes: Load::NUMBER_BYTES,
    };
    /// A number's typical size as JSON, in bytes.
    pub const NUMBER_BYTES: f64 = 6.0;

    /// One message in each such stretch of time.
    pub fn every(span: Duration, bytes: f64) -> Load {
        Load {
            per_second: 1.0 / span.as_secs_f64().max(1e-9),
            bytes,
        }
    }

    /// The same messages, no more often than once in each stretch.
    pub fn at_most_every(self, span: Duration) -> Load {
        Load {
            per_second: self.per_second.min(1.0 / span.as_secs_f64().max(1e-9)),
            ..self
        }
    }

    /// The same number of messages of another size.
    pub fn sized(self, bytes: f64) -> Load {
        Load { bytes, ..self }
    }

    /// Both together, with their mean size.
    pub fn and(self, other: Load) -> Load {
        let per_second = self.per_second + other.per_second;
        let bytes = if per_second.is_infinite() {
            self.bytes.max(other.bytes)
        } else if per_second > 0.0 {
            (self.per_second * self.bytes + other.per_second * other.bytes) / per_second
        } else {
            0.0
        };
        Load { per_second, bytes }
    }
}

/// A flow's day, at most. None where nothing in the flow tells: it depends on edges, or on messages of other flows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Messages that the flow's sources send.
    pub messages_per_day: Option<u64>,
    /// Messages that go to the cloud.
    pub uplink_messages_per_day: Option<u64>,
    /// What they take as PUBLISH packets, without TLS and TCP.
    pub uplink_bytes_per_day: Option<u64>,
    /// What the outbox writes on a day on which the link is down; while the link is good it writes next to nothing.
    pub flash_bytes_per_day: Option<u64>,
}

const DAY: f64 = 86_400.0;
/// How long a device's id is taken to be, in bytes.
const DEVICE: usize = 12;
/// What the outbox writes for each commit, whatever is in it, and for each byte of a record. Fitted to what
/// `docs/decisions/0002-outbox-format.md` measured: 48 times the payload for commits of 200 B, 5.5 times for 200 kB.
const FLASH_PER_COMMIT: f64 = 9_000.0;
const FLASH_PER_BYTE: f64 = 5.5;
/// Commits in a second, as by default.
const COMMITS: f64 = 1.0;

impl Estimate {
    pub fn of(graph: &Graph) -> Estimate {
        let incoming = loads(graph);
        let sources = graph.nodes().iter().zip(&incoming);
        let sources = sources.filter(|(node, _)| !node.node_type.has_input);
        let messages: f64 = sources
            .map(|(node, _)| node.spec.load(Load::NONE).per_second)
            .filter(|per_second| *per_second > 0.0)
            .sum();
        let (mut uplink, mut bytes, mut records) = (0.0, 0.0, 0.0);
        for (node, load) in graph.nodes().iter().zip(&incoming) {
            if let Some((topic, envelope)) = overheads(graph, node) {
                let packet = wire::publish_size(topic, envelope) as f64 + load.bytes;
                if load.per_second > 0.0 {
                    uplink += load.per_second;
                    bytes += load.per_second * packet;
                    records += load.per_second * (topic as f64 + load.bytes);
                }
            }
        }
        let flash = uplink.min(COMMITS) * FLASH_PER_COMMIT + records * FLASH_PER_BYTE;
        let per_day = |per_second: f64| {
            let per_day = per_second * DAY;
            per_day.is_finite().then_some(per_day.ceil() as u64)
        };
        Estimate {
            messages_per_day: per_day(messages),
            uplink_messages_per_day: per_day(uplink),
            uplink_bytes_per_day: per_day(bytes),
            flash_bytes_per_day: per_day(flash),
        }
    }
}

/// What a node that publishes adds to a payload: the length of the topic, and of the envelope around it.
fn overheads(graph: &Graph, node: &super::graph::GraphNode) -> Option<(usize, usize)> {
    let publishes = node.spec.publishes()?;
    let topic = publishes
        .topic
        .typical_len(DEVICE, graph.name().len(), node.name.len());
    let id = RecordId {
        epoch: 10,
        seq: 100_000,
    };
    let envelope = match publishes.envelope {
        Envelope::Json => {
            wire::json_envelope_len(&"x".repeat(DEVICE), id, Timestamp::from_nanos(1))
        }
        Envelope::None => 0,
    };
    Some((topic, envelope))
}

/// What comes to each node.
pub fn loads(graph: &Graph) -> Vec<Load> {
    /// Along a cycle through a `delay` a load comes round again: after this many rounds it counts as unbounded.
    const ROUNDS: usize = 100;
    let nodes = graph.nodes();
    let wires: Wires = nodes.iter().map(|node| node.readers.clone()).collect();
    // Each node after those that it reads from; those on a cycle come last.
    let mut order = in_order(&wires);
    let ordered: HashSet<usize> = order.iter().copied().collect();
    order.extend((0..nodes.len()).filter(|node| !ordered.contains(node)));
    let mut senders = vec![Vec::new(); nodes.len()];
    for (sender, ports) in wires.iter().enumerate() {
        for reader in ports.iter().flatten() {
            senders[usize::from(reader.0)].push(sender);
        }
    }

    let mut incoming = vec![Load::NONE; nodes.len()];
    let mut sent = vec![Load::NONE; nodes.len()];
    for round in 1..=ROUNDS {
        let mut is_settled = true;
        for &node in &order {
            let mut load = Load::NONE;
            for sender in &senders[node] {
                load = load.and(sent[*sender]);
            }
            if load != incoming[node] && round == ROUNDS {
                load = Load::UNKNOWN;
            }
            is_settled &= load == incoming[node];
            incoming[node] = load;
            sent[node] = nodes[node].spec.load(load);
        }
        if is_settled {
            break;
        }
    }
    incoming
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::graph;

    fn check(flow: &str, expected: [Option<u64>; 4]) {
        let found = Estimate::of(&graph(flow));
        let found = [
            found.messages_per_day,
            found.uplink_messages_per_day,
            found.uplink_bytes_per_day,
            found.flash_bytes_per_day,
        ];
        assert_eq!(found, expected, "{flow}");
    }

    const TICK: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n";
    const REPORT: &str = "[nodes.report]\ntype = 'uplink'\ntopic = 'abcd'\nenvelope = 'none'\n";

    #[test]
    fn messages_are_followed_to_the_cloud() {
        // Fixed header 2, topic 2 + 4, packet id 2, payload 1 byte.
        let bytes = 86_400 * 11;
        let flash = 86_400 * 9_000 + 86_400 * 55 / 2;
        check(
            &format!("{TICK}{REPORT}from = 'tick'"),
            [Some(86_400), Some(86_400), Some(bytes), Some(flash)],
        );
        check(
            &format!("{TICK}[nodes.show]\ntype = 'debug'\nfrom = 'tick'"),
            [Some(86_400), Some(0), Some(0), Some(0)],
        );
    }

    #[test]
    fn what_nothing_bounds_is_not_known() {
        check(
            &format!("[nodes.door]\ntype = 'gpio in'\npin = 22\n{REPORT}from = 'door'"),
            [None; 4],
        );
    }

    #[test]
    fn loads_add_up() {
        let load = Load::every(Duration::from_secs(1), 10.0);
        let both = load.and(Load::every(Duration::from_millis(500), 40.0));
        assert_eq!((both.per_second, both.bytes), (3.0, 30.0));
        assert_eq!(load.and(Load::NONE), load);
        assert_eq!(load.and(Load::UNKNOWN).per_second, f64::INFINITY);
        let slow = both.at_most_every(Duration::from_secs(2));
        assert_eq!(slow.per_second, 0.5);
    }
}
