//! What is known of a container, in a directory of its own below `--root`.
//!
//! `state.json` is written as a whole. Before there is a process, `plan.json` says what is going to be
//! made on the host, so that `delete` finds it whenever the creator was interrupted. Two names, as a file
//! system may write a file to the disk at once that takes another one's place, and who removes it soon
//! waits for that. A process is known by its number
//! and start time together. A container that waits for its start has a socket beside the file; who
//! starts it takes the socket away first.

use super::OciError;
use super::attributes::Common;
use super::config::Process;
use super::hooks;
use super::rdt::Group;
use super::seccomp::Listener;
use crate::cgroup::freezer;
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::{Controller, Version};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: String,
    pub oci_version: String,
    pub bundle: String,
    #[serde(default)]
    pub rootfs: String,
    pub annotations: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: u64,
    pub cgroup: Vec<CgroupRecord>,
    /// The unit that its cgroup is, where systemd has made it.
    #[serde(default)]
    pub scope: Option<String>,
    #[serde(default)]
    pub rdt: Option<Group>,
    #[serde(default)]
    pub hooks: hooks::Later,
    /// Hooks run that may still end it.
    #[serde(default)]
    pub creating: bool,
    /// Directories of cgroups that were made for it, the outer ones first.
    pub made: Vec<String>,
    /// Nothing before the process exists.
    pub init: Option<Init>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Init {
    pub pid: i32,
    /// In clock ticks since the host's start (proc_pid_stat(5)).
    pub start_time: u64,
    /// Namespaces that are not the host's, as bits of clone(2).
    pub namespaces: u64,
    /// Its other processes do not end with the first one.
    #[serde(default)]
    pub shares_pids: bool,
    /// Its root is not that of its mount namespace.
    #[serde(default)]
    pub covered: bool,
    /// What `exec` starts from.
    pub process: Process,
    /// What `exec` has in common with it.
    #[serde(default)]
    pub common: Common,
    /// The flags of its filter.
    pub filter: Option<u32>,
    #[serde(default)]
    pub listener: Option<Listener>,
    /// Words for what the process does once it is started.
    pub after_start: Vec<(u32, String)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CgroupRecord {
    v2: bool,
    controllers: Vec<String>,
    mount: String,
    path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's directory.
#[derive(Debug)]
pub(super) struct Home {
    pub path: PathBuf,
}

const FILE: &str = "state.json";
/// The same before there is a process.
const PLAN: &str = "plan.json";
const SOCKET: &str = "start";

fn io(what: String) -> impl FnOnce(std::io::Error) -> OciError {
    move |source| OciError::Io { what, source }
}

/// Also when it was not there.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    removed.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl Home {
    pub(super) fn of(root: &Path, id: &str) -> Self {
        Self { path: root.join(id) }
    }

    /// Makes the directory, of which there is one at a time.
    pub(super) fn make(root: &Path, id: &str) -> Result<Self, OciError> {
        let home = Self::of(root, id);
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(CWD, &home.path, mode) {
            Ok(()) => Ok(home),
            Err(Errno::EXIST) => Err(OciError::Exists(id.to_owned())),
            Err(Errno::NOENT) => {
                use std::os::unix::fs::DirBuilderExt;
                let what = format!("making {}", root.display());
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io(what))?;
                match rustix::fs::mkdirat(CWD, &home.path, mode) {
                    Err(Errno::EXIST) => Err(OciError::Exists(id.to_owned())),
                    result => result.map(|()| home).map_err(|e| io(format!("making {}", root.display()))(e.into())),
                }
            }
            Err(errno) => Err(io(format!("making {}", home.path.display()))(errno.into())),
        }
    }

    pub(super) fn save(&self, record: &Record) -> Result<(), OciError> {
        let name = if record.init.is_some() { FILE } else { PLAN };
        let failed = || io(format!("writing {}", self.path.join(name).display()));
        let text = serde_json::to_vec(record).map_err(|error| failed()(error.into()))?;
        let new = self.path.join(format!(".{name}"));
        std::fs::write(&new, text).map_err(failed())?;
        std::fs::rename(&new, self.path.join(name)).map_err(failed())?;
        if name == FILE { gone(std::fs::remove_file(self.path.join(PLAN))).map_err(failed()) } else { Ok(()) }
    }

    pub(super) fn load(&self, id: &str) -> Result<Record, OciError> {
        let read = |name: &str| {
            let path = self.path.join(name);
            let failed = |error| io(format!("reading {}", path.display()))(error);
            match std::fs::read(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                result => {
                    let text = result.map_err(failed)?;
                    serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
                }
            }
        };
        // Twice: the process may have come between the two.
        for name in [FILE, PLAN, FILE] {
            if let Some(record) = read(name)? {
                return Ok(record);
            }
        }
        Err(OciError::NoContainer(id.to_owned()))
    }

    /// Held while something is changed that two must not change at once; given back at its end.
    pub(super) fn lock(&self, id: &str) -> Result<OwnedFd, OciError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(OciError::NoContainer(id.to_owned())),
            result => result.map_err(|e| io(format!("opening {}", self.path.display()))(e.into()))?,
        };
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| io(format!("locking {}", self.path.display()))(e.into()))?;
        Ok(directory)
    }

    pub(super) fn remove(&self) -> Result<(), OciError> {
        // What there is in most; whatever else there is, is looked for.
        let usual = [Path::new(super::filter::OWN), Path::new(FILE)];
        let removed = usual.iter().all(|name| std::fs::remove_file(self.path.join(name)).is_ok());
        if removed && std::fs::remove_dir(&self.path).is_ok() {
            return Ok(());
        }
        gone(std::fs::remove_dir_all(&self.path)).map_err(io(format!("removing {}", self.path.display())))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// The socket that the container notifies us by.
    pub(super) fn notices(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// Makes a socket in the directory, whatever the length of its path.
    pub(super) fn bind(&self, path: &Path) -> std::io::Result<UnixDatagram> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let name = path.file_name().unwrap_or_default();
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        UnixDatagram::bind(Path::new(&format!("/proc/self/fd/{number}")).join(name))
    }

    /// A name of the socket that is short enough for the kernel, whatever `--root` is.
    pub(super) fn socket_address(&self) -> Result<(rustix::net::SocketAddrUnix, OwnedFd), OciError> {
        let failed = |errno: Errno| io(format!("opening {}", self.path.display()))(errno.into());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&self.path, flags, Mode::empty()).map_err(failed)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let address = rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{number}/{SOCKET}")).map_err(failed)?;
        Ok((address, directory))
    }

    pub(super) fn status(&self, record: &Record) -> Status {
        self.look(record).0
    }

    /// With a pidfd of its process, if that has not ended.
    pub(super) fn look(&self, record: &Record) -> (Status, Option<OwnedFd>) {
        let Some(init) = &record.init else { return (Status::Creating, None) };
        let Some(process) = init.alive() else { return (Status::Stopped, None) };
        let status = if record.creating {
            Status::Creating
        } else if self.socket().exists() {
            Status::Created
        } else if record.place().is_frozen() {
            Status::Paused
        } else {
            Status::Running
        };
        (status, Some(process))
    }
}

