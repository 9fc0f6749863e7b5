//! `latch`: remembers that something was true until it is reset.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BuildError, Definition, Problem, Surroundings};
use crate::message::{Message, NodeId, Text, Value};
use crate::runtime::node::{Context, Node, excerpt};
use crate::runtime::state::{Pause, State, StateError};

/// Is set by one input and reset by another: an alarm that stays until someone has seen it, a pump with two buttons.
///
/// Each input has a level, `true`/`false` or 1/0, which holds until its next message. While `set` is true the latch is set,
/// while `reset` is true it is reset, while neither is it stays as it is; when both are, `dominant` decides. These are the
/// bistables RS and SR of IEC 61131-3. An input that only ever sends `true` therefore holds the latch: let it send
/// `false` too, as a button on `gpio in` does.
///
/// Sends its state, `true` or `false`, with each message, so that what reads it can tell "unchanged" from "no more messages";
/// a `filter` behind it leaves the changes. What is no level, or comes from another node, fails and changes nothing.
///
/// The topic is that of the message that came, so it changes with the input. What remembers by topic, such as `filter` and `debounce`, takes
/// that for several signals: put a `change` that sets the topic in between.
///
/// Its state is kept over a restart. Outputs are at their safe level then, so it sends its state once at the start, on its own
/// topic (the flow's and the node's name), if it had sent one before.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Latch {
    /// The node that sets it. Default: every node that it reads but `reset`; one that is true is enough.
    set: Option<String>,
    /// The node that resets it. Default: none, and what was set stays so for good.
    reset: Option<String>,
    /// What counts when both are true: `reset` or `set`. Default: `reset`.
    #[serde(default)]
    dominant: Dominant,
    /// The state when the flow runs for the first time. Default: `false`.
    #[serde(default)]
    start: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Dominant {
    #[default]
    Reset,
    Set,
}

impl Definition for Latch {
    const NAME: &'static str = "latch";
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.too-warm]
type = "hysteresis"
from = "probe"
above = 8.0
below = 7.0

[nodes.seen]
type = "gpio in"      # a button: high while it is pressed
pin = 22
pull = "down"

[nodes.alarm]
type = "latch"
from = ["too-warm", "seen"]
set = "too-warm"
reset = "seen"

[nodes.lamp]
type = "gpio out"
from = "alarm"
pin = 24
"#;

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let set = self.set.iter().map(|name| ("set", name.clone()));
        let reset = self.reset.iter().map(|name| ("reset", name.clone()));
        set.chain(reset).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        if self.set.is_some() && self.set == self.reset {
            return vec![Problem::new("reset", "must be another node than `set`")];
        }
        Vec::new()
    }

    fn warnings(&self) -> Vec<Problem> {
        if self.set.is_some() && self.reset.is_none() {
            let message = "names the only input that counts; without `reset` nothing ends it, not even a restart";
            return vec![Problem::new("set", message)];
        }
        Vec::new()
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let input = |name: &Option<String>| name.as_deref().map(|name| site.input(name));
        Ok(Box::new(Bistable {
            set: input(&self.set),
            reset: input(&self.reset),
            dominant: self.dominant,
            reads: site.reads().collect(),
            topic: site.own_topic(),
            remembered: Remembered {
                sets: Vec::new(),
                is_reset: false,
                is_on: self.start,
                is_told: false,
            },
        }))
    }
}

struct Bistable {
    set: Option<NodeId>,
    reset: Option<NodeId>,
    dominant: Dominant,
    /// The nodes that it reads.
    reads: Vec<NodeId>,
    /// The topic under which it says at the start what it remembers.
    topic: Text,
    remembered: Remembered,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The nodes whose level is true and sets it; no more than it reads.
    sets: Vec<NodeId>,
    /// The level of `reset`.
    is_reset: bool,
    is_on: bool,
    /// Whether it has ever sent its state.
    is_told: bool,
}

