//! The child's lane.
//!
//! This runs between `clone` and `execve`, in a copy of its parent's memory: nothing here allocates,
//! takes a lock, logs or panics, and nothing is dropped but descriptors. Errors are an operation's
//! position and an errno; the words are the parent's to find.

use super::guard::{self, Guard};
use super::launch::{Io, LISTENER, SUCCESSOR, Stdio};
use super::ops::{ChildOp, Fresh, HookCall, Limit, Namespaces, Node, Scheduling, Slot, TreeChange};
use super::{Text, hooks, init, path, terminal};
use crate::sys::{self, Errno, Instruction, MountChange};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags};
use rustix::process::{Gid, Uid};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

/// One descriptor per [`Slot`].
pub(super) type Table = [Option<OwnedFd>; 256];

/// Everything that the child needs, made before it exists.
pub(super) struct Child<'a> {
    pub(super) ops: &'a [ChildOp],
    pub(super) argv: &'a sys::Pointers<'a>,
    pub(super) env: &'a sys::Pointers<'a>,
    /// Of the hooks among the operations, in their order.
    pub(super) hooks: &'a [hooks::Prepared<'a>],
    pub(super) filter: &'a [Instruction],
    pub(super) io: Io<'a>,
    /// Our end of the socket pair; closing it tells the parent that we have become the program.
    pub(super) channel: BorrowedFd<'a>,
    /// The parent's end, to be closed here.
    pub(super) parent_end: BorrowedFd<'a>,
    /// Where our parent's arguments are to be seen, if that is known.
    pub(super) arguments: Option<sys::Arguments>,
    /// Signals that our parent ignores.
    pub(super) ignored: u64,
    /// A pidfd of the container to enter.
    pub(super) target: Option<BorrowedFd<'a>>,
    /// Where a child that waits for its start listens.
    pub(super) listener: Option<BorrowedFd<'a>>,
    /// The parts of the program, for a child that waits.
    pub(super) program: &'a [sys::Mapping],
    /// Who has started it, and takes the parent's place.
    pub(super) starter: Option<OwnedFd>,
    pub(super) table: Table,
    /// Where the last node was made, while nothing else is done.
    pub(super) near: Option<Near<'a>>,
    /// An empty read-only directory, made when the first directory is masked.
    pub(super) empty: Option<OwnedFd>,
    /// From here on calls may be refused.
    pub(super) filtered: bool,
}

/// A directory that nodes are made in, one after the other.
pub(super) struct Near<'a> {
    root: Slot,
    path: &'a [u8],
    directory: OwnedFd,
    /// To be put back.
    umask: Mode,
}

impl<'a> Child<'a> {
    /// Runs the lane. Comes back only when it has failed and reported that.
    pub(super) fn run(mut self) {
        for (position, op) in self.ops.iter().enumerate() {
            if let ChildOp::RunHook { call, state, at, .. } = op {
                if let Err(raw) = self.run_hook(call, *state, *at) {
                    self.report(position, raw);
                    return;
                }
                continue;
            }
            if !matches!(op, ChildOp::MakeNode { .. }) {
                self.go_on();
            }
            if matches!(op, ChildOp::AwaitStart | ChildOp::AwaitHooks { .. }) {
                // Nobody may come and start it: who wants it gone need not kill it.
                sys::end_on_signals();
                self.report(position, READY);
            }
            if let Err(errno) = self.perform(op) {
                self.report(position, errno.raw_os_error());
                return;
            }
        }
    }

    fn report(&self, position: usize, errno: i32) {
        let position = u32::try_from(position).unwrap_or(u32::MAX - 1);
        if self.filtered {
            // What hardly any filter is without.
            let _ = rustix::io::write(self.channel(), &record(position, errno));
        } else {
            tell(self.channel(), position, errno);
        }
    }

