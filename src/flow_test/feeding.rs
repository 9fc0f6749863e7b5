//! What feeds send: payloads, plain or by JavaScript of the time and the number of the repetition; rows of files.

use std::path::Path;
use std::time::Duration;

use super::test::{Action, Fed, FedPayload, Feed, Test};
use crate::flow::script::{Compiled, Sandbox, ScriptError};
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::replay::rows::{self, FileError, Row, RowOptions, Rows};

/// The formulas of a test, ready to be evaluated.
pub(super) struct Formulas {
    /// By step and action.
    compiled: Vec<Vec<Option<Compiled>>>,
}

impl Formulas {
    pub(super) fn compile(test: &Test) -> Result<Formulas, ScriptError> {
        let mut sandbox = None;
        let mut compile = |action: &Action| {
            let Action::Feed(Feed {
                what:
                    Fed::Message {
                        payload: FedPayload::Formula(formula),
                        ..
                    },
                ..
            }) = action
            else {
                return Ok(None);
            };
            // They see the variables of the test's flow, whose node they feed or not.
            let sandbox = match &sandbox {
                Some(sandbox) => sandbox,
                None => sandbox.insert(Sandbox::new(test.flows[0].vars())?),
            };
            sandbox.compile(&formula.expression, &[]).map(Some)
        };
        let steps = test.steps.iter();
        let compiled = steps.map(|step| step.actions.iter().map(&mut compile).collect());
        Ok(Formulas {
            compiled: compiled.collect::<Result<_, _>>()?,
        })
    }

    /// What a feed sends at a time, in its repetition of that number.
    pub(super) fn payload(
        &self,
        (step, action): (usize, usize),
        feed: &Feed,
        time: Duration,
        number: u64,
    ) -> Result<Value, ScriptError> {
        match (&self.compiled[step][action], &feed.what) {
            (Some(compiled), _) => {
                let now = [
                    ("t", Value::Number(time.as_secs_f64())),
                    ("n", Value::Number(number as f64)),
                ];
                compiled.value(&Message {
                    topic: "".into(),
                    payload: Value::object(now),
                    time: Timestamp::default(),
                    source: NodeId(0),
                    headers: None,
                })
            }
            (
                None,
                Fed::Message {
                    payload: FedPayload::Plain(payload),
                    ..
                },
            ) => Ok(payload.clone()),
            (None, _) => Ok(Value::Null),
        }
    }
}

/// The rows of a file, in the time of the test.
pub(super) struct FileRows {
    rows: Rows,
    first: Timestamp,
    /// The latest time that a row had, counted from the first row.
    latest: Duration,
    next: Option<Row>,
}

/// A row, and when it comes, counted from the first row.
pub(super) struct TimedRow {
    pub(super) after: Duration,
    /// How much earlier than that its own time is: rows need not be in order.
    pub(super) late: Duration,
    pub(super) row: Row,
}

/// Why a file cannot be fed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("line {line} cannot be read: {message}")]
    Row { line: u64, message: String },
    #[error("there is no row in the file")]
    NoRow,
}

impl FileRows {
    pub(super) fn open(path: &Path, options: &RowOptions) -> Result<FileRows, RowsError> {
        let mut rows = rows::open(path, options)?;
        let first = read(&mut rows)?.ok_or(RowsError::NoRow)?;
        Ok(FileRows {
            rows,
            first: first.time,
            latest: Duration::ZERO,
            next: Some(first),
        })
    }

    /// The time of the first row.
    pub(super) fn first(&self) -> Timestamp {
        self.first
    }

    /// The next row. It never comes before one that stands before it.
    pub(super) fn next(&mut self) -> Result<Option<TimedRow>, RowsError> {
        let row = match self.next.take() {
            Some(row) => row,
            None => match read(&mut self.rows)? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        self.latest = self.latest.max(row.time.saturating_since(self.first));
        let latest = self.first.saturating_add(self.latest);
        Ok(Some(TimedRow {
            after: self.latest,
            late: latest.saturating_since(row.time),
            row,
        }))
    }
}

/// In a test a row that cannot be read is a mistake.
fn read(rows: &mut Rows) -> Result<Option<Row>, RowsError> {
    rows.read()?.transpose().map_err(|problem| RowsError::Row {
        line: problem.line,
        message: problem.message,
    })
}
