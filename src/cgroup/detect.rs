//! What hierarchies this host has, which controller is where, and our own place in them.

use super::access::{self, ALLOWED_DEVICES, Exceptions};
use super::files::{self, Entries};
use super::resize::FREEZE;
use super::table::{self, Asked, Controller, Version};
use super::{CgroupError, CgroupJoinPaths};
use crate::spec::Resources;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Our part of this host's cgroup hierarchies.
#[derive(Debug)]
pub struct Cgroups {
    /// `/plimsoll`, the same path in every hierarchy.
    pub(super) parent: String,
    /// The v2 hierarchy first, where there is one.
    pub(super) hierarchies: Vec<Hierarchy>,
    /// Which hierarchy has a controller.
    pub(super) homes: BTreeMap<Controller, usize>,
    /// Controllers that the kernel was built with and that are switched off.
    disabled: BTreeSet<String>,
    ready: Mutex<Ready>,
}

/// One mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub version: Version,
    pub mount: String,
    /// The controllers in it that we use.
    pub controllers: BTreeSet<Controller>,
    /// `<mount><parent>/c`, once it has been opened.
    base: Mutex<Option<Arc<OwnedFd>>>,
}

/// What has been prepared, so that a start does not do it again.
#[derive(Debug, Default)]
struct Ready {
    /// The v2 controllers that are enabled for the containers' directories.
    enabled: BTreeSet<Controller>,
    /// v2 controllers that could not be enabled, and why.
    refused: BTreeMap<Controller, String>,
    /// Why no program decides about devices in the v2 hierarchy.
    devices_refused: Option<String>,
    /// Hierarchies whose `c` has been made, by index.
    made: BTreeSet<usize>,
    /// What an earlier agent made has been looked at.
    glanced: bool,
    controls: Arc<Controls>,
}

/// The control files that a container's directories have.
#[derive(Debug, Default, Clone)]
pub(super) struct Controls {
    /// By hierarchy.
    files: BTreeMap<usize, BTreeSet<String>>,
    pub page_sizes: BTreeSet<u64>,
    /// Those that we write, in the table's order.
    pub observed: Vec<(usize, String)>,
}

impl Controls {
    pub fn has(&self, hierarchy: usize, file: &str) -> bool {
        self.files.get(&hierarchy).is_some_and(|files| files.contains(file))
    }
}

