//! What must be so at a step.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::options::{CountOptions, ExpectOptions, NumberOptions, hint_of_expect};
use super::super::test::{Count, Expectation, Expected, Messages, Wanted, When};
use super::super::written::WrittenStep;
use super::names::Names;
use super::{entries, payload, place};
use crate::board::Pin;
use crate::flow::GraphNode;
use crate::flow::diagnostic::{Report, did_you_mean, nearest};
use crate::flow::options;
use crate::message::Value;
use crate::nodes::Use;
use crate::outbox::Ledger;
use crate::runtime::Address;

/// The keys of a step that look at something.
pub(super) const KEYS: &[&str] = &["expect", "failures", "outbox"];

pub(super) fn read(
    written: &WrittenStep<'_>,
    when: Option<When>,
    names: &Names<'_>,
    report: &mut Report,
) -> Vec<Expectation> {
    let mut expectations = Vec::new();
    for (key, value) in entries(&written.table, "expect") {
        let name: &str = key.get_ref();
        let what = of_node(name, key.span(), value, names, report);
        expectations.extend(what.map(|what| Expectation {
            span: key.start()..value.span().end,
            subject: name.to_owned(),
            what,
        }));
    }
    if let Some(value) = written.table.get("failures") {
        let what = failures(value, report);
        expectations.extend(what.map(|what| Expectation {
            span: value.span(),
            subject: "failures".into(),
            what,
        }));
    }
    for (key, value) in entries(&written.table, "outbox") {
        if matches!(when, Some(When::Through { .. })) {
            let help = "`at`, or `every` for how often it is looked at";
            let message = "the outbox is looked at at a moment, and this step lasts";
            report.error(key.span(), message, Some(help.into()));
        }
        let what = ledger(key.get_ref(), key.span(), value, report);
        expectations.extend(what.map(|what| Expectation {
            span: key.start()..value.span().end,
            subject: format!("outbox.{}", key.get_ref()),
            what,
        }));
    }
    expectations
}

trait Start {
    fn start(&self) -> usize;
}

impl<T> Start for Spanned<T> {
    fn start(&self) -> usize {
        self.span().start
    }
}

/// What is looked at of a node.
enum Subject {
    Messages(Messages),
    Output(Pin),
}

