//! `throttle`: no more messages than so many in a stretch of time.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::delay::{a_thousand, problem_with_most};
use super::keyed::Keyed;
use super::timers::{self, Deadlines};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Lets through at most `count` messages in any stretch of `every`, per topic.
///
/// Other messages leave by the port `dropped`, where they end unless something reads it; with `mode = "queue"` they wait, and
/// go on in order as soon as they may. To have them evenly spaced, leave `count` at 1. The time is monotonic; messages keep
/// their own. Messages that wait are kept over a restart. Memory for each topic: 16 bytes for each of `count`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Throttle {
    /// The stretch of time, from `1ms`.
    every: Span,
    /// How many messages of a topic may go on in it, from 1 to 1,000. Default: 1.
    #[serde(default = "one")]
    count: usize,
    /// What becomes of the others: `drop` or `queue`. Default: `drop`.
    #[serde(default)]
    mode: Mode,
    /// With `mode = "queue"`: how many messages may wait, of all topics together, from 1 to 100,000; further ones fail.
    /// Default: 1,000.
    most: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Drop,
    Queue,
}

fn one() -> usize {
    1
}

const OUT: usize = 0;
const DROPPED: usize = 1;

impl Definition for Throttle {
    const NAME: &'static str = "throttle";
    const PORTS: &'static [&'static str] = &["out", "dropped"];
    const EXAMPLE: &'static str = r#"
[nodes.vibration]
type = "iio"
device = "adxl345"
channel = "accel_z"
every = "10ms"

[nodes.strong]
type = "where"
from = "vibration"
when = "Math.abs(payload - 9.81) > 2"

# However long it shakes, one message a minute is enough.
[nodes.alarm]
type = "throttle"
from = "strong"
every = "1m"

[nodes.report]
type = "uplink"
from = "alarm"
topic = "sites/{device}/press/vibration"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(timers::too_short("every", self.every));
        if !(1..=1000).contains(&self.count) {
            let message = format!("must be from 1 to 1000, not {}", self.count);
            problems.push(Problem::new("count", message));
        }
        match self.most {
            Some(_) if self.mode == Mode::Drop => problems.push(Problem::new(
                "most",
                "nothing waits: it is for `mode = \"queue\"`",
            )),
            Some(most) => problems.extend(problem_with_most(most)),
            None => {}
        }
        problems
    }

    /// For one topic, and without what leaves by `dropped`.
    fn load(&self, input: Load) -> Load {
        let limit = self.count as f64 / self.every.0.as_secs_f64().max(1e-9);
        Load {
            per_second: input.per_second.min(limit),
            ..input
        }
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let limit = Limit {
            every: self.every.0,
            count: self.count,
        };
        let topics = Keyed::default();
        Ok(match self.mode {
            Mode::Drop => Box::new(Dropping { limit, topics }),
            Mode::Queue => Box::new(Queueing {
                limit,
                most: self.most.unwrap_or_else(a_thousand),
                queues: Queues::default(),
            }),
        })
    }
}

#[derive(Clone, Copy)]
struct Limit {
    every: Duration,
    count: usize,
}

/// When the last messages of a topic went on, at most as many as may go in one stretch; in monotonic time.
#[derive(Default, Serialize, Deserialize)]
struct Sent(VecDeque<Duration>);

impl Sent {
    /// When the next message may go on; nothing if it may now.
    fn next(&mut self, limit: Limit, now: Duration) -> Option<Duration> {
        while self
            .0
            .pop_front_if(|sent| sent.saturating_add(limit.every) <= now)
            .is_some()
        {}
        let oldest = self.0.front().filter(|_| self.0.len() >= limit.count)?;
        Some(oldest.saturating_add(limit.every))
    }
}

struct Dropping {
    limit: Limit,
    topics: Keyed<Sent>,
}

impl Node for Dropping {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.topics))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.topics = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let Some(sent) = self.topics.get_or_fail(&message.topic, cx, Sent::default) else {
            return;
        };
        if sent.next(self.limit, now).is_some() {
            return cx.pass(DROPPED);
        }
        sent.0.push_back(now);
        cx.pass(OUT);
    }
}

