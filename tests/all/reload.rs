//! Flow files that change while a device runs.

use std::os::unix::fs::symlink;

use crate::support::{Plant, Running, until};

/// A thousand numbers a second, from 1 on, into a link.
const NUMBERS: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1ms'\n[nodes.number]\ntype = 'counter'\nfrom = 'tick'\n\
    [nodes.go]\ntype = 'link out'\nlink = 'numbers'\nfrom = 'number'\n";
/// The flow that changes.
const BETWEEN: &str = "[nodes.come]\ntype = 'link in'\nlink = 'numbers'\n[nodes.on]\ntype = 'link out'\nlink = 'more'\nfrom = 'come'\n";
/// Makes it a control flow.
const WITH_LAMP: &str = "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.lamp]\ntype = 'gpio out'\nfrom = 'none'\npin = 17\n";
/// Tells of each number that is not the one after the last, and of every hundredth.
const WITNESS: &str = "[nodes.more]\ntype = 'link in'\nlink = 'more'\n[nodes.look]\ntype = 'function'\nfrom = 'more'\n\
    code = '''\nconst expected = (state.last ?? 0) + 1;\nstate.last = msg.payload;\n\
    if (msg.payload !== expected) return { payload: `gap: ${msg.payload} for ${expected}` };\n\
    if (expected % 100 === 0) return { payload: `seen ${expected}` };\n'''\n\
    [nodes.show]\ntype = 'debug'\nfrom = 'look'\n";

fn count(device: &Running, words: &str) -> usize {
    let lines = device.lines();
    lines.iter().filter(|line| line.contains(words)).count()
}

fn until_count(device: &Running, words: &str, wanted: usize) {
    until(&format!("{words:?} was said {wanted} times"), || {
        (count(device, words) >= wanted).then_some(())
    });
}

/// As editors write: a new file in the place of the old one.
fn replace(plant: &Plant, name: &str, text: &str) {
    plant.write("new", text);
    std::fs::rename(plant.path("new"), plant.path(&format!("flows/{name}.toml"))).unwrap();
}

#[test]
fn a_reload_under_load_loses_and_repeats_nothing() {
    let plant = Plant::new();
    plant.flow("numbers", NUMBERS);
    plant.flow("between", BETWEEN);
    plant.flow("witness", WITNESS);
    let device = plant.run();
    until_count(&device, "seen", 2);
    const CHANGED: &str = "flow `between` was changed";
    for round in 1..=50 {
        let text = match round % 4 {
            0 => BETWEEN.to_owned(),
            1 => format!("# {round}\n{BETWEEN}"),
            2 => format!("{WITH_LAMP}{BETWEEN}"),
            _ => format!("{BETWEEN}[nodes.show]\ntype = 'where'\nwhen = 'false'\nfrom = 'come'\n"),
        };
        if round % 5 == 0 {
            // Half of it, which is no flow, and somebody asks too early.
            let half = &text[..text.find("from = 'come'").unwrap() + 8];
            plant.flow("between", half);
            device.signal("HUP");
            until_count(
                &device,
                "flow `between` runs on as it was before",
                round / 5,
            );
            assert_eq!(count(&device, CHANGED), round - 1);
        }
        if round % 10 == 3 {
            // Nobody asks.
            plant.flow("between", &text);
        } else {
            replace(&plant, "between", &text);
            device.signal("HUP");
        }
        until_count(&device, CHANGED, round);
    }
    let seen = count(&device, "seen");
    until_count(&device, "seen", seen + 5);
    assert_eq!(count(&device, "gap"), 0, "{:#?}", device.lines());
    let totals = plant.totals();
    for nothing in [
        "missed",
        "links_dropped",
        "failures",
        "panics",
        "state_errors",
    ] {
        assert_eq!(totals.get(nothing), 0, "{nothing}: {totals:?}");
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn a_bad_edit_changes_nothing_and_is_told_once() {
    let plant = Plant::ticking();
    let mut device = plant.run();
    plant.flow(
        "tick",
        "[nodes.tick]\ntype = 'injcet'\n[nodes.report]\ntype = 'uplnik'\nfrom = 'tick'\n",
    );
    device.says(&["flows/tick.toml:2:8: error", "did you mean `inject`?"]);
    device.says(&["flows/tick.toml:4:8: error", "did you mean `uplink`?"]);
    device.says(&["flow `tick` runs on as it was before"]);
    let before = plant.totals().get("accepted");
    plant.totals_with("it runs on", |totals| totals.get("accepted") > before + 10);
    // Another file that changes does not tell it again.
    plant.flow(
        "other",
        "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.show]\ntype = 'debug'\nfrom = 'none'\n",
    );
    device.says(&["flow `other` was added"]);
    assert_eq!(count(&device, "flows/tick.toml:2:8: error"), 1);
    // Unless someone asks.
    device.signal("HUP");
    until_count(&device, "flows/tick.toml:2:8: error", 2);
    device.assert_runs();
}

#[test]
fn a_file_that_is_deleted_or_replaced_by_a_link_to_nowhere_leaves_its_flow_running() {
    let plant = Plant::ticking();
    let mut device = plant.run();
    let path = plant.path("flows/tick.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let goes_on = || {
        let before = plant.totals().get("accepted");
        plant.totals_with("it runs on", |totals| totals.get("accepted") > before + 10);
    };
    std::fs::remove_file(&path).unwrap();
    device.says(&["tick.toml is gone", "flow `tick` runs on"]);
    goes_on();
    symlink("nowhere", &path).unwrap();
    device.says(&["tick.toml", "cannot be read", "leads nowhere"]);
    goes_on();
    // All of them at once.
    std::fs::rename(plant.path("flows"), plant.path("away")).unwrap();
    device.says(&["cannot read flows from", "run on as they are"]);
    goes_on();
    std::fs::rename(plant.path("away"), plant.path("flows")).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, text.replace("20ms", "10ms")).unwrap();
    device.says(&["flow `tick` was changed"]);
    device.assert_runs();
    // At a start, what has no file does not run.
    std::fs::remove_file(&path).unwrap();
    device.signal("TERM");
    assert!(device.end().0.success());
    let mut device = plant.run();
    device.says(&["running 0 flows"]);
}

#[test]
fn what_a_flow_remembers_goes_with_it_when_it_changes() {
    let plant = Plant::new();
    let count = "[nodes.tick]\ntype = 'inject'\nevery = '100ms'\n[nodes.total]\ntype = 'counter'\nfrom = 'tick'\n\
        [nodes.show]\ntype = 'debug'\nfrom = 'total'\nlabel = 'one'\n";
    plant.flow("count", count);
    let device = plant.run();
    until_count(&device, "one: 3", 1);
    // It gets an output, and so another engine.
    replace(
        &plant,
        "count",
        &format!("{WITH_LAMP}{}", count.replace("'one'", "'two'")),
    );
    device.signal("HUP");
    until_count(&device, "two: ", 2);
    let lines = device.lines();
    let numbers = lines.iter().filter_map(|line| {
        let (_, number) = line.split_once("one: ").or(line.split_once("two: "))?;
        number.split([' ', '"']).next()?.parse::<usize>().ok()
    });
    let numbers: Vec<usize> = numbers.collect();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected);
}
