//! How the commands for an outbox at rest behave on a terminal: they say how far they are, end well at Ctrl-C, and do not let
//! sled's panics be seen.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::outbox::care::{Step, Watch};

/// What is done sooner needs no words about how far it is.
const PATIENCE: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(200);

/// Does something long.
pub(super) fn with_manners<T>(work: impl FnOnce(&mut Watch<'_>) -> T) -> T {
    silence_sled();
    let is_stopped = stop_at_ctrl_c();
    let is_terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    let mut shown: Option<Instant> = None;
    let result = work(&mut |step: Step| {
        let is_due = start.elapsed() > PATIENCE && shown.is_none_or(|shown| shown.elapsed() > PACE);
        if is_terminal && is_due {
            shown = Some(Instant::now());
            let Step { doing, done, of } = step;
            // If it cannot be shown, it is not.
            let _ = write!(std::io::stderr(), "\r\x1b[K{doing}: {done} of {of}");
        }
        if is_stopped.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if shown.is_some() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    result
}

/// Becomes true at Ctrl-C and at SIGTERM. Without a thread for it they end the process at once, and what that leaves behind the
/// next run removes.
fn stop_at_ctrl_c() -> Arc<AtomicBool> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let set = is_stopped.clone();
    let wait = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return;
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            set.store(true, Ordering::Relaxed);
        });
    };
    let _ = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
    is_stopped
}

/// sled panics on some damaged stores. That is caught, and said in our words. Our own panics are shown as ever.
fn silence_sled() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_ours = panic
            .location()
            .is_some_and(|place| place.file().starts_with("src/"));
        if is_ours {
            shown(panic);
        }
    }));
}
