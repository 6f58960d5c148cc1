//! From a blueprint to the two lanes of a script.

use super::attributes::Forks;
use super::guard::{self, Guard};
use super::hooks;
use super::layout::{Layout, Step};
use super::ops::{ChildOp, Fresh, HookKind, Idmap, IdmapBy, Limit, Namespaces, Node, ParentOp, Slot, TreeChange};
use super::script::{Lane, Script, ScriptError, Slots, program};
use super::{
    Blueprint, Capabilities, CgroupJoin, ChangeRoot, DeviceNode, ExecPlan, Hook, Hooks, IdExtent, IdMaps, Link,
    MappedBy, Mapping, MountChange, Namespace, NodeKind, Overlay, Process, Propagation, PropagationKind, ResourceLimit,
    Root, Text, Tree,
};

/// Turns what a container is to look like into what is to be done. Pure.
pub fn script(blueprint: &Blueprint) -> Result<Script, ScriptError> {
    // Every field by name: a new one does not compile until it has its place here.
    let Blueprint {
        root,
        mapped_root,
        root_with_mounts,
        read_only_root,
        root_propagation,
        change_root,
        own,
        join,
        ids,
        clocks,
        hostname,
        domainname,
        mounts,
        listed_in_order,
        nodes,
        masked_paths,
        readonly_paths,
        sysctl,
        cgroup,
        process,
        hooks: Hooks { wait: wait_for_hooks, create_container, start_container },
        init,
        wait,
    } = blueprint;
    let joined = |wanted: Namespace| join.iter().find(|(namespace, _)| *namespace == wanted).map(|(_, path)| path);
    let mut lanes = Lanes::new(ids.as_ref(), joined(Namespace::User).map(|path| text(path)).transpose()?);
    let by_child = |namespace: &Namespace| match namespace {
        // Those that would take the right to the others from the parent.
        Namespace::User | Namespace::Mount => true,
        // Out of others' cgroups a delegated hierarchy lets nobody be born into ours (cgroups(7)).
        Namespace::Cgroup => !own.contains(&Namespace::User),
        Namespace::Pid | Namespace::Net | Namespace::Ipc | Namespace::Uts | Namespace::Time => false,
    };
    for (namespace, path) in join {
        // By the parent, and before there is a child: one of a new user namespace has no right to.
        if !by_child(namespace) {
            lanes.parent.push(ParentOp::EnterNamespace { namespace: (*namespace).into(), path: text(path)? });
        }
    }
    if own.contains(&Namespace::Time) {
        lanes.parent.push(ParentOp::NewClocks { offsets: text(clocks)? });
    }
    let forks = *init || !create_container.is_empty() || !start_container.is_empty();
    let forks = if forks { Forks::Yes } else { Forks::No };
    let cgroups =
        joined(Namespace::Cgroup).filter(|_| by_child(&Namespace::Cgroup)).map(|path| text(path)).transpose()?;
    lanes.birth(own, cgroups, ids.as_ref(), cgroup, process, forks)?;
    // Where a hook of the host that enters the mount namespace finds the root.
    let awaits = *wait_for_hooks || !create_container.is_empty() || !start_container.is_empty();
    let root_at = match root {
        Root::Directory { path } if awaits => Some(text(path)?),
        _ => None,
    };
    // What the parent makes for the child.
    let has_mounts = own.contains(&Namespace::Mount) || joined(Namespace::Mount).is_some();
    let (root, grafts) = match root {
        // A copy of its own that is mounted nowhere can be read-only without the host's being so.
        Root::Directory { path } if !has_mounts && !read_only_root => (lanes.directory(path)?, Vec::new()),
        Root::Directory { path } => (lanes.root(path, *mapped_root, *root_with_mounts)?, Vec::new()),
        Root::Overlay { base, grafts } => {
            let root = lanes.overlay(base, *mapped_root)?;
            let graft = |(at, overlay): &(String, Overlay)| {
                let at = text(&format!("/{}", at.trim_start_matches('/')))?;
                Ok((lanes.overlay(overlay, *mapped_root)?, at))
            };
            (root, grafts.iter().map(graft).collect::<Result<Vec<_>, ScriptError>>()?)
        }
    };
    let mut layout = Layout::of(mounts, *listed_in_order);
    lanes.trees(root, &mut layout)?;
    let (bound, made) = lanes.nodes(nodes)?;
    let others = joined(Namespace::Mount).map(|path| lanes.namespace(path)).transpose()?;
    lanes.parent.push(ParentOp::HandOver { slots: lanes.handed.clone() });

    // What the child does while the parent is at work.
    if own.contains(&Namespace::Net) {
        lanes.child.push(ChildOp::Loopback);
    }
    if let Some(name) = hostname {
        lanes.child.push(ChildOp::SetHostname { name: text(name)? });
    }
    if let Some(name) = domainname {
        lanes.child.push(ChildOp::SetDomainname { name: text(name)? });
    }
    lanes.kernels_own(&mut layout)?;
    lanes.child.push(ChildOp::Receive { slots: lanes.handed.clone() });
    if let Some(IdMaps { uids, gids }) = ids {
        lanes.become_root(process, first(uids), first(gids));
    }
    // While `/proc` is still the host's, and as whom the new namespaces belong to.
    let settings = sysctl.iter().map(|(path, value)| Ok(ChildOp::WriteFile { path: text(path)?, value: text(value)? }));
    let mut settings = settings.collect::<Result<Vec<_>, ScriptError>>()?;
    let too_late = if guard::is_out(Guard::HostsProc) { std::mem::take(&mut settings) } else { Vec::new() };
    lanes.child.append(&mut settings);

    lanes.child.extend(others.map(|namespace| ChildOp::JoinMounts { namespace }));
    if has_mounts {
        lanes.child.push(ChildOp::AttachRoot { root, at: root_at });
    }
    for (mount, at) in &grafts {
        let (mount, what, at) = (*mount, text("overlay")?, at.clone());
        lanes.child.push(ChildOp::Attach { root, mount, what, at, link: Link::Follow });
    }
    lanes.mount(root, &layout)?;
    for node in made {
        lanes.child.push(ChildOp::MakeNode { root, node });
    }
    if let Some((nodes, places)) = bound {
        lanes.child.push(ChildOp::AttachNodes { root, nodes });
        for (name, at) in places {
            lanes.child.push(ChildOp::BindNode { root, nodes, name, at });
        }
        lanes.child.push(ChildOp::DetachNodes { nodes });
    }
    for at in &layout.read_only {
        let change = TreeChange { set: READ_ONLY, ..TreeChange::NONE };
        lanes.child.push(ChildOp::ChangeMount { root: Some(root), at: text(at)?, change });
    }
    lanes.hide(root, &layout, masked_paths, readonly_paths)?;
    if *read_only_root {
        if process.cwd != "/" {
            lanes.child.push(ChildOp::MakeWorkingDirectory { root, path: text(&process.cwd)? });
        }
        let trees = std::iter::once(root).chain(grafts.iter().map(|(graft, _)| *graft));
        lanes.child.extend(trees.map(|root| ChildOp::SealRoot { root }));
    }
    let mut own_hooks = Vec::new();
    if awaits {
        let (creating, created) = (lanes.slots.take()?, lanes.slots.take()?);
        lanes.child.push(ChildOp::AwaitHooks { slots: vec![creating, created] });
        lanes.child.extend(calls(HookKind::CreateContainer, create_container, creating, Some(root))?);
        own_hooks = calls(HookKind::StartContainer, start_container, created, None)?;
    }
    if !has_mounts {
        // The only devpts that there is.
        lanes.terminal(process);
    }
    match change_root {
        ChangeRoot::Pivot if own.contains(&Namespace::Mount) => lanes.child.push(ChildOp::PivotRoot { root }),
        ChangeRoot::Cover { hidden } if own.contains(&Namespace::Mount) => {
            for at in hidden {
                lanes.child.push(ChildOp::HideHosts { at: text(at)? });
            }
            lanes.child.push(ChildOp::CoverRoot { root });
        }
        // The mounts are those of others.
        ChangeRoot::Pivot | ChangeRoot::Cover { .. } => lanes.child.push(ChildOp::CoverRoot { root }),
    }
    lanes.child.extend(too_late);
    if let Some(propagation) = root_propagation {
        lanes.child.push(ChildOp::ChangeMount { root: None, at: text("/")?, change: change_of(*propagation) });
    }
    let terminal = if has_mounts { Terminal::Console } else { Terminal::Opened };
    let ends = Ends { terminal, init: *init, wait: *wait, scheduled: ids.is_some(), forks, hooks: own_hooks };
    lanes.finish(process, ends)
}

