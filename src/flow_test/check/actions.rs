//! What a step does.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::feeding::{FileRows, RowsError};
use super::super::options::{FeedOptions, LinkState};
use super::super::test::{Action, Fed, FedPayload, Feed, When};
use super::super::written::WrittenStep;
use super::names::Names;
use super::{entries, payload, place};
use crate::board::{Level, Pin};
use crate::flow::GraphNode;
use crate::flow::diagnostic::Report;
use crate::flow::options;
use crate::message::Value;
use crate::nodes::Use;
use crate::replay::rows::{FileError, RowOptions};
use crate::runtime::driver::chain;
use crate::sensors::Quantity;

/// The keys of a step that do something.
pub(super) const KEYS: &[&str] = &[
    "pin",
    "uplink",
    "disk",
    "clock_step",
    "power_cut",
    "restart",
    "feed",
];

/// The actions of a step, in the order in which they are done: first what holds for the device, then what sources send.
pub(super) fn read(
    written: &WrittenStep<'_>,
    when: Option<When>,
    names: &Names<'_>,
    report: &mut Report,
) -> Vec<Action> {
    let options = &written.options;
    let mut actions = Vec::new();
    for (key, value) in entries(&written.table, "pin") {
        actions.extend(pin(key.get_ref(), key.span(), value, names, report));
    }
    if let Some(state) = options.uplink {
        let is_up = state == LinkState::Up;
        actions.push(Action::Uplink { is_up });
    }
    actions.extend(options.disk.map(Action::Disk));
    actions.extend(options.clock_step.map(|shift| Action::ClockStep(shift.0)));
    actions.extend(options.power_cut.map(|span| Action::PowerCut(span.0)));
    actions.extend(options.restart.map(|span| Action::Restart(span.0)));
    for (key, value) in entries(&written.table, "feed") {
        let found = feed(key.get_ref(), key.span(), value, names, report);
        if let Some(found) = &found {
            files_are_fed_once(found, when, report);
        }
        actions.extend(found.map(Action::Feed));
    }
    // The rows of a file last.
    let mut feeds = entries(&written.table, "feed");
    let has_files_only = feeds.all(|(_, value)| is_file(value));
    if matches!(when, Some(When::Through { .. }))
        && let Some(key) = KEYS
            .iter()
            .find(|key| written.table.contains_key(**key) && !(**key == "feed" && has_files_only))
    {
        let help = "`at` for once, or `every` for how often from `from` to `to`";
        let message = format!("`{key}` is done at a moment, and this step lasts");
        report.error(place(&written.table, key), message, Some(help.into()));
    }
    actions
}

fn is_file(value: &Spanned<DeValue<'_>>) -> bool {
    let table = value.get_ref().as_table();
    table.is_some_and(|table| table.contains_key("file"))
}

fn files_are_fed_once(feed: &Feed, when: Option<When>, report: &mut Report) {
    if matches!(feed.what, Fed::File { .. }) && matches!(when, Some(When::Each { .. })) {
        let help = "the rows of a file come at their own times; `at` is that of the first, and with `from` and `to` those after \
                    `to` are left out";
        let message = "a file is not fed again and again";
        report.error(feed.span.clone(), message, Some(help.into()));
    }
}

