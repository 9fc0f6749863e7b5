//! `tidegate replay` as its users meet it, and its windows beside those of pandas.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{Ended, tidegate};

const FLOW: &str = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n\
                    [nodes.minute]\ntype = 'window'\nfrom = 'probe'\nsize = '1m'\ncompute = ['count', 'mean']\n\
                    [nodes.report]\ntype = 'uplink'\nfrom = 'minute'\ntopic = 'sites/{device}/store'\n";
const ROWS: &str =
    "time,payload\n2026-01-31T08:00:00Z,4\n2026-01-31T08:00:30Z,5\n2026-01-31T08:01:00Z,6\n";

/// A directory with a flow and its rows, and nothing else.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("store.toml", FLOW);
        place.write("week.csv", ROWS);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidegate(&["replay"]);
        command.args(arguments).current_dir(self.0.path());
        command.env("TIDEGATE_VAR_unused", "1");
        command
    }

    /// Runs it in the directory.
    fn replay(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments))
    }

    #[track_caller]
    fn is_bad(&self, arguments: &[&str], expected: &str) {
        let ended = self.replay(arguments);
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        assert!(ended.stderr.contains(expected), "{ended:#?}");
        assert_eq!(ended.stdout, "");
    }
}

const STORE: [&str; 3] = ["store.toml", "--feed", "probe=week.csv"];

