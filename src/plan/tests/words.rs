//! What persons order stands above the manifests.

use super::*;

fn record(host: &mut Host) -> &mut Record {
    host.records.get_mut(&id("web")).expect("a record")
}

#[test]
fn nothing_is_done_about_a_suspended_object_until_its_time_is_over() {
    let mut host = Host::with_web();
    let until = host.now.after(Span::from_secs(60));
    record(&mut host).suspended = Some(said("a leak", Some(until)));
    host.ask(object("web", &WEB.replace("[c]", "[d]").replace("512Mi", "1Gi")));
    host.step();
    host.sighting(1).group.as_mut().expect("a cgroup").limits.insert("memory.max".into(), "1".into());

    assert!(host.plan().steps.is_empty());
    assert_eq!(host.plan().wake_at, Some(until));
    let (sync, message) = host.sync();
    assert_eq!(sync, Sync::Suspended);
    assert!(message.starts_with("suspended by uid 1000, until "), "{message}");
    assert!(message.ends_with(": a leak; what waits: restart, command [\"c\"] → [\"d\"]"), "{message}");
    host.ends(1, 1);
    assert!(host.plan().steps.is_empty(), "nor is it started again");

    host.pass(60);
    assert!(!host.plan().steps.is_empty());
}

#[test]
fn a_suspended_object_whose_text_is_gone_stays() {
    let mut host = Host::with_web();
    record(&mut host).suspended = Some(said("a leak", None));
    host.desired.objects.clear();
    host.step();
    host.pass(3600);

    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync().0, Sync::Suspended);
    host.settings.stop_all = true;
    assert!(matches!(host.step().action, Action::Signal { .. }), "who leaves takes it along");
}

#[test]
fn a_manifest_can_say_that_nothing_is_done() {
    let mut host = Host::new();
    let mut web = object("web", WEB);
    web.annotations.insert(crate::spec::RECONCILE.to_owned(), crate::spec::DISABLED.to_owned());
    host.ask(web);

    assert!(matches!(host.step().action, Action::Note));
    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync(), (Sync::Suspended, "plimsoll/reconcile is disabled".to_owned()));
    host.ask(object("web", WEB));
    assert!(matches!(host.step().action, Action::Start { .. }));
}

#[test]
fn limits_that_are_set_hold_above_the_manifest_until_their_time_is_over() {
    let mut host = Host::with_web();
    let until = host.now.after(Span::from_secs(60));
    let resources = container("{image: 'host:/', command: [c], resources: {memory: {limit: 1Gi}}}").resources;
    record(&mut host).limits = Some(Limits { resources, word: said("an import", Some(until)) });

    let step = host.step();
    assert!(matches!(step.action, Action::Resize { .. }), "{:?}", step.action);
    assert_eq!((step.class, &*step.reason), (Class::Live, "memory.limit 512Mi → 1Gi"));
    assert!(host.plan().steps.is_empty());
    let (sync, message) = host.sync();
    assert_eq!(sync, Sync::Overridden);
    assert!(message.starts_with("memory.limit 512Mi → 1Gi set by uid 1000, until "), "{message}");

    host.pass(60);
    let step = host.step();
    assert!(matches!(&step.action, Action::Resize { to, .. } if to.memory.limit == Some(Bytes(512 << 20))), "{step:?}");
    assert_eq!(host.sync().0, Sync::Synced);
}
