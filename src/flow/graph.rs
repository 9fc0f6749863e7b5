//! A flow that is valid: every wire leads somewhere, every option has its type, no cycle.
//!
//! A [`Graph`] exists only through [`crate::flow::check()`], so the engine cannot meet one that is not valid. It does not
//! depend on the file format.

use std::ops::Range;
use std::sync::Arc;

use crate::board::{Level, Pin};
use crate::message::{NodeId, Object, Text};
use crate::nodes::{Link, NodeType, Spec, Use, Watched};

/// A valid flow.
#[derive(Debug)]
pub struct Graph {
    pub(super) name: Text,
    pub(super) description: Option<String>,
    pub(super) nodes: Vec<GraphNode>,
    pub(super) vars: Arc<Object>,
    /// The CRC-32 of its file's text.
    pub(super) print: u32,
}

/// A node of a valid flow.
#[derive(Clone, Debug)]
pub struct GraphNode {
    /// Unique in the flow; that of a part's node has the name of the part's use before it, as `cellar/clean`.
    pub name: Text,
    /// Where its name stands in the flow file.
    pub span: Range<usize>,
    pub node_type: &'static NodeType,
    pub spec: Arc<dyn Spec>,
    /// Stands for its type and its options with the values of variables in them, in any order: what a node of the same name
    /// remembered is for this one if their prints are the same.
    pub print: u32,
    /// What the node needs of the board.
    pub uses: Vec<Use>,
    /// The names of its output ports.
    pub ports: Vec<String>,
    /// Per output port, the nodes that read it, in file order.
    pub readers: Vec<Vec<NodeId>>,
    /// The nodes that it reads, each with the name that the node's options use for it.
    pub inputs: Vec<(String, NodeId)>,
    pub watching: Option<Watching>,
    /// The variables that its JavaScript sees.
    pub vars: Arc<Object>,
}

/// Nodes whose failures or states come to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watching {
    pub what: Watched,
    /// In the order of the file.
    pub nodes: Vec<NodeId>,
}

/// Who hears of a node's failures and states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watchers {
    pub of_failures: Vec<NodeId>,
    pub of_states: Vec<NodeId>,
}

impl Graph {
    /// What tells its file from others: the CRC-32 of the text.
    pub fn print(&self) -> u32 {
        self.print
    }

    /// The name of the flow: its file's name without the ending.
    pub fn name(&self) -> &Text {
        &self.name
    }

    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The nodes in file order; a [`NodeId`] is a place in it.
    pub fn nodes(&self) -> &[GraphNode] {
        &self.nodes
    }

    /// The name of a node.
    pub fn node_name(&self, id: NodeId) -> &str {
        &self.nodes[usize::from(id.0)].name
    }

    pub fn find(&self, name: &str) -> Option<NodeId> {
        let place = self.nodes.iter().position(|node| &*node.name == name)?;
        Some(NodeId(u16::try_from(place).ok()?))
    }

    /// Per node a number that stands for what it reads: nodes and ports, by name, in the order of the file.
    pub fn wires(&self) -> Vec<u32> {
        let mut read = vec![crc32fast::Hasher::new(); self.nodes.len()];
        for node in &self.nodes {
            for (port, readers) in node.ports.iter().zip(&node.readers) {
                for reader in readers {
                    read[usize::from(reader.0)]
                        .update(format!("{:?}.{port:?},", node.name).as_bytes());
                }
            }
        }
        read.into_iter().map(crc32fast::Hasher::finalize).collect()
    }

    /// The variables with the values that hold on this device.
    pub fn vars(&self) -> &Arc<Object> {
        &self.vars
    }

    /// Whether the flow drives a pin, and so runs on the control thread.
    pub fn is_control(&self) -> bool {
        self.outputs().next().is_some()
    }

    /// What the flow's nodes need of the board.
    pub fn uses(&self) -> impl Iterator<Item = (NodeId, &Use)> {
        let nodes = self.numbered();
        nodes.flat_map(|(id, node)| node.uses.iter().map(move |needed| (id, needed)))
    }

    /// The ends of links that are in the flow.
    pub fn links(&self) -> impl Iterator<Item = (NodeId, Link)> {
        let nodes = self.numbered();
        nodes.filter_map(|(id, node)| Some((id, node.spec.link()?)))
    }

    /// Per node, who watches it. A node does not watch itself, nor what comes behind it: that would go round for ever. What comes to
    /// a watcher before it in the file, and goes on from there, is behind it as well.
    pub fn watchers(&self) -> Vec<Watchers> {
        let nodes = self.nodes();
        let mut found = vec![Watchers::default(); nodes.len()];
        for (watcher, node) in self.numbered() {
            let Some(watching) = &node.watching else {
                continue;
            };
            let mut is_behind = vec![false; nodes.len()];
            let mut open = vec![usize::from(watcher.0)];
            while let Some(node) = open.pop() {
                if !std::mem::replace(&mut is_behind[node], true) {
                    let readers = nodes[node].readers.iter().flatten();
                    let Watchers {
                        of_failures,
                        of_states,
                    } = &found[node];
                    let next = readers.chain(of_failures).chain(of_states);
                    open.extend(next.map(|reader| usize::from(reader.0)));
                }
            }
            for node in &watching.nodes {
                let node = usize::from(node.0);
                if !is_behind[node] {
                    match watching.what {
                        Watched::Failures => found[node].of_failures.push(watcher),
                        Watched::States => found[node].of_states.push(watcher),
                    }
                }
            }
        }
        found
    }

    fn numbered(&self) -> impl Iterator<Item = (NodeId, &GraphNode)> {
        self.nodes.iter().enumerate().map(|(place, node)| {
            let place = u16::try_from(place).expect("the checker limits a flow to 65,535 nodes");
            (NodeId(place), node)
        })
    }

    /// The pins that the flow drives, with their safe levels.
    pub fn outputs(&self) -> impl Iterator<Item = (Pin, Level)> {
        self.uses().filter_map(|(_, needed)| match needed {
            Use::Output { pin, safe } => Some((*pin, *safe)),
            _ => None,
        })
    }

    #[cfg(test)]
    pub(crate) fn rename(&mut self, name: &str) {
        self.name = name.into();
    }

    /// Gives a node, if it is there, another name.
    #[cfg(test)]
    pub(crate) fn rename_node(&mut self, from: &str, to: &str) {
        let mut nodes = self.nodes.iter_mut();
        if let Some(node) = nodes.find(|node| &*node.name == from) {
            node.name = to.into();
        }
    }

    /// Puts something else in the place of a node, to test what a node cannot be made to do from a file.
    #[cfg(test)]
    pub(crate) fn replace_spec(&mut self, name: &str, spec: Arc<dyn Spec>) {
        let node = self.nodes.iter_mut().find(|node| &*node.name == name);
        node.expect("the flow has the node").spec = spec;
    }
}
