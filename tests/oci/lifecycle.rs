//! From `create` to `delete`, and what the program finds inside.

use crate::cgroups::is_unified;
use crate::fixture::{Bundle, FrozenGroup, cgroup_directories, in_mounts_of_its_own};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

#[test]
#[ignore = "needs root"]
fn run_gives_the_programs_output_and_code_and_leaves_nothing() {
    let bundle = Bundle::new("hostname; id -u; exit 7");

    let answer = bundle.run();

    assert_eq!((answer.code, answer.out.as_str()), (Some(7), "plim\n0"), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_container_that_waits_for_its_start_holds_little_memory() {
    let mut bundle = Bundle::new("exec sleep 1000");
    // To compile it takes a megabyte, and nobody has done that here before.
    let profile = plimsoll::sandbox::seccomp::default_profile();
    let names: Vec<&String> = profile.syscalls.iter().flat_map(|rule| &rule.names).collect();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    });

    let created = bundle.create();

    assert_eq!(created.code, Some(0), "{created:?}");
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let kib = |name: &str| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", state["pid"])).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    assert!(kib("Anonymous:") <= 1024, "{} KiB", kib("Anonymous:"));
    // What it still has of its program's file, which is larger here than in a release.
    bundle.wait("its waiting", || kib("Rss:") - kib("Anonymous:") <= 1536);
}

