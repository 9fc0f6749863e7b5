//! `deploy/consumer/tidegate_consumer.py`, between mosquitto and a database: what a receiver has to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::mosquitto::Mosquitto;
use crate::support::process::{Output, Running};
use crate::support::witness::WITNESS;
use crate::support::{Cable, Plant, Totals, until};

/// Where `scripts/test.sh` installs what it needs.
fn python() -> PathBuf {
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let python = tidegate
        .ancestors()
        .nth(2)
        .unwrap()
        .join("pandas/bin/python");
    let place = python.display();
    assert!(
        python.exists(),
        "{place} is not there: scripts/test.sh installs it"
    );
    python
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/consumer/tidegate_consumer.py")
}

/// The consumer, once it is subscribed.
fn consume(plant: &Plant, mosquitto: &Mosquitto) -> Running {
    let mut command = Command::new(python());
    command
        .arg(script())
        .args(["--host", &mosquitto.address.ip().to_string()])
        .args(["--port", &mosquitto.address.port().to_string()])
        .args(["--ca", &plant.tls_file("ca.pem")])
        .args(["--cert", &plant.tls_file(&format!("{WITNESS}.pem"))])
        .args(["--key", &plant.tls_file(&format!("{WITNESS}.key"))])
        .args(["--client-id", WITNESS, "--retry-max", "0.5", "--database"])
        .arg(plant.path("records.sqlite"));
    let mut consumer = Running::start(command, Output::Stderr);
    consumer.says(&["subscribed to sites/#"]);
    consumer
}

/// A few lines of Python with `database` open, and the consumer imported.
fn script_of(plant: &Plant, lines: &str) -> Command {
    let head = "import sqlite3, sys, time\nsys.path.insert(0, sys.argv[2])\nimport tidegate_consumer as consumer\n\
                database = sqlite3.connect(sys.argv[1], timeout=30)\n";
    let mut command = Command::new(python());
    command
        .args(["-B", "-c", &format!("{head}{lines}")])
        .arg(plant.path("records.sqlite"))
        .arg(script().parent().unwrap());
    command
}

