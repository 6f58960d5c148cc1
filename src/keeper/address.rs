//! Socket addresses for paths of any length.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::os::fd::AsRawFd;
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
