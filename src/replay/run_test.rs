//! What a replay writes, and what it says.

use std::sync::Arc;
use std::time::Duration;

use super::rows::RowOptions;
use super::{Feed, Replay, ReplayError, Report, Settings};
use crate::flow::Graph;
use crate::message::{Message, Value};
use crate::nodes::testing::graph;
use crate::nodes::{BuildError, Spec, Surroundings};
use crate::runtime::{Context, Node};

/// A replay to be: its flow, and files for its sources.
struct Case {
    flow: Arc<Graph>,
    directory: tempfile::TempDir,
    settings: Settings,
}

const PROBE: &str = "[nodes.probe]\ntype = 'ds18b20'\ndevice = '28-0316a2795aff'\n";
const SHOW: &str = "[nodes.show]\ntype = 'debug'\nfrom = 'tested'\n";

impl Case {
    fn new(flow: &str) -> Case {
        Case {
            flow: graph(flow),
            directory: tempfile::tempdir().unwrap(),
            settings: Settings {
                device: "press-7".into(),
                feeds: Vec::new(),
                rows: RowOptions::default(),
                inject: false,
                reorder: None,
                strict: false,
            },
        }
    }

    /// `probe`, a node with these options, and what shows its messages.
    fn of_node(options: &str) -> Case {
        Case::new(&format!(
            "{PROBE}[nodes.tested]\nfrom = 'probe'\n{options}\n{SHOW}"
        ))
    }

    /// Rows given as seconds since 1970 and a payload.
    fn feed(self, node: &str, rows: &str) -> Case {
        let rows = rows.split_whitespace().map(|row| format!("{row}\n"));
        self.feed_text(node, &format!("time,payload\n{}", rows.collect::<String>()))
    }

    fn feed_text(mut self, node: &str, text: &str) -> Case {
        let path = self
            .directory
            .path()
            .join(format!("{}.csv", self.settings.feeds.len()));
        std::fs::write(&path, text).unwrap();
        self.settings.feeds.push(Feed {
            node: node.into(),
            path,
        });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Case {
        change(&mut self.settings);
        self
    }

    fn result(&self) -> Result<(String, Report), ReplayError> {
        let replay = Replay::prepare(self.flow.clone(), self.settings.clone())?;
        let mut out = Vec::new();
        let report = replay.run(&mut out, |_| {})?;
        Ok((String::from_utf8(out).unwrap(), report))
    }

    /// The lines as `SECONDS NODE TOPIC PAYLOAD`, and the report.
    fn run(&self) -> (Vec<String>, Report) {
        let (text, report) = self.result().unwrap();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys.len(), 4, "{keys:?}");
            let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
            let seconds = time.as_nanosecond() as f64 / 1e9;
            let (node, topic) = (
                line["node"].as_str().unwrap(),
                line["topic"].as_str().unwrap(),
            );
            format!("{seconds} {node} {topic} {}", line["payload"])
        });
        (lines.collect(), report)
    }

    #[track_caller]
    fn gives(&self, expected: &[&str]) -> Report {
        let (lines, report) = self.run();
        assert_eq!(lines, expected);
        report
    }

    #[track_caller]
    fn is_refused(&self, expected: &str) {
        let error = self.result().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    /// Seconds and payload of each line.
    #[track_caller]
    fn shows(&self, expected: &[&str]) -> Report {
        let (lines, report) = self.run();
        let short = lines.iter().map(|line| {
            let mut parts = line.splitn(4, ' ');
            let seconds = parts.next().unwrap();
            format!("{seconds} {}", parts.nth(2).unwrap())
        });
        assert_eq!(short.collect::<Vec<_>>(), expected);
        report
    }
}

const COUNT: &str = "type = 'window'\nsize = '1m'\ncompute = ['count', 'first']";