fn of_node(
    name: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Expected> {
    let (node_name, port) = match name.rsplit_once('.') {
        Some((node, port)) if names.find(name).is_none() => (node, Some(port)),
        _ => (name, None),
    };
    let address = names.find_or_report(node_name, key.clone(), report)?;
    let node = names.node(address);
    let subject = subject(node, address, port, key, report)?;
    let wanted = match value.get_ref() {
        DeValue::Table(table) => {
            if port.is_none() && is_told_of_slips(name, node, table, report) {
                return None;
            }
            wanted_of_table(name, table, value.span(), report)?
        }
        _ => Wanted {
            payload: Some(payload(value)),
            ..Wanted::default()
        },
    };
    Some(match subject {
        Subject::Messages(of) => Expected::Messages { of, wanted },
        Subject::Output(pin) => {
            let table = value.get_ref().as_table();
            of_output(node, pin, wanted, table, value.span(), report)?
        }
    })
}

fn subject(
    node: &GraphNode,
    address: Address,
    port: Option<&str>,
    key: Range<usize>,
    report: &mut Report,
) -> Option<Subject> {
    let of_type = node.node_type.name;
    let output = node.uses.iter().find_map(|needed| match needed {
        Use::Output { pin, .. } => Some(*pin),
        _ => None,
    });
    let found = if let Some(pin) = output {
        Subject::Output(pin)
    } else if node.spec.publishes().is_some() {
        Subject::Messages(Messages::Arrived { of: address })
    } else if node.ports.is_empty() && of_type == "debug" {
        Subject::Messages(Messages::Shown { by: address })
    } else if node.ports.is_empty() {
        let message = format!("`{}` ({of_type}) sends nothing", node.name);
        let help = "look at the node before it, or at the `link in` at the other end";
        report.error(key, message, Some(help.into()));
        return None;
    } else {
        let place = match port {
            None => Some(0),
            Some(port) => node.ports.iter().position(|known| known == port),
        };
        let Some(port) = place else {
            let port = port.unwrap_or_default();
            let known: Vec<String> = node.ports.iter().map(|port| format!("`{port}`")).collect();
            let help = did_you_mean(port, node.ports.iter().map(String::as_str))
                .unwrap_or_else(|| format!("it has {}", known.join(", ")));
            let message = format!("node `{}` ({of_type}) has no port `{port}`", node.name);
            report.error(key, message, Some(help));
            return None;
        };
        return Some(Subject::Messages(Messages::Sent {
            from: address,
            port,
        }));
    };
    if let Some(port) = port {
        let message = format!("node `{}` ({of_type}) has no port `{port}`", node.name);
        report.error(key, message, Some("it has none".into()));
        return None;
    }
    Some(found)
}

/// Says what is meant by keys that are ports of the node, or look like fields of its payload; whether there were any.
fn is_told_of_slips(
    name: &str,
    node: &GraphNode,
    table: &DeTable<'_>,
    report: &mut Report,
) -> bool {
    let known = options::names::<ExpectOptions>();
    let mut is_told = false;
    for (key, _) in table {
        let word: &str = key.get_ref();
        if known.iter().any(|known| known == word) || hint_of_expect(word).is_some() {
            continue;
        }
        let help = if node.ports.iter().any(|port| port == word) {
            format!("a port is written in quotes: expect.\"{name}.{word}\"")
        } else if nearest(word, known.iter().map(String::as_str)).is_none() {
            format!(
                "a field of the payload is `payload.{word}`; else there are {}",
                known.join(", ")
            )
        } else {
            continue;
        };
        is_told = true;
        let message = format!("what is expected of `{name}` has no option `{word}`");
        report.error(key.span(), message, Some(help));
    }
    is_told
}

fn wanted_of_table(
    name: &str,
    table: &DeTable<'_>,
    span: Range<usize>,
    report: &mut Report,
) -> Option<Wanted> {
    let what = format!("what is expected of `{name}`");
    let read = options::read_with_hints::<ExpectOptions>(
        table,
        span.clone(),
        &what,
        hint_of_expect,
        report,
    );
    let options = read.read.filter(|_| read.complete)?;
    if table.is_empty() {
        let help = "`payload`, `count`, `none`, `min`, `max`, `topic`, `text` or `payloads`";
        report.error(span, "nothing is expected here", Some(help.into()));
        return None;
    }
    let mut is_right = true;
    let mut refuse = |key: &str, message: &str| {
        is_right = false;
        report.error(place(table, key), message, None);
    };
    if let Some(within) = options.within {
        if !(within.is_finite() && within >= 0.0) {
            refuse("within", "`within` must be a finite number, not negative");
        } else if options.payload.is_none() && options.payloads.is_none() {
            refuse(
                "within",
                "`within` is for numbers of `payload`, which is not here",
            );
        }
    }
    for (key, limit) in [("min", &options.min), ("max", &options.max)] {
        if limit.as_ref().is_some_and(|limit| !is_limit(limit)) {
            refuse(
                key,
                "this must be a number, or a table of numbers by the names of fields",
            );
        }
    }
    if let (Some(Value::Number(min)), Some(Value::Number(max))) = (&options.min, &options.max)
        && min > max
    {
        refuse("max", "`max` is below `min`");
    }
    if options.none == Some(false) {
        refuse(
            "none",
            "`none = true` is for when there must be none; else leave it out",
        );
    }
    let has_count =
        options.count.is_some() || options.at_least.is_some() || options.at_most.is_some();
    if options.none.is_some() && has_count {
        refuse(
            "none",
            "`none` says how many there are, and so does `count`",
        );
    }
    if options.count.is_some() && (options.at_least.is_some() || options.at_most.is_some()) {
        refuse(
            "count",
            "`count` is exact, so neither `at_least` nor `at_most` goes with it",
        );
    }
    if options.at_least > options.at_most.or(Some(u64::MAX)) {
        refuse("at_most", "`at_most` is below `at_least`");
    }
    if options.payloads.is_some()
        && (options.payload.is_some() || has_count || options.none.is_some())
    {
        refuse(
            "payloads",
            "`payloads` are all payloads in their order, so there is no `payload` and no `count`",
        );
    }
    let count = match options.none {
        Some(true) => Some(Count::exactly(0)),
        _ => count_of(options.count, options.at_least, options.at_most),
    };
    is_right.then_some(Wanted {
        payload: options.payload,
        within: options.within.unwrap_or_default(),
        topic: options.topic,
        text: options.text,
        min: options.min,
        max: options.max,
        payloads: options.payloads,
        count,
    })
}

fn count_of(count: Option<u64>, at_least: Option<u64>, at_most: Option<u64>) -> Option<Count> {
    match (count, at_least, at_most) {
        (Some(count), ..) => Some(Count::exactly(count)),
        (None, None, None) => None,
        (None, at_least, at_most) => Some(Count {
            at_least: at_least.unwrap_or_default(),
            at_most,
        }),
    }
}

fn is_limit(limit: &Value) -> bool {
    match limit {
        Value::Number(number) => !number.is_nan(),
        Value::Object(fields) => !fields.is_empty() && fields.values().all(is_limit),
        _ => false,
    }
}

/// A pin has no messages, but a level or a duty.
fn of_output(
    node: &GraphNode,
    pin: Pin,
    mut wanted: Wanted,
    table: Option<&DeTable<'_>>,
    span: Range<usize>,
    report: &mut Report,
) -> Option<Expected> {
    let has = |key: &str| table.is_some_and(|table| table.contains_key(key));
    let foreign = ["topic", "text", "payloads", "none"]
        .into_iter()
        .find(|key| has(key));
    if let (Some(key), Some(table)) = (foreign, table) {
        let help = "it has `payload`, `within`, `min` and `max` for its level, and `count`, `at_least` and `at_most` for how \
                    often that changes";
        let message = format!("`{}` drives {pin}, which has no `{key}`", node.name);
        report.error(place(table, key), message, Some(help.into()));
        return None;
    }
    let is_level = |value: &Value| {
        let duty = match value {
            Value::Bool(level) => Some(f64::from(u8::from(*level))),
            Value::Number(number) if (0.0..=1.0).contains(number) => Some(*number),
            _ => None,
        };
        duty.filter(|duty| node.node_type.name == "pwm out" || *duty == 0.0 || *duty == 1.0)
    };
    if let Some(payload) = &wanted.payload {
        let span = table.map_or(span, |table| place(table, "payload"));
        let Some(level) = is_level(payload) else {
            let expected = if node.node_type.name == "pwm out" {
                "from 0 to 1"
            } else {
                "0 or 1"
            };
            let message = format!(
                "`{}` ({}) drives {pin} with {expected}, and this is {}",
                node.name,
                node.node_type.name,
                match payload {
                    Value::Number(number) => number.to_string(),
                    other => other.kind().to_owned(),
                }
            );
            report.error(span, message, None);
            return None;
        };
        wanted.payload = Some(Value::Number(level));
    }
    Some(Expected::Output { pin, wanted })
}

fn failures(value: &Spanned<DeValue<'_>>, report: &mut Report) -> Option<Expected> {
    if let DeValue::Table(table) = value.get_ref() {
        let read = options::read::<CountOptions>(table, value.span(), "`failures`", report);
        let options = read.read.filter(|_| read.complete)?;
        let count = count_of(options.count, options.at_least, options.at_most);
        return Some(Expected::Failures {
            count: count.unwrap_or(Count {
                at_least: 1,
                at_most: None,
            }),
            text: options.text,
        });
    }
    let count = whole(value, "`failures`", report)?;
    Some(Expected::Failures {
        count: Count::exactly(count),
        text: None,
    })
}

fn ledger(
    key: &str,
    span: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    report: &mut Report,
) -> Option<Expected> {
    let known = keys_of_ledger();
    if !known.iter().any(|known| known == key) {
        let help = did_you_mean(key, known.iter().map(String::as_str))
            .unwrap_or_else(|| format!("it has {}", known.join(", ")));
        report.error(span, format!("the outbox has no `{key}`"), Some(help));
        return None;
    }
    let (min, max) = match value.get_ref() {
        DeValue::Table(table) => {
            let what = format!("`outbox.{key}`");
            let read = options::read::<NumberOptions>(table, value.span(), &what, report);
            let options = read.read.filter(|_| read.complete)?;
            (options.min, options.max)
        }
        _ => {
            let number = whole(value, key, report)?;
            (Some(number), Some(number))
        }
    };
    Some(Expected::Ledger {
        key: key.to_owned(),
        min,
        max,
    })
}

fn whole(value: &Spanned<DeValue<'_>>, what: &str, report: &mut Report) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match payload(value) {
        Value::Number(number) if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) => {
            Some(number as u64)
        }
        _ => {
            let message = format!("{what}: must be a whole number, not negative");
            report.error(value.span(), message, None);
            None
        }
    }
}

/// The names of the outbox's numbers.
fn keys_of_ledger() -> Vec<String> {
    let json = serde_json::to_value(Ledger::default()).unwrap_or_default();
    let fields = json.as_object().into_iter().flatten();
    fields.map(|(name, _)| name.clone()).collect()
}
