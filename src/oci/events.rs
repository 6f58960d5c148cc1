//! `events`: what a container uses, and that it ran out of memory, one JSON object per line. The shape is
//! the one that programs which watch containers know from runc.

use super::OciError;
use super::args::Events;
use super::rdt::Group;
use super::show::print;
use super::state::{Home, Init, Status};
use crate::cgroup::{Counter, IoEntry, Pressure, Statistics, Waiting};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

pub(super) fn events(root: &Path, wish: &Events) -> Result<(), OciError> {
    let home = Home::of(root, &wish.id);
    let record = home.load(&wish.id)?;
    let status = home.status(&record);
    let pidfd = record.init.as_ref().and_then(Init::alive);
    let (Some(pidfd), false) = (pidfd, status == Status::Stopped) else {
        return Err(OciError::State {
            id: wish.id.clone(),
            status: status.word(),
            what: "there is nothing to tell of",
        });
    };
    let place = record.place();
    let stats = || -> Result<(), OciError> {
        let data = describe(&place.statistics()?, record.init.as_ref(), record.rdt.as_ref());
        // In this order: callers look at the beginning of the line.
        print(&format!("{{\"type\":\"stats\",\"id\":{},\"data\":{data}}}\n", json!(wish.id)))
    };
    if wish.stats {
        return stats();
    }
    let mut memory = place.watch_memory()?;
    let mut next = Instant::now() + wish.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut wait = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        wait.extend(memory.as_ref().map(|memory| {
            let (source, flags) = memory.source();
            PollFd::from_borrowed_fd(source, flags)
        }));
        let ready = match rustix::event::poll(&mut wait, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            result => {
                result.map_err(|errno| OciError::Io { what: "waiting for events".to_owned(), source: errno.into() })?
            }
        };
        let ended = !wait[0].revents().is_empty();
        drop(wait);
        // Also at the end, which may be its consequence.
        if let Some(memory) = &mut memory
            && ready > 0
            && memory.has_happened()?
        {
            print(&format!("{{\"type\":\"oom\",\"id\":{}}}\n", json!(wish.id)))?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            stats()?;
            next = Instant::now() + wish.interval;
        }
    }
}

fn describe(statistics: &Statistics, init: Option<&Init>, rdt: Option<&Group>) -> Value {
    let Statistics { cpu, cpuset, memory, pids, pids_limit, io, huge_pages } = statistics;
    let huge_pages: Map<String, Value> = huge_pages
        .iter()
        .map(|(size, Counter { usage, max_usage, limit: _, failures })| {
            (size.clone(), json!({"usage": usage, "max": max_usage, "failcnt": failures}))
        })
        .collect();
    json!({
        "cpu": with_pressure(cpu.pressure.as_ref(), json!({
            "usage": {
                "total": cpu.total,
                "percpu": cpu.per_cpu,
                "percpu_kernel": cpu.per_cpu_kernel,
                "percpu_user": cpu.per_cpu_user,
                "kernel": cpu.kernel,
                "user": cpu.user,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_time,
            },
        })),
        "cpuset": sets(&|file| cpuset.get(file).map_or("", String::as_str)),
        "memory": with_pressure(memory.pressure.as_ref(), json!({
            "cache": memory.cache,
            "usage": counter(&memory.usage),
            "swap": counter(&memory.swap),
            "kernel": counter(&memory.kernel),
            "kernelTCP": counter(&memory.kernel_tcp),
            "raw": memory.raw,
        })),
        // Without a limit there is no number for it.
        "pids": { "current": pids, "limit": pids_limit.unwrap_or(0) },
        "blkio": with_pressure(io.pressure.as_ref(), json!({
            "ioServiceBytesRecursive": entries(&io.bytes),
            "ioServicedRecursive": entries(&io.operations),
        })),
        "hugetlb": huge_pages,
        "intel_rdt": rdt.map_or_else(|| json!({}), Group::statistics),
        "network_interfaces": init.map_or_else(Vec::new, interfaces),
    })
}

fn with_pressure(pressure: Option<&Pressure>, mut value: Value) -> Value {
    if let (Some(Pressure { some, full }), Some(object)) = (pressure, value.as_object_mut()) {
        let waiting = |of: &Waiting| {
            let Waiting { percent_10s, percent_60s, percent_300s, total_usec } = of;
            json!({"avg10": percent_10s, "avg60": percent_60s, "avg300": percent_300s, "total": total_usec})
        };
        object.insert("psi".to_owned(), json!({"some": waiting(some), "full": waiting(full)}));
    }
    value
}

fn counter(of: &Counter) -> Value {
    let Counter { usage, max_usage, limit, failures } = of;
    json!({"limit": limit, "usage": usage, "max": max_usage, "failcnt": failures})
}

fn entries(of: &[IoEntry]) -> Vec<Value> {
    let entry = |IoEntry { major, minor, operation, value }: &IoEntry| json!({"major": major, "minor": minor, "op": operation, "value": value});
    of.iter().map(entry).collect()
}

fn sets<'a>(says: &dyn Fn(&str) -> &'a str) -> Value {
    let number = |file: &str| says(file).parse::<i64>().unwrap_or(0);
    json!({
        "cpus": members(says("cpuset.cpus")),
        "cpu_exclusive": number("cpuset.cpu_exclusive"),
        "mems": members(says("cpuset.mems")),
        "mem_hardwall": number("cpuset.mem_hardwall"),
        "mem_exclusive": number("cpuset.mem_exclusive"),
        "memory_migrate": number("cpuset.memory_migrate"),
        "memory_spread_page": number("cpuset.memory_spread_page"),
        "memory_spread_slab": number("cpuset.memory_spread_slab"),
        "memory_pressure": number("cpuset.memory_pressure"),
        "sched_load_balance": number("cpuset.sched_load_balance"),
        "sched_relax_domain_level": number("cpuset.sched_relax_domain_level"),
    })
}

/// The numbers of a list such as `0-2,5` (cpuset(7), "List format").
fn members(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// What passed through each interface of the container's network namespace (proc_pid_net(5)).
fn interfaces(init: &Init) -> Vec<Value> {
    const RECEIVED: [&str; 4] = ["RxBytes", "RxPackets", "RxErrors", "RxDropped"];
    const SENT: [&str; 4] = ["TxBytes", "TxPackets", "TxErrors", "TxDropped"];
    if init.namespaces & crate::sandbox::Namespace::Net.bit() == 0 {
        // Those of the host are not the container's.
        return Vec::new();
    }
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", init.pid)).unwrap_or_default();
    let interface = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let mut object = Map::from_iter([("Name".to_owned(), json!(name.trim()))]);
        for (names, from) in [(RECEIVED, 0), (SENT, 8)] {
            object
                .extend(names.iter().zip(counts.get(from..)?).map(|(name, count)| ((*name).to_owned(), json!(count))));
        }
        Some(Value::Object(object))
    };
    text.lines().filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_ranges_and_single_ones() {
        assert_eq!(members("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(members(""), Vec::<u16>::new());
    }

    #[test]
    fn the_shape_is_the_one_that_is_known() {
        let value = describe(&Statistics::default(), None, None);

        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"]);
        for pointer in ["/cpu/usage/total", "/cpu/throttling/throttledTime", "/memory/usage/failcnt", "/pids/current"] {
            assert_eq!(value.pointer(pointer), Some(&json!(0)), "{pointer}");
        }
        let pressure = with_pressure(Some(&Pressure::default()), json!({}));
        assert_eq!(pressure.pointer("/psi/full/avg300"), Some(&json!(0.0)));
    }
}
