//! A course of time: keys with their windows, and readings that wait, settled in the order of time.
//!
//! Terms: as in [`windows`](super::windows).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::plan::Plan;
use super::waiting::Waiting;
use super::windows::{Answer, BEGINNING, END, Here, Kind, Reading, Resumed, share};
use crate::message::{Text, Timestamp};
use crate::runtime::node::Context;
use crate::runtime::state::StateError;

/// What holds for windows of every kind.
pub(super) struct Settings {
    pub(super) lateness: Duration,
    /// How far ahead of now a reading may be.
    pub(super) future: Duration,
    pub(super) most_keys: usize,
    /// Whether readings are taken by their time, and wait for that.
    pub(super) is_ordered: bool,
}

/// How a node's windows are, whatever time it is.
pub(super) struct Rules<K> {
    pub(super) settings: Settings,
    pub(super) plan: Plan,
    pub(super) kind: K,
    /// See [`Here::answered_until`].
    pub(super) answered_until: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Timeline<K: Kind> {
    keys: Keys<K::Kept>,
    waiting: Waiting,
    watermark: Timestamp,
    /// Up to when readings of keys that were forgotten are settled.
    forgotten_until: Timestamp,
    /// Whether no more will come: everything is due, and the watermark stands.
    has_ended: bool,
}

impl<K: Kind> Timeline<K> {
    pub(super) fn new(has_keys: bool, settings: &Settings) -> Timeline<K> {
        Timeline {
            keys: match has_keys {
                true => Keys::new(settings.most_keys),
                false => Keys::one(),
            },
            waiting: Waiting::default(),
            watermark: BEGINNING,
            forgotten_until: BEGINNING,
            has_ended: false,
        }
    }

    pub(super) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    pub(super) fn pass(&mut self, watermark: Timestamp) {
        self.watermark = self.watermark.max(watermark);
    }

    /// What is kept for the key of a node that tells none apart.
    #[inline]
    pub(super) fn only_key(&mut self) -> &mut K::Kept {
        &mut self.keys.slot_mut(0).kept
    }

    pub(super) fn find(&self, key: Option<&Text>) -> Option<usize> {
        key.map_or(Some(0), |key| self.keys.find(key))
    }

    /// Up to when the readings of a key are settled, or of one that has no place.
    pub(super) fn settled_until(&self, place: Option<usize>, kind: &K) -> Timestamp {
        place.map_or(self.forgotten_until, |place| {
            kind.settled_until(&self.keys.slot(place).kept)
        })
    }

    /// Whether no more readings can wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    pub(super) fn new_place(&mut self, key: Text, rules: &Rules<K>) -> Result<usize, String> {
        let (place, forgotten) = self.keys.add(key.clone()).ok_or_else(|| {
            let most = rules.settings.most_keys;
            format!("{most} keys have open windows already, `{key}` is one too many")
        })?;
        if let Some(kept) = forgotten {
            let until = rules.kind.settled_until(&kept);
            self.forgotten_until = self.forgotten_until.max(until);
        }
        self.settle(place, &rules.kind);
        Ok(place)
    }

    /// Lets a reading wait until the watermark has come to it.
    pub(super) fn wait(&mut self, place: usize, reading: Reading, kind: &K) {
        self.keys.slot_mut(place).waiting += 1;
        self.waiting.add(place, reading);
        self.settle(place, kind);
    }

    /// Settles what the watermark has passed, in the order of time, as long as there are turns left. A window that ends when a
    /// reading comes is closed first, for its end does not belong to it. Says whether nothing is left to do.
    pub(super) fn advance(
        &mut self,
        turns: &mut usize,
        rules: &mut Rules<K>,
        cx: &mut Context<'_>,
    ) -> bool {
        let until = match self.has_ended {
            true => END,
            false => self.watermark,
        };
        loop {
            let due = self.keys.next_due().filter(|due| *due <= until);
            let next = self.waiting.next().filter(|next| *next <= until);
            if due.is_none() && next.is_none() {
                return true;
            }
            if *turns == 0 {
                return false;
            }
            *turns -= 1;
            if due.is_some_and(|due| next.is_none_or(|next| due <= next)) {
                self.close_next(rules, cx);
            } else {
                self.take_next(rules, cx);
            }
        }
    }

