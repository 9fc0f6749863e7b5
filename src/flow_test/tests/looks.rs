//! Expectations, just inside and just outside of what they say.

use super::{FLOW, check, check_with, run};

/// 1, 2, 3, ... at seconds 1, 2, 3, ... up to 10.
const COUNTING: &str = "{ from = '1s', to = '10s', every = '1s', feed.probe = { value = 't' } }";

#[test]
fn a_message_has_its_payload_at_its_moment() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check("{ at = '2s', expect.show = 2 }", &[]);
    check(
        "{ at = '2s', expect.show = 3 }",
        &["`show` showed something else at 2s"],
    );
    check(
        "{ at = '2s 1ms', expect.show = 2 }",
        &["`show` showed nothing at 2s 1ms"],
    );
    check(
        "{ at = '2s', expect.show = { payload = 2.1, within = 0.11 } }",
        &[],
    );
    check(
        "{ at = '2s', expect.show = { payload = 2.1, within = 0.09 } }",
        &["`show` showed something else at 2s"],
    );
    check("{ at = '2s', expect.report = { topic = 'device/t' } }", &[]);
    check(
        "{ at = '2s', expect.report = { topic = 'device/x' } }",
        &["`report` delivered something else at 2s"],
    );
    check("{ from = '2s', to = '4s', expect.probe = 4 }", &[]);
    check(
        "{ from = '2s', to = '4s', expect.probe = 5 }",
        &["`probe` sent something else from 2s to 4s"],
    );
}

#[test]
fn messages_are_counted_with_both_ends() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check(
        "{ from = '2s', to = '4s', expect.show = { count = 3 } }",
        &[],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { count = 2 } }",
        &["`show` showed 3 messages from 2s to 4s"],
    );
    check(
        "{ from = '2s 1ms', to = '3s 999ms', expect.show = { count = 1 } }",
        &[],
    );
    check(
        "{ from = '2s 1ms', to = '2s 999ms', expect.show = { none = true } }",
        &[],
    );
    check(
        "{ from = '2s 1ms', to = '3s', expect.show = { none = true } }",
        &["`show` showed 1 message from 2s 1ms to 3s"],
    );
    check(
        "{ from = '1s', to = '10s', expect.show = { at_least = 10, at_most = 10 } }",
        &[],
    );
    check(
        "{ from = '1s', to = '10s', expect.show = { at_least = 11 } }",
        &["`show` showed 10 messages from 1s to 10s"],
    );
    check(
        "{ from = '1s', to = '10s', expect.show = { payload = 3, count = 1 } }",
        &[],
    );
    check(
        "{ from = '1s', to = '10s', expect.show = { payload = 3, count = 2 } }",
        &["`show` showed 1 such message from 1s to 10s"],
    );
}

#[test]
fn limits_hold_for_each_message_and_there_must_be_one() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check(
        "{ from = '2s', to = '4s', expect.show = { min = 2, max = 4 } }",
        &[],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { min = 2, max = 3.9 } }",
        &["`show` showed a payload beyond its limits at 4s"],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { min = 2.1 } }",
        &["`show` showed a payload beyond its limits at 2s"],
    );
    check(
        "{ from = '2s 1ms', to = '2s 2ms', expect.show = { min = 2 } }",
        &["`show` showed nothing from 2s 1ms to 2s 2ms"],
    );
}

#[test]
fn a_list_of_payloads_is_all_of_them_in_order() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check(
        "{ from = '2s', to = '4s', expect.show = { payloads = [2, 3, 4] } }",
        &[],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { payloads = [2, 4, 3] } }",
        &["`show` showed another payload than expected at 3s"],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { payloads = [2, 3] } }",
        &["`show` showed another payload than expected at 4s"],
    );
    check(
        "{ from = '2s', to = '4s', expect.show = { payloads = [2, 3, 4, 5] } }",
        &["`show` showed 3 of 4 payloads from 2s to 4s"],
    );
    check(
        "{ from = '2s 1ms', to = '2s 2ms', expect.show = { payloads = [] } }",
        &[],
    );
}

#[test]
fn what_repeats_is_looked_at_each_time() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check(
        "{ from = '1s', to = '9s', every = '2s', expect.show = { count = 1 } }",
        &[],
    );
    check(
        "{ from = '1s', to = '10s', every = '1500ms', expect.show = { count = 1 } }",
        &["`show` showed no message at 2s 500ms"],
    );
}

