//! The program that may take a keeper's place: a private copy of it, asked before anything depends on it.

use super::child::Asker;
use super::state::STATES;
use crate::sandbox::program;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Asked with the version of a state; see [`knows`].
pub(super) const KNOWS: &str = "--knows-state";
/// Of a program that has been executed in the place of another.
pub(super) const RESUME: &str = "--resume";
const NAME: &str = "plim-keeper";
/// No answer of ours is longer, and whatever else is said is not worth reading.
const LONGEST: u64 = 256;

/// What `plim-keeper --knows-state VERSION` says: the same line for every version that it takes over,
/// and an error else. Words, and not a mere success: any program can end with that.
pub(super) fn knows(version: u32) -> Option<String> {
    (STATES.0..=STATES.1).contains(&version).then(|| format!("{NAME} takes over state {version}"))
}

/// A program that is being asked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub path: PathBuf,
    /// `None` when a signal asked.
    pub asker: Option<Asker>,
    program: OwnedFd,
    process: Child,
    pidfd: OwnedFd,
}

impl Candidate {
    /// Copies the program and starts to ask it.
    pub fn ask(path: &Path, asker: Option<Asker>) -> io::Result<Self> {
        let (program, mut process) = private(path, |program| {
            let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
            command.arg0(NAME).args([KNOWS, &STATES.1.to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        })?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        // Nobody else collects it, so the number is its own.
        match pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Ok(pidfd) => Ok(Self { path: path.to_owned(), asker, program, process, pidfd }),
            Err(errno) => {
                process.kill().and_then(|()| process.wait())?;
                Err(errno.into())
            }
        }
    }

    /// Gives up on it before it has answered.
    pub fn abandon(mut self) {
        self.kill();
        // Killed, it does not keep us waiting; who cannot be waited for is not ours.
        let _ = self.process.wait();
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn kill(&self) {
        // Gone already is as good.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// What it answered, of one that has ended: nothing when it knows our state.
    pub fn objection(&mut self) -> Option<String> {
        let ended = match self.process.wait() {
            Ok(status) => status,
            Err(error) => return Some(format!("collecting it failed: {error}")),
        };
        let mut said = Vec::new();
        if let Some(stdout) = &mut self.process.stdout {
            // It has ended, but something of its own making might hold the pipe open.
            let read = rustix::io::ioctl_fionbio(&*stdout, true).map(|()| stdout.take(LONGEST).read_to_end(&mut said));
            drop(read);
        }
        let said = String::from_utf8_lossy(&said);
        if ended.success() && knows(STATES.1).is_some_and(|answer| said.trim_end() == answer) {
            return None;
        }
        Some(format!("it does not take over what this keeper has (state {}): {ended}", STATES.1))
    }

    /// Executes it in place of this process, with `stdin` for what it is to take over. Returns only
    /// when that did not succeed, and then nothing has changed.
    ///
    /// `run` is for whoever lists processes; everything else it finds in what it takes over.
    pub fn execute(&self, stdin: &OwnedFd, run: &Path) -> io::Error {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let variable: OsString = [name, OsString::from("="), value].into_iter().collect();
            CString::new(variable.into_vec()).ok()
        });
        let environment: Vec<CString> = environment.collect();
        let run = CString::new(run.as_os_str().as_bytes()).unwrap_or_default();
        let arguments = [c"plim-keeper", c"--resume", c"--run", &run];
        if let Err(errno) = rustix::stdio::dup2_stdin(stdin) {
            return errno.into();
        }
        match nix::unistd::fexecve(&self.program, &arguments, &environment) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        }
    }
}

/// Starts something with a copy of `path` that nobody can change, or where the host does not execute
/// memory (vm.memfd_noexec=2, Linux 6.3) with a read-only mount of it.
pub(super) fn private<T>(path: &Path, start: impl Fn(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<(OwnedFd, T)> {
    let started = program::sealed_copy(c"plim-keeper", path).and_then(|copy| {
        let started = start(copy.as_fd())?;
        Ok((copy, started))
    });
    match started {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mount = program::read_only_mount(path)?;
            let started = start(mount.as_fd())?;
            Ok((mount, started))
        }
        other => other,
    }
}
