//! Windows that begin with a message and end by what comes: sessions, counted messages, a state that lasts. A key has at most
//! one open.

use std::time::Duration;

use super::plan::{Gathered, Stretch};
use super::tally::too_many_distinct;
use super::windows::{Answer, Here, Kind, Reading};
use crate::message::{Text, Timestamp, Value};

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
pub(super) struct Kept {
    open: Option<Open>,
    /// The last reading's time, or the end of the last window, if that is later.
    settled: Timestamp,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            open: None,
            settled: Timestamp::from_nanos(i64::MIN),
        }
    }
}

pub(super) struct Open {
    start: Timestamp,
    /// The time of its last message.
    last: Timestamp,
    topic: Text,
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
        let open = kept.open.get_or_insert_with(|| Open {
            start: reading.time,
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
        kept.settled = reading.time;
        let is_complete = |open: &mut Open| matches!(self.until, Until::Count(count) if open.gathered.fold.count() >= count);
        let complete = kept.open.take_if(is_complete);
        Ok(ended.or_else(|| complete.map(|open| open.answer(reading.time, here))))
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
        let end = self.due(kept)?;
        kept.settled = kept.settled.max(end);
        Some(kept.open.take()?.answer(end, here))
    }
}
