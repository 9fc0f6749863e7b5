//! A flow as an SVG that stands in a document.
//!
//! It has no background, wires and their labels are of a grey that is legible on white and on black, and boxes bring their own
//! background: so it looks the same on light and on dark pages, and in programs that know no style sheets. Fonts are generic:
//! widths of texts are estimated on the wide side, and longer names are cut in the middle, with the full one as a tooltip.

use std::fmt::Write;

use super::layout::{self, Area, Places, Point, Size};
use super::{NodeBox, Picture, Role, WireKind};

/// More boxes than this make no picture that anybody could read, and take long to lay out.
pub const MOST_BOXES: usize = 1_000;
/// More wires than this, the same.
pub const MOST_WIRES: usize = 3_000;

/// Why there is no picture of a flow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvgError {
    #[error(
        "flow `{name}` is too large for a picture: {boxes} nodes and {wires} wires, of at most {MOST_BOXES} and {MOST_WIRES}; \
         without `--svg` it is written as Mermaid, or split the flow, joined by `link out` and `link in`"
    )]
    TooLarge {
        name: String,
        boxes: usize,
        wires: usize,
    },
}

const MARGIN: f64 = 12.0;
/// Above the boxes of a group, for its name.
const GROUP_TITLE: f64 = 18.0;
const HEIGHT: f64 = 44.0;
/// On both sides of a text in its box.
const PADDING: f64 = 14.0;
/// Names are cut to so many signs.
const MOST_SIGNS: usize = 30;
/// The width of a sign of a title, of a subtitle and of a label: what DejaVu Sans, a wide font, takes on average.
const TITLE_SIGN: f64 = 8.3;
const SUBTITLE_SIGN: f64 = 6.7;
const LABEL_SIGN: f64 = 6.7;
const WIRE_COLOR: &str = "#76808f";

/// Fill, line and text of a box.
fn colors(role: Role) -> [&'static str; 3] {
    match role {
        Role::Source => ["#d5ecdc", "#4a8a60", "#1d2b22"],
        Role::Inner => ["#f3f4f7", "#7d8696", "#23272e"],
        Role::Sink => ["#dbe6f7", "#4b71ad", "#1c2738"],
        Role::Watcher => ["#f6e7cd", "#a87b2d", "#332611"],
        Role::Elsewhere => ["#e8e8ec", "#83838c", "#2a2a2e"],
    }
}

/// Draws the picture.
pub fn write(picture: &Picture) -> Result<String, SvgError> {
    if picture.boxes.len() > MOST_BOXES || picture.wires.len() > MOST_WIRES {
        return Err(SvgError::TooLarge {
            name: picture.name.clone(),
            boxes: picture.boxes.len(),
            wires: picture.wires.len(),
        });
    }
    let sizes: Vec<Size> = picture.boxes.iter().map(size_of).collect();
    let labels = picture.wires.iter().map(|wire| label_size(&wire.label));
    let labels: Vec<Option<Size>> = labels.collect();
    let places = layout::place(picture, &sizes, &rooms_above(picture), &labels);
    Ok(drawn(picture, &places))
}

fn size_of(node: &NodeBox) -> Size {
    let title = signs(&cut(&node.title)) * TITLE_SIGN;
    let subtitle = signs(&cut(&node.subtitle)) * SUBTITLE_SIGN;
    Size {
        width: (title.max(subtitle) + 2.0 * PADDING).round(),
        height: HEIGHT,
    }
}

fn label_size(label: &str) -> Option<Size> {
    let width = (signs(&cut(label)) * LABEL_SIGN).round() + 8.0;
    (!label.is_empty()).then_some(Size {
        width,
        height: 16.0,
    })
}

fn signs(text: &str) -> f64 {
    text.chars().count() as f64
}

/// A text of at most [`MOST_SIGNS`], without its middle if it is longer: names that are long tend to differ at their ends.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= MOST_SIGNS {
        return text.to_owned();
    }
    let half = MOST_SIGNS / 2;
    let (head, tail) = (text.chars().take(half), text.chars().skip(count - half + 1));
    head.chain(['…']).chain(tail).collect()
}

