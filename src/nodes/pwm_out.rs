//! `pwm out`: pulses on a pin, as wide as the payload says.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::gpio_out::{SafeLevel, too_short};
use super::range::Ends;
use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::board::{Drive, Pin};
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Drives a pin with pulses (PWM): a valve, a fan, a heater or an LED between off and full.
///
/// The payload is the duty, the share of each period in which the pin is high: from 0 (low) to 1 (high), or in the units of
/// `range`. A number outside fails and changes nothing; a `range` node before it with `outside = "clamp"` holds it inside. A new
/// duty counts from the next pulse; off, full and the safe level count at once, and the pulses go on in their rhythm after them.
///
/// The pin goes to its safe level at the start, at the stop, when the flow fails, and stays there until a duty comes; also, with `silent_after`, when no duty has
/// come for that long. The safe state is a level, not a duty, because pulses need a program that runs. If the program is killed
/// in the midst of pulses (SIGKILL), the pin stays at the level of that moment.
///
/// The pulses are made in software, on any pin. An edge may come about 0.1 ms late, more under load, but this does not add up:
/// good for valves, heaters and two-wire fans, less so for dimmed light, not for servos or for four-wire fans, which
/// want 25 kHz.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PwmOut {
    /// The pin's BCM (GPIO) number, 0 to 27; not its place on the header.
    pin: Pin,
    /// Pulses in a second (Hz), 0.01 to 1000; a solid state relay on mains wants 1 or less. Default: 100.
    #[serde(default = "default_frequency")]
    frequency: f64,
    /// The payloads for off and for full, such as `[0, 100]` for percent. Default: `[0, 1]`.
    #[serde(default = "default_range")]
    range: Ends,
    /// The level that does no harm: `low` or `high`. Default: `low`.
    #[serde(default)]
    safe: SafeLevel,
    /// Go to the safe level when no duty has come for this long. Default: never.
    silent_after: Option<Span>,
}

const ROUNDING: f64 = 1e-9;
const LOWEST_FREQUENCY: f64 = 0.01;
const HIGHEST_FREQUENCY: f64 = 1000.0;

fn default_frequency() -> f64 {
    100.0
}

fn default_range() -> Ends {
    Ends(0.0, 1.0)
}

impl Definition for PwmOut {
    const NAME: &'static str = "pwm out";
    const PORTS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = r#"
[nodes.cabinet]
type = "iio"
device = "bme280"
channel = "temp"
every = "5s"

[nodes.speed]
type = "range"
from = "cabinet"
in = [3, 12]          # degC
out = [20, 100]       # %
outside = "clamp"

[nodes.fan]
type = "pwm out"
from = "speed"
pin = 18
range = [0, 100]
safe = "high"         # rather too much wind than none
silent_after = "1m"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(LOWEST_FREQUENCY..=HIGHEST_FREQUENCY).contains(&self.frequency) {
            let message = format!(
                "must be from {LOWEST_FREQUENCY} to {HIGHEST_FREQUENCY} Hz: the pulses are made in software"
            );
            problems.push(Problem::new("frequency", message));
        }
        if self.range.0 == self.range.1 {
            problems.push(Problem::new("range", "the two ends must differ"));
        } else if !(self.range.1 - self.range.0).is_finite() {
            problems.push(Problem::new("range", "the two ends are too far apart"));
        }
        problems.extend(too_short("silent_after", self.silent_after));
        problems
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Output {
            pin: self.pin,
            safe: self.safe.into(),
        }]
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Output {
            pin: self.pin,
            period: Duration::from_secs_f64(1.0 / self.frequency),
            range: self.range,
            safe: Drive::Level(self.safe.into()),
            silent_after: self.silent_after.map(|span| span.0),
            duty: None,
        }))
    }
}

struct Output {
    pin: Pin,
    period: Duration,
    range: Ends,
    safe: Drive,
    silent_after: Option<Duration>,
    /// The duty that it is driven with; none if it is safe.
    duty: Option<f64>,
}

impl Output {
    fn drive(&mut self, duty: Option<f64>, cx: &mut Context<'_>) {
        let before = std::mem::replace(&mut self.duty, duty);
        let drive = self.drive_with(duty);
        if self.drive_with(before) != drive {
            cx.set_output(self.pin, drive);
        }
    }

    fn drive_with(&self, duty: Option<f64>) -> Drive {
        duty.map_or(self.safe, |duty| Drive::with_duty(self.period, duty))
    }
}