/// The script of another program in a running container, for [`super::launch_exec`]. Pure.
pub fn exec_script(plan: &ExecPlan) -> Result<Script, ScriptError> {
    let ExecPlan { enter, root, cgroup, process } = plan;
    let mut lanes = Lanes::new(None, None);
    let cgroup2 = cgroup.unified.as_deref().map(text).transpose()?;
    lanes.parent.extend(process.attributes.before());
    lanes.parent.push(ParentOp::Clone { namespaces: Namespaces::NONE, cgroup: cgroup2 });
    let user_namespace = enter.contains(&Namespace::User);
    lanes.early(cgroup, process)?;
    // A right over the host's limits is gone in a user namespace.
    if user_namespace {
        lanes.child.extend(limits(process).map(|limits| ChildOp::SetLimits { limits }));
    }
    lanes.labels = process.attributes.open_labels(&mut lanes.child, &mut lanes.slots)?;
    // Takes rights over the host.
    lanes.child.extend(process.attributes.scheduling(Forks::No).into_iter().map(ChildOp::Schedule));
    let root = match root {
        Some(path) => {
            let into = lanes.slots.take()?;
            lanes.child.push(ChildOp::TakeRoot { path: text(path)?, into });
            Some(into)
        }
        None => None,
    };
    // A child is born into the pid namespace.
    let inside = enter.iter().filter(|namespace| **namespace != Namespace::Pid);
    let namespaces = inside.fold(Namespaces::NONE, |all, namespace| all.with((*namespace).into()));
    if namespaces != Namespaces::NONE {
        lanes.child.push(ChildOp::EnterNamespaces { namespaces });
    }
    lanes.child.extend(root.map(|root| ChildOp::CoverRoot { root }));
    if user_namespace {
        lanes.become_root(process, 0, 0);
    }
    lanes.finish(
        process,
        Ends {
            terminal: Terminal::Plain,
            init: false,
            wait: false,
            scheduled: true,
            forks: Forks::No,
            hooks: Vec::new(),
        },
    )
}