impl Cgroups {
    /// Finds the hierarchies and where the controllers are. Reads only; [`Self::prepare`] writes.
    ///
    /// `parent` is below every hierarchy's mount point: `/plimsoll`.
    pub fn detect(parent: &str) -> Result<Self, CgroupError> {
        let invalid = || CgroupError::Parent { parent: parent.to_owned() };
        let below = parent.strip_prefix('/').ok_or_else(invalid)?;
        if below.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains('\0')) {
            return Err(invalid());
        }
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.into(), source })
        };
        let mut hierarchies = parse_mounts(&read("/proc/self/mountinfo")?);
        for hierarchy in hierarchies.iter_mut().filter(|h| h.version == Version::V2) {
            let available = read(&format!("{}/cgroup.controllers", hierarchy.mount))?;
            let has =
                |controller: &Controller| available.split_whitespace().any(|name| name == controller.name(Version::V2));
            hierarchy.controllers = Controller::LIMITS.into_iter().filter(has).collect();
        }
        let has_unified = hierarchies.iter().any(|h| h.version == Version::V2);
        for hierarchy in hierarchies.iter_mut().filter(|h| h.version == Version::V1) {
            hierarchy.controllers.retain(|controller| !Controller::OTHERS.contains(controller));
            // With cgroup.kill nobody needs to be frozen, and cpu.stat counts the time: two
            // hierarchies less to join.
            if has_unified {
                hierarchy.controllers.remove(&Controller::Freezer);
                hierarchy.controllers.remove(&Controller::Cpuacct);
            }
        }
        hierarchies.retain(|h| h.version == Version::V2 || !h.controllers.is_empty());
        if hierarchies.is_empty() {
            return Err(CgroupError::NoHierarchy);
        }
        let homes = hierarchies
            .iter()
            .enumerate()
            .flat_map(|(index, hierarchy)| hierarchy.controllers.iter().map(move |controller| (*controller, index)))
            .collect();
        // Without /proc/cgroups (a kernel with v2 alone) nothing is known to be switched off.
        let disabled = std::fs::read_to_string("/proc/cgroups").map(|text| parse_disabled(&text)).unwrap_or_default();
        Ok(Self { parent: parent.to_owned(), hierarchies, homes, disabled, ready: Mutex::default() })
    }

    /// For `plim check` and `plim status`, one line per hierarchy:
    /// `v1 /sys/fs/cgroup/memory/plimsoll: memory`.
    pub fn describe(&self) -> String {
        let kind = match (self.unified(), self.hierarchies.iter().any(|h| h.version == Version::V1)) {
            (Some(_), false) => "unified (v2)",
            (Some(_), true) => "hybrid (v1 with v2 beside it)",
            (None, _) => "legacy (v1)",
        };
        let mut text = format!("{kind}\n");
        for hierarchy in &self.hierarchies {
            let mut names: Vec<&str> = hierarchy.controllers.iter().map(|c| c.name(hierarchy.version)).collect();
            if hierarchy.version == Version::V2 {
                names.extend(["kill", "pressure", "cpu.stat"]);
            }
            let version = match hierarchy.version {
                Version::V1 => "v1",
                Version::V2 => "v2",
            };
            let _infallible = writeln!(text, "{version} {}{}: {}", hierarchy.mount, self.parent, names.join(" "));
        }
        let missing: Vec<String> = Controller::LIMITS
            .into_iter()
            .filter(|controller| !self.homes.contains_key(controller))
            .map(|controller| format!("{}: {}", controller.name(Version::V2), self.why_missing(controller)))
            .collect();
        for line in missing {
            let _infallible = writeln!(text, "missing {line}");
        }
        let refused = &self.ready().refused;
        for (controller, reason) in refused {
            let _infallible = writeln!(text, "missing {}: {reason}", controller.name(Version::V2));
        }
        text
    }

    /// Where the keeper's own process belongs: out of every node that has nodes below it. v1 has no
    /// such rule, so there it stays where it was started.
    pub fn keeper(&self) -> CgroupJoinPaths {
        let unified = self.unified().map(|index| format!("{}{}/keeper", self.hierarchies[index].mount, self.parent));
        CgroupJoinPaths { unified, v1: Vec::new() }
    }

    /// Moves the keeper's process there, which has to happen before controllers are handed down:
    /// as long as it is in `<parent>` itself (where systemd starts it), the kernel refuses that.
    pub fn enter_keeper(&self, pid: u32) -> Result<(), CgroupError> {
        let Some(index) = self.unified() else { return Ok(()) };
        let mount = &self.hierarchies[index].mount;
        let keeper = format!("{}/keeper", self.parent);
        make_all(mount, &keeper)?;
        write_path(&format!("{mount}{keeper}/cgroup.procs"), &pid.to_string())
    }

    /// Makes `<parent>/keeper` and `<parent>/c` and hands the controllers down to them. What is
    /// there already is left as it is; after the first time this costs nothing.
    pub fn prepare(&self) -> Result<(), CgroupError> {
        let mut ready = self.ready();
        if let Some(unified) = self.unified() {
            let wanted: Vec<Controller> = (self.hierarchies[unified].controllers.iter().copied())
                // Its files are many, and few ask for it: enabled by the first that does.
                .filter(|controller| *controller != Controller::Hugetlb)
                .collect();
            self.delegate(&mut ready, unified, &wanted)?;
        }
        for controller in Controller::ALWAYS.into_iter().chain([Controller::Devices]) {
            if let Some(index) = self.v1_home(controller) {
                self.make_v1_base(&mut ready, index)?;
            }
        }
        Ok(())
    }

    /// As [`Self::prepare`], for what only some containers use.
    pub(super) fn prepare_for(&self, controllers: &[Controller]) -> Result<(), CgroupError> {
        let mut ready = self.ready();
        for controller in controllers {
            match self.homes.get(controller) {
                Some(index) if self.hierarchies[*index].version == Version::V2 => {
                    self.delegate(&mut ready, *index, &[*controller])?;
                }
                Some(index) => self.make_v1_base(&mut ready, *index)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Removes `<parent>` where nothing is left in it; whether it is gone from every hierarchy.
    pub fn remove_parent(&self) -> Result<bool, CgroupError> {
        let mut ready = self.ready();
        *ready = Ready::default();
        let mut gone = true;
        for hierarchy in &self.hierarchies {
            hierarchy.forget();
            let parent = format!("{}{}", hierarchy.mount, self.parent);
            for path in [format!("{parent}/c"), format!("{parent}/keeper"), parent] {
                match rustix::fs::rmdir(&path) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::BUSY | Errno::NOTEMPTY) => gone = false,
                    Err(error) => return Err(CgroupError::Remove { path: path.into(), source: error.into() }),
                }
            }
        }
        Ok(gone)
    }

    pub(super) fn unified(&self) -> Option<usize> {
        self.hierarchies.iter().position(|h| h.version == Version::V2)
    }

    pub(super) fn v1_home(&self, controller: Controller) -> Option<usize> {
        self.homes.get(&controller).copied().filter(|index| self.hierarchies[*index].version == Version::V1)
    }

    /// The control files there are, also where an earlier agent made the directories.
    pub(super) fn controls(&self) -> Result<Arc<Controls>, CgroupError> {
        let mut ready = self.ready();
        if !ready.glanced {
            for (index, hierarchy) in self.hierarchies.iter().enumerate() {
                if !ready.made.contains(&index) && hierarchy.base(&self.parent)?.is_some() {
                    self.look(&mut ready, index)?;
                }
            }
            ready.glanced = true;
        }
        Ok(ready.controls.clone())
    }

    pub(super) fn enabled(&self) -> BTreeSet<Controller> {
        self.ready().enabled.clone()
    }

    pub(super) fn why_missing(&self, controller: Controller) -> String {
        if let Some(reason) = self.ready().refused.get(&controller) {
            return reason.clone();
        }
        let v2 = controller.name(Version::V2);
        let v1 = controller.name(Version::V1);
        if self.disabled.contains(v1) {
            format!("the controller {v1} is switched off (cgroup_disable= on the kernel's command line)")
        } else {
            format!("no mounted hierarchy has the controller {v2}")
        }
    }

    /// Whether a container is kept from the host's devices also where no user namespace does it.
    pub fn guards_devices(&self) -> Result<(), CgroupError> {
        match &self.ready().devices_refused {
            Some(reason) => Err(CgroupError::NoDeviceRules { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        // What it protects is only ever replaced as a whole, so a panic elsewhere leaves it usable.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes our directories in the v2 hierarchy and enables controllers on the way to them.
    fn delegate(&self, ready: &mut Ready, index: usize, wanted: &[Controller]) -> Result<(), CgroupError> {
        let hierarchy = &self.hierarchies[index];
        let parent = format!("{}{}", hierarchy.mount, self.parent);
        // One that was refused is tried again: whoever was in the way may have left.
        if ready.made.contains(&index) && wanted.iter().all(|controller| ready.enabled.contains(controller)) {
            return Ok(());
        }
        make_all(&hierarchy.mount, &self.parent)?;
        for path in [format!("{parent}/keeper"), format!("{parent}/c")] {
            make(&path)?;
        }
        if !ready.made.contains(&index) && self.v1_home(Controller::Devices).is_none() {
            // Without it containers with a user namespace can't open devices either; others don't start.
            let attached = access::attach(&format!("{parent}/c"), &ALLOWED_DEVICES);
            ready.devices_refused = attached.err().map(|error| reason(&error));
        }
        let refused = enable(&hierarchy.mount, &format!("{}/c", self.parent), wanted)?;
        for controller in wanted {
            match refused.get(controller) {
                Some(reason) => drop(ready.refused.insert(*controller, reason.clone())),
                None => {
                    ready.refused.remove(controller);
                    ready.enabled.insert(*controller);
                }
            }
        }
        ready.made.insert(index);
        self.look(ready, index)
    }

    /// Makes `<parent>/c` in a v1 hierarchy.
    fn make_v1_base(&self, ready: &mut Ready, index: usize) -> Result<(), CgroupError> {
        if ready.made.contains(&index) {
            return Ok(());
        }
        let hierarchy = &self.hierarchies[index];
        let path = format!("{}/c", self.parent);
        let cpuset = hierarchy.controllers.contains(&Controller::Cpuset);
        let mut above = hierarchy.mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let dir = format!("{above}/{part}");
            make(&dir)?;
            if cpuset {
                // A new v1 cpuset is empty, and neither takes processes nor lets its children have anything.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if read_path(&format!("{dir}/{file}"))?.is_empty() {
                        write_path(&format!("{dir}/{file}"), &read_path(&format!("{above}/{file}"))?)?;
                    }
                }
            }
            above = dir;
        }
        if hierarchy.controllers.contains(&Controller::Devices)
            && let Ok(rules) = Exceptions::of(&ALLOWED_DEVICES)
        {
            // All containers share this directory, because the rules are the same for all.
            access::write_v1(&above, &rules)?;
        }
        ready.made.insert(index);
        self.look(ready, index)
    }

    /// Notes which control files directories of containers have in a hierarchy.
    fn look(&self, ready: &mut Ready, index: usize) -> Result<(), CgroupError> {
        let hierarchy = &self.hierarchies[index];
        let base = hierarchy.base(&self.parent)?.ok_or_else(|| CgroupError::Open {
            path: hierarchy.base_path(&self.parent),
            source: Errno::NOENT.into(),
        })?;
        let names = files::names(base.as_fd(), ".", Entries::Files)
            .map_err(|error| CgroupError::Read { path: hierarchy.base_path(&self.parent), source: error.into() })?;
        let mut controls = Controls::clone(&ready.controls);
        controls.page_sizes.extend(names.iter().filter_map(|name| table::page_size(name)));
        controls.files.insert(index, names.into_iter().collect());
        controls.observed = self.observed(&controls);
        ready.controls = Arc::new(controls);
        Ok(())
    }
}

impl Cgroups {
    fn observed(&self, controls: &Controls) -> Vec<(usize, String)> {
        let resources = Resources::default();
        let asked = Asked { resources: &resources, disks: &BTreeMap::new(), page_sizes: &controls.page_sizes };
        let mut observed = Vec::new();
        for knob in &table::KNOBS {
            let Some(index) = self.homes.get(&knob.controller) else { continue };
            // A knob that this version lacks has no file to look at.
            let settings = knob.settings(self.hierarchies[*index].version, &asked).unwrap_or_default();
            let files = settings.into_iter().map(|setting| (*index, setting.file.into_owned()));
            observed.extend(files.filter(|(index, file)| controls.has(*index, file)));
        }
        observed.extend(self.unified().map(|index| (index, FREEZE.to_owned())));
        observed
    }
}

impl Hierarchy {
    /// `<mount><parent>/c`, or `None` where it has not been made.
    pub fn base(&self, parent: &str) -> Result<Option<Arc<OwnedFd>>, CgroupError> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if base.is_none() {
            let path = self.base_path(parent);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
                Ok(open) => *base = Some(Arc::new(open)),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(CgroupError::Open { path, source: error.into() }),
            }
        }
        Ok(base.clone())
    }

    pub fn base_path(&self, parent: &str) -> PathBuf {
        PathBuf::from(format!("{}{parent}/c", self.mount))
    }

    fn forget(&self) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Enables controllers for what is below `path`; why not, for those that could not be.
