//! Bringing control files to what is wanted: only what differs is written, then read back.

use super::detect::Cgroups;
use super::group::v1_name;
use super::memory::{self, Deferral, MemoryFiles};
use super::table::{Asked, Controller, KNOBS, Setting, Strength, Version};
use super::{CgroupError, device, files};
use crate::spec::{CpuSet, InstanceId, LimitPointer, Resources};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// What a resize came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resized {
    /// What is in force now: what was wanted, except for what is deferred.
    pub actuated: Resources,
    /// What the kernel answered, by control file: the same files that [`Cgroups::observe`] reads.
    pub readback: BTreeMap<String, String>,
    /// Advisory limits that this host has no knob for.
    pub unsupported: Vec<String>,
    /// Lowering the memory now would do harm, so nothing of it was written:
    /// `memory 512Mi → 256Mi: 301Mi in use`.
    pub deferred: Option<String>,
}

/// Whether anything runs in the directories yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Fresh,
    Live,
}

/// Control files with what they are to say.
#[derive(Debug)]
pub(super) struct Wanted {
    settings: Vec<Target>,
    pub unsupported: Vec<String>,
}

#[derive(Debug)]
struct Target {
    /// Below `spec.resources`.
    field: &'static str,
    hierarchy: usize,
    /// The field is set, so that the file has to be there.
    asked: bool,
    setting: Setting,
}

/// Whether a v2 directory's processes stand still (cgroups(7); Linux 5.2).
pub(super) const FREEZE: &str = "cgroup.freeze";

