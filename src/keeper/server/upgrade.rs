//! Another program in place of this one: same process, same children, same descriptors.

use super::super::candidate::Candidate;
use super::super::child::{Asker, Child, Container, Exec, State};
use super::super::connection::Connection;
use super::super::daemon::Options;
use super::super::fifo::Fifo;
use super::super::handover::{HandoverError, Packing, Unpacking};
use super::super::log::Log;
use super::super::protocol::{Fault, Reply};
use super::super::state::{
    self, ChildState, ConnectionState, ContainerState, ExecState, FifoState, LogState, Octets, PacketState, STATES,
};
use super::super::wire::Packet;
use super::{LoopError, Refused, Server, Source, forget, raise_descriptors};
use crate::keeper::daemon;
use crate::sys::may_die;
use rustix::event::epoll;
use rustix::process::{Pid, Rlimit};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// A program that takes longer to say what it knows is not taken. Nothing waits for it meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl Server {
    /// Begins to ask the program. `asker` is answered when it runs, or when it is clear that it won't.
    pub(super) fn upgrade(&mut self, asker: Option<Asker>, program: &Path) -> Result<(), Refused> {
        if self.candidate.is_some() {
            return Err(Refused(Fault::Busy, "an upgrade is under way".to_owned()));
        }
        self.nothing_on_its_way()?;
        let failed = |text: String| Refused(Fault::Other, format!("running {}: {text}", program.display()));
        let candidate = Candidate::ask(program, asker).map_err(|error| failed(error.to_string()))?;
        if let Err(errno) = self.watch(candidate.pidfd(), Source::Candidate) {
            candidate.abandon();
            return Err(failed(errno.to_string()));
        }
        self.deadlines.insert((Instant::now() + ANSWER_WITHIN, Source::Candidate));
        self.candidate = Some(candidate);
        Ok(())
    }

    /// What `systemctl reload` asks for. Where it can't be at once, it is when nothing is half done.
    pub(super) fn reload(&mut self) {
        let Some(program) = self.options.binary.clone() else {
            return daemon::tell("asked by a signal to run another program, but it is not known which");
        };
        match self.upgrade(None, &program) {
            Ok(()) => self.reload_wanted = false,
            Err(Refused(Fault::Busy, _)) => self.reload_wanted = true,
            Err(Refused(_, text)) => daemon::tell(&format!("goes on with the same program: {text}")),
        }
    }

    /// A signal that came at the wrong moment is answered at the right one.
    pub(super) fn reload_if_wanted(&mut self) {
        if self.reload_wanted && self.candidate.is_none() && self.nothing_on_its_way().is_ok() {
            self.reload_wanted = false;
            self.reload();
        }
    }

    fn nothing_on_its_way(&self) -> Result<(), Refused> {
        let containers = self.containers.values().map(|container| &container.state);
        let mut states = containers.chain(self.execs.values().map(|exec| &exec.state));
        if states.any(State::is_on_its_way) {
            return Err(Refused(Fault::Busy, "a start is half done".to_owned()));
        }
        Ok(())
    }

    pub(super) fn candidate_is_late(&mut self) {
        if let Some(candidate) = &self.candidate {
            // Its end is what is waited for then, and that it was killed is an objection.
            candidate.kill();
        }
    }

    /// The program has said what it knows.
    pub(super) fn candidate_ended(&mut self) {
        let Some(mut candidate) = self.candidate.take() else { return };
        forget(&self.epoll, candidate.pidfd());
        self.deadlines.retain(|(_, source)| *source != Source::Candidate);
        let refused = match candidate.objection() {
            Some(text) => Refused(Fault::Other, format!("{}: {text}", candidate.path.display())),
            None => match self.nothing_on_its_way() {
                Ok(()) => self.execute(&candidate),
                Err(refused) => refused,
            },
        };
        match (candidate.asker, refused) {
            (Some(asker), refused) => self.refuse(asker, refused),
            (None, Refused(Fault::Busy, _)) => self.reload_wanted = true,
            (None, Refused(_, text)) => daemon::tell(&format!("goes on with the same program: {text}")),
        }
    }

    /// Does not return when it succeeds.
    fn execute(&self, candidate: &Candidate) -> Refused {
        let failed = |error: std::io::Error| {
            let text = format!("executing {}: {error}", candidate.path.display());
            Refused(Fault::Other, text)
        };
        let mut packing = Packing::default();
        let state = self.pack(&mut packing, candidate.asker);
        let socket = match packing.send(&state) {
            Ok(socket) => socket,
            Err(error) => return failed(error),
        };
        may_die("keeper: packed");
        let error = candidate.execute(&socket, &self.options.run);
        // The standard input is nothing again; if not even that can be had, what stays there is idle.
        let _ = rustix::stdio::dup2_stdin(&self.null);
        failed(error)
    }

    /// Everything that the next program needs, with its descriptors. Nothing of ours is changed.
    fn pack<'a>(&'a self, packing: &mut Packing<'a>, asker: Option<Asker>) -> state::State {
        let Options { run, log, cgroups, start_timeout, binary } = &self.options;
        let listener = packing.put(self.listener.as_fd());
        let lock = self.lock.as_ref().map(|lock| packing.put(lock.as_fd()));
        state::State {
            version: STATES.1,
            run: run.clone(),
            log: log.clone(),
            cgroups: cgroups.clone(),
            start_timeout_ms: u64::try_from(start_timeout.as_millis()).unwrap_or(u64::MAX),
            binary: binary.clone(),
            descriptors: [self.descriptors.current, self.descriptors.maximum],
            listener,
            lock,
            next: self.next,
            wakeups: self.wakeups,
            upgrades: self.upgrades + 1,
            asker: asker.map(|Asker { connection, call }| (connection, call)),
            containers: self.containers.iter().map(|(id, container)| pack_container(*id, container, packing)).collect(),
            execs: self.execs.iter().map(|(id, exec)| pack_exec(*id, exec, packing)).collect(),
            connections: self
                .connections
                .iter()
                .filter(|(_, connection)| !connection.dead)
                .map(|(id, connection)| pack_connection(*id, connection, packing))
                .collect(),
        }
    }

    /// The keeper that a former program was.
    pub fn resume(state: state::State, mut unpacking: Unpacking) -> Result<Self, ResumeError> {
        let options = Options {
            run: state.run,
            log: state.log,
            cgroups: state.cgroups,
            start_timeout: Duration::from_millis(state.start_timeout_ms),
            binary: state.binary,
        };
        let listener = unpacking.take(state.listener)?;
        let lock = state.lock.map(|slot| unpacking.take(slot)).transpose()?;
        if let Some(lock) = &lock {
            daemon::lock_again(lock.as_fd());
        }
        let mut server = Self::new(listener, lock, options)?;
        // What was raised before is not what children get.
        let [current, maximum] = state.descriptors;
        server.descriptors = Rlimit { current, maximum };
        raise_descriptors().map_err(|errno| LoopError::new("raising the number of descriptors", errno))?;
        (server.next, server.wakeups, server.upgrades) = (state.next, state.wakeups, state.upgrades);
        for connection in state.connections {
            server.unpack_connection(connection, &mut unpacking)?;
        }
        for container in state.containers {
            let (id, container) = unpack_container(container, &mut unpacking)?;
            server.keep(id, container);
        }
        for exec in state.execs {
            let ExecState { id, instance, child } = exec;
            let child = unpack_child(child, &mut unpacking)?;
            server
                .watch(child.pidfd(), Source::ExecProcess(id))
                .map_err(|errno| LoopError::new("watching a process", errno))?;
            server.execs.insert(id, Exec { instance, child, state: State::Running });
        }
        may_die("keeper: unpacked");
        if let Some((connection, call)) = state.asker {
            server.reply(Asker { connection, call }, Reply::Done);
        }
        Ok(server)
    }

    fn unpack_connection(&mut self, state: ConnectionState, unpacking: &mut Unpacking) -> Result<(), ResumeError> {
        let ConnectionState { id, socket, greeted, waiting } = state;
        let socket = unpacking.take(socket)?;
        let mut packets = Vec::with_capacity(waiting.len());
        for PacketState { bytes: Octets(bytes), payload } in waiting {
            packets.push(Packet::from_parts(bytes, payload.map(|slot| unpacking.take(slot)).transpose()?));
        }
        let connection = Connection::resume(socket, greeted, packets.into_iter());
        self.watch(connection.fd(), Source::Connection(id))
            .map_err(|errno| LoopError::new("watching a connection", errno))?;
        if connection.is_waiting() {
            self.interest(connection.fd(), Source::Connection(id), epoll::EventFlags::IN | epoll::EventFlags::OUT);
        }
        self.connections.insert(id, connection);
        Ok(())
    }
}

