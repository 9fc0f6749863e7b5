//! Flows on real threads, with a board that fails as the tests want.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::subscribing::{self, NoSubscriptions};
use super::taps::{Seen, Tap, TapError};
use super::{Driver, LateOutbox, States, World};
use crate::board::{Board, BoardError, Drive, Edge, EdgeSink, Level, Pin, Pull};
use crate::message::Value;
use crate::nodes::testing::graph;
use crate::runtime::clock::{Clock, Now};
use crate::runtime::node::Input;
use crate::runtime::realtime::{self, Realtime};
use crate::sensors::{Sensor, SensorError, SensorSpec};

/// What a board was told, and how it is to fail.
#[derive(Default)]
pub(super) struct Script {
    pub(super) driven: Mutex<Vec<Drive>>,
    /// The policy and priority of the thread that did it last.
    driven_with: Mutex<(u32, u32)>,
    realtime: Mutex<Option<Realtime>>,
    /// So many outputs fail.
    pub(super) failures: AtomicU32,
    /// So many looks at the board panic.
    pub(super) panics: AtomicU32,
    /// So many outputs panic that are driven low.
    pub(super) panics_at_output: AtomicU32,
    /// Where edges of the input go.
    pub(super) edges: Mutex<Option<EdgeSink>>,
    /// Whoever drives an output waits for this.
    gate: Mutex<()>,
    /// Whether sensors answer; else they hang.
    pub(super) answers: AtomicBool,
    /// How often an input was armed and closed, and a sensor opened.
    pub(super) armed: AtomicU32,
    pub(super) closed: AtomicU32,
    pub(super) opened: AtomicU32,
    /// Edges that a recheck finds lost.
    lost: AtomicU32,
}

#[derive(Clone, Default)]
pub(super) struct Scripted(pub(super) Arc<Script>);

impl Board for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn output(&mut self, pin: Pin, drive: Drive) -> Result<(), BoardError> {
        drop(self.0.gate.lock().unwrap());
        let left = self.0.failures.load(Ordering::Relaxed);
        if left > 0 {
            self.0.failures.store(left - 1, Ordering::Relaxed);
            return Err(BoardError::Pin {
                pin,
                direction: "output",
                source: "as the test wants it".into(),
            });
        }
        let panics = self.0.panics_at_output.load(Ordering::Relaxed);
        if panics > 0 && drive == Drive::Level(Level::Low) {
            self.0.panics_at_output.store(panics - 1, Ordering::Relaxed);
            panic!("as the test wants it");
        }
        self.0.driven.lock().unwrap().push(drive);
        *self.0.driven_with.lock().unwrap() = realtime::of_this_thread();
        Ok(())
    }

    fn input(&mut self, _: Pin, _: Pull, edges: EdgeSink) -> Result<Level, BoardError> {
        *self.0.edges.lock().unwrap() = Some(edges);
        self.0.armed.fetch_add(1, Ordering::Relaxed);
        Ok(Level::High)
    }

    fn close_input(&mut self, _: Pin) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }

    fn sensor(&mut self, _: &SensorSpec) -> Result<Box<dyn Sensor>, BoardError> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let answers = self.0.answers.load(Ordering::Relaxed);
        Ok(if answers {
            Box::new(Answers)
        } else {
            Box::new(Hangs)
        })
    }

    fn recheck(&mut self) -> Result<(), BoardError> {
        let left = self.0.panics.load(Ordering::Relaxed);
        self.0
            .panics
            .store(left.saturating_sub(1), Ordering::Relaxed);
        assert!(left == 0, "as the test wants it");
        match self.0.lost.load(Ordering::Relaxed) {
            0 => Ok(()),
            count => Err(BoardError::EdgesLost {
                pins: "GPIO17".to_owned(),
                count: u64::from(count),
            }),
        }
    }

    fn lost_edges(&mut self) -> u64 {
        u64::from(self.0.lost.swap(0, Ordering::Relaxed))
    }
}

struct Answers;

impl Sensor for Answers {
    fn read(&mut self, now: Now) -> Result<Value, SensorError> {
        Ok(Value::Number(now.mono.as_secs_f64()))
    }
}

/// A sensor whose bus hangs.
struct Hangs;

