//! A running device: flows, board, outbox and uplink, put together.
//!
//! Whatever is wrong with one part, the others run: a missing board leaves flows whose readings fail, a bad certificate
//! leaves an uplink that is down and an outbox that fills.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::{self, Board};
use crate::flow::Graph;
use crate::outbox::{self, Ledger, OpenError, Opening, Outbox, Record, RecordId};
use crate::runtime::Counters;
use crate::runtime::clock::{Clock, Reanchor};
use crate::runtime::driver::{Driver, LateOutbox, ThreadError, World, chain};
use crate::uplink::{self, Backlog, Status, Uplink};

/// How often an outbox that cannot be opened is tried again.
const OPEN_AGAIN: Duration = Duration::from_secs(10);

/// How often live time is compared with the wall clock.
const REANCHOR_EVERY: Duration = Duration::from_secs(1);

/// Everything a device is made of, checked.
pub struct Parts {
    pub id: String,
    pub flows: Vec<Arc<Graph>>,
    pub board: Box<dyn Board>,
    pub outbox: outbox::Settings,
    pub uplink: Option<uplink::Settings>,
    pub clock: Clock,
}

/// A running device.
pub struct Device {
    /// None once the flows have stopped.
    driver: Option<Driver>,
    counters: Arc<Counters>,
    delivery: Arc<Delivery>,
    clock: Clock,
    /// What goes on beside the flows, until the device stops.
    helpers: Vec<JoinHandle<()>>,
}

/// Outbox and uplink. Both come late if the outbox's disk cannot be used at the start.
struct Delivery {
    outbox: LateOutbox,
    link: OnceLock<watch::Receiver<Status>>,
    uplink: Mutex<Option<Uplink>>,
}

/// Why a device does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Outbox(#[from] OpenError),
    #[error(transparent)]
    Thread(#[from] ThreadError),
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
    pub failures: u64,
    pub edges_dropped: u64,
    /// What flows wanted to deliver while the outbox could not be opened, and memory did not hold.
    pub dropped_before_outbox: u64,
    pub panics: u64,
    pub is_up: u8,
}

