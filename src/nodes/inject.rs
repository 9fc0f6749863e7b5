//! `inject`: sends a message at a steady pace, or at times of day.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sampler::{next_tick, too_fast};
use super::schedule::{Schedule, Zone};
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError};

/// Sends a message every so often, the first one after that time; or at times of day, by a schedule.
///
/// Ticks of `every` are monotonic and do not drift. They go on over a restart. Those that were missed, because the machine
/// slept or was off, are not made up for: one is sent, at once.
///
/// A schedule goes by the wall clock. When the clock is set ahead by up to three hours, what lies in between is sent once,
/// within a minute; when by more, it is not sent, since a Pi that starts with an old time has not missed anything. It is the
/// same with what lies in the time while the device is off. When it starts with a clock that is behind by up to three hours,
/// what was sent is not sent again.
///
/// When daylight saving time begins, a fixed time that is left out, such as `30 2 * * *`, is sent at the change; when it ends,
/// one that comes twice is sent the first time. A schedule whose second, minute or hour begins with `*` follows the clock
/// instead: nothing for the hour that is left out, and twice in the hour that comes twice. This is as in cron.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Inject {
    /// How often, from `1ms`; instead of `schedule`.
    every: Option<Span>,
    /// At which times, as in cron's tables: minute, hour, day of the month, month and day of the week, such as
    /// `"0 6 * * MON-FRI"`; of six fields the first is the second. A field is a value, a range `1-5`, `*`, a range or `*` with a
    /// step `*/15`, or a list of these; months and days of the week may have their English names (`JAN`, `MON`), Sunday is 0 or 7.
    /// If both fields of days are restricted, a day must be in one of them. Instead of `every`.
    schedule: Option<Schedule>,
    /// The time zone of `schedule`, such as `"Europe/Berlin"`. Default: `"UTC"`.
    time_zone: Option<Zone>,
    /// What to send. Default: the time, in milliseconds since 1970, as Node-RED does.
    payload: Option<Value>,
    /// The topic of its messages. Default: the flow's and the node's name.
    topic: Option<String>,
}

impl Inject {
    fn zone(&self) -> Zone {
        self.time_zone.clone().unwrap_or(Zone::UTC)
    }
}

impl Definition for Inject {
    const NAME: &'static str = "inject";
    const HAS_INPUT: bool = false;
    const EXAMPLE: &'static str = r#"
[nodes.tick]
type = "inject"
every = "10s"
payload = { state = "alive" }

# Before the shift begins, on working days.
[nodes.heating]
type = "inject"
schedule = "30 5 * * MON-FRI"
time_zone = "Europe/Berlin"
payload = true

[nodes.show]
type = "debug"
from = ["tick", "heating"]
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(self.every.and_then(too_fast));
        match (&self.every, &self.schedule) {
            (None, None) => problems.push(Problem::new(
                "every",
                "is missing: say how often with `every`, or at which times with `schedule`",
            )),
            (Some(_), Some(_)) => problems.push(Problem::new(
                "schedule",
                "cannot stand beside `every`: use two nodes",
            )),
            (None, Some(schedule)) => {
                let first = schedule.next_after(Timestamp::default(), &self.zone());
                if first.is_none() {
                    problems.push(Problem::new("schedule", "there is no such day in any year"));
                }
            }
            (Some(_), None) => {}
        }
        if self.time_zone.is_some() && self.schedule.is_none() {
            problems.push(Problem::new("time_zone", "is for `schedule` only"));
        }
        problems
    }

    fn load(&self, _: Load) -> Load {
        const MILLIS_BYTES: f64 = 13.0;
        let bytes = self
            .payload
            .as_ref()
            .map_or(MILLIS_BYTES, |payload| payload.to_json().len() as f64);
        match (&self.every, &self.schedule) {
            (Some(every), _) => Load::every(every.0, bytes),
            (None, Some(schedule)) => per_second(schedule, &self.zone(), bytes),
            (None, None) => Load::NONE,
        }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let content = Content {
            payload: self.payload.clone(),
            topic: self
                .topic
                .as_deref()
                .map_or_else(|| site.own_topic(), Into::into),
        };
        Ok(match (&self.schedule, self.every) {
            (Some(schedule), _) => Box::new(Timetable {
                schedule: schedule.clone(),
                zone: self.zone(),
                look: Look::default(),
                content,
            }),
            (None, every) => Box::new(Ticker {
                every: every.unwrap_or_default().0,
                next: Duration::ZERO,
                content,
            }),
        })
    }
}