/// Runs them; gives what they print.
fn ask(plant: &Plant, lines: &str) -> String {
    let ended = script_of(plant, lines).output().unwrap();
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{complained}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

/// Keeps the consumer from writing, until this is killed.
fn hold_database(plant: &Plant) -> Running {
    let lines = "database.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\ntime.sleep(60)\n";
    let mut holder = Running::start(script_of(plant, lines), Output::Stdout);
    holder.says(&["held"]);
    holder
}

fn stored(plant: &Plant) -> u64 {
    ask(
        plant,
        "print(database.execute('SELECT count(*) FROM records').fetchone()[0])",
    )
    .parse()
    .unwrap()
}

#[test]
#[ignore = "needs mosquitto and paho-mqtt: scripts/test.sh runs it"]
fn a_consumer_and_a_device_killed_in_turn_lose_nothing_and_keep_nothing_twice() {
    let plant = Plant::ticking();
    plant.settings("[outbox]\ncommit = '200ms'\n[vars]\npace = '4ms'\n");
    let mosquitto = Mosquitto::of(&plant);
    let broker = mosquitto.start();
    let cable = Cable::lay(plant.address);
    cable.lead_to(mosquitto.address);
    let mut accepted_of_epochs = Vec::new();
    let mut accepted_at_rest = 0;
    // The first session must be there before anything is sent.
    let mut consumer = consume(&plant, &mosquitto);
    for epoch in 1..=4 {
        let device = plant.run();
        for kill in 0..3 {
            let before = stored(&plant);
            until("more is stored", || {
                (stored(&plant) > before + 50).then_some(())
            });
            // What has been handed over now, and is not stored, would be lost if it were acknowledged already.
            let holder = hold_database(&plant);
            let sent = plant.totals().get("acknowledged");
            plant.totals_with("the device goes on", |totals| {
                totals.get("acknowledged") > sent + 50
            });
            // This wait is the fault's moment, not a hope.
            std::thread::sleep(Duration::from_millis(37 * (epoch + kill)));
            consumer.kill();
            holder.kill();
            // Meanwhile the broker keeps what comes.
            let sent = plant.totals().get("acknowledged");
            plant.totals_with("the device still goes on", |totals| {
                totals.get("acknowledged") > sent + 50
            });
            consumer = consume(&plant, &mosquitto);
        }
        // What is in flight now has arrived, and comes again after the next start.
        cable.hold_answers();
        plant.totals_with("the window is full", |totals| totals.get("stored") > 100);
        let before = plant.totals();
        device.kill();
        cable.lead_to(mosquitto.address);
        accepted_of_epochs.push((epoch, before.get("accepted") - accepted_at_rest));
        accepted_at_rest = plant.totals().get("accepted");
    }
    let device = plant.run();
    let is_settled = |totals: &Totals| totals.get("stored") == 0;
    plant.totals_with("all is delivered", is_settled);
    device.signal("TERM");
    assert!(device.end().0.success());

    let missing = |spans: &BTreeMap<u64, (u64, u64)>| {
        let is_there = |(epoch, accepted): &(u64, u64)| {
            spans
                .get(epoch)
                .is_some_and(|(count, last)| count == last && last >= accepted)
        };
        !accepted_of_epochs.iter().all(is_there)
    };
    until("every accepted record is in the table", || {
        let rows = ask(
            &plant,
            "for row in database.execute('SELECT epoch, count(*), max(seq) FROM records GROUP BY epoch'): print(*row)",
        );
        let numbers = rows.lines().map(|row| {
            let mut numbers = row.split(' ').map(|number| number.parse().unwrap());
            let mut next = || numbers.next().unwrap();
            (next(), (next(), next()))
        });
        (!missing(&numbers.collect())).then_some(())
    });
    let foreign = ask(
        &plant,
        "print(database.execute('SELECT count(*) FROM plain').fetchone()[0])",
    );
    assert_eq!(foreign, "0");
    consumer.signal("TERM");
    let (status, lines) = consumer.end();
    assert!(status.success(), "{lines:?}");
    let last = lines.last().unwrap();
    println!("{accepted_of_epochs:?}, {last}");
    // The device sent what was in flight when it was killed for the last time.
    assert!(!last.contains(" 0 came again"), "{last}");
    broker.kill();
}

/// What is put twice, in any order, is there once; a merged record takes the place of what it was made from.
#[test]
#[ignore = "needs paho-mqtt: scripts/test.sh runs it"]
fn a_merged_record_takes_the_place_of_those_it_was_made_from() {
    let plant = Plant::new();
    let lines = r#"
import json
store = consumer.Store(":memory:")
def put(seq, topic="a", epoch=1, merged=None, body=None):
    envelope = {"device": "d", "epoch": epoch, "seq": seq, "time": "t", "payload": seq}
    if merged:
        envelope["merged"] = dict(zip(("epoch", "seq", "count"), merged))
    store.put_one(topic, body if body is not None else json.dumps(envelope).encode())
def rows(topic="a"):
    return store.database.execute("SELECT epoch, seq, count FROM records WHERE topic = ? ORDER BY 1, 2", (topic,)).fetchall()
for seq in (1, 2, 2, 5):
    put(seq)
put(3, "b")
assert rows() == [(1, 1, 1), (1, 2, 1), (1, 5, 1)], rows()
put(4, merged=(1, 1, 3))
assert rows() == [(1, 4, 3), (1, 5, 1)], rows()
for late in (1, 2, 4):
    put(late)
put(4, merged=(1, 2, 2))
assert rows() == [(1, 4, 3), (1, 5, 1)], rows()
put(7, epoch=2, merged=(1, 1, 9))
put(5)
assert rows() == [(2, 7, 9)], rows()
assert rows("b") == [(1, 3, 1)], rows("b")
for body in (b"", b"\xff", b"21.5", b"[]", b'{"device":"d"}', b"[" * 100000, b'{"device":"\\ud800","epoch":1,"seq":1,"time":"","payload":1}',
        b'{"device":"d","epoch":1,"seq":99999999999999999999,"time":"","payload":1}', b'{"device":"d","epoch":true,"seq":1,"time":"","payload":1}',
        b'{"device":"d","epoch":1,"seq":8,"time":"","payload":NaN}'):
    put(0, body=body)
print(store.database.execute("SELECT count(*) FROM plain").fetchone()[0])
"#;
    assert_eq!(ask(&plant, lines), "10");
}
