//! The kernel's lines: uAPI v2 of /dev/gpiochipN (Linux 5.10), by the crate gpiocdev.
//!
//! Edges are read into a slice that holds one: the crate's `read_edge_event` takes up to eight from the kernel and returns the first.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use gpiocdev::line::{EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::{Chip, Request};

use super::super::kernel::names_in;
use super::super::trouble::Trouble;
use super::{LineEdge, Lines};
use crate::board::{Level, Pin};

/// What the kernel calls the chip of the header: up to the Pi 3 and Zero 2, on the Pi 4, on the Pi 5.
const HEADERS: [&str; 3] = ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"];

pub(super) struct Device {
    path: PathBuf,
    request: Request,
    output: Pin,
    input: Pin,
    began: Instant,
    one_event: Vec<u64>,
}

impl Device {
    /// The output is low from then on. The lines are let go of when it is dropped.
    pub(super) fn open(
        dev: &Path,
        output: Pin,
        input: Pin,
        edges: bool,
    ) -> Result<Box<dyn Lines>, Trouble> {
        let (path, chip) = header(dev)?;
        let mut builder = Request::builder();
        builder
            .on_chip(&path)
            .with_consumer("tidegate")
            .with_line(output.number().into())
            .as_output(Value::Inactive)
            .with_line(input.number().into())
            .as_input();
        if edges {
            builder
                .with_edge_detection(EdgeDetection::BothEdges)
                .with_event_clock(EventClock::Monotonic);
        }
        let request = builder.request().map_err(|error| {
            let holders = [output, input].map(|pin| holder(&chip, pin));
            let held = holders.into_iter().flatten().next();
            held.unwrap_or_else(|| failed(&path, error))
        })?;
        Ok(Box::new(Device {
            one_event: vec![0; request.edge_event_u64_size()],
            path,
            request,
            output,
            input,
            began: Instant::now(),
        }))
    }
}

impl Lines for Device {
    fn drive(&mut self, level: Level) -> Result<(), Trouble> {
        let value = Value::from(level.is_high());
        self.request
            .set_value(self.output.number().into(), value)
            .map_err(|error| failed(&self.path, error))
    }

    fn level(&mut self) -> Result<Level, Trouble> {
        let value = self.request.value(self.input.number().into());
        let value = value.map_err(|error| failed(&self.path, error))?;
        Ok(Level::from(value == Value::Active))
    }

    fn edge(&mut self, within: Duration) -> Result<Option<LineEdge>, Trouble> {
        let failed = |error| failed(&self.path, error);
        if !self.request.wait_edge_event(within).map_err(failed)? {
            return Ok(None);
        }
        let buffer = &mut self.one_event;
        let read = self.request.read_edge_events_into_slice(buffer);
        let words = &self.one_event[..read.map_err(failed)?];
        let event = self.request.edge_event_from_slice(words).map_err(failed)?;
        Ok(Some(LineEdge {
            level: Level::from(event.kind == EdgeKind::Rising),
            at: Duration::from_nanos(event.timestamp_ns),
        }))
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wait(&mut self, span: Duration) {
        thread::sleep(span);
    }
}

/// Who has a line, in words, if anybody has: that a request failed with EBUSY tells nothing of it.
fn holder(chip: &Chip, pin: Pin) -> Option<Trouble> {
    let line = chip.line_info(pin.number().into()).ok()?;
    line.used.then(|| Trouble::InUse {
        line: pin.to_string(),
        by: line.consumer,
    })
}

/// The chip that has the pins of the header.
fn header(dev: &Path) -> Result<(PathBuf, Chip), Trouble> {
    let mut names = names_in(dev);
    names.retain(|name| name.starts_with("gpiochip"));
    let mut chips = Vec::new();
    for path in names.iter().map(|name| dev.join(name)) {
        let (chip, label) = open(&path)?;
        chips.push(((path, chip), label));
    }
    choose(chips).map_err(|present| Trouble::NoBus {
        path: dev.join("gpiochip0"),
        remedy: if present.is_empty() {
            "the kernel has no driver for pins: this part needs a Raspberry Pi".to_owned()
        } else {
            let present = present.join(", ");
            format!("or is not the chip of a Raspberry Pi's header: there are {present}")
        },
    })
}

/// A chip and what its driver calls it.
fn open(path: &Path) -> Result<(Chip, String), Trouble> {
    // The crate's errors have lost the kind.
    if let Err(source) = File::open(path) {
        let path = path.to_owned();
        return Err(match source.kind() {
            io::ErrorKind::PermissionDenied => Trouble::Permission {
                path,
                group: "gpio",
            },
            _ => Trouble::Io { path, source },
        });
    }
    let chip = Chip::from_path(path).map_err(|error| failed(path, error))?;
    let label = chip.info().map_err(|error| failed(path, error))?.label;
    Ok((chip, label))
}

/// The Pi's, or the only one there is; or the labels of all.
fn choose<C>(mut chips: Vec<(C, String)>) -> Result<C, Vec<String>> {
    let of_pi = |(_, label): &(C, String)| HEADERS.contains(&label.as_str());
    if let Some(place) = chips.iter().position(of_pi) {
        return Ok(chips.swap_remove(place).0);
    }
    match chips.len() {
        1 => Ok(chips.swap_remove(0).0),
        _ => Err(chips.into_iter().map(|(_, label)| label).collect()),
    }
}

fn failed(path: &Path, error: gpiocdev::Error) -> Trouble {
    Trouble::Io {
        path: path.to_owned(),
        source: io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chip_of_the_header_is_told_by_its_label() {
        let check = |labels: &[&str], expected: Result<usize, Vec<&str>>| {
            let chips = labels.iter().map(|label| (*label).to_owned()).enumerate();
            let expected = expected.map_err(|labels| labels.into_iter().map(Into::into).collect());
            assert_eq!(choose(chips.collect()), expected, "{labels:?}");
        };
        check(&["raspberrypi-exp-gpio", "pinctrl-bcm2711"], Ok(1));
        check(&["gpio-brcmstb@107d508500", "pinctrl-rp1", "x"], Ok(1));
        check(&["pinctrl-bcm2835"], Ok(0));
        check(&["another-board"], Ok(0));
        check(&["a", "b"], Err(vec!["a", "b"]));
        check(&[], Err(vec![]));
    }

    #[test]
    fn what_is_no_chip_is_told_with_its_path() {
        let check = |files: &[&str], expected: &str| {
            let dev = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(dev.path().join(file), "").unwrap();
            }
            let pin = |number| Pin::new(number).unwrap();
            let error = Device::open(dev.path(), pin(23), pin(24), true);
            let error = crate::sensors::chain(&error.err().unwrap());
            assert!(error.contains(expected), "{error}");
        };
        check(
            &["gpiomem"],
            "gpiochip0 does not exist; the kernel has no driver for pins",
        );
        check(&["gpiochip0"], "gpiochip0 cannot be used");
    }
}
