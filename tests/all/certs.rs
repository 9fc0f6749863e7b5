//! `tidegate certs`: files that the broker and the uplink take, and that nobody loses by a second call.

use std::os::unix::fs::PermissionsExt;

use tidegate::broker::{Broker, PemSource, Settings};
use tidegate::certs::{Overwrite, Validity};

use crate::support::cable::own_address;
use crate::support::plant::{TICK, contents, expired, now};
use crate::support::process::Output;
use crate::support::{Cable, Ended, Plant, Running, Witness, tidegate};

/// The text that `certs new` prints for a device's settings file is taken as it is, but for the port.
#[test]
fn what_certs_new_makes_brings_a_device_up() {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    let address = own_address();
    let host = address.ip().to_string();
    let mut new = tidegate(&["certs", "new", "--device", "press-7", "--device", "witness"]);
    new.args(["--server", &host, "--server", "127.0.0.1"])
        .arg(&tls);
    let made = Ended::of(new);
    made.assert_code(0);
    for (name, bytes) in contents(&tls) {
        let mode = tls.join(&name).metadata().unwrap().permissions().mode() & 0o777;
        let expected = if name.ends_with(".key") { 0o600 } else { 0o644 };
        assert_eq!(mode, expected, "{name} has mode {mode:o}");
        assert!(bytes.starts_with(b"-----BEGIN "), "{name}");
    }

    let file = |name: &str| PemSource::File(tls.join(name));
    let broker = Broker::start(Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        ca: file("ca.pem"),
        cert: file("server.pem"),
        key: file("server.key"),
        crl: None,
        max_connections: 10,
    })
    .unwrap();
    let witness = Witness::at(broker.local_addr(), &tls);
    let cable = Cable::lay(address);
    cable.lead_to(broker.local_addr());

    let (_, settings) = made.stdout.split_once("tidegate.toml:").unwrap();
    let (settings, _) = settings.split_once("Keep ca.key").unwrap();
    let settings = settings.replace(":8883", &format!(":{}", address.port()));
    std::fs::write(directory.path().join("tidegate.toml"), settings).unwrap();
    std::fs::create_dir(directory.path().join("flows")).unwrap();
    std::fs::write(directory.path().join("flows/tick.toml"), TICK).unwrap();
    let mut run = tidegate(&["run"]);
    run.current_dir(directory.path());
    let mut device = Running::start(run, Output::Stderr);
    device.says(&["uplink up"]);
    witness.sees(1, 1..=5);
}

#[test]
fn a_second_call_changes_nothing_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let new = |more: &[&str]| {
        let mut command = tidegate(&["certs", "new", path]);
        command.args(more);
        Ended::of(command)
    };
    new(&["--device", "press-7"]).assert_code(0);
    let first = contents(directory.path());

    let again = new(&["--device", "press-7"]);
    again.assert_code(1);
    assert!(again.stderr.contains("press-7.key exists"), "{again:#?}");
    assert_eq!(contents(directory.path()), first);

    new(&["--device", "press-8"]).assert_code(0);
    let mut with_another = contents(directory.path());
    for name in ["press-8.pem", "press-8.key"] {
        assert!(with_another.remove(name).is_some(), "no {name}");
    }
    assert_eq!(with_another, first);

    new(&["--device", "press-7", "--force"]).assert_code(0);
    let forced = contents(directory.path());
    for (name, bytes) in &first {
        let is_kept = forced[name] == *bytes;
        assert_eq!(is_kept, name.starts_with("ca."), "{name}");
    }
}

#[test]
fn show_tells_good_from_expired_and_from_what_is_no_certificate() {
    let plant = Plant::new();
    let show = |name: &str| Ended::of(tidegate(&["certs", "show", &plant.tls_file(name)]));
    let good = show("press-7.pem");
    good.assert_code(0);
    assert!(
        good.stdout.contains("`press-7`") && good.stdout.contains("days left"),
        "{good:#?}"
    );

    let soon = Validity::days(now(), 29);
    let soon = plant.ca.issue_device("soon", soon).unwrap();
    soon.write(&plant.tls(), Overwrite::Never).unwrap();
    let soon = show("soon.pem");
    soon.assert_code(0);
    assert!(
        soon.stdout.contains("29 days left; RENEW IT NOW")
            || soon.stdout.contains("28 days left; RENEW IT NOW"),
        "{soon:#?}"
    );

    let old = plant.ca.issue_device("old", expired()).unwrap();
    old.write(&plant.tls(), Overwrite::Never).unwrap();
    let bad = show("old.pem");
    bad.assert_code(1);
    assert!(bad.stdout.contains("EXPIRED 1 days ago"), "{bad:#?}");

    for name in ["press-7.key", "none.pem"] {
        let none = show(name);
        none.assert_code(1);
        assert!(none.stderr.contains(&plant.tls_file(name)), "{none:#?}");
    }
}

#[test]
fn show_without_files_shows_those_of_the_settings() {
    let plant = Plant::ticking();
    plant.settings("");
    let shown = Ended::of(plant.command(&["certs", "show"]));
    shown.assert_code(0);
    for part in [
        "press-7.pem: certificate `press-7`",
        "subject: CN=press-7",
        "ca.pem: CA `",
        "days left",
    ] {
        assert!(shown.stdout.contains(part), "`{part}` is not in {shown:#?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let mut command = tidegate(&["certs", "show"]);
    command.current_dir(empty.path());
    let none = Ended::of(command);
    none.assert_code(1);
    assert!(none.stderr.contains("no usable [uplink]"), "{none:#?}");
}
