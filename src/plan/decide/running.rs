//! An instance that has a process, or is to have one: its start, its limits, and drift.

use super::*;

impl<'a> Case<'a> {
    pub(super) fn starting(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        match &sighting.process {
            ProcessSeen::Running { .. } if goal == Goal::Run => {
                self.edit(|instance| {
                    instance.phase = Phase::Running;
                    instance.started_at = sighting.since();
                });
                let attempts = &mut self.record.to_mut().attempts;
                attempts.next_try = None;
                attempts.forget_error();
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

    pub(super) fn start_now(&mut self) -> Next {
        if let Some((Class::Recreate, reason)) = self.pending_change() {
            return self.remove(reason);
        }
        if let Some(next) = self.pausing().or_else(|| self.unmet()) {
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

    pub(super) fn running(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        match &sighting.process {
            ProcessSeen::Running { .. } => {
                let pending = self.pending_class() >= Class::Restart;
                if goal == Goal::Run && pending && self.record.checked != self.record.generation {
                    return self.check();
                }
                if goal == Goal::Run {
                    self.give_up(sighting);
                }
                if goal != Goal::Run || self.unhealthy().is_some() || self.restart_asked().is_some() || pending {
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

    /// A process that does not work is as good as one that has ended.
    fn give_up(&mut self, sighting: &Sighting) {
        if let HealthSeen::Failed(reason) = &sighting.health {
            let given_up = GivenUp { reason: reason.clone(), failures: self.record.attempts.failures };
            self.edit(|instance| instance.unhealthy = Some(given_up));
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
    pub(super) fn adjust(&mut self, sighting: &Sighting) -> Next {
        let Some(instance) = &self.record.instance else { return Next::rest(Sync::Pending, "") };
        let wanted = &*self.record.wanted_resources();
        if let Some(deferred) = &instance.deferred
            && deferred.next_try > self.look.now
        {
            let wait = words::wait(deferred.next_try.since(self.look.now));
            let message = format!("{}, next try in {wait}", deferred.message);
            return Next::wait(deferred.next_try, Sync::Deferred, message);
        }
        let resize = |from: &Resources, reason: String| {
            let (from, to, ignored) = (from.clone(), wanted.clone(), self.record.accepted.spec.ignore_drift.clone());
            Next::act(Action::Resize { instance: instance.id.clone(), from, to, ignored }, reason)
        };
        let next = if let Some(deferred) = &instance.deferred {
            resize(&instance.actuated, format!("tried again: {}", deferred.message))
        } else if instance.actuated != *wanted {
            let reason = if self.changes.is_empty() {
                words::changes(&limit_changes(&self.record.accepted.spec, &instance.actuated, wanted))
            } else {
                words::changes(&self.changes)
            };
            resize(&instance.actuated, reason)
        } else if instance.ignored != self.record.accepted.spec.ignore_drift {
            let reason = if self.changes.is_empty() { "ignoreDrift changed" } else { &*words::changes(&self.changes) };
            resize(wanted, reason.to_owned())
        } else if let Some(drift) = drift(instance, sighting) {
            resize(wanted, drift)
        } else {
            return Next::rest(Sync::Synced, "");
        };
        self.pausing().unwrap_or(next)
    }
}

/// The limits that are to change, as a change of the manifest would be told.
fn limit_changes(spec: &crate::spec::Container, actuated: &Resources, wanted: &Resources) -> Vec<FieldChange> {
    let with = |resources: &Resources| crate::spec::Container { resources: resources.clone(), ..spec.clone() };
    change::between(&with(actuated), &with(wanted))
}

/// A control file that says something else than it said when we had written it.
fn drift(instance: &InstanceRecord, sighting: &Sighting) -> Option<String> {
    let Some(GroupSeen { limits, populated: _ }) = &sighting.group else {
        // A host on which it never had one has nothing to tell of it either.
        return (!instance.readback.is_empty()).then(|| "its cgroup was taken away: made again".to_owned());
    };
    if *limits == instance.readback {
        return None;
    }
    instance.readback.iter().find_map(|(file, expected)| match limits.get(file) {
        Some(found) if found == expected => None,
        Some(found) => Some(format!("{file} is {found:?} where {expected:?} had been written: set back")),
        None => Some(format!("{file} is gone: made again")),
    })
}
