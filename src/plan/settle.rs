//! What a step's result makes of its record.
//!
//! A failure never says how far the action got, so it changes nothing but the time of the next try;
//! what stands on the host, the next sighting tells.

use super::decide::KILL_PAUSE;
use super::{Action, Attempts, Deferred, Failure, InstanceRecord, Outcome, Phase, Record, Settled};
use crate::spec::change::{Class, class_between};
use crate::spec::{InstanceId, Resources, Span, Timestamp};

/// `record` is the one in force now: the step's own intent, or what came after it.
pub fn settle(record: &Record, action: &Action, result: Result<Outcome, Failure>, now: Timestamp) -> Settled {
    let mut settled = record.clone();
    match result {
        Ok(outcome) => {
            if *action == Action::Forget {
                return Settled::Forget;
            }
            succeeded(&mut settled, action, outcome, now);
        }
        Err(failure) => failed(&mut settled, action, failure, now),
    }
    if settled == *record { Settled::Unchanged } else { Settled::Put(Box::new(settled)) }
}

fn succeeded(record: &mut Record, action: &Action, outcome: Outcome, now: Timestamp) {
    match action {
        Action::Note | Action::Forget => {}
        Action::Check { instance: _, object } => {
            if record.accepted == *object {
                record.checked = record.generation;
            }
            succeeded_after_all(record);
        }
        Action::Start { instance, object, .. } => {
            let Some(current) = current(record, instance) else { return };
            current.phase = Phase::Running;
            current.actuated = object.spec.resources.clone();
            current.ignored = object.spec.ignore_drift.clone();
            current.deferred = None;
            current.started_at = Some(now);
            if let Outcome::Started { pid: _, at, digest, readback, unsupported } = outcome {
                current.started_at = Some(at);
                current.digest = digest;
                current.readback = readback;
                current.unsupported = unsupported;
            }
            // The count of failures stays: it is forgiven when it has run for long enough.
            record.attempts.next_try = None;
            record.attempts.forget_error();
        }
        Action::Resize { instance, from: _, to, ignored } => {
            if let Some(current) = current(record, instance) {
                current.ignored.clone_from(ignored);
            }
            resized(record, instance, to, outcome, now);
        }
        Action::Signal { instance, signal: _ } => {
            let grace = record.accepted.spec.stop.grace;
            if let Some(InstanceRecord { phase: Phase::Stopping { signalled, kill_at }, .. }) =
                current(record, instance)
            {
                *signalled = true;
                // From now on, and not from when it was decided: the signal may have taken a while.
                *kill_at = now.after(grace);
            }
            succeeded_after_all(record);
        }
        Action::Kill { instance } => {
            let again = now.after(KILL_PAUSE);
            succeeded_after_all(record);
            match current(record, instance).map(|current| &mut current.phase) {
                Some(Phase::Stopping { kill_at, signalled }) => (*kill_at, *signalled) = (again, true),
                Some(Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopped | Phase::Removing) => {
                    record.attempts.next_try = record.attempts.next_try.max(Some(again));
                }
                None => {}
            }
        }
        Action::Collect { instance: _ } => succeeded_after_all(record),
        Action::Remove { instance } => {
            if current(record, instance).is_some() {
                record.instance = None;
            }
            succeeded_after_all(record);
        }
    }
}

/// What failed before has worked now.
fn succeeded_after_all(record: &mut Record) {
    if record.attempts.last_error.is_some() {
        record.attempts = Attempts::default();
    }
}

fn resized(record: &mut Record, id: &InstanceId, to: &Resources, outcome: Outcome, now: Timestamp) {
    let generation = record.generation;
    let newest = record.instance.as_ref().is_some_and(|current| {
        *record.wanted_resources() == *to && class_between(&current.started_from, &record.accepted) < Class::Restart
    });
    let Some(current) = current(record, id) else { return };
    let tries = current.deferred.as_ref().map_or(0, |deferred| deferred.tries);
    current.deferred = None;
    match outcome {
        Outcome::Resized { actuated, readback, unsupported, deferred: Some(deferred) } => {
            let tries = tries.saturating_add(1);
            let next_try = now.after(deferral(tries));
            current.actuated = actuated;
            current.readback = readback;
            current.unsupported = unsupported;
            current.deferred = Some(Deferred { message: deferred.message, next_try, tries });
        }
        Outcome::Resized { actuated: _, readback, unsupported, deferred: None } => {
            current.readback = readback;
            current.unsupported = unsupported;
            current.actuated = to.clone();
        }
        Outcome::Done | Outcome::Started { .. } => current.actuated = to.clone(),
    }
    if newest && current.deferred.is_none() {
        current.generation = generation;
    }
    succeeded_after_all(record);
}

/// The longest wait between two tries of what is deferred.
pub(super) const MAX_DEFERRAL: Span = Span::from_secs(30);

/// The wait after the given number of deferrals: 1 s doubled up to the longest.
fn deferral(tries: u32) -> Span {
    Span::from_secs(1_u64 << tries.saturating_sub(1).min(5)).min(MAX_DEFERRAL)
}

fn failed(record: &mut Record, action: &Action, failure: Failure, now: Timestamp) {
    let attempts = &mut record.attempts;
    attempts.failures = attempts.failures.saturating_add(1);
    let next_try = now.after(Attempts::backoff(attempts.failures));
    attempts.next_try = Some(next_try);
    attempts.last_error = Some(failure.message);
    attempts.missing = failure.field;
    if let Action::Kill { instance } = action
        && let Some(InstanceRecord { phase: Phase::Stopping { kill_at, .. }, .. }) = current(record, instance)
    {
        *kill_at = next_try;
    }
}

fn current<'a>(record: &'a mut Record, id: &InstanceId) -> Option<&'a mut InstanceRecord> {
    record.instance.as_mut().filter(|current| current.id == *id)
}
