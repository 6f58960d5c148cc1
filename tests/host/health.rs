//! Probes of containers that run, and what follows from them.

use crate::fixture::{Host, pid, sleeper};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// A directory of the host that is `/share` in a container, writable for its root.
fn share(host: &Host) -> PathBuf {
    let dir = host.dir.join("share");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

fn with_share(name: &str, host: &Host, more: &str) -> String {
    let mounts = format!("  mounts: [{{path: /share, host: {}}}]\n{more}", host.dir.join("share").display());
    sleeper(name, &mounts)
}

fn ready(item: &Value) -> (&str, &str) {
    let conditions = item["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    (ready["status"].as_str().unwrap(), ready["message"].as_str().unwrap_or_default())
}

fn is_ready(item: &Value) -> bool {
    ready(item).0 == "True"
}

#[test]
#[ignore = "needs root"]
fn a_process_that_fails_its_liveness_is_restarted_and_the_events_say_why() {
    let host = Host::up();
    let share = share(&host);
    fs::write(share.join("alive"), "").unwrap();
    let liveness = "  health: {liveness: {exec: [test, -e, /share/alive], every: 200ms, failures: 2, timeout: 60s}}\n";
    host.write("web.yaml", &with_share("web", &host, liveness));
    let before = host.wait("web", "passing", is_ready);

    fs::remove_file(share.join("alive")).unwrap();
    host.wait("web", "given up", |item| item["status"]["restarts"].as_u64() >= Some(1));
    fs::write(share.join("alive"), "").unwrap();

    let after = host.wait("web", "passing again", is_ready);
    assert_ne!(pid(&after), pid(&before));
    let events = host.ok(["events", "--for", "Container/default/web"]);
    assert!(events.contains("liveness failed 2 times in a row: exited with 1"), "{events}");
}

#[test]
#[ignore = "needs root"]
fn a_probe_that_hangs_is_ended_with_its_children_and_holds_up_nobody() {
    let host = Host::up();
    let hangs =
        "  health: {readiness: {exec: [sh, -c, 'sleep 1000; true'], every: 100ms, timeout: 300ms, failures: 1}}\n";
    host.write("hangs.yaml", &sleeper("hangs", hangs));
    let quick = "  health: {readiness: {exec: ['true'], every: 100ms, timeout: 60s}}\n";
    host.write("quick.yaml", &sleeper("quick", quick));

    host.wait("quick", "ready", is_ready);
    host.wait("hangs", "late", |item| ready(item).1 == "readiness failed: no answer within 0.3 s");

    // Its own two processes, and those of the probes that are on their way or ending.
    let processes = || {
        let all = host.cgroups("default_hangs").into_iter().map(|dir| dir.join("cgroup.procs"));
        all.map(|file| fs::read_to_string(file).unwrap_or_default().lines().count()).max().unwrap_or_default()
    };
    for _ in 0..5 {
        host.until("the next probe", || processes() >= 4);
        host.until("it was ended", || processes() <= 3);
    }
    let item = host.item("hangs").unwrap();
    assert_eq!(item["status"]["restarts"], 0, "not ready is no reason to restart");
}

#[test]
#[ignore = "needs root"]
fn a_server_in_a_network_of_its_own_is_asked_there() {
    let host = Host::up();
    let share = share(&host);
    let server = "use IO::Socket::INET; $SIG{TERM} = sub { exit }; my $l = IO::Socket::INET->new(LocalAddr => q(127.0.0.1), \
                  LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; while (1) { my $c = $l->accept or next; \
                  $_ = <$c>; print $c -e q(/share/ok) ? qq(HTTP/1.1 204 Fine\\r\\n\\r\\n) : qq(HTTP/1.1 503 Not yet\\r\\n\\r\\n); }";
    let text = |name: &str, health: &str| {
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: host:/\n  \
             command:\n  - perl\n  - -e\n  - '{server}'\n  \
             mounts: [{{path: /share, host: {}}}]\n  health: {{readiness: {health}}}\n",
            share.display()
        )
    };
    host.write("web.yaml", &text("web", "{http: {port: 80, path: /healthz}, every: 100ms, timeout: 60s, failures: 1}"));
    host.write("port.yaml", &text("port", "{tcp: {port: 80}, every: 100ms, timeout: 60s}"));
    host.write("deaf.yaml", &text("deaf", "{tcp: {port: 81}, every: 100ms, timeout: 60s}"));

    host.wait("port", "takes connections", is_ready);
    host.wait("deaf", "refused", |item| ready(item).1.contains("connecting to port 81"));
    host.wait("web", "refuses", |item| ready(item).1 == "readiness failed: /healthz was answered with 503");
    let table = host.ok(["get", "containers"]);
    let line = table.lines().find(|line| line.contains("web")).unwrap();
    assert!(!line.contains('✔'), "{table}");

    fs::write(share.join("ok"), "").unwrap();
    let before = host.wait("web", "ready", is_ready);
    let table = host.ok(["get", "containers"]);
    assert!(table.lines().any(|line| line.contains("web") && line.contains('✔')), "{table}");

    fs::remove_file(share.join("ok")).unwrap();
    let after = host.wait("web", "not ready", |item| !is_ready(item));
    assert_eq!(pid(&after), pid(&before), "it is the readiness alone");
}

#[test]
#[ignore = "needs root"]
fn the_startup_holds_the_other_probes_off_and_who_waits_for_it() {
    let host = Host::up();
    let share = share(&host);
    let health = "  health:\n    startup: {exec: [test, -e, /share/started], every: 100ms, timeout: 60s, within: 10m}\n    \
                  liveness: {exec: [sh, -c, 'echo asked >> /share/asked'], every: 100ms, timeout: 60s}\n";
    host.write("db.yaml", &with_share("db", &host, health));
    host.write("app.yaml", &sleeper("app", "  dependsOn: [{name: db, condition: healthy}]\n"));
    let before =
        host.wait("db", "starting", |item| ready(item).1.contains("startup has not passed yet: exited with 1"));
    let waits = |item: &Value| item["status"]["message"].as_str().unwrap_or_default().contains("to be healthy");
    host.wait("app", "waiting", waits);
    assert!(!share.join("asked").exists());

    fs::write(share.join("started"), "").unwrap();

    host.until("liveness is asked", || share.join("asked").exists());
    host.pid("app");
    let after = host.wait("db", "ready", is_ready);
    assert_eq!(pid(&after), pid(&before));
}

#[test]
#[ignore = "needs root"]
fn probes_change_without_a_restart_and_go_on_after_a_killed_agent() {
    let mut host = Host::up();
    let probe = |command: &str| {
        sleeper(
            "web",
            &format!("  health: {{readiness: {{exec: [{command}], every: 100ms, timeout: 60s, failures: 1}}}}\n"),
        )
    };
    host.write("web.yaml", &probe("'true'"));
    let before = host.wait("web", "ready", is_ready);

    host.write("web.yaml", &probe("'false'"));
    host.wait("web", "not ready", |item| ready(item).1.contains("exited with 1"));
    host.kill_agent();
    host.write("web.yaml", &probe("'true'"));
    host.start();

    let after = host.wait("web", "ready again", is_ready);
    assert_eq!(pid(&after), pid(&before));
    assert_eq!(after["status"]["restarts"], 0);
}
