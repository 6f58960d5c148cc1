//! In what order objects start and stop.

use super::{Kind, Name, ObjectId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Another container that has to be there first. It is looked at only when this one is to be started: what
/// runs goes on, whatever becomes of what it once waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// The other container.
    pub name: Name,
    /// Its namespace; this one's when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// What it has to be.
    #[serde(default)]
    pub condition: DependencyCondition,
}

/// What a container waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DependencyCondition {
    /// Its process has been started and has not ended.
    #[default]
    Running,
    /// Its probes say that it is ready; without any, as `running`.
    Healthy,
    /// Its process has ended with 0.
    Completed,
}

impl Dependency {
    /// Which object, for one of the namespace given.
    pub fn object(&self, namespace: &Name) -> ObjectId {
        let namespace = self.namespace.as_ref().unwrap_or(namespace).clone();
        ObjectId { kind: Kind::Container, namespace, name: self.name.clone() }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        let condition = match self.condition {
            DependencyCondition::Running => "running",
            DependencyCondition::Healthy => "healthy",
            DependencyCondition::Completed => "completed",
        };
        write!(f, "{} {condition}", self.name)
    }
}

/// How a container stands to the others when many start or stop at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Boot {
    /// Higher starts first.
    pub priority: i32,
}
