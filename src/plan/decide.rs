//! Decides the next step for one object.
//!
//! Total: any combination of wish, record and sighting has an answer, also the ones that "cannot
//! happen", because after a crash they do. Level-triggered: every answer follows from what is there
//! now, so a change that takes several steps needs no memory of which one comes next. How objects
//! stand to each other (too many deletions, the order of steps) is `plan`'s affair.

use super::idrange::FreeRanges;
use super::presence::Presence;
use super::{
    Action, Attempts, Exit, Finding, InstanceRecord, OverrideState, Phase, ProcessSeen, Record, Settings, Sighting,
    Step, Sync, Wanted, words,
};
use crate::spec::change::{self, Class, FieldChange};
use crate::spec::{DesiredState, InstanceId, ObjectId, Resources, RestartPolicy, Span, Timestamp};
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
    /// The object's instances on the host, lowest number first.
    pub seen: Vec<(&'a InstanceId, &'a Sighting)>,
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

pub(super) fn decide(look: Look<'_>, ranges: &mut FreeRanges<'_>) -> Decision {
    match look.record {
        Some(record) => Case::new(look, Cow::Borrowed(record)).decide(ranges),
        None => match (&look.presence, look.settings.stop_all) {
            (Presence::Wanted(wanted), false) => {
                let record = first_record(look.id, wanted);
                Case::new(look, Cow::Owned(record)).decide(ranges)
            }
            _ => stray(&look),
        },
    }
}

