//! What a flow did with recorded data, as a test that passes.
//!
//! The test feeds the files, and expects of each sink what came to it: how much in all, and the first messages with their times.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::check::{Beside, check};
use super::feeding::{FileRows, RowsError};
use super::run::{Recorded, record, run};
use super::test::Test;
use super::watch::words;
use crate::flow::diagnostic::{Diagnostic, Report};
use crate::flow::{Site, Variables, directory};
use crate::message::{Timestamp, Value};
use crate::replay::rows::RowOptions;

/// Messages of one sink that are written one by one; the rest of them are counted.
const MOST_WRITTEN: usize = 50;
/// How long a test goes on after the last row, if nothing is said.
const AFTER_THE_LAST: Duration = Duration::from_secs(60);

/// What to record.
#[derive(Debug)]
pub struct Recording {
    /// The flow's file.
    pub flow: PathBuf,
    /// Sources, and the files that they are fed.
    pub feeds: Vec<(String, PathBuf)>,
    /// How long the test lasts; a minute beyond the last row without it.
    pub lasts: Option<Duration>,
}

/// Why there is no test.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot make a test with {}", path.display())]
    File {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the flow cannot be recorded")]
    Mistakes(Vec<Diagnostic>),
    #[error("the test that was made does not pass, which is a fault of Tidegate: {0}")]
    DoesNotPass(String),
}

impl From<(PathBuf, RowsError)> for RecordError {
    fn from((path, error): (PathBuf, RowsError)) -> RecordError {
        RecordError::File {
            path,
            source: Box::new(error),
        }
    }
}

/// Where the test of a flow stands.
pub fn path_of_test(flow: &Path) -> PathBuf {
    flow.with_file_name(format!("{}.test.toml", directory::flow_name(flow)))
}

impl Recording {
    /// The text of a test file.
    pub fn text(&self) -> Result<String, RecordError> {
        let (steps, start, lasts) = self.steps()?;
        let begin = format!(
            "# Recorded by `tidegate test --record`: what the flow did with these files.\n\n[tests.recorded]\nstart = \"{start}\"\n\
             steps = [\n{steps}"
        );
        // To see what comes, it is enough that nothing is expected of it.
        let end = format!(
            "  {{ at = \"{}\", failures = {{ at_least = 0 }} }},\n",
            words(lasts)
        );
        let test = self.checked(&format!("{begin}{end}]\n"))?;
        let recorded = record(&test, MOST_WRITTEN);
        let mut text = begin;
        for step in expectations(&recorded, lasts) {
            let _ = writeln!(text, "  {step},");
        }
        text += "]\n";
        let outcome = run(&self.checked(&text)?);
        match outcome.unmet.first() {
            None => Ok(text),
            Some(unmet) => Err(RecordError::DoesNotPass(unmet.headline.clone())),
        }
    }

    /// The steps that feed, when the test starts, and how long it lasts.
    fn steps(&self) -> Result<(String, Timestamp, Duration), RecordError> {
        let mut spans = Vec::new();
        for (_, path) in &self.feeds {
            let span = span_of(path).map_err(|error| (path.clone(), error))?;
            spans.push(span);
        }
        let start = spans.iter().map(|(first, _)| *first).min();
        let start = start.unwrap_or_default();
        let mut steps = String::new();
        let mut last = Duration::ZERO;
        for ((node, path), (first, lasts)) in self.feeds.iter().zip(spans) {
            let at = first.saturating_since(start);
            last = last.max(at + lasts);
            let file = self.as_written(path);
            let until = match self.lasts {
                Some(until) => format!(
                    "from = \"{}\", to = \"{}\"",
                    words(at),
                    words(until.max(at))
                ),
                None => format!("at = \"{}\"", words(at)),
            };
            let _ = writeln!(
                steps,
                "  {{ {until}, feed.{} = {{ file = {} }} }},",
                key(node),
                quoted(&file.display().to_string())
            );
        }
        Ok((steps, start, self.lasts.unwrap_or(last + AFTER_THE_LAST)))
    }

