//! The keeper's loop: one thread, one epoll, no waiting anywhere else.
//!
//! Everything that can be waited for is a [`Source`] with a number that is never used again, so that
//! an event which arrives after its source has gone finds nothing. There is no periodic timer:
//! deadlines are in one ordered set, and without one the loop sleeps until something happens.

use super::child::{Asker, Child, Container, Exec, State};
use super::connection::Connection;
use super::exit::{self, Ended};
use super::fifo::{Buffer, Fifo};
use super::find;
use super::log::Log;
use super::protocol::{
    Adopt, Call, CallId, Event, Exit, Fault, Frame, Handle, HandleState, Output, Reply, Request, Start, Started, Stats,
    VERSIONS,
};
use super::wire::{Packet, Received};
use crate::sandbox::{self, ExecIo, Launched, Report, Script, Stdio};
use crate::spec::InstanceId;
use crate::sys;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// More agents than this at once is a mistake of somebody's.
const MOST_CONNECTIONS: usize = 64;
/// Messages of one connection that are handled before the others have their turn.
const MESSAGES_PER_TURN: usize = 16;
/// How long another process may take to collect a container that is not our child.
const COLLECT_WITHIN: Duration = Duration::from_secs(2);
/// How long new connections wait when the keeper is out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// A stream that is read again within this time rests for as long: one read then moves many lines.
const REST: Duration = Duration::from_millis(2);

/// The end of a child that is not followed by the end of its report: the report has another holder.
const UNREPORTED: &str = "the process ended before it executed its program";

/// Something that can become ready or due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Listener,
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
    null: OwnedFd,
    start_timeout: Duration,
    /// The limit of descriptors before the keeper raised its own.
    descriptors: Rlimit,
    next: u64,
    connections: BTreeMap<u64, Connection>,
    containers: BTreeMap<u64, Container>,
    by_instance: BTreeMap<InstanceId, u64>,
    execs: BTreeMap<u64, Exec>,
    deadlines: BTreeSet<(Instant, Source)>,
    buffer: Buffer,
    wakeups: u64,
    quit: bool,
}

