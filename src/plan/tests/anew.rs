//! Instances that are made anew, and processes that are started again.

use super::*;

fn number(host: &Host) -> u64 {
    host.web().instance.as_ref().expect("an instance").id.number
}

#[test]
fn what_is_made_anew_without_a_change_says_so() {
    let mut host = Host::with_web();
    host.seen.instances.clear();
    host.records.get_mut(&id("web")).expect("a record").instance = None;

    assert_eq!(host.step().reason, "made anew");
    assert_eq!(number(&host), 2);

    host.ask(object("web", &WEB.replace("[c]", "[d]")));
    host.seen.instances.clear();
    host.records.get_mut(&id("web")).expect("a record").instance = None;
    assert_eq!(host.step().reason, "command [\"c\"] → [\"d\"]");
}

#[test]
fn a_restart_counts_and_says_which_one_it_is() {
    let mut host = Host::with_web();
    host.ends(1, 1);
    let step = host.step();
    assert_eq!(step.reason, "exited with 1, restart 1 in 1s");
    assert_eq!(host.sync(), (Sync::Failed, "exited with 1, restart 1 in 1s".to_owned()));
    host.pass(1);

    assert!(matches!(host.step().action, Action::Start { run: 2, .. }));
    host.ends(1, 1);
    assert_eq!(host.step().reason, "exited with 1, restart 2 in 2s");
}

#[test]
fn what_is_left_ended_after_a_success_is_as_it_should_be() {
    for (code, sync) in [(0, Sync::Synced), (1, Sync::Failed)] {
        let mut host = Host::new();
        host.ask(object("web", "{image: 'host:/', command: [c], restart: {policy: never}}"));
        host.step();
        host.ends(1, code);
        host.rest();

        assert_eq!(host.sync().0, sync);
    }
}

#[test]
fn after_a_lost_database_a_root_filesystem_with_the_right_ids_is_used_again() {
    let ids = Some(crate::spec::IdRange { base: 100_000, size: crate::spec::IdRange::SIZE });
    for (found, number) in [(ids, 4), (None, 1)] {
        let mut host = Host::new();
        host.ask(object("web", WEB));
        let left = Sighting { rootfs: true, ids: found, ..Sighting::default() };
        host.seen.instances.insert(InstanceId::new(&id("web"), 4), left);

        host.rest();

        assert_eq!(self::number(&host), number);
        assert_eq!(host.web().next_instance, number + 1);
    }
}

#[test]
fn a_start_that_was_asked_for_starts_what_has_ended_and_only_once() {
    let mut host = Host::new();
    host.ask(object("web", "{image: 'host:/', command: [c], restart: {policy: never}}"));
    host.step();
    host.ends(1, 0);
    host.rest();
    host.pass(5);
    let word = Override { state: OverrideState::Running, word: Word { since: host.now, ..said("again", None) } };
    host.records.get_mut(&id("web")).expect("a record").override_ = Some(word);

    let step = host.step();
    assert!(matches!(step.action, Action::Start { run: 2, .. }), "{step:?}");
    assert_eq!(step.reason, "start asked for");

    host.pass(5);
    host.ends(1, 0);
    for step in host.rest() {
        assert!(!matches!(step.action, Action::Start { .. }), "{step:?}");
    }
}

#[test]
fn a_start_that_was_cut_off_is_given_up_when_nothing_asks_for_it_any_more() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    host.intend();
    host.ask(object("web", &WEB.replacen('{', "{desiredState: stopped, ", 1)));
    let running = ProcessSeen::Running { pid: 7, since: NOW, ignores_stop: false };
    let sighting = Sighting { process: running, rootfs: true, ..Sighting::default() };
    host.seen.instances.insert(InstanceId::new(&id("web"), 1), sighting);

    assert!(matches!(host.plan().steps[0].action, Action::Signal { .. }), "{:?}", host.plan().steps);

    let exit = Exit { code: Some(2), signal: None, at: NOW, oom_killed: false };
    host.sighting(1).process = ProcessSeen::Exited(exit);
    let reason = host.plan().steps.remove(0).reason;
    assert!(!reason.contains("restart"), "{reason}");
    host.ask(object("web", WEB));
    let reason = host.plan().steps.remove(0).reason;
    assert_eq!(reason, "exited with 2, restart 1 in 1s");
}

#[test]
fn a_start_says_what_is_new_or_what_failed_before() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    let step = host.intend();
    host.settle(&step, Err(Failure { message: "no such program".into(), field: None }));
    host.pass(1);
    assert_eq!(host.plan().steps[0].reason, "tried again after: no such program");

    host.ask(object("web", &WEB.replace("[c]", "[d]")));
    assert_eq!(host.plan().steps[0].reason, "command [\"c\"] → [\"d\"]");
}

#[test]
fn a_removal_that_was_cut_off_goes_on_and_a_failed_one_waits() {
    let mut host = Host::with_web();
    host.desired.objects.clear();
    host.step();
    host.pass(10);
    assert!(matches!(host.step().action, Action::Signal { .. }));
    host.ends(1, 0);
    let step = host.intend();
    assert!(matches!(step.action, Action::Remove { .. }), "{step:?}");
    assert_eq!(host.plan().steps[0].reason, "its removal was not seen to its end");

    host.settle(&step, Err(Failure { message: "busy".into(), field: None }));
    assert!(host.plan().steps.is_empty());
    host.seen.instances.clear();
    host.pass(1);
    assert!(matches!(host.plan().steps[0].action, Action::Forget));
}
