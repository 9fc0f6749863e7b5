//! The reference of node types, from their definitions: `docs/nodes.md`, `tidegate nodes`, and the JSON Schema of flow files.
//!
//! Each type's example is run under virtual time on a simulated board, and what it did is shown with it: so an example that
//! does not do what it shows is not possible.

pub mod sensors;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::board::{Pin, Signal, Simulated, Simulation};
use crate::flow::{Report, Variables, check, parts};
use crate::message::{NodeId, Timestamp};
use crate::nodes::{GROUPS, NodeType, Use, node_types};
use crate::runtime::node::Input;
use crate::runtime::virtual_time::{Trace, VirtualRun};
use crate::runtime::{Address, Event};

/// When examples begin: a Thursday.
const START: Timestamp = Timestamp::from_millis(1_767_254_400_000);
/// How long an example runs; one that shows nothing by then runs on for a day.
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Why an example could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    #[error("the example is no valid flow:\n{0}")]
    Invalid(String),
    #[error("the simulated board refuses")]
    Board(#[from] crate::board::BoardError),
}

/// What a type's example does in its first hour. Every input has a contact on it that closes for some 5 s, three times a
/// minute or so. Brokers bring a message every ten seconds.
pub fn run_example(node_type: &NodeType) -> Result<Trace, ExampleError> {
    let mut report = Report::new("example.toml", node_type.example.trim_start());
    let graph = check("example", &Variables::default(), &mut report);
    let Some(graph) = graph else {
        let found = report.into_diagnostics();
        let found: Vec<String> = found.iter().map(|found| found.render(false)).collect();
        return Err(ExampleError::Invalid(found.join("\n")));
    };
    let contact = Signal::Contact {
        closed_s: 5.0,
        open_s: 15.0,
    };
    let inputs: BTreeMap<Pin, Signal> = (0..=Pin::MAX)
        .filter_map(|number| Some((Pin::new(number).ok()?, contact)))
        .collect();
    let simulation = Simulation {
        seed: 1,
        inputs,
        cooling_pin: Pin::new(17).ok(),
    };
    let board = Simulated::new(&simulation)?;
    let graph = Arc::new(graph);
    let mut run = VirtualRun::start("press-7", vec![graph.clone()], board, START)?;
    let subscribed = graph
        .uses()
        .filter(|(_, used)| matches!(used, Use::Subscription(_)));
    let subscribed: Vec<NodeId> = subscribed.map(|(node, _)| node).collect();
    if subscribed.is_empty() {
        run.run_for(HOUR);
    }
    // While some node waits for a broker, this is what it brings.
    for turn in 0..(HOUR.as_secs() / 10) * u64::from(!subscribed.is_empty()) {
        run.run_for(Duration::from_secs(10));
        for node in subscribed.iter().copied() {
            let input = Input::Message {
                time: run.now().wall,
                topic: "plant/s7/temperature".into(),
                payload: format!("{{\"value\":{}}}", 20 + turn % 3).into(),
            };
            run.handle(Event::Input {
                to: Address { flow: 0, node },
                input,
            });
        }
    }
    if deeds(&run.trace()).is_empty() {
        run.run_for(DAY - HOUR);
    }
    Ok(run.trace().clone())
}

/// What flows did to the world, in order of time: one line each.
pub fn deeds(trace: &Trace) -> Vec<(Timestamp, String)> {
    let shown = trace
        .shown
        .iter()
        .map(|(time, label, message)| (*time, format!("{label}: {}", message.payload)));
    let drafts = trace.drafts.iter().map(|(time, draft)| {
        let payload = String::from_utf8_lossy(&draft.payload);
        (*time, format!("to {}: {payload}", draft.topic))
    });
    let outputs = trace
        .outputs
        .iter()
        .map(|(time, pin, level)| (*time, format!("{pin} {level}")));
    let mut deeds: Vec<_> = shown.chain(drafts).chain(outputs).collect();
    deeds.sort_by_key(|(time, _)| *time);
    deeds
}

/// `docs/nodes.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Node types\n\n\
         <!-- Made from the definitions in src/nodes by `tidegate nodes --markdown`; a test compares it. Do not edit. -->\n\n\
         What holds for all of them is in [0008](decisions/0008-flow-language.md). Every example below is a whole flow; what is \
         shown behind it is what it did when it was run on a simulated board.\n\n",
    );
    for group in GROUPS {
        writeln!(page, "**{}**: {}\n", group.title, group.about).expect("text can be written to");
        for node_type in group.types {
            let (name, summary) = (node_type.name, summary(node_type));
            writeln!(page, "- [`{name}`](#{}): {summary}", anchor(node_type))
                .expect("text can be written to");
        }
        page.push('\n');
    }
    for group in GROUPS {
        writeln!(page, "# {}\n", group.title).expect("text can be written to");
        for node_type in group.types {
            page.push_str(&section(node_type));
            page.push('\n');
        }
    }
    page
}

fn anchor(node_type: &NodeType) -> String {
    node_type.name.replace(' ', "-")
}

