//! `linux.resources`: from limits to what is written into which file of which hierarchy.

use super::config::{BlockIo, Cpu, DeviceRule, DeviceRuleKind, HugePageLimit, Invalid, Memory, Pids, Resources};
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::{Controller, Version};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};

/// One file and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// `linux.resources.memory.limit`
    pub field: String,
    pub controller: Controller,
    pub file: String,
    pub value: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{field}: invalid configuration for this host, which has no {file}")]
    Missing { field: String, file: String },
    #[error("{field}: writing {value:?} to {file}")]
    Write { field: String, file: String, value: String, source: io::Error },
    #[error("{field}: {limit} is below the {used} in use")]
    InUse { field: &'static str, limit: i64, used: i64 },
}

/// The controllers that these limits take.
pub(super) fn controllers(resources: &Resources) -> BTreeSet<Controller> {
    let Resources { devices, memory, cpu, pids, block_io, hugepage_limits, unified: _, network: _, rdma: _ } =
        resources;
    let cpuset = !cpu.cpus.is_empty() || !cpu.mems.is_empty();
    let asked = [
        (Controller::Devices, !devices.is_empty()),
        (Controller::Memory, *memory != Memory::default()),
        (Controller::Cpu, *cpu != Cpu::default()),
        (Controller::Cpuset, cpuset),
        (Controller::Pids, *pids != Pids::default()),
        (Controller::Io, *block_io != BlockIo::default()),
        (Controller::Hugetlb, !hugepage_limits.is_empty()),
    ];
    asked.into_iter().filter(|(_, is)| *is).map(|(controller, _)| controller).collect()
}

/// Refuses what no host can do with them, or we can't.
pub(super) fn check(resources: &Resources) -> Result<(), Invalid> {
    let at = |field: &str| format!("linux.resources.{field}");
    resources.network.refuse(at("network"))?;
    resources.rdma.refuse(at("rdma"))?;
    let Memory { limit, swap, kernel, kernel_tcp, swappiness, use_hierarchy, .. } = &resources.memory;
    for (value, field) in [(kernel, "memory.kernel"), (kernel_tcp, "memory.kernelTCP")] {
        if value.is_some_and(|value| value > 0) {
            return Err(Invalid::new(at(field), "no kernel has such a limit any more"));
        }
    }
    if *use_hierarchy == Some(false) {
        return Err(Invalid::new(at("memory.useHierarchy"), "no kernel can do without any more"));
    }
    if swappiness.is_some_and(|value| value > 100) {
        return Err(Invalid::new(at("memory.swappiness"), "not from 0 to 100"));
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && *swap > 0
        && *limit > 0
        && swap < limit
    {
        let what = format!("{swap} is memory and swap together, and less than the memory's {limit}");
        return Err(Invalid::new(at("memory.swap"), what));
    }
    if swap.is_some_and(|swap| swap > 0) && limit.is_none_or(|limit| limit <= 0) {
        return Err(Invalid::new(at("memory.swap"), "takes memory.limit beside it"));
    }
    resources.cpu.realtime_runtime.refuse(at("cpu.realtimeRuntime"))?;
    resources.cpu.realtime_period.refuse(at("cpu.realtimePeriod"))?;
    if resources.cpu.idle.is_some_and(|idle| !(0..=1).contains(&idle)) {
        return Err(Invalid::new(at("cpu.idle"), "not 0 or 1"));
    }
    resources.block_io.leaf_weight.refuse(at("blockIO.leafWeight"))?;
    for (index, device) in resources.block_io.weight_device.iter().enumerate() {
        device.leaf_weight.refuse(at(&format!("blockIO.weightDevice[{index}].leafWeight")))?;
    }
    for name in resources.unified.keys() {
        if name.contains('/') || !name.contains('.') || name.starts_with('.') || name.starts_with("cgroup.") {
            return Err(Invalid::new(at(&format!("unified[{name:?}]")), "not the name of a controller's file"));
        }
    }
    for (index, rule) in resources.devices.iter().enumerate() {
        if rule.access.chars().any(|c| !"rwm".contains(c)) {
            let what = format!("{:?} is not made of r, w and m", rule.access);
            return Err(Invalid::new(at(&format!("devices[{index}].access")), what));
        }
    }
    Ok(())
}

/// Writes the limits; `update` changes those of a container that runs.
pub(super) fn apply(place: &Place, resources: &Resources, moment: Moment) -> Result<(), LimitError> {
    check(resources)?;
    if resources.memory.check_before_update && moment == Moment::Update {
        check_memory(place, &resources.memory)?;
    }
    if !resources.devices.is_empty() {
        devices(place, &resources.devices)?;
    }
    let mut refused: Vec<Setting> = Vec::new();
    for setting in settings(place, resources)? {
        let directory = home(place, &setting)?;
        match write(directory, &setting) {
            Ok(()) => {}
            // Two limits that bound each other, and the other one has to move first.
            Err(error) if is_in_the_way(&error) => refused.push(setting),
            Err(source) => return Err(failed(directory, setting, source)),
        }
    }
    for setting in refused {
        let directory = home(place, &setting)?;
        write(directory, &setting).map_err(|source| failed(directory, setting, source))?;
    }
    unified(place, resources)
}

/// When limits are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Create,
    Update,
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ResourceBusy)
}

