//! A child that waits for its start.
//!
//! It listens on a socket. Who starts it connects, says so with one byte, and learns
//! over the same connection what came of it. Both sides see the other's end: a child that is gone
//! refuses the connection, and one whose starter goes away in between ends.

use super::{Failure, Report, read_report};
use crate::sys::Errno;
use rustix::net::SendFlags;
use rustix::process::{Pid, PidfdGetfdFlags};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Why a child that waited did not become its program.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the container has ended")]
    Gone,
    #[error("operation {} of the container failed", .0.operation)]
    Failed(Failure),
    #[error("speaking to the container")]
    Socket(#[source] io::Error),
}

/// Lets the child go on; `connection` is one to its socket. Returns when it is its program. `listener`
/// as in [`hear`].
pub fn start(
    connection: BorrowedFd<'_>,
    child: (Pid, BorrowedFd<'_>),
    listener: impl FnMut(OwnedFd) -> io::Result<()>,
) -> Result<(), StartError> {
    match rustix::net::send(connection, &[1], SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(StartError::Gone),
        Err(errno) => return Err(StartError::Socket(errno.into())),
    }
    match hear(connection, child, |_| Ok(()), listener) {
        Ok(Report::Executed) => Ok(()),
        Ok(Report::Ended) => Err(StartError::Gone),
        Ok(Report::Failed(failure)) => Err(StartError::Failed(failure)),
        Ok(Report::Waiting | Report::Listener(_)) => Err(StartError::Socket(io::ErrorKind::InvalidData.into())),
        Err(error) => Err(StartError::Socket(error)),
    }
}

/// As [`super::read_report`], and gives the listener of the child's filter away before the child goes
/// on, which does not end here. `child` is its number and a pidfd. `ready` is called with `report` before
/// each read and returns when there is something, or with the error to give up with.
///
/// When `listener` fails, the child still stands before its program: its end is the caller's affair.
pub fn hear(
    report: BorrowedFd<'_>,
    (pid, pidfd): (Pid, BorrowedFd<'_>),
    mut ready: impl FnMut(BorrowedFd<'_>) -> io::Result<()>,
    mut listener: impl FnMut(OwnedFd) -> io::Result<()>,
) -> io::Result<Report> {
    loop {
        ready(report)?;
        let number = match read_report(report, pid)? {
            Report::Listener(number) => number,
            other => return Ok(other),
        };
        // Taken rather than sent: the child can do with read(2) and write(2), as it is under the filter.
        let number = number.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        listener(rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())?)?;
        match rustix::net::send(report, &[1], SendFlags::NOSIGNAL) {
            // It has ended meanwhile, which the next look tells.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
