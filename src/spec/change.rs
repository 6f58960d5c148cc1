//! What a change of a manifest means for what runs: its class, per field, from one table.
//!
//! The chain that keeps the table complete: [`Flat::of`] takes every structure of the format apart
//! without `..`, so a new field does not compile until it is in [`Flat`], and a field of [`Flat`]
//! that no row reads is reported by the compiler as never read.

use super::EnvName;
use super::container::Capability;
use super::{
    AbsolutePath, Backoff, Boot, Bytes, Capabilities, Container, ContainerType, Count, Cpu, CpuSet, DeletionPolicy,
    Dependency, DesiredState, Health, HugePages, ImageRef, Io, IoLimit, LimitPointer, Logs, Memory, MilliCpu, Mount,
    MountSource, Name, Network, Object, Pids, Probe, Resources, Restart, RestartPolicy, Seccomp, Security, Signal,
    Span, Stop, User, Weight,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a change costs, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing on the host changes.
    None,
    /// Written to the kernel; the process does not notice.
    Live,
    /// The same root filesystem, a new process.
    Restart,
    /// A new root filesystem and a new process.
    Recreate,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Restart => "restart",
            Self::Recreate => "recreate",
        })
    }
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// As in the manifest: `spec.resources.memory.limit`.
    pub field: String,
    pub class: Class,
    /// The values as text for a person; `None` where the field is not set.
    pub old: Option<String>,
    pub new: Option<String>,
}

impl fmt::Display for FieldChange {
    /// `memory.limit 512Mi → 1Gi`: the field as short as it is still clear.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = ["spec.resources.", "spec.", "metadata."].iter().find_map(|head| self.field.strip_prefix(head));
        f.write_str(short.unwrap_or(&self.field))?;
        match (&self.old, &self.new) {
            // A hidden value reads the same on both sides.
            (Some(old), Some(new)) if old == new => f.write_str(" changed"),
            (Some(old), Some(new)) => write!(f, " {old} → {new}"),
            (None, Some(new)) => write!(f, " set to {new}"),
            (Some(old), None) => write!(f, " {old} taken out"),
            (None, None) => f.write_str(" changed"),
        }
    }
}

/// One field of the format, and what a change of it costs.
#[derive(Debug)]
pub struct Row {
    /// As in the manifest: `spec.resources.memory.limit`.
    pub field: &'static str,
    pub class: Class,
    /// What a change does, for `plim explain` and the reference.
    pub what: &'static str,
    same: for<'a> fn(&Flat<'a>, &Flat<'a>) -> bool,
    list: for<'a> fn(&Row, &Flat<'a>, &Flat<'a>, &mut Vec<FieldChange>),
}

/// Every field that a change can be in, in the order of the manifest's reference.
pub fn table() -> &'static [Row] {
    TABLE
}

/// Every field of `spec` that differs, in the order of the manifest's reference.
pub fn between(old: &Container, new: &Container) -> Vec<FieldChange> {
    if old == new {
        return Vec::new();
    }
    let none = BTreeMap::new();
    differences(&Flat::of(old, &none, &none), &Flat::of(new, &none, &none))
}

/// As [`between`], with labels and annotations.
pub fn between_objects(old: &Object, new: &Object) -> Vec<FieldChange> {
    if old == new { Vec::new() } else { differences(&Flat::of_object(old), &Flat::of_object(new)) }
}

/// What the change from `old` to `new` costs, without the words for it.
pub fn class_between(old: &Object, new: &Object) -> Class {
    if old == new {
        return Class::None;
    }
    let (old, new) = (Flat::of_object(old), Flat::of_object(new));
    TABLE.iter().filter(|row| !(row.same)(&old, &new)).map(|row| row.class).max().unwrap_or(Class::None)
}

/// The dearest class among `changes`.
pub fn class_of(changes: &[FieldChange]) -> Class {
    changes.iter().map(|change| change.class).max().unwrap_or(Class::None)
}

fn differences<'a>(old: &Flat<'a>, new: &Flat<'a>) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    for row in TABLE {
        if !(row.same)(old, new) {
            (row.list)(row, old, new, &mut changes);
        }
    }
    changes
}

