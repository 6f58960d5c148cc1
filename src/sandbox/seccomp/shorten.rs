//! A shorter filter with the same answers.
//!
//! What the library compiles asks for one system call after the other, once for each architecture,
//! and the kernel converts, checks and translates every instruction at every start (and walks through
//! all of them once for each system call, to know those that are always allowed). Here a filter is
//! followed for every number that it can tell apart, up to the answer or to the first look at an
//! argument, and put together anew: a search tree over ranges of numbers for each architecture, with
//! the parts that look at arguments copied as they are.

use std::collections::{BTreeMap, BTreeSet};

/// `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

const SIZE: usize = super::preamble::INSTRUCTION;

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// struct seccomp_data of linux/seccomp.h
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Where a filter leads for one number on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaf {
    Answer(u32),
    /// The instruction that loads the first argument.
    Arguments(usize),
}

/// The filter with fewer instructions; as it was where it does something that is not known here, or
/// would not get shorter.
pub(super) fn shorten(filter: Vec<u8>) -> Vec<u8> {
    match shortened(&filter) {
        Some(shorter) if shorter.len() < filter.len() => shorter,
        _ => filter,
    }
}

fn shortened(filter: &[u8]) -> Option<Vec<u8>> {
    let program = decode(filter)?;
    let compared = compared(&program)?;
    let mut trees = Vec::new();
    for architecture in &compared.architectures {
        trees.push((*architecture, ranges(&program, *architecture, &compared.borders)?));
    }
    // All other architectures are alike; one that is not compared with stands for them.
    let other = (0..).find(|one| !compared.architectures.contains(one))?;
    let others = ranges(&program, other, &compared.borders)?;
    Some(encode(&assemble(&program, &trees, &others)?))
}

fn decode(filter: &[u8]) -> Option<Vec<Instruction>> {
    let one = |chunk: &[u8]| match chunk {
        [c0, c1, jt, jf, k0, k1, k2, k3] => Some(Instruction {
            code: u16::from_ne_bytes([*c0, *c1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
        }),
        _ => None,
    };
    filter.chunks(SIZE).map(one).collect()
}

fn encode(program: &[Instruction]) -> Vec<u8> {
    let one = |instruction: &Instruction| {
        let ([c0, c1], [k0, k1, k2, k3]) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
        [c0, c1, instruction.jt, instruction.jf, k0, k1, k2, k3]
    };
    program.iter().flat_map(one).collect()
}

/// What the filter can tell apart.
struct Compared {
    architectures: BTreeSet<u32>,
    /// The first number of each range of numbers that are never told apart.
    borders: BTreeSet<u32>,
}

/// What is in the accumulator, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loaded {
    Nothing,
    Architecture,
    Number,
}

/// Follows every way through the filter up to arguments and answers.
fn compared(program: &[Instruction]) -> Option<Compared> {
    let mut compared = Compared { architectures: BTreeSet::new(), borders: BTreeSet::from([0]) };
    let mut seen = BTreeSet::new();
    let mut open = vec![(0, Loaded::Nothing)];
    while let Some((at, loaded)) = open.pop() {
        if !seen.insert((at, loaded)) {
            continue;
        }
        let Instruction { code, k, .. } = *program.get(at)?;
        match (code, loaded) {
            (RETURN, _) => continue,
            (LOAD, _) if k != NUMBER && k != ARCHITECTURE => continue,
            (LOAD | JUMP, _) => {}
            (EQUAL, Loaded::Architecture) => {
                compared.architectures.insert(k);
            }
            (EQUAL | GREATER | GREATER_EQUAL, Loaded::Number) => {
                if code != GREATER {
                    compared.borders.insert(k);
                }
                if code != GREATER_EQUAL {
                    compared.borders.extend(k.checked_add(1));
                }
            }
            _ => return None,
        }
        open.extend(next(program, at, loaded).into_iter().flatten());
    }
    Some(compared)
}

fn load(k: u32) -> Loaded {
    if k == NUMBER { Loaded::Number } else { Loaded::Architecture }
}

/// Both ways on from an instruction.
fn next(program: &[Instruction], at: usize, loaded: Loaded) -> [Option<(usize, Loaded)>; 2] {
    let Some(Instruction { code, jt, jf, k }) = program.get(at).copied() else { return [None, None] };
    match code {
        LOAD => [Some((at + 1, load(k))), None],
        JUMP => [jump(at, k).map(|to| (to, loaded)), None],
        _ => [Some((at + 1 + usize::from(jt), loaded)), Some((at + 1 + usize::from(jf), loaded))],
    }
}

fn jump(at: usize, k: u32) -> Option<usize> {
    (at + 1).checked_add(usize::try_from(k).ok()?)
}

/// Ranges of numbers, by the first of each, and where they lead.
fn ranges(program: &[Instruction], architecture: u32, borders: &BTreeSet<u32>) -> Option<Vec<(u32, Leaf)>> {
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    for first in borders {
        let leaf = follow(program, architecture, *first)?;
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((*first, leaf));
        }
    }
    Some(ranges)
}

