//! What becomes of an object whose text is gone.

use super::*;

/// A host whose only object has lost its text, with the grace over.
fn without_its_text(fields: &str) -> Host {
    let mut host = Host::new();
    host.settings.retention = Span::from_secs(3600);
    host.ask(object("web", &WEB.replacen('{', &format!("{{{fields}, "), 1)));
    host.step();
    absent(&mut host);
    host
}

fn absent(host: &mut Host) {
    host.desired.objects.clear();
    let noted = host.step();
    assert!(matches!(noted.action, Action::Note), "{:?}", noted.action);
    host.pass(10);
}

fn ended(host: &mut Host) {
    let step = host.step();
    assert!(matches!(step.action, Action::Signal { .. }), "{:?}", step.action);
    host.ends(1, 0);
    for step in host.rest() {
        assert!(!matches!(step.action, Action::Remove { .. }), "{step:?}");
    }
}

#[test]
fn nothing_is_absent_before_every_source_was_listed() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    host.step();
    let other = SourceState::Unavailable { reason: "not read yet".into() };
    host.desired.sources.insert("other".into(), other);

    host.desired.objects.clear();
    host.pass(3600);
    assert!(host.plan().steps.is_empty(), "{:?}", host.plan().steps);
    assert_eq!(host.sync().0, Sync::Unavailable);

    host.desired.sources.insert("other".into(), SourceState::Complete);
    assert!(matches!(host.step().action, Action::Note));
    assert_eq!(host.sync().0, Sync::Deleting);
}

#[test]
fn consent_within_the_grace_ends_the_wait() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    host.step();
    host.desired.objects.clear();
    assert!(matches!(host.step().action, Action::Note));
    assert!(host.plan().steps.is_empty());

    host.approved.insert(id("web"));

    assert!(matches!(host.step().action, Action::Signal { .. }));
}

#[test]
fn a_deleted_object_is_stopped_kept_for_a_while_and_then_removed() {
    let mut host = without_its_text("deletionPolicy: Delete");

    ended(&mut host);

    assert!(host.seen.instances.len() == 1 && host.web().instance.is_some());
    let (sync, message) = host.sync();
    assert_eq!(sync, Sync::Deleting);
    assert!(message.contains("kept for 1h") || message.contains("kept for 59m"), "{message}");
    host.pass(3600);
    assert!(matches!(host.step().action, Action::Remove { .. }));
    assert!(matches!(host.step().action, Action::Forget));
    assert!(host.records.is_empty() && host.seen.instances.is_empty());
}

