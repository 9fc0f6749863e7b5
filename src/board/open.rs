//! Which real board it is, and opening it.
//!
//! `auto` never guesses: on a Raspberry Pi the pins of its header are known, elsewhere line 17 of some chip may be anything, so the user has
//! to say which chip. What was chosen is told by [`Board::describe`].

use std::fs;
use std::path::Path;

use super::hardware::{Hardware, Outputs};
use super::kernel::{self, Chip, Found, Requests};
use super::rppal::Registers;
use super::{Board, BoardError, Kind};
use crate::runtime::clock::Clock;

const DEVICE_TREE: &str = "/proc/device-tree";
const DEV: &str = "/dev";

/// The labels of the chips that have the header's pins: drivers/pinctrl/bcm/pinctrl-bcm2835.c, and pinctrl-rp1.c of the Pi 5.
const PINCTRL_OF_PI: [&str; 2] = ["pinctrl-bcm2835", "pinctrl-bcm2711"];
const PINCTRL_OF_PI_5: [&str; 1] = ["pinctrl-rp1"];

pub(super) fn open_real(
    kind: Kind,
    chip: Option<&str>,
    clock: &Clock,
) -> Result<Box<dyn Board>, BoardError> {
    let machine = Machine::read(Path::new(DEVICE_TREE));
    let chips = kernel::chips(Path::new(DEV));
    if kind == Kind::Chardev {
        let found = match chip {
            Some(wanted) => named(wanted, &chips)?,
            None => default_chip(&machine, &chips)?,
        };
        return board(Requests, found, &machine, "", clock);
    }
    if let Err(reason) = &machine.is_pi {
        return Err(BoardError::NoPi {
            reason: reason.clone(),
            chips: words(&chips),
        });
    }
    let registers = Registers::open();
    if kind == Kind::Rppal {
        return board(registers?, header(&machine, &chips)?, &machine, "", clock);
    }
    let found = header(&machine, &chips)?;
    match registers {
        Ok(registers) => board(registers, found, &machine, "", clock),
        Err(error) => {
            let why = format!(", for its registers cannot be had ({error})");
            board(Requests, found, &machine, &why, clock)
        }
    }
}

fn board<O: Outputs + 'static>(
    outputs: O,
    chip: &Found,
    machine: &Machine,
    why: &str,
    clock: &Clock,
) -> Result<Box<dyn Board>, BoardError> {
    let chip = Chip::open(&Path::new(DEV).join(&chip.name))?;
    let model = format!("{}{why}", machine.model);
    Ok(Box::new(Hardware::new(outputs, chip, model, clock)))
}

/// What the device tree says about this machine.
struct Machine {
    /// For people.
    model: String,
    /// Or why we think that it is none.
    is_pi: Result<(), String>,
    is_pi_5: bool,
}

impl Machine {
    /// `device_tree` is /proc/device-tree.
    fn read(device_tree: &Path) -> Machine {
        let read = |file: &str| {
            let text = fs::read_to_string(device_tree.join(file)).ok()?;
            Some(text.trim_end_matches('\0').replace('\0', ", "))
        };
        let (model, compatible) = (read("model"), read("compatible"));
        let is = |text: &Option<String>, words: &str| {
            text.as_ref().is_some_and(|text| text.contains(words))
        };
        let is_pi = is(&compatible, "raspberrypi") || is(&model, "Raspberry Pi");
        // The Pi 500 and the Compute Module 5 have the same processor.
        let is_pi_5 = is_pi && (is(&compatible, "bcm2712") || is(&compatible, "raspberrypi,5"));
        let device_tree = device_tree.display();
        let reason = match model.as_ref().or(compatible.as_ref()) {
            Some(other) => format!("{device_tree} says `{other}`"),
            None => format!("{device_tree} has neither a readable model nor compatible"),
        };
        Machine {
            model: model
                .or(compatible)
                .unwrap_or_else(|| "a machine without a name".to_owned()),
            is_pi: if is_pi { Ok(()) } else { Err(reason) },
            is_pi_5,
        }
    }
}