impl Sensor for Hangs {
    fn read(&mut self, _: Now) -> Result<Value, SensorError> {
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(Duration::from_secs(60));
        Ok(Value::Null)
    }
}

fn start(flow: &str, board: &Scripted) -> Driver {
    start_all(&[flow], board)
}

fn start_all(flows: &[&str], board: &Scripted) -> Driver {
    let world = World {
        device: "d".into(),
        clock: Clock::start(),
        board: Box::new(board.clone()),
        outbox: LateOutbox::default(),
        states: States::default(),
        subscriptions: Box::new(NoSubscriptions),
        realtime: board.0.realtime.lock().unwrap().take().unwrap_or_default(),
    };
    let flows = flows.iter().map(|flow| graph(flow)).collect();
    Driver::start(flows, world).unwrap()
}

pub(super) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LOW: Drive = Drive::Level(Level::Low);
const HIGH: Drive = Drive::Level(Level::High);

/// A switch on GPIO22 drives a relay on GPIO17, whose safe level is low.
const RELAY: &str = "[nodes.switch]\ntype = 'gpio in'\npin = 22\n[nodes.relay]\ntype = 'gpio out'\nfrom = 'switch'\npin = 17";

#[test]
fn a_flow_learns_the_level_at_its_start_and_outputs_are_safe_at_its_stop() {
    let board = Scripted::default();
    let driver = start(RELAY, &board);
    wait_for("the relay follows the switch", || {
        board.0.driven.lock().unwrap().len() == 2
    });
    assert!(driver.stop().outputs_are_safe);
    assert_eq!(*board.0.driven.lock().unwrap(), [LOW, HIGH, LOW]);
}

/// What the kernel gives to another thread that asks for the same decides what is expected here: it may not be allowed.
#[test]
fn outputs_are_driven_with_the_priority_that_the_settings_ask_for() {
    let wanted = Realtime {
        priority: std::num::NonZeroU8::new(20),
        lock_memory: false,
    };
    let expected = std::thread::spawn(move || {
        let _ = wanted.raise_this_thread();
        realtime::of_this_thread()
    });
    let expected = expected.join().unwrap();
    let board = Scripted::default();
    *board.0.realtime.lock().unwrap() = Some(wanted);
    let driver = start(RELAY, &board);
    wait_for("the relay follows the switch", || {
        board.0.driven.lock().unwrap().len() == 2
    });
    assert_eq!(*board.0.driven_with.lock().unwrap(), expected);
    driver.stop();
}

#[test]
fn an_output_that_fails_is_tried_again() {
    let board = Scripted::default();
    board.0.failures.store(2, Ordering::Relaxed);
    let driver = start(RELAY, &board);
    wait_for("the level is driven at last", || {
        *board.0.driven.lock().unwrap() == [HIGH]
    });
    assert_eq!(driver.counters().output_errors.get(), 2);
    assert!(driver.stop().outputs_are_safe);
}

#[test]
fn an_output_that_stays_failed_is_told_at_the_stop() {
    let board = Scripted::default();
    board.0.failures.store(u32::MAX, Ordering::Relaxed);
    let driver = start(RELAY, &board);
    wait_for("the board refuses", || {
        driver.counters().output_errors.get() >= 2
    });
    assert!(!driver.stop().outputs_are_safe);
}

#[test]
fn edges_that_the_board_has_lost_are_counted_once() {
    let board = Scripted::default();
    board.0.lost.store(137, Ordering::Relaxed);
    let driver = start(RELAY, &board);
    wait_for("the next recheck", || {
        driver.counters().edges_dropped.get() > 0
    });
    let counters = driver.counters().clone();
    driver.stop();
    assert_eq!(counters.edges_dropped.get(), 137);
}

#[test]
fn an_engine_thread_that_fails_makes_outputs_safe_and_goes_on() {
    let board = Scripted::default();
    board.0.panics.store(1, Ordering::Relaxed);
    let driver = start(RELAY, &board);
    let levels = || board.0.driven.lock().unwrap().clone();
    // Safe at the start, high by the switch; after the failure safe, safe at the new start, and high again.
    let expected = [LOW, HIGH, LOW, LOW, HIGH];
    wait_for("the flow runs again", || levels() == expected);
    assert_eq!(driver.counters().panics.get(), 1);
    assert!(driver.stop().outputs_are_safe);
}

