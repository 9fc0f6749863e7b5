//! Which records are done with: a cursor, and the ranges of ids beyond it.
//!
//! Acknowledgements come nearly in order, so there are few ranges, whatever the number of records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::RecordId;

/// A set of record ids that is cheap when it is nearly a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "AsWritten", into = "AsWritten")]
pub(super) struct Settled {
    /// Everything before this id is in the set.
    below: RecordId,
    /// First id and last seq of each range at or beyond `below`. They neither overlap nor touch.
    ranges: BTreeMap<RecordId, u64>,
}

impl Settled {
    pub(super) fn contains(&self, id: RecordId) -> bool {
        id < self.below || self.range_at(id).is_some_and(|(_, last)| id.seq <= last)
    }

    #[cfg(test)]
    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// The id after the range that ends before `id`, in the same epoch.
    pub(super) fn end_before(&self, id: RecordId) -> Option<RecordId> {
        let (_, last) = self.range_at(id)?;
        let seq = last.checked_add(1)?;
        (seq < id.seq).then_some(RecordId { seq, ..id })
    }

    pub(super) fn insert(&mut self, id: RecordId) {
        self.insert_range(id, id.seq);
    }

    /// Adds the ids from `first` to the seq `last` of the same epoch.
    pub(super) fn insert_range(&mut self, first: RecordId, last: u64) {
        let (mut first, mut last) = (first, last.max(first.seq));
        if let Some((start, end)) = self.range_at(first)
            && end.saturating_add(1) >= first.seq
        {
            self.ranges.remove(&start);
            (first, last) = (start, last.max(end));
        }
        let beyond = RecordId {
            epoch: first.epoch,
            seq: last.saturating_add(1),
        };
        while let Some((&start, &end)) = self.ranges.range(first..=beyond).next() {
            self.ranges.remove(&start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// Says that everything before `below` is in the set; forgets the ranges that this makes superfluous.
    pub(super) fn raise(&mut self, below: RecordId) {
        self.below = self.below.max(below);
        while let Some(range) = self.ranges.first_entry()
            && (RecordId {
                seq: *range.get(),
                ..*range.key()
            }) < self.below
        {
            range.remove();
        }
    }

    /// Takes an id out: its record is back. `false` if it was not in the set, or is too many starts back to say so briefly.
    pub(super) fn remove(&mut self, id: RecordId) -> bool {
        const EPOCHS_MAX: u64 = 1_000;
        if !self.contains(id) || self.below.epoch.saturating_sub(id.epoch) > EPOCHS_MAX {
            return false;
        }
        if id < self.below {
            let below = std::mem::replace(&mut self.below, id);
            for epoch in id.epoch..=below.epoch {
                let first = if epoch == id.epoch { id.seq } else { 0 };
                let end = if epoch == below.epoch {
                    below.seq
                } else {
                    u64::MAX
                };
                if first < end {
                    self.insert_range(RecordId { epoch, seq: first }, end - 1);
                }
            }
        }
        if let Some((first, last)) = self.range_at(id) {
            self.ranges.remove(&first);
            if first.seq < id.seq {
                self.ranges.insert(first, id.seq - 1);
            }
            if id.seq < last {
                let seq = id.seq + 1;
                self.ranges.insert(RecordId { seq, ..id }, last);
            }
        }
        true
    }

    /// The last range of the same epoch that starts at or before `id`.
    fn range_at(&self, id: RecordId) -> Option<(RecordId, u64)> {
        let start = RecordId { seq: 0, ..id };
        let (first, last) = self.ranges.range(start..=id).next_back()?;
        Some((*first, *last))
    }
}

/// JSON keys must be text, so ranges are written as a list of (epoch, first, last).
#[derive(Serialize, Deserialize)]
struct AsWritten {
    below: RecordId,
    ranges: Vec<(u64, u64, u64)>,
}

impl From<Settled> for AsWritten {
    fn from(settled: Settled) -> AsWritten {
        AsWritten {
            below: settled.below,
            ranges: settled
                .ranges
                .into_iter()
                .map(|(first, last)| (first.epoch, first.seq, last))
                .collect(),
        }
    }
}

impl From<AsWritten> for Settled {
    fn from(written: AsWritten) -> Settled {
        let mut settled = Settled {
            below: written.below,
            ..Settled::default()
        };
        for (epoch, first, last) in written.ranges {
            settled.insert_range(RecordId { epoch, seq: first }, last);
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(epoch: u64, seq: u64) -> RecordId {
        RecordId { epoch, seq }
    }

    #[test]
    fn ranges_join_in_whatever_order_they_come() {
        let check = |inserted: &[(u64, u64)], expected: &[(u64, u64)]| {
            let mut settled = Settled::default();
            for (first, last) in inserted {
                settled.insert_range(id(2, *first), *last);
            }
            let ranges: Vec<_> = settled.ranges.iter().map(|(f, l)| (f.seq, *l)).collect();
            assert_eq!(ranges, expected, "{inserted:?}");
        };
        check(&[(1, 1), (2, 2), (3, 3)], &[(1, 3)]);
        check(&[(3, 3), (1, 1), (2, 2)], &[(1, 3)]);
        check(&[(1, 4), (2, 3)], &[(1, 4)]);
        check(&[(5, 6), (1, 2), (8, 9), (2, 8)], &[(1, 9)]);
        check(&[(1, 1), (3, 3)], &[(1, 1), (3, 3)]);
    }

    #[test]
    fn epochs_do_not_touch_each_other() {
        let mut settled = Settled::default();
        settled.insert_range(id(1, 5), 9);
        settled.insert(id(2, 1));
        assert!(settled.contains(id(1, 9)) && settled.contains(id(2, 1)));
        assert!(!settled.contains(id(1, 10)) && !settled.contains(id(2, 5)));
    }

    #[test]
    fn what_is_back_is_no_longer_settled_and_all_else_is() {
        let all = || (1..=4).flat_map(|epoch| (0..6).map(move |seq| id(epoch, seq)));
        let check = |back: &[RecordId]| {
            let mut settled = Settled::default();
            settled.insert_range(id(4, 4), 5);
            settled.raise(id(4, 3));
            for one in back {
                assert!(settled.remove(*one), "{one:?}");
            }
            for one in all() {
                let expected = one != id(4, 3) && !back.contains(&one);
                assert_eq!(settled.contains(one), expected, "{one:?} without {back:?}");
            }
        };
        check(&[]);
        check(&[id(4, 2)]);
        check(&[id(4, 0), id(4, 1), id(4, 4)]);
        check(&[id(2, 5), id(2, 3), id(1, 0), id(4, 5)]);
        assert!(!Settled::default().remove(id(1, 1)), "it was not in it");
    }

    #[test]
    fn raising_the_cursor_forgets_ranges_but_not_what_is_settled() {
        let mut settled = Settled::default();
        settled.insert_range(id(1, 3), 4);
        settled.insert_range(id(1, 8), 9);
        settled.raise(id(1, 6));
        assert!(settled.contains(id(1, 5)) && settled.contains(id(0, 77)));
        assert!(!settled.contains(id(1, 6)) && settled.contains(id(1, 8)));
        assert_eq!(settled.ranges.len(), 1);
        let written = serde_json::to_string(&settled).expect("it has a JSON form");
        assert_eq!(
            serde_json::from_str::<Settled>(&written).expect("just written"),
            settled
        );
    }
}
