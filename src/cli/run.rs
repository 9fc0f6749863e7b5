//! `tidegate run`: the flows of this device, until SIGTERM or Ctrl-C. SIGHUP reads the flow files again.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{CONFIG, Failure, Outcome, settings};
use crate::board;
use crate::config::Config;
use crate::device::{self, Device, Ended, Parts};
use crate::flow::{Diagnostic, Graph, Severity};
use crate::logging;
use crate::outbox::{Pressure, WhenFull};
use crate::reload::{self, Copies, FlowFiles};
use crate::runtime::driver::chain;
use crate::runtime::realtime::Realtime;
use crate::runtime::{Checkpoint, Clock};
use crate::state_files::{StateDirectory, StateFileError};
use crate::subscriptions::Brokers;

/// How often the engine threads are looked at.
const BEAT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The settings file. Default: tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not start if anything is wrong in the settings or in a flow
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let (config, mut diagnostics) = settings(arguments.config.as_deref())?;
    let logger = logging::start(config.log.format, config.log.level);
    match &arguments.config {
        None if !Path::new(CONFIG).exists() => {
            tracing::warn!(
                "there is no {CONFIG} in this directory, so all settings have their defaults"
            );
        }
        config => tracing::info!(
            "settings: {}",
            config.as_deref().unwrap_or(Path::new(CONFIG)).display()
        ),
    }
    let config = Arc::new(config);
    let variables = {
        let config = config.clone();
        Arc::new(move |flow: &str| config.variables_for(flow))
    };
    let (files, listed) = FlowFiles::start(&config.flows.path, variables);
    match listed {
        Err(error) if arguments.strict => return Err(error.into()),
        Err(error) => tracing::error!("{}", chain(&error)),
        Ok(()) => {}
    }
    let site = files.site();
    diagnostics.extend(site.diagnostics.iter().cloned());
    if site.files == site.flows.len() {
        diagnostics.extend(config.unused_variables(&site.flows));
    }
    report(&diagnostics);
    let of_credentials = config.credential_problems();
    if arguments.strict && !of_credentials.is_empty() {
        drop(logger);
        return Err(format!(
            "not started, as --strict asks for everything to be right: {}",
            of_credentials.join("; ")
        )
        .into());
    }
    for problem in of_credentials {
        tracing::warn!("{problem}");
    }
    if arguments.strict
        && diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    {
        drop(logger);
        return Err("not started, as --strict asks for everything to be right; `tidegate check` shows the problems".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(&config, files));
    // A disk that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(logger);
    outcome
}

/// The state directory of this process, if something can be kept there, now or later.
fn open_state(config: &Config) -> Option<StateDirectory> {
    if config.is_state_wrong {
        return None;
    }
    let mut directory = StateDirectory::at(&config.state.path);
    match directory.claim() {
        Ok(()) => Some(directory),
        Err(error @ StateFileError::InUse { .. }) => {
            tracing::error!(
                "{}; until then flows begin anew, and nothing is kept",
                chain(&error)
            );
            None
        }
        Err(error) => {
            tracing::error!("{}; flows run, and it is tried again", chain(&error));
            Some(directory)
        }
    }
}

/// Runs what can be run of flows whose files are bad, and says what cannot.
fn fall_back(files: &mut FlowFiles, state: Option<&mut StateDirectory>) {
    if let Some(directory) = state {
        for flow in files.fall_back(directory) {
            tracing::error!(
                "flow `{flow}` runs from its LAST GOOD COPY in {}, as its file cannot run: correct the file, and it is taken up at \
                 once",
                directory.path().display()
            );
        }
    }
    let site = files.site();
    if site.files > site.flows.len() {
        tracing::warn!(
            "{} of {} flows cannot run, and nothing drives their outputs; the others run",
            site.files - site.flows.len(),
            site.files
        );
    }
}

/// What the flows remembered before this start.
fn remembered(flows: &[Arc<Graph>], state: &StateDirectory) -> HashMap<String, Arc<Checkpoint>> {
    let names = flows.iter().map(|flow| flow.name().to_string());
    names
        .filter_map(|name| {
            let checkpoint = Arc::new(state.read(&name)?);
            tracing::info!(
                "flow `{name}` goes on from what it remembered at {}",
                checkpoint.wall
            );
            Some((name, checkpoint))
        })
        .collect()
}

