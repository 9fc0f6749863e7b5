//! The adapter to real or simulated hardware.
//!
//! [`Board`] is what the rest of Tidegate knows of it; [`open()`] chooses one at run time. Levels are driven and edges handed
//! over as they are: what they mean is the flows' business.
//!
//! Must not: know flows or messages; read a clock other than the [`Clock`] it is given, and that only to stamp edges and to
//! time pulses (the kernel's, which stamps edges on real pins, is that clock: see `edges/stamps.rs`); decide on a safe level. Whoever owns a board drives the safe levels at start and at stop: dropping a board leaves every
//! output as it was driven, and no drop runs after SIGKILL.
//!
//! Terms: a *pin* has a BCM number, as `GPIO17` on the Pi's pin-out, not its place on the header; an *edge* is one change of
//! an input's level; *arming* an input makes its edges count; the *duty* of pulses is the share of time that they are high.

mod error;
mod missing;
mod pin;
mod simulated;

#[cfg(target_os = "linux")]
mod claim;
#[cfg(target_os = "linux")]
mod edges;
#[cfg(target_os = "linux")]
mod hardware;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod open;
#[cfg(target_os = "linux")]
mod pulses;
#[cfg(target_os = "linux")]
mod rppal;

use std::sync::Arc;

use serde::Deserialize;

use crate::message::Timestamp;
use crate::runtime::clock::Clock;
use crate::runtime::realtime::Realtime;
pub use crate::sensors::Sensor;
use crate::sensors::SensorSpec;

#[cfg(target_os = "linux")]
use self::open::open_real;
pub use error::BoardError;
pub use missing::Missing;
pub use pin::{BadPin, Drive, Level, Pin, Pull, Pulses};
pub use simulated::{Outputs, RealTime, Signal, Simulated, Simulation};

/// A change of an input's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub pin: Pin,
    /// The level after the edge.
    pub level: Level,
    pub time: Timestamp,
}

/// Where edges go. It is called on the board's thread: it hands over and returns. It must not block, nor wait for
/// whoever may be dropping the board or arming one of its inputs, for they wait for it.
pub type EdgeSink = Arc<dyn Fn(Edge) + Send + Sync>;

/// The hardware that flows can reach.
pub trait Board: Send {
    /// The kind, in the word that the settings use.
    fn name(&self) -> &'static str;

    /// The kind, with what it was found on and where its edges come from, in a line for people.
    fn describe(&self) -> String {
        self.name().to_owned()
    }

    /// What the threads get that take edges; to be called before an input is armed.
    fn set_realtime(&mut self, _: Realtime) {}

    /// Drives an output. On first use the pin becomes an output that has this level from its first moment on, or is low
    /// before its first pulse. A level holds from the moment this returns, whatever pulses were there before.
    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError>;

    /// Arms an input, and then reads its level once and returns it: an edge may come before this returns. Doing it
    /// again replaces the sink.
    fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError>;

    /// Ends the edges of an input that nobody reads any more. An output stays as it is driven: there is no call that lets go of one.
    fn close_input(&mut self, _pin: Pin) {}

    /// Opens a sensor. It need not be there yet; its readings tell.
    fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError>;

    /// Mends what died of the armed inputs, and tells of one trouble since the last call: edges that were lost or came late. To be
    /// called about once a second.
    fn recheck(&mut self) -> Result<(), BoardError> {
        Ok(())
    }

    /// How many edges of armed inputs were lost since the last call, because they came faster than they were read. Those that a sink has no
    /// room for are its own to count.
    fn lost_edges(&mut self) -> u64 {
        0
    }
}

/// Which board to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The Pi's own pins, or an error where there is no Pi: never simulated hardware, nor another board's pins.
    #[default]
    Auto,
    /// The Pi's own pins: levels through its registers, by rppal.
    Rppal,
    /// The lines of a GPIO chip of any Linux board, all through the kernel.
    Chardev,
    /// Simulated hardware, as `simulation` describes it.
    Simulated,
}

/// Opens a board. `chip` counts for `chardev` only, `simulation` for a simulated one only.
pub fn open(
    kind: Kind,
    chip: Option<&str>,
    simulation: &Simulation,
    clock: &Clock,
) -> Result<Box<dyn Board>, BoardError> {
    if chip.is_some() && kind != Kind::Chardev {
        tracing::warn!(
            "`chip` under [board] of the settings counts with `kind = \"chardev\"` only"
        );
    }
    if kind == Kind::Simulated {
        let board = Simulated::new(simulation)?;
        return Ok(Box::new(RealTime::start(board, clock)?));
    }
    open_real(kind, chip, clock)
}

#[cfg(not(target_os = "linux"))]
fn open_real(_: Kind, _: Option<&str>, _: &Clock) -> Result<Box<dyn Board>, BoardError> {
    Err(BoardError::NoPi {
        reason: "this is not Linux".to_owned(),
        chips: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_board_is_opened_only_when_asked_for() {
        let open = |kind| open(kind, None, &Simulation::default(), &Clock::start());
        let board = open(Kind::Simulated).unwrap();
        assert_eq!(
            (board.name(), board.describe()),
            ("simulated", "simulated".to_owned())
        );
        // Wherever the tests run, `auto` gives real pins or an error.
        match open(Kind::Auto) {
            Ok(board) => assert!(["rppal", "chardev"].contains(&board.name())),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
