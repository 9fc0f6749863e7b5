//! Carries records from the backlog to an MQTT client, and acknowledgements back: all that the uplink decides once a
//! connection stands, without a socket, a future or a clock.
//!
//! `mqtt` gives it rumqttc's client; the simulation gives it a network of its own. Both run the same lines here.
//!
//! Must not: know who the client is, or wait.

use std::time::Duration;

use super::Backlog;
use super::drain::{Drain, DrainLimits};
use super::reason::Failure;
use super::session::{Acknowledged, Part, Session};
use super::status::Reporter;
use super::wire::Packet;
use crate::outbox::{Record, RecordId};

/// What takes packets and sends them, in order, under packet ids of its own choice.
pub(crate) trait Client {
    /// Takes a packet. It neither waits nor refuses: the window is not larger than its queue.
    fn publish(&mut self, packet: Packet) -> Result<(), Failure>;
}

pub(crate) struct Courier {
    session: Session,
    reporter: Reporter,
    client_id: String,
    max_packet: usize,
    drain: Drain,
    /// When more of what waited may go, if the last hand-over stopped for that.
    resumes_at: Option<Duration>,
    /// The parts that it stopped in: until then they need not be looked at, which may cost reading from the disk.
    held_up: [bool; Part::ALL.len()],
}

impl Courier {
    /// A courier without a connection, for at most `window` records on their way; `max_packet` limits a PUBLISH packet, in bytes.
    pub(crate) fn new(
        window: u16,
        reporter: Reporter,
        client_id: String,
        max_packet: usize,
        drain: DrainLimits,
    ) -> Courier {
        Courier {
            session: Session::new(window),
            reporter,
            client_id,
            max_packet,
            drain: Drain::new(drain),
            resumes_at: None,
            held_up: Default::default(),
        }
    }

    /// A connection stands: hand-over may begin. `last` is [`Backlog::last`].
    pub(crate) fn connected(&mut self, last: RecordId) {
        self.held_up = Default::default();
        self.session.connected(last);
    }

    /// The connection is gone. What was on its way is taken from the backlog again by the next one.
    pub(crate) fn disconnected(&mut self) {
        self.session.disconnected();
    }

    /// Hands over what the window and the limits of draining have room for. Says whether there may be more; if it is only later, then
    /// [`Courier::resumes_at`] says when.
    pub(crate) fn hand_over(
        &mut self,
        now: Duration,
        backlog: &impl Backlog,
        client: &mut impl Client,
    ) -> Result<bool, Failure> {
        if self.session.room() == 0 {
            return Ok(true);
        }
        let mut found = false;
        self.resumes_at = None;
        let later = self.drain.waits_until(now);
        for (at, part) in Part::ALL.into_iter().enumerate() {
            if self.held_up[at] && later.is_some() {
                self.resumes_at = later;
                continue;
            }
            self.held_up[at] = false;
            let room = self.session.room();
            if room == 0 {
                break;
            }
            for record in backlog.peek(part.lane, self.session.cursor(part), room) {
                if !self.session.takes(part, record.id) {
                    break;
                }
                let waited = self.session.is_from_before(record.id);
                if waited && let Some(later) = self.drain.waits_until(now) {
                    self.resumes_at = Some(later);
                    self.held_up[at] = true;
                    break;
                }
                found = true;
                let size = self.hand_over_one(part, &record, backlog, client)?;
                if waited {
                    self.drain.take(size, now);
                }
            }
        }
        Ok(found)
    }

    /// Gives the size of the packet.
    fn hand_over_one(
        &mut self,
        part: Part,
        record: &Record,
        backlog: &impl Backlog,
        client: &mut impl Client,
    ) -> Result<usize, Failure> {
        match Packet::new(record, &self.client_id, self.max_packet, part.replayed) {
            Ok(packet) => {
                let size = packet.size;
                client.publish(packet)?;
                self.session.hand_over(part, record.id, size);
                Ok(size)
            }
            Err(reason) => {
                self.session.pass_over(part, record.id);
                self.reporter.dead_lettered();
                backlog.dead_letter(record.key(), &reason.to_string());
                Ok(0)
            }
        }
    }

    /// Hands over what is no record. There is room for it.
    pub(crate) fn announce(
        &mut self,
        packet: Packet,
        client: &mut impl Client,
    ) -> Result<(), Failure> {
        let size = packet.size;
        client.publish(packet)?;
        self.session.announce(size);
        Ok(())
    }

    /// When to hand over more of what waited.
    pub(crate) fn resumes_at(&self) -> Option<Duration> {
        self.resumes_at
    }

    /// The client has sent the next packet, under this id.
    pub(crate) fn published(&mut self, packet_id: u16) -> Result<(), Failure> {
        let sent = self.session.published(packet_id)?;
        self.reporter.published(sent.bytes, sent.again);
        Ok(())
    }

    /// The broker has sent a PUBACK with this id.
    pub(crate) fn acknowledged(&mut self, packet_id: u16, backlog: &impl Backlog) {
        match self.session.acknowledged(packet_id) {
            Acknowledged::Record(key) => {
                self.reporter.acknowledged();
                backlog.acknowledge(key);
            }
            Acknowledged::Announcement => {}
            Acknowledged::Nothing => self.reporter.unexpected_ack(),
        }
    }

    /// How many records may be handed over now.
    pub(crate) fn room(&self) -> usize {
        self.session.room()
    }

    /// How many records are on their way.
    pub(crate) fn outstanding(&self) -> usize {
        self.session.outstanding()
    }

    /// The number of what has been on its way for the longest time.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.session.oldest()
    }

    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }
}
