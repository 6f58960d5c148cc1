//! How a process ends, by our word or by itself, and what follows.

use super::*;

impl<'a> Case<'a> {
    pub(super) fn stop(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        if let Some(other) = self.look.needed_by {
            return Next::rest(Sync::Pending, format!("stops after {other}, which needs it"));
        }
        let reason = self.reason_to_stop(goal);
        let now = self.look.now;
        let stop = self.record.accepted.spec.stop.clone();
        self.record.to_mut().attempts = Attempts::default();
        if sighting.ignores_stop() && stop.signal.number() != KILL {
            self.edit(|instance| instance.phase = Phase::Stopping { kill_at: now, signalled: false });
            let reason = format!("{reason}; its PID 1 ignores {}, so it is killed at once", stop.signal);
            return Next::act(Action::Kill { instance: self.id() }, reason);
        }
        let kill_at = now.after(stop.grace);
        self.edit(|instance| instance.phase = Phase::Stopping { kill_at, signalled: false });
        Next::act(Action::Signal { instance: self.id(), signal: stop.signal.number() }, reason)
    }

    pub(super) fn stopping(&mut self, goal: Goal, sighting: &Sighting, kill_at: Timestamp, signalled: bool) -> Next {
        let now = self.look.now;
        if !sighting.is_running() {
            if sighting.is_haunted() {
                return if kill_at <= now {
                    Next::act(Action::Kill { instance: self.id() }, "processes stayed in its cgroup")
                } else {
                    Next::wait(kill_at.min(now.after(MOMENT)), Sync::Pending, "its last processes are ending")
                };
            }
            return self.settle_down(goal, sighting);
        }
        let reason = self.reason_to_stop(goal);
        if goal == Goal::Run && !signalled && reason.is_empty() {
            self.edit(|instance| instance.phase = Phase::Running);
            return Next::act(Action::Note, "it need not stop after all");
        }
        let signal = self.record.accepted.spec.stop.signal.clone();
        // Within the pause after a kill it is not killed again: it is ending already.
        let killed = signalled && kill_at <= now.after(KILL_PAUSE);
        if sighting.ignores_stop() && signal.number() != KILL && !killed {
            let reason = format!("its PID 1 ignores {signal}, so it is killed at once");
            let next = Next::act(Action::Kill { instance: self.id() }, reason);
            return self.pausing().unwrap_or(next);
        }
        if !signalled {
            let Attempts { failures, next_try: _, last_error, missing: _ } = &self.record.attempts;
            if let Some(error) = last_error
                && *failures >= SIGNALS
            {
                let reason = format!("{signal} could not be sent: {error}");
                return Next::act(Action::Kill { instance: self.id() }, reason);
            }
            let next = Next::act(Action::Signal { instance: self.id(), signal: signal.number() }, reason);
            return self.pausing().unwrap_or(next);
        }
        if kill_at <= now {
            let grace = self.record.accepted.spec.stop.grace;
            let reason = format!("did not end within {grace} of {signal}");
            return Next::act(Action::Kill { instance: self.id() }, reason);
        }
        let message = format!("stopping, killed in {}", words::wait(kill_at.since(now)));
        Next::wait(kill_at, Sync::Pending, message)
    }

    /// After the end of a process that was to end.
    pub(super) fn settle_down(&mut self, goal: Goal, sighting: &Sighting) -> Next {
        if let ProcessSeen::Exited(exit) = &sighting.process {
            self.record.to_mut().last_exit = Some(*exit);
        }
        let reason = self.reason_to_stop(goal);
        match goal {
            Goal::Gone => self.remove(reason),
            Goal::Run if self.pending_class() == Class::Recreate => self.remove(reason),
            Goal::Run if self.unhealthy().is_some() => {
                let unseen = Exit { code: None, signal: None, at: self.look.now, oom_killed: false };
                let exit = if let ProcessSeen::Exited(exit) = &sighting.process { *exit } else { unseen };
                let given_up = self.record.instance.as_ref().and_then(|instance| instance.unhealthy.clone());
                // One that is given up again and again is started later and later.
                self.record.to_mut().attempts.failures = given_up.as_ref().map_or(0, |given_up| given_up.failures);
                self.ended_by_itself(exit, sighting, given_up.as_ref().map(|given_up| &*given_up.reason))
            }
            Goal::Run | Goal::Stand => {
                let reason = if reason.is_empty() { "it has ended".to_owned() } else { reason };
                self.lay_down(Phase::Stopped, sighting, reason)
            }
        }
    }

    /// Lets go of a process that has ended.
    pub(super) fn lay_down(&mut self, phase: Phase, sighting: &Sighting, reason: impl Into<String>) -> Next {
        self.edit(|instance| instance.phase = phase);
        let action = if sighting.is_haunted() {
            Action::Kill { instance: self.id() }
        } else if sighting.is_uncollected() {
            Action::Collect { instance: self.id() }
        } else {
            Action::Note
        };
        Next::act(action, reason)
    }

    pub(super) fn ended_by_itself(&mut self, exit: Exit, sighting: &Sighting, found: Option<&str>) -> Next {
        let restart = self.record.accepted.spec.restart.clone();
        let again = self.wants_restart(&exit);
        let now = self.look.now;
        let record = self.record.to_mut();
        record.last_exit = Some(exit);
        let started_at = record.instance.as_ref().and_then(|instance| instance.started_at);
        let ran = started_at.map_or(Span(0), |started| exit.at.since(started));
        let wait = |failures: u32| {
            let doubled = restart.backoff.min.0.saturating_mul(1_u64 << failures.saturating_sub(1).min(32));
            Span(doubled.min(restart.backoff.max.0.max(restart.backoff.min.0)))
        };
        let attempts = &mut record.attempts;
        if ran.0 >= wait(attempts.failures).0.saturating_mul(10) {
            attempts.failures = 0;
        }
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.forget_error();
        let pause = wait(attempts.failures);
        attempts.next_try = again.then(|| now.after(pause));
        let ordinal = record.restarts + 1;
        let found = found.map_or_else(|| words::exit(&exit), str::to_owned);
        let at_once = self.pending_class() >= Class::Restart || self.restart_asked().is_some();
        let reason = if at_once {
            found
        } else if again {
            format!("{found}, restart {ordinal} in {}", words::wait(pause))
        } else {
            format!("{found}, and its restart policy lets it be")
        };
        self.lay_down(Phase::Exited, sighting, reason)
    }

