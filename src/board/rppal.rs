//! The Pi's own pins through rppal 0.22. The only file that names it.
//!
//! rppal writes and reads levels in the GPIO registers and takes edges from the kernel's character device, one thread per
//! input. What it does not do, this file does:
//! - It answers Ok to an asynchronous interrupt on a busy line. A synchronous one is asked for first: that one fails.
//! - Edges right after arming are missed. The level is read after arming, and [`Board::recheck`] finds the rest.
//! - A signal that hits an interrupt's thread ends it in silence. `recheck` sees that edges stay out and arms it anew.
//! - Dropping a pin resets its direction but not its level, which would leave a relay floating after it was made safe:
//!   outputs are told to stay as they are.
//! - Its software PWM spins and cannot be ended at once: see `pulses.rs`.
//!
//! Two processes can drive one pin and rppal notices nothing. On a Pi 5 it needs /dev/gpiomem0 and a chip labelled
//! `pinctrl-rp1`.
//!
//! Must not: take a lock in an interrupt's callback; dropping a pin waits for its thread.

mod watched;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rppal::gpio::{Bias, Error as GpioError, Gpio, InputPin, OutputPin, Trigger};

use self::watched::Watched;
use super::pulses::{Line, Lines};
use super::{Board, BoardError, Drive, Edge, EdgeSink, Level, Pin, Pull};
use crate::runtime::clock::Clock;
use crate::sensors::{Hardware, Sensor, SensorSpec};

pub(super) struct Rppal {
    gpio: Gpio,
    clock: Clock,
    outputs: Lines<OutputPin>,
    inputs: BTreeMap<Pin, Input>,
}

struct Input {
    line: InputPin,
    watched: Arc<Watched>,
    edges: EdgeSink,
}

impl Rppal {
    pub(super) fn new(clock: &Clock) -> Result<Rppal, BoardError> {
        Ok(Rppal {
            gpio: Gpio::new().map_err(opening)?,
            clock: clock.clone(),
            outputs: Lines::new(clock),
            inputs: BTreeMap::new(),
        })
    }
}

impl Board for Rppal {
    fn name(&self) -> &'static str {
        "rppal"
    }

    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        if !self.outputs.contains(pin) {
            self.inputs.remove(&pin);
            let line = self
                .gpio
                .get(pin.number())
                .map_err(|source| using(pin, "output", source))?;
            // These set the level first and the direction then, so that the pin never shows the other level.
            let mut line = match drive {
                Drive::Level(Level::High) => line.into_output_high(),
                Drive::Level(Level::Low) | Drive::Pulses(_) => line.into_output_low(),
            };
            line.set_reset_on_drop(false);
            self.outputs.insert(pin, line);
        }
        self.outputs.drive(pin, drive)
    }

    fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        self.outputs.remove(pin);
        self.inputs.remove(&pin);
        let error = |source| using(pin, "input", source);
        let mut line = self.gpio.get(pin.number()).map_err(error)?.into_input();
        line.set_bias(match pull {
            Pull::None => Bias::Off,
            Pull::Up => Bias::PullUp,
            Pull::Down => Bias::PullDown,
        });
        let watched = Arc::new(Watched::new(from_rppal(line.read())));
        let mut input = Input {
            line,
            watched,
            edges,
        };
        input.arm(pin, &self.clock).map_err(error)?;
        let level = from_rppal(input.line.read());
        input.watched.read_after_arming(level);
        self.inputs.insert(pin, input);
        Ok(level)
    }

    fn close_input(&mut self, pin: Pin) {
        self.inputs.remove(&pin);
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        Ok(spec.open(&Hardware::real()))
    }

    fn recheck(&mut self) -> Result<(), BoardError> {
        let mut first_error = Ok(());
        for (&pin, input) in &mut self.inputs {
            let result = input.recheck(pin, &self.clock);
            first_error = first_error.and(result);
        }
        first_error
    }
}

impl Line for OutputPin {
    fn write(&mut self, level: Level) {
        OutputPin::write(self, to_rppal(level));
    }
}

impl Input {
    fn arm(&mut self, pin: Pin, clock: &Clock) -> Result<(), GpioError> {
        self.line.set_interrupt(Trigger::Both, None)?;
        self.line.clear_interrupt()?;

        let (watched, edges, clock) = (self.watched.clone(), self.edges.clone(), clock.clone());
        self.line
            .set_async_interrupt(Trigger::Both, None, move |event| {
                let level = Level::from(event.trigger == Trigger::RisingEdge);
                if watched.edge(level) {
                    let time = clock.now().wall;
                    edges(Edge { pin, level, time });
                }
            })
    }

    fn recheck(&mut self, pin: Pin, clock: &Clock) -> Result<(), BoardError> {
        let found = self.watched.recheck(|| from_rppal(self.line.read()));
        if let Some(level) = found.lost {
            (self.edges)(Edge {
                pin,
                level,
                time: clock.now().wall,
            });
        }
        if !found.silent {
            return Ok(());
        }
        let died_of = self.line.clear_async_interrupt();
        self.watched.rearmed();
        self.arm(pin, clock)
            .map_err(|source| using(pin, "input", source))?;
        match died_of {
            // The thread was well: the edge fell into the moment of arming.
            Ok(()) => Ok(()),
            Err(source) => Err(BoardError::EdgesLost {
                pin,
                source: source.into(),
            }),
        }
    }
}

fn to_rppal(level: Level) -> rppal::gpio::Level {
    rppal::gpio::Level::from(level.is_high())
}

fn from_rppal(level: rppal::gpio::Level) -> Level {
    Level::from(level == rppal::gpio::Level::High)
}

fn opening(error: GpioError) -> BoardError {
    match error {
        GpioError::UnknownModel => BoardError::NoPi {
            reason: "neither /proc/cpuinfo nor the device tree names a model that rppal knows"
                .to_owned(),
        },
        GpioError::PermissionDenied(path) => BoardError::Permission { path },
        source => BoardError::Unreachable {
            source: source.into(),
        },
    }
}

fn using(pin: Pin, direction: &'static str, error: GpioError) -> BoardError {
    match error {
        GpioError::PermissionDenied(path) => BoardError::Permission { path },
        GpioError::Io(source) if source.kind() == io::ErrorKind::ResourceBusy => BoardError::Busy {
            pin,
            source: source.into(),
        },
        source @ GpioError::PinUsed(_) => BoardError::Busy {
            pin,
            source: source.into(),
        },
        source => BoardError::Pin {
            pin,
            direction,
            source: source.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rppal_s_errors_become_ours() {
        let pin = Pin::new(17).unwrap();
        let check = |error: BoardError, expected: &str| {
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(opening(GpioError::UnknownModel), "kind = \"simulated\"");
        check(
            opening(GpioError::PermissionDenied("/dev/gpiomem".to_owned())),
            "group `gpio`",
        );
        check(
            opening(GpioError::Io(io::ErrorKind::NotFound.into())),
            "/dev/gpiomem0",
        );
        check(
            using(
                pin,
                "input",
                GpioError::Io(io::Error::from_raw_os_error(16)),
            ),
            "GPIO17 is in use",
        );
        check(
            using(pin, "output", GpioError::PinNotAvailable(17)),
            "cannot use GPIO17 as an output",
        );
    }

    /// Off a Pi the error must send people to the simulated board; on one there is nothing to test here.
    #[test]
    fn off_a_pi_it_says_what_to_do() {
        if let Err(error @ BoardError::NoPi { .. }) = Rppal::new(&Clock::start()) {
            assert!(error.to_string().contains("under [board]"), "{error}");
        }
    }
}