impl Record {
    pub(super) fn place(&self) -> Place {
        Place::of(self.cgroup.iter().map(CgroupRecord::directory).collect())
    }

    pub(super) fn put_place(&mut self, place: &Place) {
        self.cgroup = place.directories().iter().map(CgroupRecord::from).collect();
    }
}

impl CgroupRecord {
    fn directory(&self) -> Directory {
        let version = if self.v2 { Version::V2 } else { Version::V1 };
        let is = |controller: &Controller| self.controllers.iter().any(|name| name == controller.name(Version::V1));
        let controllers = Controller::EVERY.into_iter().filter(is).collect();
        Directory { version, controllers, mount: self.mount.clone(), path: self.path.clone() }
    }
}

impl From<&Directory> for CgroupRecord {
    fn from(from: &Directory) -> Self {
        let Directory { version, controllers, mount, path } = from;
        let names = controllers.iter().map(|controller| controller.name(Version::V1).to_owned());
        Self { v2: *version == Version::V2, controllers: names.collect(), mount: mount.clone(), path: path.clone() }
    }
}

impl Init {
    /// A pidfd, while the process is the one that was meant and has not ended.
    pub(super) fn alive(&self) -> Option<OwnedFd> {
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        (start_time(self.pid) == Some(self.start_time) && !ended(&pidfd)).then_some(pidfd)
    }
}

fn ended(pidfd: &OwnedFd) -> bool {
    let mut wait = [PollFd::new(pidfd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut wait, Some(&now)), Ok(1..))
}

/// When a process was started (proc_pid_stat(5), field 22).
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let text = crate::sys::stat_of(Pid::from_raw(pid)?).ok()?;
    // The name in parentheses may have anything in it.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Waits until a process, which has been killed, has ended; `others` are those that it takes along.
///
/// One that waits for a device may never do so: then it is busy, and who waits gets an answer.
pub(super) fn wait_for_end(pid: i32, pidfd: &OwnedFd, others: &Place) -> Result<(), OciError> {
    if has_ended_within(pidfd, ENDS_AT_ONCE)? {
        return Ok(());
    }
    let others = others.procs().unwrap_or_default();
    freezer::let_die(others.into_iter().chain(u32::try_from(pid)))?;
    if has_ended_within(pidfd, ENDS_WITHIN)? { Ok(()) } else { Err(waiting(Errno::BUSY)) }
}

fn has_ended_within(pidfd: &OwnedFd, within: Duration) -> Result<bool, OciError> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| waiting(Errno::INVAL))?;
        let mut wait = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut wait, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(waiting(errno)),
        }
    }
}

fn waiting(errno: Errno) -> OciError {
    io("waiting for the end of the process".to_owned())(errno.into())
}

/// More than a process needs that nothing holds.
const ENDS_AT_ONCE: Duration = Duration::from_millis(100);
const ENDS_WITHIN: Duration = Duration::from_secs(10);
