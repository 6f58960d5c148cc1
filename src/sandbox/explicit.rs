//! A container of which everything is said: nothing is mounted, mapped or limited that is not listed.
//!
//! Where a [`super::Blueprint`] has one good way for each thing, this has all that a `config.json` of
//! the OCI can ask for. Both become a [`Script`] of the same operations.

use super::guard::{self, Guard};
use super::ops::{ChildOp, Limit, Namespaces, NewLine, Node, ParentOp, Program, Slot, TreeChange};
use super::script::{Privileges, program, restrict, slots};
use super::{CgroupJoin, Process, Script, ScriptError, Text};

/// What a container is to look like, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explicit {
    /// A directory of the host.
    pub root: String,
    pub read_only_root: bool,
    /// Of the root mount, once it is the root; a slave of the host's when nothing is said.
    pub root_propagation: Option<Propagation>,
    /// Namespaces of its own. A mount namespace is always among them.
    pub own: Vec<Namespace>,
    /// Namespaces of others, by the files that stand for them.
    pub join: Vec<(Namespace, String)>,
    pub ids: Option<IdMaps>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// In the order of mounting.
    pub mounts: Vec<ExplicitMount>,
    /// Nodes in the root itself; those of a `/dev` of its own are in [`ExplicitMount::Devices`].
    pub nodes: Vec<DeviceNode>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Files below `/proc/sys` and what is written to them.
    pub sysctl: Vec<(String, String)>,
    pub cgroup: CgroupJoin,
    pub process: ExplicitProcess,
    /// The child waits before its program; see [`super::start`].
    pub wait: bool,
}

/// The program of a container, or another one in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitProcess {
    pub process: Process,
    pub limits: Vec<ResourceLimit>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: bool,
    /// `None` keeps that of who starts it.
    pub oom_score_adj: Option<i32>,
    /// Rows and columns of a terminal made in the container.
    pub terminal: Option<(u16, u16)>,
    /// So many descriptors from 3 on stay open.
    pub keep_descriptors: Vec<u32>,
}

