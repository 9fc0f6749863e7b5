//! What flows want of brokers, and the way in for what these bring.
//!
//! Must not: know MQTT.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::runtime::engine::Event;
use crate::runtime::node::{Address, Input};

/// What a node subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The broker's name in the settings.
    pub broker: String,
    /// Topics with wildcards.
    pub filters: Vec<String>,
    /// 0 or 1.
    pub qos: u8,
}

/// Which messages go where.
#[derive(Clone)]
pub struct Route {
    pub subscription: Subscription,
    /// The flow and the node, in words.
    pub node: String,
    pub(super) to: Address,
    pub(super) readings: Sender<Event>,
}

impl Route {
    /// Hands a message to its node. Waits while the engine is busy; false once it has ended.
    pub fn hand_over(&self, input: Input) -> bool {
        let to = self.to;
        self.readings.send(Event::Input { to, input }).is_ok()
    }

    /// The same, and gives up after a while.
    pub fn hand_over_within(&self, input: Input, limit: Duration) -> bool {
        let to = self.to;
        let event = Event::Input { to, input };
        self.readings.send_timeout(event, limit).is_ok()
    }

    /// How much waits for its engine.
    pub fn queued(&self) -> usize {
        self.readings.len()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("subscription", &self.subscription)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Where all passes that a broker is told to have been taken. It is closed once, before the engines end: what has passed is handled, and what
/// comes later is left to its broker.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<RwLock<bool>>);

impl Gate {
    /// Waits for what is just passing.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// It stays open while this is held; none if it is closed.
    pub fn pass(&self) -> Option<RwLockReadGuard<'_, bool>> {
        let is_closed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (!*is_closed).then_some(is_closed)
    }
}

/// Who brings what flows subscribe to.
pub trait Subscriptions: Send {
    /// From now on these are wanted, and nothing else. It does not wait.
    fn set(&mut self, routes: Vec<Route>);

    /// Nothing is brought any more, as the flows have ended. They may be wanted again by the next start: a session that a broker keeps stays
    /// as it is.
    fn stop(&mut self) {
        self.set(Vec::new());
    }

    /// What is closed at a stop, before the engines end.
    fn gate(&self) -> Gate {
        Gate::default()
    }
}

/// For where there are no brokers: what is wanted of one fails in words.
pub struct NoSubscriptions;

impl Subscriptions for NoSubscriptions {
    fn set(&mut self, routes: Vec<Route>) {
        for route in routes {
            let broker = &route.subscription.broker;
            tracing::error!("{}: there is no broker `{broker}` here", route.node);
        }
    }
}
