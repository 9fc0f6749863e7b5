//! `sample`: the latest message at a steady pace.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::timers::{self, Deadlines};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends the latest message of each topic at a steady pace.
///
/// A topic without a new message since the last time is left out, unless `repeat` says otherwise. All topics are sent at the
/// same times, at multiples of `every` since Tidegate started. The time is monotonic; what was missed is not made up for.
/// Messages keep their own time, so that one which is repeated shows its age. Memory: one message for each topic, of at most
/// 10,000.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Sample {
    /// How often, from `1ms`.
    every: Span,
    /// Whether to send the latest message again if no new one has come. Default: `false`.
    #[serde(default)]
    repeat: bool,
}

impl Definition for Sample {
    const NAME: &'static str = "sample";
    const EXAMPLE: &'static str = r#"
[nodes.pressure]
type = "iio"
device = "bme280"
channel = "pressure"
every = "200ms"

[nodes.now-and-then]
type = "sample"
from = "pressure"
every = "1m"

[nodes.report]
type = "uplink"
from = "now-and-then"
topic = "sites/{device}/hall/pressure"
"#;

    fn problems(&self) -> Vec<Problem> {
        Vec::from_iter(timers::too_short("every", self.every))
    }

    /// For one topic.
    fn load(&self, input: Load) -> Load {
        if self.repeat {
            Load::every(self.every.0, input.bytes)
        } else {
            input.at_most_every(self.every.0)
        }
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Latest {
            every: self.every.0,
            repeat: self.repeat,
            remembered: Remembered::default(),
        }))
    }
}

struct Latest {
    every: Duration,
    repeat: bool,
    remembered: Remembered,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    /// What is to be sent at the next tick, per topic.
    latest: Keyed<Option<Message>>,
    deadlines: Deadlines,
}

impl Latest {
    /// The first tick after now. Ticks are the multiples of `every` in monotonic time.
    fn next_tick(&self, now: Duration) -> Duration {
        let since_tick = now.as_nanos() % self.every.as_nanos();
        now + self.every - Duration::from_nanos_u128(since_tick)
    }
}

impl Node for Latest {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.remembered))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.remembered = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let next_tick = self.next_tick(cx.now().mono);
        let Remembered { latest, deadlines } = &mut self.remembered;
        let Some(latest) = latest.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        if latest.replace(message.clone()).is_none() {
            deadlines.set(&message.topic, next_tick, cx);
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let next_tick = self.next_tick(cx.now().mono);
        let Remembered { latest, deadlines } = &mut self.remembered;
        let Some(topic) = deadlines.take_due(cx) else {
            return;
        };
        let Some(latest) = latest.get_mut(&topic) else {
            return;
        };
        let message = if self.repeat {
            deadlines.set(&topic, next_tick, cx);
            latest.clone()
        } else {
            latest.take()
        };
        if let Some(message) = message {
            cx.emit(0, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems};

    /// What is sent until 6 s, as `ms topic payload`, for messages that come at these milliseconds.
    fn check(options: &str, arrivals: &[(i64, &str, f64)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'sample'\nevery = '1s'\n{options}"));
        let mut found = Vec::new();
        for millis in 0..6_000 {
            let now = Timestamp::from_millis(millis);
            run.go_on_until(now);
            for (_, topic, number) in arrivals.iter().filter(|(at, ..)| *at == millis) {
                run.deliver_on(topic, now, (*number).into());
            }
            let sent = run.messages.drain(..);
            found.extend(sent.map(|sent| format!("{millis} {} {}", sent.topic, sent.payload)));
        }
        assert_eq!(found, expected, "{options}");
    }

    #[test]
    fn the_latest_message_goes_on_at_each_tick_if_it_is_new() {
        check(
            "",
            &[
                (0, "t", 1.0),
                (500, "t", 2.0),
                (999, "t", 3.0),
                (1_000, "t", 4.0),
                (3_700, "t", 5.0),
            ],
            &["1000 t 3", "2000 t 4", "4000 t 5"],
        );
    }

    #[test]
    fn topics_go_at_the_same_ticks() {
        check(
            "",
            &[(100, "a", 1.0), (1_900, "b", 2.0), (1_950, "a", 3.0)],
            &["1000 a 1", "2000 a 3", "2000 b 2"],
        );
    }

    #[test]
    fn what_is_not_new_is_repeated_if_wanted() {
        check(
            "repeat = true",
            &[(2_500, "t", 1.0), (3_500, "t", 2.0)],
            &["3000 t 1", "4000 t 2", "5000 t 2"],
        );
    }

    #[test]
    fn a_repeated_message_shows_its_age() {
        let mut run = Run::new("type = 'sample'\nevery = '1s'\nrepeat = true");
        run.deliver(Timestamp::from_millis(7), 1.0.into());
        run.go_on_until(Timestamp::from_millis(2_000));
        let times: Vec<Timestamp> = run.messages.iter().map(|message| message.time).collect();
        assert_eq!(times, [Timestamp::from_millis(7); 2]);
    }

    #[test]
    fn a_pace_of_nothing_is_refused() {
        check_problems(
            "type = 'sample'\nevery = '0s'",
            &["`every`: must be at least 1ms"],
        );
    }
}
