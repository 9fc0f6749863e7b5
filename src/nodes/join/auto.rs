//! Joins what was taken apart, by `headers.parts`.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::message::{Message, Object, Text, Value};
use crate::nodes::bounds::{self, Size};
use crate::nodes::parts::{Kind, Part, Whole};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Wholes that are waited for at once.
const MOST_OPEN: usize = 1_000;

pub(super) struct Reassembler {
    timeout: Duration,
    /// Whether what is not complete in time goes out all the same.
    partial: bool,
    waiting: Waiting,
}

#[derive(Default, Serialize, Deserialize)]
struct Waiting {
    /// By id, the oldest first.
    open: IndexMap<Text, Open>,
    /// Of all parts that are here.
    size: Size,
}

/// A whole of which parts are missing.
#[derive(Serialize, Deserialize)]
struct Open {
    whole: Whole,
    /// By place.
    parts: BTreeMap<usize, Arrived>,
    deadline: Duration,
    /// The last message, without its payload.
    last: Message,
}

#[derive(Serialize, Deserialize)]
struct Arrived {
    key: Option<Text>,
    payload: Value,
    size: Size,
}

impl Node for Reassembler {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.waiting))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.waiting = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let part = match Part::of(message) {
            Ok(part) => part,
            Err(reason) => return cx.fail(reason),
        };
        let id = part.id.clone();
        if let Err(reason) = self.add(part, message, cx) {
            return cx.fail(reason);
        }
        let is_complete = |open: &Open| open.parts.len() == open.whole.count;
        if self.waiting.open.get(&id).is_some_and(is_complete) {
            let Some(open) = self.take(&id) else { return };
            match open.payload() {
                Ok(payload) => {
                    message.payload = payload;
                    open.whole.restore(message);
                    cx.pass(0);
                }
                Err(reason) => cx.fail(reason),
            }
        }
        self.ask_for_wake(cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        while let Some((id, _)) = self
            .waiting
            .open
            .first()
            .filter(|(_, open)| open.deadline <= now)
        {
            let id = id.clone();
            let Some(open) = self.take(&id) else { break };
            if !self.partial {
                let waited = humantime::format_duration(self.timeout);
                cx.fail(format!("{} within {waited}", open.how_many()));
                continue;
            }
            match open.payload() {
                Ok(payload) => {
                    let mut message = Message {
                        payload,
                        ..open.last
                    };
                    open.whole.restore(&mut message);
                    cx.emit(0, message);
                }
                Err(reason) => cx.fail(reason),
            }
        }
        self.ask_for_wake(cx);
    }
}

impl Reassembler {
    pub(super) fn new(timeout: Duration, partial: bool) -> Reassembler {
        Reassembler {
            timeout,
            partial,
            waiting: Waiting::default(),
        }
    }

    fn add(
        &mut self,
        part: Part,
        message: &mut Message,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        let agrees = |open: &Open| open.whole == part.whole;
        if !self.waiting.open.get(&part.id).is_none_or(agrees) {
            let id = &part.id;
            return Err(format!(
                "`headers.parts` does not agree with that of other parts of `{id}`"
            ));
        }
        let size = Size::of(&message.payload)?;
        if !self.waiting.open.contains_key(&part.id) && self.waiting.open.len() == MOST_OPEN {
            self.give_up_oldest(cx, &format!("{MOST_OPEN} are waited for already"));
        }
        while let Err(reason) = self.waiting.size.plus(size) {
            if self.waiting.open.is_empty() {
                return Err(reason);
            }
            self.give_up_oldest(cx, &reason);
        }
        self.waiting.size = self.waiting.size.plus(size)?;
        let arrived = Arrived {
            key: part.key,
            payload: std::mem::take(&mut message.payload),
            size,
        };
        let deadline = cx.now().mono.saturating_add(self.timeout);
        let open = self.waiting.open.entry(part.id).or_insert_with(|| Open {
            whole: part.whole,
            parts: BTreeMap::new(),
            deadline,
            last: message.clone(),
        });
        open.last = message.clone();
        if let Some(replaced) = open.parts.insert(part.index, arrived) {
            self.waiting.size = self.waiting.size.minus(replaced.size);
        }
        Ok(())
    }

    fn give_up_oldest(&mut self, cx: &mut Context<'_>, reason: &str) {
        if let Some((id, _)) = self.waiting.open.first() {
            let id = id.clone();
            if let Some(open) = self.take(&id) {
                cx.fail(format!("{} and were given up: {reason}", open.how_many()));
            }
        }
    }

