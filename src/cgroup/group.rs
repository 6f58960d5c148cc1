//! An instance's directories: made, looked at, killed, removed.

use super::detect::Cgroups;
use super::files::{self, Entries};
use super::resize::Mode;
use super::table::{Controller, Version};
use super::{CgroupError, table};
use crate::plan::GroupSeen;
use crate::spec::{InstanceId, LimitPointer, Resources};
use crate::sys::may_die;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories of the host that a process has to be in from birth, absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupJoinPaths {
    /// The `payload` directory in the v2 hierarchy.
    pub unified: Option<String>,
    /// One directory per v1 hierarchy.
    pub v1: Vec<String>,
}

/// An instance's directories as they have been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub join: CgroupJoinPaths,
    /// What the kernel answered, by control file: the same files that [`Cgroups::observe`] reads.
    pub readback: BTreeMap<String, String>,
    /// Advisory limits that this host has no knob for: `memory.high`.
    pub unsupported: Vec<String>,
}

/// What an instance has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_usec: u64,
    pub memory: u64,
    pub pids: u64,
}

/// Whether a place was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    New,
    /// By an earlier try, without processes.
    Left,
}

/// How long a removal waits for killed processes. One in an uninterruptible sleep takes longer, and
/// then the removal is tried again later.
const GONE_WITHIN: Duration = Duration::from_secs(5);

impl Cgroups {
    /// Makes the directories and writes the limits; nothing runs in them yet.
    ///
    /// What an earlier try left is removed first when it has no processes. On failure everything that this
    /// call made is gone again. What is `ignored` is not told in the readback.
    ///
    /// # Errors
    /// [`CgroupError::Unsupported`] when the host lacks a hard limit that is asked for, before
    /// anything is made.
    pub fn create(
        &self,
        instance: &InstanceId,
        want: &Resources,
        ignored: &[LimitPointer],
    ) -> Result<Created, CgroupError> {
        self.prepare()?;
        let wanted = self.wanted(want)?;
        let mut made = Vec::new();
        let result = self.make(instance, want, &mut made).and_then(|standing| match standing {
            // Pages that it still holds could stand against the new limits.
            Standing::Left => {
                self.remove(instance)?;
                self.make(instance, want, &mut made).map(drop)
            }
            Standing::New => Ok(()),
        });
        let result = result.and_then(|()| {
            let applied = self.apply(instance, &wanted, Mode::Fresh)?;
            let join = self.join(instance, want);
            let readback = wanted.told(applied.says, ignored);
            Ok(Created { join, readback, unsupported: wanted.unsupported.clone() })
        });
        if result.is_err() {
            for (base, path) in made.iter().rev() {
                // The first error is the one to tell; what stays is found and removed by the next round.
                let _best_effort = rustix::fs::unlinkat(base, path, AtFlags::REMOVEDIR);
            }
        }
        result
    }

    /// Makes the directories; whether one of them stood there already, empty.
    fn make(
        &self,
        instance: &InstanceId,
        want: &Resources,
        made: &mut Vec<(Arc<OwnedFd>, String)>,
    ) -> Result<Standing, CgroupError> {
        let mut standing = Standing::New;
        if let Some(index) = self.unified() {
            let family = instance.family();
            let number = format!("{family}/{}", instance.number);
            self.make_in(index, &family, made)?;
            self.hand_to_family(index, instance)?;
            if !self.make_in(index, &number, made)? {
                if self.is_populated(index, instance)? == Some(true) {
                    return Err(CgroupError::Occupied { path: self.path(index, instance) });
                }
                standing = Standing::Left;
            }
            self.make_in(index, &format!("{number}/payload"), made)?;
        }
        for index in self.v1_of(want) {
            if self.make_in(index, &v1_name(instance), made)? {
                continue;
            }
            if self.unified().is_none() && !self.procs_in(index, &v1_name(instance))?.is_empty() {
                return Err(CgroupError::Occupied { path: self.path(index, instance) });
            }
            standing = Standing::Left;
        }
        Ok(standing)
    }

    fn join(&self, instance: &InstanceId, want: &Resources) -> CgroupJoinPaths {
        let unified = self.unified();
        let unified =
            unified.map(|index| format!("{}{}", self.hierarchies[index].mount, self.unified_payload(instance)));
        let own = self.v1_of(want).into_iter().map(|index| self.path(index, instance).to_string_lossy().into_owned());
        let devices = self.v1_home(Controller::Devices);
        let shared = devices.map(|index| format!("{}{}/c", self.hierarchies[index].mount, self.parent));
        CgroupJoinPaths { unified, v1: own.chain(shared).collect() }
    }

