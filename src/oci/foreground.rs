//! What connects a container's process with who called us: its three descriptors or its terminal,
//! signals, and in the end its exit code.

use super::OciError;
use super::config::Invalid;
use super::log;
use super::relay::{self, Relay};
use crate::sandbox::{Io, Launched, Stdio};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{WaitId, WaitIdOptions};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

fn io(what: impl Into<String>, errno: Errno) -> OciError {
    OciError::Io { what: what.into(), source: errno.into() }
}

/// Where a terminal of the container goes.
#[derive(Default)]
pub(super) enum Console {
    /// There is none.
    #[default]
    None,
    /// To who listens at `--console-socket`.
    Socket(OwnedFd),
    /// To us.
    Here(relay::Socket),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// Until the process ends.
    Foreground,
    Detached,
}

impl Console {
    /// Refuses what does not go together, and connects.
    pub(super) fn open(terminal: bool, socket: Option<&Path>, stay: Stay) -> Result<Self, OciError> {
        match (terminal, socket, stay) {
            (false, None, _) => Ok(Self::None),
            (false, Some(_), _) => Err(Invalid::new("process.terminal", "false, and --console-socket is given").into()),
            (true, Some(path), _) => Ok(Self::Socket(connect("the console socket", path)?)),
            (true, None, Stay::Foreground) => Ok(Self::Here(relay::Socket::new()?)),
            (true, None, Stay::Detached) => {
                Err(Invalid::new("process.terminal", "takes --console-socket, as nobody stays to hold it").into())
            }
        }
    }

    pub(super) fn io(&self) -> Io<'_> {
        match self {
            Self::None => Io::Stdio(Stdio {
                stdin: rustix::stdio::stdin(),
                stdout: rustix::stdio::stdout(),
                stderr: rustix::stdio::stderr(),
            }),
            Self::Socket(socket) => Io::Terminal { console: socket.as_fd() },
            Self::Here(socket) => Io::Terminal { console: socket.theirs.as_fd() },
        }
    }

    /// Once the child has its terminal.
    pub(super) fn relay(self) -> Result<Option<Relay>, OciError> {
        match self {
            Self::None | Self::Socket(_) => Ok(None),
            Self::Here(socket) => socket.receive().map(Some),
        }
    }
}

fn connect(what: &str, path: &Path) -> Result<OwnedFd, OciError> {
    let failed = |source| OciError::Io { what: format!("connecting to {what} {}", path.display()), source };
    UnixStream::connect(path).map(OwnedFd::from).map_err(failed)
}

/// `--pidfd-socket`: who listens there may signal and wait for the process.
pub(super) fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
    let socket = connect("the pidfd socket", path)?;
    let fds = [pidfd];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(&socket, &[IoSlice::new(b"pidfd")], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| io(format!("sending the pidfd to {}", path.display()), errno))
}

/// Passes signals on until the process has ended; its exit code, as a shell says it.
pub(super) fn supervise(launched: &Launched, signals: &SigSet, mut terminal: Option<Relay>) -> Result<u8, OciError> {
    let errno = |errno: nix::Error| Errno::from_raw_os_error(errno as i32);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let incoming = SignalFd::with_flags(signals, flags).map_err(|e| io("listening for signals", errno(e)))?;
    loop {
        let mut wait = vec![
            PollFd::new(&launched.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(incoming.as_fd(), PollFlags::IN),
        ];
        wait.extend(terminal.as_ref().map(Relay::wait).into_iter().flatten());
        match rustix::event::poll(&mut wait, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io("waiting for the process", errno)),
        }
        let is_ready = |index: usize| wait.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, signalled, input) = (is_ready(0), is_ready(1), is_ready(3));
        // Also when the process has ended: what it wrote last is still there.
        if let Some(Err(error)) = terminal.as_mut().map(|terminal| terminal.carry(input)) {
            // For the program its terminal hangs up, as it would for one that ran without us. Its end is
            // still ours to wait for.
            log::say(&error.to_string());
            terminal = None;
        }
        if signalled {
            while let Ok(Some(info)) = incoming.read_signal() {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                match &terminal {
                    Some(terminal) if number == Signal::SIGWINCH as i32 => terminal.resize(),
                    _ => pass_on(launched.pidfd.as_fd(), number),
                }
            }
        }
        if ended {
            return reap(launched);
        }
    }
}

fn pass_on(process: BorrowedFd<'_>, signal: i32) {
    // Our own children's affair, and ours.
    if [Signal::SIGCHLD as i32, Signal::SIGURG as i32, Signal::SIGTTOU as i32, Signal::SIGTTIN as i32].contains(&signal)
    {
        return;
    }
    // One that has just ended needs no signal.
    let _ = crate::sys::pidfd_kill(process, signal);
}

fn reap(launched: &Launched) -> Result<u8, OciError> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(launched.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            result => break result.map_err(|errno| io("waiting for the process", errno))?,
        }
    };
    let code = status.and_then(|status| status.exit_status().or(status.terminating_signal().map(|n| 128 + n)));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
