//! What `fuzz/` throws arbitrary bytes at: each function takes bytes and panics where something is wrong.
//!
//! The test below runs the same functions over seeds and over changed seeds, the same ones every time.

mod options;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value as Json;

use crate::board::Level;
use crate::flow::script::{Expression, FunctionBody, Sandbox};
use crate::flow::{Graph, Report, Variables, check, file};
use crate::message::{Message, NodeId, Object, Timestamp, Value};
use crate::nodes::{NodeType, node_types};
use crate::runtime::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::node::{Address, Effect, Input};
use crate::runtime::pulses::Pulses;
use crate::sensors::About;

/// Text as a flow file that is only read.
pub fn flow_parser(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut report = Report::new("fuzz.toml", text);
    let source = report.source().clone();
    file::parse(&source, &mut report);
    render(report);
}

/// Text as a flow file that is checked.
pub fn checker(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        checked(text);
    }
}

fn checked(text: &str) -> Option<Arc<Graph>> {
    let mut report = Report::new("fuzz.toml", text);
    let graph = check("fuzz", &Variables::default(), &mut report);
    assert_eq!(
        graph.is_some(),
        !report.has_errors(),
        "a graph comes out when nothing is wrong"
    );
    render(report);
    graph.map(Arc::new)
}

fn render(report: Report) {
    /// More of them say nothing new.
    const MOST: usize = 50;
    for diagnostic in report.into_diagnostics().iter().take(MOST) {
        let line = diagnostic.to_string();
        assert!(line.starts_with("fuzz.toml:"), "{line}");
        diagnostic.render(true);
    }
}

/// A node with options and messages made of the bytes, through the engine.
pub fn nodes(data: &[u8]) {
    const MOST_ACTIONS: usize = 200;
    let mut bytes = Bytes(data);
    let place = bytes.index(node_types().count());
    let node_type = node_types().nth(place).expect("a place among them");
    let bases = bases(node_type);
    let base = &bases[bytes.index(bases.len())];
    let graph = checked(&changed(base, node_type, &mut bytes))
        .or_else(|| checked(base))
        .expect("what is changed is valid");
    let places = 0..graph.nodes().len();
    let tested: Vec<usize> = places
        .filter(|place| graph.nodes()[*place].node_type.name == node_type.name)
        .collect();

    let mut effects = Vec::new();
    let mut engine = Engine::new("fuzz");
    let mut now = Now {
        mono: Duration::ZERO,
        wall: bytes.start(),
    };
    let flow = engine.add(graph.clone(), now, &mut effects);
    inspect(&mut effects);
    for _ in 0..MOST_ACTIONS {
        if bytes.0.is_empty() {
            break;
        }
        let node = match bytes.byte() % 4 {
            0 => bytes.index(graph.nodes().len()),
            _ => tested[bytes.index(tested.len())],
        };
        let to = Address {
            flow,
            node: NodeId(u16::try_from(node).expect("the checker limits the nodes")),
        };
        match bytes.byte() % 8 {
            0 | 1 => {
                now = now.later(bytes.span());
                wake(&mut engine, now, &mut effects);
            }
            2 => now.wall = now.wall.saturating_add(bytes.span()),
            3 => {
                let input = bytes.input(now);
                engine.handle(now, Event::Input { to, input }, &mut effects);
            }
            _ if graph.nodes()[node].node_type.has_input => {
                let messages = vec![bytes.message(now, graph.nodes().len())];
                engine.handle(now, Event::Messages { to, messages }, &mut effects);
            }
            _ => {}
        }
        inspect(&mut effects);
    }
    engine.stop(&mut effects);
}

/// What is due at one time comes to an end: a node that asks for the same moment over and over would keep its thread busy.
fn wake(engine: &mut Engine, now: Now, effects: &mut Vec<Effect>) {
    const MOST_ROUNDS: usize = 100;
    for _ in 0..MOST_ROUNDS {
        engine.wake(now, 1_000, effects);
        inspect(effects);
        if engine.next_wake().is_none_or(|next| next > now.mono) {
            return;
        }
    }
    panic!("nodes ask for the same moment over and over");
}

fn inspect(effects: &mut Vec<Effect>) {
    for effect in effects.drain(..) {
        match effect {
            Effect::FlowStopped { panic, .. } => panic!("a node panicked: {panic}"),
            Effect::Failed { reason, .. } => assert!(!reason.is_empty(), "a failure says why"),
            Effect::Debug { message, .. } => assert!(!message.payload.to_json().is_empty()),
            _ => {}
        }
    }
}