fn first_record(id: &ObjectId, wanted: &Wanted) -> Record {
    Record {
        id: id.clone(),
        accepted: Arc::new(wanted.object.clone()),
        provenance: wanted.provenance.clone(),
        generation: 1,
        next_instance: 1,
        instance: None,
        attempts: Attempts::default(),
        restarts: 0,
        last_exit: None,
        override_: None,
        checked: 0,
        absent_since: None,
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

static NOTHING_SEEN: Sighting = Sighting { process: ProcessSeen::None, group: None, rootfs: false, ids: None };

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
        self.hear_the_wish();
        self.end_the_override();
        let goal = self.goal();
        let next = self.next(goal, ranges);
        self.conclude(next)
    }

    // What is asked for.

    /// Takes over what the sources say, as far as it may be believed.
    fn hear_the_wish(&mut self) {
        if self.look.settings.stop_all {
            return;
        }
        match self.look.presence.clone() {
            Presence::Wanted(wanted) => {
                self.appear("back in the manifests");
                self.accept(wanted);
            }
            Presence::Invalid(_) => self.appear("its text is back, though it cannot be used"),
            Presence::Unavailable(_) if !self.is_half_gone() => self.appear("its source cannot be read"),
            Presence::Absent | Presence::Held(_) if self.record.absent_since.is_none() => {
                self.record.to_mut().absent_since = Some(self.look.now);
                self.why = Some("file removed".to_owned());
            }
            Presence::Unavailable(_) | Presence::Absent | Presence::Held(_) => {}
        }
    }

    fn appear(&mut self, why: &str) {
        if self.record.absent_since.is_some() {
            self.record.to_mut().absent_since = None;
            self.why = Some(why.to_owned());
        }
    }

    fn accept(&mut self, wanted: &Wanted) {
        let Wanted { object, provenance } = wanted;
        if self.record.provenance != *provenance {
            let moved = self.record.provenance.path != provenance.path;
            self.why = Some(if moved {
                format!("moved to {}", provenance.path)
            } else {
                "its text changed, and nothing that it says".to_owned()
            });
            self.record.to_mut().provenance = provenance.clone();
        }
        if *self.record.accepted != *object {
            self.changes = change::between_objects(&self.record.accepted, object);
            self.why = Some(words::changes(&self.changes));
            let record = self.record.to_mut();
            record.accepted = Arc::new(object.clone());
            record.generation += 1;
            // A revision starts with a clean slate: what failed before may work now.
            record.attempts = Attempts::default();
            if let Some(instance) = &mut record.instance {
                instance.deferred = None;
                if change::class_of(&self.changes) == Class::None && instance.generation + 1 == record.generation {
                    instance.generation = record.generation;
                }
            }
        }
    }

    fn end_the_override(&mut self) {
        let until = self.record.override_.as_ref().and_then(|word| word.until);
        if until.is_some_and(|until| until <= self.look.now) {
            self.record.to_mut().override_ = None;
            self.why = Some("the time of its override is over".to_owned());
        }
        // A start that was under way when the order came has fulfilled it.
        let started_at = self.record.instance.as_ref().and_then(|instance| instance.started_at);
        if self.record.override_.as_ref().is_some_and(|word| started_at.is_some_and(|at| at > word.since)) {
            self.restart_done();
        }
    }

    /// Its deletion had been allowed to begin, and has.
    fn is_half_gone(&self) -> bool {
        let allowed = self.deleted_at().is_some_and(|at| at <= self.look.now);
        allowed
            && match self.record.instance.as_ref().map(|instance| instance.phase) {
                None | Some(Phase::Stopping { signalled: true, .. } | Phase::Stopped | Phase::Removing) => true,
                Some(Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopping { signalled: false, .. }) => {
                    false
                }
            }
    }

    fn deleted_at(&self) -> Option<Timestamp> {
        self.record.absent_since.map(|since| since.after(self.look.settings.deletion_grace))
    }

    fn goal(&self) -> Goal {
        if self.look.settings.stop_all {
            return Goal::Gone;
        }
        match self.look.presence {
            Presence::Absent if self.deleted_at().is_some_and(|at| at <= self.look.now) => Goal::Gone,
            // Left as it is: neither brought back nor taken further.
            Presence::Unavailable(_) | Presence::Held(_) if self.is_half_gone() => Goal::Stand,
            Presence::Wanted(_)
            | Presence::Invalid(_)
            | Presence::Unavailable(_)
            | Presence::Absent
            | Presence::Held(_) => match self.record.override_.as_ref().map(|word| word.state) {
                Some(OverrideState::Stopped) => Goal::Stand,
                Some(OverrideState::Running) => Goal::Run,
                Some(OverrideState::Restart) | None => match self.record.accepted.spec.desired_state {
                    DesiredState::Running => Goal::Run,
                    DesiredState::Stopped => Goal::Stand,
                },
            },
        }
    }

    /// Why it has to stop, where it has to.
    fn reason_to_stop(&self, goal: Goal) -> String {
        match goal {
            Goal::Gone if self.look.settings.stop_all => "the agent leaves and takes it along".to_owned(),
            Goal::Gone => "file removed".to_owned(),
            Goal::Stand => match &self.record.override_ {
                Some(word) if word.state == OverrideState::Stopped => {
                    format!("stopped by uid {}{}", word.by, because(word.reason.as_deref()))
                }
                _ if self.record.accepted.spec.desired_state == DesiredState::Stopped => {
                    "desiredState stopped".to_owned()
                }
                _ => "its deletion had begun".to_owned(),
            },
            Goal::Run => match self.restart_asked() {
                Some(reason) => reason,
                None => self.pending_change().map_or_else(String::new, |(_, reason)| reason),
            },
        }
    }

    fn restart_asked(&self) -> Option<String> {
        let word = self.record.override_.as_ref()?;
        (word.state == OverrideState::Restart)
            .then(|| format!("restart asked for by uid {}{}", word.by, because(word.reason.as_deref())))
    }

    /// What of the accepted revision needs more than the running process can be given.
    fn pending_change(&self) -> Option<(Class, String)> {
        let class = self.pending_class();
        (class >= Class::Restart).then(|| {
            let started_from = self.record.instance.as_ref().map(|instance| &instance.started_from);
            let mut changes =
                started_from.map_or_else(Vec::new, |old| change::between_objects(old, &self.record.accepted));
            changes.retain(|change| change.class >= Class::Restart);
            (class, words::changes(&changes))
        })
    }

    fn pending_class(&self) -> Class {
        match &self.record.instance {
            Some(instance) if !Arc::ptr_eq(&instance.started_from, &self.record.accepted) => {
                change::class_between(&instance.started_from, &self.record.accepted)
            }
            _ => Class::None,
        }
    }

    // What is there.

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
        let Attempts { failures: _, next_try, last_error } = &self.record.attempts;
        match (next_try, last_error) {
            (Some(next_try), Some(error)) if *next_try > self.look.now => Some(Next::wait(
                *next_try,
                Sync::Failed,
                format!("{error}; next try in {}", words::wait(next_try.since(self.look.now))),
            )),
            _ => None,
        }
    }

    // What follows.

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

    fn without_instance(&mut self, goal: Goal, ranges: &mut FreeRanges<'_>) -> Next {
        if let Some((id, sighting)) = self.others().filter(|(_, other)| other.is_running()).last() {
            return self.adopt(id, sighting);
        }
        if let Some(next) = self.pausing() {
            return next;
        }
        // A lost database: what stands without a process may have data in it.
        let own_ids = self.record.accepted.spec.security.user_namespace;
        let usable = |sighting: &Sighting| sighting.rootfs && sighting.ids.is_some() == own_ids;
        if self.look.record.is_none()
            && let Some((id, sighting)) = self.others().filter(|(_, other)| usable(other)).last()
        {
            self.take_over(id, sighting, Phase::Stopped);
            return self.down(goal, sighting, Phase::Stopped);
        }
        if let Some(next) = self.clear_leftover() {
            return next;
        }
        match goal {
            Goal::Run => self.create(ranges),
            Goal::Stand => self.stand(),
            Goal::Gone => Next::act(Action::Forget, "nothing of it is left"),
        }
    }

    /// It stands still, and is to.
    fn stand(&mut self) -> Next {
        self.restart_done();
        Next::rest(Sync::Synced, "")
    }

    /// An order to restart holds for one time.
    fn restart_done(&mut self) {
        if self.restart_asked().is_some() {
            self.record.to_mut().override_ = None;
            self.why = Some("the restart that was asked for is done".to_owned());
        }
    }

    fn create(&mut self, ranges: &mut FreeRanges<'_>) -> Next {
        let ids = if self.record.accepted.spec.security.user_namespace {
            match ranges.take() {
                Some(ids) => Some(ids),
                None => {
                    let Settings { id_base, id_ranges, .. } = self.look.settings;
                    let message = format!("no ids are free: all {id_ranges} ranges from {id_base} on are in use");
                    return Next::rest(Sync::Failed, message);
                }
            }
        } else {
            None
        };
        let highest = self.look.seen.last().map_or(0, |(id, _)| id.number);
        self.restart_done();
        let record = self.record.to_mut();
        let number = record.next_instance.max(highest + 1);
        record.next_instance = number + 1;
        record.attempts.next_try = None;
        let reason = if number == 1 && self.changes.is_empty() {
            "created".to_owned()
        } else if self.changes.is_empty() {
            "made anew".to_owned()
        } else {
            words::changes(&self.changes)
        };
        record.instance = Some(InstanceRecord {
            id: InstanceId::new(&record.id, number),
            phase: Phase::Starting,
            ids,
            started_from: record.accepted.clone(),
            generation: record.generation,
            run: 1,
            digest: None,
            actuated: Resources::default(),
            readback: BTreeMap::new(),
            unsupported: Vec::new(),
            deferred: None,
            started_at: None,
        });
        self.start(reason)
    }

    /// The action that belongs to [`Phase::Starting`].
    fn start(&self, reason: impl Into<String>) -> Next {
        let Some(InstanceRecord { id, ids, started_from, run, .. }) = &self.record.instance else {
            return Next::rest(Sync::Pending, "");
        };
        let action = Action::Start { instance: id.clone(), run: *run, object: started_from.clone(), ids: *ids };
        Next::act(action, reason)
    }

    fn take_over(&mut self, id: &InstanceId, sighting: &Sighting, phase: Phase) {
        let record = self.record.to_mut();
        record.next_instance = record.next_instance.max(id.number + 1);
        record.instance = Some(InstanceRecord {
            id: id.clone(),
            phase,
            ids: sighting.ids,
            started_from: record.accepted.clone(),
            generation: record.generation,
            run: 1,
            digest: None,
            actuated: Resources::default(),
            readback: BTreeMap::new(),
            unsupported: Vec::new(),
            deferred: None,
            started_at: sighting.since(),
        });
    }

    /// It runs, and the record does not know: the record is wrong, for the kernel is right.
    fn adopt(&mut self, id: &InstanceId, sighting: &Sighting) -> Next {
        self.take_over(id, sighting, Phase::Running);
        self.write_limits_anew(format!("{id} was found running and is kept"))
    }

    /// Writes the limits where it is not known what was written before.
    fn write_limits_anew(&self, reason: impl Into<String>) -> Next {
        match &self.record.instance {
            Some(instance) => {
                let to = self.record.accepted.spec.resources.clone();
                Next::act(Action::Resize { instance: instance.id.clone(), from: Resources::default(), to }, reason)
            }
            None => Next::rest(Sync::Pending, ""),
        }
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

    fn starting(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        match &sighting.process {
            ProcessSeen::Running { .. } if goal == Goal::Run => {
                self.edit(|instance| {
                    instance.phase = Phase::Running;
                    instance.started_at = sighting.since();
                });
                self.record.to_mut().attempts.next_try = None;
                self.record.to_mut().attempts.last_error = None;
                return self.write_limits_anew("found running: its start was not seen to its end");
            }
            ProcessSeen::Running { .. } => return self.stop(goal, sighting),
            ProcessSeen::Exited(exit) if goal == Goal::Run => return self.ended_by_itself(*exit, sighting, None),
            ProcessSeen::Exited(_) | ProcessSeen::None => {}
        }
        if let Some(next) = self.exorcise(sighting) {
            return next;
        }
        match goal {
            Goal::Gone => self.remove(self.reason_to_stop(goal)),
            Goal::Stand => self.lay_down(Phase::Stopped, sighting, self.reason_to_stop(goal)),
            Goal::Run => self.start_now(),
        }
    }

    fn start_now(&mut self) -> Next {
        if let Some((Class::Recreate, reason)) = self.pending_change() {
            return self.remove(reason);
        }
        if let Some(next) = self.pausing() {
            return next;
        }
        self.restart_done();
        let reason = match &self.record.attempts.last_error {
            _ if !self.changes.is_empty() => words::changes(&self.changes),
            Some(error) => format!("tried again after: {error}"),
            None => "its start was interrupted".to_owned(),
        };
        let outdated =
            self.record.instance.as_ref().is_some_and(|instance| instance.started_from != self.record.accepted);
        if outdated {
            let (accepted, generation) = (self.record.accepted.clone(), self.record.generation);
            self.edit(|instance| {
                instance.started_from = accepted;
                instance.generation = generation;
            });
        }
        self.start(reason)
    }

    fn running(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        match &sighting.process {
            ProcessSeen::Running { .. } => {
                let pending = self.pending_class() >= Class::Restart;
                if goal == Goal::Run && pending && self.record.checked != self.record.generation {
                    return self.check();
                }
                if goal != Goal::Run || self.restart_asked().is_some() || pending {
                    self.stop(goal, sighting)
                } else {
                    self.adjust(sighting)
                }
            }
            ProcessSeen::Exited(exit) => match goal {
                Goal::Run => self.ended_by_itself(*exit, sighting, None),
                Goal::Stand | Goal::Gone => self.settle_down(goal, sighting),
            },
            ProcessSeen::None => match goal {
                Goal::Run => {
                    let unseen = Exit { code: None, signal: None, at: self.look.now, oom_killed: false };
                    let found = match (&sighting.group, sighting.rootfs) {
                        (Some(_), _) => "its process is gone, and nobody saw how it ended",
                        (None, true) => "its process and its cgroup are gone",
                        (None, false) => "its process, its cgroup and its root filesystem are gone",
                    };
                    self.ended_by_itself(unseen, sighting, Some(found))
                }
                Goal::Stand | Goal::Gone => self.settle_down(goal, sighting),
            },
        }
    }

    /// Whether the new revision could be started at all: what runs is not stopped for less.
    fn check(&mut self) -> Next {
        if let Some(Next::Rest { until, sync, message }) = self.pausing() {
            let running = self.record.instance.as_ref().map_or(0, |instance| instance.generation);
            let message = format!("{message} — running last good generation {running}");
            return Next::Rest { until, sync, message };
        }
        let reason = self.pending_change().map_or_else(String::new, |(_, reason)| reason);
        Next::act(Action::Check { instance: self.id(), object: self.record.accepted.clone() }, reason)
    }

    /// Brings the limits of a running process to what is asked, and back to it.
    fn adjust(&mut self, sighting: &Sighting) -> Next {
        let Some(instance) = &self.record.instance else { return Next::rest(Sync::Pending, "") };
        let wanted = &self.record.accepted.spec.resources;
        if let Some(deferred) = &instance.deferred
            && deferred.next_try > self.look.now
        {
            let wait = words::wait(deferred.next_try.since(self.look.now));
            let message = format!("{}, next try in {wait}", deferred.message);
            return Next::wait(deferred.next_try, Sync::Deferred, message);
        }
        let resize = |from: &Resources, reason: String| {
            let action = Action::Resize { instance: instance.id.clone(), from: from.clone(), to: wanted.clone() };
            Next::act(action, reason)
        };
        let next = if let Some(deferred) = &instance.deferred {
            resize(&instance.actuated, format!("tried again: {}", deferred.message))
        } else if instance.actuated != *wanted {
            let reason = if self.changes.is_empty() {
                words::changes(&limit_changes(&self.record.accepted.spec, &instance.actuated))
            } else {
                words::changes(&self.changes)
            };
            resize(&instance.actuated, reason)
        } else if let Some(drift) = drift(instance, sighting) {
            resize(wanted, drift)
        } else {
            return Next::rest(Sync::Synced, "");
        };
        self.pausing().unwrap_or(next)
    }

    fn stop(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        let reason = self.reason_to_stop(goal);
        let now = self.look.now;
        let stop = self.record.accepted.spec.stop.clone();
        self.record.to_mut().attempts = Attempts::default();
        if sighting.ignores_stop() && stop.signal.number() != KILL {
            self.edit(|instance| instance.phase = Phase::Stopping { kill_at: now, signalled: false });
            let reason = format!("{reason}; its PID 1 ignores {}, so it is killed at once", stop.signal);
            return Next::act(Action::Kill { instance: self.id() }, reason);
        }
        let kill_at = now.after(stop.grace);
        self.edit(|instance| instance.phase = Phase::Stopping { kill_at, signalled: false });
        Next::act(Action::Signal { instance: self.id(), signal: stop.signal.number() }, reason)
    }

    fn stopping(&mut self, goal: Goal, sighting: &Sighting, kill_at: Timestamp, signalled: bool) -> Next {
        let now = self.look.now;
        if !sighting.is_running() {
            if sighting.is_haunted() {
                return if kill_at <= now {
                    Next::act(Action::Kill { instance: self.id() }, "processes stayed in its cgroup")
                } else {
                    Next::wait(kill_at.min(now.after(MOMENT)), Sync::Pending, "its last processes are ending")
                };
            }
            return self.settle_down(goal, sighting);
        }
        let reason = self.reason_to_stop(goal);
        if goal == Goal::Run && !signalled && reason.is_empty() {
            self.edit(|instance| instance.phase = Phase::Running);
            return Next::act(Action::Note, "it need not stop after all");
        }
        let signal = self.record.accepted.spec.stop.signal.clone();
        // Within the pause after a kill it is not killed again: it is ending already.
        let killed = signalled && kill_at <= now.after(KILL_PAUSE);
        if sighting.ignores_stop() && signal.number() != KILL && !killed {
            let reason = format!("its PID 1 ignores {signal}, so it is killed at once");
            let next = Next::act(Action::Kill { instance: self.id() }, reason);
            return self.pausing().unwrap_or(next);
        }
        if !signalled {
            let Attempts { failures, next_try: _, last_error } = &self.record.attempts;
            if let Some(error) = last_error
                && *failures >= SIGNALS
            {
                let reason = format!("{signal} could not be sent: {error}");
                return Next::act(Action::Kill { instance: self.id() }, reason);
            }
            let next = Next::act(Action::Signal { instance: self.id(), signal: signal.number() }, reason);
            return self.pausing().unwrap_or(next);
        }
        if kill_at <= now {
            let grace = self.record.accepted.spec.stop.grace;
            let reason = format!("did not end within {grace} of {signal}");
            return Next::act(Action::Kill { instance: self.id() }, reason);
        }
        let message = format!("stopping, killed in {}", words::wait(kill_at.since(now)));
        Next::wait(kill_at, Sync::Pending, message)
    }

    /// After the end of a process that was to end.
    fn settle_down(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        if let ProcessSeen::Exited(exit) = &sighting.process {
            self.record.to_mut().last_exit = Some(*exit);
        }
        let reason = self.reason_to_stop(goal);
        match goal {
            Goal::Gone => self.remove(reason),
            Goal::Run if self.pending_class() == Class::Recreate => self.remove(reason),
            Goal::Run | Goal::Stand => {
                let reason = if reason.is_empty() { "it has ended".to_owned() } else { reason };
                self.lay_down(Phase::Stopped, sighting, reason)
            }
        }
    }

    /// Lets go of a process that has ended.
    fn lay_down(&mut self, phase: Phase, sighting: &Sighting, reason: impl Into<String>) -> Next {
        self.edit(|instance| instance.phase = phase);
        let action = if sighting.is_haunted() {
            Action::Kill { instance: self.id() }
        } else if sighting.is_uncollected() {
            Action::Collect { instance: self.id() }
        } else {
            Action::Note
        };
        Next::act(action, reason)
    }

    fn ended_by_itself(&mut self, exit: Exit, sighting: &Sighting, found: Option<&str>) -> Next {
        let restart = self.record.accepted.spec.restart.clone();
        let again = wants_restart(restart.policy, &exit);
        let now = self.look.now;
        let record = self.record.to_mut();
        record.last_exit = Some(exit);
        let started_at = record.instance.as_ref().and_then(|instance| instance.started_at);
        let ran = started_at.map_or(Span(0), |started| exit.at.since(started));
        let wait = |failures: u32| {
            let doubled = restart.backoff.min.0.saturating_mul(1_u64 << failures.saturating_sub(1).min(32));
            Span(doubled.min(restart.backoff.max.0.max(restart.backoff.min.0)))
        };
        let attempts = &mut record.attempts;
        if ran.0 >= wait(attempts.failures).0.saturating_mul(10) {
            attempts.failures = 0;
        }
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.last_error = None;
        let pause = wait(attempts.failures);
        attempts.next_try = again.then(|| now.after(pause));
        let ordinal = record.restarts + 1;
        let found = found.map_or_else(|| words::exit(&exit), str::to_owned);
        let at_once = self.pending_class() >= Class::Restart || self.restart_asked().is_some();
        let reason = if at_once {
            found
        } else if again {
            format!("{found}, restart {ordinal} in {}", words::wait(pause))
        } else {
            format!("{found}, and its restart policy lets it be")
        };
        self.lay_down(Phase::Exited, sighting, reason)
    }

    /// Kills what stays in the cgroup of a process that has ended, now and then.
    fn exorcise(&self, sighting: &Sighting) -> Option<Next> {
        if !sighting.is_haunted() {
            return None;
        }
        let now = self.look.now;
        let next = match self.record.attempts.next_try {
            Some(next_try) if next_try > now => {
                Next::wait(next_try.min(now.after(MOMENT)), Sync::Pending, "its last processes are ending")
            }
            _ => Next::act(Action::Kill { instance: self.id() }, "processes stayed in its cgroup"),
        };
        Some(next)
    }

    /// It has no process, and is known to have none.
    fn down(&mut self, goal: Goal, sighting: &Sighting, phase: Phase) -> Next {
        if sighting.is_running() {
            self.edit(|instance| {
                instance.phase = Phase::Running;
                instance.started_at = sighting.since();
            });
            return self.write_limits_anew("found running");
        }
        if let Some(next) = self.exorcise(sighting) {
            return next;
        }
        if sighting.is_uncollected() {
            let next = Next::act(Action::Collect { instance: self.id() }, "it has ended");
            return self.pausing().unwrap_or(next);
        }
        match goal {
            Goal::Gone => self.remove(self.reason_to_stop(goal)),
            Goal::Stand if phase == Phase::Exited => self.lay_down(Phase::Stopped, sighting, self.reason_to_stop(goal)),
            Goal::Stand => self.stand(),
            Goal::Run => self.start_again(phase),
        }
    }

    fn start_again(&mut self, phase: Phase) -> Next {
        let pending = self.pending_change();
        if let Some((Class::Recreate, reason)) = pending {
            return self.remove(reason);
        }
        let asked = self.restart_asked();
        // `plim start` of something that had ended by itself.
        let called = self.record.override_.as_ref().is_some_and(|word| {
            word.state == OverrideState::Running
                && self.record.last_exit.as_ref().is_none_or(|exit| exit.at <= word.since)
        });
        let mut by_policy = false;
        let reason = if let Some((_, reason)) = pending {
            reason
        } else if let Some(reason) = asked {
            reason
        } else if phase == Phase::Stopped {
            "started again".to_owned()
        } else if called {
            "start asked for".to_owned()
        } else {
            let ended = words::last_exit(&self.record);
            let exit = self.record.last_exit;
            if !exit.as_ref().is_none_or(|exit| wants_restart(self.record.accepted.spec.restart.policy, exit)) {
                return match exit {
                    Some(exit) if !exit.is_success() => {
                        Next::rest(Sync::Failed, format!("{ended}, and its restart policy lets it be"))
                    }
                    _ => Next::rest(Sync::Synced, ""),
                };
            }
            let ordinal = self.record.restarts + 1;
            if let Some(next_try) = self.record.attempts.next_try
                && next_try > self.look.now
            {
                let wait = words::wait(next_try.since(self.look.now));
                return Next::wait(next_try, Sync::Failed, format!("{ended}, restart {ordinal} in {wait}"));
            }
            by_policy = true;
            format!("{ended}, restart {ordinal}")
        };
        if let Some(next) = self.pausing() {
            return next;
        }
        self.restart_done();
        let record = self.record.to_mut();
        record.attempts.next_try = None;
        record.restarts += u64::from(by_policy);
        let (accepted, generation) = (record.accepted.clone(), record.generation);
        self.edit(|instance| {
            instance.phase = Phase::Starting;
            instance.started_from = accepted;
            instance.generation = generation;
            instance.run += 1;
            instance.actuated = Resources::default();
            instance.readback = BTreeMap::new();
            instance.unsupported = Vec::new();
            instance.deferred = None;
            instance.started_at = None;
        });
        self.start(reason)
    }

    fn remove(&mut self, reason: impl Into<String>) -> Next {
        self.record.to_mut().attempts = Attempts::default();
        self.edit(|instance| instance.phase = Phase::Removing);
        Next::act(Action::Remove { instance: self.id() }, reason)
    }

    fn removing(&mut self, goal: Goal, sighting: &Sighting, ranges: &mut FreeRanges<'_>) -> Next {
        if *sighting == NOTHING_SEEN {
            self.record.to_mut().instance = None;
            return self.without_instance(goal, ranges);
        }
        let next = Next::act(Action::Remove { instance: self.id() }, "its removal was not seen to its end");
        self.pausing().unwrap_or(next)
    }

    // What is said about it.

    fn conclude(mut self, next: Next) -> Decision {
        let (action, reason, until, sync, message) = match next {
            Next::Do { action, reason } => (Some(action), reason.clone(), None, Sync::Pending, reason),
            Next::Rest { until, sync, message } => (None, String::new(), until, sync, message),
        };
        let finding = self.finding(sync, message);
        let pending = self.pending_class();
        let wake = [until, self.override_ends(), self.grace_ends()].into_iter().flatten().min();
        let changed = self.look.record != Some(&*self.record);
        let changes = std::mem::take(&mut self.changes);
        let step = match (action, changed) {
            (None, false) => None,
            (None, true) => Some((Action::Note, self.why.take().unwrap_or_else(|| "it stands still".to_owned()))),
            (Some(action), _) => Some((action, reason)),
        };
        let step = step.map(|(action, reason)| Step {
            object: self.look.id.clone(),
            class: step_class(&action, &changes, pending, self.look.record),
            reason,
            changes,
            record: changed.then(|| self.record.into_owned()),
            action,
        });
        Decision { step, wake, finding: Some(finding) }
    }

    fn override_ends(&self) -> Option<Timestamp> {
        self.record.override_.as_ref().and_then(|word| word.until)
    }

    fn grace_ends(&self) -> Option<Timestamp> {
        let waits = matches!(self.look.presence, Presence::Absent) && !self.look.settings.stop_all;
        self.deleted_at().filter(|at| waits && *at > self.look.now)
    }

    fn finding(&self, sync: Sync, message: String) -> Finding {
        if self.look.settings.stop_all {
            return Finding { sync: Sync::Deleting, message };
        }
        match &self.look.presence {
            Presence::Invalid(text) => Finding { sync: Sync::Invalid, message: text.to_string() },
            Presence::Unavailable(reason) => Finding { sync: Sync::Unavailable, message: reason.to_string() },
            Presence::Held(reason) => Finding { sync: Sync::Held, message: held(reason) },
            Presence::Absent => {
                let message = match self.grace_ends() {
                    Some(at) => format!("file removed, deleting in {}", words::wait(at.since(self.look.now))),
                    None => message,
                };
                Finding { sync: Sync::Deleting, message }
            }
            Presence::Wanted(_) => match &self.record.override_ {
                Some(word) if sync == Sync::Synced => {
                    let state = match word.state {
                        OverrideState::Stopped => "stopped",
                        OverrideState::Running | OverrideState::Restart => "started",
                    };
                    let until = word.until.map_or_else(String::new, |until| format!(", until {until}"));
                    let message = format!("{state} by uid {}{}{until}", word.by, because(word.reason.as_deref()));
                    Finding { sync: Sync::Overridden, message }
                }
                _ => Finding { sync, message },
            },
        }
    }
}