fn count(start: u64, end: u64, count: u64, first: &str) -> String {
    let time = |seconds: u64| format!("1970-01-01T00:{:02}:{:02}.000Z", seconds / 60, seconds % 60);
    format!(
        "{end} {{\"count\":{count},\"end\":\"{}\",\"first\":{first},\"start\":\"{}\"}}",
        time(end),
        time(start)
    )
}

#[test]
fn windows_close_with_the_rows_time_and_the_last_one_too() {
    let report = Case::of_node(COUNT)
        .feed("probe", "0,1 59.999,2 60,3 300,4")
        .shows(&[
            &count(0, 60, 2, "1"),
            &count(60, 120, 1, "3"),
            &count(300, 360, 1, "4"),
        ]);
    assert_eq!(
        (report.rows(), report.messages(), report.out_of_order),
        (4, 3, 0)
    );
    assert_eq!(report.sinks, [("show".to_owned(), 3)]);
    assert!(report.failures.is_empty() && !report.is_unsettled);
}

#[test]
fn rows_have_their_topic_or_their_sources_and_keep_their_time() {
    let flow = format!(
        "{PROBE}[nodes.report]\ntype = 'uplink'\nfrom = 'probe'\ntopic = 'sites/{{device}}/{{topic}}'\n"
    );
    Case::new(&flow)
        .feed_text("probe", "time,topic,a\n1,x,2\n2.5,,3\n2,y,4\n")
        .gives(&[
            "1 report sites/press-7/x {\"a\":2}",
            "2.5 report sites/press-7/test/probe {\"a\":3}",
            "2 report sites/press-7/y {\"a\":4}",
        ]);
}

#[test]
fn what_is_due_before_a_row_comes_before_it_and_what_is_due_then_after_it() {
    let batch = "type = 'batch'\nevery = '10s'";
    Case::of_node(batch)
        .feed("probe", "0,1 10,2 11,3")
        .shows(&["10 [1,2]", "11 [3]"]);
    Case::of_node(batch)
        .feed("probe", "0,1 10.001,2 11,3")
        .shows(&["0 [1]", "11 [2,3]"]);
    // Many at one time come together.
    let rows = "0,1 ".to_owned() + &"10,2 ".repeat(600);
    let case = Case::of_node("type = 'batch'\nevery = '10s'").feed("probe", &rows);
    let (lines, _) = case.run();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].matches(",2").count(), 600);
}

#[test]
fn rows_out_of_order_are_late_and_are_told() {
    let late = "0,1 61,2 50,3 62,4";
    let report = Case::of_node(COUNT)
        .feed("probe", late)
        .shows(&[&count(0, 60, 1, "1"), &count(60, 120, 2, "2")]);
    assert_eq!(
        (report.out_of_order, report.latest_by),
        (1, Duration::from_secs(11))
    );
    let failures = &report.failures["tested"];
    assert_eq!(failures.count, 1);
    assert!(
        failures.first.starts_with("too late: the window from"),
        "{}",
        failures.first
    );
    assert_eq!(failures.first_at.as_nanos(), 61_000_000_000);

    let in_time = [&*count(0, 60, 2, "1"), &*count(60, 120, 2, "2")];
    let waits = format!("{COUNT}\nlateness = '2s'");
    let report = Case::of_node(&waits).feed("probe", late).shows(&in_time);
    assert_eq!((report.out_of_order, report.failures.len()), (1, 0));

    let reorder = |seconds| {
        move |settings: &mut Settings| settings.reorder = Some(Duration::from_secs(seconds))
    };
    let report = Case::of_node(COUNT)
        .feed("probe", late)
        .with(reorder(11))
        .shows(&in_time);
    assert_eq!(
        (report.out_of_order, report.failures.len(), report.hurried),
        (0, 0, 0)
    );
    let report = Case::of_node(COUNT)
        .feed("probe", "0,1 61,2 50,3 61.5,4")
        .with(reorder(10))
        .run()
        .1;
    assert_eq!(
        report.out_of_order, 0,
        "nothing later than 61 s has come before it"
    );
    let report = Case::of_node(COUNT)
        .feed("probe", "0,1 61,2 72,3 50,4")
        .with(reorder(10))
        .run()
        .1;
    assert_eq!(report.out_of_order, 1);
}