pub(super) fn text(from: &str) -> Result<Text, ScriptError> {
    Ok(Text::try_from(from)?)
}

/// The host's id of an id inside; the host's 0, who is nobody inside, for one that is not mapped.
fn outside(extents: &[IdExtent], id: u32) -> u32 {
    let within = |extent: &IdExtent| {
        let above = id.checked_sub(extent.inside).filter(|above| *above < extent.size)?;
        extent.outside.checked_add(above)
    };
    extents.iter().find_map(within).unwrap_or(0)
}

/// The lowest id inside: 0 where that is mapped.
fn first(extents: &[IdExtent]) -> u32 {
    extents.iter().map(|extent| extent.inside).min().unwrap_or(0)
}

fn raw(node: &DeviceNode, ids: Option<&IdMaps>) -> Result<Node, ScriptError> {
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
    let (uid, gid) = match ids {
        Some(ids) => (outside(&ids.uids, *uid), outside(&ids.gids, *gid)),
        None => (*uid, *gid),
    };
    Ok(Node { path: text(path)?, mode: kind | mode, major, minor, link, uid, gid })
}

fn limits(process: &Process) -> Option<Vec<Limit>> {
    let limit = |limit: &ResourceLimit| Limit { resource: limit.resource, soft: limit.soft, hard: limit.hard };
    (!process.limits.is_empty()).then(|| process.limits.iter().map(limit).collect())
}

fn change_of(Propagation { kind, recursive }: Propagation) -> TreeChange {
    TreeChange { propagation: kind.bits(), recursive, ..TreeChange::NONE }
}

/// How a lane ends.
struct Ends {
    terminal: Terminal,
    init: bool,
    wait: bool,
    /// Scheduling is done by now, or by the parent.
    scheduled: bool,
    forks: Forks,
    /// Run just before the program.
    hooks: Vec<ChildOp>,
}

/// What is to be done about a terminal that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Terminal {
    Plain,
    /// It is the container's `/dev/console`, too.
    Console,
    Opened,
}

/// The slot of a tree of nodes, and names in it with their places in the root.
type BoundNodes = (Slot, Vec<(Text, Text)>);

struct Lanes<'a> {
    parent: Vec<ParentOp>,
    child: Vec<ChildOp>,
    slots: Slots,
    handed: Vec<Slot>,
    mounts: Vec<(Lane, usize, usize)>,
    ids: Option<&'a IdMaps>,
    /// The user namespace that the child joins.
    joined: Option<Text>,
    /// Files that take the process's labels, and the labels.
    labels: Vec<(Slot, String)>,
}

/// The operations of hooks that read what is in `state`, in the directory `at`.
fn calls(kind: HookKind, list: &[Hook], state: Slot, at: Option<Slot>) -> Result<Vec<ChildOp>, ScriptError> {
    let call = |(number, hook)| {
        let call = hooks::call(hook)?;
        Ok(ChildOp::RunHook { kind, number, call, state, at })
    };
    (0..).zip(list).map(call).collect()
}

