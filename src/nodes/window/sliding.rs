//! Sliding windows: at each reading, the statistics of those of the last `size`.
//!
//! Readings leave in the order in which they came, and a [`Fold`] forgets nothing. So there are folds of what is left: the
//! older readings are cut into blocks, and `heads` holds for each cut the fold from there to the newest reading there was
//! when the cuts were made; `tail` is the fold of what has come since. A result is the fold of the part of a block before
//! the first cut, one head, and the tail. When the last older reading has left, the cuts are made anew. (Two stacks as
//! of Tangwongsan, Hirzel, Schneider: Low-Latency Sliding-Window Aggregation, DEBS 2017; thinned out to spare memory.)

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fold::Fold;
use super::packed;
use super::plan::{Plan, Stretch};
use super::tally::{Tallies, is_mostly_empty, too_many_distinct};
use super::windows::{Answer, BEGINNING, Here, Kind, Reading, Resumed, earlier};
use crate::flow::options::Span;
use crate::message::Timestamp;
use crate::runtime::state::StateError;

/// Readings that the windows of all keys of one node may have.
const MOST_READINGS: usize = 1_000_000;
/// Readings between two cuts: so many at most are folded again for each result.
const BLOCK: usize = 64;

pub(super) struct Sliding {
    size: Duration,
    /// Readings that one key may have.
    most: usize,
    /// Readings of all keys.
    readings: usize,
}

/// What is kept for a key.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    slide: Option<Slide>,
    /// The last value that left.
    held: Option<f64>,
    settled: Timestamp,
    /// The time of the last reading that went through a restart.
    restored_until: Timestamp,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            slide: None,
            held: None,
            settled: BEGINNING,
            restored_until: BEGINNING,
        }
    }
}

/// The readings of one key, in the order of time. What follows from them and from the place of the last cut is not written.
#[derive(Serialize, Deserialize)]
pub(super) struct Slide {
    #[serde(with = "packed")]
    readings: VecDeque<(Timestamp, f64)>,
    /// How many of them, from the first, the heads are about.
    older: usize,
    /// One for each whole block of them, that of the last block first.
    #[serde(skip)]
    heads: Vec<Fold>,
    #[serde(skip)]
    tail: Fold,
    #[serde(skip)]
    tallies: Tallies,
}

impl Sliding {
    pub(super) fn new(size: Duration, most: usize) -> Sliding {
        Sliding {
            size,
            most,
            readings: 0,
        }
    }

    /// Whether a window can take one more number when its first readings have left; the error says why not.
    fn check_room(&self, slide: Option<&Slide>, leaving: usize, number: f64) -> Result<(), String> {
        let staying = slide.map_or(0, |slide| slide.readings.len()) - leaving;
        if staying >= self.most {
            return Err(format!(
                "the last {} have {} readings already: raise `most`, or lower `size`",
                Span(self.size),
                self.most
            ));
        }
        if self.readings - leaving >= MOST_READINGS {
            return Err(format!(
                "the windows of all keys have {MOST_READINGS} readings already: lower `size` or `most_keys`"
            ));
        }
        let is_full = |slide: &Slide| {
            slide.tallies.is_full_for(number)
                && !slide.tallies.is_room_made_by(slide.values(leaving))
        };
        if slide.is_some_and(is_full) {
            return Err(too_many_distinct());
        }
        Ok(())
    }
}

impl Slide {
    fn new(plan: &Plan) -> Slide {
        Slide {
            readings: VecDeque::new(),
            older: 0,
            heads: Vec::new(),
            tail: plan.fold(),
            tallies: plan.tallies(),
        }
    }

    /// After this has been read: computes what is not written, in the same order as before, so that it is the same to the last bit.
    fn complete(&mut self, plan: &Plan) -> Result<(), StateError> {
        let length = self.readings.len();
        if self.older > length {
            return Err(StateError::unfit("a sliding window has too few readings"));
        }
        self.heads = heads(plan, &self.readings, self.older);
        self.tail = fold(plan, &self.readings, self.older..length);
        self.tallies = plan.tallies();
        self.tallies.add_all(self.values(length).collect());
        Ok(())
    }

    fn push(&mut self, time: Timestamp, value: f64) {
        self.readings.push_back((time, value));
        self.tail.add(time, value);
        self.tallies.add(value);
    }

    /// How many readings are not later than that.
    fn leaving(&self, time: Timestamp) -> usize {
        match self.readings.front() {
            Some(first) if first.0 <= time => {
                self.readings.partition_point(|reading| reading.0 <= time)
            }
            _ => 0,
        }
    }

    fn values(&self, count: usize) -> impl Iterator<Item = f64> {
        self.readings.range(..count).map(|(_, value)| *value)
    }

