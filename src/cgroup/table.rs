//! The table of knobs: a manifest's field, its control file and text in v2 and in v1, how binding it
//! is. Pure; every row is class `live`.

use crate::spec::change::Class;
use crate::spec::{Bytes, HugePages, IoLimit, Resources, Weight};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A part of the kernel that limits one kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
    Io,
    Hugetlb,
    Devices,
    Freezer,
    Cpuacct,
    Rdma,
    Misc,
    NetCls,
    NetPrio,
}

/// The two generations of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
}

/// What a container is when the host lacks a knob that it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Not created: without it, it could harm its neighbours.
    Hard,
    /// Created, and said in a condition.
    Advisory,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Below `spec.resources`.
    pub field: &'static str,
    pub controller: Controller,
    pub strength: Strength,
    pub class: Class,
    asked: fn(&Resources) -> bool,
    v2: Texts,
    v1: Texts,
}

/// Every file of the knob with what it is to say, whether or not the field is set; or why this kind
/// of hierarchy cannot express it. Of several files each is written where it exists.
type Texts = fn(&Asked<'_>) -> Result<Vec<Setting>, &'static str>;

/// Limits with everything resolved that the texts need.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub resources: &'a Resources,
    pub disks: &'a BTreeMap<DeviceNumber, DeviceLimits>,
    /// The page sizes that the host has limits for, asked for or not.
    pub page_sizes: &'a BTreeSet<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub file: Cow<'static, str>,
    pub value: Value,
}

/// What a control file is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number of bytes; `None` is no limit.
    Bytes(Option<u64>),
    /// This text, compared with the file's first line.
    Text(String),
    /// A line per device, the device's number first; `clear` is what takes a line away.
    Lines { lines: BTreeMap<DeviceNumber, String>, clear: &'static str },
    /// What the directory above says: a v1 cpuset knows no "not set".
    Inherited,
}

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// Limits of one disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceLimits {
    pub read_bps: Option<u64>,
    pub write_bps: Option<u64>,
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
}

