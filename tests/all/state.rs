//! What flows remember: over a stop, a kill, and whatever happens to the state directory.

use tidegate::state_files::StateDirectory;

use crate::support::plant::now;
use crate::support::{Ended, Plant, Running, until};

/// Counts ten times a second and shows each number.
const COUNT: &str = "[nodes.tick]\ntype = 'inject'\nevery = '100ms'\n[nodes.total]\ntype = 'counter'\nfrom = 'tick'\n\
    [nodes.show]\ntype = 'debug'\nfrom = 'total'\nlabel = 'total'\n";

fn counting(settings: &str) -> Plant {
    let plant = Plant::new();
    plant.flow("count", COUNT);
    plant.settings(settings);
    plant
}

/// The numbers that have been shown.
fn numbers(lines: &[String]) -> Vec<u64> {
    let shown = lines.iter().filter_map(|line| line.split_once("total: "));
    shown
        .filter_map(|(_, number)| number.split([' ', '"']).next()?.parse().ok())
        .collect()
}

fn shows(device: &Running, count: usize) -> Vec<u64> {
    until("numbers are shown", || {
        let numbers = numbers(&device.lines());
        (numbers.len() >= count).then_some(numbers)
    })
}

#[test]
fn a_flow_goes_on_after_a_stop_as_if_nothing_had_happened() {
    let plant = counting("");
    let mut last = 0;
    for _ in 0..3 {
        let device = plant.run();
        let seen = shows(&device, 3);
        assert_eq!(seen[0], last + 1);
        device.signal("TERM");
        let (status, log) = device.end();
        assert!(status.success(), "{log:#?}");
        last = *numbers(&log).last().unwrap();
    }
    assert!(plant.path("state/count.state").exists());
}

#[test]
fn after_a_kill_a_flow_goes_on_from_its_last_checkpoint() {
    let plant = counting("[state]\nevery = '1s'\n");
    let device = plant.run();
    let at_least = *shows(&device, 3).last().unwrap();
    let seen_at = now();
    let state = StateDirectory::at(plant.path("state"));
    until("a checkpoint of later is written", || {
        (state.read("count")?.wall > seen_at).then_some(())
    });
    assert!(plant.totals().get("state_bytes") > 0);
    let last = *numbers(&device.kill()).last().unwrap();
    let device = plant.run();
    let first = shows(&device, 1)[0];
    assert!(
        first > at_least && first <= last + 1,
        "{first}, {at_least} to {last}"
    );
    assert_eq!(plant.totals().get("state_errors"), 0);
}

#[test]
fn a_state_file_that_is_damaged_is_set_aside_and_the_flow_begins_anew() {
    let plant = counting("");
    let device = plant.run();
    shows(&device, 3);
    device.signal("TERM");
    device.end();
    let path = plant.path("state/count.state");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let mut device = plant.run();
    device.says(&[
        "count.state is damaged",
        "set aside",
        "flow `count` begins anew",
    ]);
    assert_eq!(shows(&device, 1)[0], 1);
    assert!(plant.path("state/count.state.damaged").exists());
}

#[test]
fn what_cannot_be_written_is_told_and_tried_again_while_flows_run() {
    let plant = counting("[state]\npath = 'blocked/state'\nevery = '1s'\n");
    plant.write("blocked", "no directory");
    let mut device = plant.run();
    device.says(&[
        "cannot use the state directory",
        "flows run, and it is tried again",
    ]);
    let totals = plant.totals_with("it fails", |totals| totals.get("state_errors") > 1);
    assert_eq!(totals.get("state_bytes"), 0);
    let seen = shows(&device, 3).len();
    std::fs::remove_file(plant.path("blocked")).unwrap();
    device.says(&["what flow `count` remembers is kept again"]);
    assert!(plant.path("blocked/state/count.state").exists());
    shows(&device, seen + 3);
    device.assert_runs();
}

#[test]
fn a_flow_whose_file_is_bad_runs_from_its_last_good_copy_unless_strict() {
    let plant = counting("");
    let device = plant.run();
    until("there is a copy", || {
        plant.path("state/count.toml").exists().then_some(())
    });
    shows(&device, 3);
    device.signal("TERM");
    let (_, log) = device.end();
    let last = *numbers(&log).last().unwrap();

    plant.flow("count", "[nodes.tick]\ntype = 'injcet'\n");
    let strict = Ended::of(plant.command(&["run", "--strict"]));
    strict.assert_code(1);
    assert!(
        strict.stderr.contains("did you mean `inject`?"),
        "{strict:#?}"
    );

    let mut device = plant.run();
    device.says(&["flows/count.toml:2:8: error", "did you mean `inject`?"]);
    device.says(&["flow `count` runs from its LAST GOOD COPY in", "state"]);
    assert_eq!(shows(&device, 1)[0], last + 1, "with what it remembered");
    // A correct one is taken up.
    plant.flow(
        "count",
        &COUNT.replace("'total'\nlabel", "'total' # better\nlabel"),
    );
    device.says(&["flow `count` was changed"]);
    until("the copy is the new one", || {
        let copy = std::fs::read_to_string(plant.path("state/count.toml")).ok()?;
        copy.contains("better").then_some(())
    });
}
