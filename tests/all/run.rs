//! `tidegate run`: how it starts with whatever it finds, how it ends, and who may ask it meanwhile.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::{Cable, Ended, Plant, until};

/// The example flow with a compressor at pin 17, which comes on with the first reading.
fn with_cold_store(plant: &Plant) {
    let (_, flow) = tidegate::examples::FLOWS
        .iter()
        .find(|(name, _)| *name == "cold-store")
        .unwrap();
    plant.flow("cold-store", flow);
    plant.settings(
        "[vars.cold-store]\npace = '50ms'\nwarm = 4.0\ncold = 0.0\nrest = '1ms'\n[log]\nformat = 'json'\nlevel = 'debug'\n",
    );
}

/// How the link is when the signal comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    Up,
    /// Nobody listens there.
    Absent,
    /// Connections stand, and nothing gets through.
    Silent,
}

/// A stop waits a second for acknowledgements and a little for the good-bye; the rest is for a slow machine.
const QUICKLY: Duration = Duration::from_secs(5);

fn check_stop(signal: &str, link: Link) {
    let plant = Plant::ticking();
    with_cold_store(&plant);
    let cloud = plant.cloud();
    let mut cable = None;
    if link != Link::Absent {
        let cable = cable.insert(Cable::lay(plant.address));
        cable.lead_to(cloud.address());
    }
    let mut device = plant.run();
    device.says(&["\"output\"", "\"GPIO17\"", "\"high\""]);
    if link != Link::Absent {
        cloud.witness.sees(1, 1..=5);
    }
    if let (Link::Silent, Some(cable)) = (link, &cable) {
        cable.fall_silent();
    }
    if link != Link::Up {
        plant.totals_with("nothing gets through", |totals| totals.get("stored") > 0);
    }
    let start = Instant::now();
    device.signal(signal);
    let (status, log) = device.end();
    let took = start.elapsed();
    println!("SIG{signal} with the link {link:?}: ended after {took:?}");
    assert_eq!(status.code(), Some(0), "{signal}, {link:?}: {log:#?}");
    assert!(took < QUICKLY, "{signal}, {link:?}: {took:?}");

    let levels: Vec<&String> = log
        .iter()
        .filter(|line| line.contains("\"output\""))
        .collect();
    let last = levels.last().unwrap();
    assert!(
        last.contains("\"low\""),
        "the compressor was left on: {levels:#?}"
    );
    assert!(
        log.iter()
            .any(|line| line.contains(&format!("SIG{signal}: stopping"))),
        "{log:#?}"
    );

    let totals = plant.totals();
    totals.assert_balance();
    assert_eq!(totals.get("pending"), 0, "{totals:?}");
    let said = format!("{} records wait in it", totals.get("stored"));
    assert!(
        log.iter().any(|line| line.contains(&said)),
        "no {said:?} in {log:#?}"
    );
    assert!(!plant.path("outbox/tidegate.sock").exists());
}

#[test]
fn sigterm_ends_it_with_safe_outputs_and_a_synced_outbox() {
    check_stop("TERM", Link::Up);
}

#[test]
fn sigint_does_the_same_without_a_broker() {
    check_stop("INT", Link::Absent);
}

#[test]
fn a_link_that_has_gone_silent_does_not_hold_up_the_stop() {
    check_stop("TERM", Link::Silent);
}

#[test]
fn others_of_this_user_may_ask_a_running_process() {
    let plant = Plant::ticking();
    let device = plant.run();
    let totals = plant.totals_with("records are stored", |totals| totals.get("stored") > 0);
    totals.assert_balance();
    assert_eq!(
        totals.get("is_up"),
        0,
        "only a running process says this: {totals:?}"
    );
    let mode = |name: &str| plant.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("outbox/tidegate.sock"), 0o600);
    let people = Ended::of(plant.command(&["outbox", "show"]));
    assert!(
        people.stdout.contains("in use by a running tidegate"),
        "{people:#?}"
    );
    device.kill();
    // Its socket is still there.
    let people = Ended::of(plant.command(&["outbox", "show"]));
    people.assert_code(0);
    assert!(people.stdout.contains("at rest"), "{people:#?}");
    plant.totals().assert_balance();
}

