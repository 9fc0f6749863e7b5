//! The kernel's time stamps as live time.
//!
//! The kernel stamps an edge with CLOCK_MONOTONIC. On Linux an [`Instant`] is a reading of that clock too (std's documentation of `Instant`),
//! but does not tell its number: so where the two meet is measured, once. Neither ever steps, so it stays true.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::message::Timestamp;
use crate::runtime::clock::Clock;

#[derive(Clone, Debug)]
pub(super) struct Stamps {
    clock: Clock,
    /// The same moment twice.
    instant: Instant,
    kernel: Duration,
}

impl Stamps {
    /// Measures some times, and takes the reading that was interrupted least.
    pub(super) fn measured(clock: &Clock) -> Stamps {
        let readings = (0..8).map(|_| {
            let (before, instant, after) = (kernel_now(), Instant::now(), kernel_now());
            let took = after.saturating_sub(before);
            (took, instant, before + took / 2)
        });
        let (_, instant, kernel) = readings
            .min_by_key(|(took, ..)| *took)
            .unwrap_or_else(|| (Duration::ZERO, Instant::now(), kernel_now()));
        Stamps {
            clock: clock.clone(),
            instant,
            kernel,
        }
    }

    /// The live time of a stamp.
    pub(super) fn wall(&self, stamp: Duration) -> Timestamp {
        let instant = match stamp.checked_sub(self.kernel) {
            Some(later) => self.instant.checked_add(later),
            None => self.instant.checked_sub(self.kernel.saturating_sub(stamp)),
        };
        self.clock.wall_at(instant.unwrap_or(self.instant))
    }

    /// Live time now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// Monotonic time now; when to look is its business, not an edge's.
    pub(super) fn mono(&self) -> Duration {
        self.clock.now().mono
    }
}

/// The kernel's monotonic time now.
pub(super) fn kernel_now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    // It counts from the boot, so it has no sign.
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_live_time_of_its_moment_before_and_after_the_measuring() {
        let clock = Clock::start();
        let stamps = Stamps {
            clock: clock.clone(),
            instant: Instant::now(),
            kernel: Duration::from_secs(100),
        };
        let at = clock.wall_at(stamps.instant);
        assert_eq!(stamps.wall(Duration::from_secs(100)), at);
        let ms = Duration::from_millis;
        assert_eq!(stamps.wall(ms(100_250)), at.saturating_add(ms(250)));
        assert_eq!(at.saturating_since(stamps.wall(ms(99_750))), ms(250));
    }

    #[test]
    fn a_stamp_of_now_lies_between_two_readings_of_the_clock() {
        let clock = Clock::start();
        let stamps = Stamps::measured(&clock);
        // What the measuring may be off by, and then some.
        let slack = Duration::from_millis(5);
        let before = clock.now().wall;
        let stamp = stamps.wall(kernel_now());
        let after = clock.now().wall;
        assert!(
            stamp.saturating_add(slack) >= before,
            "{stamp:?} {before:?}"
        );
        assert!(stamp <= after.saturating_add(slack), "{stamp:?} {after:?}");
    }
}
