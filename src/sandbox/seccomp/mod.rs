//! Seccomp: from a profile to the BPF that the kernel runs at each system call.
//!
//! Compiling takes long (milliseconds), so it happens where the container is planned, and the result
//! goes with the script; who launches it needs nothing of this module.

mod default;
mod preamble;
mod profile;
mod shorten;

pub use default::default_profile;
pub use profile::{Action, Arch, ArchMap, Comparison, Condition, Operator, Profile, Rule, SeccompError};

use crate::spec::Capability;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion};
use std::io::{Read, Seek};

/// A number that changes with the code of this module, for who keeps what it has compiled.
pub const BUILD: u64 = {
    // All of the module's files; the texts themselves do not get into the program.
    let files: [&[u8]; 5] = [
        include_bytes!("default.rs"),
        include_bytes!("mod.rs"),
        include_bytes!("preamble.rs"),
        include_bytes!("profile.rs"),
        include_bytes!("shorten.rs"),
    ];
    let mut sum = START;
    let mut index = 0;
    while index < files.len() {
        sum = summed(sum, files[index]);
        index += 1;
    }
    sum
};

/// The offset basis and the prime of FNV-1a with 64 bits.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

const fn summed(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        sum = (sum ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    sum
}

/// Compiles a profile for a container with these capabilities into raw BPF.
///
/// Names that the library does not know are skipped, except those that [`preamble`] has the numbers
/// of. Where not all is allowed, numbers above the newest known one answer ENOSYS: libc then falls
/// back to the older call, which it would not do for EPERM.
pub fn compile(profile: &Profile, capabilities: u64) -> Result<Vec<u8>, SeccompError> {
    let filter = shorten::shorten(compile_long(profile, capabilities)?);
    let length = filter.len() / preamble::INSTRUCTION;
    if length > 4096 { Err(SeccompError::TooLong(length)) } else { Ok(filter) }
}

/// The same profile for a container with these capabilities on this machine, with nothing left to decide.
pub fn for_capabilities(profile: &Profile, capabilities: u64) -> Profile {
    let arches = arches(profile);
    let rules = profile.syscalls.iter().filter(|rule| applies(rule, &arches, capabilities));
    let syscalls = rules.map(|rule| Rule {
        names: rule.names.iter().chain(&rule.name).cloned().collect(),
        name: None,
        includes: Condition::default(),
        excludes: Condition::default(),
        ..rule.clone()
    });
    let syscalls = syscalls.collect();
    let Profile { default_action, default_errno_ret, .. } = *profile;
    Profile { default_action, default_errno_ret, architectures: arches, arch_map: Vec::new(), syscalls }
}

/// As the library writes it.
fn compile_long(profile: &Profile, capabilities: u64) -> Result<Vec<u8>, SeccompError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| SeccompError::Compile { what, source }
    };
    let arches = arches(profile);
    let default = action(profile.default_action, profile.default_errno_ret);
    let mut filter = ScmpFilterContext::new(default).map_err(failed("starting"))?;
    // Sorted, the tree of comparisons is a third of what a list would be at the median call.
    filter.set_ctl_optimize(2).map_err(failed("asking for a binary tree"))?;
    filter.set_act_badarch(ScmpAction::Errno(libc::ENOSYS)).map_err(failed("setting the answer for other machines"))?;
    for arch in &arches {
        let Some(arch) = library_arch(*arch) else { continue };
        filter.add_arch(arch).map_err(failed("adding an architecture"))?;
    }
    let mut newer = Vec::new();
    for rule in &profile.syscalls {
        if !applies(rule, &arches, capabilities) {
            continue;
        }
        let answer = action(rule.action, rule.errno_ret);
        if answer == default {
            continue;
        }
        for name in rule.names.iter().chain(&rule.name) {
            let Ok(call) = ScmpSyscall::from_name(name) else {
                // Arguments are not looked at: a rule that lets pass does not count then, and one that
                // does not counts for all.
                if rule.args.is_empty() || !lets_pass(rule.action) {
                    let answer = preamble::answer(rule.action, errno(rule.errno_ret));
                    newer.extend(preamble::newer(name).map(|number| (number, answer)));
                }
                continue;
            };
            add(&mut filter, answer, call, &rule.args).map_err(failed(&format!("adding the rule for {name}")))?;
        }
    }
    let body = export(&filter)?;
    let broad = default_profile();
    let known = |arch| known(&[profile, &broad], arch);
    // Where all is allowed, so is what is yet to come.
    let open = lets_pass(profile.default_action);
    Ok(preamble::prepend(&arches, known, &mut newer, open, &body))
}

