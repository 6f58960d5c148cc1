//! From a plan to what came of it: intents are written down, steps handed to workers, ends taken in.

use super::super::history::Report;
use super::super::inbox::{Done, Message};
use super::super::{Change, EventType};
use super::{Decision, Driver, SHORTEST, now};
use crate::host::Missing;
use crate::plan::{Action, Failure, Outcome, Plan, Record, Settled, Step, Wish};
use crate::spec::ObjectId;
use crate::spec::change::Class;
use crate::sys::may_die;
use std::collections::BTreeSet;
use std::time::Instant;

impl Driver {
    /// Writes down what is intended, then begins it. True when the next round may follow at once.
    pub(super) fn execute(&mut self, plan: Plan) -> bool {
        self.note_findings(plan.findings);
        self.wake_at = plan.wake_at;
        self.wake_by = plan.wake_at.map(|at| Instant::now() + at.since(now()).duration().max(SHORTEST));
        if self.retry_at.is_some_and(|at| at > Instant::now()) && !self.settings.stop_all {
            return false;
        }
        self.retry_at = None;
        let intents: Vec<Record> = plan.steps.iter().filter_map(|step| step.record.clone()).collect();
        if !intents.is_empty() || self.unsaved {
            // After a failure what is in memory may be newer than what is stored, of any object.
            let older = self.records.values().filter(|record| intents.iter().all(|intent| intent.id != record.id));
            let behind: Vec<Record> = if self.unsaved { older.cloned().collect() } else { Vec::new() };
            match self.store.put(&[behind, intents.clone()].concat()) {
                Ok(()) => {
                    self.unsaved = false;
                    may_die("intended");
                }
                // Whoever leaves and takes everything along needs no memory of it.
                Err(error) if self.settings.stop_all => self.store_failed(&error),
                Err(error) => {
                    self.store_failed(&error);
                    return false;
                }
            }
            for record in intents {
                self.records.insert(record.id.clone(), record);
            }
        }
        self.note_store_news();
        if !self.unsaved {
            self.recovered();
        }
        let mut noted = false;
        for step in plan.steps {
            self.dirty_view = true;
            noted |= matches!(step.action, Action::Note | Action::Forget);
            self.begin(step);
        }
        noted
    }

    pub(super) fn begin(&mut self, step: Step) {
        let action = name(&step.action);
        // What follows them is said; they are bookkeeping.
        let quiet = matches!(step.action, Action::Forget | Action::Check { .. });
        if !step.reason.is_empty() && !quiet {
            let object = step.object.to_string();
            let text =
                if step.changes.is_empty() { step.reason.clone() } else { format!("{}: {}", step.class, step.reason) };
            self.journal.note(now(), EventType::Normal, &object, action, text);
        }
        let Step { object: _, class, reason, changes, record: _, action: _ } = &step;
        let (reason, changes) = (reason.clone(), changes.clone());
        let decision = Decision { at: now(), class: *class, reason, action, changes, result: None };
        self.decisions.insert(step.object.clone(), decision);
        match step.action {
            Action::Note => {
                let is_change = self.decisions.get(&step.object).is_some_and(|decision| !decision.changes.is_empty());
                if is_change {
                    self.report(&step.object, "taken over, nothing to do");
                }
                return;
            }
            // The host is not asked: what is to be forgotten was seen to be gone.
            Action::Forget => return self.done(step.object, &step.action, Ok(Outcome::Done)),
            Action::Start { .. }
            | Action::Check { .. }
            | Action::Resize { .. }
            | Action::Signal { .. }
            | Action::Kill { .. }
            | Action::Collect { .. }
            | Action::Remove { .. } => {}
        }
        self.queue.push(step.object, step.action);
        self.hand_out();
    }

    /// Takes back what waits and was decided for another revision than is asked for now.
    pub(super) fn take_back_what_is_outdated(&mut self) {
        let (desired, records) = (&self.desired.objects, &self.records);
        let outdated = |object: &ObjectId| match (desired.get(object), records.get(object)) {
            (Some(Wish::Present(wanted)), Some(record)) => wanted.object != record.accepted,
            (None, Some(record)) => record.absent_since.is_none(),
            // What cannot be read changes nothing, and what has no record is not waited for.
            (Some(_), _) | (None, None) => false,
        };
        let outdated: BTreeSet<ObjectId> = self.queue.waiting().filter(|object| outdated(object)).cloned().collect();
        self.take_back(|object| outdated.contains(object));
    }

    /// Takes back what no worker has begun: it is decided anew. What was recorded for it is what a death at
    /// this moment would have left.
    pub(in crate::agent) fn take_back(&mut self, which: impl Fn(&ObjectId) -> bool) {
        for object in self.queue.take_back(which) {
            self.look_at(object);
            self.again = true;
        }
    }

