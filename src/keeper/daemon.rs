//! How a keeper comes to be: a sealed copy of its program in a session of its own.
//!
//! [`spawn`] runs `plim-keeper`, which copies itself into a sealed memfd, starts the copy and ends. The
//! copy is nobody's child then, and nothing in a container can reach a file of the host through its
//! `/proc/PID/exe` (CVE-2019-5736). It says on its standard output how that went: `ready`, or why not.
//!
//! With `--service` a service manager has started it: the copy takes the place of the process that was
//! started, its words go where the manager wants them, and that it is ready is told by sd_notify(3).

use super::KeeperError;
use super::address;
use super::candidate::{self, KNOWS, RESUME};
use super::server::{self, LoopError, ResumeError, Server};
use crate::sandbox::program;
use crate::sys;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// How the keeper of one root is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The directory of its socket and lock file. It must exist.
    pub run: PathBuf,
    /// Where its own few words go; nowhere if `None`.
    pub log: Option<PathBuf>,
    /// cgroup directories that it moves itself into, so that ending the agent's does not end it.
    pub cgroups: Vec<PathBuf>,
    /// A process that has not executed its program by then is killed.
    pub start_timeout: Duration,
    /// The program; `plim-keeper` beside the running one if `None`.
    pub binary: Option<PathBuf>,
}

impl Options {
    pub fn new(run: PathBuf) -> Self {
        Self { run, log: None, cgroups: Vec::new(), start_timeout: Duration::from_secs(60), binary: None }
    }

    /// Where the keeper listens.
    pub fn socket(&self) -> PathBuf {
        self.run.join("keeper.sock")
    }

    fn lock(&self) -> PathBuf {
        self.run.join("keeper.lock")
    }
}

/// Starts the keeper as a daemon and returns when it listens.
pub fn spawn(options: &Options) -> Result<(), KeeperError> {
    spawn_within(options, READY_WITHIN)
}

pub(super) fn spawn_within(options: &Options, within: Duration) -> Result<(), KeeperError> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => beside().map_err(|source| KeeperError::Spawn { path: PathBuf::from(NAME), source })?,
    };
    let mut command = Command::new(&binary);
    command.arg("--run").arg(&options.run);
    command.arg("--start-timeout").arg(options.start_timeout.as_secs().to_string());
    if let Some(log) = &options.log {
        command.arg("--log").arg(log);
    }
    for cgroup in &options.cgroups {
        command.arg("--cgroup").arg(cgroup);
    }
    let failed = |source| KeeperError::Spawn { path: binary.clone(), source };
    // The agent's environment may hold secrets, and the keeper needs none of it.
    let mut launcher = command
        .env_clear()
        .envs(sys::mortality())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let stdout = launcher.stdout.take().expect("asked for above");
    let words = said(stdout, within).map_err(failed)?;
    if words.is_none() {
        // It may have ended already; the copy that it has started is nobody's to kill.
        launcher.kill().map_err(failed)?;
    }
    launcher.wait().map_err(failed)?;
    match words {
        Some(words) if words.starts_with(READY) => Ok(()),
        Some(words) => Err(KeeperError::NotStarted(words.trim().to_owned())),
        None => {
            let text = format!("it did not say within {} that it is ready", humantime::format_duration(within));
            Err(KeeperError::NotStarted(text))
        }
    }
}

/// All that is said until the last one who could say something has gone; nothing when that takes too long.
fn said(mut stdout: impl Read + AsFd, within: Duration) -> io::Result<Option<String>> {
    let begun = std::time::Instant::now();
    let mut words = Vec::new();
    loop {
        let left = within.saturating_sub(begun.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(None),
            Err(Errno::INTR) => continue,
            result => drop(result?),
        }
        let mut chunk = [0; 1024];
        match stdout.read(&mut chunk)? {
            0 => return Ok(Some(String::from_utf8_lossy(&words).into_owned())),
            count => words.extend_from_slice(&chunk[..count]),
        }
    }
}

