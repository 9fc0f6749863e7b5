//! What is attached to this computer, as far as the kernel's files say it.
//!
//! Must not: open a device, or write to one: looking changes nothing.

use super::kernel::names_in;
use super::place::Hardware;

/// Something that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is and where, for people.
    pub name: String,
    /// The node that reads it, for a flow file. None for a bus, whose parts are not known.
    pub toml: Option<String>,
}

/// All that the files show, in the order of the names.
pub fn survey(hardware: &Hardware) -> Vec<Finding> {
    let mut found = Vec::new();
    let ids = names_in(&hardware.sys.join("bus/w1/devices"));
    let ids = ids.iter().filter(|id| id.starts_with("28-"));
    for (number, id) in (1..).zip(ids) {
        let toml = format!("[nodes.probe-{number}]\ntype = \"ds18b20\"\ndevice = \"{id}\"");
        found.push(Finding {
            name: format!("1-wire {id}"),
            toml: Some(toml),
        });
    }
    let dev = |name: &String| {
        ["i2c-", "spidev", "ttyUSB", "ttyACM", "serial", "gpiochip"]
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(starts_with_digit))
    };
    found.extend(names_in(&hardware.dev).into_iter().filter(dev).map(|name| {
        let name = hardware.dev.join(name).display().to_string();
        Finding { name, toml: None }
    }));
    found
}

fn starts_with_digit(rest: &str) -> bool {
    rest.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_the_files_show_is_found_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for path in [
            "sys/bus/w1/devices/28-0316a2795aff",
            "sys/bus/w1/devices/w1_bus_master1",
            "dev/i2c-1",
            "dev/ttyUSB0",
            "dev/tty1",
            "dev/serial",
        ] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let hardware = Hardware {
            sys: root.path().join("sys"),
            dev: root.path().join("dev"),
            ..Hardware::real()
        };
        let found = survey(&hardware);
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        let dev = |name: &str| hardware.dev.join(name).display().to_string();
        assert_eq!(
            names,
            ["1-wire 28-0316a2795aff", &dev("i2c-1"), &dev("ttyUSB0")]
        );
        let toml = found[0].toml.as_deref().unwrap();
        assert!(toml.contains("device = \"28-0316a2795aff\""), "{toml}");
    }
}
