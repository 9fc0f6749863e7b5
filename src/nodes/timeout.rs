//! `timeout`: says when nothing comes any more.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::timers::{self, Deadlines};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends an alarm when a topic has fallen silent, and an all-clear when it is heard again.
///
/// Both are sent once. The payload is an object: `silent` (true or false), `topic`, `since` (the time of the last message before
/// the silence, RFC 3339; `null` if there was none) and `for_s` (how long the silence has lasted, in seconds). The port
/// `silent` has the bare `true` or `false`, for a pin. Both have the silent topic as their topic. What the messages say does not
/// matter, and they end here; a sensor that speaks and says the same for ever is for `stuck`.
///
/// Each topic is watched from its first message on, and those in `topics` from the start. Without `topics`, the node also
/// notices if nothing comes at all after the start; that is said under the flow's and the node's name. The time is monotonic.
///
/// It goes on over a restart, but nobody listened meanwhile: a topic whose time ended then has it once more. And since outputs are at their
/// safe level after a restart, the port `silent` says `true` again for each topic that is silent.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Timeout {
    /// How long a topic may be silent, from `1ms`.
    after: Span,
    /// Send the alarm again so often while the silence lasts, from `1ms`. Default: only once.
    repeat: Option<Span>,
    /// Topics that must be heard, from the first start on; at most 10,000. Default: whichever come.
    #[serde(default)]
    topics: Vec<String>,
}

const OUT: usize = 0;
const SILENT: usize = 1;

impl Definition for Timeout {
    const NAME: &'static str = "timeout";
    const PORTS: &'static [&'static str] = &["out", "silent"];
    const EXAMPLE: &'static str = r#"
# The flow meter gives pulses as long as the pump runs.
[nodes.meter]
type = "gpio in"
pin = 22

[nodes.watch]
type = "timeout"
from = "meter"
after = "10m"

[nodes.alarm]
type = "uplink"
from = "watch"
topic = "sites/{device}/pump/silent"

[nodes.lamp]
type = "gpio out"
from = "watch.silent"
pin = 17
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(timers::too_short("after", self.after));
        problems.extend(
            self.repeat
                .and_then(|repeat| timers::too_short("repeat", repeat)),
        );
        if self.topics.len() > super::keyed::MOST_KEYS {
            problems.push(Problem::new("topics", "must be at most 10,000"));
        }
        problems
    }

    /// For one topic: an alarm and an all-clear in each stretch of `after`, and the repetitions.
    fn load(&self, _: Load) -> Load {
        const BYTES: f64 = 90.0;
        let alarms = Load::every(self.after.0, BYTES);
        let repeated = self.repeat.map(|repeat| Load::every(repeat.0, BYTES));
        alarms.and(alarms).and(repeated.unwrap_or(Load::NONE))
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let anything = self.topics.is_empty().then(|| site.own_topic());
        let topics = self.topics.iter().map(|topic| topic.as_str().into());
        Ok(Box::new(Watch {
            after: self.after.0,
            repeat: self.repeat.map(|repeat| repeat.0),
            from_start: topics.chain(anything.clone()).collect(),
            remembered: Remembered {
                anything,
                heard: Keyed::default(),
                deadlines: Deadlines::default(),
            },
        }))
    }
}

struct Watch {
    after: Duration,
    repeat: Option<Duration>,
    /// What is watched from the start on.
    from_start: Vec<Text>,
    remembered: Remembered,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    /// What stands for any topic, until there is one.
    anything: Option<Text>,
    heard: Keyed<Heard>,
    deadlines: Deadlines,
}

/// When a topic was heard.
#[derive(Serialize, Deserialize)]
struct Heard {
    /// The monotonic time; until it is heard, that of the start.
    mono: Duration,
    /// The time of its last message.
    time: Option<Timestamp>,
    is_silent: bool,
}

