//! Who makes the cgroup: systemd, nobody, and whom it belongs to.

use crate::fixture::{Bundle, cgroup_directories};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn property(unit: &str, name: &str) -> String {
    let words = ["show", "--property", name, "--value", unit];
    let output = std::process::Command::new("systemctl").args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn create(bundle: &Bundle, global: &[&str]) -> crate::fixture::Answer {
    bundle.write();
    let (directory, id) = (bundle.path(""), bundle.id());
    let words = [global, &["run", "--detach", "--bundle", directory.to_str().unwrap(), &id]].concat();
    let out = fs::File::create(bundle.path("out")).unwrap();
    let err = fs::File::create(bundle.path("err")).unwrap();
    let status = bundle.command(&words).stdout(out).stderr(err).status().unwrap();
    let err = fs::read_to_string(bundle.path("err")).unwrap();
    crate::fixture::Answer { code: status.code(), out: String::new(), err }
}

#[test]
#[ignore = "needs root"]
fn systemd_makes_a_scope_where_it_runs_and_else_that_is_refused() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let id = bundle.id();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("plimtest-a.slice:plim:{id}"));
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67_108_864, "swap": 100_000_000});
    bundle.config["linux"]["resources"]["cpu"] =
        json!({"shares": 2048, "quota": 50_000, "period": 100_000, "cpus": "0"});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 77});

    let answer = create(&bundle, &["--systemd-cgroup"]);

    if !has_systemd() {
        let hybrid = cgroup_directories().len() > 1;
        let what = if hybrid { "takes a host that is all cgroup v2" } else { "connecting to systemd" };
        assert!(answer.code == Some(1) && answer.err.contains(what), "{answer:?}");
        assert!(bundle.is_gone());
        return;
    }
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let unit = format!("plim-{id}.scope");
    let path = PathBuf::from(format!("/sys/fs/cgroup/plimtest.slice/plimtest-a.slice/{unit}"));
    let file = |name: &str| fs::read_to_string(path.join(name)).unwrap().trim().to_owned();
    assert_eq!(property(&unit, "ActiveState"), "active");
    let state: serde_json::Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    assert_eq!(state["systemd-scope"], json!(unit));
    assert_eq!((property(&unit, "Delegate"), property(&unit, "MemoryMax")), ("yes".to_owned(), "67108864".to_owned()));
    assert_eq!((property(&unit, "TasksMax"), file("pids.max")), ("77".to_owned(), "77".to_owned()));
    assert_eq!(
        (property(&unit, "CPUQuotaPerSecUSec"), file("cpu.max")),
        ("500ms".to_owned(), "50000 100000".to_owned())
    );
    assert_eq!(file("cgroup.procs").lines().count(), 1, "nothing but the program");

    let updated = bundle.on(&["update", "--memory", "134217728", "--memory-swap", "200000000"]);
    assert_eq!(updated.code, Some(0), "{updated:?}");
    // systemd keeps whole hundredths of a CPU, and forgets the period of no quota.
    for (option, value, per_second, max) in [
        ("--cpu-period", "200000", "250ms", "50000 200000"),
        ("--cpu-quota", "61000", "310ms", "62000 200000"),
        ("--cpu-quota", "-1", "infinity", "max 200000"),
    ] {
        let updated = bundle.on(&["update", option, value]);
        assert_eq!((updated.code, file("cpu.max").as_str()), (Some(0), max), "{updated:?}");
        assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), per_second);
    }
    let mut second = Bundle::new("true");
    second.config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    let refused = create(&second, &["--systemd-cgroup"]);
    assert!(refused.code == Some(1) && refused.err.contains("container's cgroup is not empty"), "{refused:?}");
    assert!(std::process::Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    assert_eq!((property(&unit, "MemoryMax"), file("memory.max")), ("134217728".to_owned(), "134217728".to_owned()));
    // The device rules are there still: only the usual devices are opened.
    let opens = |device: &str| bundle.call(&["exec", &id, "sh", "-c", &format!(": <{device}")]).code == Some(0);
    assert!(opens("/dev/null"));

    assert_eq!(bundle.on(&["pause"]).code, Some(0));
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(!path.exists());
    assert_eq!(property(&unit, "LoadState"), "not-found");
    // The name is free again, also after a failure.
    bundle.config["process"]["args"] = json!(["nope"]);
    let failed = create(&bundle, &["--cgroup-manager", "systemd"]);
    assert!(failed.code == Some(1) && failed.err.contains("executable file not found"), "{failed:?}");
    assert!(!path.exists() && !bundle.path("state").join(&id).exists());
    bundle.config["process"]["args"] = json!(["/bin/true"]);
    let again = create(&bundle, &["--cgroup-manager", "systemd"]);
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[test]
#[ignore = "needs root"]
fn a_path_that_systemd_does_not_take_is_refused_by_name() {
    for path in ["/a/b", "a:b", "a-.slice:b:c", "a.slice:b:c/d"] {
        let mut bundle = Bundle::new("true");
        bundle.config["linux"]["cgroupsPath"] = json!(path);

        let answer = create(&bundle, &["--systemd-cgroup"]);

        assert!(answer.code == Some(1) && answer.err.contains("linux.cgroupsPath: "), "{path} {answer:?}");
        assert!(bundle.is_gone());
    }
}

#[test]
#[ignore = "needs root"]
fn without_a_cgroup_a_container_stays_where_its_creator_is() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let answer = create(&bundle, &["--cgroup-manager", "disabled"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");

    let state: serde_json::Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
    let cgroup = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup(&state["pid"].to_string()), cgroup("self"));
    assert_eq!(bundle.call(&["exec", &bundle.id(), "echo", "here"]).out, "here");
    assert_eq!(bundle.on(&["pause"]).code, Some(1));
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());

    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 5});
    let refused = create(&bundle, &["--cgroup-manager", "disabled"]);
    assert!(refused.code == Some(1) && refused.err.contains("linux.resources: limits take a cgroup"), "{refused:?}");
}

