//! The operations of a script, as data, and their words.

use super::Text;
use super::path::Link;
use crate::sys::SchedulerAttributes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Place of a descriptor in the tables that parent and child each have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Slot(pub(super) u8);

/// `CLONE_NEW*` bits of clone(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Namespaces(pub(super) u64);

impl Namespaces {
    pub(super) const NONE: Self = Self(0);
    pub(super) const MOUNT: Self = Self(0x0002_0000);
    pub(super) const CGROUP: Self = Self(0x0200_0000);
    pub(super) const UTS: Self = Self(0x0400_0000);
    pub(super) const IPC: Self = Self(0x0800_0000);
    pub(super) const USER: Self = Self(0x1000_0000);
    pub(super) const PID: Self = Self(0x2000_0000);
    pub(super) const TIME: Self = Self(0x80);
    pub(super) const NET: Self = Self(0x4000_0000);

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What changes about a mount, or about all below it too (mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TreeChange {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) recursive: bool,
}

impl TreeChange {
    pub(super) const NONE: Self = Self { set: 0, clear: 0, propagation: 0, recursive: false };
}

/// A file that is not a regular one, or a link. `mode` has the type in it (mknod(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) path: Text,
    pub(super) mode: u32,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) link: Option<Text>,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whose ids a tree's owners are mapped by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Idmap {
    pub(super) by: IdmapBy,
    pub(super) recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IdmapBy {
    /// The child's user namespace.
    Child,
    /// The user namespace that a file stands for.
    Namespace { path: Text },
    /// One that is made for it, with these texts for `uid_map` and `gid_map`.
    Maps { uids: Text, gids: Text },
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) resource: u32,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// What the parent does, from `clone3` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ParentOp {
    /// Before the clone, and for good: the child is born into it.
    EnterNamespace { namespace: Namespaces, path: Text },
    /// Before the clone, as above: the child is born with it.
    SetAffinity { cpus: Vec<u64> },
    /// Makes a time namespace, before the clone: it is the children's, and its clocks can be set only
    /// until the first of them is there (time_namespaces(7)).
    NewClocks { offsets: Text },
    /// The child exists from here on. Nothing but the operations above comes before.
    Clone { namespaces: Namespaces, cgroup: Option<Text> },
    /// The child has another take its place: the counterpart of [`ChildOp::Succeed`].
    AwaitSuccessor,
    /// Writes `uid_map` and `gid_map`: the texts of the two files.
    MapIds { uids: Text, gids: Text },
    /// A detached copy of a tree of the host, with the changes made to it one after the other.
    Tree { path: Text, recursive: bool, changes: Vec<TreeChange>, idmap: Option<Idmap>, link_itself: bool, into: Slot },
    /// A user namespace that nobody is in.
    UserNamespace { uids: Text, gids: Text, into: Slot },
    /// The file that stands for a namespace.
    Namespace { path: Text, into: Slot },
    /// The directory itself, which is mounted nowhere.
    Directory { path: Text, into: Slot },
    /// A detached tmpfs with nodes and directories in it; `flags` are those of mount(2).
    DeviceTree { options: Vec<(Text, Text)>, flags: u32, nodes: Vec<Node>, directories: Vec<Text>, into: Slot },
    /// A detached tmpfs with a copy of what is at `at` in a tree.
    Copy { options: Vec<(Text, Text)>, flags: u32, root: Slot, at: Text, into: Slot },
    /// A detached overlay; `lower` are trees made before, the topmost first.
    Overlay { lower: Vec<Slot>, upper: Text, work: Text, into: Slot },
    /// Of the child, where that takes a right over the host that it does not have.
    Schedule(Scheduling),
    /// As the one before.
    SetLimits { limits: Vec<Limit> },
    /// The child gets these and may go on: the counterpart of [`ChildOp::Receive`].
    HandOver { slots: Vec<Slot> },
}

/// Who gets which share of the CPUs and disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Scheduling {
    /// For sched_setattr(2).
    Cpu(SchedulerAttributes),
    /// For ioprio_set(2).
    Io { priority: u16 },
}

/// A program to run and wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HookCall {
    pub(super) path: Text,
    pub(super) argv: Vec<Text>,
    pub(super) env: Vec<Text>,
    /// In seconds.
    pub(super) timeout: Option<u32>,
}

/// A file system that is mounted fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fresh {
    Proc,
    Sysfs,
}

