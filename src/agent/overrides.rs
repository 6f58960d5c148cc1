//! Words of persons that stand above the manifests: recorded with who, when, why and until when, shown,
//! obeyed, and taken back by a word or by time.

use super::driver::{Driver, now};
use super::handle::CommandError;
use super::view::EventType;
use crate::plan::{Attempts, Limits, Override, OverrideState, Word};
use crate::spec::{DesiredState, Memory, ObjectId, Resources};

impl Driver {
    /// A start takes a stop back; where the manifest says `stopped`, it is an override of its own.
    pub(super) fn start(&mut self, object: &ObjectId, word: Word) -> Result<String, CommandError> {
        let stopped = self.record(object)?.accepted.spec.desired_state == DesiredState::Stopped;
        if stopped || word.until.is_some() {
            return self.override_(object, OverrideState::Running, word);
        }
        self.change(object, |record| {
            record.override_ = None;
            // A person who says "start" does not want to wait for a backoff.
            record.attempts = Attempts::default();
        })?;
        self.tell(object, "Started", format!("started {word}"));
        Ok(format!("{object} follows its manifest again"))
    }

    pub(super) fn override_(
        &mut self,
        object: &ObjectId,
        state: OverrideState,
        word: Word,
    ) -> Result<String, CommandError> {
        let what = match state {
            OverrideState::Stopped => "stopped",
            OverrideState::Running => "started",
            OverrideState::Restart => "restarted",
        };
        let text = format!("{what} {word}");
        self.change(object, |record| record.override_ = Some(Override { state, word }))?;
        self.tell(object, "Overridden", text.clone());
        Ok(format!("{object} is {text}"))
    }

    /// From now on nothing is done about them.
    pub(super) fn suspend(&mut self, objects: &[ObjectId], all: bool, word: &Word) -> Result<String, CommandError> {
        let objects = self.chosen(objects, all)?;
        for object in &objects {
            self.change(object, |record| record.suspended = Some(word.clone()))?;
            self.tell(object, "Suspended", format!("suspended {word}"));
        }
        Ok(format!("{} suspended", count(&objects)))
    }

    pub(super) fn resume(&mut self, objects: &[ObjectId], all: bool, by: u32) -> Result<String, CommandError> {
        let mut objects = self.chosen(objects, all)?;
        let is_suspended = |id: &ObjectId| self.records.get(id).is_some_and(|record| record.suspended.is_some());
        match objects.iter().find(|id| !is_suspended(id)) {
            Some(other) if !all => return Err(CommandError::Refused(format!("{other} is not suspended"))),
            Some(_) | None => objects.retain(is_suspended),
        }
        for object in &objects {
            self.change(object, |record| record.suspended = None)?;
            self.tell(object, "Resumed", format!("resumed by uid {by}"));
        }
        Ok(format!("{} resumed", count(&objects)))
    }

    /// Limits above the manifest's, in place of those that were set before. Nothing set takes them back.
    pub(super) fn set_resources(
        &mut self,
        object: &ObjectId,
        resources: Resources,
        word: Word,
    ) -> Result<String, CommandError> {
        if resources == Resources::default() {
            self.change(object, |record| record.limits = None)?;
            self.tell(object, "Overridden", format!("limits are the manifest's again, by uid {}", word.by));
            return Ok(format!("{object} has its manifest's limits again"));
        }
        let together = self.record(object)?.accepted.spec.resources.with(&resources).memory;
        if let Some((name, value, limit)) = together.above_the_limit().next() {
            let text = format!("memory.{name} of {value} would be above memory.limit of {limit}: set both");
            return Err(CommandError::Refused(text));
        }
        if together.limit.is_some_and(|limit| limit < Memory::LEAST) {
            return Err(CommandError::Refused(format!("nothing runs in less than {} of memory", Memory::LEAST)));
        }
        let text = format!("limits set {word}");
        self.change(object, |record| record.limits = Some(Limits { resources, word }))?;
        self.tell(object, "Overridden", text.clone());
        Ok(format!("{object}: {text}"))
    }

    fn chosen(&self, objects: &[ObjectId], all: bool) -> Result<Vec<ObjectId>, CommandError> {
        if all {
            return Ok(self.records.keys().cloned().collect());
        }
        for object in objects {
            self.record(object)?;
        }
        Ok(objects.to_vec())
    }

    fn tell(&self, object: &ObjectId, reason: &str, text: String) {
        self.journal.note(now(), EventType::Normal, &object.to_string(), reason, text);
    }
}

fn count(objects: &[ObjectId]) -> String {
    match objects {
        [one] => format!("{one} is"),
        all => format!("{} objects are", all.len()),
    }
}
