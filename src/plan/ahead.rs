//! A wall clock that is set forward: no wait ends before its time.
//!
//! Waits are instants of the wall clock, so that they outlive the agent and the host's uptime. Whoever knows
//! that the clock went further than the time that has passed has them moved by as much. One that is set back
//! needs nobody to know: [`decide`](super::decide) sees what lies further ahead than it can.

use super::{Attempts, InstanceRecord, Limits, Override, Phase, Record};
use crate::spec::{Span, Timestamp};

/// The record with everything that it waits for later by so much; nothing when it waits for nothing.
pub fn carry(record: &Record, by: Span) -> Option<Record> {
    let mut carried = record.clone();
    // What has happened stays where it was: only what is still to come is moved, and the beginning of what
    // is reckoned from there.
    let Record {
        attempts,
        instance,
        override_,
        suspended,
        limits,
        absent_since,
        id: _,
        accepted: _,
        provenance: _,
        generation: _,
        next_instance: _,
        restarts: _,
        last_exit: _,
        checked: _,
    } = &mut carried;
    let Attempts { next_try, failures: _, last_error: _, missing: _ } = attempts;
    let said = override_.iter_mut().map(|Override { state: _, word }| word);
    let set = limits.iter_mut().map(|Limits { resources: _, word }| word);
    let words = said.chain(set).chain(suspended).filter_map(|word| word.until.as_mut());
    let of_instance = instance.iter_mut().flat_map(|InstanceRecord { phase, deferred, .. }| {
        let kill = match phase {
            Phase::Stopping { kill_at, signalled: _ } => Some(kill_at),
            Phase::Starting | Phase::Running | Phase::Exited | Phase::Stopped | Phase::Removing => None,
        };
        kill.into_iter().chain(deferred.iter_mut().map(|deferred| &mut deferred.next_try))
    });
    let instants: Vec<&mut Timestamp> =
        next_try.iter_mut().chain(absent_since).chain(of_instance).chain(words).collect();
    if instants.is_empty() {
        return None;
    }
    instants.into_iter().for_each(|at| *at = at.after(by));
    Some(carried)
}