#[test]
fn a_text_that_comes_back_in_time_goes_on_in_the_same_root_filesystem() {
    let mut host = without_its_text("deletionPolicy: Delete");
    ended(&mut host);
    host.pass(1800);

    host.ask(object("web", WEB));
    let step = host.step();

    match step.action {
        Action::Start { instance, run, .. } => assert_eq!((instance.number, run), (1, 2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn consent_removes_what_is_only_kept_for_a_while() {
    let mut host = without_its_text("deletionPolicy: Delete");
    ended(&mut host);

    host.approved.insert(id("web"));

    assert!(matches!(host.step().action, Action::Remove { .. }));
}

#[test]
fn what_is_kept_for_a_while_does_not_hold_up_other_deletions() {
    let mut host = without_its_text("deletionPolicy: Delete");
    ended(&mut host);
    host.ask(object("other", WEB));
    host.step();

    host.desired.objects.clear();
    host.step();
    host.pass(10);

    let step = host.step();
    assert!(matches!(step.action, Action::Signal { .. }), "{:?}", step.action);
}

#[test]
fn a_policy_of_stop_ends_the_process_and_keeps_the_rest_until_consent() {
    let mut host = without_its_text("deletionPolicy: Stop");
    ended(&mut host);

    host.pass(1_000_000);

    assert!(host.plan().steps.is_empty() && host.plan().wake_at.is_none());
    assert_eq!(host.sync().0, Sync::Held);
    host.approved.insert(id("web"));
    assert!(matches!(host.step().action, Action::Remove { .. }));
}

#[test]
fn an_orphan_is_left_alone_even_when_it_drifts_or_ends() {
    let mut host = without_its_text("deletionPolicy: Orphan");
    host.sighting(1).group = Some(GroupSeen { populated: true, limits: BTreeMap::new() });

    assert!(host.plan().steps.is_empty());
    host.ends(1, 1);
    assert!(host.plan().steps.is_empty() && host.plan().wake_at.is_none());
    assert_eq!(host.sync().0, Sync::Held);
    host.seen.instances.clear();
    assert!(matches!(host.step().action, Action::Forget));
}

#[test]
fn an_orphan_stays_one_while_its_source_cannot_be_read() {
    let mut host = without_its_text("deletionPolicy: Orphan");
    host.ends(1, 1);

    host.desired.sources.insert("dir".into(), SourceState::Unavailable { reason: "not mounted".into() });

    assert!(host.plan().steps.is_empty(), "{:?}", host.plan().steps);
}

#[test]
fn an_object_that_wants_to_be_asked_goes_on_and_is_looked_after() {
    let mut host = without_its_text("deletionPolicy: Confirm");

    assert_eq!(
        host.sync(),
        (Sync::Held, "file removed, and its deletionPolicy is Confirm: its removal waits for plim approve".into())
    );
    host.ends(1, 1);
    assert!(matches!(host.step().action, Action::Collect { .. }));
    assert!(host.plan().wake_at.is_some(), "its restart");
    host.approved.insert(id("web"));
    assert!(matches!(host.step().action, Action::Remove { .. }));
}

#[test]
fn an_object_that_is_not_to_be_pruned_goes_on() {
    let mut host = Host::new();
    let mut kept = object("web", WEB);
    kept.annotations.insert(crate::spec::PRUNE.to_owned(), crate::spec::DISABLED.to_owned());
    host.ask(kept);
    host.step();

    absent(&mut host);

    assert!(host.plan().steps.is_empty());
    assert_eq!(host.sync().0, Sync::Held);
}

#[test]
fn what_is_gone_from_a_source_that_does_not_prune_waits_for_consent_and_holds_up_nothing_else() {
    let mut host = Host::new();
    (host.settings.max_delete, host.settings.max_delete_percent) = (1, 0);
    for name in ["a", "b", "c", "d"] {
        host.ask_of(if name < "c" { "dir" } else { "fleet" }, object(name, WEB));
    }
    host.settings.pruning.insert("fleet".into(), Pruning { prune: false, max_delete: None });
    host.all();
    for name in ["b", "c", "d"] {
        host.desired.objects.remove(&id(name));
    }

    assert_eq!(host.stands("b").0, Sync::Deleting);
    for name in ["c", "d"] {
        assert_eq!(
            host.stands(name),
            (
                Sync::Held,
                "file removed, and the source fleet does not prune: its removal waits for plim approve".into()
            )
        );
    }
    host.approved.insert(id("c"));
    assert_eq!((host.stands("c").0, host.stands("d").0), (Sync::Deleting, Sync::Held));
}

#[test]
fn the_limit_of_a_source_is_for_its_own_objects_and_for_no_others() {
    let mut host = Host::new();
    (host.settings.max_delete, host.settings.max_delete_percent) = (0, 50);
    for name in ["a", "b", "c", "d", "e", "f"] {
        host.ask_of(if name < "c" { "dir" } else { "fleet" }, object(name, WEB));
    }
    let limit = |count| Pruning { prune: true, max_delete: Some(MaxDelete { count, percent: 0 }) };
    host.settings.pruning.insert("fleet".into(), limit(2));
    host.all();

    for name in ["a", "c", "d"] {
        host.desired.objects.remove(&id(name));
    }
    assert_eq!(["a", "c", "d"].map(|name| host.stands(name).0), [Sync::Deleting; 3]);
    host.settings.pruning.insert("fleet".into(), limit(1));
    assert_eq!(["a", "c", "d"].map(|name| host.stands(name).0), [Sync::Deleting, Sync::Held, Sync::Held]);
    let message = host.stands("c").1;
    assert!(message.contains("2 of 4 objects are gone from the source fleet, more than 1 at once"), "{message}");

    // All of it is never right without consent, however much is allowed.
    host.settings.pruning.insert("fleet".into(), limit(9));
    for name in ["e", "f"] {
        host.desired.objects.remove(&id(name));
    }
    let message = host.stands("f").1;
    assert!(message.contains("all 4 objects are gone from the source fleet"), "{message}");
    assert_eq!(host.stands("a").0, Sync::Deleting);
}
