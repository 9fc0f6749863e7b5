//! `headers.parts`: what a message that is a part of another says about the whole, so that `join` can put it together again.
//!
//! It is an object with `id` (of the whole), `index` (from 0), `count`, `kind` (`list`, `object` or `text`); with `key`, the
//! field's name, for an object; with `at`, what stood between the parts, for a text; with `topic`, if the whole had another
//! one; and with `parts`, if the whole was a part itself.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounds::MOST_PARTS;
use crate::flow::estimate::Load;
use crate::message::{Message, Object, Text, Value};
use crate::runtime::state::maybe;

/// How often a message can be taken apart again.
const DEEPEST: usize = 16;

/// What a whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    List,
    Object,
    Text,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::List, "list"),
    (Kind::Object, "object"),
    (Kind::Text, "text"),
];

/// Makes the headers of the parts of one message.
pub(super) struct Series {
    /// The headers of the whole, which its parts have too.
    headers: Object,
    /// What all parts say.
    common: Object,
}

impl Series {
    /// The parts of a message. `id` names the whole.
    pub(super) fn new(
        whole: &Message,
        id: &str,
        kind: Kind,
        count: usize,
    ) -> Result<Series, String> {
        let headers = whole.headers.as_deref().cloned().unwrap_or_default();
        let name = KINDS.iter().find(|(known, _)| *known == kind);
        let (_, name) = name.expect("each kind has its name");
        let mut common: Object = [
            ("id".into(), id.into()),
            ("index".into(), Value::Null),
            ("count".into(), Value::Number(count as f64)),
            ("kind".into(), (*name).into()),
        ]
        .into_iter()
        .collect();
        if let Some(outer) = headers.get("parts") {
            let levels = std::iter::successors(Some(outer), |parts| parts.get("parts"));
            if levels.take(DEEPEST).count() == DEEPEST {
                return Err(format!(
                    "the message was taken apart {DEEPEST} times already"
                ));
            }
            common.insert("parts".into(), outer.clone());
        }
        Ok(Series { headers, common })
    }

    /// What else all parts say.
    pub(super) fn with(mut self, name: &str, value: Value) -> Series {
        self.common.insert(name.into(), value);
        self
    }

    /// The headers of one part.
    pub(super) fn headers(&self, index: usize, key: Option<&Text>) -> Arc<Object> {
        let mut parts = self.common.clone();
        parts["index"] = Value::Number(index as f64);
        if let Some(key) = key {
            parts.insert("key".into(), Value::Text(key.clone()));
        }
        let mut headers = self.headers.clone();
        headers.insert("parts".into(), Value::Object(parts.into()));
        headers.into()
    }
}

/// What a message says about the whole that it is a part of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) id: Text,
    pub(super) index: usize,
    pub(super) key: Option<Text>,
    pub(super) whole: Whole,
}

/// What all parts of a whole agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Whole {
    pub(super) kind: Kind,
    pub(super) count: usize,
    at: Option<Text>,
    topic: Option<Text>,
    /// The whole's own `parts`.
    #[serde(with = "maybe")]
    outer: Option<Value>,
}

impl Part {
    /// Reads `headers.parts`. An error says what is missing in it.
    pub(super) fn of(message: &Message) -> Result<Part, String> {
        let headers = message.headers.as_deref();
        let Some(parts) = headers.and_then(|headers| headers.get("parts")) else {
            return Err("the message is no part of another: it has no `headers.parts`".into());
        };
        let text = |name: &str| match parts.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let whole_number = |name: &str| {
            let number = parts.get(name)?.as_number()?;
            let is_place = number.fract() == 0.0 && (0.0..=MOST_PARTS as f64).contains(&number);
            is_place.then_some(number as usize)
        };
        let needs = |name: &str, what: &str| format!("`headers.parts.{name}` must be {what}");
        let (count, index) = (whole_number("count"), whole_number("index"));
        let most = format!("a whole number up to {MOST_PARTS}");
        let count = count.ok_or_else(|| needs("count", &most))?;
        let index = index.filter(|index| *index < count);
        let kind = KINDS
            .iter()
            .find(|(_, name)| text("kind").as_deref() == Some(*name));
        let (kind, _) = kind.ok_or_else(|| needs("kind", "`list`, `object` or `text`"))?;
        let key = text("key");
        if *kind == Kind::Object && key.is_none() {
            return Err(needs("key", "text, for it is the field's name"));
        }
        Ok(Part {
            id: text("id").ok_or_else(|| needs("id", "text"))?,
            index: index.ok_or_else(|| needs("index", "a whole number less than the count"))?,
            key,
            whole: Whole {
                kind: *kind,
                count,
                at: text("at"),
                topic: text("topic"),
                outer: parts.get("parts").cloned(),
            },
        })
    }
}

impl Whole {
    /// What stood between the parts of a text.
    pub(super) fn between(&self) -> &str {
        self.at.as_deref().unwrap_or_default()
    }

    /// Gives a message what the whole had in the place of what its part has.
    pub(super) fn restore(&self, message: &mut Message) {
        if let Some(topic) = &self.topic {
            message.topic = topic.clone();
        }
        message.headers = without(message.headers.take(), self.outer.clone());
    }
}

/// A message made of several, of which it has the last one's topic, time and headers, but is no part of anything.
pub(super) fn whole(last: Message, payload: Value) -> Message {
    let mut whole = Message { payload, ..last };
    leave_whole(&mut whole);
    whole
}

/// Makes a message part of nothing.
pub(super) fn leave_whole(message: &mut Message) {
    message.headers = without(message.headers.take(), None);
}

/// Headers without `parts`, or with those of the whole.
fn without(headers: Option<Arc<Object>>, outer: Option<Value>) -> Option<Arc<Object>> {
    let mut headers = headers?;
    if headers.contains_key("parts") {
        let headers = Arc::make_mut(&mut headers);
        match outer {
            Some(outer) => headers.insert("parts".into(), outer),
            None => headers.shift_remove("parts"),
        };
    }
    Some(headers).filter(|headers| !headers.is_empty())
}

/// What a node sends, at most, that makes one message of so many, and of fewer once it has waited for so long.
pub(super) fn load_together(input: Load, count: usize, waits: Option<Duration>) -> Load {
    let by_count = input.per_second / count as f64;
    let (by_time, together) = match waits {
        None => (0.0, count as f64),
        Some(waits) => {
            let come = input.per_second * waits.as_secs_f64();
            let by_time = input.at_most_every(waits).per_second;
            (by_time, come.clamp(1.0, count as f64))
        }
    };
    Load {
        per_second: (by_count + by_time).min(input.per_second),
        bytes: input.bytes * together,
    }
}

/// What a node sends, at most, that makes several messages of each.
pub(super) fn load_apart(input: Load, most: Option<usize>) -> Load {
    match most {
        _ if input.per_second == 0.0 => Load::NONE,
        Some(most) => Load {
            per_second: input.per_second * most as f64,
            ..input
        },
        None => Load::UNKNOWN,
    }
}
