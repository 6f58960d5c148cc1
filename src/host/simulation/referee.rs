//! Judges from what stands in the world and what was asked for; knows nothing of records.

use super::agent::{File, GRACE, RETENTION, Shown};
use super::world::{Life, Process, Temper, World, render};
use crate::plan::{Action, HealthSeen, OverrideState, Record, SourceState, Wanted, Wish};
use crate::spec::{
    Bytes, DeletionPolicy, DependencyCondition, DesiredState, InstanceId, Object, ObjectId, RestartPolicy, Span,
    Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A person's order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub state: OverrideState,
    pub since: Timestamp,
    pub until: Option<Timestamp>,
}

#[derive(Default)]
pub(super) struct Referee {
    /// The last usable text of each object that the agent was shown.
    last_good: BTreeMap<ObjectId, Arc<Wanted>>,
    /// Since when the agent has been shown complete listings without it.
    absent_since: BTreeMap<ObjectId, Timestamp>,
    /// What must not be deleted now, because too much is absent.
    guarded: bool,
    complete: bool,
    approved: BTreeSet<ObjectId>,
    pub orders: BTreeMap<ObjectId, Asked>,
    /// About these nothing is to be done, until an instant or for good.
    pub suspended: BTreeMap<ObjectId, Option<Timestamp>>,
    /// Memory that a person has given, until an instant or for good.
    pub limits: BTreeMap<ObjectId, (Bytes, Option<Timestamp>)>,
    leaving: bool,
    /// Instances whose removal had once been asked for: what is half gone is not kept.
    pub doomed: BTreeSet<InstanceId>,
    /// When the database was lost last.
    pub forgot_at: Option<Timestamp>,
    now: Timestamp0,
}

/// The referee's clock.
type Timestamp0 = Option<Timestamp>;

impl Referee {
    /// What the agent is shown in a round, and has written down.
    pub fn hears(&mut self, shown: &Shown, world: &World, leaving: bool, approved: &BTreeSet<ObjectId>) {
        let Shown { desired, in_flight } = shown;
        let now = world.passed();
        self.now = Some(now);
        self.leaving = leaving;
        self.approved.clone_from(approved);
        for (id, wish) in &desired.objects {
            if let (Wish::Present(wanted), false) = (wish, in_flight.contains(id)) {
                self.last_good.insert(id.clone(), wanted.clone());
            }
        }
        let complete = desired.sources.values().all(|state| *state == SourceState::Complete);
        let held = |id: &ObjectId| desired.held_files.contains_key(&("dir".to_owned(), format!("{}.yaml", id.name)));
        let known: Vec<ObjectId> = self.last_good.keys().cloned().collect();
        for id in known {
            if in_flight.contains(&id) {
                // It is busy; what is said of it now, it hears in a later round, if that is said still.
            } else if desired.objects.contains_key(&id) || held(&id) {
                self.absent_since.remove(&id);
            } else if !complete {
                // A deletion that was allowed may be under way and go on; all else gets its grace again.
                if self.absent_since.get(&id).is_some_and(|since| since.after(self.grace(&id)) > now) {
                    self.absent_since.remove(&id);
                }
            } else {
                self.absent_since.entry(id).or_insert(now);
            }
        }
        self.complete = complete;
        self.guarded = complete && desired.objects.is_empty() && desired.held_files.is_empty();
    }

    fn good(&self, id: &ObjectId) -> Option<&Object> {
        self.last_good.get(id).map(|wanted| &*wanted.object)
    }

    fn order(&self, id: &ObjectId) -> Option<&Asked> {
        let now = self.now?;
        self.orders.get(id).filter(|order| order.until.is_none_or(|until| until > now))
    }

    /// May the object's process end, because its text is gone?
    fn may_end(&self, world: &World, id: &ObjectId) -> bool {
        let policy = self.good(id).map_or(DeletionPolicy::Delete, |good| good.spec.deletion_policy);
        let consent = self.leaving || self.approved.contains(id);
        let allowed = match policy {
            DeletionPolicy::Delete | DeletionPolicy::Stop => true,
            DeletionPolicy::Orphan | DeletionPolicy::Confirm => consent,
        };
        allowed && self.is_gone(world, id, self.grace(id))
    }

    /// May the object go altogether?
    fn may_vanish(&self, world: &World, id: &ObjectId) -> bool {
        let policy = self.good(id).map_or(DeletionPolicy::Delete, |good| good.spec.deletion_policy);
        let consent = self.leaving || self.approved.contains(id);
        let wait = match policy {
            _ if consent => Span(0),
            DeletionPolicy::Delete => Span(GRACE.0 + RETENTION.0),
            DeletionPolicy::Stop | DeletionPolicy::Orphan | DeletionPolicy::Confirm => return false,
        };
        self.is_gone(world, id, wait)
    }

