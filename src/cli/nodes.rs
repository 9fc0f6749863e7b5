//! `tidegate nodes`: the node types, from their definitions.

use std::io::Write;

use serde::Serialize;
use serde_json::Value as Json;

use super::{Failure, Outcome};
use crate::flow::diagnostic::did_you_mean;
use crate::nodes::{GROUPS, NodeType, node_types};
use crate::reference;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A node type to describe, such as `window` or `gpio out`
    #[arg(value_name = "TYPE")]
    node_type: Vec<String>,
    /// Print JSON: an array of objects with `type`
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the whole reference as Markdown, with what each example does
    #[arg(long, conflicts_with = "node_type")]
    markdown: bool,
}

/// A node type as `--json` prints it.
#[derive(Serialize)]
struct Description<'a> {
    r#type: &'a str,
    summary: String,
    has_input: bool,
    ports: &'a [&'a str],
    /// Whether the options name the ports.
    names_ports: bool,
    options: Json,
    required: Json,
    example: &'a str,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.markdown {
        write!(std::io::stdout(), "{}", reference::markdown())?;
        return Ok(Outcome::Good);
    }
    let name = arguments.node_type.join(" ");
    let chosen: Vec<&NodeType> = node_types()
        .filter(|known| name.is_empty() || known.name == name)
        .collect();
    if chosen.is_empty() {
        let hint = did_you_mean(&name, node_types().map(|known| known.name));
        let hint = hint.unwrap_or_else(|| "`tidegate nodes` lists them".into());
        eprintln!("tidegate: there is no node type `{name}`: {hint}");
        return Ok(Outcome::Bad);
    }
    let mut out = std::io::stdout();
    if arguments.json {
        let descriptions: Vec<Description> =
            chosen.iter().map(|node_type| describe(node_type)).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&descriptions)?)?;
    } else if name.is_empty() {
        for group in GROUPS {
            writeln!(out, "{}: {}", group.title, group.about)?;
            for node_type in group.types {
                let summary = reference::summary(node_type);
                writeln!(out, "  {:<12} {summary}", node_type.name)?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "`tidegate nodes TYPE` describes one, with its options and an example."
        )?;
    } else {
        for node_type in chosen {
            print_page(&mut out, node_type)?;
        }
    }
    Ok(Outcome::Good)
}

fn describe(node_type: &NodeType) -> Description<'_> {
    let schema = node_type.schema();
    let part = |name: &str| schema.get(name).cloned().unwrap_or(Json::Null);
    Description {
        r#type: node_type.name,
        summary: reference::summary(node_type),
        has_input: node_type.has_input,
        ports: node_type.ports,
        names_ports: node_type.names_ports,
        options: part("properties"),
        required: part("required"),
        example: node_type.example.trim(),
    }
}

fn print_page(out: &mut impl Write, node_type: &NodeType) -> std::io::Result<()> {
    let schema = node_type.schema().to_value();
    let text = schema["description"].as_str().unwrap_or_default();
    writeln!(out, "{}\n\n{text}\n", node_type.name)?;
    writeln!(out, "Wires: {}\n", reference::wires(node_type))?;
    writeln!(out, "Options:\n{}", reference::options(&schema))?;
    writeln!(out, "Example:\n{}", node_type.example.trim_end())
}
