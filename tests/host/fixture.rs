//! An agent under a private root, and what a test may ask of it.

use crate::sweep::sweep;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes this long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that tells nobody when it changes, such as a cgroup file.
const LOOK_EVERY: Duration = Duration::from_millis(10);
pub const HOME: &str = "/var/tmp";
pub const MARK: &str = "plim-test-";

/// Held while an agent starts, which takes an inotify instance, of which a user may have few: by all together, or
/// by the one test that takes every one of them.
pub static STARTS: RwLock<()> = RwLock::new(());
static SWEEP: Once = Once::new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Host {
    pub dir: PathBuf,
    pub manifests: PathBuf,
    /// The program, with its keeper beside it.
    pub bin: PathBuf,
    /// What the next agent gets beside the test's own environment.
    pub environment: Vec<(String, String)>,
    agent: Option<Child>,
}

impl Host {
    /// A root and an empty directory of manifests; no agent yet.
    pub fn prepare() -> Self {
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(HOME).join(format!("{MARK}{}-{number}", std::process::id()));
        let manifests = dir.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        // A sticky parent passes; a group-writable directory would not.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&manifests, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, manifests, bin: plim_bin(), environment: Vec::new(), agent: None }
    }

    /// The same with `plim up` running on it.
    pub fn up() -> Self {
        let mut host = Self::prepare();
        host.start();
        host
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Starts `plim up` and waits until it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more options.
    pub fn start_with(&mut self, options: &[&str]) {
        let _others_too = STARTS.read().unwrap_or_else(PoisonError::into_inner);
        self.start_now(options);
    }

    /// The same for who holds [`STARTS`].
    pub fn start_now(&mut self, options: &[&str]) {
        self.begin(options);
        self.until("the agent answers", || self.plim(["status"]).status.success());
    }

    /// The same without waiting for an answer.
    pub fn begin(&mut self, options: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("up.log")).unwrap();
        let agent = self
            .command(["up"])
            .arg(&self.manifests)
            .args(options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Whether the agent has ended by itself; then there is none any more.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.agent.as_mut().is_none_or(|agent| agent.try_wait().unwrap().is_some());
        if ended {
            self.agent = None;
        }
        ended
    }

    /// The same with a standard output whose reader has gone.
    pub fn start_unread(&mut self) {
        let mut command = self.command(["up"]);
        command.arg(&self.manifests).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(fs::File::create(self.dir.join("up.log")).unwrap());
        let mut agent = command.spawn().unwrap();
        // What to paste into a second terminal comes first, and is read.
        let mut line = String::new();
        BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.agent = Some(agent);
        self.until("the agent answers", || self.plim(["status"]).status.success());
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("a running agent").id()
    }

    /// `kill -9` to the agent.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("a running agent");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Ctrl-C, and waits for the end. Returns how long that took and what was printed in all.
    pub fn interrupt(&mut self) -> (Duration, String) {
        let mut agent = self.agent.take().expect("a running agent");
        let began = Instant::now();
        signal(agent.id(), "INT");
        let ended = ends(&mut agent);
        assert!(ended, "not within {PATIENCE:?}: the agent ends\n{}", self.story());
        (began.elapsed(), fs::read_to_string(self.dir.join("up.log")).unwrap())
    }

    fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        self.worded(Command::new(&self.bin), args)
    }

