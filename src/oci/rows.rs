//! The rows of `linux.resources`: which file of which controller says a limit, in v2 and in v1. Pure.

use super::config::{BlockIo, Cpu, HugePageLimit, Invalid, Memory, Network, Rdma, Resources};
use crate::cgroup::table::{Controller, Version};
use std::collections::BTreeMap;

/// One limit, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// `linux.resources.memory.limit`
    pub field: String,
    pub controller: Controller,
    /// Files with what each is to say; those that exist are written.
    pub choices: Vec<(String, String)>,
    pub need: Need,
}

/// Whether one of a setting's files has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    IfThere,
}

/// What a cgroup is at present.
pub(super) trait Now {
    fn version(&self, controller: Controller) -> Version;
    /// What a control file says.
    fn says(&self, controller: Controller, file: &str) -> Option<String>;
}

struct Rows<'a> {
    now: &'a dyn Now,
    all: Vec<Setting>,
}

/// Everything that these limits are written to, in the order of writing. What is not named is not there.
pub(super) fn settings(now: &dyn Now, resources: &Resources) -> Result<Vec<Setting>, Invalid> {
    let Resources { devices: _, memory, cpu, pids, block_io, hugepage_limits, unified: _, network, rdma } = resources;
    let mut rows = Rows { now, all: Vec::new() };
    rows.memory(memory)?;
    rows.cpu(cpu)?;
    if let Some(limit) = pids.limit.filter(|limit| *limit != 0) {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        rows.put("pids.limit", Controller::Pids, "pids.max", value);
    }
    rows.block_io(block_io)?;
    rows.huge_pages(hugepage_limits)?;
    rows.network(network);
    rows.rdma(rdma);
    Ok(rows.all)
}

fn at(field: &str) -> String {
    format!("linux.resources.{field}")
}

