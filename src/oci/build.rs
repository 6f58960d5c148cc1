//! From a `config.json` to what the sandbox is to build. Pure, apart from asking which capabilities
//! there are to give.

use super::attributes::{self, Common, Modules, Moment};
use super::config::{self, Config, Invalid, NamespaceKind, RootPropagation};
use super::hooks;
use super::log;
use super::mounts::{self, Surroundings};
use crate::cgroup::place::Place;
use crate::sandbox::seccomp::{self, Profile};
use crate::sandbox::{
    self, Blueprint, CgroupJoin, IdExtent, IdMaps, Namespace, NewLine, Process, Propagation, PropagationKind,
    ResourceLimit, Root,
};
use crate::spec::Capability;
use std::path::Path;

pub(super) struct Context<'a> {
    pub bundle: &'a Path,
    pub place: &'a Place,
    pub wait: bool,
    pub keep_descriptors: Vec<u32>,
    pub common: Common,
    pub modules: Modules,
}

impl<'a> Context<'a> {
    /// For who only asks whether a configuration is taken.
    pub(super) fn nowhere(bundle: &'a Path, place: &'a Place) -> Self {
        Self {
            bundle,
            place,
            wait: false,
            keep_descriptors: Default::default(),
            common: Common::default(),
            modules: Modules::BOTH,
        }
    }
}

/// What a container with a configuration is.
pub(super) fn blueprint(config: &Config, context: &Context<'_>) -> Result<Blueprint, Invalid> {
    let Config { oci_version: _, root, mounts, process, hostname, domainname, annotations: _, linux, hooks } = config;
    let (own, join) = namespaces(&linux.namespaces)?;
    let root = root.as_ref().ok_or_else(|| Invalid::new("root", "missing"))?;
    let process = process.as_ref().ok_or_else(|| Invalid::new("process", "missing"))?;
    if hostname.as_ref().or(domainname.as_ref()).is_some_and(|name| !name.is_empty())
        && !own.contains(&Namespace::Uts)
        && !join.iter().any(|(namespace, _)| *namespace == Namespace::Uts)
    {
        return Err(Invalid::new("hostname", "takes a uts namespace of its own"));
    }
    let ids = ids(linux, own.contains(&Namespace::User))?;
    let around = Surroundings {
        bundle: context.bundle,
        devices: &linux.devices,
        place: context.place,
        own_cgroups: own.contains(&Namespace::Cgroup),
        user_namespace: ids.is_some(),
    };
    for (index, device) in linux.devices.iter().enumerate() {
        if !device.path.starts_with('/') || device.path.split('/').any(|part| part == "..") {
            return Err(Invalid::new(format!("linux.devices[{index}].path"), "not an absolute path"));
        }
    }
    let mounts::Planned { mut mounts, nodes } = mounts::plan(mounts, &around)?;
    attributes::label_mounts(&mut mounts, &linux.mount_label, context.modules)?;
    let path = context.bundle.join(&root.path);
    let given = Given {
        seccomp: linux.seccomp.is_some(),
        user_namespace: ids.is_some(),
        keep_descriptors: context.keep_descriptors.clone(),
        common: &context.common,
        modules: context.modules,
        moment: Moment::Create,
    };
    let process = self::process(process, "process", &given)?;
    let join_paths = context.place.join();
    Ok(Blueprint {
        root: Root::Directory { path: path.to_string_lossy().into_owned() },
        mapped_root: false,
        root_with_mounts: true,
        read_only_root: root.readonly,
        root_propagation: linux.rootfs_propagation.map(propagation),
        sysctl: sysctl(linux, &own, &join)?,
        own,
        join,
        hostname: hostname.clone().filter(|name| !name.is_empty()),
        domainname: domainname.clone().filter(|name| !name.is_empty()),
        mounts,
        nodes,
        masked_paths: absolute(&linux.masked_paths, "linux.maskedPaths")?,
        readonly_paths: absolute(&linux.readonly_paths, "linux.readonlyPaths")?,
        cgroup: CgroupJoin { unified: join_paths.unified, v1: join_paths.v1 },
        hooks: hooks::inside(hooks, &process.env),
        process,
        ids,
        init: false,
        wait: context.wait,
    })
}