#[test]
#[ignore = "needs root"]
fn a_v2_cgroup_belongs_to_the_containers_user_and_its_limits_do_not() {
    let script = "cd /sys/fs/cgroup; [ -e cgroup.procs ] || exit 0; stat -c '%u %n' . cgroup.procs cgroup.subtree_control pids.max; \
                  mkdir inner && echo made; echo 0 >inner/cgroup.procs && echo moved; \
                  (echo 9 >pids.max) 2>/dev/null || echo kept";
    let mut bundle = Bundle::new(script);
    let linux = &mut bundle.config["linux"];
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|entry| entry["type"] != "cgroup");
    namespaces.extend([json!({"type": "user"}), json!({"type": "cgroup"})]);
    let extents = json!([{"containerID": 0, "hostID": 700_000, "size": 65_536}]);
    linux["uidMappings"] = extents.clone();
    linux["gidMappings"] = extents;
    linux["resources"]["pids"] = json!({"limit": 99});
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" || mount["type"] == "cgroup2" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
    let root = bundle.path("rootfs");
    for path in [root.clone(), root.join("tmp")] {
        std::os::unix::fs::chown(path, Some(700_000), Some(700_000)).unwrap();
    }
    std::process::Command::new("chmod").arg("755").arg(bundle.path("")).status().unwrap();

    let answer = bundle.run();

    let found: Vec<&str> = answer.out.lines().collect();
    if cgroup_directories().len() > 1 {
        // Delegating a part of v1 is not safe, and there the limits are.
        assert_eq!((answer.code, answer.out.as_str()), (Some(0), ""), "{answer:?}");
        return;
    }
    let expected = ["0 .", "0 cgroup.procs", "0 cgroup.subtree_control", "65534 pids.max", "made", "moved", "kept"];
    assert_eq!(found, expected, "{answer:?}");
    assert!(bundle.is_gone());
}
