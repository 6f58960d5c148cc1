//! What a program that has to end has left running.
//!
//! A process group holds those alone that stay in it. Who is the reaper of its descendants finds all of them:
//! those whose parents have ended are its own children then (`PR_SET_CHILD_SUBREAPER`, prctl(2)).

use crate::sys::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::HashMap;

/// From now on descendants whose parents have ended are our children.
pub(super) fn take_orphans() -> Result<(), Errno> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// Enough for everything but a program that makes processes faster than they are killed.
const ROUNDS: u32 = 100;

/// Kills a child of ours and all that may have come of it: what descends from it, and our other children
/// that are not older than it, with theirs. It is not reaped.
pub(super) fn kill_since(child: Pid) {
    let us = rustix::process::getpid();
    for _ in 0..ROUNDS {
        let all = processes();
        let Some(since) = all.get(&child).map(|process| process.start) else { return };
        let comes_of_it = |pid: Pid| {
            let mut at = pid;
            // As many steps as there are processes, should a number have been given anew while we looked.
            for _ in 0..all.len() {
                let Some(process) = all.get(&at) else { return false };
                if at == child {
                    return true;
                }
                match process.parent {
                    Some(parent) if parent == us => return process.start >= since,
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
            false
        };
        let mut killed = false;
        for (pid, process) in &all {
            if !process.has_ended && comes_of_it(*pid) {
                killed |= kill(*pid, process.start);
            }
        }
        if !killed {
            return;
        }
        std::thread::yield_now();
    }
}

struct Process {
    parent: Option<Pid>,
    /// In clock ticks since the host's start.
    start: u64,
    has_ended: bool,
}

/// All that can be seen, by proc_pid_stat(5).
fn processes() -> HashMap<Pid, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    numbers.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: Pid) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let has_ended = matches!(*fields.first()?, "Z" | "X");
    let parent = Pid::from_raw(fields.get(1)?.parse().ok()?);
    Some(Process { parent, start: fields.get(19)?.parse().ok()?, has_ended })
}

/// Whether there was such a process.
fn kill(pid: Pid, start: u64) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // The number may be another one's by now.
    let is_it = process(pid).is_some_and(|process| process.start == start);
    is_it && rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}
