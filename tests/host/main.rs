//! The whole product on this host: the real binaries, kernel, cgroups, namespaces and file system.
//!
//! Every test has an agent of its own under a root of its own, and takes away what it made. What a
//! killed test left behind is taken away by the next run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on says why")]

mod aftermath;
mod cgroups;
mod commands;
mod database;
mod dice;
mod drift;
mod dying;
mod failure;
mod fixture;
mod git;
mod health;
mod isolation;
mod keeper;
mod kills;
mod lifecycle;
mod metrics;
mod oom;
mod reload;
mod rules;
mod saving;
mod servers;
mod service;
mod sources;
mod storm;
mod sweep;
