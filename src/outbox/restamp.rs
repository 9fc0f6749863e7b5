//! The time of records that were stamped before the clock was set: what they are given is put right when they are read, not where
//! they lie. See decision 0022.
//!
//! Must not: know why the clock went ahead, or by how much it has to.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Record, RecordId};

/// Of so many starts at most; a device that starts more often before it has sent what it had keeps the later ones.
const MOST: usize = 16;

/// Records of one start, up to an id, were stamped so much too early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    last: RecordId,
    ahead: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Restamps(Vec<Step>);

impl Restamps {
    /// What was numbered up to here, of the same start, was stamped so much too early.
    pub(super) fn add(&mut self, last: RecordId, ahead: Duration) {
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push(Step { last, ahead });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much later than its time a record was made.
    pub(super) fn ahead(&self, id: RecordId) -> Duration {
        let steps = self.0.iter();
        let of_it = steps.filter(|step| step.last.epoch == id.epoch && id.seq <= step.last.seq);
        of_it.map(|step| step.ahead).sum()
    }

    /// Gives a record the time at which it was made.
    pub(super) fn put_right(&self, record: &mut Arc<Record>) {
        let ahead = self.ahead(record.id);
        if !ahead.is_zero() {
            let draft = &mut Arc::make_mut(record).draft;
            draft.time = draft.time.saturating_add(ahead);
        }
    }

    /// Forgets what no record needs any more: those before this one are gone.
    pub(super) fn keep_from(&mut self, first: RecordId) {
        self.0.retain(|step| step.last >= first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, seq: u64) -> RecordId {
        RecordId { epoch, seq }
    }

    #[test]
    fn what_was_numbered_before_the_step_in_the_same_start_is_put_right() {
        let mut restamps = Restamps::default();
        let hour = Duration::from_secs(3600);
        restamps.add(id(2, 10), hour);
        restamps.add(id(3, 5), 2 * hour);
        let check = |restamps: &Restamps, id, hours: u32| {
            assert_eq!(restamps.ahead(id), hour * hours, "{id:?}");
        };
        for (id, hours) in [
            (id(1, 1), 0),
            (id(2, 1), 1),
            (id(2, 10), 1),
            (id(2, 11), 0),
            (id(3, 5), 2),
            (id(3, 6), 0),
        ] {
            check(&restamps, id, hours);
        }
        restamps.keep_from(id(2, 11));
        check(&restamps, id(2, 10), 0);
        check(&restamps, id(3, 5), 2);
        for epoch in 4..100 {
            restamps.add(id(epoch, 1), hour);
        }
        assert_eq!(restamps.0.len(), MOST);
        check(&restamps, id(99, 1), 1);
    }
}
