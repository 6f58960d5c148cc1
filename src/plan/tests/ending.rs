//! How a process comes to its end, and what is left in its cgroup.

use super::*;

fn stopping(spec: &str) -> Host {
    let mut host = Host::new();
    host.ask(object("web", spec));
    host.step();
    host.ask(object("web", &spec.replacen('{', "{desiredState: stopped, ", 1)));
    let step = host.step();
    assert!(matches!(step.action, Action::Signal { .. }), "{step:?}");
    host
}

fn deaf(host: &mut Host) {
    host.sighting(1).process = ProcessSeen::Running { pid: 7, since: NOW, ignores_stop: true };
}

#[test]
fn a_signal_that_is_seen_to_be_lost_is_followed_by_a_kill_at_once_and_once() {
    let mut host = stopping(WEB);
    assert!(host.plan().steps.is_empty(), "it has its grace");

    deaf(&mut host);
    let step = host.step();

    assert!(matches!(step.action, Action::Kill { .. }) && step.reason.contains("ignores SIGTERM"), "{step:?}");
    assert!(host.plan().steps.is_empty(), "it is ending: {:?}", host.plan().steps);
    host.pass(2);
    assert!(matches!(host.plan().steps[0].action, Action::Kill { .. }));
}

#[test]
fn a_stop_signal_that_is_a_kill_cannot_be_lost() {
    let mut host = stopping("{image: 'host:/', command: [c], stop: {signal: KILL, grace: 10s}}");

    deaf(&mut host);

    assert!(host.plan().steps.is_empty(), "{:?}", host.plan().steps);
}

#[test]
fn another_image_takes_the_old_root_filesystem_away_as_soon_as_its_process_has_ended() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("host:/", "rootfs:/srv/x")));
    assert!(matches!(host.step().action, Action::Check { .. }));
    assert!(matches!(host.step().action, Action::Signal { .. }));

    host.ends(1, 0);

    assert!(matches!(host.step().action, Action::Remove { .. }));
    assert!(matches!(host.step().action, Action::Start { run: 1, .. }));
}

#[test]
fn a_process_that_ends_while_a_new_revision_waits_is_not_said_to_be_restarted_later() {
    for (asked, later) in [(false, true), (true, false)] {
        let mut host = Host::with_web();
        if asked {
            let word = Override { state: OverrideState::Restart, word: said("new key", None) };
            host.records.get_mut(&id("web")).expect("a record").override_ = Some(word);
        }
        host.ends(1, 1);

        let reason = host.plan().steps.remove(0).reason;

        assert_eq!(reason.contains("restart 1 in 1s"), later, "{reason}");
    }
}

#[test]
fn what_a_start_that_was_cut_off_has_left_in_the_cgroup_is_killed_now_and_then() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    host.intend();
    let group = Some(GroupSeen { populated: true, limits: BTreeMap::new() });
    let sighting = Sighting { group, rootfs: true, ..Sighting::default() };
    host.seen.instances.insert(InstanceId::new(&id("web"), 1), sighting);

    let step = host.step();
    assert!(matches!(step.action, Action::Kill { .. }), "{step:?}");
    assert_eq!(step.reason, "processes stayed in its cgroup");

    // A second later, if they are still there.
    assert!(host.plan().steps.is_empty(), "{:?}", host.plan().steps);
    assert_eq!(host.sync(), (Sync::Pending, "its last processes are ending".to_owned()));
    host.pass(1);
    assert!(matches!(host.plan().steps[0].action, Action::Kill { .. }));
}
