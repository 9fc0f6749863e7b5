//! Rows of JSON Lines: an object on each line.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::fields::Topics;
use super::lines::{Found, Lines, without_end};
use super::rows::{LONGEST_ROW, Row, RowOptions, RowProblem, TOPIC};
use super::times::{TimeProblem, Times};
use crate::message::{Object, Value};

/// Reads objects.
pub(super) struct Objects {
    time: String,
    payload: String,
    topics: Topics,
}

impl Objects {
    pub(super) fn new(options: &RowOptions) -> Objects {
        Objects {
            time: options.time_column.clone(),
            payload: options.payload_column.clone(),
            topics: Topics::default(),
        }
    }

    /// The next row; lines with nothing in them are passed over.
    pub(super) fn row(
        &mut self,
        lines: &mut Lines<impl Read>,
        times: &mut Times,
    ) -> io::Result<Option<Result<Row, RowProblem>>> {
        loop {
            let line = lines.line();
            let problem = |kind, message| {
                Ok(Some(Err(RowProblem {
                    line,
                    kind,
                    message,
                })))
            };
            let length = match lines.end_of_line(0)? {
                Found::Nothing => return Ok(None),
                Found::TooLong => {
                    lines.skip_line()?;
                    let message = format!("the line is longer than {LONGEST_ROW} bytes");
                    return problem("too long", message);
                }
                Found::End(length) => length,
            };
            let text = without_end(lines.text(length));
            let is_empty = text.trim_ascii().is_empty();
            let row = if is_empty {
                None
            } else {
                Some(self.read(text, times))
            };
            lines.take(length, 1);
            match row {
                None => continue,
                Some(Ok(row)) => return Ok(Some(Ok(row))),
                Some(Err((kind, message))) => return problem(kind, message),
            }
        }
    }

    fn read(&mut self, text: &[u8], times: &mut Times) -> Result<Row, (&'static str, String)> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let parts = Parts {
            time: &self.time,
            payload: &self.payload,
        };
        let read = parts.deserialize(&mut reader);
        let (time, topic, payload) = read
            .and_then(|row| reader.end().map(|()| row))
            .map_err(no_json)?;
        let time = match time {
            None | Some(Value::Null) => Err(TimeProblem::Missing),
            Some(Value::Number(seconds)) => times.read_number(seconds),
            Some(Value::Text(text)) => times.read(text.as_bytes()),
            Some(other) => Err(TimeProblem::NoTime(super::times::shortened(
                &other.to_json(),
            ))),
        };
        let time = time.map_err(|problem| (problem.kind(), problem.to_string()))?;
        let topic = match topic {
            None | Some(Value::Null) => None,
            Some(Value::Text(text)) => self.topics.topic(&text),
            Some(other) => {
                let message = format!("`topic` must be text, but it is {}", other.kind());
                return Err(("with a topic that is no text", message));
            }
        };
        Ok(Row {
            time,
            topic,
            payload,
        })
    }
}

fn no_json(error: serde_json::Error) -> (&'static str, String) {
    if error.is_data() {
        return ("not an object", "it is JSON, but no object".to_owned());
    }
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    let message = format!("no JSON: {reason}, at character {}", error.column());
    ("not JSON", message)
}

/// Takes an object apart: time, topic, payload.
struct Parts<'a> {
    time: &'a str,
    payload: &'a str,
}

impl<'de> DeserializeSeed<'de> for Parts<'_> {
    type Value = (Option<Value>, Option<Value>, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = (Option<Value>, Option<Value>, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let (mut time, mut topic, mut payload) = (None, None, None);
        let mut others = Object::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value: Value = entries.next_value()?;
            if name == self.time {
                time = Some(value);
            } else if name == self.payload {
                payload = Some(value);
            } else if name == TOPIC {
                topic = Some(value);
            } else {
                others.insert(name.into(), value);
            }
        }
        let payload = payload.unwrap_or_else(|| Value::Object(Arc::new(others)));
        Ok((time, topic, payload))
    }
}