fn failed(directory: &Directory, setting: Setting, source: io::Error) -> LimitError {
    let Setting { field, file, value, .. } = setting;
    let file = format!("{}/{file}", directory.full());
    if source.kind() == io::ErrorKind::NotFound {
        LimitError::Missing { field, file }
    } else {
        LimitError::Write { field, file, value, source }
    }
}

fn home<'a>(place: &'a Place, setting: &Setting) -> Result<&'a Directory, LimitError> {
    let Setting { field, file, controller, .. } = setting;
    place.home(*controller).ok_or_else(|| LimitError::Missing { field: field.clone(), file: file.clone() })
}

fn write(directory: &Directory, setting: &Setting) -> io::Result<()> {
    write_file(&format!("{}/{}", directory.full(), setting.file), &setting.value)
}

fn write_file(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn read_number(directory: &Directory, file: &str) -> Option<i64> {
    std::fs::read_to_string(format!("{}/{file}", directory.full())).ok()?.trim().parse().ok()
}

fn check_memory(place: &Place, memory: &Memory) -> Result<(), LimitError> {
    let (Some(limit), Some(directory)) = (memory.limit.filter(|limit| *limit >= 0), place.home(Controller::Memory))
    else {
        return Ok(());
    };
    let file = match directory.version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    };
    match read_number(directory, file) {
        Some(used) if used > limit => Err(LimitError::InUse { field: "linux.resources.memory.limit", limit, used }),
        _ => Ok(()),
    }
}

fn version(place: &Place, controller: Controller) -> Version {
    place.home(controller).map_or(Version::V2, |directory| directory.version)
}

/// Every file that these limits are written to. A controller that no hierarchy has shows when the
/// file is written.
fn settings(place: &Place, resources: &Resources) -> Result<Vec<Setting>, Invalid> {
    let mut all = Vec::new();
    memory(&mut all, version(place, Controller::Memory), &resources.memory)?;
    cpu(&mut all, version(place, Controller::Cpu), &resources.cpu);
    if let Some(limit) = resources.pids.limit.filter(|limit| *limit != 0) {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        push(&mut all, "pids.limit", Controller::Pids, "pids.max", value);
    }
    block_io(&mut all, version(place, Controller::Io), &resources.block_io);
    for (index, HugePageLimit { page_size, limit }) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let plain = page_size.chars().all(|c| c.is_ascii_alphanumeric()) && page_size.ends_with('B');
        if !plain {
            return Err(Invalid::new(format!("linux.resources.{field}.pageSize"), format!("{page_size:?} is no size")));
        }
        let file = match version(place, Controller::Hugetlb) {
            Version::V1 => format!("hugetlb.{page_size}.limit_in_bytes"),
            Version::V2 => format!("hugetlb.{page_size}.max"),
        };
        push(&mut all, &field, Controller::Hugetlb, &file, limit.to_string());
    }
    Ok(all)
}

fn push(all: &mut Vec<Setting>, field: &str, controller: Controller, file: &str, value: impl Into<String>) {
    let field = format!("linux.resources.{field}");
    all.push(Setting { field, controller, file: file.to_owned(), value: value.into() });
}

