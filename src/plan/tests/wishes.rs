//! What a text asks for, and what is said of it while it is carried out.

use super::*;

fn moved(host: &mut Host, name: &str, path: &str, revision: &str) {
    let Some(Wish::Present(wanted)) = host.desired.objects.get(&id(name)).cloned() else { panic!("no {name}") };
    let provenance = Provenance { path: path.to_owned(), revision: revision.to_owned(), ..wanted.provenance.clone() };
    let wanted = Wanted { object: wanted.object.clone(), provenance };
    host.desired.objects.insert(id(name), Wish::Present(Arc::new(wanted)));
}

#[test]
fn a_text_that_moves_or_changes_without_saying_anything_new_is_only_written_down() {
    let mut host = Host::with_web();
    assert!(host.plan().steps.is_empty());

    moved(&mut host, "web", "/m/other.yaml", "r");
    let step = host.step();
    assert!(matches!(step.action, Action::Note), "{step:?}");
    assert_eq!(step.reason, "moved to /m/other.yaml");

    moved(&mut host, "web", "/m/other.yaml", "r2");
    let step = host.step();
    assert!(matches!(step.action, Action::Note), "{step:?}");
    assert_eq!(step.reason, "its text changed, and nothing that it says");
    assert_eq!(host.web().generation, 1);
    assert!(host.plan().steps.is_empty());
}

#[test]
fn a_change_that_costs_nothing_makes_the_process_one_of_the_new_revision() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replacen('{', "{stop: {grace: 3s}, ", 1)));
    host.step();
    let generation = |host: &Host| host.web().instance.as_ref().map(|instance| instance.generation);
    assert_eq!((host.web().generation, generation(&host)), (2, Some(2)));

    // But not when it is of an older one already.
    host.ask(object("web", &WEB.replacen('{', "{stop: {grace: 3s}, ", 1).replace("[c]", "[d]")));
    assert!(matches!(host.step().action, Action::Check { .. }));
    host.ask(object("web", &WEB.replacen('{', "{stop: {grace: 4s}, ", 1).replace("[c]", "[d]")));
    let _noted = host.plan().steps.into_iter().next().map(|step| host.carry_out(&step));
    assert_eq!((host.web().generation, generation(&host)), (4, Some(2)));
}

#[test]
fn a_start_before_the_word_has_not_fulfilled_it_and_one_after_it_has() {
    for (later, again) in [(0, true), (1, false)] {
        let mut host = Host::with_web();
        let word = Word { since: host.now, ..said("new key", None) };
        let record = host.records.get_mut(&id("web")).expect("a record");
        record.override_ = Some(Override { state: OverrideState::Restart, word });
        let started_at = host.now.after(Span::from_secs(later));
        record.instance.as_mut().expect("an instance").started_at = Some(started_at);
        host.pass(5);

        let stops = host.plan().steps.iter().any(|step| matches!(step.action, Action::Signal { .. }));

        assert_eq!(stops, again);
    }
}

#[test]
fn what_is_stopped_says_why() {
    let reason = |change: fn(&mut Host)| {
        let mut host = Host::with_web();
        change(&mut host);
        let step = host.plan().steps.into_iter().find(|step| matches!(step.action, Action::Signal { .. }));
        step.expect("a stop").reason
    };

    let stopped = reason(|host| host.ask(object("web", &WEB.replacen('{', "{desiredState: stopped, ", 1))));
    assert!(stopped.contains("desiredState"), "{stopped}");
    let gone = reason(|host| {
        host.desired.objects.clear();
        host.step();
        host.pass(10);
    });
    assert!(gone.contains("removed"), "{gone}");
    let all = reason(|host| host.settings.stop_all = true);
    let down = reason(|host| host.settings.halt = true);
    assert!(all != down && all != stopped && down != stopped && !all.is_empty() && !down.is_empty(), "{all}, {down}");
    let asked = reason(|host| {
        let word = said("new key", None);
        let state = OverrideState::Restart;
        host.records.get_mut(&id("web")).expect("a record").override_ = Some(Override { state, word });
        host.records.get_mut(&id("web")).expect("a record").instance.as_mut().expect("one").started_at = Some(NOW);
    });
    assert!(asked.contains("new key"), "{asked}");
}

#[test]
fn a_removal_under_way_stands_still_while_its_source_cannot_be_read_and_one_before_that_is_none() {
    let unavailable = || SourceState::Unavailable { reason: "gone".into() };
    let mut host = Host::with_web();
    host.desired.objects.clear();
    host.step();
    host.desired.sources.insert("dir".into(), unavailable());
    host.pass(20);
    host.step();
    assert_eq!(host.web().absent_since, None, "its grace begins anew");
    assert!(host.plan().steps.is_empty());

    host.desired.sources.insert("dir".into(), SourceState::Complete);
    host.step();
    host.pass(10);
    assert!(matches!(host.step().action, Action::Signal { .. }));
    host.desired.sources.insert("dir".into(), unavailable());
    host.ends(1, 0);
    for step in host.rest() {
        // Neither brought back nor taken further.
        assert!(!matches!(step.action, Action::Start { .. } | Action::Remove { .. }), "{step:?}");
    }
    assert!(host.web().absent_since.is_some());
}

#[test]
fn the_end_of_a_grace_wakes_and_nothing_else_that_is_gone_does() {
    let mut host = Host::with_web();
    host.desired.objects.clear();
    host.step();
    assert_eq!(host.plan().wake_at, Some(host.now.after(Span::from_secs(10))));

    host.settings.stop_all = true;
    assert_ne!(host.plan().wake_at, Some(host.now.after(Span::from_secs(10))));
    host.settings.stop_all = false;
    host.desired.sources.insert("dir".into(), SourceState::Unavailable { reason: "gone".into() });
    assert_eq!(host.plan().wake_at, None);
}

#[test]
fn the_first_start_of_an_instance_makes_it_and_another_one_restarts_it() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    assert_eq!(host.step().class, Class::Recreate);
    host.ends(1, 1);
    host.step();
    host.pass(1);

    let step = host.step();

    assert!(matches!(step.action, Action::Start { run: 2, .. }), "{step:?}");
    assert_eq!(step.class, Class::Restart);
}
