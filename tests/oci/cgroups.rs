//! Limits, devices and what is inside a cgroup, on v1, hybrid and v2 hosts alike.

use crate::fixture::{Bundle, cgroup_directories};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// The container's directory in each hierarchy.
fn directories(bundle: &Bundle) -> Vec<PathBuf> {
    let below = |mount: PathBuf| mount.join("plim-oci").join(bundle.id());
    cgroup_directories().into_iter().map(below).filter(|path| path.exists()).collect()
}

/// What the first of these files that there is says.
pub fn says(bundle: &Bundle, files: &[&str]) -> String {
    let texts = directories(bundle).into_iter().flat_map(|path| files.iter().map(move |file| path.join(file)));
    texts.filter_map(|path| fs::read_to_string(path).ok()).next().unwrap_or_default().trim().to_owned()
}

/// Every controller is in the v2 hierarchy.
pub fn is_unified() -> bool {
    cgroup_directories().len() == 1 && std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

pub fn running(script: &str, resources: &serde_json::Value) -> Bundle {
    let mut bundle = Bundle::new(script);
    for (name, value) in resources.as_object().unwrap() {
        bundle.config["linux"]["resources"][name] = value.clone();
    }
    let created = bundle.create();
    assert_eq!(created.code, Some(0), "{created:?}");
    let started = bundle.on(&["start"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    bundle
}

fn update(bundle: &Bundle, resources: &serde_json::Value) -> crate::fixture::Answer {
    let file = bundle.path("update.json");
    fs::write(&file, resources.to_string()).unwrap();
    bundle.on(&["update", "--resources", file.to_str().unwrap()])
}

/// A device that nobody drives: the kernel says so only to those who may open it.
const NOBODYS: &str = "/dev/nobodys";

fn put_device(bundle: &mut Bundle) {
    bundle.config["linux"]["devices"] = json!([{"path": NOBODYS, "type": "c", "major": 240, "minor": 77}]);
}

/// A command for the shell that says whether the device could be opened.
fn open(how: &str) -> String {
    format!("(: {how}{NOBODYS}) 2>&1 | grep -q 'No such device' && echo opened || echo refused")
}

#[test]
#[ignore = "needs root"]
fn a_device_is_opened_when_a_rule_says_so_and_the_last_rule_counts() {
    let rule =
        |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 240, "minor": 77, "access": access});
    let deny_all = json!({"allow": false, "access": "rwm"});
    let cases = [
        (json!([]), "refused refused"),
        (json!([deny_all]), "refused refused"),
        (json!([deny_all, rule(true, "r")]), "opened refused"),
        (json!([deny_all, rule(true, "rw")]), "opened opened"),
        (json!([deny_all, rule(true, "rw"), rule(false, "w")]), "opened refused"),
        // What is no letter of an access means nothing, which is told.
        (json!([deny_all, rule(true, "rwa"), rule(false, "w ")]), "opened refused"),
        (json!([rule(true, "rw"), deny_all]), "refused refused"),
        (json!([{"allow": true, "access": "rwm"}, rule(false, "r")]), "refused opened"),
    ];
    for (rules, expected) in cases {
        let mut bundle = Bundle::new(&format!("{}; {}; : </dev/null", open("<"), open(">")));
        bundle.config["linux"]["resources"]["devices"] = rules.clone();
        put_device(&mut bundle);

        let answer = bundle.run();

        assert_eq!(answer.code, Some(0), "{rules} {answer:?}");
        assert_eq!(answer.out.replace('\n', " "), expected, "{rules} {answer:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn device_rules_change_while_the_container_runs() {
    let mut bundle = Bundle::new("exec sleep 1000");
    put_device(&mut bundle);
    bundle.create();
    bundle.on(&["start"]);
    let opens = || bundle.call(&["exec", &bundle.id(), "sh", "-c", &open("<")]).out == "opened";
    assert!(!opens());
    let rule =
        |allow: bool| json!({"devices": [{"allow": allow, "type": "c", "major": 240, "minor": 77, "access": "r"}]});

    for allow in [true, false, true] {
        let answer = update(&bundle, &rule(allow));
        assert_eq!((answer.code, opens()), (Some(0), allow), "{answer:?}");
    }
    // What the rules do not name stays as it is.
    assert_eq!(bundle.on(&["update", "--pids-limit", "50"]).code, Some(0));
    assert!(opens());
}

#[test]
#[ignore = "needs root"]
fn limits_are_written_in_the_order_that_the_kernel_takes() {
    let mib = |count: i64| count << 20;
    let limits = |memory: i64, sum: i64| json!({"memory": {"limit": mib(memory), "swap": mib(sum)}});
    let bundle = running("exec sleep 1000", &limits(100, 150));
    let memory = || says(&bundle, &["memory.max", "memory.limit_in_bytes"]).parse::<i64>().unwrap();
    let sum = || {
        let alone = says(&bundle, &["memory.swap.max"]);
        match alone.parse::<i64>() {
            Ok(alone) => alone + memory(),
            Err(_) => says(&bundle, &["memory.memsw.limit_in_bytes"]).parse().unwrap(),
        }
    };
    assert_eq!((memory(), sum()), (mib(100), mib(150)));

    for (new, new_sum) in [(300, 400), (50, 60), (60, 60), (40, 200)] {
        let answer = update(&bundle, &limits(new, new_sum));
        assert_eq!((answer.code, memory(), sum()), (Some(0), mib(new), mib(new_sum)), "{answer:?}");
    }

    let answer = bundle.on(&["update", "--memory-swap", &mib(120).to_string()]);
    assert_eq!((answer.code, memory(), sum()), (Some(0), mib(40), mib(120)), "{answer:?}");
    let answer = bundle.on(&["update", "--memory", "-1"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let memory = says(&bundle, &["memory.max", "memory.limit_in_bytes"]);
    assert!(memory == "max" || memory.len() == 19, "{memory}");
}

#[test]
#[ignore = "needs root"]
fn processor_limits_keep_what_an_update_does_not_name() {
    let cpu = json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000}});
    let bundle = running("exec sleep 1000", &cpu);
    let now = || match says(&bundle, &["cpu.max"]) {
        text if text.is_empty() => {
            format!("{} {}", says(&bundle, &["cpu.cfs_quota_us"]), says(&bundle, &["cpu.cfs_period_us"]))
        }
        text => text,
    };
    assert_eq!(now(), "50000 100000");
    assert_eq!(says(&bundle, &["cpu.max.burst", "cpu.cfs_burst_us"]), "10000");
    let weight = if is_unified() { "59" } else { "512" };
    assert_eq!(says(&bundle, &["cpu.weight", "cpu.shares"]), weight);

    for (words, expected) in [
        (["--cpu-period", "200000"], "50000 200000"),
        (["--cpu-quota", "150000"], "150000 200000"),
        (["--cpu-quota", "5000"], "5000 200000"),
    ] {
        // A quota below what may be saved up is refused until that is lowered as well.
        let words = [&["update"], words.as_slice(), &["--cpu-burst", "1000"]].concat();
        let answer = bundle.on(&words);
        assert_eq!((answer.code, now().as_str()), (Some(0), expected), "{answer:?}");
    }
    assert_eq!(bundle.on(&["update", "--cpu-quota", "-1", "--cpu-burst", "0"]).code, Some(0));
    assert!(["max 200000", "-1 200000"].contains(&now().as_str()), "{}", now());
    assert_eq!(says(&bundle, &["cpu.weight", "cpu.shares"]), weight);
    assert_eq!(bundle.on(&["update", "--cpu-idle", "1"]).code, Some(0));
    assert_eq!(says(&bundle, &["cpu.idle"]), "1");
}

#[test]
#[ignore = "needs root"]
fn processors_and_nodes_are_those_named() {
    let bundle = running("exec sleep 1000", &json!({"cpu": {"cpus": "0", "mems": "0"}}));

    assert_eq!((says(&bundle, &["cpuset.cpus"]).as_str(), says(&bundle, &["cpuset.mems"]).as_str()), ("0", "0"));
    let inside = bundle.call(&["exec", &bundle.id(), "nproc"]);
    assert_eq!(inside.out, "1", "{inside:?}");
    let answer = bundle.on(&["update", "--cpuset-cpus", "0-1"]);
    assert_eq!((answer.code, says(&bundle, &["cpuset.cpus"]).as_str()), (Some(0), "0-1"), "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn a_limit_of_a_kind_that_a_container_did_not_have_can_be_added() {
    let bundle = running("sleep 1000 & exec sleep 2000", &json!({}));
    let all = || serde_json::from_str::<Vec<u32>>(&bundle.on(&["ps", "--format", "json"]).out).unwrap();
    bundle.wait("both", || all().len() == 2);

    let answer = bundle.on(&["update", "--cpuset-cpus", "0"]);

    assert_eq!((answer.code, says(&bundle, &["cpuset.cpus"]).as_str()), (Some(0), "0"), "{answer:?}");
    for pid in all() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    let answer = bundle.call(&["exec", &bundle.id(), "nproc"]);
    assert_eq!(answer.out, "1", "{answer:?}");
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_container_whose_cgroup_is_named_is_in_it_in_every_hierarchy() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/plim-oci/{}", bundle.id()));
    bundle.create();
    bundle.on(&["start"]);

    let all = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "unified"];
    let known =
        |mount: &PathBuf| mount.file_name().and_then(|name| name.to_str()).is_some_and(|name| all.contains(&name));
    for mount in cgroup_directories().into_iter().filter(|mount| known(mount) || is_unified()) {
        let procs = fs::read_to_string(mount.join("plim-oci").join(bundle.id()).join("cgroup.procs"));
        assert_eq!(procs.unwrap_or_default().lines().count(), 1, "{}", mount.display());
    }
    let event: serde_json::Value = serde_json::from_str(&bundle.on(&["events", "--stats"]).out).unwrap();
    assert!(event.pointer("/data/cpu/usage/total").unwrap().as_u64().unwrap() > 0, "{event}");
    assert_eq!((bundle.on(&["pause"]).code, bundle.status().as_str()), (Some(0), "paused"));
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_lower_memory_limit_than_what_is_used_is_refused_when_that_is_asked_for() {
    let script = "head -c 8000000 /dev/zero >/dev/shm/file; echo ready; sleep 1000";
    let bundle = running(script, &json!({"memory": {"limit": 200 << 20}}));
    bundle.wait("its memory", || fs::read_to_string(bundle.path("out")).unwrap() == "ready\n");

    let answer = update(&bundle, &json!({"memory": {"limit": 4 << 20, "checkBeforeUpdate": true}}));

    assert_eq!(answer.code, Some(1), "{answer:?}");
    let words = "linux.resources.memory.limit: rejecting memory limit 4194304, as ";
    assert!(answer.err.contains(words), "{answer:?}");
    let both = json!({"memory": {"limit": 4 << 20, "swap": 5 << 20, "checkBeforeUpdate": true}});
    let answer = update(&bundle, &both);
    let words = "linux.resources.memory.swap: rejecting memory+swap limit 5242880, as ";
    // A v1 kernel that does not count swap has no sum to compare.
    let has_sum = is_unified() || !says(&bundle, &["memory.memsw.usage_in_bytes"]).is_empty();
    assert!(answer.code == Some(1) && (answer.err.contains(words) || !has_sum), "{answer:?}");
    assert_eq!(bundle.status(), "running");
}

#[test]
#[ignore = "needs root"]
fn disks_are_throttled_by_their_numbers() {
    // Whatever disk there is: its number stands in /sys.
    let block = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let disk = block.filter_map(|path| fs::read_to_string(path.join("dev")).ok()).next().expect("a block device");
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let entry = |rate: u64| json!([{"major": major.parse::<u64>().unwrap(), "minor": minor.parse::<u64>().unwrap(), "rate": rate}]);
    let limits = json!({"blockIO": {"throttleReadBpsDevice": entry(1_048_576), "throttleWriteIOPSDevice": entry(77)}});
    let bundle = running("exec sleep 1000", &limits);
    let now = || match is_unified() {
        true => says(&bundle, &["io.max"]),
        false => format!(
            "{} {}",
            says(&bundle, &["blkio.throttle.read_bps_device"]),
            says(&bundle, &["blkio.throttle.write_iops_device"])
        ),
    };
    assert!(now().contains("1048576") && now().contains("77"), "{}", now());

    let answer = update(&bundle, &json!({"blockIO": {"throttleReadBpsDevice": entry(0)}}));

    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(!now().contains("1048576") && now().contains("77"), "{}", now());
}

#[test]
#[ignore = "needs root"]
fn limits_that_the_host_has_no_file_for_are_refused_by_name_and_leave_nothing() {
    let cases = [
        json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}),
        json!({"unified": {"memory.nothing": "1"}}),
        json!({"network": {"classID": 1}}),
        json!({"rdma": {"mlx5_1": {"hcaHandles": 1}}}),
        json!({"blockIO": {"leafWeight": 100}}),
    ];
    for resources in cases {
        let mut bundle = Bundle::new("true");
        let (name, value) = resources.as_object().unwrap().iter().next().unwrap();
        bundle.config["linux"]["resources"][name] = value.clone();

        let answer = bundle.run();

        // A host that has them takes the class, and knows no such RDMA device.
        let has_class = name == "network" && answer.code == Some(0);
        assert!(has_class || answer.err.contains(&format!("linux.resources.{name}")), "{resources} {answer:?}");
        assert!(bundle.is_gone(), "{resources}");
    }
}

#[test]
#[ignore = "needs root"]
fn cgroups_that_a_container_made_inside_go_with_it() {
    let bundle = running("exec sleep 1000", &json!({}));
    let inner = |path: &PathBuf| {
        let deep = path.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        deep
    };
    let made: Vec<PathBuf> =
        directories(&bundle).iter().filter(|path| !path.starts_with("/sys/fs/cgroup/cpuset")).map(inner).collect();
    assert!(!made.is_empty());

    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_threaded_cgroup_inside_is_no_hindrance() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.create();
    bundle.on(&["start"]);
    let unified = |path: &PathBuf| path.join("cgroup.type").exists();
    let Some(path) = directories(&bundle).into_iter().find(unified) else { panic!("no v2 hierarchy on this host") };
    let threaded = path.join("threads");
    fs::create_dir(&threaded).unwrap();
    fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    let pid = fs::read_to_string(path.join("cgroup.procs")).unwrap();
    fs::write(threaded.join("cgroup.threads"), pid.trim()).unwrap();

    let listed: Vec<u32> = serde_json::from_str(&bundle.on(&["ps", "--format", "json"]).out).unwrap();
    assert_eq!(listed, [pid.trim().parse::<u32>().unwrap()]);
    for words in [["pause"], ["resume"]] {
        let answer = bundle.on(&words);
        assert_eq!(answer.code, Some(0), "{words:?} {answer:?}");
    }
    assert_eq!(bundle.call(&["kill", "--all", &bundle.id(), "KILL"]).code, Some(0));
    bundle.wait("its end", || bundle.status() == "stopped");
    assert_eq!(bundle.on(&["delete"]).code, Some(0));
    assert!(bundle.is_gone());
    bundle.config = json!(null);
}

#[test]
#[ignore = "needs root"]
fn a_signal_to_all_reaches_what_forks_without_end() {
    let script = "while :; do (sleep 0.01 &) ; done";
    let mut bundle = Bundle::new(script);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 60});
    // Without a pid namespace nothing but the cgroup holds them together.
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|entry| entry["type"] != "pid");
    bundle.create();
    bundle.on(&["start"]);

    let answer = bundle.call(&["kill", "--all", &bundle.id(), "KILL"]);

    assert_eq!(answer.code, Some(0), "{answer:?}");
    bundle.wait("its end", || bundle.on(&["ps", "--format", "json"]).out == "[]");
    assert_eq!(bundle.on(&["delete", "--force"]).code, Some(0));
    assert!(bundle.is_gone());
}

#[test]
#[ignore = "needs root"]
fn a_cgroup_in_which_somebody_is_or_nothing_would_run_is_refused() {
    let mut bundle = Bundle::new("true");
    let name = format!("/plim-oci/{}-taken", bundle.id());
    bundle.config["linux"]["cgroupsPath"] = json!(name);
    let mount = cgroup_directories().into_iter().find(|mount| mount.join("cgroup.controllers").exists());
    let mount = mount.expect("a v2 hierarchy");
    let path = mount.join(&name[1..]);
    fs::create_dir_all(&path).unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();

    let occupied = bundle.run();
    fs::write(mount.join("cgroup.procs"), child.id().to_string()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(path.join("cgroup.freeze"), "1").unwrap();
    let frozen = bundle.run();
    fs::write(path.join("cgroup.freeze"), "0").unwrap();
    let empty = bundle.run();

    assert!(occupied.code == Some(1) && occupied.err.contains("has processes in it already"), "{occupied:?}");
    assert!(frozen.code == Some(1) && frozen.err.contains("cgroup unexpectedly frozen"), "{frozen:?}");
    assert_eq!(empty.code, Some(0), "{empty:?}");
    // Whoever made it may still need it; a container takes its own with it.
    let _ = fs::remove_dir(&path);
}
