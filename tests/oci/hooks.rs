//! Hooks of all six kinds: when they run, where, with what, and what their failures do.

use crate::fixture::Bundle;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that is a shell with this script.
fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
}

/// Where hooks of the host write, which those of the container see as `/tmp/log`.
fn with_log(bundle: &mut Bundle) -> PathBuf {
    let log = bundle.path("rootfs/tmp/log");
    fs::write(&log, "").unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    log
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The hook's own child holds a lock on the file as long as it is there.
fn until_its_child_has_ended(bundle: &Bundle, log: &Path) {
    let file = fs::File::open(log).unwrap();
    bundle.wait("the child's end", || {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    });
}

#[test]
#[ignore = "needs root"]
fn each_kind_runs_at_its_time_in_its_namespaces_and_reads_the_state() {
    let mut bundle = Bundle::new("echo program >> /tmp/log; exec sleep 1000");
    let log = with_log(&mut bundle);
    bundle.config["annotations"] = json!({"a.b": "c"});
    for kind in KINDS {
        let file = if kind == "startContainer" { "/tmp/log".to_owned() } else { log.display().to_string() };
        // The state is the last thing that is known to the hook itself.
        let script = format!("echo {kind} $(readlink /proc/self/ns/mnt) $(cat) >> {file}");
        bundle.config["hooks"][kind] = json!([hook(&script)]);
    }

    let created = bundle.create();
    assert_eq!(created.code, Some(0), "{created:?}");
    let at_create: Vec<String> = lines(&log);
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let inside = fs::read_link(format!("/proc/{}/ns/mnt", state["pid"])).unwrap();
    let started = bundle.on(&["start"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    bundle.wait("the program", || lines(&log).iter().any(|line| line == "program"));
    bundle.call(&["kill", &bundle.id(), "KILL"]);
    bundle.wait("its end", || bundle.status() == "stopped");
    assert_eq!(bundle.on(&["delete"]).code, Some(0));

    let all = lines(&log);
    let word = |line: &String| line.split(' ').next().unwrap().to_owned();
    assert_eq!(at_create.iter().map(word).collect::<Vec<_>>(), KINDS[..3]);
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let expected = [
        ("created", &own),
        ("creating", &own),
        ("creating", &inside),
        ("created", &inside),
        ("running", &own),
        ("stopped", &own),
    ];
    let hooks: Vec<&String> = all.iter().filter(|line| *line != "program").collect();
    assert_eq!(hooks.len(), KINDS.len(), "{all:?}");
    for ((line, kind), (status, namespace)) in hooks.iter().zip(KINDS).zip(expected) {
        let mut words = line.splitn(3, ' ');
        assert_eq!((words.next(), words.next()), (Some(kind), namespace.to_str()), "{line}");
        let told: Value = serde_json::from_str(words.next().unwrap()).unwrap();
        assert_eq!((&told["status"], &told["id"]), (&json!(status), &json!(bundle.id())), "{line}");
        assert_eq!((&told["bundle"], &told["annotations"]), (&state["bundle"], &json!({"a.b": "c"})), "{line}");
        assert_eq!(told["ociVersion"], state["ociVersion"]);
        assert_eq!(told["pid"], if status == "stopped" { json!(0) } else { state["pid"].clone() }, "{line}");
    }
    // The program is there when poststart runs, and was not when startContainer did.
    assert!(all.iter().position(|line| line == "program") > Some(3), "{all:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_hook_has_its_words_and_variables_and_nothing_else() {
    let mut bundle = Bundle::new("true");
    let log = with_log(&mut bundle);
    let script = "cat > /dev/null; { echo $0 $1; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=; ls /proc/self/fd; } >> ";
    for (kind, file) in [
        ("createRuntime", log.to_str().unwrap()),
        ("createContainer", log.to_str().unwrap()),
        ("startContainer", "/tmp/log"),
    ] {
        bundle.config["hooks"][kind] = json!([{
            "path": "/bin/sh", "args": ["sh", "-c", format!("{script} {file}"), "named", kind], "env": [format!("A={kind}")], "timeout": 30,
        }]);
    }

    let answer = bundle.run();

    assert_eq!(answer.code, Some(0), "{answer:?}");
    let kinds = ["createRuntime", "createContainer", "startContainer"];
    // The fourth descriptor is the listing's own.
    let expected = kinds.map(|kind| format!("named {kind}\nA={kind}\n0\n1\n2\n3\n")).concat();
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
}

#[test]
#[ignore = "needs root"]
fn without_variables_of_its_own_a_hook_has_those_around_it() {
    let mut bundle = Bundle::new("true");
    let log = with_log(&mut bundle);
    bundle.config["process"]["env"] = json!(["PATH=/usr/bin", "WHERE=inside"]);
    bundle.config["hooks"]["createContainer"] = json!([hook(&format!("echo $WHERE >> {}", log.display()))]);
    bundle.config["hooks"]["startContainer"] = json!([hook("echo $WHERE >> /tmp/log")]);
    bundle.write();

    let id = bundle.id();
    let mut command = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &id]);
    let answer: crate::fixture::Answer = command.env("WHERE", "outside").output().unwrap().into();

    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(lines(&log), ["outside", "inside"]);
}

#[test]
#[ignore = "needs root"]
fn argv_is_given_as_it_is() {
    let mut bundle = Bundle::new("true");
    let log = with_log(&mut bundle);
    let script = bundle.path("hook");
    fs::copy("/bin/sh", &script).unwrap();
    let text = format!("tr '\\0' ' ' < /proc/$$/cmdline >> {}", log.display());
    bundle.config["hooks"]["createRuntime"] = json!([{"path": script, "args": ["other-name", "-c", text]}]);

    let answer = bundle.run();

    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(fs::read_to_string(&log).unwrap().starts_with("other-name -c tr"), "{:?}", lines(&log));
}

#[test]
#[ignore = "needs root"]
fn a_hook_that_fails_before_the_program_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("true");
        let log = with_log(&mut bundle);
        bundle.config["hooks"][kind] =
            json!([hook("true"), hook("exit 3"), hook(&format!("echo late >> {}", log.display()))]);
        bundle.config["hooks"]["poststop"] = json!([hook(&format!("echo poststop >> {}", log.display()))]);

        for answer in [bundle.create(), bundle.run()] {
            assert_eq!(answer.code, Some(1), "{kind}: {answer:?}");
            let expected = format!("error running hook #1 of {kind}: /bin/sh: exited with 3");
            assert!(answer.err.contains(&expected), "{kind}: {answer:?}");
            assert!(bundle.is_gone(), "{kind}");
        }
        assert_eq!(lines(&log), ["poststop", "poststop"], "{kind}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_hook_that_fails_at_the_start_ends_the_container() {
    for (kind, program) in [("startContainer", 0), ("poststart", 1)] {
        let mut bundle = Bundle::new("echo program >> /tmp/log; exec sleep 1000");
        let log = with_log(&mut bundle);
        // poststart fails when the program has shown that it is there.
        let until = format!("until grep -q program {} /dev/null; do :; done; kill -TERM $$", log.display());
        let script = if kind == "poststart" { until.as_str() } else { "kill -TERM $$" };
        bundle.config["hooks"][kind] = json!([hook(script)]);
        let expected = format!("error running hook #0 of {kind}: /bin/sh: killed by signal 15");

        assert_eq!(bundle.create().code, Some(0));
        let answer = bundle.on(&["start"]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.err.contains(&expected), "{answer:?}");
        bundle.wait("its end", || bundle.status() == "stopped");
        assert_eq!(bundle.on(&["delete"]).code, Some(0));
        assert!(bundle.is_gone());

        let answer = bundle.run();
        assert!(answer.err.contains(&expected) && answer.code == Some(1), "{answer:?}");
        assert!(bundle.is_gone());
        assert_eq!(lines(&log).len(), program * 2, "{kind}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_poststop_hook_that_fails_is_told_and_stops_nothing() {
    let mut bundle = Bundle::new("true");
    let log = with_log(&mut bundle);
    bundle.config["hooks"]["poststop"] = json!([hook("exit 9"), hook(&format!("echo second >> {}", log.display()))]);

    let answer = bundle.run();

    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.err.contains("error running hook #0 of poststop: /bin/sh: exited with 9"), "{answer:?}");
    assert_eq!(lines(&log), ["second"]);
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_hook_that_hangs_is_killed_at_its_timeout_with_its_children() {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let mut bundle = Bundle::new("true");
        let log = with_log(&mut bundle);
        let file = if kind == "startContainer" { "/tmp/log".to_owned() } else { log.display().to_string() };
        // The child holds a lock on the log for as long as it lives.
        let script = format!("flock {file} sleep 1000 & sleep 1000");
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}]);

        let answer = bundle.run();

        assert_eq!(answer.code, Some(1), "{kind}: {answer:?}");
        assert!(
            answer.err.contains(&format!("error running hook #0 of {kind}: /bin/sh: killed as it ran longer than 1 s")),
            "{kind}: {answer:?}"
        );
        until_its_child_has_ended(&bundle, &log);
        assert!(bundle.is_gone(), "{kind}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_hook_of_the_host_changes_the_root_and_the_network_before_the_program() {
    let mut bundle = Bundle::new("cat /etc/given /etc/made; cat /proc/sys/net/ipv4/ip_forward");
    with_log(&mut bundle);
    for name in ["given", "made"] {
        fs::write(bundle.path("rootfs/etc").join(name), "").unwrap();
    }
    fs::write(bundle.path("text"), "from outside\n").unwrap();
    let root = bundle.path("rootfs").canonicalize().unwrap();
    let text = bundle.path("text");
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -n -t $pid sh -c 'mount --bind {} {}/etc/given; echo 1 > /proc/sys/net/ipv4/ip_forward'",
        text.display(),
        root.display(),
    );
    bundle.config["hooks"]["createRuntime"] = json!([hook(&script)]);
    // In its own namespaces, in the root's directory, with the host's paths.
    bundle.config["hooks"]["createContainer"] = json!([hook(&format!("mount --bind {} ./etc/made", text.display()))]);

    let answer = bundle.run();

    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "from outside\nfrom outside\n1"), "{answer:?}");
    assert_eq!(fs::read_to_string(bundle.path("rootfs/etc/given")).unwrap(), "");
}

