//! The uplink of the simulation: the real [`Courier`], with an MQTT client that behaves as rumqttc and `mqtt.rs` do together, but
//! without a socket, a future or a clock.
//!
//! What happens comes in as a [`Signal`]; what is to be done goes out as a [`Deed`]. A connection has a number, and no other
//! one ever has it.

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Backlog;
use super::courier::{Client, Courier};
use super::drain::DrainLimits;
use super::reason::Failure;
use super::status::{Counts, Reporter, Status};
use super::timing::{Backoff, Stalled, Timing};
use super::wire::Packet;
use crate::runtime::clock::Clock;
use crate::simulation::Random;

/// What the settings say, in the simulation's own small numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSettings {
    pub(crate) window: u16,
    /// Packet ids in turn, many times the window, as in `mqtt.rs`.
    pub(crate) packet_ids: u16,
    pub(crate) keep_alive: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) max_packet: usize,
    pub(crate) drain: DrainLimits,
}

/// What happens to the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It is time for the next attempt.
    Retry,
    /// The broker has answered CONNECT.
    Connected(u32),
    Refused(u32),
    ConnectTimeout(u32),
    /// The network says that the connection is gone.
    Closed(u32),
    PingAnswered(u32),
    Acknowledged(u32, u16),
    KeepAlive(u32),
    StallCheck(u32),
    /// The socket takes more.
    Flushed(u32),
    /// More of what waited may go.
    Resume(u32),
    /// Nothing in particular: there may be more in the backlog.
    Look,
}

/// What the uplink does.
#[derive(Debug)]
pub(crate) enum Deed {
    Connect(u32),
    Publish(u32, u16, Packet),
    Ping(u32),
    /// The connection is given up, or the attempt at one. There were so many records on their way.
    GiveUp {
        connection: u32,
        why: String,
        outstanding: usize,
    },
    After(Duration, Signal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    Connecting,
    Up { since: Duration },
}

pub(crate) struct Link {
    settings: LinkSettings,
    timing: Timing,
    courier: Courier,
    status: tokio::sync::watch::Receiver<Status>,
    backoff: Backoff,
    random: Random,
    connection: u32,
    state: State,
    client: SimulatedClient,
    stalled: Stalled,
    awaits_ping: bool,
    /// Whether a peek may give more.
    more: bool,
}

/// What rumqttc remembers of a connection.
#[derive(Debug, Default)]
struct SimulatedClient {
    queue: VecDeque<Packet>,
    in_use: BTreeSet<u16>,
    last: u16,
}

impl Client for SimulatedClient {
    fn publish(&mut self, packet: Packet) -> Result<(), Failure> {
        self.queue.push_back(packet);
        Ok(())
    }
}

impl Link {
    /// A link of a device that has just started; `first` is the number of its first connection.
    pub(crate) fn new(settings: LinkSettings, first: u32, random: Random) -> Link {
        let timing = Timing {
            backoff_max: settings.retry_max,
            ..Timing::default()
        };
        // Its clock is for the status, at which nobody looks here.
        let (reporter, status) = Reporter::new(Clock::start());
        Link {
            courier: Courier::new(
                settings.window,
                reporter,
                "d".to_owned(),
                settings.max_packet,
                settings.drain,
            ),
            status,
            backoff: Backoff::new(timing.backoff_min, timing.backoff_max),
            settings,
            timing,
            random,
            connection: first.wrapping_sub(1),
            state: State::Resting,
            client: SimulatedClient::default(),
            stalled: Stalled::default(),
            awaits_ping: false,
            more: true,
        }
    }

    pub(crate) fn connection(&self) -> u32 {
        self.connection
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.courier.outstanding()
    }

    pub(crate) fn queued(&self) -> usize {
        self.client.queue.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.status.borrow().counts()
    }

    /// Takes what has happened, and does what follows from it.
    pub(crate) fn handle(
        &mut self,
        signal: Signal,
        now: Duration,
        backlog: &impl Backlog,
        deeds: &mut Vec<Deed>,
    ) {
        if let Err(failure) = self.try_handle(signal, now, backlog, deeds) {
            self.give_up(&failure, now, deeds);
        }
    }