    /// Kills what stays in the cgroup of a process that has ended, now and then.
    pub(super) fn exorcise(&self, sighting: &Sighting) -> Option<Next> {
        if !sighting.is_haunted() {
            return None;
        }
        let now = self.look.now;
        let next = match self.record.attempts.next_try {
            Some(next_try) if next_try > now => {
                Next::wait(next_try.min(now.after(MOMENT)), Sync::Pending, "its last processes are ending")
            }
            _ => Next::act(Action::Kill { instance: self.id() }, "processes stayed in its cgroup"),
        };
        Some(next)
    }

    /// It has no process, and is known to have none.
    pub(super) fn down(&mut self, goal: Goal, sighting: &Sighting, phase: Phase) -> Next {
        if sighting.is_running() {
            self.edit(|instance| {
                instance.phase = Phase::Running;
                instance.started_at = sighting.since();
            });
            return self.write_limits_anew("found running");
        }
        if let Some(next) = self.exorcise(sighting) {
            return next;
        }
        if sighting.is_uncollected() {
            let next = Next::act(Action::Collect { instance: self.id() }, "it has ended");
            return self.pausing().unwrap_or(next);
        }
        match goal {
            Goal::Gone => self.remove(self.reason_to_stop(goal)),
            Goal::Stand if phase == Phase::Exited => self.lay_down(Phase::Stopped, sighting, self.reason_to_stop(goal)),
            Goal::Stand => self.stand(),
            Goal::Run => self.start_again(phase),
        }
    }

    pub(super) fn start_again(&mut self, phase: Phase) -> Next {
        let pending = self.pending_change();
        if let Some((Class::Recreate, reason)) = pending {
            return self.remove(reason);
        }
        let asked = self.restart_asked();
        // `plim start` of something that had ended by itself.
        let called = self.record.override_.as_ref().is_some_and(|word| {
            word.state == OverrideState::Running
                && self.record.last_exit.as_ref().is_none_or(|exit| exit.at <= word.word.since)
        });
        let mut by_policy = false;
        let reason = if let Some((_, reason)) = pending {
            reason
        } else if let Some(reason) = asked {
            reason
        } else if phase == Phase::Stopped {
            "started again".to_owned()
        } else if called {
            "start asked for".to_owned()
        } else {
            let ended = self.unhealthy().map_or_else(|| words::last_exit(&self.record), str::to_owned);
            let exit = self.record.last_exit;
            if !exit.as_ref().is_none_or(|exit| self.wants_restart(exit)) {
                return match exit {
                    Some(exit) if !exit.is_success() || self.unhealthy().is_some() => {
                        Next::rest(Sync::Failed, format!("{ended}, and its restart policy lets it be"))
                    }
                    _ => Next::rest(Sync::Synced, ""),
                };
            }
            let ordinal = self.record.restarts + 1;
            if let Some(next_try) = self.record.attempts.next_try
                && next_try > self.look.now
            {
                let wait = words::wait(next_try.since(self.look.now));
                return Next::wait(next_try, Sync::Failed, format!("{ended}, restart {ordinal} in {wait}"));
            }
            by_policy = true;
            format!("{ended}, restart {ordinal}")
        };
        if let Some(next) = self.pausing().or_else(|| self.unmet()) {
            return next;
        }
        self.restart_done();
        let record = self.record.to_mut();
        record.attempts.next_try = None;
        record.restarts += u64::from(by_policy);
        let (accepted, generation) = (record.accepted.clone(), record.generation);
        self.edit(|instance| {
            instance.phase = Phase::Starting;
            instance.started_from = accepted;
            instance.generation = generation;
            instance.run += 1;
            instance.actuated = Resources::default();
            instance.readback = BTreeMap::new();
            instance.unsupported = Vec::new();
            instance.deferred = None;
            instance.started_at = None;
            instance.unhealthy = None;
        });
        self.start(reason)
    }

    fn wants_restart(&self, exit: &Exit) -> bool {
        match self.record.accepted.spec.restart.policy {
            RestartPolicy::Always => true,
            // What was stopped because it did not work has failed, whatever it says itself.
            RestartPolicy::OnFailure => !exit.is_success() || self.unhealthy().is_some(),
            RestartPolicy::Never => false,
        }
    }

    pub(super) fn remove(&mut self, reason: impl Into<String>) -> Next {
        self.record.to_mut().attempts = Attempts::default();
        self.edit(|instance| instance.phase = Phase::Removing);
        Next::act(Action::Remove { instance: self.id() }, reason)
    }

    pub(super) fn removing(&mut self, goal: Goal, sighting: &Sighting, ranges: &mut FreeRanges<'_>) -> Next {
        if *sighting == NOTHING_SEEN {
            self.record.to_mut().instance = None;
            return self.without_instance(goal, ranges);
        }
        let next = Next::act(Action::Remove { instance: self.id() }, "its removal was not seen to its end");
        self.pausing().unwrap_or(next)
    }
}

/// SIGKILL, which nothing can ignore (signal(7)).
const KILL: i32 = 9;
