//! `split`: takes a message apart.

use schemars::JsonSchema;
use serde::Deserialize;

use super::bounds::MOST_PARTS;
use super::parts::{self, Kind, Series};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Node, excerpt};
use crate::runtime::state::{Pause, State, StateError};

/// Makes several messages of one: one for each item of a list, each field of an object, each piece of a text.
///
/// The parts have the message's time and headers, and in `headers.parts` what `join` needs to put them together again:
/// `id`, `index`, `count`, `kind` and, of an object, `key`. An empty list or object sends nothing. Numbers, booleans and
/// null fail, and so does what has more than `most` parts, of which none is sent.
///
/// What is kept per topic behind this node (`filter`, `median`) takes all parts for one series; `topic = "append"` keeps
/// them apart.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Split {
    /// Where to cut a text, not empty. Default: `"\n"`, a message for each line.
    #[serde(default = "line_end")]
    at: String,
    /// The topic of the parts: `keep` the message's, the `key` (the field's name, the item's index), or `append` the key to the
    /// message's, after a `/`. Default: `keep`.
    #[serde(default)]
    topic: Topic,
    /// How many parts a message may have, up to 10,000; from this `check` can tell the load. Default: 10,000.
    most: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Topic {
    #[default]
    Keep,
    Key,
    Append,
}

fn line_end() -> String {
    "\n".to_owned()
}

impl Definition for Split {
    const NAME: &'static str = "split";
    const EXAMPLE: &'static str = r#"
[nodes.meter]
type = "inject"
every = "10s"
topic = "hall/meter"
payload = { power = 412.5, voltage = 229.8 }

[nodes.quantities]
type = "split"
from = "meter"
topic = "append"
most = 2

[nodes.changes]
type = "filter"
from = "quantities"
deadband = 1

[nodes.show]
type = "debug"
from = "changes"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.at.is_empty() {
            problems.push(Problem::new("at", "must not be empty"));
        }
        if self
            .most
            .is_some_and(|most| !(1..=MOST_PARTS).contains(&most))
        {
            problems.push(Problem::new("most", "must be from 1 to 10,000"));
        }
        problems
    }

    fn load(&self, input: Load) -> Load {
        parts::load_apart(input, self.most)
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Splitter {
            name: site.own_topic(),
            at: self.at.as_str().into(),
            topic: self.topic,
            most: self.most.unwrap_or(MOST_PARTS),
            taken_apart: 0,
        }))
    }
}

struct Splitter {
    /// Begins the ids, so that parts from several nodes are told apart.
    name: Text,
    at: Text,
    topic: Topic,
    most: usize,
    /// How many messages were taken apart.
    taken_apart: u64,
}

impl Node for Splitter {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.taken_apart))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.taken_apart = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if let Err(reason) = self.split(message, cx) {
            cx.fail(reason);
        }
    }
}

