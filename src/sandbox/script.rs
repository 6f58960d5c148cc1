//! From a blueprint to a script.

use super::ops::{ChildOp, Fresh, Namespaces, NewLine, ParentOp, Program, Remount, SetIds, Slot};
use super::text::ZeroByte;
use super::{
    BindMount, Blueprint, CgroupJoin, CgroupView, ExecPlan, MountPlan, Overlay, Process, Root, Text, TmpfsMount,
};
use crate::spec::{IdRange, Network};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the parent and the child do, each in its own order, with the points where they meet.
///
/// Printed, it is one operation a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub(super) parent: Vec<ParentOp>,
    pub(super) child: Vec<ChildOp>,
}

/// Why a blueprint can't become a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    #[error(transparent)]
    ZeroByte(#[from] ZeroByte),
    #[error("no command is given")]
    NoCommand,
    #[error("more than {} mounts and layers", Slots::LIMIT)]
    TooManyMounts,
    #[error("{0} ids from {1} on do not fit into the ids of the host")]
    Ids(u32, u32),
}

/// Turns what a container is to look like into what is to be done. Pure.
pub fn script(blueprint: &Blueprint) -> Result<Script, ScriptError> {
    // Every field by name: a new one does not compile until it has its place here.
    let Blueprint {
        root,
        read_only_root,
        ids,
        network,
        hostname,
        mounts,
        masked_paths,
        readonly_paths,
        process,
        capabilities,
        ambient,
        no_new_privileges,
        seccomp,
        init,
        oom_score_adj,
        cgroup,
        cgroup_view,
        stdout: _,
        stderr: _,
    } = blueprint;

    let mut builder = Builder::new(*ids);
    builder.birth(*ids, *network, cgroup, *oom_score_adj)?;
    builder.handed_over(root, *network)?;
    builder.own_namespaces(*ids, *network, hostname)?;
    builder.tree(mounts, cgroup_view)?;
    builder.hide(masked_paths, readonly_paths)?;
    if *read_only_root {
        let trees = std::iter::once(builder.root).chain(builder.grafts.iter().map(|(graft, _)| *graft));
        builder.child.extend(trees.map(|root| ChildOp::SealRoot { root }));
    }
    builder.child.push(ChildOp::PivotRoot { root: builder.root });
    builder.child.push(ChildOp::NewSession);
    builder.identity(process)?;
    let program = program(process)?;
    restrict(
        &mut builder.child,
        process,
        &Privileges::of(*capabilities, *ambient, *no_new_privileges, *seccomp),
        Vec::new(),
    );
    if *init {
        builder.child.push(ChildOp::BecomeInit);
    }
    builder.child.push(ChildOp::Execute(program));
    Ok(Script { parent: builder.parent, child: builder.child })
}

/// The script of another command in a running container.
pub(super) fn exec(plan: &ExecPlan) -> Result<Script, ScriptError> {
    let ExecPlan {
        process,
        capabilities,
        ambient,
        no_new_privileges,
        seccomp,
        oom_score_adj,
        cgroup,
        user_namespace,
        host_network,
        terminal,
    } = plan;
    let cgroup2 = cgroup.unified.as_deref().map(Text::try_from).transpose()?;
    let parent = vec![ParentOp::Clone { namespaces: Namespaces::NONE, cgroup: cgroup2 }];
    let mut child = vec![ChildOp::Seal];
    child.push(ChildOp::SetOomScore { value: oom_score_adj.to_string().try_into()? });
    join(&mut child, cgroup)?;
    let mut namespaces = Namespaces::MOUNT.with(Namespaces::UTS).with(Namespaces::IPC).with(Namespaces::CGROUP);
    if *user_namespace {
        namespaces = namespaces.with(Namespaces::USER);
    }
    if !host_network {
        namespaces = namespaces.with(Namespaces::NET);
    }
    child.push(ChildOp::EnterNamespaces { namespaces });
    if *user_namespace {
        child.push(ChildOp::BecomeRoot);
    }
    child.push(ChildOp::NewSession);
    if let Some((rows, columns)) = *terminal {
        child.push(ChildOp::OpenTerminal { rows, columns, owner: process.uid, new_line: NewLine::WithReturn });
    }
    let mut builder = Builder::new(None);
    builder.child = child;
    builder.identity(process)?;
    let program = program(process)?;
    restrict(
        &mut builder.child,
        process,
        &Privileges::of(*capabilities, *ambient, *no_new_privileges, *seccomp),
        Vec::new(),
    );
    builder.child.push(ChildOp::Execute(program));
    Ok(Script { parent, child: builder.child })
}

