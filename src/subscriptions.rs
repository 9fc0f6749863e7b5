//! Messages from brokers that a plant already has: who wants which, and the clients that bring them.
//!
//! One thread per broker that is wanted. It waits for its broker and for engines that are busy; nobody waits for it. See decision 0019.
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

use crate::runtime::clock::Clock;
use crate::runtime::driver::subscribing::{Route, Subscriptions};
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
    clients: BTreeMap<String, Client>,
}

impl Brokers {
    pub fn new(settings: BTreeMap<String, Settings>, clock: Clock) -> Brokers {
        Brokers {
            settings,
            clock,
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
        let mut by_broker: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for route in routes {
            let broker = &route.subscription.broker;
            if self.settings.contains_key(broker) {
                by_broker.entry(broker.clone()).or_default().push(route);
            } else {
                tracing::error!(
                    "{}: there is no broker `{broker}` in the settings; add [brokers.{broker}] with its `url`",
                    route.node
                );
            }
        }
        // A client ends when it is dropped.
        self.clients.retain(|name, _| by_broker.contains_key(name));
        for (name, routes) in by_broker {
            match self.clients.get(&name) {
                Some(client) => client.set(routes),
                None => {
                    let settings = self.settings[&name].clone();
                    match Client::start(&name, settings, routes, self.clock.clone()) {
                        Ok(client) => {
                            self.clients.insert(name, client);
                        }
                        Err(error) => tracing::error!(
                            "broker `{name}`: cannot start a thread for it: {error}; its messages do not come"
                        ),
                    }
                }
            }
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
