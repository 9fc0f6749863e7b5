//! What windows of each kind send.

use super::{deliver, sent, window};
use crate::message::{Timestamp, Value};
use crate::nodes::testing::Run;

/// Readings of one topic, at milliseconds, that come at their time; then two days pass.
fn check(options: &str, readings: &[(i64, f64)], expected: &[&str]) {
    let mut run = window(options);
    for (ms, value) in readings {
        deliver(&mut run, "t", *ms, *value);
    }
    run.go_on_until(Timestamp::from_millis(2 * 86_400_000));
    assert_eq!(sent(&run), expected, "{options}");
}

#[test]
fn hopping_windows_overlap() {
    check(
        "kind = 'hopping'\nsize = '2s'\nhop = '1s'\ncompute = ['sum']",
        &[(10_999, 1.0), (11_000, 2.0)],
        &[
            r#"{"sum":1,"start":"00:09.000Z","end":"00:11.000Z"}"#,
            r#"{"sum":3,"start":"00:10.000Z","end":"00:12.000Z"}"#,
            r#"{"sum":2,"start":"00:11.000Z","end":"00:13.000Z"}"#,
        ],
    );
    check(
        "kind = 'hopping'\nsize = '2500ms'\nhop = '1s'\ncompute = ['sum']",
        &[(10_500, 1.0)],
        &[
            r#"{"sum":1,"start":"00:09.000Z","end":"00:11.500Z"}"#,
            r#"{"sum":1,"start":"00:10.000Z","end":"00:12.500Z"}"#,
        ],
    );
}

#[test]
fn what_is_late_for_some_windows_still_counts_in_the_others() {
    let mut run =
        window("kind = 'hopping'\nsize = '2s'\nhop = '1s'\nlateness = '0s'\ncompute = ['count']");
    run.go_on_until(Timestamp::from_millis(11_000));
    run.deliver(Timestamp::from_millis(10_500), 1.0.into());
    run.go_on_until(Timestamp::from_millis(12_000));
    run.deliver(Timestamp::from_millis(10_600), 1.0.into());
    assert_eq!(
        sent(&run),
        [
            r#"{"count":1,"start":"00:10.000Z","end":"00:12.000Z"}"#,
            "failed: too late: the window from 00:10.000Z was closed before this message of 00:10.600Z came",
        ]
    );
}

#[test]
fn a_sliding_window_has_its_last_reading_and_not_the_one_a_size_before() {
    check(
        "kind = 'sliding'\nsize = '2s'\ncompute = ['sum']",
        &[(10_000, 1.0), (11_999, 2.0), (12_000, 4.0), (30_000, 8.0)],
        &[
            r#"{"sum":1,"start":"00:08.000Z","end":"00:10.000Z"}"#,
            r#"{"sum":3,"start":"00:09.999Z","end":"00:11.999Z"}"#,
            r#"{"sum":6,"start":"00:10.000Z","end":"00:12.000Z"}"#,
            r#"{"sum":8,"start":"00:28.000Z","end":"00:30.000Z"}"#,
        ],
    );
}

#[test]
fn a_huge_reading_leaves_nothing_behind_when_it_has_left() {
    let readings: Vec<(i64, f64)> = (0..500)
        .map(|place| (10_000 + place * 10, if place == 100 { 1e300 } else { 1.0 }))
        .collect();
    let mut run =
        window("kind = 'sliding'\nsize = '1s'\ncompute = ['mean', 'sum', 'stddev', 'slope']");
    for (ms, value) in readings {
        deliver(&mut run, "t", ms, value);
    }
    let number = |name, place: usize| run.messages[place].payload.get(name).cloned();
    assert_eq!(number("mean", 99), Some(Value::Number(1.0)));
    assert_eq!(
        number("stddev", 150),
        Some(Value::Null),
        "1e600 is no number"
    );
    for place in 200..500 {
        assert_eq!(number("mean", place), Some(Value::Number(1.0)), "{place}");
        assert_eq!(number("sum", place), Some(Value::Number(100.0)), "{place}");
        assert_eq!(number("stddev", place), Some(Value::Number(0.0)), "{place}");
        assert_eq!(number("slope", place), Some(Value::Number(0.0)), "{place}");
    }
}

#[test]
fn a_session_ends_a_gap_after_its_last_message() {
    check(
        "kind = 'session'\ngap = '5s'\ncompute = ['count']",
        &[(10_000, 1.0), (14_999, 1.0), (19_998, 1.0), (24_998, 1.0)],
        &[
            r#"{"count":3,"start":"00:10.000Z","end":"00:24.998Z"}"#,
            r#"{"count":1,"start":"00:24.998Z","end":"00:29.998Z"}"#,
        ],
    );
    check(
        "kind = 'session'\ngap = '5s'\nlongest = '8s'\ncompute = ['count']",
        &[(10_000, 1.0), (14_000, 1.0), (17_999, 1.0), (18_000, 1.0)],
        &[
            r#"{"count":3,"start":"00:10.000Z","end":"00:18.000Z"}"#,
            r#"{"count":1,"start":"00:18.000Z","end":"00:23.000Z"}"#,
        ],
    );
}

