//! `debounce`: one message for a burst of them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::timers::{self, Deadlines, Stretch};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends one message for a burst of them, per topic: a contact bounces, and what reads it sees one edge.
///
/// A burst ends when its topic was quiet for `quiet`. With `edge = "trailing"` the last message of the burst is sent then: where
/// the contact came to rest. A topic that is never quiet for so long sends nothing. With `edge = "leading"` the first message
/// is sent at once and the rest ends here: without delay, but if the contact came to rest elsewhere, that is not seen; so it
/// is for counting. The time is monotonic; messages keep their own. A burst that ends while the device is off is sent at the start.
/// Memory: one message for each topic.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Debounce {
    /// How long a topic must be quiet, from `1ms`. Contacts bounce for some 5 to 20 ms.
    quiet: Span,
    /// Which message of a burst is sent: the last (`trailing`) or the first (`leading`). Default: `trailing`.
    #[serde(default)]
    edge: Edge,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Edge {
    #[default]
    Trailing,
    Leading,
}

impl Definition for Debounce {
    const NAME: &'static str = "debounce";
    const EXAMPLE: &'static str = r#"
[nodes.contact]
type = "gpio in"
pin = 22
pull = "up"

[nodes.door]
type = "debounce"
from = "contact"
quiet = "50ms"

[nodes.report]
type = "uplink"
from = "door"
topic = "sites/{device}/cold-store/door"
"#;

    fn problems(&self) -> Vec<Problem> {
        Vec::from_iter(timers::too_short("quiet", self.quiet))
    }

    /// For one topic.
    fn load(&self, input: Load) -> Load {
        input.at_most_every(self.quiet.0)
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let quiet = self.quiet.0;
        Ok(match self.edge {
            Edge::Trailing => Box::new(Trailing {
                quiet,
                bursts: Bursts::default(),
            }),
            Edge::Leading => Box::new(Leading {
                quiet,
                quiet_from: Keyed::default(),
            }),
        })
    }
}

struct Trailing {
    quiet: Duration,
    bursts: Bursts,
}

#[derive(Default, Serialize, Deserialize)]
struct Bursts {
    /// The last message of a burst that goes on, per topic, and the quiet behind it.
    last: Keyed<Option<Stretch>>,
    deadlines: Deadlines,
}

impl Node for Trailing {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.bursts))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.bursts = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(last) = self.bursts.last.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        if let Some(burst) = last.take_if(|burst| burst.was_over(message, cx)) {
            cx.emit(0, burst.first);
        }
        let quiet = last.insert(Stretch::new(message, self.quiet, cx));
        self.bursts.deadlines.set(&message.topic, quiet.end, cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let topic = self.bursts.deadlines.take_due(cx);
        let last = topic.and_then(|topic| self.bursts.last.get_mut(&topic)?.take());
        if let Some(burst) = last {
            cx.emit(0, burst.first);
        }
    }
}

struct Leading {
    quiet: Duration,
    /// The monotonic time from which on the next message begins a burst, per topic.
    quiet_from: Keyed<Duration>,
}

impl Node for Leading {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.quiet_from))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.quiet_from = state.read()?;
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let Some(quiet_from) = self.quiet_from.get_or_fail(&message.topic, cx, || now) else {
            return;
        };
        if *quiet_from <= now {
            cx.pass(0);
        }
        *quiet_from = now + self.quiet;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems, run_node_at};

    /// What is sent for levels that come at these milliseconds.
    fn check(edge: &str, levels: &[(i64, f64)], expected: &[&str]) {
        let levels = levels
            .iter()
            .map(|(ms, level)| (Timestamp::from_millis(*ms), (*level).into()));
        let options = format!("type = 'debounce'\nquiet = '50ms'\nedge = '{edge}'");
        assert_eq!(run_node_at(&options, levels), expected, "{edge}");
    }

    #[test]
    fn a_burst_ends_when_it_was_quiet_for_long_enough() {
        let just_inside = [(0, 1.0), (49, 2.0), (98, 3.0)];
        check("trailing", &just_inside, &["3"]);
        check("leading", &just_inside, &["1"]);
        let just_outside = [(0, 1.0), (50, 2.0), (100, 3.0)];
        check("trailing", &just_outside, &["1", "2", "3"]);
        check("leading", &just_outside, &["1", "2", "3"]);
    }

    #[test]
    fn the_trailing_message_comes_after_the_quiet_as_it_was() {
        let mut run = Run::new("type = 'debounce'\nquiet = '50ms'");
        for at in [0, 10, 30] {
            run.go_on_until(Timestamp::from_millis(at));
            run.deliver(Timestamp::from_millis(at), (at as f64).into());
        }
        run.go_on_until(Timestamp::from_millis(79));
        assert_eq!(run.messages, []);
        run.go_on_until(Timestamp::from_millis(80));
        assert_eq!(run.sent, ["30"]);
        assert_eq!(run.messages[0].time, Timestamp::from_millis(30));
    }

    #[test]
    fn a_late_wake_up_does_not_make_one_burst_of_two() {
        let mut run = Run::new("type = 'debounce'\nquiet = '50ms'");
        run.deliver(Timestamp::default(), 1.0.into());
        run.now = run.now.later(Duration::from_millis(50));
        run.deliver(Timestamp::from_millis(50), 0.0.into());
        assert_eq!(run.sent, ["1"]);
        run.go_on_until(Timestamp::from_millis(1_000));
        assert_eq!(run.sent, ["1", "0"]);
    }

    #[test]
    fn a_burst_that_was_served_late_is_one_burst() {
        let mut run = Run::new("type = 'debounce'\nquiet = '50ms'");
        run.deliver(Timestamp::default(), 1.0.into());
        run.now = run.now.later(Duration::from_millis(60));
        run.deliver(Timestamp::from_millis(1), 0.0.into());
        run.deliver(Timestamp::from_millis(2), 1.0.into());
        run.go_on_until(Timestamp::from_millis(1_000));
        assert_eq!(run.sent, ["1"]);
        assert_eq!(run.messages[0].time, Timestamp::from_millis(2));
    }

    #[test]
    fn topics_bounce_one_by_one() {
        for edge in ["trailing", "leading"] {
            let mut run = Run::new(&format!(
                "type = 'debounce'\nquiet = '50ms'\nedge = '{edge}'"
            ));
            for topic in ["a", "b", "a"] {
                run.deliver_on(topic, Timestamp::default(), topic.into());
            }
            run.go_on_until(Timestamp::from_millis(50));
            assert_eq!(run.sent, ["\"a\"", "\"b\""], "{edge}");
        }
    }

    #[test]
    fn a_quiet_time_of_nothing_is_refused() {
        check_problems(
            "type = 'debounce'\nquiet = '0s'",
            &["`quiet`: must be at least 1ms"],
        );
    }

    #[test]
    fn a_burst_that_ended_while_the_device_was_off_is_sent_at_the_start() {
        let ms = Timestamp::from_millis;
        let mut run = Run::new("type = 'debounce'\nquiet = '50ms'");
        run.deliver(ms(0), 1.0.into());
        run.restart(Duration::from_millis(49));
        run.go_on_until(ms(49));
        assert_eq!(run.messages, []);
        run.go_on_until(ms(50));
        assert_eq!(run.sent, ["1"]);

        run.deliver(ms(50), 0.0.into());
        run.restart(Duration::from_secs(60));
        run.go_on_until(ms(60_050));
        assert_eq!(run.sent, ["1", "0"]);
        assert_eq!(run.messages[1].time, ms(50));
    }
}
