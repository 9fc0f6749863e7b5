//! A test that is valid: every name in it leads somewhere, every time is in order.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::options::{EventTime, Formula};
use crate::board::{Level, Pin};
use crate::flow::Graph;
use crate::flow::diagnostic::Source;
use crate::message::{Object, Text, Timestamp, Value};
use crate::outbox;
use crate::outbox::virtual_time::DiskState;
use crate::replay::rows::RowOptions;
use crate::runtime::Address;

/// A test that can be run.
#[derive(Debug)]
pub struct Test {
    /// The flow that it is about.
    pub flow: String,
    pub name: String,
    pub description: Option<String>,
    /// The file that it stands in, and where its name does.
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) start: Timestamp,
    pub(super) device: String,
    /// The flow and those that run with it; what is fed rests.
    pub(super) flows: Vec<Arc<Graph>>,
    pub(super) checkpoint: Duration,
    pub(super) outbox: outbox::Settings,
    pub(super) steps: Vec<Step>,
    /// Whether a step says how many failures there must be.
    pub(super) speaks_of_failures: bool,
}

impl Test {
    /// Its name, with that of its flow.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.flow, self.name)
    }
}

/// One entry of the timeline.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) when: When,
    /// Where it stands.
    pub(super) span: Range<usize>,
    pub(super) actions: Vec<Action>,
    pub(super) expectations: Vec<Expectation>,
}

/// When a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Duration),
    /// Again and again.
    Each {
        from: Duration,
        to: Duration,
        every: Duration,
    },
    /// All the time.
    Through {
        from: Duration,
        to: Duration,
    },
}

impl When {
    pub(super) fn first(self) -> Duration {
        match self {
            When::At(at) => at,
            When::Each { from, .. } | When::Through { from, .. } => from,
        }
    }

    pub(super) fn last(self) -> Duration {
        match self {
            When::At(at) => at,
            When::Each { to, .. } | When::Through { to, .. } => to,
        }
    }

    /// The repetition of that number, from 0.
    pub(super) fn repetition(self, number: u64) -> Option<Duration> {
        match self {
            When::At(at) => (number == 0).then_some(at),
            When::Through { from, .. } => (number == 0).then_some(from),
            When::Each { from, to, every } => {
                let nanos = every.as_nanos().checked_mul(u128::from(number))?;
                let after = Duration::from_nanos(u64::try_from(nanos).ok()?);
                from.checked_add(after).filter(|time| *time <= to)
            }
        }
    }
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Action {
    Feed(Feed),
    Pin {
        pin: Pin,
        level: Level,
    },
    Uplink {
        is_up: bool,
    },
    Disk(DiskState),
    PowerCut(Duration),
    Restart(Duration),
    /// In nanoseconds.
    ClockStep(i64),
}

/// What a source sends.
#[derive(Debug)]
pub(super) struct Feed {
    /// Where it stands.
    pub(super) span: Range<usize>,
    pub(super) to: Address,
    pub(super) what: Fed,
}

#[derive(Debug)]
pub(super) enum Fed {
    Message {
        payload: FedPayload,
        /// None for the source's own.
        topic: Option<Text>,
        headers: Option<Arc<Object>>,
        time: Option<EventTime>,
    },
    /// A reading that fails.
    Failure(String),
    /// The rows of a file, the first one at the time of the step.
    File { path: PathBuf, options: RowOptions },
}

#[derive(Debug)]
pub(super) enum FedPayload {
    Plain(Value),
    Formula(Formula),
}

/// What must be so.
#[derive(Debug)]
pub(super) struct Expectation {
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// Of what: `report`, `the outbox`.
    pub(super) subject: String,
    pub(super) what: Expected,
}

#[derive(Debug)]
pub(super) enum Expected {
    /// Of the messages of a node.
    Messages { of: Messages, wanted: Wanted },
    /// Of what a pin is driven with: 0, 1, or the duty between them.
    Output { pin: Pin, wanted: Wanted },
    /// Of what nodes could not handle.
    Failures { count: Count, text: Option<String> },
    /// Of a number of the outbox.
    Ledger {
        key: String,
        min: Option<u64>,
        max: Option<u64>,
    },
}

/// Where messages are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Messages {
    /// What a node sends out of a port.
    Sent { from: Address, port: usize },
    /// What a `debug` node shows.
    Shown { by: Address },
    /// What of an `uplink` node arrives at the cloud.
    Arrived { of: Address },
}

impl Messages {
    /// What it does, to be read after the node's name.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Messages::Sent { .. } => "sent",
            Messages::Shown { .. } => "showed",
            Messages::Arrived { .. } => "delivered",
        }
    }
}

/// What is looked for, and how much of it there must be.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Of an object the fields that are named.
    pub(super) payload: Option<Value>,
    pub(super) within: f64,
    pub(super) topic: Option<String>,
    pub(super) text: Option<String>,
    /// Numbers that those which are looked for keep to.
    pub(super) min: Option<Value>,
    pub(super) max: Option<Value>,
    /// All that are looked for, in order.
    pub(super) payloads: Option<Vec<Value>>,
    pub(super) count: Option<Count>,
}

/// How many there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) at_least: u64,
    pub(super) at_most: Option<u64>,
}

impl Count {
    pub(super) fn exactly(count: u64) -> Count {
        Count {
            at_least: count,
            at_most: Some(count),
        }
    }

    pub(super) fn holds(self, count: u64) -> bool {
        count >= self.at_least && self.at_most.is_none_or(|most| count <= most)
    }
}

/// To be read before a noun in the plural.
impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Count {
                at_most: Some(0), ..
            } => f.write_str("no"),
            Count {
                at_least,
                at_most: Some(most),
            } if at_least == most => write!(f, "exactly {most}"),
            Count {
                at_least: 0,
                at_most: Some(most),
            } => write!(f, "at most {most}"),
            Count {
                at_least,
                at_most: Some(most),
            } => write!(f, "{at_least} to {most}"),
            Count { at_least, .. } => write!(f, "at least {at_least}"),
        }
    }
}