#[test]
fn a_session_that_never_rests_is_cut_after_a_day() {
    let mut run = window("kind = 'session'\ngap = '2h'\ncompute = ['count']");
    for hour in 0..30 {
        deliver(&mut run, "t", hour * 3_600_000, 1.0);
    }
    let day = r#"{"count":24,"start":"00:00.000Z","end":"1970-01-02T00:00:00.000Z"}"#;
    assert_eq!(sent(&run), [day]);
}

#[test]
fn counted_windows_have_a_first_and_a_last_message() {
    check(
        "kind = 'count'\ncount = 2\ncompute = ['sum', 'time_weighted_mean']",
        &[(10_000, 1.0), (12_000, 3.0), (15_000, 5.0)],
        &[r#"{"sum":4,"time_weighted_mean":1,"start":"00:10.000Z","end":"00:12.000Z"}"#],
    );
    check(
        "kind = 'count'\ncount = 2\nlongest = '10s'\ncompute = ['count']",
        &[(10_000, 1.0), (20_000, 3.0), (29_999, 5.0), (30_000, 7.0)],
        &[
            r#"{"count":1,"start":"00:10.000Z","end":"00:20.000Z"}"#,
            r#"{"count":2,"start":"00:20.000Z","end":"00:29.999Z"}"#,
            r#"{"count":1,"start":"00:30.000Z","end":"00:40.000Z"}"#,
        ],
    );
    check(
        "kind = 'count'\ncount = 1\ncompute = ['last']",
        &[(10_000, 1.0), (10_000, 2.0)],
        &[
            r#"{"last":1,"start":"00:10.000Z","end":"00:10.000Z"}"#,
            r#"{"last":2,"start":"00:10.000Z","end":"00:10.000Z"}"#,
        ],
    );
}

#[test]
fn a_state_lasts_until_another_one_comes() {
    check(
        "kind = 'state'\nstate = 'payload > 5'\nlongest = '1m'\ncompute = ['count', 'duration_above(5)']",
        &[(10_000, 6.0), (11_000, 7.0), (13_000, 1.0), (14_000, 8.0)],
        &[
            r#"{"count":2,"duration_above(5)":3,"start":"00:10.000Z","end":"00:13.000Z","state":true}"#,
            r#"{"count":1,"duration_above(5)":0,"start":"00:13.000Z","end":"00:14.000Z","state":false}"#,
            r#"{"count":1,"duration_above(5)":60,"start":"00:14.000Z","end":"01:14.000Z","state":true}"#,
        ],
    );
    check(
        "kind = 'state'\nstate = 'payload > 5 ? \"hot\" : null'\nlongest = '1m'\ncompute = ['count']",
        &[(10_000, 6.0), (11_000, 1.0)],
        &[
            r#"{"count":1,"start":"00:10.000Z","end":"00:11.000Z","state":"hot"}"#,
            r#"{"count":1,"start":"00:11.000Z","end":"01:11.000Z","state":null}"#,
        ],
    );
}

#[test]
fn a_state_has_to_be_small() {
    let check = |state: &str, expected: &str| {
        let mut run = window(&format!("kind = 'state'\nstate = '{state}'"));
        deliver(&mut run, "t", 10_000, 1.0);
        assert!(run.sent[0].ends_with(expected), "{state}: {}", run.sent[0]);
    };
    check("[payload]", "but `state` gives a list: [1]");
    check("({})", "but `state` gives an object: {}");
    check("0 / 0", "but `state` gives a number: NaN");
    check("\"x\".repeat(1025)", "xxx...");
    check("msg.headers.a.b", "cannot read property 'b' of undefined");
}

#[test]
fn keys_have_windows_of_their_own() {
    let mut run = window("size = '10s'\nby = 'topic'\ncompute = ['sum']");
    for (topic, ms, value) in [("b", 10_000, 1.0), ("a", 11_000, 2.0), ("b", 12_000, 4.0)] {
        deliver(&mut run, topic, ms, value);
    }
    deliver(&mut run, "a", 25_000, 8.0);
    run.go_on_until(Timestamp::from_millis(40_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"sum":5,"start":"00:10.000Z","end":"00:20.000Z","key":"b"}"#,
            r#"{"sum":2,"start":"00:10.000Z","end":"00:20.000Z","key":"a"}"#,
            r#"{"sum":8,"start":"00:20.000Z","end":"00:30.000Z","key":"a"}"#,
        ]
    );
    let topics: Vec<&str> = run.messages.iter().map(|message| &*message.topic).collect();
    assert_eq!(topics, ["b", "a", "a"]);
}

