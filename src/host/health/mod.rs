//! The probes of running containers: asks them in their time, and keeps what they come to.
//!
//! Each process has a task of its own, with at most one question of each probe on its way, so one that
//! hangs holds up nobody else. What is bounded besides is how many are begun at once. Nothing is decided
//! here but whether a probe passes: what follows from it, the planner says.

mod ask;
mod course;

use super::{HostEvent, Machine};
use crate::plan::HealthSeen;
use crate::spec::{Health, InstanceId, Object, Probe, Timestamp};
use course::{Answer, Course, Which};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How many questions are begun at the same moment: each holds a thread until it is.
const AT_ONCE: usize = 32;

/// A process whose probes are to be asked.
#[derive(Debug, Clone)]
pub struct Watched {
    pub pid: u32,
    pub since: Timestamp,
    pub object: Arc<Object>,
}

/// Everything that is asked, and what was answered.
pub(super) struct Watch {
    entries: Mutex<BTreeMap<InstanceId, Entry>>,
    begun: Arc<Semaphore>,
    notify: Box<dyn Fn(HostEvent) + Send + Sync>,
}

struct Entry {
    watched: Watched,
    course: Course,
    seen: HealthSeen,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub fn new(notify: impl Fn(HostEvent) + Send + Sync + 'static) -> Self {
        Self { entries: Mutex::default(), begun: Arc::new(Semaphore::new(AT_ONCE)), notify: Box::new(notify) }
    }

    /// What the probes of this process have come to.
    pub fn of(&self, instance: &InstanceId, pid: u32) -> HealthSeen {
        let entries = self.entries();
        let entry = entries.get(instance).filter(|entry| entry.watched.pid == pid);
        entry.map_or(HealthSeen::Unknown, |entry| entry.seen.clone())
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Entry>> {
        // A panic ends the process; in tests what is behind a poisoned lock is still whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer in, and tells when that has changed something. `None`: nobody asks any more.
    fn answered(&self, instance: &InstanceId, pid: u32, which: Which, answer: Answer) -> Option<Course> {
        let mut entries = self.entries();
        let entry = entries.get_mut(instance).filter(|entry| entry.watched.pid == pid)?;
        let health = &entry.watched.object.spec.health;
        entry.course.take(which, answer, health, now());
        let verdict = entry.course.verdict(health);
        let before = std::mem::replace(&mut entry.seen, verdict.clone());
        // The words of one failure may differ from those of the next: that is shown, and no event.
        let news = std::mem::discriminant(&verdict) != std::mem::discriminant(&before);
        let changed = verdict != before;
        let course = entry.course.clone();
        drop(entries);
        let told = match verdict {
            _ if !news => None,
            HealthSeen::Unknown => None,
            HealthSeen::Ready => Some((true, "its probes pass".to_owned())),
            HealthSeen::Starting(why) | HealthSeen::NotReady(why) | HealthSeen::Failed(why) => Some((false, why)),
        };
        match told {
            Some((good, text)) => (self.notify)(HostEvent::Health(instance.object(), good, text)),
            None if changed => (self.notify)(HostEvent::Changed(instance.object())),
            None => {}
        }
        Some(course)
    }
}

impl Machine {
    /// Has the probes of exactly these asked from now on.
    pub fn watch_health(self: &Arc<Self>, runtime: &tokio::runtime::Handle, all: BTreeMap<InstanceId, Watched>) {
        let mut entries = self.health.entries();
        entries.retain(|instance, entry| all.get(instance).is_some_and(|watched| watched.pid == entry.watched.pid));
        for (instance, watched) in all {
            let health = &watched.object.spec.health;
            let (mut course, mut seen) = (Course::new(health, watched.since, now()), HealthSeen::Unknown);
            if let Some(entry) = entries.get_mut(&instance) {
                if entry.watched.object.spec.health == *health {
                    entry.watched = watched;
                    continue;
                }
                // It is asked otherwise from now on; what it has been through it need not go through again.
                if entry.course.is_started() {
                    course.pass_startup();
                }
                seen = entry.seen.clone();
            }
            let asking = Arc::clone(self).ask_on(instance.clone(), watched.pid, health.clone(), course.is_started());
            let task = runtime.spawn(asking).abort_handle();
            entries.insert(instance, Entry { watched, course, seen, task });
        }
    }

    async fn ask_on(self: Arc<Self>, instance: InstanceId, pid: u32, health: Health, started: bool) {
        let process = ask::Process { machine: self, instance, pid };
        if let (false, Some(startup)) = (started, &health.startup)
            && !process.series(Which::Startup, startup, Instant::now(), Course::is_started).await
        {
            return;
        }
        let now = Instant::now();
        let never = |_: &Course| false;
        let readiness = async {
            if let Some(probe) = &health.readiness {
                process.series(Which::Readiness, probe, now, never).await;
            }
        };
        let liveness = async {
            if let Some(probe) = &health.liveness {
                // A process that has just begun cannot answer yet, unless its startup has passed.
                let first = if health.startup.is_some() { now } else { now + probe.every.duration() };
                process.series(Which::Liveness, probe, first, never).await;
            }
        };
        tokio::join!(readiness, liveness);
    }
}

impl ask::Process {
    /// Asks again and again until it is enough: true, or it is to be asked no more: false.
    async fn series(&self, which: Which, probe: &Probe, first: Instant, enough: impl Fn(&Course) -> bool) -> bool {
        let mut at = first;
        loop {
            tokio::time::sleep_until(at).await;
            let begun = Instant::now();
            let answer = self.ask(probe).await;
            let Some(course) = self.machine.health.answered(&self.instance, self.pid, which, answer) else {
                return false;
            };
            if course.is_over() {
                return false;
            }
            if enough(&course) {
                return true;
            }
            at = begun + probe.every.duration();
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
