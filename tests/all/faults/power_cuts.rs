//! A power cut, with unsynced writes lost, loses no accepted record (guarantee 3).

use crate::support::Plant;

use super::disk::Disk;
use super::{Accepted, Random, Site, times};

/// `CUTS` power cuts at random moments, with the link up, cut, silent, or without answers.
#[test]
#[ignore = "needs mosquitto and root: scripts/test.sh runs it"]
fn power_cuts_lose_no_accepted_record() {
    let mut random = Random::seeded();
    let cuts = times("CUTS", 8);
    let plant = Plant::ticking();
    plant.settings(
        "[outbox]\npath = 'disk/outbox'\ncommit = '100ms'\nmax_size = '32MiB'\n[state]\npath = 'disk/state'\nevery = '1s'\n[vars]\npace = '1ms'\n",
    );
    let disk = Disk::new(plant.directory(), 128);
    let site = Site::with(plant);
    let mut accepted = Accepted::default();
    let mut at_rest = None;
    for _ in 0..cuts {
        site.disturb(&mut random);
        let device = site.plant.run();
        std::thread::sleep(random.millis(20, 900));
        if random.below(2) == 0 {
            site.disturb(&mut random);
            std::thread::sleep(random.millis(0, 200));
        }
        let live = site.plant.totals();
        disk.cut_power();
        device.kill();
        if let Some(at_rest) = &at_rest {
            accepted.saw(at_rest, &live);
        }
        disk.power_on();
        let totals = site.plant.totals();
        totals.assert_balance();
        at_rest = Some(totals);
    }
    let (totals, heard) = site.drain();
    assert_eq!(
        (totals.get("dropped"), totals.get("damaged")),
        (0, 0),
        "{totals:?}"
    );
    accepted.assert_all_came(&heard);
    println!(
        "PROVED {cuts} power cuts: {} records came, {} of them more than once; {} were seen to be accepted just before a cut, and \
         none of them was lost",
        heard.records.len(),
        heard.duplicates(),
        accepted.records(),
    );
    assert!(
        accepted.records() > 0 && heard.records.len() > 100,
        "too little was tried"
    );
}