const NAME: &str = "plim-keeper";
const READY: &str = "ready";
/// How long a keeper may take to begin, and to wait for the end of another.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a keeper that is going may hold the lock.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Whether the keeper with this process number runs another program than the one that would be started
/// now, and which that is. It is the whole content that is compared: a build has no other name.
pub fn is_outdated(pid: u32, options: &Options) -> io::Result<Option<PathBuf>> {
    let installed = options.binary.clone().map_or_else(beside, Ok)?;
    let (mut running, mut next) = (File::open(format!("/proc/{pid}/exe"))?, File::open(&installed)?);
    let same = running.metadata()?.len() == next.metadata()?.len() && same_content(&mut running, &mut next)?;
    Ok((!same).then_some(installed))
}

/// Of two files of the same length.
fn same_content(one: &mut File, other: &mut File) -> io::Result<bool> {
    let mut buffers = [vec![0; 64 << 10], vec![0; 64 << 10]];
    loop {
        let [here, there] = &mut buffers;
        let count = one.read(here)?;
        if count == 0 {
            return Ok(true);
        }
        // Shorter all of a sudden is different enough.
        let whole = other.read_exact(&mut there[..count]);
        if whole.is_err() || here[..count] != there[..count] {
            return Ok(false);
        }
    }
}

fn beside() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(NAME))
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("{0}")]
    Usage(String),
    #[error("another keeper runs: {} is locked", .0.display())]
    Locked(PathBuf),
    #[error("{doing} {}", path.display())]
    Path {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{NAME} does not take over state {0}")]
    UnknownState(String),
    #[error("going on with what the former program had")]
    Resume(#[from] ResumeError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error("telling the service manager that the keeper is ready")]
    Notify(#[source] io::Error),
}

/// What the program `plim-keeper` does.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = super::server::chain(&error);
            // Both are all there is to tell; without a reader there is nobody to tell.
            let _ = writeln!(io::stdout(), "{text}");
            let _ = writeln!(io::stderr(), "{NAME}: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = OsString>) -> Result<(), DaemonError> {
    let (options, as_a) = match parse(args)? {
        Task::Launch(as_a) => return launch(as_a),
        Task::Answer(version) => return answer(&version),
        Task::Resume => return resume(),
        Task::Serve(options, as_a) => (options, as_a),
    };
    detach(&options)?;
    let (listener, lock) = listen(&options)?;
    match as_a {
        As::Service => sd_notify::notify(&[NotifyState::Ready]).map_err(DaemonError::Notify)?,
        As::Daemon => {
            let words = words(&options)?;
            // Whoever started us may have gone; that is no reason to end.
            let _ = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
            quiet(words)?;
        }
    }
    if !program::is_sealed() {
        tell("this host does not execute memory (vm.memfd_noexec): the keeper runs from a read-only mount of its file");
    }
    work(Server::new(listener, Some(lock), options)?)
}

/// The loop on a socket that listens, until it is told to end.
pub fn serve(listener: OwnedFd, options: Options) -> Result<(), DaemonError> {
    work(Server::new(listener, None, options)?)
}

fn work(mut server: Server) -> Result<(), DaemonError> {
    server.run()?;
    // While we hold the lock it is certainly ours; one that nobody listens on is in nobody's way.
    let _ = std::fs::remove_file(server.options().socket());
    Ok(())
}

/// Goes on in the place of the program that this process has run until now.
fn resume() -> Result<(), DaemonError> {
    let failed = |doing| move |source| LoopError::new(doing, source);
    sys::may_die("keeper: another program");
    // Both are lost in an `execve`.
    become_hidden()?;
    let left = io::stdin().as_fd().try_clone_to_owned().map_err(|error| DaemonError::Path {
        doing: "opening",
        path: "/proc/self/fd/0".into(),
        source: error,
    })?;
    let null = File::open(NULL).map_err(|source| DaemonError::Path { doing: "opening", path: NULL.into(), source })?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("letting go of the standard input"))?;
    let server = server::resume(&left)?;
    drop(left);
    tell("goes on as another program, with everything that it had");
    work(server)
}

/// Says whether we could go on from a state.
fn answer(version: &str) -> Result<(), DaemonError> {
    let line = version.parse().ok().and_then(candidate::knows);
    let line = line.ok_or_else(|| DaemonError::UnknownState(version.to_owned()))?;
    writeln!(io::stdout(), "{line}").map_err(|source| DaemonError::Path {
        doing: "writing to",
        path: "/dev/stdout".into(),
        source,
    })
}

/// What the program was told to do.
enum Task {
    /// To start a copy, or as a service to become one.
    Launch(As),
    /// It is the copy.
    Serve(Options, As),
    /// To say whether it knows a version of the state.
    Answer(String),
    /// To take over what its process had as another program.
    Resume,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// Nobody's: an agent has started it.
    Daemon,
    /// A service manager's.
    Service,
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Task, DaemonError> {
    let (mut options, mut copied, mut as_a) = (Options::new(PathBuf::new()), false, As::Daemon);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| DaemonError::Usage(format!("{} needs a value", arg.display())));
        match arg.to_str() {
            Some("--run") => options.run = value()?.into(),
            Some("--log") => options.log = Some(value()?.into()),
            Some("--cgroup") => options.cgroups.push(value()?.into()),
            Some("--start-timeout") => {
                let seconds = value()?;
                let number = seconds.to_str().and_then(|text| text.parse().ok());
                let usage = || DaemonError::Usage(format!("{} is not a number of seconds", seconds.display()));
                options.start_timeout = Duration::from_secs(number.ok_or_else(usage)?);
            }
            Some("--binary") => options.binary = Some(value()?.into()),
            Some("--service") => as_a = As::Service,
            Some(COPIED) => copied = true,
            Some(KNOWS) => return Ok(Task::Answer(value()?.to_string_lossy().into_owned())),
            Some(RESUME) => return Ok(Task::Resume),
            _ => return Err(DaemonError::Usage(format!("unknown argument {}", arg.display()))),
        }
    }
    if !options.run.is_absolute() {
        let text =
            format!("usage: {NAME} --run DIR [--log FILE | --service] [--cgroup DIR]... [--start-timeout SECONDS]");
        return Err(DaemonError::Usage(text));
    }
    Ok(if copied { Task::Serve(options, as_a) } else { Task::Launch(as_a) })
}

