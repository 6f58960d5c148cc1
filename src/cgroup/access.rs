//! Which devices may be opened and made: rules, of which the last one that names a right decides.
//!
//! In a v1 hierarchy they are lines of the devices controller, which knows one verdict for everything and
//! exceptions from it. In the v2 hierarchy they are a program ([`super::assemble`]), replaced as a whole
//! when they change: at no moment is a device refused that both the old and the new rules allow.

use super::CgroupError;
use super::assemble::assemble;
use super::detect::read_path;
use super::files;
use crate::sys::{self, BpfName, Errno};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use std::fmt;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub verdict: Verdict,
    /// `None` is both kinds.
    pub kind: Option<DeviceKind>,
    /// `None` is any number.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
}

/// Rights to a device, as the kernel numbers them: make, read, write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

/// What a process asks for.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceRequest {
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub access: Access,
}

impl Access {
    pub const MAKE: Self = Self(1);
    pub const READ: Self = Self(2);
    pub const ALL: Self = Self(7);

    /// A text of the letters `r`, `w` and `m`, each at most once; no letter is all of them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for c in text.chars() {
            let bit = match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => return None,
            };
            if bits & bit != 0 {
                return None;
            }
            bits |= bit;
        }
        Some(if bits == 0 { Self::ALL } else { Self(bits) })
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    #[cfg(test)]
    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(2, "r"), (4, "w"), (1, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// As a v1 hierarchy reads it, without the verdict: `c 1:3 rwm`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => "a",
            Some(DeviceKind::Character) => "c",
            Some(DeviceKind::Block) => "b",
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// What every container may open, whatever else is said: null, zero, full, random, urandom, tty,
/// console, ptmx and pts. Nodes may be made of all kinds: opening them is another matter.
pub const ALLOWED_DEVICES: [DeviceRule; 11] = [
    nodes(DeviceKind::Character),
    nodes(DeviceKind::Block),
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    character(136, None),
];

const fn nodes(kind: DeviceKind) -> DeviceRule {
    DeviceRule { verdict: Verdict::Allow, kind: Some(kind), major: None, minor: None, access: Access::MAKE }
}

const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
    let (verdict, kind) = (Verdict::Allow, Some(DeviceKind::Character));
    DeviceRule { verdict, kind, major: Some(major), minor, access: Access::ALL }
}

impl DeviceRule {
    pub(super) fn is_for_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }
}

/// Rules as the v1 controller has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceptions {
    base: Verdict,
    /// All with the other verdict, and a kind.
    from: Vec<DeviceRule>,
}

impl Exceptions {
    /// # Errors
    /// The index of a rule that takes back a part of an earlier, wider one: v1 has no words for that.
    pub fn of(rules: &[DeviceRule]) -> Result<Self, usize> {
        let mut all = Self { base: Verdict::Deny, from: Vec::new() };
        for (index, rule) in rules.iter().enumerate() {
            if rule.is_for_everything() {
                all = Self { base: rule.verdict, from: Vec::new() };
                continue;
            }
            let kinds: &[DeviceKind] = match &rule.kind {
                Some(kind) => std::slice::from_ref(kind),
                None => &[DeviceKind::Character, DeviceKind::Block],
            };
            for kind in kinds {
                all.take(DeviceRule { kind: Some(*kind), ..*rule }).ok_or(index)?;
            }
        }
        Ok(all)
    }

    fn take(&mut self, rule: DeviceRule) -> Option<()> {
        if rule.verdict != self.base {
            match self.from.iter_mut().find(|other| same_devices(other, &rule)) {
                Some(other) => other.access.0 |= rule.access.0,
                None => self.from.push(rule),
            }
            return Some(());
        }
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        for other in &mut self.from {
            let overlap = other.kind == rule.kind
                && meets(other.major, rule.major)
                && meets(other.minor, rule.minor)
                && other.access.0 & rule.access.0 != 0;
            if !overlap {
                continue;
            }
            if !covers(rule.major, other.major) || !covers(rule.minor, other.minor) {
                return None;
            }
            other.access.0 &= !rule.access.0;
        }
        self.from.retain(|other| other.access.0 != 0);
        Some(())
    }