/// All that is refused whatever else is asked for.
pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    let version = config.oci_version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    if !matches!(numbers.as_slice(), [Some(1), Some(0..=3), Some(_)]) {
        let what = format!("{:?} is not one of 1.0.0 to 1.3.x", config.oci_version);
        return Err(Invalid::new("ociVersion", what));
    }
    hooks::check(&config.hooks)?;
    let linux = &config.linux;
    linux.time_offsets.refuse("linux.timeOffsets")?;
    linux.net_devices.refuse("linux.netDevices")?;
    if let Some(profile) = &linux.seccomp {
        profile.flags.refuse("linux.seccomp.flags")?;
        profile.listener_path.refuse("linux.seccomp.listenerPath")?;
        profile.listener_metadata.refuse("linux.seccomp.listenerMetadata")?;
    }
    Ok(())
}

/// What a process has beside its own entry.
pub(super) struct Given<'a> {
    pub seccomp: bool,
    pub user_namespace: bool,
    pub keep_descriptors: Vec<u32>,
    pub common: &'a Common,
    pub modules: Modules,
    pub moment: Moment,
}

pub(super) fn process(from: &config::Process, place: &str, given: &Given<'_>) -> Result<Process, Invalid> {
    let invalid = |field: &str, what: String| Invalid::new(format!("{place}.{field}"), what);
    let config::Process {
        terminal,
        console_size,
        user,
        args,
        env,
        cwd,
        capabilities,
        rlimits,
        no_new_privileges,
        oom_score_adj,
        // Theirs.
        apparmor_profile: _,
        selinux_label: _,
        scheduler: _,
        io_priority: _,
        exec_cpu_affinity: _,
    } = from;
    let attributes = attributes::attributes(from, place, given.common, given.modules, given.moment)?;
    if args.is_empty() {
        return Err(invalid("args", "empty: there is no program".to_owned()));
    }
    if !cwd.starts_with('/') {
        return Err(invalid("cwd", format!("{cwd:?} is not an absolute path")));
    }
    if let Some(index) = env.iter().position(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err(invalid(&format!("env[{index}]"), "not of the form NAME=value".to_owned()));
    }
    if oom_score_adj.is_some_and(|value| !(-1000..=1000).contains(&value)) {
        return Err(invalid("oomScoreAdj", "not from -1000 to 1000".to_owned()));
    }
    let size = console_size.unwrap_or_default();
    let mut env = last_of_each(env);
    // An empty one counts as none, as everywhere.
    env.retain(|entry| entry != "HOME=");
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        // By number alone; what the image's passwd says is for who makes the configuration.
        env.push(if user.uid == 0 { "HOME=/root".to_owned() } else { "HOME=/".to_owned() });
    }
    Ok(Process {
        argv: args.clone(),
        env,
        cwd: cwd.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: user.umask.unwrap_or(0o022),
        limits: limits(rlimits, place)?,
        capabilities: capability_sets(capabilities.as_ref(), place, given.user_namespace),
        no_new_privileges: *no_new_privileges,
        seccomp: given.seccomp,
        oom_score_adj: *oom_score_adj,
        nice: None,
        terminal: terminal.then_some((size.height, size.width)),
        new_line: NewLine::Bare,
        keep_descriptors: given.keep_descriptors.clone(),
        attributes,
    })
}

/// Of several with the same name the last one counts.
fn last_of_each(env: &[String]) -> Vec<String> {
    let name = |entry: &String| entry.split_once('=').map_or_else(|| entry.clone(), |(name, _)| name.to_owned());
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|entry| seen.insert(name(entry))).cloned().collect();
    kept.reverse();
    kept
}

fn limits(rlimits: &[config::Rlimit], place: &str) -> Result<Vec<ResourceLimit>, Invalid> {
    /// In the order of their numbers (getrlimit(2)).
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let mut limits: Vec<ResourceLimit> = Vec::new();
    for (index, config::Rlimit { kind, hard, soft }) in rlimits.iter().enumerate() {
        let invalid = |field: &str, what: String| Invalid::new(format!("{place}.rlimits[{index}].{field}"), what);
        let name = kind.strip_prefix("RLIMIT_");
        let number = name.and_then(|name| NAMES.iter().position(|known| *known == name));
        let resource = number.and_then(|number| u32::try_from(number).ok());
        let resource = resource.ok_or_else(|| invalid("type", format!("{kind:?} is not a limit")))?;
        if soft > hard {
            return Err(invalid("soft", format!("{soft} is above the hard limit {hard}")));
        }
        if limits.iter().any(|limit| limit.resource == resource) {
            return Err(invalid("type", format!("{kind} is there twice")));
        }
        limits.push(ResourceLimit { resource, soft: *soft, hard: *hard });
    }
    Ok(limits)
}