    /// Enables for the family's children what is enabled for the family.
    pub(super) fn hand_to_family(&self, index: usize, instance: &InstanceId) -> Result<(), CgroupError> {
        let enabled = self.enabled();
        if enabled.is_empty() {
            return Ok(());
        }
        let file = format!("{}/cgroup.subtree_control", instance.family());
        let value: Vec<String> = enabled.iter().map(|c| format!("+{}", c.name(Version::V2))).collect();
        let value = value.join(" ");
        let base = self.need_base(index)?;
        files::write(base.as_fd(), &file, &value).map_err(|error| CgroupError::Write {
            path: self.hierarchies[index].base_path(&self.parent).join(&file),
            value,
            source: error.into(),
        })
    }

    /// Makes one directory below `c`; whether it is new.
    pub(super) fn make_in(
        &self,
        index: usize,
        path: &str,
        made: &mut Vec<(Arc<OwnedFd>, String)>,
    ) -> Result<bool, CgroupError> {
        let base = self.need_base(index)?;
        match files::make_dir(base.as_fd(), path) {
            Ok(new) => {
                if new {
                    made.push((base, path.to_owned()));
                }
                Ok(new)
            }
            Err(error) => Err(CgroupError::Make {
                path: self.hierarchies[index].base_path(&self.parent).join(path),
                source: error.into(),
            }),
        }
    }

    /// The v1 hierarchies that a container with these limits has a directory in.
    fn v1_of(&self, want: &Resources) -> BTreeSet<usize> {
        let asked = table::KNOBS.iter().filter(|knob| knob.is_asked(want)).map(|knob| knob.controller);
        Controller::ALWAYS.into_iter().chain(asked).filter_map(|controller| self.v1_home(controller)).collect()
    }

    /// What the kernel says now; `None` when the instance has no directory in any hierarchy.
    pub fn observe(&self, instance: &InstanceId) -> Result<Option<GroupSeen>, CgroupError> {
        let controls = self.controls()?;
        let mut seen = GroupSeen::default();
        let mut exists = false;
        let mut base: Option<(usize, Option<Arc<OwnedFd>>, String)> = None;
        let mut path = String::new();
        for (index, file) in &controls.observed {
            if base.as_ref().map(|(at, ..)| at) != Some(index) {
                let hierarchy = &self.hierarchies[*index];
                let below = below_base(hierarchy.version, instance);
                base = Some((*index, hierarchy.base(&self.parent)?, below));
            }
            let Some((_, place, below)) = &mut base else { continue };
            let Some(dir) = place else { continue };
            // From the base each time: opening the instance's directory first costs more than it saves.
            path.clear();
            path.extend([below.as_str(), "/", file]);
            match files::read(dir.as_fd(), &path) {
                Ok(text) => {
                    exists = true;
                    seen.limits.insert(file.clone(), text);
                }
                // In v1 every directory has all the files, so there is none.
                Err(Errno::NOENT | Errno::NODEV) if self.hierarchies[*index].version == Version::V1 => *place = None,
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(error) => {
                    return Err(CgroupError::Read {
                        path: self.path(*index, instance).join(file),
                        source: error.into(),
                    });
                }
            }
        }
        if let Some(index) = self.unified() {
            if let Some(populated) = self.is_populated(index, instance)? {
                exists = true;
                seen.populated = populated;
            }
        } else if let Some(index) = self.v1_home(Controller::Memory).or_else(|| self.v1_home(Controller::Pids)) {
            seen.populated = !self.procs_in(index, &v1_name(instance))?.is_empty();
        }
        Ok(exists.then_some(seen))
    }

    /// Everything below our parent that is named as an instance is, in any hierarchy.
    pub fn list(&self) -> Result<BTreeSet<InstanceId>, CgroupError> {
        self.others(&BTreeSet::new())
    }

