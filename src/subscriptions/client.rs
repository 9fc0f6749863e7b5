//! The thread of one connection: connects, subscribes, and hands over what comes. The second file that names rumqttc.
//!
//! Where messages can wait, they wait at the broker, in a session that it keeps: while the outbox is nearly full there is no connection.
//! What was not acknowledged before comes again then.
//!
//! `poll` runs to its end, as it is not cancel-safe while it connects; what changes is looked at beside it.
//!
//! Must not: publish.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Outgoing, Publish, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport, mqttbytes,
};
use rustls::pki_types::UnixTime;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::{Routes, Settings, filter};
use crate::outbox::Pressure;
use crate::runtime::clock::Clock;
use crate::runtime::driver::chain;
use crate::runtime::driver::subscribing::{Gate, Route};
use crate::runtime::node::Input;
use crate::uplink::tls;

/// The greatest packet that is read, in bytes: far more than a node takes, which says so in words. A greater one ends the connection.
const LARGEST: usize = 16 * 1024 * 1024;
/// The greatest packet that is sent, in bytes.
const SENT: usize = 1024 * 1024;
/// What is handed over of a message, in bytes: one more than a node takes (1 MiB), so that it refuses what was longer.
const HANDED: usize = 1024 * 1024 + 1;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long to wait where a message that is too large comes again with each connection.
const RETRY_STUCK: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Requests that wait for the client: acknowledgements, of which it takes ten for as many messages, and changes of the routes.
const REQUESTS: usize = 1_024;
/// What waits for an engine at most before more is handed over that can wait: it still finds room in an outbox that is nearly full.
const AHEAD: usize = 64;
/// How long a message that can wait is held for engines that have so much before them. Up to ten are held one after the other with no ping between
/// them, and brokers end a connection that is silent for one and a half times its keep-alive.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an outbox that is not open yet is not worth a word.
const OPENING: Duration = Duration::from_secs(5);
/// The QoS of a filter of which it is not known what the broker has kept.
const UNSURE: u8 = u8::MAX;
/// A filter that nobody subscribes to.
const NOTHING: &str = "tidegate/nothing";
/// How long an engine is given that has so much before it.
const BREATH: Duration = Duration::from_millis(2);

/// Why a connection came to its end.
enum End {
    Problem(String),
    /// A message of so many bytes is first in the session, and cannot be read.
    TooLarge(usize),
    /// The outbox is nearly full.
    Pressure,
}

/// A running client. It ends when this is dropped.
pub(super) struct Client {
    routes: Routes,
    signal: Arc<Signal>,
}

/// What wakes the thread.
#[derive(Default)]
struct Signal {
    changed: Notify,
    stop: Notify,
}

impl Client {
    pub(super) fn start(
        name: &str,
        settings: Settings,
        routes: Vec<Route>,
        clock: Clock,
        pressure: Option<Pressure>,
        gate: Gate,
    ) -> io::Result<Client> {
        let shared = Routes::default();
        *shared.lock() = routes;
        let signal = Arc::<Signal>::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let worker = Worker {
            name: name.to_owned(),
            settings,
            clock,
            waiting: pressure.map(|pressure| pressure.watch()),
            gate,
            is_leaving: false,
            shared: shared.clone(),
            routes: Vec::new(),
            subscribed: BTreeMap::new(),
            kept: BTreeSet::new(),
            unsubscribed: Unsubscribed::default(),
            is_stuck: false,
            is_up: false,
            last_problem: None,
        };
        std::thread::Builder::new()
            .name(format!("mqtt {name}"))
            .spawn({
                let signal = signal.clone();
                move || runtime.block_on(worker.run(&signal))
            })?;
        Ok(Client {
            routes: shared,
            signal,
        })
    }

    pub(super) fn set(&self, routes: Vec<Route>) {
        *self.routes.lock() = routes;
        self.signal.changed.notify_one();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.signal.stop.notify_one();
    }
}

