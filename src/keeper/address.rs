//! Socket addresses for paths of any length, and who is behind a socket.

use crate::sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The kernel takes 107 bytes (unix(7)).
const LONGEST: usize = 107;

/// Calls `work` with the address of `path`. A long one goes through a descriptor of its directory.
pub(super) fn with<T>(path: &Path, work: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>) -> Result<T, Errno> {
    if path.as_os_str().len() <= LONGEST {
        return work(&SocketAddrUnix::new(path)?);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NAMETOOLONG) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    work(&SocketAddrUnix::new(&short)?)
}

/// A pidfd of the process that listens where `socket` is connected to; `SRCH` when that process is gone.
///
/// Its descriptors may be open all the same, and then nothing on the socket tells: a child in set-up has
/// copies of them all, and one that stands in a frozen cgroup keeps them.
pub(super) fn listener_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match sys::peer_process(socket) {
        // Before Linux 6.5. A number that another process has by now costs no more than the certainty.
        Err(Errno::NOPROTOOPT) => pidfd_open(sockopt::socket_peercred(socket)?.pid, PidfdFlags::empty()),
        result => result,
    }
}

/// Whether a process lives that listens at `path`.
pub(super) fn is_listened_at(path: &Path) -> bool {
    let living = || -> Result<bool, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        with(path, |address| rustix::net::connect(&socket, address))?;
        let process = listener_of(socket.as_fd())?;
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        Ok(poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0)
    };
    // Nobody there, or nobody any more. A full queue (EAGAIN) is one that nobody has served for long.
    living().unwrap_or(false)
}
