//! Rows of CSV (RFC 4180): a header names the columns, a row has as many fields.
//!
//! Lines without a quotation mark, which are nearly all, are cut at their commas; others go through the library, which knows
//! what quotation marks mean.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use csv_core::{ReadRecordResult, Reader};
use memchr::{memchr, memchr_iter};

use super::fields::{self, Topics};
use super::lines::{Found, Lines, without_end};
use super::rows::{FileError, LONGEST_ROW, Row, RowOptions, RowProblem, TOPIC};
use super::times::{Times, shortened};
use crate::flow::diagnostic::nearest;
use crate::message::{Object, Text, Value};

/// What to say of line ends that old programs write, which would join lines and lose rows.
const CARRIAGE_RETURN: &str = "a carriage return without a line feed ends nothing here; if all lines end so, convert the file, \
                               as in: tr '\\r' '\\n' < FILE";

/// Columns that a file may have.
const MOST_COLUMNS: usize = 10_000;

/// The columns of a file.
pub(super) struct Columns {
    count: usize,
    time: usize,
    topic: Option<usize>,
    payload: Payload,
    topics: Topics,
    record: Record,
}

enum Payload {
    Column(usize),
    Object(Template),
}

/// The object that the other columns make.
struct Template {
    /// Their places.
    places: Vec<usize>,
    /// All of them, with nothing in them.
    empty: Object,
    /// Rows that may still share the names in it.
    shared: usize,
}

impl Template {
    fn empty(&mut self) -> Object {
        if self.shared == 0 {
            let names = self.empty.keys();
            self.empty = names
                .map(|name| (Text::from(&**name), Value::Null))
                .collect();
            self.shared = fields::SHARED;
        }
        self.shared -= 1;
        self.empty.clone()
    }
}

impl Columns {
    /// Reads the header.
    pub(super) fn read(
        path: &Path,
        lines: &mut Lines<impl Read>,
        options: &RowOptions,
    ) -> Result<Columns, FileError> {
        let mut record = Record::default();
        let read = record.read(lines).map_err(|source| FileError::Read {
            path: path.into(),
            line: 0,
            source,
        })?;
        let line = record.line;
        let wrong = |message: String| FileError::Header {
            path: path.into(),
            line,
            message,
        };
        match read {
            None => return Err(FileError::Empty { path: path.into() }),
            Some(Err(problem)) => return Err(wrong(problem.message)),
            Some(Ok(())) => {}
        }
        let mut names: Vec<Text> = Vec::new();
        for place in 0..record.count() {
            let Ok(name) = std::str::from_utf8(record.field(place)) else {
                return Err(FileError::NotText { path: path.into() });
            };
            if name.contains('\0') {
                return Err(FileError::NotText { path: path.into() });
            }
            let name = name.trim();
            if name.contains('\r') {
                return Err(wrong(CARRIAGE_RETURN.into()));
            }
            names.push(name.into());
        }
        Columns::of(&names, options, record).map_err(wrong)
    }

    fn of(names: &[Text], options: &RowOptions, record: Record) -> Result<Columns, String> {
        if names.len() > MOST_COLUMNS {
            return Err(format!("more than {MOST_COLUMNS} columns"));
        }
        let find = |name: &str| names.iter().position(|other| **other == *name);
        let time = find(&options.time_column).ok_or_else(|| without_time(names, options))?;
        let payload = match find(&options.payload_column) {
            Some(place) => Payload::Column(place),
            None if options.payload_column != RowOptions::default().payload_column => {
                return Err(without_payload(names, options));
            }
            None => {
                let topic = find(TOPIC);
                let others = (0..names.len()).filter(|place| {
                    *place != time && Some(*place) != topic && !names[*place].is_empty()
                });
                let places: Vec<usize> = others.collect();
                let empty = places
                    .iter()
                    .map(|place| (names[*place].clone(), Value::Null));
                let empty: Object = empty.collect();
                if empty.len() < places.len() {
                    let twice = places
                        .iter()
                        .find(|place| find(&names[**place]) != Some(**place));
                    let twice = twice.map_or("", |place| &names[*place]);
                    return Err(format!(
                        "it names the column `{twice}` twice; give one of them another name"
                    ));
                }
                Payload::Object(Template {
                    places,
                    empty,
                    shared: fields::SHARED,
                })
            }
        };
        Ok(Columns {
            count: names.len(),
            time,
            topic: find(TOPIC),
            payload,
            topics: Topics::default(),
            record,
        })
    }

