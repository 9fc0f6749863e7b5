//! `pulses`: a meter, a tachometer, a wind cup: whatever gives pulses on a pin.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampler::{next_tick, too_fast};
use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::board::{Level, Pin, Pull};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Input, Node};
use crate::runtime::pulses::{Counting, Pulses};
use crate::runtime::state::{Pause, State, StateError};

/// Counts pulses on a pin: of a meter for water, gas or energy, of a flow sensor, a wind cup, a shaft.
///
/// Pulses are counted where the board hands edges over, so that none is lost while the flow is busy. A message has `count`, the
/// pulses since the one before; `total`, all of them times `each`, from `initial` on; and `rate`, `each` for `per`, from the times of the
/// pulses. While none comes, the rate falls as it must have. The total is kept over a restart, but for the pulses between the last message and
/// the next start; after a power cut it goes on from the last checkpoint (`[state]` of the settings).
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PulseMeter {
    /// The pin's BCM (GPIO) number, 0 to 27; not its place on the header.
    pin: Pin,
    /// The Pi's own resistor on the pin: `none`, `up` or `down`. A contact to ground wants `up`. Default: `none`.
    #[serde(default)]
    pull: Pull,
    /// The edge that counts: `rising` or `falling`. Default: `rising`.
    #[serde(default)]
    edge: CountedEdge,
    /// How long a contact bounces: an edge that comes sooner after another one does not count. Some 10 ms for a reed contact, none for
    /// electronics. Default: `0s`.
    #[serde(default)]
    debounce: Span,
    /// What one pulse stands for: 0.001 for a meter of 1,000 pulses a kWh, 0.25 for a shaft with four marks. Default: 1.
    #[serde(default = "one")]
    each: f64,
    /// What the total begins with: what the meter shows now. Default: 0.
    #[serde(default)]
    initial: f64,
    /// The time that the rate is for: `1s`, `1m` for revolutions a minute, `1h` for kW from kWh. Default: `1s`.
    #[serde(default = "a_second")]
    per: Span,
    /// How often a message is sent. Default: `1s`.
    #[serde(default = "a_second")]
    every: Span,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum CountedEdge {
    #[default]
    Rising,
    Falling,
}

fn one() -> f64 {
    1.0
}

fn a_second() -> Span {
    Span(Duration::from_secs(1))
}

impl Definition for PulseMeter {
    const NAME: &'static str = "pulses";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.water]
type = "pulses"
pin = 22
pull = "up"
edge = "falling"
debounce = "10ms"
each = 0.5
per = "1m"
every = "10s"

[nodes.show]
type = "debug"
from = "water"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = too_fast(self.every).into_iter().collect();
        if !(self.each.is_finite() && self.each > 0.0) {
            problems.push(Problem::new("each", "must be more than 0"));
        }
        if !self.initial.is_finite() {
            problems.push(Problem::new("initial", "must be a number"));
        }
        if self.per.0.is_zero() {
            problems.push(Problem::new("per", "must be more than 0s"));
        }
        problems
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Pulses {
            pin: self.pin,
            pull: self.pull,
            counting: Counting {
                level: match self.edge {
                    CountedEdge::Rising => Level::High,
                    CountedEdge::Falling => Level::Low,
                },
                debounce: self.debounce.0,
            },
        }]
    }

    fn load(&self, _: Load) -> Load {
        Load::every(self.every.0, 3.0 * Load::NUMBER_BYTES)
    }

    fn build(&self, surroundings: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let topic = self.topic.as_deref();
        Ok(Box::new(Meter {
            topic: topic.map_or_else(|| surroundings.own_topic(), Into::into),
            fields: ["count".into(), "total".into(), "rate".into()],
            every: self.every.0,
            each: self.each,
            initial: self.initial,
            per: self.per.0,
            remembered: Remembered::default(),
        }))
    }
}