fn follow(program: &[Instruction], architecture: u32, number: u32) -> Option<Leaf> {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        let holds = match code {
            RETURN => return Some(Leaf::Answer(k)),
            LOAD if k == NUMBER || k == ARCHITECTURE => {
                accumulator = if k == NUMBER { number } else { architecture };
                at += 1;
                continue;
            }
            LOAD => return Some(Leaf::Arguments(at)),
            JUMP => {
                at = jump(at, k)?;
                continue;
            }
            EQUAL => accumulator == k,
            GREATER => accumulator > k,
            GREATER_EQUAL => accumulator >= k,
            _ => return None,
        };
        at += 1 + usize::from(if holds { jt } else { jf });
    }
}

/// A program that is written from its end, so that every jump goes to what is there already.
struct Assembly {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where the newest copy of an answer is.
    answers: BTreeMap<u32, usize>,
    /// Where what looks at arguments has been copied to.
    copied: BTreeMap<usize, usize>,
}

impl Assembly {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// How far it is to `target` from an instruction that is pushed after `between` others.
    fn distance(&self, target: usize, between: usize) -> usize {
        self.reversed.len() + between - target - 1
    }

    fn answer(&mut self, answer: u32) -> usize {
        match self.answers.get(&answer) {
            Some(at) if self.distance(*at, 0) < NEAR => *at,
            _ => {
                let at = self.push(RETURN, 0, 0, answer);
                self.answers.insert(answer, at);
                at
            }
        }
    }

    /// A place near enough for a comparison that leads to `target`.
    fn near(&mut self, target: usize) -> Option<usize> {
        if self.distance(target, 0) < NEAR {
            return Some(target);
        }
        match self.reversed.get(target)? {
            Instruction { code: RETURN, k, .. } => Some(self.answer(*k)),
            _ => {
                let distance = u32::try_from(self.distance(target, 0)).ok()?;
                Some(self.push(JUMP, 0, 0, distance))
            }
        }
    }

    fn compare(&mut self, code: u16, k: u32, yes: usize, no: usize) -> Option<usize> {
        let (yes, no) = (self.near(yes)?, self.near(no)?);
        let short = |distance: usize| u8::try_from(distance).ok();
        let (jt, jf) = (short(self.distance(yes, 0))?, short(self.distance(no, 0))?);
        Some(self.push(code, jt, jf, k))
    }

    fn leaf(&mut self, leaf: Leaf) -> Option<usize> {
        match leaf {
            Leaf::Answer(answer) => Some(self.answer(answer)),
            Leaf::Arguments(at) => self.copied.get(&at).copied(),
        }
    }

    /// Where the search in these ranges begins.
    fn tree(&mut self, ranges: &[(u32, Leaf)]) -> Option<usize> {
        if let [(_, leaf)] = ranges {
            return self.leaf(*leaf);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let border = high.first()?.0;
        let high = self.tree(high)?;
        let low = self.tree(low)?;
        self.compare(GREATER_EQUAL, border, high, low)
    }

    /// The search in these ranges, with the number loaded.
    fn search(&mut self, ranges: &[(u32, Leaf)]) -> Option<usize> {
        let tree = self.tree(ranges)?;
        if let [_] = ranges {
            return Some(tree);
        }
        // What is loaded goes on to the next instruction.
        if tree + 1 != self.reversed.len() {
            let distance = u32::try_from(self.distance(tree, 0)).ok()?;
            self.push(JUMP, 0, 0, distance);
        }
        Some(self.push(LOAD, 0, 0, NUMBER))
    }
}

/// Below what a comparison can jump, with room for what may come in between.
const NEAR: usize = 250;

fn assemble(
    program: &[Instruction],
    trees: &[(u32, Vec<(u32, Leaf)>)],
    others: &[(u32, Leaf)],
) -> Option<Vec<Instruction>> {
    let mut assembly = Assembly { reversed: Vec::new(), answers: BTreeMap::new(), copied: BTreeMap::new() };
    let leaves = trees.iter().flat_map(|(_, ranges)| ranges).chain(others).map(|(_, leaf)| *leaf);
    copy(program, leaves, &mut assembly)?;
    let mut entry = assembly.search(others)?;
    for (architecture, ranges) in trees.iter().rev() {
        let search = assembly.search(ranges)?;
        entry = assembly.compare(EQUAL, *architecture, search, entry)?;
    }
    if entry + 1 != assembly.reversed.len() {
        let distance = u32::try_from(assembly.distance(entry, 0)).ok()?;
        assembly.push(JUMP, 0, 0, distance);
    }
    assembly.push(LOAD, 0, 0, ARCHITECTURE);
    assembly.reversed.reverse();
    Some(assembly.reversed)
}

/// Everything that can be reached from where arguments are looked at, in its order: jumps only get
/// shorter.
fn copy(program: &[Instruction], leaves: impl Iterator<Item = Leaf>, assembly: &mut Assembly) -> Option<()> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<usize> = leaves
        .filter_map(|leaf| match leaf {
            Leaf::Arguments(at) => Some(at),
            Leaf::Answer(_) => None,
        })
        .collect();
    while let Some(at) = open.pop() {
        let instruction = program.get(at)?;
        if !reached.insert(at) {
            continue;
        }
        match instruction.code {
            RETURN => {}
            // Whether it loads, calculates or stores: it goes on behind.
            code if code & CLASS != JUMPS => open.push(at + 1),
            _ => open.extend(next(program, at, Loaded::Nothing).into_iter().flatten().map(|(to, _)| to)),
        }
    }
    for at in reached.into_iter().rev() {
        let mut instruction = *program.get(at)?;
        let distance = |assembly: &Assembly, to: usize| Some(assembly.distance(*assembly.copied.get(&to)?, 0));
        match instruction.code {
            RETURN => {}
            JUMP => instruction.k = u32::try_from(distance(assembly, jump(at, instruction.k)?)?).ok()?,
            code if code & CLASS == JUMPS => {
                let to = |offset: u8| at + 1 + usize::from(offset);
                instruction.jt = u8::try_from(distance(assembly, to(instruction.jt))?).ok()?;
                instruction.jf = u8::try_from(distance(assembly, to(instruction.jf))?).ok()?;
            }
            _ => {}
        }
        assembly.reversed.push(instruction);
        assembly.copied.insert(at, assembly.reversed.len() - 1);
    }
    Some(())
}