    /// The next row; lines with nothing in them are passed over.
    pub(super) fn row(
        &mut self,
        lines: &mut Lines<impl Read>,
        times: &mut Times,
    ) -> io::Result<Option<Result<Row, RowProblem>>> {
        Ok(self.record.read(lines)?.map(|read| {
            read?;
            self.make(times)
        }))
    }

    #[inline]
    fn make(&mut self, times: &mut Times) -> Result<Row, RowProblem> {
        let record = &self.record;
        if record.count() != self.count {
            let message = format!(
                "{} fields, but the header names {} columns",
                record.count(),
                self.count
            );
            return Err(record.problem("with the wrong number of fields", message));
        }
        let time = times
            .read(record.field(self.time))
            .map_err(|problem| record.problem(problem.kind(), problem.to_string()))?;
        let topic = match self.topic {
            Some(place) => self.topics.topic(record.text(place)?),
            None => None,
        };
        let payload = match &mut self.payload {
            Payload::Column(place) => record.value(*place)?,
            Payload::Object(template) => {
                let mut object = template.empty();
                let mut is_complete = true;
                for (value, place) in object.values_mut().zip(&template.places) {
                    *value = record.value(*place)?;
                    is_complete &= *value != Value::Null;
                }
                if !is_complete {
                    object.retain(|_, value| *value != Value::Null);
                }
                Value::Object(Arc::new(object))
            }
        };
        Ok(Row {
            time,
            topic,
            payload,
        })
    }
}

/// What to say of a header in which there is no time.
fn without_time(names: &[Text], options: &RowOptions) -> String {
    let time = &options.time_column;
    let mut message = format!("it has no column `{time}`");
    if let [name] = names
        && let Some(separator) = [";", "\t", "|"].into_iter().find(|it| name.contains(*it))
    {
        message += &format!(
            "; columns are separated by commas, here there is `{}`",
            separator.escape_default()
        );
        return message;
    }
    if names
        .iter()
        .any(|name| fields::value(name.as_bytes()).is_some_and(|it| it.as_number().is_some()))
    {
        return message + "; the first line must name the columns, and this one has numbers";
    }
    let known = names.iter().map(|name| &**name);
    message += &format!("; its columns are {}", listed(names));
    let near =
        nearest(time, known.clone()).or_else(|| known.clone().find(|name| is_like_time(name)));
    match near {
        Some(near) => message + &format!("; is it --time-column {}?", shortened(near)),
        None => message + "; name the one with the time: --time-column NAME",
    }
}

fn without_payload(names: &[Text], options: &RowOptions) -> String {
    let payload = &options.payload_column;
    let mut message = format!(
        "it has no column `{payload}`; its columns are {}",
        listed(names)
    );
    let known = names.iter().map(|name| &**name);
    // Upper and lower case count.
    let same = known
        .clone()
        .find(|name| name.eq_ignore_ascii_case(payload));
    if let Some(near) = same.or_else(|| nearest(payload, known)) {
        message += &format!("; is it --payload-column {}?", shortened(near));
    }
    message
}

