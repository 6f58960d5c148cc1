//! From a request to start to the release of what has ended.

use super::super::child::{Asker, Child, Container, State};
use super::super::exit::{self, Ended};
use super::super::fifo::Fifo;
use super::super::find;
use super::super::log::Log;
use super::super::protocol::{Adopt, Event, Exit, Fault, Handle, HandleState, Output, Reply, Start, Started, Stats};
use super::{
    Began, COLLECT_WITHIN, GONE_WITHIN, LINGERS, REST, Refused, Server, Source, UNREPORTED, began, chain, forget,
    not_launched, not_started,
};
use crate::sandbox::{self, Launched, Lingering, Stdio};
use crate::spec::InstanceId;
use crate::sys::{self, may_die};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Pid, Resource};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Server {
    pub(super) fn container(&mut self, instance: &InstanceId) -> Result<&mut Container, Refused> {
        let id = self.by_instance.get(instance);
        id.and_then(|id| self.containers.get_mut(id))
            .ok_or_else(|| Refused(Fault::NotFound, format!("{instance} is not known to the keeper")))
    }

    pub(super) fn absent(&self, instance: &InstanceId) -> Result<(), Refused> {
        if self.by_instance.contains_key(instance) {
            return Err(Refused(Fault::Exists, format!("{instance} is there already")));
        }
        Ok(())
    }

    pub(super) fn start(&mut self, asker: Asker, start: Start, seccomp: Option<OwnedFd>) -> Result<(), Refused> {
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
        may_die("keeper: streams made");
        let launched = (|| {
            let out = stdout.for_container().map_err(|error| (failed(&error), None))?;
            let err = stderr.for_container().map_err(|error| (failed(&error), None))?;
            let stdio = Stdio { stdin: self.null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
            sandbox::launch(&script, stdio, None, seccomp.as_ref().map(AsFd::as_fd))
                .map_err(|error| not_launched(&script, error))
        })();
        may_die("keeper: cloned");
        let id = self.number();
        let launched = match launched {
            Ok(launched) => launched,
            Err((refused, None)) => {
                stdout.remove();
                stderr.remove();
                return Err(refused);
            }
            Err((Refused(fault, text), Some(Lingering { pid, pidfd }))) => {
                let state = State::Failing { asker: Some(asker), fault, text };
                let child = Child::new(pid, pidfd, true);
                self.keep(id, Container::new(instance, child, state, log, Some(stdout), Some(stderr)));
                self.deadlines.insert((Instant::now() + GONE_WITHIN, Source::Process(id)));
                return Ok(());
            }
        };
        let Launched { pid, pidfd, report } = launched;
        self.usual_limits(pid);
        let child = Child::new(pid, pidfd, true);
        let state = State::Starting { report, script: Box::new(script), asker };
        let container = Container::new(instance, child, state, log, Some(stdout), Some(stderr));
        self.keep(id, container);
        self.deadlines.insert((Instant::now() + self.options.start_timeout, Source::Report(id)));
        Ok(())
    }

    /// Watches everything of a container.
    pub(super) fn keep(&mut self, id: u64, container: Container) {
        let mut watched = match container.state {
            // Whose end is known has nothing to tell any more, and would go on telling it.
            State::Exited(_) => Ok(()),
            State::Starting { .. } | State::Failing { .. } | State::Running => {
                self.watch(container.child.pidfd(), Source::Process(id))
            }
        };
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
            self.start_failed(id, not_started(format!("watching the process: {errno}")));
        }
    }

    /// A child gets the number of descriptors that the keeper itself was given, not the one it needs.
    pub(super) fn usual_limits(&self, pid: Pid) {
        // It can only have ended already, which is noticed elsewhere.
        let _ = rustix::process::prlimit(Some(pid), Resource::Nofile, self.descriptors);
    }

    pub(super) fn reported(&mut self, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let State::Starting { report, script, asker } = &container.state else { return };
        let asker = *asker;
        match began(report, script, &container.child) {
            Began::NotYet => return,
            Began::Failed(refused) => return self.start_failed(id, refused),
            Began::Executed => {}
        }
        let (instance, pid) = (container.instance.clone(), container.child.number());
        let since = exit::now();
        container.since = since;
        self.end_of_starting(id, State::Running);
        may_die("keeper: executed");
        self.reply(asker, Reply::Started(Started { pid, since }));
        may_die("keeper: answered");
        self.broadcast(Event::Started { instance, pid });
    }

    /// Leaves `Starting`: nobody looks at the report and the clock any more.
    pub(super) fn end_of_starting(&mut self, id: u64, state: State) {
        if let Some(container) = self.containers.get_mut(&id) {
            if let State::Starting { report, .. } = &container.state {
                forget(&self.epoll, report.as_fd());
            }
            container.state = state;
        }
        self.deadlines.retain(|(_, source)| *source != Source::Report(id));
    }

    /// Ends a start that can't succeed. The answer comes when the process is gone.
    pub(super) fn start_failed(&mut self, id: u64, Refused(fault, text): Refused) {
        let Some(container) = self.containers.get(&id) else { return };
        let State::Starting { asker, .. } = &container.state else { return };
        let asker = *asker;
        container.child.kill();
        self.end_of_starting(id, State::Failing { asker: Some(asker), fault, text });
        self.deadlines.insert((Instant::now() + GONE_WITHIN, Source::Process(id)));
    }

    /// What is waited for has not come. Nothing else waits for it, and it is taken in when it does come.
    pub(super) fn process_is_late(&mut self, id: u64) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        match &mut container.state {
            State::Failing { asker, fault, text } => {
                let refused = Refused(*fault, format!("{text}; {LINGERS}"));
                if let Some(asker) = asker.take() {
                    self.refuse(asker, refused);
                }
            }
            State::Starting { .. } | State::Running | State::Exited(_) => self.finish(id, exit::unknown()),
        }
    }

    pub(super) fn process_ended(&mut self, id: u64) {
        // A program that has ended has also started, or has said why not.
        self.reported(id);
        let Some(container) = self.containers.get(&id) else { return };
        match container.child.collect() {
            Ended::As(exit) => {
                may_die("keeper: collected");
                self.finish(id, exit);
            }
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

    pub(super) fn finish(&mut self, id: u64, exit: Exit) {
        self.deadlines.retain(|(_, source)| *source != Source::Process(id));
        let Some(container) = self.containers.get_mut(&id) else { return };
        if matches!(container.state, State::Exited(_)) {
            return;
        }
        forget(&self.epoll, container.child.pidfd());
        container.drain(&mut self.buffer);
        let instance = container.instance.clone();
        match std::mem::replace(&mut container.state, State::Exited(exit)) {
            State::Failing { asker, fault, text } => {
                self.drop_container(id);
                if let Some(asker) = asker {
                    self.refuse(asker, Refused(fault, text.clone()));
                }
                self.broadcast(Event::StartFailed { instance, text });
            }
            State::Starting { report, script: _, asker } => {
                forget(&self.epoll, report.as_fd());
                self.drop_container(id);
                let text = UNREPORTED.to_owned();
                self.refuse(asker, Refused(Fault::StartFailed, text.clone()));
                self.broadcast(Event::StartFailed { instance, text });
            }
            State::Running | State::Exited(_) => {
                self.broadcast(Event::Exited { instance, exit });
                may_die("keeper: end told");
            }
        }
    }

    pub(super) fn pump(&mut self, source: Source, id: u64) {
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

    pub(super) fn signal(&mut self, instance: &InstanceId, signal: i32) -> Result<(), Refused> {
        let container = self.container(instance)?;
        if let State::Exited(_) = container.state {
            return Err(Refused(Fault::NotFound, format!("{instance} has ended")));
        }
        if !(1..=64).contains(&signal) {
            return Err(Refused(Fault::Invalid, format!("{signal} is not a signal")));
        }
        match sys::pidfd_kill(container.child.pidfd(), signal) {
            Ok(()) => {
                may_die("keeper: signalled");
                Ok(())
            }
            Err(Errno::SRCH) => Err(Refused(Fault::NotFound, format!("{instance} has ended"))),
            Err(errno) => Err(Refused(Fault::Other, format!("sending signal {signal} to {instance}: {errno}"))),
        }
    }

    pub(super) fn release(&mut self, instance: &InstanceId) -> Result<(), Refused> {
        let container = self.container(instance)?;
        if !matches!(container.state, State::Exited(_)) {
            return Err(Refused(Fault::Running, format!("{instance} has not ended")));
        }
        let id = self.by_instance[instance];
        self.drop_container(id);
        may_die("keeper: released");
        Ok(())
    }

    pub(super) fn drop_container(&mut self, id: u64) {
        let Some(mut container) = self.containers.remove(&id) else { return };
        self.by_instance.remove(&container.instance);
        container.drain(&mut self.buffer);
        for stream in [container.stdout, container.stderr].into_iter().flatten() {
            forget(&self.epoll, stream.fd());
            stream.remove();
        }
        self.deadlines.retain(|(_, source)| source.container() != Some(id));
    }

    pub(super) fn adopt(&mut self, adopt: Adopt) -> Result<Reply, Refused> {
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
        let pid = child.number();
        let mut container = Container::new(instance, child, State::Running, log, stdout, stderr);
        container.since = find.since.unwrap_or_else(exit::now);
        let since = container.since;
        let id = self.number();
        self.keep(id, container);
        may_die("keeper: taken over");
        Ok(Reply::Started(Started { pid, since }))
    }

    pub(super) fn list(&self) -> Vec<Handle> {
        self.by_instance.values().filter_map(|id| self.containers.get(id)).map(Container::handle).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        let starting = |container: &&Container| container.handle().state == HandleState::Starting;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats {
            pid: std::process::id(),
            containers: count(self.containers.len()),
            starting: count(self.containers.values().filter(starting).count()),
            execs: count(self.execs.len()),
            connections: count(self.connections.len()),
            wakeups: self.wakeups,
            upgrades: self.upgrades,
        }
    }

    pub(super) fn shutdown(&mut self, force: bool) -> Result<(), Refused> {
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

fn open_log(output: &Output) -> Result<Log, Refused> {
    let path = output.log.path.display().to_string();
    Log::open(output.log.clone())
        .map_err(|error| Refused(Fault::StartFailed, format!("opening the log {path}: {error}")))
}
