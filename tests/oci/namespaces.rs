//! Namespaces: own ones, those of others, those of the host.

use crate::fixture::{Answer, Bundle};
use serde_json::{Value, json};
use std::fs;

fn well(answer: &Answer) -> &str {
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    &answer.out
}

fn namespaces(bundle: &mut Bundle) -> &mut Vec<Value> {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap()
}

/// On a host that is all cgroup v2 the template has the one of cgroups already.
fn all_kinds_but_users(bundle: &mut Bundle) {
    let list = namespaces(bundle);
    for (kind, _) in FILES.iter().filter(|(kind, _)| *kind != "user") {
        if list.iter().all(|entry| entry["type"] != *kind) {
            list.push(json!({"type": kind}));
        }
    }
}

fn mapped(bundle: &mut Bundle, uids: &Value, gids: &Value) {
    use std::os::unix::fs::{PermissionsExt, chown};
    namespaces(bundle).push(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = uids.clone();
    bundle.config["linux"]["gidMappings"] = gids.clone();
    let (uid, gid) = (uids[0]["hostID"].as_u64().unwrap(), gids[0]["hostID"].as_u64().unwrap());
    // The template's group of terminals may not be mapped.
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    fs::set_permissions(bundle.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["", "dev", "proc", "sys", "tmp", "etc", "usr"] {
        let path = bundle.path("rootfs").join(name);
        chown(path, Some(u32::try_from(uid).unwrap()), Some(u32::try_from(gid).unwrap())).unwrap();
    }
}

fn pid(bundle: &Bundle) -> u64 {
    let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    state["pid"].as_u64().unwrap()
}

const FILES: [(&str, &str); 8] = [
    ("user", "user"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("mount", "mnt"),
];

#[test]
#[ignore = "needs root"]
fn each_namespace_of_another_container_is_joined_by_its_path() {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let mut first = Bundle::new("exec sleep 1000");
    all_kinds_but_users(&mut first);
    mapped(&mut first, &mapping, &mapping);
    let answer = first.create();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let number = pid(&first);

    // One alone where that is possible, and all of them together.
    let all: Vec<&str> = FILES.iter().map(|(kind, _)| *kind).collect();
    let sets: [&[&str]; 8] = [
        &["ipc"],
        &["uts", "cgroup"],
        &["time"],
        &["user"],
        &["user", "network", "cgroup"],
        &["user", "pid"],
        &["user", "pid", "network"],
        &all,
    ];
    for joined in sets {
        let mut second = Bundle::new(
            "for file in user pid net ipc uts cgroup time mnt; do readlink /proc/self/ns/$file; done; id -u; echo $$",
        );
        all_kinds_but_users(&mut second);
        if joined.contains(&"user") {
            mapped(&mut second, &mapping, &mapping);
            for field in ["uidMappings", "gidMappings"] {
                second.config["linux"].as_object_mut().unwrap().remove(field);
            }
        }
        second.config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
        for entry in namespaces(&mut second) {
            let kind = entry["type"].as_str().unwrap().to_owned();
            if joined.contains(&kind.as_str()) {
                let (_, file) = FILES.iter().find(|(name, _)| *name == kind).unwrap();
                entry["path"] = json!(format!("/proc/{number}/ns/{file}"));
            }
        }

        let answer = second.run();

        let mut seen = well(&answer).lines();
        for (kind, file) in FILES {
            let theirs = fs::read_link(format!("/proc/{number}/ns/{file}")).unwrap();
            let ours = seen.next().unwrap();
            assert_eq!(theirs.to_str() == Some(ours), joined.contains(&kind), "{kind} of {joined:?}: {answer:?}");
        }
        assert_eq!(seen.next(), Some("0"));
        assert_eq!(seen.next() == Some("1"), !joined.contains(&"pid"), "{joined:?}: {answer:?}");
    }
    first.on(&["delete", "--force"]);
}

#[test]
#[ignore = "needs root"]
fn clocks_of_a_time_namespace_are_ahead_as_said() {
    let mut bundle = Bundle::new("cat /proc/self/timens_offsets; read -r up rest < /proc/uptime; echo ${up%%.*}");
    namespaces(&mut bundle).push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] =
        json!({"monotonic": {"secs": 1000, "nanosecs": 7}, "boottime": {"secs": 86_400_000}});
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let before: u64 = uptime.split('.').next().unwrap().parse().unwrap();

    let answer = bundle.run();

    let words: Vec<&str> = well(&answer).split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "1000", "7", "boottime", "86400000", "0"]);
    assert!(words[6].parse::<u64>().unwrap() >= before + 86_400_000, "{answer:?}");

    // Before the machine's own beginning.
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": -4_000_000_000_i64}});
    let answer = bundle.run();
    assert!(answer.err.contains("making a time namespace with boottime -4000000000 0: "), "{answer:?}");
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_user_namespace_has_many_extents_and_needs_no_user_0() {
    let extent = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    let many = json!((0..200).map(|number| extent(number * 2, 100_000 + number * 3, 1)).collect::<Vec<_>>());
    let mut bundle = Bundle::new("wc -l < /proc/self/uid_map; id -u");
    mapped(&mut bundle, &many, &many);
    assert_eq!(well(&bundle.run()), "200\n0");

    let mut bundle = Bundle::new("id -u; id -g; id -G");
    mapped(&mut bundle, &json!([extent(5, 100_000, 10)]), &json!([extent(7, 100_000, 10)]));
    bundle.config["process"]["user"] = json!({"uid": 6, "gid": 8, "additionalGids": [9]});
    assert_eq!(well(&bundle.run()), "6\n8\n8 9");

    for (user, expected) in [
        (json!({"uid": 0, "gid": 8}), "process.user.uid: 0 is not mapped in the container's user namespace"),
        (json!({"uid": 6, "gid": 1}), "process.user.gid: 1 is not mapped"),
        (json!({"uid": 6, "gid": 8, "additionalGids": [7, 99]}), "process.user.additionalGids[1]: 99 is not mapped"),
    ] {
        bundle.config["process"]["user"] = user;
        let answer = bundle.run();
        assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");
    }
    bundle.config["linux"]["uidMappings"] = json!([extent(0, 100_000, 10), extent(20, 100_005, 10)]);
    assert!(bundle.run().err.contains("linux.uidMappings[1]: has ids of another extent"));
}

#[test]
#[ignore = "needs root"]
fn settings_are_those_of_its_own_namespaces() {
    let mut bundle = Bundle::new(
        "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/conf/lo/forwarding kernel/msgmax kernel/shm_rmid_forced \
         fs/mqueue/queues_max kernel/domainname user/max_user_namespaces",
    );
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    mapped(&mut bundle, &mapping, &mapping);
    bundle.config.as_object_mut().unwrap().remove("hostname");
    bundle.config["linux"]["sysctl"] = json!({
        "net.ipv4.ip_forward": "1",
        "net/ipv4/conf/lo/forwarding": "0",
        "kernel.msgmax": "4242",
        "kernel.shm_rmid_forced": "1",
        "fs.mqueue.queues_max": "77",
        "kernel.domainname": "example",
        "user.max_user_namespaces": "3",
    });

    assert_eq!(well(&bundle.run()), "1\n0\n4242\n1\n77\nexample\n3");
    let hosts = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    assert_ne!(hosts.trim(), "4242");

    bundle.config["linux"]["sysctl"] = json!({"kernel.hostname": "named"});
    let answer = bundle.run();
    let expected = "linux.sysctl[\"kernel.hostname\"]: the configuration has a field for it";
    assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn without_a_mount_namespace_there_is_a_root_and_nothing_is_mounted_or_hidden() {
    let mut bundle = Bundle::new("");
    bundle.config["process"]["args"] = json!(["/busy", "1000"]);
    fs::copy("/bin/sleep", bundle.path("rootfs/busy")).unwrap();
    namespaces(&mut bundle).retain(|entry| entry["type"] != "mount");
    let answer = bundle.create();
    let expected = "linux.maskedPaths: takes a mount namespace: it would change the host's mounts";
    assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");

    for field in ["maskedPaths", "readonlyPaths"] {
        bundle.config["linux"].as_object_mut().unwrap().remove(field);
    }
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let answer = bundle.create();
    let expected = "mounts: left out: there is no mount namespace, and they would be the host's";
    assert!(answer.code == Some(0) && answer.err.contains(expected), "{answer:?}");
    let number = pid(&bundle);

    assert!(fs::exists(format!("/proc/{number}/root/busy")).unwrap());
    let refused = fs::write(format!("/proc/{number}/root/new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write(bundle.path("rootfs/new"), "").unwrap();
    // There is no shell in it, but on the host.
    let exec = bundle.call(&["exec", &bundle.id(), "/bin/sh", "-c", "echo host"]);
    assert!(exec.code == Some(255) && exec.err.contains("exec /bin/sh: no such file"), "{exec:?}");
    assert_eq!(fs::read_link(format!("/proc/{number}/ns/mnt")).unwrap(), fs::read_link("/proc/self/ns/mnt").unwrap());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    bundle.on(&["delete", "--force"]);
}

#[test]
#[ignore = "needs root"]
fn hooks_of_the_host_run_there_also_when_namespaces_are_joined() {
    let first = Bundle::new("exec sleep 1000");
    assert_eq!(first.create().code, Some(0));
    let number = pid(&first);
    let mut second = Bundle::new("readlink /proc/self/ns/net");
    for entry in namespaces(&mut second) {
        let kind = entry["type"].as_str().unwrap().to_owned();
        if let Some((_, file)) = FILES.iter().find(|(name, _)| *name == kind && kind != "mount") {
            entry["path"] = json!(format!("/proc/{number}/ns/{file}"));
        }
    }
    let out = second.path("seen");
    let script = format!("cd /proc/self/ns; readlink net uts ipc pid >> {}", out.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    second.config["hooks"] = json!({"createRuntime": hook, "poststart": hook});

    let answer = second.run();

    let theirs = fs::read_link(format!("/proc/{number}/ns/net")).unwrap();
    assert_eq!(Some(well(&answer)), theirs.to_str());
    let own = ["net", "uts", "ipc", "pid"].map(|file| fs::read_link(format!("/proc/self/ns/{file}")).unwrap());
    let once: String = own.iter().map(|link| format!("{}\n", link.display())).collect();
    assert_eq!(fs::read_to_string(out).unwrap(), once.repeat(2));
    first.on(&["delete", "--force"]);
}

/// Runs `test` in a network namespace of its own: a thread takes it along to what it starts.
fn on_a_network_of_its_own(test: impl FnOnce() + Send + 'static) {
    let outer = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(outer).join() {
        std::panic::resume_unwind(panic);
    }
}

/// With ip(8), which may not be there: then nobody can say.
fn ip(words: &str) -> bool {
    std::process::Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success())
}

#[test]
#[ignore = "needs root"]
fn network_devices_come_along_with_their_addresses_and_are_up() {
    on_a_network_of_its_own(|| {
        if !ip("tuntap add plain0 mode tap") || !ip("tuntap add named0 mode tap") {
            return;
        }
        for words in [
            "addr add 10.9.8.7/24 brd 10.9.8.255 dev named0",
            "addr add 10.9.9.1 peer 10.9.9.2/32 dev named0",
            "addr add 10.9.7.1/24 dev named0 scope link",
            "link set named0 address 02:00:00:00:00:07 mtu 1400",
            "link set named0 up",
        ] {
            assert!(ip(words), "{words}");
        }
        for user in [false, true] {
            if user {
                // Those of a namespace that has ended end with it, as they are not real.
                assert!(ip("tuntap add plain0 mode tap") && ip("tuntap add named0 mode tap"));
                assert!(ip("addr add 10.9.8.7/24 dev named0"));
            }
            let mut bundle = Bundle::new("ip -o -4 addr show; ip -o link show plain0; ip link show inner0");
            let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            if user {
                mapped(&mut bundle, &mapping, &mapping);
            }
            bundle.config["linux"]["netDevices"] = json!({"plain0": {}, "named0": {"name": "inner0"}});

            let answer = bundle.run();

            let seen = well(&answer);
            assert!(seen.contains("inner0    inet 10.9.8.7/24"), "{seen}");
            assert_eq!(seen.matches(",UP").count(), 2, "{seen}");
            if !user {
                assert!(seen.contains("brd 10.9.8.255 scope global") && seen.contains("10.9.9.1 peer 10.9.9.2/32"));
                assert!(seen.contains("mtu 1400") && seen.contains("02:00:00:00:00:07"), "{seen}");
            }
            assert!(!seen.contains("10.9.7.1"), "{seen}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn network_devices_that_cannot_come_along_are_named() {
    on_a_network_of_its_own(|| {
        for (devices, own, expected) in [
            (json!({"none0": {}}), true, "linux.netDevices[\"none0\"]: finding the device: No such device"),
            (json!({"a/b": {}}), true, "linux.netDevices[\"a/b\"]: \"a/b\" is not the name of a device"),
            (json!({"lo": {"name": "a%d"}}), true, "linux.netDevices[\"lo\"]: \"a%d\" is not the name"),
            (json!({"a": {"name": "c"}, "b": {"name": "c"}}), true, "linux.netDevices[\"b\"]: another one is c inside"),
            (json!({"lo": {}}), false, "linux.netDevices: take a network namespace"),
            (json!({"lo": {}}), true, "linux.netDevices[\"lo\"]: moving it into the container as lo: "),
        ] {
            let mut bundle = Bundle::new("true");
            bundle.config["linux"]["netDevices"] = devices;
            if !own {
                namespaces(&mut bundle).retain(|entry| entry["type"] != "network");
            }

            let answer = bundle.run();

            assert!(answer.code == Some(1) && answer.err.contains(expected), "{answer:?}");
            assert!(bundle.is_gone());
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_container_in_all_of_the_hosts_namespaces_runs() {
    let mut bundle = Bundle::new("readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/uts");
    namespaces(&mut bundle).retain(|entry| entry["type"] == "mount");
    bundle.config.as_object_mut().unwrap().remove("hostname");

    let answer = bundle.run();

    let hosts: Vec<String> = ["net", "pid", "uts"]
        .map(|file| fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned())
        .to_vec();
    assert_eq!(well(&answer), hosts.join("\n"));
}
