//! What came for an expectation, and whether that is what was expected.
//!
//! Messages are looked at as they come and not kept, so that a test may last for years; only the latest ones are, to be shown.

use std::collections::VecDeque;
use std::time::Duration;

use super::compare::{Difference, Limit, beyond, differences};
use super::test::{Count, Expectation, Expected, Messages, Wanted, When};
use crate::flow::options::Span;
use crate::message::Value;

/// What is shown of what came before a failure, and after it.
const SHOWN_BEFORE: usize = 4;
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

/// What has come in the stretch.
#[derive(Debug, Default)]
struct Tally {
    /// Of what is looked for.
    count: u64,
    /// All, whether they are looked for or not.
    all: u64,
    /// The one that is nearest to what is looked for.
    nearest: Option<(Item, Vec<Difference>)>,
    /// The first that is looked for.
    first: Option<Item>,
    /// The first beyond its limits, or in the wrong place of a list, and what had come before it.
    offender: Option<(Item, Vec<Difference>, Vec<Item>)>,
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

type Verdict = Option<(String, Vec<Difference>)>;

impl Wanted {
    /// In what an item is not what is looked for; of a pin that has a level, also in its limits.
    fn differences(&self, item: &Item, with_limits: bool) -> Vec<Difference> {
        let mut found = Vec::new();
        if let Some(topic) = self.topic.as_ref().filter(|topic| **topic != item.topic) {
            found.push(Difference {
                path: "topic".into(),
                expected: topic.clone(),
                found: item.topic.clone(),
            });
        }
        if let Some(payload) = &self.payload {
            found.extend(differences(payload, &item.payload, self.within));
        }
        if let Some(text) = self
            .text
            .as_ref()
            .filter(|text| !has_text(&item.payload, text))
        {
            found.push(Difference {
                path: String::new(),
                expected: format!("something with `{text}` in it"),
                found: item.payload.to_json(),
            });
        }
        if with_limits {
            found.extend(self.beyond(&item.payload));
        }
        found
    }

    fn beyond(&self, payload: &Value) -> Vec<Difference> {
        let min = self
            .min
            .iter()
            .flat_map(|min| beyond(min, payload, Limit::Min));
        let max = self
            .max
            .iter()
            .flat_map(|max| beyond(max, payload, Limit::Max));
        min.chain(max).collect()
    }
}

fn has_text(payload: &Value, text: &str) -> bool {
    match payload {
        Value::Text(payload) => payload.contains(text),
        other => other.to_json().contains(text),
    }
}

impl Tally {
    fn message(&mut self, wanted: &Wanted, item: &Item, track: &Track) {
        self.all += 1;
        let differences = wanted.differences(item, false);
        if !differences.is_empty() {
            let is_nearer = self
                .nearest
                .as_ref()
                .is_none_or(|(_, nearest)| differences.len() < nearest.len());
            if is_nearer {
                self.nearest = Some((item.clone(), differences));
            }
            return;
        }
        if let Some(expected) = &wanted.payloads {
            let place = usize::try_from(self.count).unwrap_or(usize::MAX);
            let differences = match expected.get(place) {
                Some(expected) => {
                    super::compare::differences(expected, &item.payload, wanted.within)
                }
                None => vec![Difference {
                    path: String::new(),
                    expected: "nothing more".into(),
                    found: item.payload.to_json(),
                }],
            };
            if !differences.is_empty() {
                self.offend(item, differences, track);
            }
        }
        self.count += 1;
        self.first.get_or_insert_with(|| item.clone());
        let beyond = wanted.beyond(&item.payload);
        if !beyond.is_empty() {
            self.offend(item, beyond, track);
        }
    }

    fn offend(&mut self, item: &Item, differences: Vec<Difference>, track: &Track) {
        if self.offender.is_none() {
            let before = track.latest.iter().cloned().collect();
            self.offender = Some((item.clone(), differences, before));
        }
    }