    fn worded<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, mut command: Command, args: I) -> Command {
        command.arg("--root").arg(self.root()).args(args).env_remove("PLIM_ROOT").env("NO_COLOR", "1");
        command
    }

    /// A command's end and all that it printed. One that does not end is killed.
    pub fn plim<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Output {
        self.bounded(args).output().unwrap()
    }

    /// A command that is killed when it does not end.
    fn bounded<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut bounded = Command::new("timeout");
        bounded.args(["--kill-after=1", &PATIENCE.as_secs().to_string()]).arg(&self.bin).stdin(Stdio::null());
        self.worded(bounded, args)
    }

    /// A command that has to succeed, and its standard output.
    pub fn ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> String {
        let output = self.plim(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A command that has to fail with this exit code, and its standard error.
    pub fn fails<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, code: i32, args: I) -> String {
        let output = self.plim(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let all = format!("{}{text}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(code), "{all}");
        all
    }

    /// Writes a manifest as an editor does: a new file, renamed into place.
    pub fn write(&self, file: &str, text: &str) {
        let new = self.dir.join(format!("new-{}", file.replace('/', "-")));
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.manifests.join(file)).unwrap();
    }

    pub fn delete(&self, file: &str) {
        fs::remove_file(self.manifests.join(file)).unwrap();
    }

    /// All objects, by name.
    pub fn items(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.ok(["get", "containers", "-A", "-o", "json"])).unwrap();
        assert_eq!(list["kind"], "List");
        list["items"].as_array().unwrap().clone()
    }

    /// The same of an agent that may not be there.
    pub fn items_if_any(&self) -> Option<Vec<Value>> {
        let output = self.plim(["get", "containers", "-A", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(list["items"].as_array()?.clone())
    }

    /// `plim status -o json`.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(["status", "-o", "json"])).unwrap()
    }

    pub fn keeper_pid(&self) -> u32 {
        let mut found = None;
        self.until("a keeper", || {
            found = self.status()["keeperPid"].as_u64();
            found.is_some()
        });
        u32::try_from(found.expect("until returns when it is found")).unwrap()
    }

    /// The keeper of this root, if one runs, from the list of all processes.
    pub fn keeper(&self) -> Option<u32> {
        let root = self.root().display().to_string();
        let found = fs::read_dir("/proc").unwrap().flatten().find(|entry| {
            let text = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            text.starts_with(b"plim-keeper\0") && String::from_utf8_lossy(&text).contains(&root)
        })?;
        found.file_name().to_str()?.parse().ok()
    }

    /// What of this root is on the machine: cgroups, mounts, processes, directories, by their names.
    pub fn census(&self) -> Vec<String> {
        let mut found = Vec::new();
        for mount in cgroup_mounts() {
            let parent = mount.join(self.cgroup_parent().trim_start_matches('/'));
            let mut groups = Vec::new();
            inner(&parent, &mut groups);
            for group in groups {
                let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                // The keeper comes and goes under other numbers.
                let keeper = group.ends_with("keeper");
                let procs = procs.lines().filter(|_| !keeper).map(str::to_owned).collect::<Vec<_>>().join(" ");
                found.push(format!("{}: {procs}", group.display()));
            }
        }
        let root = self.root().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned));
        for dir in ["lib/instances", "run/instances", "log"] {
            let mut dirs = Vec::new();
            inner(&self.root().join(dir), &mut dirs);
            found.extend(dirs.into_iter().map(|dir| dir.display().to_string()));
        }
        found.extend(self.keeper().map(|_| "a keeper".to_owned()));
        found.sort();
        found
    }

    pub fn item(&self, name: &str) -> Option<Value> {
        self.items().into_iter().find(|item| item["metadata"]["name"] == name)
    }

    /// Follows `plim get -w` until an object is as wanted, and returns it so.
    pub fn wait(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        self.until(&format!("{name}: {what}"), || {
            found = self.item(name).filter(|item| wanted(item));
            found.is_some()
        });
        found.expect("until returns when it is found")
    }

    pub fn running(&self, name: &str) -> Value {
        self.wait(name, "running", |item| item["status"]["phase"] == "Running" && item["status"]["sync"] == "synced")
    }

    pub fn pid(&self, name: &str) -> u32 {
        pid(&self.running(name))
    }

    pub fn gone(&self, name: &str) {
        self.until(&format!("{name} is gone"), || self.item(name).is_none());
    }

    /// Looks until it is so.
    pub fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.story());
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// What the agent has said, for a failed test.
    pub fn story(&self) -> String {
        let up = fs::read_to_string(self.dir.join("up.log")).unwrap_or_default();
        let get = self.plim(["get", "containers", "-A"]);
        format!("--- up\n{up}--- get\n{}{}", String::from_utf8_lossy(&get.stdout), String::from_utf8_lossy(&get.stderr))
    }

    /// Follows a command's lines until one is as wanted.
    pub fn follow<const N: usize>(&self, args: [&str; N], wanted: impl Fn(&str) -> bool) -> String {
        let mut child = self.bounded(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.map_while(Result::ok).find(|line| wanted(line));
        try_signal(child.id(), "TERM");
        child.wait().unwrap();
        found.unwrap_or_else(|| panic!("{args:?} ended without it\n{}", self.story()))
    }

    /// The directories of an instance in every hierarchy of this host.
    pub fn cgroups(&self, family: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for mount in cgroup_mounts() {
            find(&mount.join(self.cgroup_parent().trim_start_matches('/')), family, &mut found);
        }
        found
    }

    /// What a control file says, from whichever hierarchy has it.
    pub fn control(&self, family: &str, names: [&str; 2]) -> String {
        fs::read_to_string(self.control_file(family, names)).unwrap().trim().to_owned()
    }

    pub fn control_file(&self, family: &str, names: [&str; 2]) -> PathBuf {
        // Limits are on the instance: below the family's directory in a v2 hierarchy, beside it in a v1.
        let instances =
            self.cgroups(family).into_iter().filter(|dir| !dir.ends_with(family) && !dir.ends_with("payload"));
        let mut files = instances.flat_map(|dir| names.map(|name| dir.join(name)));
        files.find(|file| file.exists()).unwrap_or_else(|| panic!("no {names:?} for {family}"))
    }

    pub fn cgroup_parent(&self) -> String {
        plimsoll::host::Paths::new(Some(&self.root())).unwrap().cgroup_parent
    }

    /// What of an object is on this host: directories, cgroups.
    pub fn traces(&self, family: &str) -> Vec<PathBuf> {
        let mut found = self.cgroups(family);
        for dir in ["lib/instances", "run", "log"] {
            find(&self.root().join(dir), family, &mut found);
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        if self.has_ended() {
            self.environment.clear();
            self.start();
        }
        let mut agent = self.agent.take().expect("started above");
        signal(agent.id(), "INT");
        if !ends(&mut agent) {
            let story = self.story();
            agent.kill().unwrap();
            agent.wait().unwrap();
            assert!(std::thread::panicking(), "not within {PATIENCE:?}: the agent ends\n{story}");
            return;
        }
        let left: Vec<PathBuf> =
            cgroup_mounts().into_iter().map(|mount| mount.join(self.cgroup_parent().trim_start_matches('/'))).collect();
        fs::remove_dir_all(&self.dir).unwrap();
        let left: Vec<&PathBuf> = left.iter().filter(|dir| dir.exists()).collect();
        assert!(std::thread::panicking() || left.is_empty(), "left behind: {left:?}");
    }
}

/// Waits for the end of a process that was told to end; `false` if it does not come.
fn ends(child: &mut Child) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    true
}

