//! How a process ended, from its pidfd.

use super::protocol::Exit;
use crate::spec::Timestamp;
use crate::sys;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::BorrowedFd;
use std::time::SystemTime;

/// What a pidfd that became readable says.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ended like this, and there is nothing left of it.
    As(Exit),
    /// Not our child: its parent has yet to collect it, and the kernel tells the code only after that.
    Uncollected,
    /// It has not ended.
    NotYet,
}

/// Collects a child. `ours` is false for a container that another keeper started.
pub(super) fn collect(pidfd: BorrowedFd<'_>, ours: bool) -> Ended {
    if !ours {
        return match sys::pidfd_exit_status(pidfd) {
            Ok(Some(status)) => Ended::As(decode(status)),
            Ok(None) => Ended::Uncollected,
            // Before Linux 6.15 nobody tells.
            Err(_) => Ended::As(unknown()),
        };
    }
    match rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)) {
        Ok(None) | Err(Errno::AGAIN) => Ended::NotYet,
        Ok(Some(status)) => Ended::As(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => exit(Some(code), None),
            (None, Some(signal)) => exit(Some(128 + signal), Some(signal)),
            (None, None) => unknown(),
        }),
        Err(_) => Ended::As(unknown()),
    }
}

/// An end that nobody saw.
pub(super) fn unknown() -> Exit {
    exit(None, None)
}

/// A status as wait(2) encodes it.
fn decode(status: i32) -> Exit {
    match status & 0x7f {
        0 => exit(Some((status >> 8) & 0xff), None),
        signal => exit(Some(128 + signal), Some(signal)),
    }
}

fn exit(code: Option<i32>, signal: Option<i32>) -> Exit {
    Exit { code, signal, at: now() }
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
