//! `tidegate schema`: the JSON Schema of flow files, for editors.

use std::io::Write;

use super::{Failure, Outcome};
use crate::reference;

#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<Outcome, Failure> {
    let schema = serde_json::to_string_pretty(&reference::flow_schema())?;
    writeln!(std::io::stdout(), "{schema}")?;
    Ok(Outcome::Good)
}
