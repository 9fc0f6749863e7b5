//! Links that fall silent without a word, crawl, or lose their broker (guarantees 6 and 7): a network namespace with a broker in
//! it, and a virtual cable to it that is really pulled.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::Plant;
use crate::support::mosquitto::Mosquitto;
use crate::support::process::{as_root, done};

use super::{Accepted, Random, patiently, times};

/// The default of `inflight`: what may come again after a reconnect.
const INFLIGHT: u64 = 100;

/// A network namespace, with a pair of virtual network cards that leads to it.
struct Namespace {
    name: String,
    near: String,
    far: String,
    /// What is inside.
    address: SocketAddr,
}

impl Namespace {
    fn new() -> Namespace {
        let number = std::process::id() % 16_384;
        let subnet = format!("10.{}.{}", 192 + number / 256, number % 256);
        let namespace = Namespace {
            name: format!("tidegate-{number}"),
            near: format!("tg{number}a"),
            far: format!("tg{number}b"),
            address: format!("{subnet}.2:8883").parse().unwrap(),
        };
        let Namespace {
            name, near, far, ..
        } = &namespace;
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", near, "type", "veth", "peer", "name", far, "netns", name,
        ]);
        ip(&["address", "add", &format!("{subnet}.1/24"), "dev", near]);
        ip(&["link", "set", near, "up"]);
        ip(&[
            "-n",
            name,
            "address",
            "add",
            &format!("{subnet}.2/24"),
            "dev",
            far,
        ]);
        ip(&["-n", name, "link", "set", far, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        namespace
    }

    /// Pulls the far end of the cable, or plugs it in again. Nobody is told: what is sent is lost, until it is sent again.
    fn plug(&self, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        ip(&["-n", &self.name, "link", "set", &self.far, state]);
    }

    /// What the device sends goes at no more than this rate, if any; tbf(8).
    fn limit(&self, rate: Option<&str>) {
        let mut tc = as_root("tc");
        match rate {
            Some(rate) => {
                tc.args([
                    "qdisc", "replace", "dev", &self.near, "root", "tbf", "rate", rate,
                ])
                .args(["burst", "4kb", "latency", "400ms"]);
            }
            None => {
                // Without one there is an error, which is as good.
                let delete = tc.args(["qdisc", "del", "dev", &self.near, "root"]);
                let _ = delete.stderr(std::process::Stdio::null()).status();
                return;
            }
        }
        done(&mut tc);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut delete: Command = as_root("ip");
        let _ = delete.args(["netns", "delete", &self.name]).status();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    done(as_root("ip").args(arguments));
}

/// `LINKS` faults, one after another, while the device measures on.
#[test]
#[ignore = "needs mosquitto and root: scripts/test.sh runs it"]
fn whatever_becomes_of_the_link_every_record_comes_in_order() {
    let mut random = Random::seeded();
    let faults = times("LINKS", 6);
    let namespace = Namespace::new();
    let mut plant = Plant::ticking();
    plant.address = namespace.address;
    plant.settings("[outbox]\ncommit = '200ms'\n[vars]\npace = '2ms'\n");
    let mosquitto = Mosquitto::in_namespace(&plant, namespace.address, &namespace.name);
    let mut broker = mosquitto.start();
    let mut heard_before = crate::support::mosquitto::Heard::default();
    let mut subscriber = mosquitto.subscriber(&plant);
    let device = plant.run();
    let mut counts = [0; 4];
    for _ in 0..faults {
        let fault = random.below(4) as usize;
        counts[fault] += 1;
        match fault {
            // Short enough for TCP to mend it, or long enough for the device to leave.
            0 => {
                namespace.plug(false);
                std::thread::sleep(random.millis(100, 7_000));
                namespace.plug(true);
            }
            1 => {
                namespace.limit(Some("64kbit"));
                std::thread::sleep(random.millis(500, 4_000));
                namespace.limit(None);
            }
            2 => {
                namespace.plug(false);
                broker.kill();
                heard_before = heard_before.and(subscriber.after_its_broker());
                broker = mosquitto.start();
                subscriber = mosquitto.subscriber(&plant);
                namespace.plug(true);
            }
            // Several short ones in a row.
            _ => {
                for _ in 0..5 {
                    namespace.plug(false);
                    std::thread::sleep(random.millis(10, 300));
                    namespace.plug(true);
                    std::thread::sleep(random.millis(10, 300));
                }
            }
        }
        let before = plant.totals();
        before.assert_balance();
        patiently("what was accepted before is delivered", || {
            let now = plant.totals();
            (now.get("acknowledged") >= before.get("accepted")).then_some(())
        });
    }
    device.signal("TERM");
    let (status, log) = device.end();
    assert!(status.success());
    let connections = 1 + log.iter().filter(|line| line.contains("uplink up")).count() as u64;
    std::fs::remove_file(plant.path("flows/tick.toml")).unwrap();
    let device = plant.run();
    let totals = plant.totals_with("the outbox is empty", |totals| {
        totals.get("stored") + totals.get("pending") == 0
    });
    device.signal("TERM");
    assert!(device.end().0.success());
    totals.assert_balance();
    broker.kill();
    let heard = heard_before.and(subscriber.after_its_broker());

    Accepted::default().assert_all_came(&heard);
    let came = heard.records.len() as u64;
    assert_eq!(totals.get("acknowledged"), came, "{totals:?}");
    assert_eq!(totals.get("accepted"), came, "{totals:?}");
    let duplicates = heard.duplicates();
    assert!(
        duplicates <= INFLIGHT * connections,
        "{duplicates} duplicates from {connections} connections"
    );
    let [silences, slow, restarts, flaps] = counts;
    println!(
        "PROVED {silences} silent links, {slow} slow ones, {restarts} killed brokers, {flaps} flapping cables: {came} records came, all \
         that were accepted, in order, {duplicates} of them more than once, over {connections} connections"
    );
}
