//! Decides the next step for one object.
//!
//! Total: any combination of wish, record and sighting has an answer, also the ones that "cannot
//! happen", because after a crash they do. Level-triggered: every answer follows from what is there
//! now, so a change that takes several steps needs no memory of which one comes next. How objects
//! stand to each other (too many deletions, the order of steps) is `plan`'s affair.

mod clock;
mod ending;
mod making;
mod running;
mod saying;
mod wish;

use super::idrange::FreeRanges;
use super::order::Order;
use super::presence::Presence;
use super::{
    Action, Attempts, Exit, Finding, GivenUp, GroupSeen, HealthSeen, InstanceRecord, Override, OverrideState, Phase,
    ProcessSeen, Record, Settings, Sighting, Step, Sync, Wanted, words,
};
use crate::spec::change::{self, Class, FieldChange};
use crate::spec::{DeletionPolicy, DesiredState, InstanceId, ObjectId, Resources, RestartPolicy, Span, Timestamp};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How soon to look again at something that ends by itself within moments.
const MOMENT: Span = Span(100);
/// The pause between two kills of the same thing; shorter than any useful grace.
pub(super) const KILL_PAUSE: Span = Span::from_secs(1);

/// How often the stop signal is tried before it is done without.
const SIGNALS: u32 = 5;

/// Everything that bears on one object.
pub(super) struct Look<'a> {
    pub id: &'a ObjectId,
    pub record: Option<&'a Record>,
    pub presence: Presence<'a>,
    pub order: &'a Order<'a>,
    /// One that runs and needs this one, when all are to stop.
    pub needed_by: Option<&'a ObjectId>,
    /// The object's instances on the host, lowest number first.
    pub seen: &'a [(&'a InstanceId, &'a Sighting)],
    pub settings: &'a Settings,
    /// A person has released its removal.
    pub approved: bool,
    pub now: Timestamp,
}

pub(super) struct Decision {
    pub step: Option<Step>,
    pub wake: Option<Timestamp>,
    /// `None` when there is nothing that this could be said about.
    pub finding: Option<Finding>,
}

pub(super) fn decide(mut look: Look<'_>, ranges: &mut FreeRanges<'_>) -> Decision {
    // A revision that would come to wait for itself is none.
    if let Presence::Wanted(wanted) = look.presence
        && look.record.is_none_or(|record| !Arc::ptr_eq(&record.accepted, &wanted.object))
        && let Some(cycle) = look.order.cycle(&wanted.object)
    {
        look.presence = Presence::Invalid(cycle.into());
    }
    match look.record {
        Some(record) => Case::new(look, Cow::Borrowed(record)).decide(ranges),
        None => match (&look.presence, look.settings.stop_all) {
            (Presence::Wanted(wanted), false) => {
                let record = Record::first(wanted);
                Case::new(look, Cow::Owned(record)).decide(ranges)
            }
            _ => stray(&look),
        },
    }
}

/// Something that no record knows and no usable text asks for.
fn stray(look: &Look<'_>) -> Decision {
    let running = look.seen.iter().any(|(_, sighting)| sighting.is_running());
    let finding = |sync, message: String| Decision { step: None, wake: None, finding: Some(Finding { sync, message }) };
    match (&look.presence, look.seen.first()) {
        (Presence::Invalid(message), _) => finding(Sync::Invalid, message.to_string()),
        (_, None) => Decision { step: None, wake: None, finding: None },
        (Presence::Unavailable(reason), Some(_)) => finding(Sync::Unavailable, reason.to_string()),
        (Presence::Held(reason), Some(_)) => finding(Sync::Held, held(reason)),
        (Presence::Absent | Presence::Wanted(_), Some((instance, _))) => {
            if look.settings.stop_all || (running && !look.approved) {
                return finding(Sync::Held, held(&format!("{instance} runs, and no record or manifest knows it")));
            }
            let reason = if running { "its removal was approved" } else { "left over without a record or a manifest" };
            let step = Step {
                object: look.id.clone(),
                class: Class::None,
                reason: reason.to_owned(),
                changes: Vec::new(),
                record: None,
                action: Action::Remove { instance: (*instance).clone() },
            };
            let message = format!("{instance}: {reason}");
            Decision { step: Some(step), wake: None, finding: Some(Finding { sync: Sync::Deleting, message }) }
        }
    }
}

fn held(reason: &str) -> String {
    format!("{reason}: its removal waits for plim approve")
}

/// Where an object is to get to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    /// Without a process; what stands of it stays.
    Stand,
    /// Nothing of it left.
    Gone,
}

/// What is to happen with an object now.
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
enum Next {
    Do {
        action: Action,
        reason: String,
    },
    /// Nothing, until the instant given or until something else changes.
    Rest {
        until: Option<Timestamp>,
        sync: Sync,
        message: String,
    },
}

impl Next {
    fn act(action: Action, reason: impl Into<String>) -> Self {
        Self::Do { action, reason: reason.into() }
    }

    fn rest(sync: Sync, message: impl Into<String>) -> Self {
        Self::Rest { until: None, sync, message: message.into() }
    }