async fn serve(config: &Config, mut files: FlowFiles) -> Result<Outcome, Failure> {
    // Signals first: one that comes during the start must not kill us.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let has_terminal = is_at_terminal();

    let mut state = open_state(config);
    fall_back(&mut files, state.as_mut());
    let flows = files.site().flows.clone();
    let remembered = state
        .as_ref()
        .map(|state| remembered(&flows, state))
        .unwrap_or_default();
    // Also of flows that do not run: one that comes back later must not find its deadlines ahead of the clock.
    let moments = state.as_ref().map(StateDirectory::moments);
    let clock = Clock::resume(moments.unwrap_or_default());
    let needs_board = flows.iter().any(|flow| flow.uses().next().is_some());
    let board = if config.is_board_wrong {
        let reason = "[board] of the settings is wrong, so no pin is touched".to_owned();
        tracing::error!("{reason}; correct it and start again");
        Box::new(board::Missing::new(reason))
    } else {
        device::open_board(&config.board, &clock)
    };
    if needs_board || board.name() != "missing" {
        tracing::info!("board: {}", board.describe());
    }
    if config.is_identity_wrong {
        tracing::error!(
            "the settings leave it open which device this is, or where its outbox is: control runs, but nothing is delivered; \
             correct [device] id and [outbox] path, and start again"
        );
    } else {
        for line in guarantees(config, &flows) {
            tracing::info!("{line}");
        }
    }
    let realtime = Realtime {
        priority: config.control.realtime.and_then(NonZeroU8::new),
        lock_memory: config.control.lock_memory,
    };
    if let Err(error) = realtime.lock_memory() {
        tracing::warn!("{error}");
    }
    let directory = state.map(|state| Arc::new(Mutex::new(state)));
    let pressure = Pressure::until_open();
    let parts = Parts {
        id: config.device.id.to_string(),
        flows,
        board,
        outbox: (!config.is_identity_wrong).then(|| config.outbox_settings()),
        uplink: config.uplink_settings(),
        subscriptions: Box::new(Brokers::new(
            config.broker_settings(),
            clock.clone(),
            (config.outbox.when_full == WhenFull::Block).then(|| pressure.clone()),
        )),
        pressure,
        clock,
        state: directory.clone().map(|directory| device::State {
            directory,
            remembered,
            every: config.state.every.0,
        }),
        realtime,
    };
    let device = Device::start(parts)?;
    notify(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(watchdog(device.beats()));
    let (look, reloading) = watch_files(&device, files, directory);

    let name = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hang_up.recv() => {
                if has_terminal && !is_at_terminal() {
                    break "SIGHUP of a terminal that is gone";
                }
                // If there is a wish already, one is enough.
                let _ = look.try_send(());
            }
        }
    };
    tracing::info!("{name}: stopping");
    notify(&[NotifyState::Stopping]);
    watchdog.abort();
    reloading.abort();
    tokio::select! {
        ended = device.stop() => say_goodbye(&ended),
        () = second_signal(&mut terminate, &mut interrupt) => {
            return Err("stopped at the second signal, before it was known that outputs are safe and the outbox is synced".into());
        }
    }
    Ok(Outcome::Good)
}

/// Whether we were started by hand: then a hang-up is the terminal's end, and not the wish to read flows again.
fn is_at_terminal() -> bool {
    std::io::stdin().is_terminal()
        || std::io::stdout().is_terminal()
        || std::io::stderr().is_terminal()
}

/// Watches the flow files, keeps last good copies, and gives the way to ask for a look.
fn watch_files(
    device: &Device,
    files: FlowFiles,
    directory: Option<Arc<Mutex<StateDirectory>>>,
) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (look, asked) = mpsc::channel(1);
    let copies = directory.map(|directory| Copies {
        directory,
        counters: device.counters().clone(),
    });
    let flows = device.flows().cloned();
    let watching = tokio::spawn(async move {
        if let Some(flows) = flows {
            reload::watch(files, flows, copies, asked).await;
        }
    });
    (look, watching)
}