const COPIED: &str = "--copied";

/// Starts the copy and leaves it alone, or becomes it.
fn launch(as_a: As) -> Result<(), DaemonError> {
    let own = Path::new("/proc/self/exe");
    let failed = |doing| move |source| DaemonError::Path { doing, path: own.to_owned(), source };
    // Whatever else the agent's own starter has left open is not ours to hold.
    sys::close_on_exec_from(3).map_err(|errno| LoopError::new("leaving descriptors behind", errno))?;
    let binary = std::env::current_exe().map_err(failed("finding"))?;
    let start = |program: BorrowedFd<'_>| {
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0(NAME).args(std::env::args_os().skip(1)).arg("--binary").arg(&binary).arg(COPIED);
        match as_a {
            As::Service => Err(command.exec()),
            As::Daemon => command.spawn().map(drop),
        }
    };
    candidate::private(own, start).map(drop).map_err(failed("starting a copy of"))
}

/// Leaves everything behind that came with whoever started us.
fn detach(options: &Options) -> Result<(), DaemonError> {
    // Refused only to the leader of a group, who has been its own before.
    let _ = rustix::process::setsid();
    let errno = |doing| move |source: Errno| LoopError::new(doing, source);
    let nix_errno = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    server::reload_signals().thread_set_mask().map_err(|error| errno("setting the signal mask")(nix_errno(error)))?;
    become_hidden()?;
    rustix::process::umask(Mode::from_raw_mode(0o027));
    std::env::set_current_dir("/").map_err(|source| DaemonError::Path {
        doing: "changing to",
        path: "/".into(),
        source,
    })?;
    for cgroup in &options.cgroups {
        let path = cgroup.join("cgroup.procs");
        std::fs::write(&path, "0").map_err(|source| DaemonError::Path { doing: "joining", path, source })?;
    }
    if root_is_shared() {
        let failed = |doing| move |error| LoopError::new(doing, nix_errno(error));
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(failed("making a mount namespace"))?;
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
            .map_err(failed("keeping our mounts to ourselves"))?;
    }
    Ok(())
}

