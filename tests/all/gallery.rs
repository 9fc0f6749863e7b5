//! The flows of `flows/`, which people copy from: each has tests beside it, and they say something about each of its nodes.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate::examples::FLOWS;
use toml::Table;

use crate::support::{Ended, tidegate};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/flows");

#[test]
fn none_is_without_a_test_and_all_pass() {
    let ended = Ended::of(tidegate(&["test", DIRECTORY, "--require"]));
    assert_eq!(ended.stderr, "");
    ended.assert_code(0);
}

#[test]
fn all_are_checked_without_a_warning() {
    let ended = Ended::of(tidegate(&["check", DIRECTORY]));
    ended.assert_code(0);
    let all = format!("{} flows: 0 errors, 0 warnings", FLOWS.len());
    assert!(ended.stdout.contains(&all), "{}", ended.stdout);
}

#[test]
fn each_node_is_expected_to_do_something() {
    for (name, text) in FLOWS {
        let path = Path::new(DIRECTORY).join(format!("{name}.test.toml"));
        let tests = std::fs::read_to_string(&path).unwrap();
        let expected = expected_nodes(&toml::from_str(&tests).unwrap());
        let flow: Table = toml::from_str(text).unwrap();
        let nodes = flow["nodes"].as_table().unwrap().keys();
        let left_out: Vec<&String> = nodes.filter(|node| !expected.contains(*node)).collect();
        assert!(
            left_out.is_empty(),
            "no test of {name} says what these do: {left_out:?}"
        );
    }
}

/// The nodes that some step of a test file expects something of, without their ports.
fn expected_nodes(file: &Table) -> BTreeSet<String> {
    let tests = file["tests"].as_table().unwrap().values();
    let steps = tests.flat_map(|test| test["steps"].as_array().unwrap());
    let expected = steps.filter_map(|step| step.get("expect")?.as_table());
    let names = expected.flat_map(|expected| expected.keys());
    let without_port = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
    names.map(without_port).collect()
}
