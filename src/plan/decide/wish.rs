//! What is asked for: the text as far as it may be believed, a person's word, and what both come to.

use super::*;
use crate::spec::{DISABLED, RECONCILE};

impl<'a> Case<'a> {
    /// Takes over what the sources say, as far as it may be believed.
    pub(super) fn hear_the_wish(&mut self) {
        if self.look.settings.stop_all || self.look.settings.halt {
            return;
        }
        match self.look.presence.clone() {
            Presence::Wanted(wanted) => {
                self.appear("back in the manifests");
                self.accept(wanted);
            }
            Presence::Invalid(_) => self.appear("its text is back, though it cannot be used"),
            Presence::Unavailable(_) if !self.is_half_gone() && !self.is_orphaned() => {
                self.appear("its source cannot be read")
            }
            Presence::Absent | Presence::Held(_) if self.record.absent_since.is_none() => {
                self.record.to_mut().absent_since = Some(self.look.now);
                self.why = Some("file removed".to_owned());
            }
            Presence::Unavailable(_) | Presence::Absent | Presence::Held(_) => {}
        }
    }

    pub(super) fn appear(&mut self, why: &str) {
        if self.record.absent_since.is_some() {
            self.record.to_mut().absent_since = None;
            self.why = Some(why.to_owned());
        }
    }

