//! How the API talks to the running agent.

use super::history::{History, Report};
use super::inbox::{Message, Sender};
use super::journal::Journal;
use super::revisions::Kept;
use super::{Event, Item, View, Which};
use crate::host::{ExecError, ExecRequest, ExecSession, Figures, Machine};
use crate::spec::change::{Class, FieldChange};
use crate::spec::{InstanceId, ObjectId, Resources, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, oneshot, watch};

/// A cheap clone that every connection gets.
#[derive(Clone)]
pub struct Handle {
    /// Changes whenever something changed that can be shown.
    pub changes: watch::Receiver<u64>,
    pub(super) last: Arc<Mutex<Arc<View>>>,
    pub(super) inbox: Sender,
    pub(super) journal: Journal,
    pub(super) history: History,
    pub(super) machine: Arc<Machine>,
}

/// What a person may order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do")]
pub enum Command {
    Stop {
        object: ObjectId,
        reason: Option<String>,
        until: Option<Timestamp>,
    },
    Start {
        object: ObjectId,
        reason: Option<String>,
        until: Option<Timestamp>,
    },
    Restart {
        object: ObjectId,
        reason: Option<String>,
    },
    /// Nothing is done about them until they are resumed.
    Suspend {
        objects: Vec<ObjectId>,
        all: bool,
        reason: Option<String>,
        until: Option<Timestamp>,
    },
    Resume {
        objects: Vec<ObjectId>,
        all: bool,
    },
    /// Limits above the manifest's; nothing set takes them back.
    SetResources {
        object: ObjectId,
        resources: Box<Resources>,
        reason: Option<String>,
        until: Option<Timestamp>,
    },
    /// Releases held deletions.
    Approve {
        objects: Vec<ObjectId>,
        all: bool,
    },
    /// Takes the directory of a source for what it is now, though it is another one than before; or the
    /// rewritten history of a repository.
    AcceptSource {
        name: String,
    },
    /// Reads the sources, one or all of them, and looks at the whole host now; answered when that round is done.
    Reconcile {
        #[serde(default)]
        source: Option<String>,
    },
    /// Reads the configuration again and goes by it; by the old one where it cannot be used.
    Reload,
    /// Goes back to an earlier revision of a source, the one before if none is named, and stays there.
    RollBackSource {
        name: String,
        to: Option<String>,
        reason: Option<String>,
    },
    /// Follows the newest revision of a source again.
    UnpinSource {
        name: String,
    },
    /// Stops and removes everything, then ends agent and keeper: `plim up` after Ctrl-C.
    StopAll {
        kill: bool,
    },
}

#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum CommandError {
    #[error("{0} is not known to this agent")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    /// The configuration has a mistake, and what was goes on.
    #[error("{0}")]
    Misconfigured(String),
    /// Exec: the container has no such program.
    #[error("{0}")]
    NoSuchProgram(String),
    /// Exec: the file is there and cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    #[error("{0}")]
    Failed(String),
}

impl From<ExecError> for CommandError {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::NoSuchProgram(text) => Self::NoSuchProgram(text),
            ExecError::NotExecutable(text) => Self::NotExecutable(text),
            ExecError::Failed(text) => Self::Failed(text),
        }
    }
}

/// What `plim plan` asks: with paths, as if their objects replaced those of the same names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRequest {
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    pub changes: Vec<PlannedChange>,
    /// Diagnostics of what could not be read, as a compiler prints them.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    pub object: ObjectId,
    /// `create`, `live`, `restart`, `recreate`, `destroy`, `none`.
    pub verb: String,
    pub class: Class,
    pub reason: String,
    pub fields: Vec<FieldChange>,
    /// It waits for consent.
    pub held: bool,
}

/// What `/metrics` shows.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub view: Arc<View>,
    /// By namespace and name, of whatever has cgroups.
    pub figures: BTreeMap<(String, String), Figures>,
}

impl Handle {
    /// What can be shown, with fresh usage figures where `usage` is wanted.
    pub async fn view(&self, which: Which, usage: bool) -> Arc<View> {
        let (reply, answer) = oneshot::channel();
        let asked = self.inbox.send(Message::Show { which, reply });
        let view = match (asked, answer.await) {
            (Ok(()), Ok(view)) => view,
            // The driver has left; what there was to see then is still true of what it left behind.
            _ => self.last(),
        };
        if !usage {
            return view;
        }
        let machine = self.machine.clone();
        let measured = tokio::task::spawn_blocking(move || {
            // Made for this caller alone, as a rule.
            let mut view = Arc::unwrap_or_clone(view);
            measure(&machine, &mut view.items);
            view
        });
        match measured.await {
            Ok(view) => Arc::new(view),
            Err(_) => self.last(),
        }
    }

