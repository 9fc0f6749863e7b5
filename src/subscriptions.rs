//! Messages from brokers that a plant already has: who wants which, and the clients that bring them.
//!
//! One thread per broker that is wanted, or two: what can wait (`when_full = "block"`) has a connection of its own. It waits for its broker and for engines that are busy; nobody waits for it. See decision 0019.
//!
//! Terms: a *filter* is what MQTT subscribes to, a topic with wildcards; a *route* leads what matches a node's filters to that node.
//!
//! Must not: know engines beyond the way into them, or publish.

mod client;
pub mod filter;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::Pressure;
use crate::runtime::clock::Clock;
use crate::runtime::driver::subscribing::{Gate, Route, Subscription, Subscriptions};
use crate::uplink::{Address, Files};
use client::Client;

/// How to reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub address: Address,
    /// Without: plain MQTT.
    pub files: Option<Files>,
    pub client_id: String,
    pub user: Option<User>,
}

impl Settings {
    /// Where the broker is, for people.
    fn url(&self) -> String {
        let Address { host, port } = &self.address;
        let scheme = if self.files.is_some() {
            "mqtts"
        } else {
            "mqtt"
        };
        format!("{scheme}://{host}:{port}")
    }
}

/// Whom to be for a broker that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// The file with the password, without its last line break.
    pub password_file: Option<PathBuf>,
}

/// The brokers of `[brokers]`, by their names.
pub struct Brokers {
    settings: BTreeMap<String, Settings>,
    clock: Clock,
    pressure: Option<Pressure>,
    gate: Gate,
    clients: BTreeMap<Connection, Client>,
}

/// One of the connections to a broker: its name, and whether what comes there can wait.
type Connection = (String, bool);

impl Brokers {
    /// While this pressure is high, if there is one, messages with QoS 1 wait at their brokers.
    pub fn new(
        settings: BTreeMap<String, Settings>,
        clock: Clock,
        pressure: Option<Pressure>,
    ) -> Brokers {
        Brokers {
            settings,
            clock,
            pressure,
            gate: Gate::default(),
            clients: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brokers")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Subscriptions for Brokers {
    fn set(&mut self, routes: Vec<Route>) {
        // A session that a broker keeps is told what is no longer wanted: its client stays, with nothing to do.
        let kept = self.clients.keys().filter(|(_, can_wait)| *can_wait);
        let mut wanted: BTreeMap<Connection, Vec<Route>> =
            kept.map(|kept| (kept.clone(), Vec::new())).collect();
        for route in routes {
            let Subscription { broker, qos, .. } = &route.subscription;
            if self.settings.contains_key(broker) {
                let connection = (broker.clone(), *qos > 0 && self.pressure.is_some());
                wanted.entry(connection).or_default().push(route);
            } else {
                tracing::error!(
                    "{}: there is no broker `{broker}` in the settings; add [brokers.{broker}] with its `url`",
                    route.node
                );
            }
        }
        // A client ends when it is dropped.
        self.clients.retain(|it, _| wanted.contains_key(it));
        for (connection, routes) in wanted {
            match self.clients.get(&connection) {
                Some(client) => client.set(routes),
                None => self.start(connection, routes),
            }
        }
    }

    fn stop(&mut self) {
        self.clients.clear();
    }

    fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Brokers {
    fn start(&mut self, connection: Connection, routes: Vec<Route>) {
        let (name, can_wait) = &connection;
        let mut settings = self.settings[name].clone();
        let pressure = self.pressure.clone().filter(|_| *can_wait);
        if *can_wait {
            settings.client_id.push_str("-qos1");
        }
        let clock = self.clock.clone();
        match Client::start(name, settings, routes, clock, pressure, self.gate.clone()) {
            Ok(client) => {
                self.clients.insert(connection, client);
            }
            Err(error) => tracing::error!(
                "broker `{name}`: cannot start a thread for it: {error}; its messages do not come"
            ),
        }
    }
}

/// What a client's thread and its owner share.
#[derive(Clone, Default)]
struct Routes(Arc<Mutex<Vec<Route>>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, Vec<Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