/// The chip of a Pi's header.
fn header<'a>(machine: &Machine, chips: &'a [Found]) -> Result<&'a Found, BoardError> {
    let (labels, expected): (&[&str], _) = if machine.is_pi_5 {
        (&PINCTRL_OF_PI_5, "pinctrl-rp1")
    } else {
        (&PINCTRL_OF_PI, "pinctrl-bcm2835 or pinctrl-bcm2711")
    };
    let is_header = |chip: &&Found| {
        chip.label
            .as_deref()
            .is_some_and(|label| labels.contains(&label))
    };
    if let Some(chip) = chips.iter().find(is_header) {
        return Ok(chip);
    }
    // A normal user outside the group can open none of them: that is the trouble then, not the labels.
    if let Some(refused) = chips.iter().find(|chip| chip.label.is_none()) {
        return Ok(refused);
    }
    Err(BoardError::NoHeader {
        model: machine.model.clone(),
        expected,
        found: words(chips),
    })
}

/// The chip that is meant where none is named: a Pi's header, or the only one.
fn default_chip<'a>(machine: &Machine, chips: &'a [Found]) -> Result<&'a Found, BoardError> {
    if machine.is_pi.is_ok() {
        return header(machine, chips);
    }
    match chips {
        [only] => Ok(only),
        several => Err(BoardError::WhichChip {
            found: words(several),
        }),
    }
}

/// The chip of this name, label or path.
fn named<'a>(wanted: &str, chips: &'a [Found]) -> Result<&'a Found, BoardError> {
    let name = wanted.strip_prefix("/dev/").unwrap_or(wanted);
    if let Some(chip) = chips.iter().find(|chip| chip.name == name) {
        return Ok(chip);
    }
    let labelled: Vec<&Found> = chips
        .iter()
        .filter(|chip| chip.label.as_deref() == Some(wanted))
        .collect();
    match labelled.as_slice() {
        [only] => Ok(only),
        [] => Err(BoardError::NoChip {
            wanted: wanted.to_owned(),
            found: words(chips),
        }),
        _ => Err(BoardError::WhichChip {
            found: words(chips),
        }),
    }
}