struct Queueing {
    limit: Limit,
    most: usize,
    queues: Queues,
}

#[derive(Default, Serialize, Deserialize)]
struct Queues {
    /// Messages that wait, of all topics.
    waiting: usize,
    topics: Keyed<Queue>,
    deadlines: Deadlines,
}

#[derive(Default, Serialize, Deserialize)]
struct Queue {
    sent: Sent,
    waiting: VecDeque<Message>,
}

impl Node for Queueing {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.queues))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.queues = state.read()?;
        let queues = self.queues.topics.iter_mut();
        self.queues.waiting = queues.map(|(_, queue)| queue.waiting.len()).sum();
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let Queues {
            waiting,
            topics,
            deadlines,
        } = &mut self.queues;
        let Some(queue) = topics.get_or_fail(&message.topic, cx, Queue::default) else {
            return;
        };
        let next = queue.sent.next(self.limit, now);
        if next.is_none() && queue.waiting.is_empty() {
            queue.sent.0.push_back(now);
            return cx.pass(OUT);
        }
        if *waiting >= self.most {
            return cx.fail(format!(
                "{} messages wait already, this one is too many",
                self.most
            ));
        }
        queue.waiting.push_back(message.clone());
        *waiting += 1;
        if queue.waiting.len() == 1 {
            let next = next.unwrap_or(now);
            deadlines.set(&message.topic, next, cx);
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let Queues {
            waiting,
            topics,
            deadlines,
        } = &mut self.queues;
        let Some(topic) = deadlines.take_due(cx) else {
            return;
        };
        let now = cx.now().mono;
        let Some(queue) = topics.get_mut(&topic) else {
            return;
        };
        // One wake-up, one message: a slot is free now, for that is what was waited for.
        if let Some(message) = queue.waiting.pop_front() {
            *waiting -= 1;
            queue.sent.next(self.limit, now);
            queue.sent.0.push_back(now);
            cx.emit(OUT, message);
        }
        if !queue.waiting.is_empty() {
            let next = queue.sent.next(self.limit, now).unwrap_or(now);
            deadlines.set(&topic, next, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems};

    /// What goes on, and when, for messages that come at these milliseconds, numbered from 0; failures too.
    fn check(options: &str, arrivals: &[i64], expected: &[(i64, &str)]) {
        let mut run = Run::with_ports(
            &["out", "dropped"],
            &format!("type = 'throttle'\n{options}"),
        );
        let mut found = Vec::new();
        for millis in 0..20_000 {
            let now = Timestamp::from_millis(millis);
            run.go_on_until(now);
            for number in (0..arrivals.len()).filter(|number| arrivals[*number] == millis) {
                run.deliver(now, (number as f64).into());
            }
            found.extend(run.sent.drain(..).map(|sent| (millis, sent)));
        }
        let found: Vec<(i64, &str)> = found.iter().map(|(at, sent)| (*at, &**sent)).collect();
        assert_eq!(found, expected, "{options}");
    }

    #[test]
    fn in_any_stretch_no_more_than_so_many_go_on() {
        check(
            "every = '1s'",
            &[100, 101, 1_099, 1_100, 1_101],
            &[
                (100, "out: 0"),
                (101, "dropped: 1"),
                (1_099, "dropped: 2"),
                (1_100, "out: 3"),
                (1_101, "dropped: 4"),
            ],
        );
        // The stretch slides: what went on at 900 counts until 1,900.
        check(
            "every = '1s'\ncount = 2",
            &[100, 900, 1_000, 1_100, 1_200, 1_900],
            &[
                (100, "out: 0"),
                (900, "out: 1"),
                (1_000, "dropped: 2"),
                (1_100, "out: 3"),
                (1_200, "dropped: 4"),
                (1_900, "out: 5"),
            ],
        );
    }

    #[test]
    fn in_a_queue_the_others_wait_for_their_turn() {
        check(
            "every = '1s'\nmode = 'queue'",
            &[100, 101, 102, 9_000],
            &[
                (100, "out: 0"),
                (1_100, "out: 1"),
                (2_100, "out: 2"),
                (9_000, "out: 3"),
            ],
        );
        check(
            "every = '1s'\ncount = 2\nmode = 'queue'",
            &[100, 400, 500, 500, 500],
            &[
                (100, "out: 0"),
                (400, "out: 1"),
                (1_100, "out: 2"),
                (1_400, "out: 3"),
                (2_100, "out: 4"),
            ],
        );
    }

    #[test]
    fn nobody_overtakes_in_a_queue() {
        check(
            "every = '1s'\nmode = 'queue'",
            &[100, 1_000, 1_100, 1_101],
            &[
                (100, "out: 0"),
                (1_100, "out: 1"),
                (2_100, "out: 2"),
                (3_100, "out: 3"),
            ],
        );
    }

    /// The engine may come to a message before it comes to a wake-up that is due.
    #[test]
    fn nobody_overtakes_when_the_wake_up_is_late() {
        let mut run = Run::new("type = 'throttle'\nevery = '1s'\nmode = 'queue'");
        run.deliver(Timestamp::default(), 0.0.into());
        run.deliver(Timestamp::default(), 1.0.into());
        run.now = run.now.later(Duration::from_secs(5));
        run.deliver(Timestamp::default(), 2.0.into());
        run.go_on_until(Timestamp::from_millis(6_000));
        assert_eq!(run.sent, ["0", "1", "2"]);
    }

    #[test]
    fn what_finds_no_room_in_the_queue_fails() {
        check(
            "every = '1s'\nmode = 'queue'\nmost = 1",
            &[100, 101, 102, 1_100],
            &[
                (100, "out: 0"),
                (102, "failed: 1 messages wait already, this one is too many"),
                (1_100, "out: 1"),
                (2_100, "out: 3"),
            ],
        );
    }

    #[test]
    fn topics_are_limited_one_by_one() {
        for mode in ["drop", "queue"] {
            let mut run = Run::new(&format!("type = 'throttle'\nevery = '1s'\nmode = '{mode}'"));
            for topic in ["a", "b", "a", "b"] {
                run.deliver_on(topic, Timestamp::default(), topic.into());
            }
            assert_eq!(run.sent, ["\"a\"", "\"b\""], "{mode}");
            run.go_on_until(Timestamp::from_millis(1_000));
            assert_eq!(run.sent.len(), if mode == "queue" { 4 } else { 2 });
        }
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'throttle'\n{options}"), expected)
        };
        check("every = '0s'", &["`every`: must be at least 1ms"]);
        check(
            "every = '1s'\ncount = 0",
            &["`count`: must be from 1 to 1000, not 0"],
        );
        check(
            "every = '1s'\ncount = 1001",
            &["`count`: must be from 1 to 1000, not 1001"],
        );
        check(
            "every = '1s'\nmost = 5",
            &["`most`: nothing waits: it is for `mode = \"queue\"`"],
        );
        check(
            "every = '1s'\nmode = 'queue'\nmost = 0",
            &["`most`: must be from 1 to 100000, not 0"],
        );
        check("every = '1s'\ncount = 1000\nmode = 'queue'\nmost = 1", &[]);
    }

    #[test]
    fn what_waits_goes_on_after_a_restart_as_soon_as_it_may() {
        let mut run =
            Run::new("type = 'throttle'\nevery = '10s'\ncount = 2\nmode = 'queue'\nmost = 4");
        for number in 1..=6 {
            run.deliver(Timestamp::default(), f64::from(number).into());
        }
        run.restart(Duration::from_secs(86_400));
        run.go_on_until(run.now.wall);
        assert_eq!(run.sent, ["1", "2", "3", "4"]);
        run.deliver(run.now.wall, 7.0.into());
        run.go_on_until(run.now.wall.saturating_add(Duration::from_secs(10)));
        assert_eq!(run.sent, ["1", "2", "3", "4", "5", "6"]);
    }
}
