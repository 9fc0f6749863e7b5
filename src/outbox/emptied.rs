//! Which groups were carried over from a generation that is still there: what is left of them where they were counts no more.
//!
//! In each lane a generation is emptied from its first group on, so that one id says it. See decision 0018.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::book::Place;
use super::record::{Lane, RecordId};

/// Of each generation that was emptied, or is being: the first id of the last group that was carried over, in each lane in the order of
/// [`Lane::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Emptied(BTreeMap<u32, [Option<RecordId>; Lane::ALL.len()]>);

impl Emptied {
    pub(super) fn contains(&self, place: Place) -> bool {
        let last = self.0.get(&place.generation);
        last.is_some_and(|lanes| Some(place.first) <= lanes[place.lane.index()])
    }

    pub(super) fn insert(&mut self, place: Place) {
        let last = &mut self.0.entry(place.generation).or_default()[place.lane.index()];
        *last = (*last).max(Some(place.first));
    }

    /// Forgets generations that are gone: their numbers are not used again.
    pub(super) fn keep_only(&mut self, generations: &[u32]) {
        self.0
            .retain(|generation, _| generations.contains(generation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(generation: u32, lane: usize, seq: u64) -> Place {
        Place {
            generation,
            lane: Lane::ALL[lane],
            first: RecordId { epoch: 2, seq },
        }
    }

    #[test]
    fn what_was_carried_over_is_known_by_generation_and_lane_up_to_a_group() {
        let mut emptied = Emptied::default();
        for seq in [10, 30, 20] {
            emptied.insert(place(3, 1, seq));
        }
        emptied.insert(place(5, 0, 40));
        let text = serde_json::to_string(&emptied).expect("it has a JSON form");
        let mut emptied: Emptied = serde_json::from_str(&text).expect("the same");
        for (generation, lane, seq, is_in) in [
            (3, 1, 10, true),
            (3, 1, 30, true),
            (3, 1, 31, false),
            (3, 0, 10, false),
            (4, 1, 10, false),
            (5, 0, 40, true),
        ] {
            let place = place(generation, lane, seq);
            assert_eq!(emptied.contains(place), is_in, "{place:?}");
        }
        emptied.keep_only(&[4, 5]);
        assert!(!emptied.contains(place(3, 1, 10)) && emptied.contains(place(5, 0, 40)));
    }
}