fn listed(names: &[Text]) -> String {
    const MOST: usize = 12;
    let shown = names.iter().take(MOST);
    let shown: Vec<String> = shown.map(|name| format!("`{}`", shortened(name))).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn is_like_time(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["time", "date", "ts"]
        .iter()
        .any(|word| name.starts_with(word) || name.ends_with(word))
}

/// One record: where its fields are.
#[derive(Default)]
struct Record {
    /// The line that it begins on.
    line: u64,
    /// The fields, one after the other, perhaps with something between them.
    text: Vec<u8>,
    fields: Vec<Range<usize>>,
    quoted: Quoted,
}

impl Record {
    fn count(&self) -> usize {
        self.fields.len()
    }

    #[inline]
    fn field(&self, place: usize) -> &[u8] {
        &self.text[self.fields[place].clone()]
    }

    fn text(&self, place: usize) -> Result<&str, RowProblem> {
        std::str::from_utf8(self.field(place)).map_err(|_| self.not_utf8(place))
    }

    #[inline]
    fn value(&self, place: usize) -> Result<Value, RowProblem> {
        fields::value(self.field(place)).ok_or_else(|| self.not_utf8(place))
    }

    fn not_utf8(&self, place: usize) -> RowProblem {
        let field = shortened(&self.field(place).escape_ascii().to_string());
        self.problem(
            "not in UTF-8",
            format!("field {} is not in UTF-8: {field}", place + 1),
        )
    }

    fn problem(&self, kind: &'static str, message: String) -> RowProblem {
        RowProblem {
            line: self.line,
            kind,
            message,
        }
    }

    /// Reads the next record that is not an empty line; none at the end.
    fn read(&mut self, lines: &mut Lines<impl Read>) -> io::Result<Option<Result<(), RowProblem>>> {
        loop {
            self.line = lines.line();
            let length = match lines.end_of_line(0)? {
                Found::Nothing => return Ok(None),
                Found::TooLong => {
                    lines.skip_line()?;
                    let message = format!("the line is longer than {LONGEST_ROW} bytes");
                    return Ok(Some(Err(self.problem("too long", message))));
                }
                Found::End(length) => length,
            };
            let line = without_end(lines.text(length));
            if line.is_empty() {
                lines.take(length, 1);
                continue;
            }
            if memchr(b'"', line).is_some() {
                return self.read_quoted(lines, length).map(Some);
            }
            self.text.clear();
            self.text.extend_from_slice(line);
            self.fields.clear();
            let mut start = 0;
            for comma in memchr_iter(b',', line) {
                self.fields.push(start..comma);
                start = comma + 1;
            }
            self.fields.push(start..line.len());
            lines.take(length, 1);
            return Ok(Some(Ok(())));
        }
    }

    /// A record with quotation marks, which may go on over several lines. If it does not end, its first line is given up.
    fn read_quoted(
        &mut self,
        lines: &mut Lines<impl Read>,
        first: usize,
    ) -> io::Result<Result<(), RowProblem>> {
        self.quoted.begin();
        let (mut from, mut to, mut count) = (0, first, 1);
        loop {
            if self.quoted.add(&lines.text(to)[from..]) {
                break;
            }
            match lines.end_of_line(to)? {
                Found::End(length) => (from, to, count) = (to, length, count + 1),
                // A last line without its end.
                Found::Nothing if self.quoted.finish() => break,
                Found::Nothing | Found::TooLong => {
                    lines.take(first, 1);
                    let message = "a quotation mark opens a field that does not end".to_owned();
                    return Ok(Err(
                        self.problem("with a quotation mark that is not closed", message)
                    ));
                }
            }
        }
        lines.take(to, count);
        if self.quoted.is_more_left {
            return Ok(Err(
                self.problem("with a carriage return", CARRIAGE_RETURN.to_owned())
            ));
        }
        self.text.clear();
        self.text
            .extend_from_slice(&self.quoted.output[..self.quoted.written]);
        self.fields.clear();
        let mut start = 0;
        for end in &self.quoted.ends[..self.quoted.ended] {
            self.fields.push(start..*end);
            start = *end;
        }
        Ok(Ok(()))
    }
}

/// The library's reader, with the memory that it works in.
struct Quoted {
    reader: Reader,
    output: Vec<u8>,
    written: usize,
    ends: Vec<usize>,
    ended: usize,
    /// Whether the record was at its end before the line was: for the library a carriage return ends it.
    is_more_left: bool,
}

impl Default for Quoted {
    fn default() -> Quoted {
        Quoted {
            // Its own `default` knows no commas.
            reader: Reader::new(),
            output: Vec::new(),
            written: 0,
            ends: Vec::new(),
            ended: 0,
            is_more_left: false,
        }
    }
}

impl Quoted {
    fn begin(&mut self) {
        self.reader.reset();
        self.written = 0;
        self.ended = 0;
        self.is_more_left = false;
    }

    /// Takes a line; says whether the record ends with it.
    fn add(&mut self, mut line: &[u8]) -> bool {
        // No field is longer than what it is made of, and there are no more fields than bytes.
        self.output
            .resize(self.output.len().max(self.written + line.len()), 0);
        self.ends
            .resize(self.ends.len().max(self.ended + line.len() + 1), 0);
        loop {
            let (result, read, written, ended) = self.reader.read_record(
                line,
                &mut self.output[self.written..],
                &mut self.ends[self.ended..],
            );
            line = &line[read..];
            self.written += written;
            self.ended += ended;
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => {
                    self.is_more_left = line.iter().any(|byte| !b"\r\n".contains(byte));
                    return true;
                }
                ReadRecordResult::InputEmpty => return false,
                ReadRecordResult::OutputFull => self.output.resize(2 * self.output.len() + 1, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len() + 1, 0),
            }
        }
    }

    /// The file has ended; says whether the record is complete.
    fn finish(&mut self) -> bool {
        // An open quotation would be closed by the end of the file, without a word.
        self.add(b"\n")
    }
}
