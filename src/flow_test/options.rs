//! The keys of a test file: what there is to write, with its documentation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

use crate::config::Size;
use crate::flow::options::Span;
use crate::flow::script::Expression;
use crate::message::{Timestamp, Value};
use crate::outbox::WhenFull;
use crate::outbox::virtual_time::DiskState;

/// A test.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(
    dead_code,
    reason = "the tables in it are read one by one, so that mistakes have their places"
)]
pub(super) struct TestOptions {
    /// What it shows, for people.
    pub(super) description: Option<String>,
    /// What happens, and what must be so.
    pub(super) steps: Vec<Value>,
    /// The date and time at which it starts. Default: `2026-01-01T00:00:00Z`.
    #[serde(default)]
    pub(super) start: Start,
    /// Values for variables of the flow, in the place of its own.
    #[serde(default)]
    pub(super) vars: BTreeMap<String, Value>,
    /// Further flows of the same directory that run with it.
    #[serde(default)]
    pub(super) with: Vec<String>,
    /// The device's name, `{device}` in topics. Default: `device`.
    #[serde(default = "device")]
    pub(super) device: String,
    /// How often what flows remember is kept for a power cut, from `1s`. Default: `5m`.
    #[serde(default = "checkpoint")]
    pub(super) checkpoint: Span,
    /// How the outbox behaves: `commit`, `max_size`, `when_full`, as in tidegate.toml.
    #[serde(default)]
    pub(super) outbox: BTreeMap<String, Value>,
}

fn device() -> String {
    "device".into()
}

fn checkpoint() -> Span {
    Span(Duration::from_secs(300))
}

/// The outbox of a test.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct OutboxOptions {
    /// A power cut takes at most the records of this interval. Default: `1s`.
    pub(super) commit: Option<Span>,
    /// What it may take on disk, from `8MiB`. Default: `256MiB`.
    pub(super) max_size: Option<Size>,
    /// What goes when it is full: `drop-oldest` or `drop-newest`. Default: `drop-oldest`.
    pub(super) when_full: Option<WhenFull>,
}

/// A step.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(
    dead_code,
    reason = "the tables in it are read one by one, so that mistakes have their places"
)]
pub(super) struct StepOptions {
    /// When it is, counted from the start of the test.
    pub(super) at: Option<Span>,
    /// When it begins, if it lasts.
    pub(super) from: Option<Span>,
    /// When it ends; that moment is part of it.
    pub(super) to: Option<Span>,
    /// How often it is done from `from` to `to`.
    pub(super) every: Option<Span>,
    /// What sources send: `feed.NODE = ...`.
    pub(super) feed: Option<BTreeMap<String, Value>>,
    /// The level of input pins: `pin.22 = 1`.
    pub(super) pin: Option<BTreeMap<String, Value>>,
    /// The link to the cloud: `up` or `down`.
    pub(super) uplink: Option<LinkState>,
    /// The disk of the outbox: `ok`, `full` or `failing`.
    pub(super) disk: Option<DiskState>,
    /// The power goes, and comes back after this long.
    pub(super) power_cut: Option<Span>,
    /// Tidegate is stopped in order, and starts again after this long.
    pub(super) restart: Option<Span>,
    /// The clock of the device is set ahead by this much, or back with a `-`.
    pub(super) clock_step: Option<Shift>,
    /// What nodes send and pins do: `expect.NODE = ...`.
    pub(super) expect: Option<BTreeMap<String, Value>>,
    /// How many messages nodes could not handle until then, panics among them.
    pub(super) failures: Option<Value>,
    /// The numbers of the outbox: `outbox.stored = 0`.
    pub(super) outbox: Option<BTreeMap<String, Value>>,
}

/// What a source sends.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct FeedOptions {
    /// What it sends.
    pub(super) payload: Option<Value>,
    /// What it sends in JavaScript, of `t`, the seconds since the test's start, `n`, which counts the repetitions from 0, and `vars`.
    pub(super) value: Option<Formula>,
    /// The topic of the message. Default: that of the source.
    pub(super) topic: Option<String>,
    /// Its headers.
    pub(super) headers: Option<BTreeMap<String, Value>>,
    /// When what it says was so, if not now: `-10s`, or a date and time.
    pub(super) time: Option<EventTime>,
    /// A reading that fails, with this reason.
    pub(super) fails: Option<String>,
    /// A file of recorded messages, as `tidegate replay` reads it: CSV or JSON Lines; relative to the test file.
    pub(super) file: Option<PathBuf>,
    /// The file's column, or field, with the time. Default: `time`.
    pub(super) time_column: Option<String>,
    /// The file's column, or field, with the payload. Default: `payload`, or all others together.
    pub(super) payload_column: Option<String>,
    /// Where the times of the file were written down, if they have no offset from UTC.
    pub(super) time_zone: Option<String>,
}