#[test]
fn rows_of_one_time_stay_as_they_were_when_others_are_put_into_order() {
    let case = Case::of_node("type = 'filter'").feed("probe", "5,1 5,2 4,3 5,4 6,5 5,6");
    let case = case.with(|settings| settings.reorder = Some(Duration::from_secs(2)));
    case.shows(&["4 3", "5 1", "5 2", "5 4", "5 6", "6 5"]);
}

#[test]
fn several_files_are_merged_by_time() {
    let flow = "[nodes.a]\ntype = 'gpio in'\npin = 4\n[nodes.b]\ntype = 'gpio in'\npin = 5\n\
                [nodes.show]\ntype = 'debug'\nfrom = ['a', 'b']";
    Case::new(flow)
        .feed("b", "1,1 3,3 5,5")
        .feed("a", "2,2 3,4")
        .feed("b", "0,0")
        .gives(&[
            "0 show test/b 0",
            "1 show test/b 1",
            "2 show test/a 2",
            "3 show test/b 3",
            "3 show test/a 4",
            "5 show test/b 5",
        ]);
    let report = Case::new(flow)
        .feed("a", "7,1")
        .feed("b", "")
        .gives(&["7 show test/a 1"]);
    assert_eq!(
        report
            .files
            .iter()
            .map(|file| file.rows)
            .collect::<Vec<_>>(),
        [1, 0]
    );
    Case::new(flow).feed("a", "").gives(&[]);
}

const TICK: &str = "[nodes.tick]\ntype = 'inject'\nevery = '10s'\npayload = 'tick'\n";

#[test]
fn other_sources_rest_but_inject_may_run_until_the_last_row() {
    let flow = format!(
        "{PROBE}{TICK}[nodes.door]\ntype = 'gpio in'\npin = 4\n[nodes.show]\ntype = 'debug'\nfrom = ['probe', 'tick', 'door']"
    );
    let rows = "5,1 16,2 25,3";
    Case::new(&flow)
        .feed("probe", rows)
        .shows(&["5 1", "16 2", "25 3"]);
    let expected = ["5 1", "15 \"tick\"", "16 2", "25 3"];
    Case::new(&flow)
        .feed("probe", rows)
        .with(|it| it.inject = true)
        .shows(&expected);
    Case::new(&flow)
        .feed("tick", rows)
        .with(|it| it.inject = true)
        .shows(&["5 1", "16 2", "25 3"]);
}

#[test]
fn what_sends_by_itself_rests_after_the_last_row() {
    let sample = "type = 'sample'\nevery = '10s'\nrepeat = true";
    let case = Case::new(&format!(
        "{PROBE}[nodes.sample]\nfrom = 'probe'\n{sample}\n[nodes.tested]\nfrom = 'sample'\n{COUNT}\n{SHOW}"
    ));
    let report = case
        .feed("probe", "1,7 55,8")
        .shows(&[&count(0, 60, 5, "7")]);
    assert!(!report.is_unsettled);
    // It has not fallen silent: the record has ended.
    Case::of_node("type = 'timeout'\nafter = '10s'")
        .feed("probe", "1,7 5,8")
        .shows(&[]);
}

