//! Links that are not there, come late, or go silent: everything arrives, and duplicates come after a reconnect only.

use std::ops::RangeInclusive;

use crate::support::{Cable, Plant};

#[test]
fn a_broker_that_is_absent_at_the_start_gets_everything_once_it_comes() {
    let plant = Plant::ticking();
    let mut device = plant.run();
    device.says(&[
        "uplink down",
        "connection refused",
        &plant.address.to_string(),
    ]);
    let waiting = plant.totals_with("records are stored", |totals| totals.get("stored") > 20);
    assert_eq!(waiting.get("acknowledged"), 0);
    assert_eq!(waiting.get("is_up"), 0);

    let cloud = plant.cloud();
    let cable = Cable::lay(plant.address);
    cable.lead_to(cloud.address());
    device.says(&["uplink up"]);
    cloud.witness.sees(1, 1..=waiting.get("accepted"));
    plant.totals_with("the outbox has drained", |totals| {
        totals.get("stored") == 0 && totals.get("is_up") == 1
    });
    device.signal("TERM");
    assert!(device.end().0.success());

    let totals = plant.totals();
    let received = cloud.witness.received();
    assert!(
        received.values().all(|times| *times == 1),
        "there was one connection only"
    );
    assert!(
        received.len() as u64 >= totals.get("acknowledged"),
        "{totals:?}"
    );
    assert_eq!(totals.get("dropped") + totals.get("dead_lettered"), 0);
}

#[test]
fn a_link_that_goes_silent_is_left_and_nothing_is_lost() {
    check_silence(Cable::fall_silent, 0..=INFLIGHT);
}

/// What is in flight has arrived, and the device does not know.
#[test]
fn without_answers_what_was_in_flight_comes_twice_and_no_more_than_that() {
    check_silence(Cable::hold_answers, 1..=INFLIGHT);
}

/// The default of `inflight`.
const INFLIGHT: u64 = 100;

fn check_silence(silence: impl FnOnce(&Cable), duplicates: RangeInclusive<u64>) {
    let plant = Plant::ticking();
    let cloud = plant.cloud();
    let cable = Cable::lay(plant.address);
    cable.lead_to(cloud.address());
    let mut device = plant.run();
    cloud.witness.sees(1, 1..=20);
    silence(&cable);
    device.says(&["uplink down", "fell silent"]);
    let waiting = plant.totals_with("records are stored", |totals| totals.get("stored") > 0);
    cable.lead_to(cloud.address());
    cloud.witness.sees(1, 1..=waiting.get("accepted"));
    plant.totals_with("the outbox has drained", |totals| totals.get("stored") == 0);
    device.signal("TERM");
    assert!(device.end().0.success());

    let received = cloud.witness.received();
    let again: u64 = received.values().map(|times| times - 1).sum();
    assert!(
        duplicates.contains(&again),
        "{again} came twice, expected {duplicates:?}"
    );
    plant.totals().assert_balance();
}
