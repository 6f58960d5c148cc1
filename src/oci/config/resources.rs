//! `linux.resources`, also what `update` reads.

use super::or_null;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    #[serde(deserialize_with = "or_null")]
    pub devices: Vec<DeviceRule>,
    #[serde(deserialize_with = "or_null")]
    pub memory: Memory,
    #[serde(deserialize_with = "or_null")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "or_null")]
    pub pids: Pids,
    #[serde(rename = "blockIO", deserialize_with = "or_null")]
    pub block_io: BlockIo,
    #[serde(deserialize_with = "or_null")]
    pub hugepage_limits: Vec<HugePageLimit>,
    #[serde(deserialize_with = "or_null")]
    pub unified: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_null")]
    pub network: Network,
    /// By the name of the device.
    #[serde(deserialize_with = "or_null")]
    pub rdma: BTreeMap<String, Rdma>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Network {
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    #[serde(deserialize_with = "or_null")]
    pub priorities: Vec<NetworkPriority>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NetworkPriority {
    pub name: String,
    pub priority: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rdma {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeviceRule {
    pub allow: bool,
    #[serde(rename = "type")]
    pub kind: Option<DeviceRuleKind>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    #[serde(default, deserialize_with = "or_null")]
    pub access: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum DeviceRuleKind {
    #[serde(rename = "a", alias = "")]
    All,
    #[serde(rename = "c", alias = "u")]
    Character,
    #[serde(rename = "b")]
    Block,
}

/// Sizes of -1 are no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", deserialize_with = "or_null")]
    pub disable_oom_killer: bool,
    /// So it is since Linux 5.11, and cannot be otherwise.
    pub use_hierarchy: Option<bool>,
    #[serde(deserialize_with = "or_null")]
    pub check_before_update: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    #[serde(deserialize_with = "or_null")]
    pub cpus: String,
    #[serde(deserialize_with = "or_null")]
    pub mems: String,
    pub idle: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pids {
    pub limit: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
    #[serde(deserialize_with = "or_null")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "or_null")]
    pub throttle_read_bps_device: Vec<Throttle>,
    #[serde(deserialize_with = "or_null")]
    pub throttle_write_bps_device: Vec<Throttle>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "or_null")]
    pub throttle_read_iops_device: Vec<Throttle>,
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "or_null")]
    pub throttle_write_iops_device: Vec<Throttle>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Throttle {
    pub major: u32,
    pub minor: u32,
    pub rate: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugePageLimit {
    #[serde(alias = "pagesize")]
    pub page_size: String,
    pub limit: u64,
}
