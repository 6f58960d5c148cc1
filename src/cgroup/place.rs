//! A cgroup by its path, in whatever hierarchies it is needed: for who names cgroups himself.
//!
//! Where [`Cgroups`](super::Cgroups) knows a whole tree of instances, this is one directory per
//! hierarchy, and what is written to its files is the caller's affair.

use super::access::{self, DeviceRule, Exceptions};
use super::detect::{Hierarchy, enable, parse_mounts, read_path, write_path};
use super::files::{self, Entries};
use super::table::{Controller, Version};
use super::{CgroupError, CgroupJoinPaths, freezer};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a killed cgroup may take to become empty.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// One cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    directories: Vec<Directory>,
}

/// Its directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    pub version: Version,
    pub controllers: BTreeSet<Controller>,
    /// The hierarchy's mount point.
    pub mount: String,
    /// Below the mount point, with a slash in front.
    pub path: String,
}

impl Directory {
    pub fn full(&self) -> String {
        format!("{}{}", self.mount, self.path)
    }
}

/// The hierarchies that are mounted here.
#[derive(Debug)]
pub struct Mounted(Vec<Hierarchy>);

impl Mounted {
    /// Reads only.
    pub fn here() -> Result<Self, CgroupError> {
        let mounts = parse_mounts(&read_path("/proc/self/mountinfo")?);
        if mounts.iter().any(is_visible) { Ok(Self(mounts)) } else { Err(CgroupError::NoHierarchy) }
    }

    /// Whether the v2 hierarchy is among them.
    pub fn has_v2(&self) -> bool {
        self.0.iter().any(|hierarchy| hierarchy.version == Version::V2 && is_visible(hierarchy))
    }

    /// Where a cgroup is in the v2 hierarchy and in the v1 hierarchies of these controllers. Reads only.
    ///
    /// # Errors
    /// [`CgroupError::Parent`] for a path with dots in it or without a slash in front.
    pub fn find(&self, path: &str, wanted: &BTreeSet<Controller>) -> Result<Place, CgroupError> {
        let parts = path.strip_prefix('/').map(|below| below.split('/').filter(|part| !part.is_empty()));
        let parts: Vec<&str> = parts.map(Iterator::collect).unwrap_or_default();
        if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..") || part.contains(['\0', '\n'])) {
            return Err(CgroupError::Parent { parent: path.to_owned() });
        }
        let path = format!("/{}", parts.join("/"));
        let mut directories = Vec::new();
        let asked =
            |hierarchy: &&Hierarchy| hierarchy.version == Version::V2 || !hierarchy.controllers.is_disjoint(wanted);
        for hierarchy in self.0.iter().filter(asked).filter(|hierarchy| is_visible(hierarchy)) {
            let controllers = match hierarchy.version {
                Version::V1 => hierarchy.controllers.clone(),
                Version::V2 => {
                    let text = read_path(&format!("{}/cgroup.controllers", hierarchy.mount))?;
                    let has = |c: &Controller| text.split_whitespace().any(|name| name == c.name(Version::V2));
                    // Few ask for the others, and each has files to be made.
                    let usual = |c: &Controller| Controller::USUAL.contains(c) || wanted.contains(c);
                    Controller::EVERY.into_iter().filter(|c| usual(c) && has(c)).collect()
                }
            };
            let (version, mount, path) = (hierarchy.version, hierarchy.mount.clone(), path.clone());
            directories.push(Directory { version, controllers, mount, path });
        }
        Ok(Place { directories })
    }
}

impl Place {
    /// As it was found earlier.
    pub fn of(directories: Vec<Directory>) -> Self {
        Self { directories }
    }

