//! The node types: one file each, and one list of them.
//!
//! To add a node type, write a file with a struct of its options that implements [`Definition`] and a [`Node`] that does the
//! work; then add two lines here: the `mod` and the entry in [`NODE_TYPES`]. Parsing, checking, `tidegate nodes` and the
//! example's test come from the definition.

mod debug;
mod ds18b20;
mod filter;
mod gpio_in;
mod gpio_out;
mod hysteresis;
mod iio;
mod inject;
mod range;
mod sampler;
mod uplink;
mod r#where;
mod window;

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use crate::board::{Level, Pin, Pull};
use crate::flow::Graph;
use crate::flow::diagnostic::Report;
use crate::flow::options;
use crate::flow::script::{Compiled, Expression, Sandbox, ScriptError};
use crate::message::Text;
use crate::runtime::node::Node;
use crate::sensors::SensorSpec;

/// All node types, by name.
pub const NODE_TYPES: &[NodeType] = &[
    NodeType::of::<debug::Debug>(),
    NodeType::of::<ds18b20::Ds18b20>(),
    NodeType::of::<filter::Filter>(),
    NodeType::of::<gpio_in::GpioIn>(),
    NodeType::of::<gpio_out::GpioOut>(),
    NodeType::of::<hysteresis::Hysteresis>(),
    NodeType::of::<iio::Iio>(),
    NodeType::of::<inject::Inject>(),
    NodeType::of::<range::Range>(),
    NodeType::of::<uplink::Uplink>(),
    NodeType::of::<r#where::Where>(),
    NodeType::of::<window::Window>(),
];

/// The options of a node type and what follows from them. The struct's documentation is the node's; its fields are the
/// options, and theirs is the options'.
pub trait Definition: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The name in `type = "..."`; Node-RED's where it means the same.
    const NAME: &'static str;
    /// Whether the node reads messages; a source does not.
    const HAS_INPUT: bool = true;
    /// The output ports; the first is the one that `from = "node"` means. A sink has none.
    const PORTS: &'static [&'static str] = &["out"];
    /// A flow file that shows the node at work.
    const EXAMPLE: &'static str;

    /// What is wrong between the options, beyond what their types tell: the option's name and what to say.
    fn problems(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What to say to one who writes an option that this node does not have, if there is something better than the nearest
    /// name.
    fn hint(_option: &str) -> Option<&'static str> {
        None
    }

    /// What the node needs of the board.
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }

    /// Makes the node that does the work.
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError>;
}

/// What a node needs of the board.
#[derive(Clone, Debug, PartialEq)]
pub enum Use {
    /// Drives a pin, which goes to `safe` at start, at stop and when the flow fails.
    Output { pin: Pin, safe: Level },
    /// Reads a pin.
    Input { pin: Pin, pull: Pull },
    /// Reads a sensor.
    Sensor(SensorSpec),
}

impl Use {
    pub fn pin(&self) -> Option<Pin> {
        match self {
            Use::Output { pin, .. } | Use::Input { pin, .. } => Some(*pin),
            Use::Sensor(_) => None,
        }
    }
}

/// A valid node description, its type erased.
pub trait Spec: fmt::Debug + Send + Sync {
    fn uses(&self) -> Vec<Use>;
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError>;
}

impl<D: Definition> Spec for D {
    fn uses(&self) -> Vec<Use> {
        Definition::uses(self)
    }
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Definition::build(self, site)
    }
}

/// An entry of [`NODE_TYPES`].
#[derive(Debug)]
pub struct NodeType {
    pub name: &'static str,
    pub has_input: bool,
    pub ports: &'static [&'static str],
    pub example: &'static str,
    schema: fn() -> Schema,
    read: ReadOptions,
}

