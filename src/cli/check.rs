//! `tidegate check`: everything that is wrong in settings and flows, at once.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{Failure, Outcome, settings};
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
    let (config, of_settings) = settings(arguments.config.as_deref())?;
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
    let (flows, files) = (site.flows.len(), site.files);
    let mut diagnostics = site.diagnostics;
    if arguments.paths.is_empty() {
        diagnostics.extend(of_settings);
        if flows == files {
            diagnostics.extend(config.unused_variables(&site.flows));
        }
    }
    for problem in &unreadable {
        eprintln!("tidegate: {problem}");
    }
    // They may be on the device only, so they are warnings here.
    let of_credentials = if arguments.paths.is_empty() {
        config.credential_problems()
    } else {
        Vec::new()
    };
    for problem in &of_credentials {
        eprintln!("warning: the uplink would not work: {problem}");
    }
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .count();
    if arguments.json {
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
        let warnings = diagnostics.len() - errors + of_credentials.len();
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