    pub fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// The directory that has the controller's files.
    pub fn home(&self, controller: Controller) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.controllers.contains(&controller))
    }

    pub fn unified(&self) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.version == Version::V2)
    }

    pub fn join(&self) -> CgroupJoinPaths {
        let v1 = self.directories.iter().filter(|directory| directory.version == Version::V1);
        CgroupJoinPaths { unified: self.unified().map(Directory::full), v1: v1.map(Directory::full).collect() }
    }

    /// Makes the directories; those that were not there, the outer ones first. On failure these are
    /// gone again.
    ///
    /// # Errors
    /// [`CgroupError::Occupied`] when there is one with processes in it.
    pub fn make(&self) -> Result<Vec<String>, CgroupError> {
        let mut made = Vec::new();
        let result = self.directories.iter().try_for_each(|directory| make(directory, &mut made));
        if let Err(error) = result {
            remove_made(&made, &Self::of(Vec::new()));
            return Err(error);
        }
        Ok(made)
    }

    /// Refuses directories that processes are in, or would stand still in. Nothing is wrong with those
    /// that are not there.
    ///
    /// # Errors
    /// [`CgroupError::Occupied`], [`CgroupError::Frozen`]
    pub fn refuse_what_is_in_use(&self) -> Result<(), CgroupError> {
        let there = |directory: &&Directory| rustix::fs::stat(directory.full()).is_ok();
        self.directories.iter().filter(there).try_for_each(refuse_what_is_in_use)
    }

    /// Enables the controllers of a directory that somebody else has made.
    pub fn enable(&self) -> Result<(), CgroupError> {
        let unified = self.unified().filter(|directory| !directory.controllers.is_empty());
        unified.map_or(Ok(()), enable_above)
    }

    /// Takes more controllers, with all its processes, for limits of a kind that it did not have at first.
    /// Directories that are made for that are in `made`, also after an error.
    pub fn extend(&mut self, wanted: &BTreeSet<Controller>, made: &mut Vec<String>) -> Result<(), CgroupError> {
        let missing: BTreeSet<Controller> = wanted.iter().copied().filter(|c| self.home(*c).is_none()).collect();
        let Some(path) = self.directories.first().map(|directory| directory.path.clone()) else { return Ok(()) };
        if missing.is_empty() {
            return Ok(());
        }
        for mut directory in Mounted::here()?.find(&path, &missing)?.directories {
            directory.controllers.retain(|controller| missing.contains(controller));
            if directory.controllers.is_empty() {
                continue;
            }
            match self.directories.iter_mut().find(|own| own.mount == directory.mount) {
                Some(own) => {
                    enable_above(&directory)?;
                    own.controllers.append(&mut directory.controllers);
                }
                None => {
                    make(&directory, made)?;
                    self.directories.push(directory.clone());
                    self.move_to(&directory)?;
                }
            }
        }
        Ok(())
    }

    /// Moves every process to a directory of another hierarchy.
    fn move_to(&self, directory: &Directory) -> Result<(), CgroupError> {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let inside = listed(&directory.full())?;
            let mut outside = self.procs()?;
            outside.retain(|pid| !inside.contains(pid));
            // Until nobody is left: one may have been born by a process that had not been moved yet.
            if outside.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            for pid in outside {
                match write_path(&format!("{}/cgroup.procs", directory.full()), &pid.to_string()) {
                    Err(CgroupError::Write { source, .. }) if Errno::from_io_error(&source) == Some(Errno::SRCH) => {}
                    result => result?,
                }
            }
        }
    }

    /// Puts rules for devices in force, in the place of those before.
    ///
    /// # Errors
    /// [`DeviceRulesError::NotInV1`] for a rule that a v1 hierarchy has no words for.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> Result<(), DeviceRulesError> {
        if let Some(directory) = self.home(Controller::Devices) {
            let rules = Exceptions::of(rules).map_err(DeviceRulesError::NotInV1)?;
            return Ok(access::write_v1(&directory.full(), &rules)?);
        }
        let Some(directory) = self.unified() else {
            let (field, reason) = ("devices".to_owned(), "no mounted hierarchy has the controller".to_owned());
            return Err(CgroupError::Unsupported { field, reason }.into());
        };
        match access::attach(&directory.full(), rules) {
            // There no node can be made, and no file system that we mount has any.
            Err(CgroupError::DeviceRules { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::PERM) && in_user_namespace() =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Whether it is there in any hierarchy.
    pub fn exists(&self) -> bool {
        self.directories.iter().any(|directory| rustix::fs::stat(directory.full()).is_ok())
    }

    /// Every process in it and below it.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        let Some(directory) = self.directories.first() else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        procs_below(&directory.full(), &mut found)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Stops or lets go on all processes in it, and waits until that is so.
    pub fn freeze(&self, state: Freeze) -> Result<(), CgroupError> {
        let deadline = Instant::now() + GONE_WITHIN;
        let late =
            |directory: &Directory| CgroupError::NotFrozen { path: directory.full().into(), waited_ms: waited() };
        if let Some(directory) = self.unified() {
            let word = if state == Freeze::Frozen { "1" } else { "0" };
            write_path(&format!("{}/cgroup.freeze", directory.full()), word)?;
            let wanted = u64::from(state == Freeze::Frozen);
            let is_so = await_event(&directory.full(), deadline, |text| files::field(text, "frozen") == Some(wanted))?;
            return if is_so { Ok(()) } else { Err(late(directory)) };
        }
        let Some(directory) = self.home(Controller::Freezer) else {
            let (field, reason) = ("freezer".to_owned(), "the container has no freezer cgroup".to_owned());
            return Err(CgroupError::Unsupported { field, reason });
        };
        let (file, word) = (format!("{}/freezer.state", directory.full()), state.v1());
        loop {
            // Again each time: what was born while it froze is frozen by another write alone.
            write_path(&file, word)?;
            if read_path(&file)? == word {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(late(directory));
            }
            pause();
        }
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        self.unified().is_some_and(is_frozen) || self.home(Controller::Freezer).is_some_and(is_frozen)
    }

    /// Kills all that is in it, frozen or not, waits until that is gone, and removes the directories.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + GONE_WITHIN;
        self.directories.iter().rev().try_for_each(|directory| remove(directory, deadline))
    }

    /// Sends a signal to every process in it and below it.
    pub fn signal(&self, signal: i32) -> Result<(), CgroupError> {
        let Some(directory) = self.directories.first() else { return Ok(()) };
        let kill = signal == Signal::KILL.as_raw();
        // Linux 5.14, v2 alone; it reaches what is being born as well, and what is frozen.
        if kill
            && directory.version == Version::V2
            && write_path(&format!("{}/cgroup.kill", directory.full()), "1").is_ok()
        {
            return Ok(());
        }
        let stood_still = self.is_frozen();
        if !stood_still {
            // So that nothing is born behind the list's back. Without a freezer there is only the list.
            let _ = self.freeze(Freeze::Frozen);
        }
        let sent = signal_below(&directory.full(), signal);
        // Also after an error, and where freezing went wrong half-way. What is frozen in v1 cannot die.
        if !stood_still || kill {
            let thawed = self.freeze(Freeze::Thawed);
            if self.home(Controller::Freezer).is_some() || self.unified().is_some() {
                // systemd takes a scope away that has no processes any more, at any moment.
                let is_gone = !std::path::Path::new(&directory.full()).exists();
                return sent.and(if is_gone { Ok(()) } else { thawed });
            }
        }
        sent
    }

    /// Hands the directory of the v2 hierarchy to a user of the host, and with it the files that the
    /// kernel names for that: those of limits stay ours.
    pub fn give_to(&self, uid: u32) -> Result<(), CgroupError> {
        let Some(directory) = self.unified() else { return Ok(()) };
        let full = directory.full();
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        let chown = |path: &str| rustix::fs::chown(path, owner, None);
        let failed = |path: &str, errno: Errno| CgroupError::Give { path: path.into(), uid, source: errno.into() };
        chown(&full).map_err(|errno| failed(&full, errno))?;
        // Linux 4.15; the three that there were then, where it can't be read.
        let names = read_path("/sys/kernel/cgroup/delegate")
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control".to_owned());
        for name in names.lines() {
            let path = format!("{full}/{name}");
            match chown(&path) {
                // Of a controller that is not enabled.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(&path, errno)),
            }
        }
        Ok(())
    }
}