/// Reads a node's options: the table, where the node's name stands, the name, the report.
type ReadOptions =
    fn(&DeTable<'_>, std::ops::Range<usize>, &str, &mut Report) -> Option<Arc<dyn Spec>>;

impl NodeType {
    const fn of<D: Definition>() -> NodeType {
        NodeType {
            name: D::NAME,
            has_input: D::HAS_INPUT,
            ports: D::PORTS,
            example: D::EXAMPLE,
            schema: || schema_for!(D),
            read: read::<D>,
        }
    }

    /// The type of that name.
    pub fn find(name: &str) -> Option<&'static NodeType> {
        NODE_TYPES.iter().find(|node_type| node_type.name == name)
    }

    /// The JSON Schema of the options, with their documentation.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Reads the options of a node; mistakes go to the report. `header` is where the node's name stands.
    pub fn read(
        &self,
        options: &DeTable<'_>,
        header: std::ops::Range<usize>,
        node: &str,
        report: &mut Report,
    ) -> Option<Arc<dyn Spec>> {
        (self.read)(options, header, node, report)
    }
}

fn read<D: Definition>(
    table: &DeTable<'_>,
    header: std::ops::Range<usize>,
    node: &str,
    report: &mut Report,
) -> Option<Arc<dyn Spec>> {
    let what = format!("node `{node}` ({})", D::NAME);
    let options = options::read_with_hints::<D>(table, header.clone(), &what, D::hint, report);
    let definition = options.read?;
    let problems = definition.problems();
    let is_valid = options.complete && problems.is_empty();
    for (option, problem) in problems {
        let span = table
            .get(option)
            .map_or(header.clone(), toml::Spanned::span);
        report.error(span, format!("`{option}`: {problem}"), None);
    }
    is_valid.then(|| Arc::new(definition) as Arc<dyn Spec>)
}

/// Where a node is built: what it may know of its surroundings.
pub struct Surroundings<'a> {
    pub device: Arc<str>,
    pub flow: Text,
    pub node: Text,
    graph: &'a Graph,
    /// The names of all nodes.
    nodes: Vec<Text>,
    sandbox: std::cell::OnceCell<Result<Sandbox, ScriptError>>,
}

impl<'a> Surroundings<'a> {
    pub fn new(device: Arc<str>, graph: &'a Graph) -> Surroundings<'a> {
        Surroundings {
            device,
            flow: graph.name().clone(),
            node: "".into(),
            graph,
            nodes: graph.nodes().iter().map(|node| node.name.clone()).collect(),
            sandbox: std::cell::OnceCell::new(),
        }
    }

    /// Compiles an expression in the flow's sandbox, which is made when the first one asks.
    pub fn compile(&self, expression: &Expression) -> Result<Compiled, BuildError> {
        let sandbox = self.sandbox.get_or_init(|| Sandbox::new(self.graph.vars()));
        sandbox
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|sandbox| sandbox.compile(expression, &self.nodes))
            .map_err(|error| BuildError {
                flow: self.flow.clone(),
                node: self.node.clone(),
                error,
            })
    }

    /// The topic of a source that was not given one: `flow/node`.
    pub fn own_topic(&self) -> Text {
        format!("{}/{}", self.flow, self.node).into()
    }
}

/// A valid flow could not be built, for lack of memory for its scripts.
#[derive(Debug, thiserror::Error)]
#[error("flow `{flow}`, node `{node}` could not be built")]
pub struct BuildError {
    flow: Text,
    node: Text,
    #[source]
    error: ScriptError,
}

