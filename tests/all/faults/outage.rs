//! The case that others lose: many sensors publish to the plant's broker, windows and alarms go to the cloud's, and that is away for a
//! while; once more, with SIGKILL in the midst of it.
//!
//! Each sensor counts, so that what a window or an alarm stands for can be told from its numbers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{Client, MqttOptions, QoS};
use serde_json::Value as Json;

use crate::support::cable::own_address;
use crate::support::mosquitto::open_broker;
use crate::support::process::Running;
use crate::support::{Plant, until};

use super::{Site, times};

const SENSORS: u64 = 500;
/// Between two readings of a sensor.
const TICK: Duration = Duration::from_millis(100);
/// Readings in a window.
const WINDOW: u64 = 60;

const FLOW: &str = r#"
[nodes.sensors]
type = "mqtt in"
broker = "hall"
topic = "plant/+/reading"

[nodes.alarms]
type = "where"
from = "sensors"
when = "payload % 100 == 37"

[nodes.alarm]
type = "uplink"
from = "alarms"
topic = "alarms/{topic}"
priority = "high"

[nodes.windows]
type = "window"
from = "sensors"
by = "topic"
kind = "count"
count = 60
compute = ["count", "min", "max"]

[nodes.report]
type = "uplink"
from = "windows"
topic = "windows"
"#;

fn is_alarm(reading: u64) -> bool {
    reading % 100 == 37
}

/// What the sensors have sent: when each of their readings, the first of which is 1, began to go out.
struct Sensors(JoinHandle<Vec<Instant>>);

impl Sensors {
    /// All of them publish with QoS 0 for so long, one after another within a tick.
    fn publish(hall: SocketAddr, length: Duration) -> Sensors {
        const AT_ONCE: u64 = 50;
        let mut options = MqttOptions::new("sensors", hall.ip().to_string(), hall.port());
        options.set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, SENSORS as usize * 4);
        // It ends with the client.
        std::thread::spawn(move || while connection.iter().any(|event| event.is_err()) {});
        Sensors(std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = Vec::new();
            for reading in 1.. {
                let due = start + TICK * sent.len() as u32;
                if due - start >= length {
                    break;
                }
                for first in (0..SENSORS).step_by(AT_ONCE as usize) {
                    let due = due + TICK * first as u32 / SENSORS as u32;
                    // The pace of the readings is what is set up here.
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if first == 0 {
                        sent.push(Instant::now());
                    }
                    for sensor in first..first + AT_ONCE {
                        let topic = format!("plant/{sensor}/reading");
                        let payload = reading.to_string();
                        client
                            .publish(topic, QoS::AtMostOnce, false, payload)
                            .unwrap();
                    }
                }
            }
            client.disconnect().unwrap();
            sent
        }))
    }
}

/// What has come of one sensor.
#[derive(Default)]
struct Came {
    alarms: BTreeSet<u64>,
    /// By first and last reading; whether one said that it had been restored.
    windows: BTreeMap<(u64, u64), bool>,
}

/// What is missing, and what came besides.
#[derive(Debug, Default)]
struct Verdict {
    alarms: u64,
    lost_alarms: u64,
    readings: u64,
    /// In no window, though in none that was still open.
    lost_readings: u64,
    open_readings: u64,
    repeated_windows: u64,
}

/// Judges what came of each sensor's `readings`: nothing may be missing, twice or wrong but for those in `spoilt`.
fn judge(came: &BTreeMap<String, Came>, readings: u64, spoilt: &Range<u64>) -> Verdict {
    let mut verdict = Verdict::default();
    assert_eq!(came.len() as u64, SENSORS, "all sensors were heard");
    for (sensor, came) in came {
        for reading in (1..=readings).filter(|it| is_alarm(*it)) {
            verdict.alarms += 1;
            if !came.alarms.contains(&reading) {
                assert!(
                    spoilt.contains(&reading),
                    "alarm {reading} of {sensor} is lost"
                );
                verdict.lost_alarms += 1;
            }
        }
        verdict.readings += readings;
        let mut next = 1;
        for ((first, last), is_restored) in &came.windows {
            let what = format!("{first} to {last} of {sensor}, and {next} is next");
            let is_near = *first < spoilt.end + WINDOW && *last >= spoilt.start;
            let missing = (last + 1 - first).saturating_sub(WINDOW);
            assert!(last + 1 - first >= WINDOW, "twice in a window: {what}");
            if missing > 0 || *first != next {
                assert!(is_near, "{what}");
            }
            if *first < next {
                assert!(is_restored, "not marked: {what}");
                verdict.repeated_windows += 1;
            }
            verdict.lost_readings += missing + first.saturating_sub(next);
            next = next.max(last + 1);
        }
        assert!(
            readings + 1 - next < WINDOW,
            "windows of {sensor} end before {next}"
        );
        verdict.open_readings += readings + 1 - next;
    }
    verdict
}

