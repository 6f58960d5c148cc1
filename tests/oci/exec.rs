//! Another program in a running container.

use crate::fixture::{Bundle, cgroup_directories};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

fn running() -> Bundle {
    let bundle = Bundle::new("exec sleep 1000");
    assert_eq!(bundle.create().code, Some(0));
    assert_eq!(bundle.on(&["start"]).code, Some(0));
    bundle
}

fn pid(bundle: &Bundle) -> i64 {
    // None while it is made.
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap_or_default();
    state["pid"].as_i64().unwrap_or(0)
}

#[test]
#[ignore = "needs root"]
fn each_option_of_exec_counts() {
    let bundle = running();
    let file = bundle.path("pid");
    let script = "pwd; echo $A $B; id -u; id -g; id -G; grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status; readlink /proc/self/fd/3; echo $$";
    let id = bundle.id();
    let words = [
        "exec",
        "--cwd",
        "/tmp",
        "--env",
        "A=a",
        "-e",
        "B=b",
        "--user",
        "7:8",
        "--additional-gids",
        "9",
        "--cap",
        "CAP_SYSLOG",
        "--no-new-privs",
        "--preserve-fds",
        "1",
        "--pid-file",
        file.to_str().unwrap(),
        &id,
        "sh",
        "-c",
        script,
    ];
    bundle.write();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec 3</etc/passwd; exec \"$0\" \"$@\""]).arg(crate::fixture::runtime());
    shell.arg("--root").arg(bundle.path("state")).args(words);

    let answer: crate::fixture::Answer = shell.output().unwrap().into();

    let lines: Vec<&str> = answer.out.lines().collect();
    let [cwd, env, uid, gid, groups, bounding, no_new, fd, _pid] = lines.as_slice() else { panic!("{answer:?}") };
    assert_eq!([*cwd, *env, *uid, *gid, *groups], ["/tmp", "a b", "7", "8", "8 9"]);
    let mask = u64::from_str_radix(bounding.split_whitespace().last().unwrap(), 16).unwrap();
    assert_ne!(mask & (1 << 34), 0, "{bounding}");
    assert_eq!([*no_new, *fd], ["NoNewPrivs:\t1", "/etc/passwd"]);
    assert!(fs::read_to_string(file).unwrap().parse::<u32>().unwrap() > 1);
}

