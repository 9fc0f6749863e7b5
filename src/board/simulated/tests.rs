use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::message::Value;
use crate::nodes::Use;
use crate::runtime::clock::Clock;

fn pin(number: u8) -> Pin {
    Pin::new(number).unwrap()
}

fn at(seconds: f64) -> Now {
    let start = Now {
        mono: Duration::ZERO,
        wall: Timestamp::from_millis(1_800_000_000_000),
    };
    start.later(Duration::from_secs_f64(seconds))
}

fn board(settings: &str) -> Simulated {
    Simulated::new(&toml::from_str(settings).unwrap()).unwrap()
}

fn collecting() -> (EdgeSink, mpsc::Receiver<Edge>) {
    let (sender, receiver) = mpsc::channel();
    let sink: EdgeSink = Arc::new(move |edge| {
        // The test may be over.
        let _ = sender.send(edge);
    });
    (sink, receiver)
}

fn degc(sensor: &mut dyn Sensor, seconds: f64) -> f64 {
    sensor.read(at(seconds)).unwrap().as_number().unwrap()
}

/// The sensor of a node with these options.
fn sensor(options: &str) -> SensorSpec {
    let flow = format!("[nodes.it]\n{options}\n[nodes.show]\ntype = 'debug'\nfrom = 'it'");
    let graph = crate::nodes::testing::graph(&flow);
    let spec = graph.uses().find_map(|(_, used)| match used {
        Use::Sensor(spec) => Some(spec.clone()),
        _ => None,
    });
    spec.unwrap()
}

fn ds18b20() -> SensorSpec {
    sensor("type = 'ds18b20'\ndevice = '28-0316a2795aff'")
}

const SETTINGS: &str = r#"
    seed = 7
    cooling_pin = 17
    [inputs]
    5 = { kind = "pulses", hz = 12.0 }
    6 = { kind = "contact", closed_s = 9.0, open_s = 3.0 }
    7 = { kind = "level", high = true }
"#;

/// All edges of ten seconds, with the time advanced in steps of this many milliseconds.
fn edges_of_ten_seconds(step_ms: u32) -> Vec<Edge> {
    let mut board = board(SETTINGS);
    let (sink, edges) = collecting();
    board.advance(at(0.0));
    for number in [5, 6, 7] {
        board.input(pin(number), Pull::None, sink.clone()).unwrap();
    }
    for ms in (0..=10_000).step_by(step_ms as usize) {
        board.advance(at(f64::from(ms) / 1000.0));
    }
    edges.try_iter().collect()
}

#[test]
fn edges_come_in_order_and_do_not_depend_on_the_steps() {
    let edges = edges_of_ten_seconds(1);
    assert!(edges.is_sorted_by_key(|edge| edge.time));
    assert_eq!(edges.iter().filter(|edge| edge.pin == pin(5)).count(), 240);
    assert!(edges.iter().any(|edge| edge.pin == pin(6)));
    assert_eq!(edges_of_ten_seconds(1000), edges);
    assert_eq!(edges_of_ten_seconds(10_000), edges);
}

#[test]
fn a_long_step_of_time_loses_no_edge() {
    let mut board = board("inputs = { 5 = { kind = 'pulses', hz = 1000.0 } }");
    let (sink, edges) = collecting();
    board.input(pin(5), Pull::None, sink).unwrap();
    board.advance(at(60.0));
    assert_eq!(edges.try_iter().count(), 120_000);
}

#[test]
fn next_edge_leads_a_virtual_driver_from_edge_to_edge() {
    let mut board = board(SETTINGS);
    let (sink, edges) = collecting();
    assert_eq!(board.next_edge(), None, "nothing is armed");
    board.input(pin(5), Pull::None, sink).unwrap();
    for _ in 0..24 {
        let next = board.next_edge().unwrap();
        board.advance(at(next.as_secs_f64()));
        assert_eq!(edges.try_iter().count(), 1);
    }
    assert_eq!(board.next_edge().unwrap().as_millis(), 1041);
}

#[test]
fn arming_gives_the_level_of_that_moment() {
    let check = |number: u8, pull: Pull, seconds: f64, expected: bool| {
        let mut board = board(SETTINGS);
        board.advance(at(seconds));
        let level = board.input(pin(number), pull, collecting().0).unwrap();
        assert_eq!(level.is_high(), expected, "{number} at {seconds}");
    };
    check(5, Pull::None, 0.01, false);
    check(5, Pull::None, 0.05, true);
    check(6, Pull::None, 5.0, true);
    check(6, Pull::None, 11.0, false);
    check(7, Pull::Down, 0.0, true);
    check(8, Pull::None, 0.0, false);
    check(8, Pull::Up, 0.0, true);
}

