//! `process`.

use super::{Later, or_null};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    #[serde(default)]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "or_null")]
    pub user: User,
    #[serde(default, deserialize_with = "or_null")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "or_null")]
    pub rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub apparmor_profile: Later,
    #[serde(default)]
    pub selinux_label: Later,
    #[serde(default)]
    pub scheduler: Later,
    #[serde(default)]
    pub io_priority: Later,
    #[serde(default, rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Later,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(default, deserialize_with = "or_null")]
    pub additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    #[serde(default, deserialize_with = "or_null")]
    pub bounding: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub effective: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub permitted: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub inheritable: Vec<String>,
    #[serde(default, deserialize_with = "or_null")]
    pub ambient: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub hard: u64,
    pub soft: u64,
}
