//! What is written to the card, measured, and how much that may be in a day.
//!
//! The kernel counts for each process what it makes the disk write (`write_bytes` in `/proc/self/io`, proc(5)): the outbox, sled's
//! own files and what flows remember are all in it. Of a disk of a test there is no such count; there what a commit of that size
//! was measured to write is taken (decision 0002).
//!
//! With a budget, commits wait until there is credit for them: it grows evenly through the day, up to an hour's share.
//!
//! Must not: hold a commit up for longer than [`LONGEST_WAIT`], or when memory is short.

use std::fs;
use std::time::Duration;

/// So much longer than the commit interval a commit may wait for the budget.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

const PER_COMMIT: u64 = 9_000;
const PER_TWO_BYTES: u64 = 11;
const DAY: f64 = 86_400.0;

pub(super) struct Flash {
    /// The kernel's count at the last look; none if it is not to be looked at, or cannot be.
    counted: Option<u64>,
    /// Bytes a day.
    budget: Option<u64>,
    /// What may be written now, in bytes; less than nothing after a large commit.
    credit: f64,
    at: Duration,
    since: Option<Duration>,
    written: u64,
}

impl Flash {
    /// Without a look at the kernel's count.
    pub(super) fn estimated(budget: Option<u64>) -> Flash {
        Flash {
            counted: None,
            budget,
            credit: budget.map_or(0.0, |it| it as f64 / 24.0),
            at: Duration::ZERO,
            since: None,
            written: 0,
        }
    }

    pub(super) fn measured(budget: Option<u64>) -> Flash {
        Flash {
            counted: kernel_count(),
            ..Flash::estimated(budget)
        }
    }

    /// A commit with so many bytes of records has been written. Gives what reached the disk since the last one.
    pub(super) fn wrote(&mut self, records: u64, now: Duration) -> u64 {
        let bytes = match (self.counted, kernel_count()) {
            (Some(before), Some(count)) => {
                self.counted = Some(count);
                count.saturating_sub(before)
            }
            _ => PER_COMMIT + records * PER_TWO_BYTES / 2,
        };
        self.since.get_or_insert(now);
        self.written += bytes;
        if let Some(budget) = self.budget {
            let budget = budget as f64;
            let earned = budget / DAY * now.saturating_sub(self.at).as_secs_f64();
            self.credit = (self.credit + earned).min(budget / 24.0) - bytes as f64;
            self.at = now;
        }
        bytes
    }

    /// What a day comes to at the pace since the first commit; after the first minute.
    pub(super) fn per_day(&self, now: Duration) -> u64 {
        let since = now.saturating_sub(self.since.unwrap_or(now));
        if since < Duration::from_secs(60) {
            return 0;
        }
        (self.written as f64 / since.as_secs_f64() * DAY) as u64
    }

    /// When a commit that is due then may be written.
    pub(super) fn allows_at(&self, due: Duration) -> Duration {
        match self.budget {
            // What is due at once cannot wait: memory is short.
            Some(budget) if self.credit < 0.0 && due > Duration::ZERO => {
                let wait = -self.credit / (budget.max(1) as f64 / DAY);
                let credited = self.at + Duration::from_secs_f64(wait.min(DAY));
                credited.clamp(due, due + LONGEST_WAIT)
            }
            _ => due,
        }
    }
}

/// None where there is no such file, or nobody may read it.
fn kernel_count() -> Option<u64> {
    let counts = fs::read_to_string("/proc/self/io").ok()?;
    let line = counts
        .lines()
        .find_map(|it| it.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_a_budget_nothing_waits() {
        let mut flash = Flash::estimated(None);
        flash.wrote(1 << 40, s(5));
        assert_eq!(flash.allows_at(s(6)), s(6));
    }

    #[test]
    fn commits_wait_for_their_share_of_the_day() {
        // One byte a second, and 3,600 to begin with.
        let mut flash = Flash::estimated(Some(86_400));
        assert_eq!(flash.allows_at(s(1)), s(1));
        assert_eq!(flash.wrote(0, HOUR), PER_COMMIT);
        // 5,400 are owed.
        let due = HOUR + s(5_380);
        assert_eq!(flash.allows_at(due), HOUR + s(5_400));
        assert_eq!(
            flash.allows_at(due + s(30)),
            due + s(30),
            "it is earned by then"
        );
        assert_eq!(
            flash.allows_at(HOUR + s(1)),
            HOUR + s(61),
            "no longer than that"
        );
        assert_eq!(
            flash.allows_at(Duration::ZERO),
            Duration::ZERO,
            "memory is short"
        );
    }

    #[test]
    fn a_day_keeps_within_its_budget() {
        let budget = 50_000_000;
        let mut flash = Flash::estimated(Some(budget));
        let (mut now, mut commits) = (Duration::ZERO, 0);
        while now < 24 * HOUR {
            now = flash.allows_at(now + s(1));
            flash.wrote(100, now);
            commits += 1;
        }
        let most = budget + budget / 24 + PER_COMMIT * 2;
        assert!(
            (budget..most).contains(&flash.written),
            "{} in {commits}",
            flash.written
        );
        let per_day = flash.per_day(24 * HOUR);
        assert!((budget..most).contains(&per_day), "{per_day}");
    }
}
