//! `spec --from-manifest`: the `config.json` that stands for a manifest's container.
//!
//! What it is made from is the blueprint that the agent starts the container by, field for field; what a
//! `config.json` has no word for is refused. Part of `plim` alone, as it reads manifests.

use super::OciError;
use super::args::{FromManifest, UsageError};
use super::build::MAPPED_ROOT;
use super::config::{Invalid, NamespaceKind};
use crate::cgroup::table::shares;
use crate::cgroup::{CgroupError, disks};
use crate::host::{self, Alone, Paths, chain};
use crate::manifest::{self, Content, FileContent};
use crate::sandbox::seccomp::{Profile, Rule};
use crate::sandbox::{
    self, Affinity, Attributes, Blueprint, Capabilities, ChangeRoot, IdExtent, IdMaps, Keyring, Link, MappedBy,
    Mapping, Mount, MountChange, Namespace, Process, Propagation, PropagationKind, Root, Tree, usual_nodes,
};
use crate::spec::{self, Capability, Object, Resources};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The text of the file.
pub fn from_manifest(wish: &FromManifest) -> Result<String, OciError> {
    let FromManifest { file, name, bundle } = wish;
    let object = object(file, name.as_deref())?;
    let failed = |source| OciError::Io { what: format!("looking for {}", bundle.display()), source };
    let paths = Paths::new(Some(bundle)).map_err(failed)?;
    let alone = host::alone(&object, &paths).map_err(|error| OciError::Start(chain(&error)))?;
    let config = config(&object, &alone)?;
    Ok(format!("{config:#}\n"))
}

/// The container that is meant: the only one, or that of this name.
fn object(file: &Path, name: Option<&str>) -> Result<Object, OciError> {
    let shown = file.display().to_string();
    let text = std::fs::read(file).map_err(|source| OciError::Io { what: format!("reading {shown}"), source })?;
    let FileContent { documents, broken } = manifest::read(&shown, &text, &[]);
    if let Some(reason) = broken {
        return Err(OciError::Start(reason.render()));
    }
    let mut found = Vec::new();
    for document in documents {
        match document.content {
            Content::Valid(object) => found.push(*object),
            Content::Invalid { id, diagnostics } => {
                let is_meant = name.is_none() || id.is_none_or(|id| Some(id.name.as_str()) == name);
                if let Some(first) = diagnostics.first().filter(|_| is_meant) {
                    return Err(OciError::Start(first.render()));
                }
            }
        }
    }
    let names: Vec<String> = found.iter().map(|object| object.id.name.to_string()).collect();
    found.retain(|object| name.is_none_or(|name| object.id.name.as_str() == name));
    let all = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let wrong = |what: String| OciError::Usage(UsageError(format!("spec: {shown}: {what}; there are: {all}")));
    match (found.len(), found.pop(), name) {
        (1, Some(object), _) => Ok(object),
        (0, _, Some(name)) => Err(wrong(format!("no container is called {name}"))),
        _ => Err(wrong("name one container".to_owned())),
    }
}

fn unsaid<T>(field: &str) -> Result<T, OciError> {
    Err(Invalid::new(field, "a config.json has no words for it").into())
}