/// What the program may do.
pub(super) struct Privileges {
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: bool,
}

impl Privileges {
    /// One mask for all; inheritable is what ambient needs it to be.
    fn of(mask: u64, ambient: u64, no_new_privileges: bool, seccomp: bool) -> Self {
        let ambient = ambient & mask;
        Self {
            bounding: mask,
            effective: mask,
            permitted: mask,
            inheritable: ambient,
            ambient,
            no_new_privileges,
            seccomp,
        }
    }
}

/// The last steps, in the only order in which each may still be done. `last` comes as late as it can
/// without having to be allowed by the filter.
pub(super) fn restrict(child: &mut Vec<ChildOp>, process: &Process, privileges: &Privileges, last: Vec<ChildOp>) {
    let Privileges { bounding, effective, permitted, inheritable, ambient, no_new_privileges, seccomp } = *privileges;
    // Needs SETPCAP, which a user other than 0 no longer has.
    child.push(ChildOp::DropBounding { keep: bounding });
    let user = ChildOp::SetUser { uid: process.uid, gid: process.gid, groups: process.groups.clone() };
    let set = ChildOp::SetCapabilities { effective, permitted, inheritable, ambient };
    if seccomp && !no_new_privileges {
        // Without no_new_privs a filter takes SYS_ADMIN (seccomp(2)), so it has to be loaded before.
        child.extend(last);
        child.extend([ChildOp::Filter, user, set]);
        return;
    }
    child.extend([user, set]);
    child.extend(last);
    if no_new_privileges {
        child.push(ChildOp::NoNewPrivileges);
    }
    if seccomp {
        child.push(ChildOp::Filter);
    }
}

fn join(child: &mut Vec<ChildOp>, cgroup: &CgroupJoin) -> Result<(), ScriptError> {
    for directory in &cgroup.v1 {
        child.push(ChildOp::JoinCgroup { tasks: format!("{directory}/tasks").try_into()? });
    }
    Ok(())
}

pub(super) fn program(process: &Process) -> Result<Program, ScriptError> {
    let name = process.argv.first().ok_or(ScriptError::NoCommand)?;
    let path = process.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates = if name.contains('/') {
        vec![name.as_str().try_into()?]
    } else {
        // An empty element means the working directory to a shell; here it would be a surprise.
        let directories = path.split(':').filter(|directory| !directory.is_empty());
        directories.map(|directory| format!("{directory}/{name}").try_into()).collect::<Result<_, _>>()?
    };
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().try_into()).collect::<Result<Vec<Text>, _>>();
    Ok(Program { candidates, argv: texts(&process.argv)?, env: texts(&process.env)? })
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Descriptors that the parent makes are numbered from 0, as they are handed over in one message,
/// which takes 253 of them at most (unix(7)). The child's own come after.
pub(super) struct Slots {
    next: u8,
}

pub(super) fn slots() -> Slots {
    Slots { next: 0 }
}

impl Slots {
    const LIMIT: u8 = 250;

    pub(super) fn take(&mut self) -> Result<Slot, ScriptError> {
        if self.next >= Self::LIMIT {
            return Err(ScriptError::TooManyMounts);
        }
        self.next += 1;
        Ok(Slot(self.next - 1))
    }
}

