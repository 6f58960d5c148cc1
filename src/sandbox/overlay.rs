//! A detached overlay on layers that are mounted nowhere.
//!
//! Linux 6.15 takes such layers by descriptor. Before that a layer has to have a name in the mount
//! namespace of whoever mounts the overlay, and giving it one must not show on the host: a short-lived
//! child gets a mount namespace of its own, attaches the layers there, mounts the overlay and sends a
//! detached copy of it back. With the child its namespace ends, and with that all that was attached in
//! it, however the child came to its end.

use super::ops::Namespaces;
use crate::sys::{self, Errno};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::process::{WaitId, WaitIdOptions};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// What an overlay is made of.
pub(super) struct Layers<'a> {
    /// Detached mounts, the topmost first.
    pub(super) lower: &'a [BorrowedFd<'a>],
    pub(super) writable: Option<Writable<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct Writable<'a> {
    pub(super) upper: &'a CStr,
    pub(super) work: &'a CStr,
}

/// How the kernel gets to know the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As this kernel takes them.
    Any,
    /// As one before Linux 6.15 takes them.
    ByName,
}

/// This kernel has refused layers by descriptor, and has taken the same ones by name.
static ONLY_BY_NAME: AtomicBool = AtomicBool::new(false);

pub(super) fn make(layers: &Layers<'_>, way: Way) -> Result<OwnedFd, Errno> {
    if way == Way::ByName || ONLY_BY_NAME.load(Ordering::Relaxed) {
        return by_name(layers);
    }
    match by_descriptor(layers) {
        // Also what is said of layers that do not fit together, and then it is said again.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            let mount = by_name(layers)?;
            ONLY_BY_NAME.store(true, Ordering::Relaxed);
            Ok(mount)
        }
        result => result,
    }
}

pub(super) fn by_descriptor(layers: &Layers<'_>) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in layers.lower {
        rustix::mount::fsconfig_set_fd(&context, c"lowerdir+", layer)?;
    }
    if let Some(Writable { upper, work }) = layers.writable {
        // As text they would be at most 255 bytes, and a backslash would mean something.
        rustix::mount::fsconfig_set_fd(&context, c"upperdir", directory(upper)?)?;
        rustix::mount::fsconfig_set_fd(&context, c"workdir", directory(work)?)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    // Nothing of the image may be a device of the host; its set-user-id files are its own users'.
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn directory(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn by_name(layers: &Layers<'_>) -> Result<OwnedFd, Errno> {
    // All that the child needs, as it must not allocate.
    let name = |number: usize| CString::new(number.to_string()).map_err(|_| Errno::INVAL);
    let names = (0..layers.lower.len()).map(name).collect::<Result<Vec<_>, _>>()?;
    let options = options(&names, layers.writable)?;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let request = sys::Request { namespaces: Namespaces::MOUNT.0, cgroup: None };
    let child = sys::clone3(request, || {
        let sent = mount(layers.lower, &names, &options).and_then(|mount| send(theirs.as_fd(), mount.as_fd()));
        sys::exit(sent.err().map_or(0, Errno::raw_os_error));
    })?;
    let ended = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
    })?;
    match ended.and_then(|status| status.exit_status()) {
        Some(0) => receive(ours.as_fd()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        // Killed by somebody.
        None => Err(Errno::INTR),
    }
}

fn options(names: &[CString], writable: Option<Writable<'_>>) -> Result<CString, Errno> {
    let mut text = b"lowerdir=".to_vec();
    text.extend(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b':'));
    if let Some(Writable { upper, work }) = writable {
        for (key, path) in [(",upperdir=", upper), (",workdir=", work)] {
            text.extend_from_slice(key.as_bytes());
            for byte in path.to_bytes() {
                if b",:\\".contains(byte) {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
        }
    }
    CString::new(text).map_err(|_| Errno::INVAL)
}

const OVERLAY: &CStr = c"overlay";

/// In the child, whose mount namespace ends with it.
fn mount(lower: &[BorrowedFd<'_>], names: &[CString], options: &CStr) -> Result<OwnedFd, Errno> {
    // Before anything is mounted: until here the copies share what happens to the host's mounts.
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let place = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // Over `/`, where it covers nothing: paths begin below it.
    rustix::mount::move_mount(&place, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&place)?;
    for (layer, name) in lower.iter().zip(names) {
        rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o755))?;
        rustix::mount::move_mount(layer, c"", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    rustix::fs::mkdirat(CWD, OVERLAY, Mode::from_raw_mode(0o755))?;
    rustix::mount::mount(c"none", OVERLAY, OVERLAY, MountFlags::NODEV, options)?;
    rustix::mount::open_tree(CWD, OVERLAY, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

fn send(socket: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    let mounts = [mount];
    if !buffer.push(SendAncillaryMessage::ScmRights(&mounts)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[0])], &mut buffer, SendFlags::NOSIGNAL).map(drop)
}

fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut buffer, flags)?;
    let mut rights = buffer.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    rights.next().ok_or(Errno::BADF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_option_whatever_it_holds() {
        let writable = Writable { upper: c"/a,b:c\\d", work: c"/w" };

        let options = options(&[c"0".to_owned(), c"1".to_owned()], Some(writable)).unwrap();

        assert_eq!(options.as_c_str(), c"lowerdir=0:1,upperdir=/a\\,b\\:c\\\\d,workdir=/w");
    }
}