    /// What there is to count and to measure, fresh.
    pub async fn metrics(&self) -> Metrics {
        let view = self.view(Which::All, false).await;
        let machine = self.machine.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let figures = view.items.iter().filter_map(|item| {
                let instance = item.status.instance.as_deref()?.parse().ok()?;
                let figures = machine.figures(&instance)?;
                Some(((item.metadata.namespace.clone(), item.metadata.name.clone()), figures))
            });
            Metrics { figures: figures.collect(), view }
        });
        match measured.await {
            Ok(metrics) => metrics,
            Err(_) => Metrics { figures: BTreeMap::new(), view: self.last() },
        }
    }

    fn last(&self) -> Arc<View> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries out an order and says in one line what came of it.
    pub async fn command(&self, command: Command, by: u32) -> Result<String, CommandError> {
        self.ask(|reply| Message::Order { command, by, reply }).await
    }

    /// What would be done. Never writes.
    pub async fn plan(&self, request: PlanRequest) -> Result<PlanReport, CommandError> {
        self.ask(|reply| Message::Preview { request, reply }).await
    }

    /// `plim why`: the last decision about an object, in sentences.
    pub async fn why(&self, object: &ObjectId) -> Result<String, CommandError> {
        self.ask(|reply| Message::Why { object: object.clone(), reply }).await
    }

    /// `plim history`: what was changed about an object, oldest first. Also of one that is gone.
    pub async fn history(&self, object: &ObjectId) -> Result<Vec<Report>, CommandError> {
        let (history, id) = (self.history.clone(), object.clone());
        let reports = tokio::task::spawn_blocking(move || history.of(&id)).await;
        let reports = reports.map_err(|error| CommandError::Failed(error.to_string()))?;
        reports.map_err(|error| CommandError::Failed(format!("reading the history of {object}: {error}")))
    }

    /// The accepted revisions of a source, the oldest first.
    pub async fn revisions(&self, source: &str) -> Result<Vec<Kept>, CommandError> {
        self.ask(|reply| Message::Revisions { source: source.to_owned(), reply }).await
    }

    /// What changes from one accepted revision of a source to another, or to the one in force.
    pub async fn compare(&self, source: &str, from: &str, to: Option<&str>) -> Result<PlanReport, CommandError> {
        let (source, from, to) = (source.to_owned(), from.to_owned(), to.map(str::to_owned));
        self.ask(|reply| Message::Compare { source, from, to, reply }).await
    }

    /// The events still remembered that are younger than `after`, and every later one.
    pub fn events(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        self.journal.since(after)
    }

    /// The log files of an object's present or, if wanted, previous run, oldest first.
    pub async fn log_files(&self, object: &ObjectId, previous: bool) -> Result<Vec<PathBuf>, CommandError> {
        let instance = self.instance(object).await?;
        let machine = self.machine.clone();
        let files = tokio::task::spawn_blocking(move || machine.log_files(&instance, previous)).await;
        let files = files.map_err(|error| CommandError::Failed(error.to_string()))?;
        files.map_err(CommandError::Failed)
    }

    /// Starts a program inside a running container.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecSession, CommandError> {
        let instance = self.running(&request.object).await?;
        let machine = self.machine.clone();
        let session = tokio::task::spawn_blocking(move || machine.exec(&instance, &request)).await;
        let session = session.map_err(|error| CommandError::Failed(error.to_string()))?;
        Ok(session?)
    }

    /// Comes back with true when the rounds go on; how soon says how busy they are.
    pub async fn answers(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Message::Alive { reply }).is_ok() && answer.await.is_ok()
    }

    /// Ends the agent and leaves everything running.
    pub fn leave(&self) {
        // A driver that is gone has left already.
        drop(self.inbox.send(Message::Leave));
    }

    /// Its instance, if a process of it runs.
    async fn running(&self, object: &ObjectId) -> Result<InstanceId, CommandError> {
        let instance = self.instance(object).await?;
        let view = self.view(Which::One(object.clone()), false).await;
        let own = |item: &&super::Item| item.status.instance.as_deref() == Some(instance.to_string().as_str());
        match view.items.iter().find(own) {
            Some(item) if item.status.pid.is_none() => {
                Err(CommandError::Refused(format!("{object} does not run: {}", item.status.phase.to_lowercase())))
            }
            _ => Ok(instance),
        }
    }

    async fn instance(&self, object: &ObjectId) -> Result<InstanceId, CommandError> {
        let view = self.view(Which::One(object.clone()), false).await;
        let (namespace, name) = (object.namespace.as_str(), object.name.as_str());
        let item = view.items.iter().find(|i| i.metadata.namespace == namespace && i.metadata.name == name);
        let item = item.ok_or_else(|| CommandError::NotFound(object.to_string()))?;
        let instance = item.status.instance.as_deref().and_then(|text| text.parse().ok());
        instance.ok_or_else(|| CommandError::Refused(format!("{object} has never been started: {}", item.status.phase)))
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Message,
    ) -> Result<T, CommandError> {
        let gone = || CommandError::Failed("the agent is leaving".to_owned());
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// So many are measured on one thread: to start another one costs as much as some of them.
const BY_ONE: usize = 64;
/// More than this would only wait for each other.
const THREADS: usize = 4;

/// Adds what each of them uses. Of a thousand it takes tens of milliseconds, which somebody waits for.
fn measure(machine: &Machine, items: &mut [Item]) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = items.len().div_ceil(BY_ONE).min(THREADS).min(processors).max(1);
    let part = items.len().div_ceil(threads).max(1);
    let one = |items: &mut [Item]| {
        for item in items {
            let instance = item.status.instance.as_deref().and_then(|text| text.parse().ok());
            item.status.usage = instance.and_then(|instance| machine.usage(&instance));
        }
    };
    std::thread::scope(|scope| {
        let mut parts = items.chunks_mut(part);
        let own = parts.next();
        parts.for_each(|part| drop(scope.spawn(|| one(part))));
        one(own.unwrap_or_default());
    });
}
