//! `interlock`: of several requests at most one is on.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, NodeId, Text, Value};
use crate::runtime::node::{Context, Node, excerpt};
use crate::runtime::state::{Pause, State, StateError};

/// Lets at most one of several requests be on: open and close of a motor, heating and cooling.
///
/// There is one port for each input, with its name. A request is a level, `true`/`false` or 1/0, which holds until the
/// input's next message, or until the device is restarted. One that is alone goes on; if several are, `on_conflict` decides which is. A request that cannot be
/// on waits, and goes on when it may, if it still holds. What is on goes off as soon as it may no longer be; then nothing is on
/// for `pause`, except that what was on last may come back at once. `pause` counts from a restart too, for a motor may have run
/// until then; nothing is on until an input requests it anew.
///
/// Each message sends the state of its input on its port, so that what reads the port can tell "unchanged" from "no more
/// requests". A change sends at once, off before on, with the topic of the input's last message. Where an input has several topics, as a
/// `latch` has, what remembers by topic, such as `filter` and `debounce`, takes them for several signals: put a `change` that sets the topic
/// before the interlock. What is no level, or comes from another node, fails and changes nothing.
///
/// What stands between a port and its contactor must not hold back an "off": no `delay`, and no `gpio out` with `min_on`, which
/// would keep the one closed while the other closes.
///
/// It is software: contactors that must never be closed together are locked against each other by wire as well.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Interlock {
    /// The nodes that make the requests, 2 to 16 of those that it reads; these are the names of the ports too.
    inputs: Vec<String>,
    /// How long nothing is on between one and another. Default: no pause.
    #[serde(default)]
    pause: Span,
    /// What happens while several are requested: `refuse` leaves the one on that was requested first, `switch` goes to
    /// the latest, `all_off` lets none be on. Default: `refuse`.
    #[serde(default)]
    on_conflict: OnConflict,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnConflict {
    #[default]
    Refuse,
    Switch,
    AllOff,
}

const MOST_INPUTS: usize = 16;

impl Definition for Interlock {
    const NAME: &'static str = "interlock";
    const PORTS: &'static [&'static str] = &[];
    const NAMES_PORTS: bool = true;
    const EXAMPLE: &'static str = r#"
# A motor valve fills a tank. Each float switch opens its contact beyond its mark, and then its pin is high.
[nodes.open]
type = "gpio in"
pin = 22
pull = "up"

[nodes.close]
type = "gpio in"
pin = 23
pull = "down"

[nodes.direction]
type = "interlock"
from = ["open", "close"]
inputs = ["open", "close"]
pause = "500ms"       # let the motor come to rest

[nodes.motor-opens]
type = "gpio out"
from = "direction.open"
pin = 5

[nodes.motor-closes]
type = "gpio out"
from = "direction.close"
pin = 6
"#;

    fn ports(&self) -> Vec<String> {
        self.inputs.clone()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let inputs = self.inputs.iter();
        inputs.map(|name| ("inputs", name.clone())).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(2..=MOST_INPUTS).contains(&self.inputs.len()) {
            let message = format!(
                "must name 2 to {MOST_INPUTS} nodes, not {}",
                self.inputs.len()
            );
            problems.push(Problem::new("inputs", message));
        }
        for (place, name) in self.inputs.iter().enumerate() {
            if self.inputs[..place].contains(name) {
                let message = format!("`{name}` is named twice");
                problems.push(Problem::new(format!("inputs.{place}"), message));
            }
        }
        problems
    }

    /// A message may send a state on its own port and a change on two others; a wake-up follows from a message.
    fn load(&self, input: Load) -> Load {
        const BOOLEAN_BYTES: f64 = 5.0;
        Load {
            per_second: input.per_second * 3.0,
            bytes: BOOLEAN_BYTES,
        }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let inputs: Vec<NodeId> = self.inputs.iter().map(|name| site.input(name)).collect();
        let request = Request {
            topic: site.own_topic(),
            since: None,
        };
        Ok(Box::new(OneAtATime {
            pause: self.pause.0,
            on_conflict: self.on_conflict,
            situation: Situation {
                requests: vec![request; inputs.len()],
                requested: 0,
                on: None,
                last_on: None,
                free_at: Duration::ZERO,
            },
            inputs,
        }))
    }
}