impl<'a> Lanes<'a> {
    fn new(ids: Option<&'a IdMaps>, joined: Option<Text>) -> Self {
        let (parent, child, handed, mounts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { parent, child, slots: Slots::new(), handed, mounts, ids, joined, labels: Vec::new() }
    }

    fn birth(
        &mut self,
        own: &[Namespace],
        cgroups: Option<Text>,
        ids: Option<&IdMaps>,
        cgroup: &CgroupJoin,
        process: &Process,
        forks: Forks,
    ) -> Result<(), ScriptError> {
        // A pid namespace belongs to the user namespace of who makes it, and so does its proc.
        let succeeds = self.joined.is_some() && own.contains(&Namespace::Pid);
        let at_birth = |namespace: &&Namespace| {
            matches!(namespace, Namespace::User) || matches!(namespace, Namespace::Pid) && !succeeds
        };
        let gather = |all: Namespaces, namespace: &Namespace| all.with((*namespace).into());
        let namespaces = own.iter().filter(at_birth).fold(Namespaces::NONE, gather);
        let cgroup2 = cgroup.unified.as_deref().map(text).transpose()?;
        self.parent.push(ParentOp::Clone { namespaces, cgroup: cgroup2 });
        self.early(cgroup, process)?;
        // Here rather than at the clone, so that it runs beside the parent's work: a network
        // namespace alone takes a quarter of a whole start. After the cgroups: the cgroup namespace's
        // root is where its maker is.
        let later = own.iter().filter(|namespace| !at_birth(namespace) && **namespace != Namespace::Time);
        let later = later.fold(Namespaces::NONE, gather);
        if let Some(path) = cgroups {
            self.child.push(ChildOp::JoinNamespace { namespace: Namespaces::CGROUP, path });
        }
        if let Some(path) = &self.joined {
            self.child.push(ChildOp::JoinNamespace { namespace: Namespaces::USER, path: path.clone() });
        }
        if later != Namespaces::NONE {
            self.child.push(ChildOp::Unshare { namespaces: later });
        }
        if succeeds {
            self.child.push(ChildOp::Succeed);
            self.parent.push(ParentOp::AwaitSuccessor);
        }
        self.labels = process.attributes.open_labels(&mut self.child, &mut self.slots)?;
        if ids.is_some() {
            // The child has no right over the host's limits.
            self.parent.extend(limits(process).map(|limits| ParentOp::SetLimits { limits }));
            self.parent.extend(process.attributes.scheduling(forks).into_iter().map(ParentOp::Schedule));
        }
        match ids {
            Some(_) if self.joined.is_some() => {}
            Some(IdMaps { uids, gids }) => {
                self.parent.push(ParentOp::MapIds { uids: map(uids)?, gids: map(gids)? });
            }
            None if own.contains(&Namespace::Mount) => self.child.push(ChildOp::StopPropagation),
            None => {}
        }
        Ok(())
    }

    /// While still the host's user 0: `/proc/self` belongs to it.
    fn early(&mut self, cgroup: &CgroupJoin, process: &Process) -> Result<(), ScriptError> {
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
        process.attributes.placed(&mut self.child);
        Ok(())
    }

    fn become_root(&mut self, process: &Process, uid: u32, gid: u32) {
        self.child.push(if process.attributes.keep_groups {
            ChildOp::SetUser { uid, gid, groups: None }
        } else {
            ChildOp::BecomeRoot { uid, gid }
        });
    }

    fn root(&mut self, path: &str, mapped: bool, with_mounts: bool) -> Result<Slot, ScriptError> {
        // What the host mounts in it later shows, where what it has mounted before does.
        let kind = if with_mounts { PropagationKind::Slave } else { PropagationKind::Private };
        let propagation = vec![Propagation { kind, recursive: with_mounts }];
        let change = MountChange { propagation, ..MountChange::default() };
        let mapping = mapped.then_some(Mapping { by: MappedBy::Container, recursive: with_mounts });
        let tree = Tree { path: path.to_owned(), recursive: with_mounts, change, mapping, link_itself: false };
        let into = self.tree(&tree)?;
        self.handed.push(into);
        Ok(into)
    }

    fn namespace(&mut self, path: &str) -> Result<Slot, ScriptError> {
        let into = self.slots.take()?;
        self.parent.push(ParentOp::Namespace { path: text(path)?, into });
        self.handed.push(into);
        Ok(into)
    }

    /// Where there are no mounts to take it into.
    fn directory(&mut self, path: &str) -> Result<Slot, ScriptError> {
        let into = self.slots.take()?;
        self.parent.push(ParentOp::Directory { path: text(path)?, into });
        self.handed.push(into);
        Ok(into)
    }

    fn tree(&mut self, tree: &Tree) -> Result<Slot, ScriptError> {
        let Tree { path, recursive, change, mapping, link_itself } = tree;
        let into = self.slots.take()?;
        let mut changes = change.changes();
        if change.propagation.is_empty() {
            // A copy of a shared mount is its peer: what the child mounts in it would show on the host.
            changes.insert(0, change_of(Propagation { kind: PropagationKind::Slave, recursive: true }));
        }
        let idmap = match mapping {
            None => None,
            Some(Mapping { by, recursive }) => {
                let by = match by {
                    MappedBy::Maps(IdMaps { uids, gids }) => IdmapBy::Maps { uids: map(uids)?, gids: map(gids)? },
                    MappedBy::Container => match &self.joined {
                        Some(path) => IdmapBy::Namespace { path: path.clone() },
                        None => IdmapBy::Child,
                    },
                };
                Some(Idmap { by, recursive: *recursive })
            }
        };
        let (path, recursive, link_itself) = (text(path)?, *recursive, *link_itself);
        self.parent.push(ParentOp::Tree { path, recursive, changes, idmap, link_itself, into });
        Ok(into)
    }

    fn overlay(&mut self, overlay: &Overlay, mapped: bool) -> Result<Slot, ScriptError> {
        let Overlay { lower, upper, work } = overlay;
        let mut layers = Vec::new();
        for path in lower {
            let propagation = vec![Propagation { kind: PropagationKind::Private, recursive: false }];
            let change = MountChange { propagation, ..MountChange::default() };
            let mapping = mapped.then_some(Mapping { by: MappedBy::Container, recursive: false });
            let path = path.clone();
            layers.push(self.tree(&Tree { path, recursive: false, change, mapping, link_itself: false })?);
        }
        let into = self.slots.take()?;
        self.parent.push(ParentOp::Overlay { lower: layers, upper: text(upper)?, work: text(work)?, into });
        self.handed.push(into);
        Ok(into)
    }

    /// What is mounted and made by the parent.
    fn trees(&mut self, root: Slot, layout: &mut Layout<'_>) -> Result<(), ScriptError> {
        for (index, (step, slot)) in layout.steps.iter_mut().enumerate() {
            let into = match step {
                Step::Tree { tree, .. } => self.tree(tree)?,
                Step::Devices { at, options, flags, nodes, directories } => {
                    let into = self.slots.take()?;
                    let given = self.options(options)?;
                    let mut inside = Vec::new();
                    for node in *nodes {
                        let path = node.path.strip_prefix(at.as_str()).unwrap_or(&node.path).trim_start_matches('/');
                        inside.push(raw(&DeviceNode { path: path.to_owned(), ..node.clone() }, self.ids)?);
                    }
                    let directories = directories.iter().map(|name| text(name)).collect::<Result<_, _>>()?;
                    self.parent.push(ParentOp::DeviceTree {
                        options: given,
                        flags: *flags,
                        nodes: inside,
                        directories,
                        into,
                    });
                    into
                }
                Step::Copy { at, options, flags, .. } => {
                    let into = self.slots.take()?;
                    let (options, at, flags) = (self.options(options)?, text(at)?, *flags);
                    self.parent.push(ParentOp::Copy { options, flags, root, at, into });
                    into
                }
                // Who copies is the child; to map what it has copied it needs a namespace.
                Step::Again { tree: Tree { mapping: Some(Mapping { by: MappedBy::Maps(maps), .. }), .. }, .. } => {
                    let into = self.slots.take()?;
                    let (uids, gids) = (map(&maps.uids)?, map(&maps.gids)?);
                    self.parent.push(ParentOp::UserNamespace { uids, gids, into });
                    into
                }
                Step::Again { .. }
                | Step::Link { .. }
                | Step::Change { .. }
                | Step::Kernel { .. }
                | Step::Inside { .. }
                | Step::Mount { .. } => continue,
            };
            self.mounts.push((Lane::Parent, self.parent.len() - 1, index));
            self.handed.push(into);
            *slot = Some(into);
        }
        Ok(())
    }

    /// Those of a tmpfs that is the host's, with ids of the host.
    fn options(&self, options: &[(String, String)]) -> Result<Vec<(Text, Text)>, ScriptError> {
        let mut given = vec![(text("source")?, text("tmpfs")?)];
        let ids = self.ids.map(|ids| [("uid", &ids.uids), ("gid", &ids.gids)]).into_iter().flatten();
        let mut ids: Vec<_> = ids.map(|(name, extents)| (name, outside(extents, 0), extents)).collect();
        for (name, value) in options {
            let inside = value.parse().ok().filter(|_| matches!(name.as_str(), "uid" | "gid"));
            match (inside, ids.iter_mut().find(|(of, ..)| of == name)) {
                (Some(inside), Some((_, id, extents))) => *id = outside(extents, inside),
                _ => given.push((text(name)?, text(value)?)),
            }
        }
        for (name, id, _) in ids.iter().filter(|(_, id, _)| *id != 0) {
            given.push((text(name)?, text(&id.to_string())?));
        }
        Ok(given)
    }

    /// Nodes in the root: those that are bound and those that are made.
    fn nodes(&mut self, nodes: &[DeviceNode]) -> Result<(Option<BoundNodes>, Vec<Node>), ScriptError> {
        // A user namespace can't make devices.
        let device = |node: &&DeviceNode| matches!(node.kind, NodeKind::Character { .. } | NodeKind::Block { .. });
        let (devices, others): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| self.ids.is_some() && device(node));
        let own = others.into_iter().map(|node| raw(node, None)).collect::<Result<Vec<_>, _>>()?;
        if devices.is_empty() {
            return Ok((None, own));
        }
        let into = self.slots.take()?;
        let (mut inside, mut places) = (Vec::new(), Vec::new());
        for (number, node) in devices.into_iter().enumerate() {
            let name = number.to_string();
            places.push((text(&name)?, text(&node.path)?));
            inside.push(raw(&DeviceNode { path: name, ..node.clone() }, self.ids)?);
        }
        // nosuid and noexec.
        let (options, flags, directories) = (Vec::new(), 0xa, Vec::new());
        self.parent.push(ParentOp::DeviceTree { options, flags, nodes: inside, directories, into });
        self.handed.push(into);
        Ok((Some((into, places)), own))
    }