fn words(chips: &[Found]) -> String {
    let chips: Vec<String> = chips.iter().map(Found::to_string).collect();
    chips.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device tree with these files.
    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in files {
            fs::write(root.path().join(file), content).unwrap();
        }
        Machine::read(root.path())
    }

    const PI_4: [(&str, &str); 2] = [
        ("model", "Raspberry Pi 4 Model B Rev 1.5\0"),
        ("compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0"),
    ];
    const PI_5: [(&str, &str); 1] = [("compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0")];
    const PI_500: [(&str, &str); 1] = [("compatible", "raspberrypi,500\0brcm,bcm2712\0")];
    const ROCK: [(&str, &str); 1] = [("model", "Pine64 RockPro64\0")];

    fn chips(labels: &[&str]) -> Vec<Found> {
        let found = labels.iter().enumerate().map(|(number, label)| Found {
            name: format!("gpiochip{number}"),
            label: (!label.is_empty()).then(|| (*label).to_owned()),
        });
        found.collect()
    }

    fn compare(found: Result<&Found, BoardError>, expected: Result<&str, &str>) {
        match (found, expected) {
            (Ok(chip), Ok(name)) => assert_eq!(chip.name, name),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_pi_is_told_by_its_device_tree_and_everything_else_with_the_reason() {
        let check =
            |files: &[(&str, &str)], model: &str, is_pi: Result<(), &str>, is_pi_5: bool| {
                let machine = machine(files);
                assert_eq!(machine.model, model);
                assert_eq!(machine.is_pi_5, is_pi_5);
                match (&machine.is_pi, is_pi) {
                    (Ok(()), Ok(())) => {}
                    (Err(reason), Err(words)) => assert!(reason.contains(words), "{reason}"),
                    (found, _) => panic!("{found:?}, expected {is_pi:?}"),
                }
            };
        check(&PI_4, "Raspberry Pi 4 Model B Rev 1.5", Ok(()), false);
        check(&PI_5, "raspberrypi,5-model-b, brcm,bcm2712", Ok(()), true);
        check(&PI_500, "raspberrypi,500, brcm,bcm2712", Ok(()), true);
        check(
            &ROCK,
            "Pine64 RockPro64",
            Err("says `Pine64 RockPro64`"),
            false,
        );
        check(
            &[],
            "a machine without a name",
            Err("neither a readable model"),
            false,
        );
    }

    #[test]
    fn a_pi_s_header_is_known_by_its_label_and_by_no_other() {
        let check = |files: &[(&str, &str)], labels: &[&str], expected: Result<&str, &str>| {
            compare(header(&machine(files), &chips(labels)), expected);
        };
        check(
            &PI_4,
            &["raspberrypi-exp-gpio", "pinctrl-bcm2711"],
            Ok("gpiochip1"),
        );
        check(&PI_4, &["pinctrl-bcm2835"], Ok("gpiochip0"));
        check(
            &PI_5,
            &["gpio-brcmstb@107d508500", "pinctrl-rp1"],
            Ok("gpiochip1"),
        );
        // The chip of another Pi is not this one's header, whatever it is.
        let no_rp1 = "raspberrypi,5-model-b, brcm,bcm2712 has no GPIO chip labelled pinctrl-rp1, found: gpiochip0 [pinctrl-bcm2835]";
        check(&PI_5, &["pinctrl-bcm2835"], Err(no_rp1));
        check(
            &PI_4,
            &["pinctrl-rp1"],
            Err("labelled pinctrl-bcm2835 or pinctrl-bcm2711"),
        );
        check(&PI_4, &[], Err("found: none"));
        // Not readable: opening it will say why.
        check(&PI_4, &["", ""], Ok("gpiochip0"));
    }

    #[test]
    fn chardev_takes_what_is_named_or_the_header_or_the_only_one() {
        let default = |files: &[(&str, &str)], labels: &[&str], expected: Result<&str, &str>| {
            compare(default_chip(&machine(files), &chips(labels)), expected);
        };
        default(
            &PI_4,
            &["raspberrypi-exp-gpio", "pinctrl-bcm2711"],
            Ok("gpiochip1"),
        );
        default(&ROCK, &["gpio0"], Ok("gpiochip0"));
        default(
            &ROCK,
            &["gpio0", "gpio1"],
            Err("found: gpiochip0 [gpio0], gpiochip1 [gpio1]; set `chip`"),
        );
        default(&ROCK, &[], Err("found: none; set `chip`"));

        let name = |wanted: &str, expected: Result<&str, &str>| {
            compare(
                named(wanted, &chips(&["gpio0", "mcp", "mcp", "gpiochip0"])),
                expected,
            );
        };
        name("gpiochip1", Ok("gpiochip1"));
        name("/dev/gpiochip1", Ok("gpiochip1"));
        name("gpio0", Ok("gpiochip0"));
        // A name comes before a label.
        name("gpiochip0", Ok("gpiochip0"));
        name("mcp", Err("which GPIO chip is meant?"));
        name(
            "gpiochip9",
            Err("no GPIO chip `gpiochip9`, found: gpiochip0 [gpio0], gpiochip1 [mcp]"),
        );
    }

    #[test]
    fn a_machine_that_is_no_pi_gets_an_error_that_says_what_to_do() {
        // On a Pi there is nothing to test here.
        if Machine::read(Path::new(DEVICE_TREE)).is_pi.is_err() {
            for kind in [Kind::Auto, Kind::Rppal] {
                let error = open_real(kind, None, &Clock::start())
                    .err()
                    .unwrap()
                    .to_string();
                assert!(error.contains("no Raspberry Pi found"), "{error}");
                assert!(error.contains("under [board]"), "{error}");
            }
        }
    }
}
