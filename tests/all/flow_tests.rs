//! `tidegate test`: the tests of the example flows, and test files with mistakes in `tests/bad-tests`;
//! `UPDATE_GOLDEN=1 cargo test --test all flow_tests` writes the texts for these anew.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::support::{Ended, tidegate};

const FLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/flows");
/// Test files with mistakes in them, all for `flow.toml` there; beside each, as `NAME.txt`, what people get for it.
const BAD_TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bad-tests");

/// `tidegate test` in a directory.
fn test(directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = tidegate(&["test"]);
    command.args(arguments).current_dir(directory);
    Ended::of(command)
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

const FLOW: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 7\n\
                    [nodes.show]\ntype = 'debug'\nfrom = 'tick'\n";
const GOOD: &str = "[tests.good]\nsteps = [{ at = '2s', expect.show = 7 }]\n";
const BAD: &str = "[tests.bad]\nsteps = [{ at = '2s', expect.show = 8 }]\n";

#[test]
fn the_example_flows_pass_their_tests_much_faster_than_real_time() {
    let ended = test(Path::new("/"), &[FLOWS, "--json"]);
    ended.assert_code(0);
    let whole = ended.json();
    let summary = &whole["summary"];
    assert!(summary["tests"].as_u64().unwrap() >= 5, "{summary}");
    let faster = summary["flow_seconds"].as_f64().unwrap() / summary["seconds"].as_f64().unwrap();
    assert!(faster > 1_000.0, "{summary}");
    let factor = summary["factor"].as_f64().unwrap();
    assert!((factor / faster - 1.0).abs() < 0.01, "{summary}");
}

fn bad_tests() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(BAD_TESTS).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".test.toml"));
    files.sort();
    files
}

fn golden(test: &Path) -> PathBuf {
    let name = test.to_str().unwrap().strip_suffix(".test.toml").unwrap();
    PathBuf::from(format!("{name}.txt"))
}

