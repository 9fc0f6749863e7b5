//! The node: it takes readings in, brings them and the ends of windows into the order of time, and sends results.
//!
//! How windows of each kind lie is in files of their own, behind [`Kind`]; they know neither the engine nor other keys.
//!
//! Terms: the *watermark* is the engine's time less the lateness; within one [`Timeline`] it never goes back. What lies before it is
//! settled. A *past* timeline is one from before a restart at which the clock went back.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::intake::Intake;
use super::plan::Plan;
use super::timeline::{Rules, Settings, Timeline};
use super::waiting::MOST_WAITING;
use crate::message::{Message, Text, Timestamp, Value};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::{Pause, State, StateError, maybe};

/// The ends of time.
pub(super) const BEGINNING: Timestamp = Timestamp::from_nanos(i64::MIN);
pub(super) const END: Timestamp = Timestamp::from_nanos(i64::MAX);

/// How far the clock may be behind at a restart without being taken for one that went back: what is a little too early fails as
/// late. A Pi without a clock battery starts with the time of its last stop, or with that of its system image.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// The form of the state, raised whenever what is written changes: it has no names of fields.
const FORM: u8 = 1;

/// Results and readings that one call settles, so that a thousand windows closing together do not keep an edge waiting.
const SLICE: usize = 256;

/// How windows of one kind lie, and what they keep.
pub(super) trait Kind {
    /// What is kept for one key.
    type Kept: Default + Serialize + DeserializeOwned;

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

    /// After what is kept for a key has been read: makes what is not written.
    fn resume(&self, kept: &mut Self::Kept, resumed: &Resumed<'_>) -> Result<(), StateError>;

    /// Counts what has been read towards what the node may have.
    fn count(&mut self, _kept: &Self::Kept) {}

    /// The latest time at which a window of a key has begun that is open, or may have been answered though it lies ahead.
    fn last_begun(&self, kept: &Self::Kept) -> Timestamp;

    fn is_open(&self, kept: &Self::Kept) -> bool;

    /// When the key has to be called up next.
    fn due(&self, kept: &Self::Kept) -> Option<Timestamp>;

    /// What is due has come; or no more will come.
    fn close(&mut self, kept: &mut Self::Kept, here: &Here<'_>) -> Option<Answer>;
}

/// A number of a message, with what a result needs of that.
#[derive(Serialize, Deserialize)]
pub(super) struct Reading {
    pub(super) time: Timestamp,
    pub(super) number: f64,
    pub(super) topic: Text,
    #[serde(with = "maybe")]
    pub(super) state: Option<Value>,
    /// Whether it waited over a restart.
    pub(super) is_restored: bool,
}

/// What a kind may know of its surroundings.
pub(super) struct Here<'a> {
    pub(super) plan: &'a Plan,
    pub(super) key: Option<&'a Text>,
    /// Windows that end by then are closed, or about to be.
    pub(super) closed_until: Timestamp,
    /// Windows that begin before then may have been answered before the clock went back.
    pub(super) answered_until: Timestamp,
}

/// What a kind may know when it goes on.
pub(super) struct Resumed<'a> {
    pub(super) plan: &'a Plan,
    pub(super) key: Option<&'a Text>,
    pub(super) is_restart: bool,
}

/// The result of a window.
pub(super) struct Answer {
    pub(super) topic: Text,
    pub(super) end: Timestamp,
    pub(super) payload: Value,
}

pub(super) struct Windows<K: Kind> {
    intake: Intake,
    /// Whether [`Kind::add_to_newest`] may be asked.
    is_quick: bool,
    rules: Rules<K>,
    timeline: Timeline<K>,
    /// What is left from before the clock went back, the earliest first: it is closed before anything else.
    past: Vec<Timeline<K>>,
}

/// A node's state.
#[derive(Deserialize)]
#[serde(bound = "")]
struct Saved<K: Kind> {
    form: u8,
    answered_until: Timestamp,
    timeline: Timeline<K>,
    past: Vec<Timeline<K>>,
}

impl<K: Kind> Node for Windows<K> {
    fn save(&self) -> Option<State> {
        let (rules, timeline, past) = (&self.rules, &self.timeline, &self.past);
        Some(State::unnamed(&(
            FORM,
            rules.answered_until,
            timeline,
            past,
        )))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        let mut saved: Saved<K> = state.read()?;
        if saved.form != FORM {
            return Err(StateError::unfit("it is from another version"));
        }
        let is_restart = pause == Pause::Restart;
        let has_keys = self.intake.has_keys();
        for timeline in saved.past.iter_mut().chain([&mut saved.timeline]) {
            timeline.complete(&self.rules, has_keys, is_restart)?;
        }
        for timeline in saved.past.iter().chain([&saved.timeline]) {
            timeline.count(&mut self.rules.kind);
        }
        self.rules.answered_until = saved.answered_until;
        self.timeline = saved.timeline;
        self.past = saved.past;
        if is_restart {
            self.check_clock(cx);
            // By the clock as it is now something else may be due.
            cx.wake_at(cx.now().mono);
        }
        Ok(())
    }

    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        let Some(number) = self.intake.number_or_fail(message, cx) else {
            return;
        };
        if self.is_quick && !self.is_ahead(message.time, cx) {
            let kept = self.timeline.only_key();
            if self.rules.kind.add_to_newest(kept, message, number) {
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
            timeline: Timeline::new(intake.has_keys(), &settings),
            past: Vec::new(),
            rules: Rules {
                settings,
                plan,
                kind,
                answered_until: BEGINNING,
            },
            intake,
        }
    }

