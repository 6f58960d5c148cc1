//! A small world: instances with a root filesystem, a cgroup and a process; processes that end, do
//! not listen or use too much memory; and actions that fail before, amid and after their effect.

use super::faults::Point;
use crate::plan::{Action, Deferred, Exit, Failure, GroupSeen, HealthSeen, Outcome, ProcessSeen, Seen, Sighting};
use crate::spec::{Bytes, IdRange, InstanceId, Object, ObjectId, Resources, Span, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Splitmix64: small, and the same everywhere.
#[derive(Clone)]
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.roll(from.len() as u64)).expect("below a length");
        from[index].clone()
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    Obedient,
    /// No handler: the kernel drops the signal, and that can be seen.
    Deaf,
    /// A handler that does nothing: that cannot be seen.
    Stubborn,
}

#[derive(Debug, Clone)]
pub(super) struct Process {
    pub pid: u32,
    pub since: Timestamp,
    pub temper: Temper,
    pub started_from: Arc<Object>,
    pub signalled_at: Option<Timestamp>,
    /// A justified order to stop has reached it.
    pub condemned: bool,
    pub order_lost: bool,
    pub uses: u64,
    /// What its probes say.
    pub health: HealthSeen,
    /// The agent has been shown that it does not work.
    pub given_up: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub rootfs: Option<Arc<Object>>,
    pub ids: Option<IdRange>,
    pub group: Option<BTreeMap<String, String>>,
    pub process: Option<Process>,
    pub exited: Option<Exit>,
    /// How its last process ended, if that was by itself.
    pub ended_alone: Option<Option<i32>>,
    pub stragglers_until: Option<Timestamp>,
    pub was_started: bool,
    /// Made before the agent lost its memory: what it was made from, nobody can know.
    pub origin_unknown: bool,
}

#[derive(Clone)]
pub(super) struct World {
    /// The wall clock, which is all that the agent's instants are of.
    pub now: Timestamp,
    /// How far it was set forward in all.
    pub set_forward: Span,
    pub dice: Dice,
    pub lives: BTreeMap<InstanceId, Life>,
    pub last_pid: u32,
    /// One in so many effects goes wrong; 0 for a world without faults.
    pub faults: u64,
    pub effects: u64,
}

#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub(super) enum Fate {
    Done(Result<Outcome, Failure>),
    /// The agent ended in the middle of it.
    Crash,
}

fn failure(message: &str) -> Failure {
    Failure { message: message.to_owned(), field: None }
}

