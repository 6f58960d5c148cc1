//! The one connection to the keeper: found or started, kept, renewed; and what the keeper last said.
//!
//! The mirror of the keeper's list is kept by its events, so that looking at one object costs no
//! question. It is asked anew after every connection and at every look at the whole host.

use super::{Paths, Scope};
use crate::keeper::{self, Client, Event, Exit, Fault, Handle, HandleState, KeeperError, LogCounters, Started};
use crate::spec::{InstanceId, ObjectId};
use crate::sys::may_die;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Something happened on the host that the planner may want to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    Changed(ObjectId),
    /// What its probes say has become something else: whether that is good, and the words.
    Health(ObjectId, bool, String),
    /// The keeper went away. Containers go on.
    KeeperLost,
    /// It has executed the program that is installed now, and everything went on.
    KeeperUpgraded,
    /// It runs another program than the one that is installed now, for this reason.
    KeeperOutdated(String),
}

/// Who sees to it that there is a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperBy {
    /// We do: one is started where none listens.
    Us,
    /// A service manager: one that is not there is waited for.
    ServiceManager,
}

pub(super) struct KeeperLink {
    paths: Paths,
    by: KeeperBy,
    /// Where a keeper that is started moves to, out of the caller's own cgroups.
    cgroups: Vec<PathBuf>,
    connection: Mutex<Option<Connection>>,
    /// How many connections have been tried.
    tries: AtomicU64,
    outdated: Mutex<Option<Outdated>>,
    shared: Arc<Shared>,
}

/// Why the keeper does not run what is installed.
#[derive(Clone)]
struct Outdated {
    why: String,
    /// A later try may go better.
    again: bool,
}

struct Connection {
    client: Arc<Client>,
    number: u64,
    keeper: u32,
}

/// Where the keeper of a connection came from.
enum Origin {
    /// It ran before.
    Found,
    Spawned,
}

struct Shared {
    mirror: Mutex<BTreeMap<InstanceId, Handle>>,
    changed: Condvar,
    execs: Mutex<Execs>,
    /// The number of the connection that is alive; 0 for none. What an older one still says is stale.
    alive: AtomicU64,
    notify: Box<dyn Fn(HostEvent) + Send + Sync>,
}

/// Who waits for which program, and the ends that came before anybody waited.
#[derive(Default)]
struct Execs {
    waiting: BTreeMap<u64, oneshot::Sender<i32>>,
    ended: BTreeMap<u64, i32>,
}