    /// Has to come before the pivot: a user namespace is refused a fresh proc or sysfs unless it still
    /// sees one that hides nothing.
    fn kernels_own(&mut self, layout: &mut Layout<'_>) -> Result<(), ScriptError> {
        for (index, (step, slot)) in layout.steps.iter_mut().enumerate() {
            if let Step::Kernel { what, flags, .. } = step {
                let into = self.slots.take()?;
                *slot = Some(into);
                self.mounts.push((Lane::Child, self.child.len(), index));
                self.child.push(ChildOp::Make { what: *what, attributes: u64::from(*flags), into });
            }
        }
        Ok(())
    }

    fn mount(&mut self, root: Slot, layout: &Layout<'_>) -> Result<(), ScriptError> {
        let mut here = None;
        for (index, (step, slot)) in layout.steps.iter().enumerate() {
            let first = self.child.len();
            let what = match step {
                Step::Tree { tree, .. } => &tree.path,
                Step::Devices { .. } => "devices",
                Step::Copy { .. } => "tmpfs",
                Step::Again { tree, .. } => &tree.path,
                Step::Link { to, .. } => to,
                Step::Change { .. } => "",
                Step::Kernel { what: Fresh::Proc, .. } => "proc",
                Step::Kernel { what: Fresh::Sysfs, .. } => "sysfs",
                Step::Inside { kind, .. } | Step::Mount { kind, .. } => kind,
            };
            let (what, slot) = (text(what)?, *slot);
            match (step, slot) {
                (Step::Tree { at, link, .. }, Some(mount)) => {
                    self.child.push(ChildOp::Attach { root, mount, what, at: text(at)?, link: *link });
                }
                (Step::Devices { at, .. }, Some(mount)) => {
                    self.child.push(ChildOp::Attach { root, mount, what, at: text(at)?, link: Link::Follow });
                }
                (Step::Copy { at, change, .. }, Some(mount)) => {
                    self.child.push(ChildOp::Attach { root, mount, what, at: text(at)?, link: Link::Follow });
                    self.change(root, at, change)?;
                }
                (Step::Again { tree: Tree { path, recursive, change, mapping, .. }, at, link }, namespace) => {
                    let into = self.slots.take()?;
                    let changes = change.changes();
                    let idmap = namespace.map(|slot| (slot, mapping.as_ref().is_some_and(|mapping| mapping.recursive)));
                    let path = text(path)?;
                    self.child.push(ChildOp::Copy { root, path, recursive: *recursive, changes, idmap, into });
                    let (mount, at, link) = (into, text(at)?, *link);
                    self.child.push(ChildOp::Attach { root, mount, what, at, link });
                }
                (Step::Change { at, change }, _) => self.change(root, at, change)?,
                (Step::Link { at, .. }, _) => {
                    let (mode, major, minor, uid, gid) = (0, 0, 0, 0, 0);
                    let node = Node { path: text(at)?, mode, major, minor, link: Some(what), uid, gid };
                    self.child.push(ChildOp::MakeNode { root, node });
                }
                // Its place must be no link, or what is mounted over `/proc` would be somewhere else
                // (CVE-2019-19921).
                (Step::Kernel { at, .. }, Some(mount)) => {
                    self.child.push(ChildOp::Attach { root, mount, what, at: text(at)?, link: Link::Refuse });
                }
                (Step::Inside { tree, path, make, source, data, flags, .. }, _) => {
                    self.enter(layout, *tree, &mut here)?;
                    let path = text(path)?;
                    if *make {
                        self.child.push(ChildOp::MakeDirectoryHere { path: path.clone() });
                    }
                    let (source, options) = (text(source)?, text(data)?);
                    self.child.push(ChildOp::MountHere { kind: what, source, path, options, flags: *flags });
                }
                (Step::Mount { at, source, data, flags, change, link, .. }, _) => {
                    here = None;
                    let place = text(at)?;
                    let mode_of_place = what.as_str() == "tmpfs" && flags & REMOUNT == 0 && !has_mode(data);
                    let (source, data, flags, link) = (text(source)?, text(data)?, *flags, *link);
                    let kind = what;
                    self.child.push(ChildOp::Mount { root, kind, source, at: place, data, mode_of_place, flags, link });
                    self.change(root, at, change)?;
                }
                // Each of these has its slot by now.
                (Step::Tree { .. } | Step::Copy { .. } | Step::Devices { .. } | Step::Kernel { .. }, None) => {}
            }
            self.mounts.extend((first..self.child.len()).map(|at| (Lane::Child, at, index)));
        }
        Ok(())
    }

