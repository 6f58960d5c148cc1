//! `config.json` as the OCI runtime specification (1.3) has it, the part for Linux.
//!
//! What the specification does not know is ignored, as it demands. What it knows has a type of its own
//! here: nothing that is asked for is silently left out.

mod hooks;
mod linux;
mod place;
mod process;
mod resources;

pub use hooks::{Hook, Hooks};
pub use linux::{
    Arch, Clock, ClockOffset, Device, DeviceKind, IdMapping, IntelRdt, Linux, MemoryFlag, MemoryMode, MemoryPolicy,
    NamespaceEntry, NamespaceKind, NetDevice, Personality, PersonalityDomain, RootPropagation, Seccomp, SeccompFlag,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoClass, IoPriority, Process, Rlimit, Scheduler, SchedulerFlag,
    SchedulerPolicy, User,
};
pub use resources::{
    BlockIo, Cpu, DeviceRule, DeviceRuleKind, HugePageLimit, Memory, Network, NetworkPriority, Pids, Rdma, Resources,
    Throttle, WeightDevice,
};

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::Path;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Invalid {
    /// `linux.namespaces[2].type`
    pub path: String,
    pub what: String,
}

impl Invalid {
    pub fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {invalid}")]
    Invalid { path: String, invalid: Invalid },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub oci_version: String,
    pub root: Option<Root>,
    #[serde(default, deserialize_with = "or_null")]
    pub mounts: Vec<Mount>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_null")]
    pub linux: Linux,
    #[serde(default, deserialize_with = "or_null")]
    pub hooks: Hooks,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Root {
    pub path: String,
    #[serde(default)]
    pub readonly: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    pub destination: String,
    #[serde(default, rename = "type", deserialize_with = "or_null")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_null")]
    pub source: String,
    #[serde(default, deserialize_with = "or_null")]
    pub options: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(default, deserialize_with = "or_null")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs written in Go say `null` for an empty list.
pub(super) fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads one JSON text; an error names the place.
pub fn parse<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Invalid> {
    serde_json::from_slice(text).map_err(|error| Invalid::new(place::of(text, &error), error.to_string()))
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        parse(&text).map_err(|invalid| ConfigError::Invalid { path: name, invalid })
    }
}

/// What a JSON file holds, with the file's name in the error.
pub fn read_process(path: &Path) -> Result<Process, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    parse(&text).map_err(|invalid| ConfigError::Invalid { path: name, invalid })
}

/// A template for a `config.json`, as `spec` prints it.
pub const TEMPLATE: &str = include_str!("template.json");