/// A switch on GPIO22 lets a fan on GPIO18 run at a quarter, whose safe level is high.
const FAN: &str = "[nodes.switch]\ntype = 'gpio in'\npin = 22\n\
    [nodes.speed]\ntype = 'range'\nfrom = 'switch'\nin = [0, 1]\nout = [0, 25]\n\
    [nodes.fan]\ntype = 'pwm out'\nfrom = 'speed'\npin = 18\nrange = [0, 100]\nsafe = 'high'";

#[test]
fn pulses_become_the_safe_level_at_the_stop_and_when_an_engine_thread_fails() {
    let quarter = Drive::with_duty(Duration::from_millis(10), 0.25);
    let board = Scripted::default();
    board.0.panics.store(1, Ordering::Relaxed);
    let driver = start(FAN, &board);
    let drives = || board.0.driven.lock().unwrap().clone();
    let expected = [HIGH, quarter, HIGH, HIGH, quarter];
    wait_for("the flow runs again", || drives() == expected);
    assert!(driver.stop().outputs_are_safe);
    assert_eq!(drives().last(), Some(&HIGH));
}

#[test]
fn pulses_that_fail_are_tried_again() {
    let quarter = Drive::with_duty(Duration::from_millis(10), 0.25);
    let board = Scripted::default();
    board.0.failures.store(3, Ordering::Relaxed);
    let driver = start(FAN, &board);
    wait_for("the pulses are driven at last", || {
        *board.0.driven.lock().unwrap() == [quarter]
    });
    assert!(driver.stop().outputs_are_safe);
}