/// What the child does, up to its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ChildOp {
    /// Out of everybody's reach: not dumpable, descriptors close at `execve`, standard input, output and
    /// error in place, nothing inherited from the parent's signals.
    Seal,
    SetOomScore {
        value: Text,
    },
    /// Joins a v1 hierarchy: `tasks` takes no global lock, unlike `cgroup.procs`.
    JoinCgroup {
        tasks: Text,
    },
    /// The root of a running container, while that runs: it is found by the number of its process.
    TakeRoot {
        path: Text,
        into: Slot,
    },
    /// The namespaces of a running container, by the pidfd that the launcher was given.
    EnterNamespaces {
        namespaces: Namespaces,
    },
    Unshare {
        namespaces: Namespaces,
    },
    /// Nothing that is mounted here may show on the host. A new user namespace has this built in.
    StopPropagation,
    Loopback,
    SetHostname {
        name: Text,
    },
    /// Waits for the parent: the counterpart of [`ParentOp::HandOver`].
    Receive {
        slots: Vec<Slot>,
    },
    /// A user and a group that the user namespace has, 0 if it has that.
    BecomeRoot {
        uid: u32,
        gid: u32,
    },
    /// The mount namespace of others; nobody of ours who is not the host's root could open its file.
    JoinMounts {
        namespace: Slot,
    },
    /// A namespace by the file that stands for it.
    JoinNamespace {
        namespace: Namespaces,
        path: Text,
    },
    /// Goes on as a new process, which is a child of the same parent: a pid namespace that has been
    /// unshared is that of the children.
    Succeed,
    /// Makes a detached file system. Has to come before [`Self::PivotRoot`]: a user namespace is
    /// refused a fresh proc or sysfs unless it still sees one that hides nothing.
    Make {
        what: Fresh,
        attributes: u64,
        into: Slot,
    },
    /// Mounts the root over `/`, or where it is on the host, where it waits for [`Self::PivotRoot`].
    AttachRoot {
        root: Slot,
        at: Option<Text>,
    },
    /// Mounts a detached tree; `at` is resolved inside `root`, and made if it is missing.
    Attach {
        root: Slot,
        mount: Slot,
        what: Text,
        at: Text,
        link: Link,
    },
    /// A detached copy of what is at `path` inside `root`, with the changes made to it one after the other,
    /// and mapped by the user namespace of `idmap`, recursively or not.
    Copy {
        root: Slot,
        path: Text,
        recursive: bool,
        changes: Vec<TreeChange>,
        idmap: Option<(Slot, bool)>,
        into: Slot,
    },
    /// Goes to the root of a tree that we have made and that nobody else can have changed. The
    /// operations below with "here" work with relative paths in it.
    Enter {
        tree: Slot,
        at: Text,
    },
    /// A fresh file system here; `flags` are those of mount(2).
    MountHere {
        kind: Text,
        source: Text,
        path: Text,
        options: Text,
        flags: u32,
    },
    MakeDirectoryHere {
        path: Text,
    },
    ReadOnlyHere {
        path: Text,
    },
    MaskHere {
        path: Text,
    },
    /// Hides what is at `at` inside `root`, if anything.
    Mask {
        root: Slot,
        at: Text,
    },
    /// Makes what is at `at` inside `root` read-only, if there is anything.
    ReadOnly {
        root: Slot,
        at: Text,
    },
    /// The root mount becomes read-only; mounts in it stay as they are.
    SealRoot {
        root: Slot,
    },
    /// The root becomes `/`, and the host's tree is gone.
    PivotRoot {
        root: Slot,
    },
    /// What the host has mounted at `at` is not there any more.
    HideHosts {
        at: Text,
    },
    /// The root becomes `/`, over the host's tree.
    CoverRoot {
        root: Slot,
    },
    /// A tree of nodes over the root, for the operations that follow.
    AttachNodes {
        root: Slot,
        nodes: Slot,
    },
    /// Binds the node `name` of that tree to `at` in the root.
    BindNode {
        root: Slot,
        nodes: Slot,
        name: Text,
        at: Text,
    },
    /// The tree of nodes is taken away again.
    DetachNodes {
        nodes: Slot,
    },
    NewSession,
    /// A terminal of the container's becomes standard input, output, error and the controlling one.
    OpenTerminal {
        rows: u16,
        columns: u16,
        owner: u32,
        new_line: NewLine,
    },
    SetUmask {
        mask: u32,
    },
    NewKeyring,
    SetPriority {
        nice: i32,
    },
    WorkingDirectory {
        path: Text,
    },
    /// Makes the working directory while that can be done, if it is missing.
    MakeWorkingDirectory {
        root: Slot,
        path: Text,
    },
    DropBounding {
        keep: u64,
    },
    SetUser {
        uid: u32,
        gid: u32,
        /// `None` keeps those that there are.
        groups: Option<Vec<u32>>,
    },
    SetCapabilities {
        effective: u64,
        permitted: u64,
        inheritable: u64,
        ambient: u64,
    },
    NoNewPrivileges,
    SetDomainname {
        name: Text,
    },
    /// A file of the kernel, by its path on the host.
    WriteFile {
        path: Text,
        value: Text,
    },
    SetLimits {
        limits: Vec<Limit>,
    },
    /// These stay open at `execve`.
    KeepDescriptors {
        descriptors: Vec<u32>,
    },
    /// A fresh file system; `at` as in [`Self::Attach`], `flags` those of mount(2).
    Mount {
        root: Slot,
        kind: Text,
        source: Text,
        at: Text,
        data: Text,
        /// Its root has the permission bits of the directory that it covers, if that was there before.
        mode_of_place: bool,
        flags: u32,
        link: Link,
    },
    /// Changes what is mounted at `at`, inside `root` or, after the pivot, by its path.
    ChangeMount {
        root: Option<Slot>,
        at: Text,
        change: TreeChange,
    },
    /// A node in the root itself.
    MakeNode {
        root: Slot,
        node: Node,
    },
    /// The terminal is what `/dev/console` stands for.
    Console,
    /// Fails as [`Self::Execute`] would where there is nothing to execute.
    FindProgram {
        candidates: Vec<Text>,
    },
    /// Tells the parent that all is ready, and goes on when somebody connects to the socket that the
    /// launcher was given and says so. From then on that somebody is the parent to report to.
    AwaitStart,
    /// CPUs, one bit for each; those count that the cpuset has.
    SetAffinity {
        cpus: Vec<u64>,
    },
    /// Nodes, one bit for each (set_mempolicy(2)).
    SetMemoryPolicy {
        mode: u32,
        nodes: Vec<u64>,
    },
    Schedule(Scheduling),
    SetPersonality {
        personality: u32,
    },
    /// As [`Self::NewKeyring`], with a name, and one that has the name already is joined.
    JoinKeyring {
        name: Text,
    },
    /// A file of our own in the host's proc, to be written by [`Self::WriteAttribute`].
    OpenAttribute {
        path: Text,
        into: Slot,
    },
    WriteAttribute {
        file: Slot,
        value: Text,
    },
    /// Tells the parent that all is there but the root is not `/` yet, and waits for what the hooks read.
    AwaitHooks {
        slots: Vec<Slot>,
    },
    /// Runs a program and waits for it; `at` is its directory, or else it is where we are.
    RunHook {
        kind: HookKind,
        number: u32,
        call: HookCall,
        state: Slot,
        at: Option<Slot>,
    },
    /// Nothing stays open but standard input, output and error, the descriptors `keep`, the socket to
    /// the parent, the one to listen on and what hooks read: a process that waits may be looked at.
    LetGo {
        keep: Vec<u32>,
        slot: Option<Slot>,
    },
    /// The filter that came with the script; `flags` as in seccomp(2). With a listener it goes on when
    /// the parent has taken that.
    Filter {
        flags: u32,
    },
    /// Stays here as PID 1 and goes on in a child.
    BecomeInit,
    Execute(Program),
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HookKind {
    CreateContainer,
    StartContainer,
}

