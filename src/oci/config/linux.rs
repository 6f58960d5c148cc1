//! `linux`, without its resources.

use super::{Resources, or_null};
use crate::sandbox::seccomp::{Action, Rule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    #[serde(deserialize_with = "or_null")]
    pub namespaces: Vec<NamespaceEntry>,
    #[serde(deserialize_with = "or_null")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_null")]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "or_null")]
    pub devices: Vec<Device>,
    #[serde(deserialize_with = "or_null")]
    pub cgroups_path: String,
    #[serde(deserialize_with = "or_null")]
    pub resources: Resources,
    #[serde(deserialize_with = "or_null")]
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Seccomp>,
    pub rootfs_propagation: Option<RootPropagation>,
    #[serde(deserialize_with = "or_null")]
    pub masked_paths: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub readonly_paths: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub time_offsets: BTreeMap<Clock, ClockOffset>,
    pub intel_rdt: Option<IntelRdt>,
    #[serde(deserialize_with = "or_null")]
    pub mount_label: String,
    pub personality: Option<Personality>,
    #[serde(deserialize_with = "or_null")]
    pub net_devices: BTreeMap<String, NetDevice>,
    pub memory_policy: Option<MemoryPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NetDevice {
    /// That of the host, where there is none.
    #[serde(default, deserialize_with = "or_null")]
    pub name: String,
}

impl NetDevice {
    /// What a device of the host is called in the container.
    pub fn inside<'a>(&'a self, outside: &'a str) -> &'a str {
        if self.name.is_empty() { outside } else { &self.name }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    #[serde(deserialize_with = "or_null")]
    pub schemata: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub enable_monitoring: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personality {
    pub domain: PersonalityDomain,
    /// The specification knows none yet.
    #[serde(default, deserialize_with = "or_null")]
    pub flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PersonalityDomain {
    #[serde(rename = "LINUX")]
    Linux,
    #[serde(rename = "LINUX32")]
    Linux32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    pub mode: MemoryMode,
    /// As in cpuset(7): `0-3,7`.
    #[serde(default, deserialize_with = "or_null")]
    pub nodes: String,
    #[serde(default, deserialize_with = "or_null")]
    pub flags: Vec<MemoryFlag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryMode {
    #[serde(rename = "MPOL_DEFAULT")]
    Default,
    #[serde(rename = "MPOL_PREFERRED")]
    Preferred,
    #[serde(rename = "MPOL_BIND")]
    Bind,
    #[serde(rename = "MPOL_INTERLEAVE")]
    Interleave,
    #[serde(rename = "MPOL_LOCAL")]
    Local,
    #[serde(rename = "MPOL_PREFERRED_MANY")]
    PreferredMany,
    #[serde(rename = "MPOL_WEIGHTED_INTERLEAVE")]
    WeightedInterleave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryFlag {
    #[serde(rename = "MPOL_F_STATIC_NODES")]
    StaticNodes,
    #[serde(rename = "MPOL_F_RELATIVE_NODES")]
    RelativeNodes,
    #[serde(rename = "MPOL_F_NUMA_BALANCING")]
    NumaBalancing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceEntry {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    #[serde(default, deserialize_with = "or_null")]
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// Those that differ from one time namespace to the other (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    Monotonic,
    Boottime,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClockOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container: u32,
    #[serde(rename = "hostID")]
    pub host: u32,
    pub size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    #[serde(rename = "type")]
    pub kind: DeviceKind,
    pub path: String,
    #[serde(default)]
    pub major: u32,
    #[serde(default)]
    pub minor: u32,
    pub file_mode: Option<u32>,
    #[serde(default, deserialize_with = "or_null")]
    pub uid: u32,
    #[serde(default, deserialize_with = "or_null")]
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum DeviceKind {
    #[serde(rename = "c", alias = "u")]
    Character,
    #[serde(rename = "b")]
    Block,
    #[serde(rename = "p")]
    Fifo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootPropagation {
    Private,
    Rprivate,
    Slave,
    Rslave,
    Shared,
    Rshared,
    Unbindable,
    Runbindable,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    pub default_action: Action,
    pub default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_null")]
    pub architectures: Vec<Arch>,
    pub flags: Option<Vec<SeccompFlag>>,
    #[serde(default, deserialize_with = "or_null")]
    pub listener_path: String,
    #[serde(default, deserialize_with = "or_null")]
    pub listener_metadata: String,
    #[serde(default, deserialize_with = "or_null")]
    pub syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SeccompFlag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Those of the specification. What a machine other than this one may call does not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X8664,
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(
        rename = "SCMP_ARCH_MIPS",
        alias = "SCMP_ARCH_MIPS64",
        alias = "SCMP_ARCH_MIPS64N32",
        alias = "SCMP_ARCH_MIPSEL",
        alias = "SCMP_ARCH_MIPSEL64",
        alias = "SCMP_ARCH_MIPSEL64N32",
        alias = "SCMP_ARCH_PPC",
        alias = "SCMP_ARCH_PPC64",
        alias = "SCMP_ARCH_PPC64LE",
        alias = "SCMP_ARCH_S390",
        alias = "SCMP_ARCH_S390X",
        alias = "SCMP_ARCH_PARISC",
        alias = "SCMP_ARCH_PARISC64",
        alias = "SCMP_ARCH_RISCV64",
        alias = "SCMP_ARCH_LOONGARCH64",
        alias = "SCMP_ARCH_M68K",
        alias = "SCMP_ARCH_SH",
        alias = "SCMP_ARCH_SHEB"
    )]
    Other,
}
