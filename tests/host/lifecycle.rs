//! From a file to a process, and through every kind of change.

use crate::fixture::{Host, alive, pid, signal, sleeper};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

fn limited(memory: &str) -> String {
    sleeper("web", &format!("  resources: {{memory: {{limit: {memory}}}, pids: {{limit: 64}}}}\n"))
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

#[test]
#[ignore = "needs root"]
fn a_changed_limit_is_written_to_the_kernel_and_the_process_stays() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    let before = host.pid("web");
    assert_eq!(host.control("default_web", MEMORY), (64_u64 << 20).to_string());

    host.write("web.yaml", &limited("96Mi"));
    host.until("96 MiB", || host.control("default_web", MEMORY) == (96_u64 << 20).to_string());

    let item = host.wait("web", "synced", |item| item["status"]["resources"]["actuated"]["memory"]["limit"] == "96Mi");
    assert_eq!(pid(&item), before);
    assert_eq!(item["status"]["restarts"], 0);
}

#[test]
#[ignore = "needs root"]
fn every_limit_that_this_host_has_changes_in_place() {
    let host = Host::up();
    let with = |cpu: &str, weight: u32, pids: u32| {
        let text = format!(
            "  resources: {{cpu: {{limit: {cpu}, weight: {weight}, cpuset: \"0\"}}, memory: {{limit: 64Mi, swap: 0}}, pids: {{limit: {pids}}}}}\n"
        );
        sleeper("knobs", &text)
    };
    host.write("knobs.yaml", &with("500m", 100, 32));
    let before = host.pid("knobs");

    host.write("knobs.yaml", &with("1.5", 300, 48));

    host.until("pids", || host.control("default_knobs", ["pids.max", "pids.max"]) == "48");
    let quota = host.control("default_knobs", ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota == "150000" || quota == "150000 100000", "{quota}");
    assert_eq!(host.pid("knobs"), before);
}

#[test]
#[ignore = "needs root"]
fn a_deleted_file_takes_its_container_away_with_everything_it_had() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    host.write("other.yaml", &sleeper("other", ""));
    let (web, other) = (host.pid("web"), host.pid("other"));
    assert!(!host.traces("default_web").is_empty());

    host.delete("web.yaml");
    host.wait("web", "deleting", |item| item["status"]["sync"] == "deleting");
    host.gone("web");

    assert!(!alive(web));
    assert_eq!(host.traces("default_web"), Vec::<std::path::PathBuf>::new());
    assert_eq!(host.pid("other"), other);
}

#[test]
#[ignore = "needs root"]
fn a_file_that_comes_back_within_the_grace_keeps_its_process() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    host.write("other.yaml", &sleeper("other", ""));
    let before = host.pid("web");

    host.delete("web.yaml");
    host.wait("web", "deleting", |item| item["status"]["sync"] == "deleting");
    host.write("web.yaml", &limited("64Mi"));

    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn what_is_kept_of_a_removed_container_goes_on_when_its_file_comes_back() {
    let mut host = Host::prepare();
    host.start_with(&["--keep-removed", "1h"]);
    let text = "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: job}\nspec:\n  image: host:/\n  init: true\n  \
                command: [sh, -c, \"echo word >> /var/words; sleep infinity\"]\n";
    host.write("job.yaml", text);
    let pid = host.pid("job");
    host.until("the word", || host.ok(["exec", "job", "--", "cat", "/var/words"]) == "word\n");

    host.delete("job.yaml");
    host.wait("job", "kept", |item| item["status"]["phase"] == "Stopped" && item["status"]["sync"] == "deleting");
    assert!(!alive(pid));
    host.write("job.yaml", text);
    host.pid("job");
    host.until("both words", || host.ok(["exec", "job", "--", "cat", "/var/words"]) == "word\nword\n");

    host.delete("job.yaml");
    host.wait("job", "kept", |item| item["status"]["phase"] == "Stopped" && item["status"]["sync"] == "deleting");
    host.ok(["approve", "job"]);
    host.gone("job");
    assert_eq!(host.traces("default_job"), Vec::<std::path::PathBuf>::new());
}

