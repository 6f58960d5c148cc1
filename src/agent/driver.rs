//! The loop: wait, read, look, plan, write down, act. It decides nothing.

use super::clock::{Clock, Reading};
use super::history::{History, Report};
use super::inbox::{Done, Message, Sender};
use super::journal::Journal;
use super::options::{Options, Pace};
use super::queue::Queue;
use super::sources::Sources;
use super::{Change, Counts, EventType, View, Which, preview, status};
use crate::host::{Host, Machine, Missing, Scope, Watched};
use crate::plan::{
    Action, Desired, Failure, Finding, Inputs, Outcome, Phase, Plan, ProcessSeen, Record, Seen, Settings, Settled,
    Sighting, Step, Wish,
};
use crate::spec::change::Class;
use crate::spec::{InstanceId, ObjectId, Timestamp};
use crate::store::Store;
use crate::sys::may_die;
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
        // A clock that is set forward ends waits early, and one that is set back must not make them longer.
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

    /// Before anything is reckoned by a clock that was set forward: what waits goes on waiting as long as it
    /// was to. What cannot be written down now is as if no agent had run since, and the next one sees to it.
    fn carry_waits(&mut self) {
        if self.unread {
            return;
        }
        if let Some(by) = self.clock.set_forward(Reading::now()) {
            let carried = self.records.values().filter_map(|record| crate::plan::carry(record, by));
            let carried: Vec<Record> = carried.collect();
            let span = humantime::format_duration(by.duration());
            let text = format!("the clock was set forward by {span}; {} objects wait as long as before", carried.len());
            self.journal.note(now(), EventType::Normal, "agent", "ClockSet", text);
            self.records.extend(carried.iter().map(|record| (record.id.clone(), record.clone())));
            if !carried.is_empty() && !self.unsaved {
                let written = self.store.put(&carried);
                self.keep(written);
            }
            self.again = true;
        }
        if !self.unsaved
            && let Err(error) = self.clock.keep()
        {
            // Only for the next agent, which then believes the clock.
            tracing::debug!(error = %error, "noting the clock failed");
        }
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

    /// The store could not be read when the agent started. Until it can be, nothing is decided.
    pub fn is_without_memory(&mut self, error: &crate::store::StoreError) {
        self.unread = true;
        self.store_failed(error);
    }

    /// Reads what could not be read before. False: still not.
    fn remember(&mut self) -> bool {
        match self.store.scan() {
            Ok(records) => {
                self.records = records.into_iter().map(|record| (record.id.clone(), record)).collect();
                self.share();
            }
            // Whoever takes everything along needs no memory of it.
            Err(error) if self.settings.stop_all => self.store_failed(&error),
            Err(error) => {
                self.store_failed(&error);
                return false;
            }
        }
        self.unread = false;
        true
    }

    /// What happened to the store is said, and stays in the status.
    fn note_store_news(&mut self) {
        for text in self.store.news() {
            self.journal.note(now(), EventType::Warning, "agent", "DatabaseDamaged", text.clone());
            self.facts.warnings.push(text);
            self.dirty_view = true;
        }
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

    /// Writes down what is intended, then begins it. True when the next round may follow at once.
    fn execute(&mut self, plan: Plan) -> bool {
        self.note_findings(plan.findings);
        self.wake_at = plan.wake_at;
        self.wake_by = plan.wake_at.map(|at| Instant::now() + at.since(now()).duration().max(SHORTEST));
        if self.retry_at.is_some_and(|at| at > Instant::now()) && !self.settings.stop_all {
            return false;
        }
        self.retry_at = None;
        let intents: Vec<Record> = plan.steps.iter().filter_map(|step| step.record.clone()).collect();
        if !intents.is_empty() || self.unsaved {
            // After a failure what is in memory may be newer than what is stored, of any object.
            let older = self.records.values().filter(|record| intents.iter().all(|intent| intent.id != record.id));
            let behind: Vec<Record> = if self.unsaved { older.cloned().collect() } else { Vec::new() };
            match self.store.put(&[behind, intents.clone()].concat()) {
                Ok(()) => {
                    self.unsaved = false;
                    may_die("intended");
                }
                // Whoever leaves and takes everything along needs no memory of it.
                Err(error) if self.settings.stop_all => self.store_failed(&error),
                Err(error) => {
                    self.store_failed(&error);
                    return false;
                }
            }
            for record in intents {
                self.records.insert(record.id.clone(), record);
            }
        }
        self.note_store_news();
        if !self.unsaved {
            self.recovered();
        }
        let mut noted = false;
        for step in plan.steps {
            self.dirty_view = true;
            noted |= matches!(step.action, Action::Note | Action::Forget);
            self.begin(step);
        }
        noted
    }

    fn begin(&mut self, step: Step) {
        let action = name(&step.action);
        // What follows them is said; they are bookkeeping.
        let quiet = matches!(step.action, Action::Forget | Action::Check { .. });
        if !step.reason.is_empty() && !quiet {
            let object = step.object.to_string();
            let text =
                if step.changes.is_empty() { step.reason.clone() } else { format!("{}: {}", step.class, step.reason) };
            self.journal.note(now(), EventType::Normal, &object, action, text);
        }
        let Step { object: _, class, reason, changes, record: _, action: _ } = &step;
        let (reason, changes) = (reason.clone(), changes.clone());
        let decision = Decision { at: now(), class: *class, reason, action, changes, result: None };
        self.decisions.insert(step.object.clone(), decision);
        match step.action {
            Action::Note => {
                let is_change = self.decisions.get(&step.object).is_some_and(|decision| !decision.changes.is_empty());
                if is_change {
                    self.report(&step.object, "taken over, nothing to do");
                }
                return;
            }
            // The host is not asked: what is to be forgotten was seen to be gone.
            Action::Forget => return self.done(step.object, &step.action, Ok(Outcome::Done)),
            Action::Start { .. }
            | Action::Check { .. }
            | Action::Resize { .. }
            | Action::Signal { .. }
            | Action::Kill { .. }
            | Action::Collect { .. }
            | Action::Remove { .. } => {}
        }
        self.queue.push(step.object, step.action);
        self.hand_out();
    }

    /// Takes back what waits and was decided for another revision than is asked for now.
    fn take_back_what_is_outdated(&mut self) {
        let (desired, records) = (&self.desired.objects, &self.records);
        let outdated = |object: &ObjectId| match (desired.get(object), records.get(object)) {
            (Some(Wish::Present(wanted)), Some(record)) => wanted.object != record.accepted,
            (None, Some(record)) => record.absent_since.is_none(),
            // What cannot be read changes nothing, and what has no record is not waited for.
            (Some(_), _) | (None, None) => false,
        };
        let outdated: BTreeSet<ObjectId> = self.queue.waiting().filter(|object| outdated(object)).cloned().collect();
        self.take_back(|object| outdated.contains(object));
    }

    /// Takes back what no worker has begun: it is decided anew. What was recorded for it is what a death at
    /// this moment would have left.
    pub(super) fn take_back(&mut self, which: impl Fn(&ObjectId) -> bool) {
        for object in self.queue.take_back(which) {
            self.look_at(object);
            self.again = true;
        }
    }

    /// Gives actions to workers, as long as there are any free.
    fn hand_out(&mut self) {
        while let Some((object, action)) = self.queue.next() {
            let (host, sender) = (self.host.clone(), self.sender.clone());
            self.runtime.spawn_blocking(move || {
                let result = host.apply(&action);
                // The driver has left: the next one will look for itself.
                drop(sender.send(Message::Done(Box::new(Done { object, action, result }))));
            });
        }
    }

    /// Adds what was just done to the object's history; a try that ended as the one before it did is the
    /// same news.
    fn report(&self, object: &ObjectId, result: &str) {
        let (Some(decision), Some(record)) = (self.decisions.get(object), self.records.get(object)) else { return };
        if decision.reason.starts_with("tried again") {
            return;
        }
        let report = Report {
            at: decision.at,
            generation: record.generation,
            class: decision.class,
            action: decision.action.to_owned(),
            reason: decision.reason.clone(),
            changes: decision.changes.clone(),
            source: super::history::source(&record.provenance),
            result: result.to_owned(),
            took_ms: now().since(decision.at).0,
        };
        if let Err(error) = self.history.add(object, &report) {
            tracing::warn!(%object, %error, "a line of its history could not be written");
        }
    }

    fn done(&mut self, object: ObjectId, action: &Action, result: Result<Outcome, Failure>) {
        self.look_at(object.clone());
        self.dirty_view = true;
        let id = object.to_string();
        let result = result.map_err(|failure| self.located(&object, failure));
        let (kind, reason, text) = match &result {
            Ok(Outcome::Started { pid, unsupported, .. }) if unsupported.is_empty() => {
                (EventType::Normal, "Started", format!("running as process {pid}"))
            }
            Ok(Outcome::Started { pid, unsupported, .. }) => {
                let missing = unsupported.join(", ");
                (
                    EventType::Warning,
                    "Started",
                    format!("running as process {pid}; this host has no knob for {missing}"),
                )
            }
            Ok(Outcome::Resized { deferred: Some(deferred), .. }) => {
                (EventType::Warning, "ResizeDeferred", deferred.message.clone())
            }
            Ok(Outcome::Resized { .. }) => (EventType::Normal, "Resized", "written and read back".to_owned()),
            Ok(Outcome::Done) => (EventType::Normal, name(action), String::new()),
            Err(failure) => (EventType::Warning, "Failed", failure.message.clone()),
        };
        if !text.is_empty() {
            self.journal.note(now(), kind, &id, reason, text.clone());
        }
        let text = if text.is_empty() { "done".to_owned() } else { text };
        let is_change = matches!(
            action,
            Action::Start { .. } | Action::Resize { .. } | Action::Signal { .. } | Action::Remove { .. }
        );
        if is_change {
            self.report(&object, &text);
            let class = self.decisions.get(&object).map_or(Class::None, |decision| decision.class);
            self.counts.changed(Change { class, action: name(action), went_well: result.is_ok() });
        }
        if let Some(decision) = self.decisions.get_mut(&object) {
            decision.result = Some(text);
        }
        let Some(record) = self.records.get(&object) else { return };
        match crate::plan::settle(record, action, result, now()) {
            Settled::Put(record) => {
                self.records.insert(object.clone(), *record);
                self.settled.insert(object);
            }
            Settled::Forget => {
                self.records.remove(&object);
                self.approved.remove(&object);
                self.decisions.remove(&object);
                self.settled.remove(&object);
                self.journal.note(now(), EventType::Normal, &id, "Removed", "nothing of it is left".to_owned());
                may_die("gone");
                let written = self.store.forget(std::slice::from_ref(&object));
                self.keep(written);
                may_die("forgotten");
            }
            Settled::Unchanged => {}
        }
    }

    /// Writes down what came of the actions that ended since the last round: all in one, because each
    /// write waits for the disk.
    fn save_settled(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        let records: Vec<Record> = settled.iter().filter_map(|id| self.records.get(id).cloned()).collect();
        if !records.is_empty() {
            may_die("done");
            let written = self.store.put(&records);
            self.keep(written);
            may_die("settled");
        }
    }

    /// What is remembered in memory is right; what is on disk is older, and a restart that finds it so
    /// does the step again, which is harmless.
    fn keep(&mut self, written: Result<(), crate::store::StoreError>) {
        if let Err(error) = written {
            self.store_failed(&error);
        }
    }

    /// With the place in the manifest that the failure is about.
    fn located(&self, object: &ObjectId, failure: Failure) -> Failure {
        let Failure { message, field } = failure;
        let place = field.as_ref().zip(self.records.get(object)).and_then(|(field, record)| {
            let missing = Missing { field: field.clone(), message: message.clone() };
            crate::host::pointed(&record.provenance, &missing)
        });
        Failure { message: place.map_or(message, |place| place.to_string()), field }
    }

    fn store_failed(&mut self, error: &crate::store::StoreError) {
        let text = format!("{}; nothing is changed on the host until it can be written", crate::host::chain(error));
        self.unsaved = true;
        self.note_store_news();
        self.fail("StoreFailed", text);
    }

    /// The agent itself cannot go on: said once, tried again in a moment.
    fn fail(&mut self, reason: &str, text: String) {
        self.retry_at = Some(Instant::now() + RETRY);
        if self.trouble.as_ref() != Some(&text) {
            self.journal.note(now(), EventType::Warning, "agent", reason, text.clone());
            self.trouble = Some(text);
            self.dirty_view = true;
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.journal.note(now(), EventType::Normal, "agent", "Recovered", "it works again".to_owned());
            self.dirty_view = true;
        }
    }

    /// Says what became different about an object's standing, once.
    fn note_findings(&mut self, findings: BTreeMap<ObjectId, Finding>) {
        use crate::plan::Sync;
        if findings == self.findings {
            return;
        }
        self.dirty_view = true;
        for (id, finding) in &findings {
            let before = self.findings.get(id).map(|finding| (finding.sync, &finding.message));
            if before.is_some_and(|before| before == (finding.sync, &finding.message)) {
                continue;
            }
            let kind = match finding.sync {
                Sync::Invalid | Sync::Unavailable | Sync::Held => EventType::Warning,
                // Everything is leaving; what its text says does not matter any more.
                _ if self.settings.stop_all => continue,
                Sync::Deleting | Sync::Overridden | Sync::Suspended => EventType::Normal,
                // Their steps say it.
                Sync::Synced | Sync::Pending | Sync::Failed | Sync::Deferred => continue,
            };
            if before.is_some_and(|(sync, _)| sync == finding.sync) && finding.sync == Sync::Deleting {
                continue;
            }
            let reason = format!("{:?}", finding.sync);
            // The rest of a diagnostic is the line itself with its caret: for the status, not for here.
            let first = finding.message.lines().next().unwrap_or_default().to_owned();
            self.journal.note(now(), kind, &id.to_string(), &reason, first);
        }
        self.findings = findings;
    }

    /// Says once when a source goes away or comes back, and marks what changed to be looked at.
    fn note_source_changes(&mut self, desired: &Desired) {
        use crate::plan::SourceState;
        for (name, state) in &desired.sources {
            if self.desired.sources.get(name) == Some(state) {
                continue;
            }
            let object = format!("Source/{name}");
            match state {
                SourceState::Complete => {
                    let text = format!("read completely, {} objects in all sources", desired.objects.len());
                    self.journal.note(now(), EventType::Normal, &object, "SourceRead", text);
                }
                SourceState::Unavailable { reason } => {
                    self.counts.source_failed(name);
                    self.journal.note(now(), EventType::Warning, &object, "SourceUnavailable", reason.to_string());
                }
            }
        }
        for (key, reason) in &desired.held_files {
            if self.desired.held_files.get(key) != Some(reason) {
                let object = format!("Source/{}", key.0);
                self.journal.note(now(), EventType::Warning, &object, "Invalid", reason.to_string());
            }
        }
    }

    fn show(&mut self) {
        self.dirty_view = false;
        self.last_shown = Instant::now();
        self.changes.send_modify(|count| *count += 1);
    }

    fn view(&self, which: &Which) -> View {
        let sources = self.sources.views(&self.desired, &self.settings.pruning);
        let mut view = status::view(&self.inputs(), &self.findings, &self.facts, sources, &self.machine, which);
        view.counts =
            Counts { waiting: self.queue.waiting().count(), working: self.queue.busy(), ..self.counts.clone() };
        view.summary.warnings.extend(self.trouble.clone());
        view.summary.warnings.extend(self.machine.keeper_warning());
        view
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

/// The action in one word, for events.
pub(super) fn name(action: &Action) -> &'static str {
    match action {
        Action::Note => "Noted",
        Action::Check { .. } => "Checking",
        Action::Start { .. } => "Starting",
        Action::Resize { .. } => "Resizing",
        Action::Signal { .. } => "Stopping",
        Action::Kill { .. } => "Killing",
        Action::Collect { .. } => "Collecting",
        Action::Remove { .. } => "Removing",
        Action::Forget => "Forgetting",
    }
}
