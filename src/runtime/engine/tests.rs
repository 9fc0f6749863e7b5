//! The engine by itself: panics, order, wake-ups.

use super::*;
use crate::message::{Timestamp, Value};
use crate::nodes::testing::graph;
use crate::nodes::{BuildError, Spec, Surroundings, Use};
use crate::runtime::node::{Context, Node};
use crate::runtime::state::State;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn at(seconds: u64) -> Now {
    Now::default().later(SECOND * u32::try_from(seconds).expect("a small number"))
}

/// A node that panics on the payload "panic" and passes on everything else.
#[derive(Debug)]
struct Fragile;

impl Spec for Fragile {
    fn uses(&self) -> Vec<Use> {
        Vec::new()
    }
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Fragile))
    }
}

impl Node for Fragile {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        assert!(
            message.payload != Value::from("panic"),
            "as the test wants it"
        );
        cx.pass(0);
    }
}

/// source -> middle -> relay on GPIO17, whose safe level is high.
fn fragile_flow() -> Arc<Graph> {
    let mut flow = Arc::into_inner(graph(
        "[nodes.source]\ntype = 'inject'\nevery = '7s'\npayload = false\n\
             [nodes.middle]\ntype = 'filter'\nfrom = 'source'\n\
             [nodes.relay]\ntype = 'gpio out'\nfrom = 'middle'\npin = 17\nsafe = 'high'",
    ))
    .expect("nobody else has it");
    flow.replace_spec("middle", Arc::new(Fragile));
    Arc::new(flow)
}

fn send(engine: &mut Engine, flow: u32, now: Now, payload: Value) -> Effects {
    let message = Message {
        topic: "t".into(),
        payload,
        time: now.wall,
        source: NodeId(0),
        headers: None,
    };
    let mut effects = Effects::new();
    let to = Address {
        flow,
        node: NodeId(1),
    };
    engine.handle(
        now,
        Event::Messages {
            to,
            messages: vec![message],
        },
        &mut effects,
    );
    effects
}

fn levels(effects: &Effects) -> Vec<Level> {
    let levels = effects.iter().filter_map(|effect| match effect {
        Effect::Output { drive, .. } => drive.level(),
        _ => None,
    });
    levels.collect()
}

pub(super) fn wake(engine: &mut Engine, now: Now) -> Effects {
    let mut effects = Effects::new();
    engine.wake(now, usize::MAX, &mut effects);
    effects
}

#[test]
fn a_panic_stops_its_flow_only_makes_its_outputs_safe_and_the_flow_comes_back() {
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    let fragile = engine.add(fragile_flow(), at(0), &mut effects);
    let sound = engine.add(fragile_flow(), at(0), &mut effects);
    assert_eq!(
        levels(&effects),
        [Level::High, Level::High],
        "safe at the start"
    );
    assert_eq!(
        levels(&send(&mut engine, fragile, at(1), Value::Bool(false))),
        [Level::Low]
    );

    let effects = send(&mut engine, fragile, at(2), Value::from("panic"));
    assert_eq!(levels(&effects), [Level::High], "safe after the panic");
    assert!(
        matches!(&effects[1], Effect::FlowStopped { node: Some(NodeId(1)), panic, again_in, .. }
                if panic.contains("as the test wants it") && *again_in == SECOND),
        "{effects:?}"
    );

    assert_eq!(
        send(&mut engine, fragile, at(2), Value::Bool(false)),
        [],
        "it is stopped"
    );
    assert_eq!(engine.counters(fragile).missed, 1);
    assert_eq!(
        levels(&send(&mut engine, sound, at(2), Value::Bool(false))),
        [Level::Low],
        "the other runs"
    );

    let effects = wake(&mut engine, at(3));
    assert!(
        effects.contains(&Effect::FlowRestarted { flow: fragile }),
        "{effects:?}"
    );
    assert_eq!(
        levels(&send(&mut engine, fragile, at(4), Value::Bool(false))),
        [Level::Low]
    );
    assert_eq!(engine.counters(fragile).panics, 1);
    assert_eq!(
        levels(&wake(&mut engine, at(12))),
        [],
        "its source ticks again, and the level is the same"
    );
    assert!(
        engine.counters(fragile).deliveries > 3,
        "{:?}",
        engine.counters(fragile)
    );
}

#[test]
fn the_back_off_doubles_up_to_a_minute_and_is_forgotten_after_a_good_while() {
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    let flow = engine.add(fragile_flow(), at(0), &mut effects);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let effects = send(&mut engine, flow, at(now), Value::from("panic"));
        let wait = effects.iter().find_map(|effect| match effect {
            Effect::FlowStopped { again_in, .. } => Some(again_in.as_secs()),
            _ => None,
        });
        waits.push(wait.expect("it stops"));
        now += 60;
        wake(&mut engine, at(now));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let effects = send(&mut engine, flow, at(now + 61), Value::from("panic"));
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::FlowStopped { again_in, .. } if *again_in == SECOND)
    ));
}

