//! Where a part can be.

use std::path::PathBuf;

use super::i2c::Wires;
use super::part::{About, Chip, Options, Part};
use super::scene::Scene;
use super::trouble::Trouble;
use crate::board::Pin;

/// Where the kernel shows its devices; elsewhere in tests.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// /sys
    pub sys: PathBuf,
    /// /dev
    pub dev: PathBuf,
    /// /proc
    pub proc: PathBuf,
    /// Takes the two lines of an I2C bus into our hands, if this board can.
    pub wires: fn(bus: u8) -> Option<Box<dyn Wires>>,
}

impl Hardware {
    pub fn real() -> Hardware {
        Hardware {
            sys: "/sys".into(),
            dev: "/dev".into(),
            proc: "/proc".into(),
            wires: |_| None,
        }
    }
}

/// Where a part is: the options that all parts at such a place share.
pub trait Place: Options {
    /// The way to the part.
    type Link: Send;
    /// What is at the other end of a simulated link.
    type Twin: Send;
    /// What its parts are connected by, in a word: `I2C`.
    const BY: &'static str;

    /// What is wrong with the options for this part: the option, and what.
    fn problems(&self, _about: &About) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What its parts have to share, one after the other: each has a thread.
    fn bus(&self) -> String;

    /// Where that is, to be read after the part's name and `on`.
    fn describe(&self, about: &About) -> String;

    /// The pins of a Pi that it takes.
    fn pins(&self) -> Pins {
        Pins::None
    }

    /// Opens the way to the part.
    fn link(&self, about: &About, hardware: &Hardware) -> Result<Self::Link, Trouble>;

    /// Opens a simulated part.
    fn simulate<P: Part<Place = Self>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble>;
}

/// Pins that a sensor is read over; those of buses by their BCM numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    None,
    /// It surely is.
    Taken(&'static [u8]),
    /// It may be: the kernel knows over which bus.
    MayBe(&'static [u8]),
    /// They are its own, shared with nobody: the option that names each, and the pin.
    Own([(&'static str, Pin); 2]),
}
