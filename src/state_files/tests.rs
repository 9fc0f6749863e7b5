//! The state directory, and what may happen to it.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::checkpoint::{Unusable, decode, encode, encode_as};
use super::keeper::Keeper;
use super::*;
use crate::message::{Message, NodeId, Value};
use crate::nodes::testing::graph;
use crate::runtime::node::Address;
use crate::runtime::{Counters, Engine, Event, Now};

/// What a flow named `test` remembers that holds back so many messages.
fn checkpoint(messages: usize) -> Checkpoint {
    let mut engine = Engine::new("d");
    let text = "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.later]\ntype = 'delay'\nfrom = 'none'\nby = '1h'\n\
                [nodes.show]\ntype = 'debug'\nfrom = 'later'";
    let now = Now::default().later(Duration::from_secs(7));
    let mut effects = Vec::new();
    let flow = engine.add(graph(text), now, &mut effects);
    let message = Message {
        topic: "t".into(),
        payload: Value::Number(0.1),
        time: now.wall,
        source: NodeId(0),
        headers: None,
    };
    let event = Event::Messages {
        to: Address {
            flow,
            node: NodeId(1),
        },
        messages: vec![message; messages],
    };
    engine.handle(now, event, &mut effects);
    let checkpoint = engine.checkpoint(flow, now).expect("it runs");
    Checkpoint::clone(&checkpoint)
}

fn directory() -> (TempDir, StateDirectory) {
    let parent = tempfile::tempdir().unwrap();
    let directory = StateDirectory::at(parent.path().join("state"));
    (parent, directory)
}

fn names(directory: &StateDirectory) -> Vec<String> {
    let files = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn keeper(directory: StateDirectory) -> (Keeper, Arc<Counters>) {
    let counters = Arc::<Counters>::default();
    let directory = Arc::new(Mutex::new(directory));
    (Keeper::new(directory, [], counters.clone()), counters)
}

#[test]
fn what_is_written_is_read_and_nobody_else_may_read_it() {
    let (_parent, mut directory) = directory();
    assert_eq!(directory.read("test"), None, "nothing yet");
    let first = checkpoint(1);
    let bytes = directory.write(&first).unwrap();
    let file = directory.path().join("test.state").metadata().unwrap();
    assert_eq!(
        (file.len(), file.permissions().mode() & 0o777),
        (bytes, 0o600)
    );
    let mode = directory.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(directory.read("test"), Some(first));
    let second = checkpoint(2);
    directory.write(&second).unwrap();
    assert_eq!(directory.read("test"), Some(second));
    assert_eq!(names(&directory), ["lock", "test.state"]);
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_damaged() {
    let bytes = encode(&checkpoint(1));
    for cut in 0..bytes.len() {
        let found = decode(&bytes[..cut]);
        assert!(
            matches!(found, Err(Unusable::Damaged(_))),
            "{cut}: {found:?}"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode(&longer), Err(Unusable::Damaged(_))));
}

#[test]
fn a_file_with_any_bit_flipped_is_damaged() {
    let bytes = encode(&checkpoint(1));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&flipped);
        assert!(
            matches!(found, Err(Unusable::Damaged(_))),
            "{bit}: {found:?}"
        );
    }
}

#[test]
fn what_is_damaged_is_set_aside_and_written_anew() {
    let (_parent, mut directory) = directory();
    directory.write(&checkpoint(1)).unwrap();
    let path = directory.path().join("test.state");
    for damaged in [&b""[..], b"garbage", &encode_as(1, b"no checkpoint")] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(directory.read("test"), None);
        assert!(!path.exists());
        let aside = directory.path().join("test.state.damaged");
        assert_eq!(fs::read(aside).unwrap(), damaged);
    }
    directory.write(&checkpoint(2)).unwrap();
    assert_eq!(directory.read("test"), Some(checkpoint(2)));
}

