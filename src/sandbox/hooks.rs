//! Programs that run while a container is made: those of its own namespaces in the child itself, by
//! the same code as those of the host.
//!
//! A script with hooks stops once, before the root becomes `/`. Who launched it hears
//! [`super::Report::Waiting`], runs what is to run on the host, and lets the child go on with
//! [`proceed`]; with that the child gets the texts that its own hooks read.

use super::ops::HookCall;
use super::script::ScriptError;
use super::{Text, child, descendants};
use crate::sys::{self, Errno};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::SeekFrom;
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Those that are run by the child, and whether it waits for those that are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The child waits for [`proceed`]. It has to, when it has hooks of its own.
    pub wait: bool,
    /// In the container's namespaces, with the host's tree, before the root becomes `/`.
    pub create_container: Vec<Hook>,
    /// In the container, as its program, just before that.
    pub start_container: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub path: String,
    /// From the program's name on.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// After so many seconds it is killed.
    pub timeout: Option<u32>,
}

/// Lets a child go on that waits before its root becomes `/`. `creating` is what the hooks before that
/// read, `created` what those before its program do: files, read from their start.
pub fn proceed(report: BorrowedFd<'_>, creating: BorrowedFd<'_>, created: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [creating, created];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    buffer.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(report, &[IoSlice::new(&[0])], &mut buffer, SendFlags::NOSIGNAL).map(drop).map_err(Into::into)
}

/// Runs a hook here and waits for it. `input` is what it reads, from its start. When `stop` is readable
/// it is killed, as at its timeout: with all that it has started, whatever session that is in by then.
///
/// To be called by a process with one thread, which is from then on the one that descendants fall to whose
/// parents have ended.
pub fn run_hook(
    hook: &Hook,
    directory: &str,
    input: BorrowedFd<'_>,
    stop: Option<BorrowedFd<'_>>,
) -> Result<(), HookError> {
    let call = call(hook)?;
    let directory = Text::try_from(directory).map_err(ScriptError::from)?;
    let prepared = Prepared::new(&call);
    let failed = |errno: Errno| HookError::Failed(errno.raw_os_error());
    descendants::take_orphans().map_err(failed)?;
    let pid = begin(&call, &prepared, Some(directory.as_c_str()), input).map_err(HookError::Failed)?;
    let ended = ends(pid, call.timeout, stop);
    if !matches!(ended, Ok(Ended::ByItself)) {
        descendants::kill_since(pid);
    }
    if let Ok(Ended::Stopped) = ended {
        let _ = finish(pid, call.timeout, ended);
        return Err(HookError::Stopped);
    }
    finish(pid, call.timeout, ended).map_err(HookError::Failed)
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("{}", reason(*.0))]
    Failed(i32),
    #[error("killed, as who waited for it is to end")]
    Stopped,
}

pub(super) fn call(hook: &Hook) -> Result<HookCall, ScriptError> {
    let Hook { path, argv, env, timeout } = hook;
    let texts = |list: &[String]| list.iter().map(|text| text.as_str().try_into()).collect::<Result<Vec<Text>, _>>();
    Ok(HookCall { path: path.as_str().try_into()?, argv: texts(argv)?, env: texts(env)?, timeout: *timeout })
}

/// The lists of a hook as `execve` takes them, made before there is a child.
pub(super) struct Prepared<'a> {
    argv: sys::Pointers<'a>,
    env: sys::Pointers<'a>,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(call: &'a HookCall) -> Self {
        let argv = sys::Pointers::new(call.argv.iter().map(Text::as_c_str));
        Self { argv, env: sys::Pointers::new(call.env.iter().map(Text::as_c_str)) }
    }
}

// What became of a hook, beside the errors of system calls, which are all smaller.
const EXITED: i32 = 0x1_0000;
const KILLED: i32 = 0x2_0000;
const TOO_LONG: i32 = 0x3_0000;

