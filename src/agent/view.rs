//! What the agent shows of itself: the stable, versioned shapes of `-o json` and of the API.

use super::Counts;
use super::revisions::{Kept, Pin};
use crate::host::Usage;
use crate::plan::{Exit, Override};
use crate::spec::{Container, ObjectId, Resources, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `{"apiVersion": "plimsoll/v1", "kind": "List", "items": […]}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    pub api_version: String,
    pub kind: String,
    pub items: Vec<T>,
}

/// One object with its status.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    /// The last accepted revision; `None` for an object that never had a valid one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Container>,
    pub status: ContainerStatus,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// `Pending`, `Starting`, `Running`, `Stopping`, `Stopped`, `Exited`, `BackingOff`, `Failed`,
    /// `Removing`.
    pub phase: String,
    /// `synced`, `pending`, `failed`, `deferred`, `invalid`, `unavailable`, `deleting`, `held`,
    /// `overridden`.
    pub sync: String,
    /// Whatever a person should know now; empty when all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub pid: Option<u32>,
    pub started_at: Option<Timestamp>,
    pub restarts: u64,
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    pub image: BTreeMap<String, Option<String>>,
    pub addresses: Vec<String>,
    /// The payload's directory below the cgroup root.
    pub cgroup: Option<String>,
    pub resources: ResourcesView,
    pub conditions: Vec<Condition>,
    pub generations: Generations,
    pub source: Option<StatusSource>,
    pub instance: Option<String>,
    pub host: BTreeMap<String, String>,
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub override_: Option<Override>,
    /// The next thing that will happen by itself: a retry, a kill, a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesView {
    pub desired: Resources,
    pub actuated: Resources,
    /// The control files as the kernel has them: `memory.max: "536870912"`.
    pub actual: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generations {
    pub running: Option<u64>,
    pub last_good: Option<u64>,
    pub failed: Vec<u64>,
    pub pinned: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusSource {
    pub name: String,
    pub file: String,
    pub document: u32,
    pub line: u32,
    pub revision: String,
    /// The files beside it that change it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<String>,
}

/// Something that happened, for `plim events` and `plim describe`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counts from 1 over the life of this agent.
    pub id: u64,
    pub at: Timestamp,
    #[serde(rename = "type")]
    pub kind: EventType,
    /// `Container/default/web`, or a source or the agent itself.
    pub object: String,
    /// One word in CamelCase: `Started`, `Resized`, `Exited`, `Invalid`.
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    Normal,
    Warning,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    pub name: String,
    pub path: String,
    /// Complete, or why not.
    pub complete: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub objects: usize,
    /// What is gone from it waits for consent, each object of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps: bool,
    /// How much of it may be removed at once, where it has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delete: Option<super::MaxDelete>,
    pub last_read: Option<Timestamp>,
    /// Of a git source: the revision in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Kept>,
    /// The newest one, where another one is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Kept>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pin>,
    /// Nothing newer is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// When the server last answered, was last asked, and is asked next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// Names that were passed over, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ignored: BTreeMap<String, String>,
    /// Problems with files that have no object of their own, as a compiler prints them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// `plim status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub version: String,
    pub agent_pid: u32,
    pub keeper_pid: Option<u32>,
    pub root: Option<String>,
    pub started_at: Timestamp,
    pub last_round: Option<Timestamp>,
    pub rounds: u64,
    pub cgroups: String,
    /// Objects by their `sync` word.
    pub objects: BTreeMap<String, usize>,
    pub sources: Vec<SourceView>,
    pub warnings: Vec<String>,
}

/// Which items are wanted beside the summary: making one costs microseconds, and there may be thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    All,
    One(ObjectId),
    None,
}

/// Everything that can be shown, at one instant.
#[derive(Debug, Clone)]
pub struct View {
    pub items: Vec<Item>,
    pub summary: Summary,
    /// Goes up whenever an item or the summary's objects and sources change.
    pub version: u64,
    pub counts: Counts,
}
