//! A flow in a world that is made up: a function of time alone, so that an output that goes safe does not change what is measured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Level, Pin};
use crate::flow::Graph;
use crate::message::{NodeId, Timestamp, Value};
use crate::nodes::testing::graph;
use crate::nodes::{Link, NodeType, Use};
use crate::runtime::node::Input;
use crate::runtime::pulses::Pulses;
use crate::runtime::{Address, Checkpoint, Effect, Effects, Engine, Event, Now, Pause};

const END: Duration = Duration::from_secs(3_600);
/// A flow with a quick sensor ends earlier: after so many readings.
const MOST_READINGS: usize = 50_000;
/// When it begins: a Thursday.
const START_MS: i64 = 1_767_254_400_000;
/// Not when something is due.
const FIRST_PAUSE: Duration = Duration::from_micros(61_370_417);
const BETWEEN_PAUSES: Duration = Duration::from_micros(71_303_209);
/// Brokers bring a message so often.
const BETWEEN_MESSAGES: Duration = Duration::from_secs(7);
/// There is a pause this long after some edges too, for what takes no longer than a contact bounces.
const AFTER_EDGE: Duration = Duration::from_micros(17_303);
const EDGES_BETWEEN_PAUSES: usize = 17;
/// And this long before some full minutes, for what is sent then.
const BEFORE_MINUTE: Duration = Duration::from_micros(93_702);
const MINUTES_BETWEEN_PAUSES: u64 = 7;

/// How a flow is paused; not at all if it is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pauses {
    pub(super) pause: Pause,
    /// Whether the states of the nodes of the tested type get lost.
    pub(super) forgets: bool,
}

/// What a type may do after a restart that it does not do without one.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// Something more at the start.
    pub(super) says_again: bool,
    /// Mark its results.
    pub(super) marks: bool,
}

/// A flow in its world.
pub(super) struct Play {
    engine: Engine,
    graph: Arc<Graph>,
    tested: &'static NodeType,
    allowed: Allowed,
    pauses: Option<Pauses>,
    now: Now,
    readings: usize,
    /// Pulses that were told, since the beginning and before the pins were armed. None is lost in between, as it would be on a real device.
    counted: u64,
    counted_before: u64,
    /// The edges to come of all inputs.
    edges: VecDeque<(Duration, NodeId, Level)>,
    /// The nodes that brokers bring messages for, in turn.
    subscribers: Vec<NodeId>,
    /// When the next message comes.
    message_at: Option<Duration>,
    /// The pauses to come.
    pauses_at: VecDeque<Duration>,
    /// What the nodes of the tested type did, a line each.
    pub(super) deeds: Vec<String>,
    /// How many states of them were saved, and how many might have been.
    pub(super) saved: (usize, usize),
    /// Why the flow stopped, where that is not the end of the test.
    stopped: Option<Vec<String>>,
}

impl Play {
    pub(super) fn new(
        tested: &'static NodeType,
        flow: &str,
        allowed: Allowed,
        pauses: Option<Pauses>,
    ) -> Play {
        let graph = graph(flow);
        let mut edges = Vec::new();
        for (node, used) in graph.uses() {
            let Use::Input { pin, .. } = used else {
                continue;
            };
            let mut before = level(*pin, Duration::ZERO);
            for tenths in 0..36_000 {
                let time = Duration::from_millis(100 * tenths);
                let level = level(*pin, time);
                if level != before {
                    edges.push((time, node, level));
                }
                before = level;
            }
        }
        let subscribers = graph.uses();
        let subscribers = subscribers.filter(|(_, used)| matches!(used, Use::Subscription(_)));
        let subscribers = subscribers.map(|(node, _)| node).collect::<Vec<_>>();
        edges.sort_by_key(|(time, node, _)| (*time, *node));
        let after_edges = edges.iter().step_by(EDGES_BETWEEN_PAUSES);
        let minutes = (1..8).map(|count| Duration::from_secs(60 * MINUTES_BETWEEN_PAUSES * count));
        let mut pauses_at: Vec<Duration> = (0..50)
            .map(|count| FIRST_PAUSE + count * BETWEEN_PAUSES)
            .chain(minutes.map(|minute| minute - BEFORE_MINUTE))
            .chain(after_edges.map(|(time, ..)| *time + AFTER_EDGE))
            .filter(|at| pauses.is_some() && *at >= FIRST_PAUSE)
            .collect();
        pauses_at.sort();
        let now = Now {
            mono: Duration::ZERO,
            wall: Timestamp::from_millis(START_MS),
        };
        Play {
            engine: Engine::new("press-7"),
            graph,
            tested,
            allowed,
            pauses,
            now,
            readings: 0,
            counted: 0,
            counted_before: 0,
            edges: edges.into(),
            message_at: subscribers.first().map(|_| BETWEEN_MESSAGES),
            subscribers,
            pauses_at: pauses_at.into(),
            deeds: Vec::new(),
            saved: (0, 0),
            stopped: None,
        }
    }

