//! Flows that change while they run, and flows that go on from a checkpoint.

use super::tests::{at, wake};
use super::*;
use crate::message::Value;
use crate::nodes::testing::graph;
use crate::nodes::{BuildError, Spec, Surroundings, Use};
use crate::runtime::node::{Context, Input, Node};
use crate::runtime::state::{State, StateError};

const SECOND: Duration = Duration::from_secs(1);

/// A node that counts what comes and sends the count. It panics on "panic"; on "trap" from then on whenever it goes on from what it
/// remembers. Every minute it sends "tick".
#[derive(Debug)]
struct Counts;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Count {
    count: f64,
    is_trap: bool,
}

impl Spec for Counts {
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Count::default()))
    }
}

impl Node for Count {
    fn start(&mut self, cx: &mut Context<'_>) {
        cx.wake_at(cx.now().mono + 60 * SECOND);
    }
    fn save(&self) -> Option<State> {
        Some(State::of(self))
    }
    fn resume(&mut self, state: &State, _: Pause, _: &mut Context<'_>) -> Result<(), StateError> {
        *self = state.read()?;
        assert!(!self.is_trap, "a trap");
        Ok(())
    }
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        assert!(
            message.payload != Value::from("panic"),
            "as the test wants it"
        );
        self.is_trap |= message.payload == Value::from("trap");
        self.count += 1.0;
        message.payload = Value::Number(self.count);
        cx.pass(0);
    }
    fn input(&mut self, _: Input, cx: &mut Context<'_>) {
        cx.originate("t".into(), Value::from("input"), cx.now().wall);
    }
    fn wake(&mut self, cx: &mut Context<'_>) {
        cx.originate("t".into(), Value::from("tick"), cx.now().wall);
        cx.wake_at(cx.now().mono + 60 * SECOND);
    }
}

/// A node that cannot be built.
#[derive(Debug)]
struct TooLarge;

impl Spec for TooLarge {
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        panic!("no memory")
    }
}

/// A lamp on a pin, which a reload does not touch.
#[derive(Debug)]
struct Lamp(u8);

impl Lamp {
    fn pin(&self) -> Pin {
        Pin::new(self.0).expect("a pin")
    }
}

impl Spec for Lamp {
    fn uses(&self) -> Vec<Use> {
        vec![Use::Output {
            pin: self.pin(),
            safe: Level::Low,
        }]
    }
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Lamp(self.0)))
    }
}

impl Node for Lamp {
    fn start(&mut self, cx: &mut Context<'_>) {
        cx.set_output(self.pin(), Level::Low);
    }
    fn save(&self) -> Option<State> {
        Some(State::of(&()))
    }
    fn resume(&mut self, _: &State, pause: Pause, cx: &mut Context<'_>) -> Result<(), StateError> {
        if pause == Pause::Restart {
            self.start(cx);
        }
        Ok(())
    }
    fn message(&mut self, _: &mut Message, cx: &mut Context<'_>) {
        cx.set_output(self.pin(), Level::High);
    }
}

/// A flow whose nodes are put in by name: `count` counts, `lampN` is a lamp on pin N, `large` cannot be built.
fn flow(text: &str) -> Arc<Graph> {
    let mut graph = Arc::into_inner(graph(text)).expect("nobody else has it");
    let names: Vec<String> = graph
        .nodes()
        .iter()
        .map(|node| node.name.to_string())
        .collect();
    for name in names {
        let spec: Arc<dyn Spec> = match &*name {
            "count" => Arc::new(Counts),
            "large" => Arc::new(TooLarge),
            other => match other.strip_prefix("lamp") {
                Some(pin) => Arc::new(Lamp(pin.parse().expect("a number"))),
                None => continue,
            },
        };
        graph.replace_spec(&name, spec);
    }
    Arc::new(graph)
}

const SOURCE: &str = "[nodes.source]\ntype = 'catch'\nnodes = []\n";
const SHOWN: &str = "[nodes.show]\ntype = 'debug'\nfrom = 'count'\n";

/// source -> count -> show.
fn counting() -> Arc<Graph> {
    flow(&format!(
        "{SOURCE}[nodes.count]\ntype = 'filter'\nfrom = 'source'\n{SHOWN}"
    ))
}

