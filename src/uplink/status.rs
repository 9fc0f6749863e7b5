//! What the uplink says about itself: the state of the link, and counters.
//!
//! Counters are atomics, so that counting costs nothing at 50,000 messages a second; the watch channel wakes its
//! readers only when the link changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::expiry::Expiry;
use super::reason::Reason;
use crate::runtime::clock::{Clock, Now};

/// The state of the link to the cloud broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt since the start is under way.
    Connecting,
    Up,
    /// Not connected, for the reason of the last attempt; the next one is made by itself.
    Down {
        reason: Reason,
    },
}

/// The uplink at a glance. It is cheap to clone; the counters in it are live.
#[derive(Clone, Debug)]
pub struct Status {
    pub link: LinkState,
    /// Since when the link has been up, or not up.
    pub since: Now,
    /// The device's certificate that the link is up with, or last was.
    pub certificate: Option<Expiry>,
    /// Why newer certificate files are not used yet, while the link stands with those from before.
    pub newer_files: Option<Reason>,
    /// How long the link was not up, in all, before `since`.
    outage_before: Duration,
    counters: Arc<Counters>,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// PUBLISH packets given to the network, those sent again included.
    pub published: u64,
    /// Their size, in bytes of MQTT.
    pub publish_bytes: u64,
    /// Of `published`: those sent again after a reconnect.
    pub resent: u64,
    /// Records the broker has acknowledged.
    pub acknowledged: u64,
    /// PUBACKs that belong to no record in flight.
    pub unexpected_acks: u64,
    /// Records that can never be sent, given back as dead letters.
    pub dead_lettered: u64,
    /// Connections that came to stand.
    pub connects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    publish_bytes: AtomicU64,
    resent: AtomicU64,
    acknowledged: AtomicU64,
    unexpected_acks: AtomicU64,
    dead_lettered: AtomicU64,
    connects: AtomicU64,
}

impl Status {
    pub fn is_up(&self) -> bool {
        self.link == LinkState::Up
    }

    /// The totals now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Counts {
            published: read(&counters.published),
            publish_bytes: read(&counters.publish_bytes),
            resent: read(&counters.resent),
            acknowledged: read(&counters.acknowledged),
            unexpected_acks: read(&counters.unexpected_acks),
            dead_lettered: read(&counters.dead_lettered),
            connects: read(&counters.connects),
        }
    }

    /// How long the link was not up, in all, since the start.
    pub fn outage(&self, now: Now) -> Duration {
        match self.link {
            LinkState::Up => self.outage_before,
            _ => self.outage_before + now.mono.saturating_sub(self.since.mono),
        }
    }
}

/// The side that writes: the uplink's own tasks.
#[derive(Clone)]
pub(super) struct Reporter {
    status: watch::Sender<Status>,
    counters: Arc<Counters>,
    clock: Clock,
}

impl Reporter {
    pub(super) fn new(clock: Clock) -> (Reporter, watch::Receiver<Status>) {
        let counters = Arc::new(Counters::default());
        let (status, receiver) = watch::channel(Status {
            link: LinkState::Connecting,
            since: clock.now(),
            certificate: None,
            newer_files: None,
            outage_before: Duration::ZERO,
            counters: Arc::clone(&counters),
        });
        let reporter = Reporter {
            status,
            counters,
            clock,
        };
        (reporter, receiver)
    }

    pub(super) fn published(&self, bytes: usize, again: bool) {
        add(&self.counters.published, 1);
        add(&self.counters.publish_bytes, bytes as u64);
        add(&self.counters.resent, u64::from(again));
    }

    pub(super) fn acknowledged(&self) {
        add(&self.counters.acknowledged, 1);
    }

    pub(super) fn unexpected_ack(&self) {
        add(&self.counters.unexpected_acks, 1);
    }

    pub(super) fn dead_lettered(&self) {
        add(&self.counters.dead_lettered, 1);
    }

    /// The connection that has just come to stand is with this certificate.
    pub(super) fn certificate(&self, certificate: Option<Expiry>) {
        self.status.send_modify(|status| {
            status.certificate = certificate;
            status.newer_files = None;
        });
    }

    /// Newer certificate files are not used, for this reason; or there are none, or none that were tried.
    pub(super) fn newer_files(&self, reason: Option<Reason>) {
        self.status.send_if_modified(|status| {
            let news = status.newer_files != reason;
            status.newer_files = reason;
            news
        });
    }

    /// The link has come up; says how long it was not. A connection that follows another at once, with new certificates, is
    /// no outage.
    pub(super) fn up(&self) -> Duration {
        add(&self.counters.connects, 1);
        let now = self.clock.now();
        let mut outage = Duration::ZERO;
        self.status.send_modify(|status| {
            if status.link == LinkState::Up {
                return;
            }
            outage = now.mono.saturating_sub(status.since.mono);
            status.outage_before += outage;
            status.link = LinkState::Up;
            status.since = now;
        });
        outage
    }

    /// The link is down, or an attempt has failed. Says whether that is news: it was not down before, or for another
    /// kind of reason.
    pub(super) fn down(&self, reason: &Reason) -> bool {
        let mut news = true;
        self.status.send_if_modified(|status| {
            match &status.link {
                LinkState::Down { reason: before } if before == reason => {
                    news = false;
                    return false;
                }
                LinkState::Down { reason: before } => news = before.kind != reason.kind,
                LinkState::Up => status.since = self.clock.now(),
                LinkState::Connecting => {}
            }
            status.newer_files = None;
            status.link = LinkState::Down {
                reason: reason.clone(),
            };
            true
        });
        news
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::reason::Kind;

    #[test]
    fn a_change_is_news_once_and_outages_add_up() {
        let clock = Clock::start();
        let (reporter, mut receiver) = Reporter::new(clock.clone());
        let refused = Reason::new(Kind::ConnectionRefused, "nobody listens".to_owned());
        let slow = Reason::new(Kind::Timeout, "no answer".to_owned());

        assert!(reporter.down(&refused), "the first failure");
        assert!(receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        assert!(!reporter.down(&refused), "the same again");
        assert!(
            !receiver.has_changed().unwrap(),
            "readers are not woken for it"
        );
        assert!(reporter.down(&slow), "another reason");

        let first = reporter.up();
        assert!(first > Duration::ZERO);
        reporter.published(100, false);
        let up = receiver.borrow().clone();
        assert!(up.is_up());
        assert_eq!(up.outage(clock.now()), first, "while up it does not grow");
        assert!(reporter.down(&slow), "down again is news again");
        let down = receiver.borrow().clone();
        assert!(
            down.outage(clock.now().later(Duration::from_secs(5))) > first + Duration::from_secs(4)
        );
        assert_eq!(
            (
                up.counts().published,
                up.counts().publish_bytes,
                up.counts().connects
            ),
            (1, 100, 1),
            "counters are live, also in an older status"
        );
    }
}
