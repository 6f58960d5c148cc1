//! A keeper to test with.

use crate::keeper::{Client, Event, Exit, LogTarget, Options, Output, StartRequest, Started};
use crate::keeper::{KeeperError, daemon};
use crate::sandbox::Script;
use crate::spec::InstanceId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(20);
const RUN: &str = "PLIM_TEST_KEEPER_RUN";
const TIMEOUT: &str = "PLIM_TEST_KEEPER_TIMEOUT_MS";

/// Not a test: what the process runs that [`Keeper::begin`] starts.
#[test]
fn serves_when_it_is_told_to() {
    let Some(run) = std::env::var_os(RUN) else { return };
    let mut options = Options::new(run.into());
    if let Some(timeout) = std::env::var(TIMEOUT).ok().and_then(|text| text.parse().ok()) {
        options.start_timeout = Duration::from_millis(timeout);
    }
    let listener = daemon::bind(&options.socket()).unwrap();
    daemon::serve(listener, options).unwrap();
}

/// A keeper in a process of its own, that ends with its containers when the test does.
pub(super) struct Keeper {
    pub options: Options,
    process: Child,
}

impl Keeper {
    pub fn begin(directory: &Path, start_timeout: Duration) -> Self {
        let options = Options::new(directory.to_owned());
        // Absent is as good.
        let _ = std::fs::remove_file(options.socket());
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keeper::tests::process::serves_when_it_is_told_to", "--nocapture", "--test-threads=1"])
            .env(RUN, directory)
            .env(TIMEOUT, start_timeout.as_millis().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { options, process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn wait(&mut self) -> bool {
        self.process.wait().unwrap().success()
    }

    pub fn connect(&self) -> Agent {
        let begun = Instant::now();
        loop {
            let (send, events) = channel();
            let on_event = move |event| {
                // Nobody listens any more at the end of a test.
                let _ = send.send(event);
            };
            match Client::connect(&self.options.socket(), on_event) {
                Ok(client) => return Agent { client, events },
                Err(KeeperError::Connect { .. }) if begun.elapsed() < LONG => std::thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Ok(client) = Client::connect(&self.options.socket(), |_| {}) {
            for handle in client.list().unwrap_or_default() {
                let _ = client.signal(&handle.instance, libc::SIGKILL);
            }
        }
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) struct Agent {
    pub client: Client,
    pub events: Receiver<Event>,
}

impl Agent {
    /// The next event that `wanted` takes.
    pub fn event<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        loop {
            let event = self.events.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap();
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub fn exit_of(&self, wanted: &InstanceId) -> Exit {
        self.event(|event| match event {
            Event::Exited { instance, exit } if instance == wanted => Some(*exit),
            _ => None,
        })
    }
}

/// A place for one test: directories for FIFOs and logs, and scripts.
pub(super) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn keeper(&self) -> Keeper {
        Keeper::begin(self.path(), Duration::from_secs(60))
    }

    pub fn output(&self, instance: &InstanceId) -> Output {
        let at = |suffix: &str| self.path().join(format!("{instance}.{suffix}"));
        Output {
            log: LogTarget { path: self.log(instance), max_size: 1 << 20, files: 3 },
            stdout: at("stdout"),
            stderr: at("stderr"),
            uid: 1234,
            gid: 4321,
        }
    }

    pub fn log(&self, instance: &InstanceId) -> PathBuf {
        self.path().join(format!("{instance}.log"))
    }

    /// The texts of a log's records, each with its stream and tag.
    pub fn logged(&self, instance: &InstanceId) -> Vec<String> {
        let text = std::fs::read_to_string(self.log(instance)).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    pub fn start(&self, agent: &Agent, instance: &InstanceId, command: &str) -> Result<Started, KeeperError> {
        self.start_script(agent, instance, &shell(command))
    }

    pub fn start_script(&self, agent: &Agent, instance: &InstanceId, script: &Script) -> Result<Started, KeeperError> {
        agent.client.start(&StartRequest { instance, script, output: self.output(instance), seccomp: None })
    }
}

pub(super) fn instance(number: u64) -> InstanceId {
    format!("test_keeper.{number}").parse().unwrap()
}

pub(super) fn shell(command: &str) -> Script {
    script(&["/bin/sh", "-c", command])
}

/// Argv with descriptors, and nothing else of a container.
pub(super) fn script(argv: &[&str]) -> Script {
    script_in(argv, 0)
}

/// The same in namespaces: `CLONE_NEW*` bits.
pub(super) fn script_in(argv: &[&str], namespaces: u64) -> Script {
    from_operations(namespaces, &json!(["Seal", { "Execute": program(argv) }]))
}

/// A script whose child waits for what its parent never does.
pub(super) fn script_that_waits() -> Script {
    from_operations(0, &json!(["Seal", { "Receive": { "slots": [] } }, { "Execute": program(&["/bin/true"]) }]))
}

fn program(argv: &[&str]) -> Value {
    json!({ "candidates": [argv[0]], "argv": argv, "env": ["PATH=/usr/bin:/bin"] })
}

/// A script whose child is born into a directory of the v2 hierarchy.
pub(super) fn script_born_in(group: &Path) -> Script {
    let parent = json!([{ "Clone": { "namespaces": 0, "cgroup": group } }]);
    let child = json!(["Seal", { "Execute": program(&["/bin/sleep", "1000"]) }]);
    serde_json::from_value(json!({ "parent": parent, "child": child })).unwrap()
}

/// A script whose child enters the cgroup that `tasks` is a file of, and waits there. Its parent fails as soon as
/// somebody opens the FIFO `gate` for writing; without one it waits too.
pub(super) fn script_that_fails_beside(tasks: &Path, gate: Option<&Path>) -> Script {
    let mut parent = vec![json!({ "Clone": { "namespaces": 0, "cgroup": null } })];
    if let Some(gate) = gate {
        parent.push(json!({ "Namespace": { "path": gate, "into": 0 } }));
        parent.push(json!({ "Directory": { "path": "/not/there", "into": 1 } }));
    }
    let child = json!([
        { "JoinCgroup": { "tasks": tasks } },
        "Seal",
        { "Receive": { "slots": [] } },
        { "Execute": program(&["/bin/true"]) },
    ]);
    serde_json::from_value(json!({ "parent": parent, "child": child })).unwrap()
}

fn from_operations(namespaces: u64, child: &Value) -> Script {
    let parent = json!([{ "Clone": { "namespaces": namespaces, "cgroup": null } }]);
    serde_json::from_value(json!({ "parent": parent, "child": child })).unwrap()
}

pub(super) fn wait_until(mut what: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !what() {
        assert!(Instant::now() < end, "waited too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub(super) fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
