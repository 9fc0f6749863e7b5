//! `delay`: holds each message for some time.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Surroundings, timers};
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends each message on after a fixed time, as it came and in the same order.
///
/// The time is monotonic: a step of the wall clock changes nothing. The message keeps its own time. A message for which there
/// is no room fails. Messages that wait are kept over a restart.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Delay {
    /// How long each message is held, from `1ms`.
    by: Span,
    /// How many messages may wait, of all topics together, from 1 to 100,000; this bounds memory. Default: 1,000.
    #[serde(default = "a_thousand")]
    most: usize,
}

pub(super) fn a_thousand() -> usize {
    1_000
}

/// The problem with a limit of messages that wait, if there is one.
pub(super) fn problem_with_most(most: usize) -> Option<Problem> {
    (!(1..=100_000).contains(&most))
        .then(|| Problem::new("most", format!("must be from 1 to 100000, not {most}")))
}

impl Definition for Delay {
    const NAME: &'static str = "delay";
    const EXAMPLE: &'static str = r#"
[nodes.door]
type = "gpio in"
pin = 22
pull = "up"

# The fan follows the door of the cold store by half a minute.
[nodes.later]
type = "delay"
from = "door"
by = "30s"

[nodes.fan]
type = "gpio out"
from = "later"
pin = 17

[nodes.show]
type = "debug"
from = "later"
"#;

    fn problems(&self) -> Vec<Problem> {
        let problems = [
            timers::too_short("by", self.by),
            problem_with_most(self.most),
        ];
        problems.into_iter().flatten().collect()
    }

    fn breaks_cycle(&self) -> bool {
        true
    }

    fn hint(option: &str) -> Option<&'static str> {
        matches!(option, "rate" | "limit" | "count" | "every")
            .then_some("to send less often use `throttle`; `delay` sends everything later")
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Line {
            by: self.by.0,
            most: self.most,
            held: VecDeque::new(),
        }))
    }
}

struct Line {
    by: Duration,
    most: usize,
    /// Each message with the monotonic time at which it goes on. All wait equally long, so the first is due first.
    held: VecDeque<(Duration, Message)>,
}

impl Node for Line {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.held))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.held = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if self.held.len() >= self.most {
            return cx.fail(format!(
                "holds {} messages already, this one is too many",
                self.most
            ));
        }
        let due = cx.now().mono + self.by;
        self.held.push_back((due, message.clone()));
        self.ask_for_wake(cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        if let Some((_, message)) = self.held.pop_front_if(|(due, _)| *due <= now) {
            cx.emit(0, message);
        }
        self.ask_for_wake(cx);
    }
}

impl Line {
    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        if let Some((due, _)) = self.held.front() {
            cx.wake_at(*due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Message, NodeId, Timestamp};
    use crate::nodes::testing::{Run, check_problems, run_node_json};

    fn ms(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn messages_go_on_as_they_came_after_the_time_and_not_before() {
        let mut run = Run::new("type = 'delay'\nby = '5s'");
        run.go_on_until(ms(1_000));
        let message = Message {
            topic: "a".into(),
            payload: 1.0.into(),
            time: ms(7),
            source: NodeId(0),
            headers: Some(Default::default()),
        };
        run.deliver_whole(message.clone());
        run.go_on_until(ms(5_999));
        assert_eq!(run.messages, []);
        run.go_on_until(ms(6_000));
        let source = NodeId(1);
        assert_eq!(run.messages, [Message { source, ..message }]);
    }

    #[test]
    fn order_is_kept_and_any_payload_is_held() {
        assert_eq!(
            run_node_json("type = 'delay'\nby = '1h'", r#"[3, null, "x", {"a":[1]}]"#),
            ["3", "null", "\"x\"", "{\"a\":[1]}"]
        );
    }

    #[test]
    fn time_goes_on_while_the_device_is_off_and_what_is_overdue_goes_at_the_start() {
        let mut run = Run::new("type = 'delay'\nby = '5s'");
        run.deliver(ms(0), 1.0.into());
        run.go_on_until(ms(3_000));
        run.deliver(ms(0), 2.0.into());
        run.restart(Duration::from_secs(3));
        run.go_on_until(ms(6_000));
        assert_eq!(run.sent, ["1"]);
        run.go_on_until(ms(7_999));
        assert_eq!(run.sent, ["1"]);
        run.go_on_until(ms(8_000));
        assert_eq!(run.sent, ["1", "2"]);
    }

    #[test]
    fn messages_that_came_at_once_go_at_once_and_in_order() {
        let mut run = Run::new("type = 'delay'\nby = '5s'");
        for number in [1.0, 2.0, 3.0] {
            run.deliver(ms(0), number.into());
        }
        run.go_on_until(ms(5_000));
        assert_eq!(run.sent, ["1", "2", "3"]);
    }

    #[test]
    fn without_room_the_new_one_fails() {
        let mut run = Run::new("type = 'delay'\nby = '5s'\nmost = 2");
        for number in [1.0, 2.0, 3.0] {
            run.deliver(ms(0), number.into());
        }
        run.go_on_until(ms(5_000));
        run.deliver(ms(0), 4.0.into());
        run.go_on_until(ms(10_000));
        assert_eq!(
            run.sent,
            [
                "failed: holds 2 messages already, this one is too many",
                "1",
                "2",
                "4"
            ]
        );
    }

    /// The message that comes round carries on: one per delay, and time passes in between.
    #[test]
    fn a_cycle_through_it_comes_to_rest() {
        let mut run = Run::flow(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'delay'\nfrom = ['source', 'again']\nby = '10s'\n\
             [nodes.again]\ntype = 'where'\nfrom = 'tested'\nwhen = 'true'\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'",
        );
        run.deliver(ms(0), 1.0.into());
        run.go_on_until(ms(35_000));
        assert_eq!(run.sent, ["1", "1", "1"]);
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'delay'\n{options}"), expected)
        };
        check("by = '0s'", &["`by`: must be at least 1ms"]);
        check(
            "by = '1s'\nmost = 0",
            &["`most`: must be from 1 to 100000, not 0"],
        );
        check(
            "by = '1s'\nmost = 100001",
            &["`most`: must be from 1 to 100000, not 100001"],
        );
        check("by = '1s'\nmost = 100000", &[]);
        check("by = '1s'\nrate = 3", &["has no option `rate`"]);
    }
}