/// The same with its nodes in another order.
fn counting_differently() -> Arc<Graph> {
    flow(&format!(
        "{SHOWN}[nodes.more]\ntype = 'debug'\nfrom = 'count'\n[nodes.count]\nfrom = 'source'\ntype = 'filter'\n{SOURCE}"
    ))
}

/// Lamps behind a source, each on a pin.
fn lamps(pins: &[u8]) -> Arc<Graph> {
    let mut text = SOURCE.to_owned();
    for pin in pins {
        text += &format!("[nodes.lamp{pin}]\ntype = 'gpio out'\nfrom = 'source'\npin = {pin}\n");
    }
    flow(&text)
}

struct Bench {
    engine: Engine,
    now: Now,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            engine: Engine::new("d"),
            now: at(0),
        }
    }

    fn add(&mut self, graph: Arc<Graph>) -> u32 {
        self.engine.add(graph, self.now, &mut Effects::new())
    }

    /// The address of a node, by its name now.
    fn address(&self, flow: u32, node: &str) -> Address {
        let node = self.engine.graph(flow).find(node).expect("it is there");
        Address { flow, node }
    }

    fn send(&mut self, to: Address, payload: impl Into<Value>) -> Effects {
        let message = Message {
            topic: "t".into(),
            payload: payload.into(),
            time: self.now.wall,
            source: NodeId(0),
            headers: None,
        };
        let event = Event::Messages {
            to,
            messages: vec![message],
        };
        let mut effects = Effects::new();
        self.engine.handle(self.now, event, &mut effects);
        effects
    }

    fn replace(&mut self, old: u32, graph: Arc<Graph>) -> (u32, Effects) {
        let mut effects = Effects::new();
        let new = self.engine.replace(old, graph, self.now, &mut effects);
        (new.expect("it can be built"), effects)
    }
}

/// What came to `debug` nodes, as JSON.
fn shown(effects: &Effects) -> Vec<String> {
    let shown = effects.iter().filter_map(|effect| match effect {
        Effect::Debug { message, .. } => Some(message.payload.to_json()),
        _ => None,
    });
    shown.collect()
}

/// What pins are driven with.
fn driven(effects: &Effects) -> Vec<String> {
    let driven = effects.iter().filter_map(|effect| match effect {
        Effect::Output { pin, drive } => Some(format!("{pin} {drive}")),
        _ => None,
    });
    driven.collect()
}

