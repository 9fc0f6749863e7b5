//! `lag`: what a reading was before.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::keyed::Keyed;
use super::series::{is_ahead, later_or_fail, present_or_fail};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::options::Span;
use crate::message::{Message, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends an earlier payload of the topic in the place of each one: the one that came `count` messages before, or the one
/// that was there a span of event time before.
///
/// Payloads of any kind go through. Nothing is sent until there is one early enough. With `by`, a message that is not later
/// than the one before it on its topic fails. Payloads are kept over a restart; with `by`, those that the clock is behind of, as on
/// a Pi whose clock is not set yet, are forgotten. At most 10,000 topics and 100,000 payloads, over all topics, are remembered;
/// messages beyond fail.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Lag {
    /// How many messages to go back, from 1 to 10,000. Default: 1, unless `by` is given.
    count: Option<usize>,
    /// How much time to go back. Sends the last payload that is at least so much older than the one that came.
    by: Option<Span>,
}

impl Definition for Lag {
    const NAME: &'static str = "lag";
    const EXAMPLE: &'static str = r#"
[nodes.barometer]
type = "iio"
device = "bme280"
channel = "pressure"
every = "1m"

[nodes.before]
type = "lag"
from = "barometer"
by = "15m"

[nodes.show]
type = "debug"
from = "before"
"#;

    fn problems(&self) -> Vec<Problem> {
        let problem = match (self.count, self.by) {
            (Some(_), Some(_)) => Problem::new("by", "cannot be given beside `count`"),
            (Some(count), None) if !(1..=10_000).contains(&count) => {
                Problem::new("count", "must be from 1 to 10000")
            }
            (None, Some(Span(Duration::ZERO))) => Problem::new("by", "must be longer than 0s"),
            _ => return Vec::new(),
        };
        vec![problem]
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let back = match self.by {
            Some(by) => Back::Span(by.0),
            None => Back::Messages(self.count.unwrap_or(1)),
        };
        Ok(Box::new(Delayed {
            back,
            earlier: Keyed::default(),
            remembered: 0,
        }))
    }
}

/// How far to go back.
#[derive(Clone, Copy)]
enum Back {
    Messages(usize),
    Span(Duration),
}

/// Payloads that one node remembers, over all topics.
const MOST_REMEMBERED: usize = 100_000;

struct Delayed {
    back: Back,
    /// Of each topic what may still be asked for, the oldest first.
    earlier: Keyed<VecDeque<(Timestamp, Value)>>,
    /// How many of them there are.
    remembered: usize,
}

impl Node for Delayed {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.earlier))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.earlier = state.read()?;
        self.remembered = 0;
        for (_, earlier) in self.earlier.iter_mut() {
            if matches!(self.back, Back::Span(_)) {
                while earlier
                    .pop_back_if(|(time, _)| is_ahead(*time, pause, cx))
                    .is_some()
                {}
            }
            if let Back::Messages(count) = self.back {
                let excess = earlier.len().saturating_sub(count);
                earlier.drain(..excess);
            }
            self.remembered += earlier.len();
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        if matches!(self.back, Back::Span(_)) && present_or_fail(message.time, cx).is_none() {
            return;
        }
        let Some(earlier) = self.earlier.get_or_fail(&message.topic, cx, VecDeque::new) else {
            return;
        };
        let newest = earlier.back().map(|(time, _)| *time);
        if let (Back::Span(_), Some(newest)) = (self.back, newest)
            && later_or_fail(message.time, newest, cx).is_none()
        {
            return;
        }
        let before = earlier.len();
        let found = match self.back {
            Back::Messages(count) if earlier.len() < count => None,
            Back::Messages(_) => earlier.pop_front().map(|(_, payload)| payload),
            Back::Span(by) => as_of(earlier, message.time, by),
        };
        // Where something was taken out, there is room.
        self.remembered -= before - earlier.len();
        if self.remembered >= MOST_REMEMBERED {
            cx.fail(format!(
                "remembers {MOST_REMEMBERED} payloads already, this is one too many"
            ));
            return;
        }
        earlier.push_back((message.time, message.payload.clone()));
        self.remembered += 1;
        if let Some(payload) = found {
            message.payload = payload;
            cx.pass(0);
        }
    }
}