#[test]
fn the_file_of_a_newer_version_is_left_alone() {
    let (_parent, mut directory) = directory();
    directory.claim().unwrap();
    let path = directory.path().join("test.state");
    let newer = encode_as(2, b"who knows");
    fs::write(&path, &newer).unwrap();
    assert_eq!(directory.read("test"), None);
    let error = directory.write(&checkpoint(1)).unwrap_err();
    assert!(
        matches!(error, StateFileError::Newer { version: 2, .. }),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), newer);
    fs::remove_file(&path).unwrap();
    directory.write(&checkpoint(1)).unwrap();
}

/// Else it would be written to the file of the flow that it is a copy of.
#[test]
fn a_copy_of_another_flow_s_file_is_of_the_flow_whose_name_it_has() {
    let (_parent, mut directory) = directory();
    directory.write(&checkpoint(1)).unwrap();
    let (from, to) = ["test.state", "other.state"]
        .map(|name| directory.path().join(name))
        .into();
    fs::copy(from, to).unwrap();
    let other = directory.read("other").expect("it is sound");
    assert_eq!(other.flow, "other");
    assert!(other.remembers_the_same(&checkpoint(1)));
}

/// A flow that comes back later brings times of the clock that ran with it.
#[test]
fn moments_are_known_of_flows_that_do_not_run_and_of_nothing_that_is_damaged() {
    let (_parent, mut directory) = directory();
    directory.write(&checkpoint(1)).unwrap();
    fs::write(directory.path().join("bad.state"), "bad").unwrap();
    fs::write(directory.path().join("lock.toml"), "").unwrap();
    assert_eq!(directory.moments(), [checkpoint(1).now()]);
    assert!(names(&directory).contains(&"bad.state".to_owned()));
}

#[test]
fn a_file_that_is_too_large_is_neither_read_nor_written() {
    let (_parent, mut directory) = directory();
    directory.claim().unwrap();
    let path = directory.path().join("test.state");
    // A hole takes no room.
    File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
    assert_eq!(directory.read("test"), None);
    let text = "x".repeat(LARGEST as usize + 1);
    let error = directory.keep_copy("test", &text).unwrap_err();
    assert!(matches!(error, StateFileError::TooLarge { .. }), "{error}");
}

#[test]
fn a_directory_that_goes_is_made_again() {
    let (_parent, directory) = directory();
    let path = directory.path().to_owned();
    let (mut keeper, counters) = keeper(directory);
    keeper.keep(Arc::new(checkpoint(1)));
    fs::remove_dir_all(&path).unwrap();
    keeper.keep(Arc::new(checkpoint(2)));
    assert_eq!(StateDirectory::at(&path).read("test"), Some(checkpoint(2)));
    assert_eq!(counters.state_errors.get(), 0);
}

#[test]
fn what_cannot_be_written_is_counted_and_written_later() {
    let (parent, directory) = directory();
    // Something else is in its place. Permissions do not keep root out, which these tests may be.
    let path = directory.path().to_owned();
    fs::write(&path, "no directory").unwrap();
    let (mut keeper, counters) = keeper(directory);
    let checkpoint = Arc::new(checkpoint(1));
    keeper.keep(checkpoint.clone());
    keeper.keep(checkpoint.clone());
    assert_eq!(counters.state_errors.get(), 2);
    fs::remove_file(&path).unwrap();
    keeper.keep(checkpoint.clone());
    assert_eq!(
        StateDirectory::at(&path).read("test").as_ref(),
        Some(&*checkpoint)
    );
    assert_eq!(counters.state_errors.get(), 2);
    drop(parent);
}

