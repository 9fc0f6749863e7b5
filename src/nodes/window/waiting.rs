//! Readings that wait until all that may come before them has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::windows::Reading;
use crate::message::Timestamp;

/// Readings that may wait in one node.
pub(super) const MOST_WAITING: usize = 10_000;

/// Readings with the places of their keys, in the order of time; those of one time in the order in which they came.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Waiting {
    readings: BTreeMap<(Timestamp, u64), (usize, Reading)>,
    came: u64,
}

impl Waiting {
    pub(super) fn is_full(&self) -> bool {
        self.readings.len() >= MOST_WAITING
    }

    pub(super) fn add(&mut self, place: usize, reading: Reading) {
        self.came = self.came.saturating_add(1);
        let at = (reading.time, self.came);
        self.readings.insert(at, (place, reading));
    }

    /// The time of the earliest one.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.readings.first_key_value().map(|((time, _), _)| *time)
    }

    /// The time of the latest one.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.readings.last_key_value().map(|((time, _), _)| *time)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (usize, Reading)> {
        self.readings.values_mut()
    }

    pub(super) fn take(&mut self) -> Option<(usize, Reading)> {
        self.readings.pop_first().map(|(_, reading)| reading)
    }
}
