mod anew;
mod clock;
mod deletion;
mod ending;
mod health;
mod leftovers;
mod order;
mod settling;
mod wishes;
mod words;

use super::*;
use crate::spec::change::Class;
use crate::spec::{Bytes, Container, InstanceId, Object, ObjectId, Provenance};
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const WEB: &str =
    "{image: 'host:/', command: [c], resources: {memory: {limit: 512Mi}}, restart: {backoff: {min: 1s, max: 8s}}}";

pub(crate) fn container(yaml: &str) -> Container {
    serde_yaml::from_str(yaml).expect("a container")
}

pub(crate) fn id(name: &str) -> ObjectId {
    format!("Container/default/{name}").try_into().expect("an id")
}

pub(crate) fn object(name: &str, yaml: &str) -> Object {
    let (labels, annotations) = Default::default();
    Object { id: id(name), labels, annotations, spec: container(yaml) }
}

fn said(reason: &str, until: Option<Timestamp>) -> Word {
    Word { by: 1000, reason: Some(reason.to_owned()), since: NOW, until }
}

/// A host with one object, driven without faults: every action succeeds at once.
pub(crate) struct Host {
    settings: Settings,
    pub(crate) desired: Desired,
    pub(crate) records: BTreeMap<ObjectId, Record>,
    seen: Seen,
    pub(crate) approved: BTreeSet<ObjectId>,
    pub(crate) now: Timestamp,
}

impl Host {
    fn new() -> Self {
        let mut desired = Desired::default();
        desired.sources.insert("dir".into(), SourceState::Complete);
        let settings = Settings {
            id_base: 100_000,
            id_ranges: 8,
            deletion_grace: Span::from_secs(10),
            retention: Span(0),
            max_delete: 3,
            max_delete_percent: 30,
            pruning: BTreeMap::new(),
            stop_all: false,
            halt: false,
        };
        let (records, seen, approved) = Default::default();
        Self { settings, desired, records, seen, approved, now: NOW }
    }

    pub(crate) fn with_web() -> Self {
        let mut host = Self::new();
        host.ask(object("web", WEB));
        host.step();
        host
    }

    fn ask(&mut self, object: Object) {
        let provenance = provenance(&object.id);
        self.desired
            .objects
            .insert(object.id.clone(), Wish::Present(Arc::new(Wanted { object: Arc::new(object), provenance })));
    }

    fn ask_of(&mut self, source: &str, object: Object) {
        let mut provenance = provenance(&object.id);
        source.clone_into(&mut provenance.source);
        let wanted = Wanted { object: Arc::new(object), provenance };
        self.desired.objects.insert(wanted.object.id.clone(), Wish::Present(Arc::new(wanted)));
    }

    /// Does everything that can be done at once.
    fn all(&mut self) {
        for step in self.plan().steps {
            self.carry_out(&step);
        }
    }

