//! What all sensor sources share: ask for a reading at a steady pace, hand on what comes.

use std::time::Duration;

use crate::message::{Message, Text};
use crate::runtime::node::{Context, Input, Node};

/// A source that reads a sensor every so often. A reading that takes longer than the pace is waited for, not doubled.
pub(super) struct Sampler {
    topic: Text,
    every: Duration,
    next: Duration,
    awaits_reading: bool,
}

impl Sampler {
    pub(super) fn new(topic: Text, every: Duration) -> Sampler {
        Sampler {
            topic,
            every,
            next: Duration::ZERO,
            awaits_reading: false,
        }
    }
}

impl Node for Sampler {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.next = cx.now().mono;
        cx.wake_at(self.next);
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        if !self.awaits_reading {
            self.awaits_reading = true;
            cx.read_sensor();
        }
        self.next = next_tick(self.next, self.every, now);
        cx.wake_at(self.next);
    }

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        let Input::Reading { time, value } = input else {
            return;
        };
        self.awaits_reading = false;
        match value {
            Ok(value) => cx.originate(self.topic.clone(), value, time),
            Err(reason) => cx.fail(reason),
        }
    }
}

/// The next tick of a steady pace after `now`: without drift, and without catching up on ticks that were missed.
pub(super) fn next_tick(last: Duration, every: Duration, now: Duration) -> Duration {
    let next = last + every;
    if next > now { next } else { now + every }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_neither_drift_nor_pile_up() {
        let ms = Duration::from_millis;
        let check =
            |now, expected| assert_eq!(next_tick(ms(1_000), ms(100), ms(now)), ms(expected));
        check(1_000, 1_100);
        check(1_003, 1_100);
        check(1_099, 1_100);
        check(1_100, 1_200);
        check(5_000, 5_100);
    }
}
