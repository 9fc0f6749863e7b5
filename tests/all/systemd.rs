//! What systemd is told, on a socket that the test owns in its place.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::SOON;
use crate::support::process::Output;
use crate::support::{Plant, Running};

#[test]
fn systemd_hears_of_the_start_of_all_being_well_and_of_the_stop() {
    let plant = Plant::ticking();
    let notified = listen(&plant.path("notify"));
    let mut command = plant.command(&["run"]);
    command
        .env("NOTIFY_SOCKET", plant.path("notify"))
        .env("WATCHDOG_USEC", "3000000");
    let device = Running::start(command, Output::Stderr);
    assert_eq!(heard(&notified), "READY=1");
    plant
        .totals_with("it can be asked", |totals| totals.get("epoch") == 1)
        .assert_balance();
    assert_eq!(heard(&notified), "WATCHDOG=1");
    assert_eq!(heard(&notified), "WATCHDOG=1");
    device.signal("TERM");
    let last = std::iter::repeat_with(|| heard(&notified)).find(|state| state != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(device.end().0.success());
}

#[test]
fn without_a_watchdog_nothing_is_said_about_it() {
    let plant = Plant::new();
    let notified = listen(&plant.path("notify"));
    let mut command = plant.command(&["run"]);
    command.env("NOTIFY_SOCKET", plant.path("notify"));
    let device = Running::start(command, Output::Stderr);
    assert_eq!(heard(&notified), "READY=1");
    device.signal("TERM");
    assert_eq!(heard(&notified), "STOPPING=1");
    assert!(device.end().0.success());
}

fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The next message, without the line's end.
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("a message in time");
    String::from_utf8_lossy(&buffer[..length])
        .trim_end()
        .to_owned()
}
