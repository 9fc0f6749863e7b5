//! `mqtt in`: messages from a broker that the plant already has, Debian's mosquitto without TLS.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::cable::own_address;
use crate::support::mosquitto::found;
use crate::support::process::{Output, Running};
use crate::support::{Plant, until};

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

/// A mosquitto for everyone, as many a plant has it.
fn open_broker(plant: &Plant, address: SocketAddr) -> Running {
    let (ip, port) = (address.ip(), address.port());
    plant.write(
        "hall.conf",
        &format!("user root\nlistener {port} {ip}\nallow_anonymous true\npersistence false\n"),
    );
    let mut command = found("mosquitto");
    command.arg("-v").arg("-c").arg(plant.path("hall.conf"));
    let mut running = Running::start(command, Output::Stderr);
    running.says(&["mosquitto version", "running"]);
    running
}

fn publish(address: SocketAddr, topic: &str, payload: &str) {
    let mut command: Command = found("mosquitto_pub");
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.args([
        "-h", &ip, "-p", &port, "-q", "1", "-t", topic, "-m", payload,
    ]);
    assert!(command.status().unwrap().success());
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn messages_of_a_broker_go_up_also_after_it_was_away_and_after_a_change_of_the_flow() {
    let plant = Plant::new();
    let hall = own_address();
    plant.flow("hall", FLOW);
    plant.settings(&format!("[brokers.hall]\nurl = 'mqtt://{hall}'\n"));
    let mut device = plant.run();
    device.says(&["broker `hall`", "refused"]);
    let broker = open_broker(&plant, hall);
    device.says(&["broker `hall`", "connected"]);
    let accepted = |number: u64| {
        plant.totals_with(&format!("{number} records are there"), |totals| {
            totals.get("accepted") + totals.get("pending") == number
        })
    };
    // Once it has subscribed: what comes before is none of its own.
    until("the subscription stands", || {
        let lines = broker.lines();
        let stands = lines
            .iter()
            .any(|line| line.contains("Sending SUBACK to press-7-flows"));
        stands.then_some(())
    });
    publish(hall, "plant/s1/temperature", "{\"value\":21.5}");
    publish(hall, "plant/s1/humidity", "40");
    publish(hall, "plant/door", "OPEN");
    accepted(2);

    // Another broker at the same place, and one more topic.
    broker.kill();
    device.says(&["broker `hall`", "tried again by itself"]);
    let broker = open_broker(&plant, hall);
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
