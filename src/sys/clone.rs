//! `clone3(2)`: a child that runs one function and never comes back.

use super::Errno;
use rustix::process::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the child is to be born into.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `CLONE_NEW*` bits.
    pub namespaces: u64,
    /// A directory of the v2 hierarchy (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The child, as its parent sees it.
#[derive(Debug)]
pub struct Cloned {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Ends the process if the child's function were ever left, by a panic for instance: what follows
/// in the parent's code is not the child's to run.
struct NeverLeave;

impl Drop for NeverLeave {
    fn drop(&mut self) {
        exit(255);
    }
}

/// Ends the calling process at once: no destructors, no `atexit` (`_exit(2)`).
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Clones the calling process (`clone3(2)`, Linux 5.3; `CLONE_PIDFD`, signal handlers reset). The
/// child has a copy of the memory and runs `child`.
///
/// The child is alone in its copy whatever threads the parent has, so `child` must not allocate or
/// wait for a lock that another thread may have held.
pub fn clone3<F>(request: Request<'_>, child: F) -> Result<Cloned, Errno>
where
    F: FnOnce(),
{
    let flag = |bits: libc::c_int| u64::from(bits.cast_unsigned());
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is a plain struct of integers, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = request.namespaces | flag(libc::CLONE_PIDFD) | CLONE_CLEAR_SIGHAND;
    args.pidfd = u64::try_from((&raw mut pidfd).addr()).map_err(|_| Errno::FAULT)?;
    args.exit_signal = flag(libc::SIGCHLD);
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = flag(cgroup.as_raw_fd());
    }
    // SAFETY: `args` is a clone_args of the size that is given, `pidfd` outlives the call, and no
    // stack is asked for: without CLONE_VM the child goes on in its own copy of this one.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        let _guard = NeverLeave;
        child();
        exit(255);
    }
    if pid < 0 {
        return Err(super::last_error());
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // SAFETY: the kernel has stored a new descriptor in `pidfd`, and nothing else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid, pidfd })
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A plain child (`fork(2)` without libc's handlers): `None` in it, its number in the parent.
///
/// For a process that is a child of [`clone3`] itself and has no other thread.
pub fn fork() -> Result<Option<Pid>, Errno> {
    copy(0)
}

/// As [`fork`], and the new process is a child of our own parent (`CLONE_PARENT`).
pub fn fork_sibling() -> Result<Option<Pid>, Errno> {
    copy(libc::CLONE_PARENT)
}

fn copy(flags: libc::c_int) -> Result<Option<Pid>, Errno> {
    // SAFETY: no memory is shared and no stack given, so the child goes on in its own copy of this
    // one; nothing but integers is passed.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD | flags, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(super::last_error());
    }
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}