fn config(object: &Object, alone: &Alone) -> Result<Value, OciError> {
    let Alone { blueprint, grafts, profile } = alone;
    // Every field by name: a new one does not compile until it has its place here.
    let Blueprint {
        root,
        mapped_root,
        // Nothing is mounted in a root that is not made yet.
        root_with_mounts: _,
        read_only_root,
        root_propagation,
        change_root,
        own,
        join,
        ids,
        clocks,
        hostname,
        domainname,
        mounts,
        // One order is as good as the other.
        listed_in_order: _,
        nodes,
        masked_paths,
        readonly_paths,
        sysctl,
        // Chosen by who creates it.
        cgroup: _,
        process,
        hooks,
        init,
        wait,
    } = blueprint;
    let Root::Directory { path: root } = root else { return unsaid("spec.image") };
    if *init {
        return unsaid("spec.init");
    }
    let usual = root_propagation.is_none()
        && *change_root == ChangeRoot::Pivot
        && join.is_empty()
        && clocks.is_empty()
        && nodes.is_empty()
        && sysctl.is_empty()
        && *hooks == sandbox::Hooks::default()
        && !wait;
    if !usual {
        return unsaid("spec");
    }
    let graft = |(at, from): &(String, std::path::PathBuf)| {
        let at = format!("/{}", at.trim_start_matches('/'));
        json!({"destination": at, "type": "bind", "source": from, "options": ["rbind", "rro", "rprivate"]})
    };
    let mut all: Vec<Value> = grafts.iter().map(graft).collect();
    for one in mounts {
        all.push(mount(one)?);
    }
    let namespaces: Vec<Value> = own.iter().map(|namespace| json!({"type": kind(*namespace)})).collect();
    let mut linux = json!({
        "namespaces": namespaces,
        "resources": resources(&object.spec.resources)?,
        "maskedPaths": masked_paths,
        "readonlyPaths": readonly_paths,
    });
    if let Some(IdMaps { uids, gids }) = ids {
        linux["uidMappings"] = uids.iter().map(extent).collect();
        linux["gidMappings"] = gids.iter().map(extent).collect();
    }
    if let Some(profile) = profile {
        linux["seccomp"] = seccomp(profile);
    }
    let mut annotations: Map<String, Value> =
        object.annotations.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    if *mapped_root {
        annotations.insert(MAPPED_ROOT.to_owned(), json!("true"));
    }
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": root, "readonly": read_only_root},
        "process": self::process(process)?,
        "hostname": hostname,
        "mounts": all,
        "annotations": annotations,
        "linux": linux,
    });
    if let Some(name) = domainname {
        config["domainname"] = json!(name);
    }
    Ok(config)
}

fn process(process: &Process) -> Result<Value, OciError> {
    let Process {
        argv,
        env,
        cwd,
        uid,
        gid,
        groups,
        umask,
        limits,
        capabilities,
        no_new_privileges,
        // With the profile.
        seccomp: _,
        seccomp_flags,
        oom_score_adj,
        // That of who starts it, or 0, which is the same for a person.
        nice: _,
        terminal,
        new_line: _,
        keep_descriptors,
        attributes,
    } = process;
    let Attributes {
        personality,
        scheduler,
        io_priority,
        affinity,
        memory_policy,
        keyring: Keyring::Unnamed | Keyring::Named(_) | Keyring::Inherited,
        apparmor,
        selinux,
        keep_groups,
    } = attributes;
    let usual = limits.is_empty()
        && *seccomp_flags == 0
        && terminal.is_none()
        && keep_descriptors.is_empty()
        && personality.is_none()
        && scheduler.is_none()
        && io_priority.is_none()
        && *affinity == Affinity::Inherited
        && memory_policy.is_none()
        && apparmor.is_none()
        && selinux.is_none()
        && !keep_groups;
    if !usual {
        return unsaid("spec");
    }
    let Capabilities { bounding, effective, permitted, inheritable, ambient } = *capabilities;
    Ok(json!({
        "terminal": false,
        "user": {"uid": uid, "gid": gid, "additionalGids": groups, "umask": umask},
        "args": argv,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": names(bounding),
            "effective": names(effective),
            "permitted": names(permitted),
            "inheritable": names(inheritable),
            "ambient": names(ambient),
        },
        "noNewPrivileges": no_new_privileges,
        "oomScoreAdj": oom_score_adj,
    }))
}

