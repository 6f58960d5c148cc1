//! How objects wait for each other.

use super::*;

const DB: &str = "{image: 'host:/', command: [d]}";
const NEEDS_DB: &str = "{image: 'host:/', command: [c], dependsOn: [{name: db}]}";
const AFTER_DB: &str = "{image: 'host:/', command: [c], dependsOn: [{name: db, condition: completed}]}";

/// Carries out everything that is planned, once.
fn round(host: &mut Host) -> Vec<Step> {
    let steps = host.plan().steps;
    for step in &steps {
        host.carry_out(step);
    }
    steps
}

fn finding(host: &Host, name: &str) -> (Sync, String) {
    let Finding { sync, message } = host.plan().findings.remove(&id(name)).expect("a finding");
    (sync, message)
}

fn starts(steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| matches!(step.action, Action::Start { .. }).then(|| step.object.name.to_string());
    steps.iter().filter_map(name).collect()
}

#[test]
fn what_another_needs_runs_before_it() {
    let mut host = Host::new();
    host.ask(object("app", NEEDS_DB));
    assert!(starts(&round(&mut host)).is_empty());
    let waits = "waits for Container/default/db, which nothing asks for yet".to_owned();
    assert_eq!(finding(&host, "app"), (Sync::Pending, waits));

    host.ask(object("db", DB));
    assert_eq!(starts(&round(&mut host)), ["db"]);
    assert_eq!(starts(&round(&mut host)), ["app"]);
    assert!(round(&mut host).is_empty());
}

#[test]
fn what_runs_goes_on_without_what_it_once_waited_for() {
    let mut host = Host::new();
    host.ask(object("app", NEEDS_DB));
    host.ask(object("db", DB));
    while !round(&mut host).is_empty() {}

    host.seen.instances.remove(&InstanceId::new(&id("db"), 1));
    let steps = host.plan().steps;

    assert!(steps.iter().all(|step| step.object == id("db")), "{steps:?}");
}

#[test]
fn what_has_to_complete_has_ended_with_0() {
    let mut host = Host::new();
    host.ask(object("app", AFTER_DB));
    host.ask(object("db", &DB.replace('}', ", restart: {policy: never}}")));
    round(&mut host);
    assert_eq!(finding(&host, "app"), (Sync::Pending, "waits for Container/default/db to complete".to_owned()));
    for (code, message) in [(1, "waits for Container/default/db to complete, which exited with 1"), (0, "")] {
        let exit = Exit { code: Some(code), signal: None, at: host.now, oom_killed: false };
        let record = host.records.get_mut(&id("db")).expect("a record");
        record.last_exit = Some(exit);
        record.instance.as_mut().expect("an instance").phase = Phase::Exited;
        let sighting = host.seen.instances.get_mut(&InstanceId::new(&id("db"), 1)).expect("an instance");
        (sighting.process, sighting.group) = (ProcessSeen::None, None);

        let steps = host.plan().steps;

        assert_eq!(starts(&steps), if code == 0 { vec!["app"] } else { vec![] });
        assert!(code == 0 || finding(&host, "app").1 == message, "{:?}", finding(&host, "app"));
        // Once it runs again, its last end is of no interest.
        let sighting = host.seen.instances.get_mut(&InstanceId::new(&id("db"), 1)).expect("an instance");
        sighting.process = ProcessSeen::Running { pid: 7, since: host.now, ignores_stop: false };
        assert_eq!(finding(&host, "app").1, "waits for Container/default/db to complete");
    }
}

#[test]
fn a_circle_is_rejected_with_its_way_and_stops_nothing() {
    let mut host = Host::new();
    host.ask(object("app", NEEDS_DB));
    host.ask(object("db", DB));
    while !round(&mut host).is_empty() {}

    host.ask(object("db", &DB.replace('}', ", dependsOn: [{name: app}]}")));

    assert!(host.plan().steps.is_empty());
    let message = "dependsOn goes in a circle: db → app → db".to_owned();
    assert_eq!(finding(&host, "db"), (Sync::Invalid, message));
    host.ask(object("own", &DB.replace('}', ", dependsOn: [{name: own}]}")));
    assert!(host.plan().steps.is_empty());
    assert_eq!(finding(&host, "own").1, "dependsOn goes in a circle: own → own");
}

#[test]
fn the_highest_priority_starts_first() {
    let mut host = Host::new();
    for (name, priority) in [("a", 0), ("b", 20), ("c", -1), ("d", 3)] {
        host.ask(object(name, &DB.replace('}', &format!(", boot: {{priority: {priority}}}}}"))));
    }

    assert_eq!(starts(&host.plan().steps), ["b", "d", "a", "c"]);
}

#[test]
fn when_all_stop_what_another_needs_stops_after_it() {
    let mut host = Host::new();
    host.ask(object("app", NEEDS_DB));
    host.ask(object("db", DB));
    while !round(&mut host).is_empty() {}

    host.settings.stop_all = true;

    let steps = round(&mut host);
    assert!(steps.iter().all(|step| step.object == id("app")) && steps.len() == 1, "{steps:?}");
    assert_eq!(finding(&host, "db").1, "stops after Container/default/app, which needs it");
    let sighting = host.seen.instances.get_mut(&InstanceId::new(&id("app"), 1)).expect("an instance");
    sighting.process = ProcessSeen::None;
    assert!(round(&mut host).iter().any(|step| step.object == id("db")));
}
