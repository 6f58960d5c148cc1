//! The loop: wait, read, look, plan, write down, act. It decides nothing.
//!
//! What becomes of a plan is in [`steps`], what is remembered in [`memory`], and what is said in [`news`].

mod memory;
mod news;
mod steps;

use super::clock::Clock;
use super::history::History;
use super::inbox::{Done, Message, Sender};
use super::journal::Journal;
use super::options::{Options, Pace};
use super::queue::Queue;
use super::sources::Sources;
use super::{Counts, EventType, View, Which, preview, status};
use crate::host::{Host, Machine, Scope, Watched};
use crate::plan::{Desired, Failure, Finding, Inputs, Phase, ProcessSeen, Record, Seen, Settings, Sighting, Wish};
use crate::spec::change::Class;
use crate::spec::{InstanceId, ObjectId, Timestamp};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{oneshot, watch};

/// How many rounds may follow each other at once because the last one only wrote things down. More
/// than this is a planner that does not come to rest, and waits for the next event instead.
const NOTES_IN_A_ROW: usize = 64;
/// Whoever watches is told of changes at most this often.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// After the store refused a write or the host could not be looked at, the next try.
const RETRY: Duration = Duration::from_secs(1);
/// A deadline that is over is not waited for in a circle.
const SHORTEST: Duration = Duration::from_millis(5);

/// Runs on a thread of its own: a round waits for disks and for the kernel, and a deadline of the window
/// after a file event is to be met to a fraction of a millisecond, which tokio's timer does not.
pub(super) struct Driver {
    pub host: Arc<dyn Host>,
    pub machine: Arc<Machine>,
    pub store: Box<dyn Store>,
    pub settings: Settings,
    /// As the agent was started: some of it holds until it is started again.
    pub options: Options,
    /// Where they can be read again.
    pub reread: Option<super::reload::Reread>,
    pub clock: Clock,
    pub pace: Pace,
    pub sources: Sources,
    pub journal: Journal,
    pub history: History,
    pub inbox: Receiver<Message>,
    pub sender: Sender,
    /// Counts the times that something changed that can be shown.
    pub changes: watch::Sender<u64>,
    /// What there was to see when the driver left.
    pub last: Arc<Mutex<Arc<View>>>,
    pub facts: status::AgentFacts,
    pub counts: Counts,

    pub desired: Desired,
    pub records: BTreeMap<ObjectId, Record>,
    pub seen: Seen,
    pub findings: BTreeMap<ObjectId, Finding>,
    pub decisions: BTreeMap<ObjectId, Decision>,
    pub queue: Queue,
    /// Objects whose record an ended action has changed, and that is not on disk yet.
    pub settled: BTreeSet<ObjectId>,
    pub approved: BTreeSet<ObjectId>,
    /// Something came that the planner is to be asked about: not merely a file event, whose time is yet
    /// to come, or a question.
    pub again: bool,
    /// Objects to look at in the next round; `None` is everything.
    pub look: Option<BTreeSet<ObjectId>>,
    pub next_resync: Instant,
    pub wake_at: Option<Timestamp>,
    /// The same by a clock that nobody sets.
    pub wake_by: Option<Instant>,
    pub retry_at: Option<Instant>,
    /// The store could not be read yet: what was intended before this start is not known.
    pub unread: bool,
    /// A write to the store has failed since the last one that went well.
    pub unsaved: bool,
    /// What the agent itself fails at, said once until it is something else.
    pub trouble: Option<String>,
    /// Where workers come from.
    pub runtime: tokio::runtime::Handle,
    /// People who wait for servers first.
    pub asked: Vec<super::orders::Asked>,
    /// People who wait for a round that reads and looks at everything.
    pub reconciled: Vec<super::orders::Asked>,
    /// Who ordered everything to stop, and waits for it.
    pub stopping: Vec<oneshot::Sender<Result<String, super::CommandError>>>,
    pub last_shown: Instant,
    pub dirty_view: bool,
}

/// The last thing that was decided about an object, for `plim why`.
pub(super) struct Decision {
    pub at: Timestamp,
    pub class: Class,
    pub reason: String,
    pub action: &'static str,
    pub changes: Vec<crate::spec::change::FieldChange>,
    /// What came of it, when it is over.
    pub result: Option<String>,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Everything goes on running.
    Running,
    /// Everything was stopped and removed.
    Stopped,
}

impl Driver {
    /// Runs until it is told to leave.
    pub fn run(mut self) -> Left {
        let left = self.go_on();
        let last = Arc::new(self.view(&Which::All));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        left
    }