struct Builder {
    parent: Vec<ParentOp>,
    child: Vec<ChildOp>,
    slots: Slots,
    /// The host's id of the container's user 0.
    owner: u32,
    idmap: bool,
    root: Slot,
    grafts: Vec<(Slot, Text)>,
    devices: Slot,
    /// The host's `/sys`, where no fresh one is possible.
    host_sysfs: Option<Slot>,
    handed: Vec<Slot>,
    proc: Slot,
    sysfs: Slot,
}

impl Builder {
    fn new(ids: Option<IdRange>) -> Self {
        Self {
            parent: Vec::new(),
            child: Vec::new(),
            slots: Slots { next: 0 },
            owner: ids.map_or(0, |ids| ids.base),
            idmap: ids.is_some(),
            root: Slot(0),
            grafts: Vec::new(),
            devices: Slot(0),
            host_sysfs: None,
            handed: Vec::new(),
            proc: Slot(0),
            sysfs: Slot(0),
        }
    }

    fn birth(
        &mut self,
        ids: Option<IdRange>,
        network: Network,
        cgroup: &CgroupJoin,
        oom_score_adj: i32,
    ) -> Result<(), ScriptError> {
        let cgroup2 = cgroup.unified.as_deref().map(Text::try_from).transpose()?;
        let mut namespaces = Namespaces::PID;
        if let Some(ids) = ids {
            if ids.size == 0 || ids.base.checked_add(ids.size).is_none() {
                return Err(ScriptError::Ids(ids.size, ids.base));
            }
            namespaces = namespaces.with(Namespaces::USER);
        }
        self.parent.push(ParentOp::Clone { namespaces, cgroup: cgroup2 });
        self.child.push(ChildOp::Seal);
        // While still the host's user 0: /proc/self belongs to it.
        self.child.push(ChildOp::SetOomScore { value: oom_score_adj.to_string().try_into()? });
        join(&mut self.child, cgroup)?;
        // Here rather than at the clone, so that it runs beside the parent's work: a network
        // namespace alone takes a quarter of a whole start. After the cgroups: the cgroup namespace's
        // root is where its maker is.
        let mut own = Namespaces::MOUNT.with(Namespaces::UTS).with(Namespaces::IPC).with(Namespaces::CGROUP);
        if network == Network::None {
            own = own.with(Namespaces::NET);
        }
        self.child.push(ChildOp::Unshare { namespaces: own });
        if let Some(IdRange { base, size }) = ids {
            self.parent.push(ParentOp::MapIds { base, size });
        }
        Ok(())
    }

    fn overlay(&mut self, overlay: &Overlay) -> Result<Slot, ScriptError> {
        let mut lower = Vec::new();
        for path in &overlay.lower {
            let into = self.slots.take()?;
            let path = path.as_str().try_into()?;
            self.parent.push(ParentOp::Tree { path, recursive: false, read_only: false, idmap: self.idmap, into });
            lower.push(into);
        }
        let into = self.slots.take()?;
        let upper = overlay.upper.as_str().try_into()?;
        let work = overlay.work.as_str().try_into()?;
        self.parent.push(ParentOp::Overlay { lower, upper, work, into });
        self.handed.push(into);
        Ok(into)
    }

    /// What the parent makes for the child.
    fn handed_over(&mut self, root: &Root, network: Network) -> Result<(), ScriptError> {
        match root {
            Root::Directory { path } => {
                let into = self.slots.take()?;
                let path = path.as_str().try_into()?;
                self.parent.push(ParentOp::Tree { path, recursive: false, read_only: false, idmap: self.idmap, into });
                self.handed.push(into);
                self.root = into;
            }
            Root::Overlay { base, grafts } => {
                self.root = self.overlay(base)?;
                for (at, overlay) in grafts {
                    let slot = self.overlay(overlay)?;
                    self.grafts.push((slot, format!("/{}", at.trim_start_matches('/')).try_into()?));
                }
            }
        }
        self.devices = self.slots.take()?;
        self.parent.push(ParentOp::Devices { owner: self.owner, into: self.devices });
        self.handed.push(self.devices);
        if self.idmap && network == Network::Host {
            // A fresh sysfs shows the network namespace, which then has to be the user namespace's own.
            // Without what the host has mounted in it: its cgroups, the pinned programs of BPF, tracing.
            let into = self.slots.take()?;
            let path = "/sys".try_into()?;
            self.parent.push(ParentOp::Tree { path, recursive: false, read_only: true, idmap: false, into });
            self.handed.push(into);
            self.host_sysfs = Some(into);
        }
        Ok(())
    }