    /// How one of several objects stands.
    fn stands(&self, name: &str) -> (Sync, String) {
        let finding = self.plan().findings.remove(&id(name)).unwrap();
        (finding.sync, finding.message.to_string())
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            settings: &self.settings,
            desired: &self.desired,
            records: &self.records,
            seen: &self.seen,
            in_flight: const { &BTreeSet::new() },
            approved: &self.approved,
            now: self.now,
        }
    }

    fn plan(&self) -> Plan {
        plan(self.inputs())
    }

    fn sighting(&mut self, number: u64) -> &mut Sighting {
        self.seen.instances.get_mut(&InstanceId::new(&id("web"), number)).expect("an instance")
    }

    fn web(&self) -> &Record {
        &self.records[&id("web")]
    }

    fn sync(&self) -> (Sync, String) {
        let finding = self.plan().findings.remove(&id("web")).expect("a finding");
        (finding.sync, finding.message)
    }

    /// Carries the only step out and returns it.
    pub(crate) fn step(&mut self) -> Step {
        let mut plan = self.plan();
        assert_eq!(plan.steps.len(), 1, "{:?}", plan.steps);
        let step = plan.steps.remove(0);
        self.carry_out(&step);
        step
    }

    /// Carries out whatever there is to do, until there is nothing, and returns all of it.
    fn rest(&mut self) -> Vec<Step> {
        let mut done = Vec::new();
        while let Some(step) = self.plan().steps.into_iter().next() {
            self.carry_out(&step);
            done.push(step);
        }
        done
    }

    /// Records what the first step intends, as if its action had only begun.
    fn intend(&mut self) -> Step {
        let step = self.plan().steps.remove(0);
        self.records.insert(step.object.clone(), step.record.clone().expect("an intent"));
        step
    }

    fn carry_out(&mut self, step: &Step) {
        if let Some(record) = &step.record {
            self.records.insert(step.object.clone(), record.clone());
        }
        let limits = |object: &Object| {
            let limit = object.spec.resources.memory.limit.map_or(0, |Bytes(bytes)| bytes);
            BTreeMap::from([("memory.max".to_owned(), limit.to_string())])
        };
        let mut outcome = Outcome::Done;
        match &step.action {
            Action::Start { instance, object, ids, .. } => {
                let process = ProcessSeen::Running { pid: 7, since: self.now, ignores_stop: false };
                let group = Some(GroupSeen { populated: true, limits: limits(object) });
                let sighting = Sighting { process, group, rootfs: true, ids: *ids, ..Sighting::default() };
                self.seen.instances.insert(instance.clone(), sighting);
                let (readback, unsupported) = (limits(object), Vec::new());
                outcome = Outcome::Started { pid: 7, at: self.now, digest: None, readback, unsupported };
            }
            Action::Resize { to, .. } => {
                let limits = limits(&self.records[&step.object].accepted);
                let number = self.web().instance.as_ref().expect("an instance").id.number;
                self.sighting(number).group = Some(GroupSeen { populated: true, limits: limits.clone() });
                outcome = Outcome::Resized {
                    actuated: to.clone(),
                    readback: limits,
                    unsupported: Vec::new(),
                    deferred: None,
                };
            }
            Action::Collect { instance } => {
                let sighting = self.seen.instances.get_mut(instance).expect("an instance");
                (sighting.process, sighting.group) = (ProcessSeen::None, None);
            }
            Action::Remove { instance } => {
                self.seen.instances.remove(instance);
            }
            Action::Note | Action::Forget | Action::Check { .. } | Action::Signal { .. } | Action::Kill { .. } => {}
        }
        self.settle(step, Ok(outcome));
    }

    fn settle(&mut self, step: &Step, result: Result<Outcome, Failure>) {
        let Some(record) = self.records.get(&step.object) else { return };
        match settle(record, &step.action, result, self.now) {
            Settled::Put(record) => drop(self.records.insert(step.object.clone(), *record)),
            Settled::Forget => drop(self.records.remove(&step.object)),
            Settled::Unchanged => {}
        }
    }

    fn ends(&mut self, number: u64, code: i32) {
        let exit = Exit { code: Some(code), signal: None, at: self.now, oom_killed: false };
        let sighting = self.sighting(number);
        sighting.process = ProcessSeen::Exited(exit);
        sighting.group.as_mut().expect("a group").populated = false;
    }

    fn pass(&mut self, secs: u64) {
        self.now = self.now.after(Span::from_secs(secs));
    }
}

pub(crate) fn provenance(id: &ObjectId) -> Provenance {
    Provenance {
        source: "dir".into(),
        file: format!("{}.yaml", id.name),
        path: format!("/m/{}.yaml", id.name),
        document: 1,
        line: 1,
        revision: "r".into(),
        drop_ins: Vec::new(),
    }
}

#[test]
fn a_new_object_is_recorded_before_it_is_started_and_then_there_is_rest() {
    let mut host = Host::new();
    host.ask(object("web", WEB));

    let step = host.step();

    assert_eq!(step.reason, "created");
    let intent = step.record.expect("an intent").instance.expect("an instance");
    assert_eq!((intent.phase, intent.ids.map(|ids| ids.base)), (Phase::Starting, Some(100_000)));
    assert!(host.plan().steps.is_empty() && host.plan().wake_at.is_none());
    assert_eq!(host.sync(), (Sync::Synced, String::new()));
}

#[test]
fn a_changed_limit_is_written_in_place_and_says_from_what_to_what() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("512Mi", "1Gi")));

    let step = host.step();

    assert!(matches!(step.action, Action::Resize { .. }), "{:?}", step.action);
    assert_eq!((step.class, step.reason.as_str()), (Class::Live, "memory.limit 512Mi → 1Gi"));
    assert_eq!(host.web().generation, 2);
    assert_eq!(host.web().instance.as_ref().map(|instance| instance.generation), Some(2));
    assert!(host.plan().steps.is_empty());
}