    fn go_on(&mut self) -> Left {
        loop {
            let mut leave = false;
            if std::mem::take(&mut self.again) || self.is_due() {
                self.rounds();
            }
            if self.dirty_view && self.last_shown.elapsed() >= SHOW_EVERY {
                self.show();
            }
            if self.settings.stop_all && self.records.is_empty() && self.queue.is_empty() {
                for reply in self.stopping.drain(..) {
                    // Whoever ordered it may have gone away meanwhile.
                    drop(reply.send(Ok("everything is stopped and removed".to_owned())));
                }
                return Left::Stopped;
            }
            let wait = self.wait().saturating_duration_since(Instant::now());
            // Our own sender keeps it open: the one error is that nothing came in time.
            let mut next = self.inbox.recv_timeout(wait).ok();
            while let Some(message) = next {
                leave |= self.take(message);
                next = self.inbox.try_recv().ok();
            }
            if leave || self.has_halted() {
                self.save_settled();
                return Left::Running;
            }
        }
    }

    /// Whether nothing runs any more, where that was wanted.
    fn has_halted(&self) -> bool {
        let runs = |sighting: &Sighting| matches!(sighting.process, ProcessSeen::Running { .. });
        self.settings.halt && self.facts.rounds > 0 && self.queue.is_empty() && !self.seen.instances.values().any(runs)
    }

    /// When to go on if no message comes.
    fn wait(&self) -> Instant {
        let mut wait = self.next_resync;
        let polling = self.sources.polling().then(|| Instant::now() + Duration::from_secs(1));
        let shown = self.dirty_view.then(|| self.last_shown + SHOW_EVERY);
        // A clock that is set forward calls for a round, which carries the waits along; one that is set back must
        // not make them longer.
        let planned = self.wake_at.map(|at| Instant::now() + at.since(now()).duration().max(SHORTEST));
        let planned = planned.into_iter().chain(self.wake_by).min();
        for at in [self.sources.due(), polling, shown, planned, self.retry_at].into_iter().flatten() {
            wait = wait.min(at);
        }
        wait
    }

    /// Whether the time of a round has come by itself.
    fn is_due(&self) -> bool {
        let instant = Instant::now();
        let deadlines = [Some(self.next_resync), self.sources.due(), self.retry_at];
        deadlines.into_iter().flatten().any(|at| at <= instant)
            || self.sources.polling()
            || self.wake_at.is_some_and(|at| at <= now())
            || self.wake_by.is_some_and(|by| by <= instant)
    }

    /// Takes one message in. True: leave.
    fn take(&mut self, message: Message) -> bool {
        self.carry_waits();
        match message {
            Message::SourceChanged(at) => self.sources.touched(at),
            Message::Fetched(fetched) => self.fetched(*fetched),
            Message::Revisions { source, reply } => drop(reply.send(self.sources.revisions(&source))),
            Message::Compare { source, from, to, reply } => {
                drop(reply.send(self.sources.compare(&source, &from, to.as_deref())));
            }
            Message::WatchLost(reason) => {
                self.journal.note(now(), EventType::Warning, "agent", "WatchLost", reason);
                self.counts.watch_losses += 1;
                self.sources.lost();
                self.next_resync = Instant::now();
            }
            Message::HostChanged(object) => {
                self.again = true;
                self.look_at(object);
            }
            Message::HealthChanged(object, good, text) => {
                let (kind, reason) =
                    if good { (EventType::Normal, "Healthy") } else { (EventType::Warning, "Unhealthy") };
                self.journal.note(now(), kind, &object.to_string(), reason, text);
                self.again = true;
                self.look_at(object);
            }
            Message::KeeperLost => {
                let text = "the keeper went away; containers go on, and a new keeper takes over".to_owned();
                self.journal.note(now(), EventType::Warning, "agent", "KeeperLost", text);
                self.again = true;
                self.look = None;
            }
            Message::KeeperNews(kind, reason, text) => {
                self.journal.note(now(), kind, "agent", reason, text);
                self.dirty_view = true;
            }
            Message::Done(done) => {
                let Done { object, action, result } = *done;
                self.again = true;
                self.queue.ended(&object);
                self.hand_out();
                self.done(object, &action, result);
            }
            Message::Order { command, by, reply } => {
                self.again = true;
                self.order(command, by, reply);
            }
            Message::Show { which, reply } => {
                // What waits for a time is said with how long that is yet.
                self.again |= self.wake_at.is_some();
                // A reader that has gone needs no answer; the same below.
                drop(reply.send(Arc::new(self.view(&which))));
            }
            Message::Preview { request, reply } => {
                let inputs = self.inputs();
                drop(reply.send(preview::report(&inputs, &request)));
            }
            Message::Alive { reply } => drop(reply.send(())),
            Message::Why { object, reply } => drop(reply.send(self.why(&object))),
            Message::Leave => return true,
        }
        false
    }

