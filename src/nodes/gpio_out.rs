//! `gpio out`: drives a pin.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BuildError, Definition, Problem, Surroundings, Use};
use crate::board::{Level, Pin};
use crate::flow::options::Span;
use crate::message::Message;
use crate::runtime::node::{Context, Node, excerpt};
use crate::runtime::state::{Pause, State, StateError};

/// Drives a pin: `true` or 1 is high, `false` or 0 is low.
///
/// The pin goes to its safe level at the start, at the stop, when the flow fails, and, with `silent_after`, when no level
/// has come for that long. After a restart it stays there until a level comes. A reload of the flow does not touch it,
/// unless something before it has changed: then it begins at `safe`.
///
/// `min_on` and `min_off` keep a compressor or a burner from switching too often; on is the level that is not `safe`. A level that
/// comes too early is kept, and driven when the time has passed; the latest one counts. `min_off` counts from each start of
/// the flow too, for the machine may have run until a power cut a moment ago. What makes the pin safe does so at once, whatever
/// `min_on` says: a machine that nobody watches is worse than one that stops early. A `false` that must always stop it at once
/// needs a flow without `min_on`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct GpioOut {
    /// The pin's BCM (GPIO) number, 0 to 27; not its place on the header.
    pin: Pin,
    /// The level that does no harm: `low` or `high`. Default: `low`.
    #[serde(default)]
    safe: SafeLevel,
    /// Go to the safe level when no level has come for this long. Default: never.
    silent_after: Option<Span>,
    /// Stay on for at least this long, unless it must go safe. Default: no such time.
    min_on: Option<Span>,
    /// Stay off for at least this long, also after the start of the flow. Default: no such time.
    min_off: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SafeLevel {
    #[default]
    Low,
    High,
}

impl From<SafeLevel> for Level {
    fn from(safe: SafeLevel) -> Level {
        match safe {
            SafeLevel::Low => Level::Low,
            SafeLevel::High => Level::High,
        }
    }
}

/// What is wrong with a length of time that would be over at once.
pub(super) fn too_short(option: &str, span: Option<Span>) -> Option<Problem> {
    let is_too_short = span.is_some_and(|span| span.0 < Duration::from_millis(1));
    is_too_short.then(|| Problem::new(option, "must be at least 1ms"))
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
min_on = "2m"
min_off = "5m"
"#;

    fn problems(&self) -> Vec<Problem> {
        [
            ("silent_after", self.silent_after),
            ("min_on", self.min_on),
            ("min_off", self.min_off),
        ]
        .into_iter()
        .filter_map(|(option, span)| too_short(option, span))
        .collect()
    }

    fn uses(&self) -> Vec<Use> {
        vec![Use::Output {
            pin: self.pin,
            safe: self.safe.into(),
        }]
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let span = |span: Option<Span>| span.map(|span| span.0);
        Ok(Box::new(Output {
            pin: self.pin,
            safe: self.safe.into(),
            silent_after: span(self.silent_after),
            min_on: span(self.min_on).unwrap_or_default(),
            min_off: span(self.min_off).unwrap_or_default(),
            remembered: Remembered {
                driven: self.safe.into(),
                wanted: self.safe.into(),
                free_at: Duration::ZERO,
                silent_at: None,
            },
        }))
    }
}

struct Output {
    pin: Pin,
    safe: Level,
    silent_after: Option<Duration>,
    min_on: Duration,
    min_off: Duration,
    remembered: Remembered,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    driven: Level,
    /// The level of the last message; another one than is driven while that one has to stay.
    wanted: Level,
    /// When the level may change again, in monotonic time.
    free_at: Duration,
    /// When the input counts as silent.
    silent_at: Option<Duration>,
}

impl Output {
    fn drive(&mut self, level: Level, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let at_least = if level == self.safe {
            self.min_off
        } else {
            self.min_on
        };
        self.remembered.driven = level;
        self.remembered.free_at = now.saturating_add(at_least);
        cx.set_output(self.pin, level);
    }

    /// Drives what is wanted, if that may be, and sees to it that it is looked at again.
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Remembered { wanted, driven, .. } = self.remembered;
        if wanted != driven && cx.now().mono >= self.remembered.free_at {
            self.drive(wanted, cx);
        }
        let it = &self.remembered;
        let change_at = (it.wanted != it.driven).then_some(it.free_at);
        match change_at.into_iter().chain(it.silent_at).min() {
            Some(next) => cx.wake_at(next),
            None => cx.cancel_wake(),
        }
    }
}

