//! A copy of a tree of somebody else's, by descriptors alone: no link in it is followed.
//!
//! For `tmpcopyup`. Owners, modes and times of change are kept; sockets are left out, and two names of
//! one file become two files.

use crate::sys::Errno;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Copies what is in a directory, and how that is owned; nothing where there is none.
pub(super) fn contents(from: Result<OwnedFd, Errno>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let from = match from {
        Err(Errno::NOENT) => return Ok(()),
        from => from?,
    };
    let from = rustix::fs::openat(&from, c".", DIRECTORY, Mode::empty())?;
    let to = rustix::fs::openat(to, c".", DIRECTORY, Mode::empty())?;
    directory(from.as_fd(), to.as_fd(), 0)
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Each level holds two descriptors.
const DEEPEST: u32 = 128;

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    if depth > DEEPEST {
        return Err(Errno::LOOP);
    }
    for entry in rustix::fs::Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times(&stat))
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let nsec = |value: u64| i64::try_from(value).unwrap_or(0);
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nsec(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nsec(stat.st_mtime_nsec) },
    }
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let inner = rustix::fs::openat(from, name, DIRECTORY, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, DIRECTORY, Mode::empty())?;
            directory(inner.as_fd(), copy.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = File::from(rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?);
            let copied = std::io::copy(&mut File::from(source), &mut &copy);
            copied.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
            rustix::fs::fchown(&copy, owner.0, owner.1)?;
            rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            rustix::fs::futimens(copy.as_fd(), &times(&stat))
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        }
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
        }
        _ => Ok(()),
    }
}
