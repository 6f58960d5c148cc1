//! What somebody else has changed on the host comes back, and an event says what was found.

use crate::cgroups::unified_mount;
use crate::fixture::{Host, pid, sleeper};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

fn limited(memory: &str) -> String {
    sleeper("web", &format!("  resources: {{memory: {{limit: {memory}}}, pids: {{limit: 64}}}}\n"))
}

/// The instance's directory in the v2 hierarchy.
fn unified(host: &Host) -> Option<PathBuf> {
    let cgroup = host.item("web").unwrap()["status"]["cgroup"].as_str().unwrap().to_owned();
    let below = cgroup.trim_start_matches('/').trim_end_matches("/payload").to_owned();
    unified_mount().map(|mount| PathBuf::from(mount).join(below))
}

#[test]
#[ignore = "needs root"]
fn what_somebody_has_frozen_goes_on() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    let before = host.pid("web");
    let Some(directory) = unified(&host) else { panic!("every host here has a v2 hierarchy") };

    fs::write(directory.join("cgroup.freeze"), "1").unwrap();
    host.ok(["reconcile"]);

    host.until("it goes on", || fs::read_to_string(directory.join("cgroup.freeze")).unwrap() == "0\n");
    host.until("an event says so", || {
        String::from_utf8(host.plim(["events"]).stdout).unwrap().contains("cgroup.freeze is")
    });
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn a_cgroup_that_was_taken_away_under_its_processes_is_made_again_with_its_limits() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    let before = host.pid("web");
    let Some(directory) = unified(&host) else { panic!("every host here has a v2 hierarchy") };
    let inside = || fs::read_to_string(directory.join("payload/cgroup.procs")).unwrap_or_default();
    let count = inside().lines().count();
    let limit = host.control_file("default_web", MEMORY);
    let memory = limit.parent().unwrap();

    // Out of its groups, into the one that all containers are below, or the root of a v1 hierarchy.
    for pid in inside().lines() {
        fs::write(directory.ancestors().nth(4).unwrap().join("cgroup.procs"), pid).unwrap();
        if !memory.starts_with(&directory) {
            fs::write(memory.ancestors().nth(2).unwrap().join("cgroup.procs"), pid).unwrap();
        }
    }
    for path in [directory.join("payload"), directory.clone(), memory.to_path_buf()] {
        if path.exists() {
            fs::remove_dir(path).unwrap();
        }
    }
    host.ok(["reconcile"]);

    host.until("its processes are inside again", || inside().lines().count() == count);
    // In a directory of its own on v1, which is made after the other one.
    let says = || fs::read_to_string(&limit).unwrap_or_default();
    host.until("its limit is there again", || says().trim() == (64 << 20).to_string());
    host.until("an event says so", || String::from_utf8(host.plim(["events"]).stdout).unwrap().contains("made again"));
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn what_ignore_drift_names_is_left_and_everything_else_is_set_back() {
    let host = Host::up();
    let with = |memory: u32, more: &str| {
        let limits = format!("memory: {{limit: {memory}Mi}}, pids: {{limit: 64}}");
        sleeper("web", &format!("  resources: {{{limits}}}\n{more}"))
    };
    let left = "  ignoreDrift: [/spec/resources/memory/limit]\n";
    host.write("web.yaml", &with(64, left));
    let before = host.pid("web");
    let pids = ["pids.max", "pids.max"];
    let mi = |count: u64| (count << 20).to_string();

    fs::write(host.control_file("default_web", MEMORY), mi(96)).unwrap();
    fs::write(host.control_file("default_web", pids), "999").unwrap();
    host.ok(["reconcile"]);
    host.until("the processes' limit is set back", || host.control("default_web", pids) == "64");
    assert_eq!(host.control("default_web", MEMORY), mi(96), "the memory's is left");

    host.write("web.yaml", &with(128, left));
    host.until("what the manifest changes is written", || host.control("default_web", MEMORY) == mi(128));
    fs::write(host.control_file("default_web", MEMORY), mi(96)).unwrap();
    host.write("web.yaml", &with(128, ""));
    host.until("from now on it is set back", || host.control("default_web", MEMORY) == mi(128));
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn what_somebody_has_unmounted_is_mounted_again() {
    let host = Host::up();
    let data = host.dir.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let mounts = format!("  mounts: [{{host: {}, path: /data}}, {{tmpfs: 1Mi, path: /scratch}}]\n", data.display());
    host.write("web.yaml", &sleeper("web", &mounts));
    host.write("job.yaml", &sleeper("job", &format!("{mounts}  restart: {{policy: never}}\n")));
    let (before, job) = (host.pid("web"), host.pid("job"));
    let mounted = |pid: u32| fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().contains(" /data ");
    assert!(mounted(before));
    host.ok(["reconcile"]);

    for pid in [before, job] {
        let status =
            Command::new("nsenter").args(["-t", &pid.to_string(), "-U", "-m", "umount", "/data"]).status().unwrap();
        assert!(status.success() && !mounted(pid));
    }
    host.ok(["reconcile"]);

    let again = pid(&host.wait("web", "a new process", |item| {
        item["status"]["phase"] == "Running" && item["status"]["pid"] != before && !item["status"]["pid"].is_null()
    }));
    assert!(mounted(again));
    let events = host.ok(["events"]);
    assert!(events.contains("the mount at /data was taken away"), "{events}");
    // It would not be started again.
    assert_eq!(host.pid("job"), job);
}
