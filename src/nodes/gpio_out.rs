//! `gpio out`: drives a pin.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::board::{Level, Pin};
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node, excerpt};

/// Drives a pin: `true` or 1 is high, `false` or 0 is low.
///
/// The pin goes to its safe level at the start, at the stop, when the flow fails, and, with `silent_after`, when no level
/// has come for that long.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct GpioOut {
    /// The pin's BCM (GPIO) number, 0 to 27; not its place on the header.
    pin: Pin,
    /// The level that does no harm: `low` or `high`. Default: `low`.
    #[serde(default)]
    safe: SafeLevel,
    /// Go to the safe level when no level has come for this long. Default: never.
    silent_after: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SafeLevel {
    #[default]
    Low,
    High,
}

impl GpioOut {
    fn safe(&self) -> Level {
        match self.safe {
            SafeLevel::Low => Level::Low,
            SafeLevel::High => Level::High,
        }
    }
}

impl Definition for GpioOut {
    const NAME: &'static str = "gpio out";
    const PORTS: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"

[nodes.thermostat]
type = "hysteresis"
from = "probe"
above = 5.0
below = 3.0

[nodes.compressor]
type = "gpio out"
from = "thermostat"
pin = 17
safe = "low"
silent_after = "30s"
"#;

    fn problems(&self) -> Vec<Problem> {
        if self
            .silent_after
            .is_some_and(|span| span.0 < Duration::from_millis(1))
        {
            return vec![Problem::new("silent_after", "must be at least 1ms")];
        }
        Vec::new()
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Output {
            pin: self.pin,
            safe: self.safe(),
        }]
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let silent_after = self.silent_after.map(|span| span.0);
        Ok(Box::new(Output {
            pin: self.pin,
            safe: self.safe(),
            silent_after,
            driven: None,
        }))
    }
}

struct Output {
    pin: Pin,
    safe: Level,
    silent_after: Option<Duration>,
    driven: Option<Level>,
}

impl Output {
    fn drive(&mut self, level: Level, cx: &mut Context<'_>) {
        if self.driven != Some(level) {
            self.driven = Some(level);
            cx.set_output(self.pin, level);
        }
    }
}

impl Node for Output {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.drive(self.safe, cx);
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(level) = message.payload.as_level() else {
            cx.fail(format!(
                "needs true, false, 1 or 0, but the payload is {}",
                excerpt(&message.payload)
            ));
            return;
        };
        self.drive(level.into(), cx);
        if let Some(silent_after) = self.silent_after {
            cx.wake_at(cx.now().mono + silent_after);
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.drive(self.safe, cx);
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::Run;

    /// The levels that are driven for payloads at these seconds, up to 100 s.
    fn check(options: &str, payloads: &[(i64, Value)], expected: &[&str]) {
        let mut run = Run::sink(&format!("type = 'gpio out'\npin = 17\n{options}"));
        for (second, payload) in payloads {
            let time = Timestamp::from_millis(second * 1000);
            run.go_on_until(time);
            run.deliver(time, payload.clone());
        }
        run.go_on_until(Timestamp::from_millis(100_000));
        assert_eq!(run.sent, expected, "{payloads:?}");
    }

    const HIGH: &str = "GPIO17 high";
    const LOW: &str = "GPIO17 low";

    #[test]
    fn it_is_safe_at_the_start_and_drives_what_changes() {
        check(
            "",
            &[
                (1, true.into()),
                (2, 1.0.into()),
                (3, false.into()),
                (4, 0.0.into()),
            ],
            &[LOW, HIGH, LOW],
        );
        check(
            "safe = 'high'",
            &[(1, true.into()), (2, false.into())],
            &[HIGH, LOW],
        );
    }

    #[test]
    fn what_is_no_level_fails_and_changes_nothing() {
        let failed = "failed: needs true, false, 1 or 0, but the payload is ";
        check("", &[(1, 2.0.into())], &[LOW, &format!("{failed}2")]);
        check(
            "",
            &[(1, true.into()), (2, "off".into())],
            &[LOW, HIGH, &format!("{failed}\"off\"")],
        );
    }

    #[test]
    fn silence_makes_it_safe_and_a_level_ends_it() {
        let silent = "silent_after = '10s'";
        check(
            silent,
            &[(1, true.into()), (10, true.into()), (19, true.into())],
            &[LOW, HIGH, LOW],
        );
        check(
            silent,
            &[(1, true.into()), (12, true.into())],
            &[LOW, HIGH, LOW, HIGH, LOW],
        );
        check(
            silent,
            &[(1, true.into()), (2, Value::Null)],
            &[
                LOW,
                HIGH,
                "failed: needs true, false, 1 or 0, but the payload is null",
                LOW,
            ],
        );
    }
}
