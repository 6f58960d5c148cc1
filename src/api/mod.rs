//! The agent's REST interface over its unix socket, and the client that the commands use.
//!
//! Everything is HTTP/1.1 with JSON; what goes on is a stream of JSON lines, and a program inside a
//! container is talked to in frames over an upgraded connection ([`frame`]). The kernel tells who
//! the caller is (`SO_PEERCRED`, unix(7)). A `GET`, and `POST /1.0/plan`, never write.

mod agent;
pub mod client;
mod error;
mod exec;
pub mod frame;
mod logs;
mod metrics;
mod openapi;
mod peer;
mod routes;
mod selector;
mod server;
mod socket;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use agent::Agent;
pub use client::{Client, ClientError};
pub use error::{ErrorBody, MISCONFIGURED, NO_SUCH_PROGRAM, NOT_EXECUTABLE};
pub use selector::{InvalidSelector, Selector};
pub use server::{Access, ApiError, listen, serve};
pub use table::Rights;

/// What a server can do, so that a client need not guess from its version.
pub const FEATURES: &[&str] =
    &["containers", "watch", "events", "logs", "exec", "plan", "why", "history", "commands", "metrics"];

/// The phase in the last line about a container that has gone, in a watched list.
pub const REMOVED: &str = "Removed";