    /// Gives actions to workers, as long as there are any free.
    pub(super) fn hand_out(&mut self) {
        while let Some((object, action)) = self.queue.next() {
            let (host, sender) = (self.host.clone(), self.sender.clone());
            self.runtime.spawn_blocking(move || {
                let result = host.apply(&action);
                // The driver has left: the next one will look for itself.
                drop(sender.send(Message::Done(Box::new(Done { object, action, result }))));
            });
        }
    }

    /// Adds what was just done to the object's history; a try that ended as the one before it did is the
    /// same news.
    pub(super) fn report(&self, object: &ObjectId, result: &str) {
        let (Some(decision), Some(record)) = (self.decisions.get(object), self.records.get(object)) else { return };
        if decision.reason.starts_with("tried again") {
            return;
        }
        let report = Report {
            at: decision.at,
            generation: record.generation,
            class: decision.class,
            action: decision.action.to_owned(),
            reason: decision.reason.clone(),
            changes: decision.changes.clone(),
            source: crate::agent::history::source(&record.provenance),
            result: result.to_owned(),
            took_ms: now().since(decision.at).0,
        };
        if let Err(error) = self.history.add(object, &report) {
            tracing::warn!(%object, %error, "a line of its history could not be written");
        }
    }

    pub(super) fn done(&mut self, object: ObjectId, action: &Action, result: Result<Outcome, Failure>) {
        self.look_at(object.clone());
        self.dirty_view = true;
        let id = object.to_string();
        let result = result.map_err(|failure| self.located(&object, failure));
        let (kind, reason, text) = match &result {
            Ok(Outcome::Started { pid, unsupported, .. }) if unsupported.is_empty() => {
                (EventType::Normal, "Started", format!("running as process {pid}"))
            }
            Ok(Outcome::Started { pid, unsupported, .. }) => {
                let missing = unsupported.join(", ");
                (
                    EventType::Warning,
                    "Started",
                    format!("running as process {pid}; this host has no knob for {missing}"),
                )
            }
            Ok(Outcome::Resized { deferred: Some(deferred), .. }) => {
                (EventType::Warning, "ResizeDeferred", deferred.message.clone())
            }
            Ok(Outcome::Resized { .. }) => (EventType::Normal, "Resized", "written and read back".to_owned()),
            Ok(Outcome::Done) => (EventType::Normal, name(action), String::new()),
            Err(failure) => (EventType::Warning, "Failed", failure.message.clone()),
        };
        if !text.is_empty() {
            self.journal.note(now(), kind, &id, reason, text.clone());
        }
        let text = if text.is_empty() { "done".to_owned() } else { text };
        let is_change = matches!(
            action,
            Action::Start { .. } | Action::Resize { .. } | Action::Signal { .. } | Action::Remove { .. }
        );
        if is_change {
            self.report(&object, &text);
            let class = self.decisions.get(&object).map_or(Class::None, |decision| decision.class);
            self.counts.changed(Change { class, action: name(action), went_well: result.is_ok() });
        }
        if let Some(decision) = self.decisions.get_mut(&object) {
            decision.result = Some(text);
        }
        let Some(record) = self.records.get(&object) else { return };
        match crate::plan::settle(record, action, result, now()) {
            Settled::Put(record) => {
                self.records.insert(object.clone(), *record);
                self.settled.insert(object);
            }
            Settled::Forget => {
                self.records.remove(&object);
                self.approved.remove(&object);
                self.decisions.remove(&object);
                self.settled.remove(&object);
                self.journal.note(now(), EventType::Normal, &id, "Removed", "nothing of it is left".to_owned());
                may_die("gone");
                let written = self.store.forget(std::slice::from_ref(&object));
                self.keep(written);
                may_die("forgotten");
            }
            Settled::Unchanged => {}
        }
    }

    /// With the place in the manifest that the failure is about.
    pub(super) fn located(&self, object: &ObjectId, failure: Failure) -> Failure {
        let Failure { message, field } = failure;
        let place = field.as_ref().zip(self.records.get(object)).and_then(|(field, record)| {
            let missing = Missing { field: field.clone(), message: message.clone() };
            crate::host::pointed(&record.provenance, &missing)
        });
        Failure { message: place.map_or(message, |place| place.to_string()), field }
    }
}

/// The action in one word, for events.
pub(in crate::agent) fn name(action: &Action) -> &'static str {
    match action {
        Action::Note => "Noted",
        Action::Check { .. } => "Checking",
        Action::Start { .. } => "Starting",
        Action::Resize { .. } => "Resizing",
        Action::Signal { .. } => "Stopping",
        Action::Kill { .. } => "Killing",
        Action::Collect { .. } => "Collecting",
        Action::Remove { .. } => "Removing",
        Action::Forget => "Forgetting",
    }
}
