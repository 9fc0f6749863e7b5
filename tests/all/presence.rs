//! Whether a device is there, as mosquitto and a subscriber of its own see it.

use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::support::mosquitto::{Mosquitto, Subscriber};
use crate::support::plant::DEVICE;
use crate::support::{Cable, Plant, until};

const TOPIC: &str = "sites/press-7/status";

/// What was said of the device so far.
fn said(subscriber: &Subscriber) -> Vec<Json> {
    let messages = subscriber.messages().into_iter();
    let statuses = messages.filter(|(topic, _)| topic == TOPIC);
    statuses
        .map(|(_, payload)| serde_json::from_str(&payload).unwrap())
        .collect()
}

#[track_caller]
fn next(subscriber: &Subscriber, known: usize, what: &str) -> Json {
    until(what, || said(subscriber).into_iter().nth(known))
}

/// The device tells its status to the broker at this address.
fn settings(plant: &Plant, broker: SocketAddr) {
    plant.settings_for(&format!("\"mqtts://{broker}\""), "");
    let settings = std::fs::read_to_string(plant.path("tidegate.toml")).unwrap();
    let with_topic = settings.replace(
        "keep_alive = \"2s\"",
        "keep_alive = \"2s\"\nstatus_topic = \"sites/{device}/status\"",
    );
    plant.write("tidegate.toml", &with_topic);
}

#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_device_says_that_it_is_there_first_and_that_it_goes_last_and_its_broker_says_so_if_it_cannot()
{
    let plant = Plant::ticking();
    let mosquitto = Mosquitto::of(&plant);
    settings(&plant, mosquitto.address);
    let _broker = mosquitto.start();
    let all = Subscriber::at(mosquitto.address, &plant);

    let device = plant.run();
    let online = next(&all, 0, "it says that it is there");
    assert_eq!(online["status"], "online", "{online}");
    assert_eq!(online["device"], DEVICE, "{online}");
    assert_eq!(online["version"], env!("CARGO_PKG_VERSION"), "{online}");
    until("records come", || (all.messages().len() > 3).then_some(()));
    assert_eq!(all.messages()[0].0, TOPIC, "before anything else");

    // Another flow file has another print.
    let flow = std::fs::read_to_string(plant.path("flows/tick.toml")).unwrap();
    plant.write("flows/tick.toml", &format!("# changed\n{flow}"));
    device.signal("HUP");
    let changed = next(&all, 1, "it tells which flows run now");
    assert_eq!(changed["status"], "online", "{changed}");
    assert!(online["flows"]["tick"].is_string(), "{online}");
    assert_ne!(changed["flows"], online["flows"]);

    device.signal("TERM");
    assert!(device.end().0.success());
    let offline = next(&all, 2, "it says that it goes");
    assert_eq!(
        (&offline["status"], &offline["reason"]),
        (&Json::from("offline"), &Json::from("stopped")),
        "{offline}"
    );
    assert_eq!(all.messages().last().unwrap().0, TOPIC, "after all else");

    let device = plant.run();
    let online = next(&all, 3, "it is there again");
    assert_eq!(online["status"], "online", "{online}");
    device.signal("KILL");
    device.end();
    let lost = next(&all, 4, "the broker says that it is gone");
    assert_eq!(
        (&lost["status"], &lost["reason"]),
        (&Json::from("offline"), &Json::from("lost")),
        "{lost}"
    );
    drop(all);
    let later = Subscriber::at(mosquitto.address, &plant);
    assert_eq!(next(&later, 0, "the broker has kept it"), lost);
}

/// What is on its way is not acknowledged, and so is not what would come after it: the last word is the will's.
#[test]
#[ignore = "needs mosquitto: scripts/test.sh runs it"]
fn a_device_that_cannot_say_that_it_goes_is_lost_all_the_same() {
    let plant = Plant::ticking();
    let mosquitto = Mosquitto::of(&plant);
    settings(&plant, plant.address);
    let cable = Cable::lay(plant.address);
    cable.lead_to(mosquitto.address);
    let _broker = mosquitto.start();
    let all = Subscriber::at(mosquitto.address, &plant);
    let device = plant.run();
    let online = next(&all, 0, "it says that it is there");
    assert_eq!(online["status"], "online", "{online}");
    cable.hold_answers();
    let before = all.messages().len();
    until("records are on their way", || {
        (all.messages().len() > before + 3).then_some(())
    });
    device.signal("TERM");
    assert!(device.end().0.success());
    let last = next(&all, 1, "the broker says that it is gone");
    assert_eq!(last["reason"], "lost", "{last}");
}
