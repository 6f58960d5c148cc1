//! The machine, as the reconciler sees it. The real one composes cgroups, sandbox, keeper and storage.

use crate::plan::{Action, Failure, Outcome, Seen};
use crate::spec::ObjectId;
use std::collections::BTreeSet;

/// Which part of the host to look at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything that carries our mark.
    All,
    /// The instances of these objects alone.
    Objects(&'a BTreeSet<ObjectId>),
}

/// The first of the two seams: the real host, and the simulated one of the tests.
pub trait Host: Send + Sync {
    fn observe(&self, scope: Scope<'_>) -> Result<Seen, Failure>;

    /// Does one action. An error says nothing about how far it got; the next `observe` does.
    fn apply(&self, action: &Action) -> Result<Outcome, Failure>;
}
