//! The keeper's loop: one thread, one epoll, no waiting anywhere else.
//!
//! Everything that can be waited for is a [`Source`] with a number that is never used again, so that
//! an event which arrives after its source has gone finds nothing. There is no periodic timer:
//! deadlines are in one ordered set, and without one the loop sleeps until something happens.

mod agents;
mod containers;
mod execs;
mod upgrade;

pub use upgrade::ResumeError;
pub(super) use upgrade::resume;

use super::candidate::Candidate;
use super::child::{Child, Container, Exec};
use super::connection::Connection;
use super::daemon::Options;
use super::fifo::Buffer;
use super::protocol::Fault;
use crate::sandbox::{self, LaunchError, Lingering, Report, Script, Unfit};
use crate::spec::InstanceId;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// More agents than this at once is a mistake of somebody's.
const MOST_CONNECTIONS: usize = 64;
/// Messages of one connection that are handled before the others have their turn.
const MESSAGES_PER_TURN: usize = 16;
/// How long another process may take to collect a container that is not our child.
const COLLECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a killed process may take to go before whoever asked for its start is answered without.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// How long new connections wait when the keeper is out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// A stream that is read again within this time rests for as long: one read then moves many lines.
const REST: Duration = Duration::from_millis(2);

/// Of a killed child whose end does not come.
const LINGERS: &str = "its process was killed and does not end: it stands in a frozen cgroup, or waits for a disk";
/// Of a child that was killed on its way.
const UNREPORTED: &str = "the process ended before it executed its program";

/// Something that can become ready or due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Listener,
    /// A signal that asks for another program.
    Reload,
    /// The program that is asked whether it can take our place.
    Candidate,
    Connection(u64),
    Stdout(u64),
    Stderr(u64),
    Process(u64),
    Report(u64),
    ExecProcess(u64),
    ExecReport(u64),
}

/// Anything that keeps the loop from working at all.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct LoopError {
    doing: &'static str,
    #[source]
    source: Errno,
}

impl LoopError {
    pub(super) fn new(doing: &'static str, source: Errno) -> Self {
        Self { doing, source }
    }
}

/// A refusal: for the agent, in words.
struct Refused(Fault, String);

pub(super) struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// Says that no other keeper runs; held until the process ends.
    lock: Option<OwnedFd>,
    null: OwnedFd,
    signals: SignalFd,
    options: Options,
    /// The limit of descriptors before the keeper raised its own.
    descriptors: Rlimit,
    next: u64,
    connections: BTreeMap<u64, Connection>,
    containers: BTreeMap<u64, Container>,
    by_instance: BTreeMap<InstanceId, u64>,
    execs: BTreeMap<u64, Exec>,
    deadlines: BTreeSet<(Instant, Source)>,
    buffer: Buffer,
    candidate: Option<Candidate>,
    /// A signal has asked for another program at a moment that does not allow it.
    reload_wanted: bool,
    wakeups: u64,
    upgrades: u64,
    quit: bool,
}

