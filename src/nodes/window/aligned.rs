//! Tumbling and hopping windows: of one length, on multiples of the hop since 1970 in UTC.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::{Gathered, Stretch};
use super::tally::too_many_distinct;
use super::windows::{Answer, BEGINNING, Here, Kind, Reading, Resumed, share};
use crate::message::{Message, Text, Timestamp};
use crate::runtime::state::StateError;

/// Windows that may be open in one node at once.
pub(super) const MOST_OPEN: usize = 200_000;

pub(super) struct Aligned {
    size: Duration,
    /// As long as `size` where windows follow each other.
    hop: Duration,
    /// Whether readings come by their time, so that it is known what was held before a window.
    is_ordered: bool,
    /// Open windows of all keys.
    open: usize,
}

/// What is kept for a key.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// In the order of time; one, or a few while late messages are waited for or windows overlap.
    open: VecDeque<Open>,
    /// The last reading, if readings come by their time.
    last: Option<(Timestamp, f64)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Open {
    start: Timestamp,
    /// Not written: it follows from the start.
    #[serde(skip)]
    end: Timestamp,
    /// The topic of its last message.
    topic: Text,
    gathered: Gathered,
    /// Whether something in it went through a restart, or its result may have been sent before one.
    is_restored: bool,
}

impl Aligned {
    pub(super) fn new(size: Duration, hop: Duration, is_ordered: bool) -> Aligned {
        Aligned {
            size,
            hop,
            is_ordered,
            open: 0,
        }
    }

    /// How many windows a reading of that time belongs to, and the start of the first of them; without those that end by
    /// `closed_until`.
    fn windows_of(&self, time: Timestamp, closed_until: Timestamp) -> (usize, Timestamp) {
        let nanos = |time: Timestamp| i128::from(time.as_nanos());
        let (size, hop) = (self.size.as_nanos() as i128, self.hop.as_nanos() as i128);
        let newest = nanos(time.floor(self.hop));
        // Those before the newest begin less than `size` before the reading, and not before time does.
        let before = (newest - i128::from(i64::MIN)).min(size - 1 - (nanos(time) - newest)) / hop;
        let first = newest - before * hop;
        let closed = match nanos(closed_until) - size - first {
            since if since >= 0 => (since / hop + 1).min(before),
            _ => 0,
        };
        let start = i64::try_from(first + closed * hop).unwrap_or(i64::MIN);
        let count = usize::try_from(before + 1 - closed).unwrap_or(1);
        (count, Timestamp::from_nanos(start))
    }
}

impl Kind for Aligned {
    type Kept = Kept;

    #[inline]
    fn add_to_newest(&mut self, kept: &mut Kept, message: &mut Message, number: f64) -> bool {
        match kept.open.back_mut() {
            Some(open)
                if open.start <= message.time
                    && message.time < open.end
                    && self.hop == self.size
                    && !open.gathered.tallies.is_full_for(number) =>
            {
                std::mem::swap(&mut open.topic, &mut message.topic);
                open.gathered.add(message.time, number);
                true
            }
            _ => false,
        }
    }

    fn settled_window(&self, time: Timestamp, watermark: Timestamp) -> Option<Timestamp> {
        let start = time.floor(self.hop);
        (start.saturating_add(self.size) <= watermark).then_some(start)
    }

    fn settled_until(&self, kept: &Kept) -> Timestamp {
        kept.last.map_or(BEGINNING, |(time, _)| time)
    }

    fn take(
        &mut self,
        kept: &mut Kept,
        reading: Reading,
        here: &Here<'_>,
    ) -> Result<Option<Answer>, String> {
        let (count, first) = self.windows_of(reading.time, here.closed_until);
        let from = kept.open.partition_point(|open| open.start < first);
        let to = kept.open.partition_point(|open| open.start <= reading.time);
        let is_full = |open: &Open| open.gathered.tallies.is_full_for(reading.number);
        if kept.open.range(from..to).any(is_full) {
            return Err(too_many_distinct());
        }
        let missing = count.saturating_sub(to - from);
        if self.open + missing > MOST_OPEN {
            return Err(format!(
                "{MOST_OPEN} windows are open already, this message needs one too many"
            ));
        }
        let mut start = first;
        for place in from..from + count {
            if kept.open.get(place).is_none_or(|open| open.start != start) {
                let mut gathered = here.plan.gathered();
                if let Some((_, held)) = kept.last {
                    gathered.fold.hold(start, held);
                }
                let open = Open {
                    start,
                    end: start.saturating_add(self.size),
                    topic: reading.topic.clone(),
                    gathered,
                    is_restored: start < here.answered_until,
                };
                kept.open.insert(place, open);
                self.open += 1;
            }
            let open = &mut kept.open[place];
            open.topic = reading.topic.clone();
            open.is_restored |= reading.is_restored;
            open.gathered.add(reading.time, reading.number);
            start = start.saturating_add(self.hop);
        }
        if self.is_ordered {
            kept.last = Some((reading.time, reading.number));
        }
        Ok(None)
    }

    fn resume(&self, kept: &mut Kept, resumed: &Resumed<'_>) -> Result<(), StateError> {
        let mut before = resumed.key.cloned();
        for open in &mut kept.open {
            open.end = open.start.saturating_add(self.size);
            resumed.plan.complete(&mut open.gathered)?;
            open.is_restored |= resumed.is_restart;
            share(&mut open.topic, before.as_ref());
            before = Some(open.topic.clone());
        }
        Ok(())
    }

    fn count(&mut self, kept: &Kept) {
        self.open += kept.open.len();
    }

    fn last_begun(&self, kept: &Kept) -> Timestamp {
        kept.open.back().map_or(BEGINNING, |open| open.start)
    }

    fn is_open(&self, kept: &Kept) -> bool {
        !kept.open.is_empty()
    }

    fn due(&self, kept: &Kept) -> Option<Timestamp> {
        kept.open.front().map(|open| open.end)
    }

    fn close(&mut self, kept: &mut Kept, here: &Here<'_>) -> Option<Answer> {
        let open = kept.open.pop_front()?;
        self.open -= 1;
        let stretch = Stretch {
            start: open.start,
            end: open.end,
            key: here.key,
            state: None,
            restored: open.is_restored.then_some(0),
        };
        let Gathered { fold, tallies } = &open.gathered;
        Some(Answer {
            payload: here.plan.payload(fold, tallies, stretch),
            topic: open.topic,
            end: open.end,
        })
    }
}