/// How long a keeper that was told to end may take.
const GONE_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// How long a keeper that a service manager starts is waited for at once.
const THERE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The shell's word for "killed": what a program has whose end only a dead keeper saw.
const UNKNOWN_EXIT: i32 = 137;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; in tests what is behind a poisoned lock is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeeperLink {
    pub fn new(
        paths: Paths,
        by: KeeperBy,
        cgroups: Vec<PathBuf>,
        notify: impl Fn(HostEvent) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            mirror: Mutex::default(),
            changed: Condvar::new(),
            execs: Mutex::default(),
            alive: AtomicU64::new(0),
            notify: Box::new(notify),
        };
        Self {
            paths,
            by,
            cgroups,
            connection: Mutex::new(None),
            tries: AtomicU64::new(0),
            outdated: Mutex::new(None),
            shared: Arc::new(shared),
        }
    }

    /// The connection, made first where there is none, with a keeper started first where none runs.
    /// `introduce` is called with a new connection before anybody else gets it: it sees to what a
    /// keeper that is new to us does not know.
    pub fn client<E: From<KeeperError>>(
        &self,
        introduce: impl FnOnce(&Client) -> Result<(), E>,
    ) -> Result<Arc<Client>, E> {
        let mut connection = lock(&self.connection);
        let alive = self.number();
        if let Some(connection) = connection.as_ref().filter(|connection| connection.number == alive) {
            return Ok(connection.client.clone());
        }
        // Never used again, also after a failure: what is still said of an older try is not of this one.
        let number = self.tries.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.alive.store(number, Ordering::Release);
        let made = self.connect(number).and_then(|(client, origin)| {
            let keeper = client.stats()?.pid;
            self.refresh(&client)?;
            Ok((Connection { client: Arc::new(client), number, keeper }, origin))
        });
        let (made, origin) = match made {
            Ok(made) => made,
            Err(error) => {
                self.shared.alive.store(0, Ordering::Release);
                return Err(error.into());
            }
        };
        let client = made.client.clone();
        may_die("connected");
        if let Err(error) = introduce(&client) {
            // A keeper that has not been told everything would be believed that the rest is gone.
            self.shared.alive.store(0, Ordering::Release);
            return Err(error);
        }
        *connection = Some(made);
        match origin {
            Origin::Found => self.bring_up_to_date(&client),
            Origin::Spawned => *lock(&self.outdated) = None,
        }
        Ok(client)
    }

    /// Which connection is alive; 0 for none. What is known of containers is known by this one alone.
    pub fn number(&self) -> u64 {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// The number of this client's connection; nothing when there is a newer one.
    pub fn number_of(&self, client: &Arc<Client>) -> Option<u64> {
        let connection = lock(&self.connection);
        connection.as_ref().filter(|connection| Arc::ptr_eq(&connection.client, client)).map(|found| found.number)
    }

    /// Has the keeper run the program that is installed, if it runs another. It goes on in any case.
    fn bring_up_to_date(&self, client: &Client) {
        let outdated = client.stats().map_err(|error| (error.to_string(), true)).and_then(|stats| {
            match keeper::is_outdated(stats.pid, &self.options()) {
                Ok(None) => Ok(false),
                Ok(Some(program)) => match client.upgrade(&program) {
                    Ok(()) => Ok(true),
                    Err(error) => Err((error.to_string(), error.fault() == Some(Fault::Busy))),
                },
                // Without the right to look, or without the file, nothing can be said.
                Err(error) => {
                    tracing::debug!(error = %error, "comparing the keeper with what is installed failed");
                    Ok(false)
                }
            }
        });
        let (event, outdated) = match outdated {
            Ok(upgraded) => (upgraded.then_some(HostEvent::KeeperUpgraded), None),
            Err((why, again)) => {
                let text = format!("the keeper runs another build than the one that is installed: {why}");
                (Some(HostEvent::KeeperOutdated(text.clone())), Some(Outdated { why: text, again }))
            }
        };
        let before = std::mem::replace(&mut *lock(&self.outdated), outdated.clone());
        let news = outdated.is_none() || before.map(|before| before.why) != outdated.map(|outdated| outdated.why);
        if let Some(event) = event.filter(|_| news) {
            (self.shared.notify)(event);
        }
    }

    /// Tries once more what could not be done at a former moment.
    pub fn catch_up(&self, client: &Client) {
        if lock(&self.outdated).as_ref().is_some_and(|outdated| outdated.again) {
            self.bring_up_to_date(client);
        }
    }

    /// What a person has to know about the keeper's program.
    pub fn warning(&self) -> Option<String> {
        lock(&self.outdated).as_ref().map(|outdated| outdated.why.clone())
    }

    fn connect(&self, number: u64) -> Result<(Client, Origin), KeeperError> {
        let socket = self.paths.keeper_socket();
        let shared = self.shared.clone();
        let on_event = move |event| shared.take(number, event);
        match Client::connect(&socket, on_event.clone()) {
            // Nobody listens there, or never did.
            Err(KeeperError::Connect { .. }) if self.by == KeeperBy::ServiceManager => {
                let begun = Instant::now();
                loop {
                    std::thread::sleep(LOOK_AGAIN);
                    self.shared.alive.store(number, Ordering::Release);
                    match Client::connect(&socket, on_event.clone()) {
                        Err(KeeperError::Connect { .. }) if begun.elapsed() < THERE_WITHIN => {}
                        result => return Ok((result?, Origin::Found)),
                    }
                }
            }
            Err(KeeperError::Connect { .. }) => {
                keeper::spawn(&self.options())?;
                may_die("keeper spawned");
                self.shared.alive.store(number, Ordering::Release);
                Ok((Client::connect(&socket, on_event)?, Origin::Spawned))
            }
            result => Ok((result?, Origin::Found)),
        }
    }

    fn options(&self) -> keeper::Options {
        keeper::Options {
            log: Some(self.paths.log.join("keeper.log")),
            cgroups: self.cgroups.clone(),
            ..keeper::Options::new(self.paths.run.clone())
        }
    }

    /// The keeper's process, while there is a connection to it.
    pub fn pid(&self) -> Option<u32> {
        let connection = lock(&self.connection);
        let alive = self.number();
        connection.as_ref().filter(|connection| connection.number == alive).map(|connection| connection.keeper)
    }

    /// Asks the keeper for its whole list, which comes as an event: an end that is told right after it must
    /// not be overwritten by what was before.
    pub fn refresh(&self, client: &Client) -> Result<(), KeeperError> {
        client.list().map(drop)
    }

    pub fn handle(&self, instance: &InstanceId) -> Option<Handle> {
        lock(&self.shared.mirror).get(instance).cloned()
    }

    /// What it knows of, and of these objects alone where that is asked.
    pub fn instances(&self, scope: Scope<'_>) -> Vec<InstanceId> {
        let mirror = lock(&self.shared.mirror);
        match scope {
            Scope::All => mirror.keys().cloned().collect(),
            Scope::Objects(objects) => objects
                .iter()
                .flat_map(|id| mirror.range(InstanceId::new(id, 0)..=InstanceId::new(id, u64::MAX)))
                .map(|(instance, _)| instance.clone())
                .collect(),
        }
    }

    pub fn forget(&self, instance: &InstanceId) {
        lock(&self.shared.mirror).remove(instance);
    }

    /// Notes a start whose answer came before its event.
    pub fn started(&self, instance: &InstanceId, started: Started) {
        let mut mirror = lock(&self.shared.mirror);
        // Its end may have been told already.
        mirror.entry(instance.clone()).or_insert_with(|| Handle {
            instance: instance.clone(),
            pid: started.pid,
            state: HandleState::Running,
            since: started.since,
            adopted: false,
            log: LogCounters::default(),
        });
    }

    /// Waits until what is known of an instance is as wanted. False when it is not by `deadline`.
    pub fn wait_for(&self, instance: &InstanceId, deadline: Instant, wanted: impl Fn(Option<&Handle>) -> bool) -> bool {
        let mut mirror = lock(&self.shared.mirror);
        while !wanted(mirror.get(instance)) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let (guard, _) = self.shared.changed.wait_timeout(mirror, left).unwrap_or_else(PoisonError::into_inner);
            mirror = guard;
        }
        true
    }

    /// Resolves when the program with this number ends.
    pub fn exec_exit(&self, exec: u64) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        let mut execs = lock(&self.shared.execs);
        match execs.ended.remove(&exec) {
            // Nobody to tell is no error: the session has been dropped.
            Some(code) => drop(sender.send(code)),
            None => drop(execs.waiting.insert(exec, sender)),
        }
        receiver
    }

    /// Ends the keeper, if it keeps nothing any more, and waits until its process has gone: it stands
    /// in a cgroup that is to be removed.
    pub fn shutdown(&self) -> Result<(), KeeperError> {
        let Some(Connection { client, number: _, keeper }) = lock(&self.connection).take() else { return Ok(()) };
        self.shared.alive.store(0, Ordering::Release);
        // Taken while it certainly lives, so the number is its own.
        let pid = i32::try_from(keeper).ok().and_then(Pid::from_raw);
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        client.shutdown(false)?;
        if let Some(process) = process {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            // Whatever comes of the wait, what is left of its cgroup is said by who removes it.
            let _bounded = poll(&mut ended, Some(&GONE_WITHIN));
        }
        Ok(())
    }
}

