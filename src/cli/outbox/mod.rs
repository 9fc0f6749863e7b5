//! `tidegate outbox`: a look into the outbox, beside a running process and after it, and the care of one at rest.

mod export;
mod manners;
mod mend;
mod show;
mod verify;

use std::path::PathBuf;

use super::{Failure, Outcome};

pub(super) use show::directory;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show what the outbox holds and what became of everything it accepted
    Show(show::Arguments),
    /// Check everything in the outbox without changing it; exit code 1 if something is damaged or missing
    Verify(verify::Arguments),
    /// Write the records still to be delivered as JSON Lines; the outbox stays as it is
    Export(export::Arguments),
    /// Put a damaged outbox right; what is damaged is kept in damaged/
    Repair(mend::RepairArguments),
    /// Give up records that are still to be delivered; without --yes it says only what it would do
    Drop(mend::DropArguments),
}

#[derive(clap::Args)]
struct Place {
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    match &arguments.action {
        Action::Show(arguments) => show::run(arguments),
        Action::Verify(arguments) => verify::run(arguments),
        Action::Export(arguments) => export::run(arguments),
        Action::Repair(arguments) => mend::repair(arguments),
        Action::Drop(arguments) => mend::drop(arguments),
    }
}
