//! The kernel's GPIO character devices, /dev/gpiochipN: who uses a line, inputs with their edges, outputs. Through gpiocdev 0.8, and the
//! only file that names it.
//!
//! A request holds a line until it is dropped; the kernel lets nobody else have it meanwhile, and drops it with the process. Edges
//! are read many at a time into a slice: gpiocdev's `read_edge_event` takes up to eight from the kernel and returns the first.
//!
//! Terms: a *chip* has *lines*, numbered from 0; on the chip of a Pi's header they have the BCM numbers of the pins. The *consumer* is the
//! name that whoever holds a line has given.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use gpiocdev::AbiVersion;
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::request::{Builder, Request};

use super::claim::Claim;
use super::edges::{Inputs, Line, Seen};
use super::error::Source;
use super::hardware::Outputs;
use super::pulses;
use super::{BoardError, Level, Pin, Pull};

/// The edges that the kernel keeps for a line until they are read: the most it allows (GPIO_V2_LINES_MAX * 16, linux/gpio.h).
const KEPT: usize = 1024;
/// The edges that are read at once.
const READ: usize = 64;

/// A chip that was found, whether it may be used or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `gpiochip0`.
    pub(super) name: String,
    /// What its driver calls it: `pinctrl-bcm2711`. None where it cannot be opened.
    pub(super) label: Option<String>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.label {
            Some(label) => write!(f, "{} [{label}]", self.name),
            None => write!(f, "{} [not readable]", self.name),
        }
    }
}

/// The chips under a directory, which is /dev, in the order of their names. Links to chips are left out: they are the same ones again.
pub(super) fn chips(dev: &Path) -> Vec<Found> {
    let entries = fs::read_dir(dev)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut names: Vec<(u32, String)> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((name.strip_prefix("gpiochip")?.parse().ok()?, name)))
        .collect();
    names.sort();
    let found = names.into_iter().map(|(_, name)| {
        let label = Chip::open(&dev.join(&name)).ok().map(|chip| chip.label);
        Found { name, label }
    });
    found.collect()
}

/// An open chip.
pub(super) struct Chip {
    chip: gpiocdev::Chip,
    path: PathBuf,
    name: String,
    label: String,
    lines: u32,
}

impl Chip {
    pub(super) fn open(path: &Path) -> Result<Chip, BoardError> {
        let words = || path.display().to_string();
        if let Err(error) = File::open(path) {
            return Err(match error.kind() {
                ErrorKind::PermissionDenied => BoardError::Permission { path: words() },
                _ => BoardError::Chip {
                    path: words(),
                    source: error.into(),
                },
            });
        }
        let failed = |source: gpiocdev::Error| BoardError::Chip {
            path: words(),
            source: source.into(),
        };
        let chip = gpiocdev::Chip::from_path(path).map_err(failed)?;
        // Else each line would refuse, and not say why.
        chip.supports_abi_version(AbiVersion::V2).map_err(failed)?;
        let info = chip.info().map_err(failed)?;
        Ok(Chip {
            name: chip.name(),
            path: path.to_owned(),
            label: info.label,
            lines: info.num_lines,
            chip,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `gpiochip0 [pinctrl-bcm2711]`.
    pub(super) fn describe(&self) -> String {
        format!("{} [{}]", self.name, self.label)
    }

    /// Fails if anybody holds the line through the kernel, drivers included.
    pub(super) fn check_free(&self, pin: Pin, direction: &'static str) -> Result<(), BoardError> {
        if u32::from(pin.number()) >= self.lines {
            return Err(BoardError::NoLine {
                pin,
                chip: self.describe(),
                lines: self.lines,
            });
        }
        let line = self.chip.line_info(u32::from(pin.number()));
        let line = line.map_err(|source| using(pin, direction, source))?;
        if line.used {
            let consumer = line.consumer;
            return Err(BoardError::Busy { pin, consumer });
        }
        Ok(())
    }

    fn request(
        &self,
        pin: Pin,
        direction: &'static str,
        with: impl FnOnce(&mut Builder),
    ) -> Result<Request, BoardError> {
        let mut builder = Request::builder();
        builder
            .on_chip(&self.path)
            .with_consumer(format!("tidegate-{}", process::id()))
            .with_line(u32::from(pin.number()));
        with(&mut builder);
        builder.request().map_err(|source| {
            // EBUSY tells nothing of who has it; the line does.
            match self.check_free(pin, direction) {
                Err(known) => known,
                Ok(()) => using(pin, direction, source),
            }
        })
    }
}

impl Inputs for Chip {
    type Line = InputLine;

    fn arm(&self, pin: Pin, pull: Pull) -> Result<InputLine, BoardError> {
        let claim = Claim::new(&self.name, pin)?;
        let request = self.request(pin, "input", |builder| {
            builder
                .as_input()
                .with_bias(match pull {
                    Pull::None => Bias::Disabled,
                    Pull::Up => Bias::PullUp,
                    Pull::Down => Bias::PullDown,
                })
                .with_edge_detection(EdgeDetection::BothEdges)
                .with_event_clock(EventClock::Monotonic)
                .with_kernel_event_buffer_size(u32::try_from(KEPT).unwrap_or(u32::MAX));
        })?;
        let buffer = vec![0; READ * request.edge_event_u64_size()];
        Ok(InputLine {
            request,
            buffer,
            _claim: claim,
        })
    }
}

/// An armed input.
pub(super) struct InputLine {
    request: Request,
    buffer: Vec<u64>,
    _claim: Claim,
}

impl AsFd for InputLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.request.as_fd()
    }
}

impl Line for InputLine {
    fn level(&self) -> Result<Level, Source> {
        Ok(from_kernel(self.request.lone_value()?))
    }

