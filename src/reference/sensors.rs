//! `docs/sensors.md`: the parts that can be read, from their definitions.

use std::fmt::Write;

use super::summary;
use crate::nodes::{NodeType, node_types};
use crate::sensors::{About, Quantity};

/// Parts and what is known of them, in the order of the node types.
fn parts() -> impl Iterator<Item = (&'static NodeType, &'static About)> {
    node_types().filter_map(|node_type| Some((node_type, node_type.part?)))
}

/// The whole page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Sensors\n\n\
         <!-- Made from the definitions in src/sensors/parts by `tidegate sensors --markdown`; a test compares it. Do not edit. -->\n\n\
         Each part is a node type; its options are in [nodes.md](nodes.md). `tidegate sensors` shows what is attached. On the simulated\n\
         board (`kind = \"simulated\"` under `[board]`) each has a twin, so that a flow runs on a laptop as on a Pi. A reading is a number, or an\n\
         object where more than one quantity is measured; `quantity = \"NAME\"` gives one of them as a number. The message's header `unit` has\n\
         the unit. A value outside of the range is no reading but an error.\n\n\
         Terminals are given for the header of a Pi, by the pin's place on it, 1 to 40, and by its GPIO number. **Pins of a Pi take 3.3 V; 5 V\n\
         destroys them.** Switch the Pi off before you wire anything.\n\n\
         | Part | Measures | Connected by |\n| --- | --- | --- |\n",
    );
    for (node_type, about) in parts() {
        let measures: Vec<String> = about.quantities.iter().map(named).collect();
        let (name, title) = (node_type.name, about.title);
        let (measures, by) = (measures.join(", "), connected(node_type.by, about));
        writeln!(page, "| [`{name}`](#{name}) {title} | {measures} | {by} |")
            .expect("text can be written to");
    }
    page.push('\n');
    for (node_type, about) in parts() {
        page.push_str(&section(node_type, about));
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn named(quantity: &Quantity) -> String {
    match &*quantity.unit {
        "" => quantity.name.to_string(),
        unit => format!("{} ({unit})", quantity.name),
    }
}

fn connected(by: &str, about: &About) -> String {
    match about.addresses {
        [] => by.to_owned(),
        addresses => {
            let addresses: Vec<String> = addresses.iter().map(|it| format!("{it:#04x}")).collect();
            match addresses.as_slice() {
                [first, .., last] if addresses.len() > 4 => {
                    format!("{by} {first} to {last}")
                }
                _ => format!("{by} {}", addresses.join(", ")),
            }
        }
    }
}

fn section(node_type: &NodeType, about: &About) -> String {
    let mut text = format!(
        "## {}\n\n**{}.** {}\n\n",
        node_type.name,
        about.title,
        summary(node_type)
    );
    text.push_str("| Quantity | Unit | Range | Decimals |\n| --- | --- | --- | --- |\n");
    for quantity in about.quantities {
        let range = match quantity.range {
            (low, high) if low == f64::MIN || high == f64::MAX => "as the part has it".to_owned(),
            (low, high) => format!("{low} to {high}"),
        };
        writeln!(
            text,
            "| `{}` | {} | {range} | {} |",
            quantity.name,
            if quantity.unit.is_empty() {
                "-"
            } else {
                &quantity.unit
            },
            quantity.decimals
        )
        .expect("text can be written to");
    }
    text.push('\n');
    if !about.wiring.is_empty() {
        text.push_str("| Terminal | Goes to |\n| --- | --- |\n");
        for (terminal, to) in about.wiring {
            writeln!(text, "| {terminal} | {to} |").expect("text can be written to");
        }
        text.push('\n');
    }
    for (what, words) in [
        ("Setup", about.setup),
        ("Notes", about.notes),
        ("Source", about.data_sheet),
    ] {
        if !words.is_empty() {
            writeln!(text, "{what}: {words}\n").expect("text can be written to");
        }
    }
    if about.takes_ms > 1 {
        writeln!(text, "A reading takes up to {} ms.\n", about.takes_ms)
            .expect("text can be written to");
    }
    text.push_str("```toml\n");
    text.push_str(node_type.example.trim());
    text.push_str("\n```\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is missing in a definition is found here, not by a reader of the page.
    #[test]
    fn every_part_says_what_a_person_needs() {
        for (node_type, about) in parts() {
            let name = node_type.name;
            assert!(!about.title.is_empty(), "{name}: title");
            assert!(!about.data_sheet.is_empty(), "{name}: data sheet");
            assert!(!about.quantities.is_empty(), "{name}: quantities");
            assert!(!about.setup.is_empty(), "{name}: setup");
            for quantity in about.quantities {
                let (low, high) = quantity.range;
                assert!(low < high, "{name}: range of {}", quantity.name);
                let is_field = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(
                    quantity.name.chars().all(is_field),
                    "{name}: {}",
                    quantity.name
                );
            }
            // From a text that goes on in the next line.
            for text in [about.title, about.setup, about.notes, about.data_sheet] {
                assert!(!text.contains("  "), "{name}: a double space in {text}");
            }
        }
    }
}