#[test]
fn a_thermostat_closes_its_loop_through_the_board() {
    let mut board = board(SETTINGS);
    let outputs = board.outputs();
    let mut probe = board.sensor(&ds18b20()).unwrap();
    let mut switches = 0;
    let mut cooling = Level::Low;
    let mut coldest_and_warmest = (f64::MAX, f64::MIN);
    for second in 0..120 {
        let seconds = f64::from(second);
        board.advance(at(seconds));
        let degc = degc(&mut *probe, seconds);
        let wanted = match degc {
            _ if degc > 5.0 => Level::High,
            _ if degc < 3.0 => Level::Low,
            _ => cooling,
        };
        if wanted != cooling || second == 0 {
            board.output(pin(17), wanted.into()).unwrap();
            switches += 1;
            cooling = wanted;
        }
        assert_eq!(outputs.level(pin(17)), Some(cooling));
        let (coldest, warmest) = coldest_and_warmest;
        coldest_and_warmest = (degc.min(coldest), degc.max(warmest));
    }
    let (coldest, warmest) = coldest_and_warmest;
    assert!(switches > 4, "{switches}");
    assert!(coldest > 2.0 && warmest < 6.0, "{coldest} to {warmest}");
}

#[test]
fn readings_depend_on_seed_and_time_only() {
    let iio = |channel: &str| {
        sensor(&format!(
            "type = 'iio'\ndevice = 'any'\nchannel = '{channel}'"
        ))
    };
    let readings = |settings: &str, spec: &SensorSpec| -> Vec<Value> {
        let mut sensor = board(settings).sensor(spec).unwrap();
        (0..100_u8)
            .map(|i| sensor.read(at(f64::from(i) / 8.0)).unwrap())
            .collect()
    };
    let check = |spec: &SensorSpec, low: f64, high: f64| {
        let first = readings("seed = 1", spec);
        assert_eq!(first, readings("seed = 1", spec));
        assert_ne!(first, readings("seed = 2", spec));
        for value in first.iter().filter_map(Value::as_number) {
            assert!((low..=high).contains(&value), "{spec:?}: {value}");
        }
    };
    check(&ds18b20(), 4.0, 7.0);
    check(&iio("temp"), 4.0, 7.0);
    check(&iio("humidityrelative"), 60.0, 80.0);
    check(&iio("pressure"), 1005.0, 1021.0);
    check(&iio("voltage0"), 0.8, 2.5);
    check(&iio("accel_x"), -3.3, 3.3);
    check(&iio("accel_z"), 6.5, 13.2);

    let mut compass = board("").sensor(&iio("magn_x")).unwrap();
    let refused = compass.read(at(0.0)).unwrap_err();
    let refused = refused.trouble().to_string();
    assert!(refused.contains("has no `magn`"), "{refused}");
}

#[test]
fn outputs_can_be_read_back() {
    let mut board = board("");
    let outputs = board.outputs();
    assert_eq!(outputs.level(pin(4)), None);
    let pulses = Drive::with_duty(Duration::from_millis(10), 0.25);
    board.output(pin(4), Level::High.into()).unwrap();
    board.output(pin(18), pulses).unwrap();
    board.output(pin(27), Level::Low.into()).unwrap();
    let drives: Vec<_> = outputs.drives().into_iter().collect();
    let expected = [
        (pin(4), Level::High.into()),
        (pin(18), pulses),
        (pin(27), Level::Low.into()),
    ];
    assert_eq!(drives, expected);
    assert_eq!(outputs.level(pin(4)), Some(Level::High));
    assert_eq!(outputs.level(pin(18)), None, "neither high nor low");
}

#[test]
fn settings_are_refused_with_the_words_concerned() {
    let check = |settings: &str, expected: &str| {
        let error = match toml::from_str::<Simulation>(settings) {
            Ok(simulation) => Simulated::new(&simulation).err().unwrap().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{error}");
    };
    check("sede = 1", "sede");
    check("cooling_pin = 40", "`40` is not a pin");
    check("[inputs]\n28 = { kind = 'level' }", "`28` is not a pin");
    check(
        "[inputs]\n5 = { kind = 'pulses', hz = -1.0 }",
        "signal of GPIO5 cannot be: hz = -1",
    );
}

#[test]
fn the_settings_have_a_schema() {
    let schema = schemars::schema_for!(Simulation).to_value().to_string();
    for words in ["cooling_pin", "Rising edges in a second", "GPIO17"] {
        assert!(schema.contains(words), "{schema}");
    }
}

#[test]
fn under_real_time_edges_come_by_themselves_until_the_board_is_dropped() {
    let clock = Clock::start();
    let simulated = board("inputs = { 5 = { kind = 'pulses', hz = 500.0 } }");
    let mut board = RealTime::start(simulated, &clock).unwrap();
    let (sink, edges) = collecting();
    let before = clock.now().wall;
    let mut level = board.input(pin(5), Pull::None, sink).unwrap();
    let mut last = before;
    for _ in 0..50 {
        let edge = edges.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_ne!(edge.level, level);
        assert!(edge.time > last && edge.time <= clock.now().wall);
        (level, last) = (edge.level, edge.time);
    }
    board.output(pin(17), Level::High.into()).unwrap();
    assert_eq!(board.outputs().level(pin(17)), Some(Level::High));

    drop(board);
    // The thread is gone, and with it the sink: the channel ends.
    while edges.try_recv().is_ok() {}
    assert_eq!(edges.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn a_board_without_edges_stops_at_once() {
    let board = RealTime::start(board(""), &Clock::start()).unwrap();
    drop(board);
}
