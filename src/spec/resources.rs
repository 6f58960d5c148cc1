//! What a container may use. Everything here is changed in place (class `live`).
//!
//! A field that is left out is no limit: the kernel's own default.

use super::{AbsolutePath, Bytes, Count, CpuSet, MilliCpu, Weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Time on CPUs.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: Cpu,
    /// Memory and swap.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Memory,
    /// Processes and threads.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: Pids,
    /// Disks.
    #[serde(skip_serializing_if = "is_default")]
    pub io: Io,
    /// Limits of huge pages by page size: `{2Mi: 64Mi}` (cgroup `hugetlb.<size>.max`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hugepages: HugePages,
}

/// Page size to limit.
pub type HugePages = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cpu {
    /// The most CPU time it gets, in CPUs: `1.5`, `200m` (cgroup `cpu.max` at a period of 100 ms).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<MilliCpu>,
    /// Its share where CPUs are scarce, 1 to 10000; the kernel's default is 100 (`cpu.weight`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// The CPUs it may run on: `0-3,6` (`cpuset.cpus`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
    /// The memory nodes it may allocate from (`cpuset.mems`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<CpuSet>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Memory {
    /// The hard limit: above it the kernel reclaims, then kills (`memory.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bytes>,
    /// Above it the kernel slows the container down and reclaims, and never kills (`memory.high`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<Bytes>,
    /// Memory that is reclaimed last (`memory.low`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<Bytes>,
    /// Memory that is never reclaimed (`memory.min`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Bytes>,
    /// Swap beside the memory; 0 forbids it (`memory.swap.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Bytes>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pids {
    /// The most processes and threads (`pids.max`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Count>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Io {
    /// Its share of the disks, 1 to 10000; the kernel's default is 100 (`io.weight`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// Limits per disk (`io.max`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<IoLimit>,
}

/// Limits for the whole disk that holds `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IoLimit {
    /// Any path on the disk, or the block device itself.
    pub path: AbsolutePath,
    /// Bytes read per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bps: Option<Bytes>,
    /// Bytes written per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bps: Option<Bytes>,
    /// Reads per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<Count>,
    /// Writes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<Count>,
}

impl Resources {
    /// These, and above them what is set in `above`; limits of disks by path, of huge pages by size.
    pub fn with(&self, above: &Self) -> Self {
        let Self {
            cpu: Cpu { limit: cpu_limit, weight: cpu_weight, cpuset, mems },
            memory: Memory { limit: memory_limit, high, low, min, swap },
            pids: Pids { limit: pids_limit },
            io: Io { weight: io_weight, limits },
            hugepages,
        } = above.clone();
        let mut io_limits = self.io.limits.clone();
        io_limits.retain(|own| limits.iter().all(|set| set.path != own.path));
        io_limits.extend(limits);
        let mut pages = self.hugepages.clone();
        pages.extend(hugepages);
        Self {
            cpu: Cpu {
                limit: cpu_limit.or(self.cpu.limit),
                weight: cpu_weight.or(self.cpu.weight),
                cpuset: cpuset.or_else(|| self.cpu.cpuset.clone()),
                mems: mems.or_else(|| self.cpu.mems.clone()),
            },
            memory: Memory {
                limit: memory_limit.or(self.memory.limit),
                high: high.or(self.memory.high),
                low: low.or(self.memory.low),
                min: min.or(self.memory.min),
                swap: swap.or(self.memory.swap),
            },
            pids: Pids { limit: pids_limit.or(self.pids.limit) },
            io: Io { weight: io_weight.or(self.io.weight), limits: io_limits },
            hugepages: pages,
        }
    }
}

impl Memory {
    /// Less than this is a mistake in the unit.
    pub const LEAST: Bytes = Bytes(1 << 20);

    /// The thresholds that are above the limit, by name.
    pub fn above_the_limit(&self) -> impl Iterator<Item = (&'static str, Bytes, Bytes)> {
        let limit = self.limit;
        [("high", self.high), ("low", self.low), ("min", self.min)]
            .into_iter()
            .filter_map(move |(name, value)| Some((name, value?, limit?)))
            .filter(|(_, value, limit)| value > limit)
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
