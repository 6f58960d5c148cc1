//! Runs a script: the parent's lane here, the child's lane in the child.

use super::child::{Child, Table};
use super::ops::{ChildOp, Namespaces, ParentOp, Slot};
use super::overlay::Way;
use super::parent::Parent;
use super::script::{Failure, Lane, Report, Script};
use super::{Text, hooks};
use crate::sys::{self, Errno, Instruction};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The three descriptors that the command starts with.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// Where the program's input and output go.
#[derive(Debug, Clone, Copy)]
pub enum Io<'a> {
    Stdio(Stdio<'a>),
    /// A unix stream socket: the master of a terminal made in the container is sent over it with one
    /// byte (`SCM_RIGHTS`).
    Terminal {
        console: BorrowedFd<'a>,
    },
}

impl<'a> From<Stdio<'a>> for Io<'a> {
    fn from(stdio: Stdio<'a>) -> Self {
        Self::Stdio(stdio)
    }
}

/// A child that is on its way to its program.
#[derive(Debug)]
pub struct Launched {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Readable when the child has executed its program or has failed; see [`read_report`]. Closing it earlier ends a child that is still on its way.
    pub report: OwnedFd,
}

/// A child that was killed and is not gone: it stands in a frozen v1 cgroup, or waits for a disk. Whoever
/// goes on collects it when its pidfd tells.
#[derive(Debug)]
pub struct Lingering {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Nothing is left of a launch that failed: the child, if there was one, is killed and reaped, unless it lingers.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// An operation of either lane failed.
    #[error("{words}")]
    Operation { failure: Failure, words: String },
    /// The same, and the child is not gone.
    #[error("{words}")]
    Lingers { failure: Failure, words: String, child: Lingering },
    /// Something failed before there was a child.
    #[error("{what}")]
    Prepare {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the script is not one of ours: {0}")]
    Script(&'static str),
}

fn prepare(what: &'static str) -> impl FnOnce(Errno) -> LaunchError {
    move |errno| LaunchError::Prepare { what, source: errno.into() }
}

/// Starts what the script describes and returns without waiting for the child to execute.
///
/// `listener` is the socket of a child that waits, see [`super::start`]; `seccomp` a memfd with a filter
/// as raw BPF, for a script that asks for one. To be called by a process with one thread and little
/// memory: the child starts as a copy of it.
pub fn launch<'a>(
    script: &Script,
    io: impl Into<Io<'a>>,
    listener: Option<BorrowedFd<'a>>,
    seccomp: Option<BorrowedFd<'a>>,
) -> Result<Launched, LaunchError> {
    run(script, Means { io: io.into(), target: None, listener, seccomp, way: Way::Any })
}

/// What a script is run with.
pub(super) struct Means<'a> {
    pub(super) io: Io<'a>,
    /// A pidfd of the container to enter.
    pub(super) target: Option<BorrowedFd<'a>>,
    /// Where a child that waits listens.
    pub(super) listener: Option<BorrowedFd<'a>>,
    pub(super) seccomp: Option<BorrowedFd<'a>>,
    /// How layers are named to the kernel.
    pub(super) way: Way,
}

