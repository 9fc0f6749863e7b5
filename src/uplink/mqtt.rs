//! Moves records to the broker: one task owns the MQTT client, its event loop and the session. The only file that names
//! rumqttc.
//!
//! rumqttc's own memory of a connection is thrown away when the connection ends (`Worker::reset`); the reasons are in
//! docs/decisions/0003-uplink-session.md.
//!
//! Must not: publish anything but records and the device's presence, subscribe, or let `poll` be dropped while a connection is to go on (it is not
//! cancel-safe: a publish being written would be lost).

use std::future::{pending, ready};
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Disconnect, Event, EventLoop, Incoming,
    LastWill, MqttOptions, MqttState, NetworkOptions, Outgoing, QoS, Request, StateError,
    TlsConfiguration, TlsError, Transport, mqttbytes,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, Sleep, interval, sleep, timeout};

use super::courier::{Client, Courier};
use super::explain::{Context, explain};
use super::reason::{Failure, Reason, Refusal};
use super::renewal::{self, Loaded, Renewal};
use super::status::Reporter;
use super::timing::{ACK_KEEP_ALIVES, Backoff, Stalled, Timing};
use super::tls::Stamps;
use super::wire::{self, Packet};
use super::{Address, Backlog, Settings};
use crate::runtime::clock::Clock;
use crate::runtime::driver::Prints;

/// The broker has nothing to send but answers of a few bytes.
const ANSWER_MAX: usize = 16 * 1024;

/// rumqttc's limit holds for the CONNECT too, whose client id may have 65535 bytes; `max_packet` is for publishes.
const CONNECT_MAX: usize = 65_535 + 64;

pub(super) struct Worker<B> {
    settings: Settings,
    timing: Timing,
    clock: Clock,
    backlog: B,
    backoff: Backoff,
    eventloop: EventLoop,
    client: AsyncClient,
    courier: Courier,
    /// Which of the addresses is used, or tried: its place among them.
    turn: usize,
    failures_in_round: usize,
    /// The broker has acknowledged that the device goes offline.
    is_known_offline: bool,
}

impl<B: Backlog> Worker<B> {
    pub(super) fn new(
        settings: Settings,
        timing: Timing,
        backlog: B,
        clock: Clock,
        reporter: Reporter,
    ) -> Worker<B> {
        let window = settings.inflight.max(1);
        let options = options(&settings, &settings.address);
        // The queue takes the whole window: `try_publish` never finds it full.
        let (client, mut eventloop) = AsyncClient::new(options, usize::from(window));
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(timing.connect_timeout.as_secs());
        eventloop.set_network_options(network);
        eventloop.state = new_state(window);
        Worker {
            backoff: Backoff::new(timing.backoff_min, timing.backoff_max),
            courier: Courier::new(
                window,
                reporter,
                settings.client_id.clone(),
                settings.max_packet.min(wire::MQTT_MAX_PACKET),
                settings.drain,
            ),
            client,
            settings,
            timing,
            clock,
            backlog,
            eventloop,
            turn: 0,
            failures_in_round: 0,
            is_known_offline: false,
        }
    }

    /// The broker that is used, or tried.
    fn address(&self) -> &Address {
        let mut addresses = self.settings.addresses();
        addresses
            .nth(self.turn)
            .expect("turns go round among the addresses")
    }

    /// After a failure: goes on to the next address. How long to wait before it is tried: a moment while others of this round have not had
    /// their turn, and longer after each round.
    fn next_address(&mut self) -> Duration {
        let addresses = self.settings.addresses().count();
        self.turn = (self.turn + 1) % addresses;
        self.failures_in_round += 1;
        if self.failures_in_round < addresses {
            return self.timing.backoff_min;
        }
        self.failures_in_round = 0;
        self.backoff.next()
    }