#[test]
fn a_key_may_be_any_value_and_the_topic_is_the_last_messages() {
    let mut run = window("kind = 'count'\ncount = 2\nby = 'payload % 3'\ncompute = ['sum']");
    for (place, value) in [1.0, 2.0, 4.0, 5.0].into_iter().enumerate() {
        deliver(&mut run, &format!("t{place}"), 10_000, value);
    }
    let found: Vec<(&str, String)> = run
        .messages
        .iter()
        .map(|message| {
            (
                &*message.topic,
                message.payload.get("key").expect("a key").to_json(),
            )
        })
        .collect();
    assert_eq!(found, [("t2", r#""1""#.into()), ("t3", r#""2""#.into())]);

    let check = |by: &str, expected: &str| {
        let mut run = window(&format!("size = '1s'\nby = '{by}'\nvalue = '1'"));
        deliver(&mut run, "t", 10_000, 1.0);
        assert_eq!(
            sent(&run),
            [format!(
                "failed: `by` gives no key for this message: it is {expected}"
            )]
        );
    };
    check("payload.room", "null");
    check("payload.room % 3", "NaN");
    check("payload / 0", "inf");
}

#[test]
fn a_step_signal_keeps_its_value_over_the_boundary() {
    let compute = "compute = ['time_weighted_mean', 'duration_above(0)']";
    check(
        &format!("size = '10s'\n{compute}"),
        // Nothing in the window from 20 s.
        &[(12_000, 1.0), (14_000, 3.0), (35_000, 0.0)],
        &[
            r#"{"time_weighted_mean":2.5,"duration_above(0)":8,"start":"00:10.000Z","end":"00:20.000Z"}"#,
            r#"{"time_weighted_mean":1.5,"duration_above(0)":5,"start":"00:30.000Z","end":"00:40.000Z"}"#,
        ],
    );
    check(
        &format!("kind = 'hopping'\nsize = '8s'\nhop = '4s'\n{compute}"),
        &[(14_000, 3.0), (17_000, 0.0)],
        &[
            r#"{"time_weighted_mean":3,"duration_above(0)":2,"start":"00:08.000Z","end":"00:16.000Z"}"#,
            r#"{"time_weighted_mean":1.5,"duration_above(0)":3,"start":"00:12.000Z","end":"00:20.000Z"}"#,
            r#"{"time_weighted_mean":0.375,"duration_above(0)":1,"start":"00:16.000Z","end":"00:24.000Z"}"#,
        ],
    );
    check(
        &format!("kind = 'sliding'\nsize = '10s'\n{compute}"),
        &[(12_000, 3.0), (30_000, 1.0), (35_000, 1.0)],
        &[
            r#"{"time_weighted_mean":3,"duration_above(0)":0,"start":"00:02.000Z","end":"00:12.000Z"}"#,
            r#"{"time_weighted_mean":3,"duration_above(0)":10,"start":"00:20.000Z","end":"00:30.000Z"}"#,
            r#"{"time_weighted_mean":2,"duration_above(0)":10,"start":"00:25.000Z","end":"00:35.000Z"}"#,
        ],
    );
}

#[test]
fn where_order_matters_messages_wait_for_earlier_ones() {
    let mut run = window("kind = 'count'\ncount = 2\nlateness = '1s'\ncompute = ['first', 'last']");
    deliver(&mut run, "t", 10_000, 2.0);
    run.go_on_until(Timestamp::from_millis(10_500));
    run.deliver(Timestamp::from_millis(9_600), 1.0.into());
    run.go_on_until(Timestamp::from_millis(10_999));
    assert_eq!(run.sent.len(), 0, "both could still be preceded");
    run.go_on_until(Timestamp::from_millis(11_000));
    run.deliver(Timestamp::from_millis(9_999), 3.0.into());
    run.deliver(Timestamp::from_millis(10_000), 4.0.into());
    assert_eq!(
        sent(&run),
        [
            r#"{"first":1,"last":2,"start":"00:09.600Z","end":"00:10.000Z"}"#,
            "failed: too late: what came before 00:10.000Z was settled before this message of 00:09.999Z came",
        ]
    );
}

#[test]
fn what_lies_ahead_waits_for_its_time() {
    let mut run = window("kind = 'sliding'\nsize = '10s'\ncompute = ['sum']");
    run.go_on_until(Timestamp::from_millis(10_000));
    run.deliver(Timestamp::from_millis(12_000), 1.0.into());
    run.deliver(Timestamp::from_millis(10_000), 2.0.into());
    run.deliver(Timestamp::from_millis(70_001), 4.0.into());
    run.go_on_until(Timestamp::from_millis(20_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"sum":2,"start":"00:00.000Z","end":"00:10.000Z"}"#,
            "failed: the message's time, 01:10.001Z, is in the future: it is 00:10.000Z now",
            r#"{"sum":3,"start":"00:02.000Z","end":"00:12.000Z"}"#,
        ]
    );
}

#[test]
fn what_comes_into_a_closed_session_fails() {
    let mut run = window("kind = 'session'\ngap = '5s'\nby = 'topic'\ncompute = ['count']");
    deliver(&mut run, "t", 10_000, 1.0);
    run.go_on_until(Timestamp::from_millis(16_000));
    run.deliver(Timestamp::from_millis(14_000), 1.0.into());
    run.deliver(Timestamp::from_millis(15_000), 1.0.into());
    run.go_on_until(Timestamp::from_millis(30_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"count":1,"start":"00:10.000Z","end":"00:15.000Z","key":"t"}"#,
            "failed: too late: what came before 00:15.000Z was settled before this message of 00:14.000Z came",
            r#"{"count":1,"start":"00:15.000Z","end":"00:20.000Z","key":"t"}"#,
        ]
    );
}

/// The clock of a Pi steps ahead when it is set. What waited then is still put into its own windows.
#[test]
fn a_step_of_the_clock_loses_no_reading_that_waited() {
    let mut run = window(
        "kind = 'hopping'\nsize = '1s'\nhop = '500ms'\nlateness = '500ms'\ncompute = ['sum', 'time_weighted_mean']",
    );
    for ms in [10_600, 10_900] {
        deliver(&mut run, "t", ms, 1.0);
    }
    run.now.wall = Timestamp::from_millis(3_000_000);
    run.deliver(Timestamp::from_millis(3_000_000), 4.0.into());
    run.go_on_until(Timestamp::from_millis(3_001_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"sum":2,"time_weighted_mean":1,"start":"00:10.000Z","end":"00:11.000Z"}"#,
            r#"{"sum":2,"time_weighted_mean":1,"start":"00:10.500Z","end":"00:11.500Z"}"#,
            r#"{"sum":4,"time_weighted_mean":2.5,"start":"49:59.500Z","end":"50:00.500Z"}"#,
        ]
    );
}

