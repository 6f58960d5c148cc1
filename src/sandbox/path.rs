//! Paths inside a root that somebody else has filled.
//!
//! Every path is resolved by the kernel with the root as its `/` (`RESOLVE_IN_ROOT`), so that no
//! symbolic link leads out, and what is missing is made relative to the descriptor of its parent.
//! Safe between `clone` and `exec`.

use super::guard::{self, Guard};
use crate::sys::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
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

/// What is at `path` inside `root`.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
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
pub(super) fn mount_point(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<OwnedFd, Errno> {
    match resolve(root, path) {
        Err(Errno::NOENT) => make(root, path, kind)?,
        result => return result,
    }
    resolve(root, path)
}

/// As [`mount_point`] for a file system of the kernel: its place in the root must be no link, or what
/// is mounted over `/proc` would be somewhere else (CVE-2019-19921).
pub(super) fn mount_point_of(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<OwnedFd, Errno> {
    let place = mount_point(root, path, kind)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let itself = rustix::fs::openat2(root, path, flags, Mode::empty(), within)?;
    let (place_is, itself_is) = (rustix::fs::fstat(&place)?, rustix::fs::fstat(&itself)?);
    let is_itself = (place_is.st_dev, place_is.st_ino) == (itself_is.st_dev, itself_is.st_ino);
    if is_itself || guard::is_out(Guard::RealDirectory) { Ok(place) } else { Err(Errno::LOOP) }
}

/// The directory that `path` is in, made if it is missing, and the last part of `path`.
pub(super) fn parent<'a>(root: BorrowedFd<'_>, path: &'a CStr) -> Result<(OwnedFd, &'a CStr), Errno> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').ok_or(Errno::INVAL)?;
    let name = CStr::from_bytes_with_nul(bytes.get(slash + 1..).ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)?;
    let mut directory = [0u8; 4096];
    directory.get_mut(..slash).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes.get(..slash).ok_or(Errno::INVAL)?);
    let directory = CStr::from_bytes_until_nul(&directory).map_err(|_| Errno::NAMETOOLONG)?;
    let directory = if directory.is_empty() { c"/" } else { directory };
    Ok((mount_point(root, directory, Kind::Directory)?, name))
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
