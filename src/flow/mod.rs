//! The flow language: from a file to a graph that is valid by construction.
//!
//! ```text
//! text --file::parse--> FlowFile --check--> Graph
//!                       as written          valid
//! ```
//!
//! Every problem becomes a [`Diagnostic`] with its place; nothing here stops at the first one. Must not: run anything, read
//! a clock, or do I/O (except [`directory`] and [`site`], which find and
//! read the files).

pub mod check;
pub mod diagnostic;
pub mod directory;
pub mod estimate;
mod feed;
pub mod file;
pub mod graph;
mod links;
pub mod options;
pub mod parts;
mod schema;
pub mod script;
pub mod site;
pub mod template;

pub use check::{Variables, check};
pub use diagnostic::{Diagnostic, Report, Severity};
pub use file::FlowFile;
pub use graph::{Graph, GraphNode};
pub use site::Site;
