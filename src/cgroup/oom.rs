//! Hearing of it when a cgroup runs out of memory.

use super::CgroupError;
use super::detect::{read_path, write_path};
use super::files;
use super::place::{Directory, Place};
use super::table::{Controller, Version};
use rustix::event::{EventfdFlags, PollFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A descriptor that something happens on when a process was killed, or stands still, for want of memory.
#[derive(Debug)]
pub struct OomWatch {
    source: OwnedFd,
    version: Version,
    directory: String,
    kills: u64,
}

impl Place {
    /// `None` where no hierarchy limits memory.
    pub fn watch_memory(&self) -> Result<Option<OomWatch>, CgroupError> {
        self.home(Controller::Memory).map(OomWatch::start).transpose()
    }
}

impl OomWatch {
    fn start(directory: &Directory) -> Result<Self, CgroupError> {
        let full = directory.full();
        let open = |file: &str| {
            let path = format!("{full}/{file}");
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| CgroupError::Read { path: path.into(), source: errno.into() })
        };
        let source = match directory.version {
            Version::V2 => open("memory.events")?,
            Version::V1 => {
                let events = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|errno| CgroupError::Read { path: full.clone().into(), source: errno.into() })?;
                // The kernel keeps what it needs of the file; it may be closed afterwards.
                let control = open("memory.oom_control")?;
                let value = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
                write_path(&format!("{full}/cgroup.event_control"), &value)?;
                events
            }
        };
        let mut watch = Self { source, version: directory.version, directory: full, kills: 0 };
        watch.kills = watch.count()?.unwrap_or(0);
        Ok(watch)
    }

    /// What to wait on, and for what.
    pub fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match self.version {
            Version::V2 => PollFlags::PRI,
            Version::V1 => PollFlags::IN,
        };
        (self.source.as_fd(), flags)
    }

    /// Whether it has happened since the last time.
    pub fn has_happened(&mut self) -> Result<bool, CgroupError> {
        match self.version {
            Version::V2 => {
                let Some(now) = self.count()? else { return Ok(false) };
                Ok(std::mem::replace(&mut self.kills, now) < now)
            }
            Version::V1 => {
                let mut count = [0; 8];
                let told = match rustix::io::read(&self.source, &mut count) {
                    Ok(_) => true,
                    Err(Errno::AGAIN | Errno::INTR) => false,
                    Err(errno) => {
                        return Err(CgroupError::Read { path: self.directory.clone().into(), source: errno.into() });
                    }
                };
                // The end of the directory is told in the same way.
                Ok(told && self.count()?.is_some())
            }
        }
    }

    /// How many processes were killed; `None` when the directory is gone.
    fn count(&self) -> Result<Option<u64>, CgroupError> {
        let text = match self.version {
            Version::V2 => files::read_open(&self.source)
                .map_err(|errno| CgroupError::Read { path: self.directory.clone().into(), source: errno.into() }),
            Version::V1 => read_path(&format!("{}/memory.oom_control", self.directory)),
        };
        match text {
            Ok(text) => Ok(Some(files::field(&text, "oom_kill").unwrap_or(0))),
            Err(CgroupError::Read { source, .. })
                if matches!(Errno::from_io_error(&source), Some(Errno::NOENT | Errno::NODEV)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
