//! From a flow as written to a [`Graph`]: names, types, options, wires.
//!
//! Everything that can be wrong is reported; a graph comes out only when nothing is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::flow::diagnostic::{Report, did_you_mean};
use crate::flow::file::{self, FlowFile, WrittenNode, is_node_name};
use crate::flow::graph::{Graph, GraphNode};
use crate::flow::schema::SchemaPlace;
use crate::message::{NodeId, Object, Value};
use crate::nodes::{NODE_TYPES, NodeType, Spec, Use, place_of};

/// Nodes that one flow may have; a [`NodeId`] must fit into 16 bits.
const MOST_NODES: usize = 65_535;
/// Ways on which one message may come to one node.
const MOST_WAYS: u64 = 1_000;

/// Values that a device gives to a flow's variables, in the place of the defaults in the flow's file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// By the variable's name; what a flow does not declare is ignored.
    pub values: BTreeMap<String, Value>,
    /// Values from the environment, which go before the others. Each takes the type of the flow's default.
    pub texts: BTreeMap<String, String>,
}

impl Variables {
    /// The values as TOML, so that they take the same way into a node's options as the defaults in the file do.
    fn to_toml(&self) -> String {
        let is_plain =
            |value: &Value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::Text(_));
        let plain: BTreeMap<_, _> = self
            .values
            .iter()
            .filter(|(_, value)| is_plain(value))
            .collect();
        toml::to_string(&plain).expect("names and plain values always have a TOML form")
    }
}

/// Checks the text of a flow file. The report gets all that is wrong; without an error in it there is a graph.
pub fn check(name: &str, variables: &Variables, report: &mut Report) -> Option<Graph> {
    let source = report.source().clone();
    let file = file::parse(&source, report);
    let given = variables.to_toml();
    let given = DeTable::parse(&given)
        .map(Spanned::into_inner)
        .unwrap_or_default();
    if !is_node_name(name) {
        let help = "name the file with lower-case letters, digits, `_` and `-`, and `.toml`";
        report.error(
            0..0,
            format!("`{name}` is no name for a flow"),
            Some(help.into()),
        );
    }
    let graph = Checker::new(&file, &given, &variables.texts, report).graph(name, &file);
    if report.has_errors() {
        None
    } else {
        Some(graph)
    }
}

struct Checker<'a> {
    report: &'a mut Report,
    /// Each variable's value as TOML, to stand in for `${name}`, and as a message value, for JavaScript.
    vars: HashMap<String, (DeValue<'a>, Value)>,
    /// Where each node stands, by name.
    places: HashMap<&'a str, usize>,
    file: &'a FlowFile<'a>,
    used_vars: std::collections::HashSet<String>,
}

