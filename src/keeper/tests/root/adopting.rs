//! A keeper dies, and another takes over.

use super::super::process::{Place, instance, is_alive, script_in, script_that_waits, wait_until};
use crate::keeper::{Fault, HandleState, KeeperError, Whereabouts};
use std::path::PathBuf;

/// A cgroup of our own in some hierarchy of this machine, gone at the end of the test.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        let parent = if unified.is_dir() { unified } else { PathBuf::from("/sys/fs/cgroup") };
        let group = parent.join(format!("plim-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(group.join("empty")).unwrap();
        Self(group)
    }

    fn find(&self, pid: Option<u32>) -> Whereabouts {
        let (absent, empty) = (self.0.join("absent"), self.0.join("empty"));
        Whereabouts { cgroups: vec![absent, empty, self.0.clone()], pid, since: None }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(self.0.join("empty")).unwrap();
        wait_until(|| std::fs::remove_dir(&self.0).is_ok());
    }
}

/// What a keeper learns of a process that is not its child: nothing, before Linux 6.15.
fn told(what: i32) -> Option<i32> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    child.wait().unwrap();
    let status = crate::sys::pidfd_exit_status(std::os::fd::AsFd::as_fd(&pidfd));
    matches!(status, Ok(Some(_))).then_some(what)
}

const NEW_PID: u64 = 0x2000_0000;

#[test]
#[ignore = "needs root"]
fn a_container_outlives_its_keeper_and_is_heard_again() {
    let (place, id, group) = (Place::new(), instance(1), Group::new("outlives"));
    let (go, said) = (place.path().join("go"), place.path().join("said"));
    let count = || said.metadata().map_or(0, |said| said.len());
    let command = format!(
        "echo $$ > {}/cgroup.procs; echo before; while [ ! -e {} ]; do echo waiting; echo >> {}; sleep 0.01; done; echo after; exit 9",
        group.0.display(),
        go.display(),
        said.display()
    );
    let first = place.keeper();
    let agent = first.connect();
    let pid = place.start(&agent, &id, &command).unwrap().pid;
    wait_until(|| !place.logged(&id).is_empty());

    first.kill();
    let before = count();
    wait_until(|| count() > before + 2);
    assert!(is_alive(pid), "it speaks while nobody listens");
    let second = place.keeper();
    let agent = second.connect();
    assert!(agent.client.list().unwrap().is_empty());
    let adopted = agent.client.adopt(&id, group.find(Some(pid)), place.output(&id)).unwrap();
    std::fs::write(go, "").unwrap();
    let exit = agent.exit_of(&id);

    assert_eq!(adopted.pid, pid);
    assert!(agent.client.list().unwrap()[0].adopted);
    assert_eq!(exit.code, told(9));
    let logged = place.logged(&id);
    assert_eq!(logged.first().map(String::as_str), Some("stdout F before"));
    assert_eq!(logged.last().map(String::as_str), Some("stdout F after"));
    agent.client.release(&id).unwrap();
    assert!(!place.output(&id).stdout.exists());
}

#[test]
#[ignore = "needs root"]
fn the_first_process_of_a_pid_namespace_is_found_by_its_cgroup_alone() {
    let (place, id, group) = (Place::new(), instance(1), Group::new("pidns"));
    let command = format!("echo $$ > {}/cgroup.procs; sleep 1000 & sleep 1000 & echo up; wait", group.0.display());
    let first = place.keeper();
    let agent = first.connect();
    // "0" is the writer itself: in here $$ is 1.
    let command = command.replace("echo $$", "echo 0");
    let pid = place.start_script(&agent, &id, &script_in(&["/bin/sh", "-c", &command], NEW_PID)).unwrap().pid;
    wait_until(|| place.logged(&id) == ["stdout F up"]);

    first.kill();
    let second = place.keeper();
    let agent = second.connect();
    let adopted = agent.client.adopt(&id, group.find(None), place.output(&id)).unwrap();
    agent.client.signal(&id, libc::SIGKILL).unwrap();
    let exit = agent.exit_of(&id);

    assert_eq!(adopted.pid, pid);
    assert_eq!((exit.code, exit.signal), (told(128 + libc::SIGKILL), told(libc::SIGKILL)));
}

#[test]
#[ignore = "needs root"]
fn a_process_outside_of_the_cgroup_is_not_adopted() {
    let (place, id, group) = (Place::new(), instance(1), Group::new("outside"));
    let keeper = place.keeper();
    let agent = keeper.connect();

    let error = agent.client.adopt(&id, group.find(Some(std::process::id())), place.output(&id)).unwrap_err();

    assert_eq!(error.fault(), Some(Fault::NotFound));
}

#[test]
#[ignore = "needs root"]
fn a_start_that_is_half_done_ends_with_its_keeper() {
    let (place, id) = (Place::new(), instance(1));
    let keeper = place.keeper();
    let (starter, watcher) = (keeper.connect(), keeper.connect());

    let (pid, result) = std::thread::scope(|scope| {
        let (place, id) = (&place, &id);
        let start = scope.spawn(move || place.start_script(&starter, id, &script_that_waits()));
        let mut pid = None;
        wait_until(|| {
            pid = watcher.client.list().unwrap().first().map(|handle| (handle.pid, handle.state));
            pid.is_some()
        });
        keeper.kill();
        (pid.unwrap(), start.join().unwrap())
    });

    assert_eq!(pid.1, HandleState::Starting);
    assert!(matches!(result, Err(KeeperError::Lost)), "{result:?}");
    wait_until(|| !is_alive(pid.0));
}
