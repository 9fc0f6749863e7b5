//! What statistics need beyond count, sum, least and greatest: of constant size, computed as readings come.
//!
//! Each takes readings one at a time, and can take in one of later readings. Their tests are those of [`Fold`].
//!
//! [`Fold`]: super::fold::Fold

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compute::Statistic;
use super::fold::number;
use crate::message::{Timestamp, Value};

/// What a statistic needs beyond count, sum, least and greatest. Several statistics may share one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Tracker {
    Ends(Ends),
    Spread(Spread),
    Trend(Trend),
    Steps(Steps),
}

impl Tracker {
    /// One that has seen nothing; none if the statistic needs no tracker.
    pub(super) fn of(statistic: &Statistic) -> Option<Tracker> {
        Some(match statistic {
            Statistic::First | Statistic::Last => Tracker::Ends(Ends::default()),
            Statistic::Stddev | Statistic::Variance => Tracker::Spread(Spread::default()),
            Statistic::Slope => Tracker::Trend(Trend::default()),
            Statistic::TimeWeightedMean => Tracker::Steps(Steps::of(Measure::Mean)),
            Statistic::DurationAbove(limit) => Tracker::Steps(Steps::of(Measure::Above(*limit))),
            Statistic::DurationBelow(limit) => Tracker::Steps(Steps::of(Measure::Below(*limit))),
            _ => return None,
        })
    }

    /// After this has been read: takes what is not written from one of the same plan. Says whether it is the same statistic's.
    pub(super) fn complete(&mut self, planned: &Tracker) -> bool {
        match (self, planned) {
            (Tracker::Steps(steps), Tracker::Steps(planned)) => {
                steps.measure = planned.measure;
                true
            }
            (tracker, planned) => {
                std::mem::discriminant(tracker) == std::mem::discriminant(planned)
            }
        }
    }

    /// Whether readings must come in the order of their time.
    pub(super) fn needs_order(&self) -> bool {
        matches!(self, Tracker::Steps(_))
    }

    pub(super) fn add(&mut self, time: Timestamp, value: f64) {
        match self {
            Tracker::Ends(ends) => ends.add(time, value),
            Tracker::Spread(spread) => spread.add(value),
            Tracker::Trend(trend) => trend.add(time, value),
            Tracker::Steps(steps) => steps.add(time, value),
        }
    }

    pub(super) fn merge(&mut self, later: &Tracker) {
        match (self, later) {
            (Tracker::Ends(ends), Tracker::Ends(later)) => ends.merge(later),
            (Tracker::Spread(spread), Tracker::Spread(later)) => spread.merge(later),
            (Tracker::Trend(trend), Tracker::Trend(later)) => trend.merge(later),
            (Tracker::Steps(steps), Tracker::Steps(later)) => steps.merge(later),
            _ => debug_assert!(false, "the folds of one window node have the same trackers"),
        }
    }

    /// The statistic, if it is this tracker's.
    pub(super) fn read(&self, statistic: &Statistic, end: Timestamp) -> Option<Value> {
        Some(match (self, statistic) {
            (Tracker::Ends(ends), Statistic::First) => ends.value(0),
            (Tracker::Ends(ends), Statistic::Last) => ends.value(1),
            (Tracker::Spread(spread), Statistic::Variance) => number(spread.variance()),
            (Tracker::Spread(spread), Statistic::Stddev) => number(spread.variance().sqrt()),
            (Tracker::Trend(trend), Statistic::Slope) => number(trend.slope()),
            (Tracker::Steps(steps), statistic) if steps.measure.is(statistic) => steps.result(end),
            _ => return None,
        })
    }
}

/// The readings with the earliest and the latest time. Of several with the same time it is the first and the last to come.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ends(Option<[(Timestamp, f64); 2]>);

impl Ends {
    fn add(&mut self, time: Timestamp, value: f64) {
        self.merge(&Ends(Some([(time, value); 2])));
    }

    fn merge(&mut self, later: &Ends) {
        let Some([later_first, later_last]) = later.0 else {
            return;
        };
        let [first, last] = self.0.get_or_insert([later_first, later_last]);
        if later_first.0 < first.0 {
            *first = later_first;
        }
        if later_last.0 >= last.0 {
            *last = later_last;
        }
    }

    fn value(&self, place: usize) -> Value {
        self.0.map_or(Value::Null, |ends| number(ends[place].1))
    }
}

