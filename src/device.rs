//! A running device: flows, board, outbox and uplink, put together.
//!
//! Flows and control start first and wait for nothing: the outbox is opened beside them, and the uplink follows it.
//! Whatever is wrong with one part, the others run: a missing board leaves flows whose readings fail, a bad certificate
//! leaves an uplink that is down and an outbox that fills.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::{self, Board};
use crate::control_socket::ControlSocket;
use crate::flow::Graph;
use crate::outbox::{
    self, Claim, Key, Lane, Ledger, OpenError, Opening, Outbox, Pressure, Record, RecordId,
};
use crate::runtime::Counters;
use crate::runtime::clock::{Clock, Reanchor};
use crate::runtime::driver::states::StateQueue;
use crate::runtime::driver::subscribing::Subscriptions;
use crate::runtime::driver::taps::Taps;
use crate::runtime::driver::{
    Driver, Flows, LateOutbox, States, Stopped, ThreadError, World, chain,
};
use crate::runtime::realtime::Realtime;
use crate::runtime::state::Checkpoint;
use crate::state_files::{StateDirectory, keeper};
use crate::uplink::{self, Backlog, Status, Uplink};

/// How often an outbox that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
/// How long a stop waits for an outbox that is being opened, to give it what the flows left.
const OPEN_LATEST: Duration = Duration::from_secs(5);
/// How long a stop waits until what flows remember is written.
const WRITTEN_LATEST: Duration = Duration::from_secs(5);
/// What systemd-timesyncd makes once the clock is set (systemd-timesyncd.service(8)).
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
/// A clock that goes ahead by less than this was set, and corrected.
const RESTAMP_FROM: Duration = Duration::from_secs(10);
/// How often live time is compared with the wall clock.
const REANCHOR_EVERY: Duration = Duration::from_secs(1);

/// Everything a device is made of, checked.
pub struct Parts {
    pub id: String,
    pub flows: Vec<Arc<Graph>>,
    pub board: Box<dyn Board>,
    /// None keeps the outbox shut and the uplink down, because it is not sure whose they would be.
    pub outbox: Option<outbox::Settings>,
    /// What tells the subscriptions that the outbox is nearly full.
    pub pressure: Pressure,
    pub uplink: Option<uplink::Settings>,
    pub clock: Clock,
    /// Who brings what flows subscribe to.
    pub subscriptions: Box<dyn Subscriptions>,
    /// None keeps nothing over a restart.
    pub state: Option<State>,
    pub realtime: Realtime,
}

/// What flows remember, over a restart.
pub struct State {
    pub directory: Arc<Mutex<StateDirectory>>,
    /// What was read there, by flow.
    pub remembered: HashMap<String, Arc<Checkpoint>>,
    /// How often it is written.
    pub every: Duration,
}

/// A running device.
pub struct Device {
    /// None once the flows have stopped.
    driver: Option<Driver>,
    stopped: Stopped,
    meter: Meter,
    opening: Option<JoinHandle<()>>,
    reanchoring: JoinHandle<()>,
    keeping: Option<Keeping>,
}

/// The thread that writes what flows remember, and the way to it.
struct Keeping {
    queue: StateQueue,
    thread: std::thread::JoinHandle<()>,
}

/// Outbox, uplink and control socket, which come after the flows.
#[derive(Default)]
struct Delivery {
    outbox: LateOutbox,
    link: OnceLock<watch::Receiver<Status>>,
    uplink: Mutex<Option<Uplink>>,
    socket: Mutex<Option<ControlSocket>>,
}

/// Why a device does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Outbox(#[from] OpenError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// How a device ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether all outputs are at their safe levels.
    pub outputs_are_safe: bool,
    /// The outbox's ledger; none if it was never open.
    pub ledger: Option<Ledger>,
    /// What flows wanted to deliver and no outbox took.
    pub lost_drafts: u64,
}

