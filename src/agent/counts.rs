//! What the agent counts of its own work, for `/metrics`. Nothing is decided from it.

use crate::spec::change::Class;
use std::collections::BTreeMap;

/// All since the start of the agent, except the queue, which is as it is now.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub changes: BTreeMap<Change, u64>,
    /// By source: how often its server or its directory could not be read.
    pub source_failures: BTreeMap<String, u64>,
    /// How often file events were lost, so that everything was read again.
    pub watch_losses: u64,
    /// Decided, and no worker has begun yet.
    pub waiting: usize,
    /// In the hands of a worker.
    pub working: usize,
}

/// A kind of change that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub class: Class,
    /// As in events and in the history: `Starting`, `Resizing`.
    pub action: &'static str,
    pub went_well: bool,
}

impl Counts {
    pub(crate) fn changed(&mut self, change: Change) {
        *self.changes.entry(change).or_default() += 1;
    }

    pub(super) fn source_failed(&mut self, name: &str) {
        *self.source_failures.entry(name.to_owned()).or_default() += 1;
    }
}