/// The first paragraph of a type's documentation, on one line.
pub fn summary(node_type: &NodeType) -> String {
    let text = description(&node_type.schema().to_value());
    let first = text.split("\n\n").next().unwrap_or_default();
    first.replace('\n', " ")
}

fn description(schema: &Json) -> String {
    schema["description"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// How a type is wired, in words.
pub fn wires(node_type: &NodeType) -> String {
    let ports = match (node_type.ports, node_type.names_ports) {
        ([], false) => "sends nothing".to_owned(),
        ([], true) => "sends on the ports that its options name".to_owned(),
        (ports, named) => {
            let ports: Vec<String> = ports.iter().map(|port| format!("`{port}`")).collect();
            let further = if named { ", or as its options say" } else { "" };
            format!("sends on {}{further}", ports.join(", "))
        }
    };
    if node_type.has_input {
        format!("Reads its input, {ports}.")
    } else {
        format!("Has no input, {ports}.")
    }
}

fn section(node_type: &NodeType) -> String {
    let schema = node_type.schema().to_value();
    let mut text = format!(
        "## {}\n\n{}\n\n{}\n\n",
        node_type.name,
        description(&schema),
        wires(node_type)
    );
    let options = options(&schema);
    if options.is_empty() {
        text.push_str("It has no options.\n\n");
    }
    text.push_str(&options);
    if !options.is_empty() {
        text.push('\n');
    }
    text.push_str("```toml\n");
    text.push_str(node_type.example.trim());
    text.push_str("\n```\n");
    text.push_str(&outcome(node_type));
    text
}

/// The options as a Markdown list, those inside of an option indented under it.
pub fn options(schema: &Json) -> String {
    let mut text = String::new();
    list_options(schema, schema, 0, &mut text);
    text
}

fn list_options(root: &Json, schema: &Json, depth: usize, text: &mut String) {
    let required = |name: &str| {
        let required = schema["required"].as_array();
        required.is_some_and(|required| required.iter().any(|known| known == name))
    };
    for (name, option) in schema["properties"].as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        let needed = if depth == 0 && required(name) {
            " (required)"
        } else {
            ""
        };
        let words = description(option).replace('\n', " ");
        writeln!(text, "{indent}- `{name}`{needed}: {words}").expect("text can be written to");
        if depth < 2
            && let Some(inner) = inner_table(root, option)
        {
            list_options(root, inner, depth + 1, text);
        }
    }
}

/// The table that an option is, or a list of, or may be.
fn inner_table<'s>(root: &'s Json, option: &'s Json) -> Option<&'s Json> {
    let mut here = option;
    for _ in 0..8 {
        if here["properties"].is_object() {
            return Some(here);
        }
        here = if let Some(path) = here["$ref"].as_str() {
            root.pointer(path.strip_prefix('#')?)?
        } else if here["items"].is_object() {
            &here["items"]
        } else {
            let choices = ["anyOf", "oneOf", "allOf"].iter();
            let mut choices = choices.filter_map(|key| here[*key].as_array()).flatten();
            choices.find(|choice| choice["type"] != "null")?
        };
    }
    None
}

/// What the example did, as it is shown behind it.
fn outcome(node_type: &NodeType) -> String {
    const SHOWN: usize = 6;
    const WIDEST: usize = 150;
    let trace = match run_example(node_type) {
        Ok(trace) => trace,
        Err(error) => return format!("\n{error}\n"),
    };
    let mut lines = deeds(&trace);
    let failures = trace.failures.into_iter();
    lines.extend(failures.map(|(time, failure)| (time, format!("failed: {failure}"))));
    lines.sort_by_key(|(time, _)| *time);
    let mut text = String::from("\n```text\n");
    for (time, line) in lines.iter().take(SHOWN) {
        let clock: String = time.to_string().chars().skip(11).take(12).collect();
        let line: String = match line.char_indices().nth(WIDEST) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None => line.clone(),
        };
        writeln!(text, "{clock}  {line}").expect("text can be written to");
    }
    text.push_str("```\n");
    text
}

/// The JSON Schema of a flow file, for editors.
pub fn flow_schema() -> Json {
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut nodes: Vec<Json> = node_types()
        .map(|node_type| node_schema(node_type, node_type.schema_in(&mut generator).to_value()))
        .collect();
    nodes.push(part_use_schema());
    let mut definitions = generator.take_definitions(true);
    for definition in definitions.values_mut() {
        allow_variables(definition);
    }
    definitions.insert(
        "node".to_owned(),
        json!({ "type": "object", "required": ["type"], "oneOf": nodes }),
    );
    definitions.insert("from".to_owned(), from_schema());
    definitions.insert(
        "nodes".to_owned(),
        json!({
            "description": "The nodes, by name.",
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "$ref": "#/definitions/node" },
        }),
    );
    definitions.insert(
        "vars".to_owned(),
        json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        }),
    );
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A Tidegate flow",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "description": { "type": "string", "description": "What the flow is for, in one sentence." },
            "vars": {
                "description": "Variables and their defaults; tidegate.toml or the environment may set them for a device.",
                "$ref": "#/definitions/vars",
            },
            "nodes": { "$ref": "#/definitions/nodes" },
            "parts": {
                "description": "Sub-flows, by name: nodes of type `part` use them.",
                "type": "object",
                "propertyNames": { "pattern": NAME },
                "additionalProperties": part_schema(),
            },
        },
        "definitions": definitions,
    })
}

