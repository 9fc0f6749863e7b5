//! What has come in a stretch of time, and whether that is what is expected.

use std::time::Duration;

use super::{Item, Track, stretch_in_words, words};
use crate::flow_test::compare::{self, Difference, Limit, beyond};
use crate::flow_test::test::{Count, Messages, Wanted};
use crate::message::Value;

/// What has come in the stretch.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of what is looked for.
    pub(super) count: u64,
    /// All, whether they are looked for or not.
    all: u64,
    /// The one that is nearest to what is looked for.
    nearest: Option<(Item, Vec<Difference>)>,
    /// The first that is looked for.
    first: Option<Item>,
    /// The first beyond its limits, or in the wrong place of a list, and what had come before it.
    pub(super) offender: Option<(Item, Vec<Difference>, Vec<Item>)>,
}

pub(super) type Verdict = Option<(String, Vec<Difference>)>;

impl Wanted {
    /// In what an item is not what is looked for; of a pin that has a level, also in its limits.
    pub(super) fn differences(&self, item: &Item, with_limits: bool) -> Vec<Difference> {
        let mut found = Vec::new();
        if let Some(topic) = self.topic.as_ref().filter(|topic| **topic != item.topic) {
            found.push(Difference {
                path: "topic".into(),
                expected: topic.clone(),
                found: item.topic.clone(),
            });
        }
        if let Some(payload) = &self.payload {
            found.extend(compare::differences(payload, &item.payload, self.within));
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
    pub(super) fn message(&mut self, wanted: &Wanted, item: &Item, track: &Track) {
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
                Some(expected) => compare::differences(expected, &item.payload, wanted.within),
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

    pub(super) fn offend(&mut self, item: &Item, differences: Vec<Difference>, track: &Track) {
        if self.offender.is_none() {
            let before = track.latest.iter().cloned().collect();
            self.offender = Some((item.clone(), differences, before));
        }
    }

    pub(super) fn judge_messages(
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

    pub(super) fn judge_output(
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

    pub(super) fn judge_failures(&self, count: Count, text: Option<&str>, place: &str) -> Verdict {
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

pub(super) fn judge_ledger(
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