/// Valid flows with a node of that type: its example, and others.
fn bases(node_type: &NodeType) -> Vec<String> {
    let more = options::MORE.iter();
    let more = more.filter(|(name, _)| *name == node_type.name);
    let more = more.map(|(name, options)| options::flow(name, options));
    std::iter::once(node_type.example.to_owned())
        .chain(more)
        .chain(node_type.part.map(|part| with_choices(node_type, part)))
        .collect()
}

/// A sensor's example with those options whose values chance does not find.
fn with_choices(node_type: &NodeType, part: &About) -> String {
    let mut flow: toml::Table = node_type.example.parse().expect("it is TOML");
    let nodes = flow["nodes"].as_table_mut().expect("it has nodes");
    let is_one = |node: &toml::Value| node["type"].as_str() == Some(node_type.name);
    for (_, node) in nodes.iter_mut().filter(|(_, node)| is_one(node)) {
        let node = node.as_table_mut().expect("a node is a table");
        node.insert(
            "quantity".into(),
            part.quantities[0].name.to_string().into(),
        );
        node.insert("topic".into(), "a/b".into());
        if let Some(&address) = part.addresses.last() {
            node.insert("address".into(), i64::from(address).into());
        }
    }
    flow.to_string()
}

/// A flow with some options of a node of that type changed, added or left out.
fn changed(base: &str, node_type: &'static NodeType, bytes: &mut Bytes<'_>) -> String {
    let changes = bytes.byte() % 4;
    let mut flow: toml::Table = base.parse().expect("it is TOML");
    let nodes = flow["nodes"].as_table_mut().expect("it has nodes");
    let mut shown: Vec<&mut toml::Value> = nodes
        .iter_mut()
        .map(|(_, node)| node)
        .filter(|node| node["type"].as_str() == Some(node_type.name))
        .collect();
    let place = bytes.index(shown.len());
    let node = shown[place].as_table_mut().expect("a node is a table");
    let schema = schema(node_type);
    let properties = schema["properties"].as_object();
    let names: Vec<&String> = properties.into_iter().flat_map(|all| all.keys()).collect();
    for _ in 0..changes {
        if names.is_empty() {
            break;
        }
        let name = names[bytes.index(names.len())];
        if bytes.byte().is_multiple_of(4) {
            node.remove(name);
        } else {
            let value = bytes.option(&schema["properties"][name], schema, 4);
            node.insert(name.clone(), value);
        }
    }
    toml::to_string(&flow).unwrap_or_default()
}

fn schema(node_type: &NodeType) -> &'static Json {
    static SCHEMAS: OnceLock<HashMap<&'static str, Json>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| {
        let of = |node_type: &NodeType| (node_type.name, node_type.schema().to_value());
        node_types().map(of).collect()
    });
    &schemas[node_type.name]
}