#[test]
#[ignore = "needs root"]
fn hooks_run_with_a_user_namespace() {
    let mut bundle = Bundle::new("true");
    let log = with_log(&mut bundle);
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let extents = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    linux["uidMappings"] = extents.clone();
    linux["gidMappings"] = extents;
    let root = bundle.path("rootfs");
    for path in [root.clone(), root.join("tmp"), log.clone()] {
        std::os::unix::fs::chown(path, Some(700_000), Some(700_000)).unwrap();
    }
    std::process::Command::new("chmod").arg("755").arg(bundle.path("")).status().unwrap();
    for (kind, file) in [
        ("createRuntime", log.to_str().unwrap()),
        ("createContainer", log.to_str().unwrap()),
        ("startContainer", "/tmp/log"),
    ] {
        bundle.config["hooks"][kind] =
            json!([hook(&format!("echo {kind} $(id -u) $(head -c 100 /proc/self/uid_map) >> {file}"))]);
    }

    let answer = bundle.run();

    assert_eq!(answer.code, Some(0), "{answer:?}");
    let own = fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = [
        format!("createRuntime 0 {own}"),
        "createContainer 0 0 700000 1000".to_owned(),
        "startContainer 0 0 700000 1000".to_owned(),
    ];
    assert_eq!(lines(&log), expected);
}