/// Runs one node by itself, for its tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::flow::{Graph, Report, Variables, check};
    use crate::message::{Message, NodeId, Timestamp, Value};
    use crate::runtime::Now;
    use crate::runtime::engine::{Engine, Event};
    use crate::runtime::node::{Address, Effect};

    /// A graph from a flow's text, which must be valid.
    pub(crate) fn graph(text: &str) -> Arc<Graph> {
        let mut report = Report::new("test.toml", text);
        let graph = check("test", &Variables::default(), &mut report);
        let rendered: String = report.diagnostics.iter().map(|d| d.render(false)).collect();
        Arc::new(graph.unwrap_or_else(|| panic!("{rendered}")))
    }

    /// What a node of one input sends for payloads that come a second apart, from 10 s after 1970 on; failures too. Time
    /// then goes on for an hour. `options` are the node's lines, with its type.
    pub(crate) fn run_node(
        options: &str,
        payloads: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        let times = (10..).map(|second| Timestamp::from_millis(second * 1000));
        run_node_at(options, times.zip(payloads))
    }

    /// The same with the time of each message, at which it also comes; time never goes back.
    pub(crate) fn run_node_at(
        options: &str,
        payloads: impl IntoIterator<Item = (Timestamp, Value)>,
    ) -> Vec<String> {
        let mut run = Run::new(options);
        for (time, payload) in payloads {
            run.go_on_until(time);
            run.deliver(time, payload);
        }
        run.go_on_until(run.now.wall.saturating_add(Duration::from_secs(3600)));
        run.sent
    }

    /// A node between a source that sends nothing and a sink that notes what comes.
    pub(crate) struct Run {
        engine: Engine,
        now: Now,
        /// What the node sent, as JSON, and its failures and other effects.
        pub(crate) sent: Vec<String>,
    }

    impl Run {
        pub(crate) fn new(options: &str) -> Run {
            Run::start(&format!(
                "{options}\n[nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
            ))
        }

        /// A node that sends nothing; its effects are noted.
        pub(crate) fn sink(options: &str) -> Run {
            Run::start(options)
        }

        fn start(tested: &str) -> Run {
            let source = "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n[nodes.tested]\nfrom = 'source'";
            let mut run = Run {
                engine: Engine::new("test-device"),
                now: Now::default(),
                sent: Vec::new(),
            };
            let mut effects = Vec::new();
            run.engine
                .add(graph(&format!("{source}\n{tested}")), run.now, &mut effects);
            run.note(effects);
            run
        }

        pub(crate) fn deliver(&mut self, time: Timestamp, payload: Value) {
            self.deliver_on("t", time, payload);
        }

        pub(crate) fn deliver_on(&mut self, topic: &str, time: Timestamp, payload: Value) {
            let message = Message {
                topic: topic.into(),
                payload,
                time,
                source: NodeId(0),
                headers: None,
            };
            let to = Address {
                flow: 0,
                node: NodeId(1),
            };
            let mut effects = Vec::new();
            self.engine.handle(
                self.now,
                Event::Messages {
                    to,
                    messages: vec![message],
                },
                &mut effects,
            );
            self.note(effects);
        }

        pub(crate) fn go_on_until(&mut self, wall: Timestamp) {
            let end = self.now.mono_at(wall);
            while let Some(next) = self.engine.next_wake().filter(|next| *next <= end) {
                self.now = self.now.later(next.saturating_sub(self.now.mono));
                let mut effects = Vec::new();
                self.engine.wake(self.now, 1, &mut effects);
                self.note(effects);
            }
            self.now = self.now.later(end.saturating_sub(self.now.mono));
        }

        fn note(&mut self, effects: Vec<Effect>) {
            for effect in effects {
                match effect {
                    Effect::Debug { message, .. } => self.sent.push(message.payload.to_json()),
                    Effect::Failed { reason, .. } => self.sent.push(format!("failed: {reason}")),
                    Effect::Output { pin, level } => self.sent.push(format!("{pin} {level}")),
                    other => self.sent.push(format!("{other:?}")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::graph;
    use super::*;
    use crate::flow::{Variables, check};

    #[test]
    fn the_list_is_sorted_and_names_are_unique() {
        assert!(NODE_TYPES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn every_example_is_valid_and_shows_its_node() {
        for node_type in NODE_TYPES {
            let mut report = Report::new(node_type.name, node_type.example);
            check("example", &Variables::default(), &mut report);
            let found: String = report.diagnostics.iter().map(|d| d.render(false)).collect();
            assert_eq!(found, "", "the example of `{}`", node_type.name);
            let shown = graph(node_type.example)
                .nodes()
                .iter()
                .any(|node| node.node_type.name == node_type.name);
            assert!(shown, "the example of `{}` does not use it", node_type.name);
        }
    }

    #[test]
    fn every_option_and_type_is_documented() {
        for node_type in NODE_TYPES {
            let schema = node_type.schema();
            assert!(
                schema.get("description").is_some(),
                "`{}` has no description",
                node_type.name
            );
            let properties = schema
                .get("properties")
                .and_then(|properties| properties.as_object());
            for (name, option) in properties.into_iter().flatten() {
                assert!(
                    option.get("description").is_some(),
                    "`{}`: `{name}` has no description",
                    node_type.name
                );
            }
        }
    }
}