/// Why the work of a former program is not gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error("{0} is not the number of a process")]
    Pid(u32),
}

fn pack_child<'a>(child: &'a Child, packing: &mut Packing<'a>) -> ChildState {
    ChildState { pid: child.number(), pidfd: packing.put(child.pidfd()), ours: child.is_ours() }
}

fn unpack_child(state: ChildState, unpacking: &mut Unpacking) -> Result<Child, ResumeError> {
    let ChildState { pid, pidfd, ours } = state;
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ResumeError::Pid(pid))?;
    Ok(Child::new(number, unpacking.take(pidfd)?, ours))
}

fn pack_exec<'a>(id: u64, exec: &'a Exec, packing: &mut Packing<'a>) -> ExecState {
    ExecState { id, instance: exec.instance.clone(), child: pack_child(&exec.child, packing) }
}

fn pack_container<'a>(id: u64, container: &'a Container, packing: &mut Packing<'a>) -> ContainerState {
    let mut stream = |fifo: Option<&'a Fifo>| {
        let fifo = fifo?;
        let begun = Octets(fifo.begun().to_vec());
        Some(FifoState { path: fifo.path().to_owned(), fd: packing.put(fifo.fd()), begun })
    };
    let (stdout, stderr) = (stream(container.stdout.as_ref()), stream(container.stderr.as_ref()));
    let log = &container.log;
    ContainerState {
        id,
        instance: container.instance.clone(),
        child: pack_child(&container.child, packing),
        exit: match &container.state {
            State::Exited(exit) => Some(*exit),
            State::Running | State::Starting { .. } | State::Failing { .. } => None,
        },
        since: container.since,
        log: LogState {
            target: log.target().clone(),
            counters: log.counters(),
            file: log.open_file().map(|file| packing.put(file.as_fd())),
        },
        stdout,
        stderr,
    }
}

