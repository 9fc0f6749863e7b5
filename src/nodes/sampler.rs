//! What all sensor sources share: ask for a reading at a steady pace, hand on what comes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::flow::options::Span;
use crate::message::{Message, Object, Text, Timestamp, Value};
use crate::runtime::node::{Context, Input, Node};
use crate::runtime::state::{Pause, State, StateError};
use crate::sensors::Quantity;

/// A source that reads a sensor every so often. A reading that takes longer than the pace is waited for, not doubled; one that
/// does not come at all fails after a while, again and again.
pub(super) struct Sampler {
    topic: Text,
    every: Duration,
    /// The field of the reading that is wanted; none for all of it.
    quantity: Option<Text>,
    /// The units, for people and nodes behind it.
    headers: Arc<Object>,
    remembered: Remembered,
}

#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    next: Duration,
    /// Since when a reading is waited for.
    asked_at: Option<Duration>,
}

/// A sensor that has not answered for this long, or for three times its pace, has failed.
const PATIENCE: Duration = Duration::from_secs(10);

impl Sampler {
    fn hand_on(&self, reading: Value, time: Timestamp, cx: &mut Context<'_>) {
        let payload = match &self.quantity {
            // What a test feeds may be the number itself.
            Some(quantity) => match reading.get(quantity) {
                Some(value) => value.clone(),
                None => reading,
            },
            None => reading,
        };
        let message = Message {
            topic: self.topic.clone(),
            payload,
            time,
            source: cx.here(),
            headers: Some(self.headers.clone()),
        };
        cx.emit(0, message);
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        self.remembered.asked_at = Some(cx.now().mono);
        cx.read_sensor();
    }

    /// `quantities` is what a reading has, `wanted` the one of them to hand on.
    pub(super) fn new(
        topic: Text,
        every: Span,
        quantities: &[Quantity],
        wanted: Option<&str>,
    ) -> Sampler {
        let unit_of = |quantity: &Quantity| Value::from(&*quantity.unit);
        let one = match (wanted, quantities) {
            (_, [only]) => Some(only),
            (Some(wanted), _) => quantities.iter().find(|quantity| quantity.name == wanted),
            (None, _) => None,
        };
        let unit = match one {
            Some(quantity) => unit_of(quantity),
            None => Value::object(quantities.iter().map(|it| (&*it.name, unit_of(it)))),
        };
        Sampler {
            topic,
            every: every.0,
            quantity: one
                .filter(|_| quantities.len() > 1)
                .map(|it| (&*it.name).into()),
            headers: Arc::new([("unit".into(), unit)].into_iter().collect()),
            remembered: Remembered::default(),
        }
    }
}

impl Node for Sampler {
    fn start(&mut self, cx: &mut Context<'_>) {
        self.remembered.next = cx.now().mono;
        cx.wake_at(self.remembered.next);
    }

    fn save(&self) -> Option<State> {
        Some(State::of(&self.remembered))
    }

    fn resume(
        &mut self,
        state: &State,
        pause: Pause,
        cx: &mut Context<'_>,
    ) -> Result<(), StateError> {
        self.remembered = state.read()?;
        let is_asked = self.remembered.asked_at.is_some();
        if pause == Pause::Restart && is_asked {
            // The answer went to the one that stopped.
            self.ask(cx);
        }
        Ok(())
    }

    fn message(&mut self, _: &mut Message, _: &mut Context<'_>) {}

    fn wake(&mut self, cx: &mut Context<'_>) {
        let now = cx.now().mono;
        let patience = PATIENCE.max(self.every.saturating_mul(3));
        if let Some(asked_at) = self
            .remembered
            .asked_at
            .filter(|asked_at| now.saturating_sub(*asked_at) >= patience)
        {
            let waited = now.saturating_sub(asked_at);
            cx.fail(format!(
                "the sensor has not answered for {} s: does its bus hang?",
                waited.as_secs()
            ));
            self.remembered.asked_at = None;
        }
        if self.remembered.asked_at.is_none() {
            self.ask(cx);
        }
        let next = next_tick(self.remembered.next, self.every, now);
        self.remembered.next = next;
        cx.wake_at(next);
    }

    fn input(&mut self, input: Input, cx: &mut Context<'_>) {
        let Input::Reading { time, value } = input else {
            return;
        };
        self.remembered.asked_at = None;
        match value {
            Ok(reading) => self.hand_on(reading, time, cx),
            Err(reason) => cx.fail(reason),
        }
    }
}

/// The problem with a pace that is quicker than anything is done, if it is.
pub(super) fn too_fast(every: Span) -> Option<Problem> {
    (every.0 < Duration::from_millis(1)).then(|| Problem::new("every", "must be at least 1ms"))
}

/// The next tick of a steady pace after `now`: without drift, and without catching up on ticks that were missed.
pub(super) fn next_tick(last: Duration, every: Duration, now: Duration) -> Duration {
    let next = last.saturating_add(every);
    if next > now { next } else { now + every }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, Timestamp};
    use crate::nodes::testing::graph;
    use crate::runtime::node::{Address, Effect};
    use crate::runtime::{Engine, Event, Now};

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