struct Worker {
    name: String,
    settings: Settings,
    clock: Clock,
    /// What to wait for, if messages can.
    waiting: Option<watch::Receiver<bool>>,
    /// What is acknowledged has passed it.
    gate: Gate,
    /// This connection ends: what comes waits at the broker, for the sake of its order whatever the pressure does meanwhile.
    is_leaving: bool,
    shared: Routes,
    /// Those that hold now: a copy, so that nothing is locked while an engine is waited for.
    routes: Vec<Route>,
    /// What the broker has been asked for on this connection, with the QoS.
    subscribed: BTreeMap<String, u8>,
    /// What the session that the broker keeps may have, also where a connection ended before it answered.
    kept: BTreeSet<String>,
    unsubscribed: Unsubscribed,
    /// A message that is too large ended the last connection, and nothing has come since.
    is_stuck: bool,
    is_up: bool,
    last_problem: Option<String>,
}

impl Worker {
    async fn run(mut self, signal: &Signal) {
        let mut pause = RETRY_MIN;
        tokio::select! {
            () = self.wait_at_first() => {}
            () = signal.stop.notified() => return,
        }
        loop {
            let end = match self.options() {
                Ok(options) => {
                    let end = tokio::select! {
                        end = self.serve(options, signal) => end,
                        () = signal.stop.notified() => return,
                    };
                    if std::mem::take(&mut self.is_up) {
                        pause = RETRY_MIN;
                    }
                    end
                }
                Err(problem) => End::Problem(problem),
            };
            let kept = self.kept.iter().map(|filter| (filter.clone(), UNSURE));
            self.subscribed = kept.collect();
            self.unsubscribed = Unsubscribed::default();
            let problem = match end {
                End::Problem(problem) => problem,
                End::TooLarge(bytes) => {
                    self.say_stuck(bytes);
                    tokio::select! {
                        () = sleep(RETRY_STUCK) => continue,
                        () = signal.stop.notified() => return,
                    }
                }
                End::Pressure => {
                    tokio::select! {
                        () = self.wait() => continue,
                        () = signal.stop.notified() => return,
                    }
                }
            };
            if self.last_problem.as_ref() != Some(&problem) {
                tracing::warn!(
                    "broker `{}` at {}: {problem}; tried again by itself, every {RETRY_MAX:?} at the latest",
                    self.name,
                    self.settings.url()
                );
                self.last_problem = Some(problem);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = signal.stop.notified() => return,
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn options(&self) -> Result<MqttOptions, String> {
        let Settings {
            address,
            files,
            client_id,
            user,
        } = &self.settings;
        let mut options = MqttOptions::new(client_id, &address.host, address.port);
        options
            .set_clean_session(self.waiting.is_none())
            .set_manual_acks(self.waiting.is_some())
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(LARGEST, SENT);
        if let Some(files) = files {
            let config = tls::load(files, UnixTime::now()).map_err(|error| chain(&error))?;
            let tls = TlsConfiguration::from(config);
            options.set_transport(Transport::tls_with_config(tls));
        }
        if let Some(user) = user {
            let password = match &user.password_file {
                Some(path) => std::fs::read_to_string(path).map_err(|error| {
                    format!("cannot read the password in {}: {error}", path.display())
                })?,
                None => String::new(),
            };
            options.set_credentials(&user.name, password.trim_end_matches(['\r', '\n']));
        }
        Ok(options)
    }

    /// Until the outbox is open, and has room.
    async fn wait_at_first(&mut self) {
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        let is_open = waiting.wait_for(|is_high| !is_high);
        if tokio::time::timeout(OPENING, is_open).await.is_err() {
            self.wait().await;
        }
    }

    fn say_stuck(&mut self, bytes: usize) {
        if std::mem::replace(&mut self.is_stuck, true) {
            return;
        }
        let Settings { client_id, .. } = &self.settings;
        let most = LARGEST / 1024 / 1024;
        let topics = self.topics();
        tracing::error!(
            "broker `{}` at {}: a message of {bytes} bytes on one of {topics} cannot be taken: {most} MiB is the most; if it was sent with QoS 1 \
             it holds up what comes after it; tried again every {RETRY_STUCK:?}; find who sends it, and delete the session of client \
             `{client_id}` at the broker, with all that waits there: stop tidegate and connect once with that client id and a clean session",
            self.name,
            self.settings.url(),
        );
    }

    /// What is subscribed to, for people.
    fn topics(&self) -> String {
        let filters: Vec<&str> = self.subscribed.keys().map(String::as_str).collect();
        filters.join(", ")
    }

    /// Until the outbox has room again.
    async fn wait(&mut self) {
        tracing::info!(
            "broker `{}`: messages with QoS 1 wait there, as the outbox is nearly full, or not open (when_full)",
            self.name
        );
        if let Some(waiting) = &mut self.waiting {
            // An error would mean that it can no longer change.
            let _ = waiting.wait_for(|is_high| !is_high).await;
        }
        tracing::info!("broker `{}`: messages no longer wait", self.name);
    }

    fn must_wait(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| *waiting.borrow())
    }

    /// One connection, from its beginning to what ended it.
    async fn serve(&mut self, options: MqttOptions, signal: &Signal) -> End {
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS);
        self.is_leaving = false;
        let mut has_asked = false;
        loop {
            self.is_leaving |= self.must_wait();
            if self.is_leaving && !std::mem::replace(&mut has_asked, true) {
                // Its answer says that the broker has all that was sent before: a socket that is closed may lose it.
                if !self.unsubscribed.ask(NOTHING, &client) {
                    return End::Pressure;
                }
            }
            let polled = self.poll(&mut eventloop, &client, signal).await;
            match polled {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    self.is_up = true;
                    self.last_problem = None;
                    if !self.is_stuck {
                        tracing::info!(
                            "broker `{}` at {}: connected",
                            self.name,
                            self.settings.url()
                        );
                    }
                    self.follow(&client);
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    self.is_stuck = false;
                    if let Err(problem) = self.take(publish, &client).await {
                        return End::Problem(problem.to_owned());
                    }
                }
                Ok(Event::Incoming(Incoming::SubAck(answer))) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        tracing::error!(
                            "broker `{}` refuses a subscription: may this client read these topics? {}",
                            self.name,
                            self.topics()
                        );
                    }
                }
                Ok(Event::Outgoing(Outgoing::Unsubscribe(id))) => self.unsubscribed.sent(id),
                Ok(Event::Incoming(Incoming::UnsubAck(answer))) => {
                    match self.unsubscribed.answered(answer.pkid) {
                        Some(filter) if filter == NOTHING => return End::Pressure,
                        Some(filter) if !self.subscribed.contains_key(&filter) => {
                            self.kept.remove(&filter);
                        }
                        _ => {}
                    }
                }
                Ok(_) => {}
                Err(error) => return end(&error),
            }
        }
    }

    /// Hands a message over, and acknowledges it then if it could have waited. If it has to wait it is left where it is: at the broker.
    /// An error, if it is to come again.
    async fn take(&mut self, publish: Publish, client: &AsyncClient) -> Result<(), &'static str> {
        if self.waiting.is_none() || publish.qos == QoS::AtMostOnce {
            self.hand_over(&publish, None);
            return Ok(());
        }
        let is_busy = |worker: &Worker| worker.routes.iter().any(|it| it.queued() >= AHEAD);
        let until = Instant::now() + PATIENCE;
        // What has no QoS may keep the engine busy for ever: then one message goes in its midst.
        while !self.must_wait() && is_busy(self) && Instant::now() < until {
            sleep(BREATH).await;
        }
        self.is_leaving |= self.must_wait();
        if self.is_leaving {
            return Ok(());
        }
        let Some(_passing) = self.gate.pass() else {
            return Ok(());
        };
        if !self.hand_over(&publish, Some(PATIENCE)) {
            return Err("a flow is too busy for its messages, which wait there");
        }
        let acknowledged = client.try_ack(&publish);
        acknowledged.map_err(|_| "it sends too much at once")
    }

    /// Polls once. Changes of the routes are followed meanwhile.
    async fn poll(
        &mut self,
        eventloop: &mut EventLoop,
        client: &AsyncClient,
        signal: &Signal,
    ) -> Result<Event, ConnectionError> {
        let mut poll = pin!(eventloop.poll());
        loop {
            tokio::select! {
                polled = &mut poll => return polled,
                () = signal.changed.notified() => {
                    if self.is_up {
                        self.follow(client);
                    }
                }
            }
        }
    }

    /// Takes the routes as they are now, and asks the broker for what is new in them.
    fn follow(&mut self, client: &AsyncClient) {
        self.routes = self.shared.lock().clone();
        let mut wanted: BTreeMap<String, u8> = BTreeMap::new();
        for route in &self.routes {
            for filter in &route.subscription.filters {
                let qos = wanted.entry(filter.clone()).or_default();
                *qos = route.subscription.qos.max(*qos);
            }
        }
        let new: Vec<SubscribeFilter> = wanted
            .iter()
            .filter(|(filter, qos)| self.subscribed.get(*filter) != Some(qos))
            .map(|(filter, qos)| SubscribeFilter::new(filter.clone(), level(*qos)))
            .collect();
        // The queue is longer than changes are fast; what does not go now goes with the next connection.
        let mut is_asked = new.is_empty() || client.try_subscribe_many(new).is_ok();
        for filter in self.subscribed.keys() {
            if !wanted.contains_key(filter) {
                is_asked &= self.unsubscribed.ask(filter, client);
            }
        }
        if self.waiting.is_some() {
            self.kept.extend(wanted.keys().cloned());
        }
        if !is_asked {
            tracing::warn!(
                "broker `{}`: a change of flows waits for the next connection",
                self.name
            );
        }
        self.subscribed = wanted;
    }

    /// To all that want it. False if the limit has passed, where there is one, and somebody may not have it.
    fn hand_over(&self, publish: &Publish, limit: Option<Duration>) -> bool {
        let Publish { topic, payload, .. } = publish;
        let time = self.clock.now().wall;
        let payload = match payload.get(..HANDED) {
            // Not the whole of it: many may wait for an engine.
            Some(beginning) => Bytes::copy_from_slice(beginning),
            None => Bytes::clone(payload),
        };
        let mut is_taken = true;
        for route in &self.routes {
            let filters = &route.subscription.filters;
            if filters.iter().any(|filter| filter::matches(filter, topic)) {
                let message = Input::Message {
                    time,
                    topic: topic.as_str().into(),
                    payload: Bytes::clone(&payload),
                };
                is_taken &= match limit {
                    Some(limit) => route.hand_over_within(message, limit),
                    // Without its engine nobody wants it.
                    None => route.hand_over(message),
                };
            }
        }
        is_taken
    }
}

