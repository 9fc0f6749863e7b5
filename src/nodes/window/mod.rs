//! `window`: statistics over stretches of time.
//!
//! Terms: *event time* is the message's own time; a window is *closed* when its result is sent; *lateness* is how long
//! messages that come late are waited for. `docs/decisions/0010-windows.md` says why windows are as they are.
//!
//! # Layout
//!
//! * here, [`checks`]: the options and what holds between them
//! * [`compute`]: what `compute` can name; [`fold`], [`trackers`], [`tally`]: how it is computed; [`plan`]: what of that a node
//!   needs
//! * [`intake`]: a message's number, key and state; [`keys`]: what is kept for each key; [`waiting`]: what came too early
//! * [`windows`]: the node; [`timeline`]: how time passes in it; [`aligned`], [`runs`], [`sliding`]: how windows of each kind lie
//! * [`packed`]: how numbers are kept at rest

mod aligned;
mod checks;
mod compute;
mod fold;
mod intake;
mod keys;
mod packed;
mod plan;
mod runs;
mod sliding;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;
mod trackers;
mod waiting;
mod windows;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use self::aligned::Aligned;
use self::compute::{Entry, Statistic};
use self::intake::Intake;
use self::plan::Plan;
use self::runs::{Runs, Until};
use self::sliding::Sliding;
use self::timeline::Settings;
use self::windows::Windows;
use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::estimate::Load;
use crate::flow::options::Span;
use crate::flow::script::Expression;
use crate::runtime::node::Node;

