//! The mounts of running containers, so that one that somebody takes away is missed.

use crate::spec::{InstanceId, Object, RestartPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// `CAP_SYS_ADMIN`, which mounts and unmounts.
const SYS_ADMIN: u64 = 1 << 21;

/// What was mounted when each of them was first looked at.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    known: Mutex<BTreeMap<InstanceId, Known>>,
}

#[derive(Debug)]
struct Known {
    pid: u32,
    there: BTreeSet<String>,
}

impl Mounts {
    /// What has gone of the mounts that the manifest asked for, since this was first asked of the process.
    ///
    /// Nothing is missed of a container that may unmount by itself, nor of one that is never started again:
    /// there is no other way to bring it back.
    pub fn missed(&self, instance: &InstanceId, pid: u32, started_from: &Object) -> Option<String> {
        let spec = &started_from.spec;
        let by_itself = spec.security.capabilities.mask() & SYS_ADMIN != 0;
        if spec.mounts.is_empty() || by_itself || spec.restart.policy == RestartPolicy::Never {
            return None;
        }
        // Its process has just ended, or the file system of processes is busy: nothing is known then.
        let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?;
        let there = points(&table);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.entry(instance.clone()).or_insert_with(|| Known { pid, there: BTreeSet::new() });
        if before.pid != pid || before.there.is_empty() {
            // A path that leads through a link has another name there, and is not watched.
            let asked = spec.mounts.iter().map(|mount| escaped(mount.path.as_str()));
            *before = Known { pid, there: asked.filter(|path| there.contains(path.as_str())).collect() };
            return None;
        }
        let gone = before.there.iter().find(|path| !there.contains(path.as_str()))?;
        Some(format!("the mount at {gone} was taken away"))
    }

    /// Of an instance that is no more.
    pub fn forget(&self, instance: &InstanceId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }
}

/// The mount points in a table (proc_pid_mountinfo(5), field 5), as they stand there.
fn points(table: &str) -> BTreeSet<&str> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).collect()
}

/// A path as the table has it: spaces, tabs, line ends and backslashes as octal numbers.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            ' ' => text.push_str("\\040"),
            '\t' => text.push_str("\\011"),
            '\n' => text.push_str("\\012"),
            '\\' => text.push_str("\\134"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_found_as_the_kernel_writes_it() {
        let table = "36 35 98:0 /a /mnt\\040one\\134x rw,noatime master:1 - ext3 /dev/root rw\n22 1 0:5 / /proc rw - proc proc rw\n";

        assert!(points(table).contains(escaped("/mnt one\\x").as_str()));
        assert!(points(table).contains("/proc") && !points(table).contains("/a"));
    }
}
