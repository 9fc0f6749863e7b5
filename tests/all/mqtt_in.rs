//! `mqtt in`: messages from a broker that the plant already has, Debian's mosquitto without TLS.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::cable::own_address;
use crate::support::mosquitto::{Mosquitto, found, open_broker};
use crate::support::process::Running;
use crate::support::{Cable, Plant, until};

const FLOW: &str = r#"
[nodes.sensors]
type = "mqtt in"
broker = "hall"
topic = ["plant/+/temperature", "plant/door"]

[nodes.report]
type = "uplink"
from = "sensors"
topic = "sites/{device}/{topic}"
"#;

/// Control by messages that do not wait.
const DOOR: &str = r#"
[nodes.door]
type = "mqtt in"
broker = "hall"
topic = "plant/door"

[nodes.light]
type = "gpio out"
from = "door"
pin = 17
safe = "low"
"#;

fn publish(address: SocketAddr, topic: &str, payload: &str) {
    let mut command: Command = found("mosquitto_pub");
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.args([
        "-h", &ip, "-p", &port, "-q", "1", "-t", topic, "-m", payload,
    ]);
    assert!(command.status().unwrap().success());
}

/// Publishes each line.
fn publish_lines(address: SocketAddr, topic: &str, lines: &str) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut publishing = found("mosquitto_pub")
        .args(["-h", &ip, "-p", &port, "-q", "1", "-t", topic, "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = publishing.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(publishing.wait().unwrap().success());
}

/// Waits until the broker has confirmed a subscription: what came before is not sent.
fn until_subscribed(broker: &Running) {
    until("the subscription stands", || {
        let lines = broker.lines();
        let stands = lines
            .iter()
            .any(|line| line.contains("Sending SUBACK to press-7-flows"));
        stands.then_some(())
    });
}

/// With `when_full = "block"` twice of what the outbox holds waits at the broker of the plant, and nothing of it is lost.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn messages_wait_at_their_broker_while_the_outbox_is_nearly_full() {
    const NUMBER: u64 = 1_500;
    let plant = Plant::new();
    let hall = own_address();
    let flow = FLOW.replace(
        "[\"plant/+/temperature\", \"plant/door\"]",
        "\"plant/+/log\"\nqos = 1",
    );
    plant.flow("hall", &flow);
    plant.flow("door", DOOR);
    plant.settings(&format!(
        "[brokers.hall]\nurl = 'mqtt://{hall}'\n[log]\nlevel = 'debug'\n[outbox]\nmax_size = '8MiB'\ncommit = '100ms'\nwhen_full = 'block'\n"
    ));
    let broker = open_broker(&plant, hall, &["-v"]);
    let cable = Cable::lay(plant.address);
    let mut device = plant.run();
    device.says(&["broker `hall`", "connected"]);
    until_subscribed(&broker);
    let line = "0123456789".repeat(1_000) + "\n";
    publish_lines(hall, "plant/press/log", &line.repeat(NUMBER as usize));
    device.says(&["broker `hall`", "messages with QoS 1 wait there"]);
    // With QoS 0 nothing waits.
    publish(hall, "plant/door", "true");
    device.says(&["output", "pin=GPIO17", "drive=high"]);
    let totals = plant.totals();
    let taken = totals.get("accepted") + totals.get("pending");
    assert!(taken > 100 && taken < NUMBER / 2, "{totals:?}");

    let cloud = plant.cloud();
    cable.lead_to(cloud.address());
    device.says(&["broker `hall`", "no longer wait"]);
    let totals = plant.totals_with("all has come", |totals| {
        totals.get("acknowledged") == NUMBER
    });
    assert_eq!(totals.get("dropped"), 0, "{totals:?}");
    totals.assert_balance();
}

/// What waits at a broker, with the settings and the flow for it.
fn waiting_plant(hall: SocketAddr) -> Plant {
    let plant = Plant::new();
    let flow = FLOW.replace(
        "[\"plant/+/temperature\", \"plant/door\"]",
        "\"plant/+/log\"\nqos = 1",
    );
    plant.flow("hall", &flow);
    plant.settings(&format!(
        "[brokers.hall]\nurl = 'mqtt://{hall}'\n[outbox]\ncommit = '100ms'\nwhen_full = 'block'\n"
    ));
    plant
}