impl Remembered {
    fn step(&mut self, dominant: Dominant) {
        let is_set = !self.sets.is_empty();
        self.is_on = match dominant {
            Dominant::Reset => !self.is_reset && (is_set || self.is_on),
            Dominant::Set => is_set || (!self.is_reset && self.is_on),
        };
    }
}

impl Node for Bistable {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.remembered))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.remembered = state.read()?;
        // One that it reads no more would hold it for ever.
        self.remembered.sets.retain(|set| self.reads.contains(set));
        if pause == Pause::Restart && self.remembered.is_told {
            let is_on = Value::Bool(self.remembered.is_on);
            cx.originate(self.topic.clone(), is_on, cx.now().wall);
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(level) = message.payload.as_level() else {
            cx.fail(format!(
                "needs true, false, 1 or 0, but the payload is {}",
                excerpt(&message.payload)
            ));
            return;
        };
        let from = message.source;
        let remembered = &mut self.remembered;
        if self.reset == Some(from) {
            remembered.is_reset = level;
        } else if self.set.is_none_or(|set| set == from) {
            remembered.sets.retain(|set| *set != from);
            if level {
                remembered.sets.push(from);
            }
        } else {
            cx.fail("the message is from a node that is neither `set` nor `reset`");
            return;
        }
        remembered.step(self.dominant);
        remembered.is_told = true;
        message.payload = Value::Bool(remembered.is_on);
        cx.pass(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Message, Timestamp, Value};
    use crate::nodes::testing::{Run, graph, node_problems, problems};
    use crate::runtime::{Address, Effect, Engine, Event, Now};

    const SET_AND_RESET: &str = "type = 'latch'\nset = 'set'\nreset = 'reset'";

    /// What it sends for levels from these nodes.
    fn check(options: &str, inputs: &[(&str, Value)], expected: &[&str]) {
        let mut run = Run::with_sources(&["set", "reset", "other"], options);
        for (source, payload) in inputs {
            run.deliver_message(source, "t", Timestamp::default(), payload.clone());
        }
        assert_eq!(run.sent, expected, "{options}: {inputs:?}");
    }

    fn on(source: &str) -> (&str, Value) {
        (source, true.into())
    }

    fn off(source: &str) -> (&str, Value) {
        (source, false.into())
    }

    #[test]
    fn it_stays_as_it_was_until_the_other_input_is_true() {
        check(
            SET_AND_RESET,
            &[
                off("set"),
                on("set"),
                off("set"),
                off("reset"),
                on("reset"),
                off("reset"),
                ("set", 1.0.into()),
                ("set", 0.0.into()),
            ],
            &[
                "false", "true", "true", "true", "false", "false", "true", "true",
            ],
        );
    }

    #[test]
    fn when_both_are_true_the_dominant_one_counts() {
        let both = [
            on("set"),
            on("reset"),
            on("set"),
            off("reset"),
            off("set"),
            on("reset"),
        ];
        check(
            SET_AND_RESET,
            &both,
            &["true", "false", "false", "true", "true", "false"],
        );
        check(
            &format!("{SET_AND_RESET}\ndominant = 'set'"),
            &both,
            &["true", "true", "true", "true", "true", "false"],
        );
    }

    #[test]
    fn without_set_every_other_input_sets() {
        check(
            "type = 'latch'\nreset = 'reset'",
            &[
                on("set"),
                on("other"),
                on("reset"),
                off("set"),
                off("reset"),
                off("other"),
                on("reset"),
                off("reset"),
            ],
            &[
                "true", "true", "false", "false", "true", "true", "false", "false",
            ],
        );
    }

    #[test]
    fn without_reset_it_latches_for_good() {
        check(
            "type = 'latch'",
            &[off("set"), on("set"), off("set"), off("other")],
            &["false", "true", "true", "true"],
        );
    }

    #[test]
    fn it_starts_as_told() {
        check(
            &format!("{SET_AND_RESET}\nstart = true"),
            &[off("reset"), on("reset")],
            &["true", "false"],
        );
    }

    #[test]
    fn what_it_cannot_use_fails_and_changes_nothing() {
        check(
            SET_AND_RESET,
            &[on("set"), ("reset", 2.0.into()), on("other"), off("set")],
            &[
                "true",
                "failed: needs true, false, 1 or 0, but the payload is 2",
                "failed: the message is from a node that is neither `set` nor `reset`",
                "true",
            ],
        );
    }

    #[test]
    fn options_are_checked() {
        let found = node_problems("type = 'latch'\nset = 'source'\nreset = 'source'");
        assert!(
            found[0].ends_with("error: `reset`: must be another node than `set`"),
            "{found:?}"
        );
        let found = node_problems("type = 'latch'\nset = 'source'");
        assert!(
            found[0].contains("warning: `set`: names the only"),
            "{found:?}"
        );
        // Not also that `reset` is missing.
        let found = node_problems("type = 'latch'\nset = 'source'\nrest = 'source'");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("did you mean `reset`?"), "{found:?}");
        let found = node_problems("type = 'latch'\nreset = 'sorce'");
        assert!(found[0].contains("did you mean `source`?"), "{found:?}");
        let found = problems(
            "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.b]\ntype = 'latch'\nfrom = 'a'\n\
             [nodes.c]\ntype = 'debug'\nfrom = 'b'",
        );
        assert_eq!(found, [""; 0], "one input without a name is fine");
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn after_a_restart_it_says_its_state_if_it_had_said_one() {
        let mut run = Run::with_sources(&["set", "reset"], SET_AND_RESET);
        run.restart(HOUR);
        assert_eq!(run.sent, [""; 0]);
        run.deliver_message("set", "t", Timestamp::default(), true.into());
        run.deliver_message("set", "t", Timestamp::default(), false.into());
        run.restart(HOUR);
        assert_eq!(run.sent, ["true", "true", "true"]);
        let said = &run.messages[2];
        assert_eq!((&*said.topic, said.time), ("test/tested", run.now.wall));
        run.deliver_message("reset", "t", Timestamp::default(), true.into());
        assert_eq!(run.sent[3], "false");
    }

    /// One that is read no more would hold it for ever.
    #[test]
    fn what_it_reads_no_more_does_not_set_it() {
        let flow = |from: &str| {
            let source = |name: &str| format!("[nodes.{name}]\ntype = 'catch'\nnodes = []\n");
            let sources: String = ["a", "b", "reset"].map(source).concat();
            graph(&format!(
                "{sources}[nodes.other]\ntype = 'debug'\nfrom = ['a', 'b']\n\
                 [nodes.tested]\ntype = 'latch'\nreset = 'reset'\nfrom = [{from}]\n\
                 [nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
            ))
        };
        let (before, after) = (flow("'a', 'b', 'reset'"), flow("'a', 'reset'"));
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(before.clone(), Now::default(), &mut effects);
        let send = |engine: &mut Engine, flow: u32, from: &str, level: bool| {
            let id = |name| before.find(name).expect("it is there");
            let message = Message {
                topic: "t".into(),
                payload: level.into(),
                time: Timestamp::default(),
                source: id(from),
                headers: None,
            };
            let to = Address {
                flow,
                node: id("tested"),
            };
            let messages = vec![message];
            let mut effects = Vec::new();
            engine.handle(
                Now::default(),
                Event::Messages { to, messages },
                &mut effects,
            );
            match &effects[..] {
                [Effect::Debug { message, .. }] => message.payload == true.into(),
                other => panic!("{other:?}"),
            }
        };
        assert!(send(&mut engine, 0, "b", true));
        let flow = engine.replace(0, after, Now::default(), &mut effects);
        let flow = flow.expect("it can be built");
        assert!(send(&mut engine, flow, "a", false), "it stays as it was");
        assert!(!send(&mut engine, flow, "reset", true));
        assert!(!send(&mut engine, flow, "reset", false));
    }
}
