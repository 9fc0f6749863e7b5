//! Parts that are wired to pins without a bus, through the kernel's /dev/gpiochipN.
//!
//! Such a part has two lines: the *output* is the one that we drive, the *input* the one that the part drives. The kernel stamps the edges
//! of the input as they come, so that their times do not depend on when this process runs.
//!
//! Must not: find out by polling when an edge was.

use std::time::Duration;

use super::part::{About, Chip, Options, Part};
use super::place::{Hardware, Pins, Place};
use super::scene::Scene;
use super::trouble::Trouble;
use crate::board::{Level, Pin};

#[cfg(target_os = "linux")]
mod device;

/// Which pins a part is wired to: the options that name them.
pub trait PinsPlace: Options {
    /// Whether the edges of the input are wanted.
    const EDGES: bool;

    /// The option and the pin of the line that we drive.
    fn output(&self) -> (&'static str, Pin);

    /// The option and the pin of the line that the part drives.
    fn input(&self) -> (&'static str, Pin);
}

/// The way to such a part.
pub trait Lines: Send {
    /// Drives the output.
    fn drive(&mut self, level: Level) -> Result<(), Trouble>;

    /// The level of the input.
    fn level(&mut self) -> Result<Level, Trouble>;

    /// The next edge of the input, if one comes within this time; those that have come since the start are kept until they are taken.
    fn edge(&mut self, within: Duration) -> Result<Option<LineEdge>, Trouble>;

    /// Time since the start, by a clock that is never set.
    fn now(&self) -> Duration;

    fn wait(&mut self, span: Duration);
}

/// A change of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineEdge {
    /// The level after it.
    pub level: Level,
    /// When it was. It says something beside another edge only.
    pub at: Duration,
}

/// A simulated part, at the level of its lines. Times do not go back.
pub trait LineTwin: Send {
    /// Its input, our output, was driven.
    fn driven(&mut self, level: Level, at: Duration);

    /// The level of its output.
    fn level(&mut self, at: Duration) -> Level;

    /// The next change of its output after this time, as things are.
    fn change_after(&mut self, _after: Duration) -> Option<LineEdge> {
        None
    }
}

impl<W: PinsPlace> Place for W {
    type Link = Box<dyn Lines>;
    type Twin = Box<dyn LineTwin>;
    const BY: &'static str = "two pins";

    fn problems(&self, _: &About) -> Vec<(&'static str, String)> {
        let ((other, output), (option, input)) = (self.output(), self.input());
        if output == input {
            return vec![(option, format!("{input} is that of `{other}` already"))];
        }
        Vec::new()
    }

    /// Each has its own, as it takes long and disturbs nobody.
    fn bus(&self) -> String {
        let (output, input) = (self.output().1, self.input().1);
        format!("gpio:{}-{}", output.number(), input.number())
    }

    fn describe(&self, _: &About) -> String {
        format!("{} and {}", self.output().1, self.input().1)
    }

    fn pins(&self) -> Pins {
        Pins::Own([self.output(), self.input()])
    }

    fn link(&self, _: &About, hardware: &Hardware) -> Result<Box<dyn Lines>, Trouble> {
        let (output, input) = (self.output().1, self.input().1);
        #[cfg(target_os = "linux")]
        return device::Device::open(&hardware.dev, output, input, W::EDGES);
        #[cfg(not(target_os = "linux"))]
        Err(Trouble::NoBus {
            path: hardware.dev.join("gpiochip0"),
            remedy: format!("{output} and {input} need Linux"),
        })
    }

    fn simulate<P: Part<Place = W>>(
        &self,
        part: &P,
        scene: Scene,
    ) -> Result<Box<dyn Chip>, Trouble> {
        part.open(Box::new(Simulated::new(part.twin(scene))))
    }
}

/// Lines to a simulated part, with a clock of their own: it goes on by what is waited, and a little with each call.
pub(super) struct Simulated {
    twin: Box<dyn LineTwin>,
    now: Duration,
    /// The edges until then have been taken.
    taken: Duration,
}

impl Simulated {
    /// About what a call of the kernel takes.
    const CALL: Duration = Duration::from_micros(1);

    pub(super) fn new(twin: Box<dyn LineTwin>) -> Simulated {
        Simulated {
            twin,
            now: Duration::ZERO,
            taken: Duration::ZERO,
        }
    }
}

impl Lines for Simulated {
    fn drive(&mut self, level: Level) -> Result<(), Trouble> {
        self.now += Simulated::CALL;
        self.twin.driven(level, self.now);
        Ok(())
    }

    fn level(&mut self) -> Result<Level, Trouble> {
        self.now += Simulated::CALL;
        Ok(self.twin.level(self.now))
    }

    fn edge(&mut self, within: Duration) -> Result<Option<LineEdge>, Trouble> {
        let until = self.now + within;
        let edge = self.twin.change_after(self.taken);
        let edge = edge.filter(|edge| edge.at <= until);
        match edge {
            Some(edge) => {
                self.taken = edge.at;
                self.now = self.now.max(edge.at);
            }
            None => self.now = until,
        }
        Ok(edge)
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_edge_is_taken_once_and_in_time() {
        struct Ticks;
        impl LineTwin for Ticks {
            fn driven(&mut self, _: Level, _: Duration) {}
            fn level(&mut self, _: Duration) -> Level {
                Level::Low
            }
            fn change_after(&mut self, after: Duration) -> Option<LineEdge> {
                let second = after.as_secs() + 1;
                Some(LineEdge {
                    level: Level::from(second % 2 == 1),
                    at: Duration::from_secs(second),
                })
            }
        }
        let mut lines = Simulated::new(Box::new(Ticks));
        let mut edge = |ms: u64| {
            let edge = lines.edge(Duration::from_millis(ms)).unwrap();
            edge.map(|edge| (edge.at.as_secs(), edge.level.is_high()))
        };
        assert_eq!(edge(999), None);
        assert_eq!(edge(1), Some((1, true)));
        assert_eq!(edge(0), None);
        assert_eq!(edge(2_000), Some((2, false)));
    }
}
