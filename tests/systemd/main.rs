//! The installed package on a host of its own, whose systemd is PID 1: `deploy/test-systemd` makes a virtual
//! machine for that and runs these tests in it, in their order and one at a time, because they are about
//! that one host. They are no part of `cargo test`: what they do to a host nobody wants done to theirs.

mod host;

use host::{
    Container, cgroup_of, containers, ends, is_active, main_pid, manifest, plim, processes, remove_manifests,
    running_pids, sh, systemctl, until, value,
};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const MANY: usize = 50;

fn many() -> BTreeMap<String, Container> {
    for number in 0..MANY {
        manifest(
            &format!("many-{number}"),
            "command: [/bin/sleep, infinity]\n  resources: {memory: {limit: 16Mi}, pids: {limit: 8}}",
        );
    }
    until("fifty containers run", || running_pids("many-").len() == MANY);
    containers()
}

/// The same processes, however long it takes until the agent knows.
fn are_the_same(before: &BTreeMap<String, Container>, after: &BTreeMap<String, Container>) {
    for (name, container) in before.iter().filter(|(_, container)| container.pid.is_some()) {
        assert_eq!(after.get(name).and_then(|it| it.pid), container.pid, "{name}");
    }
}

/// Until it is dropped.
struct FullDisk(&'static str);

impl FullDisk {
    fn new() -> Self {
        let full = Self("/var/lib/filled");
        // Blocks that nobody writes are enough, but for the last few.
        let script = "fallocate -l $(($(stat -f -c '%a * %S' /var/lib) - 1048576))";
        let (_, said) = sh(&format!("{script} {0} && cat /dev/zero >>{0}", full.0));
        assert!(said.contains("No space left"), "{said}");
        full
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        fs::remove_file(self.0).unwrap();
    }
}

/// A number per line without end, about ten in a second.
fn counter(name: &str) {
    manifest(
        name,
        "command: [/usr/bin/perl, -e, '$| = 1; for ($i = 1; ; $i++) { print \"line $i\\n\"; select(undef, undef, undef, 0.1) }']",
    );
}

/// Every line that it has written so far, in order; panics where one is missing.
fn counted(name: &str) -> usize {
    let log = plim(&["logs", name]);
    let lines: Vec<&str> = log.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {}", index + 1), "a line is lost: {log}");
    }
    lines.len()
}

mod a_installed {
    use super::*;

    #[test]
    fn the_package_brings_up_the_agent_and_the_manifests_of_the_host_are_applied() {
        for unit in ["plimsoll", "plimsoll-keeper", "plimsoll-containers"] {
            assert!(is_active(unit), "{unit}");
        }

        manifest("web", "command: [/bin/sleep, infinity]");

        until("it runs", || containers().get("web").is_some_and(|web| web.pid.is_some()));
        until("systemd is told", || value("plimsoll", "StatusText").contains("1 synced"));
        assert_eq!(fs::metadata("/run/plimsoll/plim.sock").map(|socket| host::mode(&socket)).unwrap(), 0o660);
        assert!(sh("getent group plimsoll").0);
        remove_manifests();
    }

    #[test]
    fn every_limit_is_in_the_kernel_and_changes_in_place() {
        manifest(
            "limited",
            "command: [/bin/sleep, infinity]\n  resources:\n    memory: {limit: 64Mi, high: 48Mi, low: 8Mi, min: 4Mi, swap: 0}\n    \
             cpu: {limit: 500m, weight: 200, cpuset: \"0\"}\n    pids: {limit: 32}\n    io: {limits: [{path: /var/lib, readBps: 10Mi}]}",
        );
        until("it runs", || containers().get("limited").is_some_and(|limited| limited.pid.is_some()));
        let before = containers()["limited"].clone();
        let cgroup = cgroup_of(&before);
        let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap_or_default().trim().to_owned();

        assert!(cgroup.starts_with("/sys/fs/cgroup/system.slice/plimsoll-containers.service/c"), "{cgroup:?}");
        assert_eq!(read("memory.max"), (64 << 20).to_string());
        assert_eq!(read("memory.high"), (48 << 20).to_string());
        assert_eq!(read("memory.low"), (8 << 20).to_string());
        assert_eq!(read("memory.min"), (4 << 20).to_string());
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("cpu.weight"), "200");
        assert_eq!(read("cpuset.cpus"), "0");
        assert_eq!(read("pids.max"), "32");
        assert!(read("io.max").contains("rbps=10485760 wbps=max"), "{}", read("io.max"));

