//! Pictures of flows: Mermaid for pages that draw it, SVG for documents.
//!
//! [`Picture`] says what is to be seen of a graph: boxes, wires, groups. [`mermaid`] and [`svg`] write it down; only the SVG
//! needs coordinates, which come from [`layout`].
//!
//! Must not: check anything, for a [`Graph`] is valid; show what a device's settings hold beyond the graph.
//!
//! Terms: a *box* is a node, or the far end of a link that leads out of the flow; a *group* has the boxes of one use of a
//! part; a *wire* is anything drawn from box to box, whatever carries the messages.

mod layout;
pub mod mermaid;
pub mod svg;

use std::collections::HashMap;

use crate::flow::Graph;
use crate::flow::graph::GraphNode;
use crate::message::NodeId;
use crate::nodes::{Link, Use, Watched};

/// What is to be seen of a flow.
#[derive(Debug, Default, PartialEq)]
pub struct Picture {
    pub name: String,
    pub description: String,
    pub boxes: Vec<NodeBox>,
    pub wires: Vec<Wire>,
    /// A group stands behind the one that it is in.
    pub groups: Vec<Group>,
}

#[derive(Debug, PartialEq)]
pub struct NodeBox {
    /// The name that the node has where it is written, so without that of the part's use.
    pub title: String,
    /// Its type, and what it is wired to outside of the flow.
    pub subtitle: String,
    pub role: Role,
    /// The place of the group that it is in.
    pub group: Option<usize>,
}

/// Which side of the flow a box is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Messages begin here.
    Source,
    /// Messages come and go.
    Inner,
    /// Messages end here.
    Sink,
    /// `catch` and `status`: hears of what happens to other nodes.
    Watcher,
    /// The end of a link in another flow.
    Elsewhere,
}

#[derive(Debug, PartialEq)]
pub struct Wire {
    /// Places among the boxes.
    pub from: usize,
    pub to: usize,
    pub kind: WireKind,
    /// What is written on it; empty where nothing is.
    pub label: String,
    /// The place of the port among those of the box that it leaves.
    pub port: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireKind {
    /// A wire of the flow.
    Message,
    /// From `link out` to `link in`.
    Link,
    /// Failures or states, to who watches them.
    Watch,
}

#[derive(Debug, PartialEq)]
pub struct Group {
    pub title: String,
    /// The group that it is in.
    pub outer: Option<usize>,
}

impl Picture {
    pub fn of(graph: &Graph) -> Picture {
        let mut picture = Picture {
            name: graph.name().to_string(),
            description: graph.description().unwrap_or_default().to_owned(),
            ..Picture::default()
        };
        let mut known = HashMap::new();
        for node in graph.nodes() {
            let (scope, title) = node.name.rsplit_once('/').unwrap_or(("", &node.name));
            let group = picture.group(scope, &mut known);
            picture.boxes.push(NodeBox {
                title: title.to_owned(),
                subtitle: subtitle(node),
                role: role(node),
                group,
            });
        }
        for (place, node) in graph.nodes().iter().enumerate() {
            picture.add_wires(place, node);
        }
        for (place, node) in graph.nodes().iter().enumerate() {
            picture.add_watched(place, node);
        }
        picture.add_links(graph);
        picture
    }

    /// The group of a scope such as `cellar/inner`, made with those around it when it is first asked for.
    fn group(&mut self, scope: &str, known: &mut HashMap<String, usize>) -> Option<usize> {
        if scope.is_empty() {
            return None;
        }
        if let Some(place) = known.get(scope) {
            return Some(*place);
        }
        let (around, title) = scope.rsplit_once('/').unwrap_or(("", scope));
        let outer = self.group(around, known);
        let title = title.to_owned();
        self.groups.push(Group { title, outer });
        known.insert(scope.to_owned(), self.groups.len() - 1);
        Some(self.groups.len() - 1)
    }

