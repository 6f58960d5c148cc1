//! Starts, ends, signals, and what is left of them.

use super::super::process::{
    Keeper, Place, instance, is_alive, open_files, script, script_that_fails_beside, script_that_waits, shell,
    wait_until,
};
use crate::keeper::{Event, Fault, HandleState, StartRequest};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[test]
#[ignore = "needs root"]
fn a_container_starts_ends_and_is_kept_until_it_is_released() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    let started = place.start(&agent, &id, "echo out; echo err >&2; exit 7").unwrap();
    let exit = agent.exit_of(&id);
    let listed = agent.client.list().unwrap();
    agent.client.release(&id).unwrap();

    assert_eq!((exit.code, exit.signal), (Some(7), None));
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].pid, listed[0].state, listed[0].adopted), (started.pid, HandleState::Exited(exit), false));
    assert_eq!(listed[0].log.lines, 2);
    let mut logged = place.logged(&id);
    logged.sort();
    assert_eq!(logged, ["stderr F err", "stdout F out"]);
    assert!(agent.client.list().unwrap().is_empty());
    assert!(!place.output(&id).stdout.exists() && !place.output(&id).stderr.exists());
    assert_eq!(agent.client.release(&id).unwrap_err().fault(), Some(Fault::NotFound));
}

#[test]
#[ignore = "needs root"]
fn the_fifos_belong_to_the_containers_user() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    // Opening its own standard output by path is what many programs do with /dev/stdout.
    place.start(&agent, &id, "echo again > /proc/self/fd/1; exec sleep 1000").unwrap();
    let fifo = place.output(&id).stdout.metadata().unwrap();
    wait_until(|| place.logged(&id) == ["stdout F again"]);
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    let exit = agent.exit_of(&id);

    assert!(fifo.file_type().is_fifo());
    assert_eq!((fifo.uid(), fifo.gid(), fifo.mode() & 0o777), (1234, 4321, 0o600));
    assert_eq!((exit.code, exit.signal), (Some(128 + libc::SIGKILL), Some(libc::SIGKILL)));
}

#[test]
#[ignore = "needs root"]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();

    let error = place.start_script(&agent, &id, &script(&["/nowhere/nothing"])).unwrap_err();

    assert_eq!(error.fault(), Some(Fault::NoSuchProgram));
    assert!(error.to_string().contains("/nowhere/nothing"), "{error}");
    agent.event(|event| matches!(event, Event::StartFailed { instance, .. } if *instance == id).then_some(()));
    assert!(agent.client.list().unwrap().is_empty());
    assert!(!place.output(&id).stdout.exists() && !place.output(&id).stderr.exists());
    place.start(&agent, &id, "exit 0").unwrap();
}

#[test]
#[ignore = "needs root"]
fn what_is_there_is_not_started_again_and_what_runs_is_not_released() {
    let (place, id) = (Place::new(), instance(1));
    let mut keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();

    assert_eq!(place.start(&agent, &id, "exit 0").unwrap_err().fault(), Some(Fault::Exists));
    assert_eq!(agent.client.release(&id).unwrap_err().fault(), Some(Fault::Running));
    assert_eq!(agent.client.shutdown(false).unwrap_err().fault(), Some(Fault::Running));
    agent.client.signal(&id, libc::SIGTERM).unwrap();
    agent.exit_of(&id);
    assert_eq!(agent.client.signal(&id, libc::SIGTERM).unwrap_err().fault(), Some(Fault::NotFound));

    agent.client.shutdown(false).unwrap();
    assert!(keeper.wait());
    agent.event(|event| matches!(event, Event::Lost).then_some(()));
    assert!(agent.client.list().unwrap_err().is_transient());
}

#[test]
#[ignore = "needs root"]
fn an_end_that_nobody_listened_to_is_kept() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let first = keeper.connect();
    let pid = place.start(&first, &id, "read line < /proc/self/fd/0; sleep 0.1; exit 3").unwrap().pid;
    drop(first);

    wait_until(|| !is_alive(pid));
    let second = keeper.connect();
    let mut state = None;
    wait_until(|| {
        state = second.client.list().unwrap().first().map(|handle| handle.state);
        state != Some(HandleState::Running)
    });

    assert!(matches!(state, Some(HandleState::Exited(exit)) if exit.code == Some(3)), "{state:?}");
}