#[test]
fn what_comes_to_the_sinks_is_written_as_json_lines() {
    let place = Place::new();
    let ended = place.replay(&STORE);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{ended:#?}");
    assert_eq!(
        (&lines[0]["time"], &lines[0]["node"]),
        (&"2026-01-31T08:01:00.000Z".into(), &"report".into())
    );
    assert_eq!(
        (&lines[0]["payload"]["count"], &lines[0]["payload"]["mean"]),
        (&2.into(), &4.5.into())
    );
    assert_eq!(lines[1]["payload"]["end"], "2026-01-31T08:02:00.000Z");
    let topic = lines[0]["topic"].as_str().unwrap();
    assert!(
        topic.starts_with("sites/") && topic.ends_with("/store") && !topic.contains('{'),
        "{topic}"
    );
    assert!(
        ended.stderr.starts_with("3 rows from 2026-01-31T08:00:00.000Z to 2026-01-31T08:01:00.000Z; 2 messages to sinks (`report` 2); "),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn the_same_comes_from_json_lines_from_the_standard_input_and_by_the_flows_name() {
    let place = Place::new();
    let expected = place.replay(&STORE).stdout;
    let lines: String = ROWS
        .lines()
        .skip(1)
        .map(|row| {
            let (time, payload) = row.split_once(',').unwrap();
            format!("{{\"time\":\"{time}\",\"payload\":{payload}}}\n")
        })
        .collect();
    place.write("week.jsonl", &lines);
    assert_eq!(
        place
            .replay(&["store.toml", "--feed", "probe=week.jsonl"])
            .stdout,
        expected
    );

    let mut command = place.command(&["store.toml", "--feed", "probe=-"]);
    let rows = std::fs::File::open(place.path("week.csv")).unwrap();
    command.stdin(rows);
    assert_eq!(Ended::of(command).stdout, expected);

    std::fs::create_dir(place.path("flows")).unwrap();
    std::fs::rename(place.path("store.toml"), place.path("flows/store.toml")).unwrap();
    assert_eq!(
        place.replay(&["store", "--feed", "probe=week.csv"]).stdout,
        expected
    );
    place.is_bad(
        &["stor", "--feed", "probe=week.csv"],
        "there is no file stor, and no flow of that name in flows",
    );
    place.is_bad(
        &["flows", "--feed", "probe=week.csv"],
        "flows is a directory; name one flow in it",
    );
}

#[test]
fn settings_give_variables_and_the_devices_name_if_there_are_any() {
    let place = Place::new();
    place.write(
        "store.toml",
        &format!("[vars]\nsize = '1m'\n{}", FLOW.replace("'1m'", "'${size}'")),
    );
    place.write(
        "tidegate.toml",
        "[device]\nid = 'press-7'\n[vars]\nsize = '1h'\n",
    );
    let ended = place.replay(&STORE);
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
    assert!(
        ended.stdout.contains("\"topic\":\"sites/press-7/store\""),
        "{ended:#?}"
    );
}

#[test]
fn what_came_out_can_be_fed_again() {
    let place = Place::new();
    place.replay(&[&STORE[..], &["--out", "minutes.jsonl"]].concat());
    place.write(
        "again.toml",
        &FLOW.replace("size =", "value = 'payload.mean'\nsize ="),
    );
    let ended = place.replay(&["again.toml", "--feed", "probe=minutes.jsonl"]);
    assert_eq!(
        (ended.code, ended.stdout.lines().count()),
        (Some(0), 2),
        "{ended:#?}"
    );
}

#[test]
fn out_is_written_anew_but_only_when_all_is_right_and_never_over_what_is_read() {
    let place = Place::new();
    let expected = place.replay(&STORE).stdout;
    place.write("out.jsonl", "from last time\n".repeat(1000).as_str());
    let before = place.read("out.jsonl");
    place.write("bad.toml", "[nodes.a]\ntype = 'debgu'\n");
    let out = ["--out", "out.jsonl"];
    place.is_bad(
        &[&["bad.toml", "--feed", "a=week.csv"][..], &out].concat(),
        "there is no node type `debgu`",
    );
    place.is_bad(
        &[&["store.toml", "--feed", "a=week.csv"][..], &out].concat(),
        "has no node `a`; the flow's sources are `probe`",
    );
    place.is_bad(
        &[&["store.toml", "--feed", "probe=none.csv"][..], &out].concat(),
        "cannot open none.csv; check the path",
    );
    assert_eq!(place.read("out.jsonl"), before);

    let ended = place.replay(&[&STORE[..], &out].concat());
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{ended:#?}");
    assert_eq!(place.read("out.jsonl"), expected);

    std::fs::hard_link(place.path("week.csv"), place.path("also-week.csv")).unwrap();
    for read in ["week.csv", "./week.csv", "also-week.csv", "store.toml"] {
        place.is_bad(
            &[&STORE[..], &["--out", read]].concat(),
            "is a file that is read; write to another one",
        );
    }
    let mut command = place.command(&["store.toml", "--feed", "probe=-", "--out", "week.csv"]);
    command.stdin(std::fs::File::open(place.path("week.csv")).unwrap());
    let ended = Ended::of(command);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(
        ended.stderr.contains("is a file that is read"),
        "{ended:#?}"
    );
    let settings = "[device]\nid = 'press-7'\n";
    place.write("tidegate.toml", settings);
    place.is_bad(
        &[&STORE[..], &["--out", "tidegate.toml"]].concat(),
        "is a file that is read; write to another one",
    );
    assert_eq!(
        ["week.csv", "store.toml", "tidegate.toml"].map(|name| place.read(name)),
        [ROWS, FLOW, settings]
    );
    place.is_bad(
        &[&STORE[..], &["--out", "none/out.jsonl"]].concat(),
        "cannot write to none/out.jsonl; check the path",
    );
}

#[test]
fn a_full_disk_is_said_and_a_closed_pipe_is_no_problem() {
    let place = Place::new();
    let rows: String = (0..200_000).map(|second| format!("{second},1\n")).collect();
    place.write("week.csv", &format!("time,payload\n{rows}"));
    place.write("store.toml", "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n[nodes.show]\ntype = 'debug'\nfrom = 'probe'\n");
    let full = [&STORE[..], &["--out", "/dev/full"]].concat();
    place.is_bad(&full, "cannot write to /dev/full any further; make room, or write to another place: No space left");

    let mut command = place.command(&STORE);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

#[test]
fn what_was_left_out_or_late_or_failed_is_said() {
    let place = Place::new();
    place.write("week.csv", &format!("{ROWS}soon,7\n2026-01-31T08:00:59Z,8\n2026-01-31T08:03:00Z,warm\n2026-01-31T08:00:00Z,9\n"));
    let ended = place.replay(&STORE);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    for expected in [
        "warning: 1 row of week.csv left out: 1 with a time that is none\n",
        "  week.csv:5: `soon` is no time; it would be RFC 3339, such as 2026-01-31T08:00:00Z, or Unix seconds\n",
        "warning: 2 rows came too late for the order of time, by up to 3m; a window takes them if its `lateness` is as long, or \
         `--reorder 3m` puts them into order\n",
        "warning: `minute` could not handle 2 messages; the first, at 2026-01-31T08:03:00.000Z: needs a finite number",
        "6 rows from",
    ] {
        assert!(
            ended.stderr.contains(expected),
            "{expected}: {}",
            ended.stderr
        );
    }
    place.is_bad(
        &[&STORE[..], &["--strict"]].concat(),
        "week.csv, line 5: `soon` is no time",
    );
}

#[test]
fn a_file_without_a_row_of_use_is_bad_and_one_without_rows_is_not() {
    let place = Place::new();
    place.write("week.csv", "time,payload\nsoon,1\n");
    place.is_bad(&STORE, "no row of week.csv could be read; see above");
    place.write("week.csv", "time,payload\n");
    let ended = place.replay(&STORE);
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
    assert!(
        ended
            .stderr
            .starts_with("warning: week.csv has no rows\n0 rows; 0 messages to sinks; "),
        "{}",
        ended.stderr
    );
    place.write("week.csv", "");
    place.is_bad(&STORE, "week.csv is empty; it must have a header");
    std::fs::remove_file(place.path("week.csv")).unwrap();
    std::fs::create_dir(place.path("week.csv")).unwrap();
    place.is_bad(
        &STORE,
        "cannot read week.csv any further, after line 0: Is a directory",
    );
    place.write("week.csv.gz", "\u{1f}");
}

#[test]
fn local_times_are_read_with_their_zone() {
    let place = Place::new();
    let expected = place.replay(&STORE).stdout;
    place.write("week.csv", &ROWS.replace("T08", " 09").replace('Z', ""));
    place.is_bad(
        &STORE,
        "the times of week.csv say no offset from UTC, as `2026-01-31 09:00:00` on line 2",
    );
    let ended = place.replay(&[&STORE[..], &["--time-zone", "Europe/Berlin"]].concat());
    assert_eq!((ended.code, ended.stdout), (Some(0), expected));
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::new();
    for (arguments, expected) in [
        (&["store.toml"][..], "--feed <NODE=FILE>"),
        (
            &["store.toml", "--feed", "probe"],
            "write NODE=FILE, as in --feed probe=week.csv",
        ),
        (&["--feed", "probe=week.csv"], "<FLOW>"),
        (
            &[
                "store.toml",
                "--feed",
                "probe=week.csv",
                "--time-zone",
                "Berlin",
            ],
            "did you mean `Europe/Berlin`?",
        ),
        (
            &["store.toml", "--feed", "probe=week.csv", "--reorder", "10"],
            "--reorder",
        ),
    ] {
        let ended = place.replay(arguments);
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:#?}");
        assert!(ended.stderr.contains(expected), "{ended:#?}");
    }
}

#[test]
fn the_example_flows_can_be_replayed() {
    let place = Place::new();
    for (name, text) in tidegate::examples::FLOWS {
        place.write(&format!("flows/{name}.toml"), text);
    }
    let rows: String = (0..7200)
        .map(|second| format!("{second},{}\n", 4.0 + f64::from(second % 600) / 200.0))
        .collect();
    place.write("week.csv", &format!("time,payload\n{rows}"));
    let ended = place.replay(&["cold-store", "--feed", "probe=week.csv"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);
    assert!(
        ended
            .stdout
            .contains("\"node\":\"compressor\",\"topic\":\"cold-store/compressor\",\"payload\":1"),
        "{}",
        ended.stdout
    );
}

#[test]
fn memory_does_not_grow_with_the_file() {
    const MEGABYTES: usize = 300;
    let place = Place::new();
    place.write(
        "store.toml",
        &FLOW
            .replace("probe'", "probe'\nby = 'topic'")
            .replace("'count', 'mean'", "'count', 'distinct'"),
    );
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -v 250000; exec \"$0\" replay store.toml --feed probe=-",
            env!("CARGO_BIN_EXE_tidegate"),
        ])
        .current_dir(place.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || -> std::io::Result<()> {
        input.write_all(b"time,payload\n")?;
        let text = "x".repeat(500_000);
        for second in 0..2 * MEGABYTES {
            writeln!(input, "{second},{text}")?;
        }
        Ok(())
    });
    let ended = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}");
    assert!(said.starts_with("600 rows from"), "{said}");
}

/// Recordings of real sensors, through windows of four sizes, in order and out of order: `tests/replay/compare.py` says what
/// is compared.
#[test]
#[ignore = "needs pandas: scripts/test.sh runs it"]
fn windows_equal_those_of_pandas() {
    let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let python = tidegate
        .ancestors()
        .nth(2)
        .unwrap()
        .join("pandas/bin/python");
    assert!(
        python.exists(),
        "{} is not there: scripts/test.sh installs it",
        python.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay/compare.py");
    let directory = tempfile::tempdir().unwrap();
    let ended = Command::new(python)
        .arg(script)
        .arg(tidegate)
        .arg(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{complained}");
    assert!(said.ends_with("287868 windows are equal\n"), "{said}");
}
