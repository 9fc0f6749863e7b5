//! What people read of tests: a line for each, and for one that fails what was expected, what came, and what may help.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::run::{Outcome, Unmet};
use super::watch::{Item, words};
use crate::flow::diagnostic::{Diagnostic, Severity};
use crate::runtime::node::excerpt;

/// The whole of a run in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub tests: usize,
    pub failed: usize,
    /// How much time passed for the flows, in seconds.
    pub flow_seconds: f64,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// How many times as fast as real time that is.
    pub factor: f64,
}

impl Summary {
    pub fn of(outcomes: &[Outcome], took: Duration) -> Summary {
        let flow_time: Duration = outcomes.iter().map(|outcome| outcome.flow_time).sum();
        let seconds = took.as_secs_f64();
        let flow_seconds = flow_time.as_secs_f64();
        Summary {
            tests: outcomes.len(),
            failed: outcomes.iter().filter(|it| !it.has_passed()).count(),
            flow_seconds,
            seconds,
            factor: if seconds > 0.0 {
                flow_seconds / seconds
            } else {
                0.0
            },
        }
    }
}

/// One line.
impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.tests == 1 { "test" } else { "tests" };
        let flow_time = Duration::from_secs(self.flow_seconds as u64);
        write!(
            f,
            "{} {word}: {} passed, {} failed; {} of flow time in {:.2} s, {} times as fast as real time",
            self.tests,
            self.tests - self.failed,
            self.failed,
            words(flow_time),
            self.seconds,
            with_commas(self.factor)
        )
    }
}

fn with_commas(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A test in one line.
pub fn line(outcome: &Outcome) -> String {
    let word = if outcome.has_passed() { "ok  " } else { "FAIL" };
    let (name, time) = (outcome.full_name(), words(outcome.flow_time));
    format!("{word}  {name}  ({time})")
}

/// All that is to be said of a test that has failed.
pub fn failure(outcome: &Outcome, color: bool) -> String {
    let mut text = format!("---- {}\n\n", outcome.full_name());
    for unmet in &outcome.unmet {
        text += &one(outcome, unmet, color);
        text.push('\n');
    }
    if !outcome.failures.is_empty() {
        text += "what nodes could not handle:\n";
        for (at, reason) in &outcome.failures {
            let _ = writeln!(text, "  {:>10}  {reason}", words(*at));
        }
        let told = outcome.failures.len() as u64;
        if outcome.failure_count > told {
            let _ = writeln!(text, "  ... and {} more", outcome.failure_count - told);
        }
        text.push('\n');
    }
    text
}

fn one(outcome: &Outcome, unmet: &Unmet, color: bool) -> String {
    let step = Diagnostic {
        severity: Severity::Error,
        source: outcome.source.clone(),
        span: unmet.span.clone(),
        message: unmet.headline.clone(),
        help: None,
    };
    let mut text = step.render(color) + "\n";
    let width = unmet.differences.iter().map(|it| it.path.chars().count());
    let width = width.max().unwrap_or_default();
    let gap = if width > 0 { " " } else { "" };
    for difference in &unmet.differences {
        let path = &difference.path;
        let _ = writeln!(
            text,
            "  expected  {path:width$}{gap}{}",
            difference.expected
        );
        let _ = writeln!(text, "  but was   {path:width$}{gap}{}", difference.found);
    }
    if let Some(subject) = &unmet.subject
        && !(unmet.before.is_empty() && unmet.after.is_empty())
    {
        let _ = writeln!(text, "\n  {subject}:");
        // A wrong number is seen in all of them, a wrong message in the latest.
        let is_number = unmet.differences.iter().any(|it| it.path == "count");
        let hidden = match is_number {
            true => 0,
            false => unmet.before.len().saturating_sub(SHOWN_OF_LATEST),
        };
        let shown = || unmet.before[hidden..].iter().chain(&unmet.after);
        let width = shown().map(|item| words(item.at).len()).max();
        for item in shown() {
            let _ = writeln!(
                text,
                "    {}",
                item_in_words(item, width.unwrap_or_default())
            );
        }
    }
    for hint in &unmet.hints {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

/// What is shown of what came before a message that is not right.
const SHOWN_OF_LATEST: usize = 4;

fn item_in_words(item: &Item, width: usize) -> String {
    let at = words(item.at);
    let payload = match &item.payload {
        number @ crate::message::Value::Number(_) => excerpt(number),
        other => shortened(&other.to_json()),
    };
    match &*item.topic {
        "" => format!("{at:>width$}  {payload}"),
        topic => format!("{at:>width$}  {topic}  {payload}"),
    }
}

/// The start of a text; enough for the result of a window.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A test as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct TestAsJson {
    pub flow: String,
    pub test: String,
    pub passed: bool,
    pub file: String,
    pub line: usize,
    pub flow_seconds: f64,
    pub seconds: f64,
    pub unmet: Vec<UnmetAsJson>,
    /// What nodes could not handle.
    pub failures: u64,
}

#[derive(Debug, Serialize)]
pub struct UnmetAsJson {
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub differences: Vec<DifferenceAsJson>,
    pub hints: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct DifferenceAsJson {
    pub path: String,
    pub expected: String,
    pub found: String,
}

impl TestAsJson {
    pub fn of(outcome: &Outcome) -> TestAsJson {
        let unmet = outcome.unmet.iter().map(|unmet| {
            let (line, column) = outcome.source.line_and_column(unmet.span.start);
            let differences = unmet.differences.iter().map(|it| DifferenceAsJson {
                path: it.path.clone(),
                expected: it.expected.clone(),
                found: it.found.clone(),
            });
            UnmetAsJson {
                line,
                column,
                message: unmet.headline.clone(),
                differences: differences.collect(),
                hints: unmet.hints.clone(),
            }
        });
        TestAsJson {
            flow: outcome.flow.clone(),
            test: outcome.test.clone(),
            passed: outcome.has_passed(),
            file: outcome.file().to_owned(),
            line: outcome.line(),
            flow_seconds: outcome.flow_time.as_secs_f64(),
            seconds: outcome.took.as_secs_f64(),
            unmet: unmet.collect(),
            failures: outcome.failure_count,
        }
    }
}