impl Rows<'_> {
    fn put(&mut self, field: &str, controller: Controller, file: &str, value: impl Into<String>) {
        self.put_one_of(field, controller, vec![(file.to_owned(), value.into())], Need::Must);
    }

    fn put_one_of(&mut self, field: &str, controller: Controller, choices: Vec<(String, String)>, need: Need) {
        self.all.push(Setting { field: at(field), controller, choices, need });
    }

    fn memory(&mut self, memory: &Memory) -> Result<(), Invalid> {
        let Memory {
            limit,
            reservation,
            swap,
            kernel,
            kernel_tcp,
            swappiness,
            disable_oom_killer,
            use_hierarchy: _,
            check_before_update: _,
        } = memory;
        let controller = Controller::Memory;
        let version = self.now.version(controller);
        let bytes = |value: i64| match (value < 0, version) {
            (false, _) => value.to_string(),
            (true, Version::V1) => "-1".to_owned(),
            (true, Version::V2) => "max".to_owned(),
        };
        let limit = limit.filter(|limit| *limit != 0);
        // An unlimited memory takes an unlimited sum.
        let swap = swap.filter(|swap| *swap != 0).or(limit.filter(|limit| *limit < 0).map(|_| -1));
        let reservation = reservation.filter(|value| *value != 0);
        if let Some(limit) = limit {
            let file = if version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
            self.put("memory.limit", controller, file, bytes(limit));
        }
        match version {
            Version::V1 => {
                if let Some(swap) = swap {
                    // A kernel that does not count swap limits none.
                    let need = if swap < 0 { Need::IfThere } else { Need::Must };
                    let choice = vec![("memory.memsw.limit_in_bytes".to_owned(), bytes(swap))];
                    self.put_one_of("memory.swap", controller, choice, need);
                }
                if let Some(reservation) = reservation {
                    self.put("memory.reservation", controller, "memory.soft_limit_in_bytes", bytes(reservation));
                }
                let kernel = [
                    (kernel, "memory.kernel", "memory.kmem.limit_in_bytes"),
                    (kernel_tcp, "memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
                ];
                for (value, field, file) in kernel {
                    if let Some(value) = value.filter(|value| *value > 0) {
                        self.put(field, controller, file, value.to_string());
                    }
                }
                if let Some(swappiness) = swappiness {
                    self.put("memory.swappiness", controller, "memory.swappiness", swappiness.to_string());
                }
                if *disable_oom_killer {
                    self.put("memory.disableOOMKiller", controller, "memory.oom_control", "1");
                }
            }
            Version::V2 => {
                if let Some(swap) = swap {
                    let alone = if swap < 0 { "max".to_owned() } else { self.swap_alone(swap, limit)?.to_string() };
                    // A kernel without swap has no file for it, and is as good as one that forbids it or gives all.
                    let need = if matches!(alone.as_str(), "max" | "0") { Need::IfThere } else { Need::Must };
                    let choice = vec![("memory.swap.max".to_owned(), alone)];
                    self.put_one_of("memory.swap", controller, choice, need);
                }
                if let Some(reservation) = reservation {
                    self.put("memory.reservation", controller, "memory.low", bytes(reservation));
                }
                let not_there = [
                    ("memory.kernel", kernel.is_some_and(|value| value > 0)),
                    ("memory.kernelTCP", kernel_tcp.is_some_and(|value| value > 0)),
                    ("memory.swappiness", swappiness.is_some()),
                    ("memory.disableOOMKiller", *disable_oom_killer),
                ];
                if let Some((field, _)) = not_there.iter().find(|(_, asked)| *asked) {
                    return Err(Invalid::new(at(field), "the v2 hierarchy has no such knob"));
                }
            }
        }
        Ok(())
    }

    /// v2 limits swap alone, and the specification memory and swap together.
    fn swap_alone(&self, sum: i64, limit: Option<i64>) -> Result<i64, Invalid> {
        let known = || self.now.says(Controller::Memory, "memory.max").and_then(|text| text.trim().parse().ok());
        let Some(limit) = limit.filter(|limit| *limit > 0).or_else(known) else {
            return Err(Invalid::new(at("memory.swap"), "takes a limit of the memory beside it"));
        };
        if sum < limit {
            let what = format!("{sum} is memory and swap together, and less than the memory's {limit}");
            return Err(Invalid::new(at("memory.swap"), what));
        }
        Ok(sum - limit)
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<(), Invalid> {
        let Cpu { shares, quota, burst, period, realtime_runtime, realtime_period, cpus, mems, idle } = cpu;
        let controller = Controller::Cpu;
        let quota = quota.filter(|quota| *quota != 0);
        let period = period.filter(|period| *period != 0);
        let shares = shares.filter(|shares| *shares != 0);
        // The kernel gives the weight of an idle cgroup, and takes no other.
        let shares = shares.filter(|_| *idle != Some(1));
        let realtime = [
            (
                realtime_period.filter(|value| *value != 0).map(|value| value.to_string()),
                "cpu.realtimePeriod",
                "cpu.rt_period_us",
            ),
            (
                realtime_runtime.filter(|value| *value != 0).map(|value| value.to_string()),
                "cpu.realtimeRuntime",
                "cpu.rt_runtime_us",
            ),
        ];
        match self.now.version(controller) {
            Version::V1 => {
                if let Some(shares) = shares {
                    self.put("cpu.shares", controller, "cpu.shares", shares.to_string());
                }
                if let Some(period) = period {
                    self.put("cpu.period", controller, "cpu.cfs_period_us", period.to_string());
                }
                if let Some(quota) = quota {
                    self.put("cpu.quota", controller, "cpu.cfs_quota_us", quota.max(-1).to_string());
                }
                if let Some(burst) = burst {
                    self.put("cpu.burst", controller, "cpu.cfs_burst_us", burst.to_string());
                }
                for (value, field, file) in realtime {
                    if let Some(value) = value {
                        self.put(field, controller, file, value);
                    }
                }
            }
            Version::V2 => {
                if let Some((_, field, _)) = realtime.iter().find(|(value, ..)| value.is_some()) {
                    return Err(Invalid::new(at(field), "the v2 hierarchy has no such knob"));
                }
                if let Some(shares) = shares {
                    self.put("cpu.shares", controller, "cpu.weight", weight(shares).to_string());
                }
                if quota.is_some() || period.is_some() {
                    // The file takes both, or the quota alone: what is not named is what it is now.
                    let known = || {
                        let text = self.now.says(controller, "cpu.max")?;
                        text.split_whitespace().next().map(ToOwned::to_owned)
                    };
                    let quota = match quota {
                        Some(quota) if quota > 0 => quota.to_string(),
                        Some(_) => "max".to_owned(),
                        None => known().unwrap_or_else(|| "max".to_owned()),
                    };
                    let value = period.map_or(quota.clone(), |period| format!("{quota} {period}"));
                    let field = if period.is_some() && cpu.quota.is_none() { "cpu.period" } else { "cpu.quota" };
                    self.put(field, controller, "cpu.max", value);
                }
                if let Some(burst) = burst {
                    self.put("cpu.burst", controller, "cpu.max.burst", burst.to_string());
                }
            }
        }
        if let Some(idle) = idle {
            self.put("cpu.idle", controller, "cpu.idle", idle.to_string());
        }
        for (value, field, file) in [(cpus, "cpu.cpus", "cpuset.cpus"), (mems, "cpu.mems", "cpuset.mems")] {
            if !value.is_empty() {
                self.put(field, Controller::Cpuset, file, value.clone());
            }
        }
        Ok(())
    }

    fn block_io(&mut self, io: &BlockIo) -> Result<(), Invalid> {
        let BlockIo {
            weight,
            leaf_weight,
            weight_device,
            throttle_read_bps_device,
            throttle_write_bps_device,
            throttle_read_iops_device,
            throttle_write_iops_device,
        } = io;
        let controller = Controller::Io;
        let version = self.now.version(controller);
        // One is for the BFQ scheduler, and the other for what the kernel has beside it.
        let choices = |of: &str, weight: u16| match version {
            Version::V1 => vec![
                (format!("blkio.bfq.weight{}", if of.is_empty() { "" } else { "_device" }), format!("{of}{weight}")),
                (format!("blkio.weight{}", if of.is_empty() { "" } else { "_device" }), format!("{of}{weight}")),
            ],
            Version::V2 => {
                let of = if of.is_empty() { "default " } else { of };
                vec![
                    ("io.bfq.weight".to_owned(), format!("{of}{weight}")),
                    ("io.weight".to_owned(), format!("{of}{}", io_weight(weight))),
                ]
            }
        };
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            self.put_one_of("blockIO.weight", controller, choices("", weight), Need::Must);
        }
        let leaf = |rows: &mut Self, field: String, file: &str, value: String| {
            if version == Version::V2 {
                return Err(Invalid::new(at(&field), "the v2 hierarchy has no such knob"));
            }
            rows.put(&field, controller, file, value);
            Ok(())
        };
        if let Some(weight) = leaf_weight.filter(|weight| *weight != 0) {
            leaf(self, "blockIO.leafWeight".to_owned(), "blkio.leaf_weight", weight.to_string())?;
        }
        for (index, device) in weight_device.iter().enumerate() {
            let of = format!("{}:{} ", device.major, device.minor);
            if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
                let field = format!("blockIO.weightDevice[{index}].weight");
                self.put_one_of(&field, controller, choices(&of, weight), Need::Must);
            }
            if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
                let field = format!("blockIO.weightDevice[{index}].leafWeight");
                leaf(self, field, "blkio.leaf_weight_device", format!("{of}{weight}"))?;
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
                // In v1 nothing per second is no limit.
                match (version, throttle.rate) {
                    (Version::V1, rate) => self.put(&field, controller, file, format!("{device} {rate}")),
                    (Version::V2, 0) => self.put(&field, controller, "io.max", format!("{device} {key}=max")),
                    (Version::V2, rate) => self.put(&field, controller, "io.max", format!("{device} {key}={rate}")),
                }
            }
        }
        Ok(())
    }

    fn huge_pages(&mut self, limits: &[HugePageLimit]) -> Result<(), Invalid> {
        let controller = Controller::Hugetlb;
        let suffix = if self.now.version(controller) == Version::V1 { "limit_in_bytes" } else { "max" };
        for (index, HugePageLimit { page_size, limit }) in limits.iter().enumerate() {
            let field = format!("hugepageLimits[{index}]");
            let plain = page_size.chars().all(|c| c.is_ascii_alphanumeric()) && page_size.ends_with('B');
            if !plain {
                return Err(Invalid::new(at(&format!("{field}.pageSize")), format!("{page_size:?} is no size")));
            }
            self.put(&field, controller, &format!("hugetlb.{page_size}.{suffix}"), limit.to_string());
            // What is reserved by mmap and not touched yet (Linux 5.7).
            let reserved = vec![(format!("hugetlb.{page_size}.rsvd.{suffix}"), limit.to_string())];
            self.put_one_of(&field, controller, reserved, Need::IfThere);
        }
        Ok(())
    }

    fn network(&mut self, network: &Network) {
        let Network { class_id, priorities } = network;
        if let Some(class) = class_id {
            self.put("network.classID", Controller::NetCls, "net_cls.classid", class.to_string());
        }
        for (index, entry) in priorities.iter().enumerate() {
            let field = format!("network.priorities[{index}]");
            let value = format!("{} {}", entry.name, entry.priority);
            self.put(&field, Controller::NetPrio, "net_prio.ifpriomap", value);
        }
    }

    fn rdma(&mut self, devices: &BTreeMap<String, Rdma>) {
        for (name, Rdma { hca_handles, hca_objects }) in devices {
            let parts = [("hca_handle", hca_handles), ("hca_object", hca_objects)];
            let parts = parts.iter().filter_map(|(key, value)| value.map(|value| format!(" {key}={value}")));
            let value = parts.fold(name.clone(), |text, part| text + &part);
            if value != *name {
                self.put(&format!("rdma[{name:?}]"), Controller::Rdma, "rdma.max", value);
            }
        }
    }
}

