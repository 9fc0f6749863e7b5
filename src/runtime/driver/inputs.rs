//! Input pins: edges on their way to an engine, and the level that holds now.
//!
//! Edges go through a queue that may fill. The latest level of each pin does not: it stands in a cell, so that a flow that
//! starts again, or missed an edge, learns what holds. Pulses of an input that is counted are not queued at all. A pin stays armed when flows change: its edges are led elsewhere.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Sender, TrySendError};

use crate::board::{Board, BoardError, Edge, EdgeSink, Level, Pin, Pull};
use crate::message::Timestamp;
use crate::runtime::clock::Clock;
use crate::runtime::counters::Counters;
use crate::runtime::engine::Event;
use crate::runtime::node::{Address, Input};
use crate::runtime::pulses::{Counting, PulseCounter};

/// An armed input. Clones are the same one.
#[derive(Clone)]
pub(super) struct ArmedInput {
    pub(super) pin: Pin,
    pull: Pull,
    counting: Option<Counting>,
    counter: Option<Arc<Mutex<PulseCounter>>>,
    latest: Arc<Latest>,
    route: Arc<Mutex<Route>>,
}

/// Where edges go. Its lock is held for a few instructions on both sides, and never while a pin is armed or closed, for that may
/// wait for the thread which hands an edge over.
struct Route {
    to: Address,
    edges: Sender<Event>,
}

struct Latest {
    level: AtomicU8,
    time: AtomicI64,
    /// An edge found no room, so the engine may believe a level that no longer holds.
    was_missed: AtomicBool,
}

impl Latest {
    fn set(&self, level: Level, time: Timestamp) {
        self.time.store(time.as_nanos(), Ordering::Relaxed);
        self.level
            .store(u8::from(level.is_high()), Ordering::Release);
    }
}

impl ArmedInput {
    /// Arms a pin. Its edges go to `edges`; one that finds no room is counted, and the level is handed on when there is.
    pub(super) fn arm(
        board: &mut dyn Board,
        (pin, pull, counting): (Pin, Pull, Option<Counting>),
        to: Address,
        edges: Sender<Event>,
        counters: Arc<Counters>,
        clock: &Clock,
    ) -> Result<ArmedInput, BoardError> {
        let latest = Arc::new(Latest {
            level: AtomicU8::new(UNKNOWN),
            time: AtomicI64::new(0),
            was_missed: AtomicBool::new(false),
        });
        let route = Arc::new(Mutex::new(Route { to, edges }));
        let counter = counting.map(|counting| Arc::new(Mutex::new(PulseCounter::new(counting))));
        let sink: EdgeSink = Arc::new({
            let (latest, route, counter) = (latest.clone(), route.clone(), counter.clone());
            move |edge: Edge| {
                latest.set(edge.level, edge.time);
                if let Some(counter) = &counter {
                    lock(counter).edge(&edge);
                    return;
                }
                let input = Input::Edge {
                    time: edge.time,
                    level: edge.level,
                };
                let route = lock(&route);
                let event = Event::Input {
                    to: route.to,
                    input,
                };
                if let Err(TrySendError::Full(_)) = route.edges.try_send(event) {
                    counters.edges_dropped.add(1);
                    latest.was_missed.store(true, Ordering::Release);
                }
            }
        });
        let level = board.input(pin, pull, sink)?;
        // An edge may have come meanwhile; it is newer.
        let first = u8::from(level.is_high());
        if latest
            .level
            .compare_exchange(UNKNOWN, first, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            latest
                .time
                .store(clock.now().wall.as_nanos(), Ordering::Relaxed);
        }
        Ok(ArmedInput {
            pin,
            pull,
            counting,
            counter,
            latest,
            route,
        })
    }

    /// Whether it is what a node wants.
    pub(super) fn is(&self, pin: Pin, pull: Pull, counting: Option<Counting>) -> bool {
        self.pin == pin && self.pull == pull && self.counting == counting
    }

    /// Leads edges elsewhere. Those that came before have been handed over when this returns.
    pub(super) fn lead_to(&self, to: Address, edges: &Sender<Event>) {
        *lock(&self.route) = Route {
            to,
            edges: edges.clone(),
        };
    }

    /// The node that its edges are for.
    pub(super) fn address(&self) -> Address {
        lock(&self.route).to
    }

    /// The level that holds now, with the time of its edge; or what was counted until now.
    pub(super) fn level(&self, now: Timestamp) -> Input {
        if let Some(counter) = &self.counter {
            return Input::Pulses {
                time: now,
                pulses: lock(counter).read(),
            };
        }
        let level = Level::from(self.latest.level.load(Ordering::Acquire) == 1);
        Input::Edge {
            time: Timestamp::from_nanos(self.latest.time.load(Ordering::Relaxed)),
            level,
        }
    }