/// What cannot be given is told and left out: the specification wants no refusal for it.
fn capability_sets(from: Option<&config::Capabilities>, place: &str, user_namespace: bool) -> sandbox::Capabilities {
    let Some(from) = from else { return sandbox::Capabilities::default() };
    // A user namespace has all there are; on the host nobody can give what he does not have.
    let there = if user_namespace { u64::MAX } else { our_capabilities() };
    let set = |list: &[String], name: &str| {
        let mut mask = 0;
        for (index, entry) in list.iter().enumerate() {
            let known = entry.strip_prefix("CAP_").filter(|short| Capability::ALL.contains(short));
            match known.and_then(|short| Capability::try_from(short.to_owned()).ok()) {
                Some(capability) => mask |= capability.mask(),
                None => log::warn(&format!("{place}.capabilities.{name}[{index}]: {entry:?} is not a capability")),
            }
        }
        mask
    };
    let within = |inner: u64, outer: u64, name: &str, what: &str| {
        for (number, capability) in Capability::ALL.iter().enumerate() {
            if inner & !outer & (1 << number) != 0 {
                log::warn(&format!("{place}.capabilities.{name}: CAP_{capability} is not {what}"));
            }
        }
        inner & outer
    };
    let bounding = set(&from.bounding, "bounding");
    let permitted = set(&from.permitted, "permitted");
    let effective = within(set(&from.effective, "effective"), permitted, "effective", "permitted");
    let inheritable = within(set(&from.inheritable, "inheritable"), bounding, "inheritable", "in the bounding set");
    let may = permitted & inheritable;
    let ambient = within(set(&from.ambient, "ambient"), may, "ambient", "both permitted and inheritable");
    sandbox::Capabilities {
        bounding: bounding & there,
        effective: effective & there,
        permitted: permitted & there,
        inheritable: inheritable & there,
        ambient: ambient & there,
    }
}

/// The bounding set of this process: `--privileged` of other tools names all that there are.
fn our_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

type Joined = Vec<(Namespace, String)>;

