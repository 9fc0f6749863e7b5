//! `tidegate nodes`: the node types, for people and for programs.

use serde_json::Value as Json;

use crate::support::{Ended, tidegate};

#[test]
fn json_is_an_array_of_objects_with_a_type() {
    let ended = Ended::of(tidegate(&["nodes", "--json"]));
    ended.assert_code(0);
    let nodes: Vec<Json> = serde_json::from_value(ended.json()).unwrap();
    let types: Vec<&str> = nodes
        .iter()
        .map(|node| {
            node["type"]
                .as_str()
                .unwrap_or_else(|| panic!("no type: {node}"))
        })
        .collect();
    for expected in ["inject", "window", "gpio in", "gpio out", "uplink"] {
        assert!(types.contains(&expected), "no {expected} in {types:?}");
    }
    let text = Ended::of(tidegate(&["nodes"])).stdout;
    for name in types {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("  {name} "))),
            "no {name} in {text}"
        );
    }
}

#[test]
fn one_type_has_a_page_with_an_example() {
    let ended = Ended::of(tidegate(&["nodes", "gpio", "out"]));
    ended.assert_code(0);
    for words in [
        "Options:",
        "pin",
        "silent_after",
        "Example:",
        "type = \"gpio out\"",
    ] {
        assert!(
            ended.stdout.contains(words),
            "no {words:?} in {}",
            ended.stdout
        );
    }
}

#[test]
fn an_unknown_type_gets_the_nearest_one_named() {
    let ended = Ended::of(tidegate(&["nodes", "windw"]));
    ended.assert_code(1);
    assert!(
        ended.stderr.contains("did you mean `window`?"),
        "{ended:#?}"
    );
}

/// Files that are made from the definitions; `UPDATE_GOLDEN=1 cargo test --test all nodes` makes them anew.
#[test]
fn the_generated_files_are_those_that_the_definitions_give() {
    for (arguments, file) in [
        (["nodes", "--markdown"].as_slice(), "docs/nodes.md"),
        (["sensors", "--markdown"].as_slice(), "docs/sensors.md"),
        (["schema"].as_slice(), "flows/flow.schema.json"),
    ] {
        let ended = Ended::of(tidegate(arguments));
        ended.assert_code(0);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &ended.stdout).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let same = ended
            .stdout
            .lines()
            .zip(expected.lines())
            .take_while(|(made, stored)| made == stored);
        assert!(
            ended.stdout == expected,
            "{file} is not what the definitions give, from line {} on; UPDATE_GOLDEN=1 makes it anew",
            same.count() + 1
        );
    }
}
