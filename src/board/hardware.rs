//! A board of real pins: inputs through the kernel, outputs as the kind of board takes them.

use super::edges::Edges;
use super::kernel::Chip;
use super::pulses::{self, Lines};
use super::{Board, BoardError, Drive, EdgeSink, Level, Pin, Pull};
use crate::runtime::clock::Clock;
use crate::runtime::realtime::Realtime;
use crate::sensors::i2c::Wires;
use crate::sensors::{self, Sensor, SensorSpec};

/// How outputs are taken and driven.
pub(super) trait Outputs: Send {
    type Line: pulses::Line;

    /// The kind of board, in the word that the settings use.
    fn name(&self) -> &'static str;

    /// Makes a line an output that nobody else has, at this level from its first moment on.
    fn take(&mut self, chip: &Chip, pin: Pin, level: Level) -> Result<Self::Line, BoardError>;

    /// How the lines of an I2C bus are taken from its controller; by default they are not.
    fn wires(&self) -> fn(u8) -> Option<Box<dyn Wires>> {
        |_| None
    }
}

pub(super) struct Hardware<O: Outputs> {
    taking: O,
    outputs: Lines<O::Line>,
    edges: Edges<Chip>,
    /// The machine, for people.
    model: String,
}

impl<O: Outputs> Hardware<O> {
    pub(super) fn new(taking: O, chip: Chip, model: String, clock: &Clock) -> Hardware<O> {
        Hardware {
            taking,
            outputs: Lines::new(clock),
            edges: Edges::new(chip, clock),
            model,
        }
    }
}

impl<O: Outputs> Board for Hardware<O> {
    fn name(&self) -> &'static str {
        self.taking.name()
    }

    fn describe(&self) -> String {
        let (name, chip) = (self.name(), self.edges.lines().describe());
        format!("{name}, {}; edges from {chip}", self.model)
    }

    fn set_realtime(&mut self, realtime: Realtime) {
        self.edges.set_realtime(realtime);
    }

    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        if !self.outputs.contains(pin) {
            self.edges.close(pin);
            let level = drive.level().unwrap_or(Level::Low);
            let line = self.taking.take(self.edges.lines(), pin, level)?;
            self.outputs.insert(pin, line);
        }
        self.outputs.drive(pin, drive)
    }

    fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        self.outputs.remove(pin);
        self.edges.arm(pin, pull, edges)
    }

    fn close_input(&mut self, pin: Pin) {
        self.edges.close(pin);
    }

    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        Ok(spec.open(&sensors::Hardware {
            wires: self.taking.wires(),
            ..sensors::Hardware::real()
        }))
    }

    fn recheck(&mut self) -> Result<(), BoardError> {
        let edges = self.edges.recheck();
        self.outputs.check().and(edges)
    }

    fn lost_edges(&mut self) -> u64 {
        self.edges.lost()
    }
}
