//! How fast what waited while the link was down may go: so many records and bytes a second, so that a backlog leaves room for what
//! else uses the link. What is new is not held back.
//!
//! Each record costs time, 1/`messages` s or its size/`bytes` s, whichever is longer; the next one may go when that is over.
//!
//! Must not: look at a clock.

use std::time::Duration;

/// Limits for each second; without one there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainLimits {
    /// Records.
    pub messages: Option<u32>,
    /// Bytes of PUBLISH packets.
    pub bytes: Option<u64>,
}

/// What was not used up is kept for so long, so that a timer that wakes late costs nothing.
const SLACK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    limits: DrainLimits,
    /// When the next record may go.
    next: Duration,
}

impl Drain {
    pub(super) fn new(limits: DrainLimits) -> Drain {
        Drain {
            limits,
            next: Duration::ZERO,
        }
    }

    /// When the next one may go, if that is not now.
    pub(super) fn waits_until(&self, now: Duration) -> Option<Duration> {
        (self.next > now).then_some(self.next)
    }

    /// A record of this size goes now.
    pub(super) fn take(&mut self, size: usize, now: Duration) {
        let by_messages = self
            .limits
            .messages
            .map(|limit| 1.0 / f64::from(limit.max(1)));
        let by_bytes = self
            .limits
            .bytes
            .map(|limit| size as f64 / limit.max(1) as f64);
        let cost = by_messages.unwrap_or(0.0).max(by_bytes.unwrap_or(0.0));
        self.next = self.next.max(now.saturating_sub(SLACK)) + Duration::from_secs_f64(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records of a size go in ten seconds, for one who comes every so often.
    fn check(
        limits: DrainLimits,
        size: usize,
        every_ms: u64,
        expected: std::ops::RangeInclusive<u32>,
    ) {
        let mut drain = Drain::new(limits);
        let mut gone = 0;
        for ms in (0..10_000).step_by(every_ms as usize) {
            let now = Duration::from_secs(3_600) + Duration::from_millis(ms);
            while drain.waits_until(now).is_none() && gone < 1_000_000 {
                drain.take(size, now);
                gone += 1;
            }
        }
        assert!(expected.contains(&gone), "{limits:?} {size}: {gone}");
    }

    #[test]
    fn the_slower_limit_counts() {
        let limits = |messages, bytes| DrainLimits { messages, bytes };
        check(limits(Some(20), None), 1_000, 1, 200..=203);
        check(limits(Some(20), None), 1_000, 90, 195..=203);
        check(limits(None, Some(5_000)), 1_000, 1, 50..=51);
        check(limits(None, Some(5_000)), 100_000, 1, 1..=1);
        check(limits(Some(20), Some(5_000)), 1_000, 1, 50..=51);
        check(limits(Some(20), Some(5_000)), 10, 1, 200..=203);
        check(limits(Some(10_000), None), 10, 50, 99_000..=101_001);
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut drain = Drain::new(DrainLimits::default());
        drain.take(usize::MAX, Duration::ZERO);
        assert_eq!(drain.waits_until(Duration::ZERO), None);
    }
}
