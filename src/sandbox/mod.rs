//! Blueprint → script → process: everything between "start this" and the container's own `execve`.
//!
//! [`Blueprint`] says what a container is to look like. [`script`] turns it into two lists of
//! operations, pure and printable. [`launch`] clones, runs the parent's list here and the child's
//! list there; nothing is decided on the way.
//!
//! - `ops`: the operations and their words; `script`: their order.
//! - `explicit`: the same for a container of which everything is said; `start`: launching one that waits.
//! - `launch`, `exec`: the clone, and what came of it; `parent`, `child`: the two lanes; `overlay`: layers
//!   by descriptor, and by name where the kernel is older.
//! - `path`: names inside a root that is not ours; `terminal`, `init`: what their names say.
//! - `seccomp`: profiles to filters, for who plans; `probe`: what this host can do.
#![doc = include_str!("threats.md")]

mod blueprint;
mod child;
mod exec;
mod explicit;
pub mod guard;
mod init;
mod launch;
mod ops;
mod overlay;
mod parent;
mod path;
mod probe;
pub mod program;
mod script;
pub mod seccomp;
mod start;
mod terminal;
mod text;

pub use blueprint::{BindMount, Blueprint, CgroupJoin, CgroupView, MountPlan, Overlay, Process, Root, TmpfsMount};
pub use exec::{ExecIo, ExecPlan, exec_script, launch_exec};
pub use explicit::{
    Capabilities, DeviceNode, Explicit, ExplicitExec, ExplicitMount, ExplicitProcess, IdExtent, IdMaps, MountChange,
    Namespace, NodeKind, Propagation, PropagationKind, ResourceLimit, explicit_exec_script, explicit_script,
};
pub use launch::{LaunchError, Launched, Stdio, launch, read_report};
pub use probe::{Found, Probe, probe};
pub use script::{Failure, Lane, Report, Script, ScriptError, Unfit, script};
pub use start::{ExplicitIo, StartError, launch_explicit, launch_explicit_exec, start};
pub use text::Text;

#[cfg(test)]
mod tests;
