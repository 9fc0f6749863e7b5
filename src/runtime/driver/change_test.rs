//! Flows that change on real threads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::states::StateQueue;
use super::subscribing::NoSubscriptions;
use super::taps::Seen;
use super::tests::{Scripted, next, wait_for};
use super::{ChangeError, Driver, LateOutbox, NewFlow, States, World};
use crate::board::{Drive, Edge, Level, Pin};
use crate::flow::Graph;
use crate::message::Timestamp;
use crate::nodes::testing::graph;
use crate::runtime::clock::Clock;
use crate::runtime::realtime::Realtime;

fn named(name: &str, text: &str) -> Arc<Graph> {
    let mut graph = Arc::into_inner(graph(text)).expect("nobody else has it");
    graph.rename(name);
    Arc::new(graph)
}

fn start(flows: &[(&str, &str)], board: &Scripted) -> Driver {
    start_with(flows, board, States::default())
}

fn start_with(flows: &[(&str, &str)], board: &Scripted, states: States) -> Driver {
    let world = World {
        device: "d".into(),
        clock: Clock::start(),
        board: Box::new(board.clone()),
        outbox: LateOutbox::default(),
        states,
        subscriptions: Box::new(NoSubscriptions),
        realtime: Realtime::default(),
    };
    let flows = flows.iter().map(|(name, text)| named(name, text));
    Driver::start(flows.collect(), world).unwrap()
}

fn put(driver: &Driver, flows: &[(&str, &str)]) -> Result<(), ChangeError> {
    let flows = flows.iter().map(|(name, text)| NewFlow {
        graph: named(name, text),
        remembered: None,
    });
    driver.flows().put(flows.collect())
}

/// Five messages each millisecond, numbered from 1 on, into the link `numbers`.
const NUMBERS: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\npayload = [0, 0, 0, 0, 0]\n\
    [nodes.each]\ntype = 'split'\nfrom = 'tick'\n[nodes.number]\ntype = 'counter'\nfrom = 'each'\n\
    [nodes.go]\ntype = 'link out'\nlink = 'numbers'\nfrom = 'number'\n";
/// Hands them on; the lamp, if there is one, gets nothing.
const BETWEEN: &str = "[nodes.come]\ntype = 'link in'\nlink = 'numbers'\n[nodes.on]\ntype = 'link out'\nlink = 'more'\nfrom = 'come'\n";
const WITH_LAMP: &str = "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.lamp]\ntype = 'gpio out'\nfrom = 'none'\npin = 17\n";
const DELIVER: &str = "[nodes.more]\ntype = 'link in'\nlink = 'more'\n[nodes.up]\ntype = 'uplink'\nfrom = 'more'\ntopic = 't'\nenvelope = 'none'\n";

/// The numbers that were to be delivered, in their order.
fn delivered(driver: Driver) -> Vec<u64> {
    let drafts = driver.stop().drafts;
    let numbers = drafts
        .iter()
        .map(|draft| String::from_utf8_lossy(&draft.payload).parse().unwrap());
    numbers.collect()
}

/// Changes the flow between again and again while numbers come.
fn check_nothing_is_lost(variants: &[String]) {
    let board = Scripted::default();
    let flows = [("a", NUMBERS), ("b", &variants[0]), ("c", DELIVER)];
    let driver = start(&flows, &board);
    let mut tap = driver.taps().watch("c/more").unwrap();
    for variant in variants.iter().cycle().skip(1).take(40) {
        assert!(next(&mut tap).is_some());
        put(&driver, &[("b", variant)]).unwrap();
        // A few more come before the next change.
        for _ in 0..30 {
            assert!(matches!(
                next(&mut tap),
                Some(Seen::Message { .. } | Seen::Dropped(_))
            ));
        }
    }
    let counters = driver.counters().clone();
    let lost = [
        &counters.missed,
        &counters.links_dropped,
        &counters.failures,
    ]
    .map(|it| it.get());
    assert_eq!(lost, [0, 0, 0]);
    let numbers = delivered(driver);
    assert!(numbers.len() > 1_000, "{}", numbers.len());
    let first = numbers[0];
    let expected: Vec<u64> = (first..first + numbers.len() as u64).collect();
    assert!(first == 1 || numbers.len() >= 9_000, "{first}");
    assert_eq!(numbers, expected);
}

#[test]
fn a_flow_that_changes_under_load_loses_and_repeats_nothing() {
    check_nothing_is_lost(&[BETWEEN.to_owned(), format!("# another one\n{BETWEEN}")]);
    let show = "[nodes.show]\ntype = 'where'\nwhen = 'false'\nfrom = 'come'\n";
    check_nothing_is_lost(&[BETWEEN.to_owned(), format!("{show}{BETWEEN}")]);
}

