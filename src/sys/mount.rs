//! The parts of the mount interface that `rustix` lacks.

use super::{Errno, last_error};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What is to change about a mount (`mount_setattr(2)`).
#[derive(Debug, Clone, Copy, Default)]
pub struct MountChange<'a> {
    pub read_only: bool,
    /// What is mounted below shows nowhere else, and nothing from elsewhere shows here.
    pub private: bool,
    /// Ids of the file system are taken for ids inside this user namespace.
    pub idmap: Option<BorrowedFd<'a>>,
    pub recursive: bool,
    /// More `MOUNT_ATTR_*` bits.
    pub set: u64,
    pub clear: u64,
    /// One of `MS_PRIVATE`, `MS_SHARED`, `MS_SLAVE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
}

/// Changes attributes of the mount that `mount` is the root of (`mount_setattr(2)`, Linux 5.12).
pub fn mount_setattr(mount: BorrowedFd<'_>, change: MountChange<'_>) -> Result<(), Errno> {
    let MountChange { read_only, private, idmap, recursive, set, clear, propagation } = change;
    let mut attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    if read_only {
        attr.attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    if private {
        attr.propagation = libc::MS_PRIVATE;
    }
    if let Some(namespace) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string that ends with a zero byte, `attr` is of the size given
    // and outlives the call, and the descriptors are borrowed for its length.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}