impl Server {
    /// `listener` does not block.
    pub fn new(listener: OwnedFd, start_timeout: Duration) -> Result<Self, LoopError> {
        let failed = |doing| move |source| LoopError { doing, source };
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let server = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("making an epoll descriptor"))?,
            listener,
            null: null.map_err(failed("opening /dev/null"))?.into(),
            start_timeout,
            descriptors: raise_descriptors().map_err(failed("raising the number of descriptors"))?,
            next: 1,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            execs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            buffer: Buffer::new(),
            wakeups: 0,
            quit: false,
        };
        server.watch(server.listener.as_fd(), Source::Listener).map_err(failed("watching the socket"))?;
        Ok(server)
    }

    /// Serves until it is told to shut down.
    pub fn run(mut self) -> Result<(), LoopError> {
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
        }
        Ok(())
    }

    fn ready(&mut self, source: Source, flags: epoll::EventFlags) {
        match source {
            Source::Listener => self.accept(),
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
                    let text = format!("not started within {}", humantime::format_duration(self.start_timeout));
                    self.start_failed(id, text);
                }
                Source::ExecReport(id) => {
                    let text = format!("not started within {}", humantime::format_duration(self.start_timeout));
                    self.exec_failed(id, text);
                }
                Source::Process(id) => self.finish(id, exit::unknown()),
                Source::Connection(_) | Source::ExecProcess(_) => {}
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

/// Agents.
impl Server {
    fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => {
                let peer = rustix::net::sockopt::socket_peercred(&socket);
                let trusted = peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid());
                let id = self.number();
                let fits = self.connections.len() < MOST_CONNECTIONS;
                if trusted && fits && self.watch(socket.as_fd(), Source::Connection(id)).is_ok() {
                    self.connections.insert(id, Connection::new(socket));
                }
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                // The connection stays in the queue and would wake us for ever.
                self.interest(self.listener.as_fd(), Source::Listener, epoll::EventFlags::empty());
                self.deadlines.insert((Instant::now() + ACCEPT_AGAIN, Source::Listener));
            }
            // Whoever knocked has gone.
            Err(_) => {}
        }
    }

    fn converse(&mut self, id: u64, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.with_connection(id, Connection::flush);
        }
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return;
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.dead) else { return };
            match connection.receive() {
                Ok(Some(message)) => self.handle(id, message),
                Ok(None) => return,
                Err(_) => {
                    connection.dead = true;
                    return;
                }
            }
        }
    }

    /// Does something that may send, and then watches for room if something is left over.
    fn with_connection(&mut self, id: u64, work: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let before = connection.is_waiting();
        work(connection);
        let after = connection.is_waiting();
        if before != after {
            let out = if after { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(Source::Connection(id).token());
            // As in `interest`.
            let _ = epoll::modify(&self.epoll, connection.fd(), data, epoll::EventFlags::IN | out);
        }
    }

    fn handle(&mut self, from: u64, message: Received) {
        let call: Call<Request> = match message.parse() {
            Ok(call) => call,
            Err(error) => {
                match message.parse::<CallId>() {
                    Ok(CallId { id }) => {
                        let text = format!("not a request that this keeper knows: {error}");
                        self.refuse(Asker { connection: from, call: id }, Refused(Fault::Invalid, text));
                    }
                    Err(_) => self.hang_up(from),
                }
                return;
            }
        };
        let asker = Asker { connection: from, call: call.id };
        let greeted = self.connections.get(&from).is_some_and(|connection| connection.greeted);
        if !greeted && !matches!(call.body, Request::Hello { .. }) {
            return self.refuse(asker, Refused(Fault::Invalid, "the first message must be hello".to_owned()));
        }
        let mut descriptors = message.descriptors;
        let done = match call.body {
            Request::Hello { oldest, newest } => self.hello(from, oldest, newest).map(Some),
            Request::Ping => Ok(Some(Reply::Stats(self.stats()))),
            Request::List => Ok(Some(Reply::List(self.list()))),
            // These answer when the program runs, or when it is clear that it never will.
            Request::Start(start) => self.start(asker, *start, descriptors.pop()).map(|()| None),
            Request::Exec(exec) => self.exec(asker, *exec, descriptors).map(|()| None),
            Request::Signal { instance, signal } => self.signal(&instance, signal).map(|()| Some(Reply::Done)),
            Request::Release { instance } => self.release(&instance).map(|()| Some(Reply::Done)),
            Request::Adopt(adopt) => self.adopt(*adopt).map(Some),
            Request::SetLog { instance, log } => self.container(&instance).and_then(|container| {
                let done = container.log.set_target(log);
                done.map(|()| Some(Reply::Done))
                    .map_err(|error| Refused(Fault::Other, format!("opening the log file: {error}")))
            }),
            Request::Shutdown { force } => self.shutdown(force).map(|()| Some(Reply::Done)),
        };
        match done {
            Ok(Some(reply)) => self.reply(asker, reply),
            Ok(None) => {}
            Err(refused) => self.refuse(asker, refused),
        }
    }

    fn hello(&mut self, from: u64, oldest: u32, newest: u32) -> Result<Reply, Refused> {
        let version = newest.min(VERSIONS.1);
        if version < oldest.max(VERSIONS.0) {
            let (low, high) = VERSIONS;
            let text = format!("this keeper speaks versions {low} to {high}, and not {oldest} to {newest}");
            return Err(Refused(Fault::Invalid, text));
        }
        self.with_connection(from, |connection| connection.greeted = true);
        Ok(Reply::Welcome { version })
    }

    fn reply(&mut self, asker: Asker, reply: Reply) {
        self.post(asker.connection, &Frame::Reply { id: asker.call, reply });
    }

    fn refuse(&mut self, asker: Asker, Refused(fault, text): Refused) {
        self.reply(asker, Reply::Failed { fault, text });
    }

    fn post(&mut self, to: u64, frame: &Frame) {
        match Packet::new(frame) {
            Ok(packet) => self.with_connection(to, |connection| connection.send(Rc::new(packet))),
            // No memory or descriptor for a long answer: the agent sees the connection end and asks again.
            Err(_) => self.hang_up(to),
        }
    }

    fn broadcast(&mut self, event: Event) {
        let listeners: Vec<u64> =
            self.connections.iter().filter(|(_, connection)| connection.greeted).map(|(id, _)| *id).collect();
        if listeners.is_empty() {
            return;
        }
        match Packet::new(&Frame::Event(event)) {
            Ok(packet) => {
                let packet = Rc::new(packet);
                for id in listeners {
                    self.with_connection(id, |connection| connection.send(Rc::clone(&packet)));
                }
            }
            Err(_) => listeners.into_iter().for_each(|id| self.hang_up(id)),
        }
    }

    fn hang_up(&mut self, id: u64) {
        self.with_connection(id, |connection| connection.dead = true);
    }
}

