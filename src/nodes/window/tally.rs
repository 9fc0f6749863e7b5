//! Statistics that count values, from which a value can also be taken back.
//!
//! Terms: a *tally* is such a count; a *rank* is a value's place when all are sorted, from 0.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sketches_ddsketch::{Config, DDSketch};

use super::compute::Statistic;
use super::fold::number;
use super::packed;
use crate::message::Value;

/// Readings up to which the percentiles of a window are exact.
pub(super) const EXACT: usize = 1_000;
/// Different values that `distinct` counts in one window.
pub(super) const MOST_DISTINCT: usize = 10_000;

/// Why a reading is refused for which [`Tallies::is_full_for`] holds.
pub(super) fn too_many_distinct() -> String {
    format!("the window has {MOST_DISTINCT} distinct values already, this is one too many")
}

/// Whether room is to be given back: a burst of readings must not keep its memory when it has left.
pub(super) fn is_mostly_empty(length: usize, capacity: usize) -> bool {
    capacity > 64 && capacity > 4 * length
}

/// The tallies of one window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tallies(Box<[Tally]>);

impl Tallies {
    pub(super) fn new(tallies: &[Tally]) -> Tallies {
        Tallies(tallies.into())
    }

    /// After this has been read: takes what is not written from those it was made with. Says whether they are those.
    pub(super) fn complete(&mut self, tallies: &[Tally]) -> bool {
        let mut both = self.0.iter_mut().zip(tallies);
        both.all(|(tally, planned)| tally.complete(planned)) && self.0.len() == tallies.len()
    }

    /// Whether there is no room for a value; nothing has been changed then.
    #[inline]
    pub(super) fn is_full_for(&self, value: f64) -> bool {
        self.0
            .iter()
            .any(|tally| matches!(tally, Tally::Distinct(distinct) if distinct.is_full_for(value)))
    }

    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        for tally in &mut self.0 {
            match tally {
                Tally::Quantiles(quantiles) => quantiles.add(value),
                Tally::Distinct(distinct) => distinct.add(value),
                Tally::Histogram(histogram) => histogram.add(value),
            }
        }
    }

    /// Adds many values, which one by one would take long.
    pub(super) fn add_all(&mut self, values: Vec<f64>) {
        for tally in &mut self.0 {
            match tally {
                Tally::Quantiles(quantiles) => quantiles.add_all(&values),
                Tally::Distinct(distinct) => values.iter().for_each(|it| distinct.add(*it)),
                Tally::Histogram(histogram) => values.iter().for_each(|it| histogram.add(*it)),
            }
        }
    }

    /// Takes a value back that was added.
    pub(super) fn remove(&mut self, value: f64) {
        for tally in &mut self.0 {
            match tally {
                Tally::Quantiles(quantiles) => quantiles.remove(value),
                Tally::Distinct(distinct) => distinct.remove(value),
                Tally::Histogram(histogram) => histogram.remove(value),
            }
        }
    }

    /// Takes many values back, which one by one would take long.
    pub(super) fn remove_all(&mut self, mut values: Vec<f64>) {
        values.sort_by(f64::total_cmp);
        for tally in &mut self.0 {
            match tally {
                Tally::Quantiles(quantiles) => quantiles.remove_sorted(&values),
                Tally::Distinct(distinct) => values.iter().for_each(|it| distinct.remove(*it)),
                Tally::Histogram(histogram) => values.iter().for_each(|it| histogram.remove(*it)),
            }
        }
    }

    /// Whether there is room for a value when others have been taken back.
    pub(super) fn is_room_made_by(&self, others: impl Iterator<Item = f64>) -> bool {
        let mut going: HashMap<u64, u32> = HashMap::new();
        others.for_each(|other| *going.entry(bits(other)).or_default() += 1);
        self.0.iter().all(|tally| match tally {
            Tally::Distinct(distinct) => going
                .iter()
                .any(|(bits, count)| distinct.counts.get(bits) == Some(count)),
            Tally::Quantiles(_) | Tally::Histogram(_) => true,
        })
    }

    /// The statistic, if it is kept here.
    pub(super) fn read(&self, statistic: &Statistic) -> Option<Value> {
        self.0.iter().find_map(|tally| tally.read(statistic))
    }
}

/// Several statistics may share one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Tally {
    Quantiles(Quantiles),
    Distinct(Distinct),
    Histogram(Histogram),
}

