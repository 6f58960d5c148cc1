//! From a `config.json` to how the kernel is to treat a process. Pure.

use super::config::{
    self, Invalid, IoClass, MemoryFlag, MemoryMode, PersonalityDomain, SchedulerFlag, SchedulerPolicy,
};
use crate::sandbox::{Affinity, Attributes, Keyring, MemoryPolicy, Mount, Scheduler};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What all processes of a container have in common.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Common {
    personality: Option<config::Personality>,
    memory_policy: Option<config::MemoryPolicy>,
    /// The name of the container's keyring; without one the caller's stays.
    keyring: Option<String>,
    keep_groups: bool,
}

/// The security modules that the kernel has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modules {
    pub apparmor: bool,
    pub selinux: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Create,
    Exec,
}

impl Modules {
    pub(super) const BOTH: Self = Self { apparmor: true, selinux: true };

    pub(super) fn of_this_host() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

impl Common {
    pub(super) fn new(linux: &config::Linux, annotations: &BTreeMap<String, String>, keyring: Option<String>) -> Self {
        let keep = annotations.get("run.oci.keep_original_groups");
        Self {
            personality: linux.personality.clone(),
            memory_policy: linux.memory_policy.clone(),
            keyring,
            keep_groups: keep.is_some_and(|value| !matches!(value.as_str(), "0" | "false")),
        }
    }
}

pub(super) fn attributes(
    process: &config::Process,
    place: &str,
    common: &Common,
    modules: Modules,
    moment: Moment,
) -> Result<Attributes, Invalid> {
    let label = |value: &String, field: &str, is_there: bool, name: &str| match (value.as_str(), is_there) {
        ("", _) => Ok(None),
        (value, true) => Ok(Some(value.to_owned())),
        (_, false) => Err(Invalid::new(format!("{place}.{field}"), format!("the kernel of this host has no {name}"))),
    };
    let affinity = match (moment, &process.exec_cpu_affinity) {
        (Moment::Exec, Some(config::CpuAffinity { initial, after })) => {
            let list = |list: &str, field: &str| {
                let path = format!("{place}.execCPUAffinity.{field}");
                if list.is_empty() { Ok(None) } else { bits(list, &path).map(Some) }
            };
            Affinity::Chosen { before: list(initial, "initial")?, after: list(after, "final")? }
        }
        // What the caller may run on is its own affair.
        _ => Affinity::All,
    };
    Ok(Attributes {
        personality: common.personality.as_ref().map(personality).transpose()?,
        scheduler: process.scheduler.as_ref().map(|from| scheduler(from, place)).transpose()?,
        io_priority: process.io_priority.as_ref().map(|from| io_priority(from, place)).transpose()?,
        affinity,
        memory_policy: common.memory_policy.as_ref().map(memory_policy).transpose()?,
        keyring: common.keyring.clone().map_or(Keyring::Inherited, Keyring::Named),
        apparmor: label(&process.apparmor_profile, "apparmorProfile", modules.apparmor, "AppArmor")?,
        selinux: label(&process.selinux_label, "selinuxLabel", modules.selinux, "SELinux")?,
        keep_groups: common.keep_groups,
    })
}

/// Gives a label to the file systems that are made for the container and can have one.
///
/// Nobody looks at it without SELinux, so unlike a process's label it confines nothing, and is left out.
pub(super) fn label_mounts(mounts: &mut [Mount], label: &str, modules: Modules) {
    if label.is_empty() {
        return;
    }
    if !modules.selinux {
        super::log::warn("linux.mountLabel: the kernel of this host has no SELinux: left out");
        return;
    }
    // Quotes, as labels have commas.
    let quoted = format!("\"{label}\"");
    for mount in mounts {
        match mount {
            Mount::Fresh { kind, data, .. } if matches!(kind.as_str(), "tmpfs" | "devpts" | "overlay" | "ramfs") => {
                let comma = if data.is_empty() { "" } else { "," };
                data.push_str(&format!("{comma}context={quoted}"));
            }
            Mount::Devices { options, .. } | Mount::Copy { options, .. } => {
                options.push(("context".to_owned(), label.to_owned()))
            }
            Mount::Fresh { .. }
            | Mount::Bind { .. }
            | Mount::Again { .. }
            | Mount::Link { .. }
            | Mount::Change { .. } => {}
        }
    }
}

/// `PER_LINUX` and `PER_LINUX32` (personality(2)).
fn personality(from: &config::Personality) -> Result<u32, Invalid> {
    if let Some(flag) = from.flags.first() {
        return Err(Invalid::new("linux.personality.flags[0]", format!("{flag:?} is not a flag")));
    }
    Ok(match from.domain {
        PersonalityDomain::Linux => 0,
        PersonalityDomain::Linux32 => 8,
    })
}

/// With the numbers of sched(7) and sched_setattr(2). The kernel judges what goes with what.
fn scheduler(from: &config::Scheduler, place: &str) -> Result<Scheduler, Invalid> {
    let invalid = |field: &str, what: &str| Invalid::new(format!("{place}.scheduler.{field}"), what);
    let config::Scheduler { policy, nice, priority, flags, runtime, deadline, period } = from;
    let policy_number = match policy {
        SchedulerPolicy::Other => 0,
        SchedulerPolicy::Fifo => 1,
        SchedulerPolicy::Rr => 2,
        SchedulerPolicy::Batch => 3,
        SchedulerPolicy::Iso => return Err(invalid("policy", "SCHED_ISO is in no kernel yet")),
        SchedulerPolicy::Idle => 5,
        SchedulerPolicy::Deadline => 6,
    };
    if !(-20..=19).contains(nice) {
        return Err(invalid("nice", "not from -20 to 19"));
    }
    let real_time = matches!(policy, SchedulerPolicy::Fifo | SchedulerPolicy::Rr);
    let priority = match u32::try_from(*priority) {
        Ok(priority @ 1..=99) if real_time => priority,
        _ if real_time => return Err(invalid("priority", "not from 1 to 99")),
        Ok(0) => 0,
        _ => return Err(invalid("priority", "only SCHED_FIFO and SCHED_RR have one")),
    };
    if *policy != SchedulerPolicy::Deadline && (*runtime, *deadline, *period) != (0, 0, 0) {
        return Err(invalid("runtime", "runtime, deadline and period are those of SCHED_DEADLINE"));
    }
    let flag = |flag: &SchedulerFlag| match flag {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DlOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    };
    let flags = flags.iter().map(flag).fold(0, |all: u64, flag| all | flag);
    let (runtime, deadline, period) = (*runtime, *deadline, *period);
    Ok(Scheduler { policy: policy_number, flags, nice: *nice, priority, runtime, deadline, period })
}

/// Class and level as ioprio_set(2) takes them.
fn io_priority(from: &config::IoPriority, place: &str) -> Result<u16, Invalid> {
    let class = match from.class {
        IoClass::Rt => 1,
        IoClass::Be => 2,
        IoClass::Idle => 3,
    };
    match u16::try_from(from.priority) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(Invalid::new(format!("{place}.ioPriority.priority"), "not from 0 to 7")),
    }
}