/// JavaScript, as an expression or as a function's body, on payloads. Whatever it does, the sandbox works afterwards.
pub fn javascript(data: &[u8]) {
    let mut bytes = Bytes(data);
    let is_function = bytes.byte() % 2 == 1;
    let payloads = bytes.byte() % 4;
    let message = |bytes: &mut Bytes<'_>| bytes.message(Now::default(), 2);
    let messages: Vec<Message> = (0..payloads).map(|_| message(&mut bytes)).collect();
    let code = String::from_utf8_lossy(bytes.0);

    let vars = Object::from_iter([("limit".into(), Value::Number(5.0))]);
    let sandbox = Sandbox::new(&vars).expect("there is memory for one");
    let names = ["source".into(), "tested".into()];
    let probe = Expression::parse("[payload + 1, vars.limit, [1].map(x => x)[0]]").expect("valid");
    let probe = sandbox.compile(&probe, &[]).expect("it compiles");
    if is_function {
        let Ok(body) = FunctionBody::parse(&code) else {
            return;
        };
        body.names_not_here();
        body.unknown_fields();
        let state = Value::object([("n", Value::Number(0.0))]);
        let Ok(mut function) = sandbox.compile_function(&body, &state, 2, &names) else {
            return;
        };
        for message in &messages {
            match function.call(message, message.time) {
                Ok(sent) => assert!(sent.iter().all(|(output, _)| *output < 2)),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        let _ = function.state();
    } else {
        let Ok(expression) = Expression::parse(&code) else {
            return;
        };
        let Ok(compiled) = sandbox.compile(&expression, &names) else {
            return;
        };
        for message in &messages {
            let _ = compiled.value(message);
            let _ = compiled.is_true(message);
        }
    }
    let one = Bytes(&[]).message(Now::default(), 1);
    let found = probe.value(&Message {
        payload: 1.0.into(),
        ..one
    });
    let found = found.map(|value| value.to_json());
    assert_eq!(found, Ok("[2,5,1]".into()), "the sandbox has changed");
}

/// Bytes that a client sends to the local broker, and addresses of others.
pub fn mqtt(data: &[u8]) {
    crate::broker::read_anything(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = crate::uplink::parse_url(text).map_err(|error| error.to_string());
    }
}

/// Takes values off the front of bytes; what is missing is 0.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn index(&mut self, length: usize) -> usize {
        usize::from(self.byte()) % length
    }

    fn choice<T>(&mut self, items: &'static [T]) -> &'static T {
        &items[self.index(items.len())]
    }

    fn whole(&mut self) -> i64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        i64::from_le_bytes(bytes)
    }

    fn number(&mut self) -> f64 {
        const SPECIAL: [f64; 16] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            2.0,
            100.0,
            -40.5,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            9_007_199_254_740_993.0,
            i64::MAX as f64,
            1e308,
        ];
        match self.byte() {
            byte @ 0..=127 => f64::from(byte) - 32.0,
            128..=247 => *self.choice(&SPECIAL),
            _ => f64::from_bits(self.whole() as u64),
        }
    }

    fn text(&mut self) -> String {
        const SPECIAL: [&str; 12] = [
            "",
            "a",
            "on",
            "off",
            "true",
            "1",
            "one",
            "two",
            "é\u{0}\u{10ffff}",
            "$SYS/#",
            "-",
            "a/b/c",
        ];
        match self.byte() {
            0..=191 => (*self.choice(&SPECIAL)).to_owned(),
            length => String::from_utf8_lossy(self.take(usize::from(length - 191))).into_owned(),
        }
    }

    fn span(&mut self) -> Duration {
        const UNITS: [u64; 8] = [
            1,
            1_000_000,
            10_000_000,
            1_000_000_000,
            60_000_000_000,
            3_600_000_000_000,
            86_400_000_000_000,
            8_640_000_000_000_000,
        ];
        let unit = *self.choice(&UNITS);
        Duration::from_nanos(unit.saturating_mul(u64::from(self.byte())))
    }

    /// A time at which a device may start.
    fn start(&mut self) -> Timestamp {
        match self.byte() % 4 {
            0 => Timestamp::default(),
            1 | 2 => Timestamp::from_millis(1_800_000_000_000),
            _ => Timestamp::from_nanos(self.whole().saturating_abs()),
        }
    }

    fn time(&mut self, now: Now) -> Timestamp {
        match self.byte() % 8 {
            0 => Timestamp::from_nanos(self.whole()),
            1 => Timestamp::from_nanos(i64::MAX),
            2 => Timestamp::from_nanos(i64::MIN),
            3 => now.wall.saturating_add(self.span()),
            4 => {
                let before = i64::try_from(self.span().as_nanos()).unwrap_or(i64::MAX);
                Timestamp::from_nanos(now.wall.as_nanos().saturating_sub(before))
            }
            _ => now.wall,
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.byte() % 16 {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 | 4 => Value::from(&*self.text()),
            5 if depth > 0 => {
                let count = self.index(8);
                let items: Vec<Value> = (0..count).map(|_| self.value(depth - 1)).collect();
                Value::List(items.into())
            }
            6 | 7 if depth > 0 => {
                let count = self.index(6);
                let fields: Vec<(String, Value)> = (0..count)
                    .map(|_| (self.text(), self.value(depth - 1)))
                    .collect();
                Value::object(fields)
            }
            8 if depth > 0 => {
                let items = vec![Value::from(self.number()); self.index(256) * 8];
                Value::List(items.into())
            }
            9 => {
                let text = self.text().repeat(usize::from(self.byte()));
                Value::from(&*text)
            }
            _ => Value::Number(self.number()),
        }
    }

    fn message(&mut self, now: Now, nodes: usize) -> Message {
        let topic = ["t", "u", "a/b"][self.index(3)];
        let topic = match self.byte() {
            255 => self.text().into(),
            _ => topic.into(),
        };
        let payload = self.value(4);
        let time = self.time(now);
        let headers = match self.value(2) {
            Value::Object(headers) => Some(headers),
            _ => None,
        };
        let source = NodeId(u16::try_from(self.index(nodes.max(1))).expect("a byte fits"));
        Message {
            topic,
            payload,
            time,
            source,
            headers,
        }
    }

    fn input(&mut self, now: Now) -> Input {
        let time = self.time(now);
        match self.byte() % 5 {
            4 => Input::Pulses {
                time,
                pulses: Pulses {
                    count: u64::from(self.byte()) << (self.byte() % 56),
                    last: self.byte().is_multiple_of(2).then_some(time),
                },
            },
            0 => Input::Edge {
                time,
                level: Level::Low,
            },
            1 => Input::Edge {
                time,
                level: Level::High,
            },
            2 => Input::Reading {
                time,
                value: Err(format!("broken: {}", self.text())),
            },
            _ => Input::Reading {
                time,
                value: Ok(self.value(3)),
            },
        }
    }

    /// A value for an option with this schema.
    fn option(&mut self, schema: &Json, root: &Json, depth: usize) -> toml::Value {
        if depth == 0 || self.byte().is_multiple_of(8) {
            return self.plain_option();
        }
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap_or_default();
            return self.option(&root["$defs"][name], root, depth - 1);
        }
        for list in ["anyOf", "oneOf", "allOf"] {
            if let Some(kinds) = schema[list].as_array().filter(|kinds| !kinds.is_empty()) {
                let kind = &kinds[self.index(kinds.len())];
                return self.option(kind, root, depth - 1);
            }
        }
        if let Some(text) = schema["const"].as_str() {
            return text.into();
        }
        if let Some(words) = schema["enum"].as_array().filter(|words| !words.is_empty()) {
            let word = &words[self.index(words.len())];
            return word.as_str().unwrap_or_default().into();
        }
        let kind = match &schema["type"] {
            Json::Array(kinds) if !kinds.is_empty() => &kinds[self.index(kinds.len())],
            kind => kind,
        };
        match kind.as_str() {
            Some("boolean") => self.byte().is_multiple_of(2).into(),
            Some("integer") => self.integer().into(),
            Some("number") => self.number().into(),
            Some("array") => {
                let count = self.index(5);
                let items = (0..count).map(|_| self.option(&schema["items"], root, depth - 1));
                toml::Value::Array(items.collect())
            }
            Some("object") => {
                let mut table = toml::Table::new();
                for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                    if !self.byte().is_multiple_of(4) {
                        table.insert(name.clone(), self.option(field, root, depth - 1));
                    }
                }
                toml::Value::Table(table)
            }
            Some("string") => match schema["examples"].as_array() {
                Some(examples) if !examples.is_empty() => {
                    let example = &examples[self.index(examples.len())];
                    example.as_str().unwrap_or_default().into()
                }
                _ => self.text_option(schema["format"].as_str()).into(),
            },
            _ => self.plain_option(),
        }
    }

    fn text_option(&mut self, format: Option<&str>) -> String {
        const SPANS: [&str; 10] = [
            "0s", "1ns", "1ms", "10ms", "1s", "90s", "1h", "1d", "366d", "10000d",
        ];
        const SCRIPTS: [&str; 8] = [
            "payload",
            "payload > 1",
            "topic",
            "({ a: payload, b: [1, null, NaN] })",
            "payload.x.y",
            "return msg;",
            "state.n = (state.n ?? 0) + 1; return [[{ payload: state.n, topic: 5 }, msg]];",
            "throw new Error(msg.topic)",
        ];
        match format {
            Some("duration") => (*self.choice(&SPANS)).to_owned(),
            Some("javascript") => (*self.choice(&SCRIPTS)).to_owned(),
            _ => self.text(),
        }
    }

    fn integer(&mut self) -> i64 {
        match self.byte() {
            byte @ 0..=199 => i64::from(byte) - 4,
            200..=223 => i64::from(self.byte()) * 1000,
            _ => self.whole(),
        }
    }

    fn plain_option(&mut self) -> toml::Value {
        match self.byte() % 6 {
            0 => self.number().into(),
            1 => self.integer().into(),
            2 => self.byte().is_multiple_of(2).into(),
            3 => self.text_option(Some("duration")).into(),
            4 => toml::Value::Array(vec![self.number().into(), self.text().into()]),
            _ => self.text().into(),
        }
    }
}

#[cfg(test)]
#[path = "fuzzing_test.rs"]
mod tests;
