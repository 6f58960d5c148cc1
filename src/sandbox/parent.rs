//! The parent's lane: what takes the host's privileges, done from outside of the child.

use super::child::Table;
use super::launch::{RECORD, SUCCESSOR, decode, is_reaped, lookup};
use super::ops::{Idmap, IdmapBy, Namespaces, Node, ParentOp, Slot, TreeChange};
use super::overlay::{self, Layers, Way, Writable};
use super::{Text, copy, path};
use crate::sys::{self, Errno, MountChange};
use rustix::event::Timespec;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::IoSlice;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A child that does not come to make its successor stands in a frozen cgroup.
const SUCCEEDS_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub(super) struct Parent<'a> {
    /// Of the child, or of who has taken its place.
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    channel: BorrowedFd<'a>,
    user_namespace: Option<OwnedFd>,
    table: Table,
    way: Way,
}

impl<'a> Parent<'a> {
    pub(super) fn new(child: sys::Cloned, channel: BorrowedFd<'a>, way: Way) -> Self {
        let sys::Cloned { pid, pidfd } = child;
        Self { pid, pidfd, channel, user_namespace: None, table: [const { None }; 256], way }
    }

    fn keep(&mut self, slot: Slot, fd: OwnedFd) -> Result<(), Errno> {
        *self.table.get_mut(usize::from(slot.0)).ok_or(Errno::BADF)? = Some(fd);
        Ok(())
    }

    pub(super) fn perform(&mut self, op: &ParentOp) -> Result<(), Errno> {
        match op {
            // The first operations, done by the caller; a second clone would be a second child.
            ParentOp::EnterNamespace { .. }
            | ParentOp::SetAffinity { .. }
            | ParentOp::NewClocks { .. }
            | ParentOp::Clone { .. } => Err(Errno::INVAL),
            ParentOp::Schedule(scheduling) => super::child::schedule(Some(self.pid), *scheduling),
            ParentOp::SetLimits { limits } => super::child::limit(Some(self.pid), limits),
            ParentOp::AwaitSuccessor => self.await_successor(),
            ParentOp::MapIds { uids, gids } => map_ids(self.pid, uids.as_str(), gids.as_str()),
            ParentOp::Tree { path, recursive, changes, idmap, link_itself, into } => {
                let tree = self.tree(clone_of(path, *recursive, *link_itself)?, *recursive, changes, idmap.as_ref())?;
                self.keep(*into, tree)
            }
            ParentOp::UserNamespace { uids, gids, into } => {
                let namespace = mapped_namespace(uids.as_str(), gids.as_str())?;
                self.keep(*into, namespace)
            }
            ParentOp::Namespace { path, into } => {
                let file = rustix::fs::openat(CWD, path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                self.keep(*into, file)
            }
            ParentOp::Directory { path, into } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::empty())?;
                self.keep(*into, directory)
            }
            ParentOp::Copy { options, flags, root, at, into } => {
                let mount = device_tree(options, *flags, &[], &[])?;
                copy::contents(path::resolve(lookup(&self.table, *root)?, at.as_c_str()), mount.as_fd())?;
                self.keep(*into, mount)
            }
            ParentOp::DeviceTree { options, flags, nodes, directories, into } => {
                let mount = device_tree(options, *flags, nodes, directories)?;
                self.keep(*into, mount)
            }
            ParentOp::Overlay { lower, upper, work, into } => {
                let mount = self.overlay(lower, upper.as_c_str(), work.as_c_str())?;
                self.keep(*into, mount)
            }
            ParentOp::HandOver { slots } => self.hand_over(slots),
        }
    }

    /// A child that fails before leaves its report to be read.
    fn await_successor(&mut self) -> Result<(), Errno> {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::net::RecvFlags;
        use rustix::process::{PidfdFlags, pidfd_open};
        let mut either = [PollFd::new(&self.channel, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut either, Some(&SUCCEEDS_WITHIN)))? == 0 {
            return Err(Errno::TIMEDOUT);
        }
        let mut record = [0; RECORD];
        let number = match rustix::net::recv(self.channel, &mut record, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((RECORD, _)) => decode(record),
            _ => return Err(Errno::CHILD),
        };
        if number.errno != SUCCESSOR {
            return Err(Errno::CHILD);
        }
        rustix::net::recv(self.channel, &mut record, RecvFlags::empty())?;
        // Ours alone to reap, so the number means no other process.
        let number = i32::try_from(number.operation).map_err(|_| Errno::SRCH)?;
        self.pid = Pid::from_raw(number).ok_or(Errno::SRCH)?;
        let former = std::mem::replace(&mut self.pidfd, pidfd_open(self.pid, PidfdFlags::empty())?);
        if is_reaped(former.as_fd(), SUCCEEDS_WITHIN) { Ok(()) } else { Err(Errno::TIMEDOUT) }
    }

    fn user_namespace(&mut self) -> Result<&OwnedFd, Errno> {
        if self.user_namespace.is_none() {
            self.user_namespace = Some(user_namespace(self.pid, self.pidfd.as_fd())?);
        }
        self.user_namespace.as_ref().ok_or(Errno::BADF)
    }

    fn tree(
        &mut self,
        tree: OwnedFd,
        recursive: bool,
        changes: &[TreeChange],
        idmap: Option<&Idmap>,
    ) -> Result<OwnedFd, Errno> {
        let made;
        let mut mapping = match idmap {
            None => None,
            Some(Idmap { by: IdmapBy::Child, recursive }) => Some((self.user_namespace()?.as_fd(), *recursive)),
            Some(Idmap { by: IdmapBy::Namespace { path }, recursive }) => {
                made = rustix::fs::openat(CWD, path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                Some((made.as_fd(), *recursive))
            }
            Some(Idmap { by: IdmapBy::Maps { uids, gids }, recursive }) => {
                made = mapped_namespace(uids.as_str(), gids.as_str())?;
                Some((made.as_fd(), *recursive))
            }
        };
        for TreeChange { set, clear, propagation, recursive: throughout } in changes.iter().copied() {
            // In one call, where that reaches as far.
            let idmap = mapping.take_if(|(_, all)| throughout == (*all && recursive)).map(|(namespace, _)| namespace);
            let change =
                MountChange { set, clear, propagation, idmap, recursive: throughout, ..MountChange::default() };
            sys::mount_setattr(tree.as_fd(), change)?;
        }
        if let Some((namespace, recursive)) = mapping {
            let idmap = Some(namespace);
            sys::mount_setattr(tree.as_fd(), MountChange { idmap, recursive, ..MountChange::default() })?;
        }
        Ok(tree)
    }

    fn overlay(&self, lower: &[Slot], upper: &CStr, work: &CStr) -> Result<OwnedFd, Errno> {
        let lower = lower.iter().map(|slot| lookup(&self.table, *slot)).collect::<Result<Vec<_>, _>>()?;
        overlay::make(&Layers { lower: &lower, writable: Some(Writable { upper, work }) }, self.way)
    }

    fn hand_over(&self, slots: &[Slot]) -> Result<(), Errno> {
        let descriptors = slots.iter().map(|slot| lookup(&self.table, *slot)).collect::<Result<Vec<_>, _>>()?;
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut buffer = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !buffer.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS);
        }
        rustix::net::sendmsg(self.channel, &[IoSlice::new(&[0])], &mut buffer, SendFlags::NOSIGNAL).map(drop)
    }
}

