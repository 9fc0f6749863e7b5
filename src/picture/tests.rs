use super::layout::{Area, Places, Size};
use super::*;
use crate::flow::{Site, Variables};

/// What is to be seen of a flow of this text.
fn picture(text: &str) -> Picture {
    let site = Site::from_texts([("f", text)], |_| Variables::default());
    let found: Vec<String> = site.diagnostics.iter().map(ToString::to_string).collect();
    let flow = site.flows.first();
    Picture::of(flow.unwrap_or_else(|| panic!("{found:?}")))
}

const TICK: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n";

fn check_wires(text: &str, expected: &[&str]) {
    let picture = picture(text);
    let name = |place: usize| &picture.boxes[place].title;
    let wires = picture.wires.iter().map(|wire| {
        let (from, to) = (name(wire.from), name(wire.to));
        format!("{from} {:?} {} {to}", wire.kind, wire.label)
    });
    assert_eq!(wires.collect::<Vec<_>>(), expected);
}

#[test]
fn a_wire_says_its_port_where_that_is_not_the_first_or_has_a_name_that_was_given() {
    let limits = "[nodes.ok]\ntype = 'limits'\nfrom = 'tick'\nhigh = 5\n\
                  [nodes.show]\ntype = 'debug'\nfrom = ['ok', 'ok.out']\n";
    check_wires(
        &format!("{TICK}{limits}"),
        &[
            "tick Message  ok",
            "ok Message  show",
            "ok Message out show",
        ],
    );
    let switch = "[nodes.way]\ntype = 'switch'\nfrom = 'tick'\nrules = [{ gt = 5, to = 'hot' }, { else = true, to = 'cold' }]\n\
                  [nodes.show]\ntype = 'debug'\nfrom = ['way', 'way.cold']\n";
    check_wires(
        &format!("{TICK}{switch}"),
        &[
            "tick Message  way",
            "way Message hot show",
            "way Message cold show",
        ],
    );
}

#[test]
fn links_are_joined_here_or_lead_to_a_box_for_elsewhere() {
    let ends = "[nodes.out]\ntype = 'link out'\nfrom = 'tick'\nlink = 'a'\n\
                [nodes.in]\ntype = 'link in'\nlink = 'a'\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'in'\n";
    check_wires(
        &format!("{TICK}{ends}"),
        &["tick Message  out", "in Message  show", "out Link  in"],
    );
    let loose = ends.replacen("'a'", "'b'", 1);
    check_wires(
        &format!("{TICK}{loose}"),
        &[
            "tick Message  out",
            "in Message  show",
            "out Link  b",
            "a Link  in",
        ],
    );
}

#[test]
fn who_watches_some_nodes_is_wired_to_them_and_who_watches_all_says_so() {
    let some = "[nodes.bad]\ntype = 'catch'\nnodes = ['tick']\n[nodes.show]\ntype = 'debug'\nfrom = 'bad'\n";
    check_wires(
        &format!("{TICK}[nodes.more]\ntype = 'debug'\nfrom = 'tick'\n{some}"),
        &[
            "tick Message  more",
            "bad Message  show",
            "tick Watch failures bad",
        ],
    );
    let all = "[nodes.health]\ntype = 'status'\n[nodes.show]\ntype = 'debug'\nfrom = ['tick', 'health']\n";
    let picture = picture(&format!("{TICK}{all}"));
    assert_eq!(picture.wires.len(), 2);
    assert_eq!(picture.boxes[1].subtitle, "status · whole flow");
    assert_eq!(picture.boxes[1].role, Role::Watcher);
}

/// Parts in parts, ports, a cycle, both kinds of links, and a name that Mermaid reserves.
const RICH: &str = include_str!("../../tests/graph/everything.toml");

#[test]
fn parts_are_groups_inside_of_each_other() {
    let picture = picture(RICH);
    let groups = picture.groups.iter();
    let groups: Vec<_> = groups
        .map(|group| (group.title.as_str(), group.outer))
        .collect();
    assert_eq!(
        groups,
        [
            ("cellar", None),
            ("inner", Some(0)),
            ("attic", None),
            ("inner", Some(2))
        ]
    );
    let clean = picture.boxes.iter().find(|node| node.title == "clean");
    assert_eq!(clean.and_then(|node| node.group), Some(1));
}

/// The places of a picture whose boxes have all one size.
fn places(picture: &Picture) -> Places {
    let size = |width| Size {
        width,
        height: 40.0,
    };
    let labels = picture.wires.iter();
    let labels: Vec<_> = labels
        .map(|wire| (!wire.label.is_empty()).then_some(size(30.0)))
        .collect();
    let count = picture.boxes.len();
    layout::place(
        picture,
        &vec![size(100.0); count],
        &vec![10.0; count],
        &labels,
    )
}

fn overlap(one: &Area, other: &Area) -> bool {
    one.at.x < other.right()
        && other.at.x < one.right()
        && one.at.y < other.bottom()
        && other.at.y < one.bottom()
}