/// Computes statistics over windows of event time: minutes that follow each other, the last hour at each message, a run of
/// messages without a gap, and others.
///
/// The result has the window's end as its time, and the topic of the window's last message. Its payload is an object with
/// what `compute` names, `start` and `end` (RFC 3339), `key` if there is a `by`, and `state` if windows go by one. A stretch
/// without a message sends nothing.
///
/// How windows lie is their `kind`:
/// - `tumbling`: they follow each other and are `size` long, aligned to 1970 in UTC: a window of `1m` runs from full minute to
///   full minute. The start belongs to the window, the end to the next one.
/// - `hopping`: the same, but one begins every `hop`, so that they overlap.
/// - `sliding`: at each message a result over the last `size`: what is exactly `size` old is no longer part of it.
/// - `session`: as long as messages come. It ends `gap` after its last message; one at that moment begins the next.
/// - `count`: `count` messages, from the first to the last.
/// - `state`: as long as the value of the expression `state` stays the same; it ends with the first message of another state.
///
/// Lateness: tumbling and hopping windows wait with their result, and take messages in any order until then. The other
/// kinds, and all kinds with a time-weighted statistic, take messages in the order of their time: a message waits `lateness`
/// for earlier ones (at most 10,000 wait), and fails if it is earlier than one already taken of its key. What comes after
/// its window was closed fails, and so does what is from the future.
///
/// With `by`, each key has windows of its own; results come in the order of their ends, then of keys as they first came. A
/// key without an open window gives up its place when a new key needs it; a new key fails if there is none.
///
/// Statistics:
/// - `count`, `sum`, `mean`, `min`, `max`, `range` (`max` less `min`), and `first`, `last`: by time.
/// - `stddev`, `variance`: of the sample (divided by n - 1), `null` for one message.
/// - `slope`: of the least-squares line, per second; `null` if all messages have the same time.
/// - `p1` to `p99`, `p99.9` and the like, `median`: the value at rank p/100 (n - 1), rounded down, with ranks from 0. It is exact in
///   sliding windows and up to 1,000 messages; beyond that within 1 %, for numbers up to 10^17 times nearer to zero than the
///   largest.
/// - `time_weighted_mean`; `duration_above(25)`, `duration_below(3)` (seconds): each value holds until the next one, the last until
///   the window ends. In tumbling, hopping and sliding windows the last value from before the window holds from its
///   start; without one, time begins with the first message.
/// - `histogram(0, 10, 20)`: a list of counts: below 0, from 0 to below 10, from 10 to below 20, from 20 on.
/// - `distinct`: how many different values; 10,000 in a window, a message with one more fails. If `compute` names nothing but
///   `count` and `distinct`, values need not be numbers.
///
/// A statistic that leaves the range of 64-bit floats, such as a sum of huge numbers, is `null`.
///
/// Over a restart windows stay open, with all that is in them, and messages that wait go on waiting. What was closed stays closed.
/// A result says `restored = true`, and in `window` the name of its window, if the window was open at the last checkpoint: what
/// came between that and a power cut is missing in it, and it may have been sent before. The name is the same both times:
/// `FLOW/NODE@START`; `~2` if it is the second of its key that began at that time; `[KEY]` if there is a `by`. Sliding windows say so until
/// what was restored has left. Windows that would have ended while the device was off close at the start.
///
/// If the clock is more than a minute behind the time up to which windows were closed, it is a Pi whose clock is not set yet: all that
/// was open is closed at once, as restored (where `kind` gives no fixed end, with what time it was as its end), values from
/// before are forgotten, and nothing is too late. Windows that begin earlier than what was open then say `restored = true`, for they
/// may have been sent before.
///
/// Memory: for each key some 250 bytes, its text, and its open windows (tumbling and hopping ones: room for at least four);
/// for each of those some 110 bytes, and 80 for each of `first`/`last`, `stddev`/`variance`, `slope` and each time-weighted
/// statistic. Percentiles take 8 bytes a message up to 1,000, then at most 33 KB; `distinct` 20 to 40 bytes a value; a
/// histogram 8 bytes a count. Sliding windows take 16 to 32 bytes a message, and 8 to 16 more with percentiles. At most
/// 200,000 windows are open, and 1,000,000 messages in sliding windows, for all keys; a message that needs more fails.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Window {
    /// How the windows lie: `tumbling`, `hopping`, `sliding`, `session`, `count` or `state`. Default: `tumbling`.
    #[serde(default)]
    kind: Kind,
    /// How long a tumbling, hopping or sliding window is, from `1ms` to `366d`.
    size: Option<Span>,
    /// How long after one hopping window the next begins, from `1ms` to `size`; at most 2,000 windows overlap.
    hop: Option<Span>,
    /// How long no message must come for a session to end, from `1ms` to `longest`.
    gap: Option<Span>,
    /// How many messages a window of kind `count` has, from 1 to 1,000,000,000.
    count: Option<u64>,
    /// What must stay the same in a window of kind `state`, in JavaScript; it sees what `value` sees. It must give a number, text
    /// of at most 1,024 bytes, true or false, or null.
    state: Option<Expression>,
    /// How long a session, a state or a count window lasts at most, from `1ms` to `366d`. The next message begins a new one.
    /// Default: `24h`; for `count` no limit.
    longest: Option<Span>,
    /// How many messages of one key a sliding window has at most, from 1 to 100,000; further ones fail. Default: 10,000.
    most: Option<u32>,
    /// What tells messages of one window from those of another, in JavaScript, such as `topic` or `payload.room`: any value
    /// but null, as text of at most 1,024 bytes. Default: nothing, all messages share the windows.
    by: Option<Expression>,
    /// How many keys there may be with windows at once, from 1 to 100,000. Default: 1,000.
    most_keys: Option<u32>,
    /// What to compute it of, in JavaScript; it sees what the condition of `where` sees. Default: `payload`.
    value: Option<Expression>,
    /// What to compute: names like `count`, `p95` or `duration_above(25)`, which are also the names in the result. Default:
    /// `count`, `mean`, `min`, `max`.
    #[serde(default = "compute::default_entries")]
    compute: Vec<Entry>,
    /// How long messages that are late are waited for; in tumbling and hopping windows at most 1,000 times `size` or `hop`.
    /// Default: `200ms`, or `size` if that is less, for tumbling and hopping windows; `0s` for the others.
    lateness: Option<Span>,
    /// How far ahead of now a message's time may be; what is further ahead fails. Default: `60s`, or 1,000 times `size` or
    /// `hop` if that is less, which is the most for tumbling and hopping windows.
    future: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Tumbling,
    Hopping,
    Sliding,
    Session,
    Count,
    State,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Tumbling => "tumbling",
            Kind::Hopping => "hopping",
            Kind::Sliding => "sliding",
            Kind::Session => "session",
            Kind::Count => "count",
            Kind::State => "state",
        }
    }

    fn is_aligned(self) -> bool {
        matches!(self, Kind::Tumbling | Kind::Hopping)
    }
}