    /// The level, if an edge was missed since the last call.
    pub(super) fn level_if_missed(&self, now: Timestamp) -> Option<Event> {
        let was_missed = self.latest.was_missed.swap(false, Ordering::AcqRel);
        was_missed.then(|| Event::Input {
            to: self.address(),
            input: self.level(now),
        })
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const UNKNOWN: u8 = 2;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::board::{Drive, Missing};
    use crate::message::NodeId;
    use crate::runtime::pulses::Pulses;
    use crate::sensors::{Sensor, SensorSpec};

    /// A board with one input whose edges the test makes.
    #[derive(Default)]
    struct Bench {
        sink: Arc<Mutex<Option<EdgeSink>>>,
    }

    impl Board for Bench {
        fn name(&self) -> &'static str {
            "bench"
        }
        fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
            Missing::new("none".into()).output(pin, drive)
        }
        fn input(&mut self, _: Pin, _: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
            *self.sink.lock().unwrap() = Some(edges);
            Ok(Level::Low)
        }
        fn sensor(&mut self, spec: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
            Missing::new("none".into()).sensor(spec)
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_level_is_told_when_there_is() {
        let (edges, inbox) = crossbeam_channel::bounded(1);
        let counters = Arc::<Counters>::default();
        let mut board = Bench::default();
        let pin = Pin::new(22).unwrap();
        let address = Address {
            flow: 0,
            node: NodeId(0),
        };
        let clock = Clock::start();
        let input = ArmedInput::arm(
            &mut board,
            (pin, Pull::None, None),
            address,
            edges,
            counters.clone(),
            &clock,
        )
        .unwrap();
        assert!(matches!(
            input.level(Timestamp::default()),
            Input::Edge {
                level: Level::Low,
                ..
            }
        ));

        let edge = |level, nanos| {
            let sink = board.sink.lock().unwrap().clone().unwrap();
            sink(Edge {
                pin,
                level,
                time: Timestamp::from_nanos(nanos),
            });
        };
        edge(Level::High, 1);
        assert_eq!(input.level_if_missed(Timestamp::default()), None);
        edge(Level::Low, 2);
        edge(Level::High, 3);
        assert_eq!((inbox.len(), counters.edges_dropped.get()), (1, 2));
        let told = Event::Input {
            to: address,
            input: Input::Edge {
                time: Timestamp::from_nanos(3),
                level: Level::High,
            },
        };
        assert_eq!(input.level_if_missed(Timestamp::default()), Some(told));
        assert_eq!(input.level_if_missed(Timestamp::default()), None, "once");

        let (elsewhere, other_inbox) = crossbeam_channel::bounded(1);
        let other = Address {
            flow: 5,
            node: NodeId(2),
        };
        input.lead_to(other, &elsewhere);
        edge(Level::Low, 4);
        let came = other_inbox.try_recv().unwrap();
        assert!(matches!(came, Event::Input { to, .. } if to == other));
        assert_eq!(inbox.len(), 1, "what was there before");
    }

    #[test]
    fn pulses_are_counted_though_nobody_takes_edges() {
        let (edges, inbox) = crossbeam_channel::bounded(1);
        let mut board = Bench::default();
        let pin = Pin::new(22).unwrap();
        let address = Address {
            flow: 0,
            node: NodeId(0),
        };
        let counting = Counting {
            level: Level::High,
            debounce: Duration::ZERO,
        };
        let wanted = (pin, Pull::None, Some(counting));
        let counters = Arc::<Counters>::default();
        let clock = Clock::start();
        let input =
            ArmedInput::arm(&mut board, wanted, address, edges, counters.clone(), &clock).unwrap();
        let sink = board.sink.lock().unwrap().clone().unwrap();
        for millis in 0..40_000 {
            sink(Edge {
                pin,
                level: Level::from(millis % 2 == 0),
                time: Timestamp::from_millis(millis),
            });
        }
        let now = Timestamp::from_millis(50_000);
        let pulses = Pulses {
            count: 20_000,
            last: Some(Timestamp::from_millis(39_998)),
        };
        assert_eq!(input.level(now), Input::Pulses { time: now, pulses });
        assert!(inbox.is_empty());
        assert_eq!(counters.edges_dropped.get(), 0);
        assert!(
            !input.is(pin, Pull::None, None),
            "another use is another input"
        );
    }
}