impl Device {
    /// Starts everything, on the current tokio runtime and on threads of its own. An outbox whose disk cannot be used is
    /// tried again and again while the flows run; only one that is in use by another process is an error.
    pub fn start(parts: Parts) -> Result<Device, StartError> {
        let Parts {
            id,
            flows,
            board,
            outbox,
            uplink,
            clock,
        } = parts;
        let delivery = Arc::new(Delivery {
            outbox: LateOutbox::default(),
            link: OnceLock::new(),
            uplink: Mutex::new(None),
        });
        let mut helpers = vec![tokio::spawn(reanchor(clock.clone()))];
        match Outbox::open(outbox.clone(), clock.clone()) {
            Ok((outbox, opening)) => delivery.begin(outbox, &opening, uplink, &clock),
            Err(error @ OpenError::InUse { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::error!(
                    "{}; flows and control run, what they want to deliver is kept in memory, and the outbox is tried again \
                     every {OPEN_AGAIN:?}",
                    chain(&error)
                );
                helpers.push(tokio::spawn(open_late(
                    outbox,
                    uplink,
                    clock.clone(),
                    delivery.clone(),
                )));
            }
        }
        let world = World {
            device: id,
            clock: clock.clone(),
            board,
            outbox: delivery.outbox.clone(),
        };
        let driver = Driver::start(flows, world)?;
        let counters = driver.counters().clone();
        Ok(Device {
            driver: Some(driver),
            counters,
            delivery,
            clock,
            helpers,
        })
    }

    /// The ids of all records of this start, whatever became of them.
    pub fn accepted_ids(&self) -> impl Iterator<Item = RecordId> + use<> {
        let outbox = self.delivery.outbox.get();
        let (epoch, last) = outbox.map_or((0, 0), |outbox| (outbox.epoch(), outbox.last_seq()));
        (1..=last).map(move |seq| RecordId { epoch, seq })
    }

    /// Reads the totals; can be taken elsewhere.
    pub fn meter(&self) -> Meter {
        Meter {
            counters: self.counters.clone(),
            delivery: self.delivery.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Counts up while the engine threads are alive.
    pub fn beats(&self) -> Vec<Arc<AtomicU64>> {
        self.driver.iter().flat_map(Driver::beats).collect()
    }

    /// Stops the flows, which puts outputs to their safe level; what they wanted to deliver is delivered on.
    pub async fn stop_flows(mut self) -> Device {
        if let Some(driver) = self.driver.take() {
            // Joining threads blocks; the link goes on meanwhile.
            let stopped = tokio::task::spawn_blocking(move || driver.stop()).await;
            if let Err(error) = stopped {
                tracing::error!("stopping the flows failed: {error}");
            }
        }
        self
    }

    /// Stops: outputs to their safe level first, then the link, then the outbox, synced. Waits for all of it.
    ///
    /// Gives the ledger; none if there never was an outbox.
    pub async fn stop(self) -> Option<Ledger> {
        let device = self.stop_flows().await;
        for helper in device.helpers {
            helper.abort();
            // It was told to end; how it does is of no interest.
            let _ = helper.await;
        }
        let uplink = device
            .delivery
            .uplink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(uplink) = uplink {
            uplink.stop().await;
        }
        let outbox = device.delivery.outbox.get()?.clone();
        let closed = tokio::task::spawn_blocking(move || outbox.close()).await;
        closed
            .inspect_err(|error| tracing::error!("closing the outbox failed: {error}"))
            .ok()
    }
}

impl Delivery {
    /// The outbox is there: says what was found in it, and starts the uplink.
    fn begin(
        &self,
        outbox: Outbox,
        opening: &Opening,
        uplink: Option<uplink::Settings>,
        clock: &Clock,
    ) {
        report(opening);
        if let Some(settings) = uplink {
            let uplink = Uplink::start(settings, outbox.clone(), clock.clone());
            // Both are set here only, and this is called once.
            let _ = self.link.set(uplink.status());
            *self.uplink.lock().unwrap_or_else(PoisonError::into_inner) = Some(uplink);
        }
        self.outbox.set(outbox);
    }
}

/// Tries to open the outbox until that works.
async fn open_late(
    settings: outbox::Settings,
    uplink: Option<uplink::Settings>,
    clock: Clock,
    delivery: Arc<Delivery>,
) {
    let mut last_error = String::new();
    loop {
        tokio::time::sleep(OPEN_AGAIN).await;
        let (settings, for_outbox) = (settings.clone(), clock.clone());
        let opened = tokio::task::spawn_blocking(move || Outbox::open(settings, for_outbox)).await;
        match opened {
            Ok(Ok((outbox, opening))) => return delivery.begin(outbox, &opening, uplink, &clock),
            Ok(Err(error)) if chain(&error) == last_error => {}
            Ok(Err(error)) => {
                last_error = chain(&error);
                tracing::error!("{last_error}; it is tried again every {OPEN_AGAIN:?}");
            }
            Err(error) => tracing::error!("opening the outbox failed: {error}"),
        }
    }
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
        Totals {
            readings: self.counters.readings.get(),
            ledger: self
                .delivery
                .outbox
                .get()
                .map(Outbox::ledger)
                .unwrap_or_default(),
            raw_bytes: self.counters.raw_bytes.get(),
            uplink_bytes: status
                .as_ref()
                .map_or(0, |status| status.counts().publish_bytes),
            outage_seconds: status
                .as_ref()
                .map_or(0, |status| status.outage(self.clock.now()).as_secs()),
            failures: self.counters.failures.get(),
            edges_dropped: self.counters.edges_dropped.get(),
            dropped_before_outbox: self.counters.dropped_before_outbox.get(),
            panics: self.counters.panics.get(),
            is_up: u8::from(status.is_some_and(|status| status.is_up())),
        }
    }
}

/// The board to run on; where it cannot be had, one that says so whenever it is used.
pub fn open_board(settings: &crate::config::Board, clock: &Clock) -> Box<dyn Board> {
    board::open(settings.kind, &settings.simulation, clock)
        .unwrap_or_else(|error| Box::new(board::Missing::new(chain(&error))))
}

async fn reanchor(clock: Clock) {
    let mut held_back = false;
    loop {
        tokio::time::sleep(REANCHOR_EVERY).await;
        match clock.reanchor() {
            Reanchor::Agrees => held_back = false,
            Reanchor::Followed(step) => {
                tracing::warn!(
                    "the wall clock went ahead by {step:?}; messages are stamped with the new time"
                );
            }
            Reanchor::HeldBack(step) if !held_back => {
                held_back = true;
                tracing::warn!(
                    "the wall clock went back by {step:?}; messages are stamped with the old time, so that no window comes \
                     twice, until the clock catches up or tidegate starts again"
                );
            }
            Reanchor::HeldBack(_) => {}
        }
    }
}

impl Backlog for Outbox {
    fn peek(&self, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>> {
        Outbox::peek(self, after, limit)
    }
    fn acknowledge(&self, id: RecordId) {
        Outbox::acknowledge(self, id);
    }
    fn dead_letter(&self, id: RecordId, reason: &str) {
        Outbox::dead_letter(self, id, reason);
    }
    async fn changed(&self) {
        Outbox::changed(self).await;
    }
}
