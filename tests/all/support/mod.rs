//! What the tests share.

pub(crate) mod cable;
pub(crate) mod mosquitto;
pub(crate) mod plant;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod witness;

use std::time::{Duration, Instant};

pub(crate) use cable::Cable;
pub(crate) use plant::{Cloud, Plant, Totals};
pub(crate) use process::{Ended, Running, tidegate};
pub(crate) use random::Random;
pub(crate) use witness::Witness;

use crate::SOON;

/// Waits until `look` finds something; `what` says what was waited for.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(SOON, what, look)
}

/// The same, for what takes longer by its nature.
pub(crate) fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