    fn wait(until: Timestamp, sync: Sync, message: impl Into<String>) -> Self {
        Self::Rest { until: Some(until), sync, message: message.into() }
    }
}

static NOTHING_SEEN: Sighting = Sighting {
    process: ProcessSeen::None,
    group: None,
    rootfs: false,
    ids: None,
    started_from: None,
    health: HealthSeen::Unknown,
};

impl Sighting {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.process, ProcessSeen::Running { .. })
    }

    /// Processes are in its cgroup, though its first one has ended.
    fn is_haunted(&self) -> bool {
        !self.is_running() && self.group.as_ref().is_some_and(|group| group.populated)
    }

    /// The keeper or the cgroup tree still has something of an ended process.
    fn is_uncollected(&self) -> bool {
        matches!(self.process, ProcessSeen::Exited(_)) || self.group.is_some()
    }
}

struct Case<'a> {
    look: Look<'a>,
    /// As it is to be; borrowed until something in it changes.
    record: Cow<'a, Record>,
    /// What a new revision changed, in this round.
    changes: Vec<FieldChange>,
    /// Why the record changes though nothing is done, the last reason first to be said.
    why: Option<String>,
}
impl<'a> Case<'a> {
    fn new(look: Look<'a>, record: Cow<'a, Record>) -> Self {
        Self { look, record, changes: Vec::new(), why: None }
    }

    fn decide(mut self, ranges: &mut FreeRanges<'_>) -> Decision {
        self.clip_waits();
        self.hear_the_wish();
        self.end_the_override();
        self.end_what_has_its_time();
        let next = if let Some(next) = self.suspended() {
            next
        } else if self.is_orphaned() {
            self.leave()
        } else {
            let goal = self.goal();
            self.next(goal, ranges)
        };
        self.conclude(next)
    }

    fn seen_of(&self, id: &InstanceId) -> &'a Sighting {
        self.look.seen.iter().find(|(seen, _)| *seen == id).map_or(&NOTHING_SEEN, |(_, sighting)| *sighting)
    }

    /// Instances that are not the current one.
    fn others(&self) -> impl Iterator<Item = (&'a InstanceId, &'a Sighting)> + '_ {
        let current = self.record.instance.as_ref().map(|instance| &instance.id);
        self.look.seen.iter().copied().filter(move |(id, _)| Some(*id) != current)
    }

    /// Until when nothing is tried, because something failed.
    fn pausing(&self) -> Option<Next> {
        let Attempts { failures: _, next_try, last_error, missing: _ } = &self.record.attempts;
        match (next_try, last_error) {
            (Some(next_try), Some(error)) if *next_try > self.look.now => Some(Next::wait(
                *next_try,
                Sync::Failed,
                format!("{error}; next try in {}", words::wait(next_try.since(self.look.now))),
            )),
            _ => None,
        }
    }

    fn next(&mut self, goal: Goal, ranges: &mut FreeRanges<'_>) -> Next {
        let Some(instance) = &self.record.instance else { return self.without_instance(goal, ranges) };
        let sighting = self.seen_of(&instance.id);
        let phase = instance.phase;
        if !sighting.is_running() {
            if let Some((id, other)) = self.others().filter(|(_, other)| other.is_running()).last() {
                return self.adopt(id, other);
            }
            // First things first: an instance is started only where nothing else of it stands.
            let idle = matches!(phase, Phase::Starting | Phase::Exited | Phase::Stopped);
            if idle
                && self.pausing().is_none()
                && let Some(next) = self.clear_leftover()
            {
                return next;
            }
        }
        let next = match phase {
            Phase::Starting => self.starting(goal, sighting),
            Phase::Running => self.running(goal, sighting),
            Phase::Stopping { kill_at, signalled } => self.stopping(goal, sighting, kill_at, signalled),
            Phase::Exited | Phase::Stopped => self.down(goal, sighting, phase),
            Phase::Removing => self.removing(goal, sighting, ranges),
        };
        match next {
            Next::Rest { .. } if self.pausing().is_none() => self.clear_leftover().unwrap_or(next),
            next => next,
        }
    }

    fn clear_leftover(&self) -> Option<Next> {
        let (id, sighting) = self.others().next()?;
        let reason = if sighting.is_running() { "a second instance of the same object" } else { "left over" };
        Some(Next::act(Action::Remove { instance: id.clone() }, format!("{id} is {reason}")))
    }

    fn edit(&mut self, change: impl FnOnce(&mut InstanceRecord)) {
        if let Some(instance) = &mut self.record.to_mut().instance {
            change(instance);
        }
    }

    fn id(&self) -> InstanceId {
        match &self.record.instance {
            Some(instance) => instance.id.clone(),
            None => InstanceId::new(&self.record.id, self.record.next_instance),
        }
    }
}

impl Sighting {
    fn ignores_stop(&self) -> bool {
        matches!(self.process, ProcessSeen::Running { ignores_stop: true, .. })
    }

    fn since(&self) -> Option<Timestamp> {
        match self.process {
            ProcessSeen::Running { since, .. } => Some(since),
            ProcessSeen::Exited(_) | ProcessSeen::None => None,
        }
    }
}
