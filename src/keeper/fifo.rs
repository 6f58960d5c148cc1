//! The FIFO that is a container's standard output or error.
//!
//! Both sides hold it open for reading and writing: the container never gets `SIGPIPE` when its
//! keeper dies, and another keeper opens it again and reads on (fifo(7)).

use super::lines::Lines;
use super::log::Log;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What one read takes at most: as much as a FIFO holds by default.
pub(super) const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    fd: OwnedFd,
    lines: Lines,
}

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub(super) struct FifoError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: Errno,
}

impl Fifo {
    /// Makes it for the container's user, in place of what a former life has left there.
    pub fn make(path: &Path, stream: &'static str, uid: u32, gid: u32) -> Result<Self, FifoError> {
        let failed = |doing| move |source| FifoError { doing, path: path.to_owned(), source };
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("removing what stands at")(errno)),
        }
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).map_err(failed("making the FIFO"))?;
        let fifo = Self::open(path, stream)?;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::fchown(&fifo.fd, owner.0, owner.1).map_err(failed("giving away the FIFO"))?;
        Ok(fifo)
    }

    /// Opens one that a former keeper made.
    pub fn open(path: &Path, stream: &'static str) -> Result<Self, FifoError> {
        let fd = open(path, OFlags::NONBLOCK)?;
        Ok(Self { path: path.to_owned(), fd, lines: Lines::new(stream) })
    }

    /// One that another program had open, and the line that it has begun to read.
    pub fn resume(path: PathBuf, fd: OwnedFd, stream: &'static str, begun: Vec<u8>) -> Self {
        Self { path, fd, lines: Lines::resume(stream, begun) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn begun(&self) -> &[u8] {
        self.lines.begun()
    }

    /// A descriptor for the container. A file description of its own, because ours does not block
    /// and the container's must.
    pub fn for_container(&self) -> Result<OwnedFd, FifoError> {
        open(&self.path, OFlags::empty())
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Moves what one read gives into the log; false when there was nothing.
    pub fn pump(&mut self, log: &mut Log, buffer: &mut Buffer) -> bool {
        // Any error here is "nothing to read" (EAGAIN) or lasts: the descriptor is ours and open.
        let Ok(count @ 1..) = rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut buffer.chunk[..])) else {
            return false;
        };
        buffer.records.clear();
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let records = self.lines.split(&buffer.chunk[..count], &time, &mut buffer.records);
        if records > 0 {
            log.append(&buffer.records, records);
        }
        true
    }

    /// Empties it and ends its last line, for a container whose process has ended. Whoever else still
    /// writes to it is not waited for.
    pub fn drain(&mut self, log: &mut Log, buffer: &mut Buffer) {
        // A FIFO holds no more than this by default, and one that is longer was made so to keep us here.
        for _ in 0..16 {
            if !self.pump(log, buffer) {
                break;
            }
        }
        buffer.records.clear();
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let records = self.lines.finish(&time, &mut buffer.records);
        if records > 0 {
            log.append(&buffer.records, records);
        }
    }

    /// Takes it off the file system.
    pub fn remove(self) {
        // Gone already is as good, and what else could happen would happen to the next start, which says so.
        let _ = rustix::fs::unlink(&self.path);
    }
}

fn open(path: &Path, extra: OFlags) -> Result<OwnedFd, FifoError> {
    let failed = |source| FifoError { doing: "opening the FIFO", path: path.to_owned(), source };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | extra;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let mode = rustix::fs::fstat(&fd).map_err(failed)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Fifo {
        return Err(failed(Errno::INVAL));
    }
    Ok(fd)
}

/// Memory for reading and writing that all streams share.
#[derive(Debug)]
pub(super) struct Buffer {
    chunk: Box<[u8]>,
    records: Vec<u8>,
}

impl Buffer {
    pub fn new() -> Self {
        Self { chunk: vec![0; CHUNK].into_boxed_slice(), records: Vec::new() }
    }
}