/// Every field of an object beside each other.
struct Flat<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    kind: ContainerType,
    desired_state: DesiredState,
    image: &'a ImageRef,
    command: &'a Vec<String>,
    args: &'a Vec<String>,
    init: bool,
    env: &'a BTreeMap<EnvName, String>,
    working_dir: &'a AbsolutePath,
    user: &'a User,
    hostname: &'a Option<Name>,
    network: Network,
    mounts: &'a Vec<Mount>,
    cpu_limit: Option<MilliCpu>,
    cpu_weight: Option<Weight>,
    cpuset: &'a Option<CpuSet>,
    mems: &'a Option<CpuSet>,
    memory_limit: Option<Bytes>,
    memory_high: Option<Bytes>,
    memory_low: Option<Bytes>,
    memory_min: Option<Bytes>,
    memory_swap: Option<Bytes>,
    pids_limit: Option<Count>,
    io_weight: Option<Weight>,
    io_limits: &'a Vec<IoLimit>,
    hugepages: &'a HugePages,
    drop: &'a BTreeSet<Capability>,
    add: &'a BTreeSet<Capability>,
    seccomp: &'a Seccomp,
    no_new_privileges: bool,
    read_only_root: bool,
    user_namespace: bool,
    startup: &'a Option<Probe>,
    readiness: &'a Option<Probe>,
    liveness: &'a Option<Probe>,
    restart_policy: RestartPolicy,
    backoff_min: Span,
    backoff_max: Span,
    stop_signal: &'a Signal,
    stop_grace: Span,
    logs_max_size: Bytes,
    logs_files: u8,
    ignore_drift: &'a Vec<LimitPointer>,
    depends_on: &'a Vec<Dependency>,
    priority: i32,
    deletion_policy: DeletionPolicy,
}

impl<'a> Flat<'a> {
    fn of_object(object: &'a Object) -> Self {
        // The identity never differs: changes are between revisions of one object.
        let Object { id: _, labels, annotations, spec } = object;
        Self::of(spec, labels, annotations)
    }

    fn of(
        container: &'a Container,
        labels: &'a BTreeMap<String, String>,
        annotations: &'a BTreeMap<String, String>,
    ) -> Self {
        // Every field by name: a new field does not compile until it has its place here.
        let Container {
            kind,
            desired_state,
            image,
            command,
            args,
            init,
            env,
            working_dir,
            user,
            hostname,
            network,
            mounts,
            resources: Resources { cpu, memory, pids: Pids { limit: pids_limit }, io, hugepages },
            security:
                Security {
                    capabilities: Capabilities { drop, add },
                    seccomp,
                    no_new_privileges,
                    read_only_root,
                    user_namespace,
                },
            health: Health { startup, readiness, liveness },
            restart: Restart { policy: restart_policy, backoff: Backoff { min: backoff_min, max: backoff_max } },
            stop: Stop { signal: stop_signal, grace: stop_grace },
            logs: Logs { max_size: logs_max_size, files: logs_files },
            ignore_drift,
            depends_on,
            boot: Boot { priority },
            deletion_policy,
        } = container;
        let Cpu { limit: cpu_limit, weight: cpu_weight, cpuset, mems } = cpu;
        let Memory { limit: memory_limit, high: memory_high, low: memory_low, min: memory_min, swap: memory_swap } =
            memory;
        let Io { weight: io_weight, limits: io_limits } = io;
        Self {
            labels,
            annotations,
            kind: *kind,
            desired_state: *desired_state,
            image,
            command,
            args,
            init: *init,
            env,
            working_dir,
            user,
            hostname,
            network: *network,
            mounts,
            cpu_limit: *cpu_limit,
            cpu_weight: *cpu_weight,
            cpuset,
            mems,
            memory_limit: *memory_limit,
            memory_high: *memory_high,
            memory_low: *memory_low,
            memory_min: *memory_min,
            memory_swap: *memory_swap,
            pids_limit: *pids_limit,
            io_weight: *io_weight,
            io_limits,
            hugepages,
            drop,
            add,
            seccomp,
            no_new_privileges: *no_new_privileges,
            read_only_root: *read_only_root,
            user_namespace: *user_namespace,
            startup,
            readiness,
            liveness,
            restart_policy: *restart_policy,
            backoff_min: *backoff_min,
            backoff_max: *backoff_max,
            stop_signal,
            stop_grace: *stop_grace,
            logs_max_size: *logs_max_size,
            logs_files: *logs_files,
            ignore_drift,
            depends_on,
            priority: *priority,
            deletion_policy: *deletion_policy,
        }
    }
}

/// A field with one value.
macro_rules! value {
    ($field:literal, $class:ident, $name:ident, $text:expr, $what:literal) => {
        Row {
            field: $field,
            class: Class::$class,
            what: $what,
            same: |old, new| old.$name == new.$name,
            list: |row, old, new, changes| {
                changes.push(FieldChange {
                    field: row.field.to_owned(),
                    class: row.class,
                    old: $text(&old.$name),
                    new: $text(&new.$name),
                });
            },
        }
    };
}

