//! Lines that anybody can cause, without a certificate: a few of each kind get into the log, the others are counted.
//!
//! Must not: read a clock or write a log.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// At most so many lines of one kind ..
const LINES_MAX: u32 = 5;
/// .. in this time.
const PERIOD: Duration = Duration::from_secs(60);

/// Says which lines are written. The kinds are words of the program, so that there are few of them.
#[derive(Default)]
pub(super) struct Quiet {
    kinds: HashMap<&'static str, Kind>,
}

struct Kind {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Quiet {
    /// Whether a line of this kind is to be written, and if so, how many were left out before it.
    pub(super) fn admit(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let kind = self.kinds.entry(kind).or_insert(Kind {
            since: now,
            written: 0,
            left_out: 0,
        });
        if now.duration_since(kind.since) >= PERIOD {
            kind.since = now;
            kind.written = 0;
        }
        if kind.written == LINES_MAX {
            kind.left_out += 1;
            return None;
        }
        kind.written += 1;
        Some(std::mem::take(&mut kind.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_counted_and_hides_no_other() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        let mut check = |kind, after: Duration, expected| {
            assert_eq!(
                quiet.admit(kind, start + after),
                expected,
                "{kind} {after:?}"
            );
        };
        for _ in 0..LINES_MAX {
            check("busy", Duration::ZERO, Some(0));
        }
        for _ in 0..1_000 {
            check("busy", PERIOD / 2, None);
        }
        check("no_certificate", PERIOD / 2, Some(0));
        check("busy", PERIOD, Some(1_000));
        check("busy", PERIOD, Some(0));
    }
}
