//! What pidfds can do and nobody else wraps.

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How the process of a pidfd ended, as wait(2) encodes it, whoever its parent is (Linux 6.15).
///
/// `None` while it runs, and after its end until its parent has collected it. The pidfd must have
/// been opened before that. An older kernel answers with an error or, for ever, with `None`.
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    // SAFETY: pidfd_info is a plain struct of integers, for which all zeroes is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the request reads and writes one pidfd_info, whose size is part of its number, and
    // `info` is one that lives through the call.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(super::last_error());
    }
    Ok((info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code))
}

/// Sends any signal, the real-time ones included (`pidfd_send_signal(2)`, Linux 5.1).
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers alone, and a null pointer, for which the kernel fills in what kill(2) would.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    if result < 0 { Err(super::last_error()) } else { Ok(()) }
}

/// The process that made the other end of a unix socket: that has connected, or that listens there
/// (`SO_PEERPIDFD` of unix(7), Linux 6.5). `SRCH` when it is gone and collected, whoever else has a copy of
/// its descriptor; `NOPROTOOPT` where the kernel does not tell.
pub fn peer_process(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut fd: libc::c_int = -1;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the option is one int; `fd` and its length are that, and outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    match if result < 0 { Err(super::last_error()) } else { Ok(fd) } {
        // How Linux 6.5 to 6.15 says it.
        Err(Errno::INVAL) => Err(Errno::SRCH),
        Err(errno) => Err(errno),
        // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

const SO_PEERPIDFD: libc::c_int = 77;
