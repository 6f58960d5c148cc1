//! An agent that the kernel kills for its memory.

use crate::fixture::{Host, cgroup_mounts, sleeper};
use std::fs;
use std::path::PathBuf;

/// A memory cgroup of this test's own, with nothing in it.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let controls_memory = |mount: &PathBuf| {
            let unified = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap_or_default();
            mount.join("memory.limit_in_bytes").exists()
                || mount.join("memory.usage_in_bytes").exists()
                || unified.split_whitespace().any(|controller| controller == "memory")
        };
        let mount = cgroup_mounts().into_iter().find(controls_memory).expect("a host with a memory controller");
        let group = Self(mount.join(format!("plim-test-oom-{}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        group
    }

    /// No room for anything new, in memory or on disk.
    fn limit(&self) {
        let limit = |name: &str, bytes: &str| fs::write(self.0.join(name), bytes);
        limit("memory.max", "1048576").or_else(|_| limit("memory.limit_in_bytes", "1048576")).unwrap();
        // A host may have no swap to account for.
        drop(limit("memory.swap.max", "0").or_else(|_| limit("memory.memsw.limit_in_bytes", "1048576")));
    }

    fn kills(&self) -> u64 {
        let events = ["memory.events", "memory.oom_control"].map(|name| fs::read_to_string(self.0.join(name)));
        let events = events.into_iter().flatten().next().unwrap();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was in it may still be on its way out; a leftover shows in the test's own name.
        let gone = (0..1000).any(|_| {
            std::thread::yield_now();
            fs::remove_dir(&self.0).is_ok()
        });
        assert!(gone || std::thread::panicking(), "{} stays", self.0.display());
    }
}

#[test]
#[ignore = "needs root"]
fn an_agent_that_is_killed_for_its_memory_is_followed_by_one_that_takes_everything_over() {
    let group = Group::new();
    let mut host = Host::up();
    for name in ["a", "b", "c"] {
        host.write(&format!("{name}.yaml"), &sleeper(name, ""));
    }
    let before = ["a", "b", "c"].map(|name| host.pid(name));
    let keeper = host.keeper_pid();

    group.limit();
    fs::write(group.0.join("cgroup.procs"), host.agent_pid().to_string()).unwrap();
    let many: String =
        (0..2000).map(|number| sleeper(&format!("m{number}"), "  desiredState: stopped\n") + "---\n").collect();
    fs::write(host.manifests.join("many.yaml"), many).unwrap();
    host.until("the kernel kills the agent", || group.kills() > 0);
    // It is gone already, and waited for here.
    host.kill_agent();

    fs::remove_file(host.manifests.join("many.yaml")).unwrap();
    host.start();
    assert_eq!(["a", "b", "c"].map(|name| host.pid(name)), before);
    assert_eq!(host.keeper_pid(), keeper);
    assert_eq!(host.items().len(), 3);
}