#[test]
fn all_windows_that_are_open_at_the_end_close() {
    let hopping = "type = 'window'\nkind = 'hopping'\nsize = '1d'\nhop = '1m'\ncompute = ['count']";
    let (lines, _) = Case::of_node(hopping).feed("probe", "0,1 100000,2").run();
    assert_eq!(lines.len(), 2 * 1440);
    let session = "type = 'window'\nkind = 'session'\ngap = '10d'\nlongest = '20d'\ncompute = ['count']\nby = 'payload'";
    let rows: String = (0..1000)
        .map(|place| format!("{place},{} ", place % 500))
        .collect();
    let (lines, _) = Case::of_node(session).feed("probe", &rows).run();
    assert_eq!(lines.len(), 500);
    let year = "type = 'window'\nsize = '366d'\nlateness = '30d'\ncompute = ['count']";
    assert_eq!(Case::of_node(year).feed("probe", "0,1").run().0.len(), 1);
    let delayed = Case::of_node("type = 'delay'\nby = '1h'").feed("probe", "0,1 1,2");
    delayed.shows(&["0 1", "1 2"]);
    // One behind the other.
    let case = Case::new(&format!(
        "{PROBE}[nodes.minute]\ntype = 'window'\nfrom = 'probe'\nsize = '1m'\n\
         [nodes.tested]\ntype = 'window'\nfrom = 'minute'\nvalue = 'payload.count'\nsize = '1h'\ncompute = ['sum']\n{SHOW}"
    ));
    let (lines, report) = case.feed("probe", "0,1 1,2 3599,3").run();
    // The last minute ends with the hour, and so belongs to the next one.
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn what_waits_for_a_message_stays_open() {
    let report = Case::of_node("type = 'window'\nkind = 'count'\ncount = 2\ncompute = ['count']")
        .feed("probe", "0,1 1,2 2,3");
    assert_eq!(report.run().0.len(), 1);
}

#[test]
fn outputs_are_told_when_they_change() {
    let flow = format!(
        "{PROBE}[nodes.relay]\ntype = 'gpio out'\nfrom = 'probe'\npin = 17\nmin_on = '10s'\n\
         [nodes.half]\ntype = 'range'\nfrom = 'probe'\nin = [0, 1]\nout = [0, 25]\n\
         [nodes.fan]\ntype = 'pwm out'\nfrom = 'half'\npin = 18\nrange = [0, 100]"
    );
    Case::new(&flow).feed("probe", "1,1 2,1 3,0 30,0").gives(&[
        "1 relay test/relay 1",
        "1 fan test/fan 0.25",
        "3 fan test/fan 0",
        "11 relay test/relay 0",
    ]);
}

#[test]
fn links_lead_to_the_same_flow_and_are_sinks_too() {
    let flow = format!(
        "{PROBE}[nodes.go]\ntype = 'link out'\nfrom = 'probe'\nlink = 'x'\n[nodes.come]\ntype = 'link in'\nlink = 'x'\n\
         [nodes.show]\ntype = 'debug'\nfrom = 'come'"
    );
    Case::new(&flow).feed("probe", "1,1 2,2").gives(&[
        "1 go test/probe 1",
        "1 show test/probe 1",
        "2 go test/probe 2",
        "2 show test/probe 2",
    ]);
    Case::new(&flow)
        .feed("come", "1,1")
        .gives(&["1 show test/come 1"]);
}

#[test]
fn failures_are_counted_and_the_first_is_kept() {
    let report = Case::of_node("type = 'range'\nin = [0, 1]\nout = [0, 2]")
        .feed("probe", "1,a 2,b 3,1")
        .shows(&["3 2"]);
    let failures = &report.failures["tested"];
    assert_eq!(failures.count, 2);
    assert!(failures.first.contains("\"a\""), "{}", failures.first);
}

/// Panics on the payload `panic`; on others it wakes up each second, for ever.
#[derive(Debug)]
struct Odd;

impl Spec for Odd {
    fn build(&self, _: &Surroundings<'_>) -> Result<Box<dyn Node>, BuildError> {
        Ok(Box::new(Odd))
    }
}

impl Node for Odd {
    fn message(&mut self, message: &mut Message, cx: &mut Context<'_>) {
        assert!(
            message.payload != Value::from("panic"),
            "as the test wants it"
        );
        cx.wake_at(cx.now().mono + Duration::from_secs(1));
        cx.pass(0);
    }

    fn wake(&mut self, cx: &mut Context<'_>) {
        cx.wake_at(cx.now().mono + Duration::from_secs(1));
    }
}

fn odd() -> Case {
    let mut case = Case::of_node("type = 'filter'");
    let flow = Arc::get_mut(&mut case.flow).unwrap();
    flow.replace_spec("tested", Arc::new(Odd));
    case
}

#[test]
fn a_flow_that_panics_goes_on_after_a_second_and_what_it_missed_is_counted() {
    let report = odd()
        .feed("probe", "1,panic 1.5,2 2.5,panic 2.6,3")
        .shows(&[]);
    assert_eq!((report.panics.count, report.missed), (2, 2));
    assert!(
        report
            .panics
            .first
            .contains("`tested`: as the test wants it"),
        "{}",
        report.panics.first
    );
}

#[test]
fn a_node_that_never_rests_does_not_make_a_replay_endless() {
    let report = odd().feed("probe", "1,2").shows(&["1 2"]);
    assert!(report.is_unsettled);
}

#[test]
fn rows_that_cannot_be_read_are_counted_by_kind_or_end_a_strict_replay() {
    let text = "time,payload\n1,1\nx,2\n,3\ny,4\n".to_owned() + &"z,0\n".repeat(20);
    let case = Case::of_node("type = 'filter'").feed_text("probe", &text);
    let report = case.shows(&["1 1"]);
    let file = &report.files[0];
    assert_eq!((file.rows, file.left_out()), (1, 23));
    let kinds = file
        .left_out
        .iter()
        .map(|(kind, it)| (*kind, it.count, it.first.len()));
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            ("with a time that is none", 22, 10),
            ("without a time", 1, 1)
        ]
    );
    case.with(|settings| settings.strict = true)
        .is_refused("0.csv, line 3: `x` is no time");
}

