//! What is said of options that cannot be, or are hardly meant.

use crate::nodes::testing::node_problems;

fn check(options: &str, expected: &[&str]) {
    let found = node_problems(&format!("type = 'window'\n{options}"));
    let found: Vec<&str> = found
        .iter()
        .map(|problem| problem.splitn(4, ':').nth(3).unwrap_or_default().trim())
        .collect();
    assert_eq!(found, expected, "{options}");
}

#[test]
fn each_kind_needs_its_own_options() {
    const HOW: &str = "need it, as in";
    let check = |kind: &str, expected: &[(&str, &str)]| {
        let expected: Vec<String> = expected
            .iter()
            .map(|(name, form)| format!("error: `{name}`: windows of kind `{kind}` {HOW} {form}"))
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&format!("kind = '{kind}'"), &expected);
    };
    check("tumbling", &[("size", "size = \"1m\"")]);
    check(
        "hopping",
        &[("size", "size = \"1m\""), ("hop", "hop = \"10s\"")],
    );
    check("sliding", &[("size", "size = \"1m\"")]);
    check("session", &[("gap", "gap = \"30s\"")]);
    check("count", &[("count", "count = 100")]);
    check("state", &[("state", "state = \"payload > 0\"")]);
}

#[test]
fn options_of_other_kinds_are_refused() {
    check(
        "kind = 'session'\ngap = '1s'\nsize = '1m'\nhop = '1s'\ncount = 3\nstate = '1'\nmost = 5",
        &[
            "error: `size`: does not belong to windows of kind `session`, only to `tumbling`, `hopping`, `sliding`",
            "error: `hop`: does not belong to windows of kind `session`, only to `hopping`",
            "error: `count`: does not belong to windows of kind `session`, only to `count`",
            "error: `state`: does not belong to windows of kind `session`, only to `state`",
            "error: `most`: does not belong to windows of kind `session`, only to `sliding`",
        ],
    );
    check(
        "size = '1m'\ngap = '1s'\nlongest = '1h'\nmost_keys = 5",
        &[
            "error: `gap`: does not belong to windows of kind `tumbling`, only to `session`",
            "error: `longest`: does not belong to windows of kind `tumbling`, only to `session`, `count`, `state`",
            "error: `most_keys`: there are keys only with `by`, as in by = \"topic\"",
        ],
    );
}

#[test]
fn lengths_and_numbers_have_their_ranges() {
    const SPAN: &str = "must be from 1ms to 366d";
    check("size = '1ms'", &[]);
    check("size = '366d'", &[]);
    check("size = '0s'", &[&format!("error: `size`: {SPAN}")]);
    check("size = '367d'", &[&format!("error: `size`: {SPAN}")]);
    check(
        "kind = 'session'\ngap = '0s'",
        &[&format!("error: `gap`: {SPAN}")],
    );
    check(
        "kind = 'count'\ncount = 1\nlongest = '0s'",
        &[&format!("error: `longest`: {SPAN}")],
    );
    check("kind = 'session'\ngap = '24h'", &[]);
    check(
        "kind = 'session'\ngap = '25h'",
        &["error: `gap`: must not be longer than `longest`, which is 24h if it is not given"],
    );
    check("kind = 'session'\ngap = '25h'\nlongest = '48h'", &[]);
    check("kind = 'hopping'\nsize = '2s'\nhop = '1ms'", &[]);
    check(
        "kind = 'hopping'\nsize = '2001ms'\nhop = '1ms'",
        &["error: `hop`: is too short for `size`: at most 2,000 windows may overlap"],
    );
    check(
        "kind = 'hopping'\nsize = '1s'\nhop = '1001ms'",
        &[
            "error: `hop`: must not be longer than `size`, or what comes between windows would be lost",
        ],
    );
    check(
        "kind = 'hopping'\nsize = '1s'\nhop = '0s'",
        &["error: `hop`: must be at least 1ms"],
    );
    check("kind = 'count'\ncount = 1000000000", &[]);
    for count in ["0", "1000000001"] {
        check(
            &format!("kind = 'count'\ncount = {count}"),
            &["error: `count`: must be from 1 to 1,000,000,000"],
        );
    }
    check(
        "kind = 'sliding'\nsize = '1s'\nmost = 100000\nby = 'topic'\nmost_keys = 100000",
        &[],
    );
    check(
        "kind = 'sliding'\nsize = '1s'\nmost = 0\nby = 'topic'\nmost_keys = 100001",
        &[
            "error: `most`: must be from 1 to 100,000",
            "error: `most_keys`: must be from 1 to 100,000",
        ],
    );
    check("size = '1s'\nlateness = '1000s'\nfuture = '1000s'", &[]);
    check(
        "size = '1s'\nlateness = '1001s'\nfuture = '1001s'",
        &[
            "error: `lateness`: must be at most 1,000 times `size`",
            "error: `future`: must be at most 1,000 times `size`",
        ],
    );
    check(
        "kind = 'hopping'\nsize = '10s'\nhop = '1s'\nlateness = '1001s'",
        &["error: `lateness`: must be at most 1,000 times `hop`"],
    );
    check(
        "kind = 'sliding'\nsize = '1s'\nlateness = '1h'\nfuture = '1h'",
        &[],
    );
}

#[test]
fn compute_names_what_there_is_and_nothing_twice() {
    check(
        "size = '1s'\ncompute = []",
        &["error: `compute`: must name something to compute"],
    );
    check(
        "size = '1s'\ncompute = ['max', 'mean', 'max']",
        &["error: `compute.2`: names `max` twice"],
    );
    check(
        "size = '1s'\ncompute = ['maxx']",
        &[
            "error: `compute`: `maxx` is not known here, there is `count`, `sum`, `mean`, `min`, `max`, `range`, `first`, `last`, `stddev`, `variance`, `slope`, `median`, `p95`, `time_weighted_mean`, `duration_above(25)`, `duration_below(3)`, `distinct`, `histogram(0, 10, 20)` (did you mean `max`?)",
        ],
    );
}

#[test]
fn what_is_hardly_meant_is_said() {
    check(
        "kind = 'count'\ncount = 10\nby = 'topic'",
        &[
            "warning: `count`: a key that falls silent keeps its window open: set `longest`, so that it closes",
        ],
    );
    check(
        "kind = 'count'\ncount = 10\nby = 'topic'\nlongest = '1h'",
        &[],
    );
    check("kind = 'count'\ncount = 10", &[]);
    check(
        "kind = 'hopping'\nsize = '1m'\nhop = '1m'",
        &[
            "warning: `hop`: is as long as `size`: that is what tumbling windows are, the default `kind`",
        ],
    );
}

#[test]
fn names_from_elsewhere_lead_to_ours() {
    check(
        "size = '1m'\nslide = '1s'",
        &[
            "error: node `tested` (window) has no option `slide` (for windows that overlap: kind = \"hopping\" with `size` and `hop`)",
        ],
    );
}
