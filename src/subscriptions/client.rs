//! The thread of one connection: connects, subscribes, and hands over what comes. The second file that names rumqttc.
//!
//! Where messages can wait, they wait at the broker, in a session that it keeps: while the outbox is nearly full there is no connection.
//! What was not acknowledged before comes again then.
//!
//! `poll` runs to its end, as it is not cancel-safe while it connects; what changes is looked at beside it.
//!
//! Must not: publish.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::pki_types::UnixTime;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Routes, Settings, filter};
use crate::outbox::Pressure;
use crate::runtime::clock::Clock;
use crate::runtime::driver::chain;
use crate::runtime::driver::subscribing::Route;
use crate::runtime::node::Input;
use crate::uplink::tls;

/// The greatest message that is taken, in bytes. A greater one ends the connection, in words.
const LARGEST: usize = 1024 * 1024;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Requests that wait for the client: acknowledgements, of which it takes ten for as many messages, and changes of the routes.
const REQUESTS: usize = 1_024;
/// What waits for an engine at most before more is handed over that can wait: it still finds room in an outbox that is nearly full.
const AHEAD: usize = 64;
/// A filter that nobody subscribes to.
const NOTHING: &str = "tidegate/nothing";
/// How long an engine is given that has so much before it.
const BREATH: Duration = Duration::from_millis(2);

/// Why a connection came to its end.
enum End {
    Problem(String),
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
            is_leaving: false,
            shared: shared.clone(),
            routes: Vec::new(),
            subscribed: BTreeMap::new(),
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
        // Nothing more may reach nodes that are gone.
        self.routes.lock().clear();
        self.signal.stop.notify_one();
    }
}

struct Worker {
    name: String,
    settings: Settings,
    clock: Clock,
    /// What to wait for, if messages can.
    waiting: Option<watch::Receiver<bool>>,
    /// This connection ends: what comes waits at the broker, for the sake of its order whatever the pressure does meanwhile.
    is_leaving: bool,
    shared: Routes,
    /// Those that hold now: a copy, so that nothing is locked while an engine is waited for.
    routes: Vec<Route>,
    /// What the broker has been asked for on this connection, with the QoS.
    subscribed: BTreeMap<String, u8>,
    is_up: bool,
    last_problem: Option<String>,
}

impl Worker {
    async fn run(mut self, signal: &Signal) {
        let mut pause = RETRY_MIN;
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
            self.subscribed.clear();
            let problem = match end {
                End::Problem(problem) => problem,
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
            .set_max_packet_size(LARGEST, LARGEST);
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

    /// Until the outbox has room again.
    async fn wait(&mut self) {
        tracing::info!(
            "broker `{}`: messages with QoS 1 wait there, as the outbox is nearly full (when_full)",
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
                if client.try_unsubscribe(NOTHING).is_err() {
                    return End::Pressure;
                }
            }
            let polled = self.poll(&mut eventloop, &client, signal).await;
            match polled {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    self.is_up = true;
                    self.last_problem = None;
                    tracing::info!(
                        "broker `{}` at {}: connected",
                        self.name,
                        self.settings.url()
                    );
                    self.follow(&client);
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    if !self.take(publish, &client).await {
                        return End::Problem("it sends too much at once".to_owned());
                    }
                }
                Ok(Event::Incoming(Incoming::SubAck(answer))) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        tracing::error!(
                            "broker `{}` refuses a subscription: may this client read these topics? {}",
                            self.name,
                            self.subscribed
                                .keys()
                                .cloned()
                                .collect::<Vec<_>>()
                                .join(", ")
                        );
                    }
                }
                Ok(Event::Incoming(Incoming::UnsubAck(_))) if has_asked => {
                    return End::Pressure;
                }
                Ok(_) => {}
                Err(error) => return End::Problem(words(&error)),
            }
        }
    }

    /// Hands a message over, and acknowledges it if it could have waited. If it has to wait it is left where it is: at the broker.
    /// False if it cannot be acknowledged, and so comes again.
    async fn take(&mut self, publish: Publish, client: &AsyncClient) -> bool {
        if self.waiting.is_some() && publish.qos != QoS::AtMostOnce {
            let is_busy = |worker: &Worker| worker.routes.iter().any(|it| it.queued() >= AHEAD);
            while !self.must_wait() && is_busy(self) {
                sleep(BREATH).await;
            }
            self.is_leaving |= self.must_wait();
            if self.is_leaving {
                return true;
            }
            if client.try_ack(&publish).is_err() {
                return false;
            }
        }
        self.hand_over(publish);
        true
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
                is_asked &= client.try_unsubscribe(filter).is_ok();
            }
        }
        if !is_asked {
            tracing::warn!(
                "broker `{}`: a change of flows waits for the next connection",
                self.name
            );
        }
        self.subscribed = wanted;
    }

    fn hand_over(&self, publish: Publish) {
        let Publish { topic, payload, .. } = publish;
        let time = self.clock.now().wall;
        for route in &self.routes {
            let filters = &route.subscription.filters;
            if filters.iter().any(|filter| filter::matches(filter, &topic)) {
                // Without its engine nobody wants it.
                let _ = route.hand_over(Input::Message {
                    time,
                    topic: topic.as_str().into(),
                    payload: Bytes::clone(&payload),
                });
            }
        }
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
