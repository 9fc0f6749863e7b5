//! Joins messages until there are enough of them, or for long enough, and then begins anew.

use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fields, Need, What};
use crate::message::{Message, Text, Value};
use crate::nodes::bounds::{self, MOST_PARTS, Size};
use crate::nodes::parts;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// What is made of the messages.
pub(super) enum Shape {
    List,
    /// One text, with this between the pieces.
    Text(Text),
    /// An object.
    Fields(What),
}

/// What happens so long after the first message with what is there.
pub(super) enum AtEnd {
    SendAfter(Duration),
    FailAfter(Duration),
}

pub(super) struct Gatherer {
    shape: Shape,
    need: Need,
    at_end: AtEnd,
    gathered: Gathered,
}

/// What has come so far.
#[derive(Default, Serialize, Deserialize)]
struct Gathered {
    /// Payloads, for a list or a text.
    items: Vec<Value>,
    size_of_items: Size,
    fields: Fields,
    messages: usize,
    /// The last message, without its payload.
    last: Option<Message>,
}

impl Node for Gatherer {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.gathered))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.gathered = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        if let Err(reason) = self.gathered.take(&self.shape, message, now) {
            return cx.fail(reason);
        }
        if self.is_complete() {
            cx.cancel_wake();
            self.send(cx);
        } else if self.gathered.messages == 1 {
            let (AtEnd::SendAfter(wait) | AtEnd::FailAfter(wait)) = self.at_end;
            cx.wake_at(now.saturating_add(wait));
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        match self.at_end {
            AtEnd::SendAfter(_) => self.send(cx),
            AtEnd::FailAfter(wait) => {
                let missing = self.need.missing(self.count(), &self.gathered.fields);
                let waited = humantime::format_duration(wait);
                cx.fail(format!("{missing} within {waited}"));
                self.gathered = Gathered::default();
            }
        }
    }
}

impl Gatherer {
    pub(super) fn new(shape: Shape, need: Need, at_end: AtEnd) -> Gatherer {
        Gatherer {
            shape,
            need,
            at_end,
            gathered: Gathered::default(),
        }
    }

    fn is_complete(&self) -> bool {
        self.need.is_met(self.count(), &self.gathered.fields)
            || self.gathered.items.len() >= MOST_PARTS
    }