/// Shares of v1 (2 to 262144, 1024 by default) as a weight of v2 (1 to 10000, 100 by default): a curve
/// through the three pairs, the one that other runtimes have agreed on.
pub(super) fn weight(shares: u64) -> u64 {
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

/// 10 to 1000 of v1 as 1 to 10000 of v2, in a straight line.
fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight).clamp(10, 1000);
    1 + (weight - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Cgroup {
        version: Version,
        files: BTreeMap<&'static str, &'static str>,
    }

    impl Now for Cgroup {
        fn version(&self, _: Controller) -> Version {
            self.version
        }

        fn says(&self, _: Controller, file: &str) -> Option<String> {
            self.files.get(file).map(|text| (*text).to_owned())
        }
    }

    fn lines(
        version: Version,
        files: &[(&'static str, &'static str)],
        resources: &Value,
    ) -> Result<Vec<String>, String> {
        let now = Cgroup { version, files: files.iter().copied().collect() };
        let resources: Resources = serde_json::from_value(resources.clone()).unwrap();
        let settings = settings(&now, &resources).map_err(|error| error.to_string())?;
        Ok(settings
            .into_iter()
            .flat_map(|setting| setting.choices)
            .map(|(file, value)| format!("{file} {value}"))
            .collect())
    }

    #[test]
    fn shares_become_weights_through_the_three_fixed_points() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn every_row_has_its_file_in_both_versions() {
        let cases: &[(Value, &[&str], &[&str])] = &[
            (
                json!({"memory": {"limit": 100, "swap": 300, "reservation": 50}}),
                &["memory.limit_in_bytes 100", "memory.memsw.limit_in_bytes 300", "memory.soft_limit_in_bytes 50"],
                &["memory.max 100", "memory.swap.max 200", "memory.low 50"],
            ),
            (
                json!({"memory": {"limit": -1}}),
                &["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"],
                &["memory.max max", "memory.swap.max max"],
            ),
            (
                json!({"cpu": {"shares": 1024, "quota": 5000, "period": 10000, "burst": 7, "idle": 0}}),
                &[
                    "cpu.shares 1024",
                    "cpu.cfs_period_us 10000",
                    "cpu.cfs_quota_us 5000",
                    "cpu.cfs_burst_us 7",
                    "cpu.idle 0",
                ],
                &["cpu.weight 100", "cpu.max 5000 10000", "cpu.max.burst 7", "cpu.idle 0"],
            ),
            (json!({"cpu": {"quota": -1}}), &["cpu.cfs_quota_us -1"], &["cpu.max max"]),
            (json!({"cpu": {"shares": 9, "idle": 1}}), &["cpu.idle 1"], &["cpu.idle 1"]),
            (
                json!({"cpu": {"cpus": "0-1", "mems": "0"}}),
                &["cpuset.cpus 0-1", "cpuset.mems 0"],
                &["cpuset.cpus 0-1", "cpuset.mems 0"],
            ),
            (json!({"pids": {"limit": -1}}), &["pids.max max"], &["pids.max max"]),
            (
                json!({"blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}}),
                &[
                    "blkio.bfq.weight 10",
                    "blkio.weight 10",
                    "blkio.bfq.weight_device 8:0 1000",
                    "blkio.weight_device 8:0 1000",
                ],
                &["io.bfq.weight default 10", "io.weight default 1", "io.bfq.weight 8:0 1000", "io.weight 8:0 10000"],
            ),
            (
                json!({"blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }}),
                &[
                    "blkio.throttle.read_bps_device 8:0 1",
                    "blkio.throttle.write_bps_device 8:0 2",
                    "blkio.throttle.read_iops_device 8:0 3",
                    "blkio.throttle.write_iops_device 8:0 0",
                ],
                &["io.max 8:0 rbps=1", "io.max 8:0 wbps=2", "io.max 8:0 riops=3", "io.max 8:0 wiops=max"],
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}),
                &["hugetlb.2MB.limit_in_bytes 4194304", "hugetlb.2MB.rsvd.limit_in_bytes 4194304"],
                &["hugetlb.2MB.max 4194304", "hugetlb.2MB.rsvd.max 4194304"],
            ),
            (
                json!({"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 5}]}}),
                &["net_cls.classid 1048577", "net_prio.ifpriomap lo 5"],
                &["net_cls.classid 1048577", "net_prio.ifpriomap lo 5"],
            ),
            (
                json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 7}, "none": {}}}),
                &["rdma.max mlx4_0 hca_object=7", "rdma.max mlx5_1 hca_handle=3 hca_object=10000"],
                &["rdma.max mlx4_0 hca_object=7", "rdma.max mlx5_1 hca_handle=3 hca_object=10000"],
            ),
        ];
        for (resources, v1, v2) in cases {
            let own = |list: &[&str]| Ok(list.iter().map(ToString::to_string).collect());
            assert_eq!(lines(Version::V1, &[], resources), own(v1), "{resources}");
            assert_eq!(lines(Version::V2, &[], resources), own(v2), "{resources}");
        }
    }

    #[test]
    fn what_only_v1_has_is_refused_in_v2_with_its_path() {
        let cases = [
            (json!({"memory": {"swappiness": 5}}), "memory.swappiness", "memory.swappiness 5"),
            (json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller", "memory.oom_control 1"),
            (json!({"memory": {"kernel": 9}}), "memory.kernel", "memory.kmem.limit_in_bytes 9"),
            (json!({"memory": {"kernelTCP": 9}}), "memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes 9"),
            (json!({"cpu": {"realtimeRuntime": 5}}), "cpu.realtimeRuntime", "cpu.rt_runtime_us 5"),
            (json!({"cpu": {"realtimePeriod": 5}}), "cpu.realtimePeriod", "cpu.rt_period_us 5"),
            (json!({"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight", "blkio.leaf_weight 10"),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}}),
                "blockIO.weightDevice[0].leafWeight",
                "blkio.leaf_weight_device 8:0 10",
            ),
        ];
        for (resources, field, line) in cases {
            assert_eq!(lines(Version::V1, &[], &resources), Ok(vec![line.to_owned()]));
            let refused = format!("linux.resources.{field}: the v2 hierarchy has no such knob");
            assert_eq!(lines(Version::V2, &[], &resources), Err(refused));
        }
    }

    #[test]
    fn what_is_not_named_is_computed_from_what_the_kernel_has() {
        let files = [("memory.max", "100\n"), ("cpu.max", "5000 100000\n")];
        let one = |resources: &Value| lines(Version::V2, &files, resources);

        assert_eq!(one(&json!({"memory": {"swap": 150}})), Ok(vec!["memory.swap.max 50".to_owned()]));
        assert_eq!(one(&json!({"cpu": {"period": 20000}})), Ok(vec!["cpu.max 5000 20000".to_owned()]));
        assert!(one(&json!({"memory": {"swap": 50}})).unwrap_err().contains("less than the memory's 100"));
        assert!(lines(Version::V2, &[("memory.max", "max")], &json!({"memory": {"swap": 50}})).is_err());
    }
}
