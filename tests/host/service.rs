//! The agent and the keeper as services: what they tell whoever started them, and how a host goes down.
//! `deploy/test-systemd` looks at the same under systemd itself.

use crate::fixture::{Host, PATIENCE, alive, pid, signal, sleeper};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

/// A service manager, as far as its children can tell (sd_notify(3)).
struct Manager<'a> {
    host: &'a Host,
    socket: UnixDatagram,
    children: Vec<Child>,
}

impl<'a> Manager<'a> {
    fn of(host: &'a Host) -> Self {
        let socket = UnixDatagram::bind(host.dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        fs::create_dir_all(host.root().join("run")).unwrap();
        Self { host, socket, children: Vec::new() }
    }

    fn begin(&mut self, program: &str, args: &[&str], watchdog: &str) -> u32 {
        let log = fs::File::options().create(true).append(true).open(self.host.dir.join("service.log")).unwrap();
        let child = Command::new(self.host.bin.with_file_name(program))
            .args(args)
            .env("NOTIFY_SOCKET", self.host.dir.join("notify"))
            .env("WATCHDOG_USEC", watchdog)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    fn keeper(&mut self) -> u32 {
        let run = self.host.root().join("run");
        self.begin("plim-keeper", &["--run", run.to_str().unwrap(), "--service"], "")
    }

    fn agent(&mut self, options: &[&str]) -> u32 {
        let (root, manifests) = (self.host.root(), self.host.manifests.clone());
        let common = ["--root", root.to_str().unwrap(), "agent", "--manifests", manifests.to_str().unwrap()];
        self.begin("plim", &[&common, options].concat(), "600000")
    }

    /// Takes what it is told until that is in it.
    fn hears(&self, wanted: &str) -> String {
        loop {
            let mut message = [0; 4096];
            let length = self.socket.recv(&mut message).unwrap_or_else(|error| {
                let log = fs::read_to_string(self.host.dir.join("service.log")).unwrap_or_default();
                panic!("{wanted} was not told: {error}\n{log}")
            });
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    }

    fn waits(&mut self, pid: u32) {
        let index = self.children.iter().position(|child| child.id() == pid).unwrap();
        let mut child = self.children.remove(index);
        self.host.until("the service ends", || child.try_wait().unwrap().is_some());
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Gone already is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_service_manager_is_told_when_they_are_ready_how_they_stand_and_that_they_live() {
    let host = Host::prepare();
    host.write("web.yaml", &sleeper("web", ""));
    let mut manager = Manager::of(&host);

    let keeper = manager.keeper();
    manager.hears("READY=1");
    let program = fs::read_link(format!("/proc/{keeper}/exe")).unwrap();
    let agent = manager.agent(&["--keeper-service"]);
    manager.hears("READY=1");
    manager.hears("STATUS=1 container: 1 synced");
    manager.hears("WATCHDOG=1");
    let container = host.pid("web");

    assert!(program.to_string_lossy().contains("memfd:plim-keeper"), "the keeper is what was started: {program:?}");
    assert_eq!(host.keeper_pid(), keeper);
    signal(agent, "TERM");
    manager.hears("STOPPING=1");
    manager.waits(agent);
    assert!(alive(container) && alive(keeper));
}

#[test]
#[ignore = "needs root"]
fn a_keeper_that_somebody_else_starts_is_waited_for_and_never_started() {
    let host = Host::prepare();
    host.write("web.yaml", &sleeper("web", ""));
    let mut manager = Manager::of(&host);

    manager.agent(&["--keeper-service"]);
    host.until("the failure is told", || host.plim(["events"]).stdout.windows(6).any(|word| word == b"keeper"));
    assert_eq!(host.keeper(), None);
    let keeper = manager.keeper();

    host.running("web");
    assert_eq!(host.keeper_pid(), keeper);
}

#[test]
#[ignore = "needs root"]
fn a_host_that_goes_down_stops_everything_in_order_and_runs_it_again_afterwards() {
    let mut host = Host::up();
    host.write("base.yaml", &sleeper("base", ""));
    host.write("top.yaml", &sleeper("top", "  dependsOn: [{name: base}]\n"));
    host.write("once.yaml", &sleeper("once", "  restart: {policy: never}\n  deletionPolicy: Orphan\n"));
    let before = ["base", "top", "once"].map(|name| host.pid(name));
    host.ok(["suspend", "top"]);
    host.kill_agent();

    {
        let mut manager = Manager::of(&host);
        let halting = manager.agent(&["--halt"]);
        manager.waits(halting);
        assert!(before.iter().all(|pid| !alive(*pid)));
    }

    host.start();
    host.ok(["resume", "top"]);
    let when = |name: &str| {
        let history = host.ok(["history", name]);
        let line = history.lines().rfind(|line| line.contains("the host goes down")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    for (name, before) in ["base", "top", "once"].into_iter().zip(before) {
        let item = host.running(name);
        assert_ne!(pid(&item), before);
        assert_eq!(item["status"]["restarts"], 0, "{name}: it was no failure");
    }
    assert!(when("top") < when("base"), "the one that needs goes first");
}