#[test]
fn a_flow_that_goes_to_the_other_engine_and_back_under_load_loses_and_repeats_nothing() {
    check_nothing_is_lost(&[BETWEEN.to_owned(), format!("{WITH_LAMP}{BETWEEN}")]);
}

#[test]
fn the_order_holds_whoever_sends_and_whoever_moves() {
    // The one that delivers moves too, and the one that sends is in the control engine.
    let board = Scripted::default();
    let control = format!("{WITH_LAMP}{NUMBERS}");
    let driver = start(&[("a", &control), ("b", BETWEEN), ("c", DELIVER)], &board);
    let with_lamp = |text: &str| text.to_owned() + &WITH_LAMP.replace("17", "18");
    let mut tap = driver.taps().watch("a/number").unwrap();
    for round in 0..20 {
        for _ in 0..50 {
            assert!(next(&mut tap).is_some());
        }
        let (between, deliver) = match round % 3 {
            0 => (with_lamp(BETWEEN), DELIVER.to_owned()),
            1 => (BETWEEN.to_owned(), with_lamp(DELIVER)),
            _ => (BETWEEN.to_owned(), DELIVER.to_owned()),
        };
        put(&driver, &[("b", &between), ("c", &deliver)]).unwrap();
    }
    let counters = driver.counters().clone();
    assert_eq!(
        (counters.missed.get(), counters.links_dropped.get()),
        (0, 0)
    );
    // What control has of them, and then what data has: an outbox would have got each where it stands still.
    let mut numbers = delivered(driver);
    let descents = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(descents <= 1, "{numbers:?}");
    numbers.sort_unstable();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    assert!(numbers.len() > 500, "{}", numbers.len());
}

const SWITCH: &str = "[nodes.switch]\ntype = 'gpio in'\npin = 22\n";
const SHOW: &str =
    "[nodes.seen]\ntype = 'filter'\nfrom = 'switch'\n[nodes.show]\ntype = 'debug'\nfrom = 'seen'\n";

#[test]
fn a_pin_that_both_graphs_read_stays_armed_and_its_edges_reach_the_new_one() {
    let board = Scripted::default();
    let flow = format!("{SWITCH}{SHOW}");
    let moved = format!("{SHOW}{SWITCH}{WITH_LAMP}");
    let driver = start(&[("a", &flow)], &board);
    wait_for("the level is read", || {
        driver.counters().readings.get() == 1
    });
    let edge = |level| {
        let edges = board.0.edges.lock().unwrap().clone().expect("it is armed");
        edges(Edge {
            pin: Pin::new(22).unwrap(),
            level,
            time: Timestamp::from_millis(1),
        });
    };
    let mut readings = 1;
    for text in [&moved, &flow, &moved] {
        put(&driver, &[("a", text)]).unwrap();
        // `gpio in` may ask for the level again.
        wait_for("the level is known", || {
            driver.counters().readings.get() >= readings
        });
        let before = driver.counters().readings.get();
        edge(Level::Low);
        edge(Level::High);
        readings = before + 2;
        wait_for("the edges come", || {
            driver.counters().readings.get() >= readings
        });
    }
    assert_eq!(driver.counters().missed.get(), 0);
    assert_eq!(board.0.armed.load(Ordering::Relaxed), 1, "armed once");
    assert_eq!(board.0.closed.load(Ordering::Relaxed), 0);
    put(
        &driver,
        &[(
            "a",
            "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.show]\ntype = 'debug'\nfrom = 'none'",
        )],
    )
    .unwrap();
    assert_eq!(board.0.closed.load(Ordering::Relaxed), 1, "nobody reads it");
    driver.stop();
}

#[test]
fn a_pin_changes_its_flow_without_a_level_in_between() {
    let high = "[nodes.on]\ntype = 'inject'\nevery = '1ms'\npayload = true\n[nodes.lamp]\ntype = 'gpio out'\nfrom = 'on'\npin = 17\n";
    let other = "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.lamp]\ntype = 'gpio out'\nfrom = 'none'\npin = 17\nsafe = 'high'\n";
    let nothing =
        "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.show]\ntype = 'debug'\nfrom = 'none'";
    let board = Scripted::default();
    let driver = start(&[("a", high), ("b", nothing)], &board);
    let driven = || board.0.driven.lock().unwrap().clone();
    let high = Drive::Level(Level::High);
    wait_for("it is high", || driven().last() == Some(&high));
    let before = driven().len();
    put(&driver, &[("a", nothing), ("b", other)]).unwrap();
    assert_eq!(
        driven()[before..],
        [high],
        "as the new one starts; never low"
    );
    // Whoever drives it last makes it safe: by its own level.
    put(&driver, &[("b", nothing)]).unwrap();
    assert_eq!(driven()[before..], [high, high]);
    assert!(driver.stop().outputs_are_safe);
    assert_eq!(
        driven()[before..],
        [high, high],
        "it has no output any more"
    );
}

