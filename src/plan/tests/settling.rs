//! What becomes of a record when an action has ended: meanwhile something else may have been asked for.

use super::*;
use crate::spec::Resources;

fn readback(bytes: u64) -> BTreeMap<String, String> {
    BTreeMap::from([("memory.max".to_owned(), bytes.to_string())])
}

/// A resize that is under way, with its intent recorded.
fn under_way(host: &mut Host, memory: &str) -> (Step, Resources) {
    host.ask(object("web", &WEB.replace("512Mi", memory)));
    let step = host.intend();
    let Action::Resize { to, .. } = &step.action else { panic!("{:?}", step.action) };
    let to = to.clone();
    (step, to)
}

/// The limits that hold, and the generation that the process is said to be of.
fn resized(host: &mut Host, step: &Step, to: &Resources, deferred: Option<Deferred>) -> u64 {
    let actuated = to.clone();
    let outcome = Outcome::Resized { actuated, readback: readback(1 << 30), unsupported: Vec::new(), deferred };
    host.settle(step, Ok(outcome));
    host.web().instance.as_ref().expect("an instance").generation
}

#[test]
fn a_resize_makes_the_process_one_of_the_revision_that_asked_for_it() {
    let mut host = Host::with_web();
    let (step, to) = under_way(&mut host, "1Gi");

    assert_eq!(resized(&mut host, &step, &to, None), 2);
}

#[test]
fn a_resize_that_is_overtaken_or_deferred_leaves_the_process_of_its_old_revision() {
    let accept = |host: &mut Host, yaml: &str| {
        let record = host.records.get_mut(&id("web")).expect("a record");
        (record.accepted, record.generation) = (Arc::new(object("web", yaml)), 3);
    };
    // Another limit.
    let mut host = Host::with_web();
    let (step, to) = under_way(&mut host, "1Gi");
    accept(&mut host, &WEB.replace("512Mi", "2Gi"));
    assert_eq!(resized(&mut host, &step, &to, None), 1);

    // A command that takes a new process.
    let mut host = Host::with_web();
    let (step, to) = under_way(&mut host, "1Gi");
    accept(&mut host, &WEB.replace("512Mi", "1Gi").replace("[c]", "[d]"));
    assert_eq!(resized(&mut host, &step, &to, None), 1);

    let mut host = Host::with_web();
    let (step, to) = under_way(&mut host, "256Mi");
    let deferred = Some(Deferred { message: "in use".into(), next_try: NOW, tries: 0 });
    assert_eq!(resized(&mut host, &step, &to, deferred), 1);
}

#[test]
fn what_is_deferred_is_tried_less_and_less_often_up_to_every_half_minute() {
    let mut host = Host::with_web();
    let (mut step, to) = under_way(&mut host, "256Mi");
    let mut waits = Vec::new();
    for _ in 0..7 {
        let deferred = Some(Deferred { message: "in use".into(), next_try: NOW, tries: 0 });
        resized(&mut host, &step, &to, deferred);
        let instance = host.web().instance.as_ref().expect("an instance");
        let next = instance.deferred.as_ref().expect("deferred").next_try;
        waits.push(next.since(host.now).0 / 1000);
        host.now = next;
        let mut steps = host.plan().steps;
        if !steps.is_empty() {
            step = steps.remove(0);
        }
    }

    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn failures_are_tried_less_and_less_often_up_to_every_five_minutes() {
    let waits: Vec<u64> = (1..11).map(|failures| Attempts::backoff(failures).0 / 1000).collect();

    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
}

#[test]
fn what_works_in_the_end_leaves_no_failure_behind() {
    let mut host = Host::with_web();
    let (step, to) = under_way(&mut host, "1Gi");
    host.settle(&step, Err(Failure { message: "no such file".into(), field: None }));
    assert_eq!(host.sync().0, Sync::Failed);

    resized(&mut host, &step, &to, None);

    assert_eq!(host.web().attempts, Attempts::default());
}

#[test]
fn many_changes_are_told_by_the_first_three_and_their_number() {
    let fields = ["workingDir: /a", "hostname: b", "args: [x]", "user: 1", "init: true"];
    let said = |count: usize| {
        let mut host = Host::with_web();
        host.ask(object("web", &WEB.replacen('{', &format!("{{{}, ", fields[..count].join(", ")), 1)));
        host.plan().steps.remove(0).reason
    };

    assert_eq!(said(3), "args set to [\"x\"], workingDir / → /a, hostname set to b");
    assert!(said(4).ends_with(", and 1 more"), "{}", said(4));
    assert!(said(5).ends_with(", and 2 more"), "{}", said(5));
}

#[test]
fn what_is_left_ended_says_how_it_ended() {
    let mut host = Host::new();
    host.ask(object("web", "{image: 'host:/', command: [c], restart: {policy: never}}"));
    host.step();
    host.ends(1, 3);
    host.rest();

    assert_eq!(host.sync(), (Sync::Failed, "exited with 3, and its restart policy lets it be".to_owned()));
}
