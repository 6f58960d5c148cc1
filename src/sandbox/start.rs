//! A child that waits for its start.
//!
//! It listens on a socket. Who starts it connects, says so with one byte, and learns
//! over the same connection what came of it. Both sides see the other's end: a child that is gone
//! refuses the connection, and one whose starter goes away in between ends.

use super::{Failure, Report, read_report};
use crate::sys::Errno;
use rustix::net::SendFlags;
use rustix::process::Pid;
use std::io;
use std::os::fd::BorrowedFd;

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

/// Lets the child `pid` go on; `connection` is one to its socket. Returns when it is its program.
pub fn start(connection: BorrowedFd<'_>, pid: Pid) -> Result<(), StartError> {
    match rustix::net::send(connection, &[1], SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(StartError::Gone),
        Err(errno) => return Err(StartError::Socket(errno.into())),
    }
    match read_report(connection, pid) {
        Ok(Report::Executed) => Ok(()),
        Ok(Report::Ended) => Err(StartError::Gone),
        Ok(Report::Failed(failure)) => Err(StartError::Failed(failure)),
        Ok(Report::Waiting) => Err(StartError::Socket(io::ErrorKind::InvalidData.into())),
        Err(error) => Err(StartError::Socket(error)),
    }
}
