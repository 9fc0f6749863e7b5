//! SIGKILL at any moment: every record that was accepted before it is delivered in the end.

use std::time::Duration;

use crate::support::{Cable, Plant};

#[test]
fn a_kill_in_an_outage_loses_no_accepted_record() {
    let plant = Plant::ticking();
    plant.settings("[vars]\npace = '2ms'\n");
    let cloud = plant.cloud();
    let cable = Cable::lay(plant.address);
    cable.lead_to(cloud.address());
    let device = plant.run();
    plant.totals_with("some are acknowledged", |totals| {
        totals.get("acknowledged") > 200
    });
    cable.cut();
    let before = plant.totals_with("some are stored", |totals| totals.get("stored") > 500);
    device.kill();
    before.assert_balance();

    let at_rest = plant.totals();
    at_rest.assert_balance();
    assert!(
        at_rest.get("accepted") >= before.get("accepted"),
        "{before:?}, {at_rest:?}"
    );

    cable.lead_to(cloud.address());
    let mut device = plant.run();
    device.says(&[&format!("{} records to deliver", at_rest.get("stored"))]);
    cloud.witness.sees(1, 1..=at_rest.get("accepted"));
    cloud.witness.sees(2, 1..=5);
    device.signal("TERM");
    assert!(device.end().0.success());
    plant.totals().assert_balance();
}

/// Kills at moments that depend on a printed seed, with the link up or down, one after another.
#[test]
fn kills_in_a_row_lose_no_accepted_record() {
    let seed: u64 = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(std::process::id()),
    };
    println!("SEED={seed}");
    let mut random = Random(seed);
    let plant = Plant::ticking();
    plant.settings("[outbox]\ncommit = '200ms'\n[vars]\npace = '2ms'\n");
    let cloud = plant.cloud();
    let cable = Cable::lay(plant.address);
    let mut accepted_of_epochs = Vec::new();
    let mut accepted_at_rest = 0;
    for epoch in 1..=6 {
        match random.below(3) {
            0 => cable.cut(),
            _ => cable.lead_to(cloud.address()),
        }
        let device = plant.run();
        plant.totals_with("it runs", |totals| totals.get("epoch") == epoch);
        // This wait is the fault's moment, not a hope.
        std::thread::sleep(Duration::from_millis(random.below(900)));
        if random.below(2) == 0 {
            cable.cut();
            std::thread::sleep(Duration::from_millis(random.below(400)));
        }
        let before = plant.totals();
        device.kill();
        before.assert_balance();
        accepted_of_epochs.push((epoch, before.get("accepted") - accepted_at_rest));
        let at_rest = plant.totals();
        at_rest.assert_balance();
        accepted_at_rest = at_rest.get("accepted");
    }
    println!("accepted before each kill: {accepted_of_epochs:?}");

    cable.lead_to(cloud.address());
    let device = plant.run();
    for (epoch, accepted) in accepted_of_epochs {
        cloud.witness.sees(epoch, 1..=accepted);
    }
    device.signal("TERM");
    assert!(device.end().0.success());
    plant.totals().assert_balance();
}

/// SplitMix64; see `board::simulated::quantities`.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
