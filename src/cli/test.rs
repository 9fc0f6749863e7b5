//! `tidegate test`: tests of flows, in virtual time.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::{Failure, Outcome, settings};
use crate::flow::diagnostic::Diagnostic;
use crate::flow::options::Span;
use crate::flow_test::record::{RecordError, Recording, path_of_test};
use crate::flow_test::report::{self, Summary, TestAsJson};
use crate::flow_test::{self, Suite, junit};
use crate::replay::Feed;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Flow files, their tests (NAME.test.toml), or directories. Without any: the flows of the settings file
    paths: Vec<PathBuf>,
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make a test of a flow (FLOW.test.toml) instead: of what it does with the files of --feed
    #[arg(long, requires = "feed", conflicts_with_all = ["only", "require", "json", "junit", "config"])]
    record: bool,
    /// With --record: a source, and the file that takes its place (CSV with a header, or JSON Lines); may be given again
    #[arg(long, value_name = "NODE=FILE", requires = "record")]
    feed: Vec<Feed>,
    /// With --record: how long the test lasts. Default: a minute more than the files
    #[arg(long = "for", value_name = "SPAN", requires = "record", value_parser = Span::parse)]
    lasts: Option<Span>,
    /// With --record: overwrite the test that is there
    #[arg(long, requires = "record")]
    force: bool,
    /// Run only tests whose name, FLOW/TEST, has this in it
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Fail if a flow has no test
    #[arg(long)]
    require: bool,
    /// Print JSON: an object with `tests`, `problems`, `untested` and `summary`
    #[arg(long)]
    json: bool,
    /// Write what became of the tests to this file too, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Whole {
    tests: Vec<TestAsJson>,
    /// Mistakes in flows and their tests, a line each; with --require also flows without a test.
    problems: Vec<String>,
    /// Flows without a test.
    untested: Vec<String>,
    summary: Summary,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    if arguments.record {
        return record(arguments);
    }
    let of_settings;
    let paths = match &arguments.paths[..] {
        [] => {
            of_settings = settings(arguments.config.as_deref())?.0.flows.path;
            std::slice::from_ref(&of_settings)
        }
        paths => paths,
    };
    let mut suite = Suite::load(paths)?;
    let not_found = arguments
        .only
        .as_ref()
        .and_then(|part| keep_only(part, &mut suite));
    let start = Instant::now();
    let outcomes = with_quiet_panics(|| suite.run());
    let summary = Summary::of(&outcomes, start.elapsed());
    let missing = match arguments.require {
        true => untested(&suite),
        false => Vec::new(),
    };
    if arguments.json {
        print_json(&suite, &outcomes, summary, &missing)?;
    } else {
        print(&suite, &outcomes, summary, arguments.require)?;
    }
    // What became of the tests has been said by now, whether it can be written or not.
    if let Some(path) = &arguments.junit {
        let xml = junit::file(&outcomes, &suite.findings, &missing);
        std::fs::write(path, xml)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if let Some(not_found) = not_found {
        return Err(not_found.into());
    }
    let has_mistakes = suite.findings.iter().any(|finding| finding.has_errors());
    let is_good = summary.failed == 0 && !has_mistakes && missing.is_empty() && suite.flows > 0;
    Ok(if is_good { Outcome::Good } else { Outcome::Bad })
}

/// Leaves the tests with that in their name; what to say if there are none. Mistakes may be why, so these are told all the same.
fn keep_only(part: &str, suite: &mut Suite) -> Option<String> {
    let all: Vec<String> = suite.tests.iter().map(|test| test.full_name()).collect();
    suite.keep_only(part);
    if !suite.tests.is_empty() {
        return None;
    }
    let there_are = match &all[..] {
        [] => "there are none without mistakes".to_owned(),
        all => format!("there are: {}", list(all)),
    };
    Some(format!("no test has `{part}` in its name; {there_are}"))
}

