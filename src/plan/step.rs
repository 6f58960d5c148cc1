//! What the planner says: steps, and what it found out about each object.

use super::{Deferred, Record};
use crate::spec::change::{Class, FieldChange};
use crate::spec::{IdRange, InstanceId, LimitPointer, Object, ObjectId, Resources, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// At most one per object, independent of each other, in the order to begin them.
    pub steps: Vec<Step>,
    /// When the plan changes though nothing else does.
    pub wake_at: Option<Timestamp>,
    /// What is to be said about each object, whether or not it has a step.
    pub findings: BTreeMap<ObjectId, Finding>,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub object: ObjectId,
    pub class: Class,
    /// One clause for a person: `memory.limit 512Mi → 1Gi`, `file removed`, `exited with 1`.
    pub reason: String,
    pub changes: Vec<FieldChange>,
    /// Made durable before the action begins. `None` leaves the record as it is.
    pub record: Option<Record>,
    pub action: Action,
}

#[allow(clippy::large_enum_variant, reason = "few exist at a time, and each for one step")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The record alone changes.
    Note,
    /// Makes what is missing of the instance (root filesystem, cgroups) and starts its process.
    /// What a crash left of an earlier try is cleaned or used.
    Start { instance: InstanceId, run: u64, object: Arc<Object>, ids: Option<IdRange> },
    /// Looks whether the object could be started, before what runs of it is stopped for that.
    Check { instance: InstanceId, object: Arc<Object> },
    /// Writes limits, from those last written to those wanted. When the two are equal something
    /// else has changed them: every one is written again. Limits that are `ignored` are written only
    /// where the two differ, and not told in the readback.
    Resize { instance: InstanceId, from: Resources, to: Resources, ignored: Vec<LimitPointer> },
    /// Sends the stop signal to PID 1.
    Signal { instance: InstanceId, signal: i32 },
    /// Kills everything in its cgroup.
    Kill { instance: InstanceId },
    /// Lets go of an ended process: the keeper forgets it, its cgroups are removed. The root
    /// filesystem stays.
    Collect { instance: InstanceId },
    /// Takes away everything that the instance has on the host, processes first. Fine when
    /// nothing of it stands.
    Remove { instance: InstanceId },
    /// Nothing of the object stands and nothing asks for it: its record goes. The host is not
    /// asked.
    Forget,
}

/// What an action achieved.
#[allow(clippy::large_enum_variant, reason = "few exist at a time, and each for one step")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Started {
        pid: u32,
        at: Timestamp,
        digest: Option<String>,
        readback: BTreeMap<String, String>,
        unsupported: Vec<String>,
    },
    Resized {
        actuated: Resources,
        readback: BTreeMap<String, String>,
        unsupported: Vec<String>,
        deferred: Option<Deferred>,
    },
}

/// Why an action failed: the whole chain of causes as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// The field of the manifest that names what is missing: `spec.image`.
    pub field: Option<String>,
}

/// What becomes of a record after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    Put(Box<Record>),
    /// The host is clean and nothing asks for the object.
    Forget,
    Unchanged,
}

/// What is to be said about an object now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub sync: Sync,
    /// For a person; empty when synced.
    pub message: String,
}

/// How an object stands to its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sync {
    /// Runs as the manifest says.
    Synced,
    /// On its way.
    Pending,
    /// Waits for a retry after a failure.
    Failed,
    /// A limit waits to be lowered.
    Deferred,
    /// The text cannot be used; the last good revision stays.
    Invalid,
    /// Its source cannot be read; it stays as it is.
    Unavailable,
    /// Absent, and removed after a grace.
    Deleting,
    /// Absent, and its removal waits for consent.
    Held,
    /// Runs or stands still by a person's word.
    Overridden,
    /// Nothing is done about it, by a person's word or its manifest's.
    Suspended,
}