impl<'a> Checker<'a> {
    /// `given` and `texts` hold what the device gives to variables, by name.
    fn new(
        file: &'a FlowFile<'a>,
        given: &'a DeTable<'a>,
        texts: &'a BTreeMap<String, String>,
        report: &'a mut Report,
    ) -> Checker<'a> {
        let mut vars = HashMap::new();
        for (name, default) in &file.vars {
            let name: &str = name.get_ref();
            let toml = match texts.get(name) {
                Some(text) => typed(text, default.get_ref()),
                None => given.get(name).unwrap_or(default).get_ref().clone(),
            };
            let value = to_value(&toml);
            vars.insert(name.to_owned(), (toml, value));
        }
        let places = file
            .nodes
            .iter()
            .enumerate()
            .map(|(place, node)| (node.name.get_ref().as_str(), place))
            .collect();
        Checker {
            report,
            vars,
            places,
            file,
            used_vars: Default::default(),
        }
    }

    fn graph(mut self, name: &str, file: &'a FlowFile<'a>) -> Graph {
        if file.nodes.is_empty() && file.unreadable.is_empty() && !file.is_broken {
            self.report.error(
                0..0,
                "the flow has no nodes",
                Some("a node is a table: [nodes.NAME]".into()),
            );
        }
        if file.nodes.len() > MOST_NODES {
            self.report.error(
                0..0,
                format!(
                    "a flow can have {MOST_NODES} nodes, this one has {}",
                    file.nodes.len()
                ),
                None,
            );
            return self.finish(name, Vec::new());
        }
        let checked: Vec<_> = file.nodes.iter().map(|node| self.node(node)).collect();
        let readers = self.wires(&checked);
        self.named_nodes(&checked);
        let at_once = wires_at_once(&checked, &readers);
        if !self.cycles(&at_once) {
            self.multiplied(&at_once);
        }
        self.unread(&checked, &readers);
        self.pins(&checked);
        self.unused_vars();

        let nodes = checked.into_iter().zip(&file.nodes).zip(readers);
        let nodes = nodes.filter_map(|((checked, written), readers)| {
            let (node_type, spec) = (checked.node_type?, checked.spec?);
            Some(GraphNode {
                name: written.name.get_ref().as_str().into(),
                node_type,
                uses: spec.uses(),
                ports: spec.ports(),
                spec,
                readers,
            })
        });
        let nodes = nodes.collect();
        self.finish(name, nodes)
    }

    fn finish(self, name: &str, nodes: Vec<GraphNode>) -> Graph {
        let vars: Object = self
            .vars
            .into_iter()
            .map(|(name, (_, value))| (name.into(), value))
            .collect();
        Graph {
            name: name.into(),
            description: self.file.description.clone(),
            nodes,
            vars: Arc::new(vars),
        }
    }

    fn node(&mut self, node: &WrittenNode<'a>) -> CheckedNode {
        let type_name = node.node_type.get_ref();
        let Some(node_type) = NodeType::find(type_name) else {
            let help = did_you_mean(type_name, NODE_TYPES.iter().map(|node_type| node_type.name))
                .unwrap_or_else(|| "`tidegate nodes` lists the types".into());
            self.report.error(
                node.node_type.span(),
                format!("there is no node type `{type_name}`"),
                Some(help),
            );
            return CheckedNode {
                node_type: None,
                spec: None,
            };
        };
        let name = node.name.get_ref();
        match (&node.from_span, node_type.has_input) {
            (Some(span), false) => {
                let help = "remove `from`: this node begins a flow";
                self.report.error(
                    span.clone(),
                    format!("node `{name}` ({type_name}) has no input"),
                    Some(help.into()),
                );
            }
            (None, true) => {
                let help = "`from = \"NODE\"` names the node whose messages it reads";
                self.report.error(
                    node.name.span(),
                    format!("node `{name}` ({type_name}) needs an input"),
                    Some(help.into()),
                );
            }
            _ => {}
        }
        let before = self.report.diagnostics.len();
        let options = self.substitute(node_type, &node.options);
        let unresolved: Vec<_> = self.report.diagnostics[before..]
            .iter()
            .map(|found| found.span.clone())
            .collect();
        let spec = node_type.read(&options, node.name.span(), name, self.report);
        // What is wrong only because a variable is missing has been said.
        let mut place = 0;
        self.report.diagnostics.retain(|found| {
            place += 1;
            place <= before + unresolved.len() || !unresolved.contains(&found.span)
        });
        let spec = spec.filter(|_| unresolved.is_empty());
        CheckedNode {
            node_type: Some(node_type),
            spec,
        }
    }

    /// The options with `${name}` replaced, except in JavaScript, which says `vars.name`.
    fn substitute(&mut self, node_type: &NodeType, options: &DeTable<'a>) -> DeTable<'a> {
        let schema = node_type.schema();
        let mut options = options.clone();
        for (name, value) in options.iter_mut() {
            let schema = SchemaPlace::new(&schema).field(name.get_ref());
            self.substitute_in(value, schema);
        }
        options
    }

    fn substitute_in(&mut self, value: &mut Spanned<DeValue<'a>>, schema: SchemaPlace<'_>) {
        if schema.format() == Some("javascript") {
            return self.note_vars_in_javascript(value);
        }
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                if let Some(replaced) = self.replaced(&text.clone(), span) {
                    *value.get_mut() = replaced;
                }
            }
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    self.substitute_in(item, schema.item());
                }
            }
            DeValue::Table(table) => {
                for (name, field) in table.iter_mut() {
                    self.substitute_in(field, schema.field(name.get_ref()));
                }
            }
            _ => {}
        }
    }

    /// The value of a text with variables in it. One that is exactly `${name}` keeps the variable's type.
    fn replaced(&mut self, text: &str, span: Range<usize>) -> Option<DeValue<'a>> {
        if let Some(name) = text
            .strip_prefix("${")
            .and_then(|rest| rest.strip_suffix('}'))
            && !name.contains('}')
        {
            return self.variable(name, span).map(|(toml, _)| toml);
        }
        let mut filled = String::new();
        let mut rest = text;
        while let Some(open) = rest.find("${") {
            let Some(close) = rest[open..].find('}') else {
                self.report.error(span, "`${` without its `}`", None);
                return None;
            };
            let (_, value) = self.variable(&rest[open + 2..open + close], span.clone())?;
            filled.push_str(&rest[..open]);
            match value {
                Value::Text(text) => filled.push_str(&text),
                other => filled.push_str(&other.to_json()),
            }
            rest = &rest[open + close + 1..];
        }
        filled.push_str(rest);
        Some(DeValue::String(filled.into()))
    }

    fn variable(&mut self, name: &str, span: Range<usize>) -> Option<(DeValue<'a>, Value)> {
        if let Some(found) = self.vars.get(name) {
            self.used_vars.insert(name.to_owned());
            return Some(found.clone());
        }
        let help = did_you_mean(name, self.vars.keys().map(String::as_str))
            .unwrap_or_else(|| format!("give it a default: [vars] {name} = ..."));
        self.report
            .error(span, format!("there is no variable `{name}`"), Some(help));
        None
    }

    fn note_vars_in_javascript(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(text) = value.get_ref().as_str() else {
            return;
        };
        if text.contains("${") && !text.contains('`') {
            let help = "inside JavaScript a variable is written `vars.NAME`";
            self.report.error(
                value.span(),
                "`${...}` is not replaced inside JavaScript",
                Some(help.into()),
            );
        }
        let names = text
            .split("vars")
            .skip(1)
            .map(|rest| rest.trim_start_matches(['.', '[', '"', '\'', '?', ' ']));
        for name in names {
            let end = name
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            self.used_vars.insert(name[..end].to_owned());
        }
    }

    fn unused_vars(&mut self) {
        for (name, value) in &self.file.vars {
            if !self.used_vars.contains(name.get_ref().as_ref()) {
                let message = format!("the variable `{}` is not used", name.get_ref());
                self.report
                    .warning(name.span().start..value.span().end, message, None);
            }
        }
    }

    /// Per node and port, the nodes that read it, in file order.
    fn wires(&mut self, checked: &[CheckedNode]) -> Vec<Vec<Vec<NodeId>>> {
        let mut readers: Vec<Vec<Vec<NodeId>>> = checked
            .iter()
            .map(|node| vec![Vec::new(); node.ports().map_or(0, |ports| ports.len())])
            .collect();
        for (place, node) in self.file.nodes.iter().enumerate() {
            for input in &node.from {
                let Some((sender, port)) = self.find_output(input, checked) else {
                    continue;
                };
                let reader = NodeId(u16::try_from(place).expect("MOST_NODES limits the places"));
                if readers[sender][port].contains(&reader) {
                    self.report.error(
                        input.span(),
                        format!("`{}` is named twice", input.get_ref()),
                        None,
                    );
                } else {
                    readers[sender][port].push(reader);
                }
            }
        }
        readers
    }

    /// The node and port that an entry of `from` names, if they exist.
    fn find_output(
        &mut self,
        input: &Spanned<String>,
        checked: &[CheckedNode],
    ) -> Option<(usize, usize)> {
        let (name, port) = match input.get_ref().split_once('.') {
            Some((name, port)) => (name, Some(port)),
            None => (input.get_ref().as_str(), None),
        };
        if self
            .file
            .unreadable
            .iter()
            .any(|unreadable| unreadable == name)
        {
            return None;
        }
        let Some(&sender) = self.places.get(name) else {
            let help = did_you_mean(name, self.places.keys().copied());
            self.report
                .error(input.span(), format!("there is no node `{name}`"), help);
            return None;
        };
        let node_type = checked[sender].node_type?;
        let ports = checked[sender].ports()?;
        if ports.is_empty() {
            let message = format!("node `{name}` ({}) sends nothing", node_type.name);
            self.report.error(
                input.span(),
                message,
                Some("read from the node before it".into()),
            );
            return None;
        }
        let Some(port) = port else {
            return Some((sender, 0));
        };
        let found = ports.iter().position(|known| known == port);
        if found.is_none() {
            let names = ports
                .iter()
                .map(|port| format!("`{port}`"))
                .collect::<Vec<_>>()
                .join(", ");
            let help = did_you_mean(port, ports.iter().map(String::as_str))
                .unwrap_or_else(|| format!("it has {names}"));
            let message = format!("node `{name}` ({}) has no port `{port}`", node_type.name);
            self.report.error(input.span(), message, Some(help));
        }
        found.map(|port| (sender, port))
    }

    /// Options that name nodes: those that a node reads from, and those that it watches.
    fn named_nodes(&mut self, checked: &[CheckedNode]) {
        for (checked, written) in checked.iter().zip(&self.file.nodes) {
            let Some(spec) = &checked.spec else { continue };
            for (option, name) in spec.inputs() {
                let inputs = written.from.iter();
                let known: Vec<&str> = inputs
                    .map(|input| input.get_ref().split('.').next().unwrap_or_default())
                    .collect();
                if !known.contains(&name.as_str()) {
                    let help = did_you_mean(&name, known)
                        .unwrap_or_else(|| "add it to `from`, or name one that is there".into());
                    let span = place_of(&written.options, option);
                    self.report.error(
                        span.unwrap_or_else(|| written.name.span()),
                        format!("`{option}`: this node does not read from `{name}`"),
                        Some(help),
                    );
                }
            }
            let watched = spec.watches().and_then(|watch| watch.nodes);
            for (place, name) in watched.into_iter().flatten().enumerate() {
                if !self.places.contains_key(name.as_str()) {
                    let help = did_you_mean(&name, self.places.keys().copied());
                    let span = place_of(&written.options, &format!("nodes.{place}"));
                    self.report.error(
                        span.unwrap_or_else(|| written.name.span()),
                        format!("there is no node `{name}`"),
                        help,
                    );
                }
            }
        }
    }

    /// Wires that part and meet again deliver a message once for each way; with many of them, more often than anyone wants.
    fn multiplied(&mut self, readers: &[Vec<Vec<NodeId>>]) {
        let targets = |node: usize| readers[node].iter().flatten().map(|id| usize::from(id.0));
        let mut ways = vec![0_u64; readers.len()];
        for node in in_order(readers) {
            ways[node] = ways[node].max(1);
            for target in targets(node) {
                ways[target] = ways[target].saturating_add(ways[node]);
            }
        }
        if let Some(node) = ways.iter().position(|ways| *ways > MOST_WAYS) {
            let node = &self.file.nodes[node];
            let span = node.from_span.clone().unwrap_or_else(|| node.name.span());
            let message = format!(
                "there are more than {MOST_WAYS} ways to node `{}`",
                node.name.get_ref()
            );
            let help = "wires that part and meet again multiply messages; take some of them away";
            self.report.error(span, message, Some(help.into()));
        }
    }

    /// A message that could come back to where it was would never stop. Says whether there is a cycle.
    fn cycles(&mut self, readers: &[Vec<Vec<NodeId>>]) -> bool {
        let targets = |node: usize| readers[node].iter().flatten().map(|id| usize::from(id.0));
        let mut is_stuck = vec![true; readers.len()];
        for node in in_order(readers) {
            is_stuck[node] = false;
        }
        // What is left is on a cycle or behind one: walk back along inputs until a node comes up twice.
        let Some(start) = is_stuck.iter().position(|is_stuck| *is_stuck) else {
            return false;
        };
        let sender_of = |node: usize| {
            (0..readers.len())
                .find(|sender| is_stuck[*sender] && targets(*sender).any(|target| target == node))
        };
        let mut path = vec![start];
        while let Some(sender) = sender_of(path[path.len() - 1]) {
            if let Some(first) = path.iter().position(|node| *node == sender) {
                path.drain(..first);
                path.push(sender);
                break;
            }
            path.push(sender);
        }
        path.reverse();
        let names = path
            .iter()
            .map(|node| self.file.nodes[*node].name.get_ref().as_str())
            .collect::<Vec<_>>()
            .join(" -> ");
        let node = &self.file.nodes[path[0]];
        let span = node.from_span.clone().unwrap_or_else(|| node.name.span());
        let help = "a message would go round for ever; take one of these wires away, or put a `delay` among them";
        self.report.error(
            span,
            format!("the wires make a cycle: {names}"),
            Some(help.into()),
        );
        true
    }

    fn unread(&mut self, checked: &[CheckedNode], readers: &[Vec<Vec<NodeId>>]) {
        for ((checked, ports), written) in checked.iter().zip(readers).zip(&self.file.nodes) {
            if checked.node_type.is_some() && !ports.is_empty() && ports.iter().all(Vec::is_empty) {
                let name = written.name.get_ref();
                let help = format!("another node can read it: from = \"{name}\"");
                self.report.warning(
                    written.name.span(),
                    format!("nothing reads node `{name}`"),
                    Some(help),
                );
            }
        }
    }

    fn pins(&mut self, checked: &[CheckedNode]) {
        let mut users: HashMap<u8, (&str, bool)> = HashMap::new();
        for (checked, written) in checked.iter().zip(&self.file.nodes) {
            let Some(spec) = &checked.spec else { continue };
            for needed in spec.uses() {
                let Some(pin) = needed.pin() else { continue };
                let name = written.name.get_ref().as_str();
                let drives = matches!(needed, Use::Output { .. });
                if let Some((other, _)) = users.get(&pin.number()) {
                    let span = written
                        .options
                        .get("pin")
                        .map_or(written.name.span(), Spanned::span);
                    let help = "each pin belongs to one node; let one node use it and the others read from that node";
                    self.report.error(
                        span,
                        format!("pin {} is used by node `{other}` already", pin.number()),
                        Some(help.into()),
                    );
                } else {
                    users.insert(pin.number(), (name, drives));
                }
            }
        }
    }
}