#[test]
#[ignore = "needs root"]
fn a_created_container_waits_for_its_start() {
    let bundle = Bundle::new("echo up; exec sleep 1000");

    let created = bundle.create();
    assert_eq!((created.code, bundle.status()), (Some(0), "created".to_owned()), "{created:?}");
    assert_eq!(fs::read_to_string(bundle.path("out")).unwrap(), "");
    let started = bundle.on(&["start"]);
    assert_eq!((started.code, bundle.status()), (Some(0), "running".to_owned()), "{started:?}");
    bundle.wait("its output", || fs::read_to_string(bundle.path("out")).unwrap() == "up\n");

    let again = bundle.on(&["start"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("is running: only a created one can be started"), "{again:?}");
    let early = bundle.on(&["delete"]);
    assert!(early.err.contains("is running: only a stopped one can be deleted"), "{early:?}");

    assert_eq!(bundle.call(&["kill", &bundle.id(), "KILL"]).code, Some(0));
    bundle.wait("its end", || bundle.status() == "stopped");
    assert_eq!(bundle.on(&["delete"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_container_that_ends_before_its_start_does_not_hang_who_starts_it() {
    let bundle = Bundle::new("true");
    bundle.create();
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(state["pid"].as_i64().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();

    let answer = bundle.on(&["start"]);

    // Whether the kernel has taken its end of the socket away yet or not.
    let said = ["only a created one can be started", "the container has ended"];
    assert!(answer.code == Some(1) && said.iter().any(|words| answer.err.contains(words)), "{answer:?}");
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_created_container_ends_by_the_signals_that_end_other_processes() {
    for (signal, ends) in [("TERM", true), ("INT", true), ("RTMIN+3", true), ("WINCH", false)] {
        let bundle = Bundle::new("exec sleep 1000");
        bundle.create();

        let killed = bundle.call(&["kill", &bundle.id(), signal]);

        assert_eq!(killed.code, Some(0), "{killed:?}");
        if ends {
            bundle.wait("its end", || bundle.status() == "stopped");
        } else {
            // Taken in order, so it has had the other one before.
            assert_eq!(bundle.on(&["start"]).code, Some(0));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_program_that_is_missing_fails_create_and_leaves_nothing() {
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["args"] = json!(["nope"]);

    let answer = bundle.create();

    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("executable file not found in $PATH"), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn the_process_is_as_its_configuration_says() {
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid)' /proc/self/status; umask; ulimit -n; pwd; echo $A; \
                  cat /proc/self/oom_score_adj; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
                  touch /x 2>&1; mkdir /tmp/x 2>&1";
    let mut bundle = Bundle::new(script);
    let process = &mut bundle.config["process"];
    process["user"] = json!({"uid": 1000, "gid": 1001, "umask": 7, "additionalGids": [5, 6]});
    process["env"] = json!(["PATH=/usr/bin", "A=b"]);
    process["cwd"] = json!("/etc");
    process["oomScoreAdj"] = json!(321);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 99}]);
    let caps = json!(["CAP_KILL", "CAP_CHOWN"]);
    process["capabilities"] = json!({"bounding": caps, "permitted": caps, "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]});
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});

    let answer = bundle.run();

    for expected in [
        "Uid:\t1000\t1000\t1000\t1000",
        "Groups:\t5 6 ",
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000020",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "0007\n99\n/etc\nb\n321\n77",
        "Read-only file system",
        "cannot create directory '/tmp/x'",
    ] {
        assert!(answer.out.contains(expected), "{expected}\n{}\n{}", answer.out, answer.err);
    }
}

#[test]
#[ignore = "needs root"]
fn mounts_have_the_options_that_were_asked_for() {
    let mut bundle = Bundle::new("cat /proc/self/mountinfo; cat /data/file; echo x > /data/file");
    fs::create_dir(bundle.path("data")).unwrap();
    fs::write(bundle.path("data/file"), "hello\n").unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/data", "type": "bind", "source": "data", "options": ["bind", "ro", "nosuid", "noexec", "nodev"]}));
    mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "ro", "mode=700"]}));
    mounts.push(json!({"destination": "/scratch/inner", "type": "tmpfs", "source": "tmpfs", "options": ["shared"]}));
    bundle.config["root"]["readonly"] = json!(false);

    let answer = bundle.run();

    let line = |at: &str| {
        answer.out.lines().find(|line| line.contains(&format!(" {at} "))).unwrap_or_else(|| panic!("{at} {answer:?}"))
    };
    assert!(line("/data").contains(" ro,nosuid,nodev,noexec,"), "{}", line("/data"));
    assert!(line("/scratch").contains(" ro,") && line("/scratch").contains("mode=700"), "{}", line("/scratch"));
    assert!(line("/scratch/inner").contains("shared:"), "{}", line("/scratch/inner"));
    assert!(answer.out.ends_with("hello"), "{answer:?}");
    assert!(answer.err.contains("Read-only file system"), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn links_of_the_root_lead_nowhere_outside() {
    for (link, to, expected) in
        [("proc", "/tmp", "mounting proc at /proc"), ("sys", "../../../tmp", "mounting sysfs at /sys")]
    {
        let bundle = Bundle::new("true");
        let place = bundle.path("rootfs").join(link);
        fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink(to, &place).unwrap();

        let answer = bundle.run();

        assert_eq!(answer.code, Some(1));
        assert!(answer.err.contains(expected), "{answer:?}");
        assert!(bundle.is_gone());
    }
    let mut bundle = Bundle::new("ls /etc/host");
    std::os::unix::fs::symlink("/../../../../../etc", bundle.path("rootfs/out")).unwrap();
    let mount = json!({"destination": "/out/host", "type": "tmpfs", "source": "tmpfs"});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let answer = bundle.run();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(!std::path::Path::new("/etc/host").exists());
}

#[test]
#[ignore = "needs root"]
fn a_working_directory_behind_a_descriptor_of_the_host_is_refused() {
    let mut bundle = Bundle::new("readlink /proc/self/cwd");
    let mut refused = 0;
    for number in 3..24 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));

        let answer = bundle.run();

        // One that leads to something inside is as good as any other path.
        if answer.code == Some(0) {
            assert!(answer.out.starts_with('/'), "{number}: {answer:?}");
        } else {
            refused += usize::from(answer.err.contains("it is outside of the container"));
        }
        assert!(bundle.is_gone());
    }
    assert_ne!(refused, 0);
}

#[test]
#[ignore = "needs root"]
fn a_user_namespace_has_many_extents() {
    let mut bundle = Bundle::new("cat /proc/self/uid_map; id -u; touch /dev/null /tmp/mine && stat -c %u /tmp/mine");
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let extents = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}, {"containerID": 1000, "hostID": 900_000, "size": 10}]);
    linux["uidMappings"] = extents.clone();
    linux["gidMappings"] = extents;
    bundle.config["root"]["readonly"] = json!(false);
    let root = bundle.path("rootfs");
    for path in [root.clone(), root.join("tmp")] {
        std::os::unix::fs::chown(path, Some(700_000), Some(700_000)).unwrap();
    }
    std::process::Command::new("chmod").arg("755").arg(bundle.path("")).status().unwrap();

    let answer = bundle.run();

    let words: Vec<&str> = answer.out.split_whitespace().collect();
    assert_eq!(words, ["0", "700000", "1000", "1000", "900000", "10", "0", "0"], "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn namespaces_are_joined_by_path_and_their_kind_is_checked() {
    let mut bundle = Bundle::new("readlink /proc/self/ns/net");
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", std::process::id());
    bundle.config["linux"]["namespaces"][1]["path"] = json!(path("net"));
    let own = fs::read_link(path("net")).unwrap();
    let joined = bundle.run();
    assert_eq!(joined.out, own.to_str().unwrap(), "{joined:?}");

    bundle.config["linux"]["namespaces"][1]["path"] = json!(path("uts"));
    let answer = bundle.run();
    assert!(answer.err.contains("linux.namespaces[1].path: ") && answer.err.contains("is not a network"), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn exec_has_the_containers_namespaces_and_its_own_words() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();
    let id = bundle.id();
    let exec = |words: &[&str]| bundle.call(&[&["exec"], words].concat());
    bundle.on(&["start"]);

    let answer = exec(&[
        "--user",
        "12:13",
        "--cwd",
        "/etc",
        "-e",
        "A=b",
        &id,
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A; hostname; exit 9",
    ]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(9), "12\n13\n/etc\nb\nplim"), "{answer:?}");

    let missing = exec(&[&id, "nope"]);
    assert!(missing.err.contains("executable file not found in $PATH"), "{missing:?}");

    let inside = exec(&[&id, "sh", "-c", "readlink /proc/1/ns/net; readlink /proc/self/ns/net"]);
    let lines: Vec<&str> = inside.out.lines().collect();
    assert_eq!(lines[0], lines[1]);
    // In every hierarchy, v1 or v2.
    let cgroups = exec(&[&id, "sh", "-c", "cmp /proc/1/cgroup /proc/self/cgroup"]);
    assert_eq!(cgroups.code, Some(0), "{cgroups:?}");

    let listed: Vec<u32> = serde_json::from_str(&bundle.on(&["ps", "--format", "json"]).out).unwrap();
    assert_eq!(listed.len(), 1);
}