fn memory(all: &mut Vec<Setting>, version: Version, memory: &Memory) -> Result<(), Invalid> {
    let Memory { limit, reservation, swap, swappiness, disable_oom_killer, .. } = memory;
    let controller = Controller::Memory;
    let bytes = |value: i64| match (value < 0, version) {
        (false, _) => value.to_string(),
        (true, Version::V1) => "-1".to_owned(),
        (true, Version::V2) => "max".to_owned(),
    };
    let limit = limit.filter(|limit| *limit != 0);
    let swap = swap.filter(|swap| *swap != 0);
    match version {
        Version::V1 => {
            if let Some(limit) = limit {
                push(all, "memory.limit", controller, "memory.limit_in_bytes", bytes(limit));
                // An unlimited memory takes an unlimited sum.
                let swap = swap.or((limit < 0).then_some(-1));
                if let Some(swap) = swap {
                    push(all, "memory.swap", controller, "memory.memsw.limit_in_bytes", bytes(swap));
                }
            } else if let Some(swap) = swap {
                push(all, "memory.swap", controller, "memory.memsw.limit_in_bytes", bytes(swap));
            }
            if let Some(reservation) = reservation.filter(|value| *value != 0) {
                push(all, "memory.reservation", controller, "memory.soft_limit_in_bytes", bytes(reservation));
            }
            if let Some(swappiness) = swappiness {
                push(all, "memory.swappiness", controller, "memory.swappiness", swappiness.to_string());
            }
            if *disable_oom_killer {
                push(all, "memory.disableOOMKiller", controller, "memory.oom_control", "1");
            }
        }
        Version::V2 => {
            if let Some(limit) = limit {
                push(all, "memory.limit", controller, "memory.max", bytes(limit));
            }
            if let Some(swap) = swap {
                let alone = if swap < 0 { swap } else { swap - limit.unwrap_or(0).max(0) };
                push(all, "memory.swap", controller, "memory.swap.max", bytes(alone));
            }
            if let Some(reservation) = reservation.filter(|value| *value != 0) {
                push(all, "memory.reservation", controller, "memory.low", bytes(reservation));
            }
            if swappiness.is_some() {
                return Err(Invalid::new("linux.resources.memory.swappiness", "there is none in the v2 hierarchy"));
            }
            if *disable_oom_killer {
                return Err(Invalid::new("linux.resources.memory.disableOOMKiller", "not in the v2 hierarchy"));
            }
        }
    }
    Ok(())
}

fn cpu(all: &mut Vec<Setting>, version: Version, cpu: &Cpu) {
    let Cpu { shares, quota, burst, period, realtime_runtime: _, realtime_period: _, cpus, mems, idle } = cpu;
    let controller = Controller::Cpu;
    let quota = quota.filter(|quota| *quota != 0);
    let period = period.filter(|period| *period != 0);
    match version {
        Version::V1 => {
            if let Some(shares) = shares.filter(|shares| *shares != 0) {
                push(all, "cpu.shares", controller, "cpu.shares", shares.to_string());
            }
            if let Some(period) = period {
                push(all, "cpu.period", controller, "cpu.cfs_period_us", period.to_string());
            }
            if let Some(quota) = quota {
                push(all, "cpu.quota", controller, "cpu.cfs_quota_us", quota.max(-1).to_string());
            }
            if let Some(burst) = burst {
                push(all, "cpu.burst", controller, "cpu.cfs_burst_us", burst.to_string());
            }
        }
        Version::V2 => {
            if let Some(shares) = shares.filter(|shares| *shares != 0) {
                push(all, "cpu.shares", controller, "cpu.weight", weight(shares).to_string());
            }
            if quota.is_some() || period.is_some() {
                let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
                let value = period.map_or(quota.clone(), |period| format!("{quota} {period}"));
                push(all, "cpu.quota", controller, "cpu.max", value);
            }
            if let Some(burst) = burst {
                push(all, "cpu.burst", controller, "cpu.max.burst", burst.to_string());
            }
        }
    }
    if let Some(idle) = idle {
        push(all, "cpu.idle", controller, "cpu.idle", idle.to_string());
    }
    for (value, field, file) in [(cpus, "cpu.cpus", "cpuset.cpus"), (mems, "cpu.mems", "cpuset.mems")] {
        if !value.is_empty() {
            push(all, field, Controller::Cpuset, file, value.clone());
        }
    }
}

/// Shares of v1 (2 to 262144, 1024 by default) as a weight of v2 (1 to 10000, 100 by default): a curve
/// through the three pairs, the one that other runtimes have agreed on.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            let wanted = 10_f64.powf(exponent).ceil();
            (1..=10_000_u32).find(|weight| f64::from(*weight) >= wanted).map_or(10_000, u64::from)
        }
    }
}