impl Tally {
    /// One that has seen nothing; none if the statistic needs no tally. Where values are taken back, percentiles must be
    /// exact.
    pub(super) fn of(statistic: &Statistic, is_exact: bool) -> Option<Tally> {
        Some(match statistic {
            Statistic::Percentile(_) => Tally::Quantiles(Quantiles {
                exact: if is_exact { usize::MAX } else { EXACT },
                values: Values::Sorted(Vec::new()),
            }),
            Statistic::Distinct => Tally::Distinct(Distinct::default()),
            Statistic::Histogram(edges) => Tally::Histogram(Histogram {
                edges: edges.as_slice().into(),
                counts: vec![0; edges.len() + 1].into(),
            }),
            _ => return None,
        })
    }

    fn complete(&mut self, planned: &Tally) -> bool {
        match (self, planned) {
            (Tally::Quantiles(quantiles), Tally::Quantiles(planned)) => {
                quantiles.exact = planned.exact;
                true
            }
            (Tally::Histogram(histogram), Tally::Histogram(planned)) => {
                histogram.edges = planned.edges.clone();
                histogram.counts.len() == planned.counts.len()
            }
            (Tally::Distinct(_), Tally::Distinct(_)) => true,
            _ => false,
        }
    }

    pub(super) fn read(&self, statistic: &Statistic) -> Option<Value> {
        Some(match (self, statistic) {
            (Tally::Quantiles(quantiles), Statistic::Percentile(percent)) => {
                quantiles.read(*percent)
            }
            (Tally::Distinct(distinct), Statistic::Distinct) => {
                number(distinct.counts.len() as f64)
            }
            (Tally::Histogram(histogram), Statistic::Histogram(edges))
                if *histogram.edges == **edges =>
            {
                let counts = histogram.counts.iter();
                Value::List(Arc::new(
                    counts.map(|count| number(*count as f64)).collect(),
                ))
            }
            _ => return None,
        })
    }
}

/// The values themselves, while they are few; then a DDSketch (Masson, Rim, Lee: Proceedings of the VLDB Endowment 12,
/// 2019) that answers within 1 %.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Quantiles {
    /// Values up to which they are kept. Not written.
    #[serde(skip)]
    exact: usize,
    values: Values,
}

#[derive(Clone, Serialize, Deserialize)]
enum Values {
    /// The two zeros too, so that equal readings make equal lists.
    Sorted(#[serde(with = "packed")] Vec<f64>),
    Sketched(#[serde(with = "packed")] Box<DDSketch>),
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Values::Sorted(values) => f.debug_tuple("Sorted").field(values).finish(),
            Values::Sketched(sketch) => f.debug_tuple("Sketched").field(&sketch.count()).finish(),
        }
    }
}

impl Quantiles {
    fn add(&mut self, value: f64) {
        match &mut self.values {
            Values::Sorted(values) if values.len() < self.exact => {
                values.insert(place(values, value), value);
            }
            Values::Sorted(values) => {
                // Subnormal numbers count as zero, every other has its bin.
                let mut sketch = DDSketch::new(Config::new(0.01, 2048, f64::MIN_POSITIVE));
                values.iter().for_each(|value| sketch.add(*value));
                sketch.add(value);
                self.values = Values::Sketched(Box::new(sketch));
            }
            Values::Sketched(sketch) => sketch.add(value),
        }
    }

    fn add_all(&mut self, more: &[f64]) {
        match &mut self.values {
            Values::Sorted(values) if more.len() <= self.exact.saturating_sub(values.len()) => {
                values.extend(more);
                values.sort_unstable_by(f64::total_cmp);
            }
            _ => more.iter().for_each(|value| self.add(*value)),
        }
    }

    fn remove(&mut self, value: f64) {
        let Values::Sorted(values) = &mut self.values else {
            debug_assert!(false, "nothing is taken out of a sketch");
            return;
        };
        values.remove(place(values, value));
        if is_mostly_empty(values.len(), values.capacity()) {
            values.shrink_to(2 * values.len());
        }
    }

    fn remove_sorted(&mut self, going: &[f64]) {
        let Values::Sorted(values) = &mut self.values else {
            debug_assert!(false, "nothing is taken out of a sketch");
            return;
        };
        let mut going = going.iter().peekable();
        values.retain(|value| {
            going
                .next_if(|other| other.to_bits() == value.to_bits())
                .is_none()
        });
        if is_mostly_empty(values.len(), values.capacity()) {
            values.shrink_to(2 * values.len());
        }
    }

