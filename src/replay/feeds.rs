//! Which files take the place of which sources, and the graph in which they do.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use crate::flow::diagnostic::nearest;
use crate::flow::{Graph, GraphNode};
use crate::message::NodeId;
use crate::nodes::Link;

/// A file that takes the place of a source: `NODE=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    pub node: String,
    /// `-` is the standard input.
    pub path: PathBuf,
}

impl FromStr for Feed {
    type Err = String;

    fn from_str(text: &str) -> Result<Feed, String> {
        match text.split_once('=') {
            Some((node, path)) if !node.is_empty() && !path.is_empty() => Ok(Feed {
                node: node.to_owned(),
                path: path.into(),
            }),
            _ => Err("write NODE=FILE, as in --feed probe=week.csv".to_owned()),
        }
    }
}

/// A feed does not fit the flow.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("flow `{flow}` has no node `{node}`; {help}")]
    NoSuchNode {
        flow: String,
        node: String,
        help: String,
    },
    #[error("`{node}` is no source: {why}; {help}")]
    NoSource {
        node: String,
        why: &'static str,
        help: String,
    },
    #[error("{} is to feed `{node}` twice; name it once", path.display())]
    Twice { node: String, path: PathBuf },
    #[error("only one node can be fed from the standard input")]
    TwoInputs,
}

/// The sources that the feeds are for, in their order.
pub(super) fn find(graph: &Graph, feeds: &[Feed]) -> Result<Vec<NodeId>, FeedError> {
    let mut found = Vec::new();
    for (place, feed) in feeds.iter().enumerate() {
        let before = &feeds[..place];
        let is_input = feed.path.as_os_str() == "-";
        if is_input && before.iter().any(|other| other.path == feed.path) {
            return Err(FeedError::TwoInputs);
        }
        if before.contains(feed) {
            return Err(FeedError::Twice {
                node: feed.node.clone(),
                path: feed.path.clone(),
            });
        }
        found.push(source(graph, &feed.node)?);
    }
    Ok(found)
}

fn source(graph: &Graph, name: &str) -> Result<NodeId, FeedError> {
    let Some(id) = graph.find(name) else {
        let names = graph.nodes().iter().map(|node| &*node.name);
        let help = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => sources_in_words(graph),
        };
        return Err(FeedError::NoSuchNode {
            flow: graph.name().to_string(),
            node: name.to_owned(),
            help,
        });
    };
    let node = &graph.nodes()[usize::from(id.0)];
    if is_source(node) {
        return Ok(id);
    }
    let why = match node.node_type.has_input {
        true => "other nodes send to it",
        false => "it hears of other nodes in the flow",
    };
    Err(FeedError::NoSource {
        node: name.to_owned(),
        why,
        help: sources_in_words(graph),
    })
}

fn sources_in_words(graph: &Graph) -> String {
    let sources = graph.nodes().iter().filter(|node| is_source(node));
    let names: Vec<String> = sources.map(|node| format!("`{}`", node.name)).collect();
    match &names[..] {
        [] => "the flow has no sources".to_owned(),
        names => format!("the flow's sources are {}", names.join(", ")),
    }
}

/// Whether what a node sends begins with it. What hears of the failures or states of others sends what these do.
fn is_source(node: &GraphNode) -> bool {
    !node.node_type.has_input && node.watching.is_none()
}

/// The flow as it is replayed: sources that are fed send what they are fed, and the others rest, but for the ends of links, which
/// other nodes of the flow may send to, and for `inject`, if it is to run.
pub(super) fn fed(graph: &Graph, fed: &[NodeId], inject_runs: bool) -> Graph {
    let is_at_rest = |id: &NodeId| {
        let node = &graph.nodes()[usize::from(id.0)];
        let runs = matches!(node.spec.link(), Some(Link::In(_)))
            || (inject_runs && node.node_type.name == "inject");
        is_source(node) && !runs
    };
    let mut sources: HashSet<NodeId> = ids(graph).filter(is_at_rest).collect();
    sources.extend(fed);
    graph.fed(&sources)
}

pub(super) fn ids(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let count = u16::try_from(graph.nodes().len());
    let count = count.expect("the checker limits a flow to 65,535 nodes");
    (0..count).map(NodeId)
}
