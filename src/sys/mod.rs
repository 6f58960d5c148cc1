//! System calls that have no safe wrapper elsewhere: one small typed function per call.
//!
//! This is the only home of `unsafe`. Arguments are typed, descriptors owned or borrowed, errors are
//! an [`Errno`]; there is no policy and no logging here. Every function may be called between `clone`
//! and `exec`: none allocates, takes a lock or panics, unless its documentation says so.
#![allow(unsafe_code, reason = "the one place where the kernel is called directly")]

mod attributes;
mod bpf;
mod clone;
mod entry;
mod exec;
mod lease;
mod mortal;
mod mount;
mod own;
mod pattern;
mod pidfd;
mod process;
mod program;
mod signal;
mod title;

pub use attributes::{
    SchedulerAttributes, join_session_keyring, set_affinity, set_io_priority, set_memory_policy, set_personality,
    set_scheduler,
};
pub use bpf::{
    BpfInstruction, BpfName, bpf_attach_device_program, bpf_detach_device_program, bpf_device_programs,
    bpf_load_device_program, bpf_program, bpf_program_name,
};
pub use clone::{Cloned, Request, clone3, exit, fork, fork_sibling};
pub use entry::begin;
pub use exec::{Pointers, execve};
pub use lease::is_open_for_writing;
pub use mortal::{may_die, mortality};
pub use mount::{MountChange, mount_setattr};
pub use own::{Masks, stat_field, stat_of};
pub use pattern::Pattern;
pub use pidfd::{peer_process, pidfd_exit_status, pidfd_kill};
pub use process::{
    CapabilitySets, Instruction, NEW_LISTENER, capset, clear_ambient, clear_securebits, close_between, close_copy,
    close_from, close_on_exec_from, drop_from_bounding_set, enter_namespaces, getcwd, is_kept_over_exec,
    join_new_session_keyring, keep_over_exec, kill, loopback_up, namespace_kind, raise_ambient, reset_signals,
    set_groups, set_keep_capabilities, set_limit, set_no_new_privileges, set_not_dumpable, set_seccomp_filter,
    set_signal_mask, unshare_namespaces, user_namespace_of, wait_for_signal,
};
pub use program::{
    Layout, Mapping, forget, give_back_memory, heap_end, keep_no_large_memory, mapped_program, remap, set_program,
    set_program_and_layout,
};
pub use rustix::io::Errno;
pub use signal::end_on_signals;
pub use title::Arguments;

/// The error of the libc call that has just failed.
fn last_error() -> Errno {
    // SAFETY: __errno_location gives a valid pointer to this thread's errno.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: see above; the value is a plain integer that only this thread writes.
    Errno::from_raw_os_error(unsafe { *location })
}