struct CheckedNode {
    node_type: Option<&'static NodeType>,
    spec: Option<Arc<dyn Spec>>,
}

impl CheckedNode {
    /// The output ports, if they are known: not when the options that name them cannot be read.
    fn ports(&self) -> Option<Vec<String>> {
        match (&self.spec, self.node_type?) {
            (Some(spec), _) => Some(spec.ports()),
            (None, node_type) if node_type.names_ports => None,
            (None, node_type) => Some(node_type.ports.iter().map(|port| (*port).into()).collect()),
        }
    }
}

/// The wires on which a message arrives in the same moment: those into nodes that hold everything back are not among them.
fn wires_at_once(checked: &[CheckedNode], readers: &[Vec<Vec<NodeId>>]) -> Vec<Vec<Vec<NodeId>>> {
    let holds_back = |node: &NodeId| {
        let spec = &checked[usize::from(node.0)].spec;
        spec.as_ref().is_some_and(|spec| spec.breaks_cycle())
    };
    let mut wires = readers.to_vec();
    for readers in wires.iter_mut().flatten() {
        readers.retain(|reader| !holds_back(reader));
    }
    wires
}

/// The nodes in an order in which each comes after all that it reads from; without those that are on a cycle or behind one.
fn in_order(readers: &[Vec<Vec<NodeId>>]) -> Vec<usize> {
    let targets = |node: usize| readers[node].iter().flatten().map(|id| usize::from(id.0));
    let mut inputs = vec![0_usize; readers.len()];
    for node in 0..readers.len() {
        targets(node).for_each(|target| inputs[target] += 1);
    }
    let mut order: Vec<usize> = (0..readers.len())
        .filter(|node| inputs[*node] == 0)
        .collect();
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for target in targets(node) {
            inputs[target] -= 1;
            if inputs[target] == 0 {
                order.push(target);
            }
        }
    }
    order
}

