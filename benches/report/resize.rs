//! A saved memory limit until it is in the cgroup file, with 100 containers running, beside a bare
//! loop that waits for the same file with inotify and writes the same kind of cgroup file.

use crate::agent::{Agent, manifest};
use crate::table::{Table, ms, quantile};
use notify::{RecursiveMode, Watcher as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const CONTAINERS: usize = 100;
const CHANGES: u64 = 1000;
/// What the agent waits for further events before it reads.
const WINDOW: Duration = Duration::from_millis(20);
/// How often the limit is looked at.
const LOOK: Duration = Duration::from_micros(20);
const SETTLE: Duration = Duration::from_millis(3);

pub fn bench(table: &mut Table) {
    let agent = Agent::up();
    agent.start(CONTAINERS);
    let pid = pid(&agent);
    let file = limit_file(&agent);
    let limit = std::fs::File::open(&file).expect("a limit");
    let cpu = agent.cpu();
    let mut samples = Vec::new();
    for change in 0..CHANGES {
        let memory = 33 + change % 2;
        let wanted = (memory << 20).to_string();
        let began = agent.write(&[manifest(0, memory)]);
        // The machine has few CPUs, and one of them is the agent's: nobody spins on the other. What the
        // last sleep is too long is in the figure.
        std::thread::sleep(WINDOW.saturating_sub(began.elapsed() + SETTLE));
        while text(&limit) != wanted {
            std::thread::sleep(LOOK);
        }
        samples.push(began.elapsed());
        // What follows the write is over before the next change comes.
        std::thread::sleep(SETTLE);
    }
    let cpu = (agent.cpu() - cpu) / u32::try_from(CHANGES).expect("a few");
    assert_eq!(self::pid(&agent), pid, "the process was replaced");
    let mut own: Vec<Duration> = samples.iter().map(|sample| sample.saturating_sub(WINDOW)).collect();
    let (median, p99) = (quantile(&mut samples, 0.5), quantile(&mut samples, 0.99));
    let own = quantile(&mut own, 0.5);
    let bare = bare_loop(&file);
    table.row(
        "saved limit to kernel, 100 containers, median",
        ms(median),
        format!(
            "20 ms window + {}; {:.1} x a bare loop's {}",
            ms(own),
            own.as_secs_f64() / bare.as_secs_f64(),
            ms(bare)
        ),
        "window + <= 3 ms",
    );
    table.row("the agent's CPU time per change", ms(cpu), "writing it down and showing it included", "-");
    table.row("saved limit to kernel, 99 of 100", ms(p99), "same PID through 1000 changes", "<= 100 ms");
}

pub fn text(file: &std::fs::File) -> String {
    let mut buffer = [0; 64];
    let length = std::os::unix::fs::FileExt::read_at(file, &mut buffer, 0).expect("a limit");
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

fn pid(agent: &Agent) -> u64 {
    let items = agent.items();
    let item = items.iter().find(|item| item["metadata"]["name"] == "c0").expect("the container");
    item["status"]["pid"].as_u64().expect("a pid")
}

pub fn limit_file(agent: &Agent) -> PathBuf {
    let parent = agent.cgroup_parent();
    let parent = parent.trim_start_matches('/');
    let candidates = [
        format!("/sys/fs/cgroup/memory/{parent}/c/default_c0.1/memory.limit_in_bytes"),
        format!("/sys/fs/cgroup/{parent}/c/default_c0/1/memory.max"),
    ];
    candidates.into_iter().map(PathBuf::from).find(|file| file.exists()).expect("a memory limit")
}

/// The least that anything watching a file can take: an inotify event, one read, one write.
fn bare_loop(file: &Path) -> Duration {
    let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let target = dir.path().join("watched/limit");
    std::fs::create_dir(dir.path().join("watched")).expect("a directory");
    let (sender, events) = channel();
    let mut watcher = notify::recommended_watcher(move |event| sender.send(event).unwrap_or(())).expect("a watcher");
    watcher.watch(&dir.path().join("watched"), RecursiveMode::NonRecursive).expect("a watch");
    let mut samples = Vec::new();
    let limit = std::fs::read_to_string(file).expect("a limit");
    for _ in 0..200 {
        while events.try_recv().is_ok() {}
        let new = dir.path().join("new");
        std::fs::write(&new, &limit).expect("a file");
        let began = Instant::now();
        std::fs::rename(&new, &target).expect("a rename");
        events.recv().expect("an event").expect("an event");
        let text = std::fs::read_to_string(&target).expect("the file");
        std::fs::write(file, text.trim()).expect("the limit");
        samples.push(began.elapsed());
    }
    quantile(&mut samples, 0.5)
}
