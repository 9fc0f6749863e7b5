//! The one clock that messages, windows, the outbox and the uplink go by.
//!
//! Terms: *monotonic* time never steps; it began at some start of this device, and goes on over those since as far as that is known
//! ([`Clock::resume`]), so that no deadline of a flow has to be converted. *Live time* is the wall-clock time that
//! messages are stamped with. Live time is the monotonic time plus an offset, so that it does not jump about with the
//! wall clock: see [`Clock::reanchor`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::message::Timestamp;

/// One reading of the clock. Everything that is pure gets the time as one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, from when it began.
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
    /// Monotonic time at `start`.
    began: Duration,
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
    /// A clock whose live time is the wall clock's now, and whose monotonic time begins.
    pub fn start() -> Clock {
        Clock::starting_at(system_time(), Duration::ZERO)
    }

    /// The same, but monotonic time goes on from the latest of these moments, as far as the wall clock says that time has passed since.
    /// Where it is not set yet, the time in which the device was off does not count.
    pub fn resume(moments: impl IntoIterator<Item = Now>) -> Clock {
        let system = system_time();
        let latest = moments.into_iter().max_by_key(|now| now.mono);
        let began = latest.map_or(Duration::ZERO, |latest| mono_after(latest, system));
        Clock::starting_at(system, began)
    }

    fn starting_at(system: Timestamp, began: Duration) -> Clock {
        let since_began = i64::try_from(began.as_nanos()).unwrap_or(i64::MAX);
        Clock {
            start: Instant::now(),
            began,
            offset: Arc::new(AtomicI64::new(
                system.as_nanos().saturating_sub(since_began),
            )),
        }
    }

    pub fn now(&self) -> Now {
        let mono = self.began + self.start.elapsed();
        Now {
            mono,
            wall: Timestamp::from_nanos(self.offset.load(Ordering::Relaxed)).saturating_add(mono),
        }
    }

    /// The live time of an instant, as live time stands now; also of one before this clock was started.
    pub fn wall_at(&self, instant: Instant) -> Timestamp {
        let began =
            Timestamp::from_nanos(self.offset.load(Ordering::Relaxed)).saturating_add(self.began);
        match instant.checked_duration_since(self.start) {
            Some(since) => began.saturating_add(since),
            None => {
                let before = self.start.saturating_duration_since(instant).as_nanos();
                let before = i64::try_from(before).unwrap_or(i64::MAX);
                Timestamp::from_nanos(began.as_nanos().saturating_sub(before))
            }
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

/// Monotonic time goes on to at most this. More than that was never measured: the wall clock was wrong once, or a file is.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Monotonic time at a wall-clock time after a moment.
fn mono_after(moment: Now, system: Timestamp) -> Duration {
    let passed = system.saturating_since(moment.wall);
    moment.mono.saturating_add(passed).min(LONGEST)
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
    fn monotonic_time_goes_on_by_what_the_wall_clock_says_has_passed() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let check = |mono: u64, wall: i64, system: i64, expected: u64| {
            let moment = Now {
                mono: Duration::from_secs(mono),
                wall: at(wall),
            };
            let found = mono_after(moment, at(system));
            assert_eq!(found, Duration::from_secs(expected), "{moment:?} {system}");
        };
        check(100, 1_000, 1_000, 100);
        check(100, 1_000, 1_060, 160);
        // The clock is not set yet.
        check(100, 1_000, 0, 100);
        check(u64::MAX, 1_000, 2_000, LONGEST.as_secs());
        check(100, i64::MIN / 1000, 2_000_000_000, LONGEST.as_secs());
    }

    #[test]
    fn a_clock_goes_on_from_the_latest_moment_and_its_live_time_is_the_wall_clock_s() {
        let second = Duration::from_secs(1);
        let system = system_time();
        let moment = |mono: u32| Now {
            mono: second * mono,
            wall: system,
        };
        let clock = Clock::resume([moment(500), moment(7_000), moment(20)]);
        let now = clock.now();
        assert!(
            now.mono >= second * 7_000 && now.mono < second * 7_060,
            "{now:?}"
        );
        assert!(now.wall.saturating_since(system) < second * 60, "{now:?}");
        assert!(now.wall >= system, "{now:?}");
        assert!(Clock::resume([]).now().mono < second * 60);
        // To the end of what can be counted.
        let clock = Clock::resume([Now {
            mono: Duration::MAX,
            wall: Timestamp::from_nanos(i64::MIN),
        }]);
        assert!(clock.now().wall.saturating_since(system) < second * 60);
    }

    #[test]
    fn an_instant_has_the_live_time_of_its_moment() {
        let second = Duration::from_secs(1);
        let moment = Now {
            mono: second * 500,
            wall: system_time(),
        };
        let clock = Clock::resume([moment]);
        let at_start = clock.wall_at(clock.start);
        assert!(clock.now().wall >= at_start);
        assert!(clock.now().wall.saturating_since(at_start) < second * 60);

        let later = clock.wall_at(clock.start + second);
        assert_eq!(later.saturating_since(at_start), second);
        let earlier = clock.start.checked_sub(second).unwrap();
        assert_eq!(at_start.saturating_since(clock.wall_at(earlier)), second);

        // It follows the wall clock, as all live time does.
        clock.reanchor_to(clock.now().wall.saturating_add(second * 3600));
        let moved = clock.wall_at(clock.start).saturating_since(at_start);
        assert!(moved > second * 3599, "{moved:?}");
    }

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