#[test]
fn a_stop_does_not_wait_for_a_sensor_that_hangs() {
    let flow = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n[nodes.show]\ntype = 'debug'\nfrom = 'probe'";
    let driver = start(flow, &Scripted::default());
    let start = Instant::now();
    driver.stop();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_flows_want_to_deliver_without_an_outbox_is_given_back_at_the_stop() {
    let flow = "[nodes.switch]\ntype = 'gpio in'\npin = 22\n[nodes.up]\ntype = 'uplink'\nfrom = 'switch'\ntopic = 't'";
    let driver = start(flow, &Scripted::default());
    wait_for("the level is read", || {
        driver.counters().readings.get() == 1
    });
    let drafts = driver.stop().drafts;
    assert_eq!(
        drafts
            .iter()
            .map(|draft| &draft.payload[..])
            .collect::<Vec<_>>(),
        [b"1"]
    );
}

#[test]
fn links_lead_from_control_to_data_and_back() {
    let control = "[nodes.switch]\ntype = 'gpio in'\npin = 22\n[nodes.go]\ntype = 'link out'\nlink = 'there'\nfrom = 'switch'\n\
                   [nodes.come]\ntype = 'link in'\nlink = 'back'\n[nodes.relay]\ntype = 'gpio out'\nfrom = 'come'\npin = 17";
    let data = "[nodes.come]\ntype = 'link in'\nlink = 'there'\n[nodes.go]\ntype = 'link out'\nlink = 'back'\nfrom = 'come'";
    let board = Scripted::default();
    let driver = start_all(&[data, control], &board);
    wait_for("the relay follows the switch", || {
        *board.0.driven.lock().unwrap() == [Drive::Level(Level::Low), Drive::Level(Level::High)]
    });
    assert_eq!(driver.counters().links_dropped.get(), 0);
    assert!(driver.stop().outputs_are_safe);
}

/// A message every millisecond that goes round for ever.
const ROUND: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\n[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                     [nodes.round]\ntype = 'link out'\nlink = 'x'\nfrom = ['tick', 'come']\n";

#[test]
fn a_loop_of_links_leaves_edges_their_turn_and_does_not_hold_up_the_stop() {
    let board = Scripted::default();
    let driver = start(&format!("{ROUND}{RELAY}"), &board);
    let levels = || board.0.driven.lock().unwrap().clone();
    wait_for("the relay follows the switch", || {
        levels() == [Drive::Level(Level::Low), Drive::Level(Level::High)]
    });
    let mut round = driver.taps().watch("come").unwrap();
    for _ in 0..100 {
        assert!(next(&mut round).is_some());
    }
    let edges = board.0.edges.lock().unwrap().clone().unwrap();
    edges(Edge {
        pin: Pin::new(22).unwrap(),
        level: Level::Low,
        time: Clock::start().now().wall,
    });
    wait_for("the edge comes through", || levels().len() == 3);
    let counters = driver.counters().clone();
    driver.stop();
    assert!(
        counters.links_dropped.get() > 0,
        "what was going round at the stop is counted"
    );
}

#[test]
fn a_link_queue_that_is_full_drops_counts_and_fails() {
    let mut data = "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\n".to_owned();
    for number in 0..100 {
        data += &format!("[nodes.go{number}]\ntype = 'link out'\nlink = 'x'\nfrom = 'tick'\n");
    }
    let control = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n[nodes.relay]\ntype = 'gpio out'\nfrom = 'come'\npin = 17";
    let board = Scripted::default();
    let gate = board.0.gate.lock().unwrap();
    let driver = start_all(&[&data, control], &board);
    let counters = driver.counters().clone();
    wait_for("the queue is full", || counters.links_dropped.get() > 0);
    wait_for("it is a failure", || counters.failures.get() > 0);
    drop(gate);
    driver.stop();
}

pub(super) fn next(tap: &mut Tap) -> Option<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let next = async { tokio::time::timeout(Duration::from_secs(20), tap.next()).await };
    runtime.block_on(next).expect("something comes")
}

#[test]
fn a_tap_sees_what_a_node_sends_until_the_flows_stop() {
    let board = Scripted::default();
    let driver = start_all(&[RELAY, ROUND], &board);
    let mut tap = driver.taps().watch("tick").unwrap();
    let mut seen = || match next(&mut tap) {
        Some(Seen::Message { port, message }) => (port, message.topic.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(seen(), (0, "test/tick".to_owned()));
    assert_eq!(seen(), (0, "test/tick".to_owned()));

    let mut switch = driver.taps().watch("switch.out").unwrap();
    // The control engine starts anew, and the flow with it.
    board.0.panics.store(1, Ordering::Relaxed);
    assert!(matches!(next(&mut switch), Some(Seen::Message { .. })));
    driver.stop();
    assert_eq!(next(&mut switch), None);
}

#[test]
fn a_watcher_that_leaves_gives_its_place_back() {
    let driver = start(RELAY, &Scripted::default());
    let watch = || driver.taps().watch("switch");
    let held: Vec<Tap> = (0..16).map(|_| watch().unwrap()).collect();
    assert_eq!(watch().unwrap_err(), TapError::TooMany);
    drop(held);
    wait_for("the engine has noticed", || watch().is_ok());
}

/// Gives the routes away.
#[derive(Clone, Default)]
struct Routes(Arc<Mutex<Vec<subscribing::Route>>>);

impl subscribing::Subscriptions for Routes {
    fn set(&mut self, routes: Vec<subscribing::Route>) {
        *self.0.lock().unwrap() = routes;
    }
}

/// The broker may have been told that they were taken.
#[test]
fn what_a_broker_brought_before_a_stop_is_handled() {
    const NUMBER: usize = 200;
    let routes = Routes::default();
    let world = World {
        device: "d".into(),
        clock: Clock::start(),
        board: Box::new(Scripted::default()),
        outbox: LateOutbox::default(),
        states: States::default(),
        subscriptions: Box::new(routes.clone()),
        realtime: Realtime::default(),
    };
    let flow = "[nodes.hall]\ntype = 'mqtt in'\nbroker = 'hall'\ntopic = 'a'\nqos = 1\n[nodes.up]\ntype = 'uplink'\nfrom = 'hall'\ntopic = 'a'";
    let driver = Driver::start(vec![graph(flow)], world).unwrap();
    let route = routes.0.lock().unwrap()[0].clone();
    // They take longer to be read than to be brought.
    let payload = format!("[{}0]", "0,".repeat(2_000));
    for _ in 0..NUMBER {
        let message = Input::Message {
            time: Clock::start().now().wall,
            topic: "a".into(),
            payload: payload.clone().into(),
        };
        assert!(route.hand_over(message));
    }
    assert_eq!(driver.stop().drafts.len(), NUMBER);
}
