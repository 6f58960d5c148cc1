//! What this kernel and this host can do for containers.
//!
//! Each answer comes from trying, not from a version. For `plim check`; everything that is made on the
//! way is detached or ends with the process that made it.

use super::ops::Namespaces;
use super::overlay::{self, Layers};
use crate::sys::{self, Errno, MountChange};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// One thing that containers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub name: &'static str,
    pub found: Found,
    /// What was tried and what the kernel said.
    pub detail: String,
    /// What would help; empty when nothing is amiss.
    pub remedy: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Yes,
    /// Something else is done instead.
    Instead,
    No,
}

fn tried(name: &'static str, what: &str, result: Result<(), Errno>, remedy: &'static str) -> Probe {
    match result {
        Ok(()) => Probe { name, found: Found::Yes, detail: what.to_owned(), remedy: "" },
        Err(errno) => {
            let error = std::io::Error::from(errno);
            Probe { name, found: Found::No, detail: format!("{what}: {error}"), remedy }
        }
    }
}

/// Tries everything. `dir` is where layers of root filesystems are kept.
///
/// To be called by a process with one thread, or by one that accepts that short-lived children are
/// copies of it.
pub fn probe(dir: &Path) -> Vec<Probe> {
    let mut found = vec![
        tried(
            "user namespaces",
            "a process in a user namespace of its own",
            in_child(Namespaces::USER, || Ok(())),
            "sysctl -w user.max_user_namespaces=65536; or `security: {userNamespace: false}`",
        ),
        tried(
            "proc in a user namespace",
            "a fresh proc in new user, pid and mount namespaces",
            in_child(Namespaces::USER.with(Namespaces::PID).with(Namespaces::MOUNT), || fresh(c"proc").map(drop)),
            "/proc has mounts over it here, as inside a container: run the agent privileged, outside of one",
        ),
        tried(
            "sysfs in a user namespace",
            "a fresh sysfs in new user, network and mount namespaces",
            in_child(Namespaces::USER.with(Namespaces::NET).with(Namespaces::MOUNT), || fresh(c"sysfs").map(drop)),
            "/sys has mounts over it here, as inside a container: run the agent privileged, outside of one",
        ),
        tried(
            "cgroup namespaces",
            "a process in a cgroup namespace of its own",
            in_child(Namespaces::CGROUP, || Ok(())),
            "use a kernel with CONFIG_CGROUPS",
        ),
        tried(
            "seccomp",
            "a filter that allows everything",
            in_child(Namespaces::NONE, filter),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
        tried(
            "id-mapped mounts",
            &shown("an id-mapped mount of", dir),
            idmapped(dir).map(drop),
            "keep the state (--root) on ext4, xfs or btrfs; or `security: {userNamespace: false}`",
        ),
        overlaid(dir),
        in_memory(),
    ];
    if let Some(mount) = cgroup2() {
        let text = format!("a process born into a cgroup below {mount}");
        found.push(tried("birth in a cgroup", &text, into_cgroup(&mount), "use Linux 5.7 or later"));
    }
    found
}

fn shown(what: &str, dir: &Path) -> String {
    let mut text = what.to_owned();
    // Writing to a string does not fail.
    let _ = write!(text, " {}", dir.display());
    text
}

/// Runs `trial` in a child with these namespaces. The child says how it went by its exit code.
fn in_child(namespaces: Namespaces, trial: fn() -> Result<(), Errno>) -> Result<(), Errno> {
    let request = sys::Request { namespaces: namespaces.0, cgroup: None };
    let child = sys::clone3(request, || {
        let code = trial().err().map_or(0, Errno::raw_os_error);
        sys::exit(code);
    })?;
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
    })?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::INTR),
    }
}

fn fresh(name: &CStr) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// One instruction: allow.
fn filter() -> Result<(), Errno> {
    sys::set_no_new_privileges()?;
    sys::set_seccomp_filter(&[sys::Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }], 0).map(drop)
}

/// An overlay as containers have them: on layers that are id-mapped and mounted nowhere.
fn overlaid(dir: &Path) -> Probe {
    let name = "overlay on id-mapped layers";
    let what = shown("an overlay on", dir);
    let remedy = "load the kernel module overlay, and keep the state on ext4, xfs or btrfs";
    let overlay = |make: fn(&Layers<'_>) -> Result<OwnedFd, Errno>| {
        // Without a writable layer it takes two of the others.
        let layers = (idmapped(dir)?, fresh(c"tmpfs")?);
        make(&Layers { lower: &[layers.0.as_fd(), layers.1.as_fd()], writable: None }).map(drop)
    };
    match overlay(overlay::by_descriptor) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
        result => return tried(name, &what, result, remedy),
    }
    let by_name = tried(name, &what, overlay(overlay::by_name), remedy);
    match by_name.found {
        Found::Yes => {
            let detail = format!("{what}: before Linux 6.15 by a helper with a mount namespace of its own");
            Probe { found: Found::Instead, detail, remedy: "Linux 6.15 or later starts a little faster", ..by_name }
        }
        Found::Instead | Found::No => by_name,
    }
}

/// Whether a program may run from memory that nobody can write to any more.
fn in_memory() -> Probe {
    let name = "programs in memory";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    match rustix::fs::memfd_create(c"plimsoll-probe", flags) {
        // vm.memfd_noexec, Linux 6.3.
        Err(Errno::ACCESS) => Probe {
            name,
            found: Found::Instead,
            detail: "vm.memfd_noexec forbids it: the keeper runs from a read-only mount of its file".to_owned(),
            remedy: "sysctl -w vm.memfd_noexec=1",
        },
        // Before, every memory file can be executed and the flag is unknown.
        Ok(_) | Err(Errno::INVAL) => tried(name, "the keeper runs from a sealed copy", Ok(()), ""),
        Err(errno) => tried(name, "a memory file", Err(errno), "use a kernel with CONFIG_MEMFD_CREATE"),
    }
}

/// A detached id-mapped mount of the directory.
fn idmapped(dir: &Path) -> Result<OwnedFd, Errno> {
    let request = sys::Request { namespaces: Namespaces::USER.0, cgroup: None };
    // It waits in its namespace until we have taken that; nothing can wake it but the end.
    let child = sys::clone3(request, || {
        loop {
            let _ = sys::wait_for_signal(0);
        }
    })?;
    let result = (|| {
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{file}", child.pid);
            let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, b"0 1000000 65536")?;
        }
        let path = format!("/proc/{}/ns/user", child.pid);
        let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, dir, flags)?;
        sys::mount_setattr(tree.as_fd(), MountChange { idmap: Some(namespace.as_fd()), ..MountChange::default() })?;
        Ok(tree)
    })();
    rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL)?;
    rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    result
}

/// Where the v2 hierarchy is mounted.
fn cgroup2() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(ToOwned::to_owned)).flatten()
    })
}

fn into_cgroup(mount: &str) -> Result<(), Errno> {
    let root = rustix::fs::open(mount, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("plimsoll-probe-{}", std::process::id());
    rustix::fs::mkdirat(&root, &name, Mode::from_raw_mode(0o755))?;
    let result = (|| {
        let cgroup =
            rustix::fs::openat(&root, &name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let request = sys::Request { namespaces: 0, cgroup: Some(cgroup.as_fd()) };
        let child = sys::clone3(request, || sys::exit(0))?;
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).map(drop)
    })();
    let removed = rustix::fs::unlinkat(&root, &name, rustix::fs::AtFlags::REMOVEDIR);
    result.and(removed)
}
