//! A wall clock that is set back: no wait becomes longer than it was meant to be.
//!
//! Waits are instants of the wall clock, so that they outlive the agent and the host's uptime. Each has a
//! length of its own: what lies further ahead than that was reckoned by a clock that has been set back
//! since, and begins anew. Nothing is remembered of the clock itself, so it is the same after a restart. One
//! that is set forward shows in no record: see [`carry`](crate::plan::carry).

use super::{Attempts, Case, DesiredState, KILL_PAUSE, OverrideState, Phase, Record};
use crate::plan::settle::MAX_DEFERRAL;
use crate::plan::{InstanceRecord, Limits, Override, Word};
use crate::spec::{Span, Timestamp};

impl Case<'_> {
    pub(super) fn clip_waits(&mut self) {
        let reach = Reach::of(&self.record, self.look.now);
        if !reach.holds(&self.record) {
            let begun = self.has_been_stopped_for_good();
            let record = self.record.to_mut();
            reach.clip(record);
            // What was stopped because its text is gone does not come back for another grace.
            if let Some(at) = record.absent_since.as_mut().filter(|at| begun && **at == self.look.now) {
                *at = Timestamp(at.0.saturating_sub(self.look.settings.deletion_grace.0));
            }
            self.why = Some("the clock was set back".to_owned());
        }
    }

    /// It stands without a process, and nothing but its removal can have asked for that.
    fn has_been_stopped_for_good(&self) -> bool {
        let stopped = matches!(self.record.override_, Some(Override { state: OverrideState::Stopped, .. }));
        self.is_ended_by_us() && !stopped && self.record.accepted.spec.desired_state == DesiredState::Running
    }
}

/// The latest that an instant of a record may be.
struct Reach {
    now: Timestamp,
    next_try: Timestamp,
    deferred: Timestamp,
    kill: Timestamp,
}

impl Reach {
    fn of(record: &Record, now: Timestamp) -> Self {
        let failing = Attempts::backoff(record.attempts.failures);
        let spec = &record.accepted.spec;
        let restart = spec.restart.backoff.max.max(spec.restart.backoff.min);
        // It may be stopping by the grace that it was started with.
        let before = record.instance.as_ref().map_or(Span(0), |instance| instance.started_from.spec.stop.grace);
        Self {
            now,
            next_try: now.after(failing.max(restart).max(KILL_PAUSE)),
            deferred: now.after(MAX_DEFERRAL),
            kill: now.after(failing.max(spec.stop.grace).max(before).max(KILL_PAUSE)),
        }
    }

    fn holds(&self, record: &Record) -> bool {
        let passed = |at: Option<Timestamp>| at.is_none_or(|at| at <= self.now);
        let said = |word: Option<&Word>| word.is_none_or(|word| word.since <= self.now);
        let of_instance = |instance: &InstanceRecord| {
            let kill = match instance.phase {
                Phase::Stopping { kill_at, signalled: _ } => kill_at <= self.kill,
                Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopped | Phase::Removing => true,
            };
            let deferred = instance.deferred.as_ref().is_none_or(|deferred| deferred.next_try <= self.deferred);
            kill && deferred && passed(instance.started_at)
        };
        record.attempts.next_try.is_none_or(|at| at <= self.next_try)
            && passed(record.absent_since)
            && said(record.override_.as_ref().map(|said| &said.word))
            && said(record.suspended.as_ref())
            && said(record.limits.as_ref().map(|set| &set.word))
            && record.instance.as_ref().is_none_or(of_instance)
    }

    fn clip(&self, record: &mut Record) {
        let Record { attempts, instance, override_, suspended, limits, absent_since, .. } = record;
        let clip = |at: &mut Timestamp, latest: Timestamp| *at = (*at).min(latest);
        attempts.next_try.iter_mut().for_each(|at| clip(at, self.next_try));
        absent_since.iter_mut().for_each(|at| clip(at, self.now));
        if let Some(InstanceRecord { phase, deferred, started_at, .. }) = instance {
            if let Phase::Stopping { kill_at, signalled: _ } = phase {
                clip(kill_at, self.kill);
            }
            deferred.iter_mut().for_each(|deferred| clip(&mut deferred.next_try, self.deferred));
            started_at.iter_mut().for_each(|at| clip(at, self.now));
        }
        let said = override_.iter_mut().map(|Override { state: _, word }| word);
        let set = limits.iter_mut().map(|Limits { resources: _, word }| word);
        for word in said.chain(set).chain(suspended) {
            let ahead = word.since.since(self.now);
            word.since = Timestamp(word.since.0 - ahead.0);
            if let Some(until) = &mut word.until {
                *until = Timestamp(until.0.saturating_sub(ahead.0));
            }
        }
    }
}
