//! Blueprint → script → process: everything between "start this" and the container's own `execve`.
//!
//! [`Blueprint`] says what a container is to look like. [`script`] turns it into two lists of
//! operations, pure and printable. [`launch`] clones, runs the parent's list here and the child's
//! list there; nothing is decided on the way. It is the one way for all: the agent's containers, those
//! of the OCI command line, and commands in either.
//!
//! - `ops`: the operations and their words; `lanes`: their order; `layout`: how each mount is made;
//!   `usual`: the mounts of a container that asks for none.
//! - `launch`, `exec`: the clone, and what came of it; `start`: a child that waits; `parent`, `child`:
//!   the two lanes; `hooks`: programs that run on the way; `descendants`: what they leave; `attributes`: what else a process has;
//!   `overlay`: layers by descriptor, and by name where the kernel is older.
//! - `namespace`: those of others; `copy`: what a tmpfs begins with; `path`: names inside a root that is not ours;
//!   `terminal`, `init`: what their names say.
//! - `seccomp`: profiles to filters, for who plans; `probe`: what this host can do.
#![doc = include_str!("threats.md")]

mod attributes;
mod blueprint;
mod child;
mod copy;
mod descendants;
mod exec;
pub mod guard;
mod hooks;
mod init;
mod lanes;
mod launch;
mod layout;
mod namespace;
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
mod usual;

pub use attributes::{Affinity, Attributes, Keyring, MemoryPolicy};
pub use blueprint::{
    Blueprint, Capabilities, CgroupJoin, ChangeRoot, DeviceNode, ExecPlan, IdExtent, IdMaps, Link, MappedBy, Mapping,
    Mount, MountChange, Namespace, NewLine, NodeKind, Overlay, Process, Propagation, PropagationKind, ResourceLimit,
    Root, Tree,
};
pub use exec::launch_exec;
pub use hooks::{Hook, HookError, Hooks, proceed, reason, run_hook};
pub use lanes::{exec_script, script};
pub use launch::{Io, LaunchError, Launched, Lingering, Stdio, launch, read_report};
pub use namespace::{kind_of, maps_of};
pub use probe::{Found, Probe, probe};
pub use script::{Failure, Lane, Report, Script, ScriptError, Unfit};
pub use start::{StartError, hear, start};
pub use text::Text;
pub use usual::{CgroupView, SysView, bound, scratch, usual_mounts, usual_nodes};

#[cfg(test)]
mod tests;