    /// Goes on for so long, and then, for each state that `altered` makes of those of the tested nodes, for the second span from there.
    /// Says with which the flow stopped, and why.
    pub(super) fn stops(
        mut self,
        at: Duration,
        then: Duration,
        altered: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) -> Vec<String> {
        self.start(None);
        self.go_on_until(at);
        self.now = self.now.later(at.saturating_sub(self.now.mono));
        let checkpoint = self.engine.checkpoint(0, self.now).expect("it runs");
        let (began, edges) = (self.now, self.edges.clone());
        let mut found = Vec::new();
        for node in self.tested_nodes() {
            let node = self.graph.node_name(node).to_owned();
            let Some(state) = checkpoint.state(&node) else {
                continue;
            };
            for state in altered(state.bytes()) {
                for pause in [Pause::Restart, Pause::Reload] {
                    let mut checkpoint = Checkpoint::clone(&checkpoint);
                    checkpoint.set_state(&node, state.clone());
                    self.engine = Engine::new("press-7");
                    self.now = began;
                    self.readings = 0;
                    self.edges = edges.clone();
                    self.stopped = Some(Vec::new());
                    self.start(Some((Arc::new(checkpoint), pause)));
                    self.go_on_until(at + then);
                    for reason in self.stopped.take().into_iter().flatten() {
                        found.push(format!("{node} {pause:?} {state:02x?}: {reason}"));
                    }
                }
            }
        }
        found
    }

    /// What the nodes of the tested type do in an hour.
    pub(super) fn run(mut self) -> Play {
        self.start(None);
        self.go_on_until(END);
        self
    }