        manifest(
            "limited",
            "command: [/bin/sleep, infinity]\n  resources: {memory: {limit: 96Mi}, cpu: {limit: 1500m}, pids: {limit: 64}}",
        );
        until("the new limit is there", || read("memory.max") == (96 << 20).to_string());
        until("the new limits are there", || read("cpu.max") == "150000 100000" && read("pids.max") == "64");
        assert_eq!(containers()["limited"].pid, before.pid);
        remove_manifests();
    }

    #[test]
    fn what_happened_to_an_object_is_a_field_of_the_journal() {
        manifest("told", "command: [/bin/sleep, infinity]");
        until("it runs", || containers().get("told").is_some_and(|told| told.pid.is_some()));

        until("the journal knows", || {
            let (_, said) = sh("journalctl --no-pager -o cat PLIMSOLL_OBJECT=Container/default/told");
            said.contains("Container/default/told: running as process")
        });
        remove_manifests();
    }
}

mod b_going_on {
    use super::*;

    #[test]
    fn a_restart_of_the_agent_a_killed_keeper_and_a_reload_of_systemd_leave_fifty_containers_alone() {
        let before = many();
        counter("counts");
        until("it counts", || counted("counts") > 3);
        manifest("ends", "command: [/bin/sh, -c, \"sleep 4; exit 7\"]\n  restart: {policy: never}");
        until("it runs", || containers().get("ends").is_some_and(|it| it.pid.is_some()));

        systemctl(&["stop", "plimsoll"]);
        // Ends while nobody looks.
        until("it has ended", || processes("sleep 4").is_empty());
        systemctl(&["start", "plimsoll"]);
        until("its exit code is told", || containers().get("ends").and_then(|it| it.exit_code) == Some(7));
        systemctl(&["restart", "plimsoll"]);
        let agent = main_pid("plimsoll");
        sh(&format!("kill -9 {agent}"));
        until("another agent is there", || is_active("plimsoll") && main_pid("plimsoll") != agent);
        let keeper = main_pid("plimsoll-keeper");
        sh(&format!("kill -9 {keeper}"));
        until("another keeper is there", || is_active("plimsoll-keeper") && main_pid("plimsoll-keeper") != keeper);
        systemctl(&["daemon-reload"]);
        let lines = counted("counts");
        until("it goes on counting", || counted("counts") > lines + 5);

        let after = containers();
        are_the_same(&before, &after);
        let limit = cgroup_of(&after["many-0"]).join("memory.max");
        assert_eq!(fs::read_to_string(limit).unwrap().trim(), (16 << 20).to_string());
    }

    #[test]
    fn an_upgrade_of_the_package_executes_the_new_keeper_in_place() {
        let before = many();
        counter("counts");
        until("it counts", || counted("counts") > 3);
        let (keeper, agent) = (main_pid("plimsoll-keeper"), main_pid("plimsoll"));
        let program = |pid: u32| fs::metadata(format!("/proc/{pid}/exe")).unwrap().len();
        let old = program(keeper);

        let (installed, said) = sh("dpkg -i /stage/newer.deb");

        assert!(installed, "{said}");
        until("the keeper runs the new program", || program(keeper) != old);
        until("the agent is the new one", || is_active("plimsoll") && main_pid("plimsoll") != agent);
        assert_eq!(main_pid("plimsoll-keeper"), keeper);
        let after = containers();
        are_the_same(&before, &after);
        let lines = counted("counts");
        until("it goes on counting", || counted("counts") > lines + 5);
    }