impl World {
    /// How often something goes wrong differs from seed to seed: some faults hide others.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let faults = dice.pick(&[4, 8, 12, 12, 12, 25, 60, 200]);
        Self {
            now: Timestamp(1_700_000_000_000),
            set_forward: Span(0),
            dice,
            lives: BTreeMap::new(),
            last_pid: 100,
            faults,
            effects: 0,
        }
    }

    /// The time that nobody sets.
    pub fn passed(&self) -> Timestamp {
        Timestamp(self.now.0 - self.set_forward.0)
    }

    /// Somebody sets the wall clock.
    pub fn set_forward(&mut self, by: Span) {
        self.now = self.now.after(by);
        self.set_forward = Span(self.set_forward.0 + by.0);
    }

    pub fn observe(&mut self) -> Seen {
        let now = self.passed();
        let instances = self.lives.iter_mut().map(|(id, life)| {
            if life.stragglers_until.is_some_and(|until| until <= now) {
                life.stragglers_until = None;
            }
            let process = match (&life.process, life.exited) {
                (Some(process), _) => ProcessSeen::Running {
                    pid: process.pid,
                    since: process.since,
                    ignores_stop: process.temper == Temper::Deaf,
                },
                (None, Some(exit)) => ProcessSeen::Exited(exit),
                (None, None) => ProcessSeen::None,
            };
            if let Some(process) = &mut life.process {
                process.given_up |= matches!(process.health, HealthSeen::Failed(_));
            }
            let health = life.process.as_ref().map_or(HealthSeen::Unknown, |process| process.health.clone());
            let started_from = life.process.as_ref().map(|process| process.started_from.clone());
            let populated = life.process.is_some() || life.stragglers_until.is_some();
            let group = life.group.clone().map(|limits| GroupSeen { populated, limits });
            let (rootfs, ids) = (life.rootfs.is_some(), life.ids);
            (id.clone(), Sighting { process, group, rootfs, ids, started_from, health })
        });
        Seen { instances: instances.collect() }
    }

    pub fn lives_of(&self, object: &ObjectId) -> impl Iterator<Item = (&InstanceId, &Life)> {
        self.lives.range(InstanceId::new(object, 0)..=InstanceId::new(object, u64::MAX))
    }

    /// Does an action, or a part of it.
    pub fn apply(&mut self, action: &Action, condemns: bool) -> (Fate, Point) {
        self.effects += 1;
        let points =
            [Point::CrashBefore, Point::FailedBefore, Point::FailedAmid, Point::FailedAfter, Point::CrashAfter];
        let point = if self.is_unlucky(1) { self.dice.pick(&points) } else { Point::None };
        match point {
            Point::CrashBefore => return (Fate::Crash, point),
            Point::FailedBefore => return (Fate::Done(Err(failure("no effect"))), point),
            _ => {}
        }
        let result = self.effect(action, point == Point::FailedAmid, condemns);
        if let (true, Action::Signal { instance, .. } | Action::Kill { instance }) = (point != Point::None, action) {
            self.forget_order(&instance.object());
        }
        let fate = match point {
            Point::CrashAfter => Fate::Crash,
            Point::FailedAmid | Point::FailedAfter => {
                Fate::Done(Err(failure("half an effect, or one that was not seen")))
            }
            _ => Fate::Done(result),
        };
        (fate, point)
    }

    /// The agent does not know that an end is its own doing.
    pub fn forget_order(&mut self, object: &ObjectId) {
        let all = InstanceId::new(object, 0)..=InstanceId::new(object, u64::MAX);
        for (_, life) in self.lives.range_mut(all) {
            match &mut life.process {
                Some(process) => process.order_lost = true,
                None => life.ended_alone = Some(life.exited.and_then(|exit| exit.code)),
            }
        }
    }

    /// Whether something goes wrong that is so many times rarer than a fault of an effect.
    pub fn is_unlucky(&mut self, rarer: u64) -> bool {
        self.faults > 0 && self.dice.one_in(self.faults * rarer)
    }

    fn effect(&mut self, action: &Action, half: bool, condemns: bool) -> Result<Outcome, Failure> {
        let (now, passed) = (self.now, self.passed());
        match action {
            Action::Note | Action::Forget | Action::Check { .. } => {}
            Action::Start { instance, run: _, object, ids } => {
                let life = self.lives.entry(instance.clone()).or_default();
                assert!(life.process.is_none(), "{instance} is started and runs already");
                life.rootfs.get_or_insert_with(|| object.clone());
                life.ids = *ids;
                life.group.get_or_insert_default();
                life.exited = None;
                if half {
                    return Err(failure("half a start"));
                }
                let limits = render(&object.spec.resources);
                life.group = Some(limits.clone());
                life.was_started = true;
                life.ended_alone = None;
                self.last_pid += 1;
                let temper = match self.dice.roll(6) {
                    0 => Temper::Deaf,
                    1 => Temper::Stubborn,
                    _ => Temper::Obedient,
                };
                life.process = Some(Process {
                    pid: self.last_pid,
                    since: now,
                    temper,
                    started_from: object.clone(),
                    signalled_at: None,
                    condemned: false,
                    order_lost: false,
                    uses: 0,
                    health: HealthSeen::Unknown,
                    given_up: false,
                });
                return Ok(Outcome::Started {
                    pid: self.last_pid,
                    at: now,
                    digest: None,
                    readback: limits,
                    unsupported: Vec::new(),
                });
            }
            Action::Resize { instance, from: _, to, ignored: _ } => {
                let Some(life) = self.lives.get_mut(instance) else { return Err(failure("no such cgroup")) };
                let Some(process) = &life.process else { return Err(failure("no such cgroup")) };
                let group = life.group.get_or_insert_default();
                let mut actuated = to.clone();
                let mut deferred = None;
                if to.memory.limit.is_some_and(|limit| limit.0 < process.uses) {
                    actuated.memory.limit = group.get("memory.max").and_then(|text| text.parse().ok()).map(Bytes);
                    let message = format!("{} in use", process.uses);
                    deferred = Some(Deferred { message, next_try: now, tries: 0 });
                }
                *group = render(&actuated);
                return Ok(Outcome::Resized { actuated, readback: group.clone(), unsupported: Vec::new(), deferred });
            }
            Action::Signal { instance, signal } => {
                let process = self.lives.get_mut(instance).and_then(|life| life.process.as_mut());
                let Some(process) = process else { return Err(failure("no such process")) };
                process.signalled_at.get_or_insert(passed);
                process.condemned |= condemns;
                if process.temper == Temper::Obedient && self.dice.one_in(2) || *signal == 9 {
                    self.end(instance, 143, false);
                }
            }
            Action::Kill { instance } => {
                let Some(life) = self.lives.get_mut(instance) else { return Err(failure("no such cgroup")) };
                life.stragglers_until = None;
                if let Some(process) = &mut life.process {
                    process.condemned |= condemns;
                    // The kernel takes its time now and then.
                    if !self.dice.one_in(4) {
                        self.end(instance, 137, false);
                    }
                }
            }
            Action::Collect { instance } => {
                let Some(life) = self.lives.get_mut(instance) else { return Ok(Outcome::Done) };
                if life.process.is_some() || life.stragglers_until.is_some() {
                    return Err(failure("the cgroup is busy"));
                }
                life.exited = None;
                if half {
                    return Err(failure("half a collection"));
                }
                life.group = None;
                self.bury(instance);
            }
            Action::Remove { instance } => {
                let Some(life) = self.lives.get_mut(instance) else { return Ok(Outcome::Done) };
                life.process = None;
                life.exited = None;
                life.stragglers_until = None;
                life.group = None;
                if half {
                    return Err(failure("half a removal"));
                }
                self.lives.remove(instance);
            }
        }
        Ok(Outcome::Done)
    }

    /// Its first process ends.
    pub fn end(&mut self, instance: &InstanceId, code: i32, alone: bool) {
        let (now, passed) = (self.now, self.passed());
        let Some(life) = self.lives.get_mut(instance) else { return };
        if let Some(process) = life.process.take() {
            life.exited = Some(Exit { code: Some(code), signal: None, at: now, oom_killed: false });
            life.ended_alone =
                (process.order_lost || process.given_up || alone && !process.condemned).then_some(Some(code));
            if self.dice.one_in(4) {
                life.stragglers_until = Some(passed.after(Span(self.dice.roll(300))));
            }
        }
    }

    /// An instance of which nothing is left is none.
    pub fn bury(&mut self, instance: &InstanceId) {
        let empty = self.lives.get(instance).is_some_and(|life| {
            life.rootfs.is_none() && life.group.is_none() && life.process.is_none() && life.exited.is_none()
        });
        if empty {
            self.lives.remove(instance);
        }
    }

    /// Obedient processes that were asked to end do so, sooner or later.
    pub fn pass(&mut self, span: Span) {
        self.now = self.now.after(span);
        for instance in self.asked_to_end() {
            if self.dice.one_in(2) {
                self.end(&instance, 143, false);
            }
        }
    }

    /// Whatever runs works.
    pub fn heal(&mut self) {
        let processes = self.lives.values_mut().filter_map(|life| life.process.as_mut());
        processes.for_each(|process| process.health = HealthSeen::Ready);
    }

    pub fn obey(&mut self) {
        for instance in self.asked_to_end() {
            self.end(&instance, 143, false);
        }
    }

    fn asked_to_end(&self) -> Vec<InstanceId> {
        let asked = |life: &Life| {
            life.process.as_ref().is_some_and(|p| p.signalled_at.is_some() && p.temper == Temper::Obedient)
        };
        self.lives.iter().filter(|(_, life)| asked(life)).map(|(id, _)| id.clone()).collect()
    }
}

/// Limits as this world's kernel has them.
pub(super) fn render(resources: &Resources) -> BTreeMap<String, String> {
    let memory = resources.memory.limit.map_or_else(|| "max".to_owned(), |limit| limit.0.to_string());
    let pids = resources.pids.limit.map_or_else(|| "max".to_owned(), |limit| limit.get().to_string());
    BTreeMap::from([("memory.max".to_owned(), memory), ("pids.max".to_owned(), pids)])
}
