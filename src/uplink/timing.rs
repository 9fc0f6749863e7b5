//! How long the uplink waits: for an answer, for an acknowledgement, and before the next attempt to connect.
//!
//! Must not: sleep or read a clock.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::reason::Failure;

/// The times that are no settings.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    /// For name look-up, TCP, TLS and MQTT together, and for each flush; whole seconds.
    pub(super) connect_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    /// A connection that lasted this long was a good one: the back-off starts over.
    pub(super) stable: Duration,
    /// How often the certificate files are looked at.
    pub(super) look: Duration,
    /// How long a stop waits for acknowledgements.
    pub(super) farewell: Duration,
    /// How long a broker has, after the handshake of a trial, to refuse our certificate.
    pub(super) trial_silence: Duration,
    /// How long a connection that is to be made anew, with new certificates, waits for acknowledgements.
    pub(super) drain: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            stable: Duration::from_secs(5),
            look: Duration::from_secs(2),
            farewell: Duration::from_secs(1),
            trial_silence: Duration::from_secs(3),
            drain: Duration::from_secs(5),
        }
    }
}

impl Timing {
    /// When the uplink tries again, for the log.
    pub(super) fn next_attempts(&self, failure: &Failure) -> String {
        let Timing {
            backoff_min,
            backoff_max,
            look,
            ..
        } = self;
        match failure {
            Failure::Files(_) => format!("looks at the files again every {look:?}"),
            _ => format!(
                "tries again by itself, every {backoff_min:?} at first and {backoff_max:?} later"
            ),
        }
    }
}

/// After this many keep-alives without an acknowledgement of the oldest record, the connection is given up.
pub(super) const ACK_KEEP_ALIVES: u32 = 4;

/// How long to wait before the next attempt: longer after each failure, with jitter, so that a thousand devices do not
/// come back in the same second.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    random: RandomState,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff {
            min,
            max,
            failures: 0,
            random: RandomState::new(),
        }
    }

    /// The link has held for a while: the next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The time to wait after one more failure: between half and all of `min` doubled per failure, up to `max`.
    pub(super) fn next(&mut self) -> Duration {
        // Each hasher of a `RandomState` is seeded from the system's random numbers.
        let part = (self.random.hash_one(self.failures) % 1_001) as u32;
        self.next_with(part)
    }

    /// The same, with the jitter given, from 0 to 1,000.
    pub(super) fn next_with(&mut self, part: u32) -> Duration {
        let full = self
            .min
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        full / 2 + full / 2 * part / 1_000
    }
}

/// Notices that the oldest record in flight stays the same.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    oldest: Option<u64>,
    checks: u32,
}

impl Stalled {
    /// To be asked once in a keep-alive.
    pub(super) fn for_too_long(&mut self, oldest: Option<u64>) -> bool {
        if oldest.is_none() || oldest != self.oldest {
            *self = Stalled { oldest, checks: 0 };
            return false;
        }
        self.checks += 1;
        self.checks >= ACK_KEEP_ALIVES
    }
}

#[cfg(test)]
mod tests {
    use super::super::tls::{LoadError, Role};
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_a_reset() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(30));
        let mut backoff = Backoff::new(min, max);
        let mut check = |full_ms: u64| {
            let (full, wait) = (Duration::from_millis(full_ms), backoff.next());
            assert!(full / 2 <= wait && wait <= full, "{wait:?} for {full:?}");
        };
        for full_ms in [
            200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
        ] {
            check(full_ms);
        }
        for _ in 0..100 {
            check(30_000);
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }

    #[test]
    fn the_log_says_how_often_it_really_tries() {
        let timing = Timing::default();
        let path = "tls/ca.pem".into();
        let role = Role::Ca;
        let files = Failure::Files(LoadError::Missing { role, path });
        assert_eq!(
            timing.next_attempts(&files),
            "looks at the files again every 2s"
        );
        assert_eq!(
            timing.next_attempts(&Failure::Closed),
            "tries again by itself, every 200ms at first and 30s later"
        );
    }

    #[test]
    fn only_an_oldest_record_that_stays_the_same_is_stalled() {
        let mut stalled = Stalled::default();
        let mut check = |seq: Option<u64>, expected| {
            assert_eq!(stalled.for_too_long(seq), expected, "{seq:?}");
        };
        for seq in [1, 1, 1, 1, 2, 2, 2, 2] {
            check(Some(seq), false);
        }
        check(None, false);
        for expected in [false, false, false, false, true] {
            check(Some(3), expected);
        }
    }

    #[test]
    fn two_devices_do_not_wait_alike() {
        let wait = |_| Backoff::new(Duration::from_secs(30), Duration::from_secs(30)).next();
        let waits: std::collections::BTreeSet<Duration> = (0..20).map(wait).collect();
        assert!(waits.len() > 1, "{waits:?}");
    }
}
