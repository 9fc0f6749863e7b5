//! `tidegate replay`: recorded data through a flow, in the time of the data.
//!
//! Files take the place of sources; what comes to the sinks is written. The flow is the one that would run on the device: the same
//! graph, the same engine, the same nodes.
//!
//! # Layout
//!
//! * [`rows`]: the rows of a file; [`lines`], [`columns`] (CSV), [`objects`] (JSON Lines), [`fields`], [`times`]: how they are read
//! * [`feeds`]: which files take the place of which sources
//! * [`blocks`]: files are read by threads of their own
//! * [`run`]: rows and wake-ups, in the order of time
//! * [`sinks`]: what came to the sinks; [`report`]: what happened, in numbers
//!
//! Must not: read a clock. The time of a replay is that of its rows.

mod blocks;
mod columns;
mod feeds;
mod fields;
mod lines;
mod objects;
mod report;
pub mod rows;
#[cfg(test)]
mod rows_test;
mod run;
#[cfg(test)]
mod run_test;
mod sinks;
mod times;

pub use feeds::{Feed, FeedError};
pub use report::{Failures, FileReport, LeftOut, Report};
pub use run::{Replay, ReplayError, Settings};

use crate::message::Timestamp;

/// How far a replay is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub rows: u64,
    /// Of the files.
    pub bytes: u64,
    /// The time at which the flow's clock stands.
    pub time: Timestamp,
}
