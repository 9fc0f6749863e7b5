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
    run_beside(&[], flow, test)
}

/// The same, with other flows in the directory, by name.
fn run_beside(others: &[(&str, &str)], flow: &str, test: &str) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("it can be written");
    };
    write("flow.toml", flow);
    for (name, text) in others {
        write(&format!("{name}.toml"), text);
    }
    write("flow.test.toml", &format!("[tests.one]\n{test}"));
    run_at(&directory.path().join("flow.toml"), |_| {})
}

/// The same with a change in the flow that no file can make.
fn run_changed(flow: &str, test: &str, change: impl Fn(&mut Graph)) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("flow.toml");
    std::fs::write(&path, flow).expect("it can be written");
    let test_path = directory.path().join("flow.test.toml");
    std::fs::write(test_path, format!("[tests.one]\n{test}")).expect("it can be written");
    run_at(&path, change)
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
