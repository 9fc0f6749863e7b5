//! Everything across modules: the `tidegate` binary as its users meet it, on loopback, against real brokers.
//!
//! # Layout
//! One module per subject:
//!
//! * `demo`, `check`, `certs`, `nodes`, `graph`: commands that end by themselves
//! * `flow_tests`: tests of flows, those of the examples among them
//! * `gallery`: whether these say something about each node
//! * `replay`: recorded data through flows; its windows compared with those of pandas, if asked for as below
//! * `run`: start, stop, settings, logs, and who may ask a running process
//! * `systemd`: what systemd is told
//! * `tap`: a look at the wires of a running process
//! * `reload`: flow files that change meanwhile
//! * `state`: what flows remember, over a stop, a kill, and whatever happens to the state directory
//! * `power`: SIGKILL, again and again; no accepted record is lost
//! * `outbox`: an outbox at rest: verified, exported, repaired, and records given up
//! * `link`: brokers that come late, and links that go silent
//! * `mqtt_in`: messages from brokers that a plant already has
//! * `refusals`: certificates that are not right, said in words, and put right without a restart
//! * `virtual_time`: the example flows, an hour each
//! * `faults`: kills, power cuts and full disks, many times if wished; `scripts/prove.sh`
//! * `consumer`: the example of a receiver, killed again and again; ignored unless asked for
//! * `with_mosquitto`: the same against Debian's mosquitto; these are ignored unless asked for, as `scripts/test.sh` does
//!
//! `support` has what they share: a plant (certificates, settings, flows in a directory of its own), running processes,
//! a cable that can be cut, a witness at the broker.
//!
//! Nothing here waits for luck: a test waits for a condition, at most [`SOON`], and ends only what it has started.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod certs;
mod check;
mod consumer;
mod demo;
mod faults;
mod flow_tests;
mod gallery;
mod graph;
mod link;
mod mqtt_in;
mod nodes;
mod outbox;
mod power;
mod presence;
mod refusals;
mod reload;
mod replay;
mod run;
mod safe;
mod state;
mod support;
mod systemd;
mod tap;
mod virtual_time;
mod with_mosquitto;

use std::time::Duration;

/// For anything that should happen at once. Generous, since machines under test are slow.
const SOON: Duration = Duration::from_secs(30);
