//! Which directory a source is: so that an empty mount point is not taken for a directory whose files
//! were deleted.

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// A directory of this boot, where it is mounted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub device: u64,
    pub inode: u64,
    mount: u64,
    pub lasting: Lasting,
}

/// What is known of a directory when the agent, or the whole host, has been started anew: numbers of
/// devices and mounts are others then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lasting {
    /// `f_type` of statfs(2).
    kind: i64,
    /// `f_fsid` of statvfs(3): of the file system's own number where it has one.
    filesystem: u64,
    inode: u64,
}

impl Place {
    pub fn of(root: &OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(root)?;
        let found = rustix::fs::statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        let kind = rustix::fs::fstatfs(root)?.f_type;
        let filesystem = rustix::fs::fstatvfs(root)?.f_fsid;
        let lasting = Lasting { kind, filesystem, inode: stat.st_ino };
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, mount: found.stx_mnt_id, lasting })
    }

    /// The same file system in the same place, or at least the very same directory: after an unmount
    /// neither is, after a remount the second is.
    pub fn is_as(self, other: Self) -> bool {
        self.mount == other.mount || (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Lasting {
    /// A file system of the same number, or one of the same kind with the same directory: not every kind has
    /// a number that lasts.
    pub fn is_as(self, other: Self) -> bool {
        self.kind == other.kind && (self.filesystem == other.filesystem || self.inode == other.inode)
    }
}
