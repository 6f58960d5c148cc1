//! An agent under a private root, and how quickly fifty files become fifty processes.

use crate::table::{Table, ms};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Agent {
    dir: TempDir,
    up: Child,
}

impl Agent {
    /// `plim up` on an empty directory.
    pub fn up() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        std::fs::create_dir(dir.path().join("manifests")).expect("a directory");
        let up = spawned(dir.path(), "up");
        Self { dir, up }.answering()
    }

    /// `plim agent` with this configuration, made from the directory that it may use.
    pub fn configured(configuration: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        // Whoever fetches is another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("a directory");
        for name in ["manifests", "root"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        std::fs::write(dir.path().join("root/agent.yaml"), configuration(dir.path())).expect("a file");
        let up = spawned(dir.path(), "agent");
        Self { dir, up }.answering()
    }

    fn answering(self) -> Self {
        while !self.plim(&["status"]).1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// `plim agent` leaves what it started: `plim up` takes that away at its end.
    pub fn take_over(mut self) {
        self.interrupt();
        self.up = spawned(self.dir.path(), "up");
        drop(self.answering());
    }

    fn interrupt(&mut self) {
        let interrupted = Command::new("kill").arg("-INT").arg(self.up.id().to_string()).status();
        assert!(interrupted.expect("kill runs").success());
        self.up.wait().expect("the agent ends");
    }

    pub fn pid(&self) -> u32 {
        self.up.id()
    }

    /// CPU time of the agent's process so far.
    pub fn cpu(&self) -> Duration {
        cpu(self.pid())
    }

    /// Bytes that the agent has sent to a disk so far (proc_pid_io(5)).
    pub fn written(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid())).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a sum");
        line.parse().expect("a number")
    }

    pub fn keeper_pid(&self) -> u32 {
        let status: Value = serde_json::from_str(&self.plim(&["status", "-o", "json"]).0).expect("a status");
        u32::try_from(status["keeperPid"].as_u64().expect("a keeper")).expect("a pid")
    }

    pub fn rounds(&self) -> u64 {
        let status: Value = serde_json::from_str(&self.plim(&["status", "-o", "json"]).0).expect("a status");
        status["rounds"].as_u64().expect("a count")
    }

    pub fn root(&self) -> String {
        self.dir.path().join("root").display().to_string()
    }

    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    pub fn cgroup_parent(&self) -> String {
        plimsoll::host::Paths::new(Some(&self.dir.path().join("root"))).expect("paths").cgroup_parent
    }

    pub fn plim(&self, args: &[&str]) -> (String, bool) {
        let output = plim(self.dir.path()).args(args).stdin(Stdio::null()).output().expect("plim runs");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }

    pub fn items(&self) -> Vec<Value> {
        let list: Value =
            serde_json::from_str(&self.plim(&["get", "containers", "-A", "-o", "json"]).0).expect("a list");
        list["items"].as_array().expect("items").clone()
    }

    /// Writes files as an editor does, all of them first, then one rename each. Returns when the
    /// first rename was.
    pub fn write(&self, files: &[(String, String)]) -> Instant {
        for (name, text) in files {
            std::fs::write(self.dir.path().join(name), text).expect("a file");
        }
        let began = Instant::now();
        for (name, _) in files {
            std::fs::rename(self.dir.path().join(name), self.manifests().join(name)).expect("a rename");
        }
        began
    }

    fn last_event(&self) -> u64 {
        let events = self.plim(&["events", "-o", "json"]).0;
        let ids = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["id"].as_u64());
        ids.max().unwrap_or(0)
    }

    /// Starts `count` containers and returns how long it took to the last exec, as a reader of the
    /// events hears of it.
    pub fn start(&self, count: usize) -> Duration {
        let before = self.last_event();
        let mut events = plim(self.dir.path());
        events.args(["events", "-w", "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut events = events.spawn().expect("plim runs");
        let mut lines = BufReader::new(events.stdout.take().expect("a pipe")).lines();
        let files: Vec<(String, String)> = (0..count).map(|number| manifest(number, 32)).collect();
        let began = self.write(&files);
        let mut started = 0;
        while started < count {
            let line = lines.next().expect("the agent runs").expect("a line");
            let event: Value = serde_json::from_str(&line).expect("an event");
            // The history comes first.
            let new = event["id"].as_u64().is_some_and(|id| id > before);
            started += usize::from(new && event["reason"] == "Started");
        }
        let took = began.elapsed();
        events.kill().expect("the watch ends");
        events.wait().expect("the watch ends");
        took
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.interrupt();
    }
}

fn spawned(dir: &Path, verb: &str) -> Child {
    let log = std::fs::File::create(dir.join("up.log")).expect("a log");
    let mut command = plim(dir);
    command.arg(verb).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    if verb == "up" {
        command.arg(dir.join("manifests"));
    }
    command.spawn().expect("plim runs")
}

/// The time that a process has been on a CPU, threads that have ended included, to the nanosecond
/// (clock_getcpuclockid(3)).
pub fn cpu(pid: u32) -> Duration {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    let clock = nix::time::ClockId::pid_cpu_clock_id(pid).expect("a process");
    Duration::from(clock.now().expect("its clock"))
}

fn plim(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plim"));
    command.arg("--root").arg(dir.join("root"));
    command
}

pub fn manifest(number: usize, memory_mib: u64) -> (String, String) {
    let mut text = String::from("apiVersion: plimsoll/v1\nkind: Container\n");
    writeln!(text, "metadata: {{name: c{number}}}").expect("a string");
    writeln!(text, "spec:\n  image: host:/\n  command: [sleep, infinity]").expect("a string");
    writeln!(text, "  resources: {{memory: {{limit: {memory_mib}Mi}}, pids: {{limit: 16}}, cpu: {{limit: 500m}}}}")
        .expect("a string");
    (format!("c{number}.yaml"), text)
}

pub fn bench(table: &mut Table) {
    const COUNT: usize = 50;
    let agent = Agent::up();
    // The first start of an agent makes the skeleton of `host:/` and starts the keeper.
    let (file, text) = manifest(COUNT, 32);
    agent.write(&[(file, text)]);
    while agent.items().iter().filter(|item| item["status"]["phase"] == "Running").count() < 1 {
        std::thread::sleep(Duration::from_millis(20));
    }

    let took = agent.start(COUNT);

    // The event comes first, and the look at what it tells of right after it.
    let mut items = agent.items();
    while items.iter().any(|item| item["status"]["pid"].is_null()) {
        items = agent.items();
    }
    for item in &items {
        let pid = item["status"]["pid"].as_u64().expect("a pid");
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("a process");
        assert!(exe.ends_with("sleep"), "{exe:?}");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        assert!(status.contains("Seccomp:\t2"));
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("a process");
        assert!(map.trim_start().starts_with("0 ") && !map.contains("4294967295"), "{map}");
        let actual = item["status"]["resources"]["actual"].as_object().expect("control files");
        assert!(actual.values().any(|value| value == "33554432"), "{actual:?}");
    }
    table.row(
        "50 manifests at once to the last of 50 execs",
        ms(took),
        format!("{:.2} ms each", took.as_secs_f64() * 1e3 / 50.0),
        "<= 500 ms",
    );
}
