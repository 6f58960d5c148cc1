//! From a `config.json` to what the sandbox is to build. Nothing is touched; asked is which capabilities
//! there are to give, and what the files are that it names: namespaces, and sources of mounts.

use super::attributes::{self, Common, Modules, Moment};
use super::config::{self, Config, Invalid, NamespaceKind, RootPropagation};
use super::hooks;
use super::log;
use super::mounts::{self, Surroundings};
use super::netdevices;
use super::seccomp;
use crate::cgroup::place::Place;
use crate::sandbox::{
    self, Blueprint, CgroupJoin, ChangeRoot, IdExtent, IdMaps, Namespace, NewLine, Process, Propagation,
    PropagationKind, ResourceLimit, Root,
};
use crate::spec::Capability;
use std::path::Path;

/// An annotation: ids of the root's files are those inside, as for a mount with `idmap`, for which the
/// specification has no field.
pub(super) const MAPPED_ROOT: &str = "plimsoll.rootfs.idmap";

fn is_root_mapped(config: &Config) -> bool {
    !config.linux.uid_mappings.is_empty() && config.annotations.get(MAPPED_ROOT).is_some_and(|value| value == "true")
}

pub(super) struct Context<'a> {
    pub bundle: &'a Path,
    pub place: &'a Place,
    pub wait: bool,
    pub keep_descriptors: Vec<u32>,
    pub common: Common,
    pub modules: Modules,
    pub change_root: ChangeRoot,
}

/// What a configuration becomes.
pub(super) struct Built {
    pub blueprint: Blueprint,
    /// For each mount of the blueprint the one of the configuration that it is for.
    pub origins: Vec<usize>,
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
            change_root: ChangeRoot::Pivot,
        }
    }
}

/// What a container with a configuration is.
pub(super) fn blueprint(config: &Config, context: &Context<'_>) -> Result<Built, Invalid> {
    let Config { oci_version: _, root, mounts, process, hostname, domainname, annotations: _, linux, hooks } = config;
    let (own, join) = namespaces(&linux.namespaces)?;
    let root = root.as_ref().ok_or_else(|| Invalid::new("root", "missing"))?;
    let process = process.as_ref().ok_or_else(|| Invalid::new("process", "missing"))?;
    if hostname.as_ref().or(domainname.as_ref()).is_some_and(|name| !name.is_empty())
        && !has(&own, &join, Namespace::Uts)
    {
        return Err(Invalid::new("hostname", "takes a uts namespace of its own"));
    }
    let joined = join.iter().find(|(namespace, _)| *namespace == Namespace::User);
    let ids = ids(linux, own.contains(&Namespace::User), joined.map(|(_, path)| path.as_str()))?;
    if let Some(ids) = &ids {
        mapped(&process.user, ids)?;
    }
    if !linux.net_devices.is_empty() && !has(&own, &join, Namespace::Net) {
        return Err(Invalid::new("linux.netDevices", "take a network namespace: they are the host's already"));
    }
    let settings = sysctl(config, &own, &join)?;
    let clocks = clocks(linux, own.contains(&Namespace::Time))?;
    let mounts: &[config::Mount] = if has(&own, &join, Namespace::Mount) {
        mounts
    } else {
        without_mounts(config)?;
        &[]
    };
    let path = context.bundle.join(&root.path);
    let around = Surroundings {
        bundle: context.bundle,
        root: &path,
        devices: &linux.devices,
        place: context.place,
        own_cgroups: own.contains(&Namespace::Cgroup),
        ids: ids.as_ref(),
    };
    for (index, device) in linux.devices.iter().enumerate() {
        if !device.path.starts_with('/') || device.path.split('/').any(|part| part == "..") {
            return Err(Invalid::new(format!("linux.devices[{index}].path"), "not an absolute path"));
        }
    }
    let mounts::Planned { mut mounts, nodes, origins } = mounts::plan(mounts, &around)?;
    attributes::label_mounts(&mut mounts, &linux.mount_label, context.modules);
    let given = Given {
        seccomp: linux.seccomp.as_ref().map(seccomp::flags),
        user_namespace: ids.is_some(),
        keep_descriptors: context.keep_descriptors.clone(),
        common: &context.common,
        modules: context.modules,
        moment: Moment::Create,
    };
    let process = self::process(process, "process", &given)?;
    let join_paths = context.place.join();
    let blueprint = Blueprint {
        root: Root::Directory { path: path.to_string_lossy().into_owned() },
        mapped_root: is_root_mapped(config),
        root_with_mounts: true,
        read_only_root: root.readonly,
        root_propagation: linux.rootfs_propagation.map(propagation),
        change_root: context.change_root.clone(),
        sysctl: settings.writes,
        own,
        join,
        hostname: hostname.clone().filter(|name| !name.is_empty()),
        domainname: domainname.clone().filter(|name| !name.is_empty()).or(settings.domainname),
        mounts,
        listed_in_order: true,
        nodes,
        masked_paths: absolute(&linux.masked_paths, "linux.maskedPaths")?,
        readonly_paths: absolute(&linux.readonly_paths, "linux.readonlyPaths")?,
        cgroup: CgroupJoin { unified: join_paths.unified, v1: join_paths.v1 },
        hooks: {
            let hooks = hooks::inside(hooks, &process.env);
            // They come in when it waits.
            sandbox::Hooks { wait: hooks.wait || !linux.net_devices.is_empty(), ..hooks }
        },
        process,
        ids,
        clocks,
        init: false,
        wait: context.wait,
    };
    Ok(Built { blueprint, origins })
}

