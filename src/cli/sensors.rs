//! `tidegate sensors`: what can be read, and what is attached.

use std::io::Write;

use super::{Failure, Outcome};
use crate::reference;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print the page of all parts that can be read, as Markdown
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.markdown {
        write!(std::io::stdout(), "{}", reference::sensors::markdown())?;
    }
    Ok(Outcome::Good)
}
