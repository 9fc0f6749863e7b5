//! `batch`: several messages as one list.

use std::mem;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{MOST_PARTS, Size};
use super::keyed::Keyed;
use super::{BuildError, Definition, Problem, Surroundings, parts};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Collects messages, per topic, and sends their payloads as one list: after `count` messages, or each `every`, or whichever
/// comes first.
///
/// The list has the time and the headers of its last message, but for `headers.parts`: it is no part of what `split` took
/// apart. `every` is monotonic time and begins with a message; what has
/// come by its end goes out, for each topic; a stretch without a message sends nothing. What is collected is kept over a restart;
/// what is overdue then goes out at the start. Without `count` a list is also sent
/// when it has 10,000 payloads. At most 10,000 topics are remembered, and over all of them 100,000 values and 4 MiB of text;
/// messages beyond that fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Batch {
    /// How many messages make a list, up to 10,000. Default: 10,000.
    count: Option<usize>,
    /// How many messages of a list are in the next one too, less than `count`; only without `every`. Default: 0.
    #[serde(default)]
    overlap: usize,
    /// How long to collect at most, from `1ms`.
    every: Option<Span>,
    /// What the list is made of: `payload`, or `message` for objects with `topic`, `time` (RFC 3339) and `payload`. Default:
    /// `payload`.
    #[serde(default)]
    items: Items,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Items {
    #[default]
    Payload,
    Message,
}

/// What topic and time of a message typically take as JSON, in bytes.
const MESSAGE_BYTES: f64 = 80.0;

impl Definition for Batch {
    const NAME: &'static str = "batch";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"
every = "1s"

[nodes.bundle]
type = "batch"
from = "probe"
every = "1m"
items = "message"

[nodes.report]
type = "uplink"
from = "bundle"
topic = "sites/{device}/cold-store/readings"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self.count {
            None if self.every.is_none() => {
                let message = "is missing: say how many messages make a list, or how long to collect with `every`";
                problems.push(Problem::new("count", message));
            }
            Some(count) if !(1..=MOST_PARTS).contains(&count) => {
                problems.push(Problem::new("count", "must be from 1 to 10,000"));
            }
            _ => {}
        }
        if self.overlap > 0 {
            let count = self.count.unwrap_or(0);
            if self.every.is_some() {
                problems.push(Problem::new(
                    "overlap",
                    "goes with `count` alone, not with `every`",
                ));
            } else if self.overlap >= count {
                let message = format!("must be less than `count` ({count})");
                problems.push(Problem::new("overlap", message));
            }
        }
        if self
            .every
            .is_some_and(|every| every.0 < Duration::from_millis(1))
        {
            problems.push(Problem::new("every", "must be at least 1ms"));
        }
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        if self.count == Some(1) {
            return vec![Problem::new("count", "makes a list of each message alone")];
        }
        Vec::new()
    }

    /// By `every`, as for one topic: more of them send more, and smaller, lists.
    fn load(&self, input: Load) -> Load {
        let count = self.count.unwrap_or(MOST_PARTS);
        let item = match self.items {
            Items::Payload => input,
            Items::Message => input.sized(input.bytes + MESSAGE_BYTES),
        };
        let lists = parts::load_together(item, count, self.every.map(|every| every.0));
        if self.overlap == 0 {
            return lists;
        }
        Load {
            per_second: input.per_second / count.saturating_sub(self.overlap).max(1) as f64,
            ..lists
        }
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Collector {
            count: self.count.unwrap_or(MOST_PARTS),
            overlap: self.overlap,
            every: self.every.map(|every| every.0),
            items: self.items,
            collection: Collection::default(),
        }))
    }
}

struct Collector {
    count: usize,
    overlap: usize,
    every: Option<Duration>,
    items: Items,
    collection: Collection,
}

#[derive(Default, Serialize, Deserialize)]
struct Collection {
    topics: Keyed<Collected>,
    /// Of what is collected for all topics.
    size: Size,
    /// Whether a wake-up is to come.
    is_waiting: bool,
}

/// What came on one topic.
#[derive(Default, Serialize, Deserialize)]
struct Collected {
    items: Vec<(Value, Size)>,
    /// The last message, without its payload.
    last: Option<Message>,
}