    /// Whether a time is further ahead of now than a message's may be.
    #[inline]
    fn is_ahead(&self, time: Timestamp, cx: &Context<'_>) -> bool {
        time.saturating_since(cx.now().wall) > self.rules.settings.future
    }

    fn watermark_of(&self, cx: &Context<'_>) -> Timestamp {
        earlier(cx.now().wall, self.rules.settings.lateness)
    }

    /// If the clock went back at a restart, what was settled before says nothing about what comes now: it would all be late, for
    /// hours or for ever. So there is a new timeline, and all that was open is closed.
    fn check_clock(&mut self, cx: &Context<'_>) {
        let behind = self
            .timeline
            .watermark()
            .saturating_since(self.watermark_of(cx));
        if behind <= CLOCK_TOLERANCE {
            return;
        }
        let Rules { answered_until, .. } = self.rules;
        let begun = self.timeline.begun_before(&self.rules.kind);
        self.rules.answered_until = answered_until.max(begun);
        let new = Timeline::new(self.intake.has_keys(), &self.rules.settings);
        let mut past = std::mem::replace(&mut self.timeline, new);
        past.end(&self.rules);
        self.past.push(past);
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
        let watermark = self.timeline.watermark();
        if let Some(start) = self.rules.kind.settled_window(time, watermark) {
            return Err(format!(
                "too late: the window from {start} was closed before this message of {time} came"
            ));
        }
        let state = self.intake.state(message)?;
        let key = self.intake.key(message)?;
        let known = self.timeline.find(key.as_ref());
        let until = self.timeline.settled_until(known, &self.rules.kind);
        if time < until {
            return Err(format!(
                "too late: what came before {until} was settled before this message of {time} came"
            ));
        }
        if self.rules.settings.is_ordered && self.timeline.is_full() {
            return Err(format!(
                "{MOST_WAITING} messages wait for earlier ones already, this is one too many"
            ));
        }
        let place = match known {
            Some(place) => place,
            None => self
                .timeline
                .new_place(key.unwrap_or_else(|| "".into()), &self.rules)?,
        };
        let reading = Reading {
            time,
            number,
            topic: message.topic.clone(),
            state,
            is_restored: false,
        };
        if self.rules.settings.is_ordered {
            self.timeline.wait(place, reading, &self.rules.kind);
            self.advance(cx);
            Ok(())
        } else {
            self.timeline.take(place, reading, &mut self.rules, cx)
        }
    }

    /// Moves the watermark on, and settles what it has passed, in the order of time.
    fn advance(&mut self, cx: &mut Context<'_>) {
        self.timeline.pass(self.watermark_of(cx));
        let mut slice = SLICE;
        while let Some(past) = self.past.first_mut() {
            if !past.advance(&mut slice, &mut self.rules, cx) {
                return;
            }
            self.past.remove(0);
        }
        self.timeline.advance(&mut slice, &mut self.rules, cx);
    }

    fn ask_for_wake(&self, cx: &mut Context<'_>) {
        let lateness = self.rules.settings.lateness;
        match self.timeline.next() {
            // What is due now would be part of the same turn of the engine; others come first.
            _ if !self.past.is_empty() => cx.wake_at(cx.now().mono + Duration::from_nanos(1)),
            Some(next) if next <= self.timeline.watermark() => {
                cx.wake_at(cx.now().mono + Duration::from_nanos(1));
            }
            None => cx.cancel_wake(),
            Some(next) => {
                let settled_at = next.saturating_add(lateness);
                if earlier(settled_at, lateness) < next {
                    // Time ends before that.
                    cx.cancel_wake();
                } else {
                    cx.wake_at(cx.now().mono_at(settled_at));
                }
            }
        }
    }
}

/// The point in time so long before, held at the beginning of the range.
pub(super) fn earlier(time: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(span))
}

/// Texts that have been read are one each; equal ones need to be there only once.
pub(super) fn share(text: &mut Text, known: Option<&Text>) {
    if let Some(known) = known.filter(|known| **known == *text) {
        *text = known.clone();
    }
}