    /// How long a text has to be gone: whoever has agreed to a removal waits for nothing.
    fn grace(&self, id: &ObjectId) -> Span {
        if self.approved.contains(id) { Span(0) } else { GRACE }
    }

    fn is_gone(&self, world: &World, id: &ObjectId, wait: Span) -> bool {
        let absent = self.absent_since.get(id).is_some_and(|since| since.after(wait) <= world.passed());
        // An empty listing needs consent as long as there is more than one thing to lose.
        let objects: BTreeSet<ObjectId> = world.lives.keys().map(InstanceId::object).collect();
        // What was let go before and only stands there yet is nothing to lose.
        let let_go = |other: &ObjectId| {
            let orphan = |good: &Object| good.spec.deletion_policy == DeletionPolicy::Orphan;
            let ended = world.lives_of(other).all(|(_, life)| life.process.is_none());
            self.absent_since.get(other).is_some_and(|since| since.after(GRACE) <= world.passed())
                && (ended || self.good(other).is_some_and(orphan))
        };
        let alone = objects.iter().all(|other| other == id || let_go(other));
        self.leaving || (absent && self.complete && (!self.guarded || alone || self.approved.contains(id)))
    }

    /// May the process of this life be stopped?
    fn may_stop(&self, world: &World, instance: &InstanceId, life: &Life) -> bool {
        let id = instance.object();
        let Some(process) = &life.process else { return true };
        if process.condemned || process.given_up || life.origin_unknown || self.may_end(world, &id) {
            return true;
        }
        let Some(good) = self.good(&id) else { return false };
        if needs_new_process(&process.started_from, good) {
            return true;
        }
        match self.order(&id) {
            Some(Asked { state: OverrideState::Stopped, .. }) => true,
            Some(Asked { state: OverrideState::Restart, since, .. }) if process.since <= *since => true,
            Some(Asked { state: OverrideState::Running, .. }) => false,
            Some(Asked { state: OverrideState::Restart, .. }) | None => {
                good.spec.desired_state == DesiredState::Stopped
            }
        }
    }

    /// Is a step justified by what is known when it is planned?
    pub fn justifies(&self, world: &World, object: &ObjectId, action: &Action) -> bool {
        let holds = |until: &Option<Timestamp>| until.is_none_or(|until| until > world.passed());
        if self.suspended.get(object).is_some_and(holds) && !self.leaving {
            return *action == Action::Note;
        }
        match action {
            Action::Note | Action::Forget | Action::Check { .. } | Action::Resize { .. } | Action::Collect { .. } => {
                true
            }
            Action::Start { object, .. } => {
                let runs = |other: &ObjectId| world.lives_of(other).any(|(_, life)| life.process.is_some());
                let healthy = |other: &ObjectId| {
                    let ready = |process: &Process| process.health == HealthSeen::Ready;
                    world.lives_of(other).any(|(_, life)| life.process.as_ref().is_some_and(ready))
                };
                object.spec.depends_on.iter().all(|dependency| {
                    let other = dependency.object(&object.id.namespace);
                    match dependency.condition {
                        DependencyCondition::Healthy => healthy(&other),
                        DependencyCondition::Running | DependencyCondition::Completed => runs(&other),
                    }
                })
            }
            Action::Signal { instance, .. } | Action::Kill { instance } => {
                world.lives.get(instance).is_none_or(|life| self.may_stop(world, instance, life))
            }
            Action::Remove { instance } => world.lives.get(instance).is_none_or(|life| {
                let id = instance.object();
                let newest = world.lives_of(&id).all(|(other, _)| other.number <= instance.number);
                let replaced = match (&life.rootfs, self.good(&id)) {
                    (Some(from), Some(good)) => life.origin_unknown || needs_new_rootfs(from, good),
                    _ => true,
                };
                let gone = self.may_vanish(world, &id);
                // Without a memory there is no telling since when a remnant is not asked for.
                let remnant = self.forgot_at.is_some() && self.complete && self.absent_since.contains_key(&id);
                life.process.is_none()
                    && (gone || replaced || !newest || !life.was_started || remnant || self.doomed.contains(instance))
                    || life.process.is_some()
                        && (gone && process_condemned(life) || remnant && self.approved.contains(&id))
            }),
        }
    }