impl Node for Collector {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.collection))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.collection = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let item = match self.items {
            Items::Payload => mem::take(&mut message.payload),
            Items::Message => whole(message),
        };
        let size = Size::of(&item).and_then(|size| Ok((size, self.collection.size.plus(size)?)));
        let (size, together) = match size {
            Ok(size) => size,
            Err(reason) => return cx.fail(reason),
        };
        let Some(collected) =
            self.collection
                .topics
                .get_or_fail(&message.topic, cx, Collected::default)
        else {
            return;
        };
        self.collection.size = together;
        collected.items.push((item, size));
        if collected.items.len() >= self.count {
            let payload = collected.take(self.overlap, &mut self.collection.size);
            message.payload = payload;
            parts::leave_whole(message);
            return cx.pass(0);
        }
        message.payload = Value::Null;
        collected.last = Some(message.clone());
        if let Some(every) = self.every.filter(|_| !self.collection.is_waiting) {
            self.collection.is_waiting = true;
            cx.wake_at(cx.now().mono.saturating_add(every));
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.collection.is_waiting = false;
        let Collection { topics, size, .. } = &mut self.collection;
        for (_, collected) in topics.iter_mut() {
            let Some(last) = collected.last.take() else {
                continue;
            };
            let payload = collected.take(0, size);
            cx.emit(0, parts::whole(last, payload));
        }
    }
}

impl Collected {
    /// The list, of which the last few stay for the next one; `together` is the size of all that is collected.
    fn take(&mut self, overlap: usize, together: &mut Size) -> Value {
        let payloads = self.items.iter().map(|(payload, _)| payload.clone());
        let list = Value::List(payloads.collect::<Vec<_>>().into());
        let gone = self.items.len() - overlap;
        for (_, size) in self.items.drain(..gone) {
            *together = together.minus(size);
        }
        self.last = None;
        list
    }
}