/// The last payload that is at least `by` older than `time`. What is older still is dropped: time goes on, so that it will
/// not be asked for again.
fn as_of(
    earlier: &mut VecDeque<(Timestamp, Value)>,
    time: Timestamp,
    by: Duration,
) -> Option<Value> {
    let is_due = |entry: Option<&(Timestamp, Value)>| {
        entry.is_some_and(|(past, _)| time.saturating_since(*past) >= by)
    };
    while is_due(earlier.get(1)) {
        earlier.pop_front();
    }
    let first = earlier.front();
    is_due(first).then(|| first.map(|(_, payload)| payload.clone()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::{Run, node_mistakes, run_node_json};
    use crate::runtime::Now;

    #[test]
    fn it_goes_back_some_messages() {
        let check = |options: &str, payloads: &str, expected: &[&str]| {
            let sent = run_node_json(&format!("type = 'lag'\n{options}"), payloads);
            assert_eq!(sent, expected, "{options} {payloads}");
        };
        check("", "[]", &[]);
        check("", "[1]", &[]);
        check(
            "",
            r#"[1, "two", null, {"x": 4}, 5]"#,
            &["1", "\"two\"", "null", "{\"x\":4}"],
        );
        check("count = 3", "[1, 2, 3]", &[]);
        check("count = 3", "[1, 2, 3, 4, 5]", &["1", "2"]);
    }

    #[test]
    fn it_goes_back_some_time() {
        let check = |by: &str, times_ms: &[i64], expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'lag'\nby = '{by}'"));
            for ms in times_ms {
                run.go_on_until(Timestamp::from_millis(*ms));
                run.deliver(Timestamp::from_millis(*ms), (*ms as f64).into());
            }
            assert_eq!(run.sent, expected, "{by} {times_ms:?}");
        };
        check("1s", &[0], &[]);
        check("1s", &[0, 999], &[]);
        check("1s", &[0, 1000], &["0"]);
        check(
            "1s",
            &[0, 500, 1100, 1499, 1500, 9000],
            &["0", "0", "500", "1500"],
        );
        // The one that was there at that time, however long it had been there.
        check("1s", &[0, 9000, 9500, 10_001], &["0", "0", "9000"]);
        check(
            "1s",
            &[2000, 2000, 1000, 3000],
            &[
                "failed: the reading of 1970-01-01T00:00:02.000Z is not later than the one before it, of 1970-01-01T00:00:02.000Z",
                "failed: the reading of 1970-01-01T00:00:01.000Z is not later than the one before it, of 1970-01-01T00:00:02.000Z",
                "2000",
            ],
        );
    }

    #[test]
    fn the_time_is_that_of_the_message_that_came() {
        let mut run = Run::new("type = 'lag'");
        for ms in [5, 9] {
            run.go_on_until(Timestamp::from_millis(ms));
            run.deliver(Timestamp::from_millis(ms), Value::Null);
        }
        run.go_on_until(Timestamp::from_nanos(i64::MIN));
        run.deliver(Timestamp::from_nanos(i64::MIN), Value::Null);
        assert_eq!(run.messages[0].time, Timestamp::from_millis(9));
        assert_eq!(run.messages[1].time, Timestamp::from_nanos(i64::MIN));
    }

    #[test]
    fn topics_are_apart() {
        let mut run = Run::new("type = 'lag'");
        for (topic, number) in [("a", 1.0), ("b", 2.0), ("b", 3.0), ("a", 4.0)] {
            run.go_on_until(Timestamp::default());
            run.deliver_on(topic, Timestamp::default(), number.into());
        }
        assert_eq!(run.sent, ["2", "1"]);
    }

    #[test]
    fn memory_is_bounded_over_all_topics_and_freed_as_time_goes_on() {
        let mut run = Run::new("type = 'lag'\nby = '1h'");
        let second = |second: i64| Timestamp::from_millis(1000 * second);
        run.go_on_until(second(0));
        run.deliver_on("other", second(0), 0.0.into());
        for ms in 1..MOST_REMEMBERED as i64 {
            run.go_on_until(Timestamp::from_millis(ms));
            run.deliver(Timestamp::from_millis(ms), 0.0.into());
        }
        assert_eq!(run.sent, [""; 0]);
        run.go_on_until(second(1000));
        run.deliver(second(1000), 1.0.into());
        run.go_on_until(second(1000));
        run.deliver_on("other", second(1000), 1.0.into());
        assert_eq!(
            run.sent,
            ["failed: remembers 100000 payloads already, this is one too many"; 2]
        );
        run.sent.clear();
        run.go_on_until(second(4000));
        run.deliver(second(4000), 2.0.into());
        run.go_on_until(second(4000));
        run.deliver_on("other", second(4000), 3.0.into());
        assert_eq!(run.sent, ["0", "0"]);
    }

    #[test]
    fn it_goes_back_one_way_and_within_limits() {
        let check = |options: &str, expected: &str| {
            let found = node_mistakes(&format!("type = 'lag'\n{options}"));
            assert_eq!(found, [expected], "{options}");
        };
        check(
            "count = 2\nby = '1s'",
            "`by`: cannot be given beside `count`",
        );
        check("count = 0", "`count`: must be from 1 to 10000");
        check("count = 10001", "`count`: must be from 1 to 10000");
        check("by = '0s'", "`by`: must be longer than 0s");
    }

    #[test]
    fn payloads_outlast_a_restart_unless_the_clock_is_behind_them() {
        // When the clock begins after the restart, in seconds.
        let check = |options: &str, clock: i64, expected: &[&str]| {
            let mut run = Run::new(&format!("type = 'lag'\n{options}"));
            let at = |second: i64| Timestamp::from_millis(second * 1000);
            for second in [100, 101] {
                run.go_on_until(at(second));
                run.deliver(at(second), (second as f64).into());
            }
            run.sent.clear();
            let now = Now {
                wall: at(clock),
                ..run.now
            };
            run.restart_at(now);
            run.deliver(at(clock), 7.0.into());
            run.go_on_until(at(clock + 1));
            run.deliver(at(clock + 1), 8.0.into());
            assert_eq!(run.sent, expected, "{options} {clock}");
        };
        check("count = 2", 200, &["100", "101"]);
        check("count = 2", 1, &["100", "101"]);
        check("by = '1s'", 102, &["101", "7"]);
        check("by = '1s'", 1, &["7"]);
    }
}