#[test]
fn bad_tests_are_said_to_be_bad_as_it_is_written_down() {
    let flow = std::fs::read_to_string(Path::new(BAD_TESTS).join("flow.toml")).unwrap();
    let directory = directory(&[("flow.toml", &flow)]);
    let mut changed = String::new();
    let mut texts = HashSet::new();
    for path in bad_tests() {
        std::fs::copy(&path, directory.path().join("flow.test.toml")).unwrap();
        let ended = test(directory.path(), &["flow.toml"]);
        assert_eq!(ended.stderr, "", "{}", path.display());
        // The last line is the summary, with times in it.
        let (text, _) = ended.stdout.trim_end().rsplit_once('\n').unwrap();
        let text = format!("{}\n", text.trim_end());
        ended.assert_code(1);
        let golden = golden(&path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != text {
            writeln!(changed, "==== {}\n{text}", golden.display()).unwrap();
        }
        assert!(texts.insert(text), "{} is as another one", path.display());
    }
    assert!(
        changed.is_empty(),
        "these texts have changed; if that is right, run again with UPDATE_GOLDEN=1:\n{changed}"
    );
    assert!(texts.len() >= 40, "{}", texts.len());
}

#[test]
fn the_exit_code_tells_good_from_bad_from_misused() {
    let good = directory(&[("a.toml", FLOW), ("a.test.toml", GOOD)]);
    test(good.path(), &["."]).assert_code(0);
    test(good.path(), &["a.toml"]).assert_code(0);
    test(good.path(), &["a.test.toml"]).assert_code(0);
    test(good.path(), &["a.toml", "--nonesuch"]).assert_code(2);
    test(good.path(), &["b.toml"]).assert_code(1);
    test(good.path(), &["b.test.toml"]).assert_code(1);

    let bad = directory(&[("a.toml", FLOW), ("a.test.toml", BAD)]);
    let ended = test(bad.path(), &["a.toml"]);
    ended.assert_code(1);
    for words in [
        "FAIL  a/bad",
        "a.test.toml:2:30",
        "expected  8",
        "but was   7",
        "1 failed",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }

    let wrong_flow = directory(&[
        ("a.toml", "[nodes.x]\ntype = 'debgu'\n"),
        ("a.test.toml", GOOD),
    ]);
    let ended = test(wrong_flow.path(), &["."]);
    ended.assert_code(1);
    assert!(ended.stdout.contains("did you mean `debug`?"), "{ended:#?}");

    let alone = directory(&[("a.test.toml", GOOD)]);
    let ended = test(alone.path(), &["."]);
    ended.assert_code(1);
    assert!(
        ended.stderr.contains("a flow that is not there"),
        "{ended:#?}"
    );

    test(directory(&[]).path(), &["."]).assert_code(1);
}

#[test]
fn a_flow_without_a_test_is_told_and_with_require_it_is_an_error() {
    let flows = directory(&[("a.toml", FLOW), ("a.test.toml", GOOD), ("b.toml", FLOW)]);
    let ended = test(flows.path(), &["."]);
    ended.assert_code(0);
    assert!(
        ended.stdout.contains("without a test: ./b.toml"),
        "{ended:#?}"
    );
    test(flows.path(), &[".", "--require"]).assert_code(1);
    test(flows.path(), &["a.toml", "--require"]).assert_code(0);
}

#[test]
fn tests_are_chosen_by_name() {
    let both = format!("{GOOD}{BAD}");
    let flows = directory(&[("a.toml", FLOW), ("a.test.toml", &both)]);
    test(flows.path(), &["."]).assert_code(1);
    let ended = test(flows.path(), &[".", "--only", "a/go"]);
    ended.assert_code(0);
    assert!(ended.stdout.contains("1 test: 1 passed"), "{ended:#?}");
    let ended = test(flows.path(), &[".", "--only", "nonesuch"]);
    ended.assert_code(1);
    assert!(
        ended.stderr.contains("there are: a/good, a/bad"),
        "{ended:#?}"
    );
    let ended = test(flows.path(), &[".", "--only", "nonesuch", "--json"]);
    ended.assert_code(1);
    assert_eq!(ended.json()["summary"]["tests"], 0);

    std::fs::write(flows.path().join("a.toml"), "x = 1").unwrap();
    let ended = test(flows.path(), &[".", "--only", "a/go"]);
    ended.assert_code(1);
    assert!(ended.stdout.contains("./a.toml:1:1"), "{ended:#?}");
}

#[test]
fn a_flow_is_tested_once_however_often_it_is_named() {
    let flows = directory(&[("a.toml", FLOW), ("a.test.toml", GOOD)]);
    let whole = flows.path().join("a.toml");
    let named = [".", "a.toml", "./a.test.toml", whole.to_str().unwrap()];
    let ended = test(flows.path(), &named);
    assert!(ended.stdout.contains("1 test: 1 passed"), "{ended:#?}");
}

#[test]
fn a_test_file_that_cannot_be_read_is_a_mistake_and_not_a_flow_without_one() {
    let flows = directory(&[("a.toml", FLOW)]);
    let file = flows.path().join("a.test.toml");
    let check = |expected: &str| {
        let ended = test(flows.path(), &["."]);
        ended.assert_code(1);
        assert!(
            ended.stdout.contains("the file cannot be read"),
            "{ended:#?}"
        );
        assert!(ended.stdout.contains(expected), "{ended:#?}");
    };
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    check("No such file");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    check("Is a directory");
}

#[test]
fn without_a_path_the_flows_of_the_settings_are_tested() {
    let flows = directory(&[("a.toml", FLOW), ("a.test.toml", GOOD)]);
    let settings = format!("[flows]\npath = '{}'\n", flows.path().display());
    let device = directory(&[("tidegate.toml", &settings), ("other.toml", &settings)]);
    test(device.path(), &[]).assert_code(0);
    test(device.path(), &["--config", "other.toml"]).assert_code(0);
    test(device.path(), &["--config", "none.toml"]).assert_code(1);
}

#[test]
fn outcomes_are_json_and_junit_for_machines() {
    let both = format!("{GOOD}{BAD}");
    let flows = directory(&[
        ("a.toml", FLOW),
        ("a.test.toml", &both),
        ("b.toml", "x = 1"),
    ]);
    let ended = test(flows.path(), &[".", "--json", "--junit", "out.xml"]);
    ended.assert_code(1);
    let whole = ended.json();
    assert_eq!(whole["tests"][0]["passed"], Json::Bool(true));
    let bad = &whole["tests"][1];
    assert_eq!((&bad["test"], &bad["line"]), (&"bad".into(), &3.into()));
    assert_eq!(bad["unmet"][0]["line"], 4);
    assert_eq!(bad["unmet"][0]["differences"][0]["found"], "7");
    assert_eq!(whole["problems"].as_array().unwrap().len(), 2);
    let xml = std::fs::read_to_string(flows.path().join("out.xml")).unwrap();
    for part in [
        "<testsuite name=\"a\" tests=\"2\" failures=\"1\" errors=\"0\"",
        "<testcase classname=\"a\" name=\"good\" file=\"./a.test.toml\" line=\"1\"",
        "<failure message=\"`show` showed something else at 2s\">",
        "<testsuite name=\"b\" tests=\"1\" failures=\"0\" errors=\"1\" time=\"0.000000\">",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    std::fs::write(flows.path().join("c.toml"), FLOW).unwrap();
    let ended = test(
        flows.path(),
        &[".", "--json", "--junit", "out.xml", "--require"],
    );
    let problems = ended.json()["problems"].to_string();
    assert!(problems.contains("c.toml has no test"), "{problems}");
    let xml = std::fs::read_to_string(flows.path().join("out.xml")).unwrap();
    assert!(xml.contains("c.toml\" tests=\"1\" failures=\"1\""), "{xml}");
    let ended = test(flows.path(), &[".", "--json", "--junit", "none/out.xml"]);
    ended.assert_code(1);
    assert_eq!(ended.json()["summary"]["tests"], 2);
    assert!(
        ended.stderr.contains("cannot write none/out.xml"),
        "{ended:#?}"
    );
}

#[test]
fn two_runs_say_the_same() {
    let both = format!("{GOOD}{BAD}");
    let files: Vec<(String, &str)> = (0..20)
        .flat_map(|n| {
            [
                (format!("f{n}.toml"), FLOW),
                (format!("f{n}.test.toml"), &*both),
            ]
        })
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, *text)).collect();
    let flows = directory(&files);
    let said = || {
        let ended = test(flows.path(), &["."]);
        let (text, _) = ended.stdout.trim_end().rsplit_once('\n').unwrap();
        text.to_owned()
    };
    assert_eq!(said(), said());
}

