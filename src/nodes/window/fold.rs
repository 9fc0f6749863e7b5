//! Statistics of constant size, computed as readings come.
//!
//! A [`Fold`] takes readings one at a time, and can take in the fold of later ones. Nothing is ever subtracted from it, so
//! that what a huge reading has rounded away cannot stay missing after it has gone.
//!
//! Infinities and NaN come about where a result leaves the range of 64-bit floats; [`number`] makes them `null`.

use serde::{Deserialize, Serialize};

use super::compute::Statistic;
use super::trackers::Tracker;
use crate::message::{Timestamp, Value};

/// Count, sum, least and greatest, which cost next to nothing, and what further statistics need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fold {
    count: u64,
    sum: Sum,
    min: f64,
    max: f64,
    trackers: Box<[Tracker]>,
}

/// Without trackers.
impl Default for Fold {
    fn default() -> Fold {
        Fold::new(&[])
    }
}

impl Fold {
    pub(super) fn new(trackers: &[Tracker]) -> Fold {
        Fold {
            count: 0,
            sum: Sum::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            trackers: trackers.into(),
        }
    }

    /// After this has been read: takes what is not written from the trackers it was made with. Says whether they are those.
    pub(super) fn complete(&mut self, trackers: &[Tracker]) -> bool {
        let mut both = self.trackers.iter_mut().zip(trackers);
        both.all(|(tracker, planned)| tracker.complete(planned))
            && self.trackers.len() == trackers.len()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    pub(super) fn add(&mut self, time: Timestamp, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum.add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        for tracker in &mut self.trackers {
            tracker.add(time, value);
        }
    }

    /// Before the first reading: the value that holds from `start` until then.
    pub(super) fn hold(&mut self, start: Timestamp, value: f64) {
        for tracker in &mut self.trackers {
            if let Tracker::Steps(steps) = tracker {
                steps.add(start, value);
            }
        }
    }

    /// Takes in the fold of later readings, made with the same trackers.
    pub(super) fn merge(&mut self, later: &Fold) {
        self.count = self.count.saturating_add(later.count);
        self.sum.merge(later.sum);
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        for (tracker, later) in self.trackers.iter_mut().zip(&later.trackers) {
            tracker.merge(later);
        }
    }

    /// The statistic of a window that ends at `end`, if it is kept here. There must have been a reading.
    pub(super) fn read(&self, statistic: &Statistic, end: Timestamp) -> Option<Value> {
        let count = self.count as f64;
        Some(match statistic {
            Statistic::Count => number(count),
            Statistic::Sum => number(self.sum.value()),
            // Rounding must not take the mean of equal readings out of their range.
            Statistic::Mean => match self.sum.value() / count {
                mean if mean.is_finite() => number(mean.clamp(self.min, self.max)),
                _ => Value::Null,
            },
            Statistic::Min => number(self.min),
            Statistic::Max => number(self.max),
            Statistic::Range => number(self.max - self.min),
            _ => self
                .trackers
                .iter()
                .find_map(|tracker| tracker.read(statistic, end))?,
        })
    }
}

/// A number as a payload; `null` if it left the range of numbers.
pub(super) fn number(number: f64) -> Value {
    if number.is_finite() {
        Value::Number(number)
    } else {
        Value::Null
    }
}

/// A sum that carries what rounding cut off along, as Neumaier's does; here with Knuth's branchless two-sum (The Art of
/// Computer Programming 2, 4.2.2).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sum {
    rounded: f64,
    cut_off: f64,
}

impl Sum {
    #[inline]
    fn add(&mut self, value: f64) {
        let rounded = self.rounded + value;
        let added = rounded - self.rounded;
        self.cut_off += (self.rounded - (rounded - added)) + (value - added);
        self.rounded = rounded;
    }

    fn merge(&mut self, other: Sum) {
        self.add(other.rounded);
        self.cut_off += other.cut_off;
    }