/// The version of the library that compiles.
pub fn library() -> String {
    ScmpVersion::current().map_or_else(|_| String::new(), |version| version.to_string())
}

fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    call: ScmpSyscall,
    args: &[Comparison],
) -> Result<(), libseccomp::error::SeccompError> {
    let mut indices: Vec<u32> = args.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    indices.dedup();
    if indices.len() == args.len() {
        let args: Vec<ScmpArgCompare> = args.iter().map(comparison).collect();
        return filter.add_rule_conditional(action, call, &args).map(drop);
    }
    // Several comparisons of one argument are alternatives (as runc takes them), and the library has
    // one comparison an argument.
    for arg in args {
        filter.add_rule_conditional(action, call, &[comparison(arg)])?;
    }
    Ok(())
}

fn comparison(comparison: &Comparison) -> ScmpArgCompare {
    let Comparison { index, value, value_two, op } = *comparison;
    let (op, datum) = match op {
        Operator::NotEqual => (ScmpCompareOp::NotEqual, value),
        Operator::Less => (ScmpCompareOp::Less, value),
        Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, value),
        Operator::Equal => (ScmpCompareOp::Equal, value),
        Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, value),
        Operator::Greater => (ScmpCompareOp::Greater, value),
        Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(value), value_two),
    };
    ScmpArgCompare::new(index, op, datum)
}

fn lets_pass(action: Action) -> bool {
    matches!(action, Action::Allow | Action::Log)
}

/// EPERM where nothing else is said.
fn errno(given: Option<u32>) -> u16 {
    given.and_then(|errno| u16::try_from(errno).ok()).unwrap_or(1)
}

fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    let number = self::errno(errno);
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Errno => ScmpAction::Errno(number.into()),
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Trace => ScmpAction::Trace(number),
        Action::Log => ScmpAction::Log,
        Action::Notify => ScmpAction::Notify,
    }
}

fn arches(profile: &Profile) -> Vec<Arch> {
    let family = Arch::family_of_this_machine();
    let mapped = profile.arch_map.iter().filter(|map| family.first() == Some(&map.architecture));
    let mut arches: Vec<Arch> = profile.architectures.clone();
    arches.extend(mapped.flat_map(|map| [map.architecture].into_iter().chain(map.sub_architectures.clone())));
    arches.extend(family.first());
    arches.retain(|arch| family.contains(arch));
    arches.sort_unstable();
    arches.dedup();
    arches
}

fn library_arch(arch: Arch) -> Option<ScmpArch> {
    match arch {
        Arch::X8664 => Some(ScmpArch::X8664),
        Arch::X86 => Some(ScmpArch::X86),
        Arch::X32 => Some(ScmpArch::X32),
        Arch::Aarch64 => Some(ScmpArch::Aarch64),
        Arch::Arm => Some(ScmpArch::Arm),
        Arch::Other => None,
    }
}

fn applies(rule: &Rule, arches: &[Arch], capabilities: u64) -> bool {
    let Rule { includes, excludes, .. } = rule;
    let has = |name: &String| {
        let mask = Capability::try_from(name.clone()).map_or(0, |capability| capability.mask());
        mask & capabilities != 0
    };
    let runs = |name: &String| arches.iter().any(|arch| arch.go_name() == name);
    let new_enough = |version: &Option<String>| version.as_deref().is_none_or(kernel_is_at_least);
    (includes.caps.is_empty() || includes.caps.iter().all(has))
        && (includes.arches.is_empty() || includes.arches.iter().any(runs))
        && new_enough(&includes.min_kernel)
        && !excludes.caps.iter().any(has)
        && !excludes.arches.iter().any(runs)
        && (excludes.min_kernel.is_none() || !new_enough(&excludes.min_kernel))
}

