//! What the engines have done, for anyone who asks while they run.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only rise. They are written by the engine threads and read from anywhere.
#[derive(Debug, Default)]
pub struct Counters {
    /// Readings and edges that reached a flow.
    pub readings: Counter,
    /// What these would have taken as MQTT PUBLISH packets, each by itself in the JSON envelope, in bytes.
    pub raw_bytes: Counter,
    /// Readings and messages that a node could not handle.
    pub failures: Counter,
    /// Edges that found the engine's inbox full, or that the kernel dropped before they were read.
    pub edges_dropped: Counter,
    /// Messages that found a link queue full, or were in one at the stop.
    pub links_dropped: Counter,
    /// Records that came while the outbox could not be opened, and for which there was no memory.
    pub dropped_before_outbox: Counter,
    /// Panics that stopped a flow.
    pub panics: Counter,
    /// Events that came while their flow was stopped, and messages that were on their way in it when it stopped.
    pub missed: Counter,
    /// Errors of the board when a pin was driven.
    pub output_errors: Counter,
    /// What was written to the state directory, in bytes: what flows remember, and their last good copies.
    pub state_bytes: Counter,
    /// Times that something could not be written there.
    pub state_errors: Counter,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
