//! The uplink: takes records from the outbox, in order, and publishes them to the cloud broker over mutual TLS; a record
//! is given back as acknowledged on its own PUBACK and never before.
//!
//! # Layout
//! - [`address`] and [`tls`]: what the settings say, checked; `pem`: the files they name;
//!   [`expiry`]: how long those are good for; [`profile`]: what well-known brokers take
//! - [`wire`]: a record as a PUBLISH packet
//! - `session`: the pure state machine that pairs packets, records and acknowledgements
//! - `courier`: what goes from the backlog to a client, and back, once a connection stands; pure, too
//! - `drain`: how fast what waited may go
//! - `presence`: whether the device is there, as it says itself and its last will
//! - `renewal`: new certificate files, tried beside the connection that stands
//! - `mqtt`: the one task that moves bytes; the only file that names the MQTT library
//! - [`reason`] and [`status`]: what went wrong, in words, and how much went through
//!
//! Must not: store anything, know flows, or publish anything but records and the device's presence.

pub mod address;
mod courier;
mod drain;
pub mod expiry;
mod explain;
mod mqtt;
mod pem;
mod presence;
pub mod profile;
pub mod reason;
mod renewal;
mod session;
pub mod status;
mod timing;
pub mod tls;
pub mod wire;

#[cfg(test)]
mod mqtt_test;
#[cfg(test)]
mod refusal_test;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod test_backlog;
#[cfg(test)]
mod test_broker;
#[cfg(test)]
mod test_pki;
#[cfg(test)]
mod test_world;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use address::{Address, UrlError, parse_url};
pub use drain::DrainLimits;
pub use presence::Presence;
pub use reason::{Kind, Reason};
pub use status::{Counts, LinkState, Status};
pub use tls::Files;

use crate::outbox::{Key, Lane, Record, RecordId};
use crate::runtime::clock::Clock;

/// What the uplink needs of the outbox.
pub trait Backlog: Send + Sync + 'static {
    /// At most `limit` records of a lane after `after` (from the oldest one without it), in the order of their ids. Records
    /// that were acknowledged or given back as dead letters are not among them. It does not block, and may give fewer than
    /// there are, or none; then [`Backlog::changed`] tells when to ask again.
    fn peek(&self, lane: Lane, after: Option<RecordId>, limit: usize) -> Vec<Arc<Record>>;

    /// The id that was given last: what comes from now on is later.
    fn last(&self) -> RecordId;

    /// The broker has acknowledged this record.
    fn acknowledge(&self, key: Key);

    /// This record can never be sent.
    fn dead_letter(&self, key: Key, reason: &str);

    /// Waits until `peek` may give more than it gave before. A change between that `peek` and this call must not be
    /// lost: it needs a permit that is kept, as `tokio::sync::Notify::notify_one` keeps one.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// The uplink's settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    /// Further ways to the same cloud: other nodes of a cluster. Tried in turn when one fails.
    pub alternatives: Vec<Address>,
    pub files: Files,
    /// The device's id: the MQTT client id, and `device` in the envelope.
    pub client_id: String,
    /// The window: how many records may be sent and unacknowledged. At least 1.
    pub inflight: u16,
    /// How often an idle connection is tried. Whole seconds, from 1 to 65535.
    pub keep_alive: Duration,
    /// The greatest PUBLISH packet, in bytes; what does not fit becomes a dead letter.
    pub max_packet: usize,
    /// The longest wait between two attempts to connect; at least 200 ms, the shortest.
    pub retry_max: Duration,
    /// How fast what waited may go.
    pub drain: DrainLimits,
    /// Where the device says whether it is there; none if it does not.
    pub presence: Option<Presence>,
}

impl Settings {
    /// All addresses, in the order in which they are tried.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        std::iter::once(&self.address).chain(&self.alternatives)
    }

    /// The defaults for everything that has one.
    pub fn new(address: Address, files: Files, client_id: String) -> Settings {
        Settings {
            address,
            alternatives: Vec::new(),
            files,
            client_id,
            inflight: 100,
            keep_alive: Duration::from_secs(15),
            max_packet: 256 * 1024,
            retry_max: Duration::from_secs(30),
            drain: DrainLimits::default(),
            presence: None,
        }
    }
}

/// A running uplink.
#[derive(Debug)]
pub struct Uplink {
    status: watch::Receiver<Status>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Uplink {
    /// Starts the uplink on the current tokio runtime. It never gives up: whatever keeps it down is in its status, and
    /// it goes on by itself when that is gone.
    pub fn start(settings: Settings, backlog: impl Backlog, clock: Clock) -> Uplink {
        let timing = timing::Timing {
            backoff_max: settings.retry_max,
            ..timing::Timing::default()
        };
        Uplink::start_with(settings, backlog, clock, timing)
    }

    fn start_with(
        settings: Settings,
        backlog: impl Backlog,
        clock: Clock,
        timing: timing::Timing,
    ) -> Uplink {
        let (reporter, status) = status::Reporter::new(clock.clone());
        let (stop, stopped) = oneshot::channel();
        let expiry = expiry::watch(settings.files.clone(), status.clone(), UnixTime::now);
        let worker = mqtt::Worker::new(settings, timing, backlog, clock, reporter);
        let task = async move {
            tokio::select! {
                () = worker.run(stopped) => {}
                never = expiry => match never {},
            }
        };
        Uplink {
            status,
            stop,
            task: tokio::spawn(task),
        }
    }

    /// The state of the link, which wakes its readers when it changes, and the live counters.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Hands over nothing more, waits up to a second for acknowledgements, says goodbye to the broker and returns.
    pub async fn stop(self) {
        // The task may have ended already, if it panicked; the next line tells.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!("the uplink ended badly: {error}; its records are still in the outbox");
        }
    }
}