#[test]
fn a_deferred_limit_waits_and_a_new_value_does_not() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("512Mi", "256Mi")));
    let step = host.intend();
    let deferred = Some(Deferred { message: "memory 512Mi → 256Mi: 301Mi in use".into(), next_try: NOW, tries: 0 });
    let Action::Resize { from, .. } = step.action.clone() else { panic!("{:?}", step.action) };
    let readback = BTreeMap::from([("memory.max".to_owned(), "536870912".to_owned())]);
    host.settle(&step, Ok(Outcome::Resized { actuated: from, readback, unsupported: vec![], deferred }));

    let waits = host.plan();
    assert!(waits.steps.is_empty());
    assert_eq!(waits.wake_at, Some(NOW.after(Span::from_secs(1))));
    assert_eq!(host.sync(), (Sync::Deferred, "memory 512Mi → 256Mi: 301Mi in use, next try in 1s".into()));

    host.ask(object("web", &WEB.replace("512Mi", "400Mi")));
    assert!(matches!(host.plan().steps[0].action, Action::Resize { .. }));
}

#[test]
fn a_limit_that_somebody_else_changed_is_set_back() {
    let mut host = Host::with_web();
    host.sighting(1).group.as_mut().expect("a group").limits.insert("memory.max".into(), "max".into());

    let step = host.step();

    assert_eq!(step.reason, "memory.max is \"max\" where \"536870912\" had been written: set back");
    assert!(host.plan().steps.is_empty());
}

#[test]
fn a_process_that_keeps_ending_is_started_later_and_later_and_forgiven_when_it_has_run() {
    let mut host = Host::with_web();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        host.ends(1, 1);
        host.step();
        let wake = host.plan().wake_at.expect("a restart to come");
        pauses.push(wake.since(host.now).0 / 1000);
        host.now = wake;
        assert!(matches!(host.step().action, Action::Start { .. }));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8]);
    assert_eq!(host.web().restarts, 5);

    host.pass(80);
    host.ends(1, 1);
    let step = host.step();

    assert_eq!(step.reason, "exited with 1, restart 6 in 1s");
}

#[test]
fn what_the_restart_policy_lets_be_stays_until_its_spec_changes() {
    for (policy, code, again) in
        [("never", 1, false), ("onFailure", 0, false), ("onFailure", 1, true), ("always", 0, true)]
    {
        let yaml = format!("{{image: 'host:/', command: [c], restart: {{policy: {policy}}}}}");
        let mut host = Host::new();
        host.ask(object("web", &yaml));
        host.step();
        host.ends(1, code);
        host.step();
        assert_eq!(host.plan().wake_at.is_some(), again, "{policy} {code}");
        host.pass(1000);
        assert_eq!(!host.plan().steps.is_empty(), again, "{policy} {code}");
        if !again {
            host.ask(object("web", &yaml.replace("[c]", "[d]")));
            assert!(matches!(host.plan().steps[0].action, Action::Start { run: 2, .. }), "{policy} {code}");
        }
    }
}

#[test]
fn a_process_that_vanished_comes_back_with_what_was_found() {
    let mut host = Host::with_web();
    host.seen.instances.clear();

    let step = host.step();

    assert_eq!(step.reason, "its process, its cgroup and its root filesystem are gone, restart 1 in 1s");
    assert_eq!(host.web().last_exit.map(|exit| exit.code), Some(None));
}

#[test]
fn a_failed_start_is_retried_later_and_a_new_revision_at_once() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    let step = host.intend();
    host.settle(&step, Err(Failure { message: "no such program".into(), field: None }));

    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync(), (Sync::Failed, "no such program; next try in 1s".into()));
    host.ask(object("web", &WEB.replace("[c]", "[d]")));
    let step = host.step();

    assert!(
        matches!(&step.action, Action::Start { object, .. } if object.spec == container(&WEB.replace("[c]", "[d]")))
    );
}

