//! The file that a process runs from, as the kernel knows it.

use super::{Errno, last_error};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A part of a program's file in the memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub start: usize,
    pub end: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// `PROT_*` bits.
    pub protection: i32,
    /// What is there may differ from what is in the file: it is written to now, or was before it was
    /// protected.
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

const PAGE: usize = 4096;

/// The parts of the program's file that are mapped, as its headers say (elf(5), `AT_PHDR` of getauxval(3));
/// none where these can't be found. Allocates.
pub fn mapped_program() -> Vec<Mapping> {
    // SAFETY: the call reads what the kernel has put on the first stack, and takes any number.
    let said = |kind| usize::try_from(unsafe { libc::getauxval(kind) }).unwrap_or(0);
    let (at, count) = (said(libc::AT_PHDR), said(libc::AT_PHNUM));
    let first = std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(at);
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: the kernel says that so many headers are there; they are part of the program as it was
    // loaded, are aligned, and nobody writes to them.
    let headers = unsafe { std::slice::from_raw_parts(first, count) };
    parts(headers, at)
}

/// `at` is where the first header is.
fn parts(headers: &[libc::Elf64_Phdr], at: usize) -> Vec<Mapping> {
    let find = |kind: u32| headers.iter().find(|header| header.p_type == kind);
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let down = |address: usize| address & !(PAGE - 1);
    let Some(base) = find(libc::PT_PHDR).and_then(|own| at.checked_sub(number(own.p_vaddr))) else { return Vec::new() };
    let place = |header: &libc::Elf64_Phdr| base.saturating_add(number(header.p_vaddr));
    // What the linker writes to before it is protected.
    let relocated = find(libc::PT_GNU_RELRO).map_or(0, |own| down(place(own).saturating_add(number(own.p_memsz))));
    let mut found = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz != 0) {
        let start = down(place(header));
        let end = down(place(header).saturating_add(number(header.p_filesz)).saturating_add(PAGE - 1));
        let has = |flag: u32, protection: i32| if header.p_flags & flag != 0 { protection } else { 0 };
        let (read, write) = (has(libc::PF_R, libc::PROT_READ), has(libc::PF_W, libc::PROT_WRITE));
        let protection = read | write | has(libc::PF_X, libc::PROT_EXEC);
        let written = write != 0;
        // Where the protected part of what is written to ends.
        let middle = if written { relocated.clamp(start, end) } else { end };
        for (start_here, end, protection) in [(start, middle, protection & !write), (middle, end, protection)] {
            let offset = (header.p_offset & !(PAGE as u64 - 1)) + (start_here - start) as u64;
            if start_here < end {
                found.push(Mapping { start: start_here, end, offset, protection, written });
            }
        }
    }
    found
}

/// The end of the heap (`brk(2)`).
pub fn heap_end() -> u64 {
    // SAFETY: an address of zero changes nothing and asks for the present end.
    let end = unsafe { libc::syscall(libc::SYS_brk, 0) };
    u64::try_from(end).unwrap_or(0)
}

/// Puts the same parts of the same file, by another way to it, in the place of mappings; of what was written
/// to, a copy of what is there.
///
/// For a process with one thread. `file` has to be the file that is mapped, and `mappings` are those of
/// [`mapped_program`].
pub fn remap(mappings: &[Mapping], file: BorrowedFd<'_>) -> Result<(), Errno> {
    // What is written to lies side by side, and moves as one.
    for parts in mappings.chunk_by(|one, next| one.written && next.written && one.end == next.start) {
        match parts {
            [Mapping { written: false, .. }] => map_anew(parts[0], file)?,
            parts => copy(parts)?,
        }
    }
    Ok(())
}

fn map_anew(mapping: Mapping, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(mapping.start);
    let offset = libc::off_t::try_from(mapping.offset).map_err(|_| Errno::INVAL)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: what is at `at` is replaced, in one step, by the same bytes of the same file with the
    // same protection: code that runs there and constants that are read there stay what they are.
    let new = unsafe { libc::mmap(at, mapping.length(), mapping.protection, flags, file.as_raw_fd(), offset) };
    if new == libc::MAP_FAILED { Err(last_error()) } else { Ok(()) }
}

/// Of parts that lie side by side.
fn copy(parts: &[Mapping]) -> Result<(), Errno> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(()) };
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(first.start);
    let length = last.end - first.start;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // All of it is written to at once: no fault for each page.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: new memory at a place of the kernel's choice; nothing of ours is touched.
    let copy = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    if copy == libc::MAP_FAILED {
        return Err(last_error());
    }
    // SAFETY: both are mapped for this length, the first one readable and the second one writable, and do
    // not overlap.
    unsafe { std::ptr::copy_nonoverlapping(at.cast::<u8>(), copy.cast::<u8>(), length) };
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: in one step the copy takes the place of what it was made from. Nothing was written there
    // since: there is one thread, and between the two calls it writes to its stack and its errno alone.
    let moved = unsafe { libc::mremap(copy, length, length, flags, at) };
    if moved == libc::MAP_FAILED {
        return Err(last_error());
    }
    for part in parts.iter().filter(|part| part.protection != protection) {
        let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(part.start);
        // SAFETY: the part is ours, and nobody writes to it: it was protected before.
        super::process::done(unsafe { libc::mprotect(at, part.length(), part.protection) }.into())?;
    }
    Ok(())
}

/// Gives the pages of a part of the program back that nobody has written to: they are read from the file
/// again when they are needed (`MADV_DONTNEED` of madvise(2)). A part that is written to stays as it is.
pub fn forget(mapping: Mapping) -> Result<(), Errno> {
    if mapping.written {
        return Ok(());
    }
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(mapping.start);
    // SAFETY: what is mapped there is a private mapping of a file without a page that differs from it, so
    // what is read there, or runs there, stays what it is.
    super::process::done(libc::c_long::from(unsafe { libc::madvise(at, mapping.length(), libc::MADV_DONTNEED) }))
}

/// Has the allocator give back what is large as soon as it is freed, for a program that lives long and is large
/// for moments only: `M_MMAP_THRESHOLD` of mallopt(3), which otherwise grows with what was freed. To be called
/// before there are threads.
pub fn keep_no_large_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: an integer for an integer; nothing of what is allocated is touched.
    let _kept_otherwise = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10) };
}

/// Gives memory that was freed back to the kernel (`malloc_trim(3)`).
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// `/proc/self/exe` is `program` from here on (`PR_SET_MM_EXE_FILE`, proc(5)): in this process and in those
/// that are cloned from it, until they execute another one. `BUSY` while the old one is mapped, `PERM` for
/// who has no SYS_RESOURCE on the host.
pub fn set_program(program: BorrowedFd<'_>) -> Result<(), Errno> {
    let number = libc::c_long::from(program.as_raw_fd());
    // SAFETY: integers alone; what the kernel notes down it only shows to others.
    let result = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, number, 0, 0) };
    super::process::done(result)
}

/// As [`set_program`], and all else that the kernel notes of a program's parts, for who has CHECKPOINT_RESTORE
/// where he is (`PR_SET_MM_MAP`).
pub fn set_program_and_layout(layout: Layout, program: BorrowedFd<'_>) -> Result<(), Errno> {
    const SET_MM_MAP: libc::c_int = 14;
    let exe_fd = u32::try_from(program.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let map = MemoryMap { layout, auxv: 0, auxv_size: 0, exe_fd };
    // SAFETY: the kernel reads a prctl_mm_map of the size given, which outlives the call, and checks
    // every address in it; what it notes down it only shows to others.
    let result = unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    };
    super::process::done(result)
}
