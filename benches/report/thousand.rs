//! A thousand containers from one `cp`, how the agent answers meanwhile and afterwards, and what it costs when
//! nine thousand manifests more are beside them.

use crate::agent::{Agent, cpu, manifest};
use crate::idle::pss_kib;
use crate::table::{Table, ms, quantile};
use std::process::Command;
use std::time::{Duration, Instant};

const COUNT: usize = 1000;
/// With those of containers that are not to run.
const MANIFESTS: usize = 10_000;
/// Longer than this is a fault, and no figure.
const PATIENCE: Duration = Duration::from_secs(300);

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
        assert!(began.elapsed() < PATIENCE, "{count} containers after {PATIENCE:?}");
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
    many(&agent, table);
}

/// Nine thousand manifests more, of containers that are not to run.
fn many(agent: &Agent, table: &mut Table) {
    let more: Vec<(String, String)> = (COUNT + 1..MANIFESTS)
        .map(|number| manifest(number, 8))
        .map(|(file, text)| (file, format!("{text}  desiredState: stopped\n")))
        .collect();
    agent.write(&more);
    let began = Instant::now();
    while !agent.plim(&["status"]).0.contains(&format!("{MANIFESTS} synced")) {
        assert!(began.elapsed() < PATIENCE, "{}", agent.plim(&["status"]).0);
        std::thread::sleep(Duration::from_millis(200));
    }
    let look = || {
        let (rounds, cpu, written) = (agent.rounds(), agent.cpu(), agent.written());
        assert!(agent.plim(&["reconcile"]).1);
        (agent.rounds() - rounds, agent.cpu() - cpu, agent.written() - written)
    };
    look();
    let (rounds, spent, written) = look();
    table.row(
        &format!("{MANIFESTS} manifests, {COUNT} of them running: a look at everything"),
        ms(spent),
        format!("{rounds} rounds, {written} bytes written"),
        "0 bytes",
    );
    let (cpu, rounds) = (agent.cpu(), agent.rounds());
    let (file, text) = manifest(0, 9);
    agent.write(&[(file, format!("{text}  stop: {{signal: KILL}}\n"))]);
    while agent.rounds() == rounds || !agent.plim(&["status"]).0.contains(&format!("{MANIFESTS} synced")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    table.row(&format!("one changed file among {MANIFESTS}"), ms(agent.cpu() - cpu), "CPU of the agent", "one parse");
    table.row(
        &format!("memory (PSS) of the agent with {MANIFESTS} manifests"),
        format!("{} KiB", pss_kib(agent.pid())),
        format!("at most {} KiB", peak_kib(agent.pid())),
        "<= 150 MiB",
    );
}

/// The most that a process has had in memory (`VmHWM` of proc_pid_status(5)).
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
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