impl Shared {
    fn take(&self, connection: u64, event: Event) {
        if self.alive.load(Ordering::Acquire) != connection {
            return;
        }
        match event {
            Event::Started { instance, pid } => {
                if let Some(handle) = lock(&self.mirror).get_mut(&instance) {
                    handle.pid = pid;
                    handle.state = HandleState::Running;
                }
                (self.notify)(HostEvent::Changed(instance.object()));
            }
            Event::StartFailed { instance, text: _ } => {
                lock(&self.mirror).remove(&instance);
                (self.notify)(HostEvent::Changed(instance.object()));
            }
            Event::Exited { instance, exit } => {
                self.exited(&instance, exit);
                (self.notify)(HostEvent::Changed(instance.object()));
            }
            Event::ExecExited { instance: _, exec, exit } => {
                let code = exit.code.unwrap_or(UNKNOWN_EXIT);
                let mut execs = lock(&self.execs);
                match execs.waiting.remove(&exec) {
                    // The session has been dropped: nobody to tell.
                    Some(waiting) => drop(waiting.send(code)),
                    None => drop(execs.ended.insert(exec, code)),
                }
            }
            Event::Listed(handles) => {
                *lock(&self.mirror) = handles.into_iter().map(|handle| (handle.instance.clone(), handle)).collect();
            }
            Event::Lost => {
                self.alive.store(0, Ordering::Release);
                lock(&self.mirror).clear();
                // Dropping the senders tells every session that nobody will know.
                *lock(&self.execs) = Execs::default();
                (self.notify)(HostEvent::KeeperLost);
            }
        }
        self.changed.notify_all();
    }

    fn exited(&self, instance: &InstanceId, exit: Exit) {
        let mut mirror = lock(&self.mirror);
        // It may have ended before the answer to its start was read: then the handle is made up for
        // from what is known.
        let handle = mirror.entry(instance.clone()).or_insert_with(|| Handle {
            instance: instance.clone(),
            pid: 0,
            state: HandleState::Exited(exit),
            since: exit.at,
            adopted: false,
            log: LogCounters::default(),
        });
        handle.state = HandleState::Exited(exit);
    }
}
