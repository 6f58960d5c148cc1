//! The one connection to the keeper: found or started, kept, renewed; and what the keeper last said.
//!
//! The mirror of the keeper's list is kept by its events, so that looking at one object costs no
//! question. It is asked anew after every connection and at every look at the whole host.

use super::Paths;
use crate::keeper::{self, Client, Event, Exit, Handle, HandleState, KeeperError};
use crate::spec::{InstanceId, ObjectId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Something happened on the host that the planner may want to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    Changed(ObjectId),
    /// The keeper went away. Containers go on.
    KeeperLost,
}

pub(super) struct KeeperLink {
    paths: Paths,
    client: Mutex<Option<Arc<Client>>>,
    shared: Arc<Shared>,
}

struct Shared {
    mirror: Mutex<BTreeMap<InstanceId, Handle>>,
    execs: Mutex<Execs>,
    notify: Box<dyn Fn(HostEvent) + Send + Sync>,
}

/// Who waits for which program, and the ends that came before anybody waited.
#[derive(Default)]
struct Execs {
    waiting: BTreeMap<u64, oneshot::Sender<i32>>,
    ended: BTreeMap<u64, i32>,
}

/// A program whose keeper vanished has no exit code of its own; the shell's word for "killed".
const UNKNOWN_EXIT: i32 = 137;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process; in tests what is behind a poisoned lock is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeeperLink {
    pub fn new(paths: Paths, notify: impl Fn(HostEvent) + Send + Sync + 'static) -> Self {
        let shared = Shared { mirror: Mutex::default(), execs: Mutex::default(), notify: Box::new(notify) };
        Self { paths, client: Mutex::new(None), shared: Arc::new(shared) }
    }

    /// The connection, made first where there is none, with a keeper started first where none runs.
    /// True when it is a new one: then the caller has to see to what the keeper does not know.
    pub fn client(&self) -> Result<(Arc<Client>, bool), KeeperError> {
        let mut client = lock(&self.client);
        if let Some(client) = client.as_ref().filter(|client| client.is_connected()) {
            return Ok((client.clone(), false));
        }
        let shared = self.shared.clone();
        let on_event = move |event| shared.take(event);
        let made = match Client::connect(&self.paths.keeper_socket(), on_event.clone()) {
            Ok(made) => made,
            Err(error) if error.is_absent() => {
                keeper::spawn(&self.options())?;
                Client::connect(&self.paths.keeper_socket(), on_event)?
            }
            Err(error) => return Err(error),
        };
        let made = Arc::new(made);
        *client = Some(made.clone());
        drop(client);
        self.refresh(&made)?;
        Ok((made, true))
    }

    fn options(&self) -> keeper::Options {
        keeper::Options {
            run: self.paths.run.clone(),
            log: Some(self.paths.log.join("keeper.log")),
            cgroups: Vec::new(),
            program: None,
        }
    }

    /// Asks the keeper for its whole list.
    pub fn refresh(&self, client: &Client) -> Result<(), KeeperError> {
        let list = client.list()?;
        *lock(&self.shared.mirror) = list.into_iter().map(|handle| (handle.instance.clone(), handle)).collect();
        Ok(())
    }

    pub fn handle(&self, instance: &InstanceId) -> Option<Handle> {
        lock(&self.shared.mirror).get(instance).cloned()
    }

    pub fn handles(&self) -> BTreeMap<InstanceId, Handle> {
        lock(&self.shared.mirror).clone()
    }

    pub fn forget(&self, instance: &InstanceId) {
        lock(&self.shared.mirror).remove(instance);
    }

    /// Notes what a call has told, so that the next look needs no question.
    pub fn note(&self, handle: Handle) {
        lock(&self.shared.mirror).insert(handle.instance.clone(), handle);
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

    /// Ends the keeper, if it keeps nothing any more.
    pub fn shutdown(&self) -> Result<(), KeeperError> {
        let taken = lock(&self.client).take();
        match taken {
            Some(client) => client.shutdown(false),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn take(&self, event: Event) {
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
            Event::Lost => {
                lock(&self.mirror).clear();
                // Dropping the senders tells every session that nobody will know.
                *lock(&self.execs) = Execs::default();
                (self.notify)(HostEvent::KeeperLost);
            }
        }
    }

    fn exited(&self, instance: &InstanceId, exit: Exit) {
        let mut mirror = lock(&self.mirror);
        match mirror.get_mut(instance) {
            Some(handle) => handle.state = HandleState::Exited(exit),
            // It ended before the answer to its start was read; the handle is made up for from what
            // is known.
            None => drop(mirror.insert(instance.clone(), Handle {
                instance: instance.clone(),
                pid: 0,
                state: HandleState::Exited(exit),
                since: exit.at,
                adopted: false,
                log: crate::keeper::LogCounters::default(),
            })),
        }
    }
}
