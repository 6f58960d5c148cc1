//! Finds PID 1 of a container that another keeper started.
//!
//! A number from a file is a rumour: a process counts only while it is in the container's cgroup, and
//! that is looked at again once a pidfd holds it, because a PID may be used anew in between.

use super::protocol::Whereabouts;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The container's first process, and a pidfd of it.
pub(super) fn find(at: &Whereabouts) -> Option<(Pid, OwnedFd)> {
    at.cgroups.iter().find_map(|group| find_in(group, at.pid))
}

fn find_in(group: &Path, remembered: Option<u32>) -> Option<(Pid, OwnedFd)> {
    let pid = choose(&members(group), remembered)?;
    let found = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let pidfd = pidfd_open(found, PidfdFlags::empty()).ok()?;
    (choose(&members(group), remembered) == Some(pid)).then_some((found, pidfd))
}

/// PID 1 of the outermost namespace below ours; in a container without one, the process remembered.
fn choose(pids: &[u32], remembered: Option<u32>) -> Option<u32> {
    let inner = |pid: &u32| {
        let numbers = namespace_pids(*pid)?;
        (numbers.len() > 1 && numbers.last() == Some(&1)).then_some(numbers.len())
    };
    // An exec'ed shell may have namespaces and so first processes of its own: the remembered one wins.
    let first = pids.iter().filter_map(|pid| Some((inner(pid)?, remembered != Some(*pid), *pid))).min();
    first.map(|(.., pid)| pid).or_else(|| remembered.filter(|pid| pids.contains(pid)))
}

/// All processes in the cgroup and below it.
fn members(group: &Path) -> Vec<u32> {
    // A cgroup may go while we look; what is left of it then is nothing.
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&entry.path()));
        }
    }
    pids
}

/// `NSpid` of `/proc/PID/status`: its numbers from our namespace inwards (proc_pid_status(5)).
fn namespace_pids(pid: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|number| number.parse().ok()).collect()
}