    fn close_next(&mut self, rules: &mut Rules<K>, cx: &mut Context<'_>) {
        let called_up = self.keys.next_due();
        let Some(place) = self.keys.take_due() else {
            return;
        };
        // A window that was extended is due later than it was called up.
        if self.due(place, &rules.kind) == called_up {
            let slot = self.keys.slot_mut(place);
            let here = Here {
                plan: &rules.plan,
                key: slot.name.as_ref(),
                closed_until: self.watermark,
                answered_until: rules.answered_until,
            };
            let answer = rules.kind.close(&mut slot.kept, &here);
            send(answer, cx);
        }
        self.settle(place, &rules.kind);
    }

    fn take_next(&mut self, rules: &mut Rules<K>, cx: &mut Context<'_>) {
        let Some((place, reading)) = self.waiting.take() else {
            return;
        };
        self.keys.slot_mut(place).waiting -= 1;
        if let Err(reason) = self.take(place, reading, rules, cx) {
            cx.fail(reason);
        }
    }

    pub(super) fn take(
        &mut self,
        place: usize,
        reading: Reading,
        rules: &mut Rules<K>,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        let slot = self.keys.slot_mut(place);
        let here = Here {
            plan: &rules.plan,
            key: slot.name.as_ref(),
            // The watermark may be far ahead of a reading that has waited; windows are closed no further than to it.
            closed_until: match rules.settings.is_ordered {
                true => reading.time,
                false => self.watermark,
            },
            answered_until: rules.answered_until,
        };
        let taken = rules.kind.take(&mut slot.kept, reading, &here);
        self.settle(place, &rules.kind);
        taken.map(|answer| send(answer, cx))
    }

    fn settle(&mut self, place: usize, kind: &K) {
        let is_open = kind.is_open(&self.keys.slot(place).kept);
        let due = self.due(place, kind);
        self.keys.settle(place, is_open, due);
    }

    /// When a key has to be called up next.
    fn due(&self, place: usize, kind: &K) -> Option<Timestamp> {
        let kept = &self.keys.slot(place).kept;
        let at_the_end = (self.has_ended && kind.is_open(kept)).then_some(END);
        kind.due(kept).or(at_the_end)
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let next = [self.keys.next_due(), self.waiting.next()];
        next.into_iter().flatten().min()
    }
}

/// What becomes of it over a restart.
impl<K: Kind> Timeline<K> {
    /// After it has been read: makes what is not written, and marks what went through a restart.
    pub(super) fn complete(
        &mut self,
        rules: &Rules<K>,
        has_keys: bool,
        is_restart: bool,
    ) -> Result<(), StateError> {
        self.keys.complete(rules.settings.most_keys);
        let slots = self.keys.slots_mut();
        let is_fit = match has_keys {
            true => slots.iter().all(|slot| slot.name.is_some()),
            false => matches!(slots, [slot] if slot.name.is_none()),
        };
        if !is_fit {
            return Err(StateError::unfit("its keys are others"));
        }
        for slot in &mut *slots {
            let resumed = Resumed {
                plan: &rules.plan,
                key: slot.name.as_ref(),
                is_restart,
            };
            rules.kind.resume(&mut slot.kept, &resumed)?;
            slot.waiting = 0;
        }
        for (place, reading) in self.waiting.iter_mut() {
            let slot = slots.get_mut(*place);
            let slot = slot.ok_or_else(|| StateError::unfit("a message of no key waits"))?;
            slot.waiting += 1;
            share(&mut reading.topic, slot.name.as_ref());
            reading.is_restored |= is_restart;
        }
        Ok(())
    }

    pub(super) fn count(&self, kind: &mut K) {
        self.keys
            .slots()
            .iter()
            .for_each(|slot| kind.count(&slot.kept));
    }

    /// A time before which every window has begun that was answered or is going to be.
    pub(super) fn begun_before(&self, kind: &K) -> Timestamp {
        let keys = self.keys.slots().iter();
        let keys = keys.map(|slot| kind.last_begun(&slot.kept)).max();
        let begun = [keys, self.waiting.last(), Some(self.forgotten_until)];
        let last = begun.into_iter().flatten().max().unwrap_or(BEGINNING);
        self.watermark
            .max(last.saturating_add(Duration::from_nanos(1)))
    }

    /// No more will come: everything is due.
    pub(super) fn end(&mut self, rules: &Rules<K>) {
        self.has_ended = true;
        for place in 0..self.keys.slots().len() {
            self.settle(place, &rules.kind);
        }
    }
}

fn send(answer: Option<Answer>, cx: &mut Context<'_>) {
    if let Some(answer) = answer {
        cx.originate(answer.topic, answer.payload, answer.end);
    }
}
