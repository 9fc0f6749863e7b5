//! Where the boxes of a picture go and which way its wires take: layers from left to right.
//!
//! The only file that uses `dagre`, a port of dagre.js (Gansner, Koutsofios, North, Vo: "A Technique for Drawing Directed
//! Graphs", 1993; Brandes and Köpf, "Fast and Simple Horizontal Coordinate Assignment", 2001). Of what there is in Rust it alone has
//! groups inside of groups, cycles, places for labels, and no unsafe code; the same graph gets the same coordinates each time.
//! What it has not: ports, so where a wire meets its box is decided here; an eye for what is in the way, so it bends a wire in
//! every layer; a limit, so how much is laid out is bounded by the caller.

use std::collections::BTreeMap;

use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, RankDir};

use super::{Picture, Wire, WireKind};

/// Between boxes that are one above the other.
const BETWEEN: f64 = 22.0;
/// Between wires that are one above the other.
const BETWEEN_WIRES: f64 = 14.0;
/// Between one layer and the next.
const BETWEEN_LAYERS: f64 = 64.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Area {
    /// Its upper left corner.
    pub(super) at: Point,
    pub(super) size: Size,
}

impl Area {
    fn around(center: Point, size: Size) -> Area {
        let at = Point {
            x: center.x - size.width / 2.0,
            y: center.y - size.height / 2.0,
        };
        Area { at, size }
    }

    pub(super) fn without_top(mut self, height: f64) -> Area {
        self.at.y += height;
        self.size.height -= height;
        self
    }

    pub(super) fn right(&self) -> f64 {
        self.at.x + self.size.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.at.y + self.size.height
    }

    pub(super) fn middle(&self) -> f64 {
        self.at.y + self.size.height / 2.0
    }
}

/// The way of a wire.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Way {
    /// From box to box; at least two.
    pub(super) points: Vec<Point>,
    /// The middle of its label, if it has one.
    pub(super) label: Option<Point>,
}

/// A picture with places, in the order of the picture's lists.
#[derive(Debug, PartialEq)]
pub(super) struct Places {
    pub(super) boxes: Vec<Area>,
    pub(super) groups: Vec<Area>,
    pub(super) ways: Vec<Way>,
}

/// Finds a place for everything. `boxes` and `labels` are the sizes of boxes and of the texts on wires; `above` is how much stays
/// free above each box.
pub(super) fn place(
    picture: &Picture,
    boxes: &[Size],
    above: &[f64],
    labels: &[Option<Size>],
) -> Places {
    let with_room = boxes.iter().zip(above).map(|(size, above)| Size {
        height: size.height + above,
        ..*size
    });
    let mut graph = written(picture, &with_room.collect::<Vec<_>>(), labels);
    let options = LayoutOptions {
        rankdir: RankDir::LR,
        nodesep: BETWEEN,
        edgesep: BETWEEN_WIRES,
        ranksep: BETWEEN_LAYERS,
        ..LayoutOptions::default()
    };
    dagre::layout(&mut graph, Some(options));
    let area = |id: &str| {
        let node = graph.node(id).expect("it was put in");
        let size = Size {
            width: node.width,
            height: node.height,
        };
        Area::around(point(node.x, node.y), size)
    };
    let places = above.iter().enumerate();
    let boxes = places.map(|(place, above)| area(&box_id(place)).without_top(*above));
    let boxes: Vec<Area> = boxes.collect();
    let groups = (0..picture.groups.len()).map(|place| area(&group_id(place)));
    let groups = groups.collect();
    let mut ways: Vec<Way> = Vec::with_capacity(picture.wires.len());
    for (place, wire) in picture.wires.iter().enumerate() {
        let (from, to) = (box_id(wire.from), box_id(wire.to));
        let edge = graph.edge(&from, &to, Some(&place.to_string()));
        let edge = edge.expect("it was put in");
        let points = edge.points.iter().map(|point| Point {
            x: point.x,
            y: point.y,
        });
        ways.push(Way {
            points: points.collect(),
            label: labels[place].map(|_| point(edge.x, edge.y)),
        });
    }
    let leave_at = sides(picture, &boxes, &ways);
    let obstacles = obstacles(&boxes, &ways, labels);
    for (place, wire) in picture.wires.iter().enumerate() {
        let way = &mut ways[place];
        meet_boxes(way, leave_at[place], &boxes[wire.from], &boxes[wire.to]);
        match (way.label, labels[place]) {
            (Some(label), Some(size)) => keep_level(way, label, size.width),
            _ => shorten(way, &obstacles),
        }
    }
    Places {
        boxes,
        groups,
        ways,
    }
}

fn box_id(place: usize) -> String {
    format!("n{place}")
}

fn group_id(place: usize) -> String {
    format!("g{place}")
}

fn point(x: Option<f64>, y: Option<f64>) -> Point {
    Point {
        x: x.unwrap_or_default(),
        y: y.unwrap_or_default(),
    }
}

