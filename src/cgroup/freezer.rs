//! Out of a v1 freezer that somebody else froze.

use super::detect::{Hierarchy, parse_mounts, read_path, write_path};
use super::error::CgroupError;
use super::table::{Controller, Version};

/// Lets processes that have been killed come to their end.
///
/// What is frozen in v1 does not die, and anyone with the right to may have moved a process into a frozen
/// cgroup of theirs. It goes to the root of that hierarchy, which is never frozen, and thaws there
/// (cgroup-v1/freezer-subsystem.rst); what else is in that cgroup stays as it is. Nothing happens to a
/// process that is not frozen, or that has ended meanwhile.
pub fn let_die(pids: impl IntoIterator<Item = u32>) -> Result<(), CgroupError> {
    let path_of = |pid: u32| {
        let text = read_path(&format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Some((pid, path_in_freezer(&text)?.to_owned()))
    };
    // Most are in none, and who ends many does not read all mounts for each.
    let inside: Vec<(u32, String)> = pids.into_iter().filter_map(path_of).collect();
    if inside.is_empty() {
        return Ok(());
    }
    let mounts = parse_mounts(&read_path("/proc/self/mountinfo")?);
    let is_it = |mount: &&Hierarchy| mount.version == Version::V1 && mount.controllers.contains(&Controller::Freezer);
    let Some(freezer) = mounts.iter().find(is_it) else { return Ok(()) };
    for (pid, path) in inside {
        let state = read_path(&format!("{}{path}/freezer.state", freezer.mount)).unwrap_or_default();
        if matches!(state.as_str(), "FROZEN" | "FREEZING") {
            match write_path(&format!("{}/cgroup.procs", freezer.mount), &pid.to_string()) {
                Err(CgroupError::Write { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Of the lines `number:controllers:path` in `/proc/PID/cgroup` (cgroups(7)); nothing for the root, which is
/// never frozen.
fn path_in_freezer(text: &str) -> Option<&str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (_, path) = lines.find(|(controllers, _)| controllers.split(',').any(|name| name == "freezer"))?;
    (path != "/").then_some(path)
}