fn pin(
    name: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Action> {
    let pin: Pin = match name.parse() {
        Ok(pin) => pin,
        Err(error) => {
            report.error(key, error.to_string(), Some(names.input_pins()));
            return None;
        }
    };
    match names.reader_of(pin) {
        None => {
            let message = format!("no node reads {pin}");
            report.error(key, message, Some(names.input_pins()));
        }
        Some(reader) if names.is_fed(reader) => {
            let name = &names.node(reader).name;
            let message =
                format!("`{name}`, which reads {pin}, is fed, so its pin changes nothing");
            let help = "feed it, or set its pin, but not both";
            report.error(key, message, Some(help.into()));
        }
        Some(_) => {}
    }
    let Some(level) = payload(value).as_level() else {
        report.error(value.span(), "the level of a pin is 0 or 1", None);
        return None;
    };
    Some(Action::Pin {
        pin,
        level: Level::from(level),
    })
}

fn feed(
    name: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Feed> {
    let to = names.find_or_report(name, key.clone(), report)?;
    let node = names.node(to);
    if !names.can_be_fed(to) {
        let message = match &node.watching {
            Some(_) => format!(
                "`{name}` ({}) hears of other nodes and cannot be fed",
                node.node_type.name
            ),
            None => format!("`{name}` ({}) is no source", node.node_type.name),
        };
        report.error(key, message, Some(names.sources()));
        return None;
    }
    let what = match value.get_ref() {
        DeValue::Table(table) => {
            let what = format!("the feed of `{name}`");
            let read = options::read::<FeedOptions>(table, value.span(), &what, report);
            let options = read.read?;
            if !read.complete {
                return None;
            }
            if let Some(payload) = &options.payload {
                suits(node, payload, place(table, "payload"), report);
            }
            if options.file.is_some() {
                file(options, table, names.directory(), report)?
            } else {
                from_options(options, name, value.span(), report)?
            }
        }
        _ => {
            let payload = payload(value);
            suits(node, &payload, value.span(), report);
            Fed::Message {
                payload: FedPayload::Plain(payload),
                topic: None,
                headers: None,
                time: None,
            }
        }
    };
    Some(Feed {
        span: key.start..value.span().end,
        to,
        what,
    })
}

/// A file that can be read, at least its header and its first row.
fn file(
    options: FeedOptions,
    table: &DeTable<'_>,
    directory: &Path,
    report: &mut Report,
) -> Option<Fed> {
    let others = ["payload", "value", "fails", "topic", "headers", "time"];
    if let Some(other) = others.into_iter().find(|key| table.contains_key(*key)) {
        let message = format!("the rows of the file say what comes, so there is no `{other}`");
        report.error(place(table, other), message, None);
        return None;
    }
    let time_zone = match options.time_zone.as_deref().map(TimeZone::get).transpose() {
        Ok(time_zone) => time_zone,
        Err(error) => {
            let help = "one is written like \"Europe/Berlin\" or \"UTC\"";
            report.error(
                place(table, "time_zone"),
                error.to_string(),
                Some(help.into()),
            );
            return None;
        }
    };
    let path = directory.join(options.file.unwrap_or_default());
    // It is read here and again when the test runs, so it is neither a pipe nor the standard input, which `-` would be.
    let is_other = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    if is_other || path == Path::new("-") {
        let message = format!(
            "{} is no file that a test can read again and again",
            path.display()
        );
        report.error(place(table, "file"), message, None);
        return None;
    }
    let default = RowOptions::default();
    let options = RowOptions {
        time_zone,
        time_column: options.time_column.unwrap_or(default.time_column),
        payload_column: options.payload_column.unwrap_or(default.payload_column),
    };
    if let Err(error) = FileRows::open(&path, &options) {
        let help = match error {
            RowsError::File(FileError::NoOffset { .. }) => {
                Some("in a test that is `time_zone = \"Europe/Berlin\"` beside `file`".into())
            }
            RowsError::File(FileError::Header { .. }) => {
                Some("in a test that is `time_column = \"NAME\"` beside `file`".into())
            }
            _ => None,
        };
        report.error(place(table, "file"), chain(&error), help);
        return None;
    }
    Some(Fed::File { path, options })
}

fn from_options(
    options: FeedOptions,
    name: &str,
    span: Range<usize>,
    report: &mut Report,
) -> Option<Fed> {
    let payload = match (options.payload, options.value, options.fails) {
        (Some(payload), None, None) => FedPayload::Plain(payload),
        (None, Some(formula), None) => FedPayload::Formula(formula),
        (None, None, Some(reason)) => return Some(Fed::Failure(reason)),
        (None, None, None) => {
            let message = format!("the feed of `{name}` has neither `payload` nor `value`");
            let help = "`payload` is what it sends, `value` is JavaScript for it, `fails` a reading that fails, `file` a recording";
            report.error(span, message, Some(help.into()));
            return None;
        }
        _ => {
            let message =
                format!("the feed of `{name}` has more than one of `payload`, `value` and `fails`");
            report.error(span, message, None);
            return None;
        }
    };
    let headers = options.headers.map(|headers| {
        let fields = headers.into_iter();
        Arc::new(fields.map(|(name, value)| (name.into(), value)).collect())
    });
    Some(Fed::Message {
        payload,
        topic: options.topic.map(Into::into),
        headers,
        time: options.time,
    })
}

/// Whether a reading of these quantities could be this: one is a number, more are an object with a number for each of some of
/// them, and one of them that the node picks is a number.
fn measures(quantities: &[Quantity], payload: &Value) -> bool {
    match payload {
        Value::Number(_) => true,
        Value::Object(fields) => {
            let is_known = |name: &str| quantities.iter().any(|it| it.name == name);
            let mut fields = fields.iter();
            quantities.len() > 1
                && fields.all(|(name, value)| is_known(name) && value.as_number().is_some())
        }
        _ => false,
    }
}

/// Whether a source could send this.
fn suits(node: &GraphNode, payload: &Value, span: Range<usize>, report: &mut Report) {
    let of_node = node.node_type.name;
    let expected = match node.uses.first() {
        Some(Use::Sensor(spec)) if !measures(spec.quantities(), payload) => {
            match spec.quantities() {
                [_] => "a number".to_owned(),
                several => {
                    let names: Vec<&str> = several.iter().map(|it| &*it.name).collect();
                    format!("an object of numbers with {}", names.join(", "))
                }
            }
        }
        Some(Use::Input { .. }) if payload.as_level().is_none() => "0 or 1".to_owned(),
        _ => return,
    };
    let message = format!(
        "`{}` ({of_node}) sends {expected}, and this is {}",
        node.name,
        match payload {
            Value::Number(number) => number.to_string(),
            other => other.kind().to_owned(),
        }
    );
    let help = "a reading that fails is `feed.NODE = { fails = \"TEXT\" }`";
    let help = matches!(node.uses.first(), Some(Use::Sensor(_))).then(|| help.into());
    report.error(span, message, help);
}