#[test]
fn an_output_that_becomes_an_input_is_not_driven_again() {
    let board = Scripted::default();
    let driver = start(&[("a", WITH_LAMP)], &board);
    wait_for("it is safe", || board.0.driven.lock().unwrap().len() == 1);
    board.0.failures.store(u32::MAX, Ordering::Relaxed);
    let input = format!("{}{SHOW}", SWITCH.replace("22", "17"));
    put(&driver, &[("a", &input)]).unwrap();
    board.0.failures.store(0, Ordering::Relaxed);
    assert_eq!(board.0.driven.lock().unwrap().len(), 1);
    assert!(driver.stop().outputs_are_safe);
    assert_eq!(board.0.driven.lock().unwrap().len(), 1);
}

/// It had no time to become safe before it became an input.
#[test]
fn an_output_that_becomes_an_input_in_two_steps_is_not_driven_again() {
    let board = Scripted::default();
    let driver = start(&[("a", WITH_LAMP)], &board);
    wait_for("it is safe", || board.0.driven.lock().unwrap().len() == 1);
    board.0.failures.store(u32::MAX, Ordering::Relaxed);
    put(&driver, &[("a", BETWEEN)]).unwrap();
    let input = format!("{}{SHOW}", SWITCH.replace("22", "17"));
    put(&driver, &[("a", &input)]).unwrap();
    board.0.failures.store(0, Ordering::Relaxed);
    assert!(driver.stop().outputs_are_safe);
    assert_eq!(board.0.driven.lock().unwrap().len(), 1);
}

/// The flows that start again do not have the pin, and nobody else would see to it.
#[test]
fn a_pin_that_is_left_is_safe_even_if_the_change_fails() {
    let high = "[nodes.on]\ntype = 'inject'\nevery = '1ms'\npayload = true\n[nodes.lamp]\ntype = 'gpio out'\nfrom = 'on'\npin = 17\n";
    let board = Scripted::default();
    let driver = start(&[("a", high)], &board);
    let last = || board.0.driven.lock().unwrap().last().cloned();
    wait_for("it is high", || last() == Some(Drive::Level(Level::High)));
    board.0.panics_at_output.store(1, Ordering::Relaxed);
    put(&driver, &[("a", &format!("{SWITCH}{SHOW}"))]).unwrap();
    wait_for("it fails", || driver.counters().panics.get() == 1);
    wait_for("it is low", || last() == Some(Drive::Level(Level::Low)));
    wait_for("the input is read", || {
        driver.counters().readings.get() == 1
    });
    assert_eq!(driver.counters().failures.get(), 0);
    driver.stop();
}

/// Of a clock that ran on while this one began anew: its timers would wait until then.
#[test]
fn a_flow_that_is_added_begins_anew_if_what_it_remembers_is_of_a_later_time() {
    let year = Duration::from_secs(365 * 86_400);
    let mut engine = crate::runtime::Engine::new("d");
    let now = crate::runtime::Now::default().later(year);
    let flow = named("d", NUMBERS);
    let place = engine.add(flow.clone(), now, &mut Vec::new());
    let remembered = engine.checkpoint(place, now);
    let driver = start(&[("c", BETWEEN)], &Scripted::default());
    let flow = NewFlow {
        graph: flow,
        remembered,
    };
    driver.flows().put(vec![flow]).unwrap();
    let mut tap = driver.taps().watch("d/number").unwrap();
    assert!(next(&mut tap).is_some());
    driver.stop();
}

#[test]
fn a_flow_that_is_added_goes_on_from_what_it_is_given() {
    let driver = start(
        &[(
            "c",
            "[nodes.more]\ntype = 'link in'\nlink = 'more'\n[nodes.up]\ntype = 'uplink'\nfrom = 'more'\ntopic = 't'",
        )],
        &Scripted::default(),
    );
    let delayed = "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\npayload = 7\n[nodes.later]\ntype = 'delay'\nby = '20ms'\nfrom = 'tick'\n\
                   [nodes.go]\ntype = 'link out'\nlink = 'more'\nfrom = 'later'\n";
    let queue = StateQueue::default();
    let states = States {
        every: Duration::from_millis(10),
        queue: Some(queue.clone()),
        ..States::default()
    };
    let first = start_with(&[("d", delayed)], &Scripted::default(), states);
    let remembered = queue.take().expect("it is not closed").remove(0);
    first.stop();
    let silent = delayed.replace("every = '1ms'", "every = '1h'");
    let flow = NewFlow {
        graph: named("d", &silent),
        remembered: Some(remembered),
    };
    driver.flows().put(vec![flow]).unwrap();
    let mut tap = driver.taps().watch("c/more").unwrap();
    // What was held back comes, and nothing else would.
    assert!(next(&mut tap).is_some());
    driver.stop();
}

