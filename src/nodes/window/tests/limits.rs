//! What a window node does not exceed: memory, work in one call, the range of time.

use std::mem::size_of;
use std::time::Duration;

use super::super::aligned::{self, Aligned};
use super::super::keys::Slot;
use super::super::runs::{self, Runs};
use super::super::sliding;
use super::super::trackers::Tracker;
use super::super::waiting::MOST_WAITING;
use super::super::windows::{Kind, Reading};
use super::{deliver, sent, window};
use crate::flow::estimate::Load;
use crate::message::{Message, Timestamp, Value};
use crate::nodes::testing::{Run, graph};
use crate::runtime::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::node::Address;

#[test]
fn memory_is_what_the_documentation_says() {
    // 110 bytes for an open window, 80 for a further statistic, 16 for a reading in a sliding window.
    assert!(
        size_of::<aligned::Open>() <= 112,
        "{}",
        size_of::<aligned::Open>()
    );
    assert!(size_of::<Tracker>() <= 80, "{}", size_of::<Tracker>());
    assert_eq!(size_of::<(Timestamp, f64)>(), 16);
    // 250 for a key: with its entry by name, and those that say when it is due or idle.
    const ENTRIES: usize = 2 * (16 + 8) + 24 + 16;
    let key = |slot: usize, open: usize| {
        assert!(slot + ENTRIES - open <= 250, "{slot} + {ENTRIES} - {open}");
    };
    key(size_of::<Slot<<Aligned as Kind>::Kept>>(), 0);
    key(
        size_of::<Slot<<Runs as Kind>::Kept>>(),
        size_of::<runs::Open>(),
    );
    key(
        size_of::<Slot<<sliding::Sliding as Kind>::Kept>>(),
        size_of::<sliding::Slide>(),
    );
    assert!(size_of::<Reading>() <= 64, "{}", size_of::<Reading>());
}

