//! A host that follows a git repository.

use crate::fixture::{Host, STARTS, alive, proc_status, signal, sleeper};
use crate::servers::{Acceptor, Https, Repository, Ssh};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

/// An agent with a configuration.
pub struct Agent {
    pub host: Host,
    child: Option<Child>,
}

impl Agent {
    pub fn prepare() -> Self {
        Self { host: Host::prepare(), child: None }
    }

    /// One whose only source is this.
    fn with(source: &str) -> Self {
        let mut agent = Self::prepare();
        agent.configure(source);
        agent.start();
        agent
    }

    pub fn configure(&self, sources: &str) {
        fs::create_dir_all(self.host.root()).unwrap();
        let text = format!("deletionGrace: 1s\nkeepRemoved: 0s\nsources:\n{sources}\n");
        fs::write(self.host.root().join("agent.yaml"), text).unwrap();
    }

    pub fn start(&mut self) {
        let _others_too = STARTS.read().unwrap_or_else(PoisonError::into_inner);
        let log = fs::File::options().create(true).append(true).open(self.host.dir.join("up.log")).unwrap();
        let child = Command::new(&self.host.bin)
            .arg("--root")
            .arg(self.host.root())
            .arg("agent")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        self.host.until("the agent answers", || self.host.plim(["status"]).status.success());
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn source(&self) -> Value {
        serde_json::from_str(&self.host.ok(["source", "status", "fleet", "--json"])).unwrap()
    }

    /// Asks until the source's message has this in it.
    fn says(&self, text: &str) -> Value {
        let mut found = Value::Null;
        self.host.until(&format!("the source says {text:?}"), || {
            found = self.source();
            found["message"].as_str().is_some_and(|message| message.contains(text))
        });
        found
    }

    fn commit(&self) -> String {
        self.source()["revision"]["commit"]["id"].as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), "TERM");
            child.wait().unwrap();
        }
        // The host's own agent takes away what there is.
    }
}

pub fn file_source(repository: &Repository, more: &str) -> String {
    format!("- {{name: fleet, git: {{url: 'file://{}', branch: main{more}}}}}", repository.bare().display())
}

fn limited(name: &str, memory: &str) -> String {
    sleeper(name, &format!("  resources: {{memory: {{limit: {memory}}}}}\n"))
}

fn limit(agent: &Agent, name: &str) -> String {
    agent.host.control(&format!("default_{name}"), ["memory.max", "memory.limit_in_bytes"])
}

#[test]
#[ignore = "needs root"]
fn what_is_pushed_is_written_to_the_kernel_and_nothing_restarts() {
    let agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    repository.push(&[
        ("hosts/web/web.yaml", Some(&limited("web", "64Mi"))),
        ("hosts/web/db.yaml", Some(&limited("db", "64Mi"))),
        ("hosts/other/other.yaml", Some(&limited("other", "64Mi"))),
    ]);
    agent.configure(&file_source(&repository, ", path: hosts/web"));
    let mut agent = agent;
    agent.start();
    let (web, db) = (agent.host.pid("web"), agent.host.pid("db"));
    assert!(agent.host.item("other").is_none());
    assert_eq!(limit(&agent, "web"), (64 << 20).to_string());

    let second = repository.push(&[("hosts/web/web.yaml", Some(&limited("web", "96Mi")))]);
    agent.host.ok(["reconcile", "--source", "fleet"]);
    agent.host.until("the new limit is in the kernel", || limit(&agent, "web") == (96 << 20).to_string());
    assert_eq!((agent.host.pid("web"), agent.host.pid("db")), (web, db));
    assert_eq!(agent.commit(), second);
    assert_eq!(agent.host.running("web")["status"]["source"]["file"], "web.yaml");

    // A mistake holds what runs, and has its place.
    repository.push(&[("hosts/web/web.yaml", Some(&limited("web", "much"))), ("hosts/web/db.yaml", None)]);
    agent.host.ok(["reconcile"]);
    let item = agent.host.wait("web", "invalid", |item| item["status"]["sync"] == "invalid");
    assert!(item["status"]["conditions"].to_string().contains("fleet:web.yaml:8:"), "{item}");
    agent.host.gone("db");
    assert_eq!(limit(&agent, "web"), (96 << 20).to_string());
    assert!(alive(web));

    let history = agent.host.ok(["source", "history", "fleet"]);
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(agent.host.ok(["status"]).contains("fleet"), "the source is in the summary");
}