/// Containers.
impl Server {
    fn container(&mut self, instance: &InstanceId) -> Result<&mut Container, Refused> {
        let id = self.by_instance.get(instance);
        id.and_then(|id| self.containers.get_mut(id))
            .ok_or_else(|| Refused(Fault::NotFound, format!("{instance} is not known to the keeper")))
    }

    fn absent(&self, instance: &InstanceId) -> Result<(), Refused> {
        if self.by_instance.contains_key(instance) {
            return Err(Refused(Fault::Exists, format!("{instance} is there already")));
        }
        Ok(())
    }

    fn start(&mut self, asker: Asker, start: Start, seccomp: Option<OwnedFd>) -> Result<(), Refused> {
        let Start { instance, script, output } = start;
        self.absent(&instance)?;
        let log = open_log(&output)?;
        let Output { log: _, stdout, stderr, uid, gid } = output;
        let failed = |error: &dyn std::error::Error| Refused(Fault::StartFailed, chain(error));
        let stdout = Fifo::make(&stdout, "stdout", uid, gid).map_err(|error| failed(&error))?;
        let stderr = match Fifo::make(&stderr, "stderr", uid, gid) {
            Ok(stderr) => stderr,
            Err(error) => {
                stdout.remove();
                return Err(failed(&error));
            }
        };
        let launched = (|| {
            let out = stdout.for_container().map_err(|error| failed(&error))?;
            let err = stderr.for_container().map_err(|error| failed(&error))?;
            let stdio = Stdio { stdin: self.null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
            sandbox::launch(&script, stdio, seccomp.as_ref().map(AsFd::as_fd)).map_err(|error| failed(&error))
        })();
        let launched = match launched {
            Ok(launched) => launched,
            Err(refused) => {
                stdout.remove();
                stderr.remove();
                return Err(refused);
            }
        };
        let id = self.number();
        let Launched { pid, pidfd, report } = launched;
        self.usual_limits(pid);
        let child = Child::new(pid.as_raw_nonzero().get().unsigned_abs(), pidfd, true);
        let state = State::Starting { report, script: Box::new(script), asker };
        let container = Container::new(instance, child, state, log, Some(stdout), Some(stderr));
        self.keep(id, container);
        self.deadlines.insert((Instant::now() + self.start_timeout, Source::Report(id)));
        Ok(())
    }

    /// Watches everything of a container.
    fn keep(&mut self, id: u64, container: Container) {
        let mut watched = self.watch(container.child.pidfd(), Source::Process(id));
        for (stream, source) in [(&container.stdout, Source::Stdout(id)), (&container.stderr, Source::Stderr(id))] {
            if let Some(stream) = stream {
                watched = watched.and_then(|()| self.watch(stream.fd(), source));
            }
        }
        if let State::Starting { report, .. } = &container.state {
            watched = watched.and_then(|()| self.watch_report(report, Source::Report(id)));
        }
        self.by_instance.insert(container.instance.clone(), id);
        self.containers.insert(id, container);
        if let Err(errno) = watched {
            self.start_failed(id, format!("watching the process: {errno}"));
        }
    }

    /// A child gets the number of descriptors that the keeper itself was given, not the one it needs.
    fn usual_limits(&self, pid: Pid) {
        // It can only have ended already, which is noticed elsewhere.
        let _ = rustix::process::prlimit(Some(pid), Resource::Nofile, self.descriptors);
    }

    fn reported(&mut self, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let State::Starting { report, script, asker } = &container.state else { return };
        let asker = *asker;
        let Some(failure) = failure_of(report, script) else { return };
        if let Some(text) = failure {
            return self.start_failed(id, text);
        }
        let (instance, pid) = (container.instance.clone(), container.child.pid);
        let since = exit::now();
        container.since = since;
        self.end_of_starting(id, State::Running);
        self.reply(asker, Reply::Started(Started { pid, since }));
        self.broadcast(Event::Started { instance, pid });
    }

    /// Leaves `Starting`: nobody looks at the report and the clock any more.
    fn end_of_starting(&mut self, id: u64, state: State) {
        if let Some(container) = self.containers.get_mut(&id) {
            if let State::Starting { report, .. } = &container.state {
                forget(&self.epoll, report.as_fd());
            }
            container.state = state;
        }
        self.deadlines.retain(|(_, source)| *source != Source::Report(id));
    }

    /// Ends a start that can't succeed. The answer comes when the process is gone.
    fn start_failed(&mut self, id: u64, text: String) {
        let Some(container) = self.containers.get(&id) else { return };
        let State::Starting { asker, .. } = &container.state else { return };
        let asker = *asker;
        container.child.kill();
        self.end_of_starting(id, State::Failing { asker, text });
    }

    fn process_ended(&mut self, id: u64) {
        // A program that has ended has also started, or has said why not.
        self.reported(id);
        let Some(container) = self.containers.get(&id) else { return };
        match container.child.collect() {
            Ended::As(exit) => self.finish(id, exit),
            Ended::NotYet => {}
            Ended::Uncollected => {
                // It is readable from now on; what is still to come is the hang-up that tells of its collection.
                self.interest(container.child.pidfd(), Source::Process(id), epoll::EventFlags::empty());
                let waits = self.deadlines.iter().any(|(_, source)| *source == Source::Process(id));
                if !waits {
                    self.deadlines.insert((Instant::now() + COLLECT_WITHIN, Source::Process(id)));
                }
            }
        }
    }

    fn finish(&mut self, id: u64, exit: Exit) {
        self.deadlines.retain(|(_, source)| *source != Source::Process(id));
        let Some(container) = self.containers.get_mut(&id) else { return };
        if matches!(container.state, State::Exited(_)) {
            return;
        }
        forget(&self.epoll, container.child.pidfd());
        container.drain(&mut self.buffer);
        let instance = container.instance.clone();
        match std::mem::replace(&mut container.state, State::Exited(exit)) {
            State::Failing { asker, text } => {
                self.drop_container(id);
                self.refuse(asker, Refused(Fault::StartFailed, text.clone()));
                self.broadcast(Event::StartFailed { instance, text });
            }
            State::Starting { report, script: _, asker } => {
                forget(&self.epoll, report.as_fd());
                self.drop_container(id);
                let text = UNREPORTED.to_owned();
                self.refuse(asker, Refused(Fault::StartFailed, text.clone()));
                self.broadcast(Event::StartFailed { instance, text });
            }
            State::Running | State::Exited(_) => self.broadcast(Event::Exited { instance, exit }),
        }
    }

    fn pump(&mut self, source: Source, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let now = Instant::now();
        let Some((busy, fd)) = container.pump(source.is_error(), now, REST, &mut self.buffer) else { return };
        if busy {
            let data = epoll::EventData::new_u64(source.token());
            // As in `interest`.
            let _ = epoll::modify(&self.epoll, fd, data, epoll::EventFlags::empty());
            self.deadlines.insert((now + REST, source));
        }
    }

    fn signal(&mut self, instance: &InstanceId, signal: i32) -> Result<(), Refused> {
        let container = self.container(instance)?;
        if let State::Exited(_) = container.state {
            return Err(Refused(Fault::NotFound, format!("{instance} has ended")));
        }
        if !(1..=64).contains(&signal) {
            return Err(Refused(Fault::Invalid, format!("{signal} is not a signal")));
        }
        match sys::pidfd_kill(container.child.pidfd(), signal) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(Refused(Fault::NotFound, format!("{instance} has ended"))),
            Err(errno) => Err(Refused(Fault::Other, format!("sending signal {signal} to {instance}: {errno}"))),
        }
    }

