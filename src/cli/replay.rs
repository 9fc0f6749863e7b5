//! `tidegate replay`: recorded data through a flow.

mod words;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Outcome, grouped, settings};
use crate::config::Config;
use crate::flow::options::Span;
use crate::flow::{Graph, Severity, Site, directory};
use crate::nodes::Zone;
use crate::replay::rows::RowOptions;
use crate::replay::{Feed, FileReport, Progress, Replay, ReplayError, Report, Settings};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The flow: its file, or its name in the directory of flows
    flow: String,
    /// A file that takes the place of a source: CSV with a header, or JSON Lines; `-` is the standard input. May be given several times
    #[arg(long = "feed", value_name = "NODE=FILE", required = true)]
    feeds: Vec<Feed>,
    /// Write what comes to the sinks to this file, which is written anew. Default: the standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Let `inject` nodes run that are not fed, in the time of the rows
    #[arg(long)]
    inject: bool,
    /// Put rows into the order of time that come too late by this at most, such as 10m
    #[arg(long, value_name = "TIME", value_parser = Span::parse)]
    reorder: Option<Span>,
    /// What times without an offset from UTC are in, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", value_parser = Zone::parse)]
    time_zone: Option<Zone>,
    /// The column, or field, with the time
    #[arg(long, value_name = "NAME", default_value = "time")]
    time_column: String,
    /// The column, or field, that is the payload; if there is none, all others make an object
    #[arg(long, value_name = "NAME", default_value = "payload")]
    payload_column: String,
    /// End at the first row that cannot be read, with 1
    #[arg(long)]
    strict: bool,
    /// The settings file, for variables, the device's name and the directory of flows. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, _) = settings(arguments.config.as_deref())?;
    let path = flow_path(&arguments.flow, &config)?;
    let Some(graph) = load(&path, &config)? else {
        return Ok(Outcome::Bad);
    };
    let settings = Settings {
        device: config.device.id.to_string(),
        feeds: arguments.feeds.clone(),
        rows: RowOptions {
            time_column: arguments.time_column.clone(),
            payload_column: arguments.payload_column.clone(),
            time_zone: arguments.time_zone.clone().map(Into::into),
        },
        inject: arguments.inject,
        reorder: arguments.reorder.map(|reorder| reorder.0),
        strict: arguments.strict,
    };
    let replay = Replay::prepare(graph, settings)?;
    // Not before everything else has been found to be right: it may be a file from last time.
    let out: Box<dyn Write> = match &arguments.out {
        None => Box::new(io::stdout().lock()),
        Some(out) => {
            let read = arguments.feeds.iter().map(|feed| &*feed.path);
            let settings = arguments.config.as_deref();
            let settings = settings.unwrap_or(Path::new(super::CONFIG));
            create(out, read.chain([&*path, settings]))?
        }
    };
    let start = Instant::now();
    let mut progress = Bar::new(&arguments.feeds);
    let report = replay.run(io::BufWriter::with_capacity(1 << 16, out), |now| {
        progress.show(now);
    });
    progress.clear();
    match report {
        Ok(report) => tell(&report, start.elapsed()),
        Err(ReplayError::Write(error)) => Err(match &arguments.out {
            // A reader of the standard output that has gone is no problem.
            None => error.into(),
            Some(out) => format!(
                "cannot write to {} any further; make room, or write to another place: {error}",
                out.display()
            )
            .into(),
        }),
        Err(error) => Err(error.into()),
    }
}

/// The file of a flow that was named by path or by name.
fn flow_path(flow: &str, config: &Config) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(flow);
    if path.is_dir() {
        return Err(format!("{flow} is a directory; name one flow in it").into());
    }
    if path.exists() || flow.contains('/') || flow.ends_with(".toml") {
        return Ok(path);
    }
    let flows = &config.flows.path;
    let files = directory::find(flows).unwrap_or_default();
    let found = files
        .into_iter()
        .find(|file| directory::flow_name(file) == flow);
    found.ok_or_else(|| {
        format!(
            "there is no file {flow}, and no flow of that name in {}",
            flows.display()
        )
        .into()
    })
}

/// Reads and checks the flow. What is wrong with it is told as `check` does; then there is none.
fn load(path: &Path, config: &Config) -> Result<Option<Arc<Graph>>, Failure> {
    let mut site = Site::default();
    site.load_more(path, |flow| config.variables_for(flow))?;
    if let Some(graph) = site.flows.pop() {
        return Ok(Some(graph));
    }
    let color = io::stderr().is_terminal();
    let errors = site.diagnostics.iter();
    for error in errors.filter(|it| it.severity == Severity::Error) {
        eprintln!("{}\n", error.render(color));
    }
    eprintln!("tidegate: the flow is not valid, and was not replayed");
    Ok(None)
}

/// Creates the file to write to, unless it is one of those that are read.
fn create<'a>(
    out: &Path,
    mut read: impl Iterator<Item = &'a Path>,
) -> Result<Box<dyn Write>, Failure> {
    let place = |path: &Path| {
        // A shell may have opened the same file for the standard input.
        let path = if path == Path::new("-") {
            Path::new("/dev/stdin")
        } else {
            path
        };
        let metadata = std::fs::metadata(path).ok()?;
        // Only what is a file is lost.
        metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
    };
    // A file named `-` is meant by that, as `--out` never means the standard output.
    if let Some(there) = place(&Path::new(".").join(out))
        && read.any(|path| place(path) == Some(there))
    {
        let out = out.display();
        return Err(format!("--out {out} is a file that is read; write to another one").into());
    }
    let file = File::create(out).map_err(|error| {
        format!(
            "cannot write to {}; check the path, and that this user may write there: {error}",
            out.display()
        )
    })?;
    Ok(Box::new(file))
}

/// How far it is, on a terminal.
struct Bar {
    is_shown: bool,
    start: Instant,
    last: Instant,
    /// Of all files, if that is known.
    bytes: Option<u64>,
}

impl Bar {
    fn new(feeds: &[Feed]) -> Bar {
        let size = |feed: &Feed| {
            let metadata = std::fs::metadata(&feed.path).ok()?;
            metadata.is_file().then_some(metadata.len())
        };
        Bar {
            is_shown: io::stderr().is_terminal(),
            start: Instant::now(),
            last: Instant::now(),
            bytes: feeds.iter().map(size).sum(),
        }
    }

    fn show(&mut self, now: Progress) {
        const EVERY: Duration = Duration::from_millis(200);
        if !self.is_shown || self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        let part = match self.bytes {
            Some(bytes) if bytes > 0 => {
                format!(
                    "{:3.0} %  ",
                    100.0 * now.bytes.min(bytes) as f64 / bytes as f64
                )
            }
            _ => String::new(),
        };
        let rate = now.rows as f64 / self.start.elapsed().as_secs_f64();
        let (rows, rate) = (grouped(now.rows), grouped(rate as u64));
        eprint!(
            "\r\x1b[K{part}{rows} rows, {rate} a second, at {}",
            now.time
        );
    }

    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Says what happened. Files without a row that could be used are bad.
fn tell(report: &Report, took: Duration) -> Result<Outcome, Failure> {
    for line in words::warnings(report) {
        eprintln!("{line}");
    }
    eprintln!("{}", words::summary(report, took));
    let is_useless = |file: &&FileReport| file.rows == 0 && file.left_out() > 0;
    match report.files.iter().find(is_useless) {
        None => Ok(Outcome::Good),
        Some(file) => {
            Err(format!("no row of {} could be read; see above", file.path.display()).into())
        }
    }
}
