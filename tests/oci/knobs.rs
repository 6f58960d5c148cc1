//! Knobs that only some hosts have: set where they are, refused by name where they are not.

use crate::cgroups::{is_unified, running, says};
use crate::fixture::{Answer, Bundle, cgroup_directories};
use serde_json::{Value, json};

/// Whether the v2 hierarchy has a controller.
fn has_controller(name: &str) -> bool {
    let lists = cgroup_directories().into_iter().map(|mount| mount.join("cgroup.controllers"));
    lists
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|text| text.split_whitespace().any(|one| one == name))
}

fn run(resources: &Value) -> Answer {
    let mut bundle = Bundle::new("true");
    for (name, value) in resources.as_object().unwrap() {
        bundle.config["linux"]["resources"][name] = value.clone();
    }
    let answer = bundle.run();
    assert!(bundle.is_gone(), "{resources} {answer:?}");
    answer
}

#[test]
#[ignore = "needs root"]
fn knobs_of_v1_are_set_there_and_refused_in_v2() {
    let memory = json!({"swappiness": 7, "disableOOMKiller": true, "reservation": 16_777_216, "limit": 33_554_432});
    if is_unified() {
        for (field, value) in
            [("swappiness", json!(7)), ("disableOOMKiller", json!(true)), ("kernel", json!(9)), ("kernelTCP", json!(9))]
        {
            let answer = run(&json!({"memory": {field: value}}));
            let what = format!("linux.resources.memory.{field}: the v2 hierarchy has no such knob");
            assert!(answer.code == Some(1) && answer.err.contains(&what), "{answer:?}");
        }
        return;
    }
    let bundle = running("exec sleep 1000", &json!({"memory": memory}));
    assert_eq!(says(&bundle, &["memory.swappiness"]), "7");
    assert!(says(&bundle, &["memory.oom_control"]).starts_with("oom_kill_disable 1"));
    assert_eq!(says(&bundle, &["memory.soft_limit_in_bytes"]), "16777216");

    assert_eq!(bundle.on(&["update", "--memory-reservation", "8388608"]).code, Some(0));
    assert_eq!(says(&bundle, &["memory.soft_limit_in_bytes"]), "8388608");
    // Not named, not changed.
    assert_eq!(says(&bundle, &["memory.swappiness"]), "7");
}

#[test]
#[ignore = "needs root"]
fn knobs_of_v2_are_set_there_by_unified_and_refused_where_it_has_no_controllers() {
    let unified = json!({"unified": {
        "memory.high": "50000000", "memory.min": "1000000", "memory.oom.group": "1", "cgroup.max.depth": "9",
    }});
    if !has_controller("memory") {
        let answer = run(&unified);
        assert!(answer.code == Some(1) && answer.err.contains("linux.resources.unified[\"memory."), "{answer:?}");
        return;
    }
    let bundle = running("exec sleep 1000", &unified);
    let now = ["memory.high", "memory.min", "memory.oom.group", "cgroup.max.depth"].map(|file| says(&bundle, &[file]));
    // The kernel counts in pages.
    assert_eq!(now, ["49999872", "999424", "1", "9"]);
}

