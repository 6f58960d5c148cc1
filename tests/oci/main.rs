//! The OCI command line as other programs call it, on the real kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

mod attributes;
mod cgroups;
mod command;
mod config;
mod descriptors;
mod exec;
mod fixture;
mod hooks;
mod knobs;
mod lifecycle;
mod manifest;
mod mounts;
mod namespaces;
mod scopes;
mod seccomp;
mod symbols;
mod terminal;
mod watch;