    /// As [`Self::list`], without those that are known: when nothing else stands, it takes few calls.
    pub fn others(&self, known: &BTreeSet<InstanceId>) -> Result<BTreeSet<InstanceId>, CgroupError> {
        let mut found = BTreeSet::new();
        let v1_names: HashSet<String> = known.iter().map(v1_name).collect();
        let mut families: HashMap<String, Vec<u64>> = HashMap::new();
        for instance in known {
            families.entry(instance.family()).or_default().push(instance.number);
        }
        for (index, hierarchy) in self.hierarchies.iter().enumerate() {
            let Some(base) = hierarchy.base(&self.parent)? else { continue };
            let names = |path: &str| match files::names(base.as_fd(), path, Entries::Directories) {
                Ok(names) => Ok(names),
                // Removed since it was listed.
                Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
                Err(error) => Err(CgroupError::Read {
                    path: self.hierarchies[index].base_path(&self.parent).join(path),
                    source: error.into(),
                }),
            };
            for name in names(".")? {
                if hierarchy.version == Version::V1 {
                    if !v1_names.contains(&name) {
                        // Names that are none of ours are not looked at.
                        found.extend(name.parse::<InstanceId>().ok());
                    }
                    continue;
                }
                if families.get(&name).is_some_and(|numbers| holds_just(base.as_fd(), &name, numbers)) {
                    continue;
                }
                for number in names(&name)? {
                    let named = format!("{name}.{number}").parse::<InstanceId>().ok();
                    found.extend(named.filter(|instance| !known.contains(instance)));
                }
            }
        }
        Ok(found)
    }

    /// Kills everything in the instance's cgroup and below it, and waits for nothing.
    pub fn kill(&self, instance: &InstanceId) -> Result<(), CgroupError> {
        if let Some(index) = self.unified() {
            let Some(dir) = self.open(index, instance)? else { return Ok(()) };
            // Reaches also what forks meanwhile (cgroup.kill, Linux 5.14).
            return match files::write(dir.as_fd(), "cgroup.kill", "1") {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
                Err(error) => Err(CgroupError::Kill { path: self.path(index, instance), source: error.into() }),
            };
        }
        let name = v1_name(instance);
        let freezer = self.v1_home(Controller::Freezer);
        let state = |text: &str| -> Result<(), CgroupError> {
            let Some(index) = freezer else { return Ok(()) };
            let Some(dir) = self.open(index, instance)? else { return Ok(()) };
            files::write(dir.as_fd(), "freezer.state", text).map_err(|error| CgroupError::Write {
                path: self.path(index, instance).join("freezer.state"),
                value: text.to_owned(),
                source: error.into(),
            })
        };
        state("FROZEN")?;
        let killed = self.hierarchies.iter().enumerate().try_for_each(|(index, _)| self.kill_listed(index, &name));
        // Also after an error: what is left frozen neither runs nor dies.
        state("THAWED")?;
        killed
    }

