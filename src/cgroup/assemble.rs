//! From rules about devices to a program that the kernel runs at every open and mknod.
//!
//! Rules are looked at from the last to the first. What is left of a request is in a register: a rule
//! that allows takes away what it allows, one that denies ends it when something of its own is left.
//! So of every single right (read, write, make) the last rule that names it decides.

use super::access::{Access, DeviceKind, DeviceRule, Verdict};
use crate::sys::BpfInstruction;

/// Registers: what is returned, the request (later a scratch register), and the request's parts.
const RESULT: u8 = 0;
const REQUEST: u8 = 1;
const KIND: u8 = 2;
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Opcodes (Documentation/bpf/standardization/instruction-set.rst); comparisons are of 32 bits (Linux 5.1).
pub(super) const LOAD_WORD: u8 = 0x61;
pub(super) const MOVE_NUMBER: u8 = 0xb4;
pub(super) const MOVE: u8 = 0xbc;
pub(super) const AND_NUMBER: u8 = 0x54;
pub(super) const SHIFT_RIGHT: u8 = 0x74;
pub(super) const JUMP_UNEQUAL: u8 = 0x56;
pub(super) const JUMP_EQUAL: u8 = 0x16;
pub(super) const EXIT: u8 = 0x95;

/// `struct bpf_cgroup_dev_ctx`: kind and access in one word, then the two numbers.
const KIND_AND_ACCESS: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;
const KIND_BITS: i32 = 0xffff;
const ACCESS_SHIFT: i32 = 16;

pub(super) fn kind_number(kind: DeviceKind) -> i32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    }
}

/// The whole program; what no rule names is denied.
pub(super) fn assemble(rules: &[DeviceRule]) -> Vec<BpfInstruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, REQUEST, KIND_AND_ACCESS, 0),
        instruction(MOVE, LEFT, KIND, 0, 0),
        instruction(AND_NUMBER, KIND, 0, 0, KIND_BITS),
        instruction(SHIFT_RIGHT, LEFT, 0, 0, ACCESS_SHIFT),
        instruction(LOAD_WORD, MAJOR, REQUEST, MAJOR_AT, 0),
        instruction(LOAD_WORD, MINOR, REQUEST, MINOR_AT, 0),
    ];
    for rule in rules.iter().rev() {
        block(&mut program, rule);
        if rule.is_for_everything() {
            // The verifier takes no program in which something can never be reached.
            return program;
        }
    }
    end(&mut program, Verdict::Deny);
    program
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> BpfInstruction {
    let registers = if cfg!(target_endian = "big") { destination << 4 | source } else { source << 4 | destination };
    BpfInstruction { code, registers, offset, immediate }
}

