//! The bytes of one file, and whether they are all of it.

use super::WINDOW;
use crate::manifest;
use crate::source::trust::Judge;
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An empty file has this long to become something before it is called empty.
pub(super) const EMPTY_WINDOW: Duration = Duration::from_secs(1);
/// A file that somebody has open for writing, and has changed within this time, is not taken for whole.
const OPEN_WINDOW: Duration = Duration::from_secs(5);
/// A FIFO would otherwise wait for its writer, and a terminal become ours.
pub(super) const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Device, inode, size, mtime and ctime: what changes when a file does.
pub(super) type Stamp = (u64, u64, i64, i64, i64, i64, i64);

pub(super) fn stamp(stat: &Stat) -> Stamp {
    let nanos = |nanos| i64::try_from(nanos).unwrap_or(0);
    (
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        nanos(stat.st_mtime_nsec),
        stat.st_ctime,
        nanos(stat.st_ctime_nsec),
    )
}

/// What a file held when it was looked at.
pub(super) struct FileBytes {
    pub(super) bytes: Vec<u8>,
    pub(super) stamp: Stamp,
    /// It was written to while it was read.
    changed: bool,
    written: Option<SystemTime>,
    /// As `written`, where a program that keeps times cannot set it: of the inode's last change.
    touched: Option<SystemTime>,
    /// Somebody has it open for writing.
    open: bool,
}

impl FileBytes {
    /// Reads all of an opened file that may be believed.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(super) fn read(opened: OwnedFd, judge: &mut Judge<'_>) -> Result<Self, String> {
        let failed = |error: Errno| format!("cannot be read: {}", io::Error::from(error));
        let first = rustix::fs::fstat(&opened).map_err(failed)?;
        let kind = FileType::from_raw_mode(first.st_mode);
        if kind != FileType::RegularFile {
            return Err(format!("is {}, not a regular file", named(kind)));
        }
        judge.check(first.st_uid, first.st_gid, first.st_mode).map_err(|reason| reason.to_string())?;
        let too_large = || format!("is larger than {} KiB", manifest::MAX_FILE_BYTES >> 10);
        if usize::try_from(first.st_size).is_ok_and(|size| size > manifest::MAX_FILE_BYTES) {
            return Err(too_large());
        }
        let mut file = File::from(opened);
        let mut bytes = Vec::with_capacity(usize::try_from(first.st_size).unwrap_or(0) + 1);
        let limit = u64::try_from(manifest::MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        file.by_ref().take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() > manifest::MAX_FILE_BYTES {
            return Err(too_large());
        }
        let last = rustix::fs::fstat(file.as_fd()).map_err(failed)?;
        let written = time(last.st_mtime, last.st_mtime_nsec);
        let touched = time(last.st_ctime, last.st_ctime_nsec);
        // Asked last: what was read before it is all that there was.
        let open = crate::sys::is_open_for_writing(file.as_fd()).unwrap_or(false);
        Ok(Self { bytes, stamp: stamp(&last), changed: stamp(&first) != stamp(&last), written, touched, open })
    }

    /// How long to wait before what was read can be taken for the whole. Whoever has it open for writing
    /// ends the wait by closing it.
    pub(super) fn unsettled(&self, now: SystemTime) -> Option<Duration> {
        // A clock that was set back leaves times in the future: those are no news.
        let left = |at: Option<SystemTime>, window: Duration| {
            let age = at.and_then(|at| now.duration_since(at).ok())?;
            window.checked_sub(age).filter(|left| !left.is_zero())
        };
        let open = self.open.then(|| left(self.touched, OPEN_WINDOW)).flatten();
        let fresh = left(self.written, if self.bytes.is_empty() { EMPTY_WINDOW } else { WINDOW });
        open.or(fresh).or(self.changed.then_some(WINDOW))
    }
}

pub(super) fn time(seconds: i64, nanos: u64) -> Option<SystemTime> {
    let nanos = u32::try_from(nanos).unwrap_or(0);
    u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::new(seconds, nanos))
}

/// Why it cannot be opened, as the end of a sentence.
pub(super) fn cannot_open(error: Errno) -> String {
    match error {
        Errno::XDEV => String::from("is a link that leads out of the directory"),
        Errno::NOENT => String::from("is a link to nothing"),
        Errno::LOOP => String::from("is a link in a circle"),
        Errno::NXIO => String::from("is a socket or a device, not a regular file"),
        error => format!("cannot be opened: {}", io::Error::from(error)),
    }
}

fn named(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::RegularFile | FileType::Unknown => "something unknown",
    }
}