pub(super) fn run(script: &Script, means: Means<'_>) -> Result<Launched, LaunchError> {
    let Means { io, target, listener, seccomp, way } = means;
    let early = |op: &ParentOp| {
        matches!(op, ParentOp::EnterNamespace { .. } | ParentOp::NewClocks { .. } | ParentOp::SetAffinity { .. })
    };
    let born = script.parent.iter().position(|op| !early(op));
    let born = born.unwrap_or(script.parent.len());
    let (before, after) = script.parent.split_at(born);
    let Some((ParentOp::Clone { namespaces, cgroup }, rest)) = after.split_first() else {
        return Err(LaunchError::Script("it does not start with a clone"));
    };
    let Some(ChildOp::Execute(program)) = script.child.last() else {
        return Err(LaunchError::Script("it does not end with a program"));
    };
    let wants_filter = script.child.iter().any(|op| matches!(op, ChildOp::Filter { .. }));
    let filter = match seccomp {
        Some(memory) if wants_filter => read_filter(memory).map_err(prepare("reading the seccomp filter"))?,
        None if wants_filter => return Err(LaunchError::Script("it needs a seccomp filter, and none is given")),
        _ => Vec::new(),
    };
    // Without them the child is only less well disguised.
    let (arguments, ignored) = (sys::Arguments::find(), sys::Masks::own().ignored);
    let argv = sys::Pointers::new(program.argv.iter().map(Text::as_c_str));
    let env = sys::Pointers::new(program.env.iter().map(Text::as_c_str));
    let hooks = script.child.iter().filter_map(|op| match op {
        ChildOp::RunHook { call, .. } => Some(hooks::Prepared::new(call)),
        _ => None,
    });
    let hooks: Vec<hooks::Prepared<'_>> = hooks.collect();
    let waits = script.child.iter().any(|op| matches!(op, ChildOp::AwaitStart));
    let parts = if waits { sys::mapped_program() } else { Vec::new() };
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(prepare("making a socket pair"))?;
    let fail = |operation: usize, errno: Errno| {
        let operation = u32::try_from(operation).unwrap_or(u32::MAX);
        Failure { lane: Lane::Parent, operation, errno: errno.raw_os_error() }
    };
    // There is no child yet.
    let early_failure = |operation: usize, errno: Errno| {
        let failure = fail(operation, errno);
        LaunchError::Operation { failure, words: script.explain(&failure) }
    };
    let mut own = Vec::new();
    for (position, op) in before.iter().enumerate() {
        own.extend(left(op).map_err(|errno| early_failure(position, errno))?.map(|namespace| (position, namespace)));
        enter(op).map_err(|errno| early_failure(position, errno))?;
    }
    let cgroup = cgroup.as_ref().map(directory).transpose().map_err(|errno| early_failure(born, errno))?;
    let request = sys::Request { namespaces: namespaces.0, cgroup: cgroup.as_ref().map(AsFd::as_fd) };
    let cloned = {
        let (channel, parent_end) = (theirs.as_fd(), ours.as_fd());
        sys::clone3(request, || {
            let table: Table = [const { None }; 256];
            let (argv, env, filter) = (&argv, &env, filter.as_slice());
            let ops = script.child.as_slice();
            let (starter, near, empty, filtered) = (None, None, None, false);
            Child {
                ops,
                argv,
                env,
                hooks: &hooks,
                filter,
                io,
                channel,
                parent_end,
                arguments,
                ignored,
                target,
                listener,
                program: &parts,
                starter,
                table,
                near,
                empty,
                filtered,
            }
            .run();
        })
        .map_err(|errno| early_failure(born, errno))?
    };
    drop(theirs);
    let mut parent = Parent::new(cloned, ours.as_fd(), way);
    for (position, own) in own {
        // What is done for the container from now on is done from the host.
        if let Err(errno) = sys::enter_namespaces(own.as_fd(), 0) {
            let failed = fail(position, errno);
            let Parent { pid, pidfd, .. } = parent;
            return Err(abandon(script, failed, Lingering { pid, pidfd }, &ours));
        }
    }
    for (position, op) in rest.iter().enumerate() {
        if let Err(errno) = parent.perform(op) {
            let failed = fail(born + 1 + position, errno);
            let Parent { pid, pidfd, .. } = parent;
            return Err(abandon(script, failed, Lingering { pid, pidfd }, &ours));
        }
    }
    let Parent { pid, pidfd, .. } = parent;
    Ok(Launched { pid, pidfd, report: ours })
}

/// Our own namespace that an operation before the clone leaves.
fn left(op: &ParentOp) -> Result<Option<OwnedFd>, Errno> {
    let ParentOp::EnterNamespace { namespace, .. } = op else { return Ok(None) };
    let file = match *namespace {
        Namespaces::NET => c"/proc/thread-self/ns/net",
        Namespaces::IPC => c"/proc/thread-self/ns/ipc",
        Namespaces::UTS => c"/proc/thread-self/ns/uts",
        Namespaces::CGROUP => c"/proc/thread-self/ns/cgroup",
        Namespaces::PID => c"/proc/thread-self/ns/pid",
        Namespaces::TIME => c"/proc/thread-self/ns/time",
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Some)
}

/// What comes before the clone. A namespace is entered by a file that stands for it; one of another
/// kind is refused (setns(2)).
fn enter(op: &ParentOp) -> Result<(), Errno> {
    match op {
        ParentOp::EnterNamespace { namespace, path } => {
            let file = rustix::fs::openat(CWD, path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            sys::enter_namespaces(file.as_fd(), namespace.0)
        }
        ParentOp::NewClocks { offsets } => {
            sys::unshare_namespaces(Namespaces::TIME.0)?;
            if offsets.as_str().is_empty() {
                return Ok(());
            }
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(CWD, c"/proc/self/timens_offsets", flags, Mode::empty())?;
            rustix::io::write(&file, offsets.as_str().as_bytes()).map(drop)
        }
        ParentOp::SetAffinity { cpus } => sys::set_affinity(cpus),
        _ => Err(Errno::INVAL),
    }
}

fn directory(path: &Text) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::empty())
}