#[test]
#[ignore = "needs root"]
fn a_changed_command_restarts_in_the_same_root_filesystem() {
    let host = Host::up();
    let with = |word: &str| {
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: job}}\nspec:\n  image: host:/\n  init: true\n  \
             command: [sh, -c, \"echo {word} >> /var/words; sleep infinity\"]\n"
        )
    };
    host.write("job.yaml", &with("one"));
    let first = host.running("job");

    host.write("job.yaml", &with("two"));
    let second = host.wait("job", "the new process", |item| {
        item["status"]["phase"] == "Running" && item["status"]["pid"] != first["status"]["pid"]
    });

    assert_eq!(second["status"]["instance"], first["status"]["instance"]);
    host.until("both words", || host.ok(["exec", "job", "--", "cat", "/var/words"]) == "one\ntwo\n");
}

#[test]
#[ignore = "needs root"]
fn a_killed_process_comes_back() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    let before = host.pid("web");

    signal(before, "KILL");

    let item = host.wait("web", "restarted", |item| {
        item["status"]["phase"] == "Running" && item["status"]["pid"].as_u64() != Some(u64::from(before))
    });
    assert_eq!(item["status"]["restarts"], 1);
    assert_eq!(item["status"]["lastExit"]["signal"], 9);
}

#[test]
#[ignore = "needs root"]
fn a_container_that_keeps_failing_is_backed_off_and_says_so() {
    let host = Host::up();
    host.write(
        "crash.yaml",
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: crash}\nspec:\n  image: host:/\n  command: [sh, -c, \"exit 3\"]\n",
    );

    let item = host.wait("crash", "backing off", |item| {
        item["status"]["phase"] == "BackingOff" && item["status"]["restarts"].as_u64() >= Some(1)
    });

    assert_eq!(item["status"]["exitCode"], 3);
    assert!(item["status"]["nextAt"].is_string(), "{item}");
}

#[test]
#[ignore = "needs root"]
fn a_job_that_is_never_restarted_keeps_its_exit_code() {
    let host = Host::up();
    host.write(
        "once.yaml",
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: once}\nspec:\n  image: host:/\n  restart: {policy: never}\n  command: [sh, -c, \"exit 7\"]\n",
    );

    let item = host.wait("once", "ended", |item| item["status"]["phase"] == "Exited");

    assert_eq!(item["status"]["exitCode"], 7);
    assert_eq!(item["status"]["restarts"], 0);
}

#[test]
#[ignore = "needs root"]
fn a_killed_agent_leaves_everything_running_and_the_next_one_adopts_it() {
    let mut host = Host::up();
    for number in 0..5 {
        host.write(&format!("w{number}.yaml"), &sleeper(&format!("w{number}"), ""));
    }
    let before: Vec<u32> = (0..5).map(|number| host.pid(&format!("w{number}"))).collect();

    host.kill_agent();
    assert!(before.iter().all(|pid| alive(*pid)));
    host.write("w0.yaml", &sleeper("w0", "  resources: {memory: {limit: 48Mi}}\n"));
    host.delete("w4.yaml");
    host.start();

    host.gone("w4");
    let after: Vec<u32> = (0..4).map(|number| host.pid(&format!("w{number}"))).collect();
    assert_eq!(after, before[..4]);
    host.until("the limit", || host.control("default_w0", MEMORY) == (48_u64 << 20).to_string());
}

#[test]
#[ignore = "needs root"]
fn a_killed_keeper_leaves_everything_running_and_its_successor_goes_on() {
    let host = Host::up();
    host.write(
        "talk.yaml",
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {name: talk}\nspec:\n  image: host:/\n  init: true\n  \
         command: [sh, -c, \"i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done\"]\n",
    );
    let before = host.pid("talk");
    let status: serde_json::Value = serde_json::from_str(&host.ok(["status", "-o", "json"])).unwrap();
    let keeper = u32::try_from(status["keeperPid"].as_u64().unwrap()).unwrap();

    signal(keeper, "KILL");
    host.until("a new keeper", || {
        let status: serde_json::Value = serde_json::from_str(&host.ok(["status", "-o", "json"])).unwrap();
        status["keeperPid"].as_u64().is_some_and(|pid| pid != u64::from(keeper))
    });

    assert_eq!(host.pid("talk"), before);
    let last = |text: &str| text.lines().last().map(str::to_owned);
    let now = last(&host.ok(["logs", "talk", "-n", "1"]));
    host.until("more lines", || last(&host.ok(["logs", "talk", "-n", "1"])) != now);
}

#[test]
#[ignore = "needs root"]
fn ctrl_c_stops_and_removes_everything_at_once() {
    let mut host = Host::up();
    for number in 0..4 {
        // No handler for TERM and no init: PID 1 never sees the signal.
        let text = format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: deaf{number}}}\nspec:\n  image: host:/\n  \
             command: [sleep, infinity]\n  stop: {{grace: 50s}}\n"
        );
        host.write(&format!("deaf{number}.yaml"), &text);
    }
    let pids: Vec<u32> = (0..4).map(|number| host.pid(&format!("deaf{number}"))).collect();

    let (took, said) = host.interrupt();

    assert!(took < Duration::from_secs(25), "{took:?}: the grace of 50 s was waited for");
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert!(said.contains("SIGTERM"), "{said}");
    assert_eq!(host.traces("default_deaf0"), Vec::<std::path::PathBuf>::new());
    assert!(!fs::exists(host.root().join("run/keeper.sock")).unwrap(), "the keeper's socket is left");
}

