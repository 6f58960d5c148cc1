//! A program inside a running container: what is asked, and what comes back.

use crate::spec::{ObjectId, User};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use tokio::sync::oneshot;

/// What to run inside a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecRequest {
    pub object: ObjectId,
    pub argv: Vec<String>,
    pub tty: bool,
    /// `NAME=value`, beside the container's own.
    #[serde(default)]
    pub env: Vec<String>,
    /// The container's `workingDir` when not given.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The container's `user` when not given.
    #[serde(default)]
    pub user: Option<User>,
}

/// A process that was started by exec, and our ends of its standard streams. With a tty there is
/// the pty's master alone, in `stdin` and `stdout`.
#[derive(Debug)]
pub struct ExecSession {
    pub pid: u32,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
    /// Resolves to the exit code: 128 + the signal's number after a signal. An error means that
    /// the keeper went away, and nobody will know.
    pub exit: oneshot::Receiver<i32>,
}
