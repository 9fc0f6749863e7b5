//! Tidegate.
pub mod board;
pub mod broker;
pub mod certs;
pub mod flow;
pub mod message;
pub mod nodes;
pub mod outbox;
pub mod runtime;
pub mod sensors;
pub mod uplink;
