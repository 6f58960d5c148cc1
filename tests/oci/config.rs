//! Every mistake in a `config.json` has one error with its place, and leaves nothing behind.

use crate::fixture::Bundle;
use serde_json::{Value, json};

fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match config.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
        Value::Array(list) => {
            let index = name.parse::<usize>().unwrap();
            list.truncate(index.max(list.len()));
            if index < list.len() { list[index] = value } else { list.push(value) }
        }
        parent => parent[name] = value,
    }
}

#[test]
fn each_mistake_is_told_with_its_path() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\" is not one of 1.0.0 to 1.3.x"),
        ("/ociVersion", json!(1), "ociVersion: invalid type: integer `1`, expected a string"),
        ("/root/path", json!("nowhere"), "root.path: nowhere is not a directory"),
        ("/root", Value::Null, "root: missing"),
        ("/process", Value::Null, "process: missing"),
        ("/process/args", json!([]), "process.args: empty: there is no program"),
        ("/process/cwd", json!("tmp"), "process.cwd: \"tmp\" is not an absolute path"),
        ("/process/env/1", json!("TERM"), "process.env[1]: not of the form NAME=value"),
        ("/process/user/uid", json!("root"), "process.user.uid: invalid type: string \"root\", expected u32"),
        ("/process/oomScoreAdj", json!(2000), "process.oomScoreAdj: not from -1000 to 1000"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO"}), "process.scheduler.priority: not from 1 to 99"),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            "process.scheduler.policy: SCHED_ISO is in no kernel yet",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice: not from -20 to 19",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_FLY"]}),
            "process.scheduler.flags[0]: unknown variant `SCHED_FLAG_FLY`",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority: not from 0 to 7",
        ),
        ("/process/rlimits/0/type", json!("RLIMIT_FUN"), "process.rlimits[0].type: \"RLIMIT_FUN\" is not a limit"),
        ("/process/rlimits/0/soft", json!(2000), "process.rlimits[0].soft: 2000 is above the hard limit 1024"),
        ("/mounts/0/destination", json!("/../x"), "mounts[0].destination: \"/../x\" is not a path inside"),
        ("/mounts/0/type", json!(""), "mounts[0].type: missing"),
        (
            "/mounts/2/options/0",
            json!("tmpcopyup"),
            "mounts[2].options[0]: \"tmpcopyup\" is not an option of this mount",
        ),
        ("/mounts/2/options/0", json!("src-nofollow"), "mounts[2].options[0]: \"src-nofollow\" is not an option of"),
        ("/mounts/7/options/0", json!("idmap"), "mounts[7].options[0]: takes uidMappings and gidMappings, or a user"),
        ("/mounts/7/options/0", json!("idmap=uids=1"), "mounts[7].options[0]: \"1\" is not of the form FROM-TO-COUNT"),
        (
            "/mounts/7/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "mounts[7].gidMappings: missing beside uidMappings",
        ),
        ("/hooks", json!({"prestart": [{"path": "bin/true"}]}), "hooks.prestart[0].path: not an absolute path"),
        ("/hooks", json!({"poststop": [{"path": "/x", "timeout": 0}]}), "hooks.poststop[0].timeout: not above 0"),
        ("/linux/namespaces/0/type", json!("planet"), "linux.namespaces[0].type: unknown variant `planet`"),
        ("/linux/namespaces/0/type", json!("network"), "linux.namespaces[1].type: there twice"),
        (
            "/linux/namespaces/4/path",
            json!("/proc/self/ns/net"),
            "linux.namespaces[4].path: /proc/self/ns/net is not a mount namespace",
        ),
        ("/linux/namespaces/4/path", json!("/etc/passwd"), "linux.namespaces[4].path: /etc/passwd is not a mount"),
        (
            "/linux/namespaces/4/path",
            json!("/nowhere"),
            "linux.namespaces[4].path: /nowhere: No such file or directory",
        ),
        ("/linux/namespaces/4", json!({"type": "user", "path": "/proc/self/ns/uts"}), "is not a user namespace"),
        ("/linux/namespaces/6", json!({"type": "user"}), "linux.uidMappings: missing: a user namespace has no ids"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            "linux.uidMappings: take a user namespace of its own",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.panic": "1"}),
            "linux.sysctl[\"kernel.panic\"]: not a setting of a namespace: it would change the host",
        ),
        (
            "/linux/sysctl",
            json!({"net/../kernel/panic": "1"}),
            "linux.sysctl[\"net/../kernel/panic\"]: not the name of a setting",
        ),
        ("/linux/maskedPaths/0", json!("proc/acpi"), "linux.maskedPaths[0]: not an absolute path"),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath: \"/a/../b\" is not a path of a cgroup"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation: unknown variant `sideways`"),
        ("/linux/personality", json!({"domain": "BSD"}), "linux.personality.domain: unknown variant `BSD`"),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "linux.personality.flags[0]: \"X\" is not a flag",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
            "linux.memoryPolicy.nodes: the mode takes none",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0-"}),
            "linux.memoryPolicy.nodes: \"0-\" is not a list like 0-3,7",
        ),
        ("/linux/intelRdt", json!({"closID": "a"}), "linux.intelRdt: the host has no resctrl file system"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.timeOffsets.boottime: takes a time"),
        ("/linux/timeOffsets", json!({"realtime": {"secs": 1}}), "unknown variant `realtime`"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_MAYBE"}),
            "linux.seccomp.defaultAction: unknown variant `SCMP_ACT_MAYBE`",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}),
            "linux.seccomp.architectures[0]: unknown variant `SCMP_ARCH_Z80`",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: takes a listenerPath",
        ),
        (
            "/linux/resources/memory",
            json!({"limit": 200, "swap": 100}),
            "linux.resources.memory.swap: 100 is memory and swap together",
        ),
        (
            "/linux/resources/memory",
            json!({"limit": "1G"}),
            "linux.resources.memory.limit: invalid type: string \"1G\", expected i64",
        ),
        (
            "/linux/resources/unified",
            json!({"../x": "1"}),
            "linux.resources.unified[\"../x\"]: the specified key has not the form CONTROLLER.VALUE",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut bundle = Bundle::new("true");
        set(&mut bundle.config, pointer, value);

        let answer = bundle.run();

        assert!(answer.err.contains(expected), "{pointer}: {expected}\n{answer:?}");
        assert_eq!((answer.code, answer.err.lines().count()), (Some(1), 1), "{pointer}: {answer:?}");
        assert!(bundle.is_gone(), "{pointer}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_label_of_mounts_is_left_out_where_nobody_looks_at_it() {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let mut bundle = Bundle::new("echo fine");
    set(&mut bundle.config, "/linux/mountLabel", json!("none-of-these"));

    let answer = bundle.run();

    let expected = "plim-oci: warning: linux.mountLabel: the kernel of this host has no SELinux: left out";
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("fine", expected));
}

