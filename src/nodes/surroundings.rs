//! Where a node is built.

use std::sync::Arc;

use crate::flow::script::{self, Compiled, Expression, FunctionBody, Sandbox, ScriptError};
use crate::flow::{Graph, GraphNode};
use crate::message::{NodeId, Text, Value};

/// Where a node is built: what it may know of its surroundings.
pub struct Surroundings<'a> {
    pub device: Arc<str>,
    pub flow: Text,
    pub node: Text,
    graph: &'a Graph,
    /// The node that is being built.
    here: Option<&'a GraphNode>,
    /// The names of all nodes.
    pub(super) nodes: Vec<Text>,
    sandbox: std::cell::OnceCell<Result<Sandbox, ScriptError>>,
}

impl<'a> Surroundings<'a> {
    pub fn new(device: Arc<str>, graph: &'a Graph) -> Surroundings<'a> {
        Surroundings {
            device,
            flow: graph.name().clone(),
            node: "".into(),
            graph,
            here: None,
            nodes: graph.nodes().iter().map(|node| node.name.clone()).collect(),
            sandbox: std::cell::OnceCell::new(),
        }
    }

    /// Goes on to a node, which is built next.
    pub fn enter(&mut self, node: &'a GraphNode) {
        self.node = node.name.clone();
        self.here = Some(node);
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
        // A part's nodes see its parameters.
        let sandbox = sandbox.clone().and_then(|sandbox| match self.here {
            Some(node) if !Arc::ptr_eq(&node.vars, self.graph.vars()) => {
                sandbox.with_vars(&node.vars)
            }
            _ => Ok(sandbox),
        });
        sandbox
            .and_then(|sandbox| part(&sandbox))
            .map_err(|error| BuildError {
                flow: self.flow.clone(),
                node: self.node.clone(),
                error,
            })
    }

    /// The node of that name, which must be among [`Definition::inputs`](super::Definition::inputs): messages from it have it as their source.
    pub fn input(&self, name: &str) -> NodeId {
        let mut inputs = self.here.into_iter().flat_map(|node| &node.inputs);
        let found = inputs.find(|(known, _)| known == name);
        found
            .expect("the checker has seen that the nodes which options name are there")
            .1
    }

    /// All nodes that it reads.
    pub fn reads(&self) -> impl Iterator<Item = NodeId> {
        let inputs = self.here.into_iter().flat_map(|node| &node.inputs);
        inputs.map(|(_, id)| *id)
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
