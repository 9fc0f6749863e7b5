//! The one clock that messages, windows, the outbox and the uplink go by.
//!
//! Terms: *monotonic* is the time since this process started, which never steps; *live time* is the wall-clock time that
//! messages are stamped with. Live time is the monotonic time plus an offset, so that it does not jump about with the
//! wall clock: see [`Clock::reanchor`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::message::Timestamp;

/// One reading of the clock. Everything that is pure gets the time as one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the start.
    pub mono: Duration,
    /// Live time.
    pub wall: Timestamp,
}

impl Now {
    /// The same moment, `span` later; for virtual time.
    pub fn later(self, span: Duration) -> Now {
        Now {
            mono: self.mono + span,
            wall: self.wall.saturating_add(span),
        }
    }

    /// The monotonic time at which live time will be `wall`, if the wall clock does not step; now if that has passed.
    pub fn mono_at(self, wall: Timestamp) -> Duration {
        self.mono + wall.saturating_since(self.wall)
    }
}

/// A clock that can be shared between threads; clones agree with each other.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    /// Live time minus monotonic time, in nanoseconds.
    offset: Arc<AtomicI64>,
}

/// What [`Clock::reanchor`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reanchor {
    /// The wall clock and live time agree to within the tolerance.
    Agrees,
    /// The wall clock went ahead by this much, and live time followed.
    Followed(Duration),
    /// The wall clock went back by this much; live time did not, for it would repeat windows.
    HeldBack(Duration),
}

impl Clock {
    /// A clock whose live time is the wall clock's now.
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
            offset: Arc::new(AtomicI64::new(system_time().as_nanos())),
        }
    }

    pub fn now(&self) -> Now {
        let mono = self.start.elapsed();
        Now {
            mono,
            wall: Timestamp::from_nanos(self.offset.load(Ordering::Relaxed)).saturating_add(mono),
        }
    }

    /// Compares live time with the wall clock and follows it forwards, never backwards.
    pub fn reanchor(&self) -> Reanchor {
        self.reanchor_to(system_time())
    }

    fn reanchor_to(&self, system: Timestamp) -> Reanchor {
        const TOLERANCE: Duration = Duration::from_millis(50);
        let live = self.now().wall;
        let (ahead, behind) = (system.saturating_since(live), live.saturating_since(system));
        if behind > TOLERANCE {
            Reanchor::HeldBack(behind)
        } else if ahead > TOLERANCE {
            let ahead_nanos = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
            self.offset.fetch_add(ahead_nanos, Ordering::Relaxed);
            Reanchor::Followed(ahead)
        } else {
            Reanchor::Agrees
        }
    }
}

fn system_time() -> Timestamp {
    Timestamp::default().saturating_add(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_time_follows_the_wall_clock_forwards_and_never_back() {
        let clock = Clock::start();
        let before = clock.now().wall;
        let hour = Duration::from_secs(3600);

        assert!(matches!(
            clock.reanchor_to(before.saturating_add(hour)),
            Reanchor::Followed(_)
        ));
        let after = clock.now().wall;
        assert!(after.saturating_since(before) >= hour);

        assert!(matches!(clock.reanchor_to(before), Reanchor::HeldBack(_)));
        assert!(clock.now().wall >= after);
        assert_eq!(clock.reanchor_to(clock.now().wall), Reanchor::Agrees);
    }
}
