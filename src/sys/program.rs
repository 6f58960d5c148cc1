//! The file that a process runs from, as the kernel knows it.

use super::{Errno, last_error};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A part of a program file in the memory of this process (proc_pid_maps(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// `PROT_*` bits.
    pub protection: i32,
    /// What is there may differ from what is in the file.
    pub written: bool,
}

impl Mapping {
    fn length(self) -> usize {
        self.end - self.start
    }
}

/// Where the kernel has a process's parts, as `prctl(PR_SET_MM_MAP)` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct MemoryMap {
    layout: Layout,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// The end of the heap (`brk(2)`).
pub fn heap_end() -> u64 {
    // SAFETY: an address of zero changes nothing and asks for the present end.
    let end = unsafe { libc::syscall(libc::SYS_brk, 0) };
    u64::try_from(end).unwrap_or(0)
}

/// Puts the same part of the same file, by another way to it, in a mapping's place; where it was
/// written to, a copy of what is there.
///
/// For a process with one thread. `file` has to be the file that is mapped.
pub fn remap(mapping: Mapping, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(mapping.start);
    let offset = libc::off_t::try_from(mapping.offset).map_err(|_| Errno::INVAL)?;
    if !mapping.written {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: what is at `at` is replaced, in one step, by the same bytes of the same file with the
        // same protection: code that runs there and constants that are read there stay what they are.
        let new = unsafe { libc::mmap(at, mapping.length(), mapping.protection, flags, file.as_raw_fd(), offset) };
        return if new == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) };
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory at a place of the kernel's choice; nothing of ours is touched.
    let copy = unsafe { libc::mmap(std::ptr::null_mut(), mapping.length(), protection, flags, -1, 0) };
    if copy == libc::MAP_FAILED {
        return Err(last_error());
    }
    // SAFETY: both are mapped for this length, readable and writable, and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(at.cast::<u8>(), copy.cast::<u8>(), mapping.length()) };
    // SAFETY: `copy` is ours alone; its bytes stay.
    let protected = unsafe { libc::mprotect(copy, mapping.length(), mapping.protection) };
    if protected < 0 {
        return Err(last_error());
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: in one step the copy takes the place of what it was made from. Nothing was written there
    // since: there is one thread, and between the two calls it writes to its stack and its errno alone.
    let moved = unsafe { libc::mremap(copy, mapping.length(), mapping.length(), flags, at) };
    if moved == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) }
}

/// `/proc/self/exe` is `program` from here on (`PR_SET_MM_MAP`, proc(5)): in this process and in those
/// that are cloned from it, until they execute another one. `BUSY` while the old one is mapped.
pub fn set_program(layout: Layout, program: BorrowedFd<'_>) -> Result<(), Errno> {
    const SET_MM: libc::c_int = 35;
    const SET_MM_MAP: libc::c_int = 14;
    let exe_fd = u32::try_from(program.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let map = MemoryMap { layout, auxv: 0, auxv_size: 0, exe_fd };
    // SAFETY: the kernel reads a prctl_mm_map of the size given, which outlives the call, and checks
    // every address in it; what it notes down it only shows to others.
    let result =
        unsafe { libc::syscall(libc::SYS_prctl, SET_MM, SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}
