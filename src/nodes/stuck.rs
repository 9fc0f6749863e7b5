//! `stuck`: a sensor that always says the same.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keyed::Keyed;
use super::series::ClockSetting;
use super::{BuildError, Definition, Problem, Surroundings, timers};
use crate::flow::options::Span;
use crate::message::{Message, Timestamp};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Tells the readings of a sensor that has stopped moving from those of one that lives. Per topic.
///
/// A stretch begins with a reading and lasts as long as each further one is within `tolerance` of that first one; the next one
/// begins a new stretch. Once a stretch is `after` long, its readings go out of `stuck`, all the others out of `ok`: each reading
/// out of one of both. For one alarm put a `filter` behind `stuck`. Time is the readings' own; a reading from before the stretch
/// begins a new one, and so does the first one after the clock was set ahead. A stretch goes on over a restart, unless nothing was seen
/// for `after` itself.
///
/// Give it the readings themselves, not what a `filter` lets through. A sensor that says nothing any more is for `timeout`. A
/// payload that is no finite number fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Stuck {
    /// How far a reading may be from the first one of a stretch, in its own unit, and count as the same. Default: 0.
    #[serde(default)]
    tolerance: f64,
    /// For how long readings must be the same, from `1ms`; longer than a living sensor ever gives the same.
    after: Span,
}

const OK: usize = 0;
const STUCK: usize = 1;

impl Definition for Stuck {
    const NAME: &'static str = "stuck";
    const PORTS: &'static [&'static str] = &["ok", "stuck"];
    const EXAMPLE: &'static str = r#"
[nodes.tank]
type = "iio"
device = "ads1015"            # so the kernel calls an ADS1115
channel = "voltage0"

[nodes.alive]
type = "stuck"
from = "tank"
tolerance = 0.001
after = "10m"

[nodes.show]
type = "debug"
from = "alive"

[nodes.once]
type = "filter"
from = "alive.stuck"
deadband = 0.001

[nodes.alarm]
type = "uplink"
from = "once"
topic = "sites/{device}/tank/level-stuck"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(timers::too_short("after", self.after));
        if !self.tolerance.is_finite() || self.tolerance < 0.0 {
            problems.push(Problem::new(
                "tolerance",
                "must be a finite number, not negative",
            ));
        }
        problems
    }

    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Pulse {
            tolerance: self.tolerance,
            after: self.after.0,
            stretches: Keyed::default(),
        }))
    }
}

struct Pulse {
    tolerance: f64,
    after: Duration,
    stretches: Keyed<Option<Stretch>>,
}

/// Readings that are the same; the number and the time of the first one.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Stretch {
    number: f64,
    since: Timestamp,
    /// The time of the last reading.
    seen: Timestamp,
    clock: ClockSetting,
}