#[test]
#[ignore = "needs root"]
fn fifty_start_at_once() {
    let place = Place::new();
    let keeper = place.keeper();
    let agent = keeper.connect();

    let pids: Vec<u32> = std::thread::scope(|scope| {
        let start = |number| {
            let (place, client) = (&place, &agent.client);
            scope.spawn(move || {
                let (instance, script) = (instance(number), shell("echo up; exec sleep 1000"));
                let output = place.output(&instance);
                client.start(&StartRequest { instance: &instance, script: &script, output, seccomp: None }).unwrap().pid
            })
        };
        let threads: Vec<_> = (0..50).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(agent.client.stats().unwrap().containers, 50);
    for number in 0..50 {
        agent.client.signal(&instance(number), libc::SIGKILL).unwrap();
        agent.exit_of(&instance(number));
        assert_eq!(place.logged(&instance(number)), ["stdout F up"]);
    }
}

#[test]
#[ignore = "needs root"]
fn two_hundred_lives_leave_no_descriptor() {
    let place = Place::new();
    let keeper = place.keeper();
    let agent = keeper.connect();
    let live = |number: u64| {
        let id = instance(number);
        if number.is_multiple_of(3) {
            place.start_script(&agent, &id, &script(&["/nowhere/nothing"])).unwrap_err();
        } else {
            place.start(&agent, &id, "echo here").unwrap();
            agent.exit_of(&id);
            agent.client.release(&id).unwrap();
        }
    };
    live(1);
    let before = open_files(keeper.pid());

    (2..202).for_each(live);

    assert_eq!(open_files(keeper.pid()), before);
}

#[test]
#[ignore = "needs root"]
fn a_start_that_hangs_is_ended() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = Keeper::begin(place.path(), Duration::from_millis(200));
    let agent = keeper.connect();

    let error = place.start_script(&agent, &id, &script_that_waits()).unwrap_err();

    assert_eq!(error.fault(), Some(Fault::StartFailed));
    assert!(error.to_string().contains("not started within 200ms"), "{error}");
    assert!(agent.client.list().unwrap().is_empty());
}

/// A cgroup in which nothing goes on: of the v1 freezer, where nothing that is killed dies, or of v2, where it does.
struct Frozen {
    group: PathBuf,
    /// What a process joins by, and the file and word of each state.
    tasks: &'static str,
    frozen: (&'static str, &'static str),
    thawed: &'static str,
}

impl Frozen {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = |wanted: fn(&[&str]) -> bool| {
            let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            lines.find(|fields| wanted(fields)).map(|fields| fields[1].to_owned())
        };
        let v1 = mount(|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "freezer"));
        let (mount, tasks, frozen, thawed) = match v1 {
            Some(v1) => (v1, "tasks", ("freezer.state", "FROZEN"), "THAWED"),
            None => (mount(|fields| fields[2] == "cgroup2").unwrap(), "cgroup.procs", ("cgroup.freeze", "1"), "0"),
        };
        let group = Path::new(&mount).join(format!("plim-{name}-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join(frozen.0), frozen.1).unwrap();
        Self { group, tasks, frozen, thawed }
    }

    fn tasks(&self) -> PathBuf {
        self.group.join(self.tasks)
    }

    fn lets_the_killed_die(&self) -> bool {
        self.thawed == "0"
    }

    fn thaw(&self) {
        std::fs::write(self.group.join(self.frozen.0), self.thawed).unwrap();
    }

    fn holds_somebody(&self) -> bool {
        !std::fs::read_to_string(self.tasks()).unwrap().is_empty()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        wait_until(|| std::fs::remove_dir(&self.group).is_ok());
    }
}

#[test]
#[ignore = "needs root"]
fn a_start_that_fails_beside_a_frozen_child_is_answered_and_the_child_is_collected_when_it_dies() {
    let (place, id) = (Place::new(), instance(1));
    let group = Frozen::new("failing");
    let keeper = place.keeper();
    let (starter, agent) = (keeper.connect(), keeper.connect());
    let gate = place.path().join("gate");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, mode, 0).unwrap();

    let error = std::thread::scope(|scope| {
        let (place, id, script) = (&place, &id, script_that_fails_beside(&group.tasks(), Some(&gate)));
        let start = scope.spawn(move || {
            let starter = starter;
            place.start_script(&starter, id, &script).unwrap_err()
        });
        wait_until(|| group.holds_somebody());
        drop(std::fs::File::options().write(true).open(&gate).unwrap());
        start.join().unwrap()
    });
    let listed = agent.client.list().unwrap();
    let stands = group.holds_somebody();
    group.thaw();
    agent.event(|event| matches!(event, Event::StartFailed { .. }).then_some(()));

    assert!(error.to_string().contains("/not/there"), "{error}");
    assert_eq!(error.to_string().contains("frozen"), stands, "{error}");
    assert!(stands != group.lets_the_killed_die() && listed.len() == usize::from(stands), "{listed:?}");
    assert!(listed.iter().all(|handle| handle.state == HandleState::Starting), "{listed:?}");
    assert!(agent.client.list().unwrap().is_empty());
    assert!(!group.holds_somebody(), "it is collected");
}