#[test]
#[ignore = "needs root"]
fn limits_are_in_the_kernel_and_change_while_it_runs() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let limits = json!({"memory": {"limit": 67_108_864, "swap": 134_217_728}, "pids": {"limit": 33}, "cpu": {"shares": 512, "quota": 50_000, "period": 100_000}});
    for (name, value) in limits.as_object().unwrap() {
        bundle.config["linux"]["resources"][name] = value.clone();
    }
    bundle.create();
    bundle.on(&["start"]);
    let find = |files: [&str; 2]| {
        let id = bundle.id();
        let paths = cgroup_directories().into_iter().map(|mount| mount.join("plim-oci").join(&id));
        let texts = paths.flat_map(|path| files.map(|file| fs::read_to_string(path.join(file)).ok())).flatten();
        texts.into_iter().next().unwrap_or_default().trim().to_owned()
    };
    let memory = || find(["memory.limit_in_bytes", "memory.max"]);
    assert_eq!((memory().as_str(), find(["pids.max", "pids.max"]).as_str()), ("67108864", "33"));

    let answer = bundle.on(&["update", "--memory", "268435456", "--memory-swap", "536870912", "--pids-limit", "44"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!((memory().as_str(), find(["pids.max", "pids.max"]).as_str()), ("268435456", "44"));
}

#[test]
#[ignore = "needs root"]
fn a_paused_container_stands_still_and_can_be_deleted() {
    stands_still_and_is_deleted();
}

#[test]
#[ignore = "needs root"]
fn where_v1_has_it_all_a_container_gets_its_freezer_when_it_is_paused() {
    in_mounts_of_its_own(|| {
        let unified = std::path::Path::new("/sys/fs/cgroup/unified");
        if unified.join("cgroup.procs").exists() {
            rustix::mount::unmount(unified, rustix::mount::UnmountFlags::DETACH).unwrap();
            stands_still_and_is_deleted();
        }
    });
}

fn stands_still_and_is_deleted() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create();
    bundle.on(&["start"]);

    assert_eq!(bundle.on(&["pause"]).code, Some(0));
    assert_eq!(bundle.status(), "paused");
    let refused = bundle.call(&["exec", &bundle.id(), "true"]);
    assert!(refused.err.contains("is paused"), "{refused:?}");
    assert_eq!((bundle.on(&["resume"]).code, bundle.status()), (Some(0), "running".to_owned()));

    assert_eq!(bundle.on(&["pause"]).code, Some(0));
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_container_that_somebody_moved_into_a_frozen_cgroup_of_theirs_can_be_deleted() {
    // Who is moved out of its only cgroup is found by its PID namespace alone.
    let isolated: &[bool] = if is_unified() { &[true] } else { &[true, false] };
    for has_pids in isolated {
        let theirs = FrozenGroup::new();
        let mut bundle = Bundle::new("sleep 1001 & exec sleep 1000");
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| *has_pids || namespace["type"] != "pid");
        assert_eq!(bundle.create().code, Some(0));
        assert_eq!(bundle.on(&["start"]).code, Some(0));
        let processes = || -> Vec<u32> { serde_json::from_str(&bundle.on(&["ps", "--format", "json"]).out).unwrap() };
        bundle.wait("its second process", || processes().len() == 2);
        theirs.take(&processes());

        let deleted = bundle.on(&["delete", "--force"]);

        assert_eq!((deleted.code, deleted.err.as_str()), (Some(0), ""), "{has_pids}");
        assert!(bundle.is_gone() && theirs.is_frozen_still());
    }
}

