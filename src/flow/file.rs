//! A flow file as it was written: names, types and wires with their places; nothing is checked against anything yet.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::diagnostic::{Report, Source, did_you_mean};

/// A flow as written.
#[derive(Debug, Default)]
pub struct FlowFile<'a> {
    pub description: Option<String>,
    /// `[vars]`: defaults that a device may change.
    pub vars: DeTable<'a>,
    pub nodes: Vec<WrittenNode<'a>>,
    /// Nodes of which so much is wrong that they are not among `nodes`.
    pub unreadable: Vec<String>,
    /// The text is no TOML, and what could be read of it may stand in the wrong place.
    pub is_broken: bool,
}

/// A node as written.
#[derive(Debug)]
pub struct WrittenNode<'a> {
    pub name: Spanned<String>,
    pub node_type: Spanned<String>,
    /// Where its input comes from: `node` or `node.port`.
    pub from: Vec<Spanned<String>>,
    /// Where `from` stands, if it does.
    pub from_span: Option<Range<usize>>,
    /// All its other entries.
    pub options: DeTable<'a>,
}

/// Reads the text of a flow file. What is wrong goes to the report; what is right is returned.
pub fn parse<'a>(source: &'a Source, report: &mut Report) -> FlowFile<'a> {
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        report.error(
            error.span().unwrap_or(0..0),
            error.message().to_owned(),
            None,
        );
    }

    let mut file = FlowFile {
        is_broken: report.has_errors(),
        ..FlowFile::default()
    };
    for (key, value) in root.into_inner() {
        match key.get_ref().as_ref() {
            "description" => match value.get_ref().as_str() {
                Some(text) => file.description = Some(text.to_owned()),
                None => wrong_type(report, "description", &value, "text in quotes"),
            },
            "vars" => match value.get_ref() {
                DeValue::Table(vars) => file.vars = checked_vars(vars, report),
                _ => wrong_type(report, "vars", &value, "a table"),
            },
            "nodes" => match value.into_inner() {
                DeValue::Table(nodes) => {
                    for (name, value) in nodes {
                        match node(name.span(), name.get_ref(), value, report) {
                            Some(node) => file.nodes.push(node),
                            None => file.unreadable.push(name.get_ref().to_string()),
                        }
                    }
                }
                _ => report.error(key.span(), "`nodes` must be tables: [nodes.NAME]", None),
            },
            // After a syntax error, entries land where they do not belong.
            _ if file.is_broken => {}
            other => report.error(
                key.span(),
                format!("a flow file has no `{other}`"),
                did_you_mean(other, ["description", "vars", "nodes"])
                    .or_else(|| Some("it has `description`, `[vars]` and `[nodes.NAME]`".into())),
            ),
        }
    }
    file
}

/// The variables whose names and values can be used.
fn checked_vars<'a>(vars: &DeTable<'a>, report: &mut Report) -> DeTable<'a> {
    let mut checked = DeTable::new();
    for (name, value) in vars {
        if !is_variable_name(name.get_ref()) {
            let help = "letters, digits and `_`, not beginning with a digit, so that JavaScript can say `vars.NAME`";
            report.error(
                name.span(),
                format!("`{}` is no name for a variable", name.get_ref()),
                Some(help.into()),
            );
        } else if value.get_ref().is_table() || value.get_ref().is_array() {
            wrong_type(
                report,
                name.get_ref(),
                value,
                "text, a number or true/false",
            );
        } else {
            checked.insert(name.clone(), value.clone());
        }
    }
    checked
}

/// Whether a name can be written as `${name}` and, in JavaScript, as `vars.name`.
pub fn is_variable_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// Whether a name can be a node's or a flow's.
pub fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

fn node<'a>(
    span: Range<usize>,
    name: &str,
    value: Spanned<DeValue<'a>>,
    report: &mut Report,
) -> Option<WrittenNode<'a>> {
    if !is_node_name(name) {
        let help = "lower-case letters, digits, `_` and `-`";
        report.error(
            span.clone(),
            format!("`{name}` is no name for a node"),
            Some(help.into()),
        );
    }
    let DeValue::Table(mut options) = value.into_inner() else {
        report.error(
            span,
            format!("`{name}` must be a table: [nodes.{name}]"),
            None,
        );
        return None;
    };
    let from_value = options.remove("from");
    let from_span = from_value.as_ref().map(Spanned::span);
    let from = from_value
        .map(|value| inputs(&value, report))
        .unwrap_or_default();
    let node_type = match options.remove("type") {
        Some(value) => match value.get_ref().as_str() {
            Some(text) => Spanned::new(value.span(), text.to_owned()),
            None => {
                wrong_type(report, "type", &value, "text in quotes");
                return None;
            }
        },
        None => {
            let help = "`type = \"...\"` says what the node does; `tidegate nodes` lists the types";
            report.error(
                span,
                format!("node `{name}` has no type"),
                Some(help.into()),
            );
            return None;
        }
    };
    Some(WrittenNode {
        name: Spanned::new(span, name.to_owned()),
        node_type,
        from,
        from_span,
        options,
    })
}

fn inputs(value: &Spanned<DeValue<'_>>, report: &mut Report) -> Vec<Spanned<String>> {
    let items = match value.get_ref() {
        DeValue::String(text) => return vec![Spanned::new(value.span(), text.to_string())],
        DeValue::Array(items) if items.is_empty() => {
            report.error(value.span(), "`from` must name at least one node", None);
            return Vec::new();
        }
        DeValue::Array(items) => items,
        _ => {
            wrong_type(
                report,
                "from",
                value,
                "a node's name, `node.port`, or a list of them",
            );
            return Vec::new();
        }
    };
    let mut inputs = Vec::new();
    for item in items.iter() {
        match item.get_ref().as_str() {
            Some(text) => inputs.push(Spanned::new(item.span(), text.to_owned())),
            None => wrong_type(report, "from", item, "a node's name or `node.port`"),
        }
    }
    inputs
}

fn wrong_type(report: &mut Report, name: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
    report.error(
        value.span(),
        format!(
            "`{name}` must be {expected}, but is {}",
            value.get_ref().type_str()
        ),
        None,
    );
}
