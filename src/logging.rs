//! Where `tracing` goes: stderr, as text or JSON, never in the way of who writes.
//!
//! A thread of its own writes; [`BACKLOG`] lines wait for it, and more than that are left out, so that a console that hangs
//! holds up nothing.

use std::io::IsTerminal;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel};

const BACKLOG: usize = 10_000;

/// Starts logging. What has not been written yet is written when the guard is dropped.
pub fn start(format: LogFormat, level: LogLevel) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BACKLOG)
        .thread_name("log")
        .finish(std::io::stderr());
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    // Other crates' ordinary events are no news: rumqttd logs a client's good-bye as an error.
    let filter = Targets::new()
        .with_target("tidegate", level)
        .with_default(Level::ERROR)
        .with_target("rumqttd", None)
        .with_target("sled", None);
    let lines = tracing_subscriber::registry().with(filter);
    // A second call, in a test, keeps the first one's logger.
    let _ = match format {
        LogFormat::Json => lines
            .with(tracing_subscriber::fmt::layer().json().with_writer(writer))
            .try_init(),
        LogFormat::Text => {
            let color = std::io::stderr().is_terminal();
            lines
                .with(
                    tracing_subscriber::fmt::layer()
                        .with_writer(writer)
                        .with_ansi(color)
                        .with_target(false),
                )
                .try_init()
        }
    };
    // The default hook would write to stderr itself, and wait for it.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}; this is a fault in Tidegate, please report it");
    }));
    guard
}