/// Windows that were answered stay so, although the clock says that they are still to come.
#[test]
fn a_clock_that_goes_back_opens_no_window_again() {
    let mut run = window("size = '1s'\nlateness = '0s'\ncompute = ['count']");
    deliver(&mut run, "t", 10_000, 1.0);
    run.go_on_until(Timestamp::from_millis(11_000));
    run.now.wall = Timestamp::from_millis(10_500);
    run.deliver(Timestamp::from_millis(10_500), 1.0.into());
    run.deliver(Timestamp::from_millis(11_000), 1.0.into());
    assert_eq!(
        sent(&run),
        [
            r#"{"count":1,"start":"00:10.000Z","end":"00:11.000Z"}"#,
            "failed: too late: the window from 00:10.000Z was closed before this message of 00:10.500Z came",
        ]
    );
}

#[test]
fn values_that_are_only_told_apart_need_not_be_numbers() {
    let mut run = window("kind = 'count'\ncount = 6\ncompute = ['distinct', 'count']");
    let payloads = r#"["a", "b", "a", 1, "1", null]"#;
    let payloads: Vec<Value> = serde_json::from_str(payloads).expect("JSON");
    for payload in payloads {
        deliver(&mut run, "t", 10_000, payload);
    }
    assert_eq!(
        sent(&run),
        [r#"{"distinct":5,"count":6,"start":"00:10.000Z","end":"00:10.000Z"}"#]
    );
    let mut run = window("kind = 'count'\ncount = 1\ncompute = ['distinct', 'max']");
    deliver(&mut run, "t", 10_000, "a");
    assert!(run.sent[0].starts_with("failed: needs a finite number"));
}

#[test]
fn what_a_number_cannot_hold_is_null() {
    check(
        "kind = 'count'\ncount = 2\ncompute = ['sum', 'mean', 'range', 'variance', 'max']",
        &[(10_000, 1e308), (10_000, 1.5e308)],
        &[
            r#"{"sum":null,"mean":null,"range":5e+307,"variance":null,"max":1.5e+308,"start":"00:10.000Z","end":"00:10.000Z"}"#,
        ],
    );
}

#[test]
fn names_stay_as_they_are_written() {
    let mut run = Run::new(
        "type = 'window'\nsize = '1s'\ncompute = ['median', 'p50', 'duration_above( 0 )', 'histogram(1,2)']",
    );
    deliver(&mut run, "t", 10_000, 1.0);
    run.go_on_until(Timestamp::from_millis(12_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"median":1,"p50":1,"duration_above( 0 )":1,"histogram(1,2)":[0,1,0],"start":"00:10.000Z","end":"00:11.000Z"}"#
        ]
    );
}
