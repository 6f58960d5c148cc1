//! The processes that the keeper is the parent of, and what belongs to them.

use super::exit::{self, Ended};
use super::fifo::{Buffer, Fifo};
use super::log::Log;
use super::protocol::{Exit, Fault, Handle, HandleState};
use crate::sandbox::Script;
use crate::spec::{InstanceId, Timestamp};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub connection: u64,
    pub call: u64,
}

#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// It was cloned by this process, so this process collects it.
    ours: bool,
}

#[derive(Debug)]
pub(super) enum State {
    /// Between clone and exec.
    Starting {
        report: OwnedFd,
        script: Box<Script>,
        asker: Asker,
    },
    /// It never will be started; its process has been killed and is not gone yet.
    Failing {
        /// `None` when it has been answered, because the process does not go.
        asker: Option<Asker>,
        fault: Fault,
        text: String,
    },
    Running,
    Exited(Exit),
}

#[derive(Debug)]
pub(super) struct Container {
    pub instance: InstanceId,
    pub child: Child,
    pub state: State,
    pub since: Timestamp,
    pub log: Log,
    pub stdout: Option<Fifo>,
    pub stderr: Option<Fifo>,
    last_read: [Option<Instant>; 2],
}

/// A command beside a container's own.
#[derive(Debug)]
pub(super) struct Exec {
    pub instance: InstanceId,
    pub child: Child,
    pub state: State,
}

impl Child {
    pub fn new(pid: Pid, pidfd: OwnedFd, ours: bool) -> Self {
        Self { pid, pidfd, ours }
    }

    /// It was cloned by this process.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// As the agent is told.
    pub fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn collect(&self) -> Ended {
        exit::collect(self.number(), self.pidfd(), self.ours)
    }

    pub fn kill(&self) {
        // Gone already is what is wanted; nothing else can happen to root with a valid pidfd.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl State {
    /// Between clone and exec, or killed there and not gone yet.
    pub fn is_on_its_way(&self) -> bool {
        match self {
            Self::Starting { .. } | Self::Failing { .. } => true,
            Self::Running | Self::Exited(_) => false,
        }
    }
}

impl Container {
    pub fn new(
        instance: InstanceId,
        child: Child,
        state: State,
        log: Log,
        stdout: Option<Fifo>,
        stderr: Option<Fifo>,
    ) -> Self {
        Self { instance, child, state, since: exit::now(), log, stdout, stderr, last_read: [None; 2] }
    }

    pub fn stream(&self, error: bool) -> Option<&Fifo> {
        if error { self.stderr.as_ref() } else { self.stdout.as_ref() }
    }

    /// Moves what a stream has into the log; says whether it had something a moment ago too.
    pub fn pump(
        &mut self,
        error: bool,
        now: Instant,
        moment: Duration,
        buffer: &mut Buffer,
    ) -> Option<(bool, BorrowedFd<'_>)> {
        let fifo = if error { self.stderr.as_mut() } else { self.stdout.as_mut() }?;
        fifo.pump(&mut self.log, buffer);
        let before = self.last_read[usize::from(error)].replace(now);
        let busy = before.is_some_and(|before| now.duration_since(before) <= moment * 2);
        Some((busy, fifo.fd()))
    }

    /// Takes the last words of a process that has ended.
    pub fn drain(&mut self, buffer: &mut Buffer) {
        for fifo in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            fifo.drain(&mut self.log, buffer);
        }
    }

    pub fn handle(&self) -> Handle {
        let state = match self.state {
            State::Starting { .. } | State::Failing { .. } => HandleState::Starting,
            State::Running => HandleState::Running,
            State::Exited(exit) => HandleState::Exited(exit),
        };
        Handle {
            instance: self.instance.clone(),
            pid: self.child.number(),
            state,
            since: self.since,
            adopted: !self.child.ours,
            log: self.log.counters(),
        }
    }
}