/// In the host's own mount namespace there is a root to change to, and nothing is mounted. What would
/// only be missed is left out, and what would have protected something is refused.
fn without_mounts(config: &Config) -> Result<(), Invalid> {
    if !config.mounts.is_empty() {
        log::warn("mounts: left out: there is no mount namespace, and they would be the host's");
    }
    let refused = [
        (!config.linux.masked_paths.is_empty(), "linux.maskedPaths"),
        (!config.linux.readonly_paths.is_empty(), "linux.readonlyPaths"),
        (config.linux.rootfs_propagation.is_some(), "linux.rootfsPropagation"),
    ];
    match refused.into_iter().find(|(asks, _)| *asks) {
        Some((_, field)) => Err(Invalid::new(field, "takes a mount namespace: it would change the host's mounts")),
        None => Ok(()),
    }
}

/// The text for `timens_offsets`.
fn clocks(linux: &config::Linux, own: bool) -> Result<String, Invalid> {
    let mut text = String::new();
    for (clock, config::ClockOffset { secs, nanosecs }) in &linux.time_offsets {
        let name = match clock {
            config::Clock::Monotonic => "monotonic",
            config::Clock::Boottime => "boottime",
        };
        if !own {
            return Err(Invalid::new(format!("linux.timeOffsets.{name}"), "takes a time namespace of its own"));
        }
        if *nanosecs >= 1_000_000_000 {
            let what = format!("{nanosecs} is not below 1000000000");
            return Err(Invalid::new(format!("linux.timeOffsets.{name}.nanosecs"), what));
        }
        text.push_str(&format!("{name} {secs} {nanosecs}\n"));
    }
    Ok(text)
}

/// Every id of the process has to be one inside.
fn mapped(user: &config::User, ids: &IdMaps) -> Result<(), Invalid> {
    let has = |extents: &[IdExtent], id: u32| {
        extents.iter().any(|extent| id.checked_sub(extent.inside).is_some_and(|above| above < extent.size))
    };
    let groups = user.additional_gids.iter().enumerate();
    let groups = groups.map(|(index, gid)| (&ids.gids, *gid, format!("additionalGids[{index}]")));
    let own = [(&ids.uids, user.uid, "uid".to_owned()), (&ids.gids, user.gid, "gid".to_owned())];
    for (extents, id, field) in own.into_iter().chain(groups) {
        if !has(extents, id) {
            let what = format!("{id} is not mapped in the container's user namespace");
            return Err(Invalid::new(format!("process.user.{field}"), what));
        }
    }
    Ok(())
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
    netdevices::check(&linux.net_devices)?;
    if let Some(profile) = &linux.seccomp {
        seccomp::check(profile)?;
    }
    Ok(())
}

/// What a process has beside its own entry.
pub(super) struct Given<'a> {
    /// The flags of its filter.
    pub seccomp: Option<u32>,
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
        seccomp: given.seccomp.is_some(),
        seccomp_flags: given.seccomp.unwrap_or_default(),
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
                log::warn(&format!(
                    "{place}.capabilities.{name}: can't raise {name} capability CAP_{capability}: it is not {what}"
                ));
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
    crate::sys::Masks::own().bounding
}

type Joined = Vec<(Namespace, String)>;