impl Node for Watch {
    fn start(&mut self, cx: &mut Context<'_>) {
        for topic in std::mem::take(&mut self.from_start) {
            self.remembered.hear(&topic, None, self.after, cx);
        }
    }

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
        if pause == Pause::Restart {
            self.remembered.listen_again(self.after, cx);
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let it = &mut self.remembered;
        if let Some(anything) = it.anything.take() {
            it.hear(&anything, Some(message.time), self.after, cx);
            it.heard.remove(&anything);
            it.deadlines.cancel(&anything, cx);
        }
        it.hear(&message.topic, Some(message.time), self.after, cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let it = &mut self.remembered;
        let Some(topic) = it.deadlines.take_due(cx) else {
            return;
        };
        if let Some(heard) = it.heard.get_mut(&topic) {
            heard.is_silent = true;
            heard.tell(&topic, cx);
        }
        if let Some(repeat) = self.repeat {
            let due = cx.now().mono + repeat;
            it.deadlines.set(&topic, due, cx);
        }
    }
}

impl Remembered {
    /// Begins the time of a topic anew, which ends its silence.
    fn hear(
        &mut self,
        topic: &Text,
        time: Option<Timestamp>,
        after: Duration,
        cx: &mut Context<'_>,
    ) {
        let mono = cx.now().mono;
        let new = || Heard {
            mono,
            time: None,
            is_silent: false,
        };
        let Some(heard) = self.heard.get_or_fail(topic, cx, new) else {
            return;
        };
        if heard.is_silent {
            heard.is_silent = false;
            heard.tell(topic, cx);
        }
        heard.mono = mono;
        heard.time = time;
        self.deadlines.set(topic, mono + after, cx);
    }

