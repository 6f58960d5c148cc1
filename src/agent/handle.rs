//! How the API talks to the running agent.

use super::{Event, View};
use crate::spec::change::{Class, FieldChange};
use crate::spec::{ObjectId, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// A cheap clone that every connection gets.
#[derive(Clone)]
pub struct Handle {
    pub view: watch::Receiver<Arc<View>>,
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
    /// Releases held deletions.
    Approve {
        objects: Vec<ObjectId>,
        all: bool,
    },
    /// Reads the sources and looks at the whole host now; answered when that round is done.
    Reconcile,
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
    /// Exec: the container has no such program.
    #[error("{0}")]
    NoSuchProgram(String),
    /// Exec: the file is there and cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    #[error("{0}")]
    Failed(String),
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

/// What to run inside a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    pub object: ObjectId,
    pub argv: Vec<String>,
    pub tty: bool,
    #[serde(default)]
    pub env: Vec<String>,
    #[serde(default)]
    pub cwd: Option<String>,
    #[serde(default)]
    pub user: Option<crate::spec::User>,
}

/// A process that was started by exec, and our ends of its standard streams. With a tty there is
/// the pty's master alone, in `stdin` and `stdout`.
pub struct ExecSession {
    pub pid: u32,
    pub stdin: std::os::fd::OwnedFd,
    pub stdout: std::os::fd::OwnedFd,
    pub stderr: Option<std::os::fd::OwnedFd>,
    /// Resolves to the exit code: 128 + the signal's number after a signal.
    pub exit: tokio::sync::oneshot::Receiver<i32>,
}

impl Handle {
    /// Everything that can be shown, with fresh usage figures where `usage` is wanted.
    pub async fn view(&self, usage: bool) -> Arc<View> {
        let _ = usage;
        unimplemented!("the agent")
    }

    pub async fn command(&self, command: Command, by: u32) -> Result<String, CommandError> {
        let _ = (command, by);
        unimplemented!("the agent")
    }

    pub async fn plan(&self, request: PlanRequest) -> Result<PlanReport, CommandError> {
        let _ = request;
        unimplemented!("the agent")
    }

    /// The events still remembered that are younger than `after`, and every later one.
    pub fn events(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let _ = after;
        unimplemented!("the agent")
    }

    /// The log files of an object's present or, if wanted, previous run, oldest first.
    pub async fn log_files(&self, object: &ObjectId, previous: bool) -> Result<Vec<PathBuf>, CommandError> {
        let _ = (object, previous);
        unimplemented!("the agent")
    }

    pub async fn exec(&self, request: ExecRequest) -> Result<ExecSession, CommandError> {
        let _ = request;
        unimplemented!("the agent")
    }

    /// `plim why`: the last decision about an object, in sentences.
    pub async fn why(&self, object: &ObjectId) -> Result<String, CommandError> {
        let _ = object;
        unimplemented!("the agent")
    }
}
