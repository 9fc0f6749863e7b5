//! `tidegate safe`: every output pin of the flows at its safe level, and nothing else.
//!
//! It is for the time after a `run` that was killed: nobody drove the safe levels then, and the pins stay as they were. systemd
//! calls it as `ExecStopPost=`. What ran may not be what the flow files say now, so the last good copies count too: also those of
//! flows whose file is bad, changed or gone. Whatever is wrong with one flow, file or pin, the other pins are driven.
//!
//! Must not: touch a pin while a tidegate runs; change what is kept for the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, Outcome, settings};
use crate::board::{Board, BoardError, Level, Pin};
use crate::config::Config;
use crate::control_socket::{self, AskError};
use crate::device;
use crate::flow::{Graph, Site, directory};
use crate::nodes::Use;
use crate::runtime::Clock;
use crate::runtime::driver::chain;
use crate::state_files::{StateDirectory, StateFileError};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, _) = settings(arguments.config.as_deref())?;
    if config.is_board_wrong {
        return Err("[board] of the settings is wrong, so no pin is touched; correct it".into());
    }
    let mut state = StateDirectory::at(&config.state.path);
    claim_pins(&config, &mut state)?;

    let mut is_good = true;
    let mut warn = |problem: &str| {
        eprintln!("tidegate: {problem}");
        is_good = false;
    };
    let variables = |flow: &str| config.variables_for(flow);
    let site = Site::load(&config.flows.path, variables).unwrap_or_else(|error| {
        warn(&chain(&error));
        Site::default()
    });
    let copies = if config.is_state_wrong {
        Vec::new()
    } else {
        copies(&state, &config, &mut warn)
    };
    for path in never_run(&site, &copies) {
        eprintln!(
            "tidegate: {path} is wrong and has not run, so its pins are not touched; `tidegate check` says what is wrong"
        );
    }
    let levels = safe_levels(&site.flows, &copies);
    let mut out = std::io::stdout();
    if levels.is_empty() {
        writeln!(out, "no flow drives a pin")?;
    } else {
        let mut board = device::open_board(&config.board, &Clock::start());
        for (pin, level, result) in drive(board.as_mut(), levels) {
            match result {
                Ok(()) => writeln!(out, "{pin} is {level}")?,
                Err(error) => warn(&format!(
                    "{pin} is NOT known to be at its safe level, which is {level}: {}",
                    chain(&error)
                )),
            }
        }
    }
    Ok(if is_good { Outcome::Good } else { Outcome::Bad })
}

/// Makes sure that nobody else drives the pins. Who only looks into the outbox may; a disk that cannot be used keeps nobody from
/// making them safe.
fn claim_pins(config: &Config, state: &mut StateDirectory) -> Result<(), Failure> {
    // Nothing is made here: it may not be this user's to make.
    let has_state = !config.is_state_wrong
        && state.path().is_dir()
        && matches!(state.claim(), Err(StateFileError::InUse { .. }));
    if has_state || (!config.is_identity_wrong && answers(&config.outbox.path)?) {
        return Err(
            "a tidegate runs with these settings and drives the pins, so none is touched; to make them safe, stop it: \
             `sudo systemctl stop tidegate`, or SIGTERM"
                .into(),
        );
    }
    Ok(())
}