#[test]
fn a_key_one_too_many_fails_until_a_window_has_closed() {
    for kind in [
        "size = '10s'\nlateness = '0s'",
        "kind = 'session'\ngap = '10s'",
        "kind = 'sliding'\nsize = '10s'",
        "kind = 'state'\nstate = '1'\nlongest = '10s'",
    ] {
        let mut run = window(&format!(
            "{kind}\nby = 'topic'\nmost_keys = 2\ncompute = ['count']"
        ));
        for topic in ["a", "b", "c", "a"] {
            deliver(&mut run, topic, 10_000, 1.0);
        }
        let failed: Vec<String> = sent(&run)
            .into_iter()
            .filter(|text| text.starts_with("failed"))
            .collect();
        assert_eq!(
            failed,
            ["failed: 2 keys have open windows already, `c` is one too many"],
            "{kind}"
        );
        let before = run.sent.len();
        deliver(&mut run, "c", 20_000, 1.0);
        deliver(&mut run, "d", 20_000, 1.0);
        run.go_on_until(Timestamp::from_millis(40_000));
        let keys: Vec<String> = run
            .messages
            .iter()
            .rev()
            .take(2)
            .map(|message| message.payload.get("key").expect("a key").to_json())
            .collect();
        assert_eq!(keys, [r#""d""#, r#""c""#], "{kind}");
        let is_good = run.sent[before..]
            .iter()
            .all(|text| !text.starts_with("failed"));
        assert!(is_good, "{kind}: {:?}", run.sent);
    }
}

/// A key that was forgotten and comes again does not begin a session inside of one that was answered.
#[test]
fn what_was_settled_stays_so_when_its_key_is_forgotten() {
    let mut run =
        window("kind = 'session'\ngap = '5s'\nby = 'topic'\nmost_keys = 1\ncompute = ['count']");
    deliver(&mut run, "a", 10_000, 1.0);
    deliver(&mut run, "b", 15_000, 1.0);
    run.go_on_until(Timestamp::from_millis(20_000));
    run.deliver_on("a", Timestamp::from_millis(14_999), 1.0.into());
    assert_eq!(
        sent(&run).pop().expect("a failure"),
        "failed: too late: what came before 00:15.000Z was settled before this message of 00:14.999Z came"
    );
}

#[test]
fn a_key_has_at_most_so_many_bytes() {
    let mut run = window("size = '1s'\nby = 'topic'");
    deliver(&mut run, &"x".repeat(1_024), 10_000, 1.0);
    deliver(&mut run, &"x".repeat(1_025), 10_000, 1.0);
    assert_eq!(sent(&run), ["failed: a key has at most 1024 bytes"]);
}

#[test]
fn a_sliding_window_that_is_full_refuses_and_recovers() {
    let mut run = window("kind = 'sliding'\nsize = '1s'\nmost = 2\ncompute = ['count']");
    for ms in [10_000, 10_500, 10_999, 11_000] {
        deliver(&mut run, "t", ms, 1.0);
    }
    assert_eq!(
        sent(&run)[2..],
        [
            "failed: the last 1s have 2 readings already: raise `most`, or lower `size`",
            r#"{"count":2,"start":"00:10.000Z","end":"00:11.000Z"}"#,
        ]
    );
}

#[test]
fn a_refused_message_takes_nothing_out_of_a_sliding_window() {
    let mut run =
        window("kind = 'sliding'\nsize = '1s'\nmost = 20000\ncompute = ['count', 'distinct']");
    deliver(&mut run, "t", 10_000, 0.0);
    for value in 0..10_000 {
        deliver(&mut run, "t", 10_100, f64::from(value));
    }
    run.go_on_until(Timestamp::from_millis(11_050));
    run.sent.clear();
    // The first 0 would have left, but there is another one.
    run.deliver(Timestamp::from_millis(11_050), (-1.0).into());
    run.deliver(Timestamp::from_millis(10_999), 5.0.into());
    run.deliver(Timestamp::from_millis(11_000), 5.0.into());
    // When the others leave as well, there is room again.
    run.now.wall = Timestamp::from_millis(11_200);
    run.deliver(Timestamp::from_millis(11_200), (-1.0).into());
    assert_eq!(
        sent(&run),
        [
            "failed: the window has 10000 distinct values already, this is one too many",
            r#"{"count":10002,"distinct":10000,"start":"00:09.999Z","end":"00:10.999Z"}"#,
            r#"{"count":10002,"distinct":10000,"start":"00:10.000Z","end":"00:11.000Z"}"#,
            r#"{"count":3,"distinct":2,"start":"00:10.200Z","end":"00:11.200Z"}"#,
        ]
    );
}

#[test]
fn a_window_takes_no_more_distinct_values_than_it_can_count() {
    for kind in [
        "size = '1m'",
        "kind = 'session'\ngap = '1m'",
        "kind = 'sliding'\nsize = '1m'\nmost = 20000",
    ] {
        let mut run = window(&format!("{kind}\ncompute = ['distinct', 'max']"));
        for value in 0..=10_000 {
            deliver(&mut run, "t", 60_000, f64::from(value));
        }
        assert_eq!(
            run.sent.last().map(String::as_str),
            Some("failed: the window has 10000 distinct values already, this is one too many"),
            "{kind}"
        );
        deliver(&mut run, "t", 60_000, 3.0);
        run.go_on_until(Timestamp::from_millis(200_000));
        let last = run.messages.last().expect("a result").payload.to_json();
        assert!(
            last.starts_with(r#"{"distinct":10000,"max":9999,"#),
            "{kind}: {last}"
        );
    }
}

#[test]
fn only_so_many_messages_wait() {
    let mut run = window("kind = 'count'\ncount = 10001\nlateness = '1s'\ncompute = ['count']");
    for _ in 0..=MOST_WAITING {
        deliver(&mut run, "t", 10_000, 1.0);
    }
    assert_eq!(
        sent(&run),
        ["failed: 10000 messages wait for earlier ones already, this is one too many"]
    );
    deliver(&mut run, "t", 11_000, 1.0);
    run.go_on_until(Timestamp::from_millis(12_000));
    assert_eq!(
        sent(&run)[1..],
        [r#"{"count":10001,"start":"00:10.000Z","end":"00:11.000Z"}"#]
    );
}

#[test]
fn only_so_many_windows_are_open() {
    let mut run =
        window("kind = 'hopping'\nsize = '2s'\nhop = '1ms'\nby = 'topic'\ncompute = ['count']");
    // Twins are reloaded before each of the first hundred messages, for which so many windows take long.
    for _ in 0..100 {
        deliver(&mut run, "t", 10_000, Value::Null);
    }
    run.sent.clear();
    for key in 0..=100 {
        deliver(&mut run, &format!("k{key}"), 10_000, 1.0);
    }
    assert_eq!(
        sent(&run),
        ["failed: 200000 windows are open already, this message needs one too many"]
    );
}

/// A thousand windows that close together come by and by, with time for others in between.
#[test]
fn one_call_sends_so_many_results_and_no_more() {
    for kind in ["size = '1s'", "kind = 'session'\ngap = '1s'"] {
        let flow = graph(&format!(
            "[nodes.source]\ntype = 'inject'\nevery = '10000d'\n\
             [nodes.tested]\ntype = 'window'\nfrom = 'source'\nby = 'topic'\n{kind}\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
        ));
        let source = flow.find("source").expect("it is there");
        let node = flow.find("tested").expect("it is there");
        let mut engine = Engine::new("d");
        let mut now = Now::default();
        let mut effects = Vec::new();
        engine.add(flow, now, &mut effects);
        let messages = (0..1_000).map(|key| Message {
            topic: format!("k{key}").into(),
            payload: 1.0.into(),
            time: now.wall,
            source,
            headers: None,
        });
        let messages = messages.collect();
        let to = Address { flow: 0, node };
        engine.handle(now, Event::Messages { to, messages }, &mut effects);
        assert_eq!(effects.len(), 0);
        let mut sent = Vec::new();
        now = now.later(Duration::from_secs(2));
        while sent.len() < 4 {
            let mut effects = Vec::new();
            engine.wake(now, usize::MAX, &mut effects);
            sent.push(effects.len());
            assert!(
                sent.len() == 4 || engine.next_wake() > Some(now.mono),
                "{kind}: others first"
            );
            now = now.later(Duration::from_nanos(1));
        }
        assert_eq!(sent, [256, 256, 256, 232], "{kind}");
    }
}

/// Also in a window that is open: whether there are keys must not make a difference.
#[test]
fn the_future_is_refused_where_its_window_is_open_already() {
    for by in ["", "by = 'topic'"] {
        let mut run = window(&format!(
            "size = '1h'\nfuture = '2s'\nlateness = '0s'\ncompute = ['count']\n{by}"
        ));
        run.go_on_until(Timestamp::from_millis(10_000));
        for ms in [10_000, 12_000, 12_001] {
            run.deliver(Timestamp::from_millis(ms), 1.0.into());
        }
        run.go_on_until(Timestamp::from_millis(4_000_000));
        let sent = sent(&run);
        assert_eq!(
            sent[0],
            "failed: the message's time, 00:12.001Z, is in the future: it is 00:10.000Z now"
        );
        assert!(sent[1].starts_with(r#"{"count":2,"#), "{}", sent[1]);
    }
}

/// Every kind at both ends of time, with the engine's clock there too.
#[test]
fn the_ends_of_time_do_no_harm() {
    let kinds = [
        "size = '1s'",
        "size = '366d'",
        "size = '1ms'",
        "kind = 'hopping'\nsize = '366d'\nhop = '5d'",
        "kind = 'sliding'\nsize = '366d'",
        "kind = 'session'\ngap = '1d'",
        "kind = 'session'\ngap = '366d'\nlongest = '366d'",
        "kind = 'count'\ncount = 2\nlongest = '366d'",
        "kind = 'state'\nstate = 'payload'",
    ];
    let times = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    let compute = "compute = ['mean', 'slope', 'stddev', 'median', 'last']";
    let in_order = "compute = ['time_weighted_mean', 'duration_above(0)', 'slope']";
    for kind in kinds {
        for compute in [compute, in_order] {
            for clock in times {
                for by in ["", "by = 'topic'"] {
                    let mut run = window(&format!("{kind}\n{compute}\n{by}"));
                    run.now.wall = Timestamp::from_nanos(clock);
                    for time in times.into_iter().chain(times) {
                        run.deliver(Timestamp::from_nanos(time), 1.0.into());
                    }
                    let later = run
                        .now
                        .wall
                        .saturating_add(Duration::from_secs(800 * 86_400));
                    run.go_on_until(later);
                    run.deliver(run.now.wall, 1e308.into());
                }
            }
        }
    }
}

#[test]
fn the_shortest_and_the_longest_window_close() {
    let mut run = window("size = '1ms'\ncompute = ['count']");
    deliver(&mut run, "t", 10_000, 1.0);
    run.go_on_until(Timestamp::from_millis(10_002));
    assert_eq!(
        sent(&run),
        [r#"{"count":1,"start":"00:10.000Z","end":"00:10.001Z"}"#]
    );
    let mut run = window("size = '366d'\ncompute = ['count']");
    deliver(&mut run, "t", 10_000, 1.0);
    run.go_on_until(Timestamp::from_millis(367 * 86_400_000));
    assert_eq!(
        sent(&run),
        [r#"{"count":1,"start":"00:00.000Z","end":"1971-01-02T00:00:00.000Z"}"#]
    );
}

#[test]
fn the_future_is_as_near_as_it_is_set() {
    let mut run = window("size = '1m'\nfuture = '2s'\nlateness = '0s'\ncompute = ['count']");
    run.go_on_until(Timestamp::from_millis(10_000));
    run.deliver(Timestamp::from_millis(12_001), 1.0.into());
    run.deliver(Timestamp::from_millis(12_000), 1.0.into());
    run.go_on_until(Timestamp::from_millis(70_000));
    assert_eq!(
        sent(&run),
        [
            "failed: the message's time, 00:12.001Z, is in the future: it is 00:10.000Z now",
            r#"{"count":1,"start":"00:00.000Z","end":"01:00.000Z"}"#,
        ]
    );
}

#[test]
fn loads_are_bounded_by_windows_and_by_what_comes() {
    let load = |options: &str, per_second: f64| {
        let flow = graph(&format!(
            "[nodes.source]\ntype = 'inject'\nevery = '1s'\n[nodes.tested]\ntype = 'window'\nfrom = 'source'\n{options}\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
        ));
        let node = flow.find("tested").expect("it is there");
        let input = Load {
            per_second,
            bytes: 6.0,
        };
        flow.nodes()[usize::from(node.0)].spec.load(input)
    };
    let check = |options: &str, per_second: f64, expected: f64| {
        let found = load(options, per_second).per_second;
        assert!((found - expected).abs() < 1e-9, "{options}: {found}");
    };
    check("size = '10s'", 100.0, 0.1);
    check("size = '10s'", 0.01, 0.01);
    check("size = '10s'", f64::INFINITY, 0.1);
    check("size = '10s'\nby = 'topic'\nmost_keys = 20", 100.0, 2.0);
    check("kind = 'hopping'\nsize = '10s'\nhop = '2s'", 100.0, 0.5);
    check("kind = 'hopping'\nsize = '10s'\nhop = '2s'", 0.01, 0.05);
    check("kind = 'sliding'\nsize = '10s'", 5.0, 5.0);
    check("kind = 'session'\ngap = '10s'", 5.0, 0.1);
    check("kind = 'count'\ncount = 10", 5.0, 0.5);
    check("kind = 'count'\ncount = 10\nlongest = '10s'", 5.0, 0.6);
    check("kind = 'state'\nstate = 'payload'", 5.0, 5.0);
    assert_eq!(
        load("size = '10s'", f64::INFINITY).bytes,
        load("size = '10s'", 1.0).bytes
    );
    let mut run = Run::new("type = 'window'\nsize = '10s'");
    deliver(&mut run, "t", 10_000, 1.25);
    run.go_on_until(Timestamp::from_millis(30_000));
    let (said, sent) = (load("size = '10s'", 1.0).bytes, run.sent[0].len() as f64);
    assert!(
        (sent * 0.8..sent * 1.5).contains(&said),
        "{said} for {sent}"
    );
}