    #[test]
    fn a_sensor_that_is_silent_is_asked_once_and_then_fails() {
        let flow = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\nevery = '1s'\n\
                    [nodes.show]\ntype = 'debug'\nfrom = 'probe'";
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(graph(flow), Now::default(), &mut effects);
        for second in 0..=10 {
            engine.wake(
                Now::default().later(Duration::from_secs(second)),
                100,
                &mut effects,
            );
        }
        let asked = Effect::ReadSensor {
            from: Address {
                flow: 0,
                node: NodeId(0),
            },
        };
        assert!(
            matches!(&effects[1], Effect::Failed { reason, .. } if reason.contains("not answered for 10 s"))
        );
        assert_eq!(
            (effects.len(), &effects[0], &effects[2]),
            (3, &asked, &asked)
        );

        let input = Input::Reading {
            time: Timestamp::default(),
            value: Ok(4.0.into()),
        };
        let to = Address {
            flow: 0,
            node: NodeId(0),
        };
        let mut effects = Vec::new();
        engine.handle(Now::default(), Event::Input { to, input }, &mut effects);
        assert!(
            matches!(&effects[0], Effect::Debug { message, .. } if message.payload == 4.0.into()),
            "{effects:?}"
        );
    }

    /// What is asked for up to 30 s, as the second and a dot for each, with a pause at 12.5 s. `is_answered` says whether the sensor had
    /// answered before it.
    fn asked(every: &str, is_answered: bool, off: Duration) -> Vec<u64> {
        let flow = graph(&format!(
            "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\nevery = '{every}'\n\
             [nodes.show]\ntype = 'debug'\nfrom = 'probe'"
        ));
        let pause = Now::default().later(Duration::from_millis(12_500));
        let to = Address {
            flow: 0,
            node: NodeId(0),
        };
        let mut engine = Engine::new("d");
        let mut effects = Vec::new();
        engine.add(flow.clone(), Now::default(), &mut effects);
        let mut asked = Vec::new();
        let mut is_over = false;
        for tenths in 0..300 {
            let now = Now::default().later(Duration::from_millis(100 * tenths));
            if now.mono >= pause.mono + off && !is_over {
                is_over = true;
                let checkpoint = engine.checkpoint(0, pause).expect("it runs");
                engine = Engine::new("d");
                engine.add_restored(flow.clone(), checkpoint, now, &mut effects);
            } else if now.mono >= pause.mono && !is_over {
                continue;
            }
            engine.wake(now, 100, &mut effects);
            for _ in effects.drain(..) {
                asked.push(tenths / 10);
                if is_over || is_answered {
                    let time = now.wall;
                    let value = Ok(4.0.into());
                    let input = Input::Reading { time, value };
                    engine.handle(now, Event::Input { to, input }, &mut Vec::new());
                }
            }
        }
        asked
    }

    /// A flow that comes back after others, which remember nothing, have made a new beginning of monotonic time.
    #[test]
    fn a_state_from_a_time_that_has_not_come_does_not_keep_it_from_reading() {
        let flow = graph(
            "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n\
             [nodes.show]\ntype = 'debug'\nfrom = 'probe'",
        );
        let later = Now::default().later(Duration::from_secs(10 * 86_400));
        let mut effects = Vec::new();
        let mut engine = Engine::new("d");
        engine.add(flow.clone(), later, &mut effects);
        let checkpoint = engine.checkpoint(0, later).expect("it runs");
        let mut engine = Engine::new("d");
        let now = Now {
            mono: Duration::from_secs(7),
            wall: later.wall.saturating_add(Duration::from_secs(60)),
        };
        effects.clear();
        engine.add_restored(flow, checkpoint, now, &mut effects);
        assert!(
            matches!(&effects[..], [Effect::Forgot { .. }]),
            "{effects:?}"
        );
        effects.clear();
        engine.wake(now, 100, &mut effects);
        assert!(
            matches!(&effects[..], [Effect::ReadSensor { .. }]),
            "{effects:?}"
        );
    }

    #[test]
    fn the_pace_goes_on_over_a_restart_and_what_was_not_answered_is_asked_again() {
        let second = Duration::from_secs(1);
        assert_eq!(asked("10s", true, second), [0, 10, 20]);
        // Overdue since 20 s.
        assert_eq!(asked("10s", true, 10 * second), [0, 10, 22]);
        assert_eq!(asked("12s", false, second), [0, 13, 24]);
        assert_eq!(asked("20s", false, second), [0, 13, 20]);
    }
}