    /// Runs until `stop` is sent or dropped.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        // Files that a trial has shown to work.
        let mut tried = None;
        // Those that were in use before, until the new ones have connected.
        let mut before: Option<Loaded> = None;
        // Those that go on while the files are still those refused, whose stamps they have.
        let mut kept: Option<Loaded> = None;
        let mut is_kept_refused = false;
        // What connected last.
        let mut good: Option<Loaded> = None;
        loop {
            let stamps = self.settings.files.stamps();
            if tried.is_none() && !std::mem::take(&mut is_kept_refused) {
                tried = kept.clone().filter(|kept| kept.stamps == stamps);
            }
            let is_kept = tried.is_some() && kept.is_some();
            let known = [&good, &kept];
            if tried.is_none() && known.into_iter().flatten().all(|it| it.stamps != stamps) {
                // They have changed while there was no connection.
                before = good.clone().map(|good| Loaded {
                    stamps: stamps.clone(),
                    ..good
                });
            }
            let mut up_at = None;
            let mut in_use = None;
            let ended = tokio::select! {
                connected = self.connect(tried.take()) => match connected {
                    Ok(loaded) => {
                        up_at = Some(self.clock.now().mono);
                        before = None;
                        if !is_kept {
                            kept = None;
                        }
                        self.say_up();
                        good = Some(loaded.clone());
                        let stamps = in_use.insert(loaded).stamps.clone();
                        self.exchange(&mut stop, stamps).await
                    }
                    Err(failure) => Ended::Failed(failure),
                },
                _ = &mut stop => Ended::Stopped,
            };
            if up_at
                .is_some_and(|at| self.clock.now().mono.saturating_sub(at) >= self.timing.stable)
            {
                self.backoff.reset();
                self.failures_in_round = 0;
            }
            let failure = match ended {
                Ended::Stopped => break,
                Ended::Renewed(loaded) => {
                    tracing::info!("the uplink connects anew, with the new certificate files");
                    self.leave_in_silence();
                    self.say_goodbye().await;
                    self.reset();
                    // What is refused is not tried again: only files that are newer still.
                    let stamps = loaded.stamps.clone();
                    before = in_use.map(|in_use| Loaded { stamps, ..in_use });
                    kept = None;
                    tried = Some(*loaded);
                    continue;
                }
                Ended::Failed(failure) => failure,
            };
            self.reset();
            let is_refused = matches!(
                failure,
                Failure::Refused(_) | Failure::Tls(_) | Failure::Closed
            );
            // They may have expired meanwhile, or the files may be good now: both have their turn.
            is_kept_refused = is_kept && is_refused && up_at.is_none();
            if is_refused && let Some(loaded) = before.take() {
                let reason = self.reason(&failure, false);
                tracing::error!(
                    "the broker refuses the new certificate files of the uplink, which goes back to those before: {reason}"
                );
                kept = Some(loaded.clone());
                tried = Some(loaded);
                continue;
            }
            self.say_down(&failure, up_at.is_some());
            // Files are repaired by people, and clocks by the network: both are looked for often.
            let wait = match failure {
                Failure::Files(_) => self.timing.look,
                _ => self.next_address(),
            };
            tokio::select! {
                () = self.wait(wait, &stamps) => {}
                _ = &mut stop => break,
            }
        }
        self.leave_in_silence();
        self.say_goodbye().await;
        tracing::info!("uplink stopped");
    }

    /// Reads the certificates, unless they come from a trial, and connects; gives what it connected with.
    /// Dropping this gives the attempt up; nothing has been handed over then.
    async fn connect(&mut self, tried: Option<Loaded>) -> Result<Loaded, Failure> {
        let loaded = match tried {
            Some(loaded) => loaded,
            None => renewal::read(&self.settings, judged_at()).await?,
        };
        let transport = Transport::tls_with_config(TlsConfiguration::from(loaded.config.clone()));
        let mut options = options(&self.settings, self.address());
        options.set_transport(transport);
        if let Some(presence) = &self.settings.presence {
            let will = presence.last_will(&self.settings.client_id);
            let will = LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain);
            options.set_last_will(will);
        }
        self.eventloop.mqtt_options = options;
        // The first poll of a connection makes it, and gives its CONNACK.
        self.eventloop.poll().await.map_err(failure)?;
        self.courier.connected(self.backlog.last());
        self.say_online()?;
        let certificate = loaded.certificate.clone();
        self.courier.reporter().certificate(certificate);
        Ok(loaded)
    }

    /// The first that a connection sends.
    fn say_online(&mut self) -> Result<(), Failure> {
        let Worker {
            settings,
            clock,
            courier,
            client,
            ..
        } = self;
        let Some(presence) = &mut settings.presence else {
            return Ok(());
        };
        let packet = presence.online(&settings.client_id, clock.now().wall);
        courier.announce(packet, client)
    }

    /// Keeps records and acknowledgements moving until the connection fails; after `stop`, until all that was handed
    /// over is acknowledged or the farewell is over; and in the same way when there are new certificate files that work.
    async fn exchange(&mut self, stop: &mut oneshot::Receiver<()>, in_use: Stamps) -> Ended {
        let mut renewal = JoinSet::new();
        renewal.spawn(self.renewal().newer_files(in_use));
        let Worker {
            eventloop,
            client,
            courier,
            backlog,
            settings,
            timing,
            clock,
            is_known_offline,
            ..
        } = self;
        let mut changed = pin!(backlog.changed());
        let mut stalled = Stalled::default();
        let mut stall_check = interval(keep_alive(settings));
        stall_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving: Option<Leaving> = None;
        // Whether a peek may give more.
        let mut more = true;
        let mut is_offline = false;
        let mut flows = settings.presence.as_ref().map(|it| it.flows.clone());
        'leave: loop {
            let polled = {
                let mut poll = pin!(eventloop.poll());
                loop {
                    if leaving.is_some() && courier.outstanding() == 0 {
                        let is_over = is_offline || !is_stopping(&leaving);
                        let Some(presence) = settings.presence.as_ref().filter(|_| !is_over) else {
                            break 'leave;
                        };
                        let packet = presence.offline(&settings.client_id, clock.now().wall);
                        if let Err(failure) = courier.announce(packet, client) {
                            return Ended::Failed(failure);
                        }
                        is_offline = true;
                    }
                    if more && leaving.is_none() {
                        match courier.hand_over(clock.now().mono, backlog, client) {
                            Ok(found) => more = found,
                            Err(failure) => return Ended::Failed(failure),
                        }
                    }
                    tokio::select! {
                        polled = &mut poll => break polled,
                        () = &mut changed, if !more => {
                            more = true;
                            changed.set(backlog.changed());
                        }
                        () = until(courier.resumes_at(), clock), if !more => more = true,
                        () = next_change(&mut flows), if leaving.is_none() && courier.room() > 0 => {
                            let Some(presence) = &mut settings.presence else {
                                continue;
                            };
                            let packet = presence.online(&settings.client_id, clock.now().wall);
                            if let Err(failure) = courier.announce(packet, client) {
                                return Ended::Failed(failure);
                            }
                        }
                        () = ready(()), if more && leaving.is_none() && courier.room() > 0 => {}
                        // Leaving has a time-out of its own.
                        _ = stall_check.tick(), if leaving.is_none() => {
                            if stalled.for_too_long(courier.oldest()) {
                                return Ended::Failed(Failure::NotAcknowledged);
                            }
                            more = true;
                        }
                        // It must not be awaited a second time.
                        _ = &mut *stop, if !is_stopping(&leaving) => {
                            leaving = Some(Leaving::new(None, timing.farewell));
                        }
                        Some(Ok(loaded)) = renewal.join_next(), if leaving.is_none() => {
                            leaving = Some(Leaving::new(Some(loaded), timing.drain));
                        }
                        () = end_of(&mut leaving) => break 'leave,
                    }
                }
            };
            let taken = take(polled, &mut eventloop.state, courier, backlog);
            match taken {
                Ok(()) => {}
                Err(_) if is_stopping(&leaving) => return Ended::Stopped,
                Err(failure) => return Ended::Failed(failure),
            }
        }
        *is_known_offline = is_offline && courier.outstanding() == 0;
        leaving.map_or(Ended::Stopped, Leaving::ended)
    }

    /// Where it was not said that the device is offline, the connection ends without DISCONNECT: so the broker says it, with the will. What
    /// connects next says that it is online.
    fn leave_in_silence(&mut self) {
        if self.settings.presence.is_some() && !self.is_known_offline {
            self.eventloop.clean();
        }
    }

    /// Says DISCONNECT to the broker, if a connection stands.
    async fn say_goodbye(&mut self) {
        const PATIENCE: Duration = Duration::from_millis(250);
        let Worker {
            eventloop,
            courier,
            backlog,
            ..
        } = self;
        // What is pending goes out also when the window is full.
        eventloop.pending.clear();
        eventloop.pending.push_back(Request::Disconnect(Disconnect));
        let said = async {
            // Without a connection, a poll would make one.
            while eventloop.network.is_some() {
                let polled = eventloop.poll().await;
                let done = matches!(polled, Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)));
                let taken = take(polled, &mut eventloop.state, courier, backlog);
                if done || taken.is_err() {
                    break;
                }
            }
        };
        if timeout(PATIENCE, said).await.is_err() {
            tracing::debug!("the broker did not take the DISCONNECT in time");
        }
    }

    /// Throws away all that rumqttc remembers of the last connection: its socket, its queue, its pending packets and its
    /// state. The outbox has the records.
    fn reset(&mut self) {
        self.courier.disconnected();
        // This moves the queue to `pending` too.
        self.eventloop.clean();
        self.eventloop.pending.clear();
        self.eventloop.state = new_state(self.eventloop.mqtt_options.inflight());
    }

    /// Waits before the next attempt; not longer, if the certificate files have changed since the last one began.
    async fn wait(&mut self, wait: Duration, stamps: &Stamps) {
        let mut over = pin!(sleep(wait));
        let mut look = interval(self.timing.look);
        loop {
            tokio::select! {
                () = &mut over => return,
                _ = look.tick() => {
                    if self.settings.files.stamps() != *stamps {
                        return self.backoff.reset();
                    }
                }
            }
        }
    }

    /// What looks for newer certificate files beside the connection that stands.
    fn renewal(&self) -> Renewal {
        Renewal {
            settings: self.settings.clone(),
            address: self.address().clone(),
            timing: self.timing.clone(),
            reporter: self.courier.reporter().clone(),
        }
    }

    fn say_up(&self) {
        let outage = self.courier.reporter().up();
        let (address, client_id) = (self.address(), &self.settings.client_id);
        tracing::info!("uplink up: {address}, client id {client_id}, after {outage:.1?} without");
    }

    fn reason(&self, failure: &Failure, connected: bool) -> Reason {
        let context = Context {
            address: self.address(),
            client_id: &self.settings.client_id,
            files: &self.settings.files,
            now: judged_at(),
            connected,
            connect_timeout: self.timing.connect_timeout,
            ack_timeout: keep_alive(&self.settings) * ACK_KEEP_ALIVES,
        };
        explain(failure, &context)
    }

    /// Puts the reason into the status, and into the log if it is news.
    fn say_down(&self, failure: &Failure, connected: bool) {
        let reason = self.reason(failure, connected);
        if self.courier.reporter().down(&reason) {
            let next = self.timing.next_attempts(failure);
            tracing::warn!("uplink down: {reason}; it {next}; records wait in the outbox");
        }
    }
}

