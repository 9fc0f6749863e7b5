//! A flow as a Mermaid flowchart: text that GitHub, GitLab and many editors draw.
//!
//! Ids are numbers with a letter, since names of nodes may be words that Mermaid reserves (`end`, `style`) or have signs in them
//! that mean wires (`a--b`). Texts stand in quotes, with `#...;` for what would end them.
//!
//! Limit: Mermaid itself draws no more than 500 wires or 50,000 characters unless the page that shows it allows more.

use std::fmt::Write;

use super::{NodeBox, Picture, Role, Wire, WireKind};

/// Writes the flowchart.
pub fn write(picture: &Picture) -> String {
    let mut text = String::from("flowchart LR\n");
    line(&mut text, 1, &format!("accTitle: {}", plain(&picture.name)));
    let description = plain(&picture.description);
    if !description.is_empty() {
        line(&mut text, 1, &format!("accDescr: {description}"));
    }
    write_level(&mut text, picture, None, 1);
    for wire in &picture.wires {
        line(&mut text, 1, &of_wire(wire));
    }
    for (role, class, style) in CLASSES {
        let members = picture.boxes.iter().enumerate();
        let members = members.filter(|(_, node)| node.role == role);
        let ids: Vec<String> = members.map(|(place, _)| format!("n{place}")).collect();
        if !ids.is_empty() {
            line(&mut text, 1, &format!("classDef {class} {style}"));
            line(&mut text, 1, &format!("class {} {class}", ids.join(",")));
        }
    }
    text
}

/// How roles look: the class's name, its style. Colours have their text's with them, for dark pages.
const CLASSES: [(Role, &str, &str); 4] = [
    (
        Role::Source,
        "source",
        "fill:#d5ecdc,stroke:#4a8a60,color:#1d2b22",
    ),
    (
        Role::Sink,
        "sink",
        "fill:#dbe6f7,stroke:#4b71ad,color:#1c2738",
    ),
    (
        Role::Watcher,
        "watcher",
        "fill:#f6e7cd,stroke:#a87b2d,color:#332611,stroke-dasharray:2 3",
    ),
    (
        Role::Elsewhere,
        "elsewhere",
        "fill:#e8e8ec,stroke:#83838c,color:#2a2a2e,stroke-dasharray:6 4",
    ),
];

/// The boxes of a group, or of none, and then the groups in it.
fn write_level(text: &mut String, picture: &Picture, group: Option<usize>, depth: usize) {
    for (place, node) in picture.boxes.iter().enumerate() {
        if node.group == group {
            line(text, depth, &format!("n{place}{}", of_box(node)));
        }
    }
    for (place, inner) in picture.groups.iter().enumerate() {
        if inner.outer == group {
            let title = escaped(&inner.title);
            line(text, depth, &format!("subgraph g{place}[\"{title}\"]"));
            write_level(text, picture, Some(place), depth + 1);
            line(text, depth, "end");
        }
    }
}

fn of_box(node: &NodeBox) -> String {
    let label = format!(
        "\"{}<br/>{}\"",
        escaped(&node.title),
        escaped(&node.subtitle)
    );
    match node.role {
        Role::Source | Role::Elsewhere => format!("([{label}])"),
        Role::Sink => format!("[[{label}]]"),
        Role::Watcher => format!("{{{{{label}}}}}"),
        Role::Inner => format!("[{label}]"),
    }
}

fn of_wire(wire: &Wire) -> String {
    let arrow = match wire.kind {
        WireKind::Message => "-->",
        WireKind::Link | WireKind::Watch => "-.->",
    };
    let label = match wire.label.as_str() {
        "" => String::new(),
        label => format!("|\"{}\"|", escaped(label)),
    };
    format!("n{} {arrow}{label} n{}", wire.from, wire.to)
}

/// Text between quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' => {
                write!(safe, "#{};", u32::from(sign)).expect("a String takes everything");
            }
            sign if sign.is_control() => safe.push(' '),
            sign => safe.push(sign),
        }
    }
    safe
}

/// Text that stands without quotes up to the end of its line: without what begins a comment, a directive or an entity.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_plain = |sign: &char| !matches!(sign, '%' | '#' | ';' | '{' | '}') && !sign.is_control();
    words.join(" ").chars().filter(is_plain).collect()
}

fn line(text: &mut String, depth: usize, content: &str) {
    writeln!(text, "{:indent$}{content}", "", indent = depth * 4)
        .expect("a String takes everything");
}