/// Another program in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplicitExec {
    /// Where the container is not in the host's own.
    pub enter: Vec<Namespace>,
    pub cgroup: CgroupJoin,
    pub process: ExplicitProcess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    User,
    Pid,
    Net,
    Ipc,
    Uts,
    Cgroup,
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplicitMount {
    /// A tree of the host.
    Bind { from: String, at: String, recursive: bool, change: MountChange },
    /// A file system that is mounted in the container. `flags` are those of mount(2).
    Fresh { kind: String, source: String, at: String, data: String, flags: u32, change: MountChange },
    /// A tmpfs with device nodes, made by the host. `options` are those of tmpfs(5).
    Devices { at: String, options: Vec<(String, String)>, flags: u32, nodes: Vec<DeviceNode> },
    /// What is mounted there already becomes read-only.
    Protect { at: String },
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

impl Namespace {
    /// The `CLONE_NEW*` bit (clone(2)).
    pub fn bit(self) -> u64 {
        self.set().0
    }

    fn set(self) -> Namespaces {
        match self {
            Self::User => Namespaces::USER,
            Self::Pid => Namespaces::PID,
            Self::Net => Namespaces::NET,
            Self::Ipc => Namespaces::IPC,
            Self::Uts => Namespaces::UTS,
            Self::Cgroup => Namespaces::CGROUP,
            Self::Mount => Namespaces::MOUNT,
        }
    }
}

impl PropagationKind {
    /// `MS_*` bits, which mount_setattr(2) takes too.
    fn bits(self) -> u64 {
        match self {
            Self::Private => 1 << 18,
            Self::Slave => 1 << 19,
            Self::Shared => 1 << 20,
            Self::Unbindable => 1 << 17,
        }
    }
}

impl MountChange {
    fn changes(&self) -> Vec<TreeChange> {
        let Self { set, clear, set_all, clear_all, propagation } = self;
        let mut changes = Vec::new();
        for kind in propagation {
            let change = TreeChange { propagation: kind.kind.bits(), recursive: kind.recursive, ..TreeChange::NONE };
            changes.push(change);
        }
        if (*set, *clear) != (0, 0) {
            changes.push(TreeChange { set: *set, clear: *clear, ..TreeChange::NONE });
        }
        if (*set_all, *clear_all) != (0, 0) {
            changes.push(TreeChange { set: *set_all, clear: *clear_all, recursive: true, ..TreeChange::NONE });
        }
        changes
    }
}

/// Turns it into what is to be done. Pure.
pub fn explicit_script(wish: &Explicit) -> Result<Script, ScriptError> {
    // Every field by name: a new one does not compile until it has its place here.
    let Explicit {
        root,
        read_only_root,
        root_propagation,
        own,
        join,
        ids,
        hostname,
        domainname,
        mounts,
        nodes,
        masked_paths,
        readonly_paths,
        sysctl,
        cgroup,
        process,
        wait,
    } = wish;
    let mut lanes = Lanes { parent: Vec::new(), child: Vec::new(), slots: slots(), handed: Vec::new() };
    let owner = ids.as_ref().map_or((0, 0), |ids| (outside(&ids.uids), outside(&ids.gids)));
    lanes.birth(own, join, ids.as_ref(), cgroup, process)?;

    let root = lanes.root(root)?;
    let trees = lanes.trees(mounts, owner)?;
    lanes.parent.push(ParentOp::HandOver { slots: lanes.handed.clone() });

    lanes.names(own, hostname.as_deref(), domainname.as_deref())?;
    lanes.child.push(ChildOp::Receive { slots: lanes.handed.clone() });
    if ids.is_some() {
        lanes.child.push(ChildOp::BecomeRoot);
    }
    // While `/proc` is still the host's, and as whom the new namespaces belong to.
    let settings = sysctl.iter().map(|(path, value)| Ok(ChildOp::WriteFile { path: text(path)?, value: text(value)? }));
    let mut settings = settings.collect::<Result<Vec<_>, ScriptError>>()?;
    let too_late = if guard::is_out(Guard::HostsProc) { std::mem::take(&mut settings) } else { Vec::new() };
    lanes.child.append(&mut settings);
    lanes.child.push(ChildOp::AttachRoot { root });
    lanes.mount(root, mounts, &trees)?;
    for node in nodes {
        lanes.child.push(ChildOp::MakeNode { root, node: raw(node, (0, 0))? });
    }
    lanes.hide(root, masked_paths, readonly_paths)?;
    if *read_only_root {
        lanes.child.push(ChildOp::SealRoot { root });
    }
    lanes.child.push(ChildOp::PivotRoot { root });
    lanes.child.extend(too_late);
    if let Some(Propagation { kind, recursive }) = root_propagation {
        let change = TreeChange { propagation: kind.bits(), recursive: *recursive, ..TreeChange::NONE };
        lanes.child.push(ChildOp::ChangeMount { root: None, at: text("/")?, change });
    }
    lanes.finish(process, *wait)
}

/// The script of another program in a running container. Pure.
pub fn explicit_exec_script(wish: &ExplicitExec) -> Result<Script, ScriptError> {
    let ExplicitExec { enter, cgroup, process } = wish;
    let mut lanes = Lanes { parent: Vec::new(), child: Vec::new(), slots: slots(), handed: Vec::new() };
    let cgroup2 = cgroup.unified.as_deref().map(text).transpose()?;
    lanes.parent.push(ParentOp::Clone { namespaces: Namespaces::NONE, cgroup: cgroup2 });
    lanes.early(cgroup, process, enter.contains(&Namespace::User))?;
    let inside = enter.iter().filter(|namespace| **namespace != Namespace::Pid);
    let namespaces = inside.fold(Namespaces::NONE, |all, namespace| all.with(namespace.set()));
    lanes.child.push(ChildOp::EnterNamespaces { namespaces });
    if enter.contains(&Namespace::User) {
        lanes.child.push(ChildOp::BecomeRoot);
    }
    lanes.finish(process, false)
}

fn text(from: &str) -> Result<Text, ScriptError> {
    Ok(Text::try_from(from)?)
}

/// The host's id of user or group 0 inside.
fn outside(extents: &[IdExtent]) -> u32 {
    extents.iter().find(|extent| extent.inside == 0).map_or(0, |extent| extent.outside)
}

fn raw(node: &DeviceNode, owner: (u32, u32)) -> Result<Node, ScriptError> {
    /// `S_IF*` of inode(7).
    const CHARACTER: u32 = 0o020_000;
    const BLOCK: u32 = 0o060_000;
    const FIFO: u32 = 0o010_000;
    let DeviceNode { path, kind, mode, uid, gid } = node;
    let (kind, major, minor, link) = match kind {
        NodeKind::Character { major, minor } => (CHARACTER, *major, *minor, None),
        NodeKind::Block { major, minor } => (BLOCK, *major, *minor, None),
        NodeKind::Fifo => (FIFO, 0, 0, None),
        NodeKind::Link { to } => (0, 0, 0, Some(text(to)?)),
    };
    Ok(Node { path: text(path)?, mode: kind | mode, major, minor, link, uid: owner.0 + uid, gid: owner.1 + gid })
}

struct Lanes {
    parent: Vec<ParentOp>,
    child: Vec<ChildOp>,
    slots: super::script::Slots,
    handed: Vec<Slot>,
}

impl Lanes {
    fn birth(
        &mut self,
        own: &[Namespace],
        join: &[(Namespace, String)],
        ids: Option<&IdMaps>,
        cgroup: &CgroupJoin,
        process: &ExplicitProcess,
    ) -> Result<(), ScriptError> {
        // By the parent, and before there is a child: one of a new user namespace has no right to.
        for (namespace, path) in join {
            self.parent.push(ParentOp::EnterNamespace { namespace: namespace.set(), path: text(path)? });
        }
        let at_birth = |namespace: &&Namespace| matches!(namespace, Namespace::User | Namespace::Pid);
        let gather = |all: Namespaces, namespace: &Namespace| all.with(namespace.set());
        let namespaces = own.iter().filter(at_birth).fold(Namespaces::NONE, gather);
        let cgroup2 = cgroup.unified.as_deref().map(text).transpose()?;
        self.parent.push(ParentOp::Clone { namespaces, cgroup: cgroup2 });
        self.early(cgroup, process, ids.is_some())?;
        let later = own.iter().filter(|namespace| !at_birth(namespace)).fold(Namespaces::MOUNT, gather);
        self.child.push(ChildOp::Unshare { namespaces: later });
        match ids {
            Some(IdMaps { uids, gids }) => {
                self.parent.push(ParentOp::WriteIdMaps { uids: map(uids)?, gids: map(gids)? });
            }
            None => self.child.push(ChildOp::StopPropagation),
        }
        Ok(())
    }

    /// While still the host's user 0.
    fn early(
        &mut self,
        cgroup: &CgroupJoin,
        process: &ExplicitProcess,
        user_namespace: bool,
    ) -> Result<(), ScriptError> {
        self.child.push(ChildOp::Seal);
        if !process.keep_descriptors.is_empty() {
            self.child.push(ChildOp::KeepDescriptors { descriptors: process.keep_descriptors.clone() });
        }
        if let Some(value) = process.oom_score_adj {
            self.child.push(ChildOp::SetOomScore { value: text(&value.to_string())? });
        }
        for directory in &cgroup.v1 {
            self.child.push(ChildOp::JoinCgroup { tasks: text(&format!("{directory}/tasks"))? });
        }
        // A right over the host's limits is gone in a user namespace.
        if user_namespace {
            self.limits(process);
        }
        Ok(())
    }

    fn limits(&mut self, process: &ExplicitProcess) {
        if !process.limits.is_empty() {
            let limit = |limit: &ResourceLimit| Limit { resource: limit.resource, soft: limit.soft, hard: limit.hard };
            self.child.push(ChildOp::SetLimits { limits: process.limits.iter().map(limit).collect() });
        }
    }

    fn root(&mut self, path: &str) -> Result<Slot, ScriptError> {
        let into = self.slots.take()?;
        let slave = TreeChange { propagation: PropagationKind::Slave.bits(), recursive: true, ..TreeChange::NONE };
        self.parent.push(ParentOp::Bind { path: text(path)?, recursive: true, changes: vec![slave], into });
        self.handed.push(into);
        Ok(into)
    }

    /// What the parent makes; one place per mount that has something.
    fn trees(&mut self, mounts: &[ExplicitMount], owner: (u32, u32)) -> Result<Vec<Option<Slot>>, ScriptError> {
        let mut trees = Vec::new();
        for mount in mounts {
            let op = match mount {
                ExplicitMount::Bind { from, at: _, recursive, change } => {
                    let into = self.slots.take()?;
                    let mut changes = change.changes();
                    if change.propagation.is_empty() {
                        let propagation = PropagationKind::Slave.bits();
                        changes.insert(0, TreeChange { propagation, recursive: true, ..TreeChange::NONE });
                    }
                    Some((ParentOp::Bind { path: text(from)?, recursive: *recursive, changes, into }, into))
                }
                ExplicitMount::Devices { at, options, flags, nodes } => {
                    let into = self.slots.take()?;
                    let mut given = vec![(text("source")?, text("tmpfs")?)];
                    for (name, value) in options {
                        given.push((text(name)?, text(value)?));
                    }
                    if owner != (0, 0) {
                        given.push((text("uid")?, text(&owner.0.to_string())?));
                        given.push((text("gid")?, text(&owner.1.to_string())?));
                    }
                    let mut inside = Vec::new();
                    for node in nodes {
                        let path = node.path.strip_prefix(at.as_str()).unwrap_or(&node.path).trim_start_matches('/');
                        inside.push(raw(&DeviceNode { path: path.to_owned(), ..node.clone() }, owner)?);
                    }
                    Some((ParentOp::DeviceTree { options: given, flags: *flags, nodes: inside, into }, into))
                }
                ExplicitMount::Fresh { .. } | ExplicitMount::Protect { .. } => None,
            };
            trees.push(op.map(|(op, into)| {
                self.parent.push(op);
                self.handed.push(into);
                into
            }));
        }
        Ok(trees)
    }

    fn names(
        &mut self,
        own: &[Namespace],
        hostname: Option<&str>,
        domainname: Option<&str>,
    ) -> Result<(), ScriptError> {
        if own.contains(&Namespace::Net) {
            self.child.push(ChildOp::Loopback);
        }
        if let Some(name) = hostname {
            self.child.push(ChildOp::SetHostname { name: text(name)? });
        }
        if let Some(name) = domainname {
            self.child.push(ChildOp::SetDomainname { name: text(name)? });
        }
        Ok(())
    }

    fn mount(&mut self, root: Slot, mounts: &[ExplicitMount], trees: &[Option<Slot>]) -> Result<(), ScriptError> {
        for (mount, tree) in mounts.iter().zip(trees) {
            match (mount, tree) {
                (ExplicitMount::Bind { from, at, .. }, Some(tree)) => {
                    self.child.push(ChildOp::Attach { root, mount: *tree, what: text(from)?, at: text(at)? });
                }
                (ExplicitMount::Devices { at, .. }, Some(tree)) => {
                    self.child.push(ChildOp::Attach { root, mount: *tree, what: text("devices")?, at: text(at)? });
                }
                (ExplicitMount::Fresh { kind, source, at, data, flags, change }, _) => {
                    let (kind, source, data) = (text(kind)?, text(source)?, text(data)?);
                    self.child.push(ChildOp::Mount { root, kind, source, at: text(at)?, data, flags: *flags });
                    for change in change.changes() {
                        self.child.push(ChildOp::ChangeMount { root: Some(root), at: text(at)?, change });
                    }
                }
                (ExplicitMount::Protect { at }, _) => {
                    let change = TreeChange { set: READ_ONLY, ..TreeChange::NONE };
                    self.child.push(ChildOp::ChangeMount { root: Some(root), at: text(at)?, change });
                }
                (ExplicitMount::Bind { .. } | ExplicitMount::Devices { .. }, None) => {}
            }
        }
        Ok(())
    }

    fn hide(&mut self, root: Slot, masked: &[String], readonly: &[String]) -> Result<(), ScriptError> {
        for path in readonly {
            self.child.push(ChildOp::ReadOnly { root, at: text(path)? });
        }
        for path in masked {
            self.child.push(ChildOp::Mask { root, at: text(path)? });
        }
        Ok(())
    }

    fn finish(mut self, wish: &ExplicitProcess, wait: bool) -> Result<Script, ScriptError> {
        let ExplicitProcess { process, capabilities, no_new_privileges, seccomp, terminal, .. } = wish;
        self.child.push(ChildOp::NewSession);
        if let Some((rows, columns)) = *terminal {
            self.child.push(ChildOp::OpenTerminal { rows, columns, owner: process.uid, new_line: NewLine::Bare });
            self.child.push(ChildOp::Console);
        }
        self.child.extend([
            ChildOp::NewKeyring,
            ChildOp::SetUmask { mask: process.umask },
            ChildOp::WorkingDirectory { path: text(&process.cwd)? },
        ]);
        if !self.child.iter().any(|op| matches!(op, ChildOp::BecomeRoot)) {
            self.limits(wish);
        }
        let program: Program = program(process)?;
        let mut last = Vec::new();
        if wait {
            // Who creates the container wants to hear of it, not who starts it.
            last.push(ChildOp::FindProgram { candidates: program.candidates.clone() });
            last.push(ChildOp::AwaitStart);
        }
        let privileges = Privileges {
            bounding: capabilities.bounding,
            effective: capabilities.effective,
            permitted: capabilities.permitted,
            inheritable: capabilities.inheritable,
            ambient: capabilities.ambient,
            no_new_privileges: *no_new_privileges,
            seccomp: *seccomp,
        };
        restrict(&mut self.child, process, &privileges, last);
        self.child.push(ChildOp::Execute(program));
        Ok(Script { parent: self.parent, child: self.child })
    }
}

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

fn map(extents: &[IdExtent]) -> Result<Text, ScriptError> {
    for IdExtent { outside, size, .. } in extents {
        if *size == 0 || outside.checked_add(*size).is_none() {
            return Err(ScriptError::Ids(*size, *outside));
        }
    }
    let line = |extent: &IdExtent| format!("{} {} {}\n", extent.inside, extent.outside, extent.size);
    text(&extents.iter().map(line).collect::<String>())
}