#[test]
#[ignore = "needs root"]
fn a_process_from_a_file_is_the_whole_of_it() {
    let bundle = running();
    let file = bundle.path("process.json");
    let process = json!({"cwd": "/usr", "args": ["sh", "-c", "pwd; id -u; echo $X; grep CapEff /proc/self/status"],
        "env": ["PATH=/usr/bin", "X=y"], "user": {"uid": 5, "gid": 6}});
    fs::write(&file, process.to_string()).unwrap();
    let exec = || bundle.call(&["exec", "--process", file.to_str().unwrap(), &bundle.id()]);

    assert_eq!(exec().out, "/usr\n5\ny\nCapEff:\t0000000000000000");

    fs::write(&file, json!({"cwd": "usr", "args": ["true"]}).to_string()).unwrap();
    let answer = exec();
    assert!(answer.code == Some(255) && answer.err.contains("process.cwd: "), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn a_user_that_can_not_be_read_is_nobody() {
    let bundle = running();
    for user in ["1x", "-1", "1:", ":1", "4294967296", " 1", "+1", "0x1", "1:-1", "1:2:3", "root", ""] {
        let answer = bundle.call(&["exec", "--user", user, &bundle.id(), "id", "-u"]);
        assert!(
            answer.code != Some(0) && answer.out.is_empty() && answer.err.contains("--user"),
            "{user:?} {answer:?}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn where_nothing_can_run_exec_says_so() {
    let bundle = running();
    let exec = |option: &[&str]| bundle.call(&[&["exec"], option, &[&bundle.id(), "true"]].concat());
    assert_eq!(bundle.on(&["pause"]).code, Some(0));
    let paused = exec(&[]);
    assert!(paused.code == Some(255) && paused.err.contains("cannot exec in a paused container"), "{paused:?}");
    assert_eq!(bundle.on(&["resume"]).code, Some(0));

    assert_eq!(bundle.call(&["kill", &bundle.id(), "KILL"]).code, Some(0));
    bundle.wait("its end", || bundle.status() == "stopped");
    let stopped = exec(&[]);
    assert!(stopped.code == Some(255) && stopped.err.contains("is stopped: cannot exec"), "{stopped:?}");
}

/// Sees its cgroup's whole path, also where the template gives it a namespace for that.
fn running_in_the_hosts_cgroups() -> Bundle {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "cgroup");
    assert_eq!(bundle.create().code, Some(0));
    assert_eq!(bundle.on(&["start"]).code, Some(0));
    bundle
}

/// The container's directories, v2 among them.
fn groups(bundle: &Bundle) -> Vec<PathBuf> {
    let all = cgroup_directories().into_iter().map(|mount| mount.join("plim-oci").join(bundle.id()));
    all.filter(|path| path.is_dir()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_program_of_exec_is_in_the_group_that_was_named() {
    let bundle = running_in_the_hosts_cgroups();
    for group in groups(&bundle) {
        fs::create_dir_all(group.join("one/two")).unwrap();
    }
    let exec = |cgroup: &[&str]| {
        let options: Vec<&str> = cgroup.iter().flat_map(|group| ["--cgroup", group]).collect();
        bundle.call(&[&["exec"], options.as_slice(), &[&bundle.id(), "cat", "/proc/self/cgroup"]].concat())
    };
    let inside = |text: &str, path: &str| {
        text.lines().filter(|line| line.ends_with(&format!(":/plim-oci/{}{path}", bundle.id()))).count()
    };

    let all = exec(&["one/two"]);
    assert_eq!(inside(&all.out, "/one/two"), groups(&bundle).len(), "{all:?}");
    // In a hierarchy of v1 alone, where there is one.
    let v1 = exec(&["pids:one"]);
    let has_v1 = groups(&bundle).iter().any(|group| !group.join("cgroup.controllers").exists());
    if has_v1 {
        assert_eq!(inside(&v1.out, "/one"), 1, "{v1:?}");
    } else {
        assert!(v1.code == Some(255) && v1.err.contains("no v1 hierarchy"), "{v1:?}");
    }
    for (wrong, words) in [
        ("nobody", "/nobody/cgroup.procs: no such file or directory"),
        ("../..", "../.. is not a sub cgroup path"),
        ("frob:one", "unknown controller \"frob\""),
    ] {
        let answer = exec(&[wrong]);
        assert!(answer.code == Some(255) && answer.err.contains(words), "{wrong} {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn exec_finds_a_place_in_a_container_that_has_made_groups_of_its_own() {
    let bundle = running_in_the_hosts_cgroups();
    let unified = groups(&bundle).into_iter().find(|group| group.join("cgroup.controllers").exists());
    let group = unified.expect("every host has the v2 hierarchy, if only beside v1");
    fs::create_dir(group.join("inner")).unwrap();
    fs::write(group.join("inner/cgroup.procs"), pid(&bundle).to_string()).unwrap();
    // With a controller for its children a group has no processes, and without it may have.
    let expected = if fs::write(group.join("cgroup.subtree_control"), "+pids").is_ok() { "/inner" } else { "" };

    let answer = bundle.call(&["exec", &bundle.id(), "grep", "^0::", "/proc/self/cgroup"]);

    let has_no_place = !expected.is_empty();
    let expected = format!("0::/plim-oci/{}{expected}", bundle.id());
    assert_eq!((answer.out, answer.code), (expected, Some(0)));
    if has_no_place {
        // Where it was told to go it does not go elsewhere.
        let answer = bundle.call(&["exec", "--cgroup", "/", &bundle.id(), "true"]);
        let what = format!("{}/cgroup.procs: device or resource busy", group.display());
        assert!(answer.code == Some(255) && answer.err.contains(&what), "{answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_terminated_run_tells_by_its_code_and_passes_signals_on() {
    for (signal, name) in
        [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1"), (libc::SIGINT, "INT")]
    {
        let bundle = Bundle::new(&format!("trap 'echo {name}; exit 9' {name}; echo up; sleep 1000 & wait"));
        bundle.write();
        let out = fs::File::create(bundle.path("out")).unwrap();
        let mut run =
            bundle.command(&["run", "--no-subreaper", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
        let mut run = run.stdout(out).spawn().unwrap();
        let said = || fs::read_to_string(bundle.path("out")).unwrap();
        bundle.wait("its trap", || said() == "up\n");

        kill(&run, signal);

        assert_eq!((run.wait().unwrap().code(), said()), (Some(9), format!("up\n{name}\n")));
        assert!(bundle.is_gone());
    }

    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    let mut run =
        bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]).spawn().unwrap();
    // Before it is its program its end is a failed start.
    bundle.wait("its program", || {
        bundle.path("state").join(bundle.id()).exists()
            && fs::read_to_string(format!("/proc/{}/comm", pid(&bundle))).is_ok_and(|name| name == "sleep\n")
    });
    assert_eq!(bundle.call(&["kill", &bundle.id(), "KILL"]).code, Some(0));
    assert_eq!(run.wait().unwrap().code(), Some(128 + 9));
    assert!(bundle.is_gone());
}

fn kill(child: &std::process::Child, signal: i32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_signal_at_any_moment_of_a_start_is_not_lost() {
    let mut moments = [0; 2];
    for round in 0..24_u32 {
        // Its own end is what the signal does by default, which it does to no first process.
        let mut bundle = Bundle::new("exec sleep 1000");
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "pid");
        bundle.write();
        let mut run = bundle.command(&["run", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
        // A caller may have all of them ignored.
        run.process_group(0);
        let mut run = run.spawn().unwrap();
        match round % 4 {
            0 => {}
            1 => bundle.wait("its state", || bundle.path("state").join(bundle.id()).exists()),
            2 => bundle.wait("its record", || bundle.path("state").join(bundle.id()).join("state.json").exists()),
            _ => bundle.wait("its cgroup", || !groups(&bundle).is_empty()),
        }

        kill(&run, libc::SIGTERM);

        let status = run.wait().unwrap();
        let early = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGTERM);
        assert!(early || status.code() == Some(128 + libc::SIGTERM), "{round} {status:?}");
        assert!(bundle.is_gone(), "{round} {status:?}");
        moments[usize::from(early)] += 1;
    }
    assert!(moments[0] >= 12, "{moments:?}");
}

#[test]
#[ignore = "needs root"]
fn a_signal_ends_exec_in_a_paused_container() {
    let bundle = running();
    assert_eq!(bundle.on(&["pause"]).code, Some(0));
    let file = bundle.path("pid");
    let id = bundle.id();
    let words = ["exec", "--ignore-paused", "--pid-file", file.to_str().unwrap(), &id, "sh", "-c", "echo ran"];
    let mut exec = bundle.command(&words);
    let exec = exec.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    bundle.wait("its process", || file.exists());

    kill(&exec, libc::SIGTERM);

    let answer: crate::fixture::Answer = exec.wait_with_output().unwrap().into();
    assert_eq!((answer.code, answer.out.as_str()), (Some(128 + libc::SIGTERM), ""), "{answer:?}");
    assert_eq!(bundle.on(&["resume"]).code, Some(0));
    let process = format!("/proc/{}", fs::read_to_string(file).unwrap());
    bundle.wait("the end of its process", || !std::path::Path::new(&process).exists());
}

#[test]
#[ignore = "needs root"]
fn orphans_of_a_container_are_runs_to_reap_but_where_it_is_told_not_to() {
    // The first argument is who has started this, and ends.
    let orphan = "while [ -e /proc/$1 ]; do :; done; sed -n 's/^PPid:\\t//p' /proc/$$/status > /tmp/parent";
    let script = "o=$(sh -c 'sh /tmp/orphan $$ > /dev/null & echo $!'); \
                  until [ -s /tmp/parent ]; do :; done; cat /tmp/parent; while [ -e /proc/$o ]; do :; done";
    for options in [&[][..], &["--no-subreaper"]] {
        let mut bundle = Bundle::new(script);
        fs::write(bundle.path("rootfs/tmp/orphan"), orphan).unwrap();
        bundle.config["root"]["readonly"] = json!(false);
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "pid");
        bundle.write();
        let (dir, id) = (bundle.path(""), bundle.id());
        let words = [&["run", "--bundle", dir.to_str().unwrap()][..], options, &[&id]].concat();
        let run = bundle.command(&words).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let number = run.id().to_string();

        let answer: crate::fixture::Answer = run.wait_with_output().unwrap().into();

        assert_eq!(answer.out == number, options.is_empty(), "{number} {answer:?}");
    }
}
