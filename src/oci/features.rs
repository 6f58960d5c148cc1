//! `features`: what is supported, in the specification's form (features.md, features-linux.md).
//!
//! Nothing of it is merely claimed. For each word that the specification knows, a configuration that asks
//! for it is put through the parser and the checks of `create`, and the word is listed when they take it.

use super::OciError;
use super::build::{self, Context};
use super::config::{self, Config};
use super::mounts;
use super::resources::{self, Moment};
use super::show::print;
use crate::cgroup::place::Place;
use crate::sandbox::Blueprint;
use crate::spec::Capability;
use serde_json::{Value, json};
use std::path::Path;

const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
const MOUNT_OPTIONS: [&str; 67] = [
    "acl",
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];
const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];
const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

pub(super) fn features() -> Result<(), OciError> {
    print(&format!("{:#}\n", describe()))
}

fn describe() -> Value {
    let capabilities: Vec<String> = Capability::ALL.iter().map(|name| format!("CAP_{name}")).collect();
    let modes = of(&MEMORY_MODES, |mode| {
        let with = |nodes: Value| takes(json!({"linux": {"memoryPolicy": {"mode": mode, "nodes": nodes}}}));
        with(json!("0")) || with(json!(""))
    });
    let memory_flags = of(&MEMORY_FLAGS, |flag| {
        takes(json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}}}))
    });
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": of(&HOOKS, |hook| takes(json!({"hooks": {hook: [{"path": "/bin/true"}]}}))),
        "mountOptions": of(&MOUNT_OPTIONS, mounts::knows),
        "linux": {
            "namespaces": of(&NAMESPACES, takes_namespace),
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": false,
                "rdma": knows(&["linux", "resources", "rdma"], json!({"mlx5_1": {"hcaHandles": 1}})),
            },
            "seccomp": {
                "enabled": true,
                "actions": of(&ACTIONS, |action| takes_seccomp(json!({"syscalls": [{"names": ["sync"], "action": action}]}))),
                "operators": of(&OPERATORS, |operator| {
                    let argument = json!({"index": 0, "value": 1, "valueTwo": 1, "op": operator});
                    takes_seccomp(json!({"syscalls": [{"names": ["sync"], "action": "SCMP_ACT_ALLOW", "args": [argument]}]}))
                }),
                "archs": of(&ARCHITECTURES, |arch| takes_seccomp(json!({"architectures": [arch]}))),
                "knownFlags": of(&SECCOMP_FLAGS, |flag| takes_seccomp(json!({"flags": [flag]}))),
                "supportedFlags": of(&SECCOMP_FLAGS, |flag| takes_seccomp(json!({"flags": [flag]}))),
            },
            "apparmor": { "enabled": knows(&["process", "apparmorProfile"], json!("profile")) },
            "selinux": { "enabled": knows(&["process", "selinuxLabel"], json!("system_u:system_r:container_t:s0")) },
            "intelRdt": {
                "enabled": knows(&["linux", "intelRdt"], json!({"closID": "group", "l3CacheSchema": "L3:0=1"})),
                "schemata": knows(&["linux", "intelRdt", "schemata"], json!(["L3:0=1"])),
                "monitoring": knows(&["linux", "intelRdt", "enableMonitoring"], json!(true)),
            },
            "memoryPolicy": { "modes": modes, "flags": memory_flags },
            "mountExtensions": { "idmap": { "enabled": takes_mapped_mount() } },
            "netDevices": { "enabled": knows(&["linux", "netDevices"], json!({"eth0": {"name": "eth1"}})) },
        },
        "annotations": { "plimsoll.version": env!("CARGO_PKG_VERSION") },
        // No annotation changes what a container is.
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

/// Those words that are taken.
fn of(words: &[&'static str], takes: impl Fn(&str) -> bool) -> Vec<&'static str> {
    words.iter().copied().filter(|word| takes(word)).collect()
}

/// What a small configuration becomes with `part` in it; `None` when it is refused.
fn planned(part: Value) -> Option<Blueprint> {
    let mut whole = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["/bin/true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
    });
    merge(&mut whole, part);
    let config: Config = config::parse(whole.to_string().as_bytes()).ok()?;
    build::check(&config).ok()?;
    resources::check(&config.linux.resources, Moment::Create).ok()?;
    let place = Place::of(Vec::new());
    build::blueprint(&config, &Context::nowhere(Path::new("/"), &place)).ok().map(|built| built.blueprint)
}

fn takes(part: Value) -> bool {
    planned(part).is_some()
}

/// Whether the field at a path is taken. The parser ignores fields that it does not know, as the
/// specification demands: one that it knows is refused when it has a wrong type.
fn knows(path: &[&str], value: Value) -> bool {
    let at = |value: Value| path.iter().rev().fold(value, |value, name| json!({*name: value}));
    takes(at(value)) && !takes(at(json!(-0.5)))
}

fn takes_seccomp(part: Value) -> bool {
    // Some words are for who has a rule that asks somebody.
    let asks = json!([{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}]);
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/listener", "syscalls": asks});
    merge(&mut profile, part);
    takes(json!({"linux": {"seccomp": profile}}))
}

fn takes_namespace(kind: &str) -> bool {
    let mut namespaces = json!([{"type": "mount"}]);
    if let (Some(list), true) = (namespaces.as_array_mut(), kind != "mount") {
        list.push(json!({"type": kind}));
    }
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mut linux = json!({"namespaces": namespaces});
    if kind == "user" {
        merge(&mut linux, json!({"uidMappings": mapping, "gidMappings": mapping}));
        // A user namespace makes no devices in the root itself.
        let dev = json!([{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]);
        return takes(json!({"linux": linux, "mounts": dev}));
    }
    takes(json!({"linux": linux}))
}

fn mapped() -> Value {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    json!({"uidMappings": mapping, "gidMappings": mapping})
}

fn takes_mapped_mount() -> bool {
    let mut mount = json!({"destination": "/x", "type": "bind", "source": "/x", "options": ["bind", "idmap"]});
    merge(&mut mount, mapped());
    takes(json!({"mounts": [mount]}))
}

/// Objects member by member, everything else replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_nobody_knows_is_not_listed() {
        assert!(!mounts::knows("frobnicate") && !takes_namespace("frob"));
        assert!(!takes_seccomp(json!({"architectures": ["SCMP_ARCH_FROB"]})));
        assert!(!knows(&["linux", "frob"], json!(["x"])));
    }

    #[test]
    fn what_is_taken_is_listed() {
        let features = describe();
        let has = |pointer: &str, word: &str| {
            features.pointer(pointer).and_then(Value::as_array).is_some_and(|list| list.iter().any(|one| one == word))
        };

        for namespace in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
            assert!(has("/linux/namespaces", namespace), "{namespace}: {features:#}");
        }
        for option in MOUNT_OPTIONS {
            assert!(has("/mountOptions", option), "{option}: {features:#}");
        }
        for (pointer, words) in
            [("actions", &ACTIONS[..]), ("knownFlags", &SECCOMP_FLAGS), ("supportedFlags", &SECCOMP_FLAGS)]
        {
            for word in words {
                assert!(has(&format!("/linux/seccomp/{pointer}"), word), "{word}: {features:#}");
            }
        }
        assert!(
            has("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ") && has("/linux/seccomp/archs", "SCMP_ARCH_X86_64")
        );
        for pointer in
            ["/linux/intelRdt/enabled", "/linux/intelRdt/monitoring", "/linux/cgroup/rdma", "/linux/cgroup/systemd"]
        {
            assert_eq!(features.pointer(pointer), Some(&json!(true)), "{pointer}");
        }
    }
}