    #[test]
    fn an_agent_that_hangs_is_killed_by_the_watchdog_and_the_next_one_takes_everything_over() {
        let before = many();
        fs::create_dir_all("/run/systemd/system/plimsoll.service.d").unwrap();
        fs::write("/run/systemd/system/plimsoll.service.d/watchdog.conf", "[Service]\nWatchdogSec=3s\n").unwrap();
        systemctl(&["daemon-reload"]);
        systemctl(&["restart", "plimsoll"]);
        // As long as it is well it lives.
        let agent = main_pid("plimsoll");
        let since = Instant::now();
        until("its time is over three times", || since.elapsed() > Duration::from_secs(9));
        assert_eq!(main_pid("plimsoll"), agent);

        sh(&format!("kill -STOP {agent}"));

        until("another agent is there", || is_active("plimsoll") && main_pid("plimsoll") != agent);
        assert!(sh("journalctl --no-pager -b -u plimsoll").1.contains("Watchdog timeout"));
        until("all is known again", || containers().len() >= before.len());
        are_the_same(&before, &containers());
        fs::remove_dir_all("/run/systemd/system/plimsoll.service.d").unwrap();
        systemctl(&["daemon-reload"]);
        systemctl(&["restart", "plimsoll"]);
    }

    #[test]
    fn without_a_journal_everything_goes_on() {
        systemctl(&["stop", "systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald"]);

        manifest("unheard", "command: [/bin/sleep, infinity]");

        until("it runs", || containers().get("unheard").is_some_and(|it| it.pid.is_some()));
        systemctl(&["start", "systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald"]);
        remove_manifests();
    }

    #[test]
    fn a_full_disk_stops_nothing_and_is_survived() {
        let before = many();
        let filled = FullDisk::new();

        let agent = main_pid("plimsoll");
        sh(&format!("kill -9 {agent}"));
        until("another agent is there", || is_active("plimsoll") && main_pid("plimsoll") != agent);
        let goes_on = |pid: u64| fs::exists(format!("/proc/{pid}")).unwrap();
        assert!(before.values().filter_map(|it| it.pid).all(goes_on));
        drop(filled);
        manifest("many-0", "command: [/bin/sleep, infinity]\n  resources: {memory: {limit: 32Mi}, pids: {limit: 8}}");

        let limit = || {
            let directory = containers().get("many-0").map(cgroup_of).unwrap_or_default();
            fs::read_to_string(directory.join("memory.max")).unwrap_or_default()
        };
        until("the new limit is in the kernel", || limit().trim() == (32 << 20).to_string());
        are_the_same(&before, &containers());
    }

    #[test]
    fn stopping_the_containers_stops_them_in_order_and_starting_the_agent_runs_them_again() {
        remove_manifests();
        let told = |name: &str, needs: &str| {
            let command = "command: [/usr/bin/perl, -e, '$SIG{TERM} = sub { exit 0 }; sleep 1 while 1']";
            manifest(name, &format!("{command}\n  stop: {{grace: 20s}}{needs}"));
        };
        told("base", "");
        told("middle", "\n  dependsOn: [{name: base}]");
        told("top", "\n  dependsOn: [{name: middle}]");
        until("all three run", || ["base", "middle", "top"].iter().all(|name| !running_pids(name).is_empty()));

        systemctl(&["stop", "plimsoll-containers"]);

        assert!(!is_active("plimsoll") && !is_active("plimsoll-containers"));
        assert!(!fs::exists("/sys/fs/cgroup/system.slice/plimsoll-containers.service").unwrap());
        systemctl(&["start", "plimsoll"]);
        until("all three run", || ["base", "middle", "top"].iter().all(|name| !running_pids(name).is_empty()));
        assert!(ends("top") <= ends("middle") && ends("middle") <= ends("base"), "the one that needs goes first");
        let containers = containers();
        assert!(["base", "middle", "top"].iter().all(|name| containers[*name].restarts == 0), "{containers:?}");
        remove_manifests();
    }

