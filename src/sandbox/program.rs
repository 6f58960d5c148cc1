//! Keeps the file that we run from out of the reach of containers.
//!
//! A process on its way into a container shows, as `/proc/PID/exe`, the file that it runs from. If
//! that is a program of the host, root in the container can open it for writing, or have it executed
//! inside by naming it as an interpreter (`#!/proc/self/exe`) and open that process's (CVE-2019-5736).
//! Where it can be opened for reading alone, a fault of the kernel in how it shares pages can be enough.
//!
//! So what is shown is an empty file in sealed memory, and nothing that a container can name leads to
//! our program: its code is mapped through a mount that is nowhere, and the mappings of a process that
//! is not dumpable are nobody's to open (`/proc/PID/map_files`, proc(5)). This takes no copy and no
//! second start. Who may make no mounts runs from a copy in sealed memory.

use crate::sys::{self, Errno, Layout, MountChange};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const OWN: &str = "/proc/self/exe";

/// Nothing can be written, cut or added, and no seal taken away.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Whether the file that we run from is sealed memory.
pub fn is_sealed() -> bool {
    File::open(OWN).is_ok_and(|own| rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS)))
}

/// What a hidden process may let go when it has nothing else to do: taking a mount away waits until no CPU
/// can see it any more, which on a busy host takes milliseconds. It closes at `execve`.
#[derive(Debug, Default)]
#[must_use]
pub struct Hidden(#[allow(dead_code, reason = "what counts is when it is closed")] Option<OwnedFd>);

/// From here on this process, and those that are cloned from it, show nothing of the file that they
/// run from. For a process with one thread, which may start anew here.
pub fn hide(name: &CStr) -> io::Result<Hidden> {
    match behind_a_mount(name) {
        Ok(mount) => Ok(Hidden(Some(mount))),
        Err(_) if is_sealed() => Ok(Hidden(None)),
        // In a user namespace, or in a kernel that is made without CHECKPOINT_RESTORE.
        Err(_) => {
            let copy = sealed_copy(name, Path::new(OWN))?;
            change_to(&copy, &copy).map_err(|_| execute(&copy))?;
            Ok(Hidden(None))
        }
    }
}

fn behind_a_mount(name: &CStr) -> io::Result<OwnedFd> {
    let mount = read_only_mount(Path::new(OWN))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let by_mount = rustix::fs::open(format!("/proc/self/fd/{}", mount.as_raw_fd()), flags, Mode::empty())?;
    match executable_memory(name) {
        Ok(empty) => {
            rustix::fs::fcntl_add_seals(&empty, SEALS)?;
            change_to(&by_mount, &empty)?;
        }
        // The host's rule against executing memory (vm.memfd_noexec=2, Linux 6.3): nobody can write
        // through the mount either.
        Err(Errno::ACCESS) => change_to(&by_mount, &by_mount)?,
        Err(errno) => return Err(errno.into()),
    }
    Ok(mount)
}

/// Runs on from `program`, which has the same content, and shows another file.
fn change_to(program: &OwnedFd, shown: &OwnedFd) -> io::Result<()> {
    sys::remap(&sys::mapped_program(), program.as_fd())?;
    match sys::set_program(shown.as_fd()) {
        // This takes `/proc/self/stat` to be read.
        Err(Errno::PERM) => Ok(sys::set_program_and_layout(layout(), shown.as_fd())?),
        result => Ok(result?),
    }
}

fn execute(program: &OwnedFd) -> io::Error {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).exec()
}

/// The program's file in memory that nobody can change.
pub fn sealed_copy(name: &CStr, program: &Path) -> io::Result<OwnedFd> {
    let mut copy = File::from(executable_memory(name)?);
    io::copy(&mut File::open(program)?, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}

/// A detached mount of the file through which nobody can write to it, as its own may be read-write.
pub fn read_only_mount(program: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, program, flags)?;
    let change = MountChange { read_only: true, private: true, ..MountChange::default() };
    sys::mount_setattr(mount.as_fd(), change)?;
    Ok(mount)
}

fn executable_memory(name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 every memfd can be executed and the flag is unknown.
    match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }
}

/// Where the kernel has our parts (proc_pid_stat(5)).
fn layout() -> Layout {
    let field = sys::stat_field;
    Layout {
        start_code: field(26),
        end_code: field(27),
        start_stack: field(28),
        start_data: field(45),
        end_data: field(46),
        start_brk: field(47),
        brk: sys::heap_end(),
        arg_start: field(48),
        arg_end: field(49),
        env_start: field(50),
        env_end: field(51),
    }
}
