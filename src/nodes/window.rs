//! `window`: statistics over stretches of time.
//!
//! Terms: *event time* is the message's own time; a window is *closed* when its result is sent; *lateness* is how long
//! after its end a window stays open for messages that come late.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{BuildError, Definition, Problem, Surroundings};
use crate::flow::options::Span;
use crate::flow::script::{Compiled, Expression};
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Node};

/// Computes statistics over stretches of event time that follow each other (tumbling), aligned to 1970 in UTC: a window
/// of `1m` runs from full minute to full minute.
///
/// The result has the end of the window as its time. Its payload is an object with what `compute` names, and `start` and
/// `end` (RFC 3339); the start belongs to the window, the end to the next one. A stretch without a number sends nothing.
/// Memory: some 100 bytes for each open window.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Window {
    /// How the windows lie: `tumbling`. Default: `tumbling`.
    #[serde(default, rename = "kind")]
    _kind: Kind,
    /// How long a window is, from `1ms` to `366d`.
    size: Span,
    /// What to compute it of, in JavaScript; it sees what the condition of `where` sees. Default: `payload`.
    value: Option<Expression>,
    /// What to compute: `count`, `mean`, `min`, `max`. Default: all four.
    #[serde(default = "everything")]
    compute: Vec<Statistic>,
    /// How long after its end a window waits for messages that are late; at most 1,000 times `size`. Messages that are
    /// later fail. Default: `200ms`, or `size` if that is less.
    lateness: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Tumbling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Statistic {
    Count,
    Mean,
    Min,
    Max,
}

impl Statistic {
    fn name(self) -> &'static str {
        match self {
            Statistic::Count => "count",
            Statistic::Mean => "mean",
            Statistic::Min => "min",
            Statistic::Max => "max",
        }
    }
}

fn everything() -> Vec<Statistic> {
    vec![
        Statistic::Count,
        Statistic::Mean,
        Statistic::Min,
        Statistic::Max,
    ]
}

const DEFAULT_LATENESS: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// How far ahead of now a message's time may be; a clock that is more wrong than this would open windows without end.
const FUTURE: Duration = Duration::from_secs(60);

impl Definition for Window {
    const NAME: &'static str = "window";
    const EXAMPLE: &'static str = r#"
[nodes.vibration]
type = "iio"
device = "adxl345"
channel = "accel_z"
every = "10ms"

[nodes.seconds]
type = "window"
from = "vibration"
size = "1s"
compute = ["count", "mean", "max"]

[nodes.show]
type = "debug"
from = "seconds"
"#;

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.size.0 < Duration::from_millis(1) || self.size.0 > LONGEST {
            problems.push(Problem::new("size", "must be from 1ms to 366d"));
        }
        if self.compute.is_empty() {
            problems.push(Problem::new("compute", "must name something to compute"));
        }
        if let Some(twice) = self
            .compute
            .iter()
            .enumerate()
            .find(|(place, it)| self.compute[..*place].contains(it))
        {
            problems.push(Problem::new(
                "compute",
                format!("names `{}` twice", twice.1.name()),
            ));
        }
        if self
            .lateness
            .is_some_and(|lateness| lateness.0 > self.size.0.saturating_mul(1000))
        {
            problems.push(Problem::new(
                "lateness",
                "must be at most 1,000 times `size`",
            ));
        }
        problems
    }

    fn build(&self, surroundings: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        let lateness = self
            .lateness
            .map_or(DEFAULT_LATENESS.min(self.size.0), |span| span.0);
        let names = self
            .compute
            .iter()
            .map(|statistic| (*statistic, statistic.name().into()))
            .collect();
        Ok(Box::new(Tumbling {
            value: self
                .value
                .as_ref()
                .map(|value| surroundings.compile(value))
                .transpose()?,
            size: self.size.0,
            lateness,
            names,
            start_name: "start".into(),
            end_name: "end".into(),
            open: VecDeque::new(),
            closed_until: Timestamp::from_nanos(i64::MIN),
        }))
    }
}

