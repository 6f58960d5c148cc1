//! PID 1 of a container with `init: true`: passes signals on, reaps, and ends as the command ends.

use super::child::tell;
use super::launch::EXECUTED;
use crate::sys::{self, Errno};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

/// Every signal but those that a process can't take or that mean a fault of our own.
const FORWARDED: u64 =
    !(bit(libc::SIGSEGV) | bit(libc::SIGBUS) | bit(libc::SIGFPE) | bit(libc::SIGILL) | bit(libc::SIGTRAP));

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Returns in a child that is to become the command; the caller itself stays here for good.
///
/// It does not execute anything, so it remains a copy of the parent: not dumpable, and with no
/// descriptor beyond standard error.
pub(super) fn stay(channel: BorrowedFd<'_>) -> Result<(), Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Blocked before the child exists: a signal that comes now waits for the loop.
    sys::set_signal_mask(FORWARDED)?;
    match sys::fork()? {
        None => {
            sys::set_signal_mask(0)?;
            // Open until the command is executed or has ended; its number is not needed for that.
            let _ = writer.into_raw_fd();
            // The command is what a terminal's signals are for, and gets a group to send them to.
            ignoring_race(rustix::process::setpgid(None, None))
        }
        Some(command) => {
            drop(writer);
            sys::set_not_dumpable()?;
            if executes(command, reader.as_fd()) {
                tell(channel, EXECUTED, 0);
            }
            sys::close_from(0)?;
            supervise(command)
        }
    }
}

fn ignoring_race(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::PERM) => Ok(()),
        result => result,
    }
}

/// Waits until the command has become its program, or has ended before. The parent of us all can't
/// tell: it sees that nobody has its channel any more, and that we, its child, have executed nothing.
fn executes(command: Pid, reader: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    while let Err(Errno::INTR) = rustix::io::read(reader, &mut byte) {}
    // A child that has executed a program can't be moved to a group any more, ended or not (setpgid(2));
    // before, it is in that group already.
    rustix::process::setpgid(Some(command), Some(command)).is_err()
}

fn supervise(command: Pid) -> ! {
    loop {
        match sys::wait_for_signal(FORWARDED) {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap(command) {
                    sys::exit(code);
                }
            }
            // A command that has just ended is reaped in the next turn.
            Ok(signal) => drop(sys::kill(command, signal)),
            Err(_) => {}
        }
    }
}

/// Reaps all that have ended; the command's code if it is among them.
fn reap(command: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command {
            code = Some(exit_code(status));
        }
    }
    code
}

/// As a shell says it: 128 and the signal's number for one that was killed.
fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}
