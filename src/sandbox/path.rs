//! Paths inside a root that somebody else has filled.
//!
//! Every path is resolved by the kernel with the root as its `/` (`RESOLVE_IN_ROOT`), so that no
//! symbolic link leads out, and what is missing is made relative to the descriptor of its parent.
//! Safe between `clone` and `exec`.

use super::guard::{self, Guard};
use crate::sys::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a mount point has to be for a mount to fit onto it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        Ok(if kind == FileType::Directory { Self::Directory } else { Self::File })
    }
}

/// What a symbolic link as the last part of a mount point means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// The place that it leads to, inside the root.
    Follow,
    /// An error.
    Refuse,
    /// The link itself is mounted over.
    Itself,
}

/// What is at `path` inside `root`.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    resolve_as(root, path, OFlags::empty())
}

fn resolve_as(root: BorrowedFd<'_>, path: &CStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | more;
    let mut within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut path = path;
    if guard::is_out(Guard::InRoot) {
        // As who joins the two as text and opens that.
        within = ResolveFlags::empty();
        while let Some(rest) = path.to_bytes_with_nul().strip_prefix(b"/") {
            path = CStr::from_bytes_with_nul(rest).map_err(|_| Errno::INVAL)?;
        }
        if path.is_empty() {
            path = c".";
        }
    }
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), within) {
            // A rename or mount elsewhere raced with a `..` of the path (openat2(2)).
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
}

/// As [`resolve`], and what is missing of the path is made, directories up to the last part.
pub(super) fn mount_point(root: BorrowedFd<'_>, path: &CStr, kind: Kind, link: Link) -> Result<OwnedFd, Errno> {
    let link = if link == Link::Refuse && guard::is_out(Guard::RealDirectory) { Link::Follow } else { link };
    let more = if link == Link::Follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let place = match resolve_as(root, path, more) {
        Err(Errno::NOENT) => {
            if !make_last(root, path, kind)? {
                make(root, path, kind)?;
            }
            resolve_as(root, path, more)?
        }
        result => result?,
    };
    if link == Link::Refuse && FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    Ok(place)
}

/// The path of the directory that `path` is in, and the last part of `path`.
pub(super) fn split(path: &CStr) -> Result<(&[u8], &CStr), Errno> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
    let (directory, name) = (bytes.get(..slash), bytes.get(slash + 1..));
    let name = CStr::from_bytes_with_nul(name.ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)?;
    Ok((directory.ok_or(Errno::INVAL)?, name))
}

/// The directory at `path`, made if it is missing.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut buffer = [0u8; 4096];
    buffer.get_mut(..path.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(path);
    let path = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
    mount_point(root, if path.is_empty() { c"/" } else { path }, Kind::Directory, Link::Follow)
}

/// The usual case: only the last part of a path is missing. Whether it is so.
fn make_last(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<bool, Errno> {
    let Ok((parent, name)) = split(path) else { return Ok(false) };
    let mut buffer = [0u8; 4096];
    let Some(to) = buffer.get_mut(..parent.len()).filter(|to| !to.is_empty()) else { return Ok(false) };
    to.copy_from_slice(parent);
    let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Ok(false);
    }
    match resolve(root, parent) {
        Err(Errno::NOENT) => Ok(false),
        parent => make_one(&parent?, name, kind).map(|()| true),
    }
}

fn make(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<(), Errno> {
    let bytes = path.to_bytes();
    let mut prefix = [0u8; 4096];
    let mut parent = resolve(root, c".")?;
    let mut from = 0;
    while let Some(start) = (from..bytes.len()).find(|at| bytes.get(*at) != Some(&b'/')) {
        let end = (start..bytes.len()).find(|at| bytes.get(*at) == Some(&b'/')).unwrap_or(bytes.len());
        // The path up to here, with a zero byte behind it: what came before is in the buffer already.
        let (Some(to), Some(part)) = (prefix.get_mut(from..end), bytes.get(from..end)) else {
            return Err(Errno::NAMETOOLONG);
        };
        to.copy_from_slice(part);
        *prefix.get_mut(end).ok_or(Errno::NAMETOOLONG)? = 0;
        let so_far = CStr::from_bytes_with_nul(prefix.get(..=end).ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)?;
        let name = CStr::from_bytes_with_nul(prefix.get(start..=end).ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)?;
        match resolve(root, so_far) {
            Err(Errno::NOENT) => {
                let last = bytes.get(end..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'/'));
                make_one(&parent, name, if last { kind } else { Kind::Directory })?;
                parent = resolve(root, so_far)?;
            }
            result => parent = result?,
        }
        from = end;
    }
    Ok(())
}

fn make_one(parent: &OwnedFd, name: &CStr, kind: Kind) -> Result<(), Errno> {
    let made = match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        // A dangling link, or somebody was faster: the caller resolves again and sees.
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
