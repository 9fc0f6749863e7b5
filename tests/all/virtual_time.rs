//! The example flows under virtual time: an hour of each, on the simulated board.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tidegate::board::{Level, Pin, Simulated, Simulation};
use tidegate::examples::FLOWS;
use tidegate::flow::{Graph, Site, Variables};
use tidegate::message::Timestamp;
use tidegate::runtime::{Trace, VirtualRun};

const HOUR: Duration = Duration::from_secs(3600);
/// 2026-11-22T00:00:00Z: the start of a minute.
const START: Timestamp = Timestamp::from_millis(1_795_305_600_000);

#[test]
fn an_hour_of_every_example_flow_goes_by_without_a_failure() {
    for (name, text) in FLOWS {
        let start = Instant::now();
        let trace = hour_of(&[(name, text)], 7);
        let took = start.elapsed();
        let faster = HOUR.as_secs_f64() / took.as_secs_f64();
        println!("{name}: an hour in {took:.1?}, {faster:.0} times as fast as real time");
        assert_eq!(trace.failures, [], "{name}");
        assert_eq!(trace.panics, [], "{name}");
        assert!(!trace.drafts.is_empty(), "{name} had nothing to report");
    }
}

#[test]
fn the_cold_store_reports_every_minute_and_is_kept_cold() {
    let trace = hour_of(&example("cold-store"), 7);
    let payloads = |topic: &str| -> Vec<Json> {
        let drafts = trace
            .drafts
            .iter()
            .filter(|(_, draft)| draft.topic == topic);
        drafts
            .map(|(_, draft)| serde_json::from_slice(&draft.payload).unwrap())
            .collect()
    };
    let minutes = payloads("sites/press-7/cold-store/temperature");
    let is_edge = |at: usize| at == 0 || at + 1 == minutes.len();
    assert!((59..=61).contains(&minutes.len()), "{}", minutes.len());
    for (at, minute) in minutes.iter().enumerate() {
        let number = |key: &str| minute[key].as_f64().unwrap();
        assert!(
            number("count") == 60.0 || is_edge(at),
            "minute {at}: {minute}"
        );
        assert!(
            number("min") <= number("mean") && number("mean") <= number("max"),
            "{minute}"
        );
        // It switches at 3 and 5 degC, within the second until the next reading and the sensor's noise.
        assert!(
            number("min") > 2.0 && number("max") < 6.0,
            "minute {at}: {minute}"
        );
    }

    let compressor = Pin::new(17).unwrap();
    let levels: Vec<Level> = trace
        .outputs
        .iter()
        .filter(|(_, pin, _)| *pin == compressor)
        .filter_map(|(_, _, drive)| drive.level())
        .collect();
    let switched_on = levels.iter().filter(|level| **level == Level::High).count();
    assert!(
        (30..=240).contains(&switched_on),
        "in an hour it came on {switched_on} times"
    );
    let mut changed = levels.clone();
    changed.dedup();
    assert!(
        levels.len() - changed.len() <= 1,
        "only the stop may say low twice"
    );
    assert_eq!(levels.first(), Some(&Level::Low), "safe at the start");
    assert_eq!(levels.last(), Some(&Level::Low), "safe at the stop");
    let log_book = payloads("sites/press-7/cold-store/compressor");
    assert!(
        log_book.windows(2).all(|pair| pair[0] != pair[1]),
        "{log_book:?}"
    );
    assert_eq!(
        log_book
            .iter()
            .filter(|on| **on == Json::Bool(true))
            .count(),
        switched_on
    );
}

#[test]
fn pulses_from_a_pid_hold_the_cold_store_where_it_is_wanted() {
    let flow = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n\
                [nodes.cooler]\ntype = 'pid'\nfrom = 'probe'\naction = 'direct'\n\
                setpoint = 4.0\nkp = 0.2\nki = 0.01\n\
                [nodes.compressor]\ntype = 'pwm out'\nfrom = 'cooler'\npin = 17\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'probe'";
    let trace = hour_of(&[("cold-store", flow)], 7);
    assert_eq!(trace.failures, []);
    let settled = &trace.shown[600..];
    let degc = settled
        .iter()
        .map(|(_, _, message)| message.payload.as_number().unwrap());
    for degc in degc {
        assert!((3.7..=4.3).contains(&degc), "{degc}");
    }
    // At 4 degC 8/60 of a degree comes in each second without cooling, and 6/20 go out with it.
    let (_, compressor, safe) = trace.outputs.last().unwrap();
    assert_eq!(
        (*compressor, *safe),
        (Pin::new(17).unwrap(), Level::Low.into())
    );
    let duties = trace.outputs[600..trace.outputs.len() - 1]
        .iter()
        .map(|(_, _, drive)| drive.duty());
    let mean = duties.clone().sum::<f64>() / duties.count() as f64;
    let expected = (8.0 / 60.0) / (8.0 / 60.0 + 6.0 / 20.0);
    assert!((mean - expected).abs() < 0.02, "{mean}, not {expected}");
}

#[test]
fn the_same_seed_gives_the_same_hour() {
    let of_seed = |seed| hour_of(FLOWS, seed);
    let (first, again, other) = (of_seed(7), of_seed(7), of_seed(8));
    assert!(first == again, "two runs with one seed differ");
    assert!(first != other, "the seed has no effect");
}

fn example(name: &str) -> Vec<(&'static str, &'static str)> {
    let of_name = FLOWS.iter().filter(|(known, _)| *known == name);
    of_name.copied().collect()
}

/// Runs flows for an hour, and stops them.
fn hour_of(flows: &[(&str, &str)], seed: u64) -> Trace {
    // The simulated store warms in a minute, so its compressor cannot rest for three.
    let variables = Variables {
        values: [("rest".to_owned(), "1ms".into())].into(),
        ..Variables::default()
    };
    let site = Site::from_texts(flows.iter().copied(), |_| variables.clone());
    assert!(!site.has_errors(), "{:?}", site.diagnostics);
    let flows: Vec<Arc<Graph>> = site.flows;
    let simulation: Simulation = toml::from_str(&format!(
        "seed = {seed}\ncooling_pin = 17\ninputs.27 = {{ kind = 'pulses', hz = 12.0 }}\n\
         inputs.22 = {{ kind = 'contact', closed_s = 40.0, open_s = 20.0 }}\n\
         inputs.23 = {{ kind = 'pulses', hz = 1.0 }}\ninputs.6 = {{ kind = 'pulses', hz = 4.0 }}\n\
         inputs.26 = {{ kind = 'contact', closed_s = 1.0, open_s = 120.0 }}\n"
    ))
    .unwrap();
    let board = Simulated::new(&simulation).unwrap();
    let mut run = VirtualRun::start("press-7", flows, board, START).unwrap();
    run.run_for(HOUR);
    run.stop()
}
