//! An outbox at rest: verified, exported, repaired, and records given up. What all kinds of damage come to stands under
//! `src/outbox/care`.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use serde_json::Value as Json;

use crate::support::{Ended, Plant};

/// A plant that has stored some records and stopped; nobody ever took them.
fn stored() -> (Plant, u64) {
    let plant = Plant::ticking();
    plant.settings("[outbox]\ncommit = '100ms'\n[vars]\npace = '2ms'\n");
    let device = plant.run();
    plant.totals_with("some are stored", |totals| totals.get("stored") > 200);
    device.signal("TERM");
    assert!(device.end().0.success());
    let stored = plant.totals().get("stored");
    (plant, stored)
}

fn outbox(plant: &Plant, arguments: &[&str]) -> Ended {
    Ended::of(plant.command(&[&["outbox"], arguments].concat()))
}

/// It fails, and says this.
#[track_caller]
fn check_refused(plant: &Plant, arguments: &[&str], words: &[&str]) {
    let ended = outbox(plant, arguments);
    assert_ne!(ended.code, Some(0), "{arguments:?}: {}", ended.stdout);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{arguments:?}: {word} is not in {}",
            ended.stderr
        );
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_sound_outbox_is_verified_exported_and_emptied_by_hand() {
    let (plant, stored) = stored();
    let verdict = outbox(&plant, &["verify", "--json"]);
    verdict.assert_code(0);
    let verdict = verdict.json();
    assert_eq!(verdict["is_sound"], true, "{verdict}");
    assert_eq!(verdict["waiting"], stored, "{verdict}");
    let words = outbox(&plant, &["verify"]);
    words.assert_code(0);
    assert!(words.stdout.contains(": good\n"), "{}", words.stdout);
    let repaired = outbox(&plant, &["repair"]);
    repaired.assert_code(0);
    assert!(
        repaired.stdout.contains("nothing to repair"),
        "{}",
        repaired.stdout
    );

    let exported = outbox(&plant, &["export"]);
    exported.assert_code(0);
    let lines: Vec<Json> = exported
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len() as u64, stored);
    assert_eq!(lines[0]["device"], "press-7");
    let seqs: Vec<u64> = lines
        .iter()
        .map(|line| line["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b));
    let file = plant.path("records.jsonl");
    let name = file.display().to_string();
    outbox(&plant, &["export", "--out", &name]).assert_code(0);
    assert_eq!(fs::read_to_string(&file).unwrap(), exported.stdout);

    let dry = outbox(&plant, &["drop", "--topic", "sites/+/tick"]);
    dry.assert_code(0);
    assert!(
        dry.stdout.contains(&format!("{stored} records")),
        "{}",
        dry.stdout
    );
    assert_eq!(plant.totals().get("stored"), stored, "not without --yes");
    outbox(&plant, &["drop", "--topic", "no/such", "--yes"]).assert_code(0);
    assert_eq!(plant.totals().get("stored"), stored);
    outbox(&plant, &["drop", "--yes"]).assert_code(0);
    let totals = plant.totals();
    totals.assert_balance();
    assert_eq!(
        (totals.get("stored"), totals.get("dropped_by_hand")),
        (0, stored)
    );
    outbox(&plant, &["verify"]).assert_code(0);
}

#[test]
fn damage_is_said_in_words_and_put_right() {
    let (plant, stored) = stored();
    let db = plant.path("outbox/gen-00000001/db");
    let length = fs::metadata(&db).unwrap().len();
    fs::write(&db, vec![b'?'; length as usize]).unwrap();
    let verdict = outbox(&plant, &["verify"]);
    verdict.assert_code(1);
    for words in [
        ": damaged\n",
        "gen-00000001: ",
        "missing",
        "repair --dry-run",
    ] {
        assert!(
            verdict.stdout.contains(words),
            "{words} is not in {}",
            verdict.stdout
        );
    }
    assert!(!verdict.stderr.contains("panicked"), "{}", verdict.stderr);
    check_refused(&plant, &["drop", "--yes"], &["is damaged", "repair"]);
    assert_eq!(outbox(&plant, &["export"]).code, Some(1));

    let dry = outbox(&plant, &["repair", "--dry-run", "--json"]);
    dry.assert_code(0);
    assert_eq!(dry.json()["lost"], stored);
    assert_eq!(
        outbox(&plant, &["verify"]).stdout,
        verdict.stdout,
        "a dry run changes nothing"
    );
    let repaired = outbox(&plant, &["repair", "--damaged"]);
    repaired.assert_code(0);
    assert!(!repaired.stderr.contains("panicked"), "{}", repaired.stderr);
    outbox(&plant, &["verify"]).assert_code(0);
    let totals = plant.totals();
    totals.assert_balance();
    assert_eq!(
        (totals.get("stored"), totals.get("dropped_damaged")),
        (0, stored)
    );
    assert!(plant.path("outbox/damaged").is_dir());
    // And the device goes on.
    let device = plant.run();
    plant.totals_with("it stores again", |totals| totals.get("stored") > 20);
    device.signal("TERM");
    assert!(device.end().0.success());
    outbox(&plant, &["verify"]).assert_code(0);
}

#[test]
fn what_cannot_be_done_is_said() {
    let (plant, _) = stored();
    let inside = plant.path("outbox/out.jsonl").display().to_string();
    let epoch = plant.path("outbox.epoch").display().to_string();
    let before = fs::read(plant.path("outbox.epoch")).unwrap();
    for file in [&inside, &epoch] {
        check_refused(
            &plant,
            &["export", "--out", file],
            &["belongs to the outbox"],
        );
    }
    // By another way.
    std::os::unix::fs::symlink(plant.path("outbox"), plant.path("way")).unwrap();
    let roundabout = plant.path("way/marker.json").display().to_string();
    check_refused(
        &plant,
        &["export", "--out", &roundabout],
        &["belongs to the outbox"],
    );
    assert_eq!(fs::read(plant.path("outbox.epoch")).unwrap(), before);
    check_refused(
        &plant,
        &["export", "--out", "/dev/full"],
        &["No space left", "as it was"],
    );
    check_refused(
        &plant,
        &["export", "--out", "/nowhere/file"],
        &["cannot write /nowhere/file"],
    );
    check_refused(
        &plant,
        &["verify", "--scratch", "/nowhere"],
        &["--scratch", "/nowhere"],
    );
    check_refused(&plant, &["drop", "--topic", "a/#/b"], &["at the end only"]);
    check_refused(&plant, &["drop", "--before", "yesterday"], &["RFC 3339"]);
    outbox(&plant, &["verify"]).assert_code(0);

    let device = plant.run();
    let who = format!("process {} (tidegate)", device.id());
    for command in ["verify", "export", "repair", "drop"] {
        check_refused(&plant, &[command], &[&who, "stop it first", "outbox show"]);
    }
    device.kill();

    fs::rename(plant.path("outbox"), plant.path("elsewhere")).unwrap();
    for command in ["verify", "export", "repair", "drop"] {
        check_refused(&plant, &[command], &["there is no outbox in"]);
    }
    assert!(!plant.path("outbox").exists(), "none is made");
}

#[test]
fn a_reader_that_goes_away_is_no_success() {
    let (plant, _) = stored();
    // More than a pipe holds is needed; so it is closed before anything is written.
    let mut command = plant.command(&["outbox", "export"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("went away before the end"), "{said}");
}

/// What docs/outbox.md says that the card is made to write: for a commit, and for each byte of records (topic, payload and 160 more).
#[test]
fn what_reaches_the_card_is_what_the_docs_say() {
    const PER_COMMIT: f64 = 9_000.0;
    const PER_BYTE: f64 = 5.5;
    let plant = Plant::ticking();
    plant.settings("[outbox]\ncommit = '500ms'\n[vars]\npace = '2ms'\n");
    let device = plant.run();
    plant.totals_with("some are stored", |totals| totals.get("stored") > 2_000);
    device.signal("TERM");
    assert!(device.end().0.success());
    let totals = plant.totals();
    let topic = "sites/press-7/tick".len() as u64;
    let bytes = totals.get("payload_bytes") + totals.get("stored") * (topic + 160);
    let expected = totals.get("commits") as f64 * PER_COMMIT + bytes as f64 * PER_BYTE;
    let ratio = totals.get("flash_bytes") as f64 / expected;
    println!(
        "{ratio:.2} of {expected:.0} bytes, {} commits",
        totals.get("commits")
    );
    assert!((0.2..=1.5).contains(&ratio), "{ratio}: {totals:?}");
}
