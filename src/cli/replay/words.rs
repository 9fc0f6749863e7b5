//! What a replay did, in words.

use std::time::Duration;

use crate::cli::grouped;
use crate::replay::rows::RowProblem;
use crate::replay::{FileReport, LeftOut, Report};

/// What people should know.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.files.iter().flat_map(left_out).collect();
    lines.extend(of_order(report));
    for (node, failures) in &report.failures {
        lines.push(format!(
            "warning: `{node}` could not handle {}; the first, at {}: {}",
            count(failures.count, "message"),
            failures.first_at,
            failures.first
        ));
    }
    if report.panics.count > 0 {
        lines.push(format!(
            "warning: {} stopped the flow, which then started again; the first, at {}, {}",
            count(report.panics.count, "panic"),
            report.panics.first_at,
            report.panics.first
        ));
    }
    if report.missed > 0 {
        lines.push(format!(
            "warning: {} came while the flow was stopped, or went round in links, and got lost",
            count(report.missed, "message")
        ));
    }
    if report.is_unsettled {
        lines.push(
            "warning: nodes still waited after 1,000,000 wake-ups that followed the last row; what they hold did not come out"
                .into(),
        );
    }
    lines
}

/// Rows, messages, and how long it took.
pub(super) fn summary(report: &Report, took: Duration) -> String {
    let rows = report.rows();
    let span = match report.span {
        Some((first, last)) => format!(" from {first} to {last}"),
        None => String::new(),
    };
    let sinks = report.sinks.iter();
    let sinks: Vec<String> = sinks
        .map(|(node, count)| format!("`{node}` {}", grouped(*count)))
        .collect();
    let sinks = match &sinks[..] {
        [] => String::new(),
        sinks => format!(" ({})", sinks.join(", ")),
    };
    format!(
        "{}{span}; {} to sinks{sinks}; {:.2} s, {} rows a second",
        count(rows, "row"),
        count(report.messages(), "message"),
        took.as_secs_f64(),
        grouped((rows as f64 / took.as_secs_f64().max(1e-9)) as u64)
    )
}

fn left_out(file: &FileReport) -> Vec<String> {
    let path = file.path.display();
    if file.left_out.is_empty() {
        let is_empty = file.rows == 0;
        return Vec::from_iter(is_empty.then(|| format!("warning: {path} has no rows")));
    }
    let kinds = file.left_out.iter();
    let kinds: Vec<String> = kinds
        .map(|(kind, left_out)| format!("{} {kind}", grouped(left_out.count)))
        .collect();
    let all = count(file.left_out(), "row");
    let mut lines = vec![format!(
        "warning: {all} of {path} left out: {}",
        kinds.join(", ")
    )];
    for (kind, LeftOut { count, first }) in &file.left_out {
        for RowProblem { line, message, .. } in first {
            lines.push(format!("  {path}:{line}: {message}"));
        }
        let more = count.saturating_sub(first.len() as u64);
        if more > 0 {
            lines.push(format!("  ... and {} more {kind}", grouped(more)));
        }
    }
    lines
}

fn of_order(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if report.hurried > 0 {
        lines.push(format!(
            "warning: {} could not wait to be put into order, because too many waited; a shorter --reorder takes less room",
            count(report.hurried, "row")
        ));
    }
    if report.out_of_order > 0 {
        let by = in_words(report.latest_by);
        lines.push(format!(
            "warning: {} came too late for the order of time, by up to {by}; a window takes them if its `lateness` is as long, \
             or `--reorder {}` puts them into order",
            count(report.out_of_order, "row"),
            by.replace(' ', "")
        ));
    }
    lines
}

/// Rounded up to what a person would say.
fn in_words(span: Duration) -> String {
    const SECOND: u128 = 1_000_000_000;
    let unit = if span.as_nanos() < SECOND {
        1_000_000
    } else {
        SECOND
    };
    let nanos = span.as_nanos().div_ceil(unit) * unit;
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_nanos(nanos)).to_string()
}

fn count(number: u64, word: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {word}{s}", grouped(number))
}
