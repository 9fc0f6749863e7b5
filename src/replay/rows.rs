//! Rows of a file: CSV with a header, or JSON Lines, as messages that a source might have sent.
//!
//! A row has a time, a payload and perhaps a topic. One that cannot be read is a [`RowProblem`] and ends nothing; what makes the
//! whole file useless is a [`FileError`]. Memory is bounded: a row has at most [`LONGEST_ROW`] bytes.
//!
//! Terms: a *column* is one of a CSV file, or a field of the objects of JSON Lines.
//!
//! Must not: know flows, or put rows into another order.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::columns::Columns;
use super::lines::Lines;
use super::objects::Objects;
use super::times::Times;
use crate::message::{Text, Timestamp, Value};

/// Bytes that a row may have.
pub const LONGEST_ROW: usize = 1 << 20;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub time: Timestamp,
    /// None if the file has no column for it, or the row nothing in that.
    pub topic: Option<Text>,
    pub payload: Value,
}

/// What is wrong with a row, which is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowProblem {
    /// Where the row begins; the first line is 1.
    pub line: u64,
    /// The same for all rows that are wrong in the same way, to count them by.
    pub kind: &'static str,
    /// What is wrong with this one.
    pub message: String,
}

/// How to read a file.
#[derive(Clone, Debug)]
pub struct RowOptions {
    pub time_column: String,
    pub payload_column: String,
    /// Where times without an offset were written down.
    pub time_zone: Option<TimeZone>,
}

impl Default for RowOptions {
    fn default() -> RowOptions {
        RowOptions {
            time_column: "time".into(),
            payload_column: "payload".into(),
            time_zone: None,
        }
    }
}

/// The column that is the topic.
pub(super) const TOPIC: &str = "topic";

/// A file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open {}; check the path, and that this user may read it", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {} any further, after line {line}", path.display())]
    Read {
        path: PathBuf,
        line: u64,
        source: io::Error,
    },
    #[error("{} is compressed; unpack it first, as in: gunzip -c FILE | tidegate replay FLOW --feed NODE=-", path.display())]
    Compressed { path: PathBuf },
    #[error("{} is no text in UTF-8; it must be CSV with a header, or JSON Lines: save it as one of these, in UTF-8", path.display())]
    NotText { path: PathBuf },
    #[error("{} is one JSON array; JSON Lines have an object on each line: convert it, as in: jq -c '.[]' FILE", path.display())]
    JsonArray { path: PathBuf },
    #[error("{} is empty; it must have a header (CSV), or an object on each line (JSON Lines)", path.display())]
    Empty { path: PathBuf },
    #[error("the header of {} (line {line}): {message}", path.display())]
    Header {
        path: PathBuf,
        line: u64,
        message: String,
    },
    #[error("the times of {} say no offset from UTC, as `{time}` on line {line}; say what they are in: --time-zone Europe/Berlin, or --time-zone UTC", path.display())]
    NoOffset {
        path: PathBuf,
        line: u64,
        time: String,
    },
}

/// The rows of one file, one after the other.
pub struct Rows {
    path: PathBuf,
    lines: Lines<Box<dyn Read + Send>>,
    times: Times,
    format: Format,
    /// Whether a row has been read, good or bad.
    has_begun: bool,
}

enum Format {
    Csv(Box<Columns>),
    JsonLines(Objects),
}

/// Opens a file and reads its header, if it has one. `-` is the standard input.
pub fn open(path: &Path, options: &RowOptions) -> Result<Rows, FileError> {
    let source: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path).map_err(|source| FileError::Open {
            path: path.into(),
            source,
        })?;
        Box::new(file)
    };
    Rows::new(path, source, options)
}

impl Rows {
    /// The rows of what is read from `source`; `path` is what messages and the choice of the format go by.
    pub fn new(
        path: &Path,
        source: Box<dyn Read + Send>,
        options: &RowOptions,
    ) -> Result<Rows, FileError> {
        let mut lines = Lines::new(source, LONGEST_ROW);
        let read = |source| FileError::Read {
            path: path.into(),
            line: 0,
            source,
        };
        let is_json = is_json(path, lines.begin().map_err(read)?)?;
        let format = if is_json {
            Format::JsonLines(Objects::new(options))
        } else {
            Format::Csv(Box::new(Columns::read(path, &mut lines, options)?))
        };
        Ok(Rows {
            path: path.into(),
            lines,
            times: Times::new(options.time_zone.clone()),
            format,
            has_begun: false,
        })
    }

    /// The next row; none at the end of the file.
    pub fn read(&mut self) -> Result<Option<Result<Row, RowProblem>>, FileError> {
        let row = match &mut self.format {
            Format::Csv(columns) => columns.row(&mut self.lines, &mut self.times),
            Format::JsonLines(objects) => objects.row(&mut self.lines, &mut self.times),
        };
        let row = row.map_err(|source| FileError::Read {
            path: self.path.clone(),
            line: self.lines.line() - 1,
            source,
        })?;
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first && let Some(time) = self.times.without_offset() {
            return Err(FileError::NoOffset {
                path: self.path.clone(),
                line: row.and_then(Result::err).map_or(1, |problem| problem.line),
                time,
            });
        }
        Ok(row)
    }

    /// Bytes of the file that have been read so far.
    pub fn position(&self) -> u64 {
        self.lines.position()
    }
}

/// Whether a file has JSON Lines: by its name's ending, or else by its first character.
fn is_json(path: &Path, beginning: &[u8]) -> Result<bool, FileError> {
    let path = || path.to_path_buf();
    match beginning {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'P', b'K', 3, 4, ..] => {
            return Err(FileError::Compressed { path: path() });
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(FileError::NotText { path: path() }),
        _ => {}
    }
    let ending = path().extension().map(|ending| ending.to_ascii_lowercase());
    let first = beginning.trim_ascii_start().first();
    match ending.as_ref().and_then(|ending| ending.to_str()) {
        // No header begins so, and the line may never end.
        Some("csv") | None if first == Some(&0) => Err(FileError::NotText { path: path() }),
        Some("csv") => Ok(false),
        _ if first == Some(&b'[') => Err(FileError::JsonArray { path: path() }),
        Some("jsonl" | "ndjson") => Ok(true),
        _ => Ok(first == Some(&b'{')),
    }
}
