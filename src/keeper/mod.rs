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
//! Nothing is waited for without an end in sight. A child between clone and execution has copies of the keeper's
//! descriptors, and one that stands in a frozen cgroup keeps them when the keeper dies: so its lock is one of
//! the process, its listening socket counts only while the process behind it lives, and a client watches that
//! process beside the socket. A killed child that does not go, as in a frozen v1 cgroup, is answered for and
//! collected when it does.
//!
//! A newer program is executed in its place ([`Client::upgrade`], or SIGHUP): the same process, with the
//! same children and descriptors, so that nobody in between notices. The program is asked before
//! whether it knows the [`state`] that it is to take over, and not while a child is on its way.
//!
//! The agent's side is [`spawn`] and [`Client`]. Nothing here may use tokio, HTTP or the store: the binary
//! is checked for that.

mod address;
mod candidate;
mod child;
mod client;
mod connection;
mod daemon;
mod exit;
mod fifo;
mod find;
mod handover;
mod lines;
mod log;
mod protocol;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{Client, ExecRequest, ExecStarted, ExecStreams, KeeperError, StartRequest};
pub use daemon::{DaemonError, Options, is_outdated, main, serve, spawn};
pub use handover::HandoverError;
pub use protocol::{
    Event, Exit, Fault, Handle, HandleState, LogCounters, LogTarget, Output, Started, Stats, Whereabouts,
};
pub use server::{LoopError, ResumeError};