/// A signal that comes a second or more after the first one; `timeout` and terminals send some of them twice.
async fn second_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn say_goodbye(ended: &Ended) {
    match &ended.ledger {
        Some(ledger) => tracing::info!(
            "the outbox is synced, {} records wait in it",
            ledger.waiting()
        ),
        None => tracing::error!(
            "the outbox was never open; {} records of the flows are lost",
            ended.lost_drafts
        ),
    }
    if ended.outputs_are_safe {
        tracing::info!("stopped: all outputs are at their safe levels");
    } else {
        tracing::error!(
            "stopped, but the board did not take the safe level of every output: look at the relays"
        );
    }
}

fn report(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        match diagnostic.severity {
            Severity::Error => tracing::error!("{diagnostic}"),
            Severity::Warning => tracing::warn!("{diagnostic}"),
        }
    }
}

/// What holds with these settings, in words.
fn guarantees(config: &Config, flows: &[Arc<Graph>]) -> Vec<String> {
    let mut lines = Vec::new();
    let outbox = &config.outbox;
    let more = match outbox.flash_budget {
        None => "",
        Some(_) => ", and a minute more where flash_budget asks for it",
    };
    lines.push(if outbox.commit.0.is_zero() {
        format!("guaranteed: a record is on disk, synced, before it is sent{more}")
    } else {
        format!(
            "guaranteed, as long as the disk works: within {0}{more}, a record is acknowledged by the cloud broker or on disk, \
             synced; a power cut takes at most the records of that time",
            outbox.commit
        )
    });
    let when_full = match outbox.when_full {
        WhenFull::DropOldest => "the oldest records are dropped",
        WhenFull::DropNewest => "new records are dropped",
        WhenFull::Block => {
            "messages that `mqtt in` gets with QoS 1 wait at their broker, what else is new waits in memory, and once that is full is dropped"
        }
        WhenFull::Thin => {
            "old readings are merged to coarser ones, and what cannot be merged is dropped"
        }
    };
    let settings = config.outbox_settings();
    let (disk, memory) = (
        bytesize::ByteSize(settings.max_size),
        bytesize::ByteSize(settings.max_pending as u64),
    );
    lines.push(format!(
        "guaranteed: nothing is dropped in silence; when the outbox takes {} on disk, or the disk does not keep up and {} wait \
         in memory, {when_full}, and counted",
        disk.display().iec(),
        memory.display().iec()
    ));
    lines.push(match &config.uplink {
        Some(uplink) => format!(
            "guaranteed: each record is delivered to {} at least once, and deleted only when its broker has acknowledged it; \
             both sides must show a certificate",
            uplink.url
        ),
        None => "no usable [uplink]: nothing goes up; records are kept in the outbox".into(),
    });
    let control = flows.iter().filter(|flow| flow.is_control()).count();
    if control > 0 {
        lines.push(format!(
            "guaranteed: the outputs of {control} control flow(s) go to their safe level at start, stop and after a panic; not \
             when the process is killed or the power fails"
        ));
    }
    let data = flows.len() - control;
    lines.push(format!(
        "running {} flows: {control} control, {data} data, as device `{}`",
        flows.len(),
        config.device.id
    ));
    lines
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell systemd: {error}");
    }
}

/// An engine with nothing to do beats once a second; one that has not for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Looks at the engine threads, and tells systemd that all is well as long as both go round.
async fn watchdog(beats: Vec<Arc<AtomicU64>>) {
    let limit = sd_notify::watchdog_enabled();
    let every = limit.map_or(BEAT, |limit| (limit / 3).min(BEAT));
    let mut seen: Vec<(u64, Instant)> = vec![(0, Instant::now()); beats.len()];
    let mut was_well = true;
    loop {
        for (beat, seen) in beats.iter().zip(&mut seen) {
            let now = beat.load(Ordering::Relaxed);
            if now != seen.0 {
                *seen = (now, Instant::now());
            }
        }
        let is_well = seen.iter().all(|(_, since)| since.elapsed() < STUCK_AFTER);
        if is_well && limit.is_some() {
            notify(&[NotifyState::Watchdog]);
        } else if !is_well && was_well {
            tracing::error!(
                "an engine thread has been stuck for {STUCK_AFTER:?}: a node or the board blocks it; systemd is not told that \
                 all is well, and will restart us if it watches"
            );
        }
        was_well = is_well;
        tokio::time::sleep(every).await;
    }
}
