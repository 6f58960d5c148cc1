//! What follows from what the probes of a container say.

use super::*;

fn says(host: &mut Host, health: HealthSeen) {
    host.sighting(1).health = health;
}

/// Its stop signal is obeyed.
fn ends(host: &mut Host) {
    let at = host.now;
    let sighting = host.sighting(1);
    sighting.process = ProcessSeen::Exited(Exit { code: Some(0), signal: None, at, oom_killed: false });
    sighting.group.as_mut().expect("a cgroup").populated = false;
}

fn with_policy(policy: &str) -> Host {
    let mut host = Host::new();
    let spec =
        format!("{{image: 'host:/', command: [c], restart: {{policy: {policy}, backoff: {{min: 2s, max: 8s}}}}}}");
    host.ask(object("web", &spec));
    host.step();
    host
}

#[test]
fn what_does_not_work_is_stopped_and_started_again_later_each_time() {
    for policy in ["always", "onFailure"] {
        let mut host = with_policy(policy);
        for (restart, wait) in [(1, 2), (2, 4), (3, 8)] {
            says(&mut host, HealthSeen::Failed("liveness failed".to_owned()));
            let stop = host.step();
            assert!(matches!(stop.action, Action::Signal { .. }), "{stop:?}");
            assert_eq!(stop.reason, "liveness failed");

            // What it says of itself is not believed.
            ends(&mut host);
            let collected = host.step();
            assert_eq!(collected.reason, format!("liveness failed, restart {restart} in {wait}s"));
            assert!(host.plan().steps.is_empty());
            host.now = host.now.after(Span::from_secs(wait));
            let start = host.step();
            assert!(matches!(start.action, Action::Start { .. }), "{start:?}");
            assert_eq!(host.web().restarts, restart);
            assert_eq!(host.sync(), (Sync::Synced, String::new()));
        }
    }
}

#[test]
fn what_is_never_restarted_is_stopped_for_its_probes_and_lies() {
    let mut host = with_policy("never");
    says(&mut host, HealthSeen::Failed("liveness failed".to_owned()));
    host.step();
    ends(&mut host);
    host.step();

    host.now = host.now.after(Span::from_secs(3_600));
    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync(), (Sync::Failed, "liveness failed, and its restart policy lets it be".to_owned()));
}

#[test]
fn what_is_not_ready_goes_on() {
    for health in [HealthSeen::Unknown, HealthSeen::Starting("no".into()), HealthSeen::NotReady("no".into())] {
        let mut host = with_policy("always");
        says(&mut host, health);
        assert!(host.plan().steps.is_empty());
    }
}

#[test]
fn a_probe_that_passes_again_does_not_undo_what_was_begun_for_it() {
    let mut host = with_policy("always");
    says(&mut host, HealthSeen::Failed("liveness failed".to_owned()));
    host.intend();

    says(&mut host, HealthSeen::Ready);
    let again = host.step();
    assert!(matches!(again.action, Action::Signal { .. }), "{again:?}");
    assert_eq!(again.reason, "liveness failed");
}

#[test]
fn a_suspended_object_is_not_stopped_for_its_probes() {
    let mut host = with_policy("always");
    host.records.get_mut(&id("web")).expect("a record").suspended = Some(said("look at it", None));
    says(&mut host, HealthSeen::Failed("liveness failed".to_owned()));

    assert!(host.plan().steps.is_empty());
}

#[test]
fn what_waits_for_another_to_be_healthy_starts_when_that_is_ready() {
    let mut host = Host::new();
    host.ask(object("web", "{image: 'host:/', command: [c], health: {readiness: {tcp: {port: 80}}}}"));
    host.step();
    host.ask(object("zed", "{image: 'host:/', command: [c], dependsOn: [{name: web, condition: healthy}]}"));
    for health in [HealthSeen::Unknown, HealthSeen::NotReady("no".into()), HealthSeen::Failed("no".into())] {
        says(&mut host, health);
        let plan = host.plan();
        assert!(!plan.steps.iter().any(|step| matches!(step.action, Action::Start { .. })), "{:?}", plan.steps);
        assert!(plan.findings[&id("zed")].message.contains("waits for Container/default/web to be healthy"));
    }

    says(&mut host, HealthSeen::Ready);
    assert!(matches!(host.step().action, Action::Start { .. }));
}

#[test]
fn many_restarts_take_nothing_from_the_grace_when_its_signal_cannot_be_sent() {
    let mut host = with_policy("always");
    host.records.get_mut(&id("web")).expect("a record").attempts.failures = 9;
    says(&mut host, HealthSeen::Failed("liveness failed".to_owned()));
    let stop = host.intend();
    host.settle(&stop, Err(Failure { message: "keeper away".to_owned(), field: None }));

    host.now = host.now.after(Span::from_secs(1));
    let again = host.plan().steps.remove(0);
    assert!(matches!(again.action, Action::Signal { .. }), "{again:?}");
}
