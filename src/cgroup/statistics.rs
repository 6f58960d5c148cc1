//! What a cgroup has used, from the files of whatever hierarchies it is in. Reads only.
//!
//! A file that is not there is nothing used: of a controller that is not enabled, or of another kernel.

use super::CgroupError;
use super::files;
use super::place::{Directory, Place};
use super::table::{Controller, Version};
use rustix::fs::CWD;
use rustix::io::Errno;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    pub cpu: CpuStatistics,
    pub cpuset: BTreeMap<&'static str, String>,
    pub memory: MemoryStatistics,
    pub pids: u64,
    pub pids_limit: Option<u64>,
    pub io: IoStatistics,
    /// By page size, `2MB`.
    pub huge_pages: BTreeMap<String, Counter>,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStatistics {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    pub per_cpu: Vec<u64>,
    pub per_cpu_user: Vec<u64>,
    pub per_cpu_kernel: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStatistics {
    pub cache: u64,
    pub usage: Counter,
    /// Memory and swap together, in both versions.
    pub swap: Counter,
    pub kernel: Counter,
    pub kernel_tcp: Counter,
    /// `memory.stat` as it is.
    pub raw: BTreeMap<String, u64>,
    pub pressure: Option<Pressure>,
}

/// A thing that is counted against a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    pub usage: u64,
    pub max_usage: u64,
    /// The largest number is no limit.
    pub limit: u64,
    /// How often the limit was in the way.
    pub failures: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct IoStatistics {
    pub bytes: Vec<IoEntry>,
    pub operations: Vec<IoEntry>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, …
    pub operation: String,
    pub value: u64,
}

/// Time in which some, or all, processes waited (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Waiting,
    pub full: Waiting,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waiting {
    pub percent_10s: f64,
    pub percent_60s: f64,
    pub percent_300s: f64,
    pub total_usec: u64,
}

/// Files of cpuset, as both versions call them and v1 alone.
const CPUSET: [&str; 11] = [
    "cpuset.cpus",
    "cpuset.cpu_exclusive",
    "cpuset.mems",
    "cpuset.mem_hardwall",
    "cpuset.mem_exclusive",
    "cpuset.memory_migrate",
    "cpuset.memory_spread_page",
    "cpuset.memory_spread_slab",
    "cpuset.memory_pressure",
    "cpuset.sched_load_balance",
    "cpuset.sched_relax_domain_level",
];

impl Place {
    pub fn statistics(&self) -> Result<Statistics, CgroupError> {
        let mut all = Statistics { cpu: self.cpu_statistics()?, ..Statistics::default() };
        if let Some(directory) = self.home(Controller::Cpuset) {
            for file in CPUSET {
                if let Some(text) = read(directory, file)? {
                    all.cpuset.insert(file, text);
                }
            }
        }
        if let Some(directory) = self.home(Controller::Memory) {
            all.memory = match directory.version {
                Version::V1 => memory_v1(directory)?,
                Version::V2 => memory_v2(directory)?,
            };
        }
        all.memory.pressure = self.pressure("memory.pressure")?;
        if let Some(directory) = self.home(Controller::Pids) {
            all.pids = number(directory, "pids.current")?;
            all.pids_limit = read(directory, "pids.max")?.and_then(|text| text.parse().ok());
        }
        if let Some(directory) = self.home(Controller::Io) {
            all.io = match directory.version {
                Version::V1 => io_v1(directory)?,
                Version::V2 => io_v2(&read(directory, "io.stat")?.unwrap_or_default()),
            };
        }
        all.io.pressure = self.pressure("io.pressure")?;
        if let Some(directory) = self.home(Controller::Hugetlb) {
            all.huge_pages = huge_pages(directory)?;
        }
        Ok(all)
    }

    fn cpu_statistics(&self) -> Result<CpuStatistics, CgroupError> {
        let mut cpu = CpuStatistics { pressure: self.pressure("cpu.pressure")?, ..CpuStatistics::default() };
        // It is in every directory of v2, with the controller or without.
        if let Some(text) = self.unified().map(|directory| read(directory, "cpu.stat")).transpose()?.flatten() {
            let nanoseconds = |key: &str| files::field(&text, key).unwrap_or(0).saturating_mul(1000);
            cpu.total = nanoseconds("usage_usec");
            cpu.user = nanoseconds("user_usec");
            cpu.kernel = nanoseconds("system_usec");
            cpu.throttled_time = nanoseconds("throttled_usec");
        }
        if let Some(directory) = self.home(Controller::Cpuacct) {
            let list = |file: &str| -> Result<Vec<u64>, CgroupError> {
                let text = read(directory, file)?.unwrap_or_default();
                Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            };
            cpu.total = number(directory, "cpuacct.usage")?;
            cpu.user = number(directory, "cpuacct.usage_user")?;
            cpu.kernel = number(directory, "cpuacct.usage_sys")?;
            cpu.per_cpu = list("cpuacct.usage_percpu")?;
            cpu.per_cpu_user = list("cpuacct.usage_percpu_user")?;
            cpu.per_cpu_kernel = list("cpuacct.usage_percpu_sys")?;
        }
        if let Some(directory) = self.home(Controller::Cpu) {
            let text = read(directory, "cpu.stat")?.unwrap_or_default();
            let field = |key: &str| files::field(&text, key).unwrap_or(0);
            cpu.periods = field("nr_periods");
            cpu.throttled_periods = field("nr_throttled");
            if directory.version == Version::V1 {
                cpu.throttled_time = field("throttled_time");
            }
        }
        Ok(cpu)
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>, CgroupError> {
        let Some(directory) = self.unified() else { return Ok(None) };
        Ok(read(directory, file)?.map(|text| parse_pressure(&text)))
    }
}

fn read(directory: &Directory, file: &str) -> Result<Option<String>, CgroupError> {
    let path = format!("{}/{file}", directory.full());
    match files::read(CWD, &path) {
        Ok(text) => Ok(Some(text)),
        // Pressure may be switched off, and some files answer in a root alone.
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(CgroupError::Read { path: path.into(), source: error.into() }),
    }
}

fn number(directory: &Directory, file: &str) -> Result<u64, CgroupError> {
    let text = read(directory, file)?.unwrap_or_default();
    Ok(if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) })
}