/// Of our own child, which nobody but us can reap: the number means no other process.
fn map_ids(child: Pid, uids: &str, gids: &str) -> Result<(), Errno> {
    for (file, lines) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{child}/{file}");
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, lines.as_bytes())?;
    }
    Ok(())
}

fn user_namespace(child: Pid, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match sys::user_namespace_of(pidfd) {
        // Before Linux 6.11.
        Err(Errno::NOTTY | Errno::INVAL) => {
            rustix::fs::open(format!("/proc/{child}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
        result => result,
    }
}

/// A user namespace that nobody is in: of a child that lives until it has been opened.
fn mapped_namespace(uids: &str, gids: &str) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let request = sys::Request { namespaces: Namespaces::USER.0, cgroup: None };
    let child = sys::clone3(request, || {
        // Its copy of our end would keep it waiting for itself.
        sys::close_copy(ours.as_fd());
        let _ = rustix::net::recv(&theirs, &mut [0], rustix::net::RecvFlags::empty());
        sys::exit(0);
    })?;
    let namespace = map_ids(child.pid, uids, gids).and_then(|()| user_namespace(child.pid, child.pidfd.as_fd()));
    drop(ours);
    rustix::io::retry_on_intr(|| {
        rustix::process::waitid(
            rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        )
    })?;
    namespace
}

fn clone_of(path: &Text, recursive: bool, link_itself: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_SYMLINK_NOFOLLOW, link_itself);
    rustix::mount::open_tree(CWD, path.as_c_str(), flags)
}

/// A detached tmpfs with these options and nodes. `flags` are those of mount(2).
fn device_tree(options: &[(Text, Text)], flags: u32, nodes: &[Node], directories: &[Text]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        if value.as_str().is_empty() {
            rustix::mount::fsconfig_set_flag(&context, name.as_c_str())?;
        } else {
            rustix::mount::fsconfig_set_string(&context, name.as_c_str(), value.as_c_str())?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    // The first four are the same bits in both interfaces: read-only, nosuid, nodev, noexec.
    let attributes = MountAttrFlags::from_bits_retain(flags & 0xf);
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    nodes.iter().try_for_each(|node| make_below(mount.as_fd(), node))?;
    directories.iter().try_for_each(|name| make_directory(mount.as_fd(), name.as_c_str()))?;
    Ok(mount)
}

/// In a directory that nobody else has seen yet.
fn make_below(root: BorrowedFd<'_>, node: &Node) -> Result<(), Errno> {
    let path = node.path.as_str();
    for (at, _) in path.match_indices('/') {
        match make_directory(root, &path[..at]) {
            Err(Errno::EXIST) => {}
            result => result?,
        }
    }
    super::child::make_node(root, node.path.as_c_str(), node)?;
    match node.link {
        Some(_) => Ok(()),
        None => set_mode(root, node.path.as_c_str(), Mode::from_raw_mode(node.mode & 0o7777)),
    }
}

fn make_directory(root: BorrowedFd<'_>, path: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(root, path, mode)?;
    set_mode(root, path, mode)
}

/// What the umask has taken from what has just been made. It is not changed for that: it belongs to all
/// threads of a process, and two that put it back for each other would leave it open.
fn set_mode(root: BorrowedFd<'_>, path: impl rustix::path::Arg, mode: Mode) -> Result<(), Errno> {
    rustix::fs::chmodat(root, path, mode, rustix::fs::AtFlags::empty())
}
