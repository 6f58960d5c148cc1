//! Another command in a running container.

use super::child::Io;
use super::launch::{LaunchError, Launched, Means, Stdio, run};
use super::ops::Namespaces;
use super::overlay::Way;
use super::script::{Script, ScriptError};
use super::{CgroupJoin, Process};
use crate::sys::{self, Errno};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd};

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
    /// The container is in the host's network namespace.
    pub host_network: bool,
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
    let io = match io {
        ExecIo::Stdio(Stdio { stdin, stdout, stderr }) => Io::Descriptors([stdin, stdout, stderr]),
        ExecIo::Terminal { console } => Io::Terminal { console },
    };
    // A new child is born into the pid namespace that its parent has set for children; there is no
    // other way in that needs no process in between.
    let prepare = |what| move |errno: Errno| LaunchError::Prepare { what, source: errno.into() };
    let own = rustix::fs::open(c"/proc/self/ns/pid_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(prepare("opening our own pid namespace"))?;
    sys::enter_namespaces(target, Namespaces::PID.0).map_err(prepare("entering the container's pid namespace"))?;
    let launched = run(script, Means { io, target: Some(target), listener: None, seccomp, way: Way::Any });
    // Were this to fail, every container from here on would start inside this one.
    sys::enter_namespaces(own.as_fd(), Namespaces::PID.0).expect("a namespace that we have just been in");
    launched
}
