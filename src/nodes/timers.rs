//! What nodes with timers share: a time at which something is due for each of several keys, and one wake-up for all of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Problem;
use crate::flow::options::Span;
use crate::message::{Message, Text};
use crate::runtime::node::Context;

/// The problem with an option that is too short for a timer, if it is.
pub(super) fn too_short(option: &str, span: Span) -> Option<Problem> {
    (span.0 < Duration::from_millis(1)).then(|| Problem::new(option, "must be at least 1ms"))
}

/// A stretch of monotonic time that begins with a message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) first: Message,
    pub(super) end: Duration,
    length: Duration,
}

impl Stretch {
    pub(super) fn new(first: &Message, length: Duration, cx: &Context<'_>) -> Stretch {
        Stretch {
            first: first.clone(),
            end: cx.now().mono + length,
            length,
        }
    }

    /// Whether it was over when a message came, although its wake-up is still to come: the engine serves messages first. After
    /// a stall it serves some that came long before; these are told by their own times, which are less far apart.
    pub(super) fn was_over(&self, message: &Message, cx: &Context<'_>) -> bool {
        self.end <= cx.now().mono && message.time.saturating_since(self.first.time) >= self.length
    }
}

/// When something is due for each key. Whoever uses it bounds the number of keys, and asks for no wake-up besides.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(Duration, Text)>,
    by_key: HashMap<Text, Duration>,
}

impl Deadlines {
    /// Makes something due for a key at a monotonic time, in the place of what was.
    pub(super) fn set(&mut self, key: &Text, at: Duration, cx: &mut Context<'_>) {
        if let Some(before) = self.by_key.insert(key.clone(), at) {
            self.in_order.remove(&(before, key.clone()));
        }
        self.in_order.insert((at, key.clone()));
        self.ask_for_wake(cx);
    }

    pub(super) fn cancel(&mut self, key: &Text, cx: &mut Context<'_>) {
        if let Some(at) = self.by_key.remove(key) {
            self.in_order.remove(&(at, key.clone()));
        }
        self.ask_for_wake(cx);
    }

    /// Takes the key for which something has been due for the longest time; for `Node::wake`. It is one at a time, so that
    /// the engine can serve others in between when a thousand are due at once.
    pub(super) fn take_due(&mut self, cx: &mut Context<'_>) -> Option<Text> {
        let now = cx.now().mono;
        let is_due = self.in_order.first().is_some_and(|(at, _)| *at <= now);
        let due = is_due.then(|| self.in_order.pop_first()).flatten();
        let due = due.map(|(_, key)| key);
        if let Some(key) = &due {
            self.by_key.remove(key);
        }
        self.ask_for_wake(cx);
        due
    }

    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        match self.in_order.first() {
            Some((at, _)) => cx.wake_at(*at),
            None => cx.cancel_wake(),
        }
    }
}

/// In order; the rest follows from that.
impl Serialize for Deadlines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.in_order.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Deadlines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Deadlines, D::Error> {
        let in_order = BTreeSet::<(Duration, Text)>::deserialize(deserializer)?;
        let by_key = in_order.iter().map(|(at, key)| (key.clone(), *at));
        Ok(Deadlines {
            by_key: by_key.collect(),
            in_order,
        })
    }
}
