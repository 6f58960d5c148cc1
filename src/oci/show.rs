//! Commands that only tell: `ps`, `features`, `--version`.

use super::OciError;
use super::args::Ps;
use super::state::Home;
use crate::spec::Capability;
use serde_json::json;
use std::io::Write;
use std::path::Path;

pub(super) fn print(text: &str) -> Result<(), OciError> {
    let failed = |source| OciError::Io { what: "writing to standard output".to_owned(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn pretty(value: &serde_json::Value) -> Result<(), OciError> {
    print(&format!("{value:#}\n"))
}

pub(super) fn ps(root: &Path, wish: &Ps) -> Result<(), OciError> {
    let pids = Home::of(root, &wish.id).load(&wish.id)?.place().procs()?;
    if wish.json {
        return print(&format!("{}\n", json!(pids)));
    }
    let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
    print(&format!("PID\n{lines}"))
}

/// What is supported, in the specification's form (features-linux).
pub(super) fn features() -> Result<(), OciError> {
    let capabilities: Vec<String> = Capability::ALL.iter().map(|name| format!("CAP_{name}")).collect();
    pretty(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "mountOptions": [
            "acl", "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime",
            "loud", "mand", "noacl", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand",
            "norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime",
            "relatime", "rexec", "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime",
            "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave",
            "rstrictatime", "rsuid", "rsymfollow", "runbindable", "rw", "shared", "silent", "slave", "strictatime",
            "suid", "symfollow", "sync", "unbindable"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE"
                ],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false }
        }
    }))
}

/// The lines are in the order, and have the names, that other tools know.
pub(super) fn version(name: &str) -> Result<(), OciError> {
    let version = env!("CARGO_PKG_VERSION");
    print(&format!("{name} version {version}\ncommit: {version}\nspec: 1.3.0\n"))
}