/// Welford's running variance (Technometrics 4, 1962).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Spread {
    count: f64,
    mean: f64,
    /// The sum of squared distances from the mean.
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let distance = value - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (value - self.mean);
    }

    /// Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances (1979).
    fn merge(&mut self, later: &Spread) {
        let count = self.count + later.count;
        if later.count == 0.0 {
            return;
        }
        let distance = later.mean - self.mean;
        let share = later.count / count;
        self.squares += later.squares + distance * distance * self.count * share;
        self.mean += distance * share;
        self.count = count;
    }

    /// NaN, and so no number, for one reading.
    fn variance(&self) -> f64 {
        if self.count < 2.0 {
            return f64::NAN;
        }
        self.squares / (self.count - 1.0)
    }
}

/// The least-squares line of the values against time, with both taken from their running means.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Trend {
    count: f64,
    /// The time of the first reading to come. Times are seconds from here, which keeps their digits.
    origin: Timestamp,
    mean_time: f64,
    mean: f64,
    /// The sum of squared distances of the times from their mean.
    squares: f64,
    /// The sum of products of the distances of times and values from their means.
    products: f64,
}

impl Trend {
    fn add(&mut self, time: Timestamp, value: f64) {
        self.merge(&Trend {
            count: 1.0,
            origin: time,
            mean: value,
            ..Trend::default()
        });
    }

    /// As with [`Spread::merge`].
    fn merge(&mut self, later: &Trend) {
        if self.count == 0.0 {
            *self = *later;
            return;
        }
        if later.count == 0.0 {
            return;
        }
        let count = self.count + later.count;
        let share = later.count / count;
        let apart = seconds_between(self.origin, later.origin) + later.mean_time - self.mean_time;
        let distance = later.mean - self.mean;
        let weight = self.count * share;
        self.squares += later.squares + apart * apart * weight;
        self.products += later.products + apart * distance * weight;
        self.mean_time += apart * share;
        self.mean += distance * share;
        self.count = count;
    }

    /// Per second; NaN, and so no number, if all readings have the same time.
    fn slope(&self) -> f64 {
        self.products / self.squares
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    (i128::from(to.as_nanos()) - i128::from(from.as_nanos())) as f64 / 1e9
}

/// What a signal does that keeps each value until the next one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Steps {
    /// Not written.
    #[serde(skip)]
    measure: Measure,
    /// Where the first value begins, and the last value with its time.
    held: Option<(Timestamp, Timestamp, f64)>,
    /// How long values were held, or how long they lay beyond the limit.
    total: Duration,
    /// Of the values, each as heavy as it was long.
    mean: f64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Measure {
    #[default]
    Mean,
    Above(f64),
    Below(f64),
}

impl Measure {
    fn is(self, statistic: &Statistic) -> bool {
        match (self, statistic) {
            (Measure::Mean, Statistic::TimeWeightedMean) => true,
            (Measure::Above(limit), Statistic::DurationAbove(asked)) => limit == *asked,
            (Measure::Below(limit), Statistic::DurationBelow(asked)) => limit == *asked,
            _ => false,
        }
    }
}

impl Steps {
    fn of(measure: Measure) -> Steps {
        Steps {
            measure,
            held: None,
            total: Duration::ZERO,
            mean: 0.0,
        }
    }

    /// A value from `time` on, which is not earlier than that of the last one.
    pub(super) fn add(&mut self, time: Timestamp, value: f64) {
        self.hold_until(time);
        let begin = self.held.map_or(time, |(begin, _, _)| begin);
        self.held = Some((begin, time, value));
    }

    fn merge(&mut self, later: &Steps) {
        let Some((later_begin, time, value)) = later.held else {
            return;
        };
        self.hold_until(later_begin);
        self.include(later.mean, later.total);
        let begin = self.held.map_or(later_begin, |(begin, _, _)| begin);
        self.held = Some((begin, time, value));
    }

    fn hold_until(&mut self, time: Timestamp) {
        let Some((_, since, value)) = self.held else {
            return;
        };
        let counts = match self.measure {
            Measure::Mean => true,
            Measure::Above(limit) => value > limit,
            Measure::Below(limit) => value < limit,
        };
        if counts {
            self.include(value, time.saturating_since(since));
        }
    }

    fn include(&mut self, mean: f64, time: Duration) {
        self.total = self.total.saturating_add(time);
        if !time.is_zero() {
            let share = time.as_secs_f64() / self.total.as_secs_f64();
            self.mean += (mean - self.mean) * share;
        }
    }

    /// A mean, or seconds. Where no time has passed the mean is the last value.
    fn result(mut self, end: Timestamp) -> Value {
        self.hold_until(end);
        match (self.measure, self.held) {
            (Measure::Mean, Some((_, _, value))) if self.total.is_zero() => number(value),
            (Measure::Mean, _) => number(self.mean),
            (Measure::Above(_) | Measure::Below(_), _) => number(self.total.as_secs_f64()),
        }
    }
}