    pub(super) fn accept(&mut self, wanted: &Wanted) {
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
        if self.record.accepted != *object {
            self.changes = change::between_objects(&self.record.accepted, object);
            self.why = Some(words::changes(&self.changes));
            let record = self.record.to_mut();
            record.accepted = Arc::clone(object);
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

    pub(super) fn end_the_override(&mut self) {
        if self.record.override_.as_ref().is_some_and(|said| said.word.is_over(self.look.now)) {
            self.record.to_mut().override_ = None;
            self.why = Some("the time of its override is over".to_owned());
        }
        // A start that was under way when the order came has fulfilled it.
        let started_at = self.record.instance.as_ref().and_then(|instance| instance.started_at);
        if self.record.override_.as_ref().is_some_and(|said| started_at.is_some_and(|at| at > said.word.since)) {
            self.restart_done();
        }
    }

    /// Words that hold until an instant, when that is over.
    pub(super) fn end_what_has_its_time(&mut self) {
        let now = self.look.now;
        if self.record.suspended.as_ref().is_some_and(|word| word.is_over(now)) {
            self.record.to_mut().suspended = None;
            self.why = Some("the time that it was suspended for is over".to_owned());
        }
        if self.record.limits.as_ref().is_some_and(|set| set.word.is_over(now)) {
            self.record.to_mut().limits = None;
            self.why = Some("the time of the limits that were set by hand is over".to_owned());
        }
    }

    /// What there is to say where nothing is done, if that is so.
    pub(super) fn suspended(&self) -> Option<Next> {
        let disabled = || {
            let word = self.record.accepted.annotations.get(RECONCILE)?;
            (word == DISABLED).then(|| format!("{RECONCILE} is {DISABLED}"))
        };
        let by_word = self.record.suspended.as_ref().map(|word| format!("suspended {word}"));
        let mut message =
            by_word.or_else(disabled).filter(|_| !self.look.settings.stop_all && !self.look.settings.halt)?;
        if let Some((class, change)) = self.pending_change() {
            message.push_str(&format!("; what waits: {class}, {change}"));
        }
        Some(Next::rest(Sync::Suspended, message))
    }

    /// Its deletion had been allowed to begin, and has.
    pub(super) fn is_half_gone(&self) -> bool {
        self.has_had_its_grace() && self.is_ended_by_us()
    }

    /// It has no process, or is losing it, because we asked for that.
    pub(super) fn is_ended_by_us(&self) -> bool {
        match self.record.instance.as_ref().map(|instance| instance.phase) {
            None | Some(Phase::Stopping { signalled: true, .. } | Phase::Stopped | Phase::Removing) => true,
            Some(Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopping { signalled: false, .. }) => false,
        }
    }

    fn has_had_its_grace(&self) -> bool {
        self.removal_at().is_some_and(|at| at <= self.look.now)
    }

    /// Where an absent object is to get to.
    fn after_its_grace(&self) -> Goal {
        match self.record.accepted.spec.deletion_policy {
            _ if self.look.approved || self.record.instance.is_none() => Goal::Gone,
            DeletionPolicy::Delete if self.kept_until().is_none() => Goal::Gone,
            DeletionPolicy::Delete | DeletionPolicy::Stop => Goal::Stand,
            // Neither gets here without consent.
            DeletionPolicy::Orphan | DeletionPolicy::Confirm => Goal::Gone,
        }
    }

    /// Until when what is left of it is kept, if a time was set for that and is not over.
    pub(super) fn kept_until(&self) -> Option<Timestamp> {
        let until = self.removal_at()?.after(self.look.settings.retention);
        let keeps = self.record.accepted.spec.deletion_policy == DeletionPolicy::Delete && !self.look.approved;
        (keeps && self.record.instance.is_some() && until > self.look.now).then_some(until)
    }

    /// Its text is gone, and nobody looks after it any more.
    pub(super) fn is_orphaned(&self) -> bool {
        let without_text = match self.look.presence {
            Presence::Wanted(_) | Presence::Invalid(_) => false,
            Presence::Absent => !self.look.approved,
            Presence::Unavailable(_) | Presence::Held(_) => true,
        };
        let orphan = self.record.accepted.spec.deletion_policy == DeletionPolicy::Orphan;
        orphan && without_text && self.has_had_its_grace() && !self.look.settings.stop_all && !self.look.settings.halt
    }

    /// As it is, whatever becomes of it.
    pub(super) fn leave(&self) -> Next {
        if self.look.seen.is_empty() {
            return Next::act(Action::Forget, "nothing of it is left");
        }
        Next::rest(Sync::Held, "")
    }

    pub(super) fn removal_at(&self) -> Option<Timestamp> {
        self.record.removal_at(self.look.settings, self.look.approved)
    }

    pub(super) fn goal(&self) -> Goal {
        if self.look.settings.stop_all {
            return Goal::Gone;
        }
        if self.look.settings.halt {
            return Goal::Stand;
        }
        match self.look.presence {
            Presence::Absent if self.has_had_its_grace() => self.after_its_grace(),
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
    pub(super) fn reason_to_stop(&self, goal: Goal) -> String {
        match goal {
            Goal::Gone if self.look.settings.stop_all => "the agent leaves and takes it along".to_owned(),
            Goal::Gone => "file removed".to_owned(),
            Goal::Stand if self.look.settings.halt => "the host goes down".to_owned(),
            Goal::Stand if matches!(self.look.presence, Presence::Absent) => "file removed".to_owned(),
            Goal::Stand => match &self.record.override_ {
                Some(Override { state: OverrideState::Stopped, word }) => format!("stopped {word}"),
                _ if self.record.accepted.spec.desired_state == DesiredState::Stopped => {
                    "desiredState stopped".to_owned()
                }
                _ => "its deletion had begun".to_owned(),
            },
            Goal::Run => match self.restart_asked() {
                Some(reason) => reason,
                None => match self.pending_change() {
                    Some((_, reason)) => reason,
                    None => self.unhealthy().unwrap_or_default().to_owned(),
                },
            },
        }
    }

    /// Why its present or last run was given up, if it was.
    pub(super) fn unhealthy(&self) -> Option<&str> {
        self.record.instance.as_ref()?.unhealthy.as_ref().map(|given_up| &*given_up.reason)
    }

    pub(super) fn restart_asked(&self) -> Option<String> {
        let Override { state, word } = self.record.override_.as_ref()?;
        (*state == OverrideState::Restart).then(|| format!("restart asked for {word}"))
    }

    /// What of the accepted revision needs more than the running process can be given.
    pub(super) fn pending_change(&self) -> Option<(Class, String)> {
        let class = self.pending_class();
        (class >= Class::Restart).then(|| {
            let started_from = self.record.instance.as_ref().map(|instance| &instance.started_from);
            let mut changes =
                started_from.map_or_else(Vec::new, |old| change::between_objects(old, &self.record.accepted));
            changes.retain(|change| change.class >= Class::Restart);
            (class, words::changes(&changes))
        })
    }

    pub(super) fn pending_class(&self) -> Class {
        match &self.record.instance {
            Some(instance) if !Arc::ptr_eq(&instance.started_from, &self.record.accepted) => {
                change::class_between(&instance.started_from, &self.record.accepted)
            }
            _ => Class::None,
        }
    }
}