    /// The path of a file as the test says it: relative to the test, unless it was given as an absolute path and lies elsewhere.
    fn as_written(&self, path: &Path) -> PathBuf {
        let full = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = self
            .flow
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let directory = std::fs::canonicalize(directory.unwrap_or(Path::new(".")));
        match directory {
            Ok(directory) if full.starts_with(&directory) || path.is_relative() => {
                relative(&full, &directory)
            }
            _ => full,
        }
    }

    fn checked(&self, text: &str) -> Result<Test, RecordError> {
        let mut site = Site::default();
        let loaded = site.load_more(&self.flow, |_| Variables::default());
        if let Err(source) = loaded {
            return Err(RecordError::File {
                path: self.flow.clone(),
                source: Box::new(source),
            });
        }
        let mut diagnostics = site.diagnostics;
        diagnostics.retain(Diagnostic::is_error);
        let is_flow_valid = diagnostics.is_empty();
        let mut report = Report::new(path_of_test(&self.flow).display().to_string(), text);
        let beside = Beside {
            directory: self.flow.parent().unwrap_or(Path::new("")).to_owned(),
            flow: self.flow.clone(),
        };
        let mut tests = check(&beside, is_flow_valid, &mut report);
        diagnostics.extend(report.into_diagnostics());
        match tests.pop() {
            Some(test) => Ok(test),
            None => Err(RecordError::Mistakes(diagnostics)),
        }
    }
}

/// The way from a directory to a file; both are absolute.
fn relative(file: &Path, directory: &Path) -> PathBuf {
    let shared = file
        .components()
        .zip(directory.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = directory
        .components()
        .skip(shared)
        .map(|_| Component::ParentDir);
    up.chain(file.components().skip(shared)).collect()
}

/// The time of a file's first row, and how long it lasts.
fn span_of(path: &Path) -> Result<(Timestamp, Duration), RowsError> {
    let mut rows = FileRows::open(path, &RowOptions::default())?;
    let first = rows.first();
    let mut last = Duration::ZERO;
    while let Some(row) = rows.next()? {
        last = row.after;
    }
    Ok((first, last))
}

/// What came, as steps.
fn expectations(recorded: &Recorded, lasts: Duration) -> Vec<String> {
    let mut steps = Vec::new();
    let end = words(lasts);
    for sink in &recorded.sinks {
        let name = key(&sink.name);
        let all = sink.count;
        steps.push(format!(
            "{{ from = \"0s\", to = \"{end}\", expect.{name} = {{ count = {all} }} }}"
        ));
        for item in &sink.items {
            let topic = match &*item.topic {
                "" => String::new(),
                topic => format!(", topic = {}", quoted(topic)),
            };
            if let Some(payload) = toml(&item.payload) {
                let at = words(item.at);
                steps.push(format!(
                    "{{ at = \"{at}\", expect.{name} = {{ payload = {payload}{topic} }} }}"
                ));
            }
        }
    }
    steps.push(format!(
        "{{ at = \"{end}\", failures = {} }}",
        recorded.failures
    ));
    steps
}

/// A name as a key of TOML.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A payload in one line. TOML has no null: fields that are null are left out, and of a list with one nothing can be said.
fn toml(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => toml::Value::Float(*number).to_string(),
        Value::Text(text) => quoted(text),
        Value::List(items) => {
            let items: Option<Vec<String>> = items.iter().map(toml).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .filter_map(|(name, value)| Some(format!("{} = {}", key(name), toml(value)?)));
            let fields: Vec<String> = fields.collect();
            format!("{{ {} }}", fields.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_a_form_in_toml_but_for_null() {
        let check = |json: &str, expected: Option<&str>| {
            let value: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(toml(&value).as_deref(), expected, "{json}");
        };
        check("null", None);
        check("4", Some("4.0"));
        check("0.1", Some("0.1"));
        check("true", Some("true"));
        check(r#""a\"b""#, Some("'a\"b'"));
        check("[1,\"x\"]", Some("[1.0, \"x\"]"));
        check("[1,null]", None);
        check(
            r#"{"a":1,"b c":{"d":[true]},"e":null}"#,
            Some("{ a = 1.0, \"b c\" = { d = [true] } }"),
        );
        assert_eq!(toml(&Value::Number(f64::NAN)).as_deref(), Some("nan"));
    }
}
