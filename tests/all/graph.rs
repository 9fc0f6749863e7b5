//! `tidegate graph`: pictures of flows.

use std::path::{Path, PathBuf};

use crate::support::{Ended, tidegate};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares with a file; `UPDATE_GOLDEN=1 cargo test --test all graph` makes it anew.
fn check_golden(made: &str, file: &str) {
    let path = root().join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let same = made.lines().zip(stored.lines());
    let same = same.take_while(|(made, stored)| made == stored).count();
    assert!(
        made == stored,
        "{file} is not what is drawn, from line {} on; UPDATE_GOLDEN=1 makes it anew",
        same + 1
    );
}

fn flow(file: &str) -> String {
    root().join(file).display().to_string()
}

#[test]
fn mermaid_goes_to_stdout_and_an_svg_where_it_is_wanted() {
    for (file, name) in [
        ("flows/cold-store.toml", "cold-store"),
        ("tests/graph/everything.toml", "everything"),
    ] {
        let mermaid = Ended::of(tidegate(&["graph", &flow(file)]));
        mermaid.assert_code(0);
        assert_eq!(mermaid.stderr, "");
        check_golden(&mermaid.stdout, &format!("tests/graph/{name}.mmd"));

        let svg = Ended::of(tidegate(&["graph", &flow(file), "--svg", "-"]));
        svg.assert_code(0);
        let golden = match name {
            "cold-store" => "docs/cold-store.svg".to_owned(),
            name => format!("tests/graph/{name}.svg"),
        };
        check_golden(&svg.stdout, &golden);

        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("picture.svg");
        let path_text = path.display().to_string();
        let ended = Ended::of(tidegate(&["graph", &flow(file), "--svg", &path_text]));
        ended.assert_code(0);
        assert_eq!(ended.stdout, "");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), svg.stdout);
    }
}

#[test]
fn a_bad_flow_has_no_picture_but_the_words_of_check() {
    let bad = flow("tests/bad-flows/a-cycle.toml");
    let ended = Ended::of(tidegate(&["graph", &bad]));
    ended.assert_code(1);
    assert_eq!(ended.stdout, "");
    let check = Ended::of(tidegate(&["check", &bad]));
    assert!(ended.stderr.contains("a cycle"), "{ended:#?}");
    assert!(check.stdout.contains(ended.stderr.trim()), "{ended:#?}");
}

#[test]
fn a_flow_of_the_settings_is_found_by_its_name_and_what_is_none_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tidegate.toml");
    let flows = root().join("flows");
    std::fs::write(&config, format!("[flows]\npath = '{}'\n", flows.display())).unwrap();
    let config = config.display().to_string();
    let named = Ended::of(tidegate(&["graph", "door", "--config", &config]));
    named.assert_code(0);
    assert!(named.stdout.contains("accTitle: door"), "{named:#?}");

    let none = Ended::of(tidegate(&["graph", "dor", "--config", &config]));
    none.assert_code(1);
    assert!(none.stderr.contains("there is no flow dor"), "{none:#?}");
    let directory = Ended::of(tidegate(&["graph", &flows.display().to_string()]));
    directory.assert_code(1);
    assert!(
        directory.stderr.contains("is a directory"),
        "{directory:#?}"
    );
}