    /// The value at rank `percent / 100 * (n - 1)`, rounded down.
    fn read(&self, percent: f64) -> Value {
        let rank = |count: usize| (count.saturating_sub(1) as f64 * percent / 100.0) as usize;
        match &self.values {
            Values::Sorted(values) => values
                .get(rank(values.len()))
                .map_or(Value::Null, |value| number(*value)),
            Values::Sketched(sketch) => {
                // The sketch rounds down as well; in the middle between two ranks, rounding errors do not matter.
                let last = sketch.count().saturating_sub(1) as f64;
                let quantile = ((rank(sketch.count()) as f64 + 0.5) / last).min(1.0);
                let found = sketch.quantile(quantile).ok().flatten();
                match (found, sketch.min(), sketch.max()) {
                    (Some(found), Some(min), Some(max)) => number(found.clamp(min, max)),
                    _ => Value::Null,
                }
            }
        }
    }
}

/// Where a value stands in a sorted list, or belongs.
fn place(values: &[f64], value: f64) -> usize {
    values.partition_point(|other| other.total_cmp(&value).is_lt())
}

/// How often each value was there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Distinct {
    /// By the bits of the value.
    #[serde(with = "packed")]
    counts: HashMap<u64, u32>,
}

impl Distinct {
    fn is_full_for(&self, value: f64) -> bool {
        self.counts.len() >= MOST_DISTINCT && !self.counts.contains_key(&bits(value))
    }

    fn add(&mut self, value: f64) {
        let count = self.counts.entry(bits(value)).or_default();
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, value: f64) {
        if let Some(count) = self.counts.get_mut(&bits(value)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&bits(value));
                if is_mostly_empty(self.counts.len(), self.counts.capacity()) {
                    self.counts.shrink_to(2 * self.counts.len());
                }
            }
        }
    }
}