    /// After a restart.
    fn listen_again(&mut self, after: Duration, cx: &mut Context<'_>) {
        let now = cx.now();
        for (topic, heard) in self.heard.iter_mut() {
            if heard.is_silent {
                cx.originate_on(SILENT, topic.clone(), Value::Bool(true), now.wall);
            } else if heard.mono.saturating_add(after) <= now.mono {
                self.deadlines.set(topic, now.mono + after, cx);
            }
        }
    }
}

impl Heard {
    fn tell(&self, topic: &Text, cx: &mut Context<'_>) {
        let now = cx.now();
        let since = self
            .time
            .map_or(Value::Null, |time| Value::Text(time.to_string().into()));
        let for_s = now.mono.saturating_sub(self.mono).as_millis() as f64 / 1000.0;
        let report = Value::object([
            ("silent", Value::Bool(self.is_silent)),
            ("topic", Value::Text(topic.clone())),
            ("since", since),
            ("for_s", Value::Number(for_s)),
        ]);
        for (port, payload) in [(OUT, report), (SILENT, Value::Bool(self.is_silent))] {
            cx.originate_on(port, topic.clone(), payload, now.wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems};

    /// What is sent until 60 s, as `second: topic payload`, for messages that come at these seconds.
    fn check(options: &str, arrivals: &[(i64, &str)], expected: &[&str]) {
        let mut run = Run::new(&format!("type = 'timeout'\nafter = '10s'\n{options}"));
        let mut found = Vec::new();
        for second in 0..60 {
            let now = Timestamp::from_millis(second * 1000);
            run.go_on_until(now);
            for (_, topic) in arrivals.iter().filter(|(at, _)| *at == second) {
                run.deliver_on(topic, now, f64::NAN.into());
            }
            for sent in run.messages.drain(..) {
                assert_eq!(sent.time, now);
                let field = |name| sent.payload.get(name).map(ToString::to_string);
                assert_eq!(field("topic"), Some(format!("\"{}\"", sent.topic)));
                found.push(format!(
                    "{second}: {} {} since {} for {}",
                    sent.topic,
                    field("silent").unwrap_or_default(),
                    field("since").unwrap_or_default(),
                    field("for_s").unwrap_or_default()
                ));
            }
        }
        assert_eq!(found, expected, "{options}");
    }

    #[test]
    fn silence_is_told_once_and_so_is_its_end() {
        check(
            "",
            &[(1, "a"), (10, "a"), (35, "a"), (45, "a"), (54, "a")],
            &[
                "20: a true since \"1970-01-01T00:00:10.000Z\" for 10",
                "35: a false since \"1970-01-01T00:00:10.000Z\" for 25",
                "45: a true since \"1970-01-01T00:00:35.000Z\" for 10",
                "45: a false since \"1970-01-01T00:00:35.000Z\" for 10",
            ],
        );
    }

    #[test]
    fn one_who_never_spoke_is_noticed() {
        check(
            "",
            &[
                (12, "a"),
                (21, "a"),
                (30, "a"),
                (39, "a"),
                (48, "a"),
                (57, "a"),
            ],
            &[
                "10: test/tested true since null for 10",
                "12: test/tested false since null for 12",
            ],
        );
        check(
            "topics = ['a', 'b']",
            &[
                (5, "a"),
                (14, "a"),
                (23, "a"),
                (32, "a"),
                (41, "a"),
                (50, "b"),
                (50, "a"),
                (59, "a"),
                (59, "b"),
            ],
            &[
                "10: b true since null for 10",
                "50: b false since null for 50",
            ],
        );
    }

    #[test]
    fn topics_are_watched_one_by_one_and_the_alarm_is_repeated_if_wanted() {
        check(
            "repeat = '20s'",
            &[
                (0, "a"),
                (0, "b"),
                (9, "b"),
                (18, "b"),
                (27, "b"),
                (36, "b"),
                (45, "b"),
                (54, "b"),
            ],
            &[
                "10: a true since \"1970-01-01T00:00:00.000Z\" for 10",
                "30: a true since \"1970-01-01T00:00:00.000Z\" for 30",
                "50: a true since \"1970-01-01T00:00:00.000Z\" for 50",
            ],
        );
    }

    #[test]
    fn the_second_port_has_the_bare_state() {
        let mut run = Run::with_ports(&["silent"], "type = 'timeout'\nafter = '10s'");
        run.go_on_until(Timestamp::from_millis(10_000));
        run.deliver(Timestamp::default(), 1.0.into());
        assert_eq!(run.sent, ["silent: true", "silent: false"]);
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'timeout'\n{options}"), expected)
        };
        check(
            "after = '0s'\nrepeat = '0s'",
            &[
                "`after`: must be at least 1ms",
                "`repeat`: must be at least 1ms",
            ],
        );
        let topics = vec!["'t'"; 10_001].join(", ");
        check(
            &format!("after = '1s'\ntopics = [{topics}]"),
            &["`topics`: must be at most 10,000"],
        );
    }

    /// With a pause from 5 s on, for so long; what the ports say up to 60 s after it.
    fn after_a_pause(options: &str, off_s: u64) -> Vec<String> {
        let options = format!("type = 'timeout'\nafter = '10s'\n{options}");
        let mut run = Run::with_ports(&["silent"], &options);
        run.deliver_on("a", Timestamp::default(), 1.0.into());
        run.go_on_until(Timestamp::from_millis(5_000));
        run.restart(Duration::from_secs(off_s));
        let mut found = Vec::new();
        for _ in 0..60 {
            let second = run.now.mono.as_secs();
            run.go_on_until(run.now.wall);
            found.extend(run.sent.drain(..).map(|sent| format!("{second} {sent}")));
            run.now = run.now.later(Duration::from_secs(1));
        }
        found
    }

    #[test]
    fn what_is_silent_after_a_pause_has_its_time_once_more_if_that_is_over() {
        assert_eq!(after_a_pause("", 1), ["10 silent: true"]);
        assert_eq!(after_a_pause("", 4), ["10 silent: true"]);
        assert_eq!(after_a_pause("", 5), ["20 silent: true"]);
        assert_eq!(after_a_pause("", 86_400), ["86415 silent: true"]);
    }

    #[test]
    fn a_silence_is_told_again_after_a_restart_for_the_pin_only() {
        let mut run = Run::with_ports(&["out", "silent"], "type = 'timeout'\nafter = '10s'");
        run.deliver_on("a", Timestamp::default(), 1.0.into());
        run.go_on_until(Timestamp::from_millis(15_000));
        run.sent.clear();
        run.restart(Duration::from_secs(3600));
        run.go_on_until(run.now.wall.saturating_add(Duration::from_secs(3600)));
        assert_eq!(run.sent, ["silent: true"]);
        run.deliver_on("a", run.now.wall, 1.0.into());
        assert!(run.sent[1].contains("\"for_s\":7215"), "{:?}", run.sent);
        assert_eq!(run.sent[2], "silent: false");
    }
}
