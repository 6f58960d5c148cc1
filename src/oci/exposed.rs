//! What of the host would be in a container's reach without a pivot, where the host's mounts stay below
//! the root.
//!
//! A proc or sysfs that nothing hides a part of lets a process with a user namespace of its own mount
//! another such one (mount_namespaces(7)), around the masks and read-only paths of the container's.

use std::path::Path;

/// The mount points of those in a list of mounts (`/proc/self/mountinfo`), but for what is below `root`.
/// What is mounted last comes first.
pub(super) fn bare(mountinfo: &str, root: &Path) -> Vec<String> {
    let bare = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let [top, at] = mount.split(' ').skip(3).take(2).collect::<Vec<_>>().try_into().ok()?;
        let kind = file_system.split(' ').next()?;
        (top == "/" && matches!(kind, "proc" | "sysfs")).then(|| plain(at))
    };
    let mut found: Vec<String> = mountinfo.lines().filter_map(bare).collect();
    found.retain(|at| !Path::new(at).starts_with(root));
    found.reverse();
    found
}

/// Without the kernel's `\040` for a space, and the like.
fn plain(escaped: &str) -> String {
    let mut parts = escaped.split('\\');
    let mut path = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match (part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()), part.get(3..)) {
            (Some(byte), Some(rest)) => {
                path.push(byte);
                path.extend_from_slice(rest.as_bytes());
            }
            _ => path.extend_from_slice(part.as_bytes()),
        }
    }
    String::from_utf8_lossy(&path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_proc_or_sysfs_outside_of_the_root_is_found() {
        let mountinfo = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
                         24 22 0:22 / /proc rw,nosuid shared:2 - proc proc rw\n\
                         25 24 0:22 /sys /proc/sys ro,nosuid - proc proc rw\n\
                         26 22 0:23 / /sys rw,nosuid shared:3 - sysfs sysfs rw\n\
                         27 22 0:24 / /srv/my\\040jail/proc rw - proc none rw\n\
                         28 22 0:25 / /bundle/rootfs/proc rw - proc none rw\n\
                         29 26 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

        let found = bare(mountinfo, Path::new("/bundle/rootfs"));

        assert_eq!(found, ["/srv/my jail/proc", "/sys", "/proc"]);
    }
}