    /// Takes the first readings out. The last one's value.
    fn let_go(&mut self, count: usize, plan: &Plan) -> Option<f64> {
        let last = self.readings.get(count.checked_sub(1)?)?.1;
        if count > BLOCK {
            let going = self.values(count).collect();
            self.tallies.remove_all(going);
        } else {
            for (_, value) in self.readings.range(..count) {
                self.tallies.remove(*value);
            }
        }
        for _ in 0..count {
            if self.older == 0 {
                self.cut(plan);
            }
            self.readings.pop_front();
            self.older -= 1;
        }
        self.heads.truncate(self.older / BLOCK);
        Some(last)
    }

    /// Makes all readings older ones.
    fn cut(&mut self, plan: &Plan) {
        if is_mostly_empty(self.readings.len(), self.readings.capacity()) {
            self.readings.shrink_to(2 * self.readings.len());
        }
        self.older = self.readings.len();
        self.tail = plan.fold();
        self.heads = heads(plan, &self.readings, self.older);
    }

    /// How many readings have the time of the last one, but for that.
    fn before_last(&self) -> u32 {
        let same = self.readings.back().map_or(0, |last| {
            let earlier = self.readings.partition_point(|it| it.0 < last.0);
            self.readings.len() - 1 - earlier
        });
        u32::try_from(same).unwrap_or(u32::MAX)
    }

    /// The fold of all readings, with a value held before them from `start` on.
    fn whole(&self, plan: &Plan, start: Timestamp, held: Option<f64>) -> Fold {
        let mut whole = plan.fold();
        if let Some(held) = held {
            whole.hold(start, held);
        }
        whole.merge(&fold(plan, &self.readings, 0..self.older % BLOCK));
        if let Some(head) = self.heads.last() {
            whole.merge(head);
        }
        whole.merge(&self.tail);
        whole
    }
}

/// For each whole block of the first readings, from the last one on, the fold from there to the last of them.
fn heads(plan: &Plan, readings: &VecDeque<(Timestamp, f64)>, older: usize) -> Vec<Fold> {
    let mut heads: Vec<Fold> = Vec::with_capacity(older / BLOCK);
    let mut end = older;
    while end >= BLOCK {
        let mut head = fold(plan, readings, end - BLOCK..end);
        if let Some(later) = heads.last() {
            head.merge(later);
        }
        heads.push(head);
        end -= BLOCK;
    }
    heads
}

fn fold(
    plan: &Plan,
    readings: &VecDeque<(Timestamp, f64)>,
    places: std::ops::Range<usize>,
) -> Fold {
    let mut fold = plan.fold();
    for (time, value) in readings.range(places) {
        fold.add(*time, *value);
    }
    fold
}

impl Kind for Sliding {
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
        let Reading { time, number, .. } = reading;
        let start = earlier(time, self.size);
        let leaving = kept.slide.as_ref().map_or(0, |slide| slide.leaving(start));
        // All of this before anything leaves: one that is earlier than a refused one may still come.
        self.check_room(kept.slide.as_ref(), leaving, number)?;
        let slide = kept.slide.get_or_insert_with(|| Slide::new(here.plan));
        kept.held = slide.let_go(leaving, here.plan).or(kept.held);
        self.readings -= leaving;
        slide.push(time, number);
        self.readings += 1;
        kept.settled = time;
        if reading.is_restored {
            kept.restored_until = time;
        }
        let is_restored = start < kept.restored_until.max(here.answered_until);
        let stretch = Stretch {
            start,
            end: time,
            key: here.key,
            state: None,
            restored: is_restored.then(|| slide.before_last()),
        };
        let whole = slide.whole(here.plan, start, kept.held);
        Ok(Some(Answer {
            payload: here.plan.payload(&whole, &slide.tallies, stretch),
            topic: reading.topic,
            end: time,
        }))
    }

    fn resume(&self, kept: &mut Kept, resumed: &Resumed<'_>) -> Result<(), StateError> {
        if let Some(slide) = &mut kept.slide {
            slide.complete(resumed.plan)?;
            if resumed.is_restart {
                kept.restored_until = kept.settled;
            }
        }
        Ok(())
    }

    fn count(&mut self, kept: &Kept) {
        self.readings += kept.slide.as_ref().map_or(0, |slide| slide.readings.len());
    }

    fn last_begun(&self, kept: &Kept) -> Timestamp {
        kept.settled
    }

    fn is_open(&self, kept: &Kept) -> bool {
        kept.slide.is_some()
    }

    /// When the last reading leaves.
    fn due(&self, kept: &Kept) -> Option<Timestamp> {
        let slide = kept.slide.as_ref()?;
        let last = slide.readings.back().map_or(kept.settled, |last| last.0);
        Some(last.saturating_add(self.size))
    }

    /// Nothing is left but the last value; nothing is sent.
    fn close(&mut self, kept: &mut Kept, _: &Here<'_>) -> Option<Answer> {
        let slide = kept.slide.take()?;
        self.readings -= slide.readings.len();
        kept.held = slide.readings.back().map(|last| last.1).or(kept.held);
        None
    }
}
