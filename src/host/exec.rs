//! A program inside a running container: what is asked, what comes back, and how it is started.

use super::blueprint::{Allowed, namespaces, process};
use super::chain;
use super::machine::{Machine, MachineError};
use super::note::InstanceNote;
use super::privileges::grantable;
use crate::keeper::{self, ExecStreams, Fault};
use crate::sandbox::{self, CgroupJoin, ExecPlan, Stdio};
use crate::spec::{InstanceId, ObjectId, User};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, OwnedFd};
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
    /// The keeper's number for it.
    pub exec: u64,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
    /// Resolves to the exit code: 128 + the signal's number after a signal. An error means that
    /// the keeper went away, and nobody will know.
    pub exit: oneshot::Receiver<i32>,
}

/// Why a program was not started inside a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("{0}")]
    NoSuchProgram(String),
    #[error("{0}")]
    NotExecutable(String),
    /// For any other reason.
    #[error("{0}")]
    Failed(String),
}

impl From<MachineError> for ExecError {
    fn from(error: MachineError) -> Self {
        let text = chain(&error);
        let fault = if let MachineError::Keeper(error) = &error { error.fault() } else { None };
        match fault {
            Some(Fault::NoSuchProgram) => Self::NoSuchProgram(text),
            Some(Fault::NotExecutable) => Self::NotExecutable(text),
            _ => Self::Failed(text),
        }
    }
}

/// Until a person's own size arrives.
const ROWS_COLUMNS: (u16, u16) = (24, 80);

impl Machine {
    /// Starts a program inside a running container, with the container's own restrictions.
    pub fn exec(&self, instance: &InstanceId, request: &ExecRequest) -> Result<ExecSession, ExecError> {
        Ok(self.try_exec(instance, request)?)
    }

    /// Ends a program that was started by exec, with its process group.
    pub(super) fn kill_command(&self, exec: u64) -> Result<(), MachineError> {
        Ok(self.client()?.signal_exec(exec, nix::libc::SIGKILL)?)
    }

    fn try_exec(&self, instance: &InstanceId, request: &ExecRequest) -> Result<ExecSession, MachineError> {
        let client = self.client()?;
        let not_running = || MachineError::NotRunning { instance: instance.clone() };
        let note = InstanceNote::read(&self.storage.run_dir(instance))?.ok_or_else(not_running)?;
        let spec = &note.object.spec;
        let user = self.storage.resolve_user(&note.root, request.user.as_ref().unwrap_or(&spec.user))?;
        let hostname = spec.hostname.as_ref().unwrap_or(&instance.name).to_string();
        let capabilities = grantable(spec.security.capabilities.mask(), note.ids.is_some())?;
        let filter = self.seccomp.filter(&spec.security.seccomp, capabilities)?;
        let mut process = process(spec, &user, &hostname, Allowed { capabilities, seccomp: filter.is_some() });
        process.terminal = request.tty.then_some(ROWS_COLUMNS);
        process.argv.clone_from(&request.argv);
        for variable in &request.env {
            let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
            process.env.retain(|own| own.split_once('=').map(|(own, _)| own) != Some(name));
            process.env.push(variable.clone());
        }
        if let Some(cwd) = &request.cwd {
            process.cwd.clone_from(cwd);
        }
        let join = self.cgroups.present(instance);
        let script = sandbox::exec_script(&ExecPlan {
            enter: namespaces(spec.security.user_namespace, spec.network),
            root: None,
            cgroup: CgroupJoin { unified: join.unified, v1: join.v1 },
            process,
        })?;
        let seccomp = filter.as_ref().map(|filter| filter.as_fd());
        let start = |io: ExecStreams<'_>| client.exec(&keeper::ExecRequest { instance, script: &script, io, seccomp });
        if request.tty {
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            let started = start(ExecStreams::Terminal(theirs.as_fd()))?;
            drop(theirs);
            let master = receive(&ours)?.ok_or_else(not_running)?;
            let exit = self.keeper.exec_exit(started.exec);
            let stdin = rustix::io::fcntl_dupfd_cloexec(&master, 0)?;
            return Ok(ExecSession { pid: started.pid, exec: started.exec, stdin, stdout: master, stderr: None, exit });
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin, in_), (out, stdout), (err, stderr)) = (pipe()?, pipe()?, pipe()?);
        let streams = Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let started = start(ExecStreams::Stdio(streams))?;
        let exit = self.keeper.exec_exit(started.exec);
        Ok(ExecSession { pid: started.pid, exec: started.exec, stdin: in_, stdout: out, stderr: Some(err), exit })
    }
}

/// The one descriptor that comes over the socket; `None` when the other side closed it without.
fn receive(socket: &OwnedFd) -> rustix::io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut buffer, RecvFlags::CMSG_CLOEXEC)?;
    let rights = buffer.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(rights)
}
