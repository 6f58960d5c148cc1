//! Blueprint → script → process: everything between "start this" and the container's own `execve`.
//!
//! [`Blueprint`] says what a container is to look like. [`script`] turns it into two lists of
//! operations, pure and printable. [`launch`] clones, runs the parent's list here and the child's
//! list there; nothing is decided on the way.

mod blueprint;

pub use blueprint::{BindMount, Blueprint, CgroupJoin, CgroupView, MountPlan, Overlay, Process, Root, TmpfsMount};