    /// Kills, waits until all are gone, and removes every directory; fine with what is gone already.
    pub fn remove(&self, instance: &InstanceId) -> Result<(), CgroupError> {
        self.kill(instance)?;
        let deadline = Instant::now() + GONE_WITHIN;
        if let Some(index) = self.unified() {
            self.wait_until_empty(index, instance, deadline)?;
        }
        let name = v1_name(instance);
        for (index, hierarchy) in self.hierarchies.iter().enumerate() {
            if hierarchy.version == Version::V1 {
                self.remove_tree(index, &name, deadline)?;
            }
        }
        // Last: as long as any of it stands, it is seen here.
        if let Some(index) = self.unified() {
            let family = instance.family();
            self.remove_tree(index, &format!("{family}/{}", instance.number), deadline)?;
            let base = self.hierarchies[index].base(&self.parent)?;
            match base.map_or(Ok(()), |base| rustix::fs::unlinkat(&base, &family, AtFlags::REMOVEDIR)) {
                // Another instance of the object is in it.
                Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) => {
                    let path = self.hierarchies[index].base_path(&self.parent).join(family);
                    return Err(CgroupError::Remove { path, source: error.into() });
                }
            }
        }
        Ok(())
    }

    /// All zero where nothing stands.
    pub fn usage(&self, instance: &InstanceId) -> Result<Usage, CgroupError> {
        let mut usage = Usage::default();
        let read = |index: Option<usize>, file: &str| match index {
            Some(index) => self.read(index, instance, file).map(Option::unwrap_or_default),
            None => Ok(String::new()),
        };
        let number = |text: &str| text.parse().unwrap_or(0);
        usage.cpu_usec = match self.unified() {
            Some(index) => files::field(&read(Some(index), "cpu.stat")?, "usage_usec").unwrap_or(0),
            None => number(&read(self.v1_home(Controller::Cpuacct), "cpuacct.usage")?) / 1000,
        };
        let memory = self.homes.get(&Controller::Memory).copied();
        let current = match memory.map(|index| self.hierarchies[index].version) {
            Some(Version::V1) => "memory.usage_in_bytes",
            Some(Version::V2) | None => "memory.current",
        };
        usage.memory = number(&read(memory, current)?);
        usage.pids = number(&read(self.homes.get(&Controller::Pids).copied(), "pids.current")?);
        Ok(usage)
    }

    /// How many processes of the instance the kernel's OOM killer has ended.
    pub fn oom_kills(&self, instance: &InstanceId) -> Result<u64, CgroupError> {
        let Some(index) = self.homes.get(&Controller::Memory).copied() else { return Ok(0) };
        let file = match self.hierarchies[index].version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = self.read(index, instance, file)?.unwrap_or_default();
        Ok(files::field(&text, "oom_kill").unwrap_or(0))
    }

    /// Where its processes are, below the mount point: of the v2 hierarchy where there is one.
    pub fn payload_path(&self, instance: &InstanceId) -> String {
        match self.unified() {
            Some(_) => self.unified_payload(instance),
            None => format!("{}/c/{}", self.parent, v1_name(instance)),
        }
    }

    /// Every process in it and below it.
    pub fn procs(&self, instance: &InstanceId) -> Result<Vec<u32>, CgroupError> {
        match self.unified() {
            Some(index) => self.procs_in(index, &format!("{}/{}", instance.family(), instance.number)),
            None => match self.v1_home(Controller::Memory).or_else(|| self.v1_home(Controller::Pids)) {
                Some(index) => self.procs_in(index, &v1_name(instance)),
                None => Ok(Vec::new()),
            },
        }
    }

    pub(super) fn unified_payload(&self, instance: &InstanceId) -> String {
        format!("{}/c/{}/{}/payload", self.parent, instance.family(), instance.number)
    }

    /// The instance's directory in a hierarchy, for messages.
    pub(super) fn path(&self, index: usize, instance: &InstanceId) -> PathBuf {
        let hierarchy = &self.hierarchies[index];
        hierarchy.base_path(&self.parent).join(below_base(hierarchy.version, instance))
    }

    /// The instance's directory in a hierarchy, or `None` where it has none.
    pub(super) fn open(&self, index: usize, instance: &InstanceId) -> Result<Option<OwnedFd>, CgroupError> {
        let hierarchy = &self.hierarchies[index];
        let Some(base) = hierarchy.base(&self.parent)? else { return Ok(None) };
        match files::open_dir(base.as_fd(), &below_base(hierarchy.version, instance)) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(error) => Err(CgroupError::Open { path: self.path(index, instance), source: error.into() }),
        }
    }

    fn read(&self, index: usize, instance: &InstanceId, file: &str) -> Result<Option<String>, CgroupError> {
        let hierarchy = &self.hierarchies[index];
        let Some(base) = hierarchy.base(&self.parent)? else { return Ok(None) };
        match files::read(base.as_fd(), &format!("{}/{file}", below_base(hierarchy.version, instance))) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(None),
            Err(error) => Err(CgroupError::Read { path: self.path(index, instance).join(file), source: error.into() }),
        }
    }

    pub(super) fn need_base(&self, index: usize) -> Result<Arc<OwnedFd>, CgroupError> {
        let hierarchy = &self.hierarchies[index];
        hierarchy
            .base(&self.parent)?
            .ok_or_else(|| CgroupError::Open { path: hierarchy.base_path(&self.parent), source: Errno::NOENT.into() })
    }

    fn is_populated(&self, unified: usize, instance: &InstanceId) -> Result<Option<bool>, CgroupError> {
        let events = self.read(unified, instance, "cgroup.events")?;
        Ok(events.map(|text| files::field(&text, "populated") == Some(1)))
    }

    /// Every process in a directory below `c` and in the directories below that.
    fn procs_in(&self, index: usize, path: &str) -> Result<Vec<u32>, CgroupError> {
        let Some(base) = self.hierarchies[index].base(&self.parent)? else { return Ok(Vec::new()) };
        let fail = |path: &str, error: Errno| CgroupError::Read {
            path: self.hierarchies[index].base_path(&self.parent).join(path),
            source: error.into(),
        };
        let mut pids = Vec::new();
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let file = format!("{path}/cgroup.procs");
            match files::read(base.as_fd(), &file) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                // A threaded node's processes are listed by its domain.
                Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(fail(&file, error)),
            }
            match files::names(base.as_fd(), &path, Entries::Directories) {
                Ok(names) => todo.extend(names.into_iter().map(|name| format!("{path}/{name}"))),
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(error) => return Err(fail(&path, error)),
            }
        }
        Ok(pids)
    }

    /// Sends SIGKILL to every process that a directory lists.
    fn kill_listed(&self, index: usize, path: &str) -> Result<(), CgroupError> {
        for raw in self.procs_in(index, path)? {
            let Some(pid) = i32::try_from(raw).ok().and_then(Pid::from_raw) else { continue };
            let kill = || {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
                // The number may have passed to another process since it was listed; the pidfd
                // cannot, so what is listed now is what it stands for.
                let still = self.procs_in(index, path).is_ok_and(|pids| pids.contains(&raw));
                if still { rustix::process::pidfd_send_signal(pidfd, Signal::KILL) } else { Ok(()) }
            };
            match kill() {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    let path = self.hierarchies[index].base_path(&self.parent).join(path);
                    return Err(CgroupError::Kill { path, source: error.into() });
                }
            }
        }
        Ok(())
    }

    fn wait_until_empty(&self, unified: usize, instance: &InstanceId, deadline: Instant) -> Result<(), CgroupError> {
        let Some(dir) = self.open(unified, instance)? else { return Ok(()) };
        let path = || self.path(unified, instance).join("cgroup.events");
        let fail = |error: Errno| CgroupError::Read { path: path(), source: error.into() };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let events = match rustix::fs::openat(&dir, "cgroup.events", flags, rustix::fs::Mode::empty()) {
            Ok(events) => events,
            Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        loop {
            match files::read_open(&events) {
                Ok(text) if files::field(&text, "populated") == Some(1) => {}
                Ok(_) | Err(Errno::NODEV) => return Ok(()),
                Err(error) => return Err(fail(error)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.still_populated(self.path(unified, instance)));
            }
            // Changed since the last read: POLLPRI (cgroup-v2, "cgroup.events").
            wait(Some(&events), left).map_err(fail)?;
        }
    }

    fn still_populated(&self, path: PathBuf) -> CgroupError {
        CgroupError::StillPopulated { path, waited_ms: u64::try_from(GONE_WITHIN.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Removes a directory and what is below it, killing what is still in it.
    fn remove_tree(&self, index: usize, path: &str, deadline: Instant) -> Result<(), CgroupError> {
        let Some(base) = self.hierarchies[index].base(&self.parent)? else { return Ok(()) };
        let full = |path: &str| self.hierarchies[index].base_path(&self.parent).join(path);
        loop {
            match rustix::fs::unlinkat(&base, path, AtFlags::REMOVEDIR) {
                Ok(()) => {
                    may_die("cgroup removed");
                    return Ok(());
                }
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) => return Err(CgroupError::Remove { path: full(path), source: error.into() }),
            }
            let below = match files::names(base.as_fd(), path, Entries::Directories) {
                Ok(names) => names,
                Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(error) => return Err(CgroupError::Read { path: full(path), source: error.into() }),
            };
            for name in &below {
                self.remove_tree(index, &format!("{path}/{name}"), deadline)?;
            }
            if below.is_empty() {
                // Somebody is in it after all, or on the way out of it.
                self.kill_listed(index, path)?;
                if Instant::now() >= deadline {
                    return Err(self.still_populated(full(path)));
                }
                // v1 tells nobody when a directory becomes empty.
                wait(None, Duration::from_millis(1))
                    .map_err(|error| CgroupError::Remove { path: full(path), source: io::Error::from(error) })?;
            }
        }
    }
}

/// An instance's directory below `c`.
fn below_base(version: Version, instance: &InstanceId) -> String {
    match version {
        Version::V1 => v1_name(instance),
        Version::V2 => format!("{}/{}", instance.family(), instance.number),
    }
}

/// Whether a family's directory has these instances in it and no other directory: as many links as it
/// would have then (two, and one from each directory in it), and each of them is there.
fn holds_just(base: BorrowedFd<'_>, family: &str, numbers: &[u64]) -> bool {
    let links = |path: &str| rustix::fs::statat(base, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_nlink);
    let expected = u64::try_from(numbers.len()).map(|count| count + 2);
    links(family).ok() == expected.ok() && numbers.iter().all(|number| links(&format!("{family}/{number}")).is_ok())
}

pub(super) fn v1_name(instance: &InstanceId) -> String {
    instance.to_string()
}

/// Waits for an exceptional condition on `file`, or for the time to pass.
fn wait(file: Option<&OwnedFd>, left: Duration) -> Result<(), Errno> {
    let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
    let mut one = file.map(|file| [PollFd::new(file, PollFlags::PRI)]);
    let files: &mut [PollFd<'_>] = one.as_mut().map_or(&mut [], |one| one);
    match rustix::event::poll(files, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
