//! What windows remember over a restart, and what they say of it. Over a reload they are as if nothing had happened: that is tested
//! with everything else, by the twin of each [`Run`](crate::nodes::testing::Run).

use std::sync::Arc;
use std::time::Duration;

use super::{deliver, sent, window};
use crate::flow::Graph;
use crate::message::{Message, Timestamp, Value};
use crate::nodes::testing::graph;
use crate::runtime::Now;
use crate::runtime::engine::{Engine, Event};
use crate::runtime::node::{Address, Effect};
use crate::runtime::state::Checkpoint;

/// A device whose power fails, with a clock that may stand anywhere afterwards. Times are milliseconds since 1970.
struct Device {
    graph: Arc<Graph>,
    engine: Engine,
    now: Now,
    checkpoint: Option<Arc<Checkpoint>>,
    sent: Vec<String>,
}

impl Device {
    fn new(options: &str, starts_at: i64) -> Device {
        let graph = graph(&format!(
            "[nodes.source]\ntype = 'catch'\nnodes = []\n\
             [nodes.tested]\ntype = 'window'\nfrom = 'source'\n{options}\n\
             [nodes.sink]\ntype = 'debug'\nfrom = 'tested'"
        ));
        let mut device = Device {
            graph,
            engine: Engine::new("d"),
            now: Now {
                mono: Duration::ZERO,
                wall: Timestamp::from_millis(starts_at),
            },
            checkpoint: None,
            sent: Vec::new(),
        };
        let mut effects = Vec::new();
        device
            .engine
            .add(device.graph.clone(), device.now, &mut effects);
        device.note(effects);
        device
    }

    /// Time goes on.
    fn until(&mut self, ms: i64) {
        let end = self.now.mono_at(Timestamp::from_millis(ms));
        while let Some(next) = self.engine.next_wake().filter(|next| *next <= end) {
            self.now = self.now.later(next.saturating_sub(self.now.mono));
            self.wake();
        }
        self.now = self.now.later(end - self.now.mono);
    }

    fn wake(&mut self) -> usize {
        let mut effects = Vec::new();
        self.engine.wake(self.now, usize::MAX, &mut effects);
        self.note(effects)
    }

    /// A message comes at its time.
    fn deliver(&mut self, topic: &str, ms: i64, value: f64) {
        self.until(ms);
        self.deliver_late(topic, ms, value);
    }

    fn deliver_late(&mut self, topic: &str, ms: i64, value: f64) {
        let node = |name| self.graph.find(name).expect("it is there");
        let event = Event::Messages {
            to: Address {
                flow: 0,
                node: node("tested"),
            },
            messages: vec![Message {
                topic: topic.into(),
                payload: value.into(),
                time: Timestamp::from_millis(ms),
                source: node("source"),
                headers: None,
            }],
        };
        let mut effects = Vec::new();
        self.engine.handle(self.now, event, &mut effects);
        self.note(effects);
    }

    fn checkpoint(&mut self) {
        self.checkpoint = self.engine.checkpoint(0, self.now);
    }

    /// It starts again from its last checkpoint with a clock that stands there.
    fn power_cut(&mut self, starts_at: i64) {
        let checkpoint = self.checkpoint.clone().expect("there is one");
        let wall = Timestamp::from_millis(starts_at);
        self.now = Now {
            mono: checkpoint.mono + wall.saturating_since(checkpoint.wall),
            wall,
        };
        self.engine = Engine::new("d");
        let mut effects = Vec::new();
        self.engine
            .add_restored(self.graph.clone(), checkpoint, self.now, &mut effects);
        assert_eq!(self.note(effects), 0, "everything in its turn");
    }

    /// Someone sets the clock, ahead.
    fn set_clock(&mut self, ms: i64) {
        self.now.wall = Timestamp::from_millis(ms);
    }

    fn note(&mut self, effects: Vec<Effect>) -> usize {
        let before = self.sent.len();
        for effect in effects {
            self.sent.push(match effect {
                Effect::Debug { message, .. } => message.payload.to_json(),
                Effect::Failed { reason, .. } => format!("failed: {reason}"),
                other => format!("{other:?}"),
            });
        }
        self.sent.len() - before
    }