fn namespaces(entries: &[config::NamespaceEntry]) -> Result<(Vec<Namespace>, Joined), Invalid> {
    let (mut own, mut join) = (Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for (index, config::NamespaceEntry { kind, path }) in entries.iter().enumerate() {
        let at = format!("linux.namespaces[{index}]");
        if seen.contains(kind) {
            return Err(Invalid::new(format!("{at}.type"), "there twice"));
        }
        seen.push(*kind);
        let namespace = match kind {
            NamespaceKind::Pid => Namespace::Pid,
            NamespaceKind::Network => Namespace::Net,
            NamespaceKind::Mount => Namespace::Mount,
            NamespaceKind::Ipc => Namespace::Ipc,
            NamespaceKind::Uts => Namespace::Uts,
            NamespaceKind::User => Namespace::User,
            NamespaceKind::Cgroup => Namespace::Cgroup,
            NamespaceKind::Time => return Err(Invalid::new(format!("{at}.type"), "\"time\" is not supported yet")),
        };
        if path.is_empty() {
            own.push(namespace);
            continue;
        }
        if !path.starts_with('/') {
            return Err(Invalid::new(format!("{at}.path"), "not an absolute path"));
        }
        if matches!(namespace, Namespace::User | Namespace::Mount) {
            let what = "joining a user or mount namespace is not supported yet";
            return Err(Invalid::new(format!("{at}.path"), what));
        }
        join.push((namespace, path.clone()));
    }
    if !own.contains(&Namespace::Mount) {
        return Err(Invalid::new("linux.namespaces", "without a mount namespace is not supported"));
    }
    Ok((own, join))
}

fn ids(linux: &config::Linux, own: bool) -> Result<Option<IdMaps>, Invalid> {
    let extents = |mappings: &[config::IdMapping], name: &str| -> Result<Vec<IdExtent>, Invalid> {
        let extent = |mapping: &config::IdMapping| {
            let config::IdMapping { container, host, size } = *mapping;
            IdExtent { inside: container, outside: host, size }
        };
        let extents: Vec<IdExtent> = mappings.iter().map(extent).collect();
        for (index, IdExtent { inside, outside, size }) in extents.iter().enumerate() {
            if *size == 0 || inside.checked_add(*size).is_none() || outside.checked_add(*size).is_none() {
                return Err(Invalid::new(format!("linux.{name}[{index}].size"), format!("{size} does not fit")));
            }
        }
        if !extents.iter().any(|extent| extent.inside == 0) {
            return Err(Invalid::new(format!("linux.{name}"), "id 0 of the container is not mapped"));
        }
        Ok(extents)
    };
    match (own, linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty()) {
        (true, _) => {
            let uids = extents(&linux.uid_mappings, "uidMappings")?;
            let gids = extents(&linux.gid_mappings, "gidMappings")?;
            Ok(Some(IdMaps { uids, gids }))
        }
        (false, true) => Ok(None),
        (false, false) => Err(Invalid::new("linux.uidMappings", "take a user namespace of its own")),
    }
}

fn propagation(word: RootPropagation) -> Propagation {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    let (kind, recursive) = match word {
        RootPropagation::Private => (Private, false),
        RootPropagation::Rprivate => (Private, true),
        RootPropagation::Slave => (Slave, false),
        RootPropagation::Rslave => (Slave, true),
        RootPropagation::Shared => (Shared, false),
        RootPropagation::Rshared => (Shared, true),
        RootPropagation::Unbindable => (Unbindable, false),
        RootPropagation::Runbindable => (Unbindable, true),
    };
    Propagation { kind, recursive }
}

fn absolute(paths: &[String], place: &str) -> Result<Vec<String>, Invalid> {
    match paths.iter().position(|path| !path.starts_with('/')) {
        Some(index) => Err(Invalid::new(format!("{place}[{index}]"), "not an absolute path")),
        None => Ok(paths.to_vec()),
    }
}

/// Only what belongs to a namespace that is not the host's; everything else would change the host.
fn sysctl(linux: &config::Linux, own: &[Namespace], join: &Joined) -> Result<Vec<(String, String)>, Invalid> {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let has = |namespace| own.contains(&namespace) || join.iter().any(|(joined, _)| *joined == namespace);
    let mut writes = Vec::new();
    for (name, value) in &linux.sysctl {
        // As sysctl(8): the first of the two separators decides which one it is.
        let slashes = name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
        let file = if slashes {
            name.clone()
        } else {
            name.chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect()
        };
        let invalid = |what: &str| Invalid::new(format!("linux.sysctl[{name:?}]"), what);
        if file.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid("not the name of a setting"));
        }
        let namespace = if IPC.contains(&file.as_str()) || file.starts_with("fs/mqueue/") {
            Namespace::Ipc
        } else if file.starts_with("net/") {
            Namespace::Net
        } else if file == "kernel/domainname" {
            Namespace::Uts
        } else {
            return Err(invalid("not a setting of a namespace: it would change the host"));
        };
        if !has(namespace) {
            return Err(invalid("takes a namespace of its own: it would change the host"));
        }
        writes.push((format!("/proc/sys/{file}"), value.clone()));
    }
    Ok(writes)
}

/// The profile as the compiler takes it.
pub(super) fn profile(from: &config::Seccomp) -> Profile {
    let arch = |arch: &config::Arch| match arch {
        config::Arch::X8664 => seccomp::Arch::X8664,
        config::Arch::X86 => seccomp::Arch::X86,
        config::Arch::X32 => seccomp::Arch::X32,
        config::Arch::Aarch64 => seccomp::Arch::Aarch64,
        config::Arch::Arm => seccomp::Arch::Arm,
        config::Arch::Other => seccomp::Arch::Other,
    };
    Profile {
        default_action: from.default_action,
        default_errno_ret: from.default_errno_ret,
        architectures: from.architectures.iter().map(arch).collect(),
        arch_map: Vec::new(),
        syscalls: from.syscalls.clone(),
    }
}