#[test]
#[ignore = "needs root"]
fn a_start_that_hangs_in_a_frozen_cgroup_is_answered_too() {
    let (place, id) = (Place::new(), instance(1));
    let group = Frozen::new("hanging");
    let keeper = Keeper::begin(place.path(), Duration::from_millis(200));
    let agent = keeper.connect();

    let error = place.start_script(&agent, &id, &script_that_fails_beside(&group.tasks(), None)).unwrap_err();
    group.thaw();
    agent.event(|event| matches!(event, Event::StartFailed { .. }).then_some(()));

    assert!(error.to_string().contains("not started within 200ms"), "{error}");
    assert_ne!(error.to_string().contains("; its process was killed"), group.lets_the_killed_die(), "{error}");
    assert!(agent.client.list().unwrap().is_empty());
}

#[test]
#[ignore = "needs root"]
fn a_start_whose_process_is_killed_on_its_way_has_failed() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let (starter, agent) = (keeper.connect(), keeper.connect());

    let error = std::thread::scope(|scope| {
        let (place, id) = (&place, &id);
        let start = scope.spawn(move || {
            let starter = starter;
            place.start_script(&starter, id, &script_that_waits()).unwrap_err()
        });
        wait_until(|| !agent.client.list().unwrap().is_empty());
        agent.client.signal(id, libc::SIGKILL).unwrap();
        start.join().unwrap()
    });

    assert_eq!(error.fault(), Some(Fault::StartFailed));
    assert!(error.to_string().contains("ended before it executed its program"), "{error}");
    assert!(agent.client.list().unwrap().is_empty());
}

#[test]
#[ignore = "needs root"]
fn at_rest_the_keeper_sleeps() {
    let (place, id, ended) = (Place::new(), instance(1), instance(2));
    let keeper = place.keeper();
    let agent = keeper.connect();
    // One that runs and is silent, and one that has ended and is not released.
    place.start(&agent, &ended, "exit 0").unwrap();
    agent.exit_of(&ended);
    place.start(&agent, &id, "for i in 1 2 3; do echo $i; done; exec sleep 1000").unwrap();
    wait_until(|| place.logged(&id).len() == 3);
    // A stream that was busy rests for a moment, and that moment has an end.
    let wakeups = || agent.client.stats().unwrap().wakeups;
    wait_until(|| {
        let before = wakeups();
        std::thread::sleep(Duration::from_millis(10));
        wakeups() == before + 1
    });

    let before = wakeups();
    std::thread::sleep(Duration::from_millis(300));

    assert_eq!(wakeups(), before + 1, "woken by the question alone");
}

#[test]
#[ignore = "needs root"]
fn real_time_signals_arrive() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exec sleep 1000").unwrap();

    agent.client.signal(&id, 34 + 3).unwrap();

    assert_eq!(agent.exit_of(&id).signal, Some(37));
    assert_eq!(agent.client.signal(&id, 65).unwrap_err().fault(), Some(Fault::NotFound));
}

#[test]
#[ignore = "needs root"]
fn shutting_down_takes_the_fifos_of_what_has_ended() {
    let (place, id) = (Place::new(), instance(1));
    let mut keeper = place.keeper();
    let agent = keeper.connect();
    place.start(&agent, &id, "exit 0").unwrap();
    agent.exit_of(&id);

    agent.client.shutdown(false).unwrap();

    assert!(keeper.wait());
    assert!(!place.output(&id).stdout.exists() && !keeper.options.socket().exists());
}
