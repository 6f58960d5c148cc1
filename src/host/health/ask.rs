//! One question to one process: a command in its container, or a connection in its network.

use super::course::Answer;
use crate::host::{ExecError, ExecRequest, ExecSession, Machine};
use crate::keeper::HandleState;
use crate::spec::{HttpProbe, InstanceId, Probe, Question, TcpProbe};
use crate::sys;
use nix::sched::CloneFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// What of a command's words is told, and of an answer is read until its status has to have come.
const WORDS: usize = 200;

/// Whose probes are asked.
pub(super) struct Process {
    pub machine: Arc<Machine>,
    pub instance: InstanceId,
    pub pid: u32,
}

/// Ends a command that has not answered when nobody waits for its answer any more.
struct Unanswered {
    machine: Arc<Machine>,
    exec: u64,
    answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let (machine, exec) = (Arc::clone(&self.machine), self.exec);
        // Dropped by a task, or with the runtime, whose end is the agent's.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || {
                // It has ended meanwhile, or the keeper has gone: nothing to do in either case.
                let _gone = machine.kill_command(exec);
            });
        }
    }
}

impl Process {
    pub async fn ask(&self, probe: &Probe) -> Answer {
        let within = probe.timeout.duration();
        match probe.question() {
            Some(Question::Exec(argv)) => self.exec(argv, within).await,
            Some(Question::Tcp(TcpProbe { port })) => match timeout(within, self.connect(*port)).await {
                Ok(Ok(_)) => Answer::Passed,
                Ok(Err(answer)) => answer,
                Err(_) => late(within),
            },
            Some(Question::Http(HttpProbe { port, path })) => {
                match timeout(within, self.http(*port, path.as_str())).await {
                    Ok(answer) => answer,
                    Err(_) => late(within),
                }
            }
            None => Answer::Unasked("it asks nothing, or several things".to_owned()),
        }
    }

    async fn exec(&self, argv: &[String], within: Duration) -> Answer {
        let (machine, instance) = (Arc::clone(&self.machine), self.instance.clone());
        let request = ExecRequest {
            object: instance.object(),
            argv: argv.to_vec(),
            tty: false,
            env: Vec::new(),
            cwd: None,
            user: None,
        };
        let turn = Arc::clone(&self.machine.health.begun).acquire_owned().await;
        let started = spawn_blocking(move || {
            let _turn = turn;
            let session = machine.exec(&instance, &request)?;
            Ok((Unanswered { machine, exec: session.exec, answered: false }, session))
        });
        let (mut unanswered, session) = match started.await {
            Ok(Ok(started)) => started,
            Ok(Err(ExecError::NoSuchProgram(why) | ExecError::NotExecutable(why))) => return Answer::Failed(why),
            // The keeper's trouble or this host's, which is none of the container's.
            Ok(Err(ExecError::Failed(why))) => return Answer::Unasked(why),
            Err(error) => return Answer::Unasked(error.to_string()),
        };
        let Ok(code) = timeout(within, ended(session)).await else {
            return late(within);
        };
        unanswered.answered = true;
        match code {
            Ok((0, _)) => Answer::Passed,
            Ok((code, words)) if words.is_empty() => Answer::Failed(format!("exited with {code}")),
            Ok((code, words)) => Answer::Failed(format!("exited with {code}: {words}")),
            Err(why) => Answer::Unasked(why),
        }
    }