/// Whether a tidegate has this outbox open, be it stuck.
fn answers(outbox: &Path) -> Result<bool, AskError> {
    use std::io::ErrorKind::{ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match control_socket::ask(outbox, "totals") {
        Ok(answer) => Ok(answer.is_some()),
        Err(error @ AskError::Permission { .. }) => Err(error),
        Err(AskError::NoAnswer { source, .. }) => Ok(matches!(
            source.kind(),
            ConnectionReset | TimedOut | UnexpectedEof | WouldBlock
        )),
    }
}

/// The last good copies of all flows, also of those that have no file any more.
fn copies(state: &StateDirectory, config: &Config, warn: &mut impl FnMut(&str)) -> Vec<Arc<Graph>> {
    let mut flows = Vec::new();
    for name in state.copies() {
        match state.copy_of(&name) {
            Ok(Some((_, text))) => {
                // Each by itself: two that do not fit together have both run, at different times.
                let site = Site::from_texts([(name.as_str(), text.as_str())], |flow| {
                    config.variables_for(flow)
                });
                flows.extend(site.flows);
            }
            Ok(None) => {}
            Err(error) => warn(&chain(&error)),
        }
    }
    flows
}

/// The flow files that are bad and have no copy: their flows have driven nothing that could be left.
fn never_run(site: &Site, copies: &[Arc<Graph>]) -> BTreeSet<String> {
    let has_run = |name: &str| {
        let mut flows = site.flows.iter().chain(copies);
        flows.any(|flow| **flow.name() == *name)
    };
    let errors = site.diagnostics.iter().filter(|it| it.is_error());
    errors
        .map(|error| error.source.path.clone())
        .filter(|path| !has_run(&directory::flow_name(Path::new(path))))
        .collect()
}

/// The safe level of each pin that a flow drives, or drove when it ran last. The files say what is wired now: their levels go
/// before those of the copies, and a pin that they read is not driven.
fn safe_levels(files: &[Arc<Graph>], copies: &[Arc<Graph>]) -> BTreeMap<Pin, Level> {
    let inputs: BTreeSet<Pin> = files
        .iter()
        .flat_map(|flow| flow.uses())
        .filter_map(|(_, needed)| match needed {
            Use::Input { pin, .. } => Some(*pin),
            _ => None,
        })
        .collect();
    let mut levels = BTreeMap::new();
    for (pin, level) in files.iter().chain(copies).flat_map(|flow| flow.outputs()) {
        if !inputs.contains(&pin) {
            levels.entry(pin).or_insert(level);
        }
    }
    levels
}

type Driven = (Pin, Level, Result<(), BoardError>);

/// Drives each pin, whatever became of the others.
fn drive(board: &mut dyn Board, levels: BTreeMap<Pin, Level>) -> Vec<Driven> {
    levels
        .into_iter()
        .map(|(pin, level)| (pin, level, board.output(pin, level.into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Drive, EdgeSink, Missing, Pull, Sensor, Simulated, Simulation};
    use crate::sensors::SensorSpec;

    fn pin(number: u8) -> Pin {
        Pin::new(number).unwrap()
    }

    /// Flows that drive pins to safe levels, and one that reads one: `17 low`, `22 in`.
    fn flows(uses: &[&str]) -> Vec<Arc<Graph>> {
        let texts = uses.iter().enumerate().map(|(place, used)| {
            let text = match used.split_once(' ').unwrap() {
                (pin, "in") => format!("[nodes.a]\ntype = 'gpio in'\npin = {pin}\n[nodes.b]\ntype = 'debug'\nfrom = 'a'"),
                (pin, safe) => format!(
                    "[nodes.a]\ntype = 'inject'\nevery = '1s'\npayload = true\n[nodes.b]\ntype = 'gpio out'\nfrom = 'a'\npin = {pin}\nsafe = '{safe}'"
                ),
            };
            (format!("flow{place}"), text)
        });
        let texts: Vec<(String, String)> = texts.collect();
        let site = Site::from_texts(
            texts
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str())),
            |_| Default::default(),
        );
        assert!(!site.has_errors(), "{:?}", site.diagnostics);
        site.flows
    }

    #[test]
    fn files_count_and_copies_where_no_file_says_something_else_of_the_pin() {
        let check = |files: &[&str], copies: &[&str], expected: &[(u8, Level)]| {
            let found = safe_levels(&flows(files), &flows(copies));
            let expected = expected.iter().map(|&(number, level)| (pin(number), level));
            assert_eq!(found, expected.collect(), "{files:?} {copies:?}");
        };
        check(&[], &[], &[]);
        check(
            &["17 low", "27 high"],
            &[],
            &[(17, Level::Low), (27, Level::High)],
        );
        check(
            &["17 low"],
            &["27 high"],
            &[(17, Level::Low), (27, Level::High)],
        );
        check(&["17 low"], &["17 high"], &[(17, Level::Low)]);
        check(&["22 in"], &["22 high", "17 high"], &[(17, Level::High)]);
    }

    #[test]
    fn pins_are_driven_to_their_levels() {
        let mut board = Simulated::new(&Simulation::default()).unwrap();
        board.output(pin(17), Level::High.into()).unwrap();
        let outputs = board.outputs();
        let driven = drive(&mut board, safe_levels(&flows(&["17 low", "27 high"]), &[]));
        assert!(
            driven.iter().all(|(.., result)| result.is_ok()),
            "{driven:?}"
        );
        assert_eq!(outputs.level(pin(17)), Some(Level::Low));
        assert_eq!(outputs.level(pin(27)), Some(Level::High));
    }

    /// A board on which one pin cannot be used.
    struct WithBusy(Simulated, Pin);

    impl Board for WithBusy {
        fn name(&self) -> &'static str {
            "busy"
        }
        fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
            if pin == self.1 {
                return Missing::new("busy".to_owned()).output(pin, drive);
            }
            self.0.output(pin, drive)
        }
        fn input(&mut self, pin: Pin, pull: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
            self.0.input(pin, pull, edges)
        }
        fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
            self.0.sensor(spec)
        }
    }

    #[test]
    fn a_pin_that_fails_keeps_no_other_from_its_level() {
        let mut board = WithBusy(Simulated::new(&Simulation::default()).unwrap(), pin(17));
        let outputs = board.0.outputs();
        let driven = drive(&mut board, safe_levels(&flows(&["17 low", "27 high"]), &[]));
        let failed: Vec<Pin> = driven
            .iter()
            .filter(|(.., result)| result.is_err())
            .map(|(pin, ..)| *pin)
            .collect();
        assert_eq!(failed, [pin(17)]);
        assert_eq!(outputs.level(pin(27)), Some(Level::High));
    }
}
