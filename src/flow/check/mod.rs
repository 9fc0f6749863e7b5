//! From a flow as written to a [`Graph`]: names, types, options, wires.
//!
//! Everything that can be wrong is reported; a graph comes out only when nothing is.

pub(super) mod advice;
#[cfg(test)]
mod tests;
mod vars;
pub(crate) mod wires;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::vars::Vars;
use self::wires::Wires;
use crate::flow::diagnostic::{Report, Severity, did_you_mean};
use crate::flow::file::{self, FlowFile, WrittenNode, is_node_name};
use crate::flow::graph::{Graph, GraphNode, Watching};
use crate::flow::parts::{self, Expanded, Reference};
use crate::message::{NodeId, Value};
use crate::nodes::{NodeType, Spec, Use, node_types, place_of};

/// Nodes that one flow may have, with its parts; a [`NodeId`] must fit into 16 bits.
const MOST_NODES: usize = 65_535;

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
        let help = match name.strip_suffix(".test") {
            Some(flow) if is_node_name(flow) => {
                "this is the test of a flow: `tidegate test` checks and runs it"
            }
            _ => "name the file with lower-case letters, digits, `_` and `-`, and `.toml`",
        };
        report.error(
            0..0,
            format!("`{name}` is no name for a flow"),
            Some(help.into()),
        );
    }
    let expanded = parts::expand(&file, MOST_NODES, report);
    let mut vars = Vars::new(&file, &given, &variables.texts);
    vars.enter_parts(&file, &expanded, report);
    let places = expanded
        .nodes
        .iter()
        .enumerate()
        .map(|(place, node)| (node.full_name(), place))
        .collect();
    let checker = Checker {
        report,
        vars,
        places,
        file: &file,
        expanded: &expanded,
    };
    let mut graph = checker.graph(name);
    graph.print = crc32fast::hash(source.text.as_bytes());
    // A part that is used several times says what is wrong in it once.
    report.drop_repeated();
    if report.has_errors() {
        return None;
    }
    advice::advise(&graph, report);
    Some(graph)
}

struct Checker<'c, 'a> {
    report: &'c mut Report,
    vars: Vars<'a>,
    /// Where each node stands, by its full name.
    places: HashMap<String, usize>,
    file: &'c FlowFile<'a>,
    /// The nodes, those of parts included.
    expanded: &'c Expanded<'a>,
}

struct CheckedNode {
    node_type: Option<&'static NodeType>,
    spec: Option<Arc<dyn Spec>>,
    print: u32,
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

impl<'a> Checker<'_, 'a> {
    fn graph(mut self, name: &str) -> Graph {
        let file = self.file;
        if file.nodes.is_empty() && file.unreadable.is_empty() && !file.is_broken {
            self.report.error(
                0..0,
                "the flow has no nodes",
                Some("a node is a table: [nodes.NAME]".into()),
            );
        }
        let nodes = &self.expanded.nodes;
        let checked: Vec<_> = nodes.iter().map(|node| self.node(node)).collect();
        let (wires, inputs) = self.wires(&checked);
        let watching = self.named_nodes(&checked, &inputs);
        let at_once = wires_at_once(&checked, &wires);
        if !wires::has_cycle(&at_once, nodes, self.report) {
            wires::count_ways(&at_once, nodes, self.report);
        }
        self.unread(&checked, &wires);
        self.pins(&checked);
        self.vars.warn_of_unused(file, self.report);

        let mut scopes = HashMap::new();
        let mut graph_nodes = Vec::new();
        let parts = checked.into_iter().zip(nodes).zip(wires);
        for (((checked, written), readers), (inputs, watching)) in
            parts.zip(inputs.into_iter().zip(watching))
        {
            let (Some(node_type), Some(spec)) = (checked.node_type, checked.spec) else {
                continue;
            };
            let vars = scopes
                .entry(written.scope.clone())
                .or_insert_with(|| self.vars.object(&written.scope));
            graph_nodes.push(GraphNode {
                name: written.full_name().into(),
                span: written.name.span(),
                node_type,
                uses: spec.uses(),
                ports: spec.ports(),
                spec,
                print: checked.print,
                readers,
                inputs,
                watching,
                vars: vars.clone(),
            });
        }
        Graph {
            name: name.into(),
            description: file.description.clone(),
            nodes: graph_nodes,
            vars: self.vars.object(""),
            print: 0,
        }
    }

