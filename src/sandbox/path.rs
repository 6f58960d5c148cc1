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
            let made = if make_last(root, path, kind)? { resolve_as(root, path, more) } else { Err(Errno::NOENT) };
            match made {
                Err(Errno::NOENT) => {
                    make(root, path, kind)?;
                    resolve_as(root, path, more)?
                }
                result => result?,
            }
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
    let path = Path::of(&[path])?;
    let path = if path.bytes().is_empty() { c"/" } else { path.text()? };
    mount_point(root, path, Kind::Directory, Link::Follow)
}

/// The usual case: only the last part of a path is missing. Whether it is so.
fn make_last(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<bool, Errno> {
    let Ok((parent, name)) = split(path) else { return Ok(false) };
    if parent.is_empty() || matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Ok(false);
    }
    match resolve(root, Path::of(&[parent])?.text()?) {
        Err(Errno::NOENT) => Ok(false),
        parent => make_one(&parent?, name.to_bytes(), kind).map(|()| true),
    }
}

/// A link that leads to nothing stands for its place: that is made, inside like everything else.
fn make(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Result<(), Errno> {
    let mut now = Path::of(&[path.to_bytes()])?;
    // As many as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        match make_along(root, now.bytes(), kind)? {
            None => return Ok(()),
            Some(next) => now = next,
        }
    }
    Err(Errno::LOOP)
}

/// Makes what is missing of a path, up to a link that leads to nothing: then the path that it stands for.
fn make_along(root: BorrowedFd<'_>, bytes: &[u8], kind: Kind) -> Result<Option<Path>, Errno> {
    let mut prefix = Path::of(&[])?;
    let mut parent = resolve(root, c".")?;
    let mut from = 0;
    while let Some(start) = (from..bytes.len()).find(|at| bytes.get(*at) != Some(&b'/')) {
        let end = (start..bytes.len()).find(|at| bytes.get(*at) == Some(&b'/')).unwrap_or(bytes.len());
        let (Some(slashes), Some(name), Some(rest)) = (bytes.get(from..start), bytes.get(start..end), bytes.get(end..))
        else {
            return Err(Errno::INVAL);
        };
        let before = prefix.length;
        prefix.push(slashes)?;
        prefix.push(name)?;
        let found = match resolve(root, prefix.text()?) {
            Err(Errno::NOENT) => {
                let last = rest.iter().all(|byte| *byte == b'/');
                make_one(&parent, name, if last { kind } else { Kind::Directory })?;
                resolve(root, prefix.text()?)
            }
            result => result,
        };
        parent = match found {
            Err(Errno::NOENT) => {
                let mut buffer = [0; 4096];
                let name = Path::of(&[name])?;
                let length = rustix::fs::readlinkat_raw(&parent, name.text()?, &mut buffer)?;
                let target = buffer.get(..length).filter(|target| target.len() < buffer.len());
                let target = target.ok_or(Errno::NAMETOOLONG)?;
                let before = bytes.get(..before).filter(|_| !target.starts_with(b"/")).unwrap_or_default();
                return Path::of(&[before, b"/", target, rest]).map(Some);
            }
            result => result?,
        };
        from = end;
    }
    Ok(None)
}

/// A path that is put together where nothing may be allocated, with a zero byte at its end.
struct Path {
    bytes: [u8; 4096],
    length: usize,
}

impl Path {
    fn of(parts: &[&[u8]]) -> Result<Self, Errno> {
        let mut path = Self { bytes: [0; 4096], length: 0 };
        parts.iter().try_for_each(|part| path.push(part))?;
        Ok(path)
    }

    fn push(&mut self, part: &[u8]) -> Result<(), Errno> {
        let end =
            self.length.checked_add(part.len()).filter(|end| *end < self.bytes.len()).ok_or(Errno::NAMETOOLONG)?;
        self.bytes.get_mut(self.length..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
        self.length = end;
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn text(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_with_nul(self.bytes.get(..=self.length).ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)
    }
}

fn make_one(parent: &OwnedFd, name: &[u8], kind: Kind) -> Result<(), Errno> {
    let name = Path::of(&[name])?;
    let name = name.text()?;
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
