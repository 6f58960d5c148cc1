//! `linux.resources`: checked, and written to the kernel.

use super::config::{BlockIo, Cpu, DeviceRule, DeviceRuleKind, Invalid, Memory, Network, Pids, Resources};
use super::log;
use super::rows::{self, Need, Now, Setting};
use crate::cgroup::place::{DeviceRulesError, Directory, Place};
use crate::cgroup::table::{Controller, Version};
use crate::cgroup::{self, ALLOWED_DEVICES, Access, CgroupError, DeviceKind, Verdict};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};

#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{field}: this host has no {file} for it: invalid configuration, no such file or directory")]
    Missing { field: String, file: String },
    #[error("{field}: the requested cgroup controller `{controller}` is not available")]
    NoController { field: String, controller: String },
    #[error("{field}: writing {value:?} to {file}")]
    Write { field: String, file: String, value: String, source: io::Error },
    #[error("linux.resources.memory.{field}: rejecting {what} limit {limit}, as {used} are in use")]
    InUse { field: &'static str, what: &'static str, limit: i64, used: i64 },
    #[error("linux.resources.devices")]
    Devices { source: CgroupError },
}

/// The controllers that these limits take.
pub(super) fn controllers(resources: &Resources) -> BTreeSet<Controller> {
    let Resources { devices: _, memory, cpu, pids, block_io, hugepage_limits, unified, network, rdma } = resources;
    let Network { class_id, priorities } = network;
    let cpuset = !cpu.cpus.is_empty() || !cpu.mems.is_empty();
    let asked = [
        // Also where no rule is given: what nobody names is denied.
        (Controller::Devices, true),
        (Controller::Memory, *memory != Memory::default()),
        (Controller::Cpu, *cpu != Cpu::default()),
        (Controller::Cpuset, cpuset),
        (Controller::Pids, *pids != Pids::default()),
        (Controller::Io, *block_io != BlockIo::default()),
        (Controller::Hugetlb, !hugepage_limits.is_empty()),
        (Controller::NetCls, class_id.is_some()),
        (Controller::NetPrio, !priorities.is_empty()),
        (Controller::Rdma, !rdma.is_empty()),
    ];
    let asked = asked.into_iter().filter(|(_, is)| *is).map(|(controller, _)| controller);
    let named = |name: &String| {
        let controller = name.split('.').next().unwrap_or_default();
        Controller::EVERY.into_iter().find(|known| known.name(Version::V2) == controller)
    };
    asked.chain(unified.keys().filter_map(named)).collect()
}

/// Refuses what no host can do with them, and tells of what is left out.
pub(super) fn check(resources: &Resources, moment: Moment) -> Result<(), Invalid> {
    let at = |field: &str| format!("linux.resources.{field}");
    let Memory { limit, swap, swappiness, use_hierarchy, .. } = &resources.memory;
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
    // A container that runs may have a limit of its memory that is not named again.
    let has_limit = limit.is_some_and(|limit| limit > 0) || (moment == Moment::Update && limit.is_none());
    if swap.is_some_and(|swap| swap > 0) && !has_limit {
        return Err(Invalid::new(at("memory.swap"), "takes memory.limit beside it"));
    }
    if resources.cpu.idle.is_some_and(|idle| !(0..=1).contains(&idle)) {
        return Err(Invalid::new(at("cpu.idle"), "not 0 or 1"));
    }
    let has_weight = resources.cpu.shares.is_some_and(|shares| shares != 0);
    if (resources.cpu.idle == Some(1) && has_weight) || resources.unified.keys().any(|file| is_moot(file, resources)) {
        let words = "unable to apply both a weight and idle: an idle cgroup has the least weight there is";
        log::warn(&format!("{}: {words}", at("cpu")));
    }
    for (index, entry) in resources.network.priorities.iter().enumerate() {
        if entry.name.is_empty() || entry.name.contains(char::is_whitespace) {
            return Err(Invalid::new(at(&format!("network.priorities[{index}].name")), "not the name of an interface"));
        }
    }
    for name in resources.rdma.keys() {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Invalid::new(at(&format!("rdma[{name:?}]")), "not the name of a device"));
        }
    }
    for name in resources.unified.keys() {
        // Of the hierarchy's own files these are limits; the others move, stop or kill.
        let own = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];
        let plain = name.contains('.') && !name.starts_with('.') && !name.contains("..") && !name.contains(['/', '\0']);
        if !plain || (name.starts_with("cgroup.") && !own.contains(&name.as_str())) {
            return Err(Invalid::new(
                at(&format!("unified[{name:?}]")),
                format!("the specified key has not the form CONTROLLER.VALUE `{name}`"),
            ));
        }
    }
    device_rules(&resources.devices)?;
    for (index, rule) in resources.devices.iter().enumerate() {
        if letters(&rule.access) != rule.access {
            let field = at(&format!("devices[{index}].access"));
            log::warn(&format!("{field}: of {:?} only r, w and m mean anything", rule.access));
        }
    }
    Ok(())
}