    /// What a directory's `devices.list` says. Exceptions from "everything" are not listed there.
    fn parse(text: &str) -> Self {
        let mut from = Vec::new();
        for line in text.lines() {
            let mut words = line.split([' ', ':']);
            let kind = match words.next() {
                Some("a") => return Self { base: Verdict::Allow, from: Vec::new() },
                Some("c") => DeviceKind::Character,
                Some("b") => DeviceKind::Block,
                _ => continue,
            };
            let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
            let (major, minor) = (number(words.next()), number(words.next()));
            let Some(access) = words.next().and_then(Access::parse) else { continue };
            from.push(DeviceRule { verdict: Verdict::Allow, kind: Some(kind), major, minor, access });
        }
        Self { base: Verdict::Deny, from }
    }

    /// The writes that lead from what is `now` to this: file and line, what is allowed more before what
    /// is allowed less.
    fn writes(&self, now: &Self) -> Vec<(&'static str, DeviceRule)> {
        let file = |verdict| if verdict == Verdict::Allow { "devices.allow" } else { "devices.deny" };
        let everything = DeviceRule { verdict: self.base, kind: None, major: None, minor: None, access: Access::ALL };
        if self.base == Verdict::Allow || now.base == Verdict::Allow {
            let exceptions = self.from.iter().map(|rule| (file(rule.verdict), *rule));
            return std::iter::once((file(self.base), everything)).chain(exceptions).collect();
        }
        let without = |rule: &DeviceRule, list: &[DeviceRule]| {
            let has =
                list.iter().filter(|other| same_devices(other, rule)).fold(0, |bits, other| bits | other.access.0);
            let left = Access(rule.access.0 & !has);
            (left.0 != 0).then_some(DeviceRule { access: left, ..*rule })
        };
        let more = self.from.iter().filter_map(|rule| without(rule, &now.from)).map(|rule| ("devices.allow", rule));
        let less = now.from.iter().filter_map(|rule| without(rule, &self.from)).map(|rule| ("devices.deny", rule));
        more.chain(less).collect()
    }
}

fn same_devices(a: &DeviceRule, b: &DeviceRule) -> bool {
    (a.kind, a.major, a.minor) == (b.kind, b.major, b.minor)
}

/// Makes a directory of the v1 devices hierarchy say these rules.
pub(super) fn write_v1(directory: &str, rules: &Exceptions) -> Result<(), CgroupError> {
    let now = Exceptions::parse(&read_path(&format!("{directory}/devices.list"))?);
    // One after the other to the same file, as a rule.
    let mut open: Option<(&str, OwnedFd)> = None;
    for (file, rule) in rules.writes(&now) {
        let text = if rule.is_for_everything() { "a".to_owned() } else { rule.to_string() };
        let to = match open.take() {
            Some((name, to)) if name == file => Ok(to),
            _ => files::open_to_write(CWD, &format!("{directory}/{file}")),
        };
        match to.and_then(|to| files::write_open(&open.insert((file, to)).1, &text)) {
            Ok(()) => {}
            // What we may not open ourselves (in a container of somebody else's) we cannot allow. Of the
            // devices that nobody asked for by name it is not missed.
            Err(Errno::PERM) if ALLOWED_DEVICES.contains(&rule) => {}
            Err(error) => {
                let path = format!("{directory}/{file}").into();
                return Err(CgroupError::Write { path, value: text, source: error.into() });
            }
        }
    }
    Ok(())
}

/// What our programs are called, so that those of others are left alone.
const NAME: BpfName = *b"plim_devices\0\0\0\0";

/// Puts these rules in force in a directory of the v2 hierarchy and below it, in the place of those that
/// were put there before.
pub(super) fn attach(directory: &str, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let failed = |what: &'static str| {
        move |errno: Errno| CgroupError::DeviceRules {
            path: directory.into(),
            what,
            log: String::new(),
            source: errno.into(),
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|errno| CgroupError::Open { path: directory.into(), source: errno.into() })?;
    let program = load(directory, rules)?;
    let old = ours(&cgroup).map_err(failed("asking which programs decide about devices"))?;
    let mut old = old.iter();
    sys::bpf_attach_device_program(cgroup.as_fd(), program.as_fd(), old.next().map(AsFd::as_fd))
        .map_err(failed("attaching the program that decides about devices"))?;
    // More than one is left by who was interrupted; all programs have to agree.
    for left in old {
        sys::bpf_detach_device_program(cgroup.as_fd(), left.as_fd())
            .map_err(failed("detaching a program that decided about devices"))?;
    }
    Ok(())
}

/// Our own programs among those of a cgroup.
pub(super) fn ours(cgroup: &OwnedFd) -> Result<Vec<OwnedFd>, Errno> {
    // The kernel takes no more for one cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0; 64];
    let count = sys::bpf_device_programs(cgroup.as_fd(), &mut ids)?;
    let mut found = Vec::new();
    for id in ids.iter().take(count) {
        let program = match sys::bpf_program(*id) {
            Err(Errno::NOENT) => continue,
            result => result?,
        };
        if sys::bpf_program_name(program.as_fd())? == NAME {
            found.push(program);
        }
    }
    Ok(found)
}