/// A field with a value per key, each of which changes on its own.
macro_rules! keyed {
    ($field:literal, $class:ident, $name:ident, $key:expr, $text:expr, $what:literal) => {
        Row {
            field: $field,
            class: Class::$class,
            what: $what,
            same: |old, new| old.$name == new.$name,
            list: |row, old, new, changes| {
                let keys: BTreeSet<_> = old.$name.keys().chain(new.$name.keys()).collect();
                for key in keys {
                    let (before, after) = (old.$name.get(key), new.$name.get(key));
                    if before != after {
                        changes.push(FieldChange {
                            field: format!("{}.{}", row.field, $key(key)),
                            class: row.class,
                            old: before.map($text),
                            new: after.map($text),
                        });
                    }
                }
            },
        }
    };
}

static TABLE: &[Row] = &[
    keyed!("metadata.labels", None, labels, String::as_str, String::clone, "kept in the record"),
    keyed!("metadata.annotations", None, annotations, String::as_str, String::clone, "kept in the record"),
    value!("spec.type", Recreate, kind, type_text, "a container of another type is made anew"),
    value!("spec.desiredState", None, desired_state, state_text, "it is started or stopped; nothing is made anew"),
    value!("spec.image", Recreate, image, plain, "a new root filesystem"),
    value!("spec.command", Restart, command, words, "a new process in the same root filesystem"),
    value!("spec.args", Restart, args, words, "a new process in the same root filesystem"),
    value!("spec.init", Restart, init, plain, "a new process in the same root filesystem"),
    keyed!("spec.env", Restart, env, EnvName::as_str, hidden, "a new process; values are never shown"),
    value!("spec.workingDir", Restart, working_dir, plain, "a new process in the same root filesystem"),
    value!("spec.user", Restart, user, plain, "a new process in the same root filesystem"),
    value!("spec.hostname", Restart, hostname, optional_ref, "a new process in the same root filesystem"),
    value!("spec.network", Recreate, network, network_text, "made anew in another network"),
    value!("spec.mounts", Restart, mounts, mounts_text, "a new process with the new mounts"),
    value!("spec.resources.cpu.limit", Live, cpu_limit, optional, "written to cpu.max"),
    value!("spec.resources.cpu.weight", Live, cpu_weight, weight, "written to cpu.weight"),
    value!("spec.resources.cpu.cpuset", Live, cpuset, optional_ref, "written to cpuset.cpus"),
    value!("spec.resources.cpu.mems", Live, mems, optional_ref, "written to cpuset.mems"),
    value!("spec.resources.memory.limit", Live, memory_limit, optional, "written to memory.max, never below its use"),
    value!("spec.resources.memory.high", Live, memory_high, optional, "written to memory.high, never below its use"),
    value!("spec.resources.memory.low", Live, memory_low, optional, "written to memory.low"),
    value!("spec.resources.memory.min", Live, memory_min, optional, "written to memory.min"),
    value!("spec.resources.memory.swap", Live, memory_swap, optional, "written to memory.swap.max"),
    value!("spec.resources.pids.limit", Live, pids_limit, count, "written to pids.max"),
    value!("spec.resources.io.weight", Live, io_weight, weight, "written to io.weight"),
    value!("spec.resources.io.limits", Live, io_limits, io_text, "written to io.max"),
    keyed!("spec.resources.hugepages", Live, hugepages, Bytes::to_string, Bytes::to_string, "written to hugetlb.*.max"),
    value!(
        "spec.security.capabilities.drop",
        Restart,
        drop,
        capabilities_text,
        "a new process with other capabilities"
    ),
    value!("spec.security.capabilities.add", Restart, add, capabilities_text, "a new process with other capabilities"),
    value!("spec.security.seccomp", Restart, seccomp, seccomp_text, "a new process under another filter"),
    value!("spec.security.noNewPrivileges", Restart, no_new_privileges, plain, "a new process"),
    value!("spec.security.readOnlyRoot", Restart, read_only_root, plain, "a new process"),
    value!("spec.security.userNamespace", Recreate, user_namespace, plain, "the files belong to other ids: made anew"),
    value!("spec.health.startup", None, startup, optional_ref, "holds from its next start on"),
    value!("spec.health.readiness", None, readiness, optional_ref, "asked so from now on"),
    value!("spec.health.liveness", None, liveness, optional_ref, "asked so from now on"),
    value!("spec.restart.policy", None, restart_policy, policy_text, "holds from its next exit on"),
    value!("spec.restart.backoff.min", None, backoff_min, plain, "holds from its next exit on"),
    value!("spec.restart.backoff.max", None, backoff_max, plain, "holds from its next exit on"),
    value!("spec.stop.signal", None, stop_signal, plain, "holds from its next stop on"),
    value!("spec.stop.grace", None, stop_grace, plain, "holds from its next stop on"),
    value!("spec.logs.maxSize", None, logs_max_size, plain, "holds from its next start on"),
    value!("spec.logs.files", None, logs_files, plain, "holds from its next start on"),
    value!("spec.ignoreDrift", Live, ignore_drift, pointers_text, "limits are set back from now on, or left"),
    value!("spec.dependsOn", None, depends_on, depends_text, "holds from its next start on"),
    value!("spec.boot.priority", None, priority, plain, "holds from the next time that many start"),
    value!("spec.deletionPolicy", None, deletion_policy, plain, "holds when its text is gone"),
];