/// SIGKILL, which nothing can ignore (signal(7)).
const KILL: i32 = 9;

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

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

fn wants_restart(policy: RestartPolicy, exit: &Exit) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => !exit.is_success(),
        RestartPolicy::Never => false,
    }
}

/// The limits that are to change, as a change of the manifest would be told.
fn limit_changes(wanted: &crate::spec::Container, actuated: &Resources) -> Vec<FieldChange> {
    let mut before = wanted.clone();
    before.resources = actuated.clone();
    change::between(&before, wanted)
}

/// A control file that says something else than it said when we had written it.
fn drift(instance: &InstanceRecord, sighting: &Sighting) -> Option<String> {
    let found = &sighting.group.as_ref()?.limits;
    if *found == instance.readback {
        return None;
    }
    let (file, expected, found) = instance.readback.iter().find_map(|(file, expected)| {
        let found = found.get(file)?;
        (found != expected).then_some((file, expected, found))
    })?;
    Some(format!("{file} is {found:?} where {expected:?} had been written: set back"))
}

fn step_class(action: &Action, changes: &[FieldChange], pending: Class, old: Option<&Record>) -> Class {
    if !changes.is_empty() {
        return change::class_of(changes);
    }
    match action {
        Action::Note | Action::Forget => Class::None,
        Action::Resize { .. } => Class::Live,
        Action::Start { instance, .. } => {
            let standing = old.and_then(|record| record.instance.as_ref()).map(|old| &old.id);
            if standing == Some(instance) { Class::Restart } else { Class::Recreate }
        }
        Action::Check { .. } | Action::Signal { .. } | Action::Kill { .. } | Action::Collect { .. } => {
            pending.max(Class::Restart)
        }
        Action::Remove { .. } => Class::Recreate,
    }
}