fn load(directory: &str, rules: &[DeviceRule]) -> Result<OwnedFd, CgroupError> {
    let program = assemble(rules);
    let failed = |errno: Errno, log: String| CgroupError::DeviceRules {
        path: directory.into(),
        what: "loading the program that decides about devices",
        log,
        source: errno.into(),
    };
    let errno = match sys::bpf_load_device_program(NAME, &program, &mut []) {
        Ok(program) => return Ok(program),
        Err(errno) => errno,
    };
    if errno == Errno::PERM {
        // Before Linux 5.11 a program counts as locked memory of who loads it.
        let before = rustix::process::getrlimit(Resource::Memlock);
        let without = Rlimit { current: None, maximum: None };
        if rustix::process::setrlimit(Resource::Memlock, without).is_ok() {
            let again = sys::bpf_load_device_program(NAME, &program, &mut []);
            // What is started later must not inherit it. Lowering a limit takes no right.
            let _ = rustix::process::setrlimit(Resource::Memlock, before);
            return again.map_err(|errno| failed(errno, String::new()));
        }
        return Err(failed(errno, String::new()));
    }
    let mut log = vec![0; 65_536];
    match sys::bpf_load_device_program(NAME, &program, &mut log) {
        Ok(program) => Ok(program),
        Err(errno) => {
            let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
            Err(failed(errno, String::from_utf8_lossy(text).trim().to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verdict: Verdict, text: &str) -> DeviceRule {
        let mut words = text.split([' ', ':']);
        let kind = match words.next() {
            Some("c") => Some(DeviceKind::Character),
            Some("b") => Some(DeviceKind::Block),
            _ => None,
        };
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let (major, minor) = (number(), number());
        let access = words.next().map_or(Access::ALL, |text| Access::parse(text).unwrap());
        DeviceRule { verdict, kind, major, minor, access }
    }

    fn allow(text: &str) -> DeviceRule {
        rule(Verdict::Allow, text)
    }

    fn deny(text: &str) -> DeviceRule {
        rule(Verdict::Deny, text)
    }

    fn lines(rules: &[DeviceRule], now: &str) -> Vec<String> {
        let writes = Exceptions::of(rules).unwrap().writes(&Exceptions::parse(now));
        writes.into_iter().map(|(file, rule)| format!("{file} {rule}")).collect()
    }

    #[test]
    fn rules_become_one_verdict_and_exceptions_from_it() {
        let everything = "a *:* rwm\n";

        assert_eq!(
            lines(&[deny("a"), allow("c 1:3 r"), allow("c 1:3 w"), allow("b *:*")], everything),
            ["devices.deny a *:* rwm", "devices.allow c 1:3 rw", "devices.allow b *:* rwm"]
        );
        assert_eq!(
            lines(&[allow("a"), deny("c 10:200 rw")], everything),
            ["devices.allow a *:* rwm", "devices.deny c 10:200 rw"]
        );
        assert_eq!(lines(&[allow("c 1:3"), deny("c 1:* w")], ""), ["devices.allow c 1:3 rm"]);
    }

    #[test]
    fn a_change_allows_first_and_denies_then() {
        let now = "c 1:3 rwm\nb 8:0 r\n";

        assert_eq!(
            lines(&[allow("c 1:3 rw"), allow("c 1:5 r")], now),
            ["devices.allow c 1:5 r", "devices.deny c 1:3 m", "devices.deny b 8:0 r"]
        );
        assert_eq!(lines(&[allow("c 1:3"), allow("b 8:0 r")], now), Vec::<String>::new());
    }

    #[test]
    fn v1_cannot_take_back_a_part_of_a_wider_rule() {
        assert_eq!(Exceptions::of(&[allow("c 10:*"), deny("c 10:200 w")]), Err(1));
        assert!(Exceptions::of(&[allow("c 10:* r"), deny("c 10:200 w")]).is_ok());
    }

    #[test]
    fn rights_are_letters_once_each() {
        for (text, expected) in [("rwm", Some("rwm")), ("mr", Some("rm")), ("", Some("rwm")), ("rr", None), ("x", None)]
        {
            assert_eq!(Access::parse(text).map(|access| access.to_string()).as_deref(), expected, "{text}");
        }
    }
}
