//! `tidegate tap`: a look at the wires of a running process.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value as Json;

use crate::SOON;
use crate::support::process::Output;
use crate::support::{Ended, Plant, Running, until};

/// A plant whose flow `tick` runs, and another one with a node of the same name, joined to it by a link.
fn running() -> (Plant, Running) {
    let plant = Plant::ticking();
    plant.flow(
        "slow",
        "[nodes.tick]\ntype = 'inject'\nevery = '50ms'\npayload = { bar = 2.5 }\ntopic = 'pressure'\n\
         [nodes.go]\ntype = 'link out'\nlink = 'pressures'\nfrom = 'tick'\n",
    );
    plant.flow(
        "show",
        "[nodes.come]\ntype = 'link in'\nlink = 'pressures'\n[nodes.show]\ntype = 'debug'\nfrom = 'come'\n",
    );
    let device = plant.run();
    until("others can ask it", || {
        plant.path("outbox/tidegate.sock").exists().then_some(())
    });
    (plant, device)
}

#[test]
fn a_node_is_watched_as_json_and_by_people() {
    let (plant, mut device) = running();
    let ended = Ended::of(plant.command(&["tap", "slow/tick", "--count", "3", "--json"]));
    ended.assert_code(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ended:#?}");
    let mut last = String::new();
    for line in lines {
        let message: Json = serde_json::from_str(line).unwrap();
        let time = message["time"].as_str().unwrap().to_owned();
        assert!(time > last && time.ends_with('Z'), "{ended:#?}");
        let rest = r#","flow":"slow","node":"tick","port":"out","topic":"pressure","payload":{"bar":2.5}}"#;
        assert_eq!(*line, format!(r#"{{"time":"{time}"{rest}"#));
        last = time;
    }

    // What a link brings to another flow, found by the node's name alone.
    let ended = Ended::of(plant.command(&["tap", "come", "--count", "2"]));
    ended.assert_code(0);
    assert_eq!(ended.stdout.lines().count(), 2, "{ended:#?}");
    for line in ended.stdout.lines() {
        assert!(line.ends_with(r#"Z pressure {"bar":2.5}"#), "{ended:#?}");
    }
    device.assert_runs();
}

#[test]
fn what_cannot_be_watched_is_said_in_words() {
    let (plant, device) = running();
    let check = |arguments: &[&str], code, words: &str| {
        let ended = Ended::of(plant.command(arguments));
        ended.assert_code(code);
        assert!(
            ended.stderr.contains(words) && ended.stdout.is_empty(),
            "{ended:#?}"
        );
    };
    check(&["tap", "slow/tikc"], 1, "did you mean `slow/tick`?");
    check(&["tap", "tick"], 1, "`slow/tick`, `tick/tick`");
    check(&["tap", "show/show"], 1, "sends nothing");
    check(&["tap", "come.uot", "--json"], 1, "did you mean `out`?");
    check(&["tap", "come", "--count", "0"], 2, "--count");
    check(&["tap", "come", "--for", "soon"], 2, "length of time");
    let (status, _) = {
        device.signal("TERM");
        device.end()
    };
    assert!(status.success());
    check(&["tap", "come"], 1, "start it with `tidegate run`");
}

#[test]
fn it_ends_well_after_its_time_and_at_ctrl_c_and_says_when_the_process_has_stopped() {
    let (plant, mut device) = running();
    let ended = Ended::of(plant.command(&["tap", "slow/tick", "--for", "300ms"]));
    ended.assert_code(0);
    assert!(!ended.stdout.is_empty(), "{ended:#?}");

    let watch = || {
        let mut tap = Running::start(plant.command(&["tap", "slow/tick"]), Output::Stdout);
        tap.says(&["pressure"]);
        tap
    };
    let tap = watch();
    tap.signal("INT");
    let (status, _) = tap.end();
    assert_eq!(status.code(), Some(0));

    let tap = watch();
    let changed = std::fs::read_to_string(plant.path("flows/slow.toml")).unwrap();
    plant.flow(
        "slow",
        &changed
            .replace("nodes.tick", "nodes.tock")
            .replace("'tick'", "'tock'"),
    );
    let (status, said) = tap.end();
    assert_eq!(status.code(), Some(1), "{said:?}");
    plant.flow("slow", &changed);
    device.says(&["flow `slow` was changed"]);
    until("the node is back", || {
        let ended = Ended::of(plant.command(&["tap", "slow/tick", "--for", "10ms"]));
        (ended.code == Some(0)).then_some(())
    });

    let tap = watch();
    device.signal("TERM");
    let (status, log) = device.end();
    assert!(status.success(), "{log:#?}");
    let (status, _) = tap.end();
    assert_eq!(status.code(), Some(1), "the process has stopped");
}

#[test]
fn a_watcher_that_reads_nothing_holds_up_nobody() {
    let plant = Plant::new();
    let long = "x".repeat(4_000);
    plant.flow(
        "busy",
        &format!(
            "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\npayload = '{long}'\n\
             [nodes.up]\ntype = 'uplink'\nfrom = 'slow'\ntopic = 't'\n\
             [nodes.slow]\ntype = 'inject'\nevery = '20ms'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n"
        ),
    );
    let mut device = plant.run();
    let mut watcher = until("others can ask it", || {
        UnixStream::connect(plant.path("outbox/tidegate.sock")).ok()
    });
    watcher.set_read_timeout(Some(SOON)).unwrap();
    watcher.write_all(b"tap busy/tick\n").unwrap();
    let mut lines = BufReader::new(watcher).lines().map(Result::unwrap);
    let answer = lines.next().unwrap();
    let expected = r#"{"tapping":{"flow":"busy","node":"tick","ports":["out"]}}"#;
    assert_eq!(answer, expected);

    // Now it reads nothing: three seconds of messages are more than its queue and the socket hold.
    let before = plant.totals();
    plant.totals_with("the flows go on", |totals| {
        totals.get("accepted") > before.get("accepted") + 150
    });
    let other = Ended::of(plant.command(&["tap", "tick", "--count", "3"]));
    other.assert_code(0);
    assert_eq!(other.stdout.matches(&long).count(), 3);
    device.assert_runs();

    let gap = lines.find(|line| !line.contains(&long)).unwrap();
    let gap: Json = serde_json::from_str(&gap).unwrap();
    assert!(gap["dropped"].as_u64().unwrap() > 0, "{gap}");
    assert!(
        lines.next().unwrap().contains(&long),
        "it goes on behind the gap"
    );
}
