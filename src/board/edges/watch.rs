//! What is known of one input: its level as it was told last, and how far its edges were read.

use std::time::Duration;

use super::Seen;
use crate::board::Level;

pub(super) struct Watch {
    /// The level that was told last.
    level: Level,
    /// The number of the last edge that was read.
    number: u32,
    /// Edges from before this are in the first level.
    armed_at: Duration,
    /// The last look found another level, and no edge has come since.
    is_doubtful: bool,
}

/// What an edge amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// How many came before it on this line that nobody can read any more.
    pub(super) lost: u32,
    pub(super) is_news: bool,
}

impl Watch {
    pub(super) fn new(level: Level, armed_at: Duration) -> Watch {
        Watch {
            level,
            number: 0,
            armed_at,
            is_doubtful: false,
        }
    }

    /// Takes note of an edge. One to the level that is known already is news all the same: the edge between the two was too short to be seen.
    pub(super) fn edge(&mut self, seen: Seen) -> Told {
        let gap = seen.number.wrapping_sub(self.number).wrapping_sub(1);
        self.number = seen.number;
        let is_news = seen.stamp >= self.armed_at;
        if is_news {
            self.level = seen.level;
            self.is_doubtful = false;
        }
        Told {
            // A number that did not rise is no gap; the kernel gives none such.
            lost: if gap > u32::MAX / 2 { 0 } else { gap },
            is_news,
        }
    }

    /// Compares with a level that was read while no edge waited. The level to tell, when two looks in a row found it: after one alone its edge
    /// may still be on its way.
    pub(super) fn look(&mut self, level: Level) -> Option<Level> {
        if level == self.level {
            self.is_doubtful = false;
            return None;
        }
        if !self.is_doubtful {
            self.is_doubtful = true;
            return None;
        }
        self.is_doubtful = false;
        self.level = level;
        Some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::Level::{High, Low};
    use super::*;

    const ARMED: Duration = Duration::from_millis(1_000);

    fn seen(number: u32, level: Level, millis: u64) -> Seen {
        Seen {
            stamp: Duration::from_millis(millis),
            level,
            number,
        }
    }

    /// The lost ones before each edge of a line whose edges have these numbers.
    fn check(numbers: &[u32], expected: &[u32]) {
        let mut watch = Watch::new(Low, ARMED);
        watch.number = numbers[0];
        let lost: Vec<u32> = numbers[1..]
            .iter()
            .map(|number| watch.edge(seen(*number, High, 2_000)).lost)
            .collect();
        assert_eq!(lost, expected, "{numbers:?}");
    }

    #[test]
    fn a_gap_in_the_numbers_is_what_was_lost() {
        check(&[0, 1, 2, 3], &[0, 0, 0]);
        check(&[0, 2], &[1]);
        check(&[7, 8, 1_032, 1_033], &[0, 1_023, 0]);
        // The numbers run over after 4,294,967,295.
        check(&[u32::MAX - 1, u32::MAX, 0, 2], &[0, 0, 1]);
        check(&[5, 5, 4, 5], &[0, 0, 0]);
    }

    #[test]
    fn edges_from_before_the_first_level_was_read_are_in_it() {
        let mut watch = Watch::new(High, ARMED);
        assert!(!watch.edge(seen(1, High, 999)).is_news);
        assert!(watch.edge(seen(2, Low, 1_000)).is_news);
        assert!(watch.edge(seen(3, High, 1_001)).is_news);
        assert!(watch.edge(seen(4, High, 1_002)).is_news, "two in a row");
    }

    #[test]
    fn a_level_that_no_edge_told_is_told_by_the_second_look() {
        let mut watch = Watch::new(Low, ARMED);
        assert_eq!(
            [Low, High, High, High].map(|level| watch.look(level)),
            [None, None, Some(High), None]
        );
        // It was a short one, gone by the next look.
        assert_eq!(
            [Low, High, Low, High].map(|level| watch.look(level)),
            [None; 4]
        );
    }

    #[test]
    fn an_edge_that_was_on_its_way_is_not_told_twice() {
        let mut watch = Watch::new(Low, ARMED);
        assert_eq!(watch.look(High), None);
        assert!(watch.edge(seen(1, High, 2_000)).is_news);
        assert_eq!(watch.look(High), None);
        assert_eq!(watch.look(Low), None, "a look of its own, not the second");
    }
}
