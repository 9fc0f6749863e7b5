//! The adapter to real or simulated hardware.
//!
//! [`Board`] is what the rest of Tidegate knows of it; [`open`] chooses one at run time. Levels are driven and edges handed
//! over as they are: what they mean is the flows' business.
//!
//! Must not: know flows or messages; read a clock other than the [`Clock`] it is given, and that only to stamp edges and to
//! time pulses; decide on a safe level. Whoever owns a board drives the safe levels at start and at stop: dropping a board leaves every
//! output as it was driven, and no drop runs after SIGKILL.
//!
//! Terms: a *pin* has a BCM number, as `GPIO17` on the Pi's pin-out, not its place on the header; an *edge* is one change of
//! an input's level; *arming* an input makes its edges count; the *duty* of pulses is the share of time that they are high.

mod missing;
mod pin;
mod simulated;

#[cfg(target_os = "linux")]
mod pulses;
#[cfg(target_os = "linux")]
mod rppal;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::message::Timestamp;
use crate::runtime::clock::Clock;
use crate::sensors::SensorSpec;

pub use crate::sensors::Sensor;

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

    /// Reads every armed input again, hands over the changes whose edge got lost, and mends what lost them. To be called
    /// about once a second; an error names a pin whose edges come late, not until it is mended but at each call.
    fn recheck(&mut self) -> Result<(), BoardError> {
        Ok(())
    }
}

/// Which board to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The Pi's own pins, or an error where there is no Pi: never simulated hardware.
    #[default]
    Auto,
    /// The Pi's own pins, through rppal.
    Rppal,
    /// Simulated hardware, as `simulation` describes it.
    Simulated,
}

/// Opens a board. `simulation` counts for a simulated one only.
pub fn open(
    kind: Kind,
    simulation: &Simulation,
    clock: &Clock,
) -> Result<Box<dyn Board>, BoardError> {
    match kind {
        Kind::Auto => {
            raspberry_pi(Path::new("/proc/device-tree"))
                .map_err(|reason| BoardError::NoPi { reason })?;
            open_rppal(clock)
        }
        Kind::Rppal => open_rppal(clock),
        Kind::Simulated => {
            let board = Simulated::new(simulation)?;
            Ok(Box::new(RealTime::start(board, clock)?))
        }
    }
}

#[cfg(target_os = "linux")]
fn open_rppal(clock: &Clock) -> Result<Box<dyn Board>, BoardError> {
    Ok(Box::new(rppal::Rppal::new(clock)?))
}

#[cfg(not(target_os = "linux"))]
fn open_rppal(_clock: &Clock) -> Result<Box<dyn Board>, BoardError> {
    Err(BoardError::NoPi {
        reason: "this is not Linux".to_owned(),
    })
}

/// The model of this Raspberry Pi, or why we think that it is none. `device_tree` is /proc/device-tree.
fn raspberry_pi(device_tree: &Path) -> Result<String, String> {
    let read = |file: &str| {
        let text = fs::read_to_string(device_tree.join(file)).ok()?;
        Some(text.trim_end_matches('\0').replace('\0', ", "))
    };
    let (model, compatible) = (read("model"), read("compatible"));
    if compatible
        .as_ref()
        .is_some_and(|c| c.contains("raspberrypi"))
        || model.as_ref().is_some_and(|m| m.contains("Raspberry Pi"))
    {
        return Ok(model.or(compatible).unwrap_or_default());
    }
    Err(match model.or(compatible) {
        Some(other) => format!("{} says `{other}`", device_tree.display()),
        None => format!(
            "{} has neither a readable model nor compatible",
            device_tree.display()
        ),
    })
}

/// Why a board could not do it.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error(
        "no Raspberry Pi found: {reason}; to run without its hardware set `kind = \"simulated\"` under [board] in tidegate.toml"
    )]
    NoPi { reason: String },
    #[error(
        "no permission to use the Pi's pins: {path} refuses; {}",
        permission_remedy(path)
    )]
    Permission { path: String },
    #[error(
        "cannot reach the Pi's pins: neither /dev/gpiomem (on a Pi 5 /dev/gpiomem0) nor a /dev/gpiochip of the Pi can be used; \
         a Pi newer than the 5 is not known to this board"
    )]
    Unreachable { source: Source },
    #[error(
        "{pin} is in use by another program or driver; `gpioinfo` names it, and an overlay in /boot/firmware/config.txt may hold it"
    )]
    Busy { pin: Pin, source: Source },
    #[error("cannot use {pin} as an {direction}")]
    Pin {
        pin: Pin,
        direction: &'static str,
        source: Source,
    },
    #[error(
        "the interrupt of {pin} had died, so its edges were found late, by reading the pin again; it was armed anew"
    )]
    EdgesLost { pin: Pin, source: Source },
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

type Source = Box<dyn Error + Send + Sync>;

fn permission_remedy(path: &str) -> &'static str {
    if path == "/dev/mem" {
        "there is no /dev/gpiomem (on a Pi 5 /dev/gpiomem0), which Raspberry Pi OS has: use its kernel"
    } else {
        "add the user to the group `gpio` (`sudo usermod -aG gpio USER`) and log in again, or give the service \
         `SupplementaryGroups=gpio`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pi_is_told_by_its_device_tree_and_everything_else_with_the_reason() {
        let check = |files: &[(&str, &str)], expected: Result<&str, &str>| {
            let root = tempfile::tempdir().unwrap();
            for (file, content) in files {
                fs::write(root.path().join(file), content).unwrap();
            }
            match (raspberry_pi(root.path()), expected) {
                (Ok(model), Ok(expected)) => assert_eq!(model, expected),
                (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
                (found, _) => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(
            &[("model", "Raspberry Pi 4 Model B Rev 1.5\0")],
            Ok("Raspberry Pi 4 Model B Rev 1.5"),
        );
        check(
            &[("compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0")],
            Ok("raspberrypi,5-model-b, brcm,bcm2712"),
        );
        check(&[("model", "Pine64 RockPro64\0")], Err("Pine64 RockPro64"));
        check(&[], Err("neither a readable model"));
    }

    #[test]
    fn errors_name_the_remedy() {
        let check = |error: BoardError, expected: &str| {
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(
            BoardError::NoPi {
                reason: "test".to_owned(),
            },
            "kind = \"simulated\"",
        );
        check(
            BoardError::Permission {
                path: "/dev/gpiomem".to_owned(),
            },
            "group `gpio`",
        );
        check(
            BoardError::Permission {
                path: "/dev/mem".to_owned(),
            },
            "no /dev/gpiomem",
        );
    }

    #[test]
    fn a_simulated_board_is_opened_only_when_asked_for() {
        let board = open(Kind::Simulated, &Simulation::default(), &Clock::start()).unwrap();
        assert_eq!(board.name(), "simulated");
        // Wherever the tests run, `auto` gives a Pi or an error.
        match open(Kind::Auto, &Simulation::default(), &Clock::start()) {
            Ok(board) => assert_eq!(board.name(), "rppal"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
