//! The node types: one file each, and one list of them.
//!
//! To add a node type, write a file with a struct of its options that implements [`Definition`] and a [`Node`] that does the
//! work; then add two lines here: the `mod` and the entry in [`NODE_TYPES`]. Parsing, checking, `tidegate nodes` and the
//! example's test come from the definition.

mod batch;
mod bounds;
mod calibrate;
mod catch;
mod change;
mod convert;
mod counter;
mod csv;
mod debounce;
mod debug;
mod delay;
mod delta;
mod ds18b20;
mod ewma;
mod filter;
mod function;
mod gpio_in;
mod gpio_out;
mod hysteresis;
mod iio;
mod inject;
mod integrate;
mod interlock;
mod join;
mod json;
mod keyed;
mod lag;
mod latch;
mod limits;
mod link_in;
mod link_out;
mod median;
mod parts;
mod path;
mod pid;
mod pwm_out;
mod range;
mod rate;
mod sample;
mod sampler;
mod schedule;
mod series;
mod slew;
mod smooth;
mod sort;
mod split;
mod status;
mod stuck;
mod switch;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod timeout;
mod timers;
mod trigger;
mod units;
mod uplink;
mod r#where;
mod window;
mod zscore;

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::board::{Level, Pin, Pull};
use crate::flow::Graph;
use crate::flow::diagnostic::Report;
use crate::flow::estimate::Load;
use crate::flow::options;
use crate::flow::script::{Compiled, Expression, Sandbox, ScriptError};
use crate::flow::template::TopicTemplate;
use crate::message::{NodeId, Text};
use crate::outbox::Envelope;
use crate::flow::script::{self, Compiled, Expression, FunctionBody, Sandbox, ScriptError};
use crate::message::{NodeId, Text, Value};
use crate::runtime::node::Node;
use crate::sensors::SensorSpec;

/// All node types, by name.
pub const NODE_TYPES: &[NodeType] = &[
    NodeType::of::<batch::Batch>(),
    NodeType::of::<calibrate::Calibrate>(),
    NodeType::of::<catch::Catch>(),
    NodeType::of::<change::Change>(),
    NodeType::of::<convert::Convert>(),
    NodeType::of::<counter::Counter>(),
    NodeType::of::<csv::Csv>(),
    NodeType::of::<debounce::Debounce>(),
    NodeType::of::<debug::Debug>(),
    NodeType::of::<delay::Delay>(),
    NodeType::of::<delta::Delta>(),
    NodeType::of::<ds18b20::Ds18b20>(),
    NodeType::of::<ewma::Ewma>(),
    NodeType::of::<filter::Filter>(),
    NodeType::of::<function::Function>(),
    NodeType::of::<gpio_in::GpioIn>(),
    NodeType::of::<gpio_out::GpioOut>(),
    NodeType::of::<hysteresis::Hysteresis>(),
    NodeType::of::<iio::Iio>(),
    NodeType::of::<inject::Inject>(),
    NodeType::of::<integrate::Integrate>(),
    NodeType::of::<interlock::Interlock>(),
    NodeType::of::<join::Join>(),
    NodeType::of::<json::Json>(),
    NodeType::of::<lag::Lag>(),
    NodeType::of::<latch::Latch>(),
    NodeType::of::<limits::Limits>(),
    NodeType::of::<link_in::LinkIn>(),
    NodeType::of::<link_out::LinkOut>(),
    NodeType::of::<median::Median>(),
    NodeType::of::<pid::Pid>(),
    NodeType::of::<pwm_out::PwmOut>(),
    NodeType::of::<range::Range>(),
    NodeType::of::<rate::Rate>(),
    NodeType::of::<sample::Sample>(),
    NodeType::of::<slew::Slew>(),
    NodeType::of::<smooth::Smooth>(),
    NodeType::of::<sort::Sort>(),
    NodeType::of::<split::Split>(),
    NodeType::of::<status::Status>(),
    NodeType::of::<stuck::Stuck>(),
    NodeType::of::<switch::Switch>(),
    NodeType::of::<template::Template>(),
    NodeType::of::<throttle::Throttle>(),
    NodeType::of::<timeout::Timeout>(),
    NodeType::of::<trigger::Trigger>(),
    NodeType::of::<uplink::Uplink>(),
    NodeType::of::<r#where::Where>(),
    NodeType::of::<window::Window>(),
    NodeType::of::<zscore::Zscore>(),
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
    /// Whether the options name further ports, or other ones: see [`Definition::ports`].
    const NAMES_PORTS: bool = false;
    /// A flow file that shows the node at work.
    const EXAMPLE: &'static str;

    /// The output ports of a node with these options, where [`Definition::NAMES_PORTS`] says that they decide it.
    fn ports(&self) -> Vec<String> {
        Self::PORTS.iter().map(|port| (*port).to_owned()).collect()
    }

    /// Nodes that options name: each must be one that this node reads `from`. The option's name, and the node's.
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What is wrong between the options, beyond what their types tell.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What is allowed but hardly meant.
    fn warnings(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What the node sends, at most, when this comes in: an upper bound on how often, and a typical size. A source gets
    /// nothing in.
    fn load(&self, input: Load) -> Load {
        input
    }

    /// How the node publishes what comes to it through the outbox, if it does.
    fn publishes(&self) -> Option<Publishes<'_>> {
        None
    }

    /// Whether the node sends everything later than it came, from a wake-up, so that a cycle through it comes to rest.
    fn breaks_cycle(&self) -> bool {
        false
    }

    /// The failures or states of other nodes that come to this one.
    fn watches(&self) -> Option<Watch> {
        None
    }

    /// The end of a link that the node is.
    fn link(&self) -> Option<Link> {
        None
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

/// Something about an option of a node, for its author to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option, or a place in it: `size`, `rules.2.between`; places in a list count from 0.
    pub at: String,
    /// What is wrong and how it would be right, to be read after the option's name.
    pub message: String,
}

impl Problem {
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem {
            at: at.into(),
            message: message.into(),
        }
    }
}

