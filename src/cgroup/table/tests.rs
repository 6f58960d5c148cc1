use super::*;
use crate::spec::{Count, Cpu, CpuSet, Io, Memory, MilliCpu, Pids};

fn disk() -> DeviceNumber {
    DeviceNumber { major: 254, minor: 0 }
}

/// Every field set.
fn everything() -> Resources {
    Resources {
        cpu: Cpu {
            limit: Some(MilliCpu(1500)),
            weight: Some(weight_of(200)),
            cpuset: Some(CpuSet::try_from("0-1".to_owned()).unwrap()),
            mems: Some(CpuSet::try_from("0".to_owned()).unwrap()),
        },
        memory: Memory {
            limit: Some(Bytes(512 << 20)),
            high: Some(Bytes(448 << 20)),
            low: Some(Bytes(64 << 20)),
            min: Some(Bytes(32 << 20)),
            swap: Some(Bytes(128 << 20)),
        },
        pids: Pids { limit: Some(Count::try_from(512).unwrap()) },
        io: Io {
            weight: Some(weight_of(1200)),
            limits: vec![IoLimit {
                path: "/var".parse().unwrap(),
                read_bps: Some(Bytes(10 << 20)),
                write_bps: None,
                read_iops: None,
                write_iops: Some(Count::try_from(200).unwrap()),
            }],
        },
        hugepages: BTreeMap::from([(Bytes(2 << 20), Bytes(64 << 20))]),
    }
}

fn weight_of(number: i64) -> Weight {
    Weight::try_from(number).unwrap()
}

/// `field file ← text` for every write into files that are as the kernel makes them.
fn written(version: Version, resources: &Resources, now: &str) -> Vec<String> {
    let limits = resources.io.limits.iter().map(DeviceLimits::from);
    let disks = limits.map(|limits| (disk(), limits)).collect();
    let asked = Asked { resources, disks: &disks, page_sizes: &BTreeSet::from([2 << 20]) };
    let mut lines = Vec::new();
    for knob in &KNOBS {
        match knob.settings(version, &asked) {
            Ok(settings) => {
                for Setting { file, value } in settings {
                    for text in value.writes(version, now, "0-3") {
                        lines.push(format!("{} {file} ← {text}", knob.field));
                    }
                }
            }
            Err(reason) => lines.push(format!("{}: {reason}", knob.field)),
        }
    }
    lines
}

#[test]
fn every_field_has_its_v2_file_and_text() {
    let lines = written(Version::V2, &everything(), "");

    assert_eq!(
        lines,
        [
            "cpu.cpuset cpuset.cpus ← 0-1",
            "cpu.mems cpuset.mems ← 0",
            "cpu.limit cpu.max ← 150000 100000",
            "cpu.weight cpu.weight ← 200",
            "memory.limit memory.max ← 536870912",
            "memory.swap memory.swap.max ← 134217728",
            "memory.high memory.high ← 469762048",
            "memory.low memory.low ← 67108864",
            "memory.min memory.min ← 33554432",
            "pids.limit pids.max ← 512",
            "io.weight io.weight ← default 1200",
            "io.weight io.bfq.weight ← default 200",
            "io.limits io.max ← 254:0 rbps=10485760 wbps=max riops=max wiops=200",
            "hugepages hugetlb.2MB.max ← 67108864",
        ]
    );
}

#[test]
fn every_field_has_its_v1_file_and_text_or_a_reason() {
    let lines = written(Version::V1, &everything(), "");

    assert_eq!(
        lines,
        [
            "cpu.cpuset cpuset.cpus ← 0-1",
            "cpu.mems cpuset.mems ← 0",
            "cpu.limit cpu.cfs_period_us ← 100000",
            "cpu.limit cpu.cfs_quota_us ← 150000",
            "cpu.weight cpu.shares ← 2451",
            "memory.limit memory.limit_in_bytes ← 536870912",
            "memory.swap memory.memsw.limit_in_bytes ← 671088640",
            "memory.high: cgroup v1 has no such knob",
            "memory.low memory.soft_limit_in_bytes ← 67108864",
            "memory.min: cgroup v1 has no such knob",
            "pids.limit pids.max ← 512",
            "io.weight blkio.weight ← 1000",
            "io.weight blkio.bfq.weight ← 200",
            "io.limits blkio.throttle.read_bps_device ← 254:0 10485760",
            "io.limits blkio.throttle.write_iops_device ← 254:0 200",
            "hugepages hugetlb.2MB.limit_in_bytes ← 67108864",
        ]
    );
}

