//! What happens to the world and its agent: people edit files and give orders, processes end, disks
//! and memories are lost.

use super::agent::{File, Simulation};
use super::object;
use super::referee::Asked;
use crate::plan::{HealthSeen, Limits, Override, OverrideState, Record, Wanted, Word};
use crate::spec::{
    Bytes, Container, DeletionPolicy, Dependency, DependencyCondition, DesiredState, Object, ObjectId, Provenance,
    Resources, RestartPolicy, Span, Timestamp,
};
use crate::store::Store as _;
use std::sync::{Arc, LazyLock};

static PLAIN: LazyLock<Object> = LazyLock::new(|| {
    let limit = "resources: {memory: {limit: 64Mi}}, health: {readiness: {tcp: {port: 80}}}";
    object("plain", &format!("{{image: 'host:/', command: [c0], stop: {{grace: 7s}}, {limit}}}"))
});

impl Simulation {
    fn write_file(&mut self, id: &ObjectId) {
        use DeletionPolicy::{Confirm, Delete, Orphan, Stop};
        use RestartPolicy::{Always, Never, OnFailure};
        let dice = &mut self.world.dice;
        let memory = 64 << dice.roll(4);
        let command = dice.roll(2);
        let image = if dice.one_in(4) { "rootfs:/srv/x" } else { "host:/" };
        let stopped = dice.one_in(8);
        let policy = dice.pick(&[Always, Always, OnFailure, Never]);
        let user_namespace = !dice.one_in(8);
        let deletion_policy = dice.pick(&[Delete, Delete, Delete, Stop, Orphan, Confirm]);
        let label = dice.roll(3).to_string();
        // Of those before it, so that no circle comes about.
        let before = self.names.iter().position(|name| name == id).unwrap_or_default();
        let depends_on = match (dice.one_in(5), u64::try_from(before).unwrap_or_default()) {
            (true, 1..) => vec![Dependency {
                name: self.names[usize::try_from(dice.roll(before as u64)).expect("below a length")].name.clone(),
                namespace: None,
                condition: dice.pick(&[DependencyCondition::Running, DependencyCondition::Healthy]),
            }],
            _ => Vec::new(),
        };
        let mut object = Object { id: id.clone(), ..PLAIN.clone() };
        object.labels.insert("l".to_owned(), label);
        let plain = object.spec;
        object.spec = Container {
            image: image.to_owned().try_into().expect("an image"),
            command: vec![format!("c{command}")],
            desired_state: if stopped { DesiredState::Stopped } else { DesiredState::Running },
            restart: crate::spec::Restart { policy, ..plain.restart },
            security: crate::spec::Security { user_namespace, ..plain.security },
            deletion_policy,
            depends_on,
            ..plain
        };
        object.spec.resources.memory.limit = Some(Bytes(memory << 20));
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
            drop_ins: Vec::new(),
        };
        self.say(|| {
            format!(
                "file {} image {} command {:?} {:?} {:?} userns {} memory {:?}",
                object.id,
                object.spec.image,
                object.spec.command,
                object.spec.desired_state,
                object.spec.restart.policy,
                object.spec.security.user_namespace,
                object.spec.resources.memory.limit
            )
        });
        self.files.insert(object.id.clone(), File::Valid(Arc::new(Wanted { object: Arc::new(object), provenance })));
    }

    /// A plain file for each of the first objects.
    pub fn files_for(&mut self, count: usize) {
        for number in 0..count {
            let id = self.names[number].clone();
            self.put_file(Object { id, ..PLAIN.clone() });
        }
    }

    fn order(&mut self, object: &ObjectId, state: OverrideState) {
        self.carry_waits();
        let Some(mut record) = self.records.get(object).cloned() else { return };
        let span = self.world.dice.one_in(2).then_some(Span::from_secs(20));
        let until = span.map(|span| self.world.now.after(span));
        self.say(|| format!("order {state:?} of {object} until {until:?}"));
        let since = self.world.now;
        record.override_ = Some(Override { state, word: Word { by: 1000, reason: None, since, until } });
        self.remember(record);
        let until = self.holds_until(span);
        self.referee.orders.insert(object.clone(), Asked { state, since, until });
    }

    fn suspend(&mut self, object: &ObjectId) {
        self.carry_waits();
        let Some(mut record) = self.records.get(object).cloned() else { return };
        let since = self.world.now;
        let span = self.world.dice.one_in(2).then_some(Span::from_secs(20));
        let until = span.map(|span| since.after(span));
        self.say(|| format!("{object} is suspended until {until:?}"));
        record.suspended = Some(Word { by: 1000, reason: None, since, until });
        self.remember(record);
        let until = self.holds_until(span);
        self.referee.suspended.insert(object.clone(), until);
    }

    /// Somebody takes every suspension back.
    pub fn resume_all(&mut self) {
        let suspended: Vec<Record> =
            self.records.values().filter(|record| record.suspended.is_some()).cloned().collect();
        for mut record in suspended {
            record.suspended = None;
            self.remember(record);
        }
        self.referee.suspended.clear();
    }

    fn set_limit(&mut self, object: &ObjectId) {
        self.carry_waits();
        let Some(mut record) = self.records.get(object).cloned() else { return };
        let since = self.world.now;
        let span = self.world.dice.one_in(2).then_some(Span::from_secs(20));
        let until = span.map(|span| since.after(span));
        let limit = Bytes((48 << self.world.dice.roll(4)) << 20);
        self.say(|| format!("the limit of {object} is set to {limit} until {until:?}"));
        let mut resources = Resources::default();
        resources.memory.limit = Some(limit);
        record.limits = Some(Limits { resources, word: Word { by: 1000, reason: None, since, until } });
        self.remember(record);
        let until = self.holds_until(span);
        self.referee.limits.insert(object.clone(), (limit, until));
    }

    /// As the referee reckons.
    fn holds_until(&self, span: Option<Span>) -> Option<Timestamp> {
        span.map(|span| self.world.passed().after(span))
    }

    /// As an order is recorded: at once, and durably.
    fn remember(&mut self, record: Record) {
        self.store.put(std::slice::from_ref(&record)).expect("memory");
        self.records.insert(record.id.clone(), record);
    }

    /// One thing, to one of the objects.
    pub fn happen(&mut self) {
        let object = self.world.dice.pick(&self.names);
        let life = self.world.lives_of(&object).last().map(|(id, _)| id.clone());
        match self.world.dice.roll(30) {
            0..=3 => self.write_file(&object),
            4 => {
                self.say(|| format!("{object} is removed from the manifests"));
                self.files.remove(&object);
            }
            5 => {
                if let Some(file) = self.files.get_mut(&object) {
                    *file = File::Broken;
                    self.say(|| format!("{object} is broken"));
                }
            }
            6 => {
                let readable = !self.readable;
                self.readable = readable;
                self.say(|| format!("readable: {readable}"));
            }
            7..=9 => {
                if let Some(life) = life {
                    let code = i32::try_from(self.world.dice.roll(3)).expect("small");
                    self.say(|| format!("{life} ends with {code}"));
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
                    self.say(|| format!("{id} vanishes"));
                }
            }
            11 => {
                let how = self.world.dice.roll(4);
                if let Some(life) = life.and_then(|life| self.world.lives.get_mut(&life))
                    && let Some(group) = &mut life.group
                {
                    match how {
                        0 => drop(group.insert("memory.max".to_owned(), "12345".to_owned())),
                        1 => drop(group.remove("memory.max")),
                        2 => group.clear(),
                        _ => life.group = None,
                    }
                    self.say(|| format!("{object} drifts"));
                }
            }
            12 | 13 => {
                let uses = self.world.dice.pick(&[0, 100, 300]) << 20;
                if let Some(process) =
                    life.and_then(|life| self.world.lives.get_mut(&life)).and_then(|life| life.process.as_mut())
                {
                    process.uses = uses;
                    self.say(|| format!("{object} uses {}", Bytes(uses)));
                }
            }
            14 => self.order(&object, OverrideState::Stopped),
            15 => self.order(&object, OverrideState::Running),
            16 => self.order(&object, OverrideState::Restart),
            24 => self.suspend(&object),
            25 => {
                if self.world.dice.one_in(4) {
                    self.say(|| "all is resumed".to_owned());
                    self.resume_all();
                }
            }
            26 => self.set_limit(&object),
            27 | 28 => {
                // Hangs, works, flaps, or is beyond hope.
                let said = || "said".to_owned();
                let all = [
                    HealthSeen::Unknown,
                    HealthSeen::Starting(said()),
                    HealthSeen::Ready,
                    HealthSeen::Ready,
                    HealthSeen::NotReady(said()),
                    HealthSeen::Failed(said()),
                ];
                let health = self.world.dice.pick(&all);
                self.say(|| format!("{object} is {health:?}"));
                let life = life.and_then(|life| self.world.lives.get_mut(&life));
                if let Some(process) = life.and_then(|life| life.process.as_mut()) {
                    process.health = health;
                }
            }
            17 => {
                self.say(|| "the agent is killed".to_owned());
                self.crash();
            }
            29 if self.world.dice.one_in(4) => {
                let by = Span::from_secs(self.world.dice.pick(&[2, 30, 3_600, 86_400]));
                self.say(|| format!("the clock is set forward by {} s", by.0 / 1000));
                self.world.set_forward(by);
            }
            18 if self.world.dice.one_in(8) => self.lose_the_database(),
            19 if self.world.dice.one_in(3) => {
                self.approved = self.names.iter().cloned().collect();
                self.say(|| "everything is approved".to_owned());
            }
            _ => {
                let span = Span(self.world.dice.roll(4_000));
                self.world.pass(span);
            }
        }
    }
}