fn end(program: &mut Vec<BpfInstruction>, verdict: Verdict) {
    program.push(instruction(MOVE_NUMBER, RESULT, 0, 0, i32::from(verdict == Verdict::Allow)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
}

fn block(program: &mut Vec<BpfInstruction>, rule: &DeviceRule) {
    let DeviceRule { verdict, kind, major, minor, access } = *rule;
    let mut body = Vec::new();
    let checks =
        [(KIND, kind.map(kind_number)), (MAJOR, major.map(u32::cast_signed)), (MINOR, minor.map(u32::cast_signed))];
    for (register, number) in checks {
        if let Some(number) = number {
            body.push(instruction(JUMP_UNEQUAL, register, 0, 0, number));
        }
    }
    if access != Access::ALL {
        let bits = i32::from(access.bits());
        match verdict {
            Verdict::Allow => {
                body.push(instruction(AND_NUMBER, LEFT, 0, 0, !bits));
                body.push(instruction(JUMP_UNEQUAL, LEFT, 0, 0, 0));
            }
            Verdict::Deny => {
                body.push(instruction(MOVE, REQUEST, LEFT, 0, 0));
                body.push(instruction(AND_NUMBER, REQUEST, 0, 0, bits));
                body.push(instruction(JUMP_EQUAL, REQUEST, 0, 0, 0));
            }
        }
    }
    end(&mut body, verdict);
    // Every jump leads behind the block; it has at most eight instructions.
    for (ahead, one) in (0_i16..).zip(body.iter_mut().rev()) {
        if matches!(one.code, JUMP_UNEQUAL | JUMP_EQUAL) {
            one.offset = ahead;
        }
    }
    program.append(&mut body);
}

#[cfg(test)]
mod tests {
    use super::super::access::DeviceRequest;
    use super::*;
    use proptest::prelude::*;

    /// Runs the few instructions that there are; `None` where the kernel would refuse the program.
    fn interpret(program: &[BpfInstruction], request: DeviceRequest) -> Option<u64> {
        let word = u32::from(request.access.bits()) << 16 | kind_number(request.kind).cast_unsigned();
        let context = [word, request.major, request.minor];
        let mut registers = [0_u64; 11];
        let mut at = 0_usize;
        // There are no loops: each instruction is run once at most.
        for _ in 0..=program.len() {
            let one = program.get(at)?;
            let (source, destination) = (usize::from(one.registers >> 4), usize::from(one.registers & 15));
            let immediate = u64::from(one.immediate.cast_unsigned());
            let low = registers[destination] & u64::from(u32::MAX);
            at += 1;
            match one.code {
                LOAD_WORD => registers[destination] = (*context.get(usize::try_from(one.offset).ok()? / 4)?).into(),
                MOVE_NUMBER => registers[destination] = immediate,
                MOVE => registers[destination] = registers[source],
                AND_NUMBER => registers[destination] = low & immediate,
                SHIFT_RIGHT => registers[destination] = low >> immediate,
                JUMP_UNEQUAL if low != immediate => at += usize::try_from(one.offset).ok()?,
                JUMP_EQUAL if low == immediate => at += usize::try_from(one.offset).ok()?,
                JUMP_UNEQUAL | JUMP_EQUAL => {}
                EXIT => return Some(registers[0]),
                _ => return None,
            }
        }
        None
    }

    /// For each right that is asked for, the last rule that names it.
    fn directly(rules: &[DeviceRule], request: DeviceRequest) -> bool {
        let fits = |rule: &DeviceRule| {
            rule.kind.is_none_or(|kind| kind == request.kind)
                && rule.major.is_none_or(|major| major == request.major)
                && rule.minor.is_none_or(|minor| minor == request.minor)
        };
        [1_u8, 2, 4].into_iter().filter(|bit| request.access.bits() & bit != 0).all(|bit| {
            let last = rules.iter().rev().find(|rule| fits(rule) && rule.access.bits() & bit != 0);
            last.is_some_and(|rule| rule.verdict == Verdict::Allow)
        })
    }

    fn kind() -> impl Strategy<Value = DeviceKind> {
        prop_oneof![Just(DeviceKind::Character), Just(DeviceKind::Block)]
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0_u32..3, Just(u32::MAX)]
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)];
        let maybe = || proptest::option::of(number());
        (verdict, proptest::option::of(kind()), maybe(), maybe(), 1_u8..8).prop_map(
            |(verdict, kind, major, minor, access)| DeviceRule {
                verdict,
                kind,
                major,
                minor,
                access: Access::from_bits(access),
            },
        )
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_do(
            rules in proptest::collection::vec(rule(), 0..12),
            kind in kind(), major in number(), minor in number(), access in 1_u8..8,
        ) {
            let request = DeviceRequest { kind, major, minor, access: Access::from_bits(access) };

            let result = interpret(&assemble(&rules), request);

            prop_assert_eq!(result, Some(u64::from(directly(&rules, request))));
        }
    }

    #[test]
    fn without_a_rule_nothing_is_allowed() {
        let request = DeviceRequest { kind: DeviceKind::Character, major: 1, minor: 3, access: Access::READ };

        assert_eq!(interpret(&assemble(&[]), request), Some(0));
    }

    #[test]
    fn nothing_stands_behind_a_rule_for_everything() {
        let all = |verdict| DeviceRule { verdict, kind: None, major: None, minor: None, access: Access::ALL };

        let program = assemble(&[all(Verdict::Deny), all(Verdict::Allow)]);

        assert_eq!(program.len(), 8);
        assert_eq!(program.iter().filter(|one| one.code == EXIT).count(), 1);
    }
}