/// A run that says when it has come so far; what it was, what it said and the signal it was sent.
fn interrupted(kind: &str) -> (Bundle, crate::fixture::Answer) {
    let mut bundle = Bundle::new("exec sleep 1000");
    let log = with_log(&mut bundle);
    let file = if kind == "startContainer" { "/tmp/log".to_owned() } else { log.display().to_string() };
    bundle.config["hooks"][kind] = json!([hook(&format!("flock {file} sh -c 'echo here >> {file}; exec sleep 1000'"))]);
    bundle.write();
    let mut run = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
    let run = run.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    bundle.wait("the hook", || lines(&log) == ["here"]);

    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();

    let answer = run.wait_with_output().unwrap().into();
    let file = fs::File::open(&log).unwrap();
    bundle.wait("the hook's end", || {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    (bundle, answer)
}

#[test]
#[ignore = "needs root"]
fn a_signal_ends_run_and_its_hook_also_when_the_hook_has_no_timeout() {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        let (bundle, answer) = interrupted(kind);

        assert_eq!(answer.code, Some(128 + libc::SIGTERM), "{kind}: {answer:?}");
        assert!(answer.err.contains("interrupted by signal 15"), "{kind}: {answer:?}");
        assert!(bundle.is_gone(), "{kind}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_a_hook_has_started_ends_at_its_timeout_whatever_its_session() {
    for kind in ["createRuntime", "createContainer"] {
        for script in
            ["setsid flock FILE sleep 1000 & sleep 1000", "(setsid sh -c 'flock FILE sleep 1000 & exit' &); sleep 1000"]
        {
            let mut bundle = Bundle::new("true");
            let log = with_log(&mut bundle);
            let script = script.replace("FILE", log.to_str().unwrap());
            bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1}]);

            let answer = bundle.run();

            assert!(answer.err.contains("killed as it ran longer than 1 s"), "{kind}: {answer:?}");
            until_its_child_has_ended(&bundle, &log);
            assert!(bundle.is_gone(), "{kind}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_hook_that_a_filter_kills_is_told_so() {
    let mut bundle = Bundle::new("true");
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}]);
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    bundle.config["hooks"]["startContainer"] = json!([{"path": "/usr/bin/mkdir", "args": ["mkdir", "/dev/shm/x"]}]);

    let answer = bundle.run();

    let expected = "error running hook #0 of startContainer: /usr/bin/mkdir: killed by signal 31 (bad system call)";
    assert!(answer.err.contains(expected), "{answer:?}");
}