    fn value(self) -> f64 {
        self.rounded + self.cut_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    /// The statistic of readings at (second, value), in a window that ends at `end`; whole, and merged from every two parts.
    fn check(statistic: Statistic, readings: &[(i64, f64)], end: i64, expected: Option<f64>) {
        let trackers: Vec<Tracker> = Tracker::of(&statistic).into_iter().collect();
        for cut in 0..=readings.len() {
            let mut parts = [Fold::new(&trackers), Fold::new(&trackers)];
            for (place, (second, value)) in readings.iter().enumerate() {
                parts[usize::from(place >= cut)].add(at(*second), *value);
            }
            let [mut whole, later] = parts;
            whole.merge(&later);
            let found = whole.read(&statistic, at(end)).expect("it is kept");
            let expected = expected.map_or(Value::Null, Value::Number);
            assert_eq!(
                found, expected,
                "{statistic:?} of {readings:?} cut at {cut}"
            );
        }
    }

    #[test]
    fn a_sum_keeps_what_rounding_cuts_off() {
        let check = |values: &[f64], expected| {
            let readings: Vec<(i64, f64)> = values.iter().map(|value| (0, *value)).collect();
            check(Statistic::Sum, &readings, 1, expected);
        };
        check(&[1.0, 1e100, 1.0, -1e100], Some(2.0));
        check(&[0.1; 10], Some(1.0));
        check(&[1e308, 1e308], None);
    }

    #[test]
    fn a_mean_lies_among_its_readings() {
        check(
            Statistic::Mean,
            &[(0, 0.1), (1, 0.1), (2, 0.1)],
            3,
            Some(0.1),
        );
        check(Statistic::Mean, &[(0, 1e308), (1, 1e308)], 3, None);
        check(Statistic::Mean, &[(0, -1.0), (1, 2.0)], 3, Some(0.5));
    }

    #[test]
    fn range_and_ends_go_by_value_and_time() {
        let readings = [(5, 1.0), (3, -2.0), (9, 4.0), (3, 7.0), (9, 5.0)];
        check(Statistic::Range, &readings, 10, Some(9.0));
        check(Statistic::First, &readings, 10, Some(-2.0));
        check(Statistic::Last, &readings, 10, Some(5.0));
        check(Statistic::Range, &[(0, f64::MAX), (1, -f64::MAX)], 2, None);
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        let readings = [(0, 2.0), (1, 4.0), (2, 6.0)];
        check(Statistic::Variance, &readings, 3, Some(4.0));
        check(Statistic::Stddev, &readings, 3, Some(2.0));
        check(Statistic::Stddev, &[(0, 2.0)], 3, None);
        check(
            Statistic::Stddev,
            &[(0, 0.1), (1, 0.1), (2, 0.1)],
            3,
            Some(0.0),
        );
        // The textbook formula with a sum of squares has no digit right here.
        let far = [
            (0, 1e9 + 4.0),
            (1, 1e9 + 7.0),
            (2, 1e9 + 13.0),
            (3, 1e9 + 16.0),
        ];
        check(Statistic::Variance, &far, 4, Some(30.0));
        check(Statistic::Stddev, &[(0, 1e308), (1, -1e308)], 3, None);
    }

    #[test]
    fn the_slope_is_per_second_also_long_after_1970() {
        const NOW: i64 = 1_800_000_000;
        let line = [(NOW, 3.0), (NOW + 1, 5.0), (NOW + 2, 7.0)];
        check(Statistic::Slope, &line, NOW + 3, Some(2.0));
        let backwards = [(NOW + 2, 7.0), (NOW + 1, 5.0), (NOW, 3.0)];
        check(Statistic::Slope, &backwards, NOW + 3, Some(2.0));
        check(Statistic::Slope, &[(NOW, 3.0)], NOW + 3, None);
        check(Statistic::Slope, &[(NOW, 3.0), (NOW, 4.0)], NOW + 3, None);
    }

    #[test]
    fn a_value_holds_until_the_next_and_the_last_one_until_the_end() {
        let readings = [(0, 10.0), (2, 30.0), (6, 20.0)];
        check(Statistic::TimeWeightedMean, &readings, 8, Some(22.5));
        check(Statistic::DurationAbove(20.0), &readings, 8, Some(4.0));
        check(Statistic::DurationBelow(20.0), &readings, 8, Some(2.0));
        check(Statistic::DurationBelow(20.5), &readings, 8, Some(4.0));
        check(Statistic::TimeWeightedMean, &[(3, 7.0)], 3, Some(7.0));
        check(Statistic::DurationAbove(1.0), &[(3, 7.0)], 3, Some(0.0));
    }

    #[test]
    fn what_was_held_before_counts_from_the_start() {
        let trackers = [Statistic::TimeWeightedMean, Statistic::DurationAbove(2.0)];
        let trackers = trackers.map(|it| Tracker::of(&it).expect("it needs one"));
        let mut fold = Fold::new(&trackers);
        fold.hold(at(10), 3.0);
        fold.add(at(14), 1.0);
        let read = |statistic| fold.read(&statistic, at(18));
        assert_eq!(read(Statistic::TimeWeightedMean), Some(Value::Number(2.0)));
        assert_eq!(
            read(Statistic::DurationAbove(2.0)),
            Some(Value::Number(4.0))
        );
        assert_eq!(read(Statistic::Count), Some(Value::Number(1.0)));
    }

    #[test]
    fn the_ends_of_time_do_no_harm() {
        let ends = [
            Timestamp::from_nanos(i64::MIN),
            Timestamp::from_nanos(i64::MAX),
        ];
        for statistic in [
            Statistic::Slope,
            Statistic::TimeWeightedMean,
            Statistic::First,
        ] {
            let trackers: Vec<Tracker> = Tracker::of(&statistic).into_iter().collect();
            let mut fold = Fold::new(&trackers);
            for (time, value) in ends.into_iter().zip([1.0, 2.0]) {
                fold.add(time, value);
            }
            let read = fold.read(&statistic, ends[1]).expect("it is kept");
            assert!(read.as_number().is_some(), "{statistic:?}: {read}");
        }
    }
}
