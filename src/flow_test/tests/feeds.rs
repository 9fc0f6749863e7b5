//! What sources are made to send.

use super::{FLOW, check, check_with, run_with_files};

#[test]
fn plain_values_are_payloads_and_tables_say_more() {
    check(
        "[nodes.come]\ntype = 'link in'\nlink = 'x'\n[nodes.show]\ntype = 'debug'\nfrom = 'come'",
        &[
            "{ at = '1s', feed.come = 'text' }",
            "{ at = '1s', expect.show = 'text' }",
            "{ at = '2s', feed.come = [1, true] }",
            "{ at = '2s', expect.show = { payload = [1, true], topic = 'flow/come' } }",
            "{ at = '3s', feed.come = { payload = { a = 1, b = { c = 'd' } }, topic = 'hall' } }",
            "{ at = '3s', expect.show = { payload.b.c = 'd', topic = 'hall' } }",
        ],
        &[],
    );
}

#[test]
fn formulas_see_time_repetition_and_variables() {
    let flow = format!(
        "[vars]\nwarm = 5\n{}",
        FLOW.replace("above = 5", "above = '${warm}'")
    );
    check_with(
        &flow,
        "vars = { warm = 7 }",
        &[
            "{ from = '500ms', to = '3s', every = '1s', feed.probe = { value = 'vars.warm * 100 + n * 10 + t' } }",
            "{ from = '0s', to = '3s', expect.probe = { payloads = [700.5, 711.5, 722.5] } }",
        ],
        &[],
    );
    check(
        FLOW,
        &[
            "{ at = '1s', feed.probe = { value = 'none.there' } }",
            "{ at = '2s', expect.show = { none = true } }",
        ],
        &["what is fed at 1s has no value"],
    );
}

#[test]
fn time_and_headers_go_with_the_message() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.look]\ntype = 'function'\nfrom = 'come'\ncode = 'return { payload: [msg.time - Date.now(), msg.headers.a] }'\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'look'";
    check_with(
        flow,
        "start = 2026-06-01T12:00:00Z",
        &[
            "{ at = '1s', feed.come = { payload = 1, time = '-10s', headers.a = 7 } }",
            "{ at = '1s', expect.show = { payload = [-10000, 7] } }",
            "{ at = '2s', feed.come = { payload = 1, time = '2026-06-01T12:00:00+00:00', headers.a = 8 } }",
            "{ at = '2s', expect.show = { payload = [-2000, 8] } }",
        ],
        &[],
    );
}

#[test]
fn inject_runs_by_itself_unless_it_is_fed() {
    let flow = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n[nodes.show]\ntype = 'debug'\nfrom = 'tick'";
    check(
        flow,
        &["{ from = '0s', to = '5s', expect.show = { count = 5 } }"],
        &[],
    );
    check(
        flow,
        &[
            "{ at = '3s', feed.tick = 9 }",
            "{ from = '0s', to = '5s', expect.show = { payloads = [9] } }",
        ],
        &[],
    );
}

const DOOR: &str = "[nodes.door]\ntype = 'gpio in'\npin = 22\npull = 'up'\n[nodes.show]\ntype = 'debug'\nfrom = 'door'";

#[test]
fn pins_have_edges_and_the_level_of_the_start_is_there_at_the_start() {
    check(
        DOOR,
        &[
            "{ at = '1s', pin.22 = 0 }",
            "{ at = '2s', pin.22 = 0 }",
            "{ at = '3s', pin.22 = true }",
            "{ from = '0s', to = '5s', expect.show = { payloads = [1, 0, 1] } }",
        ],
        &[],
    );
    check(
        DOOR,
        &[
            "{ at = '0s', pin.22 = 0 }",
            "{ from = '0s', to = '5s', expect.show = { payloads = [0] } }",
        ],
        &[],
    );
}

#[test]
fn pulses_are_two_steps_that_repeat() {
    check(
        DOOR,
        &[
            "{ from = '1s', to = '10s', every = '100ms', pin.22 = 0 }",
            "{ from = '1050ms', to = '10050ms', every = '100ms', pin.22 = 1 }",
            "{ from = '0s', to = '11s', expect.show = { payload = 0, count = 91 } }",
        ],
        &[],
    );
}

#[test]
fn what_is_due_comes_before_what_is_fed_at_the_same_moment() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.later]\ntype = 'delay'\nfrom = 'come'\nby = '2s'\n\
                [nodes.show]\ntype = 'debug'\nfrom = ['come', 'later']";
    check(
        flow,
        &[
            "{ at = '1s', feed.come = 'a' }",
            "{ at = '3s', feed.come = 'b' }",
            "{ from = '0s', to = '3s', expect.show = { payloads = ['a', 'a', 'b'] } }",
        ],
        &[],
    );
}

#[test]
fn other_flows_run_with_it_if_they_are_named() {
    let other =
        "[nodes.come]\ntype = 'link in'\nlink = 'x'\n[nodes.show]\ntype = 'debug'\nfrom = 'come'\n";
    let flow = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = 1\n[nodes.go]\ntype = 'link out'\nfrom = 'tick'\nlink = 'x'";
    let outcome = run_with_files(
        &[("other.toml", other), ("flow.toml", flow)],
        "with = ['other']\nsteps = [{ at = '2s', expect.'other/show' = 1 }, { at = '2s', expect.'other/come' = 1 }]",
    );
    assert!(outcome.has_passed(), "{outcome:#?}");
}

#[test]
fn the_rows_of_a_file_come_in_their_own_time_from_the_steps_on() {
    let week = "time,payload\n2020-02-02T00:00:00Z,1\n2020-02-02T00:00:10Z,2\n2020-02-02T00:00:05Z,3\n2020-02-02T00:00:20Z,4\n";
    let flow = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n\
                [nodes.look]\ntype = 'function'\nfrom = 'probe'\ncode = 'return { payload: [msg.payload, msg.time - Date.now()] }'\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'look'";
    let run = |steps: &str| {
        let outcome = run_with_files(
            &[("flow.toml", flow), ("week.csv", week)],
            &format!("steps = [{steps}]"),
        );
        assert!(outcome.has_passed(), "{outcome:#?}");
        outcome.flow_time.as_secs()
    };
    let lasts = run(
        "{ at = '1m', feed.probe = { file = 'week.csv' } }, { at = '1m', expect.show = { payload = [1, 0] } }, \
         { at = '1m 10s', expect.show = { payloads = [[2, 0], [3, -5000]] } }, { at = '1m 15s', expect.show = { none = true } }",
    );
    assert_eq!(lasts, 80, "until the last row");
    let lasts = run(
        "{ from = '1m', to = '1m 19s', feed.probe = { file = 'week.csv' } }, { from = '0s', to = '2m', expect.show = { count = 3 } }",
    );
    assert_eq!(lasts, 120);
}