fn drawn(picture: &Picture, places: &Places) -> String {
    let frame = frame(picture, places);
    let (x, y) = (frame.at.x, frame.at.y);
    let (width, height) = (frame.size.width, frame.size.height);
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"{x} {y} {width} {height}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\">"
        ),
    );
    put(
        &mut svg,
        format_args!("<title>{}</title>", escaped(&picture.name)),
    );
    if !picture.description.is_empty() {
        put(
            &mut svg,
            format_args!("<desc>{}</desc>", escaped(&picture.description)),
        );
    }
    draw_arrow_head(&mut svg);
    for (place, group) in picture.groups.iter().enumerate() {
        draw_group(&mut svg, &group.title, &group_area(picture, places, place));
    }
    draw_wires(&mut svg, picture, places);
    for (node, area) in picture.boxes.iter().zip(&places.boxes) {
        draw_box(&mut svg, node, area);
    }
    draw_labels(&mut svg, picture, places);
    svg += "</svg>\n";
    svg
}

/// What all of it covers, in whole numbers.
fn frame(picture: &Picture, places: &Places) -> Area {
    let groups = (0..picture.groups.len()).map(|place| group_area(picture, places, place));
    let areas: Vec<Area> = places.boxes.iter().copied().chain(groups).collect();
    let on_ways = places.ways.iter().flat_map(|way| &way.points);
    let corners = areas.iter().flat_map(|area| {
        let end = Point {
            x: area.right(),
            y: area.bottom(),
        };
        [area.at, end]
    });
    let points: Vec<Point> = on_ways.copied().chain(corners).collect();
    let least = |of: fn(&Point) -> f64| points.iter().map(of).fold(f64::MAX, f64::min) - MARGIN;
    let most = |of: fn(&Point) -> f64| points.iter().map(of).fold(f64::MIN, f64::max) + MARGIN;
    let at = Point {
        x: least(|point| point.x).floor(),
        y: least(|point| point.y).floor(),
    };
    Area {
        at,
        size: Size {
            width: (most(|point| point.x) - at.x).ceil(),
            height: (most(|point| point.y) - at.y).ceil(),
        },
    }
}

/// A group's frame. What is nested deeper begins further down, below the names around it.
fn group_area(picture: &Picture, places: &Places, place: usize) -> Area {
    let around = groups_from(picture, Some(place)).count() - 1;
    places.groups[place].without_top(GROUP_TITLE * around as f64)
}

/// A group and those that it is in, from the inside out.
fn groups_from(picture: &Picture, group: Option<usize>) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors(group, |group| picture.groups[*group].outer)
}

/// What stays free above each box, for the names of the groups around it and beside it: those in one outer group have the same.
fn rooms_above(picture: &Picture) -> Vec<f64> {
    let outermost = |group| groups_from(picture, group).last();
    let mut deepest = vec![0; picture.groups.len()];
    for group in 0..picture.groups.len() {
        let depth = groups_from(picture, Some(group)).count();
        if let Some(outermost) = outermost(Some(group)) {
            deepest[outermost] = depth.max(deepest[outermost]);
        }
    }
    let of_box = |node: &NodeBox| outermost(node.group).map_or(0, |group| deepest[group]);
    let boxes = picture.boxes.iter();
    boxes
        .map(|node| GROUP_TITLE * of_box(node) as f64)
        .collect()
}

fn draw_arrow_head(svg: &mut String) {
    put(
        svg,
        format_args!(
            "<defs><marker id=\"to\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\" \
         markerUnits=\"userSpaceOnUse\"><path d=\"M0 0L8 4L0 8z\" fill=\"{WIRE_COLOR}\"/></marker></defs>"
        ),
    );
}

fn draw_group(svg: &mut String, title: &str, area: &Area) {
    let Area { at, size } = area;
    put(
        svg,
        format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"{WIRE_COLOR}\" fill-opacity=\"0.08\" \
         stroke=\"{WIRE_COLOR}\" stroke-opacity=\"0.5\"/>",
            Short(at.x),
            Short(at.y),
            Short(size.width),
            Short(size.height)
        ),
    );
    put(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{}\" font-size=\"12\" font-weight=\"600\" fill=\"{WIRE_COLOR}\">{}</text>",
            Short(at.x + 8.0),
            Short(at.y + 15.0),
            escaped(&cut(title))
        ),
    );
}

fn draw_wires(svg: &mut String, picture: &Picture, places: &Places) {
    put(
        svg,
        format_args!(
            "<g fill=\"none\" stroke=\"{WIRE_COLOR}\" stroke-width=\"1.5\" marker-end=\"url(#to)\">"
        ),
    );
    for (wire, way) in picture.wires.iter().zip(&places.ways) {
        let dashes = match wire.kind {
            WireKind::Message => "",
            WireKind::Link => " stroke-dasharray=\"7 4\"",
            WireKind::Watch => " stroke-dasharray=\"1.5 4\" stroke-linecap=\"round\"",
        };
        put(
            svg,
            format_args!("<path d=\"{}\"{dashes}/>", curve(&way.points)),
        );
    }
    *svg += "</g>\n";
}

