//! `tidegate check`: everything that is wrong in settings and flows, at once.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;

use super::{CONFIG, Failure, Outcome, grouped, settings};
use crate::flow::estimate::Estimate;
use crate::flow::{Diagnostic, Severity, Site};
use crate::runtime::driver::chain;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Flow files, or directories of them. Without any: those of the settings file, and the settings file itself
    paths: Vec<PathBuf>,
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the problems as a JSON array
    #[arg(long)]
    json: bool,
    /// Print what each valid flow will send and write in a day, at most, and no problems
    #[arg(long)]
    estimates: bool,
}

/// More problems than this are not shown with their lines; nobody reads them.
const MOST_SHOWN: usize = 100;

/// A problem as `--json` prints it.
#[derive(Serialize)]
struct Problem<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    severity: &'static str,
    message: &'a str,
    help: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, of_settings) = match settings(arguments.config.as_deref()) {
        Err(failure) if arguments.json => {
            let file = arguments.config.as_deref().unwrap_or(Path::new(CONFIG));
            let problem = Problem {
                file: &file.display().to_string(),
                line: 1,
                column: 1,
                severity: "error",
                message: &chain(failure.as_ref()),
                help: None,
            };
            let json = serde_json::to_string_pretty(&[problem])?;
            writeln!(std::io::stdout(), "{json}")?;
            return Ok(Outcome::Bad);
        }
        settings => settings?,
    };
    let mut site = Site::default();
    let mut unreadable = Vec::new();
    let paths = match &arguments.paths[..] {
        [] => std::slice::from_ref(&config.flows.path),
        paths => paths,
    };
    for path in paths {
        if let Err(error) = site.load_more(path, |flow| config.variables_for(flow)) {
            unreadable.push(chain(&error));
        }
    }
    // A file alone may be linked to others that are not looked at.
    if arguments.paths.is_empty() || paths.iter().any(|path| path.is_dir()) {
        site.check_links();
    }
    if arguments.paths.is_empty() {
        config.check_limits(&mut site);
    }
    let (flows, files) = (site.flows.len(), site.files);
    let mut diagnostics = site.diagnostics;
    if arguments.paths.is_empty() {
        diagnostics.extend(of_settings);
        diagnostics.extend(config.credential_diagnostics());
        if flows == files {
            diagnostics.extend(config.unused_variables(&site.flows));
            for problem in config.unused_environment(&site.flows) {
                eprintln!("warning: {problem}");
            }
        }
    }
    for problem in &unreadable {
        eprintln!("tidegate: {problem}");
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .count();
    let estimates = site.flows.iter().map(|flow| FlowEstimate {
        flow: flow.name(),
        estimate: Estimate::of(flow),
    });
    let estimates: Vec<FlowEstimate> = estimates.collect();
    if arguments.estimates {
        if flows < files {
            eprintln!(
                "tidegate: not every flow is valid, and only valid ones are here: `tidegate check` says why"
            );
        }
        print_estimates(&estimates, arguments.json)?;
    } else if arguments.json {
        let problems: Vec<Problem> = diagnostics.iter().map(problem).collect();
        writeln!(
            std::io::stdout(),
            "{}",
            serde_json::to_string_pretty(&problems)?
        )?;
    } else {
        let color = std::io::stdout().is_terminal();
        let mut out = std::io::stdout();
        for diagnostic in diagnostics.iter().take(MOST_SHOWN) {
            writeln!(out, "{}\n", diagnostic.render(color))?;
        }
        if let Some(more) = diagnostics.len().checked_sub(MOST_SHOWN + 1) {
            writeln!(out, "... and {} more\n", more + 1)?;
        }
        print_estimates(&estimates, false)?;
        let warnings = diagnostics.len() - errors;
        let count = |number: usize, word: &str| {
            format!("{number} {word}{}", if number == 1 { "" } else { "s" })
        };
        writeln!(
            out,
            "{}: {}, {}",
            count(files, "flow"),
            count(errors, "error"),
            count(warnings, "warning")
        )?;
        if files == 0 && unreadable.is_empty() {
            writeln!(out, "no flow files (NAME.toml) in {}", display(paths))?;
        }
    }
    let is_good = errors == 0 && flows == files && files > 0 && unreadable.is_empty();
    Ok(if is_good { Outcome::Good } else { Outcome::Bad })
}

/// A flow's day, as `--estimates --json` prints it.
#[derive(Serialize)]
struct FlowEstimate<'a> {
    flow: &'a str,
    #[serde(flatten)]
    estimate: Estimate,
}

fn print_estimates(estimates: &[FlowEstimate<'_>], as_json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(estimates)?)?;
        return Ok(());
    }
    let width = estimates.iter().map(|one| one.flow.len()).max();
    for one in estimates {
        let (flow, width) = (one.flow, width.unwrap_or_default());
        writeln!(out, "{flow:<width$}  {}", in_words(&one.estimate))?;
    }
    if !estimates.is_empty() {
        writeln!(out)?;
    }
    Ok(())
}

/// A flow's day in one line.
fn in_words(estimate: &Estimate) -> String {
    let readings = match estimate.messages_per_day {
        Some(messages) => format!("{} messages a day", grouped(messages)),
        None => "messages as they come".to_owned(),
    };
    let uplink = match (
        estimate.uplink_messages_per_day,
        estimate.uplink_bytes_per_day,
        estimate.flash_bytes_per_day,
    ) {
        (Some(0), ..) => "nothing to the cloud".to_owned(),
        (Some(messages), Some(bytes), Some(flash)) => format!(
            "to the cloud {} of {}; {} to flash on a day without a link",
            grouped(messages),
            ByteSize(bytes).display().si(),
            ByteSize(flash).display().si(),
        ),
        _ => "to the cloud as many as come".to_owned(),
    };
    format!("at most: {readings}, {uplink}")
}

fn problem(diagnostic: &Diagnostic) -> Problem<'_> {
    let (line, column) = diagnostic.line_and_column();
    Problem {
        file: &diagnostic.source.path,
        line,
        column,
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        message: &diagnostic.message,
        help: diagnostic.help.as_deref(),
    }
}

fn display(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