#[test]
fn an_absent_object_goes_after_its_grace_and_a_broken_or_unreadable_one_never() {
    let mut host = Host::with_web();
    host.desired.objects.clear();
    assert_eq!(host.step().reason, "file removed");
    assert_eq!(host.sync(), (Sync::Deleting, "file removed, deleting in 10s".into()));
    host.pass(9);

    for broken in ["held", "invalid", "unavailable"] {
        let mut host = Host {
            desired: host.desired.clone(),
            records: host.records.clone(),
            seen: host.seen.clone(),
            ..Host::new()
        };
        match broken {
            "held" => drop(host.desired.held_files.insert(("dir".into(), "web.yaml".into()), "broken".into())),
            "invalid" => {
                let wish = Wish::Invalid { message: "broken".into(), provenance: provenance(&id("web")) };
                host.desired.objects.insert(id("web"), wish);
            }
            _ => {
                let state = SourceState::Unavailable { reason: "gone".into() };
                host.desired.sources.insert("dir".into(), state);
            }
        }
        host.pass(1000);
        assert!(matches!(host.step().action, Action::Note), "{broken}");
        assert!(host.plan().steps.is_empty(), "{broken}");
        host.ends(1, 1);
        assert!(matches!(host.step().action, Action::Collect { .. }), "{broken}: it is restarted as ever");
    }

    assert!(host.plan().steps.is_empty());
    host.pass(1);
    assert!(matches!(host.step().action, Action::Signal { signal: 15, .. }));
    host.ends(1, 143);
    assert!(matches!(host.step().action, Action::Remove { .. }));
    assert!(matches!(host.step().action, Action::Forget));
    assert!(host.records.is_empty() && host.plan().steps.is_empty());
}

#[test]
fn a_deaf_process_is_killed_at_once_and_a_stubborn_one_after_its_grace() {
    let mut host = Host::with_web();
    host.sighting(1).process = ProcessSeen::Running { pid: 7, since: NOW, ignores_stop: true };
    host.ask(object("web", &WEB.replace("[c]", "[d]")));
    assert!(matches!(host.step().action, Action::Check { .. }));
    let step = host.step();
    assert!(matches!(step.action, Action::Kill { .. }));
    assert!(step.reason.contains("ignores SIGTERM, so it is killed at once"), "{}", step.reason);

    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("[c]", "[d]")));
    assert!(matches!(host.step().action, Action::Check { .. }));
    assert!(matches!(host.step().action, Action::Signal { .. }));
    assert_eq!(host.plan().wake_at, Some(host.now.after(Span::from_secs(10))));
    host.pass(10);
    let step = host.step();
    assert!(matches!(step.action, Action::Kill { .. }));
    assert_eq!(step.reason, "did not end within 10s of SIGTERM");
}

#[test]
fn a_persons_stop_holds_until_its_time_is_over() {
    let mut host = Host::with_web();
    let until = Some(host.now.after(Span::from_secs(60)));
    let word = Override { state: OverrideState::Stopped, word: said("disk swap", until) };
    host.records.get_mut(&id("web")).expect("a record").override_ = Some(word);

    assert_eq!(host.step().reason, "stopped by uid 1000, until 2023-11-14T22:14:20.000Z: disk swap");
    host.ends(1, 143);
    host.step();
    assert!(host.plan().steps.is_empty());
    assert_eq!(host.plan().wake_at, until);
    assert_eq!(host.sync().0, Sync::Overridden);

    host.pass(60);
    assert!(matches!(host.step().action, Action::Start { run: 2, .. }));
}

#[test]
fn two_rounds_over_the_same_give_the_same() {
    let mut host = Host::new();
    for name in ["b", "a", "c"] {
        host.ask(object(name, WEB));
    }
    let told = |plan: Plan| format!("{plan:?}");

    assert_eq!(told(host.plan()), told(host.plan()));
    let bases: BTreeSet<_> = host
        .plan()
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Start { ids, .. } => ids.map(|ids| ids.base),
            _ => None,
        })
        .collect();
    assert_eq!(bases.len(), 3, "each has ids of its own");
}

#[test]
fn a_round_over_a_thousand_unchanged_objects_costs_little() {
    let mut host = Host::new();
    host.settings.id_ranges = 2000;
    for number in 0..1000 {
        host.ask(object(&format!("c{number}"), WEB));
    }
    for step in host.plan().steps {
        host.carry_out(&step);
    }

    let begin = std::time::Instant::now();
    let plan = host.plan();

    // Printed, not asserted: other tests share the machine.
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("a round took {:?}\n", begin.elapsed()))
        .expect("written");
    assert!(plan.steps.is_empty() && plan.findings.len() == 1000);
}

#[test]
fn what_runs_is_not_stopped_for_a_revision_that_cannot_be_started() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("[c]", "[no-such-program]")));
    let step = host.intend();
    assert!(matches!(step.action, Action::Check { .. }), "{:?}", step.action);
    host.settle(&step, Err(Failure { message: "no such program".into(), field: None }));

    assert!(host.plan().steps.is_empty());
    let message = "no such program; next try in 1s — running last good generation 1";
    assert_eq!(host.sync(), (Sync::Failed, message.into()));

    host.pass(2);
    assert!(matches!(host.step().action, Action::Check { .. }));
    assert!(matches!(host.step().action, Action::Signal { .. }), "it is there now");
}