    fn channel(&self) -> BorrowedFd<'_> {
        self.starter.as_ref().map_or(self.channel, AsFd::as_fd)
    }

    fn slot(&self, slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
        self.table.get(usize::from(slot.0)).and_then(Option::as_ref).map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn keep(&mut self, slot: Slot, fd: OwnedFd) -> Result<(), Errno> {
        *self.table.get_mut(usize::from(slot.0)).ok_or(Errno::BADF)? = Some(fd);
        Ok(())
    }

    fn perform(&mut self, op: &'a ChildOp) -> Result<(), Errno> {
        match op {
            ChildOp::Seal => self.seal(),
            ChildOp::SetOomScore { value } => write_file(c"/proc/self/oom_score_adj", value.as_c_str().to_bytes()),
            ChildOp::JoinCgroup { tasks } => write_file(tasks.as_c_str(), b"0"),
            ChildOp::TakeRoot { path, into } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(path.as_c_str(), flags, Mode::empty())?;
                let target = self.target.ok_or(Errno::BADF)?;
                let mut ended = [rustix::event::PollFd::new(&target, rustix::event::PollFlags::IN)];
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                if rustix::event::poll(&mut ended, Some(&now))? != 0 {
                    return Err(Errno::SRCH);
                }
                self.keep(*into, root)
            }
            ChildOp::EnterNamespaces { namespaces } => {
                sys::enter_namespaces(self.target.ok_or(Errno::BADF)?, namespaces.0)
            }
            ChildOp::Unshare { namespaces } => sys::unshare_namespaces(namespaces.0),
            ChildOp::StopPropagation => {
                rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            }
            ChildOp::Loopback => sys::loopback_up(),
            ChildOp::SetHostname { name } => rustix::system::sethostname(name.as_c_str().to_bytes()),
            ChildOp::Receive { slots } => self.receive(slots),
            ChildOp::BecomeRoot { uid, gid } => {
                set_groups(&[])?;
                set_ids(*uid, *gid)
            }
            ChildOp::JoinMounts { namespace } => sys::enter_namespaces(self.slot(*namespace)?, Namespaces::MOUNT.0),
            ChildOp::JoinNamespace { namespace, path } => {
                let file = rustix::fs::open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                sys::enter_namespaces(file.as_fd(), namespace.0)
            }
            ChildOp::Succeed => match sys::fork_sibling()? {
                None => Ok(()),
                Some(successor) => {
                    let number = u32::try_from(successor.as_raw_nonzero().get()).map_err(|_| Errno::SRCH)?;
                    tell(self.channel, number, SUCCESSOR);
                    sys::exit(0)
                }
            },
            ChildOp::Make { what, attributes, into } => {
                let fd = make(*what, *attributes)?;
                self.keep(*into, fd)
            }
            ChildOp::AttachRoot { root, at } => {
                let at = at.as_ref().map_or(c"/", Text::as_c_str);
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                let root = self.slot(*root)?;
                match rustix::mount::move_mount(root, c"", CWD, at, flags) {
                    // Nobody of the container may go there: hooks of the host find it on top of all then.
                    Err(Errno::ACCESS) => rustix::mount::move_mount(root, c"", CWD, c"/", flags),
                    result => result,
                }
            }
            ChildOp::Attach { root, mount, what: _, at, link } => {
                let mount = self.slot(*mount)?;
                let target = path::mount_point(self.slot(*root)?, at.as_c_str(), path::Kind::of(mount)?, *link)?;
                move_onto(mount, target.as_fd())
            }
            ChildOp::Copy { root, path, recursive, changes, idmap, into } => {
                let place = path::resolve(self.slot(*root)?, path.as_c_str())?;
                let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
                let tree = rustix::mount::open_tree(&place, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)?;
                for TreeChange { set, clear, propagation, recursive } in changes.iter().copied() {
                    let change = MountChange { set, clear, propagation, recursive, ..MountChange::default() };
                    sys::mount_setattr(tree.as_fd(), change)?;
                }
                if let Some((namespace, recursive)) = *idmap {
                    let idmap = Some(self.slot(namespace)?);
                    sys::mount_setattr(tree.as_fd(), MountChange { idmap, recursive, ..MountChange::default() })?;
                }
                self.keep(*into, tree)
            }
            ChildOp::Enter { tree, at: _ } => rustix::process::fchdir(self.slot(*tree)?),
            ChildOp::MountHere { kind, source, path, options, flags } => {
                let flags = MountFlags::from_bits_retain(*flags);
                rustix::mount::mount(source.as_c_str(), path.as_c_str(), kind.as_c_str(), flags, options.as_c_str())
            }
            ChildOp::MakeDirectoryHere { path } => {
                rustix::fs::mkdirat(CWD, path.as_c_str(), Mode::from_raw_mode(0o755))
            }
            ChildOp::ReadOnlyHere { path } => read_only_here(path.as_c_str()),
            ChildOp::MaskHere { path } => self.mask_here(path.as_c_str()),
            ChildOp::Mask { root, at } => self.mask(*root, at.as_c_str()),
            ChildOp::ReadOnly { root, at } => self.read_only(*root, at.as_c_str()),
            ChildOp::SealRoot { root } => {
                sys::mount_setattr(self.slot(*root)?, MountChange { read_only: true, ..MountChange::default() })
            }
            ChildOp::PivotRoot { root } => {
                rustix::process::fchdir(self.slot(*root)?)?;
                // Both the same: the old root ends on top of the new one, from where it is taken away.
                rustix::process::pivot_root(c".", c".")?;
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
            ChildOp::HideHosts { at } => {
                let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
                match rustix::mount::unmount(at.as_c_str(), flags) {
                    // It is below one that is gone already.
                    Err(Errno::NOENT) => Ok(()),
                    // In a user namespace, what has come from the host is there to stay.
                    Err(Errno::INVAL | Errno::PERM) => {
                        let empty = self.empty()?;
                        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                        ignoring(rustix::mount::move_mount(&empty, c"", CWD, at.as_c_str(), flags), &[Errno::NOENT])
                    }
                    result => result,
                }
            }
            ChildOp::CoverRoot { root } => {
                rustix::process::fchdir(self.slot(*root)?)?;
                rustix::process::chroot(c".")?;
                rustix::process::chdir(c"/")
            }
            ChildOp::AttachNodes { root, nodes } => move_onto(self.slot(*nodes)?, self.slot(*root)?),
            ChildOp::BindNode { root, nodes, name, at } => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let node = rustix::mount::open_tree(self.slot(*nodes)?, name.as_c_str(), flags)?;
                // No link of the image is followed: it is what the node is mounted over.
                let place = path::mount_point(self.slot(*root)?, at.as_c_str(), path::Kind::File, path::Link::Itself)?;
                move_onto(node.as_fd(), place.as_fd())
            }
            ChildOp::DetachNodes { nodes } => {
                rustix::process::fchdir(self.slot(*nodes)?)?;
                rustix::mount::unmount(c".", UnmountFlags::DETACH)
            }
            ChildOp::NewSession => rustix::process::setsid().map(drop),
            ChildOp::OpenTerminal { rows, columns, owner, new_line } => match self.io {
                Io::Terminal { console } => terminal::open(console, *rows, *columns, *owner, *new_line),
                Io::Stdio(_) => Err(Errno::BADF),
            },
            ChildOp::SetUmask { mask } => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            ChildOp::NewKeyring => ignoring(sys::join_new_session_keyring(), &[Errno::NOSYS, Errno::PERM]),
            // Lowering takes SYS_NICE; then the value is one that a child is meant to inherit.
            ChildOp::SetPriority { nice } => {
                ignoring(rustix::process::setpriority_process(None, *nice), &[Errno::ACCESS, Errno::PERM])
            }
            ChildOp::WorkingDirectory { path } => working_directory(path.as_c_str()),
            ChildOp::MakeWorkingDirectory { root, path } => {
                // What is wrong with it is told when it is gone to.
                let _ =
                    path::mount_point(self.slot(*root)?, path.as_c_str(), path::Kind::Directory, path::Link::Follow);
                Ok(())
            }
            ChildOp::DropBounding { keep } => drop_bounding(*keep),
            ChildOp::SetUser { uid, gid, groups } => {
                if *uid != 0 {
                    sys::set_keep_capabilities()?;
                }
                if let Some(groups) = groups {
                    set_groups(groups)?;
                }
                set_ids(*uid, *gid)
            }
            ChildOp::SetCapabilities { effective, permitted, inheritable, ambient } => {
                let (effective, permitted, inheritable) = (*effective, *permitted, *inheritable);
                set_capabilities(sys::CapabilitySets { effective, permitted, inheritable }, *ambient)
            }
            ChildOp::SetDomainname { name } => rustix::system::setdomainname(name.as_c_str().to_bytes()),
            ChildOp::WriteFile { path, value } => write_file(path.as_c_str(), value.as_c_str().to_bytes()),
            ChildOp::SetLimits { limits } => limit(None, limits),
            ChildOp::KeepDescriptors { descriptors } => descriptors.iter().try_for_each(|fd| sys::keep_over_exec(*fd)),
            ChildOp::Mount { root, kind, source, at, data, mode_of_place, flags, link } => {
                let mut buffer = [0; 4096];
                let covered = mode_of_place.then(|| path::resolve(self.slot(*root)?, at.as_c_str()));
                let data = match covered {
                    Some(Ok(covered)) => with_mode(&mut buffer, data.as_c_str(), &covered)?,
                    None | Some(Err(Errno::NOENT)) => data.as_c_str(),
                    Some(Err(errno)) => return Err(errno),
                };
                let target = path::mount_point(self.slot(*root)?, at.as_c_str(), path::Kind::Directory, *link)?;
                rustix::process::fchdir(&target)?;
                let flags = MountFlags::from_bits_retain(*flags);
                rustix::mount::mount(source.as_c_str(), c".", kind.as_c_str(), flags, data)
            }
            ChildOp::ChangeMount { root, at, change } => {
                let target = match root {
                    Some(root) => path::resolve(self.slot(*root)?, at.as_c_str())?,
                    None => rustix::fs::open(at.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
                };
                let TreeChange { set, clear, propagation, recursive } = *change;
                let change = MountChange { set, clear, propagation, recursive, ..MountChange::default() };
                sys::mount_setattr(target.as_fd(), change)
            }
            ChildOp::MakeNode { root, node } => self.make_node(*root, node),
            ChildOp::Console => console(),
            ChildOp::FindProgram { candidates } => find(candidates.iter().map(Text::as_c_str)),
            ChildOp::AwaitStart => self.await_start(),
            ChildOp::NoNewPrivileges => sys::set_no_new_privileges(),
            ChildOp::SetAffinity { cpus } => sys::set_affinity(cpus),
            ChildOp::SetMemoryPolicy { mode, nodes } => sys::set_memory_policy(*mode, nodes),
            ChildOp::Schedule(scheduling) => schedule(None, *scheduling),
            ChildOp::SetPersonality { personality } => sys::set_personality(*personality),
            ChildOp::JoinKeyring { name } => {
                ignoring(sys::join_session_keyring(name.as_c_str()), &[Errno::NOSYS, Errno::PERM])
            }
            ChildOp::OpenAttribute { path, into } => {
                let file = rustix::fs::open(path.as_c_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                self.keep(*into, file)
            }
            ChildOp::WriteAttribute { file, value } => {
                let value = value.as_c_str().to_bytes();
                let written = rustix::io::write(self.slot(*file)?, value)?;
                if written == value.len() { Ok(()) } else { Err(Errno::IO) }
            }
            ChildOp::AwaitHooks { slots } => self.receive(slots),
            // Done by the caller, as it fails in more ways than system calls do.
            ChildOp::RunHook { .. } => Err(Errno::INVAL),
            ChildOp::LetGo { keep, slot } => self.let_go(keep, *slot),
            ChildOp::Filter { flags } => self.filter(*flags),
            ChildOp::BecomeInit => init::stay(self.channel),
            ChildOp::Execute(program) => {
                if !self.filtered {
                    self.parent_is_there()?;
                }
                let mut failure = Errno::NOENT;
                for candidate in &program.candidates {
                    match sys::execve(candidate.as_c_str(), self.argv, self.env) {
                        Errno::NOENT | Errno::NOTDIR => {}
                        // Another place may have one that can be executed (execvp(3)).
                        Errno::ACCESS => failure = Errno::ACCESS,
                        errno => return Err(errno),
                    }
                }
                Err(failure)
            }
        }
    }

    fn seal(&mut self) -> Result<(), Errno> {
        if !guard::is_out(Guard::NotDumpable) {
            sys::set_not_dumpable()?;
        }
        // An init stays as it is, and a parent's arguments tell a container where it is on its host.
        rustix::thread::set_name(TITLE)?;
        if let Some(arguments) = self.arguments {
            arguments.overwrite(TITLE.to_bytes());
        }
        // Or our own copy would hide from us that the parent has gone.
        sys::close_copy(self.parent_end);
        if !guard::is_out(Guard::ClosedDescriptors) {
            sys::close_on_exec_from(3)?;
        }
        if let Io::Stdio(Stdio { stdin, stdout, stderr }) = self.io {
            place([stdin, stdout, stderr])?;
        }
        // The clone has put back those that somebody listened to.
        sys::reset_signals(self.ignored);
        sys::set_signal_mask(0)
    }

    fn make_node(&mut self, root: Slot, node: &'a Node) -> Result<(), Errno> {
        let (path, name) = path::split(node.path.as_c_str())?;
        if !self.near.as_ref().is_some_and(|near| (near.root, near.path) == (root, path)) {
            self.go_on();
            let directory = path::directory(self.slot(root)?, path)?;
            self.near = Some(Near { root, path, directory, umask: rustix::process::umask(Mode::empty()) });
        }
        let directory = self.near.as_ref().map(|near| near.directory.as_fd()).ok_or(Errno::BADF)?;
        ignoring(make_node(directory, name, node), &[Errno::EXIST])
    }

    fn go_on(&mut self) {
        if let Some(near) = self.near.take() {
            rustix::process::umask(near.umask);
        }
    }

    /// Takes the parent's descriptors. A parent that has gone is the end of us too.
    fn receive(&mut self, slots: &[Slot]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut buffer = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [rustix::io::IoSliceMut::new(&mut byte)];
        let message = rustix::net::recvmsg(self.channel, &mut into, &mut buffer, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            sys::exit(ABANDONED);
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        let mut slots = slots.iter();
        for message in buffer.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for (fd, slot) in descriptors.zip(slots.by_ref()) {
                    self.keep(*slot, fd)?;
                }
            }
        }
        if slots.next().is_some() { Err(Errno::BADF) } else { Ok(()) }
    }

    /// The next one of those that were prepared.
    fn run_hook(&mut self, call: &HookCall, state: Slot, at: Option<Slot>) -> Result<(), i32> {
        let raw = |errno: Errno| errno.raw_os_error();
        let Some((prepared, rest)) = self.hooks.split_first() else { return Err(raw(Errno::INVAL)) };
        self.hooks = rest;
        if let Some(at) = at {
            rustix::process::fchdir(self.slot(at).map_err(raw)?).map_err(raw)?;
        }
        hooks::run(call, prepared, None, self.slot(state).map_err(raw)?)
    }

    fn parent_is_there(&self) -> Result<(), Errno> {
        let mut byte = [0];
        match rustix::net::recv(self.channel(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok(_) => sys::exit(ABANDONED),
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Returns when somebody has connected and said that it is time.
    fn await_start(&mut self) -> Result<(), Errno> {
        for part in self.program {
            // It may be long; what is not given back is only memory.
            let _ = sys::forget(*part);
        }
        let listener = self.listener.ok_or(Errno::BADF)?;
        let starter = loop {
            match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                result => break result?,
            }
        };
        let mut byte = [0];
        match rustix::net::recv(&starter, &mut byte, RecvFlags::empty()) {
            Ok((1, _)) => {}
            _ => sys::exit(ABANDONED),
        }
        self.starter = Some(starter);
        Ok(())
    }

    fn let_go(&mut self, keep: &[u32], slot: Option<Slot>) -> Result<(), Errno> {
        let kept = slot.map(|Slot(index)| usize::from(index));
        for (index, slot) in self.table.iter_mut().enumerate() {
            if Some(index) != kept {
                *slot = None;
            }
        }
        self.empty = None;
        let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(0);
        let state = slot.map_or(Ok(0), |slot| self.slot(slot).map(number))?;
        let ours = [number(self.channel), self.listener.map_or(0, number), state];
        let mut from = 3;
        while let Some(kept) = keep.iter().chain(&ours).copied().filter(|fd| *fd >= from).min() {
            sys::close_between(from, kept)?;
            from = kept.checked_add(1).ok_or(Errno::BADF)?;
        }
        sys::close_from(from)
    }

    fn filter(&mut self, flags: u32) -> Result<(), Errno> {
        // Once more, and while it is a call that nobody can refuse.
        self.parent_is_there()?;
        let listener = sys::set_seccomp_filter(self.filter, flags)?;
        self.filtered = true;
        let Some(listener) = listener else { return Ok(()) };
        // It closes at `execve`: nothing is called for it but what has to be.
        let number = listener.into_raw_fd();
        let record = record(u32::try_from(number).map_err(|_| Errno::BADF)?, LISTENER);
        rustix::io::write(self.channel(), &record)?;
        match rustix::io::read(self.channel(), &mut [0])? {
            1 => Ok(()),
            _ => sys::exit(ABANDONED),
        }
    }

    fn mask_here(&mut self, path: &CStr) -> Result<(), Errno> {
        // Until the pivot, `/dev/null` is the host's: nothing of the image can stand in for it.
        match rustix::mount::mount(c"/dev/null", path, c"", MountFlags::BIND, None) {
            Err(Errno::NOTDIR) => {
                let empty = self.empty()?;
                rustix::mount::move_mount(&empty, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            }
            result => ignoring(result, &[Errno::NOENT]),
        }
    }

    fn mask(&mut self, root: Slot, at: &CStr) -> Result<(), Errno> {
        let target = match path::resolve(self.slot(root)?, at) {
            Ok(target) => target,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let cover = match path::Kind::of(target.as_fd())? {
            path::Kind::Directory => self.empty()?,
            path::Kind::File if guard::is_out(Guard::HostsNull) => {
                clone_tree(path::resolve(self.slot(root)?, c"/dev/null")?.as_fd())?
            }
            path::Kind::File => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                rustix::mount::open_tree(CWD, c"/dev/null", flags)?
            }
        };
        move_onto(cover.as_fd(), target.as_fd())
    }

    fn read_only(&mut self, root: Slot, at: &CStr) -> Result<(), Errno> {
        let target = match path::resolve(self.slot(root)?, at) {
            Ok(target) => target,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let tree = clone_tree(target.as_fd())?;
        sys::mount_setattr(tree.as_fd(), MountChange { read_only: true, recursive: true, ..MountChange::default() })?;
        move_onto(tree.as_fd(), target.as_fd())
    }

    /// A detached mount of one empty directory that all masked directories share.
    fn empty(&mut self) -> Result<OwnedFd, Errno> {
        if let Some(empty) = &self.empty {
            return clone_tree(empty.as_fd());
        }
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", c"0555")?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = NO_RIGHTS | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        self.empty = Some(rustix::io::fcntl_dupfd_cloexec(&mount, 3)?);
        Ok(mount)
    }
}

/// In place of an error: it waits for its start.
const READY: i32 = 0;

/// What a child is called until its program has a name for it.
const TITLE: &CStr = c"plim-init";

/// Sends a record to the parent.
pub(super) fn tell(channel: BorrowedFd<'_>, position: u32, errno: i32) {
    // When nobody listens any more, ending is all that is left to do.
    let _ = rustix::net::send(channel, &record(position, errno), SendFlags::NOSIGNAL);
}

fn record(position: u32, errno: i32) -> [u8; 8] {
    let mut record = [0; 8];
    for (to, from) in record.iter_mut().zip(position.to_ne_bytes().into_iter().chain(errno.to_ne_bytes())) {
        *to = from;
    }
    record
}

/// Ended because the parent has.
const ABANDONED: i32 = 254;

const NOTHING: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

const NO_RIGHTS: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn ignoring(result: Result<(), Errno>, fine: &[Errno]) -> Result<(), Errno> {
    match result {
        Err(errno) if fine.contains(&errno) => Ok(()),
        result => result,
    }
}

/// The options of a tmpfs, and the mode of a directory.
fn with_mode<'a>(buffer: &'a mut [u8], options: &CStr, directory: &OwnedFd) -> Result<&'a CStr, Errno> {
    let mode = rustix::fs::fstat(directory)?.st_mode;
    let digits = [9, 6, 3, 0].map(|shift| b'0' | ((mode >> shift) & 7) as u8);
    let comma: &[u8] = if options.is_empty() { b"" } else { b"," };
    let mut all = [options.to_bytes(), comma, b"mode=", &digits, b"\0"].into_iter().flatten();
    let written = buffer.iter_mut().zip(&mut all).map(|(to, from)| *to = *from).count();
    if all.next().is_some() {
        return Err(Errno::NAMETOOLONG);
    }
    CStr::from_bytes_with_nul(buffer.get(..written).ok_or(Errno::INVAL)?).map_err(|_| Errno::INVAL)
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = rustix::io::write(&file, text)?;
    if written == text.len() { Ok(()) } else { Err(Errno::IO) }
}

/// Puts three descriptors at 0, 1 and 2, where they outlive `execve`.
fn place(descriptors: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    // Out of the way first: one of them may stand where another has to go.
    let [stdin, stdout, stderr] = descriptors;
    let lift = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    if descriptors.iter().any(|fd| fd.as_raw_fd() < 3) {
        let (stdin, stdout, stderr) = (lift(stdin)?, lift(stdout)?, lift(stderr)?);
        return dup([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    }
    dup([stdin, stdout, stderr])
}

fn dup([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)
}

/// A detached proc or sysfs.
fn make(what: Fresh, attributes: u64) -> Result<OwnedFd, Errno> {
    let name = match what {
        Fresh::Proc => c"proc",
        Fresh::Sysfs => c"sysfs",
    };
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_truncate(u32::try_from(attributes).map_err(|_| Errno::INVAL)?);
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn move_onto(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

fn clone_tree(of: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(of, c"", flags)
}

fn read_only_here(path: &CStr) -> Result<(), Errno> {
    match rustix::mount::mount(path, path, c"", MountFlags::BIND | MountFlags::REC, None) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    }
    rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | NOTHING, c"")
}

/// Changes into the directory, made if it is missing, and makes sure that it is inside: a directory
/// that was entered through a descriptor of the host has no path here (getcwd(2)).
fn working_directory(path: &CStr) -> Result<(), Errno> {
    match rustix::process::chdir(path) {
        Err(Errno::NOENT) => {
            let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let directory = path::mount_point(root.as_fd(), path, path::Kind::Directory, path::Link::Follow)?;
            rustix::process::fchdir(&directory)?;
        }
        result => result?,
    }
    let mut buffer = [0; 4096];
    if sys::getcwd(&mut buffer)?.first() == Some(&b'/') || guard::is_out(Guard::WorkingDirectory) {
        Ok(())
    } else {
        Err(Errno::XDEV)
    }
}

fn drop_bounding(keep: u64) -> Result<(), Errno> {
    // Bits of the parent's, as a service manager may set them, would change what comes next.
    sys::clear_securebits()?;
    for capability in 0..u64::BITS {
        if keep & (1 << capability) == 0 {
            match sys::drop_from_bounding_set(capability) {
                // Above the newest one that this kernel knows.
                Err(Errno::INVAL) => break,
                result => result?,
            }
        }
    }
    Ok(())
}

/// Of a process, or of the calling one.
pub(super) fn limit(pid: Option<rustix::process::Pid>, limits: &[Limit]) -> Result<(), Errno> {
    limits.iter().try_for_each(|limit| sys::set_limit(pid, limit.resource, limit.soft, limit.hard))
}

/// As [`limit`].
pub(super) fn schedule(pid: Option<rustix::process::Pid>, scheduling: Scheduling) -> Result<(), Errno> {
    match scheduling {
        Scheduling::Cpu(attributes) => sys::set_scheduler(pid, attributes),
        Scheduling::Io { priority } => sys::set_io_priority(pid, priority),
    }
}

fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    sys::set_groups(groups)
}

fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    let (gid, uid) = (Gid::from_raw(gid), Uid::from_raw(uid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn set_capabilities(sets: sys::CapabilitySets, ambient: u64) -> Result<(), Errno> {
    let mut sets = sets;
    if guard::is_out(Guard::Inheritable) {
        sets.inheritable = sets.permitted;
    }
    sys::capset(sets)?;
    sys::clear_ambient()?;
    for capability in (0..u64::BITS).filter(|capability| ambient & (1 << capability) != 0) {
        sys::raise_ambient(capability)?;
    }
    Ok(())
}

/// A node in the directory `root`, with the owner and mode that it says.
pub(super) fn make_node(root: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<(), Errno> {
    if let Some(to) = &node.link {
        return rustix::fs::symlinkat(to.as_c_str(), root, name);
    }
    let kind = rustix::fs::FileType::from_raw_mode(node.mode);
    let device = rustix::fs::makedev(node.major, node.minor);
    rustix::fs::mknodat(root, name, kind, Mode::from_raw_mode(node.mode & 0o7777), device)?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    if (node.uid, node.gid) == (0, 0) {
        return Ok(());
    }
    rustix::fs::chownat(root, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
}

/// `/dev/console` is the terminal that is standard input; a root without one that can't be written
/// goes without.
fn console() -> Result<(), Errno> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let target = match path::mount_point(root.as_fd(), c"/dev/console", path::Kind::File, path::Link::Follow) {
        Err(Errno::ROFS | Errno::ACCESS) => return Ok(()),
        result => result?,
    };
    let terminal = if guard::is_out(Guard::OpenedTerminal) {
        // The first of a new devpts, as who remembers its name.
        rustix::mount::open_tree(CWD, c"/dev/pts/0", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?
    } else {
        clone_tree(rustix::stdio::stdin())?
    };
    move_onto(terminal.as_fd(), target.as_fd())
}

/// Whether one of them could be executed, as `execve` will try them.
pub(super) fn find<'a>(candidates: impl Iterator<Item = &'a CStr>) -> Result<(), Errno> {
    let mut failure = Errno::NOENT;
    for candidate in candidates {
        match rustix::fs::statat(CWD, candidate, rustix::fs::AtFlags::empty()) {
            Ok(stat) => {
                let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
                let may =
                    rustix::fs::accessat(CWD, candidate, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
                if is_file && may.is_ok() {
                    return Ok(());
                }
                failure = Errno::ACCESS;
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::ACCESS) => failure = Errno::ACCESS,
            Err(errno) => return Err(errno),
        }
    }
    Err(failure)
}