pub(super) fn enable(
    mount: &str,
    path: &str,
    wanted: &[Controller],
) -> Result<BTreeMap<Controller, String>, CgroupError> {
    let mut nodes: Vec<String> = vec![mount.to_owned()];
    for part in path.split('/').filter(|part| !part.is_empty()) {
        nodes.push(format!("{}/{part}", nodes[nodes.len() - 1]));
    }
    // From the bottom up, to touch nothing above us that does what we need already.
    let mut missing: Vec<(String, Vec<Controller>)> = Vec::new();
    for node in nodes.into_iter().rev() {
        let file = format!("{node}/cgroup.subtree_control");
        let text = read_path(&file)?;
        let off = |c: &Controller| !text.split_whitespace().any(|listed| listed == c.name(Version::V2));
        let absent: Vec<Controller> = wanted.iter().copied().filter(off).collect();
        if absent.is_empty() {
            break;
        }
        missing.push((file, absent));
    }
    let mut refused: BTreeMap<Controller, String> = BTreeMap::new();
    for (file, absent) in missing.into_iter().rev() {
        let absent: Vec<Controller> = absent.into_iter().filter(|c| !refused.contains_key(c)).collect();
        let plus = |some: &[Controller]| {
            let words: Vec<String> = some.iter().map(|c| format!("+{}", c.name(Version::V2))).collect();
            words.join(" ")
        };
        // In one write: with a process in the node, `cpu` alone would be taken and turn the node into
        // the root of a threaded subtree, in which nothing else of ours works (cgroup-v2, "Threads").
        let Err(error) = write_path(&file, &plus(&absent)) else { continue };
        let in_the_way = matches!(&error, CgroupError::Write { source, .. }
            if matches!(Errno::from_io_error(source), Some(Errno::BUSY | Errno::OPNOTSUPP)));
        if in_the_way {
            let why = format!("{}: processes are in that node itself", reason(&error));
            refused.extend(absent.into_iter().map(|controller| (controller, why.clone())));
            continue;
        }
        for controller in absent {
            if let Err(error) = write_path(&file, &plus(&[controller])) {
                refused.insert(controller, reason(&error));
            }
        }
    }
    Ok(refused)
}

