//! The command line as other tools use it.

use crate::fixture::Bundle;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

fn with_terminal(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.config["process"]["terminal"] = json!(true);
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    bundle
}

#[test]
#[ignore = "needs root"]
fn a_terminal_in_the_foreground_is_joined_to_ours() {
    let bundle =
        with_terminal("test -t 0 && test -t 1 && test -t 2 && read word && echo got $word; read more || echo end");
    let mut run = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);

    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Dropped when written: that the input has ended is told, too.
    run.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut out = String::new();
    run.stdout.take().unwrap().read_to_string(&mut out).unwrap();

    assert_eq!((out.as_str(), run.wait().unwrap().code()), ("hello\ngot hello\nend\n", Some(0)));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_terminal_that_nobody_would_hold_is_refused() {
    let bundle = with_terminal("true");

    let answer = bundle.call(&["run", "--detach", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);

    assert!(answer.err.contains("process.terminal: takes --console-socket"), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn signal_zero_asks_whether_there_is_a_process() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();

    assert_eq!(bundle.call(&["kill", &bundle.id(), "0"]).code, Some(0));
    assert_eq!(bundle.call(&["kill", &bundle.id(), "KILL"]).code, Some(0));
    bundle.wait("its end", || bundle.status() == "stopped");
    let late = bundle.call(&["kill", &bundle.id(), "0"]);
    assert!(late.code == Some(1) && late.err.contains("container not running"), "{late:?}");
    let all = bundle.call(&["kill", "--all", &bundle.id(), "0"]);
    assert_eq!(all.code, Some(0), "{all:?}");
}

#[test]
#[ignore = "needs root"]
fn killing_a_container_in_the_hosts_pid_namespace_ends_all_of_its_processes() {
    let mut bundle = Bundle::new("sleep 1000 & echo $!; sleep 1000 & echo $!; exec sleep 1000");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|entry| entry["type"] != "pid");
    bundle.create();
    bundle.on(&["start"]);
    let pids = || -> Vec<u32> { serde_json::from_str(&bundle.on(&["ps", "--format", "json"]).out).unwrap() };
    bundle.wait("three processes", || pids().len() == 3);

    let answer = bundle.call(&["kill", &bundle.id(), "KILL"]);

    assert_eq!(answer.code, Some(0), "{answer:?}");
    bundle.wait("the end of all", || pids().is_empty());
    assert_eq!(bundle.status(), "stopped");
    assert_eq!(bundle.on(&["delete"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_failed_exec_is_told_from_what_its_program_returns() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();

    for (words, code) in [(vec!["sh", "-c", "exit 42"], 42), (vec!["no-such-program"], 255)] {
        let answer = bundle.call(&[vec!["exec", bundle.id().as_str()], words.clone()].concat());
        assert_eq!(answer.code, Some(code), "{words:?} {answer:?}");
    }
    assert_eq!(bundle.call(&["exec", "nobody", "true"]).code, Some(255));
}

#[test]
#[ignore = "needs root"]
fn the_log_has_errors_and_what_was_done() {
    let mut bundle = Bundle::new("true");
    let log = bundle.path("log");
    let log = log.to_str().unwrap();
    let options = ["--log", log, "--log-format", "json", "--debug"];
    let (dir, id) = (bundle.path(""), bundle.id());
    let run = ["run", "--bundle", dir.to_str().unwrap(), &id];
    bundle.config["process"]["args"] = json!(["no-such-program"]);
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();

    let answer = bundle.call(&[options.as_slice(), run.as_slice()].concat());

    let lines: Vec<Value> =
        fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().unwrap().contains("executable file not found in $PATH"), "{last}");
    let debug = |words: &str| lines.iter().any(|l| l["level"] == "debug" && l["msg"].as_str().unwrap().contains(words));
    assert!(debug("executing no-such-program") && debug("cloning"), "{lines:?}");
    assert!(!answer.err.contains("debug"), "{answer:?}");
}

#[test]
fn the_version_is_told_under_the_name_that_was_called() {
    let dir = tempfile::TempDir::new().unwrap();
    symlink(crate::fixture::runtime(), dir.path().join("runc")).unwrap();

    let output = Command::new(dir.path().join("runc")).arg("--version").output().unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    let begins: Vec<&str> = text.lines().map(|line| line.split_inclusive(' ').next().unwrap()).collect();
    assert!(text.starts_with(&format!("runc version {}\n", env!("CARGO_PKG_VERSION"))), "{text}");
    assert_eq!(begins, ["runc ", "commit: ", "spec: ", "+SYSTEMD "]);
}

#[test]
#[ignore = "needs root"]
fn descriptors_are_kept_where_they_are_open_and_others_do_not_slip_in() {
    let bundle = Bundle::new("cat <&5; for fd in 3 4 6 7 8 9; do test -e /proc/self/fd/$fd && echo $fd; done; true");
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    fs::write(bundle.path("kept"), "kept\n").unwrap();
    let (dir, id) = (bundle.path(""), bundle.id());
    let run = bundle.command(&["run", "--preserve-fds", "9", "--bundle", dir.to_str().unwrap(), &id]);
    let mut shell = Command::new("sh");
    // A shell to place the descriptor: 5, between ones that are closed.
    shell.args(["-c", "file=$0; exec \"$@\" 3<&- 4<&- 5<\"$file\" 6<&- 7<&- 8<&- 9<&-"]).arg(bundle.path("kept"));

    let output = shell.arg(run.get_program()).args(run.get_args()).stdin(Stdio::null()).output().unwrap();

    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n", "{output:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn home_is_what_the_containers_own_passwd_says() {
    let mut bundle = Bundle::new("echo $HOME; exec sleep 1000");
    fs::write(bundle.path("rootfs/etc/passwd"), "root:x:0:0::/top:/bin/sh\nweb:x:7:7::/srv:/bin/sh\n").unwrap();
    bundle.config["process"]["user"]["uid"] = json!(7);
    bundle.create();
    bundle.on(&["start"]);

    bundle.wait("its output", || fs::read_to_string(bundle.path("out")).unwrap() == "/srv\n");
    let home = |user: &str| bundle.call(&["exec", "--user", user, &bundle.id(), "sh", "-c", "echo $HOME"]).out;
    assert_eq!([home("0"), home("7"), home("9")], ["/top", "/srv", "/"]);
}

#[test]
#[ignore = "needs root"]
fn of_several_variables_with_one_name_the_last_counts() {
    let mut bundle = Bundle::new("env | grep -E '^(A|HOME)='");
    bundle.config["process"]["env"] = json!(["PATH=/usr/bin", "A=1", "HOME=", "A=2"]);

    assert_eq!(bundle.run().out, "HOME=/root\nA=2");
}

#[test]
#[ignore = "needs root"]
fn a_list_has_what_there_is_and_hides_nothing_for_one_that_is_damaged() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();
    fs::create_dir_all(bundle.path("state/broken")).unwrap();
    fs::write(bundle.path("state/broken/state.json"), "{").unwrap();

    let answer = bundle.call(&["list", "--format", "json"]);

    let rows: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1, "{answer:?}");
    assert_eq!(
        (&rows[0]["id"], &rows[0]["status"], &rows[0]["owner"]),
        (&json!(bundle.id()), &json!("created"), &json!("root"))
    );
    assert!(answer.code == Some(0) && answer.err.contains("broken: "), "{answer:?}");
    assert!(bundle.call(&["list"]).out.lines().next().unwrap().starts_with("ID "));
    assert_eq!(bundle.call(&["list", "--quiet"]).out, format!("broken\n{}", bundle.id()));
}

#[test]
#[ignore = "needs root"]
fn capabilities_that_cannot_be_given_are_told_and_left_out() {
    let mut bundle = Bundle::new("grep -E '^Cap(Bnd|Amb)' /proc/self/status");
    let capabilities = json!({"bounding": ["CAP_KILL", "CAP_FLY"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
    bundle.config["process"]["capabilities"] = capabilities;

    let answer = bundle.run();

    assert_eq!(answer.out, "CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000", "{answer:?}");
    assert!(answer.err.contains("process.capabilities.bounding[1]: \"CAP_FLY\" is not a capability"), "{answer:?}");
    assert!(answer.err.contains("CAP_KILL: it is not both permitted and inheritable"), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn a_container_that_is_kept_is_there_after_its_end() {
    let bundle = Bundle::new("exit 3");

    let answer = bundle.run_with(&["--keep"]);

    assert_eq!((answer.code, bundle.status()), (Some(3), "stopped".to_owned()), "{answer:?}");
    let groups = crate::fixture::cgroup_directories().into_iter().map(|mount| mount.join("plim-oci").join(bundle.id()));
    assert!(groups.filter(|path| path.exists()).count() > 0);
    let again = bundle.run();
    assert!(again.code == Some(1) && again.err.contains("exists"), "{again:?}");
    assert_eq!(bundle.on(&["delete"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn another_configuration_than_the_bundles_is_read_from_where_the_caller_is() {
    let mut bundle = Bundle::new("echo other");
    fs::create_dir(bundle.path("away")).unwrap();
    fs::write(bundle.path("away/other.json"), bundle.config.to_string()).unwrap();
    bundle.config["process"]["args"] = json!(["/bin/echo", "usual"]);
    bundle.write();
    for (option, from) in [("--config", "away"), ("-f", "away"), ("--config", "")] {
        let file = if from.is_empty() { "away/other.json" } else { "other.json" };
        let mut command =
            bundle.command(&["run", option, file, "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);

        let answer: crate::fixture::Answer = command.current_dir(bundle.path(from)).output().unwrap().into();

        assert_eq!((answer.code, answer.out.as_str()), (Some(0), "other"), "{answer:?}");
    }
    assert_eq!(bundle.run().out, "usual");
}

#[test]
#[ignore = "needs root"]
fn who_listens_for_it_gets_a_pidfd_of_the_process() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    let path = bundle.path("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // What is sent is there when the command has ended, or never will be.
    listener.set_nonblocking(true).unwrap();
    let received = || {
        let (socket, _) = listener.accept().unwrap();
        let (mut text, mut space) = ([0; 8], [std::mem::MaybeUninit::<u8>::uninit(); 64]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [rustix::io::IoSliceMut::new(&mut text)];
        rustix::net::recvmsg(&socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let fd = std::os::fd::AsRawFd::as_raw_fd(fd.as_ref().unwrap());
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_owned();
        pid.parse::<i32>().unwrap()
    };
    let (dir, socket, id) = (bundle.path(""), path.to_str().unwrap(), bundle.id());
    let call = |words: &[&str]| {
        let mut command = bundle.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };

    assert!(call(&["create", "--pidfd-socket", socket, "--bundle", dir.to_str().unwrap(), &id]));

    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    assert_eq!(json!(received()), state["pid"]);
    bundle.on(&["start"]);
    let pid_file = bundle.path("pid");
    let pid = pid_file.to_str().unwrap();
    assert!(call(&["exec", "-d", "--pidfd-socket", socket, "--pid-file", pid, &id, "/bin/sleep", "1000"]));
    assert_eq!(received().to_string(), fs::read_to_string(pid_file).unwrap());
}

#[test]
fn what_is_supported_is_told_as_json() {
    let output = Command::new(crate::fixture::runtime()).arg("features").output().unwrap();

    let features: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    for pointer in ["/linux/mountExtensions/idmap/enabled", "/linux/netDevices/enabled", "/linux/seccomp/enabled"] {
        assert_eq!(features.pointer(pointer), Some(&json!(true)), "{pointer}");
    }
}