/// The program and the places where it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) candidates: Vec<Text>,
    pub(super) argv: Vec<Text>,
    pub(super) env: Vec<Text>,
}

/// What a terminal makes of a new line that a program writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewLine {
    /// As terminals begin: whatever shows it may leave its own terminal raw.
    #[default]
    WithReturn,
    /// As OCI runtimes have it: who reads it has a terminal that knows better, or is no terminal.
    Bare,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for TreeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// `MOUNT_ATTR_*` and `MS_*` bits with their words.
        const ATTRIBUTES: [(u64, &str, &str); 7] = [
            (0x1, "read-only", "writable"),
            (0x2, "nosuid", "suid"),
            (0x4, "nodev", "dev"),
            (0x8, "noexec", "exec"),
            (0x10, "noatime", "atime"),
            (0x80, "nodiratime", "diratime"),
            (0x20_0000, "nosymfollow", "symfollow"),
        ];
        const PROPAGATION: [(u64, &str); 4] =
            [(1 << 17, "unbindable"), (1 << 18, "private"), (1 << 19, "slave"), (1 << 20, "shared")];
        let Self { set, clear, propagation, recursive } = self;
        let mut words: Vec<&str> = Vec::new();
        for (bit, on, off) in ATTRIBUTES {
            words.extend((set & bit != 0).then_some(on));
            words.extend((set & bit == 0 && clear & bit != 0).then_some(off));
        }
        words.extend((clear & 0x70 != 0 && set & 0x20 != 0).then_some("strictatime"));
        words.extend((clear & 0x70 != 0 && set & 0x30 == 0).then_some("relatime"));
        words.extend(PROPAGATION.iter().filter(|(bit, _)| propagation & bit != 0).map(|(_, word)| *word));
        write!(f, "{}{}", words.join(", "), if *recursive { ", recursive" } else { "" })
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::USER, "user"),
            (Self::PID, "pid"),
            (Self::MOUNT, "mount"),
            (Self::NET, "net"),
            (Self::UTS, "uts"),
            (Self::IPC, "ipc"),
            (Self::CGROUP, "cgroup"),
            (Self::TIME, "time"),
        ];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(bit, _)| self.has(*bit)) {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

fn list(slots: &[Slot]) -> String {
    slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for ParentOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone { namespaces, cgroup } => {
                f.write_str("cloning")?;
                if *namespaces != Namespaces::NONE {
                    write!(f, " into new namespaces ({namespaces})")?;
                }
                cgroup.iter().try_for_each(|path| write!(f, " in the cgroup {path}"))
            }
            Self::SetAffinity { cpus } => write!(f, "setting the CPUs {}", Bits(cpus)),
            Self::Schedule(scheduling) => write!(f, "{scheduling}"),
            Self::SetLimits { limits } => set_limits(f, limits),
            Self::EnterNamespace { namespace, path } => write!(f, "entering the {namespace} namespace {path}"),
            Self::UserNamespace { uids, gids, into } => {
                let lines = |text: &Text| text.as_str().trim_end().replace('\n', ", ");
                write!(f, "making {into}, a user namespace with users {} and groups {}", lines(uids), lines(gids))
            }
            Self::AwaitSuccessor => f.write_str("waiting for the process that takes the child's place"),
            Self::MapIds { uids, gids } => {
                let lines = |text: &Text| text.as_str().trim_end().replace('\n', ", ");
                write!(f, "mapping users {} and groups {}", lines(uids), lines(gids))
            }
            Self::NewClocks { offsets } => {
                write!(f, "making a time namespace with {}", offsets.as_str().trim_end().replace('\n', ", "))
            }
            Self::Namespace { path, into } => write!(f, "opening the namespace {path} as {into}"),
            Self::Directory { path, into } => write!(f, "opening {path} as {into}"),
            Self::Copy { at, into, .. } => write!(f, "copying {at} to a tmpfs as {into}"),
            Self::Tree { path, recursive, changes, idmap, link_itself: _, into } => {
                write!(f, "taking {path}{}", if *recursive { ", recursive" } else { "" })?;
                for change in changes {
                    write!(f, ", {}", TreeChange { recursive: change.recursive && !recursive, ..*change })?;
                }
                match idmap {
                    None => {}
                    Some(Idmap { by: IdmapBy::Child, .. }) => f.write_str(", id-mapped")?,
                    Some(Idmap { by: IdmapBy::Namespace { path }, .. }) => write!(f, ", id-mapped by {path}")?,
                    Some(Idmap { by: IdmapBy::Maps { uids, gids }, .. }) => {
                        let lines = |text: &Text| text.as_str().trim_end().replace('\n', ", ");
                        write!(f, ", id-mapped with users {} and groups {}", lines(uids), lines(gids))?;
                    }
                }
                write!(f, " as {into}")
            }
            Self::DeviceTree { nodes, into, .. } => write!(f, "making {} devices and links as {into}", nodes.len()),
            Self::Overlay { lower, upper, work, into } => {
                write!(f, "making an overlay of {} with {upper} (work {work}) as {into}", list(lower))
            }
            Self::HandOver { slots } if slots.is_empty() => f.write_str("letting the child go on"),
            Self::HandOver { slots } => write!(f, "handing over {}", list(slots)),
        }
    }
}

