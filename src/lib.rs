//! Tidegate: sensors -> flow -> outbox -> mutual-TLS MQTT -> cloud broker, in one binary.
//!
//! # Layout
//! In the order in which a reading travels:
//!
//! * [`board`], [`sensors`][]: pins, edges and readings, from real or simulated hardware
//! * [`message`][]: what travels along a wire
//! * [`flow`][]: from a flow file to a graph that is valid by construction
//! * [`nodes`][]: the node types, one file each
//! * [`runtime`][]: the pure engine, its clock, and the drivers that connect it to the world
//! * [`outbox`][]: keeps what must be delivered until it has been
//! * [`uplink`][]: delivers it to the cloud broker
//!
//! Around them:
//!
//! * [`config`][]: `tidegate.toml`
//! * [`device`][]: all of the above, running together
//! * [`reload`][]: flow files that change while a device runs
//! * [`subscriptions`][]: messages from brokers that a plant already has
//! * [`state_files`][]: what flows remember, and their last good copies, on disk
//! * [`control_socket`][]: how other commands ask a running device
//! * [`broker`][]: an MQTT broker that lets nobody in without a certificate
//! * [`certs`][]: development certificates
//! * [`logging`][]: where the log goes
//! * [`replay`][]: recorded data through a flow
//! * [`reference`](mod@reference): documentation and JSON Schema of the node types, from their definitions
//! * [`picture`][]: flows as Mermaid and as SVG
//! * `simulation`: random lives of all of this under faults, in tests
//! * [`examples`][]: the flows of `flows/`, in the binary
//! * [`cli`][]: the commands
//!
//! What each part must not do stands at its top; why it is so, in `ARCHITECTURE.md` and `docs/decisions/`.

pub mod board;
pub mod broker;
pub mod certs;
pub mod cli;
pub mod config;
pub mod control_socket;
pub mod device;
pub mod examples;
pub mod flow;
pub mod flow_test;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod logging;
pub mod message;
pub mod nodes;
pub mod outbox;
pub mod picture;
pub mod reference;
pub mod reload;
pub mod replay;
pub mod revocation;
pub mod runtime;
pub mod sensors;
#[cfg(test)]
mod simulation;
pub mod state_files;
pub mod subscriptions;
pub mod uplink;