    /// What the child does while the parent is at work.
    fn own_namespaces(&mut self, ids: Option<IdRange>, network: Network, hostname: &str) -> Result<(), ScriptError> {
        if ids.is_none() {
            self.child.push(ChildOp::StopPropagation);
        }
        if network == Network::None {
            self.child.push(ChildOp::Loopback);
        }
        self.child.push(ChildOp::SetHostname { name: hostname.try_into()? });
        Ok(())
    }

    fn tree(&mut self, mounts: &[MountPlan], view: &CgroupView) -> Result<(), ScriptError> {
        let root = self.root;
        let mut binds = Vec::new();
        for mount in mounts {
            if let MountPlan::Bind(BindMount { from, at: _, read_only }) = mount {
                let into = self.slots.take()?;
                let path = from.as_str().try_into()?;
                let tree = ParentOp::Tree { path, recursive: true, read_only: *read_only, idmap: self.idmap, into };
                self.parent.push(tree);
                self.handed.push(into);
                binds.push(into);
            }
        }
        self.parent.push(ParentOp::HandOver { slots: self.handed.clone() });

        self.proc = self.slots.take()?;
        self.child.push(ChildOp::Make { what: Fresh::Proc, into: self.proc });
        self.sysfs = match self.host_sysfs {
            Some(slot) => slot,
            None => {
                let into = self.slots.take()?;
                self.child.push(ChildOp::Make { what: Fresh::Sysfs, into });
                into
            }
        };
        self.child.push(ChildOp::Receive { slots: self.handed.clone() });
        if self.idmap {
            self.child.push(ChildOp::BecomeRoot);
        }
        self.child.push(ChildOp::AttachRoot { root });
        for (mount, at) in &self.grafts {
            self.child.push(ChildOp::Attach { root, mount: *mount, what: "overlay".try_into()?, at: at.clone() });
        }
        for (mount, what, at) in
            [(self.proc, "proc", "/proc"), (self.sysfs, "sysfs", "/sys"), (self.devices, "devices", "/dev")]
        {
            self.child.push(ChildOp::Attach { root, mount, what: what.try_into()?, at: at.try_into()? });
        }
        self.devices()?;
        self.cgroups(view)?;
        let mut binds = binds.into_iter();
        for mount in mounts {
            match mount {
                MountPlan::Bind(BindMount { from, at, read_only: _ }) => {
                    if let Some(mount) = binds.next() {
                        let (what, at) = (from.as_str().try_into()?, at.as_str().try_into()?);
                        self.child.push(ChildOp::Attach { root, mount, what, at });
                    }
                }
                MountPlan::Tmpfs(TmpfsMount { at, size_bytes, read_only, mode }) => self.child.push(ChildOp::Tmpfs {
                    root,
                    at: at.as_str().try_into()?,
                    options: format!("size={size_bytes},mode={mode:o}").try_into()?,
                    read_only: *read_only,
                }),
            }
        }
        Ok(())
    }

    fn here(
        &mut self,
        kind: &str,
        path: &str,
        options: &str,
        read_only: bool,
        set_ids: SetIds,
    ) -> Result<(), ScriptError> {
        let (kind, path, options) = (kind.try_into()?, path.try_into()?, options.try_into()?);
        self.child.push(ChildOp::MountHere { kind, path, options, read_only, set_ids });
        Ok(())
    }