#[test]
fn readers_get_their_own_copy_in_file_order() {
    let flow = graph(
        "[nodes.source]\ntype = 'inject'\nevery = '7s'\n\
             [nodes.pass]\ntype = 'filter'\nfrom = 'source'\n\
             [nodes.first]\ntype = 'debug'\nfrom = 'pass'\n\
             [nodes.scaled]\ntype = 'range'\nfrom = 'pass'\nin = [0, 1]\nout = [0, 10]\n\
             [nodes.second]\ntype = 'debug'\nfrom = 'pass'\n\
             [nodes.third]\ntype = 'debug'\nfrom = 'scaled'",
    );
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    let flow = engine.add(flow, at(0), &mut effects);
    let shown: Vec<_> = send(&mut engine, flow, at(1), Value::Number(0.5))
        .into_iter()
        .map(|effect| match effect {
            Effect::Debug { label, message, .. } => {
                (label.to_string(), message.payload.to_json(), message.source)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("first", "0.5", 1), ("second", "0.5", 1), ("third", "5", 3)];
    assert_eq!(
        shown,
        expected.map(|(label, payload, source)| (label.into(), payload.into(), NodeId(source)))
    );
}

#[test]
fn wake_ups_come_in_slices_and_in_order() {
    let flow = graph(
        "[nodes.a]\ntype = 'inject'\nevery = '1s'\npayload = 'a'\n[nodes.b]\ntype = 'inject'\nevery = '1s'\npayload = 'b'\n\
             [nodes.c]\ntype = 'inject'\nevery = '900ms'\npayload = 'c'\n[nodes.show]\ntype = 'debug'\nfrom = ['a', 'b', 'c']",
    );
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    engine.add(flow, at(0), &mut effects);
    assert_eq!(engine.next_wake(), Some(Duration::from_millis(900)));
    engine.wake(at(1), 2, &mut effects);
    assert_eq!(effects.len(), 2, "two of three");
    assert!(
        engine.next_wake().is_some_and(|next| next <= SECOND),
        "the third is still due"
    );
    engine.wake(at(1), 2, &mut effects);
    let shown: String = effects
        .iter()
        .map(|effect| match effect {
            Effect::Debug { message, .. } => message.payload.to_json(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, r#""c""a""b""#);
}

#[test]
fn stopping_makes_outputs_safe() {
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    let flow = engine.add(fragile_flow(), at(0), &mut effects);
    send(&mut engine, flow, at(1), Value::Bool(false));
    let mut effects = Effects::new();
    engine.stop(&mut effects);
    assert_eq!(levels(&effects), [Level::High]);
    assert_eq!(engine.next_wake(), None);
}

#[test]
fn a_message_carries_its_time_through() {
    let flow = graph(
        "[nodes.source]\ntype = 'inject'\nevery = '7s'\n[nodes.show]\ntype = 'debug'\nfrom = 'source'",
    );
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    engine.add(flow, at(0), &mut effects);
    let effects = wake(&mut engine, at(7));
    let Effect::Debug { message, .. } = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(message.time, Timestamp::from_millis(7_000));
}

#[test]
fn a_status_node_hears_of_a_restart() {
    let mut flow = Arc::into_inner(graph(
        "[nodes.source]\ntype = 'inject'\nevery = '7s'\npayload = false\n\
         [nodes.middle]\ntype = 'filter'\nfrom = 'source'\n\
         [nodes.health]\ntype = 'status'\nnodes = ['middle']\n\
         [nodes.show]\ntype = 'debug'\nfrom = ['middle', 'health']",
    ))
    .expect("nobody else has it");
    flow.replace_spec("middle", Arc::new(Fragile));
    let mut engine = Engine::new("d");
    let mut effects = Effects::new();
    let flow = engine.add(Arc::new(flow), at(0), &mut effects);
    send(&mut engine, flow, at(1), Value::from("panic"));
    let told: Vec<String> = wake(&mut engine, at(2))
        .iter()
        .filter_map(|effect| match effect {
            Effect::Debug { message, .. } => Some(message.payload.to_json()),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]
            .starts_with(r#"{"node":"middle","state":"restarted","reason":"as the test wants it"#),
        "{told:?}"
    );
}

/// For the test of what nodes remember, which pauses flows by itself.
impl Engine {
    /// Adds a flow of which some nodes are watched, as it begins after a pause, or for the first time.
    pub(crate) fn add_after(
        &mut self,
        graph: Arc<Graph>,
        from: Option<(Arc<Checkpoint>, Pause)>,
        taps: Vec<NodeId>,
        now: Now,
        effects: &mut Effects,
    ) -> u32 {
        let slots = self.build(&graph).expect("it can be built");
        let index = self.push(graph, now);
        let flow = self.here(index);
        flow.taps = taps;
        flow.take(slots);
        self.start(index, from, now, effects);
        index
    }
}

impl Checkpoint {
    /// Takes away what a node remembers; says whether there was something.
    pub(crate) fn forget(&mut self, node: &str) -> bool {
        let remembered = self.nodes.get_mut(node).expect("all nodes are there");
        remembered.state.take().is_some()
    }

    pub(crate) fn set_state(&mut self, node: &str, bytes: Vec<u8>) {
        let remembered = self.nodes.get_mut(node).expect("all nodes are there");
        remembered.state = Some(State::from_bytes(bytes));
    }
}
