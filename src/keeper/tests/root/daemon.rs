//! The real program, as the agent starts it.

use super::super::process::{Place, instance, is_alive, script_born_in, shell, wait_until};
use crate::keeper::daemon::spawn_within;
use crate::keeper::{Client, Event, KeeperError, Options, StartRequest, spawn};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

/// The program that cargo has built beside the tests: `make test` builds it first.
pub(super) fn options(place: &Place) -> Options {
    let binary = std::env::current_exe().unwrap().parent().unwrap().with_file_name("plim-keeper");
    assert!(binary.exists(), "{} is not built: run cargo build --bins first", binary.display());
    let mut options = Options::new(place.path().to_owned());
    options.binary = Some(binary);
    options.log = Some(place.path().join("keeper.log"));
    options
}

#[test]
#[ignore = "needs root"]
fn it_runs_from_sealed_memory_in_a_session_of_its_own() {
    let place = Place::new();
    let options = options(&place);

    spawn(&options).unwrap();
    let client = Client::connect(&options.socket(), |_| {}).unwrap();
    let pid = client.stats().unwrap().pid;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let program = std::fs::read_link(proc.join("exe")).unwrap();
    let name = std::fs::read_to_string(proc.join("comm")).unwrap();
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let streams = [0, 1, 2].map(|fd| std::fs::read_link(proc.join(format!("fd/{fd}"))).unwrap());
    let threads = std::fs::read_dir(proc.join("task")).unwrap().count();
    let second = spawn(&options).unwrap_err();
    client.shutdown(false).unwrap();

    assert!(program.to_string_lossy().starts_with("/memfd:plim-keeper"), "{program:?}");
    assert_eq!(name, "plim-keeper\n");
    assert_eq!(threads, 1);
    assert_ne!(fields[1], std::process::id().to_string(), "it is not our child");
    assert_eq!(fields[3], pid.to_string(), "it leads its session");
    let null = PathBuf::from("/dev/null");
    assert_eq!(streams, [null.clone(), null, options.log.clone().unwrap()]);
    assert!(matches!(second, KeeperError::NotStarted(ref text) if text.contains("another keeper runs")), "{second:?}");
    wait_until(|| !is_alive(pid) && !options.socket().exists());
}

/// In a pid namespace of its own, as the rule is one of those (Linux 6.6). As long as a program runs nobody
/// writes to it in any case, so it ends first (CVE-2019-5736).
#[test]
#[ignore = "needs root"]
fn where_memory_is_not_executed_its_file_is_out_of_reach_all_the_same() {
    const RULE: &str = "/proc/sys/vm/memfd_noexec";
    if !PathBuf::from(RULE).exists() {
        return;
    }
    let place = Place::new();
    let own = place.path().join("own");
    std::fs::copy(options(&place).binary.unwrap(), &own).unwrap();
    let script = format!(
        "mount -t proc proc /proc; echo 2 > {RULE} || exit; \"$0\" --run \"$1\"; \
         for pid in /proc/[0-9]*; do \
         [ \"$(cat $pid/comm)\" = plim-keeper ] || continue; \
         cp $pid/exe \"$1/kept\"; exec 9< $pid/exe; kill -9 ${{pid#/proc/}}; \
         until (echo no >> /proc/self/fd/9) 2> \"$1/said\"; do \
         grep -q busy \"$1/said\" || break; done; cat \"$1/said\"; done"
    );

    let output = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--", "/bin/sh", "-c", &script])
        .args([&own, place.path()])
        .output()
        .unwrap();

    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("ready\n") && said.contains("Read-only file system"), "{said}");
    assert!(std::fs::read(&own).unwrap() == std::fs::read(place.path().join("kept")).unwrap());
}

