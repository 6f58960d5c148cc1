//! Decides what to do next: desired state, records, sightings and the time in; steps out.
//!
//! Pure and total: any combination has an answer, also the ones that "cannot happen", because after
//! a crash they do. Nothing here reads a file, a clock or the environment.

mod desired;
mod record;
mod seen;
mod step;

pub use desired::{Desired, SourceState, Wanted, Wish};
pub use record::{Attempts, Deferred, Exit, InstanceRecord, Override, OverrideState, Phase, Record};
pub use seen::{GroupSeen, ProcessSeen, Seen, Sighting};
pub use step::{Action, Failure, Finding, Outcome, Plan, Settled, Step, Sync};

use crate::spec::{ObjectId, Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// What the planner may assume about this host and how its owner wants it run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first id that may be given to containers, and how many ranges of 65536 follow.
    pub id_base: u32,
    pub id_ranges: u32,
    /// How long an object has to be absent before it is removed.
    pub deletion_grace: Span,
    /// More absences than this at once wait for consent: the larger of the count and the percentage.
    pub max_delete: usize,
    pub max_delete_percent: usize,
    /// The agent is leaving and takes everything with it: `plim up` after Ctrl-C.
    pub stop_all: bool,
}

/// The inputs of one round.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub settings: &'a Settings,
    pub desired: &'a Desired,
    pub records: &'a BTreeMap<ObjectId, Record>,
    pub seen: &'a Seen,
    /// Objects with a step in flight: they get no other.
    pub in_flight: &'a BTreeSet<ObjectId>,
    /// Objects whose held deletion a person has released.
    pub approved: &'a BTreeSet<ObjectId>,
    pub now: Timestamp,
}

/// The steps that bring the host nearer to what is desired, and when to look again by itself.
pub fn plan(inputs: Inputs<'_>) -> Plan {
    let _ = inputs;
    unimplemented!("the planner")
}

/// What a step's result makes of its record.
pub fn settle(record: &Record, action: &Action, result: Result<Outcome, Failure>, now: Timestamp) -> Settled {
    let _ = (record, action, result, now);
    unimplemented!("the planner")
}