#[test]
#[ignore = "needs root"]
fn ctrl_c_stops_everything_also_when_nobody_reads_its_words() {
    let mut host = Host::prepare();
    host.start_unread();
    host.write("web.yaml", &limited("64Mi"));
    let pid = host.pid("web");

    host.interrupt();

    assert!(!alive(pid));
    assert_eq!(host.traces("default_web"), Vec::<std::path::PathBuf>::new());
}

#[test]
#[ignore = "needs root"]
fn a_program_that_drops_its_handler_when_asked_to_end_has_its_grace() {
    let mut host = Host::up();
    let data = host.dir.join("data");
    fs::create_dir(&data).unwrap();
    let text = format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: polite}}\nspec:\n  image: host:/\n  \
         command: [sh, -c, 'trap \"trap - TERM; sleep 1; touch /data/done; exit\" TERM; touch /data/up; while :; do sleep 0.05; done']\n  \
         mounts: [{{host: {}, path: /data}}]\n  stop: {{grace: 30s}}\n",
        data.display()
    );
    host.write("polite.yaml", &text);
    host.until("its handler is there", || data.join("up").exists());

    let (_, said) = host.interrupt();

    assert!(data.join("done").exists() && !said.contains("ignores"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn the_small_init_passes_the_stop_signal_on() {
    let mut host = Host::up();
    let data = host.dir.join("data");
    fs::create_dir(&data).unwrap();
    let text = format!(
        "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: led}}\nspec:\n  image: host:/\n  init: true\n  \
         command: [sh, -c, 'trap \"touch /data/done; exit\" TERM; touch /data/up; while :; do sleep 0.05; done']\n  \
         mounts: [{{host: {}, path: /data}}]\n  stop: {{grace: 30s}}\n",
        data.display()
    );
    host.write("led.yaml", &text);
    host.until("its handler is there", || data.join("up").exists());

    let (_, said) = host.interrupt();

    assert!(data.join("done").exists() && !said.contains("ignores"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn lowering_memory_below_use_is_deferred_and_kills_nothing() {
    let host = Host::up();
    let with = |limit: &str| {
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: fat}}\nspec:\n  image: host:/\n  init: true\n  \
             command: [perl, -e, \"$x = 'a' x (60 << 20); print qq(filled\\\\n); $| = 1; print qq(ready\\\\n); sleep 1000000\"]\n  \
             resources: {{memory: {{limit: {limit}}}}}\n"
        )
    };
    host.write("fat.yaml", &with("256Mi"));
    let before = host.pid("fat");
    host.until("it is filled", || host.ok(["logs", "fat"]).contains("ready"));

    host.write("fat.yaml", &with("32Mi"));
    let item = host.wait("fat", "deferred", |item| item["status"]["sync"] == "deferred");
    assert_eq!(pid(&item), before);
    assert_eq!(host.control("default_fat", MEMORY), (256_u64 << 20).to_string());

    host.write("fat.yaml", &with("200Mi"));
    host.until("200 MiB", || host.control("default_fat", MEMORY) == (200_u64 << 20).to_string());
    assert_eq!(host.pid("fat"), before);
}

#[test]
#[ignore = "needs root"]
fn a_limit_changed_by_hand_is_corrected() {
    let host = Host::up();
    host.write("web.yaml", &limited("64Mi"));
    let before = host.pid("web");
    let file = host.control_file("default_web", ["pids.max", "pids.max"]);

    fs::write(file, "999").unwrap();
    host.ok(["reconcile"]);

    host.until("64", || host.control("default_web", ["pids.max", "pids.max"]) == "64");
    assert_eq!(host.pid("web"), before);
}

#[test]
#[ignore = "needs root"]
fn what_another_needs_starts_before_it_and_stops_after_it() {
    let mut host = Host::up();
    let said = |name: &str, more: &str| {
        let script = format!(
            "trap 'echo {name} stops >> /said/order; exit 0' TERM; echo {name} starts >> /said/order; \
                              while :; do sleep 0.05; done"
        );
        format!(
            "apiVersion: plimsoll/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: host:/\n  \
             command: [sh, -c, \"{script}\"]\n  mounts: [{{path: /said, host: {}}}]\n{more}",
            host.dir.join("said").display()
        )
    };
    fs::create_dir(host.dir.join("said")).unwrap();
    // The containers' root is nobody there.
    fs::set_permissions(host.dir.join("said"), fs::Permissions::from_mode(0o777)).unwrap();
    let texts = [("app", said("app", "  dependsOn: [{name: db}]\n")), ("db", said("db", ""))];
    host.write("app.yaml", &texts[0].1);
    host.wait("app", "waiting", |item| item["status"]["message"].as_str().unwrap_or_default().contains("waits for"));
    host.write("db.yaml", &texts[1].1);
    let order = || fs::read_to_string(host.dir.join("said/order")).unwrap_or_default();
    // From then on its shell hears what it is told.
    host.until("app has begun", || order().contains("app starts"));

    host.interrupt();

    let order = fs::read_to_string(host.dir.join("said/order")).unwrap();
    assert_eq!(order.lines().collect::<Vec<_>>(), ["db starts", "app starts", "app stops", "db stops"]);
}

#[test]
#[ignore = "needs root"]
fn after_a_lost_database_what_runs_is_kept_and_what_was_edited_meanwhile_is_replaced() {
    let mut host = Host::up();
    host.write("kept.yaml", &sleeper("kept", ""));
    host.write("edited.yaml", &sleeper("edited", ""));
    let (kept, edited) = (host.pid("kept"), host.pid("edited"));

    host.kill_agent();
    fs::remove_dir_all(host.root().join("lib/db")).unwrap();
    // Its command is PID 1, of which the environment can be read.
    host.write("edited.yaml", &sleeper("edited", "  env: {NEW: \"1\"}\n").replace("  init: true\n", ""));
    host.start();

    let item = host.wait("edited", "a new process", |item| item["status"]["sync"] == "synced" && pid(item) != edited);
    let environment = fs::read(format!("/proc/{}/environ", pid(&item))).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("NEW=1"));
    assert_eq!(host.pid("kept"), kept);
}

/// So many that most of them wait when the first one runs.
const MANY: usize = 300;
/// The last one of them to be written, and the last by name.
const LAST: &str = "last";

fn many(host: &Host) {
    for number in 0..MANY {
        host.write(&format!("c{number}.yaml"), &sleeper(&format!("c{number}"), "  stop: {signal: KILL}\n"));
    }
    host.write("last.yaml", &sleeper(LAST, "  stop: {signal: KILL}\n"));
    host.until("some run", || {
        host.items_if_any().is_some_and(|items| items.iter().any(|item| item["status"]["phase"] == "Running"))
    });
}

#[test]
#[ignore = "needs root"]
fn what_waits_to_start_is_not_started_any_more_when_everything_is_to_stop() {
    let mut host = Host::up();
    many(&host);

    let (_, said) = host.interrupt();

    let started = said.lines().filter(|line| line.contains(" Started ")).count();
    assert!((1..MANY).contains(&started), "{started} of {MANY} were started");
}

#[test]
#[ignore = "needs root"]
fn a_newer_revision_takes_the_place_of_one_that_waits_to_start() {
    let host = Host::up();
    many(&host);
    assert!(host.item(LAST).is_none_or(|item| item["status"]["pid"].is_null()), "it does not wait any more");

    host.write("last.yaml", &sleeper(LAST, "  stop: {signal: KILL}\n  env: {A: b}\n"));

    host.wait(LAST, "the new one runs", |item| {
        item["status"]["phase"] == "Running" && item["spec"]["env"]["A"] == "b" && item["status"]["sync"] == "synced"
    });
    let history = host.ok(["history", LAST]);
    assert_eq!(history.lines().filter(|line| line.contains("running as process")).count(), 1, "{history}");
}
