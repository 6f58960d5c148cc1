//! `process`.

use super::or_null;
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
    #[serde(default, deserialize_with = "or_null")]
    pub apparmor_profile: String,
    #[serde(default, deserialize_with = "or_null")]
    pub selinux_label: String,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    pub policy: SchedulerPolicy,
    #[serde(default, deserialize_with = "or_null")]
    pub nice: i32,
    #[serde(default, deserialize_with = "or_null")]
    pub priority: i32,
    #[serde(default, deserialize_with = "or_null")]
    pub flags: Vec<SchedulerFlag>,
    #[serde(default, deserialize_with = "or_null")]
    pub runtime: u64,
    #[serde(default, deserialize_with = "or_null")]
    pub deadline: u64,
    #[serde(default, deserialize_with = "or_null")]
    pub period: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerPolicy {
    #[serde(rename = "SCHED_OTHER")]
    Other,
    #[serde(rename = "SCHED_FIFO")]
    Fifo,
    #[serde(rename = "SCHED_RR")]
    Rr,
    #[serde(rename = "SCHED_BATCH")]
    Batch,
    #[serde(rename = "SCHED_ISO")]
    Iso,
    #[serde(rename = "SCHED_IDLE")]
    Idle,
    #[serde(rename = "SCHED_DEADLINE")]
    Deadline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerFlag {
    #[serde(rename = "SCHED_FLAG_RESET_ON_FORK")]
    ResetOnFork,
    #[serde(rename = "SCHED_FLAG_RECLAIM")]
    Reclaim,
    #[serde(rename = "SCHED_FLAG_DL_OVERRUN")]
    DlOverrun,
    #[serde(rename = "SCHED_FLAG_KEEP_POLICY")]
    KeepPolicy,
    #[serde(rename = "SCHED_FLAG_KEEP_PARAMS")]
    KeepParams,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MIN")]
    UtilClampMin,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MAX")]
    UtilClampMax,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    pub class: IoClass,
    #[serde(default, deserialize_with = "or_null")]
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoClass {
    #[serde(rename = "IOPRIO_CLASS_RT")]
    Rt,
    #[serde(rename = "IOPRIO_CLASS_BE")]
    Be,
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

/// Lists of CPUs as in cpuset(7): `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    #[serde(deserialize_with = "or_null")]
    pub initial: String,
    #[serde(rename = "final", deserialize_with = "or_null")]
    pub after: String,
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
