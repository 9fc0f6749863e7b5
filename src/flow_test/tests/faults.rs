//! Links, disks, power and clocks that fail.

use super::{FLOW, check, check_with};

const COUNTING: &str = "{ from = '1s', to = '10s', every = '1s', feed.probe = { value = 't' } }";

#[test]
fn while_the_link_is_down_records_wait_and_then_come_in_order() {
    check(
        FLOW,
        &[
            COUNTING,
            "{ at = '2s 500ms', uplink = 'down' }",
            "{ at = '8s 500ms', uplink = 'up' }",
            "{ at = '8s', outbox = { stored = 5, pending = 1, acknowledged = 2 } }",
            "{ from = '0s', to = '8s', expect.report = { payloads = [1, 2] } }",
            "{ at = '8s 500ms', expect.report = { payloads = [3, 4, 5, 6, 7, 8] } }",
            "{ from = '8s 501ms', to = '10s', expect.report = { payloads = [9, 10] } }",
        ],
        &[],
    );
}

#[test]
fn on_a_good_link_nothing_is_written() {
    check(
        FLOW,
        &[
            COUNTING,
            "{ at = '10s', outbox = { commits = 0, stored = 0, acknowledged = 10 } }",
        ],
        &[],
    );
}

#[test]
fn a_power_cut_takes_what_is_not_committed() {
    // A commit comes when the oldest record is 750 ms old: that of 3s is on disk at 3s 750ms.
    let cut = |at: &str, expected: &str| {
        check(
            FLOW,
            &[
                COUNTING,
                "{ at = '0s', uplink = 'down' }",
                &format!("{{ at = '{at}', power_cut = '1s' }}"),
                "{ at = '20s', uplink = 'up' }",
                &format!("{{ at = '20s', expect.report = {{ payloads = {expected} }} }}"),
            ],
            &[],
        );
    };
    cut("3s 749ms", "[1, 2, 5, 6, 7, 8, 9, 10]");
    cut("3s 750ms", "[1, 2, 3, 5, 6, 7, 8, 9, 10]");
}

#[test]
fn durable_before_accepted_survives_any_cut() {
    check_with(
        FLOW,
        "outbox = { commit = '0s' }",
        &[
            COUNTING,
            "{ at = '0s', uplink = 'down' }",
            "{ at = '3s', power_cut = '500ms' }",
            "{ at = '20s', uplink = 'up' }",
            "{ at = '20s', expect.report = { payloads = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] } }",
        ],
        // The cut stands behind the feed: that of 3s was taken in before.
        &[],
    );
}

#[test]
fn an_orderly_restart_loses_nothing_that_was_taken() {
    check(
        FLOW,
        &[
            COUNTING,
            "{ at = '0s', uplink = 'down' }",
            "{ at = '3s 10ms', restart = '1s 500ms' }",
            "{ at = '3s 11ms', outbox.stored = 3 }",
            "{ at = '20s', uplink = 'up' }",
            "{ at = '20s', expect.report = { payloads = [1, 2, 3, 5, 6, 7, 8, 9, 10] } }",
        ],
        &[],
    );
}

#[test]
fn outputs_are_safe_while_the_device_is_off() {
    check(
        FLOW,
        &[
            "{ at = '1s', feed.probe = 9 }",
            "{ at = '2s', expect.relay = 1 }",
            "{ at = '3s', power_cut = '5s' }",
            "{ from = '3s', to = '9s', expect.relay = 0 }",
            "{ at = '10s', feed.probe = 9 }",
            "{ at = '10s', expect.relay = 1 }",
        ],
        &[],
    );
}

const LATER: &str = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
    [nodes.later]\ntype = 'delay'\nfrom = 'come'\nby = '10m'\n\
    [nodes.show]\ntype = 'debug'\nfrom = 'later'";

#[test]
fn after_a_cut_flows_go_on_from_their_last_checkpoint_and_after_a_restart_from_the_stop() {
    let check = |keys: &str, fault: &str, expected: &str| {
        check_with(
            LATER,
            keys,
            &[
                "{ at = '1m', feed.come = 'a' }",
                "{ at = '6m', feed.come = 'b' }",
                fault,
                "{ at = '11m', expect.show = { at_most = 1 } }",
                &format!(
                    "{{ from = '0s', to = '20m', expect.show = {{ payloads = {expected} }} }}"
                ),
            ],
            &[],
        );
    };
    check("", "{ at = '8m', restart = '1s' }", "['a', 'b']");
    // What the checkpoint at 5m knew.
    check("", "{ at = '8m', power_cut = '1s' }", "['a']");
    check("", "{ at = '4m', power_cut = '1s' }", "['b']");
    // That one had not sent it yet.
    check("", "{ at = '12m', power_cut = '1s' }", "['a', 'a', 'b']");
    check(
        "checkpoint = '1m'",
        "{ at = '6m 59s', power_cut = '1s' }",
        "['a']",
    );
    check(
        "checkpoint = '1m'",
        "{ at = '7m', power_cut = '1s' }",
        "['a', 'b']",
    );
}

#[test]
fn what_came_due_while_the_device_was_off_is_due_when_it_is_on_again() {
    check(
        LATER,
        &[
            "{ at = '1m', feed.come = 'a' }",
            "{ at = '8m', restart = '5m' }",
            "{ at = '13m', expect.show = 'a' }",
        ],
        &[],
    );
    // Its clock went back meanwhile: nobody knows how long it was off, so time stood still.
    check(
        LATER,
        &[
            "{ at = '1m', feed.come = 'a' }",
            "{ at = '8m', restart = '5m' }",
            "{ at = '9m', clock_step = '-1h' }",
            "{ at = '16m', expect.show = 'a' }",
        ],
        &[],
    );
}

