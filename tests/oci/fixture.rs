//! A bundle with a small root, and the runtime on a state directory of its own.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub struct Bundle {
    pub dir: TempDir,
    pub config: Value,
}

/// What came of a command.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Bundle {
    /// Its program is a shell with this script.
    pub fn new(script: &str) -> Self {
        let dir = TempDir::with_prefix("plimsoll-oci-").unwrap();
        let root = dir.path().join("rootfs");
        for name in ["dev", "proc", "sys", "tmp", "etc", "usr"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        let mut bundle = Self { config: Value::Null, dir };
        let answer = bundle.call(&["spec", "--bundle", bundle.path("").to_str().unwrap()]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let text = fs::read(bundle.path("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        let usr =
            json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "rprivate"]});
        config["mounts"].as_array_mut().unwrap().push(usr);
        bundle.config = config;
        bundle
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn id(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.path("state")).args(words).stdin(Stdio::null());
        command
    }

    pub fn call(&self, words: &[&str]) -> Answer {
        self.command(words).output().unwrap().into()
    }

    pub fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    pub fn run(&self) -> Answer {
        self.run_with(&[])
    }

    pub fn run_with(&self, options: &[&str]) -> Answer {
        self.write();
        let (bundle, id) = (self.path(""), self.id());
        self.call(&[&["run", "--bundle", bundle.to_str().unwrap()], options, &[id.as_str()]].concat())
    }

    /// Output goes to the file `out`, as the one who creates is not there any more when it comes.
    pub fn create(&self) -> Answer {
        self.write();
        let out = fs::File::create(self.path("out")).unwrap();
        let err = fs::File::create(self.path("err")).unwrap();
        let bundle = self.path("");
        let mut command = self.command(&["create", "--bundle", bundle.to_str().unwrap(), &self.id()]);
        let status = command.stdout(out).stderr(err).status().unwrap();
        Answer { code: status.code(), out: String::new(), err: fs::read_to_string(self.path("err")).unwrap() }
    }

    /// A command that ends with the container's id.
    pub fn on(&self, words: &[&str]) -> Answer {
        let id = self.id();
        self.call(&[words, &[id.as_str()]].concat())
    }

    pub fn status(&self) -> String {
        let answer = self.on(&["state"]);
        let state: Value = serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}"));
        state["status"].as_str().unwrap().to_owned()
    }

    /// Until `is_so`, for at most a minute: a machine may be very busy.
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let started = std::time::Instant::now();
        while !is_so() {
            assert!(started.elapsed().as_secs() < 60, "{what} did not come true");
            std::thread::yield_now();
        }
    }

    /// Nothing is left: no state, no cgroup.
    pub fn is_gone(&self) -> bool {
        let state = self.path("state").join(self.id());
        let cgroups = cgroup_directories().into_iter().map(|mount| mount.join("plim-oci").join(self.id()));
        !state.exists() && cgroups.into_iter().all(|path| !path.exists())
    }
}

/// A cgroup of somebody else's that stands still: in the freezer of v1, or of v2 where that is all there is.
pub struct FrozenGroup {
    path: PathBuf,
}

impl FrozenGroup {
    pub fn new() -> Self {
        let v1 = PathBuf::from("/sys/fs/cgroup/freezer");
        let mount = if v1.exists() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        let path = mount.join(format!("plimsoll-oci-frozen-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let group = Self { path };
        let (file, word) = group.switch();
        fs::write(file, word).unwrap();
        group
    }

    fn switch(&self) -> (PathBuf, &'static str) {
        let v1 = self.path.join("freezer.state");
        if v1.exists() { (v1, "FROZEN") } else { (self.path.join("cgroup.freeze"), "1") }
    }

    pub fn take(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap());
    }

    pub fn is_frozen_still(&self) -> bool {
        let (file, word) = self.switch();
        fs::read_to_string(file).unwrap().trim() == word
    }
}

impl Drop for FrozenGroup {
    fn drop(&mut self) {
        let (file, _) = self.switch();
        let word = if file.ends_with("cgroup.freeze") { "0" } else { "THAWED" };
        fs::write(file, word).unwrap();
        let started = std::time::Instant::now();
        while fs::remove_dir(&self.path).is_err() && started.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.on(&["delete", "--force"]);
    }
}

/// Runs `test` where its mounts are nobody else's: a thread takes its mount namespace along, and to
/// what it starts.
pub fn in_mounts_of_its_own(test: impl FnOnce() + Send + 'static) {
    use rustix::mount::{MountPropagationFlags, mount_change};
    let outer = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(outer).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The program under test. `PLIM_OCI_BIN` names it where it is not at the place that cargo built it in.
pub fn runtime() -> PathBuf {
    std::env::var_os("PLIM_OCI_BIN").map_or_else(|| env!("CARGO_BIN_EXE_plim-oci").into(), PathBuf::from)
}

/// The mount points of all hierarchies.
pub fn cgroup_directories() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = text.lines().filter(|line| line.contains(" - cgroup"));
    mounts.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}