#[test]
fn what_is_no_json_is_told_with_its_position() {
    let bundle = Bundle::new("true");
    std::fs::write(bundle.path("config.json"), "{\"ociVersion\": \"1.0.0\",}").unwrap();

    let answer = bundle.call(&["create", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);

    assert!(answer.err.contains("config.json: "), "{answer:?}");
    assert!(answer.err.contains("at line 1 column 24"), "{answer:?}");
}

#[test]
fn a_log_has_the_error_for_the_program_that_called() {
    let bundle = Bundle::new("true");
    let log = bundle.path("log");

    let answer = bundle.call(&["--log", log.to_str().unwrap(), "--log-format", "json", "state", "none"]);

    let line: Value = serde_json::from_str(std::fs::read_to_string(log).unwrap().trim()).unwrap();
    assert_eq!((answer.code, line["level"].as_str()), (Some(1), Some("error")));
    assert_eq!(line["msg"], "container none does not exist");
}

#[test]
fn labels_are_refused_by_name_where_the_kernel_has_no_module_for_them() {
    let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let apparmor = apparmor.is_ok_and(|text| text.starts_with('Y'));
    let selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    for (pointer, is_there, expected) in [
        ("/process/apparmorProfile", apparmor, "process.apparmorProfile: the kernel of this host has no AppArmor"),
        ("/process/selinuxLabel", selinux, "process.selinuxLabel: the kernel of this host has no SELinux"),
    ] {
        let mut bundle = Bundle::new("true");
        set(&mut bundle.config, pointer, json!("none-of-these"));

        let answer = bundle.run();

        // Where there is one, it is the module that does not know the label.
        assert_eq!((answer.code, answer.err.contains(expected)), (Some(1), !is_there), "{pointer}: {answer:?}");
        assert!(bundle.is_gone(), "{pointer}");
    }
    let bundle = crate::cgroups::running("exec sleep 1000", &json!({}));
    for (option, is_there, expected) in [
        ("--apparmor", apparmor, "process.apparmorProfile: the kernel of this host has no AppArmor"),
        ("--process-label", selinux, "process.selinuxLabel: the kernel of this host has no SELinux"),
    ] {
        let answer = bundle.call(&["exec", option, "none-of-these", &bundle.id(), "/bin/true"]);

        assert_eq!((answer.code, answer.err.contains(expected)), (Some(255), !is_there), "{option}: {answer:?}");
    }
}