#[test]
#[ignore = "needs root"]
fn realtime_is_set_in_v1_where_the_kernel_can_and_refused_elsewhere() {
    let mut bundle = Bundle::new("exec sleep 1000");
    // Those above have to give it first, and the root alone has any.
    let path = format!("/{}", bundle.id());
    bundle.config["linux"]["cgroupsPath"] = json!(path);
    bundle.config["linux"]["resources"]["cpu"] = json!({"realtimeRuntime": 1000, "realtimePeriod": 500_000});
    let file = |name: &str| {
        let paths = cgroup_directories().into_iter().map(|mount| mount.join(&path[1..]).join(name));
        paths.filter_map(|path| std::fs::read_to_string(path).ok()).next().unwrap_or_default().trim().to_owned()
    };
    // A kernel may have the files and give nothing: what it says to a plain directory counts.
    let can = cgroup_directories().iter().any(|mount| {
        let plain = mount.join(format!("{}-plain", &path[1..]));
        let file = plain.join("cpu.rt_runtime_us");
        let made = mount.join("cpu.rt_runtime_us").exists() && std::fs::create_dir(&plain).is_ok();
        let taken = made && std::fs::write(file, "1000").is_ok();
        let _ = std::fs::remove_dir(plain);
        taken
    });

    let answer = bundle.create();

    if can {
        assert_eq!((answer.code, file("cpu.rt_runtime_us").as_str()), (Some(0), "1000"), "{answer:?}");
        assert_eq!(file("cpu.rt_period_us"), "500000");
        assert_eq!(bundle.on(&["update", "--cpu-rt-runtime", "2000"]).code, Some(0));
        assert_eq!((file("cpu.rt_runtime_us").as_str(), file("cpu.rt_period_us").as_str()), ("2000", "500000"));
    } else {
        assert!(answer.code == Some(1) && answer.err.contains("linux.resources.cpu.realtime"), "{answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn huge_pages_are_limited_and_with_them_what_is_reserved() {
    let limits = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]});
    if !has_controller("hugetlb") {
        let answer = run(&limits);
        let what = "linux.resources.hugepageLimits[0]: this host has no hugetlb.2MB.max for it";
        assert!(answer.code == Some(1) && answer.err.contains(what), "{answer:?}");
        return;
    }
    let bundle = running("exec sleep 1000", &limits);
    assert_eq!(says(&bundle, &["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]), "4194304");
    assert_eq!(says(&bundle, &["hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes"]), "4194304");
    let event: Value = serde_json::from_str(&bundle.on(&["events", "--stats"]).out).unwrap();
    assert_eq!(event["data"]["hugetlb"]["2MB"]["failcnt"], json!(0), "{event}");
}

#[test]
#[ignore = "needs root"]
fn rdma_and_misc_reach_the_kernel_which_knows_no_such_device() {
    let cases = [
        (
            "rdma",
            json!({"rdma": {"nothing0": {"hcaHandles": 3, "hcaObjects": 4}}}),
            "nothing0 hca_handle=3 hca_object=4",
        ),
        ("misc", json!({"unified": {"misc.max": "nothing 1"}}), "nothing 1"),
    ];
    for (controller, resources, value) in cases {
        let answer = run(&resources);

        let what = if has_controller(controller) {
            format!("writing {value:?} to ")
        } else {
            format!("{controller}.max for it")
        };
        assert!(answer.code == Some(1) && answer.err.contains(&what), "{controller} {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn packets_have_a_class_and_a_priority_where_v1_has_the_controllers() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let network = json!({"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 5}]});
    bundle.config["linux"]["resources"]["network"] = network;
    bundle.write();
    let hierarchy = bundle.path("classes");
    std::fs::create_dir(&hierarchy).unwrap();
    // A hierarchy that is mounted for this test alone, and gone with it. A kernel without v1 refuses.
    let script = "mount -t cgroup -o net_cls,net_prio none \"$1\" 2>/dev/null || { echo none; shift; exec \"$@\"; }; \
                  at=$1; shift; \"$@\" && cat $at/plim-oci/*/net_cls.classid && grep lo $at/plim-oci/*/net_prio.ifpriomap; \
                  code=$?; for id; do :; done; \"$1\" \"$2\" \"$3\" delete --force \"$id\"; \
                  rmdir $at/plim-oci 2>/dev/null; umount $at; exit $code";
    let run = bundle.command(&["run", "--detach", "--bundle", bundle.path("").to_str().unwrap(), &bundle.id()]);
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&hierarchy).arg(run.get_program()).args(run.get_args());
    let out = bundle.path("out");
    let file = || std::fs::OpenOptions::new().create(true).append(true).open(&out).unwrap();

    let status = command.stdin(std::process::Stdio::null()).stdout(file()).stderr(file()).status().unwrap();

    let text = std::fs::read_to_string(&out).unwrap();
    if text.starts_with("none") {
        assert!(text.contains("linux.resources.network.classID: this host has no net_cls.classid"), "{text}");
    } else {
        assert!(status.success() && text.contains("1048577") && text.contains("lo 5"), "{text}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_weight_for_disks_is_set_where_a_scheduler_knows_it_and_refused_elsewhere() {
    let files = ["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"];
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["resources"]["blockIO"] = json!({"weight": 300});

    let created = bundle.create();

    if created.code != Some(0) {
        assert!(created.err.contains("linux.resources.blockIO.weight: "), "{created:?}");
        let devices = json!({"blockIO": {"weightDevice": [{"major": 7, "minor": 0, "weight": 300}]}});
        let answer = run(&devices);
        assert!(answer.code == Some(1) && answer.err.contains("blockIO.weightDevice[0].weight: "), "{answer:?}");
        assert!(bundle.is_gone());
        return;
    }
    let set = says(&bundle, &files);
    assert!(set.starts_with("300") || set.starts_with("default "), "{set}");
    let updated = bundle.on(&["update", "--blkio-weight", "600"]);
    assert_eq!(updated.code, Some(0), "{updated:?}");
    assert_ne!(says(&bundle, &files), set);
}

#[test]
#[ignore = "needs root"]
fn shares_of_caches_are_refused_for_a_container_without_a_group_of_its_own() {
    let bundle = running("exec sleep 1000", &json!({}));
    for option in ["--l3-cache-schema", "--mem-bw-schema"] {
        let answer = bundle.on(&["update", option, "L3:0=f"]);

        let what = "linux.intelRdt: the container has no group of its own";
        assert!(answer.code == Some(1) && answer.err.contains(what), "{answer:?}");
    }
}
