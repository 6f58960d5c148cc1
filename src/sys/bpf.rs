//! Programs that decide about devices in a cgroup (`bpf(2)`, `BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).

use super::{Errno, last_error};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction, as the kernel reads it (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    pub code: u8,
    /// The destination in one half, the source in the other.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What a program is called: at most 15 of letters, digits, `_` and `.`, then zeroes.
pub type BpfName = [u8; 16];

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// A part of `union bpf_attr` that belongs to one command. What the kernel knows behind its end is taken
/// for zeroes.
trait Attributes {}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: BpfName,
    interface: u32,
    expected_attachment: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    program: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    before: [u64; 8],
    name: BpfName,
}

impl Attributes for Load {}
impl Attributes for Attach {}
impl Attributes for Query {}
impl Attributes for ById {}
impl Attributes for Info {}

fn bpf<T: Attributes>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_int, Errno> {
    // SAFETY: `attributes` is the command's part of the union and of the size given. The addresses in it
    // are those of buffers that the callers below borrow for the length of the call, with their sizes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(last_error()) } else { libc::c_int::try_from(result).map_err(|_| Errno::BADF) }
}

fn address<T>(of: *const T) -> u64 {
    u64::try_from(of.addr()).unwrap_or(0)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the call that returned `fd` has just made it, close-on-exec, and nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has a program checked and kept by the kernel. `log`, where it is not empty, is where the verifier
/// writes what it thinks.
pub fn bpf_load_device_program(name: BpfName, program: &[BpfInstruction], log: &mut [u8]) -> Result<OwnedFd, Errno> {
    // It calls no function that would ask for another one.
    let license = c"MIT";
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: address(program.as_ptr()),
        license: address(license.as_ptr()),
        name,
        ..Load::default()
    };
    if !log.is_empty() {
        load.log_level = 1;
        load.log_size = u32::try_from(log.len()).map_err(|_| Errno::INVAL)?;
        load.log = address(log.as_mut_ptr());
    }
    bpf(PROG_LOAD, &mut load).map(owned)
}

/// Attaches a program to a cgroup beside those of others, in the place of another one if one is given:
/// at no moment is neither in force (`BPF_F_REPLACE`, Linux 5.6).
pub fn bpf_attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attach = Attach {
        target: number(cgroup),
        program: number(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, number),
    };
    bpf(PROG_ATTACH, &mut attach).map(drop)
}

/// Takes a program off a cgroup.
pub fn bpf_detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attach =
        Attach { target: number(cgroup), program: number(program), kind: ATTACH_CGROUP_DEVICE, ..Attach::default() };
    bpf(PROG_DETACH, &mut attach).map(drop)
}

/// The ids of the programs that are attached to a cgroup itself; how many there are. `NOSPC` when there
/// are more than `ids` holds.
pub fn bpf_device_programs(cgroup: BorrowedFd<'_>, ids: &mut [u32]) -> Result<usize, Errno> {
    let mut query = Query {
        target: number(cgroup),
        kind: ATTACH_CGROUP_DEVICE,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(ids.len()).map_err(|_| Errno::INVAL)?,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut query)?;
    usize::try_from(query.count).map_err(|_| Errno::INVAL)
}

/// A program by its id; `NOENT` when it is gone.
pub fn bpf_program(id: u32) -> Result<OwnedFd, Errno> {
    bpf(PROG_GET_FD_BY_ID, &mut ById { id, ..ById::default() }).map(owned)
}

/// What a program was called when it was loaded.
pub fn bpf_program_name(program: BorrowedFd<'_>) -> Result<BpfName, Errno> {
    let mut info = ProgramInfo::default();
    let length = u32::try_from(size_of::<ProgramInfo>()).map_err(|_| Errno::INVAL)?;
    bpf(OBJ_GET_INFO_BY_FD, &mut Info { program: number(program), length, info: address(&raw mut info) })?;
    Ok(info.name)
}
