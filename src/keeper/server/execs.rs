//! Commands beside a container's own.

use super::super::child::{Asker, Child, Exec, State};
use super::super::exit::Ended;
use super::super::protocol::{self, Event, Fault, Reply};
use super::{
    Began, GONE_WITHIN, LINGERS, Refused, Server, Source, UNREPORTED, began, forget, not_launched, not_started,
};
use crate::sandbox::{self, Io, Launched, Lingering, Stdio};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process_group};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Server {
    pub(super) fn exec(
        &mut self,
        asker: Asker,
        exec: protocol::Exec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Refused> {
        let protocol::Exec { instance, script, terminal } = exec;
        let container = self.container(&instance)?;
        if !matches!(container.state, State::Running) {
            return Err(Refused(Fault::NotFound, format!("{instance} does not run")));
        }
        let (io, seccomp) = match (&descriptors[..], terminal) {
            ([console, rest @ ..], true) => (Io::Terminal { console: console.as_fd() }, rest.first()),
            ([stdin, stdout, stderr, rest @ ..], false) => {
                let stdio = Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
                (Io::Stdio(stdio), rest.first())
            }
            _ => return Err(Refused(Fault::Invalid, "exec without descriptors".to_owned())),
        };
        let launched = sandbox::launch_exec(&script, container.child.pidfd(), io, seccomp.map(AsFd::as_fd));
        let id = self.number();
        let Launched { pid, pidfd, report } = match launched.map_err(|error| not_launched(&script, error)) {
            Ok(launched) => launched,
            Err((refused, None)) => return Err(refused),
            Err((Refused(fault, text), Some(Lingering { pid, pidfd }))) => {
                let child = Child::new(pid, pidfd, true);
                // Where that fails, nobody hears of its end, and it stays uncollected.
                let _ = self.watch(child.pidfd(), Source::ExecProcess(id));
                let state = State::Failing { asker: Some(asker), fault, text };
                self.execs.insert(id, Exec { instance, child, state });
                self.deadlines.insert((Instant::now() + GONE_WITHIN, Source::ExecProcess(id)));
                return Ok(());
            }
        };
        self.usual_limits(pid);
        let child = Child::new(pid, pidfd, true);
        let watched = self
            .watch(child.pidfd(), Source::ExecProcess(id))
            .and_then(|()| self.watch_report(&report, Source::ExecReport(id)));
        let state = State::Starting { report, script: Box::new(script), asker };
        self.execs.insert(id, Exec { instance, child, state });
        self.deadlines.insert((Instant::now() + self.options.start_timeout, Source::ExecReport(id)));
        if let Err(errno) = watched {
            self.exec_failed(id, not_started(format!("watching the process: {errno}")));
        }
        Ok(())
    }

    pub(super) fn exec_reported(&mut self, id: u64) {
        let Some(exec) = self.execs.get(&id) else { return };
        let State::Starting { report, script, asker } = &exec.state else { return };
        let asker = *asker;
        match began(report, script, &exec.child) {
            Began::NotYet => {}
            Began::Failed(refused) => self.exec_failed(id, refused),
            Began::Executed => {
                let pid = exec.child.number();
                self.exec_out_of_starting(id, State::Running);
                self.reply(asker, Reply::ExecStarted { pid, exec: id });
            }
        }
    }

    pub(super) fn exec_out_of_starting(&mut self, id: u64, state: State) {
        if let Some(exec) = self.execs.get_mut(&id) {
            if let State::Starting { report, .. } = &exec.state {
                forget(&self.epoll, report.as_fd());
            }
            exec.state = state;
        }
        self.deadlines.retain(|(_, source)| *source != Source::ExecReport(id));
    }

    pub(super) fn exec_failed(&mut self, id: u64, Refused(fault, text): Refused) {
        let Some(exec) = self.execs.get(&id) else { return };
        let State::Starting { asker, .. } = &exec.state else { return };
        let asker = *asker;
        exec.child.kill();
        self.exec_out_of_starting(id, State::Failing { asker: Some(asker), fault, text });
        self.deadlines.insert((Instant::now() + GONE_WITHIN, Source::ExecProcess(id)));
    }

    /// As of a container: whoever asked waits no longer.
    pub(super) fn exec_is_late(&mut self, id: u64) {
        let Some(State::Failing { asker, fault, text }) = self.execs.get_mut(&id).map(|exec| &mut exec.state) else {
            return;
        };
        let refused = Refused(*fault, format!("{text}; {LINGERS}"));
        if let Some(asker) = asker.take() {
            self.refuse(asker, refused);
        }
    }

    pub(super) fn signal_exec(&self, id: u64, signal: i32) -> Result<(), Refused> {
        let ended = || Refused(Fault::NotFound, format!("command {id} has ended"));
        let exec = self.execs.get(&id).filter(|exec| matches!(exec.state, State::Running)).ok_or_else(ended)?;
        let number = Signal::from_named_raw(signal)
            .ok_or_else(|| Refused(Fault::Invalid, format!("{signal} is not a signal")))?;
        // It leads a session of its own. Our child, and not waited for yet: the number is still its own.
        match kill_process_group(exec.child.pid(), number) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(ended()),
            Err(errno) => Err(Refused(Fault::Other, format!("sending signal {signal} to command {id}: {errno}"))),
        }
    }

    pub(super) fn exec_ended(&mut self, id: u64) {
        self.exec_reported(id);
        let Some(exec) = self.execs.get(&id) else { return };
        let Ended::As(exit) = exec.child.collect() else { return };
        forget(&self.epoll, exec.child.pidfd());
        self.deadlines.retain(|(_, source)| *source != Source::ExecProcess(id));
        let Some(Exec { instance, child: _, state }) = self.execs.remove(&id) else { return };
        match state {
            State::Failing { asker, fault, text } => {
                if let Some(asker) = asker {
                    self.refuse(asker, Refused(fault, text));
                }
            }
            State::Starting { report, script: _, asker } => {
                forget(&self.epoll, report.as_fd());
                self.deadlines.retain(|(_, source)| *source != Source::ExecReport(id));
                self.refuse(asker, not_started(UNREPORTED));
            }
            State::Running | State::Exited(_) => self.broadcast(Event::ExecExited { instance, exec: id, exit }),
        }
    }
}
