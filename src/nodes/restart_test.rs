//! A pause in the midst of a node's work changes nothing: the example of each node type runs once as it is, and once with its engine
//! dropped and made anew from a checkpoint again and again, in no time. It must do the same, but for what decision 0014 says.
//!
//! The world around the flow is made up here, a function of time alone: an output that goes safe does not change what is measured.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Level, Pin};
use crate::flow::Graph;
use crate::message::{NodeId, Timestamp, Value};
use crate::nodes::testing::graph;
use crate::nodes::{Link, NodeType, Use, node_types};
use crate::runtime::node::Input;
use crate::runtime::{Address, Checkpoint, Effect, Effects, Engine, Event, Now, Pause};
use crate::sensors::SensorSpec;

/// The types that remember something. All others must not save anything.
const STATEFUL: &[&str] = &[
    "ds18b20",
    "iio",
    "gpio in",
    "inject",
    "function",
    "csv",
    "split",
    "join",
    "batch",
    "filter",
    "delay",
    "throttle",
    "debounce",
    "trigger",
    "sample",
    "median",
    "smooth",
    "hysteresis",
    "timeout",
    "counter",
    "rate",
    "delta",
    "lag",
    "integrate",
    "limits",
    "slew",
    "stuck",
    "zscore",
    "ewma",
    "gpio out",
    "pwm out",
    "pid",
    "latch",
    "interlock",
];

/// Types that do not save yet what they remember, and `uplink`, for its example is behind one.
const NOT_YET: &[&str] = &["window", "uplink"];

/// What begins anew after a restart, and why. A reload does not change it either.
const ANEW_AFTER_RESTART: &[(&str, &str)] = &[
    (
        "gpio out",
        "outputs are safe after a restart until their flow drives them",
    ),
    (
        "pwm out",
        "outputs are safe after a restart until their flow drives them",
    ),
    (
        "filter",
        "what reads it may not have got what was passed last: an output is at its safe level",
    ),
    (
        "interlock",
        "a request may have ended meanwhile, and nothing runs from memory",
    ),
];

/// What says something more at the start after a restart, and why. What it does after that is as without one.
const SAYS_AGAIN: &[(&str, &str)] = &[
    (
        "latch",
        "an output behind it is safe now and is to follow its state",
    ),
    (
        "trigger",
        "an output behind it is safe now and is to be on while the time runs",
    ),
    (
        "timeout",
        "an output behind it is safe now and is to show the silence",
    ),
    ("gpio in", "a source that tells a level tells it anew"),
];

/// Further flows, of types whose example shows one kind of several.
const MORE: &[(&str, &str)] = &[
    ("rate", "type = 'rate'\nper = '1m'"),
    (
        "throttle",
        "type = 'throttle'\nevery = '10s'\ncount = 7\nmode = 'queue'\nmost = 50",
    ),
    ("sample", "type = 'sample'\nevery = '7s'\nrepeat = true"),
    ("smooth", "type = 'smooth'\nfactor = 0.01"),
    ("median", "type = 'median'\ncount = 100\nfull = true"),
    ("trigger", "type = 'trigger'\nafter = '100s'"),
    (
        "trigger",
        "type = 'trigger'\nafter = '100s'\nextend = true\nper_topic = true\nthen = 0",
    ),
    (
        "timeout",
        "type = 'timeout'\nafter = '100s'\nrepeat = '3m'\ntopics = ['a', 'test/source']",
    ),
    ("limits", "type = 'limits'\nhigh = 71\ndeadband = 5"),
    (
        "pid",
        "type = 'pid'\nsetpoint = 70\nkp = 0.01\nki = 0.001\nkd = 0.1\nderivative_filter = '20s'",
    ),
    (
        "gpio out",
        "type = 'gpio out'\npin = 4\nmin_on = '90s'\nmin_off = '100s'\nsilent_after = '2m'",
    ),
    (
        "pwm out",
        "type = 'pwm out'\npin = 4\nrange = [0, 100]\nsilent_after = '2m'",
    ),
];

/// A humidity each second, or a level now and then if the node wants one.
fn more(options: &str) -> String {
    let sink = if options.contains(" out'") {
        ""
    } else {
        "[nodes.sink]\ntype = 'debug'\nfrom = 'tested'\n"
    };
    let source = if options.contains("gpio out") {
        "type = 'gpio in'\npin = 5"
    } else {
        "type = 'iio'\ndevice = 'bme280'\nchannel = 'humidityrelative'"
    };
    format!("[nodes.source]\n{source}\n{sink}[nodes.tested]\nfrom = 'source'\n{options}")
}

const END: Duration = Duration::from_secs(3_600);
/// A flow with a quick sensor ends earlier: after so many readings.
const MOST_READINGS: usize = 50_000;
/// Not when something is due.
const FIRST_PAUSE: Duration = Duration::from_micros(61_370_417);
const BETWEEN_PAUSES: Duration = Duration::from_micros(71_303_209);
/// There is a pause this long after some edges too, for what takes no longer than a contact bounces.
const AFTER_EDGE: Duration = Duration::from_micros(17_303);
const EDGES_BETWEEN_PAUSES: usize = 7;
/// And this long before some full minutes, for what is sent then.
const BEFORE_MINUTE: Duration = Duration::from_micros(93_702);
const MINUTES_BETWEEN_PAUSES: u64 = 7;

/// How a flow is paused; not at all if it is none.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pauses {
    pause: Pause,
    /// Whether the states of the nodes of the tested type get lost.
    forgets: bool,
}