#[test]
fn a_full_disk_leaves_the_old_file_and_is_tried_again() {
    let (_parent, mut directory) = directory();
    let bytes = directory.write(&checkpoint(1)).unwrap();
    let path = directory.path().to_owned();
    // Every write fails there for lack of space.
    directory.create = |_| File::options().write(true).open("/dev/full");
    let error = directory.write(&checkpoint(2)).unwrap_err();
    assert!(error.to_string().contains("is the disk full"), "{error}");
    assert_eq!(directory.read("test"), Some(checkpoint(1)));
    directory.create = create;
    let (mut keeper, counters) = keeper(directory);
    keeper.keep(Arc::new(checkpoint(2)));
    assert_eq!(StateDirectory::at(path).read("test"), Some(checkpoint(2)));
    assert!(counters.state_bytes.get() > bytes);
}

#[test]
fn what_a_killed_process_left_behind_is_in_nobody_s_way() {
    let (_parent, mut directory) = directory();
    directory.claim().unwrap();
    fs::write(directory.path().join("test.state.new"), "half").unwrap();
    directory.write(&checkpoint(1)).unwrap();
    assert_eq!(names(&directory), ["lock", "test.state"]);
}

#[test]
fn only_what_has_changed_is_written() {
    let (_parent, directory) = directory();
    let path = directory.path().join("test.state");
    let (mut keeper, counters) = keeper(directory);
    keeper.keep(Arc::new(checkpoint(1)));
    let written = counters.state_bytes.get();
    let mut later = checkpoint(1);
    later.mono += Duration::from_secs(300);
    keeper.keep(Arc::new(later.clone()));
    assert_eq!(counters.state_bytes.get(), written);
    fs::remove_file(&path).unwrap();
    keeper.keep(Arc::new(later));
    assert!(path.exists(), "what is gone is written again");
    let written_again = counters.state_bytes.get();
    assert!(written_again > written);
    keeper.keep(Arc::new(checkpoint(2)));
    assert!(counters.state_bytes.get() > written_again);
}

#[test]
fn a_flow_that_remembers_nothing_has_no_file_until_it_had_one() {
    let nothing = || {
        let text =
            "[nodes.none]\ntype = 'catch'\nnodes = []\n[nodes.show]\ntype = 'debug'\nfrom = 'none'";
        let mut engine = Engine::new("d");
        let flow = engine.add(graph(text), Now::default(), &mut Vec::new());
        engine.checkpoint(flow, Now::default()).expect("it runs")
    };
    let (_parent, directory) = directory();
    let path = directory.path().join("test.state");
    let (mut keeper, counters) = keeper(directory);
    keeper.keep(nothing());
    assert!(!path.exists());
    keeper.keep(Arc::new(checkpoint(1)));
    let before = counters.state_bytes.get();
    keeper.keep(nothing());
    assert!(
        counters.state_bytes.get() > before,
        "what it remembered is gone"
    );
}

#[test]
fn a_directory_belongs_to_one_process() {
    let (_parent, mut directory) = directory();
    directory.claim().unwrap();
    let mut other = StateDirectory::at(directory.path());
    assert!(matches!(other.claim(), Err(StateFileError::InUse { .. })));
    assert!(matches!(
        other.write(&checkpoint(1)),
        Err(StateFileError::InUse { .. })
    ));
    drop(directory);
    other.claim().unwrap();
}

#[test]
fn copies_are_kept_as_they_are_and_written_once() {
    let (_parent, mut directory) = directory();
    assert_eq!(directory.copies(), [""; 0]);
    assert!(directory.copy_of("a").unwrap().is_none());
    assert_eq!(directory.keep_copy("a", "text").unwrap(), 4);
    assert_eq!(directory.keep_copy("a", "text").unwrap(), 0);
    assert_eq!(directory.keep_copy("a", "other").unwrap(), 5);
    directory.keep_copy("b", "").unwrap();
    let (path, text) = directory.copy_of("a").unwrap().expect("it is there");
    assert_eq!((path, &*text), (directory.path().join("a.toml"), "other"));
    assert_eq!(directory.copies(), ["a", "b"]);
    directory.forget_copy("a");
    assert_eq!(directory.copies(), ["b"]);
}
