//! Where the processes are, and what they see of it.

use crate::fixture::{Host, sleeper};
use std::fs;
use std::path::Path;

/// Where a process is in the v2 hierarchy, from its root; `None` on a host without one.
fn place(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

pub fn unified_mount() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    unified.split(' ').nth(1).map(str::to_owned)
}

fn keeper(host: &Host) -> u32 {
    let status: serde_json::Value = serde_json::from_str(&host.ok(["status", "-o", "json"])).unwrap();
    u32::try_from(status["keeperPid"].as_u64().unwrap()).unwrap()
}

#[test]
#[ignore = "needs root"]
fn processes_are_in_the_leaves_of_our_tree_alone() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", "  resources: {memory: {limit: 64Mi}}\n"));
    let pid = host.pid("a");
    let Some(mount) = unified_mount() else { return };
    let parent = host.cgroup_parent();

    let keeper = place(keeper(&host)).unwrap();
    let own = place(pid).unwrap();

    assert_eq!(keeper, format!("{parent}/keeper"));
    assert!(own.starts_with(&format!("{parent}/c/default_a/")) && own.ends_with("/payload"), "{own}");
    let mut node = Path::new(&own).parent();
    while let Some(inner) = node.filter(|inner| inner.starts_with(&parent)) {
        let procs = fs::read_to_string(format!("{mount}{}/cgroup.procs", inner.display())).unwrap();
        assert_eq!(procs, "", "{}", inner.display());
        node = inner.parent();
    }
}

#[test]
#[ignore = "needs root"]
fn a_container_and_a_command_in_it_see_their_own_part_of_the_cgroups_and_cannot_write_it() {
    let host = Host::up();
    host.write("a.yaml", &sleeper("a", "  resources: {pids: {limit: 64}}\n"));
    host.write("net.yaml", &sleeper("net", "  network: host\n"));

    for name in ["a", "net"] {
        host.pid(name);
        let run = |script: &str| host.plim(["exec", name, "--", "sh", "-c", script]);
        let text = |script: &str| String::from_utf8(run(script).stdout).unwrap();

        assert!(text("cat /proc/self/cgroup /proc/1/cgroup").lines().all(|line| line.ends_with(":/")), "{name}");
        let list = text("ls /sys/fs/cgroup");
        assert!(list.is_empty() || list.contains("cgroup.procs"), "{name}: {list}");
        assert!(!list.contains(".slice") && !list.contains("plimsoll"), "{name}: {list}");
        for attempt in
            ["mkdir /sys/fs/cgroup/x", "echo max > /sys/fs/cgroup/pids.max", "echo 1 > /sys/fs/cgroup/cgroup.kill"]
        {
            assert!(!run(attempt).status.success(), "{name}: {attempt} succeeded");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn an_out_of_memory_kill_is_told_as_such() {
    let host = Host::up();
    host.write(
        "fat.yaml",
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: fat}\nspec:\n  image: host:/\n  restart: {policy: never}\n  \
         command: [perl, -e, \"$x = 'a' x (128 << 20)\"]\n  resources: {memory: {limit: 32Mi, swap: 0}}\n",
    );

    let item = host.wait("fat", "ended", |item| item["status"]["phase"] == "Exited");

    assert_eq!(item["status"]["lastExit"]["signal"], 9, "{item}");
    assert_eq!(item["status"]["lastExit"]["oomKilled"], true, "{item}");
}

#[test]
#[ignore = "needs root"]
fn the_limits_that_only_v2_has_change_in_place() {
    let host = Host::up();
    let with = |high: u32, low: u32, min: u32, swap: u32, weight: u32| {
        let memory = format!("limit: 256Mi, high: {high}Mi, low: {low}Mi, min: {min}Mi, swap: {swap}Mi");
        sleeper("knobs", &format!("  resources: {{cpu: {{weight: {weight}}}, memory: {{{memory}}}}}\n"))
    };
    if unified_mount()
        .is_none_or(|mount| !fs::read_to_string(format!("{mount}/cgroup.controllers")).unwrap().contains("memory"))
    {
        return;
    }
    host.write("knobs.yaml", &with(128, 16, 8, 0, 100));
    let before = host.pid("knobs");

    host.write("knobs.yaml", &with(200, 32, 24, 64, 300));
    host.until("the weight", || host.control("default_knobs", ["cpu.weight", "cpu.weight"]) == "300");
    host.wait("knobs", "synced", |item| item["status"]["sync"] == "synced");

    for (file, mib) in [("memory.high", 200), ("memory.low", 32), ("memory.min", 24), ("memory.swap.max", 64)] {
        assert_eq!(host.control("default_knobs", [file, file]), (mib << 20_u64).to_string(), "{file}");
    }
    assert_eq!(host.pid("knobs"), before);
}