    /// An action is about to take effect.
    pub fn judge(&self, world: &World, object: &ObjectId, action: &Action, justified_when_planned: bool) {
        assert!(
            justified_when_planned || self.justifies(world, object, action),
            "at {} nothing asks for this: {action:?}; orders {:?}; instances {:?}",
            world.now.0,
            self.orders,
            world.lives.iter().map(|(id, life)| (id, &life.process)).collect::<Vec<_>>()
        );
        match action {
            Action::Start { instance, ids, .. } => {
                let id = instance.object();
                for (other, life) in world.lives_of(&id) {
                    assert!(other == instance, "{instance} is started beside {other}: {life:?}");
                }
                for (other, life) in &world.lives {
                    let apart = match (life.ids, ids) {
                        (Some(theirs), Some(ours)) => theirs.base != ours.base,
                        _ => true,
                    };
                    assert!(other == instance || apart, "{instance} and {other} have the same ids");
                }
            }
            Action::Kill { instance } => {
                if let Some(process) = world.lives.get(instance).and_then(|life| life.process.as_ref()) {
                    let patient = process.signalled_at.is_some_and(|at| at.after(Span::from_secs(7)) <= world.passed());
                    let hopeless = process.temper == Temper::Deaf;
                    assert!(
                        patient || hopeless || self.leaving || default_grace(process, world),
                        "{instance} is killed without its grace"
                    );
                }
            }
            _ => {}
        }
    }

    /// True at every moment.
    pub fn look(&self, world: &World) {
        let mut running = BTreeSet::new();
        for (instance, life) in &world.lives {
            if life.process.is_some() {
                assert!(running.insert(instance.object()), "two instances of {} run", instance.object());
            }
        }
    }

    /// Nothing moves any more: is it as was asked?
    pub fn judge_rest(
        &self,
        world: &World,
        files: &BTreeMap<ObjectId, File>,
        records: &BTreeMap<ObjectId, Record>,
        leaving: bool,
    ) {
        let objects: BTreeSet<ObjectId> =
            files.keys().cloned().chain(world.lives.keys().map(InstanceId::object)).collect();
        let broken = files.values().any(|file| matches!(file, File::Broken));
        for id in &objects {
            let lives: Vec<&Life> = world.lives_of(id).map(|(_, life)| life).collect();
            let process = lives.iter().find_map(|life| life.process.as_ref());
            let good = match (files.get(id), leaving) {
                (Some(File::Valid(wanted)), false) => Some(&*wanted.object),
                // What the last good text said, if there was one.
                (Some(File::Broken), false) if records.contains_key(id) => self.good(id),
                (Some(File::Broken), false) => continue,
                // Without a memory nobody knows what a broken file speaks of: maybe of this.
                (None, false) if self.forgot_at.is_some() && broken => continue,
                (None, _) | (_, true) => None,
            };
            let Some(good) = good else {
                assert!(lives.is_empty(), "something is left of {id}: {lives:?}");
                continue;
            };
            assert!(lives.len() <= 1, "several instances of {id}");
            let stopped = match self.order(id).map(|order| order.state) {
                Some(OverrideState::Stopped) => true,
                Some(OverrideState::Running) => false,
                Some(OverrideState::Restart) | None => good.spec.desired_state == DesiredState::Stopped,
            };
            if stopped {
                assert!(process.is_none(), "{id} runs and should not");
                continue;
            }
            let runs = |other: &ObjectId| world.lives_of(other).any(|(_, life)| life.process.is_some());
            let waits = good.spec.depends_on.iter().any(|other| !runs(&other.object(&id.namespace)));
            let Some(process) = process else {
                if waits {
                    continue;
                }
                let ended = lives.iter().find_map(|life| life.ended_alone);
                let may_rest = match good.spec.restart.policy {
                    RestartPolicy::Always => false,
                    // What ended and was taken away behind our back has left no trace to judge from.
                    RestartPolicy::OnFailure => lives.is_empty() || ended == Some(Some(0)),
                    RestartPolicy::Never => lives.is_empty() || ended.is_some(),
                };
                assert!(may_rest, "{id} should run: {lives:?}");
                continue;
            };
            assert!(!needs_new_process(&process.started_from, good), "{id} runs an old revision");
            let group = lives[0].group.clone().unwrap_or_default();
            let mut wanted = good.spec.resources.clone();
            if let Some((limit, _)) =
                self.limits.get(id).filter(|(_, until)| until.is_none_or(|at| at > world.passed()))
            {
                wanted.memory.limit = Some(*limit);
            }
            let wanted = render(&wanted);
            assert!(group == wanted, "{id} has {group:?} and not {wanted:?}");
        }
        for id in records.keys() {
            assert!(files.contains_key(id) && !leaving, "{id} is remembered and nothing asks for it");
        }
    }
}

fn process_condemned(life: &Life) -> bool {
    life.process.as_ref().is_some_and(|process| process.condemned)
}

/// Files made by hand in a scenario have the default grace.
fn default_grace(process: &Process, world: &World) -> bool {
    let grace = process.started_from.spec.stop.grace;
    process.signalled_at.is_some_and(|at| at.after(grace) <= world.passed())
}

fn needs_new_process(old: &Object, new: &Object) -> bool {
    old.spec.command != new.spec.command || needs_new_rootfs(old, new)
}

fn needs_new_rootfs(old: &Object, new: &Object) -> bool {
    old.spec.image != new.spec.image || old.spec.security.user_namespace != new.spec.security.user_namespace
}