/// The blocks of a page whose first line names a file, as `# a.toml`.
fn files_of(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```toml\n# ").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    blocks
        .filter_map(|block| block.split_once('\n'))
        .filter(|(name, _)| name.ends_with(".toml"))
        .collect()
}

#[test]
fn the_example_of_the_page_passes_and_what_it_shows_of_one_that_fails_is_so() {
    let page = include_str!("../../docs/testing.md");
    let files = files_of(page);
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["dryer.toml", "dryer.test.toml", "wrong.test.toml"]);
    let (flow, good, wrong) = (files[0].1, files[1].1, files[2].1);

    let dryer = directory(&[("dryer.toml", flow), ("dryer.test.toml", good)]);
    let ended = test(dryer.path(), &["dryer.toml"]);
    ended.assert_code(0);
    let lines = ended.stdout.lines().filter(|line| line.starts_with("ok"));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 4);
    for line in lines {
        assert!(page.contains(line), "{line}");
    }

    // As it stands in the page, the block has a line more: that with its name.
    let wrong = format!("#\n{wrong}");
    let failing = directory(&[("wrong.toml", flow), ("wrong.test.toml", &wrong)]);
    let ended = test(failing.path(), &["wrong.toml"]);
    ended.assert_code(1);
    let report = page.split("```text\nerror: ").nth(1).unwrap();
    let report = report.split("```").next().unwrap();
    assert!(ended.stdout.contains(report), "{}", ended.stdout);
}

/// A morning of readings, a second apart.
fn morning(seconds: u32) -> String {
    let mut text = "time,payload\n".to_owned();
    for second in 0..seconds {
        let (minute, second) = (second / 60, second % 60);
        let degc = 24 + minute;
        writeln!(text, "2026-03-01T08:{minute:02}:{second:02}Z,{degc}.25").unwrap();
    }
    text
}

#[test]
fn what_a_flow_did_becomes_a_test_that_passes_and_fails_when_the_flow_is_changed() {
    let page = include_str!("../../docs/testing.md");
    let flow = files_of(page)[0].1;
    let readings = morning(600);
    let dryer = directory(&[("dryer.toml", flow), ("morning.csv", &readings)]);
    let record = |more: &[&str]| {
        let mut arguments = vec!["--record", "dryer.toml", "--feed", "grain=morning.csv"];
        arguments.extend(more);
        test(dryer.path(), &arguments)
    };
    record(&[]).assert_code(0);
    let text = std::fs::read_to_string(dryer.path().join("dryer.test.toml")).unwrap();
    for part in [
        "start = \"2026-03-01T08:00:00.000Z\"",
        "{ at = \"0s\", feed.grain = { file = \"morning.csv\" } },",
        "expect.report = { count = 10 }",
        "{ at = \"6m\", expect.fan = { payload = 1.0 } },",
        "failures = 0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    test(dryer.path(), &["dryer.toml"]).assert_code(0);

    let again = record(&[]);
    again.assert_code(1);
    assert!(again.stderr.contains("--force overwrites it"), "{again:#?}");
    record(&["--force", "--for", "5m"]).assert_code(0);
    test(dryer.path(), &["dryer.toml"]).assert_code(0);
    record(&["--force"]).assert_code(0);

    std::fs::write(
        dryer.path().join("dryer.toml"),
        flow.replace("warm = 30", "warm = 31"),
    )
    .unwrap();
    test(dryer.path(), &["dryer.toml"]).assert_code(1);

    let wrong = test(
        dryer.path(),
        &[
            "--record",
            "dryer.toml",
            "--force",
            "--feed",
            "grian=morning.csv",
        ],
    );
    wrong.assert_code(1);
    assert!(wrong.stderr.contains("did you mean `grain`?"), "{wrong:#?}");
    let ended = test(
        dryer.path(),
        &["--record", ".", "--feed", "grain=morning.csv"],
    );
    ended.assert_code(1);
    assert!(ended.stderr.contains("is a directory"), "{ended:#?}");
    std::fs::create_dir(dryer.path().join("deeper")).unwrap();
    std::fs::copy(
        dryer.path().join("dryer.toml"),
        dryer.path().join("deeper/dryer.toml"),
    )
    .unwrap();
    test(
        dryer.path(),
        &[
            "--record",
            "deeper/dryer.toml",
            "--feed",
            "grain=morning.csv",
        ],
    )
    .assert_code(0);
    let written = std::fs::read_to_string(dryer.path().join("deeper/dryer.test.toml")).unwrap();
    assert!(written.contains("file = \"../morning.csv\""), "{written}");
    test(dryer.path(), &["deeper"]).assert_code(0);
    test(dryer.path(), &["--record", "dryer.toml"]).assert_code(2);
}