/// Waits until other flows run; for ever if nobody is told.
async fn next_change(flows: &mut Option<watch::Receiver<Prints>>) {
    if let Some(flows) = flows
        && flows.changed().await.is_ok()
    {
        return;
    }
    pending().await
}

/// Waits until a time of the clock; for ever without one.
async fn until(time: Option<Duration>, clock: &Clock) {
    match time {
        Some(time) => sleep(time.saturating_sub(clock.now().mono)).await,
        None => pending().await,
    }
}

/// rumqttc's client, which takes what the courier hands over, whatever the event loop is doing.
impl Client for AsyncClient {
    fn publish(&mut self, packet: Packet) -> Result<(), Failure> {
        let Packet {
            topic,
            payload,
            retain,
            ..
        } = packet;
        self.try_publish(topic, QoS::AtLeastOnce, retain, payload)
            .map_err(|error| Failure::Protocol(error.to_string()))
    }
}

/// Takes what a poll gave, and what rumqttc has read beyond that: also behind an error there may be PUBACKs.
fn take(
    polled: Result<Event, ConnectionError>,
    state: &mut MqttState,
    courier: &mut Courier,
    backlog: &impl Backlog,
) -> Result<(), Failure> {
    let (first, error) = match polled {
        Ok(event) => (Some(event), None),
        Err(error) => (None, Some(error)),
    };
    for event in first.into_iter().chain(state.events.drain(..)) {
        match event {
            Event::Outgoing(Outgoing::Publish(packet_id)) => courier.published(packet_id)?,
            Event::Incoming(Incoming::PubAck(ack)) => courier.acknowledged(ack.pkid, backlog),
            _ => {}
        }
    }
    error.map_or(Ok(()), |error| Err(failure(error)))
}

