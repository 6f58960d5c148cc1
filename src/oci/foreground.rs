//! What connects a container's process with who called us: its three descriptors or its terminal,
//! signals, and in the end its exit code.

use super::OciError;
use super::config::Invalid;
use super::log;
use super::relay::{self, Relay};
use super::service::Notices;
use crate::sandbox::{Io, Launched, Stdio};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::WaitOptions;
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
    Here(relay::Pair),
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
            (true, None, Stay::Foreground) => Ok(Self::Here(relay::Pair::new()?)),
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

/// What somebody who waits for something of a container looks at meanwhile: signals to us, and the
/// container's terminal, so that nobody writes in vain who is waited for.
pub(super) struct Watch {
    all: SigSet,
    /// Of those that are to end us.
    ending: SignalFd,
    terminal: Terminal,
    notices: Option<Notices>,
}

enum Terminal {
    /// There is none, or it is somebody else's.
    None,
    /// The child has not made it yet.
    Awaited(relay::Socket),
    Joined(Relay),
}

/// Those that ask a program to end.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

fn signals(set: &SigSet) -> Result<SignalFd, OciError> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(set, flags)
        .map_err(|errno| io("listening for signals", Errno::from_raw_os_error(errno as i32)))
}

impl Watch {
    /// Signals have no effect of their own any more: to be called before there is something that is to be
    /// undone. A child has none blocked.
    pub(super) fn begin() -> Result<Self, OciError> {
        let all = SigSet::all();
        all.thread_block().map_err(|errno| io("blocking signals", Errno::from_raw_os_error(errno as i32)))?;
        let ending = signals(&ENDING.into_iter().collect())?;
        Ok(Self { all, ending, terminal: Terminal::None, notices: None })
    }

    /// What the container notifies us of is passed on from now on.
    pub(super) fn pass_on(&mut self, notices: Option<Notices>) {
        self.notices = notices;
    }

    /// Once the child has its own end of what the terminal comes over.
    pub(super) fn join(&mut self, console: Console) {
        if let Console::Here(socket) = console {
            self.terminal = Terminal::Awaited(socket.keep_ours());
        }
    }

    /// Readable when we are to end.
    pub(super) fn stop(&self) -> BorrowedFd<'_> {
        self.ending.as_fd()
    }

    /// The signal that [`Self::stop`] is readable for.
    pub(super) fn interruption(&self) -> OciError {
        let signal = self.ending.read_signal().ok().flatten();
        OciError::Interrupted(signal.and_then(|info| i32::try_from(info.ssi_signo).ok()).unwrap_or(libc::SIGTERM))
    }

    /// Returns when `what` can be read, or with the signal that we are to end by.
    pub(super) fn until(&mut self, what: BorrowedFd<'_>) -> Result<(), OciError> {
        loop {
            let (ready, ending) = self.wait(what, None)?;
            if ready {
                return Ok(());
            }
            if ending {
                return Err(self.interruption());
            }
        }
    }

    /// One wait, with the terminal served: whether `what` can be read, and whether there are signals, in
    /// `incoming` or of those that end us.
    fn wait(&mut self, what: BorrowedFd<'_>, incoming: Option<&SignalFd>) -> Result<(bool, bool), OciError> {
        let signals = incoming.unwrap_or(&self.ending).as_fd();
        let mut fds =
            vec![PollFd::from_borrowed_fd(what, PollFlags::IN), PollFd::from_borrowed_fd(signals, PollFlags::IN)];
        match &self.terminal {
            Terminal::None => {}
            Terminal::Awaited(socket) => fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)),
            Terminal::Joined(relay) => fds.extend(relay.wait()),
        }
        // The last one, so that what was sent before the process ended is seen together with its end.
        let notices = self.notices.as_ref().map(|notices| {
            fds.push(PollFd::from_borrowed_fd(notices.as_fd(), PollFlags::IN));
            (notices, fds.len() - 1)
        });
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io("waiting for the process", errno)),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if let Some((notices, _)) = notices.filter(|(_, index)| is_ready(*index)) {
            notices.carry();
        }
        let (ready, signalled, terminal, input) = (is_ready(0), is_ready(1), is_ready(2), is_ready(3));
        drop(fds);
        self.serve(terminal, input);
        Ok((ready, signalled))
    }

    /// Carries what there is, also when the process has ended: what it wrote last is still there.
    fn serve(&mut self, is_there: bool, input: bool) {
        let error = match std::mem::replace(&mut self.terminal, Terminal::None) {
            Terminal::Awaited(socket) if is_there => match socket.receive() {
                Ok(Some(relay)) => {
                    self.terminal = Terminal::Joined(relay);
                    return;
                }
                // It has ended before, which is told elsewhere.
                Ok(None) => return,
                Err(error) => error,
            },
            Terminal::Joined(mut relay) => match relay.carry(input) {
                Ok(()) => {
                    self.terminal = Terminal::Joined(relay);
                    return;
                }
                // For the program its terminal hangs up, as it would for one that ran without us. Its end is
                // still ours to wait for.
                Err(error) => error,
            },
            other => {
                self.terminal = other;
                return;
            }
        };
        log::say(&error.to_string());
    }

    /// What a process that has ended has written last.
    pub(super) fn drain(&mut self) {
        self.serve(false, false);
    }
}

/// Passes signals on until the process has ended; its exit code, as a shell says it.
///
/// All of our children are reaped that end meanwhile: orphans of the container's may become ours.
pub(super) fn supervise(launched: &Launched, watch: &mut Watch) -> Result<u8, OciError> {
    let incoming = signals(&watch.all)?;
    loop {
        let (ended, signalled) = watch.wait(launched.pidfd.as_fd(), Some(&incoming))?;
        let mut reap_others = ended;
        if signalled {
            while let Ok(Some(info)) = incoming.read_signal() {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                reap_others |= number == Signal::SIGCHLD as i32;
                match &watch.terminal {
                    Terminal::Joined(terminal) if number == Signal::SIGWINCH as i32 => terminal.resize(),
                    _ => pass_on(launched.pidfd.as_fd(), number),
                }
            }
        }
        if reap_others && let Some(code) = reap(launched)? {
            return Ok(code);
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

/// Reaps all children that have ended; the code of the one that is waited for, if it is among them.
fn reap(launched: &Launched) -> Result<Option<u8>, OciError> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == launched.pid => {
                let number = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                code = Some(number.and_then(|code| u8::try_from(code).ok()).unwrap_or(255));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(errno) => return Err(io("waiting for the process", errno)),
        }
    }
}
