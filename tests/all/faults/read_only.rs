//! A disk that becomes read-only under load: flows, control and the link go on, nothing that was accepted is lost, and once the disk
//! is mended the work resumes by itself (guarantee 4).

use crate::support::process::Ended;
use crate::support::{Plant, Totals, until};

use super::disk::Disk;
use super::{Accepted, Random, Site, times};

/// A flow that drives a pin, and so runs on the engine for control; it says in records that it does.
const CONTROL: &str = r#"
[vars]
pace = "20ms"

[nodes.beat]
type = "inject"
every = "${pace}"
payload = true

[nodes.valve]
type = "gpio out"
from = "beat"
pin = 17
safe = "low"

[nodes.report]
type = "uplink"
from = "beat"
topic = "sites/{device}/control"
"#;

/// What the device counts beside a disk that takes nothing.
fn totals_on_broken_disk(plant: &Plant) -> Totals {
    let totals = plant.totals();
    totals.assert_balance();
    assert_eq!(
        (totals.get("panics"), totals.get("output_errors")),
        (0, 0),
        "{totals:?}"
    );
    totals
}

/// `READONLY` times the kernel takes no more writes, with the link cut or up; the device is stopped or killed, started on the disk as
/// it is, and sees it mended.
#[test]
#[ignore = "needs mosquitto and root: scripts/test.sh runs it"]
fn a_disk_that_becomes_read_only_costs_nothing_that_was_accepted() {
    let mut random = Random::seeded();
    let rounds = times("READONLY", 2);
    let plant = Plant::ticking();
    plant.flow("control", CONTROL);
    plant.settings(
        "[outbox]\npath = 'disk/outbox'\ncommit = '100ms'\n[state]\npath = 'disk/state'\nevery = '1s'\n[vars]\npace = '4ms'\n",
    );
    let disk = Disk::new(plant.directory(), 64);
    let site = Site::with(plant);
    let mut accepted = Accepted::default();
    for round in 0..rounds {
        let at_rest = (round > 0).then(|| site.plant.totals());
        let mut device = site.plant.run();
        let stored = site.plant.totals();
        let before = site.plant.totals_with("some are stored", |totals| {
            totals.get("stored") > stored.get("stored") + 200
        });

        disk.become_read_only();
        device.says(&["outbox", "Read-only file system"]);
        // The flows go on, and so does the link; what is asked beside the process is answered.
        if (round + random.below(2)).is_multiple_of(2) {
            site.cable.lead_to(site.broker.address);
            until(
                "what waits is delivered from a disk that is only read",
                || {
                    let now = totals_on_broken_disk(&site.plant);
                    (now.get("acknowledged") > before.get("accepted") + 200).then_some(())
                },
            );
            site.cable.cut();
        }
        let pending = until("records wait in memory", || {
            let now = totals_on_broken_disk(&site.plant);
            (now.get("pending") > 500 && now.get("state_errors") > 0).then_some(now)
        });
        assert_eq!(pending.get("dropped"), 0, "{pending:?}");
        if let Some(at_rest) = &at_rest {
            accepted.saw(at_rest, &pending);
        }
        if random.below(2) == 0 {
            device.signal("TERM");
            let (status, log) = device.end();
            assert!(status.success());
            let lost = log.iter().any(|line| line.contains("are lost"));
            assert!(lost, "what it could not write is said: {log:#?}");
        } else {
            device.kill();
        }

        // The same disk at the next start.
        let mut device = site.plant.run_unawaited();
        device.says(&["read-only", "tried again"]);
        let shown = Ended::of(site.plant.command(&["outbox", "show"]));
        assert!(
            shown.code == Some(1) && shown.stderr.contains("read-only"),
            "{shown:#?}"
        );
        device.assert_runs();
        disk.mend();
        device.says(&["outbox: start"]);
        let after = site
            .plant
            .totals_with("what waited in memory is stored", |totals| {
                totals.get("stored") > 200 && totals.get("pending") < 100
            });
        after.assert_balance();
        assert_eq!(
            (after.get("dropped"), after.get("damaged")),
            (0, 0),
            "{after:?}"
        );
        assert_eq!(after.get("dropped_before_outbox"), 0, "{after:?}");
        device.signal("TERM");
        assert!(device.end().0.success());
    }
    let (totals, heard) = site.drain();
    assert_eq!(
        (totals.get("dropped"), totals.get("damaged")),
        (0, 0),
        "{totals:?}"
    );
    accepted.assert_all_came(&heard);
    for topic in ["tick", "control"] {
        let came = heard.topics.get(&format!("sites/press-7/{topic}"));
        assert!(came > Some(&(200 * rounds)), "{topic}: {came:?}");
    }
    println!(
        "PROVED a disk that became read-only {rounds} times: {} records came, {} of them more than once; {} were seen to be accepted just \
         before a stop, and none of them was lost",
        heard.records.len(),
        heard.duplicates(),
        accepted.records(),
    );
}
