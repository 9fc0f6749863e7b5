//! Writes CSV text.

use indexmap::IndexSet;

use super::check_columns;
use crate::message::{Text, Value};
use crate::nodes::bounds;

pub(super) struct Writer {
    pub(super) columns: Option<Vec<Text>>,
    pub(super) has_header: bool,
    pub(super) separator: u8,
}

impl Writer {
    pub(super) fn write(&self, value: &Value) -> Result<String, String> {
        let is_row = |value: &Value| matches!(value, Value::List(_) | Value::Object(_));
        let rows = match value {
            Value::List(items) if items.iter().any(is_row) => &items[..],
            Value::List(items) if items.is_empty() => &[],
            Value::List(_) | Value::Object(_) => std::slice::from_ref(value),
            other => {
                return Err(format!(
                    "needs an object or a list, but the payload is {}",
                    other.kind()
                ));
            }
        };
        let found;
        let columns = match &self.columns {
            Some(columns) => columns,
            None => {
                found = columns_of(rows)?;
                &found
            }
        };
        let mut text = CsvText::new(self.separator);
        if self.has_header && !columns.is_empty() {
            text.add_row(columns.iter().map(|name| Ok(name.to_string())))?;
        }
        for (place, row) in rows.iter().enumerate() {
            match row {
                Value::Object(fields) => text.add_row(columns.iter().map(|name| {
                    let field = fields.get(name).unwrap_or(&Value::Null);
                    to_field(field)
                }))?,
                Value::List(items) => text.add_row(items.iter().map(to_field))?,
                other => {
                    let kind = other.kind();
                    return Err(format!(
                        "a row must be an object or a list, and item {place} is {kind}"
                    ));
                }
            }
        }
        text.finish()
    }
}

/// The names of all fields, in the order in which they appear.
fn columns_of(rows: &[Value]) -> Result<Vec<Text>, String> {
    let mut columns = IndexSet::new();
    for row in rows {
        if let Value::Object(fields) = row {
            columns.extend(fields.keys().cloned());
            check_columns(columns.len())?;
        }
    }
    Ok(columns.into_iter().collect())
}

fn to_field(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Number(number) if !number.is_finite() => Ok(String::new()),
        Value::Text(text) => Ok(text.to_string()),
        other => bounds::to_json(other),
    }
}

/// CSV text that is being written, up to its greatest length.
struct CsvText {
    writer: csv::Writer<Vec<u8>>,
    /// At least so much was written: without quotes.
    bytes: usize,
}

impl CsvText {
    fn new(separator: u8) -> CsvText {
        let mut builder = csv::WriterBuilder::new();
        let builder = builder.flexible(true).delimiter(separator);
        CsvText {
            writer: builder.from_writer(Vec::new()),
            bytes: 0,
        }
    }

    fn add_row(
        &mut self,
        fields: impl Iterator<Item = Result<String, String>>,
    ) -> Result<(), String> {
        for field in fields {
            let field = field?;
            self.bytes += field.len() + 1;
            bounds::check_text(self.bytes)?;
            self.writer
                .write_field(&field)
                .map_err(|error| error.to_string())?;
        }
        self.writer
            .write_record(None::<&[u8]>)
            .map_err(|error| error.to_string())
    }

    fn finish(self) -> Result<String, String> {
        let text = self
            .writer
            .into_inner()
            .map_err(|error| error.to_string())?;
        bounds::check_text(text.len())?;
        Ok(String::from_utf8(text).expect("it was made of text"))
    }
}