struct Meter {
    topic: Text,
    fields: [Text; 3],
    every: Duration,
    each: f64,
    initial: f64,
    per: Duration,
    remembered: Remembered,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    next: Duration,
    /// All pulses.
    total: u64,
    /// How far the board's own count was; it begins anew when the pin is armed.
    counted: u64,
    /// The last pulse, whose time is a beginning for the next rate.
    last: Option<i64>,
    /// Pulses in a second.
    hz: f64,
}

impl Meter {
    fn take(&mut self, pulses: Pulses, time: Timestamp, cx: &mut Context<'_>) {
        let remembered = &mut self.remembered;
        // Armed anew, it counts from 0.
        let count = match pulses.count.checked_sub(remembered.counted) {
            Some(count) => count,
            None => pulses.count,
        };
        remembered.counted = pulses.count;
        remembered.total = remembered.total.saturating_add(count);
        remembered.hz = match (pulses.last, remembered.last) {
            (Some(last), before) if count > 0 => {
                remembered.last = Some(last.as_nanos());
                match before.map(|before| seconds(before, last)) {
                    Some(span) if span > 0.0 => count as f64 / span,
                    // The first pulse has no rate yet, and after a step of the clock nobody knows it.
                    _ => 0.0,
                }
            }
            // None came, so it cannot have been faster than one since the last.
            (_, Some(before)) => match seconds(before, time) {
                span if span > 0.0 => remembered.hz.min(1.0 / span),
                _ => remembered.hz,
            },
            (_, None) => 0.0,
        };
        let rate = remembered.hz * self.each * self.per.as_secs_f64();
        let total = self.initial + remembered.total as f64 * self.each;
        let values = [count as f64, total, rate].map(Value::Number);
        let payload = Value::object(self.fields.iter().cloned().zip(values));
        cx.originate(self.topic.clone(), payload, time);
    }
}

fn seconds(from: i64, to: Timestamp) -> f64 {
    (i128::from(to.as_nanos()) - i128::from(from)) as f64 / 1e9
}

