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
        while let Some(step) = host.plan().steps.into_iter().next() {
            host.carry_out(&step);
        }

        assert_eq!(host.sync().0, sync);
    }
}
