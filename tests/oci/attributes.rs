//! How the kernel treats a container's processes, seen from inside.

use crate::fixture::{Answer, Bundle};
use serde_json::{Value, json};
use std::process::Command;

fn started(bundle: &Bundle) {
    assert_eq!(bundle.create().code, Some(0), "{}", std::fs::read_to_string(bundle.path("err")).unwrap());
    assert_eq!(bundle.on(&["start"]).code, Some(0));
}

fn exec(bundle: &Bundle, script: &str) -> String {
    let answer = bundle.call(&["exec", &bundle.id(), "sh", "-c", script]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    answer.out
}

/// The runtime under another program, which changes what it starts with.
fn under(bundle: &Bundle, program: &[&str], words: &[&str]) -> Answer {
    bundle.write();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(crate::fixture::runtime()).arg("--root").arg(bundle.path("state")).args(words);
    command.output().unwrap().into()
}

#[test]
#[ignore = "needs root"]
fn the_personality_is_that_of_the_program_and_of_those_executed_later() {
    let mut bundle = Bundle::new("uname -m; exec sleep 1000");
    let own = exec_host("uname", &["-m"]);
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    started(&bundle);

    let inside = exec(&bundle, "uname -m");

    assert_ne!(inside, own);
    bundle.wait("its output", || std::fs::read_to_string(bundle.path("out")).unwrap().trim_end() == inside);
}

fn exec_host(program: &str, words: &[&str]) -> String {
    Answer::from(Command::new(program).args(words).output().unwrap()).out
}

#[test]
#[ignore = "needs root"]
fn each_scheduling_policy_is_set_with_its_parameters() {
    let cases: [(Value, &[&str]); 6] = [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), &["SCHED_OTHER", "nice 7"]),
        (json!({"policy": "SCHED_BATCH", "nice": -3}), &["SCHED_BATCH", "nice -3"]),
        (json!({"policy": "SCHED_IDLE"}), &["SCHED_IDLE"]),
        (json!({"policy": "SCHED_FIFO", "priority": 9}), &["SCHED_FIFO", "priority: 9"]),
        (
            json!({"policy": "SCHED_RR", "priority": 8, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            &["SCHED_RR|SCHED_RESET_ON_FORK", "priority: 8"],
        ),
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            &["SCHED_DEADLINE", "1000000/10000000/20000000"],
        ),
    ];
    for own_users in [false, true] {
        for (scheduler, expected) in &cases {
            // The shell's own, as what it starts may have another.
            let mut bundle = Bundle::new("chrt -p $$; echo nice $(cut -d ' ' -f 19 /proc/$$/stat)");
            if own_users {
                user_namespace(&mut bundle);
            }
            bundle.config["process"]["scheduler"] = scheduler.clone();

            bundle.write();
            let (id, path) = (bundle.id(), bundle.path(""));

            // A new group of the v1 hierarchy has no share of real time, and then no kernel gives it.
            let run = ["--cgroup-manager", "disabled", "run", "--bundle", path.to_str().unwrap(), &id];
            let answer = bundle.call(&run);

            assert_eq!(answer.code, Some(0), "{scheduler} {answer:?}");
            assert!(expected.iter().all(|part| answer.out.contains(part)), "{scheduler} {answer:?}");
        }
    }
}

fn user_namespace(bundle: &mut Bundle) {
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let extents = json!([{"containerID": 0, "hostID": 700_000, "size": 1000}]);
    linux["uidMappings"] = extents.clone();
    linux["gidMappings"] = extents;
    Command::new("chmod").arg("755").arg(bundle.path("")).status().unwrap();
}

#[test]
#[ignore = "needs root"]
fn the_io_priority_is_set() {
    for (priority, expected) in [
        (json!({"class": "IOPRIO_CLASS_RT", "priority": 5}), "realtime: prio 5"),
        (json!({"class": "IOPRIO_CLASS_BE", "priority": 2}), "best-effort: prio 2"),
        (json!({"class": "IOPRIO_CLASS_IDLE"}), "idle"),
    ] {
        let mut bundle = Bundle::new("ionice; exec sleep 1000");
        bundle.config["process"]["ioPriority"] = priority;
        started(&bundle);
        assert_eq!(exec(&bundle, "ionice"), expected);
        bundle.wait("its output", || std::fs::read_to_string(bundle.path("out")).unwrap().trim_end() == expected);
    }
}

const CPUS: &str = "grep Cpus_allowed_list /proc/self/status | cut -f 2";

#[test]
#[ignore = "needs root"]
fn the_callers_cpus_are_not_the_containers() {
    let mut bundle = Bundle::new(CPUS);
    let all = exec_host("sh", &["-c", &format!("taskset -pc 0-1023 $$ > /dev/null; {CPUS}")]);
    let (id, path) = (bundle.id(), bundle.path(""));
    let out = under(&bundle, &["taskset", "-c", "0"], &["run", "--bundle", path.to_str().unwrap(), &id]);
    assert_eq!(out.out, all, "{out:?}");

    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", "exec sleep 1000"]);
    started(&bundle);
    let words = ["exec", &id, "sh", "-c", CPUS];
    assert_eq!(under(&bundle, &["taskset", "-c", "0"], &words).out, all);

    bundle.on(&["delete", "--force"]);
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0-1", "final": "0"});
    started(&bundle);
    assert_eq!(exec(&bundle, CPUS), "0");
}

#[test]
#[ignore = "needs root"]
fn memory_comes_from_where_the_policy_says() {
    for (policy, expected) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), " bind=static:0 "),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), " interleave:0 "),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), " prefer:0 "),
        (json!({"mode": "MPOL_LOCAL"}), " local "),
    ] {
        let mut bundle = Bundle::new("exec sleep 1000");
        bundle.config["linux"]["memoryPolicy"] = policy;
        started(&bundle);
        let state: Value = serde_json::from_str(&bundle.on(&["state"]).out).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{}/numa_maps", state["pid"])).unwrap();
        assert!(maps.contains(expected), "{expected} {maps}");
        assert!(exec(&bundle, "cat /proc/self/numa_maps").contains(expected), "{expected}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_container_has_a_keyring_of_its_own_which_exec_joins() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.config["linux"]["maskedPaths"] = json!([]);
    started(&bundle);
    let name = format!("_ses.{}", bundle.id());
    let keys = format!("grep -F {name} /proc/keys | cut -d ' ' -f 1");

    let (first, second) = (exec(&bundle, &keys), exec(&bundle, &keys));

    assert!(!first.is_empty() && first == second, "{first:?} {second:?}");
    // Of another container, as one that has gone is seen for a while.
    let mut bundle = Bundle::new("");
    bundle.config["linux"]["maskedPaths"] = json!([]);
    let count = format!("grep -c -F _ses.{} /proc/keys", bundle.id());
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", count]);
    bundle.write();
    let path = bundle.path("");
    let answer = bundle.call(&["run", "--no-new-keyring", "--bundle", path.to_str().unwrap(), &bundle.id()]);
    assert_eq!(answer.out, "0", "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn the_callers_groups_stay_where_an_annotation_says_so() {
    let mut bundle = Bundle::new("id -G");
    let (id, path) = (bundle.id(), bundle.path(""));
    let words = ["run", "--bundle", path.to_str().unwrap(), &id];
    let setpriv = ["setpriv", "--groups", "7,8"];
    assert_eq!(under(&bundle, &setpriv, &words).out, "0");

    bundle.config["annotations"] = json!({"run.oci.keep_original_groups": "1"});

    assert_eq!(under(&bundle, &setpriv, &words).out, "0 7 8");
}
