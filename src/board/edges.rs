//! The edges of all armed inputs: one thread reads them and hands each over with the kernel's time stamp.
//!
//! Inputs are armed and read by the board's thread, and then given to the thread `edges` ([`reader`]), which owns them. What goes wrong there
//! is noted, and found by [`Edges::recheck`]: it arms a line anew that failed, and all of them when the thread has ended. Edges that the
//! kernel had to drop are counted.
//!
//! Must not: name the crate that speaks to the kernel; do anything in the thread but hand edges over.

mod reader;
mod stamps;
mod watch;

use std::collections::BTreeMap;
use std::mem;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::reader::{Reader, Watched};
use self::stamps::{Stamps, kernel_now};
use self::watch::Watch;
use super::error::Source;
use super::{BoardError, Edge, EdgeSink, Level, Pin, Pull};
use crate::runtime::clock::Clock;
use crate::runtime::realtime::Realtime;

/// What can arm inputs.
pub(super) trait Inputs {
    type Line: Line;

    fn arm(&self, pin: Pin, pull: Pull) -> Result<Self::Line, BoardError>;
}

/// An armed input. It is readable, for `poll`, when edges wait. Dropping it lets the line go.
pub(super) trait Line: AsFd + Send + 'static {
    fn level(&self) -> Result<Level, Source>;

    /// Adds edges that wait, oldest first, some at a time. To be called when there are some.
    fn read(&mut self, seen: &mut Vec<Seen>) -> Result<(), Source>;
}

/// An edge as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The kernel's monotonic time.
    pub(super) stamp: Duration,
    /// The level after the edge.
    pub(super) level: Level,
    /// Its number on its line, from 1.
    pub(super) number: u32,
}

pub(super) struct Edges<I: Inputs> {
    lines: I,
    stamps: Stamps,
    armed: BTreeMap<Pin, Armed>,
    reader: Option<Reader<I::Line>>,
    troubles: Arc<Troubles>,
    /// Edges that were lost since somebody asked.
    lost: u64,
    /// What the thread gets.
    realtime: Realtime,
}

struct Armed {
    pull: Pull,
    sink: EdgeSink,
    /// Why the reader has it no more.
    died_of: Option<Source>,
}

/// What went wrong in the reader since the last look: at most an entry for each pin.
#[derive(Default)]
struct Troubles(Mutex<BTreeMap<Pin, Trouble>>);

#[derive(Default)]
struct Trouble {
    /// Edges that the kernel saw and dropped before they were read.
    lost: u64,
    /// The level had changed and no edge told.
    found_late: bool,
    died_of: Option<Source>,
}

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pin, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, pin: Pin, change: impl FnOnce(&mut Trouble)) {
        change(self.lock().entry(pin).or_default());
    }

    fn take(&self) -> BTreeMap<Pin, Trouble> {
        mem::take(&mut *self.lock())
    }
}

impl<I: Inputs> Edges<I> {
    pub(super) fn new(lines: I, clock: &Clock) -> Edges<I> {
        Edges {
            lines,
            stamps: Stamps::measured(clock),
            armed: BTreeMap::new(),
            reader: None,
            troubles: Arc::default(),
            lost: 0,
            realtime: Realtime::default(),
        }
    }

    /// For the thread, which is started when the first input is armed.
    pub(super) fn set_realtime(&mut self, realtime: Realtime) {
        self.realtime = realtime;
    }

    pub(super) fn lines(&self) -> &I {
        &self.lines
    }

    /// Arms an input and returns the level that it has then; one that was armed is armed anew.
    pub(super) fn arm(
        &mut self,
        pin: Pin,
        pull: Pull,
        sink: EdgeSink,
    ) -> Result<Level, BoardError> {
        self.close(pin);
        let level = self.start(pin, pull, &sink)?;
        let armed = Armed {
            pull,
            sink,
            died_of: None,
        };
        self.armed.insert(pin, armed);
        Ok(level)
    }

    fn start(&mut self, pin: Pin, pull: Pull, sink: &EdgeSink) -> Result<Level, BoardError> {
        let line = self.lines.arm(pin, pull)?;
        // What the kernel stamped before this is in the level that is read after it.
        let armed_at = kernel_now();
        let level = line.level().map_err(|source| BoardError::Pin {
            pin,
            direction: "input",
            source,
        })?;
        let watched = Watched {
            pin,
            line,
            watch: Watch::new(level, armed_at),
            sink: sink.clone(),
        };
        self.find_dead_reader();
        if self.reader.is_none() {
            self.reader = Some(Reader::start(&self.stamps, &self.troubles, self.realtime)?);
        }
        if let Some(reader) = &mut self.reader {
            // One that ends at this very moment is found by the next recheck, with all its inputs.
            reader.add(watched);
        }
        Ok(level)
    }

    /// Ends the edges of an input; its line is free when this returns.
    pub(super) fn close(&mut self, pin: Pin) {
        if self.armed.remove(&pin).is_some()
            && let Some(reader) = &mut self.reader
        {
            reader.remove(pin);
            // What it died of before is over.
            self.troubles.note(pin, |trouble| trouble.died_of = None);
        }
    }

    /// Notices a thread that has ended: its inputs went with it.
    fn find_dead_reader(&mut self) {
        if self.reader.as_ref().is_some_and(Reader::has_ended) {
            self.reader = None;
            for armed in self.armed.values_mut() {
                armed
                    .died_of
                    .get_or_insert_with(|| "the thread `edges` has ended".into());
            }
        }
    }

    /// Mends what died, and tells of one trouble since the last call.
    pub(super) fn recheck(&mut self) -> Result<(), BoardError> {
        let mut lost = (Vec::new(), 0);
        let mut late = Ok(());
        for (pin, trouble) in self.troubles.take() {
            if trouble.lost > 0 {
                lost.0.push(pin.to_string());
                lost.1 += trouble.lost;
            }
            if trouble.found_late {
                late = Err(BoardError::FoundLate { pin });
            }
            if let (Some(source), Some(armed)) = (trouble.died_of, self.armed.get_mut(&pin)) {
                armed.died_of = Some(source);
            }
        }
        let (pins, count) = lost;
        self.lost += count;
        let lost = if count == 0 {
            Ok(())
        } else {
            let pins = pins.join(", ");
            Err(BoardError::EdgesLost { pins, count })
        };
        self.find_dead_reader();
        self.mend().and(lost).and(late)
    }

    /// Arms anew what died; what cannot be is tried again at the next call.
    fn mend(&mut self) -> Result<(), BoardError> {
        let mut first = Ok(());
        let dead: Vec<(Pin, Pull, EdgeSink)> = self
            .armed
            .iter()
            .filter(|(_, armed)| armed.died_of.is_some())
            .map(|(pin, armed)| (*pin, armed.pull, armed.sink.clone()))
            .collect();
        for (pin, pull, sink) in dead {
            let result = match self.start(pin, pull, &sink) {
                Ok(level) => {
                    let time = self.stamps.now();
                    sink(Edge { pin, level, time });
                    match self
                        .armed
                        .get_mut(&pin)
                        .and_then(|armed| armed.died_of.take())
                    {
                        Some(source) => Err(BoardError::ArmedAnew { pin, source }),
                        None => Ok(()),
                    }
                }
                Err(error) => Err(error),
            };
            first = first.and(result);
        }
        first
    }

    /// How many edges were lost since the last call, of those that a recheck has found.
    pub(super) fn lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests;
