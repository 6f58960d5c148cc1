//! How a process ended, from its pidfd.

use super::protocol::Exit;
use crate::spec::Timestamp;
use crate::sys;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs;
use std::os::fd::BorrowedFd;
use std::time::SystemTime;

/// What a pidfd that became readable says.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ended like this, and there is nothing more to learn of it.
    As(Exit),
    /// Not our child: its parent has yet to collect it, and the kernel tells the code only after that.
    Uncollected,
    /// It has not ended.
    NotYet,
}

/// How the process of a readable pidfd ended. A child of `ours` is collected; any other is a container
/// that another keeper started.
pub(super) fn collect(pid: u32, pidfd: BorrowedFd<'_>, ours: bool) -> Ended {
    if !ours {
        let told = sys::pidfd_exit_status(pidfd);
        return match (told, uncollected(pid, pidfd)) {
            (Ok(Some(status)), _) | (_, Some(status)) => Ended::As(decode(status)),
            (Ok(None), None) => Ended::Uncollected,
            // Before Linux 6.15 nobody tells.
            (Err(_), None) => Ended::As(unknown()),
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

/// The status of a process that has ended and that its parent has not collected (`exit_code` of
/// proc_pid_stat(5)). Some first processes take their time, and every kernel tells this.
fn uncollected(pid: u32, pidfd: BorrowedFd<'_>) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let status = fields.starts_with('Z').then(|| fields.split_whitespace().nth(49))??;
    // Only while it can be signalled, dead as it is, was the number its own all the time.
    sys::pidfd_kill(pidfd, 0).ok()?;
    status.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::os::fd::AsFd;
    use std::process::Command;

    /// A child that has ended and is not collected looks like one whose parent is slow.
    #[test]
    fn the_end_of_another_parents_child_is_known_before_and_after_it_is_collected() {
        for (command, code, signal) in [("exit 7", 7, None), ("kill -KILL $$", 137, Some(9))] {
            let mut child = Command::new("/bin/sh").args(["-c", command]).spawn().unwrap();
            let pid = child.id();
            let pidfd = pidfd_open(Pid::from_raw(pid.try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
            let ended = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut { ended }, nix::poll::PollTimeout::NONE).unwrap();

            let before = collect(pid, pidfd.as_fd(), false);
            child.wait().unwrap();
            let after = collect(pid, pidfd.as_fd(), false);

            let [before, after] = [before, after].map(|ended| match ended {
                Ended::As(exit) => (exit.code, exit.signal),
                other => panic!("{other:?}"),
            });
            assert_eq!(before, (Some(code), signal));
            // Before Linux 6.15 nobody tells any more.
            let told = sys::pidfd_exit_status(pidfd.as_fd()).is_ok();
            assert_eq!(after, if told { before } else { (None, None) });
        }
    }
}
