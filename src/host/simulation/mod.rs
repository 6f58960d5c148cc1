//! The planner against a small world: manifests come, go, break and change; processes end; steps fail
//! before, amid and after their effect; the store refuses; the agent crashes and keeps only what was
//! durable.
//!
//! The referee judges from world facts and from what was asked for, never from the agent's records.
//! A failure prints the seed that repeats it, with what led to it: `PLIM_SIM_SEED`. `PLIM_SIM_EFFECTS`
//! sets how long it goes on; `deploy/simulate`, a part of `make test`, runs the long form.

mod agent;
mod faults;
mod happenings;
mod referee;
mod world;

use crate::plan::tests::{id, object};
use crate::spec::Span;
use agent::Simulation;
use faults::{Faults, Point, STEPS};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Small worlds, in which objects have much to do with each other, and large ones.
fn objects(seed: u64) -> usize {
    if seed.is_multiple_of(4) { 6 } else { 20 + usize::try_from(seed % 5).expect("small") }
}

fn play(simulation: &mut Simulation) {
    for _ in 0..4 {
        simulation.live(60);
        simulation.come_to_rest();
    }
}

/// Plays a seed; after a failure once more, with everything that happens written down.
fn play_seed(seed: u64) -> (u64, Faults) {
    let mut simulation = Simulation::new(seed, objects(seed));
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(&mut simulation))) else {
        return (simulation.world.effects, simulation.faults);
    };
    let mut again = Simulation::new(seed, objects(seed));
    again.log = Some(Vec::new());
    // It ends as before.
    drop(catch_unwind(AssertUnwindSafe(|| play(&mut again))));
    let log = again.log.unwrap_or_default();
    let mut text = log[log.len().saturating_sub(250)..].join("\n");
    write!(text, "\nPLIM_SIM_SEED={seed} repeats this\n").expect("a string");
    std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).expect("a place for words");
    resume_unwind(panic)
}

#[test]
fn whatever_fails_the_host_comes_to_rest_as_asked_and_nothing_healthy_is_stopped() {
    if let Some(seed) = number("PLIM_SIM_SEED") {
        play_seed(seed);
        return;
    }
    let wanted = number("PLIM_SIM_EFFECTS").unwrap_or(15_000);
    let (next, effects, failed) = (AtomicU64::new(1), AtomicU64::new(0), AtomicBool::new(false));
    let faults = Mutex::new(Faults::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while effects.load(Ordering::Relaxed) < wanted && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let played =
                        catch_unwind(|| play_seed(seed)).inspect_err(|_| failed.store(true, Ordering::Relaxed));
                    let (done, met) = played.unwrap_or_else(|panic| resume_unwind(panic));
                    effects.fetch_add(done, Ordering::Relaxed);
                    faults.lock().expect("no other thread has failed").add(&met);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no thread has failed");
    // Shown with --nocapture.
    let text = format!("{} effects in {} worlds\n{faults}", effects.into_inner(), next.into_inner() - 1);
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).expect("a place for words");
    if wanted >= 5_000_000 {
        for step in STEPS {
            for point in Point::FAULTS {
                let count = faults.of(step, point);
                assert!(count >= 100 || cannot_meet(step, point), "{step} met {point:?} only {count} times");
            }
        }
    }
}

/// A forgotten record has no result that could be lost; a note has its record written as intent.
fn cannot_meet(step: &str, point: Point) -> bool {
    matches!(point, Point::ResultLost | Point::ResultRefused) && matches!(step, "forget" | "note")
}

#[test]
fn an_emptied_directory_removes_nothing_without_consent_and_all_with_it() {
    for count in 2..=6 {
        let mut simulation = Simulation::new(7, 6);
        simulation.world.faults = 0;
        simulation.files_for(count);
        simulation.come_to_rest();
        let before = simulation.pids();
        assert_eq!(before.len(), count);

        simulation.files.clear();
        simulation.rounds(50, Span::from_secs(30));
        assert_eq!(simulation.pids(), before, "nothing may stop without consent");

        simulation.come_to_rest();
        assert!(simulation.pids().is_empty() && simulation.world.lives.is_empty());
    }
}

#[test]
fn single_deletions_pass_to_the_last_one() {
    let mut simulation = Simulation::new(11, 6);
    simulation.world.faults = 0;
    simulation.files_for(3);
    simulation.come_to_rest();

    while simulation.files.pop_last().is_some() {
        simulation.rounds(12, Span::from_secs(10));
        assert_eq!(simulation.pids().len(), simulation.files.len());
    }
}

#[test]
fn a_directory_that_vanishes_changes_nothing() {
    let mut simulation = Simulation::new(8, 6);
    simulation.world.faults = 0;
    simulation.files_for(6);
    simulation.come_to_rest();
    let before = simulation.pids();

    simulation.readable = false;
    simulation.files.clear();
    simulation.rounds(50, Span::from_secs(60));

    assert_eq!(simulation.pids(), before);
}

#[test]
fn a_lost_database_is_rebuilt_from_what_runs() {
    let mut simulation = Simulation::new(9, 6);
    simulation.world.faults = 0;
    simulation.files_for(6);
    simulation.come_to_rest();
    let before = simulation.pids();

    simulation.lose_the_database();
    simulation.come_to_rest();

    assert_eq!(simulation.pids(), before);
    assert_eq!(simulation.records.len(), before.len());
}

#[test]
fn leaving_takes_everything_along_and_forgets_it() {
    let mut simulation = Simulation::new(10, 6);
    simulation.files_for(6);
    simulation.live(40);

    simulation.settings.stop_all = true;
    simulation.come_to_rest();

    assert!(simulation.records.is_empty());
    assert_eq!(simulation.pids().len(), 0);
    assert!(simulation.world.lives.is_empty());
}
