//! One agent on the other side of the socket.

use super::wire::{Packet, Received, WireError};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// An agent that leaves more unread than this is cut off; what it missed it finds in the list.
const LONGEST_QUEUE: usize = 4096;

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    waiting: VecDeque<Rc<Packet>>,
    /// It has said hello, so it gets events.
    pub greeted: bool,
    /// To be closed when the present event is done with.
    pub dead: bool,
}

impl Connection {
    /// `socket` does not block.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), greeted: false, dead: false }
    }

    /// One that another program has accepted.
    pub fn resume(socket: OwnedFd, greeted: bool, waiting: impl Iterator<Item = Packet>) -> Self {
        Self { socket, waiting: waiting.map(Rc::new).collect(), greeted, dead: false }
    }

    /// What the other side has not taken yet.
    pub fn waiting(&self) -> impl Iterator<Item = &Packet> {
        self.waiting.iter().map(Rc::as_ref)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn receive(&self) -> Result<Option<Received>, WireError> {
        Received::from(self.fd())
    }

    /// Sends now or queues it.
    pub fn send(&mut self, packet: Rc<Packet>) {
        if self.waiting.len() >= LONGEST_QUEUE {
            self.dead = true;
        }
        if !self.dead {
            self.waiting.push_back(packet);
            self.flush();
        }
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            match packet.send(self.socket.as_fd(), &[]) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
    }

    /// Something waits for room in the socket.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}
