//! The parent's lane: what takes the host's privileges, done from outside of the child.

use super::Text;
use super::child::Table;
use super::launch::lookup;
use super::ops::{Node, ParentOp, Slot, TreeChange};
use super::overlay::{self, Layers, Way, Writable};
use crate::sys::{self, Errno, MountChange};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::IoSlice;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use std::ffi::{CStr, CString};
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
            ParentOp::EnterNamespace { .. } | ParentOp::Clone { .. } => Err(Errno::INVAL),
            ParentOp::MapIds { base, size } => {
                let line = format!("0 {base} {size}");
                self.map_ids(&line, &line)
            }
            ParentOp::WriteIdMaps { uids, gids } => self.map_ids(uids.as_str(), gids.as_str()),
            ParentOp::Bind { path, recursive, changes, into } => {
                let tree = clone_of(path, *recursive)?;
                for TreeChange { set, clear, propagation, recursive } in changes.iter().copied() {
                    let change = MountChange { set, clear, propagation, recursive, ..MountChange::default() };
                    sys::mount_setattr(tree.as_fd(), change)?;
                }
                self.keep(*into, tree)
            }
            ParentOp::DeviceTree { options, flags, nodes, into } => {
                let mount = device_tree(options, *flags, nodes)?;
                self.keep(*into, mount)
            }
            ParentOp::Tree { path, recursive, read_only, idmap, into } => {
                let tree = self.tree(path, *recursive, *read_only, *idmap)?;
                self.keep(*into, tree)
            }
            ParentOp::Overlay { lower, upper, work, into } => {
                let mount = self.overlay(lower, upper.as_c_str(), work.as_c_str())?;
                self.keep(*into, mount)
            }
            ParentOp::Devices { owner, into } => {
                let mount = devices(*owner)?;
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

    fn tree(&mut self, path: &Text, recursive: bool, read_only: bool, idmap: bool) -> Result<OwnedFd, Errno> {
        let tree = clone_of(path, recursive)?;
        let idmap = if idmap { Some(self.user_namespace()?.as_fd()) } else { None };
        // A copy of a shared mount is its peer: what the child mounts in it would show on the host.
        sys::mount_setattr(
            tree.as_fd(),
            MountChange { read_only, private: true, idmap, recursive, ..MountChange::default() },
        )?;
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

/// Character devices that give nothing away (devices.txt of the kernel).
const DEVICES: [(&CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

const DIRECTORIES: [&CStr; 3] = [c"pts", c"shm", c"mqueue"];

/// A detached tmpfs for `/dev`. Made by the host, whose tmpfs can hold device nodes, which one of a
/// user namespace can't: it saves a bind mount for each of them.
fn devices(owner: u32) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, c"mode", c"0755")?;
    rustix::mount::fsconfig_set_string(&context, c"size", c"65536k")?;
    if owner != 0 {
        let owner = CString::new(owner.to_string()).map_err(|_| Errno::INVAL)?;
        rustix::mount::fsconfig_set_string(&context, c"uid", owner.as_c_str())?;
        rustix::mount::fsconfig_set_string(&context, c"gid", owner.as_c_str())?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let umask = rustix::process::umask(Mode::empty());
    let filled = fill(mount.as_fd(), owner);
    rustix::process::umask(umask);
    filled.map(|()| mount)
}

fn fill(mount: BorrowedFd<'_>, owner: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    for (name, major, minor) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(mount, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)?;
        if owner != 0 {
            rustix::fs::chownat(mount, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    for (name, to) in LINKS {
        rustix::fs::symlinkat(to, mount, name)?;
    }
    for name in DIRECTORIES {
        rustix::fs::mkdirat(mount, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(())
}

fn clone_of(path: &Text, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(CWD, path.as_c_str(), flags)
}

/// A detached tmpfs with these options and nodes. `flags` are those of mount(2).
fn device_tree(options: &[(Text, Text)], flags: u32, nodes: &[Node]) -> Result<OwnedFd, Errno> {
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
    let read_only = attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let open = attributes.difference(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, open)?;
    let umask = rustix::process::umask(Mode::empty());
    let filled = nodes.iter().try_for_each(|node| make_below(mount.as_fd(), node));
    rustix::process::umask(umask);
    filled?;
    if read_only {
        sys::mount_setattr(mount.as_fd(), MountChange { read_only: true, ..MountChange::default() })?;
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
