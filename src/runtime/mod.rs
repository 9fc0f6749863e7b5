//! Runs graphs.
pub mod clock;