struct Tumbling {
    value: Option<Compiled>,
    size: Duration,
    lateness: Duration,
    names: Vec<(Statistic, Text)>,
    start_name: Text,
    end_name: Text,
    /// In the order of time; one, or a few while late messages are waited for.
    open: VecDeque<Open>,
    /// Windows that begin before this have been answered.
    closed_until: Timestamp,
}

struct Open {
    start: Timestamp,
    end: Timestamp,
    /// The topic of its last message.
    topic: Text,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Node for Tumbling {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let computed;
        let value = match self.value.as_ref().map(|value| value.value(message)) {
            None => &message.payload,
            Some(Ok(value)) => {
                computed = value;
                &computed
            }
            Some(Err(error)) => return cx.fail(error.to_string()),
        };
        let Some(number) = cx.number_or_fail(value) else {
            return;
        };
        match self.open.back_mut() {
            Some(open) if open.start <= message.time && message.time < open.end => {
                open.add(number, &mut message.topic)
            }
            _ => self.add_elsewhere(number, message, cx),
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.close_due(cx);
    }
}

impl Tumbling {
    /// A message that does not belong to the newest window.
    fn add_elsewhere(&mut self, number: f64, message: &mut Message, cx: &mut Context<'_>) {
        let now = cx.now().wall;
        let start = message.time.floor(self.size);
        if message.time.saturating_since(now) > FUTURE.min(self.size.saturating_mul(1000)) {
            cx.fail(format!(
                "the message's time, {}, is in the future: it is {now} now",
                message.time
            ));
            return;
        }
        self.close_due(cx);
        let end = start.saturating_add(self.size);
        if start < self.closed_until || end.saturating_add(self.lateness) <= now {
            cx.fail(format!(
                "too late: the window from {start} was closed before this message of {} came",
                message.time
            ));
            return;
        }
        let place = self.open.partition_point(|open| open.start < start);
        if self.open.get(place).is_none_or(|open| open.start != start) {
            self.open.insert(place, Open::new(start, end));
        }
        self.open[place].add(number, &mut message.topic);
        self.ask_for_wake(cx);
    }

    fn close_due(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().wall;
        while let Some(open) = self
            .open
            .pop_front_if(|open| open.end.saturating_add(self.lateness) <= now)
        {
            self.closed_until = self.closed_until.max(open.end);
            cx.originate(open.topic.clone(), self.result(&open), open.end);
        }
        self.ask_for_wake(cx);
    }

    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        if let Some(open) = self.open.front() {
            cx.wake_at(cx.now().mono_at(open.end.saturating_add(self.lateness)));
        }
    }

    fn result(&self, open: &Open) -> Value {
        let statistics = self
            .names
            .iter()
            .map(|(statistic, name)| (name.clone(), open.compute(*statistic)));
        let bounds = [(&self.start_name, open.start), (&self.end_name, open.end)];
        let bounds = bounds
            .into_iter()
            .map(|(name, time)| (name.clone(), Value::Text(time.to_string().into())));
        Value::object(statistics.chain(bounds))
    }
}