/// Nobody but root looks into this process, whose name is our own.
fn become_hidden() -> Result<(), LoopError> {
    let errno = |doing| move |source: Errno| LoopError::new(doing, source);
    rustix::thread::set_name(c"plim-keeper").map_err(errno("naming the process"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(errno("becoming non-dumpable"))
}

/// Mounts of the host go on reaching a namespace of our own only where `/` is shared. Elsewhere the
/// keeper stays: it mounts nothing itself, and must see what is mounted later.
fn root_is_shared() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| line.split(" - ").next().is_some_and(|fields| fields.contains(" shared:")))
}

/// Makes sure to be the only one, and opens the socket. Comes with the lock, which is to be held.
fn listen(options: &Options) -> Result<(OwnedFd, OwnedFd), DaemonError> {
    let path = options.lock();
    let failed = |doing| {
        let path = path.clone();
        move |source| DaemonError::Path { doing, path, source }
    };
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(failed("opening"))?;
    let begun = std::time::Instant::now();
    loop {
        match try_lock(lock.as_fd()) {
            // One that is executing another program has let go of the lock for that moment, and listens.
            Ok(true) if !address::is_listened_at(&options.socket()) => break,
            Ok(_) => {}
            Err(errno) => return Err(failed("locking")(errno.into())),
        }
        // A killed keeper needs its time to go.
        if begun.elapsed() > LOCK_WITHIN {
            return Err(DaemonError::Locked(path));
        }
        std::thread::sleep(LOCK_AGAIN);
    }
    Ok((bind(&options.socket())?, lock.into()))
}

/// Takes the lock for this process, and for nobody else that has a copy of the descriptor (`F_SETLK` of
/// fcntl_locking(2)): a child that stands frozen in its set-up outlives its keeper, and would hold a lock
/// of the open file (`flock(2)`) for as long.
///
/// False when another process has it.
fn try_lock(lock: BorrowedFd<'_>) -> Result<bool, Errno> {
    match rustix::fs::fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The lock of a process that has executed another program: it was lost when the former program's
/// descriptor was closed. Whoever takes it meanwhile lets go of it, because we listen.
pub(super) fn lock_again(lock: BorrowedFd<'_>) {
    let begun = std::time::Instant::now();
    loop {
        match try_lock(lock) {
            Ok(true) => return,
            Ok(false) if begun.elapsed() < LOCK_WITHIN => std::thread::sleep(LOCK_AGAIN),
            // Our containers count for more; that we listen is what keeps others away.
            Ok(false) => return tell("goes on without its lock: another process has it"),
            Err(errno) => return tell(&format!("goes on without its lock: {errno}")),
        }
    }
}

/// A listening socket in place of what another keeper has left there.
pub(super) fn bind(path: &Path) -> Result<OwnedFd, DaemonError> {
    let failed = |doing| move |source| DaemonError::Path { doing, path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing")(error)),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let socket = socket.map_err(|errno| failed("making a socket for")(errno.into()))?;
    address::with(path, |address| rustix::net::bind(&socket, address))
        .map_err(|errno| failed("binding")(errno.into()))?;
    // The directory is ours alone, and peers are checked besides.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed("protecting"))?;
    rustix::net::listen(&socket, 64).map_err(|errno| failed("listening on")(errno.into()))?;
    Ok(socket)
}

/// Where our own words go.
fn words(options: &Options) -> Result<File, DaemonError> {
    let path = options.log.as_deref().unwrap_or(Path::new(NULL));
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    opened.map_err(|source| DaemonError::Path { doing: "opening", path: path.to_owned(), source })
}

/// Lets go of the standard streams of whoever started us.
fn quiet(words: File) -> Result<(), DaemonError> {
    let failed = |source| DaemonError::Path { doing: "opening", path: NULL.into(), source };
    let null = OpenOptions::new().read(true).write(true).open(NULL).map_err(failed)?;
    let redirected = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&words));
    redirected.map_err(|errno| failed(errno.into()))
}

const NULL: &str = "/dev/null";

/// A word for the log.
pub(super) fn tell(text: &str) {
    // Without a log there is nobody to tell.
    let _ = writeln!(io::stderr(), "{NAME}: {text}");
}
