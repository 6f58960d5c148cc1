//! A thousand containers from one `cp`, and how the agent answers meanwhile and afterwards.

use crate::agent::{Agent, cpu, manifest};
use crate::idle::pss_kib;
use crate::table::{Table, ms, quantile};
use std::process::Command;
use std::time::{Duration, Instant};

const COUNT: usize = 1000;

pub fn bench(table: &mut Table) {
    let agent = Agent::up();
    // The first start of an agent makes the skeleton of `host:/` and starts the keeper.
    let (file, text) = manifest(COUNT, 8);
    agent.write(&[(file, text)]);
    while running(&agent) < 1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let prepared = tempfile::tempdir_in("/var/tmp").expect("a directory");
    for number in 0..COUNT {
        let (file, text) = manifest(number, 8);
        std::fs::write(prepared.path().join(file), format!("{text}  stop: {{signal: KILL}}\n")).expect("a file");
    }
    let keeper = agent.keeper_pid();
    let before = cpu(agent.pid()) + cpu(keeper);

    let began = Instant::now();
    let from = format!("{}/.", prepared.path().display());
    let copied = Command::new("cp").args(["-r", &from]).arg(agent.manifests()).status();
    assert!(copied.expect("cp runs").success());
    let mut answers = Vec::new();
    loop {
        let (asked, count) = (Instant::now(), running(&agent));
        answers.push(asked.elapsed());
        if count > COUNT {
            break;
        }
        // A person who asks all the while, and leaves the processors to the rest.
        std::thread::sleep(Duration::from_millis(200));
    }
    let took = began.elapsed();
    let spent = cpu(agent.pid()) + cpu(keeper) - before;
    let slowest = answers.iter().max().copied().unwrap_or_default();

    table.row(
        &format!("{COUNT} manifests by one cp to the last of {COUNT} execs"),
        ms(took),
        format!("agent and keeper: {} ms of CPU each", spent.as_millis() / 1000),
        "<= 15 s",
    );
    table.row(
        &format!("`plim get` meanwhile, asked {} times", answers.len()),
        ms(quantile(&mut answers, 0.5)),
        format!("the slowest {}", ms(slowest)),
        "<= 100 ms each",
    );
    let mut answers: Vec<Duration> = (0..20).map(|_| timed(|| drop(agent.plim(&["get"])))).collect();
    let bare = timed(|| drop(agent.plim(&["version"])));
    table.row(
        &format!("`plim get` of {COUNT} containers"),
        ms(quantile(&mut answers, 0.5)),
        format!("a program that asks nobody: {}", ms(bare)),
        "<= 50 ms",
    );
    table.row(
        &format!("memory (PSS) of the agent with {COUNT} containers"),
        format!("{} KiB", pss_kib(agent.pid())),
        format!("the keeper: {} KiB", pss_kib(keeper)),
        "<= 150 MiB",
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// How many run, as `plim get` says.
fn running(agent: &Agent) -> usize {
    agent.plim(&["get"]).0.lines().filter(|line| line.contains(" running ")).count()
}