fn whole(message: &mut Message) -> Value {
    Value::object([
        ("topic", Value::Text(message.topic.clone())),
        ("time", Value::Text(message.time.to_string().into())),
        ("payload", mem::take(&mut message.payload)),
    ])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::flow::estimate::Load;
    use crate::message::{Timestamp, Value};
    use crate::nodes::keyed::MOST_KEYS;
    use crate::nodes::testing::{Run, graph, node_problems, run_node, run_node_json};

    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let sent = run_node_json(&format!("type = 'batch'\n{options}"), payloads);
        assert_eq!(sent, expected, "{options}");
    }

    #[test]
    fn so_many_messages_make_a_list() {
        check(
            "count = 2",
            r#"[1, null, "a", {"b":[]}, 5]"#,
            &["[1,null]", r#"["a",{"b":[]}]"#],
        );
        check("count = 1", "[1, 2]", &["[1]", "[2]"]);
        check(
            "count = 3\noverlap = 2",
            "[1, 2, 3, 4, 5]",
            &["[1,2,3]", "[2,3,4]", "[3,4,5]"],
        );
        check(
            "count = 3\noverlap = 1",
            "[1, 2, 3, 4, 5, 6]",
            &["[1,2,3]", "[3,4,5]"],
        );
    }

    #[test]
    fn so_much_time_makes_a_list() {
        // Messages come each second from 10 s on.
        check(
            "every = '2500ms'",
            "[1, 2, 3, 4, 5, 6, 7]",
            &["[1,2,3]", "[4,5,6]", "[7]"],
        );
        check("every = '1m'", "[1, 2, 3]", &["[1,2,3]"]);
        check("every = '1m'", "[]", &[]);
        check(
            "every = '2500ms'\ncount = 2",
            "[1, 2, 3, 4]",
            &["[1,2]", "[3]", "[4]"],
        );
    }

    #[test]
    fn the_list_has_what_its_last_message_had() {
        let mut run = Run::new("type = 'batch'\ncount = 2\nitems = 'message'");
        run.deliver_on("a", Timestamp::from_millis(5), 1.0.into());
        run.deliver_on("b", Timestamp::from_millis(6), 2.0.into());
        run.deliver_on("a", Timestamp::from_millis(-7), 3.0.into());
        assert_eq!(
            run.sent,
            [
                r#"[{"topic":"a","time":"1970-01-01T00:00:00.005Z","payload":1},{"topic":"a","time":"1969-12-31T23:59:59.993Z","payload":3}]"#
            ]
        );
        let message = &run.messages[0];
        assert_eq!(
            (&*message.topic, message.time),
            ("a", Timestamp::from_millis(-7))
        );

        let mut run = Run::new("type = 'batch'\nevery = '1s'");
        for (topic, time, payload) in [("a", 5, 1.0), ("b", 6, 2.0), ("a", 7, 3.0)] {
            run.deliver_on(topic, Timestamp::from_millis(time), payload.into());
        }
        run.go_on_until(Timestamp::from_millis(1_000));
        assert_eq!(run.sent, ["[1,3]", "[2]"]);
        let message = &run.messages[0];
        assert_eq!(
            (&*message.topic, message.time),
            ("a", Timestamp::from_millis(7))
        );
    }

    /// A `join` behind it would else take the list for the part that its last message was.
    #[test]
    fn a_list_is_no_part_of_what_its_messages_were() {
        for options in ["count = 2", "every = '1s'"] {
            let mut run = Run::flow(&format!(
                "[nodes.source]\ntype = 'catch'\nnodes = []\n\
                 [nodes.tested]\ntype = 'change'\nfrom = 'source'\nrules = [{{ set = 'headers.unit', to = 'C' }}]\n\
                 [nodes.s]\ntype = 'split'\nfrom = 'tested'\n\
                 [nodes.b]\ntype = 'batch'\nfrom = 's'\n{options}\n\
                 [nodes.sink]\ntype = 'debug'\nfrom = 'b'"
            ));
            let payload = Value::List(vec![1.0.into(), 2.0.into()].into());
            run.deliver(Timestamp::default(), payload);
            run.go_on_until(Timestamp::from_millis(2_000));
            assert_eq!(run.sent, ["[1,2]"], "{options}");
            let headers = run.messages[0].headers.clone().expect("one is left");
            assert_eq!(Value::Object(headers).to_json(), r#"{"unit":"C"}"#);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut run = Run::new("type = 'batch'\ncount = 2");
        for topic in 0..=MOST_KEYS {
            run.deliver_on(&format!("t{topic}"), Timestamp::default(), 1.0.into());
        }
        assert_eq!(
            run.sent,
            ["failed: remembers 10000 topics already, `t10000` is one too many"]
        );

        let sent = run_node("type = 'batch'\nevery = '10h'", vec![Value::Null; 10_001]);
        assert_eq!(sent.len(), 1, "a full list does not wait");
        let large = Value::List(vec![Value::Null; 49_999].into());
        let sent = run_node("type = 'batch'\ncount = 3", vec![large; 3]);
        assert_eq!(
            sent,
            ["failed: more than 100000 values would come together"]
        );
    }

    #[test]
    fn what_was_sent_makes_room() {
        let large = Value::List(vec![Value::Null; 49_999].into());
        let lengths = |options: &str| -> Vec<usize> {
            let sent = run_node(
                &format!("type = 'batch'\n{options}"),
                vec![large.clone(); 6],
            );
            sent.iter().map(String::len).collect()
        };
        assert_eq!(lengths("count = 2"), [500_000; 3].map(|_| 2 * 249_996 + 3));
        assert_eq!(lengths("every = '2s'"), [2 * 249_996 + 3; 3]);
    }

    #[test]
    fn the_load_follows_from_count_and_every() {
        let check = |options: &str, expected: (f64, f64)| {
            let graph = graph(&format!(
                "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.b]\ntype = 'batch'\nfrom = 'a'\n{options}\n[nodes.d]\ntype = 'debug'\nfrom = 'b'"
            ));
            let batch = graph.find("b").expect("it is there");
            let load = graph.nodes()[usize::from(batch.0)].spec.load(Load {
                per_second: 2.0,
                bytes: 10.0,
            });
            assert_eq!((load.per_second, load.bytes), expected, "{options}");
        };
        check("count = 10", (0.2, 100.0));
        check("count = 10\noverlap = 8", (1.0, 100.0));
        check("every = '10s'", (0.1 + 2.0 / 10_000.0, 200.0));
        check("every = '10ms'\ncount = 2", (2.0, 10.0));
    }

    #[test]
    fn mistakes_are_said() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'batch'\n{options}"));
            assert!(found[0].contains(expected), "{options}: {found:?}");
        };
        check("", "`count`: is missing: say how many");
        check("count = 0", "`count`: must be from 1 to 10,000");
        check("count = 10001", "`count`: must be from 1 to 10,000");
        check(
            "count = 2\noverlap = 2",
            "`overlap`: must be less than `count` (2)",
        );
        check(
            "count = 2\noverlap = 1\nevery = '1s'",
            "`overlap`: goes with `count` alone",
        );
        check("every = '0s'", "`every`: must be at least 1ms");
        check(
            "count = 1",
            "warning: `count`: makes a list of each message alone",
        );
    }

    #[test]
    fn what_is_collected_outlasts_a_restart_and_goes_out_when_it_is_due() {
        let second = |second: i64| Timestamp::from_millis(second * 1_000);
        let run_off = |off: u64| {
            let mut run = Run::new("type = 'batch'\nevery = '10s'");
            run.deliver(second(0), 1.0.into());
            run.go_on_until(second(4));
            run.restart(Duration::from_secs(off));
            run
        };
        let mut run = run_off(3);
        run.deliver(second(7), 2.0.into());
        run.go_on_until(second(9));
        assert_eq!(run.messages, []);
        run.go_on_until(second(10));
        assert_eq!(run.sent, ["[1,2]"]);

        let mut run = run_off(60);
        run.go_on_until(second(64));
        assert_eq!(run.sent, ["[1]"]);
        run.deliver(second(64), 2.0.into());
        run.go_on_until(second(73));
        assert_eq!(run.sent, ["[1]"]);
        run.go_on_until(second(74));
        assert_eq!(run.sent, ["[1]", "[2]"]);
    }
}