fn raw(directory: &Directory) -> Result<BTreeMap<String, u64>, CgroupError> {
    let text = read(directory, "memory.stat")?.unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

fn memory_v1(directory: &Directory) -> Result<MemoryStatistics, CgroupError> {
    let counter = |part: &str| -> Result<Counter, CgroupError> {
        let number = |name: &str| number(directory, &format!("memory{part}.{name}"));
        Ok(Counter {
            usage: number("usage_in_bytes")?,
            max_usage: number("max_usage_in_bytes")?,
            limit: number("limit_in_bytes")?,
            failures: number("failcnt")?,
        })
    };
    let raw = raw(directory)?;
    Ok(MemoryStatistics {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: counter("")?,
        swap: counter(".memsw")?,
        kernel: counter(".kmem")?,
        kernel_tcp: counter(".kmem.tcp")?,
        raw,
        pressure: None,
    })
}

fn memory_v2(directory: &Directory) -> Result<MemoryStatistics, CgroupError> {
    let number = |file: &str| number(directory, file);
    let failures = |file: &str| -> Result<u64, CgroupError> {
        Ok(files::field(&read(directory, file)?.unwrap_or_default(), "max").unwrap_or(0))
    };
    let raw = raw(directory)?;
    let usage = Counter {
        usage: number("memory.current")?,
        max_usage: number("memory.peak")?,
        limit: number("memory.max")?,
        failures: failures("memory.events")?,
    };
    let swap = Counter {
        usage: number("memory.swap.current")?.saturating_add(usage.usage),
        max_usage: number("memory.swap.peak")?.saturating_add(usage.max_usage),
        limit: number("memory.swap.max")?.saturating_add(usage.limit),
        failures: failures("memory.swap.events")?,
    };
    Ok(MemoryStatistics {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        ..MemoryStatistics::default()
    })
}

fn io_v1(directory: &Directory) -> Result<IoStatistics, CgroupError> {
    let list = |file: &str| -> Result<Vec<IoEntry>, CgroupError> {
        let text = read(directory, file)?.unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split([' ', ':']);
            let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some(IoEntry { major, minor, operation: words.next()?.to_owned(), value: words.next()?.parse().ok()? })
        };
        Ok(text.lines().filter_map(entry).collect())
    };
    Ok(IoStatistics {
        bytes: list("blkio.throttle.io_service_bytes_recursive")?,
        operations: list("blkio.throttle.io_serviced_recursive")?,
        pressure: None,
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`, a line for each device.
fn io_v2(text: &str) -> IoStatistics {
    const KEYS: [(&str, &str, bool); 6] = [
        ("rbytes", "Read", true),
        ("wbytes", "Write", true),
        ("dbytes", "Discard", true),
        ("rios", "Read", false),
        ("wios", "Write", false),
        ("dios", "Discard", false),
    ];
    let mut io = IoStatistics::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|word| word.split_once(':'));
        let device = device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let Some((major, minor)) = device else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Some((_, operation, is_bytes)) = KEYS.iter().find(|(known, ..)| *known == key) else { continue };
            let Ok(value) = value.parse() else { continue };
            let entry = IoEntry { major, minor, operation: (*operation).to_owned(), value };
            if *is_bytes { io.bytes.push(entry) } else { io.operations.push(entry) }
        }
    }
    io
}

fn huge_pages(directory: &Directory) -> Result<BTreeMap<String, Counter>, CgroupError> {
    let path = directory.full();
    let names = files::names(CWD, &path, files::Entries::Files)
        .map_err(|error| CgroupError::Read { path: path.into(), source: error.into() })?;
    let suffix = if directory.version == Version::V1 { ".limit_in_bytes" } else { ".max" };
    let size = |name: &String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut all = BTreeMap::new();
    for size in names.iter().filter_map(size) {
        let number = |name: &str| number(directory, &format!("hugetlb.{size}.{name}"));
        let counter = match directory.version {
            Version::V1 => Counter {
                usage: number("usage_in_bytes")?,
                max_usage: number("max_usage_in_bytes")?,
                limit: number("limit_in_bytes")?,
                failures: number("failcnt")?,
            },
            Version::V2 => {
                let events = read(directory, &format!("hugetlb.{size}.events"))?.unwrap_or_default();
                let failures = files::field(&events, "max").unwrap_or(0);
                Counter { usage: number("current")?, max_usage: 0, limit: number("max")?, failures }
            }
        };
        all.insert(size, counter);
    }
    Ok(all)
}

fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let waiting = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => waiting.percent_10s = value.parse().unwrap_or(0.0),
                "avg60" => waiting.percent_60s = value.parse().unwrap_or(0.0),
                "avg300" => waiting.percent_300s = value.parse().unwrap_or(0.0),
                "total" => waiting.total_usec = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_two_lines_of_averages_and_a_sum() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.10 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=7\n";

        let Pressure { some, full } = parse_pressure(text);

        assert_eq!((some.percent_10s, some.percent_60s, some.total_usec), (1.5, 0.25, 1234));
        assert_eq!((full.percent_300s, full.total_usec), (0.01, 7));
    }

    #[test]
    fn a_disk_has_an_entry_for_each_kind_of_operation() {
        let io = io_v2("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 new=9\n7:0 \n");

        let entry = |operation: &str, value| IoEntry { major: 8, minor: 16, operation: operation.to_owned(), value };
        assert_eq!(io.bytes, [entry("Read", 1), entry("Write", 2), entry("Discard", 0)]);
        assert_eq!(io.operations, [entry("Read", 3), entry("Write", 4), entry("Discard", 0)]);
    }
}
