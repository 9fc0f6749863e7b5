//! `tidegate graph`: a picture of a flow.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Failure, Outcome, settings};
use crate::config::Config;
use crate::flow::Site;
use crate::picture::{Picture, mermaid, svg};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The flow: a file, or the name of one among those of the settings file
    #[arg(value_name = "FLOW")]
    flow: PathBuf,
    /// Write an SVG to this file, `-` for stdout, in the place of Mermaid
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, _) = settings(arguments.config.as_deref())?;
    let file = file_of(&arguments.flow, &config)?;
    let site = Site::load(&file, |flow| config.variables_for(flow))?;
    let Some(flow) = site.flows.first() else {
        for diagnostic in &site.diagnostics {
            // Stdout is for the picture, which goes into a file.
            eprintln!("{}\n", diagnostic.render(false));
        }
        return Ok(Outcome::Bad);
    };
    let picture = Picture::of(flow);
    match &arguments.svg {
        None => write!(std::io::stdout(), "{}", mermaid::write(&picture))?,
        Some(file) => {
            let svg = svg::write(&picture)?;
            if file == Path::new("-") {
                write!(std::io::stdout(), "{svg}")?;
            } else {
                std::fs::write(file, svg)
                    .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            }
        }
    }
    Ok(Outcome::Good)
}

/// A path if there is such a file, else the flow of that name.
fn file_of(flow: &Path, config: &Config) -> Result<PathBuf, Failure> {
    if flow.is_file() {
        return Ok(flow.to_path_buf());
    }
    if flow.is_dir() {
        return Err(format!(
            "{} is a directory; name one flow file in it",
            flow.display()
        )
        .into());
    }
    let named = config.flows.path.join(format!("{}.toml", flow.display()));
    if named.is_file() {
        return Ok(named);
    }
    Err(format!(
        "there is no flow {}, neither as a file nor as {}",
        flow.display(),
        named.display()
    )
    .into())
}
