//! The node as a whole: what each kind sends, by hand, and its limits. Random readings are in [`random`].

mod kinds;
mod limits;
mod options;
mod random;
mod restart;

use crate::message::{Timestamp, Value};
use crate::nodes::testing::{Run, run_node_at};

fn check(options: &str, messages: &[(i64, f64)], expected: &[&str]) {
    let messages = messages
        .iter()
        .map(|(ms, number)| (Timestamp::from_millis(*ms), (*number).into()));
    let sent = run_node_at(&format!("type = 'window'\n{options}"), messages);
    assert_eq!(sent, expected);
}

#[test]
fn a_window_has_its_start_and_not_its_end() {
    check(
        "size = '1s'",
        &[(10_000, 1.0), (10_999, 3.0), (11_000, 5.0)],
        &[
            r#"{"count":2,"mean":2,"min":1,"max":3,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
            r#"{"count":1,"mean":5,"min":5,"max":5,"start":"1970-01-01T00:00:11.000Z","end":"1970-01-01T00:00:12.000Z"}"#,
        ],
    );
}

#[test]
fn empty_windows_send_nothing_and_compute_chooses() {
    check(
        "size = '1s'\ncompute = ['max', 'count']",
        &[(10_000, 1.0), (20_000, 2.0)],
        &[
            r#"{"max":1,"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
            r#"{"max":2,"count":1,"start":"1970-01-01T00:00:20.000Z","end":"1970-01-01T00:00:21.000Z"}"#,
        ],
    );
}

#[test]
fn a_value_is_computed_and_what_throws_fails() {
    check(
        "size = '1s'\ncompute = ['max']\nvalue = 'Math.abs(payload) * 2'",
        &[(10_000, -4.0), (10_100, 1.0)],
        &[r#"{"max":8,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#],
    );
    check(
        "size = '1s'\nvalue = 'payload.a.b'",
        &[(10_000, 1.0)],
        &["failed: JavaScript: cannot read property 'b' of undefined"],
    );
    check(
        "size = '1s'\nvalue = 'payload.room'",
        &[(10_000, 1.0)],
        &["failed: needs a finite number, but `value` gives null: null"],
    );
    check(
        "size = '1s'\nvalue = '1 / payload'",
        &[(10_000, 0.0)],
        &["failed: needs a finite number, but `value` gives a number: inf"],
    );
}

#[test]
fn what_is_no_number_fails_and_leaves_the_window_alone() {
    check(
        "size = '1s'\ncompute = ['count']",
        &[(10_000, 1.0), (10_100, f64::NAN)],
        &[
            "failed: needs a finite number, but the payload is a number: NaN",
            r#"{"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01-01T00:00:11.000Z"}"#,
        ],
    );
}

/// Messages whose own time differs from the time at which they come.
fn check_late(lateness: &str, arrivals: &[(i64, i64)], expected: &[&str]) {
    let mut run = Run::new(&format!(
        "type = 'window'\nsize = '1s'\ncompute = ['count']\nlateness = '{lateness}'"
    ));
    for (comes_at, time) in arrivals {
        run.go_on_until(Timestamp::from_millis(*comes_at));
        run.deliver(Timestamp::from_millis(*time), 1.0.into());
    }
    run.go_on_until(Timestamp::from_millis(100_000));
    let sent: Vec<String> = run
        .sent
        .iter()
        .map(|text| text.chars().take(60).collect())
        .collect();
    assert_eq!(sent, expected);
}

#[test]
fn late_messages_are_waited_for_and_then_refused() {
    const TEN: &str = r#"{"count":2,"start":"1970-01-01T00:00:10.000Z","end":"1970-01"#;
    const ELEVEN: &str = r#"{"count":1,"start":"1970-01-01T00:00:11.000Z","end":"1970-01"#;
    check_late(
        "500ms",
        &[(10_500, 10_500), (11_400, 11_400), (11_499, 10_999)],
        &[TEN, ELEVEN],
    );
    const LATE: &str = "failed: too late: the window from 1970-01-01T00:00:10.000Z w";
    const ONE: &str = r#"{"count":1,"start":"1970-01-01T00:00:10.000Z","end":"1970-01"#;
    check_late(
        "500ms",
        &[(10_500, 10_500), (11_400, 11_400), (11_500, 10_999)],
        &[ONE, LATE, ELEVEN],
    );
}

#[test]
fn a_reading_from_the_future_opens_no_window() {
    check_late(
        "0s",
        &[(10_000, 70_001)],
        &["failed: the message's time, 1970-01-01T00:01:10.001Z, is in "],
    );
    check_late(
        "0s",
        &[(10_000, 70_000)],
        &[r#"{"count":1,"start":"1970-01-01T00:01:10.000Z","end":"1970-01"#],
    );
}

/// A window node to which messages come by and by.
fn window(options: &str) -> Run {
    Run::new(&format!("type = 'window'\n{options}"))
}

/// A message with the time at which it comes.
fn deliver(run: &mut Run, topic: &str, ms: i64, value: impl Into<Value>) {
    run.go_on_until(Timestamp::from_millis(ms));
    run.deliver_on(topic, Timestamp::from_millis(ms), value.into());
}

/// What was sent and failed, without the parts of timestamps that are always the same.
fn sent(run: &Run) -> Vec<String> {
    let short = |text: &String| text.replace("1970-01-01T00:", "");
    run.sent.iter().map(short).collect()
}