    fn release(&mut self, instance: &InstanceId) -> Result<(), Refused> {
        let container = self.container(instance)?;
        if !matches!(container.state, State::Exited(_)) {
            return Err(Refused(Fault::Running, format!("{instance} has not ended")));
        }
        let id = self.by_instance[instance];
        self.drop_container(id);
        Ok(())
    }

    fn drop_container(&mut self, id: u64) {
        let Some(mut container) = self.containers.remove(&id) else { return };
        self.by_instance.remove(&container.instance);
        container.drain(&mut self.buffer);
        for stream in [container.stdout, container.stderr].into_iter().flatten() {
            forget(&self.epoll, stream.fd());
            stream.remove();
        }
        self.deadlines.retain(|(_, source)| source.container() != Some(id));
    }

    fn adopt(&mut self, adopt: Adopt) -> Result<Reply, Refused> {
        let Adopt { instance, find, output } = adopt;
        self.absent(&instance)?;
        let found = find::find(&find);
        let (pid, pidfd) =
            found.ok_or_else(|| Refused(Fault::NotFound, format!("no process of {instance} was found")))?;
        let log = open_log(&output)?;
        // A container whose FIFO is gone has lost its voice; that is no reason to lose the container.
        let stdout = Fifo::open(&output.stdout, "stdout").ok();
        let stderr = Fifo::open(&output.stderr, "stderr").ok();
        let child = Child::new(pid, pidfd, false);
        let mut container = Container::new(instance, child, State::Running, log, stdout, stderr);
        container.since = find.since.unwrap_or_else(exit::now);
        let since = container.since;
        let id = self.number();
        self.keep(id, container);
        Ok(Reply::Started(Started { pid, since }))
    }

