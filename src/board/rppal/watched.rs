//! Who has told of an input's level: its interrupt, or a recheck that found it changed.
//!
//! One atomic word, because the interrupt's callback must not wait for a lock. It holds the level last told, whether a
//! recheck told it (then the interrupt still owes that edge, and must not tell it again), and a count that moves with every
//! change, so that a recheck which was overtaken by edges while it read the pin does not tell an old level.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::board::Level;

const HIGH: u32 = 0b01;
const OWED: u32 = 0b10;
const COUNT: u32 = 0b100;

pub(super) struct Watched(AtomicU32);

/// What a recheck found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The input has this level and no edge told of it.
    pub(super) lost: Option<Level>,
    /// An edge owed since an earlier recheck has not come: the interrupt may be dead.
    pub(super) silent: bool,
}

impl Watched {
    pub(super) fn new(level: Level) -> Watched {
        Watched(AtomicU32::new(bits(level)))
    }

    /// The level that is handed out when the input has been armed. An edge that came meanwhile has told it already.
    pub(super) fn read_after_arming(&self, level: Level) {
        let word = self.0.load(Ordering::Acquire);
        if level_of(word) != level {
            self.advance(word, bits(level));
        }
    }

    /// The interrupt saw an edge to `level`. Whether that is news.
    pub(super) fn edge(&self, level: Level) -> bool {
        let next = |word: u32| Some(counted(word, bits(level)));
        let word = match self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(word) | Err(word) => word,
        };
        !(word & OWED != 0 && level_of(word) == level)
    }

    /// Compares what was told with what `read` reads now.
    pub(super) fn recheck(&self, read: impl FnOnce() -> Level) -> Found {
        let word = self.0.load(Ordering::Acquire);
        let level = read();
        let lost =
            (level_of(word) != level && self.advance(word, bits(level) | OWED)).then_some(level);
        Found {
            lost,
            silent: word & OWED != 0,
        }
    }

    /// The interrupt has been armed anew: it owes nothing that happened before.
    pub(super) fn rearmed(&self) {
        self.0.fetch_and(!OWED, Ordering::AcqRel);
    }

    fn advance(&self, word: u32, bits: u32) -> bool {
        self.0
            .compare_exchange(
                word,
                counted(word, bits),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }
}

fn counted(word: u32, bits: u32) -> u32 {
    (word & !(HIGH | OWED)).wrapping_add(COUNT) | bits
}

fn bits(level: Level) -> u32 {
    if level.is_high() { HIGH } else { 0 }
}

fn level_of(word: u32) -> Level {
    Level::from(word & HIGH != 0)
}

#[cfg(test)]
mod tests {
    use super::Level::{High, Low};
    use super::*;

    const NOTHING: Found = Found {
        lost: None,
        silent: false,
    };

    #[test]
    fn edges_are_news_and_a_recheck_then_finds_nothing() {
        let watched = Watched::new(Low);
        assert!(watched.edge(High));
        assert!(watched.edge(Low));
        assert_eq!(watched.recheck(|| Low), NOTHING);
        // Two rising edges in a row: the falling one was lost in a full buffer, the second rising one is still news.
        assert!(watched.edge(High) && watched.edge(High));
    }

    #[test]
    fn a_lost_edge_is_told_once_even_if_it_comes_late() {
        let watched = Watched::new(Low);
        assert_eq!(
            watched.recheck(|| High),
            Found {
                lost: Some(High),
                silent: false
            }
        );
        assert!(!watched.edge(High), "the recheck has told it");
        assert!(watched.edge(Low), "this one is new");
        assert_eq!(watched.recheck(|| Low), NOTHING);
    }

    #[test]
    fn an_interrupt_that_owes_an_edge_until_the_next_recheck_is_silent() {
        let watched = Watched::new(Low);
        assert!(watched.recheck(|| High).lost.is_some());
        assert_eq!(
            watched.recheck(|| High),
            Found {
                lost: None,
                silent: true
            }
        );
        watched.rearmed();
        assert_eq!(watched.recheck(|| High), NOTHING);
        assert_eq!(
            watched.recheck(|| Low),
            Found {
                lost: Some(Low),
                silent: false
            },
            "the level is told even while the interrupt is dead"
        );
    }

    #[test]
    fn edges_that_overtake_a_recheck_win() {
        let watched = Watched::new(Low);
        let found = watched.recheck(|| {
            // The pin was high when it was read, and before that could be told it went high and low again.
            assert!(watched.edge(High) && watched.edge(Low));
            High
        });
        assert_eq!(found, NOTHING);
    }

    #[test]
    fn arming_reads_the_level_without_telling_an_edge_twice() {
        let watched = Watched::new(Low);
        watched.read_after_arming(High);
        assert_eq!(watched.recheck(|| High), NOTHING);
    }
}
