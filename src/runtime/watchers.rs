//! Who hears of a node's failures and states, and what they are told: `catch` and `status`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::flow::{Graph, GraphNode};
use crate::message::{Message, NodeId, Text, Value};
use crate::runtime::clock::Now;
use crate::runtime::node::{Address, Effect, queue_for};

/// The watchers of one node. A flow has few of them, or none.
#[derive(Default)]
pub(super) struct Watchers {
    of_failures: Box<[NodeId]>,
    of_states: Box<[NodeId]>,
    /// What those of its state were told last.
    is_failing: bool,
}

/// Of which node something is told, and when.
pub(super) struct Place<'a> {
    from: Address,
    node: &'a GraphNode,
    flow: &'a Text,
    now: Now,
}

impl<'a> Place<'a> {
    pub(super) fn of(graph: &'a Graph, from: Address, now: Now) -> Place<'a> {
        Place {
            from,
            node: &graph.nodes()[usize::from(from.node.0)],
            flow: graph.name(),
            now,
        }
    }

    /// A message without headers from the node, on its own topic.
    fn message(&self, payload: Value) -> Message {
        Message {
            topic: format!("{}/{}", self.flow, self.node.name).into(),
            payload,
            time: self.now.wall,
            source: self.from.node,
            headers: None,
        }
    }
}

impl Watchers {
    #[inline]
    pub(super) fn are_there(&self) -> bool {
        !self.of_failures.is_empty() || !self.of_states.is_empty()
    }

    /// What those of the node's state were told last.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// What they were told before a pause.
    pub(super) fn was_failing(&mut self, is_failing: bool) {
        self.is_failing = is_failing;
    }

    /// After a call of the node with `original`, if with a message: what it could not handle goes to those that watch it,
    /// and so does a change of its state. `effects` are those of the call; `is_proof` says whether a call without a
    /// failure shows that the node works.
    pub(super) fn tell(
        &mut self,
        place: &Place<'_>,
        original: Option<Message>,
        effects: &[Effect],
        is_proof: bool,
        queue: &mut VecDeque<(NodeId, Message)>,
    ) {
        let failures = effects.iter().filter_map(|effect| match effect {
            Effect::Failed { from, reason } if *from == place.from => Some(reason.as_str()),
            _ => None,
        });
        let mut first_reason = None;
        for reason in failures {
            first_reason.get_or_insert(reason);
            if self.of_failures.is_empty() {
                break;
            }
            let mut message = original
                .clone()
                .unwrap_or_else(|| place.message(Value::Null));
            let error = Value::object([
                ("message", Value::from(reason)),
                ("node", Value::Text(place.node.name.clone())),
                ("type", Value::from(place.node.node_type.name)),
            ]);
            let headers = message.headers.get_or_insert_default();
            Arc::make_mut(headers).insert("error".into(), error);
            message.source = place.from.node;
            queue_for(&self.of_failures, message, queue);
        }
        let is_failing = first_reason.is_some();
        // Whether a link takes a message is told later.
        let is_open = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Link { from, .. } if *from == place.from));
        if self.is_failing != is_failing && (is_failing || (is_proof && !is_open)) {
            self.is_failing = is_failing;
            let state = if is_failing { "failing" } else { "ok" };
            let reason = first_reason.map_or(Value::Null, Value::from);
            self.tell_state(place, state, reason, queue);
        }
    }

    /// What a `status` node sends goes to those that watch the node's state.
    pub(super) fn tell_state(
        &self,
        place: &Place<'_>,
        state: &str,
        reason: Value,
        queue: &mut VecDeque<(NodeId, Message)>,
    ) {
        let payload = Value::object([
            ("node", Value::Text(place.node.name.clone())),
            ("state", Value::from(state)),
            ("reason", reason),
        ]);
        queue_for(&self.of_states, place.message(payload), queue);
    }
}

/// Per node, who watches it.
pub(super) fn watchers(graph: &Graph) -> impl Iterator<Item = Watchers> {
    graph.watchers().into_iter().map(|watchers| Watchers {
        of_failures: watchers.of_failures.into(),
        of_states: watchers.of_states.into(),
        is_failing: false,
    })
}
