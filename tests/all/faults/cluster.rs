//! A cluster of three brokers that loses one node after another under load: Debian's nats-server, with JetStream behind its MQTT, so
//! that what a node acknowledges is on two of them (guarantee 6, and the fail-over between several `url`s).

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::cable::own_address;
use crate::support::mosquitto::Subscriber;
use crate::support::process::{Output, Running};
use crate::support::{Plant, until};

use super::{Accepted, Random, patiently, times};

/// The default of `inflight`: what may come again after a reconnect.
const INFLIGHT: u64 = 100;

struct Node {
    address: SocketAddr,
    config: std::path::PathBuf,
}

impl Node {
    /// Starts it; it can be connected to then.
    #[track_caller]
    fn start(&self) -> Running {
        let mut command = Command::new("nats-server");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .arg("-c")
            .arg(&self.config)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null());
        let mut running = Running::start(command, Output::Stderr);
        running.says(&["Listening for MQTT clients"]);
        running
    }
}

/// The settings of three nodes that know each other, with MQTT on addresses of their own. The names in the certificates are those
/// of all three.
fn nodes(plant: &Plant) -> Vec<Node> {
    let addresses = [own_address(), own_address(), own_address()];
    let names: Vec<String> = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    let server = plant.ca.issue_server(&names, super::valid()).unwrap();
    plant.write("nats.pem", &server.certificate_pem);
    plant.write("nats.key", &server.key_pem);
    let file = |name: &str| plant.path(name).display().to_string();
    let routes: Vec<String> = names
        .iter()
        .map(|ip| format!("\"nats://{ip}:6222\""))
        .collect();
    let node = |(number, address): (usize, &SocketAddr)| {
        let ip = address.ip();
        let config = format!(
            r#"server_name: "node-{number}"
listen: "{ip}:4222"
jetstream {{ store_dir: "{store}", max_mem: 64MB, max_file: 1GB }}
cluster {{ name: "cloud", listen: "{ip}:6222", routes: [{routes}] }}
mqtt {{
    listen: "{address}", stream_replicas: 3
    tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ca}", verify: true, timeout: 5 }}
}}
"#,
            store = file(&format!("nats-{number}")),
            routes = routes.join(", "),
            cert = file("nats.pem"),
            key = file("nats.key"),
            ca = plant.tls_file("ca.pem"),
        );
        let name = format!("nats-{number}.conf");
        plant.write(&name, &config);
        Node {
            address: *address,
            config: plant.path(&name),
        }
    };
    addresses.iter().enumerate().map(node).collect()
}

/// `NODES` times a node is killed while the device sends, and started again. The subscriber is at the node that stays.
#[test]
#[ignore = "needs nats-server: scripts/test.sh runs it"]
fn a_cluster_that_loses_nodes_gets_every_record_in_order() {
    let mut random = Random::seeded();
    let kills = times("NODES", 1);
    let plant = Plant::ticking();
    let nodes = nodes(&plant);
    let mut running: Vec<Running> = nodes.iter().map(Node::start).collect();
    for node in &mut running {
        // The one leads, the others follow.
        node.says(&["JetStream cluster"]);
    }
    let subscriber = Subscriber::with_session(nodes[0].address, &plant, "sites/#");
    let urls: Vec<String> = nodes[1..]
        .iter()
        .map(|node| format!("\"mqtts://{}\"", node.address))
        .collect();
    plant.settings_for(
        &format!("[{}]", urls.join(", ")),
        "[outbox]\ncommit = '200ms'\n[vars]\npace = '10ms'\n",
    );
    let device = plant.run();
    patiently("the cluster acknowledges", || {
        (plant.totals().get("acknowledged") > 200).then_some(())
    });
    for _ in 0..kills {
        // The moment of the fault.
        std::thread::sleep(random.millis(200, 1_500));
        let victim = 1 + random.below(2) as usize;
        let node = running.remove(victim);
        node.kill();
        let before = plant.totals();
        before.assert_balance();
        patiently(
            "what was accepted is acknowledged by those that are left",
            || (plant.totals().get("acknowledged") > before.get("accepted")).then_some(()),
        );
        running.insert(victim, nodes[victim].start());
        running[victim].says(&["JetStream cluster"]);
    }
    device.signal("TERM");
    let (status, log) = device.end();
    assert!(status.success());
    let connections = 1 + log.iter().filter(|line| line.contains("uplink up")).count() as u64;
    std::fs::remove_file(plant.path("flows/tick.toml")).unwrap();
    let device = plant.run();
    let totals = patiently("the outbox is empty", || {
        let totals = plant.totals();
        (totals.get("stored") + totals.get("pending") == 0).then_some(totals)
    });
    device.signal("TERM");
    assert!(device.end().0.success());
    totals.assert_balance();
    let accepted = totals.get("accepted");
    assert_eq!(totals.get("acknowledged"), accepted, "{totals:?}");

    let heard = until(
        "the subscriber has as many records as were accepted",
        || {
            let heard = subscriber.heard();
            (heard.records.len() as u64 >= accepted).then_some(heard)
        },
    );
    Accepted::default().assert_all_came(&heard);
    assert_eq!(heard.records.len() as u64, accepted);
    let duplicates = heard.duplicates();
    assert!(
        duplicates <= INFLIGHT * connections,
        "{duplicates} duplicates from {connections} connections"
    );
    println!(
        "PROVED {kills} cluster nodes killed under load: {accepted} records were accepted and came, in order, {duplicates} of them more \
         than once, over {connections} connections"
    );
}