    fn devices(&mut self) -> Result<(), ScriptError> {
        self.child.push(ChildOp::Enter { tree: self.devices, at: "/dev".try_into()? });
        self.here("devpts", "pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", false, SetIds::Devices)?;
        self.here("tmpfs", "shm", "mode=1777,size=65536k", false, SetIds::Nothing)?;
        self.here("mqueue", "mqueue", "", false, SetIds::Nothing)
    }

    fn cgroups(&mut self, view: &CgroupView) -> Result<(), ScriptError> {
        let enter = ChildOp::Enter { tree: self.sysfs, at: "/sys".try_into()? };
        let at = "fs/cgroup";
        match view {
            CgroupView::Nothing => {}
            CgroupView::Unified => {
                self.child.push(enter);
                self.here("cgroup2", at, "", true, SetIds::Nothing)?;
            }
            CgroupView::V1(hierarchies) => {
                self.child.push(enter);
                self.here("tmpfs", at, "mode=755,size=64k", false, SetIds::Nothing)?;
                for controllers in hierarchies {
                    let path = format!("{at}/{}", controllers.strip_prefix("name=").unwrap_or(controllers));
                    self.child.push(ChildOp::MakeDirectoryHere { path: path.as_str().try_into()? });
                    self.here("cgroup", &path, controllers, true, SetIds::Nothing)?;
                }
                self.child.push(ChildOp::ReadOnlyHere { path: at.try_into()?, kind: Remount::InPlace });
            }
        }
        Ok(())
    }

    /// Masks and write protection: in our own proc and sysfs by relative paths, elsewhere by paths
    /// that are resolved inside the root.
    fn hide(&mut self, masked: &[String], readonly: &[String]) -> Result<(), ScriptError> {
        for (tree, prefix) in [(self.proc, "/proc"), (self.sysfs, "/sys")] {
            let inside = |path: &&String| below(path, prefix).is_some();
            if !masked.iter().chain(readonly).any(|path| inside(&path)) {
                continue;
            }
            self.child.push(ChildOp::Enter { tree, at: prefix.try_into()? });
            for path in readonly.iter().filter_map(|path| below(path, prefix)) {
                self.child.push(ChildOp::ReadOnlyHere { path: path.try_into()?, kind: Remount::Bind });
            }
            for path in masked.iter().filter_map(|path| below(path, prefix)) {
                self.child.push(ChildOp::MaskHere { path: path.try_into()? });
            }
        }
        let elsewhere = |path: &&String| below(path, "/proc").is_none() && below(path, "/sys").is_none();
        for path in readonly.iter().filter(elsewhere) {
            self.child.push(ChildOp::ReadOnly { root: self.root, at: path.as_str().try_into()? });
        }
        for path in masked.iter().filter(elsewhere) {
            self.child.push(ChildOp::Mask { root: self.root, at: path.as_str().try_into()? });
        }
        Ok(())
    }

    fn identity(&mut self, process: &Process) -> Result<(), ScriptError> {
        self.child.extend([
            ChildOp::NewKeyring,
            ChildOp::SetPriority { nice: 0 },
            ChildOp::SetUmask { mask: process.umask },
            ChildOp::WorkingDirectory { path: process.cwd.as_str().try_into()? },
        ]);
        Ok(())
    }
}

/// The part of `path` below `prefix`, without a slash in front; nothing for a path with dots.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?.strip_prefix('/')?;
    let plain = rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then_some(rest)
}

/// What came of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Its program runs.
    Executed,
    /// It is ready and waits for its start.
    Waiting,
    /// It ended before, and says why.
    Failed(Failure),
    /// It ended before, and could not say why: somebody killed it.
    Ended,
}

/// Where and why a lane stopped. [`Script::explain`] has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub lane: Lane,
    pub operation: u32,
    pub errno: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lane {
    Parent,
    Child,
}

/// What is wrong with a program that can't be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// There is none, or none of the interpreter that it names.
    Missing,
    /// It is there, and is no program or not one for this user.
    NotExecutable,
}