/// How often a schedule comes: as in its first year, or as its first thousand times; or as its first time, if that is later.
fn per_second(schedule: &Schedule, zone: &Zone, bytes: f64) -> Load {
    const YEAR: Duration = Duration::from_secs(366 * 86_400);
    let start = Timestamp::default();
    let next = |time: &Timestamp| schedule.next_after(*time, zone);
    let mut count = 0;
    let mut span = YEAR;
    for time in std::iter::successors(next(&start), next) {
        let since_start = time.saturating_since(start);
        let is_rare = count == 0 && since_start > YEAR;
        if since_start > YEAR && !is_rare {
            break;
        }
        count += 1;
        if count == 1000 || is_rare {
            span = since_start;
            break;
        }
    }
    Load {
        per_second: f64::from(count) / span.as_secs_f64(),
        bytes,
    }
}

/// What is sent.
struct Content {
    payload: Option<Value>,
    topic: Text,
}

impl Content {
    fn send(&self, cx: &mut Context<'_>) {
        let now = cx.now().wall;
        let payload = self
            .payload
            .clone()
            .unwrap_or_else(|| Value::Number(now.as_millis_f64().floor()));
        cx.originate(self.topic.clone(), payload, now);
    }
}

struct Ticker {
    every: Duration,
    next: Duration,
    content: Content,
}

impl Node for Ticker {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.next = cx.now().mono + self.every;
        cx.wake_at(self.next);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.next))
    }

    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        self.next = state.read()?;
        Ok(())
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.content.send(cx);
        self.next = next_tick(self.next, self.every, cx.now().mono);
        cx.wake_at(self.next);
    }
}

/// What the clock has stepped over is sent if it is no longer ago than this, as cron does.
const LATEST: Duration = Duration::from_secs(3 * 3600);
/// Wake-ups are monotonic, and the wall clock may be set at any time: so it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

struct Timetable {
    schedule: Schedule,
    zone: Zone,
    look: Look,
    content: Content,
}

/// What the last look at the wall clock told.
#[derive(Default, Serialize, Deserialize)]
struct Look {
    at: Timestamp,
    /// The wall-clock time of the next message, if there is one.
    next: Option<Timestamp>,
}

impl Timetable {
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        self.look.next = self.schedule.next_after(cx.now().wall, &self.zone);
        self.ask_for_wake(cx);
    }

    fn ask_for_wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        self.look.at = now.wall;
        if let Some(next) = self.look.next {
            cx.wake_at(now.mono_at(next).min(now.mono + LOOK_EVERY));
        }
    }
}