struct OneAtATime {
    /// By port.
    inputs: Vec<NodeId>,
    pause: Duration,
    on_conflict: OnConflict,
    situation: Situation,
}

#[derive(Serialize, Deserialize)]
struct Situation {
    /// By port.
    requests: Vec<Request>,
    /// Requests so far, to tell earlier from later.
    requested: u64,
    /// The port that is on.
    on: Option<usize>,
    /// The port that was on last.
    last_on: Option<usize>,
    /// When another one than the last may go on, in monotonic time.
    free_at: Duration,
}

#[derive(Clone, Serialize, Deserialize)]
struct Request {
    /// The topic of its last message.
    topic: Text,
    /// While it is requested: its number among all requests.
    since: Option<u64>,
}

impl OneAtATime {
    /// The port that should be on.
    fn wanted(&self) -> Option<usize> {
        let requested = self
            .situation
            .requests
            .iter()
            .enumerate()
            .filter_map(|(port, request)| Some((request.since?, port)));
        let (_, port) = match self.on_conflict {
            OnConflict::Refuse => requested.min(),
            OnConflict::Switch => requested.max(),
            OnConflict::AllOff if requested.clone().count() > 1 => None,
            OnConflict::AllOff => requested.min(),
        }?;
        Some(port)
    }

    /// Brings what is on nearer to what is wanted. Only here does anything go on, and only when nothing is on.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let wanted = self.wanted();
        if self.situation.on.is_some() && self.situation.on != wanted {
            self.situation.last_on = self.situation.on.take();
            self.situation.free_at = now.saturating_add(self.pause);
        }
        if self.situation.on.is_none()
            && (now >= self.situation.free_at || self.situation.last_on == wanted)
        {
            self.situation.on = wanted;
        }
        if self.situation.on == wanted {
            cx.cancel_wake();
        } else {
            cx.wake_at(self.situation.free_at);
        }
    }

    /// Settles, and sends what has changed and the state of the input whose message came: off before on.
    fn settle_and_send(&mut self, came: Option<(usize, &Message)>, cx: &mut Context<'_>) {
        let before = self.situation.on;
        self.settle(cx);
        let own = came.map(|(port, _)| port);
        let went_off = before.filter(|_| before != self.situation.on);
        let went_on = self.situation.on.filter(|_| before != self.situation.on);
        let own_off = own.filter(|_| own != self.situation.on && own != went_off);
        let own_on = own.filter(|_| own == self.situation.on && own != went_on);
        let states = [
            (went_off, false),
            (own_off, false),
            (own_on, true),
            (went_on, true),
        ];
        for (port, state) in states {
            let Some(port) = port else { continue };
            let message = match came {
                Some((own, message)) if own == port => Message {
                    payload: Value::Bool(state),
                    ..message.clone()
                },
                other => Message {
                    topic: self.situation.requests[port].topic.clone(),
                    payload: Value::Bool(state),
                    time: other.map_or(cx.now().wall, |(_, message)| message.time),
                    source: self.inputs[port],
                    headers: None,
                },
            };
            cx.emit(port, message);
        }
    }
}