fn reason(error: &CgroupError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn make_all(mount: &str, path: &str) -> Result<(), CgroupError> {
    let mut dir = mount.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        dir = format!("{dir}/{part}");
        make(&dir)?;
    }
    Ok(())
}

fn make(path: &str) -> Result<(), CgroupError> {
    files::make_dir(CWD, path).map(drop).map_err(|error| CgroupError::Make { path: path.into(), source: error.into() })
}

pub(super) fn read_path(path: &str) -> Result<String, CgroupError> {
    files::read(CWD, path).map_err(|error| CgroupError::Read { path: path.into(), source: error.into() })
}

pub(super) fn write_path(path: &str, value: &str) -> Result<(), CgroupError> {
    files::write(CWD, path, value).map_err(|error| CgroupError::Write {
        path: path.into(),
        value: value.to_owned(),
        source: error.into(),
    })
}

/// The cgroup mounts of a mountinfo text (proc_pid_mountinfo(5)), the v2 one first. A hierarchy that
/// is mounted more than once is taken where it is seen whole, or where it comes first.
pub(super) fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<(Hierarchy, bool)> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(mount), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
        let options = right.get(2).copied().unwrap_or("");
        let (version, controllers): (Version, BTreeSet<Controller>) = match *kind {
            "cgroup2" => (Version::V2, BTreeSet::new()),
            "cgroup" => (Version::V1, options.split(',').filter_map(v1_controller).collect()),
            _ => continue,
        };
        let whole = *root == "/";
        let same = |(old, _): &&mut (Hierarchy, bool)| {
            old.version == version && (version == Version::V2 || old.controllers == controllers)
        };
        let hierarchy =
            Hierarchy { version, mount: unescape(mount), controllers: controllers.clone(), base: Mutex::new(None) };
        match found.iter_mut().find(same) {
            Some(old) if whole && !old.1 => *old = (hierarchy, whole),
            Some(_) => {}
            None => found.push((hierarchy, whole)),
        }
    }
    found.sort_by_key(|(hierarchy, _)| std::cmp::Reverse(hierarchy.version));
    found.into_iter().map(|(hierarchy, _)| hierarchy).collect()
}