    pub fn look_at(&mut self, object: ObjectId) {
        if let Some(look) = &mut self.look {
            look.insert(object);
        }
    }

    /// Rounds until there is nothing left that can be done at once.
    fn rounds(&mut self) {
        self.save_settled();
        for _ in 0..NOTES_IN_A_ROW {
            if !self.round() {
                break;
            }
        }
    }

    /// One round. True when only records changed and the next round may follow at once.
    fn round(&mut self) -> bool {
        let resync = Instant::now() >= self.next_resync;
        if resync {
            self.look = None;
            self.next_resync = Instant::now() + jittered(self.pace.resync, self.facts.rounds);
        }
        let due = self.sources.due().is_some_and(|due| due <= Instant::now());
        let listed = resync || due || self.sources.polling();
        if let Some(desired) = listed.then(|| self.sources.read(now())).flatten() {
            self.note_source_changes(&desired);
            self.desired = desired;
            self.share();
            self.take_back_what_is_outdated();
            self.dirty_view = true;
        }
        if resync && let Err(error) = self.store.check() {
            self.store_failed(&error);
        }
        if self.unread && !self.remember() {
            return false;
        }
        self.carry_waits();
        // Consent is for one absence: what has come back is asked for anew.
        self.approved.retain(|id| !self.desired.objects.contains_key(id));
        if let Err(error) = self.observe() {
            self.fail("ObserveFailed", error.message);
            self.look = None;
            return false;
        }
        self.facts.rounds += 1;
        self.facts.last_round = Some(now());
        if resync {
            self.reconciled.drain(..).for_each(super::orders::Asked::answer);
        }
        let plan = crate::plan::plan(self.inputs());
        let noted = self.execute(plan);
        self.watch_health();
        noted
    }

    /// Has the probes asked of whatever runs and has some.
    fn watch_health(&self) {
        let with_probes = self.records.values().filter(|record| !record.accepted.spec.health.is_none());
        let watched = with_probes.filter_map(|record| {
            let instance = record.instance.as_ref().filter(|instance| instance.phase == Phase::Running)?;
            let sighting = self.seen.instances.get(&instance.id)?;
            let ProcessSeen::Running { pid, since, ignores_stop: _ } = sighting.process else { return None };
            let object = Arc::clone(&record.accepted);
            Some((instance.id.clone(), Watched { pid, since, object }))
        });
        self.machine.watch_health(&self.runtime, watched.collect());
    }

    /// Keeps one copy of what a record and a manifest both say, as after a start with a database: the
    /// planner compares the two in every round, and of one copy it compares the address.
    fn share(&mut self) {
        for (id, record) in &mut self.records {
            let Some(Wish::Present(wanted)) = self.desired.objects.get(id) else { continue };
            if Arc::ptr_eq(&record.accepted, &wanted.object) || record.accepted != wanted.object {
                continue;
            }
            if let Some(instance) = &mut record.instance
                && Arc::ptr_eq(&instance.started_from, &record.accepted)
            {
                instance.started_from = Arc::clone(&wanted.object);
            }
            record.accepted = Arc::clone(&wanted.object);
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            settings: &self.settings,
            desired: &self.desired,
            records: &self.records,
            seen: &self.seen,
            in_flight: self.queue.in_flight(),
            approved: &self.approved,
            now: now(),
        }
    }

    fn observe(&mut self) -> Result<(), Failure> {
        match self.look.replace(BTreeSet::new()) {
            None => self.seen = self.host.observe(Scope::All)?,
            Some(look) if look.is_empty() => {}
            Some(look) => {
                let fresh = self.host.observe(Scope::Objects(&look))?;
                for object in &look {
                    let all = InstanceId::new(object, 0)..=InstanceId::new(object, u64::MAX);
                    let old: Vec<InstanceId> = self.seen.instances.range(all).map(|(id, _)| id.clone()).collect();
                    old.iter().for_each(|id| drop(self.seen.instances.remove(id)));
                }
                self.seen.instances.extend(fresh.instances);
                self.dirty_view = true;
            }
        }
        Ok(())
    }
}

/// The wall clock, which records and deadlines are in.
pub(super) fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// The period give or take a quarter, so that many agents on one disk do not beat together.
fn jittered(period: Duration, round: u64) -> Duration {
    let spread = u64::try_from(period.as_millis()).unwrap_or(u64::MAX) / 2;
    let seed = u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(round);
    period * 3 / 4 + Duration::from_millis(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) % spread.max(1))
}
