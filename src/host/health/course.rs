//! What the answers of a process's probes come to. Pure: time and answers in, a verdict out.

use crate::plan::HealthSeen;
use crate::spec::{Health, Timestamp};

/// Which of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Startup,
    Readiness,
    Liveness,
}

/// How a probe was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Passed,
    Failed(String),
    /// It could not be asked, which says nothing about the container.
    Unasked(String),
}

#[derive(Debug, Clone)]
pub(super) struct Course {
    since: Timestamp,
    started: bool,
    ready: Option<Result<(), String>>,
    /// The failures in a row, of each.
    failures: [u8; 3],
    failed: Option<String>,
    last: Option<String>,
}

impl Course {
    /// Of a process that runs since then. Whatever was started long ago has either passed its startup or
    /// has been ended for it: that is not asked again by an agent that has been away.
    pub fn new(health: &Health, since: Timestamp, now: Timestamp) -> Self {
        let started = health.startup.as_ref().is_none_or(|startup| since.after(startup.window()) < now);
        Self { since, started, ready: None, failures: [0; 3], failed: None, last: None }
    }

    pub fn is_started(&self) -> bool {
        self.started
    }

    /// It had passed it before.
    pub fn pass_startup(&mut self) {
        self.started = true;
    }

    pub fn is_over(&self) -> bool {
        self.failed.is_some()
    }

    pub fn take(&mut self, which: Which, answer: Answer, health: &Health, now: Timestamp) {
        let probe = match which {
            Which::Startup => &health.startup,
            Which::Readiness => &health.readiness,
            Which::Liveness => &health.liveness,
        };
        let Some(probe) = probe else { return };
        let failures = &mut self.failures[which as usize];
        match answer {
            Answer::Passed => {
                *failures = 0;
                match which {
                    Which::Startup => self.started = true,
                    Which::Readiness => self.ready = Some(Ok(())),
                    Which::Liveness if health.readiness.is_none() => self.ready = Some(Ok(())),
                    Which::Liveness => {}
                }
            }
            // A startup has its time, whoever could not ask.
            Answer::Unasked(why) => self.last = Some(why),
            Answer::Failed(why) => {
                *failures = failures.saturating_add(1);
                let (count, enough) = (*failures, *failures >= probe.failures);
                let times = |name: &str| format!("{name} failed {count} times in a row: {why}");
                match which {
                    Which::Startup => match probe.within {
                        Some(within) if self.since.after(within) <= now => {
                            self.failed = Some(format!("startup did not pass within {within}: {why}"));
                        }
                        None if enough => self.failed = Some(times("startup")),
                        Some(_) | None => {}
                    },
                    // What has never been ready need not fail several times to be not ready.
                    Which::Readiness if enough || self.ready.is_none() => {
                        self.ready = Some(Err(format!("readiness failed: {why}")));
                    }
                    Which::Liveness if enough => self.failed = Some(times("liveness")),
                    Which::Readiness | Which::Liveness => {}
                }
                self.last = Some(why);
            }
        }
    }

    pub fn verdict(&self, health: &Health) -> HealthSeen {
        if let Some(why) = &self.failed {
            return HealthSeen::Failed(why.clone());
        }
        if !self.started {
            let last = self.last.as_deref().unwrap_or("not asked yet");
            return HealthSeen::Starting(format!("startup has not passed yet: {last}"));
        }
        match &self.ready {
            Some(Ok(())) => HealthSeen::Ready,
            Some(Err(why)) => HealthSeen::NotReady(why.clone()),
            // Its startup was all that there was to pass.
            None if health.readiness.is_none() && health.startup.is_some() => HealthSeen::Ready,
            None => HealthSeen::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: Timestamp = Timestamp(1_700_000_000_000);

    fn health(yaml: &str) -> Health {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn failed() -> Answer {
        Answer::Failed("no".to_owned())
    }

    #[test]
    fn liveness_fails_after_so_many_failures_in_a_row_and_no_sooner() {
        let health = health("{liveness: {exec: [x], failures: 3}}");
        let mut course = Course::new(&health, THEN, THEN);

        for answer in
            [failed(), failed(), Answer::Passed, failed(), Answer::Unasked("keeper away".to_owned()), failed()]
        {
            course.take(Which::Liveness, answer, &health, THEN);
            assert!(!course.is_over());
        }
        course.take(Which::Liveness, failed(), &health, THEN);

        assert_eq!(course.verdict(&health), HealthSeen::Failed("liveness failed 3 times in a row: no".to_owned()));
    }

    #[test]
    fn what_could_not_be_asked_is_never_held_against_a_container() {
        let health = health("{liveness: {exec: [x], failures: 1}, readiness: {exec: [x]}}");
        let mut course = Course::new(&health, THEN, THEN);
        course.take(Which::Readiness, Answer::Passed, &health, THEN);

        for which in [Which::Liveness, Which::Readiness, Which::Startup] {
            for _ in 0..200 {
                course.take(which, Answer::Unasked("keeper away".to_owned()), &health, THEN);
            }
        }

        assert_eq!(course.verdict(&health), HealthSeen::Ready);
    }

    #[test]
    fn a_startup_that_is_slow_is_waited_for_as_long_as_it_may_take() {
        let health = health("{startup: {tcp: {port: 80}, failures: 1, within: 60s}}");
        let mut course = Course::new(&health, THEN, THEN);

        course.take(Which::Startup, failed(), &health, Timestamp(THEN.0 + 59_999));
        assert!(matches!(course.verdict(&health), HealthSeen::Starting(_)));
        course.take(Which::Startup, failed(), &health, Timestamp(THEN.0 + 60_000));

        assert!(matches!(course.verdict(&health), HealthSeen::Failed(_)));
    }

    #[test]
    fn an_agent_that_has_been_away_does_not_ask_for_the_startup_again() {
        let health = health("{startup: {tcp: {port: 80}, within: 60s}}");

        assert!(!Course::new(&health, THEN, Timestamp(THEN.0 + 60_000)).is_started());
        assert!(Course::new(&health, THEN, Timestamp(THEN.0 + 60_001)).is_started());
    }

    #[test]
    fn readiness_goes_after_so_many_failures_and_comes_back_with_one_success() {
        let health = health("{readiness: {exec: [x], failures: 2}}");
        let mut course = Course::new(&health, THEN, THEN);
        let mut after = |answer| {
            course.take(Which::Readiness, answer, &health, THEN);
            course.verdict(&health)
        };

        let not_ready = HealthSeen::NotReady("readiness failed: no".to_owned());
        assert_eq!(after(failed()), not_ready, "it has never been ready");
        assert_eq!(after(Answer::Passed), HealthSeen::Ready);
        assert_eq!(after(failed()), HealthSeen::Ready);
        assert_eq!(after(failed()), not_ready);
        assert_eq!(after(Answer::Passed), HealthSeen::Ready);
    }
}
