//! What the interface needs of the agent.

use crate::agent::{
    Command, CommandError, Event, ExecRequest, ExecSession, Handle, Kept, Metrics, PlanReport, PlanRequest, Report,
    View, Which,
};
use crate::spec::ObjectId;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// The agent as its interface sees it. A trait, because the interface is tested over a real socket
/// with an agent that has a state and no host.
pub trait Agent: Clone + Send + Sync + 'static {
    /// Counts up whenever something changed that can be shown.
    fn changes(&self) -> watch::Receiver<u64>;
    /// What can be shown, with fresh usage figures where `usage` is wanted. More items than asked for are no
    /// fault.
    fn view(&self, which: Which, usage: bool) -> impl Future<Output = Arc<View>> + Send;
    /// What there is to count and to measure.
    fn metrics(&self) -> impl Future<Output = Metrics> + Send;
    /// Carries out an order of the user `by` and says in one line what came of it.
    fn command(&self, command: Command, by: u32) -> impl Future<Output = Result<String, CommandError>> + Send;
    fn plan(&self, request: PlanRequest) -> impl Future<Output = Result<PlanReport, CommandError>> + Send;
    /// The last decision about an object, in sentences.
    fn why(&self, object: &ObjectId) -> impl Future<Output = Result<String, CommandError>> + Send;
    /// What was changed about an object, oldest first.
    fn history(&self, object: &ObjectId) -> impl Future<Output = Result<Vec<Report>, CommandError>> + Send;
    /// The accepted revisions of a source, the oldest first.
    fn revisions(&self, source: &str) -> impl Future<Output = Result<Vec<Kept>, CommandError>> + Send;
    /// What changes from one accepted revision of a source to another, or to the one in force.
    fn compare(
        &self,
        source: &str,
        from: &str,
        to: Option<&str>,
    ) -> impl Future<Output = Result<PlanReport, CommandError>> + Send;
    /// The remembered events after `after`, and every later one.
    fn events(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>);
    /// The log files of the present or the previous run, oldest first.
    fn log_files(
        &self,
        object: &ObjectId,
        previous: bool,
    ) -> impl Future<Output = Result<Vec<PathBuf>, CommandError>> + Send;
    /// Starts a program inside a running container.
    fn exec(&self, request: ExecRequest) -> impl Future<Output = Result<ExecSession, CommandError>> + Send;
}

impl Agent for Handle {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    async fn view(&self, which: Which, usage: bool) -> Arc<View> {
        Self::view(self, which, usage).await
    }

    async fn metrics(&self) -> Metrics {
        Self::metrics(self).await
    }

    async fn command(&self, command: Command, by: u32) -> Result<String, CommandError> {
        Self::command(self, command, by).await
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanReport, CommandError> {
        Self::plan(self, request).await
    }

    async fn why(&self, object: &ObjectId) -> Result<String, CommandError> {
        Self::why(self, object).await
    }

    async fn revisions(&self, source: &str) -> Result<Vec<Kept>, CommandError> {
        Self::revisions(self, source).await
    }

    async fn compare(&self, source: &str, from: &str, to: Option<&str>) -> Result<PlanReport, CommandError> {
        Self::compare(self, source, from, to).await
    }

    async fn history(&self, object: &ObjectId) -> Result<Vec<Report>, CommandError> {
        Self::history(self, object).await
    }

    fn events(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        Self::events(self, after)
    }

    async fn log_files(&self, object: &ObjectId, previous: bool) -> Result<Vec<PathBuf>, CommandError> {
        Self::log_files(self, object, previous).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, CommandError> {
        Self::exec(self, request).await
    }
}
