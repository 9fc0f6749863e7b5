//! Reads CSV text.

use super::{check_columns, first_repeated};
use crate::message::{Object, Text, Value};
use crate::nodes::bounds::{LONGEST_TEXT, MOST_VALUES};

pub(super) struct Reader {
    pub(super) columns: Option<Vec<Text>>,
    pub(super) has_header: bool,
    pub(super) separator: u8,
    /// Whether a field that is a number becomes one.
    pub(super) numbers: bool,
    /// Rows that a text may have.
    pub(super) most: usize,
}

impl Reader {
    /// The rows: objects, or lists where no columns are known.
    pub(super) fn read(&self, text: &str) -> Result<Vec<Value>, String> {
        if text.len() > LONGEST_TEXT {
            return Err(format!(
                "a text of {} bytes is too long: 1 MiB is the most",
                text.len()
            ));
        }
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.separator)
            .from_reader(text.as_bytes());
        let no_csv = |error: csv::Error| format!("the text is no CSV: {error}");
        let mut records = reader.records();
        let mut columns = self.columns.clone();
        if self.has_header {
            let header = records.next().transpose().map_err(no_csv)?;
            if columns.is_none() {
                check_columns(header.as_ref().map_or(0, csv::StringRecord::len))?;
                let names = header.iter().flatten().map(|name| name.trim().into());
                let names: Vec<Text> = names.collect();
                if let Some(twice) = first_repeated(&names) {
                    return Err(format!("the header names `{twice}` twice"));
                }
                columns = Some(names);
            }
        }
        let mut rows = Vec::new();
        let mut fields = 0;
        for record in records {
            let record = record.map_err(no_csv)?;
            fields += record.len();
            if rows.len() == self.most {
                return Err(format!("the text has more than {} rows", self.most));
            }
            if fields > MOST_VALUES {
                return Err(format!("the text has more than {MOST_VALUES} fields"));
            }
            let row = self.row(&record, columns.as_deref());
            rows.push(row.map_err(|wrong| format!("row {}: {wrong}", rows.len() + 1))?);
        }
        Ok(rows)
    }

    fn row(&self, record: &csv::StringRecord, columns: Option<&[Text]>) -> Result<Value, String> {
        let values = record.iter().map(|field| self.value(field));
        let Some(columns) = columns else {
            return Ok(Value::List(values.collect::<Vec<_>>().into()));
        };
        if record.len() != columns.len() {
            return Err(format!(
                "{} fields, where there are {} columns",
                record.len(),
                columns.len()
            ));
        }
        let fields: Object = columns.iter().cloned().zip(values).collect();
        Ok(Value::Object(fields.into()))
    }

    fn value(&self, field: &str) -> Value {
        if field.is_empty() {
            return Value::Null;
        }
        match number(field) {
            Some(number) if self.numbers => Value::Number(number),
            _ => field.into(),
        }
    }
}

/// The number that a field is, if it is one and nothing else.
fn number(field: &str) -> Option<f64> {
    let field = field.trim();
    let digits = field.strip_prefix('-').unwrap_or(field).as_bytes();
    let is_number = match digits {
        [b'0', next, ..] if next.is_ascii_digit() => false,
        [first, rest @ ..] => {
            let belongs = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
            (first.is_ascii_digit() || *first == b'.') && rest.iter().all(belongs)
        }
        [] => false,
    };
    let number = is_number.then(|| field.parse().ok()).flatten();
    number.filter(|number: &f64| number.is_finite())
}