/// A curve through the points that is level at each of them.
fn curve(points: &[Point]) -> String {
    let mut path = format!("M{} {}", Short(points[0].x), Short(points[0].y));
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let middle = Short((from.x + to.x) / 2.0);
        let (x, y) = (Short(to.x), Short(to.y));
        write!(path, "C{middle} {} {middle} {y} {x} {y}", Short(from.y))
            .expect("a String takes everything");
    }
    path
}

/// Sources are round on the left, where nothing comes in; sinks on the right.
fn draw_box(svg: &mut String, node: &NodeBox, area: &Area) {
    let [fill, line, color] = colors(node.role);
    let dashes = match node.role {
        Role::Watcher => " stroke-dasharray=\"1.5 3\" stroke-linecap=\"round\"",
        Role::Elsewhere => " stroke-dasharray=\"7 4\"",
        Role::Source | Role::Inner | Role::Sink => "",
    };
    let (title, subtitle) = (cut(&node.title), cut(&node.subtitle));
    let is_cut = title != node.title || subtitle != node.subtitle;
    *svg += "<g text-anchor=\"middle\">";
    if is_cut {
        let (title, subtitle) = (escaped(&node.title), escaped(&node.subtitle));
        put(svg, format_args!("<title>{title} ({subtitle})</title>"));
    }
    put(
        svg,
        format_args!(
            "<path d=\"{}\" fill=\"{fill}\" stroke=\"{line}\"{dashes}/>",
            outline(node.role, area)
        ),
    );
    let x = Short(area.at.x + area.size.width / 2.0);
    put(
        svg,
        format_args!(
            "<text x=\"{x}\" y=\"{}\" font-size=\"13\" font-weight=\"600\" fill=\"{color}\">{}</text>",
            Short(area.at.y + 19.0),
            escaped(&title)
        ),
    );
    put(
        svg,
        format_args!(
            "<text x=\"{x}\" y=\"{}\" font-size=\"11\" fill=\"{color}\" fill-opacity=\"0.8\">{}</text></g>",
            Short(area.at.y + 34.0),
            escaped(&subtitle)
        ),
    );
}

fn outline(role: Role, area: &Area) -> String {
    const CORNER: f64 = 6.0;
    let round = area.size.height / 2.0;
    let (left, right) = match role {
        Role::Source => (round, CORNER),
        Role::Sink => (CORNER, round),
        Role::Inner => (CORNER, CORNER),
        Role::Watcher | Role::Elsewhere => (round, round),
    };
    let (across, down) = (area.size.width - left - right, area.size.height);
    let (start, across) = (Short(area.at.x + left), Short(across));
    let (up_l, up_r) = (Short(down - 2.0 * left), Short(down - 2.0 * right));
    let (l, r, y) = (Short(left), Short(right), Short(area.at.y));
    format!(
        "M{start} {y}h{across}a{r} {r} 0 0 1 {r} {r}v{up_r}a{r} {r} 0 0 1 -{r} {r}h-{across}a{l} {l} 0 0 1 -{l} -{l}v-{up_l}\
         a{l} {l} 0 0 1 {l} -{l}z"
    )
}

fn draw_labels(svg: &mut String, picture: &Picture, places: &Places) {
    put(
        svg,
        format_args!("<g font-size=\"11\" text-anchor=\"middle\" fill=\"{WIRE_COLOR}\">"),
    );
    for (wire, way) in picture.wires.iter().zip(&places.ways) {
        if let Some(at) = way.label {
            put(
                svg,
                format_args!(
                    "<text x=\"{}\" y=\"{}\">{}</text>",
                    Short(at.x),
                    Short(at.y - 4.0),
                    escaped(&cut(&wire.label))
                ),
            );
        }
    }
    *svg += "</g>\n";
}

/// A coordinate with one digit behind the point, if it needs one.
struct Short(f64);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = (self.0 * 10.0).round();
        // So that there is no "-0".
        write!(f, "{}", if tenths == 0.0 { 0.0 } else { tenths / 10.0 })
    }
}

/// Text as XML takes it; signs that no XML may have are left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' | '\t' | '\r' => safe.push(' '),
            sign if sign.is_control() || matches!(sign, '\u{fffe}' | '\u{ffff}') => {}
            sign => safe.push(sign),
        }
    }
    safe
}

fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    svg.write_fmt(line).expect("a String takes everything");
    svg.push('\n');
}
