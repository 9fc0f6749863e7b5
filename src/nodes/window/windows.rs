//! The node: it takes readings in, brings them and the ends of windows into the order of time, and sends results.
//!
//! How windows of each kind lie is in files of their own, behind [`Kind`]; they know neither the engine nor other keys.
//!
//! Terms: the *watermark* is the engine's time less the lateness; it never goes back. What lies before it is settled.

use std::time::Duration;

use super::intake::Intake;
use super::keys::Keys;
use super::plan::Plan;
use super::waiting::{MOST_WAITING, Waiting};
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Node};

/// Results and readings that one call settles, so that a thousand windows closing together do not keep an edge waiting.
const SLICE: usize = 256;

/// How windows of one kind lie, and what they keep.
pub(super) trait Kind {
    /// What is kept for one key.
    type Kept: Default;

    /// Adds to the newest window of a key, if it is open and the reading belongs to it and to no other. It changes nothing
    /// otherwise. Only for readings that may come in any order.
    fn add_to_newest(&mut self, _: &mut Self::Kept, _: &mut Message, _: f64) -> bool {
        false
    }

    /// The start of the latest window for a reading of that time, if even that one is settled.
    fn settled_window(&self, _time: Timestamp, _watermark: Timestamp) -> Option<Timestamp> {
        None
    }

    /// Up to when a key's readings are settled: earlier ones cannot be taken any more.
    fn settled_until(&self, kept: &Self::Kept) -> Timestamp;

    /// Takes a reading. The error says why that cannot be; nothing has been changed then.
    fn take(
        &mut self,
        kept: &mut Self::Kept,
        reading: Reading,
        here: &Here<'_>,
    ) -> Result<Option<Answer>, String>;

    fn is_open(&self, kept: &Self::Kept) -> bool;

    /// When the key has to be called up next.
    fn due(&self, kept: &Self::Kept) -> Option<Timestamp>;

    /// What is due has come.
    fn close(&mut self, kept: &mut Self::Kept, here: &Here<'_>) -> Option<Answer>;
}

/// A number of a message, with what a result needs of that.
pub(super) struct Reading {
    pub(super) time: Timestamp,
    pub(super) number: f64,
    pub(super) topic: Text,
    pub(super) state: Option<Value>,
}

/// What a kind may know of its surroundings.
pub(super) struct Here<'a> {
    pub(super) plan: &'a Plan,
    pub(super) key: Option<&'a Text>,
    /// Windows that end by then are closed, or about to be.
    pub(super) closed_until: Timestamp,
}

/// The result of a window.
pub(super) struct Answer {
    pub(super) topic: Text,
    pub(super) end: Timestamp,
    pub(super) payload: Value,
}

/// What holds for windows of every kind.
pub(super) struct Settings {
    pub(super) lateness: Duration,
    /// How far ahead of now a reading may be.
    pub(super) future: Duration,
    pub(super) most_keys: usize,
    /// Whether readings are taken by their time, and wait for that.
    pub(super) is_ordered: bool,
}

pub(super) struct Windows<K: Kind> {
    settings: Settings,
    /// Whether [`Kind::add_to_newest`] may be asked.
    is_quick: bool,
    intake: Intake,
    plan: Plan,
    kind: K,
    keys: Keys<K::Kept>,
    waiting: Waiting,
    watermark: Timestamp,
    /// Up to when readings of keys that were forgotten are settled.
    forgotten_until: Timestamp,
}

impl<K: Kind> Node for Windows<K> {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = self.intake.number_or_fail(message, cx) else {
            return;
        };
        if self.is_quick && !self.is_ahead(message.time, cx) {
            let kept = &mut self.keys.slot_mut(0).kept;
            if self.kind.add_to_newest(kept, message, number) {
                return;
            }
        }
        self.advance(cx);
        if let Err(reason) = self.arrive(number, message, cx) {
            cx.fail(reason);
        }
        self.ask_for_wake(cx);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        self.advance(cx);
        self.ask_for_wake(cx);
    }
}

impl<K: Kind> Windows<K> {
    pub(super) fn new(kind: K, intake: Intake, plan: Plan, settings: Settings) -> Windows<K> {
        Windows {
            is_quick: !intake.has_keys() && !settings.is_ordered,
            keys: if intake.has_keys() {
                Keys::new(settings.most_keys)
            } else {
                Keys::one()
            },
            settings,
            intake,
            plan,
            kind,
            waiting: Waiting::default(),
            watermark: Timestamp::from_nanos(i64::MIN),
            forgotten_until: Timestamp::from_nanos(i64::MIN),
        }
    }

    /// Whether a time is further ahead of now than a message's may be.
    #[inline]
    fn is_ahead(&self, time: Timestamp, cx: &Context<'_>) -> bool {
        time.saturating_since(cx.now().wall) > self.settings.future
    }

