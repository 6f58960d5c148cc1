//! From a manifest's container to the sandbox's blueprint: defaults, names resolved, nothing touched.

use crate::sandbox::{
    self, Blueprint, Capabilities, CgroupJoin, CgroupView, ChangeRoot, Mount, Namespace, NewLine, Process, Root,
    SysView, usual_mounts,
};
use crate::spec::{Container, IdRange, InstanceId, MountSource, Network};
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
    /// What the container may have of what it asks for.
    pub capabilities: u64,
    pub seccomp: bool,
}

pub(super) fn blueprint(spec: &Container, prepared: Prepared<'_>) -> Blueprint {
    let Prepared { instance, root, ids, user, cgroup, cgroup_view, capabilities, seccomp } = prepared;
    let hostname = spec.hostname.as_ref().unwrap_or(&instance.name).to_string();
    let hosts_network = spec.network == Network::Host;
    let sys = if ids.is_some() && hosts_network { SysView::Hosts } else { SysView::Own };
    let mut mounts = usual_mounts(sys, &cgroup_view);
    mounts.extend(spec.mounts.iter().filter_map(|mount| self::mount(mount, ids.is_some())));
    Blueprint {
        root,
        mapped_root: ids.is_some(),
        root_with_mounts: false,
        read_only_root: spec.security.read_only_root,
        root_propagation: None,
        change_root: ChangeRoot::Pivot,
        clocks: String::new(),
        own: std::iter::once(Namespace::Pid).chain(namespaces(ids.is_some(), spec.network)).collect(),
        join: Vec::new(),
        ids: ids.map(Into::into),
        mounts,
        listed_in_order: false,
        nodes: Vec::new(),
        masked_paths: MASKED.map(str::to_owned).to_vec(),
        readonly_paths: READ_ONLY.map(str::to_owned).to_vec(),
        sysctl: Vec::new(),
        process: process(spec, user, &hostname, Allowed { capabilities, seccomp }),
        hostname: Some(hostname),
        domainname: None,
        init: spec.init,
        hooks: sandbox::Hooks::default(),
        wait: false,
        cgroup,
    }
}

/// Those that a container has of its own, and a command in it enters; beside its processes.
pub(super) fn namespaces(user_namespace: bool, network: Network) -> Vec<Namespace> {
    let mut own = vec![Namespace::Mount, Namespace::Uts, Namespace::Ipc, Namespace::Cgroup];
    own.extend(user_namespace.then_some(Namespace::User));
    match network {
        Network::None => own.push(Namespace::Net),
        Network::Host => {}
    }
    own
}

/// Root keeps its capabilities over `execve` by being root; others only by the ambient set, and only
/// what was asked for by name (capabilities(7), "Transformation of capabilities during execve()").
fn ambient(spec: &Container, uid: u32) -> u64 {
    let capabilities = &spec.security.capabilities;
    let added = capabilities.add.iter().fold(0, |mask, capability| mask | capability.mask());
    if uid == 0 { 0 } else { added & capabilities.mask() }
}

/// What a process may have of what it asks for.
pub(super) struct Allowed {
    pub capabilities: u64,
    pub seccomp: bool,
}

pub(super) fn process(spec: &Container, user: &ResolvedUser, hostname: &str, allowed: Allowed) -> Process {
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
        limits: Vec::new(),
        capabilities: Capabilities::of(allowed.capabilities, ambient(spec, user.uid)),
        no_new_privileges: spec.security.no_new_privileges,
        seccomp: allowed.seccomp,
        seccomp_flags: 0,
        oom_score_adj: Some(0),
        nice: Some(0),
        terminal: None,
        new_line: NewLine::WithReturn,
        keep_descriptors: Vec::new(),
        attributes: sandbox::Attributes::default(),
    }
}

fn mount(mount: &crate::spec::Mount, mapped: bool) -> Option<Mount> {
    let at = mount.path.to_string();
    Some(match mount.source()? {
        MountSource::Host(from) => sandbox::bound(&from.to_string(), &at, mount.read_only, mapped),
        MountSource::Tmpfs(size) => sandbox::scratch(&at, size.0, 0o1777, mount.read_only),
    })
}
