//! How an instance comes to be: made anew, or found and taken over.

use super::*;
use crate::spec::IdRange;

impl<'a> Case<'a> {
    pub(super) fn without_instance(&mut self, goal: Goal, ranges: &mut FreeRanges<'_>) -> Next {
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
            Goal::Run => match self.unmet() {
                Some(next) => next,
                None => self.create(ranges),
            },
            Goal::Stand => self.stand(),
            Goal::Gone => Next::act(Action::Forget, "nothing of it is left"),
        }
    }

    /// What it waits for before it is started, if there is something.
    pub(super) fn unmet(&self) -> Option<Next> {
        let message = self.look.order.unmet(&self.record.accepted)?;
        Some(Next::rest(Sync::Pending, message))
    }

    /// It stands still, and is to.
    pub(super) fn stand(&mut self) -> Next {
        self.restart_done();
        Next::rest(Sync::Synced, "")
    }

    /// An order to restart holds for one time.
    pub(super) fn restart_done(&mut self) {
        if self.restart_asked().is_some() {
            self.record.to_mut().override_ = None;
            self.why = Some("the restart that was asked for is done".to_owned());
        }
    }

    pub(super) fn create(&mut self, ranges: &mut FreeRanges<'_>) -> Next {
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
        let id = InstanceId::new(&record.id, number);
        record.instance = Some(first_run(record, id, Phase::Starting, ids, None));
        self.start(reason)
    }

    /// The action that belongs to [`Phase::Starting`].
    pub(super) fn start(&self, reason: impl Into<String>) -> Next {
        let Some(InstanceRecord { id, ids, started_from, run, .. }) = &self.record.instance else {
            return Next::rest(Sync::Pending, "");
        };
        let action = Action::Start { instance: id.clone(), run: *run, object: started_from.clone(), ids: *ids };
        Next::act(action, reason)
    }

    pub(super) fn take_over(&mut self, id: &InstanceId, sighting: &Sighting, phase: Phase) {
        let record = self.record.to_mut();
        record.next_instance = record.next_instance.max(id.number + 1);
        let mut instance = first_run(record, id.clone(), phase, sighting.ids, sighting.since());
        if let Some(noted) = sighting.started_from.as_ref().filter(|noted| **noted != record.accepted) {
            // Of a revision that nothing else is remembered of.
            instance.started_from = Arc::clone(noted);
            instance.generation = 0;
        }
        record.instance = Some(instance);
    }

    /// It runs, and the record does not know: the record is wrong, for the kernel is right.
    pub(super) fn adopt(&mut self, id: &InstanceId, sighting: &Sighting) -> Next {
        self.take_over(id, sighting, Phase::Running);
        self.write_limits_anew(format!("{id} was found running and is kept"))
    }

    /// Writes the limits where it is not known what was written before.
    pub(super) fn write_limits_anew(&self, reason: impl Into<String>) -> Next {
        match &self.record.instance {
            Some(instance) => {
                let to = self.record.wanted_resources().into_owned();
                let (instance, ignored) = (instance.id.clone(), self.record.accepted.spec.ignore_drift.clone());
                Next::act(Action::Resize { instance, from: Resources::default(), to, ignored }, reason)
            }
            None => Next::rest(Sync::Pending, ""),
        }
    }
}

/// An instance of the accepted revision of which nothing is known to have been written yet.
fn first_run(
    record: &Record,
    id: InstanceId,
    phase: Phase,
    ids: Option<IdRange>,
    started_at: Option<Timestamp>,
) -> InstanceRecord {
    InstanceRecord {
        id,
        phase,
        ids,
        started_from: record.accepted.clone(),
        generation: record.generation,
        run: 1,
        digest: None,
        actuated: Resources::default(),
        readback: BTreeMap::new(),
        ignored: Vec::new(),
        unsupported: Vec::new(),
        deferred: None,
        started_at,
        unhealthy: None,
    }
}