impl Node for Pulse {
    fn save(&self) -> Option<State> {
        Some(State::of(&self.stretches))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.stretches = state.read()?;
        if pause == Pause::Restart {
            let now = cx.now().wall;
            for (_, stretch) in self.stretches.iter_mut() {
                // What it is now may be the same by chance: a tank that was emptied and filled meanwhile.
                stretch.take_if(|it| {
                    let was_stuck = it.seen.saturating_since(it.since) >= self.after;
                    !was_stuck && now.saturating_since(it.seen) >= self.after
                });
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = cx.number_or_fail(&message.payload) else {
            return;
        };
        let new = Stretch {
            number,
            since: message.time,
            seen: message.time,
            clock: ClockSetting::of(cx),
        };
        let Some(stretch) = self.stretches.get_or_fail(&message.topic, cx, || None) else {
            return;
        };
        let stretch = stretch.get_or_insert(new);
        let is_same = (number - stretch.number).abs() <= self.tolerance;
        let lasted = message.time.saturating_since(stretch.since);
        let was_set = new.clock.step_within(stretch.clock, lasted).is_some();
        if !is_same || was_set || message.time < stretch.since {
            *stretch = new;
        }
        stretch.seen = message.time;
        let is_stuck = message.time.saturating_since(stretch.since) >= self.after;
        cx.pass(if is_stuck { STUCK } else { OK });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::message::Timestamp;
    use crate::nodes::testing::{Run, check_problems};

    /// Where readings of these seconds go.
    fn check(options: &str, readings: &[(i64, f64)], expected: &[&str]) {
        let options = format!("type = 'stuck'\nafter = '10s'\n{options}");
        let mut run = Run::with_ports(&["ok", "stuck"], &options);
        for (second, number) in readings {
            run.deliver(Timestamp::from_millis(second * 1000), (*number).into());
        }
        assert_eq!(run.sent, expected, "{options} {readings:?}");
    }

    #[test]
    fn what_stays_the_same_for_long_enough_is_stuck() {
        check(
            "",
            &[
                (0, 7.0),
                (9, 7.0),
                (10, 7.0),
                (30, 7.0),
                (31, 7.1),
                (32, 7.0),
                (41, 7.0),
                (42, 7.0),
            ],
            &[
                "ok: 7", "ok: 7", "stuck: 7", "stuck: 7", "ok: 7.1", "ok: 7", "ok: 7", "stuck: 7",
            ],
        );
    }

    #[test]
    fn the_tolerance_is_around_the_first_reading() {
        check(
            "tolerance = 0.5",
            &[(0, 7.0), (5, 7.5), (10, 6.5)],
            &["ok: 7", "ok: 7.5", "stuck: 6.5"],
        );
        check(
            "tolerance = 0.5",
            &[(0, 7.0), (5, 7.5), (10, 7.75), (15, 8.0)],
            &["ok: 7", "ok: 7.5", "ok: 7.75", "ok: 8"],
        );
    }

    #[test]
    fn what_is_no_number_fails_and_changes_nothing() {
        let failed = "failed: needs a finite number, but the payload is a number: ";
        check(
            "",
            &[(0, 7.0), (5, f64::NAN), (6, f64::INFINITY), (10, 7.0)],
            &[
                "ok: 7",
                &format!("{failed}NaN"),
                &format!("{failed}inf"),
                "stuck: 7",
            ],
        );
        let (most, least) = (1e308, -1e308);
        check(
            "tolerance = 1e308",
            &[(0, most), (10, least)],
            &["ok: 1e+308", "ok: -1e+308"],
        );
    }

    #[test]
    fn time_that_goes_back_begins_a_new_stretch() {
        check(
            "",
            &[(100, 7.0), (50, 7.0), (59, 7.0), (60, 7.0)],
            &["ok: 7", "ok: 7", "ok: 7", "stuck: 7"],
        );
        // A reading that is late, but not from before the stretch, belongs to it.
        check(
            "",
            &[(100, 7.0), (108, 7.0), (105, 7.0), (110, 7.0)],
            &["ok: 7", "ok: 7", "ok: 7", "stuck: 7"],
        );
        let mut run = Run::with_ports(&["ok", "stuck"], "type = 'stuck'\nafter = '10000d'");
        for nanos in [i64::MIN, i64::MAX, i64::MIN] {
            run.deliver(Timestamp::from_nanos(nanos), 7.0.into());
        }
        assert_eq!(run.sent, ["ok: 7", "stuck: 7", "ok: 7"]);
    }

    /// A Pi starts with an old time: when it is set right, every steady sensor would seem stuck.
    #[test]
    fn hours_by_which_the_clock_was_set_are_no_stretch() {
        let mut run = Run::with_ports(&["ok", "stuck"], "type = 'stuck'\nafter = '10s'");
        for (second, step_hours) in [(1, 0), (2, 8), (9, 0), (12, 0)] {
            let until = Duration::from_secs(second).saturating_sub(run.now.mono);
            run.go_on_until(run.now.wall.saturating_add(until));
            let step = Duration::from_secs(3600 * step_hours);
            run.now.wall = run.now.wall.saturating_add(step);
            run.deliver(run.now.wall, 7.0.into());
        }
        assert_eq!(run.sent, ["ok: 7", "ok: 7", "ok: 7", "stuck: 7"]);
    }

    #[test]
    fn topics_are_watched_one_by_one() {
        let mut run = Run::with_ports(&["ok", "stuck"], "type = 'stuck'\nafter = '10s'");
        for (topic, second, number) in
            [("a", 0, 1.0), ("b", 5, 1.0), ("a", 10, 1.0), ("b", 10, 1.0)]
        {
            run.deliver_on(topic, Timestamp::from_millis(second * 1000), number.into());
        }
        assert_eq!(run.sent, ["ok: 1", "ok: 1", "stuck: 1", "ok: 1"]);
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected| {
            check_problems(&format!("type = 'stuck'\n{options}"), expected)
        };
        check("after = '0s'", &["`after`: must be at least 1ms"]);
        for tolerance in ["-1", "nan", "inf"] {
            check(
                &format!("after = '1s'\ntolerance = {tolerance}"),
                &["`tolerance`: must be a finite number, not negative"],
            );
        }
    }

    #[test]
    fn a_restart_is_no_stretch_unless_it_is_short() {
        let check = |readings: &[i64], off: u64, number: f64, expected: &str| {
            let options = "type = 'stuck'\nafter = '10s'";
            let mut run = Run::with_ports(&["ok", "stuck"], options);
            for second in readings {
                run.go_on_until(Timestamp::from_millis(second * 1000));
                run.deliver(run.now.wall, 7.0.into());
            }
            run.restart(Duration::from_secs(off));
            run.deliver(run.now.wall, number.into());
            let last = run.sent.last().map(String::as_str);
            assert_eq!(last, Some(expected), "{readings:?} {off}");
        };
        check(&[0, 4], 5, 7.0, "ok: 7");
        check(&[0, 4], 6, 7.0, "stuck: 7");
        check(&[0, 4], 9, 7.0, "stuck: 7");
        // Nobody saw it for 10 s.
        check(&[0, 4], 10, 7.0, "ok: 7");
        check(&[0, 4], 86_400, 7.0, "ok: 7");
        // It was stuck, and still is.
        check(&[0, 4, 10], 86_400, 7.0, "stuck: 7");
        check(&[0, 4, 10], 86_400, 7.1, "ok: 7.1");
    }
}
