//! Recorded readings through a flow, beside the csv crate that does nothing but cut the same file into fields.
//!
//! `cargo bench --bench replay` prints, for each of several rounds taken in turn, rows per second of both and their ratio; then
//! the medians. The flow aggregates readings of one sensor, one a second, into minutes. Both sides must see the same rows, or
//! the benchmark ends with an error.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidegate::flow::{Graph, Report, Variables, check};
use tidegate::replay::rows::RowOptions;
use tidegate::replay::{Feed, Replay, Settings};

const ROWS: u64 = 2_000_000;
const ROUNDS: usize = 5;

const FLOW: &str = r#"
[nodes.probe]
type = "ds18b20"
device = "28-0316a2795aff"
[nodes.minute]
type = "window"
from = "probe"
size = "1m"
[nodes.show]
type = "debug"
from = "minute"
"#;

fn main() {
    let directory = tempfile::tempdir().expect("a directory for the rows");
    let path = directory.path().join("rows.csv");
    std::fs::write(&path, rows()).expect("there is room for the rows");
    let mut report = Report::new("bench.toml", FLOW);
    let graph = check("bench", &Variables::default(), &mut report).expect("the flow is valid");
    let graph = Arc::new(graph);
    let mut measured: [Vec<f64>; 3] = Default::default();
    println!("{ROWS} rows a round through a window of a minute");
    for round in 1..=ROUNDS {
        let ours = replay(&graph, &path);
        let theirs = only_read(&path);
        let ratio = theirs / ours;
        println!(
            "round {round}: replay {:.2} M/s, csv alone {:.2} M/s, replay takes {ratio:.2} x its time",
            ours / 1e6,
            theirs / 1e6
        );
        for (all, one) in measured.iter_mut().zip([ours / 1e6, theirs / 1e6, ratio]) {
            all.push(one);
        }
    }
    let [ours, theirs, ratio] = measured.map(median);
    println!("median: replay {ours:.2} M/s, csv alone {theirs:.2} M/s, ratio {ratio:.2}");
}

/// A reading a second, with RFC 3339 times.
fn rows() -> String {
    let start = 1_767_225_600;
    let mut text = String::from("time,payload\n");
    let mut minute = String::new();
    for place in 0..ROWS {
        let second = place % 60;
        if second == 0 {
            let time = jiff::Timestamp::from_second(start + place as i64).expect("a time in 2026");
            minute = time.to_string().chars().take(17).collect();
        }
        let payload = 20.0 + (place * 7919 % 10_007) as f64 / 1000.0;
        writeln!(text, "{minute}{second:02}Z,{payload:.3}").expect("a text takes everything");
    }
    text
}

/// Rows a second.
fn replay(graph: &Arc<Graph>, path: &Path) -> f64 {
    let settings = Settings {
        device: "bench".into(),
        feeds: vec![Feed {
            node: "probe".into(),
            path: path.into(),
        }],
        rows: RowOptions::default(),
        inject: false,
        reorder: None,
        strict: true,
    };
    let start = Instant::now();
    let replay = Replay::prepare(graph.clone(), settings).expect("the file fits the flow");
    let report = replay
        .run(std::io::sink(), |_| {})
        .expect("every row can be read");
    let time = start.elapsed();
    assert_eq!(
        (report.rows(), report.messages()),
        (ROWS, ROWS.div_ceil(60))
    );
    ROWS as f64 / time.as_secs_f64()
}

/// Rows a second.
fn only_read(path: &Path) -> f64 {
    let start = Instant::now();
    let mut reader = csv::Reader::from_path(path).expect("the file is there");
    let mut record = csv::ByteRecord::new();
    let mut rows = 0;
    while reader
        .read_byte_record(&mut record)
        .expect("every row can be read")
    {
        rows += 1;
    }
    let time = start.elapsed();
    assert_eq!(rows, ROWS);
    ROWS as f64 / time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