fn kernel_is_at_least(version: &str) -> bool {
    let parts = |text: &str| -> (u32, u32) {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    parts(&rustix::system::uname().release().to_string_lossy()) >= parts(version)
}

/// The newest system call of `arch` among those that the profiles name and the library knows. The
/// default one is among them: a short profile says nothing about what is new.
fn known(profiles: &[&Profile], arch: Arch) -> Option<u32> {
    let arch = library_arch(arch)?;
    let rules = profiles.iter().flat_map(|profile| &profile.syscalls);
    let names = rules.flat_map(|rule| rule.names.iter().chain(&rule.name));
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
    numbers.filter_map(|call| u32::try_from(call.as_raw_syscall()).ok()).max()
}

/// By way of a file in memory: the library writes to a descriptor.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    let memory = rustix::fs::memfd_create(c"seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| SeccompError::Export(errno.into()))?;
    let mut memory = std::fs::File::from(memory);
    let what = "writing it out".to_owned();
    filter.export_bpf(&memory).map_err(|source| SeccompError::Compile { what, source })?;
    let mut bytes = Vec::new();
    memory.rewind().and_then(|()| memory.read_to_end(&mut bytes)).map_err(SeccompError::Export)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Capabilities;

    #[test]
    fn the_number_of_this_build_is_of_every_file() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox/seccomp");
        let entries = std::fs::read_dir(directory).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();

        let sum = files.iter().fold(START, |sum, file| summed(sum, &std::fs::read(file).unwrap()));

        assert_eq!(sum, BUILD, "{files:?}");
    }

    /// What a filter answers; interprets the few instructions that filters are made of.
    fn answer(filter: &[u8], machine: u32, number: u32, first_argument: u64) -> u32 {
        let data: Vec<u32> = [number, machine, 0, 0]
            .into_iter()
            .chain([u32::try_from(first_argument).unwrap(), 0])
            .chain([0; 10])
            .collect();
        let (mut a, mut at) = (0u32, 0usize);
        loop {
            let i = &filter[at * 8..at * 8 + 8];
            let (code, k) = (u16::from_ne_bytes([i[0], i[1]]), u32::from_ne_bytes([i[4], i[5], i[6], i[7]]));
            let jump = |taken: bool| usize::from(if taken { i[2] } else { i[3] });
            at += 1;
            match code {
                0x20 => a = data[k as usize / 4],
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x45 => at += jump(a & k != 0),
                0x54 => a &= k,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;
    const X32: u32 = 0x4000_0000;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_default_profile_allows_what_a_container_may_do() {
        let filter = compile(&default_profile(), Capabilities::DEFAULT).unwrap();
        let answer =
            |machine, number: i64, argument| answer(&filter, machine, u32::try_from(number).unwrap(), argument);
        let cases = [
            (X86_64, libc::SYS_read, 0, ALLOW),
            (X86_64, libc::SYS_execve, 0, ALLOW),
            (X86_64, libc::SYS_chroot, 0, ALLOW),
            (X86_64, libc::SYS_mount, 0, EPERM),
            (X86_64, libc::SYS_bpf, 0, EPERM),
            (X86_64, libc::SYS_io_uring_setup, 0, EPERM),
            (X86_64, libc::SYS_clone, 0x11, ALLOW),
            (X86_64, libc::SYS_clone, 0x1000_0011, EPERM),
            (X86_64, libc::SYS_clone3, 0, ENOSYS),
            (X86_64, libc::SYS_socket, 2, ALLOW),
            (X86_64, libc::SYS_socket, 40, EPERM),
            (X86_64, libc::SYS_personality, 0, ALLOW),
            (X86_64, libc::SYS_personality, 0x40000, EPERM),
            (X86_64, libc::SYS_fchmodat2, 0, ALLOW),
            (X86_64, libc::SYS_mseal, 0, ALLOW),
            (X86_64, 467, 0, ENOSYS),
            (X86_64, 5000, 0, ENOSYS),
            (X86, 3, 0, ALLOW),
            (X86, 21, 0, EPERM),
            (X86, 452, 0, ALLOW),
            (X86, 5000, 0, ENOSYS),
            (X86_64, i64::from(X32), 0, ENOSYS),
            (X86_64, i64::from(X32) + 452, 0, ENOSYS),
            (X86_64, i64::from(X32) + 5000, 0, ENOSYS),
            (0x1234, 0, 0, ENOSYS),
        ];
        for (machine, number, argument, expected) in cases {
            let got = answer(machine, number, argument);
            assert_eq!(got, expected, "{machine:#x} {number} ({argument:#x}): {got:#x}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn x32_is_covered_where_a_profile_asks_for_it() {
        let profile = Profile { architectures: vec![Arch::X8664, Arch::X86, Arch::X32], ..default_profile() };
        let filter = compile(&profile, Capabilities::DEFAULT).unwrap();

        for (number, expected) in [(0, ALLOW), (452, ALLOW), (5000, ENOSYS), (165, EPERM)] {
            assert_eq!(answer(&filter, X86_64, X32 + number, 0), expected, "{number}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_capability_brings_its_system_calls() {
        let admin = Capability::try_from("SYS_ADMIN".to_owned()).unwrap().mask();
        let filter = compile(&default_profile(), Capabilities::DEFAULT | admin).unwrap();

        for call in [libc::SYS_mount, libc::SYS_clone3, libc::SYS_unshare] {
            assert_eq!(answer(&filter, X86_64, u32::try_from(call).unwrap(), 0), ALLOW);
        }
        assert_eq!(answer(&filter, X86_64, u32::try_from(libc::SYS_clone).unwrap(), 0x1000_0011), ALLOW);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_call_that_the_library_does_not_know_gets_the_answer_of_its_rule() {
        let profile = |default: &str| -> Profile {
            serde_json::from_value(serde_json::json!({"defaultAction": default, "syscalls": [
                {"names": ["mseal"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["statmount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["listmount"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["cachestat"], "action": "SCMP_ACT_LOG"}]}))
            .unwrap()
        };
        let (kill, errno, log) = (0x8000_0000, 0x0005_0007, 0x7ffc_0000);
        for (default, others) in [("SCMP_ACT_ALLOW", ALLOW), ("SCMP_ACT_TRAP", ENOSYS)] {
            let filter = compile(&profile(default), 0).unwrap();
            for (number, expected) in
                [(462, kill), (457, errno), (458, ALLOW), (451, log), (464, others), (900, others)]
            {
                let got = answer(&filter, X86_64, number, 0);
                assert_eq!(got, expected, "{default} {number}: {got:#x}");
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn each_action_becomes_the_kernels() {
        let cases = [
            ("KILL", 0),
            ("KILL_THREAD", 0),
            ("KILL_PROCESS", 0x8000_0000),
            ("TRAP", 0x0003_0000),
            ("ERRNO", 0x0005_0001),
            ("TRACE", 0x7ff0_0001),
            ("LOG", 0x7ffc_0000),
            ("NOTIFY", 0x7fc0_0000),
        ];
        for (name, expected) in cases {
            // One number that the library knows, and one that it does not.
            let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mseal"], "action": format!("SCMP_ACT_{name}")}]});
            let filter = compile(&serde_json::from_value(profile).unwrap(), 0).unwrap();
            let got = [libc::SYS_mkdir, 462].map(|number| answer(&filter, X86_64, u32::try_from(number).unwrap(), 0));
            assert_eq!(got, [expected; 2], "{name}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_profile_in_the_form_of_the_oci_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null},
            {"architecture": "SCMP_ARCH_PPC", "subArchitectures": []}],
            "syscalls": [{"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": null}]}"#;
        std::fs::write(file.path(), text).unwrap();

        let filter = compile(&Profile::from_file(file.path()).unwrap(), 0).unwrap();

        assert_eq!(answer(&filter, X86_64, u32::try_from(libc::SYS_mkdir).unwrap(), 0), ENOSYS);
        assert_eq!(answer(&filter, X86_64, 0, 0), ALLOW);
        assert_eq!(answer(&filter, X86_64, 5000, 0), ALLOW);

        let asks = text.replace("SCMP_ACT_ERRNO\", \"errnoRet\": 38", "SCMP_ACT_NOTIFY\"");
        std::fs::write(file.path(), asks).unwrap();
        assert!(Profile::from_file(file.path()).unwrap_err().to_string().contains("nobody to listen"));
        std::fs::write(file.path(), "{}").unwrap();
        let error = Profile::from_file(file.path()).unwrap_err();
        assert!(error.to_string().contains("is not in the OCI's form"), "{error}");
    }
}
