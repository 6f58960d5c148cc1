//! What stands beside what is asked for: leftovers, second instances, processes without their first one.

use super::*;

fn other(number: u64) -> InstanceId {
    InstanceId::new(&id("web"), number)
}

fn running(since: Timestamp) -> Sighting {
    let process = ProcessSeen::Running { pid: 9, since, ignores_stop: false };
    let group = Some(GroupSeen { populated: true, limits: BTreeMap::new() });
    Sighting { process, group, rootfs: true, ..Sighting::default() }
}

fn remains() -> Sighting {
    Sighting { rootfs: true, ..Sighting::default() }
}

#[test]
fn what_sets_something_free_goes_before_what_takes_it() {
    let mut host = Host::new();
    for name in ["resized", "stopped", "rests"] {
        host.ask(object(name, WEB));
    }
    for step in host.plan().steps {
        host.carry_out(&step);
    }
    host.ask(object("a-new", WEB));
    host.ask(object("resized", &WEB.replace("512Mi", "256Mi")));
    host.ask(object("stopped", &WEB.replacen('{', "{desiredState: stopped, ", 1)));
    host.seen.instances.insert(InstanceId::new(&id("b-left"), 1), remains());

    let steps = host.plan().steps;

    let order: Vec<&str> = steps.iter().map(|step| step.object.name.as_str()).collect();
    assert_eq!(order, ["resized", "stopped", "b-left", "a-new"], "{steps:?}");
}

#[test]
fn what_nobody_knows_is_removed_when_it_does_not_run_and_by_consent_when_it_does() {
    let mut host = Host::new();
    host.ask(object("rests", WEB));
    host.step();
    host.seen.instances.insert(other(4), remains());
    assert!(matches!(host.plan().steps.as_slice(), [Step { action: Action::Remove { .. }, .. }]));

    host.seen.instances.insert(other(4), running(NOW));
    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync().0, Sync::Held);

    host.approved.insert(id("web"));
    assert!(matches!(host.plan().steps.as_slice(), [Step { action: Action::Remove { .. }, .. }]));
    host.settings.stop_all = true;
    assert!(host.plan().steps.iter().all(|step| step.object != id("web")));
}

#[test]
fn processes_that_outlive_their_first_one_are_killed_before_anything_else() {
    let mut host = Host::with_web();
    host.ends(1, 1);
    host.sighting(1).group.as_mut().expect("a group").populated = true;

    assert!(matches!(host.plan().steps[0].action, Action::Kill { .. }), "{:?}", host.plan().steps);
    host.sighting(1).group.as_mut().expect("a group").populated = false;
    assert!(!matches!(host.plan().steps[0].action, Action::Kill { .. }), "{:?}", host.plan().steps);
}

#[test]
fn the_keeper_and_the_cgroup_tree_are_both_cleared_of_what_has_ended() {
    for (exited, group) in [(true, false), (false, true)] {
        let mut host = Host::with_web();
        host.ask(object("web", &WEB.replacen('{', "{desiredState: stopped, ", 1)));
        host.step();
        host.ends(1, 0);
        if !exited {
            host.sighting(1).process = ProcessSeen::None;
        }
        if !group {
            host.sighting(1).group = None;
        }

        let step = host.step();

        assert!(matches!(step.action, Action::Collect { .. }), "{exited} {group}: {step:?}");
    }
}

#[test]
fn a_second_instance_goes_and_the_one_that_runs_is_taken_for_the_current_one() {
    let mut host = Host::with_web();
    host.seen.instances.insert(other(2), running(NOW));
    let step = host.step();
    assert_eq!(step.action, Action::Remove { instance: other(2) });

    host.seen.instances.insert(other(2), running(NOW));
    host.seen.instances.insert(other(1), remains());
    host.step();
    assert_eq!(host.web().instance.as_ref().map(|instance| instance.id.number), Some(2));
}

#[test]
fn leftovers_wait_as_long_as_nothing_is_tried() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    let step = host.intend();
    host.settle(&step, Err(Failure { message: "no such program".into(), field: None }));
    host.seen.instances.insert(other(7), remains());

    assert!(host.plan().steps.is_empty(), "{:?}", host.plan().steps);

    host.pass(2);
    assert_eq!(host.plan().steps[0].action, Action::Remove { instance: other(7) });
}

#[test]
fn a_start_that_nobody_saw_to_its_end_began_when_its_process_did() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    host.intend();
    let since = NOW.after(Span::from_secs(3));
    host.seen.instances.insert(other(1), running(since));
    host.pass(60);

    host.step();

    assert_eq!(host.web().instance.as_ref().and_then(|instance| instance.started_at), Some(since));
}

#[test]
fn ids_are_the_lowest_that_nothing_on_the_host_has() {
    let mut host = Host::new();
    let taken =
        crate::spec::IdRange { base: 100_000 + crate::spec::IdRange::SIZE + 7, size: crate::spec::IdRange::SIZE };
    host.seen.instances.insert(InstanceId::new(&id("stray"), 1), Sighting { ids: Some(taken), ..running(NOW) });
    for name in ["a", "b", "c"] {
        host.ask(object(name, WEB));
    }

    let steps = host.plan().steps;
    let slots: Vec<u32> = steps
        .iter()
        .filter_map(|step| step.record.as_ref()?.instance.as_ref()?.ids)
        .map(|ids| (ids.base - 100_000) / crate::spec::IdRange::SIZE)
        .collect();

    // It begins in the second and ends in the third.
    assert_eq!(slots, [0, 3, 4]);
}

#[test]
fn what_is_left_over_counts_as_something_to_lose_and_what_is_yet_to_come_does_not() {
    let mut host = Host::new();
    (host.settings.max_delete, host.settings.max_delete_percent) = (0, 50);
    for name in ["a", "b", "c"] {
        host.ask(object(name, WEB));
    }
    for step in host.plan().steps {
        host.carry_out(&step);
    }
    host.desired.objects.remove(&id("a"));
    host.desired.objects.remove(&id("b"));
    host.ask(object("new", WEB));
    // Two of three; of four it would be half.
    let held = host.plan().findings.get(&id("a")).map(|finding| finding.sync);
    assert_eq!(held, Some(Sync::Held));

    host.ask(object("a", WEB));
    host.settings.max_delete_percent = 30;
    host.desired.objects.insert(id("b"), host.desired.objects[&id("a")].clone());
    host.seen.instances.insert(InstanceId::new(&id("left"), 1), remains());
    let left = |host: &Host| host.plan().findings.get(&id("left")).map(|finding| finding.sync);
    // One of four that are managed, this one among them, is as many as may go; of three it is not.
    assert_eq!(left(&host), Some(Sync::Deleting));
    host.settings.max_delete_percent = 24;
    assert_eq!(left(&host), Some(Sync::Held));
}
