//! Whether an outbox is nearly full, for sources that can wait: with `when_full = "block"` they do. See decision 0018.
//!
//! It rises while there still is room for what is on its way through the flows.

use tokio::sync::watch;

/// A handle to one and the same pressure.
#[derive(Clone, Debug)]
pub struct Pressure(watch::Sender<bool>);

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure(watch::Sender::new(false))
    }
}

impl Pressure {
    /// High until an outbox that is opened with it says otherwise.
    pub fn until_open() -> Pressure {
        Pressure(watch::Sender::new(true))
    }

    pub(super) fn is_high(&self) -> bool {
        *self.0.borrow()
    }

    /// Whether it is high, and when that changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }

    pub(super) fn set(&self, is_high: bool) {
        self.0.send_if_modified(|before| {
            let is_changed = *before != is_high;
            *before = is_high;
            is_changed
        });
    }
}