fn plain<T: fmt::Display + ?Sized>(value: &T) -> Option<String> {
    Some(value.to_string())
}

fn optional<T: fmt::Display>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(T::to_string)
}

fn optional_ref<T: fmt::Display>(value: &&Option<T>) -> Option<String> {
    optional(*value)
}

fn weight(value: &Option<Weight>) -> Option<String> {
    value.map(|weight| weight.get().to_string())
}

fn count(value: &Option<Count>) -> Option<String> {
    value.map(|count| count.get().to_string())
}

/// The value of an environment variable may be a secret: that there is one is all that is said.
fn hidden(_: &String) -> String {
    "(hidden)".to_owned()
}

/// As the list is written in a manifest, so that what belongs to one word is seen.
fn words(words: &&Vec<String>) -> Option<String> {
    let words: Vec<Cow<'_, str>> = words.iter().map(|word| short(word)).collect();
    (!words.is_empty()).then(|| format!("{words:?}"))
}

/// A script among the words is told by its beginning; both sides may then read the same.
fn short(word: &str) -> Cow<'_, str> {
    const LONGEST: usize = 40;
    let line = word.lines().next().unwrap_or_default();
    if line.len() == word.len() && word.chars().count() <= LONGEST {
        return word.into();
    }
    let head: String = line.chars().take(LONGEST).collect();
    format!("{head}… ({} lines)", word.lines().count()).into()
}

fn listed(parts: impl Iterator<Item = String>) -> Option<String> {
    let text = parts.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

fn type_text(kind: &ContainerType) -> Option<String> {
    match kind {
        ContainerType::App => Some("app".to_owned()),
    }
}

fn state_text(state: &DesiredState) -> Option<String> {
    let text = match state {
        DesiredState::Running => "running",
        DesiredState::Stopped => "stopped",
    };
    Some(text.to_owned())
}

fn network_text(network: &Network) -> Option<String> {
    let text = match network {
        Network::None => "none",
        Network::Host => "host",
    };
    Some(text.to_owned())
}

fn policy_text(policy: &RestartPolicy) -> Option<String> {
    let text = match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "onFailure",
        RestartPolicy::Never => "never",
    };
    Some(text.to_owned())
}

fn seccomp_text(seccomp: &&Seccomp) -> Option<String> {
    Some(String::from((*seccomp).clone()))
}

fn capabilities_text(set: &&BTreeSet<Capability>) -> Option<String> {
    listed(set.iter().map(|capability| String::from(capability.clone())))
}

fn mounts_text(mounts: &&Vec<Mount>) -> Option<String> {
    listed(mounts.iter().map(|mount| {
        let Mount { path, host: _, tmpfs: _, read_only } = mount;
        let source = match mount.source() {
            Some(MountSource::Host(host)) => host.to_string(),
            Some(MountSource::Tmpfs(size)) => format!("tmpfs {size}"),
            None => "nothing".to_owned(),
        };
        format!("{path} from {source}{}", if *read_only { " read-only" } else { "" })
    }))
}

fn pointers_text(all: &&Vec<LimitPointer>) -> Option<String> {
    listed(all.iter().map(LimitPointer::to_string))
}

fn depends_text(all: &&Vec<Dependency>) -> Option<String> {
    listed(all.iter().map(Dependency::to_string))
}

fn io_text(limits: &&Vec<IoLimit>) -> Option<String> {
    listed(limits.iter().map(|limit| {
        let IoLimit { path, read_bps, write_bps, read_iops, write_iops } = limit;
        let parts = [
            read_bps.map(|value| format!("readBps {value}")),
            write_bps.map(|value| format!("writeBps {value}")),
            read_iops.map(|value| format!("readIops {}", value.get())),
            write_iops.map(|value| format!("writeIops {}", value.get())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{path}: {}", parts.join(" "))
    }))
}

#[cfg(test)]
mod tests;
