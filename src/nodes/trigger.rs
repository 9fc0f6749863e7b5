//! `trigger`: one message now, another one after a while.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::timers::{self, Deadlines, Stretch};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Text, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends one message when one comes, and another one after a while: a staircase light, a pump that runs on.
///
/// While the time runs, further messages end here; with `extend = true` each begins the time anew. The second message is the
/// last one that counted, with `then` as its payload and the time at which it is sent. The time is monotonic. There is one
/// state for all topics, unless `per_topic` says otherwise.
///
/// The time goes on over a restart. Outputs are at their safe level then, so with `then` the first message is sent again at the start, for
/// what is left of the time.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Trigger {
    /// The payload to send at once. Default: the payload that came.
    send: Option<Value>,
    /// How long until `then`, from `1ms`.
    after: Span,
    /// The payload to send after that time. Default: nothing is sent, so that the node only holds back what comes too soon.
    then: Option<Value>,
    /// Whether a message that comes while the time runs begins it anew. Default: `false`.
    #[serde(default)]
    extend: bool,
    /// A payload that ends the time at once; neither it nor `then` is sent. Default: none does.
    reset: Option<Value>,
    /// Whether each topic has a time of its own, for at most 10,000 of them. Default: `false`.
    #[serde(default)]
    per_topic: bool,
}

impl Definition for Trigger {
    const NAME: &'static str = "trigger";
    const EXAMPLE: &'static str = r#"
[nodes.motion]
type = "gpio in"
pin = 22
pull = "up"

[nodes.someone]
type = "where"
from = "motion"
when = "payload === 1"

[nodes.staircase]
type = "trigger"
from = "someone"
send = true
after = "3m"
then = false
extend = true

[nodes.light]
type = "gpio out"
from = "staircase"
pin = 17

[nodes.show]
type = "debug"
from = "staircase"
"#;

    fn problems(&self) -> Vec<Problem> {
        Vec::from_iter(timers::too_short("after", self.after))
    }

    fn warnings(&self) -> Vec<Problem> {
        let is_same = self.send.is_some() && self.send == self.then;
        let same = is_same.then(|| Problem::new("then", "is the same as `send`"));
        same.into_iter().collect()
    }

    /// For one topic. Without `reset` the node sends once, and once more, in each stretch of `after`.
    fn load(&self, input: Load) -> Load {
        let now_and_then = input.at_most_every(self.after.0);
        let first = if self.reset.is_some() {
            input
        } else {
            now_and_then
        };
        let size = |load: Load, value: &Value| load.sized(value.to_json().len() as f64);
        let first = self.send.iter().fold(first, size);
        let then = self.then.iter().map(|then| size(now_and_then, then));
        then.fold(first, Load::and)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Timer {
            send: self.send.clone(),
            after: self.after.0,
            then: self.then.clone(),
            extend: self.extend,
            reset: self.reset.clone(),
            per_topic: self.per_topic,
            all: "".into(),
            remembered: Remembered::default(),
        }))
    }
}

struct Timer {
    send: Option<Value>,
    after: Duration,
    then: Option<Value>,
    extend: bool,
    reset: Option<Value>,
    per_topic: bool,
    /// The key of the one state, if topics have none of their own.
    all: Text,
    remembered: Remembered,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    /// While the time runs: since the last message that counted.
    running: Keyed<Option<Stretch>>,
    deadlines: Deadlines,
}

