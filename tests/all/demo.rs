//! `tidegate demo`: what it promises to whoever tries it first.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::process::Output;
use crate::support::{Ended, Running, Totals, tidegate};

const LEDGER: [&str; 11] = [
    "readings",
    "accepted",
    "acknowledged",
    "stored",
    "dead_lettered",
    "dropped",
    "duplicates",
    "raw_bytes",
    "uplink_bytes",
    "outage_seconds",
    "lost",
];

#[test]
fn the_ledger_balances_and_what_was_kept_can_be_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    let kept_text = kept.to_str().unwrap();
    let command = tidegate(&["demo", "--seconds", "5", "--json", "--keep", kept_text]);
    let start = Instant::now();
    let demo = Running::start(command, Output::Stdout);
    let first_line = crate::support::until("the demo says something", || demo.first_line_at());
    let waited = first_line - start;
    assert!(
        waited < Duration::from_secs(1),
        "the first line came after {waited:?}"
    );

    let (status, lines) = demo.end();
    assert!(status.success(), "{status}: {lines:#?}");
    let objects: Vec<Json> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(objects.iter().all(Json::is_object), "{lines:#?}");
    let kept_records_while_down = |line: &Json| {
        let is_above_0 = |key: &str| line[key].as_u64().is_some_and(|number| number > 0);
        line["link"] == "DOWN" && (is_above_0("stored") || is_above_0("disk_bytes"))
    };
    assert!(
        objects.iter().any(kept_records_while_down),
        "no line shows records on disk while the link is down: {lines:#?}"
    );

    let ledger = Totals::from_json(lines.last().unwrap());
    let mut expected = LEDGER;
    expected.sort_unstable();
    assert_eq!(ledger.keys().collect::<Vec<_>>(), expected);
    ledger.assert_balance();
    assert_eq!(
        (ledger.get("lost"), ledger.get("stored")),
        (0, 0),
        "{ledger:?}"
    );
    assert!(ledger.get("outage_seconds") >= 1, "{ledger:?}");
    assert!(ledger.get("accepted") > 0, "{ledger:?}");
    assert!(
        ledger.get("uplink_bytes") < ledger.get("raw_bytes"),
        "{ledger:?}"
    );

    for name in ["tls", "flows", "outbox", "tidegate.toml"] {
        assert!(kept.join(name).exists(), "{name} was not kept");
    }
    let mut show = tidegate(&["outbox", "show", "--json", "--config"]);
    show.arg(kept.join("tidegate.toml"));
    let shown = Ended::of(show);
    shown.assert_code(0);
    let shown = Totals::from_json(&shown.stdout);
    shown.assert_balance();
    for key in ["accepted", "acknowledged", "stored"] {
        assert_eq!(
            shown.get(key),
            ledger.get(key),
            "{key}: {shown:?}, {ledger:?}"
        );
    }
    assert_eq!(shown.get("pending"), 0);
}

#[test]
fn without_json_it_speaks_to_people_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = tidegate(&["demo", "--seconds", "3"]);
    command.env("TMPDIR", temporary.path());
    let demo = Ended::of(command);
    demo.assert_code(0);
    for words in [
        "the link is cut",
        "the link is mended",
        "The ledger",
        "0 lost",
    ] {
        assert!(
            demo.stdout.contains(words),
            "no {words:?} in {}",
            demo.stdout
        );
    }
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_directory_with_something_in_it_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mine.txt"), "mine").unwrap();
    let path = directory.path().to_str().unwrap();
    let refused = Ended::of(tidegate(&["demo", "--seconds", "3", "--keep", path]));
    refused.assert_code(1);
    assert!(
        refused.stderr.contains(path) && refused.stderr.contains("is not empty"),
        "{refused:#?}"
    );
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
}