    fn list(&self) -> Vec<Handle> {
        self.by_instance.values().filter_map(|id| self.containers.get(id)).map(Container::handle).collect()
    }

    fn stats(&self) -> Stats {
        let starting = |container: &&Container| container.handle().state == HandleState::Starting;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats {
            pid: std::process::id(),
            containers: count(self.containers.len()),
            starting: count(self.containers.values().filter(starting).count()),
            execs: count(self.execs.len()),
            connections: count(self.connections.len()),
            wakeups: self.wakeups,
        }
    }

    fn shutdown(&mut self, force: bool) -> Result<(), Refused> {
        let running = self.containers.values().filter(|container| !matches!(container.state, State::Exited(_))).count();
        if running > 0 && !force {
            let text = format!("{running} containers have not ended");
            return Err(Refused(Fault::Running, text));
        }
        // What runs needs its FIFOs; what has ended is forgotten with all it has.
        let ended = |(id, container): (&u64, &Container)| matches!(container.state, State::Exited(_)).then_some(*id);
        for id in self.containers.iter().filter_map(ended).collect::<Vec<_>>() {
            self.drop_container(id);
        }
        self.quit = true;
        Ok(())
    }
}

/// Commands beside a container's own.
impl Server {
    fn exec(&mut self, asker: Asker, exec: super::protocol::Exec, descriptors: Vec<OwnedFd>) -> Result<(), Refused> {
        let super::protocol::Exec { instance, script, terminal } = exec;
        let container = self.container(&instance)?;
        if !matches!(container.state, State::Running) {
            return Err(Refused(Fault::NotFound, format!("{instance} does not run")));
        }
        let (io, seccomp) = match (&descriptors[..], terminal) {
            ([console, rest @ ..], true) => (ExecIo::Terminal { console: console.as_fd() }, rest.first()),
            ([stdin, stdout, stderr, rest @ ..], false) => {
                let stdio = Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
                (ExecIo::Stdio(stdio), rest.first())
            }
            _ => return Err(Refused(Fault::Invalid, "exec without descriptors".to_owned())),
        };
        let launched = sandbox::launch_exec(&script, container.child.pidfd(), io, seccomp.map(AsFd::as_fd));
        let launched = launched.map_err(|error| Refused(Fault::StartFailed, chain(&error)))?;
        let id = self.number();
        let Launched { pid, pidfd, report } = launched;
        self.usual_limits(pid);
        let child = Child::new(pid.as_raw_nonzero().get().unsigned_abs(), pidfd, true);
        let watched = self
            .watch(child.pidfd(), Source::ExecProcess(id))
            .and_then(|()| self.watch_report(&report, Source::ExecReport(id)));
        let state = State::Starting { report, script: Box::new(script), asker };
        self.execs.insert(id, Exec { instance, child, state });
        self.deadlines.insert((Instant::now() + self.start_timeout, Source::ExecReport(id)));
        if let Err(errno) = watched {
            self.exec_failed(id, format!("watching the process: {errno}"));
        }
        Ok(())
    }

