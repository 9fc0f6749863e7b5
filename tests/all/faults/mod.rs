//! Real faults on real parts: processes that are killed, disks that lose power or run full; with Debian's mosquitto as the
//! broker and its `mosquitto_sub` as the witness, over mutual TLS.
//!
//! Each test runs as often as an environment variable says, and a few times without; `scripts/prove.sh` runs the long ones. All of
//! them are ignored unless asked for, as `scripts/test.sh` does. Moments are random; the seed is printed, and `SEED` sets it.

mod cluster;
mod disk;
mod full_disk;
mod kills;
mod links;
mod outage;
mod power_cuts;
mod read_only;
mod soak;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::mosquitto::{Heard, Mosquitto, Subscriber};
use crate::support::plant::valid;
use crate::support::{Cable, Plant, Random, Running, Totals, until_within};

/// How often to do something: as the variable says, or this often.
fn times(variable: &str, by_default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(times) => times
            .parse()
            .unwrap_or_else(|error| panic!("{variable}: {error}")),
        Err(_) => by_default,
    }
}

/// A device, the way to its broker, and who hears what arrives there.
struct Site {
    plant: Plant,
    cable: Cable,
    broker: Mosquitto,
    running_broker: Running,
    subscriber: Subscriber,
}

impl Site {
    /// The device is not started, and the cable leads nowhere yet.
    fn with(plant: Plant) -> Site {
        let broker = Mosquitto::of(&plant);
        let running_broker = broker.start();
        let subscriber = broker.subscriber(&plant);
        let cable = Cable::lay(plant.address);
        Site {
            plant,
            cable,
            broker,
            running_broker,
            subscriber,
        }
    }

    /// Changes the link, or not.
    fn disturb(&self, random: &mut Random) {
        match random.below(7) {
            0 | 1 => self.cable.cut(),
            2 => self.cable.hold_answers(),
            3 => self.cable.fall_silent(),
            4 => {
                self.cable.lead_to(self.broker.address);
                self.cable.delay(random.fork());
            }
            _ => self.cable.lead_to(self.broker.address),
        }
    }

    /// Delivers all that is in the outbox, without making anything new. Returns the totals that are left, and what has
    /// come to the broker in all.
    fn drain(self) -> (Totals, Heard) {
        let (totals, subscriber) = self.drained();
        (totals, subscriber.after_its_broker())
    }

    /// The same, with all that has come instead of what it says in sum.
    fn drain_messages(self) -> (Totals, Vec<(String, String)>) {
        let (totals, subscriber) = self.drained();
        (totals, subscriber.messages_after_its_broker())
    }

    fn drained(mut self) -> (Totals, Subscriber) {
        std::fs::remove_dir_all(self.plant.path("flows")).unwrap();
        std::fs::create_dir(self.plant.path("flows")).unwrap();
        self.cable.lead_to(self.broker.address);
        let device = self.plant.run();
        patiently("the outbox is empty", || {
            let totals = self.plant.totals();
            (totals.get("stored") + totals.get("pending") == 0).then_some(())
        });
        device.signal("TERM");
        assert!(device.end().0.success());
        let totals = self.plant.totals();
        totals.assert_balance();
        self.running_broker.assert_runs();
        // Once the broker is gone, the subscriber has all that was ever sent to it.
        self.running_broker.kill();
        (totals, self.subscriber)
    }
}

/// As [`until`](crate::support::until), for what takes longer when many records are waiting.
fn patiently<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(Duration::from_secs(600), what, look)
}

/// What is known to have been accepted: of each epoch, at least so many records.
#[derive(Default)]
struct Accepted(BTreeMap<u64, u64>);

impl Accepted {
    /// The device, which was at rest with `at_rest` before, says this now.
    fn saw(&mut self, at_rest: &Totals, live: &Totals) {
        live.assert_balance();
        let of_this_start = live.get("accepted").saturating_sub(at_rest.get("accepted"));
        let most = self.0.entry(live.get("epoch")).or_default();
        *most = of_this_start.max(*most);
    }

    fn records(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each of them has come; and none is missing among those that came besides.
    fn assert_all_came(&self, heard: &Heard) {
        let mut came: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (epoch, seq) in heard.records.keys() {
            let (number, last) = came.entry(*epoch).or_default();
            *number += 1;
            *last = (*last).max(*seq);
        }
        for (epoch, (number, last)) in &came {
            // Records are accepted in order: one that is missing before another was lost.
            assert_eq!(
                number, last,
                "start {epoch}: {number} of {last} records came"
            );
        }
        assert_eq!(heard.late, 0, "records of a topic came out of order");
        for (epoch, accepted) in &self.0 {
            let last = came.get(epoch).map_or(0, |(_, last)| *last);
            assert!(
                last >= *accepted,
                "start {epoch}: {accepted} records were accepted and {last} came"
            );
        }
    }
}