/// Why rules for devices are not in force.
#[derive(Debug, thiserror::Error)]
pub enum DeviceRulesError {
    #[error("rule {0} takes back a part of an earlier one, which a v1 hierarchy can't")]
    NotInV1(usize),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Whether we are in a user namespace that is not the first one (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = read_path("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether a mount is what its path leads to: another one may have been mounted over it.
fn is_visible(Hierarchy { mount, version, .. }: &Hierarchy) -> bool {
    /// statfs(2).
    const CGROUP: rustix::fs::FsWord = 0x0027_e0eb;
    const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
    let kind = if *version == Version::V2 { CGROUP2 } else { CGROUP };
    rustix::fs::statfs(mount.as_str()).is_ok_and(|is| is.f_type == kind)
}

/// Whether processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    Frozen,
    Thawed,
}

impl Freeze {
    fn v1(self) -> &'static str {
        match self {
            Self::Frozen => "FROZEN",
            Self::Thawed => "THAWED",
        }
    }
}

/// Removes directories that were made, where nothing else is in them by now, but for those of a place that
/// is removed already.
pub fn remove_made(made: &[String], removed: &Place) {
    let removed: Vec<String> = removed.directories.iter().map(Directory::full).collect();
    for path in made.iter().rev().filter(|path| !removed.contains(path)) {
        // Somebody else's is below it, or it is gone: either way it is not ours to remove.
        let _ = rustix::fs::unlinkat(CWD, path.as_str(), AtFlags::REMOVEDIR);
    }
}

fn make(directory: &Directory, made: &mut Vec<String>) -> Result<(), CgroupError> {
    let full = directory.full();
    let failed = |path: &str, error: Errno| CgroupError::Make { path: path.into(), source: error.into() };
    match files::make_dir(CWD, &full) {
        // The usual case: all but the last are there already.
        Ok(true) => made.push(full.clone()),
        Ok(false) => refuse_what_is_in_use(directory)?,
        Err(Errno::NOENT) => {
            let mut path = directory.mount.clone();
            for part in directory.path.split('/').skip(1) {
                path = format!("{path}/{part}");
                if files::make_dir(CWD, &path).map_err(|error| failed(&path, error))? {
                    made.push(path.clone());
                }
            }
        }
        Err(error) => return Err(failed(&full, error)),
    }
    if directory.version == Version::V2 && !directory.controllers.is_empty() {
        enable_above(directory)?;
    }
    if directory.controllers.contains(&Controller::Cpuset) && directory.version == Version::V1 {
        fill_cpuset(directory)?;
    }
    Ok(())
}

/// Enables the directory's controllers in those above it.
fn enable_above(directory: &Directory) -> Result<(), CgroupError> {
    let controllers: Vec<Controller> = directory.controllers.iter().copied().collect();
    let above = directory.path.rsplit_once('/').map_or("", |(above, _)| above);
    // What is refused shows where a limit is written that is not there.
    enable(&directory.mount, above, &controllers).map(drop)
}

/// A directory that somebody has made for the container is taken; one that has processes in it or below
/// it, or in which nothing would run, is not.
fn refuse_what_is_in_use(directory: &Directory) -> Result<(), CgroupError> {
    let path = || directory.full().into();
    let populated = match directory.version {
        Version::V2 => {
            let events = read_path(&format!("{}/cgroup.events", directory.full()))?;
            files::field(&events, "populated") == Some(1)
        }
        Version::V1 => {
            let mut found = Vec::new();
            procs_below(&directory.full(), &mut found)?;
            !found.is_empty()
        }
    };
    if populated {
        return Err(CgroupError::Occupied { path: path() });
    }
    let has_freezer = directory.version == Version::V2 || directory.controllers.contains(&Controller::Freezer);
    if has_freezer && is_frozen(directory) { Err(CgroupError::Frozen { path: path() }) } else { Ok(()) }
}

fn is_frozen(directory: &Directory) -> bool {
    let says = |file: &str| read_path(&format!("{}/{file}", directory.full())).unwrap_or_default();
    match directory.version {
        Version::V2 => says("cgroup.freeze") == "1",
        Version::V1 => matches!(says("freezer.state").as_str(), "FROZEN" | "FREEZING"),
    }
}

/// Waits until a v2 directory's `cgroup.events` is as it should be; whether it is so in time.
fn await_event(path: &str, deadline: Instant, is_so: impl Fn(&str) -> bool) -> Result<bool, CgroupError> {
    let file = format!("{path}/cgroup.events");
    let failed = |errno: Errno| CgroupError::Read { path: file.clone().into(), source: errno.into() };
    let events = match rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
        result => result.map_err(failed)?,
    };
    loop {
        match files::read_open(&events) {
            Ok(text) if !is_so(&text) => {}
            Ok(_) | Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(failed(errno)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(timeout) = Timespec::try_from(left).ok().filter(|_| !left.is_zero()) else { return Ok(false) };
        // Changed since the last read: POLLPRI (cgroup-v2, "cgroup.events").
        match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// A v1 cpuset takes no process before it has CPUs and memory nodes, and has none at first.
fn fill_cpuset(directory: &Directory) -> Result<(), CgroupError> {
    let mut path = directory.mount.clone();
    for part in directory.path.split('/').skip(1) {
        let above = path.clone();
        path = format!("{path}/{part}");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read_path(&format!("{path}/{file}"))?.is_empty() {
                write_path(&format!("{path}/{file}"), &read_path(&format!("{above}/{file}"))?)?;
            }
        }
    }
    Ok(())
}

fn below(path: &str) -> Result<Vec<String>, CgroupError> {
    match files::names(CWD, path, Entries::Directories) {
        Ok(names) => Ok(names.into_iter().map(|name| format!("{path}/{name}")).collect()),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(error) => Err(CgroupError::Read { path: path.into(), source: error.into() }),
    }
}

fn listed(path: &str) -> Result<Vec<u32>, CgroupError> {
    match files::read(CWD, &format!("{path}/cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // A threaded node's processes are listed by its domain.
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(CgroupError::Read { path: path.into(), source: error.into() }),
    }
}

fn procs_below(path: &str, found: &mut Vec<u32>) -> Result<(), CgroupError> {
    found.extend(listed(path)?);
    below(path)?.iter().try_for_each(|path| procs_below(path, found))
}

fn signal_below(path: &str, signal: i32) -> Result<(), CgroupError> {
    for raw in listed(path)? {
        let Some(pid) = i32::try_from(raw).ok().and_then(Pid::from_raw) else { continue };
        let send = || {
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            // The number may have passed to another process since it was listed; the pidfd cannot.
            let still = listed(path).is_ok_and(|pids| pids.contains(&raw));
            if still { crate::sys::pidfd_kill(rustix::fd::AsFd::as_fd(&pidfd), signal) } else { Ok(()) }
        };
        match send() {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(CgroupError::Kill { path: path.into(), source: error.into() }),
        }
    }
    below(path)?.iter().try_for_each(|path| signal_below(path, signal))
}

fn remove(directory: &Directory, deadline: Instant) -> Result<(), CgroupError> {
    let full = directory.full();
    if directory.version == Version::V2 && try_remove(&full)? {
        return Ok(());
    }
    if directory.version == Version::V2 && write_path(&format!("{full}/cgroup.kill"), "1").is_ok() {
        // All that is below is killed with it, so the inner directories only have to be taken away.
        await_event(&full, deadline, |text| files::field(text, "populated") == Some(0))?;
    }
    remove_tree(&full, deadline)
}

/// Whether a directory is gone; not while something is in it.
fn try_remove(path: &str) -> Result<bool, CgroupError> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(error) => Err(CgroupError::Remove { path: path.into(), source: error.into() }),
    }
}

fn remove_tree(path: &str, deadline: Instant) -> Result<(), CgroupError> {
    while !try_remove(path)? {
        let inner = below(path)?;
        inner.iter().try_for_each(|path| remove_tree(path, deadline))?;
        if inner.is_empty() {
            // Somebody is in it after all, or on the way out of it.
            signal_below(path, Signal::KILL.as_raw())?;
            // A frozen process of v1 dies once it thaws.
            let _ = write_path(&format!("{path}/freezer.state"), Freeze::Thawed.v1());
            freezer::let_die(listed(path)?)?;
            if Instant::now() >= deadline {
                return Err(CgroupError::StillPopulated { path: path.into(), waited_ms: waited() });
            }
            pause();
        }
    }
    Ok(())
}

fn waited() -> u64 {
    u64::try_from(GONE_WITHIN.as_millis()).unwrap_or(u64::MAX)
}

/// A millisecond: v1 tells nobody when a directory becomes empty.
fn pause() {
    // Ended early is as good.
    let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
}
