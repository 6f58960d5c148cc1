//! Another command in a running container.

use super::Script;
use super::launch::{Io, LaunchError, Launched, Means, run};
use super::ops::Namespaces;
use super::overlay::Way;
use crate::sys::{self, Errno};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd};

/// Starts a command in the container that `target`, a pidfd of its first process, is in.
///
/// Without a pid namespace of the container's own, `target`'s is the caller's, and entering it changes nothing.
pub fn launch_exec<'a>(
    script: &Script,
    target: BorrowedFd<'a>,
    io: impl Into<Io<'a>>,
    seccomp: Option<BorrowedFd<'a>>,
) -> Result<Launched, LaunchError> {
    // A new child is born into the pid namespace that its parent has set for children; there is no
    // other way in that needs no process in between.
    let prepare = |what| move |errno: Errno| LaunchError::Prepare { what, source: errno.into() };
    let own = rustix::fs::open(c"/proc/self/ns/pid_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(prepare("opening our own pid namespace"))?;
    sys::enter_namespaces(target, Namespaces::PID.0).map_err(prepare("entering the container's pid namespace"))?;
    let launched = run(script, Means { io: io.into(), target: Some(target), listener: None, seccomp, way: Way::Any });
    // Were this to fail, every container from here on would start inside this one.
    sys::enter_namespaces(own.as_fd(), Namespaces::PID.0).expect("a namespace that we have just been in");
    launched
}