    fn add_wires(&mut self, from: usize, node: &GraphNode) {
        // Where options name the ports, the first one has a name that says something as well.
        let names_all = node.node_type.names_ports && node.ports.len() > 1;
        for (port, readers) in node.readers.iter().enumerate() {
            let label = match port {
                0 if !names_all => "",
                _ => node.ports.get(port).map_or("", String::as_str),
            };
            self.wires.extend(readers.iter().map(|reader| Wire {
                from,
                to: place_of(*reader),
                kind: WireKind::Message,
                label: label.to_owned(),
                port,
            }));
        }
    }

    /// Dotted wires come from nodes that were named. Who watches the whole flow says so in the box: wires from everywhere would
    /// hide all others.
    fn add_watched(&mut self, to: usize, node: &GraphNode) {
        let (Some(watching), false) = (&node.watching, watches_all(node)) else {
            return;
        };
        let label = match watching.what {
            Watched::Failures => "failures",
            Watched::States => "states",
        };
        self.wires.extend(watching.nodes.iter().map(|watched| Wire {
            from: place_of(*watched),
            to,
            kind: WireKind::Watch,
            label: label.to_owned(),
            port: 0,
        }));
    }

    /// Joins the ends of each link that are in the flow. One that has no other end here gets a box for what is elsewhere.
    fn add_links(&mut self, graph: &Graph) {
        let (mut outs, mut ins) = (Vec::new(), Vec::new());
        for (id, link) in graph.links() {
            match link {
                Link::Out(name) => outs.push((place_of(id), name)),
                Link::In(name) => ins.push((place_of(id), name)),
            }
        }
        for (from, name) in &outs {
            let here: Vec<usize> = ends(&ins, name).collect();
            for to in &here {
                self.add_link(*from, *to);
            }
            if here.is_empty() {
                let elsewhere = self.elsewhere(name);
                self.add_link(*from, elsewhere);
            }
        }
        for (to, name) in &ins {
            if ends(&outs, name).next().is_none() {
                let elsewhere = self.elsewhere(name);
                self.add_link(elsewhere, *to);
            }
        }
    }

    fn add_link(&mut self, from: usize, to: usize) {
        self.wires.push(Wire {
            from,
            to,
            kind: WireKind::Link,
            label: String::new(),
            port: 0,
        });
    }

    /// The box for the other ends of a link.
    fn elsewhere(&mut self, link: &str) -> usize {
        let mut boxes = self.boxes.iter();
        let known = boxes.position(|other| other.role == Role::Elsewhere && other.title == link);
        known.unwrap_or_else(|| {
            self.boxes.push(NodeBox {
                title: link.to_owned(),
                subtitle: "other flows".into(),
                role: Role::Elsewhere,
                group: None,
            });
            self.boxes.len() - 1
        })
    }
}

fn ends<'a, T: AsRef<str>>(
    ends: &'a [(usize, T)],
    link: &'a (impl AsRef<str> + ?Sized),
) -> impl Iterator<Item = usize> + 'a {
    let of_link = ends
        .iter()
        .filter(|(_, name)| name.as_ref() == link.as_ref());
    of_link.map(|(place, _)| *place)
}

fn place_of(id: NodeId) -> usize {
    usize::from(id.0)
}

fn role(node: &GraphNode) -> Role {
    if node.watching.is_some() {
        Role::Watcher
    } else if !node.node_type.has_input {
        Role::Source
    } else if node.ports.is_empty() {
        Role::Sink
    } else {
        Role::Inner
    }
}

fn watches_all(node: &GraphNode) -> bool {
    node.spec
        .watches()
        .is_some_and(|watch| watch.nodes.is_none())
}

fn subtitle(node: &GraphNode) -> String {
    let name = node.node_type.name;
    let pins = node.uses.iter().flat_map(Use::pins);
    let pins: Vec<String> = pins.map(|(_, pin)| pin.to_string()).collect();
    match node.spec.link() {
        _ if !pins.is_empty() => format!("{name} · {}", pins.join(", ")),
        Some(Link::Out(link) | Link::In(link)) => format!("{name} · {link}"),
        None if watches_all(node) => format!("{name} · whole flow"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
