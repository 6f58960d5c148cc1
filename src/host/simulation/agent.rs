//! The agent of the simulation: it carries steps out as the real one does, durable intent first,
//! several at once, and it can end at any moment. Around it, people and the sources.

use super::faults::{Faults, Point};
use super::id;
use super::referee::Referee;
use super::world::{Fate, World};
use crate::plan::{
    Action, Desired, Failure, Inputs, Plan, Record, Settings, Settled, SourceState, Step, Wanted, Wish, carry, plan,
    settle,
};
use crate::spec::{InstanceId, ObjectId, Provenance, Span};
use crate::store::{MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const GRACE: Span = Span::from_secs(5);
pub(super) const RETENTION: Span = Span::from_secs(20);

#[derive(Debug, Clone)]
pub(super) enum File {
    Valid(Arc<Wanted>),
    Broken,
}

/// What the agent is shown in a round.
pub(super) struct Shown {
    pub desired: Desired,
    /// Busy objects hear nothing new.
    pub in_flight: BTreeSet<ObjectId>,
}

pub(super) struct Simulation {
    pub world: World,
    pub settings: Settings,
    /// Every object that there may be.
    pub names: Vec<ObjectId>,
    pub files: BTreeMap<ObjectId, File>,
    pub readable: bool,
    pub store: MemoryStore,
    /// As the agent has them in memory.
    pub records: BTreeMap<ObjectId, Record>,
    /// Records that ended steps have changed, and that are not on disk yet: with the step's kind.
    settled: BTreeMap<ObjectId, &'static str>,
    /// Those that the store has refused, until it takes everything.
    refused: BTreeMap<ObjectId, &'static str>,
    /// A write to the store has failed since the last one that went well.
    unsaved: bool,
    /// How far its waits have been carried as the clock was set forward, and how far those on disk were.
    carried: Span,
    carried_on_disk: Span,
    in_flight: BTreeMap<ObjectId, (Step, bool)>,
    pub approved: BTreeSet<ObjectId>,
    pub referee: Referee,
    pub faults: Faults,
    /// What happened, when it is kept: saying it costs more than doing it.
    pub log: Option<Vec<String>>,
}

impl Simulation {
    /// A world of so many objects.
    pub fn new(seed: u64, objects: usize) -> Self {
        Self {
            world: World::new(seed),
            settings: Settings {
                id_base: 1 << 20,
                id_ranges: 64,
                deletion_grace: GRACE,
                retention: RETENTION,
                max_delete: 3,
                max_delete_percent: 30,
                pruning: BTreeMap::new(),
                stop_all: false,
                halt: false,
            },
            names: (0..objects).map(|number| id(&format!("n{number}"))).collect(),
            files: BTreeMap::new(),
            readable: true,
            store: MemoryStore::default(),
            records: BTreeMap::new(),
            settled: BTreeMap::new(),
            refused: BTreeMap::new(),
            unsaved: false,
            carried: Span(0),
            carried_on_disk: Span(0),
            in_flight: BTreeMap::new(),
            approved: BTreeSet::new(),
            referee: Referee::default(),
            faults: Faults::default(),
            log: None,
        }
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9} {}", self.world.now.0 - 1_700_000_000_000, text()));
        }
    }

    pub fn pids(&self) -> BTreeMap<InstanceId, u32> {
        let running = |(id, life): (&InstanceId, &super::world::Life)| Some((id.clone(), life.process.as_ref()?.pid));
        self.world.lives.iter().filter_map(running).collect()
    }

    pub fn lose_the_database(&mut self) {
        self.say(|| "the database is lost".to_owned());
        self.store.lose_everything();
        self.crash();
        // Orders of people are lost with it.
        self.referee.orders.clear();
        self.referee.suspended.clear();
        self.referee.limits.clear();
        self.referee.forgot_at = Some(self.world.now);
        for life in self.world.lives.values_mut() {
            life.origin_unknown = true;
            if let Some(process) = &mut life.process {
                process.order_lost = process.condemned;
            }
        }
    }

    fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        let state = if self.readable {
            SourceState::Complete
        } else {
            SourceState::Unavailable { reason: "not mounted".into() }
        };
        desired.sources.insert("dir".to_owned(), state);
        if self.readable {
            for (id, file) in &self.files {
                match file {
                    File::Valid(wanted) => {
                        desired.objects.insert(id.clone(), Wish::Present(wanted.clone()));
                    }
                    // A broken text tells its name, or not.
                    File::Broken if id.name.as_str().len().is_multiple_of(2) => {
                        desired.held_files.insert(("dir".to_owned(), format!("{}.yaml", id.name)), "broken".into());
                    }
                    File::Broken => {
                        let provenance = Provenance {
                            source: "dir".to_owned(),
                            file: format!("{}.yaml", id.name),
                            path: String::new(),
                            document: 1,
                            line: 1,
                            revision: String::new(),
                            drop_ins: Vec::new(),
                        };
                        desired.objects.insert(id.clone(), Wish::Invalid { message: "broken".into(), provenance });
                    }
                }
            }
        }
        desired
    }

    fn plan(&mut self) -> (Plan, Shown) {
        let in_flight: BTreeSet<ObjectId> = self.in_flight.keys().cloned().collect();
        let desired = self.desired();
        self.approved.retain(|id| !desired.objects.contains_key(id));
        let plan = plan(Inputs {
            settings: &self.settings,
            desired: &desired,
            records: &self.records,
            seen: &self.world.observe(),
            in_flight: &in_flight,
            approved: &self.approved,
            now: self.world.now,
        });
        (plan, Shown { desired, in_flight })
    }

    /// Before anything is reckoned by a clock that was set forward.
    pub fn carry_waits(&mut self) {
        let by = Span(self.world.set_forward.0 - self.carried.0);
        if by == Span(0) {
            return;
        }
        let carried: Vec<Record> = self.records.values().filter_map(|record| carry(record, by)).collect();
        self.carried = self.world.set_forward;
        self.records.extend(carried.iter().map(|record| (record.id.clone(), record.clone())));
        if self.unsaved || self.world.is_unlucky(4) {
            self.unsaved = true;
        } else {
            self.store.put(&carried).expect("memory");
            self.carried_on_disk = self.carried;
        }
    }

    /// One round; the steps are begun, and end later.
    fn round(&mut self) -> Plan {
        self.carry_waits();
        self.save_settled();
        let (plan, shown) = self.plan();
        // What the agent could not write down is as if nobody had said it.
        if !self.write_intents(&plan) {
            return plan;
        }
        self.referee.hears(&shown, &self.world, self.settings.stop_all, &self.approved);
        for step in &plan.steps {
            assert!(!self.in_flight.contains_key(&step.object), "a second step for {}", step.object);
            self.say(|| format!("step {} {} class {}: {}", step.object, kind(&step.action), step.class, step.reason));
            let justified = self.referee.justifies(&self.world, &step.object, &step.action);
            if let (true, Action::Remove { instance }) = (justified, &step.action) {
                self.referee.doomed.insert(instance.clone());
            }
            self.in_flight.insert(step.object.clone(), (step.clone(), justified));
        }
        plan
    }

    /// Writes down what came of the steps that ended since the last round, or fails to.
    fn save_settled(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        if settled.is_empty() {
            return;
        }
        if self.world.is_unlucky(4) {
            settled.values().for_each(|kind| self.faults.count(kind, Point::ResultRefused));
            self.refused.extend(settled);
            self.unsaved = true;
            return;
        }
        let records: Vec<Record> = settled.keys().filter_map(|id| self.records.get(id).cloned()).collect();
        self.store.put(&records).expect("memory");
    }

    /// Makes durable what is about to be done. False: the disk refuses, and nothing may be done.
    fn write_intents(&mut self, plan: &Plan) -> bool {
        let intents: Vec<Record> = plan.steps.iter().filter_map(|step| step.record.clone()).collect();
        if intents.is_empty() && !self.unsaved {
            return true;
        }
        if self.world.is_unlucky(4) {
            self.say(|| "the store refuses".to_owned());
            plan.steps.iter().for_each(|step| self.faults.count(kind(&step.action), Point::IntentRefused));
            self.unsaved = true;
            return false;
        }
        if self.unsaved {
            // After a failure what is in memory may be newer than what is stored, of any object.
            let behind: Vec<Record> = self.records.values().cloned().collect();
            self.store.put(&behind).expect("memory");
            self.unsaved = false;
            self.carried_on_disk = self.carried;
            self.refused.clear();
        }
        self.store.put(&intents).expect("memory");
        self.records.extend(intents.into_iter().map(|record| (record.id.clone(), record)));
        true
    }

    /// Carries out one of the steps that were begun.
    fn carry_out(&mut self, object: &ObjectId) {
        self.carry_waits();
        let Some((step, justified)) = self.in_flight.remove(object) else { return };
        let kind = kind(&step.action);
        self.referee.judge(&self.world, object, &step.action, justified);
        let (fate, point) = self.world.apply(&step.action, true);
        self.faults.count(kind, point);
        self.referee.look(&self.world);
        let result: Result<_, Failure> = match fate {
            Fate::Crash => {
                self.say(|| format!("crash in {kind} of {object}"));
                return self.crash();
            }
            Fate::Done(result) => result,
        };
        if let Err(error) = &result {
            self.say(|| format!("{kind} of {object} failed: {}", error.message));
        }
        let Some(record) = self.records.get(object) else { return };
        match settle(record, &step.action, result, self.world.now) {
            Settled::Put(record) => {
                self.records.insert(object.clone(), *record);
                self.settled.insert(object.clone(), kind);
            }
            Settled::Forget => {
                self.records.remove(object);
                self.settled.remove(object);
                self.store.forget(std::slice::from_ref(object)).expect("memory");
                // An order ends with the object that it was about.
                self.referee.orders.remove(object);
                self.referee.suspended.remove(object);
                self.referee.limits.remove(object);
            }
            Settled::Unchanged => {}
        }
    }

    /// The agent ends in the middle of what it does; what it knows afterwards is what was durable.
    pub fn crash(&mut self) {
        for (step, _) in self.in_flight.values() {
            self.faults.count(kind(&step.action), Point::CrashAfterIntent);
        }
        let lost = [std::mem::take(&mut self.settled), std::mem::take(&mut self.refused)];
        for (object, kind) in lost.into_iter().flatten() {
            self.faults.count(kind, Point::ResultLost);
            if matches!(kind, "signal" | "kill") {
                self.world.forget_order(&object);
            }
        }
        self.unsaved = false;
        self.in_flight.clear();
        self.approved.clear();
        self.store.crash();
        self.carried = self.carried_on_disk;
        let records = self.store.scan().expect("memory");
        self.records = records.into_iter().map(|record| (record.id.clone(), record)).collect();
    }

    /// Things happen, and the agent does its work in between, or does not get to it.
    pub fn live(&mut self, rounds: u32) {
        for _ in 0..rounds {
            // As much for each object in a large world as in a small one.
            for _ in 0..=self.names.len() / 8 {
                self.happen();
            }
            if !self.world.dice.one_in(4) {
                self.round();
            }
            let begun: Vec<ObjectId> = self.in_flight.keys().cloned().collect();
            for object in begun {
                if !self.world.dice.one_in(4) {
                    self.carry_out(&object);
                }
            }
        }
    }

    fn finish_all(&mut self) {
        while let Some(object) = self.in_flight.keys().next().cloned() {
            self.carry_out(&object);
        }
    }

    /// So many rounds, with time passing between them.
    pub fn rounds(&mut self, count: u32, pause: Span) {
        for _ in 0..count {
            self.round();
            self.finish_all();
            self.world.pass(pause);
        }
    }

    /// Faults stop, somebody repairs the source, resumes what is suspended and approves what is held; rest has to be reached.
    pub fn come_to_rest(&mut self) {
        let faults = std::mem::replace(&mut self.world.faults, 0);
        self.readable = true;
        self.say(|| "faults stop".to_owned());
        self.world.obey();
        self.resume_all();
        for rounds in 0..1_000 {
            if rounds == 80 {
                // What waits for memory to be given back would wait for ever.
                let processes = self.world.lives.values_mut().filter_map(|life| life.process.as_mut());
                processes.for_each(|process| process.uses = 0);
            }
            self.approved = self.names.iter().cloned().collect();
            self.finish_all();
            self.world.heal();
            let plan = self.round();
            match plan.wake_at {
                _ if !plan.steps.is_empty() => {}
                Some(at) => {
                    assert!(at > self.world.now, "to be woken in the past is to spin");
                    self.world.pass(at.since(self.world.now));
                }
                None => break,
            }
        }
        let (plan, _) = self.plan();
        assert!(plan.steps.is_empty(), "no rest: {:?}", plan.steps);
        self.referee.judge_rest(&self.world, &self.files, &self.records, self.settings.stop_all);
        // Rest stays rest.
        self.world.pass(Span::from_secs(3_600));
        if plan.wake_at.is_none() {
            let (later, _) = self.plan();
            assert!(later.steps.is_empty(), "rest ends by itself: {:?}", later.steps);
        }
        self.approved.clear();
        self.world.faults = faults;
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Note => "note",
        Action::Check { .. } => "check",
        Action::Start { .. } => "start",
        Action::Resize { .. } => "resize",
        Action::Signal { .. } => "signal",
        Action::Kill { .. } => "kill",
        Action::Collect { .. } => "collect",
        Action::Remove { .. } => "remove",
        Action::Forget => "forget",
    }
}