#[test]
#[ignore = "needs root"]
fn a_server_that_is_away_changes_nothing_also_for_an_agent_that_starts_then() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let commit = repository.push(&[("a.yaml", Some(&sleeper("a", ""))), ("b.yaml", Some(&sleeper("b", "")))]);
    agent.configure(&file_source(&repository, ""));
    agent.start();
    let before = (agent.host.pid("a"), agent.host.pid("b"));

    let away = repository.bare().with_extension("away");
    fs::rename(repository.bare(), &away).unwrap();
    let said = agent.host.fails(1, ["reconcile", "--source", "fleet"]);
    assert!(said.contains("source fleet: "), "{said}");
    agent.kill();
    agent.start();
    agent.says("fleet.git");
    assert_eq!((agent.host.pid("a"), agent.host.pid("b")), before);
    assert_eq!(agent.commit(), commit);
    assert_eq!(agent.source()["complete"], true);

    fs::rename(&away, repository.bare()).unwrap();
    repository.push(&[("b.yaml", None)]);
    agent.host.ok(["reconcile", "--source", "fleet"]);
    agent.host.gone("b");
    assert!(alive(before.0));
    assert_eq!(agent.source()["message"], Value::Null);
}

#[test]
#[ignore = "needs root"]
fn a_repository_that_was_never_reached_removes_nothing_of_others() {
    let mut agent = Agent::prepare();
    let local = agent.host.dir.join("local");
    fs::create_dir(&local).unwrap();
    fs::set_permissions(&local, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(local.join("a.yaml"), sleeper("a", "")).unwrap();
    agent.configure(&format!(
        "- {{name: local, directory: {}}}\n- {{name: fleet, git: {{url: 'file:///nowhere.git'}}}}",
        local.display()
    ));
    agent.start();
    let pid = agent.host.pid("a");
    agent.says("/nowhere.git");

    fs::remove_file(local.join("a.yaml")).unwrap();
    let item = agent.host.wait("a", "unavailable", |item| item["status"]["sync"] == "unavailable");

    assert!(item["status"]["conditions"].to_string().contains("source fleet"), "{item}");
    assert!(alive(pid));
}

#[test]
#[ignore = "needs root"]
fn a_source_that_was_rolled_back_stays_where_it_is_until_it_is_unpinned() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let push = |memory: &str| repository.push(&[("web.yaml", Some(&limited("web", memory)))]);
    push("64Mi");
    agent.configure(&file_source(&repository, ""));
    agent.start();
    let pid = agent.host.pid("web");
    let is = |agent: &Agent, mebibytes: u64| {
        agent.host.until("the limit", || limit(agent, "web") == (mebibytes << 20).to_string());
    };
    push("96Mi");
    agent.host.ok(["reconcile", "--source", "fleet"]);
    is(&agent, 96);

    let differs = agent.host.fails(1, ["source", "diff", "fleet", "1"]);
    assert!(differs.contains("live") && differs.contains("64Mi") && differs.contains("96Mi"), "{differs}");
    agent.host.ok(["source", "diff", "fleet", "2", "2"]);

    let said = agent.host.ok(["source", "rollback", "fleet", "--reason", "too much"]);
    assert!(said.contains("revision 1 "), "{said}");
    is(&agent, 64);
    push("128Mi");
    agent.host.ok(["reconcile", "--source", "fleet"]);
    let shown = agent.host.ok(["source", "status", "fleet"]);
    assert!(shown.contains("pinned") && shown.contains("too much") && shown.contains("newest"), "{shown}");
    agent.kill();
    agent.start();
    agent.host.ok(["reconcile", "--source", "fleet"]);
    is(&agent, 64);

    agent.host.ok(["source", "unpin", "fleet"]);
    is(&agent, 128);
    assert_eq!(agent.host.pid("web"), pid);
    let refused = agent.host.fails(6, ["source", "unpin", "fleet"]);
    assert!(refused.contains("not pinned"), "{refused}");
    let unknown = agent.host.fails(3, ["source", "rollback", "fleet", "--to", "77"]);
    assert!(unknown.contains("revision 77"), "{unknown}");
}