const NAME: &str = "^[a-z0-9_-]+$";

fn node_schema(node_type: &NodeType, mut schema: Json) -> Json {
    allow_variables(&mut schema);
    let description = schema["description"].clone();
    let mut properties = schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut required = schema["required"].as_array().cloned().unwrap_or_default();
    properties.insert(
        "type".to_owned(),
        json!({ "const": node_type.name, "description": description }),
    );
    required.push("type".into());
    if node_type.has_input {
        properties.insert("from".to_owned(), json!({ "$ref": "#/definitions/from" }));
        required.push("from".into());
    }
    json!({
        "title": node_type.name,
        "description": description,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn from_schema() -> Json {
    const INPUT: &str = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)?$";
    json!({
        "description": "Where the node's messages come from: a node, `node.port`, or a list of them.",
        "anyOf": [
            { "type": "string", "pattern": INPUT },
            { "type": "array", "minItems": 1, "items": { "type": "string", "pattern": INPUT } },
        ],
    })
}

fn part_use_schema() -> Json {
    json!({
        "title": parts::TYPE,
        "description": "Uses a part of this flow: its nodes are put in here.",
        "type": "object",
        "properties": {
            "type": { "const": parts::TYPE, "description": "Uses a part of this flow: its nodes are put in here." },
            "part": { "type": "string", "pattern": NAME, "description": "The part's name: [parts.NAME]." },
            "from": { "$ref": "#/definitions/from" },
            "with": { "type": "object", "description": "Values for the part's parameters. Default: those in its `vars`." },
        },
        "required": ["type", "part"],
        "additionalProperties": false,
    })
}

fn part_schema() -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["nodes"],
        "properties": {
            "vars": { "description": "The part's parameters and their defaults.", "$ref": "#/definitions/vars" },
            "out": {
                "description": "The node, or `node.port`, whose messages leave the part; or a table of ports.",
                "anyOf": [{ "type": "string" }, { "type": "object", "additionalProperties": { "type": "string" } }],
            },
            "nodes": { "$ref": "#/definitions/nodes" },
        },
    })
}

/// An option of whatever type may be `"${name}"`.
fn allow_variables(schema: &mut Json) {
    let properties = schema.get_mut("properties").and_then(Json::as_object_mut);
    for (_, option) in properties.into_iter().flatten() {
        if option["type"] == "string" && option.get("enum").is_none() {
            continue;
        }
        let mut inner = option.take();
        let mut outer = Map::new();
        if let Some(text) = inner
            .as_object_mut()
            .and_then(|it| it.remove("description"))
        {
            outer.insert("description".to_owned(), text);
        }
        let variable = json!({ "type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}" });
        outer.insert("anyOf".to_owned(), json!([inner, variable]));
        *option = Json::Object(outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_does_something_and_fails_only_to_be_caught() {
        for node_type in node_types() {
            let name = node_type.name;
            let trace = run_example(node_type).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(trace.panics, [], "{name}");
            assert!(
                !deeds(&trace).is_empty(),
                "the example of `{name}` does nothing"
            );
            if !node_type.example.contains("\"catch\"") {
                assert_eq!(trace.failures, [], "{name}");
            }
        }
    }

    /// The flow as JSON, as an editor sees it.
    fn as_json(flow: &str) -> Json {
        let table: toml::Table = flow.parse().expect("valid TOML");
        serde_json::to_value(table).expect("TOML without dates has a JSON form")
    }

    #[test]
    fn the_schema_takes_what_the_checker_takes_and_refuses_typing_errors() {
        let schema = jsonschema::validator_for(&flow_schema()).expect("a valid schema");
        let check = |name: &str, flow: &str, is_valid: bool| {
            let errors: Vec<String> = schema
                .iter_errors(&as_json(flow))
                .map(|e| e.to_string())
                .collect();
            assert_eq!(errors.is_empty(), is_valid, "{name}: {errors:#?}");
        };
        for node_type in node_types() {
            check(node_type.name, node_type.example, true);
            let wrong = node_type
                .example
                .replacen("\ntype = ", "\ntypo = 1\ntype = ", 1);
            check(node_type.name, &wrong, false);
        }
        for (name, flow) in crate::examples::FLOWS {
            check(name, flow, true);
        }
        check("no type", "[nodes.a]\nevery = '1s'", false);
        check(
            "an unknown type",
            "[nodes.a]\ntype = 'injekt'\nevery = '1s'",
            false,
        );
        check("a name", "[nodes.A]\ntype = 'inject'\nevery = '1s'", false);
        let part = "[parts.p]\nvars = { a = 1 }\nout = 'x'\n[parts.p.nodes.x]\ntype = 'filter'\nfrom = 'in'\n\
                    deadband = '${a}'\n[nodes.u]\ntype = 'part'\npart = 'p'\nfrom = 'tick'\nwith = { a = 2 }";
        check("a part", part, true);
    }
}
