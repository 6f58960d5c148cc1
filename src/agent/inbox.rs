//! Everything that can wake the driver.

use super::fetcher::Fetched;
use super::revisions::Kept;
use super::{Command, CommandError, EventType, PlanReport, PlanRequest, View, Which};
use crate::plan::{Action, Failure, Outcome};
use crate::spec::ObjectId;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;
use tokio::sync::oneshot;

/// One reason to look again. None of them is trusted for more than that, except the results of our
/// own actions and the orders of people.
pub(super) enum Message {
    /// Something moved in a watched directory, and when that was heard.
    SourceChanged(Instant),
    /// A server was asked for its newest revision.
    Fetched(Box<Fetched>),
    /// Which revisions of a source were accepted, the oldest first.
    Revisions {
        source: String,
        reply: oneshot::Sender<Result<Vec<Kept>, CommandError>>,
    },
    /// What differs between two of them.
    Compare {
        source: String,
        from: String,
        to: Option<String>,
        reply: oneshot::Sender<Result<PlanReport, CommandError>>,
    },
    /// Events were lost, or a watch was: list everything and look at everything.
    WatchLost(String),
    /// Something happened to an object's processes.
    HostChanged(ObjectId),
    /// What its probes say: whether that is good, and the words.
    HealthChanged(ObjectId, bool, String),
    /// The keeper went away.
    KeeperLost,
    /// Something to be told about the keeper: kind, reason, text.
    KeeperNews(EventType, &'static str, String),
    /// An action ended.
    Done(Box<Done>),
    Order {
        command: Command,
        by: u32,
        reply: oneshot::Sender<Result<String, CommandError>>,
    },
    Show {
        which: Which,
        reply: oneshot::Sender<Arc<View>>,
    },
    Preview {
        request: PlanRequest,
        reply: oneshot::Sender<Result<PlanReport, CommandError>>,
    },
    Why {
        object: ObjectId,
        reply: oneshot::Sender<Result<String, CommandError>>,
    },
    /// Answered between two rounds: who asks wants to know that there is somebody.
    Alive {
        reply: oneshot::Sender<()>,
    },
    /// Leave, and let everything run.
    Leave,
}

/// An action that ended, and how.
pub(super) struct Done {
    pub object: ObjectId,
    pub action: Action,
    pub result: Result<Outcome, Failure>,
}

pub(super) type Sender = mpsc::Sender<Message>;