fn v1_controller(option: &str) -> Option<Controller> {
    Controller::EVERY.into_iter().find(|controller| controller.name(Version::V1) == option)
}

/// Mount points have blanks and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// The controllers whose `enabled` column is 0.
fn parse_disabled(text: &str) -> BTreeSet<String> {
    let off = |line: &str| {
        let mut columns = line.split_whitespace();
        let name = columns.next()?;
        (columns.nth(2)? == "0").then(|| name.to_owned())
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(off).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Version, String, Vec<Controller>)> {
        parse_mounts(text).into_iter().map(|h| (h.version, h.mount, h.controllers.into_iter().collect())).collect()
    }

    #[test]
    fn a_unified_host_has_one_hierarchy() {
        let text = "24 23 0:21 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

        assert_eq!(kinds(text), [(Version::V2, "/sys/fs/cgroup".to_owned(), vec![])]);
    }

    #[test]
    fn a_hybrid_host_has_v2_first_and_the_controllers_of_each_v1_mount() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

        let found = kinds(text);

        assert_eq!(found[0], (Version::V2, "/sys/fs/cgroup/unified".to_owned(), vec![]));
        assert!(found.contains(&(
            Version::V1,
            "/sys/fs/cgroup/cpu,cpuacct".to_owned(),
            vec![Controller::Cpu, Controller::Cpuacct]
        )));
        assert!(found.contains(&(Version::V1, "/sys/fs/cgroup/memory".to_owned(), vec![Controller::Memory])));
    }

    #[test]
    fn a_hierarchy_is_taken_where_it_is_seen_whole() {
        let text = "1 0 0:1 /a /srv/part rw - cgroup2 cgroup2 rw\n2 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

        assert_eq!(kinds(text), [(Version::V2, "/sys/fs/cgroup".to_owned(), vec![])]);
    }

    #[test]
    fn a_parent_that_leads_elsewhere_is_refused() {
        for parent in ["plimsoll", "/", "/a/../b", "/a//b", ""] {
            assert!(matches!(Cgroups::detect(parent), Err(CgroupError::Parent { .. })), "{parent:?}");
        }
    }

    #[test]
    fn a_controller_switched_off_at_boot_is_known() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\ncpu\t3\t1\t1\n";

        assert_eq!(parse_disabled(text), BTreeSet::from(["memory".to_owned()]));
    }
}
