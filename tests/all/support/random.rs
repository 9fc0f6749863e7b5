//! Random moments that can be had again.

use std::time::Duration;

/// SplitMix64, by Steele, Lea and Flood (2014).
pub(crate) struct Random(u64);

impl Random {
    /// From `SEED`, or else of this process; printed, so that a run can be had again.
    pub(crate) fn seeded() -> Random {
        let seed = match std::env::var("SEED") {
            Ok(seed) => seed.parse().unwrap_or_else(|error| panic!("SEED: {error}")),
            Err(_) => u64::from(std::process::id()),
        };
        println!("SEED={seed}");
        Random(seed)
    }

    /// One that goes on by itself.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