/// Text from the environment with the type of the default that it stands in for; as text, if it does not fit, so that the
/// option that uses it says what it expected.
fn typed<'a>(text: &'a str, default: &DeValue<'_>) -> DeValue<'a> {
    if !default.is_str()
        && let Ok(value) = DeValue::parse(text)
        && matches!(
            value.get_ref(),
            DeValue::Boolean(_) | DeValue::Integer(_) | DeValue::Float(_)
        )
    {
        return value.into_inner();
    }
    DeValue::String(text.into())
}

fn to_value(toml: &DeValue<'_>) -> Value {
    let spanned = Spanned::new(0..0, toml.clone());
    serde::Deserialize::deserialize(toml::de::ValueDeserializer::from(spanned))
        .unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        problems_with(text, &Variables::default())
    }

    fn problems_with(text: &str, variables: &Variables) -> Vec<String> {
        let mut report = Report::new("f.toml", text);
        let graph = check("f", variables, &mut report);
        assert_eq!(
            graph.is_none(),
            report.has_errors(),
            "a graph exists if and only if there is no error"
        );
        report
            .into_diagnostics()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const TICK: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n";

    fn with_tick(text: &str) -> Vec<String> {
        problems(&format!("{TICK}{text}"))
    }

    #[test]
    fn wires_are_checked() {
        let check = |text: &str, expected: &[&str]| assert_eq!(with_tick(text), expected);
        check("[nodes.a]\ntype = 'debug'\nfrom = 'tick'", &[]);
        check("[nodes.a]\ntype = 'debug'\nfrom = 'tick.out'", &[]);
        check(
            "[nodes.a]\ntype = 'debug'\nfrom = 'tik'",
            &[
                "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
                "f.toml:6:8: error: there is no node `tik` (did you mean `tick`?)",
            ],
        );
        check(
            "[nodes.a]\ntype = 'debug'\nfrom = 'tick.oout'",
            &[
                "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
                "f.toml:6:8: error: node `tick` (inject) has no port `oout` (did you mean `out`?)",
            ],
        );
        check(
            "[nodes.a]\ntype = 'debug'\nfrom = 'tick'\n[nodes.b]\ntype = 'debug'\nfrom = 'a'",
            &["f.toml:9:8: error: node `a` (debug) sends nothing (read from the node before it)"],
        );
        check(
            "from = 'a'\n[nodes.a]\ntype = 'debug'",
            &[
                "f.toml:1:8: warning: nothing reads node `tick` (another node can read it: from = \"tick\")",
                "f.toml:4:8: error: node `tick` (inject) has no input (remove `from`: this node begins a flow)",
                "f.toml:4:8: error: node `a` (debug) sends nothing (read from the node before it)",
                "f.toml:5:8: error: node `a` (debug) needs an input (`from = \"NODE\"` names the node whose messages it reads)",
            ],
        );
    }

    #[test]
    fn a_cycle_is_named() {
        let range = |name: &str, from: &str| {
            format!("[nodes.{name}]\ntype = 'range'\nin = [0, 1]\nfrom = {from}\n")
        };
        let flow = [
            range("a", "['tick', 'c']"),
            range("b", "'a'"),
            range("c", "'b'"),
            range("d", "'c'"),
        ]
        .concat();
        let found = with_tick(&format!("{flow}[nodes.e]\ntype = 'debug'\nfrom = 'd'"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("the wires make a cycle: a -> b -> c -> a"),
            "{found:?}"
        );
    }

    #[test]
    fn types_and_names_are_checked() {
        let check = |text: &str, expected: &[&str]| assert_eq!(problems(text), expected);
        check(
            "",
            &["f.toml:1:1: error: the flow has no nodes (a node is a table: [nodes.NAME])"],
        );
        check(
            "[nodes.a]\ntype = 'injct'",
            &["f.toml:2:8: error: there is no node type `injct` (did you mean `inject`?)"],
        );
        check(
            "[node.a]\ntype = 'inject'",
            &[
                "f.toml:1:1: error: the flow has no nodes (a node is a table: [nodes.NAME])",
                "f.toml:1:2: error: a flow file has no `node` (did you mean `nodes`?)",
            ],
        );
        let upper = problems("[nodes.A]\ntype = 'inject'\nevery = '1s'");
        assert!(upper[0].contains("`A` is no name for a node"), "{upper:?}");
    }

    #[test]
    fn one_pin_has_one_user() {
        let door = "[nodes.door]\ntype = 'gpio in'\npin = 22\n[nodes.show]\ntype = 'debug'\nfrom = ['door', 'again']\n";
        let found = problems(&format!("{door}[nodes.again]\ntype = 'gpio in'\npin = 22"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("f.toml:9:7: error: pin 22 is used by node `door` already"),
            "{found:?}"
        );
    }

    #[test]
    fn variables_are_replaced_with_their_type() {
        let flow = "[vars]\npace = '2s'\nwarm = 5.0\n[nodes.a]\ntype = 'inject'\nevery = '${pace}'\npayload = 'at ${warm} C'\n\
                    [nodes.b]\ntype = 'hysteresis'\nabove = '${warm}'\nbelow = 1\nfrom = 'a'\n[nodes.c]\ntype = 'debug'\nfrom = 'b'";
        assert_eq!(problems(flow), [""; 0]);
        let device = |name: &str, value: Value| Variables {
            values: BTreeMap::from([(name.to_owned(), value)]),
            ..Variables::default()
        };
        let environment = |name: &str, text: &str| Variables {
            texts: BTreeMap::from([(name.to_owned(), text.to_owned())]),
            ..Variables::default()
        };
        assert_eq!(problems_with(flow, &environment("warm", "7")), [""; 0]);
        assert!(problems_with(flow, &environment("warm", "hot"))[0].contains("expected a number"));
        assert!(
            problems_with(flow, &environment("pace", "12"))[0].contains("is no length of time")
        );
        assert_eq!(
            problems_with(flow, &device("warm", Value::Number(7.0))),
            [""; 0]
        );
        assert_eq!(
            problems_with(flow, &device("warm", Value::from("hot")))[0],
            "f.toml:10:9: error: `above`: string \"hot\", expected a number (`above`: `true` once the payload is greater than this)"
        );
        let unknown = problems(&flow.replace("${pace}", "${pcae}"));
        assert!(
            unknown
                .iter()
                .any(|p| p.contains("there is no variable `pcae` (did you mean `pace`?)")),
            "{unknown:?}"
        );
        assert!(
            unknown
                .iter()
                .any(|p| p.contains("the variable `pace` is not used")),
            "{unknown:?}"
        );
    }

    #[test]
    fn javascript_is_checked_and_keeps_its_dollars() {
        let filter = |when: &str| {
            with_tick(&format!(
                "[nodes.w]\ntype = 'where'\nfrom = 'tick'\nwhen = \"{when}\"\n[nodes.d]\ntype = 'debug'\nfrom = 'w'"
            ))
        };
        assert_eq!(filter("payload > 1"), [""; 0]);
        assert!(
            filter("payload >")[0].starts_with("f.toml:7:8: error: `when`: JavaScript:"),
            "{:?}",
            filter("payload >")
        );
        assert!(filter("payload > ${x}")[0].contains("written `vars.NAME`"));
    }

    #[test]
    fn javascript_in_a_list_of_rules_keeps_its_dollars_and_its_neighbours_do_not() {
        let found = with_tick(
            "[vars]\nlimit = 5\nunit = 'C'\n[nodes.c]\ntype = 'change'\nfrom = 'tick'\n\
             rules = [{ set = 'payload', to_js = '`${payload} of ${vars.limit}`' }, { set = 'topic', to = 'in ${unit}' }]\n\
             [nodes.d]\ntype = 'debug'\nfrom = 'c'",
        );
        assert_eq!(found, [""; 0]);
        let found = with_tick(
            "[nodes.c]\ntype = 'change'\nfrom = 'tick'\nrules = [{ set = 'payload', to_js = '${x}' }]\n\
             [nodes.d]\ntype = 'debug'\nfrom = 'c'",
        );
        assert!(found[0].contains("written `vars.NAME`"), "{found:?}");
    }

    #[test]
    fn broken_toml_is_reported_with_everything_else() {
        let found =
            problems("[nodes.a]\ntype = 'inject'\nevery = \n[nodes.b]\ntype = 'debgu'\nfrom = 'a'");
        assert!(
            found.iter().any(|p| p.starts_with("f.toml:3:")),
            "{found:?}"
        );
        assert!(
            found.iter().any(|p| p.contains("did you mean `debug`?")),
            "{found:?}"
        );
    }
}