impl Node for Meter {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.remembered.next = cx.now().mono + self.every;
        cx.wake_at(self.remembered.next);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.remembered))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        _: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.remembered = state.read()?;
        if pause == Pause::Restart {
            self.remembered.counted = 0;
        }
        Ok(())
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        cx.read_level();
        let next = next_tick(self.remembered.next, self.every, cx.now().mono);
        self.remembered.next = next;
        cx.wake_at(next);
    }

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        match input {
            Input::Pulses { time, pulses } => self.take(pulses, time, cx),
            Input::Reading {
                value: Err(reason), ..
            } => cx.fail(reason),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Simulated;
    use crate::message::NodeId;
    use crate::nodes::testing::{graph, problems};
    use crate::runtime::engine::{Engine, Event};
    use crate::runtime::node::{Address, Effect};
    use crate::runtime::{Now, VirtualRun};

    const AT: Address = Address {
        flow: 0,
        node: NodeId(0),
    };

    struct Run {
        engine: Engine,
        flow: String,
        now: Now,
    }

    impl Run {
        fn new(options: &str) -> Run {
            let flow = format!(
                "[nodes.meter]\ntype = 'pulses'\npin = 22\n{options}\n[nodes.show]\ntype = 'debug'\nfrom = 'meter'"
            );
            let mut engine = Engine::new("d");
            engine.add(graph(&flow), Now::default(), &mut Vec::new());
            let now = Now::default();
            Run { engine, flow, now }
        }

        /// What is sent a second later, when the board has counted so many, the last of them so many milliseconds ago.
        fn second(&mut self, count: u64, ago_ms: u64) -> String {
            self.now = self.now.later(Duration::from_secs(1));
            let mut effects = Vec::new();
            self.engine.wake(self.now, 100, &mut effects);
            assert_eq!(effects, [Effect::ReadLevel { from: AT }]);
            let ago = Duration::from_millis(ago_ms).as_nanos() as i64;
            let last = (count > 0).then(|| Timestamp::from_nanos(self.now.wall.as_nanos() - ago));
            let input = Input::Pulses {
                time: self.now.wall,
                pulses: Pulses { count, last },
            };
            effects.clear();
            let event = Event::Input { to: AT, input };
            self.engine.handle(self.now, event, &mut effects);
            match &effects[..] {
                [Effect::Debug { message, .. }] => message.payload.to_json(),
                other => panic!("{other:?}"),
            }
        }

        fn restarted(mut self) -> Run {
            let checkpoint = self.engine.checkpoint(0, self.now).unwrap();
            self.engine = Engine::new("d");
            let mut effects = Vec::new();
            let flow = graph(&self.flow);
            self.engine
                .add_restored(flow, checkpoint, self.now, &mut effects);
            assert_eq!(effects, []);
            self
        }
    }

    #[test]
    fn count_total_and_rate_are_of_what_the_board_has_counted() {
        let mut run = Run::new("each = 0.5\ninitial = 100\nper = '1m'");
        assert_eq!(run.second(0, 0), r#"{"count":0,"total":100,"rate":0}"#);
        // The first pulse of all has no rate.
        assert_eq!(run.second(1, 500), r#"{"count":1,"total":100.5,"rate":0}"#);
        // Four in a second, by the times of the last ones: 4 Hz are 120 for a minute at 0.5 each.
        assert_eq!(
            run.second(5, 500),
            r#"{"count":4,"total":102.5,"rate":120}"#
        );
        // None came for 1.5 s, so it is at most 2/3 Hz, then 2/5.
        assert_eq!(
            run.second(5, 1_500),
            r#"{"count":0,"total":102.5,"rate":20}"#
        );
        assert_eq!(
            run.second(5, 2_500),
            r#"{"count":0,"total":102.5,"rate":12}"#
        );
    }

    #[test]
    fn the_total_goes_on_over_a_restart_though_the_board_counts_from_nothing() {
        let mut run = Run::new("");
        run.second(1_000, 0);
        assert!(
            run.second(3_000, 0)
                .contains(r#""count":2000,"total":3000"#)
        );
        let mut run = run.restarted();
        assert!(run.second(10, 0).contains(r#""count":10,"total":3010"#));
        // Armed anew without a restart, as after a change of `pull` in a reload.
        assert!(run.second(4, 0).contains(r#""count":4,"total":3014"#));
    }

    #[test]
    fn options_that_cannot_be_are_told() {
        let found = problems(
            "[nodes.m]\ntype = 'pulses'\npin = 4\neach = 0\nper = '0s'\nevery = '1us'\n[nodes.s]\ntype = 'debug'\nfrom = 'm'",
        );
        for expected in ["`each`: must be more", "`per`: must be", "`every`: must be"] {
            assert!(found.iter().any(|it| it.contains(expected)), "{found:?}");
        }
    }

    /// On the simulated board, in virtual time.
    #[test]
    fn no_pulse_is_lost_at_ten_kilohertz() {
        let flow = "[nodes.meter]\ntype = 'pulses'\npin = 22\nper = '1m'\n[nodes.show]\ntype = 'debug'\nfrom = 'meter'";
        let settings = "inputs = { 22 = { kind = 'pulses', hz = 10000.0 } }";
        let board = Simulated::new(&toml::from_str(settings).unwrap()).unwrap();
        let start = Timestamp::from_millis(1_800_000_000_000);
        let mut run = VirtualRun::start("d", vec![graph(flow)], board, start).unwrap();
        run.run_for(Duration::from_secs(60));
        let trace = run.trace();
        let (_, _, last) = trace.shown.last().expect("a message each second");
        let number = |field: &str| last.payload.get(field).unwrap().as_number().unwrap();
        assert_eq!(number("total"), 600_000.0);
        assert!(
            (number("rate") - 600_000.0).abs() < 60.0,
            "{}",
            number("rate")
        );
    }
}