    fn try_handle(
        &mut self,
        signal: Signal,
        now: Duration,
        backlog: &impl Backlog,
        deeds: &mut Vec<Deed>,
    ) -> Result<(), Failure> {
        let is_up = matches!(self.state, State::Up { .. });
        match signal {
            Signal::Retry if self.state == State::Resting => {
                self.connection = self.connection.wrapping_add(1);
                self.state = State::Connecting;
                deeds.push(Deed::Connect(self.connection));
                let timeout = Signal::ConnectTimeout(self.connection);
                deeds.push(Deed::After(self.timing.connect_timeout, timeout));
            }
            Signal::Connected(it) if it == self.connection && self.state == State::Connecting => {
                self.state = State::Up { since: now };
                self.courier.connected(backlog.last());
                self.stalled = Stalled::default();
                self.awaits_ping = false;
                self.more = true;
                let keep_alive = self.settings.keep_alive;
                deeds.push(Deed::After(keep_alive, Signal::KeepAlive(it)));
                deeds.push(Deed::After(Duration::ZERO, Signal::StallCheck(it)));
                self.pump(now, backlog, deeds)?;
            }
            Signal::Refused(it) if it == self.connection && self.state == State::Connecting => {
                return Err(Failure::Closed);
            }
            Signal::ConnectTimeout(it)
                if it == self.connection && self.state == State::Connecting =>
            {
                return Err(Failure::ConnectTimeout);
            }
            Signal::Closed(it) if it == self.connection && self.state != State::Resting => {
                return Err(Failure::Closed);
            }
            Signal::PingAnswered(it) if it == self.connection && is_up => {
                self.awaits_ping = false;
                self.pump(now, backlog, deeds)?;
            }
            Signal::Acknowledged(it, packet_id) if it == self.connection && is_up => {
                // The courier gets what was read also if rumqttc then says that nobody asked for it.
                let is_known = self.client.in_use.remove(&packet_id);
                self.courier.acknowledged(packet_id, backlog);
                if !is_known {
                    return Err(Failure::UnexpectedAck(packet_id));
                }
                self.pump(now, backlog, deeds)?;
            }
            Signal::KeepAlive(it) if it == self.connection && is_up => {
                if self.awaits_ping {
                    return Err(Failure::Silent);
                }
                self.awaits_ping = true;
                deeds.push(Deed::Ping(it));
                let again = Signal::KeepAlive(it);
                deeds.push(Deed::After(self.settings.keep_alive, again));
            }
            Signal::StallCheck(it) if it == self.connection && is_up => {
                if self.stalled.for_too_long(self.courier.oldest()) {
                    return Err(Failure::NotAcknowledged);
                }
                self.more = true;
                let again = Signal::StallCheck(it);
                deeds.push(Deed::After(self.settings.keep_alive, again));
                self.pump(now, backlog, deeds)?;
            }
            Signal::Flushed(it) if it == self.connection && is_up => {
                self.pump(now, backlog, deeds)?
            }
            Signal::Resume(it) if it == self.connection && is_up => {
                self.more = true;
                self.pump(now, backlog, deeds)?;
            }
            Signal::Look if is_up => {
                if !self.more && has_changed(backlog) {
                    self.more = true;
                }
                if self.more && self.courier.room() > 0 {
                    self.pump(now, backlog, deeds)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Hands over, and sends, as far as window and socket go.
    fn pump(
        &mut self,
        now: Duration,
        backlog: &impl Backlog,
        deeds: &mut Vec<Deed>,
    ) -> Result<(), Failure> {
        loop {
            while self.more && self.courier.room() > 0 {
                self.more = self.courier.hand_over(now, backlog, &mut self.client)?;
            }
            self.send(deeds)?;
            // As `exchange` does: a wake-up that came meanwhile is not left lying.
            if self.more || self.courier.room() == 0 || !has_changed(backlog) {
                if let Some(later) = self.courier.resumes_at().filter(|_| !self.more) {
                    let resume = Signal::Resume(self.connection);
                    deeds.push(Deed::After(later.saturating_sub(now), resume));
                }
                return Ok(());
            }
            self.more = true;
        }
    }

    fn send(&mut self, deeds: &mut Vec<Deed>) -> Result<(), Failure> {
        while let Some(packet) = self.client.queue.pop_front() {
            let packet_id = self.client.last % self.settings.packet_ids + 1;
            if self.client.in_use.contains(&packet_id) {
                // rumqttc holds it back until that id is acknowledged.
                self.client.queue.push_front(packet);
                return Ok(());
            }
            self.client.last = packet_id;
            self.client.in_use.insert(packet_id);
            self.courier.published(packet_id)?;
            deeds.push(Deed::Publish(self.connection, packet_id, packet));
            if self.random.one_in(10) && !self.client.queue.is_empty() {
                // The socket's buffer is full.
                let pause = Duration::from_millis(self.random.between(1, 80));
                deeds.push(Deed::After(pause, Signal::Flushed(self.connection)));
                return Ok(());
            }
        }
        Ok(())
    }

    fn give_up(&mut self, failure: &Failure, now: Duration, deeds: &mut Vec<Deed>) {
        let outstanding = self.courier.outstanding();
        self.courier.disconnected();
        self.client = SimulatedClient::default();
        if let State::Up { since } = self.state
            && now.saturating_sub(since) >= self.timing.stable
        {
            self.backoff.reset();
        }
        self.state = State::Resting;
        deeds.push(Deed::GiveUp {
            connection: self.connection,
            why: failure.to_string(),
            outstanding,
        });
        let wait = self.backoff.next_with(self.random.below(1_001) as u32);
        deeds.push(Deed::After(wait, Signal::Retry));
    }
}

/// Whether the backlog says that there may be more; it says so once.
fn has_changed(backlog: &impl Backlog) -> bool {
    let changed = pin!(backlog.changed());
    let mut context = Context::from_waker(Waker::noop());
    changed.poll(&mut context) == Poll::Ready(())
}
