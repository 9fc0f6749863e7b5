//! `tidegate check`: bad flows and the full text that people get for each. The texts are in `check.golden`;
//! `UPDATE_GOLDEN=1 cargo test --test all check` writes them anew.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value as Json;

use crate::support::{Ended, Plant, tidegate};

/// Each is one mistake, or a few that must all be found.
const BAD_FLOWS: &[(&str, &str)] = &[
    ("no toml", "[nodes.tick\ntype = 'inject'\n"),
    ("nothing in it", ""),
    (
        "an unknown type",
        "[nodes.tick]\ntype = 'injekt'\nevery = '1s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n",
    ),
    (
        "an unknown option, and one that is missing",
        "[nodes.tick]\ntype = 'inject'\nevry = '1s'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n",
    ),
    (
        "no input, an unknown one, and an unknown port",
        "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.a]\ntype = 'debug'\n\
         [nodes.b]\ntype = 'debug'\nfrom = 'tik'\n[nodes.c]\ntype = 'debug'\nfrom = 'tick.second'\n",
    ),
    (
        "an input where there can be none",
        "[nodes.a]\ntype = 'inject'\nevery = '1s'\n[nodes.b]\ntype = 'inject'\nevery = '1s'\nfrom = 'a'\n\
         [nodes.show]\ntype = 'debug'\nfrom = 'b'\n",
    ),
    (
        "two nodes on one pin",
        "[nodes.door]\ntype = 'gpio in'\npin = 17\n[nodes.relay]\ntype = 'gpio out'\npin = 17\nfrom = 'door'\n",
    ),
    (
        "a cycle",
        "[nodes.a]\ntype = 'where'\nfrom = 'b'\nwhen = 'true'\n[nodes.b]\ntype = 'where'\nfrom = 'a'\nwhen = 'true'\n",
    ),
    (
        "JavaScript that is none",
        "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.warm]\ntype = 'where'\nfrom = 'tick'\nwhen = 'payload >'\n\
         [nodes.show]\ntype = 'debug'\nfrom = 'warm'\n",
    ),
    (
        "a variable that is not there",
        "[vars]\npace = '1s'\n[nodes.tick]\ntype = 'inject'\nevery = '${pase}'\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'\n",
    ),
    (
        "values that cannot be",
        "[nodes.tick]\ntype = 'inject'\nevery = '1 fortnight'\n[nodes.w]\ntype = 'window'\nfrom = 'tick'\nsize = '0s'\n\
         compute = ['median']\n[nodes.relay]\ntype = 'gpio out'\nfrom = 'w'\npin = 99\n",
    ),
    (
        "limits the wrong way round, and `filter` for `where`",
        "[nodes.tick]\ntype = 'inject'\nevery = '1s'\n[nodes.f]\ntype = 'filter'\nfrom = 'tick'\nwhen = 'payload > 1'\n\
         [nodes.h]\ntype = 'hysteresis'\nfrom = 'tick'\nabove = 3.0\nbelow = 5.0\n\
         [nodes.show]\ntype = 'debug'\nfrom = ['f', 'h']\n",
    ),
];

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/check.golden");

#[test]
fn bad_flows_are_said_to_be_bad_as_it_is_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let mut found = String::new();
    for (name, flow) in BAD_FLOWS {
        std::fs::write(directory.path().join("flow.toml"), flow).unwrap();
        let ended = check(directory.path(), &["flow.toml"]);
        assert_eq!(ended.code, Some(1), "{name}: {ended:#?}");
        assert_eq!(ended.stderr, "", "{name}");
        writeln!(found, "==== {name}\n{}", ended.stdout).unwrap();
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &found).unwrap();
    }
    let expected = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let is_same = |(found, expected)| found == expected;
    let same = found
        .lines()
        .zip(expected.lines())
        .take_while(|pair| is_same(*pair));
    assert!(
        found == expected,
        "the text has changed, from line {} of {GOLDEN} on; if that is right, run again with UPDATE_GOLDEN=1:\n{found}",
        same.count() + 1
    );
}

#[test]
fn json_names_file_line_column_and_severity() {
    let directory = tempfile::tempdir().unwrap();
    for (name, flow) in BAD_FLOWS {
        std::fs::write(directory.path().join("flow.toml"), flow).unwrap();
        let ended = check(directory.path(), &["flow.toml", "--json"]);
        ended.assert_code(1);
        let problems: Vec<Json> = serde_json::from_value(ended.json()).unwrap();
        let errors = problems
            .iter()
            .filter(|problem| problem["severity"] == "error");
        assert!(errors.count() > 0, "{name}: {problems:#?}");
        for problem in &problems {
            assert_eq!(problem["file"], "flow.toml", "{name}");
            assert!(
                problem["line"].is_u64()
                    && problem["column"].is_u64()
                    && problem["message"].is_string(),
                "{name}: {problem}"
            );
        }
    }
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
