//! From a manifest's container to the sandbox's blueprint: defaults, names resolved, nothing touched.

use crate::sandbox::{BindMount, Blueprint, CgroupJoin, CgroupView, MountPlan, Process, Root, TmpfsMount};
use crate::spec::{Container, IdRange, InstanceId, MountSource};
use crate::storage::ResolvedUser;

/// Kernel interfaces that tell of the host or reach into it, hidden as Docker and Podman hide them.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is known about an instance once its parts are prepared.
pub(super) struct Prepared<'a> {
    pub instance: &'a InstanceId,
    pub root: Root,
    pub ids: Option<IdRange>,
    pub user: &'a ResolvedUser,
    pub cgroup: CgroupJoin,
    pub cgroup_view: CgroupView,
    pub stdout: String,
    pub stderr: String,
    /// What the container may have of what it asks for.
    pub capabilities: u64,
    pub seccomp: bool,
}

pub(super) fn blueprint(spec: &Container, prepared: Prepared<'_>) -> Blueprint {
    let Prepared { instance, root, ids, user, cgroup, cgroup_view, stdout, stderr, capabilities, seccomp } = prepared;
    let hostname = spec.hostname.as_ref().unwrap_or(&instance.name).to_string();
    Blueprint {
        root,
        read_only_root: spec.security.read_only_root,
        ids,
        network: spec.network,
        mounts: spec.mounts.iter().filter_map(mount_plan).collect(),
        masked_paths: MASKED.map(str::to_owned).to_vec(),
        readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
        process: process(spec, user, &hostname),
        hostname,
        capabilities,
        ambient: ambient(spec, user.uid),
        no_new_privileges: spec.security.no_new_privileges,
        seccomp,
        init: spec.init,
        oom_score_adj: 0,
        cgroup,
        cgroup_view,
        stdout,
        stderr,
    }
}

/// Root keeps its capabilities over `execve` by being root; others only by the ambient set, and only
/// what was asked for by name (capabilities(7), "Transformation of capabilities during execve()").
pub(super) fn ambient(spec: &Container, uid: u32) -> u64 {
    let capabilities = &spec.security.capabilities;
    let added = capabilities.add.iter().fold(0, |mask, capability| mask | capability.mask());
    if uid == 0 { 0 } else { added & capabilities.mask() }
}

pub(super) fn process(spec: &Container, user: &ResolvedUser, hostname: &str) -> Process {
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{}={value}", name.as_str())).collect();
    let defaults = [
        PATH.to_owned(),
        format!("HOME={}", user.home),
        format!("HOSTNAME={hostname}"),
        "container=plimsoll".to_owned(),
    ];
    for default in defaults {
        let name = default.split_once('=').map_or("", |(name, _)| name);
        if !spec.env.keys().any(|given| given.as_str() == name) {
            env.push(default);
        }
    }
    Process {
        argv: spec.command.iter().chain(&spec.args).cloned().collect(),
        env,
        cwd: spec.working_dir.to_string(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        umask: 0o022,
    }
}

fn mount_plan(mount: &crate::spec::Mount) -> Option<MountPlan> {
    let at = mount.path.to_string();
    Some(match mount.source()? {
        MountSource::Host(from) => {
            MountPlan::Bind(BindMount { from: from.to_string(), at, read_only: mount.read_only })
        }
        MountSource::Tmpfs(size) => {
            MountPlan::Tmpfs(TmpfsMount { at, size_bytes: size.0, read_only: mount.read_only, mode: 0o1777 })
        }
    })
}
