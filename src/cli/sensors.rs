//! `tidegate sensors`: what can be read, and what is attached.

use std::io::Write;

use super::{Failure, Outcome};
use crate::reference;
use crate::sensors::Hardware;
use crate::sensors::survey::survey;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print the page of all parts that can be read, as Markdown
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.markdown {
        write!(std::io::stdout(), "{}", reference::sensors::markdown())?;
        return Ok(Outcome::Good);
    }
    let mut out = std::io::stdout();
    let found = survey(&Hardware::real());
    if found.is_empty() {
        writeln!(
            out,
            "nothing is attached that the kernel shows; docs/sensors.md says for each part how it is wired and set up"
        )?;
    }
    for finding in found {
        writeln!(out, "{}", finding.name)?;
        for line in finding.toml.iter().flat_map(|toml| toml.lines()) {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(Outcome::Good)
}