#[test]
fn each_flow_says_what_it_remembers_at_intervals_and_at_the_stop() {
    let queue = StateQueue::default();
    let states = States {
        every: Duration::from_millis(1),
        queue: Some(queue.clone()),
        ..States::default()
    };
    let flows = [("a", BETWEEN), ("b", WITH_LAMP)];
    let driver = start_with(&flows, &Scripted::default(), states);
    let (mut a, mut b) = (0, 0);
    while a < 3 || b < 3 {
        for checkpoint in queue.take().expect("it is not closed") {
            match checkpoint.flow.as_str() {
                "a" => a += 1,
                _ => b += 1,
            }
        }
    }
    driver.stop();
    queue.close();
    let last = queue.take().expect("those at the stop");
    assert_eq!(last.len(), 2);
}

#[test]
fn a_stop_in_the_midst_of_changes_ends_both() {
    for round in 0..20 {
        let driver = start(
            &[("a", NUMBERS), ("b", BETWEEN), ("c", DELIVER)],
            &Scripted::default(),
        );
        let flows = driver.flows().clone();
        let changing = std::thread::spawn(move || {
            let variants = [format!("{WITH_LAMP}{BETWEEN}"), BETWEEN.to_owned()];
            for variant in variants.iter().cycle() {
                let flow = NewFlow {
                    graph: named("b", variant),
                    remembered: None,
                };
                if let Err(error) = flows.put(vec![flow]) {
                    return error;
                }
            }
            unreachable!("the cycle has no end")
        });
        std::thread::sleep(Duration::from_micros(700 * round));
        assert!(driver.stop().outputs_are_safe);
        let error = changing.join().unwrap();
        assert!(matches!(error, ChangeError::Stopping), "{error}");
    }
}

#[test]
fn after_the_stop_nothing_can_be_changed() {
    let driver = start(&[("a", BETWEEN)], &Scripted::default());
    let flows = driver.flows().clone();
    driver.stop();
    let flow = NewFlow {
        graph: named("a", BETWEEN),
        remembered: None,
    };
    assert!(matches!(flows.put(vec![flow]), Err(ChangeError::Stopping)));
}

#[test]
fn sensors_stay_open_and_their_readings_follow() {
    let board = Scripted::default();
    let probe = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\nevery = '5ms'\n[nodes.show]\ntype = 'filter'\nfrom = 'probe'\n";
    board.0.answers.store(true, Ordering::Relaxed);
    let driver = start(&[("a", probe)], &board);
    for round in 0..6 {
        let text = match round % 2 {
            0 => format!("{WITH_LAMP}{probe}"),
            _ => probe.to_owned(),
        };
        put(&driver, &[("a", &text)]).unwrap();
        let mut tap = driver.taps().watch("a/probe").unwrap();
        assert!(matches!(next(&mut tap), Some(Seen::Message { .. })));
    }
    assert_eq!(board.0.opened.load(Ordering::Relaxed), 1, "opened once");
    let other = probe.replace("28-0316a2795aff", "28-0316a2795bff");
    put(&driver, &[("a", &other)]).unwrap();
    assert_eq!(board.0.opened.load(Ordering::Relaxed), 2);
    driver.stop();
}

/// What the engine thread starts again after a failure is what ran last.
#[test]
fn an_engine_thread_that_fails_after_a_change_starts_the_new_flows() {
    let board = Scripted::default();
    let relay =
        |pin| format!("{SWITCH}[nodes.relay]\ntype = 'gpio out'\nfrom = 'switch'\npin = {pin}");
    let driver = start(&[("a", &relay(17))], &board);
    let added = format!("{SHOW}[nodes.switch]\ntype = 'gpio in'\npin = 23\n");
    put(
        &driver,
        &[
            ("a", &relay(18)),
            ("b", &format!("{added}{}", WITH_LAMP.replace("17", "19"))),
        ],
    )
    .unwrap();
    let mut tap = driver.taps().watch("a/switch").unwrap();
    board.0.panics.store(1, Ordering::Relaxed);
    wait_for("it fails", || driver.counters().panics.get() == 1);
    assert!(matches!(next(&mut tap), Some(Seen::Message { .. })));
    put(&driver, &[("a", &relay(20))]).unwrap();
    assert_eq!(driver.flows().names(), ["a", "b"]);
    assert!(driver.stop().outputs_are_safe);
}