    fn take(&mut self, id: &str) -> Option<Open> {
        let open = self.waiting.open.shift_remove(id)?;
        for part in open.parts.values() {
            self.waiting.size = self.waiting.size.minus(part.size);
        }
        Some(open)
    }

    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        match self.waiting.open.first() {
            Some((_, oldest)) => cx.wake_at(oldest.deadline),
            None => cx.cancel_wake(),
        }
    }
}

impl Open {
    fn how_many(&self) -> String {
        let (here, count) = (self.parts.len(), self.whole.count);
        format!("only {here} of {count} parts came")
    }

    /// The whole, made of the parts that are here.
    fn payload(&self) -> Result<Value, String> {
        let parts = self.parts.values();
        match self.whole.kind {
            Kind::List => {
                let items = parts.map(|part| part.payload.clone());
                Ok(Value::List(items.collect::<Vec<_>>().into()))
            }
            Kind::Object => {
                let fields =
                    parts.filter_map(|part| Some((part.key.clone()?, part.payload.clone())));
                Ok(Value::Object(fields.collect::<Object>().into()))
            }
            Kind::Text => bounds::join(parts.map(|part| &part.payload), self.whole.between()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{NodeId, Timestamp};
    use crate::nodes::testing::{Run, run_node_json};

    /// What comes out of `split`, a node between, and `join`, for a JSON list of payloads.
    fn check(split: &str, between: &str, payloads: &str, expected: &[&str]) {
        let mut run = Run::flow(&format!(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'split'\nfrom = 'source'\n{split}\n\
             [nodes.between]\nfrom = 'tested'\n{between}\n\
             [nodes.joined]\ntype = 'join'\nfrom = 'between'\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'joined'"
        ));
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
        for payload in payloads {
            run.deliver_on("hall", Timestamp::from_millis(7), payload);
        }
        assert_eq!(run.sent, expected, "{split}");
        for message in &run.messages {
            assert_eq!(&*message.topic, "hall");
            assert_eq!(message.headers, None);
        }
    }

    #[test]
    fn what_was_taken_apart_is_put_together() {
        const TIMES_TEN: &str =
            "type = 'change'\nrules = [{ set = 'payload', to_js = 'payload * 10' }]";
        check("", TIMES_TEN, "[[1, 2, 3], [4]]", &["[10,20,30]", "[40]"]);
        check(
            "topic = 'append'",
            TIMES_TEN,
            r#"[{"a":1,"b":2}]"#,
            &[r#"{"a":10,"b":20}"#],
        );
        check(
            "at = ', '\ntopic = 'key'",
            TIMES_TEN,
            r#"["1, 2"]"#,
            &["\"10, 20\""],
        );
    }

    #[test]
    fn what_was_taken_apart_twice_is_put_together_twice() {
        let mut run = Run::flow(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'split'\nfrom = 'source'\n[nodes.b]\ntype = 'split'\nfrom = 'tested'\n\
             [nodes.c]\ntype = 'join'\nfrom = 'b'\n[nodes.d]\ntype = 'join'\nfrom = 'c'\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'd'",
        );
        let payload: Value = serde_json::from_str(r#"[[1,2],{"a":3},"x"]"#).expect("JSON");
        run.deliver(Timestamp::default(), payload.clone());
        assert_eq!(run.sent, [payload.to_json()]);
        assert_eq!(run.messages[0].headers, None);
    }

    /// A part of a list, as text `id index count`, with its index as the payload.
    fn part(text: &str) -> Message {
        let [id, index, count] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let number = |text: &str| Value::Number(text.parse().expect("a number"));
        let parts = Value::object([
            ("id", id.into()),
            ("index", number(index)),
            ("count", number(count)),
            ("kind", "list".into()),
        ]);
        Message {
            topic: "t".into(),
            payload: number(index),
            time: Timestamp::default(),
            source: NodeId(0),
            headers: Some(Arc::new([("parts".into(), parts)].into_iter().collect())),
        }
    }

    #[test]
    fn order_and_company_do_not_matter() {
        let mut run = Run::new("type = 'join'");
        for text in [
            "a 2 3", "b 1 2", "a 0 3", "a 2 3", "b 0 2", "a 1 3", "a 0 1",
        ] {
            run.deliver_whole(part(text));
        }
        assert_eq!(run.sent, ["[0,1]", "[0,1,2]", "[0]"]);
    }

    #[test]
    fn what_is_not_complete_in_time_fails_or_goes_out() {
        let check = |options: &str, until: i64, expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'join'\n{options}"));
            run.deliver_whole(part("a 2 3"));
            run.go_on_until(Timestamp::from_millis(5_000));
            run.deliver_whole(part("a 0 3"));
            run.deliver_whole(part("b 0 2"));
            run.go_on_until(Timestamp::from_millis(until));
            assert_eq!(run.sent, expected, "{options}");
        };
        check("", 59_999, &[]);
        check("", 60_000, &["failed: only 2 of 3 parts came within 1m"]);
        check(
            "timeout = '10s'",
            14_999,
            &["failed: only 2 of 3 parts came within 10s"],
        );
        check("timeout = '10s'\npartial = true", 15_000, &["[0,2]", "[0]"]);
    }

    #[test]
    fn what_is_waited_for_is_bounded() {
        let mut run = Run::new("type = 'join'");
        for id in 0..=MOST_OPEN {
            run.deliver_whole(part(&format!("i{id} 0 2")));
        }
        run.deliver_whole(part("i1 1 2"));
        assert_eq!(
            run.sent,
            [
                "failed: only 1 of 2 parts came and were given up: 1000 are waited for already",
                "[0,1]"
            ]
        );

        let mut run = Run::new("type = 'join'");
        for text in ["a 0 2", "b 0 3", "c 0 2", "b 1 3"] {
            let mut message = part(text);
            message.payload = Value::List(vec![Value::Null; 45_000].into());
            run.deliver_whole(message);
        }
        assert_eq!(
            run.sent,
            [
                "failed: only 1 of 2 parts came and were given up: more than 100000 values would come together",
                "failed: only 1 of 3 parts came and were given up: more than 100000 values would come together",
            ]
        );
    }

    #[test]
    fn what_is_no_part_fails() {
        let sent = run_node_json("type = 'join'", "[1]");
        assert_eq!(
            sent,
            ["failed: the message is no part of another: it has no `headers.parts`"]
        );
        let check = |parts: &str, expected: &str| {
            let mut message = part("a 0 2");
            let parts = serde_json::from_str(parts).expect("JSON");
            message.headers = Some(Arc::new([("parts".into(), parts)].into_iter().collect()));
            let mut run = Run::new("type = 'join'");
            run.deliver_whole(message);
            assert_eq!(run.sent, [format!("failed: `headers.parts{expected}")]);
        };
        const LEAST: &str = ".count` must be a whole number up to 10000";
        check("5", LEAST);
        check(r#"{"id":"a","index":0,"count":1.5,"kind":"list"}"#, LEAST);
        check(r#"{"id":"a","index":0,"count":-1,"kind":"list"}"#, LEAST);
        check(r#"{"id":"a","index":0,"count":10001,"kind":"list"}"#, LEAST);
        check(
            r#"{"id":"a","index":0,"count":1,"kind":"set"}"#,
            ".kind` must be `list`, `object` or `text`",
        );
        check(
            r#"{"id":"a","index":1,"count":1,"kind":"list"}"#,
            ".index` must be a whole number less than the count",
        );
        check(
            r#"{"id":7,"index":0,"count":1,"kind":"list"}"#,
            ".id` must be text",
        );
        check(
            r#"{"id":"a","index":0,"count":1,"kind":"object"}"#,
            ".key` must be text, for it is the field's name",
        );

        let mut run = Run::new("type = 'join'");
        run.deliver_whole(part("a 0 2"));
        run.deliver_whole(part("a 1 3"));
        assert_eq!(
            run.sent,
            ["failed: `headers.parts` does not agree with that of other parts of `a`"]
        );
    }

    #[test]
    fn parts_are_waited_for_over_a_restart_also_where_the_whole_says_it_is_no_part() {
        let mut run = Run::new("type = 'join'\ntimeout = '10s'");
        let parts = |index: f64| {
            let parts = Value::object([
                ("id", Value::from("1")),
                ("index", index.into()),
                ("count", 3.0.into()),
                ("kind", "list".into()),
                ("parts", Value::Null),
            ]);
            Some(Arc::new(Object::from_iter([("parts".into(), parts)])))
        };
        let part = |index: f64| Message {
            topic: "t".into(),
            payload: index.into(),
            time: Timestamp::default(),
            source: NodeId(0),
            headers: parts(index),
        };
        run.deliver_whole(part(0.0));
        run.restart(Duration::from_secs(9));
        run.deliver_whole(part(1.0));
        run.deliver_whole(part(2.0));
        assert_eq!(run.sent, ["[0,1,2]"]);

        run.deliver_whole(part(0.0));
        run.restart(Duration::from_secs(60));
        run.go_on_until(run.now.wall);
        assert_eq!(run.sent[1..], ["failed: only 1 of 3 parts came within 10s"]);
    }
}