    fn judge_messages(
        &self,
        subject: &str,
        of: Messages,
        wanted: &Wanted,
        (from, to): (Duration, Duration),
    ) -> Verdict {
        let verb = of.verb();
        let stretch = stretch_in_words(from, to);
        if let Some((item, differences, _)) = &self.offender {
            let at = words(item.at);
            let headline = match wanted.payloads {
                Some(_) => format!("`{subject}` {verb} another payload than expected at {at}"),
                None => format!("`{subject}` {verb} a payload beyond its limits at {at}"),
            };
            return Some((headline, differences.clone()));
        }
        if let Some(payloads) = &wanted.payloads {
            let missing = payloads.get(usize::try_from(self.count).ok()?)?;
            let headline = format!(
                "`{subject}` {verb} {} of {} payloads {stretch}",
                self.count,
                payloads.len()
            );
            let difference = Difference {
                path: String::new(),
                expected: format!("{missing} next"),
                found: "nothing".into(),
            };
            return Some((headline, vec![difference]));
        }
        let count = wanted.count.unwrap_or(Count {
            at_least: 1,
            at_most: None,
        });
        if count.holds(self.count) {
            return None;
        }
        let is_one_of = wanted.payload.is_some() || wanted.topic.is_some() || wanted.text.is_some();
        if self.count == 0 && wanted.count.is_none() {
            return Some(match &self.nearest {
                Some((_, differences)) => {
                    let headline = format!("`{subject}` {verb} something else {stretch}");
                    (headline, differences.clone())
                }
                None => {
                    let headline = format!("`{subject}` {verb} nothing {stretch}");
                    (headline, wanted.as_missing())
                }
            });
        }
        let such = if is_one_of {
            "such messages"
        } else {
            "messages"
        };
        let one_such = if is_one_of { "such message" } else { "message" };
        let headline = match self.count {
            0 => format!("`{subject}` {verb} no {one_such} {stretch}"),
            1 => format!("`{subject}` {verb} 1 {one_such} {stretch}"),
            more => format!("`{subject}` {verb} {more} {such} {stretch}"),
        };
        let mut differences = vec![Difference {
            path: "count".into(),
            expected: count.to_string(),
            found: self.count.to_string(),
        }];
        if let (Some(first), Some(0)) = (&self.first, count.at_most) {
            differences.push(Difference {
                path: format!("at {}", words(first.at)),
                expected: "nothing".into(),
                found: first.payload.to_json(),
            });
        }
        Some((headline, differences))
    }

    fn judge_output(
        &self,
        subject: &str,
        wanted: &Wanted,
        (from, to): (Duration, Duration),
    ) -> Verdict {
        if let Some((item, differences, _)) = &self.offender {
            let at = words(item.at);
            let headline = format!("`{subject}` was driven with {} at {at}", item.payload);
            return Some((headline, differences.clone()));
        }
        let count = wanted.count?;
        if count.holds(self.count) {
            return None;
        }
        let stretch = stretch_in_words(from, to);
        let difference = Difference {
            path: "changes".into(),
            expected: count.to_string(),
            found: self.count.to_string(),
        };
        let headline = format!("`{subject}` changed {} times {stretch}", self.count);
        Some((headline, vec![difference]))
    }

    fn judge_failures(&self, count: Count, text: Option<&str>, place: &str) -> Verdict {
        if count.holds(self.count) {
            return None;
        }
        let of = text
            .map(|text| format!(" with `{text}`"))
            .unwrap_or_default();
        let headline = match self.count {
            0 => format!("there were no failures{of} {place}"),
            1 => format!("there was 1 failure{of} {place}"),
            more => format!("there were {more} failures{of} {place}"),
        };
        let difference = Difference {
            path: "failures".into(),
            expected: count.to_string(),
            found: self.count.to_string(),
        };
        Some((headline, vec![difference]))
    }
}

impl Wanted {
    /// What is expected, when there is nothing to compare it with.
    fn as_missing(&self) -> Vec<Difference> {
        let mut missing = Vec::new();
        let mut add = |path: &str, expected: String| {
            missing.push(Difference {
                path: path.into(),
                expected,
                found: "nothing".into(),
            });
        };
        if let Some(topic) = &self.topic {
            add("topic", topic.clone());
        }
        if let Some(payload) = &self.payload {
            add("", payload.to_json());
        }
        if let Some(text) = &self.text {
            add("", format!("something with `{text}` in it"));
        }
        if missing.is_empty() {
            missing.push(Difference {
                path: String::new(),
                expected: "a message".into(),
                found: "nothing".into(),
            });
        }
        missing
    }
}

fn judge_ledger(
    key: &str,
    (min, max): (Option<u64>, Option<u64>),
    found: u64,
    at: Duration,
) -> Verdict {
    if min.is_none_or(|min| found >= min) && max.is_none_or(|max| found <= max) {
        return None;
    }
    let expected = match (min, max) {
        (Some(min), Some(max)) if min == max => min.to_string(),
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    };
    let headline = format!("`{key}` of the outbox was {found} at {}", words(at));
    let difference = Difference {
        path: key.into(),
        expected,
        found: found.to_string(),
    };
    Some((headline, vec![difference]))
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
