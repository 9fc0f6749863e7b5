//! `tidegate check`: bad flows and the full text that people get for each, in `tests/bad-flows`;
//! settings that break the limits of brokers, in `tests/bad-brokers`;
//! `UPDATE_GOLDEN=1 cargo test --test all check` writes the texts anew.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use tidegate::certs::{Overwrite, Validity};

use crate::support::plant::{DEVICE, expired, now, valid};
use crate::support::{Ended, Plant, tidegate};

/// Flow files with mistakes in them; beside each, as `NAME.txt`, what people get for it.
const BAD_FLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bad-flows");

/// The flow files, by name.
fn bad_flows() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(BAD_FLOWS).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    files.sort();
    files
}

#[test]
fn bad_flows_are_said_to_be_bad_as_it_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let mut changed = String::new();
    for path in bad_flows() {
        std::fs::copy(&path, directory.path().join("flow.toml")).unwrap();
        let ended = check(directory.path(), &["flow.toml"]);
        assert_eq!(ended.stderr, "", "{}", path.display());
        // What is allowed, but hardly meant, is a warning.
        let is_error = ended.stdout.contains("\nerror:") || ended.stdout.starts_with("error:");
        assert_eq!(
            ended.code,
            Some(i32::from(is_error)),
            "{}: {ended:#?}",
            path.display()
        );
        assert!(
            is_error || ended.stdout.starts_with("warning:"),
            "{}: {ended:#?}",
            path.display()
        );
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &ended.stdout).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != ended.stdout {
            writeln!(changed, "==== {}\n{}", golden.display(), ended.stdout).unwrap();
        }
    }
    assert!(
        changed.is_empty(),
        "these texts have changed; if that is right, run again with UPDATE_GOLDEN=1:\n{changed}"
    );
}

/// Settings for each kind of broker that break its limits, with the flow `wide.toml` beside them; what people get for them is in
/// `NAME.txt`. There are no certificates, so that stands there too.
#[test]
fn settings_and_flows_that_break_a_brokers_limits() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-brokers");
    let mut changed = String::new();
    for profile in [
        "mosquitto",
        "emqx",
        "hivemq",
        "aws-iot-core",
        "azure-event-grid",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let settings = std::fs::read_to_string(cases.join(format!("{profile}.toml"))).unwrap();
        assert!(settings.contains(&format!("profile = \"{profile}\"")));
        std::fs::write(directory.path().join("tidegate.toml"), &settings).unwrap();
        std::fs::create_dir(directory.path().join("flows")).unwrap();
        std::fs::copy(
            cases.join("wide.toml"),
            directory.path().join("flows/wide.toml"),
        )
        .unwrap();
        let ended = check(directory.path(), &[]);
        assert_eq!(ended.stderr, "", "{profile}");
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:#?}");
        let golden = cases.join(format!("{profile}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &ended.stdout).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != ended.stdout {
            writeln!(changed, "==== {}\n{}", golden.display(), ended.stdout).unwrap();
        }
        // The same settings without the profile have nothing to say of the broker.
        let without = settings.replace(&format!("profile = \"{profile}\""), "");
        std::fs::write(directory.path().join("tidegate.toml"), without).unwrap();
        let ended = check(directory.path(), &[]);
        ended.assert_code(0);
        assert!(!ended.stdout.contains(" takes "), "{ended:#?}");
    }
    assert!(
        changed.is_empty(),
        "these texts have changed; if that is right, run again with UPDATE_GOLDEN=1:\n{changed}"
    );
}

#[test]
fn there_are_many_bad_flows_and_each_is_another_one() {
    const LEAST: usize = 100;
    let texts: Vec<String> = bad_flows()
        .iter()
        .map(|path| std::fs::read_to_string(path.with_extension("txt")).unwrap())
        .collect();
    let distinct: std::collections::HashSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len());
    assert!(texts.len() >= LEAST, "{}", texts.len());
}

#[test]
fn json_names_file_line_column_and_severity() {
    let directory = tempfile::tempdir().unwrap();
    for path in bad_flows() {
        std::fs::copy(&path, directory.path().join("flow.toml")).unwrap();
        let ended = check(directory.path(), &["flow.toml", "--json"]);
        let problems: Vec<Json> = serde_json::from_value(ended.json()).unwrap();
        let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let shown = text.matches(" --> flow.toml:").count();
        assert_eq!(problems.len(), shown, "{}: {problems:#?}", path.display());
        for problem in &problems {
            assert_eq!(problem["file"], "flow.toml", "{}", path.display());
            let place = format!("flow.toml:{}:{}\n", problem["line"], problem["column"]);
            assert!(text.contains(&place), "{}: {problem}", path.display());
            let severity = problem["severity"].as_str().unwrap();
            let message = problem["message"].as_str().unwrap();
            assert!(
                text.contains(&format!("{severity}: {message}")),
                "{}: {problem}",
                path.display()
            );
        }
    }
}

