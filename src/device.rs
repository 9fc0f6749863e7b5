//! A running device: flows, board, outbox and uplink, put together.
//!
//! Whatever is wrong with one part, the others run: a missing board leaves flows whose readings fail, a bad certificate
//! leaves an uplink that is down and an outbox that fills.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::{self, Board};
use crate::flow::Graph;
use crate::outbox::{self, Ledger, Opening, Outbox, Record, RecordId};
use crate::runtime::Counters;
use crate::runtime::clock::{Clock, Reanchor};
use crate::runtime::driver::{Driver, ThreadError, World, chain};
use crate::uplink::{self, Backlog, Status, Uplink};

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
    outbox: Outbox,
    uplink: Option<Uplink>,
    clock: Clock,
    reanchoring: JoinHandle<()>,
}

/// Why a device does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Outbox(#[from] outbox::OpenError),
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
    pub panics: u64,
    pub is_up: u8,
}

impl Device {
    /// Starts everything, on the current tokio runtime and on threads of its own.
    pub fn start(parts: Parts) -> Result<(Device, Opening), StartError> {
        let Parts {
            id,
            flows,
            board,
            outbox,
            uplink,
            clock,
        } = parts;
        let (outbox, opening) = Outbox::open(outbox, clock.clone())?;
        let world = World {
            device: id,
            clock: clock.clone(),
            board,
            outbox: outbox.clone(),
        };
        let driver = Driver::start(flows, world)?;
        let uplink = uplink.map(|settings| Uplink::start(settings, outbox.clone(), clock.clone()));
        let reanchoring = tokio::spawn(reanchor(clock.clone()));
        let counters = driver.counters().clone();
        Ok((
            Device {
                driver: Some(driver),
                counters,
                outbox,
                uplink,
                clock,
                reanchoring,
            },
            opening,
        ))
    }

    /// The ids of all records of this start, whatever became of them.
    pub fn accepted_ids(&self) -> impl Iterator<Item = RecordId> + use<> {
        let epoch = self.outbox.epoch();
        (1..=self.outbox.last_seq()).map(move |seq| RecordId { epoch, seq })
    }

    /// The state of the link; none without an uplink.
    pub fn link(&self) -> Option<watch::Receiver<Status>> {
        self.uplink.as_ref().map(Uplink::status)
    }

    /// Reads the totals; can be taken elsewhere.
    pub fn meter(&self) -> Meter {
        Meter {
            counters: self.counters.clone(),
            outbox: self.outbox.clone(),
            link: self.link(),
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
    pub async fn stop(self) -> Ledger {
        let device = self.stop_flows().await;
        device.reanchoring.abort();
        if let Some(uplink) = device.uplink {
            uplink.stop().await;
        }
        let outbox = device.outbox;
        tokio::task::spawn_blocking(move || outbox.close())
            .await
            .unwrap_or_else(|error| {
                tracing::error!("closing the outbox failed: {error}");
                Ledger::default()
            })
    }
}

/// Reads a device's totals.
#[derive(Clone)]
pub struct Meter {
    counters: Arc<Counters>,
    outbox: Outbox,
    link: Option<watch::Receiver<Status>>,
    clock: Clock,
}

impl Meter {
    pub fn read(&self) -> Totals {
        let status = self.link.as_ref().map(|link| link.borrow().clone());
        Totals {
            readings: self.counters.readings.get(),
            ledger: self.outbox.ledger(),
            raw_bytes: self.counters.raw_bytes.get(),
            uplink_bytes: status
                .as_ref()
                .map_or(0, |status| status.counts().publish_bytes),
            outage_seconds: status
                .as_ref()
                .map_or(0, |status| status.outage(self.clock.now()).as_secs()),
            failures: self.counters.failures.get(),
            edges_dropped: self.counters.edges_dropped.get(),
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
