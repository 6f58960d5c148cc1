//! Control files: opened relative to a directory, read and written in one piece each.

use crate::sys::may_die;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// What a control file says, without the line end.
///
/// Nearly every answer fits in the first read; the kernel gives a whole one per read(2).
pub(super) fn read(dir: BorrowedFd<'_>, path: &str) -> Result<String, Errno> {
    let file = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_open(&file)
}

/// As [`read`], from the start of an open file.
pub(super) fn read_open(file: &OwnedFd) -> Result<String, Errno> {
    let mut first = [0_u8; 4096];
    let mut length = rustix::io::pread(file, &mut first, 0)?;
    if length < first.len() {
        return Ok(text(&first[..length]));
    }
    let mut all = first.to_vec();
    let mut more = vec![0_u8; 65_536];
    loop {
        // cgroup.procs answers in pages, so the end is an empty read and not a short one.
        let offset = u64::try_from(length).unwrap_or(u64::MAX);
        match rustix::io::pread(file, &mut more, offset)? {
            0 => return Ok(text(&all)),
            got => {
                all.extend_from_slice(&more[..got]);
                length += got;
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Writes in one write(2); a control file is never made by this.
pub(super) fn write(dir: BorrowedFd<'_>, path: &str, value: &str) -> Result<(), Errno> {
    write_open(&open_to_write(dir, path)?, value)
}

pub(super) fn open_to_write(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn write_open(file: &OwnedFd, value: &str) -> Result<(), Errno> {
    // An empty write never reaches the file's handler; a line end means "nothing" to cpuset.
    let value = if value.is_empty() { "\n" } else { value };
    loop {
        match rustix::io::write(file, value.as_bytes()) {
            Ok(_) => {
                may_die("cgroup written");
                return Ok(());
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A directory as a place to open things from.
pub(super) fn open_dir(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, path, flags, Mode::empty())
}

/// Makes a directory; whether it is new.
pub(super) fn make_dir(dir: BorrowedFd<'_>, path: &str) -> Result<bool, Errno> {
    match rustix::fs::mkdirat(dir, path, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            may_die("cgroup made");
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names of all entries, or of the directories alone.
pub(super) fn names(dir: BorrowedFd<'_>, path: &str, which: Entries) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = rustix::fs::openat(dir, path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(open)? {
        let entry = entry?;
        let is_dir = entry.file_type() == FileType::Directory;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." && (is_dir == (which == Entries::Directories)) {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    Directories,
    Files,
}

/// The number after `key` in a file of `key number` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
