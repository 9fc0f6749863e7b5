//! A pause in the midst of a node's work changes nothing: the example of each node type runs once as it is, and once with its engine
//! dropped and made anew from a checkpoint again and again, in no time. It must do the same, but for what decision 0014 says.

mod altered;
mod world;

use std::sync::Arc;
use std::time::Duration;

use self::world::{Allowed, Pauses, Play};
use crate::message::Message;
use crate::nodes::testing::graph;
use crate::nodes::{NodeType, node_types};
use crate::runtime::{Address, Checkpoint, Engine, Event, Now, Pause};

/// The types that remember something. All others must not save anything.
const STATEFUL: &[&str] = &[
    "gpio in",
    "pulses",
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
    "window",
];

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

/// What is marked after a restart, and why. The marks are taken off before it is compared.
const MARKED: &[(&str, &str)] = &[
    (
        "window",
        "the result of a window that went through a restart says so",
    ),
    ("uplink", "its example is behind a window"),
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

fn play(node_type: &'static NodeType, flow: &str, pauses: Option<Pauses>) -> Play {
    let allowed = Allowed {
        says_again: has(SAYS_AGAIN, node_type),
        marks: has(MARKED, node_type),
    };
    Play::new(node_type, flow, allowed, pauses).run()
}

fn deeds(node_type: &'static NodeType, flow: &str, pauses: Option<Pauses>) -> Vec<String> {
    play(node_type, flow, pauses).deeds
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
    let named = [ANEW_AFTER_RESTART, SAYS_AGAIN, MARKED, MORE]
        .into_iter()
        .flatten();
    let named = named.map(|(name, _)| name).chain(STATEFUL);
    for name in named {
        assert!(NodeType::find(name).is_some(), "{name}");
    }
}

#[test]
fn a_reload_changes_nothing_and_without_its_state_each_node_would_do_something_else() {
    for (node_type, flows) in plays() {
        let is_stateful = node_type.part.is_some() || STATEFUL.contains(&node_type.name);
        for flow in flows {
            let expected = deeds(node_type, &flow, None);
            assert!(!expected.is_empty(), "{} does nothing", node_type.name);
            let play = play(node_type, &flow, with(Pause::Reload, false));
            let (saved, might) = play.saved;
            let all = if is_stateful { might } else { 0 };
            assert!(might > 0);
            assert_eq!(saved, all, "states that `{}` saves", node_type.name);
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

/// A state has its check sum, and it is for the same options; but one that another version wrote, or someone by hand, must not stop the
/// flow: a node begins anew, or goes on from something that can be.
#[test]
fn a_state_with_any_other_value_in_it_stops_no_flow() {
    const AT: Duration = Duration::from_millis(130_250);
    const THEN: Duration = Duration::from_secs(45);
    let mut found = Vec::new();
    for (node_type, flows) in plays() {
        for flow in flows.iter().filter(|_| STATEFUL.contains(&node_type.name)) {
            let allowed = Allowed {
                says_again: false,
                marks: false,
            };
            let play = Play::new(node_type, flow, allowed, None);
            let stops = play.stops(AT, THEN, altered::states);
            let stops = stops
                .into_iter()
                .map(|it| format!("{} {it}", node_type.name));
            found.extend(stops);
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// A node that reads a number each second, from one second on to another; what it sent last, and what it remembers then.
fn after(
    options: &str,
    state: Option<Vec<u8>>,
    seconds: std::ops::Range<u32>,
) -> (String, Vec<u8>) {
    let graph = graph(&format!(
        "[nodes.source]\ntype = 'catch'\nnodes = []\n[nodes.tested]\nfrom = 'source'\n{options}\n\
         [nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
    ));
    let node = |name| graph.find(name).expect("it is there");
    let at = |second: u32| Now::default().later(Duration::from_secs(second.into()));
    let start = at(seconds.start);
    let (mut engine, mut effects) = (Engine::new("d"), Vec::new());
    engine.add(graph.clone(), start, &mut effects);
    if let Some(state) = state {
        let mut checkpoint = Checkpoint::clone(&engine.checkpoint(0, start).expect("it runs"));
        checkpoint.set_state("tested", state);
        engine = Engine::new("d");
        engine.add_restored(graph.clone(), Arc::new(checkpoint), start, &mut effects);
    }
    for second in seconds.clone() {
        let now = at(second);
        engine.wake(now, 100, &mut effects);
        let message = Message {
            topic: "t".into(),
            payload: f64::from(second * 37 % 100).into(),
            time: now.wall,
            source: node("source"),
            headers: None,
        };
        let to = Address {
            flow: 0,
            node: node("tested"),
        };
        let messages = vec![message];
        engine.handle(now, Event::Messages { to, messages }, &mut effects);
    }
    let checkpoint = engine.checkpoint(0, at(seconds.end)).expect("it runs");
    let state = checkpoint.state("tested").expect("it remembers something");
    (format!("{:?}", effects.last()), state.bytes().to_vec())
}

/// Options are part of a node's print, but what they may be changes with versions.
#[test]
fn what_is_more_than_may_be_kept_becomes_less_and_not_more() {
    for (options, large, small, is_all_sent) in [
        ("type = 'median'\ncount = ", "50", "3", true),
        ("type = 'lag'\ncount = ", "50", "3", true),
        ("type = 'zscore'\nlearn = true\ncount = ", "50", "10", true),
        ("type = 'delay'\nby = '200s'\nmost = ", "50", "10", false),
        (
            "type = 'throttle'\nevery = '1h'\nmode = 'queue'\nmost = ",
            "50",
            "10",
            false,
        ),
    ] {
        let (_, kept) = after(&format!("{options}{large}"), None, 0..60);
        let (sent, found) = after(&format!("{options}{small}"), Some(kept.clone()), 60..160);
        assert!(found.len() <= kept.len(), "{options}{small}");
        if is_all_sent {
            let expected = after(&format!("{options}{small}"), None, 0..160);
            assert_eq!((sent, found), expected, "{options}{small}");
        }
    }
}