fn unpack_container(state: ContainerState, unpacking: &mut Unpacking) -> Result<(u64, Container), ResumeError> {
    let ContainerState { id, instance, child, exit, since, log, stdout, stderr } = state;
    let child = unpack_child(child, unpacking)?;
    let LogState { target, counters, file } = log;
    let file = file.map(|slot| unpacking.take(slot)).transpose()?.map(File::from);
    let mut stream = |state: Option<FifoState>, name| -> Result<Option<Fifo>, HandoverError> {
        let Some(FifoState { path, fd, begun: Octets(begun) }) = state else { return Ok(None) };
        Ok(Some(Fifo::resume(path, unpacking.take(fd)?, name, begun)))
    };
    let (stdout, stderr) = (stream(stdout, "stdout")?, stream(stderr, "stderr")?);
    let state = exit.map_or(State::Running, State::Exited);
    let log = Log::resume(target, counters, file);
    let mut container = Container::new(instance, child, state, log, stdout, stderr);
    container.since = since;
    Ok((id, container))
}

fn pack_connection<'a>(id: u64, connection: &'a Connection, packing: &mut Packing<'a>) -> ConnectionState {
    let socket = packing.put(connection.fd());
    let waiting = connection.waiting().map(|packet| {
        let (bytes, payload) = packet.parts();
        PacketState { bytes: Octets(bytes.to_vec()), payload: payload.map(|payload| packing.put(payload)) }
    });
    ConnectionState { id, socket, greeted: connection.greeted, waiting: waiting.collect() }
}

/// Takes over what the program before this one has left on the standard input.
pub(in super::super) fn resume(stdin: &OwnedFd) -> Result<Server, ResumeError> {
    let (state, unpacking) = Unpacking::receive(stdin.as_fd())?;
    Server::resume(state, unpacking)
}