/// In the order of writing.
pub const KNOBS: [Knob; 13] = [
    Knob {
        field: "cpu.cpuset",
        controller: Controller::Cpuset,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.cpu.cpuset.is_some(),
        v2: |a| one("cpuset.cpus", text(a.resources.cpu.cpuset.as_ref(), "")),
        v1: |a| one("cpuset.cpus", or_inherited(a.resources.cpu.cpuset.as_ref())),
    },
    Knob {
        field: "cpu.mems",
        controller: Controller::Cpuset,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.cpu.mems.is_some(),
        v2: |a| one("cpuset.mems", text(a.resources.cpu.mems.as_ref(), "")),
        v1: |a| one("cpuset.mems", or_inherited(a.resources.cpu.mems.as_ref())),
    },
    Knob {
        field: "cpu.limit",
        controller: Controller::Cpu,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.cpu.limit.is_some(),
        v2: |a| {
            let quota = quota_us(a.resources).map_or_else(|| "max".to_owned(), |us| us.to_string());
            one("cpu.max", Value::Text(format!("{quota} {PERIOD_US}")))
        },
        v1: |a| {
            // The period first: a quota is checked against it.
            Ok(vec![
                setting("cpu.cfs_period_us", Value::Text(PERIOD_US.to_string())),
                setting("cpu.cfs_quota_us", text(quota_us(a.resources).as_ref(), "-1")),
            ])
        },
    },
    Knob {
        field: "cpu.weight",
        controller: Controller::Cpu,
        strength: Strength::Advisory,
        class: Class::Live,
        asked: |r| r.cpu.weight.is_some(),
        v2: |a| one("cpu.weight", Value::Text(weight(a.resources.cpu.weight).to_string())),
        v1: |a| one("cpu.shares", Value::Text(shares(a.resources.cpu.weight.unwrap_or(Weight::DEFAULT)))),
    },
    Knob {
        field: "memory.limit",
        controller: Controller::Memory,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.memory.limit.is_some(),
        v2: |a| one("memory.max", bytes(a.resources.memory.limit)),
        v1: |a| one("memory.limit_in_bytes", bytes(a.resources.memory.limit)),
    },
    Knob {
        field: "memory.swap",
        controller: Controller::Memory,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.memory.swap.is_some(),
        v2: |a| one("memory.swap.max", bytes(a.resources.memory.swap)),
        v1: |a| {
            let memory = &a.resources.memory;
            match (memory.limit, memory.swap) {
                (_, None) => one("memory.memsw.limit_in_bytes", Value::Bytes(None)),
                (Some(limit), Some(swap)) => {
                    one("memory.memsw.limit_in_bytes", Value::Bytes(Some(limit.0.saturating_add(swap.0))))
                }
                (None, Some(_)) => Err("cgroup v1 limits memory and swap together: give memory.limit as well"),
            }
        },
    },
    Knob {
        field: "memory.high",
        controller: Controller::Memory,
        strength: Strength::Advisory,
        class: Class::Live,
        asked: |r| r.memory.high.is_some(),
        v2: |a| one("memory.high", bytes(a.resources.memory.high)),
        v1: |_| Err("cgroup v1 has no such knob"),
    },
    Knob {
        field: "memory.low",
        controller: Controller::Memory,
        strength: Strength::Advisory,
        class: Class::Live,
        asked: |r| r.memory.low.is_some(),
        v2: |a| one("memory.low", protection(a.resources.memory.low)),
        // Above its soft limit a group is reclaimed first: the nearest that v1 has.
        v1: |a| one("memory.soft_limit_in_bytes", bytes(a.resources.memory.low)),
    },
    Knob {
        field: "memory.min",
        controller: Controller::Memory,
        strength: Strength::Advisory,
        class: Class::Live,
        asked: |r| r.memory.min.is_some(),
        v2: |a| one("memory.min", protection(a.resources.memory.min)),
        v1: |_| Err("cgroup v1 has no such knob"),
    },
    Knob {
        field: "pids.limit",
        controller: Controller::Pids,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| r.pids.limit.is_some(),
        v2: |a| one("pids.max", text(a.resources.pids.limit.map(|count| count.get()).as_ref(), "max")),
        v1: |a| one("pids.max", text(a.resources.pids.limit.map(|count| count.get()).as_ref(), "max")),
    },
    Knob {
        field: "io.weight",
        controller: Controller::Io,
        strength: Strength::Advisory,
        class: Class::Live,
        asked: |r| r.io.weight.is_some(),
        v2: |a| {
            // One is iocost's, the other the BFQ scheduler's: which of them works is the disk's choice.
            let weight = weight(a.resources.io.weight);
            Ok(vec![
                setting("io.weight", Value::Text(format!("default {weight}"))),
                setting("io.bfq.weight", Value::Text(format!("default {}", bfq_weight(weight)))),
            ])
        },
        v1: |a| {
            let weight = weight(a.resources.io.weight);
            Ok(vec![
                setting("blkio.weight", Value::Text(cfq_weight(weight).to_string())),
                setting("blkio.bfq.weight", Value::Text(bfq_weight(weight).to_string())),
            ])
        },
    },
    Knob {
        field: "io.limits",
        controller: Controller::Io,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| !r.io.limits.is_empty(),
        v2: |a| {
            let lines = a.disks.iter().map(|(disk, limits)| (*disk, limits.to_string())).collect();
            one("io.max", Value::Lines { lines, clear: "rbps=max wbps=max riops=max wiops=max" })
        },
        v1: |a| {
            let file = |file: &'static str, part: fn(&DeviceLimits) -> Option<u64>| {
                let line = |(disk, limits): (&DeviceNumber, &DeviceLimits)| Some((*disk, part(limits)?.to_string()));
                setting(file, Value::Lines { lines: a.disks.iter().filter_map(line).collect(), clear: "0" })
            };
            Ok(vec![
                file("blkio.throttle.read_bps_device", |limits| limits.read_bps),
                file("blkio.throttle.write_bps_device", |limits| limits.write_bps),
                file("blkio.throttle.read_iops_device", |limits| limits.read_iops),
                file("blkio.throttle.write_iops_device", |limits| limits.write_iops),
            ])
        },
    },
    Knob {
        field: "hugepages",
        controller: Controller::Hugetlb,
        strength: Strength::Hard,
        class: Class::Live,
        asked: |r| !r.hugepages.is_empty(),
        v2: |a| Ok(hugepages(a, "max")),
        v1: |a| Ok(hugepages(a, "limit_in_bytes")),
    },
];

/// The kernel's own default (cpu.max).
const PERIOD_US: u32 = 100_000;

impl Knob {
    pub fn is_asked(&self, resources: &Resources) -> bool {
        (self.asked)(resources)
    }

