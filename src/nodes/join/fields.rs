//! The fields of an object that is being put together.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::message::{Message, Object, Text, Value};
use crate::nodes::bounds::{MOST_PARTS, Size};

/// Which fields a message brings.
pub(super) enum What {
    /// One, which is its payload, named by its topic.
    PayloadByTopic,
    /// One, named by the node it comes from; holds the names of all nodes.
    PayloadBySource(Vec<Text>),
    /// Those of the object in its payload.
    FieldsOfPayload,
}

impl What {
    fn fields(&self, message: &Message) -> Result<Vec<(Text, Value)>, String> {
        let name = match (self, &message.payload) {
            (What::FieldsOfPayload, Value::Object(fields)) => {
                let fields = fields.iter();
                return Ok(fields
                    .map(|(name, field)| (name.clone(), field.clone()))
                    .collect());
            }
            (What::FieldsOfPayload, other) => {
                return Err(format!(
                    "needs an object to merge, but the payload is {}",
                    other.kind()
                ));
            }
            (What::PayloadByTopic, _) => message.topic.clone(),
            (What::PayloadBySource(nodes), _) => {
                let node = nodes.get(usize::from(message.source.0));
                node.cloned().unwrap_or_default()
            }
        };
        Ok(vec![(name, message.payload.clone())])
    }
}

/// The fields that have come, in the order in which they came first.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Fields {
    held: IndexMap<Text, Held>,
    size: Size,
}

#[derive(Serialize, Deserialize)]
struct Held {
    value: Value,
    size: Size,
    /// When it came, in monotonic time.
    came: Duration,
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// Takes the fields that a message brings, in the place of older ones; all of them, or none if it is too much.
    pub(super) fn take(
        &mut self,
        what: &What,
        message: &Message,
        now: Duration,
    ) -> Result<(), String> {
        let fields = what.fields(message)?;
        let new = fields.iter().filter(|(name, _)| !self.has(name)).count();
        if self.len() + new > MOST_PARTS {
            return Err(format!(
                "the object would have more than {MOST_PARTS} fields"
            ));
        }
        let mut size = self.size;
        let mut arrived = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            if let Some(older) = self.held.get(&name) {
                size = size.minus(older.size);
            }
            let of_field = Size::of(&value)?;
            size = size.plus(of_field)?;
            let held = Held {
                value,
                size: of_field,
                came: now,
            };
            arrived.push((name, held));
        }
        self.size = size;
        self.held.extend(arrived);
        Ok(())
    }

    /// Takes out what came before a time, and gives the names.
    pub(super) fn forget_before(&mut self, time: Duration) -> Vec<Text> {
        let mut gone = Vec::new();
        let size = &mut self.size;
        self.held.retain(|name, held| {
            let stays = held.came >= time;
            if !stays {
                *size = size.minus(held.size);
                gone.push(name.clone());
            }
            stays
        });
        gone
    }

    pub(super) fn object(&self) -> Value {
        let fields = self.held.iter();
        let fields: Object = fields
            .map(|(name, held)| (name.clone(), held.value.clone()))
            .collect();
        Value::Object(fields.into())
    }
}