/// A stop is no removal of a filter, and what was acknowledged before it is handled.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn messages_wait_at_their_broker_while_tidegate_is_stopped() {
    const BURST: u64 = 600;
    const STOPPED: u64 = 200;
    let hall = own_address();
    let plant = waiting_plant(hall);
    let broker = open_broker(&plant, hall, &["-v"]);
    let device = plant.run();
    until_subscribed(&broker);
    // The stop comes in the midst of these.
    let burst: String = (0..BURST).map(|at| format!("{at}\n")).collect();
    publish_lines(hall, "plant/press/log", &burst);
    device.signal("TERM");
    let (status, _) = device.end();
    assert!(status.success());
    let later: String = (BURST..BURST + STOPPED)
        .map(|at| format!("{at}\n"))
        .collect();
    publish_lines(hall, "plant/press/log", &later);

    let cable = Cable::lay(plant.address);
    let cloud = Mosquitto::of(&plant);
    let _cloud = cloud.start();
    let subscriber = cloud.subscriber(&plant);
    cable.lead_to(cloud.address);
    let _device = plant.run();
    // Some may come twice: the broker may not have had our acknowledgement.
    let value = |payload: &str| {
        let json: serde_json::Value = serde_json::from_str(payload).unwrap();
        json["payload"].as_u64().unwrap()
    };
    until("all has come", || {
        let messages = subscriber.messages();
        let came: BTreeSet<u64> = messages.iter().map(|(_, payload)| value(payload)).collect();
        (came.len() as u64 == BURST + STOPPED).then_some(())
    });
}

/// What a node does not take it refuses in words; what cannot be read is said once, and the connection is left alone for a while.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_message_that_is_too_large_fails_and_lets_others_pass() {
    let hall = own_address();
    let plant = waiting_plant(hall);
    let broker = open_broker(&plant, hall, &["-v"]);
    let mut device = plant.run();
    until_subscribed(&broker);
    let publish_file = |bytes: usize| {
        plant.write("large", &"7".repeat(bytes));
        let (ip, port) = (hall.ip().to_string(), hall.port().to_string());
        let status = found("mosquitto_pub")
            .args(["-h", &ip, "-p", &port, "-q", "1", "-t", "plant/press/log"])
            .arg("-f")
            .arg(plant.path("large"))
            .status();
        assert!(status.unwrap().success());
    };
    publish_file(1024 * 1024 + 100);
    publish(hall, "plant/press/log", "1");
    device.says(&["sensors", "is longer than 1 MiB"]);
    plant.totals_with("the one behind it is there", |totals| {
        totals.get("accepted") + totals.get("pending") == 1
    });
    publish_file(16 * 1024 * 1024 + 100);
    device.says(&["broker `hall`", "16 MiB is the most", "press-7-flows-qos1"]);
}

/// The broker keeps the session, and the filter with it.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_filter_that_was_lost_without_a_connection_is_given_up_at_the_next_one() {
    let (hall, behind) = (own_address(), own_address());
    let plant = waiting_plant(hall);
    let broker = open_broker(&plant, behind, &["-v"]);
    let cable = Cable::lay(hall);
    cable.lead_to(behind);
    let mut device = plant.run();
    until_subscribed(&broker);
    cable.cut();
    device.says(&["broker `hall`", "tried again by itself"]);
    let flow = std::fs::read_to_string(plant.path("flows/hall.toml")).unwrap();
    plant.flow("hall", &flow.replace("plant/+/log", "plant/+/new"));
    device.says(&["flow `hall` was changed"]);
    cable.lead_to(behind);
    until("the old topic is given up", || {
        let lines = broker.lines();
        let is_given_up = lines
            .iter()
            .any(|line| line.contains("UNSUBSCRIBE from press-7-flows-qos1"));
        is_given_up.then_some(())
    });
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn messages_of_a_broker_go_up_also_after_it_was_away_and_after_a_change_of_the_flow() {
    let plant = Plant::new();
    let hall = own_address();
    plant.flow("hall", FLOW);
    plant.settings(&format!("[brokers.hall]\nurl = 'mqtt://{hall}'\n"));
    let mut device = plant.run();
    device.says(&["broker `hall`", &format!("at mqtt://{hall}"), "refused"]);
    let broker = open_broker(&plant, hall, &["-v"]);
    device.says(&["broker `hall`", "connected"]);
    let accepted = |number: u64| {
        plant.totals_with(&format!("{number} records are there"), |totals| {
            totals.get("accepted") + totals.get("pending") == number
        })
    };
    until_subscribed(&broker);
    publish(hall, "plant/s1/temperature", "{\"value\":21.5}");
    publish(hall, "plant/s1/humidity", "40");
    publish(hall, "plant/door", "OPEN");
    accepted(2);

    // Another broker at the same place, and one more topic.
    broker.kill();
    device.says(&["broker `hall`", "tried again by itself"]);
    let broker = open_broker(&plant, hall, &["-v"]);
    let asks = |running: &Running, filter: &str| {
        until(&format!("{filter} is subscribed to"), || {
            let lines = running.lines();
            let is_asked = lines
                .iter()
                .any(|line| line.contains(&format!("{filter} (QoS 0)")));
            is_asked.then_some(())
        });
    };
    asks(&broker, "plant/door");
    plant.flow("hall", &FLOW.replace("plant/door", "plant/+/humidity"));
    asks(&broker, "plant/+/humidity");
    until("the old topic is given up", || {
        let lines = broker.lines();
        let is_given_up = lines
            .iter()
            .any(|line| line.contains("UNSUBSCRIBE from press-7-flows"));
        is_given_up.then_some(())
    });
    publish(hall, "plant/door", "SHUT");
    publish(hall, "plant/s1/humidity", "40");
    accepted(3);
    device.assert_runs();
}