/// The outbox's ledger and what else the device counts, as one flat JSON object of integers.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub readings: u64,
    #[serde(flatten)]
    pub ledger: Ledger,
    /// What all readings would have taken as PUBLISH packets, each by itself, in bytes; since the start.
    pub raw_bytes: u64,
    /// PUBLISH packets sent, those sent again included, in bytes; since the start.
    pub uplink_bytes: u64,
    pub outage_seconds: u64,
    /// Readings and messages that a node could not handle.
    pub failures: u64,
    /// Edges that found their queue full.
    pub edges_dropped: u64,
    /// Messages that found a link queue full.
    pub links_dropped: u64,
    /// What flows wanted to deliver while the outbox could not be opened, and memory did not hold.
    pub dropped_before_outbox: u64,
    /// Events and messages that found their flow stopped by a panic.
    pub missed: u64,
    pub panics: u64,
    /// Levels that the board did not take.
    pub output_errors: u64,
    /// What was written to the state directory, in bytes; since the start.
    pub state_bytes: u64,
    /// Times that what a flow remembers, or its last good copy, could not be written.
    pub state_errors: u64,
    /// 1 while the link is up.
    pub is_up: u8,
}

impl Device {
    /// Starts everything, on the current tokio runtime and on threads of its own. The one thing that is waited for is the
    /// right to the outbox: what another process has is not touched, nor are its pins. An outbox whose disk cannot be used
    /// is tried again and again while the flows run.
    pub fn start(parts: Parts) -> Result<Device, StartError> {
        let Parts {
            id,
            flows,
            board,
            outbox,
            pressure,
            uplink,
            clock,
            subscriptions,
            state,
            realtime,
        } = parts;
        let claim = match outbox.clone().map(Claim::take).transpose() {
            Err(error @ OpenError::InUse { .. }) => return Err(error.into()),
            claim => claim,
        };
        let delivery = Arc::<Delivery>::default();
        let world = World {
            device: id,
            clock: clock.clone(),
            board,
            outbox: delivery.outbox.clone(),
            states: states(state.as_ref()),
            subscriptions,
            realtime,
        };
        let queue = world.states.queue.clone();
        let driver = Driver::start(flows, world)?;
        let keeping = state
            .zip(queue)
            .and_then(|(state, queue)| keep(state, queue, &driver));
        let meter = Meter {
            counters: driver.counters().clone(),
            delivery,
            clock,
        };
        let mut uplink = uplink;
        if let Some(presence) = uplink.as_mut().and_then(|it| it.presence.as_mut()) {
            presence.flows = driver.flows().prints();
        }
        let opening = outbox.map(|settings| {
            let taps = driver.taps().clone();
            let opens = Opens {
                first_claim: claim,
                settings,
                pressure,
                uplink,
            };
            tokio::spawn(opens.open(meter.clone(), taps))
        });
        let reanchoring = tokio::spawn(reanchor(meter.clone()));
        Ok(Device {
            driver: Some(driver),
            stopped: Stopped::default(),
            meter,
            opening,
            reanchoring,
            keeping,
        })
    }

    /// What the device has counted, to be counted further.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.meter.counters
    }

    /// The ids of all records of this start, whatever became of them.
    pub fn accepted_ids(&self) -> impl Iterator<Item = RecordId> + use<> {
        let outbox = &self.meter.delivery.outbox;
        let (epoch, last) = (
            outbox.epoch(),
            outbox.get().map_or(0, |outbox| outbox.last().seq),
        );
        (1..=last).map(move |seq| RecordId { epoch, seq })
    }

    /// Reads the totals; can be taken elsewhere.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// Counts up while the engine threads are alive.
    pub fn beats(&self) -> Vec<Arc<AtomicU64>> {
        self.driver.iter().flat_map(Driver::beats).collect()
    }

    /// How to change the flows; none once they have stopped.
    pub fn flows(&self) -> Option<&Flows> {
        self.driver.as_ref().map(Driver::flows)
    }

    /// Stops the flows, which puts outputs to their safe level; what they wanted to deliver is delivered on.
    pub async fn stop_flows(mut self) -> Device {
        if let Some(driver) = self.driver.take() {
            // Joining threads blocks; the link goes on meanwhile.
            let stopped = tokio::task::spawn_blocking(move || driver.stop()).await;
            self.stopped = stopped.unwrap_or_else(|error| {
                tracing::error!("stopping the flows failed: {error}");
                Stopped::default()
            });
        }
        self
    }

    /// Stops: outputs to their safe level first, then the link, then the outbox, synced. Waits for all of it.
    pub async fn stop(self) -> Ended {
        let mut device = self.stop_flows().await;
        device.reanchoring.abort();
        if let Some(keeping) = device.keeping.take() {
            finish(keeping).await;
        }
        let delivery = &device.meter.delivery;
        if let Some(mut opening) = device.opening.take() {
            let patience = if device.stopped.drafts.is_empty() {
                Duration::ZERO
            } else {
                OPEN_LATEST
            };
            if tokio::time::timeout(patience, &mut opening).await.is_err() {
                opening.abort();
            }
        }
        let left = device.stopped.drafts.len() as u64;
        match delivery.outbox.get() {
            Some(outbox) => outbox.append(device.stopped.drafts),
            None => device.meter.counters.dropped_before_outbox.add(left),
        }
        drop(delivery.socket().take());
        let uplink = delivery.uplink().take();
        if let Some(uplink) = uplink {
            uplink.stop().await;
        }
        let ledger = match delivery.outbox.get().cloned() {
            Some(outbox) => tokio::task::spawn_blocking(move || outbox.close())
                .await
                .ok(),
            None => None,
        };
        let lost_drafts = device.meter.counters.dropped_before_outbox.get();
        Ended {
            outputs_are_safe: device.stopped.outputs_are_safe,
            ledger,
            lost_drafts,
        }
    }
}