    /// What was sent since this was asked last.
    fn sent(&mut self) -> Vec<String> {
        let short = |text: String| text.replace("1970-01-01T", "");
        std::mem::take(&mut self.sent)
            .into_iter()
            .map(short)
            .collect()
    }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const YEAR: i64 = 365 * 24 * HOUR;

#[test]
fn a_window_that_was_open_goes_on_and_says_so_and_the_next_one_does_not() {
    let mut run = window("size = '1m'\ncompute = ['sum']");
    deliver(&mut run, "t", 10_000, 1.0);
    run.restart(Duration::from_secs(20));
    deliver(&mut run, "t", 40_000, 2.0);
    deliver(&mut run, "t", 70_000, 4.0);
    run.go_on_until(Timestamp::from_millis(200_000));
    assert_eq!(
        sent(&run),
        [
            r#"{"sum":3,"start":"00:00.000Z","end":"01:00.000Z","restored":true,"window":"test/tested@00:00.000Z"}"#,
            r#"{"sum":4,"start":"01:00.000Z","end":"02:00.000Z"}"#,
        ]
    );
}

#[test]
fn what_is_overdue_closes_at_once_and_in_order() {
    let mut run = window("size = '1m'\nby = 'topic'\ncompute = ['sum']");
    deliver(&mut run, "b", 10_000, 1.0);
    deliver(&mut run, "a", 59_000, 2.0);
    // Ahead of its time.
    run.deliver_on("b", Timestamp::from_millis(61_000), 4.0.into());
    run.restart(Duration::from_secs(600));
    deliver(&mut run, "a", 661_000, 8.0);
    assert_eq!(
        sent(&run),
        [
            r#"{"sum":1,"start":"00:00.000Z","end":"01:00.000Z","key":"b","restored":true,"window":"test/tested@00:00.000Z[b]"}"#,
            r#"{"sum":2,"start":"00:00.000Z","end":"01:00.000Z","key":"a","restored":true,"window":"test/tested@00:00.000Z[a]"}"#,
            r#"{"sum":4,"start":"01:00.000Z","end":"02:00.000Z","key":"b","restored":true,"window":"test/tested@01:00.000Z[b]"}"#,
        ]
    );
}

/// As many as there are, with time for others in between.
#[test]
fn a_thousand_windows_that_are_overdue_close_in_slices() {
    let mut device = Device::new("size = '1m'\nby = 'topic'", 0);
    for key in 0..1_000 {
        device.deliver(&format!("k{key}"), 10_000, 1.0);
    }
    device.checkpoint();
    // Also where the clock went back.
    for starts_at in [HOUR, -HOUR] {
        device.power_cut(starts_at);
        let mut slices = Vec::new();
        while slices.iter().sum::<usize>() < 1_000 {
            slices.push(device.wake());
            device.now = device.now.later(Duration::from_nanos(1));
        }
        assert_eq!(slices, [256, 256, 256, 232], "{starts_at}");
    }
}

#[test]
fn what_was_answered_before_the_checkpoint_is_settled() {
    let mut device = Device::new("size = '1m'\ncompute = ['sum']", 0);
    device.deliver("t", 10_000, 1.0);
    device.until(61_000);
    device.checkpoint();
    device.sent();
    device.power_cut(62_000);
    device.deliver_late("t", 59_999, 2.0);
    device.until(10 * MINUTE);
    assert_eq!(
        device.sent(),
        [
            "failed: too late: the window from 00:00:00.000Z was closed before this message of 00:00:59.999Z came"
        ]
    );
}

#[test]
fn what_was_answered_after_the_checkpoint_is_answered_again_with_its_name() {
    let mut device = Device::new("size = '1m'\ncompute = ['sum']", 0);
    device.deliver("t", 10_000, 1.0);
    device.checkpoint();
    device.deliver("t", 20_000, 2.0);
    device.until(2 * MINUTE);
    assert_eq!(
        device.sent(),
        [r#"{"sum":3,"start":"00:00:00.000Z","end":"00:01:00.000Z"}"#]
    );
    // Twice, for the second cut comes before a checkpoint.
    for _ in 0..2 {
        device.power_cut(3 * MINUTE);
        device.until(4 * MINUTE);
        assert_eq!(
            device.sent(),
            [
                r#"{"sum":1,"start":"00:00:00.000Z","end":"00:01:00.000Z","restored":true,"window":"test/tested@00:00:00.000Z"}"#
            ]
        );
    }
}

/// Messages at 10 s and 20 s, a restart in between, at which the device was off for 1 s; then two hours.
fn check_kind(options: &str, expected: &[&str]) {
    let mut run = window(options);
    deliver(&mut run, "t", 10_000, 1.0);
    run.sent.clear();
    run.restart(Duration::from_secs(1));
    deliver(&mut run, "t", 20_000, 1.0);
    run.go_on_until(Timestamp::from_millis(2 * HOUR));
    assert_eq!(sent(&run), expected, "{options}");
}

#[test]
fn windows_of_each_kind_go_on() {
    check_kind(
        "kind = 'hopping'\nsize = '15s'\nhop = '10s'\ncompute = ['count']",
        &[
            r#"{"count":1,"start":"00:00.000Z","end":"00:15.000Z","restored":true,"window":"test/tested@00:00.000Z"}"#,
            r#"{"count":2,"start":"00:10.000Z","end":"00:25.000Z","restored":true,"window":"test/tested@00:10.000Z"}"#,
            r#"{"count":1,"start":"00:20.000Z","end":"00:35.000Z"}"#,
        ],
    );
    check_kind(
        "kind = 'session'\ngap = '11s'\nby = 'topic'\ncompute = ['count']",
        &[
            r#"{"count":2,"start":"00:10.000Z","end":"00:31.000Z","key":"t","restored":true,"window":"test/tested@00:10.000Z[t]"}"#,
        ],
    );
    check_kind(
        "kind = 'count'\ncount = 2\ncompute = ['count']",
        &[
            r#"{"count":2,"start":"00:10.000Z","end":"00:20.000Z","restored":true,"window":"test/tested@00:10.000Z"}"#,
        ],
    );
    check_kind(
        "kind = 'count'\ncount = 1\ncompute = ['count']",
        &[r#"{"count":1,"start":"00:20.000Z","end":"00:20.000Z"}"#],
    );
    check_kind(
        "kind = 'state'\nstate = 'null'\nlongest = '1h'\ncompute = ['count']",
        &[
            r#"{"count":2,"start":"00:10.000Z","end":"01:00:10.000Z","state":null,"restored":true,"window":"test/tested@00:10.000Z"}"#
                .replace("01:00:10.000Z", "1970-01-01T01:00:10.000Z")
                .as_str(),
        ],
    );
}

#[test]
fn a_sliding_window_says_so_until_what_was_restored_has_left() {
    let mut run = window("kind = 'sliding'\nsize = '10s'\ncompute = ['count', 'median']");
    deliver(&mut run, "t", 10_000, 1.0);
    deliver(&mut run, "t", 12_000, 2.0);
    run.sent.clear();
    run.restart(Duration::from_secs(1));
    for ms in [14_000, 21_999, 21_999, 22_000] {
        deliver(&mut run, "t", ms, 3.0);
    }
    assert_eq!(
        sent(&run),
        [
            r#"{"count":3,"median":2,"start":"00:04.000Z","end":"00:14.000Z","restored":true,"window":"test/tested@00:04.000Z"}"#,
            r#"{"count":3,"median":3,"start":"00:11.999Z","end":"00:21.999Z","restored":true,"window":"test/tested@00:11.999Z"}"#,
            // The second one of that name.
            r#"{"count":4,"median":3,"start":"00:11.999Z","end":"00:21.999Z","restored":true,"window":"test/tested@00:11.999Z~2"}"#,
            r#"{"count":4,"median":3,"start":"00:12.000Z","end":"00:22.000Z"}"#,
        ]
    );
}

/// What waited was taken, and perhaps answered, before the cut.
#[test]
fn a_message_that_waited_makes_its_window_a_restored_one() {
    for (kind, start, end) in [
        ("kind = 'session'\ngap = '5s'", "00:10.000Z", "00:15.000Z"),
        ("size = '5s'", "00:10.000Z", "00:15.000Z"),
        ("kind = 'sliding'\nsize = '5s'", "00:05.000Z", "00:10.000Z"),
    ] {
        let mut run = window(&format!(
            "{kind}\nlateness = '2s'\ncompute = ['duration_above(0)']"
        ));
        deliver(&mut run, "t", 10_000, 1.0);
        run.restart(Duration::from_secs(1));
        run.go_on_until(Timestamp::from_millis(MINUTE));
        let seconds = if kind.contains("sliding") { 0 } else { 5 };
        assert_eq!(
            sent(&run),
            [format!(
                r#"{{"duration_above(0)":{seconds},"start":"{start}","end":"{end}","restored":true,"window":"test/tested@{start}"}}"#
            )]
        );
    }
}

#[test]
fn windows_that_begin_at_one_time_have_names_of_their_own() {
    let mut run = window("kind = 'count'\ncount = 2\ncompute = ['sum']");
    for _ in 0..3 {
        deliver(&mut run, "t", 10_000, 1.0);
    }
    run.restart(Duration::ZERO);
    deliver(&mut run, "t", 10_000, 2.0);
    deliver(&mut run, "t", 10_000, 3.0);
    run.restart(Duration::ZERO);
    deliver(&mut run, "t", 20_000, 4.0);
    let names = run.messages.iter();
    let names = names.map(|message| message.payload.get("window").cloned());
    let name = |text| Some(Value::from(text));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            None,
            name("test/tested@1970-01-01T00:00:10.000Z~2"),
            name("test/tested@1970-01-01T00:00:10.000Z~3")
        ]
    );
}

/// A step signal that does not change sends nothing, and still has its value.
#[test]
fn what_was_held_before_the_restart_is_held_after_it() {
    let mut run = window("size = '10s'\ncompute = ['time_weighted_mean']");
    deliver(&mut run, "t", 5_000, 4.0);
    run.go_on_until(Timestamp::from_millis(15_000));
    run.sent.clear();
    run.restart(Duration::from_secs(6));
    deliver(&mut run, "t", 25_000, 8.0);
    run.go_on_until(Timestamp::from_millis(MINUTE));
    assert_eq!(
        sent(&run),
        [r#"{"time_weighted_mean":6,"start":"00:20.000Z","end":"00:30.000Z"}"#]
    );
}

/// A Pi without a clock battery: hours behind at first, and set right after a while.
#[test]
fn a_clock_that_is_behind_makes_nothing_late_and_nothing_twice_unsaid() {
    let mut device = Device::new("size = '1m'\ncompute = ['sum']", 12 * HOUR);
    device.deliver("t", 12 * HOUR + 10_000, 1.0);
    device.checkpoint();
    device.power_cut(10 * HOUR);
    device.until(10 * HOUR);
    assert_eq!(
        device.sent(),
        [
            r#"{"sum":1,"start":"12:00:00.000Z","end":"12:01:00.000Z","restored":true,"window":"test/tested@12:00:00.000Z"}"#
        ]
    );
    // That hour may have been answered before.
    device.deliver("t", 10 * HOUR + 10_000, 2.0);
    device.until(10 * HOUR + 2 * MINUTE);
    assert_eq!(
        device.sent(),
        [
            r#"{"sum":2,"start":"10:00:00.000Z","end":"10:01:00.000Z","restored":true,"window":"test/tested@10:00:00.000Z"}"#
        ]
    );
    device.deliver("t", 10 * HOUR + 2 * MINUTE, 4.0);
    device.set_clock(12 * HOUR + 50_000);
    device.deliver("t", 12 * HOUR + 50_000, 8.0);
    device.deliver("t", 12 * HOUR + MINUTE, 16.0);
    device.until(12 * HOUR + 3 * MINUTE);
    assert_eq!(
        device.sent(),
        [
            r#"{"sum":4,"start":"10:02:00.000Z","end":"10:03:00.000Z","restored":true,"window":"test/tested@10:02:00.000Z"}"#,
            // The rest of the window that was closed at the start.
            r#"{"sum":8,"start":"12:00:00.000Z","end":"12:01:00.000Z","restored":true,"window":"test/tested@12:00:00.000Z"}"#,
            r#"{"sum":16,"start":"12:01:00.000Z","end":"12:02:00.000Z"}"#,
        ]
    );
}

/// That stays known over another restart, with the clock right again.
#[test]
fn a_second_restart_does_not_forget_what_may_have_been_answered() {
    let mut device = Device::new("size = '1m'\ncompute = ['sum']", 12 * HOUR);
    device.deliver("t", 12 * HOUR + 10_000, 1.0);
    device.checkpoint();
    device.power_cut(10 * HOUR);
    // Before anything was closed.
    device.checkpoint();
    device.power_cut(12 * HOUR + 40_000);
    device.deliver("t", 12 * HOUR + 50_000, 2.0);
    device.until(12 * HOUR + 2 * MINUTE);
    let name = r#""start":"12:00:00.000Z","end":"12:01:00.000Z","restored":true,"window":"test/tested@12:00:00.000Z"}"#;
    assert_eq!(
        device.sent(),
        [
            format!(r#"{{"sum":1,{name}"#),
            format!(r#"{{"sum":2,{name}"#)
        ]
    );
}

/// Up to a minute is too little for that: what is a little early is late.
#[test]
fn a_clock_that_is_a_minute_behind_is_no_other_clock() {
    for (kind, lateness) in [
        ("size = '1s'\nlateness = '2s'", 2_000),
        ("kind = 'session'\ngap = '1s'", 0),
    ] {
        let mut device = Device::new(&format!("{kind}\ncompute = ['sum']"), HOUR);
        device.deliver("t", HOUR, 1.0);
        device.until(HOUR + 10_000);
        device.checkpoint();
        device.sent();
        // The node looked at the clock last when its only window closed.
        let closed = HOUR + 1_000 + lateness;
        device.power_cut(closed - MINUTE);
        device.deliver_late("t", HOUR - 50_000, 2.0);
        assert!(device.sent()[0].starts_with("failed: too late"), "{kind}");
        device.power_cut(closed - MINUTE - 1);
        device.deliver_late("t", HOUR - 50_000, 2.0);
        device.until(HOUR + MINUTE);
        let sent = device.sent();
        assert_eq!(sent.len(), 1, "{kind}: {sent:?}");
        assert!(
            sent[0].starts_with(r#"{"sum":2,"#) && sent[0].contains(r#""restored":true"#),
            "{kind}: {sent:?}"
        );
    }
}

/// They end where time had come to, not where they would have ended.
#[test]
fn windows_without_a_grid_end_where_the_clock_went_back() {
    for kind in [
        "kind = 'count'\ncount = 10",
        "kind = 'state'\nstate = 'payload'",
        "kind = 'session'\ngap = '1h'",
    ] {
        let mut device = Device::new(
            &format!("{kind}\ncompute = ['count', 'duration_above(0)']"),
            12 * HOUR,
        );
        device.deliver("t", 12 * HOUR, 1.0);
        device.deliver("t", 12 * HOUR + 5_000, 1.0);
        device.checkpoint();
        device.power_cut(10 * HOUR);
        device.until(10 * HOUR);
        let sent = device.sent().remove(0).replace(r#""state":1,"#, "");
        assert_eq!(
            sent,
            r#"{"count":2,"duration_above(0)":5,"start":"12:00:00.000Z","end":"12:00:05.000Z","restored":true,"window":"test/tested@12:00:00.000Z"}"#,
            "{kind}"
        );
        // A new one begins with what comes now.
        device.deliver("t", 10 * HOUR + 1, 1.0);
        assert_eq!(device.sent(), [""; 0], "{kind}");
    }
}

#[test]
fn what_waited_when_the_clock_went_back_is_taken_first() {
    let options = "kind = 'sliding'\nsize = '1m'\nlateness = '10s'\ncompute = ['count']";
    let mut device = Device::new(options, 12 * HOUR);
    device.deliver("t", 12 * HOUR, 1.0);
    device.deliver("t", 12 * HOUR + 1, 1.0);
    device.checkpoint();
    device.power_cut(10 * HOUR);
    device.deliver("t", 10 * HOUR + 1, 1.0);
    device.until(10 * HOUR + MINUTE);
    let counts: Vec<String> = device.sent();
    let counts: Vec<&str> = counts
        .iter()
        .map(|text| &text[..text.len().min(39)])
        .collect();
    assert_eq!(
        counts,
        [
            r#"{"count":1,"start":"11:59:00.000Z","end"#,
            r#"{"count":2,"start":"11:59:00.001Z","end"#,
            r#"{"count":1,"start":"09:59:00.001Z","end"#,
        ]
    );
}

/// The clock was wrong by then, or the device lay in a drawer.
#[test]
fn a_year_later_everything_closes_at_once_and_new_windows_are_new() {
    let mut device = Device::new("size = '1m'\ncompute = ['sum']", 0);
    device.deliver("t", 10_000, 1.0);
    device.checkpoint();
    device.power_cut(YEAR);
    device.deliver("t", YEAR + 10_000, 2.0);
    device.until(YEAR + 2 * MINUTE);
    assert_eq!(
        device.sent(),
        [
            r#"{"sum":1,"start":"00:00:00.000Z","end":"00:01:00.000Z","restored":true,"window":"test/tested@00:00:00.000Z"}"#,
            r#"{"sum":2,"start":"1971-01-01T00:00:00.000Z","end":"1971-01-01T00:01:00.000Z"}"#,
        ]
    );
    // And back from a clock that was a year ahead.
    device.deliver("t", YEAR + 130_000, 4.0);
    device.checkpoint();
    device.power_cut(20_000);
    device.deliver("t", 30_000, 8.0);
    device.until(2 * MINUTE);
    assert_eq!(
        device.sent(),
        [
            r#"{"sum":4,"start":"1971-01-01T00:02:00.000Z","end":"1971-01-01T00:03:00.000Z","restored":true,"window":"test/tested@1971-01-01T00:02:00.000Z"}"#,
            r#"{"sum":8,"start":"00:00:00.000Z","end":"00:01:00.000Z","restored":true,"window":"test/tested@00:00:00.000Z"}"#,
        ]
    );
}

/// Every kind, with the clock at either end of time after the restart.
#[test]
fn the_ends_of_time_do_no_harm() {
    let ends = [i64::MIN, -1, 0, i64::MAX];
    for kind in [
        "size = '366d'",
        "kind = 'hopping'\nsize = '366d'\nhop = '5d'\nby = 'topic'",
        "kind = 'sliding'\nsize = '366d'",
        "kind = 'session'\ngap = '366d'\nlongest = '366d'",
        "kind = 'count'\ncount = 2",
    ] {
        for before in ends {
            for after in ends {
                let mut run = window(&format!("{kind}\ncompute = ['slope', 'median']"));
                run.now.wall = Timestamp::from_nanos(before);
                run.deliver(run.now.wall, 1.0.into());
                run.now.wall = Timestamp::from_nanos(after);
                run.restart(Duration::ZERO);
                run.deliver(run.now.wall, 1.0.into());
                let later = Duration::from_secs(800 * 86_400);
                run.go_on_until(run.now.wall.saturating_add(later));
            }
        }
    }
}

/// A checkpoint's bytes of a node, for each of 500 keys with so many readings.
fn bytes_per_key(options: &str, readings: u32, reading: impl Fn(u32) -> f64) -> usize {
    const KEYS: u32 = 500;
    // As it is today; and the topic is that of a sensor.
    const TODAY: i64 = 1_780_000_000_000;
    let mut device = Device::new(
        &format!("{options}\nby = 'topic'\ncompute = ['count', 'mean', 'min', 'max', 'p95']"),
        TODAY,
    );
    for place in 0..readings {
        for key in 0..KEYS {
            let time = TODAY + i64::from(place) * 1_000 + 13;
            device.deliver(&format!("hall/press-{key}/oil"), time, reading(place + key));
        }
    }
    device.checkpoint();
    let checkpoint = device.checkpoint.expect("there is one");
    let state = checkpoint.state("tested").expect("it remembers something");
    state.bytes().len() / KEYS as usize
}

#[test]
fn a_checkpoint_has_as_many_bytes_as_the_documentation_says() {
    // In hundredths between 20 and 30.
    let hundredths = |place: u32| f64::from(2_000 + place * 7_919 % 1_000) / 100.0;
    // A sensor with 12 bits, 1/16 apart.
    let sixteenths = |place: u32| 20.0 + f64::from(place * 7_919 % 160) / 16.0;
    let check = |options, readings, reading: &dyn Fn(u32) -> f64, bound| {
        let bytes = bytes_per_key(options, readings, reading);
        let what = format!("{options}, {readings} readings: {bytes} bytes a key");
        assert!(bytes <= bound, "{what}, more than {bound}");
    };
    check("size = '1m'", 30, &hundredths, 200);
    check("size = '1m'", 30, &sixteenths, 200);
    check("size = '1d'", 1_000, &hundredths, 2_500);
    check("size = '1d'", 1_000, &sixteenths, 2_000);
    // Beyond that there is a sketch.
    check("size = '1d'", 1_100, &hundredths, 300);
    check("kind = 'sliding'\nsize = '5m'", 300, &hundredths, 3_000);
}

/// A device for each kind of state, with readings that have no digit in common with their neighbours.
fn devices() -> Vec<Device> {
    let statistics = "'sum', 'first', 'stddev', 'slope', 'p95', 'distinct', 'histogram(0, 1)', 'duration_above(25)'";
    let kinds = [
        "size = '1m'",
        "kind = 'hopping'\nsize = '3m'\nhop = '1m'\nby = 'topic'",
        "kind = 'sliding'\nsize = '1m'\nby = 'topic'",
        "kind = 'session'\ngap = '1m'\nlateness = '2s'",
        "kind = 'state'\nstate = 'payload'",
    ];
    let devices = kinds.map(|kind| {
        let mut device = Device::new(&format!("{kind}\ncompute = [{statistics}]"), HOUR);
        for place in 0..4 {
            let (topic, time) = (format!("t{}", place % 2), HOUR + place * 1_234);
            device.deliver(&topic, time, place as f64 / 3.0);
        }
        device.checkpoint();
        device
    });
    devices.into()
}

#[test]
fn what_is_written_changes_only_with_its_number() {
    let states = devices().into_iter().flat_map(|device| {
        let checkpoint = device.checkpoint.expect("there is one");
        let state = checkpoint.state("tested").expect("it remembers something");
        state.bytes().to_vec()
    });
    let all: Vec<u8> = states.collect();
    // Where this fails, raise `FORM` in `windows.rs`: states that were written before must not be read as something else.
    assert_eq!((all.len(), crc32fast::hash(&all)), (3_529, 2_963_964_134));
}

/// A state has its check sum; but whoever writes one with an error in it must not stop the flow. It begins anew, or goes on from
/// something that can be.
#[test]
fn a_state_that_is_wrong_anywhere_is_refused_without_a_panic() {
    // Without the last one, whose script takes its time to be made.
    for mut device in devices().into_iter().take(4) {
        let bytes = device.checkpoint.take().expect("there is one").to_bytes();
        for place in 0..bytes.len() {
            for wrong in [0xff, bytes[place] ^ 1] {
                let mut bytes = bytes.clone();
                bytes[place] = wrong;
                let Ok(checkpoint) = Checkpoint::from_bytes(&bytes) else {
                    continue;
                };
                let mut engine = Engine::new("d");
                let mut effects = Vec::new();
                let graph = device.graph.clone();
                engine.add_restored(graph, Arc::new(checkpoint), device.now, &mut effects);
                let is_good = effects
                    .iter()
                    .all(|effect| matches!(effect, Effect::Forgot { .. }));
                assert!(is_good, "byte {place} as {wrong}: {effects:?}");
                let mut went_on = Device {
                    graph: device.graph.clone(),
                    engine,
                    now: device.now,
                    checkpoint: None,
                    sent: Vec::new(),
                };
                for (place, topic) in ["t0", "t1", "t2"].into_iter().enumerate() {
                    let seconds = [5, 6, 70][place];
                    went_on.deliver(topic, HOUR + 1_000 * seconds, 0.25);
                }
                went_on.until(HOUR + 10 * MINUTE);
                let has_stopped = |sent: &String| sent.contains("FlowStopped");
                let stopped = went_on.sent.into_iter().find(has_stopped);
                assert_eq!(stopped, None, "byte {place} as {wrong}");
            }
        }
    }
}