    fn exec_reported(&mut self, id: u64) {
        let Some(exec) = self.execs.get(&id) else { return };
        let State::Starting { report, script, asker } = &exec.state else { return };
        let asker = *asker;
        let Some(failure) = failure_of(report, script) else { return };
        match failure {
            Some(text) => self.exec_failed(id, text),
            None => {
                let pid = exec.child.pid;
                self.exec_out_of_starting(id, State::Running);
                self.reply(asker, Reply::ExecStarted { pid, exec: id });
            }
        }
    }

    fn exec_out_of_starting(&mut self, id: u64, state: State) {
        if let Some(exec) = self.execs.get_mut(&id) {
            if let State::Starting { report, .. } = &exec.state {
                forget(&self.epoll, report.as_fd());
            }
            exec.state = state;
        }
        self.deadlines.retain(|(_, source)| *source != Source::ExecReport(id));
    }

    fn exec_failed(&mut self, id: u64, text: String) {
        let Some(exec) = self.execs.get(&id) else { return };
        let State::Starting { asker, .. } = &exec.state else { return };
        let asker = *asker;
        exec.child.kill();
        self.exec_out_of_starting(id, State::Failing { asker, text });
    }

    fn exec_ended(&mut self, id: u64) {
        self.exec_reported(id);
        let Some(exec) = self.execs.get(&id) else { return };
        let Ended::As(exit) = exec.child.collect() else { return };
        forget(&self.epoll, exec.child.pidfd());
        let Some(Exec { instance, child: _, state }) = self.execs.remove(&id) else { return };
        match state {
            State::Failing { asker, text } => self.refuse(asker, Refused(Fault::StartFailed, text)),
            State::Starting { report, script: _, asker } => {
                forget(&self.epoll, report.as_fd());
                self.deadlines.retain(|(_, source)| *source != Source::ExecReport(id));
                self.refuse(asker, Refused(Fault::StartFailed, UNREPORTED.to_owned()));
            }
            State::Running | State::Exited(_) => self.broadcast(Event::ExecExited { instance, exec: id, exit }),
        }
    }
}

impl Source {
    fn token(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
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
            0 => Self::Listener,
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
            Self::Listener | Self::Connection(_) | Self::ExecProcess(_) | Self::ExecReport(_) => None,
        }
    }
}

/// Takes a descriptor out of the epoll. Closing it is not enough: a child that is being set up has a
/// copy of it, and as long as that lives the kernel goes on reporting.
fn forget(epoll: &OwnedFd, fd: BorrowedFd<'_>) {
    // It fails only for one that is not watched, which is what is wanted.
    let _ = epoll::delete(epoll, fd);
}

/// Why a start failed, if it did; `None` when that is not known yet.
fn failure_of(report: &OwnedFd, script: &Script) -> Option<Option<String>> {
    match sandbox::read_report(report.as_fd()) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Ok(Report::Executed) => Some(None),
        Ok(Report::Failed(failure)) => Some(Some(script.explain(&failure))),
        // Killed with a message of the parent's unread: long before its program.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(Some(UNREPORTED.to_owned())),
        Err(error) => Some(Some(format!("reading how the start went: {error}"))),
    }
}

fn open_log(output: &Output) -> Result<Log, Refused> {
    let path = output.log.path.display().to_string();
    Log::open(output.log.clone())
        .map_err(|error| Refused(Fault::StartFailed, format!("opening the log {path}: {error}")))
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