impl Node for Timer {
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
        if pause == Pause::Restart && self.then.is_some() {
            self.send_again(cx);
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let key = if self.per_topic {
            message.topic.clone()
        } else {
            self.all.clone()
        };
        let running = self.remembered.running.get_mut(&key);
        let running = running.and_then(|it| it.as_ref());
        if running.is_some_and(|running| running.was_over(message, cx)) {
            self.remembered.deadlines.cancel(&key, cx);
            self.end(&key, cx);
        }
        let Remembered { running, deadlines } = &mut self.remembered;
        if self.reset.as_ref() == Some(&message.payload) {
            if let Some(running) = running.get_mut(&key) {
                *running = None;
            }
            return deadlines.cancel(&key, cx);
        }
        let Some(running) = running.get_or_fail(&key, cx, || None) else {
            return;
        };
        let is_first = running.is_none();
        if is_first || self.extend {
            let end = running.insert(Stretch::new(message, self.after, cx)).end;
            deadlines.set(&key, end, cx);
        }
        if is_first {
            if let Some(send) = &self.send {
                message.payload = send.clone();
            }
            cx.pass(0);
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        if let Some(key) = self.remembered.deadlines.take_due(cx) {
            self.end(&key, cx);
        }
    }
}

impl Timer {
    /// After a restart: the message with which each time began that still runs.
    fn send_again(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        let running = self.remembered.running.iter_mut();
        for stretch in running.filter_map(|(_, stretch)| stretch.as_ref()) {
            if stretch.end > now.mono {
                let mut message = stretch.first.clone();
                if let Some(send) = &self.send {
                    message.payload = send.clone();
                }
                message.time = now.wall;
                cx.emit(0, message);
            }
        }
    }