#[test]
fn a_field_taken_out_goes_back_to_no_limit() {
    let v2 = written(Version::V2, &Resources::default(), "254:0 1");
    let v1 = written(Version::V1, &Resources::default(), "254:0 1");

    assert_eq!(
        v2,
        [
            "cpu.cpuset cpuset.cpus ← ",
            "cpu.mems cpuset.mems ← ",
            "cpu.limit cpu.max ← max 100000",
            "cpu.weight cpu.weight ← 100",
            "memory.limit memory.max ← max",
            "memory.swap memory.swap.max ← max",
            "memory.high memory.high ← max",
            "memory.low memory.low ← 0",
            "memory.min memory.min ← 0",
            "pids.limit pids.max ← max",
            "io.weight io.weight ← default 100",
            "io.weight io.bfq.weight ← default 100",
            "io.limits io.max ← 254:0 rbps=max wbps=max riops=max wiops=max",
            "hugepages hugetlb.2MB.max ← max",
        ]
    );
    assert_eq!(
        v1,
        [
            "cpu.cpuset cpuset.cpus ← 0-3",
            "cpu.mems cpuset.mems ← 0-3",
            "cpu.limit cpu.cfs_period_us ← 100000",
            "cpu.limit cpu.cfs_quota_us ← -1",
            "cpu.weight cpu.shares ← 1024",
            "memory.limit memory.limit_in_bytes ← -1",
            "memory.swap memory.memsw.limit_in_bytes ← -1",
            "memory.high: cgroup v1 has no such knob",
            "memory.low memory.soft_limit_in_bytes ← -1",
            "memory.min: cgroup v1 has no such knob",
            "pids.limit pids.max ← max",
            "io.weight blkio.weight ← 500",
            "io.weight blkio.bfq.weight ← 100",
            "io.limits blkio.throttle.read_bps_device ← 254:0 0",
            "io.limits blkio.throttle.write_bps_device ← 254:0 0",
            "io.limits blkio.throttle.read_iops_device ← 254:0 0",
            "io.limits blkio.throttle.write_iops_device ← 254:0 0",
            "hugepages hugetlb.2MB.limit_in_bytes ← -1",
        ]
    );
}

#[test]
fn swap_alone_cannot_be_said_in_v1() {
    let resources = Resources { memory: Memory { swap: Some(Bytes(0)), ..Memory::default() }, ..Resources::default() };

    let lines = written(Version::V1, &resources, "");

    assert!(lines.iter().any(|line| line.starts_with("memory.swap: cgroup v1 limits memory and swap together")));
}

#[test]
fn what_the_file_says_already_is_not_written() {
    let same = [
        (Value::Bytes(Some(4096)), Version::V2, "4096"),
        (Value::Bytes(None), Version::V2, "max"),
        (Value::Bytes(None), Version::V1, "9223372036854771712"),
        (Value::Bytes(None), Version::V1, "9223372036852678656"),
        (Value::Text("default 100".to_owned()), Version::V2, "default 100\n8:0 50"),
        (Value::Text("default 100".to_owned()), Version::V2, "100"),
        (Value::Text(String::new()), Version::V2, ""),
        (Value::Inherited, Version::V1, "0-3"),
        (Value::Lines { lines: BTreeMap::from([(disk(), "10".to_owned())]), clear: "0" }, Version::V1, "254:0 10"),
    ];

    for (value, version, now) in same {
        assert_eq!(value.writes(version, now, "0-3"), Vec::<String>::new(), "{value:?} in {now:?}");
    }
}

#[test]
fn only_the_disk_that_differs_is_written() {
    let other = DeviceNumber { major: 8, minor: 0 };
    let value =
        Value::Lines { lines: BTreeMap::from([(disk(), "10".to_owned()), (other, "20".to_owned())]), clear: "0" };

    assert_eq!(value.writes(Version::V1, "254:0 10\n8:0 30\n9:0 5", ""), ["9:0 0", "8:0 20"]);
}

/// The formula of runc 1.3.2 and crun 1.24, from shares to a weight.
fn weight_by_runc(shares: u32) -> u32 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = f64::from(shares).log2();
    let weight = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil();
    format!("{weight:.0}").parse().unwrap()
}

#[test]
fn minimum_default_and_maximum_weight_are_those_of_shares() {
    assert_eq!([1, 100, 10_000].map(|weight| shares(weight_of(weight))), ["2", "1024", "262144"]);
}

#[test]
fn shares_lead_back_to_the_weight_they_came_from() {
    for weight in 1..=10_000_u32 {
        let shares: u32 = shares(weight_of(i64::from(weight))).parse().unwrap();

        assert_eq!(weight_by_runc(shares), weight, "by {shares} shares");
    }
}

#[test]
fn page_sizes_are_read_from_the_names_they_are_written_in() {
    for (size, name) in [(2 << 20, "2MB"), (1 << 30, "1GB"), (64 << 10, "64KB")] {
        assert_eq!(page_size_text(size), name);
        assert_eq!(page_size(&format!("hugetlb.{name}.max")), Some(size));
        assert_eq!(page_size(&format!("hugetlb.{name}.limit_in_bytes")), Some(size));
    }
    assert_eq!(page_size("hugetlb.2MB.rsvd.max"), None);
    assert_eq!(page_size("memory.max"), None);
}

#[test]
fn two_limits_of_one_disk_are_the_tighter_of_each() {
    let one = DeviceLimits { read_bps: Some(5), write_bps: Some(9), ..DeviceLimits::default() };
    let two = DeviceLimits { read_bps: Some(7), read_iops: Some(3), ..DeviceLimits::default() };

    let both = DeviceLimits { read_bps: Some(5), write_bps: Some(9), read_iops: Some(3), write_iops: None };
    assert_eq!(one.tighter(&two), both);
}
