//! `tidegate outbox repair` and `tidegate outbox drop`: what changes an outbox at rest.

use std::io::{self, Write};

use super::super::{Failure, Outcome, grouped, settings};
use super::manners::with_manners;
use super::{Place, directory};
use crate::message::Timestamp;
use crate::outbox::care::{Care, Dropped, Repaired, Selection};

#[derive(clap::Args)]
pub(super) struct RepairArguments {
    #[command(flatten)]
    place: Place,
    /// Also take back records that count as lost from the generations in damaged/
    #[arg(long)]
    damaged: bool,
    /// Say what there is to do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct DropArguments {
    #[command(flatten)]
    place: Place,
    /// Only records of before this time, such as 2026-11-23T06:00:00Z
    #[arg(long, value_name = "TIME")]
    before: Option<Timestamp>,
    /// Only records whose topic is in this MQTT filter, such as 'sites/hall/#'
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    topic: Option<String>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// An MQTT filter (MQTT 3.1.1, section 4.7.1).
fn filter(text: &str) -> Result<String, String> {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    let is_good = |(at, level): (usize, &&str)| match *level {
        "#" => at == last,
        "+" => true,
        level => !level.contains(['#', '+']),
    };
    if !text.is_empty() && levels.iter().enumerate().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("`+` stands for a whole level, `#` for all that follow, at the end only".to_owned())
    }
}

pub(super) fn repair(arguments: &RepairArguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.place.config.as_deref())?;
    let care = Care::to_write(directory(&config, &diagnostics)?)?;
    let dry_run = arguments.dry_run;
    let (repaired, recovered) = with_manners(|watch| {
        let repaired = care.repair(dry_run, watch)?;
        let recovered = if arguments.damaged {
            care.recover(dry_run, watch)?
        } else {
            0
        };
        Ok::<_, Failure>((repaired, recovered))
    })?;
    let mut out = io::stdout();
    if arguments.json {
        let mut object = serde_json::to_value(&repaired)?;
        object["recovered"] = recovered.into();
        object["dry_run"] = dry_run.into();
        writeln!(out, "{object}")?;
    } else {
        describe(&repaired, recovered, dry_run, &mut out)?;
    }
    Ok(Outcome::Good)
}

fn describe(
    repaired: &Repaired,
    recovered: u64,
    dry_run: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let before = &repaired.before;
    let path = before.path.display();
    if repaired.is_changed {
        let done = if dry_run {
            "is damaged"
        } else {
            "is put right"
        };
        writeln!(out, "outbox {path} {done}; it was found so:")?;
        for problem in &before.problems {
            writeln!(out, "  ! {problem}")?;
        }
        let (kept, lost) = if dry_run {
            ("would be kept", "would be counted")
        } else {
            ("are kept", "are counted")
        };
        writeln!(
            out,
            "  {} bytes {kept} in damaged/ as they were; {} records are lost and {lost} as dropped_damaged",
            grouped(repaired.kept_aside),
            grouped(repaired.lost)
        )?;
        if dry_run {
            let room = grouped(repaired.room);
            writeln!(
                out,
                "  while it works it needs up to {room} bytes of room on this disk"
            )?;
        }
    } else {
        writeln!(out, "outbox {path} is good: there is nothing to repair")?;
    }
    if recovered > 0 {
        let done = if dry_run { "can be taken" } else { "are taken" };
        let recovered = grouped(recovered);
        writeln!(out, "  {recovered} records {done} back from damaged/")?;
    }
    let waiting = grouped(before.waiting + if dry_run { 0 } else { recovered });
    writeln!(out, "  {waiting} records wait for delivery")
}

pub(super) fn drop(arguments: &DropArguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.place.config.as_deref())?;
    let care = Care::to_write(directory(&config, &diagnostics)?)?;
    let selection = Selection {
        before: arguments.before,
        topic: arguments.topic.clone(),
    };
    let dropped = with_manners(|watch| care.drop_records(&selection, !arguments.yes, watch))?;
    let Dropped {
        records,
        payload_bytes,
        times,
        left,
    } = dropped;
    let (records, bytes, left) = (grouped(records), grouped(payload_bytes), grouped(left));
    let span = times.map_or(String::new(), |(first, last)| {
        format!(", from {first} to {last}")
    });
    let mut out = io::stdout();
    if arguments.yes {
        writeln!(
            out,
            "{records} records of {bytes} bytes{span} are dropped; {left} are left"
        )?;
        writeln!(out, "their room is given back when Tidegate runs again")?;
    } else {
        writeln!(
            out,
            "{records} records of {bytes} bytes{span} would be dropped; {left} would be left"
        )?;
        writeln!(out, "nothing was changed; `--yes` does it")?;
    }
    Ok(Outcome::Good)
}
