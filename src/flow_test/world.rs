//! The device of a test: its flows, pins, outbox, link and power, under virtual time.
//!
//! Terms: *test time* is counted from the test's start and never stops; the monotonic time of the flows is that of a device, which
//! goes on from the last checkpoint after a power cut; *the device's clock* is what a clock on the wall would show, unless it is set:
//! live time follows it ahead and never back, as [`Clock`](crate::runtime::Clock) does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::test::{Action, Fed, Feed, Test};
use crate::board::{Drive, Level, Pin, Signal, Simulated, Simulation};
use crate::flow::Graph;
use crate::message::{Message, NodeId, Timestamp, Value};
use crate::outbox::virtual_time::VirtualOutbox;
use crate::outbox::{Draft, Ledger, RecordId};
use crate::runtime::node::{Effect, Input};
use crate::runtime::{Address, Checkpoint, Event, Now, VirtualRun};

/// Records that are sent to the cloud at once.
const MOST_AT_ONCE: usize = 256;

/// Something that can be looked at.
#[derive(Debug)]
pub(super) enum Seen {
    Sent {
        from: Address,
        port: usize,
        message: Message,
    },
    Shown {
        by: Address,
        message: Message,
    },
    Arrived {
        of: Address,
        topic: String,
        payload: Value,
    },
    Drove {
        pin: Pin,
        drive: Drive,
    },
    Failed {
        from: Option<Address>,
        reason: String,
    },
}

pub(super) struct World {
    device: String,
    flows: Vec<Arc<Graph>>,
    taps: Vec<Address>,
    start: Timestamp,
    /// The test time.
    now: Duration,
    /// By how much the device's clock was set, in nanoseconds.
    set_by: i64,
    power: Power,
    /// What input pins are given.
    inputs: BTreeMap<Pin, Level>,
    checkpoints: Checkpoints,
    outbox: VirtualOutbox,
    is_up: bool,
    /// The `uplink` node of each record that has not arrived.
    senders: BTreeMap<RecordId, Address>,
    seen: Vec<Seen>,
}

enum Power {
    On(Box<Running>),
    Off { until: Duration },
}

/// The flows of a device that is on.
struct Running {
    run: VirtualRun,
    /// Test time and monotonic time at the start.
    since: Duration,
    since_mono: Duration,
}

struct Checkpoints {
    every: Duration,
    /// When the next one is taken; none if nothing has happened since the last.
    due: Option<Duration>,
    taken: Vec<Option<Arc<Checkpoint>>>,
}

