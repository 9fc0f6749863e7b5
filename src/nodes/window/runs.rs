//! Windows that begin with a message and end by what comes: sessions, counted messages, a state that lasts. A key has at most
//! one open.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::{Gathered, Stretch};
use super::tally::too_many_distinct;
use super::windows::{Answer, BEGINNING, END, Here, Kind, Reading, Resumed, share};
use crate::message::{Text, Timestamp, Value};
use crate::runtime::state::{StateError, maybe};

pub(super) struct Runs {
    pub(super) until: Until,
    /// How long a window lasts at most.
    pub(super) longest: Option<Duration>,
}

/// What ends a window.
pub(super) enum Until {
    /// So much time without a message.
    Gap(Duration),
    /// So many messages.
    Count(u64),
    /// A message with another state.
    State,
}

/// What is kept for a key.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    open: Option<Open>,
    /// The last reading's time, or the end of the last window, if that is later.
    settled: Timestamp,
    /// How many windows began at that very time.
    begun: u32,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            open: None,
            settled: BEGINNING,
            begun: 0,
        }
    }
}

impl Kept {
    fn settle(&mut self, time: Timestamp) {
        if time > self.settled {
            self.settled = time;
            self.begun = 0;
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Open {
    start: Timestamp,
    /// How many windows of its key began at the same time, before it.
    before: u32,
    /// Whether something in it went through a restart, or its result may have been sent before one.
    is_restored: bool,
    /// The time of its last message.
    last: Timestamp,
    topic: Text,
    #[serde(with = "maybe")]
    state: Option<Value>,
    gathered: Gathered,
}

impl Open {
    fn answer(self, end: Timestamp, here: &Here<'_>) -> Answer {
        let stretch = Stretch {
            start: self.start,
            end,
            key: here.key,
            state: self.state,
            restored: self.is_restored.then_some(self.before),
        };
        let Gathered { fold, tallies } = &self.gathered;
        Answer {
            payload: here.plan.payload(fold, tallies, stretch),
            topic: self.topic,
            end,
        }
    }
}

impl Kind for Runs {
    type Kept = Kept;

    fn settled_until(&self, kept: &Kept) -> Timestamp {
        kept.settled
    }

    fn take(
        &mut self,
        kept: &mut Kept,
        reading: Reading,
        here: &Here<'_>,
    ) -> Result<Option<Answer>, String> {
        let ended = kept.open.take_if(|open| open.state != reading.state);
        let ended = ended.map(|open| open.answer(reading.time, here));
        kept.settle(reading.time);
        let begun = &mut kept.begun;
        let open = kept.open.get_or_insert_with(|| Open {
            start: reading.time,
            before: std::mem::replace(begun, begun.saturating_add(1)),
            is_restored: reading.time < here.answered_until,
            last: reading.time,
            topic: reading.topic.clone(),
            state: reading.state,
            gathered: here.plan.gathered(),
        });
        if open.gathered.tallies.is_full_for(reading.number) {
            return Err(too_many_distinct());
        }
        open.gathered.add(reading.time, reading.number);
        open.last = reading.time;
        open.topic = reading.topic;
        open.is_restored |= reading.is_restored;
        let is_complete = |open: &mut Open| matches!(self.until, Until::Count(count) if open.gathered.fold.count() >= count);
        let complete = kept.open.take_if(is_complete);
        Ok(ended.or_else(|| complete.map(|open| open.answer(reading.time, here))))
    }

    fn resume(&self, kept: &mut Kept, resumed: &Resumed<'_>) -> Result<(), StateError> {
        if let Some(open) = &mut kept.open {
            resumed.plan.complete(&mut open.gathered)?;
            open.is_restored |= resumed.is_restart;
            share(&mut open.topic, resumed.key);
        }
        Ok(())
    }

    fn last_begun(&self, kept: &Kept) -> Timestamp {
        kept.settled
    }

    fn is_open(&self, kept: &Kept) -> bool {
        kept.open.is_some()
    }

    fn due(&self, kept: &Kept) -> Option<Timestamp> {
        let open = kept.open.as_ref()?;
        let longest = self.longest.map(|span| open.start.saturating_add(span));
        let gap = match self.until {
            Until::Gap(gap) => Some(open.last.saturating_add(gap)),
            Until::Count(_) | Until::State => None,
        };
        [longest, gap].into_iter().flatten().min()
    }

    fn close(&mut self, kept: &mut Kept, here: &Here<'_>) -> Option<Answer> {
        let due = self.due(kept).unwrap_or(END);
        let open = kept.open.take()?;
        // Where the clock went back it is closed before it is due: it ends where time had come to.
        let end = due.min(here.closed_until.max(open.last));
        kept.settle(end);
        Some(open.answer(end, here))
    }
}