/// How a node publishes.
#[derive(Clone, Copy, Debug)]
pub struct Publishes<'a> {
    pub topic: &'a TopicTemplate,
    pub envelope: Envelope,
}

/// What a node wants to hear of other nodes of its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub what: Watched,
    /// The names of the nodes; none for all.
    pub nodes: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Messages that a node could not handle.
    Failures,
    /// A node begins to fail, or works again.
    States,
}

/// One end of a link between flows, with the link's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Messages that come to the node go into the link.
    Out(Text),
    /// Messages from the link come to the node.
    In(Text),
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
    fn ports(&self) -> Vec<String> {
        vec!["out".to_owned()]
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }
    fn load(&self, input: Load) -> Load {
        input
    }
    fn publishes(&self) -> Option<Publishes<'_>> {
        None
    }
    fn breaks_cycle(&self) -> bool {
        false
    }
    fn watches(&self) -> Option<Watch> {
        None
    }
    fn link(&self) -> Option<Link> {
        None
    }
    fn build(&self, site: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError>;
}

impl<D: Definition> Spec for D {
    fn ports(&self) -> Vec<String> {
        Definition::ports(self)
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Definition::inputs(self)
    }
    fn load(&self, input: Load) -> Load {
        Definition::load(self, input)
    }
    fn publishes(&self) -> Option<Publishes<'_>> {
        Definition::publishes(self)
    }
    fn breaks_cycle(&self) -> bool {
        Definition::breaks_cycle(self)
    }
    fn watches(&self) -> Option<Watch> {
        Definition::watches(self)
    }
    fn link(&self) -> Option<Link> {
        Definition::link(self)
    }
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
    /// The ports that every node of the type has.
    pub ports: &'static [&'static str],
    /// Whether a node's options name its ports.
    pub names_ports: bool,
    pub example: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
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
            names_ports: D::NAMES_PORTS,
            example: D::EXAMPLE,
            schema: SchemaGenerator::root_schema_for::<D>,
            read: read::<D>,
        }
    }

    /// The type of that name.
    pub fn find(name: &str) -> Option<&'static NodeType> {
        NODE_TYPES.iter().find(|node_type| node_type.name == name)
    }

    /// The JSON Schema of the options, with their documentation.
    pub fn schema(&self) -> Schema {
        (self.schema)(&mut SchemaGenerator::default())
    }

    /// The same as part of a larger schema, which gets the definitions that it refers to.
    pub fn schema_in(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
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
    let mut problems = definition.problems();
    let is_valid = options.complete && problems.is_empty();
    // Of an option with a mistake only a part was read, or nothing, and it has been said; one that is not written may be
    // there under a name that is not known.
    problems.retain(|problem| {
        let option = problem.at.split('.').next().unwrap_or_default();
        let is_written = table.get(option).is_some();
        !options.wrong.iter().any(|wrong| wrong == option) && (options.complete || is_written)
    });
    for problem in problems {
        let span = place_of(table, &problem.at).unwrap_or(header.clone());
        report.error(span, format!("`{}`: {}", problem.at, problem.message), None);
    }
    for problem in definition.warnings() {
        let span = place_of(table, &problem.at).unwrap_or(header.clone());
        report.warning(span, format!("`{}`: {}", problem.at, problem.message), None);
    }
    is_valid.then(|| Arc::new(definition) as Arc<dyn Spec>)
}

/// Where a place like `rules.2.between` stands; if it is not written, what it would be in.
pub(crate) fn place_of(table: &DeTable<'_>, path: &str) -> Option<std::ops::Range<usize>> {
    let mut steps = path.split('.');
    let mut here = table.get(steps.next()?)?;
    for step in steps {
        let next = match here.get_ref() {
            DeValue::Table(table) => table.get(step),
            DeValue::Array(items) => step.parse().ok().and_then(|place: usize| items.get(place)),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    Some(here.span())
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

    /// Compiles an expression in the flow's sandbox.
    pub fn compile(&self, expression: &Expression) -> Result<Compiled, BuildError> {
        self.in_sandbox(|sandbox| sandbox.compile(expression, &self.nodes))
    }

    /// Compiles a function in the flow's sandbox; its state begins as this.
    pub fn compile_function(
        &self,
        body: &FunctionBody,
        state: &Value,
        outputs: usize,
    ) -> Result<script::Function, BuildError> {
        self.in_sandbox(|sandbox| sandbox.compile_function(body, state, outputs, &self.nodes))
    }

    /// Does something in the flow's sandbox, which is made when the first one asks.
    fn in_sandbox<T>(
        &self,
        part: impl FnOnce(&Sandbox) -> Result<T, ScriptError>,
    ) -> Result<T, BuildError> {
        let sandbox = self.sandbox.get_or_init(|| Sandbox::new(self.graph.vars()));
        sandbox
            .as_ref()
            .map_err(Clone::clone)
            .and_then(part)
            .map_err(|error| BuildError {
                flow: self.flow.clone(),
                node: self.node.clone(),
                error,
            })
    }

    /// The node of that name, which must be among [`Definition::inputs`]: messages from it have it as their source.
    pub fn input(&self, name: &str) -> NodeId {
        let here = self
            .graph
            .nodes()
            .iter()
            .find(|node| node.name == self.node);
        let mut inputs = here.into_iter().flat_map(|node| &node.inputs);
        let found = inputs.find(|(known, _)| known == name);
        found
            .expect("the checker has seen that the nodes which options name are there")
            .1
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