/// The program under test. `PLIM_BIN` names it where it is not at the place that cargo built it in,
/// as in the machine that `deploy/test-v2` boots; its keeper stands beside it.
pub fn plim_bin() -> PathBuf {
    std::env::var_os("PLIM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_plim").into(), PathBuf::from)
}

pub fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let of_cgroups = |line: &&str| matches!(line.split(' ').nth(2), Some("cgroup" | "cgroup2"));
    mounts.lines().filter(of_cgroups).map(|line| PathBuf::from(line.split(' ').nth(1).unwrap())).collect()
}

fn find(dir: &Path, family: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with('.')) {
            found.push(entry.path());
            inner(&entry.path(), found);
        } else {
            find(&entry.path(), family, found);
        }
    }
}

pub fn inner(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.push(entry.path());
        inner(&entry.path(), found);
    }
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

/// The same to a process that may have gone.
pub fn try_signal(pid: u32, name: &str) {
    drop(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).output().unwrap());
}

pub fn pid(item: &Value) -> u32 {
    u32::try_from(item["status"]["pid"].as_u64().expect("a running container has a pid")).unwrap()
}

/// A line of `/proc/PID/status`.
pub fn proc_status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().to_owned()
}

pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The shortest useful manifest, with more of `spec` in flow style where wanted.
pub fn sleeper(name: &str, more: &str) -> String {
    format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: host:/\n  \
         command: [sleep, infinity]\n  init: true\n{more}"
    )
}