#[test]
fn feeds_that_do_not_fit_are_refused() {
    let flow = format!(
        "{PROBE}[nodes.wrong]\ntype = 'catch'\n[nodes.show]\ntype = 'debug'\nfrom = ['probe', 'wrong']"
    );
    let check =
        |node: &str, expected: &str| Case::new(&flow).feed(node, "1,1").is_refused(expected);
    check(
        "prob",
        "flow `test` has no node `prob`; did you mean `probe`?",
    );
    check(
        "x",
        "flow `test` has no node `x`; the flow's sources are `probe`",
    );
    check(
        "show",
        "`show` is no source: other nodes send to it; the flow's sources are `probe`",
    );
    check(
        "wrong",
        "`wrong` is no source: it hears of other nodes in the flow",
    );
    let twice = Case::new(&flow).feed("probe", "1,1");
    twice
        .with(|it| it.feeds.extend(it.feeds.clone()))
        .is_refused("is to feed `probe` twice");
    let inputs = |it: &mut Settings| {
        it.feeds = ["probe", "show"]
            .map(|node| format!("{node}=-").parse().unwrap())
            .to_vec();
    };
    Case::new(&flow)
        .with(inputs)
        .is_refused("only one node can be fed from the standard input");
    Case::new(&flow)
        .feed_text("probe", "a,b\n")
        .is_refused("it has no column `time`");
}

#[test]
fn a_feed_is_a_node_and_a_file() {
    let feed = |text: &str| text.parse::<Feed>();
    let expected = Feed {
        node: "a/b".into(),
        path: "c=d".into(),
    };
    assert_eq!(feed("a/b=c=d"), Ok(expected));
    for wrong in ["", "a", "=b", "a="] {
        assert!(
            feed(wrong).unwrap_err().contains("write NODE=FILE"),
            "{wrong}"
        );
    }
}

/// One that is full at once.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_is_full_ends_the_replay() {
    let case = Case::of_node("type = 'filter'").feed("probe", &"1,1 2,2 ".repeat(20_000));
    let replay = Replay::prepare(case.flow.clone(), case.settings.clone()).unwrap();
    let error = replay.run(Full, |_| {}).unwrap_err();
    assert!(matches!(error, ReplayError::Write(_)), "{error}");
}