#[test]
fn a_pin_has_its_level_after_all_that_happens_at_a_moment() {
    let check = |step: &str, expected: &[&str]| check(FLOW, &[COUNTING, step], expected);
    check("{ at = '5s 999ms', expect.relay = 0 }", &[]);
    check("{ at = '6s', expect.relay = 1 }", &[]);
    check(
        "{ at = '6s', expect.relay = false }",
        &["`relay` was driven with 1 at 6s"],
    );
    check("{ from = '0s', to = '5s 999ms', expect.relay = 0 }", &[]);
    check(
        "{ from = '0s', to = '6s', expect.relay = 0 }",
        &["`relay` was driven with 1 at 6s"],
    );
    check("{ from = '6s', to = '10s', expect.relay = 1 }", &[]);
    check(
        "{ from = '6s', to = '10s', expect.relay = { payload = 1, count = 1 } }",
        &[],
    );
    check(
        "{ from = '6s 1ms', to = '10s', expect.relay = { count = 0 } }",
        &[],
    );
    check(
        "{ from = '0s', to = '10s', expect.relay = { count = 2 } }",
        &["`relay` changed 1 times from 0s to 10s"],
    );
}

#[test]
fn a_change_at_the_first_moment_at_which_anything_happens_is_one() {
    let feed = "{ at = '1s', feed.probe = 9 }";
    let check = |step: &str| check(FLOW, &[feed, step], &[]);
    check("{ from = '1s', to = '2s', expect.relay = { count = 1 } }");
    check("{ at = '1s', expect.relay = { payload = 1, count = 1 } }");
}

#[test]
fn a_node_that_fails_fails_the_test_unless_a_step_speaks_of_it() {
    let fails = "{ from = '1s', to = '3s', every = '1s', feed.probe = { fails = 'no bus' } }";
    let check = |step: &str, expected: &[&str]| check(FLOW, &[fails, step], expected);
    check(
        "{ at = '4s', expect.show = { none = true } }",
        &["nodes could not handle 3 things"],
    );
    check("{ at = '4s', failures = 3 }", &[]);
    check("{ at = '2s', failures = 2 }", &[]);
    check(
        "{ at = '1s 999ms', failures = 2 }",
        &["there was 1 failure until 1s 999ms"],
    );
    check("{ from = '2s', to = '4s', failures = 2 }", &[]);
    check("{ at = '4s', failures = { text = 'no bus' } }", &[]);
    check(
        "{ at = '4s', failures = { text = 'no wire' } }",
        &["there were no failures with `no wire` until 4s"],
    );
    check(
        "{ from = '1s', to = '3s', every = '1s', failures = { at_most = 3 } }",
        &[],
    );
}

#[test]
fn a_silent_node_is_followed_up_to_where_messages_end() {
    let flow = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n\
                [nodes.high]\ntype = 'where'\nfrom = 'tick'\nwhen = 'payload > 1'\n\
                [nodes.double]\ntype = 'change'\nfrom = 'high'\nrules = [{ set = 'payload', to = 2 }]\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'double'";
    let outcome = run(flow, "steps = [{ at = '5s', expect.show = 2 }]");
    assert_eq!(
        outcome.unmet[0].hints,
        [
            "`show` was silent in the whole test; messages on the way to it: `tick` 5, `high` 0, `double` 0"
        ]
    );
}

#[test]
fn what_came_at_another_time_is_hinted_at() {
    let late = run(
        FLOW,
        &format!("steps = [{COUNTING}, {{ at = '2s 500ms', expect.show = 3 }}]"),
    );
    assert_eq!(
        late.unmet[0].hints,
        ["what fits came at 3s, not at 2s 500ms"]
    );
    let step = "{ at = '30s', feed.probe = 1 }, { at = '2s', expect.show = 3 }";
    let early = run(FLOW, &format!("steps = [{step}]"));
    assert_eq!(early.unmet[0].hints, ["the first feed comes later, at 30s"]);
}

#[test]
fn a_step_that_lasts_makes_the_test_last() {
    let outcome = run(
        FLOW,
        "steps = [{ from = '0s', to = '1h', expect.show = { none = true } }]",
    );
    assert_eq!(outcome.flow_time.as_secs(), 3_600);
}

#[test]
fn variables_take_the_place_of_the_flows_own() {
    let flow = format!(
        "[vars]\nwarm = 5\n{}",
        FLOW.replace("above = 5", "above = '${warm}'")
    );
    let steps = |level: u8| format!("{{ at = '8s', expect.relay = {level} }}");
    check_with(&flow, "", &[COUNTING, &steps(1)], &[]);
    check_with(&flow, "vars = { warm = 8.5 }", &[COUNTING, &steps(0)], &[]);
}