const CLASS: u16 = 0x07;
const JUMPS: u16 = 0x05;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::seccomp::{self, Arch, Profile, default_profile};
    use proptest::prelude::*;

    /// What a filter answers; every instruction that filters may be made of.
    fn answer(program: &[Instruction], data: [u32; 16]) -> u32 {
        let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0usize);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let holds = match code {
                LOAD => {
                    a = data[k as usize / 4];
                    at += 1;
                    continue;
                }
                JUMP => {
                    at += 1 + k as usize;
                    continue;
                }
                0x54 | 0x02 | 0x60 | 0x61 | 0x07 | 0x87 | 0x00 => {
                    match code {
                        0x54 => a &= k,
                        0x02 => memory[k as usize] = a,
                        0x60 => a = memory[k as usize],
                        0x61 => x = memory[k as usize],
                        0x07 => x = a,
                        0x87 => a = x,
                        _ => a = k,
                    }
                    at += 1;
                    continue;
                }
                RETURN => return k,
                EQUAL => a == k,
                GREATER => a > k,
                GREATER_EQUAL => a >= k,
                0x45 => a & k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += 1 + usize::from(if holds { jt } else { jf });
        }
    }

    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;

    fn all_machines() -> Profile {
        Profile { architectures: vec![Arch::X8664, Arch::X86, Arch::X32], ..default_profile() }
    }

    #[test]
    fn every_number_has_the_same_answer() {
        let long = seccomp::compile_long(&all_machines(), 0).unwrap();
        let short = decode(&shortened(&long).unwrap()).unwrap();
        let long = decode(&long).unwrap();

        for machine in [X86_64, X86, 0, 0xdead_beef] {
            for number in (0..1000).chain(0x3fff_ff00..0x4000_0400).chain(0xffff_ff00..=0xffff_ffff) {
                for argument in [0, 1, 0x8, 0x1000_0011, 0x7e02_0000, u32::MAX] {
                    let mut data = [argument; 16];
                    (data[0], data[1]) = (number, machine);
                    assert_eq!(answer(&short, data), answer(&long, data), "{machine:#x} {number:#x} {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn a_filter_for_three_architectures_is_a_third_as_long() {
        let long = seccomp::compile_long(&all_machines(), 0).unwrap();

        let short = shorten(long.clone());

        assert!(short.len() * 3 < long.len(), "{} of {}", short.len() / SIZE, long.len() / SIZE);
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        // The number, with some bits taken away before it is compared.
        let masked = [(LOAD, 0, 0, NUMBER), (0x54, 0, 0, 0xff), (EQUAL, 0, 1, 7), (RETURN, 0, 0, 1), (RETURN, 0, 0, 2)];
        let masked = encode(&masked.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }));

        assert_eq!(shorten(masked.clone()), masked);
        assert_eq!(shorten(vec![1, 2, 3]), [1, 2, 3]);
        assert_eq!(shorten(Vec::new()), [0; 0]);
    }

    proptest! {
        #[test]
        fn the_answers_are_the_same_for_random_calls(
            machine in prop_oneof![Just(X86_64), Just(X86), any::<u32>()],
            number in prop_oneof![0u32..500, 0x4000_0000u32..0x4000_0300, any::<u32>()],
            arguments in prop::array::uniform14(any::<u32>()),
        ) {
            thread_local! {
                static FILTERS: (Vec<Instruction>, Vec<Instruction>) = {
                    let long = seccomp::compile_long(&all_machines(), 0).unwrap();
                    (decode(&long).unwrap(), decode(&shortened(&long).unwrap()).unwrap())
                };
            }
            let mut data = [0; 16];
            (data[0], data[1]) = (number, machine);
            data[2..].copy_from_slice(&arguments);
            let (long, short) = FILTERS.with(|(long, short)| (answer(long, data), answer(short, data)));
            prop_assert_eq!(short, long);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            shorten(bytes);
        }
    }
}
