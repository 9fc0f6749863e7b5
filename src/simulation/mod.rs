//! Random lives of a device under faults, each of them repeatable: one seed is one history.
//!
//! The engine, the books and the storage thread's work of the outbox, and the uplink's courier are the real ones; the clock,
//! the disk, the network and the broker are modelled. Decision 0020 says how, and what this does not show.
//!
//! # Layout
//! ```text
//! random    SplitMix64
//! plan      what a seed stands for: settings and faults
//! world     virtual time, happenings, the device
//! network   connections and the broker
//! life      one life, from start to end
//! oracle    what must hold
//! history   what happened
//! shrink    the smallest plan that still fails, in words
//! tests     the seeds
//! ```
//! Beside what they stand for: `outbox/simulated_disk.rs`, `outbox/simulated.rs`, `uplink/simulated.rs`.
//!
//! `SEED=7 cargo test --lib simulation -- --nocapture` tells one life in words, `SEEDS=0..1000` runs a range,
//! `scripts/simulate.sh` a long one.
//!
//! Must not: start a thread, read a clock or touch a file; but for the tests, which share the seeds among the cores.

mod history;
mod life;
mod network;
mod oracle;
mod plan;
mod random;
mod shrink;
mod tests;
mod world;

pub(crate) use random::Random;
