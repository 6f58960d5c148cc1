//! Commands that only tell: `state`, `list`, `ps`, `features`, `--version`.

use super::OciError;
use super::args::Ps;
use super::state::{Home, Record};
use crate::spec::Capability;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) fn print(text: &str) -> Result<(), OciError> {
    let failed = |source| OciError::Io { what: "writing to standard output".to_owned(), source };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn pretty(value: &serde_json::Value) -> Result<(), OciError> {
    print(&format!("{value:#}\n"))
}

fn created(record: &Record) -> String {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(record.created)).to_string()
}

/// The specification's state; a process that has ended has no number any more.
fn describe(home: &Home, record: &Record) -> serde_json::Value {
    let status = home.status(record);
    let pid = record.init.as_ref().filter(|init| init.alive().is_some()).map_or(0, |init| init.pid);
    json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status.word(),
        "pid": pid,
        "bundle": record.bundle,
        "created": created(record),
        "annotations": record.annotations,
    })
}

pub(super) fn state(root: &Path, id: &str) -> Result<(), OciError> {
    let home = Home::of(root, id);
    pretty(&describe(&home, &home.load(id)?))
}

pub(super) fn list(root: &Path, quiet: bool, json: bool) -> Result<(), OciError> {
    let mut ids: Vec<String> = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(OciError::Io { what: format!("reading {}", root.display()), source }),
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
    };
    ids.retain(|id| !id.starts_with('.'));
    ids.sort();
    let mut rows = Vec::new();
    for id in ids {
        let home = Home::of(root, &id);
        match home.load(&id) {
            Ok(record) => rows.push(describe(&home, &record)),
            // Going, or not quite there yet.
            Err(OciError::NoContainer(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if json {
        return pretty(&serde_json::Value::Array(rows));
    }
    let text = |row: &serde_json::Value, field: &str| match &row[field] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if quiet {
        return print(&rows.iter().map(|row| text(row, "id") + "\n").collect::<String>());
    }
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(str::to_owned)];
    table.extend(rows.iter().map(|row| ["id", "pid", "status", "bundle", "created"].map(|field| text(row, field))));
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut lines = String::new();
    for row in &table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<String>().trim_end());
        lines.push('\n');
    }
    print(&lines)
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
