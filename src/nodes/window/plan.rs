//! What a node's windows keep, and what their results are made of.

use serde::{Deserialize, Serialize};

use super::compute::{Entry, Statistic};
use super::fold::Fold;
use super::tally::{Tallies, Tally};
use super::trackers::Tracker;
use crate::message::{Text, Timestamp, Value};
use crate::runtime::state::StateError;

/// What `compute` asks for, and what has to be kept for that: no more.
pub(super) struct Plan {
    /// Each with its name in the result.
    results: Vec<(Text, Statistic)>,
    trackers: Vec<Tracker>,
    tallies: Vec<Tally>,
    start_name: Text,
    end_name: Text,
    key_name: Text,
    state_name: Text,
    restored_name: Text,
    window_name: Text,
    /// What the names of the node's windows begin with: `FLOW/NODE@`.
    prefix: String,
}

/// What a window has kept of its readings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Gathered {
    pub(super) fold: Fold,
    pub(super) tallies: Tallies,
}

impl Gathered {
    #[inline]
    pub(super) fn add(&mut self, time: Timestamp, value: f64) {
        self.fold.add(time, value);
        self.tallies.add(value);
    }
}

/// What a result says of its window.
pub(super) struct Stretch<'a> {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) key: Option<&'a Text>,
    pub(super) state: Option<Value>,
    /// If it went through a restart: how many windows of its key began at the same time, before it.
    pub(super) restored: Option<u32>,
}

impl Plan {
    /// For the node `name` (`FLOW/NODE`). Percentiles are exact however many readings there are, where `is_exact` says so.
    pub(super) fn new(compute: &[Entry], is_exact: bool, name: &str) -> Plan {
        let mut trackers: Vec<Tracker> = Vec::new();
        let mut tallies: Vec<Tally> = Vec::new();
        for Entry { statistic, .. } in compute {
            let is_kept = trackers
                .iter()
                .any(|tracker| tracker.read(statistic, Timestamp::default()).is_some())
                || tallies.iter().any(|tally| tally.read(statistic).is_some());
            if !is_kept {
                trackers.extend(Tracker::of(statistic));
                tallies.extend(Tally::of(statistic, is_exact));
            }
        }
        let results = compute
            .iter()
            .map(|entry| (entry.name.as_str().into(), entry.statistic.clone()))
            .collect();
        Plan {
            results,
            trackers,
            tallies,
            start_name: "start".into(),
            end_name: "end".into(),
            key_name: "key".into(),
            state_name: "state".into(),
            restored_name: "restored".into(),
            window_name: "window".into(),
            prefix: format!("{name}@"),
        }
    }

    /// Whether readings must come in the order of their time.
    pub(super) fn needs_order(&self) -> bool {
        self.trackers.iter().any(Tracker::needs_order)
    }

    /// Of no readings yet.
    pub(super) fn fold(&self) -> Fold {
        Fold::new(&self.trackers)
    }

    pub(super) fn tallies(&self) -> Tallies {
        Tallies::new(&self.tallies)
    }

    pub(super) fn gathered(&self) -> Gathered {
        Gathered {
            fold: self.fold(),
            tallies: self.tallies(),
        }
    }

    /// After this has been read: takes what is not written from the plan.
    pub(super) fn complete(&self, gathered: &mut Gathered) -> Result<(), StateError> {
        let is_planned =
            gathered.fold.complete(&self.trackers) && gathered.tallies.complete(&self.tallies);
        is_planned.then_some(()).ok_or_else(|| {
            StateError::unfit("a window has other statistics than the node computes")
        })
    }

    /// The name of a window, for ever: `FLOW/NODE@START`; `~2` if it is the second that began at that time; `[KEY]`.
    fn name(&self, stretch: &Stretch<'_>, before: u32) -> Value {
        let mut name = format!("{}{}", self.prefix, stretch.start);
        if before > 0 {
            name += &format!("~{}", u64::from(before) + 1);
        }
        if let Some(key) = stretch.key {
            name += &format!("[{key}]");
        }
        Value::from(&*name)
    }

    /// The payload of a result.
    pub(super) fn payload(&self, fold: &Fold, tallies: &Tallies, stretch: Stretch<'_>) -> Value {
        let statistics = self.results.iter().map(|(name, statistic)| {
            let value = fold.read(statistic, stretch.end);
            let value = value.or_else(|| tallies.read(statistic));
            (name.clone(), value.unwrap_or_default())
        });
        let text = |time: Timestamp| Value::Text(time.to_string().into());
        let bounds = [
            (self.start_name.clone(), text(stretch.start)),
            (self.end_name.clone(), text(stretch.end)),
        ];
        let restored = stretch.restored.map(|before| {
            [
                (self.restored_name.clone(), Value::Bool(true)),
                (self.window_name.clone(), self.name(&stretch, before)),
            ]
        });
        let key = stretch
            .key
            .map(|key| (self.key_name.clone(), Value::Text(key.clone())));
        let state = stretch.state.map(|state| (self.state_name.clone(), state));
        let fields = statistics.chain(bounds).chain(key).chain(state);
        Value::object(fields.chain(restored.into_iter().flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_kept_and_only_once() {
        let check = |statistics: &[Statistic], trackers: usize, tallies: usize| {
            let entries: Vec<Entry> = statistics
                .iter()
                .map(|statistic| Entry {
                    name: format!("{statistic:?}"),
                    statistic: statistic.clone(),
                })
                .collect();
            let plan = Plan::new(&entries, false, "flow/node");
            let kept = (plan.trackers.len(), plan.tallies.len());
            assert_eq!(kept, (trackers, tallies), "{statistics:?}");
        };
        check(
            &[
                Statistic::Count,
                Statistic::Sum,
                Statistic::Mean,
                Statistic::Range,
            ],
            0,
            0,
        );
        check(&[Statistic::First, Statistic::Last], 1, 0);
        check(&[Statistic::Stddev, Statistic::Variance], 1, 0);
        check(
            &[Statistic::Percentile(1.0), Statistic::Percentile(99.0)],
            0,
            1,
        );
        check(
            &[Statistic::DurationAbove(1.0), Statistic::DurationAbove(2.0)],
            2,
            0,
        );
        check(
            &[Statistic::DurationAbove(1.0), Statistic::DurationBelow(1.0)],
            2,
            0,
        );
        check(
            &[
                Statistic::Histogram(vec![1.0]),
                Statistic::Histogram(vec![2.0]),
            ],
            0,
            2,
        );
        check(&[Statistic::Slope, Statistic::Distinct], 1, 1);
    }
}
