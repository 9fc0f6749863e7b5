//! `tidegate outbox show`: the totals, beside a running process and after it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json};

use super::super::{Failure, Outcome, settings};
use super::Place;
use crate::config::Config;
use crate::flow::Diagnostic;
use crate::{control_socket, outbox};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print one flat JSON object of integers
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.place.config.as_deref())?;
    let path = directory(&config, &diagnostics)?;
    let (totals, is_running) = totals(path)?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", Json::Object(totals))?;
    } else {
        let state = if is_running {
            "in use by a running tidegate"
        } else {
            "at rest"
        };
        writeln!(out, "outbox {} ({state})", path.display())?;
        for (name, number) in &totals {
            writeln!(out, "{name:>24} {number}")?;
        }
    }
    Ok(Outcome::Good)
}

/// Where the outbox is, if the settings leave no doubt.
pub(in super::super) fn directory<'a>(
    config: &'a Config,
    diagnostics: &[Diagnostic],
) -> Result<&'a Path, Failure> {
    if config.is_identity_wrong {
        let problems: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        return Err(format!(
            "the settings leave it open where the outbox is:\n{}",
            problems.join("\n")
        )
        .into());
    }
    Ok(&config.outbox.path)
}

/// How long a process that has the outbox may take to say so: it starts, or stops.
const PATIENCE: Duration = Duration::from_secs(3);

/// The totals, and whether they are those of a running process.
fn totals(path: &Path) -> Result<(Map<String, Json>, bool), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(totals) = totals_of_running(path)? {
            return Ok((totals, true));
        }
        match totals_at_rest(path) {
            Err(failure) if is_in_use(&failure) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            totals => return Ok((totals?, false)),
        }
    }
}

fn is_in_use(failure: &Failure) -> bool {
    matches!(
        failure.downcast_ref(),
        Some(outbox::OpenError::InUse { .. })
    )
}

fn totals_of_running(path: &Path) -> Result<Option<Map<String, Json>>, Failure> {
    let Some(line) = control_socket::ask(path, "totals")? else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_str(&line)?))
}

fn totals_at_rest(path: &Path) -> Result<Map<String, Json>, Failure> {
    if !path.exists() {
        let path = path.display();
        return Err(format!(
            "there is no outbox at {path}; it is made when `tidegate run` first starts"
        )
        .into());
    }
    match serde_json::to_value(outbox::inspect(path)?)? {
        Json::Object(totals) => Ok(totals),
        other => Err(format!("the ledger is no object: {other}").into()),
    }
}
