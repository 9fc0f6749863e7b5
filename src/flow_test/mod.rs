//! Tests of flows: a timeline of what happens and of what must follow, run in virtual time. `docs/testing.md` is for those who write
//! them, decision 0015 says why they are as they are.
//!
//! ```text
//! NAME.test.toml --written--> WrittenFile --check--> Test --run--> Outcome --report--> words, JSON, JUnit
//!                             as written             valid
//! ```
//!
//! Terms: a *step* is one entry of a test's timeline; an *action* is what it does, an *expectation* what must be so; an *instant* is
//! one point of virtual time with all that happens at it; times are counted from the test's start.
//!
//! # Layout
//!
//! * [`written`][]: the file as written; [`options`][]: the keys that there are, with their documentation
//! * [`check`][]: from there to a [`Test`], beside the flows that it is about
//! * [`test`](mod@test): what a test is once it is valid
//! * [`compare`][]: whether a payload is what is expected, and in what it differs
//! * [`world`][]: the device under virtual time: flows, pins, outbox, link, power
//! * [`feeding`][]: the messages of a feed
//! * [`watch`][]: what came for an expectation, and whether that is what was expected
//! * [`run`][]: one test, from its start to its end
//! * [`suite`][]: which tests there are, and running them side by side
//! * [`record`](mod@record): what a flow did with recorded data, as a test
//! * [`report`][]: what people read of it; [`junit`][]: what build servers do
//!
//! Must not: touch hardware, network or the outbox of a device.

mod check;
mod compare;
mod feeding;
pub mod junit;
mod options;
pub mod record;
pub mod report;
mod run;
pub mod suite;
mod test;
#[cfg(test)]
mod tests;
mod watch;
mod world;
mod written;

pub use run::{Outcome, Unmet};
pub use suite::{Finding, Suite, SuiteError};
pub use test::Test;