impl Server {
    /// `listener` does not block, and SIGHUP is blocked where it is to be heard.
    pub fn new(listener: OwnedFd, lock: Option<OwnedFd>, options: Options) -> Result<Self, LoopError> {
        let failed = |doing| move |source| LoopError { doing, source };
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&reload_signals(), flags);
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let server = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("making an epoll descriptor"))?,
            listener,
            lock,
            signals: signals.map_err(|errno| failed("listening to signals")(Errno::from_raw_os_error(errno as i32)))?,
            null: null.map_err(failed("opening /dev/null"))?.into(),
            options,
            descriptors: raise_descriptors().map_err(failed("raising the number of descriptors"))?,
            next: 1,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            execs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            buffer: Buffer::new(),
            candidate: None,
            reload_wanted: false,
            wakeups: 0,
            upgrades: 0,
            quit: false,
        };
        server.watch(server.listener.as_fd(), Source::Listener).map_err(failed("watching the socket"))?;
        server.watch(server.signals.as_fd(), Source::Reload).map_err(failed("watching signals"))?;
        Ok(server)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Serves until it is told to shut down.
    pub fn run(&mut self) -> Result<(), LoopError> {
        let mut events = Vec::with_capacity(64);
        while !self.quit {
            events.clear();
            let timeout = self.deadlines.first().map(|(at, _)| timespec(at.saturating_duration_since(Instant::now())));
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(source) => return Err(LoopError { doing: "waiting for events", source }),
            }
            self.wakeups += 1;
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                if let Some(source) = Source::from_token(data.u64()) {
                    self.ready(source, flags);
                }
            }
            self.due(Instant::now());
            self.connections.retain(|_, connection| {
                if connection.dead {
                    forget(&self.epoll, connection.fd());
                }
                !connection.dead
            });
            self.reload_if_wanted();
        }
        Ok(())
    }

    fn ready(&mut self, source: Source, flags: epoll::EventFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Reload => {
                // Read, so that it is over; several of them ask for the same.
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reload();
            }
            Source::Candidate => self.candidate_ended(),
            Source::Connection(id) => self.converse(id, flags),
            Source::Stdout(id) | Source::Stderr(id) => self.pump(source, id),
            Source::Report(id) => self.reported(id),
            Source::Process(id) => self.process_ended(id),
            Source::ExecReport(id) => self.exec_reported(id),
            Source::ExecProcess(id) => self.exec_ended(id),
        }
    }

    fn due(&mut self, now: Instant) {
        while let Some((at, source)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.deadlines.remove(&(at, source));
            match source {
                Source::Listener => self.interest(self.listener.as_fd(), source, epoll::EventFlags::IN),
                Source::Stdout(id) | Source::Stderr(id) => {
                    if let Some(stream) =
                        self.containers.get(&id).and_then(|container| container.stream(source.is_error()))
                    {
                        self.interest(stream.fd(), source, epoll::EventFlags::IN);
                    }
                }
                Source::Report(id) => {
                    let text = format!("not started within {}", humantime::format_duration(self.options.start_timeout));
                    self.start_failed(id, not_started(text));
                }
                Source::ExecReport(id) => {
                    let text = format!("not started within {}", humantime::format_duration(self.options.start_timeout));
                    self.exec_failed(id, not_started(text));
                }
                Source::Process(id) => self.process_is_late(id),
                Source::ExecProcess(id) => self.exec_is_late(id),
                Source::Candidate => self.candidate_is_late(),
                Source::Reload | Source::Connection(_) => {}
            }
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, source: Source) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(source.token()), epoll::EventFlags::IN)
    }

    fn interest(&self, fd: BorrowedFd<'_>, source: Source, flags: epoll::EventFlags) {
        // It fails only for a descriptor that is not watched, and every one we ask for is.
        let _ = epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(source.token()), flags);
    }

    /// Watches the report of a start; reading it must not wait for anything.
    fn watch_report(&self, report: &OwnedFd, source: Source) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(report, true)?;
        self.watch(report.as_fd(), source)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Source {
    fn token(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Reload => (0, 1),
            Self::Candidate => (0, 2),
            Self::Connection(id) => (1, id),
            Self::Stdout(id) => (2, id),
            Self::Stderr(id) => (3, id),
            Self::Process(id) => (4, id),
            Self::Report(id) => (5, id),
            Self::ExecProcess(id) => (6, id),
            Self::ExecReport(id) => (7, id),
        };
        id << 3 | kind
    }

    fn from_token(token: u64) -> Option<Self> {
        let id = token >> 3;
        Some(match token & 7 {
            0 => match id {
                0 => Self::Listener,
                1 => Self::Reload,
                2 => Self::Candidate,
                _ => return None,
            },
            1 => Self::Connection(id),
            2 => Self::Stdout(id),
            3 => Self::Stderr(id),
            4 => Self::Process(id),
            5 => Self::Report(id),
            6 => Self::ExecProcess(id),
            7 => Self::ExecReport(id),
            _ => return None,
        })
    }

    fn is_error(self) -> bool {
        matches!(self, Self::Stderr(_))
    }

    fn container(self) -> Option<u64> {
        match self {
            Self::Stdout(id) | Self::Stderr(id) | Self::Process(id) | Self::Report(id) => Some(id),
            Self::Listener
            | Self::Reload
            | Self::Candidate
            | Self::Connection(_)
            | Self::ExecProcess(_)
            | Self::ExecReport(_) => None,
        }
    }
}

/// Blocked and read as events, so that none of them ends the keeper.
pub(super) fn reload_signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGHUP);
    signals
}

/// Takes a descriptor out of the epoll. Closing it is not enough: a child that is being set up has a
/// copy of it, and as long as that lives the kernel goes on reporting.
fn forget(epoll: &OwnedFd, fd: BorrowedFd<'_>) {
    // It fails only for one that is not watched, which is what is wanted.
    let _ = epoll::delete(epoll, fd);
}

/// What is known of a start.
enum Began {
    NotYet,
    Executed,
    Failed(Refused),
}

fn began(report: &OwnedFd, script: &Script, child: &Child) -> Began {
    match sandbox::read_report(report.as_fd(), child.pid()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Began::NotYet,
        Ok(Report::Executed) => Began::Executed,
        Ok(Report::Failed(failure)) => Began::Failed(Refused(fault(script, &failure), script.explain(&failure))),
        Ok(Report::Waiting) => Began::Failed(not_started("it waits for a start, and the keeper knows of none")),
        Ok(Report::Listener(_)) => {
            Began::Failed(not_started("its filter has a listener, and the keeper knows of none"))
        }
        Ok(Report::Ended) => Began::Failed(not_started(UNREPORTED)),
        Err(error) => Began::Failed(not_started(format!("reading how the start went: {error}"))),
    }
}

fn fault(script: &Script, failure: &sandbox::Failure) -> Fault {
    match script.unfit(failure) {
        None => Fault::StartFailed,
        Some(Unfit::Missing) => Fault::NoSuchProgram,
        Some(Unfit::NotExecutable) => Fault::NotExecutable,
    }
}

fn not_started(text: impl Into<String>) -> Refused {
    Refused(Fault::StartFailed, text.into())
}

/// Of a launch that has not even come to a report; and the child that is left of it.
fn not_launched(script: &Script, error: LaunchError) -> (Refused, Option<Lingering>) {
    let text = chain(&error);
    match error {
        LaunchError::Operation { failure, words: _ } => (Refused(fault(script, &failure), text), None),
        LaunchError::Lingers { failure, words: _, child } => (Refused(fault(script, &failure), text), Some(child)),
        LaunchError::Prepare { .. } | LaunchError::Script(_) => (not_started(text), None),
    }
}

/// Four descriptors for every container are more than the usual 1024 allow. Returns the former limit.
fn raise_descriptors() -> Result<Rlimit, Errno> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(before)
}

fn timespec(duration: Duration) -> Timespec {
    // Longer than any deadline of ours is as good as for ever.
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

/// An error with all of its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
