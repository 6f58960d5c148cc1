//! Runs a script: the parent's lane here, the child's lane in the child.

use super::script::{ChildOp, Failure, Lane, ParentOp, Report, Script};
use crate::sys::{self, Errno};
use rustix::process::Pid;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The three descriptors that the command starts with.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// A child that is on its way to its program.
#[derive(Debug)]
pub struct Launched {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Readable when the child has executed its program (end of file) or has failed; see
    /// [`read_report`].
    pub report: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// An operation of the parent's lane failed; the child has been killed and reaped.
    #[error("{words}")]
    Operation { failure: Failure, words: String },
    #[error("{what}")]
    Prepare {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Starts what the script describes and returns without waiting for the child to execute.
///
/// `seccomp` is a memfd with a filter as raw BPF. To be called by a process with one thread and
/// little memory: the child starts as a copy of it.
pub fn launch(script: &Script, stdio: Stdio<'_>, seccomp: Option<BorrowedFd<'_>>) -> Result<Launched, LaunchError> {
    let _ = seccomp;
    let prepare = |what| move |errno: Errno| LaunchError::Prepare { what, source: errno.into() };
    let ParentOp::Clone { namespaces, cgroup: _ } = &script.parent[0];
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(prepare("making a socket pair"))?;
    let ChildOp::Execute(program) = &script.child[0];
    let argv = sys::Pointers::new(program.argv.iter().map(super::Text::as_c_str));
    let env = sys::Pointers::new(program.env.iter().map(super::Text::as_c_str));
    let request = sys::Request { namespaces: *namespaces, cgroup: None };
    let cloned = sys::clone3(request, || {
        let _ = rustix::stdio::dup2_stdin(stdio.stdin);
        let _ = rustix::stdio::dup2_stdout(stdio.stdout);
        let _ = rustix::stdio::dup2_stderr(stdio.stderr);
        let mut errno = Errno::NOENT;
        for candidate in &program.candidates {
            errno = sys::execve(candidate.as_c_str(), &argv, &env);
        }
        let _ = rustix::io::write(&theirs, &[0u32.to_ne_bytes(), errno.raw_os_error().to_ne_bytes()].concat());
        sys::exit(255)
    })
    .map_err(prepare("cloning"))?;
    Ok(Launched { pid: cloned.pid, pidfd: cloned.pidfd, report: ours })
}

/// Reads what came of the child. Blocks until there is something, unless `report` is non-blocking:
/// then `WouldBlock` means "not yet".
pub fn read_report(report: BorrowedFd<'_>) -> io::Result<Report> {
    let mut record = [0; 8];
    match rustix::io::read(report, &mut record)? {
        0 => Ok(Report::Executed),
        8 => {
            let (operation, errno) = record.split_at(4);
            let number = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
            let errno = number(errno).cast_signed();
            Ok(Report::Failed(Failure { lane: Lane::Child, operation: number(operation), errno }))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
