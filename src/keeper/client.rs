//! The agent's end of the socket.

use super::address;
use super::protocol::{
    Adopt, Call, Event, Exec, Fault, Frame, Handle, LogTarget, Output, Reply, Request, Start, Started, Stats, VERSIONS,
    Whereabouts,
};
use super::wire::{Packet, Received};
use crate::sandbox::{Script, Stdio};
use crate::spec::InstanceId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An answer that takes longer comes from a keeper that hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longer than the keeper waits for a start, or for another program, because it has the better words.
const START_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("connecting to the keeper at {}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What was asked for may have been done; the list of the next connection tells.
    #[error("the connection to the keeper was lost")]
    Lost,
    #[error("the keeper did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("sending a request to the keeper")]
    Send(#[source] io::Error),
    /// The keeper's own words.
    #[error("{text}")]
    Refused { fault: Fault, text: String },
    #[error("the keeper gave an answer to another question")]
    Unexpected,
    #[error("running {}", path.display())]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the keeper did not start: {0}")]
    NotStarted(String),
}

impl KeeperError {
    /// Another try, on a new connection perhaps, may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost | Self::Timeout(_) | Self::Send(_) => true,
            Self::Refused { .. } | Self::Unexpected | Self::Spawn { .. } | Self::NotStarted(_) => false,
        }
    }

    /// What kind of refusal it is, if it is one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Refused { fault, .. } => Some(*fault),
            _ => None,
        }
    }
}

/// What to start.
#[derive(Debug)]
pub struct StartRequest<'a> {
    pub instance: &'a InstanceId,
    pub script: &'a Script,
    pub output: Output,
    /// A memfd with the filter as raw BPF, for a script that has one.
    pub seccomp: Option<BorrowedFd<'a>>,
}

/// What to run in a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    pub instance: &'a InstanceId,
    /// From [`crate::sandbox::exec_script`].
    pub script: &'a Script,
    pub io: ExecStreams<'a>,
    pub seccomp: Option<BorrowedFd<'a>>,
}