/// Words for the `errno` of a [`super::Failure`], which may be what a hook ended with.
pub fn reason(errno: i32) -> String {
    let low = errno & 0xffff;
    match errno - low {
        EXITED => format!("exited with {low}"),
        // By its filter, mostly, which a bare number does not tell.
        KILLED if low == libc::SIGSYS => format!("killed by signal {low} (bad system call)"),
        KILLED => format!("killed by signal {low}"),
        TOO_LONG => format!("killed as it ran longer than {low} s"),
        _ => {
            let error = io::Error::from_raw_os_error(errno).to_string();
            error.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

/// Neither allocates nor panics, as it also runs between clone and exec.
pub(super) fn run(
    call: &HookCall,
    prepared: &Prepared<'_>,
    directory: Option<&CStr>,
    input: BorrowedFd<'_>,
) -> Result<(), i32> {
    let pid = begin(call, prepared, directory, input)?;
    finish(pid, call.timeout, ends(pid, call.timeout, None))
}

fn begin(
    call: &HookCall,
    prepared: &Prepared<'_>,
    directory: Option<&CStr>,
    input: BorrowedFd<'_>,
) -> Result<Pid, i32> {
    let raw = |errno: Errno| errno.raw_os_error();
    child::find(std::iter::once(call.path.as_c_str())).map_err(raw)?;
    // The one before has read it to its end.
    rustix::fs::seek(input, SeekFrom::Start(0)).map_err(raw)?;
    match sys::fork().map_err(raw)? {
        None => become_hook(call, prepared, directory, input),
        Some(pid) => Ok(pid),
    }
}

fn become_hook(call: &HookCall, prepared: &Prepared<'_>, directory: Option<&CStr>, input: BorrowedFd<'_>) -> ! {
    let ready = || {
        // To be killed with all that it has started.
        rustix::process::setpgid(None, None)?;
        rustix::stdio::dup2_stdin(input)?;
        // What a container's program says goes to standard output.
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        sys::close_on_exec_from(3)?;
        sys::reset_signals(u64::MAX);
        sys::set_signal_mask(0)?;
        directory.map_or(Ok(()), rustix::process::chdir)
    };
    if ready().is_ok() {
        sys::execve(call.path.as_c_str(), &prepared.argv, &prepared.env);
    }
    sys::exit(NOT_EXECUTED)
}

/// As a shell has it.
const NOT_EXECUTED: i32 = 126;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByItself,
    TooLate,
    Stopped,
}

/// Reaps a hook, which is killed before if it has not ended.
fn finish(pid: Pid, timeout: Option<u32>, ended: Result<Ended, Errno>) -> Result<(), i32> {
    if !matches!(ended, Ok(Ended::ByItself)) {
        // It has not been reaped: the number is still its own. Its group may be empty by now.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    let status = loop {
        match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            result => break result.map_err(Errno::raw_os_error)?,
        }
    };
    match (ended, status.and_then(|status| status.exit_status()), status.and_then(|s| s.terminating_signal())) {
        (Err(errno), _, _) => Err(errno.raw_os_error()),
        (Ok(Ended::TooLate | Ended::Stopped), _, _) => {
            Err(TOO_LONG | i32::try_from(timeout.unwrap_or(0)).unwrap_or(0xffff).min(0xffff))
        }
        (Ok(Ended::ByItself), Some(0), _) => Ok(()),
        (Ok(Ended::ByItself), Some(code), _) => Err(EXITED | code & 0xffff),
        (Ok(Ended::ByItself), None, signal) => Err(KILLED | signal.unwrap_or(0) & 0xffff),
    }
}

/// Waits for the end, or for what comes before it.
fn ends(pid: Pid, timeout: Option<u32>, stop: Option<BorrowedFd<'_>>) -> Result<Ended, Errno> {
    if timeout.is_none() && stop.is_none() {
        return Ok(Ended::ByItself);
    }
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // The standard library's clock: that of rustix panics where the vDSO has no getcpu, as in User Mode Linux.
    let end = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    loop {
        let left = end.map(|end| {
            let left = end.saturating_duration_since(Instant::now());
            let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: left.subsec_nanos().into() }
        });
        let own = pidfd.as_fd();
        let flags = if stop.is_some() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds =
            [PollFd::from_borrowed_fd(own, PollFlags::IN), PollFd::from_borrowed_fd(stop.unwrap_or(own), flags)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(Ended::TooLate),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Ended::ByItself),
            Ok(_) => return Ok(Ended::Stopped),
        }
    }
}