    fn change(&mut self, root: Slot, at: &str, change: &MountChange) -> Result<(), ScriptError> {
        for change in change.changes() {
            self.child.push(ChildOp::ChangeMount { root: Some(root), at: text(at)?, change });
        }
        Ok(())
    }

    /// Goes to one of the trees that nobody else can have changed, unless it is there.
    fn enter(&mut self, layout: &Layout<'_>, tree: usize, here: &mut Option<usize>) -> Result<(), ScriptError> {
        if *here == Some(tree) {
            return Ok(());
        }
        *here = Some(tree);
        if let Some((step, Some(slot))) = layout.steps.get(tree) {
            self.child.push(ChildOp::Enter { tree: *slot, at: text(step.at())? });
        }
        Ok(())
    }

    /// Masks and write protection: in our own proc and sysfs by relative paths, elsewhere by paths
    /// that are resolved inside the root.
    fn hide(
        &mut self,
        root: Slot,
        layout: &Layout<'_>,
        masked: &[String],
        readonly: &[String],
    ) -> Result<(), ScriptError> {
        for (tree, _) in layout.of_the_kernel() {
            let mut here = None;
            let inside = |path: &String| layout.inside(path).filter(|(of, _)| *of == tree).map(|(_, rest)| rest);
            for path in readonly.iter().filter_map(inside) {
                self.enter(layout, tree, &mut here)?;
                self.child.push(ChildOp::ReadOnlyHere { path: text(&path)? });
            }
            for path in masked.iter().filter_map(inside) {
                self.enter(layout, tree, &mut here)?;
                self.child.push(ChildOp::MaskHere { path: text(&path)? });
            }
        }
        for path in readonly.iter().filter(|path| layout.inside(path).is_none()) {
            self.child.push(ChildOp::ReadOnly { root, at: text(path)? });
        }
        for path in masked.iter().filter(|path| layout.inside(path).is_none()) {
            self.child.push(ChildOp::Mask { root, at: text(path)? });
        }
        Ok(())
    }