#[test]
#[ignore = "needs root"]
fn a_reason_not_to_start_is_told() {
    let place = Place::new();
    let mut options = options(&place);
    options.cgroups.push(PathBuf::from("/nowhere"));

    let error = spawn(&options).unwrap_err();

    assert!(error.to_string().contains("joining /nowhere/cgroup.procs: No such file"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn a_missing_program_is_told() {
    let place = Place::new();
    let mut options = Options::new(place.path().to_owned());
    options.binary = Some(PathBuf::from("/nowhere/plim-keeper"));

    assert!(matches!(spawn(&options), Err(KeeperError::Spawn { .. })));
}

#[test]
#[ignore = "needs root"]
fn a_program_that_never_says_a_word_is_not_waited_for() {
    let place = Place::new();
    let mut options = Options::new(place.path().to_owned());
    let program = place.path().join("mute");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    options.binary = Some(program);

    let error = spawn_within(&options, Duration::from_millis(100)).unwrap_err();

    assert!(error.to_string().contains("it did not say within 100ms that it is ready"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn another_begins_at_once_after_a_kill() {
    let (place, id) = (Place::new(), instance(1));
    let options = options(&place);
    spawn(&options).unwrap();
    let (send, events) = channel();
    let client = Client::connect(&options.socket(), move |event| send.send(event).unwrap_or_default()).unwrap();
    let pid = client.stats().unwrap().pid;
    let script = shell("ulimit -Sn; exec sleep 1000");
    let request = StartRequest { instance: &id, script: &script, output: place.output(&id), seccomp: None };
    let container = client.start(&request).unwrap().pid;
    wait_until(|| !place.logged(&id).is_empty());

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), nix::sys::signal::SIGKILL).unwrap();
    while events.recv_timeout(Duration::from_secs(20)).unwrap() != Event::Lost {}
    spawn(&options).unwrap();
    let next = Client::connect(&options.socket(), |_| {}).unwrap();
    let after = next.stats().unwrap();
    next.shutdown(false).unwrap();
    let alive = is_alive(container);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.try_into().unwrap()), nix::sys::signal::SIGKILL)
        .unwrap();

    assert!(alive && after.pid != pid);
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let own = own.map_or("unlimited".to_owned(), |limit| limit.to_string());
    assert_eq!(
        place.logged(&id),
        [format!("stdout F {own}")],
        "the keeper's own limit of descriptors is not passed on"
    );
}

/// A directory of the v2 hierarchy that nothing goes on in.
struct Frozen(PathBuf);

impl Frozen {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let unified = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let group =
            PathBuf::from(unified.split(' ').nth(1).unwrap()).join(format!("plim-{name}-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join("cgroup.freeze"), "1").unwrap();
        Self(group)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        std::fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        wait_until(|| std::fs::remove_dir(&self.0).is_ok());
    }
}

/// It has copies of the keeper's descriptors, and does not come to close them.
#[test]
#[ignore = "needs root"]
fn a_child_that_stands_frozen_in_its_set_up_outlives_its_keeper_and_is_in_nobodys_way() {
    let (place, id, group) = (Place::new(), instance(1), Frozen::new("keeper"));
    let options = options(&place);
    spawn(&options).unwrap();
    let (send, events) = channel();
    let client = Client::connect(&options.socket(), move |event| send.send(event).unwrap_or_default()).unwrap();
    let pid = client.stats().unwrap().pid;
    let script = script_born_in(&group.0);

    let (refused, next) = std::thread::scope(|scope| {
        let request = StartRequest { instance: &id, script: &script, output: place.output(&id), seccomp: None };
        let client = &client;
        let start = scope.spawn(move || client.start(&request));
        wait_until(|| !std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap().is_empty());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), nix::sys::signal::SIGKILL).unwrap();
        assert_eq!(events.recv_timeout(Duration::from_secs(5)), Ok(Event::Lost));
        let refused = start.join().unwrap();
        spawn(&options).unwrap();
        (refused, Client::connect(&options.socket(), |_| {}).unwrap())
    });
    let after = next.stats().unwrap();
    let second = spawn(&options).unwrap_err();
    next.shutdown(false).unwrap();

    assert!(matches!(refused, Err(KeeperError::Lost)), "{refused:?}");
    assert_ne!(after.pid, pid);
    assert!(second.to_string().contains("another keeper runs"), "{second}");
    assert!(!std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap().is_empty(), "it stands there still");
}
