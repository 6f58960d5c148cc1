//! What a process changes about itself on the way to its program.

use super::{Errno, last_error};
use rustix::process::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Three capability sets as masks (`capset(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

pub(super) fn done(result: libc::c_long) -> Result<(), Errno> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong, second: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: every option that is passed in this file takes integers alone.
    done(unsafe { libc::syscall(libc::SYS_prctl, option, argument, second, 0, 0) })
}

/// Makes every descriptor from `first` on close at `execve` (`close_range(2)`, Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: integers alone; no descriptor is closed here, so no owner loses its own.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// So many descriptors from `first` on stay open at `execve`; all of them have to be open.
pub fn keep_over_exec(fd: u32) -> Result<(), Errno> {
    // SAFETY: integers alone; the flag of a descriptor changes, its owner does not.
    done(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) })
}

/// Whether a descriptor is open and stays so at `execve`.
pub fn is_kept_over_exec(fd: u32) -> bool {
    // SAFETY: integers alone, and nothing changes.
    let flags = unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::c_long::from(libc::FD_CLOEXEC) == 0
}

/// Sets a limit of a process, or of the calling one (`prlimit64(2)`); `resource` is a number of getrlimit(2).
pub fn set_limit(pid: Option<Pid>, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    // SAFETY: `limit` is laid out as a rlimit64, two 64-bit numbers, and the old one is not asked for.
    done(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), std::ptr::null_mut::<u64>()) })
}

/// Closes every descriptor from `first` on (`close_range(2)`, Linux 5.9).
///
/// For a process that will not use any of them again: what owns them here is left with nothing.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: integers alone. The caller is a child that never returns to code that owns one.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })
}

/// Closes the descriptors from `first` to before `end`, as [`close_from`] does and for the same.
pub fn close_between(first: u32, end: u32) -> Result<(), Errno> {
    let Some(last) = end.checked_sub(1).filter(|last| *last >= first) else { return Ok(()) };
    // SAFETY: integers alone. The caller is a child that never returns to code that owns one.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Nobody without privileges over us may trace us or look into `/proc/PID` (`PR_SET_DUMPABLE`).
pub fn set_not_dumpable() -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

pub fn set_no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Permitted capabilities outlive a change from user 0 to another, until `execve`.
pub fn set_keep_capabilities() -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// No bit of securebits is set (capabilities(7)).
pub fn clear_securebits() -> Result<(), Errno> {
    prctl(libc::PR_SET_SECUREBITS, 0, 0)
}

/// Drops one capability from the bounding set; `INVAL` for one that this kernel does not have.
pub fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)
}

/// Whether a capability is in the bounding set (`PR_CAPBSET_READ`); no for one that this kernel does not have.
pub fn is_in_bounding_set(capability: u32) -> bool {
    // SAFETY: integers alone, and nothing changes.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
    result == 1
}

/// Puts one capability that is permitted and inheritable into the ambient set.
pub fn raise_ambient(capability: u32) -> Result<(), Errno> {
    let raise = libc::c_ulong::from(libc::PR_CAP_AMBIENT_RAISE.cast_unsigned());
    prctl(libc::PR_CAP_AMBIENT, raise, capability.into())
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned()), 0)
}

/// Sets the capabilities of the calling thread (`capset(2)`).
pub fn capset(sets: CapabilitySets) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let half = |mask: u64, shift: u32| u32::try_from((mask >> shift) & u64::from(u32::MAX)).unwrap_or(0);
    let data = [0, 32].map(|shift| Data {
        effective: half(sets.effective, shift),
        permitted: half(sets.permitted, shift),
        inheritable: half(sets.inheritable, shift),
    });
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: version 3 takes two data structs behind a header; all outlive the call.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })
}

/// A new, empty session keyring, so that the old one's keys are out of reach (keyrings(7)).
pub fn join_new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a nameless keyring; nothing else is passed by pointer.
    done(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
}

/// The size of the kernel's signal set, which differs from libc's.
const SIGSET_SIZE: usize = 8;

/// Blocks exactly the signals in `mask`, where bit 0 is signal 1.
pub fn set_signal_mask(mask: u64) -> Result<(), Errno> {
    // SAFETY: `mask` is a signal set of the size given, and the old one is not asked for.
    done(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            std::ptr::null_mut::<u64>(),
            SIGSET_SIZE,
        )
    })
}

/// Each of these signals has its default effect, where bit 0 is signal 1: an ignored one would stay
/// ignored in the program.
pub fn reset_signals(mask: u64) {
    // The kernel's sigaction: all zeroes is SIG_DFL, no flags, no restorer, nothing blocked.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| mask & 1 << (signal - 1) != 0) {
        // SAFETY: `default` is at least as large as the kernel's sigaction (32 bytes on 64-bit
        // machines), the old action is not asked for, and a default action runs no code of ours.
        // KILL and STOP fail with EINVAL, and are as they should be.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), SIGSET_SIZE)
        };
    }
}

/// Whether a signal is ignored (`rt_sigaction(2)`); no for a number that is none.
pub fn is_ignored(signal: u32) -> bool {
    // The kernel's sigaction, which begins with the handler.
    let mut action = [0u64; 4];
    // SAFETY: no new action is given, and the kernel writes the old one, of at most 32 bytes, to `action`.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, std::ptr::null::<u64>(), action.as_mut_ptr(), SIGSET_SIZE)
    };
    result == 0 && action[0] == libc::SIG_IGN as u64
}

/// Waits for a blocked signal and takes it (`rt_sigtimedwait(2)` without a time).
pub fn wait_for_signal(mask: u64) -> Result<i32, Errno> {
    // SAFETY: `mask` is a signal set of the size given; null asks for no details and no time limit.
    let signal = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            std::ptr::null_mut::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            SIGSET_SIZE,
        )
    };
    if signal < 0 { Err(last_error()) } else { i32::try_from(signal).map_err(|_| Errno::INVAL) }
}

/// Sends any signal, the real-time ones included (`kill(2)`).
pub fn kill(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: integers alone.
    done(unsafe { libc::syscall(libc::SYS_kill, pid.as_raw_nonzero().get(), signal) })
}

/// One instruction of a filter.
pub type Instruction = libc::sock_filter;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (Linux 5.0).
pub const NEW_LISTENER: u32 = 8;

/// Filters the system calls of the calling thread and its children from here on (`seccomp(2)`);
/// `flags` are `SECCOMP_FILTER_FLAG_*`. With [`NEW_LISTENER`] it gives the listener.
pub fn set_seccomp_filter(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions, which the kernel copies and never writes.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 {
        return Err(last_error());
    }
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: with this flag the call returns a descriptor that the kernel has just made, and nothing
    // else knows of it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The working directory as the kernel names it, without the zero byte (`getcwd(2)`).
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    if length < 0 {
        return Err(last_error());
    }
    let length = usize::try_from(length).unwrap_or(0).saturating_sub(1);
    buffer.get(..length).ok_or(Errno::RANGE)
}

/// Brings up the loopback device of the current network namespace (`SIOCSIFFLAGS`, netdevice(7)).
pub fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is a plain struct of integers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    done(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// The user namespace of a process (`PIDFD_GET_USER_NAMESPACE`, Linux 6.11).
pub fn user_namespace_of(pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const PIDFD_GET_USER_NAMESPACE: libc::c_ulong = 0xff09;
    // SAFETY: this request takes no argument and returns a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFD_GET_USER_NAMESPACE, 0) };
    if fd < 0 {
        return Err(last_error());
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The `CLONE_NEW*` bit of the namespace that a file stands for (`NS_GET_NSTYPE` of ioctl_ns(2)).
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> Result<u64, Errno> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument and returns a number.
    let kind = unsafe { libc::syscall(libc::SYS_ioctl, namespace.as_raw_fd(), NS_GET_NSTYPE, 0) };
    if kind < 0 { Err(last_error()) } else { u64::try_from(kind).map_err(|_| Errno::INVAL) }
}

/// Enters new namespaces, without the user namespace and without sharing tables of descriptors
/// (`unshare(2)` with `CLONE_NEW*`).
pub fn unshare_namespaces(flags: u64) -> Result<(), Errno> {
    // SAFETY: integers alone. The flags are those of namespaces: no table of descriptors that a
    // thread of ours relies on is taken apart, which is what makes `unshare` unsafe.
    done(unsafe { libc::syscall(libc::SYS_unshare, flags & NAMESPACES) })
}

const NAMESPACES: u64 = 0x7e02_0080;

/// Enters namespaces of the process that `target` is a pidfd of (`setns(2)`, Linux 5.8).
pub fn enter_namespaces(target: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    // SAFETY: integers alone.
    done(unsafe { libc::syscall(libc::SYS_setns, target.as_raw_fd(), flags) })
}

/// Sets the supplementary groups of the calling thread (`setgroups(2)`).
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: `groups` points to as many ids as are given.
    done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// Closes a descriptor that this process has only inherited a copy of.
///
/// For a child that shares nothing with the owner any more, and never returns to code that uses it.
pub fn close_copy(fd: BorrowedFd<'_>) {
    // SAFETY: the table of descriptors is the child's own copy, and the owner, who would close it a
    // second time, is in the parent.
    unsafe { libc::syscall(libc::SYS_close, fd.as_raw_fd()) };
}
