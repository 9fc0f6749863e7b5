//! What tests see of flows, end to end: each case is a flow, some steps, and what is said of them.

mod faults;
mod feeds;
mod limits;
mod looks;

use std::path::Path;
use std::sync::Arc;

use super::Suite;
use super::run::Outcome;
use crate::flow::Graph;

/// A source that rests, shown, on its way to the cloud, and at a pin.
const FLOW: &str = "
[nodes.probe]
type = 'ds18b20'
device = '28-0316a2795aff'

[nodes.show]
type = 'debug'
from = 'probe'

[nodes.report]
type = 'uplink'
from = 'probe'
topic = '{device}/t'

[nodes.relay]
type = 'gpio out'
from = 'hot'
pin = 17

[nodes.hot]
type = 'hysteresis'
from = 'probe'
above = 5
below = 3
";

/// Runs one test of a flow.
fn run(flow: &str, test: &str) -> Outcome {
    run_with_files(&[("flow.toml", flow)], test)
}

/// The same, with other files in the directory. The flow's is `flow.toml`.
fn run_with_files(files: &[(&str, &str)], test: &str) -> Outcome {
    run_changed(files, test, |_| {})
}

/// The same with a change in the flow that no file can make.
fn run_changed(files: &[(&str, &str)], test: &str, change: impl Fn(&mut Graph)) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let test = format!("[tests.one]\n{test}");
    for (name, text) in files.iter().chain(&[("flow.test.toml", &*test)]) {
        std::fs::write(directory.path().join(name), text).expect("it can be written");
    }
    run_at(&directory.path().join("flow.toml"), change)
}

fn run_at(flow: &Path, change: impl Fn(&mut Graph)) -> Outcome {
    let mut suite = Suite::load(&[flow.to_owned()]).expect("it can be read");
    let found: Vec<String> = suite
        .findings
        .iter()
        .flat_map(|finding| &finding.diagnostics)
        .filter(|found| found.is_error())
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, [""; 0]);
    for flow in suite.tests.iter_mut().flat_map(|test| &mut test.flows) {
        change(Arc::get_mut(flow).expect("nobody else has it"));
    }
    let mut outcomes = suite.run();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// Steps, each in a line, and the headlines of what is not as expected.
#[track_caller]
fn check(flow: &str, steps: &[&str], expected: &[&str]) {
    check_with(flow, "", steps, expected);
}

/// The same, with other keys of the test.
#[track_caller]
fn check_with(flow: &str, keys: &str, steps: &[&str], expected: &[&str]) {
    let outcome = run(
        flow,
        &format!("{keys}\nsteps = [\n{}\n]", steps.join(",\n")),
    );
    let found: Vec<&str> = outcome.unmet.iter().map(|it| &*it.headline).collect();
    assert_eq!(found, expected, "{outcome:#?}");
}