fn block_io(all: &mut Vec<Setting>, version: Version, io: &BlockIo) {
    let BlockIo {
        weight,
        leaf_weight: _,
        weight_device,
        throttle_read_bps_device,
        throttle_write_bps_device,
        throttle_read_iops_device,
        throttle_write_iops_device,
    } = io;
    let controller = Controller::Io;
    if let Some(weight) = weight.filter(|weight| *weight != 0) {
        match version {
            Version::V1 => push(all, "blockIO.weight", controller, "blkio.weight", weight.to_string()),
            Version::V2 => {
                push(all, "blockIO.weight", controller, "io.weight", format!("default {}", io_weight(weight)))
            }
        }
    }
    for (index, device) in weight_device.iter().enumerate() {
        let Some(weight) = device.weight else { continue };
        let field = format!("blockIO.weightDevice[{index}]");
        let (major, minor) = (device.major, device.minor);
        match version {
            Version::V1 => push(all, &field, controller, "blkio.weight_device", format!("{major}:{minor} {weight}")),
            Version::V2 => push(all, &field, controller, "io.weight", format!("{major}:{minor} {}", io_weight(weight))),
        }
    }
    let lists = [
        (throttle_read_bps_device, "throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        (throttle_write_bps_device, "throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        (throttle_read_iops_device, "throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        (throttle_write_iops_device, "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ];
    for (list, name, file, key) in lists {
        for (index, throttle) in list.iter().enumerate() {
            let field = format!("blockIO.{name}[{index}]");
            let device = format!("{}:{}", throttle.major, throttle.minor);
            match version {
                Version::V1 => push(all, &field, controller, file, format!("{device} {}", throttle.rate)),
                Version::V2 => push(all, &field, controller, "io.max", format!("{device} {key}={}", throttle.rate)),
            }
        }
    }
}

/// 10 to 1000 of v1 as 1 to 10000 of v2, in a straight line.
fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight).clamp(10, 1000);
    1 + (weight - 10) * 9999 / 990
}

fn unified(place: &Place, resources: &Resources) -> Result<(), LimitError> {
    for (file, value) in &resources.unified {
        let field = format!("linux.resources.unified[{file:?}]");
        let Some(directory) = place.unified() else {
            return Err(LimitError::Missing { field, file: format!("v2 hierarchy, and no {file}") });
        };
        let path = format!("{}/{file}", directory.full());
        // Some files take a line per device.
        for line in value.lines().filter(|line| !line.is_empty()) {
            match write_file(&path, line) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(LimitError::Missing { field, file: path });
                }
                Err(source) => return Err(LimitError::Write { field, file: path, value: line.to_owned(), source }),
            }
        }
    }
    Ok(())
}

fn devices(place: &Place, rules: &[DeviceRule]) -> Result<(), LimitError> {
    let Some(directory) = place.home(Controller::Devices) else {
        let what =
            "device rules take the v1 devices hierarchy, and this host has none; rules for v2 are not supported yet";
        return Err(Invalid::new("linux.resources.devices", what).into());
    };
    let full = directory.full();
    let put = |file: &str, value: &str, field: String| {
        let path = format!("{full}/{file}");
        write_file(&path, value).map_err(|source| LimitError::Write {
            field,
            file: path,
            value: value.to_owned(),
            source,
        })
    };
    for (index, rule) in rules.iter().enumerate() {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        put(file, &line(rule), format!("linux.resources.devices[{index}]"))?;
    }
    if rules.iter().all(|rule| rule.allow) {
        return Ok(());
    }
    // The devices that every container has by default may be opened whatever the rules say.
    crate::cgroup::ALLOWED_DEVICES
        .iter()
        .try_for_each(|value| put("devices.allow", value, "linux.resources.devices".to_owned()))
}

fn line(rule: &DeviceRule) -> String {
    let DeviceRule { allow: _, kind, major, minor, access } = rule;
    let number = |value: &Option<i64>| value.filter(|value| *value >= 0).map_or("*".to_owned(), |v| v.to_string());
    let kind = match kind {
        None | Some(DeviceRuleKind::All) => return "a".to_owned(),
        Some(DeviceRuleKind::Character) => 'c',
        Some(DeviceRuleKind::Block) => 'b',
    };
    let access = if access.is_empty() { "rwm" } else { access };
    format!("{kind} {}:{} {access}", number(major), number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_through_the_three_fixed_points() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn both_versions_have_each_limit_in_their_own_words() {
        let memory_limits = Memory { limit: Some(100), swap: Some(300), reservation: Some(50), ..Memory::default() };
        let pairs = |version| {
            let mut all = Vec::new();
            memory(&mut all, version, &memory_limits).unwrap();
            all.into_iter().map(|setting| (setting.file, setting.value)).collect::<Vec<_>>()
        };
        let own = |list: &[(&str, &str)]| {
            list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };

        assert_eq!(
            pairs(Version::V1),
            own(&[
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "300"),
                ("memory.soft_limit_in_bytes", "50")
            ])
        );
        assert_eq!(pairs(Version::V2), own(&[("memory.max", "100"), ("memory.swap.max", "200"), ("memory.low", "50")]));
    }

    #[test]
    fn a_sum_below_the_memory_is_refused() {
        let memory = Memory { limit: Some(200), swap: Some(100), ..Memory::default() };
        let error = check(&Resources { memory, ..Resources::default() }).unwrap_err();

        assert_eq!(
            error.to_string(),
            "linux.resources.memory.swap: 100 is memory and swap together, and less than the memory's 200"
        );
    }
}
