//! A disk that runs full: what is there stays, flows go on, the policy applies and is counted, and the work resumes by itself
//! (guarantee 4).

use crate::support::Plant;

use super::disk::Disk;
use super::{Accepted, Site, patiently};

#[test]
#[ignore = "needs mosquitto and root: scripts/test.sh runs it"]
fn a_full_disk_costs_what_the_policy_says_and_nothing_else() {
    let plant = Plant::ticking();
    plant.settings(
        "[outbox]\npath = 'disk/outbox'\ncommit = '100ms'\nmax_size = '8MiB'\n[vars]\npace = '1ms'\n",
    );
    let disk = Disk::new(plant.directory(), 16);
    let site = Site::with(plant);
    let mut device = site.plant.run();
    let before = site
        .plant
        .totals_with("some are stored", |totals| totals.get("stored") > 1_000);

    disk.fill();
    device.says(&["outbox", "free some space on this disk"]);
    let full = site.plant.totals_with("records wait in memory", |totals| {
        totals.get("pending") > 2_000
    });
    full.assert_balance();
    assert!(
        full.get("stored") >= before.get("stored"),
        "{before:?}, {full:?}"
    );

    // Also a start finds its way on a full disk.
    device.signal("TERM");
    assert!(device.end().0.success());
    let mut device = site.plant.run_unawaited();
    device.says(&["outbox"]);
    disk.make_room();
    device.says(&["outbox: start"]);
    let resumed = patiently("writing works again", || {
        let totals = site.plant.totals();
        (totals.get("stored") > full.get("stored") + 500).then_some(totals)
    });
    resumed.assert_balance();
    assert_eq!(resumed.get("damaged"), 0, "{resumed:?}");
    device.signal("TERM");
    assert!(device.end().0.success());

    let (totals, heard) = site.drain();
    Accepted::default().assert_all_came(&heard);
    let came = heard.records.len() as u64;
    assert_eq!(totals.get("acknowledged"), came, "{totals:?}");
    assert_eq!(
        totals.get("dropped"),
        totals.get("dropped_overflow_disk"),
        "{totals:?}"
    );
    println!("PROVED a full disk: {came} records came, {totals:?}");
}
