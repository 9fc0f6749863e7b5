//! What flows say to the log: with names, and never faster than a person can read.
//!
//! A sensor that is unplugged fails ten times a second; the log gets the first of it and then one line every
//! [`REPEAT_AFTER`] with the number of what was left out. Nothing is left out of the counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::Graph;
use crate::message::{Message, NodeId};
use crate::runtime::clock::Now;
use crate::runtime::node::Address;

const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Writes for the flows of one engine.
pub(super) struct FlowLog {
    flows: Vec<Arc<Graph>>,
    /// Per node, or none for the board.
    limits: HashMap<Option<Address>, Limit>,
}

#[derive(Default)]
struct Limit {
    last: Option<Duration>,
    left_out: u64,
}

impl Limit {
    /// How many were left out before this one, if this one is to be written.
    fn admit(&mut self, now: Now) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.mono.saturating_sub(last) < REPEAT_AFTER)
        {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now.mono);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl FlowLog {
    pub(super) fn new(flows: &[Arc<Graph>]) -> FlowLog {
        FlowLog {
            flows: flows.to_vec(),
            limits: HashMap::new(),
        }
    }

    /// `flow/node`.
    pub(super) fn place(&self, address: Address) -> String {
        let flow = &self.flows[address.flow as usize];
        format!("{}/{}", flow.name(), flow.node_name(address.node))
    }

    pub(super) fn failed(&mut self, now: Now, from: Address, reason: &str) {
        if let Some(left_out) = self.limits.entry(Some(from)).or_default().admit(now) {
            let place = self.place(from);
            tracing::warn!(node = place, left_out, "{reason}");
        }
    }

    pub(super) fn board_error(&mut self, now: Now, error: &str) {
        if let Some(left_out) = self.limits.entry(None).or_default().admit(now) {
            tracing::error!(left_out, "{error}");
        }
    }

    pub(super) fn debug(&self, label: &str, message: &Message) {
        tracing::info!(target: "tidegate::debug", topic = &*message.topic, time = %message.time, "{label}: {}", message.payload);
    }

    pub(super) fn stopped(&self, flow: u32, node: Option<NodeId>, panic: &str, again_in: Duration) {
        let place = match node {
            Some(node) => self.place(Address { flow, node }),
            None => self.flows[flow as usize].name().to_string(),
        };
        tracing::error!(
            node = place,
            "the flow stopped: {panic}; its outputs are at their safe level, it starts again in {again_in:?}"
        );
    }

    pub(super) fn restarted(&self, flow: u32) {
        tracing::info!(
            flow = &**self.flows[flow as usize].name(),
            "the flow runs again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_not_written() {
        let mut limit = Limit::default();
        let at = |seconds| Now {
            mono: Duration::from_secs(seconds),
            ..Now::default()
        };
        assert_eq!(limit.admit(at(0)), Some(0));
        assert_eq!(limit.admit(at(1)), None);
        assert_eq!(limit.admit(at(9)), None);
        assert_eq!(limit.admit(at(10)), Some(2));
        assert_eq!(limit.admit(at(11)), None);
        assert_eq!(limit.admit(at(20)), Some(1));
    }
}