fn states(state: Option<&State>) -> States {
    match state {
        Some(state) => States {
            remembered: state.remembered.clone(),
            every: state.every,
            queue: Some(StateQueue::default()),
        },
        None => States::default(),
    }
}

fn keep(state: State, queue: StateQueue, driver: &Driver) -> Option<Keeping> {
    let written = state.remembered.into_values();
    let counters = driver.counters().clone();
    match keeper::start(state.directory, queue.clone(), written, counters) {
        Ok(thread) => Some(Keeping { queue, thread }),
        Err(error) => {
            tracing::error!(
                "what flows remember is not kept: cannot start the thread `states`: {error}"
            );
            None
        }
    }
}

/// Waits until what the flows remembered last is written, but not for a disk that hangs.
async fn finish(keeping: Keeping) {
    keeping.queue.close();
    let deadline = tokio::time::Instant::now() + WRITTEN_LATEST;
    while !keeping.thread.is_finished() {
        if tokio::time::Instant::now() > deadline {
            return tracing::error!(
                "what flows remember is not written after {WRITTEN_LATEST:?}: does the disk hang? They go on from what was written before"
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Delivery {
    fn uplink(&self) -> MutexGuard<'_, Option<Uplink>> {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Option<ControlSocket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the outbox is opened with, and what is started then.
struct Opens {
    first_claim: Result<Option<Claim>, OpenError>,
    settings: outbox::Settings,
    pressure: Pressure,
    uplink: Option<uplink::Settings>,
}

impl Opens {
    /// Opens the outbox, however often it takes, and starts what needs it.
    async fn open(self, meter: Meter, taps: Taps) {
        let Opens {
            first_claim,
            settings,
            pressure,
            uplink,
        } = self;
        let mut claim = first_claim.transpose();
        let mut last_problem = String::new();
        let (outbox, opening) = loop {
            let (settings_again, clock) = (settings.clone(), meter.clock.clone());
            let (next_claim, pressure) = (claim.take(), pressure.clone());
            let opened = tokio::task::spawn_blocking(move || {
                next_claim
                    .unwrap_or_else(|| Claim::take(settings_again))?
                    .open(clock, pressure)
            });
            let problem = match opened.await {
                Ok(Ok(opened)) => break opened,
                Ok(Err(error)) => chain(&error),
                Err(error) => error.to_string(),
            };
            if problem != last_problem {
                tracing::error!(
                    "{problem}; flows and control run, nothing goes up, what is to be delivered is kept in memory, and the outbox is \
                     tried again every {OPEN_AGAIN:?}"
                );
                last_problem = problem;
            }
            tokio::time::sleep(OPEN_AGAIN).await;
        };
        report(&opening);
        let delivery = &meter.delivery;
        if let Some(uplink) = uplink {
            let uplink = Uplink::start(uplink, outbox.clone(), meter.clock.clone());
            // It is set here only, once.
            let _ = delivery.link.set(uplink.status());
            *delivery.uplink() = Some(uplink);
        }
        delivery.outbox.set(outbox);
        *delivery.socket() = listen(&settings.path, &meter, taps);
    }
}

fn listen(directory: &Path, meter: &Meter, taps: Taps) -> Option<ControlSocket> {
    ControlSocket::listen(directory, meter.clone(), taps)
        .inspect_err(|error| {
            tracing::warn!(
                "other commands cannot ask this process: no socket in {}: {error}",
                directory.display()
            );
        })
        .ok()
}

fn report(opening: &Opening) {
    let Opening {
        epoch,
        stored,
        damaged,
        missing,
        is_unexpectedly_empty,
    } = *opening;
    tracing::info!("outbox: start {epoch} of this device, {stored} records to deliver");
    if damaged > 0 || missing > 0 {
        tracing::error!(
            "outbox: {damaged} damaged groups were set aside and {missing} records are missing; they count as dropped; the \
             rest is delivered; check the SD card"
        );
    }
    if is_unexpectedly_empty {
        tracing::error!(
            "outbox: it is empty although it held records at the last stop; was its directory replaced?"
        );
    }
}

/// Reads a device's totals.
#[derive(Clone)]
pub struct Meter {
    counters: Arc<Counters>,
    delivery: Arc<Delivery>,
    clock: Clock,
}

impl Meter {
    pub fn read(&self) -> Totals {
        let status = self.delivery.link.get().map(|link| link.borrow().clone());
        let Counters {
            readings,
            raw_bytes,
            failures,
            edges_dropped,
            links_dropped,
            dropped_before_outbox,
            missed,
            panics,
            output_errors,
            state_bytes,
            state_errors,
        } = &*self.counters;
        Totals {
            readings: readings.get(),
            ledger: self
                .delivery
                .outbox
                .get()
                .map(Outbox::ledger)
                .unwrap_or_default(),
            raw_bytes: raw_bytes.get(),
            uplink_bytes: status
                .as_ref()
                .map_or(0, |status| status.counts().publish_bytes),
            outage_seconds: status
                .as_ref()
                .map_or(0, |status| status.outage(self.clock.now()).as_secs()),
            failures: failures.get(),
            edges_dropped: edges_dropped.get(),
            links_dropped: links_dropped.get(),
            dropped_before_outbox: dropped_before_outbox.get(),
            missed: missed.get(),
            panics: panics.get(),
            output_errors: output_errors.get(),
            state_bytes: state_bytes.get(),
            state_errors: state_errors.get(),
            is_up: u8::from(status.is_some_and(|status| status.is_up())),
        }
    }
}

/// The board to run on; where it cannot be had, one that says so whenever it is used.
pub fn open_board(settings: &crate::config::Board, clock: &Clock) -> Box<dyn Board> {
    board::open(
        settings.kind,
        settings.chip.as_deref(),
        &settings.simulation,
        clock,
    )
    .unwrap_or_else(|error| Box::new(board::Missing::new(chain(&error))))
}

/// Keeps live time with the wall clock. A clock without a battery is set some time after the start: then what was stamped before is put
/// right, once.
async fn reanchor(meter: Meter) {
    let Meter {
        clock, delivery, ..
    } = meter;
    let mut held_back = false;
    let mut may_be_unset = !Path::new(SYNCHRONIZED).exists();
    loop {
        tokio::time::sleep(REANCHOR_EVERY).await;
        let is_news = !held_back;
        held_back = false;
        match clock.reanchor() {
            Reanchor::Agrees => {}
            Reanchor::Followed(step) => {
                let mut before = "";
                if may_be_unset
                    && step >= RESTAMP_FROM
                    && let Some(outbox) = delivery.outbox.get()
                {
                    may_be_unset = false;
                    outbox.restamp(step);
                    before = ", and what waits in the outbox since the start is sent with a time that is later by as much";
                }
                tracing::warn!(
                    "the wall clock went ahead by {step:?}; messages are stamped with the new time{before}"
                );
            }
            Reanchor::HeldBack(step) => {
                held_back = true;
                if is_news {
                    tracing::warn!(
                        "the wall clock went back by {step:?}; messages are stamped with the old time, so that no window \
                         comes twice, until the clock catches up or tidegate starts again"
                    );
                }
            }
        }
    }
}

impl Backlog for Outbox {
    fn peek(&self, lane: Lane, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        Outbox::peek(self, lane, after, limit)
    }
    fn last(&self) -> RecordId {
        Outbox::last(self)
    }
    fn acknowledge(&self, key: Key) {
        Outbox::acknowledge(self, key);
    }
    fn dead_letter(&self, key: Key, reason: &str) {
        Outbox::dead_letter(self, key, reason);
    }
    async fn changed(&self) {
        Outbox::changed(self).await;
    }
}
