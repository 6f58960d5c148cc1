//! Hooks: which there are, those that run on the host, and what all of them read.

use super::OciError;
use super::config::{self, Invalid};
use super::foreground::Watch;
use super::log;
use super::state::{Record, Status};
use crate::sandbox::{self, HookError};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// The hooks that are run when the one who created the container is gone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Later {
    poststart: Vec<config::Hook>,
    poststop: Vec<config::Hook>,
}

impl Later {
    pub(super) fn of(hooks: &config::Hooks) -> Self {
        Self { poststart: hooks.poststart.clone(), poststop: hooks.poststop.clone() }
    }
}

/// Refuses what can't be run.
pub(super) fn check(hooks: &config::Hooks) -> Result<(), Invalid> {
    let config::Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = hooks;
    let lists = [
        ("prestart", prestart),
        ("createRuntime", create_runtime),
        ("createContainer", create_container),
        ("startContainer", start_container),
        ("poststart", poststart),
        ("poststop", poststop),
    ];
    for (kind, list) in lists {
        for (index, hook) in list.iter().enumerate() {
            let invalid = |field: &str, what: &str| Err(Invalid::new(format!("hooks.{kind}[{index}].{field}"), what));
            if !hook.path.starts_with('/') {
                return invalid("path", "not an absolute path");
            }
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return invalid("timeout", "not above 0");
            }
        }
    }
    Ok(())
}

/// Those that the container's own process runs.
pub(super) fn inside(hooks: &config::Hooks, env: &[String]) -> sandbox::Hooks {
    let config::Hooks { prestart, create_runtime, create_container, start_container, .. } = hooks;
    let lists = [prestart, create_runtime, create_container, start_container];
    sandbox::Hooks {
        wait: lists.iter().any(|list| !list.is_empty()),
        create_container: create_container.iter().map(|hook| call(hook, our_env)).collect(),
        // What the specification leaves open, other runtimes do so.
        start_container: start_container.iter().map(|hook| call(hook, || env.to_vec())).collect(),
    }
}

fn call(hook: &config::Hook, env: impl FnOnce() -> Vec<String>) -> sandbox::Hook {
    let config::Hook { path, args, env: given, timeout } = hook;
    sandbox::Hook {
        path: path.clone(),
        argv: if args.is_empty() { vec![path.clone()] } else { args.clone() },
        env: given.clone().unwrap_or_else(env),
        timeout: timeout.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
    }
}

fn our_env() -> Vec<String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some(format!("{}={}", name.to_str()?, value.to_str()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// The container's state as a file to be read, which nobody can change.
pub(super) fn state(record: &Record, status: Status) -> Result<OwnedFd, OciError> {
    let pid = if status == Status::Stopped { 0 } else { record.init.as_ref().map_or(0, |init| init.pid) };
    let Record { id, oci_version, bundle, annotations, .. } = record;
    let text = serde_json::json!({
        "ociVersion": oci_version,
        "id": id,
        "status": status.word(),
        "pid": pid,
        "bundle": bundle,
        "annotations": annotations,
    });
    let text = text.to_string();
    let failed = |errno: rustix::io::Errno| OciError::Io {
        what: "making the state that hooks read".to_owned(),
        source: errno.into(),
    };
    let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
    let written = rustix::io::write(&file, text.as_bytes()).map_err(failed)?;
    if written != text.len() {
        return Err(failed(rustix::io::Errno::IO));
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(file)
}

/// Before there is a container: the first one that fails ends it all.
pub(super) fn before(hooks: &config::Hooks, record: &Record, watch: &Watch) -> Result<(), OciError> {
    // Older than the others: to them, what is run before it is started has been created.
    run("prestart", &hooks.prestart, record, Status::Created, Some(watch))?;
    run("createRuntime", &hooks.create_runtime, record, Status::Creating, Some(watch))
}

/// When its program runs. The first one that fails ends the container.
pub(super) fn after_start(record: &Record, watch: Option<&Watch>) -> Result<(), OciError> {
    run("poststart", &record.hooks.poststart, record, Status::Running, watch)
}

/// When nothing is left of it. One that fails stops nothing, not even the others.
pub(super) fn after_end(record: &Record, watch: Option<&Watch>) {
    for (number, hook) in record.hooks.poststop.iter().enumerate() {
        let one = one("poststop", number, hook, record, Status::Stopped, watch);
        if let Err(error) = one {
            log::warn(&error.to_string());
        }
    }
}

fn run(
    kind: &str,
    list: &[config::Hook],
    record: &Record,
    status: Status,
    watch: Option<&Watch>,
) -> Result<(), OciError> {
    list.iter().enumerate().try_for_each(|(number, hook)| one(kind, number, hook, record, status, watch))
}

fn one(
    kind: &str,
    number: usize,
    hook: &config::Hook,
    record: &Record,
    status: Status,
    watch: Option<&Watch>,
) -> Result<(), OciError> {
    let state = state(record, status)?;
    let hook = call(hook, our_env);
    let stop = watch.map(Watch::stop);
    sandbox::run_hook(&hook, &record.bundle, state.as_fd(), stop).map_err(|error| match (error, watch) {
        (HookError::Stopped, Some(watch)) => watch.interruption(),
        (error, _) => OciError::Start(format!("error running hook #{number} of {kind}: {}: {error}", hook.path)),
    })
}