    fn terminal(&mut self, process: &Process) {
        self.child.push(ChildOp::NewSession);
        if let Some((rows, columns)) = process.terminal {
            self.child.push(ChildOp::OpenTerminal { rows, columns, owner: process.uid, new_line: process.new_line });
        }
    }

    fn finish(mut self, process: &Process, ends: Ends) -> Result<Script, ScriptError> {
        if ends.terminal != Terminal::Opened {
            self.terminal(process);
        }
        if process.terminal.is_some() && ends.terminal == Terminal::Console {
            self.child.push(ChildOp::Console);
        }
        process.attributes.keyring(&mut self.child)?;
        if let Some(nice) = process.nice {
            self.child.push(ChildOp::SetPriority { nice });
        }
        self.child.push(ChildOp::SetUmask { mask: process.umask });
        self.child.push(ChildOp::WorkingDirectory { path: text(&process.cwd)? });
        if !self.child.iter().any(|op| matches!(op, ChildOp::BecomeRoot { .. } | ChildOp::SetUser { .. })) {
            self.child.extend(limits(process).map(|limits| ChildOp::SetLimits { limits }));
        }
        if let Some(personality) = process.attributes.personality {
            self.child.push(ChildOp::SetPersonality { personality });
        }
        for (file, value) in std::mem::take(&mut self.labels) {
            self.child.push(ChildOp::WriteAttribute { file, value: text(&value)? });
        }
        if !ends.scheduled {
            // Late: a process with a deadline can't fork (sched(7)).
            self.child.extend(process.attributes.scheduling(ends.forks).into_iter().map(ChildOp::Schedule));
        }
        let program = program(process)?;
        let mut last = Vec::new();
        if ends.wait {
            // Who creates the container wants to hear of it, not who starts it.
            last.push(ChildOp::FindProgram { candidates: program.candidates.clone() });
            let slot = ends.hooks.iter().find_map(|op| match op {
                ChildOp::RunHook { state, .. } => Some(*state),
                _ => None,
            });
            last.push(ChildOp::LetGo { keep: process.keep_descriptors.clone(), slot });
            last.push(ChildOp::AwaitStart);
        }
        self.restrict(process, last);
        self.child.extend(ends.hooks);
        if ends.init {
            self.child.push(ChildOp::BecomeInit);
        }
        self.child.push(ChildOp::Execute(program));
        Ok(Script { parent: self.parent, child: self.child, mounts: self.mounts })
    }