fn names(mask: u64) -> Vec<String> {
    let numbered = (0..).zip(Capability::ALL);
    numbered.filter(|(number, _)| mask & (1 << number) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

fn kind(namespace: Namespace) -> NamespaceKind {
    match namespace {
        Namespace::User => NamespaceKind::User,
        Namespace::Pid => NamespaceKind::Pid,
        Namespace::Net => NamespaceKind::Network,
        Namespace::Ipc => NamespaceKind::Ipc,
        Namespace::Uts => NamespaceKind::Uts,
        Namespace::Cgroup => NamespaceKind::Cgroup,
        Namespace::Time => NamespaceKind::Time,
        Namespace::Mount => NamespaceKind::Mount,
    }
}

fn extent(IdExtent { inside, outside, size }: &IdExtent) -> Value {
    json!({"containerID": inside, "hostID": outside, "size": size})
}

/// Bits of mount(2).
const FLAGS: [(&str, u32); 4] = [("ro", 1), ("nosuid", 2), ("nodev", 4), ("noexec", 8)];

fn flag_words(flags: u32) -> Result<Vec<String>, OciError> {
    if FLAGS.iter().fold(flags, |left, (_, bit)| left & !bit) != 0 {
        return unsaid("spec.mounts");
    }
    Ok(FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(word, _)| (*word).to_owned()).collect())
}

fn mount(mount: &Mount) -> Result<Value, OciError> {
    match mount {
        Mount::Fresh { kind, source, at, data, flags, change, link: Link::Follow }
            if *change == MountChange::default() =>
        {
            let mut options = flag_words(*flags)?;
            options.extend(data.split(',').filter(|word| !word.is_empty()).map(str::to_owned));
            // Which version there is, is the host's affair.
            let kind = if kind == "cgroup2" { "cgroup" } else { kind };
            Ok(json!({"destination": at, "type": kind, "source": source, "options": options}))
        }
        Mount::Devices { at, options, flags, nodes } if *nodes == usual_nodes() => {
            let mut words = flag_words(*flags)?;
            words.extend(options.iter().map(|(name, value)| format!("{name}={value}")));
            Ok(json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": words}))
        }
        Mount::Bind { tree, at, link: Link::Follow } => {
            let options = tree_words(tree)?;
            Ok(json!({"destination": at, "type": "bind", "source": tree.path, "options": options}))
        }
        Mount::Fresh { .. }
        | Mount::Devices { .. }
        | Mount::Bind { .. }
        | Mount::Again { .. }
        | Mount::Link { .. }
        | Mount::Change { .. }
        | Mount::Copy { .. } => unsaid("spec.mounts"),
    }
}

fn tree_words(Tree { path: _, recursive, change, mapping, link_itself }: &Tree) -> Result<Vec<&'static str>, OciError> {
    /// `MOUNT_ATTR_RDONLY`.
    const READ_ONLY: u64 = 1;
    let MountChange { set, clear, set_all, clear_all, propagation } = change;
    if *link_itself || (set | set_all) & !READ_ONLY != 0 || clear | clear_all != 0 {
        return unsaid("spec.mounts");
    }
    let mut words = vec![if *recursive { "rbind" } else { "bind" }];
    words.extend((set & READ_ONLY != 0).then_some("ro"));
    words.extend((set_all & READ_ONLY != 0).then_some("rro"));
    for Propagation { kind, recursive } in propagation {
        words.push(match (kind, recursive) {
            (PropagationKind::Private, false) => "private",
            (PropagationKind::Private, true) => "rprivate",
            (PropagationKind::Shared, false) => "shared",
            (PropagationKind::Shared, true) => "rshared",
            (PropagationKind::Slave, false) => "slave",
            (PropagationKind::Slave, true) => "rslave",
            (PropagationKind::Unbindable, false) => "unbindable",
            (PropagationKind::Unbindable, true) => "runbindable",
        });
    }
    match mapping {
        None => {}
        Some(Mapping { by: MappedBy::Container, recursive }) => words.push(if *recursive { "ridmap" } else { "idmap" }),
        Some(Mapping { by: MappedBy::Maps(_), recursive: _ }) => return unsaid("spec.mounts"),
    }
    Ok(words)
}

fn seccomp(profile: &Profile) -> Value {
    let rule = |rule: &Rule| {
        let mut value = json!({"names": rule.names, "action": rule.action, "args": rule.args});
        if let Some(errno) = rule.errno_ret {
            value["errnoRet"] = json!(errno);
        }
        value
    };
    let syscalls: Vec<Value> = profile.syscalls.iter().map(rule).collect();
    let mut value = json!({
        "defaultAction": profile.default_action,
        "architectures": profile.architectures,
        "syscalls": syscalls,
    });
    if let Some(errno) = profile.default_errno_ret {
        value["defaultErrnoRet"] = json!(errno);
    }
    value
}

/// The agent's limits, and the device rules that all of its containers have.
fn resources(from: &Resources) -> Result<Value, OciError> {
    let Resources {
        cpu: spec::Cpu { limit: cpu, weight, cpuset, mems },
        memory: spec::Memory { limit, high, low, min, swap },
        pids: spec::Pids { limit: pids },
        io: spec::Io { weight: io_weight, limits },
        hugepages,
    } = from;
    let mut all = json!({"devices": [{"allow": false, "access": "rwm"}]});
    let mut put = |part: &str, field: &str, value: Option<Value>| {
        if let Some(value) = value {
            all[part][field] = value;
        }
    };
    const PERIOD: u64 = 100_000;
    put("cpu", "period", cpu.map(|_| json!(PERIOD)));
    put("cpu", "quota", cpu.map(|cpu| json!(u64::from(cpu.0) * PERIOD / 1000)));
    put("cpu", "shares", weight.and_then(|weight| shares(weight).parse::<u64>().ok()).map(Value::from));
    put("cpu", "cpus", cpuset.as_ref().map(|list| json!(String::from(list.clone()))));
    put("cpu", "mems", mems.as_ref().map(|list| json!(String::from(list.clone()))));
    put("memory", "limit", limit.map(|bytes| json!(bytes.0)));
    put("memory", "reservation", low.map(|bytes| json!(bytes.0)));
    match (swap, limit) {
        (None, _) => {}
        (Some(swap), Some(limit)) => put("memory", "swap", Some(json!(limit.0.saturating_add(swap.0)))),
        (Some(swap), None) => put("unified", "memory.swap.max", Some(json!(swap.0.to_string()))),
    }
    put("unified", "memory.high", high.map(|bytes| json!(bytes.0.to_string())));
    put("unified", "memory.min", min.map(|bytes| json!(bytes.0.to_string())));
    put("pids", "limit", pids.map(|count| json!(count.get())));
    put("blockIO", "weight", io_weight.map(|weight| json!(weight.get().clamp(10, 1000))));
    let disks = disks(limits).map_err(|error: CgroupError| OciError::Start(chain(&error)))?;
    let mut throttles: Map<String, Value> = Map::new();
    for (disk, limits) in disks {
        let kinds = [
            ("throttleReadBpsDevice", limits.read_bps),
            ("throttleWriteBpsDevice", limits.write_bps),
            ("throttleReadIOPSDevice", limits.read_iops),
            ("throttleWriteIOPSDevice", limits.write_iops),
        ];
        for (kind, rate) in kinds {
            let Some(rate) = rate else { continue };
            let entry = json!({"major": disk.major, "minor": disk.minor, "rate": rate});
            if let Some(list) = throttles.entry(kind).or_insert_with(|| json!([])).as_array_mut() {
                list.push(entry);
            }
        }
    }
    for (kind, list) in throttles {
        put("blockIO", &kind, Some(list));
    }
    if !hugepages.is_empty() {
        let page = |(size, limit): (&spec::Bytes, &spec::Bytes)| {
            // As the kernel names them.
            let name = if size.0 >= 1 << 30 { format!("{}GB", size.0 >> 30) } else { format!("{}MB", size.0 >> 20) };
            json!({"pageSize": name, "limit": limit.0})
        };
        all["hugepageLimits"] = hugepages.iter().map(page).collect();
    }
    Ok(all)
}
