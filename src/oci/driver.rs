//! Who makes a container's cgroup: we do in the file system, systemd does as a scope, or nobody.

use super::OciError;
use super::args::{CgroupManager, UsageError};
use super::config::{Config, Invalid, Resources};
use super::create::shares_pids;
use super::resources;
use super::rows::{self, Now};
use crate::cgroup::place::{self, Mounted, Place};
use crate::cgroup::table::{Controller, Version};
use crate::cgroup::{Argument, CgroupError, Placeholder, Scope, Systemd};
use std::collections::BTreeSet;

/// Where a container's cgroup is to be.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub place: Place,
    pub scope: Option<Scope>,
}

/// What a container whose cgroup has a name is in as well.
const NAMED: [Controller; 10] = [
    Controller::Cpu,
    Controller::Cpuset,
    Controller::Io,
    Controller::Hugetlb,
    Controller::Freezer,
    Controller::Cpuacct,
    Controller::NetCls,
    Controller::NetPrio,
    Controller::Rdma,
    Controller::Misc,
];

/// Where the container's limits are, and as few other hierarchies as will do: each costs time.
pub(super) fn plan(manager: CgroupManager, config: &Config, id: &str) -> Result<Planned, OciError> {
    let given = &config.linux.cgroups_path;
    let resources = &config.linux.resources;
    let mut wanted: BTreeSet<Controller> = resources::controllers(resources);
    match manager {
        CgroupManager::Disabled => {
            // Devices alone are named by every configuration, and without a cgroup nothing keeps them.
            if *resources != (Resources { devices: resources.devices.clone(), ..Resources::default() }) {
                let what = "limits take a cgroup, and --cgroup-manager is disabled";
                return Err(Invalid::new("linux.resources", what).into());
            }
            return Ok(Planned { place: Place::of(Vec::new()), scope: None });
        }
        CgroupManager::Systemd => {
            let scope = scope(given, id)?;
            if !given.is_empty() {
                wanted.extend(NAMED);
            }
            let path = scope.path().map_err(|error| Invalid::new("linux.cgroupsPath", error.to_string()))?;
            let place = find(&Mounted::here()?, &path, given, &wanted)?;
            if place.directories().iter().any(|directory| directory.version == Version::V1) {
                let what = "--systemd-cgroup takes a host that is all cgroup v2, and this one has v1 hierarchies";
                return Err(UsageError(what.to_owned()).into());
            }
            return Ok(Planned { place, scope: Some(scope) });
        }
        CgroupManager::Cgroupfs => {}
    }
    let path = match given.as_str() {
        "" => format!("/plim-oci/{id}"),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/plim-oci/{relative}"),
    };
    wanted.extend([Controller::Memory, Controller::Pids]);
    if !given.is_empty() {
        // Who names the cgroup looks for it in all hierarchies, for figures if not for limits.
        wanted.extend(NAMED);
    }
    let mounted = Mounted::here()?;
    if !mounted.has_v2() {
        // Then this counts its time,
        wanted.insert(Controller::Cpuacct);
        if shares_pids(config) {
            // and this keeps new processes from being born while all are killed. Others get it when they
            // are to be paused.
            wanted.insert(Controller::Freezer);
        }
    }
    let place = find(&mounted, &path, given, &wanted)?;
    let asked =
        !given.is_empty() || *resources != (Resources { devices: resources.devices.clone(), ..Resources::default() });
    if !asked && !rustix::process::geteuid().is_root() && !may_make_all(&place) {
        // Who is not root has no cgroups until he is given some, and can do without.
        return Ok(Planned { place: Place::of(Vec::new()), scope: None });
    }
    Ok(Planned { place, scope: None })
}

/// Whether all of a place's directories can be made.
fn may_make_all(place: &Place) -> bool {
    let may_make = |directory: &place::Directory| {
        let path = directory.full();
        let there = std::path::Path::new(&path).ancestors().find(|path| path.exists());
        there.is_some_and(|path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok())
    };
    place.directories().iter().all(may_make)
}

fn find(mounted: &Mounted, path: &str, given: &str, wanted: &BTreeSet<Controller>) -> Result<Place, OciError> {
    mounted.find(path, wanted).map_err(|error| match error {
        CgroupError::Parent { .. } => {
            Invalid::new("linux.cgroupsPath", format!("{given:?} is not a path of a cgroup")).into()
        }
        error => OciError::Cgroup(error),
    })
}

