//! What a container is to look like, with every name resolved: ids are numbers, paths are the host's.
//!
//! Both the agent (from a manifest) and the OCI command line (from a `config.json`) make one of these.

use crate::spec::{IdRange, Network};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blueprint {
    pub root: Root,
    pub read_only_root: bool,
    /// The ids of a user namespace of its own; `None` stays in the host's.
    pub ids: Option<IdRange>,
    pub network: Network,
    pub hostname: String,
    /// In the order of mounting, after `/proc`, `/dev` and `/sys`.
    pub mounts: Vec<MountPlan>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub process: Process,
    /// The one capability mask: bounding, permitted and effective; inheritable and ambient are
    /// empty (CVE-2022-29162), except that a user other than 0 gets it as ambient set too when
    /// capabilities were asked for by name.
    pub capabilities: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    /// A compiled filter comes with the script as a descriptor.
    pub seccomp: bool,
    /// A small reaping init is PID 1 and the command its child.
    pub init: bool,
    pub oom_score_adj: i32,
    pub cgroup: CgroupJoin,
    pub cgroup_view: CgroupView,
    /// FIFOs of the host for standard output and error, made and owned by the container's user.
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A directory used as it is; id-mapped when the container has ids of its own.
    Directory { path: String },
    /// Overlay file systems: `base` is the root, and each graft is mounted over a directory in it
    /// (for `host:/`: `usr`, and on an unmerged host `bin`, `sbin`, `lib*`).
    Overlay { base: Overlay, grafts: Vec<(String, Overlay)> },
}

/// One overlay: `lower` directories, the topmost first, id-mapped when the container has ids of its
/// own; `upper` and `work` are plain and owned by the mapped root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub lower: Vec<String>,
    pub upper: String,
    pub work: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPlan {
    Bind(BindMount),
    Tmpfs(TmpfsMount),
}

/// A file or directory of the host at `at` inside. Id-mapped when the container has ids of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    pub from: String,
    pub at: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    pub at: String,
    pub size_bytes: u64,
    pub read_only: bool,
    /// Permission bits of its root: 0o1777 for `/tmp`-like ones.
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program is looked up in the `PATH` of `env` when it has no slash.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub cwd: String,
    /// Ids inside.
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
}

/// The cgroup directories of the host that the process is in from birth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupJoin {
    /// The `payload` directory in the v2 hierarchy.
    pub unified: Option<String>,
    /// One directory per v1 hierarchy.
    pub v1: Vec<String>,
}

/// What the container sees at `/sys/fs/cgroup`, read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupView {
    /// An empty directory.
    #[default]
    Nothing,
    /// Its own part of the v2 hierarchy.
    Unified,
    /// Its own part of these v1 hierarchies, each with its controllers: `memory`, `cpu,cpuacct`.
    V1(Vec<String>),
}

impl CgroupJoin {
    /// All of them, the v2 one first.
    pub fn directories(&self) -> Vec<std::path::PathBuf> {
        self.unified.iter().chain(&self.v1).map(std::path::PathBuf::from).collect()
    }
}
