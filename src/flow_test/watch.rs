//! What came for an expectation, and whether that is what was expected.
//!
//! Messages are looked at as they come and not kept, so that a test may last for years; only the latest ones are, to be shown. What has come in a stretch of
//! time, and whether it is right, is in [`tally`].

mod tally;

use std::collections::VecDeque;
use std::time::Duration;

use self::tally::{Tally, judge_ledger};
use super::compare::Difference;
use super::test::{Expectation, Expected, Messages, When};
use crate::flow::options::Span;
use crate::message::Value;

/// What is shown of what came before a failure, and after it.
const SHOWN_BEFORE: usize = 24;
const SHOWN_AFTER: usize = 2;

/// A message, or what a pin is driven with, at a test time.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub at: Duration,
    /// Empty for pins.
    pub topic: String,
    pub payload: Value,
}

/// What has come of one thing that is looked at.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) total: u64,
    pub(super) latest: VecDeque<Item>,
}

impl Track {
    pub(super) fn add(&mut self, item: Item) {
        self.total += 1;
        if self.latest.len() == SHOWN_BEFORE {
            self.latest.pop_front();
        }
        self.latest.push_back(item);
    }
}

/// An expectation that was not met.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) headline: String,
    pub(super) differences: Vec<Difference>,
    /// What came until then, the latest last.
    pub(super) before: Vec<Item>,
    pub(super) after: Vec<Item>,
    /// The stretch that was looked at.
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// One expectation of a running test.
pub(super) struct Watch<'t> {
    pub(super) expectation: &'t Expectation,
    when: When,
    number: u64,
    /// The stretch that is looked at, while there is one.
    stretch: Option<(Duration, Duration)>,
    tally: Tally,
    pub(super) miss: Option<Miss>,
}

impl<'t> Watch<'t> {
    pub(super) fn new(expectation: &'t Expectation, when: When) -> Watch<'t> {
        let mut watch = Watch {
            expectation,
            when,
            number: 0,
            stretch: None,
            tally: Tally::default(),
            miss: None,
        };
        watch.stretch = watch.stretch_of(0);
        watch
    }

    /// The times at which something has to be done about it: when it begins, and when it is judged.
    pub(super) fn due(&self) -> Option<(Duration, Duration)> {
        self.stretch.map(|(from, to)| {
            let from = if self.is_of_all_until_now() { to } else { from };
            (from, to)
        })
    }

    /// Of failures a moment means all until then.
    fn is_of_all_until_now(&self) -> bool {
        matches!(self.expectation.what, Expected::Failures { .. })
            && !matches!(self.when, When::Through { .. })
    }

    fn stretch_of(&self, number: u64) -> Option<(Duration, Duration)> {
        let time = self.when.repetition(number)?;
        Some(match self.when {
            When::Through { from, to } => (from, to),
            _ if self.is_of_all_until_now() => (Duration::ZERO, time),
            _ => (time, time),
        })
    }

    /// Looks at a message of what it is about.
    pub(super) fn message(&mut self, item: &Item, track: &Track) {
        if let Some(miss) = &mut self.miss {
            if miss.after.len() < SHOWN_AFTER {
                miss.after.push(item.clone());
            }
            return;
        }
        let Expected::Messages { wanted, .. } = &self.expectation.what else {
            return;
        };
        if self.contains(item.at) {
            self.tally.message(wanted, item, track);
        }
    }

    /// Looks at what a pin is driven with at the end of an instant; `is_change` if it was another before.
    pub(super) fn output(&mut self, item: &Item, is_change: bool, track: &Track) {
        if let Some(miss) = &mut self.miss {
            if is_change && miss.after.len() < SHOWN_AFTER {
                miss.after.push(item.clone());
            }
            return;
        }
        let Expected::Output { wanted, .. } = &self.expectation.what else {
            return;
        };
        if self.contains(item.at) {
            self.tally.count += u64::from(is_change);
            let differences = wanted.differences(item, true);
            if !differences.is_empty() {
                self.tally.offend(item, differences, track);
            }
        }
    }

    /// Looks at a failure.
    pub(super) fn failure(&mut self, at: Duration, reason: &str) {
        if let Expected::Failures { text, .. } = &self.expectation.what
            && self.contains(at)
            && text.as_ref().is_none_or(|text| reason.contains(&**text))
        {
            self.tally.count += 1;
        }
    }

    fn contains(&self, at: Duration) -> bool {
        self.stretch
            .is_some_and(|(from, to)| from <= at && at <= to)
    }

    /// All of the stretch is over: was it what is expected? Then the next one begins.
    pub(super) fn judge(&mut self, track: Option<&Track>, ledger: &dyn Fn(&str) -> u64) {
        let Some((from, to)) = self.stretch else {
            return;
        };
        let subject = &self.expectation.subject;
        let found = match &self.expectation.what {
            Expected::Messages { of, wanted } => {
                self.tally.judge_messages(subject, *of, wanted, (from, to))
            }
            Expected::Output { wanted, .. } => self.tally.judge_output(subject, wanted, (from, to)),
            Expected::Failures { count, text } => {
                let place = if self.is_of_all_until_now() {
                    format!("until {}", words(to))
                } else {
                    stretch_in_words(from, to)
                };
                self.tally.judge_failures(*count, text.as_deref(), &place)
            }
            Expected::Ledger { key, min, max } => judge_ledger(key, (*min, *max), ledger(key), to),
        };
        if let Some((headline, differences)) = found {
            let latest = || {
                track
                    .into_iter()
                    .flat_map(|track| track.latest.iter().cloned())
            };
            let offender = self.tally.offender.take();
            self.miss = Some(Miss {
                headline,
                differences,
                before: offender.map_or_else(|| latest().collect(), |(_, _, before)| before),
                after: Vec::new(),
                from,
                to,
            });
            self.stretch = None;
            return;
        }
        if !self.is_of_all_until_now() {
            self.tally = Tally::default();
        }
        self.number += 1;
        self.stretch = self.stretch_of(self.number);
    }

    /// Whether it would fit what is expected, had it come at another time.
    pub(super) fn would_fit(&self, item: &Item) -> bool {
        match &self.expectation.what {
            Expected::Messages { wanted, .. } => wanted.differences(item, false).is_empty(),
            _ => false,
        }
    }

    pub(super) fn messages(&self) -> Option<Messages> {
        match &self.expectation.what {
            Expected::Messages { of, .. } => Some(*of),
            _ => None,
        }
    }
}

/// A test time, as it would be written.
pub(super) fn words(time: Duration) -> String {
    Span(time).to_string()
}

pub(super) fn stretch_in_words(from: Duration, to: Duration) -> String {
    if from == to {
        format!("at {}", words(to))
    } else {
        format!("from {} to {}", words(from), words(to))
    }
}