/// What must be so.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct ExpectOptions {
    /// The payload; of an object, the fields that are named.
    pub(super) payload: Option<Value>,
    /// By how much numbers of `payload` may differ.
    pub(super) within: Option<f64>,
    /// The message's topic.
    pub(super) topic: Option<String>,
    /// Text that is in the payload.
    pub(super) text: Option<String>,
    /// What no payload is below: a number, or numbers by the name of their field.
    pub(super) min: Option<Value>,
    /// What no payload is above: a number, or numbers by the name of their field.
    pub(super) max: Option<Value>,
    /// All payloads, in their order.
    pub(super) payloads: Option<Vec<Value>>,
    /// How many there are.
    pub(super) count: Option<u64>,
    /// How many there are at least.
    pub(super) at_least: Option<u64>,
    /// How many there are at most.
    pub(super) at_most: Option<u64>,
    /// There is none.
    pub(super) none: Option<bool>,
}

/// How often something must have been.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct CountOptions {
    /// How many there are.
    pub(super) count: Option<u64>,
    /// How many there are at least.
    pub(super) at_least: Option<u64>,
    /// How many there are at most.
    pub(super) at_most: Option<u64>,
    /// Text that is in the reason.
    pub(super) text: Option<String>,
}

/// A number of the outbox.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct NumberOptions {
    /// It is not below.
    pub(super) min: Option<u64>,
    /// It is not above.
    pub(super) max: Option<u64>,
}

/// What to say to one who writes another word for a key.
pub(super) fn hint_of_expect(key: &str) -> Option<&'static str> {
    Some(match key {
        "value" | "equals" | "is" => "what is expected is `payload`",
        "between" => "`min` and `max` say between which values",
        "every" | "at" | "from" | "to" => {
            "times belong to the step: { at = \"1m\", expect.NODE = ... }"
        }
        _ => return None,
    })
}

/// What to say to one who writes another word for a key.
pub(super) fn hint_of_step(key: &str) -> Option<&'static str> {
    Some(match key {
        "clock" => "the clock is set with `clock_step = \"1h\"`",
        "inject" | "send" => "what a source sends is `feed.NODE = ...`",
        "pins" => "an input pin gets its level with `pin.22 = 1`",
        "until" => "a step lasts from `from` to `to`",
        _ => return None,
    })
}

/// Whether the link to the cloud is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LinkState {
    Up,
    Down,
}

/// When a test starts: a date of TOML, or the same as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start(pub(super) Timestamp);

impl Default for Start {
    /// 2026-01-01T00:00:00Z
    fn default() -> Start {
        Start(Timestamp::from_millis(1_767_225_600_000))
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Text(text) => time(&text).map(Start).map_err(D::Error::custom),
            other => Err(D::Error::custom(format!(
                "`{other}` is no date and time; {TIME_FORM}"
            ))),
        }
    }
}

const TIME_FORM: &str = "one is written like \"2026-06-01T12:00:00Z\"";

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no date and time; {TIME_FORM}"))
}

/// A length of time with a sign, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift(pub(super) i64);

impl Shift {
    fn parse(text: &str) -> Result<Shift, String> {
        let (sign, span) = match text.strip_prefix('-') {
            Some(span) => (-1, span),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let span = Span::parse(span)?;
        let nanos = i64::try_from(span.0.as_nanos());
        nanos
            .map(|nanos| Shift(sign * nanos))
            .map_err(|_| "a length of time must not be longer than 10,000 days".into())
    }
}

impl<'de> Deserialize<'de> for Shift {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shift, D::Error> {
        Shift::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// When what a message says was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventTime {
    /// Counted from the time at which it is fed.
    Relative(Shift),
    Absolute(Timestamp),
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EventTime, D::Error> {
        let Value::Text(text) = Value::deserialize(deserializer)? else {
            return Err(D::Error::custom("expected text, like \"-10s\""));
        };
        match Shift::parse(&text) {
            Ok(shift) => Ok(EventTime::Relative(shift)),
            Err(_) => time(&text).map(EventTime::Absolute).map_err(|_| {
                D::Error::custom(format!(
                    "`{text}` is neither a length of time from now, like \"-10s\", nor a date and time, like \
                     \"2026-06-01T12:00:00Z\""
                ))
            }),
        }
    }
}

/// JavaScript of `t` and `n`, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Formula {
    pub(super) text: String,
    /// The same as an expression of a message whose payload has `t` and `n`.
    pub(super) expression: Expression,
}

impl<'de> Deserialize<'de> for Formula {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Formula, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::Text(text) => text.to_string(),
            other => {
                return Err(D::Error::custom(format!(
                    "expected JavaScript as text, but found {}; a plain value is `payload`",
                    other.kind()
                )));
            }
        };
        // By itself first, so that it cannot end the function it is put into.
        Expression::parse(&text)
            .and_then(|_| {
                Expression::parse(&format!("((t, n) => (\n{text}\n))(payload.t, payload.n)"))
            })
            .map(|expression| Formula { text, expression })
            .map_err(D::Error::custom)
    }
}

/// Values that are written as text.
macro_rules! text_schema {
    ($($type:ident: $format:literal),*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    )*};
}

text_schema!(Start: "date-time", Shift: "duration", EventTime: "event-time", Formula: "javascript");

impl EventTime {
    /// The time that is meant by one that is fed now.
    pub(super) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            EventTime::Absolute(time) => time,
            EventTime::Relative(Shift(nanos)) => {
                Timestamp::from_nanos(now.as_nanos().saturating_add(nanos))
            }
        }
    }
}
