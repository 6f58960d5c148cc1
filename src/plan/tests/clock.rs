//! The wall clock is set back, or forward, by hours while something waits.

use super::*;

const HOURS: u64 = 5 * 3600;

/// How many seconds from now the next thing happens by itself, after the clock was set back.
fn waits_when_set_back(host: &mut Host) -> u64 {
    host.now = Timestamp(host.now.0 - HOURS * 1000);
    host.rest();
    host.plan().wake_at.expect("something that waits").since(host.now).0 / 1000
}

fn record(host: &mut Host) -> &mut Record {
    host.records.get_mut(&id("web")).expect("a record")
}

#[test]
fn a_restart_waits_no_longer_than_its_backoff() {
    let mut host = Host::with_web();
    host.ends(1, 1);
    host.step();

    let wait = waits_when_set_back(&mut host);

    assert!((1..=8).contains(&wait), "{wait}");
}

#[test]
fn a_failure_is_tried_again_after_no_more_than_its_own_wait() {
    let mut host = Host::new();
    host.ask(object("web", WEB));
    let step = host.intend();
    host.settle(&step, Err(Failure { message: "no such program".into(), field: None }));

    let wait = waits_when_set_back(&mut host);

    assert!((1..=8).contains(&wait), "{wait}");
}

#[test]
fn an_absent_object_goes_after_its_grace_and_what_is_kept_after_its_time() {
    let mut host = Host::with_web();
    host.desired.objects.clear();
    host.step();
    assert_eq!(waits_when_set_back(&mut host), 10);

    host.settings.retention = Span::from_secs(3600);
    host.pass(10);
    assert!(matches!(host.step().action, Action::Signal { .. }));
    host.ends(1, 0);
    host.rest();

    assert_eq!(waits_when_set_back(&mut host), 3600);
    assert!(!host.sighting(1).is_running(), "it does not come back for another grace");
}

#[test]
fn a_stubborn_process_is_killed_after_its_grace() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replacen('{', "{desiredState: stopped, ", 1)));
    host.step();

    assert_eq!(waits_when_set_back(&mut host), 10);
}

#[test]
fn a_deferred_limit_is_tried_within_half_a_minute() {
    let mut host = Host::with_web();
    host.ask(object("web", &WEB.replace("512Mi", "256Mi")));
    let step = host.intend();
    let deferred = Some(Deferred { message: "in use".into(), next_try: NOW, tries: 0 });
    let Action::Resize { from, .. } = step.action.clone() else { panic!("{:?}", step.action) };
    let readback = BTreeMap::from([("memory.max".to_owned(), "536870912".to_owned())]);
    host.settle(&step, Ok(Outcome::Resized { actuated: from, readback, unsupported: vec![], deferred }));

    let wait = waits_when_set_back(&mut host);

    assert!((1..=30).contains(&wait), "{wait}");
}

#[test]
fn a_word_holds_no_longer_than_it_was_said_for() {
    let resources = container(WEB).resources;
    let says: [fn(&mut Record, Word, crate::spec::Resources); 3] = [
        |record, word, _| record.override_ = Some(Override { state: OverrideState::Running, word }),
        |record, word, _| record.suspended = Some(word),
        |record, word, resources| record.limits = Some(Limits { resources, word }),
    ];
    for (which, say) in says.into_iter().enumerate() {
        let mut host = Host::with_web();
        host.pass(1);
        let until = host.now.after(Span::from_secs(60));
        let word = Word { since: host.now, ..said("a leak", Some(until)) };
        say(record(&mut host), word, resources.clone());

        assert_eq!(waits_when_set_back(&mut host), 60, "{which}");
        host.pass(60);
        host.rest();
        let left = record(&mut host);
        assert!(left.override_.is_none() && left.suspended.is_none() && left.limits.is_none(), "{which}");
    }
}

#[test]
fn a_restart_that_is_asked_for_after_the_clock_was_set_back_is_done() {
    let mut host = Host::with_web();
    host.now = Timestamp(host.now.0 - HOURS * 1000);
    host.rest();
    host.pass(1);
    let word = Word { since: host.now, ..said("new key", None) };
    record(&mut host).override_ = Some(Override { state: OverrideState::Restart, word });

    assert!(matches!(host.step().action, Action::Signal { .. }));
}

#[test]
fn a_clock_that_is_as_it_was_or_a_little_behind_changes_nothing() {
    for back in [0, 500] {
        let mut host = Host::with_web();
        host.pass(60);
        host.now = Timestamp(host.now.0 - back);

        assert!(host.plan().steps.is_empty() && host.plan().wake_at.is_none(), "{back}");
    }
}

/// What the next wait is after the clock was set forward, and what it was before.
fn waits_when_set_forward(host: &mut Host) -> (u64, u64) {
    host.rest();
    let wait = |host: &Host| host.plan().wake_at.expect("something that waits").since(host.now).0;
    let before = wait(host);
    host.now = Timestamp(host.now.0 + HOURS * 1000);
    let carried = carry(record(host), Span::from_secs(HOURS)).expect("something to carry");
    *record(host) = carried;
    host.rest();
    (wait(host), before)
}

#[test]
fn no_wait_is_over_because_the_clock_was_set_forward() {
    type Waits = fn(&mut Host);
    let all: [(&str, Waits); 5] = [
        ("a restart", |host| {
            host.ends(1, 1);
            host.step();
        }),
        ("a deletion", |host| {
            host.desired.objects.clear();
            host.step();
        }),
        ("what is kept", |host| {
            host.settings.retention = Span::from_secs(3600);
            host.desired.objects.clear();
            host.step();
            host.pass(10);
            host.step();
            host.ends(1, 0);
        }),
        ("a kill", |host| {
            host.desired.objects.clear();
            host.step();
            host.pass(10);
            assert!(matches!(host.step().action, Action::Signal { .. }));
        }),
        ("a word", |host| {
            let until = Some(host.now.after(Span::from_secs(7200)));
            record(host).suspended = Some(said("a leak", until));
        }),
    ];
    for (what, waits) in all {
        let mut host = Host::with_web();
        waits(&mut host);

        let (after, before) = waits_when_set_forward(&mut host);

        assert_eq!(after, before, "{what}");
    }
}

#[test]
fn a_record_that_waits_for_nothing_is_not_written_when_the_clock_is_set() {
    let mut host = Host::with_web();
    host.rest();

    assert_eq!(carry(record(&mut host), Span::from_secs(HOURS)), None);
}