    /// All that the kernel keeps, so that what piled up on several lines can be put in order.
    fn read(&mut self, seen: &mut Vec<Seen>) -> Result<(), Source> {
        let size = self.request.edge_event_u64_size();
        let mut room = KEPT;
        loop {
            let filled = self.request.read_edge_events_into_slice(&mut self.buffer)?;
            for words in self.buffer[..filled].chunks_exact(size) {
                let edge = self.request.edge_event_from_slice(words)?;
                seen.push(Seen {
                    stamp: Duration::from_nanos(edge.timestamp_ns),
                    level: Level::from(edge.kind == EdgeKind::Rising),
                    number: edge.line_seqno,
                });
            }
            // A line that never rests must not keep the others waiting.
            room = room.saturating_sub(READ);
            let is_full = filled == self.buffer.len();
            if room == 0 || !is_full || !self.request.has_edge_event()? {
                return Ok(());
            }
        }
    }
}

/// Outputs by kernel requests, which last as long as the process. What becomes of a level then depends on the chip's driver.
pub(super) struct Requests;

impl Outputs for Requests {
    type Line = OutputLine;

    fn name(&self) -> &'static str {
        "chardev"
    }

    fn take(&mut self, chip: &Chip, pin: Pin, level: Level) -> Result<OutputLine, BoardError> {
        let claim = Claim::new(chip.name(), pin)?;
        let request = chip.request(pin, "output", |builder| {
            builder.as_output(to_kernel(level));
        })?;
        Ok(OutputLine {
            pin,
            request,
            _claim: claim,
        })
    }
}

/// A driven output.
pub(super) struct OutputLine {
    pin: Pin,
    request: Request,
    _claim: Claim,
}

impl pulses::Line for OutputLine {
    fn write(&mut self, level: Level) -> Result<(), BoardError> {
        let written = self.request.set_lone_value(to_kernel(level));
        written.map_err(|source| using(self.pin, "output", source))
    }

    /// The kernel may turn a line into an input when its request ends, so that lasts as long as the process.
    fn leave(self) {
        mem::forget(self);
    }
}

fn using(pin: Pin, direction: &'static str, source: gpiocdev::Error) -> BoardError {
    BoardError::Pin {
        pin,
        direction,
        source: source.into(),
    }
}

fn to_kernel(level: Level) -> Value {
    Value::from(level.is_high())
}

fn from_kernel(value: Value) -> Level {
    Level::from(value == Value::Active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_listed_by_number_and_what_cannot_be_opened_is_listed_too() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["gpiochip10", "gpiochip2", "gpiomem", "gpiochipx"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("gpiochip2", dev.path().join("gpiochip4")).unwrap();
        let found: Vec<String> = chips(dev.path()).iter().map(Found::to_string).collect();
        assert_eq!(
            found,
            ["gpiochip2 [not readable]", "gpiochip10 [not readable]"]
        );
        assert!(chips(&dev.path().join("none")).is_empty());
    }

    #[test]
    fn what_is_no_chip_is_refused_by_its_path() {
        let check = |path: &Path, expected: &str| {
            let error = Chip::open(path).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(Path::new("/dev/null"), "cannot use the GPIO chip /dev/null");
        check(
            Path::new("/dev/gpiochip-none"),
            "cannot use the GPIO chip /dev/gpiochip-none",
        );
    }
}
