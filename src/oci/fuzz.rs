//! Whatever stands in a `config.json`: it is a script or an error with its place, and never a panic.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --lib oci::fuzz` goes on for longer.

use super::build::{self, Context};
use super::config::{self, Config};
use super::resources::{self, Moment};
use crate::cgroup::place::{Directory, Place};
use crate::cgroup::table::{Controller, Version};
use crate::sandbox::{Script, script, seccomp};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// A configuration with something of everything, for mutations to have where to bite.
fn full() -> Value {
    let mut config: Value = serde_json::from_str(config::TEMPLATE).unwrap();
    let more = json!({
        "domainname": "example", "annotations": {"a": "b"},
        "hooks": {"prestart": [{"path": "/bin/true", "args": ["a"], "env": ["A=b"], "timeout": 5}]},
    });
    let linux = json!({
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        "sysctl": {"net.ipv4.ip_forward": "1"}, "rootfsPropagation": "rslave", "cgroupsPath": "/a/b",
        "resources": {
            "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {"limit": 1 << 28, "reservation": 1 << 27, "swap": 1 << 29}, "pids": {"limit": 10},
            "cpu": {"shares": 1024, "quota": 1000, "period": 10000, "cpus": "0-1", "mems": "0"},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"memory.high": "max"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["read", "personality"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 8, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}],
        },
        "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 2}}, "personality": {"domain": "LINUX32"},
        "intelRdt": {"closID": "a"}, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
    });
    let process = json!({
        "consoleSize": {"height": 1, "width": 2}, "oomScoreAdj": 1, "scheduler": {"policy": "SCHED_FIFO"},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 1}, "execCPUAffinity": {"initial": "0"},
        "apparmorProfile": "a", "selinuxLabel": "b",
    });
    for (at, fields) in [("", more), ("/linux", linux), ("/process", process)] {
        let object = config.pointer_mut(at).and_then(Value::as_object_mut).unwrap();
        object.extend(fields.as_object().unwrap().clone());
    }
    config
}

/// The places of all values.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                places(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(String::new()),
        Just("/".to_owned()),
        Just("/../../x".to_owned()),
        Just("a\0b".to_owned()),
        Just("rw".to_owned()),
        Just("x".repeat(5000)),
        Just("18446744073709551616".to_owned()),
        any::<String>(),
    ];
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(i64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(u64::MAX)),
        Just(json!(1e300)),
        any::<i32>().prop_map(|number| json!(number)),
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.clone().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        prop::collection::vec(text, 0..4).prop_map(Value::from),
        (0usize..300).prop_map(|count| Value::from(vec!["/a"; count])),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    Set(Value),
    Remove,
    Twice,
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, Change)>> {
    let change = prop_oneof![
        6 => values().prop_map(Change::Set),
        2 => Just(Change::Remove),
        1 => Just(Change::Twice),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), change), 1..4)
}

fn mutated(changes: &[(prop::sample::Index, Change)]) -> Value {
    let mut config = full();
    // What is refused as a whole would hide all that comes behind it.
    config["hooks"] = Value::Null;
    for (index, change) in changes {
        let mut all = Vec::new();
        places(&config, "", &mut all);
        let place = all[index.index(all.len())].clone();
        let Some((parent, name)) = place.rsplit_once('/') else { continue };
        match (config.pointer_mut(parent).unwrap(), change) {
            (parent, Change::Set(value)) => match parent {
                Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.clone(),
                parent => parent[name.replace("~1", "/").replace("~0", "~")] = value.clone(),
            },
            (Value::Object(map), Change::Remove) => drop(map.remove(name)),
            (Value::Array(list), Change::Remove) => drop(list.remove(name.parse().unwrap())),
            (Value::Array(list), Change::Twice) => list.push(list[name.parse::<usize>().unwrap()].clone()),
            _ => {}
        }
    }
    config
}

/// As `create` does it, up to where the host would be changed.
fn build(text: &[u8]) -> Result<Script, String> {
    let config: Config = config::parse(text).map_err(|error| error.to_string())?;
    build::check(&config).map_err(|error| error.to_string())?;
    resources::check(&config.linux.resources, Moment::Create).map_err(|error| error.to_string())?;
    let directory = Directory {
        version: Version::V1,
        controllers: [Controller::Memory].into(),
        mount: "/sys/fs/cgroup/memory".to_owned(),
        path: "/a".to_owned(),
    };
    let place = Place::of(vec![directory]);
    let context = Context { wait: true, ..Context::nowhere(Path::new("/bundle"), &place) };
    let blueprint = build::blueprint(&config, &context).map_err(|error| error.to_string())?.blueprint;
    if let Some(profile) = &config.linux.seccomp {
        seccomp::compile(&crate::oci::seccomp::profile(profile), blueprint.process.capabilities.bounding)
            .map_err(|error| error.to_string())?;
    }
    script(&blueprint).map_err(|error| error.to_string())
}

#[test]
fn what_is_changed_is_a_script_to_begin_with() {
    let mut config = full();
    let object = config["linux"].as_object_mut().unwrap();
    for name in ["timeOffsets", "personality", "intelRdt", "uidMappings", "gidMappings"] {
        object.remove(name);
    }
    for name in ["scheduler", "ioPriority", "execCPUAffinity", "apparmorProfile", "selinuxLabel"] {
        config["process"].as_object_mut().unwrap().remove(name);
    }
    config["hooks"] = Value::Null;

    build(config.to_string().as_bytes()).unwrap();
}

proptest! {
    #[test]
    fn a_changed_configuration_is_a_script_or_an_error(changes in changes()) {
        let text = mutated(&changes).to_string();
        match build(text.as_bytes()) {
            Ok(script) => prop_assert!(!script.to_string().is_empty()),
            Err(error) => prop_assert!(error.contains(": "), "{}", error),
        }
    }

    #[test]
    fn a_mistake_is_told_with_the_place_that_a_parser_finds_that_keeps_it(changes in changes()) {
        let text = mutated(&changes).to_string();
        let mut reader = serde_json::Deserializer::from_str(&text);
        let expected = serde_path_to_error::deserialize::<_, Config>(&mut reader);
        let found = config::parse::<Config>(text.as_bytes());
        let (Err(expected), Err(found)) = (&expected, &found) else {
            prop_assert!(expected.is_ok() && found.is_ok(), "{expected:?} {found:?}");
            return Ok(());
        };
        prop_assert_eq!(&found.what, &expected.inner().to_string());
        let path = expected.path().to_string();
        // It does not know the names of fields that are an enum, nor which of too many members is one.
        let (path, is_whole) = match path.split_once('?') {
            Some((path, _)) => (path, false),
            None => (path.as_str(), !found.what.starts_with("trailing characters")),
        };
        prop_assert!(if is_whole { found.path == path } else { found.path.starts_with(path) }, "{found} {path}");
    }

    #[test]
    fn bytes_in_a_configuration_are_an_error(at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..8)) {
        let mut text = full().to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + with.len()).min(text.len());
        text.splice(at..end, with);
        drop(build(&text));
        text.truncate(at);
        prop_assert!(build(&text).is_err());
    }

    #[test]
    fn bytes_are_an_error(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(build(&text).is_err());
    }
}
