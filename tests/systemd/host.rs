//! What a test may do to the host, and see of it.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MANIFESTS: &str = "/etc/plimsoll/manifests";
const CONTAINERS: &str = "/sys/fs/cgroup/system.slice/plimsoll-containers.service/c";
/// Nothing takes this long on a machine that works, however slow it is.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Container {
    pub pid: Option<u64>,
    pub exit_code: Option<i64>,
    pub restarts: u64,
    pub sync: String,
    pub instance: String,
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", sh("plim get; plim status").1);
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether it succeeded, and everything that it said.
pub fn sh(script: &str) -> (bool, String) {
    let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

pub fn plim(args: &[&str]) -> String {
    let output = Command::new("plim").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn systemctl(args: &[&str]) {
    let output = Command::new("systemctl").args(args).output().unwrap();
    assert!(output.status.success(), "systemctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn value(unit: &str, property: &str) -> String {
    sh(&format!("systemctl show --property {property} --value {unit}")).1.trim().to_owned()
}

pub fn is_active(unit: &str) -> bool {
    value(unit, "ActiveState") == "active"
}

pub fn main_pid(unit: &str) -> u32 {
    value(unit, "MainPID").parse().unwrap()
}

/// Saves a manifest as editors do. `spec` is what follows the image.
pub fn manifest(name: &str, spec: &str) {
    let path = Path::new(MANIFESTS).join(format!("{name}.yaml"));
    let text = format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: host:/\n  {spec}\n"
    );
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// Takes all of them away, agrees to it, and waits until nothing is left.
pub fn remove_manifests() {
    for entry in fs::read_dir(MANIFESTS).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    until("nothing is left", || {
        plim(&["approve", "--all"]);
        running_pids("").is_empty() && cgroups().is_empty()
    });
}

/// Those that are known, by name.
pub fn containers() -> BTreeMap<String, Container> {
    let text = plim(&["get", "-A", "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap_or_default();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let container = |item: Value| {
        let status = &item["status"];
        let container = Container {
            pid: status["pid"].as_u64(),
            exit_code: status["exitCode"].as_i64(),
            restarts: status["restarts"].as_u64().unwrap_or_default(),
            sync: status["sync"].as_str().unwrap_or_default().to_lowercase(),
            instance: status["instance"].as_str().unwrap_or_default().to_owned(),
        };
        (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), container)
    };
    items.into_iter().map(container).collect()
}

/// The processes of those whose names begin so.
pub fn running_pids(beginning: &str) -> Vec<u64> {
    let containers = containers();
    containers.iter().filter(|(name, _)| name.starts_with(beginning)).filter_map(|(_, it)| it.pid).collect()
}

/// Where its limits are.
pub fn cgroup_of(container: &Container) -> PathBuf {
    let (family, number) = container.instance.rsplit_once('.').unwrap_or_default();
    Path::new(CONTAINERS).join(family).join(number)
}

/// The cgroups of containers that there are.
pub fn cgroups() -> Vec<PathBuf> {
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below(CONTAINERS.into()).flat_map(below).filter(|path| path.is_dir()).collect()
}

/// How many containers have a root file system.
pub fn roots() -> usize {
    let below = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below("/var/lib/plimsoll/instances".into()).flat_map(below).count()
}

/// The processes of the host with this command line.
pub fn processes(command: &str) -> Vec<String> {
    sh(&format!("pgrep -fx '{command}'")).1.lines().map(str::to_owned).collect()
}

/// When it was last told to stop because the host went down, as its history says.
pub fn ends(name: &str) -> String {
    let history = plim(&["history", name]);
    let line = history.lines().rfind(|line| line.contains("the host goes down"));
    let line = line.unwrap_or_else(|| panic!("{name} was never stopped: {history}"));
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

pub fn mode(metadata: &fs::Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}
