//! The board that could not be opened: it answers every use with the reason.

use super::{Board, BoardError, Drive, EdgeSink, Level, Pin, Pull};
use crate::sensors::{Hardware, Sensor, SensorSpec};

/// In the place of a board that is not there, so that flows which need none run all the same.
pub struct Missing {
    reason: String,
}

impl Missing {
    pub fn new(reason: String) -> Missing {
        Missing { reason }
    }

    fn error(&self) -> BoardError {
        BoardError::Missing {
            reason: self.reason.clone(),
        }
    }
}

impl Board for Missing {
    fn name(&self) -> &'static str {
        "missing"
    }

    fn output(&mut self, _: Pin, _: Drive) -> Result<(), BoardError> {
        Err(self.error())
    }

    fn input(&mut self, _: Pin, _: Pull, _: EdgeSink) -> Result<Level, BoardError> {
        Err(self.error())
    }

    /// Sensors need no pins of ours: where they can be reached at all, they can without a board.
    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        Ok(spec.open(&Hardware::real()))
    }
}