/// Kills the child and reaps it. What it reported before is what went wrong, if it did: the parent only
/// stumbled over that.
fn abandon(script: &Script, failure: Failure, child: Lingering, report: &OwnedFd) -> LaunchError {
    let mut record = [0; RECORD];
    let reported = match rustix::net::recv(report, &mut record, RecvFlags::DONTWAIT) {
        Ok((RECORD, _)) => Some(decode(record)),
        _ => None,
    };
    let failure = reported.filter(|failure| failure.operation != EXECUTED).unwrap_or(failure);
    // It may have ended already; it is reaped in any case.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
    let words = script.explain(&failure);
    if is_reaped(child.pidfd.as_fd(), ABANDON_WITHIN) {
        LaunchError::Operation { failure, words }
    } else {
        LaunchError::Lingers { failure, words, child }
    }
}

/// How long the end of a killed child is waited for here. It takes far less, or there is no saying.
const ABANDON_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Waits for the end of a child and collects it; false when it does not end.
pub(super) fn is_reaped(child: BorrowedFd<'_>, within: Timespec) -> bool {
    // What is cut short by a signal is not begun anew: it is a matter of milliseconds.
    let _ended = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&within));
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let collected = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(child), options));
    // One that is nobody's to collect has nothing to be waited for either.
    !matches!(collected, Ok(None))
}

fn read_filter(memory: BorrowedFd<'_>) -> Result<Vec<Instruction>, Errno> {
    const SIZE: usize = size_of::<Instruction>();
    let length = usize::try_from(rustix::fs::fstat(memory)?.st_size).map_err(|_| Errno::FBIG)?;
    // BPF_MAXINSNS (bpf_common.h).
    if length == 0 || length % SIZE != 0 || length / SIZE > 4096 {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; length];
    // By position: whoever compiled it may have left the offset at the end.
    if rustix::io::pread(memory, &mut bytes, 0)? != length {
        return Err(Errno::INVAL);
    }
    let instructions = bytes.chunks_exact(SIZE).map(|chunk| {
        let [c0, c1, jt, jf, k @ ..] = chunk else { return None };
        Some(Instruction {
            code: u16::from_ne_bytes([*c0, *c1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(k.try_into().ok()?),
        })
    });
    instructions.collect::<Option<_>>().ok_or(Errno::INVAL)
}

/// Position and errno.
pub(super) const RECORD: usize = 8;

pub(super) fn decode(record: [u8; RECORD]) -> Failure {
    let [a, b, c, d, e, f, g, h] = record;
    Failure { lane: Lane::Child, operation: u32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) }
}

/// In place of an error: the position is the number of the listener of the child's filter.
pub(super) const LISTENER: i32 = -1;

/// In place of an error: the position is the number of the process that takes the child's place.
pub(super) const SUCCESSOR: i32 = -2;

/// The position in the record of an init whose command has executed its program.
pub(super) const EXECUTED: u32 = u32::MAX;

/// Reads what came of the child `pid`. Blocks until there is something, unless `report` is
/// non-blocking: then `WouldBlock` means "not yet".
///
/// One that somebody else has collected meanwhile counts as executed: a parent reads before it collects.
pub fn read_report(report: BorrowedFd<'_>, pid: Pid) -> io::Result<Report> {
    let mut record = [0; RECORD];
    match rustix::io::retry_on_intr(|| rustix::io::read(report, &mut record)) {
        // Its end of the socket is closed: by `execve`, or because it has ended.
        Ok(0) => Ok(if has_executed(pid)? { Report::Executed } else { Report::Ended }),
        Ok(RECORD) => match decode(record) {
            Failure { operation: EXECUTED, .. } => Ok(Report::Executed),
            Failure { errno: 0, .. } => Ok(Report::Waiting),
            Failure { errno: LISTENER, operation, .. } => Ok(Report::Listener(operation)),
            failure => Ok(Report::Failed(failure)),
        },
        // It ended with what we have handed over unread.
        Err(Errno::CONNRESET) => Ok(Report::Ended),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a child is a program of its own by now, be it ended or not (`flags` of
/// proc_pid_stat(5)). The kernel says so before it closes descriptors for `execve`.
fn has_executed(pid: Pid) -> io::Result<bool> {
    const FORKED_BUT_NOT_EXECUTED: u32 = 0x40;
    let stat = match sys::stat_of(pid) {
        Err(Errno::NOENT | Errno::SRCH) => return Ok(true),
        stat => stat?,
    };
    // The name before the bracket may hold anything.
    let flags = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(6));
    let flags = flags.and_then(|flags| flags.parse::<u32>().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(flags & FORKED_BUT_NOT_EXECUTED == 0)
}

pub(super) fn lookup(table: &Table, slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
    table.get(usize::from(slot.0)).and_then(Option::as_ref).map(AsFd::as_fd).ok_or(Errno::BADF)
}
