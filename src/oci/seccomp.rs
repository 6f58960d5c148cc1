//! `linux.seccomp`: what is refused, the profile for the compiler, and the listener of a filter.

use super::OciError;
use super::config::{self, Invalid, Seccomp, SeccompFlag};
use super::list;
use super::state::{Home, Record};
use crate::sandbox::seccomp::{self, Action, Profile, Rule};
use crate::sys;
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Who answers for calls that a filter leaves to a listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listener {
    path: String,
    metadata: String,
}

/// What is refused whatever else is asked for.
pub(super) fn check(profile: &Seccomp) -> Result<(), Invalid> {
    let invalid = |field: &str, what: &str| Invalid::new(format!("linux.seccomp.{field}"), what);
    if profile.default_action == Action::Notify {
        return Err(invalid("defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    errno(profile.default_action, profile.default_errno_ret)
        .map_err(|what| Invalid::new("linux.seccomp.defaultErrnoRet", what))?;
    for (index, rule) in profile.syscalls.iter().enumerate() {
        check_rule(rule)
            .map_err(|(field, what)| Invalid::new(format!("linux.seccomp.syscalls[{index}]{field}"), what))?;
    }
    let notifies = notifies(profile);
    if notifies && profile.listener_path.is_empty() {
        return Err(invalid("listenerPath", "missing, and a rule has SCMP_ACT_NOTIFY"));
    }
    if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
        return Err(invalid("listenerMetadata", "takes a listenerPath"));
    }
    let flags = profile.flags.as_deref().unwrap_or_default();
    if !notifies && profile.listener_path.is_empty() && flags.contains(&SeccompFlag::WaitKillableRecv) {
        // The kernel has it for listeners alone.
        return Err(invalid("flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV takes a listenerPath"));
    }
    Ok(())
}

fn check_rule(rule: &Rule) -> Result<(), (String, String)> {
    let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
    if names.is_empty() {
        return Err((".names".to_owned(), "empty".to_owned()));
    }
    // The hand-over of the listener takes it while the filter is there already.
    if rule.action == Action::Notify && names.iter().any(|name| *name == "write") {
        return Err((".names".to_owned(), "SCMP_ACT_NOTIFY cannot be used for the write syscall".to_owned()));
    }
    errno(rule.action, rule.errno_ret).map_err(|what| (".errnoRet".to_owned(), what))?;
    match rule.args.iter().position(|arg| arg.index > 5) {
        Some(at) => Err((format!(".args[{at}].index"), "a system call has arguments 0 to 5".to_owned())),
        None => Ok(()),
    }
}

/// `MAX_ERRNO` of the kernel; above it a call would seem to have succeeded.
const MAX_ERRNO: u32 = 4095;

fn errno(action: Action, value: Option<u32>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let most = match action {
        Action::Errno => MAX_ERRNO,
        Action::Trace => u16::MAX.into(),
        Action::Allow | Action::KillThread | Action::KillProcess | Action::Trap | Action::Log | Action::Notify => {
            return Err("goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE alone".to_owned());
        }
    };
    if value > most { Err(format!("{value} is above {most}")) } else { Ok(()) }
}

fn notifies(profile: &Seccomp) -> bool {
    profile.syscalls.iter().any(|rule| rule.action == Action::Notify)
}

/// Nobody has to listen where nothing is asked.
pub(super) fn listener(profile: &Seccomp) -> Option<Listener> {
    let (path, metadata) = (profile.listener_path.clone(), profile.listener_metadata.clone());
    notifies(profile).then_some(Listener { path, metadata })
}

/// What the filter is loaded with: those of seccomp(2).
///
/// TSYNC is for other threads of the process, and it has one. Where nothing is said, mitigations that
/// the filter would bring with it on older kernels are left to the host, as runc does.
pub(super) fn flags(profile: &Seccomp) -> u32 {
    let Some(flags) = &profile.flags else { return SPEC_ALLOW | listening(profile) };
    let bits = flags.iter().map(|flag| match flag {
        SeccompFlag::Tsync => 0,
        SeccompFlag::Log => LOG,
        SeccompFlag::SpecAllow => SPEC_ALLOW,
        SeccompFlag::WaitKillableRecv if notifies(profile) => WAIT_KILLABLE_RECV,
        SeccompFlag::WaitKillableRecv => 0,
    });
    bits.fold(listening(profile), |all, bit| all | bit)
}

const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
/// Linux 5.19.
const WAIT_KILLABLE_RECV: u32 = 32;

fn listening(profile: &Seccomp) -> u32 {
    if notifies(profile) { sys::NEW_LISTENER } else { 0 }
}

/// The profile as the compiler takes it.
pub(super) fn profile(from: &Seccomp) -> Profile {
    let arch = |arch: &config::Arch| match arch {
        config::Arch::X8664 => seccomp::Arch::X8664,
        config::Arch::X86 => seccomp::Arch::X86,
        config::Arch::X32 => seccomp::Arch::X32,
        config::Arch::Aarch64 => seccomp::Arch::Aarch64,
        config::Arch::Arm => seccomp::Arch::Arm,
        config::Arch::Other => seccomp::Arch::Other,
    };
    Profile {
        default_action: from.default_action,
        default_errno_ret: from.default_errno_ret,
        architectures: from.architectures.iter().map(arch).collect(),
        arch_map: Vec::new(),
        syscalls: from.syscalls.clone(),
    }
}

impl Listener {
    /// Sends the listener, with the state of the process `pid`, to who waits for it ("The Container
    /// Process State" of the specification).
    pub(super) fn hand_over(&self, fd: &OwnedFd, home: &Home, record: &Record, pid: i32) -> Result<(), OciError> {
        let failed = |source| OciError::Io {
            what: format!("linux.seccomp.listenerPath: failed to connect with seccomp agent {}", self.path),
            source,
        };
        let state = json!({
            "ociVersion": record.oci_version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": list::describe(home, record),
        });
        let text = state.to_string();
        let socket = UnixStream::connect(&self.path).map_err(failed)?;
        let fds = [fd.as_fd()];
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // The descriptor goes with the first part; the buffer is empty when it has.
            match rustix::net::sendmsg(&socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    control.clear();
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(())
    }
}