const DEFAULT_LATENESS: Duration = Duration::from_millis(200);
const DEFAULT_LONGEST: Duration = Duration::from_secs(86_400);
const DEFAULT_MOST: u32 = 10_000;
const DEFAULT_MOST_KEYS: u32 = 1_000;
/// How far ahead of now a message's time may be; a clock that is more wrong than this would open windows without end.
const DEFAULT_FUTURE: Duration = Duration::from_secs(60);

const SHORTEST: Duration = Duration::from_millis(1);
/// Windows of a key that may be open because messages are late, or that may be ahead.
const MOST_APART: u32 = 1_000;

impl Definition for Window {
    const NAME: &'static str = "window";
    const EXAMPLE: &'static str = r#"
[nodes.vibration]
type = "iio"
device = "adxl345"
channel = "accel_z"
every = "100ms"

[nodes.minute]
type = "window"
from = "vibration"
size = "1m"
compute = ["count", "mean", "max", "stddev", "p95"]

[nodes.show-minute]
type = "debug"
from = "minute"

[nodes.cold-store]
type = "ds18b20"
device = "28-0316a2795aff"
every = "10s"

[nodes.last-hour]
type = "window"
kind = "hopping"
from = "cold-store"
size = "1h"
hop = "5m"
compute = ["time_weighted_mean", "duration_above(5)", "slope"]

[nodes.show-hour]
type = "debug"
from = "last-hour"
"#;

    fn hint(option: &str) -> Option<&'static str> {
        Some(match option {
            "key" | "group_by" | "per" => "windows for each key: `by`, as in by = \"topic\"",
            "slide" | "step" | "advance" => {
                "for windows that overlap: kind = \"hopping\" with `size` and `hop`"
            }
            "every" | "length" => "how long a window is: `size`",
            "timeout" => "a session ends after its `gap`; `longest` limits how long a window lasts",
            "mode" => "how the windows lie: `kind`",
            _ => return None,
        })
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.misplaced();
        if problems.is_empty() {
            problems.extend(self.out_of_range());
        }
        problems.extend(self.uncomputable());
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        let mut warnings = Vec::new();
        if self.kind == Kind::Count && self.by.is_some() && self.longest.is_none() {
            let message =
                "a key that falls silent keeps its window open: set `longest`, so that it closes";
            warnings.push(Problem::new("count", message));
        }
        if self.kind == Kind::Hopping && self.size.is_some() && self.hop == self.size {
            let message =
                "is as long as `size`: that is what tumbling windows are, the default `kind`";
            warnings.push(Problem::new("hop", message));
        }
        warnings
    }

    fn load(&self, input: Load) -> Load {
        let bytes = self.bytes();
        let keys = match &self.by {
            Some(_) => f64::from(self.most_keys()),
            None => 1.0,
        };
        let one_each = |span: Duration| keys * Load::every(span, bytes).per_second;
        let per_second = match self.kind {
            Kind::Tumbling | Kind::Hopping => {
                let windows = (self.size().as_secs_f64() / self.hop().as_secs_f64()).ceil();
                (input.per_second * windows).min(one_each(self.hop()))
            }
            Kind::Sliding | Kind::State => input.per_second,
            Kind::Session => input.per_second.min(one_each(self.gap())),
            Kind::Count => {
                let complete = input.per_second / self.count.unwrap_or(1).max(1) as f64;
                let cut_short = self.longest().map_or(0.0, one_each);
                input.per_second.min(complete + cut_short)
            }
        };
        Load { per_second, bytes }
    }

    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let plan = Plan::new(&self.compute, self.kind == Kind::Sliding, &site.own_topic());
        let settings = Settings {
            lateness: self.lateness(),
            future: self.future(),
            most_keys: self.most_keys() as usize,
            is_ordered: plan.needs_order() || !self.kind.is_aligned(),
        };
        let intake = Intake::new(
            self.value.as_ref(),
            self.by.as_ref(),
            self.state.as_ref(),
            self.takes_any(),
            site,
        )?;
        let run = |until| Runs {
            until,
            longest: self.longest(),
        };
        Ok(match self.kind {
            Kind::Tumbling | Kind::Hopping => {
                let kind = Aligned::new(self.size(), self.hop(), settings.is_ordered);
                Box::new(Windows::new(kind, intake, plan, settings))
            }
            Kind::Sliding => {
                let most = self.most.unwrap_or(DEFAULT_MOST) as usize;
                let kind = Sliding::new(self.size(), most);
                Box::new(Windows::new(kind, intake, plan, settings))
            }
            Kind::Session => {
                let kind = run(Until::Gap(self.gap()));
                Box::new(Windows::new(kind, intake, plan, settings))
            }
            Kind::Count => {
                let kind = run(Until::Count(self.count.unwrap_or(1)));
                Box::new(Windows::new(kind, intake, plan, settings))
            }
            Kind::State => Box::new(Windows::new(run(Until::State), intake, plan, settings)),
        })
    }
}