impl World {
    /// A device that starts at test time 0. `first` are actions that hold before anything else does.
    pub(super) fn start<'t>(
        test: &Test,
        taps: Vec<Address>,
        first: impl IntoIterator<Item = &'t Action>,
    ) -> World {
        let mut world = World {
            device: test.device.clone(),
            flows: test.flows.clone(),
            taps,
            start: test.start,
            now: Duration::ZERO,
            set_by: 0,
            power: Power::Off {
                until: Duration::ZERO,
            },
            inputs: BTreeMap::new(),
            checkpoints: Checkpoints {
                every: test.checkpoint,
                due: None,
                taken: Vec::new(),
            },
            outbox: VirtualOutbox::new(test.outbox.clone()),
            is_up: true,
            senders: BTreeMap::new(),
            seen: Vec::new(),
        };
        for action in first {
            match action {
                Action::Pin { pin, level } => world.set_pin(*pin, *level),
                Action::Uplink { is_up } => world.is_up = *is_up,
                Action::Disk(state) => world.outbox.set_disk(*state),
                _ => {}
            }
        }
        world.turn_on();
        world
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// When something is due, in test time.
    pub(super) fn next_due(&self) -> Option<Duration> {
        match &self.power {
            Power::Off { until } => Some(*until),
            Power::On(running) => [running.next_due(), self.outbox.due(), self.checkpoints.due]
                .into_iter()
                .flatten()
                .min()
                .map(|due| due.max(self.now)),
        }
    }

    /// Goes on to a test time, before which nothing is due, and does some of what is due there. Gives how much that was, about.
    pub(super) fn go_to(&mut self, time: Duration) -> u64 {
        self.now = time;
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= time);
        match &mut self.power {
            Power::Off { until } if *until <= time => self.turn_on(),
            Power::Off { .. } => return 0,
            Power::On(running) if is_due(running.next_due()) => {
                let mono = running.mono_at(time);
                let done = running.run.go_to(mono);
                self.absorb();
                return done as u64;
            }
            Power::On(_) if is_due(self.outbox.due()) => self.settle_outbox(),
            Power::On(running) => {
                running.stand_at(time);
                if !is_due(self.checkpoints.due) {
                    return 0;
                }
                self.checkpoints.taken = running.run.checkpoints();
                self.checkpoints.due = None;
            }
        }
        1
    }

    /// The flows are where the test is.
    fn stand(&mut self) {
        if let Power::On(running) = &mut self.power {
            running.stand_at(self.now);
        }
    }

    /// Does what a step does, but for feeds, now.
    pub(super) fn act(&mut self, action: &Action) {
        self.stand();
        match action {
            Action::Feed(_) => {}
            Action::Pin { pin, level } => self.set_pin(*pin, *level),
            Action::Uplink { is_up } => {
                self.is_up = *is_up;
                self.settle_outbox();
            }
            Action::Disk(state) => self.outbox.set_disk(*state),
            Action::PowerCut(span) => {
                self.outbox.cut(self.outbox_now());
                self.turn_off(*span);
            }
            Action::Restart(span) => {
                if let Power::On(running) = &mut self.power {
                    self.checkpoints.taken = running.run.checkpoints();
                    self.outbox.restart(self.outbox_now());
                }
                self.turn_off(*span);
            }
            Action::ClockStep(by) => {
                self.set_by = self.set_by.saturating_add(*by);
                let clock = self.clock();
                if let Power::On(running) = &mut self.power {
                    let ahead = clock.saturating_since(running.run.now().wall);
                    running.run.set_clock_ahead(ahead);
                }
            }
        }
    }

    /// Lets a source send. While the device is off nothing comes of it.
    pub(super) fn feed(&mut self, feed: &Feed, payload: Value) {
        self.stand();
        let Power::On(running) = &mut self.power else {
            return;
        };
        let now = running.run.now().wall;
        let event = match &feed.what {
            Fed::Failure(reason) => Event::Input {
                to: feed.to,
                input: Input::Reading {
                    time: now,
                    value: Err(reason.clone()),
                },
            },
            // Its rows are fed as messages.
            Fed::File { .. } => return,
            Fed::Message {
                topic,
                headers,
                time,
                ..
            } => Event::Messages {
                to: feed.to,
                messages: vec![Message {
                    topic: topic.clone().unwrap_or_else(|| "".into()),
                    payload,
                    time: time.map_or(now, |time| time.from(now)),
                    source: NodeId(0),
                    headers: headers.clone(),
                }],
            },
        };
        running.run.handle(event);
        self.absorb();
    }

    /// What there is to look at since this was called last.
    pub(super) fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.outbox.ledger()
    }

    fn set_pin(&mut self, pin: Pin, level: Level) {
        self.inputs.insert(pin, level);
        if let Power::On(running) = &mut self.power {
            running.run.set_input(pin, level);
            self.absorb();
        }
    }

    /// What the device's clock shows.
    fn clock(&self) -> Timestamp {
        let clock = self.start.saturating_add(self.now);
        Timestamp::from_nanos(clock.as_nanos().saturating_add(self.set_by))
    }

    /// The outbox's own time does not stop, for nobody looks at it while the device is off.
    fn outbox_now(&self) -> Now {
        Now {
            mono: self.now,
            wall: self.clock(),
        }
    }

    /// Outputs are at their safe levels while nobody drives them.
    fn turn_off(&mut self, span: Duration) {
        self.power = Power::Off {
            until: self.now + span,
        };
        for (pin, safe) in self.flows.iter().flat_map(|flow| flow.outputs()) {
            let drive = safe.into();
            self.seen.push(Seen::Drove { pin, drive });
        }
        self.checkpoints.due = None;
    }

    /// Starts the flows, which go on from their checkpoints: see decision 0014.
    fn turn_on(&mut self) {
        let clock = self.clock();
        let taken = self.checkpoints.taken.iter().flatten();
        let latest = taken.map(|it| it.now()).max_by_key(|now| now.mono);
        let mono = latest.map_or(Duration::ZERO, |then| {
            then.mono + clock.saturating_since(then.wall)
        });
        let now = Now { mono, wall: clock };
        let inputs = self.inputs.iter().map(|(pin, level)| {
            let high = level.is_high();
            (*pin, Signal::Level { high })
        });
        let simulation = Simulation {
            inputs: inputs.collect(),
            ..Simulation::default()
        };
        let run = Simulated::new(&simulation).and_then(|board| {
            VirtualRun::resume(
                &self.device,
                self.flows.clone(),
                &self.checkpoints.taken,
                &self.taps,
                board,
                now,
            )
        });
        self.power = Power::On(Box::new(Running {
            run: run.expect("the board has every pin, and sensors rest"),
            since: self.now,
            since_mono: mono,
        }));
        self.absorb();
        self.settle_outbox();
    }

    /// Takes what the flows have done.
    fn absorb(&mut self) {
        let Power::On(running) = &mut self.power else {
            return;
        };
        if self.checkpoints.due.is_none() {
            let every = self.checkpoints.every.as_nanos();
            let next = (self.now.as_nanos() / every + 1) * every;
            self.checkpoints.due = u64::try_from(next).ok().map(Duration::from_nanos);
        }
        let mut has_drafts = false;
        for (_, effect) in running.run.take_done() {
            match effect {
                Effect::Output { pin, drive } => self.seen.push(Seen::Drove { pin, drive }),
                Effect::Uplink { from, draft } => {
                    has_drafts = true;
                    self.keep(from, draft);
                }
                Effect::Debug { from, message, .. } => {
                    self.seen.push(Seen::Shown { by: from, message });
                }
                Effect::Tapped {
                    from,
                    port,
                    message,
                } => self.seen.push(Seen::Sent {
                    from,
                    port,
                    message,
                }),
                Effect::Failed { from, reason } => self.seen.push(Seen::Failed {
                    from: Some(from),
                    reason,
                }),
                Effect::Forgot { from, reason } => self.seen.push(Seen::Failed {
                    from: Some(from),
                    reason: format!("begins anew: {reason}"),
                }),
                Effect::FlowStopped {
                    flow, node, panic, ..
                } => self.seen.push(Seen::Failed {
                    from: node.map(|node| Address { flow, node }),
                    reason: format!("panicked: {panic}"),
                }),
                Effect::ReadSensor { .. }
                | Effect::ReadLevel { .. }
                | Effect::Link { .. }
                | Effect::FlowRestarted { .. } => {}
            }
        }
        if has_drafts {
            self.settle_outbox();
        }
    }

    fn keep(&mut self, from: Address, draft: Draft) {
        let now = self.outbox_now();
        let id = self.outbox.append(draft, now);
        self.senders.insert(id, from);
    }

    /// Lets the outbox do what it has to, and lets the cloud have what it may.
    fn settle_outbox(&mut self) {
        if !matches!(self.power, Power::On(_)) {
            return;
        }
        let now = self.outbox_now();
        loop {
            let mut has_sent = false;
            while self.is_up {
                let records = self.outbox.peek(MOST_AT_ONCE, now);
                if records.is_empty() {
                    break;
                }
                has_sent = true;
                for record in records {
                    self.outbox.acknowledge(record.key(), now);
                    self.arrived(record.id, &record.draft);
                }
            }
            self.outbox.work(now);
            if !self.is_up || (!has_sent && self.outbox.peek(1, now).is_empty()) {
                break;
            }
        }
        if self.outbox.ledger().waiting() == 0 {
            self.senders.clear();
        }
    }

    fn arrived(&mut self, id: RecordId, draft: &Draft) {
        // After a power cut a record may arrive again.
        let of = self.senders.get(&id).copied();
        let payload = serde_json::from_slice(&draft.payload);
        self.seen.extend(of.map(|of| Seen::Arrived {
            of,
            topic: draft.topic.clone(),
            payload: payload.unwrap_or_default(),
        }));
    }
}

impl Running {
    fn next_due(&self) -> Option<Duration> {
        let due = self.run.next_due()?;
        Some(self.since + due.saturating_sub(self.since_mono))
    }

    fn stand_at(&mut self, time: Duration) {
        let mono = self.mono_at(time);
        self.run.stand_at(mono);
    }

    fn mono_at(&self, time: Duration) -> Duration {
        self.since_mono + time.saturating_sub(self.since)
    }
}
