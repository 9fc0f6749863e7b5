//! What flows say to the log: with names, and never faster than a person can read.
//!
//! A sensor that is unplugged fails ten times a second; the log gets the first of it and then one line every
//! [`REPEAT_AFTER`] with the number of what was left out. Nothing is left out of the counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::board::Pin;
use crate::flow::Graph;
use crate::message::{Message, NodeId};
use crate::runtime::clock::Now;
use crate::runtime::node::Address;

const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// What a `debug` node may show in each second: enough for what comes at once from many topics.
const DEBUG_BURST: u64 = 50;
const DEBUG_AFTER: Duration = Duration::from_secs(1);

/// Writes for the flows of one engine.
pub(super) struct FlowLog {
    /// By their places.
    flows: BTreeMap<u32, Arc<Graph>>,
    limits: HashMap<Origin, Limit>,
}

/// Whose lines are limited together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Node(Address),
    Debug(Address),
    Pin(Option<Pin>),
}

#[derive(Default)]
struct Limit {
    /// When the first line of this stretch was written.
    last: Option<Duration>,
    /// Lines written in this stretch.
    written: u64,
    left_out: u64,
}

impl Limit {
    /// How many were left out before this one, if this one is to be written: so many in each stretch `after`.
    fn admit(&mut self, now: Now, after: Duration, most: u64) -> Option<u64> {
        let is_same_stretch = self
            .last
            .is_some_and(|last| now.mono.saturating_sub(last) < after);
        if is_same_stretch && self.written >= most {
            self.left_out += 1;
            return None;
        }
        if !is_same_stretch {
            self.last = Some(now.mono);
            self.written = 0;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl FlowLog {
    pub(super) fn new(flows: &BTreeMap<u32, Arc<Graph>>) -> FlowLog {
        FlowLog {
            flows: flows.clone(),
            limits: HashMap::new(),
        }
    }

    /// From now on these are there.
    pub(super) fn set_flows(&mut self, flows: &BTreeMap<u32, Arc<Graph>>) {
        self.flows.clone_from(flows);
        self.limits.retain(|origin, _| match origin {
            Origin::Node(node) | Origin::Debug(node) => flows.contains_key(&node.flow),
            Origin::Pin(_) => true,
        });
    }

    /// `flow/node`.
    pub(super) fn place(&self, address: Address) -> String {
        let (flow, node) = self.names(address);
        format!("{flow}/{node}")
    }

    /// The length of `flow/node`, without making it.
    pub(super) fn place_len(&self, address: Address) -> usize {
        let (flow, node) = self.names(address);
        flow.len() + 1 + node.len()
    }

    fn names(&self, address: Address) -> (&str, &str) {
        match self.flows.get(&address.flow) {
            Some(flow) => (flow.name(), flow.node_name(address.node)),
            None => ("", ""),
        }
    }

    fn flow_name(&self, flow: u32) -> &str {
        self.flows.get(&flow).map_or("", |flow| flow.name())
    }

    pub(super) fn failed(&mut self, now: Now, from: Address, reason: &str) {
        if let Some(left_out) =
            self.limits
                .entry(Origin::Node(from))
                .or_default()
                .admit(now, REPEAT_AFTER, 1)
        {
            let place = self.place(from);
            tracing::warn!(node = place, "{reason}{}", left_out_words(left_out));
        }
    }

    pub(super) fn forgot(&self, from: Address, reason: &str) {
        tracing::warn!(node = self.place(from), "begins anew: {reason}");
    }

    /// `pin` is the pin concerned, if it is one.
    pub(super) fn board_error(&mut self, now: Now, pin: Option<Pin>, error: &str) {
        if let Some(left_out) =
            self.limits
                .entry(Origin::Pin(pin))
                .or_default()
                .admit(now, REPEAT_AFTER, 1)
        {
            tracing::error!("{error}{}", left_out_words(left_out));
        }
    }

    /// What a `debug` node shows: at most [`DEBUG_BURST`] lines a second each.
    pub(super) fn debug(&mut self, now: Now, from: Address, label: &str, message: &Message) {
        if let Some(left_out) =
            self.limits
                .entry(Origin::Debug(from))
                .or_default()
                .admit(now, DEBUG_AFTER, DEBUG_BURST)
        {
            let (topic, time) = (&*message.topic, message.time);
            let flow = self.flow_name(from.flow);
            tracing::info!(target: "tidegate::debug", topic, %time, flow, "{label}: {}{}", message.payload, left_out_words(left_out));
        }
    }

    pub(super) fn stopped(&self, flow: u32, node: Option<NodeId>, panic: &str, again_in: Duration) {
        let place = match node {
            Some(node) => self.place(Address { flow, node }),
            None => self.flow_name(flow).to_owned(),
        };
        tracing::error!(
            node = place,
            "the flow stopped: {panic}; its outputs are at their safe level, it starts again in {again_in:?}"
        );
    }

    pub(super) fn restarted(&self, flow: u32) {
        tracing::info!(flow = self.flow_name(flow), "the flow runs again");
    }
}

fn left_out_words(left_out: u64) -> String {
    if left_out == 0 {
        String::new()
    } else {
        format!(" ({left_out} more since the last line)")
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
        assert_eq!(limit.admit(at(0), REPEAT_AFTER, 1), Some(0));
        assert_eq!(limit.admit(at(1), REPEAT_AFTER, 1), None);
        assert_eq!(limit.admit(at(9), REPEAT_AFTER, 1), None);
        assert_eq!(limit.admit(at(10), REPEAT_AFTER, 1), Some(2));
        assert_eq!(limit.admit(at(11), REPEAT_AFTER, 1), None);
        assert_eq!(limit.admit(at(20), REPEAT_AFTER, 1), Some(1));
    }

    #[test]
    fn what_comes_at_once_from_many_topics_is_written() {
        let mut limit = Limit::default();
        let mut admit = |millis| {
            let now = Now {
                mono: Duration::from_millis(millis),
                ..Now::default()
            };
            limit.admit(now, DEBUG_AFTER, 3)
        };
        let found: Vec<_> = [0, 0, 0, 0, 999, 1000, 1000].map(&mut admit).into();
        assert_eq!(
            found,
            [Some(0), Some(0), Some(0), None, None, Some(2), Some(0)]
        );
    }
}