#[test]
fn a_reload_keeps_what_nodes_remember_and_their_wake_ups() {
    let mut bench = Bench::new();
    let old = bench.add(counting());
    let count = bench.address(old, "count");
    bench.send(count, 0.0);
    bench.now = at(59);
    let (new, effects) = bench.replace(old, counting_differently());
    assert_eq!(effects, []);
    let count = bench.address(new, "count");
    assert_eq!(shown(&bench.send(count, 0.0)), ["2", "2"]);
    assert_eq!(bench.engine.next_wake(), Some(60 * SECOND));
    assert_eq!(shown(&wake(&mut bench.engine, at(60))), [r#""tick""#; 2]);
    assert_eq!(bench.engine.next_wake(), Some(120 * SECOND));
    assert_eq!(bench.engine.graphs().count(), 1);
}

#[test]
fn a_node_of_other_options_begins_anew_and_so_does_one_of_another_name() {
    let check = |text: &str| {
        let mut bench = Bench::new();
        let old = bench.add(counting());
        let count = bench.address(old, "count");
        bench.send(count, 0.0);
        let (new, _) = bench.replace(old, flow(&format!("{SOURCE}{text}{SHOWN}")));
        let count = bench.address(new, "count");
        assert_eq!(shown(&bench.send(count, 0.0)), ["1"], "{text}");
    };
    check("[nodes.count]\ntype = 'filter'\nfrom = 'source'\ndeadband = 1\n");
    check("[nodes.count]\ntype = 'throttle'\nevery = '1s'\nfrom = 'source'\n");
}

#[test]
fn what_comes_for_the_old_graph_reaches_the_new_one_through_any_number_of_changes() {
    let mut bench = Bench::new();
    let first = bench.add(counting());
    let count = bench.address(first, "count");
    let (second, _) = bench.replace(first, counting_differently());
    let (third, _) = bench.replace(second, counting());
    assert_eq!(shown(&bench.send(count, 0.0)), ["1"]);
    let reading = Event::Input {
        to: count,
        input: Input::Reading {
            time: bench.now.wall,
            value: Ok(Value::Null),
        },
    };
    let mut effects = Effects::new();
    bench.engine.handle(bench.now, reading, &mut effects);
    assert_eq!(shown(&effects), [r#""input""#]);
    assert_eq!(
        bench.engine.follow(count),
        Some(bench.address(third, "count"))
    );
    assert_eq!(
        bench.engine.leading_to(third),
        [
            (first, count),
            (
                second,
                Address {
                    flow: second,
                    node: NodeId(2)
                }
            ),
            (third, count)
        ]
        .map(|(from, _)| {
            let nodes = match from {
                _ if from == second => vec![Some(2), None, Some(1), Some(0)],
                _ => vec![Some(0), Some(1), Some(2)],
            };
            (
                from,
                nodes.into_iter().map(|node| node.map(NodeId)).collect(),
            )
        })
    );
    assert_eq!(bench.engine.missed(), 0);
}

#[test]
fn what_comes_for_a_node_that_is_gone_counts_as_missed_and_so_does_what_comes_very_late() {
    let mut bench = Bench::new();
    let first = bench.add(counting_differently());
    let (more, count) = (bench.address(first, "more"), bench.address(first, "count"));
    let (second, _) = bench.replace(first, counting());
    assert_eq!(bench.send(more, 0.0), []);
    assert_eq!(bench.engine.missed(), 1);
    // Places that are not there.
    let nowhere = Address {
        flow: 9,
        node: NodeId(0),
    };
    assert_eq!(bench.send(nowhere, 0.0), []);
    let nowhere = Address {
        flow: first,
        node: NodeId(99),
    };
    assert_eq!(bench.send(nowhere, 0.0), []);
    assert_eq!(bench.engine.missed(), 3);

    bench.now = at(60);
    let (third, _) = bench.replace(second, counting());
    assert_eq!(shown(&bench.send(count, 0.0)), ["1"], "not too late");
    bench.now = at(61);
    bench.replace(third, counting());
    assert_eq!(bench.send(count, 0.0), []);
    assert_eq!(bench.engine.missed(), 4);
}

/// An edge of another pin would be taken for the level of the new one, and stay so until that changes.
#[test]
fn what_comes_from_another_pin_sensor_or_link_does_not_reach_the_node_of_that_name() {
    let show = "[nodes.show]\ntype = 'debug'\nfrom = 'it'\n";
    let door = |options: &str| graph(&format!("[nodes.it]\ntype = 'gpio in'\n{options}\n{show}"));
    let probe = |options: &str| graph(&format!("[nodes.it]\ntype = 'ds18b20'\n{options}\n{show}"));
    let link = graph(&format!("[nodes.it]\ntype = 'link in'\nlink = 'x'\n{show}"));
    let other = flow(&format!(
        "{SOURCE}[nodes.it]\ntype = 'filter'\nfrom = 'source'\n{show}"
    ));
    let check = |old: Arc<Graph>, new: Arc<Graph>, expected: usize| {
        let mut bench = Bench::new();
        let old = bench.add(old);
        let to = bench.address(old, "it");
        let (new, _) = bench.replace(old, new);
        let mut effects = bench.send(to, 1.0);
        let time = bench.now.wall;
        let inputs = [
            Input::Edge {
                time,
                level: Level::High,
            },
            Input::Reading {
                time,
                value: Ok(Value::Number(1.0)),
            },
        ];
        for input in inputs {
            let event = Event::Input { to, input };
            bench.engine.handle(bench.now, event, &mut effects);
        }
        assert_eq!(shown(&effects).len(), expected);
        let missed = if expected == 0 { 3 } else { 0 };
        assert_eq!(bench.engine.missed(), missed);
        let namesake = Some(bench.address(new, "it"));
        assert_eq!(
            bench.engine.namesake(to),
            namesake,
            "taps follow all the same"
        );
    };
    check(door("pin = 22"), door("pin = 22\ntopic = 'other'"), 1);
    check(door("pin = 22"), door("pin = 23"), 0);
    check(door("pin = 22"), door("pin = 22\npull = 'up'"), 0);
    let (here, there) = ("device = '28-0316a2795aff'", "device = '28-0316a2795bff'");
    check(probe(here), probe(&format!("{here}\nevery = '5s'")), 1);
    check(probe(here), probe(there), 0);
    check(probe(here), door("pin = 22"), 0);
    check(link.clone(), link.clone(), 1);
    check(link, other, 0);
}

#[test]
fn counters_go_on_and_what_a_flow_missed_stays_counted_when_it_is_gone() {
    let mut bench = Bench::new();
    let first = bench.add(counting());
    let count = bench.address(first, "count");
    bench.send(count, 0.0);
    bench.send(count, "panic");
    bench.send(count, 0.0);
    let (second, _) = bench.replace(first, counting());
    let counters = bench.engine.counters(second);
    assert_eq!((counters.missed, counters.panics), (1, 1));
    assert_eq!(bench.engine.missed(), 1);
    bench.engine.remove(second, bench.now, &mut Effects::new());
    assert_eq!(bench.engine.missed(), 1);
    assert_eq!(bench.send(count, 0.0), []);
    assert_eq!(bench.engine.missed(), 2);
    assert_eq!(bench.engine.next_wake(), None, "nothing is left of it");
}

#[test]
fn kept_outputs_are_not_touched_and_those_that_go_are_safe() {
    let mut bench = Bench::new();
    let old = bench.add(lamps(&[17, 18]));
    let source = bench.address(old, "lamp17");
    bench.send(source, true);
    let (new, effects) = bench.replace(old, lamps(&[17]));
    assert_eq!(driven(&effects), ["GPIO18 low"]);
    let (new, effects) = bench.replace(new, lamps(&[17, 19]));
    assert_eq!(driven(&effects), ["GPIO19 low"], "a new one begins safe");
    let mut effects = Effects::new();
    bench.engine.remove(new, bench.now, &mut effects);
    assert_eq!(driven(&effects), ["GPIO17 low", "GPIO19 low"]);
}

/// An interlock that begins anew takes all to be off; a pin that stayed on behind it would let two be on at once.
#[test]
fn outputs_behind_what_has_changed_begin_safe_and_no_others() {
    let flow = |pause: &str, first: &str| {
        graph(&format!(
            "[nodes.a]\ntype = 'catch'\nnodes = []\n[nodes.b]\ntype = 'catch'\nnodes = []\n\
             [nodes.lock]\ntype = 'interlock'\nfrom = ['a', 'b']\ninputs = ['a', 'b']\npause = '{pause}'\n\
             [nodes.same]\ntype = 'where'\nfrom = 'lock.{first}'\nwhen = 'true'\n\
             [nodes.one]\ntype = 'gpio out'\nfrom = 'same'\npin = 5\n\
             [nodes.two]\ntype = 'gpio out'\nfrom = 'lock.b'\npin = 6\n\
             [nodes.other]\ntype = 'gpio out'\nfrom = 'a'\npin = 7\n"
        ))
    };
    let check = |new: Arc<Graph>, expected: &[&str]| {
        let mut bench = Bench::new();
        let old = bench.add(flow("1s", "a"));
        for node in ["one", "other"] {
            bench.send(bench.address(old, node), true);
        }
        let (_, effects) = bench.replace(old, new);
        assert_eq!(driven(&effects), expected);
    };
    check(flow("1s", "a"), &[]);
    check(flow("2s", "a"), &["GPIO5 low", "GPIO6 low"]);
    // Only the wire to `same` is another one.
    check(flow("1s", "b"), &["GPIO5 low"]);
}

#[test]
fn pins_that_change_their_flow_are_driven_by_the_new_one_only() {
    let mut bench = Bench::new();
    let (first, second) = (bench.add(lamps(&[17, 20])), bench.add(lamps(&[18])));
    let mut swap = |old, pins: &[u8]| Swap {
        old: Some(old),
        new: Some(bench.engine.prepare(lamps(pins), bench.now).expect("built")),
        ..Swap::default()
    };
    let swaps = vec![swap(first, &[18]), swap(second, &[17])];
    let mut effects = Effects::new();
    let swapped = bench.engine.swap(swaps, bench.now, &mut effects);
    assert_eq!(
        driven(&effects),
        ["GPIO18 low", "GPIO17 low"],
        "as new nodes start"
    );
    let left: Vec<u8> = swapped.left.iter().map(|(pin, _)| pin.number()).collect();
    assert_eq!(left, [20]);
}

#[test]
fn a_graph_that_cannot_be_built_changes_nothing() {
    let mut bench = Bench::new();
    let old = bench.add(counting());
    let count = bench.address(old, "count");
    bench.send(count, 0.0);
    let large = flow(&format!(
        "{SOURCE}[nodes.large]\ntype = 'filter'\nfrom = 'source'\n[nodes.lamp17]\ntype = 'gpio out'\nfrom = 'large'\npin = 17"
    ));
    let mut effects = Effects::new();
    let error = bench.engine.replace(old, large, bench.now, &mut effects);
    assert_eq!(error, Err("no memory".to_owned()));
    assert_eq!(effects, []);
    assert_eq!(shown(&bench.send(count, 0.0)), ["2"]);
    assert_eq!(bench.engine.places(), 1);
}

#[test]
fn what_was_prepared_and_given_up_leaves_nothing() {
    let mut bench = Bench::new();
    let old = bench.add(counting());
    let count = bench.address(old, "count");
    let new = bench.engine.prepare(counting(), bench.now).expect("built");
    assert_eq!(
        bench.send(Address { flow: new, ..count }, 0.0),
        [],
        "it does not run"
    );
    bench.engine.give_up(new);
    assert_eq!(shown(&bench.send(count, 0.0)), ["1"]);
    assert_eq!(bench.engine.graphs().count(), 1);
    let mut effects = Effects::new();
    bench.engine.stop(&mut effects);
    assert_eq!(effects, []);
}

#[test]
fn a_stopped_flow_is_started_by_a_new_graph_and_its_outputs_begin_safe() {
    let mut bench = Bench::new();
    let text = format!(
        "{SOURCE}[nodes.count]\ntype = 'filter'\nfrom = 'source'\n[nodes.lamp17]\ntype = 'gpio out'\nfrom = 'count'\npin = 17\n{SHOWN}"
    );
    let old = bench.add(flow(&text));
    let count = bench.address(old, "count");
    bench.send(count, 0.0);
    bench.engine.checkpoint(old, bench.now);
    bench.send(count, 0.0);
    bench.send(count, "panic");
    let (new, effects) = bench.replace(old, flow(&text));
    assert!(
        effects.contains(&Effect::FlowRestarted { flow: new }),
        "{effects:?}"
    );
    assert_eq!(
        driven(&effects).first().map(String::as_str),
        Some("GPIO17 low")
    );
    assert_eq!(
        shown(&bench.send(count, 0.0)),
        ["2"],
        "from its last checkpoint"
    );
    assert_eq!(
        wake(&mut bench.engine, at(2)),
        [],
        "it is not started twice"
    );
}

#[test]
fn taps_follow_unless_the_ports_are_others() {
    let mut bench = Bench::new();
    let old = bench.add(counting());
    let tapped = bench.address(old, "count");
    bench.engine.tap(tapped, true);
    let (new, _) = bench.replace(old, counting_differently());
    let is_tapped =
        |effects: &Effects| effects.iter().any(|it| matches!(it, Effect::Tapped { .. }));
    assert!(is_tapped(&bench.send(tapped, 0.0)));
    let switch = "[nodes.count]\ntype = 'switch'\nfrom = 'source'\nrules = [{ eq = 1 }, { eq = 2 }]\n[nodes.show]\ntype = 'debug'\nfrom = 'count.1'\n";
    let (new, _) = bench.replace(new, flow(&format!("{SOURCE}{switch}")));
    let count = bench.address(new, "count");
    assert!(!is_tapped(&bench.send(count, 0.0)));
}

#[test]
fn after_a_panic_a_flow_goes_on_from_its_checkpoint_and_after_the_next_from_nothing() {
    let mut bench = Bench::new();
    let flow = bench.add(counting());
    let count = bench.address(flow, "count");
    bench.send(count, 0.0);
    bench.engine.checkpoint(flow, bench.now);
    bench.send(count, 0.0);
    bench.send(count, "panic");
    wake(&mut bench.engine, at(1));
    bench.now = at(1);
    assert_eq!(
        shown(&bench.send(count, 0.0)),
        ["2"],
        "the second one was after the checkpoint"
    );
    bench.now = at(61);
    bench.send(count, "panic");
    wake(&mut bench.engine, at(63));
    bench.now = at(63);
    assert_eq!(
        shown(&bench.send(count, 0.0)),
        ["1"],
        "twice within a minute"
    );
}

#[test]
fn panics_that_are_more_than_a_minute_apart_do_not_cost_the_checkpoint() {
    let mut bench = Bench::new();
    let flow = bench.add(counting());
    let count = bench.address(flow, "count");
    bench.send(count, 0.0);
    bench.engine.checkpoint(flow, bench.now);
    for second in [0, 62, 124] {
        bench.now = at(second);
        bench.send(count, "panic");
        bench.now = at(second + 1);
        wake(&mut bench.engine, bench.now);
        assert_eq!(shown(&bench.send(count, 0.0)), ["2"]);
    }
}

#[test]
fn a_state_that_makes_a_flow_panic_is_given_up() {
    let mut bench = Bench::new();
    let flow = bench.add(counting());
    let count = bench.address(flow, "count");
    bench.send(count, "trap");
    let checkpoint = bench.engine.checkpoint(flow, bench.now).expect("it runs");
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    engine.add_restored(counting(), checkpoint, at(0), &mut effects);
    let panics = |effects: &Effects| {
        let stops = effects
            .iter()
            .filter(|it| matches!(it, Effect::FlowStopped { .. }));
        stops.count()
    };
    assert_eq!(panics(&effects), 1);
    assert_eq!(panics(&wake(&mut engine, at(1))), 1, "once more");
    assert_eq!(
        wake(&mut engine, at(3)),
        [Effect::FlowRestarted { flow: 0 }]
    );
}

#[test]
fn a_flow_goes_on_from_a_checkpoint_after_a_restart_with_what_is_overdue_once() {
    let mut bench = Bench::new();
    let flow = bench.add(counting());
    let count = bench.address(flow, "count");
    bench.send(count, 0.0);
    let checkpoint = bench.engine.checkpoint(flow, at(30)).expect("it runs");
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    engine.skip_to(3);
    let flow = engine.add_restored(counting(), checkpoint, at(500), &mut effects);
    assert_eq!((flow, effects), (3, Effects::new()));
    assert_eq!(shown(&wake(&mut engine, at(500))), [r#""tick""#]);
    assert_eq!(engine.next_wake(), Some(560 * SECOND));
    bench.engine = engine;
    assert_eq!(shown(&bench.send(Address { flow, ..count }, 0.0)), ["2"]);
}

#[test]
fn a_node_without_a_state_does_not_make_checkpoints_differ() {
    let mut engine = Engine::new("d");
    let ticking = "[nodes.tick]\ntype = 'catch'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'";
    let flow = engine.add(graph(ticking), at(0), &mut Effects::new());
    let first = engine.checkpoint(flow, at(0)).expect("it runs");
    wake(&mut engine, at(9));
    let second = engine.checkpoint(flow, at(9)).expect("it runs");
    assert!(second.remembers_the_same(&first));
}

/// A flow that goes to the other engine, and back.
#[test]
fn a_flow_changes_its_engine_with_its_state_and_word_of_where_it_is() {
    let (mut data, mut control) = (Bench::new(), Bench::new());
    let old = data.add(counting());
    let count = data.address(old, "count");
    data.send(count, 0.0);
    let with_lamp = flow(&format!(
        "[nodes.lamp17]\ntype = 'gpio out'\nfrom = 'count'\npin = 17\n{SOURCE}[nodes.count]\ntype = 'filter'\nfrom = 'source'\n{SHOWN}"
    ));
    let nodes = heirs(data.engine.graph(old), &with_lamp);
    let new = control
        .engine
        .prepare(with_lamp, control.now)
        .expect("built");
    let leave = Swap {
        old: Some(old),
        goes_to: Some((new, nodes)),
        ..Swap::default()
    };
    let mut effects = Effects::new();
    let kept = data
        .engine
        .swap(vec![leave], data.now, &mut effects)
        .kept
        .remove(0);
    let join = Swap {
        new: Some(new),
        brings: kept,
        ..Swap::default()
    };
    control.engine.swap(vec![join], control.now, &mut effects);
    assert_eq!(
        driven(&effects),
        ["GPIO17 low"],
        "the lamp is new, the rest goes on"
    );
    let there = control.address(new, "count");
    assert_eq!(data.engine.locate(count), Whereabouts::Elsewhere(there));
    assert_eq!(shown(&control.send(there, 0.0)), ["2"]);
    assert_eq!(data.engine.graphs().count(), 0);
    assert_eq!(data.engine.next_wake(), None);
    let mut effects = Effects::new();
    control.engine.make_safe(&mut effects);
    assert_eq!(driven(&effects), ["GPIO17 low"]);
}
