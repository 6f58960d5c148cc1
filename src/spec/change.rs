//! What a change of a manifest means for what runs: its class, per field, from one table.

use super::{Container, Object};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a change costs, cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing on the host changes.
    None,
    /// Written to the kernel; the process does not notice.
    Live,
    /// The same root filesystem, a new process.
    Restart,
    /// A new root filesystem and a new process.
    Recreate,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Restart => "restart",
            Self::Recreate => "recreate",
        })
    }
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// As in the manifest: `spec.resources.memory.limit`.
    pub field: String,
    pub class: Class,
    /// The values as text for a person; `None` where the field is not set.
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Every field of `spec` that differs, in the order of the manifest's reference.
pub fn between(old: &Container, new: &Container) -> Vec<FieldChange> {
    let _ = (old, new);
    unimplemented!("the table of fields")
}

/// As [`between`], with labels and annotations.
pub fn between_objects(old: &Object, new: &Object) -> Vec<FieldChange> {
    let _ = (old, new);
    unimplemented!("the table of fields")
}