/// The picture as the library wants it.
fn written(
    picture: &Picture,
    boxes: &[Size],
    labels: &[Option<Size>],
) -> Graph<NodeLabel, EdgeLabel> {
    let mut graph = Graph::with_options(GraphOptions {
        directed: true,
        multigraph: true,
        compound: true,
    });
    for (place, size) in boxes.iter().enumerate() {
        let label = NodeLabel {
            width: size.width,
            height: size.height,
            ..NodeLabel::default()
        };
        graph.set_node(box_id(place), Some(label));
    }
    for place in 0..picture.groups.len() {
        graph.set_node(group_id(place), Some(NodeLabel::default()));
    }
    let of_boxes = picture.boxes.iter().map(|node| node.group).enumerate();
    for (place, group) in of_boxes {
        set_outer(&mut graph, &box_id(place), group);
    }
    for (place, group) in picture.groups.iter().enumerate() {
        set_outer(&mut graph, &group_id(place), group.outer);
    }
    for (place, wire) in picture.wires.iter().enumerate() {
        let size = labels[place].unwrap_or_default();
        let label = EdgeLabel {
            width: size.width,
            height: size.height,
            labelpos: dagre::layout::types::LabelPos::Center,
            ..EdgeLabel::default()
        };
        let name = place.to_string();
        graph.set_edge(
            box_id(wire.from),
            box_id(wire.to),
            Some(label),
            Some(name.as_str()),
        );
    }
    graph
}

fn set_outer(graph: &mut Graph<NodeLabel, EdgeLabel>, id: &str, outer: Option<usize>) {
    if let Some(outer) = outer {
        graph.set_parent(id, Some(&group_id(outer)));
    }
}

/// How far down the right side of its box each wire leaves it. The wires of a port leave together; ports stand in the order in which
/// their wires go on, so that these do not cross at once.
fn sides(picture: &Picture, boxes: &[Area], ways: &[Way]) -> Vec<f64> {
    // By box and port: the sum of where wires go on, and how many there are.
    let mut ports: BTreeMap<(usize, usize), (f64, usize)> = BTreeMap::new();
    let of_message = |wire: &Wire| wire.kind == WireKind::Message;
    for (wire, way) in picture.wires.iter().zip(ways) {
        if of_message(wire) {
            let next = way.points.get(1).map_or(0.0, |point| point.y);
            let (sum, count) = ports.entry((wire.from, wire.port)).or_default();
            *sum += next;
            *count += 1;
        }
    }
    let mut order: Vec<Vec<(usize, f64)>> = vec![Vec::new(); boxes.len()];
    for ((from, port), (sum, count)) in ports {
        order[from].push((port, sum / count as f64));
    }
    for ports in &mut order {
        ports.sort_by(|(_, one), (_, other)| one.total_cmp(other));
    }
    let side = |wire: &Wire| {
        let ports = &order[wire.from];
        let place = ports.iter().position(|(port, _)| *port == wire.port);
        let place = place.filter(|_| of_message(wire));
        place.map_or(0.5, |place| (place + 1) as f64 / (ports.len() + 1) as f64)
    };
    let wires = picture.wires.iter();
    wires
        .map(|wire| side(wire) * boxes[wire.from].size.height)
        .collect()
}

/// Lets a wire leave its box on the right side, so far down, and come in at the middle of the left side. One that leads back,
/// against the layers, stays as it is.
fn meet_boxes(way: &mut Way, leaves_at: f64, from: &Area, to: &Area) {
    if way.points.len() < 2 {
        way.points = vec![Point::default(); 2];
    }
    if to.at.x < from.right() {
        return;
    }
    let last = way.points.len() - 1;
    way.points[0] = Point {
        x: from.right(),
        y: from.at.y + leaves_at,
    };
    way.points[last] = Point {
        x: to.at.x,
        y: to.middle(),
    };
}

/// Lets a wire run level along its label.
fn keep_level(way: &mut Way, label: Point, width: f64) {
    let is_label =
        |point: &Point| (point.x - label.x).abs() < 1.0 && (point.y - label.y).abs() < 1.0;
    if let Some(place) = way.points.iter().position(is_label) {
        let leads_back = place > 0 && way.points[place - 1].x > label.x;
        let half = if leads_back { -width } else { width } / 2.0;
        let ends = [label.x - half, label.x + half].map(|x| Point { x, y: label.y });
        way.points.splice(place..=place, ends);
    }
}

/// What a wire had better not run over: boxes and labels.
fn obstacles(boxes: &[Area], ways: &[Way], labels: &[Option<Size>]) -> Vec<Area> {
    let labels = ways.iter().zip(labels);
    let labels = labels.filter_map(|(way, size)| Some(Area::around(way.label?, (*size)?)));
    boxes.iter().copied().chain(labels).collect()
}

/// Takes the bends out of a wire that needs none: the library bends each one in every layer, also where nothing is in the way.
fn shorten(way: &mut Way, obstacles: &[Area]) {
    let (start, end) = (way.points[0], way.points[way.points.len() - 1]);
    let (top, bottom) = (start.y.min(end.y), start.y.max(end.y));
    let is_free = start.x < end.x
        && !obstacles.iter().any(|area| {
            area.at.x < end.x
                && start.x < area.right()
                && area.at.y <= bottom
                && top <= area.bottom()
        });
    if is_free {
        way.points = vec![start, end];
    }
}