/// What the broker was asked to forget on this connection, and has not answered.
#[derive(Debug, Default)]
struct Unsubscribed {
    /// Not sent yet, in the order in which it will be.
    asked: VecDeque<String>,
    /// By packet id.
    sent: HashMap<u16, String>,
}

impl Unsubscribed {
    /// False if the queue is full.
    fn ask(&mut self, filter: &str, client: &AsyncClient) -> bool {
        let is_asked = client.try_unsubscribe(filter).is_ok();
        if is_asked {
            self.asked.push_back(filter.to_owned());
        }
        is_asked
    }

    fn sent(&mut self, id: u16) {
        if let Some(filter) = self.asked.pop_front() {
            self.sent.insert(id, filter);
        }
    }

    /// What the broker has forgotten with this answer.
    fn answered(&mut self, id: u16) -> Option<String> {
        self.sent.remove(&id)
    }
}

/// How an error of the connection ends it.
fn end(error: &ConnectionError) -> End {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(
            mqttbytes::Error::PayloadSizeLimitExceeded(bytes),
        )) => End::TooLarge(*bytes),
        error => End::Problem(words(error)),
    }
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        _ => QoS::AtLeastOnce,
    }
}

/// What ended a connection, or kept it from being made.
fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::NetworkTimeout => "no answer".to_owned(),
        ConnectionError::ConnectionRefused(code) => {
            format!("it refuses this client ({code:?}): are user, password and client id right?")
        }
        error => chain(error),
    }
}
