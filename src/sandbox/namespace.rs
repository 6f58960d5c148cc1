//! Namespaces of others, by the files that stand for them.

use super::{IdExtent, IdMaps, Namespace};
use crate::sys::{self, Errno};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Which kind the namespace is that the file at `path` stands for; `None` for another file.
pub fn kind_of(path: &str) -> io::Result<Option<Namespace>> {
    match sys::namespace_kind(open(path)?.as_fd()) {
        Ok(bit) => Ok(Namespace::ALL.into_iter().find(|namespace| namespace.bit() == bit)),
        Err(Errno::NOTTY | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn open(path: &str) -> Result<OwnedFd, Errno> {
    // One that is a FIFO or a device must not make us wait.
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

/// The ids of the user namespace that the file at `path` stands for.
///
/// They are told to who is in it: a child goes there, and reads what it then sees of itself.
pub fn maps_of(path: &str) -> io::Result<IdMaps> {
    let namespace = open(path)?;
    let (uids, uid_lines) = std::io::pipe()?;
    let (gids, gid_lines) = std::io::pipe()?;
    let child = sys::clone3(sys::Request::default(), || {
        let pass = || {
            sys::enter_namespaces(namespace.as_fd(), Namespace::User.bit())?;
            tell(c"/proc/self/uid_map", &uid_lines)?;
            tell(c"/proc/self/gid_map", &gid_lines)
        };
        sys::exit(pass().err().map_or(0, Errno::raw_os_error));
    })?;
    drop((uid_lines, gid_lines));
    let ended = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
    })?;
    match ended.and_then(|status| status.exit_status()) {
        Some(0) => Ok(IdMaps { uids: extents(uids)?, gids: extents(gids)? }),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// In the child. The kernel's text has at most 340 lines of 33 bytes, which a pipe holds.
fn tell(file: &std::ffi::CStr, to: impl AsFd) -> Result<(), Errno> {
    let file = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0; 4096];
    loop {
        let read = rustix::io::read(&file, &mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { return Ok(()) };
        rustix::io::write(&to, part)?;
    }
}

fn extents(from: impl Into<OwnedFd>) -> io::Result<Vec<IdExtent>> {
    let mut text = String::new();
    File::from(from.into()).read_to_string(&mut text)?;
    let extent = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        match numbers.as_slice() {
            [inside, outside, size] => Some(IdExtent { inside: *inside, outside: *outside, size: *size }),
            _ => None,
        }
    };
    text.lines().map(extent).collect::<Option<_>>().ok_or_else(|| io::ErrorKind::InvalidData.into())
}
