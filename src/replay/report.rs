//! What a replay did, in numbers and with the first examples of what went wrong.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use super::rows::RowProblem;
use crate::message::Timestamp;

/// Rows that are kept of those that are wrong in the same way.
const MOST_SHOWN: usize = 10;

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub files: Vec<FileReport>,
    /// The earliest and the latest time of a row.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Rows that were earlier than one before them.
    pub out_of_order: u64,
    /// How much earlier, at most.
    pub latest_by: Duration,
    /// Rows that reordering could not hold for as long as it was to, for lack of room.
    pub hurried: u64,
    /// Lines for each sink that has any, in the order of the flow file.
    pub sinks: Vec<(String, u64)>,
    /// What nodes could not handle, by their names.
    pub failures: IndexMap<String, Failures>,
    /// Panics that stopped the flow.
    pub panics: Failures,
    /// Messages that came while the flow was stopped, or that its links did not take.
    pub missed: u64,
    /// Whether nodes still waited for a time when the replay ended.
    pub is_unsettled: bool,
}

/// How often something failed, and the first time.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    pub count: u64,
    pub first_at: Timestamp,
    pub first: String,
}

impl Failures {
    pub(super) fn add(&mut self, at: Timestamp, reason: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first_at = at;
            self.first = reason();
        }
        self.count += 1;
    }
}

/// One of the files.
#[derive(Clone, Debug, Default)]
pub struct FileReport {
    pub path: PathBuf,
    pub rows: u64,
    pub left_out: IndexMap<&'static str, LeftOut>,
}

/// Rows that are wrong in the same way.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    pub count: u64,
    pub first: Vec<RowProblem>,
}

impl Report {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    pub fn messages(&self) -> u64 {
        self.sinks.iter().map(|(_, count)| count).sum()
    }
}

impl FileReport {
    pub fn left_out(&self) -> u64 {
        self.left_out.values().map(|left_out| left_out.count).sum()
    }

    pub(super) fn leave_out(&mut self, problem: RowProblem) {
        let left_out = self.left_out.entry(problem.kind).or_default();
        left_out.count += 1;
        if left_out.first.len() < MOST_SHOWN {
            left_out.first.push(problem);
        }
    }
}