#[test]
#[ignore = "needs root"]
fn descriptors_end_at_the_program_unless_they_are_preserved() {
    let bundle = Bundle::new("ls /proc/self/fd");

    let answer = bundle.run();

    // The last one is the listing's own.
    assert_eq!(answer.out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn an_expression_deletes_every_container_whose_id_it_matches() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.write();
    let ids = ["web-1", "web-22", "db-1"].map(|name| format!("{}-{name}", bundle.id()));
    for id in &ids {
        let create = ["create", "--bundle", bundle.path("").to_str().unwrap(), id.as_str()].map(str::to_owned);
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        let status = bundle.command(&create).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{id}");
    }

    let refused = bundle.call(&["delete", "--regex", "web-[0-9]+$"]);
    let wrong = bundle.call(&["delete", "--regex", "web-[", "--force"]);
    let deleted = bundle.call(&["delete", "--force", "--regex", "web-[0-9]+$"]);
    let nothing = bundle.call(&["delete", "--regex", "web-[0-9]+$"]);

    let left = bundle.call(&["list", "-q"]).out;
    for id in &ids {
        bundle.call(&["delete", "--force", id]);
    }
    assert_eq!(refused.code, Some(1));
    assert_eq!(refused.err.matches("is created: only a stopped one can be deleted").count(), 2, "{refused:?}");
    assert!(wrong.code == Some(1) && wrong.err.contains(r#"delete: --regex: "web-[": "#), "{wrong:?}");
    assert_eq!((deleted.code, deleted.err.as_str(), nothing.code), (Some(0), "", Some(0)), "{deleted:?} {nothing:?}");
    assert_eq!(left, ids[2]);
}

#[test]
#[ignore = "needs root"]
fn a_stopped_container_whose_cgroups_somebody_took_away_is_no_mistake() {
    let bundle = Bundle::new("true");
    bundle.create();
    bundle.on(&["start"]);
    bundle.wait("its end", || bundle.status() == "stopped");
    // As systemd does it with a scope in which nobody is.
    for mount in cgroup_directories() {
        let group = mount.join("plim-oci").join(bundle.id());
        bundle.wait("an empty group", || !group.exists() || fs::remove_dir(&group).is_ok());
    }

    let killed = bundle.call(&["kill", "--all", &bundle.id(), "0"]);
    let deleted = bundle.on(&["delete"]);

    assert_eq!((killed.code, deleted.code), (Some(0), Some(0)), "{killed:?} {deleted:?}");
    assert!(bundle.is_gone());
}
