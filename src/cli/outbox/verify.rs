//! `tidegate outbox verify`.

use std::io::{self, Write};
use std::path::PathBuf;

use super::super::{Failure, Outcome, grouped, settings};
use super::manners::with_manners;
use super::{Place, directory};
use crate::outbox::care::{Care, Verdict};

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Copy generations to this directory to open them there. Default: a directory `scratch` in the outbox, which goes again
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.place.config.as_deref())?;
    let path = directory(&config, &diagnostics)?;
    let care = Care::to_read(path, arguments.scratch.as_deref())?;
    let verdict = with_manners(|watch| care.verify(watch))?;
    let mut out = io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
    } else {
        describe(&verdict, &mut out)?;
    }
    Ok(if verdict.is_sound {
        Outcome::Good
    } else {
        Outcome::Bad
    })
}

fn describe(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    let records: u64 = verdict.generations.iter().map(|one| one.records).sum();
    let bytes: u64 = verdict.generations.iter().map(|one| one.bytes).sum();
    let state = if verdict.is_sound { "good" } else { "damaged" };
    writeln!(out, "outbox {}: {state}", verdict.path.display())?;
    let count = |number: usize, noun: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {noun}{plural}")
    };
    writeln!(
        out,
        "  {} of {} bytes with {} intact records; epoch {}",
        count(verdict.generations.len(), "generation"),
        grouped(bytes),
        grouped(records),
        verdict.epoch
    )?;
    writeln!(
        out,
        "  {} records wait for delivery",
        grouped(verdict.waiting)
    )?;
    for problem in &verdict.problems {
        writeln!(out, "  ! {problem}")?;
    }
    let aside = &verdict.set_aside;
    if aside.bytes > 0 {
        writeln!(
            out,
            "  damaged/ holds {} and {} ({} bytes), which count as lost already: `outbox repair --damaged` takes back \
             what can be read, `outbox export --all` shows it",
            count(aside.generations as usize, "generation"),
            count(aside.groups as usize, "group"),
            grouped(aside.bytes)
        )?;
    }
    if !verdict.is_sound {
        writeln!(
            out,
            "`tidegate outbox repair --dry-run` says what can be done. A start of Tidegate also goes on with what can be read"
        )?;
    }
    Ok(())
}