    /// How many came of what is counted: of an object by topic or source the fields, else the messages.
    fn count(&self) -> usize {
        match self.shape {
            Shape::Fields(What::PayloadByTopic | What::PayloadBySource(_)) => {
                self.gathered.fields.len()
            }
            Shape::Fields(What::FieldsOfPayload) | Shape::List | Shape::Text(_) => {
                self.gathered.messages
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        let gathered = mem::take(&mut self.gathered);
        let payload = match &self.shape {
            Shape::List => Ok(Value::List(gathered.items.into())),
            Shape::Text(with) => bounds::join(gathered.items.iter(), with),
            Shape::Fields(_) => Ok(gathered.fields.object()),
        };
        match (payload, gathered.last) {
            (Ok(payload), Some(last)) => cx.emit(0, parts::whole(last, payload)),
            (Err(reason), _) => cx.fail(reason),
            (Ok(_), None) => {}
        }
    }
}

impl Gathered {
    /// Takes a message; one that cannot be taken leaves everything as it was.
    fn take(&mut self, shape: &Shape, message: &mut Message, now: Duration) -> Result<(), String> {
        match shape {
            Shape::Fields(what) => {
                self.fields.take(what, message, now)?;
                message.payload = Value::Null;
            }
            Shape::List | Shape::Text(_) => {
                let size = Size::of(&message.payload)?;
                self.size_of_items = self.size_of_items.plus(size)?;
                self.items.push(mem::take(&mut message.payload));
            }
        }
        self.messages = self.messages.saturating_add(1);
        self.last = Some(message.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'join'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options}");
    }

    #[test]
    fn so_many_messages_make_a_list_or_a_text() {
        check(
            "mode = 'list'\ncount = 2\ntimeout = '5s'",
            "[1, null, [2], \"x\"]",
            &["[1,null]", "[[2],\"x\"]"],
        );
        check(
            "mode = 'text'\ncount = 3",
            r#"["a", 5, {"b":1}]"#,
            &[r#""a\n5\n{\"b\":1}""#],
        );
        check(
            "mode = 'text'\ncount = 2\nwith = ''",
            r#"["a", "b"]"#,
            &["\"ab\""],
        );
        check("mode = 'list'\ncount = 1", "[1, 2]", &["[1]", "[2]"]);
    }

    #[test]
    fn objects_are_merged() {
        check(
            "mode = 'merge'\ncount = 2",
            r#"[{"a":1,"b":1}, 5, {"b":2,"c":3}]"#,
            &[
                "failed: needs an object to merge, but the payload is a number",
                r#"{"a":1,"b":2,"c":3}"#,
            ],
        );
        check(
            "mode = 'merge'\nkeys = ['a', 'b']",
            r#"[{"a":1,"x":0}, {"a":2}, {"b":3}, {"b":4,"a":5}]"#,
            &[r#"{"a":2,"x":0,"b":3}"#, r#"{"b":4,"a":5}"#],
        );
    }

    /// Messages, each a topic and a number, a second apart from 1 s on.
    fn check_topics(options: &str, topics: &[(&str, f64)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'join'\nmode = 'object'\n{options}"));
        for (second, (topic, number)) in (1..).zip(topics) {
            let time = Timestamp::from_millis(second * 1_000);
            run.go_on_until(time);
            run.deliver_on(topic, time, (*number).into());
        }
        run.go_on_until(Timestamp::from_millis(100_000));
        assert_eq!(run.sent, expected, "{options}");
    }

    #[test]
    fn payloads_become_fields_by_topic() {
        const TOPICS: &[(&str, f64)] =
            &[("a", 1.0), ("a", 2.0), ("b", 3.0), ("c", 4.0), ("a", 5.0)];
        check_topics(
            "count = 2",
            TOPICS,
            &[r#"{"a":2,"b":3}"#, r#"{"c":4,"a":5}"#],
        );
        check_topics(
            "keys = ['a', 'c']\ntimeout = '20s'",
            TOPICS,
            &[
                r#"{"a":2,"b":3,"c":4}"#,
                "failed: `c` did not come within 20s",
            ],
        );
        check_topics(
            "keys = ['c', 'x', 'y', 'b', 'z', 'u', 'v', 'w']\ntimeout = '1500ms'",
            &[("a", 1.0)],
            &["failed: `c`, `x`, `y`, `b`, `z` and 3 more did not come within 1s 500ms"],
        );
    }

    #[test]
    fn time_ends_what_is_not_complete() {
        const TOPICS: &[(&str, f64)] = &[("a", 1.0), ("a", 2.0), ("b", 3.0), ("a", 4.0)];
        check_topics(
            "count = 3\ntimeout = '2500ms'",
            TOPICS,
            &[
                "failed: only 2 of 3 came within 2s 500ms",
                "failed: only 1 of 3 came within 2s 500ms",
            ],
        );
        check_topics(
            "count = 3\ntimeout = '2500ms'\npartial = true",
            TOPICS,
            &[r#"{"a":2,"b":3}"#, r#"{"a":4}"#],
        );
        check_topics(
            "every = '2500ms'",
            TOPICS,
            &[r#"{"a":2,"b":3}"#, r#"{"a":4}"#],
        );
        check_topics(
            "every = '2500ms'\ncount = 2",
            TOPICS,
            &[r#"{"a":2,"b":3}"#, r#"{"a":4}"#],
        );
        check_topics("count = 3", TOPICS, &["failed: only 2 of 3 came within 1m"]);
    }

    /// The wait begins with the first message of each result, not with the one before.
    #[test]
    fn what_is_complete_takes_its_wait_with_it() {
        check_topics(
            "count = 2\ntimeout = '2500ms'",
            &[("a", 1.0), ("b", 2.0), ("a", 3.0), ("a", 4.0), ("b", 5.0)],
            &[r#"{"a":1,"b":2}"#, r#"{"a":4,"b":5}"#],
        );
    }

    #[test]
    fn payloads_become_fields_by_source() {
        let mut run = Run::with_sources(
            &["probe", "meter"],
            "type = 'join'\nmode = 'object'\nby = 'source'\nkeys = ['probe', 'meter']",
        );
        for (source, millis) in [("probe", 1), ("meter", 9), ("meter", 8), ("probe", 7)] {
            let time = Timestamp::from_millis(millis);
            run.deliver_message(source, &format!("{source}/t"), time, (millis as f64).into());
        }
        assert_eq!(
            run.sent,
            [r#"{"probe":1,"meter":9}"#, r#"{"meter":8,"probe":7}"#]
        );
        let message = &run.messages[1];
        assert_eq!(&*message.topic, "probe/t");
        assert_eq!(message.time, Timestamp::from_millis(7));
    }

    #[test]
    fn headers_are_the_last_messages_without_parts() {
        let mut run = Run::flow(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'change'\nfrom = 'source'\nrules = [{ set = 'headers.unit', to = 'C' }]\n\
             [nodes.s]\ntype = 'split'\nfrom = 'tested'\n\
             [nodes.j]\ntype = 'join'\nfrom = 's'\nmode = 'list'\ncount = 2\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'j'",
        );
        run.deliver(
            Timestamp::default(),
            Value::List(vec![1.0.into(), 2.0.into()].into()),
        );
        assert_eq!(run.sent, ["[1,2]"]);
        let headers = run.messages[0].headers.as_ref().expect("one is left");
        assert_eq!(Value::Object(headers.clone()).to_json(), r#"{"unit":"C"}"#);
    }

    #[test]
    fn what_is_gathered_is_bounded() {
        let sent = run_node(
            "type = 'join'\nmode = 'list'\nevery = '10h'",
            vec![Value::Null; 10_001],
        );
        assert_eq!(sent.len(), 1, "a full list does not wait");

        let large = Value::List(vec![Value::Null; 49_999].into());
        let sent = run_node(
            "type = 'join'\nmode = 'list'\ncount = 3\ntimeout = '10h'",
            vec![large; 3],
        );
        assert_eq!(
            sent,
            ["failed: more than 100000 values would come together"]
        );

        let mut run = Run::new("type = 'join'\nmode = 'object'\nevery = '1m'");
        for topic in 0..=10_000 {
            run.deliver_on(&format!("t{topic}"), Timestamp::default(), 1.0.into());
        }
        assert_eq!(
            run.sent,
            ["failed: the object would have more than 10000 fields"]
        );

        let long = Value::from("x".repeat(600_000).as_str());
        let sent = run_node("type = 'join'\nmode = 'text'\ncount = 2", vec![long; 2]);
        assert_eq!(sent, ["failed: the text would be longer than 1 MiB"]);
    }

    /// What was replaced does not count: a fast sensor may wait long for a slow one.
    #[test]
    fn a_field_that_comes_again_makes_room_for_itself() {
        let mut run = Run::new("type = 'join'\nmode = 'object'\nkeys = ['fast', 'slow']");
        let large = Value::List(vec![Value::Null; 49_999].into());
        for _ in 0..10 {
            run.deliver_on("fast", Timestamp::default(), large.clone());
        }
        run.deliver_on("slow", Timestamp::default(), 1.0.into());
        assert_eq!(run.sent.len(), 1);
        assert!(run.sent[0].starts_with(r#"{"fast":[null,"#));
    }
}
