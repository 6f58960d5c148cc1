//! What the absence of an object's text may lead to.

use super::Object;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happens when the object is gone from the manifests, after the grace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Stopped and removed; an agent that keeps a trash keeps its root filesystem for so long, and it
    /// goes on with it when its text comes back.
    #[default]
    Delete,
    /// Stopped, and its root filesystem kept until `plim approve`.
    Stop,
    /// Left as it is, no longer looked after, until its text comes back or `plim approve` removes it.
    Orphan,
    /// Goes on, looked after, until `plim approve`.
    Confirm,
}

impl fmt::Display for DeletionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "Delete",
            Self::Stop => "Stop",
            Self::Orphan => "Orphan",
            Self::Confirm => "Confirm",
        })
    }
}

/// `plimsoll/prune: disabled` in the annotations: its absence removes nothing without consent.
pub const PRUNE: &str = "plimsoll/prune";
/// `plimsoll/reconcile: disabled` in the annotations: nothing is done about the object, as after `plim suspend`.
pub const RECONCILE: &str = "plimsoll/reconcile";
/// What [`PRUNE`] and [`RECONCILE`] may say.
pub const DISABLED: &str = "disabled";

impl Object {
    /// Why it goes on without its text until a person consents, if it does.
    pub fn kept_without_consent(&self) -> Option<&'static str> {
        match (self.spec.deletion_policy, self.annotations.get(PRUNE).map(String::as_str)) {
            (_, Some(DISABLED)) => Some("file removed, and plimsoll/prune is disabled"),
            (DeletionPolicy::Confirm, _) => Some("file removed, and its deletionPolicy is Confirm"),
            (DeletionPolicy::Delete | DeletionPolicy::Stop | DeletionPolicy::Orphan, _) => None,
        }
    }
}