/// Those of an access that mean something. Other runtimes never looked at the rest, which is out there.
fn letters(access: &str) -> String {
    access.chars().filter(|c| "rwm".contains(*c)).collect()
}

/// Writes limits that have been checked; an update changes those of a container that runs.
pub(super) fn apply(place: &Place, resources: &Resources, moment: Moment) -> Result<(), LimitError> {
    if moment == Moment::Create || !resources.devices.is_empty() {
        devices(place, &resources.devices)?;
    }
    let mut in_the_way: Vec<Setting> = Vec::new();
    for setting in rows::settings(place, resources)? {
        match write(place, &setting) {
            Ok(()) => {}
            // Two limits that bound each other, and the other one has to move first.
            Err(LimitError::Write { source, .. }) if is_in_the_way(&source) => in_the_way.push(setting),
            Err(error) => return Err(error),
        }
    }
    in_the_way.iter().try_for_each(|setting| write(place, setting))?;
    unified(place, resources)
}

/// When limits are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Create,
    Update,
}

impl Now for Place {
    fn version(&self, controller: Controller) -> Version {
        self.home(controller).map_or(Version::V2, |directory| directory.version)
    }

    fn says(&self, controller: Controller, file: &str) -> Option<String> {
        std::fs::read_to_string(format!("{}/{file}", self.home(controller)?.full())).ok()
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ResourceBusy)
}

fn write(place: &Place, setting: &Setting) -> Result<(), LimitError> {
    let Setting { field, controller, choices, need } = setting;
    let mut missing = None;
    let mut written = false;
    for (file, value) in choices {
        let Some(directory) = place.home(*controller) else {
            missing = missing.or(Some(file.clone()));
            continue;
        };
        let path = format!("{}/{file}", directory.full());
        match write_file(&path, value) {
            Ok(()) => written = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = missing.or(Some(path)),
            Err(source) => {
                return Err(LimitError::Write { field: field.clone(), file: path, value: value.clone(), source });
            }
        }
    }
    match (missing, need) {
        (Some(file), Need::Must) if !written => Err(LimitError::Missing { field: field.clone(), file }),
        _ => Ok(()),
    }
}

fn write_file(path: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn read_number(directory: &Directory, file: &str) -> Option<i64> {
    std::fs::read_to_string(format!("{}/{file}", directory.full())).ok()?.trim().parse().ok()
}

/// Refuses less memory than what is used, where that is asked for. The sum first: it can be too low where
/// the memory is not.
pub(super) fn check_use(place: &Place, Resources { memory, .. }: &Resources) -> Result<(), LimitError> {
    let directory = place.home(Controller::Memory).filter(|_| memory.check_before_update);
    let Some(directory) = directory else { return Ok(()) };
    let read = |file: &str| read_number(directory, file);
    let (used, sum) = match directory.version {
        Version::V1 => (read("memory.usage_in_bytes"), read("memory.memsw.usage_in_bytes")),
        Version::V2 => {
            let used = read("memory.current");
            // A kernel without swap has no file for it.
            (used, used.map(|used| used + read("memory.swap.current").unwrap_or(0)))
        }
    };
    let limits = [("swap", "memory+swap", memory.swap, sum), ("limit", "memory", memory.limit, used)];
    for (field, what, limit, used) in limits {
        if let (Some(limit), Some(used)) = (limit.filter(|limit| *limit > 0), used)
            && used > limit
        {
            return Err(LimitError::InUse { field, what, limit, used });
        }
    }
    Ok(())
}

/// The kernel gives an idle cgroup its weight, and takes no other.
fn is_moot(file: &str, resources: &Resources) -> bool {
    file.starts_with("cpu.weight") && resources.unified.get("cpu.idle").is_some_and(|idle| idle.trim() == "1")
}

fn unified(place: &Place, resources: &Resources) -> Result<(), LimitError> {
    for (file, value) in resources.unified.iter().filter(|(file, _)| !is_moot(file, resources)) {
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
                    let controller = file.split('.').next().unwrap_or_default();
                    let all =
                        fs::read_to_string(format!("{}/cgroup.controllers", directory.full())).unwrap_or_default();
                    if directory.version == Version::V2
                        && place.home(Controller::Memory) == Some(directory)
                        && !all.split_whitespace().any(|name| name == controller)
                    {
                        return Err(LimitError::NoController { field, controller: controller.to_owned() });
                    }
                    return Err(LimitError::Missing { field, file: path });
                }
                Err(source) => return Err(LimitError::Write { field, file: path, value: line.to_owned(), source }),
            }
        }
    }
    Ok(())
}