/// `slice:prefix:name`, as other runtimes read it with systemd.
fn scope(given: &str, id: &str) -> Result<Scope, Invalid> {
    let parts: Vec<&str> = if given.is_empty() { vec!["", "plim-oci", id] } else { given.split(':').collect() };
    let [slice, prefix, name] = parts[..] else {
        let what = format!("{given:?} is not of the form slice:prefix:name, which systemd takes");
        return Err(Invalid::new("linux.cgroupsPath", what));
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name.is_empty() || name.ends_with(".slice") || !name.chars().chain(prefix.chars()).all(allowed) {
        let what = format!("{name:?} with {prefix:?} in front is not the name of a scope");
        return Err(Invalid::new("linux.cgroupsPath", what));
    }
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    Ok(Scope { slice: slice.to_owned(), unit, description: format!("container {id}") })
}

/// Keeps a new cgroup until there is a process in it.
#[derive(Debug)]
pub(super) struct Held(#[allow(dead_code, reason = "what counts is when it is dropped")] Option<Placeholder>);

impl Planned {
    /// Makes the cgroup; also the directories that were made for it, the outer ones first.
    pub(super) fn make(&self, resources: &Resources) -> Result<(Held, Vec<String>), OciError> {
        let Some(scope) = &self.scope else { return Ok((Held(None), self.place.make()?)) };
        let limits = properties(resources, &NotYet)?;
        // systemd would say only that the name is taken.
        self.place.refuse_what_is_in_use()?;
        let placeholder = Systemd::connect()?.start(scope, &limits)?;
        self.place.enable()?;
        Ok((Held(Some(placeholder)), self.place.unified().map(place::Directory::full).into_iter().collect()))
    }
}

/// Removes a cgroup with everything in it.
pub(super) fn remove(place: &Place, scope: Option<&str>) -> Result<(), OciError> {
    // Killed by us: systemd would ask first, and wait for an answer.
    place.remove()?;
    if let Some(unit) = scope {
        Systemd::connect()?.stop(unit)?;
    }
    Ok(())
}

/// Tells systemd of new limits, where the cgroup is its own. Before the files are written: it writes what
/// it makes of them, which may be less exact.
pub(super) fn update(place: &Place, scope: Option<&str>, resources: &Resources) -> Result<(), OciError> {
    let Some(unit) = scope else { return Ok(()) };
    let limits = properties(resources, place)?;
    if limits.is_empty() { Ok(()) } else { Ok(Systemd::connect()?.change(unit, &limits)?) }
}

/// Of `cpu.max` (cgroups(7), and the kernel's cgroup-v2.rst).
const USUAL_PERIOD_US: u64 = 100_000;

/// A quota as systemd keeps it, so that the file says the same after it has been written anew: whole
/// hundredths of a CPU. With both numbers, as it would forget the one that an update does not name.
pub(super) fn settle(resources: &mut Resources, now: &dyn Now) {
    let cpu = &mut resources.cpu;
    let (quota, period) = (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0));
    if quota.is_none() && period.is_none() {
        return;
    }
    let text = now.says(Controller::Cpu, "cpu.max").unwrap_or_default();
    let mut words = text.split_whitespace();
    let (quota_now, period_now) = (words.next().and_then(|word| word.parse().ok()), words.next());
    cpu.period = period.or_else(|| period_now?.parse().ok());
    cpu.quota = quota.or(quota_now);
    if let Some(quota) = cpu.quota.and_then(|quota| u64::try_from(quota).ok()) {
        let period = cpu.period.unwrap_or(USUAL_PERIOD_US);
        let hundredths = quota.saturating_mul(100).div_ceil(period);
        cpu.quota = i64::try_from(hundredths.saturating_mul(period) / 100).ok();
    }
}

/// A cgroup that is not there yet.
struct NotYet;

impl Now for NotYet {
    fn version(&self, _: Controller) -> Version {
        Version::V2
    }

    fn says(&self, _: Controller, _: &str) -> Option<String> {
        None
    }
}

/// Limits as properties of a unit. We write the files, too; this is so that systemd, whenever it writes
/// them anew, writes the same.
fn properties(resources: &Resources, now: &dyn Now) -> Result<Vec<(String, Argument)>, Invalid> {
    let settings = rows::settings(now, resources)?;
    let files = settings.into_iter().flat_map(|setting| setting.choices);
    let lines =
        |(file, text): (&String, &String)| text.lines().map(|line| (file.clone(), line.to_owned())).collect::<Vec<_>>();
    let all = files.chain(resources.unified.iter().flat_map(lines));
    Ok(all.flat_map(|(file, value)| property(&file, &value)).collect())
}

fn property(file: &str, value: &str) -> Vec<(String, Argument)> {
    /// systemd.resource-control(5).
    const NUMBERS: [(&str, &str); 8] = [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("pids.max", "TasksMax"),
        ("cpu.weight", "CPUWeight"),
        ("io.weight", "IOWeight"),
    ];
    let number = |text: &str| if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let one = |name: &str, argument: Argument| vec![(name.to_owned(), argument)];
    if let Some((_, name)) = NUMBERS.iter().find(|(known, _)| *known == file) {
        let number = number(value.strip_prefix("default ").unwrap_or(value));
        return number.map_or_else(Vec::new, |number| one(name, Argument::Number(number)));
    }
    match file {
        "cpu.max" => {
            let mut words = value.split(' ');
            let Some(quota) = words.next().and_then(number) else { return Vec::new() };
            let period = words.next().and_then(number);
            let usual = USUAL_PERIOD_US;
            let per_second = match quota {
                u64::MAX => u64::MAX,
                quota => quota.saturating_mul(1_000_000).div_ceil(period.unwrap_or(usual).max(1)),
            };
            let mut both = one("CPUQuotaPerSecUSec", Argument::Number(per_second));
            both.extend(period.map(|period| ("CPUQuotaPeriodUSec".to_owned(), Argument::Number(period))));
            both
        }
        "cpuset.cpus" => members(value).map_or_else(Vec::new, |bits| one("AllowedCPUs", Argument::Bytes(bits))),
        "cpuset.mems" => members(value).map_or_else(Vec::new, |bits| one("AllowedMemoryNodes", Argument::Bytes(bits))),
        "io.max" => io(value, number),
        _ => Vec::new(),
    }
}

fn io(value: &str, number: impl Fn(&str) -> Option<u64>) -> Vec<(String, Argument)> {
    const KEYS: [(&str, &str); 4] = [
        ("rbps", "IOReadBandwidthMax"),
        ("wbps", "IOWriteBandwidthMax"),
        ("riops", "IOReadIOPSMax"),
        ("wiops", "IOWriteIOPSMax"),
    ];
    let mut words = value.split(' ');
    let device = format!("/dev/block/{}", words.next().unwrap_or_default());
    let property = |word: &str| {
        let (key, value) = word.split_once('=')?;
        let (_, name) = KEYS.iter().find(|(known, _)| *known == key)?;
        Some(((*name).to_owned(), Argument::PathsAndNumbers(vec![(device.clone(), number(value)?)])))
    };
    // It knows disks by their nodes alone.
    if std::path::Path::new(&device).exists() { words.filter_map(property).collect() } else { Vec::new() }
}

/// A list such as `0-2,5` as bits, the lowest first; `None` for what is no such list.
fn members(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for number in first..=last {
            let at = usize::from(number / 8);
            if bits.len() <= at {
                bits.resize(at + 1, 0);
            }
            bits[at] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_scopes_name_is_made_of_three_parts() {
        let unit = |given: &str| scope(given, "web").map(|scope| (scope.slice, scope.unit)).ok();
        let own = |slice: &str, unit: &str| Some((slice.to_owned(), unit.to_owned()));

        assert_eq!(unit(""), own("system.slice", "plim-oci-web.scope"));
        assert_eq!(unit("machine.slice:libpod:ab12"), own("machine.slice", "libpod-ab12.scope"));
        assert_eq!(unit("::x"), own("system.slice", "x.scope"));
        for wrong in ["/a/b", "a:b", "a:b:c:d", "a.slice:b:", "a.slice:b:c.slice", "a.slice:b:c/d"] {
            assert_eq!(unit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_quota_is_one_that_systemd_can_keep() {
        struct Max(&'static str);
        impl Now for Max {
            fn version(&self, _: Controller) -> Version {
                Version::V2
            }
            fn says(&self, _: Controller, _: &str) -> Option<String> {
                Some(self.0.to_owned())
            }
        }
        let settled = |now: &'static str, cpu: serde_json::Value| {
            let mut resources: Resources = serde_json::from_value(json!({ "cpu": cpu })).unwrap();
            settle(&mut resources, &Max(now));
            (resources.cpu.quota, resources.cpu.period)
        };

        assert_eq!(settled("", json!({"quota": 50_001})), (Some(51_000), None));
        assert_eq!(settled("500000 1000000", json!({"period": 900_000})), (Some(504_000), Some(900_000)));
        assert_eq!(settled("500000 900000", json!({"quota": 600_000})), (Some(603_000), Some(900_000)));
        assert_eq!(settled("max 200000", json!({"quota": -1})), (Some(-1), Some(200_000)));
        assert_eq!(settled("max 100000", json!({"period": 50_000})), (None, Some(50_000)));
        assert_eq!(settled("500001 900000", json!({"shares": 5})), (None, None));
    }

    #[test]
    fn limits_are_properties_of_the_unit() {
        let resources = serde_json::from_value(json!({
            "memory": {"limit": 100, "swap": -1, "reservation": 7},
            "cpu": {"shares": 1024, "quota": 5000, "period": 20000, "cpus": "0,9", "mems": "0"},
            "pids": {"limit": -1},
            "unified": {"memory.high": "90", "hugetlb.2MB.max": "0"},
        }));

        let found = properties(&resources.unwrap(), &NotYet).unwrap();

        let number = |name: &str, value| (name.to_owned(), Argument::Number(value));
        let bytes = |name: &str, value: &[u8]| (name.to_owned(), Argument::Bytes(value.to_vec()));
        let expected = [
            number("MemoryMax", 100),
            number("MemorySwapMax", u64::MAX),
            number("MemoryLow", 7),
            number("CPUWeight", 100),
            number("CPUQuotaPerSecUSec", 250_000),
            number("CPUQuotaPeriodUSec", 20_000),
            bytes("AllowedCPUs", &[1, 2]),
            bytes("AllowedMemoryNodes", &[1]),
            number("TasksMax", u64::MAX),
            number("MemoryHigh", 90),
        ];
        assert_eq!(found, expected);
    }
}
