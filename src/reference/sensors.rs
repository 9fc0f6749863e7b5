//! `docs/sensors.md`: the parts that can be read, from their definitions.

use std::fmt::Write;

use super::summary;
use crate::nodes::{NodeType, node_types};
use crate::sensors::{About, Quantity};

/// Something on a pin that nodes read which are no parts.
struct OnPin {
    title: &'static str,
    wiring: &'static [(&'static str, &'static str)],
    notes: &'static str,
    flow: &'static str,
}

const ON_PINS: &[OnPin] = &[
    OnPin {
        title: "A contact: door, float, end switch",
        wiring: &[
            ("one side", "GPIO22, pin 15"),
            ("the other", "ground, pin 14"),
        ],
        notes: "The pin's own resistor (`pull = \"up\"`, some 50 kOhm) is enough for a cable of a metre or two; beyond that, and near motors, add \
                1 kOhm to 3.3 V and 100 nF to ground. Open is 1, closed is 0. A contact bounces for some milliseconds: `debounce` waits until it rests.",
        flow: r#"
[nodes.door]
type = "gpio in"
pin = 22
pull = "up"

[nodes.settled]
type = "debounce"
from = "door"
quiet = "20ms"

[nodes.show]
type = "debug"
from = "settled"
"#,
    },
    OnPin {
        title: "A motion sensor: PIR, as the HC-SR501",
        wiring: &[
            ("VCC", "5 V, pin 2"),
            ("GND", "ground, pin 6"),
            ("OUT", "GPIO27, pin 13: 3.3 V while it sees something"),
        ],
        notes: "It needs a minute after power-on, in which it says what it likes. Its own dials set for how long it stays on. `trigger` makes one \
                message of a movement and waits until it has been quiet.",
        flow: r#"
[nodes.motion]
type = "gpio in"
pin = 27

[nodes.seen]
type = "where"
from = "motion"
when = "payload == 1"

[nodes.presence]
type = "trigger"
from = "seen"
after = "5m"
extend = true
then = false

[nodes.show]
type = "debug"
from = "presence"
"#,
    },
    OnPin {
        title: "A meter for water, gas or energy (S0)",
        wiring: &[
            ("S0+, or one side of the reed contact", "GPIO22, pin 15"),
            ("S0-, or the other side", "ground, pin 14"),
        ],
        notes: "`each` is what one pulse stands for: 1/1000 kWh where the meter says 1000 imp/kWh. `initial` is what it shows when you begin. \
                For power in kW of a meter in kWh take `per = \"1h\"`.",
        flow: r#"
[nodes.energy]
type = "pulses"
pin = 22
pull = "up"
edge = "falling"
debounce = "10ms"
each = 0.001
initial = 48211.3
per = "1h"
every = "10s"

[nodes.show]
type = "debug"
from = "energy"
"#,
    },
    OnPin {
        title: "A tachometer: a Hall sensor at a shaft",
        wiring: &[
            ("VCC", "3.3 V, pin 1"),
            ("GND", "ground, pin 6"),
            ("OUT (open collector)", "GPIO23, pin 16"),
        ],
        notes: "With four magnets a turn, one pulse is a quarter of a revolution: `each = 0.25`, `per = \"1m\"`.",
        flow: r#"
[nodes.shaft]
type = "pulses"
pin = 23
pull = "up"
edge = "falling"
each = 0.25
per = "1m"

[nodes.show]
type = "debug"
from = "shaft"
"#,
    },
    OnPin {
        title: "An anemometer and a rain gauge",
        wiring: &[
            ("the reed contact of the cups", "GPIO5, pin 29, and ground"),
            ("the reed contact of the gauge", "GPIO6, pin 31, and ground"),
        ],
        notes: "The cups of the common weather station (SEN-15901) give one pulse a second at 2.4 km/h, its gauge one for 0.2794 mm of rain (SparkFun, \
                \"Weather Meter Kit\").",
        flow: r#"
[nodes.wind]
type = "pulses"
pin = 5
pull = "up"
edge = "falling"
debounce = "2ms"
each = 2.4
per = "1s"

[nodes.rain]
type = "pulses"
pin = 6
pull = "up"
edge = "falling"
debounce = "50ms"
each = 0.2794
per = "1h"
every = "1m"

[nodes.show]
type = "debug"
from = ["wind", "rain"]
"#,
    },
];

impl OnPin {
    fn section(&self) -> String {
        let mut text = format!(
            "## {}\n\n| Terminal | Goes to |\n| --- | --- |\n",
            self.title
        );
        for (terminal, to) in self.wiring {
            writeln!(text, "| {terminal} | {to} |").expect("text can be written to");
        }
        let (notes, flow) = (self.notes, self.flow.trim());
        writeln!(text, "\n{notes}\n\n```toml\n{flow}\n```").expect("text can be written to");
        text
    }
}

/// Parts and what is known of them, in the order of the node types.
fn parts() -> impl Iterator<Item = (&'static NodeType, &'static About)> {
    node_types().filter_map(|node_type| Some((node_type, node_type.part?)))
}

/// The whole page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Sensors\n\n\
         <!-- Made from the definitions in src/sensors/parts by `tidegate sensors --markdown`; a test compares it. Do not edit. -->\n\n\
         Each part is a node type; its options are in [nodes.md](nodes.md). `tidegate sensors` lists the\n\
         buses, ports and 1-wire sensors of this computer, not yet what is on I2C. On the simulated\n\
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
    page.push_str(
        "# On a pin\n\nWhat gives a level or pulses needs no part: `gpio in` and `pulses` read it, and other nodes make sense of it.\n\n",
    );
    for on_pin in ON_PINS {
        page.push_str(&on_pin.section());
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

    #[test]
    fn what_is_shown_for_pins_are_valid_flows() {
        for on_pin in ON_PINS {
            let found = crate::nodes::testing::problems(on_pin.flow);
            assert_eq!(found, [""; 0], "{}", on_pin.title);
        }
    }

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