/// What the subscriber has heard, by sensor; how many records came more than once.
fn sort(messages: Vec<(String, String)>) -> (BTreeMap<String, Came>, usize) {
    let mut came = BTreeMap::<String, Came>::new();
    let mut ids = BTreeSet::new();
    let number = messages.len();
    for (topic, text) in messages {
        let record: Json = serde_json::from_str(&text).unwrap();
        ids.insert((record["epoch"].as_u64(), record["seq"].as_u64()));
        let payload = &record["payload"];
        let integer = |name: &str| payload[name].as_f64().unwrap() as u64;
        match topic.strip_prefix("alarms/") {
            Some(sensor) => {
                let alarms = &mut came.entry(sensor.to_owned()).or_default().alarms;
                alarms.insert(payload.as_f64().unwrap() as u64);
            }
            None => {
                assert_eq!((topic.as_str(), integer("count")), ("windows", WINDOW));
                let sensor = payload["key"].as_str().unwrap();
                let windows = &mut came.entry(sensor.to_owned()).or_default().windows;
                let is_restored = payload["restored"] == true;
                let (first, last) = (integer("min"), integer("max"));
                *windows.entry((first, last)).or_default() |= is_restored;
            }
        }
    }
    (came, number - ids.len())
}

struct Outage {
    site: Site,
    hall: Running,
    sensors: Sensors,
    device: Option<Running>,
    length: Duration,
    start: Instant,
}

impl Outage {
    fn begin() -> Outage {
        let length = Duration::from_secs(times("OUTAGE", 6));
        let around = around(length);
        let plant = Plant::new();
        let hall_address = own_address();
        plant.flow("plant", FLOW);
        plant.settings(&format!(
            "[brokers.hall]\nurl = 'mqtt://{hall_address}'\n[state]\nevery = '1s'\n"
        ));
        let hall = open_broker(&plant, hall_address, &[]);
        let site = Site::with(plant);
        site.cable.lead_to(site.broker.address);
        let device = site.plant.run();
        until_subscribed(&hall, 1);
        let sensors = Sensors::publish(hall_address, length + 2 * around);
        let start = Instant::now();
        wait(around);
        site.cable.cut();
        Outage {
            site,
            hall,
            sensors,
            device: Some(device),
            length,
            start,
        }
    }

    /// Brings the link back, and waits for the end. `spoilt` is between which moments readings may be lost.
    fn end(self, spoilt: Option<(Instant, Instant)>) {
        let over = self.start + around(self.length) + self.length;
        wait(over.saturating_duration_since(Instant::now()));
        self.site.cable.lead_to(self.site.broker.address);
        let sent = self.sensors.0.join().unwrap();
        let readings = sent.len() as u64;
        if spoilt.is_none() {
            self.site
                .plant
                .totals_with("all that was sent is read", |totals| {
                    totals.get("readings") == readings * SENSORS
                });
        }
        let mut device = self.device.expect("it runs");
        device.assert_runs();
        device.signal("TERM");
        assert!(device.end().0.success());
        let (totals, messages) = self.site.drain_messages();
        drop(self.hall);
        assert_eq!(totals.get("dropped"), 0, "{totals:?}");
        // The reading that was on its way at a moment.
        let at = |moment: Instant| sent.partition_point(|sent| *sent <= moment) as u64;
        let spoilt = spoilt.map_or(0..0, |(from, to)| at(from)..at(to) + 2);
        let (came, repeated) = sort(messages);
        let verdict = judge(&came, readings, &spoilt);
        println!(
            "PROVED an outage of {} s at {} readings a second{}: of {} alarms {} are lost, of {} readings {} are in no window and {} in windows \
             that were still open; {} windows came again, marked; {repeated} records came more than once",
            self.length.as_secs(),
            SENSORS * 1_000 / TICK.as_millis() as u64,
            if spoilt.is_empty() {
                ""
            } else {
                " with SIGKILL half way"
            },
            verdict.alarms,
            verdict.lost_alarms,
            verdict.readings,
            verdict.lost_readings,
            verdict.open_readings,
            verdict.repeated_windows,
        );
    }
}

/// How long the link is up before an outage, and after it.
fn around(outage: Duration) -> Duration {
    outage / 4 + Duration::from_secs(2)
}

/// The length of an outage is what is set up here.
fn wait(length: Duration) {
    std::thread::sleep(length);
}

fn until_subscribed(hall: &Running, times: usize) {
    until("the subscription stands", || {
        let lines = hall.lines();
        let answers = lines
            .iter()
            .filter(|line| line.contains("press-7-flows 0 plant/+/reading"));
        (answers.count() >= times).then_some(())
    });
}

/// `OUTAGE` seconds without the cloud.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn an_outage_of_the_cloud_loses_no_reading() {
    Outage::begin().end(None);
}

/// What may be lost with the process: what came since the last checkpoint, and the last commit, until it subscribes again.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn an_outage_with_sigkill_loses_what_was_not_written_yet_and_no_more() {
    let mut outage = Outage::begin();
    wait(outage.length / 2);
    let unwritten = Instant::now() - Duration::from_millis(2_500);
    outage.device.take().expect("it runs").kill();
    outage.device = Some(outage.site.plant.run());
    until_subscribed(&outage.hall, 2);
    let again = Instant::now() + TICK;
    outage.end(Some((unwritten, again)));
}