    fn go_on_until(&mut self, end: Duration) {
        loop {
            let next_pause = self.pauses_at.front().copied();
            let next_edge = self.edges.front().map(|(time, ..)| *time);
            let due = [
                self.engine.next_wake(),
                next_edge,
                next_pause,
                self.message_at,
            ];
            let Some(next) = due
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= end && self.readings < MOST_READINGS)
            else {
                return;
            };
            self.now = self.now.later(next.saturating_sub(self.now.mono));
            if next_pause == Some(next) {
                self.pauses_at.pop_front();
                self.pause();
                continue;
            }
            while let Some((_, node, level)) = self.edges.pop_front_if(|(at, ..)| *at <= next) {
                let time = self.now.wall;
                self.handle(node, Input::Edge { time, level });
            }
            self.bring_messages(next);
            let mut effects = Effects::new();
            self.engine.wake(self.now, usize::MAX, &mut effects);
            self.perform(effects);
        }
    }

    /// What brokers have brought by now.
    fn bring_messages(&mut self, now: Duration) {
        let Some(at) = self.message_at.filter(|at| *at <= now) else {
            return;
        };
        self.message_at = Some(at + BETWEEN_MESSAGES);
        for (place, node) in self.subscribers.clone().into_iter().enumerate() {
            let value = (at.as_secs() as usize + place) % 40;
            let message = Input::Message {
                time: self.now.wall,
                topic: format!("plant/s{}/temperature", value % 3).into(),
                payload: format!("{{\"value\":{value}}}").into(),
            };
            self.handle(node, message);
        }
    }

    fn start(&mut self, from: Option<(Arc<Checkpoint>, Pause)>) {
        let tested = self.tested_nodes();
        let mut effects = Effects::new();
        self.engine
            .add_after(self.graph.clone(), from, tested, self.now, &mut effects);
        self.perform(effects);
    }

    fn pause(&mut self) {
        let pauses = self.pauses.expect("only with pauses");
        let checkpoint = self.engine.checkpoint(0, self.now).expect("it runs");
        let mut checkpoint =
            Checkpoint::from_bytes(&checkpoint.to_bytes()).expect("as it was written");
        let mut without = checkpoint.clone();
        for node in self.tested_nodes() {
            self.saved.0 += usize::from(without.forget(self.graph.node_name(node)));
            self.saved.1 += 1;
        }
        if pauses.forgets {
            checkpoint = without;
        }
        self.engine = Engine::new("press-7");
        let before = self.deeds.len();
        if pauses.pause == Pause::Restart {
            self.counted_before = self.counted;
        }
        self.start(Some((Arc::new(checkpoint), pauses.pause)));
        if pauses.pause == Pause::Restart && self.allowed.says_again {
            self.deeds.truncate(before);
        }
    }

    fn tested_nodes(&self) -> Vec<NodeId> {
        let nodes = (0..).map(NodeId).zip(self.graph.nodes());
        let tested = nodes.filter(|(_, node)| node.node_type.name == self.tested.name);
        tested.map(|(id, _)| id).collect()
    }

    fn handle(&mut self, node: NodeId, input: Input) {
        let to = Address { flow: 0, node };
        let mut effects = Effects::new();
        self.engine
            .handle(self.now, Event::Input { to, input }, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        let time = self.now.wall;
        for effect in effects {
            self.note(&effect);
            match effect {
                Effect::ReadSensor { from } => {
                    self.readings += 1;
                    let value = self.reading(from.node);
                    self.handle(from.node, Input::Reading { time, value });
                }
                Effect::ReadLevel { from } if self.counts(from.node) => {
                    let pulses = self.pulses();
                    self.handle(from.node, Input::Pulses { time, pulses });
                }
                // After a restart what is behind it would get one more message; that it asks is noted.
                Effect::ReadLevel { from } if !self.is_restarted() => {
                    let level = self.level(from.node);
                    self.handle(from.node, Input::Edge { time, level });
                }
                Effect::Link { link, message, .. } => {
                    for (node, end) in self.graph.clone().links() {
                        if end == Link::In(link.clone()) {
                            let to = Address { flow: 0, node };
                            let messages = vec![message.clone()];
                            let mut effects = Effects::new();
                            let event = Event::Messages { to, messages };
                            self.engine.handle(self.now, event, &mut effects);
                            self.perform(effects);
                        }
                    }
                }
                Effect::FlowStopped { panic, .. } => match &mut self.stopped {
                    Some(stopped) => stopped.push(panic),
                    None => panic!("{}: {panic}", self.tested.name),
                },
                Effect::Forgot { reason, .. } if self.stopped.is_none() => {
                    panic!("{}: {reason}", self.tested.name)
                }
                _ => {}
            }
        }
    }

    /// Whether a restart has just been made, or was.
    fn is_restarted(&self) -> bool {
        let restarts = self.pauses.is_some_and(|it| it.pause == Pause::Restart);
        restarts && self.now.mono >= FIRST_PAUSE
    }

    fn note(&mut self, effect: &Effect) {
        let is_of_tested = |node: NodeId| {
            self.graph.nodes()[usize::from(node.0)].node_type.name == self.tested.name
        };
        let is_noted = match effect {
            Effect::Tapped { from, .. }
            | Effect::Failed { from, .. }
            | Effect::Debug { from, .. }
            | Effect::Link { from, .. } => is_of_tested(from.node),
            Effect::Output { .. } => {
                self.tested.name.ends_with("m out") || self.tested.name == "gpio out"
            }
            Effect::Uplink { .. } => self.tested.name == "uplink",
            _ => false,
        };
        if is_noted {
            let mut effect = effect.clone();
            if self.allowed.marks {
                take_marks_off(&mut effect);
            }
            self.deeds.push(format!("{:?} {effect:?}", self.now.mono));
        }
    }

    /// A curve with spikes, which stands still for a while; now and then there is no answer.
    fn reading(&self, node: NodeId) -> Result<Value, String> {
        let spec = self
            .graph
            .uses()
            .find_map(|(used_by, needed)| match needed {
                Use::Sensor(spec) if used_by == node => Some(spec),
                _ => None,
            });
        let spec = spec.expect("it is a sensor");
        let (mean, swing) = match (spec.part(), &*spec.quantities()[0].unit) {
            ("ds18b20", _) => (5.0, 5.0),
            (_, "%") => (70.0, 8.0),
            (_, "V") => (1.5, 0.7),
            _ => (20.0, 10.0),
        };
        let second = self.now.mono.as_secs();
        let second = if (1_500..2_500).contains(&second) {
            1_500
        } else {
            second
        };
        let spike = if second % 97 == 96 { 2.0 } else { 0.0 };
        let noise = (second * 7_919 % 101) as f64 / 1_000.0;
        let share = (second as f64 / 60.0).sin() + spike + noise;
        if second % 131 == 130 {
            return Err("no answer".to_owned());
        }
        let value = Value::Number((mean + share * swing).min(100.0));
        Ok(match spec.quantities() {
            [_] => value,
            several => Value::object(several.iter().map(|it| (&*it.name, value.clone()))),
        })
    }

    fn counts(&self, node: NodeId) -> bool {
        let mut uses = self.graph.uses();
        uses.any(|(used_by, needed)| used_by == node && matches!(needed, Use::Pulses { .. }))
    }

    /// What the board has counted since it was armed.
    fn pulses(&mut self) -> Pulses {
        let mut pulses = pulses(self.now.mono);
        self.counted = pulses.count;
        pulses.count -= self.counted_before;
        pulses
    }

    fn level(&self, node: NodeId) -> Level {
        let pin = self
            .graph
            .uses()
            .find_map(|(used_by, needed)| match needed {
                Use::Input { pin, .. } if used_by == node => Some(*pin),
                _ => None,
            });
        level(pin.expect("it is an input"), self.now.mono)
    }
}