    /// For what comes after the restart of the host.
    #[test]
    fn z_many_run_when_the_host_goes_down() {
        many();
        counter("counts");
        manifest("needs", "command: [/bin/sleep, infinity]\n  dependsOn: [{name: counts}]");
        until("all run", || running_pids("").len() == MANY + 2);
    }
}

mod c_after_a_restart_of_the_host {
    use super::*;

    #[test]
    fn everything_runs_again_and_had_been_stopped_in_order() {
        until("all run", || running_pids("").len() == MANY + 2);

        assert!(ends("needs") <= ends("counts"), "the one that needs goes first");
        let containers = containers();
        assert!(containers.values().all(|container| container.restarts == 0), "it was no failure: {containers:?}");
    }
}

mod d_power_cut {
    use super::*;

    /// What is under way when the power goes: half of them are made anew, half of them change.
    #[test]
    fn a_changes_without_end_begin() {
        // A loop of its own, which the power cut ends.
        let script = "i=0; while :; do i=$((i+1)); for n in 0 1 2 3 4 5 6 7 8 9; do \
             f=/etc/plimsoll/manifests/cut-$n.yaml; \
             if [ $(((i + n) % 4)) = 0 ]; then rm -f $f; else \
             printf 'apiVersion: plimsoll/v1\\nkind: Container\\nmetadata: {name: cut-%s}\\nspec:\\n  image: host:/\\n  \
             command: [/bin/sleep, \"%s\"]\\n  resources: {memory: {limit: %sMi}}\\n' $n $((100000 + i / 3)) $((16 + i % 7)) >$f.new; \
             mv $f.new $f; fi; done; sleep 0.3; done";
        fs::write("/run/churn", script).unwrap();
        systemctl(&["reset-failed"]);
        assert!(sh("systemd-run --quiet --unit churn sh /run/churn").0);
        until("something is under way", || running_pids("cut-").len() > 4);
    }

    #[test]
    fn b_after_it_all_converges_and_nothing_is_left() {
        for number in 0..10 {
            manifest(&format!("cut-{number}"), "command: [/bin/sleep, infinity]\n  resources: {memory: {limit: 24Mi}}");
        }
        let limit =
            |container: &Container| fs::read_to_string(cgroup_of(container).join("memory.max")).unwrap_or_default();
        until("all are as they are to be", || {
            let containers = containers();
            (0..10).all(|number| {
                containers.get(&format!("cut-{number}")).is_some_and(|cut| {
                    cut.pid.is_some() && cut.sync == "synced" && limit(cut).trim() == (24 << 20).to_string()
                })
            })
        });

        until("there is one cgroup for each", || {
            host::cgroups().len() == containers().values().filter(|it| it.pid.is_some()).count()
        });
        until("there is one root file system for each", || host::roots() == containers().len());
    }
}

mod e_removal {
    use super::*;

    #[test]
    fn a_removal_leaves_no_process_cgroup_or_mount_and_a_purge_nothing_but_manifests() {
        until("something runs", || !running_pids("").is_empty());

        let (removed, said) = sh("dpkg -r plimsoll");
        assert!(removed && said.contains("every container is stopped"), "{said}");

        let script = "for name in plim plim-keeper plim-oci; do pgrep -ax $name; done; pgrep -fax '/bin/sleep infinity'; \
             find /sys/fs/cgroup -name '*plimsoll*'; grep plimsoll /proc/mounts";
        let (_, left) = sh(script);
        assert_eq!(left.trim(), "");
        assert!(fs::exists("/var/lib/plimsoll/db").unwrap());
        let (purged, said) = sh("dpkg -P plimsoll");
        assert!(purged, "{said}");
        assert!(!fs::exists("/var/lib/plimsoll").unwrap() && fs::exists("/etc/plimsoll/manifests").unwrap());
    }
}
