//! The commands, as a person or a script types them.

use crate::fixture::{Host, alive, sleeper};
use std::fs;
use std::process::Command;

#[test]
#[ignore = "needs root"]
fn a_stop_is_a_recorded_word_that_a_start_takes_back() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    let before = host.pid("web");

    host.ok(["stop", "web", "--reason", "disk swap"]);
    let item = host
        .wait("web", "stopped", |item| item["status"]["phase"] == "Stopped" && item["status"]["sync"] == "overridden");
    assert!(!alive(before));
    assert_eq!(item["status"]["override"]["reason"], "disk swap");
    host.ok(["reconcile"]);
    assert_eq!(host.item("web").unwrap()["status"]["phase"], "Stopped");

    host.ok(["start", "web"]);
    assert_ne!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn a_restart_gives_a_new_process_once() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    let before = host.pid("web");

    host.ok(["restart", "web"]);

    let after = host.wait("web", "a new process", |item| {
        item["status"]["phase"] == "Running"
            && item["status"]["sync"] == "synced"
            && item["status"]["pid"].as_u64() != Some(u64::from(before))
    });
    host.ok(["reconcile"]);
    assert_eq!(host.item("web").unwrap()["status"]["pid"], after["status"]["pid"]);
}

#[test]
#[ignore = "needs root"]
fn exec_passes_input_output_and_the_exit_code_through() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    host.pid("web");

    let output = host.plim(["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);

    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    assert_eq!(host.plim(["exec", "web", "--", "/no/such"]).status.code(), Some(127));
    assert_eq!(host.plim(["exec", "web", "--", "no-such"]).status.code(), Some(127));
    assert_eq!(host.plim(["exec", "web", "--", "/etc/passwd"]).status.code(), Some(126));
    assert_eq!(host.plim(["exec", "-t", "web", "--", "/etc"]).status.code(), Some(126));
    assert_eq!(host.plim(["exec", "-w", "/etc/passwd", "web", "--", "/bin/true"]).status.code(), Some(125));
}

#[test]
#[ignore = "needs root"]
fn a_plan_shows_what_would_change_and_writes_nothing() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    let before = host.pid("web");
    assert_eq!(host.plim(["plan"]).status.code(), Some(0));
    let other = host.dir.join("proposal");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("web.yaml"), sleeper("web", "  resources: {memory: {limit: 80Mi}}\n")).unwrap();
    let trace = host.dir.join("trace");
    let mut strace = Command::new("strace");
    let tracer = strace
        .args(["-f", "-qq", "-e", "trace=%file,write,pwrite64,kill,clone,clone3,fork,vfork,execve", "-o"])
        .arg(&trace)
        .args(["-p", &host.agent_pid().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut tracer = tracer.expect("strace is installed by `make test`");
    host.until("the tracer is attached", || crate::fixture::proc_status(host.agent_pid(), "TracerPid") != "0");

    let plan = host.plim(["plan", other.to_str().unwrap()]);

    crate::fixture::signal(tracer.id(), "INT");
    tracer.wait().unwrap();
    let said = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(plan.status.code(), Some(1), "{said}");
    assert!(said.contains("live") && said.contains("64Mi") && said.contains("80Mi"), "{said}");
    assert_eq!(host.pid("web"), before);
    let calls = fs::read_to_string(&trace).unwrap();
    let changing = |line: &&str| {
        let opened_to_write =
            line.contains("open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
        let changes = ["mkdir", "unlink", "rename", "rmdir", "chmod", "chown", "mount", "execve", "kill("];
        opened_to_write || changes.iter().any(|call| line.contains(call))
    };
    let written: Vec<&str> = calls.lines().filter(changing).collect();
    assert!(written.is_empty(), "{written:#?}");
    assert!(!calls.is_empty(), "the trace is empty");
}

#[test]
#[ignore = "needs root"]
fn logs_tell_the_present_and_the_previous_run() {
    let host = Host::up();
    host.write(
        "talk.yaml",
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: talk}\nspec:\n  image: host:/\n  init: true\n  \
         command: [sh, -c, \"echo run of $$; cat /proc/sys/kernel/random/uuid; exec sleep 1000000\"]\n",
    );
    host.pid("talk");
    host.until("two lines", || host.ok(["logs", "talk"]).lines().count() == 2);
    let first = host.ok(["logs", "talk"]);

    host.ok(["restart", "talk"]);
    host.until("other lines", || {
        let now = host.ok(["logs", "talk"]);
        now.lines().count() == 2 && now != first
    });

    assert_eq!(host.ok(["logs", "talk", "--previous"]), first);
    assert_eq!(host.ok(["logs", "talk", "-n", "1"]).lines().count(), 1);
}

#[test]
#[ignore = "needs root"]
fn events_tell_the_story_of_an_object() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    host.pid("web");

    let line = host.follow(["events", "-w", "-o", "json"], |line| line.contains("\"Started\""));

    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["object"], "Container/default/web");
    assert_eq!(event["type"], "normal");
}

#[test]
#[ignore = "needs root"]
fn every_reading_command_answers_for_a_running_object() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}, cpu: {limit: 1.5}}\n"));
    host.pid("web");

    assert!(host.ok(["get"]).contains("web"));
    assert!(host.ok(["get", "containers", "-o", "wide"]).contains("default"));
    assert!(host.ok(["describe", "container", "web"]).contains("64Mi"));
    assert!(host.ok(["why", "container", "web"]).contains("web"));
    assert!(host.ok(["status"]).contains("synced"));
    assert!(host.ok(["version"]).contains(env!("CARGO_PKG_VERSION")));
    assert!(host.ok(["check"]).contains("cgroup"));
    assert!(host.ok(["get", "container", "web", "-o", "name"]).contains("web"));
    host.fails(3, ["get", "container", "nosuch"]);
    host.fails(3, ["describe", "container", "nosuch"]);
    host.fails(2, ["get", "--no-such-flag"]);
}

