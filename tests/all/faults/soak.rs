//! Under load for a long time, memory and disk stay where they are (guarantee 10).

use std::time::{Duration, Instant};

use crate::support::Plant;

use super::{Accepted, Random, Site, times};

/// 500 readings a second, with JavaScript and nodes that keep something per topic behind them, and 550 records a second.
const LOAD: &str = r#"
[nodes.tick]
type = "inject"
every = "2ms"

[nodes.reading]
type = "function"
from = "tick"
code = "state.n = (state.n || 0) + 1; msg.topic = 's' + state.n % 50; msg.payload = Math.sin(state.n / 100) * 10; return msg;"

[nodes.smooth]
type = "smooth"
from = "reading"
factor = 0.1

[nodes.window]
type = "window"
from = "reading"
by = "topic"
size = "1s"
compute = ["count", "mean", "min", "max", "p95"]

[nodes.all]
type = "uplink"
from = "smooth"
topic = "sites/{device}/all"

[nodes.windows]
type = "uplink"
from = "window"
topic = "sites/{device}/windows"
"#;

/// `SOAK` seconds, while the link comes and goes.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn memory_and_disk_stay_flat_under_load() {
    let mut random = Random::seeded();
    let length = Duration::from_secs(times("SOAK", 30));
    let plant = Plant::new();
    plant.flow("load", LOAD);
    plant.settings("[outbox]\nmax_size = '64MiB'\n");
    let site = Site::with(plant);
    // It begins with an outage: what a store takes is part of warming up.
    let mut device = site.plant.run();
    let start = Instant::now();
    let mut samples: Vec<(u64, u64)> = Vec::new();
    let mut next_fault = length / 10;
    while start.elapsed() < length {
        // The measure of a soak is time itself.
        std::thread::sleep(Duration::from_secs(1));
        device.assert_runs();
        let totals = site.plant.totals();
        totals.assert_balance();
        samples.push((resident_kb(device.id()), totals.get("disk_bytes")));
        if start.elapsed() > next_fault {
            site.disturb(&mut random);
            next_fault += random.millis(2_000, 12_000);
        }
    }
    // The device warms up in the first fifth; the next two are what the last two are measured by.
    let part = |from: usize, to: usize| &samples[samples.len() * from / 5..samples.len() * to / 5];
    let most = |samples: &[(u64, u64)]| samples.iter().map(|(memory, _)| *memory).max().unwrap();
    let (earlier, later) = (most(part(1, 3)), most(part(3, 5)));
    let disk = samples.iter().map(|(_, disk)| *disk).max().unwrap();
    assert!(disk <= 64 * 1024 * 1024, "{disk} bytes on disk");
    // A tenth, and what one more thread or a fuller read-ahead takes.
    assert!(
        later <= earlier + earlier / 10 + 6 * 1024,
        "memory grew from {earlier} kB to {later} kB: {samples:?}"
    );
    device.signal("TERM");
    assert!(device.end().0.success());
    let (totals, heard) = site.drain();
    assert_eq!(totals.get("dropped"), 0, "{totals:?}");
    assert!(heard.records.len() > 1_000, "too little was tried");
    Accepted::default().assert_all_came(&heard);
    println!(
        "PROVED a soak of {} s: memory at most {earlier} kB in the second and third fifth, {later} kB in the last two; disk at most \
         {disk} bytes; {} records came, none was lost, {} came more than once",
        length.as_secs(),
        heard.records.len(),
        heard.duplicates()
    );
}

/// `VmRSS` of a process, in kB; proc(5).
fn resident_kb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
