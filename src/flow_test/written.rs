//! A test file as it was written: tests and steps with their places; no name in it is looked up yet.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{OutboxOptions, StepOptions, TestOptions, hint_of_step};
use crate::flow::diagnostic::{Report, Source, did_you_mean, nearest};
use crate::flow::file::is_node_name;
use crate::flow::options;

/// A test file.
#[derive(Debug, Default)]
pub(super) struct WrittenFile<'a> {
    pub(super) tests: Vec<WrittenTest<'a>>,
}

/// A test, as far as its own keys are right.
#[derive(Debug)]
pub(super) struct WrittenTest<'a> {
    pub(super) name: Spanned<String>,
    pub(super) options: TestOptions,
    pub(super) outbox: Option<OutboxOptions>,
    /// All its entries, for their places.
    pub(super) table: DeTable<'a>,
    pub(super) steps: Vec<WrittenStep<'a>>,
}

/// A step, as far as its own keys are right. The tables in it are read by whoever knows the flow.
#[derive(Debug)]
pub(super) struct WrittenStep<'a> {
    pub(super) span: Range<usize>,
    pub(super) options: StepOptions,
    /// Whether all of its keys are known and right.
    pub(super) is_complete: bool,
    pub(super) table: DeTable<'a>,
}

/// Reads the text of a test file. What is wrong goes to the report; what is right is returned.
pub(super) fn parse<'a>(source: &'a Source, report: &mut Report) -> WrittenFile<'a> {
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        report.error(span, error.message().to_owned(), None);
    }
    // After a syntax error, entries land where they do not belong.
    let is_broken = report.has_errors();
    let mut file = WrittenFile::default();
    let mut has_tests = false;
    for (key, value) in root.into_inner() {
        match key.get_ref().as_ref() {
            "description" => {
                if value.get_ref().as_str().is_none() {
                    report.error(value.span(), "`description` must be text in quotes", None);
                }
            }
            "tests" => {
                has_tests = true;
                match value.into_inner() {
                    DeValue::Table(tests) => {
                        for (name, value) in tests {
                            let name = Spanned::new(name.span(), name.get_ref().to_string());
                            file.tests.extend(test(name, value, report));
                        }
                    }
                    _ => report.error(key.span(), "`tests` must be tables: [tests.NAME]", None),
                }
            }
            _ if is_broken => {}
            other => {
                has_tests |= nearest(other, ["tests"]).is_some();
                let help = did_you_mean(other, ["description", "tests"])
                    .unwrap_or_else(|| "it has `description` and [tests.NAME]".into());
                let message = format!("a test file has no `{other}`");
                report.error(key.span(), message, Some(help));
            }
        }
    }
    if !has_tests && !is_broken {
        let help = "a test is a table: [tests.NAME]";
        report.error(0..0, "there is no test in the file", Some(help.into()));
    }
    file
}

fn test<'a>(
    name: Spanned<String>,
    value: Spanned<DeValue<'a>>,
    report: &mut Report,
) -> Option<WrittenTest<'a>> {
    let span = name.span();
    if !is_node_name(name.get_ref()) {
        let help = "lower-case letters, digits, `_` and `-`";
        let message = format!("`{}` is no name for a test", name.get_ref());
        report.error(span.clone(), message, Some(help.into()));
    }
    let DeValue::Table(table) = value.into_inner() else {
        let message = format!("`{0}` must be a table: [tests.{0}]", name.get_ref());
        report.error(span, message, None);
        return None;
    };
    let what = format!("the test `{}`", name.get_ref());
    let options = options::read::<TestOptions>(&table, span, &what, report).read;
    let outbox = table.get("outbox").and_then(|value| {
        let inner = value.get_ref().as_table()?;
        options::read(inner, value.span(), "`outbox` of a test", report).read
    });
    let mut steps = Vec::new();
    let written = table
        .get("steps")
        .and_then(|steps| steps.get_ref().as_array());
    for value in written.into_iter().flat_map(|steps| steps.iter()) {
        steps.extend(step(value, report));
    }
    Some(WrittenTest {
        name,
        options: options?,
        outbox,
        table,
        steps,
    })
}

fn step<'a>(value: &Spanned<DeValue<'a>>, report: &mut Report) -> Option<WrittenStep<'a>> {
    let span = value.span();
    let DeValue::Table(table) = value.get_ref() else {
        let help = "a step is a table in braces: { at = \"1m\", expect.NODE = 1 }";
        report.error(span, "this is no step", Some(help.into()));
        return None;
    };
    let read = options::read_with_hints::<StepOptions>(
        table,
        span.clone(),
        "a step",
        hint_of_step,
        report,
    );
    Some(WrittenStep {
        span,
        is_complete: read.complete,
        options: read.read?,
        table: table.clone(),
    })
}
