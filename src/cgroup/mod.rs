//! Limits as files of the kernel: which file, which text, in which order; and what the files say now.
//!
//! [`table`] is pure: one row per knob, with its file and text in the unified hierarchy (v2) and in
//! the old ones (v1). [`Cgroups`] finds out what this host has, makes an instance's directories,
//! writes what differs and reads it back. It decides nothing: a limit that cannot be lowered
//! without harm is reported as deferred, and when to try again is the planner's affair.
//!
//! # Layout
//!
//! Below the configured parent, `keeper/` is for the keeper itself, and `c/` for containers:
//!
//! * v2: `c/<namespace>_<name>/<number>/payload`. The limits stand on `<number>`, the processes in
//!   `payload`, so that whoever owns the payload's directory (a guest systemd owns every attribute
//!   of the root it is given) cannot write our limits. No inner node has processes.
//! * v1: `c/<namespace>_<name>.<number>`, one directory per hierarchy and no payload level. A v1
//!   hierarchy is never handed to a container: delegating one is not safe, because the right to
//!   write in it is the right to raise the limits of the directory itself (cgroups(7)). So a second
//!   level would only cost a directory per hierarchy and start.
//!
//! A hybrid host has both: the v1 directories carry the limits, the v2 directory serves kill,
//! pressure, CPU time, and the controllers that no v1 hierarchy has taken (often `hugetlb`).
//!
//! What costs time when a container starts is the number of directories made and joined, so only
//! those v1 hierarchies are used that are needed: always `memory`, `cpu` and `pids`; `cpuset`,
//! `blkio` and `hugetlb` from the moment that a limit of theirs is asked for (running processes are
//! moved in then); `devices` is one directory that all containers share. In the v2 hierarchy the same
//! rules are a program that is attached to `c` and so holds for every container below it.

mod access;
mod assemble;
mod bus;
mod detect;
mod device;
mod error;
mod files;
pub mod freezer;
mod group;
mod memory;
mod oom;
pub mod place;
mod resize;
mod scope;
mod statistics;
pub mod table;
mod view;

#[cfg(test)]
mod tests;

pub use access::{ALLOWED_DEVICES, Access, DeviceKind, DeviceRule, Exceptions, Verdict};
pub use bus::{Argument, BusError};
pub use detect::Cgroups;
pub use device::resolve as disks;
pub use error::CgroupError;
pub use group::{CgroupJoinPaths, Created, Usage};
pub use oom::OomWatch;
pub use resize::Resized;
pub use scope::{Placeholder, Scope, ScopeError, Systemd};
pub use statistics::{Counter, IoEntry, Pressure, Statistics, Waiting};