#[test]
fn settings_that_are_no_toml_are_a_problem_in_json_too() {
    let plant = Plant::ticking();
    plant.settings("[device\nid = 1");
    let ended = Ended::of(plant.command(&["check", "--json"]));
    ended.assert_code(1);
    let problems: Vec<Json> = serde_json::from_value(ended.json()).unwrap();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0]["severity"], "error");
}

#[test]
fn a_variable_of_the_environment_that_no_flow_has_is_told() {
    let plant = Plant::ticking();
    let mut command = plant.command(&["check"]);
    command.env("TIDEGATE_VAR_wram", "7");
    let ended = Ended::of(command);
    ended.assert_code(0);
    assert!(
        ended
            .stderr
            .contains("TIDEGATE_VAR_wram is set, but no flow has"),
        "{ended:#?}"
    );
}

/// Each of the plant's files in turn is made bad, and made good again.
#[test]
fn certificates_are_judged_as_the_uplink_would() {
    let plant = Plant::ticking();
    plant.settings("");
    let check = |expected_code: i32, parts: &[&str]| {
        let ended = Ended::of(plant.command(&["check"]));
        ended.assert_code(expected_code);
        for part in parts {
            assert!(ended.stdout.contains(part), "`{part}` is not in {ended:#?}");
        }
    };
    let issue = |validity: Validity| {
        let device = plant.ca.issue_device(DEVICE, validity).unwrap();
        device.write(&plant.tls(), Overwrite::Force).unwrap();
    };
    check(0, &["1 flow: 0 errors, 0 warnings"]);
    issue(Validity::days(now(), 29));
    check(
        0,
        &[
            "warning: the certificate",
            "`press-7`) ends at",
            "tidegate.toml:",
            "1 warning",
        ],
    );
    issue(Validity::days(now(), 31));
    check(0, &["0 warnings"]);
    issue(expired());
    check(
        1,
        &[
            "error: the uplink would not work: this device's certificate",
            "expired at",
        ],
    );
    issue(valid());
    let key = plant.tls_file("press-7.key");
    let chmod = |mode| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    chmod(0o644);
    check(
        1,
        &["error: the uplink would not work: the key", "chmod 600"],
    );
    chmod(0o600);
    std::fs::remove_file(&key).unwrap();
    // It may be on the device only.
    check(
        0,
        &[
            "warning: the uplink would not work: the key",
            "does not exist",
        ],
    );
}

#[test]
fn a_flows_day_is_estimated() {
    let plant = Plant::ticking();
    let ended = Ended::of(plant.command(&["check", "--estimates", "--json"]));
    ended.assert_code(0);
    let flows: Vec<Json> = serde_json::from_value(ended.json()).unwrap();
    assert_eq!(flows.len(), 1, "{flows:#?}");
    assert!(
        flows[0]["messages_per_day"].as_u64().unwrap() > 0,
        "{flows:#?}"
    );
    assert!(flows[0]["flow"].is_string(), "{flows:#?}");
}

#[test]
fn the_exit_code_tells_good_from_bad_from_misused() {
    let plant = Plant::ticking();
    Ended::of(plant.command(&["check"])).assert_code(0);

    plant.flow("bad", "[nodes.a]\ntype = 'debug'\n");
    let bad = Ended::of(plant.command(&["check"]));
    bad.assert_code(1);
    assert!(
        bad.stdout.contains("2 flows: 1 error, 0 warnings"),
        "{bad:#?}"
    );

    std::fs::remove_file(plant.path("flows/bad.toml")).unwrap();
    plant.settings("[logg]\n");
    let bad_settings = Ended::of(plant.command(&["check"]));
    bad_settings.assert_code(1);
    assert!(
        bad_settings.stdout.contains("did you mean `log`?"),
        "{bad_settings:#?}"
    );

    let nowhere = check(&plant.path(""), &["nowhere"]);
    nowhere.assert_code(1);
    assert!(nowhere.stderr.contains("nowhere"), "{nowhere:#?}");

    check(&plant.path(""), &["--jason"]).assert_code(2);
    Ended::of(tidegate(&["chekc"])).assert_code(2);
    Ended::of(tidegate(&[])).assert_code(2);
}

#[test]
fn the_example_flows_have_no_fault() {
    let flows = concat!(env!("CARGO_MANIFEST_DIR"), "/flows");
    let empty = tempfile::tempdir().unwrap();
    let ended = check(empty.path(), &[flows, "--json"]);
    ended.assert_code(0);
    assert_eq!(ended.json(), Json::Array(Vec::new()));
}

/// `tidegate check` in a directory.
fn check(directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = tidegate(&["check"]);
    command.args(arguments).current_dir(directory);
    Ended::of(command)
}
