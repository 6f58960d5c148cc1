//! A cgroup by its path, in whatever hierarchies it is needed: for who names cgroups himself.
//!
//! Where [`Cgroups`](super::Cgroups) knows a whole tree of instances, this is one directory per
//! hierarchy, and what is written to its files is the caller's affair.

use super::CgroupError;
use super::CgroupJoinPaths;
use super::detect::{enable, parse_mounts, read_path, write_path};
use super::files::{self, Entries};
use super::table::{Controller, Version};
use rustix::event::Timespec;
use rustix::fs::{AtFlags, CWD};
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

impl Place {
    /// Where the cgroup is in the v2 hierarchy and in the v1 hierarchies of these controllers. Reads
    /// only.
    ///
    /// # Errors
    /// [`CgroupError::Parent`] for a path with dots in it or without a slash in front.
    pub fn find(path: &str, wanted: &BTreeSet<Controller>) -> Result<Self, CgroupError> {
        let parts = path.strip_prefix('/').map(|below| below.split('/').filter(|part| !part.is_empty()));
        let parts: Vec<&str> = parts.map(Iterator::collect).unwrap_or_default();
        if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..") || part.contains(['\0', '\n'])) {
            return Err(CgroupError::Parent { parent: path.to_owned() });
        }
        let path = format!("/{}", parts.join("/"));
        let mut mounts = parse_mounts(&read_path("/proc/self/mountinfo")?);
        mounts.retain(|hierarchy| is_visible(&hierarchy.mount, hierarchy.version));
        if mounts.is_empty() {
            return Err(CgroupError::NoHierarchy);
        }
        let mut directories = Vec::new();
        for hierarchy in mounts {
            let controllers = match hierarchy.version {
                Version::V1 => hierarchy.controllers,
                Version::V2 => {
                    let text = read_path(&format!("{}/cgroup.controllers", hierarchy.mount))?;
                    let has = |c: &Controller| text.split_whitespace().any(|name| name == c.name(Version::V2));
                    Controller::LIMITS.into_iter().filter(has).collect()
                }
            };
            if hierarchy.version == Version::V2 || !controllers.is_disjoint(wanted) {
                let (version, mount, path) = (hierarchy.version, hierarchy.mount, path.clone());
                directories.push(Directory { version, controllers, mount, path });
            }
        }
        Ok(Self { directories })
    }

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
            remove_made(&made);
            return Err(error);
        }
        Ok(made)
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
        if let Some(directory) = self.unified() {
            let word = if state == Freeze::Frozen { "1" } else { "0" };
            write_path(&format!("{}/cgroup.freeze", directory.full()), word)?;
            let events = format!("{}/cgroup.events", directory.full());
            return self.wait(|| Ok(files::field(&read_path(&events)?, "frozen") == Some(u64::from(word == "1"))));
        }
        let Some(directory) = self.home(Controller::Freezer) else {
            let (field, reason) = ("freezer".to_owned(), "the container has no freezer cgroup".to_owned());
            return Err(CgroupError::Unsupported { field, reason });
        };
        let (file, word) = (format!("{}/freezer.state", directory.full()), state.v1());
        write_path(&file, word)?;
        self.wait(|| Ok(read_path(&file)? == word))
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        let says = |file: String| read_path(&file).unwrap_or_default();
        match (self.unified(), self.home(Controller::Freezer)) {
            (Some(directory), _) => says(format!("{}/cgroup.freeze", directory.full())) == "1",
            (None, Some(directory)) => says(format!("{}/freezer.state", directory.full())) != Freeze::Thawed.v1(),
            (None, None) => false,
        }
    }

    /// Kills all that is in it, frozen or not, waits until that is gone, and removes the directories.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + GONE_WITHIN;
        self.directories.iter().rev().try_for_each(|directory| remove_tree(&directory.full(), deadline))
    }

    /// Sends a signal to every process in it.
    pub fn signal(&self, signal: i32) -> Result<(), CgroupError> {
        let Some(directory) = self.directories.first() else { return Ok(()) };
        signal_below(&directory.full(), signal)
    }

    fn wait(&self, is_so: impl Fn() -> Result<bool, CgroupError>) -> Result<(), CgroupError> {
        let deadline = Instant::now() + GONE_WITHIN;
        while !is_so()? {
            if Instant::now() >= deadline {
                return Err(self.directories.first().map_or(CgroupError::NoHierarchy, |d| still_populated(&d.full())));
            }
            pause();
        }
        Ok(())
    }
}

/// Whether a mount is what its path leads to: another one may have been mounted over it.
fn is_visible(mount: &str, version: Version) -> bool {
    /// statfs(2).
    const CGROUP: rustix::fs::FsWord = 0x0027_e0eb;
    const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
    let kind = if version == Version::V2 { CGROUP2 } else { CGROUP };
    rustix::fs::statfs(mount).is_ok_and(|is| is.f_type == kind)
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

/// Removes directories that were made, where nothing else is in them by now.
pub fn remove_made(made: &[String]) {
    for path in made.iter().rev() {
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
        Ok(false) => {
            if !read_path(&format!("{full}/cgroup.procs"))?.is_empty() {
                return Err(CgroupError::Occupied { path: full.into() });
            }
        }
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
        let controllers: Vec<Controller> = directory.controllers.iter().copied().collect();
        let above = directory.path.rsplit_once('/').map_or("", |(above, _)| above);
        // What is refused shows where a limit is written that is not there.
        enable(&directory.mount, above, &controllers)?;
    }
    if directory.controllers.contains(&Controller::Cpuset) && directory.version == Version::V1 {
        fill_cpuset(directory)?;
    }
    Ok(())
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
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
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

fn remove_tree(path: &str, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(error) => return Err(CgroupError::Remove { path: path.into(), source: error.into() }),
        }
        // Linux 5.14, v2 alone; it kills what is below as well, and what is frozen.
        if write_path(&format!("{path}/cgroup.kill"), "1").is_err() {
            signal_below(path, Signal::KILL.as_raw())?;
            // A frozen process of v1 dies once it thaws.
            let _ = write_path(&format!("{path}/freezer.state"), Freeze::Thawed.v1());
        }
        let inner = below(path)?;
        inner.iter().try_for_each(|path| remove_tree(path, deadline))?;
        if Instant::now() >= deadline {
            return Err(still_populated(path));
        }
        if inner.is_empty() {
            pause();
        }
    }
}

fn still_populated(path: &str) -> CgroupError {
    CgroupError::StillPopulated {
        path: path.into(),
        waited_ms: u64::try_from(GONE_WITHIN.as_millis()).unwrap_or(u64::MAX),
    }
}

/// A millisecond: v1 tells nobody when a directory becomes empty.
fn pause() {
    // Ended early is as good.
    let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
}