/// A flow in its world.
struct Play {
    engine: Engine,
    graph: Arc<Graph>,
    tested: &'static NodeType,
    pauses: Option<Pauses>,
    now: Now,
    readings: usize,
    /// The edges to come of all inputs.
    edges: VecDeque<(Duration, NodeId, Level)>,
    /// The pauses to come.
    pauses_at: VecDeque<Duration>,
    /// What the nodes of the tested type did, a line each.
    deeds: Vec<String>,
    /// How many states of them were saved, and how many might have been.
    saved: (usize, usize),
}

impl Play {
    fn new(tested: &'static NodeType, flow: &str, pauses: Option<Pauses>) -> Play {
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
            wall: Timestamp::from_millis(1_767_254_400_000),
        };
        Play {
            engine: Engine::new("press-7"),
            graph,
            tested,
            pauses,
            now,
            readings: 0,
            edges: edges.into(),
            pauses_at: pauses_at.into(),
            deeds: Vec::new(),
            saved: (0, 0),
        }
    }

    /// What the nodes of the tested type do in an hour.
    fn run(mut self) -> Play {
        self.start(None);
        loop {
            let next_pause = self.pauses_at.front().copied();
            let next_edge = self.edges.front().map(|(time, ..)| *time);
            let due = [self.engine.next_wake(), next_edge, next_pause];
            let Some(next) = due
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= END && self.readings < MOST_READINGS)
            else {
                return self;
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
            let mut effects = Effects::new();
            self.engine.wake(self.now, usize::MAX, &mut effects);
            self.perform(effects);
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
        self.start(Some((Arc::new(checkpoint), pauses.pause)));
        if pauses.pause == Pause::Restart && has(SAYS_AGAIN, self.tested) {
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
                Effect::FlowStopped { panic, .. } => panic!("{}: {panic}", self.tested.name),
                Effect::Forgot { reason, .. } => panic!("{}: {reason}", self.tested.name),
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
        let (mean, swing) = match spec.expect("it is a sensor") {
            SensorSpec::W1 { .. } => (5.0, 5.0),
            SensorSpec::Iio { channel, .. } => match &**channel {
                "humidityrelative" => (70.0, 8.0),
                "voltage0" => (1.5, 0.7),
                _ => (20.0, 10.0),
            },
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
        Ok(Value::Number((mean + share * swing).min(100.0)))
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

/// A contact that closes for 5 s or more in each 40 s, and not at all for a while.
fn level(pin: Pin, time: Duration) -> Level {
    let phase = (time.as_millis() + 1_700 * u128::from(pin.number())) % 40_000;
    let rests = (2_600..3_400).contains(&time.as_secs());
    let bounces = (5_000..5_400).contains(&phase) && phase % 200 < 100;
    (!rests && (phase < 5_000 || bounces)).into()
}

fn has(list: &[(&str, &str)], node_type: &NodeType) -> bool {
    list.iter().any(|(name, _)| *name == node_type.name)
}

/// Each type with its flows.
fn plays() -> impl Iterator<Item = (&'static NodeType, Vec<String>)> {
    node_types().map(|node_type| {
        let of_type = MORE.iter().filter(|(name, _)| *name == node_type.name);
        let example = std::iter::once(node_type.example.to_owned());
        let flows = example.chain(of_type.map(|(_, options)| more(options)));
        (node_type, flows.collect())
    })
}

fn deeds(node_type: &'static NodeType, flow: &str, pauses: Option<Pauses>) -> Vec<String> {
    Play::new(node_type, flow, pauses).run().deeds
}

fn compare(node_type: &NodeType, what: &str, found: &[String], expected: &[String]) {
    let differs = found
        .iter()
        .zip(expected)
        .find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "`{}` {what}: {} deeds, not {}; the first that differs is\n{differs:#?}",
        node_type.name,
        found.len(),
        expected.len()
    );
}

fn with(pause: Pause, forgets: bool) -> Option<Pauses> {
    Some(Pauses { pause, forgets })
}

#[test]
fn the_lists_name_types() {
    let named = [ANEW_AFTER_RESTART, SAYS_AGAIN, MORE].into_iter().flatten();
    let named = named.map(|(name, _)| name).chain(STATEFUL).chain(NOT_YET);
    for name in named {
        assert!(NodeType::find(name).is_some(), "{name}");
    }
}

#[test]
fn a_reload_changes_nothing_and_without_its_state_each_node_would_do_something_else() {
    for (node_type, flows) in plays() {
        let is_stateful = STATEFUL.contains(&node_type.name);
        for flow in flows {
            let expected = deeds(node_type, &flow, None);
            assert!(!expected.is_empty(), "{} does nothing", node_type.name);
            let play = Play::new(node_type, &flow, with(Pause::Reload, false)).run();
            let (saved, might) = play.saved;
            let all = if is_stateful { might } else { 0 };
            assert!(might > 0);
            assert_eq!(saved, all, "states that `{}` saves", node_type.name);
            if NOT_YET.contains(&node_type.name) {
                continue;
            }
            compare(node_type, "after a reload", &play.deeds, &expected);
            if is_stateful {
                let forgetful = deeds(node_type, &flow, with(Pause::Reload, true));
                let name = node_type.name;
                assert!(
                    forgetful != expected,
                    "`{name}` does not need its state:\n{flow}"
                );
            }
        }
    }
}

#[test]
fn after_a_restart_nodes_go_on_as_if_nothing_had_happened() {
    for (node_type, flows) in plays() {
        if NOT_YET.contains(&node_type.name) {
            continue;
        }
        for flow in flows {
            let found = deeds(node_type, &flow, with(Pause::Restart, false));
            let expected = if has(ANEW_AFTER_RESTART, node_type) {
                deeds(node_type, &flow, with(Pause::Restart, true))
            } else {
                deeds(node_type, &flow, None)
            };
            compare(node_type, "after a restart", &found, &expected);
        }
    }
}