fn check_places(picture: &Picture) {
    let places = places(picture);
    for (place, one) in places.boxes.iter().enumerate() {
        let others = places.boxes[place + 1..].iter();
        assert!(
            !others.clone().any(|other| overlap(one, other)),
            "box {place}"
        );
        let group = picture.boxes[place].group.map(|group| places.groups[group]);
        assert!(
            group.is_none_or(|group| {
                group.at.x <= one.at.x
                    && one.right() <= group.right()
                    && group.at.y <= one.at.y
                    && one.bottom() <= group.bottom()
            }),
            "box {place} is not in its group"
        );
    }
    for (wire, way) in picture.wires.iter().zip(&places.ways) {
        assert!(way.points.len() >= 2);
        assert!(
            way.points
                .iter()
                .all(|point| point.x.is_finite() && point.y.is_finite())
        );
        assert_eq!(way.label.is_some(), !wire.label.is_empty());
        let (from, to) = (&places.boxes[wire.from], &places.boxes[wire.to]);
        if from.right() <= to.at.x {
            assert_eq!(
                (way.points[0].x, way.points[way.points.len() - 1].x),
                (from.right(), to.at.x)
            );
        }
    }
}

#[test]
fn nothing_lies_on_anything_else() {
    check_places(&picture(RICH));
    for seed in 1..=40 {
        check_places(&random(30, 45, seed));
    }
}

/// A picture with so many boxes and wires, cycles among them, in groups of groups.
fn random(boxes: usize, wires: usize, seed: u64) -> Picture {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = move |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % most as u64).unwrap()
    };
    let groups = (0..boxes / 6).map(|place| Group {
        title: format!("group-{place}"),
        outer: (place % 2 == 1).then(|| place - 1),
    });
    let groups: Vec<Group> = groups.collect();
    let boxes = (0..boxes).map(|place| NodeBox {
        title: format!("node-{place}"),
        subtitle: "where".into(),
        role: Role::Inner,
        group: (place / 6 < groups.len() && below(2) == 0).then_some(place / 6),
    });
    let boxes: Vec<NodeBox> = boxes.collect();
    let wires = (0..wires).map(|_| {
        let to = 1 + below(boxes.len() - 1);
        let back = to.saturating_sub(1 + below(8));
        let (from, to) = if below(10) == 0 {
            (to, back)
        } else {
            (back, to)
        };
        let port = below(2);
        Wire {
            from,
            to,
            kind: WireKind::Message,
            label: if port == 1 {
                "other".into()
            } else {
                String::new()
            },
            port,
        }
    });
    let wires: Vec<Wire> = wires.collect();
    Picture {
        name: "random".into(),
        description: String::new(),
        boxes,
        wires,
        groups,
    }
}

#[test]
fn a_flow_of_500_nodes_has_a_picture_and_one_that_is_too_large_says_so() {
    let start = std::time::Instant::now();
    let svg = svg::write(&random(500, 600, 1)).unwrap();
    println!("500 nodes in {:.1?}, {} bytes", start.elapsed(), svg.len());
    assert_eq!(svg.matches("font-size=\"13\"").count(), 500);
    let error = svg::write(&random(svg::MOST_BOXES + 1, 1, 1)).unwrap_err();
    assert!(
        error.to_string().contains("1001 nodes and 1 wires"),
        "{error}"
    );
    let text = mermaid::write(&random(svg::MOST_BOXES + 1, 1, 1));
    assert!(text.contains("n1000["));
}

#[test]
fn one_picture_is_drawn_the_same_each_time() {
    let of = || svg::write(&random(60, 80, 3)).unwrap();
    assert_eq!(of(), of());
}

#[test]
fn what_means_something_to_mermaid_or_xml_is_written_so_that_it_does_not() {
    let mut picture = picture(&format!(
        "{TICK}[nodes.end]\ntype = 'debug'\nfrom = 'tick'\n"
    ));
    picture.boxes[0].title = "a\"<b>&#35;\u{1}`\n".into();
    picture.description = "one;\n%%{init: {}}%% <two> & \"three\" #4;".into();
    let text = mermaid::write(&picture);
    assert!(
        text.contains("n0([\"a#34;#60;b#62;#38;#35;35; #96; <br/>inject\"])"),
        "{text}"
    );
    assert!(
        text.contains("accDescr: one init:  <two> & \"three\" 4\n"),
        "{text}"
    );
    assert!(!text.contains(" end["), "{text}");
    let svg = svg::write(&picture).unwrap();
    assert!(svg.contains(">a&quot;&lt;b&gt;&amp;#35;` </text>"), "{svg}");
    assert!(svg.contains("&lt;two&gt; &amp; &quot;three&quot;"), "{svg}");
}

#[test]
fn a_long_name_is_cut_in_the_picture_and_whole_in_its_tooltip() {
    let width = |signs: usize| {
        let mut picture = picture(&format!(
            "{TICK}[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n"
        ));
        picture.boxes[1].title = format!("{}z", "a".repeat(signs - 1));
        let svg = svg::write(&picture).unwrap();
        let whole = format!("<title>{}z (debug)</title>", "a".repeat(signs - 1));
        assert_eq!(svg.contains(&whole), signs > 30, "{svg}");
        let width = svg
            .split("width=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        width.and_then(|width| width.parse::<u32>().ok()).unwrap()
    };
    assert!(width(29) < width(30));
    assert_eq!(width(30), width(31));
    assert_eq!(width(30), width(300));
}
