//! Decides what to do next: desired state, records, sightings and the time in; steps out.
//!
//! Pure and total: any combination has an answer, also the ones that "cannot happen", because after
//! a crash they do. Nothing here reads a file, a clock or the environment.

mod ahead;
mod decide;
mod desired;
mod idrange;
mod known;
mod order;
mod presence;
mod record;
mod seen;
mod settle;
mod step;
mod words;

pub use ahead::carry;
pub use desired::{Desired, SourceState, Wanted, Wish};
pub use record::{
    Attempts, Deferred, Exit, GivenUp, InstanceRecord, Limits, Override, OverrideState, Phase, Record, Word,
};
pub use seen::{GroupSeen, HealthSeen, ProcessSeen, Seen, Sighting};
pub use settle::settle;
pub use step::{Action, Failure, Finding, Outcome, Plan, Settled, Step, Sync};

use crate::spec::{ObjectId, Span, Timestamp};
use decide::{Decision, Look};
use idrange::FreeRanges;
use order::Order;
use presence::Presences;
use std::collections::{BTreeMap, BTreeSet};

/// What the planner may assume about this host and how its owner wants it run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The first id that may be given to containers, and how many ranges of 65536 follow.
    pub id_base: u32,
    pub id_ranges: u32,
    /// How long an object has to be absent before it is removed.
    pub deletion_grace: Span,
    /// How long what is left of a removed object is kept after the grace, stopped, so that it can go on
    /// when its text comes back.
    pub retention: Span,
    /// More absences than this at once wait for consent: the larger of the count and the percentage.
    pub max_delete: usize,
    pub max_delete_percent: usize,
    /// What is special about the sources of these names.
    pub pruning: BTreeMap<String, Pruning>,
    /// The agent is leaving and takes everything with it: `plim up` after Ctrl-C.
    pub stop_all: bool,
    /// The host goes down: everything stops in its order, and is to run again afterwards.
    pub halt: bool,
}

/// What becomes of the objects that are gone from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruning {
    /// They are removed; otherwise each waits for consent.
    pub prune: bool,
    /// How many at once, of those of this source and apart from all others.
    pub max_delete: Option<MaxDelete>,
}

/// The larger of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxDelete {
    pub count: usize,
    pub percent: usize,
}

impl MaxDelete {
    fn of(self, managed: usize) -> usize {
        self.count.max(managed.saturating_mul(self.percent) / 100)
    }
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
    let Inputs { settings, desired: _, records: _, seen, in_flight, approved, now } = inputs;
    let sightings: Vec<_> = seen.instances.iter().collect();
    let objects = known::all(inputs, &sightings);
    let presences = Presences::new(inputs, &objects);
    let order = Order::new(inputs, &objects);
    let needed = if settings.stop_all || settings.halt { order.needed() } else { BTreeMap::new() };
    let mut ranges = FreeRanges::new(inputs);
    let mut plan = Plan::default();
    let mut findings = Vec::with_capacity(objects.len());
    for object in &objects {
        let id = &*object.id;
        let look = Look {
            id,
            record: object.record,
            presence: presences.of(object),
            order: &order,
            needed_by: needed.get(id),
            seen: object.seen,
            settings,
            approved: approved.contains(id),
            now,
        };
        let Decision { step, wake, finding } = decide::decide(look, &mut ranges);
        if let Some(finding) = finding {
            findings.push((id.clone(), finding));
        }
        // What is in flight wakes the next round by its end.
        if !in_flight.contains(id) {
            plan.steps.extend(step);
            plan.wake_at = plan.wake_at.into_iter().chain(wake).min();
        }
    }
    plan.findings = findings.into_iter().collect();
    plan.steps.sort_by_key(|step| (rank(&step.action), -priority(&step.action)));
    plan
}

/// What sets something free goes before what takes it. Steps of one rank stay in the order of
/// their objects.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Resize { .. } => 0,
        Action::Kill { .. } => 1,
        Action::Signal { .. } => 2,
        Action::Collect { .. } => 3,
        Action::Remove { .. } => 4,
        Action::Note | Action::Forget | Action::Check { .. } => 5,
        Action::Start { .. } => 6,
    }
}

/// Of those that start, the highest first.
fn priority(action: &Action) -> i64 {
    match action {
        Action::Start { object, .. } => object.spec.boot.priority.into(),
        _ => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests;