impl Node for Timetable {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.look_ahead(cx);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.look))
    }

    fn resume(&mut self, state: &State, _: Pause, cx: &mut Context<'_>) -> Result<(), StateError> {
        self.look = state.read()?;
        // What was sent already is not sent again when the clock comes round to it, but a clock that may never get there counts.
        if self.look.at.saturating_since(cx.now().wall) > LATEST {
            self.look_ahead(cx);
        }
        Ok(())
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().wall;
        let Some(next) = self.look.next else { return };
        if now < next {
            return self.ask_for_wake(cx);
        }
        if now.saturating_since(next) <= LATEST {
            self.content.send(cx);
        }
        self.look_ahead(cx);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::per_second;
    use crate::message::Timestamp;
    use crate::nodes::schedule::{Schedule, Zone};
    use crate::nodes::testing::{Run, graph, problems};
    use crate::runtime::{Effect, Engine, Now};

    #[test]
    fn it_ticks_from_the_first_interval_on_and_does_not_catch_up() {
        let flow = "[nodes.tick]\ntype = 'inject'\nevery = '10s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'";
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(graph(flow), Now::default(), &mut effects);
        // Late by a second, then asleep for a minute, then on time.
        for second in [9, 10, 21, 30, 95, 104, 105] {
            engine.wake(
                Now::default().later(Duration::from_secs(second)),
                100,
                &mut effects,
            );
        }
        let times: Vec<Timestamp> = effects
            .iter()
            .map(|effect| match effect {
                Effect::Debug { message, .. } => message.time,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            times,
            [10, 21, 30, 95, 105].map(|second| Timestamp::from_millis(second * 1000))
        );
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().expect("RFC 3339");
        Timestamp::from_nanos(time.as_nanosecond().try_into().expect("up to 2262"))
    }

    #[test]
    fn ticks_go_on_over_a_restart_and_what_is_overdue_comes_once() {
        let check = |off: u64, expected: &[i64]| {
            let mut run = Run::flow(
                "[nodes.tested]\ntype = 'inject'\nevery = '10s'\n[nodes.sink]\ntype = 'debug'\nfrom = 'tested'",
            );
            run.go_on_until(Timestamp::from_millis(14_000));
            run.restart(Duration::from_secs(off));
            run.go_on_until(Timestamp::from_millis(60_000));
            let times = run.messages.iter().map(|message| message.time);
            let times: Vec<i64> = times.map(|time| time.as_nanos() / 1_000_000_000).collect();
            assert_eq!(times, expected, "{off} s");
        };
        check(0, &[10, 20, 30, 40, 50, 60]);
        check(5, &[10, 20, 30, 40, 50, 60]);
        check(7, &[10, 21, 30, 40, 50, 60]);
        check(31, &[10, 45, 55]);
    }

    /// When a node sends at 6:00, 8:00 and 10:00 whose device was stopped at 6:30, when its clock was `start` at the next start.
    fn check_off(start: &str, expected: &[&str]) {
        let mut run = Run::flow(
            "[nodes.tested]\ntype = 'inject'\nschedule = '0 6,8,10 * * *'\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'",
        );
        let day = |time: &str| at(&format!("1970-01-01T{time}:00Z"));
        run.go_on_until(day("06:30"));
        let off = day(start).saturating_since(run.now.wall);
        run.restart_at(Now {
            mono: run.now.mono + off,
            wall: day(start),
        });
        run.go_on_until(day("12:00"));
        let times = run.messages.iter();
        let times = times.map(|message| message.time.to_string()[11..16].to_owned());
        assert_eq!(times.collect::<Vec<_>>(), expected, "{start}");
    }

    #[test]
    fn a_schedule_goes_on_over_a_restart_as_over_a_step_of_the_clock() {
        check_off("06:30", &["06:00", "08:00", "10:00"]);
        check_off("07:30", &["06:00", "08:00", "10:00"]);
        check_off("08:00", &["06:00", "08:00", "10:00"]);
        check_off("08:30", &["06:00", "08:30", "10:00"]);
        check_off("11:00", &["06:00", "11:00"]);
        check_off("11:01", &["06:00"]);
    }

    #[test]
    fn what_was_sent_is_sent_again_only_if_the_clock_is_far_behind_after_a_restart() {
        check_off("05:59", &["06:00", "08:00", "10:00"]);
        check_off("03:30", &["06:00", "08:00", "10:00"]);
        check_off("03:29", &["06:00", "06:00", "08:00", "10:00"]);
    }

    /// When a node with a schedule sends, if the flow starts at `start`, and after each stretch of time, in hours, the wall
    /// clock steps ahead by so many hours.
    fn check_schedule(options: &str, start: &str, steps: &[(u32, u32)], expected: &[&str]) {
        let flow = format!(
            "[nodes.at]\ntype = 'inject'\n{options}\n[nodes.show]\ntype = 'debug'\nfrom = 'at'"
        );
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        let mut now = Now {
            mono: Duration::ZERO,
            wall: at(start),
        };
        engine.add(graph(&flow), now, &mut effects);
        for (hours, step_hours) in steps {
            let end = now.mono + HOUR * *hours;
            while let Some(next) = engine.next_wake().filter(|next| *next <= end) {
                now = now.later(next.saturating_sub(now.mono));
                engine.wake(now, 1, &mut effects);
            }
            now = now.later(end.saturating_sub(now.mono));
            now.wall = now.wall.saturating_add(HOUR * *step_hours);
        }
        let times: Vec<String> = effects
            .iter()
            .map(|effect| match effect {
                Effect::Debug { message, .. } => message.time.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(times, expected, "{options}");
    }

    #[test]
    fn a_schedule_goes_by_the_clock_of_its_zone() {
        let winter = "2026-11-20T05:00:00Z";
        check_schedule(
            "schedule = '0 6 * * 1-5'",
            winter,
            &[(80, 0)],
            &["2026-11-20T06:00:00.000Z", "2026-11-23T06:00:00.000Z"],
        );
        check_schedule(
            "schedule = '30 6 * * *'\ntime_zone = 'Europe/Berlin'",
            winter,
            &[(48, 0)],
            &["2026-11-20T05:30:00.000Z", "2026-11-21T05:30:00.000Z"],
        );
        check_schedule(
            "schedule = '20 0 0 * * *'",
            winter,
            &[(24, 0)],
            &["2026-11-21T00:00:20.000Z"],
        );
    }

    #[test]
    fn a_day_with_23_or_25_hours_has_each_fixed_time_once() {
        let at_half_past_two = "schedule = '30 2 * * *'\ntime_zone = 'Europe/Berlin'";
        check_schedule(
            at_half_past_two,
            "2026-03-28T00:00:00Z",
            &[(72, 0)],
            &[
                "2026-03-28T01:30:00.000Z",
                "2026-03-29T01:00:00.000Z",
                "2026-03-30T00:30:00.000Z",
            ],
        );
        check_schedule(
            at_half_past_two,
            "2026-10-24T00:00:00Z",
            &[(72, 0)],
            &[
                "2026-10-24T00:30:00.000Z",
                "2026-10-25T00:30:00.000Z",
                "2026-10-26T01:30:00.000Z",
            ],
        );
    }

    #[test]
    fn a_short_step_of_the_clock_leaves_nothing_out_and_a_long_one_does() {
        let daily = "schedule = '0 6 * * *'";
        let start = "2026-11-20T03:00:00Z";
        // From 5:00 to 9:00, and to 9:01 when it is looked at.
        check_schedule(
            daily,
            start,
            &[(2, 4), (48, 0)],
            &["2026-11-21T06:00:00.000Z", "2026-11-22T06:00:00.000Z"],
        );
        check_schedule(
            daily,
            start,
            &[(2, 3), (24, 0)],
            &["2026-11-20T08:01:00.000Z", "2026-11-21T06:00:00.000Z"],
        );
        check_schedule(
            "schedule = '0 * * * *'",
            start,
            &[(1, 3), (1, 0)],
            &[
                "2026-11-20T04:00:00.000Z",
                "2026-11-20T07:01:00.000Z",
                "2026-11-20T08:00:00.000Z",
            ],
        );
    }

    #[test]
    fn wrong_options_are_said() {
        let check = |options: &str, expected: &[&str]| {
            let found = problems(&format!(
                "[nodes.at]\ntype = 'inject'\n{options}\n[nodes.show]\ntype = 'debug'\nfrom = 'at'"
            ));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.contains(expected), "{found}");
            }
        };
        check("", &["`every`: is missing: say how often with `every`"]);
        check(
            "every = '1s'\nschedule = '* * * * *'",
            &["`schedule`: cannot stand beside `every`"],
        );
        check("every = '0s'", &["`every`: must be at least 1ms"]);
        check(
            "every = '1s'\ntime_zone = 'UTC'",
            &["`time_zone`: is for `schedule` only"],
        );
        check(
            "schedule = '0 0 30 2 *'",
            &["`schedule`: there is no such day in any year"],
        );
        check(
            "schedule = '0 0 29 FEB *'\ntime_zone = 'Europe/Berlin'",
            &[],
        );
        check(
            "schedule = '61 * * * *'",
            &["`schedule`: `61` is no minute"],
        );
        check(
            "schedule = '0 6 * * *'\ntime_zone = 'Mars/Base'",
            &["`time_zone`: there is no time zone `Mars/Base`"],
        );
        check("schedule = 6", &["`schedule`: `6` is no schedule"]);
    }

    #[test]
    fn a_schedule_says_how_often_it_comes() {
        let check = |schedule: &str, per_day: f64| {
            let schedule = Schedule::parse(schedule).expect("a schedule");
            let load = per_second(&schedule, &Zone::UTC, 1.0).per_second * 86_400.0;
            assert!((load / per_day - 1.0).abs() < 0.05, "{load}");
        };
        check("* * * * *", 1440.0);
        check("0 6 * * *", 1.0);
        check("* 9 * * *", 60.0);
        check("0 0 1 1 *", 1.0 / 366.0);
        // For the first time in 1972.
        check("0 0 29 2 *", 1.0 / 789.0);
    }
}
