//! Counts the pulses of an input where its edges come in, so that none waits in a queue and none is lost there.
//!
//! Must not: know nodes or boards' kinds; take longer than a few instructions.

use std::time::Duration;

use crate::board::{Edge, Level};
use crate::message::Timestamp;

/// What counts as a pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// The level after the edge that counts.
    pub level: Level,
    /// An edge that comes sooner than this after the one before, of either direction, is bouncing.
    pub debounce: Duration,
}

/// A count that goes on as long as its input is armed.
#[derive(Clone, Debug)]
pub struct PulseCounter {
    counting: Counting,
    pulses: Pulses,
    /// The edge before, whether it counted or not.
    last_edge: Option<Timestamp>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulses {
    pub count: u64,
    /// When the last one came.
    pub last: Option<Timestamp>,
}

impl PulseCounter {
    pub fn new(counting: Counting) -> PulseCounter {
        PulseCounter {
            counting,
            pulses: Pulses::default(),
            last_edge: None,
        }
    }

    pub fn edge(&mut self, edge: &Edge) {
        let quiet = self.last_edge.map(|last| edge.time.saturating_since(last));
        self.last_edge = Some(edge.time);
        let bounces = quiet.is_some_and(|quiet| quiet < self.counting.debounce);
        if edge.level == self.counting.level && !bounces {
            self.pulses.count += 1;
            self.pulses.last = Some(edge.time);
        }
    }

    pub fn read(&self) -> Pulses {
        self.pulses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Pin;

    /// Edges as milliseconds, those after which the level is high with a sign.
    fn counted(counting: Counting, edges: &[i64]) -> u64 {
        let mut counter = PulseCounter::new(counting);
        for edge in edges {
            counter.edge(&Edge {
                pin: Pin::new(4).unwrap(),
                level: (*edge > 0).into(),
                time: Timestamp::from_millis(1_000 + edge.abs()),
            });
        }
        counter.read().count
    }

    fn counting(level: Level, debounce_ms: u64) -> Counting {
        Counting {
            level,
            debounce: Duration::from_millis(debounce_ms),
        }
    }

    #[test]
    fn each_edge_of_the_wanted_direction_counts() {
        let edges = [10, -20, 30, -40, 41, -42];
        assert_eq!(counted(counting(Level::High, 0), &edges), 3);
        assert_eq!(counted(counting(Level::Low, 0), &edges), 3);
    }

    #[test]
    fn a_contact_that_bounces_when_it_closes_and_when_it_opens_is_one_pulse() {
        let edges = [
            100, -101, 102, -103, 104, -200, 201, -202, 203, -204, 300, -400,
        ];
        assert_eq!(counted(counting(Level::High, 5), &edges), 2);
        // Just inside and just outside.
        assert_eq!(counted(counting(Level::High, 10), &[100, -110, 120]), 2);
        assert_eq!(counted(counting(Level::High, 10), &[100, -110, 119]), 1);
    }

    #[test]
    fn a_step_of_the_clock_backwards_does_not_stop_it() {
        let mut counter = PulseCounter::new(counting(Level::High, 5));
        for ms in [10_000, 9_000, 9_100, 9_200] {
            counter.edge(&Edge {
                pin: Pin::new(4).unwrap(),
                level: Level::High,
                time: Timestamp::from_millis(ms),
            });
        }
        assert_eq!(counter.read().count, 3, "all but the one of the step");
    }
}
