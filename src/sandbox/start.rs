//! Launching what was said explicitly, and a child that waits for its start.
//!
//! A child that waits listens on a socket. Who starts it connects, says so with one byte, and learns
//! over the same connection what came of it. Both sides see the other's end: a child that is gone
//! refuses the connection, and one whose starter goes away in between ends.

use super::child::Io;
use super::launch::{LaunchError, Launched, Means, Stdio, run};
use super::overlay::Way;
use super::{Failure, Report, Script, read_report};
use crate::sys::{self, Errno};
use rustix::net::SendFlags;
use rustix::process::Pid;
use std::io;
use std::os::fd::BorrowedFd;

/// Where the program's input and output go.
#[derive(Debug, Clone, Copy)]
pub enum ExplicitIo<'a> {
    Stdio(Stdio<'a>),
    /// A unix stream socket: the terminal's master is sent over it with one byte (`SCM_RIGHTS`).
    Terminal {
        console: BorrowedFd<'a>,
    },
}

impl<'a> From<ExplicitIo<'a>> for Io<'a> {
    fn from(io: ExplicitIo<'a>) -> Self {
        match io {
            ExplicitIo::Stdio(Stdio { stdin, stdout, stderr }) => Self::Descriptors([stdin, stdout, stderr]),
            ExplicitIo::Terminal { console } => Self::Terminal { console },
        }
    }
}

/// As [`super::launch`]; `listener` is the socket for a child that waits.
///
/// The calling process may be in other namespaces afterwards: it is one that does nothing else.
pub fn launch_explicit(
    script: &Script,
    io: ExplicitIo<'_>,
    listener: Option<BorrowedFd<'_>>,
    seccomp: Option<BorrowedFd<'_>>,
) -> Result<Launched, LaunchError> {
    run(script, Means { io: io.into(), target: None, listener, seccomp, way: Way::Any })
}

/// Starts another program in the container that `target`, a pidfd of its first process, is in.
///
/// Without a pid namespace of the container's own, `target`'s is the caller's, and entering it changes nothing.
pub fn launch_explicit_exec(
    script: &Script,
    target: BorrowedFd<'_>,
    io: ExplicitIo<'_>,
    seccomp: Option<BorrowedFd<'_>>,
) -> Result<Launched, LaunchError> {
    let enter = |errno: Errno| LaunchError::Prepare {
        what: "entering the container's pid namespace",
        source: io::Error::from(errno),
    };
    sys::enter_namespaces(target, super::Namespace::Pid.bit()).map_err(enter)?;
    run(script, Means { io: io.into(), target: Some(target), listener: None, seccomp, way: Way::Any })
}

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