/// How a connection, or the attempt at one, ended.
enum Ended {
    Stopped,
    Failed(Failure),
    /// To be made anew at once with these files, which work.
    Renewed(Box<Loaded>),
}

/// A connection that is to end, and still waits for acknowledgements.
struct Leaving {
    /// What the next connection is made with; none when there is to be no other.
    next: Option<Box<Loaded>>,
    limit: Pin<Box<Sleep>>,
}

impl Leaving {
    fn new(next: Option<Loaded>, limit: Duration) -> Leaving {
        Leaving {
            next: next.map(Box::new),
            limit: Box::pin(sleep(limit)),
        }
    }

    fn ended(self) -> Ended {
        self.next.map_or(Ended::Stopped, Ended::Renewed)
    }
}

fn is_stopping(leaving: &Option<Leaving>) -> bool {
    leaving
        .as_ref()
        .is_some_and(|leaving| leaving.next.is_none())
}

/// Waits until no more time is left; for ever if the connection is not to end.
async fn end_of(leaving: &mut Option<Leaving>) {
    match leaving {
        Some(leaving) => leaving.limit.as_mut().await,
        None => pending().await,
    }
}

fn options(settings: &Settings, address: &Address) -> MqttOptions {
    let mut options = MqttOptions::new(&settings.client_id, &address.host, address.port);
    options
        .set_clean_session(true)
        .set_keep_alive(keep_alive(settings))
        .set_max_packet_size(ANSWER_MAX, settings.max_packet.max(CONNECT_MAX))
        .set_inflight(settings.inflight.max(1));
    options
}

