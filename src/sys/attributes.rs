//! How the kernel treats a process: its scheduling, its memory, its keys, the system it sees.

use super::process::done;
use super::{Errno, last_error};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;

/// `sched_attr` of sched_setattr(2), without its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the next two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

fn number(pid: Option<Pid>) -> i32 {
    pid.map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// Sets policy and parameters of a process's main thread, or of the calling one (`sched_setattr(2)`).
pub fn set_scheduler(pid: Option<Pid>, attributes: SchedulerAttributes) -> Result<(), Errno> {
    #[repr(C)]
    struct Raw {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
        utilization: [u32; 2],
    }
    let SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period } = attributes;
    let size = u32::try_from(size_of::<Raw>()).map_err(|_| Errno::INVAL)?;
    let raw = Raw { size, policy, flags, nice, priority, runtime, deadline, period, utilization: [0; 2] };
    // SAFETY: `raw` is a sched_attr of the size that it says itself, and outlives the call.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, number(pid), &raw const raw, 0) })
}

/// Sets the priority of a process's input and output, or of the calling one's (`ioprio_set(2)`).
pub fn set_io_priority(pid: Option<Pid>, priority: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integers alone.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, number(pid), libc::c_int::from(priority)) })
}

/// The CPUs that the calling thread may run on, one bit each; of those, the ones that its cpuset has
/// (`sched_setaffinity(2)`).
pub fn set_affinity(cpus: &[u64]) -> Result<(), Errno> {
    // SAFETY: `cpus` points to as many bytes as are given.
    done(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) })
}

/// Where memory of the calling thread comes from (`set_mempolicy(2)`); `mode` with its flags, one bit for
/// each node.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    if nodes.is_empty() {
        // SAFETY: no nodes are passed by the null pointer that the kernel takes for that.
        return done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, std::ptr::null::<u64>(), 0) });
    }
    // The kernel takes one less than it is told.
    let bits = size_of_val(nodes).saturating_mul(8).saturating_add(1);
    // SAFETY: the kernel reads `bits - 1` bits, which `nodes` has.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) })
}

/// The system that a process sees (`personality(2)`).
pub fn set_personality(personality: u32) -> Result<(), Errno> {
    // SAFETY: an integer alone.
    done(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(personality)) })
}

/// Joins the session keyring of that name, made if there is none, which others of the same user may find
/// by its name (keyrings(7)).
pub fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SETPERM: libc::c_int = 5;
    /// Everything for who possesses it; viewing, reading, linking as it was, and searching for its user.
    const PERMISSIONS: u32 = 0x3f1b_0000;
    // SAFETY: `name` ends with a zero byte and outlives the call.
    let ring = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if ring < 0 {
        return Err(last_error());
    }
    // SAFETY: integers alone.
    done(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, ring, PERMISSIONS) })
}