/// What follows from several options.
impl Window {
    /// Whether values are only told apart, and need not be numbers.
    fn takes_any(&self) -> bool {
        let mut statistics = self.compute.iter().map(|entry| &entry.statistic);
        statistics.clone().any(|it| *it == Statistic::Distinct)
            && statistics.all(|it| matches!(it, Statistic::Distinct | Statistic::Count))
    }

    /// A typical result as JSON.
    fn bytes(&self) -> f64 {
        // `"start":"2026-01-01T00:00:00.000Z",` and the end.
        const BOUNDS: usize = 70;
        const KEY: usize = 30;
        let statistics = self.compute.iter().map(|entry| {
            let numbers = match &entry.statistic {
                Statistic::Histogram(edges) => edges.len() + 1,
                _ => 1,
            };
            entry.name.len() as f64 + 4.0 + numbers as f64 * Load::NUMBER_BYTES
        });
        let more = usize::from(self.by.is_some()) + usize::from(self.state.is_some());
        statistics.sum::<f64>() + (BOUNDS + more * KEY) as f64
    }
}

/// Options with their defaults. What the checker has seen to be there has a default here too, so that nothing can panic.
impl Window {
    fn size(&self) -> Duration {
        self.size.map_or(SHORTEST, |span| span.0)
    }

    fn hop(&self) -> Duration {
        self.hop.map_or(self.size(), |span| span.0)
    }

    fn gap(&self) -> Duration {
        self.gap.map_or(SHORTEST, |span| span.0)
    }

    fn longest(&self) -> Option<Duration> {
        let default = (self.kind != Kind::Count).then_some(DEFAULT_LONGEST);
        self.longest.map(|span| span.0).or(default)
    }

    fn most_keys(&self) -> u32 {
        self.most_keys.unwrap_or(DEFAULT_MOST_KEYS)
    }

    fn lateness(&self) -> Duration {
        let default = match self.kind.is_aligned() {
            true => DEFAULT_LATENESS.min(self.size()),
            false => Duration::ZERO,
        };
        self.lateness.map_or(default, |span| span.0)
    }

    fn future(&self) -> Duration {
        let default = match self.kind.is_aligned() {
            true => DEFAULT_FUTURE.min(self.hop().saturating_mul(MOST_APART)),
            false => DEFAULT_FUTURE,
        };
        self.future.map_or(default, |span| span.0)
    }
}