    fn node(&mut self, node: &WrittenNode<'a>) -> CheckedNode {
        let type_name = node.node_type.get_ref();
        let Some(node_type) = NodeType::find(type_name) else {
            let known = node_types().map(|node_type| node_type.name);
            let mut parts = self.file.parts.iter();
            let help = if parts.any(|part| part.name.get_ref() == type_name) {
                format!("a part is used with type = \"part\", part = \"{type_name}\"")
            } else {
                elsewhere(type_name)
                    .map(str::to_owned)
                    .or_else(|| did_you_mean(type_name, known.chain([parts::TYPE])))
                    .unwrap_or_else(|| "`tidegate nodes` lists the types".into())
            };
            self.report.error(
                node.node_type.span(),
                format!("there is no node type `{type_name}`"),
                Some(help),
            );
            return CheckedNode {
                node_type: None,
                spec: None,
                print: 0,
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
        let options =
            self.vars
                .substitute(&node_type.schema(), &node.options, &node.scope, self.report);
        let said = self.report.diagnostics.len();
        let unresolved: Vec<_> = self.report.diagnostics[before..]
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .map(|found| found.span.clone())
            .collect();
        let spec = node_type.read(&options, node.name.span(), name, self.report);
        // What is wrong only because a variable is missing has been said.
        let mut place = 0;
        self.report.diagnostics.retain(|found| {
            place += 1;
            place <= said || !unresolved.contains(&found.span)
        });
        let spec = spec.filter(|_| unresolved.is_empty());
        CheckedNode {
            node_type: Some(node_type),
            spec,
            print: print_of(type_name, &options),
        }
    }

    /// Per node and port, the nodes that read it; and per node the nodes that it reads, by the names that it uses for them.
    fn wires(&mut self, checked: &[CheckedNode]) -> (Wires, Vec<Vec<(String, NodeId)>>) {
        let mut wires: Wires = checked
            .iter()
            .map(|node| vec![Vec::new(); node.ports().map_or(0, |ports| ports.len())])
            .collect();
        let mut inputs = vec![Vec::new(); checked.len()];
        for (place, node) in self.expanded.nodes.iter().enumerate() {
            for written in &node.from {
                let name = Reference::new("", written).name;
                for input in self
                    .expanded
                    .inputs(&node.scope, std::slice::from_ref(written))
                {
                    let span = input.span.clone();
                    let Some((sender, port)) = self.find_output(input, checked) else {
                        continue;
                    };
                    inputs[place].push((name.clone(), node_id(sender)));
                    let reader = node_id(place);
                    if wires[sender][port].contains(&reader) {
                        let message = format!("`{}` is named twice", written.get_ref());
                        self.report.error(span, message, None);
                    } else {
                        wires[sender][port].push(reader);
                    }
                }
            }
        }
        (wires, inputs)
    }

    /// The node and port that an entry of `from` leads to, if they exist.
    fn find_output(
        &mut self,
        mut wanted: Reference,
        checked: &[CheckedNode],
    ) -> Option<(usize, usize)> {
        // The port of a part leads to a node in it, or of a part in it.
        while let Some(part_use) = self.expanded.uses.get(&wanted.full_name()) {
            let part = &self.file.parts[part_use.part];
            let found = match &wanted.port {
                None => part.out.first(),
                Some(port) => part.out.iter().find(|(known, _)| known.get_ref() == port),
            };
            let Some((_, inside)) = found else {
                let names: Vec<String> = part
                    .out
                    .iter()
                    .map(|(port, _)| format!("`{}`", port.get_ref()))
                    .collect();
                let name = part.name.get_ref();
                let (message, help) = match &wanted.port {
                    Some(port) if !names.is_empty() => (
                        format!("the part `{name}` has no port `{port}`"),
                        format!("it has {}", names.join(", ")),
                    ),
                    _ => (
                        format!("the part `{name}` sends nothing"),
                        format!("[parts.{name}] out = \"NODE\" says whose messages leave it"),
                    ),
                };
                self.report.error(wanted.span, message, Some(help));
                return None;
            };
            let scope = format!("{}/", wanted.full_name());
            wanted = Reference::new(&scope, inside);
        }
        let name = &wanted.name;
        if self.is_unreadable(&wanted) {
            return None;
        }
        let Some(&sender) = self.places.get(&wanted.full_name()) else {
            let help = match wanted.scope.is_empty() || name != parts::INPUT {
                _ if name.contains('$') => {
                    Some("`${...}` is replaced in options, not in `from`".into())
                }
                true => did_you_mean(name, self.names_in(&wanted.scope)),
                false => Some(
                    "a part cannot hand out what it is given; read from the node before it".into(),
                ),
            };
            self.report
                .error(wanted.span, format!("there is no node `{name}`"), help);
            return None;
        };
        let node_type = checked[sender].node_type?;
        let ports = checked[sender].ports()?;
        if ports.is_empty() {
            let message = format!("node `{name}` ({}) sends nothing", node_type.name);
            let help = "read from the node before it";
            self.report.error(wanted.span, message, Some(help.into()));
            return None;
        }
        let Some(port) = &wanted.port else {
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
            self.report.error(wanted.span, message, Some(help));
        }
        found.map(|port| (sender, port))
    }

    /// Whether so much is wrong with a node that nothing is known of it, which has been said.
    fn is_unreadable(&self, wanted: &Reference) -> bool {
        let part_use = self.expanded.uses.get(wanted.scope.trim_end_matches('/'));
        let (unreadable, nodes) = match part_use {
            Some(part_use) => {
                let part = &self.file.parts[part_use.part];
                (&part.unreadable, &part.nodes)
            }
            None => (&self.file.unreadable, &self.file.nodes),
        };
        // A use of a part that could not be put in.
        let is_bad_use = nodes.iter().any(|node| {
            *node.name.get_ref() == wanted.name && node.node_type.get_ref() == parts::TYPE
        });
        unreadable.contains(&wanted.name) || is_bad_use
    }

    /// The names that can be written inside of a scope.
    fn names_in<'s>(&'s self, scope: &'s str) -> impl Iterator<Item = &'s str> {
        self.places
            .keys()
            .chain(self.expanded.uses.keys())
            .filter_map(move |name| name.strip_prefix(scope))
            .filter(|name| !name.contains('/'))
    }

    /// Options that name nodes: those that a node reads from, and those that it watches, which are given back.
    fn named_nodes(
        &mut self,
        checked: &[CheckedNode],
        inputs: &[Vec<(String, NodeId)>],
    ) -> Vec<Option<Watching>> {
        let mut all = Vec::new();
        for ((checked, written), inputs) in checked.iter().zip(&self.expanded.nodes).zip(inputs) {
            let span_of = |option: &str| {
                place_of(&written.options, option).unwrap_or_else(|| written.name.span())
            };
            let Some(spec) = &checked.spec else {
                all.push(None);
                continue;
            };
            for (option, name) in spec.inputs() {
                let known = || {
                    written
                        .from
                        .iter()
                        .map(|from| from.get_ref().split('.').next().unwrap_or_default())
                };
                if !known().any(|known| known == name) {
                    let help = did_you_mean(&name, known())
                        .unwrap_or_else(|| "add it to `from`, or name one that is there".into());
                    let message = format!("`{option}`: this node does not read from `{name}`");
                    self.report.error(span_of(option), message, Some(help));
                    continue;
                }
                // Several ports of one node are no reason.
                let known = inputs.iter().filter(|(known, _)| *known == name);
                let nodes: HashSet<NodeId> = known.map(|(_, node)| *node).collect();
                if nodes.len() > 1 {
                    let message = format!("`{option}`: `{name}` stands for several nodes here");
                    let help = "read them through a node of their own each, such as `filter`, and name that";
                    self.report
                        .error(span_of(option), message, Some(help.into()));
                }
            }
            all.push(spec.watches().map(|watch| {
                let mut watched = Vec::new();
                let is_in = |scope: &str| {
                    let nodes = self.places.iter();
                    nodes
                        .filter(|(name, _)| name.starts_with(scope))
                        .map(|(_, place)| node_id(*place))
                        .collect::<Vec<_>>()
                };
                match &watch.nodes {
                    None => watched = is_in(&written.scope),
                    Some(names) => {
                        for (place, name) in names.iter().enumerate() {
                            let full = format!("{}{name}", written.scope);
                            if let Some(place) = self.places.get(&full) {
                                watched.push(node_id(*place));
                            } else if self.expanded.uses.contains_key(&full) {
                                watched.extend(is_in(&format!("{full}/")));
                            } else {
                                let help = did_you_mean(name, self.names_in(&written.scope));
                                let span = span_of(&format!("nodes.{place}"));
                                let message = format!("there is no node `{name}`");
                                self.report.error(span, message, help);
                            }
                        }
                    }
                }
                watched.sort();
                // A node may be named twice, also as one of a part that is named.
                watched.dedup();
                Watching {
                    what: watch.what,
                    nodes: watched,
                }
            }));
        }
        all
    }

    /// Of a part's nodes, those count as read that are in one of its uses, or that it hands out.
    fn unread(&mut self, checked: &[CheckedNode], wires: &Wires) {
        let nodes = &self.expanded.nodes;
        let parts = self.expanded.uses.iter();
        let handed_out = parts.flat_map(|(scope, part_use)| {
            let out = self.file.parts[part_use.part].out.iter();
            let scope = format!("{scope}/");
            out.map(move |(_, inside)| Reference::new(&scope, inside).full_name())
        });
        let handed_out: HashSet<String> = handed_out.collect();
        let is_read = |place: &usize| wires[*place].iter().any(|readers| !readers.is_empty());
        let read = (0..nodes.len()).filter(is_read);
        let read: HashSet<usize> = read.map(|place| nodes[place].name.span().start).collect();
        for ((checked, ports), written) in checked.iter().zip(wires).zip(nodes) {
            if checked.node_type.is_none()
                || ports.is_empty()
                || read.contains(&written.name.span().start)
                || handed_out.contains(&written.full_name())
            {
                continue;
            }
            let name = written.name.get_ref();
            let help = format!("another node can read it: from = \"{name}\"");
            let message = format!("nothing reads node `{name}`");
            self.report
                .warning(written.name.span(), message, Some(help));
        }
    }

    fn pins(&mut self, checked: &[CheckedNode]) {
        let mut users: HashMap<u8, String> = HashMap::new();
        for (checked, written) in checked.iter().zip(&self.expanded.nodes) {
            let Some(spec) = &checked.spec else { continue };
            for (option, pin) in spec.uses().iter().flat_map(Use::pins) {
                if let Some(other) = users.get(&pin.number()) {
                    let span = place_of(&written.options, option);
                    let help = "each pin belongs to one node; let one node use it and the others read from that node";
                    self.report.error(
                        span.unwrap_or_else(|| written.name.span()),
                        format!("pin {} is used by node `{other}` already", pin.number()),
                        Some(help.into()),
                    );
                } else {
                    users.insert(pin.number(), written.full_name());
                }
            }
        }
    }
}

/// What a node type of Node-RED, or a common word, is called here.
fn elsewhere(name: &str) -> Option<&'static str> {
    Some(match name.to_lowercase().as_str() {
        "rbe" => "report by exception is `filter` here",
        "average" | "mean" | "avg" => {
            "a mean over time is a `window` with compute = [\"mean\"]; a moving one is `smooth`"
        }
        "aggregate" | "aggregator" | "statistics" => "statistics over time are a `window`",
        "cron" | "schedule" | "scheduler" | "timer" => {
            "times of day are an `inject` with `schedule`"
        }
        "subflow" => "a sub-flow is a `part` here: [parts.NAME]",
        "comment" => "a comment is a line that begins with `#`",
        "complete" => "how nodes are doing is told by `status`",
        "error" => "failures of other nodes come to `catch`",
        "if" | "condition" => "a condition is a `where`; several ways are a `switch`",
        "map" | "set" => "parts of a message are set by `change`, computed by `function`",
        "javascript" | "script" | "js" => "JavaScript is run by `function`",
        "thermostat" | "deadband" | "dead band" => {
            "on above one limit and off below another is `hysteresis`; a dead band is an option of `filter`"
        }
        "scale" => "one range is mapped to another by `range`",
        "kalman" | "lowpass" | "low-pass" => {
            "exponential smoothing is `smooth`, a moving median `median`"
        }
        "pwm" => "pulses on a pin are `pwm out`",
        "rpi-gpio in" | "gpio" | "pin" => "a pin is read by `gpio in` and driven by `gpio out`",
        "rpi-gpio out" | "relay" => "a pin is driven by `gpio out`",
        "link call" => "flows are joined by `link out` and `link in`",
        "mqtt out" | "mqtt" | "publish" => {
            "there is no `mqtt out` yet; to the cloud messages go by `uplink`"
        }
        "mqtt in" => "there is no `mqtt in` yet",
        "dht11" => "a DHT11 is read by `dht22`, as a DHT22 is",
        "adxl345" | "ads1015" | "ads1115" => {
            "sensors with a driver in the kernel are read by `iio`"
        }
        _ => return None,
    })
}

/// See [`GraphNode::print`].
fn print_of(node_type: &str, options: &DeTable<'_>) -> u32 {
    fn add(value: &DeValue<'_>, text: &mut String) {
        match value {
            DeValue::Table(table) => {
                let mut fields: Vec<_> = table.iter().collect();
                fields.sort_by(|a, b| a.0.get_ref().cmp(b.0.get_ref()));
                text.push('{');
                for (name, value) in fields {
                    text.push_str(&format!("{:?}:", name.get_ref()));
                    add(value.get_ref(), text);
                }
                text.push('}');
            }
            DeValue::Array(items) => {
                text.push('[');
                for item in items.iter() {
                    add(item.get_ref(), text);
                }
                text.push(']');
            }
            DeValue::String(string) => text.push_str(&format!("{string:?},")),
            DeValue::Integer(number) => text.push_str(&format!("{number},")),
            DeValue::Float(number) => text.push_str(&format!("{number},")),
            DeValue::Boolean(is) => text.push_str(&format!("{is},")),
            DeValue::Datetime(time) => text.push_str(&format!("{time},")),
        }
    }
    let mut text = format!("{node_type:?}");
    add(&DeValue::Table(options.clone()), &mut text);
    crc32fast::hash(text.as_bytes())
}

fn node_id(place: usize) -> NodeId {
    NodeId(u16::try_from(place).expect("MOST_NODES limits the places"))
}

/// The wires on which a message arrives in the same moment: those into nodes that hold everything back are not among them.
fn wires_at_once(checked: &[CheckedNode], wires: &Wires) -> Wires {
    let holds_back = |node: &NodeId| {
        let spec = &checked[usize::from(node.0)].spec;
        spec.as_ref().is_some_and(|spec| spec.breaks_cycle())
    };
    let mut wires = wires.clone();
    for readers in wires.iter_mut().flatten() {
        readers.retain(|reader| !holds_back(reader));
    }
    wires
}
