//! Outputs through the Pi's GPIO registers, by rppal 0.22. The only file that names it.
//!
//! It also takes the lines of an I2C bus from its controller for a moment, to free a chip (`wires`). Nothing else of rppal is used: edges come from the kernel (docs/decisions/0023-kernel-edges.md), pulses from `pulses.rs`. Dropping one of its
//! pins resets the direction but not the level, which would leave a relay floating after it was made safe: outputs are told to stay as they
//! are.
//!
//! Registers are written whoever else uses the line. So it is looked up at the kernel before it is taken, and claimed against other Tidegates.

use std::time::Duration;

use rppal::gpio::{Error as GpioError, Gpio, IoPin, Mode, OutputPin};

use super::claim::Claim;
use super::hardware::Outputs;
use super::kernel::Chip;
use super::pulses;
use super::{BoardError, Level, Pin};
use crate::sensors::i2c::Wires;

pub(super) struct Registers(Gpio);

impl Registers {
    pub(super) fn open() -> Result<Registers, BoardError> {
        Gpio::new().map(Registers).map_err(opening)
    }
}

impl Outputs for Registers {
    type Line = RegisterLine;

    fn name(&self) -> &'static str {
        "rppal"
    }

    fn take(&mut self, chip: &Chip, pin: Pin, level: Level) -> Result<RegisterLine, BoardError> {
        let claim = Claim::new(chip.name(), pin)?;
        chip.check_free(pin, "output")?;
        let line = self
            .0
            .get(pin.number())
            .map_err(|source| using(pin, source))?;
        // These set the level first and the direction then, so that the pin never shows the other level.
        let mut line = match level {
            Level::High => line.into_output_high(),
            Level::Low => line.into_output_low(),
        };
        line.set_reset_on_drop(false);
        Ok(RegisterLine {
            line,
            _claim: claim,
        })
    }

    fn wires(&self) -> fn(u8) -> Option<Box<dyn Wires>> {
        wires
    }
}

pub(super) struct RegisterLine {
    line: OutputPin,
    _claim: Claim,
}

impl pulses::Line for RegisterLine {
    fn write(&mut self, level: Level) -> Result<(), BoardError> {
        self.line.write(rppal::gpio::Level::from(level.is_high()));
        Ok(())
    }
}

/// The lines of an I2C bus whose pins are known: GPIO2 and GPIO3 for bus 1, GPIO0 and GPIO1 for bus 0. They go back to the controller when this is
/// dropped.
pub(super) fn wires(bus: u8) -> Option<Box<dyn Wires>> {
    let (data, clock) = match bus {
        0 => (0, 1),
        1 => (2, 3),
        _ => return None,
    };
    let gpio = Gpio::new().ok()?;
    let take = |pin| {
        let mut line = gpio.get(pin).ok()?.into_io(Mode::Input);
        // What the line shows once it is an output.
        line.set_low();
        Some(line)
    };
    Some(Box::new(Lines {
        data: take(data)?,
        clock: take(clock)?,
    }))
}

/// Open drain: an input lets a line go, an output holds it low.
struct Lines {
    data: IoPin,
    clock: IoPin,
}

impl Wires for Lines {
    fn set_clock(&mut self, is_high: bool) {
        self.clock.set_mode(open_drain(is_high));
    }
    fn set_data(&mut self, is_high: bool) {
        self.data.set_mode(open_drain(is_high));
    }
    fn clock(&mut self) -> bool {
        self.clock.is_high()
    }
    fn data(&mut self) -> bool {
        self.data.is_high()
    }
    fn wait(&mut self, span: Duration) {
        std::thread::sleep(span);
    }
}

fn open_drain(is_high: bool) -> Mode {
    if is_high { Mode::Input } else { Mode::Output }
}

fn opening(error: GpioError) -> BoardError {
    match error {
        GpioError::UnknownModel => BoardError::UnknownModel,
        GpioError::PermissionDenied(path) => BoardError::Permission { path },
        source => BoardError::Unreachable {
            source: source.into(),
        },
    }
}

fn using(pin: Pin, source: GpioError) -> BoardError {
    BoardError::Pin {
        pin,
        direction: "output",
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn rppal_s_errors_become_ours() {
        let check = |error: BoardError, expected: &str| {
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(opening(GpioError::UnknownModel), "kind = \"chardev\"");
        check(
            opening(GpioError::PermissionDenied("/dev/gpiomem".to_owned())),
            "group `gpio`",
        );
        check(
            opening(GpioError::Io(io::ErrorKind::NotFound.into())),
            "/dev/gpiomem0",
        );
        let pin = Pin::new(17).unwrap();
        check(
            using(pin, GpioError::PinNotAvailable(17)),
            "cannot use GPIO17 as an output",
        );
    }
}
