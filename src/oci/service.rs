//! What a service manager gives to the program it starts, which here is the container's.
//!
//! Sockets (sd_listen_fds(3)) stay open under the same numbers. The socket for notifications
//! (sd_notify(3)) is mounted into the container as it is: nobody has to stay beside the container to
//! pass on what comes, and the manager sees who sends it.

use super::args::UsageError;
use super::config::{Config, Mount, NamespaceKind};
use super::log;
use std::os::unix::fs::FileTypeExt;

/// Settings that mean the process that they were made for and no other.
const OWN: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

const NOTIFY: &str = "/run/notify/notify.sock";

/// How many sockets there are, from 3 on.
pub(super) fn listening() -> Result<u32, UsageError> {
    let Some(count) = setting("LISTEN_FDS") else { return Ok(0) };
    if setting("LISTEN_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return Ok(0);
    }
    count.parse().map_err(|_| UsageError(format!("LISTEN_FDS: {count:?} is not a number of descriptors")))
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An environment without what was meant for another process.
pub(super) fn forget(env: &mut Vec<String>) {
    env.retain(|entry| entry.split_once('=').is_none_or(|(name, _)| !OWN.contains(&name)));
}

/// The container gets what was given to us.
pub(super) fn pass_on(config: &mut Config, listening: u32) {
    let notify = setting("NOTIFY_SOCKET");
    let Some(process) = config.process.as_mut().filter(|_| listening > 0 || notify.is_some()) else { return };
    if listening > 0 {
        forget(&mut process.env);
        process.env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
        process.env.extend(setting("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    let Some(socket) = notify else { return };
    process.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    if socket.starts_with('@') {
        if config.linux.namespaces.iter().any(|entry| entry.kind == NamespaceKind::Network) {
            log::say(&format!("NOTIFY_SOCKET: {socket} can't be reached from another network: it is not passed on"));
            return;
        }
        process.env.push(format!("NOTIFY_SOCKET={socket}"));
        return;
    }
    if !std::fs::metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        log::say(&format!("NOTIFY_SOCKET: {socket} is not a socket: it is not passed on"));
        return;
    }
    process.env.push(format!("NOTIFY_SOCKET={NOTIFY}"));
    let options = ["bind", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let destination = NOTIFY.to_owned();
    config.mounts.push(Mount { destination, kind: "bind".to_owned(), source: socket, options, ..Mount::default() });
}