    /// The knob's files and what they are to say, or why this version cannot say it.
    pub fn settings(&self, version: Version, asked: &Asked<'_>) -> Result<Vec<Setting>, &'static str> {
        match version {
            Version::V2 => (self.v2)(asked),
            Version::V1 => (self.v1)(asked),
        }
    }
}

impl Controller {
    /// Every controller that a container's limits may need.
    pub const LIMITS: [Self; 6] = [Self::Cpu, Self::Cpuset, Self::Memory, Self::Pids, Self::Io, Self::Hugetlb];

    pub const EVERY: [Self; 13] = [
        Self::Cpu,
        Self::Cpuset,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::Devices,
        Self::Freezer,
        Self::Cpuacct,
        Self::Rdma,
        Self::Misc,
        Self::NetCls,
        Self::NetPrio,
    ];

    /// Those of the v2 hierarchy that every container has, asked for or not.
    pub const USUAL: [Self; 5] = [Self::Cpu, Self::Cpuset, Self::Memory, Self::Pids, Self::Io];

    /// Those that limits of a manifest do not need.
    pub const OTHERS: [Self; 4] = [Self::Rdma, Self::Misc, Self::NetCls, Self::NetPrio];

    /// Those whose v1 hierarchies every container is in. The last two matter only without a v2
    /// hierarchy, which kills and counts CPU time.
    pub const ALWAYS: [Self; 5] = [Self::Cpu, Self::Memory, Self::Pids, Self::Freezer, Self::Cpuacct];

    /// Its name in `cgroup.controllers`, or among the mount options of a v1 hierarchy.
    pub fn name(self, version: Version) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io if version == Version::V1 => "blkio",
            Self::Io => "io",
            Self::Hugetlb => "hugetlb",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Cpuacct => "cpuacct",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }
}

impl Value {
    /// What to write so that a file that says `now` says this; nothing where it does already.
    /// `above` is what the same file of the directory above says.
    pub fn writes(&self, version: Version, now: &str, above: &str) -> Vec<String> {
        match self {
            Self::Bytes(limit) => {
                let same = parse_bytes(now) == Some(*limit);
                if same { Vec::new() } else { vec![bytes_text(*limit, version)] }
            }
            Self::Text(text) => {
                let line = now.lines().next().unwrap_or("");
                // Kernels before 6.x answer io.bfq.weight without the word.
                let same = line == text || text.strip_prefix("default ") == Some(line);
                if same { Vec::new() } else { vec![text.clone()] }
            }
            Self::Lines { lines, clear } => {
                let present: BTreeMap<DeviceNumber, &str> = now.lines().filter_map(device_line).collect();
                let stale = present.keys().filter(|device| !lines.contains_key(device));
                let cleared = stale.map(|device| format!("{device} {clear}"));
                let changed = lines.iter().filter(|(device, line)| present.get(device) != Some(&line.as_str()));
                cleared.chain(changed.map(|(device, line)| format!("{device} {line}"))).collect()
            }
            Self::Inherited => {
                if now == above {
                    Vec::new()
                } else {
                    vec![above.to_owned()]
                }
            }
        }
    }
}

fn device_line(line: &str) -> Option<(DeviceNumber, &str)> {
    let (device, rest) = line.split_once(' ')?;
    Some((DeviceNumber::parse(device)?, rest))
}

/// A number of bytes as the kernel writes it; `Some(None)` is no limit.
///
/// v1 has no word for it: no limit is the largest number of whole pages that fits in 63 bits.
pub fn parse_bytes(text: &str) -> Option<Option<u64>> {
    const V1_NO_LIMIT: u64 = 1 << 62;
    match text {
        "max" => Some(None),
        digits => digits.parse().ok().map(|number| (number < V1_NO_LIMIT).then_some(number)),
    }
}

/// A number of bytes as the kernel reads it.
pub fn bytes_text(limit: Option<u64>, version: Version) -> String {
    match (limit, version) {
        (Some(bytes), _) => bytes.to_string(),
        (None, Version::V2) => "max".to_owned(),
        (None, Version::V1) => "-1".to_owned(),
    }
}

fn setting(file: &'static str, value: Value) -> Setting {
    Setting { file: Cow::Borrowed(file), value }
}

