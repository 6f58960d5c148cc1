//! What is said about an object: the step that follows, and the finding.

use super::super::Limits;
use super::*;

impl<'a> Case<'a> {
    pub(super) fn conclude(mut self, next: Next) -> Decision {
        let (action, reason, until, sync, message) = match next {
            Next::Do { action, reason } => (Some(action), reason.clone(), None, Sync::Pending, reason),
            Next::Rest { until, sync, message } => (None, String::new(), until, sync, message),
        };
        let finding = self.finding(sync, message);
        let pending = self.pending_class();
        let wake = [until, self.words_end(), self.grace_ends()].into_iter().flatten().min();
        let changed = match &self.record {
            Cow::Borrowed(_) => false,
            Cow::Owned(record) => self.look.record != Some(record),
        };
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

    /// When the first of the words that hold for a time ends.
    fn words_end(&self) -> Option<Timestamp> {
        let Record { override_, suspended, limits, .. } = &*self.record;
        let said = override_.as_ref().map(|said| &said.word);
        let set = limits.as_ref().map(|set| &set.word);
        [said, set, suspended.as_ref()].into_iter().flatten().filter_map(|word| word.until).min()
    }

    /// When an absent object gets further on its way, if that only takes time.
    pub(super) fn grace_ends(&self) -> Option<Timestamp> {
        let waits = matches!(self.look.presence, Presence::Absent) && !self.look.settings.stop_all;
        let grace = self.removal_at().filter(|at| *at > self.look.now);
        grace.or_else(|| self.kept_until()).filter(|_| waits)
    }

    pub(super) fn finding(&self, sync: Sync, message: String) -> Finding {
        if self.look.settings.stop_all {
            return Finding { sync: Sync::Deleting, message };
        }
        match &self.look.presence {
            Presence::Invalid(text) => Finding { sync: Sync::Invalid, message: text.to_string() },
            Presence::Unavailable(reason) => Finding { sync: Sync::Unavailable, message: reason.to_string() },
            Presence::Held(reason) => Finding { sync: Sync::Held, message: held(reason) },
            Presence::Absent if sync == Sync::Suspended => {
                Finding { sync, message: format!("file removed, and nothing is done about it: {message}") }
            }
            Presence::Absent => self.absent(sync, message),
            Presence::Wanted(_) => match self.said() {
                Some(message) if sync == Sync::Synced => Finding { sync: Sync::Overridden, message },
                _ => Finding { sync, message },
            },
        }
    }
}

impl Case<'_> {
    /// What persons have ordered about it that its manifest does not say.
    fn said(&self) -> Option<String> {
        let state = self.record.override_.as_ref().map(|Override { state, word }| match state {
            OverrideState::Stopped => format!("stopped {word}"),
            OverrideState::Running | OverrideState::Restart => format!("started {word}"),
        });
        let limits = self.record.limits.as_ref().map(|Limits { resources: _, word }| {
            let mut spec = self.record.accepted.spec.clone();
            spec.resources = self.record.wanted_resources().into_owned();
            format!("{} set {word}", words::changes(&change::between(&self.record.accepted.spec, &spec)))
        });
        let all: Vec<String> = [state, limits].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn absent(&self, sync: Sync, message: String) -> Finding {
        let now = self.look.now;
        let policy = self.record.accepted.spec.deletion_policy;
        if let Some(at) = self.removal_at().filter(|at| *at > now) {
            let what = match policy {
                DeletionPolicy::Delete | DeletionPolicy::Confirm => "deleting",
                DeletionPolicy::Stop => "stopping",
                DeletionPolicy::Orphan => "letting go of it",
            };
            let message = format!("file removed, {what} in {}", words::wait(at.since(now)));
            return Finding { sync: Sync::Deleting, message };
        }
        if self.look.approved || !message.is_empty() {
            return Finding { sync: Sync::Deleting, message };
        }
        match (policy, self.kept_until()) {
            (DeletionPolicy::Delete, Some(at)) => {
                let wait = words::wait(at.since(now));
                let message = format!("file removed; what is left of it is kept for {wait}, or until plim approve");
                Finding { sync: Sync::Deleting, message }
            }
            (DeletionPolicy::Stop, _) => {
                Finding { sync: Sync::Held, message: held("file removed, stopped as its deletionPolicy says") }
            }
            (DeletionPolicy::Orphan, _) => {
                Finding { sync: Sync::Held, message: held("file removed, left alone as its deletionPolicy says") }
            }
            (DeletionPolicy::Delete | DeletionPolicy::Confirm, _) => Finding { sync, message },
        }
    }
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