#[test]
#[ignore = "needs root"]
fn a_rewritten_history_is_used_when_somebody_has_agreed() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let push = |memory: &str| repository.push(&[("web.yaml", Some(&limited("web", memory)))]);
    let first = push("64Mi");
    let second = push("96Mi");
    agent.configure(&file_source(&repository, ""));
    agent.start();
    agent.host.pid("web");
    repository.git(&["reset", "-q", "--hard", &first]);
    let rewritten = push("128Mi");

    let said = agent.host.fails(1, ["reconcile", "--source", "fleet"]);
    assert!(said.contains("rewritten") && said.contains("plim approve --source"), "{said}");
    assert_eq!(agent.commit(), second);

    agent.host.ok(["approve", "--source", "fleet"]);
    agent.host.ok(["reconcile", "--source", "fleet"]);
    assert_eq!(agent.commit(), rewritten);
    agent.host.until("the limit", || limit(&agent, "web") == (128 << 20).to_string());
}

#[test]
#[ignore = "needs root"]
fn what_a_source_has_no_right_to_does_not_start() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    repository
        .push(&[("good.yaml", Some(&sleeper("good", ""))), ("bad.yaml", Some(&sleeper("bad", "  network: host\n")))]);
    let source = file_source(&repository, "").replacen("name: fleet,", "name: fleet, allow: {privileged: false},", 1);
    agent.configure(&source);
    agent.start();

    agent.host.running("good");
    let item = agent.host.wait("bad", "invalid", |item| item["status"]["sync"] == "invalid");

    let said = item["status"]["conditions"].to_string();
    assert!(said.contains("fleet:bad.yaml:8:12") && said.contains("may not use the host's network"), "{said}");
    assert_eq!(item["status"]["pid"], Value::Null);
}

#[test]
#[ignore = "needs root"]
fn https_takes_the_right_password_and_an_authority_that_is_trusted() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let commit = repository.push(&[("web.yaml", Some(&sleeper("web", "")))]);
    let server = Https::of(&repository);
    let password = agent.host.dir.join("password");
    let write = |text: &str, mode| {
        fs::write(&password, text).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(mode)).unwrap();
    };
    let source = |more: &str| {
        format!(
            "- name: fleet\n  git:\n    url: {}\n    interval: 1s\n    login: {{username: {}, passwordFile: {}}}\n{more}",
            server.url(),
            Https::USER,
            password.display()
        )
    };
    write("wrong\n", 0o644);
    agent.configure(&source(""));
    agent.start();
    agent.says("can be read by others");
    write("wrong\n", 0o600);
    agent.says("certificate");
    agent.kill();

    agent.configure(&source(&format!("    certificatesFile: {}\n", server.authority.display())));
    agent.start();
    agent.says("401");
    // A password that is changed needs no restart.
    write(&format!("{}\n", Https::PASSWORD), 0o600);
    agent.host.running("web");
    assert_eq!(agent.commit(), commit);

    let told = [agent.host.story(), agent.host.ok(["events"]), agent.source().to_string()].concat();
    assert!(!told.contains(Https::PASSWORD));
    let left = files_with(&agent.host.root(), Https::PASSWORD);
    assert!(left.is_empty(), "{left:?}");
}

