//! SIGKILL at any moment loses no accepted record (guarantee 2).

use crate::support::Plant;

use super::{Accepted, Random, Site, times};

/// `KILLS` lives of 20 to 400 ms, each ended by SIGKILL, with the link up, cut, silent, or without answers.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn kills_in_a_row_lose_no_accepted_record() {
    let mut random = Random::seeded();
    let kills = times("KILLS", 40);
    let plant = Plant::ticking();
    plant.settings("[outbox]\ncommit = '100ms'\n[vars]\npace = '1ms'\n");
    let site = Site::with(plant);
    let mut accepted = Accepted::default();
    // Until the first start has made the outbox.
    let mut at_rest = None;
    for _ in 0..kills {
        site.disturb(&mut random);
        let device = site.plant.run_unawaited();
        // These waits are the moment of the fault, and not a hope.
        std::thread::sleep(random.millis(20, 400));
        if random.below(2) == 0 {
            site.disturb(&mut random);
            std::thread::sleep(random.millis(0, 100));
        }
        // Not each time: asking takes its time, and so would keep kills away from the start.
        let is_watched = random.below(3) == 0;
        let live = (is_watched && at_rest.is_some()).then(|| site.plant.totals());
        device.kill();
        if let (Some(at_rest), Some(live)) = (&at_rest, &live) {
            accepted.saw(at_rest, live);
        }
        at_rest = site.plant.path("outbox/marker.json").exists().then(|| {
            let at_rest = site.plant.totals();
            at_rest.assert_balance();
            at_rest
        });
    }
    let (totals, heard) = site.drain();
    assert_eq!(
        (totals.get("dropped"), totals.get("damaged")),
        (0, 0),
        "{totals:?}"
    );
    accepted.assert_all_came(&heard);
    println!(
        "PROVED {kills} SIGKILLs in {} starts: {} records came, {} of them more than once; {} were seen to be accepted just before a kill, \
         and none of them was lost",
        totals.get("epoch"),
        heard.records.len(),
        heard.duplicates(),
        accepted.records(),
    );
    assert!(
        accepted.records() > 0 && heard.records.len() > 100,
        "too little was tried"
    );
}
