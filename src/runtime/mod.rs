//! Runs graphs: a pure engine, and the drivers that connect it to a board, an outbox and a clock.
//!
//! ```text
//! Graph --Engine::add--> Engine: (Now, Event) -> Effects
//!                          ^                       |
//!        driver: threads, clock, board     virtual_time: the same, without waiting
//! ```
//!
//! * [`clock`][]: the one clock that messages, windows, outbox and uplink go by
//! * [`node`][]: what a running node is and what it may do
//! * [`engine`][]: delivers messages to completion, keeps wake-ups, contains panics
//! * [`state`][]: what flows remember, over a restart and a reload
//! * [`links`][]: messages on their way from one flow to another
//! * [`driver`][]: two engine threads, sensors, pins, outbox
//! * [`counters`][]: what the engines have done
//! * [`pulses`][]: counting edges where they come in
//! * [`realtime`][]: what the threads between an edge and an output may have of the scheduler

pub mod clock;
pub mod counters;
pub mod driver;
pub mod engine;
mod links;
mod log;
pub mod node;
pub mod pulses;
pub mod realtime;
pub mod state;
pub mod virtual_time;
mod watchers;

pub use clock::{Clock, Now};
pub use counters::Counters;
pub use driver::{Driver, World};
pub use engine::{Engine, Event};
pub use node::{Address, Context, Effect, Effects, Node};
pub use state::{Checkpoint, Pause, State, StateError};
pub use virtual_time::{Trace, VirtualRun};
