//! A flow file as it was written: names, types and wires with their places; nothing is checked against anything yet.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::diagnostic::{Report, Source, did_you_mean};
use crate::flow::parts::{self, WrittenPart};

/// A flow as written.
#[derive(Debug, Default)]
pub struct FlowFile<'a> {
    pub description: Option<String>,
    /// `[vars]`: defaults that a device may change.
    pub vars: DeTable<'a>,
    pub nodes: Vec<WrittenNode<'a>>,
    pub parts: Vec<WrittenPart<'a>>,
    /// Nodes of which so much is wrong that they are not among `nodes`.
    pub unreadable: Vec<String>,
    /// The text is no TOML, and what could be read of it may stand in the wrong place.
    pub is_broken: bool,
}

/// A node as written.
#[derive(Clone, Debug)]
pub struct WrittenNode<'a> {
    pub name: Spanned<String>,
    /// What stands before its name in the flow: empty, or that of the part's use, as `cellar/`.
    pub scope: String,
    pub node_type: Spanned<String>,
    /// Where its input comes from: `node` or `node.port`.
    pub from: Vec<Spanned<String>>,
    /// Where `from` stands, if it does.
    pub from_span: Option<Range<usize>>,
    /// All its other entries.
    pub options: DeTable<'a>,
}

impl WrittenNode<'_> {
    /// The node's name in the flow: that of a part's node has the name of the part's use before it.
    pub fn full_name(&self) -> String {
        format!("{}{}", self.scope, self.name.get_ref())
    }
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
                    (file.nodes, file.unreadable) = read_nodes(nodes, report);
                }
                _ => report.error(key.span(), "`nodes` must be tables: [nodes.NAME]", None),
            },
            "parts" => match value.into_inner() {
                DeValue::Table(parts) => {
                    for (name, value) in parts {
                        let written = part(name.span(), name.get_ref(), value, report);
                        file.parts.extend(written);
                    }
                }
                _ => report.error(key.span(), "`parts` must be tables: [parts.NAME]", None),
            },
            // After a syntax error, entries land where they do not belong.
            _ if file.is_broken => {}
            other => report.error(
                key.span(),
                format!("a flow file has no `{other}`"),
                did_you_mean(other, ["description", "vars", "nodes", "parts"]).or_else(|| {
                    Some("it has `description`, `[vars]`, `[nodes.NAME]` and `[parts.NAME]`".into())
                }),
            ),
        }
    }
    file
}

/// The nodes that can be read, and the names of those that cannot.
fn read_nodes<'a>(nodes: DeTable<'a>, report: &mut Report) -> (Vec<WrittenNode<'a>>, Vec<String>) {
    let (mut read, mut unreadable) = (Vec::new(), Vec::new());
    for (name, value) in nodes {
        match node(name.span(), name.get_ref(), value, report) {
            Some(node) => read.push(node),
            None => unreadable.push(name.get_ref().to_string()),
        }
    }
    (read, unreadable)
}

fn part<'a>(
    span: Range<usize>,
    name: &str,
    value: Spanned<DeValue<'a>>,
    report: &mut Report,
) -> Option<WrittenPart<'a>> {
    if !is_node_name(name) {
        let help = "lower-case letters, digits, `_` and `-`";
        let message = format!("`{name}` is no name for a part");
        report.error(span.clone(), message, Some(help.into()));
    }
    let DeValue::Table(entries) = value.into_inner() else {
        let message = format!("`{name}` must be a table: [parts.{name}]");
        report.error(span, message, None);
        return None;
    };
    let mut part = WrittenPart {
        name: Spanned::new(span.clone(), name.to_owned()),
        vars: DeTable::new(),
        out: Vec::new(),
        nodes: Vec::new(),
        unreadable: Vec::new(),
    };
    for (key, value) in entries {
        match key.get_ref().as_ref() {
            "vars" => match value.get_ref() {
                DeValue::Table(vars) => part.vars = checked_vars(vars, report),
                _ => wrong_type(report, "vars", &value, "a table"),
            },
            "out" => part.out = outputs(&value, report),
            "nodes" => match value.into_inner() {
                DeValue::Table(nodes) => (part.nodes, part.unreadable) = read_nodes(nodes, report),
                _ => {
                    let message = format!("`nodes` must be tables: [parts.{name}.nodes.NAME]");
                    report.error(key.span(), message, None);
                }
            },
            other => {
                let help = did_you_mean(other, ["vars", "out", "nodes"])
                    .unwrap_or_else(|| "it has `vars`, `out` and `nodes`".into());
                report.error(key.span(), format!("a part has no `{other}`"), Some(help));
            }
        }
    }
    if part.nodes.is_empty() && part.unreadable.is_empty() {
        let help = format!("a node of it is a table: [parts.{name}.nodes.NAME]");
        report.error(span, format!("the part `{name}` has no nodes"), Some(help));
    }
    for inside in &part.nodes {
        if inside.name.get_ref() == parts::INPUT {
            let message = "no node of a part can be called `in`: that is what the part is given";
            report.error(inside.name.span(), message, None);
        }
    }
    Some(part)
}

/// `out` of a part: one node, or a table of ports.
fn outputs(
    value: &Spanned<DeValue<'_>>,
    report: &mut Report,
) -> Vec<(Spanned<String>, Spanned<String>)> {
    const EXPECTED: &str = "a node's name, `node.port`, or a table of ports: { PORT = \"NODE\" }";
    let mut ports = Vec::new();
    match value.get_ref() {
        DeValue::String(text) => {
            let port = Spanned::new(value.span(), "out".to_owned());
            ports.push((port, Spanned::new(value.span(), text.to_string())));
        }
        DeValue::Table(table) => {
            for (port, inside) in table {
                if !is_node_name(port.get_ref()) {
                    let help = "lower-case letters, digits, `_` and `-`";
                    let message = format!("`{}` is no name for a port", port.get_ref());
                    report.error(port.span(), message, Some(help.into()));
                }
                match inside.get_ref().as_str() {
                    Some(text) => ports.push((
                        Spanned::new(port.span(), port.get_ref().to_string()),
                        Spanned::new(inside.span(), text.to_owned()),
                    )),
                    None => wrong_type(report, "out", inside, EXPECTED),
                }
            }
        }
        _ => wrong_type(report, "out", value, EXPECTED),
    }
    ports
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
        scope: String::new(),
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
            // Not kept: in parts inside of each other, a second `in` would double what each is given.
            Some(text)
                if inputs
                    .iter()
                    .any(|known: &Spanned<String>| known.get_ref() == text) =>
            {
                report.error(item.span(), format!("`{text}` is named twice"), None);
            }
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
            kind(value.get_ref())
        ),
        None,
    );
}

/// What kind of value this is, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