impl Node for Output {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.drive(self.safe, cx);
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
        match pause {
            Pause::Reload => self.remembered = state.read()?,
            // Nor does it know how long it has been off: it may have been switched on after the state was taken.
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
        self.remembered.wanted = level.into();
        if let Some(silent_after) = self.silent_after {
            self.remembered.silent_at = Some(cx.now().mono.saturating_add(silent_after));
        }
        self.settle(cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        let silent_at = self.remembered.silent_at;
        if silent_at.is_some_and(|at| at <= cx.now().mono) {
            self.remembered.silent_at = None;
            self.remembered.wanted = self.safe;
            if self.remembered.driven != self.safe {
                self.drive(self.safe, cx);
            }
        }
        self.settle(cx);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::{Timestamp, Value};
    use crate::nodes::testing::{Run, node_problems};

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

    /// The levels with the second at which they are driven, for levels that come at these seconds.
    fn check_times(options: &str, levels: &[(i64, bool)], expected: &[(i64, &str)]) {
        let mut run = Run::sink(&format!("type = 'gpio out'\npin = 17\n{options}"));
        let mut found = vec![(0, run.sent[0].clone())];
        for second in 1..=100 {
            let before = run.sent.len();
            let time = Timestamp::from_millis(second * 1000);
            run.go_on_until(time);
            for (_, level) in levels.iter().filter(|(at, _)| *at == second) {
                run.deliver(time, (*level).into());
            }
            found.extend(run.sent[before..].iter().map(|sent| (second, sent.clone())));
        }
        let found: Vec<_> = found.iter().map(|(at, sent)| (*at, &**sent)).collect();
        assert_eq!(found, expected, "{options}: {levels:?}");
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
        for (number, shown) in [(2.0, "2"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
            let failed = format!("{failed}{shown}");
            check("", &[(1, number.into())], &[LOW, &failed]);
        }
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

    #[test]
    fn it_stays_on_for_the_minimum_time() {
        let min_on = "min_on = '10s'";
        // Just inside and just outside.
        check_times(
            min_on,
            &[(1, true), (10, false)],
            &[(0, LOW), (1, HIGH), (11, LOW)],
        );
        check_times(
            min_on,
            &[(1, true), (11, false), (12, true), (23, false)],
            &[(0, LOW), (1, HIGH), (11, LOW), (12, HIGH), (23, LOW)],
        );
        // The latest level counts.
        check_times(
            min_on,
            &[(1, true), (2, false), (3, true), (20, false)],
            &[(0, LOW), (1, HIGH), (20, LOW)],
        );
        check_times(
            "min_on = '10s'\nsafe = 'high'",
            &[(1, false), (2, true), (12, false)],
            &[(0, HIGH), (1, LOW), (11, HIGH), (12, LOW)],
        );
    }

    #[test]
    fn it_stays_off_for_the_minimum_time_also_after_the_start() {
        let min_off = "min_off = '10s'";
        check_times(
            min_off,
            &[(1, true), (15, false), (16, true)],
            &[(0, LOW), (10, HIGH), (15, LOW), (25, HIGH)],
        );
        check_times(min_off, &[(1, true), (9, false)], &[(0, LOW)]);
        check_times(
            "min_on = '5s'\nmin_off = '10s'",
            &[(1, true), (11, false), (12, true)],
            &[(0, LOW), (10, HIGH)],
        );
    }

    #[test]
    fn silence_makes_it_safe_at_once_and_then_the_times_count_again() {
        let options = "min_on = '30s'\nmin_off = '10s'\nsilent_after = '5s'";
        check_times(
            options,
            &[(10, true), (16, true), (19, true), (23, true)],
            &[(0, LOW), (10, HIGH), (15, LOW), (25, HIGH), (28, LOW)],
        );
        // What was kept falls with the silence.
        check_times(options, &[(2, true)], &[(0, LOW)]);
    }

    #[test]
    fn options_are_checked() {
        for option in ["silent_after", "min_on", "min_off"] {
            let node = format!("type = 'gpio out'\npin = 17\n{option} = '0s'");
            let found = node_problems(&node);
            let expected = format!("`{option}`: must be at least 1ms");
            assert!(found.iter().any(|p| p.contains(&expected)), "{found:?}");
        }
    }

    /// Checkpoints may be minutes old: it may have been switched on after one, and nobody may start a machine from memory.
    #[test]
    fn after_a_restart_it_is_safe_and_off_for_its_time() {
        let check = |before: &[bool], expected: &[(u64, &str)]| {
            let options = "min_on = '2s'\nmin_off = '10s'\nsilent_after = '30s'";
            let mut run = Run::sink(&format!("type = 'gpio out'\npin = 17\n{options}"));
            let mut second = 20;
            for level in before {
                second += 5;
                run.go_on_until(Timestamp::from_millis(second * 1000));
                run.deliver(run.now.wall, (*level).into());
            }
            run.sent.clear();
            run.restart(Duration::from_secs(3600));
            let mut found = Vec::new();
            for after in 0..60 {
                run.go_on_until(run.now.wall);
                if after == 5 {
                    run.deliver(run.now.wall, true.into());
                }
                found.extend(run.sent.drain(..).map(|sent| (after, sent)));
                run.now = run.now.later(Duration::from_secs(1));
            }
            let found: Vec<_> = found.iter().map(|(at, sent)| (*at, &**sent)).collect();
            assert_eq!(found, expected, "{before:?}");
        };
        let expected = [(0, LOW), (10, HIGH), (35, LOW)];
        check(&[], &expected);
        check(&[true], &expected);
        check(&[true, false], &expected);
    }
}
