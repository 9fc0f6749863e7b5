//! The numbers of the outbox that must add up.
//!
//! Terms: a record is *pending* until it is durable or acknowledged; then it is *accepted*. An accepted record is either
//! *stored*, or it left in exactly one way: *acknowledged*, *dead-lettered* or *dropped*, with a reason.
//!
//! Must not: know why something happens. It only counts.

use serde::{Deserialize, Serialize};

/// What happened to the records. All but `pending`, `stored`, `flash_bytes_per_day`, `disk_bytes` and `epoch` run since the store was made.
///
/// At all times `accepted = acknowledged + stored + dead_lettered + dropped`, and `dropped` is the sum of its reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Neither durable nor acknowledged yet: what a power cut would take.
    pub pending: u64,
    pub accepted: u64,
    pub acknowledged: u64,
    /// On disk, synced, and not yet acknowledged.
    pub stored: u64,
    pub dead_lettered: u64,
    pub dropped: u64,
    /// Dropped because they had expired (`expires` of their node).
    pub dropped_expired: u64,
    /// Merged into others, which stand for them (`when_full = "thin"`).
    pub dropped_thinned: u64,
    /// Dropped because the memory for pending records was full.
    pub dropped_overflow_memory: u64,
    /// Dropped because the outbox had reached its size limit.
    pub dropped_overflow_disk: u64,
    /// Lost to damage on disk.
    pub dropped_damaged: u64,
    /// Given up by hand, with `tidegate outbox drop`.
    pub dropped_by_hand: u64,
    /// Groups and generations that were found damaged and set aside.
    pub damaged: u64,
    /// The number of this start.
    pub epoch: u64,
    /// Commits, those that failed included.
    pub commits: u64,
    /// Bytes handed to the store. What reaches the card is several times this; see the decision on the format.
    pub bytes_written: u64,
    /// Payload bytes among `bytes_written`.
    pub payload_bytes: u64,
    /// Bytes that this program made the disk write, as the kernel counts them, with all that is not the outbox's.
    pub flash_bytes: u64,
    /// What a day comes to at the pace since the start; 0 in its first minute.
    pub flash_bytes_per_day: u64,
    /// What the generations take on disk now.
    pub disk_bytes: u64,
}

/// Why a record was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    Thinned,
    OverflowMemory,
    OverflowDisk,
    Damaged,
    ByHand,
}

impl Ledger {
    /// Whether every accepted record is accounted for, once.
    pub fn balances(&self) -> bool {
        let reasons = self.dropped_expired
            + self.dropped_thinned
            + self.dropped_overflow_memory
            + self.dropped_overflow_disk
            + self.dropped_damaged
            + self.dropped_by_hand;
        self.accepted == self.acknowledged + self.stored + self.dead_lettered + self.dropped
            && self.dropped == reasons
    }

    /// Records that are still to be delivered.
    pub fn waiting(&self) -> u64 {
        self.pending + self.stored
    }

    pub(super) fn drop_accepted(&mut self, records: u64, reason: Reason) {
        self.dropped += records;
        *match reason {
            Reason::Expired => &mut self.dropped_expired,
            Reason::Thinned => &mut self.dropped_thinned,
            Reason::OverflowMemory => &mut self.dropped_overflow_memory,
            Reason::OverflowDisk => &mut self.dropped_overflow_disk,
            Reason::Damaged => &mut self.dropped_damaged,
            Reason::ByHand => &mut self.dropped_by_hand,
        } += records;
    }

    /// These records, which counted as damaged, are stored again.
    pub(super) fn take_back(&mut self, records: u64) {
        let known = records.min(self.dropped_damaged);
        self.dropped -= known;
        self.dropped_damaged -= known;
        self.accepted += records - known;
        self.stored += records;
    }

    /// Makes the ledger agree with the number of live records that were really found on disk. Returns how many are
    /// missing.
    pub(super) fn reconcile(&mut self, found: u64) -> u64 {
        let missing = self.stored.saturating_sub(found);
        self.accepted += found.saturating_sub(self.stored);
        self.drop_accepted(missing, Reason::Damaged);
        self.stored = found;
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_dropped_and_what_is_extra_is_accepted() {
        let check = |found, accepted, dropped_damaged| {
            let mut ledger = Ledger {
                accepted: 10,
                acknowledged: 4,
                stored: 6,
                ..Ledger::default()
            };
            ledger.reconcile(found);
            assert!(ledger.balances(), "{ledger:?}");
            assert_eq!(
                (ledger.accepted, ledger.stored, ledger.dropped_damaged),
                (accepted, found, dropped_damaged)
            );
        };
        check(6, 10, 0);
        check(2, 10, 4);
        check(9, 13, 0);
    }
}
