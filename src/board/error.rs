//! Why a board could not do it, and what to do about it.

use std::error::Error;

use super::Pin;

#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error(
        "no Raspberry Pi found: {reason}; {}to run without hardware set `kind = \"simulated\"` under [board] in tidegate.toml",
        another_board(chips)
    )]
    NoPi { reason: String, chips: String },
    #[error(
        "{model} has no GPIO chip labelled {expected}, found: {}; name one of these under [board] in tidegate.toml with \
         `kind = \"chardev\"` and `chip`, or use the kernel of Raspberry Pi OS",
        or_none(found)
    )]
    NoHeader {
        model: String,
        expected: &'static str,
        found: String,
    },
    #[error(
        "there is no GPIO chip `{wanted}`, found: {}; correct `chip` under [board] in tidegate.toml",
        or_none(found)
    )]
    NoChip { wanted: String, found: String },
    #[error(
        "which GPIO chip is meant? found: {}; set `chip` to the name or the label of one under [board] in tidegate.toml",
        or_none(found)
    )]
    WhichChip { found: String },
    #[error(
        "no permission to use the pins: {path} refuses; {}",
        permission_remedy(path)
    )]
    Permission { path: String },
    #[error(
        "rppal does not know this Raspberry Pi: neither /proc/cpuinfo nor the device tree names a model up to the Pi 5; \
         `kind = \"chardev\"` under [board] in tidegate.toml does without it"
    )]
    UnknownModel,
    #[error(
        "cannot reach the Pi's registers: neither /dev/gpiomem (on a Pi 5 /dev/gpiomem0) nor a /dev/gpiochip of the Pi can be used; \
         set `kind = \"chardev\"` under [board] in tidegate.toml, or use the kernel of Raspberry Pi OS. A Pi newer than the 5 is not \
         known to `rppal`"
    )]
    Unreachable { source: Source },
    #[error("cannot use the GPIO chip {path}")]
    Chip { path: String, source: Source },
    #[error("{pin} is in use by {}; {}", user(consumer), busy_remedy(consumer))]
    Busy { pin: Pin, consumer: String },
    #[error(
        "{pin} is in use by another Tidegate on this device; stop that one, or give one of the two another pin \
         (`pgrep -a tidegate` lists them)"
    )]
    Claimed { pin: Pin },
    #[error("{chip} has {lines} lines, so there is no {pin} on it")]
    NoLine { pin: Pin, chip: String, lines: u32 },
    #[error("cannot use {pin} as an {direction}")]
    Pin {
        pin: Pin,
        direction: &'static str,
        source: Source,
    },
    #[error(
        "{count} edges of {pins} were lost: they came faster than they were read, and the kernel keeps 1024 for each line; \
         the levels are right again"
    )]
    EdgesLost { pins: String, count: u64 },
    #[error("an edge of {pin} never came, so its level was told late, by reading it again")]
    FoundLate { pin: Pin },
    #[error(
        "the edges of {pin} had ended, so some may have been missed; it was armed anew and its level told"
    )]
    ArmedAnew { pin: Pin, source: Source },
    #[error("the simulated signal of {pin} cannot be: {reason}")]
    Signal { pin: Pin, reason: String },
    #[error("cannot start the thread `{name}`; is the limit of threads or memory reached?")]
    Thread {
        name: &'static str,
        source: std::io::Error,
    },
    #[error("there is no board: {reason}")]
    Missing { reason: String },
}

pub(super) type Source = Box<dyn Error + Send + Sync>;

fn or_none(found: &str) -> &str {
    if found.is_empty() { "none" } else { found }
}

/// The first half of a sentence that goes on with the simulated board.
fn another_board(chips: &str) -> String {
    if chips.is_empty() {
        return String::new();
    }
    format!(
        "to use the pins of this machine set `kind = \"chardev\"` and `chip` to one of {chips}; "
    )
}

fn permission_remedy(path: &str) -> &'static str {
    if path == "/dev/mem" {
        "there is no /dev/gpiomem (on a Pi 5 /dev/gpiomem0), which Raspberry Pi OS has: use its kernel"
    } else {
        "add the user to the group `gpio` (`sudo usermod -aG gpio USER`) and log in again, or give the service \
         `SupplementaryGroups=gpio`"
    }
}