#[test]
fn a_second_run_on_the_same_outbox_is_refused_and_the_first_goes_on() {
    let plant = Plant::ticking();
    let mut device = plant.run();
    let before = plant.totals_with("records are stored", |totals| totals.get("stored") > 0);
    let second = Ended::of(plant.command(&["run"]));
    second.assert_code(1);
    let words = format!("is in use by process {}", device.id());
    assert!(
        second.stderr.contains(&words)
            && second
                .stderr
                .contains(&plant.path("outbox").display().to_string()),
        "{second:#?}"
    );
    plant.totals_with("the first one goes on", |totals| {
        totals.get("accepted") > before.get("accepted")
    });
    device.assert_runs();
}

#[test]
fn a_flow_that_is_wrong_does_not_keep_the_others_from_running() {
    let plant = Plant::ticking();
    plant.flow("wrong", "[nodes.a]\ntype = 'debgu'\n");
    let mut device = plant.run();
    device.says(&["flows/wrong.toml:2:8: error", "did you mean `debug`?"]);
    device.says(&["1 of 2 flows cannot run"]);
    plant.totals_with("the right one runs", |totals| totals.get("stored") > 0);
    drop(device);

    let strict = Ended::of(plant.command(&["run", "--strict"]));
    strict.assert_code(1);
    assert!(
        strict.stderr.contains("did you mean `debug`?") && strict.stderr.contains("--strict"),
        "{strict:#?}"
    );
}

#[test]
fn only_settings_that_cannot_be_read_end_it() {
    let plant = Plant::ticking();
    let check = |words: &str| {
        let ended = Ended::of(plant.command(&["run"]));
        ended.assert_code(1);
        let path = plant.path("tidegate.toml").display().to_string();
        assert!(
            ended.stderr.contains(&path) && ended.stderr.contains(words),
            "{ended:#?}"
        );
    };
    plant.write("tidegate.toml", "[device\n");
    check("is not TOML");
    std::fs::remove_file(plant.path("tidegate.toml")).unwrap();
    check("cannot read the settings file");
    std::fs::create_dir(plant.path("tidegate.toml")).unwrap();
    check("cannot read the settings file");
    std::fs::remove_dir(plant.path("tidegate.toml")).unwrap();
    std::fs::write(plant.path("tidegate.toml"), [0xff, 0xfe]).unwrap();
    check("cannot read the settings file");
}

#[test]
fn mistakes_in_the_settings_leave_the_rest_of_them_in_force() {
    let plant = Plant::ticking();
    plant.settings("[logg]\n[outbox]\npath = 'elsewhere'\nmax_size = '1KiB'\n");
    let mut device = plant.run();
    device.says(&["tidegate.toml:", "did you mean `log`?"]);
    device.says(&["tidegate.toml:", "at least 8 MiB"]);
    plant.totals_with("records are stored", |totals| totals.get("stored") > 0);
    assert!(plant.path("elsewhere").exists() && !plant.path("outbox").exists());
    drop(device);
    Ended::of(plant.command(&["run", "--strict"])).assert_code(1);
}

#[test]
fn the_json_log_is_json_from_the_first_line_to_the_last() {
    let plant = Plant::ticking();
    plant.flow("wrong", "[nodes.a]\ntype = 'debgu'\n");
    plant.settings("[logg]\n[log]\nformat = 'json'\nlevel = 'debug'\n");
    let mut device = plant.run();
    device.says(&["uplink down"]);
    device.signal("TERM");
    let (status, log) = device.end();
    assert!(status.success());
    for line in &log {
        let object: Json =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            object["level"].is_string() && object["timestamp"].is_string(),
            "{line}"
        );
    }
    assert!(log.last().unwrap().contains("stopped: "), "{log:#?}");
}

#[test]
fn a_signal_during_the_start_ends_it_as_well() {
    let plant = Plant::ticking();
    let mut device = plant.run_unawaited();
    // The first thing that it says is said with the signals' handlers in place.
    until("it has said something", || device.first_line_at());
    device.assert_runs();
    device.signal("TERM");
    let (status, log) = device.end();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    plant.totals().assert_balance();
}

#[test]
fn a_hang_up_reads_the_flows_again_and_ends_nothing() {
    let plant = Plant::ticking();
    let mut device = plant.run();
    device.signal("HUP");
    device.says(&["SIGHUP: the flow files are read again"]);
    let before = plant.totals().get("accepted");
    plant.totals_with("it runs on", |totals| totals.get("accepted") > before + 10);
    device.assert_runs();
}