    async fn http(&self, port: u16, path: &str) -> Answer {
        let mut stream = match self.connect(port).await {
            Ok(stream) => stream,
            Err(answer) => return answer,
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: plimsoll\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        match status(&mut stream, request.as_bytes()).await {
            Ok(Some(status)) if (200..400).contains(&status) => Answer::Passed,
            Ok(Some(status)) => Answer::Failed(format!("{path} was answered with {status}")),
            Ok(None) => Answer::Failed(format!("what answers on port {port} does not speak HTTP/1")),
            Err(error) => Answer::Failed(format!("asking for {path} on port {port}: {error}")),
        }
    }

    /// On loopback of the container's network, by either family.
    async fn connect(&self, port: u16) -> Result<TcpStream, Answer> {
        let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        let mut first = None;
        for address in addresses {
            let socket =
                self.socket(address).await.map_err(|error| Answer::Unasked(format!("its network: {error}")))?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        let why = first.map_or_else(|| "no address".to_owned(), |error| error.to_string());
        Err(Answer::Failed(format!("connecting to port {port}: {why}")))
    }

    /// A socket is of the network that it was made in, wherever it is used.
    async fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (machine, instance, pid) = (Arc::clone(&self.machine), self.instance.clone(), self.pid);
        let turn = Arc::clone(&self.machine.health.begun).acquire_owned().await;
        let made = spawn_blocking(move || {
            let _turn = turn;
            let process = machine.open_process(&instance, pid)?;
            // A thread of its own, because it does not come back to the host's network.
            let make = move || -> io::Result<OwnedFd> {
                let flags = u64::try_from(CloneFlags::CLONE_NEWNET.bits()).map_err(io::Error::other)?;
                sys::enter_namespaces(process.as_fd(), flags)?;
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                Ok(socket_with(family, SocketType::STREAM, flags, None)?)
            };
            let thread = std::thread::Builder::new().name("probe".to_owned()).spawn(make)?;
            thread.join().map_err(|_| io::Error::other("the thread that makes it has ended"))?
        });
        Ok(TcpSocket::from_std_stream(StdStream::from(made.await.map_err(io::Error::other)??)))
    }
}

impl Machine {
    /// The process itself, as long as the keeper says that the number is its own.
    fn open_process(&self, instance: &InstanceId, pid: u32) -> io::Result<OwnedFd> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        // Asked after: as long as it has not been waited for, nobody else gets its number.
        let same = |handle: crate::keeper::Handle| handle.pid == pid && handle.state == HandleState::Running;
        if self.keeper.handle(instance).is_some_and(same) { Ok(process) } else { Err(gone()) }
    }
}

fn late(within: Duration) -> Answer {
    Answer::Failed(format!("no answer within {} s", within.as_secs_f64()))
}

/// How a command ended, and the first of its words.
async fn ended(session: ExecSession) -> Result<(i32, String), String> {
    let ExecSession { pid: _, exec: _, stdin, stdout, stderr, exit } = session;
    drop(stdin);
    let mut words = Vec::new();
    let mut more = Vec::new();
    let stdout = Receiver::from_owned_fd(stdout).map_err(|error| error.to_string())?;
    let stderr = stderr.map(Receiver::from_owned_fd).transpose().map_err(|error| error.to_string())?;
    let code = {
        let reading = async {
            let errors = async {
                if let Some(stderr) = stderr {
                    read(stderr, &mut words).await;
                }
            };
            tokio::join!(errors, read(stdout, &mut more));
            // Whoever closes its output has not ended for that.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = reading => None,
            code = exit => Some(code),
        }
    };
    let code = code.and_then(Result::ok).ok_or_else(|| "the keeper went away".to_owned())?;
    let words = if words.is_empty() { more } else { words };
    let text = String::from_utf8_lossy(&words);
    let line: String = text.trim().lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    Ok((code, line))
}

/// Reads all, so that nobody waits for a full pipe, and keeps the beginning.
async fn read(mut from: impl AsyncRead + Unpin, words: &mut Vec<u8>) {
    let mut block = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        let room = WORDS.saturating_sub(words.len()).min(count);
        words.extend_from_slice(&block[..room]);
    }
}

/// The status of an answer; `None` when it is not one.
async fn status(stream: &mut TcpStream, request: &[u8]) -> io::Result<Option<u16>> {
    stream.write_all(request).await?;
    let mut line = Vec::new();
    let mut block = [0; WORDS];
    while !line.contains(&b'\n') && line.len() < WORDS {
        match stream.read(&mut block).await? {
            0 => break,
            count => line.extend_from_slice(&block[..count]),
        }
    }
    let text = String::from_utf8_lossy(&line);
    let words = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split_ascii_whitespace().nth(1));
    Ok(words.and_then(|status| status.parse().ok()))
}