/// The command's ends of its streams; the caller keeps the others and the keeper keeps none.
#[derive(Debug)]
pub enum ExecStreams<'a> {
    Stdio(Stdio<'a>),
    /// A unix stream socket over which the terminal's master comes, with one byte.
    Terminal(BorrowedFd<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecStarted {
    pub pid: u32,
    /// What [`Event::ExecExited`] calls it.
    pub exec: u64,
}

/// A connection to the keeper. Any number of threads may call at once; a start holds up nobody else.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    socket: OwnedFd,
    /// A pidfd: its end is the end of the connection, whoever else has a copy of the other end.
    keeper: OwnedFd,
    /// Who waits for which answer; `None` when no answers come any more.
    waiting: Mutex<Option<BTreeMap<u64, SyncSender<Reply>>>>,
}

impl Client {
    /// Connects and greets. `on_event` is called by a thread of its own for all that happens from now
    /// on, and with [`Event::Lost`] as the last. That thread also takes in the answers, so `on_event`
    /// must return soon and never call the client.
    pub fn connect(socket: &Path, on_event: impl Fn(Event) + Send + 'static) -> Result<Self, KeeperError> {
        let failed = |source: io::Error| KeeperError::Connect { path: socket.to_owned(), source };
        let (connected, keeper) = open(socket).map_err(failed)?;
        let waiting = Mutex::new(Some(BTreeMap::new()));
        let shared = Arc::new(Shared { socket: connected, keeper, waiting });
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("keeper-events".to_owned());
        thread.spawn(move || reader.read(&on_event)).map_err(failed)?;
        let client = Self { shared, next: AtomicU64::new(1) };
        let (oldest, newest) = VERSIONS;
        match client.call(Request::Hello { oldest, newest }, &[], ANSWER_WITHIN)? {
            Reply::Welcome { version: _ } => Ok(client),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Starts a container; returns when its program runs, or with the reason why it does not. After
    /// an error nothing of it is left in the keeper.
    pub fn start(&self, request: &StartRequest<'_>) -> Result<Started, KeeperError> {
        let StartRequest { instance, script, output, seccomp } = request;
        let start = Start { instance: (*instance).clone(), script: (*script).clone(), output: output.clone() };
        let descriptors: Vec<_> = seccomp.iter().copied().collect();
        match self.call(Request::Start(Box::new(start)), &descriptors, START_WITHIN)? {
            Reply::Started(started) => Ok(started),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Sends a signal to the container's first process.
    pub fn signal(&self, instance: &InstanceId, signal: i32) -> Result<(), KeeperError> {
        self.done(Request::Signal { instance: instance.clone(), signal })
    }

    /// Everything that the keeper holds, with the ends that nobody has released yet.
    pub fn list(&self) -> Result<Vec<Handle>, KeeperError> {
        match self.call(Request::List, &[], ANSWER_WITHIN)? {
            Reply::List(handles) => Ok(handles),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Forgets a container that has ended, and takes its FIFOs away.
    pub fn release(&self, instance: &InstanceId) -> Result<(), KeeperError> {
        self.done(Request::Release { instance: instance.clone() })
    }

    /// Takes over a container that runs and whose keeper has died. [`Fault::NotFound`] when no
    /// process of it is in its cgroup.
    pub fn adopt(&self, instance: &InstanceId, find: Whereabouts, output: Output) -> Result<Started, KeeperError> {
        let adopt = Adopt { instance: instance.clone(), find, output };
        match self.call(Request::Adopt(Box::new(adopt)), &[], ANSWER_WITHIN)? {
            Reply::Started(started) => Ok(started),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Goes on in another log file, or with other limits, without disturbing the container.
    pub fn set_log(&self, instance: &InstanceId, log: LogTarget) -> Result<(), KeeperError> {
        self.done(Request::SetLog { instance: instance.clone(), log })
    }

    /// Runs a command in a running container; returns when its program runs.
    pub fn exec(&self, request: &ExecRequest<'_>) -> Result<ExecStarted, KeeperError> {
        let ExecRequest { instance, script, io, seccomp } = request;
        let (terminal, mut descriptors) = match io {
            ExecStreams::Stdio(stdio) => (false, vec![stdio.stdin, stdio.stdout, stdio.stderr]),
            ExecStreams::Terminal(console) => (true, vec![*console]),
        };
        descriptors.extend(seccomp.iter());
        let exec = Exec { instance: (*instance).clone(), script: (*script).clone(), terminal };
        match self.call(Request::Exec(Box::new(exec)), &descriptors, START_WITHIN)? {
            Reply::ExecStarted { pid, exec } => Ok(ExecStarted { pid, exec }),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Sends a signal to a command that [`Client::exec`] started, and to its process group.
    pub fn signal_exec(&self, exec: u64, signal: i32) -> Result<(), KeeperError> {
        self.done(Request::SignalExec { exec, signal })
    }

    /// Has the keeper execute `program` in its own place, with everything that it holds; returns when
    /// that runs. [`Fault::Busy`] while a start is half done; any refusal leaves the keeper as it is.
    pub fn upgrade(&self, program: &Path) -> Result<(), KeeperError> {
        match self.call(Request::Upgrade { program: program.to_owned() }, &[], START_WITHIN)? {
            Reply::Done => Ok(()),
            _ => Err(KeeperError::Unexpected),
        }
    }

    pub fn stats(&self) -> Result<Stats, KeeperError> {
        match self.call(Request::Ping, &[], ANSWER_WITHIN)? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(KeeperError::Unexpected),
        }
    }

    /// Ends the keeper. Without `force` only when nothing runs; with it, containers live on without one.
    pub fn shutdown(&self, force: bool) -> Result<(), KeeperError> {
        self.done(Request::Shutdown { force })
    }

    fn done(&self, request: Request) -> Result<(), KeeperError> {
        match self.call(request, &[], ANSWER_WITHIN)? {
            Reply::Done => Ok(()),
            _ => Err(KeeperError::Unexpected),
        }
    }

    fn call(&self, body: Request, descriptors: &[BorrowedFd<'_>], within: Duration) -> Result<Reply, KeeperError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let packet = Packet::new(&Call { id, body }).map_err(KeeperError::Send)?;
        let (answer, answered) = sync_channel(1);
        self.shared.with_waiting(|waiting| waiting.insert(id, answer)).ok_or(KeeperError::Lost)?;
        if let Err(errno) = packet.send(self.shared.socket.as_fd(), descriptors) {
            self.shared.with_waiting(|waiting| waiting.remove(&id));
            return Err(KeeperError::Send(errno.into()));
        }
        match answered.recv_timeout(within) {
            Ok(Reply::Failed { fault, text }) => Err(KeeperError::Refused { fault, text }),
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Disconnected) => Err(KeeperError::Lost),
            Err(RecvTimeoutError::Timeout) => {
                self.shared.with_waiting(|waiting| waiting.remove(&id));
                Err(KeeperError::Timeout(within))
            }
        }
    }
}

impl Drop for Client {
    /// Ends the connection and with it the reading thread.
    fn drop(&mut self) {
        // It fails only when the other side was quicker.
        let _ = rustix::net::shutdown(&self.shared.socket, Shutdown::Both);
    }
}

impl Shared {
    fn with_waiting<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, SyncSender<Reply>>) -> T) -> Option<T> {
        // A map is whole whatever thread has panicked.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut().map(work)
    }

    /// Waits until there is something to read; false when nothing comes any more.
    fn has_more(&self) -> bool {
        let mut either = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.keeper, PollFlags::IN)];
        // What it said before it ended is read first.
        rustix::io::retry_on_intr(|| poll(&mut either, None)).is_ok() && !either[0].revents().is_empty()
    }

    fn read(&self, on_event: &impl Fn(Event)) {
        while self.has_more() {
            let frame = Received::from(self.socket.as_fd());
            let Ok(Some(message)) = frame else { break };
            match message.parse() {
                Ok(Frame::Reply { id, reply }) => {
                    if let Reply::List(handles) = &reply {
                        on_event(Event::Listed(handles.clone()));
                    }
                    // Nobody waits any more after a timeout.
                    if let Some(answer) = self.with_waiting(|waiting| waiting.remove(&id)).flatten() {
                        let _ = answer.try_send(reply);
                    }
                }
                Ok(Frame::Event(event)) => on_event(event),
                // An event of a newer keeper within the version: news that we can do without.
                Err(_) => {}
            }
        }
        // What is sent from now on finds nobody, and the buffer would take it.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        // Dropping the senders ends every call that waits.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        on_event(Event::Lost);
    }
}

/// The socket, and a pidfd of the keeper.
fn open(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // A keeper that hangs must not hold up whoever wants to send.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ANSWER_WITHIN))?;
    address::with(path, |address| rustix::net::connect(&socket, address))?;
    let peer = sockopt::socket_peercred(&socket)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else listens there"));
    }
    let keeper = match address::listener_of(socket.as_fd()) {
        Err(Errno::SRCH) => return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the keeper there has ended")),
        keeper => keeper?,
    };
    Ok((socket, keeper))
}