/// Equal numbers have equal bits, but for the two zeros.
fn bits(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Histogram {
    /// Shared by all windows; not written.
    #[serde(skip)]
    edges: Arc<[f64]>,
    /// One more than edges: below the first, from each to the next, from the last on.
    counts: Box<[u64]>,
}

impl Histogram {
    fn add(&mut self, value: f64) {
        let count = &mut self.counts[self.place(value)];
        *count = count.saturating_add(1);
    }

    fn remove(&mut self, value: f64) {
        self.counts[self.place(value)] -= 1;
    }

    fn place(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tallies(statistic: &Statistic) -> Tallies {
        Tallies::new(&[Tally::of(statistic, false).expect("it needs a tally")])
    }

    fn check(statistic: Statistic, values: &[f64], expected: &str) {
        let mut tallies = tallies(&statistic);
        values.iter().for_each(|value| tallies.add(*value));
        let found = tallies.read(&statistic).expect("it is kept");
        assert_eq!(found.to_json(), expected, "{statistic:?} of {values:?}");
        // And after others have come and gone.
        let others = [-1.0, 0.0, 3.5, 1e300];
        others.iter().for_each(|value| tallies.add(*value));
        others.iter().for_each(|value| tallies.remove(*value));
        assert_eq!(tallies.read(&statistic), Some(found));
    }

    #[test]
    fn few_readings_have_exact_percentiles() {
        let check = |percent, values: &[f64], expected| {
            check(Statistic::Percentile(percent), values, expected);
        };
        check(50.0, &[20.0], "20");
        check(50.0, &[22.0, 20.0, 21.0], "21");
        check(50.0, &[4.0, 1.0, 3.0, 2.0], "2");
        check(99.9, &[1.0, 2.0, 3.0], "2");
        check(0.1, &[-5.0, 0.0, 5.0], "-5");
        check(50.0, &[0.1; 7], "0.1");
        // 0.29 * 100 is a little less than 29.
        let hundred_and_one: Vec<f64> = (0..=100).map(f64::from).collect();
        check(29.0, &hundred_and_one, "29");
    }

    #[test]
    fn histograms_have_their_lower_edges() {
        check(
            Statistic::Histogram(vec![0.0, 10.0]),
            &[-0.1, -0.0, 0.0, 9.9, 10.0, 1e300],
            "[1,3,2]",
        );
    }

    #[test]
    fn distinct_values_are_counted_once_and_bounded() {
        check(Statistic::Distinct, &[1.0, 2.0, 1.0, 0.0, -0.0], "3");
        let mut tallies = tallies(&Statistic::Distinct);
        for value in 0..MOST_DISTINCT {
            assert!(!tallies.is_full_for(value as f64));
            tallies.add(value as f64);
        }
        assert!(tallies.is_full_for(-1.0));
        assert!(!tallies.is_full_for(5.0));
        tallies.remove(7.0);
        assert!(!tallies.is_full_for(-1.0));
    }

    #[test]
    fn many_values_leave_as_one_by_one_and_their_memory_with_them() {
        let statistics = [
            Statistic::Percentile(50.0),
            Statistic::Distinct,
            Statistic::Histogram(vec![0.0, 30.0]),
        ];
        let value = |place: i32| match place % 50 {
            0 => -0.0,
            rest => f64::from(rest - 10),
        };
        let staying = |place: i32| place % 40 == 0;
        for statistic in statistics {
            let new = || Tallies::new(&[Tally::of(&statistic, true).expect("it needs a tally")]);
            let (mut one_by_one, mut at_once, mut expected) = (new(), new(), new());
            for place in 0..5_000 {
                one_by_one.add(value(place));
                at_once.add(value(place));
                if staying(place) {
                    expected.add(value(place));
                }
            }
            let going = (0..5_000).filter(|place| !staying(*place)).map(value);
            going.clone().for_each(|value| one_by_one.remove(value));
            at_once.remove_all(going.collect());
            for tallies in [one_by_one, at_once] {
                assert_eq!(tallies.read(&statistic), expected.read(&statistic));
                if let Tally::Quantiles(Quantiles { values, .. }) = &tallies.0[0] {
                    let Values::Sorted(values) = values else {
                        panic!("they are exact");
                    };
                    assert_eq!(values.len(), 125);
                    assert!(values.capacity() <= 500, "{}", values.capacity());
                }
            }
        }
    }

    #[test]
    fn room_is_made_only_by_the_last_one_of_a_value() {
        let mut tallies = tallies(&Statistic::Distinct);
        for value in [1.0, 2.0, 2.0, 0.0] {
            tallies.add(value);
        }
        let check = |going: &[f64], expected| {
            assert_eq!(tallies.is_room_made_by(going.iter().copied()), expected);
        };
        check(&[], false);
        check(&[2.0], false);
        check(&[2.0, 2.0], true);
        check(&[2.0, 1.0], true);
        check(&[-0.0], true);
    }

    /// Percentiles of the values as they are, and as a window gives them.
    fn check_error(mut values: Vec<f64>) {
        assert!(values.len() > EXACT);
        let percentiles = [0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9];
        let mut tallies = tallies(&Statistic::Percentile(50.0));
        values.iter().for_each(|value| tallies.add(*value));
        values.sort_by(f64::total_cmp);
        for percent in percentiles {
            let rank = ((values.len() - 1) as f64 * percent / 100.0) as usize;
            let exact = values[rank];
            let found = tallies.read(&Statistic::Percentile(percent));
            let found = found.and_then(|found| found.as_number()).expect("a number");
            // The bound, and a little for the rounding of logarithms.
            assert!(
                (found - exact).abs() <= 0.010_000_1 * exact.abs(),
                "p{percent}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn many_readings_have_percentiles_within_1_percent() {
        let places = 0..20_000;
        let wave = |place: i32| (f64::from(place) * 0.618_034).fract();
        check_error(
            places
                .clone()
                .map(|place| 15.0 + 10.0 * wave(place))
                .collect(),
        );
        check_error(places.clone().map(|place| wave(place) - 0.5).collect());
        check_error(
            places
                .clone()
                .map(|place| -1e6 * wave(place).powi(4))
                .collect(),
        );
        check_error(
            places
                .clone()
                .map(|place| 10_f64.powf(17.0 * wave(place)))
                .collect(),
        );
        check_error(
            places
                .clone()
                .map(|place| 1e-300 * (1.0 + wave(place)))
                .collect(),
        );
        check_error(
            places
                .clone()
                .map(|place| 1e307 * (1.0 + 16.0 * wave(place)))
                .collect(),
        );
        check_error(places.clone().map(|place| f64::from(place % 3)).collect());
        check_error(places.map(|_| -40.0).collect());
    }

    #[test]
    fn no_number_is_too_large_or_too_small_for_a_sketch() {
        let extremes = [f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.0, 1.0, 1e-200, 1e200];
        let mut tallies = tallies(&Statistic::Percentile(50.0));
        for round in 0..3_000_usize {
            let value = extremes[round * round % extremes.len()];
            tallies.add(if round % 3 == 0 { -value } else { value });
            for percent in [0.1, 50.0, 99.9] {
                let found = tallies.read(&Statistic::Percentile(percent));
                assert!(matches!(found, Some(Value::Number(_))), "{found:?}");
            }
        }
    }
}