/// A process and all that descend from it (proc(5), `/proc/PID/task/TID/children`; Linux 3.5).
fn descendants(first: u32) -> Vec<u32> {
    let mut found = vec![first];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        next += 1;
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            // One that has ended has none.
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

#[derive(Debug)]
pub(super) struct Applied {
    pub says: BTreeMap<String, String>,
    pub deferred: Option<Deferral>,
}

impl Wanted {
    /// Without those that others may change, and that are to say what they were to say before.
    fn leave(&mut self, before: &Self, ignored: &[LimitPointer]) {
        let same = |target: &Target| before.settings.iter().any(|other| other.setting == target.setting);
        self.settings.retain(|target| !is_ignored(target.field, ignored) || !same(target));
    }

    /// What the files say, without those that others may change.
    pub(super) fn told(
        &self,
        mut says: BTreeMap<String, String>,
        ignored: &[LimitPointer],
    ) -> BTreeMap<String, String> {
        for target in self.settings.iter().filter(|target| is_ignored(target.field, ignored)) {
            says.remove(&*target.setting.file);
        }
        says
    }
}

fn is_ignored(field: &str, ignored: &[LimitPointer]) -> bool {
    ignored.iter().any(|pointer| pointer.covers(field))
}

impl Cgroups {
    /// Writes what differs from `to`, also what differs because somebody else wrote it; a limit that
    /// `to` does not name goes back to the kernel's default.
    ///
    /// Memory is never lowered below what is in use: then it is deferred, and everything else is
    /// applied all the same. What is `ignored` is written only where `to` differs from `from`, and not
    /// told in the readback.
    ///
    /// # Errors
    /// [`CgroupError::Unsupported`] when the host lacks a hard limit, with nothing written. After a
    /// refused write the files before it, in the table's order, have been written.
    pub fn resize(
        &self,
        instance: &InstanceId,
        from: &Resources,
        to: &Resources,
        ignored: &[LimitPointer],
    ) -> Result<Resized, CgroupError> {
        self.prepare()?;
        let mut wanted = self.wanted(to)?;
        if !ignored.is_empty() {
            wanted.leave(&self.wanted(from)?, ignored);
        }
        let Applied { says, deferred } = self.apply(instance, &wanted, Mode::Live)?;
        let mut actuated = to.clone();
        if let Some(deferral) = &deferred {
            actuated.memory.limit = from.memory.limit;
            actuated.memory.high = from.memory.high;
            if deferral.version == Version::V1 {
                // There swap is a part of one number with the memory.
                actuated.memory.swap = from.memory.swap;
            }
        }
        Ok(Resized {
            actuated,
            readback: wanted.told(says, ignored),
            unsupported: wanted.unsupported,
            deferred: deferred.map(|deferral| deferral.to_string()),
        })
    }

    /// The control files for these limits on this host, or why it cannot hold them.
    pub(super) fn wanted(&self, resources: &Resources) -> Result<Wanted, CgroupError> {
        let asked_controllers: BTreeSet<Controller> =
            KNOBS.iter().filter(|knob| knob.is_asked(resources)).map(|knob| knob.controller).collect();
        self.prepare_for(&asked_controllers.into_iter().collect::<Vec<_>>())?;
        let controls = self.controls()?;
        let disks = device::resolve(&resources.io.limits)?;
        let asked = Asked { resources, disks: &disks, page_sizes: &controls.page_sizes };
        let mut wanted = Wanted { settings: Vec::new(), unsupported: Vec::new() };
        for knob in &KNOBS {
            let is_asked = knob.is_asked(resources);
            let found = match self.homes.get(&knob.controller) {
                None => Err(self.why_missing(knob.controller)),
                Some(index) => {
                    let version = self.hierarchies[*index].version;
                    knob.settings(version, &asked).map_err(str::to_owned).map(|settings| (*index, settings))
                }
            };
            let reason = match found {
                Err(reason) => Some(reason),
                Ok((index, settings)) => {
                    let total = settings.len();
                    let name = settings.first().map_or_else(String::new, |setting| setting.file.to_string());
                    // Each page size is a limit of its own; of other knobs any of the files will do.
                    let lacking = settings
                        .iter()
                        .find(|setting| knob.controller == Controller::Hugetlb && !controls.has(index, &setting.file))
                        .map(|setting| setting.file.to_string());
                    let there = settings.into_iter().filter(|setting| controls.has(index, &setting.file));
                    let before = wanted.settings.len();
                    wanted.settings.extend(there.map(|setting| Target {
                        field: knob.field,
                        hierarchy: index,
                        asked: is_asked,
                        setting,
                    }));
                    let none = total > 0 && wanted.settings.len() == before;
                    match lacking {
                        _ if none && !self.is_enabled(index, knob.controller) => {
                            Some(self.why_missing(knob.controller))
                        }
                        Some(file) => Some(format!("the kernel has no {file}")),
                        None if none => Some(format!("the kernel has no {name}")),
                        None => None,
                    }
                }
            };
            match (reason, knob.strength) {
                (Some(reason), Strength::Hard) if is_asked => {
                    return Err(CgroupError::Unsupported { field: knob.field.to_owned(), reason });
                }
                (Some(_), Strength::Advisory) if is_asked => wanted.unsupported.push(knob.field.to_owned()),
                (Some(_), _) | (None, _) => {}
            }
        }
        self.check_cpuset("cpu.cpuset", resources.cpu.cpuset.as_ref(), "cpuset.cpus")?;
        self.check_cpuset("cpu.mems", resources.cpu.mems.as_ref(), "cpuset.mems")?;
        Ok(wanted)
    }

    fn is_enabled(&self, index: usize, controller: Controller) -> bool {
        self.hierarchies[index].version == Version::V1 || self.enabled().contains(&controller)
    }

    /// v2 takes a CPU that is not there and ignores it: the container would run anywhere.
    fn check_cpuset(&self, field: &'static str, asked: Option<&CpuSet>, file: &str) -> Result<(), CgroupError> {
        let (Some(asked), Some(index)) = (asked, self.homes.get(&Controller::Cpuset)) else { return Ok(()) };
        let hierarchy = &self.hierarchies[*index];
        let file = match hierarchy.version {
            Version::V1 => file.to_owned(),
            Version::V2 => format!("{file}.effective"),
        };
        let Some(base) = hierarchy.base(&self.parent)? else { return Ok(()) };
        let available = files::read(base.as_fd(), &file).map_err(|error| CgroupError::Read {
            path: hierarchy.base_path(&self.parent).join(&file),
            source: error.into(),
        })?;
        let fits = CpuSet::try_from(available.clone()).is_ok_and(|set| asked.members().is_subset(&set.members()));
        if fits {
            return Ok(());
        }
        Err(CgroupError::NotOnThisHost { field, asked: asked.to_string(), available })
    }

    /// Reads, writes what differs, reads that again.
    pub(super) fn apply(&self, instance: &InstanceId, wanted: &Wanted, mode: Mode) -> Result<Applied, CgroupError> {
        let (dirs, joining) = self.directories(instance, wanted, mode)?;
        let mut says = BTreeMap::new();
        let mut memory = MemoryFiles::default();
        let mut rest = Vec::new();
        for target in &wanted.settings {
            let Some(dir) = dirs.get(&target.hierarchy) else { continue };
            let file = target.setting.file.as_ref();
            match files::read(dir.as_fd(), file) {
                Ok(text) => drop(says.insert(file.to_owned(), text)),
                // Enabled for others after this one was made, and not asked for here.
                Err(Errno::NOENT) if !target.asked => continue,
                Err(error) => {
                    let path = self.path(target.hierarchy, instance).join(file);
                    return Err(CgroupError::Read { path, source: error.into() });
                }
            }
            if !memory.takes(&target.setting) {
                rest.push((target, dir));
            }
        }
        let mut changed = BTreeSet::new();
        for (target, dir) in rest {
            let file = target.setting.file.as_ref();
            let version = self.hierarchies[target.hierarchy].version;
            let above = match &target.setting.value {
                super::table::Value::Inherited => self.above(target.hierarchy, file)?,
                _ => String::new(),
            };
            for text in target.setting.value.writes(version, &says[file], &above) {
                files::write(dir.as_fd(), file, &text).map_err(|error| CgroupError::Write {
                    path: self.path(target.hierarchy, instance).join(file),
                    value: text,
                    source: error.into(),
                })?;
                changed.insert((target.hierarchy, file));
            }
        }
        let mut deferred = None;
        if let Some(index) = self.homes.get(&Controller::Memory)
            && let Some(dir) = dirs.get(index)
        {
            let place = memory::Place { dir: dir.as_fd(), path: &self.path(*index, instance) };
            let version = self.hierarchies[*index].version;
            let (written, deferral) = memory.apply(&place, version, &says, mode)?;
            changed.extend(written.into_iter().map(|file| (*index, file)));
            deferred = deferral;
        }
        for (index, file) in changed {
            let Some(dir) = dirs.get(&index) else { continue };
            let text = files::read(dir.as_fd(), file).map_err(|error| CgroupError::Read {
                path: self.path(index, instance).join(file),
                source: error.into(),
            })?;
            says.insert(file.to_owned(), text);
        }
        if let Some(index) = self.unified()
            && let Some(text) = self.thaw(index, instance)?
        {
            says.insert(FREEZE.to_owned(), text);
        }
        for index in joining {
            self.move_in(instance, index)?;
        }
        Ok(Applied { says, deferred })
    }

    /// The instance's directories that the wanted files are in. A v1 directory that is missing is
    /// made when a limit in it is asked for; those are returned as well, for the processes to join.
    fn directories(
        &self,
        instance: &InstanceId,
        wanted: &Wanted,
        mode: Mode,
    ) -> Result<(BTreeMap<usize, OwnedFd>, Vec<usize>), CgroupError> {
        let needed: BTreeSet<usize> = wanted.settings.iter().map(|target| target.hierarchy).collect();
        let asked: BTreeSet<usize> =
            wanted.settings.iter().filter(|target| target.asked).map(|target| target.hierarchy).collect();
        let mut dirs = BTreeMap::new();
        let mut joining = Vec::new();
        for index in needed {
            let mut dir = self.open(index, instance)?;
            let is_v1 = self.hierarchies[index].version == Version::V1;
            if dir.is_none() && asked.contains(&index) && is_v1 && mode == Mode::Live && self.stands(instance)? {
                self.make_in(index, &v1_name(instance), &mut Vec::new())?;
                joining.push(index);
                dir = self.open(index, instance)?;
            }
            match dir {
                Some(dir) => drop(dirs.insert(index, dir)),
                None if asked.contains(&index) => {
                    return Err(CgroupError::Open { path: self.path(index, instance), source: Errno::NOENT.into() });
                }
                None => {}
            }
            if !is_v1 && mode == Mode::Live && asked.contains(&index) {
                self.hand_to_family(index, instance)?;
            }
        }
        Ok((dirs, joining))
    }

    /// Lets go on what somebody has frozen; what the file says then.
    fn thaw(&self, index: usize, instance: &InstanceId) -> Result<Option<String>, CgroupError> {
        let Some(dir) = self.open(index, instance)? else { return Ok(None) };
        let fail =
            |source: Errno| CgroupError::Read { path: self.path(index, instance).join(FREEZE), source: source.into() };
        let text = match files::read(dir.as_fd(), FREEZE) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(fail)?,
        };
        if text != "1" {
            return Ok(Some(text));
        }
        files::write(dir.as_fd(), FREEZE, "0").map_err(fail)?;
        files::read(dir.as_fd(), FREEZE).map(Some).map_err(fail)
    }

    /// Makes the instance's v2 directories again, which somebody has taken away under its processes, and
    /// moves those into them: `first` and all that descend from it. Nothing where they stand.
    ///
    /// # Errors
    /// Where a directory cannot be made, or a process cannot be moved.
    pub fn restore(&self, instance: &InstanceId, first: u32) -> Result<(), CgroupError> {
        let Some(index) = self.unified() else { return Ok(()) };
        if self.open(index, instance)?.is_some() {
            return Ok(());
        }
        let number = format!("{}/{}", instance.family(), instance.number);
        let payload = format!("{number}/payload");
        for path in [instance.family(), number, payload.clone()] {
            self.make_in(index, &path, &mut Vec::new())?;
            if path == instance.family() {
                self.hand_to_family(index, instance)?;
            }
        }
        let base = self.need_base(index)?;
        let file = format!("{payload}/cgroup.procs");
        // What is born meanwhile is a child of one that has not been moved yet, or is born inside.
        let mut moved = BTreeSet::new();
        loop {
            let outside: Vec<u32> = descendants(first).into_iter().filter(|pid| moved.insert(*pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match files::write(base.as_fd(), &file, &pid.to_string()) {
                    // It has ended.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => {
                        let path = self.path(index, instance).join("payload/cgroup.procs");
                        return Err(CgroupError::Write { path, value: pid.to_string(), source: error.into() });
                    }
                }
            }
        }
    }

    /// Whether the instance's main directory is there.
    fn stands(&self, instance: &InstanceId) -> Result<bool, CgroupError> {
        let main = self.unified().or_else(|| self.v1_home(Controller::Memory));
        Ok(match main {
            Some(index) => self.open(index, instance)?.is_some(),
            None => false,
        })
    }

    /// What a file says in the directory that all containers' directories are in.
    fn above(&self, index: usize, file: &str) -> Result<String, CgroupError> {
        let hierarchy = &self.hierarchies[index];
        let fail = |error: Errno| CgroupError::Read {
            path: hierarchy.base_path(&self.parent).join(file),
            source: error.into(),
        };
        let base = hierarchy.base(&self.parent)?.ok_or_else(|| fail(Errno::NOENT))?;
        files::read(base.as_fd(), file).map_err(fail)
    }

    /// Moves the instance's processes into its directory of one more v1 hierarchy.
    fn move_in(&self, instance: &InstanceId, index: usize) -> Result<(), CgroupError> {
        let Some(dir) = self.open(index, instance)? else { return Ok(()) };
        let fail = |value: String, error: Errno| CgroupError::Write {
            path: self.path(index, instance).join("cgroup.procs"),
            value,
            source: error.into(),
        };
        // Children of what has been moved are born inside, so this ends.
        loop {
            let text = files::read(dir.as_fd(), "cgroup.procs").map_err(|error| fail(String::new(), error))?;
            let inside: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            let outside: Vec<u32> =
                self.procs(instance)?.into_iter().filter(|pid| *pid != 0 && !inside.contains(pid)).collect();
            let mut moved = false;
            for pid in outside {
                match files::write(dir.as_fd(), "cgroup.procs", &pid.to_string()) {
                    Ok(()) => moved = true,
                    // It has ended.
                    Err(Errno::SRCH) => {}
                    Err(error) => return Err(fail(pid.to_string(), error)),
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }
}