impl Node for Output {
    fn start(&mut self, cx: &mut Context<'_>) {
        cx.set_output(self.pin, self.safe);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.duty))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        match pause {
            Pause::Reload => self.duty = state.read()?,
            Pause::Restart => {
                cx.cancel_wake();
                self.start(cx);
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let Ends(off, full) = self.range;
        let duty = (number - off) / (full - off);
        // An end of `range` that was computed may be beside it in the last digit.
        if !(-ROUNDING..=1.0 + ROUNDING).contains(&duty) {
            cx.fail(format!(
                "needs a number from {off} to {full}, but the payload is {number}"
            ));
            return;
        }
        self.drive(Some(duty), cx);
        if let Some(silent_after) = self.silent_after {
            cx.wake_at(cx.now().mono.saturating_add(silent_after));
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.drive(None, cx);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::board::{Level, Pin};
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, graph, node_problems};

    /// What is driven for payloads that come in each second from 1 s on, up to 100 s.
    fn check(options: &str, payloads: &str, expected: &[&str]) {
        let mut run = Run::sink(&format!("type = 'pwm out'\npin = 18\n{options}"));
        let payloads: Vec<Value> = serde_json::from_str(payloads).expect("a JSON list");
        for (second, payload) in (1..).zip(payloads) {
            let time = Timestamp::from_millis(second * 1000);
            run.go_on_until(time);
            run.deliver(time, payload);
        }
        run.go_on_until(Timestamp::from_millis(100_000));
        assert_eq!(run.sent, expected, "{options}");
    }

    const LOW: &str = "GPIO18 low";
    const HIGH: &str = "GPIO18 high";
    const QUARTER: &str = "GPIO18 25% of 10ms";

    #[test]
    fn it_is_safe_at_the_start_and_drives_what_changes() {
        check("", "[0, 0.25, 0.25, 1, 0]", &[LOW, QUARTER, HIGH, LOW]);
        check("safe = 'high'", "[0.25]", &[HIGH, QUARTER]);
    }

    #[test]
    fn the_range_says_what_is_off_and_full() {
        let percent = "range = [0, 100]\nfrequency = 0.5";
        check(
            percent,
            "[50, 100, 99.5, 0]",
            &[LOW, "GPIO18 50% of 2s", HIGH, "GPIO18 99.5% of 2s", LOW],
        );
        check("range = [1, 0]", "[1, 0.75, 0]", &[LOW, QUARTER, HIGH]);
        check("range = [-1, 1]", "[-0.5]", &[LOW, QUARTER]);
        check(
            "range = [-8e307, 8e307]\nsafe = 'high'",
            "[-8e307, 0, 8e307]",
            &[HIGH, LOW, "GPIO18 50% of 10ms", HIGH],
        );
        // What a `range` node makes of 0.3 + 1 * (0.85 - 0.3).
        let above = "failed: needs a number from 0.3 to 0.85, but the payload is 0.8500001";
        check(
            "range = [0.3, 0.85]",
            "[0.8500000000000001, 0.29999999999999993, 0.8500001]",
            &[LOW, HIGH, LOW, above],
        );
    }

    #[test]
    fn what_is_no_duty_fails_and_changes_nothing() {
        let failed =
            |what: &str| format!("failed: needs a number from 0 to 1, but the payload is {what}");
        let (below, above) = (failed("-0.1"), failed("1.1"));
        check(
            "",
            "[0.25, -0.1, 1.1, 0.25]",
            &[LOW, QUARTER, &below, &above],
        );
        check(
            "",
            "[0.25, null, true]",
            &[
                LOW,
                QUARTER,
                "failed: needs a finite number, but the payload is null: null",
                "failed: needs a finite number, but the payload is a boolean: true",
            ],
        );
        let mut run = Run::sink("type = 'pwm out'\npin = 18");
        for payload in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            run.deliver(Timestamp::default(), payload.into());
        }
        assert_eq!(run.sent.len(), 5, "{:?}", run.sent);
        assert!(
            run.sent[1..]
                .iter()
                .all(|sent| sent.starts_with("failed: "))
        );
    }

    #[test]
    fn silence_makes_it_safe_and_only_a_duty_ends_silence() {
        let silent = "silent_after = '2s'";
        check(silent, "[0.25, 0.25, 0.25]", &[LOW, QUARTER, LOW]);
        let failed = "failed: needs a number from 0 to 1, but the payload is 7";
        check(
            silent,
            "[0.25, 7, 7, 0.25]",
            &[LOW, QUARTER, failed, LOW, failed, QUARTER, LOW],
        );
    }

    #[test]
    fn options_are_checked() {
        let check = |options: &str, expected: &str| {
            let found = node_problems(&format!("type = 'pwm out'\npin = 18\n{options}"));
            assert!(found.iter().any(|p| p.contains(expected)), "{found:?}");
        };
        let frequency = "`frequency`: must be from 0.01 to 1000 Hz";
        for wrong in ["0", "0.009", "1001", "-1", "nan", "inf"] {
            check(&format!("frequency = {wrong}"), frequency);
        }
        check("range = [1, 1]", "`range`: the two ends must differ");
        check("range = [0, inf]", "must be finite numbers");
        check("range = [-1e308, 1e308]", "the two ends are too far apart");
        check(
            "silent_after = '0s'",
            "`silent_after`: must be at least 1ms",
        );
        check("safe = 0.5", "`safe`");
    }

    #[test]
    fn its_flow_is_a_control_flow_and_the_pin_belongs_to_it() {
        let source = "[nodes.source]\ntype = 'inject'\nevery = '1s'\npayload = 0\n";
        let out = |name: &str, kind: &str| {
            format!("[nodes.{name}]\ntype = '{kind}'\nfrom = 'source'\npin = 18\n")
        };
        let flow = format!("{source}{}", out("fan", "pwm out"));
        let valid = graph(&flow);
        assert!(valid.is_control());
        let pin = Pin::new(18).expect("a pin");
        assert!(valid.outputs().eq([(pin, Level::Low)]));
        let contested = format!("{flow}{}", out("relay", "gpio out"));
        let found = crate::nodes::testing::problems(&contested);
        assert!(
            found[0].contains("pin 18 is used by node `fan` already"),
            "{found:?}"
        );
    }

    #[test]
    fn after_a_restart_it_is_safe_until_a_duty_comes() {
        let mut run = Run::sink("type = 'pwm out'\npin = 18\nsilent_after = '10s'");
        run.deliver(Timestamp::default(), 0.25.into());
        run.restart(Duration::from_secs(5));
        run.go_on_until(Timestamp::from_millis(60_000));
        run.deliver(run.now.wall, 0.25.into());
        assert_eq!(run.sent, [LOW, QUARTER, LOW, QUARTER]);
    }
}
