//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("writing {value:?} to {}", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("making the cgroup {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("opening the cgroup {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("removing the cgroup {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("killing the processes in {}", path.display())]
    Kill { path: PathBuf, source: io::Error },
    #[error("giving {} to the user {uid}", path.display())]
    Give { path: PathBuf, uid: u32, source: io::Error },
    #[error("{what} in {}{}{log}", path.display(), if log.is_empty() { "" } else { ": " })]
    DeviceRules { path: PathBuf, what: &'static str, log: String, source: io::Error },
    #[error("this host cannot keep devices from a container without a user namespace: {reason}")]
    NoDeviceRules { reason: String },
    #[error("no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchy,
    #[error("{parent:?} is not a place for cgroups: write a path such as /plimsoll, without '..'")]
    Parent { parent: String },
    #[error("this host cannot enforce resources.{field}: {reason}")]
    Unsupported { field: String, reason: String },
    #[error("resources.io.limits: {path} is not on a disk: {reason}")]
    NoDisk { path: String, reason: String },
    #[error("resources.{field}: {asked} is not within {available}, which this host gives to containers")]
    NotOnThisHost { field: &'static str, asked: String, available: String },
    #[error("the container's cgroup is not empty: {} has processes in it already", path.display())]
    Occupied { path: PathBuf },
    #[error("container's cgroup unexpectedly frozen: nothing would run in {}", path.display())]
    Frozen { path: PathBuf },
    #[error("{} is not frozen {waited_ms} ms after it was told to", path.display())]
    NotFrozen { path: PathBuf, waited_ms: u64 },
    #[error("{} still has processes {waited_ms} ms after they were killed", path.display())]
    StillPopulated { path: PathBuf, waited_ms: u64 },
}

impl CgroupError {
    /// Whether the same call may succeed later though nobody changes the manifest or the host.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::StillPopulated { .. } | Self::NotFrozen { .. } | Self::Occupied { .. } => true,
            Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Make { source, .. }
            | Self::Open { source, .. }
            | Self::Remove { source, .. }
            | Self::Kill { source, .. }
            | Self::Give { source, .. }
            | Self::DeviceRules { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::ResourceBusy
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::OutOfMemory
            ),
            Self::NoHierarchy
            | Self::Frozen { .. }
            | Self::NoDeviceRules { .. }
            | Self::Parent { .. }
            | Self::Unsupported { .. }
            | Self::NoDisk { .. }
            | Self::NotOnThisHost { .. } => false,
        }
    }
}