    /// The last steps, in the only order in which each may still be done. `last` comes as late as it
    /// can without having to be allowed by the filter.
    fn restrict(&mut self, process: &Process, last: Vec<ChildOp>) {
        let Capabilities { bounding, effective, permitted, inheritable, ambient } = process.capabilities;
        let Process { no_new_privileges, seccomp, seccomp_flags: flags, ref attributes, .. } = *process;
        // Needs SETPCAP, which a user other than 0 no longer has.
        self.child.push(ChildOp::DropBounding { keep: bounding });
        let user = ChildOp::SetUser {
            uid: process.uid,
            gid: process.gid,
            groups: (!attributes.keep_groups).then(|| process.groups.clone()),
        };
        let set = ChildOp::SetCapabilities { effective, permitted, inheritable, ambient };
        if seccomp && !no_new_privileges {
            // Without no_new_privs a filter takes SYS_ADMIN (seccomp(2)), so it has to be loaded before.
            self.child.extend(last);
            self.child.extend([ChildOp::Filter { flags }, user, set]);
            return;
        }
        self.child.extend([user, set]);
        self.child.extend(last);
        if no_new_privileges {
            self.child.push(ChildOp::NoNewPrivileges);
        }
        if seccomp {
            self.child.push(ChildOp::Filter { flags });
        }
    }
}

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;

/// `MS_REMOUNT`.
const REMOUNT: u32 = 1 << 5;

/// Among the options of a tmpfs (tmpfs(5)).
fn has_mode(data: &str) -> bool {
    data.split(',').any(|option| option.starts_with("mode="))
}

fn map(extents: &[IdExtent]) -> Result<Text, ScriptError> {
    for IdExtent { inside, outside, size } in extents {
        if *size == 0 || outside.checked_add(*size).is_none() || inside.checked_add(*size).is_none() {
            return Err(ScriptError::Ids(*size, *outside));
        }
    }
    let line = |extent: &IdExtent| format!("{} {} {}\n", extent.inside, extent.outside, extent.size);
    text(&extents.iter().map(line).collect::<String>())
}

impl Namespace {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Pid, Self::Net, Self::Ipc, Self::Uts, Self::Cgroup, Self::Time, Self::Mount];

    /// The `CLONE_NEW*` bit (clone(2)).
    pub fn bit(self) -> u64 {
        Namespaces::from(self).0
    }
}

impl From<Namespace> for Namespaces {
    fn from(namespace: Namespace) -> Self {
        match namespace {
            Namespace::User => Self::USER,
            Namespace::Pid => Self::PID,
            Namespace::Net => Self::NET,
            Namespace::Ipc => Self::IPC,
            Namespace::Uts => Self::UTS,
            Namespace::Cgroup => Self::CGROUP,
            Namespace::Time => Self::TIME,
            Namespace::Mount => Self::MOUNT,
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
        let mut changes: Vec<TreeChange> = propagation.iter().copied().map(change_of).collect();
        for (set, clear, recursive) in [(*set, *clear, false), (*set_all, *clear_all, true)] {
            if (set, clear) == (0, 0) {
                continue;
            }
            match changes.last_mut() {
                // One call does both.
                Some(last) if last.recursive == recursive => (last.set, last.clear) = (set, clear),
                _ => changes.push(TreeChange { set, clear, recursive, ..TreeChange::NONE }),
            }
        }
        changes
    }
}