/// `0-3,8`
struct Bits<'a>(&'a [u64]);

impl fmt::Display for Bits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len() * 64;
        let is_set = |bit: usize| self.0.get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0);
        let mut separator = "";
        let mut bit = 0;
        while bit < count {
            let end = (bit..count).find(|bit| !is_set(*bit)).unwrap_or(count);
            match end - bit {
                0 => {}
                1 => write!(f, "{separator}{bit}")?,
                _ => write!(f, "{separator}{bit}-{}", end - 1)?,
            }
            separator = if end > bit { "," } else { separator };
            bit = end + 1;
        }
        Ok(())
    }
}

fn set_limits(f: &mut fmt::Formatter<'_>, limits: &[Limit]) -> fmt::Result {
    f.write_str("setting the limits")?;
    limits.iter().try_for_each(|limit| write!(f, " {}={}:{}", limit.resource, limit.soft, limit.hard))
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(SchedulerAttributes { policy, flags, nice, priority, runtime, deadline, period }) => {
                write!(
                    f,
                    "setting the scheduling policy {policy} (flags {flags:#x}, nice {nice}, priority {priority}"
                )?;
                if (*runtime, *deadline, *period) != (0, 0, 0) {
                    write!(f, ", {runtime} of {deadline} ns every {period}")?;
                }
                f.write_str(")")
            }
            Self::Io { priority } => {
                write!(f, "setting the I/O priority (class {}, level {})", priority >> 13, priority & 0x1fff)
            }
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
        })
    }
}

