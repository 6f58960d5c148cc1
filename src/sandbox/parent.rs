//! The parent's lane: what takes the host's privileges, done from outside of the child.

use super::Text;
use super::child::Table;
use super::launch::lookup;
use super::ops::{Node, ParentOp, Slot, TreeChange};
use super::overlay::{self, Layers, Way, Writable};
use crate::sys::{self, Errno, MountChange};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::IoSlice;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) struct Parent<'a> {
    pid: Pid,
    pidfd: BorrowedFd<'a>,
    channel: BorrowedFd<'a>,
    user_namespace: Option<OwnedFd>,
    table: Table,
    way: Way,
}

impl<'a> Parent<'a> {
    pub(super) fn new(pid: Pid, pidfd: BorrowedFd<'a>, channel: BorrowedFd<'a>, way: Way) -> Self {
        Self { pid, pidfd, channel, user_namespace: None, table: [const { None }; 256], way }
    }

    fn keep(&mut self, slot: Slot, fd: OwnedFd) -> Result<(), Errno> {
        *self.table.get_mut(usize::from(slot.0)).ok_or(Errno::BADF)? = Some(fd);
        Ok(())
    }

    pub(super) fn perform(&mut self, op: &ParentOp) -> Result<(), Errno> {
        match op {
            // The first operations, done by the caller; a second clone would be a second child.
            ParentOp::EnterNamespace { .. } | ParentOp::SetAffinity { .. } | ParentOp::Clone { .. } => {
                Err(Errno::INVAL)
            }
            ParentOp::Schedule(scheduling) => super::child::schedule(Some(self.pid), *scheduling),
            ParentOp::MapIds { uids, gids } => self.map_ids(uids.as_str(), gids.as_str()),
            ParentOp::Tree { path, recursive, changes, idmap, into } => {
                let tree = self.tree(path, *recursive, changes, *idmap)?;
                self.keep(*into, tree)
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

    fn map_ids(&mut self, uids: &str, gids: &str) -> Result<(), Errno> {
        // The pid is our own child's, which nobody but us can reap: it means no other process.
        for (file, lines) in [("uid_map", uids), ("gid_map", gids)] {
            let path = format!("/proc/{}/{file}", self.pid);
            let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, lines.as_bytes())?;
        }
        Ok(())
    }

    fn user_namespace(&mut self) -> Result<&OwnedFd, Errno> {
        if self.user_namespace.is_none() {
            let namespace = match sys::user_namespace_of(self.pidfd) {
                // Before Linux 6.11.
                Err(Errno::NOTTY | Errno::INVAL) => {
                    let path = format!("/proc/{}/ns/user", self.pid);
                    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                }
                result => result,
            };
            self.user_namespace = Some(namespace?);
        }
        self.user_namespace.as_ref().ok_or(Errno::BADF)
    }

    fn tree(&mut self, path: &Text, recursive: bool, changes: &[TreeChange], mapped: bool) -> Result<OwnedFd, Errno> {
        let tree = clone_of(path, recursive)?;
        let mut idmap = if mapped { Some(self.user_namespace()?.as_fd()) } else { None };
        for TreeChange { set, clear, propagation, recursive: throughout } in changes.iter().copied() {
            // In one call, where that reaches as far.
            let idmap = idmap.take_if(|_| throughout == recursive);
            let change =
                MountChange { set, clear, propagation, idmap, recursive: throughout, ..MountChange::default() };
            sys::mount_setattr(tree.as_fd(), change)?;
        }
        if idmap.is_some() {
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

fn clone_of(path: &Text, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
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
    let umask = rustix::process::umask(Mode::empty());
    let filled = nodes.iter().try_for_each(|node| make_below(mount.as_fd(), node));
    rustix::process::umask(umask);
    filled?;
    for name in directories {
        rustix::fs::mkdirat(&mount, name.as_c_str(), Mode::from_raw_mode(0o755))?;
    }
    Ok(mount)
}

/// In a directory that nobody else has seen yet.
fn make_below(root: BorrowedFd<'_>, node: &Node) -> Result<(), Errno> {
    let path = node.path.as_str();
    for (at, _) in path.match_indices('/') {
        match rustix::fs::mkdirat(root, &path[..at], Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            result => result?,
        }
    }
    super::child::make_node(root, node.path.as_c_str(), node)
}
