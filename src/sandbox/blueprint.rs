//! What a container is to look like, all of it, with every name resolved: ids are numbers, paths are
//! the host's. Nothing is mounted, mapped or limited that is not listed.
//!
//! Both the agent (from a manifest) and the OCI command line (from a `config.json`) make one of these.

pub use super::ops::NewLine;
pub use super::path::Link;
use super::{Attributes, Hooks};
use crate::spec::IdRange;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    pub root: Root,
    /// The root's directory or layers are id-mapped to the container's own ids.
    pub mapped_root: bool,
    /// What the host has mounted below a [`Root::Directory`] shows in it.
    pub root_with_mounts: bool,
    pub read_only_root: bool,
    /// Of the root mount, once it is the root.
    pub root_propagation: Option<Propagation>,
    /// How the root becomes `/`.
    pub change_root: ChangeRoot,
    /// Namespaces of its own.
    pub own: Vec<Namespace>,
    /// Namespaces of others, by the files that stand for them.
    pub join: Vec<(Namespace, String)>,
    /// Of the user namespace, its own or the one that it joins.
    pub ids: Option<IdMaps>,
    /// What the clocks of a time namespace of its own are ahead, as `timens_offsets` of
    /// time_namespaces(7) takes it.
    pub clocks: String,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// In the order of mounting.
    pub mounts: Vec<Mount>,
    /// The kernel's list of mounts (`/proc/self/mountinfo`) has them in that order, too: no file system
    /// is made before its turn, which is faster.
    pub listed_in_order: bool,
    /// Nodes in the root itself, where a user namespace has them bound from a tmpfs of the host's;
    /// those of a `/dev` of its own are in [`Mount::Devices`].
    pub nodes: Vec<DeviceNode>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Files below `/proc/sys` and what is written to them.
    pub sysctl: Vec<(String, String)>,
    pub cgroup: CgroupJoin,
    pub process: Process,
    pub hooks: Hooks,
    /// A small reaping init is PID 1 and the command its child.
    pub init: bool,
    /// The child waits before its program; see [`super::start`].
    pub wait: bool,
}

/// Another program in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPlan {
    /// Where the container is not in the host's own.
    pub enter: Vec<Namespace>,
    /// Its root by a path of the host, where that is not the root of its mount namespace.
    pub root: Option<String>,
    /// The container's own directories.
    pub cgroup: CgroupJoin,
    pub process: Process,
}

/// A program and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    pub limits: Vec<ResourceLimit>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// A compiled filter comes with the script as a descriptor.
    pub seccomp: bool,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2) that it is loaded with. Its listener, if one is asked for,
    /// is told of by [`super::Report::Listener`].
    pub seccomp_flags: u32,
    /// `None` keeps that of who starts it.
    pub oom_score_adj: Option<i32>,
    /// `None` keeps that of who starts it.
    pub nice: Option<i32>,
    /// Rows and columns of a terminal made in the container.
    pub terminal: Option<(u16, u16)>,
    pub new_line: NewLine,
    /// Descriptors that stay open.
    pub keep_descriptors: Vec<u32>,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A directory used as it is.
    Directory { path: String },
    /// Overlay file systems: `base` is the root, and each graft is mounted over a directory in it
    /// (for `host:/`: `usr`, and on an unmerged host `bin`, `sbin`, `lib*`).
    Overlay { base: Overlay, grafts: Vec<(String, Overlay)> },
}

