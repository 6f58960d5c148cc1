//! At rest with 100 containers: the CPU time of agent and keeper in 60 s, a full look included.

use crate::agent::{Agent, cpu};
use crate::table::{Table, ms};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(60);

pub fn bench(table: &mut Table) {
    let agent = Agent::up();
    agent.start(100);
    // The starts' own aftermath is no rest: threads that ran them stay for ten seconds.
    std::thread::sleep(Duration::from_secs(12));
    let processes = [agent.pid(), agent.keeper_pid()];
    let rounds = agent.rounds();
    let before = processes.map(cpu);
    std::thread::sleep(PERIOD);
    let after = processes.map(cpu);
    let used = [after[0] - before[0], after[1] - before[1]];
    let rounds = agent.rounds() - rounds;
    let memory: Vec<u64> = processes.iter().map(|pid| pss_kib(*pid)).collect();
    table.row("processes of ours, 100 containers", count(&agent.root()), "agent and keeper", "2");
    table.row(
        "CPU at rest, 100 containers, 60 s",
        ms(used[0] + used[1]),
        format!("agent {}, keeper {}; {rounds} rounds", ms(used[0]), ms(used[1])),
        "<= 30 ms",
    );
    table.row(
        "memory at rest, 100 containers",
        format!("{} KiB", memory[0] + memory[1]),
        format!("agent {} KiB, keeper {} KiB (PSS)", memory[0], memory[1]),
        "-",
    );
}

/// Processes of ours: those that run `plim` or `plim-keeper` for this root.
fn count(root: &str) -> usize {
    let of_ours = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("plim") && line.contains(root)
    };
    std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| of_ours(entry).then_some(())).count()
}

pub fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a sum");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