impl Node for OneAtATime {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.situation.free_at = cx.now().mono.saturating_add(self.pause);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.situation))
    }

    /// After a restart nothing goes on from memory: a request may have ended since, and what ran last may not be what is remembered.
    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        match pause {
            Pause::Reload => {
                let situation: Situation = state.read()?;
                let inputs = self.inputs.len();
                let mut ports = situation.on.iter().chain(&situation.last_on);
                if situation.requests.len() != inputs || ports.any(|port| *port >= inputs) {
                    return Err(StateError::unfit("its inputs are others"));
                }
                self.situation = situation;
            }
            Pause::Restart => {
                cx.cancel_wake();
                self.start(cx);
            }
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
        let Some(port) = self
            .inputs
            .iter()
            .position(|input| *input == message.source)
        else {
            cx.fail("the message is from a node that is not among `inputs`");
            return;
        };
        let request = &mut self.situation.requests[port];
        request.topic = message.topic.clone();
        if !level {
            request.since = None;
        } else if request.since.is_none() {
            self.situation.requested = self.situation.requested.saturating_add(1);
            request.since = Some(self.situation.requested);
        }
        self.settle_and_send(Some((port, message)), cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.settle_and_send(None, cx);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems, problems};

    /// A node with these inputs and a sink behind each port, named `on-` and the port.
    fn run(inputs: &[&str], options: &str) -> Run {
        let mut flow = String::new();
        for name in inputs.iter().chain(&["other"]) {
            flow += &format!("[nodes.{name}]\ntype = 'inject'\nevery = '10000d'\n");
        }
        for port in inputs {
            flow += &format!("[nodes.on-{port}]\ntype = 'debug'\nfrom = 'tested.{port}'\n");
        }
        let names = inputs.join("', '");
        Run::flow(&format!(
            "{flow}[nodes.tested]\ntype = 'interlock'\nfrom = ['{names}', 'other']\ninputs = ['{names}']\n{options}"
        ))
    }

    /// What two inputs `a` and `b` make of levels that come at these milliseconds: when each port sends what.
    fn check(options: &str, levels: &[(i64, &str, bool)], expected: &[(i64, &str)]) {
        let mut run = run(&["a", "b"], options);
        for (at, input, level) in levels {
            let time = Timestamp::from_millis(*at);
            run.go_on_until(time);
            run.deliver_message(input, input, time, (*level).into());
        }
        run.go_on_until(Timestamp::from_millis(100_000));
        let found: Vec<(i64, &str)> = run
            .messages
            .iter()
            .zip(&run.sent)
            .map(|(message, sent)| {
                let port = sent.split(':').next().expect("a port");
                assert_eq!(
                    port,
                    format!("on-{}", message.topic),
                    "each has its own topic"
                );
                let text = sent.strip_prefix("on-").expect("a sink of this test");
                (message.time.as_nanos() / 1_000_000, text)
            })
            .collect();
        assert_eq!(found, expected, "{options}: {levels:?}");
    }

    #[test]
    fn each_message_sends_the_state_of_its_input() {
        check(
            "",
            &[
                (1, "a", false),
                (2, "a", true),
                (3, "b", false),
                (4, "a", true),
                (5, "a", false),
                (6, "b", true),
            ],
            &[
                (1, "a: false"),
                (2, "a: true"),
                (3, "b: false"),
                (4, "a: true"),
                (5, "a: false"),
                (6, "b: true"),
            ],
        );
    }

    #[test]
    fn refuse_lets_the_first_stay_and_the_other_wait() {
        check(
            "",
            &[
                (1, "a", true),
                (2, "b", true),
                (3, "b", true),
                (4, "a", false),
            ],
            &[
                (1, "a: true"),
                (2, "b: false"),
                (3, "b: false"),
                (4, "a: false"),
                (4, "b: true"),
            ],
        );
        // One that gave up does not go on.
        check(
            "",
            &[
                (1, "a", true),
                (2, "b", true),
                (3, "b", false),
                (4, "a", false),
            ],
            &[
                (1, "a: true"),
                (2, "b: false"),
                (3, "b: false"),
                (4, "a: false"),
            ],
        );
    }

    #[test]
    fn switch_goes_to_the_latest_and_back() {
        check(
            "on_conflict = 'switch'",
            &[
                (1, "a", true),
                (2, "b", true),
                (3, "a", true),
                (4, "b", false),
            ],
            &[
                (1, "a: true"),
                (2, "a: false"),
                (2, "b: true"),
                (3, "a: false"),
                (4, "b: false"),
                (4, "a: true"),
            ],
        );
    }

    #[test]
    fn all_off_lets_none_be_on_until_one_is_alone() {
        check(
            "on_conflict = 'all_off'",
            &[
                (1, "a", true),
                (2, "b", true),
                (3, "a", false),
                (4, "b", true),
            ],
            &[
                (1, "a: true"),
                (2, "a: false"),
                (2, "b: false"),
                (3, "a: false"),
                (3, "b: true"),
                (4, "b: true"),
            ],
        );
    }

    #[test]
    fn nothing_is_on_during_the_pause() {
        let pause = "pause = '500ms'";
        // Also after the start.
        check(
            pause,
            &[(100, "a", true)],
            &[(100, "a: false"), (500, "a: true")],
        );
        check(
            pause,
            &[(1000, "a", true), (2000, "a", false), (2499, "b", true)],
            &[
                (1000, "a: true"),
                (2000, "a: false"),
                (2499, "b: false"),
                (2500, "b: true"),
            ],
        );
        check(
            &format!("{pause}\non_conflict = 'switch'"),
            &[(1000, "a", true), (2000, "b", true), (2100, "b", true)],
            &[
                (1000, "a: true"),
                (2000, "a: false"),
                (2000, "b: false"),
                (2100, "b: false"),
                (2500, "b: true"),
            ],
        );
        // What was on last may come back within the pause, and the pause then counts from its end.
        check(
            pause,
            &[
                (1000, "a", true),
                (2000, "a", false),
                (2100, "a", true),
                (2200, "a", false),
                (2300, "b", true),
            ],
            &[
                (1000, "a: true"),
                (2000, "a: false"),
                (2100, "a: true"),
                (2200, "a: false"),
                (2300, "b: false"),
                (2700, "b: true"),
            ],
        );
        // A request that is gone before the pause is over does not go on.
        check(
            pause,
            &[
                (1000, "a", true),
                (2000, "a", false),
                (2100, "b", true),
                (2400, "b", false),
            ],
            &[
                (1000, "a: true"),
                (2000, "a: false"),
                (2100, "b: false"),
                (2400, "b: false"),
            ],
        );
    }

    #[test]
    fn what_it_cannot_use_fails_and_changes_nothing() {
        let mut run = run(&["a", "b"], "");
        let time = Timestamp::from_millis(1);
        run.deliver_message("a", "t", time, true.into());
        run.deliver_message("a", "t", time, Value::Null);
        run.deliver_message("a", "t", time, f64::NAN.into());
        run.deliver_message("other", "t", time, true.into());
        run.deliver_message("b", "t", time, true.into());
        let expected = [
            "on-a: true",
            "failed: needs true, false, 1 or 0, but the payload is null",
            "failed: needs true, false, 1 or 0, but the payload is NaN",
            "failed: the message is from a node that is not among `inputs`",
            "on-b: false",
        ];
        assert_eq!(run.sent, expected);
    }

    /// Sends levels in random order at random times, and looks at what the ports show.
    fn check_never_two(seed: u64, inputs: &[&str], on_conflict: &str, pause: Duration) {
        let mut state = seed;
        let mut random = |below: u64| {
            // Knuth, The Art of Computer Programming, volume 2, 3.3.4, table 1, line 26.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let options = format!(
            "on_conflict = '{on_conflict}'\npause = '{}ms'",
            pause.as_millis()
        );
        let mut run = run(inputs, &options);
        let mut time = Timestamp::default();
        for _ in 0..2_000 {
            time = time.saturating_add(Duration::from_millis(random(400)));
            run.go_on_until(time);
            let input = inputs[random(inputs.len() as u64) as usize];
            run.deliver_message(input, input, time, (random(2) == 1).into());
        }
        run.go_on_until(time.saturating_add(pause));

        let mut on: Option<&str> = None;
        let mut last_off: Option<(&str, Timestamp)> = None;
        let mut times_on = 0;
        for (message, sent) in run.messages.iter().zip(&run.sent) {
            let (port, level) = sent.split_once(": ").expect("a port and its state");
            let what = format!("seed {seed}, {on_conflict}: {port} at {}", message.time);
            match (level == "true", on) {
                (true, Some(other)) => assert_eq!(port, other, "two are on: {what}"),
                (true, None) => {
                    if let Some((_, off)) = last_off.filter(|(last, _)| *last != port) {
                        assert!(
                            message.time.saturating_since(off) >= pause,
                            "no pause: {what}"
                        );
                    }
                    assert!(
                        message.time.saturating_since(Timestamp::default()) >= pause
                            || last_off.is_some(),
                        "no pause at the start: {what}"
                    );
                    on = Some(port);
                    times_on += 1;
                }
                (false, Some(other)) if other == port => {
                    on = None;
                    last_off = Some((port, message.time));
                }
                (false, _) => {}
            }
        }
        assert!(
            times_on > 50,
            "seed {seed}, {on_conflict}: it came on {times_on} times"
        );
    }

    #[test]
    fn never_are_two_on_nor_one_within_the_pause_of_another() {
        for seed in 1..=5 {
            for on_conflict in ["refuse", "switch", "all_off"] {
                check_never_two(seed, &["a", "b"], on_conflict, Duration::from_millis(500));
                check_never_two(
                    seed,
                    &["a", "b", "c", "d"],
                    on_conflict,
                    Duration::from_millis(150),
                );
                check_never_two(seed, &["a", "b", "c"], on_conflict, Duration::ZERO);
            }
        }
    }

    #[test]
    fn options_are_checked() {
        let check = |inputs: &str, expected: &str| {
            let found = node_problems(&format!("type = 'interlock'\ninputs = {inputs}"));
            assert!(found.iter().any(|p| p.contains(expected)), "{found:?}");
        };
        check("['source']", "`inputs`: must name 2 to 16 nodes, not 1");
        let many = vec!["'source'"; 17].join(", ");
        check(
            &format!("[{many}]"),
            "`inputs`: must name 2 to 16 nodes, not 17",
        );
        check(
            "['source', 'source']",
            "`inputs.1`: `source` is named twice",
        );
        check("['source', 'more']", "this node does not read from `more`");
        check("['source', 'more']\non_conflict = 'any'", "`on_conflict`");
    }

    #[test]
    fn ports_have_the_names_of_the_inputs() {
        let found = problems(
            "[nodes.up]\ntype = 'inject'\nevery = '1s'\n[nodes.down]\ntype = 'inject'\nevery = '1s'\n\
             [nodes.lift]\ntype = 'interlock'\nfrom = ['up', 'down']\ninputs = ['up', 'down']\n\
             [nodes.show]\ntype = 'debug'\nfrom = ['lift.up', 'lift.donw']",
        );
        assert!(
            found[0].contains("has no port `donw` (did you mean `down`?)"),
            "{found:?}"
        );
    }

    #[test]
    fn after_a_restart_nothing_is_on_until_it_is_requested_anew_and_the_pause_is_over() {
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
        let mut run = run(&["a", "b"], "pause = '5s'");
        run.go_on_until(at(10));
        run.deliver_message("a", "a", at(10), true.into());
        run.deliver_message("b", "b", at(10), true.into());
        assert_eq!(run.sent, ["on-a: true", "on-b: false"]);
        run.sent.clear();
        run.restart(Duration::from_secs(2));
        run.go_on_until(at(30));
        assert_eq!(run.sent, [""; 0]);

        run.deliver_message("a", "a", at(30), true.into());
        assert_eq!(run.sent, ["on-a: true"]);
        run.sent.clear();
        run.restart(Duration::from_secs(2));
        // Not at once, although it was on last: that is what a checkpoint says, which may be old.
        run.deliver_message("a", "a", at(32), true.into());
        run.go_on_until(Timestamp::from_millis(36_999));
        assert_eq!(run.sent, ["on-a: false"]);
        run.go_on_until(at(37));
        assert_eq!(run.sent, ["on-a: false", "on-a: true"]);
    }
}