    fn arrive(
        &mut self,
        number: f64,
        message: &mut Message,
        cx: &mut Context<'_>,
    ) -> Result<(), String> {
        let (time, now) = (message.time, cx.now().wall);
        if self.is_ahead(time, cx) {
            return Err(format!(
                "the message's time, {time}, is in the future: it is {now} now"
            ));
        }
        if let Some(start) = self.kind.settled_window(time, self.watermark) {
            return Err(format!(
                "too late: the window from {start} was closed before this message of {time} came"
            ));
        }
        let state = self.intake.state(message)?;
        let key = self.intake.key(message)?;
        let known = key.as_ref().map_or(Some(0), |key| self.keys.find(key));
        let until = known.map_or(self.forgotten_until, |place| {
            self.kind.settled_until(&self.keys.slot(place).kept)
        });
        if time < until {
            return Err(format!(
                "too late: what came before {until} was settled before this message of {time} came"
            ));
        }
        if self.settings.is_ordered && self.waiting.is_full() {
            return Err(format!(
                "{MOST_WAITING} messages wait for earlier ones already, this is one too many"
            ));
        }
        let place = match known {
            Some(place) => place,
            None => self.new_place(key.unwrap_or_else(|| "".into()))?,
        };
        let reading = Reading {
            time,
            number,
            topic: message.topic.clone(),
            state,
        };
        if self.settings.is_ordered {
            self.keys.slot_mut(place).waiting += 1;
            self.waiting.add(place, reading);
            self.settle(place);
            self.advance(cx);
            Ok(())
        } else {
            self.take(place, reading, cx)
        }
    }

    fn new_place(&mut self, key: Text) -> Result<usize, String> {
        let (place, forgotten) = self.keys.add(key.clone()).ok_or_else(|| {
            let most = self.settings.most_keys;
            format!("{most} keys have open windows already, `{key}` is one too many")
        })?;
        if let Some(kept) = forgotten {
            let until = self.kind.settled_until(&kept);
            self.forgotten_until = self.forgotten_until.max(until);
        }
        self.settle(place);
        Ok(place)
    }

    /// Moves the watermark on, and settles what it has passed, in the order of time. A window that ends when a reading comes
    /// is closed first, for its end does not belong to it.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let watermark = earlier(cx.now().wall, self.settings.lateness);
        self.watermark = self.watermark.max(watermark);
        for _ in 0..SLICE {
            let due = self.keys.next_due().filter(|due| *due <= self.watermark);
            let next = self.waiting.next().filter(|next| *next <= self.watermark);
            if due.is_some_and(|due| next.is_none_or(|next| due <= next)) {
                self.close_next(cx);
            } else if next.is_some() {
                self.take_next(cx);
            } else {
                return;
            }
        }
    }

    fn close_next(&mut self, cx: &mut Context<'_>) {
        let called_up = self.keys.next_due();
        let Some(place) = self.keys.take_due() else {
            return;
        };
        // A window that was extended is due later than it was called up.
        let slot = self.keys.slot_mut(place);
        if self.kind.due(&slot.kept) == called_up {
            let here = Here {
                plan: &self.plan,
                key: slot.name.as_ref(),
                closed_until: self.watermark,
            };
            let answer = self.kind.close(&mut slot.kept, &here);
            send(answer, cx);
        }
        self.settle(place);
    }

    fn take_next(&mut self, cx: &mut Context<'_>) {
        let Some((place, reading)) = self.waiting.take() else {
            return;
        };
        self.keys.slot_mut(place).waiting -= 1;
        if let Err(reason) = self.take(place, reading, cx) {
            cx.fail(reason);
        }
    }

    fn take(&mut self, place: usize, reading: Reading, cx: &mut Context<'_>) -> Result<(), String> {
        let slot = self.keys.slot_mut(place);
        let here = Here {
            plan: &self.plan,
            key: slot.name.as_ref(),
            // The watermark may be far ahead of a reading that has waited; windows are closed no further than to it.
            closed_until: match self.settings.is_ordered {
                true => reading.time,
                false => self.watermark,
            },
        };
        let taken = self.kind.take(&mut slot.kept, reading, &here);
        self.settle(place);
        taken.map(|answer| send(answer, cx))
    }

    fn settle(&mut self, place: usize) {
        let kept = &self.keys.slot(place).kept;
        let (is_open, due) = (self.kind.is_open(kept), self.kind.due(kept));
        self.keys.settle(place, is_open, due);
    }

    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        let next = [self.keys.next_due(), self.waiting.next()];
        match next.into_iter().flatten().min() {
            None => cx.cancel_wake(),
            // What is due now would be part of the same turn of the engine; others come first.
            Some(next) if next <= self.watermark => {
                cx.wake_at(cx.now().mono + Duration::from_nanos(1));
            }
            Some(next) => {
                let settled_at = next.saturating_add(self.settings.lateness);
                if earlier(settled_at, self.settings.lateness) < next {
                    // Time ends before that.
                    cx.cancel_wake();
                } else {
                    cx.wake_at(cx.now().mono_at(settled_at));
                }
            }
        }
    }
}

fn send(answer: Option<Answer>, cx: &mut Context<'_>) {
    if let Some(answer) = answer {
        cx.originate(answer.topic, answer.payload, answer.end);
    }
}

/// The point in time so long before, held at the beginning of the range.
pub(super) fn earlier(time: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(span))
}