impl fmt::Display for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proc => "proc",
            Self::Sysfs => "sysfs",
        })
    }
}

impl fmt::Display for ChildOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seal => f.write_str("sealing the process"),
            Self::SetOomScore { value } => write!(f, "setting oom_score_adj to {value}"),
            Self::JoinCgroup { tasks } => write!(f, "joining the cgroup of {tasks}"),
            Self::EnterNamespaces { namespaces } => write!(f, "entering namespaces ({namespaces})"),
            Self::Unshare { namespaces } => write!(f, "making namespaces ({namespaces})"),
            Self::StopPropagation => f.write_str("keeping mounts from the host"),
            Self::Loopback => f.write_str("bringing up the loopback device"),
            Self::SetHostname { name } => write!(f, "setting the hostname {name}"),
            Self::Receive { slots } if slots.is_empty() => f.write_str("waiting for the parent"),
            Self::Receive { slots } => write!(f, "waiting for the parent's {}", list(slots)),
            Self::BecomeRoot { uid, .. } => write!(f, "becoming user {uid} of the container"),
            Self::JoinMounts { namespace } => write!(f, "entering the mount namespace {namespace}"),
            Self::JoinNamespace { namespace, path } => write!(f, "entering the {namespace} namespace {path}"),
            Self::MakeWorkingDirectory { path, .. } => write!(f, "making the working directory {path}"),
            Self::HideHosts { at } => write!(f, "taking away the host's {at}"),
            Self::TakeRoot { path, into } => write!(f, "taking the root {path} as {into}"),
            Self::Copy { path, recursive, changes, idmap, .. } => {
                write!(f, "taking {path} as it is by now{}", if *recursive { ", recursive" } else { "" })?;
                for change in changes {
                    write!(f, ", {}", TreeChange { recursive: change.recursive && !recursive, ..*change })?;
                }
                idmap.map_or(Ok(()), |(namespace, _)| write!(f, ", id-mapped by {namespace}"))
            }
            Self::Succeed => f.write_str("going on as a new process"),
            Self::CoverRoot { root } => write!(f, "changing to the root {root}"),
            Self::AttachNodes { nodes, .. } => write!(f, "mounting the devices {nodes}"),
            Self::BindNode { at, .. } => write!(f, "binding the node {at}"),
            Self::DetachNodes { nodes } => write!(f, "taking the devices {nodes} away"),
            Self::Make { what, attributes, into } => {
                write!(f, "making {what}{} as {into}", if attributes & 1 == 0 { "" } else { ", read-only" })
            }
            Self::AttachRoot { root, at: None } => write!(f, "mounting the root {root}"),
            Self::AttachRoot { root, at: Some(at) } => write!(f, "mounting the root {root} at {at}"),
            Self::Attach { mount, what, at, .. } => write!(f, "mounting {what} {mount} at {at}"),
            Self::Enter { tree, at } => write!(f, "entering {at} {tree}"),
            Self::MountHere { kind, path, options, flags, .. } => {
                let read_only = if flags & 1 == 0 { "" } else { ", read-only" };
                write!(f, "mounting {kind} here at {path}{read_only}")?;
                if options.as_str().is_empty() { Ok(()) } else { write!(f, " ({options})") }
            }
            Self::MakeDirectoryHere { path } => write!(f, "making the directory {path} here"),
            Self::ReadOnlyHere { path, .. } => write!(f, "making {path} here read-only"),
            Self::MaskHere { path } => write!(f, "masking {path} here"),
            Self::Mask { at, .. } => write!(f, "masking {at}"),
            Self::ReadOnly { at, .. } => write!(f, "making {at} read-only"),
            Self::SealRoot { root } => write!(f, "making the root {root} read-only"),
            Self::PivotRoot { root } => write!(f, "pivoting to the root {root}"),
            Self::NewSession => f.write_str("starting a session"),
            Self::OpenTerminal { rows, columns, .. } => write!(f, "opening a terminal of {rows} x {columns}"),
            Self::SetUmask { mask } => write!(f, "setting the umask {mask:04o}"),
            Self::NewKeyring => f.write_str("starting a keyring"),
            Self::SetPriority { nice } => write!(f, "setting the nice value {nice}"),
            Self::WorkingDirectory { path } => write!(f, "changing to the working directory {path}"),
            Self::DropBounding { keep } => write!(f, "dropping capabilities for good, except {keep:#x}"),
            Self::SetUser { uid, gid, groups } => {
                write!(f, "becoming user {uid}:{gid}")?;
                match groups {
                    Some(groups) => groups.iter().try_for_each(|group| write!(f, ",{group}")),
                    None => f.write_str(", groups as they are"),
                }
            }
            Self::SetCapabilities { effective, permitted, inheritable, ambient } => {
                write!(f, "setting capabilities {permitted:#x} (ambient {ambient:#x}")?;
                if effective != permitted {
                    write!(f, ", effective {effective:#x}")?;
                }
                if inheritable != ambient {
                    write!(f, ", inheritable {inheritable:#x}")?;
                }
                f.write_str(")")
            }
            Self::SetDomainname { name } => write!(f, "setting the domain name {name}"),
            Self::WriteFile { path, value } => write!(f, "writing {:?} to {path}", value.as_str()),
            Self::SetLimits { limits } => set_limits(f, limits),
            Self::KeepDescriptors { descriptors } => {
                f.write_str("keeping open the descriptors")?;
                descriptors.iter().try_for_each(|fd| write!(f, " {fd}"))
            }
            Self::Mount { kind, at, data, .. } => {
                write!(f, "mounting {kind} at {at}")?;
                if data.as_str().is_empty() { Ok(()) } else { write!(f, " ({data})") }
            }
            Self::ChangeMount { at, change, .. } => write!(f, "changing the mount at {at}: {change}"),
            Self::MakeNode { node, .. } => write!(f, "making the node {}", node.path),
            Self::Console => f.write_str("mounting the terminal at /dev/console"),
            Self::FindProgram { candidates } => match candidates.as_slice() {
                [path] => write!(f, "executing {path}"),
                _ => f.write_str("looking for the program"),
            },
            Self::AwaitStart => f.write_str("waiting for the start"),
            Self::NoNewPrivileges => f.write_str("setting no_new_privs"),
            Self::SetAffinity { cpus } => write!(f, "setting the CPUs {}", Bits(cpus)),
            Self::SetMemoryPolicy { mode, nodes } => {
                write!(f, "setting the memory policy {mode:#x} with the nodes {}", Bits(nodes))
            }
            Self::Schedule(scheduling) => write!(f, "{scheduling}"),
            Self::SetPersonality { personality } => write!(f, "setting the personality {personality:#x}"),
            Self::JoinKeyring { name } => write!(f, "joining the session keyring {name}"),
            Self::OpenAttribute { path, into } => write!(f, "opening {path} as {into}"),
            Self::WriteAttribute { file, value } => write!(f, "writing {value:?} to {file}", value = value.as_str()),
            Self::AwaitHooks { .. } => f.write_str("waiting for the hooks of the host"),
            Self::RunHook { kind, number, call, .. } => write!(f, "running hook #{number} of {kind}: {}", call.path),
            Self::LetGo { .. } => f.write_str("closing all descriptors that are not needed any more"),
            Self::Filter { flags: 0 } => f.write_str("loading the seccomp filter"),
            Self::Filter { flags } => write!(f, "loading the seccomp filter (flags {flags:#x})"),
            Self::BecomeInit => f.write_str("staying as init"),
            Self::Execute(program) => f.write_str("executing ").and_then(|()| match program.candidates.as_slice() {
                [path] => write!(f, "{path}"),
                _ => write!(f, "{}", program.argv.first().map_or("", Text::as_str)),
            }),
        }
    }
}