#[test]
fn a_disk_that_takes_nothing_keeps_records_in_memory_and_is_tried_again() {
    for fault in ["full", "failing"] {
        check(
            FLOW,
            &[
                COUNTING,
                "{ at = '0s', uplink = 'down' }",
                &format!("{{ at = '2s 800ms', disk = '{fault}' }}"),
                "{ at = '10s', outbox = { stored = 2, pending = 8 } }",
                "{ at = '12s', disk = 'ok' }",
                "{ at = '30s', outbox = { stored = 10, pending = 0 } }",
                "{ at = '40s', uplink = 'up' }",
                "{ at = '40s', expect.report = { count = 10 } }",
            ],
            &[],
        );
    }
}

#[test]
fn a_full_outbox_drops_by_its_policy() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.report]\ntype = 'uplink'\nfrom = 'come'\ntopic = 't'";
    let feed = "{ from = '1s', to = '400s', every = '1s', feed.come = { value = \"({ n, filler: 'x'.repeat(20000) })\" } }";
    for (policy, first) in [("drop-oldest", 399), ("drop-newest", 0)] {
        check_with(
            flow,
            &format!("outbox = {{ max_size = '8MiB', when_full = '{policy}' }}"),
            &[
                feed,
                "{ at = '0s', uplink = 'down' }",
                "{ at = '410s', outbox.dropped = { min = 100 } }",
                "{ at = '410s', outbox.dropped_overflow_disk = { min = 100 } }",
                "{ at = '411s', uplink = 'up' }",
                &format!("{{ at = '411s', expect.report = {{ payload.n = {first} }} }}"),
                &format!(
                    "{{ at = '411s', expect.report = {{ payload.n = {}, none = true }} }}",
                    399 - first
                ),
            ],
            &[],
        );
    }
}

#[test]
fn a_full_outbox_drops_readings_before_alarms() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.report]\ntype = 'uplink'\nfrom = 'come'\ntopic = 't'\n\
                [nodes.bell]\ntype = 'link in'\nlink = 'y'\n\
                [nodes.alarm]\ntype = 'uplink'\nfrom = 'bell'\ntopic = 'a'\npriority = 'high'";
    check_with(
        flow,
        "outbox = { max_size = '8MiB' }",
        &[
            "{ from = '1s', to = '600s', every = '1s', feed.come = { value = \"({ n, filler: 'x'.repeat(20000) })\" } }",
            "{ from = '1s', to = '600s', every = '20s', feed.bell = { value = '({ n })' } }",
            "{ at = '0s', uplink = 'down' }",
            "{ at = '610s', outbox.dropped_overflow_disk = { min = 300 } }",
            "{ at = '611s', uplink = 'up' }",
            "{ at = '611s', expect.alarm = { count = 30 } }",
            "{ at = '611s', expect.report = { payload.n = 599 } }",
            "{ at = '611s', expect.report = { payload.n = 0, none = true } }",
        ],
        &[],
    );
}

#[test]
fn a_full_outbox_may_merge_old_readings() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.report]\ntype = 'uplink'\nfrom = 'come'\ntopic = 't'";
    check_with(
        flow,
        "outbox = { max_size = '8MiB', when_full = 'thin' }",
        &[
            "{ from = '10ms', to = '200s', every = '10ms', feed.come = { value = 'n' } }",
            "{ at = '0s', uplink = 'down' }",
            "{ at = '210s', outbox = { dropped_overflow_disk = 0, dropped_overflow_memory = 0 } }",
            "{ at = '210s', outbox.dropped_thinned = { min = 1000 } }",
            "{ at = '211s', uplink = 'up' }",
            // The first and the last reading are still in something.
            "{ at = '211s', expect.report = { payload.min = 0 } }",
            "{ at = '211s', expect.report = { payload = 19999 } }",
        ],
        &[],
    );
}

#[test]
fn live_time_follows_the_clock_ahead_and_never_back() {
    let flow = "[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
                [nodes.look]\ntype = 'function'\nfrom = 'come'\ncode = 'return { payload: msg.time }'\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'look'";
    check_with(
        flow,
        "start = '1970-01-01T10:00:00Z'",
        &[
            "{ at = '1s', feed.come = 1 }",
            "{ at = '1s', expect.show = 36001000 }",
            "{ at = '2s', clock_step = '1h' }",
            "{ at = '3s', feed.come = 1 }",
            "{ at = '3s', expect.show = 39603000 }",
            "{ at = '4s', clock_step = '-2h' }",
            "{ at = '5s', feed.come = 1 }",
            "{ at = '5s', expect.show = 39605000 }",
            // Back to what it was, less a second than what passed: live time was not behind.
            "{ at = '6s', clock_step = '2h' }",
            "{ at = '7s', feed.come = 1 }",
            "{ at = '7s', expect.show = 39607000 }",
        ],
        &[],
    );
}

#[test]
fn what_is_fed_while_the_device_is_off_is_lost_and_the_report_says_that_it_was_off() {
    let outcome = super::run(
        FLOW,
        "steps = [{ at = '1s', power_cut = '10s' }, { at = '5s', feed.probe = 1 }, { at = '5s', expect.show = 1 }]",
    );
    assert!(
        outcome.unmet[0]
            .hints
            .contains(&"the device was off from 1s to 11s".to_owned()),
        "{outcome:#?}"
    );
}