impl Script {
    /// Whether the program is what the failure is about.
    pub fn unfit(&self, failure: &Failure) -> Option<Unfit> {
        let position = usize::try_from(failure.operation).unwrap_or(usize::MAX);
        let executes = matches!(self.child.get(position), Some(ChildOp::Execute(_)));
        if failure.lane == Lane::Parent || !executes {
            return None;
        }
        match failure.errno {
            libc::ENOENT => Some(Unfit::Missing),
            libc::EACCES | libc::ENOEXEC | libc::EPERM | libc::ELOOP | libc::ETXTBSY | libc::ELIBBAD => {
                Some(Unfit::NotExecutable)
            }
            // No memory, too long a list of arguments: it says nothing about the program.
            _ => None,
        }
    }

    /// "executing /bin/nope: No such file or directory"
    pub fn explain(&self, failure: &Failure) -> String {
        let position = usize::try_from(failure.operation).unwrap_or(usize::MAX);
        let words = match failure.lane {
            Lane::Parent => self.parent.get(position).map(ToString::to_string),
            Lane::Child => self.child.get(position).map(|op| self.words(position, op)),
        };
        let words = words.unwrap_or_else(|| format!("operation {position}, which this script does not have"));
        let error = std::io::Error::from_raw_os_error(failure.errno).to_string();
        let error = error.split(" (os error").next().unwrap_or_default();
        if let (Lane::Parent, Some(ParentOp::Tree { idmap: true, .. }), libc::EINVAL) =
            (failure.lane, self.parent.get(position), failure.errno)
        {
            return format!("{words}: this kernel has no id-mapped mounts of its file system");
        }
        match self.child.get(position) {
            Some(ChildOp::Execute(_) | ChildOp::FindProgram { .. }) if failure.lane == Lane::Child => {
                match self.child.last() {
                    Some(ChildOp::Execute(program)) => explain_execute(program, failure.errno, error),
                    _ => format!("{words}: {error}"),
                }
            }
            Some(ChildOp::WorkingDirectory { .. }) if failure.lane == Lane::Child && failure.errno == libc::EXDEV => {
                format!("{words}: it is outside of the container")
            }
            _ => format!("{words}: {error}"),
        }
    }

    /// Words for what the child does once it has been started: position and operation, for who
    /// starts it and no longer has the script.
    pub fn after_start(&self) -> Vec<(u32, String)> {
        let ops = self.child.iter().enumerate().skip_while(|(_, op)| !matches!(op, ChildOp::AwaitStart));
        ops.filter_map(|(at, op)| Some((u32::try_from(at).ok()?, op.to_string()))).collect()
    }

    /// The operation's words, with the place that "here" means.
    fn words(&self, position: usize, op: &ChildOp) -> String {
        let place = self.child.iter().take(position).rev().find_map(|op| match op {
            ChildOp::Enter { at, .. } => Some(at.as_str()),
            _ => None,
        });
        match (op, place) {
            (
                ChildOp::MountHere { .. }
                | ChildOp::MakeDirectoryHere { .. }
                | ChildOp::ReadOnlyHere { .. }
                | ChildOp::MaskHere { .. },
                Some(place),
            ) => op.to_string().replace(" here", &format!(" in {place}")),
            _ => op.to_string(),
        }
    }
}

fn explain_execute(program: &Program, errno: i32, error: &str) -> String {
    let name = program.argv.first().map_or("", Text::as_str);
    if program.candidates.len() != 1 && errno == libc::ENOENT {
        let places = program.candidates.iter().filter_map(|path| path.as_str().rsplit_once('/'));
        let places = places.map(|(directory, _)| directory).collect::<Vec<_>>().join(":");
        return format!("executing {name}: there is no such program in {places}");
    }
    match program.candidates.as_slice() {
        [path] => format!("executing {path}: {error}"),
        _ => format!("executing {name}: {error}"),
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, op) in self.parent.iter().enumerate() {
            writeln!(f, "parent {number:>3}  {op}")?;
        }
        for (number, op) in self.child.iter().enumerate() {
            writeln!(f, "child  {number:>3}  {op}")?;
        }
        Ok(())
    }
}
