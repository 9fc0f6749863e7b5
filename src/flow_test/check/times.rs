//! When a step is.

use std::time::Duration;

use super::super::test::When;
use super::super::written::WrittenStep;
use super::place;
use crate::flow::diagnostic::Report;

/// What is done more often than that is no timeline.
const SHORTEST_EVERY: Duration = Duration::from_micros(1);

/// When a step is; what is wrong with that is reported.
pub(super) fn when(written: &WrittenStep<'_>, report: &mut Report) -> Option<When> {
    let options = &written.options;
    let span = |key: &str| place(&written.table, key);
    // Of a time that cannot be read this has been said, and nothing is known of the others.
    let is_written = |key: &str| written.table.contains_key(key);
    let unread = [
        ("at", options.at.is_none()),
        ("from", options.from.is_none()),
        ("to", options.to.is_none()),
        ("every", options.every.is_none()),
    ];
    if unread
        .iter()
        .any(|(key, is_none)| *is_none && is_written(key))
    {
        return None;
    }
    let every = options.every.map(|every| every.0);
    match (options.at, options.from, options.to) {
        (Some(at), None, None) if every.is_none() => Some(When::At(at.0)),
        (Some(_), ..) => {
            let help = "one moment is `at`; a stretch is `from` and `to`, with `every` for what is done again and again";
            let message = "a step has either `at`, or `from` and `to`";
            report.error(span("at"), message, Some(help.into()));
            None
        }
        (None, Some(from), Some(to)) => {
            if from > to {
                report.error(
                    span("to"),
                    format!("`to` ({to}) is before `from` ({from})"),
                    None,
                );
                return None;
            }
            let (from, to) = (from.0, to.0);
            let Some(every) = every else {
                return Some(When::Through { from, to });
            };
            if every < SHORTEST_EVERY {
                report.error(span("every"), "`every`: must be at least 1us", None);
                return None;
            }
            if every > to - from {
                let message = "this is longer than from `from` to `to`, so it is once";
                report.warning(span("every"), message, None);
            }
            Some(When::Each { from, to, every })
        }
        (None, from, to) => {
            let (message, at, help) = match (from, to) {
                (Some(_), None) => ("`from` needs `to`", span("from"), "a step lasts until then"),
                (None, Some(_)) => (
                    "`to` needs `from`",
                    span("to"),
                    "from = \"0s\" is the start",
                ),
                _ if every.is_some() => (
                    "`every` needs `from` and `to`",
                    span("every"),
                    "{ from = \"0s\", to = \"10m\", every = \"1s\", ... }",
                ),
                _ => (
                    "a step needs a time",
                    written.span.clone(),
                    "`at = \"10s\"`, counted from the start of the test, or `from` and `to`",
                ),
            };
            report.error(at, message, Some(help.into()));
            None
        }
    }
}