fn record(arguments: &Arguments) -> Result<Outcome, Failure> {
    let [flow] = &arguments.paths[..] else {
        return Err("--record makes the test of one flow: tidegate test --record FLOW.toml --feed NODE=FILE".into());
    };
    if flow.is_dir() {
        return Err(format!(
            "{} is a directory, and --record makes the test of one flow: name its file",
            flow.display()
        )
        .into());
    }
    let path = path_of_test(flow);
    if path.exists() && !arguments.force {
        return Err(format!("{} is there already; --force overwrites it", path.display()).into());
    }
    let feeds = arguments.feed.iter();
    let recording = Recording {
        flow: flow.clone(),
        feeds: feeds
            .map(|feed| (feed.node.clone(), feed.path.clone()))
            .collect(),
        lasts: arguments.lasts.map(|span| span.0),
    };
    let text = match with_quiet_panics(|| recording.text()) {
        Ok(text) => text,
        Err(RecordError::Mistakes(diagnostics)) => {
            let color = std::io::stderr().is_terminal();
            for diagnostic in diagnostics {
                eprintln!("{}\n", diagnostic.render(color));
            }
            return Ok(Outcome::Bad);
        }
        Err(error) => return Err(error.into()),
    };
    std::fs::write(&path, text)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} is written; read it: what it expects is what the flow did, right or wrong",
        path.display()
    )?;
    Ok(Outcome::Good)
}

fn print(
    suite: &Suite,
    outcomes: &[flow_test::Outcome],
    summary: Summary,
    is_required: bool,
) -> Result<(), Failure> {
    let color = std::io::stdout().is_terminal();
    let mut out = std::io::stdout().lock();
    for diagnostic in problems(suite) {
        writeln!(out, "{}\n", diagnostic.render(color))?;
    }
    for outcome in outcomes {
        writeln!(out, "{}", report::line(outcome))?;
    }
    writeln!(out)?;
    for outcome in outcomes.iter().filter(|outcome| !outcome.has_passed()) {
        write!(out, "{}", report::failure(outcome, color))?;
    }
    let not_run: Vec<String> = suite
        .findings
        .iter()
        .filter(|finding| finding.has_errors())
        .map(|finding| finding.flow.clone())
        .collect();
    if !not_run.is_empty() {
        writeln!(
            out,
            "not run, because of mistakes: the tests of {}",
            list(&not_run)
        )?;
    }
    if suite.flows == 0 {
        writeln!(out, "there are no flow files (NAME.toml)")?;
    } else if !suite.untested.is_empty() {
        let word = if is_required { "error: " } else { "" };
        writeln!(out, "{word}without a test: {}", list(&untested(suite)))?;
    }
    writeln!(out, "{summary}")?;
    Ok(())
}

fn print_json(
    suite: &Suite,
    outcomes: &[flow_test::Outcome],
    summary: Summary,
    missing: &[String],
) -> Result<(), Failure> {
    let mistakes = problems(suite).map(ToString::to_string);
    let missing = missing.iter().map(|flow| format!("{flow} has no test"));
    let whole = Whole {
        tests: outcomes.iter().map(TestAsJson::of).collect(),
        problems: mistakes.chain(missing).collect(),
        untested: untested(suite),
        summary,
    };
    let json = serde_json::to_string_pretty(&whole)?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(())
}

fn problems(suite: &Suite) -> impl Iterator<Item = &Diagnostic> {
    suite
        .findings
        .iter()
        .flat_map(|finding| &finding.diagnostics)
}

fn untested(suite: &Suite) -> Vec<String> {
    let flows = suite.untested.iter();
    flows.map(|path| path.display().to_string()).collect()
}

fn list(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = names
        .iter()
        .take(MOST)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST {
        text += &format!(" and {} more", names.len() - MOST);
    }
    text
}

/// A panic of a node is part of what is tested, and told with its test.
fn with_quiet_panics<T>(part: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = part();
    std::panic::set_hook(hook);
    result
}
