//! What a service manager gives to the program it starts, which here is the container's.
//!
//! Sockets (sd_listen_fds(3)) stay open under the same numbers. Notifications (sd_notify(3)) are passed
//! on by us where we stay beside the container: a manager listens to the process that it has started and
//! to no other, unless it is told otherwise. Where nobody stays, its own socket is mounted into the
//! container.

use super::OciError;
use super::args::UsageError;
use super::config::{Config, Mount, NamespaceKind};
use super::log;
use super::state::Home;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// Settings that mean the process that they were made for and no other.
const OWN: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

const NOTIFY: &str = "/run/notify/notify.sock";

/// Where a manager has its own socket. One that runs inside makes it there, too.
const MANAGERS: &str = "/run/systemd/";

/// What is for the manager and about the program. Which process is the service's first one, and which
/// descriptors are kept for it, is not the container's to say.
const PASSED_ON: [&str; 10] = [
    "READY=",
    "RELOADING=",
    "MONOTONIC_USEC=",
    "STOPPING=",
    "STATUS=",
    "ERRNO=",
    "BUSERROR=",
    "EXIT_STATUS=",
    "WATCHDOG=",
    "EXTEND_TIMEOUT_USEC=",
];

/// How notifications get from the container to the manager.
pub(super) enum Way {
    /// By us, through a socket of ours at this path.
    Ours(PathBuf),
    /// By themselves.
    TheManagers,
}

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
pub(super) fn pass_on(config: &mut Config, listening: u32, way: &Way) {
    let notify = setting("NOTIFY_SOCKET");
    let Some(process) = config.process.as_mut().filter(|_| listening > 0 || notify.is_some()) else { return };
    if listening > 0 {
        forget(&mut process.env);
        process.env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
        process.env.extend(setting("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    let Some(socket) = notify else { return };
    process.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    if let Way::Ours(ours) = way {
        let inside = inside(&socket);
        process.env.push(format!("NOTIFY_SOCKET={inside}"));
        mount(config, ours.to_string_lossy().into_owned(), inside);
        return;
    }
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
    mount(config, socket, NOTIFY.to_owned());
}

/// Below the name that the socket has on the host, as crun has it, or where runc has it.
fn inside(socket: &str) -> String {
    if socket.starts_with('/') && !socket.starts_with(MANAGERS) && !socket.contains("..") {
        format!("{socket}/notify")
    } else {
        NOTIFY.to_owned()
    }
}

fn mount(config: &mut Config, source: String, destination: String) {
    let options = ["bind", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    config.mounts.push(Mount { destination, kind: "bind".to_owned(), source, options, ..Mount::default() });
}

/// The socket that a container notifies us by.
pub(super) struct Notices {
    socket: UnixDatagram,
    /// The manager's.
    to: String,
}

impl Notices {
    /// Makes it in the container's directory; nothing where there is no manager that would be told.
    pub(super) fn open(home: &Home) -> Result<Option<Self>, OciError> {
        let Some(to) = setting("NOTIFY_SOCKET") else { return Ok(None) };
        let path = home.notices();
        let failed = |source| OciError::Io { what: format!("making the socket {}", path.display()), source };
        let socket = home.bind(&path).map_err(failed)?;
        // Whoever the container's programs run as: nobody else gets through the directory.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Some(Self { socket, to }))
    }

    /// Passes on what has come.
    pub(super) fn carry(&self) {
        // What is longer than a manager takes is cut. Descriptors are not taken, and so are closed.
        let mut text = [0; 4096];
        loop {
            let length = match self.socket.recv(&mut text) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nothing more: another error of a socket that nobody is connected to there is not.
                Err(_) => return,
            };
            let words = passed_on(&String::from_utf8_lossy(text.get(..length).unwrap_or_default()));
            let sent = if words.is_empty() { Ok(()) } else { self.send(words.as_bytes()) };
            if let Err(error) = sent {
                log::say(&format!("NOTIFY_SOCKET: sending to {}: {error}", self.to));
            }
        }
    }

    fn send(&self, words: &[u8]) -> io::Result<()> {
        // Another one than that which the container writes to: a manager may take its time.
        let from = UnixDatagram::unbound()?;
        let to = match self.to.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&self.to)?,
        };
        from.send_to_addr(words, &to).map(drop)
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn passed_on(words: &str) -> String {
    let is_passed_on = |line: &&str| PASSED_ON.iter().any(|name| line.starts_with(name));
    words.lines().filter(is_passed_on).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_tells_of_itself_and_takes_no_ones_place() {
        assert_eq!(passed_on("READY=1\nMAINPID=1\nSTATUS=up\n"), "READY=1\nSTATUS=up");
        assert_eq!(passed_on("FDSTORE=1\nFDNAME=a"), "");
        assert_eq!(passed_on("XREADY=1"), "");
    }

    #[test]
    fn a_socket_has_a_name_inside_that_no_manager_inside_needs() {
        assert_eq!(inside("/tmp/a"), "/tmp/a/notify");
        for socket in ["/run/systemd/notify", "@a", "a", "/tmp/../../run/systemd/notify"] {
            assert_eq!(inside(socket), NOTIFY, "{socket}");
        }
    }
}