    /// The time is over.
    fn end(&mut self, key: &str, cx: &mut Context<'_>) {
        let running = self.remembered.running.get_mut(key);
        let ended = running.and_then(Option::take);
        if let (
            Some(Stretch {
                first: mut message, ..
            }),
            Some(then),
        ) = (ended, &self.then)
        {
            message.payload = then.clone();
            message.time = cx.now().wall;
            cx.emit(0, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, check_problems};

    /// What is sent, as `second payload`, for payloads that come at these seconds.
    fn check(options: &str, payloads: &[(i64, Value)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'trigger'\nafter = '5s'\n{options}"));
        let mut found = Vec::new();
        for second in 0..30 {
            let now = Timestamp::from_millis(second * 1000);
            run.go_on_until(now);
            for (_, payload) in payloads.iter().filter(|(at, _)| *at == second) {
                run.deliver(now, payload.clone());
            }
            found.extend(run.sent.drain(..).map(|sent| format!("{second} {sent}")));
        }
        assert_eq!(found, expected, "{options}");
    }

    fn at(second: i64, payload: impl Into<Value>) -> (i64, Value) {
        (second, payload.into())
    }

    #[test]
    fn it_sends_now_and_then() {
        let motion = [at(1, 1.0), at(3, 2.0), at(6, 3.0)];
        let options = "send = true\nthen = false";
        // The third comes as the time is over, and begins anew.
        check(
            options,
            &motion,
            &["1 true", "6 false", "6 true", "11 false"],
        );
        check(
            &format!("{options}\nextend = true"),
            &motion,
            &["1 true", "11 false"],
        );
    }

    #[test]
    fn without_payloads_it_holds_back_what_comes_too_soon() {
        let payloads = [at(1, 1.0), at(5, 2.0), at(6, 3.0)];
        check("", &payloads, &["1 1", "6 3"]);
        check("extend = true", &payloads, &["1 1"]);
        check("then = 'over'", &payloads[..1], &["1 1", "6 \"over\""]);
    }

    /// Else someone who comes as the light is about to go out would stay in the dark.
    #[test]
    fn what_comes_before_a_late_wake_up_begins_anew() {
        let node = "type = 'trigger'\nafter = '5s'\nsend = true\nthen = false\nreset = 'stop'";
        for (payload, expected) in [
            (Value::from(1.0), &["true", "false", "true", "false"][..]),
            (Value::from("stop"), &["true", "false"]),
        ] {
            let mut run = Run::new(node);
            run.deliver(Timestamp::default(), 1.0.into());
            run.now = run.now.later(Duration::from_secs(5));
            run.deliver(Timestamp::from_millis(5_000), payload);
            run.go_on_until(Timestamp::from_millis(60_000));
            assert_eq!(run.sent, expected);
        }
    }

    #[test]
    fn what_came_in_time_and_was_served_late_extends_the_time() {
        let node = "type = 'trigger'\nafter = '5s'\nsend = true\nthen = false\nextend = true";
        let mut run = Run::new(node);
        run.deliver(Timestamp::default(), 1.0.into());
        run.now = run.now.later(Duration::from_secs(6));
        run.deliver(Timestamp::from_millis(4_000), 1.0.into());
        run.go_on_until(Timestamp::from_millis(60_000));
        assert_eq!(run.sent, ["true", "false"]);
    }

    #[test]
    fn a_reset_ends_the_time_and_sends_nothing() {
        let options = "send = 'on'\nthen = 'off'\nreset = 'stop'";
        check(
            options,
            &[at(0, "stop"), at(1, 1.0), at(3, "stop"), at(4, "stop")],
            &["1 \"on\""],
        );
        check(
            options,
            &[at(1, 1.0), at(3, "stop"), at(4, Value::Null)],
            &["1 \"on\"", "4 \"on\"", "9 \"off\""],
        );
    }

    #[test]
    fn topics_share_one_time_or_have_their_own() {
        let check = |options: &str, expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'trigger'\nafter = '5s'\n{options}"));
            run.deliver_on("a", Timestamp::default(), 1.0.into());
            run.go_on_until(Timestamp::from_millis(1_000));
            run.deliver_on("b", Timestamp::default(), 2.0.into());
            run.go_on_until(Timestamp::from_millis(6_000));
            let sent: Vec<String> = run
                .messages
                .iter()
                .map(|message| format!("{} {} {}", message.topic, message.payload, message.time))
                .collect();
            assert_eq!(sent, expected, "{options}");
        };
        check(
            "then = 0",
            &[
                "a 1 1970-01-01T00:00:00.000Z",
                "a 0 1970-01-01T00:00:05.000Z",
            ],
        );
        check(
            "then = 0\nextend = true",
            &[
                "a 1 1970-01-01T00:00:00.000Z",
                "b 0 1970-01-01T00:00:06.000Z",
            ],
        );
        check(
            "then = 0\nper_topic = true",
            &[
                "a 1 1970-01-01T00:00:00.000Z",
                "b 2 1970-01-01T00:00:00.000Z",
                "a 0 1970-01-01T00:00:05.000Z",
                "b 0 1970-01-01T00:00:06.000Z",
            ],
        );
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'trigger'\n{options}"), expected)
        };
        check("after = '0s'", &["`after`: must be at least 1ms"]);
        check(
            "after = '1s'\nsend = 1\nthen = 1",
            &["`then`: is the same as `send`"],
        );
        check("", &["needs `after`"]);
    }

    #[test]
    fn after_a_restart_it_is_on_for_what_is_left() {
        let check = |options: &str, off: u64, expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'trigger'\nafter = '5s'\n{options}"));
            run.deliver(Timestamp::default(), 1.0.into());
            run.go_on_until(Timestamp::from_millis(2_000));
            run.sent.clear();
            run.restart(Duration::from_secs(off));
            let mut found = Vec::new();
            for second in 2 + off..10 {
                run.go_on_until(Timestamp::from_millis(second as i64 * 1000));
                found.extend(run.sent.drain(..).map(|sent| format!("{second} {sent}")));
            }
            assert_eq!(found, expected, "{options} {off}");
        };
        let light = "send = true\nthen = false";
        check(light, 1, &["3 true", "5 false"]);
        check(light, 2, &["4 true", "5 false"]);
        check(light, 3, &["5 false"]);
        check(light, 7, &["9 false"]);
        check("then = 0", 1, &["3 1", "5 0"]);
        // It only holds back, and nothing is on.
        check("send = true", 1, &[]);
    }
}