/// Files below a directory that hold a text.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let found = Command::new("grep").args(["-rlaF", text]).arg(dir).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root"]
fn ssh_talks_to_the_host_that_is_known_and_to_no_other() {
    let mut agent = Agent::prepare();
    let repository = Repository::new(&agent.host.dir);
    let commit = repository.push(&[("web.yaml", Some(&sleeper("web", "")))]);
    let server = Ssh::of(&repository);
    let known = fs::read_to_string(&server.known_hosts).unwrap();
    // The key of another host.
    let client = fs::read_to_string(server.key.with_extension("pub")).unwrap();
    let host = known.split(' ').next().unwrap();
    fs::write(&server.known_hosts, format!("{host} {client}")).unwrap();
    agent.configure(&format!(
        "- name: fleet\n  git:\n    url: {}\n    interval: 1s\n    ssh: {{keyFile: {}, knownHostsFile: {}}}\n",
        server.url(&repository),
        server.key.display(),
        server.known_hosts.display()
    ));
    agent.start();
    agent.says("ssh: Host key verification failed");
    assert!(agent.host.item("web").is_none());

    fs::write(&server.known_hosts, known).unwrap();
    agent.host.running("web");
    assert_eq!(agent.commit(), commit);
}

#[test]
#[ignore = "needs root"]
fn who_talks_to_servers_is_nobody_and_is_ended_when_it_takes_too_long() {
    let server = Acceptor::silent();
    let agent = Agent::with(&format!(
        "- {{name: fleet, git: {{url: 'http://127.0.0.1:{}/fleet.git', timeout: 3s, interval: 1s}}}}",
        server.port
    ));
    let mut seen = None;
    agent.host.until("the process that fetches", || {
        seen = fetchers(&agent.host.root()).into_iter().find(|pid| proc_field(*pid, "NoNewPrivs") == Some("1".into()));
        seen.is_some()
    });
    let pid = seen.unwrap();
    for (key, wanted) in [("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000"), ("Groups", "")] {
        assert_eq!(proc_status(pid, key), wanted, "{key}");
    }
    assert!(!proc_status(pid, "Uid").split('\t').any(|uid| uid == "0"));
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!environment.contains("PLIM_"), "{environment}");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open: Vec<_> = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    let lent = |path: &std::path::PathBuf| {
        let own = path.starts_with(agent.host.root().join("lib/sources"));
        path.starts_with("/sys") || path.starts_with("/proc") || path.starts_with(agent.host.root()) && !own
    };
    assert!(!open.iter().any(lent), "{open:?}");
    assert!(!open.iter().any(|path| path.to_string_lossy().contains("inotify")), "{open:?}");

    agent.says("longer than 3s");
    assert!(!alive(pid));
}

fn proc_field(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(|text| text.trim().to_owned())
}

/// The processes that fetch for this root: they work below it.
fn fetchers(root: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let fetches = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(root))
            && fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("fetch-for-agent"))
    };
    pids.filter(fetches).collect()
}

#[test]
#[ignore = "needs root"]
fn an_agent_that_dies_takes_who_talks_to_servers_along() {
    let server = Acceptor::silent();
    let mut agent =
        Agent::with(&format!("- {{name: fleet, git: {{url: 'http://127.0.0.1:{}/fleet.git'}}}}", server.port));
    agent.host.until("the process that fetches", || !fetchers(&agent.host.root()).is_empty());

    agent.kill();

    agent.host.until("it is gone", || fetchers(&agent.host.root()).is_empty());
}

#[test]
#[ignore = "needs root"]
fn a_server_that_talks_nonsense_is_quoted_and_believed_nothing() {
    for (answer, said) in [
        (&b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"[..], "500"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello", "http://127.0.0.1:"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "http://127.0.0.1:"),
        (b"", "http://127.0.0.1:"),
    ] {
        let server = Acceptor::saying(answer);
        let agent =
            Agent::with(&format!("- {{name: fleet, git: {{url: 'http://127.0.0.1:{}/fleet.git'}}}}", server.port));

        let source = agent.says(said);

        assert_eq!(source["complete"], false);
    }
}
