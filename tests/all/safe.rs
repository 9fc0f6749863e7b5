//! `tidegate safe`, as far as simulated pins show it; what it does to real ones, tests/pi/scenarios/killed does.

use crate::support::{Ended, Plant, until};

const LAMP: &str = "[nodes.tick]\ntype = 'inject'\nevery = '1s'\npayload = true\n\
    [nodes.lamp]\ntype = 'gpio out'\nfrom = 'tick'\npin = 17\nsafe = 'high'\n";

#[track_caller]
fn safe(plant: &Plant, code: i32, stdout: &str, stderr: &[&str]) {
    let ended = Ended::of(plant.command(&["safe"]));
    ended.assert_code(code);
    assert_eq!(ended.stdout, stdout);
    for part in stderr {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(
        ended.stderr.is_empty(),
        stderr.is_empty(),
        "{}",
        ended.stderr
    );
}

#[test]
fn pins_of_good_flows_are_driven_whatever_the_others_are() {
    let plant = Plant::new();
    safe(&plant, 0, "no flow drives a pin\n", &[]);
    plant.flow("lamp", LAMP);
    plant.flow("bad", "no flow");
    safe(
        &plant,
        0,
        "GPIO17 is high\n",
        &["bad.toml is wrong and has not run"],
    );
    // Nothing was made that was not there.
    assert!(!plant.path("state").exists() && !plant.path("outbox").exists());
}

#[test]
fn a_flow_that_ran_counts_though_its_file_is_bad_or_gone_now() {
    let plant = Plant::new();
    plant.flow("lamp", LAMP);
    plant.flow("heater", &LAMP.replace("17", "27").replace("high", "low"));
    let device = plant.run();
    until("their copies are kept", || {
        let has_copy = |flow: &str| plant.path(&format!("state/{flow}.toml")).exists();
        (has_copy("lamp") && has_copy("heater")).then_some(())
    });
    device.kill();
    plant.flow("lamp", "no flow");
    std::fs::remove_file(plant.path("flows/heater.toml")).unwrap();
    safe(&plant, 0, "GPIO17 is high\nGPIO27 is low\n", &[]);
    // Also the second time: it forgets nothing.
    safe(&plant, 0, "GPIO17 is high\nGPIO27 is low\n", &[]);
    std::fs::remove_dir_all(plant.path("flows")).unwrap();
    safe(
        &plant,
        1,
        "GPIO17 is high\nGPIO27 is low\n",
        &["cannot read flows"],
    );
}

#[test]
fn beside_a_running_tidegate_nothing_is_touched() {
    let plant = Plant::new();
    plant.flow("lamp", LAMP);
    let device = plant.run();
    safe(
        &plant,
        1,
        "",
        &["a tidegate runs with these settings", "systemctl stop"],
    );
    device.signal("TERM");
    assert!(device.end().0.success());
    safe(&plant, 0, "GPIO17 is high\n", &[]);
}

#[test]
fn a_board_that_is_wrong_in_the_settings_is_not_guessed() {
    let plant = Plant::new();
    plant.flow("lamp", LAMP);
    plant.write("tidegate.toml", "[board]\nkind = 'simulatd'\n");
    safe(&plant, 1, "", &["[board] of the settings is wrong"]);
}
