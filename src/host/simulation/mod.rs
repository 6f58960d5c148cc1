//! The planner against a small world: manifests come, go, break and change; processes end; actions
//! fail before, amid and after their effect; the agent crashes and keeps only what was durable.
//!
//! The referee judges from world facts and from what was asked for, never from the agent's records.
//! A failure prints the seed that repeats it. `PLIM_SIM_EFFECTS` sets how long it goes on.

mod agent;
mod referee;
mod world;

use crate::plan::tests::{id, object};
use crate::spec::Span;
use agent::Simulation;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

fn effects() -> u64 {
    std::env::var("PLIM_SIM_EFFECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(15_000)
}

fn seed_of_this_run() -> Option<u64> {
    std::env::var("PLIM_SIM_SEED").ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_fails_the_host_comes_to_rest_as_asked_and_nothing_healthy_is_stopped() {
    let mut total = 0;
    let mut seed = seed_of_this_run().unwrap_or(1);
    while total < effects() {
        let mut simulation = Simulation::new(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..4 {
                simulation.live(60);
                simulation.come_to_rest();
            }
        }));
        if let Err(panic) = outcome {
            let tail = simulation.log.len().saturating_sub(250);
            let log = simulation.log[tail..].join("\n");
            std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{log}\nPLIM_SIM_SEED={seed} repeats this\n").as_bytes(),
            )
            .expect("a place for words");
            resume_unwind(panic);
        }
        total += simulation.world.effects;
        seed += 1;
        if seed_of_this_run().is_some() {
            break;
        }
    }
}

#[test]
fn an_emptied_directory_removes_nothing_without_consent_and_all_with_it() {
    for count in 2..=agent::NAMES.len() {
        let mut simulation = Simulation::new(7);
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
    let mut simulation = Simulation::new(11);
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
    let mut simulation = Simulation::new(8);
    simulation.world.faults = 0;
    simulation.files_for(agent::NAMES.len());
    simulation.come_to_rest();
    let before = simulation.pids();

    simulation.readable = false;
    simulation.files.clear();
    simulation.rounds(50, Span::from_secs(60));

    assert_eq!(simulation.pids(), before);
}

#[test]
fn a_lost_database_is_rebuilt_from_what_runs() {
    let mut simulation = Simulation::new(9);
    simulation.world.faults = 0;
    simulation.files_for(agent::NAMES.len());
    simulation.come_to_rest();
    let before = simulation.pids();

    simulation.lose_the_database();
    simulation.come_to_rest();

    assert_eq!(simulation.pids(), before);
    assert_eq!(simulation.records().len(), before.len());
}

#[test]
fn leaving_takes_everything_along_and_forgets_it() {
    let mut simulation = Simulation::new(10);
    simulation.files_for(agent::NAMES.len());
    simulation.live(40);

    simulation.settings.stop_all = true;
    simulation.come_to_rest();

    assert!(simulation.records().is_empty());
    assert_eq!(simulation.pids().len(), 0);
    assert!(simulation.world.lives.is_empty());
}
