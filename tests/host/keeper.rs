//! The keeper dies, or another build takes its place.

use crate::fixture::{Host, alive, plim_bin, signal, sleeper};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
#[ignore = "needs root"]
fn an_end_that_nobody_saw_is_unknown_and_a_failure() {
    let mut host = Host::up();
    let with = |name: &str, policy: &str| {
        host.write(&format!("{name}.yaml"), &sleeper(name, &format!("  restart: {{policy: {policy}}}\n")));
        host.pid(name)
    };
    let (again, never) = (with("again", "onFailure"), with("never", "never"));
    let keeper = host.keeper_pid();

    host.kill_agent();
    signal(keeper, "KILL");
    // A keeper that is not there cannot see it, and no other one has held it open.
    host.until("the keeper is gone", || !alive(keeper));
    for pid in [again, never] {
        signal(pid, "KILL");
        host.until("it is gone", || !alive(pid));
    }
    host.start();

    let ended = host.wait("never", "ended", |item| item["status"]["phase"] == "Exited");
    assert!(ended["status"]["exitCode"].is_null(), "{ended}");
    assert!(ended["status"]["lastExit"].is_object(), "{ended}");
    let back = host.wait("again", "back", |item| {
        item["status"]["phase"] == "Running" && item["status"]["pid"] != again && item["status"]["sync"] == "synced"
    });
    assert_eq!(back["status"]["restarts"], 1, "{back}");
}

/// Programs of its own, that the test may replace.
fn install(host: &mut Host) -> PathBuf {
    let dir = host.dir.join("bin");
    fs::create_dir(&dir).unwrap();
    let built = plim_bin();
    fs::copy(&built, dir.join("plim")).unwrap();
    let keeper = dir.join("plim-keeper");
    fs::copy(built.with_file_name("plim-keeper"), &keeper).unwrap();
    host.bin = dir.join("plim");
    keeper
}

/// Installs another build, as a package manager does.
fn replace(keeper: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(keeper).unwrap();
    change(&mut bytes);
    let new = keeper.with_extension("new");
    fs::copy(keeper, &new).unwrap();
    fs::write(&new, bytes).unwrap();
    fs::rename(new, keeper).unwrap();
}

#[test]
#[ignore = "needs root"]
fn an_agent_has_the_keeper_run_what_is_installed_and_says_so() {
    let mut host = Host::prepare();
    let keeper = install(&mut host);
    host.start();
    host.write("web.yaml", &sleeper("web", ""));
    let (web, running) = (host.pid("web"), host.keeper_pid());

    replace(&keeper, |bytes| bytes.extend_from_slice(b"another build"));
    // A command that runs meanwhile belongs to the agent that is killed, and ends with it; the container does not.
    host.kill_agent();
    host.start();
    host.until("it is told", || host.ok(["events"]).contains("KeeperUpgraded"));

    assert_eq!(host.keeper_pid(), running, "the same process");
    assert!(fs::read(format!("/proc/{running}/exe")).unwrap() == fs::read(&keeper).unwrap());
    assert_eq!(host.pid("web"), web);
    assert_eq!(host.status()["warnings"].as_array().map_or(0, Vec::len), 0, "{}", host.status());
}

#[test]
#[ignore = "needs root"]
fn a_signal_upgrades_under_a_running_agent_and_a_command_with_a_terminal_goes_on() {
    let mut host = Host::prepare();
    let keeper = install(&mut host);
    host.start();
    host.write("web.yaml", &sleeper("web", ""));
    let (web, running) = (host.pid("web"), host.keeper_pid());
    let mut command = Command::new(&host.bin);
    command.arg("--root").arg(host.root()).args([
        "exec",
        "-i",
        "web",
        "--",
        "sh",
        "-c",
        "read word; echo $word; exit 44",
    ]);
    let mut exec = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    host.until("the command runs", || {
        fs::read_to_string(format!("/proc/{web}/cgroup")).is_ok() && host.census().len() > 1
    });

    replace(&keeper, |bytes| bytes.extend_from_slice(b"another build"));
    signal(running, "HUP");
    host.until("the other build runs", || {
        fs::read(format!("/proc/{running}/exe")).unwrap() == fs::read(&keeper).unwrap()
    });
    exec.stdin.take().unwrap().write_all(b"word\n").unwrap();
    let output = exec.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(44));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "word\n");
    assert_eq!(host.pid("web"), web);
    assert!(!host.ok(["events"]).contains("KeeperLost"));
}

#[test]
#[ignore = "needs root"]
fn a_build_that_cannot_take_over_is_not_run_and_the_status_says_why() {
    let mut host = Host::prepare();
    let keeper = install(&mut host);
    host.start();
    host.write("web.yaml", &sleeper("web", ""));
    let (web, running) = (host.pid("web"), host.keeper_pid());

    replace(&keeper, |bytes| {
        let word = b"takes over state";
        let at = bytes.windows(word.len()).position(|window| window == word).expect("its words are in it");
        bytes[at..at + word.len()].copy_from_slice(b"knows not about ");
    });
    host.kill_agent();
    host.start();
    host.until("it is told", || host.ok(["status"]).contains("does not take over what this keeper has"));

    assert_eq!(host.keeper_pid(), running);
    assert!(alive(running));
    assert_eq!(host.pid("web"), web);
    assert!(host.ok(["events"]).contains("KeeperOutdated"));
}
