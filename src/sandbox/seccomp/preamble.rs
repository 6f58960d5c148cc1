//! What comes before the library's filter: system calls that are newer than the library.

use super::{Action, Arch};

/// The size of one instruction (`struct sock_filter`).
pub(super) const INSTRUCTION: usize = 8;

/// System calls that libseccomp 2.5.4 does not know. From 424 on numbers are the same on all machines.
const NEWER: [(&str, u32); 19] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

pub(super) fn newer(name: &str) -> Option<u32> {
    NEWER.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

// Classic BPF (linux/bpf_common.h): class | size or operation | mode or source.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;

const ERRNO: u32 = 0x0005_0000;

/// `SECCOMP_RET_*` (linux/seccomp.h).
pub(super) fn answer(action: Action, errno: u16) -> u32 {
    match action {
        Action::Allow => 0x7fff_0000,
        Action::Errno => ERRNO | u32::from(errno),
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Trace => 0x7ff0_0000 | u32::from(errno),
        Action::Log => 0x7ffc_0000,
        Action::Notify => 0x7fc0_0000,
    }
}

/// x32 shares its machine with x86-64 and has this bit in its numbers.
const X32_BIT: u32 = 0x4000_0000;

fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> [u8; INSTRUCTION] {
    let [c0, c1] = code.to_ne_bytes();
    let [k0, k1, k2, k3] = k.to_ne_bytes();
    [c0, c1, jump_true, jump_false, k0, k1, k2, k3]
}

/// The audit number of a machine (linux/audit.h), where the calls of an architecture start, and where
/// the next one's do.
fn machine(arch: Arch) -> Option<(u32, u32)> {
    match arch {
        Arch::X8664 => Some((0xc000_003e, 0)),
        Arch::X32 => Some((0xc000_003e, X32_BIT)),
        Arch::X86 => Some((0x4000_0003, 0)),
        Arch::Aarch64 => Some((0xc000_00b7, 0)),
        Arch::Arm => Some((0x4000_0028, 0)),
        Arch::Other => None,
    }
}

/// Puts the newer system calls before `body`: `listed` ones have their own answer, as the kernel takes
/// it. Others above the newest known one of their architecture answer ENOSYS, or go on to `body` as all
/// else does where `open`.
pub(super) fn prepend(
    arches: &[Arch],
    known: impl Fn(Arch) -> Option<u32>,
    listed: &mut Vec<(u32, u32)>,
    open: bool,
    body: &[u8],
) -> Vec<u8> {
    // What was said first counts, as in the library.
    listed.sort_by_key(|(number, _)| *number);
    listed.dedup_by_key(|(number, _)| *number);
    let mut program: Vec<[u8; INSTRUCTION]> = Vec::new();
    for arch in arches {
        let (Some((machine, first)), Some(known)) = (machine(*arch), known(*arch)) else { continue };
        // Numbers of x32 carry the bit already where the library gives them.
        let newest = if known >= first { known } else { known + first };
        let block = block(newest, first, listed, open);
        if block.is_empty() {
            continue;
        }
        // What does not concern this block jumps over it. Arm has calls of its own far above the others.
        let over = |from: usize| u8::try_from(block.len() + from).unwrap_or(u8::MAX);
        program.push(instruction(LOAD, 0, 0, MACHINE));
        program.push(instruction(JUMP_EQUAL, 0, over(2 + usize::from(first == 0)), machine));
        program.push(instruction(LOAD, 0, 0, NUMBER));
        if first == 0 {
            program.push(instruction(JUMP_AT_LEAST, over(1), 0, X32_BIT));
        }
        program.push(instruction(JUMP_GREATER, 0, over(0), newest));
        program.extend(block);
    }
    program.concat().into_iter().chain(body.iter().copied()).collect()
}

/// For numbers above `newest`.
fn block(newest: u32, first: u32, listed: &[(u32, u32)], open: bool) -> Vec<[u8; INSTRUCTION]> {
    let mut program = Vec::new();
    for (from, to, answer) in ranges(listed) {
        let (from, to) = (from + first, to + first);
        if to <= newest {
            continue;
        }
        // Below the range: on to the next comparison, which will not match either.
        program.push(instruction(JUMP_AT_LEAST, 0, 2, from));
        program.push(instruction(JUMP_GREATER, 1, 0, to));
        program.push(instruction(RETURN, 0, 0, answer));
    }
    if !open {
        program.push(instruction(RETURN, 0, 0, ERRNO | libc::ENOSYS.cast_unsigned()));
    }
    program
}

fn ranges(listed: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (number, answer) in listed {
        match ranges.last_mut() {
            Some((_, to, same)) if *to + 1 == *number && same == answer => *to = *number,
            _ => ranges.push((*number, *number, *answer)),
        }
    }
    ranges
}
