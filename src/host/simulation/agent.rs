//! The agent of the simulation: it carries steps out as the real one does, durable intent first,
//! several at once, and it can end at any moment. Around it, people and the sources.

use super::referee::{Asked, Referee};
use super::world::{Fate, World};
use super::{id, object};
use crate::plan::{
    Action, Desired, Failure, Inputs, Override, OverrideState, Plan, Record, Settings, Settled, SourceState, Step,
    Wanted, Wish, plan, settle,
};
use crate::spec::{Bytes, InstanceId, Object, ObjectId, Provenance, Span};
use crate::store::{MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const NAMES: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
pub(super) const GRACE: Span = Span::from_secs(5);

#[derive(Debug, Clone)]
pub(super) enum File {
    Valid(Arc<Wanted>),
    Broken,
}

pub(super) struct Simulation {
    pub world: World,
    pub settings: Settings,
    pub files: BTreeMap<ObjectId, File>,
    pub readable: bool,
    store: MemoryStore,
    in_flight: BTreeMap<ObjectId, (Step, bool)>,
    approved: BTreeSet<ObjectId>,
    pub referee: Referee,
    pub log: Vec<String>,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        Self {
            world: World::new(seed),
            settings: Settings {
                id_base: 1 << 20,
                id_ranges: 64,
                deletion_grace: GRACE,
                max_delete: 3,
                max_delete_percent: 30,
                stop_all: false,
            },
            files: BTreeMap::new(),
            readable: true,
            store: MemoryStore::default(),
            in_flight: BTreeMap::new(),
            approved: BTreeSet::new(),
            referee: Referee::default(),
            log: Vec::new(),
        }
    }

    fn say(&mut self, text: String) {
        self.log.push(format!("{:>9} {text}", self.world.now.0 - 1_700_000_000_000));
    }

    pub fn records(&self) -> BTreeMap<ObjectId, Record> {
        let records = self.store.scan().expect("memory");
        records.into_iter().map(|record| (record.id.clone(), record)).collect()
    }

    pub fn pids(&self) -> BTreeMap<InstanceId, u32> {
        let running = |(id, life): (&InstanceId, &super::world::Life)| Some((id.clone(), life.process.as_ref()?.pid));
        self.world.lives.iter().filter_map(running).collect()
    }

    pub fn lose_the_database(&mut self) {
        self.say("the database is lost".to_owned());
        self.crash();
        self.store.lose_everything();
        // Orders of people are lost with it.
        self.referee.orders.clear();
        self.referee.forgot_at = Some(self.world.now);
        for life in self.world.lives.values_mut() {
            life.origin_unknown = true;
            if let Some(process) = &mut life.process {
                process.order_lost = process.condemned;
            }
        }
    }

    fn write_file(&mut self, name: &str) {
        let dice = &mut self.world.dice;
        let memory = [64, 128, 256, 512][usize::try_from(dice.roll(4)).expect("small")];
        let command = dice.roll(2);
        let image = if dice.one_in(4) { "rootfs:/srv/x" } else { "host:/" };
        let state = if dice.one_in(8) { "stopped" } else { "running" };
        let policy = ["always", "always", "onFailure", "never"][usize::try_from(dice.roll(4)).expect("small")];
        let userns = !dice.one_in(8);
        let yaml = format!(
            "{{image: '{image}', command: [c{command}], desiredState: {state}, restart: {{policy: {policy}}}, \
             stop: {{grace: 7s}}, security: {{userNamespace: {userns}}}, resources: {{memory: {{limit: {memory}Mi}}}}}}"
        );
        let mut object = object(name, &yaml);
        object.labels.insert("l".to_owned(), self.world.dice.roll(3).to_string());
        self.put_file(object);
    }

    pub fn put_file(&mut self, object: Object) {
        let provenance = Provenance {
            source: "dir".to_owned(),
            file: format!("{}.yaml", object.id.name),
            path: format!("/m/{}.yaml", object.id.name),
            document: 1,
            line: 1,
            revision: "r".to_owned(),
        };
        self.say(format!(
            "file {} image {} command {:?} {:?} {:?} userns {} memory {:?}",
            object.id,
            object.spec.image,
            object.spec.command,
            object.spec.desired_state,
            object.spec.restart.policy,
            object.spec.security.user_namespace,
            object.spec.resources.memory.limit
        ));
        self.files.insert(object.id.clone(), File::Valid(Arc::new(Wanted { object: Arc::new(object), provenance })));
    }

    pub fn files_for(&mut self, count: usize) {
        for name in &NAMES[..count] {
            self.put_file(object(name, "{image: 'host:/', command: [c], resources: {memory: {limit: 64Mi}}}"));
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
                    File::Broken if id.name.as_str() < "d" => {
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
                        };
                        desired.objects.insert(id.clone(), Wish::Invalid { message: "broken".into(), provenance });
                    }
                }
            }
        }
        desired
    }

    fn plan(&mut self) -> Plan {
        let in_flight: BTreeSet<ObjectId> = self.in_flight.keys().cloned().collect();
        let desired = self.desired();
        self.referee.hears(&desired, &self.world, &in_flight, self.settings.stop_all, &self.approved);
        plan(Inputs {
            settings: &self.settings,
            desired: &desired,
            records: &self.records(),
            seen: &self.world.observe(),
            in_flight: &in_flight,
            approved: &self.approved,
            now: self.world.now,
        })
    }

    /// One round; the steps are begun, and end later.
    fn round(&mut self) -> Plan {
        let plan = self.plan();
        for step in &plan.steps {
            assert!(!self.in_flight.contains_key(&step.object), "a second step for {}", step.object);
            self.say(format!("step {} {:?} class {}: {}", step.object, kind(&step.action), step.class, step.reason));
            if let Some(record) = &step.record {
                self.store.put(std::slice::from_ref(record)).expect("memory");
            }
            let justified = self.referee.justifies(&self.world, &step.action);
            if let (true, Action::Remove { instance }) = (justified, &step.action) {
                self.referee.doomed.insert(instance.clone());
            }
            self.in_flight.insert(step.object.clone(), (step.clone(), justified));
        }
        plan
    }

    /// Carries out one of the steps that were begun.
    fn carry_out(&mut self, object: &ObjectId) {
        let Some((step, justified)) = self.in_flight.remove(object) else { return };
        self.referee.judge(&self.world, &step.action, justified);
        let fate = self.world.apply(&step.action, true);
        self.referee.look(&self.world);
        let result: Result<_, Failure> = match fate {
            Fate::Crash => {
                self.say(format!("crash in {:?} of {object}", kind(&step.action)));
                return self.crash();
            }
            Fate::Done(result) => result,
        };
        if let Err(error) = &result {
            self.say(format!("{:?} of {object} failed: {}", kind(&step.action), error.message));
        }
        let Some(record) = self.store.load(object).expect("memory") else { return };
        match settle(&record, &step.action, result, self.world.now) {
            Settled::Put(record) => self.store.put(&[*record]).expect("memory"),
            Settled::Forget => {
                self.store.forget(std::slice::from_ref(object)).expect("memory");
                // An order ends with the object that it was about.
                self.referee.orders.remove(object);
            }
            Settled::Unchanged => {}
        }
    }

    fn crash(&mut self) {
        self.in_flight.clear();
        self.approved.clear();
        self.store.crash();
    }

    fn order(&mut self, object: &ObjectId, state: OverrideState) {
        let Some(mut record) = self.store.load(object).expect("memory") else { return };
        let until = self.world.dice.one_in(2).then(|| self.world.now.after(Span::from_secs(20)));
        self.say(format!("order {state:?} of {object} until {until:?}"));
        let since = self.world.now;
        record.override_ = Some(Override { state, by: 1000, reason: None, since, until });
        self.store.put(&[record]).expect("memory");
        self.referee.orders.insert(object.clone(), Asked { state, since, until });
    }

    fn happen(&mut self) {
        let name = NAMES[usize::try_from(self.world.dice.roll(6)).expect("small")];
        let object = id(name);
        let life = self.world.lives_of(&object).last().map(|(id, _)| id.clone());
        match self.world.dice.roll(24) {
            0..=3 => self.write_file(name),
            4 => {
                self.say(format!("{object} is removed from the manifests"));
                self.files.remove(&object);
            }
            5 => {
                if let Some(file) = self.files.get_mut(&object) {
                    *file = File::Broken;
                    self.say(format!("{object} is broken"));
                }
            }
            6 => {
                self.readable = !self.readable;
                self.say(format!("readable: {}", self.readable));
            }
            7..=9 => {
                if let Some(life) = life {
                    let code = i32::try_from(self.world.dice.roll(3)).expect("small");
                    self.say(format!("{life} ends with {code}"));
                    self.world.end(&life, code, true);
                }
            }
            10 => {
                if let Some(id) = life
                    && self.world.dice.one_in(3)
                    && let Some(life) = self.world.lives.get_mut(&id)
                {
                    // Somebody destroys it behind our back.
                    if life.process.take().is_some() {
                        life.ended_alone = Some(None);
                    }
                    life.exited = None;
                    life.stragglers_until = None;
                    life.group = None;
                    if self.world.dice.one_in(2) {
                        life.rootfs = None;
                    }
                    self.world.bury(&id);
                    self.say(format!("{id} vanishes"));
                }
            }
            11 => {
                if let Some(group) =
                    life.and_then(|life| self.world.lives.get_mut(&life)).and_then(|life| life.group.as_mut())
                {
                    group.insert("memory.max".to_owned(), "12345".to_owned());
                    self.say(format!("{object} drifts"));
                }
            }
            12 | 13 => {
                let uses = [0, 100, 300][usize::try_from(self.world.dice.roll(3)).expect("small")] << 20;
                if let Some(process) =
                    life.and_then(|life| self.world.lives.get_mut(&life)).and_then(|life| life.process.as_mut())
                {
                    process.uses = uses;
                    self.say(format!("{object} uses {}", Bytes(uses)));
                }
            }
            14 => self.order(&object, OverrideState::Stopped),
            15 => self.order(&object, OverrideState::Running),
            16 => self.order(&object, OverrideState::Restart),
            17 => {
                self.say("the agent is killed".to_owned());
                self.crash();
            }
            18 if self.world.dice.one_in(8) => self.lose_the_database(),
            19 if self.world.dice.one_in(3) => {
                self.approved = NAMES.map(id).into();
                self.say("everything is approved".to_owned());
            }
            _ => {
                let span = Span(self.world.dice.roll(4_000));
                self.world.pass(span);
            }
        }
    }

    /// Things happen, and the agent does its work in between, or does not get to it.
    pub fn live(&mut self, events: u32) {
        for _ in 0..events {
            self.happen();
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

    /// Faults stop, somebody repairs the source and approves what is held; rest has to be reached.
    pub fn come_to_rest(&mut self) {
        let faults = std::mem::replace(&mut self.world.faults, 0);
        self.readable = true;
        self.say("faults stop".to_owned());
        self.world.obey();
        for rounds in 0..1_000 {
            if rounds == 80 {
                // What waits for memory to be given back would wait for ever.
                let processes = self.world.lives.values_mut().filter_map(|life| life.process.as_mut());
                processes.for_each(|process| process.uses = 0);
            }
            self.approved = NAMES.map(id).into();
            self.finish_all();
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
        let plan = self.plan();
        assert!(plan.steps.is_empty(), "no rest: {:?}", plan.steps);
        let records = self.records();
        self.referee.judge_rest(&self.world, &self.files, &records, self.settings.stop_all);
        // Rest stays rest.
        self.world.pass(Span::from_secs(3_600));
        if plan.wake_at.is_none() {
            let later = self.plan();
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
