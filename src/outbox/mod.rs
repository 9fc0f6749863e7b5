//! The durable store-and-forward buffer.
mod record;

pub use record::{Draft, Envelope, Record, RecordId};
