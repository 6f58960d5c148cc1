//! The keeper: parent of all containers, and the one process of ours that a workload depends on.
//!
//! It is small so that it need not be restarted: one thread, one loop ([`serve`]), no policy. It starts
//! what a [`Script`](crate::sandbox::Script) says, holds pidfds and FIFOs, writes logs, collects exits and
//! tells whoever is connected. It never restarts anything by itself; what it knows of an ended container
//! it keeps until that is released, so an agent that was away misses nothing.
//!
//! When it dies, containers live on: they hold their FIFOs open themselves, and the next keeper finds
//! them by their cgroup ([`Client::adopt`]).
//!
//! The agent's side is [`spawn`] and [`Client`]. Nothing here may use tokio, HTTP or the store: the binary
//! is checked for that.

mod address;
mod child;
mod client;
mod connection;
mod daemon;
mod exit;
mod fifo;
mod find;
mod lines;
mod log;
mod protocol;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{Client, ExecRequest, ExecStarted, ExecStreams, KeeperError, StartRequest};
pub use daemon::{DaemonError, Options, main, serve, spawn};
pub use protocol::{
    Event, Exit, Fault, Handle, HandleState, LogCounters, LogTarget, Output, Started, Stats, Whereabouts,
};
pub use server::LoopError;