/// The rules as they stand, and what every container may open behind them.
fn device_rules(rules: &[DeviceRule]) -> Result<Vec<cgroup::DeviceRule>, Invalid> {
    let mut all = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let invalid =
            |field: &str, what: String| Invalid::new(format!("linux.resources.devices[{index}].{field}"), what);
        let DeviceRule { allow, kind, major, minor, access } = rule;
        // An access that has none of the letters is wrong, and not everything.
        let known = letters(access);
        let number = |value: &Option<i64>, field: &str| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(*value)
                .map(Some)
                .map_err(|_| invalid(field, format!("{value} is not the number of a device"))),
        };
        all.push(cgroup::DeviceRule {
            verdict: if *allow { Verdict::Allow } else { Verdict::Deny },
            kind: match kind {
                None | Some(DeviceRuleKind::All) => None,
                Some(DeviceRuleKind::Character) => Some(DeviceKind::Character),
                Some(DeviceRuleKind::Block) => Some(DeviceKind::Block),
            },
            major: number(major, "major")?,
            minor: number(minor, "minor")?,
            access: Access::parse(if known.is_empty() { access } else { &known })
                .ok_or_else(|| invalid("access", format!("{access:?} is not made of r, w and m, once each")))?,
        });
    }
    all.extend(ALLOWED_DEVICES);
    Ok(all)
}

fn devices(place: &Place, rules: &[DeviceRule]) -> Result<(), LimitError> {
    place.allow_devices(&device_rules(rules)?).map_err(|error| match error {
        DeviceRulesError::NotInV1(index) => {
            let field = rules
                .get(index)
                .map_or("linux.resources.devices".to_owned(), |_| format!("linux.resources.devices[{index}]"));
            let what = "takes back a part of an earlier and wider rule, for which a v1 hierarchy has no words";
            Invalid::new(field, what).into()
        }
        DeviceRulesError::Cgroup(source) => LimitError::Devices { source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_below_the_memory_is_refused() {
        let memory = Memory { limit: Some(200), swap: Some(100), ..Memory::default() };
        let error = check(&Resources { memory, ..Resources::default() }, Moment::Create).unwrap_err();

        assert_eq!(
            error.to_string(),
            "linux.resources.memory.swap: 100 is memory and swap together, and less than the memory's 200"
        );
    }

    #[test]
    fn unified_names_lead_to_no_other_file() {
        let fine = |name: &str| {
            let unified = [(name.to_owned(), "1".to_owned())].into();
            check(&Resources { unified, ..Resources::default() }, Moment::Create).is_ok()
        };

        assert!(["memory.high", "misc.max", "cgroup.max.depth", "hugetlb.2MB.max"].into_iter().all(fine));
        let wrong =
            ["", "memory", "../memory.max", "a/memory.max", "..", "memory..max", "cgroup.procs", "cgroup.kill", ".x"];
        assert!(!wrong.into_iter().any(fine));
    }

    #[test]
    fn device_rules_are_checked_with_their_place() {
        let error = |rule: serde_json::Value| {
            let rules: Vec<DeviceRule> = serde_json::from_value(serde_json::json!([rule])).unwrap();
            device_rules(&rules).unwrap_err().to_string()
        };

        assert_eq!(
            error(serde_json::json!({"allow": true, "access": "x"})),
            "linux.resources.devices[0].access: \"x\" is not made of r, w and m, once each"
        );
        assert_eq!(
            error(serde_json::json!({"allow": true, "type": "c", "major": -2})),
            "linux.resources.devices[0].major: -2 is not the number of a device"
        );
    }
}