/// One pulse in 0.7 s, and none for a while.
fn pulses(time: Duration) -> Pulses {
    const EVERY_MS: u64 = 700;
    let rests = 2_600_000..3_400_000;
    let ms = u64::try_from(time.as_millis()).expect("a test is short");
    let before = ms.min(rests.start) / EVERY_MS;
    let after = ms.saturating_sub(rests.end) / EVERY_MS;
    let last = match after {
        0 => before * EVERY_MS,
        after => rests.end + after * EVERY_MS,
    };
    let last = i64::try_from(last).expect("a test is short");
    Pulses {
        count: before + after,
        last: (before > 0).then(|| Timestamp::from_millis(START_MS + last)),
    }
}

/// A contact that closes for 5 s or more in each 40 s, and not at all for a while.
fn level(pin: Pin, time: Duration) -> Level {
    let phase = (time.as_millis() + 1_700 * u128::from(pin.number())) % 40_000;
    let rests = (2_600..3_400).contains(&time.as_secs());
    let bounces = (5_000..5_400).contains(&phase) && phase % 200 < 100;
    (!rests && (phase < 5_000 || bounces)).into()
}

/// Takes away what says that a result went through a restart.
fn take_marks_off(effect: &mut Effect) {
    let unmarked = |payload: &mut Value| {
        if let Value::Object(fields) = payload {
            let fields = Arc::make_mut(fields);
            fields.shift_remove("restored");
            fields.shift_remove("window");
        }
    };
    match effect {
        Effect::Tapped { message, .. } => unmarked(&mut message.payload),
        Effect::Uplink { draft, .. } => {
            let mut payload = serde_json::from_slice(&draft.payload).expect("JSON");
            unmarked(&mut payload);
            draft.payload = payload.to_json().into();
        }
        _ => {}
    }
}