impl Splitter {
    fn split(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), String> {
        let (kind, count) = match &message.payload {
            Value::List(items) => (Kind::List, items.len()),
            Value::Object(fields) => (Kind::Object, fields.len()),
            Value::Text(text) => (Kind::Text, text.matches(&*self.at).count() + 1),
            other => {
                return Err(format!(
                    "needs a list, an object or text, but the payload is {}: {}",
                    other.kind(),
                    excerpt(other)
                ));
            }
        };
        if count > self.most {
            let most = self.most;
            return Err(format!(
                "the message has {count} parts, and {most} is the most"
            ));
        }
        self.taken_apart = self.taken_apart.wrapping_add(1);
        let id = format!("{}/{}", self.name, self.taken_apart);
        let mut series = Series::new(message, &id, kind, count)?;
        if self.topic != Topic::Keep {
            series = series.with("topic", Value::Text(message.topic.clone()));
        }
        match &message.payload {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.send(message, &series, index, None, item.clone(), cx);
                }
            }
            Value::Object(fields) => {
                for (index, (key, field)) in fields.iter().enumerate() {
                    self.send(message, &series, index, Some(key), field.clone(), cx);
                }
            }
            Value::Text(text) => {
                let series = series.with("at", Value::Text(self.at.clone()));
                for (index, piece) in text.split(&*self.at).enumerate() {
                    self.send(message, &series, index, None, piece.into(), cx);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    fn send(
        &self,
        whole: &Message,
        series: &Series,
        index: usize,
        key: Option<&Text>,
        payload: Value,
        cx: &mut Context<'_>,
    ) {
        let name = || key.map_or_else(|| index.to_string(), |key| key.to_string());
        let topic = match self.topic {
            Topic::Keep => whole.topic.clone(),
            Topic::Key => name().into(),
            Topic::Append => format!("{}/{}", whole.topic, name()).into(),
        };
        let part = Message {
            topic,
            payload,
            time: whole.time,
            source: whole.source,
            headers: Some(series.headers(index, key)),
        };
        cx.emit(0, part);
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::estimate::Load;
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, graph, node_problems, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'split'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options}");
    }

    #[test]
    fn lists_objects_and_texts_are_taken_apart() {
        check("", "[[1, [2], null], [], [3]]", &["1", "[2]", "null", "3"]);
        check("", r#"[{"a":1,"b":{"c":2}}, {}]"#, &["1", r#"{"c":2}"#]);
        check("", r#"["x\ny\n", ""]"#, &["\"x\"", "\"y\"", "\"\"", "\"\""]);
        check("at = '; '", r#"["x; y;z"]"#, &["\"x\"", "\"y;z\""]);
        check(
            "",
            "[5, null, true]",
            &[
                "failed: needs a list, an object or text, but the payload is a number: 5",
                "failed: needs a list, an object or text, but the payload is null: null",
                "failed: needs a list, an object or text, but the payload is a boolean: true",
            ],
        );
    }

    /// Topics and `headers.parts` of what is sent for one payload.
    fn parts(options: &str, payload: &str) -> Vec<String> {
        let mut run = Run::new(&format!("type = 'split'\n{options}"));
        let payload: Value = serde_json::from_str(payload).expect("JSON");
        run.deliver_on("hall", Timestamp::from_millis(7), payload);
        let sent = run.messages.iter().map(|message| {
            assert_eq!(message.time, Timestamp::from_millis(7));
            let headers = message.headers.as_ref().expect("parts");
            format!("{} {}", message.topic, headers["parts"])
        });
        sent.collect()
    }

    #[test]
    fn parts_say_what_they_are_parts_of() {
        assert_eq!(
            parts("", "[5, 6]"),
            [
                r#"hall {"id":"test/tested/1","index":0,"count":2,"kind":"list"}"#,
                r#"hall {"id":"test/tested/1","index":1,"count":2,"kind":"list"}"#,
            ]
        );
        assert_eq!(
            parts("topic = 'append'", r#"{"t":5}"#),
            [
                r#"hall/t {"id":"test/tested/1","index":0,"count":1,"kind":"object","topic":"hall","key":"t"}"#
            ]
        );
        assert_eq!(
            parts("topic = 'key'\nat = ','", "\"a\""),
            [
                r#"0 {"id":"test/tested/1","index":0,"count":1,"kind":"text","topic":"hall","at":","}"#
            ]
        );
    }

    #[test]
    fn what_is_taken_apart_again_remembers_the_whole_but_not_for_ever() {
        let mut run = Run::new("type = 'split'");
        let nested = (0..20).fold(Value::Number(1.0), |inner, _| {
            Value::List(vec![inner].into())
        });
        run.deliver(Timestamp::default(), nested);
        for _ in 0..20 {
            let Some(message) = run.messages.pop() else {
                break;
            };
            run.deliver_whole(message);
        }
        assert_eq!(run.sent.len(), 17);
        assert_eq!(
            run.sent[16],
            "failed: the message was taken apart 16 times already"
        );
    }

    #[test]
    fn the_number_of_parts_is_bounded() {
        let list = |items: usize| Value::List(vec![Value::Null; items].into());
        let sent = run_node("type = 'split'", [list(10_001), list(10_000)]);
        assert_eq!(
            sent[0],
            "failed: the message has 10001 parts, and 10000 is the most"
        );
        assert_eq!(sent.len(), 10_001);
        check(
            "most = 2\nat = ','",
            r#"["a,b,c", "a,b"]"#,
            &[
                "failed: the message has 3 parts, and 2 is the most",
                "\"a\"",
                "\"b\"",
            ],
        );
    }

    #[test]
    fn the_load_follows_from_most() {
        let check = |options: &str, per_second: f64, expected: f64| {
            let graph = graph(&format!(
                "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.s]\ntype = 'split'\nfrom = 'a'\n{options}\n[nodes.d]\ntype = 'debug'\nfrom = 's'"
            ));
            let split = graph.find("s").expect("it is there");
            let node = &graph.nodes()[usize::from(split.0)];
            let load = node.spec.load(Load {
                per_second,
                bytes: 10.0,
            });
            assert_eq!(load.per_second, expected, "{options}");
        };
        check("most = 3", 2.0, 6.0);
        check("", 2.0, f64::INFINITY);
        check("", 0.0, 0.0);
    }

    #[test]
    fn mistakes_are_said() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'split'\n{options}"));
            assert!(found[0].contains(expected), "{options}: {found:?}");
        };
        check("at = ''", "`at`: must not be empty");
        check("most = 0", "`most`: must be from 1 to 10,000");
        check("most = 10001", "`most`: must be from 1 to 10,000");
        check("topic = 'name'", "`name` is not known here");
    }
}