/// One overlay: `lower` directories, the topmost first; `upper` and `work` are never id-mapped, and
/// owned by who is user 0 inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub lower: Vec<String>,
    pub upper: String,
    pub work: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// A tree of the host.
    Bind { tree: Tree, at: String, link: Link },
    /// A part of the root as it is by then, with what has been mounted in it; the tree's path is one inside,
    /// and a mapping of it is one by [`MappedBy::Maps`], where the container has no user namespace.
    Again { tree: Tree, at: String, link: Link },
    /// A symbolic link, where there is nothing yet.
    Link { at: String, to: String },
    /// What is mounted there already changes.
    Change { at: String, change: MountChange },
    /// A file system that is mounted in the container. `flags` are those of mount(2). A tmpfs
    /// becomes read-only when all is mounted: others may need their places made in it. One without a
    /// `mode` takes that of the directory that it covers.
    Fresh { kind: String, source: String, at: String, data: String, flags: u32, change: MountChange, link: Link },
    /// A tmpfs with a copy of what the root has in its place; `options` and `flags` as in [`Self::Devices`].
    Copy { at: String, options: Vec<(String, String)>, flags: u32, change: MountChange },
    /// A tmpfs with device nodes, made by the host, whose tmpfs can hold them, which one of a user
    /// namespace can't. `options` are those of tmpfs(5), `flags` as in [`Self::Fresh`].
    Devices { at: String, options: Vec<(String, String)>, flags: u32, nodes: Vec<DeviceNode> },
}

/// A part of the host's tree, as it shows in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub path: String,
    /// With what is mounted below it.
    pub recursive: bool,
    pub change: MountChange,
    pub mapping: Option<Mapping>,
    /// A symbolic link at `path` is what shows, and not the file that it leads to.
    pub link_itself: bool,
}

/// As which ids the owners of a tree's files show (`MOUNT_ATTR_IDMAP` of mount_setattr(2)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub by: MappedBy,
    /// What is mounted below is mapped, too.
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappedBy {
    /// Ids of the file system are those inside the container's user namespace.
    Container,
    /// Ids of the file system are `inside`, and show as `outside`, which are the host's.
    Maps(IdMaps),
}

/// How a root becomes `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRoot {
    /// The host's tree is gone (pivot_root(2)).
    Pivot,
    /// The host's tree stays below, where a root can't be pivoted: that of an initramfs. What is mounted
    /// at `hidden` is taken away from the container's copy of it, or covered where it can't be.
    Cover { hidden: Vec<String> },
}

/// What changes about a mount once it is there (`mount_setattr(2)`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountChange {
    /// `MOUNT_ATTR_*` bits of this mount alone.
    pub set: u64,
    pub clear: u64,
    /// Of those below it too.
    pub set_all: u64,
    pub clear_all: u64,
    /// A tree of the host without any is a slave of the host's.
    pub propagation: Vec<Propagation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    pub kind: PropagationKind,
    pub recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    Private,
    Shared,
    Slave,
    Unbindable,
}

/// A device, a FIFO, or a link in `/dev`; `path` is that inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    pub path: String,
    pub kind: NodeKind,
    /// With the file's permission bits.
    pub mode: u32,
    /// Ids inside.
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Link { to: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    User,
    Pid,
    Net,
    Ipc,
    Uts,
    Cgroup,
    Time,
    Mount,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    pub uids: Vec<IdExtent>,
    pub gids: Vec<IdExtent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdExtent {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// The five sets, as masks (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// `resource` is a number of getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// The cgroup directories of the host that the process is in from birth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupJoin {
    /// The `payload` directory in the v2 hierarchy.
    pub unified: Option<String>,
    /// One directory per v1 hierarchy.
    pub v1: Vec<String>,
}

impl CgroupJoin {
    /// All of them, the v2 one first.
    pub fn directories(&self) -> Vec<std::path::PathBuf> {
        self.unified.iter().chain(&self.v1).map(std::path::PathBuf::from).collect()
    }
}

impl Capabilities {
    /// One mask for bounding, permitted and effective; inheritable is what ambient needs it to be, and
    /// else empty (CVE-2022-29162).
    pub fn of(mask: u64, ambient: u64) -> Self {
        let ambient = ambient & mask;
        Self { bounding: mask, effective: mask, permitted: mask, inheritable: ambient, ambient }
    }
}

impl From<IdRange> for IdMaps {
    fn from(IdRange { base, size }: IdRange) -> Self {
        let extents = vec![IdExtent { inside: 0, outside: base, size }];
        Self { uids: extents.clone(), gids: extents }
    }
}
