//! What is told of a container that runs: `events`, `ps`, `list`.

use crate::fixture::Bundle;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn running(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 44});
    let created = bundle.create();
    assert_eq!(created.code, Some(0), "{created:?}");
    assert_eq!(bundle.on(&["start"]).code, Some(0));
    bundle
}

#[test]
#[ignore = "needs root"]
fn figures_are_those_of_the_kernel() {
    let bundle = running("head -c 3000000 /dev/zero >/dev/shm/file; echo ready; exec sleep 1000");
    bundle.wait("its file", || std::fs::read_to_string(bundle.path("out")).unwrap() == "ready\n");

    let answer = bundle.on(&["events", "--stats"]);

    let event: Value = serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(bundle.id().as_str())));
    let number = |pointer: &str| event["data"].pointer(pointer).and_then(Value::as_u64);
    assert_eq!(number("/memory/usage/limit"), Some(33_554_432));
    assert!(number("/memory/usage/usage").unwrap() >= 3_000_000, "{event}");
    assert!(number("/memory/cache").unwrap() >= 3_000_000, "{event}");
    assert_eq!((number("/pids/current"), number("/pids/limit")), (Some(1), Some(44)));
    assert!(number("/cpu/usage/total").unwrap() > 0, "{event}");
    assert!(event["data"]["cpu"]["usage"]["user"].is_u64() && event["data"]["memory"]["raw"].is_object());
    // The v2 hierarchy has it, whichever hierarchy has the limits.
    assert!(number("/cpu/psi/some/total").is_some() && number("/memory/psi/full/total").is_some(), "{event}");
    assert!(event["data"]["network_interfaces"].as_array().unwrap().iter().any(|one| one["Name"] == "lo"), "{event}");
}

#[test]
#[ignore = "needs root"]
fn running_out_of_memory_is_told_and_the_end_ends_it() {
    // The one that is killed is a child of the shell's.
    let script = "mkfifo /dev/shm/go; echo ready; read go </dev/shm/go; head -c 200000000 /dev/zero | tail >/dev/null; \
                  exec sleep 1000";
    let bundle = running(script);
    bundle.wait("its fifo", || std::fs::read_to_string(bundle.path("out")).unwrap() == "ready\n");
    let mut child =
        bundle.command(&["events", "--interval", "100ms", &bundle.id()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = move || lines.next().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    // It watches, once it has said something.
    assert_eq!(next().unwrap()["type"], "stats");

    assert_eq!(bundle.call(&["exec", &bundle.id(), "sh", "-c", "echo >/dev/shm/go"]).code, Some(0));

    // Ten seconds' worth of figures come before it at most.
    let mut kinds = std::iter::from_fn(&mut next).take(100).map(|event| event["type"].as_str().unwrap().to_owned());
    assert!(kinds.any(|kind| kind == "oom"), "the stream has none");
    drop(kinds);
    // The kernel may have gone on to the shell, before what the first one had was free again.
    let killed = bundle.call(&["kill", &bundle.id(), "KILL"]);
    assert!(killed.code == Some(0) || killed.err.contains("is stopped"), "{killed:?}");
    while next().is_some() {}
    assert!(child.wait().unwrap().success());
    let after = bundle.on(&["events", "--stats"]);
    assert!(after.code == Some(1) && after.err.contains("is stopped"), "{after:?}");
}

#[test]
#[ignore = "needs root"]
fn processes_are_listed_as_ps_is_told_to() {
    let bundle = running("sleep 1000 & exec sleep 2000");
    let count = || serde_json::from_str::<Vec<u32>>(&bundle.on(&["ps", "--format", "json"]).out).unwrap().len();
    bundle.wait("both", || count() == 2);

    let table = bundle.on(&["ps"]);
    let own = bundle.call(&["ps", &bundle.id(), "-o", "pid,args"]);
    let none = bundle.call(&["ps", &bundle.id(), "-o", "args"]);

    assert!(table.out.lines().next().unwrap().contains("PID") && table.out.lines().count() == 3, "{table:?}");
    assert!(table.out.contains("sleep 1000") && table.out.contains("sleep 2000"), "{table:?}");
    assert!(own.out.contains("sleep 1000") && own.out.contains("sleep 2000"), "{own:?}");
    assert!(none.code == Some(1) && none.err.contains("no column PID"), "{none:?}");
}

#[test]
#[ignore = "needs root"]
fn the_list_says_whose_a_container_is() {
    let bundle = running("exec sleep 1000");

    let table = bundle.call(&["list"]);
    let rows: Value = serde_json::from_str(&bundle.call(&["list", "--format", "json"]).out).unwrap();

    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines[0].starts_with("ID") && lines[0].ends_with("OWNER"), "{table:?}");
    assert!(lines[1].starts_with(&bundle.id()) && lines[1].ends_with("root"), "{table:?}");
    assert_eq!((rows[0]["owner"].as_str(), rows[0]["status"].as_str()), (Some("root"), Some("running")));
}