fn new_state(window: u16) -> MqttState {
    // rumqttc uses its packet ids in turn. With more of them than the window, an id comes round late.
    let packet_ids = window.saturating_mul(8).max(1_024);
    MqttState::new(packet_ids, false)
}

/// MQTT counts it in whole seconds and has 16 bits for it; 0 would switch it off.
fn keep_alive(settings: &Settings) -> Duration {
    Duration::from_secs(settings.keep_alive.as_secs().clamp(1, u64::from(u16::MAX)))
}

/// The time by which rustls judges certificates, and so do we.
pub(super) fn judged_at() -> UnixTime {
    let unset = UnixTime::since_unix_epoch(Duration::ZERO);
    DefaultTimeProvider.current_time().unwrap_or(unset)
}

/// rumqttc's errors in our words.
fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::Io(error) | ConnectionError::Tls(TlsError::Io(error)) => io_failure(error),
        ConnectionError::Tls(TlsError::TLS(error)) => Failure::Tls(error),
        ConnectionError::NetworkTimeout => Failure::ConnectTimeout,
        ConnectionError::FlushTimeout => Failure::Silent,
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion => Failure::Refused(Refusal::ProtocolVersion),
            ConnectReturnCode::BadClientId => Failure::Refused(Refusal::ClientId),
            ConnectReturnCode::ServiceUnavailable => Failure::Refused(Refusal::Unavailable),
            ConnectReturnCode::BadUserNamePassword => Failure::Refused(Refusal::Credentials),
            ConnectReturnCode::NotAuthorized => Failure::Refused(Refusal::NotAuthorized),
            ConnectReturnCode::Success => {
                Failure::Protocol("a refusal that says success".to_owned())
            }
        },
        ConnectionError::MqttState(error) => match error {
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)) => {
                io_failure(error)
            }
            StateError::ConnectionAborted => Failure::Closed,
            StateError::AwaitPingResp => Failure::Silent,
            StateError::CollisionTimeout => Failure::NotAcknowledged,
            StateError::Unsolicited(packet_id) => Failure::UnexpectedAck(packet_id),
            other => Failure::Protocol(other.to_string()),
        },
        other => Failure::Protocol(other.to_string()),
    }
}

/// What TLS has to say comes wrapped in an I/O error.
pub(super) fn io_failure(error: io::Error) -> Failure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) => Failure::Tls(tls.clone()),
        None => Failure::Io(error),
    }
}
