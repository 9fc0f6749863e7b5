//! `tidegate tap`: what a node of a running process sends, as it sends it.

use std::future::pending;
use std::io::Write;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome, outbox, settings};
use crate::control_socket::{self, TapAnswer, TapLine};
use crate::flow::options::Span;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node: FLOW/NODE, or NODE where one flow alone has it; with .PORT one of its ports only
    node: String,
    /// The settings file of the running process. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print each message as a line of JSON
    #[arg(long)]
    json: bool,
    /// End after so many messages
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, such as 10s
    #[arg(long = "for", value_name = "TIME", value_parser = Span::parse)]
    time: Option<Span>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, diagnostics) = settings(arguments.config.as_deref())?;
    let outbox = outbox::directory(&config, &diagnostics)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(watch(arguments, outbox))
}

/// What is watched ends with its process, or when its flow is changed and no longer has it.
fn why_it_ended(node: &str, outbox: &Path) -> String {
    match control_socket::ask(outbox, "totals") {
        Ok(Some(_)) => {
            format!("there is no `{node}` any more: its flow was changed; tidegate runs on")
        }
        _ => format!(
            "the tidegate that ran with {} has stopped",
            outbox.display()
        ),
    }
}

async fn watch(arguments: &Arguments, outbox: &Path) -> Result<Outcome, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let question = format!("tap {}", arguments.node);
    let Some((answer, mut lines)) = control_socket::follow(outbox, &question).await? else {
        return Err(format!(
            "no tidegate runs with {}, or it has not opened its outbox yet; start it with `tidegate run`",
            outbox.display()
        )
        .into());
    };
    let has_ports = match serde_json::from_str(&answer)? {
        TapAnswer::Tapping { ports, .. } => ports.len() > 1,
        TapAnswer::Error(error) => return Err(error.into()),
    };
    let time_is_over = async {
        match arguments.time {
            Some(time) => tokio::time::sleep(time.0).await,
            None => pending().await,
        }
    };
    tokio::pin!(time_is_over);
    let mut left = arguments.count;
    while left != Some(0) {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = &mut time_is_over => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        let Some(line) = line else {
            return Err(why_it_ended(&arguments.node, outbox).into());
        };
        let text = match serde_json::from_str(&line) {
            Ok(TapLine::Dropped { dropped }) => {
                eprintln!("... {dropped} messages were dropped here");
                continue;
            }
            Ok(TapLine::Message {
                time,
                port,
                topic,
                payload,
                ..
            }) if !arguments.json => {
                let port = if has_ports {
                    format!("[{port}] ")
                } else {
                    String::new()
                };
                // What comes from outside must not steer the terminal.
                format!("{time} {port}{topic} {payload}").replace(char::is_control, "\u{fffd}")
            }
            // As it is, also if it is nested deeper than we read.
            _ => line,
        };
        writeln!(std::io::stdout(), "{text}")?;
        left = left.map(|left| left - 1);
    }
    Ok(Outcome::Good)
}
