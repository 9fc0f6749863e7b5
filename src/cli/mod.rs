//! The commands: arguments in, exit code out.
//!
//! Exit codes: 0 good, 1 the thing asked about is bad, 2 wrong usage. `--json` makes stdout JSON only. What people should
//! know about goes to stderr.

mod certs;
mod check;
mod demo;
mod graph;
mod nodes;
mod outbox;
mod replay;
mod run;
mod safe;
mod schema;
mod sensors;
mod tap;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::runtime::driver::chain;

const CONFIG: &str = "tidegate.toml";

/// Sensors to cloud on a Raspberry Pi: flows, local control, and an outbox that does not forget.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything at work: simulated sensors, flows, an outage of the link, a cloud broker; no set-up needed
    Demo(demo::Arguments),
    /// Run the flows of this device until SIGTERM or Ctrl-C
    Run(run::Arguments),
    /// Drive every output pin of the flows to its safe level, and end: for after a `run` that was killed
    Safe(safe::Arguments),
    /// Check flow files and settings; report all problems
    Check(check::Arguments),
    /// Run the tests of flows (NAME.test.toml), in virtual time
    Test(test::Arguments),
    /// Run recorded data through a flow, in the time of the data, and write what comes out
    Replay(replay::Arguments),
    /// Make development certificates, or show what a certificate holds
    Certs(certs::Arguments),
    /// Look into the outbox
    Outbox(outbox::Arguments),
    /// Watch what a node of the running flows sends
    Tap(tap::Arguments),
    /// Draw a flow: as Mermaid, or as SVG
    Graph(graph::Arguments),
    /// Show what is attached that can be measured
    Sensors(sensors::Arguments),
    /// List the node types, or describe one
    Nodes(nodes::Arguments),
    /// Print the JSON Schema of flow files, for editors: a flow names it with `#:schema ./flow.schema.json`
    Schema(schema::Arguments),
}

/// How a command ended, when nothing kept it from doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    /// What was asked about is bad; it has been said how.
    Bad,
}

/// What kept a command from doing its work, with its causes.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Safe(arguments) => safe::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Outbox(arguments) => outbox::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Nodes(arguments) => nodes::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Sensors(arguments) => sensors::run(&arguments),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::FAILURE,
        Err(failure) if is_closed_pipe(failure.as_ref()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {}", chain(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// `tidegate nodes | head` is no error.
fn is_closed_pipe(failure: &(dyn std::error::Error + 'static)) -> bool {
    failure
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The settings file that was named, or `tidegate.toml` here if there is one, or all defaults.
fn settings(named: Option<&Path>) -> Result<(Config, Vec<crate::flow::Diagnostic>), Failure> {
    let path = named.map_or_else(|| PathBuf::from(CONFIG), PathBuf::from);
    let (mut config, diagnostics) = if named.is_none() && !path.exists() {
        (Config::default(), Vec::new())
    } else {
        config::load(&path)?
    };
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    config.add_environment(std::env::vars_os().filter_map(text));
    Ok((config, diagnostics))
}

/// A whole number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
