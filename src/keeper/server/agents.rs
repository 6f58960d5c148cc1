//! Connections, and what they ask.

use super::super::child::Asker;
use super::super::connection::Connection;
use super::super::protocol::{Call, CallId, Event, Fault, Frame, Reply, Request, VERSIONS};
use super::super::wire::{Packet, Received};
use super::{ACCEPT_AGAIN, MESSAGES_PER_TURN, MOST_CONNECTIONS, Refused, Server, Source};
use rustix::event::epoll;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Instant;

impl Server {
    pub(super) fn accept(&mut self) {
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

    pub(super) fn converse(&mut self, id: u64, flags: epoll::EventFlags) {
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
    pub(super) fn with_connection(&mut self, id: u64, work: impl FnOnce(&mut Connection)) {
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

    pub(super) fn handle(&mut self, from: u64, message: Received) {
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
            Request::SignalExec { exec, signal } => self.signal_exec(exec, signal).map(|()| Some(Reply::Done)),
            Request::Release { instance } => self.release(&instance).map(|()| Some(Reply::Done)),
            Request::Adopt(adopt) => self.adopt(*adopt).map(Some),
            Request::SetLog { instance, log } => self.container(&instance).and_then(|container| {
                let done = container.log.set_target(log);
                done.map(|()| Some(Reply::Done))
                    .map_err(|error| Refused(Fault::Other, format!("opening the log file: {error}")))
            }),
            // The program that is asked for answers, unless it is refused.
            Request::Upgrade { program } => self.upgrade(Some(asker), &program).map(|()| None),
            Request::Shutdown { force } => self.shutdown(force).map(|()| Some(Reply::Done)),
        };
        match done {
            Ok(Some(reply)) => self.reply(asker, reply),
            Ok(None) => {}
            Err(refused) => self.refuse(asker, refused),
        }
    }

    pub(super) fn hello(&mut self, from: u64, oldest: u32, newest: u32) -> Result<Reply, Refused> {
        let version = newest.min(VERSIONS.1);
        if version < oldest.max(VERSIONS.0) {
            let (low, high) = VERSIONS;
            let text = format!("this keeper speaks versions {low} to {high}, and not {oldest} to {newest}");
            return Err(Refused(Fault::Invalid, text));
        }
        self.with_connection(from, |connection| connection.greeted = true);
        Ok(Reply::Welcome { version })
    }

    pub(super) fn reply(&mut self, asker: Asker, reply: Reply) {
        self.post(asker.connection, &Frame::Reply { id: asker.call, reply });
    }

    pub(super) fn refuse(&mut self, asker: Asker, Refused(fault, text): Refused) {
        self.reply(asker, Reply::Failed { fault, text });
    }

    pub(super) fn post(&mut self, to: u64, frame: &Frame) {
        match Packet::new(frame) {
            Ok(packet) => self.with_connection(to, |connection| connection.send(Rc::new(packet))),
            // No memory or descriptor for a long answer: the agent sees the connection end and asks again.
            Err(_) => self.hang_up(to),
        }
    }

    pub(super) fn broadcast(&mut self, event: Event) {
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

    pub(super) fn hang_up(&mut self, id: u64) {
        self.with_connection(id, |connection| connection.dead = true);
    }
}