/// The consumer that the kernel names for a line, in words; it may have none.
fn user(consumer: &str) -> String {
    if consumer.is_empty() {
        "the kernel".to_owned()
    } else {
        format!("`{consumer}`")
    }
}

/// What to do about a line's consumer. The names are those the kernel's drivers give: a controller's chip select (`spi0 CS0`
/// on Raspberry Pi OS, `cs` on Debian), else the device that asked (`onewire@4`), or a program's own.
fn busy_remedy(consumer: &str) -> &'static str {
    let is = |name: &str| consumer.starts_with(name);
    if consumer == "cs" || is("spi") && consumer.contains("CS") {
        "it is a chip select of SPI: use another pin, or write `dtparam=spi=off` in /boot/firmware/config.txt and start the Pi anew"
    } else if is("onewire") || is("w1") {
        "it is the one-wire bus: use another pin, or move the bus by `dtoverlay=w1-gpio,gpiopin=N` in /boot/firmware/config.txt"
    } else if is("dht11") {
        "it is a DHT sensor's: use another pin, or move the sensor by `dtoverlay=dht11,gpiopin=N` in /boot/firmware/config.txt"
    } else if is("ir-receiver") {
        "it is an infrared receiver's: use another pin, or change `dtoverlay=gpio-ir` in /boot/firmware/config.txt"
    } else if is("sysfs") {
        "somebody exported it: write its number to /sys/class/gpio/unexport"
    } else if is("tidegate") {
        "stop that other Tidegate, or give one of the two another pin (`pgrep -a tidegate` lists them)"
    } else if is("lg") || is("gpiozero") || is("RPi.GPIO") {
        "that is a program in Python, as a rule: stop it (`sudo lsof /dev/gpiochip*` names it), or use another pin"
    } else {
        "stop that program (`sudo lsof /dev/gpiochip*` names it), take its overlay out of /boot/firmware/config.txt, or use another pin"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: BoardError, expected: &[&str]) {
        let text = error.to_string();
        for expected in expected {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn errors_name_the_remedy() {
        let no_pi = |chips: &str| BoardError::NoPi {
            reason: "test".to_owned(),
            chips: chips.to_owned(),
        };
        check(no_pi(""), &["found: test; to run", "kind = \"simulated\""]);
        check(
            no_pi("gpiochip0 [rockchip]"),
            &["kind = \"chardev\"", "one of gpiochip0 [rockchip]; to run"],
        );
        let permission = |path: &str| BoardError::Permission {
            path: path.to_owned(),
        };
        check(
            permission("/dev/gpiochip0"),
            &["/dev/gpiochip0 refuses", "group `gpio`"],
        );
        check(permission("/dev/mem"), &["no /dev/gpiomem"]);
        check(
            BoardError::WhichChip {
                found: String::new(),
            },
            &["found: none; set `chip`"],
        );
    }

    #[test]
    fn a_busy_line_names_its_user_and_what_to_change() {
        let busy = |consumer: &str, expected: &[&str]| {
            let pin = Pin::new(17).unwrap();
            let consumer = consumer.to_owned();
            check(BoardError::Busy { pin, consumer }, expected);
        };
        busy("spi0 CS0", &["GPIO17 is in use by `spi0 CS0`", "spi=off"]);
        busy("cs", &["GPIO17 is in use by `cs`", "spi=off"]);
        busy("onewire@4", &["w1-gpio,gpiopin=N"]);
        busy("w1", &["w1-gpio,gpiopin=N"]);
        busy("dht11@17", &["dht11,gpiopin=N"]);
        busy("ir-receiver@12", &["gpio-ir"]);
        busy("sysfs", &["/sys/class/gpio/unexport"]);
        busy("tidegate-812", &["`tidegate-812`", "pgrep -a tidegate"]);
        busy("lg", &["Python"]);
        busy("fan", &["`fan`", "lsof /dev/gpiochip"]);
        busy("", &["in use by the kernel"]);
    }
}