#[test]
#[ignore = "needs root"]
fn what_get_prints_as_yaml_is_a_manifest_again() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    let before = host.pid("web");

    let yaml = host.ok(["get", "container", "web", "-o", "yaml"]);
    host.write("web.yaml", &yaml);
    host.ok(["reconcile"]);

    let item = host.running("web");
    assert_eq!(crate::fixture::pid(&item), before);
    assert_eq!(item["status"]["sync"], "synced");
}

#[test]
fn without_an_agent_the_commands_say_what_to_type() {
    let root = tempfile::tempdir().unwrap();
    let plim = Command::new(crate::fixture::plim_bin()).arg("--root").arg(root.path()).arg("get").output().unwrap();

    assert_eq!(plim.status.code(), Some(5));
    let said = String::from_utf8_lossy(&plim.stderr);
    assert!(said.contains("plim agent") || said.contains("plim up"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_suspended_container_is_left_alone_until_it_is_resumed() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    let before = host.pid("web");

    host.ok(["suspend", "web", "--reason", "a leak"]);
    host.write("web.yaml", &sleeper("web", "  env: {A: b}\n"));
    let item = host.wait("web", "suspended", |item| {
        item["status"]["sync"] == "suspended" && item["status"]["message"].as_str().unwrap().contains("env")
    });
    assert_eq!(item["status"]["pid"], before);
    host.ok(["reconcile"]);
    assert_eq!(host.item("web").unwrap()["status"]["pid"], before);

    host.ok(["resume", "web"]);
    host.wait("web", "a new process", |item| {
        item["status"]["sync"] == "synced" && item["status"]["pid"].as_u64() != Some(u64::from(before))
    });
    assert_eq!(host.plim(["resume", "web"]).status.code(), Some(6), "it is not suspended");
}

#[test]
#[ignore = "needs root"]
fn limits_that_are_set_by_hand_hold_above_the_manifest_until_they_are_taken_back() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi, high: 48Mi}, pids: {limit: 20}}\n"));
    let before = host.pid("web");

    host.ok(["set", "resources", "web", "--memory", "96Mi", "--reason", "an import"]);
    let set = host.wait("web", "the limit that was set", |item| {
        item["status"]["sync"] == "overridden" && item["status"]["resources"]["actuated"]["memory"]["limit"] == "96Mi"
    });
    assert_eq!(set["status"]["resources"]["actuated"]["pids"]["limit"], 20, "what is not named is the manifest's");
    assert_eq!(host.plim(["set", "resources", "web", "--memory", "32Mi"]).status.code(), Some(6), "below `high`");
    assert_eq!(host.plim(["set", "resources", "web"]).status.code(), Some(2));

    host.ok(["set", "resources", "web", "--reset"]);
    host.wait("web", "the manifest's limit", |item| {
        item["status"]["sync"] == "synced" && item["status"]["resources"]["actuated"]["memory"]["limit"] == "64Mi"
    });
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn the_history_of_an_object_tells_each_change_also_when_it_is_gone() {
    let mut host = Host::up();
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 64Mi}}\n"));
    host.pid("web");
    host.write("web.yaml", &sleeper("web", "  resources: {memory: {limit: 80Mi}}\n"));
    host.wait("web", "resized", |item| item["status"]["resources"]["actuated"]["memory"]["limit"] == "80Mi");
    let told = || host.ok(["history", "web"]);
    host.until("both changes are told", || told().lines().count() == 2);

    let lines = told();
    let (first, second) = lines.split_once('\n').unwrap();
    assert!(first.contains("starting") && first.contains("created: running as process"), "{first}");
    assert!(second.contains("live") && second.contains("memory.limit 64Mi → 80Mi: written and read back"), "{second}");
    let json = host.ok(["history", "web", "--json"]);
    assert!(json.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{json}");

    host.kill_agent();
    host.start();
    host.pid("web");
    assert!(host.ok(["history", "web"]).starts_with(&lines), "a new agent knows it too");
    host.delete("web.yaml");
    host.gone("web");
    assert!(host.ok(["history", "web"]).contains("removing"));
    assert_eq!(host.plim(["history", "wbe"]).status.code(), Some(3));
}

#[test]
#[ignore = "needs root"]
fn a_shell_completes_the_names_that_the_agent_knows() {
    let host = Host::up();
    host.write("web.yaml", &sleeper("web", ""));
    host.write("worker.yaml", &sleeper("worker", ""));
    host.running("web");
    host.running("worker");

    let offered = |words: &[&str]| {
        let script = "source <(plim completion bash); COMP_WORDS=(plim \"$@\"); COMP_CWORD=$#; COMP_TYPE=9; \
             _clap_complete_plim plim \"${!#}\" \"\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let path = format!("{}:{}", host.bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let bash = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(words)
            .env("PATH", path)
            .env("PLIM_ROOT", host.root())
            .output()
            .unwrap();
        assert!(bash.status.success(), "{}", String::from_utf8_lossy(&bash.stderr));
        let said = String::from_utf8_lossy(&bash.stdout).into_owned();
        said.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(offered(&["logs", "w"]), ["web", "worker"]);
    assert_eq!(offered(&["describe", "wo"]), ["worker"]);
    assert!(offered(&["sus"]).contains(&"suspend".to_owned()));
    assert!(offered(&["get", "--out"]).contains(&"--output".to_owned()));
}
