//! A pushed limit until it is in the cgroup file, with a thousand manifests in the repository, and what it costs to
//! ask a server that has nothing new, beside git itself.

use crate::agent::{Agent, manifest};
use crate::resize::{limit_file, text};
use crate::table::{Table, ms, quantile};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MANIFESTS: usize = 1000;
const CHANGES: u64 = 20;
const POLLS: u32 = 100;
const LOOK: Duration = Duration::from_micros(200);

pub fn bench(table: &mut Table) {
    let agent = Agent::configured(|dir| {
        let work = dir.join("work");
        std::fs::create_dir(&work).expect("a directory");
        git(&work, &["init", "-q", "--bare", "-b", "main", "../fleet.git"]);
        git(&work, &["init", "-q", "-b", "main"]);
        for number in 0..MANIFESTS {
            let (file, text) = manifest(number, 32);
            let runs = if number == 0 { "" } else { "  desiredState: stopped\n" };
            std::fs::write(work.join(file), format!("{text}{runs}")).expect("a file");
        }
        push(&work);
        // Asked for by hand alone.
        format!("sources: [{{name: fleet, git: {{url: 'file://{}/fleet.git', interval: 1h}}}}]\n", dir.display())
    });
    while !agent.items().iter().any(|item| item["status"]["phase"] == "Running") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let work = agent.manifests().with_file_name("work");
    let limit = std::fs::File::open(limit_file(&agent)).expect("a limit");
    let mut samples: Vec<Duration> =
        (0..CHANGES).map(|change| changed(&agent, &work, &limit, 33 + change % 2)).collect();
    table.row(
        &format!("`plim reconcile --source` to a pushed limit in the kernel, {MANIFESTS} manifests, median"),
        ms(quantile(&mut samples, 0.5)),
        format!("the slowest of {CHANGES}: {}", ms(quantile(&mut samples, 1.0))),
        "<= 300 ms",
    );

    let before = children(agent.pid());
    for _ in 0..POLLS {
        assert!(agent.plim(&["reconcile", "--source", "fleet"]).1);
    }
    let poll = (children(agent.pid()) - before) / POLLS;
    let own = children(std::process::id());
    for _ in 0..POLLS {
        git(&work, &["ls-remote", "-q", "origin-by-path:", "main"]);
    }
    let peer = (children(std::process::id()) - own) / POLLS;
    table.row(
        "asking a repository that has nothing new",
        ms(poll),
        format!(
            "CPU of the process that asks; {:.1} x `git ls-remote` ({})",
            poll.as_secs_f64() / peer.as_secs_f64(),
            ms(peer)
        ),
        "<= 10 ms",
    );
    agent.take_over();
}

/// Pushes another limit, and says how long it takes from the word to ask for it until it is in the kernel.
fn changed(agent: &Agent, work: &Path, limit: &std::fs::File, memory: u64) -> Duration {
    let (file, text_of) = manifest(0, memory);
    std::fs::write(work.join(file), text_of).expect("a file");
    push(work);
    let wanted = (memory << 20).to_string();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| agent.plim(&["reconcile", "--source", "fleet"]));
        while text(limit) != wanted {
            std::thread::sleep(LOOK);
        }
        let took = began.elapsed();
        assert!(asked.join().expect("plim runs").1);
        took
    })
}

fn push(work: &Path) {
    git(work, &["add", "-A"]);
    git(work, &["-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-q", "-m", "change"]);
    git(work, &["push", "-q", "../fleet.git", "HEAD:main"]);
}

fn git(work: &Path, args: &[&str]) {
    let remote = format!("url.{}.insteadOf=origin-by-path:", work.with_file_name("fleet.git").display());
    let mut command = Command::new("git");
    command.current_dir(work).args(["-c", &remote]).args(args).stdout(Stdio::null());
    assert!(command.status().expect("git is installed").success(), "git {args:?}");
}

/// CPU time of the children that a process has waited for (`cutime` and `cstime` of proc_pid_stat(5)).
fn children(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields = stat.rsplit(") ").next().expect("fields").split(' ').skip(13).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("ticks")).sum();
    // A tick is 10 ms wherever Linux runs (sysconf(3), _SC_CLK_TCK).
    Duration::from_millis(ticks * 10)
}
