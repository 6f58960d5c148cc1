//! Takes away what a test run that was killed has left: it asks nothing of the programs under test,
//! so that whatever state they died in cannot stop the next run.

use crate::fixture::{HOME, MARK, alive, cgroup_mounts, inner, try_signal};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A killed process is gone before that, or nothing ends it.
const KILL: Duration = Duration::from_secs(10);

/// Every root whose test run is no more.
pub fn sweep() {
    for entry in fs::read_dir(HOME).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(MARK) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(owner).exists() {
            take_away(&path);
        }
    }
}

/// Ends what runs below a root and removes its cgroups, its mounts and its directory.
fn take_away(dir: &Path) {
    // The agent and its keeper first: they would start again what ends.
    let root = dir.join("root");
    let own = format!("{}\0", root.display());
    end(|| processes_with(&own));
    let parent = plimsoll::host::Paths::new(Some(&root)).unwrap().cgroup_parent;
    for mount in cgroup_mounts() {
        let mut groups = vec![mount.join(parent.trim_start_matches('/'))];
        inner(&groups[0].clone(), &mut groups);
        for group in &groups {
            // What is frozen cannot end, in a v1 hierarchy.
            drop(fs::write(group.join("freezer.state"), "THAWED"));
        }
        end(|| groups.iter().flat_map(|group| pids_in(group)).collect());
        for group in groups.iter().rev().filter(|group| group.exists()) {
            drop(fs::remove_dir(group));
        }
    }
    for target in mounts_below(dir).iter().rev() {
        let _may_be_gone = umount2(target, MntFlags::MNT_DETACH);
    }
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("{}: what a killed test run left cannot be removed: {error}", dir.display());
    }
}

/// Kills until there is none.
fn end(mut which: impl FnMut() -> Vec<u32>) {
    let deadline = Instant::now() + KILL;
    loop {
        let pids: Vec<u32> = which().into_iter().filter(|pid| alive(*pid)).collect();
        if pids.is_empty() || Instant::now() > deadline {
            return;
        }
        pids.iter().for_each(|pid| try_signal(*pid, "KILL"));
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The processes that have a root as a word of their command line.
fn processes_with(root: &str) -> Vec<u32> {
    let words = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| String::from_utf8_lossy(&words(*pid)).contains(root)).collect()
}

fn pids_in(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // Zero is a process of another pid namespace.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|at| at.starts_with(dir))
        .collect()
}
