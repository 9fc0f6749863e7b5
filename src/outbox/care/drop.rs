//! Gives up records that are waiting, at a person's word.
//!
//! Must not: take records away from the disk; that happens when Tidegate runs again, as with what was delivered.

use super::super::group::encode_snapshot;
use super::super::ledger::Reason;
use super::super::record::Record;
use super::{Care, CareError, Watch};
use crate::message::Timestamp;

/// What is settled is written with every commit: it must not become large.
pub(super) const SNAPSHOT_BYTES_MAX: usize = 64 * 1024;

/// Which of the waiting records are meant. By default all are.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those of before this time.
    pub before: Option<Timestamp>,
    /// Only those whose topic is in this MQTT filter.
    pub topic: Option<String>,
}

/// What was given up, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropped {
    pub records: u64,
    pub payload_bytes: u64,
    /// The times of the earliest and the latest.
    pub times: Option<(Timestamp, Timestamp)>,
    /// How many stay.
    pub left: u64,
}

impl Care {
    /// Gives up the records that were selected; or says only, with `dry_run`, what that would do.
    pub fn drop_records(
        &self,
        selection: &Selection,
        dry_run: bool,
        watch: &mut Watch<'_>,
    ) -> Result<Dropped, CareError> {
        let survey = self.survey(watch)?;
        if !survey.verdict.is_sound {
            let path = self.root.clone();
            return Err(CareError::Damaged { path });
        }
        let mut next = survey.next.clone();
        let mut dropped = Dropped::default();
        survey.each_record(self, watch, &mut |record, _| {
            if survey.is_settled(record) {
                return Ok(());
            }
            if !selection.has(record) {
                dropped.left += 1;
                return Ok(());
            }
            dropped.count(record);
            next.settled.insert(record.key());
            Ok(())
        })?;
        next.ledger.stored -= dropped.records.min(next.ledger.stored);
        next.ledger.drop_accepted(dropped.records, Reason::ByHand);
        if dropped.records == 0 {
            return Ok(dropped);
        }
        if encode_snapshot(&next).len() > SNAPSHOT_BYTES_MAX {
            return Err(CareError::TooManyPieces);
        }
        if !dry_run {
            self.write_books(&survey, &next, survey.highest + 1)?;
        }
        Ok(dropped)
    }
}

impl Selection {
    fn has(&self, record: &Record) -> bool {
        let draft = &record.draft;
        self.before.is_none_or(|before| draft.time < before)
            && self
                .topic
                .as_ref()
                .is_none_or(|filter| is_in(filter, &draft.topic))
    }
}

impl Dropped {
    fn count(&mut self, record: &Record) {
        let time = record.draft.time;
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
        self.records += 1;
        self.payload_bytes += record.draft.payload.len() as u64;
    }
}

/// Whether an MQTT filter has this topic (MQTT 3.1.1, section 4.7). The topic is none of the broker's own.
fn is_in(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |filter: &str, topic: &str, expected: bool| {
            assert_eq!(is_in(filter, topic), expected, "{filter} {topic}");
        };
        check("a/b", "a/b", true);
        check("a/b", "a/b/c", false);
        check("a/b/c", "a/b", false);
        check("a/+/c", "a/b/c", true);
        check("a/+", "a", false);
        check("a/#", "a", true);
        check("a/#", "a/b/c", true);
        check("#", "a", true);
        check("+", "a/b", false);
    }
}