/// Whether a namespace is not the host's.
fn has(own: &[Namespace], join: &Joined, namespace: Namespace) -> bool {
    own.contains(&namespace) || join.iter().any(|(joined, _)| *joined == namespace)
}

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
            NamespaceKind::Time => Namespace::Time,
        };
        if path.is_empty() {
            own.push(namespace);
            continue;
        }
        if !path.starts_with('/') {
            return Err(Invalid::new(format!("{at}.path"), "not an absolute path"));
        }
        // Before anything is made.
        match sandbox::kind_of(path) {
            Ok(Some(found)) if found == namespace => {}
            Ok(_) => {
                return Err(Invalid::new(format!("{at}.path"), format!("{path} is not a {} namespace", word(*kind))));
            }
            Err(error) => return Err(Invalid::new(format!("{at}.path"), format!("{path}: {error}"))),
        }
        join.push((namespace, path.clone()));
    }
    Ok((own, join))
}

fn word(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Network => "network",
        NamespaceKind::Mount => "mount",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

/// The extents of a list in a configuration.
pub(super) fn extents(mappings: &[config::IdMapping], place: &str) -> Result<Vec<IdExtent>, Invalid> {
    /// In the kernel (user_namespaces(7)).
    const MOST: usize = 340;
    if mappings.len() > MOST {
        return Err(Invalid::new(place, format!("{} extents are more than {MOST}", mappings.len())));
    }
    let mut extents: Vec<IdExtent> = Vec::new();
    for (index, config::IdMapping { container, host, size }) in mappings.iter().enumerate() {
        let (inside, outside, size) = (*container, *host, *size);
        if size == 0 || inside.checked_add(size).is_none() || outside.checked_add(size).is_none() {
            return Err(Invalid::new(format!("{place}[{index}].size"), format!("{size} does not fit")));
        }
        let meet = |a: u32, b: u32, other: u32| a < b.saturating_add(other) && b < a.saturating_add(size);
        if extents
            .iter()
            .any(|other| meet(inside, other.inside, other.size) || meet(outside, other.outside, other.size))
        {
            return Err(Invalid::new(format!("{place}[{index}]"), "has ids of another extent"));
        }
        extents.push(IdExtent { inside, outside, size });
    }
    Ok(extents)
}

fn ids(linux: &config::Linux, own: bool, joined: Option<&str>) -> Result<Option<IdMaps>, Invalid> {
    let none = linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty();
    if let Some(path) = joined {
        if !none {
            return Err(Invalid::new("linux.uidMappings", "are those of the user namespace that is joined"));
        }
        let failed = |error| Invalid::new("linux.namespaces", format!("reading the ids of {path}: {error}"));
        return sandbox::maps_of(path).map(Some).map_err(failed);
    }
    if !own {
        return if none {
            Ok(None)
        } else {
            Err(Invalid::new("linux.uidMappings", "take a user namespace of its own"))
        };
    }
    for (mappings, name) in [(&linux.uid_mappings, "linux.uidMappings"), (&linux.gid_mappings, "linux.gidMappings")] {
        if mappings.is_empty() {
            return Err(Invalid::new(name, "missing: a user namespace has no ids without"));
        }
    }
    Ok(Some(IdMaps {
        uids: extents(&linux.uid_mappings, "linux.uidMappings")?,
        gids: extents(&linux.gid_mappings, "linux.gidMappings")?,
    }))
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
///
/// Those of sysctl.kernel(5), ipc_namespaces(7) and namespaces(7); `kernel.pid_max` is one of the pid
/// namespace since Linux 6.14 only, and before that the host's, so it is not among them.
fn sysctl(config: &Config, own: &[Namespace], join: &Joined) -> Result<Settings, Invalid> {
    const IPC: [&str; 11] = [
        "kernel/msg_next_id",
        "kernel/sem_next_id",
        "kernel/shm_next_id",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let mut settings = Settings::default();
    for (name, value) in &config.linux.sysctl {
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
        } else if matches!(file.as_str(), "kernel/hostname" | "kernel/domainname") {
            Namespace::Uts
        } else if file.starts_with("user/") {
            Namespace::User
        } else {
            return Err(invalid("not a setting of a namespace: it would change the host"));
        };
        if !has(own, join, namespace) {
            return Err(invalid("takes a namespace of its own: it would change the host"));
        }
        match file.as_str() {
            // Other runtimes take the field alone.
            "kernel/hostname" => return Err(invalid("the configuration has a field for it")),
            "kernel/domainname" if config.domainname.as_ref().is_some_and(|given| !given.is_empty()) => {
                return Err(invalid("the configuration has a field for it, which is given, too"));
            }
            // Its file is the host's root's alone (sysctl.kernel(5)); the system call is not.
            "kernel/domainname" => settings.domainname = Some(value.clone()),
            _ => settings.writes.push((format!("/proc/sys/{file}"), value.clone())),
        }
    }
    Ok(settings)
}

#[derive(Default)]
struct Settings {
    /// Paths and values.
    writes: Vec<(String, String)>,
    domainname: Option<String>,
}