impl Open {
    fn new(start: Timestamp, end: Timestamp) -> Open {
        Open {
            start,
            end,
            topic: "".into(),
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    #[inline]
    fn add(&mut self, number: f64, topic: &mut Text) {
        std::mem::swap(&mut self.topic, topic);
        self.count += 1;
        self.sum += number;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn compute(&self, statistic: Statistic) -> Value {
        Value::Number(match statistic {
            Statistic::Count => self.count as f64,
            Statistic::Mean => self.sum / self.count as f64,
            Statistic::Min => self.min,
            Statistic::Max => self.max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::testing::run_node_at;

    fn check(options: &str, messages: &[(i64, f64)], expected: &[&str]) {
        let messages = messages
            .iter()
            .map(|(ms, number)| (Timestamp::from_millis(*ms), (*number).into()));
        let sent = run_node_at(&format!("type = 'window'\n{options}"), messages);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_window_has_its_start_and_not_its_end() {
        check(
            "size = '1s'",
            &[(10_000, 1.0), (10_999, 3.0), (11_000, 5.0)],
            &[
                r#"{"count":2,"mean":2,"min":1,"max":3,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
                r#"{"count":1,"mean":5,"min":5,"max":5,"start":"1970-01-01T00:00:11.000Z","end":"1970-01-01T00:00:12.000Z"}"#,
            ],
        );
    }

    #[test]
    fn empty_windows_send_nothing_and_compute_chooses() {
        check(
            "size = '1s'\ncompute = ['max', 'count']",
            &[(10_000, 1.0), (20_000, 2.0)],
            &[
                r#"{"max":1,"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
                r#"{"max":2,"count":1,"start":"1970-01-01T00:00:20.000Z","end":"1970-01-01T00:00:21.000Z"}"#,
            ],
        );
    }

    #[test]
    fn a_value_is_computed_and_what_throws_fails() {
        check(
            "size = '1s'\ncompute = ['max']\nvalue = 'Math.abs(payload) * 2'",
            &[(10_000, -4.0), (10_100, 1.0)],
            &[r#"{"max":8,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#],
        );
        check(
            "size = '1s'\nvalue = 'payload.a.b'",
            &[(10_000, 1.0)],
            &["failed: JavaScript: cannot read property 'b' of undefined"],
        );
    }

    #[test]
    fn what_is_no_number_fails_and_leaves_the_window_alone() {
        check(
            "size = '1s'\ncompute = ['count']",
            &[(10_000, 1.0), (10_100, f64::NAN)],
            &[
                "failed: needs a finite number, but the payload is a number: NaN",
                r#"{"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
            ],
        );
    }

    /// Messages whose own time differs from the time at which they come.
    fn check_late(lateness: &str, arrivals: &[(i64, i64)], expected: &[&str]) {
        use crate::nodes::testing::Run;
        let mut run = Run::new(&format!(
            "type = 'window'\nsize = '1s'\ncompute = ['count']\nlateness = '{lateness}'"
        ));
        for (comes_at, time) in arrivals {
            run.go_on_until(Timestamp::from_millis(*comes_at));
            run.deliver(Timestamp::from_millis(*time), 1.0.into());
        }
        run.go_on_until(Timestamp::from_millis(100_000));
        let sent: Vec<String> = run
            .sent
            .iter()
            .map(|text| text.chars().take(60).collect())
            .collect();
        assert_eq!(sent, expected);
    }

    #[test]
    fn late_messages_are_waited_for_and_then_refused() {
        const TEN: &str = r#"{"count":2,"start":"1970-01-01T00:00:10.000Z","end":"1970-01"#;
        const ELEVEN: &str = r#"{"count":1,"start":"1970-01-01T00:00:11.000Z","end":"1970-01"#;
        check_late(
            "500ms",
            &[(10_500, 10_500), (11_400, 11_400), (11_499, 10_999)],
            &[TEN, ELEVEN],
        );
        const LATE: &str = "failed: too late: the window from 1970-01-01T00:00:10.000Z w";
        const ONE: &str = r#"{"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01"#;
        check_late(
            "500ms",
            &[(10_500, 10_500), (11_400, 11_400), (11_500, 10_999)],
            &[ONE, LATE, ELEVEN],
        );
    }

    #[test]
    fn a_reading_from_the_future_opens_no_window() {
        check_late(
            "0s",
            &[(10_000, 70_001)],
            &["failed: the message's time, 1970-01-01T00:01:10.001Z, is in "],
        );
        check_late(
            "0s",
            &[(10_000, 70_000)],
            &[r#"{"count":1,"start":"1970-01-01T00:01:10.000Z","end":"1970-01"#],
        );
    }
}
