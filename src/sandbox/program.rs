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

use crate::sys::{self, Errno, Layout, Mapping, MountChange};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::OpenTreeFlags;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
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

/// From here on this process, and those that are cloned from it, show nothing of the file that they
/// run from. For a process with one thread, which may start anew here.
pub fn hide(name: &CStr) -> io::Result<()> {
    match behind_a_mount(name) {
        Ok(()) => Ok(()),
        Err(_) if is_sealed() => Ok(()),
        // In a user namespace, or in a kernel that is made without CHECKPOINT_RESTORE.
        Err(_) => {
            let copy = sealed_copy(name, Path::new(OWN))?;
            change_to(&copy, &copy).or_else(|_| Err(execute(&copy)))
        }
    }
}

fn behind_a_mount(name: &CStr) -> io::Result<()> {
    let mount = read_only_mount(Path::new(OWN))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let by_mount = rustix::fs::open(format!("/proc/self/fd/{}", mount.as_raw_fd()), flags, Mode::empty())?;
    match executable_memory(name) {
        Ok(empty) => {
            rustix::fs::fcntl_add_seals(&empty, SEALS)?;
            change_to(&by_mount, &empty)
        }
        // The host's rule against executing memory (vm.memfd_noexec=2, Linux 6.3): nobody can write
        // through the mount either.
        Err(Errno::ACCESS) => change_to(&by_mount, &by_mount),
        Err(errno) => Err(errno.into()),
    }
}

/// Runs on from `program`, which has the same content, and shows another file.
fn change_to(program: &OwnedFd, shown: &OwnedFd) -> io::Result<()> {
    let layout = layout()?;
    let written = first_written(program)?;
    for mapping in mappings()? {
        let written = mapping.written || mapping.offset >= written;
        sys::remap(Mapping { written, ..mapping }, program.as_fd())?;
    }
    Ok(sys::set_program(layout, shown.as_fd())?)
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

fn not_understood(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What of the program's file is in our memory.
fn mappings() -> io::Result<Vec<Mapping>> {
    let own = std::fs::read_link(OWN)?;
    let maps = proc("/proc/self/maps")?;
    let of_program = maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let path = line.iter().position(|byte| *byte == b'/').and_then(|at| line.get(at..))?;
        (OsStr::from_bytes(path) == own.as_os_str()).then_some(line)
    });
    let mappings: Option<Vec<Mapping>> = of_program.map(mapping).collect();
    mappings.filter(|all| !all.is_empty()).ok_or_else(|| not_understood("/proc/self/maps"))
}

/// "55d0c8a00000-55d0c8a10000 r-xp 00001000 08:01 123  /path"
fn mapping(line: &[u8]) -> Option<Mapping> {
    let text = line.split(|byte| *byte == b'/').next()?;
    let mut fields = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let rights = fields.next()?.as_bytes();
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let bit = |at: usize, letter: u8, bit: i32| if rights.get(at) == Some(&letter) { bit } else { 0 };
    let protection = bit(0, b'r', libc::PROT_READ) | bit(1, b'w', libc::PROT_WRITE) | bit(2, b'x', libc::PROT_EXEC);
    let written = rights.get(1) == Some(&b'w');
    Some(Mapping { start: number(start)?, end: number(end)?, offset, protection, written })
}

/// Where in the file that begins which is written to after it is mapped, by whoever links it, and
/// protected again: the first loadable part that is writable (elf(5)).
fn first_written(program: &OwnedFd) -> io::Result<u64> {
    const LOAD: u64 = 1;
    const WRITABLE: u64 = 2;
    // The headers are at its beginning.
    let mut bytes = [0; PAGE];
    let length = rustix::io::pread(program, &mut bytes, 0)?;
    let bytes = bytes.get(..length).unwrap_or_default();
    let number = |at: u64, size: usize| -> io::Result<u64> {
        let at = usize::try_from(at).ok().and_then(|at| bytes.get(at..)?.get(..size));
        let at = at.ok_or_else(|| not_understood("the program's file"))?;
        Ok(at.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for header in (0..count).map(|index| table + index * size) {
        if number(header, 4)? == LOAD && number(header + 4, 4)? & WRITABLE != 0 {
            return Ok(number(header + 8, 8)? & !(PAGE as u64 - 1));
        }
    }
    Ok(u64::MAX)
}

const PAGE: usize = 4096;

/// A file of `/proc`, which says it all in a few pieces.
fn proc(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(2 * PAGE);
    File::open(path)?.read_to_end(&mut text)?;
    Ok(text)
}

/// Where the kernel has our parts (proc_pid_stat(5)).
fn layout() -> io::Result<Layout> {
    let stat = String::from_utf8_lossy(&proc("/proc/self/stat")?).into_owned();
    // The name before the bracket may hold anything; behind it the first field is the third.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let fields: Vec<u64> = fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let layout = Layout {
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
    };
    if layout.start_code == 0 { Err(not_understood("/proc/self/stat")) } else { Ok(layout) }
}