#[allow(clippy::unnecessary_wraps, reason = "a row's function may fail, and most rows have one file")]
fn one(file: &'static str, value: Value) -> Result<Vec<Setting>, &'static str> {
    Ok(vec![setting(file, value)])
}

fn text<T: ToString>(value: Option<&T>, unset: &str) -> Value {
    Value::Text(value.map_or_else(|| unset.to_owned(), T::to_string))
}

fn or_inherited<T: ToString>(value: Option<&T>) -> Value {
    value.map_or(Value::Inherited, |value| Value::Text(value.to_string()))
}

fn bytes(limit: Option<Bytes>) -> Value {
    Value::Bytes(limit.map(|bytes| bytes.0))
}

/// Protection is none by default, and not all.
fn protection(bytes: Option<Bytes>) -> Value {
    Value::Bytes(Some(bytes.map_or(0, |bytes| bytes.0)))
}

fn quota_us(resources: &Resources) -> Option<u64> {
    resources.cpu.limit.map(|limit| u64::from(limit.0) * u64::from(PERIOD_US) / 1000)
}

fn weight(weight: Option<Weight>) -> u16 {
    weight.unwrap_or(Weight::DEFAULT).get()
}

/// `cpu.shares` (2 to 262144, 1024 by default) for a weight (1 to 10000, 100 by default).
///
/// OCI runtimes turn shares into a weight by a curve through the three pairs of minimum, default
/// and maximum: log10(weight) = (l² + 125·l) / 612 − 7/34, where l = log2(shares) (runc 1.3.2, crun
/// 1.24). This is its inverse, rounded so that their formula leads back to the same weight.
pub fn shares(weight: Weight) -> String {
    let exponent = f64::from(weight.get()).log10();
    let l = ((125.0_f64.powi(2) + 4.0 * (612.0 * exponent + 126.0)).sqrt() - 125.0) / 2.0;
    format!("{:.0}", (l.exp2() + 1e-6).floor())
}

/// BFQ takes 1 to 1000 with the same default of 100: kept below it, squeezed above it.
fn bfq_weight(weight: u16) -> u16 {
    if weight <= 100 { weight } else { 100 + (weight - 100) / 11 }
}

/// CFQ, which Linux 5.0 removed and some vendors kept, takes 10 to 1000 with 500 as default.
fn cfq_weight(weight: u16) -> u16 {
    (u32::from(weight) * 5).clamp(10, 1000).try_into().unwrap_or(1000)
}

fn hugepages(asked: &Asked<'_>, suffix: &str) -> Vec<Setting> {
    let limits: &HugePages = &asked.resources.hugepages;
    let sizes: BTreeSet<u64> = asked.page_sizes.iter().copied().chain(limits.keys().map(|size| size.0)).collect();
    let row = |size: u64| Setting {
        file: Cow::Owned(format!("hugetlb.{}.{suffix}", page_size_text(size))),
        value: bytes(limits.get(&Bytes(size)).copied()),
    };
    sizes.into_iter().map(row).collect()
}

/// A page size as it stands in the names of control files.
fn page_size_text(size: u64) -> String {
    match size {
        size if size >= 1 << 30 => format!("{}GB", size >> 30),
        size if size >= 1 << 20 => format!("{}MB", size >> 20),
        size => format!("{}KB", size >> 10),
    }
}

/// The page size in the name of a control file that limits it.
pub fn page_size(file: &str) -> Option<u64> {
    let (size, suffix) = file.strip_prefix("hugetlb.")?.split_once('.')?;
    if suffix != "max" && suffix != "limit_in_bytes" {
        return None;
    }
    let (digits, shift) = [("GB", 30), ("MB", 20), ("KB", 10)]
        .iter()
        .find_map(|(unit, shift)| Some((size.strip_suffix(unit)?, *shift)))?;
    digits.parse::<u64>().ok()?.checked_shl(shift)
}

impl DeviceNumber {
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl From<&IoLimit> for DeviceLimits {
    fn from(limit: &IoLimit) -> Self {
        let IoLimit { path: _, read_bps, write_bps, read_iops, write_iops } = limit;
        Self {
            read_bps: read_bps.map(|bytes| bytes.0),
            write_bps: write_bps.map(|bytes| bytes.0),
            read_iops: read_iops.map(|count| count.get()),
            write_iops: write_iops.map(|count| count.get()),
        }
    }
}

impl DeviceLimits {
    /// The smaller of each.
    pub fn tighter(&self, other: &Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            read_bps: least(self.read_bps, other.read_bps),
            write_bps: least(self.write_bps, other.write_bps),
            read_iops: least(self.read_iops, other.read_iops),
            write_iops: least(self.write_iops, other.write_iops),
        }
    }
}

/// A line of `io.max`, as the kernel itself prints it.
impl fmt::Display for DeviceLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        write!(
            f,
            "rbps={} wbps={} riops={} wiops={}",
            part(self.read_bps),
            part(self.write_bps),
            part(self.read_iops),
            part(self.write_iops)
        )
    }
}

#[cfg(test)]
mod tests;
