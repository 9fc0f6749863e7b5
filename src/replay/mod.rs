//! `tidegate replay`: recorded data through a flow, in the time of the data.
//!
//! # Layout
//!
//! * [`rows`]: the rows of a file; [`lines`], [`columns`] (CSV), [`objects`] (JSON Lines), [`fields`], [`times`]: how they are read

mod columns;
mod fields;
mod lines;
mod objects;
pub mod rows;
#[cfg(test)]
mod rows_test;
mod times;