/// With the numbers of set_mempolicy(2).
fn memory_policy(from: &config::MemoryPolicy) -> Result<MemoryPolicy, Invalid> {
    let mode = match from.mode {
        MemoryMode::Default => 0,
        MemoryMode::Preferred => 1,
        MemoryMode::Bind => 2,
        MemoryMode::Interleave => 3,
        MemoryMode::Local => 4,
        MemoryMode::PreferredMany => 5,
        MemoryMode::WeightedInterleave => 6,
    };
    let flag = |flag: &MemoryFlag| match flag {
        MemoryFlag::NumaBalancing => 1 << 13,
        MemoryFlag::RelativeNodes => 1 << 14,
        MemoryFlag::StaticNodes => 1 << 15,
    };
    let has_nodes = !from.nodes.trim().is_empty();
    match from.mode {
        MemoryMode::Default | MemoryMode::Local if has_nodes => {
            return Err(Invalid::new("linux.memoryPolicy.nodes", "the mode takes none"));
        }
        MemoryMode::Default | MemoryMode::Local | MemoryMode::Preferred => {}
        _ if !has_nodes => return Err(Invalid::new("linux.memoryPolicy.nodes", "the mode takes at least one")),
        _ => {}
    }
    let nodes = if has_nodes { bits(&from.nodes, "linux.memoryPolicy.nodes")? } else { Vec::new() };
    Ok(MemoryPolicy { mode: from.flags.iter().map(flag).fold(mode, |all, flag| all | flag), nodes })
}

/// A list as in cpuset(7), `0-3,7`, one bit for each.
fn bits(list: &str, path: &str) -> Result<Vec<u64>, Invalid> {
    /// More CPUs and nodes than any kernel has.
    const LIMIT: usize = 8192;
    let invalid = || Invalid::new(path, format!("{list:?} is not a list like 0-3,7 of numbers below {LIMIT}"));
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < LIMIT);
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(invalid()) };
        if first > last {
            return Err(invalid());
        }
        bits.resize(bits.len().max(last / 64 + 1), 0_u64);
        for bit in first..=last {
            if let Some(word) = bits.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_one_bit_for_each() {
        assert_eq!(bits("0-3, 7", "x"), Ok(vec![0x8f]));
        assert_eq!(bits("64", "x"), Ok(vec![0, 1]));
        for wrong in ["", "a", "3-1", "1,", "-1", "8192"] {
            assert!(bits(wrong, "x").is_err(), "{wrong}");
        }
    }
}
